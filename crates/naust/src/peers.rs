//! The links of one worker to other nodes: made, made again whenever they are lost, read and
//! written.
//!
//! ```text
//!   Effect::Link ─► Resolving ─► Connecting ─► Up ─► Event::Link { is_up: true }
//!                       ▲  ▲         │          │
//!                       │  └─────────┴──────────┴──► Waiting, longer each time
//!                       └───────────────────────────────┘
//! ```
//! A link carries what this worker says; replies to requests that were passed on come back over it.
//! What the other node says of itself comes in over a connection of its own.

use crate::connection::{Connection, Next};
use crate::receive::BUFFER_BYTES;
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use naust_node::ConnectionId;
use naust_wire::limits::LINK_BYTES_MAX;
use naust_wire::packet::{self, Kind};
use naust_wire::reply::Reply;
use naust_wire::{NodeId, RequestId};
use slab::Slab;
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;

/// The event loop's name for the link in slot 0: far above those of all sockets.
const LINKS: usize = usize::MAX / 2;
/// Milliseconds before the second attempt; they double with each. The first is made at once.
const PAUSE_MS_MIN: u64 = 50;
/// Most milliseconds between two attempts.
const PAUSE_MS_MAX: u64 = 1_000;
/// Milliseconds that an address may take to accept a connection.
const CONNECT_MS_MAX: u64 = 1_000;
/// A link that stood for so many milliseconds was a good one: the next is made at once.
const GOOD_MS: u64 = 1_000;
/// Milliseconds that what was sent may wait to be received by the other machine.
#[cfg(target_os = "linux")]
const UNRECEIVED_MS_MAX: u32 = 5_000;

/// A name that is to be looked up; answered by [`Peers::resolved`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lookup {
    /// Whose address it is.
    pub node: NodeId,
    /// `HOST:PORT`.
    pub address: String,
}

/// The links of one worker.
pub struct Peers {
    registry: Registry,
    links: Slab<Link>,
    slots: BTreeMap<NodeId, usize>,
    /// Links with something to read or write.
    busy: Vec<usize>,
    buffer: Vec<u8>,
    /// Links that stand now, or no longer do, and of which the node does not know it yet.
    changes: Vec<(NodeId, bool)>,
    lookups: Vec<Lookup>,
}

struct Link {
    node: NodeId,
    /// For the operator: its number, as long as its name is not known.
    name: String,
    address: String,
    /// What the name of the address stood for when it was last looked up, and whose turn it is.
    found: Vec<SocketAddr>,
    turn: usize,
    state: State,
    /// Before the attempt after the next failure; 0: none.
    pause_ms: u64,
    /// What went wrong last, as it was told.
    trouble: String,
    is_listed: bool,
}

enum State {
    Waiting { until_ms: u64 },
    Resolving,
    Connecting { stream: TcpStream, since_ms: u64 },
    Up { connection: Box<Connection>, since_ms: u64 },
}

impl Peers {
    /// No links yet.
    #[must_use]
    pub fn new(registry: Registry) -> Peers {
        Peers {
            registry,
            links: Slab::new(),
            slots: BTreeMap::new(),
            busy: Vec::new(),
            buffer: Vec::new(),
            changes: Vec::new(),
            lookups: Vec::new(),
        }
    }

    /// Keeps up a link to a node. One that waits for its next attempt to the same address makes it
    /// now. The operator is told of it by this name.
    pub fn link(&mut self, node: NodeId, name: &str, address: String, now_ms: u64) {
        if let Some(slot) = self.slots.get(&node).copied() {
            let link = &mut self.links[slot];
            name.clone_into(&mut link.name);
            match link.state {
                State::Waiting { .. } if link.address == address => {
                    return self.attempt(slot, now_ms);
                }
                _ if link.address == address => return,
                _ => self.unlink(node),
            }
        }
        let slot = self.links.insert(Link {
            node,
            name: name.to_owned(),
            address,
            found: Vec::new(),
            turn: 0,
            state: State::Waiting { until_ms: now_ms },
            pause_ms: 0,
            trouble: String::new(),
            is_listed: false,
        });
        self.slots.insert(node, slot);
        self.attempt(slot, now_ms);
    }

    /// Makes the link to a node anew, which may stand but brings no answers.
    pub fn relink(&mut self, node: NodeId, now_ms: u64) {
        let Some(slot) = self.slots.get(&node).copied() else { return };
        if let State::Up { since_ms, .. } = &mut self.links[slot].state {
            // However long it stood, it was no good one.
            *since_ms = now_ms;
            self.lost(slot, "it does not answer", now_ms);
        }
    }

