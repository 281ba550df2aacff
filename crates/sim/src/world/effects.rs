//! What a process wants done, and how the world does it: later, and in no other order than was
//! asked for.

use super::member::{CLUSTER, Inside};
use super::shards::Shard;
use super::{Happening, World};
use crate::fuse::Fused;
use crate::plan::Mode;
use crate::schedule::Moment;
use naust_consensus::Configuration;
use naust_log::sim::SimDisk;
use naust_log::{Disk, Identity, Layout, Log, OpenError as LogError};
use naust_machine::{MemJob, TablesJob};
use naust_node::views::{self, Output};
use naust_node::{Effect, Event, answer, open};
use naust_wire::options::NamespaceOptions;
use naust_wire::{NodeId, Offset, ShardId};
use std::sync::Arc;

impl World {
    /// Carries out what the worker of a node wants.
    pub(super) fn carry_out(&mut self, node: usize) {
        loop {
            let Some(process) = &mut self.members[node].process else { return };
            let effects = std::mem::take(&mut process.effects);
            if effects.is_empty() {
                return;
            }
            for effect in effects {
                self.carry(node, effect);
            }
        }
    }

    fn carry(&mut self, node: usize, effect: Effect) {
        let Some(process) = &mut self.members[node].process else { return };
        let life = (node, process.life);
        match effect {
            Effect::Send { to, bytes } => self.deliver(to, bytes),
            Effect::Close(id) => self.close_when_delivered(id),
            Effect::Pause(id, on) => {
                if let Some(line) = self.lines.get_mut(&id) {
                    line.paused = on;
                    let seat = line.seat;
                    self.wake(seat);
                }
            }
            Effect::Write { shard, write } => {
                // One write of a log at a time is under way, so no queue is needed.
                let time = self.disk_time();
                let at = self.schedule.now().after(time);
                self.schedule_inside(life, at, Inside::Write(shard, write));
            }
            Effect::Extend { shard, extend } => {
                self.background(life, Inside::Extend(shard, extend));
            }
            Effect::Trim { shard, trim } => self.background(life, Inside::Trim(shard, trim)),
            Effect::Open { shard, options, .. } => {
                self.background(life, Inside::Open(shard, options));
            }
            Effect::Link { .. }
            | Effect::Unlink(_)
            | Effect::Peer { .. }
            | Effect::Fetch { .. }
            | Effect::Export { .. }
            | Effect::ExportRead { .. }
            | Effect::ExportEnd { .. }
            | Effect::Import { .. }
            | Effect::Adopt { .. } => {
                unreachable!("a node alone knows no other")
            }
            Effect::Views { shard, job } => {
                self.show(shard, &job);
                self.queue_for_views(life, Inside::Views(shard, job));
            }
            Effect::Sweep { below, kept } => {
                let member = &mut self.members[node];
                let left = member.disks.keys().copied().filter(|shard| {
                    *shard != ShardId::DIRECTORY && *shard < below && !kept.contains(shard)
                });
                for shard in left.collect::<Vec<_>>() {
                    self.remove(life, shard);
                    self.tally.mark("shards swept");
                }
            }
            // Its readers stay: what they are still asked for they can tell.
            Effect::Shut(shard) => self.queue_for_views(life, Inside::Shut(shard)),
            Effect::Remove(shard) => self.queue_for_views(life, Inside::Remove(shard)),
            Effect::Read { shard, job } => self.queue_for_reads(life, shard, job),
            Effect::Drained => self.drained(node),
            Effect::Stop(sentence) => self.stopped(node, &sentence),
        }
    }

    /// Carries out what the views thread of a node wants.
    pub(super) fn carry_out_views(&mut self, node: usize) {
        loop {
            let Some(process) = &mut self.members[node].process else { return };
            let life = (node, process.life);
            let outputs = std::mem::take(&mut process.outputs);
            if outputs.is_empty() {
                return;
            }
            for output in outputs {
                self.carry_views(life, output);
            }
        }
    }

