//! A new replica of a shard of about a GiB: how fast it is copied, beside a raw file of the same
//! size, and what the leader's clients notice of it.

use crate::process::{disk_mebibytes, load, node, number};
use crate::table::{Table, median, verdict};
use crate::{Setting, raw};
use anyhow::{Context as _, ensure};
use naust::process::{NodeProcess, Start};
use naust_client::{Client, Options};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// MiB on disk that the shard is filled to.
const FILL_MEBIBYTES: f64 = 1024.0;
/// Seconds of one go at filling it, and how many goes there may be.
const FILL_SECONDS: u64 = 1;
const FILLS_MAX: usize = 60;
/// Seconds of one look at the latency.
const LOOK_SECONDS: u64 = 2;
/// How long the new node may take until it votes.
const COPY_TIME_MAX: Duration = Duration::from_secs(300);
/// Between two looks at the cluster, and at the new node's directory.
const LOOK: Duration = Duration::from_millis(20);
/// A directory of this size has begun to be filled by the copy.
const BEGUN_MEBIBYTES: f64 = 16.0;

/// When the copy began and ended, and when the new node voted, after its start.
struct Joined {
    begun: Duration,
    copied: Duration,
    votes: Duration,
    mebibytes: f64,
}

/// What clients do while a node joins.
struct Clients {
    what: &'static str,
    connections: usize,
    in_flight: usize,
    /// They leave room for a copy, so that there are aims for it.
    has_aims: bool,
}

/// What they notice in a few seconds.
struct Look {
    p99_ms: f64,
    p999_ms: f64,
    per_second: f64,
}

/// The tables of a new replica: beside clients that leave room for it, and beside such that do not.
pub fn new(setting: &Setting) -> anyhow::Result<()> {
    let what = "1 connection × 16 puts of 128 B";
    join_beside(setting, &Clients { what, connections: 1, in_flight: 16, has_aims: true })?;
    let what = "4 connections × 256 puts of 128 B";
    join_beside(setting, &Clients { what, connections: 4, in_flight: 256, has_aims: false })
}

fn join_beside(setting: &Setting, clients: &Clients) -> anyhow::Result<()> {
    let directory = setting.directory()?;
    let data = directory.path().join("n1");
    let first = node(setting, &data, &[])?;
    let mut fills = 0;
    while disk_mebibytes(&data)? < FILL_MEBIBYTES {
        ensure!(fills < FILLS_MAX, "the shard does not grow to {FILL_MEBIBYTES} MiB");
        fills += 1;
        append(setting, &first)?;
    }
    let size = disk_mebibytes(&data)?;
    let raw = raw::file_bytes_per_second(directory.path(), size as u64)? / 1048576.0;
    let mut before = Vec::new();
    for _ in 0..setting.rounds {
        before.push(clients.look(setting, &first)?);
    }
    let done = AtomicBool::new(false);
    let ((joined, _second), during) = std::thread::scope(|scope| {
        let joining = scope.spawn(|| {
            let joined = join(setting, &first, directory.path());
            done.store(true, Ordering::Relaxed);
            joined
        });
        let mut during = Vec::new();
        while !done.load(Ordering::Relaxed) {
            during.push(clients.look(setting, &first)?);
        }
        anyhow::Ok((joining.join().ok().context("the new node was watched in vain")??, during))
    })?;
    // The last look may have begun when it was over.
    let looks = during.len().saturating_sub(1).max(1);
    print(clients, &joined, raw, &before, &during[..looks.min(during.len())]);
    Ok(())
}

fn append(setting: &Setting, node: &NodeProcess) -> anyhow::Result<()> {
    let pairs = [
        ("--workload", "append".to_owned()),
        ("--in-flight", "16".to_owned()),
        ("--value-bytes", "1024".to_owned()),
        ("--seconds", FILL_SECONDS.to_string()),
    ];
    load(setting, node, &arguments(pairs)).map(drop)
}

impl Clients {
    fn look(&self, setting: &Setting, node: &NodeProcess) -> anyhow::Result<Look> {
        let pairs = [
            ("--connections", self.connections.to_string()),
            ("--in-flight", self.in_flight.to_string()),
            ("--seconds", LOOK_SECONDS.to_string()),
        ];
        let told = load(setting, node, &arguments(pairs))?;
        Ok(Look {
            p99_ms: number(&told, "p99_us")? / 1000.0,
            p999_ms: number(&told, "p999_us")? / 1000.0,
            per_second: number(&told, "per_second")?,
        })
    }
}

