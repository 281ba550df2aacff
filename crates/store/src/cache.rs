//! What all shards of a node share: blocks in memory and open files.

use lsm_tree::DescriptorTable;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Blocks of tables in memory, and open table files: one for all shards of a node, both bounded.
///
/// Indexes and Bloom filters are held beside the blocks for as long as their table is open, and
/// found without a look-up, while all of them fit a quarter of the blocks' bytes; those of further
/// tables come and go like other blocks.
#[derive(Clone)]
pub struct Cache {
    pub(crate) blocks: Arc<lsm_tree::Cache>,
    pub(crate) files: Arc<DescriptorTable>,
    room: Arc<AtomicU64>,
}

impl Cache {
    /// Room for `bytes` of uncompressed blocks and a quarter more of indexes and filters, and for
    /// `files` open files.
    #[must_use]
    pub fn new(bytes: u64, files: usize) -> Cache {
        Cache {
            blocks: Arc::new(lsm_tree::Cache::with_capacity_bytes(bytes)),
            files: Arc::new(DescriptorTable::new(files)),
            room: Arc::new(AtomicU64::new(bytes / 4)),
        }
    }

    /// Bytes of blocks that come and go, now.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.blocks.size()
    }

    /// Reserves room to hold that many bytes for as long as the reservation lives; none is left
    /// otherwise.
    pub(crate) fn reserve(&self, bytes: u64) -> Option<Reservation> {
        let take = |room: u64| room.checked_sub(bytes);
        let taken = self.room.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take);
        taken.ok().map(|_| Reservation { bytes, room: self.room.clone() })
    }
}

/// Room reserved in a [`Cache`].
pub(crate) struct Reservation {
    bytes: u64,
    room: Arc<AtomicU64>,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.room.fetch_add(self.bytes, Ordering::Relaxed);
    }
}

/// How the tables of a shard are kept.
#[derive(Clone)]
pub struct StoreOptions {
    /// Shared by all shards of a node.
    pub cache: Cache,
    /// Bytes of keys and values after which a new table is begun.
    pub table_bytes: u64,
    /// Merges of more bytes than this write indexes and filters in small parts that can be cached
    /// one by one.
    pub whole_bytes: u64,
    /// Levelled compaction: bytes that the first level holds; each further one holds `level_ratio`
    /// times more.
    pub level_bytes: u64,
    /// Levelled compaction: how much more each level holds than the one above.
    pub level_ratio: u64,
    /// Levelled compaction: flushes that wait before they are merged into the first level.
    pub flushes_per_merge: usize,
    /// Write-optimised compaction: runs of about one size that are merged into one.
    pub runs_per_merge: usize,
}

impl StoreOptions {
    /// The defaults.
    #[must_use]
    pub fn new(cache: Cache) -> StoreOptions {
        StoreOptions {
            cache,
            table_bytes: 32 << 20,
            whole_bytes: 512 << 20,
            level_bytes: 256 << 20,
            level_ratio: 10,
            flushes_per_merge: 8,
            runs_per_merge: 8,
        }
    }
}
