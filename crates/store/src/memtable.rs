//! Rows in memory, until a flush has written them.
//!
//! One thread inserts, any thread reads beside it. The engine has a memtable of its own, but only
//! behind a lock that it holds while it syncs its manifest; this one is never behind a lock.

use crate::row::{Row, RowKey};
use crossbeam_skiplist::SkipMap;
use lsm_tree::Slice;
use std::ops::Bound;
use std::sync::atomic::{AtomicU64, Ordering};

/// What a row costs in memory beside its key and value, about.
const ROW_OVERHEAD_BYTES: u64 = 96;

/// Rows in memory.
#[derive(Default)]
pub(crate) struct Memtable {
    rows: SkipMap<RowKey, Slice>,
    bytes: AtomicU64,
}

impl Memtable {
    /// Adds a row version; `None`: a deletion.
    pub fn insert(&self, key: &[u8], offset: u64, value: Option<&[u8]>) {
        let bytes = key.len() + value.map_or(0, <[u8]>::len);
        let row = RowKey { key: Slice::from(key), offset, deleted: value.is_none() };
        self.rows.insert(row, value.map_or_else(Slice::empty, Slice::from));
        self.bytes.fetch_add(bytes as u64 + ROW_OVERHEAD_BYTES, Ordering::Relaxed);
    }

    /// Bytes of memory, about.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Holds no row.
    pub fn is_empty(&self) -> bool {
        self.bytes() == 0
    }

    /// The newest version at or below the offset of `wanted`, of its key.
    pub fn get(&self, wanted: &RowKey) -> Option<Row> {
        let entry = self.rows.lower_bound(Bound::Included(wanted))?;
        let found = entry.key();
        (found.key == wanted.key).then(|| Row { key: found.clone(), value: entry.value().clone() })
    }

    /// All versions of all rows with keys from `from` (inclusive) to `to` (exclusive), in order.
    pub fn range(
        &self,
        from: &[u8],
        to: Option<&[u8]>,
    ) -> impl DoubleEndedIterator<Item = Row> + '_ {
        let from = Bound::Included(RowKey::newest_at(from, u64::MAX));
        let to = to.map_or(Bound::Unbounded, |to| Bound::Excluded(RowKey::newest_at(to, u64::MAX)));
        let entries = self.rows.range((from, to));
        entries.map(|entry| Row { key: entry.key().clone(), value: entry.value().clone() })
    }
}
