//! The file of a journal while it is open: where the next record goes, and which segments are yet
//! to be synced.

use super::record::{self, Header, Part, SECTOR_BYTES, Stamp};
use super::{NAME, NAME_NEW};
use crate::Fault;
use crate::disk::{Disk, File, Open};
use crate::layout::Layout;
use crate::write::zero;
use naust_wire::planted::{self, Bug};
use naust_wire::{Offset, ShardId};
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

/// Bytes between two syncs while the file is made: other writes wait for no more of them.
const SLICE_BYTES: u64 = 1024 * 1024;
/// From a sector to the next one.
static ZEROS: [u8; SECTOR_BYTES] = [0; SECTOR_BYTES];

/// The open file.
pub(super) struct Redo {
    file: Arc<dyn File>,
    id: u64,
    half_bytes: u64,
    halves: [Half; 2],
    active: usize,
    /// Where in the active half the next record begins.
    at: u64,
    /// Its number.
    sequence: u64,
    /// The memory of the head of a record.
    head: Vec<u8>,
}

struct Half {
    generation: u64,
    /// There may be records in it that count.
    is_used: bool,
    /// The segments that they went to, but for those of logs that were settled since.
    dirty: BTreeMap<(ShardId, Offset), Arc<dyn File>>,
}

/// A segment that is yet to be synced.
pub(super) struct Dirty {
    base: Offset,
    file: Arc<dyn File>,
}

impl Dirty {
    pub(super) fn sync(&self) -> Result<(), Fault> {
        self.file.sync().map_err(Fault::at("sync", &Layout::name(self.base)))
    }
}

impl Half {
    fn of_shard(&self, shard: ShardId) -> impl Iterator<Item = Dirty> {
        let keys = (shard, Offset::ZERO)..=(shard, Offset::MAX);
        let dirty = self.dirty.range(keys);
        dirty.map(|((_, base), file)| Dirty { base: *base, file: Arc::clone(file) })
    }

    fn all(&self) -> Vec<Dirty> {
        let dirty = self.dirty.iter();
        dirty.map(|((_, base), file)| Dirty { base: *base, file: Arc::clone(file) }).collect()
    }
}

impl Redo {
    /// Makes the file, durably.
    pub(super) fn make(disk: &dyn Disk, half_bytes: u64, id: u64) -> Result<Redo, Fault> {
        let file = disk.open(NAME_NEW, Open::Create).map_err(Fault::at("open", NAME_NEW))?;
        file.set_len(0).map_err(Fault::at("empty", NAME_NEW))?;
        let bytes = 2 * half_bytes;
        let mut at = 0;
        while at < bytes {
            let next = (at + SLICE_BYTES).min(bytes);
            zero(&*file, at, next).map_err(Fault::at("extend", NAME_NEW))?;
            file.sync().map_err(Fault::at("sync", NAME_NEW))?;
            at = next;
        }
        let halves =
            [1, 2].map(|generation| Half { generation, is_used: false, dirty: BTreeMap::new() });
        for (number, half) in halves.iter().enumerate() {
            let header = Header { id, generation: half.generation, half_bytes };
            file.write_at(number as u64 * half_bytes, &[&header.encode()])
                .map_err(Fault::at("write", NAME_NEW))?;
        }
        file.sync().map_err(Fault::at("sync", NAME_NEW))?;
        disk.rename(NAME_NEW, NAME).map_err(Fault::at("rename", NAME_NEW))?;
        disk.sync().map_err(Fault::at("sync names of", NAME))?;
        let at = SECTOR_BYTES as u64;
        Ok(Redo { file, id, half_bytes, halves, active: 0, at, sequence: 1, head: Vec::new() })
    }

