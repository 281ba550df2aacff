//! Frames of another replica become the log, in one step: with live frames before its beginning,
//! whatever log was there before, and whenever the power goes.

#![allow(clippy::unwrap_used)] // helpers of tests

use naust_log::sim::{Op, Random, SimDisk, Verdict, Weather};
use naust_log::{
    Depth, HardState, Identity, InstallError, Layout, Log, OpenError, Position, Preparation,
    ReadError, Survey, TrimInput,
};
use naust_wire::frame::Kind;
use naust_wire::{Index, LogTime, NodeId, Offset, ShardId, Term};
use std::io::ErrorKind;
use std::sync::Arc;

const SHARD: ShardId = ShardId(1);
const SAVED: HardState = HardState { term: Term(9), vote: NodeId(2) };

fn new(node: u64) -> (SimDisk, Log) {
    let disk = SimDisk::new();
    let identity = Identity { node: NodeId(node), shard: SHARD, cluster: 1 };
    let layout = Layout::new(16 * 1024).unwrap();
    Log::create_with(&disk, identity, b"one", layout).unwrap();
    let (log, _) = Log::open(Arc::new(disk.clone()), SHARD).unwrap();
    (disk, log)
}

fn write(log: &mut Log) {
    if let Some(write) = log.next_write() {
        log.written(write.run()).unwrap();
    }
}

/// Stages and writes frames of term `term`, in batches; their bodies follow from index and term.
fn grow(log: &mut Log, term: u64, count: u64) {
    for number in 0..count {
        let index = log.end().index.next();
        log.stage(Kind::Commit, Term(term), index, LogTime(index.0), &body(index, Term(term)));
        if number % 5 == 0 {
            write(log);
        }
    }
    write(log);
}

fn body(index: Index, term: Term) -> Vec<u8> {
    vec![(index.0 * 7 + term.0) as u8; (index.0 * 131 % 900) as usize]
}

fn is_live(index: u64) -> bool {
    index.is_multiple_of(11)
}

/// What the leader sends: live frames before the beginning, all behind it, in pieces.
fn pieces(leader: &Log, end: Position) -> (Position, Vec<Vec<u8>>) {
    let reader = leader.reader();
    let start = reader.beginning(end.offset).unwrap();
    let mut pieces = Vec::new();
    for index in (1..=start.index.0).filter(|index| is_live(*index)) {
        let chunk = reader.frame(reader.find(Index(index)).unwrap()).unwrap();
        pieces.push(chunk.into_bytes());
    }
    let mut at = start.offset;
    while at < end.offset {
        let chunk = reader.frames(at, end.offset, 3000).unwrap();
        at = chunk.next();
        pieces.push(chunk.into_bytes());
    }
    (start, pieces)
}

fn prepare(log: &Log, start: Position, pieces: &[Vec<u8>]) -> Result<Preparation, InstallError> {
    let mut preparation = log.prepare(log.generation() + 1, start);
    // Pieces may be joined as one likes.
    for some in pieces.chunks(3) {
        preparation.add(&some.concat())?;
    }
    Ok(preparation)
}

fn install(log: &mut Log, start: Position, pieces: &[Vec<u8>]) -> Result<(), InstallError> {
    let mut prepared = Some(prepare(log, start, pieces)?.finish()?);
    let done = log.install(&mut prepared, b"members").expect("nothing is under way").run();
    log.installed(done).map_err(InstallError::Io)
}

/// The log is what was transferred, and nothing else.
fn check(log: &Log, leader: &Log, start: Position, end: Position) {
    assert_eq!((log.start(), log.end(), log.durable()), (start, end, end));
    assert_eq!((log.generation(), log.configuration()), (1, &b"members"[..]));
    let reader = log.reader();
    for index in 1..=end.index.0 {
        let offset = leader.reader().find(Index(index)).unwrap();
        let known = leader.reader().frame(offset).unwrap();
        let known = known.frames().next().unwrap();
        if index > start.index.0 || is_live(index) {
            let chunk = reader.frame(offset).unwrap();
            let frame = chunk.frames().next().unwrap();
            assert_eq!((frame.body, frame.crc), (known.body, known.crc), "frame {index}");
            assert_eq!(reader.find(Index(index)).unwrap(), offset);
            if !known.body.is_empty() {
                assert_eq!(reader.record(offset.plus(56), 1).unwrap(), known.body[..1]);
            }
        } else {
            assert!(matches!(reader.frame(offset), Err(ReadError::Trimmed { .. })), "{index}");
            assert!(matches!(reader.find(Index(index)), Err(ReadError::Trimmed { .. })));
        }
    }
    assert_eq!(log.terms().last().unwrap().1, end.term);
}

