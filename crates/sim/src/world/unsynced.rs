//! What a power cut may take of a shard that acknowledges before it syncs, and what not.
//!
//! When a process ends, its log's own word is taken down: what it called durable must be there
//! whatever happens, and what it had shown must be there unless the power goes before the log is
//! opened again. That it calls enough durable is looked at when the power goes: what is not must
//! have been shown within the interval, counted back from when the disk was last free to sync it.

use super::World;
use super::member::Process;
use crate::history::Violation;
use crate::schedule::Moment;
use naust_log::Reader;
use naust_wire::options::Durability;
use naust_wire::{Offset, ShardId};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// What a node may add to the interval, in microseconds: its clock has milliseconds, and it acts at
/// the end of a burst of events.
const SLACK_MICROS: u64 = 3_000;

/// What a member's logs held when its last process ended, of shards that may lose something.
#[derive(Default)]
pub struct Remains {
    durable: BTreeMap<ShardId, Offset>,
    /// The power went since.
    powerless: BTreeSet<ShardId>,
}

impl Remains {
    /// Where a log may end at the least, if that is before what was shown.
    fn least(&self, shard: ShardId) -> Option<Offset> {
        self.durable.get(&shard).copied().filter(|_| self.powerless.contains(&shard))
    }

    /// A log was opened: all that it holds is durable.
    pub fn opened(&mut self, shard: ShardId) {
        self.durable.remove(&shard);
        self.powerless.remove(&shard);
    }
}

/// What a process does with logs that may be behind with their syncs.
#[derive(Default)]
pub struct Syncs {
    /// When the write that is under way was given to the disk; whether it has ended.
    writes: BTreeMap<ShardId, (Moment, bool)>,
    /// When the write was given to the disk that had ended at the last flush.
    before: BTreeMap<ShardId, Moment>,
    /// When frames were shown, by where they end.
    shown: BTreeMap<ShardId, VecDeque<(Moment, Offset)>>,
    /// When the node wants to look at its syncs, by its own clock.
    pub due_ms: Option<u64>,
}

impl Syncs {
    /// A write is given to the disk. One that syncs everything, and follows at once on another one,
    /// could not begin before that one had ended.
    pub fn begins(&mut self, shard: ShardId, syncs: bool, now: Moment) {
        let before = self.before.remove(&shard).filter(|_| syncs);
        self.writes.insert(shard, (before.unwrap_or(now), false));
    }

    /// The node hears that it ended; what follows from that comes with its next flush.
    pub fn ended(&mut self, shard: ShardId) {
        if let Some((_, has_ended)) = self.writes.get_mut(&shard) {
            *has_ended = true;
        }
    }

    /// The node does what follows from what it heard.
    pub fn flushes(&mut self) {
        let ended = self.writes.extract_if(.., |_, (_, has_ended)| *has_ended);
        self.before = ended.map(|(shard, (begun, _))| (shard, begun)).collect();
    }

    /// Frames up to here were shown.
    pub fn shows(&mut self, shard: ShardId, end: Offset, durable: Offset, now: Moment) {
        let shown = self.shown.entry(shard).or_default();
        while shown.front().is_some_and(|(_, end)| *end <= durable) {
            shown.pop_front();
        }
        shown.push_back((now, end));
    }

    /// When the first frame was shown that is not durable, if that is longer ago than it may be.
    fn late(&self, shard: ShardId, durable: Offset, ms: u32, now: Moment) -> Option<Moment> {
        let free = self.writes.get(&shard).map_or(now, |(begun, _)| *begun);
        let shown = self.shown.get(&shard)?;
        let (first, _) = shown.iter().find(|(_, end)| *end > durable)?;
        (first.0 + u64::from(ms) * 1000 + SLACK_MICROS < free.0).then_some(*first)
    }
}

impl World {
    /// The process of a node is about to be gone; its disks may have crashed already.
    pub(super) fn note_unsynced(&mut self, node: usize) {
        let Some(process) = &self.members[node].process else { return };
        let logs = process.readers.iter().map(|(id, readers)| (*id, readers.log.durable()));
        let logs: Vec<(ShardId, Offset)> = logs.filter(|(id, _)| self.may_lose(*id)).collect();
        self.members[node].left.durable.extend(logs);
    }

    fn may_lose(&self, id: ShardId) -> bool {
        self.shards.get(&id).is_some_and(|shard| shard.may_lose())
    }

    /// The power of a node goes: what it takes must be young.
    pub(super) fn note_power_cut(&mut self, node: usize) {
        self.note_unsynced(node);
        let (now, is_alone) = (self.schedule.now(), self.members.len() == 1);
        let wanted = self.wanted_shards();
        let member = &mut self.members[node];
        member.left.powerless.extend(member.left.durable.keys());
        let Some(process) = member.process.as_ref().filter(|_| is_alone) else { return };
        // One whose namespace is removed goes as it is.
        let late = |(id, log): (ShardId, &Reader)| {
            if !wanted.contains(&id) {
                return None;
            }
            let Durability::IntervalMs(ms) = self.shards.get(&id)?.options().durability else {
                return None;
            };
            let first = process.syncs.late(id, log.durable(), ms, now)?;
            Some(format!(
                "shard {id}: what was shown at {first} is not synced, though {ms} ms were"
            ))
        };
        let logs = process.readers.iter().map(|(id, readers)| (*id, &readers.log));
        let late: Vec<String> = logs.filter_map(late).collect();
        self.violations.extend(late.into_iter().map(|what| Violation::new("durability", what)));
    }

    /// A log was opened that ends at `end`, and had shown what ends at `shown`. Whether that is all
    /// there must be; then what is gone is forgotten.
    pub(super) fn has_what_it_must(
        &mut self,
        slot: usize,
        id: ShardId,
        shown: Offset,
        end: Offset,
    ) -> bool {
        let least = self.members[slot].left.least(id);
        if end >= shown {
            return true;
        }
        if least.is_none_or(|least| end < least) {
            let what = format!(
                "shard {id}: slot {slot} had shown {shown}, and {least:?} had to be left, but the \
                 log ends at {end}"
            );
            self.violations.push(Violation::new("durability", what));
            return false;
        }
        self.tally.mark("losses that interval durability allows");
        self.judge_loss(id, self.excuses);
        self.forget(id, end);
        self.members[slot].handed.insert(id, end);
        true
    }
}

impl Process {
    /// When its node is to look at its syncs, if that is news.
    pub(super) fn new_sync_due_ms(&mut self) -> Option<u64> {
        let due_ms = self.node.sync_due_ms();
        let is_news = std::mem::replace(&mut self.syncs.due_ms, due_ms) != due_ms;
        due_ms.filter(|_| is_news)
    }
}
