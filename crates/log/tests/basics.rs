//! The way of a frame: staged, written, durable, read, released, found again.

#![allow(clippy::unwrap_used)] // helpers of tests

use naust_log::sim::SimDisk;
use naust_log::{HardState, Identity, Layout, Log, ReadError, TrimInput};
use naust_wire::frame::Kind;
use naust_wire::{Index, LogTime, NodeId, Offset, ShardId, Term};
use std::sync::Arc;

fn new(layout: Layout) -> (SimDisk, Log) {
    let disk = SimDisk::new();
    let identity = Identity { node: NodeId(7), shard: ShardId(3), cluster: 1 };
    Log::create_with(&disk, identity, b"members", layout).unwrap();
    let (log, _) = Log::open(Arc::new(disk.clone()), ShardId(3)).unwrap();
    (disk, log)
}

fn stage(log: &mut Log, body: &[u8]) {
    let end = log.end();
    log.stage(Kind::Commit, Term(1), end.index.next(), LogTime(end.time.0 + 1), body);
}

fn write(log: &mut Log) -> u32 {
    let done = log.next_write().expect("something to write").run();
    let syncs = done.syncs();
    log.written(done).unwrap();
    syncs
}

fn bodies(log: &Log, from: Offset, to: Offset) -> Vec<Vec<u8>> {
    let mut bodies = Vec::new();
    log.batch(from, to)
        .for_each(&mut |frame| {
            bodies.push(frame.body.to_vec());
            Ok::<_, ReadError>(())
        })
        .unwrap();
    bodies
}

#[test]
fn what_is_written_is_found_again() {
    let (disk, mut log) = new(Layout::STANDARD);
    log.save(HardState { term: Term(1), vote: NodeId(7) });
    for number in 0..100u32 {
        stage(&mut log, &number.to_le_bytes());
    }
    write(&mut log);
    assert_eq!(log.durable(), log.end());
    let end = log.end();
    let expected: Vec<Vec<u8>> = (0..100u32).map(|n| n.to_le_bytes().to_vec()).collect();
    assert_eq!(bodies(&log, Offset::FIRST, end.offset), expected);
    log.release(end.offset);
    assert_eq!(log.unreleased_bytes(), 0);
    assert_eq!(bodies(&log, Offset::FIRST, end.offset), expected);
    drop(log);
    let (log, opened) = Log::open(Arc::new(disk.restart()), ShardId(3)).unwrap();
    assert_eq!((log.end(), opened.torn), (end, None));
    assert_eq!(log.hard_state(), HardState { term: Term(1), vote: NodeId(7) });
    assert_eq!(log.configuration(), b"members");
    assert_eq!(bodies(&log, Offset::FIRST, end.offset), expected);
    assert_eq!(log.reader().position(Index(100)).unwrap(), end);
}

#[test]
fn a_write_in_the_steady_state_is_one_sync() {
    let (_, mut log) = new(Layout::STANDARD);
    stage(&mut log, &[1; 200]);
    assert_eq!(write(&mut log), 2, "the first also makes the file's name durable");
    for _ in 0..200 {
        stage(&mut log, &[1; 2000]);
        if let Some(extend) = log.extend() {
            log.extended(extend.run()).unwrap();
        }
        assert_eq!(write(&mut log), 1);
    }
}

#[test]
fn segments_are_crossed() {
    let (disk, mut log) = new(Layout::new(16 * 1024).unwrap());
    let mut expected = Vec::new();
    for number in 0..300usize {
        let body = vec![number as u8; 1 + number * 37 % 3000];
        stage(&mut log, &body);
        expected.push(body);
        if number % 7 == 0 {
            write(&mut log);
        }
    }
    write(&mut log);
    let end = log.end();
    assert_eq!(bodies(&log, Offset::FIRST, end.offset), expected);
    log.release(end.offset);
    assert_eq!(bodies(&log, Offset::FIRST, end.offset), expected);
    let (log, _) = Log::open(Arc::new(disk.restart()), ShardId(3)).unwrap();
    assert_eq!(log.end(), end);
    assert_eq!(bodies(&log, Offset::FIRST, end.offset), expected);
    for index in 1..=300u64 {
        let chunk = log.reader().frame(log.reader().find(Index(index)).unwrap()).unwrap();
        let frame = chunk.frames().next().unwrap();
        assert_eq!((frame.header.index.0, frame.body), (index, &expected[index as usize - 1][..]));
    }
}

