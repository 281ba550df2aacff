//! What all shards of a node share: blocks in memory and open files.

use lsm_tree::DescriptorTable;
use std::sync::Arc;

/// Blocks of tables in memory, and open table files: one for all shards of a node, both bounded.
#[derive(Clone)]
pub struct Cache {
    pub(crate) blocks: Arc<lsm_tree::Cache>,
    pub(crate) files: Arc<DescriptorTable>,
}

impl Cache {
    /// Room for `block_bytes` of uncompressed blocks, and for `files` open files.
    #[must_use]
    pub fn new(block_bytes: u64, files: usize) -> Cache {
        Cache {
            blocks: Arc::new(lsm_tree::Cache::with_capacity_bytes(block_bytes)),
            files: Arc::new(DescriptorTable::new(files)),
        }
    }

    /// Bytes of blocks in it now.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.blocks.size()
    }
}

/// How the tables of a shard are kept.
#[derive(Clone)]
pub struct StoreOptions {
    /// Shared by all shards of a node.
    pub cache: Cache,
    /// Bytes of keys and values after which a new table is begun.
    pub table_bytes: u64,
    /// Levelled compaction: bytes that the first level holds; each further one holds `level_ratio` times more.
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
            level_bytes: 256 << 20,
            level_ratio: 10,
            flushes_per_merge: 4,
            runs_per_merge: 8,
        }
    }
}
