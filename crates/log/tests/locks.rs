//! Readers and writers of other segments go on while the operating system takes its time over the
//! name of one.

#![allow(clippy::unwrap_used, clippy::disallowed_methods)] // helpers of tests

use naust_log::disk::{Disk, File, Open};
use naust_log::sim::SimDisk;
use naust_log::{Identity, Layout, Log, Reader, TrimInput};
use naust_wire::frame::Kind;
use naust_wire::{LogTime, NodeId, Offset, ShardId, Term};
use std::io;
use std::ops::Range;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Only a lock that is held takes so long.
const DEADLINE: Duration = Duration::from_secs(60);

/// Stops in the first operation on a name, says so, and goes on when it is told.
struct Gate {
    name: String,
    channels: Mutex<Option<(Sender<()>, Receiver<()>)>>,
}

#[derive(Clone)]
struct Stuck {
    disk: SimDisk,
    gate: Arc<Mutex<Option<Arc<Gate>>>>,
}

impl Stuck {
    /// From now on; what is there, and what to let it go on with.
    fn close(&self, name: &str) -> (Receiver<()>, Sender<()>) {
        let ((here, is_here), (on, go_on)) = (channel(), channel());
        let channels = Mutex::new(Some((here, go_on)));
        *self.gate.lock().unwrap() = Some(Arc::new(Gate { name: name.to_owned(), channels }));
        (is_here, on)
    }

    fn pass(&self, name: &str) {
        let gate = self.gate.lock().unwrap().clone().filter(|gate| gate.name == name);
        let channels = gate.and_then(|gate| gate.channels.lock().unwrap().take());
        if let Some((here, go_on)) = channels {
            here.send(()).unwrap();
            go_on.recv_timeout(DEADLINE).expect("the others go on");
        }
    }
}

impl Disk for Stuck {
    fn list(&self) -> io::Result<Vec<String>> {
        self.disk.list()
    }

    fn open(&self, name: &str, open: Open) -> io::Result<Arc<dyn File>> {
        self.pass(name);
        self.disk.open(name, open)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.pass(from);
        self.disk.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.pass(name);
        self.disk.remove(name)
    }

    fn sync(&self) -> io::Result<()> {
        self.disk.sync()
    }
}

const SEGMENT_BYTES: u64 = 1 << 14;

fn base(number: u64) -> Offset {
    Offset::FIRST.plus(number * SEGMENT_BYTES)
}

fn name(number: u64) -> String {
    format!("{:016x}.log", base(number).0)
}

/// A log of many segments, opened anew, so that no file of it is open.
fn log() -> (Stuck, Log) {
    let disk = SimDisk::new();
    let identity = Identity { node: NodeId(7), shard: ShardId(3), cluster: 1 };
    let layout = Layout::new(SEGMENT_BYTES).unwrap();
    Log::create_with(&disk, identity, b"members", layout).unwrap();
    let (mut log, _) = Log::open(Arc::new(disk.clone()), ShardId(3)).unwrap();
    for _ in 0..100 {
        let end = log.end();
        log.stage(Kind::Commit, Term(1), end.index.next(), LogTime(1), &[5; 1000]);
        let done = log.next_write().unwrap().run();
        log.written(done).unwrap();
    }
    drop(log);
    let stuck = Stuck { disk: disk.restart(), gate: Arc::default() };
    let (log, _) = Log::open(Arc::new(stuck.clone()), ShardId(3)).unwrap();
    (stuck, log)
}

fn read(reader: &Reader, number: u64) -> Vec<u8> {
    reader.frames(base(number), base(number + 1), 1 << 20).unwrap().into_bytes()
}

#[test]
fn a_file_that_takes_long_to_open_holds_up_nobody_else() {
    let (disk, mut log) = log();
    let (is_here, on) = disk.close(&name(1));
    let reader = log.reader();
    let slow = std::thread::spawn(move || read(&reader, 1).len());
    is_here.recv_timeout(DEADLINE).unwrap();
    assert!(!read(&log.reader(), 2).is_empty());
    let end = log.end();
    log.stage(Kind::Commit, Term(1), end.index.next(), LogTime(1), &[5; 1000]);
    let done = log.next_write().unwrap().run();
    log.written(done).unwrap();
    on.send(()).unwrap();
    assert!(slow.join().unwrap() > 0);
}

/// Whatever is read while a segment is rewritten is right, whichever of the two files it came
/// from.
#[test]
fn a_rename_that_takes_long_holds_up_nobody_and_misleads_nobody() {
    let (disk, mut log) = log();
    let reader = log.reader();
    let first = reader.frame(base(0)).unwrap();
    let live = |range: Range<Offset>| match range.start {
        start if start == base(0) => Some(vec![first.from()..first.end()]),
        _ => Some(vec![range]),
    };
    let input = TrimInput { persisted: base(3), keep_from: base(3), live: &live };
    assert!(log.trim(&input).is_none(), "the log's start moves first");
    let done = log.next_write().unwrap().run();
    log.written(done).unwrap();
    let trim = log.trim(&input).expect("something to trim");
    let (is_here, on) = disk.close(&format!("{}.new", name(0)));
    let (is_renamed, renamed) = (is_here, on);
    let slow = std::thread::spawn(move || trim.run());
    // The copy is created under that name first.
    is_renamed.recv_timeout(DEADLINE).unwrap();
    let (is_here, on) = disk.close(&format!("{}.new", name(0)));
    renamed.send(()).unwrap();
    is_here.recv_timeout(DEADLINE).unwrap();
    assert!(!read(&reader, 2).is_empty());
    assert_eq!(reader.frame(base(0)).unwrap().bytes(), first.bytes());
    assert!(reader.frame(first.end()).is_err(), "what is dead is not read any more");
    on.send(()).unwrap();
    let trimmed = slow.join().unwrap();
    assert!(trimmed.bytes() > 0);
    log.trimmed(trimmed).unwrap();
    assert_eq!(reader.frame(base(0)).unwrap().bytes(), first.bytes());
}
