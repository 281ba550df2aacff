//! Every subcommand once, as transcripts in `scripts/`; what `naust dev` tells to type; and pipes.

use crate::support::{Killed, Node, naust, send_signal, wait_until};
use crate::transcript::{Stage, files, has_curl, is_update, run_file};
use rustix::process::Signal;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::Stdio;

/// Why: the command line is read by people and by scripts; both see at once what changes.
#[test]
fn every_subcommand_prints_what_its_script_says() {
    let scripts = files("tests/end_to_end/scripts", "txt");
    assert!(scripts.len() >= 6, "scripts are missing");
    let wrong: Vec<String> = scripts.iter().flat_map(|path| run_file(path)).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // The engine itself tells right from wrong.
    if !is_update() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("wrong.txt");
        fs::write(&path, "$ naust kv get k a\n1\n$ naust kv put k a 1\n7\n").unwrap();
        assert_eq!(run_file(&path).len(), 2);
    }
    drop(Stage::new());
}

/// Why: what a newcomer is told to type must work as it is told.
#[test]
fn what_dev_tells_to_type_works() {
    let directory = tempfile::tempdir().unwrap();
    // `dev` takes a port and its successor; a node that was started and stopped leaves two behind.
    let port = free_pair();
    let mut dev = naust(&["dev", "--port", &port.to_string()]);
    dev.current_dir(directory.path()).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut dev = Killed(dev.spawn().unwrap());
    let mut output = BufReader::new(dev.0.stdout.take().unwrap());
    let mut told = String::new();
    while !told.contains("Ctrl-C") {
        assert!(output.read_line(&mut told).unwrap() > 0, "it ended: {told}");
    }
    let mut commands = told.lines().filter_map(|line| line.strip_prefix("  "));
    assert!(commands.next().unwrap().starts_with("alias naust="));
    let mut printed = Vec::new();
    for command in commands.filter(|command| has_curl() || !command.starts_with("curl")) {
        let mut shell = std::process::Command::new("sh");
        let program = crate::support::PROGRAM;
        let script = format!("naust() {{ '{program}' \"$@\"; }}\n{command}");
        let output = shell.arg("-c").arg(script).stdin(Stdio::null()).output().unwrap();
        assert!(output.status.success(), "{command}: {output:?}");
        printed.push(String::from_utf8(output.stdout).unwrap());
    }
    assert_eq!(printed[1], "{\"plan\":\"pro\"}");
    assert!(printed[3].contains("bob"), "{printed:?}");
    assert!(!has_curl() || printed[4].contains("alice"), "{printed:?}");
    send_signal(dev.0.id(), Signal::INT);
    let mut rest = String::new();
    output.read_to_string(&mut rest).unwrap();
    assert!(dev.0.wait().unwrap().success());
    assert!(rest.contains("stopped; the data stays in ./naust-data"), "{rest}");
}

fn free_pair() -> u16 {
    loop {
        let one = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = one.local_addr().unwrap().port();
        let next = port.checked_add(1);
        let free = |port| std::net::TcpListener::bind(("127.0.0.1", port)).is_ok();
        if next.is_some_and(free) {
            return port;
        }
    }
}

/// Why: values come and go through pipes, whatever bytes they have.
#[test]
fn values_pass_through_pipes_unchanged() {
    let node = Node::start(&[]);
    let bytes: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    let pipe = |arguments: &[&str], input: &[u8]| {
        let mut command = naust(arguments);
        command.env("NAUST_ADDRESS", node.address());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(input).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{output:?}");
        output.stdout
    };
    pipe(&["kv", "put", "files", "a"], &bytes);
    assert_eq!(pipe(&["kv", "get", "files", "a"], b""), bytes);
    let lines: String = (0..2500).map(|number| format!("line {number}\n")).collect();
    let ids = String::from_utf8(pipe(&["stream", "append", "lines", "--lines"], lines.as_bytes()));
    assert_eq!(ids.unwrap().lines().count(), 2500);
    let read = String::from_utf8(pipe(&["stream", "read", "lines"], b"")).unwrap();
    let values: Vec<&str> = read.lines().map(|line| line.split_once('\t').unwrap().1).collect();
    assert_eq!(values.join("\n") + "\n", lines);
}

/// Why: a reader that follows a stream sees what comes, until it is told to stop.
#[test]
fn a_stream_that_is_followed() {
    let node = Node::start(&[]);
    assert!(node.naust(&["stream", "append", "s", "one"]).status.success());
    let mut follow = naust(&["stream", "read", "s", "--follow"]);
    follow.env("NAUST_ADDRESS", node.address()).stdout(Stdio::piped());
    let mut follow = Killed(follow.spawn().unwrap());
    let mut lines = BufReader::new(follow.0.stdout.take().unwrap()).lines();
    assert!(lines.next().unwrap().unwrap().ends_with("\tone"));
    assert!(node.naust(&["stream", "append", "s", "two"]).status.success());
    assert!(lines.next().unwrap().unwrap().ends_with("\ttwo"));
}

