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
    assert_eq!((log.unsure_segments(), all(&log.reader())), (0, kept.clone()));
    let survey = Survey::new(Arc::new(disk), Depth::Whole).unwrap();
    assert_eq!((&survey.damage[..], all(&survey.reader())), (&[][..], kept));
}

/// Other replicas may have let it go already: nobody could mend it.
#[test]
fn damage_of_what_nothing_needs_goes_with_it() {
    let (disk, mut log, _) = make(6, 60);
    let offsets: Vec<Offset> = all(&log.reader()).iter().map(|frame| frame.1).collect();
    let (live, dead) = (offsets[1], offsets[2]);
    disk.rot(&Layout::name(layout().base(dead)), dead.0 - layout().base(dead).0 + 20, 1);
    let mut random = Random::new(1);
    assert_eq!(scrub(&log.reader(), &mut random).len(), 1);
    trim_to(&mut log, &[live]);
    assert!(log.start().offset > dead, "its segment is an old one");
    assert_eq!(scrub(&log.reader(), &mut random), []);
    assert_eq!(log.reader().frame(live).unwrap().from(), live);
    let gone = log.reader().frame(dead).unwrap_err();
    assert!(matches!(gone, ReadError::Trimmed { .. }), "{gone}");
}

#[test]
fn damage_of_what_lives_keeps_its_segment_as_it_is() {
    let (disk, mut log, _) = make(6, 60);
    let live = all(&log.reader())[1].1;
    disk.rot(&Layout::name(layout().base(live)), live.0 - layout().base(live).0 + 20, 1);
    let met = trim(&mut log, &only(&[live]));
    assert_eq!(met.map(|damage| damage.from), Some(live));
    assert_eq!(scrub(&log.reader(), &mut Random::new(1)).len(), 1, "for others to mend");
}

/// A disk may refuse to give out a block, instead of giving out other bytes.
#[test]
fn blocks_that_the_disk_refuses_to_read_are_written_over() {
    let mut mends = 0;
    for seed in 0..300 {
        let mut random = Random::new(seed);
        let (disk, log, last_batch) = make(seed, 10 + random.below(40));
        let (other, before, end) = (log.reader(), all(&log.reader()), log.end().offset);
        let disk = disk.copy();
        let (log, _) = Log::open(Arc::new(disk.clone()), SHARD).unwrap();
        let reader = log.reader();
        let mut refused = 0;
        for _ in 0..1 + random.below(3) {
            let offset = Offset::FIRST.plus(random.below(last_batch.0 - Offset::FIRST.0));
            let base = layout().base(offset);
            // What lies in one block with the end is not whole yet.
            if offset.0 / 4096 < end.0 / 4096 {
                disk.refuse(&Layout::name(base), offset.0 - base.0);
                refused += 1;
            }
        }
        let damage = scrub(&reader, &mut random);
        assert_eq!(damage.is_empty(), refused == 0, "seed {seed}");
        for damage in damage {
            assert_eq!(damage.flaw, Flaw::Refused, "seed {seed}");
            let segment_end = layout().end(damage.from);
            let frames = other.frames_to_mend(damage.from, segment_end, 1 << 20).unwrap();
            let mended = reader.mend(damage.from, frames).run().unwrap();
            assert!(mended.joined, "seed {seed}: {damage}");
            mends += 1;
        }
        assert_eq!(scrub(&reader, &mut random), [], "seed {seed}");
        assert_eq!(all(&reader), before, "seed {seed}");
    }
    assert!(mends > 100, "{mends} places were mended");
}

/// Some sectors of a file as they are on another disk, which was to be written like that.
fn tear(disk: &SimDisk, other: &SimDisk, name: &str, random: &mut Random) {
    let bytes = bytes_of(other, name);
    for (sector, bytes) in bytes.chunks(512).enumerate() {
        if random.one_in(2) {
            disk.spoil(name, sector as u64 * 512, bytes);
        }
    }
}

