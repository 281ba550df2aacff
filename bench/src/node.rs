//! A node over TCP, and embedded: commits, reads, appends.

use crate::embedded;
use crate::process::{load, node, number, processor_seconds};
use crate::table::{Table, grouped, median, verdict};
use crate::{Setting, raw};
use anyhow::Context as _;
use naust::process::NodeProcess;
use serde_json::Value;
use std::time::Duration;

/// A row: its name and what `naust bench` is told.
struct Row {
    name: &'static str,
    workload: &'static str,
    connections: usize,
    in_flight: usize,
    namespaces: usize,
    /// Commits a second that are aimed at; 0: another aim, see where it is printed.
    aim: f64,
}

const ROWS: [Row; 8] = [
    Row::put("1 connection × 1", 1, 1, 0, 0.0),
    Row::put("1 connection × 256", 1, 256, 0, 200_000.0),
    Row::put("64 connections × 4", 64, 4, 0, 120_000.0),
    Row::put("256 connections × 1", 256, 1, 0, 60_000.0),
    Row::put("64 namespaces × 4, one connection", 1, 4, 64, 0.0),
    Row::put("64 namespaces × 4, a connection each", 64, 4, 64, 0.0),
    Row { workload: "get", ..Row::put("linearizable reads, 1 × 64", 1, 64, 0, 0.0) },
    // Compactions are under way by then.
    Row::put("1 connection × 256, after all these", 1, 256, 0, 200_000.0),
];

/// The row of a node in this process.
const EMBEDDED: &str = "embedded, 256 in flight";

/// What a row did in a round.
struct Measured {
    per_second: f64,
    p50_us: f64,
    p99_us: f64,
    syncs_per_commit: f64,
    log_bytes_per_user_byte: f64,
    processor_us: f64,
}

impl Row {
    const fn put(
        name: &'static str,
        connections: usize,
        in_flight: usize,
        namespaces: usize,
        aim: f64,
    ) -> Row {
        Row { name, workload: "put", connections, in_flight, namespaces, aim }
    }

    fn arguments(&self, seconds: u64, seed: u64) -> Vec<String> {
        let pairs = [
            ("--workload", self.workload.to_owned()),
            ("--connections", self.connections.to_string()),
            ("--in-flight", self.in_flight.to_string()),
            ("--namespaces", self.namespaces.to_string()),
            ("--seconds", seconds.to_string()),
            ("--seed", seed.to_string()),
        ];
        pairs.into_iter().flat_map(|(name, value)| [name.to_owned(), value]).collect()
    }

    fn measure(
        &self,
        setting: &Setting,
        node: &NodeProcess,
        seed: u64,
    ) -> anyhow::Result<Measured> {
        let seconds = if self.in_flight * self.connections == 1 { 3 } else { setting.seconds };
        measure(setting, node, &self.arguments(seconds, seed))
    }
}

/// The counters include the warm-up and the end, so what is divided by commits is divided by all
/// that were made.
fn measure(
    setting: &Setting,
    node: &NodeProcess,
    arguments: &[String],
) -> anyhow::Result<Measured> {
    let (before, processor) = (node.counters()?, processor_seconds(node.id())?);
    let end_before = log_end(node)?;
    let told: Value = load(setting, node, arguments)?;
    let after = node.counters()?;
    let processor = processor_seconds(node.id())? - processor;
    let (all, user) = (number(&told, "all_done")?, number(&told, "all_user_bytes")?);
    Ok(Measured {
        per_second: number(&told, "per_second")?,
        p50_us: number(&told, "p50_us")?,
        p99_us: number(&told, "p99_us")?,
        syncs_per_commit: (after.syncs - before.syncs) as f64 / all,
        log_bytes_per_user_byte: (log_end(node)? - end_before) as f64 / user,
        processor_us: processor * 1e6 / all,
    })
}

/// Where the log of `default` ends.
fn log_end(node: &NodeProcess) -> anyhow::Result<u64> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let namespaces = runtime.block_on(async {
        naust_client::Client::connect([node.address()]).await?.namespaces().await
    })?;
    let default = namespaces.iter().find(|namespace| namespace.name == "default");
    let end = default.context("there is no default namespace")?.end;
    Ok(end.context("the node does not know where the log ends")?.0)
}

fn middle(rounds: &[Measured], of: impl Fn(&Measured) -> f64) -> f64 {
    median(&rounds.iter().map(of).collect::<Vec<_>>())
}

