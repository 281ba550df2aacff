//! Replies, as plain values, and their way in and out of packets.
//!
//! The hot ones are written without building a value first: [`write_committed`], [`write_row`],
//! [`write_frames`], and the pages of [`RowsWriter`] and [`RecordsWriter`]. [`write()`] takes any.

mod decode;
mod encode;
mod pages;

pub use encode::{write, write_committed, write_frames, write_row};
pub use pages::{RecordsWriter, RowsWriter};

use crate::code::{Code, Outcome};
use crate::ids::{NodeId, Offset, SessionId, ShardId};
use crate::options::{KeyspaceOptions, NamespaceOptions, StreamOptions};
use crate::read::Named;

/// A reply.
#[allow(missing_docs)]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// The request failed.
    Error(Failure),
    /// The commit happened, whole.
    Committed(Committed),
    /// A condition failed; nothing happened.
    Refused(Refused),
    /// A session was opened.
    Session(SessionId),
    /// Answer to `Get`, as of `at`.
    Row { at: Offset, row: Option<(Offset, Vec<u8>)> },
    /// Answer to `Scan`, as of `at`. `next`: where the following page begins (where it ends, when
    /// reversed).
    Rows { at: Offset, entries: Vec<Entry>, next: Option<Vec<u8>> },
    /// Answer to `Records`. `next`: the `from` of the following read; `end`: where the next record
    /// would be at the earliest.
    Records { records: Vec<Record>, next: Offset, end: Offset },
    /// Answer to `Cursor`.
    Cursor(Option<Offset>),
    /// Answer to `Log`: whole frames from `first` to `next`; the committed log ends at `end`.
    Frames { first: Offset, data: Vec<u8>, next: Offset, end: Offset },
    /// A control entry was applied at this offset.
    Done(Offset),
    /// Answer to `Hello`.
    Hello { node: NodeId, version: String, cluster: u64 },
    /// Answer to `Resolve`.
    Resolved { shard: ShardId, leader: NodeId },
    /// Answer to `Namespaces`. `next`: the `from` of the following page.
    Namespaces { namespaces: Vec<Namespace>, next: Option<String> },
    /// Answer to `Cluster`. `next`: the `from` of the following page.
    Cluster { nodes: Vec<Node>, namespaces: Vec<Namespace>, next: Option<String> },
    /// Answer to `Describe`. `next`: the `from` of the following page.
    Described {
        at: Offset,
        floor: Offset,
        keyspaces: Vec<Keyspace>,
        streams: Vec<Stream>,
        next: Option<Named>,
    },
    /// Answer to `Digests`.
    Digests(Vec<ViewDigest>),
}

/// A failed request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The stable code.
    pub code: Code,
    /// What became of it.
    pub outcome: Outcome,
    /// What is wrong and what to do, in a sentence.
    pub detail: String,
    /// Another node's address that may do better; with `OffsetTrimmed` of the log, the offset at
    /// which it goes on; or empty.
    pub hint: String,
}

impl Failure {
    /// A failure with its code's usual outcome and no hint.
    pub fn new(code: Code, detail: impl Into<String>) -> Failure {
        Failure { code, outcome: code.outcome(), detail: detail.into(), hint: String::new() }
    }
}

/// A commit that happened.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Committed {
    /// Where: the revision of everything it did.
    pub offset: Offset,
    /// Ids of the appended records, in the order of the appends.
    pub ids: Vec<Offset>,
    /// What each delete-range did, in their order.
    pub ranges: Vec<RangeDeleted>,
    /// It was answered again, not applied again.
    pub duplicate: bool,
    /// It was acknowledged before it was synced, as the namespace's durability asks.
    pub interval: bool,
}

/// What a delete-range did.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct RangeDeleted {
    /// Rows removed.
    pub deleted: u32,
    /// The limit was reached: go on from here.
    pub next: Option<Vec<u8>>,
}

/// A commit whose condition failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Index of the first condition that failed.
    pub condition: u16,
    /// Where the commit stands in the log.
    pub at: Offset,
    /// The version that was found instead (for `unchanged`: of the newest write in the range);
    /// zero: no row.
    pub found: Offset,
}

/// A row of a scan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its key.
    pub key: Vec<u8>,
    /// Its value.
    pub value: Vec<u8>,
    /// Its version: the offset of the commit that wrote it.
    pub offset: Offset,
}

/// A record of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its id: the offset of its bytes in the log.
    pub offset: Offset,
    /// Its bytes.
    pub value: Vec<u8>,
}

/// A namespace, as a node sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namespace {
    /// Its name.
    pub name: String,
    /// Its shard.
    pub shard: ShardId,
    /// The node that leads it, or zero.
    pub leader: NodeId,
    /// Where its committed log ends; `None`: the node that was asked has no replica of it.
    pub end: Option<Offset>,
    /// Its copies.
    pub replicas: Vec<Replica>,
    /// Its options.
    pub options: NamespaceOptions,
    /// It is being removed: it goes as soon as its shard is closed.
    pub closing: bool,
}

/// A node's copy of a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replica {
    /// The node.
    pub node: NodeId,
    /// Voter, or learner.
    pub voter: bool,
    /// Where its log ends, as far as is known; `None`: the node that was asked does not know.
    pub end: Option<Offset>,
}

/// A node of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its identity.
    pub id: NodeId,
    /// Its name.
    pub name: String,
    /// Its native address.
    pub address: String,
    /// It answered lately.
    pub up: bool,
}

/// What a replica noted of one of its views.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ViewDigest {
    /// Which view, in words.
    pub view: String,
    /// How many entries it has.
    pub count: u64,
    /// A hash of all of them.
    pub digest: u64,
}

/// A keyspace, described.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keyspace {
    /// Its name.
    pub name: String,
    /// Its options.
    pub options: KeyspaceOptions,
    /// About how many rows it has, with the versions of each that are kept and deletions that are
    /// not merged yet; on disk and in memory.
    pub rows_estimate: u64,
    /// Bytes on disk.
    pub bytes: u64,
    /// FIFO: rows below count as absent.
    pub floor: Offset,
}

/// A stream, described.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stream {
    /// Its name.
    pub name: String,
    /// Its options.
    pub options: StreamOptions,
    /// Records below count as absent.
    pub first: Offset,
    /// The next record's id is at least this.
    pub end: Offset,
    /// Records kept.
    pub records: u64,
    /// Bytes of the records kept.
    pub bytes: u64,
    /// Its cursors and where they stand.
    pub cursors: Vec<(String, Offset)>,
}
