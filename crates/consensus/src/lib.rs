//! Agreement: a thin, sans-IO face over the `raft` crate.
//!
//! This crate is pure: no clock (time is [`Replica::tick`]), no thread, socket, file or randomness (election timeouts come
//! from a seed). It forbids that any protobuf type is seen outside, and that log bytes are copied into Raft: an entry here
//! is an index and a term; its bytes lie in the shard's log, where `node` staged them. Only changes of the
//! configuration carry their bytes with them.
//!
//! # Use
//!
//! ```text
//!   propose(n) ──► indices and term: stage the bodies into the log with exactly these, in this order
//!   step(message) / tick() / campaign() / persisted(…) ──► something moved
//!   ready() ──► Ready: 1. truncate and stage `entries`, save `hard`   (log::Write, on a disk thread)
//!                      2. send `messages` now, beside the write
//!                      3. when the write is durable: persisted(number), then `ready()` again
//!                      4. `committed`: frames up to here may be folded in once this disk has them too
//! ```
//!
//! # Invariants
//!
//! * `ready()` is drained before anything else is proposed or stepped, so the entries of a `propose` are the next
//!   ones of a Ready, in order.
//! * `committed` never passes what this disk has durably (applied ≤ persisted), and never goes back.
//! * A message that promises something durable is handed out only after `persisted` for the Ready that carried it.
//! * Votes and terms are durable before any message that rests on them is sent.

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
    /// The log holds entries after this one (0 for a fresh log), whose term is `first_term`.
    pub before_first: Index,
    /// The term of `before_first`.
    pub before_first_term: Term,
    /// The last entry that is durable.
    pub last: Index,
    /// Runs of terms: the first index of each term, ascending; empty for an empty log.
    pub terms: Vec<(Index, Term)>,
    /// The tables have folded in entries up to here; known to be committed.
    pub applied: Index,
    /// The configuration as of `applied`, encoded by [`Configuration::encode`].
    pub configuration: Vec<u8>,
    /// Bytes of configuration entries after `applied`.
    pub configure: Vec<(Index, Vec<u8>)>,
    /// Seeds the election timeouts.
    pub seed: u64,
}

/// Which kind of entry Raft appended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// Its body was announced by `propose` (leader) or lies in the message's frames (follower).
    Normal,
    /// A new leader's first entry; no body.
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
    /// Give it back to `persisted` when `entries` and `hard` are durable. Zero: nothing has to be persisted.
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
}
