//! A node inside this process: its threads, their start and their end.

use crate::background::Background;
use crate::catalog::{Catalog, DEFAULT_NAMESPACE};
use crate::config::{Config, ConfigError};
use crate::connection;
use crate::data::{DataDirectory, DataError};
use crate::join::{self, JoinError, Me};
use crate::journal::JournalError;
use crate::life::{self, Life, Start};
use crate::links::{Bells, Doorbell, LateBell, Links};
use crate::metrics::{Counters, Metrics};
use crate::peers::Peers;
use crate::queue::Queue;
use crate::snapshot::{Snapshot, SnapshotError};
use crate::sockets::{Sockets, Totals, WAKE};
use crate::transfers::Transfers;
use crate::wiring::{Clock, Wiring};
use crate::worker::{Input, Worker};
use crate::{copies, disk_threads, journal, names, reads, views, worker};
use naust_client::{Client, Link};
use naust_node::ConnectionId;
use naust_wire::ShardId;
use naust_wire::limits::UNREAD_BYTES_MAX;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// How long a shutdown waits for what is under way.
const DRAIN_TIME_MAX: Duration = Duration::from_secs(10);
/// How long its threads may take to end after that. One that waits for a disk that hangs does not.
const END_TIME_MAX: Duration = Duration::from_secs(10);

/// How long a start may take before it is told what it waits for.
const START_LOOK: Duration = Duration::from_secs(2);

/// Table files that all shards have open at a time.
pub(crate) const TABLE_FILES_MAX: usize = 512;

