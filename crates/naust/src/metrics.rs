//! What a node counts, for people and their monitoring.

use crate::disk::Meter;
use naust_node::repair::Report;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Counters of the shell. Each is written by the thread that it belongs to, and read whenever.
#[derive(Debug, Default)]
pub struct Counters {
    /// What the logs did to the disk.
    pub logs: Arc<Meter>,
    /// Connections now.
    pub connections: Arc<AtomicUsize>,
    /// Bytes of replies that clients of native connections have not read.
    pub unread_bytes: Arc<AtomicUsize>,
    /// Bytes of packets that came in, from sockets and embedded clients.
    pub bytes_received: AtomicU64,
    /// Bytes of packets that were sent to sockets.
    pub bytes_sent: AtomicU64,
    /// Frames folded into tables since the node started.
    pub frames_applied: AtomicU64,
    /// Turns of the workers.
    pub turns: AtomicU64,
    /// What was found damaged, and what became of it.
    pub repairs: Repairs,
}

/// What was found damaged since the node started, and what became of it.
#[derive(Debug, Default)]
pub struct Repairs {
    /// Bytes of logs and tables that were read again to find damage.
    pub scrubbed_bytes: AtomicU64,
    /// Damaged places that were found in logs.
    pub damaged: AtomicU64,
    /// Pieces of them that were mended from other replicas.
    pub mended: AtomicU64,
    /// Damaged places that nobody could help with, at least for a while.
    pub unmendable: AtomicU64,
    /// Segments whose footers were damaged, and were made again.
    pub footers: AtomicU64,
    /// Replicas that were closed to be mended or made anew, and are open again.
    pub rebuilt: AtomicU64,
    /// Replicas that began anew as a copy of the leader's: new ones, or too far behind.
    pub copied: AtomicU64,
}

impl Repairs {
    /// Counts what a worker reports.
    pub fn count(&self, report: &Report) {
        let one = match report {
            Report::Footers(segments) => *segments as u64,
            _ => 1,
        };
        let counter = match report {
            Report::Damaged(_) | Report::Superblock | Report::Tables(_) => &self.damaged,
            Report::Mended { .. } => &self.mended,
            Report::Footers(_) => &self.footers,
            Report::Unmendable { .. } => &self.unmendable,
            Report::Rebuilt => &self.rebuilt,
            Report::Copied => &self.copied,
            Report::Rebuilding(_) => return,
        };
        counter.fetch_add(one, Ordering::Relaxed);
    }
}

/// The counters at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Metrics {
    /// `fdatasync`s and directory syncs of logs.
    pub log_syncs: u64,
    /// Bytes written to logs: frames, padding, footers, superblocks and zeros.
    pub log_bytes_written: u64,
    /// Bytes read from logs.
    pub log_bytes_read: u64,
    /// Connections now, without embedded clients.
    pub connections: u64,
    /// Bytes of replies that clients of native connections have not read.
    pub unread_bytes: u64,
    /// Bytes of packets received.
    pub bytes_received: u64,
    /// Bytes of packets sent to sockets.
    pub bytes_sent: u64,
    /// Frames folded into tables since the node started.
    pub frames_applied: u64,
    /// Turns of the workers.
    pub turns: u64,
    /// Bytes of logs and tables that were read again to find damage.
    pub scrubbed_bytes: u64,
    /// Damaged places that were found in logs.
    pub damaged: u64,
    /// Pieces of them that were mended from other replicas.
    pub mended: u64,
    /// Damaged places that nobody could help with, at least for a while.
    pub unmendable: u64,
    /// Segments of logs whose footers were damaged, and were made again.
    pub footers: u64,
    /// Replicas that were closed to be mended or made anew, and are open again.
    pub rebuilt: u64,
    /// Replicas that began anew as a copy of the leader's: new ones, or too far behind.
    pub copied: u64,
    /// Shards that are open.
    pub shards: u64,
    /// Shards that exist and can't be used: damaged, or not to be opened for now.
    pub shards_closed: u64,
    /// Memory of this process, in bytes; zero where the operating system does not tell.
    pub resident_bytes: u64,
}

