//! Whether a worker may write a log by itself, instead of by a disk thread.
//!
//! With one commit under way, waking a disk thread and being woken by it take as long as half of a
//! sync. So a worker that has nothing else to do writes by itself (decision 0010): one small
//! write, no reads lately, no other shard's writes lately. Whoever comes meanwhile waits for the
//! sync as the write does; so a disk that was slow is left to its thread for fifty times as
//! long as it took, which bounds the share of time that is waited.

use crate::disk_threads::Job;
use crate::worker::Input;
use naust_wire::ShardId;
use std::time::{Duration, Instant};

/// Log bytes of a write that is done here at most: of few commits. With more under way, the next
/// batch is better gathered while this one is written.
const BYTES_MAX: u64 = 1024;
/// For so long after it something counts as going on, in milliseconds.
const LATELY_MS: u64 = 50;
/// A sync that takes longer is slow.
const SLOW: Duration = Duration::from_millis(2);
/// For so many times as long as a slow sync took, the disk is not waited for again.
const REST: u32 = 50;

/// The writes of a worker's turn.
#[derive(Default)]
pub struct Writes {
    /// Those for the disk threads.
    pub jobs: Vec<Job>,
    /// The one that the worker does itself, when all else of its turn is done.
    lone: Option<Job>,
    /// Whether it may.
    pub alone: Alone,
}

impl Writes {
    /// Keeps the only job back for the end of the turn, if the worker is alone with it. Whether
    /// there is nothing for the disk threads.
    pub fn keep_lone(&mut self, now_ms: u64) -> bool {
        let Some(Job { shard, write, .. }) = self.jobs.first() else { return true };
        let bytes = write.log_bytes();
        let may = self.alone.may_write(*shard, bytes, self.jobs.len(), now_ms);
        if may && write.is_brief() && self.lone.is_none() {
            self.lone = self.jobs.pop();
        }
        self.jobs.is_empty()
    }

    /// Does what was kept back. Blocking.
    pub fn write_lone(&mut self, now_ms: impl FnOnce() -> u64) -> Option<Input> {
        let Job { shard, write, .. } = self.lone.take()?;
        let start = Instant::now();
        let written = write.run();
        self.alone.wrote(start.elapsed(), now_ms());
        Some(Input::Written { shard, written })
    }
}

/// What a worker remembers of who else needs it.
#[derive(Default)]
pub struct Alone {
    last: Option<ShardId>,
    /// Others wait for the worker until then.
    busy_until_ms: u64,
    /// The disk may be slow until then.
    slow_until_ms: u64,
}

impl Alone {
    /// A client reads.
    pub fn reads(&mut self, now_ms: u64) {
        self.busy_until_ms = now_ms + LATELY_MS;
    }

    /// Whether the worker may do this write of so many bytes, one of `writes` in its turn.
    pub fn may_write(&mut self, shard: ShardId, bytes: u64, writes: usize, now_ms: u64) -> bool {
        if writes > 1 || self.last.replace(shard).is_some_and(|last| last != shard) {
            self.busy_until_ms = now_ms + LATELY_MS;
        }
        bytes <= BYTES_MAX && now_ms >= self.busy_until_ms.max(self.slow_until_ms)
    }

    /// A write that the worker did took so long, and ended now.
    pub fn wrote(&mut self, took: Duration, now_ms: u64) {
        if took > SLOW {
            let rest = took.saturating_mul(REST).as_millis();
            self.slow_until_ms = now_ms.saturating_add(u64::try_from(rest).unwrap_or(u64::MAX));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: ShardId = ShardId(1);
    const FAST: Duration = Duration::from_micros(120);

    #[test]
    fn a_lone_small_write_is_done_here() {
        let mut alone = Alone::default();
        for now_ms in 0..100 {
            assert!(alone.may_write(ONE, 280, 1, now_ms));
            alone.wrote(FAST, now_ms);
        }
        assert!(alone.may_write(ONE, BYTES_MAX, 1, 100));
        assert!(!alone.may_write(ONE, BYTES_MAX + 1, 1, 100), "of many commits");
        assert!(alone.may_write(ONE, 280, 1, 100), "one large write is no reason to wait");
    }

    #[test]
    fn nobody_else_waits_for_the_disk() {
        let mut alone = Alone::default();
        assert!(alone.may_write(ONE, 280, 1, 1000));
        alone.reads(1000);
        assert!(!alone.may_write(ONE, 280, 1, 1000 + LATELY_MS - 1), "somebody reads");
        assert!(alone.may_write(ONE, 280, 1, 1000 + LATELY_MS));
        assert!(!alone.may_write(ShardId(2), 280, 1, 2000), "another shard writes");
        assert!(!alone.may_write(ShardId(2), 280, 1, 2000 + LATELY_MS - 1));
        assert!(alone.may_write(ShardId(2), 280, 1, 2000 + LATELY_MS));
        assert!(!alone.may_write(ShardId(2), 280, 2, 3000), "two shards at once");
        assert!(!alone.may_write(ShardId(2), 280, 1, 3000 + LATELY_MS - 1));
    }

    #[test]
    fn a_slow_disk_is_left_alone_for_long() {
        let mut alone = Alone::default();
        alone.wrote(SLOW, 1000);
        assert!(alone.may_write(ONE, 280, 1, 1000), "as slow as it may be");
        let took = Duration::from_millis(30);
        alone.wrote(took, 1000);
        assert!(!alone.may_write(ONE, 280, 1, 1000 + 30 * u64::from(REST) - 1));
        assert!(alone.may_write(ONE, 280, 1, 1000 + 30 * u64::from(REST)));
        alone.wrote(Duration::MAX, 1000);
        assert!(!alone.may_write(ONE, 280, 1, u64::MAX - 1), "no overflow");
    }
}
