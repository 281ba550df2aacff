//! What staging a frame costs the log's owner: nanoseconds a frame, and the checksum's part of it.
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

const FRAMES: u64 = 2_000_000;
const BATCH: u64 = 256;

fn main() {
    for body_bytes in [64, 264, 1024, 4096] {
        let body = vec![7; body_bytes];
        let staged = staging(&body);
        let begin = Instant::now();
        for _ in 0..FRAMES / 4 {
            black_box(crc32c(&[black_box(&body[..44]), black_box(&body)]));
        }
        let checksum = begin.elapsed().as_nanos() as u64 * 4 / FRAMES;
        println!("{body_bytes:5} B: {staged:4} ns a frame, of which {checksum:4} ns checksum");
    }
}

/// Stages, freezes and releases, as with a disk that takes no time: only the staging is measured.
fn staging(body: &[u8]) -> u64 {
    let disk = SimDisk::new();
    let identity = Identity { node: NodeId(1), shard: ShardId(1), cluster: 1 };
    Log::create(&disk, identity, b"").expect("an empty disk takes a log");
    let (mut log, _) = Log::open(Arc::new(disk), ShardId(1)).expect("just made");
    let mut nanoseconds = 0;
    let mut index = 0;
    let frames = FRAMES * 64 / body.len() as u64;
    while index < frames {
        let begin = Instant::now();
        for _ in 0..BATCH {
            index += 1;
            log.stage(Kind::Commit, Term(1), Index(index), LogTime(1), black_box(body));
        }
        nanoseconds += begin.elapsed().as_nanos() as u64;
        let write = log.next_write().expect("a batch was staged");
        let done = write.run();
        log.written(done).expect("the disk never fails");
        log.release(log.end().offset);
    }
    nanoseconds / frames
}
