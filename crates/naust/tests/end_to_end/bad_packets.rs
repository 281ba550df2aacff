//! Bad input over the native port: a typed answer where one is possible, and service for everybody
//! else all the while.

use crate::support::{Draw, Node, block_on, connect};
use crate::wire_client::{Wire, hello};
use naust_wire::commit::Draft;
use naust_wire::limits::{
    KEY_BYTES_MAX, OPS_PER_COMMIT_MAX, PACKET_BODY_BYTES_MAX, PAGE_ROWS_MAX, VALUE_BYTES_MAX,
};
use naust_wire::packet::{self, Kind, crc32c};
use naust_wire::read::{Level, Query, Read};
use naust_wire::reply::Reply;
use naust_wire::{Code, Offset, Outcome, RequestId, Sequence, SessionId, ShardId};
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::Shutdown;

/// A packet as bytes, to be spoilt.
fn packet(kind: u16, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    packet::write(Kind::Ask, RequestId(7), ShardId::DIRECTORY, body, &mut bytes);
    bytes[2..4].copy_from_slice(&kind.to_le_bytes());
    seal(&mut bytes);
    bytes
}

/// Mends the checksum of a packet that was changed.
fn seal(bytes: &mut [u8]) {
    let crc = crc32c(&[&bytes[..20], &bytes[24..]]);
    bytes[20..24].copy_from_slice(&crc.to_le_bytes());
}

fn with(mut bytes: Vec<u8>, at: usize, byte: u8) -> Vec<u8> {
    bytes[at] = byte;
    bytes
}

/// Sends bytes and reads the error that they get. After a bad header nothing that follows can be
/// trusted, so the connection ends; after a bad body it goes on.
fn refused(node: &Node, bytes: &[u8], ends: bool) -> (u64, Code) {
    let mut wire = Wire::connect(&node.address()).unwrap();
    wire.socket.write_all(bytes).unwrap();
    let (request, reply) = wire.receive().unwrap().expect("an answer before the end");
    let Reply::Error(failure) = reply else { panic!("{reply:?}") };
    assert_eq!(failure.outcome, Outcome::NotDone);
    assert!(!failure.detail.is_empty());
    if ends {
        assert!(matches!(wire.receive(), Ok(None) | Err(_)), "the connection goes on");
    } else {
        wire.greet();
    }
    (request, failure.code)
}

/// Whoever behaves is served.
fn serves(node: &Node) {
    block_on(async {
        let namespace = connect(&node.address()).await.namespace("default");
        let committed = namespace.kv("good").put("key", "value").await.unwrap();
        let found = namespace.kv("good").get_at("key", Level::Linearizable).await.unwrap();
        assert_eq!(found.row.unwrap().version, committed);
    });
}

/// Why: the first bytes of a connection may come from anyone: a scanner, a browser, a later
/// release.
#[test]
fn headers_that_are_none() {
    let node = Node::start(&[]);
    let good = packet(Kind::Ask as u16, &hello());
    let length = (PACKET_BODY_BYTES_MAX as u32 + 1).to_le_bytes();
    let mut oversized = good.clone();
    oversized[4..8].copy_from_slice(&length);
    let table: [(&str, Vec<u8>, Code); 5] = [
        ("HTTP", b"GET / HTTP/1.1\r\nHost: naust\r\n\r\n".to_vec(), Code::Malformed),
        ("TLS", vec![0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3, 0, 0, 0, 0], Code::Malformed),
        ("a later version", with(good.clone(), 1, 2), Code::UnknownVersion),
        ("oversized", oversized, Code::TooLarge),
        ("all ones", vec![0xff; 100], Code::Malformed),
    ];
    for (name, bytes, expected) in table {
        assert_eq!(refused(&node, &bytes, true), (0, expected), "{name}");
        serves(&node);
    }
}

/// Why: a packet whose header is sound names its request, so its error is an answer like another
/// and the connection lives.
#[test]
fn packets_that_say_nothing() {
    let node = Node::start(&[]);
    let good = packet(Kind::Ask as u16, &hello());
    let commit = Kind::Commit as u16;
    let table: [(&str, Vec<u8>, Code); 7] = [
        ("bad checksum", with(good.clone(), 20, good[20] ^ 1), Code::Malformed),
        ("spoilt body", with(good.clone(), 30, good[30] ^ 1), Code::Malformed),
        ("unknown kind", packet(99, &hello()), Code::UnknownKind),
        ("a reply from a client", packet(Kind::Reply as u16, &hello()), Code::UnknownKind),
        ("no body", packet(commit, b""), Code::Malformed),
        ("no message", packet(commit, &[0xff; 64]), Code::Malformed),
        ("zeros: a commit of nothing", packet(commit, &[0; 64]), Code::BadArgument),
    ];
    for (name, bytes, expected) in table {
        let (request, code) = refused(&node, &bytes, false);
        assert_eq!((request, code), (7, expected), "{name}");
    }
    serves(&node);
}

