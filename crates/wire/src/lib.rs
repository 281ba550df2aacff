//! The language of Naust: what crosses a socket and what rests in a log.
//!
//! This crate is pure. It knows no clock, thread, socket, file or randomness; it turns bytes into
//! meaning and back and says no to bytes that have none. Reading order:
//!
//! * [`limits`]: every bound of the whole product, with the relations between them asserted at
//!   compile time;
//! * [`ids`]: newtypes for everything that is counted or named by number;
//! * [`code`]: the stable error codes, each with its outcome: *definitely not done* or *unknown*;
//! * [`frame`]: the header of an entry of a shard's log and its checksum;
//! * [`packet`]: the header of a message on a socket;
//! * [`message`]: reading and building single-segment Cap'n Proto messages without a segment table;
//! * [`commit`]: the atomic list of ops with its conditions, built once by the client, read in
//!   place by everyone else;
//! * [`control`], [`read`], [`ask`], [`reply`]: the other messages, as plain Rust values;
//! * [`peer`]: what nodes tell each other, in front of log frames as they lie on disk;
//! * [`options`]: options of namespaces, keyspaces and streams;
//! * [`planted`]: bugs on purpose, which no release has.
//!
//! Invariants: no decoder panics on any input; a decoder refuses what it does not know instead of
//! skipping it; the bytes of a commit are encoded once and never changed on their way from the
//! client to every replica's disk.

pub mod ask;
pub mod code;
pub mod commit;
pub mod control;
pub mod frame;
pub mod fuzzing;
pub mod ids;
mod layout;
pub mod limits;
pub mod message;
pub mod name;
pub mod options;
pub mod packet;
pub mod peer;
pub mod planted;
pub mod read;
pub mod reply;
mod view;

pub use code::{Code, Outcome};
pub use ids::{
    Index, LogTime, NodeId, Numbers, Offset, RequestId, Sequence, SessionId, ShardId, Term,
};

/// Code generated from `schema/naust.capnp` by `cargo xtask codegen`.
#[allow(missing_docs, unused_qualifications)]
#[allow(clippy::all, clippy::pedantic, clippy::unwrap_used, clippy::disallowed_types)]
#[rustfmt::skip]
#[path = "generated/naust_capnp.rs"]
pub mod naust_capnp;
