//! `naust-sim`: lives from seeds, and whether the promises held in them.
//!
//! Exit status 0: all held. 1: at least one did not; the seeds and the commands that tell their
//! stories are printed.

use anyhow::{Context, bail};
use clap::Parser;
use naust_sim::life::{self, Wanted};
use naust_sim::plan::Mode;
use naust_sim::run::{self, Report};
use naust_sim::sabotage::Sabotage;
use naust_sim::shrink::{self, Cuts};
use naust_sim::trace::Trace;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::{self, Write};
use std::ops::Range;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

/// Seeds that ever failed.
const KEPT: &str = include_str!("../seeds.txt");
/// Lives that are tried at most when one is cut.
const TRIES_MAX: usize = 600;
/// Lives between two looks at the clock.
const LIVES_AT_ONCE: u64 = 64;

/// Lives whole clusters from seeds and judges what they promised.
#[derive(Parser)]
#[command(name = "naust-sim", version)]
struct Arguments {
    #[command(flatten)]
    what: What,
    /// Tells the story of the seed, one line an event.
    #[arg(long, requires = "seed")]
    trace: bool,
    /// Prints the hash of the story and nothing else.
    #[arg(long, requires = "seed", conflicts_with = "trace")]
    hash: bool,
    /// Cuts the life of the seed as far as it goes on failing, and prints what is left.
    #[arg(long, requires = "seed", conflicts_with_all = ["trace", "hash"])]
    shrink: bool,
    /// So many nodes, whatever the seeds draw.
    #[arg(long, value_name = "N")]
    nodes: Option<usize>,
    /// Beyond the promises: the only right answers are refusals and a stop, never a lie.
    #[arg(long, conflicts_with = "promised")]
    beyond: bool,
    /// Within the promises.
    #[arg(long)]
    promised: bool,
    /// The busy part of each life ends after so many microseconds.
    #[arg(long, value_name = "MICROSECONDS")]
    busy_micros: Option<u64>,
    /// Of the faults, numbered as they come, only these happen: `4,17`, or `none`.
    #[arg(long, value_name = "NUMBERS", value_parser = numbers)]
    only_faults: Option<Numbers>,
    /// So many requests in each life, whatever the seeds draw.
    #[arg(long, value_name = "N")]
    requests: Option<u64>,
    /// So many clients, whatever the seeds draw.
    #[arg(long, value_name = "N")]
    clients: Option<u64>,
    /// Of the planted bugs this one only.
    #[cfg(naust_planted)]
    #[arg(long, value_name = "NAME", requires = "planted")]
    bug: Option<String>,
    /// Someone lies: to see that it is found out, and cut.
    #[arg(long, value_name = "NAME", value_parser = Sabotage::named)]
    lie: Option<Sabotage>,
    /// Clusters of three nodes that have next to nothing to do: a few requests and no faults.
    #[arg(long, conflicts_with_all = ["only_faults", "requests", "clients", "nodes", "beyond"])]
    idle: bool,
    /// Lives side by side.
    #[arg(long, value_name = "N", default_value_t = 2)]
    threads: usize,
}

#[derive(clap::Args)]
#[group(required = true, multiple = false)]
struct What {
    /// Seeds to live, from A up to but without B.
    #[arg(long, value_name = "A..B", value_parser = range)]
    seeds: Option<Range<u64>>,
    /// One seed to live.
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// The seeds that ever failed.
    #[arg(long)]
    kept: bool,
    /// Lives seeds from this one on, for so many minutes.
    #[arg(long, value_name = "FROM:MINUTES", value_parser = span)]
    hunt: Option<(u64, u64)>,
    /// Lives with each planted bug until it is found, in at most so many lives.
    #[cfg(naust_planted)]
    #[arg(long, value_name = "LIVES")]
    planted: Option<u64>,
}

type Numbers = BTreeSet<u64>;

fn number(text: &str) -> Result<u64, String> {
    text.parse::<u64>().map_err(|error| format!("{text:?}: {error}"))
}

fn range(text: &str) -> Result<Range<u64>, String> {
    let (start, end) = text.split_once("..").ok_or("a range looks like 0..300")?;
    let range = number(start)?..number(end)?;
    if range.is_empty() { Err("the range is empty".to_owned()) } else { Ok(range) }
}

fn span(text: &str) -> Result<(u64, u64), String> {
    let (from, minutes) = text.split_once(':').ok_or("it looks like 0:10")?;
    Ok((number(from)?, number(minutes)?))
}

fn numbers(text: &str) -> Result<Numbers, String> {
    if text == "none" { Ok(Numbers::new()) } else { text.split(',').map(number).collect() }
}