impl Counters {
    /// The counters now; what is not counted here is zero.
    #[must_use]
    pub fn read(&self) -> Metrics {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Metrics {
            log_syncs: load(&self.logs.syncs),
            log_bytes_written: load(&self.logs.bytes_written),
            log_bytes_read: load(&self.logs.bytes_read),
            connections: self.connections.load(Ordering::Relaxed) as u64,
            unread_bytes: self.unread_bytes.load(Ordering::Relaxed) as u64,
            bytes_received: load(&self.bytes_received),
            bytes_sent: load(&self.bytes_sent),
            frames_applied: load(&self.frames_applied),
            turns: load(&self.turns),
            scrubbed_bytes: load(&self.repairs.scrubbed_bytes),
            damaged: load(&self.repairs.damaged),
            mended: load(&self.repairs.mended),
            unmendable: load(&self.repairs.unmendable),
            footers: load(&self.repairs.footers),
            rebuilt: load(&self.repairs.rebuilt),
            copied: load(&self.repairs.copied),
            shards: 0,
            shards_closed: 0,
            resident_bytes: resident_bytes(),
        }
    }
}

impl Metrics {
    /// The text that Prometheus reads.
    #[must_use]
    pub fn render(&self) -> String {
        let rows: [(&str, &str, &str, u64); 19] = [
            ("log_syncs_total", "counter", "Syncs of log files and their names.", self.log_syncs),
            (
                "log_written_bytes_total",
                "counter",
                "Bytes written to log files, zero-filling included.",
                self.log_bytes_written,
            ),
            ("log_read_bytes_total", "counter", "Bytes read from log files.", self.log_bytes_read),
            ("connections", "gauge", "Native connections.", self.connections),
            (
                "unread_bytes",
                "gauge",
                "Bytes of replies that clients of native connections have not read.",
                self.unread_bytes,
            ),
            ("received_bytes_total", "counter", "Bytes of requests.", self.bytes_received),
            ("sent_bytes_total", "counter", "Bytes of replies to sockets.", self.bytes_sent),
            (
                "frames_applied_total",
                "counter",
                "Frames folded into tables since the start.",
                self.frames_applied,
            ),
            ("worker_turns_total", "counter", "Turns of the workers' loops.", self.turns),
            (
                "scrubbed_bytes_total",
                "counter",
                "Bytes of logs and tables that were read again to find damage.",
                self.scrubbed_bytes,
            ),
            ("log_damaged_total", "counter", "Damaged places found in logs.", self.damaged),
            (
                "log_mended_total",
                "counter",
                "Pieces of logs that were mended from other replicas.",
                self.mended,
            ),
            (
                "log_unmendable_total",
                "counter",
                "Damaged places that no other replica could help with.",
                self.unmendable,
            ),
            (
                "log_footers_mended_total",
                "counter",
                "Segments of logs whose footers were damaged and made again.",
                self.footers,
            ),
            (
                "replicas_rebuilt_total",
                "counter",
                "Replicas that were closed for damage and are open again.",
                self.rebuilt,
            ),
            (
                "replicas_copied_total",
                "counter",
                "Replicas, new or too far behind, that began anew as a copy of the leader's.",
                self.copied,
            ),
            ("shards", "gauge", "Shards that are open.", self.shards),
            (
                "shards_closed",
                "gauge",
                "Shards that are damaged or can't be opened for now.",
                self.shards_closed,
            ),
            ("resident_bytes", "gauge", "Memory of the process.", self.resident_bytes),
        ];
        let mut text = String::new();
        for (name, kind, help, value) in rows {
            writeln!(text, "# HELP naust_{name} {help}\n# TYPE naust_{name} {kind}")
                .and_then(|()| writeln!(text, "naust_{name} {value}"))
                .expect("a string takes all that is written to it");
        }
        text
    }
}

/// Linux tells it in pages; elsewhere it is left out.
fn resident_bytes() -> u64 {
    let told = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: u64 = told.split(' ').nth(1).and_then(|field| field.parse().ok()).unwrap_or(0);
    pages * rustix::param::page_size() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_is_rendered() {
        let counters = Counters::default();
        counters.logs.syncs.fetch_add(7, Ordering::Relaxed);
        counters.connections.fetch_add(2, Ordering::Relaxed);
        let text = counters.read().render();
        assert!(text.contains("# TYPE naust_log_syncs_total counter\nnaust_log_syncs_total 7\n"));
        assert!(text.contains("\nnaust_connections 2\n"), "{text}");
        assert!(text.lines().all(|line| line.starts_with("# ") || line.starts_with("naust_")));
    }
}
