//! What a seed draws for a life of several nodes: how many, and what goes wrong between them.

use crate::generator::Generator;

/// Keeps what is drawn here apart from what a life of one node draws: its seeds go on to tell what
/// they told.
const APART: u64 = 0x6e61_7573_745f_6e6f;

/// How many nodes there are, and what happens to them that can't happen to a node alone. A mean of
/// zero: never.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cluster {
    /// Nodes.
    pub nodes: usize,
    /// In how many bursts clients ask; they rest between them.
    pub bursts: u64,
    /// Mean virtual time between partitions, in microseconds, and how long one lasts at most.
    pub partition_micros: u64,
    /// See `partition_micros`.
    pub partition_lasts_micros: u64,
    /// Mean time between connections of two nodes that break.
    pub snap_micros: u64,
    /// Mean time between paths that become slow for a while.
    pub slow_micros: u64,
    /// Longest time of a packet on a path that is slow.
    pub slow_packet_micros: u64,
    /// How many packets of Raft in a million are lost within a connection: harsher than TCP.
    pub lost_in_a_million: u64,
    /// How many arrive twice.
    pub twice_in_a_million: u64,
    /// How many arrive late, behind what was sent after them.
    pub late_in_a_million: u64,
    /// Mean time between processes that stand still for a while.
    pub pause_micros: u64,
    /// Longest time that they do.
    pub pause_lasts_micros: u64,
    /// Mean time between nodes that are wiped and come back as new ones.
    pub wipe_micros: u64,
    /// Mean time between nodes that are told to leave and come back as new ones.
    pub remove_micros: u64,
    /// Mean time between hand-overs of leadership that someone asks for.
    pub transfer_micros: u64,
    /// How many millionths fast or slow the clock of a node goes at most.
    pub drift_ppm: u64,
    /// Mean time between damages of one replica that the others are to mend; within the promises.
    pub rot_micros: u64,
    /// Time from one walk of a node over its logs to the next, in milliseconds.
    pub scrub_every_ms: u64,
}

impl Cluster {
    /// Draws what a seed has; `nodes` instead of the drawn number, if there is one.
    #[must_use]
    pub fn draw(seed: u64, nodes: Option<usize>) -> Cluster {
        let mut generator = Generator::new(seed ^ APART);
        let drawn = match generator.below(16) {
            0..6 => 1,
            6..15 => 3,
            _ => 5,
        };
        let nodes = nodes.unwrap_or(drawn);
        if nodes <= 1 {
            return Cluster { nodes: 1, ..Cluster::default() };
        }
        let mut mean = |low: u64, high: u64, in_ten: u64| {
            if generator.below(10) < in_ten { generator.skewed(low, high) } else { 0 }
        };
        let per_million = mean(1, 1, 3);
        Cluster {
            nodes,
            partition_micros: mean(1_000_000, 30_000_000, 5),
            partition_lasts_micros: mean(10_000, 5_000_000, 10),
            snap_micros: mean(200_000, 20_000_000, 4),
            slow_micros: mean(1_000_000, 30_000_000, 3),
            slow_packet_micros: mean(1_000, 500_000, 10),
            lost_in_a_million: mean(1_000, 200_000, 6) * per_million,
            twice_in_a_million: mean(1_000, 200_000, 6) * per_million,
            late_in_a_million: mean(1_000, 200_000, 6) * per_million,
            pause_micros: mean(1_000_000, 30_000_000, 3),
            pause_lasts_micros: mean(10_000, 3_000_000, 10),
            wipe_micros: mean(1_000_000, 20_000_000, 4),
            remove_micros: mean(1_000_000, 20_000_000, 3),
            transfer_micros: mean(1_000_000, 30_000_000, 4),
            drift_ppm: mean(100, 100_000, 4),
            bursts: generator.skewed(4, 400),
            rot_micros: match generator.below(10) {
                0..4 => generator.skewed(200_000, 20_000_000),
                _ => 0,
            },
            scrub_every_ms: generator.skewed(200, 15_000),
        }
    }
}
