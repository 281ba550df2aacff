//! The worker's core: connections, routing, the directory, and the shards that this worker owns.
//!
//! `handle` does only bookkeeping; what follows from a burst of events is done once, by
//! `flush`: all that was staged is proposed together, and one write of each touched shard goes
//! to disk.

#[cfg(test)]
mod alone;
mod asks;
mod closing;
mod cluster;
mod directory;
mod failed;
mod forwarded;
mod look;
mod packets;
mod repair;
mod scrub;

use crate::connections::Connections;
use crate::event::Progress;
use crate::peers::Peers;
use crate::replies;
use crate::shard::Shard;
use crate::views;
use crate::{ConnectionId, Effect, Event, Now};
use directory::Directory;
use forwarded::Forwarded;
pub use look::Look;
use naust_log::Fault;
use naust_wire::ask::Ask;
use naust_wire::control::Control;
use naust_wire::frame::Kind;
use naust_wire::limits::{
    SCRUB_BYTES_PER_S_DEFAULT, SCRUB_EVERY_MS_DEFAULT, TRANSFER_BYTES_PER_S_DEFAULT,
};
use naust_wire::peer::Said;
use naust_wire::planted::{self, Bug};
use naust_wire::reply::Failure;
use naust_wire::{NodeId, RequestId, ShardId};
use rustc_hash::FxHashMap;
use scrub::Scrubbing;
use std::collections::BTreeSet;

/// What a node is told about itself.
#[derive(Clone, Debug)]
pub struct Config {
    /// Its identity.
    pub node: NodeId,
    /// Its name, for people.
    pub name: String,
    /// Its native address, as others reach it.
    pub address: String,
    /// The release, as it is told to clients.
    pub version: String,
    /// What clients must say in their hello; `None`: anybody may ask.
    pub token: Option<String>,
    /// This worker, of `workers`, from 0. It owns the shards whose number divided by `workers`
    /// leaves it as the remainder.
    pub worker: u32,
    /// How many workers the node has, at least one.
    pub workers: u32,
    /// The cluster that it belongs to.
    pub cluster: u64,
    /// It made the cluster: what has no other place begins here.
    pub founder: bool,
    /// How fast it does what nobody waits for.
    pub pace: Pace,
}

/// How fast a worker does what nobody waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Bytes of logs that are read again a second, to find damage; zero: none.
    pub scrub_bytes_per_s: u64,
    /// Milliseconds from the beginning of one such walk over all logs to the next.
    pub scrub_every_ms: u64,
    /// Most bytes of a replica that are sent to another node a second while clients write to its
    /// shard, fewer when their commits take longer; zero: as many as go.
    pub transfer_bytes_per_s: u64,
}

impl Default for Pace {
    fn default() -> Pace {
        Pace {
            scrub_bytes_per_s: SCRUB_BYTES_PER_S_DEFAULT,
            scrub_every_ms: SCRUB_EVERY_MS_DEFAULT,
            transfer_bytes_per_s: TRANSFER_BYTES_PER_S_DEFAULT,
        }
    }
}

/// One worker of a node. See the crate's doc.
pub struct Node {
    config: Config,
    connections: Connections,
    directory: Directory,
    shards: FxHashMap<ShardId, Box<Shard>>,
    /// Deleted or failed, but the shell still works on something of them.
    leaving: FxHashMap<ShardId, Box<Shard>>,
    /// While it is [`Life::Flushing`]: the shards that write their views to disk.
    flushing: BTreeSet<ShardId>,
    touched: Vec<ShardId>,
    /// Those whose followers are to be told something soon.
    owing: Vec<ShardId>,
    timers: BTreeSet<(u64, ShardId)>,
    /// When what is written to logs has to be synced.
    syncs: BTreeSet<(u64, ShardId)>,
    /// Log bytes of all shards that are staged and not yet folded in.
    unapplied_bytes: u64,
    /// Bytes of replies since the last flush that list namespaces.
    listed_bytes: usize,
    life: Life,
    peers: Peers,
    forwarded: Forwarded,
    /// When to look again who is to have replicas.
    place_at_ms: u64,
    scrubbing: Scrubbing,
    /// Replicas for whose damage frames are being read.
    supplying: BTreeSet<(ShardId, NodeId)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Life {
    Serving,
    /// Nothing new is taken.
    Draining,
    /// Views are written to disk.
    Flushing,
    Drained,
}

impl Node {
    /// A worker that owns nothing yet; [`Node::start`] asks for what it needs.
    ///
    /// # Panics
    /// If the worker's number is not below the number of workers.
    #[must_use]
    pub fn new(config: Config) -> Node {
        assert!(config.worker < config.workers, "a worker is one of the workers");
        let hello = Said::Hello {
            cluster: config.cluster,
            name: config.name.clone(),
            address: config.address.clone(),
        };
        let ask = Ask::Hello {
            token: config.token.clone().unwrap_or_default(),
            client: config.name.clone(),
        };
        Node {
            peers: Peers::new(config.node, hello, &ask),
            forwarded: Forwarded::default(),
            place_at_ms: 0,
            scrubbing: Scrubbing::default(),
            supplying: BTreeSet::new(),
            config,
            connections: Connections::default(),
            directory: Directory::default(),
            shards: FxHashMap::default(),
            leaving: FxHashMap::default(),
            flushing: BTreeSet::new(),
            touched: Vec::new(),
            owing: Vec::new(),
            timers: BTreeSet::new(),
            syncs: BTreeSet::new(),
            unapplied_bytes: 0,
            listed_bytes: 0,
            life: Life::Serving,
        }
    }

