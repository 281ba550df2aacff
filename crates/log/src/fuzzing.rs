//! Entry points of the fuzz targets: files that were tampered with at will.
//!
//! They live here so that tests exercise them too, without a fuzzer.

use crate::disk::{Disk, Open};
use crate::journal::{Journal, Journaled, NAME, replay};
use crate::layout::{Layout, SEGMENT_BYTES_MIN};
use crate::log::Log;
use crate::recovery::{Depth, OpenError, Survey};
use crate::sim::SimDisk;
use crate::superblock::Identity;
use crate::{ReadError, Reader};
use naust_wire::frame::{Header, Kind};
use naust_wire::{Index, LogTime, NodeId, Offset, ShardId, Term};
use std::sync::Arc;

const SHARD: ShardId = ShardId(1);

/// Any bytes as changes to the files of a log. It may open or not; nothing panics. When it opens,
/// what opening left opens again with the same end and nothing more to mend.
///
/// The first byte chooses between changing some bytes (in steps of eight: file, kind of change,
/// two bytes of position, four of content) and replacing the content of a file from its beginning.
///
/// # Panics
/// When that does not hold.
pub fn recovery(bytes: &[u8]) {
    let Some((choice, rest)) = bytes.split_first() else { return };
    let disk = made();
    if choice % 2 == 0 {
        rest.chunks_exact(8).for_each(|change| tamper(&disk, change));
    } else {
        let names = disk.files();
        let (name, length) = &names[usize::from(choice / 2) % names.len()];
        let file = disk.open(name, Open::Existing).expect("just listed");
        let zeros = vec![0; usize::try_from(*length).expect("small")];
        file.write_at(0, &[&zeros]).and_then(|()| file.write_at(0, &[rest])).expect("in memory");
    }
    match Survey::new(Arc::new(disk.clone()), Depth::Whole) {
        Ok(survey) => {
            walk(&survey.reader());
        }
        Err(OpenError::Damaged { .. }) => panic!("a survey tells damage, it does not stop at it"),
        Err(_) => {}
    }
    let Ok((log, _)) = Log::open(Arc::new(disk.clone()), SHARD) else { return };
    let read = walk(&log.reader());
    let end = log.end();
    let (log, again) = Log::open(Arc::new(disk), SHARD).expect("what opened opens again");
    assert_eq!((log.end(), again.torn), (end, None), "opening mended all there was to mend");
    assert_eq!(walk(&log.reader()), read, "and what can be read is the same");
}

/// Any bytes as changes to the file of a journal that a power cut left, or in its place. It is
/// replayed or refused, whole; nothing panics, and no other bytes come into the log.
///
/// The first byte chooses as in [`recovery`].
///
/// # Panics
/// When that does not hold.
pub fn journal(bytes: &[u8]) {
    let Some((choice, rest)) = bytes.split_first() else { return };
    let (disk, log) = (SimDisk::new(), made());
    record(&disk, &log);
    let known = walk(&Log::open(Arc::new(log.copy()), SHARD).expect("it is good").0.reader());
    let file = disk.open(NAME, Open::Existing).expect("it was made");
    if choice % 2 == 0 {
        rest.chunks_exact(8).for_each(|change| tamper(&disk, change));
    } else {
        file.set_len(0).and_then(|()| file.write_at(0, &[rest])).expect("in memory");
    }
    let before = (contents(&disk), contents(&log));
    let logs = |shard| Ok((shard == SHARD).then(|| Arc::new(log.clone()) as Arc<dyn Disk>));
    match replay::run(&disk, &logs) {
        Ok(replayed) => {
            let is_changed = choice % 2 != 0 || rest.len() >= 8;
            assert!(is_changed || replayed.records > 2, "{replayed:?}");
            assert_eq!(disk.files(), [], "a journal that was replayed is gone");
        }
        Err(_) => assert_eq!((contents(&disk), contents(&log)), before, "nothing was changed"),
    }
    let (log, _) = Log::open(Arc::new(log), SHARD).expect("it is as good as it was");
    assert_eq!(walk(&log.reader()), known, "and as long");
}

/// Has some small writes of a log go through a journal, in both halves.
fn record(disk: &SimDisk, log: &SimDisk) {
    let journal = Journal::new(Arc::new(disk.clone()), 4096, 7);
    let under = Journaled::new(Arc::new(log.clone()), Arc::clone(&journal), SHARD);
    let under = Arc::new(under.expect("the disk never fails"));
    let (mut log, _) = Log::open(under, SHARD).expect("just made");
    for index in 41..=60u64 {
        let body = vec![index as u8; (index * 97 % 700) as usize];
        if let Some(extend) = log.extend() {
            log.extended(extend.run()).expect("the disk never fails");
        }
        log.stage(Kind::Commit, Term(index / 9), Index(index), LogTime(index), &body);
        let write = log.next_write().expect("a frame was staged");
        let written = journal.commit(vec![write]).pop().expect("one for each");
        log.written(written).expect("the disk never fails");
        if let Some(chore) = journal.chore() {
            chore.run().expect("the disk never fails");
        }
    }
}

