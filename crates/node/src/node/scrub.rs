//! All logs of this worker are read again by and by, so that damage is found while other replicas
//! still have what belongs there. One step is under way at a time, and the next waits until the
//! bytes of the last are within the limit.

use super::Node;
use crate::{Effect, Now};
use naust_log::{Fault, Scrub, Scrubbed};
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
    /// Shards of this walk that are not begun yet.
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

/// What is left of a log, and up to where it is to be looked at.
struct Walk {
    shard: ShardId,
    scrub: Scrub,
    to: Offset,
}

impl Node {
    /// Somebody met damage, as it seems: that segment is looked at out of turn.
    pub(super) fn doubt(&mut self, id: ShardId, at: Offset) {
        let Some(shard) = self.shards.get(&id) else { return };
        let (base, to) = (shard.log.layout().base(at), shard.log.layout().end(at));
        let Scrubbing { doubts, begun, .. } = &mut self.scrubbing;
        if doubts.len() < DOUBTS_MAX && doubts.insert((id, to)) {
            begun.push_front(Walk { shard: id, scrub: shard.log.reader().scrub(base), to });
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
            let scrub = self.shards.get(&id)?.log.reader().scrub(Offset::ZERO);
            Some(Walk { shard: id, scrub, to: Offset::MAX })
        });
        let Some(Walk { shard: id, scrub, to }) = walk else { return };
        if let Some(shard) = self.shards.get_mut(&id) {
            shard.is_scrubbed = true;
            self.scrubbing.under_way = Some(to);
            effects.push(Effect::Scrub { shard: id, scrub, bytes: STEP_BYTES });
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
        let Some(shard) = self.shards.get_mut(&id) else { return };
        shard.is_scrubbed = false;
        // A disk that can't be read now may be read the next time.
        let seen = seen.unwrap_or(Scrubbed { done: true, ..Scrubbed::default() });
        for damage in &seen.damage {
            shard.mending.note(id, *damage, effects);
            Node::touch(&mut self.touched, shard);
        }
        let pace = match self.config.pace.scrub_bytes_per_s {
            0 => SCRUB_BYTES_PER_S_DEFAULT,
            pace => pace,
        };
        self.scrubbing.next_ms = now.monotonic_ms + seen.bytes * 1000 / pace;
        if seen.done || scrub.position() >= to {
            self.scrubbing.doubts.remove(&(id, to));
        } else {
            self.scrubbing.begun.push_front(Walk { shard: id, scrub, to });
        }
    }
}
