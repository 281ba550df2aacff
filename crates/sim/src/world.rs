//! The world: nodes, clients, connections and time, in one thread.
//!
//! It is the shell of the simulated nodes: it carries out their effects, each after a drawn delay,
//! keeps what order the contract asks for and no other, and takes the power away between any two
//! events or in the middle of a disk job. It decides nothing that a node should decide.
//!
//! * [`lines`]: clients and their connections;
//! * [`member`]: a node: its disks and tables, and the process that may run on them;
//! * [`effects`]: what a process wants done;
//! * `journal`: small writes of several logs, made together;
//! * [`opening`]: a shard is opened, and compared with what was; [`unsynced`]: what a power cut may
//!   have taken of it;
//! * [`network`]: what lies between nodes;
//! * [`faults`], [`disturbances`]: what goes wrong with nodes, and between them;
//! * [`operator`]: who has nodes join and leave;
//! * [`rot`], [`wounds`], [`repair`]: damage that is done, that is not mended yet, and that nodes
//!   look for and mend;
//! * `disks`: whether logs give back what nothing needs;
//! * [`shards`], [`replicas`]: what is kept of each shard to judge it, and whether all replicas
//!   came to the same.

mod disks;
pub mod disturbances;
pub mod effects;
pub mod faults;
mod journal;
pub mod lines;
pub mod member;
pub mod network;
pub mod opening;
pub mod operator;
pub mod repair;
pub mod replicas;
pub mod rot;
pub mod shards;
pub mod transfers;
pub mod unsynced;
pub mod wounds;

use crate::checkers::Excuses;
use crate::checkers::words::Words;
use crate::generator::Generator;
use crate::history::{History, Violation};
use crate::model::Model;
use crate::plan::Plan;
use crate::sabotage::Sabotage;
use crate::schedule::{Moment, Schedule};
use crate::tally::Tally;
use crate::trace::Trace;
use crate::workload::client::Client;
use faults::Fault;
use lines::{Line, Seat};
use member::{Inside, Member};
use naust_node::ConnectionId;
use naust_wire::read::{Level, Query, Read};
use naust_wire::{NodeId, Offset, ShardId};
use network::{Network, Towards};
use shards::Shard;
use std::collections::{BTreeMap, BTreeSet};
use wounds::Wound;

/// Virtual time within which everything that was begun must end once faults have ended, in
/// microseconds.
const HEALING_MICROS: u64 = 60_000_000;
/// As [`HEALING_MICROS`], when shards are damaged for good: they have only to be answered.
const DAMAGED_MICROS: u64 = 20_000_000;
/// Virtual time within which a node hears of all that it answered, in microseconds.
const NEWS_MICROS: u64 = 2_000_000;
/// Events of a part of a life; more means that something turns in circles.
const EVENTS_MAX: u64 = 3_000_000;

/// What can happen in the world.
#[allow(clippy::large_enum_variant)] // Each is made once and handled once.
pub enum Happening {
    /// A client may send something.
    Turn(usize),
    /// Packets arrive at a node, in one of its lives.
    Arrive {
        /// The node and its life.
        node: (usize, u64),
        /// The connection.
        from: ConnectionId,
        /// Whole packets.
        bytes: Vec<u8>,
    },
    /// Packets arrive at a client.
    Deliver {
        /// The connection.
        to: ConnectionId,
        /// Whole packets.
        bytes: Vec<u8>,
    },
    /// A connection ends.
    Hangup(ConnectionId),
    /// A node learns that a connection has ended.
    Gone {
        /// The node and its life.
        node: (usize, u64),
        /// The connection.
        connection: ConnectionId,
    },
    /// Something inside a node, in one of its lives.
    Inside {
        /// The node and its life.
        node: (usize, u64),
        /// What.
        inside: Inside,
    },
    /// A node's process is started.
    Start(usize),
    /// Something goes wrong.
    Fault(Fault),
    /// A process connects to a node.
    Dial {
        /// The node and its life.
        node: (usize, u64),
        /// To whom.
        to: NodeId,
    },
    /// Packets come out of a wire between nodes.
    Wired {
        /// The wire.
        wire: ConnectionId,
        /// Which way.
        towards: Towards,
        /// Whole packets.
        bytes: Vec<u8>,
    },
    /// What got stuck on a wire flows on.
    Flow {
        /// The wire.
        wire: ConnectionId,
        /// Which way.
        towards: Towards,
    },
    /// A wire breaks.
    Snap(ConnectionId),
    /// Whoever made a wire hears that it is gone.
    Unwired {
        /// The node and its life.
        node: (usize, u64),
        /// To whom it led.
        to: NodeId,
        /// Where that was.
        by: usize,
        /// The wire.
        wire: ConnectionId,
    },
    /// Whoever took a wire hears that it is gone.
    Unheld {
        /// The node and its life.
        node: (usize, u64),
        /// Where the other end was.
        by: usize,
        /// The wire.
        wire: ConnectionId,
    },
    /// Paths that were cut are whole again.
    Heal(Vec<disturbances::Path>),
    /// A path is not slow any more.
    Quick(disturbances::Path),
    /// A process that stood still goes on.
    Resume(usize),
    /// The operator looks at the cluster.
    Operate,
    /// A client asks itself whether it has waited for too long.
    Impatient(usize),
}

