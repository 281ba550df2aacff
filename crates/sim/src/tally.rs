//! What lives were like, counted: how long, how much, and which faults, by kind.

use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Seconds of a year.
const YEAR_SECONDS: f64 = 365.25 * 86_400.0;

/// Counts of one life or of many.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Lives.
    pub lives: u64,
    /// Lives by their number of nodes.
    pub sizes: BTreeMap<usize, u64>,
    /// Packets, or runs of them, that nodes sent each other.
    pub packets: u64,
    /// First entries of leaders that were committed.
    pub elections: u64,
    /// Longest virtual time, in microseconds, in which commits were asked for and none was
    /// answered.
    pub unavailable_micros: u64,
    /// Longest virtual time from the last fault until everything had come to its end, in
    /// microseconds.
    pub healing_micros: u64,
    /// Longest virtual time from damage of one replica until it was mended, in microseconds.
    pub mending_micros: u64,
    /// Virtual time, in microseconds.
    pub micros: u64,
    /// Things that happened.
    pub events: u64,
    /// Requests that were sent.
    pub requests: u64,
    /// Commits that were acknowledged.
    pub commits: u64,
    /// Frames that were committed.
    pub frames: u64,
    /// Starts of a node, the first ones included.
    pub starts: u64,
    /// Longest virtual time from the start of a node to its first answer of a shard, in
    /// microseconds.
    pub recovery_micros: u64,
    /// Most requests under way at once.
    pub under_way: u64,
    /// Faults by kind.
    pub faults: BTreeMap<&'static str, u64>,
    /// Answers and other marks by kind: what lives reached at all.
    pub marks: BTreeMap<&'static str, u64>,
}

/// What many lives have to reach, or they prove little: marks and faults by name.
const WANTED: [&str; 90] = [
    "block that can't be read",
    "blocks of another place",
    "blocks that never arrived",
    "broken connection between nodes",
    "clean stop",
    "closed connection",
    "failing disk",
    "full disk",
    "full tables",
    "hand-over of leadership",
    "jump of the wall clock",
    "kill",
    "lost segment",
    "lost tables",
    "packet of Raft doubled",
    "packet of Raft late",
    "packet of Raft lost",
    "partition: a node alone",
    "partition: a node hears nothing",
    "partition: a node is not heard",
    "partition: a pair",
    "partition: a pair, one way",
    "pause",
    "power cut between events",
    "power cut in recovery",
    "power cut inside a disk job",
    "removed node",
    "rotten bit",
    "rotten bit of a footer",
    "rotten bit of a superblock",
    "rotten tables",
    "segment cut short",
    "slow path",
    "wiped node",
    "chores of journals",
    "clean stops",
    "clients that went elsewhere",
    "committed",
    "committed before",
    "committed, not synced",
    "control done",
    "corrupt",
    "cursor",
    "damage that was mended",
    "damaged places that nobody could mend",
    "damaged places that were found",
    "damaged places that were mended",
    "damaged tables that were found",
    "described",
    "disk_full",
    "flushes and compactions",
    "flushes and compactions without space",
    "frames fetched for other replicas",
    "full disks that refuse what is written over",
    "interrupted",
    "journals that were replayed",
    "logs measured on disk",
    "logs measured that had old segments",
    "losses that interval durability allows",
    "namespace_exists",
    "namespace_not_found",
    "namespaces that ended",
    "not_leader",
    "numbered control done",
    "offset_trimmed",
    "options_conflict",
    "places that were mended",
    "raw log",
    "records",
    "refused",
    "replicas closed for repair",
    "replicas compared",
    "replicas replaced by copies",
    "replicas that were repaired",
    "row",
    "rows",
    "segments trimmed",
    "session",
    "session_expired",
    "shards swept",
    "shards that can't be opened",
    "shutting_down",
    "stops",
    "stops that were cut short",
    "superblocks that were written again",
    "syncs for several logs",
    "tables folded again",
    "transfers that went on",
    "unavailable",
    "views that failed",
];