/// Why: whoever presses Ctrl-C wants his prompt back, and to know that it was he who ended it.
#[test]
fn an_interrupted_command_says_so_and_ends() {
    let node = Node::start(&[]);
    assert!(node.naust(&["stream", "append", "s", "one"]).status.success());
    let bench = ["bench", "--seconds", "600"];
    for arguments in [&["stream", "read", "s", "--follow"][..], &bench] {
        let mut command = naust(arguments);
        command.env("NAUST_ADDRESS", node.address());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut running = Killed(command.spawn().unwrap());
        let id = running.0.id();
        // It catches the signal, bit 1 of the mask, before it does anything else.
        wait_until("the command to be ready", || {
            let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap();
            let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
            let caught = u64::from_str_radix(caught.unwrap().trim(), 16).unwrap();
            caught & (1 << (Signal::INT.as_raw() - 1)) != 0
        });
        send_signal(id, Signal::INT);
        let mut told = String::new();
        running.0.stderr.take().unwrap().read_to_string(&mut told).unwrap();
        assert_eq!(running.0.wait().unwrap().code(), Some(130), "{arguments:?}: {told}");
        assert_eq!(told, "naust: interrupted\n", "{arguments:?}");
    }
}

/// Why: the load generator is how users measure; it must run, and count no errors.
#[test]
fn bench_runs_and_counts() {
    let node = Node::start(&[]);
    for workload in ["put", "append", "get"] {
        let told = node.naust(&[
            "bench",
            "--workload",
            workload,
            "--seconds",
            "1",
            "--warm-up",
            "0",
            "--keys",
            "100",
            "--connections",
            "4",
            "--in-flight",
            "8",
            "--json",
        ]);
        let text = String::from_utf8(told.stdout).unwrap();
        assert!(told.status.success(), "{text} {}", String::from_utf8_lossy(&told.stderr));
        let told: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert!(told.to_string().contains("p99"), "{told}");
    }
}

/// Why: whoever types wrongly, or asks where no node is, is told in a sentence.
#[test]
fn commands_that_can_not_be_done() {
    let empty = tempfile::tempdir().unwrap();
    let empty = empty.path().to_str().unwrap();
    let table: [(&[&str], i32, &str); 5] = [
        (&["log", "verify", "--data", empty], 1, "there is no data in"),
        (&["kv", "put"], 2, "Usage:"),
        (&["frobnicate"], 2, "unrecognized subcommand"),
        (&["kv", "get", "k", "a", "--address", "127.0.0.1:1"], 1, "no node answers at 127.0.0.1:1"),
        (&["log", "verify", "--data", "/nowhere"], 1, "/nowhere"),
    ];
    for (arguments, status, expected) in table {
        let output = naust(arguments).stdin(Stdio::null()).output().unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(status), "{arguments:?}: {told}");
        assert!(told.contains(expected) && !told.contains("panicked"), "{arguments:?}: {told}");
    }
    // A pipe can't be read twice.
    let mut demo = naust(&["demo", "--input", "/dev/stdin"]);
    demo.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut demo = demo.spawn().unwrap();
    // It may have ended already.
    let _ = demo.stdin.take().unwrap().write_all(b"one\ntwo\n");
    let output = demo.wait_with_output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0), "{told}");
    assert!(told.contains("/dev/stdin is no regular file"), "{told}");
    // A reader that goes away early, as `head` does, is no error.
    let node = Node::start(&[]);
    for number in 0..3 {
        assert!(node.naust(&["kv", "put", "k", &number.to_string(), "v"]).status.success());
    }
    let mut list = naust(&["kv", "list", "k"]);
    list.env("NAUST_ADDRESS", node.address()).stdout(Stdio::piped());
    let mut list = list.spawn().unwrap();
    drop(list.stdout.take());
    wait_until("its end", || list.try_wait().unwrap().is_some_and(|status| status.success()));
}

/// Why: one commit removes a bounded part of a range, and whoever is not told takes the rest for
/// removed, too.
#[test]
fn a_range_that_one_commit_does_not_finish() {
    let node = Node::start(&[]);
    let mut wire = crate::wire_client::Wire::enter(&node.address(), "default");
    let mut draft = naust_wire::commit::Draft::default();
    for number in 0..10_002 {
        draft.put("k", format!("{number:05}").into_bytes(), b"v").unwrap();
    }
    wire.commit(&draft);
    let output = node.naust(&["commit", "--delete-range", "k/00000..", "--append", "s=x"]);
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{told}");
    assert!(told.contains("go on with --delete-range k/10000..,"), "{told}");
    assert!(String::from_utf8(output.stdout).unwrap().ends_with("\ndeleted 10000\n"));
    let output = node.naust(&["commit", "--delete-range", "k/10000..", "--json"]);
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
    let object: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(object["ranges"], serde_json::json!([{ "deleted": 2 }]));
    // The command for ranges goes on by itself.
    wire.commit(&draft);
    let output = node.naust(&["kv", "delete-range", "k", "0"]);
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "10002\n");
}
