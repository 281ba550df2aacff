//! Naust, the product: one node with real threads, sockets, disks and a clock.
//!
//! This crate is the shell around the pure cores of `naust-node`. It waits, hands events over and carries effects
//! out; it decides nothing about data. Reading order:
//!
//! * [`config`]: everything that can be set, from file, environment and flags;
//! * [`data`]: the data directory, its lock and its identity;
//! * [`disk`]: the real disk under a shard's log;
//! * [`queue`]: bounded queues that wake only who sleeps; [`life`]: threads that end together;
//! * [`receive`] and [`outgoing`]: the two directions of a connection.

pub mod config;
pub mod data;
pub mod disk;
pub mod life;
pub mod outgoing;
pub mod queue;
pub mod receive;
