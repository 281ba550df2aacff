//! Three nodes, processes on this machine: commits, reads, failover, idling.

use crate::nats::Syncs;
use crate::process::{load, number, resident_mebibytes};
use crate::table::{Table, grouped, median, verdict};
use crate::{Setting, idle, nats, raw};
use anyhow::{Context as _, ensure};
use naust::process::{Counters, NodeProcess, Start};
use naust_client::{Client, Commit, Options, Submitted};
use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Kills of the leader.
const TRIALS: usize = 20;
/// Commits under way while it is killed.
const IN_FLIGHT: usize = 64;
/// How long a kill is watched.
const WATCH: Duration = Duration::from_secs(2);
/// How long the nodes may take to be whole again.
const WHOLE_TIME_MAX: Duration = Duration::from_secs(60);
/// The nodes.
const NAMES: [&str; 3] = ["n1", "n2", "n3"];
/// Until namespaces without requests are quiet.
const SLEEP: Duration = Duration::from_secs(15);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(20);

/// A row: its name, what `naust bench` is told, and what it should reach.
struct Row {
    name: &'static str,
    workload: &'static str,
    connections: usize,
    in_flight: usize,
    aim: f64,
}

const ROWS: [Row; 7] = [
    Row::new("1 connection × 1", "put", 1, 1, 0.0),
    Row::new("1 connection × 256", "put", 1, 256, 120_000.0),
    Row::new("4 connections × 256", "put", 4, 256, 150_000.0),
    Row::new("256 connections × 1", "put", 256, 1, 50_000.0),
    Row::new("linearizable reads, 1 × 64", "get", 1, 64, 120_000.0),
    Row::new("linearizable reads, 64 × 1", "get", 64, 1, 50_000.0),
    // Compactions are under way by then.
    Row::new("1 connection × 256, after all these", "put", 1, 256, 120_000.0),
];

#[derive(Default)]
struct Measured {
    per_second: Vec<f64>,
    p50_us: Vec<f64>,
    p99_us: Vec<f64>,
    syncs: Vec<f64>,
}

struct Cluster {
    nodes: Vec<NodeProcess>,
    runtime: tokio::runtime::Runtime,
}

impl Row {
    const fn new(
        name: &'static str,
        workload: &'static str,
        connections: usize,
        in_flight: usize,
        aim: f64,
    ) -> Row {
        Row { name, workload, connections, in_flight, aim }
    }

    fn measure(
        &self,
        setting: &Setting,
        cluster: &Cluster,
        seed: usize,
        measured: &mut Measured,
    ) -> anyhow::Result<()> {
        let alone = self.connections * self.in_flight == 1;
        let seconds = if alone { setting.seconds.min(3) } else { setting.seconds };
        let pairs = [
            ("--workload", self.workload.to_owned()),
            ("--connections", self.connections.to_string()),
            ("--in-flight", self.in_flight.to_string()),
            ("--seconds", seconds.to_string()),
            ("--seed", seed.to_string()),
        ];
        let arguments: Vec<String> =
            pairs.into_iter().flat_map(|(name, value)| [name.to_owned(), value]).collect();
        let leader = cluster.leader()?;
        let before = cluster.counters()?;
        let told = load(setting, &cluster.nodes[leader], &arguments)?;
        let syncs = cluster.counters()?.syncs - before.syncs;
        measured.per_second.push(number(&told, "per_second")?);
        measured.p50_us.push(number(&told, "p50_us")?);
        measured.p99_us.push(number(&told, "p99_us")?);
        let all = number(&told, "all_done")?;
        measured.syncs.push(syncs as f64 / all / cluster.nodes.len() as f64);
        Ok(())
    }
}

