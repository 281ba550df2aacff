//! Clients and what they ask for.
//!
//! * [`keys`]: few names and keys, so that clients get into each other's way;
//! * [`commits`], [`questions`]: draw requests;
//! * [`knowledge`]: what a client has learnt, so that its requests hit something;
//! * [`session`], [`desk`]: what is sent again until its fate is known;
//! * [`client`]: one client: its connection, its session, what it has under way and what it sends
//!   again.

pub mod client;
pub mod commits;
pub mod desk;
pub mod keys;
pub mod knowledge;
pub mod questions;
pub mod session;
