//! What happens to nodes while the demo loads: one is killed now and then; of three, the leader is
//! killed, a follower stands still, and another loses its disk.

use super::cluster;
use anyhow::{Context as _, bail, ensure};
use naust::process::{Counters, NodeProcess, Start};
use naust_client::{Client, Cluster as Seen, Namespace, NodeId, Offset, Options};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Things that happen to three nodes.
const STEPS: u64 = 3;
/// How long a follower stands still.
const PAUSE: Duration = Duration::from_secs(1);
/// How long the cluster may take to be whole again.
const WHOLE_TIME_MAX: Duration = Duration::from_secs(60);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(5);

/// The thread that has three nodes in its hands, and gives them back.
type Thread = JoinHandle<anyhow::Result<Nodes>>;

/// The nodes of the demo.
pub enum Ordeal {
    /// One, which is killed so often.
    One { node: Box<NodeProcess>, kills: u64 },
    /// Three, in the hands of a thread of their own.
    Three { thread: Thread, steps: Sender<Step>, told: Receiver<String> },
}

/// Three nodes, and what they counted before they were killed.
pub struct Nodes {
    program: PathBuf,
    directory: PathBuf,
    nodes: Vec<(String, NodeProcess)>,
    made: u64,
    counters: Counters,
}

/// What is to happen next, and after how many commits.
pub struct Step {
    pub number: u64,
    pub after: u64,
}

impl Ordeal {
    /// How often something happens.
    pub fn steps(&self) -> u64 {
        match self {
            Ordeal::One { kills, .. } => *kills,
            Ordeal::Three { .. } => STEPS,
        }
    }

    /// A node alone.
    pub fn of_one(directory: &Path, kills: u64) -> anyhow::Result<(Ordeal, Vec<String>)> {
        let program = std::env::current_exe()?;
        let start =
            Start { program, data: directory.to_owned(), arguments: Vec::new(), errors: None };
        let node = Box::new(NodeProcess::start(start)?);
        let addresses = vec![node.address()];
        Ok((Ordeal::One { node, kills }, addresses))
    }

    /// Three nodes. `acknowledged` counts the commits, so that things happen in their midst.
    pub fn of_three(
        directory: &Path,
        acknowledged: Arc<AtomicU64>,
    ) -> anyhow::Result<(Ordeal, Vec<String>)> {
        let program = std::env::current_exe()?;
        let mut nodes = Nodes {
            program,
            directory: directory.to_owned(),
            nodes: Vec::new(),
            made: 0,
            counters: Counters::default(),
        };
        std::fs::create_dir_all(directory)?;
        (0..3).try_for_each(|_| nodes.add())?;
        let addresses = nodes.addresses();
        super::runtime()?.block_on(nodes.wait_to_be_whole())?;
        let (steps, wanted) = channel::<Step>();
        let (say, told) = channel();
        let thread = std::thread::spawn(move || {
            let runtime = super::runtime()?;
            while let Ok(step) = wanted.recv() {
                let until = Instant::now() + WHOLE_TIME_MAX;
                while acknowledged.load(Ordering::Relaxed) < step.after {
                    ensure!(Instant::now() < until, "there are no commits any more");
                    std::thread::sleep(LOOK);
                }
                let sentence = runtime.block_on(nodes.suffer(step.number))?;
                if say.send(sentence).is_err() {
                    break;
                }
            }
            Ok(nodes)
        });
        Ok((Ordeal::Three { thread, steps, told }, addresses))
    }

    /// The next thing happens. Of three nodes it begins after some more commits, and has ended when
    /// [`Ordeal::wait`] returns; a node alone is there again at once. A sentence about it.
    pub fn begin(&mut self, step: Step, counters: &mut Counters) -> anyhow::Result<Option<String>> {
        match self {
            Ordeal::One { node, .. } => {
                counters.add(&node.counters()?);
                node.kill()?;
                node.restart()?;
                Ok(Some("killed (SIGKILL) and reopened".to_owned()))
            }
            Ordeal::Three { steps, .. } => {
                steps.send(step).ok().context("the nodes are gone")?;
                Ok(None)
            }
        }
    }

    /// Waits until what has begun has ended: only three nodes take their time.
    pub fn wait(&mut self) -> anyhow::Result<Option<String>> {
        match self {
            Ordeal::One { .. } => Ok(None),
            Ordeal::Three { told, .. } => match told.recv() {
                Ok(sentence) => Ok(Some(sentence)),
                Err(_) => bail!("the nodes did not come back as they should"),
            },
        }
    }

    /// Ends it; the nodes, and what they counted.
    pub fn end(self) -> anyhow::Result<(Vec<(String, NodeProcess)>, Counters)> {
        match self {
            Ordeal::One { node, .. } => {
                let counters = node.counters()?;
                Ok((vec![("the node".to_owned(), *node)], counters))
            }
            Ordeal::Three { thread, steps, told } => {
                drop((steps, told));
                let ended = thread.join();
                let Nodes { nodes, mut counters, .. } =
                    ended.ok().context("the thread of the nodes ended in a bug")??;
                for (_, node) in &nodes {
                    counters.add(&node.counters()?);
                }
                Ok((nodes, counters))
            }
        }
    }

    /// Why the nodes ended early, if they did.
    pub fn failure(self) -> anyhow::Error {
        match self {
            Ordeal::Three { thread, steps, told } => {
                drop((steps, told));
                match thread.join() {
                    Ok(Err(error)) => error,
                    _ => anyhow::anyhow!("the nodes are gone"),
                }
            }
            Ordeal::One { .. } => anyhow::anyhow!("the node is gone"),
        }
    }
}

