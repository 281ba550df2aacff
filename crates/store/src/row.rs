//! A row version as it moves between memory, merges and table files.

use lsm_tree::{InternalValue, Slice, ValueType};
use std::cmp::Ordering;

/// Which version of which row. Ordered by key, and from the newest version of a key to its oldest.
#[derive(Clone, Debug)]
pub(crate) struct RowKey {
    /// The row's key.
    pub key: Slice,
    /// The commit that wrote this version.
    pub offset: u64,
    /// The row was deleted here. No part of the order.
    pub deleted: bool,
}

impl PartialEq for RowKey {
    fn eq(&self, other: &RowKey) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for RowKey {}

impl PartialOrd for RowKey {
    fn partial_cmp(&self, other: &RowKey) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for RowKey {
    fn cmp(&self, other: &RowKey) -> Ordering {
        Ord::cmp(&self.key, &other.key).then_with(|| other.offset.cmp(&self.offset))
    }
}

/// A row version.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    /// Which.
    pub key: RowKey,
    /// Its bytes; empty when it is a deletion.
    pub value: Slice,
}

impl From<InternalValue> for Row {
    fn from(stored: InternalValue) -> Row {
        let deleted = stored.is_tombstone();
        let key = RowKey { key: stored.key.user_key, offset: stored.key.seqno, deleted };
        Row { key, value: stored.value }
    }
}

impl From<Row> for InternalValue {
    fn from(row: Row) -> InternalValue {
        let kind = if row.key.deleted { ValueType::Tombstone } else { ValueType::Value };
        // The engine's constructor refuses an empty key; its files hold one as well as any other.
        let mut stored = InternalValue::from_components([0], row.value, row.key.offset, kind);
        stored.key.user_key = row.key.key;
        stored
    }
}
