//! A worker: the thread that owns shards, and with them an event loop, sockets and embedded
//! clients.
//!
//! ```text
//!   one turn:   poll ─► inputs of other threads ─► sockets read ─► tick, if due    Node::handle
//!               Node::flush ─► effects: to disk, background, views, reads          by queues
//!               sockets written, once each; a lone small write of the log
//! ```
//! Everything that arrived meanwhile is the next turn's batch. The worker waits only in its event
//! loop, and for the disk when it is `alone` with one commit; other threads may wait for it.

use crate::alone::Writes;
use crate::connection::{is_link, worker_of};
use crate::copies::Step;
use crate::peers::{Lookup, Peers};
use crate::queue::{Queue, Refused};
use crate::sockets::{Sockets, WAKE, Whom};
use crate::wiring::{To, Wiring};
use crate::{background, copies, disk_threads, reads, views};
use mio::net::TcpStream;
use naust_client::Link;
use naust_node::event::{DirectoryAsk, DirectoryChange, Event, Progress};
use naust_node::repair::{Met, Supplied, Trouble};
use naust_node::views::Cause;
use naust_node::{ConnectionId, Effect, Node, Now, TICK_MS};
use naust_wire::reply::Failure;
use naust_wire::{Index, Offset, ShardId};
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Items in a worker's queue. What is under way in a node is bounded far below by admission.
pub const INPUTS_MAX: usize = 1 << 19;
/// Milliseconds between looks for slow connections and waiting clients.
const SWEEP_MS: u64 = 50;

/// How long sockets are left alone while other workers are behind.
const CONGESTED_WAIT: Duration = Duration::from_millis(1);

/// What other threads tell a worker.
pub enum Input {
    /// A connection was accepted by another worker, to be served here.
    Accepted(TcpStream),
    /// An embedded client is there.
    Linked(ConnectionId, Link),
    /// An embedded client has something to send, or is gone.
    LinkReady(ConnectionId),
    /// Packets for shards of this worker that came in elsewhere.
    Packets { from: ConnectionId, bytes: Vec<u8> },
    /// Packets for a connection.
    Send { to: ConnectionId, bytes: Vec<u8> },
    /// Close a connection of this worker.
    Close(ConnectionId),
    /// Stop or go on reading from a connection of this worker.
    Pause(ConnectionId, bool),
    /// A connection of another worker is gone.
    Gone(ConnectionId),
    /// A disk thread ended a write.
    Written { shard: ShardId, written: naust_log::Written },
    /// A background thread ended a zero-fill.
    Extended { shard: ShardId, extended: naust_log::Extended },
    /// A background thread ended a trim.
    Trimmed { shard: ShardId, trimmed: naust_log::Trimmed },
    /// The views thread folded something in.
    Progress(Progress),
    /// A shard was opened.
    Opened(Box<naust_node::open::ForWorker>),
    /// A shard could not be opened.
    NotOpened { shard: ShardId, failure: Failure, trouble: Option<Box<Trouble>> },
    /// There is nothing of a shard here.
    NotHere(ShardId),
    /// The name of another node's address was looked up.
    Resolved { lookup: Lookup, found: io::Result<Vec<SocketAddr>> },
    /// A reads thread read frames for another replica.
    Fetched(naust_node::fetch::Fetched),
    /// A background thread read a part of a log again.
    Scrubbed {
        shard: ShardId,
        scrub: Box<naust_log::Scrub>,
        seen: Result<naust_log::Scrubbed, naust_log::Fault>,
    },
    /// A background thread wrote frames over a damaged place, or could not.
    Mended { shard: ShardId, at: Offset, outcome: Result<naust_log::Mended, naust_log::MendError> },
    /// A reads thread read frames for another replica's damaged place.
    Supplied(Supplied),
    /// A reads thread met damage.
    Met { shard: ShardId, met: Met },
    /// A step of a replica's way between nodes ended.
    Transferred(Box<Event<'static>>),
    /// The views of a shard failed.
    Failed { shard: ShardId, cause: Cause, failure: Failure },
    /// Questions of a connection were answered.
    Answered { to: ConnectionId, requests: u32 },
    /// All that a shard had folded in is on disk.
    Flushed(ShardId),
    /// The directory changed.
    Directory(DirectoryChange),
    /// A worker needs the directory as it is now.
    DirectoryAsked(DirectoryAsk),
    /// A shard whose namespace is to be removed has ended.
    ShardClosed(ShardId),
    /// Finish what is under way and take nothing new.
    Drain,
}

/// A worker's own state.
pub struct Worker {
    number: usize,
    wiring: Arc<Wiring>,
    inbox: Arc<Queue<Input>>,
    poll: mio::Poll,
    node: Node,
    sockets: Sockets,
    peers: Peers,
    folder: Arc<views::Folder>,
    inputs: VecDeque<Input>,
    /// The one job for the views of what is being carried out may be done by this thread.
    folds_here: bool,
    /// What came out of batches that this thread folded in itself, and what came in before.
    told: VecDeque<Input>,
    effects: Vec<Effect>,
    /// For the disk threads, at the end of the turn.
    writes: Writes,
    /// Packets of an embedded client.
    packets: Vec<u8>,
    /// Embedded clients of this worker, and whether they are paused with something to send.
    links: Vec<HeldLink>,
    /// How far the views of each shard are, for the counters.
    applied: BTreeMap<ShardId, Index>,
    now: Now,
    tick_at_ms: u64,
    sweep_at_ms: u64,
    drained: Drained,
}

struct HeldLink {
    id: ConnectionId,
    link: Link,
    pauses: usize,
}

#[derive(PartialEq, Eq)]
enum Drained {
    No,
    /// The node has finished; some replies have not left.
    Node,
    Told,
}

impl Worker {
    /// A worker with its event loop. `poll` is the one that the waker of its queue belongs to.
    #[must_use]
    pub fn new(
        number: usize,
        wiring: Arc<Wiring>,
        poll: mio::Poll,
        node: Node,
        sockets: Sockets,
        peers: Peers,
        folder: Arc<views::Folder>,
    ) -> Worker {
        let inbox = Arc::clone(&wiring.workers[number]);
        let now = wiring.clock.now();
        Worker {
            number,
            wiring,
            inbox,
            poll,
            node,
            sockets,
            peers,
            folder,
            inputs: VecDeque::new(),
            folds_here: false,
            told: VecDeque::new(),
            effects: Vec::new(),
            writes: Writes::default(),
            packets: Vec::new(),
            links: Vec::new(),
            applied: BTreeMap::new(),
            now,
            tick_at_ms: now.monotonic_ms,
            sweep_at_ms: now.monotonic_ms,
            drained: Drained::No,
        }
    }

