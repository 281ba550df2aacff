//! The swarm: what a seed draws before its life begins.
//!
//! A life that has every fault and every op at once soon knows only the average. So each seed
//! leaves most things out, and does the rest with its own insistence (Groce et al., "Swarm
//! Testing", ISSTA 2012).

mod besides;
mod cluster;

pub use besides::Besides;
pub use cluster::Cluster;

use crate::generator::Generator;
use crate::shrink::Cuts;
use naust_machine::MachineOptions;
use naust_wire::limits::{HISTORY_BYTES_MIN, HISTORY_MS_MIN};
use naust_wire::options::{Durability, NamespaceOptions};

/// How many times rarer the nodes of a cluster end than a node alone.
const RARER: u64 = 20;
/// Longest virtual time of the busy part of a life of one node, in microseconds: it ends with its
/// requests.
const ALONE_MICROS: u64 = 120_000_000;
/// Virtual time of the busy part of the life of a cluster, in microseconds.
const TOGETHER_MICROS: u64 = 60_000_000;

/// What a life is allowed to meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Only faults that the promises cover: everything acknowledged is there, and service returns.
    Promised,
    /// Damage beyond what one disk can mend: the only right answers are refusals and a stop, never
    /// a lie.
    Beyond,
}

/// Everything that one seed draws at its beginning.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Within the promises, or beyond.
    pub mode: Mode,
    /// Requests of the whole life.
    pub requests: u64,
    /// Virtual time of its busy part, in microseconds: all of it, in a cluster; at most, alone.
    pub busy_micros: u64,
    /// When faults end: at the end of the busy part, unless less of it is wanted.
    pub ends_micros: u64,
    /// Clients of a cluster ask in so many bursts, one after the other over the busy part.
    pub bursts: u64,
    /// What clients do.
    pub work: Work,
    /// What disks, processes, clocks and connections do.
    pub faults: Faults,
    /// How many nodes there are, and what goes wrong between them.
    pub cluster: Cluster,
    /// What else happens.
    pub besides: Besides,
    /// Bytes of a segment, a power of two.
    pub segment_bytes: u64,
    /// Options of the namespaces that are made on the way.
    pub options: NamespaceOptions,
    /// Their durability, if its node is alone.
    pub durability_alone: Durability,
    /// How machines spend memory: little, so that they flush often.
    pub machine: MachineOptions,
}

/// What clients do. A weight of zero: never.
#[derive(Clone, Debug)]
pub struct Work {
    /// Clients that draw their own requests.
    pub clients: u64,
    /// Requests that one client has under way at once.
    pub in_flight: u64,
    /// Longest pause of a client between requests, in microseconds.
    pub think_micros: u64,
    /// Namespaces, `default` among them.
    pub namespaces: u64,
    /// Keyspaces, streams, and cursors a stream.
    pub spaces: u64,
    /// Keys of a keyspace that are used at all.
    pub keys: u64,
    /// Longest value, in bytes.
    pub value_bytes: u64,
    /// Ops of a commit, at most.
    pub ops: u64,
    /// Weights of [`RequestKind`]s.
    pub requests: [u32; RequestKind::ALL.len()],
    /// Weights of put, delete, delete-range, append, advance.
    pub op_weights: [u32; 5],
    /// Weights of version, absent, unchanged.
    pub condition_weights: [u32; 3],
    /// How many commits in a million have conditions.
    pub conditions_in_a_million: u64,
    /// How many commits in a million belong to a session.
    pub sessions_in_a_million: u64,
    /// Life of a session without a commit, in milliseconds.
    pub session_ttl_ms: u64,
    /// Weights of linearizable, at least, exactly, local.
    pub levels: [u32; 4],
}

/// What a client can ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestKind {
    /// A commit.
    Commit,
    /// One row.
    Get,
    /// A page of rows.
    Scan,
    /// Records of a stream.
    Records,
    /// A cursor.
    Cursor,
    /// Raw log.
    Log,
    /// A namespace's keyspaces and streams.
    Describe,
    /// Options of a keyspace.
    SetKeyspace,
    /// Options of a stream.
    SetStream,
    /// Another session.
    OpenSession,
    /// The end of the session.
    CloseSession,
    /// Questions to the node.
    Ask,
    /// The end of the client's namespace, with all that is in it.
    DeleteNamespace,
    /// Bytes that are no request.
    Garbage,
}

impl RequestKind {
    /// All of them, in the order of their weights.
    pub const ALL: [RequestKind; 14] = [
        RequestKind::Commit,
        RequestKind::Get,
        RequestKind::Scan,
        RequestKind::Records,
        RequestKind::Cursor,
        RequestKind::Log,
        RequestKind::Describe,
        RequestKind::SetKeyspace,
        RequestKind::SetStream,
        RequestKind::OpenSession,
        RequestKind::CloseSession,
        RequestKind::Ask,
        RequestKind::DeleteNamespace,
        RequestKind::Garbage,
    ];
}

