//! One member of a cluster, without IO: `handle(now, event) → effects`.
//!
//! This crate is pure: no clock (time arrives as [`Now`]), no thread, socket, file or randomness. It forbids blocking:
//! whatever takes time is an [`Effect`] that the shell (or the simulator) carries out and answers with an [`Event`].
//!
//! # The way of a commit
//!
//! ```text
//!  1. client     numbers the ops with its session, encodes them once, writes a packet
//!  2. shell      reads a socket once; hands the run of whole packets over           Event::Packets
//!  3. Node::handle ─► Node::packets ─► Shard::admit      limits, Commit::check, overload; the waiter is remembered
//!  4. Shard::propose     consensus::Replica::propose(n), log time, log::Log::stage: header + body copied once
//!  5. Shard::drive       Ready ─► log::Log::next_write                              Effect::Write
//!  6. shell      disk thread: Write::run, one fdatasync                             Event::Written
//!  7. Shard::written     durable ─► Replica::persisted ─► committed
//!  8. Shard::committed   Log::batch + the waiters of its frames                     Effect::Views(Apply)
//!  9. Views::handle ─► Machine::apply; replies are encoded into one buffer a connection      Output::Send
//! 10. shell      one socket write a connection and wake-up;                        Event::Progress
//!                Shard::progress: Log::release, admission opens, waiting reads go on
//! ```
//! There are three cores, each a value owned by one thread of the shell: [`Node`] (a worker's: shards, Raft, logs,
//! admission, routing), [`views::Views`] (a views thread's: machines, long polls) and [`answer`] (functions for the reads
//! threads). The simulator runs them all in one thread.
//!
//! # Invariants
//!
//! * A commit is acknowledged only after its frame is durable on a quorum *and* on this disk, and folded in here.
//! * Every admitted request gets exactly one reply, or its connection is closed.
//! * Requests, their bytes, unapplied frames and waiting reads are bounded; past a bound the answer is `Overloaded`.
//! * Time never goes back in a log: [`clock`] slews towards the wall by at most a tenth and ignores its jumps.
//! * A shard whose disk failed stops the node; a full disk refuses writes with `DiskFull` and goes on reading.

pub mod answer;
pub mod clock;
mod connections;
pub mod effect;
pub mod event;
mod node;
pub mod open;
mod replies;
mod shard;
pub mod views;

pub use effect::Effect;
pub use event::{ConnectionId, Event, Now};
pub use node::{Config, Node};

/// Milliseconds between two `Event::Tick`s, about.
pub const TICK_MS: u64 = 25;
