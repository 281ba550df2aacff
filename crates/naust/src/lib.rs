//! Naust, the product: one node with real threads, sockets, disks and a clock.
//!
//! This crate is the shell around the pure cores of `naust-node`. It waits, hands events over and
//! carries effects out; it decides nothing about data. Embedded, it is [`Naust::open`]; as a
//! process of its own, [`server::serve`]. Reading order:
//!
//! * [`config`]: everything that can be set, from file, environment and flags;
//! * [`data`]: the data directory, its lock and its identity; [`disk`]: the real disk under a log;
//! * `queue`: bounded queues that wake only who sleeps; `life`: threads that end together;
//!   `wiring`: who tells whom;
//! * `worker`: the loop that owns shards; when it is `alone` with a write; its `sockets`, each a
//!   `connection` with a `receive`ing and an `outgoing` end; its `peers`, links to other nodes,
//!   whose `names` are looked up aside; its `links`, embedded clients without sockets;
//! * `disk_threads` with the `journal`, `background`, `views` with its `budget`, `reads`,
//!   `copies` of replicas with their `transfers`, `opening`: everybody else's work;
//! * [`embed`]: their start and end; [`join`]: how a node comes into its cluster; [`snapshot`]:
//!   reads on the caller's thread;
//! * [`server`]: signals and listeners; [`metrics`]: what is counted;
//! * [`process`]: a node in a child process, for `demo` and tests.

/// The Rust in the README is compiled.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;

mod alone;
mod background;
mod budget;
mod catalog;
pub mod config;
mod connection;
mod copies;
pub mod data;
pub mod disk;
mod disk_threads;
pub mod embed;
pub mod join;
mod journal;
mod life;
mod links;
pub mod metrics;
mod names;
mod opening;
mod outgoing;
mod peers;
pub mod process;
mod queue;
mod reads;
mod receive;
pub mod server;
pub mod snapshot;
mod sockets;
mod transfers;
mod views;
mod wiring;
mod worker;

pub use config::Config;
pub use embed::{Naust, NaustError};
pub use journal::JournalError;
pub use snapshot::Snapshot;
