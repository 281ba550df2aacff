//! Lives of several logs and the journal that they share, on disks that lose power together: random
//! steps from a seed, power cuts between any two operations of the disks, in replay and recovery
//! too. After each reopening every log has what it was told is durable, and nothing that was cut.

#![allow(clippy::unwrap_used)] // helpers of tests

mod support;

use naust_log::journal::{self, ChoreError, Journaled, ReplayError};
use naust_log::sim::{Op, Random, SimDisk, Verdict, Weather};
use naust_log::{
    Adoption, Disk, Export, HardState, Identity, Journal, Layout, Log, Open, OpenError, ReadError,
    TrimInput, Write,
};
use naust_wire::frame::Kind;
use naust_wire::{Index, LogTime, NodeId, Offset, ShardId, Term};
use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

const LIVES: u64 = 1600;
const STEPS: u64 = 160;
/// Lives beyond those that once ended badly.
const KEPT: [u64; 0] = [];

/// What a log should hold at an index.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Known {
    term: Term,
    body: Vec<u8>,
    end: Offset,
}

/// Lets some operations of all disks through; then the power is gone.
#[derive(Clone)]
struct Fuse(Arc<AtomicU64>);

const WHOLE: u64 = u64::MAX;

impl Weather for Fuse {
    fn ask(&mut self, _: Op, _: &str) -> Verdict {
        match self.0.load(Ordering::Relaxed) {
            WHOLE => Verdict::Go,
            0 => Verdict::Fail(ErrorKind::ConnectionAborted),
            left => {
                self.0.store(left - 1, Ordering::Relaxed);
                Verdict::Go
            }
        }
    }
}

/// One log, and what it should hold.
struct Member {
    shard: ShardId,
    disk: SimDisk,
    log: Log,
    /// As its owner sees it; index 1 first.
    path: Vec<Known>,
    /// What it was before cuts that are not yet known to be durable.
    earlier: Vec<Vec<Known>>,
    /// Of these, how many were there when the write in hand was taken.
    earlier_at_write: usize,
    committed: usize,
    write: Option<Write>,
}

struct Life {
    random: Random,
    fuse: Fuse,
    layout: Layout,
    half_bytes: u64,
    disk: SimDisk,
    journal: Arc<Journal>,
    members: Vec<Member>,
    /// The power is about to go.
    dying: bool,
    seen: Seen,
}

#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    crashes: u64,
    shared_syncs: u64,
    alone: u64,
    cleanings: u64,
    cuts: u64,
    cuts_in_journal: u64,
    trims: u64,
    flips: u64,
    removals: u64,
    replayed: u64,
}

fn identity(shard: ShardId) -> Identity {
    Identity { node: NodeId(1), shard, cluster: 2 }
}

impl Life {
    fn begin(seed: u64) -> Life {
        let mut random = Random::new(seed);
        let layout = Layout::new((16 * 1024) << random.below(3)).unwrap();
        let half_bytes = 512 * (4 + random.below(40));
        let fuse = Fuse(Arc::new(AtomicU64::new(WHOLE)));
        let disk = SimDisk::new();
        disk.set_weather(Some(Box::new(fuse.clone())));
        let journal = Journal::new(Arc::new(disk.clone()), half_bytes, random.draw());
        let mut life = Life {
            random,
            fuse,
            layout,
            half_bytes,
            disk,
            journal,
            members: Vec::new(),
            dying: false,
            seen: Seen::default(),
        };
        for number in 0..2 + life.random.below(4) {
            let member = life.fresh(ShardId(number as u32 + 3));
            life.members.push(member);
        }
        life
    }

    /// A log that has nothing yet.
    fn fresh(&mut self, shard: ShardId) -> Member {
        let disk = SimDisk::new();
        Log::create_with(&disk, identity(shard), b"", self.layout).unwrap();
        disk.set_weather(Some(Box::new(self.fuse.clone())));
        let log = self.open(shard, &disk).unwrap();
        Member {
            shard,
            disk,
            log,
            path: Vec::new(),
            earlier: Vec::new(),
            earlier_at_write: 0,
            committed: 0,
            write: None,
        }
    }

    fn open(&self, shard: ShardId, disk: &SimDisk) -> Result<Log, OpenError> {
        let disk = Journaled::new(Arc::new(disk.clone()), Arc::clone(&self.journal), shard)?;
        Ok(Log::open(Arc::new(disk), shard)?.0)
    }

