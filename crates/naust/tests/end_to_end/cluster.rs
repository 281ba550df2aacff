//! Clusters of real processes, for the stories about them.

use crate::ledger::{self, Found, Ledger};
use crate::proxy::{Network, Weather};
use crate::shim::{Library, Shim};
use crate::support::{PROGRAM, block_on, naust, send_signal, wait_until};
use naust::process::{NodeProcess, Start, free_port};
use naust_client::{Client, Cluster as Seen, Level, Options};
use rustix::process::Signal;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// Commits that one writer has under way.
const IN_FLIGHT: usize = 64;

/// Nodes that form a cluster; their directories go with it.
///
/// Fields end in their order: the processes before what they stand on, also in a story that fails.
pub struct Cluster {
    pub nodes: Vec<Member>,
    made: usize,
    /// More arguments of all nodes.
    arguments: Vec<String>,
    /// The library below the nodes, if there is one.
    library: Option<tempfile::TempDir>,
    root: tempfile::TempDir,
}

/// One of them.
pub struct Member {
    pub name: String,
    pub process: NodeProcess,
}

impl Member {
    /// Starts a node with these arguments.
    pub fn start(root: &Path, name: &str, arguments: &[&str]) -> anyhow::Result<Member> {
        Member::start_on(root, name, arguments, free_port()?, Path::new(PROGRAM))
    }

    /// The same, on this port, with another program.
    fn start_on(
        root: &Path,
        name: &str,
        arguments: &[&str],
        port: u16,
        program: &Path,
    ) -> anyhow::Result<Member> {
        let data = root.join(name);
        // Nodes need not be alike: every other one has several workers.
        let workers = if name.ends_with(['1', '3']) { "workers=1" } else { "workers=3" };
        let own = ["--name", name, "--set", workers];
        let arguments = [&own, arguments, &ledger::OPTIONS].concat();
        let arguments = arguments.into_iter().map(str::to_owned).collect();
        let errors = Some(root.join(format!("{name}.errors")));
        let start = Start { program: program.to_owned(), data, arguments, errors };
        Ok(Member { name: name.to_owned(), process: NodeProcess::start_on(start, port)? })
    }

    pub fn address(&self) -> String {
        self.process.address()
    }

    pub fn signal(&self, signal: Signal) {
        send_signal(self.process.id(), signal);
    }

    /// What it sees of the cluster.
    pub fn sees(&self) -> Option<Seen> {
        block_on(async {
            let options = Options { timeout_ms: 1_000, stays: true, ..Options::default() };
            Client::connect_with([self.address()], options).await.ok()?.cluster().await.ok()
        })
    }
}

impl Cluster {
    /// So many nodes, all of which vote.
    pub fn start(nodes: usize) -> Cluster {
        Cluster::start_with(nodes, &[])
    }

    /// The same, with more arguments.
    pub fn start_with(nodes: usize, arguments: &[&str]) -> Cluster {
        let root = tempfile::tempdir().unwrap();
        let all = [&["--bootstrap"], arguments].concat();
        let first = Member::start(root.path(), "n1", &all).unwrap();
        let arguments = arguments.iter().map(|one| (*one).to_owned()).collect();
        let mut cluster = Cluster { root, nodes: vec![first], made: 1, library: None, arguments };
        for _ in 1..nodes {
            cluster.join();
        }
        cluster.wait_for_voters(nodes);
        cluster
    }

    /// The same, each behind a proxy that the others reach it by.
    pub fn in_weather(nodes: usize) -> (Cluster, Network) {
        let (cluster, network, _) = Cluster::with_programs(nodes, |_, _| (PROGRAM.into(), ()));
        (cluster, network)
    }

    /// The same, each on a disk and with a clock that can be told to misbehave; `None`: there is no
    /// C compiler to make the library for that.
    pub fn on_bad_disks(nodes: usize) -> Option<(Cluster, Vec<Shim>)> {
        let library = tempfile::tempdir().unwrap();
        let compiled = Library::build(library.path()).ok()?;
        let (mut cluster, _, shims) = Cluster::with_programs(nodes, |root, name| {
            let shim = Shim::new(&compiled, root.join(format!("{name}.faults"))).unwrap();
            (shim.wrap(Path::new(PROGRAM)).unwrap(), shim)
        });
        cluster.library = Some(library);
        Some((cluster, shims))
    }

