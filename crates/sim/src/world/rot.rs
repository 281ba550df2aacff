//! Disks that lose what they were given, long after they said that it was safe: bits that flip,
//! blocks that were meant for another place, blocks that never arrived, files that are gone or cut
//! short, tables that can't be read any more.
//!
//! In a log only what a later frame says was synced is touched: damage of the very last batch can't
//! be told from a tear by one disk. A node alone meets damage only beyond the promises. In a
//! cluster a minority may be damaged, which the others mend: see [`super::wounds`].

use super::faults::Fault;
use super::wounds::Hurt;
use super::{Happening, World};
use crate::plan::Mode;
use crate::sabotage::Sabotage;
use naust_log::sim::SimDisk;
use naust_log::{Depth, Disk, Open, Survey};
use naust_wire::{Offset, ShardId};
use std::sync::Arc;

/// What a drive writes at once, in bytes.
const BLOCK_BYTES: u64 = 512;
/// What it gives out at once, or does not.
const REFUSED_BYTES: u64 = 4096;

impl World {
    /// Something of what a node has rots.
    pub(super) fn rot(&mut self, node: usize) {
        let quietly = self.sabotage == Some(Sabotage::RotQuietly);
        let is_mendable = self.plan.mode == Mode::Promised && !quietly;
        if is_mendable && !self.bears_damage() {
            return;
        }
        let kinds = match (is_mendable, self.members.len()) {
            (true, _) => 16,
            (false, 1) => 6,
            (false, _) => 24,
        };
        match self.misfortune.below(kinds) {
            0 if !quietly => return self.rot_superblock(node),
            1 if !quietly => return self.rot_tables(node),
            2 if is_mendable => return self.lose_tables(node),
            3 if is_mendable => return self.spoil_segment(node, true),
            4 if is_mendable => return self.spoil_segment(node, false),
            5 if is_mendable => return self.rot_footer(node),
            _ => {}
        }
        let Some(shard) = self.some_shard(node) else { return };
        let Some(first) = self.shards[&shard].chronicle.first() else { return };
        let synced = self.synced_at(node, shard);
        if synced <= first {
            return;
        }
        match self.misfortune.below(4) {
            0 if !quietly => self.rot_block(node, shard, (first, synced)),
            _ => self.rot_bit(node, shard, (first, synced)),
        }
        // Damage that waits for the next start is met by whoever opens the log.
        if is_mendable && self.misfortune.below(4) == 0 {
            self.kill(node);
        }
    }

    fn some_shard(&mut self, node: usize) -> Option<ShardId> {
        let shards = self.members[node].disks.keys().copied();
        let shards: Vec<ShardId> = shards.filter(|shard| self.may_rot(node, *shard)).collect();
        (!shards.is_empty()).then(|| *self.misfortune.pick(&shards))
    }

    /// Within the promises only what is there is damaged: a replica of a shard that is open.
    fn may_rot(&self, node: usize, shard: ShardId) -> bool {
        let is_mendable = self.plan.mode == Mode::Promised && self.members.len() > 1;
        !is_mendable || self.look(node, shard).is_some()
    }

    /// Damage was done.
    fn spoilt(&mut self, kind: &'static str, (node, shard): (usize, ShardId), hurt: Hurt) {
        let now = self.schedule.now();
        self.trace.note(now, format_args!("{kind}: shard {shard} of node {node}, {hurt:?}"));
        self.tally.fault(kind);
        if self.sabotage == Some(Sabotage::RotQuietly) {
            return;
        }
        self.excuses.footers = true;
        match self.plan.mode {
            Mode::Promised => self.wound(node, shard, hurt),
            Mode::Beyond => self.excuses.damage = true,
        }
    }

