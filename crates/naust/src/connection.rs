//! One connection of a worker: a socket, what is kept of a packet, what waits to be sent.

use crate::outgoing::Outgoing;
use crate::receive::{Received, Receiver};
use mio::net::TcpStream;
use naust_node::ConnectionId;
use naust_wire::limits::{
    REPLY_BYTES_PER_CONNECTION_MAX, UNREAD_BYTES_PER_CONNECTION_MAX, UNREAD_MS_MAX,
};
use naust_wire::packet::Kind;
use std::io::{self, Read as _};
use std::net::Shutdown;

/// How long a connection that was told everything waits for the other side to close.
const LINGER_MS: u64 = 1000;

const WORKER_SHIFT: u32 = 56;
const SLOT_SHIFT: u32 = 40;
const LINK_BIT: u64 = 1 << 39;
/// Connections of one worker at a time: what the slot part of an id can tell apart.
pub const SLOTS_MAX: usize = 1 << (WORKER_SHIFT - SLOT_SHIFT);

/// The id of the `count`th connection of a worker, in a slot of its table. Ids name their worker,
/// so that replies find the way from any thread.
#[must_use]
pub fn socket_id(worker: usize, slot: usize, count: u64) -> ConnectionId {
    let place = (worker as u64) << WORKER_SHIFT | (slot as u64) << SLOT_SHIFT;
    ConnectionId(place | count & (LINK_BIT - 1))
}

/// The id of the `count`th embedded client of a worker.
#[must_use]
pub fn link_id(worker: usize, count: u64) -> ConnectionId {
    ConnectionId((worker as u64) << WORKER_SHIFT | LINK_BIT | count & (LINK_BIT - 1))
}

/// The worker of a connection.
#[must_use]
pub fn worker_of(id: ConnectionId) -> usize {
    (id.0 >> WORKER_SHIFT) as usize
}

/// The slot of a socket in its worker's table.
#[must_use]
pub fn slot_of(id: ConnectionId) -> usize {
    (id.0 >> SLOT_SHIFT) as usize & (SLOTS_MAX - 1)
}

/// Whether an embedded client is meant.
#[must_use]
pub fn is_link(id: ConnectionId) -> bool {
    id.0 & LINK_BIT != 0
}

/// A socket and what belongs to it.
pub struct Connection {
    /// Its id; slots are used again, ids never.
    pub id: ConnectionId,
    stream: TcpStream,
    receiver: Receiver,
    outgoing: Outgoing,
    /// Workers that asked not to read from it.
    pauses: usize,
    /// The socket may have more to read.
    readable: bool,
    /// The other side sends no more: what is left is to be read up to its end, since the event loop
    /// will not say it again.
    read_closed: bool,
    /// The socket takes no more for now.
    blocked: bool,
    /// When it took a byte last, or was given one, while something waits to be sent.
    waits_since_ms: Option<u64>,
    /// What of it the worker's count of unread bytes has.
    pub counted_bytes: usize,
    /// It ends when everything has left.
    closing: bool,
    /// Everything has left and the other side was told so; until it closes too, or until this
    /// moment, what it still sends is thrown away: closing with something unread would take the
    /// last replies back.
    lingers_until_ms: Option<u64>,
    /// It is another node's: it is never told to wait, since elections hang on it. What it asks for
    /// is bounded where that came in.
    is_peer: bool,
    /// It is in the worker's list of connections with something to write.
    pub listed: bool,
}

/// What reading from a connection calls for.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// Nothing until the socket says more.
    Wait,
    /// Read again in the next turn.
    Again,
    /// Close it: the other side has, or the socket failed.
    Close,
    /// Tell it what was wrong with its bytes, then close it.
    Refuse(naust_wire::packet::Bad),
}

impl Connection {
    /// A connection over a socket that does not block.
    #[must_use]
    pub fn new(id: ConnectionId, stream: TcpStream) -> Connection {
        Connection {
            id,
            stream,
            receiver: Receiver::default(),
            outgoing: Outgoing::default(),
            pauses: 0,
            readable: false,
            read_closed: false,
            blocked: false,
            waits_since_ms: None,
            counted_bytes: 0,
            closing: false,
            lingers_until_ms: None,
            is_peer: false,
            listed: false,
        }
    }

    /// The socket, to be taken out of the event loop.
    pub fn stream(&mut self) -> &mut TcpStream {
        &mut self.stream
    }

    /// The socket says that there is something to read.
    pub fn set_readable(&mut self) {
        self.readable = true;
    }

    /// The other side will send no more than what is there.
    pub fn set_read_closed(&mut self) {
        self.read_closed = true;
    }

    /// The socket says that it takes more.
    pub fn set_writable(&mut self) {
        self.blocked = false;
    }

    /// It leads to another node.
    pub fn set_of_peer(&mut self) {
        self.is_peer = true;
    }

    /// Whether it is another node's.
    #[must_use]
    pub fn is_peer(&self) -> bool {
        self.is_peer
    }

