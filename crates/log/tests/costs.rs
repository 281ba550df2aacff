//! What clients write may not make reading, trimming or looking for damage cost out of proportion:
//! bytes and steps are counted, not time.

#![allow(clippy::unwrap_used)] // helpers of tests

use naust_log::sim::SimDisk;
use naust_log::{Disk, Identity, Layout, Log, Open, ReadError, Reader, Trim, TrimInput, Trimmed};
use naust_wire::frame::{self, Kind};
use naust_wire::{LogTime, NodeId, Offset, ShardId, Term};
use std::ops::Range;
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

/// A log of frames of this many bytes; where they begin.
fn log_of(segment_bytes: u64, frames: u64, frame_bytes: usize) -> (SimDisk, Log, Vec<Offset>) {
    let (disk, mut log) = new(segment_bytes);
    let body = vec![7; frame_bytes - 56];
    assert_eq!(frame::frame_bytes(body.len()), frame_bytes);
    let mut begins = Vec::new();
    for _ in 0..frames {
        let index = log.end().index.next();
        begins.push(log.stage(Kind::Commit, Term(1), index, LogTime(0), &body).offset);
        if index.0 % 64 == 0 {
            write(&mut log);
            log.release(log.end().offset);
        }
    }
    write(&mut log);
    log.release(log.end().offset);
    (disk, log, begins)
}

/// What to trim, when of each of these frames the same few bytes live.
fn trim(log: &mut Log, live: &[Offset], record: Range<u64>) -> Option<Trim> {
    let ranges = |range: Range<Offset>| {
        let within = live.iter().filter(|at| range.contains(at));
        Some(within.map(|at| at.plus(record.start)..at.plus(record.end)).collect())
    };
    let end = log.end().offset;
    let job = log.trim(&TrimInput { persisted: end, keep_from: end, live: &ranges });
    write(log);
    job
}

/// All that there is to trim; what came of each.
fn trims(log: &mut Log, live: &[Offset], record: Range<u64>) -> Vec<u64> {
    let mut bytes = Vec::new();
    for _ in 0..200 {
        if let Some(job) = trim(log, live, record.clone()) {
            let done: Trimmed = job.run();
            assert_eq!((done.damage(), done.disk_full()), (None, false));
            bytes.push(done.bytes());
            log.trimmed(done).unwrap();
        }
    }
    bytes
}

/// The stretches of frames that can be read before `to`.
fn stretches(reader: &Reader, to: Offset) -> Vec<Range<Offset>> {
    let (mut stretches, mut at): (Vec<Range<Offset>>, _) = (Vec::new(), Offset::FIRST);
    while at < to {
        match reader.frames(at, to, 1 << 20) {
            Ok(chunk) if chunk.bytes().is_empty() => at = chunk.next().max(at.plus(8)),
            Ok(chunk) => {
                match stretches.last_mut() {
                    Some(last) if last.end == chunk.from() => last.end = chunk.end(),
                    _ => stretches.push(chunk.from()..chunk.end()),
                }
                at = chunk.next();
            }
            Err(ReadError::Trimmed { next: Some(next) }) => at = next,
            Err(other) => panic!("{other}"),
        }
    }
    stretches
}

/// Why: the bytes of records were compared with those of the segment. Where records take less than
/// half of their frames, segments of which all lives were rewritten again and again.
#[test]
fn a_segment_of_small_frames_that_all_live_is_left_as_it_is() {
    let (disk, mut log, begins) = log_of(64 * 1024, 2_000, 272);
    assert!(trim(&mut log, &begins, 160..260).is_none(), "the start has to move first");
    let before = (disk.counters(), disk.files());
    assert_eq!(trims(&mut log, &begins, 160..260), []);
    assert_eq!((disk.counters(), disk.files()), before, "nothing is even read");
    // Every second frame: between two that live no hole would fit.
    let half: Vec<Offset> = begins.into_iter().step_by(2).collect();
    assert_eq!(trims(&mut log, &half, 160..260), []);
    assert_eq!((disk.counters(), disk.files()), before);
}

