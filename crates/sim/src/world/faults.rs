//! What goes wrong, and how it ends.

use super::member::WALL_OFF_MS_MAX;
use super::{Happening, World};
use crate::sabotage::Sabotage;
use naust_log::sim::SimDisk;
use naust_node::Event;
use naust_wire::ShardId;

/// Stops of a node that are followed by a start as soon as those by faults are.
const STOPS_AT_ONCE: u64 = 50;
/// Microseconds before a start after that.
const STOPPED_MICROS: u64 = 100_000;

/// Something that goes wrong in the world. Each kind comes again and again, at drawn times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The power of a node goes: what was not synced may be lost, torn or kept.
    Crash,
    /// As [`Fault::Crash`], in the middle of the next disk job, or at last after a while.
    Doom(usize, u64),
    /// The process of a node ends at once; what it gave to its disk stays.
    Kill,
    /// A node is told to finish.
    Drain,
    /// A connection ends.
    Disconnect,
    /// The wall clock of a node jumps.
    Clock,
    /// A disk has no more space.
    Full,
    /// It has again.
    Space(usize),
    /// The disk of the tables of a shard has no more space.
    FullTables,
    /// It has again.
    SpaceForTables(usize),
    /// A disk refuses to read a block of a log.
    Refuse,
    /// A footer of a segment that trimming left holes in rots.
    OldFooter,
    /// It gives out again what it had refused.
    Relent(usize),
    /// An operation of a disk fails.
    Fail,
    /// A bit rots where it rests.
    Rot,
    /// Paths between nodes are cut for a while.
    Partition,
    /// A connection of two nodes breaks.
    Snap,
    /// A path between nodes is slow for a while.
    Slow,
    /// A process stands still for a while.
    Pause,
    /// A node loses everything and comes back as a new one.
    Wipe,
    /// A node is told to leave, and comes back as a new one.
    Remove,
    /// Someone asks for another leader.
    Transfer,
}

/// Longest that a drain may take, in microseconds, when nothing else goes wrong.
const DRAIN_MICROS: u64 = 30_000_000;

impl World {
    /// The first of each kind that the plan has.
    pub(super) fn schedule_faults(&mut self) {
        let faults = [
            Fault::Crash,
            Fault::Kill,
            Fault::Drain,
            Fault::Disconnect,
            Fault::Clock,
            Fault::Full,
            Fault::Fail,
            Fault::Rot,
            Fault::FullTables,
            Fault::Refuse,
            Fault::OldFooter,
        ];
        for fault in faults {
            self.schedule_fault(fault);
        }
    }

    pub(super) fn schedule_fault(&mut self, fault: Fault) {
        let faults = &self.plan.faults;
        let mean = match fault {
            Fault::Crash | Fault::Doom(..) => faults.crash_micros,
            Fault::Kill => faults.kill_micros,
            Fault::Drain => faults.drain_micros,
            Fault::Disconnect => faults.disconnect_micros,
            Fault::Clock => faults.clock_micros,
            Fault::Full | Fault::Space(_) => faults.full_micros,
            Fault::FullTables | Fault::SpaceForTables(_) => self.plan.besides.full_tables_micros,
            Fault::Refuse | Fault::Relent(_) => self.plan.besides.refuse_micros,
            Fault::OldFooter => self.plan.besides.old_footer_micros,
            Fault::Fail => faults.fail_micros,
            Fault::Rot if self.sabotage == Some(Sabotage::RotQuietly) => 100_000,
            Fault::Rot => faults.rot_micros,
            Fault::Partition => self.plan.cluster.partition_micros,
            Fault::Snap => self.plan.cluster.snap_micros,
            Fault::Slow => self.plan.cluster.slow_micros,
            Fault::Pause => self.plan.cluster.pause_micros,
            Fault::Wipe => self.plan.cluster.wipe_micros,
            Fault::Remove => self.plan.cluster.remove_micros,
            Fault::Transfer => self.plan.cluster.transfer_micros,
        };
        if mean > 0 {
            let after = self.misfortune.between(1, mean * 2);
            self.schedule.after(after, Happening::Fault(fault));
        }
    }

    /// Nothing new goes wrong from now on, and what is wrong and can be mended is.
    pub(super) fn end_faults(&mut self) {
        let now = self.schedule.now();
        self.trace.note(now, format_args!("faults end"));
        self.calm = true;
        self.healed_from = now;
        for member in &mut self.members {
            member.sky.clear();
            member.doomed = None;
            member.disks.values().for_each(|disk| {
                disk.set_space(None);
                disk.relent();
            });
            member.tables.values().for_each(|tables| tables.fill(false));
        }
        for seat in 0..self.seats.len() {
            self.seats[seat].client.finish();
            self.wake(seat);
        }
    }