impl Nodes {
    fn add(&mut self) -> anyhow::Result<()> {
        self.made += 1;
        let name = format!("n{}", self.made);
        let mut arguments = vec!["--name".to_owned(), name.clone()];
        for address in self.addresses() {
            arguments.extend(["--join".to_owned(), address]);
        }
        let (program, data) = (self.program.clone(), self.directory.join(&name));
        // What the nodes say of each other's troubles would only disturb.
        let errors = Some(self.directory.join(format!("{name}.errors")));
        let node = NodeProcess::start(Start { program, data, arguments, errors })?;
        self.nodes.push((name, node));
        Ok(())
    }

    fn addresses(&self) -> Vec<String> {
        self.nodes.iter().map(|(_, node)| node.address()).collect()
    }

    async fn suffer(&mut self, step: u64) -> anyhow::Result<String> {
        let leader = self.leader().await?;
        let follower = (leader + 1) % self.nodes.len();
        match step {
            1 => {
                let (name, node) = &mut self.nodes[leader];
                self.counters.add(&node.counters()?);
                node.kill()?;
                node.restart()?;
                let sentence =
                    format!("the leader, {name}, was killed (SIGKILL) and started again");
                self.wait_to_be_whole().await?;
                Ok(sentence)
            }
            2 => {
                let (name, node) = &self.nodes[follower];
                node.pause()?;
                tokio::time::sleep(PAUSE).await;
                node.resume()?;
                let sentence = format!("a follower, {name}, stood still for a second (SIGSTOP)");
                self.wait_to_be_whole().await?;
                Ok(sentence)
            }
            _ => self.lose_a_disk(follower).await,
        }
    }

    /// A node and its data are gone; a new one takes its place.
    async fn lose_a_disk(&mut self, which: usize) -> anyhow::Result<String> {
        let (gone, mut node) = self.nodes.remove(which);
        self.counters.add(&node.counters()?);
        node.kill()?;
        std::fs::remove_dir_all(self.directory.join(&gone))?;
        let seen = self.sees(&self.nodes[0].1).await?;
        let id = seen.nodes.iter().find(|node| node.name == gone).map(|node| node.id);
        let id = id.context("the node that was lost is not known")?;
        self.add()?;
        let rest = cluster::remove(&seen, id).await?;
        cluster::wait_to_be_gone(&rest, id, Instant::now() + WHOLE_TIME_MAX).await?;
        self.wait_to_be_whole().await?;
        let new = &self.nodes.last().expect("it was just added").0;
        Ok(format!("a follower, {gone}, lost its disk; {new} took its place"))
    }

    async fn sees(&self, node: &NodeProcess) -> anyhow::Result<Seen> {
        let options = Options { stays: true, timeout_ms: 5_000, ..Options::default() };
        Ok(Client::connect_with([node.address()], options).await?.cluster().await?)
    }

    /// The place of the leader of what is loaded.
    async fn leader(&self) -> anyhow::Result<usize> {
        let until = Instant::now() + WHOLE_TIME_MAX;
        while Instant::now() < until {
            let seen = self.sees(&self.nodes[0].1).await?;
            let id = seen.namespaces.first().map_or(NodeId(0), |namespace| namespace.leader);
            let leader = seen.nodes.iter().find(|node| node.id == id && node.up);
            if let Some(leader) = leader
                && let Some(place) = self.nodes.iter().position(|(name, _)| *name == leader.name)
            {
                return Ok(place);
            }
            tokio::time::sleep(LOOK).await;
        }
        bail!("no node leads")
    }

    /// Waits until every node sees that all vote.
    async fn wait_to_be_whole(&self) -> anyhow::Result<()> {
        let until = Instant::now() + WHOLE_TIME_MAX;
        for (name, node) in &self.nodes {
            loop {
                let seen = self.sees(node).await?;
                let up = seen.nodes.iter().filter(|node| node.up).count();
                let votes = seen.namespaces.iter().all(|namespace| {
                    namespace.replicas.iter().filter(|replica| replica.voter).count() == 3
                });
                if up == 3 && votes && seen.nodes.len() == 3 {
                    break;
                }
                ensure!(Instant::now() < until, "{name} does not see three nodes that vote");
                tokio::time::sleep(LOOK).await;
            }
        }
        Ok(())
    }
}

/// A number for the log of a replica from one offset to another: the same for the same frames.
pub async fn log_digest(
    namespace: &Namespace,
    from: Offset,
    to: Offset,
) -> anyhow::Result<(u64, u64)> {
    let (mut at, mut digest, mut frames) = (from, 0u64, 0);
    while at < to {
        let page = namespace.log(at, 0, 0).await?;
        ensure!(page.next > at, "the log ends at {at}, before {to}");
        let mut rest = page.data.as_slice();
        while !rest.is_empty() {
            let frame = naust_wire::frame::read(rest)?;
            let (offset, bytes) = (frame.header.offset, frame.header.frame_bytes());
            rest = &rest[usize::try_from(bytes)?..];
            if offset < to {
                let word = offset.0.rotate_left(32) ^ u64::from(frame.crc);
                digest = (digest ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
                frames += 1;
            }
        }
        at = page.next;
    }
    Ok((digest, frames))
}
