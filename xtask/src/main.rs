//! The project's own chores. `cargo xtask ci` is what CI runs after the tests; every step can be
//! run alone.

#![allow(clippy::print_stdout, reason = "chores print")]

mod bench;
mod ci;
mod codegen;
mod shell;
mod sim;
mod tidy;
mod torture;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

#[derive(Parser)]
#[command(about = "The project's own chores")]
struct Args {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Everything that CI checks beside `cargo test --workspace`.
    Ci,
    /// The rules of docs/STYLE.md that a machine can check: arrows between crates, sizes, names.
    Tidy,
    /// Regenerate the Cap'n Proto code (needs `capnp` and `capnpc-rust`).
    Codegen {
        /// Change nothing; fail when the checked-in code differs from what would be generated.
        #[arg(long)]
        check: bool,
    },
    /// Feed every decoder mutated input for a short, bounded while.
    FuzzSmoke {
        /// Seconds for each target under libFuzzer.
        #[arg(long, default_value_t = 10)]
        seconds: u32,
    },
    /// Run the simulator on seeds derived from the commit and on all that ever failed, and see that
    /// a seed has one story.
    Sim(sim::Args),
    /// Plant bugs, one after the other, and see that the simulator finds each.
    Planted,
    /// Measure Naust beside its limits and peers and print the tables.
    Bench(bench::Args),
    /// Torment real nodes on real disks for some minutes, and judge what they answered.
    Torture(torture::Args),
}

fn main() -> ExitCode {
    match run(Args::parse().chore) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(chore: Chore) -> anyhow::Result<()> {
    match chore {
        Chore::Ci => ci::run_all(),
        Chore::Tidy => tidy::run(),
        Chore::Codegen { check } => codegen::run(check),
        Chore::FuzzSmoke { seconds } => ci::fuzz_smoke(seconds),
        Chore::Sim(args) => sim::simulate(&args),
        Chore::Planted => sim::planted(),
        Chore::Bench(args) => bench::run(&args),
        Chore::Torture(args) => torture::run(&args),
    }
}