#[test]
fn records_are_read_in_any_order() {
    let (_, mut log) = new(Layout::new(64 * 1024).unwrap());
    let mut records = Vec::new();
    for number in 0..900usize {
        let body: Vec<u8> = (0..number * 7 % 900).map(|at| (number + at) as u8).collect();
        let begin = log.layout().place(log.end().offset, (56 + body.len() as u64).div_ceil(8) * 8);
        stage(&mut log, &body);
        let length = body.len() / 2;
        records.push((begin.plus(56 + length as u64 / 2), body[length / 2..][..length].to_vec()));
    }
    write(&mut log);
    records.retain(|(_, bytes)| !bytes.is_empty());
    let mut reader = log.reader().records();
    let ascending = records.iter();
    let descending = records.iter().rev();
    let leaping = records.iter().step_by(83).chain(records.iter().skip(5).step_by(97));
    for (offset, bytes) in ascending.chain(descending).chain(leaping) {
        assert_eq!(reader.record(*offset, bytes.len()).unwrap(), bytes);
        assert_eq!(log.reader().record(*offset, bytes.len()).unwrap(), *bytes);
    }
    let (offset, _) = records[40];
    for (offset, length) in [(offset, 5000), (Offset::FIRST, 1), (Offset::FIRST.plus(3), 60)] {
        assert!(matches!(reader.record(offset, length), Err(ReadError::NoRecord(_))));
    }
    assert!(matches!(reader.record(log.end().offset, 1), Err(ReadError::Beyond)));
    assert_eq!(reader.record(offset, 1).unwrap().len(), 1, "an error spoils nothing");
}

#[test]
fn ascending_records_take_few_reads() {
    let (disk, mut log) = new(Layout::STANDARD);
    let mut offsets = Vec::new();
    for _ in 0..1000 {
        offsets.push(log.end().offset.plus(56));
        stage(&mut log, &[9; 1024]);
    }
    write(&mut log);
    let mut reader = log.reader().records();
    let before = disk.counters();
    for offset in offsets {
        assert_eq!(reader.record(offset, 1024).unwrap(), [9; 1024]);
    }
    let after = disk.counters();
    assert!(after.reads - before.reads < 40, "{} reads", after.reads - before.reads);
    assert!(after.read_bytes - before.read_bytes < 2 * 1000 * 1080, "nothing is read twice");
}

#[test]
fn jobs_and_readers_go_to_other_threads() {
    fn sent<T: Send>() {}
    fn shared<T: Sync>() {}
    sent::<naust_log::Write>();
    sent::<naust_log::Written>();
    sent::<naust_log::Extend>();
    sent::<naust_log::Trim>();
    sent::<naust_log::Batch>();
    sent::<naust_log::Reader>();
    shared::<naust_log::Reader>();
    sent::<Log>();
}

/// A reader that goes on from the end of one sparse segment finds itself before a gap at the
/// beginning of the next.
#[test]
fn records_are_read_across_sparse_segments() {
    let (_, mut log) = new(Layout::new(64 * 1024).unwrap());
    let mut live = Vec::new();
    for number in 0..600u64 {
        let begin = log.layout().place(log.end().offset, 56 + 1024);
        stage(&mut log, &[number as u8; 1024]);
        if number % 40 == 20 {
            live.push((begin.plus(56), number as u8));
        }
    }
    write(&mut log);
    let end = log.end().offset;
    log.release(end);
    let live_in = |range: std::ops::Range<Offset>| {
        let places = live.iter().map(|(at, _)| *at).filter(|at| range.contains(at));
        Some(places.map(|at| at..at.plus(1024)).collect())
    };
    for _ in 0..40 {
        let input = TrimInput { persisted: end, keep_from: end, live: &live_in };
        if let Some(trim) = log.trim(&input) {
            log.trimmed(trim.run()).unwrap();
        }
        while let Some(write) = log.next_write() {
            log.written(write.run()).unwrap();
        }
    }
    let start = log.start().offset;
    assert!(start > Offset::FIRST.plus(4 * 64 * 1024), "most of it is trimmed: {start}");
    let mut reader = log.reader().records();
    for (offset, byte) in &live {
        assert_eq!(reader.record(*offset, 1024).unwrap(), [*byte; 1024], "{offset}");
    }
}

/// Why: a follower that has to cut back across a border of segments ended when the footer there had
/// rotted, though the frames tell the same.
#[test]
fn a_cut_into_a_segment_whose_footer_rotted_reads_its_frames() {
    let (disk, mut log) = new(Layout::new(64 * 1024).unwrap());
    for _ in 0..100 {
        stage(&mut log, &[3; 1024]);
    }
    write(&mut log);
    log.release(log.end().offset);
    assert!(disk.rot(&Layout::name(Offset::FIRST), 64 * 1024 + 70, 1));
    let kept = log.reader().position(Index(30)).unwrap();
    log.cut_after(Index(30)).unwrap();
    assert_eq!(log.end(), kept);
    for _ in 0..100 {
        stage(&mut log, &[4; 500]);
    }
    write(&mut log);
    for index in [1, 30, 31, 130] {
        let found = log.reader().find(Index(index)).unwrap();
        assert_eq!(log.reader().record(found.plus(56), 1).unwrap(), [3 + u8::from(index > 30)]);
    }
    let (opened, _) = Log::open(Arc::new(disk.crash(1)), ShardId(3)).unwrap();
    assert_eq!((opened.end(), opened.terms()), (log.end(), log.terms()));
    // Frames that rotted before the place of the cut can't be told from others.
    let (disk, mut log) = new(Layout::new(64 * 1024).unwrap());
    for _ in 0..100 {
        stage(&mut log, &[3; 1024]);
    }
    write(&mut log);
    log.release(log.end().offset);
    assert!(disk.rot(&Layout::name(Offset::FIRST), 64 * 1024 + 70, 1));
    assert!(disk.rot(&Layout::name(Offset::FIRST), 2000, 1));
    assert!(log.cut_after(Index(30)).is_err());
}