    /// Makes what lies in segments durable, in one record; `false`: there is no room for it now.
    pub(super) fn record(&mut self, parts: &[Part<'_>]) -> Result<bool, Fault> {
        let bytes = record::bytes(parts);
        if !self.fits(bytes) && !self.turn(bytes)? {
            return Ok(false);
        }
        let half = &mut self.halves[self.active];
        half.is_used = true;
        for part in parts {
            let segment = half.dirty.entry((part.shard, part.base));
            segment.or_insert_with(|| Arc::clone(part.file));
        }
        self.append(parts)
    }

    /// Whether records that count may speak of a log.
    pub(super) fn holds(&self, shard: ShardId) -> bool {
        self.halves.iter().any(|half| half.of_shard(shard).next().is_some())
    }

    /// Makes sure that no record counts any more for a log.
    pub(super) fn settle(&mut self, shard: ShardId) -> Result<(), Fault> {
        for half in &self.halves {
            half.of_shard(shard).try_for_each(|dirty| dirty.sync())?;
        }
        let bytes = record::void_bytes();
        if !self.fits(bytes) && !self.turn(bytes)? {
            // Cleaning in the background is too late.
            let (generation, files) = self.unclean().expect("why there is no turn");
            files.iter().try_for_each(Dirty::sync)?;
            self.cleaned(generation)?;
            assert!(self.turn(bytes)?, "a clean half has room");
        }
        self.halves[self.active].is_used = true;
        if !self.append_void(shard)? {
            let full = io::Error::from(io::ErrorKind::StorageFull);
            return Err(Fault::at("write", NAME)(full));
        }
        for half in &mut self.halves {
            half.dirty.retain(|(other, _), _| *other != shard);
        }
        Ok(())
    }

    /// The half that is full and not clean, if there is one: its generation, and what to sync.
    pub(super) fn unclean(&self) -> Option<(u64, Vec<Dirty>)> {
        let other = &self.halves[1 - self.active];
        other.is_used.then(|| (other.generation, other.all()))
    }

    /// All segments that records of this generation went to are synced: it does not count any more.
    pub(super) fn cleaned(&mut self, generation: u64) -> Result<(), Fault> {
        let other = 1 - self.active;
        if self.halves[other].generation != generation {
            return Ok(());
        }
        let half = &mut self.halves[other];
        half.generation += 2;
        let generation = half.generation;
        let header = Header { id: self.id, generation, half_bytes: self.half_bytes };
        self.file
            .write_at(other as u64 * self.half_bytes, &[&header.encode()])
            .map_err(Fault::at("write", NAME))?;
        self.file.sync().map_err(Fault::at("sync", NAME))?;
        let half = &mut self.halves[other];
        half.is_used = false;
        half.dirty.clear();
        Ok(())
    }

    /// Syncs all segments.
    pub(super) fn sync_all(&self) -> Result<(), Fault> {
        self.halves.iter().flat_map(Half::all).try_for_each(|dirty| dirty.sync())
    }

    fn fits(&self, bytes: u64) -> bool {
        self.at + bytes <= self.half_bytes
    }

    /// Goes on in the other half, if that is clean and long enough; says whether it does.
    fn turn(&mut self, bytes: u64) -> Result<bool, Fault> {
        let other = &self.halves[1 - self.active];
        if other.is_used && planted::has(Bug::ReuseBeforeSync) {
            self.cleaned(other.generation)?;
        }
        let other = &self.halves[1 - self.active];
        if other.is_used || SECTOR_BYTES as u64 + bytes > self.half_bytes {
            return Ok(false);
        }
        self.active = 1 - self.active;
        self.at = SECTOR_BYTES as u64;
        Ok(true)
    }

    fn stamp(&self) -> Stamp {
        let generation = self.halves[self.active].generation;
        Stamp { id: self.id, generation, sequence: self.sequence }
    }

    /// `false`: the file system has no space. Nothing counts of the record then: the next one takes
    /// its place and its number.
    fn append(&mut self, parts: &[Part<'_>]) -> Result<bool, Fault> {
        let mut head = std::mem::take(&mut self.head);
        record::encode(self.stamp(), parts, &mut head);
        let bodies = parts.iter().flat_map(Part::slices);
        let mut slices: Vec<&[u8]> = std::iter::once(&head[..]).chain(bodies).collect();
        let done = self.write(&mut slices);
        self.head = head;
        done
    }

    fn append_void(&mut self, shard: ShardId) -> Result<bool, Fault> {
        let mut head = Vec::new();
        record::encode_void(self.stamp(), shard, &mut head);
        self.write(&mut vec![&head])
    }

    fn write(&mut self, slices: &mut Vec<&[u8]>) -> Result<bool, Fault> {
        let bytes: usize = slices.iter().map(|slice| slice.len()).sum();
        let all = bytes.next_multiple_of(SECTOR_BYTES);
        slices.push(&ZEROS[..all - bytes]);
        let position = self.active as u64 * self.half_bytes + self.at;
        match self.file.write_at(position, slices).map_err(Fault::at("write", NAME)) {
            Err(fault) if fault.is_full() => return Ok(false),
            written => written?,
        }
        self.file.sync().map_err(Fault::at("sync", NAME))?;
        self.at += all as u64;
        self.sequence += 1;
        Ok(true)
    }
}