    /// Asks for the directory's shard, if it is this worker's. To be called once, first.
    pub fn start(&mut self, effects: &mut Vec<Effect>) {
        if self.owns(ShardId::DIRECTORY) {
            let options = naust_wire::options::NamespaceOptions::default();
            let begin = self.begin(&[]);
            self.directory.opens(ShardId::DIRECTORY, options, begin, effects);
        }
    }

    /// Takes an event in. What follows comes with the next [`Node::flush`], but for some effects.
    pub fn handle(&mut self, now: Now, event: Event<'_>, effects: &mut Vec<Effect>) {
        match event {
            Event::Packets { from, bytes } => self.packets(now, from, bytes, effects),
            Event::Closed(from) => self.closed(from, effects),
            Event::Written { shard, written } => {
                self.on_log(shard, effects, |shard| shard.written(written, now));
            }
            Event::Extended { shard, extended } => {
                self.on_log(shard, effects, |shard| shard.extended(extended));
            }
            Event::Trimmed { shard, trimmed } => {
                if let Some(open) = self.shards.get_mut(&shard) {
                    open.look_at_trimmed(&trimmed, effects);
                }
                self.on_log(shard, effects, |shard| shard.trimmed(trimmed));
            }
            Event::Progress(progress) => self.progress(now, progress, effects),
            Event::Opened(opened) => self.opened(now, *opened, effects),
            Event::NotOpened { shard, failure, trouble } => {
                self.not_opened(now, shard, failure, trouble, effects);
            }
            Event::NotHere(shard) => self.not_here(shard, effects),
            Event::Link { node, is_up } => self.link(now, node, is_up, effects),
            Event::Replies { from, bytes } => {
                if self.peers.answered(from, now.monotonic_ms) {
                    self.meet(from);
                }
                self.replies(now, from, bytes, effects);
            }
            Event::Exported { .. } | Event::ExportedPart { .. } | Event::Imported { .. } => {
                self.transferred(event, effects);
            }
            Event::Fetched(fetched) => {
                if let Some(shard) = self.shards.get_mut(&fetched.shard) {
                    shard.fetched(fetched, &mut self.peers, effects);
                    Node::touch(&mut self.touched, shard);
                }
            }
            Event::Failed { shard, cause, failure } => {
                self.failed(now, shard, cause, failure, effects)
            }
            Event::Scrubbed { shard, scrub, seen } => {
                self.scrubbed(now, shard, scrub, seen, effects);
            }
            Event::Checked { shard, checked } => self.checked(now, shard, checked, effects),
            Event::Mended { shard, at, outcome } => {
                self.mended(now, shard, at, outcome, effects);
            }
            Event::Supplied(supplied) => self.supplied(now, &supplied, effects),
            Event::Met { shard, met } => self.met(now, shard, met, effects),
            Event::Answered { to, requests } => {
                self.connections.end(to, requests as usize, effects);
            }
            Event::Flushed(shard) => self.flushed(shard, effects),
            Event::Directory(change) => self.directory_changed(now, change, effects),
            Event::DirectoryAsked(ask) => self.directory_asked(now, ask),
            Event::ShardClosed(shard) => self.shard_closed(now, shard),
            Event::Tick => self.tick(now, effects),
            Event::Drain => self.drain(now, effects),
        }
    }