    /// Up to where a log is synced, as one of its own durable frames says.
    fn synced_at(&self, node: usize, shard: ShardId) -> Offset {
        let (member, known) = (&self.members[node], &self.shards[&shard].chronicle);
        if self.members.len() == 1 {
            // A frame that a power cut takes says nothing any more.
            let durable = match self.shards[&shard].may_lose() {
                true => self.durable_at(node, shard),
                false => Offset::MAX,
            };
            return known.before(durable).map_or(Offset::ZERO, |last| last.header.synced);
        }
        // What a replica gave to its views is on its disk.
        let handed = member.handed.get(&shard).copied().unwrap_or(Offset::ZERO);
        let readers = member.process.as_ref().and_then(|process| process.readers.get(&shard));
        let last = known.before(handed).map(|last| last.header.offset);
        let frame = readers.zip(last).and_then(|(readers, at)| readers.log.frame(at).ok());
        let mark = frame.and_then(|chunk| chunk.frames().next().map(|frame| frame.header.synced));
        mark.unwrap_or(Offset::ZERO)
    }

    /// Up to where a log that is open is durable.
    fn durable_at(&self, node: usize, shard: ShardId) -> Offset {
        let process = self.members[node].process.as_ref();
        let readers = process.and_then(|process| process.readers.get(&shard));
        readers.map_or(Offset::ZERO, |readers| readers.log.durable())
    }

    fn rot_bit(&mut self, node: usize, shard: ShardId, (first, synced): (Offset, Offset)) {
        let offset = Offset(self.misfortune.between(first.0, synced.0 - 1));
        let (name, position) = self.place(offset);
        let bit = self.misfortune.below(8) as u8;
        if self.members[node].disks[&shard].rot(&name, position, bit) {
            self.spoilt("rotten bit", (node, shard), Hurt::Log(offset));
        }
    }

    /// A disk refuses for a while to give out a block of a log.
    pub(super) fn refuse_to_read(&mut self, node: usize) {
        if self.plan.mode == Mode::Promised && !self.bears_damage() {
            return;
        }
        let Some(shard) = self.some_shard(node) else { return };
        let Some(first) = self.shards[&shard].chronicle.first() else { return };
        // Nothing more is written into what it lies in.
        let synced = self.synced_at(node, shard).0;
        let synced = synced - synced % REFUSED_BYTES;
        if synced <= first.0 {
            return;
        }
        let offset = Offset(self.misfortune.between(first.0, synced - 1));
        let (name, position) = self.place(offset);
        self.members[node].refuses = true;
        if self.members[node].disks[&shard].refuse(&name, position) {
            self.spoilt("block that can't be read", (node, shard), Hurt::Log(offset));
            let lasts = self.misfortune.skewed(1_000, 10_000_000);
            self.schedule.after(lasts, Happening::Fault(Fault::Relent(node)));
        }
    }

    /// Blocks of a log become those of another place of it, or zeros.
    fn rot_block(&mut self, node: usize, shard: ShardId, (first, synced): (Offset, Offset)) {
        let offset = Offset(self.misfortune.between(first.0, synced.0 - 1));
        let (name, position) = self.place(offset);
        let bytes = BLOCK_BYTES * self.misfortune.skewed(1, 64);
        let end = synced.0 - offset.0 + position;
        let bytes = bytes.min(end.saturating_sub(position)) as usize;
        let disk = self.members[node].disks[&shard].clone();
        let (kind, block) = if self.misfortune.coin() {
            let from = self.misfortune.below(position + 1) / BLOCK_BYTES * BLOCK_BYTES;
            ("blocks of another place", disk.resting(&name, from, bytes))
        } else {
            ("blocks that never arrived", vec![0; bytes])
        };
        let differs = disk.resting(&name, position, block.len()) != block;
        if differs && disk.spoil(&name, position, &block) {
            self.spoilt(kind, (node, shard), Hurt::Log(offset));
        }
    }

    fn place(&self, offset: Offset) -> (String, u64) {
        let base = offset.0 - offset.0 % self.plan.segment_bytes;
        (format!("{base:016x}.log"), offset.0 - base)
    }

