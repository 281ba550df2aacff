//! Packets without a client: what is sent is what the story says, and nothing is sent again.

use crate::support::DEADLINE;
use naust_wire::ask::Ask;
use naust_wire::commit::Draft;
use naust_wire::control::Control;
use naust_wire::packet::{self, Kind};
use naust_wire::read::{Level, Query, Read};
use naust_wire::reply::{Committed, Reply};
use naust_wire::{RequestId, Sequence, SessionId, ShardId};
use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;

/// One connection.
pub struct Wire {
    pub socket: TcpStream,
    input: Vec<u8>,
    pub shard: ShardId,
}

impl Wire {
    pub fn connect(address: &str) -> io::Result<Wire> {
        let socket = TcpStream::connect(address)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(DEADLINE))?;
        socket.set_write_timeout(Some(DEADLINE))?;
        Ok(Wire { socket, input: Vec::new(), shard: ShardId::DIRECTORY })
    }

    /// Connects, greets, and finds the namespace.
    pub fn enter(address: &str, namespace: &str) -> Wire {
        let mut wire = Wire::connect(address).unwrap();
        wire.greet();
        let mut body = Vec::new();
        Ask::Resolve(namespace.to_owned()).encode(&mut body);
        match wire.ask(Kind::Ask, ShardId::DIRECTORY, &body) {
            Reply::Resolved { shard, .. } => wire.shard = shard,
            other => panic!("{other:?}"),
        }
        wire
    }

    pub fn greet(&mut self) {
        let reply = self.ask(Kind::Ask, ShardId::DIRECTORY, &hello());
        assert!(matches!(reply, Reply::Hello { .. }), "{reply:?}");
    }

    pub fn open_session(&mut self) -> SessionId {
        let mut body = Vec::new();
        Control::OpenSession { ttl_ms: 0, nonce: 0 }.encode(&mut body);
        match self.ask(Kind::Control, self.shard, &body) {
            Reply::Session(session) => session,
            other => panic!("{other:?}"),
        }
    }

    pub fn send(&mut self, kind: Kind, request: u64, body: &[u8]) -> io::Result<()> {
        let mut out = Vec::new();
        packet::write(kind, RequestId(request), self.shard, body, &mut out);
        self.socket.write_all(&out)
    }

    /// The next reply; `None` once the node has closed the connection.
    pub fn receive(&mut self) -> io::Result<Option<(u64, Reply)>> {
        loop {
            if let Some((packet, length)) = packet::read(&self.input).expect("a node's packet") {
                assert_eq!(packet.kind, Kind::Reply);
                let reply = Reply::decode(packet.body).expect("a node's reply");
                let request = packet.request.0;
                self.input.drain(..length);
                return Ok(Some((request, reply)));
            }
            let mut buffer = [0; 16 * 1024];
            match self.socket.read(&mut buffer) {
                Ok(0) => return Ok(None),
                Ok(bytes) => self.input.extend_from_slice(&buffer[..bytes]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// One request and its reply.
    pub fn ask(&mut self, kind: Kind, shard: ShardId, body: &[u8]) -> Reply {
        let mut out = Vec::new();
        packet::write(kind, RequestId(u64::MAX), shard, body, &mut out);
        self.socket.write_all(&out).unwrap();
        let (request, reply) = self.receive().unwrap().expect("a reply");
        assert_eq!(request, u64::MAX);
        reply
    }

    /// One row's value, as this node has it.
    pub fn get(&mut self, keyspace: &str, key: &str) -> Option<Vec<u8>> {
        let query = Query::Get { keyspace: keyspace.to_owned(), key: key.into() };
        let mut body = Vec::new();
        Read { level: Level::Linearizable, query }.encode(&mut body);
        match self.ask(Kind::Read, self.shard, &body) {
            Reply::Row { row, .. } => row.map(|(_, value)| value),
            other => panic!("{other:?}"),
        }
    }

    /// One commit without a session, and its reply.
    pub fn commit(&mut self, draft: &Draft<'_>) -> Committed {
        let mut body = Vec::new();
        draft.encode(SessionId::NONE, Sequence(0), Sequence(0), &mut body).unwrap();
        match self.ask(Kind::Commit, self.shard, &body) {
            Reply::Committed(committed) => committed,
            other => panic!("{other:?}"),
        }
    }
}

/// The body of a greeting.
pub fn hello() -> Vec<u8> {
    let mut body = Vec::new();
    Ask::Hello { token: String::new(), client: "end to end".to_owned() }.encode(&mut body);
    body
}
