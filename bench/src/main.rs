//! Measures Naust beside its limits and peers, in one run, interleaved in short rounds, and prints
//! medians as tables with ratios. It states; it never fails because of a number.
//!
//! Reading order: [`raw`] what the disk can do; [`node`] the tables of a node over TCP;
//! [`embedded`] the same in this process, and the table engine beside its peer; [`idle`] what doing
//! nothing costs; [`cluster`] three nodes, with
//! [`nats`] as their peer; [`replica`] a new one; [`table`] how it is printed.
#![allow(clippy::print_stdout, reason = "a bench prints")]

mod cluster;
mod embedded;
mod idle;
mod nats;
mod node;
mod process;
mod raw;
mod replica;
mod table;

use anyhow::Context as _;
use clap::{Parser, ValueEnum};
use std::path::PathBuf;

/// The program's own: a service that embeds the crate is free to choose it too.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Measures Naust beside its limits and peers.
#[derive(Parser)]
struct Args {
    /// Which tables; all of them when none is named.
    #[arg(value_enum)]
    tables: Vec<Table>,
    /// Where data is written: on the disk that is to be measured.
    #[arg(long, default_value = "target/bench-data")]
    data: PathBuf,
    /// Memory that is mounted as a file system, for the table with injected delays.
    #[arg(long, default_value = "/dev/shm")]
    tmpfs: PathBuf,
    /// Rounds; medians are taken over them.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Seconds of each measurement of the long rows.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Of the first table, only rows with this in their name.
    #[arg(long, default_value = "")]
    row: String,
    /// Three nodes: minutes of full load without a fault in which no election is to be held; 0:
    /// only those that the other rows take.
    #[arg(long, default_value_t = 0)]
    calm_minutes: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Table {
    /// Commits and reads over TCP and embedded, on disk.
    Node,
    /// Appends beside raw sequential writes, on disk.
    Appends,
    /// The same on tmpfs with 0.1, 1 and 4 ms injected into each sync of a log.
    Delays,
    /// Point reads and scans, embedded, beside fjall.
    Tables,
    /// Reopening after SIGKILL.
    Reopen,
    /// Memory, processor and disk of idle nodes.
    Idle,
    /// Three nodes: commits, reads, failover, memory.
    Cluster,
    /// Three nodes with a thousand quiet namespaces.
    ClusterIdle,
    /// A new replica of a shard of 1 GiB; needs 4 GiB of space for a minute or two.
    Replica,
}

/// What all measurements share.
pub struct Setting {
    /// The program under test.
    pub program: PathBuf,
    /// Where data is written.
    pub data: PathBuf,
    /// Rounds.
    pub rounds: usize,
    /// Seconds of a long row.
    pub seconds: u64,
    /// What the names of rows have to contain.
    pub row: String,
    /// Minutes of full load without a fault.
    pub calm_minutes: u64,
}

impl Setting {
    /// An empty directory for one measurement, removed when it is dropped.
    pub fn directory(&self) -> anyhow::Result<tempfile::TempDir> {
        std::fs::create_dir_all(&self.data)?;
        tempfile::tempdir_in(&self.data).context("no directory for the data")
    }
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let program = std::env::current_exe()?.with_file_name("naust");
    anyhow::ensure!(program.is_file(), "{} is missing; use `cargo xtask bench`", program.display());
    let setting = |data: PathBuf| Setting {
        program: program.clone(),
        data,
        rounds: args.rounds.max(1),
        seconds: args.seconds.max(1),
        row: args.row.clone(),
        calm_minutes: args.calm_minutes,
    };
    let disk = setting(args.data.clone());
    let wanted = |table| args.tables.is_empty() || args.tables.contains(&table);
    if wanted(Table::Node) {
        node::on_disk(&disk)?;
    }
    if wanted(Table::Appends) {
        node::appends(&disk)?;
    }
    if wanted(Table::Delays) {
        let name = format!("naust-bench-{}", std::process::id());
        let memory = setting(args.tmpfs.join(name));
        let result = node::with_delays(&memory);
        std::fs::remove_dir_all(&memory.data)?;
        result?;
    }
    if wanted(Table::Tables) {
        embedded::beside_fjall(&disk)?;
    }
    if wanted(Table::Reopen) {
        idle::reopen(&disk)?;
    }
    if wanted(Table::Idle) {
        idle::quiet(&disk)?;
    }
    if wanted(Table::Cluster) {
        cluster::three(&disk)?;
    }
    if wanted(Table::ClusterIdle) {
        cluster::quiet(&disk)?;
    }
    if wanted(Table::Replica) {
        replica::new(&disk)?;
    }
    Ok(())
}