    pub(super) fn fault(&mut self, fault: Fault) {
        let ends = matches!(fault, Fault::Space(_) | Fault::SpaceForTables(_) | Fault::Relent(_));
        if self.calm && !ends {
            return;
        }
        if !ends && !matches!(fault, Fault::Doom(..)) {
            let number = self.faults_drawn;
            self.faults_drawn += 1;
            if self.kept_faults.as_ref().is_some_and(|kept| !kept.contains(&number)) {
                return self.schedule_fault(fault);
            }
            let now = self.schedule.now();
            self.trace.note(now, format_args!("fault {number}: {fault:?}"));
        }
        let node = match (fault, self.members.len()) {
            (_, 1) => 0,
            // What was begun at a node ends there.
            (
                Fault::Doom(node, _)
                | Fault::Space(node)
                | Fault::SpaceForTables(node)
                | Fault::Relent(node),
                _,
            ) => node,
            (_, nodes) => self.misfortune.below(nodes as u64) as usize,
        };
        match fault {
            Fault::Crash => {
                if self.misfortune.chance(self.plan.faults.crash_inside_job_in_a_million) {
                    let operations = self.misfortune.skewed(0, 40);
                    self.members[node].doomed = Some(operations);
                    let life = self.members[node].listens().unwrap_or(0);
                    self.schedule.after(50_000, Happening::Fault(Fault::Doom(node, life)));
                } else if self.members[node].process.is_some() {
                    self.tally.fault("power cut between events");
                    self.take_power(node, "between events");
                }
            }
            Fault::Doom(_, life) => {
                if self.members[node].doomed.take().is_some()
                    && self.members[node].listens() == Some(life)
                {
                    self.tally.fault("power cut between events");
                    self.take_power(node, "after all");
                }
                return;
            }
            Fault::Kill => self.kill(node),
            Fault::Drain => self.drain(node),
            Fault::Disconnect => self.disconnect(),
            Fault::Clock => {
                self.tally.fault("jump of the wall clock");
                let jump = self.misfortune.skewed(1, WALL_OFF_MS_MAX) as i64;
                self.members[node].wall_off_ms = if self.misfortune.coin() { jump } else { -jump };
            }
            Fault::Full => self.fill(node),
            Fault::Space(_) => {
                let now = self.schedule.now();
                self.trace.note(now, format_args!("the disks of node {node} have space again"));
                self.members[node].disks.values().for_each(|disk| disk.set_space(None));
                return;
            }
            Fault::FullTables => self.fill_tables(node),
            Fault::SpaceForTables(_) => {
                let now = self.schedule.now();
                self.trace.note(now, format_args!("the tables of node {node} have space again"));
                self.members[node].tables.values().for_each(|tables| tables.fill(false));
                return;
            }
            Fault::Refuse => self.refuse_to_read(node),
            Fault::OldFooter => self.rot_old_footer(node),
            Fault::Relent(_) => {
                let now = self.schedule.now();
                self.trace.note(now, format_args!("the disks of node {node} can be read again"));
                self.members[node].disks.values().for_each(SimDisk::relent);
                return;
            }
            Fault::Fail => {
                let after = self.misfortune.skewed(0, 50);
                self.tally.fault("failing disk");
                self.members[node].sky.strike(after);
            }
            Fault::Rot => self.rot(node),
            Fault::Partition => self.partition(),
            Fault::Snap => self.break_wire(),
            Fault::Slow => self.slow_down(),
            Fault::Pause => self.pause(node),
            Fault::Wipe => self.wipe_one(node),
            Fault::Remove => self.remove_one(node),
            Fault::Transfer => self.transfer(node),
        }
        self.schedule_fault(fault);
    }

    pub(super) fn ends(&mut self, node: usize) {
        self.note_unsynced(node);
        self.snap_all(node);
        self.members[node].process = None;
        self.members[node].paused = None;
        self.excuses.restarts = true;
        let lines = self.lines.iter().filter(|(_, line)| line.node.0 == node);
        let lines: Vec<_> = lines.map(|(id, _)| *id).collect();
        for id in lines {
            let delay = self.chance.skewed(1, self.plan.faults.network_micros.max(1));
            self.schedule.after(delay, Happening::Hangup(id));
        }
        let down = if self.calm { 1 } else { self.plan.faults.down_micros.max(1) };
        let down = self.chance.skewed(1, down);
        // Nobody starts what stops at once for ever without a pause.
        let pause = if self.members[node].stops > STOPS_AT_ONCE { STOPPED_MICROS } else { 0 };
        self.schedule.after(down.max(pause), Happening::Start(node));
    }

