//! What can happen to a node: the closed list of [`Event`]s.

use naust_wire::options::NamespaceOptions;
use naust_wire::{Index, Offset, ShardId};

/// The moment an event is handled at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Now {
    /// Milliseconds of a clock that never goes back, from any zero.
    pub monotonic_ms: u64,
    /// Milliseconds since 1970-01-01T00:00:00Z by the wall clock, which may jump.
    pub wall_ms: u64,
}

/// A connection, or an embedded client, as the shell numbers them. Never reused within a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

/// What happened.
pub enum Event<'a> {
    /// A run of whole packets from one connection, for shards of this worker (or for the node), in their order.
    Packets {
        /// Who asks.
        from: ConnectionId,
        /// Whole packets, one after the other.
        bytes: &'a [u8],
    },
    /// A connection is gone: nothing may be sent to it any more.
    Closed(ConnectionId),
    /// A disk thread ended a write.
    Written {
        /// Whose.
        shard: ShardId,
        /// How.
        written: naust_log::Written,
    },
    /// A background thread ended a zero-fill.
    Extended {
        /// Whose.
        shard: ShardId,
        /// How.
        extended: naust_log::Extended,
    },
    /// A background thread ended a trim.
    Trimmed {
        /// Whose.
        shard: ShardId,
        /// How.
        trimmed: naust_log::Trimmed,
    },
    /// The views thread folded something in.
    Progress(Progress),
    /// A shard was opened in the background; its views part went to the views thread before.
    Opened(Box<crate::open::ForWorker>),
    /// The directory changed: told to every worker.
    Directory(DirectoryChange),
    /// Time passed; sent about every [`crate::TICK_MS`].
    Tick,
    /// Take no new requests, finish what is under way, then say [`Effect::Drained`](crate::Effect::Drained).
    Drain,
}

/// How far a shard's views are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Whose.
    pub shard: ShardId,
    /// The last frame folded in.
    pub applied: Offset,
    /// Where the next frame begins.
    pub next: Offset,
    /// Its index.
    pub index: Index,
    /// Commits that wait for memtables or compaction: the worker refuses new ones past its bound.
    pub backlog_bytes: u64,
    /// Log below this is needed by no table and no record, and may be trimmed.
    pub trim: Option<naust_log::TrimInput>,
    /// Floors that a leader should propose now, as encoded `Control` bodies.
    pub floors: Option<Vec<u8>>,
}

/// A namespace came or went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DirectoryChange {
    /// It exists now (also told for each one at start).
    Created {
        /// Its name.
        name: String,
        /// Its shard.
        shard: ShardId,
        /// Its options.
        options: NamespaceOptions,
    },
    /// It is gone; its shard is closed and its directory removed.
    Deleted {
        /// Its name.
        name: String,
        /// Its shard.
        shard: ShardId,
    },
}
