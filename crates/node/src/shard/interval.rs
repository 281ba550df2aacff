//! Acknowledging before the sync: `interval(ms)` durability.
//!
//! ```text
//!   durable             written             log.end()
//!      |-- folded in, told --|-- on its way ------|
//!      '-- synced at the latest `ms` after the first of it was given to the disk
//! ```
//! A commit is told once it is written to its file: the end of the process harms it no more, and a
//! power cut takes the last `ms` at most, never one from the middle, for there is one log.
//!
//! That holds as long as nobody but this node's disk knows of it. So each write is synced, as
//! those of all other shards are, while there is another replica, of whatever kind, or an entry on
//! its way that could make one: from the moment on at which such an entry is staged, which is
//! before another replica hears of anything, until it is durable and folded in. Tables rest on the
//! log: a flush waits until what it makes durable is synced, and hastens that.

use super::Shard;
use crate::{Effect, Now, views};
use naust_log::Write;
use naust_wire::options::Durability;
use naust_wire::planted::{self, Bug};
use naust_wire::{Index, Offset, ShardId};
use std::collections::BTreeSet;

/// What a shard knows of its syncs.
#[derive(Default)]
pub(super) struct Interval {
    /// How long what is written may wait for its sync, in milliseconds; `None`: not at all.
    ms: Option<u64>,
    /// When the first of what is not synced was given to the disk.
    since_ms: Option<u64>,
    /// The last entry that was not a client's, or that was there when the log was opened.
    changed: Index,
    /// The tables wait until all below is synced.
    wanted: Option<Offset>,
    /// When the node has it looked for.
    timer_ms: Option<u64>,
}

impl Interval {
    /// An entry was staged that may change who has replicas.
    pub(super) fn note_change(&mut self, last: Index) {
        self.changed = last;
    }

    /// The tables want the log synced up to here.
    pub(super) fn want(&mut self, wanted: Option<Offset>) {
        self.wanted = wanted.or(self.wanted);
    }
}

impl Shard {
    /// What the options of its namespace say of durability.
    pub(crate) fn set_durability(&mut self, durability: Durability) {
        self.interval.ms = match durability {
            Durability::Quorum => None,
            Durability::IntervalMs(ms) => Some(u64::from(ms)),
        };
    }

    /// The node ends: nothing waits for its sync any more.
    pub(crate) fn stop_waiting_for_syncs(&mut self) {
        self.interval.ms = None;
    }

    /// Whether what is written now may wait for its sync.
    fn may_leave_unsynced(&self, now: Now) -> bool {
        let Some(ms) = self.interval.ms else { return false };
        let since = self.interval.since_ms.filter(|_| !planted::has(Bug::SyncNever));
        let is_due = since.is_some_and(|since_ms| now.monotonic_ms >= since_ms + ms);
        let is_settled = self.applied.index >= self.interval.changed;
        !is_due && self.interval.wanted.is_none() && is_settled && self.is_alone()
    }

    /// What has to go to disk now.
    pub(super) fn next_write(&mut self, now: Now) -> Option<Write> {
        if !self.may_leave_unsynced(now) {
            return self.log.next_write();
        }
        let write = self.log.next_write_unsynced()?;
        if write.leaves_unsynced() {
            self.interval.since_ms.get_or_insert(now.monotonic_ms);
        }
        Some(write)
    }

    /// A write ended.
    pub(super) fn note_synced(&mut self) {
        if self.log.durable() == self.log.written_to() {
            self.interval.since_ms = None;
        }
    }

    /// The tables hear that the log is synced as far as they wanted it.
    pub(super) fn tell_synced(&mut self, effects: &mut Vec<Effect>) {
        let durable = self.log.durable().offset;
        if self.interval.wanted.take_if(|wanted| *wanted <= durable).is_some() {
            effects.push(Effect::Views { shard: self.id, job: views::Job::Synced });
        }
    }

    /// It is closed, and what was told of it is not synced yet: that is done first. Says whether it
    /// is under way.
    pub(crate) fn sync_last(&mut self, effects: &mut Vec<Effect>) -> bool {
        if self.log.durable() == self.log.written_to() {
            return false;
        }
        let Some(write) = self.log.next_write() else { return false };
        self.writing = Some(0);
        effects.push(Effect::Write { shard: self.id, write });
        true
    }

    /// Has the node look again when a sync is due; not while the disk is busy, since it is looked
    /// again when that ends.
    pub(crate) fn set_sync_timer(&mut self, timers: &mut BTreeSet<(u64, ShardId)>) {
        let Interval { ms, since_ms, timer_ms, .. } = &mut self.interval;
        // What is written can be synced where there is no space for more, unless the disk refused
        // even what comes with the sync: then it is looked again when all is tried again.
        let is_idle = self.writing.is_none() && !self.log.is_stuck();
        let due_ms = since_ms.filter(|_| is_idle).zip(*ms);
        let due_ms = due_ms.map(|(since_ms, ms)| since_ms + ms);
        if due_ms != *timer_ms {
            timer_ms.map(|at| timers.remove(&(at, self.id)));
            due_ms.map(|at| timers.insert((at, self.id)));
            *timer_ms = due_ms;
        }
    }

    /// The node looked.
    pub(crate) fn forget_sync_timer(&mut self) {
        self.interval.timer_ms = None;
    }
}
