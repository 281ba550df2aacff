//! A node of the world: its disks and tables, which last, and the process that may run on them,
//! which does not.

use super::journal;
use super::network::{self, Link};
use super::transfers::{Copied, Transfers};
use super::unsynced::{Remains, Syncs};
use super::{Happening, World};
use crate::fuse::Fuse;
use crate::generator::Generator;
use crate::history::Violation;
use crate::plan::Plan;
use crate::schedule::Moment;
use crate::tables::{SimDone, SimJob, SimReader, SimTables};
use crate::weather::Sky;
use naust_log::Journal;
use naust_log::sim::SimDisk;
use naust_node::answer::Readers;
use naust_node::event::DirectoryChange;
use naust_node::transfer::Adopt;
use naust_node::views::{self, Left, Views};
use naust_node::{Config, ConnectionId, Effect, Event, Node, Now, Pace, TICK_MS, answer, fetch};
use naust_wire::limits::REQUESTS_MAX;
use naust_wire::options::NamespaceOptions;
use naust_wire::{NodeId, Offset, ShardId};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Milliseconds of the wall clock when the world begins.
const WALL_MS: u64 = 1_800_000_000_000;
/// How far the wall clock may jump, in milliseconds: half a day.
pub(super) const WALL_OFF_MS_MAX: u64 = 43_200_000;
/// The name of the cluster that all nodes belong to.
pub(super) const CLUSTER: u64 = 77;

