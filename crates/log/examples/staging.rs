//! What staging a frame costs the log's owner: nanoseconds a frame, and the checksum's part of it;
//! for a leader, who makes the frame, and a follower, who takes it over.
//!
//! `cargo run --release -p naust-log --features sim --example staging`

#![allow(clippy::disallowed_methods, clippy::print_stdout)] // it measures, and says what it found

use naust_log::sim::SimDisk;
use naust_log::{Identity, Log};
use naust_wire::frame::Kind;
use naust_wire::packet::crc32c;
use naust_wire::{Index, LogTime, NodeId, ShardId, Term};
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

/// How many frames, when no argument says so: few are enough for a tool that counts instructions.
const FRAMES: u64 = 2_000_000;
const BATCH: u64 = 256;

fn main() {
    let argument = |at: usize| std::env::args().nth(at).and_then(|count| count.parse().ok());
    let frames = argument(1).unwrap_or(FRAMES);
    let only = argument(2);
    for body_bytes in [64, 128, 264, 1024, 4096usize] {
        if only.is_some_and(|only| only != body_bytes as u64) {
            continue;
        }
        let body = vec![7; body_bytes];
        let staged = staging(&body, frames);
        let begin = Instant::now();
        for _ in 0..frames / 4 {
            black_box(crc32c(&[black_box(&body[..44]), black_box(&body)]));
        }
        let checksum = begin.elapsed().as_nanos() as u64 * 4 / frames;
        let taken = taking_over(&body, frames);
        println!(
            "{body_bytes:5} B: {staged:4} ns a frame, {taken:4} ns taken over, of which \
             {checksum:4} ns checksum"
        );
    }
}

/// Stages batches of frames that another log made.
fn taking_over(body: &[u8], frames: u64) -> u64 {
    let (mut leader, mut follower) = (open(1), open(2));
    let mut nanoseconds = 0;
    let frames = (frames * 16).max(BATCH * 64) / body.len() as u64;
    let mut index = 0;
    while index < frames {
        let from = leader.end().offset;
        for _ in 0..BATCH {
            index += 1;
            leader.stage(Kind::Commit, Term(1), Index(index), LogTime(1), body);
        }
        let mut at = from;
        finish(&mut leader);
        while at < leader.end().offset {
            let chunk = leader.reader().frames(at, leader.end().offset, usize::MAX);
            let chunk = chunk.expect("it was just written");
            at = chunk.next();
            let begin = Instant::now();
            follower.stage_frames(black_box(chunk.bytes())).expect("equal logs");
            nanoseconds += begin.elapsed().as_nanos() as u64;
        }
        finish(&mut follower);
    }
    nanoseconds / frames
}

fn open(node: u64) -> Log {
    let disk = SimDisk::new();
    let identity = Identity { node: NodeId(node), shard: ShardId(1), cluster: 1 };
    Log::create(&disk, identity, b"").expect("an empty disk takes a log");
    Log::open(Arc::new(disk), ShardId(1)).expect("just made").0
}

fn finish(log: &mut Log) {
    let done = log.next_write().expect("a batch was staged").run();
    log.written(done).expect("the disk never fails");
    log.release(log.end().offset);
}

/// Stages, freezes and releases, as with a disk that takes no time: only the staging is measured.
fn staging(body: &[u8], frames: u64) -> u64 {
    let mut log = open(1);
    let mut nanoseconds = 0;
    let mut index = 0;
    let frames = frames * 64 / body.len() as u64;
    while index < frames {
        let begin = Instant::now();
        for _ in 0..BATCH {
            index += 1;
            log.stage(Kind::Commit, Term(1), Index(index), LogTime(1), black_box(body));
        }
        nanoseconds += begin.elapsed().as_nanos() as u64;
        finish(&mut log);
    }
    nanoseconds / frames
}
