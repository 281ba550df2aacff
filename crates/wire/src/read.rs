//! Questions to a shard. Not logged.

use crate::code::Code;
use crate::commit::{check_key, check_range, range_end};
use crate::ids::Offset;
use crate::limits::{
    KEY_BYTES_MAX, LOG_READ_BYTES_MAX, NAME_BYTES_MAX, PAGE_BYTES_MAX, PAGE_ROWS_MAX, WAIT_MS_MAX,
};
use crate::message::{Message, Refusal, bounded, build, data, text};
use crate::name;
use crate::naust_capnp as schema;

/// How fresh an answer must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Level {
    /// Sees every commit acknowledged before the question was asked. The default.
    #[default]
    Linearizable,
    /// Sees at least the commits up to this offset, on any replica.
    AtLeast(Offset),
    /// Sees exactly the commits up to and including this offset.
    Exactly(Offset),
    /// Whatever this replica has applied.
    Local,
}

/// A question and how fresh its answer must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    /// How fresh.
    pub level: Level,
    /// What is asked.
    pub query: Query,
}

/// What is asked.
#[allow(missing_docs)]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Query {
    /// One row.
    Get { keyspace: String, key: Vec<u8> },
    /// Rows in `from` (inclusive) to `to` (exclusive; `None`: to the end). `limit` and `max_bytes`
    /// 0: the defaults.
    Scan {
        keyspace: String,
        from: Vec<u8>,
        to: Option<Vec<u8>>,
        reverse: bool,
        limit: u32,
        max_bytes: u32,
    },
    /// Records of a stream with ids ≥ `from`; waits up to `wait_ms` for the first.
    Records { stream: String, from: Offset, limit: u32, max_bytes: u32, wait_ms: u32 },
    /// Where a cursor stands.
    Cursor { stream: String, cursor: String },
    /// Whole committed frames from `from` on, raw; waits up to `wait_ms` for the first.
    Log { from: Offset, max_bytes: u32, wait_ms: u32 },
    /// The namespace's keyspaces and then its streams, each in the order in which they were made:
    /// a page of them, which begins with `from` (`None`: with the first). `limit` 0: the default.
    Describe { from: Option<Named>, limit: u32 },
    /// The digests of its views that the replica noted at the entry `NoteDigests` at this offset.
    Digests { at: Offset },
}

/// A keyspace or a stream, by its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Named {
    /// A keyspace.
    Keyspace(String),
    /// A stream.
    Stream(String),
}

impl Named {
    /// The name alone.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Named::Keyspace(name) | Named::Stream(name) => name,
        }
    }

    /// Reads one that may be missing: then its name is empty.
    pub(crate) fn read(
        name: capnp::text::Reader<'_>,
        is_stream: bool,
    ) -> Result<Option<Named>, Refusal> {
        let name = text(name, NAME_BYTES_MAX)?;
        Ok(match (name.is_empty(), is_stream) {
            (true, _) => None,
            (false, true) => Some(Named::Stream(name)),
            (false, false) => Some(Named::Keyspace(name)),
        })
    }
}

impl Read {
    /// Refuses what no node takes, whatever its state: bad names, keys and ranges, and limits over
    /// what a page may have. The decoder does it too; a client does it before it sends.
    ///
    /// # Errors
    /// `BadName`, `KeySize`, `BadArgument` or `TooLarge`.
    pub fn check(&self) -> Result<(), Refusal> {
        match &self.query {
            Query::Get { keyspace, key } => {
                name::check(keyspace)?;
                check_key(key)
            }
            Query::Scan { keyspace, from, to, limit, max_bytes, .. } => {
                name::check(keyspace)?;
                check_range(from, to.as_deref())?;
                check_page(*limit, *max_bytes)
            }
            Query::Records { stream, limit, max_bytes, wait_ms, .. } => {
                name::check(stream)?;
                check_page(*limit, *max_bytes)?;
                check_wait(*wait_ms)
            }
            Query::Cursor { stream, cursor } => {
                name::check(stream)?;
                name::check(cursor)
            }
            Query::Log { max_bytes, wait_ms, .. } => {
                bounded("bytes asked of the log", *max_bytes as usize, LOG_READ_BYTES_MAX)?;
                check_wait(*wait_ms)
            }
            Query::Describe { from, limit } => {
                bounded("names in a page", *limit as usize, PAGE_ROWS_MAX)?;
                from.as_ref().map_or(Ok(()), |from| name::check(from.name()))
            }
            Query::Digests { .. } => Ok(()),
        }
    }

    /// Appends the question's bytes to `out`: a packet's body.
    pub fn encode(&self, out: &mut Vec<u8>) {
        build::<schema::read::Owned>(self.words(), out, |mut root| {
            let mut level = root.reborrow().init_level();
            match self.level {
                Level::Linearizable => level.set_linearizable(()),
                Level::AtLeast(offset) => level.set_at_least(offset.0),
                Level::Exactly(offset) => level.set_exactly(offset.0),
                Level::Local => level.set_local(()),
            }
            write_query(&self.query, root);
        });
    }

    fn words(&self) -> usize {
        let bytes = match &self.query {
            Query::Get { keyspace, key } => keyspace.len() + key.len(),
            Query::Scan { keyspace, from, to, .. } => {
                keyspace.len() + from.len() + to.as_ref().map_or(0, Vec::len)
            }
            _ => 0,
        };
        32 + bytes / 8
    }

