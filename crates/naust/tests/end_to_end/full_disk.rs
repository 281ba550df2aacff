//! A disk without space left: writes are refused with a code, reads go on, and service returns with
//! the space.

use crate::support::{Node, Started, block_on, connect, naust, skip, try_start, wait_until};
use crate::wire_client::Wire;
use naust_client::{Code, Level, Outcome};
use naust_wire::commit::Draft;
use naust_wire::packet::Kind;
use naust_wire::reply::Reply;
use naust_wire::{Sequence, SessionId};
use std::fs;
use std::path::Path;
use std::process::Command;

/// Mounts at a directory; whether that is allowed here.
pub fn mount(at: &Path, arguments: &[&str]) -> bool {
    let output = Command::new("mount").args(arguments).arg(at).output();
    output.is_ok_and(|output| output.status.success())
}

pub fn remount_read_only(at: &Path) -> bool {
    mount(at, &["-o", "remount,bind,ro"])
}

pub fn unmount(at: &Path) {
    let _ = Command::new("umount").arg(at).output();
}

/// A small file system of its own, unmounted when dropped.
struct Small(tempfile::TempDir);

impl Small {
    fn mount(mebibytes: u32) -> Option<Small> {
        let directory = tempfile::tempdir().unwrap();
        let size = format!("size={mebibytes}m");
        let mounted = mount(directory.path(), &["-t", "tmpfs", "-o", &size, "tmpfs"]);
        mounted.then_some(Small(directory))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        unmount(self.0.path());
    }
}

fn put(wire: &mut Wire, number: u64) -> Result<(), (Code, Outcome)> {
    let mut draft = Draft::default();
    draft.put("k", format!("{number:06}").into_bytes(), vec![number as u8; 50_000]).unwrap();
    let mut body = Vec::new();
    draft.encode(SessionId::NONE, Sequence(0), Sequence(0), &mut body).unwrap();
    match wire.ask(Kind::Commit, wire.shard, &body) {
        Reply::Committed(_) => Ok(()),
        Reply::Error(failure) => Err((failure.code, failure.outcome)),
        other => panic!("{other:?}"),
    }
}

/// Rows 0 to `count` are there with their values, but for those in doubt, and no other.
fn check(node: &Node, count: u64) {
    block_on(async {
        let rows = connect(&node.address()).await.namespace("default").kv("k");
        for number in 0..count {
            let found = rows.get_at(format!("{number:06}"), Level::Linearizable).await.unwrap();
            let row = found.row.unwrap_or_else(|| panic!("row {number} is gone"));
            assert!(row.value.len() == 50_000 && row.value[0] == number as u8, "row {number}");
        }
        let after = rows.get(format!("{:06}", count + 1)).await.unwrap();
        assert!(after.is_none(), "a refused commit is there");
    });
}

/// Why: a file system can run out of room for names alone; a namespace that is made then is not
/// damaged, and is there as soon as there is room.
#[test]
fn a_disk_without_room_for_names() {
    let directory = tempfile::tempdir().unwrap();
    let options = "size=64m,nr_inodes=300";
    if !mount(directory.path(), &["-t", "tmpfs", "-o", options, "tmpfs"]) {
        return skip("a_disk_without_room_for_names", "this user may not mount a tmpfs");
    }
    let small = Small(directory);
    let scratch = tempfile::tempdir().unwrap();
    let data = small.0.path().join("data");
    let Started::Ready(node) = try_start(&data, scratch.path(), &[]) else {
        panic!("it does not start");
    };
    let run = |arguments: &[&str]| {
        let output = naust(arguments).env("NAUST_ADDRESS", &node.address).output().unwrap();
        (output.status.success(), String::from_utf8(output.stderr).unwrap())
    };
    // The log of the directory has its file, and so has what the next start reads.
    wait_until("the name to be written", || data.join("NAME").exists());
    assert_eq!(run(&["namespace", "create", "inn"]), (true, String::new()));
    let mut fillers = Vec::new();
    for number in 0.. {
        let filler = small.0.path().join(format!("filler-{number}"));
        if fs::write(&filler, "").is_err() {
            break;
        }
        fillers.push(filler);
    }
    assert_eq!(run(&["namespace", "create", "shop"]), (true, String::new()));
    let (_, told) = run(&["kv", "put", "k", "a", "1", "--namespace", "shop"]);
    assert!(told.contains("disk_full"), "{told}");
    fillers.iter().for_each(|filler| fs::remove_file(filler).unwrap());
    wait_until("the namespace to be there", || {
        run(&["kv", "put", "k", "a", "1", "--namespace", "shop"]).0
    });
    assert_eq!(node.errors().lines().count(), 1, "{}", node.errors());
    drop(node);
}

/// Why: disks fill. The node must neither stop nor lose nor lie, and must need no restart.
#[test]
fn a_disk_that_fills_and_is_emptied() {
    let Some(small) = Small::mount(48) else {
        return skip("a_disk_that_fills_and_is_emptied", "this user may not mount a tmpfs");
    };
    let filler = small.0.path().join("filler");
    fs::write(&filler, vec![1; 16 << 20]).unwrap();
    let mut node = Node::open(&small.0.path().join("data"), &["--set", "memtable_bytes=4194304"]);
    let mut wire = Wire::enter(&node.address(), "default");
    let mut count = 0;
    let refused = loop {
        match put(&mut wire, count) {
            Ok(()) => count += 1,
            Err((Code::Overloaded, Outcome::NotDone)) => {}
            Err(told) => break told,
        }
        assert!(count < 2000, "48 MiB never fill");
    };
    assert_eq!(refused, (Code::DiskFull, Outcome::NotDone));
    assert!(count > 50, "only {count} commits went in");
    check(&node, count);
    let told = node.naust(&["kv", "put", "k", "x", "1"]);
    let told = String::from_utf8(told.stderr).unwrap();
    assert!(!told.contains("panicked"), "{told}");

    fs::remove_file(&filler).unwrap();
    wait_until("service to return", || put(&mut wire, count).is_ok());
    check(&node, count + 1);
    node.kill_and_restart();
    check(&node, count + 1);
}

/// Why: the machine restarts while the disk is full. What was acknowledged can be read, or the node
/// says in a sentence that it needs space; with space all is well.
#[test]
fn a_restart_on_a_full_disk() {
    let Some(small) = Small::mount(32) else {
        return skip("a_restart_on_a_full_disk", "this user may not mount a tmpfs");
    };
    let data = small.0.path().join("data");
    let scratch = tempfile::tempdir().unwrap();
    let mut node = Node::open(&data, &[]);
    let mut wire = Wire::enter(&node.address(), "default");
    for number in 0..20 {
        put(&mut wire, number).unwrap();
    }
    node.process.kill().unwrap();
    let filler = small.0.path().join("filler");
    // Fills what is left.
    assert!(fs::write(&filler, vec![1; 32 << 20]).is_err());
    match try_start(&data, scratch.path(), &[]) {
        Started::Ready(mut full) => {
            let mut wire = Wire::enter(&full.address, "default");
            assert_eq!(wire.get("k", "000019").map(|value| value.len()), Some(50_000));
            assert!(!full.has_ended(), "{}", full.errors());
            assert!(!full.errors().contains("panicked"), "{}", full.errors());
        }
        refused => drop(crate::support::assert_refused(refused, &[])),
    }
    fs::remove_file(&filler).unwrap();
    node.process.restart().unwrap();
    check(&node, 20);
    let verified = naust(&["log", "verify", "--data"]).arg(&data).output().unwrap();
    assert!(verified.status.success(), "{verified:?}");
}