/// Why: whatever lay behind a damaged place was written again with it, good frames too. Half of
/// that looked like the end of a batch that was never synced, and was cut off.
#[test]
fn a_place_that_is_half_mended_is_not_taken_for_a_torn_tail() {
    let mut damaged = 0;
    for seed in 0..300 {
        let mut random = Random::new(seed);
        let (disk, log, last_batch) = make(seed, 10 + random.below(40));
        let (other, base) = (log.reader(), layout().base(last_batch));
        if last_batch == base {
            continue;
        }
        let rotten = disk.copy();
        for _ in 0..1 + random.below(3) {
            let position = random.below(last_batch.0 - base.0);
            rotten.rot(&Layout::name(base), position, random.draw() as u8);
        }
        let mended = rotten.copy();
        let survey = Survey::new(Arc::new(mended.clone()), Depth::Tail).unwrap();
        let Some(place) = survey.damage.first() else { continue };
        let frames = other.frames_to_mend(place.from, Offset::MAX, 1 << 20).unwrap();
        assert!(survey.reader().mend(place.from, frames).run().unwrap().to > place.from);
        for _ in 0..8 {
            let torn = rotten.copy();
            tear(&torn, &mended, &Layout::name(base), &mut random);
            match Log::open(Arc::new(torn), SHARD) {
                Ok((log, _)) => assert_eq!(all(&log.reader()), all(&other), "seed {seed}"),
                Err(OpenError::Damaged { .. }) => damaged += 1,
                Err(error) => panic!("seed {seed}: {error}"),
            }
        }
    }
    assert!(damaged > 300, "{damaged} are to be mended again");
}

/// While a replica is opened nothing may be taken for torn that the disk merely refuses to read.
#[test]
fn a_log_whose_end_the_disk_refuses_to_read_is_not_opened_and_not_cut() {
    let (disk, log, last_batch) = make(7, 20);
    let (before, disk) = (all(&log.reader()), disk.copy());
    let base = layout().base(last_batch);
    let good = disk.copy();
    disk.refuse(&Layout::name(base), last_batch.0 - base.0);
    let refused = Log::open(Arc::new(disk.clone()), SHARD).map(drop).unwrap_err();
    assert!(matches!(refused, OpenError::Io(_)), "{refused}");
    let name = Layout::name(base);
    assert_eq!(disk.resting(&name, 0, 1 << 20), good.resting(&name, 0, 1 << 20));
    let (log, _) = Log::open(Arc::new(good), SHARD).unwrap();
    assert_eq!(all(&log.reader()), before);
}

/// A frame that claims to be longer than what is asked for is damage, not the end of it.
#[test]
fn a_rotten_length_is_damage() {
    let (disk, log, _) = make(3, 12);
    let (reader, frames) = (log.reader(), all(&log.reader()));
    let (at, next) = (frames[4].1, frames[5].1);
    let end = next.min(layout().end(at));
    let shorter = reader.frames(at, at.plus(8), 1000).unwrap();
    assert_eq!(shorter.next(), at, "the frame is longer than what is asked for");
    disk.rot(&Layout::name(layout().base(at)), at.0 - layout().base(at).0 + 6, 1);
    for to in [at.plus(8), end, log.end().offset, Offset::MAX] {
        let damage = reader.frames(at, to, 1000).unwrap_err().damage().unwrap();
        assert_eq!(damage.from, at, "up to {to}");
    }
}

/// Another replica may have trimmed part of what is damaged here: the rest is mended.
#[test]
fn what_lives_is_mended_between_what_another_replica_let_go() {
    let (disk, log, _) = make(6, 60);
    let (_, mut other, _) = make(6, 60);
    let frames = all(&log.reader());
    assert_eq!(frames, all(&other.reader()), "two replicas");
    let live = frames[2].1;
    trim_to(&mut other, &[live]);
    let (dead, behind) = (frames[1].1, frames[3].1);
    assert!(other.reader().frame(dead).is_err() && other.reader().frame(behind).is_err());
    for (_, offset, ..) in &frames[1..4] {
        let base = layout().base(*offset);
        disk.rot(&Layout::name(base), offset.0 - base.0 + 20, 1);
    }
    let (reader, to) = (log.reader(), frames[4].1);
    let found = other.reader().frames_to_mend(dead, to, 1 << 20).unwrap();
    let first = naust_wire::frame::peek(&found).unwrap().0.offset;
    assert_eq!(first, live, "from the next one on that lives");
    let alone = reader.mend(first, found.clone()).run();
    assert!(matches!(alone, Err(MendError::Refused(_))), "no neighbour tells: {alone:?}");
    let mended = reader.mend(first, found).committed().run().unwrap();
    assert_eq!((mended.to, mended.joined), (behind, false));
    assert_eq!(reader.frame(live).unwrap().from(), live);
    assert!(reader.frame(dead).is_err() && reader.frame(behind).is_err());
}

