//! What is known in memory is not looked up in tables: whoever asks may be in no position to wait
//! for a disk.

#![allow(clippy::unwrap_used)]

mod support;

use naust_machine::{Machine, MachineOptions, MemTables};
use naust_wire::commit::Draft;
use naust_wire::limits::STREAM_CHUNK_RECORDS_MAX;
use naust_wire::{Offset, SessionId, ShardId};
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
