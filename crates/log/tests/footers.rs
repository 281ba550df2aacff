//! What segments say about themselves, and files that are gone: both are found out, and made again
//! from what is left here or from another replica.

#![allow(clippy::unwrap_used)] // helpers of tests

mod damaged;

use damaged::*;
use naust_log::sim::{Random, SimDisk};
use naust_log::{Depth, Flaw, Layout, Log, Survey};
use naust_wire::Offset;
use std::sync::Arc;

/// Where the bytes of a file on two disks differ.
fn differs(one: &SimDisk, other: &SimDisk, base: Offset) -> Vec<usize> {
    let name = Layout::name(base);
    let (one, other) = (bytes_of(one, &name), bytes_of(other, &name));
    assert_eq!(one.len(), other.len());
    (0..one.len()).filter(|at| one[*at] != other[*at]).collect()
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

/// Why: who has a file open goes on to read it, and does not notice that the next start lacks it.
#[test]
fn a_scrub_finds_that_a_file_is_gone_which_is_still_open() {
    let (disk, mut log, _) = make(4, 60);
    let live = [all(&log.reader())[1].1];
    trim_to(&mut log, &live);
    let reader = log.reader();
    let frame = reader.frame(live[0]).unwrap().into_bytes();
    assert!(disk.lose(&Layout::name(layout().base(live[0]))));
    assert!(reader.frame(live[0]).is_ok(), "it is still open");
    let scrub = || reader.scrub(Offset::ZERO).with_footers(log.end().offset).step(u64::MAX);
    let found = scrub().unwrap().damage;
    assert_eq!(
        found.iter().map(|it| (it.from, it.flaw)).collect::<Vec<_>>(),
        [(live[0], Flaw::Missing)]
    );
    assert!(reader.mend(live[0], frame).committed().run().unwrap().joined);
    let seen = scrub().unwrap();
    assert_eq!((seen.damage, seen.footers), (vec![], 1), "what it says about itself is made again");
    let (log, opened) = Log::open(Arc::new(disk), SHARD).unwrap();
    assert_eq!((opened.footers, log.reader().frame(live[0]).unwrap().from()), (0, live[0]));
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
