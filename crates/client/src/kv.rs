//! A keyspace: an ordered map from bytes to bytes.

use crate::client::unexpected;
use crate::{Error, Identity, IntoBytes, Namespace};
use naust_wire::Offset;
use naust_wire::control::Control;
use naust_wire::options::KeyspaceOptions;
use naust_wire::read::{Level, Query};
use naust_wire::reply::{Entry, RangeDeleted, Reply};
use std::collections::VecDeque;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

/// A handle of a keyspace. Cheap to clone.
#[derive(Clone)]
pub struct Kv {
    namespace: Namespace,
    name: Arc<str>,
}

/// A row that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Its value.
    pub value: Vec<u8>,
    /// Its version: the offset of the commit that wrote it.
    pub version: Offset,
}

/// What a read of one key found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// As of this offset.
    pub at: Offset,
    /// The row, if there is one.
    pub row: Option<Row>,
}

impl Kv {
    pub(crate) fn new(namespace: &Namespace, name: &str) -> Kv {
        Kv { namespace: namespace.clone(), name: name.into() }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Makes it, or changes, exactly once, its options.
    ///
    /// # Errors
    /// `OptionsConflict` when what exists can't be changed in this way, `BadArgument` and the like.
    pub async fn set_options(&self, options: KeyspaceOptions) -> Result<Offset, Error> {
        self.set_options_as(options, Identity::Client).await
    }

    /// The same, under an identity of the caller's choice.
    ///
    /// # Errors
    /// As [`Kv::set_options`], `SessionExpired` and `SequenceOutOfWindow`.
    pub async fn set_options_as(
        &self,
        options: KeyspaceOptions,
        identity: Identity,
    ) -> Result<Offset, Error> {
        let control = Control::SetKeyspace { name: self.name.to_string(), options };
        self.namespace.set(control, identity).await
    }

    /// The value of a key now, linearizably.
    ///
    /// # Errors
    /// `KeyspaceNotFound`, `KeySize` and the like.
    pub async fn get<'a>(&self, key: impl IntoBytes<'a>) -> Result<Option<Vec<u8>>, Error> {
        Ok(self.get_at(key, Level::Linearizable).await?.row.map(|row| row.value))
    }

    /// A row as fresh, or as old, as `level` says, with its version.
    ///
    /// # Errors
    /// `OffsetTrimmed` when [`Level::Exactly`] names an offset below the history, and as
    /// [`Kv::get`].
    pub async fn get_at<'a>(&self, key: impl IntoBytes<'a>, level: Level) -> Result<Found, Error> {
        let key = key.into_bytes().into_owned();
        let query = Query::Get { keyspace: self.name.to_string(), key };
        match self.namespace.read(level, query).await? {
            Reply::Row { at, row } => {
                Ok(Found { at, row: row.map(|(version, value)| Row { value, version }) })
            }
            other => Err(unexpected(&other)),
        }
    }

    /// Puts a row; gives its version.
    ///
    /// # Errors
    /// As [`Namespace::commit`].
    pub async fn put<'a>(
        &'a self,
        key: impl IntoBytes<'a>,
        value: impl IntoBytes<'a>,
    ) -> Result<Offset, Error> {
        let done = self.namespace.commit(|c| c.put(&*self.name, key, value)).await?;
        Ok(done.offset)
    }

    /// Puts a row if its version is still `version` (zero: if there is none).
    ///
    /// # Errors
    /// `ConditionFailed`, and as [`Namespace::commit`].
    pub async fn put_if<'a>(
        &'a self,
        key: impl IntoBytes<'a>,
        value: impl IntoBytes<'a>,
        version: Offset,
    ) -> Result<Offset, Error> {
        let key = key.into_bytes();
        let commit = self.namespace.commit(|c| {
            c.if_version(&*self.name, key.clone(), version).put(&*self.name, key, value)
        });
        Ok(commit.await?.offset)
    }

    /// Removes a row.
    ///
    /// # Errors
    /// As [`Namespace::commit`].
    pub async fn delete<'a>(&'a self, key: impl IntoBytes<'a>) -> Result<Offset, Error> {
        Ok(self.namespace.commit(|c| c.delete(&*self.name, key)).await?.offset)
    }

    /// Removes the rows of a range, at most 10,000; what it gives says where to go on.
    ///
    /// # Errors
    /// As [`Namespace::commit`].
    pub async fn delete_range<K: AsRef<[u8]>>(
        &self,
        range: impl RangeBounds<K>,
    ) -> Result<RangeDeleted, Error> {
        let (from, to) = ends(&range);
        let to = to.map(Into::into);
        let done = self.namespace.commit(|c| c.delete_range(&*self.name, from, to)).await?;
        Ok(done.ranges.into_iter().next().unwrap_or_default())
    }

    /// The rows of a range, in the order of their keys.
    #[must_use]
    pub fn range<K: AsRef<[u8]>>(&self, range: impl RangeBounds<K>) -> Scan {
        let (from, to) = ends(&range);
        Scan::new(self, from, to)
    }

    /// All rows, in the order of their keys.
    #[must_use]
    pub fn all(&self) -> Scan {
        Scan::new(self, Vec::new(), None)
    }

    /// The rows whose keys begin with `prefix`, in the order of their keys.
    #[must_use]
    pub fn prefix<'a>(&self, prefix: impl IntoBytes<'a>) -> Scan {
        let from = prefix.into_bytes().into_owned();
        let to = after_prefix(&from);
        Scan::new(self, from, to)
    }
}