    /// Gives up the link to a node.
    pub fn unlink(&mut self, node: NodeId) {
        if let Some(slot) = self.slots.remove(&node) {
            self.down(slot);
            self.links.remove(slot);
        }
    }

    /// A name was looked up.
    pub fn resolved(&mut self, lookup: &Lookup, found: io::Result<Vec<SocketAddr>>, now_ms: u64) {
        let Some(slot) = self.slots.get(&lookup.node).copied() else { return };
        let link = &mut self.links[slot];
        if link.address != lookup.address || !matches!(link.state, State::Resolving) {
            return;
        }
        match found {
            Ok(found) if !found.is_empty() => {
                link.found = found;
                self.connect(slot, now_ms);
            }
            Ok(_) => self.lost(slot, "its name stands for no address", now_ms),
            Err(error) => self.lost(slot, &error.to_string(), now_ms),
        }
    }

    /// Sends packets over the link to a node, if it stands. One whose other end does not take what
    /// is sent is closed: then the node learns that what was sent is lost.
    pub fn push(&mut self, to: NodeId, bytes: Vec<u8>, now_ms: u64) {
        let Some(slot) = self.slots.get(&to).copied() else { return };
        let State::Up { connection, .. } = &mut self.links[slot].state else { return };
        if connection.unsent_bytes() + bytes.len() > LINK_BYTES_MAX {
            return self.lost(slot, "it takes nothing in", now_ms);
        }
        connection.push(bytes);
        self.list(slot);
    }

    /// The event loop says something about a socket; `false`: it is no link.
    pub fn on_event(&mut self, event: &mio::event::Event, now_ms: u64) -> bool {
        let Some(slot) = event.token().0.checked_sub(LINKS) else { return false };
        let Some(link) = self.links.get_mut(slot) else { return true };
        match &mut link.state {
            State::Connecting { .. } => self.connected(slot, now_ms),
            State::Up { connection, .. } => {
                if event.is_writable() {
                    connection.set_writable();
                }
                if event.is_readable() || event.is_read_closed() || event.is_error() {
                    connection.set_readable();
                    if event.is_read_closed() {
                        connection.set_read_closed();
                    }
                }
                self.list(slot);
            }
            State::Waiting { .. } | State::Resolving => {}
        }
        true
    }