/// The table of the node on a real disk.
pub fn on_disk(setting: &Setting) -> anyhow::Result<()> {
    let mut raw_us = Vec::new();
    let mut rounds: Vec<Vec<Measured>> = ROWS.iter().map(|_| Vec::new()).collect();
    let mut in_process = Vec::new();
    for round in 0..setting.rounds {
        // Each round begins with nothing.
        let directory = setting.directory()?;
        let node = node(setting, &directory.path().join("node"), &[])?;
        let wanted = |row: &&Row| row.name.contains(&setting.row);
        for (row, measured) in ROWS.iter().zip(&mut rounds).filter(|(row, _)| wanted(row)) {
            raw_us.push(raw::sync_p50_us(directory.path(), Duration::from_secs(1))?);
            measured.push(row.measure(setting, &node, round as u64)?);
        }
        if EMBEDDED.contains(&setting.row) {
            let data = directory.path().join("embedded");
            in_process.push(embedded::commits(&data, 256, Duration::from_secs(setting.seconds))?);
        }
    }
    let raw = median(&raw_us);
    let columns = [
        "what",
        "commits/s",
        "p50 ms",
        "p99 ms",
        "syncs/commit",
        "CPU µs/commit",
        "aim",
        "reached",
    ];
    let mut table = Table::new("A node on disk, over TCP: one put a commit", &columns);
    let one_connection = middle(&rounds[1], |measured| measured.per_second);
    for (row, measured) in ROWS.iter().zip(&rounds) {
        let rate = middle(measured, |m| m.per_second);
        let p50 = middle(measured, |m| m.p50_us);
        let (aim, reached) = aim(row, rate, p50, raw, one_connection);
        table.row(&[
            &row.name,
            &grouped(rate),
            &format!("{:.3}", p50 / 1000.0),
            &format!("{:.2}", middle(measured, |m| m.p99_us) / 1000.0),
            &format!("{:.5}", middle(measured, |m| m.syncs_per_commit)),
            &format!("{:.2}", middle(measured, |m| m.processor_us)),
            &aim,
            &reached,
        ]);
    }
    let rate = median(&in_process);
    let reached = verdict(rate >= 250_000.0);
    let rate = grouped(rate);
    table.row(&[&EMBEDDED, &rate, &"", &"", &"", &"", &"≥ 250 000/s", &reached]);
    table.print();
    println!(
        "\nraw 4 KiB write + fdatasync, p50: {:.3} ms; medians of {} rounds",
        raw / 1e3,
        setting.rounds
    );
    Ok(())
}

fn aim(row: &Row, rate: f64, p50: f64, raw: f64, one_connection: f64) -> (String, &'static str) {
    if row.in_flight * row.connections == 1 {
        let ratio = p50 / raw;
        return (format!("p50 ≤ 2 × raw sync; is {ratio:.2} ×"), verdict(ratio <= 2.0));
    }
    if row.namespaces > 0 {
        let ratio = rate / one_connection;
        return (format!("≥ 0.5 × one connection; is {ratio:.2} ×"), verdict(ratio >= 0.5));
    }
    if row.aim == 0.0 {
        return ("none".to_owned(), "");
    }
    (format!("≥ {}/s", grouped(row.aim)), verdict(rate >= row.aim))
}

/// Appends beside raw sequential writes, round by round.
pub fn appends(setting: &Setting) -> anyhow::Result<()> {
    let directory = setting.directory()?;
    let node = node(setting, &directory.path().join("node"), &[])?;
    let row = Row { workload: "append", ..Row::put("", 4, 16, 0, 0.0) };
    let mut arguments = row.arguments(setting.seconds, 1);
    arguments.extend(["--value-bytes".to_owned(), "1024".to_owned()]);
    let (mut raw_rates, mut rates, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    let mut growing_rates = Vec::new();
    for _ in 0..setting.rounds {
        let raw = raw::sequential_bytes_per_second(directory.path(), Duration::from_secs(3))?;
        let growing = raw::growing_bytes_per_second(directory.path(), Duration::from_secs(3))?;
        growing_rates.push(growing / 1048576.0);
        let measured = measure(setting, &node, &arguments)?;
        raw_rates.push(raw / 1048576.0);
        rates.push(measured.per_second * 64.0 * 1024.0 / 1048576.0);
        ratios.push(measured.log_bytes_per_user_byte);
    }
    let (raw, rate, bytes) = (median(&raw_rates), median(&rates), median(&ratios));
    let columns = ["what", "measured", "aim", "reached"];
    let mut table = Table::new("Stream appends: records of 1 KiB, 64 a commit", &columns);
    let growing = median(&growing_rates);
    let what = "raw sequential writes, one fdatasync a MiB, over a file that is there";
    table.row(&[&what, &format!("{raw:.0} MiB/s"), &"", &""]);
    let what = "the same to the end of a new file, as a log is written";
    table.row(&[&what, &format!("{growing:.0} MiB/s"), &"", &""]);
    let what = "appends, 4 connections × 16 commits";
    table.row(&[&what, &format!("{rate:.0} MiB/s"), &"", &""]);
    for (beside, raw) in [("a file that is there", raw), ("a new file", growing)] {
        let share = rate / raw;
        let (what, told) = (format!("… beside {beside}"), format!("{:.0} %", share * 100.0));
        table.row(&[&what, &told, &"≥ 60 %", &verdict(share >= 0.6)]);
    }
    let told = format!("{bytes:.3}");
    table.row(&[&"log bytes per user byte", &told, &"≤ 1.10", &verdict(bytes <= 1.10)]);
    table.print();
    Ok(())
}

/// The first rows with a delay injected into each sync, on memory: the node without a disk's moods.
pub fn with_delays(setting: &Setting) -> anyhow::Result<()> {
    let columns = ["what", "0.1 ms", "1 ms", "4 ms"];
    let mut table = Table::new("Commits/s (p50 ms) on tmpfs with a delay in each sync", &columns);
    let directory = setting.directory()?;
    let mut cells: Vec<Vec<String>> = vec![Vec::new(); 4];
    for delay_us in [100, 1000, 4000] {
        let data = directory.path().join(delay_us.to_string());
        let option = format!("debug.fsync_delay_us={delay_us}");
        let node = node(setting, &data, &[&option])?;
        for (row, cells) in ROWS.iter().zip(&mut cells) {
            let measured = row.measure(setting, &node, 1)?;
            let p50 = measured.p50_us / 1000.0;
            cells.push(format!("{} ({p50:.2})", grouped(measured.per_second)));
        }
    }
    for (row, cells) in ROWS.iter().zip(&cells) {
        table.row(&[&row.name, &cells[0], &cells[1], &cells[2]]);
    }
    table.print();
    Ok(())
}
