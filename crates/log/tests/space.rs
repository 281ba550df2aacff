//! What a disk without room may be asked again, and what not.

#![allow(clippy::unwrap_used)] // helpers of tests

use naust_log::sim::{Op, SimDisk, Verdict, Weather};
use naust_log::{HardState, Identity, Layout, Log};
use naust_wire::frame::Kind;
use naust_wire::{Index, LogTime, NodeId, ShardId, Term};
use std::io::ErrorKind;
use std::sync::Arc;

/// The next operation of one sort on a segment fails in this way.
struct Refuses(fn(Op) -> bool, ErrorKind);

/// The same, on the superblock, behind so many that do not.
struct RefusesVote(fn(Op) -> bool, ErrorKind, usize);

impl Weather for RefusesVote {
    fn ask(&mut self, op: Op, file: &str) -> Verdict {
        if file != "superblock" || !(self.0)(op) {
            return Verdict::Go;
        }
        let Some(left) = self.2.checked_sub(1) else { return Verdict::Fail(self.1) };
        self.2 = left;
        Verdict::Go
    }
}

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

const VOTE: HardState = HardState { term: Term(2), vote: NodeId(7) };

/// Why: file systems that write everything to new space need some for a vote, too, and the node
/// stopped.
#[test]
fn a_vote_without_room_waits_for_it() {
    for kind in [ErrorKind::StorageFull, ErrorKind::QuotaExceeded] {
        for (slots, leaves_unsynced) in [(0, false), (1, false), (0, true), (1, true)] {
            let (disk, mut log) = log();
            if leaves_unsynced {
                let done = log.next_write_unsynced().unwrap().run();
                log.written(done).unwrap();
                log.stage(Kind::Commit, Term(1), log.end().index.next(), LogTime(1), b"one more");
            }
            log.save(VOTE);
            disk.set_weather(Some(Box::new(RefusesVote(is_write, kind, slots))));
            // The frame that was staged waits at the second try; nothing is left for a third one.
            for _ in 0..2 {
                let Some(write) = log.next_write() else { break };
                let done = write.run();
                assert!(done.disk_full());
                log.written(done).unwrap();
                disk.set_weather(Some(Box::new(RefusesVote(is_write, kind, slots % 2))));
            }
            assert!(log.is_full() && log.durable() != log.end());
            assert!(log.next_write().is_none(), "nobody tries without a pause");
            assert!(log.next_write_unsynced().is_none());
            // A power cut meanwhile: what was stored of it was not acted on, and the log opens.
            let cut = disk.copy();
            let (opened, _) = Log::open(Arc::new(cut), ShardId(3)).unwrap();
            assert!(opened.end().offset >= log.durable().offset);
            disk.set_weather(None);
            log.retry();
            while let Some(write) = log.next_write() {
                let done = write.run();
                assert!(!done.disk_full());
                log.written(done).unwrap();
            }
            assert_eq!(log.durable(), log.end());
            let (opened, _) = Log::open(Arc::new(disk.crash(1)), ShardId(3)).unwrap();
            assert_eq!((opened.hard_state(), opened.end()), (VOTE, log.end()));
        }
    }
}

/// Of a cut the superblock tells that it is under way, and then that it is done.
#[test]
fn a_cut_without_room_for_what_tells_of_it_is_done_later() {
    for slots in 0..4 {
        let (disk, mut log) = log();
        let done = log.next_write().unwrap().run();
        log.written(done).unwrap();
        log.cut_after(Index(1)).unwrap();
        let kind = ErrorKind::StorageFull;
        disk.set_weather(Some(Box::new(RefusesVote(is_write, kind, slots))));
        let done = log.next_write().unwrap().run();
        assert!(done.disk_full(), "slot {slots}");
        log.written(done).unwrap();
        assert!(log.next_write().is_none());
        disk.set_weather(None);
        for cut in 0..10 {
            let (opened, _) = Log::open(Arc::new(disk.copy().crash(cut)), ShardId(3)).unwrap();
            assert!(opened.end().index.0 >= 1);
        }
        log.retry();
        stage(&mut log);
        let done = log.next_write().unwrap().run();
        log.written(done).unwrap();
        let (opened, _) = Log::open(Arc::new(disk.crash(slots as u64)), ShardId(3)).unwrap();
        assert_eq!(opened.end(), log.end());
    }
}

#[test]
fn a_vote_that_can_not_be_synced_is_never_tried_again() {
    for slots in 0..2 {
        let (disk, mut log) = log();
        log.save(VOTE);
        let kind = ErrorKind::StorageFull;
        disk.set_weather(Some(Box::new(RefusesVote(is_sync, kind, slots))));
        let done = log.next_write().unwrap().run();
        assert!(!done.disk_full());
        assert!(log.written(done).is_err());
    }
}