    fn with_programs<T>(
        nodes: usize,
        mut program: impl FnMut(&Path, &str) -> (PathBuf, T),
    ) -> (Cluster, Network, Vec<T>) {
        let root = tempfile::tempdir().unwrap();
        let arguments = Vec::new();
        let mut cluster =
            Cluster { root, nodes: Vec::new(), made: nodes, library: None, arguments };
        let (network, mut more) = (Network::default(), Vec::new());
        for number in 1..=nodes {
            let (port, name) = (free_port().unwrap(), format!("n{number}"));
            let (program, with) = program(cluster.root.path(), &name);
            let proxy = network.proxy(&name, format!("127.0.0.1:{port}")).unwrap();
            let through = cluster.nodes.first().map(Member::address);
            let mut arguments = vec!["--advertise", &proxy];
            arguments.extend(through.iter().flat_map(|through| ["--join", through]));
            let root = cluster.root.path();
            let node = Member::start_on(root, &name, &arguments, port, &program).unwrap();
            cluster.nodes.push(node);
            more.push(with);
        }
        cluster.wait_for_voters(nodes);
        (cluster, network, more)
    }

    /// Changes the weather on the ways between a node and the others: to it, and from it.
    pub fn surround(&self, network: &Network, which: usize, to: Weather, from: Weather) {
        let name = &self.nodes[which].name;
        for other in self.nodes.iter().filter(|other| other.name != *name) {
            network.set(&other.name, name, to);
            network.set(name, &other.name, from);
        }
    }

    /// Where the data of a node lies.
    pub fn directory(&self, which: usize) -> PathBuf {
        self.root.path().join(&self.nodes[which].name)
    }

    /// Where its standard error goes.
    pub fn errors(&self, which: usize) -> PathBuf {
        self.root.path().join(format!("{}.errors", self.nodes[which].name))
    }

    /// A node and its disk are gone.
    pub fn lose(&mut self, which: usize) -> String {
        let mut gone = self.nodes.remove(which);
        gone.process.kill().unwrap();
        std::fs::remove_dir_all(self.root.path().join(&gone.name)).unwrap();
        gone.name
    }