    /// Works until the node's life ends.
    pub fn run(mut self) {
        let mut events = mio::Events::with_capacity(1024);
        self.node.start(&mut self.effects);
        self.carry_out();
        self.give_writes();
        self.write_lone();
        while !self.wiring.life.is_ending() {
            if let Err(error) = self.wait(&mut events) {
                self.wiring.life.fail(format!("can't wait for sockets: {error}"));
                return;
            }
            self.now = self.wiring.clock.now();
            for event in &events {
                let is_known =
                    event.token() == WAKE || self.peers.on_event(event, self.now.monotonic_ms);
                if !is_known {
                    self.sockets.on_event(event);
                }
            }
            self.turn();
        }
    }

    fn wait(&mut self, events: &mut mio::Events) -> io::Result<()> {
        let busy = self.sockets.is_busy() || self.peers.is_busy() || !self.told.is_empty();
        let sleeps = !busy && self.inbox.may_wait();
        let mut rest_ms = self.tick_at_ms.saturating_sub(self.now.monotonic_ms);
        if self.node.is_flush_due() {
            rest_ms = rest_ms.min(1);
        }
        if let Some(at_ms) = self.node.sync_due_ms() {
            rest_ms = rest_ms.min(at_ms.saturating_sub(self.now.monotonic_ms));
        }
        let timeout = match (sleeps, self.wiring.readable()) {
            (true, _) => Duration::from_millis(rest_ms),
            (false, Some(Whom::All)) => Duration::ZERO,
            (false, _) => CONGESTED_WAIT,
        };
        let polled = self.poll.poll(events, Some(timeout));
        if sleeps {
            self.inbox.awake();
        }
        match polled {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            polled => polled,
        }
    }

