//! Keyspaces and streams of the model: plain ordered maps that never forget.

use super::timeline::Timeline;
use naust_wire::Offset;
use naust_wire::options::{Compaction, KeyspaceOptions, StreamOptions};
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
    /// What was written, in order; see [`Keyspace::newest_write`].
    writes: Vec<Write>,
}

/// A write of one key, or of a range by a delete-range.
#[derive(Clone, Debug)]
struct Write {
    commit: Offset,
    from: Vec<u8>,
    extent: Extent,
}

#[derive(Clone, Debug)]
enum Extent {
    Key,
    To(Vec<u8>),
    End,
}

impl Write {
    fn touches(&self, from: &[u8], to: Option<&[u8]>) -> bool {
        let begins_before_the_end = to.is_none_or(|to| self.from.as_slice() < to);
        let ends_behind_the_beginning = match &self.extent {
            Extent::Key => self.from.as_slice() >= from,
            Extent::To(end) => end.as_slice() > from,
            Extent::End => true,
        };
        begins_before_the_end && ends_behind_the_beginning
    }
}

impl Keyspace {
    /// A commit puts a row, or (without a value) deletes it.
    pub fn write(&mut self, key: &[u8], at: Offset, value: Option<&[u8]>) {
        let row = self.rows.entry(key.to_vec()).or_default();
        row.set(at, value.map(<[u8]>::to_vec));
        let extent = Extent::Key;
        self.writes.push(Write { commit: at, from: key.to_vec(), extent });
    }

    /// A commit deletes the keys given, of a range that ends at `to`.
    pub fn delete_range(&mut self, keys: &[Vec<u8>], to: Option<&[u8]>, at: Offset) {
        let Some(first) = keys.first() else { return };
        let extent = to.map_or(Extent::End, |to| Extent::To(to.to_vec()));
        self.writes.push(Write { commit: at, from: first.clone(), extent });
        for key in keys {
            self.rows.entry(key.clone()).or_default().set(at, None);
        }
    }

    /// Whether its rows fall below a floor.
    #[must_use]
    pub fn is_fifo(&self) -> bool {
        self.options.last().is_some_and(|(_, options)| options.compaction == Compaction::Fifo)
    }

    /// Its floor moved, which counts as a write of all of it.
    pub fn note_floor(&mut self, at: Offset) {
        self.writes.push(Write { commit: at, from: Vec::new(), extent: Extent::End });
    }

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

    /// The newest write into a range after `since`. A delete-range counts as a write of everything
    /// from the first key that it removed to its end.
    #[must_use]
    pub fn newest_write(&self, from: &[u8], to: Option<&[u8]>, since: Offset) -> Option<Offset> {
        let newer = self.writes.iter().rev().take_while(|write| write.commit > since);
        newer.into_iter().find(|write| write.touches(from, to)).map(|write| write.commit)
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
