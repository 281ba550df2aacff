//! Lives of a log on a disk that loses power: random steps from a seed, power cuts between any two
//! operations of the disk, in recovery too, and full disks. After each reopening: everything that
//! was reported durable is there and byte-equal, and after an end of the process alone everything
//! that was reported written; what was cut is not, the saved state is not an older one, and live
//! frames of trimmed segments can still be read.

#![allow(clippy::unwrap_used)] // helpers of tests

mod support;

use naust_log::sim::{Op, Random, SimDisk, Verdict, Weather};
use naust_log::{HardState, Identity, Layout, Log, OpenError, ReadError, Trim, TrimInput, Write};
use naust_wire::frame::Kind;
use naust_wire::{Index, LogTime, NodeId, Offset, ShardId, Term};
use std::io::ErrorKind;
use std::sync::Arc;

const SHARD: ShardId = ShardId(9);
const LIVES: u64 = 2400;
/// Lives beyond those that once ended badly.
const KEPT: [u64; 2] = [54_828, 55_377];

/// What the log should hold at an index.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Known {
    term: Term,
    time: LogTime,
    body: Vec<u8>,
    offset: Offset,
    end: Offset,
}

/// Lets some operations through; then the power is gone.
struct Fuse(u64);

impl Weather for Fuse {
    fn ask(&mut self, _: Op, _: &str) -> Verdict {
        if self.0 == 0 {
            return Verdict::Fail(ErrorKind::ConnectionAborted);
        }
        self.0 -= 1;
        Verdict::Go
    }
}

struct Life {
    random: Random,
    disk: SimDisk,
    log: Log,
    /// The log as its owner sees it; index 1 first.
    path: Vec<Known>,
    /// What it was before cuts that are not yet known to be durable.
    earlier: Vec<Vec<Known>>,
    /// Of `earlier`, how many were there when the write in hand was taken.
    earlier_at_write: usize,
    committed: usize,
    start: Index,
    saved: Vec<HardState>,
    saved_at_write: usize,
    write: Option<Write>,
    /// The power is about to go.
    dying: bool,
    crashes: u64,
    trims: u64,
    cuts: u64,
    fulls: u64,
    torn: u64,
    unsynced: u64,
}

impl Life {
    fn begin(seed: u64) -> Life {
        let mut random = Random::new(seed);
        let disk = SimDisk::new();
        let identity = Identity { node: NodeId(1), shard: SHARD, cluster: 2 };
        let layout = Layout::new((16 * 1024) << random.below(3)).unwrap();
        Log::create_with(&disk, identity, b"", layout).unwrap();
        let (log, _) = Log::open(Arc::new(disk.clone()), SHARD).unwrap();
        Life {
            random,
            disk,
            log,
            path: Vec::new(),
            earlier: Vec::new(),
            earlier_at_write: 0,
            committed: 0,
            start: Index(0),
            saved: vec![HardState::default()],
            saved_at_write: 0,
            write: None,
            dying: false,
            crashes: 0,
            trims: 0,
            cuts: 0,
            fulls: 0,
            torn: 0,
            unsynced: 0,
        }
    }

    fn step(&mut self) {
        match self.random.below(26) {
            0..=6 => self.stage(),
            7..=10 => self.take_write(),
            11..=14 => self.run_write(),
            15..=16 => self.extend(),
            17 => self.cut(),
            18 => self.save(),
            19 => self.release(),
            20 => self.commit(),
            21 => self.trim(),
            22 => self.space(),
            23 => self.read_random(),
            24 => self.replicate(),
            _ if self.random.one_in(2) => self.crash(),
            _ => {}
        }
    }

    fn body(&mut self) -> Vec<u8> {
        let longest = self.log.layout().body_bytes_max() as u64;
        let length = match self.random.below(40) {
            0 => longest - self.random.below(100),
            1..=4 => self.random.below(longest / 2),
            _ => self.random.below(300),
        };
        let mut body = vec![0; length as usize];
        let mut bytes = Random::new(self.random.draw());
        let blank = self.random.one_in(10);
        for byte in body.iter_mut().filter(|_| !blank) {
            *byte = bytes.draw() as u8;
        }
        body
    }

