//! What readers of a tree pay for runs that have not been merged.
//!
//! A merge waits until enough runs have been flushed, which is cheapest for who writes. Every read
//! looks into all of those runs meanwhile. So looks are counted, and when a merge would have cost
//! no more than they did, it is done, however few the runs are (after "allowed seeks" of LevelDB,
//! where what counts is seeks of a disk).

use crate::view::Run;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes that are merged in the time of one look into a table whose filter says no.
const BYTES_PER_LOOK: u64 = 16;
/// Of so many gets, one is counted, for all of them: readers share the counter.
const GETS_PER_COUNT: u64 = 64;
/// What beginning to scan a run costs, in looks.
const LOOKS_PER_SCAN: u64 = 16;
/// Rows that a scan visits in the time of a look, for each run that may have the next one.
const ROWS_PER_LOOK: u64 = 2;
/// Fewer looks are never worth a merge.
const LOOKS_MIN: u64 = 64 * 1024;

/// Looks into runs of a tree's level 0 since the last merge of them.
#[derive(Default)]
pub(crate) struct Looks(AtomicU64);

impl Looks {
    /// A get, of a key with this hash, looked into so many runs of level 0 in vain.
    pub fn got(&self, hash: u64, runs: u64) {
        if runs > 0 && hash.is_multiple_of(GETS_PER_COUNT) {
            self.0.fetch_add(GETS_PER_COUNT * runs, Ordering::Relaxed);
        }
    }

    /// So many rows were visited in so many runs of level 0.
    pub fn scanned(&self, rows: u64, runs: u64) {
        if runs > 0 {
            let looks = runs * (LOOKS_PER_SCAN + rows / ROWS_PER_LOOK);
            self.0.fetch_add(looks, Ordering::Relaxed);
        }
    }

    /// Whether merging these runs would have cost no more than they did.
    pub fn are_worth_a_merge(&self, runs: &[Arc<Run>]) -> bool {
        let looks = self.0.load(Ordering::Relaxed);
        let tables = || runs.iter().flat_map(|run| run.tables());
        let bytes = || tables().map(|table| table.record().bytes).sum::<u64>();
        looks >= LOOKS_MIN && looks >= bytes() / BYTES_PER_LOOK
    }

    /// They are counted anew.
    pub fn forget(&self) {
        self.0.store(0, Ordering::Relaxed);
    }
}
