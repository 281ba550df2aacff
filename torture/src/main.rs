//! `naust-torture`: real processes on real disks, tormented, and judged by the checkers of the
//! simulator. What it draws follows from its seed; when what is drawn happens does not.
//!
//! ```text
//!   round: three nodes ─► clients ask ─► faults, one event after the other ─► all is healed
//!          ─► clients finish ─► every replica is read ─► judged ─► ended, logs verified offline
//! ```
//! Reading order: [`faults`]: what goes wrong; [`nodes`]: to whom, with `proxy` between them and
//! `shim` below; [`client`] and [`record`]: what is asked and told meanwhile; [`verdict`]: what
//! must hold.

#![allow(clippy::print_stdout, reason = "it reports")]

mod calm;
mod client;
mod faults;
mod nodes;
mod proxy;
mod record;
mod round;
mod shim;
mod verdict;

use clap::Parser;
use round::{Round, Tally};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Torments three nodes and tells the verdict: exit status 0 if every promise was kept.
#[derive(Parser)]
struct Args {
    /// Minutes that it may take, about; a round that has begun is ended.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=1440))]
    minutes: u64,
    /// Seconds of faults in a round.
    #[arg(long, default_value_t = 40, value_parser = clap::value_parser!(u64).range(1..=600))]
    round_seconds: u64,
    /// The seed of the first round; the others' follow from it. Drawn from the clock if missing.
    #[arg(long)]
    seed: Option<u64>,
    /// No faults: full load for so many minutes, in which nobody may lose leadership.
    #[arg(long)]
    calm: bool,
    /// The node's program [default: `naust` beside this one].
    #[arg(long)]
    program: Option<PathBuf>,
    /// Where the data of rounds lies [default: a temporary directory]. That of a round that failed
    /// is kept.
    #[arg(long)]
    data: Option<PathBuf>,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("naust-torture: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> anyhow::Result<bool> {
    let beside = std::env::current_exe()?.with_file_name("naust");
    let program = args.program.clone().unwrap_or(beside);
    let data = args.data.clone().unwrap_or_else(std::env::temp_dir);
    if args.calm {
        let root = tempfile::Builder::new().prefix("naust-torture-").tempdir_in(&data)?;
        return calm::run(&program, root.path(), args.minutes);
    }
    let since_1970 = std::time::UNIX_EPOCH.elapsed().unwrap_or_default();
    let first = args.seed.unwrap_or(since_1970.as_micros() as u64);
    let until = Instant::now() + Duration::from_secs(60 * args.minutes);
    let mut tally = Tally::default();
    for seed in first.. {
        let root = tempfile::Builder::new().prefix("naust-torture-").tempdir_in(&data)?;
        println!("round with seed {seed}");
        let lasts = Duration::from_secs(args.round_seconds);
        let violations = Round::run(seed, &program, root.path(), lasts, &mut tally);
        let wrong = match violations {
            Ok(violations) => violations,
            Err(error) => vec![format!("{error:#}")],
        };
        if !wrong.is_empty() {
            wrong.iter().take(20).for_each(|what| println!("  WRONG: {what}"));
            println!("  {} in all; again: --seed {seed}", wrong.len());
            println!("  its data is kept in {}", root.keep().display());
            tally.failed += 1;
            break;
        }
        if Instant::now() + lasts / 2 >= until {
            break;
        }
    }
    tally.print();
    Ok(tally.failed == 0)
}