    fn carry_views(&mut self, life: (usize, u64), output: Output<crate::tables::SimTables>) {
        match output {
            Output::Send { to, bytes } => {
                self.note_answer(life);
                self.deliver(to, bytes);
            }
            Output::Answered { to, requests } => {
                self.news_from_views(life, Event::Answered { to, requests });
            }
            Output::Progress(progress) => self.news_from_views(life, Event::Progress(progress)),
            Output::Directory(change) => self.news_from_views(life, Event::Directory(change)),
            Output::Flushed(shard) => self.news_from_views(life, Event::Flushed(shard)),
            Output::Read { shard, job } => self.queue_for_reads(life, shard, job),
            Output::Background { shard, job } => {
                self.background(life, Inside::Tables(shard, job));
            }
            Output::Failed { shard, failure } => {
                if !self.excuses.damage {
                    let what = format!("the views of shard {shard} failed: {}", failure.detail);
                    self.broken(what);
                }
                self.tally.mark("views that failed");
                self.news_from_views(life, Event::Failed { shard, failure });
            }
        }
    }

    fn schedule_inside(&mut self, node: (usize, u64), at: Moment, inside: Inside) {
        self.schedule.at(at, Happening::Inside { node, inside });
    }

    fn disk_time(&mut self) -> u64 {
        self.chance.skewed(1, self.plan.faults.disk_micros.max(1))
    }

    fn views_time(&mut self) -> u64 {
        self.chance.skewed(1, self.plan.faults.views_micros.max(1))
    }

    /// Background threads do jobs side by side.
    fn background(&mut self, node: (usize, u64), inside: Inside) {
        let time = self.disk_time() * 2;
        let at = self.schedule.now().after(time);
        self.schedule_inside(node, at, inside);
    }

    /// The views thread does jobs one after the other.
    fn queue_for_views(&mut self, node: (usize, u64), inside: Inside) {
        let (now, time) = (self.schedule.now(), self.views_time());
        let Some(process) = self.process(node) else { return };
        process.views_free = process.views_free.max(now).after(time);
        let at = process.views_free;
        self.schedule_inside(node, at, inside);
    }

    /// Reads threads take what comes in any order.
    fn queue_for_reads(&mut self, node: (usize, u64), shard: ShardId, job: answer::Job) {
        let time = self.views_time();
        let at = self.schedule.now().after(time);
        self.schedule_inside(node, at, Inside::Read(shard, job));
    }

    /// News of the views thread reach the worker in their order.
    fn news_from_views(&mut self, node: (usize, u64), event: Event<'static>) {
        let (now, time) = (self.schedule.now(), self.chance.skewed(0, 200));
        let Some(process) = self.process(node) else { return };
        process.news_from_views = process.news_from_views.max(now.after(time));
        let at = process.news_from_views;
        self.schedule_inside(node, at, Inside::Tell(Box::new(event)));
    }

    /// A job of a disk ran; its worker hears of it after `late` and whatever the disk's weather
    /// cost.
    fn tell_later(&mut self, node: (usize, u64), late: u64, event: Event<'static>) {
        let late = late + self.chance.skewed(0, 100);
        let at = self.schedule.now().after(late);
        self.schedule_inside(node, at, Inside::Tell(Box::new(event)));
    }

    /// Runs a job of a disk, or as much of it as the power lasts for.
    fn on_disk<T>(
        &mut self,
        node: (usize, u64),
        shard: ShardId,
        job: impl FnOnce() -> T,
    ) -> Option<(T, u64)> {
        let member = &mut self.members[node.0];
        let disk = member.disks.get(&shard).cloned();
        let before = disk.as_ref().map_or(0, |disk| disk.counters().delay_ns);
        if let Some(operations) = member.doomed.take() {
            member.fuse.light(operations);
            let done = job();
            drop(done);
            self.members[node.0].fuse.replace();
            self.tally.fault("power cut inside a disk job");
            self.take_power(node.0, "inside a disk job");
            return None;
        }
        let done = job();
        let after = disk.map_or(0, |disk| disk.counters().delay_ns);
        Some((done, (after - before) / 1000))
    }