    fn stage(&mut self) {
        for _ in 0..1 + self.random.below(12) {
            let end = self.log.end();
            let term = Term(end.term.0.max(1) + u64::from(self.random.one_in(20)));
            let time = LogTime(end.time.0 + self.random.below(3));
            let body = self.body();
            let staged =
                self.log.stage(Kind::Commit, term, Index(self.path.len() as u64 + 1), time, &body);
            self.path.push(Known { term, time, body, offset: staged.offset, end: staged.end });
        }
    }

    /// Frames arrive as another replica has them: in raw bytes, some of them bad.
    fn replicate(&mut self) {
        let layout = self.log.layout();
        let disk = SimDisk::new();
        let identity = Identity { node: NodeId(2), shard: SHARD, cluster: 2 };
        if self.path.len() > 60 {
            return;
        }
        Log::create_with(&disk, identity, b"", layout).unwrap();
        let (mut other, _) = Log::open(Arc::new(disk), SHARD).unwrap();
        for (at, known) in self.path.iter().enumerate() {
            other.stage(Kind::Commit, known.term, Index(at as u64 + 1), known.time, &known.body);
        }
        assert_eq!(other.end(), self.log.end(), "equal frames lie equally");
        let from = other.end().offset;
        let mut added = Vec::new();
        for number in 0..5 {
            let (term, body) = (Term(other.end().term.0.max(1)), self.body());
            let index = Index(self.path.len() as u64 + number + 1);
            let staged = other.stage(Kind::Commit, term, index, LogTime(9), &body);
            added.push(Known { term, time: LogTime(9), body, ..known(staged.offset, staged.end) });
        }
        let done = other.next_write().unwrap().run();
        other.written(done).unwrap();
        let mut at = from;
        while at < other.end().offset {
            let chunk = other.reader().frames(at, Offset::MAX, 8000).unwrap();
            at = chunk.next();
            let mut bytes = chunk.into_bytes();
            let flipped = self.random.below(bytes.len() as u64) as usize;
            bytes[flipped] ^= 1;
            let before = self.log.end();
            let bad = self.log.stage_frames(&bytes);
            // A flip is outside the checksum only in the local field and in the last few zeros.
            if bad.is_err() {
                bytes[flipped] ^= 1;
                let skip = usize::try_from(self.log.end().offset.0 - before.offset.0).unwrap();
                let skip = if self.log.end() == before { 0 } else { skip };
                let gap = self.gap(before.offset, &bytes, skip);
                self.log.stage_frames(&bytes[skip - gap..]).unwrap();
            }
        }
        self.path.extend(added);
        assert_eq!(other.end(), self.log.end(), "replicas are equal");
    }

    /// Padding that was made on the way is not in the bytes.
    fn gap(&self, before: Offset, bytes: &[u8], skip: usize) -> usize {
        if skip == 0 {
            return 0;
        }
        let (first, _) = naust_wire::frame::peek(bytes).unwrap();
        usize::try_from(first.offset.0 - before.0).unwrap()
    }

    fn take_write(&mut self) {
        if self.write.is_none() {
            // A third of them leave the sync to a later one.
            self.write = match self.random.below(3) {
                0 => self.log.next_write_unsynced(),
                _ => self.log.next_write(),
            };
            if let Some(write) = self.write.as_mut().filter(|_| self.random.one_in(2)) {
                write.begin();
            }
            self.earlier_at_write = self.earlier.len();
            self.saved_at_write = self.saved.len() - 1;
        }
    }

    fn run_write(&mut self) {
        let Some(write) = self.write.take() else { return };
        let done = write.run();
        let full = done.disk_full();
        self.fulls += u64::from(full);
        let written = self.log.written(done);
        assert!(written.is_ok() || self.dying, "no fault without a power cut: {written:?}");
        if written.is_ok() && !full {
            self.earlier.drain(..self.earlier_at_write);
            self.saved.drain(..self.saved_at_write);
            self.start = self.log.start().index;
        }
    }

    fn extend(&mut self) {
        if let Some(extend) = self.log.extend() {
            let done = extend.run();
            if self.random.one_in(2) {
                self.take_write();
                self.run_write();
            }
            let extended = self.log.extended(done);
            assert!(extended.is_ok() || self.dying, "as with writes: {extended:?}");
        }
    }

