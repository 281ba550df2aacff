//! The command line. Every command talks to a node over the native protocol, but for `serve` and
//! `dev`, which are one, and `log`, which looks into a data directory that no node uses.
#![allow(clippy::print_stdout, reason = "a command line prints")]

mod cli;

use std::process::ExitCode;

/// Replies and frames are made on one thread and freed on another all the time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    cli::run()
}