    pub(super) fn write(&mut self, node: (usize, u64), shard: ShardId, write: naust_log::Write) {
        let Some((written, late)) = self.on_disk(node, shard, || write.run()) else { return };
        self.tell_later(node, late, Event::Written { shard, written });
    }

    pub(super) fn extend(&mut self, node: (usize, u64), shard: ShardId, job: naust_log::Extend) {
        let Some((extended, late)) = self.on_disk(node, shard, || job.run()) else { return };
        self.tell_later(node, late, Event::Extended { shard, extended });
    }

    pub(super) fn trim(&mut self, node: (usize, u64), shard: ShardId, job: naust_log::Trim) {
        let Some((trimmed, late)) = self.on_disk(node, shard, || job.run()) else { return };
        self.tally.mark("segments trimmed");
        self.tell_later(node, late, Event::Trimmed { shard, trimmed });
    }

    pub(super) fn run_tables(&mut self, node: (usize, u64), shard: ShardId, job: MemJob) {
        let done = job.run();
        self.tally.mark("flushes and compactions");
        let time = self.views_time();
        let at = self.schedule.now().after(time);
        self.schedule_inside(node, at, Inside::Done(shard, done));
    }

    pub(super) fn read(&mut self, node: (usize, u64), shard: ShardId, job: &answer::Job) {
        let process = self.process(node).expect("it was just seen");
        let mut bytes = Vec::new();
        match process.readers.get(&shard) {
            Some(readers) => answer::run(job, readers, &mut bytes),
            None => answer::run_without(job, &mut bytes),
        }
        let to = job.to();
        self.note_answer(node);
        self.deliver(to, bytes);
        self.tell_later(node, 0, Event::Answered { to, requests: 1 });
    }

    pub(super) fn remove(&mut self, node: (usize, u64), shard: ShardId) {
        self.views(node, |views, _, outputs| views.remove(shard, outputs));
        let member = &mut self.members[node.0];
        member.disks.remove(&shard);
        member.tables.remove(&shard);
        self.shards.get_mut(&shard).expect("what was open is known").removed = true;
        if let Some(process) = &mut member.process {
            process.readers.remove(&shard);
        }
    }

    /// Opens a shard as the shell does: what is missing is made.
    pub(super) fn open(&mut self, node: (usize, u64), id: ShardId, options: NamespaceOptions) {
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
        let tables = member.tables.entry(id).or_default().clone();
        let options =
            open::Options { node: NodeId(1), namespace: options, machine: self.plan.machine, seed };
        let opened = open_or_create(&disk, &tables, id, segment_bytes, &options);
        if self.members[node.0].fuse.replace() {
            self.tally.fault("power cut in recovery");
            return self.take_power(node.0, "in recovery");
        }
        match opened {
            Ok((worker, views)) => self.opened(node, id, worker, views),
            Err(error) => {
                if self.members[node.0].sky.failed() > failed {
                    return self.stopped(node.0, &error.to_string());
                }
                let failure = error.failure();
                if self.plan.mode == Mode::Promised && !self.excuses.disk_full {
                    self.broken(format!("shard {id} can't be opened: {error}"));
                }
                self.tally.mark("shards that can't be opened");
                self.tell_later(node, 0, Event::NotOpened { shard: id, failure });
            }
        }
    }

    fn opened(
        &mut self,
        node: (usize, u64),
        id: ShardId,
        worker: open::ForWorker,
        views: open::ForViews<crate::tables::SimTables>,
    ) {
        let readers = views.readers();
        self.recovered(id, &readers.log);
        let Some(process) = self.process(node) else { return };
        process.readers.insert(id, readers);
        self.views(node, |all, _, outputs| all.install(views, outputs));
        self.tell_later(node, 0, Event::Opened(Box::new(worker)));
    }