    fn cut(&mut self) {
        let uncommitted = self.path.len() - self.committed;
        let kept = self.committed + self.random.below(uncommitted as u64 + 1) as usize;
        if kept < self.path.len() {
            self.cuts += 1;
            self.log.cut_after(Index(kept as u64)).unwrap();
            self.earlier.push(self.path.clone());
            self.path.truncate(kept);
            assert_eq!(self.log.end().index, Index(kept as u64));
        }
    }

    fn save(&mut self) {
        let last = self.saved.last().unwrap();
        let hard = HardState { term: Term(last.term.0 + 1), vote: NodeId(self.random.below(4)) };
        self.saved.push(hard);
        self.log.save(hard);
    }

    fn commit(&mut self) {
        let (written, durable) = (self.log.written_to(), self.log.durable());
        assert!(durable.offset <= written.offset);
        self.unsynced += u64::from(durable != written);
        let more = (written.index.0 as usize).saturating_sub(self.committed);
        self.committed += self.random.below(more as u64 + 1) as usize;
    }

    fn release(&mut self) {
        if let Some(known) = self.committed.checked_sub(1).map(|last| &self.path[last]) {
            self.log.release(known.end);
        }
    }

    fn trim(&mut self) {
        let applied = match self.committed {
            0 => Offset::FIRST,
            committed => self.path[committed - 1].end,
        };
        for _ in 0..4 {
            let path = &self.path;
            let live = |range: std::ops::Range<Offset>| {
                let within = |known: &&Known| known.offset >= range.start && known.end <= range.end;
                let live = path.iter().enumerate();
                let live = live.filter(|(at, known)| is_live(*at) && within(known));
                Some(live.map(|(_, known)| known.offset.plus(8)..known.offset.plus(9)).collect())
            };
            let input = TrimInput { persisted: applied, keep_from: applied, live: &live };
            let job: Option<Trim> = self.log.trim(&input);
            if let Some(job) = job {
                self.trims += 1;
                let done = job.run();
                assert_eq!(done.damage(), None);
                let trimmed = self.log.trimmed(done);
                assert!(trimmed.is_ok() || self.dying, "as with writes: {trimmed:?}");
            }
        }
    }

    fn space(&mut self) {
        if self.log.is_full() || self.random.one_in(2) {
            self.disk.set_space(None);
            self.log.retry();
        } else {
            let more = self.random.below(100_000);
            self.disk.set_space(Some(self.disk.used_space() + more));
        }
    }

    fn read_random(&mut self) {
        let written = self.log.written_to().index.0;
        let start = self.log.start().index.0;
        if written == start {
            return;
        }
        let index = start + 1 + self.random.below(written - start);
        let known = &self.path[index as usize - 1];
        assert_eq!(self.log.reader().find(Index(index)).unwrap(), known.offset);
        assert_eq!(self.log.reader().position(Index(index)).unwrap().offset, known.end);
        if !known.body.is_empty() {
            let at = self.random.below(known.body.len() as u64);
            let record = self.log.reader().record(known.offset.plus(56 + at), 1).unwrap();
            assert_eq!(record, [known.body[at as usize]]);
        }
    }

    fn crash(&mut self) {
        self.crashes += 1;
        self.check();
        let fuse = self.random.below(14);
        self.dying = true;
        self.disk.set_weather(Some(Box::new(Fuse(fuse))));
        for _ in 0..self.random.below(3) {
            match self.random.below(4) {
                0 => self.extend(),
                1 => self.trim(),
                _ => {
                    self.take_write();
                    self.run_write();
                }
            }
        }
        (self.write, self.dying) = (None, false);
        let mut left = self.log.written_to();
        loop {
            self.disk = match self.random.below(4) {
                0 => self.disk.restart(),
                _ => {
                    left = self.log.durable();
                    self.disk.crash(self.random.draw())
                }
            };
            self.disk.set_space(None);
            self.disk.set_weather(None);
            if self.random.one_in(3) {
                self.disk.set_weather(Some(Box::new(Fuse(self.random.below(25)))));
            }
            let opened = Log::open(Arc::new(self.disk.clone()), SHARD);
            self.disk.set_weather(None);
            match opened {
                Ok((log, opened)) => {
                    self.log = log;
                    self.torn += u64::from(opened.torn.is_some());
                    self.reopened(left.index);
                    return;
                }
                Err(OpenError::Io(fault)) => {
                    assert_eq!(fault.kind(), ErrorKind::ConnectionAborted);
                }
                Err(other) => panic!("a log that only lost power must open: {other}"),
            }
        }
    }