/// What a segment without holes says about itself is made again, by whoever opens the log and by a
/// scrub, also before the log's start.
#[test]
fn a_rotten_footer_of_a_segment_without_holes_is_made_again() {
    let (disk, mut log, _) = make(4, 60);
    let (first, second) = (Offset::FIRST, layout().end(Offset::FIRST));
    for is_old in [false, true] {
        if is_old {
            assert_eq!(trim(&mut log, &|range| Some(vec![range])), None);
            assert!(log.start().offset > second, "they are old, and all of them lives");
        }
        let kept = all(&log.reader());
        let good = disk.copy();
        // The second one is rebuilt from its frames and what the one before ends with.
        for base in [first, second] {
            assert!(disk.rot(&Layout::name(base), layout().segment_bytes() + 70, 1));
            let (opened, found) = Log::open(Arc::new(disk.clone()), SHARD).unwrap();
            assert_eq!(found.footers, 1);
            assert_eq!(differs(&disk, &good, base), []);
            assert!(all(&opened.reader()) == kept);
            let of_base = kept.iter().find(|frame| frame.1 == base).unwrap();
            assert_eq!(opened.reader().find(of_base.0).unwrap(), base);
            log = opened;
            assert!(disk.rot(&Layout::name(base), layout().segment_bytes() + 70, 1));
            // Of what may be cut a footer that nobody wrote would be worse than none.
            let seen = log.reader().scrub(Offset::ZERO).with_footers(base).step(u64::MAX);
            assert_eq!(seen.unwrap().footers, 0);
            let end = log.end().offset;
            let seen = log.reader().scrub(Offset::ZERO).with_footers(end).step(u64::MAX).unwrap();
            assert_eq!((seen.footers, seen.damage), (1, vec![]));
            assert_eq!(differs(&disk, &good, base), []);
        }
        let (_, found) = Log::open(Arc::new(disk.clone()), SHARD).unwrap();
        assert_eq!(found.footers, 0, "there is nothing left to be done");
    }
}

/// As long as the log is open, its owner knows where the holes are.
#[test]
fn a_scrub_makes_both_footers_of_a_segment_with_holes_again() {
    let (disk, mut log, _) = make(4, 60);
    let live: Vec<Offset> = all(&log.reader()).iter().map(|frame| frame.1).step_by(9).collect();
    trim_to(&mut log, &live);
    let name = Layout::name(layout().base(live[0]));
    let good = bytes_of(&disk, &name);
    let (first, last) = (layout().segment_bytes() + 70, good.len() as u64 - 1);
    for rotten in [&[first][..], &[last], &[first, last]] {
        rotten.iter().for_each(|at| assert!(disk.rot(&name, *at, 1)));
        let end = log.end().offset;
        let seen = log.reader().scrub(Offset::ZERO).with_footers(end).step(u64::MAX).unwrap();
        assert_eq!((seen.footers, seen.damage), (1, vec![]), "{rotten:?}");
        assert!(bytes_of(&disk, &name) == good, "{rotten:?}");
    }
}