/// Why: requests that are well formed and ask for too much, or for what is not there.
#[test]
fn requests_that_no_node_takes() {
    let node = Node::start(&[]);
    let mut wire = Wire::enter(&node.address(), "default");
    let read = |query| {
        let mut body = Vec::new();
        Read { level: Level::Linearizable, query }.encode(&mut body);
        body
    };
    let scan = |from: &[u8], to: &[u8], limit| Query::Scan {
        keyspace: "k".to_owned(),
        from: from.to_vec(),
        to: Some(to.to_vec()),
        reverse: false,
        limit,
        max_bytes: 0,
    };
    let get = |key: Vec<u8>| Query::Get { keyspace: "k".to_owned(), key };
    let records = |from, wait_ms| Query::Records {
        stream: "s".to_owned(),
        from,
        limit: 0,
        max_bytes: 0,
        wait_ms,
    };
    let table: [(&str, Query, Code); 6] = [
        ("a long key", get(vec![1; KEY_BYTES_MAX + 1]), Code::KeySize),
        ("an empty key", get(vec![]), Code::KeySize),
        ("a range backwards", scan(b"b", b"a", 0), Code::BadArgument),
        ("too many rows", scan(b"a", b"b", PAGE_ROWS_MAX as u32 + 1), Code::TooLarge),
        ("a long wait", records(Offset::ZERO, u32::MAX), Code::BadArgument),
        ("no such stream", records(Offset::ZERO, 0), Code::StreamNotFound),
    ];
    for (name, query, expected) in table {
        let Reply::Error(failure) = wire.ask(Kind::Read, wire.shard, &read(query)) else {
            panic!("{name}: an answer")
        };
        assert_eq!((failure.code, failure.outcome), (expected, Outcome::NotDone), "{name}");
    }
    let nowhere = wire.ask(Kind::Read, ShardId(77), &read(get(b"a".to_vec())));
    let Reply::Error(failure) = nowhere else { panic!("{nowhere:?}") };
    assert!(matches!(failure.code, Code::NamespaceNotFound | Code::NotLeader), "{failure:?}");
    serves(&node);
}

/// Why: the bounds of commits are the node's, whatever the client checks itself.
#[test]
fn commits_that_no_node_takes() {
    let node = Node::start(&[]);
    let mut wire = Wire::enter(&node.address(), "default");
    let mut commit = |draft: &Draft<'_>, session, sequence| {
        let mut body = Vec::new();
        let encoded = draft.encode(session, Sequence(sequence), Sequence(0), &mut body);
        let refusal = encoded.err().map(|refusal| refusal.code);
        refusal.unwrap_or_else(|| match wire.ask(Kind::Commit, wire.shard, &body) {
            Reply::Error(failure) => failure.code,
            other => panic!("{other:?}"),
        })
    };
    let nobody = SessionId(1 << 33);
    let mut put = Draft::default();
    put.put("k", b"a", b"1").unwrap();
    assert_eq!(commit(&put, nobody, 1), Code::SessionExpired);
    let empty = commit(&Draft::default(), SessionId::NONE, 0);
    assert!(matches!(empty, Code::BadArgument | Code::Malformed), "{empty:?}");
    let mut future = Draft::default();
    future.append("s", b"1").unwrap();
    future.advance("s", "c", Offset::MAX).unwrap();
    assert_eq!(commit(&future, SessionId::NONE, 0), Code::BadArgument);
    let mut large = Draft::default();
    large.put("k", b"a", vec![0; VALUE_BYTES_MAX + 1]).unwrap();
    assert_eq!(commit(&large, SessionId::NONE, 0), Code::TooLarge);
    let mut many = Draft::default();
    let tried: Result<(), _> = (0..=OPS_PER_COMMIT_MAX).try_for_each(|_| many.delete("k", b"a"));
    let code = tried.err().map_or_else(|| commit(&many, SessionId::NONE, 0), |error| error.code);
    assert_eq!(code, Code::TooLarge);
    assert_eq!(wire.get("k", "a"), None, "a refused commit left something");
    serves(&node);
}

