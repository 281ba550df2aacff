//! What the threads of a node share: the queues to each other, the clock, the counters.
//!
//! ```text
//!                      ┌────────────► disk threads ──────────┐
//!   sockets ─► worker ─┼────────────► background threads ────┼─► worker's queue
//!              ▲       ├─► views ─► (replies, progress) ─────┤
//!   links ─────┘       └─► reads ─► (replies) ───────────────┘
//! ```
//! Who waits for whom: everyone may wait for a worker's queue to have space; a worker waits for
//! nobody.

use crate::background::Background;
use crate::catalog::{Catalog, DEFAULT_NAMESPACE};
use crate::config::Config;
use crate::connection::{is_link, worker_of};
use crate::data::DataDirectory;
use crate::life::Life;
use crate::links::{Bells, Links};
use crate::metrics::Counters;
use crate::queue::Queue;
use crate::transfers::Transfers;
use crate::worker::Input;
use crate::{disk_threads, reads, views};
use naust_node::{ConnectionId, Now};
use naust_wire::ShardId;
use naust_wire::packet::{self, Kind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Bytes of packets on their way from other workers to one; past it sockets are not read.
const CROSSING_BYTES_MAX: usize = 64 * 1024 * 1024;

/// What the threads of a node share.
pub struct Wiring {
    /// Their common end.
    pub life: Arc<Life>,
    /// What was set.
    pub config: Config,
    /// Where the shards lie.
    pub data: DataDirectory,
    /// Replicas on their way between nodes.
    pub transfers: Transfers,
    /// The node's name.
    pub name: String,
    /// What is counted.
    pub counters: Counters,
    /// Namespaces, and readers of their shards.
    pub catalog: Catalog,
    /// Blocks and open files of all tables.
    pub cache: naust_store::Cache,
    /// The time.
    pub clock: Clock,
    /// To each worker.
    pub workers: Vec<Arc<Queue<Input>>>,
    /// The doorbells of each worker.
    pub bells: Vec<Arc<Bells>>,
    /// To each disk thread.
    pub disks: Vec<Arc<Queue<disk_threads::Job>>>,
    /// To the background threads.
    pub background: Arc<Background>,
    /// To the views thread of each worker.
    pub views: Vec<Arc<Queue<views::Input>>>,
    /// To the reads thread of each worker.
    pub reads: Vec<Arc<Queue<reads::Input>>>,
    /// Embedded clients.
    pub links: Arc<Links>,
    /// Bytes of packets on their way to each worker from others.
    pub crossing: Vec<AtomicUsize>,
    /// Turns connections and clients over to the workers one by one.
    pub turn: AtomicUsize,
}

/// The clock of the process.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
}

impl Clock {
    /// A clock that starts now.
    #[must_use]
    pub fn start() -> Clock {
        Clock { start: Instant::now() }
    }

    /// The moment.
    #[must_use]
    pub fn now(&self) -> Now {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let monotonic_ms = self.start.elapsed().as_millis() as u64;
        Now { monotonic_ms, wall_ms: wall.as_millis() as u64 }
    }
}

impl Wiring {
    /// The disk thread of a shard. Shards of one worker are spread over all of them.
    #[must_use]
    pub fn disk(&self, shard: ShardId) -> &Queue<disk_threads::Job> {
        &self.disks[(shard.0 as usize / self.workers.len()) % self.disks.len()]
    }

    /// The worker whose turn it is to get a connection.
    #[must_use]
    pub fn next_worker(&self) -> usize {
        self.turn.fetch_add(1, Ordering::Relaxed) % self.workers.len()
    }

    /// Tells a worker something, waiting for space if need be. Not for workers.
    pub fn tell(&self, worker: usize, input: Input) {
        // A closed queue: the node's life is ending, and so is the caller's.
        let _ = self.workers[worker].push_all(&mut vec![input]);
    }

