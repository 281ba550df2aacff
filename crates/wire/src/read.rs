//! Questions to a shard. Not logged.

use crate::ids::Offset;

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
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Query {
    /// One row.
    Get { keyspace: String, key: Vec<u8> },
    /// Rows in `from` (inclusive) to `to` (exclusive; `None`: to the end). `limit` and `max_bytes` 0: the defaults.
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
    /// The namespace's keyspaces and streams.
    Describe,
}