impl Arguments {
    fn wanted(&self) -> Wanted {
        let mode = match (self.beyond, self.promised) {
            (true, _) => Some(Mode::Beyond),
            (_, true) => Some(Mode::Promised),
            _ => None,
        };
        let cuts = Cuts {
            busy_micros: self.busy_micros,
            faults: self.only_faults.clone(),
            requests: self.requests,
            clients: self.clients,
        };
        if self.idle {
            return Wanted::idle();
        }
        Wanted { nodes: self.nodes, mode, sabotage: self.lie, cuts }
    }
}

fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    life::listen_to_panics();
    #[cfg(naust_planted)]
    if let Some(lives) = arguments.what.planted {
        let found = planted(lives, &arguments)?;
        return Ok(if found { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    let wanted = arguments.wanted();
    let held = match &arguments.what {
        What { seeds: Some(range), .. } => many(range, &wanted, arguments.threads)?,
        What { hunt: Some((from, minutes)), .. } => {
            hunt(*from, Duration::from_secs(minutes * 60), &wanted, arguments.threads)?
        }
        What { kept: true, .. } => kept()?,
        What { seed: Some(seed), .. } if arguments.shrink => cut(*seed, &wanted)?,
        What { seed: Some(seed), .. } => one(*seed, &wanted, &arguments)?,
        _ => bail!("name --seeds, --seed, --hunt or --kept"),
    };
    Ok(if held { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn one(seed: u64, wanted: &Wanted, arguments: &Arguments) -> anyhow::Result<bool> {
    let trace = if arguments.trace {
        Trace::telling(Box::new(io::BufWriter::new(io::stdout())))
    } else {
        Trace::silent()
    };
    let life = life::live(seed, wanted, trace);
    let mut out = io::stdout().lock();
    let held = life.violations.is_empty();
    if arguments.hash {
        writeln!(out, "{:016x}", life.hash).context("writing to standard output")?;
        return Ok(held);
    }
    for violation in life.violations.iter().take(20) {
        writeln!(out, "{}: {}", violation.checker, violation.what)?;
    }
    write!(out, "{}", life.tally.table())?;
    let verdict = if held { "held" } else { "FAILED" };
    writeln!(out, "seed {seed}: {verdict}, trace {:016x}", life.hash)?;
    Ok(held)
}

/// Lives the seeds that ever failed, each with the number of nodes that it failed with.
fn kept() -> anyhow::Result<bool> {
    let mut held = true;
    let lines = KEPT.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    for line in lines {
        let (life, _) = line.split_once(' ').context("each has its reason")?;
        let (seed, nodes) = life.split_once(':').context("a line begins with seed:nodes")?;
        // An `!` behind the number of nodes: beyond the promises.
        let mode = nodes.ends_with('!').then_some(Mode::Beyond);
        let (seed, nodes) = (seed.parse()?, nodes.trim_end_matches('!').parse()?);
        let wanted = Wanted { nodes: Some(nodes), mode, ..Wanted::default() };
        let life = life::live(seed, &wanted, Trace::silent());
        if let Some(what) = run::sentence(&life) {
            held = false;
            fail(seed, &what, &wanted);
        }
    }
    let verdict = if held { "hold" } else { "do not all hold: FAILED" };
    writeln!(io::stdout().lock(), "verdict: the seeds that ever failed {verdict}")?;
    Ok(held)
}

fn many(range: &Range<u64>, wanted: &Wanted, threads: usize) -> anyhow::Result<bool> {
    let begun = Instant::now();
    let report = run::seeds(range.clone(), wanted, threads, |seed, what| fail(seed, what, wanted));
    conclude(&report, range, wanted, begun.elapsed())
}

/// Lives seeds until the time is over.
fn hunt(from: u64, lasts: Duration, wanted: &Wanted, threads: usize) -> anyhow::Result<bool> {
    let (begun, mut next) = (Instant::now(), from);
    let mut all = Report::default();
    while begun.elapsed() < lasts {
        let range = next..next + LIVES_AT_ONCE;
        next = range.end;
        let report = run::seeds(range, wanted, threads, |seed, what| fail(seed, what, wanted));
        all.tally.add(&report.tally);
        all.failed.extend(report.failed);
    }
    conclude(&all, &(from..next), wanted, begun.elapsed())
}

fn conclude(
    report: &Report,
    range: &Range<u64>,
    wanted: &Wanted,
    took: Duration,
) -> anyhow::Result<bool> {
    let mut out = io::stdout().lock();
    write!(out, "{}{}", report.tally.table(), report.tally.coverage())?;
    let seconds = took.as_secs_f64();
    writeln!(out, "  {:<38} {seconds:>14.1}", "seconds")?;
    let per_minute = report.tally.lives as f64 / seconds * 60.0;
    writeln!(out, "  {:<38} {per_minute:>14.0}", "lives a minute")?;
    let faster = report.tally.micros as f64 / 1e6 / seconds;
    writeln!(out, "  {:<38} {faster:>14.0}", "times faster than time")?;
    for (seed, what) in &report.failed {
        writeln!(out, "seed {seed} FAILED: {what}\n  {}", command(*seed, wanted, " --trace"))?;
    }
    let (Range { start, end }, failed) = (range, report.failed.len());
    if failed == 0 {
        writeln!(out, "verdict: all promises held in seeds {start}..{end}")?;
    } else {
        writeln!(out, "verdict: {failed} of the seeds {start}..{end} FAILED at {}", commit())?;
    }
    Ok(failed == 0)
}

/// Tells of a failure at once. Nobody may be listening; the verdict is told again at the end.
fn fail(seed: u64, what: &str, wanted: &Wanted) {
    let (commit, command) = (commit(), command(seed, wanted, " --trace"));
    let _ = writeln!(io::stderr().lock(), "seed {seed} at {commit} FAILED: {what}\n  {command}");
}

/// Cuts a failing life and tells what is left of it.
fn cut(seed: u64, wanted: &Wanted) -> anyhow::Result<bool> {
    let told = |cuts: &Cuts| {
        let faults = cuts.faults.as_ref().map_or("all".to_owned(), |f| f.len().to_string());
        let _ = writeln!(
            io::stderr().lock(),
            "it still fails with {} µs, {faults} faults",
            cuts.busy_micros.map_or("all".to_owned(), |micros| micros.to_string()),
        );
    };
    let mut out = io::stdout().lock();
    let Some(shrunk) = shrink::shrink(seed, wanted, TRIES_MAX, told) else {
        writeln!(out, "seed {seed} holds: there is nothing to cut")?;
        return Ok(true);
    };
    let life = &shrunk.life;
    let what = run::sentence(life).unwrap_or_default();
    let faults = shrunk.cuts.faults.as_ref().map_or(life.faults, |kept| kept.len() as u64);
    let (tries, clients, requests) = (shrunk.tries, life.clients, life.requests);
    let seconds = life.busy_micros as f64 / 1e6;
    writeln!(out, "{what}")?;
    writeln!(
        out,
        "seed {seed} at {}: {seconds:.3} s, {faults} faults, {clients} clients, at most {requests} \
         requests; {tries} were tried",
        commit()
    )?;
    let wanted = Wanted { cuts: shrunk.cuts, ..wanted.clone() };
    writeln!(out, "  {}", command(seed, &wanted, " --trace"))?;
    Ok(false)
}

/// Lives with each planted bug and prints the table of docs/planted-bugs.md.
#[cfg(naust_planted)]
fn planted(lives: u64, arguments: &Arguments) -> anyhow::Result<bool> {
    use naust_sim::planted::{find, wanted};
    let mut out = io::stdout().lock();
    writeln!(out, "| bug | nodes | lives until it was found | found by |\n|---|---|---|---|")?;
    let mut all = true;
    for bug in naust_wire::planted::Bug::ALL {
        let name = format!("{bug:?}");
        if arguments.bug.as_ref().is_some_and(|bug| *bug != name) {
            continue;
        }
        // What the simulator does not run is left to the tests of its crate.
        let Some(wanted) = wanted(bug) else { continue };
        let nodes = wanted.nodes.unwrap_or(1);
        let found = find(bug, &wanted, 0..lives, arguments.threads);
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

/// The commit that this was built from, as far as is known.
fn commit() -> String {
    let told = Command::new("git").args(["rev-parse", "--short=12", "HEAD"]).output();
    let told = told.ok().filter(|told| told.status.success());
    let commit = told.and_then(|told| String::from_utf8(told.stdout).ok());
    commit.map_or_else(|| "an unknown commit".to_owned(), |commit| commit.trim().to_owned())
}

/// The command that lives this life again.
fn command(seed: u64, wanted: &Wanted, more: &str) -> String {
    let mut command = format!("cargo run --release -p naust-sim -- --seed {seed}");
    let mut add = |option: &str, value: Option<String>| {
        if let Some(value) = value {
            write!(command, " --{option} {value}").expect("a string takes what is written");
        }
    };
    add("nodes", wanted.nodes.map(|nodes| nodes.to_string()));
    add("busy-micros", wanted.cuts.busy_micros.map(|micros| micros.to_string()));
    add("requests", wanted.cuts.requests.map(|requests| requests.to_string()));
    add("clients", wanted.cuts.clients.map(|clients| clients.to_string()));
    add("lie", wanted.sabotage.map(|lie| format!("{lie:?}")));
    add("only-faults", wanted.cuts.faults.as_ref().map(list));
    let mode = match wanted.mode {
        Some(Mode::Beyond) => " --beyond",
        Some(Mode::Promised) => " --promised",
        None => "",
    };
    command + mode + more
}

fn list(numbers: &Numbers) -> String {
    if numbers.is_empty() {
        return "none".to_owned();
    }
    let numbers: Vec<String> = numbers.iter().map(ToString::to_string).collect();
    numbers.join(",")
}