    /// The power of a node goes.
    pub(super) fn take_power(&mut self, node: usize, when: &str) {
        let now = self.schedule.now();
        self.trace.note(now, format_args!("node {node} loses its power {when}"));
        self.note_power_cut(node);
        let member = &mut self.members[node];
        member.doomed = None;
        for disk in member.disks.values_mut().chain([&mut member.journal]) {
            *disk = disk.crash(self.chance.draw());
        }
        for tables in member.tables.values_mut() {
            *tables = tables.crash();
        }
        // Of the files of a copy some were synced.
        for (_, files) in member.copied.values_mut() {
            files.retain(|_, _| self.misfortune.coin());
        }
        self.relapse(node);
        self.ends(node);
    }

    fn end_process(&mut self, node: usize) {
        let member = &mut self.members[node];
        for disk in member.disks.values_mut().chain([&mut member.journal]) {
            *disk = disk.restart();
        }
        for tables in member.tables.values_mut() {
            *tables = tables.crash();
        }
        self.ends(node);
    }

    pub(super) fn kill(&mut self, node: usize) {
        if self.members[node].process.is_some() {
            let now = self.schedule.now();
            self.trace.note(now, format_args!("the process of node {node} is killed"));
            self.tally.fault("kill");
            self.end_process(node);
        }
    }

    fn drain(&mut self, node: usize) {
        let now = self.schedule.now();
        let member = &mut self.members[node];
        let Some(process) = member.process.as_mut().filter(|p| !p.draining) else { return };
        process.draining = true;
        let life = (node, process.life);
        self.trace.note(now, format_args!("node {node} is told to finish"));
        self.tally.fault("clean stop");
        let patience = if self.members.len() == 1 { DRAIN_MICROS } else { DRAIN_MICROS / 3 };
        self.schedule
            .after(patience, Happening::Inside { node: life, inside: super::member::Inside::Hung });
        self.handle(life, Event::Drain);
    }

    /// A node was told to finish long ago. One of several may wait for the others in vain.
    pub(super) fn hung(&mut self, node: usize) {
        if self.members.len() == 1 {
            return self.broken(format!("node {node} was told to finish and did not"));
        }
        let now = self.schedule.now();
        self.trace.note(now, format_args!("node {node} is not waited for any more"));
        self.tally.mark("stops that were cut short");
        self.end_process(node);
    }

    /// A node has finished what was under way.
    pub(super) fn drained(&mut self, node: usize) {
        let now = self.schedule.now();
        self.trace.note(now, format_args!("node {node} has finished"));
        self.tally.mark("clean stops");
        let process = self.members[node].process.as_ref().expect("it has just finished");
        // What can't be synced now is replayed by the next process.
        drop(process.journal.close());
        self.end_process(node);
    }

    /// A node can't go on.
    pub(super) fn stopped(&mut self, node: usize, sentence: &str) {
        let now = self.schedule.now();
        self.trace.note(now, format_args!("node {node} stops: {sentence}"));
        self.tally.mark("stops");
        self.members[node].stops += 1;
        let member = &self.members[node];
        let excused = member.sky.failed() > 0 || member.refuses || self.excuses.damage;
        if !excused {
            self.broken(format!("node {node} stopped without a fault: {sentence}"));
        }
        self.end_process(node);
    }

    fn disconnect(&mut self) {
        let lines: Vec<_> = self.lines.keys().copied().collect();
        if !lines.is_empty() {
            self.tally.fault("closed connection");
            let id = *self.chance.pick(&lines);
            self.hang_up(id);
        }
    }

    fn fill(&mut self, node: usize) {
        let shards: Vec<ShardId> = self.members[node].disks.keys().copied().collect();
        if shards.is_empty() {
            return;
        }
        let shard = *self.chance.pick(&shards);
        let now = self.schedule.now();
        self.trace.note(now, format_args!("the disk of shard {shard} of node {node} fills up"));
        self.tally.fault("full disk");
        self.excuses.disk_full = true;
        let more = self.chance.skewed(0, 1 << 18);
        let disk = &self.members[node].disks[&shard];
        disk.set_space(Some(disk.used_space() + more));
        let copies = self.misfortune.coin();
        disk.set_copies(copies);
        if copies {
            self.tally.mark("full disks that refuse what is written over");
        }
        let lasts = self.chance.skewed(1_000, 4_000_000);
        self.schedule.after(lasts, Happening::Fault(Fault::Space(node)));
    }

    fn fill_tables(&mut self, node: usize) {
        let shards: Vec<ShardId> = self.members[node].tables.keys().copied().collect();
        if shards.is_empty() {
            return;
        }
        let shard = *self.misfortune.pick(&shards);
        let now = self.schedule.now();
        self.trace.note(now, format_args!("the tables of shard {shard} of node {node} are full"));
        self.tally.fault("full tables");
        self.excuses.disk_full = true;
        self.members[node].tables[&shard].fill(true);
        let lasts = self.misfortune.skewed(1_000, 4_000_000);
        self.schedule.after(lasts, Happening::Fault(Fault::SpaceForTables(node)));
    }
}
