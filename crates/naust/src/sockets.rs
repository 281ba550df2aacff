//! The sockets of one worker: accepting, reading, writing, closing. It knows packets only as runs
//! of bytes.

use crate::connection::{self, Connection, Next, SLOTS_MAX};
use crate::receive::BUFFER_BYTES;
use mio::net::{TcpListener, TcpStream};
use mio::{Interest, Registry, Token};
use naust_node::ConnectionId;
use naust_wire::limits::{
    KEEPALIVE_MS, KEEPALIVE_PROBE_MS, KEEPALIVE_PROBES_MAX, PACKET_MS_MAX, REQUEST_BYTES_MAX,
};
use naust_wire::packet::Bad;
use naust_wire::reply::{Failure, Reply};
use naust_wire::{Code, RequestId, ShardId};
use slab::Slab;
use std::cmp::Reverse;
use std::io::{self, ErrorKind, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The event loop's name for its queue.
pub const WAKE: Token = Token(0);
/// The event loop's name for the listener.
pub const LISTEN: Token = Token(1);
/// The event loop's name for the socket in slot 0.
const SLOTS: usize = 2;

/// From whose sockets to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whom {
    /// From all.
    All,
    /// From those of other nodes.
    Nodes,
}

/// The sockets of one worker.
pub struct Sockets {
    worker: usize,
    registry: Registry,
    listener: Option<TcpListener>,
    /// The listener may have more to accept.
    accepting: bool,
    connections: Slab<Connection>,
    /// Connections made so far.
    count: u64,
    totals: Totals,
    /// Slots to be read in the next turn.
    readable: Vec<usize>,
    /// Slots with something to write.
    unsent: Vec<usize>,
    buffer: Box<[u8]>,
    /// Connections that ended and of which the node does not know it yet.
    ended: Vec<ConnectionId>,
}

/// What the sockets of all workers have together, and may have.
#[derive(Clone, Debug)]
pub struct Totals {
    /// Connections.
    pub connections: Arc<AtomicUsize>,
    /// How many there may be.
    pub connections_max: usize,
    /// Bytes of replies that clients do not read.
    pub unread_bytes: Arc<AtomicUsize>,
    /// How many there may be.
    pub unread_bytes_max: usize,
}

impl Totals {
    /// What a connection may have unread when all have too much: whoever has more is one of those
    /// that make it too much.
    fn equal_share(&self) -> usize {
        self.unread_bytes_max / self.connections.load(Ordering::Relaxed).max(1)
    }

    fn has_too_much_unread(&self) -> bool {
        self.unread_bytes.load(Ordering::Relaxed) > self.unread_bytes_max
    }

    /// A connection has so many bytes unread now.
    fn count_unread(&self, connection: &mut Connection, bytes: usize) {
        if bytes > connection.counted_bytes {
            self.unread_bytes.fetch_add(bytes - connection.counted_bytes, Ordering::Relaxed);
        } else if bytes < connection.counted_bytes {
            self.unread_bytes.fetch_sub(connection.counted_bytes - bytes, Ordering::Relaxed);
        }
        connection.counted_bytes = bytes;
    }
}

impl Sockets {
    /// The sockets of worker `worker`, which with those of the others keep to `totals`.
    ///
    /// # Errors
    /// Of the operating system.
    pub fn new(
        worker: usize,
        registry: Registry,
        listener: Option<TcpListener>,
        totals: Totals,
    ) -> io::Result<Sockets> {
        let mut listener = listener;
        if let Some(listener) = &mut listener {
            registry.register(listener, LISTEN, Interest::READABLE)?;
        }
        Ok(Sockets {
            worker,
            registry,
            listener,
            accepting: false,
            connections: Slab::new(),
            count: 0,
            totals,
            readable: Vec::new(),
            unsent: Vec::new(),
            buffer: vec![0; BUFFER_BYTES].into_boxed_slice(),
            ended: Vec::new(),
        })
    }

