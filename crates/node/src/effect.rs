//! What a node wants done: the closed list of [`Effect`]s.

use crate::event::ConnectionId;
use naust_wire::options::NamespaceOptions;
use naust_wire::{NodeId, ShardId};
use std::collections::BTreeSet;

/// What the shell is to do. The order of effects on one shard and one connection is to be kept.
#[allow(clippy::large_enum_variant, reason = "there is one write for many commits")]
pub enum Effect {
    /// Send whole packets to a connection.
    Send {
        /// To whom.
        to: ConnectionId,
        /// The packets.
        bytes: Vec<u8>,
    },
    /// Close a connection once everything sent to it has left.
    Close(ConnectionId),
    /// Stop (`true`) or go on reading from a connection: its requests under way are at their
    /// bound.
    Pause(ConnectionId, bool),
    /// To a disk thread; answered by `Event::Written`.
    Write {
        /// Whose.
        shard: ShardId,
        /// What.
        write: naust_log::Write,
    },
    /// To a background thread; answered by `Event::Extended`.
    Extend {
        /// Whose.
        shard: ShardId,
        /// What.
        extend: naust_log::Extend,
    },
    /// To a background thread; answered by `Event::Trimmed`.
    Trim {
        /// Whose.
        shard: ShardId,
        /// What.
        trim: naust_log::Trim,
    },
    /// Remove, in the background, what is left of shards whose namespaces were deleted: those
    /// below `below` that are neither shard 0 nor among `kept`.
    Sweep {
        /// Where numbers begin that were never given away.
        below: ShardId,
        /// Shards of namespaces that exist.
        kept: BTreeSet<ShardId>,
    },
    /// To this worker's views thread.
    Views {
        /// Whose.
        shard: ShardId,
        /// What.
        job: crate::views::Job,
    },
    /// To this worker's reads thread.
    Read {
        /// Whose.
        shard: ShardId,
        /// What.
        job: crate::answer::Job,
    },
    /// Open a shard in the background; answered by `Event::Opened`, `NotOpened` or `NotHere`.
    Open {
        /// Which.
        shard: ShardId,
        /// With which options.
        options: NamespaceOptions,
        /// Make it, beginning with this configuration, if there is nothing of it here.
        begin: Option<Vec<u8>>,
    },
    /// Keep up a link to a node at this address: connect, and again whenever it is lost. What
    /// becomes of it is told by `Event::Link`.
    Link {
        /// To whom.
        node: NodeId,
        /// Where it listens.
        address: String,
    },
    /// The link to a node is of no use, though it may stand: make it anew.
    Relink(NodeId),
    /// Give up the link to a node.
    Unlink(NodeId),
    /// Send whole packets over the link to a node, in order, as long as it stands.
    Peer {
        /// To whom.
        to: NodeId,
        /// The packets.
        bytes: Vec<u8>,
    },
    /// To this worker's reads thread; answered by `Event::Fetched`.
    Fetch {
        /// Whose.
        shard: ShardId,
        /// What.
        job: crate::fetch::Job,
    },
    /// Close a shard and remove its directory.
    Remove(ShardId),
    /// In the background: take hold of the files of a replica; answered by `Event::Exported`.
    Export {
        /// Whose.
        shard: ShardId,
        /// What.
        begin: crate::transfer::Begin,
    },
    /// In the background: read a part of them; answered by `Event::ExportedPart`.
    ExportRead {
        /// Whose.
        shard: ShardId,
        /// What.
        part: crate::transfer::Part,
    },
    /// Let go of them.
    ExportEnd {
        /// Whose.
        shard: ShardId,
        /// Of which transfer.
        number: u64,
    },
    /// In the background, in order: put what is copied beside the replica that is there; answered
    /// by `Event::Imported`, but for its end.
    Import {
        /// Whose.
        shard: ShardId,
        /// Of which transfer.
        number: u64,
        /// What.
        import: crate::transfer::Import,
    },
    /// Close a replica, let what was copied take its place, durably, and open that; answered as
    /// `Open`. If it can't take its place the old one is opened again.
    Adopt {
        /// Whose.
        shard: ShardId,
        /// With which options.
        options: NamespaceOptions,
        /// What was copied.
        adopt: Box<crate::transfer::Adopt>,
    },
    /// In the background, by and by: read so much more of a log; answered by `Event::Scrubbed`.
    Scrub {
        /// Whose.
        shard: ShardId,
        /// What is left.
        scrub: naust_log::Scrub,
        /// How much of it.
        bytes: u64,
    },
    /// In the background, by and by: read so much more of the tables; answered by
    /// `Event::Checked`.
    CheckTables {
        /// Whose.
        shard: ShardId,
        /// The number of the file to go on with.
        from: u64,
        /// How much of them.
        bytes: u64,
    },
    /// To a background thread; answered by `Event::Mended`.
    Mend {
        /// Whose.
        shard: ShardId,
        /// What.
        mend: naust_log::Mend,
    },
    /// To this worker's reads thread; answered by `Event::Supplied`.
    Supply {
        /// Whose.
        shard: ShardId,
        /// What.
        job: crate::repair::Supply,
    },
    /// Close a replica whose tables are damaged, let empty ones take their place, which its log is
    /// folded into anew, and open that; answered as `Open`. If the log has not all frames, nothing
    /// is changed, and the answer is `NotOpened`.
    Refold {
        /// Whose.
        shard: ShardId,
        /// With which options.
        options: NamespaceOptions,
    },
    /// To the worker of shard 0, as `Event::DirectoryAsked`.
    AskDirectory(crate::event::DirectoryAsk),
    /// To the worker of shard 0, as `Event::ShardClosed`.
    ShardClosed(ShardId),
    /// Tell the operator, and count.
    Report {
        /// Of which shard.
        shard: ShardId,
        /// What.
        report: crate::repair::Report,
    },
    /// Close what is left open of a shard whose views failed. Its directory stays as it is.
    Shut(ShardId),
    /// Everything under way is finished.
    Drained,
    /// The node can't go on; the sentence is for the operator.
    Stop(String),
}