/// What goes wrong. A mean of zero: never.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// Mean virtual time between power cuts, in microseconds.
    pub crash_micros: u64,
    /// How many power cuts in a million come in the middle of a disk job instead of between two
    /// events.
    pub crash_inside_job_in_a_million: u64,
    /// How many recoveries in a million are cut off themselves.
    pub crash_in_recovery_in_a_million: u64,
    /// Mean time between clean restarts, in microseconds.
    pub drain_micros: u64,
    /// Mean time between kills of the process alone: what was handed to the disk survives.
    pub kill_micros: u64,
    /// Longest time that a node stays down, in microseconds.
    pub down_micros: u64,
    /// Mean time between closed connections, in microseconds.
    pub disconnect_micros: u64,
    /// Mean time between jumps of the wall clock, in microseconds.
    pub clock_micros: u64,
    /// Mean time between disks that fill up, in microseconds.
    pub full_micros: u64,
    /// Mean time between failing operations of a disk, in microseconds.
    pub fail_micros: u64,
    /// How many bits in a million survive in what was written but not synced: see the disk's own
    /// draws.
    pub slow_in_a_million: u64,
    /// Longest time of a disk job, in microseconds; a slow one takes a hundred times that.
    pub disk_micros: u64,
    /// Longest time of a job of the views or reads, in microseconds.
    pub views_micros: u64,
    /// Longest time of a packet, in microseconds.
    pub network_micros: u64,
    /// Mean time between bits that rot below what is synced, in microseconds; of a node alone only
    /// in [`Mode::Beyond`].
    pub rot_micros: u64,
}

impl Plan {
    /// Draws the plan of a life. One in eight goes beyond the promises, unless the mode is told.
    #[must_use]
    pub fn draw(generator: &mut Generator, mode: Option<Mode>) -> Plan {
        let drawn = if generator.below(8) == 0 { Mode::Beyond } else { Mode::Promised };
        let mode = mode.unwrap_or(drawn);
        let mut work = Work::draw(generator);
        let mut requests = generator.between(1_000, 4_000);
        match generator.below(24) {
            // Bulky: a log of many segments, of which old ones go.
            0 | 1 => {
                work.value_bytes = generator.between(16_384, 200_000);
                work.ops = work.ops.min(8);
                requests = generator.between(300, 900);
            }
            // Wide: more rows than one delete-range removes.
            2 => {
                work.keys = 20_000;
                work.ops = 400;
                work.value_bytes = work.value_bytes.min(64);
                work.op_weights = [300, 5, 1, 5, 1];
                requests = generator.between(300, 900);
            }
            _ => {}
        }
        let faults = Faults::draw(generator, mode);
        let (options, durability_alone) = options(generator);
        let machine = MachineOptions {
            memtable_bytes: generator.skewed(1 << 10, 1 << 20),
            replay_bytes_max: generator.skewed(1 << 12, 1 << 21),
            ..MachineOptions::default()
        };
        Plan {
            mode,
            requests,
            busy_micros: ALONE_MICROS,
            ends_micros: ALONE_MICROS,
            bursts: 1,
            segment_bytes: 1 << generator.between(14, 20).max(segment_bits(&work)),
            work,
            faults,
            cluster: Cluster { nodes: 1, ..Cluster::default() },
            besides: Besides::default(),
            options,
            durability_alone,
            machine,
        }
    }

    /// The same life with several nodes.
    #[must_use]
    pub fn with(mut self, cluster: Cluster) -> Plan {
        if cluster.nodes == 1 {
            self.options.durability = self.durability_alone;
        }
        if cluster.nodes > 1 {
            let faults = &mut self.faults;
            faults.rot_micros = match self.mode {
                Mode::Promised => cluster.rot_micros,
                Mode::Beyond => faults.rot_micros * RARER,
            };
            // Long enough a life that what goes wrong between nodes has its time.
            self.busy_micros = TOGETHER_MICROS;
            self.ends_micros = TOGETHER_MICROS;
            self.bursts = cluster.bursts;
            // There must be a quorum most of the time, or nothing happens that is worth it.
            faults.crash_micros *= RARER;
            faults.kill_micros *= RARER;
            faults.drain_micros *= RARER;
            faults.disconnect_micros *= RARER;
            faults.clock_micros *= RARER;
            faults.full_micros *= RARER;
            faults.fail_micros *= RARER;
        }
        self.cluster = cluster;
        self
    }
}

impl Plan {
    /// Leaves out what was cut.
    pub fn cut(&mut self, cuts: &Cuts) {
        self.ends_micros = cuts.busy_micros.unwrap_or(self.ends_micros).min(self.busy_micros);
        self.requests = cuts.requests.unwrap_or(self.requests);
        self.work.clients = cuts.clients.unwrap_or(self.work.clients);
    }

    /// When the request of this number may be drawn at the earliest, in microseconds.
    #[must_use]
    pub fn pace(&self, number: u64) -> u64 {
        if self.cluster.nodes == 1 {
            return 0;
        }
        let burst = (number * self.bursts / self.requests.max(1)).min(self.bursts);
        burst * self.busy_micros / self.bursts.max(1)
    }
}

