//! Tables on disk: ordered, versioned maps for [`naust_machine`], kept in table files of the
//! `lsm-tree` engine.
//!
//! This crate is the only one that knows the engine. Of the engine it uses the table format (blocks
//! with checksums, index, Bloom filter, compression), the block cache and the cache of open files.
//! What lies between (memory, the list of tables, merging, the end of versions) is its own: the
//! engine drops versions that a read in the past still needs, holds the lock that inserts and reads
//! take while it syncs its manifest, and its compaction strategies can't be written from outside;
//! see `docs/decisions/0002-write-optimised-compaction.md`.
//!
//! ```text
//! put ──► active memory ──rotate──► sealed memory ──flush──► runs ──compact──► fewer, larger runs
//!         └───────────────────── what one View of a tree holds ─────────────────────┘
//! ```
//!
//! A directory holds one shard: `manifest`, and `N.table` for each table. Reading order:
//! [`tables`](LsmTables) is the owner's side; `shard` what is shared, and the locks; `view` how
//! reads work; `job` flushes and compactions; `strategy` what to compact; `history` which versions
//! end; `manifest` and `writer` what is on disk; `table`, `memtable`, `row` and `merge` the rest.
//!
//! Invariants: the sequence number of a row in a table is its commit's offset; all versions of a
//! row within one run are in one table; no row has a newer version in an older run; the tables and
//! marks of a flush's trees become durable at one moment; no file is synced under a lock that an
//! insert or a read takes.

mod arena;
mod cache;
mod export;
mod fault;
mod history;
mod inspect;
mod job;
mod looks;
mod manifest;
mod memtable;
mod merge;
mod reader;
mod row;
mod sending;
mod shard;
mod strategy;
mod table;
mod tables;
mod view;
mod writer;

pub use cache::{Cache, StoreOptions};
pub use export::LsmExport;
pub use inspect::{Verified, check_files, has_manifest, named_tables, verify};
pub use job::{LsmDone, LsmJob};
pub use reader::{LsmReader, Value};
pub use tables::LsmTables;
