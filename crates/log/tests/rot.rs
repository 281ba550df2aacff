//! Bits rot where they rest. What was acknowledged is then reported as damaged, never cut and never
//! served; all the rest stays readable; a rotten superblock or footer harms nothing.

#![allow(clippy::unwrap_used)] // helpers of tests

use naust_log::sim::{Op, Random, SimDisk, Verdict, Weather};
use naust_log::{
    Damage, Depth, HardState, Identity, Layout, Log, OpenError, ReadError, Reader, Survey,
};
use naust_wire::frame::Kind;
use naust_wire::{Index, LogTime, NodeId, Offset, ShardId, Term};
use std::sync::Arc;

const SHARD: ShardId = ShardId(1);
const HEADER_BYTES: u64 = 56;
/// Where the local field lies in a header: no checksum covers it.
const LOCAL: std::ops::Range<u64> = 48..56;

#[derive(Clone, Debug, PartialEq, Eq)]
struct Known {
    offset: Offset,
    body: Vec<u8>,
}

/// A log of some segments; where its last batch begins, and what it holds.
struct Made {
    disk: SimDisk,
    known: Vec<Known>,
    last_batch: Offset,
    end: Offset,
}

fn make(seed: u64) -> Made {
    make_batches(seed, 4 + Random::new(seed).below(20))
}

fn make_batches(seed: u64, batches: u64) -> Made {
    let mut random = Random::new(seed);
    let disk = SimDisk::new();
    let identity = Identity { node: NodeId(1), shard: SHARD, cluster: 1 };
    let layout = Layout::new(16 * 1024).unwrap();
    Log::create_with(&disk, identity, b"", layout).unwrap();
    let (mut log, _) = Log::open(Arc::new(disk.clone()), SHARD).unwrap();
    let mut known = Vec::new();
    let mut last_batch = Offset::FIRST;
    for _ in 0..batches {
        last_batch = log.end().offset;
        for _ in 0..1 + random.below(8) {
            let body = vec![random.draw() as u8; random.below(700) as usize];
            let index = log.end().index.next();
            let staged = log.stage(Kind::Commit, Term(1), index, LogTime(index.0), &body);
            known.push(Known { offset: staged.offset, body });
        }
        let done = log.next_write().unwrap().run();
        log.written(done).unwrap();
    }
    Made { disk, known, last_batch, end: log.end().offset }
}

fn victim_end(victim: &Known) -> Offset {
    victim.offset.plus(naust_wire::frame::frame_bytes(victim.body.len()) as u64)
}

/// All that can be read, and what is said of the rest.
fn read_all(reader: &Reader) -> (Vec<Known>, Vec<Damage>) {
    let (mut known, mut damage) = (Vec::new(), Vec::new());
    let mut at = Offset::FIRST;
    while at < reader.end() {
        match reader.frames(at, Offset::MAX, 1000) {
            Ok(chunk) => {
                known.extend(
                    chunk.frames().map(|frame| Known {
                        offset: frame.header.offset,
                        body: frame.body.to_vec(),
                    }),
                );
                at = chunk.next();
            }
            Err(ReadError::Damaged(found)) => {
                damage.push(found);
                at = found.to;
            }
            Err(other) => panic!("{other}"),
        }
    }
    (known, damage)
}

#[test]
fn rot_of_acknowledged_frames_is_reported_and_never_served() {
    let (mut refused, mut torn, mut met_later) = (0, 0, 0);
    for seed in 0..1500 {
        let made = make(seed);
        let mut random = Random::new(!seed);
        let victim = &made.known[random.below(made.known.len() as u64) as usize];
        let layout = Layout::new(16 * 1024).unwrap();
        let within = random.below(HEADER_BYTES + victim.body.len() as u64);
        let base = layout.base(victim.offset);
        let position = victim.offset.0 - base.0 + within;
        assert!(made.disk.rot(&Layout::name(base), position, random.draw() as u8));
        let unseen = LOCAL.contains(&within);

        let before = made.disk.copy();
        let opened = Log::open(Arc::new(made.disk.clone()), SHARD);
        let served = match &opened {
            Ok((log, _)) => read_all(&log.reader()),
            Err(OpenError::Damaged { damage, more: false }) => {
                refused += 1;
                assert!(damage.iter().any(|place| place.from == victim.offset));
                assert_eq!(before.files(), made.disk.files(), "nothing was changed");
                let survey = Survey::new(Arc::new(made.disk.clone()), Depth::Tail).unwrap();
                read_all(&survey.reader())
            }
            Err(other) => panic!("seed {seed}: {other}"),
        };
        let (known, damage) = served;
        assert!(known.iter().all(|known| made.known.contains(known)), "seed {seed}: wrong bytes");
        if unseen {
            assert_eq!(known, made.known);
            continue;
        }
        let lost = known.len() < made.known.len();
        assert!(lost, "seed {seed}: a rotten frame was served");
        let sealed = layout.end(victim.offset) < made.end;
        if victim.offset < made.last_batch || sealed {
            assert!(damage.iter().any(|place| place.from == victim.offset), "seed {seed}");
            met_later += u64::from(opened.is_ok());
        } else {
            torn += 1;
            let (log, opened) = opened.unwrap();
            assert_eq!(opened.torn.unwrap().from, log.end().offset);
        }
    }
    println!("{refused} refused, {torn} taken for torn, {met_later} met when read");
    assert!(refused > 100 && torn > 10 && met_later > 100);
}