    fn turn(&mut self) {
        count(&self.wiring.counters.turns, 1);
        self.inbox.take(&mut self.told);
        self.take_inputs();
        if self.wiring.bells[self.number].take_missed() {
            let links: Vec<ConnectionId> = self.links.iter().map(|held| held.id).collect();
            links.into_iter().for_each(|id| self.take(id));
        }
        self.accept();
        self.read();
        self.read_links();
        if self.now.monotonic_ms >= self.tick_at_ms {
            self.tick();
        }
        self.flush();
        // Other nodes first: their disks are further away than this one's.
        self.peers.write(self.now.monotonic_ms);
        self.give_writes();
        self.sockets.write(self.now.monotonic_ms);
        self.look_up();
        self.tell_ended();
        self.tell_drained();
        self.write_lone();
    }

    fn input(&mut self, input: Input) {
        match input {
            Input::Accepted(stream) => self.sockets.adopt(stream),
            Input::Linked(id, link) => {
                link.up();
                self.links.push(HeldLink { id, link, pauses: 0 });
                self.take(id);
            }
            Input::LinkReady(id) => self.take(id),
            Input::Packets { from, bytes } => {
                self.wiring.crossed(self.number, &bytes);
                self.handle(Event::Packets { from, bytes: &bytes });
            }
            Input::Send { to, bytes } => self.send(to, bytes),
            Input::Close(id) => self.close(id),
            Input::Pause(id, on) => self.pause(id, on),
            Input::Gone(id) => self.handle(Event::Closed(id)),
            Input::Written { shard, written } => self.handle(Event::Written { shard, written }),
            Input::Extended { shard, extended } => self.handle(Event::Extended { shard, extended }),
            Input::Trimmed { shard, trimmed } => self.handle(Event::Trimmed { shard, trimmed }),
            Input::Progress(progress) => self.progress(progress),
            Input::Opened(opened) => {
                let shard = opened.shard;
                self.handle(Event::Opened(opened));
                self.wiring.tell_ready(shard);
            }
            Input::NotOpened { shard, failure, trouble } => {
                self.handle(Event::NotOpened { shard, failure, trouble });
                self.wiring.tell_ready(shard);
            }
            Input::NotHere(shard) => {
                self.handle(Event::NotHere(shard));
                // Others have it, and are asked.
                self.wiring.tell_ready(shard);
            }
            Input::Resolved { lookup, found } => {
                self.peers.resolved(&lookup, found, self.now.monotonic_ms);
            }
            Input::Fetched(fetched) => self.handle(Event::Fetched(fetched)),
            Input::Transferred(event) => self.handle(*event),
            Input::Scrubbed { shard, scrub, seen } => {
                self.handle(Event::Scrubbed { shard, scrub: *scrub, seen });
            }
            Input::Mended { shard, at, outcome } => {
                self.handle(Event::Mended { shard, at, outcome });
            }
            Input::Supplied(supplied) => self.handle(Event::Supplied(supplied)),
            Input::Met { shard, met } => self.handle(Event::Met { shard, met }),
            Input::Failed { shard, cause, failure } => {
                eprintln!("naust: shard {shard}: {}", failure.detail);
                self.handle(Event::Failed { shard, cause, failure });
            }
            Input::Answered { to, requests } => self.handle(Event::Answered { to, requests }),
            Input::Flushed(shard) => self.handle(Event::Flushed(shard)),
            Input::Directory(change) => {
                self.wiring.catalog.change(&change);
                self.handle(Event::Directory(change));
                // A leader's invitation to a shard may be faster than the news of its namespace.
                self.wiring.tell_ready_if_open();
            }
            Input::DirectoryAsked(ask) => self.handle(Event::DirectoryAsked(ask)),
            Input::ShardClosed(shard) => self.handle(Event::ShardClosed(shard)),
            Input::Drain => {
                self.sockets.stop_listening();
                self.handle(Event::Drain);
            }
        }
    }

    fn progress(&mut self, progress: Progress) {
        let Progress { shard, index, .. } = progress;
        // What was folded in before this worker heard of the shard for the first time is not news.
        let before = self.applied.insert(shard, index).unwrap_or(index);
        count(&self.wiring.counters.frames_applied, (index.0 - before.0.min(index.0)) as usize);
        self.handle(Event::Progress(progress));
    }

    fn handle(&mut self, event: Event<'_>) {
        self.node.handle(self.now, event, &mut self.effects);
    }

