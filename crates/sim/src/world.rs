//! The world: nodes, clients, connections and time, in one thread.
//!
//! It is the shell of the simulated nodes: it carries out their effects, each after a drawn delay,
//! keeps what order the contract asks for and no other, and takes the power away between any two
//! events or in the middle of a disk job. It decides nothing that a node should decide.
//!
//! * [`lines`]: clients and their connections;
//! * [`member`]: a node: its disks and tables, and the process that may run on them;
//! * [`effects`]: what a process wants done;
//! * [`faults`]: what goes wrong;
//! * [`shards`]: what is kept of each shard to judge it.

pub mod effects;
pub mod faults;
pub mod lines;
pub mod member;
pub mod shards;

use crate::checkers::Excuses;
use crate::generator::Generator;
use crate::history::{History, Violation};
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
use naust_wire::{Offset, ShardId};
use shards::Shard;
use std::collections::BTreeMap;

/// Longest virtual time of the busy part of a life, in microseconds.
const BUSY_MICROS: u64 = 120_000_000;
/// Virtual time within which everything that was begun must end once faults have ended, in
/// microseconds.
const HEALING_MICROS: u64 = 60_000_000;
/// As [`HEALING_MICROS`], when shards are damaged for good: they have only to be answered.
const DAMAGED_MICROS: u64 = 20_000_000;
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
}

/// Everything there is.
pub struct World {
    pub(crate) plan: Plan,
    pub(crate) trace: Trace,
    pub(crate) violations: Vec<Violation>,
    pub(crate) sabotage: Option<Sabotage>,
    schedule: Schedule<Happening>,
    chance: Generator,
    members: Vec<Member>,
    seats: Vec<Seat>,
    lines: BTreeMap<ConnectionId, Line>,
    connections: u64,
    /// Requests that were drawn so far.
    drawn: u64,
    history: History,
    shards: BTreeMap<ShardId, Shard>,
    excuses: Excuses,
    tally: Tally,
    /// Faults have ended.
    calm: bool,
}

impl World {
    /// A world as its plan wants it, before anything happens.
    #[must_use]
    pub fn new(plan: Plan, mut chance: Generator, trace: Trace) -> World {
        let members = vec![Member::new(&mut chance, &plan)];
        let seats = (0..plan.work.clients).map(|seat| {
            let namespace = (seat + 1) % plan.work.namespaces;
            Seat {
                client: Client::new(chance.fork(), namespace),
                line: None,
                waits_for_turn: true,
                pauses_until: Moment::default(),
            }
        });
        World {
            seats: seats.collect(),
            plan,
            trace,
            violations: Vec::new(),
            sabotage: None,
            schedule: Schedule::default(),
            chance,
            members,
            lines: BTreeMap::new(),
            connections: 0,
            drawn: 0,
            history: History::default(),
            shards: BTreeMap::new(),
            excuses: Excuses::default(),
            tally: Tally { lives: 1, ..Tally::default() },
            calm: false,
        }
    }

    /// Lives the whole life; what is wrong is in `violations` then.
    pub fn live(&mut self) {
        self.trace.note(Moment::default(), format_args!("{:?}", self.plan));
        if self.sabotage == Some(Sabotage::ForgetSync) {
            self.members.iter().for_each(|member| member.fuse.forget_syncs());
        }
        self.schedule.at(Moment::default(), Happening::Start(0));
        for seat in 0..self.seats.len() {
            self.schedule.at(Moment(seat as u64), Happening::Turn(seat));
        }
        self.schedule_faults();
        let requests = self.plan.requests;
        let deadline = Moment(BUSY_MICROS);
        self.run_until(deadline, |world| world.history.requests.len() as u64 >= requests);
        self.end_faults();
        self.settle("after the last fault");
        self.examine();
        self.settle("when everything was read back");
        self.take_power(0, "at the end");
        self.settle("after the last power cut");
        self.examine();
        self.settle("when everything was read back again");
        if self.violations.is_empty() {
            self.judge(self.excuses);
        }
    }

    /// What the life was like.
    #[must_use]
    pub fn tally(&self) -> Tally {
        Tally { micros: self.schedule.now().0, ..self.tally.clone() }
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
        match happening {
            Happening::Turn(seat) => self.turn(seat),
            Happening::Arrive { node, from, bytes } => self.arrived(node, from, &bytes),
            Happening::Deliver { to, bytes } => self.delivered(to, &bytes),
            Happening::Hangup(id) => self.hang_up(id),
            Happening::Gone { node, connection } => self.gone(node, connection),
            Happening::Inside { node, inside } => self.inside(node, inside),
            Happening::Start(node) => self.start(node),
            Happening::Fault(fault) => self.fault(fault),
        }
    }

    /// No faults any more: whatever was begun has to end.
    fn settle(&mut self, when: &str) {
        let bound = if self.excuses.damage { DAMAGED_MICROS } else { HEALING_MICROS };
        let deadline = self.schedule.now().after(bound);
        let settled = self.run_until(deadline, |world| {
            world.seats.iter().all(|seat| seat.client.is_idle() && seat.client.is_connected())
                && world.members.iter().all(|member| member.listens().is_some())
        });
        if settled || !self.violations.is_empty() || self.excuses.damage {
            return;
        }
        let busy = self.seats.iter().enumerate().filter(|(_, seat)| !seat.client.is_idle());
        let busy: Vec<_> = busy.map(|(seat, s)| (seat, s.client.under_way())).collect();
        let what = format!("{when} not all came to its end; (client, requests): {busy:?}");
        self.violations.push(Violation::new("liveness", what));
    }

    /// Has everything read back that can be read: the whole log, all rows now and then, all
    /// records, cursors and names.
    fn examine(&mut self) {
        for seat in 0..self.seats.len() {
            let Some(id) = self.seats[seat].client.shard() else { continue };
            let Some(shard) = self.shards.get(&id) else { continue };
            let model = shard.model().unwrap_or_default();
            let query = |query| Read { level: Level::Linearizable, query };
            let mut reads = vec![
                query(Query::Describe),
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
                    reads.push(scan(Level::Exactly(*self.chance.pick(&offsets))));
                }
            }
            for (name, stream) in &model.streams {
                let (limit, max_bytes, wait_ms) = (0, 0, 0);
                let (stream_name, from) = (name.clone(), Offset::ZERO);
                let stream_read =
                    Query::Records { stream: stream_name, from, limit, max_bytes, wait_ms };
                reads.push(query(stream_read));
                for cursor in stream.cursors.keys() {
                    let (stream, cursor) = (name.clone(), cursor.clone());
                    reads.push(query(Query::Cursor { stream, cursor }));
                }
            }
            self.seats[seat].client.examine(reads);
            self.wake(seat);
        }
    }
}
