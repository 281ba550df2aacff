//! A leader whose own disk is what everybody waits for, or that is full, or whose log has damage
//! that nobody can mend, hands leadership over.
//!
//! A commit is acknowledged when a quorum *and* the leader have it on disk, so one slow disk under
//! the leader slows the whole shard down, while it would harm nobody under a follower. Measured is
//! by how much this disk is later than the quorum, never how slow it is: disks that are all alike
//! move nothing.

use super::Shard;
use crate::Now;
use crate::peers::Peers;
use naust_consensus::Role;
use naust_wire::{Index, NodeId};

/// Milliseconds that the leader's disk may be behind the quorum's, or full, once.
const STUCK_MS: u64 = 1000;
/// Milliseconds behind the quorum that count as slow.
const SLOW_MS: u64 = 100;
/// Slow ones in a row that are too many.
const SLOW_MAX: u32 = 10;
/// Milliseconds after leadership was handed over before that is done again: if all disks are full,
/// it does not go round and round.
const AGAIN_MS: u64 = 10_000;

/// Milliseconds of a full disk after which those who write are told of it: until then another
/// replica may lead that has space.
const HOPE_MS: u64 = 3_000;
/// Milliseconds after leadership was handed over because of damage before that is done again: the
/// others may be no better.
const HURT_AGAIN_MS: u64 = 10 * 60_000;

/// How late a leader's disk is.
#[derive(Default)]
pub(super) struct Lag {
    /// The quorum has this entry, and this disk had not when it was seen first.
    behind: Option<(Index, u64)>,
    slow: u32,
    /// Since when it takes no writes for lack of space.
    full_ms: Option<u64>,
    /// It has been full for so long that nobody else seems to have space.
    is_full_for_good: bool,
    /// Before that it is not handed over again.
    rests_until_ms: u64,
}

impl Lag {
    /// Whether others should lead, as the quorum has `quorum` and this disk `durable`.
    fn is_too_late(&mut self, quorum: Index, durable: Index, is_full: bool, now_ms: u64) -> bool {
        self.full_ms = is_full.then(|| self.full_ms.unwrap_or(now_ms));
        self.is_full_for_good = self.full_ms.is_some_and(|since_ms| now_ms >= since_ms + HOPE_MS);
        if let Some((_, since_ms)) = self.behind.take_if(|(index, _)| *index <= durable) {
            let is_slow = now_ms >= since_ms + SLOW_MS;
            self.slow = if is_slow { self.slow + 1 } else { 0 };
        }
        if self.behind.is_none() && quorum > durable {
            self.behind = Some((quorum, now_ms));
        }
        let since = [self.full_ms, self.behind.map(|(_, since_ms)| since_ms)];
        let is_stuck = since.into_iter().flatten().any(|since_ms| now_ms >= since_ms + STUCK_MS);
        (is_stuck || self.slow >= SLOW_MAX) && now_ms >= self.rests_until_ms
    }
}

impl Shard {
    /// Whether another replica may have the space that this one lacks.
    pub(super) fn hopes_for_space(&self) -> bool {
        !self.replica.is_lone_voter() && !self.replication.lag.is_full_for_good
    }

    /// Hands leadership over if this disk holds the others up, to a voter that is there and has all
    /// that the quorum has.
    pub(super) fn watch_disk(&mut self, now: Now, peers: &Peers) {
        let (quorum, durable) = (self.replica.committed(), self.log.durable().index);
        let is_full = self.is_full || self.applied.disk_full;
        if self.replica.role() != Role::Leader || self.replica.is_lone_voter() {
            self.replication.lag = Lag::default();
            return;
        }
        // Who is behind could not be fed by it.
        let is_hurt = self.mending.is_hurt() && now.monotonic_ms >= self.replication.hurt_until_ms;
        let lag = &mut self.replication.lag;
        if !lag.is_too_late(quorum, durable, is_full, now.monotonic_ms) && !is_hurt {
            return;
        }
        let fits = |node: &NodeId| {
            *node != self.node
                && peers.is_there(*node, now.monotonic_ms)
                && self.matched(*node).is_some_and(|matched| matched >= quorum)
        };
        let voters = self.replica.configuration().voters().iter().copied();
        if let Some(node) = voters.filter(fits).max_by_key(|node| self.matched(*node)) {
            if is_hurt {
                self.replication.hurt_until_ms = now.monotonic_ms + HURT_AGAIN_MS;
            }
            let rests_until_ms = now.monotonic_ms + AGAIN_MS;
            // How long it has been full is not forgotten.
            let full_ms = self.replication.lag.full_ms;
            self.replication.lag = Lag { rests_until_ms, full_ms, ..Lag::default() };
            self.hand_over_to(node);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ticks with (quorum, durable), every 25 ms; after how many it was too late.
    fn ticks(lag: &mut Lag, from_ms: u64, ends: impl Iterator<Item = (u64, u64)>) -> Option<usize> {
        let times = (0..).map(|tick| from_ms + 25 * tick);
        let mut ticks = times.zip(ends);
        ticks.position(|(ms, (quorum, durable))| {
            lag.is_too_late(Index(quorum), Index(durable), false, ms)
        })
    }

    #[test]
    fn a_disk_that_is_behind_now_and_then_is_not_slow() {
        // Under load it is behind at every look, by one write, and never for long.
        let ends = (1..1000).map(|at| (at + 1, at));
        assert_eq!(ticks(&mut Lag::default(), 0, ends), None);
        // As slow as everybody else's: the quorum is there when it is.
        let ends = (1..1000).map(|at| (at / 20, at / 20));
        assert_eq!(ticks(&mut Lag::default(), 0, ends), None);
        // Once for 900 ms.
        let ends = (0..1000).map(|at| (9, if at < 36 { 8 } else { 9 }));
        assert_eq!(ticks(&mut Lag::default(), 0, ends), None);
    }

    #[test]
    fn a_disk_that_stands_still_or_is_slow_time_and_again_is() {
        assert_eq!(ticks(&mut Lag::default(), 0, std::iter::repeat((9, 8))), Some(40));
        // 125 ms a write, the others' none.
        let ends = (0..1000).map(|at| (at / 5 + 1, at / 5));
        let mut lag = Lag::default();
        assert_eq!(ticks(&mut lag, 0, ends.clone()), Some(50));
        lag = Lag { rests_until_ms: 5_000, ..Lag::default() };
        assert_eq!(ticks(&mut lag, 0, ends), Some(200), "it was handed over just now");
        let mut lag = Lag::default();
        let full = (0..50).position(|tick| lag.is_too_late(Index(1), Index(1), true, 25 * tick));
        assert_eq!(full, Some(40));
    }
}
