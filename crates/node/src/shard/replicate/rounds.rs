//! Whether a follower keeps up with a leader that is written to all the time.
//!
//! How many entries it lacks does not tell: at some hundred thousand a second, those of the last
//! few milliseconds are more than a slow leader writes in an hour. So it is fed in rounds: one ends
//! when it has all that the leader had when the round began, and who ends one soon enough lacks no
//! more than what was written meanwhile (Ongaro, *Consensus: Bridging Theory and Practice*, 4.2.1).

use super::super::Shard;
use crate::Now;
use naust_consensus::Role;
use naust_wire::{Index, NodeId, Offset};
use std::collections::{BTreeMap, VecDeque};

/// Entries that are few, whenever they were written.
const FEW_ENTRIES: u64 = 1024;
/// Milliseconds of a round of who keeps up, which is looked at late: for so long, at most, commits
/// wait for a new voter that the quorum cannot do without.
const ROUND_MS: u64 = 1000;

/// Milliseconds for which it is remembered where the log ended: more than a round.
const MARKS_MS: u64 = 2000;

/// Where a leader's log ended at the ticks of the last [`MARKS_MS`], and when those were.
#[derive(Default)]
pub(super) struct Marks(VecDeque<(u64, Index, Offset)>);

impl Marks {
    fn note(&mut self, now_ms: u64, end: (Index, Offset)) {
        while self.0.front().is_some_and(|(at_ms, ..)| at_ms + MARKS_MS < now_ms) {
            self.0.pop_front();
        }
        self.0.push_back((now_ms, end.0, end.1));
    }

    /// A place at or before the end of what a follower has; `None`: it is further behind than is
    /// remembered.
    fn before(&self, matched: Index) -> Option<Offset> {
        self.0.iter().rev().find(|(_, index, _)| *index <= matched).map(|(.., offset)| *offset)
    }
}

/// The rounds of the followers that are looked at.
#[derive(Default)]
pub(super) struct Rounds(BTreeMap<NodeId, Round>);

struct Round {
    /// What the leader had when it began, and when that was.
    end: Index,
    since_ms: u64,
}

impl Rounds {
    /// Whether a follower that has everything up to `matched` lacks so little of a log that ends
    /// with `end` that it keeps up. It is looked at a few times a second.
    fn keeps_up(&mut self, node: NodeId, matched: Index, end: Index, now_ms: u64) -> bool {
        if end.0.saturating_sub(matched.0) <= FEW_ENTRIES {
            self.0.remove(&node);
            return true;
        }
        let round = self.0.entry(node).or_insert(Round { end, since_ms: now_ms });
        if matched < round.end {
            return false;
        }
        let is_short = now_ms <= round.since_ms + ROUND_MS;
        *round = Round { end, since_ms: now_ms };
        is_short
    }
}

impl Shard {
    /// Whether a follower has come so far that it may vote, or be left to the log as it is trimmed.
    pub(crate) fn keeps_up(&mut self, node: NodeId, now: Now) -> bool {
        let Some(matched) = self.matched(node).filter(|matched| *matched > Index(0)) else {
            return false;
        };
        let end = self.log.end().index;
        self.replication.rounds.keeps_up(node, matched, end, now.monotonic_ms)
    }

    /// The log is kept for followers that are a little behind, however short the window of history
    /// is; for those that are not there, too, but no longer than that.
    pub(super) fn keep_for_followers(&mut self, now: Now) {
        let (end, marks) = (self.log.end(), &mut self.replication.marks);
        match self.replica.role() {
            Role::Leader => marks.note(now.monotonic_ms, (end.index, end.offset)),
            _ => marks.0.clear(),
        }
        let others = self.others().into_iter().filter_map(|node| self.matched(node));
        let needed = others.filter_map(|matched| self.replication.marks.before(matched)).min();
        self.trimming.needed = needed;
    }

    /// Of all others than these nothing is known any more.
    pub(crate) fn forget_rounds(&mut self, but_for: impl Fn(&NodeId) -> bool) {
        self.replication.rounds.0.retain(|node, _| but_for(node));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: NodeId = NodeId(7);

    #[test]
    fn what_who_is_a_little_behind_lacks_is_known() {
        let mut marks = Marks::default();
        assert_eq!(marks.before(Index(7)), None);
        for tick in 1..=100 {
            marks.note(tick * 25, (Index(tick * 10), Offset(tick * 1000)));
        }
        assert_eq!(marks.before(Index(1000)), Some(Offset(100_000)));
        assert_eq!(marks.before(Index(999)), Some(Offset(99_000)));
        assert_eq!(marks.before(Index(200)), Some(Offset(20_000)), "two seconds ago");
        assert_eq!(marks.before(Index(199)), None);
        marks.note(10_000, (Index(1001), Offset(100_100)));
        assert_eq!(marks.before(Index(1000)), None, "it does not come on");
        assert_eq!(marks.0.len(), 1);
    }

    /// Entries a millisecond of a leader, and what a follower lacks of them at the beginning; how
    /// many it takes a millisecond; milliseconds until it keeps up.
    fn after(leader: u64, lacks: u64, follower: u64) -> Option<u64> {
        let mut rounds = Rounds::default();
        let (mut end, mut matched) = (lacks + 1, 1);
        for now_ms in (0..20_000).step_by(250) {
            if rounds.keeps_up(NODE, Index(matched), Index(end), now_ms) {
                return Some(now_ms);
            }
            end += leader * 250;
            matched = end.min(matched + follower * 250);
        }
        None
    }

    #[test]
    fn who_is_late_by_less_than_a_round_keeps_up() {
        assert_eq!(after(0, 1024, 0), Some(0), "few entries");
        assert_eq!(after(0, 1025, 0), None, "who gets nothing");
        assert_eq!(after(500, 40_000, 500), Some(250), "late by 80 ms for ever");
        assert_eq!(after(500, 200_000, 500), Some(500), "late by 400 ms for ever");
        assert_eq!(after(500, 600_000, 500), None, "late by 1.2 s for ever");
        assert_eq!(after(500, 3_000_000, 1000), Some(5250), "catching up");
        assert_eq!(after(500, 600_000, 400), None, "slower than the leader");
    }
}
