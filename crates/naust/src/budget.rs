//! The memory that the rows of all shards of one views thread share.
//!
//! Each shard flushes its rows by itself when it has many. Many shards with few rows each are
//! looked after here: past the budget the largest one is asked to flush, one at a time.

use naust_wire::ShardId;
use std::collections::{BTreeMap, BTreeSet};

/// A shard with fewer bytes is not asked: its flush would free next to nothing.
const WORTHWHILE_BYTES: u64 = 256 * 1024;

/// Who has how much.
#[derive(Debug)]
pub struct Budget {
    bytes_max: u64,
    bytes: BTreeMap<ShardId, u64>,
    total: u64,
    /// Asked by this budget, and not done yet.
    asked: Option<ShardId>,
    /// Asked by the worker, and not done yet.
    asked_by_worker: BTreeSet<ShardId>,
}

impl Budget {
    /// A budget of so many bytes.
    #[must_use]
    pub fn new(bytes_max: u64) -> Budget {
        Budget {
            bytes_max,
            bytes: BTreeMap::new(),
            total: 0,
            asked: None,
            asked_by_worker: BTreeSet::new(),
        }
    }

    /// A shard told what it has.
    pub fn tell(&mut self, shard: ShardId, bytes: u64) {
        let before = self.bytes.insert(shard, bytes).unwrap_or(0);
        self.total = self.total - before + bytes;
    }

    /// A shard is gone.
    pub fn forget(&mut self, shard: ShardId) {
        self.total -= self.bytes.remove(&shard).unwrap_or(0);
        self.asked = self.asked.filter(|asked| *asked != shard);
        self.asked_by_worker.remove(&shard);
    }

    /// The worker asks a shard to flush.
    pub fn ask_for_worker(&mut self, shard: ShardId) {
        self.asked_by_worker.insert(shard);
    }

    /// A shard has flushed. Says whether the worker is to be told.
    #[must_use]
    pub fn flushed(&mut self, shard: ShardId) -> bool {
        if self.asked == Some(shard) {
            self.asked = None;
            // It tells anew what it has with the next commit.
            self.tell(shard, 0);
        }
        self.asked_by_worker.remove(&shard)
    }

    /// Whether a shard is to flush now.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.total > self.bytes_max && self.asked.is_none()
    }

    /// The shard that is to flush now, if there is one: it counts as asked.
    #[must_use]
    pub fn ask(&mut self) -> Option<ShardId> {
        if !self.is_over() {
            return None;
        }
        let (shard, bytes) = self.bytes.iter().max_by_key(|(_, bytes)| **bytes)?;
        self.asked = Some(*shard).filter(|_| *bytes >= WORTHWHILE_BYTES);
        self.asked
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1024 * 1024;

    #[test]
    fn past_the_budget_the_largest_is_asked_one_at_a_time() {
        let mut budget = Budget::new(10 * MIB);
        for (shard, bytes) in [(1, 3 * MIB), (2, 4 * MIB), (3, 3 * MIB)] {
            budget.tell(ShardId(shard), bytes);
        }
        assert_eq!(budget.ask(), None, "the budget may be used up");
        budget.tell(ShardId(1), 5 * MIB);
        assert_eq!(budget.ask(), Some(ShardId(1)));
        assert_eq!(budget.ask(), None, "one is under way");
        assert!(!budget.flushed(ShardId(1)), "the worker did not ask");
        assert_eq!(budget.ask(), None, "there is room again");
        budget.tell(ShardId(3), 9 * MIB);
        assert_eq!(budget.ask(), Some(ShardId(3)));
        budget.forget(ShardId(3));
        budget.tell(ShardId(1), 9 * MIB);
        assert_eq!(budget.ask(), Some(ShardId(1)), "one that is gone holds up nobody");
    }

    #[test]
    fn the_worker_hears_of_what_it_asked_for() {
        let mut budget = Budget::new(MIB);
        budget.tell(ShardId(1), 2 * MIB);
        assert_eq!(budget.ask(), Some(ShardId(1)));
        budget.ask_for_worker(ShardId(1));
        budget.ask_for_worker(ShardId(2));
        assert!(budget.flushed(ShardId(1)));
        assert!(budget.flushed(ShardId(2)));
        assert!(!budget.flushed(ShardId(2)));
    }

    #[test]
    fn many_shards_with_next_to_nothing_are_left_alone() {
        let mut budget = Budget::new(MIB);
        (0..100).for_each(|shard| budget.tell(ShardId(shard), 100 * 1024));
        assert_eq!(budget.ask(), None);
    }
}