/// The bytes of all files, by name.
fn contents(disk: &SimDisk) -> Vec<(String, Vec<u8>)> {
    let read = |(name, length): (String, u64)| {
        let file = disk.open(&name, Open::Existing).expect("just listed");
        let mut bytes = vec![0; usize::try_from(length).expect("small")];
        file.read_at(0, &mut bytes).expect("in memory");
        (name, bytes)
    };
    disk.files().into_iter().map(read).collect()
}

/// Frames of a peer that says what it likes, with right checksums. Staging and mending take them or
/// refuse them; nothing panics, and what was in the log stays.
///
/// In steps of eight: which frame, which field is changed, and how.
///
/// # Panics
/// When that does not hold.
pub fn foreign_frames(bytes: &[u8]) {
    let disk = made();
    let (mut log, _) = Log::open(Arc::new(disk), SHARD).expect("just made");
    let known = walk(&log.reader());
    let mut frames = Vec::new();
    for change in bytes.chunks_exact(8) {
        foreign(&log, change, &mut frames);
    }
    let reader = log.reader();
    for at in [Offset::FIRST, reader.find(Index(20)).expect("it is there")] {
        let _ = reader.mend(at, frames.clone()).run();
        assert_eq!(walk(&reader), known, "what was good stays good");
    }
    let _ = log.stage_frames(&frames);
    let done = log.next_write().map(crate::Write::run);
    done.map_or(Ok(()), |done| log.written(done)).expect("the disk never fails");
    assert!(walk(&log.reader()).starts_with(&known), "what was there is there");
}

/// A frame of the log, or the one behind it, with one field changed.
fn foreign(log: &Log, change: &[u8], out: &mut Vec<u8>) {
    let index = Index(1 + u64::from(change[0]) % 41);
    let end = log.end();
    let found = log.reader().find(index).and_then(|offset| log.reader().frame(offset));
    let (mut header, body) = match &found {
        Ok(chunk) => {
            let frame = chunk.frames().next().expect("one frame");
            (frame.header, frame.body.to_vec())
        }
        Err(_) => {
            let header = Header {
                kind: Kind::Commit,
                body_bytes: 3,
                crc_before: end.crc,
                term: end.term,
                index: end.index.next(),
                offset: end.offset,
                time: LogTime(1),
                synced: Offset::ZERO,
            };
            (header, vec![1, 2, 3])
        }
    };
    let number = u64::from(u32::from_le_bytes([change[2], change[3], change[4], change[5]]));
    match change[1] % 8 {
        0 => header.crc_before ^= change[2] as u32,
        1 => header.term = Term(header.term.0 ^ number),
        2 => header.index = Index(header.index.0 ^ number),
        3 => header.offset = Offset(header.offset.0 ^ (number * 8)),
        4 => header.kind = Kind::from_number(1 + change[2] % 5).expect("one of five"),
        5 => header.offset = Offset(u64::from_le_bytes(change.try_into().expect("eight"))),
        _ => {}
    }
    header.write(&body, out);
}

/// A log of three segments: the last one growing.
fn made() -> SimDisk {
    let disk = SimDisk::new();
    let identity = Identity { node: NodeId(1), shard: SHARD, cluster: 1 };
    let layout = Layout::new(SEGMENT_BYTES_MIN).expect("the least is legal");
    Log::create_with(&disk, identity, b"", layout).expect("an empty disk takes a log");
    let (mut log, _) = Log::open(Arc::new(disk.clone()), SHARD).expect("just made");
    for index in 1..=40u64 {
        let body = vec![index as u8; (index * 97 % 2000) as usize];
        log.stage(Kind::Commit, Term(index / 9), Index(index), LogTime(index), &body);
        if index % 3 == 1 {
            let done = log.next_write().expect("a frame was staged").run();
            log.written(done).expect("the disk never fails");
        }
    }
    disk
}

fn tamper(disk: &SimDisk, change: &[u8]) {
    let names = disk.files();
    let Some((name, length)) = names.get(usize::from(change[0]) % names.len().max(1)) else {
        return;
    };
    let position = u64::from(u16::from_le_bytes([change[2], change[3]])) % length.max(&1);
    let file = disk.open(name, Open::Existing).expect("just listed");
    let done = match change[1] % 6 {
        0 | 1 => file.write_at(position, &[&change[4..8]]),
        2 => file.set_len(position),
        3 => file.write_at(position, &[&vec![change[4]; usize::from(change[5]) * 8]]),
        4 => disk.remove(name),
        _ => {
            disk.rot(name, position, change[4]);
            Ok(())
        }
    };
    done.expect("a disk in memory");
}

/// Reads all that can be read; returns the indexes and lengths of the frames.
fn walk(reader: &Reader) -> Vec<(Index, usize)> {
    let mut frames = Vec::new();
    let mut at = Offset::ZERO;
    while at < reader.end() {
        let next = match reader.frames(at, Offset::MAX, 4096) {
            Ok(chunk) => {
                frames.extend(chunk.frames().map(|frame| (frame.header.index, frame.body.len())));
                chunk.next()
            }
            Err(ReadError::Damaged(damage)) => damage.to,
            Err(ReadError::Trimmed { next: Some(next) }) => next,
            Err(_) => break,
        };
        if next <= at {
            break;
        }
        at = next;
    }
    for index in [1, 20, 40] {
        let _ = reader.position(Index(index));
        let _ = reader.record(Offset::FIRST.plus(index * 1000), 3);
    }
    frames
}
