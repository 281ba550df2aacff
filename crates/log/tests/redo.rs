//! What a journal does and refuses, one story a test.

#![allow(clippy::unwrap_used)] // helpers of tests

use naust_log::journal::{self, ChoreError, Journaled, ReplayError, Replayed, replay};
use naust_log::sim::{Op, SimDisk, Verdict, Weather};
use naust_log::{Disk, Identity, Journal, Layout, Log, Open};
use naust_wire::frame::Kind;
use naust_wire::{LogTime, NodeId, ShardId, Term};
use std::io::ErrorKind;
use std::sync::Arc;

const HALF_BYTES: u64 = 8 * 1024;
const SHARDS: [ShardId; 3] = [ShardId(3), ShardId(4), ShardId(5)];

/// Logs, their disks, and the journal that they share.
struct Node {
    disk: SimDisk,
    journal: Arc<Journal>,
    disks: Vec<SimDisk>,
    logs: Vec<Log>,
}

impl Node {
    /// With a journal that is made, and a frame in each log.
    fn new() -> Node {
        let disk = SimDisk::new();
        let journal = Journal::new(Arc::new(disk.clone()), HALF_BYTES, 77);
        let mut node = Node { disk, journal, disks: Vec::new(), logs: Vec::new() };
        for shard in SHARDS {
            let disk = SimDisk::new();
            let identity = Identity { node: NodeId(1), shard, cluster: 2 };
            Log::create_with(&disk, identity, b"", Layout::STANDARD).unwrap();
            let journal = Arc::clone(&node.journal);
            let journaled = Journaled::new(Arc::new(disk.clone()), journal, shard).unwrap();
            node.logs.push(Log::open(Arc::new(journaled), shard).unwrap().0);
            node.disks.push(disk);
        }
        // Each log makes its file with some room, and the next write would use the journal.
        assert_eq!(node.write(), 6, "files and their names");
        assert_eq!(node.write(), 3);
        node.journal.chore().unwrap().run().unwrap();
        node
    }

    /// Adds a frame to each log, and writes them together; returns how many syncs that took.
    fn write(&mut self) -> u32 {
        let mut writes = Vec::new();
        for log in &mut self.logs {
            let index = log.end().index.next();
            log.stage(Kind::Commit, Term(1), index, LogTime(1), &[index.0 as u8; 100]);
            writes.push(log.next_write().unwrap());
        }
        let done = self.journal.commit(writes);
        let syncs = done.iter().map(naust_log::Written::syncs).sum();
        for (log, written) in self.logs.iter_mut().zip(done) {
            log.written(written).unwrap();
        }
        syncs
    }

    fn syncs(&self) -> u64 {
        let disks = self.disks.iter().chain([&self.disk]);
        disks.map(|disk| disk.counters().syncs).sum()
    }
}

/// What is replayed of a journal into logs that have nothing of it any more.
fn replay(redo: &SimDisk, disks: &[SimDisk]) -> Result<Replayed, ReplayError> {
    replay::run(redo, &|shard| {
        let at = SHARDS.iter().position(|known| *known == shard);
        Ok(at.map(|at| Arc::new(disks[at].clone()) as Arc<dyn Disk>))
    })
}

fn bytes(disk: &SimDisk, name: &str) -> Vec<u8> {
    let file = disk.open(name, Open::Existing).unwrap();
    let mut bytes = vec![0; file.len().unwrap() as usize];
    file.read_at(0, &mut bytes).unwrap();
    bytes
}

#[test]
fn writes_of_many_logs_take_one_sync_and_a_lone_one_its_own() {
    let mut node = Node::new();
    let before = node.syncs();
    assert_eq!(node.write(), 1);
    assert_eq!(node.syncs() - before, 1, "what is told is what was done");
    let log = &mut node.logs[0];
    log.stage(Kind::Commit, Term(1), log.end().index.next(), LogTime(1), b"alone");
    let written = log.next_write().unwrap().run();
    assert_eq!(written.syncs(), 1);
    log.written(written).unwrap();
    assert_eq!(node.syncs() - before, 2);
}

/// The next sync of a file fails.
struct NextSync {
    name: String,
    is_done: bool,
}

impl Weather for NextSync {
    fn ask(&mut self, op: Op, file: &str) -> Verdict {
        if self.is_done || op != Op::Sync || file != self.name {
            return Verdict::Go;
        }
        self.is_done = true;
        Verdict::Fail(ErrorKind::Other)
    }
}

