//! The network between nodes: what one says to another passes through here, and is held up, delayed
//! or cut off. Used by the end-to-end tests too.
//!
//! A node is reached by the others at the address of its proxy. Who is at the other end of a
//! connection is told by its first packet, the greeting of a link; what does not greet so is a
//! client, and is let through. So each direction between two nodes has its own weather:
//!
//! * *held up*: nothing arrives, and nobody is told: bytes wait, as if every packet were lost, and
//!   arrive when it is over. New connections are not made, and one that was held up for seconds is
//!   lost to both ends, as it is by the nodes' own bound for what the other machine does not
//!   receive;
//! * *refused*: connections are closed, and new ones too;
//! * *delayed*: what was said arrives later, in its order.

use naust_wire::packet::{self, Kind};
use naust_wire::peer::{self, Said};
use std::collections::BTreeMap;
use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Pieces of one direction of a connection that are on their way; behind that the sender waits.
const PIECES_MAX: usize = 256;
/// Bytes of a piece.
const PIECE_BYTES: usize = 64 * 1024;
/// So long bytes may be held up, as in the nodes' `TCP_USER_TIMEOUT`.
const HELD_UP_MAX: Duration = Duration::from_secs(5);
/// A greeting is not longer.
const GREETING_BYTES_MAX: usize = 64 * 1024;

/// One direction between two nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Weather {
    /// Nothing arrives.
    pub held_up: bool,
    /// There are no connections.
    pub refused: bool,
    /// It arrives so much later.
    pub delay: Duration,
}

/// The proxies of a cluster.
#[derive(Clone, Default)]
pub struct Network {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    weather: BTreeMap<(String, String), Weather>,
    open: BTreeMap<u64, Open>,
    opened: u64,
}

/// A connection between two nodes.
struct Open {
    from: String,
    to: String,
    ends: [TcpStream; 2],
}

