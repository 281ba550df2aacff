//! What a seed draws besides: tables that lack space, disks that refuse to read, requests to the
//! directory that a session numbers, ends of processes amid the copy of a replica, and digests that
//! replicas note.

use crate::generator::Generator;

/// Keeps what is drawn here apart from what a life drew before there was any of this: its seeds go
/// on to tell what they told.
const APART: u64 = 0x6e61_7573_745f_6265;
/// How many times rarer it happens in a cluster, whose lives are longer.
const RARER: u64 = 20;

/// See the module. A mean of zero: never.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Besides {
    /// Mean virtual time between tables whose disk has no space for a while, in microseconds.
    pub full_tables_micros: u64,
    /// Mean virtual time between blocks of logs that a disk refuses to read for a while, in
    /// microseconds; of a node alone only beyond the promises.
    pub refuse_micros: u64,
    /// Mean virtual time between rotten footers of segments that trimming left holes in, in
    /// microseconds.
    pub old_footer_micros: u64,
    /// How many of a thousand parts of a replica that is copied end the process that gets it, or
    /// the one that sends it.
    pub interrupted_in_a_thousand: u64,
    /// How many requests of clients in a million make or remove a namespace exactly once.
    pub numbered_in_a_million: u64,
    /// How many requests of clients in a million have all replicas note the digests of their views.
    pub noted_in_a_million: u64,
}

impl Besides {
    /// Draws what a seed has, in a life of so many nodes.
    #[must_use]
    pub fn draw(seed: u64, nodes: usize, is_beyond: bool) -> Besides {
        let mut generator = Generator::new(seed ^ APART);
        let mut mean = |low: u64, high: u64, in_ten: u64| {
            if generator.below(10) < in_ten { generator.skewed(low, high) } else { 0 }
        };
        let rarer = if nodes > 1 { RARER } else { 1 };
        let full_tables_micros = mean(50_000, 2_000_000, 2) * rarer;
        let refuse_micros = mean(50_000, 1_000_000, 2) * rarer;
        let refuses = nodes > 1 || is_beyond;
        let numbered_in_a_million = mean(1_000, 30_000, 3);
        let old_footer_micros = mean(20_000, 1_000_000, 4) * rarer.min(4);
        let interrupted_in_a_thousand = mean(5, 300, 4);
        let noted_in_a_million = mean(2_000, 50_000, 5);
        Besides {
            interrupted_in_a_thousand,
            full_tables_micros,
            refuse_micros: if refuses { refuse_micros } else { 0 },
            numbered_in_a_million,
            noted_in_a_million,
            old_footer_micros,
        }
    }
}