    fn tick(&mut self) {
        let now_ms = self.now.monotonic_ms;
        self.tick_at_ms = now_ms + TICK_MS;
        self.handle(Event::Tick);
        self.peers.tick(now_ms);
        if now_ms >= self.sweep_at_ms {
            self.sweep_at_ms = now_ms + SWEEP_MS;
            self.sockets.sweep(now_ms);
            self.links
                .iter()
                .filter(|held| held.link.is_busy())
                .for_each(|held| held.link.tick(now_ms));
        }
    }

    fn accept(&mut self) {
        if !self.sockets.wants_accept() {
            return;
        }
        let mut accepted = Vec::new();
        self.sockets.accept(|stream| accepted.push(stream));
        for stream in accepted {
            match self.wiring.next_worker() {
                worker if worker == self.number => self.sockets.adopt(stream),
                worker => self.give(&self.wiring.workers[worker], Input::Accepted(stream)),
            }
        }
    }

    fn read(&mut self) {
        let Worker { sockets, node, effects, wiring, now, number, .. } = self;
        sockets.read(
            || wiring.readable(),
            now.monotonic_ms,
            |from, bytes| {
                count(&wiring.counters.bytes_received, bytes.len());
                route(*number, wiring, from, bytes, |bytes| {
                    node.handle(*now, Event::Packets { from, bytes }, effects);
                });
            },
        );
    }

    /// Replies of other nodes, and news of the links to them.
    fn read_links(&mut self) {
        let Worker { peers, node, effects, wiring, now, .. } = self;
        peers.read(now.monotonic_ms, |from, bytes| {
            count(&wiring.counters.bytes_received, bytes.len());
            node.handle(*now, Event::Replies { from, bytes }, effects);
        });
        for (node, is_up) in self.peers.take_changes() {
            self.handle(Event::Link { node, is_up });
        }
    }

    /// Has the names of other nodes looked up.
    fn look_up(&mut self) {
        for lookup in self.peers.take_lookups() {
            self.give(&self.wiring.names, (self.number, lookup));
        }
    }

    /// Takes what an embedded client has for the node.
    fn take(&mut self, id: ConnectionId) {
        let Some(place) = self.links.iter().position(|held| held.id == id) else { return };
        let held = &self.links[place];
        if held.link.is_gone() {
            self.links.swap_remove(place);
            self.wiring.links.remove(id);
            self.gone(id);
            return;
        }
        if held.pauses > 0 {
            return;
        }
        let mut packets = std::mem::take(&mut self.packets);
        if held.link.take(&mut packets) {
            count(&self.wiring.counters.bytes_received, packets.len());
            let Worker { node, effects, wiring, now, number, .. } = self;
            route(*number, wiring, id, &packets, |bytes| {
                node.handle(*now, Event::Packets { from: id, bytes }, effects);
            });
        }
        self.packets = packets;
    }

    fn flush(&mut self) {
        self.node.flush(self.now, &mut self.effects);
        self.carry_out();
        if !self.told.is_empty() {
            // Replies and progress of what was folded in here, to leave with this turn. What comes
            // of that belongs to the next one: others are waiting too.
            self.take_inputs();
            self.node.flush(self.now, &mut self.effects);
            self.carry_out();
        }
    }

    fn take_inputs(&mut self) {
        std::mem::swap(&mut self.inputs, &mut self.told);
        let mut inputs = std::mem::take(&mut self.inputs);
        for input in inputs.drain(..) {
            self.input(input);
        }
        self.inputs = inputs;
    }

    fn carry_out(&mut self) {
        let wiring = Arc::clone(&self.wiring);
        while !self.effects.is_empty() {
            let mut effects = std::mem::take(&mut self.effects);
            // With more to fold in, two threads are better than one.
            let views = effects.iter().filter(|effect| matches!(effect, Effect::Views { .. }));
            self.folds_here = views.take(2).count() == 1;
            for effect in effects.drain(..) {
                self.carry(&wiring, effect);
            }
            // Effects may have called for more; otherwise the memory is used again.
            if self.effects.is_empty() {
                self.effects = effects;
                return;
            }
        }
    }

