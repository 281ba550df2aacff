//! A crowd: more connections and requests than any node should have, in bounded memory.

use crate::support::{Node, skip, wait_until};
use crate::web;
use crate::wire_client::Wire;
use naust_wire::commit::Draft;
use naust_wire::limits::{HTTP_CONNECTIONS_MAX, REQUESTS_MAX, REQUESTS_PER_CONNECTION_MAX};
use naust_wire::packet::{self, Kind};
use naust_wire::read::{Level, Query, Read};
use naust_wire::reply::Reply;
use naust_wire::{Code, Offset, Outcome, RequestId, Sequence, SessionId};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::io::Write as _;
use std::net::TcpStream;

const CONNECTIONS: usize = 2_200;
/// Files that this process and the node each need, with some to spare.
const FILES: u64 = CONNECTIONS as u64 + 500;
/// What a crowd may cost the node beyond what it has when quiet.
const RESIDENT_BYTES_MAX: u64 = 768 << 20;

/// Lets this process, and the nodes that it starts, have enough open files, if it may.
fn raise_file_limit() -> bool {
    let limit = getrlimit(Resource::Nofile);
    let maximum = limit.maximum;
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    getrlimit(Resource::Nofile).current.is_none_or(|files| files >= FILES)
}

fn gather(node: &Node) -> Vec<Wire> {
    let shard = Wire::enter(&node.address(), "default").shard;
    let connect = |_| {
        let mut wire = Wire::connect(&node.address()).unwrap();
        wire.shard = shard;
        wire
    };
    (0..CONNECTIONS).map(connect).collect()
}

/// Sends the same request `count` times, numbered from `first`.
fn send_many(wire: &mut Wire, kind: Kind, first: u64, count: usize, body: &[u8]) {
    let mut out = Vec::new();
    for number in first..first + count as u64 {
        packet::write(kind, RequestId(number), wire.shard, body, &mut out);
    }
    wire.socket.write_all(&out).unwrap();
}

fn waiting_read(from: Offset) -> Vec<u8> {
    let query =
        Query::Records { stream: "s".to_owned(), from, limit: 0, max_bytes: 0, wait_ms: 60_000 };
    let mut body = Vec::new();
    Read { level: Level::Linearizable, query }.encode(&mut body);
    body
}

fn append(wire: &mut Wire, record: &str) -> Offset {
    let mut draft = Draft::default();
    draft.append("s", record.as_bytes().to_vec()).unwrap();
    wire.commit(&draft).ids[0]
}

/// Why: 110,000 readers that wait are no reason not to serve a writer; and when he has written,
/// each of them is told. Past the bound readers are told that they were not heard.
#[test]
fn a_hundred_thousand_readers_wait() {
    if !raise_file_limit() {
        let why = format!("this process may not have {FILES} open files");
        return skip("a_hundred_thousand_readers_wait", &why);
    }
    let node = Node::start(&[]);
    let mut writer = Wire::enter(&node.address(), "default");
    let first = append(&mut writer, "first");
    let before = node.resident_bytes();
    let mut wires = gather(&node);
    let body = waiting_read(Offset(first.0 + 1));
    let each = 110_000 / CONNECTIONS;
    assert!(each * CONNECTIONS >= 100_000);
    for wire in &mut wires {
        send_many(wire, Kind::Read, 0, each, &body);
    }
    let held = node.resident_bytes();
    assert!(held < before + RESIDENT_BYTES_MAX, "{before} bytes became {held}");
    append(&mut writer, "second");
    let (told, refused) = receive_all(&mut wires, each);
    println!("{told} readers were told, {refused} were refused");
    println!("{before} bytes resident at first, {held} with the readers");
    assert!(told > 0);
    let after = node.resident_bytes();
    assert!(after < before + RESIDENT_BYTES_MAX, "{before} bytes became {after}");
    drop(wires);
    append(&mut writer, "third");
}

/// Why: thousands of HTTP connections that ask for nothing must not keep anybody from learning that
/// the node lives, nor leave those who ask without an answer.
#[test]
fn more_http_connections_than_a_node_takes() {
    if !raise_file_limit() {
        let why = format!("this process may not have {FILES} open files");
        return skip("more_http_connections_than_a_node_takes", &why);
    }
    let node = Node::start(&[]);
    let before = node.resident_bytes();
    let connect = |_| TcpStream::connect(node.http()).unwrap();
    let idle: Vec<TcpStream> = (0..HTTP_CONNECTIONS_MAX + 20).map(connect).collect();
    for path in ["/healthz", "/readyz", "/metrics"] {
        assert_eq!(web::ask(&node.http(), "GET", path, &[], b"").status, 200, "{path}");
    }
    let told = web::ask(&node.http(), "GET", "/v1/default/kv/k", &[], b"").problem();
    assert_eq!(told, (503, "overloaded".to_owned(), "not_done".to_owned()));
    let held = node.resident_bytes();
    println!("{before} bytes resident at first, {held} with {} connections", idle.len());
    assert!(held < before + RESIDENT_BYTES_MAX, "{before} bytes became {held}");
    drop(idle);
    wait_until("room", || {
        web::ask(&node.http(), "GET", "/v1/default/kv/k", &[], b"").status != 503
    });
}

