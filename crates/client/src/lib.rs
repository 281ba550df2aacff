//! The client: speaks wire, keeps sessions, sends again what may be sent again.
//!
//! ```no_run
//! # async fn example() -> Result<(), naust_client::Error> {
//! let client = naust_client::Client::connect(["127.0.0.1:7420"]).await?;
//! let shop = client.namespace("default");
//! shop.commit(|c| c.put("users", "ada", "90").append("orders", "ada bought a boat")).await?;
//! assert_eq!(shop.kv("users").get("ada").await?, Some(b"90".to_vec()));
//! # Ok(())
//! # }
//! ```
//! Reading order:
//!
//! * [`Client`], [`Namespace`], [`Kv`], [`Stream`], [`Commit`], [`Transaction`]: what programs use;
//! * [`Error`]: what a failed request says: a stable code, and whether it was *definitely not done*
//!   or *unknown*;
//! * `exchange`: one request as a future, which may be dropped at any time;
//! * [`core`]: everything the client decides, without IO: a value for simulators;
//! * `shared`: that value behind its lock, with the wakers of those who wait;
//! * [`transport`]: the link that its bytes leave by: a socket, or an embedded node.
//!
//! # Exactly once
//!
//! The client opens one session in each namespace that it commits to, and numbers its commits
//! there; so it does with what sets options, and, in a session of the directory, with what makes
//! and removes namespaces and nodes. When a reply is lost the request is sent again under the same
//! number, and answered again, not applied again. An error whose [`outcome`](Error::outcome) is
//! `Unknown` is left for the caller only when the deadline passes, the session has ended while a
//! reply was lost, or the request was made without a session.

mod bytes_of;
mod client;
mod commit;
pub mod core;
mod error;
mod exchange;
mod kv;
mod namespace;
mod shared;
mod stream;
mod transaction;
pub mod transport;

pub use self::core::{Identity, OnOverload, Options, acked_below_of};
pub use bytes_of::IntoBytes;
pub use client::{Client, Cluster};
pub use commit::{Commit, Submitted};
pub use error::Error;
pub use kv::{Found, Kv, Page, Row, Scan, after_prefix};
pub use namespace::{Description, Frames, Namespace};
pub use naust_wire::read::{Level, Named};
pub use naust_wire::reply::{Committed, Entry, RangeDeleted, Record, Refused};
pub use naust_wire::{Code, NodeId, Offset, Outcome, Sequence, SessionId};
pub use stream::{Cursor, Follow, ReadOptions, Records, Stream};
pub use transaction::Transaction;
pub use transport::{Link, Notify};
