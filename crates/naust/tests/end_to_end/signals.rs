//! The ends that are asked for: SIGTERM under load, and Ctrl-C by the impatient.

use crate::ledger::{Found, Ledger, OPTIONS, commit, draft};
use crate::support::{
    Killed, Node, Ready, Started, block_on, connect, naust, send_signal, try_start, wait_until,
};
use crate::web;
use crate::wire_client::Wire;
use naust_client::{Code, Outcome};
use naust_wire::packet::Kind;
use naust_wire::reply::Reply;
use naust_wire::{Sequence, SessionId};
use rustix::process::Signal;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::Stdio;

fn start(data: &Path, scratch: &Path, arguments: &[&str]) -> Ready {
    match try_start(data, scratch, arguments) {
        Started::Ready(node) => node,
        Started::Ended(status, errors) => panic!("{status}: {errors}"),
    }
}

/// A node that does not get ready: HTTP says so from the start, and SIGTERM ends it in order.
fn assert_waits(data: &Path, scratch: &Path, arguments: &[&str], why: &str) {
    let http = format!("127.0.0.1:{}", naust::process::free_port().unwrap());
    let errors = scratch.join("errors");
    let mut command = naust(&["serve", "--listen", "127.0.0.1:0", "--http", &http, "--data"]);
    command.arg(data).args(arguments).stdin(Stdio::null());
    command.stdout(Stdio::null()).stderr(File::create(&errors).unwrap());
    let mut node = Killed(command.spawn().unwrap());
    wait_until("HTTP to be there", || TcpStream::connect(&http).is_ok());
    let get = |path: &str| web::ask(&http, "GET", path, &[], b"");
    wait_until("the reason", || {
        assert_eq!(get("/healthz").status, 200);
        let ready = get("/readyz");
        let not_done = (503, "unavailable".to_owned(), "not_done".to_owned());
        assert_eq!(ready.problem(), not_done);
        ready.text().contains(why)
    });
    // What it can't answer yet is refused, and does not wait.
    let row = "/v1/default/kv/users/a";
    for told in [get(row), web::ask(&http, "PUT", row, &[], b"1")] {
        assert_eq!(told.problem(), (503, "unavailable".to_owned(), "not_done".to_owned()));
        assert!(told.text().contains(why), "{}", told.text());
    }
    wait_until("the operator to be told", || {
        let told = std::fs::read_to_string(&errors).unwrap();
        told.contains("naust: not ready: ") && told.contains(why)
    });
    send_signal(node.0.id(), Signal::TERM);
    let status = node.0.wait().unwrap();
    let told = std::fs::read_to_string(&errors).unwrap();
    assert_eq!(status.code(), Some(0), "{told}");
    assert_eq!(told.matches("naust: not ready: ").count(), 1, "{told}");
}

/// Why: a node that could not start took connections, answered nobody, said nothing, and was ended
/// like one that hangs.
#[test]
fn a_node_that_can_not_start_says_why_and_ends_when_told() {
    let scratch = tempfile::tempdir().unwrap();
    let data = scratch.path().join("data");
    // It takes connections, and never answers.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap().to_string();
    let why = format!("it waits for a node of the cluster at {address}: nobody answers");
    assert_waits(&data, scratch.path(), &["--join", &address], &why);
    assert!(!data.exists(), "nothing was begun");
    // A node that joined and was ended before it had anything.
    let first = start(&scratch.path().join("first"), scratch.path(), &[]);
    let mut joined = start(&data, scratch.path(), &["--join", &first.address]);
    joined.signal(Signal::TERM);
    assert!(joined.wait().success());
    drop(first);
    std::fs::remove_dir_all(data.join("shards")).unwrap();
    std::fs::remove_dir_all(data.join("made")).unwrap();
    let why = "it has no replica of the directory of namespaces";
    assert_waits(&data, scratch.path(), &[], why);
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
        send_signal(pid, Signal::TERM);
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