/// What happens inside a node: jobs that run and news that reach its cores.
#[allow(clippy::large_enum_variant)] // Each is made once and handled once.
pub enum Inside {
    /// Time passed.
    Tick,
    /// The burst of events is over.
    Flush,
    /// What waited for more to be said with it.
    FlushLate,
    /// A disk thread writes.
    Write(ShardId, naust_log::Write),
    /// A disk thread writes what was queued for the journal.
    Together,
    /// A background thread makes the journal, or room in it.
    Chore(naust_log::journal::Chore),
    /// A background thread zero-fills.
    Extend(ShardId, naust_log::Extend),
    /// A background thread trims.
    Trim(ShardId, naust_log::Trim),
    /// A background thread opens a shard, or makes it.
    Open(ShardId, NamespaceOptions, Option<Vec<u8>>),
    /// The views thread does a job.
    Views(ShardId, views::Job),
    /// The views forget a shard that failed.
    Shut(ShardId),
    /// The views close a shard; then its directory goes.
    Remove(ShardId),
    /// A background thread flushes or compacts.
    Tables(ShardId, SimJob),
    /// That ended.
    Done(ShardId, SimDone),
    /// A reads thread fetches an answer.
    Read(ShardId, answer::Job),
    /// A reads thread reads frames for another replica.
    Fetch(ShardId, fetch::Job),
    /// A reads thread does a step of a transfer.
    Transfer(Box<Effect>),
    /// A background thread reads a part of a log again.
    Scrub(ShardId, Box<naust_log::Scrub>, u64),
    /// A background thread reads a part of the tables again.
    Check(ShardId, u64, u64),
    /// A background thread writes another replica's frames over a damaged place.
    Mend(ShardId, naust_log::Mend),
    /// A reads thread reads frames for another replica's damaged place.
    Supply(ShardId, naust_node::repair::Supply),
    /// The views close a replica, and its log is folded into new tables.
    Refold(ShardId, NamespaceOptions),
    /// The views close a replica, and a copy takes its place.
    Adopt(ShardId, NamespaceOptions, Box<Adopt>),
    /// It should have finished long ago.
    Hung,
    /// The worker hears of something.
    Tell(Box<Event<'static>>),
}

/// A node.
pub struct Member {
    /// Its identity, made with its data directory.
    pub id: NodeId,
    /// How often there was a new one in this place.
    pub births: u64,
    /// It made the cluster.
    pub founder: bool,
    /// It is to leave the cluster.
    pub leaves: bool,
    /// By how many millionths its clock is fast.
    pub drift_ppm: i64,
    /// It stands still; this waits until it goes on.
    pub paused: Option<Vec<Happening>>,
    /// Up to where it gave frames of its logs to its views: these can never be gone.
    pub handed: BTreeMap<ShardId, Offset>,
    /// What must be left of that of shards that acknowledge before they sync.
    pub left: Remains,
    /// Shards that it removed with their namespaces.
    pub removed: BTreeSet<ShardId>,
    /// Its disks.
    pub disks: BTreeMap<ShardId, SimDisk>,
    /// The disk of its journal.
    pub journal: SimDisk,
    /// Its tables.
    pub tables: BTreeMap<ShardId, SimTables>,
    /// What it has copied of replicas of others.
    pub copied: Copied,
    /// Breaks its disks in the middle of a job.
    pub fuse: Arc<Fuse>,
    /// Slows its disks down and makes them fail.
    pub sky: Sky,
    /// A disk refused a block of a log: what is to be written into a part of it fails.
    pub refuses: bool,
    /// What runs.
    pub process: Option<Process>,
    /// The next disk job is its last: the fuse is lit with so many operations.
    pub doomed: Option<u64>,
    /// How often it could not go on.
    pub stops: u64,
    /// Milliseconds by which its wall clock is off.
    pub wall_off_ms: i64,
    lives: u64,
}

/// A process: the cores of a node and the queues between them.
pub struct Process {
    /// Which of the node's lives it is.
    pub life: u64,
    pub(super) started: Moment,
    /// It answered something of a shard.
    pub(super) answered: bool,
    pub(super) draining: bool,
    /// Those to other nodes that it wants to have.
    pub(super) links: BTreeMap<NodeId, Link>,
    pub(super) node: Node,
    pub(super) views: Views<SimTables>,
    pub(super) readers: BTreeMap<ShardId, Readers<SimReader>>,
    /// Shards whose frames could not be read when they were given to the views: these begin anew.
    pub(super) unread: BTreeSet<ShardId>,
    pub(super) effects: Vec<Effect>,
    pub(super) outputs: Vec<views::Output<SimTables>>,
    pub(super) flush_due: bool,
    /// What only a millisecond may delay is said then.
    pub(super) late_due: bool,
    /// When the queue of the views thread is.
    pub(super) views_free: Moment,
    /// When the last news of the views thread reach the worker.
    pub(super) news_from_views: Moment,
    pub(super) transfers: Transfers,
    pub(super) syncs: Syncs,
    /// For small writes of several logs.
    pub(super) journal: Arc<Journal>,
    /// Those that were queued for it.
    pub(super) together: Vec<(ShardId, naust_log::Write)>,
}

impl Member {
    /// A node with an empty data directory, in a slot.
    #[must_use]
    pub fn new(slot: usize, chance: &mut Generator, plan: &Plan) -> Member {
        let slow_nanos = plan.faults.disk_micros * 100_000;
        let sky = Sky::new(chance.fork(), plan.faults.slow_in_a_million, slow_nanos);
        let is_one_of_many = plan.cluster.nodes > 1;
        let id = if is_one_of_many { chance.between(1, 1 << 40) } else { 1 };
        let drift = plan.cluster.drift_ppm;
        let drift = if drift > 0 { chance.between(0, 2 * drift) as i64 - drift as i64 } else { 0 };
        Member {
            id: NodeId(id),
            births: 0,
            founder: slot == 0,
            leaves: false,
            drift_ppm: drift,
            paused: None,
            handed: BTreeMap::new(),
            left: Remains::default(),
            removed: BTreeSet::new(),
            disks: BTreeMap::new(),
            journal: journal::disk(&sky),
            tables: BTreeMap::new(),
            copied: Copied::new(),
            fuse: Arc::default(),
            sky,
            refuses: false,
            process: None,
            doomed: None,
            stops: 0,
            wall_off_ms: 0,
            lives: 0,
        }
    }

    /// Its name, as others know it.
    #[must_use]
    pub fn name(&self, slot: usize) -> String {
        format!("n{slot}-{}", self.births)
    }

    /// The life in which it takes connections, if it does.
    #[must_use]
    pub fn listens(&self) -> Option<u64> {
        self.process.as_ref().filter(|process| !process.draining).map(|process| process.life)
    }

    fn config(&self, slot: usize, plan: &Plan) -> Config {
        let mut pace = Pace::default();
        // Nodes look for damage in time wherever there is some: a day is longer than a life.
        if plan.cluster.rot_micros > 0 || plan.besides.old_footer_micros > 0 {
            pace.scrub_every_ms = plan.cluster.scrub_every_ms;
        }
        Config {
            node: self.id,
            name: self.name(slot),
            address: network::address(slot),
            version: "simulated".to_owned(),
            token: None,
            worker: 0,
            workers: 1,
            cluster: CLUSTER,
            founder: self.founder,
            pace,
        }
    }