    /// The event loop says something about a socket.
    pub fn on_event(&mut self, event: &mio::event::Event) {
        if event.token() == LISTEN {
            self.accepting = true;
            return;
        }
        let Some(slot) = event.token().0.checked_sub(SLOTS) else { return };
        let Some(connection) = self.connections.get_mut(slot) else { return };
        if event.is_writable() {
            connection.set_writable();
            list(connection, slot, &mut self.unsent);
        }
        if event.is_readable() || event.is_read_closed() || event.is_error() {
            connection.set_readable();
            if event.is_read_closed() {
                connection.set_read_closed();
            }
            self.readable.push(slot);
        }
    }

    /// Whether there is something to do without waiting.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        !self.readable.is_empty() || !self.unsent.is_empty() || !self.ended.is_empty()
    }

    /// Accepts whoever waits and gives those that are to be served to `adopt`. When the process has
    /// no file descriptors left they wait; this is to be called again after a while.
    pub fn accept(&mut self, mut adopt: impl FnMut(TcpStream)) {
        let Some(listener) = self.listener.as_ref().filter(|_| self.accepting) else { return };
        loop {
            match listener.accept() {
                Ok((stream, _)) => {
                    let Totals { connections, connections_max, .. } = &self.totals;
                    if connections.load(Ordering::Relaxed) >= *connections_max {
                        turn_away(stream);
                    } else {
                        connections.fetch_add(1, Ordering::Relaxed);
                        adopt(stream);
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.accepting = false;
                    return;
                }
                // The client gave up before it was accepted.
                Err(error)
                    if matches!(
                        error.kind(),
                        ErrorKind::ConnectionAborted | ErrorKind::Interrupted
                    ) => {}
                Err(_) => return,
            }
        }
    }

    /// Serves a connection that [`Sockets::accept`] of some worker has accepted and counted.
    pub fn adopt(&mut self, mut stream: TcpStream) {
        let entry = self.connections.vacant_entry();
        let slot = entry.key();
        let interest = Interest::READABLE | Interest::WRITABLE;
        let registered = self.registry.register(&mut stream, Token(SLOTS + slot), interest);
        if slot >= SLOTS_MAX || set_options(&stream).is_err() || registered.is_err() {
            self.totals.connections.fetch_sub(1, Ordering::Relaxed);
            return;
        }
        self.count += 1;
        entry.insert(Connection::new(connection::socket_id(self.worker, slot, self.count), stream));
    }

    /// Accepts nobody any more.
    pub fn stop_listening(&mut self) {
        if let Some(mut listener) = self.listener.take() {
            drop(self.registry.deregister(&mut listener));
        }
    }

    /// Reads once from every socket that has something and is of `whom`, which is asked anew for
    /// each of them (`None`: nobody's are read), and gives the whole packets to `packets`.
    pub fn read(
        &mut self,
        whom: impl Fn() -> Option<Whom>,
        now_ms: u64,
        mut packets: impl FnMut(ConnectionId, &[u8]),
    ) {
        let mut slots = std::mem::take(&mut self.readable);
        let mut again = Vec::new();
        for slot in slots.drain(..) {
            let Some(connection) = self.connections.get_mut(slot) else { continue };
            if !connection.wants_read() {
                continue;
            }
            let is_read = match whom() {
                Some(Whom::All) => true,
                Some(Whom::Nodes) => connection.is_peer(),
                None => false,
            };
            if !is_read {
                again.push(slot);
                continue;
            }
            let id = connection.id;
            match connection.read(&mut self.buffer, now_ms, |bytes| packets(id, bytes)) {
                Next::Wait => {}
                Next::Again => again.push(slot),
                Next::Close => self.end(slot),
                Next::Refuse(bad) => self.refuse(slot, bad),
            }
        }
        // What came in while this ran belongs to nobody: only events fill the list, and they came
        // before.
        slots.append(&mut again);
        self.readable = slots;
    }

    /// Queues bytes for a socket. Those for one that is gone are dropped.
    pub fn push(&mut self, to: ConnectionId, bytes: Vec<u8>) {
        if let Some((slot, connection)) = find(&mut self.connections, to) {
            connection.push(bytes);
            list(connection, slot, &mut self.unsent);
        }
    }

    /// Ends a connection once everything sent to it has left.
    pub fn close_when_sent(&mut self, id: ConnectionId) {
        if let Some((slot, connection)) = find(&mut self.connections, id) {
            connection.close_when_sent();
            list(connection, slot, &mut self.unsent);
        }
    }

    /// Stops or goes on reading from a socket.
    pub fn pause(&mut self, id: ConnectionId, on: bool) {
        if let Some((slot, connection)) = find(&mut self.connections, id) {
            connection.pause(on);
            if connection.wants_read() {
                self.readable.push(slot);
            }
        }
    }

    /// Writes what is queued: once a turn, all of a connection at once.
    pub fn write(&mut self, now_ms: u64) {
        let mut slots = std::mem::take(&mut self.unsent);
        for slot in slots.drain(..) {
            let Some(connection) = self.connections.get_mut(slot) else { continue };
            connection.listed = false;
            let written = connection.write(now_ms);
            self.totals.count_unread(connection, connection.unread_bytes());
            match written {
                Ok(true) if connection.wants_read() => self.readable.push(slot),
                Ok(true) => {}
                Ok(false) | Err(_) => self.end(slot),
            }
        }
        self.unsent = slots;
        while self.totals.has_too_much_unread() {
            let most =
                self.connections.iter().max_by_key(|(_, connection)| connection.counted_bytes);
            let share = self.totals.equal_share();
            match most {
                Some((slot, connection)) if connection.counted_bytes > share => self.end(slot),
                // Another worker has it.
                _ => break,
            }
        }
    }

    /// Ends what takes too long or holds too much: called about every second.
    pub fn sweep(&mut self, now_ms: u64) {
        let mut slow = Vec::new();
        let mut keep = Vec::new();
        let mut lingering = Vec::new();
        for (slot, connection) in &self.connections {
            if connection.has_lingered(now_ms) || connection.is_stuck(now_ms) {
                lingering.push(slot);
            } else if connection.is_too_slow(now_ms) {
                slow.push(slot);
            } else if connection.kept_bytes() > 0 {
                keep.push((connection.is_peer(), Reverse(connection.kept_bytes()), slot));
            }
        }
        lingering.into_iter().for_each(|slot| self.end(slot));
        for slot in slow {
            let seconds = PACKET_MS_MAX / 1000;
            let detail = format!("a packet took longer than {seconds} s to arrive");
            self.tell_and_close(slot, Code::Malformed, detail);
        }
        for slot in too_many(keep, REQUEST_BYTES_MAX) {
            let detail = "too many large packets are under way on other connections".to_owned();
            self.tell_and_close(slot, Code::Overloaded, detail);
        }
    }

    /// Has the listener tried again, in case file descriptors ran out before.
    #[must_use]
    pub fn wants_accept(&self) -> bool {
        self.accepting && self.listener.is_some()
    }

    /// Connections that ended since the last call, for the node.
    #[must_use]
    pub fn take_ended(&mut self) -> Vec<ConnectionId> {
        std::mem::take(&mut self.ended)
    }

    /// Whether every reply has left.
    #[must_use]
    pub fn is_sent(&self) -> bool {
        self.connections.iter().all(|(_, connection)| connection.is_sent())
    }

    fn refuse(&mut self, slot: usize, bad: Bad) {
        let code = match bad {
            Bad::Version(_) => Code::UnknownVersion,
            Bad::Length(_) => Code::TooLarge,
            _ => Code::Malformed,
        };
        self.tell_and_close(slot, code, bad.to_string());
    }

    fn tell_and_close(&mut self, slot: usize, code: Code, detail: String) {
        let Some(connection) = self.connections.get_mut(slot) else { return };
        connection.push(error_packet(code, detail));
        connection.close_when_sent();
        list(connection, slot, &mut self.unsent);
    }

    fn end(&mut self, slot: usize) {
        let mut connection = self.connections.remove(slot);
        drop(self.registry.deregister(connection.stream()));
        self.totals.connections.fetch_sub(1, Ordering::Relaxed);
        self.totals.count_unread(&mut connection, 0);
        self.ended.push(connection.id);
    }
}

