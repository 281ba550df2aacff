//! Disks that lose what they were given, long after they said that it was safe: bits that flip,
//! blocks that were meant for another place, and blocks that never arrived.
//!
//! In a log only what a later frame says was synced is touched: damage of the very last batch can't
//! be told from a tear by one disk.

use super::World;
use crate::plan::Mode;
use crate::sabotage::Sabotage;
use naust_wire::{Offset, ShardId};

/// What a drive writes at once, in bytes.
const BLOCK_BYTES: u64 = 512;

impl World {
    /// Something of what a node has rots.
    pub(super) fn rot(&mut self, node: usize) {
        let quietly = self.sabotage == Some(Sabotage::RotQuietly);
        if self.plan.mode == Mode::Promised && !quietly {
            return;
        }
        let kinds = if self.members.len() == 1 { 6 } else { 24 };
        match self.misfortune.below(kinds) {
            0 if !quietly => return self.rot_superblock(node),
            1 if !quietly => return self.rot_tables(node),
            _ => {}
        }
        let shards: Vec<ShardId> = self.members[node].disks.keys().copied().collect();
        let Some(shard) = shards.get(self.misfortune.below(shards.len() as u64) as usize).copied()
        else {
            return;
        };
        let Some(first) = self.shards[&shard].chronicle.first() else { return };
        let synced = self.synced_at(node, shard);
        if synced <= first {
            return;
        }
        match self.misfortune.below(4) {
            0 if !quietly => self.rot_block(node, shard, (first, synced)),
            _ => self.rot_bit(node, shard, (first, synced), quietly),
        }
    }

    /// Up to where a log is synced, as one of its own durable frames says.
    fn synced_at(&self, node: usize, shard: ShardId) -> Offset {
        let (member, known) = (&self.members[node], &self.shards[&shard].chronicle);
        if self.members.len() == 1 {
            return known.last().map_or(Offset::ZERO, |last| last.header.synced);
        }
        // What a replica gave to its views is on its disk.
        let handed = member.handed.get(&shard).copied().unwrap_or(Offset::ZERO);
        let readers = member.process.as_ref().and_then(|process| process.readers.get(&shard));
        let last = known.before(handed).map(|last| last.header.offset);
        let frame = readers.zip(last).and_then(|(readers, at)| readers.log.frame(at).ok());
        let mark = frame.and_then(|chunk| chunk.frames().next().map(|frame| frame.header.synced));
        mark.unwrap_or(Offset::ZERO)
    }

    fn rot_bit(
        &mut self,
        node: usize,
        shard: ShardId,
        (first, synced): (Offset, Offset),
        quietly: bool,
    ) {
        let offset = Offset(self.misfortune.between(first.0, synced.0 - 1));
        let (name, position) = self.place(offset);
        let bit = self.misfortune.below(8) as u8;
        if self.members[node].disks[&shard].rot(&name, position, bit) {
            let now = self.schedule.now();
            let what = format!("bit {bit} at {offset} of shard {shard} of node {node} rots");
            self.trace.note(now, format_args!("{what}"));
            self.tally.fault("rotten bit");
            self.excuses.damage = !quietly;
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
            let now = self.schedule.now();
            let bytes = block.len();
            self.trace.note(
                now,
                format_args!("{bytes} bytes at {offset} of shard {shard} of node {node}: {kind}"),
            );
            self.tally.fault(kind);
            self.excuses.damage = true;
        }
    }

    fn place(&self, offset: Offset) -> (String, u64) {
        let base = offset.0 - offset.0 % self.plan.segment_bytes;
        (format!("{base:016x}.log"), offset.0 - base)
    }

    /// The tables of a namespace rot. Without those of the directory no node runs.
    fn rot_tables(&mut self, node: usize) {
        let shards = self.members[node].tables.keys().copied();
        let shards: Vec<ShardId> = shards.filter(|shard| *shard != ShardId::DIRECTORY).collect();
        if shards.is_empty() {
            return;
        }
        let shard = *self.misfortune.pick(&shards);
        let now = self.schedule.now();
        self.trace.note(now, format_args!("the tables of shard {shard} rot"));
        self.tally.fault("rotten tables");
        self.excuses.damage = true;
        self.members[node].tables[&shard].spoil();
    }

    /// A bit of a file that is no segment rots. One slot of a superblock is enough, but not beside
    /// a torn write of the other.
    fn rot_superblock(&mut self, node: usize) {
        let others = self.members[node].disks.iter().flat_map(|(shard, disk)| {
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
            let now = self.schedule.now();
            self.trace.note(now, format_args!("bit {bit} at {position} of {name} of {shard} rots"));
            self.tally.fault("rotten bit of a superblock");
            self.excuses.damage = true;
        }
    }
}