    /// `naust …` with the address of one of the nodes; what it prints.
    pub fn naust(&self, which: usize, arguments: &[&str]) -> String {
        let mut command = naust(arguments);
        let output = command.env("NAUST_ADDRESS", self.nodes[which].address()).output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {errors}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// One more node joins, through the first.
    pub fn join(&mut self) -> &Member {
        self.made += 1;
        let name = format!("n{}", self.made);
        let through = self.nodes[0].address();
        let more = self.arguments.iter().map(String::as_str);
        let arguments: Vec<&str> = ["--join", &through].into_iter().chain(more).collect();
        let node = Member::start(self.root.path(), &name, &arguments).unwrap();
        self.nodes.push(node);
        self.nodes.last().unwrap()
    }

    pub fn addresses(&self) -> Vec<String> {
        self.nodes.iter().map(Member::address).collect()
    }

    /// The place of the node that leads the namespace `default`.
    pub fn leader(&self) -> usize {
        let mut found = None;
        wait_until("a leader", || {
            let seen: Vec<Seen> = self.nodes.iter().filter_map(Member::sees).collect();
            let leads = |seen: &Seen| {
                let namespace = seen.namespaces.iter().find(|known| known.name == "default")?;
                let id = namespace.leader;
                seen.nodes.iter().find(|node| node.id == id && node.up).map(|n| n.name.clone())
            };
            let leader = seen.first().and_then(leads);
            let agree = seen.iter().all(|seen| leads(seen) == leader);
            found = leader
                .filter(|_| agree)
                .and_then(|name| self.nodes.iter().position(|node| node.name == name));
            found.is_some()
        });
        found.unwrap()
    }

    /// Waits until every node that answers sees so many voters of all shards, and all nodes up.
    pub fn wait_for_voters(&self, voters: usize) {
        wait_until("all nodes to vote", || {
            self.nodes.iter().all(|node| {
                node.sees().is_some_and(|seen| {
                    seen.nodes.len() == voters
                        && seen.nodes.iter().all(|node| node.up)
                        && seen.namespaces.iter().all(|namespace| {
                            let replicas = &namespace.replicas;
                            replicas.len() == voters && replicas.iter().all(|one| one.voter)
                        })
                })
            })
        });
    }

    /// Every node has every acknowledged commit, once, and nothing else.
    pub fn check(&self, ledger: &Ledger) {
        let last = ledger.acknowledged.values().map(|(offset, _)| *offset).max().unwrap();
        let read = |node: &Member| {
            block_on(Found::read_at(&node.address(), Level::AtLeast(last))).unwrap()
        };
        let first = read(&self.nodes[0]);
        ledger.check(&first);
        for node in &self.nodes[1..] {
            assert!(
                read(node) == first,
                "{} has something else than {}",
                node.name,
                self.nodes[0].name
            );
        }
    }
}

/// Commits one after the other, many under way, until it is told to stop.
pub struct Load {
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
    shared: Arc<Mutex<Ledger>>,
    longest_gap: Arc<Mutex<Duration>>,
    thread: Option<JoinHandle<()>>,
}

impl Load {
    /// Through any node of a cluster; so many commits are acknowledged when this returns.
    pub fn on(cluster: &Cluster, commits: u64) -> Load {
        let load = Load::start(cluster.addresses());
        load.wait_for(commits);
        load
    }

    /// Through any of these nodes.
    pub fn start(addresses: Vec<String>) -> Load {
        let load = Load {
            stop: Arc::default(),
            acknowledged: Arc::default(),
            shared: Arc::default(),
            longest_gap: Arc::default(),
            thread: None,
        };
        let (stop, count) = (Arc::clone(&load.stop), Arc::clone(&load.acknowledged));
        let (shared, gap) = (Arc::clone(&load.shared), Arc::clone(&load.longest_gap));
        let run = async move {
            let client = Client::connect(addresses).await.unwrap();
            let namespace = client.namespace("default");
            // Each is awaited by a task of its own: one that has to be sent again is, at once.
            let mut under_way = JoinSet::new();
            let (mut number, mut last) = (0, Instant::now());
            loop {
                let stopped = stop.load(Ordering::Relaxed);
                while !stopped && under_way.len() < IN_FLIGHT {
                    number += 1;
                    let (this, submitted) = (number, namespace.submit(ledger::commit(number)));
                    under_way.spawn(async move { (this, submitted.await) });
                }
                let Some(ended) = under_way.join_next().await else { return };
                let (number, committed) = ended.unwrap();
                let committed = committed.unwrap_or_else(|error| {
                    panic!("commit {number} was not ridden out: {error:?}");
                });
                shared.lock().unwrap().acknowledge(number, &committed);
                count.fetch_add(1, Ordering::Relaxed);
                let mut longest = gap.lock().unwrap();
                *longest = last.elapsed().max(*longest);
                last = Instant::now();
            }
        };
        let thread = std::thread::spawn(move || block_on(run));
        Load { thread: Some(thread), ..load }
    }

    /// Waits for so many more acknowledgements.
    pub fn wait_for(&self, more: u64) {
        let wanted = self.acknowledged.load(Ordering::Relaxed) + more;
        wait_until("acknowledgements", || {
            let ended = self.thread.as_ref().is_none_or(JoinHandle::is_finished);
            assert!(!ended, "the load ended early");
            self.acknowledged.load(Ordering::Relaxed) >= wanted
        });
    }

    /// Ends, and tells what was acknowledged.
    pub fn end(mut self) -> Ledger {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
        println!("longest time without an acknowledgement: {:?}", self.longest_gap.lock().unwrap());
        std::mem::take(&mut self.shared.lock().unwrap())
    }
}