/// Of an old segment that is gone, trimming may have let go: the views know whether it did.
#[test]
fn a_lost_segment_is_known_by_what_lives_in_it_and_mended() {
    let (disk, mut log, _) = make(4, 60);
    let (_, other, _) = make(4, 60);
    let live: Vec<Offset> = all(&log.reader()).iter().map(|frame| frame.1).step_by(29).collect();
    trim_to(&mut log, &live);
    let kept = all(&log.reader());
    let base = layout().base(live[1]);
    assert!(disk.lose(&Layout::name(base)));
    for restarts in [false, true] {
        if restarts {
            // Nobody tells that it was there.
            log = Log::open(Arc::new(disk.clone()), SHARD).unwrap().0;
            let gone = log.gaps().into_iter().find(|gap| gap.contains(&base)).unwrap();
            let living = only(&live)(gone).unwrap();
            let lost = log.note_lost(&living);
            assert_eq!(
                lost.first().map(|lost| (lost.from, lost.flaw)),
                Some((base, Flaw::Missing))
            );
            assert_eq!(log.note_lost(&living), [], "it is known now");
            assert_eq!(scrub(&log.reader(), &mut Random::new(1)), []);
        } else {
            log = Log::open(Arc::new(disk.clone()), SHARD).unwrap().0;
            assert_eq!(log.note_lost(&[]), []);
        }
        let read = log.reader().frame(live[1]).unwrap_err();
        assert_eq!(restarts, read.damage().is_some(), "{read}");
    }
    for _ in 0..live.len() {
        let Some(met) = trim(&mut log, &only(&live)) else { break };
        assert_eq!(layout().base(met.from), base);
        let at = *live.iter().find(|at| **at >= met.from).unwrap();
        let frames = other.reader().frame(at).unwrap().into_bytes();
        assert!(log.reader().mend(at, frames).committed().run().unwrap().to > at);
    }
    assert_eq!((log.unsure_segments(), all(&log.reader())), (0, kept.clone()));
    let (log, _) = Log::open(Arc::new(disk), SHARD).unwrap();
    assert_eq!(all(&log.reader()), kept);
}

/// A file may go while the log is open.
#[test]
fn a_segment_that_goes_while_it_is_open_is_damage() {
    let (disk, log, _) = make(4, 60);
    let other = make(4, 60).1;
    drop(log);
    let (mut log, _) = Log::open(Arc::new(disk.clone()), SHARD).unwrap();
    assert!(disk.lose(&Layout::name(Offset::FIRST)));
    let reader = log.reader();
    let damage = reader.frame(Offset::FIRST).unwrap_err().damage().unwrap();
    assert_eq!((damage.from, damage.flaw), (Offset::FIRST, Flaw::Missing));
    let live = [all(&other.reader())[1].1];
    assert_eq!(trim(&mut log, &only(&live)).map(|met| met.flaw), Some(Flaw::Missing));
    mend(&reader, &other.reader(), &damage, &mut Random::new(1));
    trim_to(&mut log, &live);
    assert_eq!(reader.frame(live[0]).unwrap().from(), live[0]);
}

/// Without either footer the views alone know what must be there.
#[test]
fn an_unsure_segment_is_rewritten_from_what_lives() {
    let (disk, mut log, _) = make(4, 60);
    let live: Vec<Offset> = all(&log.reader()).iter().map(|frame| frame.1).step_by(9).collect();
    trim_to(&mut log, &live);
    let kept = all(&log.reader());
    let (base, name) = (layout().base(live[1]), Layout::name(layout().base(live[1])));
    let frame = log.reader().frame(live[1]).unwrap().into_bytes();
    let last = bytes_of(&disk, &name).len() as u64 - 1;
    assert!(disk.rot(&name, layout().segment_bytes() + 70, 1) && disk.rot(&name, last, 1));
    assert!(disk.rot(&name, live[1].0 - base.0 + 20, 1));
    let (mut log, opened) = Log::open(Arc::new(disk.clone()), SHARD).unwrap();
    assert_eq!((opened.footers, log.unsure_segments()), (0, 1));
    let everything = |range| Some(vec![range]);
    assert!(trim(&mut log, &everything).is_some(), "it is never let go of what may live");
    let met = trim(&mut log, &only(&live)).unwrap();
    assert!(met.from <= live[1] && live[1] < met.to, "what is lost is found: {met}");
    assert_eq!(log.unsure_segments(), 1);
    assert!(log.reader().mend(live[1], frame).committed().run().unwrap().to > live[1]);
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
