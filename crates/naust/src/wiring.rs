//! What the threads of a node share: the queues to each other, the clock, the counters.
//!
//! ```text
//!                      ┌────────────► disk threads ──────────┐
//!   sockets ─► worker ─┼────────────► background threads ────┼─► worker's queue
//!              ▲       ├─► views ─► (replies, progress) ─────┤
//!   links ─────┘       ├─► reads ─► (replies) ───────────────┤
//!                      └─► copies ───────────────────────────┘
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
use crate::peers::Lookup;
use crate::queue::Queue;
use crate::sockets::Whom;
use crate::transfers::Transfers;
use crate::worker::Input;
use crate::{copies, disk_threads, reads, views, worker};
use naust_log::Journal;
use naust_node::{ConnectionId, Now};
use naust_wire::ShardId;
use naust_wire::limits::PACKET_HEADER_BYTES;
use naust_wire::packet::{self, Kind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Bytes of packets on their way from other workers to one; past it clients' sockets are not read.
const CROSSING_BYTES_MAX: usize = 64 * 1024 * 1024;
/// The same, past which those of other nodes are not read either. What nodes say to each other
/// waits for answers, so it stays far below.
const PEERS_CROSSING_BYTES_MAX: usize = 4 * CROSSING_BYTES_MAX;

/// What each run of packets counts beside its bytes, so that small ones fill no queue: of all that
/// cross, and of what one more socket has, there are far fewer than a queue has places for.
const CROSSING_ITEM_BYTES: usize = 1024;

const _: () = {
    let crossing = PEERS_CROSSING_BYTES_MAX / CROSSING_ITEM_BYTES;
    let one_socket = crate::receive::BUFFER_BYTES / PACKET_HEADER_BYTES;
    // Several workers may each read one more socket before they see how much crosses.
    assert!(crossing + 16 * one_socket < worker::INPUTS_MAX);
};

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
    /// To the disk thread for small writes.
    pub together: disk_threads::Together,
    /// Where it writes them.
    pub journal: Arc<Journal>,
    /// To the background threads.
    pub background: Arc<Background>,
    /// To the views thread of each worker.
    pub views: Vec<Arc<Queue<views::Input>>>,
    /// To the reads thread of each worker.
    pub reads: Vec<Arc<Queue<reads::Input>>>,
    /// To the thread that copies replicas.
    pub copies: Arc<Queue<copies::Input>>,
    /// To the thread that looks names up.
    pub names: Arc<Queue<(usize, Lookup)>>,
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

    /// The worker of shard 0.
    #[must_use]
    pub fn directory(&self) -> &Queue<Input> {
        &self.workers[owner(ShardId::DIRECTORY, self.workers.len())]
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

    /// The same, when the directory changed.
    pub fn tell_ready_if_open(&self) {
        let shard = self.catalog.shard(DEFAULT_NAMESPACE);
        if shard.is_some_and(|shard| self.catalog.readers(shard).is_some()) {
            self.life.set_ready();
        }
    }

    /// Sends a copy of packets to the worker of their shards.
    pub fn cross(&self, worker: usize, from: ConnectionId, run: &[u8]) {
        self.crossing[worker].fetch_add(run.len() + CROSSING_ITEM_BYTES, Ordering::Relaxed);
        let pushed = self.workers[worker].push(Input::Packets { from, bytes: run.to_vec() });
        assert!(
            pushed.is_ok() || self.life.is_ending(),
            "a worker's queue is full although its bytes are bounded"
        );
    }

    /// Packets that crossed to a worker have arrived.
    pub fn crossed(&self, worker: usize, run: &[u8]) {
        self.crossing[worker].fetch_sub(run.len() + CROSSING_ITEM_BYTES, Ordering::Relaxed);
    }

    /// From whose sockets may be read, for all that is on its way between workers; `None`:
    /// nobody's.
    #[must_use]
    pub fn readable(&self) -> Option<Whom> {
        let crossing = |bytes: &AtomicUsize| bytes.load(Ordering::Relaxed);
        let bytes = self.crossing.iter().map(crossing).max().unwrap_or(0);
        let whom = if bytes > CROSSING_BYTES_MAX { Whom::Nodes } else { Whom::All };
        (bytes <= PEERS_CROSSING_BYTES_MAX).then_some(whom)
    }
}

/// The worker that owns a shard, of `workers`. Shards are numbered one by one, so this spreads them
/// evenly.
#[must_use]
pub fn owner(shard: ShardId, workers: usize) -> usize {
    shard.0 as usize % workers
}

/// Whom packets are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum To {
    /// One worker.
    One(usize),
    /// All of them.
    All,
}

/// Splits whole packets into runs for the same workers, in order. Questions to the node stay
/// `here`, unless they are about a shard.
pub fn runs(here: usize, workers: usize, bytes: &[u8]) -> impl Iterator<Item = (To, &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let to = destination(here, workers, rest)?;
        let mut length = 0;
        while destination(here, workers, &rest[length..]) == Some(to) {
            length += packet::wanted(&rest[length..]);
        }
        let (run, after) = rest.split_at(length);
        rest = after;
        Some((to, run))
    })
}

fn destination(here: usize, workers: usize, packets: &[u8]) -> Option<To> {
    let head: &[u8; 20] = packets.first_chunk()?;
    let kind = u16::from_le_bytes([head[2], head[3]]);
    let shard = u32::from_le_bytes([head[16], head[17], head[18], head[19]]);
    let shard = ShardId(shard);
    let is_for_node = kind == Kind::Ask as u16 && shard == ShardId::DIRECTORY;
    Some(match is_for_node {
        _ if kind == Kind::PeerToAll as u16 => To::All,
        true => To::One(here),
        false => To::One(owner(shard, workers)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use naust_wire::RequestId;

    #[test]
    fn packets_are_split_by_the_owners_of_their_shards_in_order() {
        let mut bytes = Vec::new();
        let packets: [(Kind, u32, usize); 10] = [
            (Kind::Commit, 0, 10),
            (Kind::Commit, 3, 1),
            (Kind::Read, 1, 20),
            (Kind::Ask, 1, 5),
            (Kind::Ask, 0, 5),
            (Kind::Commit, 2, 0),
            (Kind::Commit, 5, 8),
            (Kind::Peer, 8, 3),
            (Kind::PeerToAll, 0, 9),
            (Kind::Peer, 3, 1),
        ];
        for (number, (kind, shard, size)) in packets.iter().enumerate() {
            let request = RequestId(number as u64);
            packet::write(*kind, request, ShardId(*shard), &vec![7; *size], &mut bytes);
        }
        let runs: Vec<(To, &[u8])> = runs(2, 3, &bytes).collect();
        let workers: Vec<To> = runs.iter().map(|(to, _)| *to).collect();
        assert_eq!(workers, [To::One(0), To::One(1), To::One(2), To::All, To::One(0)]);
        let joined: Vec<u8> = runs.iter().flat_map(|(_, run)| run.iter().copied()).collect();
        assert_eq!(joined, bytes);
    }
}
