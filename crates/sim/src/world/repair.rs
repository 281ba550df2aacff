//! Damage that nodes look for and mend: their jobs, and what they report of it.

use super::World;
use crate::tables::SimTables;
use naust_log::MendError;
use naust_machine::Checked;
use naust_node::Event;
use naust_node::open::{self, OpenError};
use naust_node::repair::{self, Report, Supply};
use naust_wire::ShardId;
use naust_wire::options::NamespaceOptions;
use std::sync::Arc;

impl World {
    pub(super) fn scrub(
        &mut self,
        node: (usize, u64),
        shard: ShardId,
        mut scrub: naust_log::Scrub,
        bytes: u64,
    ) {
        let Some((seen, late)) = self.on_disk(node, shard, || scrub.step(bytes)) else { return };
        self.tell_later(node, late, Event::Scrubbed { shard, scrub, seen });
    }

    pub(super) fn check(&mut self, node: (usize, u64), shard: ShardId, from: u64, bytes: u64) {
        let process = self.process(node).expect("it was just seen");
        let readers = process.readers.get(&shard);
        let checked = readers.map(|readers| readers.tables.check(from, bytes));
        let checked = checked.unwrap_or_else(|| Ok(Checked::default()));
        self.tell_later(node, 0, Event::Checked { shard, checked });
    }

    pub(super) fn mend(&mut self, node: (usize, u64), shard: ShardId, mend: naust_log::Mend) {
        let at = mend.at();
        let Some((outcome, late)) = self.on_disk(node, shard, || mend.run()) else { return };
        if let Err(MendError::Io(fault) | MendError::Unsynced(fault)) = &outcome {
            let now = self.schedule.now();
            self.trace.note(now, format_args!("node {} shard {shard}: {fault}", node.0));
            self.doubt_mend(node.0, shard, at);
        }
        self.tally.mark("places that were mended");
        self.tell_later(node, late, Event::Mended { shard, at, outcome });
    }

    pub(super) fn supply(&mut self, node: (usize, u64), shard: ShardId, job: &Supply) {
        let supplied = repair::supply(job, shard);
        self.tell_later(node, 0, Event::Supplied(supplied));
    }

    /// New tables take the place of damaged ones, if the log has all that they held.
    pub(super) fn refold(&mut self, node: (usize, u64), shard: ShardId, options: NamespaceOptions) {
        self.views(node, |views, _, outputs| views.close(shard, outputs));
        let process = self.process(node).expect("it was just seen");
        process.readers.remove(&shard);
        let disk = self.members[node.0].disks[&shard].clone();
        match open::has_all(Arc::new(disk)) {
            Ok(true) => {
                self.members[node.0].tables.insert(shard, SimTables::default());
                self.tally.mark("tables folded again");
                self.open(node, shard, options, None);
            }
            Ok(false) => {
                let what = "the log has not all".to_owned();
                self.not_opened(node, shard, &OpenError::NoTables(what));
            }
            Err(error) => self.not_opened(node, shard, &OpenError::Log(error)),
        }
    }

    /// A node can't open a shard, and looks who may help.
    pub(super) fn not_opened(&mut self, node: (usize, u64), shard: ShardId, error: &OpenError) {
        if !self.excuses.disk_full && !self.excuses.damage && !self.excuses.mendable {
            self.broken(format!("shard {shard} can't be opened: {error}"));
        }
        self.tally.mark("shards that can't be opened");
        let (failure, number) = (error.failure(), self.chance.draw());
        let member = &self.members[node.0];
        let disk = member.disks.get(&shard).cloned();
        let trouble = disk.and_then(|disk| open::trouble(error, Arc::new(disk), member.id, number));
        let trouble = trouble.map(Box::new);
        self.tell_later(node, 0, Event::NotOpened { shard, failure, trouble });
    }

    /// What operators are told. Damage that nobody did would be damage that the log did.
    pub(super) fn reported(&mut self, node: (usize, u64), shard: ShardId, report: &Report) {
        let now = self.schedule.now();
        self.trace.note(now, format_args!("node {} shard {shard}: {report}", node.0));
        let is_damage =
            matches!(report, Report::Damaged(_) | Report::Tables(_) | Report::Rebuilding(_));
        if is_damage && !self.excuses.damage && !self.excuses.mendable {
            self.broken(format!("shard {shard} of slot {}: {report}", node.0));
        }
        match report {
            Report::Damaged(_) => self.tally.mark("damaged places that were found"),
            Report::Footers(_) => {
                self.tally.mark("footers that were made again");
                if !self.excuses.footers && !self.excuses.damage {
                    self.broken(format!("shard {shard} of slot {}: {report}", node.0));
                }
            }
            Report::Superblock => self.tally.mark("superblocks that were written again"),
            Report::Tables(_) => self.tally.mark("damaged tables that were found"),
            Report::Mended { .. } => self.tally.mark("damaged places that were mended"),
            Report::Unmendable { .. } => self.tally.mark("damaged places that nobody could mend"),
            Report::Rebuilding(_) => self.tally.mark("replicas closed for repair"),
            Report::Rebuilt => self.tally.mark("replicas that were repaired"),
            // What becomes of copies is counted where they begin and end.
            Report::Copied => {}
        }
    }
}