/// A leader, the state that it sends, and a follower: fresh, behind, or with a log of its own.
struct Case {
    leader: Log,
    start: Position,
    end: Position,
    pieces: Vec<Vec<u8>>,
    disk: SimDisk,
    log: Log,
}

fn case(seed: u64) -> Case {
    let mut random = Random::new(seed);
    let (_, mut leader) = new(1);
    grow(&mut leader, 1, 20 + random.below(60));
    let shared = leader.end().index.0;
    grow(&mut leader, 3, 1 + random.below(150));
    let end = 1 + random.below(leader.end().index.0);
    let end = leader.reader().position(Index(end)).unwrap();
    let (start, pieces) = pieces(&leader, end);
    let (disk, mut log) = new(2);
    match random.below(3) {
        0 => {}
        1 => grow(&mut log, 1, 1 + random.below(shared)),
        _ => {
            grow(&mut log, 1, 1 + random.below(shared));
            grow(&mut log, 2, random.below(200));
        }
    }
    log.save(SAVED);
    write(&mut log);
    Case { leader, start, end, pieces, disk, log }
}

#[test]
fn the_log_begins_anew_and_goes_on() {
    for seed in 0..60 {
        let Case { leader, start, end, pieces, disk, mut log } = case(seed);
        install(&mut log, start, &pieces).unwrap();
        check(&log, &leader, start, end);
        let (again, opened) = Log::open(Arc::new(disk.copy()), SHARD).unwrap();
        assert_eq!(opened.torn, None);
        check(&again, &leader, start, end);
        // It goes on with the frames behind, byte by byte.
        let mut at = end.offset;
        while at < leader.end().offset {
            let chunk = leader.reader().frames(at, Offset::MAX, 4000).unwrap();
            at = chunk.next();
            log.stage_frames(chunk.bytes()).unwrap();
            write(&mut log);
            if let Some(extend) = log.extend() {
                log.extended(extend.run()).unwrap();
            }
        }
        assert_eq!(log.end(), leader.end());
        // Trimming takes live frames that are live no more, and moves the start.
        let input = TrimInput {
            persisted: log.end().offset,
            keep_from: log.end().offset,
            live: &|_| Vec::new(),
        };
        for _ in 0..100 {
            let job = log.trim(&input);
            write(&mut log);
            let Some(job) = job else { continue };
            log.trimmed(job.run()).unwrap();
        }
        let hard = log.hard_state();
        let (again, _) = Log::open(Arc::new(disk.copy()), SHARD).unwrap();
        assert_eq!((again.end(), again.hard_state(), hard), (leader.end(), SAVED, SAVED));
        let base = leader.layout().base(Offset(leader.end().offset.0 - 1));
        assert_eq!(again.start().offset, base);
        assert!(Survey::new(Arc::new(disk), Depth::Whole).unwrap().damage.is_empty());
    }
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

#[test]
fn whenever_the_power_goes_it_is_the_old_log_or_the_new_one() {
    let (mut old, mut new) = (0, 0);
    for seed in 0..12 {
        let mut fuse = 0;
        loop {
            let Case { leader, start, end, pieces, disk, mut log } = case(seed);
            let before = log.end();
            disk.set_weather(Some(Box::new(Fuse(fuse))));
            let through = install(&mut log, start, &pieces).is_ok();
            let mut random = Random::new(seed << 32 | fuse);
            let mut disk = disk;
            // Opening may lose its power too.
            let log = loop {
                disk = if random.one_in(4) { disk.restart() } else { disk.crash(random.draw()) };
                let fuse = random.one_in(2).then(|| Fuse(random.below(25)));
                disk.set_weather(fuse.map(|fuse| Box::new(fuse) as Box<dyn Weather>));
                let opened = Log::open(Arc::new(disk.clone()), SHARD);
                disk.set_weather(None);
                match opened {
                    Ok((log, _)) => break log,
                    Err(OpenError::Io(_)) => {}
                    Err(other) => panic!("seed {seed}, fuse {fuse:?}: {other}", fuse = 0),
                }
            };
            assert_eq!(log.hard_state(), SAVED);
            if log.generation() == 0 {
                assert!(!through, "what was told to be done is done");
                assert_eq!((log.end(), log.configuration()), (before, &b"one"[..]));
                old += 1;
            } else {
                check(&log, &leader, start, end);
                new += 1;
            }
            let names: Vec<String> = disk.files().into_iter().map(|(name, _)| name).collect();
            let left = names.iter().find(|name| {
                name.starts_with("install") || !name.ends_with(".log") && *name != "superblock"
            });
            assert_eq!(left, None, "nothing is left of the way there");
            if through {
                break;
            }
            fuse += 1;
        }
    }
    assert!(old > 100 && new > 100, "{old} old, {new} new");
}

#[test]
fn it_waits_for_what_is_under_way_and_holds_up_the_rest() {
    let Case { start, pieces, mut log, .. } = case(3);
    let mut prepared = Some(prepare(&log, start, &pieces).unwrap().finish().unwrap());
    log.save(HardState { term: Term(10), vote: NodeId(1) });
    let flight = log.next_write().unwrap();
    assert!(log.install(&mut prepared, b"members").is_none());
    log.written(flight.run()).unwrap();
    let job = log.install(&mut prepared, b"members").unwrap();
    let last = HardState { term: Term(11), vote: NodeId(0) };
    log.save(last);
    assert!(log.next_write().is_none() && log.extend().is_none());
    log.installed(job.run()).unwrap();
    assert_eq!(log.hard_state(), last, "a vote given meanwhile is not forgotten");
    write(&mut log);
    assert_eq!(log.hard_state(), last);
}

#[test]
fn what_does_not_fit_is_refused_and_leaves_nothing() {
    for seed in 0..200 {
        let Case { start, end, mut pieces, disk, mut log, .. } = case(seed % 20);
        let before = disk.files();
        let mut random = Random::new(seed);
        let victim = random.below(pieces.len() as u64) as usize;
        match random.below(4) {
            // The local field is outside all checks; so it is left alone.
            0 => pieces[victim][random.below(48) as usize] ^= 1 << random.below(8),
            1 if pieces.len() > victim + 1 => drop(pieces.remove(victim)),
            2 if victim > 0 => pieces.swap(victim, victim - 1),
            _ => {
                let length = pieces[victim].len();
                pieces[victim].truncate(random.below(length as u64) as usize);
            }
        }
        let generation = log.generation() + 1;
        let mut preparation = log.prepare(generation, start);
        let added = pieces.iter().try_for_each(|piece| preparation.add(piece));
        match added.and_then(|()| preparation.finish()) {
            Ok(prepared) => {
                // Live frames may be missing, and the end may lie earlier: that is told.
                assert!(prepared.end().offset <= end.offset);
                prepared.abandon().unwrap();
            }
            Err(InstallError::Refused(_)) => log.prepare(generation, start).abandon().unwrap(),
            Err(other) => panic!("{other}"),
        }
        assert_eq!(disk.files(), before, "nothing is left");
        grow(&mut log, 9, 3);
    }
}

#[test]
fn an_interrupted_one_can_not_be_looked_at() {
    let Case { start, pieces, disk, mut log, .. } = case(5);
    let mut prepared = Some(prepare(&log, start, &pieces).unwrap().finish().unwrap());
    let job = log.install(&mut prepared, b"members").unwrap();
    // The superblock is flipped, and no more.
    disk.set_weather(Some(Box::new(Fuse(5))));
    assert!(log.installed(job.run()).is_err());
    assert!(log.next_write().is_none(), "the node has to stop");
    let disk = disk.restart();
    disk.set_weather(None);
    let looked = Survey::new(Arc::new(disk.clone()), Depth::Whole).err().unwrap();
    assert!(matches!(looked, OpenError::Interrupted), "{looked}");
    let (list, _) = disk.files().into_iter().find(|(name, _)| name.starts_with("install")).unwrap();
    let rotten = disk.copy();
    rotten.rot(&list, 17, 1);
    let opened = Log::open(Arc::new(rotten), SHARD).err().unwrap();
    assert!(matches!(opened, OpenError::Installation), "{opened}");
    assert!(Log::open(Arc::new(disk), SHARD).is_ok());
}