/// Why: a frame stays whole if one of its records lives, and what is dead was counted by records: a
/// segment was written again though hardly anything went.
#[test]
fn a_trim_that_would_free_less_than_half_leaves_the_file_as_it_is() {
    let (disk, mut log, begins) = log_of(256 * 1024, 40, 16 * 1024);
    let in_four = |few: usize| -> Vec<Offset> {
        let kept = begins.iter().enumerate().filter(|(at, _)| at % 4 < few);
        kept.map(|(_, begin)| *begin).collect()
    };
    assert!(trim(&mut log, &in_four(3), 100..108).is_none(), "the start has to move first");
    let old = log.start().offset;
    let before = (disk.counters().written_bytes, disk.files());
    assert_eq!(trims(&mut log, &in_four(3), 100..108), [0, 0], "each is looked at once");
    assert_eq!((disk.counters().written_bytes, disk.files()), before);
    let reads = disk.counters().read_bytes;
    assert_eq!(trims(&mut log, &in_four(3), 100..108), []);
    assert_eq!(disk.counters().read_bytes, reads, "nothing died since");
    // Of three frames of four another one dies.
    let freed = trims(&mut log, &in_four(2), 100..108);
    assert_eq!(freed, [128 * 1024; 2]);
    let reader = log.reader();
    let kept: u64 = stretches(&reader, old).iter().map(|it| it.end.0 - it.start.0).sum();
    assert_eq!(kept, 256 * 1024);
    for begin in in_four(2) {
        assert_eq!(reader.frame(begin).unwrap().from(), begin);
    }
}

/// Why: each live frame between two dead ones was a range of its own, in memory for ever, and every
/// read looked through all of them.
#[test]
fn holes_that_would_free_no_block_are_not_made() {
    const SEGMENT_BYTES: u64 = 1024 * 1024;
    let (disk, mut log, begins) = log_of(SEGMENT_BYTES, 8_000, 272);
    let lives = |at: &usize| [0, 2].contains(&(at % 20));
    let live: Vec<Offset> = (0..begins.len()).filter(lives).map(|at| begins[at]).collect();
    let freed = trims(&mut log, &live, 160..260);
    assert_eq!(freed.len(), 2);
    let old = log.start().offset;
    for round in 0..2 {
        let reader = log.reader();
        let left = stretches(&reader, old);
        let most = 2 * SEGMENT_BYTES / 4096;
        assert!(left.len() as u64 <= most, "{} stretches, not {most}", left.len());
        for at in (0..begins.len()).filter(|at| begins[*at] < old) {
            // What lies between two that live stays whole.
            let is_left = lives(&at) || at % 20 == 1;
            let read = reader.frame(begins[at]);
            let is_read = read.as_ref().is_ok_and(|chunk| chunk.from() == begins[at]);
            assert_eq!(is_read, is_left, "round {round}, frame {at}");
            if is_left {
                let record = reader.record(begins[at].plus(160), 100).unwrap();
                assert_eq!(record, [7; 100], "round {round}, frame {at}");
            }
        }
        let mut scrub = reader.scrub(Offset::ZERO);
        let seen = scrub.step(u64::MAX).unwrap();
        assert!(seen.done && seen.damage.is_empty(), "round {round}");
        log = Log::open(Arc::new(disk.copy()), SHARD).unwrap().0;
    }
}

/// Why: the footers of all old segments were read twice, and those with holes three times, whenever
/// a log was opened.
#[test]
fn opening_reads_each_footer_once() {
    const SEGMENT_BYTES: u64 = 16 * 1024;
    let (disk, mut log, begins) = log_of(SEGMENT_BYTES, 480, 4096);
    let live: Vec<Offset> = begins.into_iter().step_by(4).collect();
    assert_eq!(trims(&mut log, &live, 100..108).len(), 119);
    drop(log);
    let disk = disk.restart();
    let files = disk.files().into_iter();
    let footers: u64 = files.map(|(_, bytes)| bytes.saturating_sub(SEGMENT_BYTES)).sum();
    let before = disk.counters().read_bytes;
    Log::open(Arc::new(disk.clone()), SHARD).unwrap();
    let read = disk.counters().read_bytes - before;
    let most = footers + 6 * SEGMENT_BYTES;
    assert!(most < 2 * footers, "the test tells one read from two");
    assert!(read <= most, "{read} bytes were read of {footers} of footers");
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