    fn carry(&mut self, wiring: &Arc<Wiring>, effect: Effect) {
        let worker = self.number;
        match effect {
            Effect::Send { to, bytes } => self.send(to, bytes),
            Effect::Close(id) => self.close(id),
            Effect::Pause(id, on) => self.pause(id, on),
            Effect::Write { shard, write } => {
                self.writes.jobs.push(disk_threads::Job { worker, shard, write });
            }
            Effect::Extend { shard, extend } => {
                self.give_background(background::Job::Extend { worker, shard, extend });
            }
            Effect::Trim { shard, trim } => {
                self.give_background(background::Job::Trim { worker, shard, trim });
            }
            Effect::Open { shard, options, begin } => {
                self.give_background(background::Job::Open { worker, shard, options, begin });
            }
            Effect::Fetch { shard, job } => {
                self.give(&wiring.reads[worker], reads::Input::Fetch { shard, job });
            }
            Effect::Export { shard, begin } => self.copy(shard, Step::Export(begin)),
            Effect::ExportRead { shard, part } => self.copy(shard, Step::Read(part)),
            Effect::ExportEnd { shard, number } => self.copy(shard, Step::End(number)),
            Effect::Import { shard, number, import } => {
                self.copy(shard, Step::Import { number, import });
            }
            Effect::Adopt { shard, options, adopt } => {
                self.applied.remove(&shard);
                let input = views::Input::Adopt { shard, options, adopt };
                self.give(&wiring.views[worker], input);
            }
            Effect::Refold { shard, options } => {
                self.applied.remove(&shard);
                self.give(&wiring.views[worker], views::Input::Refold { shard, options });
            }
            Effect::Scrub { shard, scrub, bytes } => {
                self.give_background(background::Job::Scrub { worker, shard, scrub, bytes });
            }
            Effect::CheckTables { shard, from, bytes } => {
                self.give_background(background::Job::Check { worker, shard, from, bytes });
            }
            Effect::Mend { shard, mend } => {
                self.give_background(background::Job::Mend { worker, shard, mend });
            }
            Effect::Supply { shard, job } => {
                self.give(&wiring.reads[worker], reads::Input::Supply { shard, job });
            }
            Effect::AskDirectory(ask) => self.give(wiring.directory(), Input::DirectoryAsked(ask)),
            // It is said again if there is no room for it.
            Effect::ShardClosed(shard) => drop(wiring.directory().push(Input::ShardClosed(shard))),
            Effect::Report { shard, report } => {
                wiring.counters.repairs.count(&report);
                eprintln!("naust: shard {shard}: {report}");
            }
            Effect::Link { node, address } => {
                let name = wiring.catalog.link(node, &address);
                self.peers.link(node, &name, address, self.now.monotonic_ms);
            }
            Effect::Relink(node) => self.peers.relink(node, self.now.monotonic_ms),
            Effect::Unlink(node) => {
                wiring.catalog.unlink(node);
                self.peers.unlink(node);
            }
            Effect::Peer { to, bytes } => {
                count(&wiring.counters.bytes_sent, bytes.len());
                self.peers.push(to, bytes, self.now.monotonic_ms);
            }
            Effect::Sweep { below, kept } => {
                self.give_background(background::Job::Sweep { below, kept });
            }
            Effect::Remove(shard) => {
                self.applied.remove(&shard);
                self.give(&wiring.views[worker], views::Input::Remove(shard));
            }
            Effect::Shut(shard) => {
                self.applied.remove(&shard);
                self.give(&wiring.views[worker], views::Input::Shut(shard));
            }
            Effect::Views { shard, job } => {
                let job = match self.folds_here {
                    true => self.folder.fold_here(wiring, shard, job, &mut self.told),
                    false => Err(job),
                };
                if let Err(job) = job {
                    self.give(&wiring.views[worker], views::Input::Job { shard, job });
                }
            }
            Effect::Read { shard, job } => {
                self.writes.alone.reads(self.now.monotonic_ms);
                self.give(&wiring.reads[worker], reads::Input::Job { shard, job });
            }
            Effect::Drained => self.drained = Drained::Node,
            Effect::Stop(sentence) => wiring.life.fail(sentence),
        }
    }

    fn give<T>(&self, queue: &Queue<T>, item: T) {
        match queue.push(item) {
            // Closed: the node's life is ending, and this thread will see it.
            Ok(()) | Err(Refused::Closed) => {}
            Err(Refused::Full) => {
                panic!("a queue is full although admission bounds what is under way")
            }
        }
    }

