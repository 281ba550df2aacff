//! The ends that are asked for: SIGTERM under load, and Ctrl-C by the impatient.

use crate::ledger::{Found, Ledger, OPTIONS, commit, draft};
use crate::support::{Node, Ready, Started, block_on, connect, try_start, wait_until};
use crate::wire_client::Wire;
use naust_client::{Code, Outcome};
use naust_wire::packet::Kind;
use naust_wire::reply::Reply;
use naust_wire::{Sequence, SessionId};
use rustix::process::Signal;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::path::Path;

fn start(data: &Path, scratch: &Path, arguments: &[&str]) -> Ready {
    match try_start(data, scratch, arguments) {
        Started::Ready(node) => node,
        Started::Ended(status, errors) => panic!("{status}: {errors}"),
    }
}

/// Why: this is every restart of every deployment. What is under way is finished, what comes later
/// is told that it was not done, and the status says that all went well.
#[test]
fn sigterm_under_load_ends_cleanly_and_loses_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let mut node = start(&data, directory.path(), &OPTIONS);
    let mut wire = Wire::enter(&node.address, "default");
    let mut ledger = Ledger::default();
    let (mut sent, mut received) = (0, 0);
    let mut signalled = false;
    let mut open = true;
    while open {
        while sent - received < 200 && open {
            let mut body = Vec::new();
            draft(sent).encode(SessionId::NONE, Sequence(0), Sequence(0), &mut body).unwrap();
            ledger.unknown.insert(sent);
            open = wire.send(Kind::Commit, sent, &body).is_ok();
            sent += 1;
        }
        match wire.receive() {
            Ok(Some((number, Reply::Committed(committed)))) => {
                ledger.acknowledge(number, &committed);
            }
            Ok(Some((number, Reply::Error(failure)))) => {
                assert_eq!(failure.code, Code::ShuttingDown, "{failure:?}");
                assert_eq!(failure.outcome, Outcome::NotDone, "{failure:?}");
                ledger.unknown.remove(&number);
            }
            Ok(Some(other)) => panic!("{other:?}"),
            Ok(None) | Err(_) => open = false,
        }
        received += 1;
        if received == 1000 && !signalled {
            node.signal(Signal::TERM);
            signalled = true;
        }
    }
    assert!(signalled, "the connection was lost before");
    assert_eq!(node.wait().code(), Some(0), "{}", node.errors());
    assert_eq!(node.errors(), "");
    let again = Node::open(&data, &[]);
    ledger.check(&block_on(Found::read(&again.address())).unwrap());
}

/// Why: a client in the middle of its work sees a restart as a pause and nothing else.
#[test]
fn a_client_does_not_notice_a_restart() {
    let mut node = Node::start(&[]);
    let address = node.address();
    block_on(async {
        let client = connect(&address).await;
        let namespace = client.namespace("default");
        let mut ledger = Ledger::default();
        ledger.acknowledge(0, &namespace.submit(commit(0)).await.unwrap());
        let pid = node.process.id();
        crate::support::send_signal(pid, Signal::TERM);
        // Submitted to a node that ends, answered by the one that follows.
        let submitted: Vec<_> = (1..50).map(|n| (n, namespace.submit(commit(n)))).collect();
        node.kill_and_restart();
        for (number, submitted) in submitted {
            ledger.acknowledge(number, &submitted.await.unwrap());
        }
        ledger.check(&Found::read(&address).await.unwrap());
    });
}

/// Why: a drain waits for what is under way, and whoever presses Ctrl-C twice means it. That is no
/// worse than a SIGKILL: nothing acknowledged is lost.
#[test]
fn the_second_interrupt_ends_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let mut node = start(&data, directory.path(), &[]);
    let mut ledger = Ledger::default();
    let mut wire = Wire::enter(&node.address, "default");
    ledger.acknowledge(0, &wire.commit(&draft(0)));
    // A request whose body never ends: the drain gives it a few seconds.
    let mut socket = TcpStream::connect(&node.http).unwrap();
    write!(socket, "PUT /v1/default/kv/k/a HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n")
        .unwrap();
    write!(socket, "Content-Length: 100\r\n\r\n").unwrap();
    let mut line = String::new();
    BufReader::new(&socket).read_line(&mut line).unwrap();
    assert!(line.contains("100 Continue"), "the request is not under way: {line}");
    node.signal(Signal::INT);
    wait_until("the drain to begin", || TcpStream::connect(&node.http).is_err());
    assert!(!node.has_ended(), "{}", node.errors());
    node.signal(Signal::INT);
    assert_eq!(node.wait().code(), Some(130), "{}", node.errors());

    let again = Node::open(&data, &[]);
    ledger.check(&block_on(Found::read(&again.address())).unwrap());
}
