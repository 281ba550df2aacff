//! A node inside this process: its threads, their start and their end.

use crate::background::Background;
use crate::catalog::Catalog;
use crate::config::{Config, ConfigError};
use crate::connection;
use crate::data::{DataDirectory, DataError};
use crate::life::{self, Life};
use crate::links::{Doorbell, Links};
use crate::metrics::{Counters, Metrics};
use crate::queue::Queue;
use crate::snapshot::{Snapshot, SnapshotError};
use crate::sockets::{Sockets, WAKE};
use crate::wiring::{Clock, Wiring};
use crate::worker::{Input, Worker};
use crate::{disk_threads, reads, views, worker};
use naust_client::Client;
use naust_wire::Code;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// How long a shutdown waits for what is under way.
const DRAIN_TIME_MAX: Duration = Duration::from_secs(10);

/// Table files that all shards have open at a time.
const TABLE_FILES_MAX: usize = 512;

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
    is_draining: AtomicBool,
}

impl Naust {
    /// Starts a node and waits until it serves. Blocking.
    ///
    /// # Errors
    /// [`NaustError`]; nothing is left running.
    pub fn open(config: Config) -> Result<Naust, NaustError> {
        config.check()?;
        let listener = config.native_address()?.map(listen).transpose()?;
        let native_address = listener.as_ref().map(TcpListener::local_addr).transpose()?;
        let data = DataDirectory::open(&config.data)?;
        let (wiring, polls) = wire(config, data)?;
        let naust = Naust {
            wiring: Arc::new(wiring),
            native_address,
            threads: Mutex::default(),
            clients: AtomicU64::new(0),
            is_draining: AtomicBool::new(false),
        };
        naust.start(polls, listener)?;
        if !naust.wiring.life.wait_ready() {
            let failure = naust.wiring.life.failure();
            naust.end();
            return Err(NaustError::Failed(failure.unwrap_or_default()));
        }
        Ok(naust)
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
        let shards = self.wiring.catalog.open_shards() as u64;
        Metrics { shards, ..self.wiring.counters.read() }
    }

    /// A client of this node, without sockets.
    #[must_use]
    pub fn client(&self) -> Client {
        self.client_with(naust_client::Options::default())
    }

    /// A client of this node, with options.
    #[must_use]
    pub fn client_with(&self, options: naust_client::Options) -> Client {
        let worker = self.wiring.next_worker();
        let id = connection::link_id(worker, self.clients.fetch_add(1, Ordering::Relaxed));
        let bell = Doorbell { id, worker: Arc::clone(&self.wiring.workers[worker]) };
        let (client, link) = Client::over(Arc::new(bell), options);
        self.wiring.links.add(id, link.clone());
        self.wiring.tell(worker, Input::Linked(id, link));
        client
    }