impl Cluster {
    fn start(setting: &Setting, directory: &Path) -> anyhow::Result<Cluster> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let mut cluster = Cluster { nodes: Vec::new(), runtime };
        for name in NAMES {
            let mut arguments = vec!["--name".to_owned(), name.to_owned()];
            if let Some(first) = cluster.nodes.first() {
                arguments.extend(["--join".to_owned(), first.address()]);
            }
            cluster.nodes.push(NodeProcess::start(Start {
                program: setting.program.clone(),
                data: directory.join(name),
                arguments,
                errors: Some(directory.join(format!("{name}.errors"))),
            })?);
        }
        cluster.wait_to_be_whole()?;
        Ok(cluster)
    }

    fn sees(&self, node: &NodeProcess) -> anyhow::Result<naust_client::Cluster> {
        self.runtime.block_on(async {
            let options = Options { stays: true, timeout_ms: 5_000, ..Options::default() };
            Ok(Client::connect_with([node.address()], options).await?.cluster().await?)
        })
    }

    /// Waits until all nodes see that all are there and vote.
    fn wait_to_be_whole(&self) -> anyhow::Result<()> {
        let until = Instant::now() + WHOLE_TIME_MAX;
        for node in &self.nodes {
            loop {
                let seen = self.sees(node)?;
                let up = seen.nodes.iter().filter(|node| node.up).count();
                let voters = |namespace: &naust_wire::reply::Namespace| {
                    namespace.replicas.iter().filter(|replica| replica.voter).count()
                };
                if up == 3 && seen.namespaces.iter().all(|namespace| voters(namespace) == 3) {
                    break;
                }
                ensure!(Instant::now() < until, "the cluster does not become whole");
                std::thread::sleep(LOOK);
            }
        }
        Ok(())
    }

    fn leader(&self) -> anyhow::Result<usize> {
        let until = Instant::now() + WHOLE_TIME_MAX;
        loop {
            let seen = self.sees(&self.nodes[0])?;
            let leader = seen.namespaces.first().map(|namespace| namespace.leader);
            let address = seen.nodes.iter().find(|node| Some(node.id) == leader);
            let address = address.map(|node| node.address.clone()).unwrap_or_default();
            let place = self.nodes.iter().position(|node| node.address() == address);
            if let Some(place) = place {
                return Ok(place);
            }
            ensure!(Instant::now() < until, "no node leads");
            std::thread::sleep(LOOK);
        }
    }

    /// The term in which the next commit is made.
    fn term(&self) -> anyhow::Result<u64> {
        let addresses: Vec<String> = self.nodes.iter().map(NodeProcess::address).collect();
        self.runtime.block_on(async {
            let namespace = Client::connect(addresses).await?.namespace("default");
            let offset = namespace.kv("bench").put("term", "").await?;
            let page = namespace.log(offset, 1, 0).await?;
            Ok(naust_wire::frame::read(&page.data)?.header.term.0)
        })
    }

    /// Four connections of 256 puts each, for as many minutes as are asked for.
    fn load_fully(&self, setting: &Setting) -> anyhow::Result<()> {
        let seconds = (60 * setting.calm_minutes).to_string();
        let arguments = ["--connections", "4", "--in-flight", "256", "--seconds", &seconds];
        let leader = self.leader()?;
        load(setting, &self.nodes[leader], &arguments.map(str::to_owned)).map(drop)
    }

    fn counters(&self) -> anyhow::Result<Counters> {
        let mut all = Counters::default();
        self.nodes.iter().try_for_each(|node| {
            all.add(&node.counters()?);
            anyhow::Ok(())
        })?;
        Ok(all)
    }

    fn resident_mebibytes(&self) -> anyhow::Result<f64> {
        self.nodes.iter().map(|node| resident_mebibytes(node.id())).sum()
    }
}

/// Messages published to NATS JetStream as the rows of puts are: connections, and how many are
/// under way on each.
const PEER_ROWS: [(&str, usize, usize); 3] =
    [("1 connection × 1", 1, 1), ("1 connection × 256", 1, 256), ("4 connections × 256", 4, 256)];

/// The peer, told to sync in one way, and what it reached.
struct Peer {
    syncs: Syncs,
    rows: Vec<Measured>,
}

impl Peer {
    fn measure(&mut self, setting: &Setting) -> anyhow::Result<()> {
        let directory = setting.directory()?;
        let servers = nats::Servers::start(directory.path(), self.syncs)?;
        for ((_, connections, in_flight), measured) in PEER_ROWS.iter().zip(&mut self.rows) {
            let time = Duration::from_secs(setting.seconds);
            let told = servers.load(*connections, *in_flight, time)?;
            measured.per_second.push(told.per_second);
            measured.p50_us.push(told.p50_us);
            measured.p99_us.push(told.p99_us);
        }
        Ok(())
    }
}

/// What the peer reached, beside this.
fn print_peer(version: &str, rows: &[Measured], peer: &Peer) {
    let columns = ["what", "Naust /s", "NATS /s", "ratio", "NATS p50 ms", "NATS p99 ms"];
    let how = match peer.syncs {
        Syncs::Default => "its defaults: synced every two minutes",
        Syncs::Always => "`sync_interval: always`",
    };
    let title = format!("Beside NATS JetStream {version}, three replicas, {how}");
    let mut table = Table::new(&title, &columns);
    for ((name, ..), measured) in PEER_ROWS.iter().zip(&peer.rows) {
        let own = ROWS.iter().position(|row| row.name == *name).expect("the same rows");
        let (ours, theirs) = (median(&rows[own].per_second), median(&measured.per_second));
        table.row(&[
            name,
            &grouped(ours),
            &grouped(theirs),
            &format!("{:.2}", ours / theirs),
            &format!("{:.3}", median(&measured.p50_us) / 1000.0),
            &format!("{:.2}", median(&measured.p99_us) / 1000.0),
        ]);
    }
    table.print();
}