    /// Whether to read now.
    #[must_use]
    pub fn wants_read(&self) -> bool {
        let free = self.pauses == 0 && self.outgoing.bytes() <= REPLY_BYTES_PER_CONNECTION_MAX;
        let open = !self.closing && (free || self.is_peer);
        self.readable && (open || self.lingers_until_ms.is_some())
    }

    /// A worker asks not to read any more, or takes that back.
    pub fn pause(&mut self, on: bool) {
        self.pauses = if on { self.pauses + 1 } else { self.pauses.saturating_sub(1) };
    }

    /// Whether it lingers longer than it may.
    #[must_use]
    pub fn has_lingered(&self, now_ms: u64) -> bool {
        self.lingers_until_ms.is_some_and(|until| now_ms > until)
    }

    /// Whether a packet takes longer than it may.
    #[must_use]
    pub fn is_too_slow(&self, now_ms: u64) -> bool {
        // While nothing is read the client is not to blame.
        !self.readable && self.receiver.is_too_slow(now_ms)
    }

    /// Bytes that are kept of a packet that is not whole.
    #[must_use]
    pub fn kept_bytes(&self) -> usize {
        self.receiver.kept_bytes()
    }

    /// Reads once and gives the whole packets to `packets`.
    pub fn read(&mut self, buffer: &mut [u8], now_ms: u64, packets: impl FnOnce(&[u8])) -> Next {
        if self.lingers_until_ms.is_some() {
            return self.throw_away(buffer);
        }
        let is_peer = &mut self.is_peer;
        let packets = |bytes: &[u8]| {
            *is_peer |= begins_with_greeting(bytes);
            packets(bytes);
        };
        match self.receiver.read(&mut self.stream, buffer, now_ms, packets) {
            Received::All if self.read_closed => Next::Again,
            Received::All => {
                self.readable = false;
                Next::Wait
            }
            Received::More => Next::Again,
            Received::End | Received::Failed => Next::Close,
            Received::Bad(bad) => Next::Refuse(bad),
        }
    }

    fn throw_away(&mut self, buffer: &mut [u8]) -> Next {
        match self.stream.read(buffer) {
            Ok(0) => Next::Close,
            Ok(_) => Next::Again,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Next::Again,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.readable = false;
                Next::Wait
            }
            Err(_) => Next::Close,
        }
    }

    /// Bytes that wait to be sent.
    #[must_use]
    pub fn unsent_bytes(&self) -> usize {
        self.outgoing.bytes()
    }

    /// Adds bytes to be sent.
    pub fn push(&mut self, bytes: Vec<u8>) {
        self.outgoing.push(bytes);
    }

    /// Ends the connection once everything has left.
    pub fn close_when_sent(&mut self) {
        self.closing = true;
    }

    /// Sends what waits, as far as the socket takes it. Says whether the connection goes on.
    ///
    /// # Errors
    /// Of the socket: the connection is of no more use.
    pub fn write(&mut self, now_ms: u64) -> io::Result<bool> {
        let before = self.outgoing.bytes();
        if !self.blocked {
            self.blocked = !self.outgoing.write_to(&mut self.stream)?;
        }
        let unread = self.outgoing.bytes();
        match self.waits_since_ms {
            _ if unread == 0 => self.waits_since_ms = None,
            Some(_) if unread == before => {}
            _ => self.waits_since_ms = Some(now_ms),
        }
        if self.closing && unread == 0 && self.lingers_until_ms.is_none() {
            self.stream.shutdown(Shutdown::Write)?;
            self.lingers_until_ms = Some(now_ms + LINGER_MS);
            self.readable = true;
        }
        Ok(unread <= UNREAD_BYTES_PER_CONNECTION_MAX)
    }

    /// Bytes that wait to be sent.
    #[must_use]
    pub fn unread_bytes(&self) -> usize {
        self.outgoing.bytes()
    }

    /// Whether the other side has taken nothing for longer than it may.
    #[must_use]
    pub fn is_stuck(&self, now_ms: u64) -> bool {
        self.waits_since_ms.is_some_and(|since| now_ms > since + UNREAD_MS_MAX)
    }

    /// Whether everything has left.
    #[must_use]
    pub fn is_sent(&self) -> bool {
        self.outgoing.bytes() == 0
    }
}

/// Whether whole packets begin with what only nodes say first.
fn begins_with_greeting(packets: &[u8]) -> bool {
    matches!(packets, [_, _, low, high, ..]
        if u16::from_le_bytes([*low, *high]) == Kind::PeerToAll as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_name_their_worker_and_slot() {
        for (worker, slot, count) in [(0, 0, 1), (3, 4095, 77), (254, SLOTS_MAX - 1, LINK_BIT - 1)]
        {
            let id = socket_id(worker, slot, count);
            assert_eq!((worker_of(id), slot_of(id), is_link(id)), (worker, slot, false));
            assert!(is_link(link_id(worker, count)));
            assert_eq!(worker_of(link_id(worker, count)), worker);
        }
    }
}
