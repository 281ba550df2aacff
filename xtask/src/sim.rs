//! The simulator as a chore: seeds of the commit, seeds that ever failed, that a seed has one
//! story, and whether planted bugs are found.

use crate::shell::{output, root, run};
use anyhow::{Context, bail};

/// What `cargo xtask sim` does.
#[derive(clap::Args)]
pub struct Args {
    /// How many fresh seeds within the promises and as drawn.
    #[arg(long, default_value_t = 300)]
    seeds: u64,
    /// How many fresh seeds beyond the promises.
    #[arg(long, default_value_t = 60)]
    beyond: u64,
    /// Instead of that: lives fresh seeds for so many minutes.
    #[arg(long, value_name = "MINUTES")]
    minutes: Option<u64>,
    /// The first seed, instead of one that derives from the commit.
    #[arg(long, value_name = "SEED")]
    from: Option<u64>,
}

impl Default for Args {
    fn default() -> Args {
        Args { seeds: 300, beyond: 60, minutes: None, from: None }
    }
}

/// Lives that are told twice, by two processes.
const TOLD_TWICE: u64 = 4;
/// Lives within which each planted bug is to be found.
const PLANTED_LIVES: &str = "500";

/// Runs the simulator.
pub fn simulate(args: &Args) -> anyhow::Result<()> {
    run("cargo", &["build", "--release", "-p", "naust-sim"], &[])?;
    let program = root().join("target/release/naust-sim").to_string_lossy().into_owned();
    let first = match args.from {
        Some(first) => first,
        None => first_of_commit()?,
    };
    if let Some(minutes) = args.minutes {
        return run(&program, &["--hunt", &format!("{first}:{minutes}")], &[]);
    }
    run(&program, &["--kept"], &[])?;
    for seed in first..first + TOLD_TWICE {
        one_story(&program, seed)?;
    }
    run(&program, &["--seeds", &format!("{first}..{}", first + args.seeds)], &[])?;
    if args.beyond > 0 {
        let range = format!("{first}..{}", first + args.beyond);
        run(&program, &["--beyond", "--seeds", &range], &[])?;
    }
    Ok(())
}

fn first_of_commit() -> anyhow::Result<u64> {
    let commit = output("git", &["rev-parse", "HEAD"])?;
    let start = commit.get(..12).context("a commit hash is longer")?;
    Ok(u64::from_str_radix(start, 16)?)
}

/// A seed has one story, whoever tells it.
fn one_story(program: &str, seed: u64) -> anyhow::Result<()> {
    let nodes = if seed.is_multiple_of(2) { "3" } else { "1" };
    let tell = || output(program, &["--seed", &seed.to_string(), "--nodes", nodes, "--hash"]);
    let (first, second) = (tell()?, tell()?);
    if first != second {
        bail!("seed {seed} of {nodes} nodes has two stories: {first} and {second}");
    }
    println!("seed {seed} of {nodes} nodes is told twice as {first}");
    Ok(())
}

/// Makes a build with bugs in it, in a directory of its own, and has the simulator find each, or
/// the tests of the crate if the simulator does not run it.
pub fn planted() -> anyhow::Result<()> {
    let target = root().join("target/planted").to_string_lossy().into_owned();
    let variables = [("RUSTFLAGS", "--cfg naust_planted"), ("CARGO_TARGET_DIR", &target)];
    let simulator = ["run", "--release", "-p", "naust-sim", "--"];
    run("cargo", &[&simulator[..], &["--planted", PLANTED_LIVES]].concat(), &variables)?;
    // The engine below the tables is not in the simulator, and what its journals seldom come to is
    // drawn more often by lives of logs alone: these crates' own tests look for the bugs.
    for (package, test) in [("naust-store", "model"), ("naust-log", "journal")] {
        let found = ["test", "--release", "-p", package, "--test", test, "planted"];
        run("cargo", &[&found[..], &["--", "--nocapture"]].concat(), &variables)?;
    }
    Ok(())
}
