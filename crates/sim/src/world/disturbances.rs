//! What goes wrong between nodes and with whole nodes of a cluster, and how it ends.

use super::faults::Fault;
use super::{Happening, World};

/// A path between two slots.
pub type Path = (usize, usize);

impl World {
    /// The first of each kind that the plan has.
    pub(super) fn schedule_disturbances(&mut self) {
        if self.members.len() == 1 {
            return;
        }
        let faults =
            [Fault::Partition, Fault::Snap, Fault::Slow, Fault::Pause, Fault::Wipe, Fault::Remove];
        for fault in faults.into_iter().chain([Fault::Transfer]) {
            self.schedule_fault(fault);
        }
    }

    /// Paths are cut: of one node, of some nodes from the others, of a pair, or one way only.
    pub(super) fn partition(&mut self) {
        let nodes = self.members.len();
        let one = self.misfortune.below(nodes as u64) as usize;
        let other = (one + 1 + self.misfortune.below(nodes as u64 - 1) as usize) % nodes;
        let others = (0..nodes).filter(|slot| *slot != one);
        let (kind, paths): (_, Vec<Path>) = match self.misfortune.below(6) {
            0 | 1 => ("partition: a node alone", {
                others.flat_map(|slot| [(one, slot), (slot, one)]).collect()
            }),
            2 => ("partition: a node hears nothing", others.map(|slot| (slot, one)).collect()),
            3 => ("partition: a node is not heard", others.map(|slot| (one, slot)).collect()),
            4 => ("partition: a pair", vec![(one, other), (other, one)]),
            _ => ("partition: a pair, one way", vec![(one, other)]),
        };
        self.tally.fault(kind);
        let now = self.schedule.now();
        self.trace.note(now, format_args!("{kind}: {paths:?}"));
        let lasts =
            self.misfortune.skewed(1_000, self.plan.cluster.partition_lasts_micros.max(1_000));
        for path in &paths {
            self.cut(*path, true);
            for wire in self.network.along(*path) {
                // Whoever waits too long for an answer of the other side gives the wire up.
                if self.misfortune.coin() {
                    let after = self.misfortune.skewed(1, lasts);
                    self.schedule.after(after, Happening::Snap(wire));
                }
            }
        }
        self.schedule.after(lasts, Happening::Heal(paths));
    }

    /// What was cut is whole again.
    pub(super) fn heal(&mut self, paths: &[Path]) {
        let now = self.schedule.now();
        self.trace.note(now, format_args!("paths are whole again: {paths:?}"));
        for path in paths {
            self.cut(*path, false);
        }
    }

    /// A wire breaks.
    pub(super) fn break_wire(&mut self) {
        let wires = self.network.wires();
        if !wires.is_empty() {
            self.tally.fault("broken connection between nodes");
            let wire = *self.misfortune.pick(&wires);
            self.snap(wire);
        }
    }

    /// A path is slow for a while.
    pub(super) fn slow_down(&mut self) {
        let nodes = self.members.len();
        let one = self.misfortune.below(nodes as u64) as usize;
        let other = (one + 1 + self.misfortune.below(nodes as u64 - 1) as usize) % nodes;
        self.tally.fault("slow path");
        self.network.slow((one, other), true);
        let lasts = self.misfortune.skewed(1_000, 5_000_000);
        self.schedule.after(lasts, Happening::Quick((one, other)));
    }

    /// A process stands still for a while; what reaches it waits.
    pub(super) fn pause(&mut self, slot: usize) {
        let member = &mut self.members[slot];
        if member.process.is_none() || member.paused.is_some() {
            return;
        }
        member.paused = Some(Vec::new());
        self.tally.fault("pause");
        let now = self.schedule.now();
        self.trace.note(now, format_args!("node {slot} stands still"));
        let lasts = self.misfortune.skewed(1_000, self.plan.cluster.pause_lasts_micros.max(1_000));
        self.schedule.after(lasts, Happening::Resume(slot));
    }

    /// It goes on: everything that waited happens now.
    pub(super) fn resume(&mut self, slot: usize) {
        let Some(waiting) = self.members[slot].paused.take() else { return };
        let now = self.schedule.now();
        self.trace.note(now, format_args!("node {slot} goes on with {}", waiting.len()));
        for happening in waiting {
            self.schedule.at(now, happening);
        }
    }
}