/// Why: slow and broken connections hold what they hold, and no one else up.
#[test]
fn packets_that_come_in_pieces_or_not_to_the_end() {
    let node = Node::start(&[]);
    let mut dripping = Wire::connect(&node.address()).unwrap();
    for byte in packet(Kind::Ask as u16, &hello()) {
        dripping.socket.write_all(&[byte]).unwrap();
    }
    let (request, reply) = dripping.receive().unwrap().unwrap();
    assert!(request == 7 && matches!(reply, Reply::Hello { .. }), "{reply:?}");

    // Half a large packet each, held open.
    let mut body = Vec::new();
    let mut draft = Draft::default();
    draft.put("k", b"half", vec![7; 1 << 20]).unwrap();
    draft.encode(SessionId::NONE, Sequence(0), Sequence(0), &mut body).unwrap();
    let large = packet(Kind::Commit as u16, &body);
    let mut halves: Vec<Wire> = (0..50)
        .map(|number| {
            let mut wire = Wire::connect(&node.address()).unwrap();
            let end = large.len() * (number + 1) / 60;
            wire.socket.write_all(&large[..end]).unwrap();
            wire
        })
        .collect();
    serves(&node);
    // Their other half never comes.
    for wire in &mut halves {
        wire.socket.shutdown(Shutdown::Write).unwrap();
        let mut rest = Vec::new();
        let ended = wire.socket.read_to_end(&mut rest);
        assert!(ended.is_ok() && rest.is_empty(), "{ended:?} {rest:?}");
    }
    serves(&node);
    assert_eq!(Wire::enter(&node.address(), "default").get("k", "half"), None);
}

/// Why: what no table thinks of. Every answer is a reply or the end of the connection, and the node
/// lives on.
#[test]
fn three_hundred_spoilt_packets() {
    let node = Node::start(&[]);
    let shard = Wire::enter(&node.address(), "default").shard;
    let mut draw = Draw::new(4);
    for number in 0..300 {
        let mut body = Vec::new();
        let mut draft = Draft::default();
        draft.put("k", b"a", vec![1; draw.below(200) as usize]).unwrap();
        draft.append("s", b"record").unwrap();
        draft.encode(SessionId::NONE, Sequence(0), Sequence(0), &mut body).unwrap();
        let mut bytes = Vec::new();
        packet::write(Kind::Commit, RequestId(number), shard, &body, &mut bytes);
        for _ in 0..=draw.below(3) {
            let from = if number % 2 == 0 { 24 } else { 0 };
            let at = from + draw.below((bytes.len() - from) as u64) as usize;
            bytes[at] = draw.next() as u8;
        }
        if number % 2 == 0 {
            seal(&mut bytes);
        }
        let mut wire = Wire::connect(&node.address()).unwrap();
        wire.socket.write_all(&bytes).unwrap();
        wire.socket.shutdown(Shutdown::Write).unwrap();
        loop {
            match wire.receive() {
                Ok(Some(_)) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    panic!("packet {number}: the node keeps a connection whose client has gone")
                }
                Ok(None) | Err(_) => break,
            }
        }
    }
    serves(&node);
}

/// Why: beyond its places a node tells whoever comes, and serves those who are there.
#[test]
fn one_connection_too_many() {
    let node = Node::start(&["--set", "connections_max=8"]);
    let mut wires: Vec<Wire> = (0..8).map(|_| Wire::enter(&node.address(), "default")).collect();
    let mut ninth = Wire::connect(&node.address()).unwrap();
    let (request, reply) = ninth.receive().unwrap().expect("an answer before the end");
    let Reply::Error(failure) = reply else { panic!("{reply:?}") };
    assert_eq!((request, failure.code, failure.outcome), (0, Code::Overloaded, Outcome::NotDone));
    assert!(matches!(ninth.receive(), Ok(None) | Err(_)));
    for wire in &mut wires {
        wire.greet();
    }
    drop(wires);
    // The places are free again.
    crate::support::wait_until("a place", || {
        let mut wire = Wire::connect(&node.address()).unwrap();
        wire.send(Kind::Ask, 1, &hello()).is_ok()
            && matches!(wire.receive(), Ok(Some((1, Reply::Hello { .. }))))
    });
}