/// Why a node can't start, or had to stop; each in a sentence for the operator.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NaustError {
    /// The configuration makes no sense.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The data directory can't be used.
    #[error(transparent)]
    Data(#[from] DataError),
    /// What an earlier life left in its journal can't be used.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// It can't take part in the cluster that it was told to.
    #[error(transparent)]
    Join(#[from] JoinError),
    /// It can't listen.
    #[error("can't listen on {address}: {source}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why not.
        source: std::io::Error,
    },
    /// The operating system gave no thread, event loop or descriptor.
    #[error("can't start: {0}")]
    Start(#[from] std::io::Error),
    /// It was told to end before it served.
    #[error("the node was told to end before it served")]
    GivenUp,
    /// A part of the node could not go on.
    #[error("{0}")]
    Failed(String),
}

/// A running node. Dropping it shuts it down.
pub struct Naust {
    wiring: Arc<Wiring>,
    native_address: Option<SocketAddr>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    clients: AtomicU64,
    /// Asks what is acknowledged, for snapshots.
    asks: OnceLock<Client>,
    is_draining: AtomicBool,
}

impl Naust {
    /// Starts a node and waits until it serves. Blocking.
    ///
    /// # Errors
    /// [`NaustError`]; nothing is left running.
    pub fn open(config: Config) -> Result<Naust, NaustError> {
        Naust::open_in(config, Arc::default())
    }

    /// The same, in a life through which others see how far it is, and end it before it serves.
    pub(crate) fn open_in(config: Config, life: Arc<Life>) -> Result<Naust, NaustError> {
        config.check()?;
        let listener = config.native_address()?.map(listen).transpose()?;
        let native_address = listener.as_ref().map(TcpListener::local_addr).transpose()?;
        let data = join::open_data(&config, native_address, &life)?;
        let was_made = data.was_made()?;
        let (wiring, polls) = wire(config, data, life)?;
        let naust = Naust {
            wiring: Arc::new(wiring),
            native_address,
            threads: Mutex::default(),
            clients: AtomicU64::new(0),
            asks: OnceLock::new(),
            is_draining: AtomicBool::new(false),
        };
        naust.start(polls, listener)?;
        naust.announce(was_made)?;
        naust.wait_start()?;
        Ok(naust)
    }

    /// Waits until the node serves, and tells the operator what that waits for.
    fn wait_start(&self) -> Result<(), NaustError> {
        let life = &self.wiring.life;
        loop {
            match life.wait_start(START_LOOK) {
                Some(Start::Ready) => return Ok(()),
                Some(Start::GivenUp) => {
                    self.shutdown()?;
                    return Err(NaustError::GivenUp);
                }
                Some(Start::Ended) => {
                    self.end();
                    return Err(NaustError::Failed(life.failure().unwrap_or_default()));
                }
                None => life.waits_for(self.lacks()),
            }
        }
    }

    /// What the node needs before it serves, for the operator.
    fn lacks(&self) -> String {
        let Wiring { catalog, config, data, .. } = &*self.wiring;
        let unusable = |shard, what: &str| {
            let failure = catalog.closed(shard)?;
            Some(format!("its replica of {what} can't be used: {}", failure.detail))
        };
        let is_founder = data.identity().founder;
        let knows_others = !config.join.is_empty() || !catalog.addresses().is_empty();
        let others = match is_founder || knows_others {
            true => "",
            false => "; it knows no other node: name some with --join HOST:PORT",
        };
        if let Some(unusable) = unusable(ShardId::DIRECTORY, "the directory of namespaces") {
            return unusable;
        }
        if catalog.readers(ShardId::DIRECTORY).is_none() {
            if is_founder || data.was_made().unwrap_or_default() {
                return "it opens the directory of namespaces".to_owned();
            }
            return format!(
                "it has no replica of the directory of namespaces, and waits for its cluster to \
                 send one{others}"
            );
        }
        match catalog.shard(DEFAULT_NAMESPACE) {
            None => format!(
                "it does not know its namespaces yet, and waits for a quorum of the nodes that \
                 have their directory{others}"
            ),
            Some(shard) => unusable(shard, DEFAULT_NAMESPACE)
                .unwrap_or_else(|| format!("it opens the namespace {DEFAULT_NAMESPACE}")),
        }
    }

    /// Where native clients connect, if it listens.
    #[must_use]
    pub fn native_address(&self) -> Option<SocketAddr> {
        self.native_address
    }

    /// The node's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.wiring.name
    }

    /// Its data directory.
    #[must_use]
    pub fn data(&self) -> &Path {
        self.wiring.data.path()
    }

    /// What the node has counted.
    #[must_use]
    pub fn metrics(&self) -> Metrics {
        let catalog = &self.wiring.catalog;
        let shards = catalog.open_shards() as u64;
        let shards_closed = catalog.closed_shards() as u64;
        Metrics { shards, shards_closed, ..self.wiring.counters.read() }
    }

    /// A client of this node, without sockets.
    #[must_use]
    pub fn client(&self) -> Client {
        self.client_with(naust_client::Options::default())
    }

    /// A client of this node, with options.
    #[must_use]
    pub fn client_with(&self, options: naust_client::Options) -> Client {
        let (worker, bell) = self.doorbell();
        let id = bell.id;
        let (client, link) = Client::over(Arc::new(bell), options);
        self.attach(worker, id, link);
        client
    }

    /// Serves a client that was there before the node.
    pub(crate) fn adopt(&self, link: Link, late: &LateBell) {
        let (worker, bell) = self.doorbell();
        let id = bell.id;
        // Whoever rang before is looked at when it is attached.
        if late.0.set(bell).is_ok() {
            self.attach(worker, id, link);
        }
    }

    fn doorbell(&self) -> (usize, Doorbell) {
        let worker = self.wiring.next_worker();
        let id = connection::link_id(worker, self.clients.fetch_add(1, Ordering::Relaxed));
        (worker, Doorbell { id, bells: Arc::clone(&self.wiring.bells[worker]) })
    }

    fn attach(&self, worker: usize, id: ConnectionId, link: Link) {
        self.wiring.links.add(id, link.clone());
        self.wiring.tell(worker, Input::Linked(id, link));
        // Those that are there when the end comes are closed then.
        if self.wiring.life.is_ending() {
            self.wiring.links.close();
        }
    }

    /// The namespace as it is now, to be read on the caller's own thread. Every commit acknowledged
    /// before is in it, also those of an earlier life and of other nodes: that is asked of whoever
    /// leads the namespace, and waited for here. Blocking.
    ///
    /// # Errors
    /// `NamespaceNotFound`; `Unavailable` when nobody leads it, or it can't be opened here or is
    /// not ready in time; `ShuttingDown` when the node ends; `LimitReached` when too many snapshots
    /// are held.
    pub fn snapshot(&self, namespace: &str) -> Result<Snapshot, SnapshotError> {
        let client = self.asks.get_or_init(|| self.client());
        Snapshot::take(client, &self.wiring.catalog, &self.wiring.life, namespace)
    }

    /// Whether the node takes requests.
    #[must_use]
    pub fn is_serving(&self) -> bool {
        !self.is_draining.load(Ordering::Relaxed) && !self.wiring.life.is_ending()
    }

    /// Has `closer` called when the node ends, however it does; at once if it has ended.
    pub fn at_end(&self, closer: impl Fn() + Send + 'static) {
        self.wiring.life.at_end(closer);
    }

    /// Takes no new requests, finishes what is under way, and stops. Blocking.
    ///
    /// # Errors
    /// [`NaustError::Failed`] when the node had stopped by itself before, or when one of its
    /// threads does not end, for example because its disk hangs: it is left behind, and the data
    /// directory stays in use until the process ends.
    pub fn shutdown(&self) -> Result<(), NaustError> {
        self.is_draining.store(true, Ordering::Relaxed);
        for worker in 0..self.wiring.workers.len() {
            self.wiring.tell(worker, Input::Drain);
        }
        self.wiring.life.wait_drained(self.wiring.workers.len(), DRAIN_TIME_MAX);
        let left = self.end();
        match self.wiring.life.failure() {
            Some(sentence) => Err(NaustError::Failed(sentence)),
            None if left.is_empty() => Ok(()),
            None => {
                let seconds = END_TIME_MAX.as_secs();
                let left = left.join(", ");
                Err(NaustError::Failed(format!(
                    "these threads did not end within {seconds} s and were left behind, as they do \
                     when a disk hangs: {left}. All that was acknowledged is safe"
                )))
            }
        }
    }

    /// Stops all threads and waits for them; which of them it left behind.
    fn end(&self) -> Vec<String> {
        self.wiring.life.end();
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        let threads = std::mem::take(&mut *threads);
        let left = life::join(threads, END_TIME_MAX);
        // After a failure the journal is left to the next start.
        if left.is_empty()
            && self.wiring.life.failure().is_none()
            && let Err(fault) = self.wiring.journal.close()
        {
            eprintln!("naust: the journal is left to the next start: {fault}");
        }
        left
    }

    fn start(
        &self,
        polls: Vec<mio::Poll>,
        listener: Option<TcpListener>,
    ) -> Result<(), NaustError> {
        let mut listener = listener.map(mio::net::TcpListener::from_std);
        // Asked for once, before anything is pinned: a pinned thread sees its own core alone.
        let cores = core_affinity::get_core_ids().filter(|_| self.wiring.config.pin);
        let totals = Totals {
            connections: Arc::clone(&self.wiring.counters.connections),
            connections_max: self.wiring.config.connections_max,
            unread_bytes: Arc::clone(&self.wiring.counters.unread_bytes),
            unread_bytes_max: UNREAD_BYTES_MAX,
        };
        for (number, poll) in polls.into_iter().enumerate() {
            let sockets = Sockets::new(
                number,
                poll.registry().try_clone()?,
                listener.take(),
                totals.clone(),
            )?;
            let peers = Peers::new(poll.registry().try_clone()?);
            let node = naust_node::Node::new(self.node_config(number));
            let wiring = Arc::clone(&self.wiring);
            let folder = Arc::new(views::Folder::new(&wiring, number));
            let views = Arc::clone(&folder);
            let worker = Worker::new(number, wiring, poll, node, sockets, peers, folder);
            let core = cores.as_ref().and_then(|cores| cores.get(number % cores.len()).copied());
            self.spawn(format!("worker-{number}"), move |_| {
                // Where the system refuses, the worker runs as well, if not as steadily.
                core.map(core_affinity::set_for_current);
                worker.run();
            })?;
            self.spawn(format!("views-{number}"), move |wiring| views::run(wiring, &views))?;
            let reads = Arc::clone(&self.wiring.reads[number]);
            self.spawn(format!("reads-{number}"), move |wiring| {
                reads::run(wiring, number, &reads)
            })?;
        }
        for (number, queue) in self.wiring.disks.iter().enumerate() {
            let queue = Arc::clone(queue);
            self.spawn(format!("disk-{number}"), move |wiring| disk_threads::run(wiring, &queue))?;
        }
        let queue = Arc::clone(&self.wiring.together.queue);
        self.spawn("disk-together".to_owned(), move |wiring| {
            disk_threads::run_together(wiring, &queue);
        })?;
        let copies = Arc::clone(&self.wiring.copies);
        self.spawn("copies".to_owned(), move |wiring| copies::run(wiring, &copies))?;
        self.start_names()?;
        self.spawn("zeros".to_owned(), |wiring| wiring.background.fill(wiring))?;
        for number in 0..self.wiring.config.background_threads {
            self.spawn(format!("background-{number}"), |wiring| wiring.background.run(wiring))?;
        }
        Ok(())
    }

    /// Nobody waits for the end of this thread: a look-up that hangs has nothing to do with data.
    fn start_names(&self) -> Result<(), NaustError> {
        let (wiring, names) = (Arc::downgrade(&self.wiring), Arc::clone(&self.wiring.names));
        let run = move || names::run(&wiring, &names, names::find);
        let thread = life::spawn(&self.wiring.life, "names".to_owned(), run);
        drop(thread.inspect_err(|_| self.wiring.life.end())?);
        Ok(())
    }

    /// Has the cluster told who this node is, if it does not know that, and asked whether it still
    /// has it, if it `was_made` before.
    fn announce(&self, was_made: bool) -> Result<(), NaustError> {
        if self.native_address.is_none() {
            return Ok(self.wiring.data.set_name(&self.wiring.name)?);
        }
        let (client, me) = (self.client(), self.me());
        let announce = move |wiring: &Wiring| join::announce(wiring, &me, was_made, client);
        self.spawn("join".to_owned(), announce)
    }

    /// Who this node is, for others.
    fn me(&self) -> Me {
        let listens = self.native_address.filter(|address| !address.ip().is_unspecified());
        let address = match self.wiring.config.advertise.as_str() {
            "" => listens.map_or_else(String::new, |address| address.to_string()),
            advertised => advertised.to_owned(),
        };
        Me { node: self.wiring.data.identity().node, name: self.wiring.name.clone(), address }
    }

    fn node_config(&self, worker: usize) -> naust_node::Config {
        let Me { node, name, address } = self.me();
        naust_node::Config {
            node,
            name,
            address,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            token: None,
            worker: worker as u32,
            workers: self.wiring.workers.len() as u32,
            cluster: self.wiring.data.identity().cluster,
            founder: self.wiring.data.identity().founder,
            pace: self.wiring.config.pace(),
        }
    }

    fn spawn(
        &self,
        name: String,
        run: impl FnOnce(&Wiring) + Send + 'static,
    ) -> Result<(), NaustError> {
        let wiring = Arc::clone(&self.wiring);
        let thread = life::spawn(&self.wiring.life, name, move || run(&wiring));
        let thread = thread.inspect_err(|_| self.wiring.life.end())?;
        self.threads.lock().unwrap_or_else(PoisonError::into_inner).push(thread);
        Ok(())
    }
}