fn find(connections: &mut Slab<Connection>, id: ConnectionId) -> Option<(usize, &mut Connection)> {
    let slot = connection::slot_of(id);
    let found = connections.get_mut(slot).filter(|connection| connection.id == id)?;
    Some((slot, found))
}

fn list(connection: &mut Connection, slot: usize, unsent: &mut Vec<usize>) {
    if !connection.listed {
        connection.listed = true;
        unsent.push(slot);
    }
}

/// An error that answers no request in particular.
fn error_packet(code: Code, detail: String) -> Vec<u8> {
    let mut bytes = Vec::new();
    let reply = Reply::Error(Failure::new(code, detail));
    naust_wire::reply::write(RequestId(0), ShardId::DIRECTORY, &reply, &mut bytes);
    bytes
}

/// Replies leave at once, and whoever is gone without a word is found out.
fn set_options(stream: &TcpStream) -> io::Result<()> {
    use rustix::net::sockopt;
    use std::time::Duration;
    stream.set_nodelay(true)?;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, Duration::from_millis(KEEPALIVE_MS))?;
    sockopt::set_tcp_keepintvl(stream, Duration::from_millis(KEEPALIVE_PROBE_MS))?;
    sockopt::set_tcp_keepcnt(stream, KEEPALIVE_PROBES_MAX)?;
    Ok(())
}

