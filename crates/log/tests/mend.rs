//! Whatever of the acknowledged log is damaged, a scrub or opening finds it, and frames of another
//! replica mend it, in whatever pieces they come. What does not belong there is not taken.

#![allow(clippy::unwrap_used)] // helpers of tests

use naust_log::sim::{Random, SimDisk};
use naust_log::{
    Damage, Depth, Disk, Flaw, Identity, Layout, Log, MendError, Open, OpenError, ReadError,
    Reader, Survey, TrimInput,
};
use naust_wire::frame::Kind;
use naust_wire::{Index, LogTime, NodeId, Offset, ShardId, Term};
use std::ops::Range;
use std::sync::Arc;

const SHARD: ShardId = ShardId(1);

fn layout() -> Layout {
    Layout::new(16 * 1024).unwrap()
}

/// A log of some segments, and where its last batch begins.
fn make(seed: u64, batches: u64) -> (SimDisk, Log, Offset) {
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

fn log_write(log: &mut Log) -> naust_log::Written {
    log.next_write().unwrap().run()
}

/// All frames but for the local field.
fn all(reader: &Reader) -> Vec<(Index, Offset, u32, Vec<u8>)> {
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
fn scrub(reader: &Reader, random: &mut Random) -> Vec<Damage> {
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

/// Something goes wrong with the acknowledged part of the disk.
fn spoil(disk: &SimDisk, upto: Offset, random: &mut Random) {
    let offset = Offset::FIRST.plus(random.below(upto.0 - Offset::FIRST.0));
    let base = layout().base(offset);
    let name = Layout::name(base);
    let position = offset.0 - base.0;
    let sealed = layout().end(offset) <= upto;
    let file = disk.open(&name, Open::Existing);
    match random.below(6) {
        0 if sealed => drop(disk.remove(&name)),
        1 if sealed => drop(file.map(|file| file.set_len(position).unwrap())),
        2 => {
            let length = (1 + random.below(3000)).min(upto.0 - offset.0);
            let length = length.min(layout().end(offset).0 - offset.0) as usize;
            let bytes = vec![random.draw() as u8 & 3; length];
            drop(file.map(|file| file.write_at(position, &[&bytes]).unwrap()));
        }
        _ => drop(disk.rot(&name, position, random.draw() as u8)),
    }
}

/// Mends one place with what another replica has, piece by piece.
fn mend(reader: &Reader, other: &Reader, damage: &Damage, random: &mut Random) {
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

#[test]
fn what_is_damaged_is_found_and_mended() {
    let (mut by_scrub, mut by_opening) = (0, 0);
    for seed in 0..800 {
        let mut random = Random::new(seed);
        let (disk, log, last_batch) = make(seed, 10 + random.below(40));
        let other = log.reader();
        let disk = disk.copy();
        // Half of the lives go on while the damage is done.
        let open = random.one_in(2).then(|| Log::open(Arc::new(disk.clone()), SHARD).unwrap().0);
        for _ in 0..1 + random.below(4) {
            spoil(&disk, last_batch, &mut random);
        }
        let mut mended = match open {
            Some(log) => log,
            None => loop {
                match Log::open(Arc::new(disk.clone()), SHARD) {
                    Ok((log, _)) => break log,
                    Err(OpenError::Damaged { .. }) => {
                        let survey = Survey::new(Arc::new(disk.clone()), Depth::Tail).unwrap();
                        mend(&survey.reader(), &other, &survey.damage[0], &mut random);
                        by_opening += 1;
                    }
                    Err(error) => panic!("seed {seed}: {error}"),
                }
            },
        };
        let reader = mended.reader();
        for _ in 0..40 {
            let damage = scrub(&reader, &mut random);
            if damage.is_empty() {
                break;
            }
            for place in damage {
                mend(&reader, &other, &place, &mut random);
                by_scrub += 1;
            }
        }
        assert_eq!(all(&reader), all(&other), "seed {seed}");
        let index = mended.end().index.next();
        mended.stage(Kind::Commit, Term(99), index, LogTime(1), b"on it goes");
        let done = log_write(&mut mended);
        mended.written(done).unwrap();
        let end = mended.end();
        let (again, _) = Log::open(Arc::new(disk.restart()), SHARD).unwrap();
        assert_eq!(again.end(), end, "seed {seed}");
        assert_eq!(again.terms().len(), log.terms().len() + 1, "seed {seed}");
    }
    assert!(by_scrub > 300 && by_opening > 100, "{by_scrub} by scrubs, {by_opening} by opening");
}

#[test]
fn what_does_not_belong_there_is_not_taken() {
    let (mut refused, mut harmless) = (0, 0);
    for seed in 0..400 {
        let mut random = Random::new(seed);
        let (disk, log, last_batch) = make(seed, 12);
        let other = log.reader();
        let disk = disk.copy();
        let known = all(&other);
        let inside: Vec<_> = known.iter().filter(|frame| frame.1 < last_batch).collect();
        let (_, offset, _, body) = inside[random.below(inside.len() as u64) as usize];
        let base = layout().base(*offset);
        let within = random.below(48);
        disk.rot(&Layout::name(base), offset.0 - base.0 + within, 1);
        let survey = Survey::new(Arc::new(disk.clone()), Depth::Whole).unwrap();
        let reader = survey.reader();
        let whole = other.frame(*offset).unwrap().into_bytes();
        let spoilt = match random.below(4) {
            0 => {
                let mut bytes = whole.clone();
                bytes[random.below(48) as usize] ^= 1;
                bytes
            }
            // Of another place, of another log, not whole.
            1 => other.frame(known[known.len() / 2].1).unwrap().into_bytes(),
            2 => make(seed + 1000, 12).1.reader().frame(Offset::FIRST).unwrap().into_bytes(),
            _ => whole[..random.below(whole.len() as u64) as usize].to_vec(),
        };
        let before = disk.copy();
        match reader.mend(*offset, spoilt.clone()).run() {
            Err(MendError::Refused(_)) => {
                refused += 1;
                let name = Layout::name(base);
                assert_eq!(bytes_of(&disk, &name), bytes_of(&before, &name));
            }
            Ok(mended) => {
                assert!(spoilt == whole || (spoilt.is_empty() && !mended.joined), "seed {seed}");
                harmless += 1;
            }
            Err(other) => panic!("{other}"),
        }
        // And what belongs there is.
        assert!(reader.mend(*offset, whole).run().unwrap().to > *offset);
        assert_eq!(all(&reader).len(), known.len());
        assert!(all(&reader).iter().any(|frame| frame.1 == *offset && frame.3 == *body));
    }
    assert!(refused > 200 && harmless > 0, "{refused} refused, {harmless} harmless");
}

/// Where the bytes of a file on two disks differ.
fn differs(one: &SimDisk, other: &SimDisk, base: Offset) -> Vec<usize> {
    let name = Layout::name(base);
    let (one, other) = (bytes_of(one, &name), bytes_of(other, &name));
    assert_eq!(one.len(), other.len());
    (0..one.len()).filter(|at| one[*at] != other[*at]).collect()
}

fn bytes_of(disk: &SimDisk, name: &str) -> Vec<u8> {
    let file = disk.open(name, Open::Existing).unwrap();
    let mut bytes = vec![0; file.len().unwrap() as usize];
    file.read_at(0, &mut bytes).unwrap();
    bytes
}

#[test]
fn frames_of_another_history_do_not_join() {
    // Equal up to a frame, then not: each frame is good, but the one behind follows another.
    let (disk, log, _) = make(1, 12);
    let mut story = make(1, 12).1;
    let cut = Index(story.end().index.0 / 2);
    story.cut_after(cut).unwrap();
    for _ in 0..20 {
        let index = story.end().index.next();
        story.stage(Kind::Commit, Term(50), index, LogTime(index.0), &[7; 40]);
    }
    let done = log_write(&mut story);
    story.written(done).unwrap();
    let at = log.reader().find(cut.next()).unwrap();
    let base = layout().base(at);
    disk.rot(&Layout::name(base), at.0 - base.0 + 30, 1);
    let frames = story.reader().frame(at).unwrap().into_bytes();
    // It may not reach the next good frame; then what is behind it does not join.
    match log.reader().mend(at, frames).run() {
        Err(MendError::Refused(refused)) => assert_eq!(refused.flaw, Flaw::Chain),
        Ok(mended) => assert!(!mended.joined),
        Err(other) => panic!("{other}"),
    }
    assert!(matches!(log.reader().mend(Offset(8), Vec::new()).run(), Err(MendError::Gone)));
    let end = log.end().offset;
    assert!(matches!(log.reader().mend(end, Vec::new()).run(), Err(MendError::Gone)));
}

/// Nothing lives but the frames at these places.
fn only(live: &[Offset]) -> impl Fn(Range<Offset>) -> Option<Vec<Range<Offset>>> {
    move |range| {
        let within = live.iter().filter(|at| range.contains(at));
        Some(within.map(|at| at.plus(8)..at.plus(9)).collect())
    }
}

/// Lets go of what does not live, in turns; damage that is met.
fn trim(
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
fn trim_to(log: &mut Log, live: &[Offset]) {
    assert_eq!(trim(log, &only(live)), None);
}

#[test]
fn live_frames_of_sparse_segments_are_mended_too() {
    let (disk, mut log, _) = make(4, 60);
    let offsets: Vec<Offset> = all(&log.reader()).iter().map(|frame| frame.1).collect();
    let live: Vec<Offset> = offsets.iter().copied().step_by(20).collect();
    let copy = log.reader();
    let kept: Vec<Vec<u8>> =
        live.iter().map(|offset| copy.frame(*offset).unwrap().into_bytes()).collect();
    trim_to(&mut log, &live);
    let reader = log.reader();
    let mut random = Random::new(1);
    assert_eq!(scrub(&reader, &mut random), []);
    for (offset, frames) in live.iter().zip(&kept).filter(|(at, _)| **at < log.start().offset) {
        let base = layout().base(*offset);
        disk.rot(&Layout::name(base), offset.0 - base.0 + 20, 1);
        let [damage] = scrub(&reader, &mut random)[..] else { panic!("one place") };
        assert_eq!(damage.from, *offset);
        assert!(reader.mend(*offset, frames.clone()).run().unwrap().joined);
        assert_eq!(scrub(&reader, &mut random), []);
        let gap = offset.plus(frames.len() as u64);
        if !live.contains(&gap) {
            let behind = reader.mend(gap, frames.clone()).run();
            assert!(matches!(behind, Err(MendError::Gone | MendError::Refused(_))));
        }
    }
}

/// Which frames are gone on purpose, others can't tell: they may have let go of other ones.
#[test]
fn a_segment_with_holes_bears_that_one_of_its_footers_rots() {
    let (disk, mut log, _) = make(4, 60);
    let offsets: Vec<Offset> = all(&log.reader()).iter().map(|frame| frame.1).collect();
    let live: Vec<Offset> = offsets.into_iter().step_by(20).collect();
    trim_to(&mut log, &live);
    let start = log.start().offset;
    let old: Vec<Offset> = live.iter().copied().filter(|at| *at < start).collect();
    let kept = all(&log.reader());
    let base = layout().base(old[0]);
    let name = Layout::name(base);
    let first = layout().segment_bytes() + 70;
    let last = disk.files().iter().find(|file| file.0 == name).unwrap().1 - 1;
    assert!(last / 4096 > first / 4096, "no block has parts of both");
    let mut random = Random::new(1);
    for rotten in [first, last, first] {
        assert!(disk.rot(&name, rotten, 1));
        let survey = Survey::new(Arc::new(disk.clone()), Depth::Whole).unwrap();
        assert_eq!((&survey.damage[..], all(&survey.reader())), (&[][..], kept.clone()));
        // Whoever opens it makes the bad one again, or the next one to rot would be too many.
        let (opened, found) = Log::open(Arc::new(disk.clone()), SHARD).unwrap();
        assert_eq!(found.footers, 1, "that is said");
        log = opened;
        assert_eq!(scrub(&log.reader(), &mut random), []);
        assert_eq!(all(&log.reader()), kept);
        assert_eq!(log.reader().find(kept[0].0).unwrap(), kept[0].1);
    }
    for refused in [first, last] {
        assert!(disk.refuse(&name, refused));
        let survey = Survey::new(Arc::new(disk.clone()), Depth::Whole).unwrap();
        assert_eq!((&survey.damage[..], all(&survey.reader())), (&[][..], kept.clone()));
        let (opened, _) = Log::open(Arc::new(disk.clone()), SHARD).unwrap();
        log = opened;
        assert_eq!(all(&log.reader()), kept);
        disk.relent();
    }
    // What lives and rots is damage all the same.
    disk.rot(&name, old[0].0 - base.0 + 20, 1);
    let [damage] = scrub(&log.reader(), &mut random)[..] else { panic!("one place") };
    assert_eq!(damage.from, old[0]);
    disk.rot(&name, old[0].0 - base.0 + 20, 1);
    // Without either of them, nothing tells a hole from damage: that is said to who looks at it.
    assert!(disk.rot(&name, first, 1) && disk.rot(&name, last, 1));
    let survey = Survey::new(Arc::new(disk.clone()), Depth::Whole).unwrap();
    assert!(!survey.damage.is_empty());
    let (mut log, opened) = Log::open(Arc::new(disk.clone()), SHARD).unwrap();
    assert_eq!((opened.footers, log.unsure_segments()), (0, 1));
    assert_eq!(scrub(&log.reader(), &mut random), [], "nobody is asked for what was let go");
    assert_eq!(log.reader().frame(old[0]).unwrap().from(), old[0], "what lives is there");
    trim_to(&mut log, &live);
    // Of what was too much to be let go of before, what lives is left.
    let left = all(&log.reader());
    assert_eq!(log.unsure_segments(), 0);
    assert!(left.iter().all(|frame| kept.contains(frame)));
    let lives = |frame: &&(_, Offset, _, _)| live.contains(&frame.1);
    assert!(left.iter().filter(lives).eq(kept.iter().filter(lives)));
    let survey = Survey::new(Arc::new(disk.clone()), Depth::Whole).unwrap();
    assert_eq!((&survey.damage[..], all(&survey.reader())), (&[][..], left));
}