    /// The namespace as it is now, to be read on the caller's own thread. Every commit acknowledged
    /// before is in it.
    ///
    /// # Errors
    /// `NamespaceNotFound`; `Unavailable` while the namespace is being opened; `LimitReached` when
    /// too many snapshots are held.
    pub fn snapshot(&self, namespace: &str) -> Result<Snapshot, SnapshotError> {
        let catalog = &self.wiring.catalog;
        let shard = catalog.shard(namespace).ok_or_else(|| {
            let detail = format!("there is no namespace {namespace:?}; make it first");
            SnapshotError::new(Code::NamespaceNotFound, detail)
        })?;
        let readers = catalog.readers(shard).ok_or_else(|| {
            SnapshotError::new(Code::Unavailable, "the namespace is being opened; try again")
        })?;
        Snapshot::new(readers.tables)
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
    /// [`NaustError::Failed`] when the node had stopped by itself before.
    pub fn shutdown(&self) -> Result<(), NaustError> {
        self.is_draining.store(true, Ordering::Relaxed);
        for worker in 0..self.wiring.workers.len() {
            self.wiring.tell(worker, Input::Drain);
        }
        self.wiring.life.wait_drained(self.wiring.workers.len(), DRAIN_TIME_MAX);
        self.end();
        match self.wiring.life.failure() {
            None => Ok(()),
            Some(sentence) => Err(NaustError::Failed(sentence)),
        }
    }

    /// Stops all threads and waits for them.
    fn end(&self) {
        self.wiring.life.end();
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        for thread in threads.drain(..) {
            // A panic in it is the node's failure, and was told as such.
            drop(thread.join());
        }
        self.wiring.links.close();
    }

    fn start(
        &self,
        polls: Vec<mio::Poll>,
        listener: Option<TcpListener>,
    ) -> Result<(), NaustError> {
        let mut listener = listener.map(mio::net::TcpListener::from_std);
        for (number, poll) in polls.into_iter().enumerate() {
            let sockets = Sockets::new(
                number,
                poll.registry().try_clone()?,
                listener.take(),
                Arc::clone(&self.wiring.counters.connections),
                self.wiring.config.connections_max,
            )?;
            let node = naust_node::Node::new(self.node_config(number));
            let wiring = Arc::clone(&self.wiring);
            let worker = Worker::new(number, wiring, poll, node, sockets);
            self.spawn(format!("worker-{number}"), |_| worker.run())?;
            let views = Arc::clone(&self.wiring.views[number]);
            self.spawn(format!("views-{number}"), move |wiring| {
                views::run(wiring, number, &views)
            })?;
        }
        for (number, queue) in self.wiring.disks.iter().enumerate() {
            let queue = Arc::clone(queue);
            self.spawn(format!("disk-{number}"), move |wiring| disk_threads::run(wiring, &queue))?;
        }
        for number in 0..self.wiring.config.background_threads {
            self.spawn(format!("background-{number}"), |wiring| wiring.background.run(wiring))?;
        }
        Ok(())
    }

    fn node_config(&self, worker: usize) -> naust_node::Config {
        let address = self.native_address.map(|address| address.to_string());
        naust_node::Config {
            node: self.wiring.data.identity().node,
            name: self.wiring.name.clone(),
            address: address.unwrap_or_default(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            token: None,
            worker: worker as u32,
            workers: self.wiring.workers.len() as u32,
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
fn wire(config: Config, data: DataDirectory) -> Result<(Wiring, Vec<mio::Poll>), NaustError> {
    let life = Arc::new(Life::default());
    let count = config.worker_count();
    let (mut polls, mut workers) = (Vec::new(), Vec::new());
    for _ in 0..count {
        let poll = mio::Poll::new()?;
        let waker = mio::Waker::new(poll.registry(), WAKE)?;
        workers.push(closed_at_end(&life, Queue::for_poll(waker, worker::INPUTS_MAX)));
        polls.push(poll);
    }
    let background = Arc::new(Background::new(config.background_threads));
    let closed = Arc::clone(&background);
    life.at_end(move || closed.close());
    let queues = |items_max, count| -> Vec<_> {
        (0..count).map(|_| closed_at_end(&life, Queue::for_thread(items_max))).collect()
    };
    let disks = (0..config.disk_threads)
        .map(|_| closed_at_end(&life, Queue::for_thread(disk_threads::JOBS_MAX)))
        .collect();
    let views = queues(views::INPUTS_MAX, count);
    let reads =
        (0..count).map(|_| closed_at_end(&life, Queue::for_thread(reads::INPUTS_MAX))).collect();
    let name = match config.name.as_str() {
        "" => format!("node-{:08x}", data.identity().node.0 >> 32),
        name => name.to_owned(),
    };
    let wiring = Wiring {
        data,
        name,
        counters: Counters::default(),
        catalog: Catalog::default(),
        cache: naust_store::Cache::new(config.cache_bytes, TABLE_FILES_MAX),
        clock: Clock::start(),
        workers,
        disks,
        background,
        views,
        reads,
        links: Links::default(),
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
