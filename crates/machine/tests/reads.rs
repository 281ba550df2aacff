//! What is known in memory is not looked up in tables: whoever asks may be in no position to wait
//! for a disk.

#![allow(clippy::unwrap_used)]

mod support;

use naust_machine::{Machine, MachineOptions, MemTables};
use naust_wire::commit::Draft;
use naust_wire::control::{Control, Floor};
use naust_wire::limits::{RETENTION_CHUNKS_MAX, STREAM_CHUNK_RECORDS_MAX};
use naust_wire::options::StreamOptions;
use naust_wire::reply::Reply;
use naust_wire::{LogTime, Offset, SessionId, ShardId};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use support::{Log, Outcome, crash, open_with, work};

const SHARD: ShardId = ShardId(5);

struct Shard {
    log: Log,
    machine: Machine<MemTables>,
    reads: Arc<AtomicU64>,
}

impl Shard {
    fn new() -> Shard {
        Shard::opened(MemTables::new(), Log::default())
    }

    fn opened(tables: MemTables, log: Log) -> Shard {
        let reads = tables.reads();
        let machine = open_with(tables, SHARD, &log, MachineOptions::default());
        Shard { log, machine, reads }
    }

    fn restart(self) -> Shard {
        Shard::opened(crash(&self.machine), self.log)
    }

    fn flush(&mut self) {
        self.machine.flush();
        work(&mut self.machine, 9999);
        assert!(self.machine.is_flushed());
    }

    fn control(&mut self, control: &Control) -> Outcome {
        let logged = self.log.control(control);
        self.machine.apply(&logged.frame()).unwrap().into()
    }

    fn append(&mut self, streams: impl IntoIterator<Item = String>) -> Vec<Offset> {
        let mut draft = Draft::default();
        for stream in streams {
            draft.append(stream, &b"a record"[..]).unwrap();
        }
        let logged = self.log.commit(&draft, SessionId::NONE, (0, 0));
        match self.machine.apply(&logged.frame()).unwrap().into() {
            Outcome::Committed { ids, .. } => ids,
            other => panic!("{other:?}"),
        }
    }

    fn retain(&mut self, name: &str, options: StreamOptions) {
        self.control(&Control::SetStream { name: name.to_owned(), options });
    }

    /// What is due so many milliseconds of log time later, and how often tables were read.
    fn due_in(&mut self, ms: u64) -> (Vec<Floor>, u64) {
        let before = self.reads.load(Ordering::Relaxed);
        let due = self.machine.floors_due(LogTime(self.log.time.0 + ms)).unwrap();
        (due, self.reads.load(Ordering::Relaxed) - before)
    }

    /// How many records of each stream live.
    fn records(&self) -> Vec<u64> {
        match self.machine.describe(None, 999).unwrap() {
            Reply::Described { streams, .. } => streams.iter().map(|s| s.records).collect(),
            other => panic!("{other:?}"),
        }
    }

    /// Where the records of stream `s` from an offset on lie, and how often tables were read.
    fn located(&self, from: Offset) -> (Vec<Offset>, u64) {
        let before = self.reads.load(Ordering::Relaxed);
        let located = self.machine.locate("s", from, 9999, usize::MAX).unwrap();
        let places = located.places.iter().map(|place| place.offset).collect();
        (places, self.reads.load(Ordering::Relaxed) - before)
    }
}

#[test]
fn the_end_of_a_stream_is_found_in_memory() {
    let mut shard = Shard::new();
    let mut ids = Vec::new();
    for n in 1..=STREAM_CHUNK_RECORDS_MAX {
        ids.extend(shard.append(["s".to_owned()]));
        let end = shard.machine.applied().next;
        assert_eq!(shard.located(end), (vec![], 0), "after record {n}");
    }
    let last = ids[ids.len() - 1];
    let (found, reads) = shard.located(last);
    assert!(found == [last] && reads > 0, "the chunk is full, and in the tables");
    assert!(!shard.machine.locates_from_memory("s", last));
    let end = shard.machine.applied().next;
    let new = shard.append(["s".to_owned()])[0];
    assert!(shard.machine.locates_from_memory("s", end));
    assert_eq!(shard.located(end), (vec![new], 0), "a new chunk was begun");
    let all: Vec<Offset> = ids.iter().copied().chain([new]).collect();
    assert_eq!(shard.located(Offset::ZERO).0, all);

    shard.flush();
    let mut shard = shard.restart();
    assert_eq!(shard.located(Offset::ZERO).0, all);
    assert!(shard.located(new).0 == [new] && !shard.machine.locates_from_memory("s", new));
    let end = shard.machine.applied().next;
    assert_eq!(shard.located(end), (vec![], 0), "nothing is there to be read");
    let newer = shard.append(["s".to_owned()])[0];
    assert_eq!(shard.located(end), (vec![newer], 0));
    assert!(shard.machine.locates_from_memory("nowhere", Offset::ZERO), "it is refused");
}