impl Tally {
    /// What was reached of what many lives have to reach, and what was not.
    #[must_use]
    pub fn coverage(&self) -> String {
        let reached =
            |name: &&&str| self.marks.contains_key(**name) || self.faults.contains_key(**name);
        let missing: Vec<&str> = WANTED.iter().filter(|name| !reached(name)).copied().collect();
        let count = WANTED.len() - missing.len();
        let mut out = format!("  {:<38} {count:>10} / {}\n", "marks reached", WANTED.len());
        for name in missing {
            writeln!(out, "  never reached: {name}").expect("a string takes what is written");
        }
        out
    }

    /// A fault happened.
    pub fn fault(&mut self, kind: &'static str) {
        *self.faults.entry(kind).or_default() += 1;
    }

    /// Something worth knowing was reached.
    pub fn mark(&mut self, kind: &'static str) {
        *self.marks.entry(kind).or_default() += 1;
    }

    /// Adds another tally to this one.
    pub fn add(&mut self, other: &Tally) {
        self.lives += other.lives;
        self.packets += other.packets;
        self.elections += other.elections;
        self.unavailable_micros = self.unavailable_micros.max(other.unavailable_micros);
        self.healing_micros = self.healing_micros.max(other.healing_micros);
        self.mending_micros = self.mending_micros.max(other.mending_micros);
        for (nodes, count) in &other.sizes {
            *self.sizes.entry(*nodes).or_default() += count;
        }
        self.micros += other.micros;
        self.events += other.events;
        self.requests += other.requests;
        self.commits += other.commits;
        self.frames += other.frames;
        self.starts += other.starts;
        self.recovery_micros = self.recovery_micros.max(other.recovery_micros);
        self.under_way = self.under_way.max(other.under_way);
        for (kind, count) in &other.faults {
            *self.faults.entry(kind).or_default() += count;
        }
        for (kind, count) in &other.marks {
            *self.marks.entry(kind).or_default() += count;
        }
    }

    /// The table that ends a run.
    #[must_use]
    pub fn table(&self) -> String {
        let mut out = String::new();
        let mut row = |name: &str, value: String| {
            writeln!(out, "  {name:<38} {value:>14}").expect("a string takes what is written");
        };
        row("lives", self.lives.to_string());
        for (nodes, count) in &self.sizes {
            row(&format!("lives of {nodes} nodes"), count.to_string());
        }
        row("simulated seconds", seconds(self.micros));
        row("simulated years", format!("{:.4}", self.micros as f64 / 1e6 / YEAR_SECONDS));
        row("events", self.events.to_string());
        row("requests", self.requests.to_string());
        row("acknowledged commits", self.commits.to_string());
        row("committed frames", self.frames.to_string());
        row("starts of a node", self.starts.to_string());
        row("longest recovery, simulated s", seconds(self.recovery_micros));
        row("most requests under way", self.under_way.to_string());
        row("packets between nodes", self.packets.to_string());
        row("elections", self.elections.to_string());
        row("longest without a commit, simulated s", seconds(self.unavailable_micros));
        row("longest healing, simulated s", seconds(self.healing_micros));
        row("longest mending, simulated s", seconds(self.mending_micros));
        for (kind, count) in &self.faults {
            row(&format!("fault: {kind}"), count.to_string());
        }
        for (kind, count) in &self.marks {
            row(&format!("seen: {kind}"), count.to_string());
        }
        out
    }
}

fn seconds(micros: u64) -> String {
    format!("{}.{:03}", micros / 1_000_000, micros / 1000 % 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tallies_add_up() {
        let mut one = Tally { lives: 1, recovery_micros: 5, ..Tally::default() };
        one.fault("crash");
        let mut two = Tally { lives: 2, recovery_micros: 3, ..Tally::default() };
        two.fault("crash");
        two.fault("rot");
        one.add(&two);
        assert_eq!((one.lives, one.recovery_micros), (3, 5));
        assert_eq!(one.faults, BTreeMap::from([("crash", 2), ("rot", 1)]));
        assert!(one.table().contains("fault: crash"));
    }
}