/// Rows of a range, read page by page.
///
/// All pages are of one offset: the first page finds it (at the scan's level), the others are read
/// exactly there. A scan that takes longer than the namespace's window of history ends with
/// `OffsetTrimmed`.
#[derive(Clone)]
pub struct Scan {
    kv: Kv,
    from: Vec<u8>,
    to: Option<Vec<u8>>,
    reverse: bool,
    page_rows: u32,
    /// Rows still wanted.
    wanted: u64,
    level: Level,
    done: bool,
    buffer: VecDeque<Entry>,
}

/// A page of a scan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// As of this offset.
    pub at: Offset,
    /// The rows.
    pub entries: Vec<Entry>,
    /// Where the next page begins (where it ends, when reversed); none on the last.
    pub next: Option<Vec<u8>>,
}

impl Scan {
    fn new(kv: &Kv, from: Vec<u8>, to: Option<Vec<u8>>) -> Scan {
        Scan {
            kv: kv.clone(),
            from,
            to,
            reverse: false,
            page_rows: 0,
            wanted: u64::MAX,
            level: Level::Linearizable,
            done: false,
            buffer: VecDeque::new(),
        }
    }

    /// From the last key to the first.
    #[must_use]
    pub fn reverse(mut self) -> Scan {
        self.reverse = true;
        self
    }

    /// At most so many rows in all.
    #[must_use]
    pub fn limit(mut self, rows: u64) -> Scan {
        self.wanted = rows;
        self
    }

    /// At most so many rows a page; 0: the default of 1,000.
    #[must_use]
    pub fn page_rows(mut self, rows: u32) -> Scan {
        self.page_rows = rows;
        self
    }

    /// How fresh the first page is.
    #[must_use]
    pub fn level(mut self, level: Level) -> Scan {
        self.level = level;
        self
    }

