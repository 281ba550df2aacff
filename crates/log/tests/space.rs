//! What a disk without room may be asked again, and what not.

#![allow(clippy::unwrap_used)] // helpers of tests

use naust_log::sim::{Op, SimDisk, Verdict, Weather};
use naust_log::{Identity, Layout, Log};
use naust_wire::frame::Kind;
use naust_wire::{LogTime, NodeId, ShardId, Term};
use std::io::ErrorKind;
use std::sync::Arc;

/// The next operation of one sort on a segment fails in this way.
struct Refuses(fn(Op) -> bool, ErrorKind);

impl Weather for Refuses {
    fn ask(&mut self, op: Op, file: &str) -> Verdict {
        let hit = file.ends_with(".log") && (self.0)(op);
        if hit { Verdict::Fail(self.1) } else { Verdict::Go }
    }
}

fn is_write(op: Op) -> bool {
    matches!(op, Op::Write(_))
}

fn is_sync(op: Op) -> bool {
    op == Op::Sync
}

/// A log with one frame on disk and another one staged.
fn log() -> (SimDisk, Log) {
    let disk = SimDisk::new();
    let identity = Identity { node: NodeId(7), shard: ShardId(3), cluster: 1 };
    Log::create_with(&disk, identity, b"members", Layout::STANDARD).unwrap();
    let (mut log, _) = Log::open(Arc::new(disk.clone()), ShardId(3)).unwrap();
    stage(&mut log);
    let done = log.next_write().unwrap().run();
    log.written(done).unwrap();
    stage(&mut log);
    (disk, log)
}

fn stage(log: &mut Log) {
    let end = log.end();
    log.stage(Kind::Commit, Term(1), end.index.next(), LogTime(1), &[5; 4096]);
}

#[test]
fn a_write_without_room_is_tried_again_whoever_ran_out_of_it() {
    for kind in [ErrorKind::StorageFull, ErrorKind::QuotaExceeded] {
        let (disk, mut log) = log();
        disk.set_weather(Some(Box::new(Refuses(is_write, kind))));
        let done = log.next_write().unwrap().run();
        assert!(done.disk_full());
        log.written(done).unwrap();
        assert!(log.is_full() && log.durable() != log.end());
        disk.set_weather(None);
        log.retry();
        let done = log.next_write().unwrap().run();
        log.written(done).unwrap();
        assert_eq!(log.durable(), log.end());
    }
}

/// A sync that failed may have thrown pages away, other writes' pages among them.
#[test]
fn a_sync_is_never_tried_again() {
    for kind in [ErrorKind::StorageFull, ErrorKind::QuotaExceeded] {
        let (disk, mut log) = log();
        disk.set_weather(Some(Box::new(Refuses(is_sync, kind))));
        let done = log.next_write().unwrap().run();
        assert!(!done.disk_full());
        assert!(log.written(done).is_err());
    }
}

#[test]
fn an_extension_without_room_waits_and_one_that_can_not_be_synced_is_a_fault() {
    for kind in [ErrorKind::StorageFull, ErrorKind::QuotaExceeded] {
        for (op, is_full) in [(is_write as fn(Op) -> bool, true), (is_sync, false)] {
            let (disk, mut log) = log();
            let extend = log.extend().expect("a log that grows is extended");
            disk.set_weather(Some(Box::new(Refuses(op, kind))));
            let extended = extend.run();
            assert_eq!(extended.disk_full(), is_full);
            assert_eq!(log.extended(extended).is_ok(), is_full);
        }
    }
}