/// Why: more requests than a node takes, from few connections. Those beyond the bound are left
/// unread or refused, in bounded memory, and when others have hung up every one is answered.
#[test]
fn more_requests_than_a_node_takes() {
    let node = Node::start(&[]);
    let mut writer = Wire::enter(&node.address(), "default");
    let first = append(&mut writer, "first");
    let before = node.resident_bytes();
    let body = waiting_read(Offset(first.0 + 1));
    // As many connections as it takes to pass the node's bound before that of each connection.
    let each = REQUESTS_PER_CONNECTION_MAX / 2;
    let count = REQUESTS_MAX / each + 2;
    let mut wires: Vec<Wire> =
        (0..count).map(|_| Wire::enter(&node.address(), "default")).collect();
    for wire in &mut wires {
        send_many(wire, Kind::Read, 0, each, &body);
    }
    // Half of them hang up; the rest wait for news.
    wires.truncate(count / 2);
    let mut draft = Draft::default();
    draft.append("s", b"second").unwrap();
    let mut commit = Vec::new();
    draft.encode(SessionId::NONE, Sequence(0), Sequence(0), &mut commit).unwrap();
    wait_until("room", || match writer.ask(Kind::Commit, writer.shard, &commit) {
        Reply::Committed(_) => true,
        Reply::Error(failure) => {
            assert_eq!(failure.code, Code::Overloaded);
            false
        }
        reply => panic!("{reply:?}"),
    });
    let held = node.resident_bytes();
    assert!(held < before + RESIDENT_BYTES_MAX, "{before} bytes became {held}");
    let (told, refused) = receive_all(&mut wires, each);
    assert_eq!(told + refused, count / 2 * each);
    assert!(told > 0);
}

/// Every connection's replies: those with the news, and those that say `overloaded`.
fn receive_all(wires: &mut [Wire], each: usize) -> (usize, usize) {
    let (mut told, mut refused) = (0, 0);
    for wire in wires {
        for _ in 0..each {
            match wire.receive().unwrap().expect("a reply").1 {
                Reply::Records { records, .. } => {
                    assert_eq!(records[0].value, b"second");
                    told += 1;
                }
                Reply::Error(failure) => {
                    assert_eq!(failure.code, Code::Overloaded, "{failure:?}");
                    assert_eq!(failure.outcome, Outcome::NotDone);
                    refused += 1;
                }
                other => panic!("{other:?}"),
            }
        }
    }
    (told, refused)
}

/// Why: a crowd of writers. Each commit is done once or refused, and the count of records tells.
#[test]
fn a_hundred_thousand_commits_at_once() {
    if !raise_file_limit() {
        let why = format!("this process may not have {FILES} open files");
        return skip("a_hundred_thousand_commits_at_once", &why);
    }
    let node = Node::start(&[]);
    let before = node.resident_bytes();
    let mut wires = gather(&node);
    let mut draft = Draft::default();
    draft.append("s", vec![b'x'; 100]).unwrap();
    let mut body = Vec::new();
    draft.encode(SessionId::NONE, Sequence(0), Sequence(0), &mut body).unwrap();
    let each = 100_000_usize.div_ceil(CONNECTIONS);
    for wire in &mut wires {
        send_many(wire, Kind::Commit, 0, each, &body);
    }
    let mut most = node.resident_bytes();
    let (mut done, mut refused) = (0, 0);
    for (number, wire) in wires.iter_mut().enumerate() {
        for _ in 0..each {
            match wire.receive().unwrap().expect("a reply").1 {
                Reply::Committed(_) => done += 1,
                Reply::Error(failure) => {
                    assert_eq!(failure.code, Code::Overloaded, "{failure:?}");
                    assert_eq!(failure.outcome, Outcome::NotDone);
                    refused += 1;
                }
                other => panic!("{other:?}"),
            }
        }
        if number % 100 == 0 {
            most = most.max(node.resident_bytes());
        }
    }
    println!("{done} commits done, {refused} refused; {before} to {most} bytes resident");
    assert!(most < before + RESIDENT_BYTES_MAX, "{before} bytes became {most}");
    assert_eq!(done + refused, each * CONNECTIONS);
    assert_eq!(count_records(&node), done, "each acknowledged commit once, no other");
}

fn count_records(node: &Node) -> usize {
    crate::support::block_on(async {
        let client = crate::support::connect(&node.address()).await;
        let stream = client.namespace("default").stream("s");
        let (mut count, mut from) = (0, Offset::ZERO);
        loop {
            let page = stream.read(from, naust_client::ReadOptions::default()).await.unwrap();
            if page.records.is_empty() {
                return count;
            }
            count += page.records.len();
            from = page.next;
        }
    })
}