/// Everything there is.
pub struct World {
    pub(crate) plan: Plan,
    pub(crate) trace: Trace,
    pub(crate) violations: Vec<Violation>,
    pub(crate) sabotage: Option<Sabotage>,
    /// Faults that were drawn so far, and those that may happen.
    pub(crate) faults_drawn: u64,
    pub(crate) kept_faults: Option<BTreeSet<u64>>,
    schedule: Schedule<Happening>,
    chance: Generator,
    /// Draws what goes wrong and when, so that leaving a fault out moves the others little.
    misfortune: Generator,
    members: Vec<Member>,
    seats: Vec<Seat>,
    lines: BTreeMap<ConnectionId, Line>,
    connections: u64,
    /// Requests that were drawn so far.
    drawn: u64,
    /// Of those, what clients drew themselves and did not only repeat.
    sent: u64,
    history: History,
    shards: BTreeMap<ShardId, Shard>,
    excuses: Excuses,
    tally: Tally,
    /// Faults have ended.
    calm: bool,
    /// When they had.
    healed_from: Moment,
    network: Network,
    /// What replicas promised each other.
    words: Words,
    /// What shard 0 means so far.
    directory: Model,
    /// Damage that is not mended yet, and when that was looked at last.
    wounds: Vec<Wound>,
    looked_at_wounds: Moment,
    /// Logs that were damaged and are as whole as they can be.
    scars: BTreeSet<(usize, ShardId)>,
    /// Places of logs whose disk failed while they were mended.
    doubtful_mends: Vec<(usize, ShardId, Offset)>,
    /// Commits without an answer, and since when there has been none at all.
    commits_under_way: u64,
    without_commit: Option<Moment>,
}

impl World {
    /// A world as its plan wants it, before anything happens.
    #[must_use]
    pub fn new(plan: Plan, mut chance: Generator, trace: Trace) -> World {
        let slots = 0..plan.cluster.nodes;
        let members: Vec<Member> =
            slots.map(|slot| Member::new(slot, &mut chance, &plan)).collect();
        let seat = |client| Seat {
            client,
            line: None,
            waits_for_turn: true,
            pauses_until: Moment::default(),
            prefers: None,
            heard: Moment::default(),
        };
        let mut seats: Vec<Seat> = Vec::new();
        for number in 0..plan.work.clients {
            let namespace = (number + 1) % plan.work.namespaces;
            seats.push(seat(Client::new(chance.fork(), namespace)));
        }
        if members.len() > 1 {
            seats.push(seat(Client::operator(chance.fork())));
        }
        let is_cluster = members.len() > 1;
        let excuses = Excuses { restarts: is_cluster, elections: is_cluster, ..Excuses::default() };
        let sizes = [(members.len(), 1)].into();
        World {
            seats,
            plan,
            trace,
            violations: Vec::new(),
            sabotage: None,
            faults_drawn: 0,
            kept_faults: None,
            schedule: Schedule::default(),
            misfortune: chance.fork(),
            chance,
            members,
            lines: BTreeMap::new(),
            connections: 0,
            drawn: 0,
            sent: 0,
            history: History::default(),
            shards: BTreeMap::new(),
            excuses,
            tally: Tally { lives: 1, sizes, ..Tally::default() },
            calm: false,
            healed_from: Moment::default(),
            network: Network::default(),
            words: Words::default(),
            directory: Model::default(),
            wounds: Vec::new(),
            looked_at_wounds: Moment::default(),
            scars: BTreeSet::new(),
            doubtful_mends: Vec::new(),
            commits_under_way: 0,
            without_commit: None,
        }
    }

