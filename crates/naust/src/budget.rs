//! The memory that the rows of all shards of one views thread share.
//!
//! Each shard flushes its rows by itself when it has many. Many shards with few rows each are
//! looked after here: past the budget one is asked to flush, then the next. It is the one whose
//! bytes, times how long ago it flushed, are the most. Memory that nobody adds to goes first, then,
//! and the busy have its room: if a shard grows at a rate *r* and flushes every *t*, this makes all
//! *r t²* alike, which divides a memory of Σ *r t* bytes for the fewest flushes, Σ 1/*t*. That
//! may free little at once, so well past the budget it is the one with the most bytes.

use naust_wire::ShardId;
use std::collections::{BTreeMap, BTreeSet};

/// A shard with fewer bytes is not asked: its flush would free next to nothing.
const WORTHWHILE_BYTES: u64 = 256 * 1024;

/// Past the budget by one part of so many, room is made as fast as can be.
const FAR: u64 = 8;

/// What a shard has.
#[derive(Clone, Copy, Debug)]
struct Held {
    bytes: u64,
    /// When it had less than before, the last time; or when it was heard of first.
    since_ms: u64,
}

/// Who has how much.
#[derive(Debug)]
pub struct Budget {
    bytes_max: u64,
    shards: BTreeMap<ShardId, Held>,
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
            shards: BTreeMap::new(),
            total: 0,
            asked: None,
            asked_by_worker: BTreeSet::new(),
        }
    }

    /// A shard told how many bytes of rows it has in memory.
    pub fn tell(&mut self, shard: ShardId, bytes: u64, now_ms: u64) {
        let held = self.shards.entry(shard).or_insert(Held { bytes: 0, since_ms: now_ms });
        self.total = self.total - held.bytes + bytes;
        if bytes < held.bytes {
            held.since_ms = now_ms;
        }
        held.bytes = bytes;
    }

    /// A shard is gone.
    pub fn forget(&mut self, shard: ShardId) {
        self.total -= self.shards.remove(&shard).map_or(0, |held| held.bytes);
        self.asked = self.asked.filter(|asked| *asked != shard);
        self.asked_by_worker.remove(&shard);
    }

    /// The worker asks a shard to flush.
    pub fn ask_for_worker(&mut self, shard: ShardId) {
        self.asked_by_worker.insert(shard);
    }

    /// A shard has flushed. Says whether the worker is to be told.
    #[must_use]
    pub fn flushed(&mut self, shard: ShardId, now_ms: u64) -> bool {
        if self.asked == Some(shard) {
            self.asked = None;
            // It tells anew what it has with the next commit.
            self.tell(shard, 0, now_ms);
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
    pub fn ask(&mut self, now_ms: u64) -> Option<ShardId> {
        if !self.is_over() {
            return None;
        }
        let worthwhile = self.shards.iter().filter(|(_, held)| held.bytes >= WORTHWHILE_BYTES);
        let weight = |held: &Held| {
            let age_ms = now_ms.saturating_sub(held.since_ms);
            u128::from(held.bytes) * u128::from(age_ms + 1)
        };
        let is_far = self.total > self.bytes_max + self.bytes_max / FAR;
        let heaviest = worthwhile.max_by_key(|(_, held)| match is_far {
            true => u128::from(held.bytes),
            false => weight(held),
        });
        self.asked = heaviest.map(|(shard, _)| *shard);
        self.asked
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Config, Naust};
    use naust_client::Commit;
    use naust_wire::options::NamespaceOptions;
    use std::collections::VecDeque;
    use std::fs;

    const MIB: u64 = 1024 * 1024;

    #[test]
    fn past_the_budget_the_largest_of_one_age_is_asked_one_at_a_time() {
        let mut budget = Budget::new(10 * MIB);
        for (shard, bytes) in [(1, 3 * MIB), (2, 4 * MIB), (3, 3 * MIB)] {
            budget.tell(ShardId(shard), bytes, 0);
        }
        assert_eq!(budget.ask(0), None, "the budget may be used up");
        budget.tell(ShardId(1), 5 * MIB, 0);
        assert_eq!(budget.ask(0), Some(ShardId(1)));
        assert_eq!(budget.ask(0), None, "one is under way");
        assert!(!budget.flushed(ShardId(1), 0), "the worker did not ask");
        assert_eq!(budget.ask(0), None, "there is room again");
        budget.tell(ShardId(3), 9 * MIB, 0);
        assert_eq!(budget.ask(0), Some(ShardId(3)));
        budget.forget(ShardId(3));
        budget.tell(ShardId(1), 9 * MIB, 0);
        assert_eq!(budget.ask(0), Some(ShardId(1)), "one that is gone holds up nobody");
    }

    #[test]
    fn the_worker_hears_of_what_it_asked_for() {
        let mut budget = Budget::new(MIB);
        budget.tell(ShardId(1), 2 * MIB, 0);
        assert_eq!(budget.ask(0), Some(ShardId(1)));
        budget.ask_for_worker(ShardId(1));
        budget.ask_for_worker(ShardId(2));
        assert!(budget.flushed(ShardId(1), 0));
        assert!(budget.flushed(ShardId(2), 0));
        assert!(!budget.flushed(ShardId(2), 0));
    }

    #[test]
    fn many_shards_with_next_to_nothing_are_left_alone() {
        let mut budget = Budget::new(MIB);
        (0..100).for_each(|shard| budget.tell(ShardId(shard), 100 * 1024, 0));
        assert_eq!(budget.ask(9), None);
    }

    /// Why: what many shards left behind kept a busy one to a sliver of the budget. It flushed ten
    /// times a second, and compaction could not keep up with so many small runs.
    #[test]
    fn memory_that_nobody_adds_to_goes_before_that_of_the_busy() {
        let (busy, mut budget) = (ShardId(99), Budget::new(64 * MIB));
        (0..15).for_each(|idle| budget.tell(ShardId(idle), 4 * MIB, 0));
        let mut largest = 0;
        let mut flushes = [0; 100];
        let mut bytes = 0;
        for now_ms in 10_000..20_000 {
            bytes += MIB / 16;
            largest = largest.max(bytes);
            budget.tell(busy, bytes, now_ms);
            if let Some(asked) = budget.ask(now_ms) {
                flushes[asked.0 as usize] += 1;
                bytes = if asked == busy { 0 } else { bytes };
                assert!(!budget.flushed(asked, now_ms));
            }
        }
        assert!(flushes[..15].iter().all(|flushes| *flushes <= 1), "{flushes:?}");
        assert!((9..=16).contains(&flushes[99]), "{flushes:?}");
        assert!(largest > 60 * MIB);
    }

    /// Why: while many idle shards with little each were flushed one after the other, busy ones
    /// grew to several times the budget.
    #[test]
    fn the_budget_is_kept_when_flushes_take_their_time() {
        const IDLE: usize = 1000;
        const BUSY: usize = 64;
        const FLUSH_MS: u64 = 20;
        let mut budget = Budget::new(256 * MIB);
        let mut bytes = [WORTHWHILE_BYTES; IDLE + BUSY];
        for (shard, bytes) in bytes.iter().enumerate() {
            budget.tell(ShardId(shard as u32), *bytes, 0);
        }
        let mut under_way: Option<(ShardId, u64)> = None;
        let mut peak = 0;
        for now_ms in 3_600_000..3_630_000 {
            for (shard, bytes) in bytes.iter_mut().enumerate().skip(IDLE) {
                *bytes += 80 * MIB / 1000 / BUSY as u64;
                budget.tell(ShardId(shard as u32), *bytes, now_ms);
            }
            if let Some((shard, _)) = under_way.take_if(|(_, until_ms)| *until_ms <= now_ms) {
                bytes[shard.0 as usize] = 0;
                assert!(!budget.flushed(shard, now_ms));
            }
            if let Some(asked) = budget.ask(now_ms) {
                under_way = Some((asked, now_ms + FLUSH_MS));
            }
            peak = peak.max(bytes.iter().sum());
        }
        assert!(peak < 384 * MIB, "{} MiB", peak / MIB);
    }

    /// Why: with a hundredth of the rate a shard should flush a tenth as often, for the fewest
    /// flushes.
    #[test]
    fn the_busy_flush_more_often_by_the_root_of_their_rate() {
        let mut budget = Budget::new(64 * MIB);
        let mut bytes = [0; 2];
        let mut flushes = [0u32; 2];
        for now_ms in 0..1_000_000 {
            for (shard, rate) in [(0, 1024), (1, 100 * 1024)] {
                bytes[shard] += rate;
                budget.tell(ShardId(shard as u32), bytes[shard], now_ms);
            }
            if let Some(asked) = budget.ask(now_ms) {
                flushes[asked.0 as usize] += 1;
                bytes[asked.0 as usize] = 0;
                assert!(!budget.flushed(asked, now_ms));
            }
        }
        let ratio = flushes[1] / flushes[0];
        assert!((8..=12).contains(&ratio), "{flushes:?}");
    }

    /// Why: a flush that was asked for under load took in whatever came meanwhile, and so had no
    /// end: a shard was flushed a hundred times a second, and no other was.
    #[test]
    fn flushes_stay_large_under_load() {
        const NAMESPACES: usize = 4;
        const ROUNDS: usize = 2000;
        const VALUE: [u8; 4096] = [7; 4096];
        let root = tempfile::tempdir().unwrap();
        let config =
            Config { workers: 1, memtable_bytes: 8 * MIB, ..Config::embedded(root.path()) };
        let naust = Naust::open(config).unwrap();
        let client = naust.client();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut namespaces = Vec::new();
            for number in 0..NAMESPACES {
                let name = format!("n{number}");
                client.create_namespace(&name, NamespaceOptions::default()).await.unwrap();
                namespaces.push(client.namespace(&name));
            }
            let mut pending = VecDeque::new();
            for round in 0..ROUNDS {
                for namespace in &namespaces {
                    let key = (round as u64).to_be_bytes();
                    pending.push_back(namespace.submit(Commit::new().put("rows", key, VALUE)));
                }
                while pending.len() > 16 * NAMESPACES {
                    pending.pop_front().unwrap().await.unwrap();
                }
            }
            for commit in pending {
                commit.await.unwrap();
            }
        });
        let mut tables = 0;
        for shard in fs::read_dir(root.path().join("shards")).unwrap().map(Result::unwrap) {
            let Ok(files) = fs::read_dir(shard.path().join("tables")) else { continue };
            let ids = files.filter_map(|file| {
                file.unwrap().file_name().to_str()?.strip_suffix(".table")?.parse::<u64>().ok()
            });
            tables += ids.max().map_or(0, |last| last + 1);
        }
        // A flush makes a table of the shard's own rows, too.
        let flushes = tables / 2;
        let bytes = (NAMESPACES * ROUNDS * VALUE.len()) as u64;
        assert!(flushes >= 2, "{flushes} flushes: the budget was never used up");
        assert!(bytes / flushes > MIB, "{flushes} flushes of {bytes} bytes");
    }
}
