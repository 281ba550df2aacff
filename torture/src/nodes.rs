//! The nodes: processes, their disks and clocks, and what lies between them.

use crate::proxy::{Network, Weather};
use crate::shim::{Faults, Library, Shim};
use anyhow::{Context as _, bail, ensure};
use naust::process::{NodeProcess, Start, free_port};
use serde_json::Value;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// How long the cluster may take to be whole again.
const WHOLE_MAX: Duration = Duration::from_secs(60);
/// How long a node may take to end after SIGTERM.
const END_MAX: Duration = Duration::from_secs(15);
const LOOK: Duration = Duration::from_millis(20);

/// See the module.
pub struct Nodes {
    program: PathBuf,
    root: PathBuf,
    library: Library,
    pub network: Network,
    pub all: Vec<Node>,
    made: usize,
}

/// One of them.
pub struct Node {
    pub name: String,
    pub data: PathBuf,
    pub shim: Shim,
    errors: PathBuf,
    process: NodeProcess,
    /// It stands still.
    pub is_paused: bool,
    /// It runs, or should.
    pub is_up: bool,
}

impl Nodes {
    /// Three nodes that all vote.
    pub fn start(program: &Path, root: &Path) -> anyhow::Result<Nodes> {
        let library = Library::build(root)?;
        let network = Network::default();
        let (program, root) = (program.to_owned(), root.to_owned());
        let mut nodes = Nodes { program, root, library, network, all: Vec::new(), made: 0 };
        (0..3).try_for_each(|_| nodes.add().map(drop))?;
        nodes.wait_to_be_whole()?;
        Ok(nodes)
    }

    /// One more, on an empty directory.
    pub fn add(&mut self) -> anyhow::Result<&Node> {
        self.made += 1;
        let name = format!("n{}", self.made);
        let port = free_port()?;
        let proxy = self.network.proxy(&name, format!("127.0.0.1:{port}"))?;
        let shim = Shim::new(&self.library, self.root.join(format!("{name}.faults")))?;
        let program = shim.wrap(&self.program)?;
        let data = self.root.join(&name);
        let errors = self.root.join(format!("{name}.errors"));
        // Small tables: what is torn between flushes and compactions is torn often.
        let mut arguments: Vec<String> = ["--name", &name, "--advertise", &proxy]
            .into_iter()
            .chain(["--set", "memtable_bytes=1048576", "--set", "workers=2"])
            .map(str::to_owned)
            .collect();
        for node in &self.all {
            arguments.extend(["--join".to_owned(), node.process.address()]);
        }
        let start = Start { program, data: data.clone(), arguments, errors: Some(errors.clone()) };
        let process = NodeProcess::start_on(start, port)?;
        let node = Node { name, data, shim, errors, process, is_paused: false, is_up: true };
        self.all.push(node);
        Ok(self.all.last().expect("it was just put there"))
    }

    /// The program that they run.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// Where clients connect: not through the proxies.
    pub fn addresses(&self) -> anyhow::Result<Vec<SocketAddr>> {
        let all = self.all.iter();
        Ok(all.map(|node| node.process.address().parse()).collect::<Result<_, _>>()?)
    }

    /// The weather around a node: to it and from it.
    pub fn surround(&self, which: usize, to: Weather, from: Weather) {
        let name = &self.all[which].name;
        for other in self.all.iter().filter(|other| other.name != *name) {
            self.network.set(&other.name, name, to);
            self.network.set(name, &other.name, from);
        }
    }

    /// `naust …` through a node; what it prints.
    pub fn naust(&self, which: usize, arguments: &[&str]) -> anyhow::Result<String> {
        let mut command = Command::new(&self.program);
        command.args(arguments).env("NAUST_ADDRESS", self.all[which].process.address());
        let output = command.output()?;
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.success(), "naust {}: {told}", arguments.join(" "));
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Waits until every node sees three that are up and vote for everything, and one that leads.
    pub fn wait_to_be_whole(&self) -> anyhow::Result<()> {
        let until = Instant::now() + WHOLE_MAX;
        for which in 0..self.all.len() {
            while !self.is_whole(which) {
                let name = &self.all[which].name;
                ensure!(Instant::now() < until, "{name} does not see three nodes that vote");
                std::thread::sleep(LOOK);
            }
        }
        Ok(())
    }

    /// Whether a node sees three that are up and vote for everything, and one that leads.
    pub fn is_whole(&self, which: usize) -> bool {
        is_whole(&self.program, &self.all[which].process.address())
    }