const HOUR_MS: u64 = 3_600_000;

#[test]
fn a_look_at_retention_reads_nothing_of_streams_of_which_nothing_is_due() {
    let streams = 2 * RETENTION_CHUNKS_MAX;
    let mut shard = Shard::new();
    shard.log.time.0 += 999 * HOUR_MS;
    let day = StreamOptions { max_age_ms: 24 * HOUR_MS, ..StreamOptions::default() };
    (0..streams).for_each(|n| shard.retain(&format!("s{n}"), day));
    for _ in 0..3 {
        for some in [0..streams / 2, streams / 2..streams] {
            shard.append(some.map(|n| format!("s{n}")));
        }
        shard.log.time.0 += 6 * HOUR_MS;
    }
    shard.append((0..STREAM_CHUNK_RECORDS_MAX).map(|_| "s0".to_owned()));
    assert_eq!(shard.due_in(0), (vec![], 0));
    shard.flush();
    assert_eq!(shard.due_in(0), (vec![], 0));

    // Whoever opens the tables has to look once, at a bounded number of streams a time.
    let mut shard = shard.restart();
    let mut looks = 0;
    loop {
        let (due, reads) = shard.due_in(0);
        assert!(due.is_empty() && reads <= 2 * RETENTION_CHUNKS_MAX as u64, "{reads} reads");
        if reads == 0 {
            break;
        }
        assert!(shard.machine.ages(), "there is another look");
        looks += 1;
    }
    assert_eq!(looks, 2);

    // The first records go, and then it is known again when the next ones will.
    shard.log.time.0 += 8 * HOUR_MS;
    let mut floored = 0;
    while floored < streams {
        let (due, _) = shard.due_in(0);
        assert!(!due.is_empty() && due.len() <= RETENTION_CHUNKS_MAX);
        floored += due.len();
        shard.control(&Control::Floors(due));
    }
    let records = shard.records();
    assert!(records[1..].iter().all(|records| *records == 2), "two of three live: {records:?}");
    assert_eq!(shard.due_in(HOUR_MS), (vec![], 0));
    assert!(!shard.due_in(6 * HOUR_MS).0.is_empty());
}

#[test]
fn an_entry_of_floors_lets_a_bounded_number_of_records_go() {
    let most = (RETENTION_CHUNKS_MAX * STREAM_CHUNK_RECORDS_MAX) as u64;
    let each = most * 3 / 5;
    let mut shard = Shard::new();
    for name in ["a", "b", "c"] {
        shard.retain(name, StreamOptions { max_records: 1, ..StreamOptions::default() });
        let mut left = each as usize;
        while left > 0 {
            let some = left.min(4096);
            shard.append((0..some).map(|_| name.to_owned()));
            left -= some;
        }
    }
    let mut before = shard.records();
    assert_eq!(before, [each; 3]);
    let mut seen = Vec::new();
    loop {
        let (due, _) = shard.due_in(0);
        if due.is_empty() {
            break;
        }
        shard.control(&Control::Floors(due));
        let after = shard.records();
        let gone: Vec<u64> = before.iter().zip(&after).map(|(was, is)| was - is).collect();
        assert!(gone.iter().sum::<u64>() <= most, "{gone:?}");
        seen.push(gone);
        before = after;
    }
    assert_eq!(before, [1; 3]);
    // The next look begins where the last one ended, so no stream waits for ever.
    assert!(seen[0][0] > 0 && seen[0][2] == 0 && seen[1][2] > 0, "{seen:?}");
}