    /// Does what follows from the events since the last time: to be called after each burst.
    pub fn flush(&mut self, now: Now, effects: &mut Vec<Effect>) {
        self.listed_bytes = 0;
        for id in self.owing.drain(..) {
            if let Some(shard) = self.shards.get_mut(&id) {
                Node::touch(&mut self.touched, shard);
            }
        }
        self.touch_due_for_sync(now);
        let mut touched = std::mem::take(&mut self.touched);
        let mut asks = Vec::new();
        for id in touched.drain(..) {
            let Some(shard) = self.shards.get_mut(&id) else { continue };
            shard.is_touched = false;
            shard.drive(now, &mut self.peers, effects);
            shard.count_bytes(&mut self.unapplied_bytes);
            for id in shard.answered.drain(..) {
                self.connections.end(id, 1, effects);
            }
            asks.append(&mut shard.asks);
            if shard.owes_notices() {
                self.owing.push(id);
            }
            let next = shard.next_tick_ms();
            if next != shard.timer_ms {
                shard.timer_ms.map(|at| self.timers.remove(&(at, id)));
                next.map(|at| self.timers.insert((at, id)));
                shard.timer_ms = next;
            }
            shard.set_sync_timer(&mut self.syncs);
        }
        self.touched = touched;
        for asked in asks {
            self.answer_asked(now, asked, effects);
        }
        self.peers.flush(now.monotonic_ms, effects);
        if self.life == Life::Draining {
            self.give_up_alone(now, effects);
            self.flush_views_when_settled(effects);
        }
    }

    /// Whether something waits to be said that only a millisecond may delay: then the next
    /// [`flush`](Node::flush) is due in one, whether there is an event or not.
    #[must_use]
    pub fn is_flush_due(&self) -> bool {
        !self.owing.is_empty()
    }

    /// When the next [`flush`](Node::flush) is due at the latest, by the monotonic clock, because
    /// something that is written has to be synced.
    #[must_use]
    pub fn sync_due_ms(&self) -> Option<u64> {
        self.syncs.first().map(|(at, _)| *at)
    }

    fn touch_due_for_sync(&mut self, now: Now) {
        while let Some((at, id)) = self.syncs.first().copied()
            && at <= now.monotonic_ms
        {
            self.syncs.pop_first();
            if let Some(shard) = self.shards.get_mut(&id) {
                shard.forget_sync_timer();
                Node::touch(&mut self.touched, shard);
            }
        }
    }

    /// Whether this worker owns a shard.
    #[must_use]
    pub fn owns(&self, shard: ShardId) -> bool {
        shard.0 % self.config.workers == self.config.worker
    }

    /// Requests that were admitted and not yet answered.
    #[must_use]
    pub fn requests(&self) -> usize {
        self.connections.requests()
    }

    fn touch(touched: &mut Vec<ShardId>, shard: &mut Shard) {
        if !shard.is_touched {
            shard.is_touched = true;
            touched.push(shard.id);
        }
    }

    fn on_log(
        &mut self,
        id: ShardId,
        effects: &mut Vec<Effect>,
        act: impl FnOnce(&mut Shard) -> Result<(), Fault>,
    ) {
        if let Some(shard) = self.shards.get_mut(&id) {
            Node::touch(&mut self.touched, shard);
            if let Err(fault) = act(shard) {
                effects.push(Effect::Stop(format!("the log of shard {id}: {fault}")));
            }
        } else if let Some(shard) = self.leaving.get_mut(&id) {
            // Its log goes away anyway; whatever is wrong with it harms nobody.
            drop(act(shard));
            self.remove_when_unused(id, effects);
        }
    }

    fn progress(&mut self, now: Now, progress: Progress, effects: &mut Vec<Effect>) {
        let id = progress.shard;
        let leaves = self.leaving.contains_key(&id);
        let shards = if leaves { &mut self.leaving } else { &mut self.shards };
        let Some(shard) = shards.get_mut(&id) else { return };
        let floors = progress.floors.clone().filter(|_| !leaves && !progress.closed);
        let ends = progress.closed && !shard.has_ended();
        let (mut last, mut count) = (None, 0);
        shard.progress(progress, now, |waiter| {
            if last == Some(waiter.connection) {
                count += 1;
            } else {
                if let Some(id) = last.replace(waiter.connection) {
                    self.connections.end(id, count, effects);
                }
                count = 1;
            }
        });
        if let Some(id) = last {
            self.connections.end(id, count, effects);
        }
        if !leaves {
            shard.count_bytes(&mut self.unapplied_bytes);
        }
        if !shard.held.is_empty() && shard.has_caught_up() {
            for id in std::mem::take(&mut shard.held) {
                self.connections.let_go(id, effects);
            }
        }
        if leaves {
            return self.remove_when_unused(id, effects);
        }
        Node::touch(&mut self.touched, shard);
        if ends {
            shard.end_polls();
            effects.push(Effect::Views { shard: id, job: views::Job::EndPolls });
            effects.push(Effect::ShardClosed(id));
        }
        if let Some(floors) = floors {
            self.stage_floors(now, id, &floors);
        }
    }

