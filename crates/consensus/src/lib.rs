//! Agreement: a thin, sans-IO face over the `raft` crate.
//!
//! This crate is pure: no clock (time is [`Replica::tick`]), no thread, socket, file or
//! randomness (election timeouts come from a seed). It forbids that any type of the `raft`
//! crate is seen outside, and that log bytes are copied into Raft: an entry here is an index
//! and a term; its bytes lie in the shard's log, where `node` staged them. Only changes of the
//! configuration carry their bytes with them. Reading order:
//!
//! * [`Replica`]: the face: propose, step, ready, persisted, applied;
//! * `members`: changes of the configuration, one or several at once; who is how far;
//! * `reads`: an index to read at, asked for until it is told;
//! * `seal`: proof in the log that a configuration is in force;
//! * `transfer`: a follower too far behind gets the whole state, and begins anew behind it;
//! * [`Configuration`]: who votes and who learns, as bytes of a frame;
//! * [`Message`]: what replicas tell each other; `guard`: which of it is taken in;
//! * `entries`: what Raft may know of the log: terms, ends, configurations.
//!
//! # Use
//!
//! ```text
//!   propose(n) ──► term and indices: stage bodies into the log with these, in this order
//!   step(message) / tick() / campaign() / persisted(…) ──► something moved
//!   ready() ──► Ready: 1. cut and stage `entries`, save `hard`     (log::Write, on a disk thread)
//!                      2. send `messages` now, beside the write
//!                      3. when the write is durable: persisted(number), then `ready()` again
//!                      4. `committed`: these frames may be folded in; they are on this disk too
//!   applied(index) ──► the views have folded them in; configurations up to there are in force
//! ```
//!
//! # A follower too far behind
//!
//! Raft's log begins where [`Replica::forget`] says. A follower that needs what is gone gets a
//! *snapshot*: tables and live frames at one index, which travel outside this crate.
//!
//! ```text
//!   leader    Ready::snapshots_wanted(node)     build a transfer at an index that is applied
//!             offer(node, snapshot)             it is told to the follower: index, term, members
//!             snapshot_sent(node, ok)           it has all, or there is no point in going on
//!   follower  Ready::offered                    fetch the bytes, beside the old state
//!             begin_install(&snapshot)          still wanted? then the log stands still
//!             (flip the disk)
//!             install(&snapshot)                begins anew behind it, and tells the leader
//! ```
//!
//! The crate's `RawNode` is not used: it clones every committed entry back out of storage, and
//! here an entry has nothing to clone. [`Replica`] does what `RawNode` does over the same
//! `Raft`.
//!
//! # Invariants
//!
//! * The entries of a `propose` come out of the next `ready()`, in order, at the indices it told.
//! * `committed` never passes what this disk has durably, and never goes back; `applied` never
//!   passes `committed`.
//! * A message that promises something durable is handed out only after `persisted` for the Ready
//!   that carried it.
//! * Votes and terms are durable before any message that rests on them is handed out. A replica
//!   campaigns only when all of its log is durable.
//! * A configuration is in force from its application on, and one change waits for the one before.
//!   A joint one is left by whoever leads when it is in force. Who does not vote does not lead.
//! * What a leader tells to be committed under a configuration is known to a majority of it, which
//!   also knows, by its log alone, that the configuration is in force.
//! * Every read that was asked for is answered as soon as a leader can, also after other roles.
//! * No message of another replica can panic here; those that contradict what is known are dropped
//!   and counted.

mod configuration;
mod entries;
mod guard;
mod members;
mod message;
mod notices;
mod reads;
mod replica;
mod seal;
mod transfer;

pub use configuration::{Bad, Change, Configuration};
pub use members::{Progress, ProgressState};
pub use message::{Message, MessageKind};
pub use replica::{BadStart, ELECTION_TICKS, HEARTBEAT_TICKS, NotLeader, Replica};
pub use seal::{is_seal, known_changes};
pub use transfer::{Offered, Snapshot};

use naust_wire::{Index, NodeId, Term};

/// Term and vote, durable before anything rests on them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct HardState {
    /// Current term.
    pub term: Term,
    /// Whom this replica voted for in that term; zero: nobody.
    pub vote: NodeId,
}

/// What a replica starts from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Start {
    /// This node.
    pub node: NodeId,
    /// Term and vote from the superblock.
    pub hard: HardState,
    /// The log holds entries after this one (0 for a fresh log), whose term is
    /// `before_first_term`.
    pub before_first: Index,
    /// The term of `before_first`.
    pub before_first_term: Term,
    /// The last entry that is durable.
    pub last: Index,
    /// Runs of terms: the first index of each term, ascending; empty for an empty log.
    pub terms: Vec<(Index, Term)>,
    /// The tables have folded in entries up to here.
    pub applied: Index,
    /// Entries up to here are known to be committed: `applied` at the least; all of a lone
    /// voter's. Of a lone voter it is believed up to a change of the configuration that is not
    /// applied, since it may not have been alone any more, and only if it voted for itself last:
    /// else somebody else may still lead, who does not know yet that it is alone.
    pub committed: Index,
    /// The configuration as of `applied`, or a later one that is known to be committed, encoded by
    /// [`Configuration::encode`].
    pub configuration: Vec<u8>,
    /// The entry that put it in force; zero: it is not known which. `None`: the log began with it.
    pub configured: Option<Index>,
    /// Bytes of the configuration entries after `applied` that are not known to be committed: all
    /// but the first of [`known_changes`]. Those before are in force; followers that lack them
    /// read them in their frames: see [`Message::entries`].
    pub configure: Vec<(Index, Vec<u8>)>,
    /// The last seal after `applied`: see [`is_seal`]. Zero: there is none.
    pub seal: Index,
    /// Seeds the election timeouts, and tells the reads of this life from those of an earlier one:
    /// to be drawn anew whenever the replica is opened.
    pub seed: u64,
}

/// Which kind of entry Raft appended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// Its body was announced by `propose` (leader) or lies in the message's frames (follower).
    Normal,
    /// A new leader's first entry, or the proof that a configuration is in force; no body.
    Empty,
    /// A change of configuration with its bytes.
    Configure(Vec<u8>),
}

/// An entry to be staged into the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its index.
    pub index: Index,
    /// Its term.
    pub term: Term,
    /// What it is.
    pub kind: EntryKind,
}

/// Leader, follower or candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Proposes.
    Leader,
    /// Follows this node (zero: none known).
    Follower(NodeId),
    /// Asks for votes.
    Candidate,
}

/// What must happen now. See the crate's doc for the order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ready {
    /// Give it back to `persisted` when `entries` and `hard` are durable. Zero: nothing has to be
    /// persisted.
    pub number: u64,
    /// Entries after this index are to be cut from the log before `entries` are staged.
    pub cut_after: Option<Index>,
    /// Entries to be staged, in order.
    pub entries: Vec<Entry>,
    /// Term and vote to be saved, before the entries.
    pub hard: Option<HardState>,
    /// Everything up to here is committed and durable on this disk.
    pub committed: Option<Index>,
    /// The role changed.
    pub role: Option<Role>,
    /// Reads that may be answered once this index is applied: (token of `read`, index).
    pub reads: Vec<(u64, Index)>,
    /// Followers that need a snapshot: once each, until [`Replica::snapshot_sent`].
    pub snapshots_wanted: Vec<NodeId>,
    /// A snapshot that the leader offers to this replica, which needs it.
    pub offered: Option<Offered>,
    /// To be sent now, in order.
    pub messages: Vec<Message>,
}