    /// Everything that can be set right from outside is.
    pub fn heal(&mut self) -> anyhow::Result<()> {
        self.network.heal();
        for node in &mut self.all {
            node.shim.set(Faults::default())?;
            if std::mem::take(&mut node.is_paused) {
                node.process.resume()?;
            }
        }
        // At once: without a quorum a node that was killed does not know what it has to serve, and
        // is not ready.
        std::thread::scope(|scope| {
            let starting: Vec<_> =
                self.all.iter_mut().map(|node| scope.spawn(|| node.start_if_down())).collect();
            starting.into_iter().try_for_each(|one| one.join().expect("a start does not panic"))
        })
    }

    /// A node and its disk are gone, and another takes its place.
    pub fn replace(&mut self, which: usize) -> anyhow::Result<()> {
        let mut gone = self.all.remove(which);
        gone.kill()?;
        gone.check_errors()?;
        std::fs::remove_dir_all(&gone.data)?;
        let new = self.add()?.name.clone();
        self.naust(0, &["cluster", "replace", &gone.name, &new])?;
        self.wait_to_be_whole()
    }
}

impl Node {
    /// Where it listens.
    pub fn address(&self) -> String {
        self.process.address()
    }

    /// SIGKILL.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        (self.is_up, self.is_paused) = (false, false);
        self.process.kill()
    }

    /// SIGTERM, and a clean end.
    pub fn terminate(&mut self) -> anyhow::Result<()> {
        self.is_up = false;
        let start = Instant::now();
        self.process.terminate().with_context(|| format!("node {}", self.name))?;
        let took = start.elapsed();
        ensure!(took < END_MAX, "node {} took {took:?} to end", self.name);
        Ok(())
    }

    /// Starts it again.
    pub fn start(&mut self) -> anyhow::Result<()> {
        self.is_up = true;
        self.process.restart().with_context(|| format!("node {} does not start", self.name))
    }

    fn start_if_down(&mut self) -> anyhow::Result<()> {
        if self.is_up && !self.has_ended()? { Ok(()) } else { self.start() }
    }

    /// SIGSTOP.
    pub fn pause(&mut self) -> anyhow::Result<()> {
        self.is_paused = true;
        self.process.pause()
    }

    /// Whether it ended by itself.
    pub fn has_ended(&mut self) -> anyhow::Result<bool> {
        self.process.has_ended()
    }

    /// Shards that it closed since they are damaged, as its metrics say.
    pub fn closed_shards(&self) -> anyhow::Result<u64> {
        let text = self.process.metrics()?;
        let line = text.lines().find_map(|line| line.strip_prefix("naust_shards_closed "));
        let number = line.and_then(|number| number.trim().parse().ok());
        number.context("the metrics do not tell of closed shards")
    }

    /// What it wrote to standard error so far.
    pub fn errors(&self) -> anyhow::Result<String> {
        Ok(std::fs::read_to_string(&self.errors)?)
    }

    /// A node says what is wrong in sentences; it does not panic.
    pub fn check_errors(&self) -> anyhow::Result<()> {
        let errors = self.errors()?;
        if let Some(line) = errors.lines().find(|l| l.contains("panicked") || l.contains("a bug")) {
            bail!("node {}: {line}", self.name);
        }
        Ok(())
    }
}

/// Whether the node at an address sees three that are up and vote for everything, and one that
/// leads.
pub fn is_whole(program: &Path, address: &str) -> bool {
    let mut status = Command::new(program);
    let output = status.args(["cluster", "status", "--json", "--address", address]).output();
    let Ok(output) = output else { return false };
    let told = String::from_utf8_lossy(&output.stdout);
    let lines: Vec<Value> = told.lines().filter_map(|l| serde_json::from_str(l).ok()).collect();
    let up = lines.iter().filter(|line| line["up"] == true).count();
    let namespaces: Vec<&Value> =
        lines.iter().filter(|line| line["namespace"].is_string()).collect();
    let votes = |namespace: &&Value| {
        let replicas = namespace["replicas"].as_array().map_or(&[][..], Vec::as_slice);
        let voters = replicas.iter().filter(|one| one["role"] == "voter").count();
        voters == 3 && replicas.len() == 3 && namespace["leader"].is_string()
    };
    up == 3 && !namespaces.is_empty() && namespaces.iter().all(votes)
}
