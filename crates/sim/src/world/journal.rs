//! The journal of a node's process: small writes that it makes together, and what it owes to them.

use super::World;
use super::member::Inside;
use crate::fuse::Fused;
use crate::weather::Sky;
use naust_log::journal::{Chore, ChoreError, replay};
use naust_log::sim::SimDisk;
use naust_log::{Disk, Journal, Write};
use naust_node::Event;
use naust_wire::ShardId;
use std::sync::Arc;

/// Bytes of a half: few, so that a life turns many times.
const HALF_BYTES: u64 = 24 * 1024;

/// What stands for the journal until it is replayed.
pub(super) fn none(disk: &SimDisk) -> Arc<Journal> {
    Journal::new(Arc::new(disk.clone()), HALF_BYTES, 0)
}

/// An empty disk for a journal, under a sky.
pub(super) fn disk(sky: &Sky) -> SimDisk {
    let disk = SimDisk::new();
    disk.set_weather(Some(Box::new(sky.clone())));
    disk
}

impl World {
    /// A process that begins writes into its logs what the journal has of them, before it opens
    /// any. Says whether it lived through that.
    pub(super) fn replay(&mut self, node: usize) -> bool {
        let dies =
            !self.calm && self.chance.chance(self.plan.faults.crash_in_recovery_in_a_million);
        let (after, id) = (self.chance.skewed(0, 100), self.chance.draw());
        let member = &mut self.members[node];
        if dies {
            member.fuse.light(after);
        }
        let fused = |disk: &SimDisk| -> Arc<dyn Disk> {
            Arc::new(Fused::new(Arc::new(disk.clone()), member.fuse.clone()))
        };
        let disk = fused(&member.journal);
        let replayed = replay::run(&*disk, &|shard| Ok(member.disks.get(&shard).map(fused)));
        if member.fuse.replace() {
            self.tally.fault("power cut in recovery");
            self.take_power(node, "in replay");
            return false;
        }
        match replayed {
            Ok(replayed) => {
                if replayed.bytes > 0 {
                    self.tally.mark("journals that were replayed");
                }
                let process = self.members[node].process.as_mut().expect("it begins");
                process.journal = Journal::new(disk, HALF_BYTES, id);
                true
            }
            Err(error) => {
                self.stopped(node, &error.to_string());
                false
            }
        }
    }

    /// A disk thread finds what was queued while it was busy.
    pub(super) fn queue_together(&mut self, node: (usize, u64), shard: ShardId, write: Write) {
        let Some(process) = self.process(node) else { return };
        process.together.push((shard, write));
        if process.together.len() == 1 {
            let time = self.disk_time();
            let at = self.schedule.now().after(time);
            self.schedule_inside(node, at, Inside::Together);
        }
    }

    pub(super) fn write_together(&mut self, node: (usize, u64)) {
        let Some(process) = self.process(node) else { return };
        let journal = Arc::clone(&process.journal);
        let (shards, writes): (Vec<_>, Vec<_>) =
            std::mem::take(&mut process.together).into_iter().unzip();
        let disk = ShardId::DIRECTORY;
        let Some((all, late)) = self.on_disk(node, disk, || journal.commit(writes)) else { return };
        if shards.len() > 1 && all.iter().map(naust_log::Written::syncs).sum::<u32>() == 1 {
            self.tally.mark("syncs for several logs");
        }
        for (shard, written) in shards.into_iter().zip(all) {
            self.tell_later(node, late, Event::Written { shard, written });
        }
        if let Some(chore) = journal.chore() {
            self.background(node, Inside::Chore(chore));
        }
    }

    pub(super) fn chore(&mut self, node: (usize, u64), chore: Chore) {
        match self.on_disk(node, ShardId::DIRECTORY, || chore.run()) {
            Some((Ok(()), _)) => self.tally.mark("chores of journals"),
            Some((Err(ChoreError::Unmade(_)), _)) | None => {}
            Some((Err(ChoreError::Fault(fault)), _)) => self.stopped(node.0, &fault.to_string()),
        }
    }

    /// The files of a log are about to be replaced or removed. Says whether the process lives on.
    pub(super) fn settle_log(&mut self, node: (usize, u64), shard: ShardId) -> bool {
        // The power may have gone in what was done just before.
        let Some(process) = self.process(node) else { return false };
        let journal = Arc::clone(&process.journal);
        match self.on_disk(node, shard, || journal.settle(shard)) {
            Some((Ok(()), _)) => true,
            Some((Err(fault), _)) => {
                self.stopped(node.0, &fault.to_string());
                false
            }
            None => false,
        }
    }
}