    /// A segment of a node's log that is full, and behind which there are durable frames: where it
    /// begins, the name and the length of its file.
    fn sealed_segment(&mut self, node: usize) -> Option<(ShardId, Offset, String, u64)> {
        let shard = self.some_shard(node)?;
        // Whatever an older segment is needed for, only it tells.
        let copy = Arc::new(self.members[node].disks[&shard].copy());
        let first = Survey::new(copy, Depth::Tail).ok()?.start.offset;
        let synced = self.synced_at(node, shard);
        let last = synced.0 - synced.0 % self.plan.segment_bytes;
        let files = self.members[node].disks[&shard].files().into_iter();
        let sealed = files.filter_map(|(name, length)| {
            let base = u64::from_str_radix(name.strip_suffix(".log")?, 16).ok()?;
            (base >= first.0 && base < last).then_some((shard, Offset(base), name, length))
        });
        let sealed: Vec<_> = sealed.collect();
        (!sealed.is_empty()).then(|| self.misfortune.pick(&sealed).clone())
    }

    /// A segment goes, or is cut short, which happens only while the process is away.
    fn spoil_segment(&mut self, node: usize, whole: bool) {
        let Some((shard, base, name, length)) = self.sealed_segment(node) else { return };
        if !whole || self.misfortune.coin() {
            self.kill(node);
        }
        let left = self.misfortune.below(length.max(1));
        let disk = &self.members[node].disks[&shard];
        let (kind, done) = match whole {
            true => ("lost segment", disk.lose(&name)),
            false => ("segment cut short", disk.shorten(&name, left)),
        };
        if done {
            self.spoilt(kind, (node, shard), Hurt::Log(base));
        }
    }

    /// A bit of what a segment that trimming left holes in says about itself, twice; or one of each
    /// time that it says so, which is damage: where frames lie in it, only the views tell then.
    /// Sometimes it is met by whoever opens the log next.
    pub(super) fn rot_old_footer(&mut self, node: usize) {
        let Some(shard) = self.some_shard(node) else { return };
        let footer = self.plan.segment_bytes;
        let disk = self.members[node].disks[&shard].clone();
        let Ok(survey) = Survey::new(Arc::new(disk.copy()), Depth::Tail) else { return };
        let first = survey.start.offset;
        let old = disk.files().into_iter().filter(|(name, length)| {
            let base = name.strip_suffix(".log").and_then(|it| u64::from_str_radix(it, 16).ok());
            base.is_some_and(|base| base + footer <= first.0) && *length > footer
        });
        let old: Vec<(String, u64)> = old.collect();
        if old.is_empty() {
            return;
        }
        let (name, length) = self.misfortune.pick(&old).clone();
        let (position, bit) = (self.misfortune.between(footer, length - 1), 3);
        let is_promised = self.plan.mode == Mode::Promised;
        let used = footer_bytes(&disk, (&name, length), footer);
        if is_promised && used.is_none() {
            return;
        }
        let luck = self.misfortune.below(6);
        // A node alone has nobody to mend what is lost of its segment besides.
        let is_borne = !is_promised || self.bears_damage();
        let both = used.filter(|_| is_borne && luck < 2);
        let base = u64::from_str_radix(name.trim_end_matches(".log"), 16).unwrap_or_default();
        if luck == 2 && is_borne {
            return self.lose_old(node, shard, Offset(base));
        }
        let hurt = Hurt::Log(Offset(base));
        let done = match both {
            Some(used) => {
                let (first, second) = (footer + position % used, length - 1 - position % used);
                let first = disk.rot(&name, first, bit);
                disk.rot(&name, second, bit) && first
            }
            None => disk.rot(&name, position, bit),
        };
        match (done, both, is_promised) {
            (false, ..) => return,
            (true, Some(_), _) => self.spoilt("both old footers rotten", (node, shard), hurt),
            // Nothing is hurt that is to be mended.
            (true, None, true) => {
                self.excuses.footers = true;
                self.tally.fault("rotten bit of an old footer");
            }
            (true, None, false) => {
                self.spoilt("rotten bit of an old footer", (node, shard), hurt);
            }
        }
        if self.misfortune.coin() {
            self.kill(node);
        }
    }

