//! Meaning: folds the frames of a shard's log, one by one, into tables and answers.
//!
//! This crate is pure and deterministic: the same frames give the same tables, the same replies and
//! the same refusals on every replica, whenever and however often they are folded. It knows no
//! clock (time is the frame's log time), no thread, socket, file or randomness, and no engine:
//! tables come through [`Tables`]. It forbids decisions that depend on anything but the frames
//! before. Reading order:
//!
//! * [`tables`]: `trait Tables`, the seam to the engine; `contract` (a feature) is the suite that
//!   every implementation passes; [`MemTables`] is the plainest of them;
//! * [`rows`]: every row of the shard tree: one numbered enum that documents its key and its value;
//! * [`Machine`]: open, replay, apply, rotate;
//! * its parts: keyspaces, streams, cursors, sessions, recent writes, floors, the directory (shard
//!   0 only);
//! * [`Reader`]: reads beside `apply`, at an offset, from any thread.
//!
//! # Versions
//!
//! The offset of a commit is the version of every row it writes. All ops of a commit become visible
//! together: a read *at* an offset sees every row version at or below it. Two ops of one commit on
//! one key are resolved before they reach a tree: the later wins.
//!
//! # Replay
//!
//! Every tree has a mark *P*: the last frame folded into what of it is on disk. P(shard tree) ≥
//! P(any keyspace), because the shard tree is always persisted first. What lives in memory
//! (sessions, cursors, open stream chunks, recent writes) is written to the shard tree when it
//! rotates, so at opening it stands at P(shard). Frames from the lowest P on are given to `replay`
//! again: up to P(shard) the verdict of each commit is taken from the shard tree (only failures,
//! duplicates and the bounds of delete-ranges are stored there; a commit without a row was
//! applied), and its ops go to those trees alone whose P is lower; above P(shard) frames are simply
//! applied. A tree without unpersisted rows counts as persisted up to what was applied, so it never
//! pins the log.
//!
//! # Floors
//!
//! The history floor and the retention floors take effect, for reads and conditions, the moment
//! they move; [`Reader`] and [`Machine`] see to that. The tables are told of them later: once the
//! floors are on disk. What tables drop by a floor then lies below it in every later life, so
//! frames that are folded in again after a crash find what they found the first time.
//!
//! # Names that do not exist
//!
//! A keyspace is made by its first put, a stream by its first append. Before that a keyspace reads
//! as empty and deletes from it do nothing; a stream's records and cursors are refused with
//! `StreamNotFound`, and so is a commit that moves a cursor of it.

mod apply;
pub mod chunk;
mod control;
mod digest;
pub mod directory;
pub mod fuzzing;
mod history;
mod keyspaces;
mod machine;
mod memory;
mod open;
mod overlay;
mod plan;
mod query;
pub mod reader;
mod recent;
mod retention;
mod rotation;
pub mod rows;
mod sessions;
mod streams;
pub mod tables;

#[cfg(feature = "contract")]
pub mod contract;

pub use chunk::Place;
pub use directory::{Change, Directory, Member, Placed};
pub use machine::{Applied, Machine, MachineOptions, Resume};
pub use memory::{MemDone, MemExport, MemJob, MemReader, MemTables};
pub use query::{Located, LogNeeded};
pub use reader::{Hold, Page, ReadError, Reader};
pub use rows::StreamId;
pub use tables::{
    Checked, Fault, KeyRange, Mark, Tables, TablesExport, TablesJob, TablesReader, TreeId, Version,
    Visit,
};

/// The tables of the simulator: [`MemTables`], whose crashes lose what real ones lose.
#[cfg(feature = "sim")]
pub type SimTables = MemTables;