impl Network {
    /// A proxy in front of the node with this name that listens at `address`; where it listens.
    ///
    /// # Errors
    /// Of the operating system.
    pub fn proxy(&self, name: &str, address: String) -> io::Result<String> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let listens = listener.local_addr()?.to_string();
        let (network, name) = (self.clone(), name.to_owned());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (network, name, address) = (network.clone(), name.clone(), address.clone());
                // A connection that can't be passed on ends, which its owner sees.
                std::thread::spawn(move || drop(network.pass(stream, &name, &address)));
            }
        });
        Ok(listens)
    }

    /// What the way from one node to another is like from now on.
    pub fn set(&self, from: &str, to: &str, weather: Weather) {
        let mut state = self.shared.lock();
        state.weather.insert((from.to_owned(), to.to_owned()), weather);
        if weather.refused {
            let of = |open: &&Open| {
                open.from == from && open.to == to || open.from == to && open.to == from
            };
            for stream in state.open.values().filter(of).flat_map(|open| &open.ends) {
                // It may have ended by itself.
                let _ = stream.shutdown(Shutdown::Both);
            }
        }
        drop(state);
        self.shared.changed.notify_all();
    }

    /// The sun shines everywhere.
    pub fn heal(&self) {
        self.shared.lock().weather.clear();
        self.shared.changed.notify_all();
    }

    fn pass(&self, mut from: TcpStream, name: &str, address: &str) -> io::Result<()> {
        from.set_nodelay(true)?;
        let (greeting, other) = greeting(&mut from)?;
        if !self.shared.lets_in(&other, name) {
            return Ok(());
        }
        let to = TcpStream::connect(address)?;
        to.set_nodelay(true)?;
        let ends = [from.try_clone()?, to.try_clone()?];
        let mut state = self.shared.lock();
        state.opened += 1;
        let number = state.opened;
        let open = Open { from: other.clone(), to: name.to_owned(), ends };
        state.open.insert(number, open);
        drop(state);
        let there = (other.clone(), name.to_owned());
        let back = (name.to_owned(), other);
        let (from_2, to_2) = (from.try_clone()?, to.try_clone()?);
        let shared = Arc::clone(&self.shared);
        let reply = std::thread::spawn(move || pump(&shared, &back, to_2, from_2, Vec::new()));
        pump(&self.shared, &there, from, to, greeting);
        drop(reply.join());
        self.shared.lock().open.remove(&number);
        Ok(())
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a new connection can be made.
    fn lets_in(&self, from: &str, to: &str) -> bool {
        let state = self.lock();
        let is_bad = |from: &str, to: &str| {
            let weather = state.weather.get(&(from.to_owned(), to.to_owned()));
            weather.is_some_and(|weather| weather.refused || weather.held_up)
        };
        !is_bad(from, to) && !is_bad(to, from)
    }

    /// Waits until what was said at `said` arrives; `false`: it never does.
    fn wait(&self, from: &str, to: &str, said: Instant) -> bool {
        let way = (from.to_owned(), to.to_owned());
        let back = (to.to_owned(), from.to_owned());
        let mut state = self.lock();
        let held_up_until = Instant::now() + HELD_UP_MAX;
        loop {
            let weather = state.weather.get(&way).copied().unwrap_or_default();
            if weather.refused || state.weather.get(&back).is_some_and(|back| back.refused) {
                return false;
            }
            let rest = (said + weather.delay).saturating_duration_since(Instant::now());
            state = match (weather.held_up, rest.is_zero()) {
                (true, _) => {
                    let rest = held_up_until.saturating_duration_since(Instant::now());
                    if rest.is_zero() {
                        return false;
                    }
                    let waited = self.changed.wait_timeout(state, rest);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
                (false, true) => return true,
                (false, false) => {
                    let waited = self.changed.wait_timeout(state, rest);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }
}

/// The first packet of a connection as far as it tells who speaks, and who that is; nobody: a
/// client.
fn greeting(from: &mut TcpStream) -> io::Result<(Vec<u8>, String)> {
    let (mut bytes, mut piece) = (Vec::new(), [0; 4096]);
    loop {
        match packet::read(&bytes) {
            Ok(Some((packet, _))) if packet.kind == Kind::PeerToAll => {
                let said = peer::open(packet.body).map(|(peer, _)| peer.said);
                let name = match said {
                    Ok(Said::Hello { name, .. }) => name,
                    _ => String::new(),
                };
                return Ok((bytes, name));
            }
            Ok(None) if bytes.len() < GREETING_BYTES_MAX => {}
            _ => return Ok((bytes, String::new())),
        }
        match from.read(&mut piece)? {
            0 => return Ok((bytes, String::new())),
            read => bytes.extend_from_slice(&piece[..read]),
        }
    }
}

/// Passes one direction on until it ends.
fn pump(
    shared: &Arc<Shared>,
    (from, to): &(String, String),
    mut source: TcpStream,
    target: TcpStream,
    first: Vec<u8>,
) {
    let (pieces, coming): (SyncSender<Piece>, Receiver<Piece>) = sync_channel(PIECES_MAX);
    if !first.is_empty() && pieces.send((Instant::now(), first)).is_err() {
        return;
    }
    let (shared, way) = (Arc::clone(shared), (from.clone(), to.clone()));
    let writer = std::thread::spawn(move || deliver(&shared, &way, &coming, target));
    let mut piece = vec![0; PIECE_BYTES];
    while let Ok(read) = source.read(&mut piece) {
        if read == 0 || pieces.send((Instant::now(), piece[..read].to_vec())).is_err() {
            break;
        }
    }
    drop(pieces);
    drop(writer.join());
}

type Piece = (Instant, Vec<u8>);

fn deliver(
    shared: &Shared,
    (from, to): &(String, String),
    coming: &Receiver<Piece>,
    mut target: TcpStream,
) {
    while let Ok((said, bytes)) = coming.recv() {
        if !shared.wait(from, to, said) || target.write_all(&bytes).is_err() {
            // Both ends hear of it.
            let _ = target.shutdown(Shutdown::Both);
            return;
        }
    }
    // The sender's end arrives like everything it said.
    if shared.wait(from, to, Instant::now()) {
        let _ = target.shutdown(Shutdown::Write);
    } else {
        let _ = target.shutdown(Shutdown::Both);
    }
}