    /// A segment goes of which only what lives was left, with its name. Nobody else tells that it
    /// was there, but the views, who know what lives.
    fn lose_old(&mut self, node: usize, shard: ShardId, base: Offset) {
        if self.misfortune.coin() {
            self.kill(node);
        }
        if self.members[node].disks[&shard].lose(&format!("{:016x}.log", base.0)) {
            self.spoilt("lost old segment", (node, shard), Hurt::Lost(base));
        }
    }

    /// A bit of what a full segment says about itself.
    fn rot_footer(&mut self, node: usize) {
        let Some((shard, base, name, length)) = self.sealed_segment(node) else { return };
        let footer = self.plan.segment_bytes;
        if length <= footer {
            return;
        }
        let (position, bit) = (self.misfortune.between(footer, length - 1), 3);
        if self.members[node].disks[&shard].rot(&name, position, bit) {
            self.spoilt("rotten bit of a footer", (node, shard), Hurt::Log(base));
        }
    }

    /// The tables of a shard rot. Without those of the directory a node alone can't run.
    fn rot_tables(&mut self, node: usize) {
        let Some(shard) = self.some_tables(node) else { return };
        self.members[node].tables[&shard].spoil();
        self.spoilt("rotten tables", (node, shard), Hurt::Tables);
    }

    /// While the process is away, the tables of a shard go.
    fn lose_tables(&mut self, node: usize) {
        let Some(shard) = self.some_tables(node) else { return };
        self.kill(node);
        self.members[node].tables[&shard].lose();
        self.spoilt("lost tables", (node, shard), Hurt::Tables);
    }

    fn some_tables(&mut self, node: usize) -> Option<ShardId> {
        let shards = self.members[node].tables.keys().copied();
        let shards: Vec<ShardId> = match self.plan.mode {
            Mode::Promised => shards.filter(|shard| self.may_rot(node, *shard)).collect(),
            Mode::Beyond => shards.filter(|shard| *shard != ShardId::DIRECTORY).collect(),
        };
        (!shards.is_empty()).then(|| *self.misfortune.pick(&shards))
    }

    /// A bit of a file that is no segment rots: one slot of a superblock is enough.
    fn rot_superblock(&mut self, node: usize) {
        let disks = self.members[node].disks.iter();
        let disks = disks.filter(|(shard, _)| self.may_rot(node, **shard));
        let others = disks.flat_map(|(shard, disk)| {
            let files = disk.files().into_iter().filter(|(name, _)| !name.ends_with(".log"));
            files.map(|(name, length)| (*shard, name, length))
        });
        let others: Vec<(ShardId, String, u64)> = others.collect();
        if others.is_empty() {
            return;
        }
        let (shard, name, length) = self.misfortune.pick(&others).clone();
        let (position, bit) = (self.misfortune.below(length), self.misfortune.below(8) as u8);
        if self.members[node].disks[&shard].rot(&name, position, bit) {
            self.spoilt("rotten bit of a superblock", (node, shard), Hurt::Superblock);
        }
    }
}

/// How long each of the two footers is of a segment that trimming left holes in, if they are the
/// same.
fn footer_bytes(disk: &SimDisk, (name, length): (&str, u64), footer: u64) -> Option<u64> {
    let mut bytes = vec![0; (length - footer) as usize];
    let read = disk.open(name, Open::Existing).and_then(|file| file.read_at(footer, &mut bytes));
    let used = bytes.get(12..16).and_then(|used| used.try_into().ok()).map(u32::from_le_bytes);
    let used = used.map_or(0, |used| used as usize);
    let is_there =
        read.is_ok_and(|read| read == bytes.len()) && used > 0 && 2 * used <= bytes.len();
    (is_there && bytes[..used] == bytes[bytes.len() - used..]).then_some(used as u64)
}