/// The tables of three nodes.
pub fn three(setting: &Setting) -> anyhow::Result<()> {
    let mut raw_us = Vec::new();
    let mut rows: Vec<Measured> = ROWS.iter().map(|_| Measured::default()).collect();
    let version = nats::version();
    let syncs = version.as_deref().map(Syncs::of).unwrap_or_default();
    let of = |syncs: &Syncs| {
        let rows = PEER_ROWS.iter().map(|_| Measured::default()).collect();
        Peer { syncs: *syncs, rows }
    };
    let mut peers: Vec<Peer> = syncs.iter().map(of).collect();
    let (mut idle, mut elections, mut last) = (0.0, 0, None);
    for round in 0..setting.rounds {
        // Both begin each round with nothing.
        drop(last.take());
        for peer in &mut peers {
            peer.measure(setting)?;
        }
        let directory = setting.directory()?;
        let cluster = Cluster::start(setting, directory.path())?;
        std::thread::sleep(WATCH);
        idle = cluster.resident_mebibytes()?;
        let before = cluster.term()?;
        for (row, measured) in ROWS.iter().zip(&mut rows) {
            raw_us.push(raw::sync_p50_us(directory.path(), Duration::from_secs(1))?);
            row.measure(setting, &cluster, round, measured)?;
        }
        if setting.calm_minutes > 0 && round + 1 == setting.rounds {
            cluster.load_fully(setting)?;
        }
        elections += cluster.term()? - before;
        last = Some((cluster, directory));
    }
    let (mut cluster, _directory) = last.context("there is a round at least")?;
    print(&rows, median(&raw_us));
    let raw = median(&raw_us) / 1e3;
    println!("\nraw 4 KiB write + fdatasync, p50: {raw:.3} ms; {} rounds", setting.rounds);
    match &version {
        Some(version) => peers.iter().for_each(|peer| print_peer(version, &rows, peer)),
        None => println!("\nNATS JetStream is not measured: there is no `nats-server` here"),
    }
    let mut trials = Vec::new();
    for _ in 0..TRIALS {
        trials.push(fail_over(&mut cluster)?);
    }
    let seconds: Vec<f64> = trials.iter().map(|trial| trial.next_s).collect();
    let silences: Vec<f64> = trials.iter().map(|trial| trial.silence_s).collect();
    let (middle, longest) = (median(&seconds), seconds.iter().copied().fold(0.0, f64::max));
    let mut table = Table::new("Three nodes", &["what", "measured", "aim", "reached"]);
    println!("\nfailovers, in seconds: {seconds:.3?}");
    println!("the longest silence from the kill to {WATCH:?} after it: {silences:.3?}");
    let told = format!("median {middle:.3} s, longest {longest:.3} s");
    let reached = verdict(middle <= 0.3 && longest <= 0.6);
    table.row(&[
        &format!("SIGKILL of the leader to the next acknowledged write, {TRIALS} trials"),
        &told,
        &"≤ 0.3 s, ≤ 0.6 s",
        &reached,
    ]);
    let reached = verdict(elections == 0);
    let while_what = match setting.calm_minutes {
        0 => "elections while the rows above ran (--calm-minutes 10: ten minutes more)".to_owned(),
        minutes => format!("elections in the rows above and {minutes} minutes of full load"),
    };
    table.row(&[&while_what, &elections, &"0", &reached]);
    let reached = verdict(idle <= 120.0);
    table.row(&[&"three idle nodes, resident", &format!("{idle:.1} MiB"), &"≤ 120 MB", &reached]);
    table.print();
    Ok(())
}