    fn reopened(&mut self, left: Index) {
        let end = self.log.end();
        assert!(end.index >= left, "lost: {left:?} had to be left, the end is {end:?}");
        assert!(self.log.durable() == end && self.log.written_to() == end);
        self.committed = self.committed.min(end.index.0 as usize);
        assert!(self.log.start().index >= self.start, "the start went back");
        let hard = self.log.hard_state();
        let at = self.saved.iter().position(|saved| *saved == hard).expect("an older state");
        self.saved.drain(..at);
        self.saved.truncate(1);
        self.start = self.log.start().index;
        let found = self.found();
        let start = self.start.0 as usize;
        assert_eq!(start + found.len(), end.index.0 as usize);
        self.earlier.push(std::mem::take(&mut self.path));
        self.path = support::path_of(&self.earlier, start, &found);
        self.earlier.clear();
        self.check();
    }

    /// All frames from the start on.
    fn found(&self) -> Vec<Known> {
        let mut found = Vec::new();
        let batch = self.log.batch(self.log.start().offset, self.log.end().offset);
        let read = batch.for_each(&mut |frame| {
            found.push(Known {
                term: frame.header.term,
                time: frame.header.time,
                body: frame.body.to_vec(),
                offset: frame.header.offset,
                end: frame.header.end(),
            });
            Ok::<_, ReadError>(())
        });
        read.unwrap();
        found
    }

    fn check(&self) {
        let start = self.log.start().index.0 as usize;
        assert!(self.found()[..] == self.path[start..], "the log is what was staged");
        let reader = self.log.reader();
        for (at, known) in self.path[..start].iter().enumerate().filter(|(at, _)| is_live(*at)) {
            let chunk = reader.frame(known.offset).unwrap();
            assert_eq!(chunk.frames().next().unwrap().body, known.body, "live frame {at}");
        }
        let mut terms: Vec<(Index, Term)> = Vec::new();
        for (at, known) in self.path.iter().enumerate() {
            if terms.last().is_none_or(|(_, term)| *term != known.term) {
                terms.push((Index(at as u64 + 1), known.term));
            }
        }
        for (at, known) in self.path.iter().enumerate().skip(start) {
            let runs = self.log.terms();
            let run = runs.partition_point(|(first, _)| first.0 <= at as u64 + 1);
            assert_eq!(runs[run - 1].1, known.term, "term of index {}", at + 1);
        }
    }
}

fn known(offset: Offset, end: Offset) -> Known {
    Known { term: Term(0), time: LogTime(0), body: Vec::new(), offset, end }
}

fn is_live(at: usize) -> bool {
    at.is_multiple_of(23)
}

/// Two tests, so that they run beside each other.
#[test]
fn what_was_durable_survives_and_what_was_cut_stays_away() {
    live(support::seeds(0..LIVES / 2));
}

#[test]
fn more_lives() {
    let seen = live(LIVES / 2..LIVES);
    for seed in KEPT {
        live(seed..seed + 1);
    }
    assert!(seen.iter().all(|count| *count > 0), "each fault was there: {seen:?}");
}

/// Lives these lives; how many crashes, torn tails, trims, cuts, full disks, and times with
/// something unsynced there were.
fn live(seeds: std::ops::Range<u64>) -> [u64; 6] {
    let mut seen = [0; 6];
    let life = |seed| {
        let mut life = Life::begin(seed);
        for _ in 0..120 {
            life.step();
        }
        life.crash();
        life
    };
    support::live(seeds, life, |life| {
        let counts = [life.crashes, life.torn, life.trims, life.cuts, life.fulls, life.unsynced];
        seen.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
    });
    seen
}