    /// Whether there is something to do without waiting.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        !self.busy.is_empty() || !self.changes.is_empty() || !self.lookups.is_empty()
    }

    /// Reads once from every link that has something, and gives the whole packets to `packets`.
    pub fn read(&mut self, now_ms: u64, mut packets: impl FnMut(NodeId, &[u8])) {
        let mut at = 0;
        while let Some(slot) = self.busy.get(at).copied() {
            at += 1;
            let Some(link) = self.links.get_mut(slot) else { continue };
            let State::Up { connection, .. } = &mut link.state else { continue };
            if !connection.wants_read() {
                continue;
            }
            let (node, mut told) = (link.node, None);
            let next = connection.read(&mut self.buffer, now_ms, |bytes| {
                told = refusal(bytes);
                packets(node, bytes);
            });
            if let Some(sentence) = told {
                link.tell(&sentence);
            }
            match next {
                Next::Wait | Next::Again => {}
                Next::Close => self.lost(slot, "it closed the connection", now_ms),
                Next::Refuse(bad) => self.lost(slot, &format!("it answers {bad}"), now_ms),
            }
        }
    }

    /// Writes what is queued, all of a link at once.
    pub fn write(&mut self, now_ms: u64) {
        for slot in std::mem::take(&mut self.busy) {
            let Some(link) = self.links.get_mut(slot) else { continue };
            link.is_listed = false;
            let State::Up { connection, .. } = &mut link.state else { continue };
            match connection.write(now_ms) {
                Ok(_) if connection.wants_read() => self.list(slot),
                Ok(_) => {}
                Err(error) => self.lost(slot, &error.to_string(), now_ms),
            }
        }
    }

    /// Makes the attempts that are due, and gives up those that take too long.
    pub fn tick(&mut self, now_ms: u64) {
        for slot in 0..self.links.capacity() {
            let Some(link) = self.links.get(slot) else { continue };
            match link.state {
                State::Waiting { until_ms } if until_ms <= now_ms => self.attempt(slot, now_ms),
                State::Connecting { since_ms, .. } if now_ms > since_ms + CONNECT_MS_MAX => {
                    self.lost(slot, "it does not answer", now_ms);
                }
                _ => {}
            }
        }
    }

    /// Links that stand now, or no longer do, in their order.
    #[must_use]
    pub fn take_changes(&mut self) -> Vec<(NodeId, bool)> {
        std::mem::take(&mut self.changes)
    }

    /// Names that are to be looked up.
    #[must_use]
    pub fn take_lookups(&mut self) -> Vec<Lookup> {
        std::mem::take(&mut self.lookups)
    }

    fn attempt(&mut self, slot: usize, now_ms: u64) {
        let link = &mut self.links[slot];
        if let Ok(address) = link.address.parse() {
            link.found = vec![address];
        } else if link.turn >= link.found.len() {
            // All that it stood for was tried: it may stand for something else by now.
            link.turn = 0;
            link.state = State::Resolving;
            let lookup = Lookup { node: link.node, address: link.address.clone() };
            return self.lookups.push(lookup);
        }
        self.connect(slot, now_ms);
    }

    fn connect(&mut self, slot: usize, now_ms: u64) {
        let link = &mut self.links[slot];
        let address = link.found[link.turn % link.found.len()];
        link.turn += 1;
        let registry = &self.registry;
        let connecting = TcpStream::connect(address).and_then(|mut stream| {
            let interest = Interest::READABLE | Interest::WRITABLE;
            registry.register(&mut stream, Token(LINKS + slot), interest)?;
            Ok(stream)
        });
        match connecting {
            Ok(stream) => link.state = State::Connecting { stream, since_ms: now_ms },
            Err(error) => self.lost(slot, &error.to_string(), now_ms),
        }
    }

    /// The socket of a connection that is being made says something.
    fn connected(&mut self, slot: usize, now_ms: u64) {
        let link = &mut self.links[slot];
        let State::Connecting { stream, .. } = &link.state else { return };
        let made = match stream.take_error() {
            Ok(None) => stream.peer_addr().map(drop),
            Ok(Some(error)) | Err(error) => Err(error),
        };
        match made.and_then(|()| prepare(stream)) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotConnected => return,
            Err(error) => return self.lost(slot, &error.to_string(), now_ms),
        }
        let state = std::mem::replace(&mut link.state, State::Resolving);
        let State::Connecting { stream, .. } = state else { unreachable!("it was looked at") };
        let mut connection = Connection::new(ConnectionId(0), stream);
        connection.set_of_peer();
        link.state = State::Up { connection: Box::new(connection), since_ms: now_ms };
        link.turn -= 1;
        self.changes.push((link.node, true));
        self.buffer.resize(BUFFER_BYTES, 0);
    }

    /// An attempt failed, or a link is lost: another is made, at once if this one was good.
    fn lost(&mut self, slot: usize, why: &str, now_ms: u64) {
        let link = &mut self.links[slot];
        if matches!(link.state, State::Up { since_ms, .. } if now_ms >= since_ms + GOOD_MS) {
            link.pause_ms = 0;
            link.trouble.clear();
        }
        let until_ms = now_ms + link.pause_ms;
        link.pause_ms = (2 * link.pause_ms).clamp(PAUSE_MS_MIN, PAUSE_MS_MAX);
        link.tell(&format!("can't be reached: {why}; trying again"));
        self.down(slot);
        self.links[slot].state = State::Waiting { until_ms };
    }

    fn down(&mut self, slot: usize) {
        let link = &mut self.links[slot];
        match &mut link.state {
            State::Up { connection, .. } => {
                drop(self.registry.deregister(connection.stream()));
                self.changes.push((link.node, false));
            }
            State::Connecting { stream, .. } => drop(self.registry.deregister(stream)),
            State::Waiting { .. } | State::Resolving => {}
        }
    }

    fn list(&mut self, slot: usize) {
        if !std::mem::replace(&mut self.links[slot].is_listed, true) {
            self.busy.push(slot);
        }
    }
}

impl Link {
    /// Tells the operator what is wrong; the same once.
    fn tell(&mut self, sentence: &str) {
        if self.trouble != sentence {
            eprintln!("naust: node {} at {}: {sentence}", self.name, self.address);
            sentence.clone_into(&mut self.trouble);
        }
    }
}

/// What the other node says about the link itself: why it will not have it.
fn refusal(packets: &[u8]) -> Option<String> {
    let Ok(Some((first, _))) = packet::read(packets) else { return None };
    if first.kind != Kind::Reply || first.request != RequestId(0) {
        return None;
    }
    match Reply::decode(first.body) {
        Ok(Reply::Error(failure)) => Some(format!("it says: {}", failure.detail)),
        _ => None,
    }
}

/// Packets are batched by us, and a machine that is gone is not waited for.
fn prepare(stream: &TcpStream) -> io::Result<()> {
    use rustix::net::sockopt;
    stream.set_nodelay(true)?;
    sockopt::set_socket_keepalive(stream, true)?;
    #[cfg(target_os = "linux")]
    sockopt::set_tcp_user_timeout(stream, UNRECEIVED_MS_MAX)?;
    Ok(())
}