    pub(super) fn now(&self, now: Moment) -> Now {
        let started = self.process.as_ref().map_or(now, |process| process.started);
        let wall_ms = (WALL_MS + now.millis()).saturating_add_signed(self.wall_off_ms);
        // The monotonic clock has another zero in each life.
        let elapsed_ms = match self.drift_ppm {
            0 => now.millis() - started.millis(),
            ppm => (now.0 - started.0) * 1_000_000u64.saturating_add_signed(ppm) / 1_000_000_000,
        };
        Now { monotonic_ms: 1000 * self.lives + elapsed_ms, wall_ms }
    }
}

impl World {
    /// A process begins.
    pub(super) fn start(&mut self, node: usize) {
        let now = self.schedule.now();
        let member = &mut self.members[node];
        if member.process.is_some() {
            return;
        }
        // What the journal holds is written into logs again, for which a start needs space.
        member.disks.values().for_each(|disk| disk.set_copies(false));
        member.lives += 1;
        let life = member.lives;
        self.trace.note(now, format_args!("node {node} starts, life {life}"));
        let mut process = Process {
            life,
            started: now,
            answered: false,
            draining: false,
            links: BTreeMap::new(),
            node: Node::new(member.config(node, &self.plan)),
            views: Views::new(),
            readers: BTreeMap::new(),
            unread: BTreeSet::new(),
            effects: Vec::new(),
            outputs: Vec::new(),
            flush_due: false,
            late_due: false,
            views_free: now,
            news_from_views: now,
            transfers: Transfers::new(now),
            syncs: Syncs::default(),
            journal: journal::none(&member.journal),
            together: Vec::new(),
        };
        process.node.start(&mut process.effects);
        member.process = Some(process);
        self.tally.starts += 1;
        if !self.replay(node) {
            return;
        }
        self.carry_out(node);
        self.schedule
            .after(TICK_MS * 1000, Happening::Inside { node: (node, life), inside: Inside::Tick });
    }

    /// The process of a node, if it is still in that life.
    pub(super) fn process(&mut self, node: (usize, u64)) -> Option<&mut Process> {
        let process = self.members[node.0].process.as_mut();
        process.filter(|process| process.life == node.1)
    }

    /// The worker of a node handles an event.
    pub(super) fn handle(&mut self, node: (usize, u64), event: Event<'_>) {
        let now = self.schedule.now();
        let member = &mut self.members[node.0];
        let time = member.now(now);
        let Some(process) = member.process.as_mut().filter(|p| p.life == node.1) else { return };
        process.node.handle(time, event, &mut process.effects);
        let requests = process.node.requests();
        if requests > REQUESTS_MAX {
            let what = format!("node {} has {requests} requests under way", node.0);
            self.violations.push(Violation::new("limits", what));
        }
        self.tally.under_way = self.tally.under_way.max(requests as u64);
        if !process.flush_due {
            process.flush_due = true;
            let pause = if self.chance.coin() { 0 } else { self.chance.skewed(0, 100) };
            let inside = Inside::Flush;
            self.schedule.after(pause, Happening::Inside { node, inside });
        }
        self.carry_out(node.0);
    }

    /// Packets reach a node.
    pub(super) fn arrived(&mut self, node: (usize, u64), from: ConnectionId, bytes: &[u8]) {
        if self.lines.contains_key(&from) {
            self.handle(node, Event::Packets { from, bytes });
        }
    }

    /// A node learns that a connection is gone.
    pub(super) fn gone(&mut self, node: (usize, u64), connection: ConnectionId) {
        self.handle(node, Event::Closed(connection));
    }

