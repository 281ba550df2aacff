//! The views of one shard.

use super::{Apply, Output, Query, Replies, Waiter, answered};
use crate::Now;
use crate::answer;
use crate::event::{ALWAYS, DirectoryAsk, DirectoryChange, Needs, Progress, Told};
use crate::open::ForViews;
use naust_log::ReadError;
use naust_machine::{
    Applied, Change, Fault, Machine, Mark, Member, Placed, StreamId, Tables, TablesJob,
};
use naust_wire::control::Control;
use naust_wire::frame::Kind;
use naust_wire::limits::{
    FOLD_LOOK_BACK_BYTES_MAX, PAGE_BYTES_MAX, PAGE_ROWS_DEFAULT, TABLE_JOBS_PER_SHARD_MAX,
};
use naust_wire::message::Refusal;
use naust_wire::planted::{self, Bug};
use naust_wire::read::Query as Question;
use naust_wire::reply::{Failure, Reply};
use naust_wire::{Index, LogTime, NodeId, Offset, ShardId, reply};
use std::collections::BTreeSet;
use std::ops::Range;

/// The part of a segment that tables come further before the worker hears what they need of the
/// log.
const NEEDS_STEP: u64 = 8;
/// Runs that a read may have to look into before they count as backlog, and bytes that each
/// counts.
const RUNS_FREE: usize = 24;
const RUN_BYTES: u64 = 32 * 1024 * 1024;

pub(super) struct Shard<T: Tables> {
    machine: Machine<T>,
    /// Shard 0, once opened: the directory is not told before all that its log held then is folded
    /// in. What its tables held may be long past: a namespace that was removed must not come back.
    is_untold: bool,
    log: naust_log::Reader,
    /// What an earlier copy of the directory told: what of it is not there any more went meanwhile.
    told: Existed,
    /// Log bytes in a segment.
    segment_bytes: u64,
    /// Up to where tables were persisted when the worker heard last what they need.
    told_persisted: Offset,
    /// Frames were folded in since it was last looked what expires by age.
    may_age: bool,
    /// A flush is done when all below this is on disk.
    flushing_to: Option<Offset>,
    /// A job found the disk full, and none has succeeded since.
    is_full: bool,
    /// No job is given out until it is time to try again.
    is_waiting: bool,
    jobs_under_way: usize,
    /// No job is given out until the log is synced up to here, which the worker knows.
    unsynced_below: Option<Offset>,
    /// What was committed could not be read back.
    pub(super) met_bad_log: bool,
}

/// Namespaces and nodes that a directory told.
#[derive(Default)]
pub(super) struct Existed {
    names: Vec<(String, ShardId)>,
    nodes: Vec<NodeId>,
}

/// Why folding in ended early.
enum Ended {
    Read(ReadError),
    Fault(Fault),
}

impl From<ReadError> for Ended {
    fn from(error: ReadError) -> Ended {
        Ended::Read(error)
    }
}

impl From<Ended> for Fault {
    fn from(ended: Ended) -> Fault {
        match ended {
            Ended::Fault(fault) => fault,
            Ended::Read(error) => Fault {
                what: format!("what was committed can't be read back from the log: {error}"),
                disk_full: false,
            },
        }
    }
}

impl<T: Tables> Shard<T> {
    /// `told` is what an earlier copy of this shard told of the directory.
    pub(super) fn new(opened: ForViews<T>, told: Existed) -> Shard<T> {
        let ForViews { machine, segment_bytes, log, .. } = opened;
        let is_untold = machine.shard() == ShardId::DIRECTORY;
        Shard {
            machine,
            is_untold,
            log,
            told,
            segment_bytes,
            told_persisted: Offset::FIRST,
            may_age: true,
            flushing_to: None,
            is_full: false,
            is_waiting: false,
            jobs_under_way: 0,
            unsynced_below: None,
            met_bad_log: false,
        }
    }

    pub(super) fn id(&self) -> ShardId {
        self.machine.shard()
    }

    pub(super) fn digest(&self) -> Result<(Offset, u64), Fault> {
        Ok((self.machine.applied().applied, self.machine.digest()?))
    }

