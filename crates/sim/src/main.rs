//! `naust-sim`: lives from seeds, and whether the promises held in them.
//!
//! Exit status 0: all held. 1: at least one did not; the seeds and the commands that tell their
//! stories are printed.

use anyhow::{Context, bail};
use clap::Parser;
use naust_sim::life::{self, Wanted};
use naust_sim::plan::Mode;
use naust_sim::run;
use naust_sim::trace::Trace;
use std::io::{self, Write};
use std::ops::Range;
use std::process::ExitCode;
use std::time::Instant;

/// Lives whole clusters from seeds and judges what they promised.
#[derive(Parser)]
#[command(name = "naust-sim", version)]
struct Arguments {
    /// Seeds to live, from A up to but without B.
    #[arg(long, value_name = "A..B", value_parser = range, conflicts_with = "seed")]
    seeds: Option<Range<u64>>,
    /// One seed to live.
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Tells the story of the seed, one line an event.
    #[arg(long, requires = "seed")]
    trace: bool,
    /// Prints the hash of the story and nothing else.
    #[arg(long, requires = "seed", conflicts_with = "trace")]
    hash: bool,
    /// So many nodes, whatever the seeds draw.
    #[arg(long, value_name = "N")]
    nodes: Option<usize>,
    /// Beyond the promises: the only right answers are refusals, never a lie.
    #[arg(long, conflicts_with = "promised")]
    beyond: bool,
    /// Within the promises.
    #[arg(long)]
    promised: bool,
    /// Lives with each planted bug until it is found, in at most so many lives.
    #[cfg(naust_planted)]
    #[arg(long, value_name = "LIVES", conflicts_with_all = ["seed", "seeds"])]
    planted: Option<u64>,
    /// Of the planted bugs this one only.
    #[cfg(naust_planted)]
    #[arg(long, value_name = "NAME", requires = "planted")]
    bug: Option<String>,
    /// Lives side by side.
    #[arg(long, value_name = "N", default_value_t = 2)]
    threads: usize,
}

impl Arguments {
    fn wanted(&self) -> Wanted {
        let mode = match (self.beyond, self.promised) {
            (true, _) => Some(Mode::Beyond),
            (_, true) => Some(Mode::Promised),
            _ => None,
        };
        Wanted { nodes: self.nodes, mode, ..Wanted::default() }
    }
}

fn range(text: &str) -> Result<Range<u64>, String> {
    let (start, end) = text.split_once("..").ok_or("a range looks like 0..300")?;
    let number = |text: &str| text.parse::<u64>().map_err(|error| format!("{text:?}: {error}"));
    let range = number(start)?..number(end)?;
    if range.is_empty() { Err("the range is empty".to_owned()) } else { Ok(range) }
}

fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    life::listen_to_panics();
    #[cfg(naust_planted)]
    if let Some(lives) = arguments.planted {
        let found = planted(lives, &arguments)?;
        return Ok(if found { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    let held = match (&arguments.seeds, arguments.seed) {
        (Some(range), _) => many(range.clone(), &arguments)?,
        (None, Some(seed)) => one(seed, &arguments)?,
        (None, None) => bail!("name --seeds A..B or --seed N"),
    };
    Ok(if held { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn one(seed: u64, arguments: &Arguments) -> anyhow::Result<bool> {
    let trace = if arguments.trace {
        Trace::telling(Box::new(io::BufWriter::new(io::stdout())))
    } else {
        Trace::silent()
    };
    let life = life::live(seed, arguments.wanted(), trace);
    let mut out = io::stdout().lock();
    if arguments.hash {
        writeln!(out, "{:016x}", life.hash).context("writing to standard output")?;
        return Ok(life.violations.is_empty());
    }
    for violation in life.violations.iter().take(20) {
        writeln!(out, "{}: {}", violation.checker, violation.what)?;
    }
    write!(out, "{}", life.tally.table())?;
    let verdict = if life.violations.is_empty() { "held" } else { "FAILED" };
    writeln!(out, "seed {seed}: {verdict}, trace {:016x}", life.hash)?;
    Ok(life.violations.is_empty())
}

fn many(range: Range<u64>, arguments: &Arguments) -> anyhow::Result<bool> {
    let begun = Instant::now();
    let report = run::seeds(range.clone(), arguments.wanted(), arguments.threads, |seed, what| {
        let mut err = io::stderr().lock();
        // Nobody may be listening; the verdict is told again at the end.
        let _ = writeln!(err, "seed {seed} FAILED: {what}\n  {}", command(seed, arguments));
    });
    let seconds = begun.elapsed().as_secs_f64();
    let mut out = io::stdout().lock();
    write!(out, "{}", report.tally.table())?;
    let per_minute = report.tally.lives as f64 / seconds * 60.0;
    writeln!(out, "  {:<34} {seconds:>14.1}", "seconds")?;
    writeln!(out, "  {:<34} {per_minute:>14.0}", "lives a minute")?;
    for (seed, what) in &report.failed {
        writeln!(out, "seed {seed} FAILED: {what}\n  {}", command(*seed, arguments))?;
    }
    let (start, end, failed) = (range.start, range.end, report.failed.len());
    if failed == 0 {
        writeln!(out, "verdict: all promises held in seeds {start}..{end}")?;
    } else {
        writeln!(out, "verdict: {failed} of the seeds {start}..{end} FAILED")?;
    }
    Ok(failed == 0)
}

/// Lives with each planted bug and prints the table of docs/planted-bugs.md.
#[cfg(naust_planted)]
fn planted(lives: u64, arguments: &Arguments) -> anyhow::Result<bool> {
    use naust_sim::planted::{find, wanted};
    let mut out = io::stdout().lock();
    writeln!(out, "| bug | nodes | lives until it was found | found by |\n|---|---|---|---|")?;
    let mut all = true;
    let asked = |name: &String| arguments.bug.as_ref().is_none_or(|bug| bug == name);
    for bug in naust_wire::planted::Bug::ALL {
        let name = format!("{bug:?}");
        if !asked(&name) {
            continue;
        }
        let nodes = wanted(bug).nodes.unwrap_or(1);
        let found = find(bug, 0..lives, arguments.threads);
        all &= found.is_some();
        match found {
            Some(found) => {
                let (lives, checkers) = (found.lives, found.checkers.join(", "));
                writeln!(out, "| `{name}` | {nodes} | {lives} | {checkers} |")?;
                if arguments.bug.is_some() {
                    writeln!(out, "seed {}: {}", found.seed, found.what)?;
                }
            }
            None => writeln!(out, "| `{name}` | {nodes} | not in {lives} | nobody |")?,
        }
        out.flush()?;
    }
    Ok(all)
}

fn command(seed: u64, arguments: &Arguments) -> String {
    let nodes = arguments.nodes.map(|nodes| format!(" --nodes {nodes}")).unwrap_or_default();
    format!("cargo run --release -p naust-sim -- --seed {seed}{nodes} --trace")
}
