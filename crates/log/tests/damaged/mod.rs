//! Logs from seeds, what is damaged in them, and how it is mended.

use naust_log::sim::{Random, SimDisk};
use naust_log::{Damage, Disk, Identity, Layout, Log, Open, ReadError, Reader, TrimInput};
use naust_wire::frame::Kind;
use naust_wire::{Index, LogTime, NodeId, Offset, ShardId, Term};
use std::ops::Range;
use std::sync::Arc;

pub const SHARD: ShardId = ShardId(1);

pub fn layout() -> Layout {
    Layout::new(16 * 1024).unwrap()
}

/// A log of some segments, and where its last batch begins.
pub fn make(seed: u64, batches: u64) -> (SimDisk, Log, Offset) {
    let mut random = Random::new(seed);
    let disk = SimDisk::new();
    let identity = Identity { node: NodeId(1), shard: SHARD, cluster: 1 };
    Log::create_with(&disk, identity, b"", layout()).unwrap();
    let (mut log, _) = Log::open(Arc::new(disk.clone()), SHARD).unwrap();
    let mut last_batch = Offset::FIRST;
    for batch in 0..batches {
        last_batch = log.end().offset;
        for _ in 0..1 + random.below(8) {
            let body = vec![random.draw() as u8; random.below(900) as usize];
            let index = log.end().index.next();
            log.stage(Kind::Commit, Term(1 + batch / 7), index, LogTime(index.0), &body);
        }
        let done = log_write(&mut log);
        log.written(done).unwrap();
    }
    (disk, log, last_batch)
}

pub fn log_write(log: &mut Log) -> naust_log::Written {
    log.next_write().unwrap().run()
}

/// All frames but for the local field.
pub fn all(reader: &Reader) -> Vec<(Index, Offset, u32, Vec<u8>)> {
    let (mut all, mut at) = (Vec::new(), Offset::ZERO);
    while at < reader.end() {
        match reader.frames(at, Offset::MAX, 4000) {
            Ok(chunk) => {
                all.extend(chunk.frames().map(|frame| {
                    let header = frame.header;
                    (header.index, header.offset, frame.crc, frame.body.to_vec())
                }));
                at = chunk.next();
            }
            Err(ReadError::Trimmed { next: Some(next) }) => at = next,
            Err(other) => panic!("{other}"),
        }
    }
    all
}

/// A scrub in steps of few bytes, which goes on where another one stopped.
pub fn scrub(reader: &Reader, random: &mut Random) -> Vec<Damage> {
    let (mut damage, mut at) = (Vec::new(), Offset::ZERO);
    loop {
        let mut scrub = reader.scrub(at);
        for _ in 0..1 + random.below(5) {
            let seen = scrub.step(1 + random.below(20_000)).unwrap();
            damage.extend(seen.damage);
            if seen.done {
                return damage;
            }
        }
        at = scrub.position();
    }
}

/// Mends one place with what another replica has, piece by piece.
pub fn mend(reader: &Reader, other: &Reader, damage: &Damage, random: &mut Random) {
    let mut at = damage.from;
    let end = layout().end(at);
    for _ in 0..1000 {
        let most = 200 + random.below(5000) as usize;
        let chunk = other.frames(at, end, most).unwrap();
        let last = chunk.next() >= end;
        let mut frames = if chunk.from() == at { chunk.into_bytes() } else { Vec::new() };
        if last && end < other.end() {
            frames.extend(other.frame(end).unwrap().into_bytes());
        }
        let mended = reader.mend(at, frames).run();
        let mended = mended.unwrap_or_else(|error| panic!("{damage}, at {at}: {error}"));
        at = mended.to;
        if mended.joined {
            return;
        }
    }
    panic!("{damage} is never mended");
}

pub fn bytes_of(disk: &SimDisk, name: &str) -> Vec<u8> {
    let file = disk.open(name, Open::Existing).unwrap();
    let mut bytes = vec![0; file.len().unwrap() as usize];
    file.read_at(0, &mut bytes).unwrap();
    bytes
}

/// Nothing lives but the frames at these places.
pub fn only(live: &[Offset]) -> impl Fn(Range<Offset>) -> Option<Vec<Range<Offset>>> {
    move |range| {
        let within = live.iter().filter(|at| range.contains(at));
        Some(within.map(|at| at.plus(8)..at.plus(9)).collect())
    }
}

/// Lets go of what does not live, in turns; damage that is met.
pub fn trim(
    log: &mut Log,
    live: &dyn Fn(Range<Offset>) -> Option<Vec<Range<Offset>>>,
) -> Option<Damage> {
    let applied = log.end().offset;
    let input = TrimInput { persisted: applied, keep_from: applied, live };
    let mut met = None;
    for _ in 0..30 {
        let job = log.trim(&input);
        if let Some(write) = log.next_write() {
            log.written(write.run()).unwrap();
        }
        let Some(job) = job else { continue };
        let done = job.run();
        met = met.or(done.damage());
        log.trimmed(done).unwrap();
    }
    met
}

/// Lets go of all but these frames.
pub fn trim_to(log: &mut Log, live: &[Offset]) {
    assert_eq!(trim(log, &only(live)), None);
}
