//! The stored format of this release, kept for ever: a log as text, one line for sixteen bytes that
//! are not all zero. What is made today must equal it, and it must open. A release that changes the
//! format adds a fixture and goes on opening this one.

#![allow(clippy::unwrap_used)] // helpers of tests

use naust_log::sim::SimDisk;
use naust_log::{Disk, HardState, Identity, Layout, Log, Open, ReadError, TrimInput};
use naust_wire::frame::Kind;
use naust_wire::{Index, LogTime, NodeId, Offset, ShardId, Term};
use std::fmt::Write as _;
use std::sync::Arc;

const SHARD: ShardId = ShardId(3);

/// A sparse segment, a full one and a growing one, after a vote.
fn make() -> SimDisk {
    let disk = SimDisk::new();
    let identity = Identity { node: NodeId(0x1122_3344_5566_7788), shard: SHARD, cluster: 0x99 };
    let layout = Layout::new(16 * 1024).unwrap();
    Log::create_with(&disk, identity, b"one voter", layout).unwrap();
    let (mut log, _) = Log::open(Arc::new(disk.clone()), SHARD).unwrap();
    log.save(HardState { term: Term(2), vote: NodeId(0x1122_3344_5566_7788) });
    let lengths = [0, 5, 16_000, 16_000, 700, 11];
    let kinds = [Kind::Empty, Kind::Commit, Kind::Commit, Kind::Commit, Kind::Control];
    for (at, length) in lengths.into_iter().enumerate() {
        let kind = kinds.get(at).copied().unwrap_or(Kind::Configure);
        let mut body = vec![0; length];
        body.iter_mut().step_by(3000).for_each(|byte| *byte = at as u8);
        let index = Index(at as u64 + 1);
        log.stage(kind, Term(1 + at as u64 / 4), index, LogTime(1000 + at as u64), &body);
        let done = log.next_write().unwrap().run();
        log.written(done).unwrap();
    }
    let applied = log.end().offset;
    let live = |range: std::ops::Range<Offset>| Some(vec![range.start..range.start.plus(1)]);
    let input =
        TrimInput { persisted: Offset(applied.0 - 10_000), keep_from: applied, live: &live };
    assert!(log.trim(&input).is_none(), "the start has to move first");
    let done = log.next_write().unwrap().run();
    log.written(done).unwrap();
    let trim = log.trim(&input).unwrap();
    log.trimmed(trim.run()).unwrap();
    disk
}

fn dump(disk: &SimDisk) -> String {
    let mut out = String::new();
    for (name, length) in disk.files() {
        writeln!(out, "{name} {length}").unwrap();
        let mut bytes = vec![0; length as usize];
        disk.open(&name, Open::Existing).unwrap().read_at(0, &mut bytes).unwrap();
        for (row, bytes) in bytes.chunks(16).enumerate() {
            if bytes.iter().any(|byte| *byte != 0) {
                write!(out, "{:06x}:", row * 16).unwrap();
                bytes.iter().for_each(|byte| write!(out, " {byte:02x}").unwrap());
                out.push('\n');
            }
        }
    }
    out
}

fn load(dump: &str) -> SimDisk {
    let disk = SimDisk::new();
    let mut file = None;
    for line in dump.lines() {
        if let Some((position, bytes)) = line.split_once(": ") {
            let position = u64::from_str_radix(position, 16).unwrap();
            let bytes: Vec<u8> =
                bytes.split(' ').map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect();
            let file: &Arc<dyn naust_log::File> = file.as_ref().unwrap();
            file.write_at(position, &[&bytes]).unwrap();
        } else {
            let (name, length) = line.split_once(' ').unwrap();
            let made = disk.open(name, Open::Create).unwrap();
            made.set_len(length.parse().unwrap()).unwrap();
            made.sync().unwrap();
            file = Some(made);
        }
    }
    disk
}

#[test]
fn this_release_writes_format_1_with_second_footers() {
    expect_test::expect_file!["fixtures/format-1-footers.txt"].assert_eq(&dump(&make()));
}

/// Without the second footer of the sparse segment, which is made when it is opened.
#[test]
fn format_1_opens() {
    let disk = load(include_str!("fixtures/format-1.txt"));
    opens(&disk);
    let segment = |disk: &SimDisk| disk.files().into_iter().next().unwrap();
    assert_eq!(segment(&disk), segment(&make()));
}

#[test]
fn format_1_with_second_footers_opens() {
    opens(&load(include_str!("fixtures/format-1-footers.txt")));
}

fn opens(disk: &SimDisk) {
    let (log, opened) = Log::open(Arc::new(disk.clone()), SHARD).unwrap();
    assert_eq!((log.identity().cluster, log.configuration()), (0x99, &b"one voter"[..]));
    assert_eq!(log.hard_state().term, Term(2));
    assert_eq!((opened.torn, log.end().index, log.start().index), (None, Index(6), Index(3)));
    assert_eq!(log.terms(), [(Index(3), Term(1)), (Index(5), Term(2))]);
    let mut seen = Vec::new();
    log.batch(log.start().offset, log.end().offset)
        .for_each(&mut |frame| {
            seen.push((frame.header.index.0, frame.header.kind, frame.body.len()));
            Ok::<_, ReadError>(())
        })
        .unwrap();
    let expected = [(4, Kind::Commit, 16_000), (5, Kind::Control, 700), (6, Kind::Configure, 11)];
    assert_eq!(seen, expected);
    let first = log.reader().frame(Offset::FIRST).unwrap();
    assert_eq!(first.frames().next().unwrap().header.kind, Kind::Empty, "a sparse segment");
    assert!(matches!(log.reader().find(Index(2)), Err(ReadError::Trimmed { .. })));
}
