//! All logs and tables of this worker are read again by and by, so that damage is found while
//! other replicas still have what belongs there. One step is under way at a time, and the next
//! waits until the bytes of the last are within the limit.

use super::Node;
use crate::repair::Report;
use crate::{Effect, Now};
use naust_log::{Fault, Scrub, Scrubbed};
use naust_machine::Checked;
use naust_wire::limits::SCRUB_BYTES_PER_S_DEFAULT;
use naust_wire::{Offset, ShardId};
use std::collections::{BTreeSet, VecDeque};

/// Bytes of one step.
const STEP_BYTES: u64 = 1024 * 1024;
/// Segments that are looked at out of turn. What is beyond waits for its turn.
const DOUBTS_MAX: usize = 64;

/// Where the walk over all logs stands.
#[derive(Default)]
pub(super) struct Scrubbing {
    /// Shards of this walk that are not begun yet: of each the log, and then its tables.
    rest: VecDeque<ShardId>,
    /// What was begun; the first goes on next.
    begun: VecDeque<Walk>,
    /// Segments that somebody met damage in, as it seems, and that are not looked at yet.
    doubts: BTreeSet<(ShardId, Offset)>,
    /// How far the step under way is to come.
    under_way: Option<Offset>,
    next_ms: u64,
    /// When the next walk begins.
    walk_ms: u64,
}

/// What is left to be looked at.
enum Walk {
    /// Of a log, and up to where.
    Log { shard: ShardId, scrub: Scrub, to: Offset },
    /// The tables of a shard, from the file of this number on.
    Tables { shard: ShardId, from: u64 },
}

impl Node {
    /// Somebody met damage, as it seems: that segment is looked at out of turn.
    pub(super) fn doubt(&mut self, id: ShardId, at: Offset) {
        let Some(shard) = self.shards.get(&id) else { return };
        let (base, to) = (shard.log.layout().base(at), shard.log.layout().end(at));
        let Scrubbing { doubts, begun, .. } = &mut self.scrubbing;
        if doubts.len() < DOUBTS_MAX && doubts.insert((id, to)) {
            let scrub = shard.log.reader().scrub(base).with_footers(shard.end());
            begun.push_front(Walk::Log { shard: id, scrub, to });
        }
    }

    pub(super) fn tick_scrub(&mut self, now: Now, effects: &mut Vec<Effect>) {
        let pace = self.config.pace;
        let Scrubbing { rest, begun, under_way, next_ms, walk_ms, .. } = &mut self.scrubbing;
        let is_idle = rest.is_empty() && begun.is_empty() && under_way.is_none();
        if pace.scrub_bytes_per_s > 0 && is_idle && now.monotonic_ms >= *walk_ms {
            *walk_ms = now.monotonic_ms + pace.scrub_every_ms;
            let mut all: Vec<ShardId> = self.shards.keys().copied().collect();
            all.sort_unstable();
            rest.extend(all);
        }
        if under_way.is_some() || now.monotonic_ms < *next_ms {
            return;
        }
        let walk = begun.pop_front().or_else(|| {
            let id = rest.pop_front()?;
            let shard = self.shards.get(&id)?;
            let scrub = shard.log.reader().scrub(Offset::ZERO).with_footers(shard.end());
            Some(Walk::Log { shard: id, scrub, to: Offset::MAX })
        });
        match walk {
            Some(Walk::Log { shard: id, scrub, to }) => {
                let Some(shard) = self.shards.get_mut(&id) else {
                    self.scrubbing.doubts.remove(&(id, to));
                    return;
                };
                shard.is_scrubbed = true;
                self.scrubbing.under_way = Some(to);
                effects.push(Effect::Scrub { shard: id, scrub, bytes: STEP_BYTES });
            }
            Some(Walk::Tables { shard, from }) if self.shards.contains_key(&shard) => {
                self.scrubbing.under_way = Some(Offset::MAX);
                effects.push(Effect::CheckTables { shard, from, bytes: STEP_BYTES });
            }
            Some(Walk::Tables { .. }) | None => {}
        }
    }