#[test]
fn frames_behind_damage_are_still_there() {
    for seed in 0..300 {
        let made = make(seed);
        let mut random = Random::new(!seed);
        let victim = &made.known[random.below(made.known.len() as u64) as usize];
        if victim.offset >= made.last_batch {
            continue;
        }
        let base = Layout::new(16 * 1024).unwrap().base(victim.offset);
        made.disk.rot(&Layout::name(base), victim.offset.0 - base.0 + random.below(48), 3);
        let survey = Survey::new(Arc::new(made.disk.clone()), Depth::Whole).unwrap();
        assert_eq!(survey.end.offset, made.end);
        let [damage] = survey.damage[..] else { panic!("one place: {:?}", survey.damage) };
        assert_eq!((damage.from, survey.torn), (victim.offset, None));
        let reader = survey.reader();
        for known in made.known.iter().filter(|known| *known != victim) {
            let chunk = reader.frame(known.offset).unwrap();
            assert_eq!(chunk.frames().next().unwrap().body, known.body);
        }
        assert!(matches!(reader.frame(victim.offset), Err(ReadError::Damaged(_))));
        let after = made.known.iter().find(|known| known.offset > victim.offset).unwrap();
        let padding = damage.to == victim_end(victim);
        assert!(damage.to == after.offset || padding, "up to the next good frame");
    }
}

#[test]
fn either_slot_of_the_superblock_is_enough() {
    let made = make(1);
    let (mut log, _) = Log::open(Arc::new(made.disk.clone()), SHARD).unwrap();
    for term in 1..4 {
        log.save(HardState { term: Term(term), vote: NodeId(term) });
        let done = log.next_write().unwrap().run();
        assert_eq!(done.syncs(), 2);
        log.written(done).unwrap();
    }
    let last = HardState { term: Term(3), vote: NodeId(3) };
    let mut random = Random::new(5);
    for _ in 0..200 {
        let disk = made.disk.copy();
        let slot = random.below(2);
        disk.rot("superblock", slot * 4096 + random.below(136), random.draw() as u8);
        for _ in 0..2 {
            let (log, _) = Log::open(Arc::new(disk.clone()), SHARD).unwrap();
            assert_eq!(log.hard_state(), last, "no older vote comes back");
        }
        disk.rot("superblock", (1 - slot) * 4096 + 60, 1);
        let (log, _) = Log::open(Arc::new(disk.clone()), SHARD).unwrap();
        assert_eq!(log.hard_state(), last, "opening made both slots good again");
        disk.rot("superblock", 60, 1);
        disk.rot("superblock", 4096 + 60, 1);
        let error = Log::open(Arc::new(disk), SHARD).err().unwrap();
        assert!(matches!(error, OpenError::Superblock), "{error}");
    }
}

#[test]
fn a_scrub_sees_a_superblock_that_the_next_write_makes_whole() {
    let made = make(1);
    let (mut log, _) = Log::open(Arc::new(made.disk.clone()), SHARD).unwrap();
    let all = |log: &Log| log.reader().scrub(Offset::ZERO).step(u64::MAX).unwrap();
    assert!(!all(&log).is_superblock_bad);
    // What is open remembers: it can mend both.
    for slots in [&[0][..], &[1], &[0, 1]] {
        slots.iter().for_each(|slot| assert!(made.disk.rot("superblock", slot * 4096 + 60, 1)));
        let seen = all(&log);
        assert!(seen.done && seen.is_superblock_bad && seen.damage.is_empty());
        log.save_again();
        let write = log.next_write().expect("the superblock is to be written");
        log.written(write.run()).unwrap();
        assert!(!all(&log).is_superblock_bad, "{slots:?}");
    }
}

/// Fails the second write, and everything behind it.
struct Second(u32);

impl Weather for Second {
    fn ask(&mut self, op: Op, _file: &str) -> Verdict {
        self.0 += u32::from(matches!(op, Op::Write(_)));
        if self.0 < 2 { Verdict::Go } else { Verdict::Fail(std::io::ErrorKind::Other) }
    }
}