    /// A leader's own entry: what counts as absent from now on.
    fn stage_floors(&mut self, now: Now, id: ShardId, body: &[u8]) {
        debug_assert!(matches!(Control::decode(body), Ok(Control::Floors(_))));
        let Some(shard) = self.shards.get_mut(&id) else { return };
        // A shard that can't take it now is asked again later.
        if shard.admit().is_ok() {
            shard.stage(Kind::Control, body, views::Waiter::NOBODY, now);
        }
    }

    fn closed(&mut self, from: ConnectionId, effects: &mut Vec<Effect>) {
        if let Some(node) = self.peers.of(from) {
            self.peers.closed(from);
            self.lost(node);
        }
        if self.connections.is_busy(from) {
            let forgotten = self.shards.values_mut().map(|shard| shard.waiting.forget(from));
            let forgotten = forgotten.sum::<usize>()
                + self.directory.forget(from)
                + self.directory.closing.forget(from)
                + self.forwarded.forget(from);
            let forgotten = if planted::has(Bug::CountGone) { 0 } else { forgotten };
            self.connections.end(from, forgotten, effects);
            let (shard, job) = (ShardId::DIRECTORY, views::Job::Closed(from));
            effects.push(Effect::Views { shard, job });
        }
        for shard in self.shards.values_mut().filter(|shard| !shard.held.is_empty()) {
            shard.held.remove(&from);
        }
        self.connections.remove(from);
    }

    fn tick(&mut self, now: Now, effects: &mut Vec<Effect>) {
        self.open_again(now, effects);
        self.keep_transfers(now);
        self.tick_peers(now, effects);
        self.tick_repairs(now, effects);
        self.tick_scrub(now, effects);
        self.give_up_closing(now, effects);
        while let Some((at, id)) = self.timers.first().copied()
            && at <= now.monotonic_ms
        {
            self.timers.pop_first();
            let Some(shard) = self.shards.get_mut(&id) else { continue };
            shard.timer_ms = None;
            shard.tick(now, effects);
            Node::touch(&mut self.touched, shard);
        }
    }

    fn drain(&mut self, now: Now, effects: &mut Vec<Effect>) {
        if self.life != Life::Serving {
            return;
        }
        self.life = Life::Draining;
        self.hand_over_all(now);
        self.stop_closing(effects);
        for shard in self.shards.values_mut() {
            shard.end_polls();
            shard.stop_waiting_for_syncs();
            Node::touch(&mut self.touched, shard);
            effects.push(Effect::Views { shard: shard.id, job: views::Job::EndPolls });
        }
    }

    /// Whether it ends, and nobody waits for it.
    fn has_answered_all(&self) -> bool {
        self.life != Life::Serving && self.connections.requests() == 0
    }

    fn flush_views_when_settled(&mut self, effects: &mut Vec<Effect>) {
        let settled = self.connections.requests() == 0
            && self.leaving.is_empty()
            && !self.directory.has_waiting()
            && self.shards.values().all(|shard| shard.is_settled());
        if !settled {
            return;
        }
        self.life = Life::Flushing;
        for shard in self.shards.keys() {
            self.flushing.insert(*shard);
            effects.push(Effect::Views { shard: *shard, job: views::Job::Flush });
        }
        self.end_when_flushed(effects);
    }

    fn flushed(&mut self, shard: ShardId, effects: &mut Vec<Effect>) {
        self.flushing.remove(&shard);
        self.end_when_flushed(effects);
    }

    fn end_when_flushed(&mut self, effects: &mut Vec<Effect>) {
        if self.life == Life::Flushing && self.flushing.is_empty() {
            self.life = Life::Drained;
            effects.push(Effect::Drained);
        }
    }

    fn fail(
        &self,
        to: ConnectionId,
        request: RequestId,
        shard: ShardId,
        failure: Failure,
        effects: &mut Vec<Effect>,
    ) {
        replies::fail(to, request, shard, failure, effects);
    }
}
