//! Optimistic transactions: reads at one offset, writes that wait, and a commit on the condition
//! that nothing that was read has changed. They are serializable over a whole namespace, and hold
//! no locks.

use crate::client::unexpected;
use crate::core::Identity;
use crate::kv::after_prefix;
use crate::{Error, IntoBytes, Namespace};
use naust_wire::Offset;
use naust_wire::commit::{Draft, DraftCondition, DraftOp};
use naust_wire::limits::PAGE_ROWS_DEFAULT;
use naust_wire::read::{Level, Query};
use naust_wire::reply::{Committed, Entry, Reply};

/// A transaction under way. Dropping it undoes it: nothing was written yet.
///
/// The first read chooses the offset, linearizably; all others are of that offset, but for the
/// transaction's own puts and deletes of single keys, which [`Transaction::get`] sees.
/// [`Transaction::range`] sees the offset only. A transaction that takes longer than the
/// namespace's window of history ends with `OffsetTrimmed`.
pub struct Transaction {
    namespace: Namespace,
    draft: Draft<'static>,
    at: Option<Offset>,
}

impl Transaction {
    pub(crate) fn new(namespace: &Namespace) -> Transaction {
        Transaction { namespace: namespace.clone(), draft: Draft::default(), at: None }
    }

    /// The offset that it reads at, once it has read.
    #[must_use]
    pub fn at(&self) -> Option<Offset> {
        self.at
    }