#[test]
fn a_bad_slot_is_written_first() {
    for slot in [0, 1] {
        let disk = make(1).disk;
        let (mut log, _) = Log::open(Arc::new(disk.clone()), SHARD).unwrap();
        assert!(disk.rot("superblock", slot * 4096 + 60, 1));
        log.save(HardState { term: Term(9), vote: NodeId(1) });
        disk.set_weather(Some(Box::new(Second(0))));
        let done = log.next_write().unwrap().run();
        log.written(done).unwrap_err();
        disk.set_weather(None);
        let (log, _) = Log::open(Arc::new(disk.crash(slot)), SHARD).unwrap();
        assert_eq!(log.hard_state().term, Term(9), "slot {slot}");
    }
}

#[test]
fn a_rotten_footer_is_made_again() {
    let made = make(3);
    let sealed: Vec<String> = made.disk.files().into_iter().map(|(name, _)| name).collect();
    let disk = made.disk.copy();
    assert!(disk.rot(&sealed[0], 16 * 1024 + 70, 1));
    let (log, opened) = Log::open(Arc::new(disk.clone()), SHARD).unwrap();
    assert!(opened.scanned_bytes > 16 * 1024, "the segment was walked");
    assert_eq!(read_all(&log.reader()), (made.known.clone(), vec![]));
    assert_eq!(log.reader().find(Index(1)).unwrap(), Offset::FIRST);
    let (_, opened) = Log::open(Arc::new(disk), SHARD).unwrap();
    assert!(opened.scanned_bytes <= 32 * 1024, "now its footer is believed again");
}

#[test]
fn a_segment_that_is_gone_is_damage() {
    let made = make_batches(3, 60);
    let names: Vec<String> = made.disk.files().into_iter().map(|(name, _)| name).collect();
    assert!(names.len() > 3, "some segments: {names:?}");
    for name in &names[..names.len() - 2] {
        let disk = made.disk.copy();
        naust_log::Disk::remove(&disk, name).unwrap();
        let error = Log::open(Arc::new(disk), SHARD).err().unwrap();
        assert!(matches!(error, OpenError::Damaged { .. }), "{name}: {error}");
    }
}

#[test]
fn what_is_no_log_of_ours_is_said() {
    let empty = Arc::new(SimDisk::new());
    assert!(matches!(Log::open(empty, SHARD), Err(OpenError::Missing)));
    let made = make(1);
    let foreign = Log::open(Arc::new(made.disk.clone()), ShardId(2)).err().unwrap();
    assert_eq!(foreign.to_string(), "the log belongs to shard 1, not 2");
    let identity = Identity { node: NodeId(1), shard: SHARD, cluster: 1 };
    let taken = Log::create(&made.disk, identity, b"").err().unwrap();
    assert_eq!(taken.kind(), std::io::ErrorKind::AlreadyExists);
    let file = naust_log::Disk::open(&made.disk, "superblock", naust_log::Open::Existing).unwrap();
    let mut slot = vec![0; 4096];
    file.read_at(0, &mut slot).unwrap();
    slot[8] = 9;
    let bytes = u32::from_le_bytes(slot[12..16].try_into().unwrap()) as usize;
    let crc = naust_wire::packet::crc32c(&[&slot[..16], &slot[20..bytes]]);
    slot[16..20].copy_from_slice(&crc.to_le_bytes());
    file.write_at(4096, &[&slot]).unwrap();
    let newer = Log::open(Arc::new(made.disk), SHARD).err().unwrap();
    assert_eq!(newer.to_string(), "the log has format 9; this release knows format 1");
}

#[test]
fn a_file_that_lost_its_end_is_damage() {
    let made = make_batches(3, 60);
    let name = Layout::name(Offset::FIRST);
    let file = naust_log::Disk::open(&made.disk, &name, naust_log::Open::Existing).unwrap();
    let (log, _) = Log::open(Arc::new(made.disk.clone()), SHARD).unwrap();
    let (first, second) = (&made.known[0], &made.known[1]);
    file.set_len(second.offset.0 - Offset::FIRST.0).unwrap();
    let reader = log.reader();
    assert!(reader.frame(first.offset).is_ok());
    assert!(matches!(reader.frame(second.offset), Err(ReadError::Damaged(_))));
    assert!(matches!(reader.record(second.offset.plus(60), 1), Err(ReadError::Damaged(_))));
    assert!(matches!(reader.find(Index(2)), Err(ReadError::Damaged(_))));
    let error = Log::open(Arc::new(made.disk.clone()), SHARD).err().unwrap();
    assert!(matches!(error, OpenError::Damaged { .. }), "its footer is gone, so it was walked");
    let survey = Survey::new(Arc::new(made.disk), Depth::Whole).unwrap();
    assert_eq!(survey.damage[0].from, second.offset);
}