    /// Tells what exists, once, as soon as everything is folded in that the log held when it was
    /// opened, and still holds, and the next frame begins at `next`.
    pub(super) fn tell_directory(&mut self, next: Offset, outputs: &mut Vec<Output<T>>) {
        if self.is_untold && next >= self.log.recovered() {
            self.is_untold = false;
            self.tell_gone(outputs);
            outputs.extend(
                self.machine
                    .directory()
                    .nodes()
                    .map(|(node, member)| Output::Directory(node_set(node, member.clone(), None))),
            );
            let (last, others): (Vec<_>, Vec<_>) =
                self.machine.directory().iter().partition(|(name, _)| *name == ALWAYS);
            for (name, placed) in others.into_iter().chain(last) {
                // Before anything is written to it here.
                if placed.closing.is_some() {
                    let closing = DirectoryChange::Closing { shard: placed.shard, told: None };
                    outputs.push(Output::Directory(closing));
                }
                outputs.push(Output::Directory(DirectoryChange::Created {
                    name: name.to_owned(),
                    shard: placed.shard,
                    options: placed.options,
                    replicas: placed.replicas.clone(),
                    told: None,
                }));
            }
            let next = self.machine.directory().next_shard();
            outputs.push(Output::Directory(DirectoryChange::Known { next }));
        }
    }

    /// Tells that everything was told by now, if it was.
    pub(super) fn tell_current(&self, ask: DirectoryAsk, outputs: &mut Vec<Output<T>>) {
        if !self.is_untold {
            outputs.push(Output::Directory(DirectoryChange::Current(ask)));
        }
    }

    /// What was told before a copy took the place of this directory, and is not in the copy.
    fn tell_gone(&mut self, outputs: &mut Vec<Output<T>>) {
        let Existed { names, nodes } = std::mem::take(&mut self.told);
        let directory = self.machine.directory();
        let is_gone = |name: &str, shard: ShardId| {
            directory.get(name).is_none_or(|placed| placed.shard != shard)
        };
        let names = names.into_iter().filter(|(name, shard)| is_gone(name, *shard));
        outputs.extend(names.map(|(name, shard)| {
            Output::Directory(DirectoryChange::Deleted { name, shard, told: None })
        }));
        let is_there = |node: &NodeId| directory.nodes().any(|(other, _)| other == *node);
        let nodes = nodes.into_iter().filter(|node| !is_there(node));
        outputs.extend(
            nodes.map(|node| Output::Directory(DirectoryChange::NodeRemoved { node, told: None })),
        );
    }

    /// What this directory has told; of another shard nothing.
    pub(super) fn existed(self) -> Existed {
        if self.id() != ShardId::DIRECTORY || self.is_untold {
            return self.told;
        }
        let directory = self.machine.directory();
        let names = directory.iter().map(|(name, placed)| (name.to_owned(), placed.shard));
        let nodes = directory.nodes().map(|(node, _)| node);
        Existed { names: names.collect(), nodes: nodes.collect() }
    }

    /// Where the next frame begins.
    pub(super) fn next(&self) -> Offset {
        self.machine.applied().next
    }

    pub(super) fn apply(
        &mut self,
        apply: &Apply,
        replies: &mut Replies,
        woken: &mut BTreeSet<StreamId>,
        outputs: &mut Vec<Output<T>>,
    ) -> Result<(), Fault> {
        let shard = self.id();
        let mut whole = self.machine.applied();
        let mut configured = false;
        let durable = self.log.durable();
        let ended = apply.batch.for_each::<Ended>(&mut |frame| {
            let waiter = waiter_of(apply, frame.header.index);
            self.tell_directory(frame.header.offset, outputs);
            let untold = self.is_untold;
            let applied = self.machine.apply(&frame).map_err(Ended::Fault)?;
            configured |= frame.header.kind == Kind::Configure;
            if let Applied::Committed { streams, .. } = &applied {
                woken.extend(*streams);
            }
            match applied {
                // It is a part of what will be told.
                Applied::Directory(..) if untold => {}
                Applied::Directory(offset, change) => {
                    let told = waiter.map(|waiter| Told { waiter, offset });
                    outputs.push(Output::Directory(directory_change(change, told)));
                }
                applied => {
                    if let Some(waiter) = waiter {
                        replies.write(shard, waiter, applied, durable);
                    }
                }
            }
            whole = self.machine.applied();
            Ok(())
        });
        if let Err(ended) = ended {
            // The worker is to know whose replies were written, and of no frame that was not
            // folded in to its end.
            replies.send(outputs);
            outputs.push(Output::Progress(self.progress_at(whole)));
            self.met_bad_log = matches!(ended, Ended::Read(_));
            return Err(ended.into());
        }
        if configured {
            // Who comes back after a crash must know it, or may look for a quorum among those who
            // are gone.
            self.machine.flush();
        }
        self.tell_directory(self.next(), outputs);
        self.may_age = true;
        replies.send(outputs);
        self.tell_progress(outputs);
        Ok(())
    }