    /// Tells worker `worker` all of `inputs`, but gives replies to embedded clients and to the
    /// sockets of other workers directly. Waits for space if need be. Not for workers.
    pub fn tell_all(&self, worker: usize, inputs: &mut Vec<Input>) {
        inputs.retain_mut(|input| match input {
            Input::Send { to, bytes } if is_link(*to) => {
                self.links.deliver(*to, std::mem::take(bytes));
                false
            }
            Input::Send { to, bytes } if worker_of(*to) != worker => {
                let bytes = std::mem::take(bytes);
                self.tell(worker_of(*to), Input::Send { to: *to, bytes });
                false
            }
            _ => true,
        });
        if !inputs.is_empty() {
            let _ = self.workers[worker].push_all(inputs);
        }
    }

    /// A shard was opened, or could not be: once that is known of the namespace that always exists,
    /// the node serves.
    pub fn tell_ready(&self, shard: ShardId) {
        if self.catalog.shard(DEFAULT_NAMESPACE) == Some(shard) {
            self.life.set_ready();
        }
    }

    /// Sends a copy of packets to the worker of their shards.
    pub fn cross(&self, worker: usize, from: ConnectionId, run: &[u8]) {
        self.crossing[worker].fetch_add(run.len(), Ordering::Relaxed);
        let pushed = self.workers[worker].push(Input::Packets { from, bytes: run.to_vec() });
        assert!(
            pushed.is_ok() || self.life.is_ending(),
            "a worker's queue is full although its bytes are bounded"
        );
    }

    /// Packets that crossed to a worker have arrived.
    pub fn crossed(&self, worker: usize, bytes: usize) {
        self.crossing[worker].fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Whether any worker has more packets on their way to it than may be, so that sockets are not
    /// to be read.
    #[must_use]
    pub fn is_congested(&self) -> bool {
        self.workers.len() > 1
            && self.crossing.iter().any(|bytes| bytes.load(Ordering::Relaxed) > CROSSING_BYTES_MAX)
    }
}

/// The worker that owns a shard, of `workers`. Shards are numbered one by one, so this spreads them
/// evenly.
#[must_use]
pub fn owner(shard: ShardId, workers: usize) -> usize {
    shard.0 as usize % workers
}

/// Splits whole packets into runs for one worker each, in order. Questions to the node stay `here`.
pub fn runs(here: usize, workers: usize, bytes: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let worker = destination(here, workers, rest)?;
        let mut length = 0;
        while destination(here, workers, &rest[length..]) == Some(worker) {
            length += packet::wanted(&rest[length..]);
        }
        let (run, after) = rest.split_at(length);
        rest = after;
        Some((worker, run))
    })
}

fn destination(here: usize, workers: usize, packets: &[u8]) -> Option<usize> {
    let head: &[u8; 20] = packets.first_chunk()?;
    let kind = u16::from_le_bytes([head[2], head[3]]);
    let shard = u32::from_le_bytes([head[16], head[17], head[18], head[19]]);
    let is_for_node = kind == Kind::Ask as u16;
    Some(if is_for_node { here } else { owner(ShardId(shard), workers) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use naust_wire::RequestId;

    #[test]
    fn packets_are_split_by_the_owners_of_their_shards_in_order() {
        let mut bytes = Vec::new();
        let packets: [(Kind, u32, usize); 7] = [
            (Kind::Commit, 0, 10),
            (Kind::Commit, 3, 1),
            (Kind::Read, 1, 20),
            (Kind::Ask, 1, 5),
            (Kind::Commit, 2, 0),
            (Kind::Commit, 5, 8),
            (Kind::Commit, 8, 3),
        ];
        for (number, (kind, shard, size)) in packets.iter().enumerate() {
            let request = RequestId(number as u64);
            packet::write(*kind, request, ShardId(*shard), &vec![7; *size], &mut bytes);
        }
        let runs: Vec<(usize, &[u8])> = runs(2, 3, &bytes).collect();
        let workers: Vec<usize> = runs.iter().map(|(worker, _)| *worker).collect();
        assert_eq!(workers, [0, 1, 2]);
        let joined: Vec<u8> = runs.iter().flat_map(|(_, run)| run.iter().copied()).collect();
        assert_eq!(joined, bytes);
    }
}