    /// Something happens inside a node.
    pub(super) fn inside(&mut self, node: (usize, u64), inside: Inside) {
        if self.process(node).is_none() {
            return; // It belonged to a life that has ended.
        }
        match inside {
            Inside::Tick => self.tick(node),
            Inside::Flush => self.flush(node, false),
            Inside::FlushLate => self.flush(node, true),
            Inside::Hung => self.hung(node.0),
            Inside::Tell(event) => {
                self.note_event(node, &event);
                self.handle(node, *event);
            }
            Inside::Write(shard, write) => self.write(node, shard, write),
            Inside::Together => self.write_together(node),
            Inside::Chore(chore) => self.chore(node, chore),
            Inside::Extend(shard, extend) => self.extend(node, shard, extend),
            Inside::Trim(shard, trim) => self.trim(node, shard, trim),
            Inside::Open(shard, options, begin) => {
                self.open(node, shard, options, begin.as_deref());
            }
            Inside::Views(shard, job) => {
                let here = self.chance.coin();
                self.views(node, |views, time, outputs| {
                    let job = match here {
                        true => views.fold_here(time, shard, job, outputs),
                        false => Err(job),
                    };
                    match job {
                        Ok(Left::Nothing) => {}
                        Ok(Left::ToMaintain) => views.maintain(time, shard, outputs),
                        Err(job) => views.handle(time, shard, job, outputs),
                    }
                });
            }
            Inside::Shut(shard) => self.views(node, |views, _, _| views.shut(shard)),
            Inside::Remove(shard) => self.remove(node, shard),
            Inside::Tables(shard, job) => self.run_tables(node, shard, job),
            Inside::Done(shard, done) => self.views(node, |views, time, outputs| {
                views.done(time, shard, done, outputs);
            }),
            Inside::Read(shard, job) => self.read(node, shard, &job),
            Inside::Fetch(shard, job) => self.fetch(node, shard, &job),
            Inside::Transfer(effect) => self.transfer_step(node, *effect),
            Inside::Scrub(shard, scrub, bytes) => self.scrub(node, shard, *scrub, bytes),
            Inside::Check(shard, from, bytes) => self.check(node, shard, from, bytes),
            Inside::Mend(shard, mend) => self.mend(node, shard, mend),
            Inside::Supply(shard, job) => self.supply(node, shard, &job),
            Inside::Refold(shard, options) => self.refold(node, shard, options),
            Inside::Adopt(shard, options, adopt) => self.adopt(node, shard, options, &adopt),
        }
    }

    fn tick(&mut self, node: (usize, u64)) {
        self.handle(node, Event::Tick);
        self.views(node, |views, time, outputs| views.tick(time, outputs));
        // Ticks run late on a loaded machine.
        let late = self.chance.skewed(0, 50_000);
        let inside = Inside::Tick;
        self.schedule.after(TICK_MS * 1000 + late, Happening::Inside { node, inside });
    }

    fn flush(&mut self, node: (usize, u64), late: bool) {
        let now = self.schedule.now();
        let member = &mut self.members[node.0];
        let time = member.now(now);
        let process = member.process.as_mut().expect("it was just seen");
        match late {
            true => process.late_due = false,
            false => process.flush_due = false,
        }
        process.syncs.flushes();
        process.node.flush(time, &mut process.effects);
        if process.node.is_flush_due() && !process.late_due {
            process.late_due = true;
            let inside = Inside::FlushLate;
            self.schedule.after(1000, Happening::Inside { node, inside });
        }
        if let Some(due_ms) = process.new_sync_due_ms() {
            let wait_ms = due_ms.saturating_sub(time.monotonic_ms);
            let inside = Inside::FlushLate;
            self.schedule.after(wait_ms * 1000, Happening::Inside { node, inside });
        }
        self.carry_out(node.0);
    }

    /// The views thread of a node does something.
    pub(super) fn views(
        &mut self,
        node: (usize, u64),
        act: impl FnOnce(&mut Views<SimTables>, Now, &mut Vec<views::Output<SimTables>>),
    ) {
        let now = self.schedule.now();
        let member = &mut self.members[node.0];
        let time = member.now(now);
        let Some(process) = member.process.as_mut().filter(|p| p.life == node.1) else { return };
        act(&mut process.views, time, &mut process.outputs);
        self.carry_out_views(node.0);
    }

    fn note_event(&mut self, node: (usize, u64), event: &Event<'_>) {
        let now = self.schedule.now();
        let (what, shard) = match event {
            Event::Written { shard, .. } => {
                if let Some(process) = self.process(node) {
                    process.syncs.ended(*shard);
                }
                ("written", *shard)
            }
            Event::Extended { shard, .. } => ("extended", *shard),
            Event::Trimmed { shard, .. } => ("trimmed", *shard),
            Event::Opened(opened) => ("opened", opened.shard),
            Event::NotOpened { shard, failure, .. } => {
                let what = format!("node {} can't open {shard}: {}", node.0, failure.detail);
                self.trace.note(now, format_args!("{what}"));
                return;
            }
            Event::Progress(progress) => {
                let (shard, applied) = (progress.shard, progress.applied);
                let needs = progress.needs.is_some();
                self.trace.note(now, format_args!("views of {shard} at {applied} needs {needs}"));
                return;
            }
            Event::Directory(DirectoryChange::Created { name, shard, .. }) => {
                self.trace.note(now, format_args!("namespace {name:?} is shard {shard}"));
                return;
            }
            _ => return,
        };
        self.trace.note(now, format_args!("node {} shard {shard}: {what}", node.0));
    }

    /// Something that may never happen inside a node, or at least not without a fault.
    pub(super) fn broken(&mut self, what: String) {
        self.violations.push(Violation::new("node", what));
    }
}