    /// The next page, or none after the last. A page may have no rows and still not be the last. A
    /// call that is dropped before it gave a page loses nothing: the next one asks for the same
    /// page.
    ///
    /// # Errors
    /// As [`Kv::get_at`]; after an error the same page can be asked for again.
    pub async fn next_page(&mut self) -> Result<Option<Page>, Error> {
        if self.done || self.wanted == 0 {
            return Ok(None);
        }
        let rows = match self.page_rows {
            0 => naust_wire::limits::PAGE_ROWS_DEFAULT as u64,
            rows => u64::from(rows),
        };
        let query = Query::Scan {
            keyspace: self.kv.name.to_string(),
            from: self.from.clone(),
            to: self.to.clone(),
            reverse: self.reverse,
            limit: u32::try_from(rows.min(self.wanted)).unwrap_or(u32::MAX),
            max_bytes: 0,
        };
        let (at, entries, next) = match self.kv.namespace.read(self.level, query).await? {
            Reply::Rows { at, entries, next } => (at, entries, next),
            other => return Err(unexpected(&other)),
        };
        self.level = Level::Exactly(at);
        self.wanted = self.wanted.saturating_sub(entries.len() as u64);
        match &next {
            None => self.done = true,
            Some(next) if self.reverse => self.to = Some(next.clone()),
            Some(next) => self.from.clone_from(next),
        }
        Ok(Some(Page { at, entries, next }))
    }

    /// The next row, or none after the last. It reads a page when it has none left.
    ///
    /// # Errors
    /// As [`Scan::next_page`].
    pub async fn next(&mut self) -> Result<Option<Entry>, Error> {
        loop {
            if let Some(entry) = self.buffer.pop_front() {
                return Ok(Some(entry));
            }
            match self.next_page().await? {
                Some(page) => self.buffer.extend(page.entries),
                None => return Ok(None),
            }
        }
    }
}

/// The ends of a range as `from` inclusive and `to` exclusive.
fn ends<K: AsRef<[u8]>>(range: &impl RangeBounds<K>) -> (Vec<u8>, Option<Vec<u8>>) {
    let from = match range.start_bound() {
        Bound::Unbounded => Vec::new(),
        Bound::Included(key) => key.as_ref().to_vec(),
        Bound::Excluded(key) => after_key(key.as_ref()),
    };
    let to = match range.end_bound() {
        Bound::Unbounded => None,
        Bound::Included(key) => Some(after_key(key.as_ref())),
        Bound::Excluded(key) => Some(key.as_ref().to_vec()),
    };
    (from, to)
}

/// The least key after a key.
fn after_key(key: &[u8]) -> Vec<u8> {
    [key, &[0]].concat()
}

/// The least key after all that begin with `prefix`; none if there is no such key.
#[must_use]
pub fn after_prefix(prefix: &[u8]) -> Option<Vec<u8>> {
    let kept = prefix.iter().rposition(|byte| *byte != u8::MAX)?;
    let mut end = prefix[..=kept].to_vec();
    end[kept] += 1;
    Some(end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ranges_become_from_and_to() {
        let of = |range: (Bound<&str>, Bound<&str>)| ends::<&str>(&range);
        let (a, b) = ("a", "b");
        assert_eq!(of((Bound::Unbounded, Bound::Unbounded)), (vec![], None));
        assert_eq!(ends(&(a..b)), (b"a".to_vec(), Some(b"b".to_vec())));
        assert_eq!(ends(&(a..=b)), (b"a".to_vec(), Some(b"b\0".to_vec())));
        assert_eq!(of((Bound::Excluded(a), Bound::Unbounded)), (b"a\0".to_vec(), None));
    }

    proptest! {
        /// A key lies between a prefix and its end exactly if it begins with it.
        #[test]
        fn prefixes_end_where_they_should(
            prefix in proptest::collection::vec(prop_oneof![Just(0xff_u8), any::<u8>()], 0..4),
            key in proptest::collection::vec(prop_oneof![Just(0xff_u8), any::<u8>()], 0..6),
            joined: bool,
        ) {
            let key = if joined { [prefix.clone(), key].concat() } else { key };
            let before_end = after_prefix(&prefix).is_none_or(|end| key < end);
            prop_assert_eq!(key >= prefix && before_end, key.starts_with(&prefix));
        }
    }
}
