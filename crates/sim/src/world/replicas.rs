//! Whether the replicas of a cluster came to the same.

use super::World;
use crate::history::Violation;
use naust_wire::{Offset, ShardId};

impl World {
    /// Why the replicas have not converged yet, in a few words; `None`: all are whole, and have
    /// folded in everything that was committed.
    pub(super) fn is_apart(&self) -> Option<String> {
        if self.members.len() == 1 {
            return None;
        }
        if let Some(short) = self.is_short_of().or_else(|| self.is_wounded()) {
            return Some(short);
        }
        for shard in self.wanted_shards() {
            let Some(known) = self.shards.get(&shard) else {
                return Some(format!("shard {shard} was never opened"));
            };
            let end = known.chronicle.end();
            for slot in 0..self.members.len() {
                let Some(look) = self.look(slot, shard) else { continue };
                let id = self.members[slot].id;
                if look.configuration.contains(id) && look.applied < end {
                    let applied = look.applied;
                    return Some(format!(
                        "shard {shard} is folded in up to {applied} in slot {slot}, not {end}"
                    ));
                }
            }
        }
        None
    }

    /// Tells how each node sees each shard.
    pub(super) fn tell_replicas(&mut self) {
        let now = self.schedule.now();
        for shard in self.wanted_shards() {
            for slot in 0..self.members.len() {
                let look = self.look(slot, shard);
                self.trace.note(now, format_args!("shard {shard} in slot {slot}: {look:?}"));
            }
        }
    }

    /// Replicas that have converged hold the same frames and show the same.
    pub(super) fn compare_replicas(&mut self) {
        if self.members.len() == 1 || self.is_apart().is_some() {
            return;
        }
        for shard in self.wanted_shards() {
            let mut first = None;
            for slot in 0..self.members.len() {
                if self.look(slot, shard).is_none() {
                    continue;
                }
                self.compare_log(slot, shard);
                let Some(digest) = self.digest(slot, shard) else { continue };
                let (seen_in, expected) = *first.get_or_insert((slot, digest));
                if digest != expected {
                    let what = format!(
                        "shard {shard} shows {digest:x?} in slot {slot}, and {expected:x?} in slot \
                         {seen_in}"
                    );
                    self.violations.push(Violation::new("replicas", what));
                }
                self.tally.mark("replicas compared");
            }
        }
    }

    fn digest(&self, slot: usize, shard: ShardId) -> Option<(Offset, u64)> {
        self.members[slot].process.as_ref()?.views.digest(shard)?.ok()
    }

    /// The log of a replica is the chronicle, but for what it has let go.
    fn compare_log(&mut self, slot: usize, shard: ShardId) {
        let process = self.members[slot].process.as_ref();
        let Some(readers) = process.and_then(|process| process.readers.get(&shard)) else { return };
        let log = readers.log.clone();
        let (first, end) = {
            let known = &self.shards[&shard].chronicle;
            (known.first().unwrap_or(Offset::FIRST), known.end())
        };
        self.compare_frames(slot, shard, &log, first, end);
    }
}
