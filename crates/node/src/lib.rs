//! One member of a cluster, without IO: `handle(now, event) → effects`.
//!
//! This crate is pure: no clock (time arrives as [`Now`]), no thread, socket, file or
//! randomness. It forbids blocking: whatever takes time is an [`Effect`] that the shell (or the
//! simulator) carries out and answers with an [`Event`].
//!
//! # The way of a commit
//!
//! ```text
//!  1. client     numbers the ops with its session, encodes them once, writes a packet
//!  2. shell      reads a socket once; hands the run of whole packets over      Event::Packets
//!  3. Node::handle ─► packets ─► gate, Commit::check, Shard::admit        limits, overload
//!  4. Shard::stage         log time; header and body are copied once, into the log's open chunk,
//!                          with the index and term that Raft is bound to give; the waiter is noted
//!  5. Node::flush ─► Shard::drive      once a burst:
//!       propose            consensus::Replica::propose(n) for all that was staged
//!       log::Log::next_write                                                   Effect::Write
//!  6. shell      disk thread: Write::run, one fdatasync                        Event::Written
//!  7. Shard::written       what is durable ─► Replica::persisted ─► committed
//!  8. Shard::hand_over     Log::batch and the waiters of its frames           Effect::Views(Apply)
//!  9. Views::handle ─► Machine::apply; replies go into one buffer a connection
//!                          and leave after at most 256 frames                  Output::Send
//! 10. shell      one socket write a connection and wake-up                     Event::Progress
//!     Shard::progress      Log::release, admission opens, waiting reads go on
//! ```
//! # The way of a read
//!
//! ```text
//!   packets::read ─► Waiting: linearizable reads of a burst share one Replica::read; others wait
//!       for their offset ─► due ─┬─ get, scan, raw log ─► Effect::Read ─► answer::run
//!                                └─ records, cursor, describe ─► Effect::Views(Query): looked up
//!                                   where the machine is; long polls wait there; what has to be
//!                                   read ─► Output::Read ─► answer::run
//! ```
//! Commits are taken off a connection's count by `Progress`, reads by `Answered`.
//!
//! # Reading order
//!
//! There are three cores, each a value owned by one thread of the shell: [`Node`] (a worker's:
//! shards, Raft, logs, admission, routing), [`views::Views`] (a views thread's: machines, long
//! polls) and [`answer`] (functions for the reads threads). The simulator runs them all in one
//! thread.
//!
//! * [`event`] and [`effect`]: the closed lists of what can happen and what is to be done;
//! * [`Node`]: packets, questions, the directory; `connections`: who waits; `shard`: Raft and
//!   log;
//! * [`views`]: folding in; [`answer`]: fetching; [`open`]: a shard's beginning; [`clock`]: log
//!   time.
//!
//! # Invariants
//!
//! * A commit is acknowledged only after its frame is durable on a quorum *and* on this disk, and
//!   folded in here. In a namespace with an interval between syncs it need only be written on this
//!   disk while that has the only replica (`shard::interval`).
//! * Every admitted request gets exactly one reply, or its connection is closed.
//! * Requests, their bytes, unapplied frames and waiting reads are bounded; before a bound
//!   connections are paused, past it the answer is `Overloaded`.
//! * Time never goes back in a log: [`clock`] slews towards the wall by at most a tenth and
//!   ignores its jumps.
//! * A shard whose disk failed stops the node; a full disk refuses writes with `DiskFull` and
//!   goes on reading; a shard that is damaged is not opened, or closed when that is met, and the
//!   others go on. Nothing goes on without shard 0.
//! * An idle shard of a lone voter costs no tick and writes nothing: it campaigns when it is
//!   first written to, and reads of it need no campaign.

pub mod answer;
pub mod clock;
mod connections;
pub mod effect;
pub mod event;
pub mod fetch;
mod mending;
mod node;
pub mod open;
mod peers;
pub mod repair;
mod replies;
mod shard;
pub mod transfer;
pub mod views;

pub use effect::Effect;
pub use event::{ConnectionId, Event, Now};
pub use node::{Config, Look, Node, Pace};

/// Milliseconds between two `Event::Tick`s, about.
pub const TICK_MS: u64 = 25;
