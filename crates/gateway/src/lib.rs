//! The gateway: Naust for languages without a native client. HTTP and JSON for now.
//!
//! It is a client like any other, never a part of the node: whatever it says to a shard goes
//! through [`naust_client::Client`]. It forbids knowledge of shards, logs and tables. Reading
//! order:
//!
//! * [`server`]: the thread, and the way of a request; [`connection`]: the sockets and their
//!   bounds;
//! * [`path`], [`query`], [`request`]: a request taken apart, strictly: what is not understood is
//!   refused, never ignored;
//! * [`routes`]: what each route does, one file a family; [`events`]: streams that are followed;
//! * [`json`], [`bytes_in_text`]: JSON that comes in, and bytes in JSON and URLs;
//! * [`problem`]: errors, as `application/problem+json`;
//! * `static/openapi.json`: the same contract, for machines.
//!
//! # Invariants
//!
//! * Connections, bodies, the bytes of all bodies together, and the time that each may take are
//!   bounded.
//! * Every failure says what became of the request: `not_done` or `unknown`.
//! * Any bytes can be keys, values and records: in paths and queries percent-encoded, in JSON as
//!   base64.

pub mod bytes_in_text;
pub mod connection;
pub mod events;
pub mod json;
pub mod path;
pub mod problem;
pub mod query;
pub mod request;
pub mod routes;
pub mod server;

pub use bytes_in_text::base64;
pub use connection::Bounds;
pub use problem::Problem;
pub use routes::describe::{keyspace_json, stream_json};
pub use server::{Gateway, Hooks, serve, serve_within};