    /// Whether folding these frames in needs no disk, and no long look at recent writes.
    pub(super) fn folds_from_memory(&self, apply: &Apply) -> bool {
        if self.is_untold || !apply.batch.is_in_memory() || self.is_due() {
            return false;
        }
        let mut back = Some(0u64);
        let all = apply.batch.for_each::<ReadError>(&mut |frame| {
            back = back.and_then(|back| back.checked_add(Machine::<T>::looks_back(&frame)?));
            Ok(())
        });
        all.is_ok() && back.is_some_and(|bytes| bytes <= FOLD_LOOK_BACK_BYTES_MAX)
    }

    /// Whether it is time to rotate memtables.
    pub(super) fn is_due(&self) -> bool {
        self.machine.is_due()
    }

    /// Whether [`maintain`](Shard::maintain) may have work because of what was read.
    pub(super) fn look_again(&mut self) -> bool {
        self.machine.look_again()
    }

    /// How far the views are, and what changed beside.
    pub(super) fn tell_progress(&mut self, outputs: &mut Vec<Output<T>>) {
        let needs = self.needs_if_changed();
        outputs.push(Output::Progress(Progress { needs, ..self.progress() }));
    }

    fn progress(&self) -> Progress {
        let runs = self.machine.backlog().saturating_sub(RUNS_FREE) as u64;
        let memory_bytes = self.machine.memory_bytes();
        let backlog_bytes = memory_bytes + runs * RUN_BYTES;
        Progress { backlog_bytes, memory_bytes, ..self.progress_at(self.machine.applied()) }
    }

    fn progress_at(&self, mark: Mark) -> Progress {
        Progress {
            shard: self.id(),
            applied: mark.applied,
            next: mark.next,
            index: mark.index,
            backlog_bytes: 0,
            memory_bytes: 0,
            disk_full: self.is_full,
            needs: None,
            floors: None,
            ages: self.may_age,
            wants_synced: None,
            closed: self.machine.is_closed(),
        }
    }

    fn needs_if_changed(&mut self) -> Option<Needs> {
        let persisted = self.machine.persisted();
        if persisted < self.told_persisted.plus(self.segment_bytes / NEEDS_STEP) {
            return None;
        }
        self.told_persisted = persisted;
        Some(self.needs())
    }

    fn needs(&self) -> Needs {
        let needed = self.machine.log_needed();
        Needs { persisted: needed.persisted, keep_from: needed.recent_from, live: Vec::new() }
    }

    pub(super) fn live_in(&self, range: Range<Offset>) -> Result<Vec<Range<Offset>>, Fault> {
        self.machine.live_in(range.start, range.end)
    }

    pub(super) fn tell_live(
        &mut self,
        ranges: Vec<Range<Offset>>,
        outputs: &mut Vec<Output<T>>,
    ) -> Result<(), Fault> {
        let mut needs = self.needs();
        for range in ranges {
            let live = self.live_in(range.clone())?;
            needs.live.push((range, live));
        }
        outputs.push(Output::Progress(Progress { needs: Some(needs), ..self.progress() }));
        Ok(())
    }