/// Bits of the smallest segment that holds the largest commit: its values, its keys (few are long)
/// and what stands around.
fn segment_bits(work: &Work) -> u64 {
    let bytes = (work.value_bytes + 256) * work.ops + 32_768;
    u64::from(bytes.next_power_of_two().trailing_zeros())
}

/// Intervals of namespaces of a node that is alone: of about a quarter of those nodes.
const INTERVALS_MS: [u32; 12] = [1, 2, 5, 10, 15, 25, 40, 60, 100, 200, 400, 1000];

/// The options of a life's namespaces, and their durability if its node is alone.
fn options(generator: &mut Generator) -> (NamespaceOptions, Durability) {
    // Where several nodes are known, whoever asks for it has to be told that it can't be had.
    let drawn = generator.below(50);
    let durability = match drawn {
        0 => Durability::IntervalMs(generator.between(1, 200) as u32),
        _ => Durability::Quorum,
    };
    let alone = INTERVALS_MS.get(drawn as usize).map(|ms| Durability::IntervalMs(*ms));
    let history = |generator: &mut Generator, most: u64, least: u64| match generator.coin() {
        true => 0,
        false => generator.skewed(1, most).max(least),
    };
    let options = NamespaceOptions {
        history_ms: history(generator, 60_000, HISTORY_MS_MIN),
        history_bytes: history(generator, 1 << 23, HISTORY_BYTES_MIN),
        durability,
    };
    (options, alone.unwrap_or(durability))
}

impl Work {
    fn draw(generator: &mut Generator) -> Work {
        let mut requests = [0; RequestKind::ALL.len()];
        for (weight, kind) in requests.iter_mut().zip(RequestKind::ALL) {
            *weight = match kind {
                RequestKind::Commit => 60 + generator.below(60) as u32,
                RequestKind::Get | RequestKind::Scan | RequestKind::Records => some(generator, 30),
                RequestKind::Cursor | RequestKind::Log => some(generator, 10),
                RequestKind::Describe | RequestKind::Ask => some(generator, 4),
                RequestKind::SetKeyspace | RequestKind::SetStream => some(generator, 5),
                RequestKind::OpenSession | RequestKind::CloseSession => some(generator, 3),
                RequestKind::Garbage => some(generator, 2),
                RequestKind::DeleteNamespace => u32::from(generator.below(8) == 0),
            };
        }
        let mut op_weights = [0; 5];
        op_weights.fill_with(|| some(generator, 10));
        op_weights[generator.below(5) as usize] += 5;
        let mut condition_weights = [0; 3];
        condition_weights.fill_with(|| some(generator, 10));
        condition_weights[generator.below(3) as usize] += 1;
        let mut levels = [0; 4];
        levels.fill_with(|| some(generator, 10));
        levels[generator.below(4) as usize] += 2;
        Work {
            clients: generator.between(1, 8),
            in_flight: generator.skewed(1, 64),
            think_micros: generator.skewed(10, 20_000),
            namespaces: generator.skewed(1, 4),
            spaces: generator.between(1, 4),
            keys: generator.skewed(1, 2_000),
            value_bytes: generator.skewed(8, 16_384),
            ops: generator.skewed(1, 24),
            requests,
            op_weights,
            condition_weights,
            conditions_in_a_million: generator.below(500_000),
            sessions_in_a_million: *generator.pick(&[0, 300_000, 800_000, 1_000_000]),
            session_ttl_ms: *generator.pick(&[0, 50, 1_000, 10_000]),
            levels,
        }
    }
}

/// A weight that is left out in a third of all seeds.
fn some(generator: &mut Generator, weight: u64) -> u32 {
    if generator.below(3) == 0 { 0 } else { generator.between(1, weight) as u32 }
}

impl Faults {
    fn draw(generator: &mut Generator, mode: Mode) -> Faults {
        let mut mean = |low: u64, high: u64, in_ten: u64| {
            if generator.below(10) < in_ten { generator.skewed(low, high) } else { 0 }
        };
        Faults {
            crash_micros: mean(20_000, 2_000_000, 7),
            crash_inside_job_in_a_million: mean(300_000, 1_000_000, 7),
            crash_in_recovery_in_a_million: mean(50_000, 300_000, 5),
            drain_micros: mean(50_000, 3_000_000, 3),
            kill_micros: mean(20_000, 2_000_000, 4),
            down_micros: mean(1_000, 5_000_000, 9),
            disconnect_micros: mean(5_000, 1_000_000, 3),
            clock_micros: mean(10_000, 1_000_000, 3),
            full_micros: mean(50_000, 2_000_000, 2),
            fail_micros: mean(50_000, 5_000_000, 2),
            slow_in_a_million: mean(1, 100_000, 4),
            disk_micros: mean(50, 20_000, 10),
            views_micros: mean(5, 5_000, 10),
            network_micros: mean(5, 2_000, 10),
            rot_micros: if mode == Mode::Beyond { mean(20_000, 1_000_000, 10) } else { 0 },
        }
    }
}