    /// Lives the whole life; what is wrong is in `violations` then.
    pub fn live(&mut self) {
        self.trace.note(Moment::default(), format_args!("{:?}", self.plan));
        if self.sabotage == Some(Sabotage::ForgetSync) {
            self.members.iter().for_each(|member| member.fuse.forget_syncs());
        }
        self.schedule.at(Moment::default(), Happening::Start(0));
        for slot in 1..self.members.len() {
            let after = self.chance.skewed(1, 500_000);
            self.schedule.after(after, Happening::Start(slot));
        }
        for seat in 0..self.seats.len() {
            self.schedule.at(Moment(seat as u64), Happening::Turn(seat));
        }
        if let Some(operator) = self.operator() {
            self.schedule.after(1, Happening::Operate);
            for seat in 0..=operator {
                self.schedule.after(1, Happening::Impatient(seat));
            }
        }
        self.schedule_faults();
        self.schedule_disturbances();
        let requests = self.plan.requests;
        let deadline = Moment(self.plan.ends_micros);
        let is_alone = self.members.len() == 1;
        self.run_until(deadline, |world| {
            is_alone && world.history.requests.len() as u64 >= requests
        });
        self.end_faults();
        self.settle("after the last fault");
        self.tally.healing_micros = self.schedule.now().0 - self.healed_from.0;
        for round in 0..self.members.len() {
            self.examine(round);
            self.settle("when everything was read back");
        }
        self.compare_replicas();
        self.look_at_disks();
        for slot in 0..self.members.len() {
            self.take_power(slot, "at the end");
        }
        self.settle("after the last power cut");
        self.examine(0);
        self.settle("when everything was read back again");
        self.look_for_leaks();
        self.compare_replicas();
        if self.violations.is_empty() {
            self.judge(self.excuses);
        }
    }

    /// What the life was like.
    #[must_use]
    pub fn tally(&self) -> Tally {
        Tally { micros: self.schedule.now().0, ..self.tally.clone() }
    }

    /// How long its busy part was, or has been so far.
    #[must_use]
    pub fn busy_micros(&self) -> u64 {
        if self.calm { self.healed_from.0 } else { self.schedule.now().0 }
    }

    fn run_until(&mut self, deadline: Moment, done: impl Fn(&World) -> bool) -> bool {
        let events = self.tally.events;
        while !done(self) {
            if self.schedule.now() > deadline || !self.violations.is_empty() {
                return false;
            }
            if self.tally.events - events > EVENTS_MAX {
                let what = format!("{EVENTS_MAX} events led nowhere");
                self.violations.push(Violation::new("liveness", what));
                return false;
            }
            let Some(happening) = self.schedule.pop() else { return false };
            self.tally.events += 1;
            self.happen(happening);
        }
        true
    }

    fn happen(&mut self, happening: Happening) {
        let Some(happening) = self.unless_paused(happening) else { return };
        match happening {
            Happening::Turn(seat) => self.turn(seat),
            Happening::Arrive { node, from, bytes } => self.arrived(node, from, &bytes),
            Happening::Deliver { to, bytes } => self.delivered(to, &bytes),
            Happening::Hangup(id) => self.hang_up(id),
            Happening::Gone { node, connection } => self.gone(node, connection),
            Happening::Inside { node, inside } => self.inside(node, inside),
            Happening::Start(node) => self.start(node),
            Happening::Fault(fault) => self.fault(fault),
            Happening::Dial { node, to } => self.dial(node, to),
            Happening::Wired { wire, towards, bytes } => self.wired(wire, towards, bytes),
            Happening::Flow { wire, towards } => self.flow(wire, towards),
            Happening::Snap(wire) => self.snap(wire),
            Happening::Unwired { node, to, by, wire } => self.unwired(node, to, by, wire),
            Happening::Unheld { node, by, wire } => self.unheld(node, by, wire),
            Happening::Heal(paths) => self.heal(&paths),
            Happening::Quick(path) => self.network.slow(path, false),
            Happening::Resume(slot) => self.resume(slot),
            Happening::Operate => self.operate(),
            Happening::Impatient(seat) => self.impatient(seat),
        }
    }

    /// What reaches a process that stands still waits there.
    fn unless_paused(&mut self, happening: Happening) -> Option<Happening> {
        let node = match &happening {
            Happening::Arrive { node, .. }
            | Happening::Gone { node, .. }
            | Happening::Inside { node, .. }
            | Happening::Dial { node, .. }
            | Happening::Unwired { node, .. }
            | Happening::Unheld { node, .. } => Some(*node),
            Happening::Wired { wire, towards, .. } | Happening::Flow { wire, towards } => {
                self.network.taker(*wire, *towards)
            }
            _ => None,
        };
        match node.and_then(|(slot, _)| self.members[slot].paused.as_mut()) {
            Some(waiting) => {
                waiting.push(happening);
                None
            }
            None => Some(happening),
        }
    }