    pub(super) fn look_at_ages(
        &mut self,
        now: LogTime,
        outputs: &mut Vec<Output<T>>,
    ) -> Result<(), Fault> {
        let floors = self.machine.floors_due(now)?;
        // Would anything expire if nothing ever happened again?
        self.may_age = self.machine.ages();
        let floors = (!floors.is_empty()).then(|| {
            let mut body = Vec::new();
            Control::Floors(floors).encode(&mut body);
            body
        });
        if floors.is_some() || self.may_age {
            outputs.push(Output::Progress(Progress { floors, ..self.progress() }));
        }
        Ok(())
    }

    pub(super) fn flush(&mut self, outputs: &mut Vec<Output<T>>) -> Result<(), Fault> {
        // What is folded in later does not belong to it: under load there would be no end.
        self.flushing_to = Some(self.machine.applied().next);
        self.machine.flush();
        self.end_flush(outputs);
        Ok(())
    }

    pub(super) fn done(&mut self, done: <T::Job as TablesJob>::Done) -> Result<(), Fault> {
        // One of tables that were closed before, which these took the place of, was not counted.
        self.jobs_under_way = self.jobs_under_way.saturating_sub(1);
        let ended = self.machine.done(done);
        self.is_full = ended.as_ref().is_err_and(|fault| fault.disk_full);
        self.is_waiting |= self.is_full;
        ended
    }

    /// Space may have returned.
    pub(super) fn try_space_again(&mut self) {
        self.is_waiting = false;
    }

    /// Rotates memtables if it is time, and gives work to the background.
    pub(super) fn maintain(&mut self, outputs: &mut Vec<Output<T>>) -> Result<(), Fault> {
        if self.is_waiting || self.waits_for_log(outputs) {
            return Ok(());
        }
        self.machine.rotate_if_due()?;
        if self.waits_for_log(outputs) {
            return Ok(());
        }
        while self.jobs_under_way < TABLE_JOBS_PER_SHARD_MAX
            && let Some(job) = self.machine.job()
        {
            self.jobs_under_way += 1;
            outputs.push(Output::Background { shard: self.id(), job });
        }
        if self.is_full && self.jobs_under_way == 0 {
            // What failed is not tried again by itself: there is nothing to wait for.
            self.is_full = false;
            self.tell_progress(outputs);
        }
        self.end_flush(outputs);
        Ok(())
    }

    /// What tables have on disk, the log beside them must have there too. What was rotated may be
    /// of frames that are written and not synced yet: then the worker is told to hasten.
    fn waits_for_log(&mut self, outputs: &mut Vec<Output<T>>) -> bool {
        let rotated = self.machine.rotated_to();
        if rotated <= self.log.durable() || planted::has(Bug::TablesAhead) {
            self.unsynced_below = None;
            return false;
        }
        if self.unsynced_below.replace(rotated) != Some(rotated) {
            let wants_synced = Some(rotated);
            outputs.push(Output::Progress(Progress { wants_synced, ..self.progress() }));
        }
        true
    }

    fn end_flush(&mut self, outputs: &mut Vec<Output<T>>) {
        if self.flushing_to.is_some_and(|to| self.machine.persisted() >= to) {
            self.flushing_to = None;
            outputs.push(Output::Flushed(self.id()));
        }
    }

    /// Whether [`answer`](Shard::answer) answers a reader of a stream without a look at tables.
    pub(super) fn answers_from_memory(&self, query: &Query) -> bool {
        match &query.question {
            Question::Records { stream, from, .. } => {
                self.machine.locates_from_memory(stream, *from)
            }
            _ => false,
        }
    }

