//! One client of the simulator on a real socket, in a thread of its own.

use crate::record::Record;
use naust_sim::generator::Generator;
use naust_sim::plan::Plan;
use naust_sim::workload::client::Client;
use naust_wire::ShardId;
use naust_wire::packet;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// After so much silence a client with something under way goes elsewhere.
const IMPATIENCE: Duration = Duration::from_secs(2);
/// How long a node may take to accept a connection.
const CONNECT_MAX: Duration = Duration::from_millis(500);
/// One look at a socket.
const LOOK: Duration = Duration::from_millis(50);
/// Before another node is tried, and after an answer that says that it is too early.
const PAUSE: Duration = Duration::from_millis(10);
/// Once it is to finish, what is in doubt is sent again for so long.
const FINISH_MAX: Duration = Duration::from_secs(60);

/// What all clients of a round share.
pub struct Shared {
    /// What is asked and told.
    pub record: Record,
    /// Where nodes are, and whether each had replicas of everything when it was noted.
    pub addresses: Mutex<Vec<(SocketAddr, bool)>>,
    /// What the life is like.
    pub plan: Plan,
    /// Commits of one life have numbers.
    pub drawn: AtomicU64,
    /// Nothing new is to be asked.
    pub finish: AtomicBool,
}

/// A client and where it sits.
pub struct Seat {
    shared: Arc<Shared>,
    number: usize,
    client: Client,
    chance: Generator,
    finish_by: Option<Instant>,
}

/// A connection.
struct Line {
    socket: TcpStream,
    number: u64,
    here: bool,
    input: Vec<u8>,
    heard: Instant,
}

impl Seat {
    /// A client of the namespace of this number.
    pub fn new(shared: Arc<Shared>, number: usize, mut chance: Generator, namespace: u64) -> Seat {
        let client = Client::new(chance.fork(), namespace);
        Seat { shared, number, client, chance, finish_by: None }
    }

    /// Asks until it is told to finish, and then until nothing is in doubt. Gives the shard that it
    /// used; `None`: something stayed in doubt, or it never found its shard.
    pub fn run(mut self) -> Option<ShardId> {
        let mut line = None;
        loop {
            if self.shared.finish.load(Ordering::Relaxed) && self.finish_by.is_none() {
                self.client.finish();
                self.finish_by = Some(Instant::now() + FINISH_MAX);
            }
            if let Some(by) = self.finish_by {
                if self.client.is_idle() {
                    self.shared.record.loses(&mut self.client);
                    return self.client.shard();
                }
                if Instant::now() > by {
                    self.shared.record.loses(&mut self.client);
                    return None;
                }
            }
            match line.take().or_else(|| self.connect()) {
                None => std::thread::sleep(PAUSE),
                Some(mut connected) => match self.turn(&mut connected) {
                    Ok(()) => line = Some(connected),
                    Err(_) => self.shared.record.loses(&mut self.client),
                },
            }
        }
    }

    fn connect(&mut self) -> Option<Line> {
        let addresses = self.shared.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        let (address, here) = *self.chance.pick(&addresses);
        drop(addresses);
        let socket = TcpStream::connect_timeout(&address, CONNECT_MAX).ok()?;
        socket.set_nodelay(true).ok()?;
        socket.set_read_timeout(Some(LOOK)).ok()?;
        socket.set_write_timeout(Some(IMPATIENCE)).ok()?;
        let number = self.shared.record.line();
        self.client.connected();
        Some(Line { socket, number, here, input: Vec::new(), heard: Instant::now() })
    }

    /// Sends what there is to send, and hears what there is to hear.
    fn turn(&mut self, line: &mut Line) -> io::Result<()> {
        let mut bytes = Vec::new();
        let waited = self.client.under_way() > 0;
        for _ in 0..self.chance.skewed(1, 8) {
            let number = self.shared.drawn.fetch_add(1, Ordering::Relaxed);
            let Some(outgoing) = self.client.next(&self.shared.plan, number) else { break };
            let client = (self.number, &mut self.client);
            self.shared.record.sends(client, &outgoing, line.number, line.here);
            bytes.extend_from_slice(&outgoing.bytes);
        }
        if !waited {
            line.heard = Instant::now();
        }
        line.socket.write_all(&bytes)?;
        if self.client.under_way() > 0 {
            return self.hear(line);
        }
        self.think();
        Ok(())
    }

    fn hear(&mut self, line: &mut Line) -> io::Result<()> {
        let mut piece = vec![0; 64 * 1024];
        match line.socket.read(&mut piece) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => line.input.extend_from_slice(&piece[..read]),
            Err(error) if is_silence(&error) && line.heard.elapsed() < IMPATIENCE => return Ok(()),
            Err(error) => return Err(error),
        }
        line.heard = Instant::now();
        let mut whole = 0;
        while whole < line.input.len() {
            let wanted = packet::wanted(&line.input[whole..]);
            if line.input.len() - whole < wanted {
                break;
            }
            whole += wanted;
        }
        let packets: Vec<u8> = line.input.drain(..whole).collect();
        let client = (self.number, &mut self.client);
        let too_early = self.shared.record.hears(client, &packets);
        if too_early {
            std::thread::sleep(PAUSE);
            // Another node may know better.
            if self.chance.below(8) == 0 {
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
        }
        self.think();
        Ok(())
    }

    fn think(&mut self) {
        let most = self.shared.plan.work.think_micros;
        let micros = self.chance.skewed(1, most.max(1));
        std::thread::sleep(Duration::from_micros(micros));
    }
}

fn is_silence(error: &io::Error) -> bool {
    use io::ErrorKind::{Interrupted, TimedOut, WouldBlock};
    matches!(error.kind(), WouldBlock | TimedOut | Interrupted)
}
