//! What clients write may not make reading, trimming or looking for damage cost out of proportion:
//! bytes and steps are counted, not time.

#![allow(clippy::unwrap_used)] // helpers of tests

use naust_log::sim::SimDisk;
use naust_log::{Disk, Identity, Layout, Log, Open};
use naust_wire::frame::{self, Kind};
use naust_wire::{LogTime, NodeId, Offset, ShardId, Term};
use std::sync::Arc;

const SHARD: ShardId = ShardId(3);

fn new(segment_bytes: u64) -> (SimDisk, Log) {
    let disk = SimDisk::new();
    let identity = Identity { node: NodeId(1), shard: SHARD, cluster: 2 };
    Log::create_with(&disk, identity, b"", Layout::new(segment_bytes).unwrap()).unwrap();
    let (log, _) = Log::open(Arc::new(disk.clone()), SHARD).unwrap();
    (disk, log)
}

fn write(log: &mut Log) {
    while let Some(write) = log.next_write() {
        log.written(write.run()).unwrap();
    }
}

/// Why: wherever a word of a body looks like the start of a frame, the length that it claims was
/// read and checked: a body of 4 MiB of such words cost 395 GB of reads, and a minute.
#[test]
fn bodies_that_look_like_frames_do_not_hold_up_the_search_behind_damage() {
    let (disk, mut log) = new(2 * 1024 * 1024);
    let mut begin = vec![b'N', b'f', Kind::Commit as u8, frame::VERSION];
    begin.extend_from_slice(&(300 * 1024u32).to_le_bytes());
    begin.resize(1024, 9);
    for body in [&begin.repeat(900)[..], b"next"] {
        let index = log.end().index.next();
        log.stage(Kind::Commit, Term(1), index, LogTime(0), body);
        write(&mut log);
    }
    let name = Layout::name(Offset::FIRST);
    let bytes = disk.open(&name, Open::Existing).unwrap().len().unwrap();
    let next = log.reader().find(naust_wire::Index(2)).unwrap();
    assert!(disk.rot(&name, 60, 0));
    let before = disk.counters().read_bytes;
    let seen = log.reader().scrub(Offset::ZERO).step(u64::MAX).unwrap();
    let places: Vec<_> = seen.damage.iter().map(|damage| (damage.from, damage.to)).collect();
    assert_eq!(places, [(Offset::FIRST, next)]);
    let read = disk.counters().read_bytes - before;
    assert!(read < 4 * bytes, "{read} bytes were read of a file of {bytes}");
    // Recovery looks for what lies behind in the same way.
    drop(log);
    let disk = disk.restart();
    let before = disk.counters().read_bytes;
    assert!(Log::open(Arc::new(disk.clone()), SHARD).is_err(), "it is damage");
    let read = disk.counters().read_bytes - before;
    assert!(read < 8 * bytes, "{read} bytes were read of a file of {bytes}");
}
