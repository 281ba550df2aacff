//! Whatever of the acknowledged log is damaged, a scrub or opening finds it, and frames of another
//! replica mend it, in whatever pieces they come. What does not belong there is not taken.

#![allow(clippy::unwrap_used)] // helpers of tests

mod damaged;

use damaged::*;
use naust_log::sim::{Random, SimDisk};
use naust_log::{Depth, Disk, Flaw, Layout, Log, MendError, Open, OpenError, ReadError, Survey};
use naust_wire::frame::Kind;
use naust_wire::limits::FRAME_HEADER_BYTES;
use naust_wire::{Index, LogTime, Offset, Term};
use std::sync::Arc;

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

/// Why: the last frame of a segment was sent together with the first one of the next, as proof, and
/// not at all by who had let that one go: it could not be mended by anybody (seed 920002286).
#[test]
fn the_last_frame_of_a_segment_is_mended_by_who_let_the_next_one_go() {
    let make = || {
        let (disk, mut log, _) = make(6, 0);
        for index in 1..=40 {
            // Eight of them fill a segment.
            let body = vec![index as u8; 2048 - FRAME_HEADER_BYTES];
            log.stage(Kind::Commit, Term(1), Index(index), LogTime(index), &body);
            let done = log_write(&mut log);
            log.written(done).unwrap();
        }
        (disk, log)
    };
    let ((disk, log), (_, mut other)) = (make(), make());
    let frames = all(&log.reader());
    let (last, next) = (frames[7].1, frames[8].1);
    assert_eq!((last.plus(2048), layout().base(next)), (next, next));
    trim_to(&mut other, &[last]);
    assert!(other.reader().frame(last).is_ok() && other.reader().frame(next).is_err());
    disk.rot(&Layout::name(layout().base(last)), last.0 - layout().base(last).0 + 20, 1);
    let damage = log.reader().frame(last).unwrap_err().damage().unwrap();
    let found = other.reader().frames_to_mend(damage.from, damage.to, 1 << 20).unwrap();
    let mended = log.reader().mend(last, found).committed().run().unwrap();
    assert_eq!(mended.to, next);
    assert_eq!(all(&log.reader()), frames);
}