/// Why: what a sync could not write counts as clean. Cleaning the journal synced the segment once
/// more, which succeeded, and forgot frames that were nowhere else.
#[test]
fn what_a_failed_sync_lost_of_a_segment_stays_in_the_journal() {
    for seed in 0..20 {
        let mut node = Node::new();
        let mut rounds = 0;
        // Until the other half is used, and this one is to be made clean.
        let chore = loop {
            assert!(rounds < 100, "there is nothing to make clean");
            rounds += 1;
            assert_eq!(node.write(), 1);
            if let Some(chore) = node.journal.chore() {
                break chore;
            }
        };
        let end = node.logs[0].durable().index;
        let name = format!("{:016x}.log", Layout::STANDARD.base(node.logs[0].end().offset).0);
        let weather = NextSync { name, is_done: false };
        node.disks[0].set_weather(Some(Box::new(weather)));
        let log = &mut node.logs[0];
        log.stage(Kind::Commit, Term(1), log.end().index.next(), LogTime(1), b"alone");
        let failed = log.next_write().unwrap().run();
        // The log's owner hears of that later.
        let done = chore.run();
        assert!(matches!(done, Err(ChoreError::Fault(_))), "{done:?}");
        assert!(log.written(failed).is_err());
        let disks: Vec<SimDisk> = node.disks.iter().map(|disk| disk.crash(seed)).collect();
        replay(&node.disk.crash(seed), &disks).unwrap();
        for (shard, disk) in SHARDS.into_iter().zip(&disks) {
            let (log, _) = Log::open(Arc::new(disk.crash(seed)), shard).unwrap();
            assert!(log.end().index >= end, "{shard}: {:?} of {end:?}", log.end().index);
        }
    }
}

/// Segments that lost all that was not synced have it again.
#[test]
fn what_segments_lost_is_written_again_and_the_journal_is_gone() {
    // Some of these seeds lose everything that was not synced.
    for seed in 0..20 {
        let mut node = Node::new();
        for _ in 0..5 {
            assert_eq!(node.write(), 1);
        }
        let end = node.logs[0].durable();
        let disks: Vec<SimDisk> = node.disks.iter().map(|disk| disk.crash(seed)).collect();
        let redo = node.disk.crash(seed);
        let replayed = replay(&redo, &disks).unwrap();
        assert_eq!((replayed.records, replayed.segments), (5, 3));
        assert_eq!(replay(&redo, &disks).unwrap(), Replayed::default(), "once is enough");
        assert!(redo.files().is_empty());
        for (shard, disk) in SHARDS.into_iter().zip(&disks) {
            let (log, opened) = Log::open(Arc::new(disk.crash(seed)), shard).unwrap();
            assert_eq!((log.end().index, opened.torn), (end.index, None));
        }
    }
}

/// A bit that flips anywhere is told, or harms nothing; in the last record it looks like a tear.
#[test]
fn damage_is_told_and_a_torn_end_is_not_damage() {
    let mut node = Node::new();
    for _ in 0..3 {
        node.write();
    }
    let whole = node.disk.copy();
    let redo = bytes(&whole, journal::NAME);
    let records: Vec<usize> =
        (0..redo.len()).step_by(512).filter(|at| redo[*at..].starts_with(b"NaustRdo")).collect();
    assert_eq!(records.len(), 3);
    let used = |at: usize| u32::from_le_bytes(redo[at + 8..at + 12].try_into().unwrap()) as usize;
    for at in (0..records[2] + used(records[2])).chain(HALF_BYTES as usize..).step_by(3) {
        if at >= redo.len() {
            break;
        }
        let (disk, disks) = (whole.copy(), node.disks.iter().map(SimDisk::copy));
        let disks: Vec<SimDisk> = disks.collect();
        assert!(disk.rot(journal::NAME, at as u64, 3));
        let header = at % (HALF_BYTES as usize) < 512;
        let record = records.iter().rposition(|first| *first <= at);
        let is_used = record.is_some_and(|record| at < records[record] + used(records[record]));
        match replay(&disk, &disks) {
            Err(ReplayError::Damaged { .. } | ReplayError::Format { .. }) => {
                assert!(header || (is_used && record != Some(2)), "byte {at}");
                assert_eq!(disk.files().len(), 1, "it is kept");
            }
            Ok(replayed) => {
                let left = if is_used { 2 } else { 3 };
                assert_eq!(replayed.records, left, "byte {at}");
                assert!(!header && (!is_used || record == Some(2)), "byte {at}");
            }
            Err(other) => panic!("byte {at}: {other}"),
        }
    }
}

