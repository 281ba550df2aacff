//! `naust demo`: real input, a real kill, and a proof.
//!
//! Every line of the input becomes one commit that puts a row *and* appends an event. Midway the
//! node, a process of its own, is killed with SIGKILL and started again; the client sends again
//! what it has no reply for, under its session. At the end everything is read back and compared
//! with the input: each line's row and event are there once and belong to the same commit. Only a
//! bit a line is kept in memory.
//!
//! Of three nodes the leader is killed, a follower stands still, and another loses its disk and is
//! replaced; at the end everything is read from each node, and their logs are compared.

use super::input::Input;
use super::ordeal::{Ordeal, Step, log_digest};
use anyhow::{Context as _, bail, ensure};
use clap::Args;
use hdrhistogram::Histogram;
use indicatif::{ProgressBar, ProgressStyle};
use naust::process::Counters;
use naust_client::{Client, Namespace, Options, ReadOptions, Submitted};
use naust_wire::limits::{FRAME_HEADER_BYTES, VALUE_BYTES_MAX};
use naust_wire::{Offset, read::Level};
use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

const ROWS: &str = "lines";
const EVENTS: &str = "events";
/// Bytes that a commit's encoding adds to its key, value and record, at most.
const COMMIT_BYTES: u64 = 512;
/// Reads under way while the proof is made.
const READS: usize = 256;

#[derive(Args)]
pub struct Demo {
    /// Text or NDJSON, one commit a line [default: the Unicode character database, 34,924 lines].
    #[arg(long)]
    input: Option<PathBuf>,
    /// An empty or missing directory for the data, kept afterwards [default: a temporary one,
    /// removed].
    #[arg(long)]
    data: Option<PathBuf>,
    /// How often the node is killed, at even distances.
    #[arg(long, default_value_t = 1)]
    kills: u64,
    /// Commits under way.
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u16).range(1..=1024))]
    in_flight: u16,
    /// One node, which is killed, or three, of which one is killed, one paused and one lost.
    #[arg(long, default_value = "1", value_parser = ["1", "3"], conflicts_with = "kills")]
    nodes: String,
}

struct Loaded {
    lines: u64,
    bytes: u64,
    /// How often a node was killed, paused or lost.
    steps: u64,
    /// The last commit.
    last: Offset,
    seconds: f64,
    latency: Histogram<u64>,
    longest_gap: Duration,
    counters: Counters,
}

impl Demo {
    pub fn run(self) -> anyhow::Result<()> {
        let input = Input::open(self.input.as_deref())?;
        let (lines, _) = input.measure()?;
        ensure!(lines > 0, "the input has no lines");
        let directory = Directory::new(self.data.clone())?;
        println!("input: {lines} lines of {}", input.name());
        let result = super::runtime()?.block_on(self.load_and_prove(&input, lines, &directory));
        match &result {
            Ok(loaded) => {
                print(loaded);
                let more = match self.nodes.as_str() {
                    "1" => "",
                    _ => " This holds for each of three nodes, and their logs are equal.",
                };
                println!(
                    "VERDICT: every acknowledged commit is there once; rows and events agree.{more}"
                );
            }
            Err(_) => println!("VERDICT: FAILED"),
        }
        directory.leave(result.is_ok());
        result.map(drop)
    }

    async fn load_and_prove(
        &self,
        input: &Input,
        lines: u64,
        directory: &Directory,
    ) -> anyhow::Result<Loaded> {
        let acknowledged = Arc::new(AtomicU64::new(0));
        let (path, count) = (directory.path.clone(), Arc::clone(&acknowledged));
        let (kills, three) = (self.kills, self.nodes == "3");
        // Starting nodes blocks.
        let starting = tokio::task::spawn_blocking(move || match three {
            true => Ordeal::of_three(&path, count),
            false => Ordeal::of_one(&path, kills),
        });
        let (mut ordeal, addresses) = starting.await??;
        let client = Client::connect(addresses).await?;
        let namespace = client.namespace("default");
        let loading = self.load(input, lines, &namespace, &mut ordeal, &acknowledged).await;
        let mut loaded = match loading {
            Err(error) if three => return Err(ordeal.failure().context(error)),
            loaded => loaded?,
        };
        let (nodes, counters) = ordeal.end()?;
        loaded.counters.add(&counters);
        let mut logs = Vec::new();
        for (name, node) in &nodes {
            let options = Options { stays: true, ..Options::default() };
            let client = Client::connect_with([node.address()], options).await?;
            let namespace = client.namespace("default");
            let proving = prove(input, lines, &namespace, Level::AtLeast(loaded.last));
            proving.await.with_context(|| name.clone())?;
            if three {
                let digest = log_digest(&namespace, Offset::FIRST, loaded.last).await;
                logs.push((name, digest.with_context(|| format!("the log of {name}"))?));
            }
        }
        for pair in logs.windows(2) {
            let [(one, first), (other, second)] = pair else { continue };
            ensure!(first == second, "the logs of {one} and {other} differ");
        }
        nodes.into_iter().try_for_each(|(_, node)| node.stop())?;
        Ok(loaded)
    }