    fn copy(&self, shard: ShardId, step: Step) {
        let input = copies::Input { worker: self.number, shard, step };
        self.give(&self.wiring.copies, input);
    }

    fn give_writes(&mut self) {
        if self.writes.keep_lone(self.now.monotonic_ms) {
            return;
        }
        let mut jobs = std::mem::take(&mut self.writes.jobs);
        let taken = self.wiring.together.take(&mut jobs);
        assert!(taken != Err(Refused::Full), "every shard has one write under way at most");
        for job in jobs.drain(..) {
            self.give(self.wiring.disk(job.shard), job);
        }
        self.writes.jobs = jobs;
    }

    fn write_lone(&mut self) {
        let written = self.writes.write_lone(|| self.wiring.clock.now().monotonic_ms);
        self.told.extend(written);
    }

    fn give_background(&self, job: background::Job) {
        self.wiring.background.push(job);
    }

    fn send(&mut self, to: ConnectionId, bytes: Vec<u8>) {
        if is_link(to) {
            self.wiring.links.deliver(to, bytes);
        } else if worker_of(to) == self.number {
            self.push(to, bytes);
        } else {
            self.give(&self.wiring.workers[worker_of(to)], Input::Send { to, bytes });
        }
    }

    fn push(&mut self, to: ConnectionId, bytes: Vec<u8>) {
        count(&self.wiring.counters.bytes_sent, bytes.len());
        self.sockets.push(to, bytes);
    }

    fn close(&mut self, id: ConnectionId) {
        if worker_of(id) != self.number {
            self.give(&self.wiring.workers[worker_of(id)], Input::Close(id));
        } else if is_link(id) {
            self.links.retain(|held| held.id != id);
            if let Some(link) = self.wiring.links.remove(id) {
                link.down("the node closed the connection");
                link.close();
                self.gone(id);
            }
        } else {
            self.sockets.close_when_sent(id);
        }
    }

    fn pause(&mut self, id: ConnectionId, on: bool) {
        if worker_of(id) != self.number {
            self.give(&self.wiring.workers[worker_of(id)], Input::Pause(id, on));
        } else if !is_link(id) {
            self.sockets.pause(id, on);
        } else if let Some(held) = self.links.iter_mut().find(|held| held.id == id) {
            held.pauses = if on { held.pauses + 1 } else { held.pauses.saturating_sub(1) };
            if held.pauses == 0 {
                self.wiring.bells[self.number].ring(id);
            }
        }
    }

    /// Tells the nodes of all workers about connections that ended in this turn.
    fn tell_ended(&mut self) {
        let ended = self.sockets.take_ended();
        if ended.is_empty() {
            return;
        }
        for id in ended {
            self.gone(id);
        }
        // What follows, a campaign perhaps, is not to wait for the next tick.
        self.flush();
        self.give_writes();
    }

    fn gone(&mut self, id: ConnectionId) {
        self.handle(Event::Closed(id));
        for (number, worker) in self.wiring.workers.iter().enumerate() {
            if number != self.number {
                self.give(worker, Input::Gone(id));
            }
        }
    }

    fn tell_drained(&mut self) {
        if self.drained == Drained::Node && self.sockets.is_sent() {
            self.drained = Drained::Told;
            self.wiring.life.add_drained();
        }
    }
}

fn count(counter: &AtomicU64, more: usize) {
    counter.fetch_add(more as u64, Ordering::Relaxed);
}

/// Gives a run of packets to the workers of their shards: to `here` in place, to others as copies.
fn route(
    number: usize,
    wiring: &Wiring,
    from: ConnectionId,
    bytes: &[u8],
    mut here: impl FnMut(&[u8]),
) {
    if wiring.workers.len() == 1 {
        return here(bytes);
    }
    for (to, run) in crate::wiring::runs(number, wiring.workers.len(), bytes) {
        match to {
            To::One(worker) if worker == number => here(run),
            To::One(worker) => wiring.cross(worker, from, run),
            To::All => {
                let others = (0..wiring.workers.len()).filter(|worker| *worker != number);
                others.for_each(|worker| wiring.cross(worker, from, run));
                here(run);
            }
        }
    }
}
