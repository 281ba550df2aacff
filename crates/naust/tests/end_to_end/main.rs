//! Naust from outside: real processes, real sockets on loopback, real kills.
//!
//! `support` starts nodes and speaks to them; every other module is a family of stories. No story
//! sleeps or measures time: each waits for a condition, with a deadline that only a broken node
//! reaches. A story that the machine can't play (no right to mount, too few open files, no curl)
//! says so on standard error and passes.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod support;

#[path = "../../../../torture/src/proxy.rs"]
mod proxy;
#[path = "../../../../torture/src/shim.rs"]
#[allow(dead_code, reason = "the stories need less of it than the torture")]
mod shim;

mod bad_packets;
mod bad_requests;
mod cancellation;
mod cluster;
mod clusters;
mod command_line;
mod copies;
mod crowd;
mod damage;
mod data_directory;
mod demo;
mod documents;
mod full_disk;
mod interval;
mod intruders;
mod kills;
mod ledger;
mod removals;
mod rot;
mod signals;
mod transcript;
mod weather;
mod web;
mod wire_client;