    /// Reads a question from its bytes, and checks it.
    ///
    /// # Errors
    /// `Malformed`, `UnknownKind`, or as [`Read::check`].
    pub fn decode(body: &[u8]) -> Result<Read, Refusal> {
        use schema::read::level::Which;
        let message = Message::once(body)?;
        let root: schema::read::Reader<'_> = message.root()?;
        let level = match root.get_level().which()? {
            Which::Linearizable(()) => Level::Linearizable,
            Which::AtLeast(offset) => Level::AtLeast(Offset(offset)),
            Which::Exactly(offset) => Level::Exactly(Offset(offset)),
            Which::Local(()) => Level::Local,
        };
        let read = Read { level, query: read_query(root)? };
        read.check()?;
        Ok(read)
    }
}

fn check_page(limit: u32, max_bytes: u32) -> Result<(), Refusal> {
    bounded("rows or records in a page", limit as usize, PAGE_ROWS_MAX)?;
    bounded("bytes in a page", max_bytes as usize, PAGE_BYTES_MAX)
}

fn check_wait(wait_ms: u32) -> Result<(), Refusal> {
    if u64::from(wait_ms) > WAIT_MS_MAX {
        let detail = format!("a wait of {wait_ms} ms; at most {WAIT_MS_MAX} it can be");
        return Err(Refusal::new(Code::BadArgument, detail));
    }
    Ok(())
}

fn write_query(query: &Query, mut root: schema::read::Builder<'_>) {
    match query {
        Query::Get { keyspace, key } => {
            let mut to = root.init_get();
            to.set_get_keyspace(keyspace);
            to.set_key(key);
        }
        Query::Scan { keyspace, from, to, reverse, limit, max_bytes } => {
            let mut scan = root.init_scan();
            scan.set_scan_keyspace(keyspace);
            scan.set_from(from);
            scan.set_to(to.as_deref().unwrap_or_default());
            scan.set_unbounded(to.is_none());
            scan.set_reverse(*reverse);
            scan.set_limit(*limit);
            scan.set_max_bytes(*max_bytes);
        }
        Query::Records { stream, from, limit, max_bytes, wait_ms } => {
            let mut to = root.init_records();
            to.set_stream(stream);
            to.set_after(from.0);
            to.set_record_limit(*limit);
            to.set_record_bytes(*max_bytes);
            to.set_wait_ms(*wait_ms);
        }
        Query::Cursor { stream, cursor } => {
            let mut to = root.init_cursor();
            to.set_cursor_stream(stream);
            to.set_cursor_name(cursor);
        }
        Query::Log { from, max_bytes, wait_ms } => {
            let mut to = root.init_log();
            to.set_log_from(from.0);
            to.set_log_bytes(*max_bytes);
            to.set_log_wait_ms(*wait_ms);
        }
        Query::Describe { from, limit } => {
            let mut to = root.init_describe();
            to.set_describe_from(from.as_ref().map_or("", Named::name));
            to.set_describe_streams(matches!(from, Some(Named::Stream(_))));
            to.set_describe_limit(*limit);
        }
        Query::Digests { at } => root.set_digests(at.0),
    }
}

fn read_query(root: schema::read::Reader<'_>) -> Result<Query, Refusal> {
    use schema::read::Which;
    Ok(match root.which()? {
        Which::Get(from) => Query::Get {
            keyspace: text(from.get_get_keyspace()?, NAME_BYTES_MAX)?,
            key: key(from.get_key()?)?,
        },
        Which::Scan(scan) => Query::Scan {
            keyspace: text(scan.get_scan_keyspace()?, NAME_BYTES_MAX)?,
            from: key(scan.get_from()?)?,
            to: range_end(scan.get_to()?, scan.get_unbounded())?.map(key).transpose()?,
            reverse: scan.get_reverse(),
            limit: scan.get_limit(),
            max_bytes: scan.get_max_bytes(),
        },
        Which::Records(from) => Query::Records {
            stream: text(from.get_stream()?, NAME_BYTES_MAX)?,
            from: Offset(from.get_after()),
            limit: from.get_record_limit(),
            max_bytes: from.get_record_bytes(),
            wait_ms: from.get_wait_ms(),
        },
        Which::Cursor(from) => Query::Cursor {
            stream: text(from.get_cursor_stream()?, NAME_BYTES_MAX)?,
            cursor: text(from.get_cursor_name()?, NAME_BYTES_MAX)?,
        },
        Which::Log(from) => Query::Log {
            from: Offset(from.get_log_from()),
            max_bytes: from.get_log_bytes(),
            wait_ms: from.get_log_wait_ms(),
        },
        Which::Describe(from) => Query::Describe {
            from: Named::read(from.get_describe_from()?, from.get_describe_streams())?,
            limit: from.get_describe_limit(),
        },
        Which::Digests(at) => Query::Digests { at: Offset(at) },
    })
}

/// Copies a key or a bound of a range.
fn key(bytes: &[u8]) -> Result<Vec<u8>, Refusal> {
    check_range(bytes, None)?;
    data(bytes, KEY_BYTES_MAX)
}