    fn step(&mut self) {
        let at = self.random.below(self.members.len() as u64) as usize;
        match self.random.below(30) {
            0..=6 => self.stage(at),
            7..=14 => self.commit_together(),
            15..=16 => self.write_alone(at),
            17..=18 => self.extend(at),
            19..=20 => self.cut(at),
            21..=22 => self.commit(at),
            23 => self.trim(at),
            24..=25 => self.chore(),
            26 => self.reopen(at),
            27 => self.flip(at),
            28 if self.random.one_in(3) => self.replace(at),
            29 if self.random.one_in(2) => self.crash(),
            _ => {}
        }
    }

    fn stage(&mut self, at: usize) {
        for _ in 0..1 + self.random.below(4) {
            let length = match self.random.below(20) {
                0 => self.random.below(self.layout.body_bytes_max() as u64),
                1..=4 => self.random.below(2000),
                _ => self.random.below(200),
            };
            let mut bytes = Random::new(self.random.draw());
            let body: Vec<u8> = (0..length).map(|_| bytes.draw() as u8).collect();
            let newer = u64::from(self.random.one_in(10));
            let member = &mut self.members[at];
            let term = Term(member.log.end().term.0.max(1) + newer);
            let index = Index(member.path.len() as u64 + 1);
            let staged = member.log.stage(Kind::Commit, term, index, LogTime(1), &body);
            member.path.push(Known { term, body, end: staged.end });
        }
    }

    fn take_write(&mut self, at: usize) -> bool {
        let member = &mut self.members[at];
        if member.write.is_none() {
            member.write = member.log.next_write();
            member.earlier_at_write = member.earlier.len();
        }
        member.write.is_some()
    }

    /// A disk thread finds writes of several logs.
    fn commit_together(&mut self) {
        let mut taken = Vec::new();
        for at in 0..self.members.len() {
            if self.random.one_in(4) {
                continue;
            }
            if self.random.one_in(2) && self.members[at].write.is_none() {
                self.stage(at);
            }
            if self.take_write(at) {
                taken.push(at);
            }
        }
        let writes: Vec<Write> =
            taken.iter().map(|at| self.members[*at].write.take().unwrap()).collect();
        let done = self.journal.commit(writes);
        let syncs: u32 = done.iter().map(naust_log::Written::syncs).sum();
        self.seen.shared_syncs += u64::from(taken.len() > 1 && syncs == 1);
        for (at, written) in taken.into_iter().zip(done) {
            self.written(at, written);
        }
    }

    fn write_alone(&mut self, at: usize) {
        if self.take_write(at) {
            let write = self.members[at].write.take().unwrap();
            self.seen.alone += 1;
            let written = write.run();
            self.written(at, written);
        }
    }

    fn written(&mut self, at: usize, written: naust_log::Written) {
        let member = &mut self.members[at];
        match member.log.written(written) {
            Ok(()) => drop(member.earlier.drain(..member.earlier_at_write)),
            Err(error) => assert!(self.dying, "no fault without a power cut: {error}"),
        }
    }

    fn extend(&mut self, at: usize) {
        if let Some(extend) = self.members[at].log.extend() {
            let done = extend.run();
            let extended = self.members[at].log.extended(done);
            assert!(extended.is_ok() || self.dying, "as with writes: {extended:?}");
        }
    }

    fn cut(&mut self, at: usize) {
        let member = &mut self.members[at];
        let uncommitted = member.path.len() - member.committed;
        let kept = member.committed + self.random.below(uncommitted as u64 + 1) as usize;
        if kept < member.path.len() {
            self.seen.cuts += 1;
            self.seen.cuts_in_journal += u64::from(member.log.durable().index.0 > kept as u64);
            member.log.cut_after(Index(kept as u64)).unwrap();
            member.earlier.push(member.path.clone());
            member.path.truncate(kept);
        }
    }

    fn commit(&mut self, at: usize) {
        let member = &mut self.members[at];
        let durable = member.log.durable().index.0 as usize;
        let more = durable.saturating_sub(member.committed);
        member.committed += self.random.below(more as u64 + 1) as usize;
        if let Some(known) = member.committed.checked_sub(1).map(|last| &member.path[last]) {
            member.log.release(known.end);
        }
    }