    async fn load(
        &self,
        input: &Input,
        lines: u64,
        namespace: &Namespace,
        ordeal: &mut Ordeal,
        acknowledged: &AtomicU64,
    ) -> anyhow::Result<Loaded> {
        let mut loading = Loading::new(lines, acknowledged)?;
        let start = Instant::now();
        let steps = ordeal.steps();
        let mark = |step: u64| lines * step / (steps + 1);
        let mut next = 1;
        for line in input.lines()? {
            let (number, line) = line?;
            if next <= steps && number == mark(next) {
                if matches!(ordeal, Ordeal::Three { .. }) {
                    // Nothing new happens before what happened last is over.
                    loading.settle(0).await?;
                    if next > 1 {
                        loading.told(ordeal.wait()?);
                    }
                }
                let step = Step { number: next, after: number + (mark(1) / 2).min(1000) };
                let told = ordeal.begin(step, &mut loading.loaded.counters)?;
                loading.told(told.map(|told| format!("{told} at commit {number}")));
                next += 1;
            }
            loading.loaded.bytes += 2 * line.len() as u64;
            loading.pending.push_back((submit(namespace, number, line)?, Instant::now()));
            loading.settle(usize::from(self.in_flight)).await?;
        }
        loading.settle(0).await?;
        loading.loaded.seconds = start.elapsed().as_secs_f64();
        if steps > 0 {
            loading.told(ordeal.wait()?);
        }
        loading.loaded.steps = next - 1;
        loading.bar.finish_and_clear();
        Ok(loading.loaded)
    }
}

/// What is under way, and what came of the rest.
struct Loading<'a> {
    pending: VecDeque<(Submitted, Instant)>,
    loaded: Loaded,
    /// When the last acknowledgement came.
    last: Instant,
    acknowledged: &'a AtomicU64,
    bar: ProgressBar,
}

impl Loading<'_> {
    fn new(lines: u64, acknowledged: &AtomicU64) -> anyhow::Result<Loading<'_>> {
        let loaded = Loaded {
            lines,
            bytes: 0,
            steps: 0,
            last: Offset::ZERO,
            seconds: 0.0,
            latency: Histogram::new_with_bounds(1, 600_000_000_000, 3)?,
            longest_gap: Duration::ZERO,
            counters: Counters::default(),
        };
        let (pending, bar) = (VecDeque::new(), bar(lines, "commits"));
        Ok(Loading { pending, loaded, last: Instant::now(), acknowledged, bar })
    }

    /// Waits until no more than `most` commits are under way.
    async fn settle(&mut self, most: usize) -> anyhow::Result<()> {
        while self.pending.len() > most {
            let (commit, from) = self.pending.pop_front().expect("just seen");
            self.loaded.last = commit.await.context("a commit failed")?.offset;
            let now = Instant::now();
            let nanoseconds = u64::try_from((now - from).as_nanos()).unwrap_or(u64::MAX);
            self.loaded.latency.saturating_record(nanoseconds);
            self.loaded.longest_gap = self.loaded.longest_gap.max(now - self.last);
            self.last = now;
            self.acknowledged.fetch_add(1, Ordering::Relaxed);
            self.bar.inc(1);
        }
        Ok(())
    }

    /// Something has happened, which may have taken a while without commits.
    fn told(&mut self, sentence: Option<String>) {
        if let Some(sentence) = sentence {
            self.bar.println(sentence);
        }
        if self.pending.is_empty() {
            self.last = Instant::now();
        }
    }
}

fn submit(namespace: &Namespace, number: u64, line: Vec<u8>) -> anyhow::Result<Submitted> {
    let max = VALUE_BYTES_MAX / 2;
    ensure!(line.len() <= max, "line {number} is longer than {max} bytes");
    let event = [format!("{number:010}\t").as_bytes(), &line].concat();
    let commit = naust_client::Commit::new().put(ROWS, key(number), line).append(EVENTS, event);
    Ok(namespace.submit(commit))
}

fn key(number: u64) -> String {
    format!("{number:010}")
}

fn bar(length: u64, what: &str) -> ProgressBar {
    let template = format!("{{bar:40}} {{pos}}/{{len}} {what} {{per_sec}} {{eta}}");
    let style = ProgressStyle::with_template(&template).expect("the template is constant");
    ProgressBar::new(length).with_style(style)
}