/// The last record of a full half is bad, and the other half goes on behind it.
#[test]
fn a_hole_between_the_halves_is_told() {
    let mut node = Node::new();
    let first_of_other = HALF_BYTES as usize + 512;
    while !bytes(&node.disk, journal::NAME)[first_of_other..].starts_with(b"NaustRdo") {
        node.write();
    }
    let redo = bytes(&node.disk, journal::NAME);
    let last = (0..HALF_BYTES as usize)
        .step_by(512)
        .rfind(|at| redo[*at..].starts_with(b"NaustRdo"))
        .unwrap();
    assert!(node.disk.rot(journal::NAME, last as u64 + 60, 0));
    let disks: Vec<SimDisk> = node.disks.iter().map(SimDisk::copy).collect();
    let damaged = replay(&node.disk.copy(), &disks).unwrap_err();
    assert!(matches!(damaged, ReplayError::Damaged { at, .. } if at == last as u64), "{damaged}");
}

/// With both halves full and none clean, writes go the old way; nothing waits.
#[test]
fn without_room_each_write_takes_its_own_sync() {
    let mut node = Node::new();
    let mut rounds = 0;
    while node.write() == 1 {
        rounds += 1;
    }
    assert!(rounds > 5);
    assert_eq!(node.write(), 3);
    node.journal.chore().unwrap().run().unwrap();
    assert!(node.journal.chore().is_none(), "each is given out once");
    assert_eq!(node.write(), 1, "there is room again");
}

/// What was cleaned counts no more, whatever a power cut leaves: its logs may have been cut since,
/// and nothing in the journal would speak of that.
#[test]
fn what_was_cleaned_never_comes_back() {
    for seed in 0..20 {
        let mut node = Node::new();
        let mut full = 0;
        while node.journal.chore().is_none() {
            assert_eq!(node.write(), 1);
            full += 1;
        }
        // That was given out and not done: another life.
        let mut node = Node::new();
        for _ in 0..full {
            assert_eq!(node.write(), 1);
        }
        node.journal.chore().unwrap().run().unwrap();
        let disks: Vec<SimDisk> = node.disks.iter().map(SimDisk::copy).collect();
        let replayed = replay(&node.disk.crash(seed), &disks).unwrap();
        assert_eq!(replayed.records, 1, "the first one of the other half");
    }
}

/// The next operation of one sort on the journal fails in this way.
struct Refuses(fn(Op) -> bool, ErrorKind);

impl Weather for Refuses {
    fn ask(&mut self, op: Op, _: &str) -> Verdict {
        if (self.0)(op) { Verdict::Fail(self.1) } else { Verdict::Go }
    }
}

#[test]
fn a_sync_or_write_that_fails_is_never_tried_again() {
    for op in [|op| op == Op::Sync, |op| matches!(op, Op::Write(_))] {
        let mut node = Node::new();
        node.write();
        node.disk.set_weather(Some(Box::new(Refuses(op, ErrorKind::Other))));
        let log = &mut node.logs[0];
        log.stage(Kind::Commit, Term(1), log.end().index.next(), LogTime(1), b"lost");
        let done = node.journal.commit(vec![log.next_write().unwrap()]);
        node.disk.set_weather(None);
        assert!(log.written(done.into_iter().next().unwrap()).is_err());
        let log = &mut node.logs[1];
        log.stage(Kind::Commit, Term(1), log.end().index.next(), LogTime(1), b"lost too");
        let done = node.journal.commit(vec![log.next_write().unwrap()]);
        assert!(log.written(done.into_iter().next().unwrap()).is_err());
        assert!(node.journal.settle(SHARDS[2]).is_err() && node.journal.close().is_err());
    }
}

#[test]
fn without_space_there_is_no_journal_or_the_old_way() {
    let full = |op| matches!(op, Op::Write(_));
    let mut node = Node::new();
    node.disk.set_weather(Some(Box::new(Refuses(full, ErrorKind::StorageFull))));
    assert_eq!(node.write(), 3);
    node.disk.set_weather(None);
    assert_eq!(node.write(), 1);

    let disk = SimDisk::new();
    disk.set_space(Some(4096));
    node.journal = Journal::new(Arc::new(disk), HALF_BYTES, 1);
    assert_eq!(node.write(), 3);
    let chore = node.journal.chore().unwrap().run();
    assert!(matches!(chore, Err(ChoreError::Unmade(_))));
    assert_eq!(node.write(), 3);
    assert!(node.journal.chore().is_none(), "it is not tried again");
}

/// The orderly end: segments alone have everything.
#[test]
fn a_closed_journal_is_not_needed() {
    let mut node = Node::new();
    node.write();
    let end = node.logs[0].durable().index;
    node.journal.close().unwrap();
    assert!(node.disk.crash(5).files().is_empty());
    for (shard, disk) in SHARDS.into_iter().zip(&node.disks) {
        let (log, _) = Log::open(Arc::new(disk.crash(3)), shard).unwrap();
        assert_eq!(log.end().index, end);
    }
}