fn turn_away(mut stream: TcpStream) {
    let detail = "the node holds as many connections as it may; try again later".to_owned();
    // It is told if it listens; it is closed in any case.
    drop(stream.write(&error_packet(Code::Overloaded, detail)));
    drop(stream.shutdown(std::net::Shutdown::Write));
}

/// Which connections have to go so that no more than `bytes_max` of packets that are not whole are
/// kept: those of clients before those of other nodes, and the largest of them first.
fn too_many(mut keep: Vec<(bool, Reverse<usize>, usize)>, bytes_max: usize) -> Vec<usize> {
    let mut bytes: usize = keep.iter().map(|(_, Reverse(bytes), _)| bytes).sum();
    keep.sort_unstable();
    let go = keep.into_iter().take_while(|(_, Reverse(kept), _)| {
        let is_over = bytes > bytes_max;
        bytes -= kept;
        is_over
    });
    go.map(|(.., slot)| slot).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use naust_wire::limits::UNREAD_MS_MAX;
    use naust_wire::packet::{self, Kind};
    use std::io::Read as _;
    use std::net::{SocketAddr, TcpStream as Client};

    /// An event loop around sockets, and what came out of it.
    struct Server {
        poll: mio::Poll,
        sockets: Sockets,
        address: SocketAddr,
        received: Vec<(ConnectionId, Vec<u8>)>,
        ended: Vec<ConnectionId>,
        now_ms: u64,
    }

    impl Server {
        fn new(connections_max: usize) -> Server {
            let poll = mio::Poll::new().unwrap();
            let listener = TcpListener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
            let address = listener.local_addr().unwrap();
            let totals = Totals {
                connections: Arc::default(),
                connections_max,
                unread_bytes: Arc::default(),
                unread_bytes_max: 64 * 1024 * 1024,
            };
            let registry = poll.registry().try_clone().unwrap();
            let sockets = Sockets::new(3, registry, Some(listener), totals).unwrap();
            Server { poll, sockets, address, received: vec![], ended: vec![], now_ms: 0 }
        }

        fn turn_until(&mut self, done: impl Fn(&Server) -> bool) {
            self.turn_reading(|| Some(Whom::All), done);
        }

        fn turn_reading(
            &mut self,
            whom: impl Fn() -> Option<Whom>,
            done: impl Fn(&Server) -> bool,
        ) {
            let mut events = mio::Events::with_capacity(64);
            while !done(self) {
                let busy = self.sockets.is_busy().then_some(std::time::Duration::ZERO);
                self.poll.poll(&mut events, busy).unwrap();
                events.iter().for_each(|event| self.sockets.on_event(event));
                let mut accepted = Vec::new();
                self.sockets.accept(|stream| accepted.push(stream));
                accepted.into_iter().for_each(|stream| self.sockets.adopt(stream));
                let received = &mut self.received;
                self.sockets
                    .read(&whom, self.now_ms, |id, bytes| received.push((id, bytes.to_vec())));
                self.sockets.write(self.now_ms);
                self.ended.append(&mut self.sockets.take_ended());
            }
        }

        fn is_lingering(&self) -> bool {
            self.sockets.connections.iter().any(|(_, c)| c.has_lingered(u64::MAX))
        }

        fn connections(&self) -> usize {
            self.sockets.connections.len()
        }
    }

    fn packet(size: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        packet::write(Kind::Commit, RequestId(1), ShardId(1), &vec![5; size], &mut bytes);
        bytes
    }

    fn told(client: &mut Client) -> (Code, String) {
        let mut bytes = Vec::new();
        client.read_to_end(&mut bytes).unwrap();
        let (packet, _) = packet::read(&bytes).unwrap().expect("a whole packet");
        match Reply::decode(packet.body).unwrap() {
            Reply::Error(failure) => (failure.code, failure.detail),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_sent_arrives_and_what_is_pushed_comes_back() {
        let mut server = Server::new(10);
        let mut client = Client::connect(server.address).unwrap();
        client.write_all(&packet(3)).unwrap();
        server.turn_until(|server| !server.received.is_empty());
        let (id, bytes) = server.received.pop().unwrap();
        assert_eq!(bytes, packet(3));
        server.sockets.push(id, b"hello ".to_vec());
        server.sockets.push(id, b"you".to_vec());
        server.sockets.close_when_sent(id);
        server.turn_until(|server| server.is_lingering());
        // What comes after is thrown away, and takes nothing back.
        client.write_all(&packet(3)).unwrap();
        let mut back = String::new();
        client.read_to_string(&mut back).unwrap();
        assert_eq!(back, "hello you");
        drop(client);
        server.turn_until(|server| server.ended == [id]);
        assert!(server.received.is_empty());
        // A late reply to a connection that is gone, whose slot another has by now.
        let _other = Client::connect(server.address).unwrap();
        server.turn_until(|server| server.connections() == 1);
        server.sockets.push(id, b"late".to_vec());
        assert!(server.sockets.is_sent());
    }

    #[test]
    fn one_connection_too_many_is_told_and_closed() {
        let mut server = Server::new(2);
        let first = Client::connect(server.address).unwrap();
        let _second = Client::connect(server.address).unwrap();
        server.turn_until(|server| server.connections() == 2);
        let mut third = Client::connect(server.address).unwrap();
        // The first goes when the third has been turned away: accepting comes before reading.
        drop(first);
        server.turn_until(|server| server.connections() == 1);
        assert_eq!(told(&mut third).0, Code::Overloaded);
        let _fourth = Client::connect(server.address).unwrap();
        server.turn_until(|server| server.connections() == 2);
    }

    #[test]
    fn bytes_that_are_no_packets_are_answered_and_the_connection_ends() {
        let mut server = Server::new(10);
        for (bytes, code) in [
            (&b"GET / HTTP/1.1\r\n\r\n"[..], Code::Malformed),
            (&[packet::MAGIC, 77][..], Code::UnknownVersion),
            (&[packet::MAGIC, packet::VERSION, 1, 0, 0, 0, 0, 255][..], Code::TooLarge),
        ] {
            let mut client = Client::connect(server.address).unwrap();
            client.write_all(bytes).unwrap();
            server.turn_until(|server| server.is_lingering());
            assert_eq!(told(&mut client).0, code);
            // One that doesn't close by itself is closed after a while.
            server.now_ms += 10_000;
            server.sockets.sweep(server.now_ms);
            server.turn_until(|server| server.connections() == 0);
        }
    }

    #[test]
    fn a_packet_that_drips_too_slowly_ends_its_connection_alone() {
        let mut server = Server::new(10);
        let mut slow = Client::connect(server.address).unwrap();
        let _idle = Client::connect(server.address).unwrap();
        slow.write_all(&packet(10)[..9]).unwrap();
        let kept = |server: &Server| {
            server.sockets.connections.iter().map(|(_, c)| c.kept_bytes()).sum::<usize>() == 9
        };
        server.turn_until(|server| server.connections() == 2 && kept(server));
        server.sockets.sweep(PACKET_MS_MAX);
        assert!(!server.sockets.is_busy());
        server.sockets.sweep(PACKET_MS_MAX + 1);
        server.turn_until(|server| server.is_lingering());
        let (code, detail) = told(&mut slow);
        drop(slow);
        server.turn_until(|server| server.ended.len() == 1);
        assert_eq!(server.connections(), 1);
        assert_eq!(code, Code::Malformed);
        assert!(detail.contains("30 s"), "{detail}");
    }

    #[test]
    fn a_paused_connection_is_not_read_until_it_may_go_on() {
        let mut server = Server::new(10);
        let mut client = Client::connect(server.address).unwrap();
        client.write_all(&packet(1)).unwrap();
        server.turn_until(|server| !server.received.is_empty());
        let id = server.received[0].0;
        server.sockets.pause(id, true);
        client.write_all(&packet(2)).unwrap();
        // Another connection's packets, sent later, arrive; the paused one's do not.
        let mut other = Client::connect(server.address).unwrap();
        other.write_all(&packet(3)).unwrap();
        server.turn_until(|server| server.received.len() == 2);
        assert_eq!(server.received[1].1, packet(3));
        server.sockets.pause(id, false);
        server.turn_until(|server| server.received.len() == 3);
        assert_eq!(server.received[2], (id, packet(2)));
    }

    /// Clients that sent a packet each, in the order of their connections.
    fn clients(server: &mut Server, count: usize) -> Vec<(Client, ConnectionId)> {
        let mut clients = Vec::new();
        for _ in 0..count {
            let mut client = Client::connect(server.address).unwrap();
            client.write_all(&packet(1)).unwrap();
            server.turn_until(|server| !server.received.is_empty());
            clients.push((client, server.received.pop().unwrap().0));
        }
        clients
    }

    #[test]
    fn who_takes_no_byte_for_long_is_gone_and_who_takes_a_little_is_not() {
        const MIB: usize = 1024 * 1024;
        let mut server = Server::new(10);
        let mut clients = clients(&mut server, 3);
        let (_idle, (slow, stuck)) = (clients.remove(0), (clients.remove(0), clients.remove(0)));
        for id in [slow.1, stuck.1] {
            server.sockets.push(id, vec![1; 20 * MIB]);
        }
        server.sockets.write(5);
        server.sockets.sweep(5 + UNREAD_MS_MAX);
        assert_eq!(server.connections(), 3);
        let (mut slow, id) = slow;
        // It reads a little whenever it is asked to, and then holds on.
        let (ask, asked) = std::sync::mpsc::channel::<()>();
        let _reader = std::thread::spawn(move || {
            while asked.recv().is_ok() && slow.read_exact(&mut vec![0; MIB]).is_ok() {}
            slow
        });
        let unread = |server: &Server, id: ConnectionId| {
            let mut all = server.sockets.connections.iter();
            all.find(|(_, connection)| connection.id == id).unwrap().1.unread_bytes()
        };
        server.now_ms = 5;
        // The system may have taken something of the other one only now: then it has its time, too.
        for attempts in 0.. {
            assert!(attempts < 12, "it is never gone");
            let before = unread(&server, id);
            server.now_ms += UNREAD_MS_MAX;
            ask.send(()).unwrap();
            server.turn_until(|server| unread(server, id) < before);
            server.sockets.sweep(server.now_ms + 1);
            let ended = server.sockets.take_ended();
            if ended == [stuck.1] {
                break;
            }
            assert_eq!(ended, []);
        }
        server.sockets.sweep(server.now_ms + UNREAD_MS_MAX + 1);
        assert_eq!(server.sockets.take_ended(), [id]);
        assert_eq!(server.sockets.totals.unread_bytes.load(Ordering::Relaxed), 0);
        server.sockets.sweep(u64::MAX);
        assert_eq!(server.connections(), 1, "who is owed nothing may be silent");
    }

    #[test]
    fn past_what_all_may_leave_unread_the_one_with_the_most_goes() {
        const MIB: usize = 1024 * 1024;
        let mut server = Server::new(10);
        let clients = clients(&mut server, 4);
        for (at, mebibytes) in [30, 60, 8, 10].into_iter().enumerate() {
            server.sockets.push(clients[at].1, vec![1; mebibytes * MIB]);
        }
        server.sockets.write(0);
        assert_eq!(server.sockets.take_ended(), [clients[1].1]);
        // Others have it: nobody here has more than an equal share.
        server.sockets.totals.unread_bytes.fetch_add(200 * MIB, Ordering::Relaxed);
        server.sockets.totals.connections.fetch_sub(2, Ordering::Relaxed);
        server.sockets.push(clients[2].1, vec![1; MIB]);
        server.sockets.write(0);
        assert_eq!(server.sockets.take_ended(), []);
        server.sockets.totals.connections.fetch_add(2, Ordering::Relaxed);
        server.sockets.push(clients[2].1, vec![1; MIB]);
        server.sockets.write(0);
        assert_eq!(server.sockets.take_ended(), [clients[0].1]);
    }

    #[test]
    fn the_operating_system_asks_whether_the_other_side_is_there() {
        use rustix::net::sockopt;
        let mut server = Server::new(10);
        let _client = Client::connect(server.address).unwrap();
        server.turn_until(|server| server.connections() == 1);
        let (_, connection) = server.sockets.connections.iter_mut().next().unwrap();
        let stream = connection.stream();
        assert!(sockopt::socket_keepalive(&*stream).unwrap());
        assert_eq!(sockopt::tcp_keepidle(&*stream).unwrap().as_secs(), KEEPALIVE_MS / 1000);
        assert_eq!(sockopt::tcp_keepcnt(&*stream).unwrap(), KEEPALIVE_PROBES_MAX);
    }

    #[test]
    fn a_large_packet_comes_through_and_a_client_that_does_not_read_is_not_read() {
        let mut server = Server::new(10);
        let mut client = Client::connect(server.address).unwrap();
        let large = packet(3 * BUFFER_BYTES);
        let sent = large.clone();
        let writer = std::thread::spawn(move || {
            client.write_all(&sent).unwrap();
            client
        });
        server.turn_until(|server| !server.received.is_empty());
        assert_eq!(server.received[0].1, large);
        let id = server.received[0].0;
        let mut client = writer.join().unwrap();
        let unread = naust_wire::limits::REPLY_BYTES_PER_CONNECTION_MAX + 8 * 1024 * 1024;
        server.sockets.push(id, vec![1; unread]);
        server.sockets.write(0);
        client.write_all(&packet(9)).unwrap();
        let mut other = Client::connect(server.address).unwrap();
        other.write_all(&packet(3)).unwrap();
        server.turn_until(|server| server.received.len() == 2);
        assert_eq!(server.received[1].1, packet(3));
        let reader = std::thread::spawn(move || {
            let mut bytes = vec![0; unread];
            client.read_exact(&mut bytes).unwrap();
            client
        });
        server.turn_until(|server| server.received.len() == 3 && server.sockets.is_sent());
        assert_eq!(server.received[2], (id, packet(9)));
        drop(reader.join().unwrap());
    }

    /// Why: small packets of many sockets, all read before anybody looked, filled another worker's
    /// queue.
    #[test]
    fn before_each_socket_it_is_asked_whether_to_read_on() {
        let mut server = Server::new(8);
        let mut clients: Vec<_> =
            (0..4).map(|_| TcpStream::connect(server.address).unwrap()).collect();
        server.turn_until(|server| server.connections() == 4);
        let mut bytes = Vec::new();
        packet::write(Kind::Ask, RequestId(1), ShardId(1), b"", &mut bytes);
        clients.iter_mut().for_each(|client| client.write_all(&bytes).unwrap());
        let left = std::cell::Cell::new(2);
        let asked = std::cell::Cell::new(0);
        let whom = || {
            asked.set(asked.get() + 1);
            left.set(left.get() - 1);
            (left.get() >= 0).then_some(Whom::All)
        };
        server.turn_reading(whom, |_| asked.get() > 20);
        assert_eq!(server.received.len(), 2);
        server.turn_until(|server| server.received.len() == 4);
    }

    #[test]
    fn of_packets_under_way_the_largest_of_clients_go_first() {
        let keep = |peer, bytes, slot| (peer, Reverse(bytes), slot);
        let all =
            vec![keep(true, 90, 0), keep(false, 10, 1), keep(false, 50, 2), keep(false, 20, 3)];
        let table: [(usize, &[usize]); 5] =
            [(170, &[]), (169, &[2]), (120, &[2]), (119, &[2, 3]), (50, &[2, 3, 1, 0])];
        for (bytes_max, expected) in table {
            assert_eq!(too_many(all.clone(), bytes_max), expected, "{bytes_max}");
        }
    }
}
