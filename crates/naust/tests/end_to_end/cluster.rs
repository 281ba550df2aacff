//! Clusters of real processes, for the stories about them.

use crate::ledger::{self, Found, Ledger};
use crate::support::{PROGRAM, block_on, send_signal, wait_until};
use naust::process::{NodeProcess, Start};
use naust_client::{Client, Cluster as Seen, Level, Options};
use rustix::process::Signal;
use std::collections::VecDeque;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Commits that one writer has under way.
const IN_FLIGHT: usize = 64;

/// Nodes that form a cluster; their directories go with it.
pub struct Cluster {
    root: tempfile::TempDir,
    pub nodes: Vec<Member>,
    made: usize,
}

/// One of them.
pub struct Member {
    pub name: String,
    pub process: NodeProcess,
}

impl Member {
    /// Starts a node with these arguments.
    pub fn start(root: &Path, name: &str, arguments: &[&str]) -> anyhow::Result<Member> {
        let data = root.join(name);
        let arguments = [&["--name", name], arguments, &ledger::OPTIONS].concat();
        let arguments = arguments.into_iter().map(str::to_owned).collect();
        let start = Start { program: PROGRAM.into(), data, arguments };
        Ok(Member { name: name.to_owned(), process: NodeProcess::start(start)? })
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
            let options = Options { timeout_ms: 1_000, ..Options::default() };
            Client::connect_with([self.address()], options).await.ok()?.cluster().await.ok()
        })
    }
}

impl Cluster {
    /// So many nodes, all of which vote.
    pub fn start(nodes: usize) -> Cluster {
        let root = tempfile::tempdir().unwrap();
        let first = Member::start(root.path(), "n1", &["--bootstrap"]).unwrap();
        let mut cluster = Cluster { root, nodes: vec![first], made: 1 };
        for _ in 1..nodes {
            cluster.join();
        }
        cluster.wait_for_voters(nodes);
        cluster
    }

    /// One more node joins, through the first.
    pub fn join(&mut self) -> &Member {
        self.made += 1;
        let name = format!("n{}", self.made);
        let through = self.nodes[0].address();
        let node = Member::start(self.root.path(), &name, &["--join", &through]).unwrap();
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
            let mut under_way = VecDeque::new();
            let (mut number, mut last) = (0, Instant::now());
            loop {
                let stopped = stop.load(Ordering::Relaxed);
                while !stopped && under_way.len() < IN_FLIGHT {
                    number += 1;
                    let submitted = namespace.submit(ledger::commit(number));
                    under_way.push_back((number, submitted));
                }
                let Some((number, submitted)) = under_way.pop_front() else { return };
                let committed = submitted.await.unwrap_or_else(|error| {
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

    /// The longest time without an acknowledgement since this was asked last.
    pub fn take_longest_gap(&self) -> Duration {
        std::mem::take(&mut self.longest_gap.lock().unwrap())
    }

    /// Ends, and tells what was acknowledged.
    pub fn end(mut self) -> Ledger {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
        std::mem::take(&mut self.shared.lock().unwrap())
    }
}