/// Reads everything back: rows beside the input, then events beside the rows.
async fn prove(
    input: &Input,
    lines: u64,
    namespace: &Namespace,
    level: Level,
) -> anyhow::Result<()> {
    let bar = bar(2 * lines, "compared");
    let mut rows = namespace.kv(ROWS).range::<&[u8]>(..).level(level);
    let mut reader = input.lines()?;
    while let Some(page) = rows.next_page().await? {
        for row in page.entries {
            let (number, line) = reader.next().context("there are more rows than lines")??;
            ensure!(row.key == key(number).as_bytes(), "the row of line {number} is missing");
            ensure!(row.value == line, "the row of line {number} is not what was put");
            bar.inc(1);
        }
    }
    if let Some(line) = reader.next() {
        bail!("the row of line {} is missing", line?.0);
    }
    let seen = events(namespace, lines, level, &bar).await?;
    ensure!(seen == lines, "{lines} lines gave {seen} events");
    bar.finish_and_clear();
    Ok(())
}

/// Each event names its line: once, with the row's bytes, from the row's commit.
async fn events(
    namespace: &Namespace,
    lines: u64,
    level: Level,
    bar: &ProgressBar,
) -> anyhow::Result<u64> {
    let mut seen = vec![0u64; usize::try_from(lines)?.div_ceil(64)];
    let stream = namespace.stream(EVENTS);
    let mut from = Offset::ZERO;
    let mut count = 0;
    let mut reads = JoinSet::new();
    loop {
        let page = stream.read(from, ReadOptions { level, ..ReadOptions::default() }).await?;
        if page.records.is_empty() {
            break;
        }
        for record in page.records {
            let number: u64 = record
                .value
                .get(..10)
                .and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok())
                .context("an event that was never appended")?;
            ensure!(number < lines, "an event of line {number}, which the input does not have");
            let (word, bit) = (usize::try_from(number / 64)?, 1 << (number % 64));
            ensure!(seen[word] & bit == 0, "the event of line {number} is there twice");
            seen[word] |= bit;
            count += 1;
            if reads.len() == READS {
                reads.join_next().await.expect("there are some")??;
            }
            reads.spawn(agree(namespace.clone(), number, record.offset, record.value));
            bar.inc(1);
        }
        from = page.next;
    }
    while let Some(read) = reads.join_next().await {
        read??;
    }
    Ok(count)
}

async fn agree(
    namespace: Namespace,
    number: u64,
    id: Offset,
    event: Vec<u8>,
) -> anyhow::Result<()> {
    let found = namespace.kv(ROWS).get_at(key(number), Level::Local).await?;
    let row = found.row.with_context(|| format!("line {number} has an event but no row"))?;
    let line = event.get(11..).context("an event that was never appended")?;
    ensure!(row.value == line, "row and event of line {number} differ");
    let commit_bytes = FRAME_HEADER_BYTES as u64 + COMMIT_BYTES + 2 * line.len() as u64;
    let same = row.version < id && id.0 < row.version.0 + commit_bytes;
    ensure!(same, "row and event of line {number} are of different commits");
    Ok(())
}

fn print(loaded: &Loaded) {
    let milli = |quantile| loaded.latency.value_at_quantile(quantile) as f64 / 1e6;
    let per_commit = |count: u64| count as f64 / loaded.lines as f64;
    println!();
    println!("commits            {:>12}", loaded.lines);
    println!("troubles survived  {:>12}", loaded.steps);
    println!("seconds            {:>12.2}", loaded.seconds);
    println!("commits/s          {:>12.0}", loaded.lines as f64 / loaded.seconds);
    println!("p50                {:>12.2} ms", milli(0.5));
    println!("p99                {:>12.2} ms", milli(0.99));
    println!("p999               {:>12.2} ms", milli(0.999));
    println!("longest gap        {:>12.2} ms", loaded.longest_gap.as_secs_f64() * 1000.0);
    println!("user bytes         {:>12}", loaded.bytes);
    println!("log bytes written  {:>12}", loaded.counters.bytes);
    println!("fsyncs per commit  {:>12.4}", per_commit(loaded.counters.syncs));
    println!();
}

/// Where the node's data lies.
struct Directory {
    path: PathBuf,
    temporary: bool,
}

impl Directory {
    fn new(given: Option<PathBuf>) -> anyhow::Result<Directory> {
        let temporary = given.is_none();
        let name = format!("naust-demo-{}", std::process::id());
        let path = given.unwrap_or_else(|| std::env::temp_dir().join(name));
        let used = path.read_dir().is_ok_and(|mut entries| entries.next().is_some());
        ensure!(!used, "{} is not empty; the demo wants a directory of its own", path.display());
        Ok(Directory { path, temporary })
    }

    fn leave(self, success: bool) {
        if !self.temporary || !success {
            println!("the data is in {}", self.path.display());
        } else if let Err(error) = std::fs::remove_dir_all(&self.path) {
            println!("{} could not be removed: {error}", self.path.display());
        }
    }
}