/// What a thousand quiet namespaces cost three nodes.
pub fn quiet(setting: &Setting) -> anyhow::Result<()> {
    let directory = setting.directory()?;
    let cluster = Cluster::start(setting, directory.path())?;
    let start = Instant::now();
    cluster.runtime.block_on(async {
        idle::fill(&Client::connect([cluster.nodes[0].address()]).await?).await
    })?;
    cluster.wait_to_be_whole()?;
    let seconds = start.elapsed().as_secs_f64();
    println!("\nmade, a row each, and on all three nodes after {seconds:.1} s");
    // They go to sleep some seconds after the last write.
    std::thread::sleep(SLEEP);
    let columns = ["what", "resident MiB", "% of a core", "disk MiB", "aim", "reached"];
    let mut table = Table::new("A thousand quiet namespaces on three nodes", &columns);
    for (name, node) in NAMES.iter().zip(&cluster.nodes) {
        let (memory, core, disk) = idle::watch(node.id(), &directory.path().join(name))?;
        let reached = verdict(memory <= 200.0 && core < 5.0);
        let (memory, core) = (format!("{memory:.1}"), format!("{core:.2}"));
        table.row(&[name, &memory, &core, &format!("{disk:.1}"), &"≤ 200 MB, < 5 %", &reached]);
    }
    table.print();
    Ok(())
}

fn print(rows: &[Measured], raw_us: f64) {
    let columns =
        ["what", "per second", "p50 ms", "p99 ms", "syncs/commit, a node", "aim", "reached"];
    let mut table = Table::new("Three nodes on disk, asked by way of the leader", &columns);
    for (row, measured) in ROWS.iter().zip(rows) {
        let (rate, p50) = (median(&measured.per_second), median(&measured.p50_us));
        let (aim, reached) = match row.aim {
            0.0 => {
                let ratio = p50 / raw_us;
                (format!("p50 ≤ 4 × raw sync; is {ratio:.2} ×"), verdict(ratio <= 4.0))
            }
            aim => (format!("≥ {}/s", grouped(aim)), verdict(rate >= aim)),
        };
        let syncs = match row.workload {
            "put" => format!("{:.5}", median(&measured.syncs)),
            _ => String::new(),
        };
        table.row(&[
            &row.name,
            &grouped(rate),
            &format!("{:.3}", p50 / 1000.0),
            &format!("{:.2}", median(&measured.p99_us) / 1000.0),
            &syncs,
            &aim,
            &reached,
        ]);
    }
    table.print();
}

/// What clients notice of the leader's end.
struct Failover {
    /// Seconds to the acknowledgement of a write that was sent after it.
    next_s: f64,
    /// Seconds of the longest time without any, from then on.
    silence_s: f64,
}

/// Kills the leader under load; seconds until a write is acknowledged again.
fn fail_over(cluster: &mut Cluster) -> anyhow::Result<Failover> {
    let addresses: Vec<String> = cluster.nodes.iter().map(NodeProcess::address).collect();
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let writer = std::thread::spawn(move || write(addresses, &stopped));
    std::thread::sleep(WATCH / 2);
    let leader = cluster.leader()?;
    let killed = Instant::now();
    cluster.nodes[leader].kill()?;
    let gone = Instant::now();
    std::thread::sleep(WATCH);
    stop.store(true, Ordering::Relaxed);
    let acknowledged = writer.join().ok().context("the writer ended in a bug")??;
    cluster.nodes[leader].restart()?;
    cluster.wait_to_be_whole()?;
    // What had left the leader before may arrive a little after the kill, and so may what is sent
    // again; what was sent when the leader was gone, another has acknowledged.
    let next = acknowledged.iter().find(|(sent, _)| *sent >= gone);
    let next = next.context("no write was acknowledged after the kill")?.1;
    let after = acknowledged.iter().map(|(_, at)| *at).filter(|at| *at > killed);
    let silences = after.scan(killed, |last, at| Some(at - std::mem::replace(last, at)));
    Ok(Failover {
        next_s: (next - killed).as_secs_f64(),
        silence_s: silences.max().unwrap_or_default().as_secs_f64(),
    })
}

/// Commits until it is told to stop; when each was sent first, and when acknowledged, in order.
fn write(addresses: Vec<String>, stop: &AtomicBool) -> anyhow::Result<Vec<(Instant, Instant)>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let namespace = Client::connect(addresses).await?.namespace("default");
        let mut under_way: VecDeque<(Instant, Submitted)> = VecDeque::new();
        let mut acknowledged = Vec::new();
        loop {
            while !stop.load(Ordering::Relaxed) && under_way.len() < IN_FLIGHT {
                let key = acknowledged.len() as u64 + under_way.len() as u64;
                let commit = Commit::new().put("bench", key.to_be_bytes().to_vec(), "value");
                under_way.push_back((Instant::now(), namespace.submit(commit)));
            }
            let Some((sent, submitted)) = under_way.pop_front() else { return Ok(acknowledged) };
            submitted.await?;
            acknowledged.push((sent, Instant::now()));
        }
    })
}
