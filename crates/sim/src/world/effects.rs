//! What a process wants done, and how the world does it: later, and in no other order than was
//! asked for.

use super::member::Inside;
use super::{Happening, World};
use crate::schedule::Moment;
use crate::tables::{SimDone, SimJob};
use naust_machine::TablesJob;
use naust_node::views::{self, Output};
use naust_node::{Effect, Event, answer, fetch};
use naust_wire::{Offset, ShardId};

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
        if let Effect::Write { shard, write } = &effect {
            process.syncs.begins(*shard, !write.leaves_unsynced(), self.schedule.now());
        }
        match effect {
            Effect::Send { to, bytes } => self.deliver(to, bytes),
            Effect::Close(id) if self.network.has(id) => self.close_wire(id),
            Effect::Close(id) => self.close_when_delivered(id),
            Effect::Pause(id, on) => {
                if let Some(line) = self.lines.get_mut(&id) {
                    line.paused = on;
                    let seat = line.seat;
                    self.wake(seat);
                }
            }
            // The shell has such a thread when several are under way; here chance decides.
            Effect::Write { shard, write } if write.is_small() && self.chance.coin() => {
                self.queue_together(life, shard, write);
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
            Effect::Scrub { shard, scrub, bytes } => {
                self.background(life, Inside::Scrub(shard, Box::new(scrub), bytes));
            }
            Effect::CheckTables { shard, from, bytes } => {
                self.background(life, Inside::Check(shard, from, bytes));
            }
            Effect::Mend { shard, mend } => self.background(life, Inside::Mend(shard, mend)),
            Effect::Supply { shard, job } => self.background(life, Inside::Supply(shard, job)),
            Effect::Refold { shard, options } => {
                self.queue_for_views(life, Inside::Refold(shard, options));
            }
            Effect::AskDirectory(ask) => self.news_from_views(life, Event::DirectoryAsked(ask)),
            Effect::ShardClosed(shard) => self.news_from_views(life, Event::ShardClosed(shard)),
            Effect::Report { shard, report } => self.reported(life, shard, &report),
            Effect::Open { shard, options, begin } => {
                self.background(life, Inside::Open(shard, options, begin));
            }
            Effect::Link { node, address } => self.link(life, node, &address),
            Effect::Relink(node) => self.relink(life, node),
            Effect::Unlink(node) => self.unlink(life, node),
            Effect::Peer { to, bytes } => self.say(life, to, bytes),
            Effect::Fetch { shard, job } => self.queue_for_fetches(life, shard, job),
            Effect::Adopt { shard, options, adopt } => {
                self.queue_for_views(life, Inside::Adopt(shard, options, adopt));
            }
            effect @ (Effect::Export { .. }
            | Effect::ExportRead { .. }
            | Effect::ExportEnd { .. }
            | Effect::Import { .. }) => self.queue_transfer(life, effect),
            Effect::Views { shard, job } => {
                self.show(node, shard, &job);
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
            Output::Failed { shard, cause, failure } => {
                if !self.excuses.damage && self.wounds.is_empty() {
                    let what = format!("the views of shard {shard} failed: {}", failure.detail);
                    self.broken(what);
                }
                self.tally.mark("views that failed");
                self.news_from_views(life, Event::Failed { shard, cause, failure });
            }
        }
    }

    pub(super) fn schedule_inside(&mut self, node: (usize, u64), at: Moment, inside: Inside) {
        self.schedule.at(at, Happening::Inside { node, inside });
    }

    pub(super) fn disk_time(&mut self) -> u64 {
        self.chance.skewed(1, self.plan.faults.disk_micros.max(1))
    }

    fn views_time(&mut self) -> u64 {
        self.chance.skewed(1, self.plan.faults.views_micros.max(1))
    }

    /// Background threads do jobs side by side.
    pub(super) fn background(&mut self, node: (usize, u64), inside: Inside) {
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

    fn queue_for_fetches(&mut self, node: (usize, u64), shard: ShardId, job: fetch::Job) {
        let time = self.views_time() + self.disk_time();
        let at = self.schedule.now().after(time);
        self.schedule_inside(node, at, Inside::Fetch(shard, job));
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
    pub(super) fn tell_later(&mut self, node: (usize, u64), late: u64, event: Event<'static>) {
        let late = late + self.chance.skewed(0, 100);
        let at = self.schedule.now().after(late);
        self.schedule_inside(node, at, Inside::Tell(Box::new(event)));
    }

    /// Runs a job of a disk, or as much of it as the power lasts for.
    pub(super) fn on_disk<T>(
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

    pub(super) fn run_tables(&mut self, node: (usize, u64), shard: ShardId, job: SimJob) {
        let done = job.run();
        self.tally.mark(match &done {
            SimDone::Done(_) => "flushes and compactions",
            SimDone::Full(_) => "flushes and compactions without space",
        });
        let time = self.views_time();
        let at = self.schedule.now().after(time);
        self.schedule_inside(node, at, Inside::Done(shard, done));
    }

    pub(super) fn read(&mut self, node: (usize, u64), shard: ShardId, job: &answer::Job) {
        let process = self.process(node).expect("it was just seen");
        let mut bytes = Vec::new();
        let mut met = None;
        match process.readers.get(&shard) {
            Some(readers) => met = answer::run(job, readers, &mut bytes),
            None => answer::run_without(job, &mut bytes),
        }
        if let Some(met) = met {
            self.tell_later(node, 0, Event::Met { shard, met });
        }
        let to = job.to();
        self.note_answer(node);
        self.deliver(to, bytes);
        self.tell_later(node, 0, Event::Answered { to, requests: 1 });
    }

    pub(super) fn fetch(&mut self, node: (usize, u64), shard: ShardId, job: &fetch::Job) {
        let process = self.process(node).expect("it was just seen");
        let fetched = match process.readers.get(&shard) {
            Some(readers) => fetch::run(job, shard, &readers.log),
            None => fetch::run_without(job, shard),
        };
        self.tally.mark("frames fetched for other replicas");
        self.tell_later(node, 0, Event::Fetched(fetched));
    }

    pub(super) fn remove(&mut self, node: (usize, u64), shard: ShardId) {
        if !self.settle_log(node, shard) {
            return;
        }
        self.views(node, |views, _, outputs| views.remove(shard, outputs));
        let member = &mut self.members[node.0];
        member.disks.remove(&shard);
        member.tables.remove(&shard);
        member.handed.remove(&shard);
        member.removed.insert(shard);
        let now = self.schedule.now();
        let known = self.shards.get_mut(&shard).expect("what was open is known");
        known.removed.get_or_insert(now);
        if let Some(process) = &mut member.process {
            process.readers.remove(&shard);
        }
    }

    /// Frames that a node gives to its views are committed: the chronicle takes them down.
    fn show(&mut self, node: usize, shard: ShardId, job: &views::Job) {
        let views::Job::Apply(apply) = job else { return };
        let process = self.members[node].process.as_mut().expect("it shows something");
        if process.unread.contains(&shard) {
            return;
        }
        let mut frames: Vec<(Offset, Vec<u8>)> = Vec::new();
        let read = apply.batch.for_each::<naust_log::ReadError>(&mut |frame| {
            let mut bytes = Vec::new();
            frame.header.write(frame.body, &mut bytes);
            frames.push((frame.header.offset, bytes));
            Ok(())
        });
        if let Err(error) = read {
            // What comes next stands behind frames that nobody saw.
            process.unread.insert(shard);
            if !self.excuses.damage && self.wounds.is_empty() {
                self.broken(format!("shard {shard}: what is committed can't be read: {error}"));
            }
        }
        for (offset, bytes) in frames {
            self.learn(shard, offset, &bytes);
            let end = offset.plus(bytes.len() as u64);
            self.members[node].handed.insert(shard, end);
            let now = self.schedule.now();
            if let Some(process) = &mut self.members[node].process
                && let Some(readers) = process.readers.get(&shard)
                && self.shards[&shard].may_lose()
            {
                process.syncs.shows(shard, end, readers.log.durable(), now);
            }
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