fn arguments<const N: usize>(pairs: [(&str, String); N]) -> Vec<String> {
    pairs.into_iter().flat_map(|(name, value)| [name.to_owned(), value]).collect()
}

/// Starts a second node and watches it until it votes.
/// It lives on: alone, the first one would have no quorum.
fn join(
    setting: &Setting,
    first: &NodeProcess,
    directory: &Path,
) -> anyhow::Result<(Joined, NodeProcess)> {
    let data = directory.join("n2");
    let start = Instant::now();
    let second = NodeProcess::start(Start {
        program: setting.program.clone(),
        data: data.clone(),
        arguments: ["--name", "n2", "--join", &first.address()].map(str::to_owned).to_vec(),
        errors: Some(directory.join("n2.errors")),
    })?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (mut begun, mut copied, mut last) = (None, Duration::ZERO, 0.0);
    loop {
        ensure!(start.elapsed() < COPY_TIME_MAX, "the new node does not vote in time");
        let mebibytes = disk_mebibytes(&data).unwrap_or(last);
        if mebibytes > BEGUN_MEBIBYTES {
            begun.get_or_insert(start.elapsed());
        }
        if mebibytes > last {
            (copied, last) = (start.elapsed(), mebibytes);
        }
        if votes(&runtime, &second)? {
            let begun = begun.context("the copy was over before it was seen")?;
            let votes = start.elapsed();
            return Ok((Joined { begun, copied, votes, mebibytes: last }, second));
        }
        std::thread::sleep(LOOK);
    }
}

/// Whether both nodes vote about `default`, as the new one sees it.
fn votes(runtime: &tokio::runtime::Runtime, node: &NodeProcess) -> anyhow::Result<bool> {
    let seen = runtime.block_on(async {
        let options = Options { stays: true, timeout_ms: 5_000, ..Options::default() };
        Client::connect_with([node.address()], options).await?.cluster().await
    });
    // It may not be ready to tell.
    let Ok(seen) = seen else { return Ok(false) };
    let default = seen.namespaces.iter().find(|namespace| namespace.name == "default");
    let default = default.context("there is no default namespace")?;
    Ok(default.replicas.iter().filter(|replica| replica.voter).count() == 2)
}

fn print(clients: &Clients, joined: &Joined, raw: f64, before: &[Look], during: &[Look]) {
    let Joined { begun, copied, votes, mebibytes } = joined;
    let title = format!("A new replica, {} meanwhile", clients.what);
    let mut table = Table::new(&title, &["what", "measured", "aim", "reached"]);
    let aim = |aim: &'static str, is_met: bool| match clients.has_aims {
        true => (aim, verdict(is_met)),
        false => ("", ""),
    };
    let mut row = |what: &str, told: String, (aim, reached): (&str, &str)| {
        table.row(&[&what, &told, &aim, &reached]);
    };
    let what = "a raw file of the same size, one fdatasync a 16 MiB";
    row(what, format!("{raw:.0} MiB/s"), ("", ""));
    let seconds = (*copied - *begun).as_secs_f64();
    let rate = mebibytes / seconds;
    let share = rate / raw;
    let told =
        format!("{mebibytes:.0} MiB in {seconds:.1} s: {rate:.0} MiB/s, {:.0} %", share * 100.0);
    row("the copy, and what was written meanwhile", told, aim("≥ 40 %", share >= 0.4));
    let told = format!("{:.1} s", votes.as_secs_f64());
    row("from the start of the new node until it votes", told, ("", ""));
    let of =
        |looks: &[Look], get: fn(&Look) -> f64| median(&looks.iter().map(get).collect::<Vec<_>>());
    let (was, is) = (of(before, |look| look.p99_ms), of(during, |look| look.p99_ms));
    let told = format!("{was:.2} ms, {is:.2} ms: {:.1} ×", is / was);
    row("the leader's p99, before and during", told, aim("≤ 2 ×", is / was <= 2.0));
    let (was, is) = (of(before, |look| look.p999_ms), of(during, |look| look.p999_ms));
    let told = format!("{was:.2} ms, {is:.2} ms: {:.1} ×", is / was);
    row("the leader's p99.9, before and during", told, ("", ""));
    let (was, is) = (of(before, |look| look.per_second), of(during, |look| look.per_second));
    row("commits/s, before and during", format!("{was:.0}, {is:.0}"), ("", ""));
    table.print();
}