impl Drop for Naust {
    fn drop(&mut self) {
        if !self.wiring.life.is_ending() {
            drop(self.shutdown());
        }
    }
}

pub(crate) fn listen(address: SocketAddr) -> Result<TcpListener, NaustError> {
    let listen = || {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    };
    listen().map_err(|source| NaustError::Listen { address, source })
}

/// Makes everything that the threads share, and has it closed at the end of their life.
fn wire(
    config: Config,
    data: DataDirectory,
    life: Arc<Life>,
) -> Result<(Wiring, Vec<mio::Poll>), NaustError> {
    let count = config.worker_count();
    let (mut polls, mut workers) = (Vec::new(), Vec::new());
    for _ in 0..count {
        let poll = mio::Poll::new()?;
        let waker = mio::Waker::new(poll.registry(), WAKE)?;
        workers.push(closed_at_end(&life, Queue::for_poll(waker, worker::INPUTS_MAX)));
        polls.push(poll);
    }
    let links = Arc::new(Links::default());
    let closed = Arc::clone(&links);
    life.at_end(move || closed.close());
    let background = Arc::new(Background::new(config.background_threads));
    let closed = Arc::clone(&background);
    life.at_end(move || closed.close());
    let queues = |items_max, count| -> Vec<_> {
        (0..count).map(|_| closed_at_end(&life, Queue::for_thread(items_max))).collect()
    };
    let disks = (0..config.disk_threads)
        .map(|_| closed_at_end(&life, Queue::for_thread(disk_threads::JOBS_MAX)))
        .collect();
    let together = closed_at_end(&life, Queue::for_thread(disk_threads::JOBS_MAX));
    let counters = Counters::default();
    let names = closed_at_end(&life, Queue::for_thread(names::LOOKUPS_MAX));
    let copies = closed_at_end(&life, Queue::for_thread(copies::INPUTS_MAX));
    let views = queues(views::INPUTS_MAX, count);
    let reads =
        (0..count).map(|_| closed_at_end(&life, Queue::for_thread(reads::INPUTS_MAX))).collect();
    // One that is told anew takes the place of the one before it, which may be damaged.
    let name = match config.name.as_str() {
        "" => data.name()?.unwrap_or_else(|| format!("node-{:08x}", data.identity().node.0 >> 32)),
        name => name.to_owned(),
    };
    let wiring = Wiring {
        transfers: Transfers::default(),
        journal: journal::open(&data, &config, &counters.logs)?,
        together: disk_threads::Together::new(together),
        data,
        name,
        counters,
        catalog: Catalog::default(),
        cache: naust_store::Cache::new(config.cache_bytes, TABLE_FILES_MAX),
        clock: Clock::start(),
        bells: workers.iter().map(|queue| Arc::new(Bells::new(Arc::clone(queue)))).collect(),
        workers,
        disks,
        background,
        views,
        reads,
        copies,
        names,
        links,
        crossing: (0..count).map(|_| AtomicUsize::new(0)).collect(),
        turn: AtomicUsize::new(0),
        config,
        life,
    };
    Ok((wiring, polls))
}

