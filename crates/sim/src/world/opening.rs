//! A node opens a shard: what its disk and its tables hold must be what it once had.

use super::World;
use super::member::CLUSTER;
use super::shards::Shard;
use crate::checkers::words::{self, Kept};
use crate::fuse::Fused;
use crate::history::Violation;
use crate::tables::SimTables;
use naust_log::journal::Journaled;
use naust_log::sim::SimDisk;
use naust_log::{Disk, Identity, Layout, OpenError as LogError};
use naust_node::{Event, open};
use naust_wire::options::NamespaceOptions;
use naust_wire::{Offset, ShardId};
use std::sync::Arc;

impl World {
    /// Opens a shard as the shell does: what is missing is made, if it is to begin here.
    pub(super) fn open(
        &mut self,
        node: (usize, u64),
        id: ShardId,
        options: NamespaceOptions,
        begin: Option<&[u8]>,
    ) {
        let now = self.schedule.now();
        self.trace.note(now, format_args!("node {} opens shard {id}", node.0));
        let segment_bytes = self.plan.segment_bytes;
        self.shards.entry(id).or_insert_with(|| Shard::new(segment_bytes, options));
        let dies =
            !self.calm && self.chance.chance(self.plan.faults.crash_in_recovery_in_a_million);
        let after = self.chance.skewed(0, 400);
        let seed = self.chance.draw();
        let member = &mut self.members[node.0];
        if dies {
            member.fuse.light(after);
        }
        let sky = member.sky.clone();
        let failed = sky.failed();
        let disk = member.disks.entry(id).or_insert_with(|| {
            let disk = SimDisk::new();
            disk.set_weather(Some(Box::new(sky)));
            disk
        });
        let disk: Arc<dyn Disk> = Arc::new(Fused::new(Arc::new(disk.clone()), member.fuse.clone()));
        let tables = member.tables.entry(id).or_default();
        if tables.is_lost() {
            let error = open::OpenError::NoTables("its tables are missing".to_owned());
            // Nothing is opened: the power stays on.
            member.fuse.replace();
            return self.not_opened(node, id, &error);
        }
        // What was not flushed when it was closed in this life, if it was, is gone.
        *tables = tables.crash();
        let tables = tables.clone();
        let machine = self.plan.machine;
        let options = open::Options { node: member.id, namespace: options, machine, seed };
        let journal = member.process.as_ref().expect("a process opens it").journal.clone();
        let opened = Journaled::new(disk, journal, id)
            .map_err(|fault| open::OpenError::Log(LogError::Io(fault)))
            .and_then(|disk| {
                let disk: Arc<dyn Disk> = Arc::new(disk);
                open_or_create(&disk, &tables, id, segment_bytes, &options, begin)
            });
        if self.members[node.0].fuse.replace() {
            self.tally.fault("power cut in recovery");
            return self.take_power(node.0, "in recovery");
        }
        match opened {
            Ok(Some((worker, views))) => self.opened(node, id, worker, views),
            Ok(None) => {
                let member = &mut self.members[node.0];
                if member.handed.contains_key(&id) {
                    return self.broken(format!("node {} has lost shard {id}", node.0));
                }
                self.tell_later(node, 0, Event::NotHere(id));
            }
            Err(error) => {
                if self.members[node.0].sky.failed() > failed {
                    return self.stopped(node.0, &error.to_string());
                }
                self.not_opened(node, id, &error);
            }
        }
    }

    fn opened(
        &mut self,
        node: (usize, u64),
        id: ShardId,
        worker: open::ForWorker,
        views: open::ForViews<SimTables>,
    ) {
        let (hard, last) = (worker.log().hard_state(), worker.log().end().index);
        let kept = Kept { term: hard.term, vote: hard.vote, last };
        // A namespace that is gone binds nobody.
        let binds = self.shards[&id].removed.is_none();
        if let Err(what) = self.words.opened(id, self.members[node.0].id, kept)
            && binds
        {
            self.violations.push(Violation::new(words::NAME, what));
        }
        let readers = views.readers();
        if self.members.len() == 1 {
            self.recovered(id, &readers.log);
        } else {
            self.recovered_replica(node.0, id, &readers.log);
        }
        self.members[node.0].left.opened(id);
        let Some(process) = self.process(node) else { return };
        process.readers.insert(id, readers);
        process.unread.remove(&id);
        let news = process.news_from_views;
        self.views(node, |all, _, outputs| all.install(views, outputs));
        // Behind what the views thread had told of the replica that this one takes the place of.
        let late = news.0.saturating_sub(self.schedule.now().0);
        self.tell_later(node, late, Event::Opened(Box::new(worker)));
    }

