//! Damage that the promises cover: of one replica at a time, and of the next only when that one is
//! whole again. All that was acknowledged is on the others, so it has to be mended.

use super::World;
use crate::schedule::Moment;
use naust_log::sim::SimDisk;
use naust_log::{Damage, Depth, ReadError, Reader, Survey};
use naust_wire::{NodeId, Offset, ShardId};
use std::sync::Arc;

/// Microseconds between two looks at what is not whole yet.
const LOOK_MICROS: u64 = 500_000;

/// What of a replica is damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hurt {
    /// Its log, from here on.
    Log(Offset),
    /// A segment that is gone with its name: one that began here.
    Lost(Offset),
    /// A slot of its superblock.
    Superblock,
    /// Its tables.
    Tables,
}

/// Damage that was done and is not mended yet.
#[derive(Clone, Copy, Debug)]
pub struct Wound {
    slot: usize,
    node: NodeId,
    shard: ShardId,
    hurt: Hurt,
    since: Moment,
}

impl World {
    /// Whether the promises cover the damage of one more replica now.
    pub(super) fn bears_damage(&mut self) -> bool {
        let is_whole = self.wounds.is_empty() && self.doubtful_mends.is_empty();
        self.members.len() > 1 && is_whole && self.is_short_of().is_none()
    }

    /// A disk failed while a place was mended. Read again the place looks whole, and the next power
    /// cut brings back what rotted.
    pub(super) fn doubt_mend(&mut self, slot: usize, shard: ShardId, at: Offset) {
        self.doubtful_mends.push((slot, shard, at));
    }

    /// A node lost its power.
    pub(super) fn relapse(&mut self, slot: usize) {
        let (lost, kept) = std::mem::take(&mut self.doubtful_mends)
            .into_iter()
            .partition(|(other, _, _)| *other == slot);
        self.doubtful_mends = kept;
        let lost: Vec<(usize, ShardId, Offset)> = lost;
        for (slot, shard, at) in lost {
            self.wound(slot, shard, Hurt::Log(at));
        }
    }

    /// A replica was damaged.
    pub(super) fn wound(&mut self, slot: usize, shard: ShardId, hurt: Hurt) {
        self.excuses.mendable = true;
        let (node, since) = (self.members[slot].id, self.schedule.now());
        self.wounds.push(Wound { slot, node, shard, hurt, since });
        self.looked_at_wounds = since;
    }

    /// What damage is not mended yet, in a few words.
    pub(super) fn is_wounded(&self) -> Option<String> {
        self.wounds.first().map(|wound| format!("damage is not mended: {wound:?}"))
    }

    /// Forgets what is whole again.
    pub(super) fn look_at_wounds(&mut self) {
        let now = self.schedule.now();
        if self.wounds.is_empty() || now < self.looked_at_wounds.after(LOOK_MICROS) {
            return;
        }
        self.looked_at_wounds = now;
        let wounds = std::mem::take(&mut self.wounds);
        for wound in wounds {
            if !self.is_whole(&wound) {
                self.wounds.push(wound);
                continue;
            }
            self.tally.mark("damage that was mended");
            self.scars.insert((wound.slot, wound.shard));
            let took = now.0 - wound.since.0;
            self.tally.mending_micros = self.tally.mending_micros.max(took);
            self.trace.note(now, format_args!("whole again: {wound:?}"));
        }
    }

    /// Whether another replica has a frame that is damaged here.
    fn is_elsewhere(&self, wound: &Wound, here: &Reader, damage: &Damage) -> bool {
        let mut at = damage.from;
        while let Some((from, next)) = self.elsewhere(wound.slot, wound.shard, at, damage.to) {
            if here.frame(from).is_err() {
                return true;
            }
            at = next;
        }
        false
    }

    /// The next frame between two offsets that is on the disk of another replica: where it begins,
    /// and where to look on.
    fn elsewhere(
        &self,
        slot: usize,
        shard: ShardId,
        from: Offset,
        to: Offset,
    ) -> Option<(Offset, Offset)> {
        let others = self.members.iter().enumerate().filter(|(other, _)| *other != slot);
        let disks = others.filter_map(|(_, member)| member.disks.get(&shard));
        let next = |disk: &SimDisk| {
            let survey = Survey::new(Arc::new(disk.copy()), Depth::Tail).ok()?;
            next_frame(&survey.reader(), from, to)
        };
        disks.filter_map(next).min()
    }

    /// Where a log goes on behind damage that nobody is there to mend, since all others have let go
    /// of what was there: nothing needs it.
    pub(super) fn behind_scar(
        &self,
        slot: usize,
        shard: ShardId,
        damage: &Damage,
    ) -> Option<Offset> {
        let is_scarred = self.scars.contains(&(slot, shard));
        let next = || self.elsewhere(slot, shard, damage.from, damage.to);
        let to = is_scarred.then(|| next().map_or(damage.to, |(from, _)| from))?;
        (to > damage.from).then_some(to)
    }

    /// Whether a replica's views know of records that live in a part of its log.
    fn lives(&self, wound: &Wound, range: std::ops::Range<Offset>) -> bool {
        let process = self.members[wound.slot].process.as_ref();
        let live = process.and_then(|process| process.views.live_in(wound.shard, range));
        live.is_none_or(|live| live.map_or(true, |live| !live.is_empty()))
    }

    fn has_what_others_have(&self, wound: &Wound, disk: &SimDisk) -> bool {
        Survey::new(Arc::new(disk.copy()), Depth::Whole).is_ok_and(|survey| {
            let here = survey.reader();
            !survey.damage.iter().any(|damage| self.is_elsewhere(wound, &here, damage))
        })
    }

    fn is_whole(&self, wound: &Wound) -> bool {
        let member = &self.members[wound.slot];
        let Some(disk) = member.disks.get(&wound.shard).filter(|_| member.id == wound.node) else {
            return true; // It went with its node, or with its namespace.
        };
        if self.look(wound.slot, wound.shard).is_none() {
            return false;
        }
        match wound.hurt {
            Hurt::Tables => !member.tables[&wound.shard].is_spoilt(),
            // What nobody else has any more is needed by nothing, and goes when it is trimmed.
            Hurt::Log(_) => self.has_what_others_have(wound, disk),
            // Whether it may be gone, its own views know.
            Hurt::Lost(base) => {
                let name = format!("{:016x}.log", base.0);
                let is_there = disk.files().iter().any(|(other, _)| *other == name);
                let range = base..Offset(base.0 + self.plan.segment_bytes);
                (is_there && self.has_what_others_have(wound, disk)) || !self.lives(wound, range)
            }
            Hurt::Superblock => Survey::new(Arc::new(disk.copy()), Depth::Tail)
                .is_ok_and(|survey| !survey.has_half_a_superblock()),
        }
    }
}

/// The next frame between two offsets: where it begins, and where to read on.
fn next_frame(log: &Reader, mut at: Offset, to: Offset) -> Option<(Offset, Offset)> {
    loop {
        match log.frames(at, to, 1) {
            Ok(frame) if frame.bytes().is_empty() => return None,
            Ok(frame) => return Some((frame.from(), frame.next())),
            Err(ReadError::Trimmed { next: Some(next) }) if at < next && next < to => at = next,
            Err(_) => return None,
        }
    }
}