fn closed_at_end<T: Send + 'static>(life: &Arc<Life>, queue: Queue<T>) -> Arc<Queue<T>> {
    let queue = Arc::new(queue);
    let closed = Arc::clone(&queue);
    life.at_end(move || closed.close());
    queue
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::ScanRange;
    use naust_wire::options::NamespaceOptions;
    use naust_wire::{Code, Offset};
    use std::future::Future;

    fn wait<T>(future: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(future)
    }

    fn config(data: &Path, workers: usize) -> Config {
        Config { workers, ..Config::embedded(data) }
    }

    #[test]
    fn what_was_committed_is_read_in_every_way_and_after_reopening() {
        let root = tempfile::tempdir().unwrap();
        let naust = Naust::open(config(root.path(), 1)).unwrap();
        let client = naust.client();
        let shop = client.namespace("default");
        wait(shop.kv("users").put("bob", "6")).unwrap();
        let before = naust.snapshot("default").unwrap();
        let offset = wait(async {
            let done =
                shop.commit(|c| c.put("users", "ada", "90").append("orders", "a boat")).await;
            shop.kv("users").put("bob", "7").await.unwrap();
            done.unwrap().offset
        });
        let check = |naust: &Naust| {
            let client = naust.client();
            let shop = client.namespace("default");
            wait(async {
                assert_eq!(shop.kv("users").get("ada").await.unwrap(), Some(b"90".to_vec()));
                let options = naust_client::ReadOptions::default();
                let records = shop.stream("orders").read(Offset::FIRST, options).await.unwrap();
                assert_eq!(records.records.len(), 1);
                assert_eq!(records.records[0].value, b"a boat");
            });
            let now = naust.snapshot("default").unwrap();
            let (version, value) = now.get("users", b"ada").unwrap().unwrap();
            assert_eq!((version, value.as_ref()), (offset, &b"90"[..]));
            let mut keys = Vec::new();
            let range = ScanRange { from: b"", to: None, reverse: true, limit: 10 };
            let next = now.scan("users", range, |key, _, _| keys.push(key.to_vec())).unwrap();
            assert_eq!((keys, next), (vec![b"bob".to_vec(), b"ada".to_vec()], None));
        };
        check(&naust);
        assert!(before.get("users", b"ada").unwrap().is_none(), "a snapshot shows its moment");
        assert!(naust.metrics().log_syncs >= 2);
        naust.shutdown().unwrap();
        assert!(wait(shop.kv("users").put("eve", "1")).is_err(), "a node that ended says so");
        drop((before, naust));
        check(&Naust::open(config(root.path(), 1)).unwrap());
    }

    /// What a disk holds when the power goes: copies of all files, the lock left behind.
    fn copy(from: &Path, to: &Path) {
        std::fs::create_dir_all(to).unwrap();
        for entry in std::fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            let target = to.join(entry.file_name());
            if entry.file_type().unwrap().is_dir() {
                copy(&entry.path(), &target);
            } else {
                std::fs::copy(entry.path(), target).unwrap();
            }
        }
    }

    /// The tables stand where they were last flushed; the log behind that is folded in after
    /// opening.
    #[test]
    fn the_first_snapshot_after_a_crash_has_everything_acknowledged() {
        let root = tempfile::tempdir().unwrap();
        let naust = Naust::open(config(&root.path().join("alive"), 1)).unwrap();
        let rows = 3000;
        wait(async {
            let namespace = naust.client().namespace("default");
            let commits: Vec<_> = (0..rows)
                .map(|n| namespace.submit(naust_client::Commit::new().put("k", n.to_string(), "v")))
                .collect();
            for commit in commits {
                commit.await.unwrap();
            }
        });
        copy(&root.path().join("alive"), &root.path().join("crashed"));
        let crashed = Naust::open(config(&root.path().join("crashed"), 1)).unwrap();
        let snapshot = crashed.snapshot("default").unwrap();
        let mut seen = 0;
        let range = ScanRange { from: b"", to: None, reverse: false, limit: 10_000 };
        snapshot.scan("k", range, |_, _, _| seen += 1).unwrap();
        assert_eq!(seen, rows);
    }

    /// Once the time to drain is over, what is queued for tables is left: a shutdown ends in time.
    #[test]
    fn the_end_does_not_wait_for_what_is_queued() {
        let root = tempfile::tempdir().unwrap();
        let data = DataDirectory::open(root.path()).unwrap();
        let (wiring, _polls) = wire(config(root.path(), 1), data, Arc::default()).unwrap();
        let shard = ShardId(7);
        let failure = naust_wire::reply::Failure::new(Code::Corrupt, "a sign");
        wiring.catalog.close(shard, &failure);
        views::tell(&wiring, 0, views::Input::Remove(shard));
        wiring.life.end();
        views::run(&wiring, &views::Folder::new(&wiring, 0));
        assert_eq!(wiring.catalog.closed(shard), Some(failure), "what was queued was done");
    }

    /// Why: the end blamed the disk, and left the journal, when only a name server hung.
    #[test]
    fn a_name_that_is_looked_up_for_ever_holds_nothing() {
        let root = tempfile::tempdir().unwrap();
        let data = DataDirectory::open(root.path()).unwrap();
        let (wiring, _polls) = wire(config(root.path(), 1), data, Arc::default()).unwrap();
        let wiring = Arc::new(wiring);
        let address = "nowhere.invalid:1".to_owned();
        let lookup = crate::peers::Lookup { node: naust_wire::NodeId(1), address };
        assert!(wiring.names.push((0, lookup)).is_ok());
        let (looks, looking) = std::sync::mpsc::channel();
        let (answer, answered) = std::sync::mpsc::channel::<()>();
        let (weak, queue) = (Arc::downgrade(&wiring), Arc::clone(&wiring.names));
        let thread = std::thread::spawn(move || {
            names::run(&weak, &queue, |_| {
                looks.send(()).unwrap();
                answered.recv().unwrap();
                Ok(Vec::new())
            });
        });
        looking.recv().unwrap();
        wiring.life.end();
        drop(wiring);
        drop(Naust::open(config(root.path(), 1)).unwrap());
        answer.send(()).unwrap();
        thread.join().unwrap();
    }

    #[test]
    fn a_name_that_is_told_takes_the_place_of_a_damaged_one() {
        let root = tempfile::tempdir().unwrap();
        drop(Naust::open(config(root.path(), 1)).unwrap());
        std::fs::write(root.path().join("NAME"), b"\xff").unwrap();
        assert!(Naust::open(config(root.path(), 1)).is_err());
        let named = || Config { name: "b".to_owned(), ..config(root.path(), 1) };
        assert_eq!(Naust::open(named()).unwrap().name(), "b");
        assert_eq!(Naust::open(config(root.path(), 1)).unwrap().name(), "b");
    }

    #[test]
    fn namespaces_of_all_workers_are_reached_from_each() {
        let root = tempfile::tempdir().unwrap();
        let naust = Naust::open(config(root.path(), 3)).unwrap();
        let clients: Vec<Client> = (0..3).map(|_| naust.client()).collect();
        wait(async {
            for number in 0..6 {
                let name = format!("n{number}");
                let options = NamespaceOptions::default();
                clients[0].create_namespace(&name, options).await.unwrap();
                for client in &clients {
                    let kv = client.namespace(&name).kv("k");
                    kv.put(format!("{number}"), "v").await.unwrap();
                    assert!(kv.get(format!("{number}")).await.unwrap().is_some());
                }
            }
            clients[1].delete_namespace("n3").await.unwrap();
        });
        naust.shutdown().unwrap();
        drop(naust);
        let naust = Naust::open(config(root.path(), 2)).unwrap();
        let client = naust.client();
        wait(async {
            let names = client.namespaces().await.unwrap();
            assert_eq!(names.len(), 6, "five and the one that always exists");
            let kv = client.namespace("n4").kv("k");
            assert_eq!(kv.get("4").await.unwrap(), Some(b"v".to_vec()));
        });
        let gone = naust.snapshot("n3").unwrap_err();
        assert_eq!(gone.code, Code::NamespaceNotFound);
    }

    #[test]
    fn what_can_not_be_started_leaves_nothing_running() {
        let root = tempfile::tempdir().unwrap();
        let naust = Naust::open(config(root.path(), 1)).unwrap();
        let refused = Naust::open(config(root.path(), 1)).err().unwrap();
        assert!(refused.to_string().contains("already in use"), "{refused}");
        let port = TcpListener::bind("127.0.0.1:0").unwrap();
        let listen = port.local_addr().unwrap().to_string();
        let other = root.path().join("other");
        let taken = Naust::open(Config { listen, ..config(&other, 1) }).err().unwrap();
        assert!(taken.to_string().starts_with("can't listen on 127.0.0.1"), "{taken}");
        assert!(!other.exists(), "no data is touched before");
        drop(naust);
        drop(Naust::open(config(root.path(), 1)).unwrap());
    }

    #[test]
    fn the_shards_of_another_node_are_not_served() {
        let root = tempfile::tempdir().unwrap();
        let (one, other) = (root.path().join("one"), root.path().join("other"));
        drop(Naust::open(config(&one, 1)).unwrap());
        drop(Naust::open(config(&other, 1)).unwrap());
        std::fs::rename(one.join("shards"), other.join("mine")).unwrap();
        std::fs::rename(other.join("shards"), one.join("shards")).unwrap();
        let refused = Naust::open(config(&one, 1)).err().unwrap();
        assert!(refused.to_string().contains("belongs to node"), "{refused}");
    }

    /// Why: a follower folds in later what its own client was told is done.
    #[test]
    fn a_snapshot_of_a_follower_has_what_was_acknowledged() {
        let root = tempfile::tempdir().unwrap();
        let open = |name: &str, join: Vec<String>| {
            let config = config(&root.path().join(name), 1);
            let (name, listen) = (name.to_owned(), "127.0.0.1:0".to_owned());
            Naust::open(Config { name, listen, join, ..config }).unwrap()
        };
        let first = open("a", vec![]);
        let address = first.native_address().unwrap().to_string();
        let others = ["b", "c"].map(|name| open(name, vec![address.clone()]));
        let leads = first.client();
        let voters = || {
            let seen = wait(leads.cluster()).unwrap().namespaces;
            let default = seen.iter().find(|namespace| namespace.name == "default").unwrap();
            default.replicas.iter().filter(|replica| replica.voter).count()
        };
        while voters() < 3 {}
        let kv = others.each_ref().map(|naust| naust.client().namespace("default").kv("users"));
        for number in 0..100u32 {
            let key = number.to_be_bytes();
            for (naust, kv) in others.iter().zip(&kv) {
                let done = wait(kv.put(key, "x")).unwrap();
                let found = naust.snapshot("default").unwrap().get("users", &key).unwrap();
                assert_eq!(found.unwrap().0, done);
            }
        }
        // Whoever is alone has none that is as new as that.
        drop(first);
        let [other, alone] = others;
        other.shutdown().unwrap();
        let none = alone.snapshot("default").unwrap_err();
        assert!(matches!(none.code, Code::Unavailable | Code::TimedOut), "{none}");
    }

    #[test]
    fn a_client_that_is_made_after_the_end_is_told_of_it() {
        let root = tempfile::tempdir().unwrap();
        let naust = Naust::open(config(root.path(), 1)).unwrap();
        naust.shutdown().unwrap();
        let late = naust.client();
        let told = wait(late.namespace("default").kv("users").put("a", "1")).unwrap_err();
        assert_eq!(told.code, Code::ShuttingDown);
        assert_eq!(naust.snapshot("default").unwrap_err().code, Code::ShuttingDown);
    }
}
