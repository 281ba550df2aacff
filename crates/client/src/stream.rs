//! A stream: a durable, append-only sequence of records.

use crate::client::unexpected;
use crate::{Error, Identity, IntoBytes, Namespace};
use naust_wire::Offset;
use naust_wire::control::Control;
use naust_wire::limits::WAIT_MS_MAX;
use naust_wire::options::StreamOptions;
use naust_wire::read::{Level, Query};
use naust_wire::reply::{Record, Reply};
use std::collections::VecDeque;
use std::sync::Arc;

/// A handle of a stream. Cheap to clone.
#[derive(Clone)]
pub struct Stream {
    namespace: Namespace,
    name: Arc<str>,
}

/// Records that were read.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Records {
    /// The records, in their order.
    pub records: Vec<Record>,
    /// Where to read on.
    pub next: Offset,
    /// Where the next record would be at the earliest.
    pub end: Offset,
}

/// How much to read, and how long to wait for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct ReadOptions {
    /// At most so many records; 0: the default of 1,000.
    pub limit: u32,
    /// At most about so many bytes; 0: the default.
    pub max_bytes: u32,
    /// Milliseconds to wait for the first record, when there is none yet.
    pub wait_ms: u32,
    /// How fresh the answer is.
    pub level: Level,
}

impl Stream {
    pub(crate) fn new(namespace: &Namespace, name: &str) -> Stream {
        Stream { namespace: namespace.clone(), name: name.into() }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Makes it, or changes, exactly once, what it keeps.
    ///
    /// # Errors
    /// `BadName`, `LimitReached` and the like.
    pub async fn set_options(&self, options: StreamOptions) -> Result<Offset, Error> {
        self.set_options_as(options, Identity::Client).await
    }

    /// The same, under an identity of the caller's choice.
    ///
    /// # Errors
    /// As [`Stream::set_options`], `SessionExpired` and `SequenceOutOfWindow`.
    pub async fn set_options_as(
        &self,
        options: StreamOptions,
        identity: Identity,
    ) -> Result<Offset, Error> {
        let control = Control::SetStream { name: self.name.to_string(), options };
        self.namespace.set(control, identity).await
    }

    /// Appends a record; gives its id.
    ///
    /// # Errors
    /// As [`Namespace::commit`].
    pub async fn append<'a>(&'a self, value: impl IntoBytes<'a>) -> Result<Offset, Error> {
        let done = self.namespace.commit(|c| c.append(&*self.name, value)).await?;
        let missing = || unexpected(&Reply::Done(done.offset));
        done.ids.first().copied().ok_or_else(missing)
    }

    /// Appends records in one commit: all of them or none; gives their ids.
    ///
    /// # Errors
    /// `TooLarge` when they don't fit a commit, and as [`Namespace::commit`].
    pub async fn append_many<'a, V: IntoBytes<'a>>(
        &self,
        values: impl IntoIterator<Item = V>,
    ) -> Result<Vec<Offset>, Error> {
        let add = |commit: crate::Commit<'a>, value: V| commit.append(self.name.to_string(), value);
        let done = self.namespace.commit(|c| values.into_iter().fold(c, add)).await?;
        Ok(done.ids)
    }

    /// Records with ids from `from` on.
    ///
    /// # Errors
    /// `StreamNotFound`, `OffsetTrimmed`, `Corrupt` and the like.
    pub async fn read(&self, from: Offset, options: ReadOptions) -> Result<Records, Error> {
        let ReadOptions { limit, max_bytes, wait_ms, level } = options;
        let stream = self.name.to_string();
        let query = Query::Records { stream, from, limit, max_bytes, wait_ms };
        match self.namespace.read(level, query).await? {
            Reply::Records { records, next, end } => Ok(Records { records, next, end }),
            other => Err(unexpected(&other)),
        }
    }

    /// All records from `from` on, those that are there and those that will come.
    #[must_use]
    pub fn follow(&self, from: Offset) -> Follow {
        Follow { stream: self.clone(), from, buffer: VecDeque::new() }
    }

    /// A cursor: a named, durable position of a reader.
    #[must_use]
    pub fn cursor(&self, name: &str) -> Cursor {
        Cursor { stream: self.clone(), name: name.into() }
    }
}

/// A stream that is followed.
#[derive(Clone)]
pub struct Follow {
    stream: Stream,
    from: Offset,
    buffer: VecDeque<Record>,
}

impl Follow {
    /// Where the next read begins: after everything that was given out, and what is buffered.
    #[must_use]
    pub fn position(&self) -> Offset {
        self.buffer.front().map_or(self.from, |record| record.offset)
    }

    /// The next record; waits for it as long as it takes. A call that is dropped loses nothing.
    ///
    /// # Errors
    /// As [`Stream::read`]; afterwards it can be called again.
    pub async fn next(&mut self) -> Result<Record, Error> {
        loop {
            if let Some(record) = self.buffer.pop_front() {
                return Ok(record);
            }
            let batch = self.next_batch().await?;
            self.buffer.extend(batch);
        }
    }

    /// The next records: at least one, and all that are there up to a page; waits for the first as
    /// long as it takes. A call that is dropped loses nothing.
    ///
    /// # Errors
    /// As [`Stream::read`]; afterwards it can be called again.
    pub async fn next_batch(&mut self) -> Result<Vec<Record>, Error> {
        if !self.buffer.is_empty() {
            return Ok(std::mem::take(&mut self.buffer).into());
        }
        let options = ReadOptions { wait_ms: FOLLOW_WAIT_MS, ..ReadOptions::default() };
        loop {
            let read = self.stream.read(self.from, options).await?;
            self.from = self.from.max(read.next);
            if !read.records.is_empty() {
                return Ok(read.records);
            }
        }
    }
}

/// How long one read of a followed stream waits before it is asked again.
const FOLLOW_WAIT_MS: u32 = 20_000;
const _: () = assert!(FOLLOW_WAIT_MS as u64 <= WAIT_MS_MAX);

/// A handle of a cursor.
#[derive(Clone)]
pub struct Cursor {
    stream: Stream,
    name: Arc<str>,
}

impl Cursor {
    /// Where it stands; none if it was never moved.
    ///
    /// # Errors
    /// `StreamNotFound` and the like.
    pub async fn get(&self) -> Result<Option<Offset>, Error> {
        let (stream, cursor) = (self.stream.name.to_string(), self.name.to_string());
        let query = Query::Cursor { stream, cursor };
        match self.stream.namespace.read(Level::Linearizable, query).await? {
            Reply::Cursor(offset) => Ok(offset),
            other => Err(unexpected(&other)),
        }
    }

    /// Moves it: the reader is done with everything below `offset`.
    ///
    /// # Errors
    /// As [`Namespace::commit`].
    pub async fn advance(&self, offset: Offset) -> Result<Offset, Error> {
        let (stream, cursor) = (&*self.stream.name, &*self.name);
        let done = self.stream.namespace.commit(|c| c.advance(stream, cursor, offset)).await?;
        Ok(done.offset)
    }
}