    /// What a node found on its disk must be what it had shown before, and perhaps more.
    fn recovered(&mut self, id: ShardId, log: &naust_log::Reader) {
        if self.shards[&id].removed {
            return self.broken(format!("shard {id} was removed, and is opened again"));
        }
        let known = self.shards[&id].chronicle.last().map(|entry| entry.header.offset);
        let end = log.end();
        if known.is_some_and(|known| known >= end) {
            if !self.shards[&id].may_lose() {
                let what =
                    format!("shard {id}: {known:?} was committed, but the log ends at {end}");
                self.violations.push(crate::history::Violation::new("durability", what));
                return;
            }
            self.tally.mark("losses that interval durability allows");
            self.judge(self.excuses);
            self.forget(id, end);
        }
        let from = self.shards[&id].chronicle.first().unwrap_or(Offset::FIRST);
        self.read_back(id, log, from);
    }

    /// Reads a log from its disk and compares it with the chronicle.
    fn read_back(&mut self, id: ShardId, log: &naust_log::Reader, from: Offset) {
        let mut at = from;
        while at < log.end() {
            match log.frames(at, log.end(), 1 << 20) {
                Ok(chunk) => {
                    let ended = chunk.next() <= at;
                    at = chunk.next();
                    self.learn(id, chunk.from(), chunk.bytes());
                    if ended {
                        return;
                    }
                }
                Err(naust_log::ReadError::Trimmed { next: Some(next) }) if next > at => at = next,
                Err(_) if self.excuses.damage => return,
                Err(error) => return self.broken(format!("shard {id} at {at}: {error}")),
            }
        }
    }

    /// Frames that a node gives to its views are committed: the chronicle takes them down.
    fn show(&mut self, shard: ShardId, job: &views::Job) {
        let views::Job::Apply(apply) = job else { return };
        let mut frames: Vec<(Offset, Vec<u8>)> = Vec::new();
        let read = apply.batch.for_each::<naust_log::ReadError>(&mut |frame| {
            let mut bytes = Vec::new();
            frame.header.write(frame.body, &mut bytes);
            frames.push((frame.header.offset, bytes));
            Ok(())
        });
        if let Err(error) = read
            && !self.excuses.damage
        {
            self.broken(format!("shard {shard}: what is committed can't be read: {error}"));
        }
        for (offset, bytes) in frames {
            self.learn(shard, offset, &bytes);
        }
    }

    fn note_answer(&mut self, node: (usize, u64)) {
        let now = self.schedule.now();
        let Some(process) = self.process(node) else { return };
        if !std::mem::replace(&mut process.answered, true) {
            let took = now.0 - process.started.0;
            self.tally.recovery_micros = self.tally.recovery_micros.max(took);
        }
    }
}

type Opened = (open::ForWorker, open::ForViews<crate::tables::SimTables>);

fn open_or_create(
    disk: &Arc<dyn Disk>,
    tables: &crate::tables::SimTables,
    id: ShardId,
    segment_bytes: u64,
    options: &open::Options,
) -> Result<Opened, open::OpenError> {
    match open::shard(disk.clone(), tables.clone(), id, options) {
        Err(open::OpenError::Log(LogError::Missing)) => {}
        opened => return opened,
    }
    let identity = Identity { node: options.node, shard: id, cluster: CLUSTER };
    let configuration = Configuration::single(options.node).encode();
    let layout = Layout::new(segment_bytes).expect("plans draw legal lengths of segments");
    Log::create_with(&**disk, identity, &configuration, layout)
        .map_err(|fault| open::OpenError::Log(LogError::Io(fault)))?;
    open::shard(disk.clone(), tables.clone(), id, options)
}