    /// What a lone node found on its disk must be what it had shown before, and perhaps more.
    fn recovered(&mut self, id: ShardId, log: &naust_log::Reader) {
        if self.shards[&id].removed.is_some() {
            return self.broken(format!("shard {id} was removed, and is opened again"));
        }
        let shown = self.shards[&id].chronicle.last().map(|entry| entry.header.end());
        if !self.has_what_it_must(0, id, shown.unwrap_or(Offset::FIRST), log.end()) {
            return;
        }
        let from = self.shards[&id].chronicle.first().unwrap_or(Offset::FIRST);
        self.read_back(id, log, from);
    }

    /// What a replica gave to its views is still in its log, and is what all of them have. Behind
    /// that may lie what was never committed.
    fn recovered_replica(&mut self, slot: usize, id: ShardId, log: &naust_log::Reader) {
        let Some(handed) = self.members[slot].handed.get(&id).copied() else { return };
        let end = log.end();
        if !self.has_what_it_must(slot, id, handed, end) {
            return;
        }
        let handed = handed.min(end);
        let from = self.shards[&id].chronicle.first().unwrap_or(Offset::FIRST);
        self.compare_frames(slot, id, log, from, handed);
    }

    /// The frames of a log between two offsets are those of the chronicle.
    pub(super) fn compare_frames(
        &mut self,
        slot: usize,
        id: ShardId,
        log: &naust_log::Reader,
        from: Offset,
        to: Offset,
    ) {
        let mut at = from;
        while at < to {
            match log.frames(at, to, 1 << 20) {
                Ok(chunk) => {
                    let ended = chunk.next() <= at;
                    at = chunk.next();
                    self.learn(id, chunk.from(), chunk.bytes());
                    if ended {
                        return;
                    }
                }
                Err(naust_log::ReadError::Trimmed { next: Some(next) }) if next > at => at = next,
                Err(_) if self.excuses.damage || !self.wounds.is_empty() => return,
                Err(error) => {
                    let behind = |damage| self.behind_scar(slot, id, &damage);
                    let Some(next) = error.damage().and_then(behind) else {
                        return self.broken(format!("slot {slot} shard {id} at {at}: {error}"));
                    };
                    at = next;
                }
            }
        }
    }

    /// Reads a log from its disk and compares it with the chronicle.
    fn read_back(&mut self, id: ShardId, log: &naust_log::Reader, from: Offset) {
        self.compare_frames(0, id, log, from, log.end());
    }
}

type Opened = (open::ForWorker, open::ForViews<SimTables>);

fn open_or_create(
    disk: &Arc<dyn Disk>,
    tables: &SimTables,
    id: ShardId,
    segment_bytes: u64,
    options: &open::Options,
    begin: Option<&[u8]>,
) -> Result<Option<Opened>, open::OpenError> {
    match open::shard(disk.clone(), tables.clone(), id, options) {
        Err(open::OpenError::Log(LogError::Missing)) => {}
        opened => return opened.map(Some),
    }
    let Some(begin) = begin else { return Ok(None) };
    let identity = Identity { node: options.node, shard: id, cluster: CLUSTER };
    let layout = Layout::new(segment_bytes).expect("plans draw legal lengths of segments");
    open::create_with(&**disk, identity, begin, layout)
        .map_err(|fault| open::OpenError::Log(LogError::Io(fault)))?;
    open::shard(disk.clone(), tables.clone(), id, options).map(Some)
}