    fn trim(&mut self, at: usize) {
        let member = &mut self.members[at];
        let applied =
            member.committed.checked_sub(1).map_or(Offset::FIRST, |last| member.path[last].end);
        let live = |_: std::ops::Range<Offset>| Some(Vec::new());
        let input = TrimInput { persisted: applied, keep_from: applied, live: &live };
        if let Some(job) = member.log.trim(&input) {
            self.seen.trims += 1;
            let trimmed = member.log.trimmed(job.run());
            assert!(trimmed.is_ok() || self.dying, "as with writes: {trimmed:?}");
        }
    }

    fn chore(&mut self) {
        if let Some(chore) = self.journal.chore() {
            match chore.run() {
                Ok(()) => self.seen.cleanings += 1,
                Err(error @ (ChoreError::Unmade(_) | ChoreError::Fault(_))) => {
                    assert!(self.dying, "no fault without a power cut: {error}");
                }
            }
        }
    }

    fn idle(&self, at: usize) -> bool {
        self.members[at].write.is_none() && !self.dying
    }

    /// A log is closed, and opened again in the same life of the process.
    fn reopen(&mut self, at: usize) {
        if self.idle(at) {
            let Member { shard, disk, .. } = &self.members[at];
            let (shard, disk) = (*shard, disk.clone());
            let log = self.open(shard, &disk).unwrap();
            self.members[at].reopened(log);
        }
    }

    /// A copy of what is committed takes the place of a log.
    fn flip(&mut self, at: usize) {
        let member = &self.members[at];
        if !self.idle(at) || (member.committed as u64) <= member.log.start().index.0 {
            return;
        }
        self.seen.flips += 1;
        let (shard, committed) = (member.shard, member.committed);
        let export: Export = member.log.reader().export(Index(committed as u64)).unwrap();
        let copy = SimDisk::new();
        for (file, (name, bytes)) in export.files().into_iter().enumerate() {
            let part = export.read(file, 0, bytes as usize).unwrap();
            copy.open(&name, Open::Create).unwrap().write_at(0, &[&part]).unwrap();
        }
        let adoption = Adoption {
            identity: identity(shard),
            hard: HardState::default(),
            start: member.log.start(),
            configuration: Vec::new(),
            layout: self.layout,
        };
        adoption.run(&copy).unwrap();
        copy.set_weather(Some(Box::new(self.fuse.clone())));
        self.journal.settle(shard).unwrap();
        let log = self.open(shard, &copy).unwrap();
        let member = &mut self.members[at];
        member.path.truncate(committed);
        member.earlier.clear();
        (member.disk, member.log) = (copy, log);
        member.check();
    }

    /// A log is removed, and another one begins under its number.
    fn replace(&mut self, at: usize) {
        if self.idle(at) {
            self.seen.removals += 1;
            let shard = self.members[at].shard;
            self.journal.settle(shard).unwrap();
            self.members[at] = self.fresh(shard);
        }
    }

    fn crash(&mut self) {
        self.seen.crashes += 1;
        self.members.iter().for_each(Member::check);
        self.dying = true;
        self.fuse.0.store(self.random.below(24), Ordering::Relaxed);
        for _ in 0..self.random.below(4) {
            let at = self.random.below(self.members.len() as u64) as usize;
            match self.random.below(6) {
                0 => self.extend(at),
                1 => self.trim(at),
                2 => self.chore(),
                3 => self.write_alone(at),
                _ => self.commit_together(),
            }
        }
        if self.random.one_in(4) && self.members.iter().all(|member| member.write.is_none()) {
            // The orderly end of a process.
            drop(self.journal.close());
        }
        self.dying = false;
        self.members.iter_mut().for_each(|member| member.write = None);
        while !self.start() {}
    }

    /// A process begins; `false`: the power went again.
    fn start(&mut self) -> bool {
        let only_process = self.random.one_in(4);
        let mut seed = || if only_process { None } else { Some(self.random.draw()) };
        let fall = |disk: &SimDisk, seed: Option<u64>| match seed {
            None => disk.restart(),
            Some(seed) => disk.crash(seed),
        };
        self.disk = fall(&self.disk, seed());
        for member in &mut self.members {
            member.disk = fall(&member.disk, seed());
        }
        let fuse = if self.random.one_in(3) { self.random.below(60) } else { WHOLE };
        self.fuse.0.store(fuse, Ordering::Relaxed);
        let opened = self.open_all();
        self.fuse.0.store(WHOLE, Ordering::Relaxed);
        let Some(logs) = opened else { return false };
        for (member, log) in self.members.iter_mut().zip(logs) {
            member.reopened(log);
        }
        true
    }