    /// A step ended.
    pub(super) fn scrubbed(
        &mut self,
        now: Now,
        id: ShardId,
        scrub: Scrub,
        seen: Result<Scrubbed, Fault>,
        effects: &mut Vec<Effect>,
    ) {
        let to = self.scrubbing.under_way.take().unwrap_or(Offset::MAX);
        if let Some(shard) = self.leaving.get_mut(&id) {
            shard.is_scrubbed = false;
            self.scrubbing.doubts.remove(&(id, to));
            return self.remove_when_unused(id, effects);
        }
        let Some(shard) = self.shards.get_mut(&id) else {
            self.scrubbing.doubts.remove(&(id, to));
            return;
        };
        shard.is_scrubbed = false;
        // A disk that can't be read now may be read the next time.
        let seen = seen.unwrap_or(Scrubbed { done: true, ..Scrubbed::default() });
        for damage in &seen.damage {
            shard.mending.note(id, *damage, effects);
            Node::touch(&mut self.touched, shard);
        }
        if let Some(sentence) = seen.unsynced {
            effects.push(Effect::Stop(format!("the log of shard {id}: {sentence}")));
        }
        if seen.footers > 0 {
            effects.push(Effect::Report { shard: id, report: Report::Footers(seen.footers) });
        }
        if seen.is_superblock_bad {
            shard.log.save_again();
            Node::touch(&mut self.touched, shard);
            effects.push(Effect::Report { shard: id, report: Report::Superblock });
        }
        self.rest_for(now, seen.bytes);
        if seen.done || scrub.position() >= to {
            self.scrubbing.doubts.remove(&(id, to));
            if to == Offset::MAX {
                self.scrubbing.begun.push_back(Walk::Tables { shard: id, from: 0 });
            }
        } else {
            self.scrubbing.begun.push_front(Walk::Log { shard: id, scrub, to });
        }
    }

    /// Some files of a shard's tables were read again.
    pub(super) fn checked(
        &mut self,
        now: Now,
        id: ShardId,
        checked: Result<Checked, naust_machine::Fault>,
        effects: &mut Vec<Effect>,
    ) {
        self.scrubbing.under_way = None;
        if !self.shards.contains_key(&id) {
            return; // Others may be there by now.
        }
        match checked {
            Ok(Checked { bytes, next }) => {
                self.rest_for(now, bytes);
                let rest = next.map(|from| Walk::Tables { shard: id, from });
                self.scrubbing.begun.extend(rest);
            }
            Err(fault) => {
                let report = Report::Tables(fault.what);
                effects.push(Effect::Report { shard: id, report });
                self.tables_are_bad(now, id, effects);
            }
        }
    }

    /// The next step waits until the bytes of this one are within the limit.
    fn rest_for(&mut self, now: Now, bytes: u64) {
        let pace = match self.config.pace.scrub_bytes_per_s {
            0 => SCRUB_BYTES_PER_S_DEFAULT,
            pace => pace,
        };
        self.scrubbing.next_ms = now.monotonic_ms + bytes * 1000 / pace;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::alone;
    use crate::shard::Shard;

    const SHARD: ShardId = ShardId(1);

    /// Why: one that stays noted is never looked at again, and when there are too many of them,
    /// none is.
    #[test]
    fn what_is_doubted_of_a_shard_that_goes_is_forgotten() {
        let (mut node, now, mut effects) = (alone::node(), Now::default(), Vec::new());
        for is_under_way in [false, true] {
            node.shards.insert(SHARD, Box::new(Shard::new(alone::opened(SHARD), now)));
            node.doubt(SHARD, Offset::FIRST);
            assert_eq!(node.scrubbing.doubts.len(), 1);
            if is_under_way {
                node.tick_scrub(now, &mut effects);
            }
            node.shards.remove(&SHARD);
            match effects.pop() {
                Some(Effect::Scrub { shard, scrub, .. }) => {
                    node.scrubbed(now, shard, scrub, Ok(Scrubbed::default()), &mut effects);
                }
                _ => node.tick_scrub(now, &mut effects),
            }
            assert!(node.scrubbing.doubts.is_empty(), "under way: {is_under_way}");
        }
    }
}