    /// No faults any more: whatever was begun has to end.
    fn settle(&mut self, when: &str) {
        let bound = if self.excuses.damage { DAMAGED_MICROS } else { HEALING_MICROS };
        let deadline = self.schedule.now().after(bound);
        let settled = self.run_until(deadline, |world| {
            world.seats.iter().all(|seat| seat.client.is_idle() && seat.client.is_connected())
                && world.members.iter().all(|member| member.listens().is_some())
                && world.is_apart().is_none()
        });
        if settled || !self.violations.is_empty() || self.excuses.damage {
            return;
        }
        let busy = self.seats.iter().enumerate().filter(|(_, seat)| !seat.client.is_idle());
        let busy: Vec<_> = busy.map(|(seat, s)| (seat, s.client.under_way())).collect();
        let seats = self.seats.iter().enumerate();
        let alone: Vec<usize> =
            seats.filter(|(_, seat)| !seat.client.is_connected()).map(|(seat, _)| seat).collect();
        let members = self.members.iter().enumerate();
        let down: Vec<usize> =
            members.filter(|(_, m)| m.listens().is_none()).map(|(slot, _)| slot).collect();
        self.tell_replicas();
        let apart = self.is_apart().unwrap_or_else(|| "replicas are one".to_owned());
        let what = format!(
            "{when} not all came to its end; (client, requests): {busy:?}; without a connection: \
             {alone:?}; nodes that do not listen: {down:?}; {apart}"
        );
        self.violations.push(Violation::new("liveness", what));
    }

    /// When nobody waits for anything, nothing is kept for anybody.
    fn look_for_leaks(&mut self) {
        if self.excuses.damage {
            return;
        }
        // A node hears of its own answers a little later than its clients.
        let deadline = self.schedule.now().after(NEWS_MICROS);
        self.run_until(deadline, |_| false);
        for (slot, member) in self.members.iter().enumerate() {
            let requests = member.process.as_ref().map_or(0, |process| process.node.requests());
            if requests > 0 {
                let what = format!("node {slot} counts {requests} requests, and nobody waits");
                self.violations.push(Violation::new("leaks", what));
            }
        }
    }

    /// Has everything read back that can be read: the whole log, all rows now and then, all
    /// records, cursors and names. In each round by another node.
    fn examine(&mut self, round: usize) {
        let mut models: BTreeMap<ShardId, Model> = BTreeMap::new();
        for seat in 0..self.seats.len() {
            if Some(seat) == self.operator() {
                continue;
            }
            let Some(id) = self.seats[seat].client.shard() else { continue };
            let Some(shard) = self.shards.get(&id) else { continue };
            let model = models.entry(id).or_insert_with(|| shard.model().unwrap_or_default());
            let reads = everything(model, &mut self.chance);
            if self.members.len() > 1 {
                self.seats[seat].prefers = Some((seat + round) % self.members.len());
                if let Some(line) = self.seats[seat].line {
                    self.hang_up(line);
                }
            }
            self.seats[seat].client.examine(reads);
            self.wake(seat);
        }
    }
}

/// Reads of everything that there is.
fn everything(model: &Model, chance: &mut Generator) -> Vec<Read> {
    let query = |query| Read { level: Level::Linearizable, query };
    let mut reads = vec![
        query(Query::Describe { from: None, limit: 0 }),
        query(Query::Log { from: Offset::FIRST, max_bytes: 0, wait_ms: 0 }),
    ];
    let offsets: Vec<Offset> = model.verdicts.keys().copied().collect();
    for keyspace in model.keyspaces.keys() {
        let scan = |level| Read {
            level,
            query: Query::Scan {
                keyspace: keyspace.clone(),
                from: Vec::new(),
                to: None,
                reverse: false,
                limit: 0,
                max_bytes: 0,
            },
        };
        reads.push(scan(Level::Linearizable));
        for _ in 0..3 {
            reads.push(scan(Level::Exactly(*chance.pick(&offsets))));
        }
    }
    for (name, stream) in &model.streams {
        let (limit, max_bytes, wait_ms) = (0, 0, 0);
        let (stream_name, from) = (name.clone(), Offset::ZERO);
        reads.push(query(Query::Records { stream: stream_name, from, limit, max_bytes, wait_ms }));
        for cursor in stream.cursors.keys() {
            let (stream, cursor) = (name.clone(), cursor.clone());
            reads.push(query(Query::Cursor { stream, cursor }));
        }
    }
    reads
}
