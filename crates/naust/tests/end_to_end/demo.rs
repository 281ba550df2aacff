//! `naust demo` on a small input, and `naust log` on what it leaves behind.

use crate::support::naust;
use std::fmt::Write as _;

/// Why: the demo is the product's promise in one command; its exit status is the verdict.
#[test]
fn the_demo_proves_its_promise_and_the_log_is_sound() {
    let directory = tempfile::tempdir().unwrap();
    let (input, data) = (directory.path().join("lines"), directory.path().join("data"));
    let mut lines = String::new();
    for number in 0..3000 {
        writeln!(lines, "{{\"line\":{number},\"text\":\"{}\"}}", "naïve ".repeat(number % 7))
            .unwrap();
    }
    // A last line without an end, and an empty one before it.
    std::fs::write(&input, lines + "\nlast").unwrap();
    let mut demo = naust(&["demo", "--kills", "3", "--in-flight", "64", "--input"]);
    let demo = demo.arg(&input).arg("--data").arg(&data).output().unwrap();
    let (out, errors) = (String::from_utf8(demo.stdout).unwrap(), demo.stderr);
    let errors = String::from_utf8_lossy(&errors);
    assert_eq!(demo.status.code(), Some(0), "{out}{errors}");
    assert!(out.contains("VERDICT: every acknowledged commit is there once"), "{out}{errors}");
    for row in ["commits/s", "p50", "p99", "p999", "user bytes", "fsyncs per commit"] {
        assert!(out.contains(row), "no {row} in {out}");
    }
    let number = |row: &str| {
        let line = out.lines().find_map(|line| line.strip_prefix(row)).unwrap();
        line.split_whitespace().next().unwrap().parse::<f64>().unwrap()
    };
    assert_eq!((number("commits "), number("troubles survived ")), (3002.0, 3.0), "{out}");

    let verify = naust(&["log", "verify", "--data"]).arg(&data).output().unwrap();
    let told = String::from_utf8(verify.stdout).unwrap();
    assert_eq!(verify.status.code(), Some(0), "{told}");
    assert_eq!(told.lines().filter(|line| line.contains(": sound")).count(), 2, "{told}");
    let dump = naust(&["log", "dump", "--ops", "--json", "--data"]).arg(&data).output().unwrap();
    let told = String::from_utf8(dump.stdout).unwrap();
    let puts = told.lines().filter(|line| line.contains("put lines/")).count();
    assert!((3002..3002 + 3 * 64 + 3).contains(&puts), "{puts} commits in the log");

    let again = naust(&["demo", "--data"]).arg(&data).output().unwrap();
    assert_eq!(again.status.code(), Some(1));
    let told = String::from_utf8(again.stderr).unwrap();
    assert!(told.contains("not empty"), "{told}");
}

/// Why: so is the demo of three nodes, through a kill, a pause and the loss of a disk.
#[test]
fn the_demo_of_three_nodes_proves_its_promise() {
    let directory = tempfile::tempdir().unwrap();
    let (input, data) = (directory.path().join("lines"), directory.path().join("data"));
    let lines: String = (0..4000).map(|number| format!("line {number}\n")).collect();
    std::fs::write(&input, lines).unwrap();
    let mut demo = naust(&["demo", "--nodes", "3", "--input"]);
    let demo = demo.arg(&input).arg("--data").arg(&data).output().unwrap();
    let (out, errors) = (String::from_utf8(demo.stdout).unwrap(), demo.stderr);
    let errors = String::from_utf8_lossy(&errors);
    assert_eq!(demo.status.code(), Some(0), "{out}{errors}");
    assert!(out.contains("This holds for each of three nodes"), "{out}{errors}");
}

/// Why: damage below what was acknowledged is reported, and told from a torn tail.
#[test]
fn damage_is_found_offline() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let node = crate::support::Node::open(&data, &[]);
    for number in 0..50 {
        let key = format!("key-{number}");
        assert!(node.naust(&["kv", "put", "k", &key, &"value ".repeat(100)]).status.success());
    }
    node.process.stop().unwrap();
    let segment = data.join("shards/00000001/log/0000000100000000.log");
    let mut bytes = std::fs::read(&segment).unwrap();
    let sound = naust(&["log", "verify", "--data"]).arg(&data).output().unwrap();
    assert_eq!(sound.status.code(), Some(0));
    bytes[5_000] ^= 0xff;
    std::fs::write(&segment, &bytes).unwrap();
    let damaged = naust(&["log", "verify", "--data"]).arg(&data).output().unwrap();
    let told = String::from_utf8(damaged.stdout).unwrap();
    assert_eq!(damaged.status.code(), Some(1), "{told}");
    assert!(told.contains("shard 1") && told.contains("DAMAGED"), "{told}");
    assert_eq!(std::fs::read(&segment).unwrap(), bytes, "verify changes nothing");
}
