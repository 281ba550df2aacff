//! Keyspaces and streams of the model: plain ordered maps that never forget.

use super::timeline::Timeline;
use naust_wire::Offset;
use naust_wire::options::{KeyspaceOptions, StreamOptions};
use std::collections::BTreeMap;
use std::ops::Bound;

/// A keyspace: every version of every row that it ever had.
#[derive(Clone, Debug, Default)]
pub struct Keyspace {
    /// By key; `None`: deleted.
    pub rows: BTreeMap<Vec<u8>, Timeline<Option<Vec<u8>>>>,
    /// Its options; before their first offset it did not exist.
    pub options: Timeline<KeyspaceOptions>,
    /// Rows of commits below count as absent.
    pub floor: Timeline<Offset>,
}

impl Keyspace {
    /// The row that lives at `at` when rows below `floor` do not: its version and value.
    #[must_use]
    pub fn get(&self, key: &[u8], at: Offset, floor: Offset) -> Option<(Offset, &[u8])> {
        let (version, value) = self.rows.get(key)?.at(at)?;
        let value = value.as_deref()?;
        (version >= floor).then_some((version, value))
    }

    /// The rows of a range that live at `at`, in key order: key, version, value.
    pub fn range<'m>(
        &'m self,
        from: &[u8],
        to: Option<&[u8]>,
        at: Offset,
        floor: Offset,
    ) -> impl DoubleEndedIterator<Item = (&'m [u8], Offset, &'m [u8])> {
        self.all(from, to).filter_map(move |(key, row)| {
            let (version, value) = row.at(at)?;
            let value = value.as_deref()?;
            (version >= floor).then_some((key.as_slice(), version, value))
        })
    }

    /// The offset of the newest write into a range, deletions included.
    #[must_use]
    pub fn newest_write(&self, from: &[u8], to: Option<&[u8]>) -> Option<Offset> {
        self.all(from, to).filter_map(|(_, row)| row.last()).map(|(version, _)| version).max()
    }

    fn all<'m>(
        &'m self,
        from: &[u8],
        to: Option<&[u8]>,
    ) -> impl DoubleEndedIterator<Item = (&'m Vec<u8>, &'m Timeline<Option<Vec<u8>>>)> {
        let end = to.map_or(Bound::Unbounded, Bound::Excluded);
        let empty = to.is_some_and(|to| to <= from);
        let end = if empty { Bound::Excluded(from) } else { end };
        self.rows.range::<[u8], _>((Bound::Included(from), end))
    }
}

/// A record: the commit that appended it and its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The commit.
    pub commit: Offset,
    /// Its bytes.
    pub value: Vec<u8>,
}

/// A stream: every record that was ever appended, by id.
#[derive(Clone, Debug, Default)]
pub struct Stream {
    /// By id.
    pub records: BTreeMap<u64, Record>,
    /// Its options; before their first offset it did not exist.
    pub options: Timeline<StreamOptions>,
    /// Records below count as absent.
    pub floor: Timeline<Offset>,
    /// Where its cursors stand.
    pub cursors: BTreeMap<String, Timeline<Offset>>,
}

impl Stream {
    /// Records with ids in a range of offsets.
    pub fn range(&self, from: Offset, to: Offset) -> impl Iterator<Item = (Offset, &Record)> {
        let end = to.0.max(from.0);
        self.records.range(from.0..end).map(|(id, record)| (Offset(*id), record))
    }
}