    /// The value of a key, and from now on the condition that it stays.
    ///
    /// # Errors
    /// As [`crate::Kv::get_at`].
    pub async fn get<'a>(
        &mut self,
        keyspace: &str,
        key: impl IntoBytes<'a>,
    ) -> Result<Option<Vec<u8>>, Error> {
        let key = key.into_bytes().into_owned();
        if let Some(written) = self.written(keyspace, &key) {
            return Ok(written);
        }
        let query = Query::Get { keyspace: keyspace.to_owned(), key: key.clone() };
        let (at, row) = match self.namespace.read(self.level(), query).await? {
            Reply::Row { at, row } => (at, row),
            other => return Err(unexpected(&other)),
        };
        self.at = Some(at);
        let version = row.as_ref().map_or(Offset::ZERO, |(version, _)| *version);
        self.expect(keyspace, key, version)?;
        Ok(row.map(|(_, value)| value))
    }

    /// The rows of `from` (inclusive) to `to` (exclusive; `None`: to the end), all of them, at most
    /// `limit`; and from now on the condition that nothing is written into what was read of that
    /// range.
    ///
    /// # Errors
    /// As [`crate::Kv::get_at`].
    pub async fn range<'a>(
        &mut self,
        keyspace: &str,
        from: impl IntoBytes<'a>,
        to: Option<Vec<u8>>,
        limit: usize,
    ) -> Result<Vec<Entry>, Error> {
        let first = from.into_bytes().into_owned();
        let (mut rows, mut from) = (Vec::new(), Some(first.clone()));
        while let Some(start) = from.take() {
            let wanted = (limit - rows.len()).min(PAGE_ROWS_DEFAULT);
            if wanted == 0 {
                from = Some(start);
                break;
            }
            let query = Query::Scan {
                keyspace: keyspace.to_owned(),
                from: start,
                to: to.clone(),
                reverse: false,
                limit: u32::try_from(wanted).expect("a page has less than 2^32 rows"),
                max_bytes: 0,
            };
            match self.namespace.read(self.level(), query).await? {
                Reply::Rows { at, entries, next } => {
                    self.at = Some(at);
                    rows.extend(entries);
                    from = next;
                }
                other => return Err(unexpected(&other)),
            }
        }
        let (Some(since), read_to) = (self.at, from.or(to)) else { return Ok(rows) };
        self.draft.unchanged(keyspace.to_owned(), first, read_to.map(Into::into), since)?;
        Ok(rows)
    }

    /// The rows whose keys begin with `prefix`; as [`Transaction::range`].
    ///
    /// # Errors
    /// As [`crate::Kv::get_at`].
    pub async fn prefix<'a>(
        &mut self,
        keyspace: &str,
        prefix: impl IntoBytes<'a>,
        limit: usize,
    ) -> Result<Vec<Entry>, Error> {
        let from = prefix.into_bytes().into_owned();
        let to = after_prefix(&from);
        self.range(keyspace, from, to, limit).await
    }

    /// Puts a row when it is committed.
    ///
    /// # Errors
    /// `BadName` or `TooLarge`.
    pub fn put<'a>(
        &mut self,
        keyspace: &str,
        key: impl IntoBytes<'a>,
        value: impl IntoBytes<'a>,
    ) -> Result<(), Error> {
        let (key, value) = (key.into_bytes().into_owned(), value.into_bytes().into_owned());
        Ok(self.draft.put(keyspace.to_owned(), key, value)?)
    }

    /// Removes a row when it is committed.
    ///
    /// # Errors
    /// `BadName` or `TooLarge`.
    pub fn delete<'a>(&mut self, keyspace: &str, key: impl IntoBytes<'a>) -> Result<(), Error> {
        Ok(self.draft.delete(keyspace.to_owned(), key.into_bytes().into_owned())?)
    }

    /// Appends a record when it is committed.
    ///
    /// # Errors
    /// `BadName` or `TooLarge`.
    pub fn append<'a>(&mut self, stream: &str, value: impl IntoBytes<'a>) -> Result<(), Error> {
        Ok(self.draft.append(stream.to_owned(), value.into_bytes().into_owned())?)
    }

    /// Moves a cursor when it is committed.
    ///
    /// # Errors
    /// `BadName` or `TooLarge`.
    pub fn advance(&mut self, stream: &str, cursor: &str, offset: Offset) -> Result<(), Error> {
        Ok(self.draft.advance(stream.to_owned(), cursor.to_owned(), offset)?)
    }

    /// Commits. What only read needs no commit: all its reads were of one offset, and that is what
    /// it gives.
    ///
    /// # Errors
    /// `ConditionFailed` when something that was read has changed, and as [`Namespace::commit`].
    pub async fn commit(self) -> Result<Committed, Error> {
        if self.draft.ops.is_empty() {
            return Ok(Committed { offset: self.at.unwrap_or_default(), ..Committed::default() });
        }
        self.namespace.commit_draft(&self.draft, Identity::Client).await
    }

    fn level(&self) -> Level {
        self.at.map_or(Level::Linearizable, Level::Exactly)
    }

    /// What this transaction wrote at a key last: `None` if nothing, `Some(None)` if it removed it.
    fn written(&self, keyspace: &str, key: &[u8]) -> Option<Option<Vec<u8>>> {
        let index = self.draft.names.iter().position(|name| name == keyspace)?;
        self.draft.ops.iter().rev().find_map(|op| match op {
            DraftOp::Put { space, key: k, value }
                if usize::from(*space) == index && **k == *key =>
            {
                Some(Some(value.to_vec()))
            }
            DraftOp::Delete { space, key: k } if usize::from(*space) == index && **k == *key => {
                Some(None)
            }
            _ => None,
        })
    }

    /// The condition that a key stays at a version; once is enough.
    fn expect(&mut self, keyspace: &str, key: Vec<u8>, version: Offset) -> Result<(), Error> {
        let space = self.draft.name(keyspace.to_owned())?;
        let condition = match version {
            Offset::ZERO => DraftCondition::Absent { space, key: key.into() },
            offset => DraftCondition::Version { space, key: key.into(), offset },
        };
        if !self.draft.conditions.contains(&condition) {
            self.draft.conditions.push(condition);
        }
        Ok(())
    }
}

impl Namespace {
    /// Runs `body` in a transaction and commits it; when something that it read has changed
    /// meanwhile, runs it again from the start, at most `attempts` times in all.
    ///
    /// # Errors
    /// `ConditionFailed` after the last attempt; any other error of `body` or of the commit at
    /// once.
    pub async fn transact<T>(
        &self,
        attempts: u32,
        mut body: impl AsyncFnMut(&mut Transaction) -> Result<T, Error>,
    ) -> Result<(T, Committed), Error> {
        let mut attempt = 1;
        loop {
            let mut transaction = self.transaction();
            let value = body(&mut transaction).await?;
            match transaction.commit().await {
                Ok(committed) => return Ok((value, committed)),
                Err(error) if error.is_conflict() && attempt < attempts => attempt += 1,
                Err(error) => return Err(error),
            }
        }
    }
}