    /// Answers a question; the stream to wait for if there is nothing yet and it has patience.
    pub(super) fn answer(
        &self,
        now: Now,
        query: &Query,
        outputs: &mut Vec<Output<T>>,
    ) -> Option<StreamId> {
        let reply = match &query.question {
            Question::Records { stream, from, limit, max_bytes, .. } => {
                let limit = if *limit == 0 { PAGE_ROWS_DEFAULT } else { *limit as usize };
                let bytes = if *max_bytes == 0 { PAGE_BYTES_MAX } else { *max_bytes as usize };
                let located = self.machine.locate(stream, *from, limit, bytes.min(PAGE_BYTES_MAX));
                match located {
                    Ok(located) if located.places.is_empty() => {
                        if query.deadline_ms > now.monotonic_ms {
                            return self.machine.stream_id(stream);
                        }
                        let (next, end) = (located.next, located.end);
                        Reply::Records { records: Vec::new(), next, end }
                    }
                    Ok(located) => {
                        let job = answer::Job::records(query.waiter, self.id(), located);
                        outputs.push(Output::Read { shard: self.id(), job });
                        return None;
                    }
                    Err(error) => Reply::Error(answer::failure(error)),
                }
            }
            Question::Cursor { stream, cursor } => match self.machine.cursor(stream, cursor) {
                Ok(offset) => Reply::Cursor(offset),
                Err(refusal) => Reply::Error(Failure::new(refusal.code, refusal.detail)),
            },
            Question::Describe { from, limit } => {
                let limit = if *limit == 0 { PAGE_ROWS_DEFAULT } else { *limit as usize };
                match self.machine.describe(from.as_ref(), limit) {
                    Ok(page) => page,
                    Err(refusal) => Reply::Error(Failure::new(refusal.code, refusal.detail)),
                }
            }
            Question::Digests { at } => match self.machine.noted_digests(*at) {
                Ok(views) => Reply::Digests(views),
                Err(refusal) => Reply::Error(Failure::new(refusal.code, refusal.detail)),
            },
            Question::Get { .. } | Question::Scan { .. } | Question::Log { .. } => {
                unreachable!("the worker sends these to the reads threads")
            }
        };
        answered(self.id(), query.waiter, &reply, outputs);
        None
    }
}

fn waiter_of(apply: &Apply, index: Index) -> Option<Waiter> {
    let place = index.0.checked_sub(apply.first.0)?;
    let waiter = apply.waiters.get(usize::try_from(place).ok()?)?;
    (*waiter != Waiter::NOBODY).then_some(*waiter)
}

fn node_set(node: NodeId, member: Member, told: Option<Told>) -> DirectoryChange {
    let Member { name, address } = member;
    DirectoryChange::NodeSet { node, name, address, told }
}

fn directory_change(change: Change, told: Option<Told>) -> DirectoryChange {
    match change {
        Change::Created { name, placed: Placed { shard, options, replicas, .. } } => {
            DirectoryChange::Created { name, shard, options, replicas, told }
        }
        Change::Closing { shard, at, .. } => {
            let told = told.map(|told| Told { offset: at, ..told });
            DirectoryChange::Closing { shard, told }
        }
        Change::Deleted { name, shard } => DirectoryChange::Deleted { name, shard, told },
        Change::NodeSet { node, member } => node_set(node, member, told),
        Change::NodeRemoved(node) => DirectoryChange::NodeRemoved { node, told },
    }
}

impl Replies {
    /// The reply to who proposed a frame. What lies behind `durable` is not synced yet.
    fn write(&mut self, shard: ShardId, waiter: Waiter, applied: Applied<'_>, durable: Offset) {
        let Waiter { connection, request } = waiter;
        let reply = match applied {
            Applied::Committed { offset, ids, ranges, duplicate, .. } => {
                let mut committed = std::mem::take(&mut self.committed);
                committed.offset = offset;
                committed.duplicate = duplicate;
                committed.interval = offset >= durable;
                committed.ids.clear();
                committed.ids.extend_from_slice(ids);
                committed.ranges.clear();
                committed.ranges.extend_from_slice(ranges);
                reply::write_committed(request, shard, &committed, self.of(connection));
                self.committed = committed;
                return;
            }
            Applied::Refused(refused) => Reply::Refused(refused),
            Applied::Failed(Refusal { code, detail }) => Reply::Error(Failure::new(code, detail)),
            Applied::Session(session) => Reply::Session(session),
            Applied::Done(offset) => Reply::Done(offset),
            Applied::Nothing | Applied::Directory(..) => {
                unreachable!("nobody waits for these here")
            }
        };
        reply::write(request, shard, &reply, self.of(connection));
    }
}