    /// `None`: the power went in between.
    fn open_all(&mut self) -> Option<Vec<Log>> {
        let disks: Vec<(ShardId, SimDisk)> =
            self.members.iter().map(|member| (member.shard, member.disk.clone())).collect();
        let log = |shard| {
            let disk = disks.iter().find(|(known, _)| *known == shard);
            Ok(disk.map(|(_, disk)| Arc::new(disk.clone()) as Arc<dyn Disk>))
        };
        match journal::replay::run(&self.disk, &log) {
            Ok(replayed) => self.seen.replayed += u64::from(replayed.bytes > 0),
            Err(ReplayError::Io(fault)) => {
                assert_eq!(fault.kind(), ErrorKind::ConnectionAborted, "{fault}");
                return None;
            }
            Err(other) => panic!("a journal that only lost power must be replayed: {other}"),
        }
        let id = self.random.draw();
        self.journal = Journal::new(Arc::new(self.disk.clone()), self.half_bytes, id);
        let mut logs = Vec::new();
        for (shard, disk) in &disks {
            match self.open(*shard, disk) {
                Ok(log) => logs.push(log),
                Err(OpenError::Io(fault)) => {
                    assert_eq!(fault.kind(), ErrorKind::ConnectionAborted, "{fault}");
                    return None;
                }
                Err(other) => panic!("a log that only lost power must open: {other}"),
            }
        }
        Some(logs)
    }
}

impl Member {
    fn reopened(&mut self, log: Log) {
        let durable = self.log.durable().index.0;
        self.log = log;
        let end = self.log.end().index.0;
        assert!(end >= durable, "lost: {durable} was durable, the end is {end}");
        let start = self.log.start().index.0 as usize;
        let found = self.found();
        assert_eq!((start + found.len()) as u64, end);
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
            let (term, body) = (frame.header.term, frame.body.to_vec());
            found.push(Known { term, body, end: frame.header.end() });
            Ok::<_, ReadError>(())
        });
        read.unwrap();
        found
    }

    fn check(&self) {
        let start = self.log.start().index.0 as usize;
        assert!(self.found()[..] == self.path[start..], "the log is what was staged");
    }
}

/// Lives these lives; what was there.
fn live(seeds: std::ops::Range<u64>) -> Seen {
    let mut seen = Seen::default();
    let life = |seed| {
        let mut life = Life::begin(seed);
        for _ in 0..STEPS {
            life.step();
        }
        life.crash();
        life
    };
    support::live(seeds, life, |life| seen.add(&life.seen));
    seen
}

impl Seen {
    fn all(&mut self) -> [&mut u64; 10] {
        let Seen { crashes, shared_syncs, alone, cleanings, cuts, .. } = self;
        let Seen { cuts_in_journal, trims, flips, removals, replayed, .. } = self;
        [
            crashes,
            shared_syncs,
            alone,
            cleanings,
            cuts,
            cuts_in_journal,
            trims,
            flips,
            removals,
            replayed,
        ]
    }

    fn add(&mut self, other: &Seen) {
        let mut other = *other;
        self.all().into_iter().zip(other.all()).for_each(|(sum, more)| *sum += *more);
    }
}

/// Two tests, so that they run beside each other.
#[cfg(not(naust_planted))]
#[test]
fn what_was_durable_survives_and_what_was_cut_stays_away() {
    live(support::seeds(0..LIVES / 2));
}

#[cfg(not(naust_planted))]
#[test]
fn more_lives() {
    let mut seen = live(LIVES / 2..LIVES);
    for seed in KEPT {
        live(seed..seed + 1);
    }
    let told = format!("{seen:?}");
    assert!(seen.all().into_iter().all(|count| *count > 0), "each thing was there: {told}");
}

/// Who guards the guards: in a build that has bugs, these lives find those of the journal.
#[cfg(naust_planted)]
#[test]
fn planted_bugs_are_found() {
    use naust_wire::planted::{Bug, plant};
    for bug in [Bug::ReplayOverCut, Bug::ReuseBeforeSync] {
        plant(Some(bug));
        let found =
            (0..LIVES).find(|seed| std::panic::catch_unwind(|| live(*seed..*seed + 1)).is_err());
        plant(None);
        assert!(found.is_some(), "{bug:?}");
        eprintln!("{bug:?} was found in life {}", found.map_or(0, |seed| seed + 1));
    }
}
