//! What can happen to a node: the closed list of [`Event`]s.

use crate::views::Waiter;
use naust_wire::options::NamespaceOptions;
use naust_wire::reply::Failure;
use naust_wire::{Index, NodeId, Offset, ShardId};
use std::collections::BTreeMap;
use std::ops::Range;

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
    /// A run of whole packets from one connection, for shards of this worker (or for the node),
    /// in their order.
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
    /// A shard could not be opened: whoever asks it is answered with this.
    NotOpened {
        /// Which.
        shard: ShardId,
        /// Why, as its clients are told.
        failure: Failure,
        /// Other replicas may help.
        trouble: Option<Box<crate::repair::Trouble>>,
    },
    /// There is nothing here of a shard that was to be opened only if there is.
    NotHere(ShardId),
    /// The link to a node stands, or is lost.
    Link {
        /// To whom.
        node: NodeId,
        /// It stands.
        is_up: bool,
    },
    /// Whole packets came back over the link to a node: replies to what was passed on.
    Replies {
        /// Who answers.
        from: NodeId,
        /// Whole packets, one after the other.
        bytes: &'a [u8],
    },
    /// The files of a replica are held for another one, or (`None`) can't be.
    Exported {
        /// Whose.
        shard: ShardId,
        /// For which transfer.
        number: u64,
        /// What they are.
        contents: Option<naust_wire::peer::Contents>,
    },
    /// A part of them was read, or (`None`) can't be.
    ExportedPart {
        /// Whose.
        shard: ShardId,
        /// Which part.
        part: crate::transfer::Part,
        /// Its bytes.
        bytes: Option<Vec<u8>>,
    },
    /// A step of `Effect::Import` ended.
    Imported {
        /// Whose.
        shard: ShardId,
        /// Of which transfer.
        number: u64,
        /// Well.
        ok: bool,
        /// After its beginning: files that were there already, by their place in what was told, and
        /// their digests.
        there: BTreeMap<u32, Vec<u8>>,
    },
    /// A reads thread read frames for another replica.
    Fetched(crate::fetch::Fetched),
    /// A step of a scrub ended.
    Scrubbed {
        /// Whose.
        shard: ShardId,
        /// What is left.
        scrub: naust_log::Scrub,
        /// What was seen.
        seen: Result<naust_log::Scrubbed, naust_log::Fault>,
    },
    /// A part of a shard's tables was read again.
    Checked {
        /// Whose.
        shard: ShardId,
        /// What was seen.
        checked: Result<naust_machine::Checked, naust_machine::Fault>,
    },
    /// Frames were written over a damaged place, or not.
    Mended {
        /// Whose.
        shard: ShardId,
        /// Where.
        at: Offset,
        /// How.
        outcome: Result<naust_log::Mended, naust_log::MendError>,
    },
    /// A reads thread read frames for another replica's damaged place.
    Supplied(crate::repair::Supplied),
    /// Who read from a shard met damage.
    Met {
        /// Whose.
        shard: ShardId,
        /// What.
        met: crate::repair::Met,
    },
    /// The views of a shard failed, and are closed: the disk is damaged beneath its tables or its
    /// log. Nobody else will answer who waits for frames of it.
    Failed {
        /// Which.
        shard: ShardId,
        /// Beneath what.
        cause: crate::views::Cause,
        /// Why, as its clients are told.
        failure: Failure,
    },
    /// The views thread or a reads thread answered questions of a connection (commits are told by
    /// `Progress`).
    Answered {
        /// Whose.
        to: ConnectionId,
        /// How many.
        requests: u32,
    },
    /// The views thread did all of `views::Job::Flush` for a shard.
    Flushed(ShardId),
    /// The directory changed: told to every worker.
    Directory(DirectoryChange),
    /// A worker is to be told once it knows the directory as it was at this moment, or later:
    /// answered by `DirectoryChange::Current`, unless the directory can't be asked now.
    DirectoryAsked(DirectoryAsk),
    /// A replica on this node has folded the end of its namespace in, which is to be removed. Sent
    /// to the worker of shard 0.
    ShardClosed(ShardId),
    /// Time passed; sent about every [`crate::TICK_MS`].
    Tick,
    /// Take no new requests, finish what is under way, then say
    /// [`Effect::Drained`](crate::Effect::Drained).
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
    /// Bytes that wait for flushes and compaction: the worker refuses commits past its bound.
    pub backlog_bytes: u64,
    /// Bytes of rows in memory: what flushes would free.
    pub memory_bytes: u64,
    /// The disk is full for tables: commits are refused until it is not.
    pub disk_full: bool,
    /// What the views need of the old log has changed.
    pub needs: Option<Needs>,
    /// Floors that a leader should propose now, as an encoded `Control` body.
    pub floors: Option<Vec<u8>>,
    /// Something of the shard expires by time alone: look again in a while, even if it is idle.
    pub ages: bool,
    /// Tables are to be written to disk once the log is synced up to here: then
    /// [`views::Job::Synced`](crate::views::Job::Synced).
    pub wants_synced: Option<Offset>,
    /// The namespace has ended: what lies behind is refused, and so is whoever reads.
    pub closed: bool,
}

/// What the views of a shard need of its old log.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Needs {
    /// Tables are persisted up to here: nobody folds in frames below it again.
    pub persisted: Offset,
    /// Everything from here on is within the window of history.
    pub keep_from: Offset,
    /// Answers to `views::Job::Live`: of these ranges of the log, only these parts live.
    pub live: Vec<(Range<Offset>, Vec<Range<Offset>>)>,
}

/// A worker needs the directory as it is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DirectoryAsk {
    /// Which worker of this node.
    pub worker: u32,
    /// When it asked, by the monotonic clock.
    pub asked_ms: u64,
}

/// The namespace that always exists.
pub const ALWAYS: &str = "default";

/// A namespace or a node came or went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DirectoryChange {
    /// A namespace exists now. At start the nodes are told, then this for each namespace, and for
    /// [`ALWAYS`] last: from then on all that exists is known.
    Created {
        /// Its name.
        name: String,
        /// Its shard.
        shard: ShardId,
        /// Its options.
        options: NamespaceOptions,
        /// The nodes whose replicas began it; empty: the node that made the cluster.
        replicas: Vec<NodeId>,
        /// Who made it and is to be told, once it can be used.
        told: Option<Told>,
    },
    /// At start, after all others: numbers of shards below this were given away, and no other.
    Known {
        /// The number of the next shard.
        next: ShardId,
    },
    /// Everything was told that the directory held, as a quorum of it says, at this moment.
    Current(DirectoryAsk),
    /// It is to be removed: as soon as its shard is closed, it goes.
    Closing {
        /// Its shard.
        shard: ShardId,
        /// Who wants it removed and is to be told when it is.
        told: Option<Told>,
    },
    /// It is gone; its shard is closed and its directory removed.
    Deleted {
        /// Its name.
        name: String,
        /// Its shard.
        shard: ShardId,
        /// Who removed it and is to be told.
        told: Option<Told>,
    },
    /// A node is there, under this name and address.
    NodeSet {
        /// Which.
        node: NodeId,
        /// Its name.
        name: String,
        /// Where others reach it.
        address: String,
        /// Who is to be told.
        told: Option<Told>,
    },
    /// A node is gone for good.
    NodeRemoved {
        /// Which.
        node: NodeId,
        /// Who is to be told.
        told: Option<Told>,
    },
}

/// Who waits for a change of the directory to be in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    /// Whom.
    pub waiter: Waiter,
    /// Where the change stands in the log of shard 0.
    pub offset: Offset,
}
