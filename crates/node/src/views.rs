//! A views thread's core: the machines of one worker's shards, and whoever waits for their
//! records.
//!
//! Folds committed frames in, in log order, answers who proposed them, and looks up what only
//! the owner of a machine knows. Whatever takes time is an [`Output`] again: flushes and
//! compactions go to background threads, reading records' bytes to reads threads.

mod polls;
mod shard;
#[cfg(test)]
mod untold;

use crate::event::{DirectoryAsk, DirectoryChange, Progress};
use crate::open::ForViews;
use crate::{ConnectionId, Now, answer};
use naust_log::Batch;
use naust_machine::{Fault, StreamId, Tables, TablesJob};
use naust_wire::limits::FOLD_WAKES_MAX;
use naust_wire::read::Query as Question;
use naust_wire::reply::{Failure, Reply};
use naust_wire::{Code, Index, LogTime, Offset, RequestId, ShardId, reply};
use polls::Polls;
use rustc_hash::FxHashMap;
use shard::{Existed, Shard};
use std::collections::BTreeSet;
use std::ops::Range;

/// Log bytes of a batch that a worker may fold in itself: it takes tens of microseconds at most.
const FOLD_HERE_BYTES_MAX: u64 = 4096;
/// Milliseconds between two tries to write tables to a full disk.
const RETRY_MS: u64 = 1000;
/// How often it is looked whether readers would gain by a merge.
const LOOK_MS: u64 = 1000;

/// Who waits for the outcome of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiter {
    /// The connection.
    pub connection: ConnectionId,
    /// Its request.
    pub request: RequestId,
}

impl Waiter {
    /// Nobody: an entry of the leader's own, or one that was read back from disk.
    pub const NOBODY: Waiter =
        Waiter { connection: ConnectionId(u64::MAX), request: RequestId(u64::MAX) };
}

/// What a worker has for the views of a shard.
pub enum Job {
    /// Fold frames in and answer who waits for them.
    Apply(Apply),
    /// Answer a question that only the owner of the machine can.
    Query(Query),
    /// Tell what lives in these ranges of the log.
    Live(Vec<Range<Offset>>),
    /// It is so late: what has expired by age?
    Ages(LogTime),
    /// A connection is gone; in all shards.
    Closed(ConnectionId),
    /// Answer long polls now.
    EndPolls,
    /// Tell all workers that they know the directory as it was at this moment.
    Current(DirectoryAsk),
    /// Bring everything that was folded in to disk, then say [`Output::Flushed`].
    Flush,
    /// The log is synced as far as [`Progress::wants_synced`] said.
    Synced,
}

/// What [`Views::fold_here`] left over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// All is done.
    Nothing,
    /// It is time to rotate memtables, or readers wait for what takes longer to find.
    ToMaintain,
}

/// Committed frames and who waits for them.
pub struct Apply {
    /// The frames.
    pub batch: Batch,
    /// The index that the first of `waiters` waits for.
    pub first: Index,
    /// One for each frame from `first` on; none for frames that nobody can wait for any more.
    pub waiters: Vec<Waiter>,
}

/// A question that only the owner of the machine can answer.
#[derive(Debug)]
pub struct Query {
    /// Who asks.
    pub waiter: Waiter,
    /// What: `Records`, `Cursor`, `Describe` or `Digests`.
    pub question: Question,
    /// Until when to wait for a first record, in milliseconds of the monotonic clock.
    pub deadline_ms: u64,
}

/// What the shell does for a views thread. The order of outputs is to be kept.
pub enum Output<T: Tables> {
    /// Send whole packets to a connection.
    Send {
        /// To whom.
        to: ConnectionId,
        /// The packets.
        bytes: Vec<u8>,
    },
    /// To the worker: `Event::Answered`.
    Answered {
        /// Whose questions.
        to: ConnectionId,
        /// How many.
        requests: u32,
    },
    /// To the worker: `Event::Progress`.
    Progress(Progress),
    /// To every worker: `Event::Directory`.
    Directory(DirectoryChange),
    /// To the worker: `Event::Flushed`.
    Flushed(ShardId),
    /// To a reads thread, as `Effect::Read`.
    Read {
        /// Whose.
        shard: ShardId,
        /// What.
        job: answer::Job,
    },
    /// To a background thread; what comes out goes to [`Views::done`].
    Background {
        /// Whose.
        shard: ShardId,
        /// What.
        job: T::Job,
    },
    /// To the worker: `Event::Failed`. The machine is closed already; whoever waited for it in a
    /// long poll was answered, and so is who asks from now on.
    Failed {
        /// Whose views.
        shard: ShardId,
        /// What they failed on.
        cause: Cause,
        /// What clients are told.
        failure: Failure,
    },
}

/// What is damaged when views fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Frames that were to be folded in.
    Log,
    /// The tables.
    Tables,
}

/// The views of one worker's shards. See the module's doc.
pub struct Views<T: Tables> {
    shards: FxHashMap<ShardId, Shard<T>>,
    /// Why the machines failed of shards that the worker may not know to have failed.
    failed: FxHashMap<ShardId, Failure>,
    polls: Polls,
    /// Streams that grew when a worker folded in, some of whose readers it left over.
    to_wake: Vec<(ShardId, StreamId)>,
    /// Shards whose tables found the disk full, and when to try again.
    full: Vec<(u64, ShardId)>,
    /// When it is looked next whether readers would gain by a merge of tables.
    look_at_ms: u64,
    replies: Replies,
    /// What the directory told that was here last.
    directory_told: Existed,
}

impl<T: Tables> Default for Views<T> {
    fn default() -> Views<T> {
        Views {
            shards: FxHashMap::default(),
            failed: FxHashMap::default(),
            polls: Polls::default(),
            to_wake: Vec::new(),
            full: Vec::new(),
            look_at_ms: 0,
            replies: Replies::default(),
            directory_told: Existed::default(),
        }
    }
}

impl<T: Tables> Views<T> {
    /// No views yet.
    #[must_use]
    pub fn new() -> Views<T> {
        Views::default()
    }

    /// Takes in the views of a shard that was opened; to be called before its worker hears of it.
    pub fn install(&mut self, opened: ForViews<T>, outputs: &mut Vec<Output<T>>) {
        let told = match opened.machine.shard() {
            ShardId::DIRECTORY => std::mem::take(&mut self.directory_told),
            _ => Existed::default(),
        };
        let mut shard = Shard::new(opened, told);
        shard.tell_directory(shard.next(), outputs);
        self.shards.insert(shard.id(), shard);
    }

    /// Does a job of a shard. Jobs of shards that are not here (any more) are dropped, but for
    /// questions, which are refused. Who waits for frames of a shard that failed is answered by the
    /// worker.
    pub fn handle(&mut self, now: Now, id: ShardId, job: Job, outputs: &mut Vec<Output<T>>) {
        match job {
            Job::Closed(to) => {
                let requests = self.polls.forget(to) as u32;
                return outputs.push(Output::Answered { to, requests });
            }
            Job::EndPolls => return self.end_polls(id, outputs),
            Job::Query(query) => return self.query(now, id, query, outputs),
            _ => {}
        }
        let Some(shard) = self.shards.get_mut(&id) else { return };
        let mut woken = BTreeSet::new();
        let done = match job {
            Job::Apply(apply) => shard.apply(&apply, &mut self.replies, &mut woken, outputs),
            Job::Live(ranges) => shard.tell_live(ranges, outputs),
            Job::Ages(time) => shard.look_at_ages(time, outputs),
            Job::Flush => shard.flush(outputs),
            Job::Current(ask) => {
                shard.tell_current(ask, outputs);
                Ok(())
            }
            Job::Closed(_) | Job::EndPolls | Job::Query(_) | Job::Synced => Ok(()),
        };
        self.settle(id, done, outputs);
        self.wake(now, id, woken, outputs);
    }

    /// Folds a small batch in that needs nothing but memory, or gives the job back. For a worker,
    /// when the views thread has nothing to do: waking it would take longer. No job may have been
    /// given to that thread before and not be done.
    ///
    /// What may take longer is left over. [`Left::ToMaintain`] is to be followed by
    /// [`Views::maintain`] on the views thread.
    ///
    /// # Errors
    /// The job, untouched, if it is one for the views thread.
    pub fn fold_here(
        &mut self,
        now: Now,
        id: ShardId,
        job: Job,
        outputs: &mut Vec<Output<T>>,
    ) -> Result<Left, Job> {
        let shard = self.shards.get_mut(&id);
        let (Job::Apply(apply), Some(shard)) = (&job, shard) else { return Err(job) };
        if apply.batch.bytes() > FOLD_HERE_BYTES_MAX || !shard.folds_from_memory(apply) {
            return Err(job);
        }
        let mut woken = BTreeSet::new();
        let done = shard.apply(apply, &mut self.replies, &mut woken, outputs);
        let is_due = shard.is_due();
        if let Err(fault) = done {
            self.fail(id, Cause::Tables, &fault, outputs);
        }
        let left_readers = self.wake_here(now, id, woken, outputs);
        Ok(if is_due || left_readers { Left::ToMaintain } else { Left::Nothing })
    }

    /// Does what [`Views::fold_here`] left over.
    pub fn maintain(&mut self, now: Now, id: ShardId, outputs: &mut Vec<Output<T>>) {
        self.settle(id, Ok(()), outputs);
        let woken = self.to_wake.extract_if(.., |(shard, _)| *shard == id);
        let woken = woken.map(|(_, stream)| stream).collect();
        self.wake(now, id, woken, outputs);
    }

    /// Answers who waits for records of these streams.
    fn wake(
        &mut self,
        now: Now,
        id: ShardId,
        streams: BTreeSet<StreamId>,
        outputs: &mut Vec<Output<T>>,
    ) {
        for stream in streams {
            for query in self.polls.wake(id, stream, |_| true) {
                self.query(now, id, query, outputs);
            }
        }
    }

    /// As [`Views::wake`], but notes the streams for [`Views::maintain`] some of whose readers need
    /// tables, or are too many; whether there are any.
    fn wake_here(
        &mut self,
        now: Now,
        id: ShardId,
        streams: BTreeSet<StreamId>,
        outputs: &mut Vec<Output<T>>,
    ) -> bool {
        let (mut room, before) = (FOLD_WAKES_MAX, self.to_wake.len());
        for stream in streams {
            // Of a shard that failed just now all were answered.
            let Some(shard) = self.shards.get(&id) else { break };
            let mut left = false;
            let queries = self.polls.wake(id, stream, |query| {
                let is_answered = room > 0 && shard.answers_from_memory(query);
                room -= usize::from(is_answered);
                left |= !is_answered;
                is_answered
            });
            for query in queries {
                self.query(now, id, query, outputs);
            }
            self.to_wake.extend(left.then_some((id, stream)));
        }
        self.to_wake.len() > before
    }

    /// A flush or a compaction ended.
    pub fn done(
        &mut self,
        now: Now,
        id: ShardId,
        done: <T::Job as TablesJob>::Done,
        outputs: &mut Vec<Output<T>>,
    ) {
        let Some(shard) = self.shards.get_mut(&id) else { return };
        match shard.done(done) {
            Err(fault) if !fault.disk_full => self.fail(id, Cause::Tables, &fault, outputs),
            Err(_) => {
                shard.tell_progress(outputs);
                self.full.push((now.monotonic_ms + RETRY_MS, id));
            }
            Ok(()) => {
                shard.tell_progress(outputs);
                self.settle(id, Ok(()), outputs);
            }
        }
    }

    /// Time passed: long polls end, full disks are tried again, readers have paid for a merge.
    /// To be called about every
    /// [`TICK_MS`](crate::TICK_MS).
    pub fn tick(&mut self, now: Now, outputs: &mut Vec<Output<T>>) {
        for (shard, query) in self.polls.expired(now.monotonic_ms) {
            self.query(now, shard, query, outputs);
        }
        let due = self.full.extract_if(.., |(at, _)| *at <= now.monotonic_ms);
        for (_, id) in due.collect::<Vec<_>>() {
            if let Some(shard) = self.shards.get_mut(&id) {
                shard.try_space_again();
                self.settle(id, Ok(()), outputs);
            }
        }
        if now.monotonic_ms >= self.look_at_ms {
            self.look_at_ms = now.monotonic_ms + LOOK_MS;
            let has_work =
                |(id, shard): (&ShardId, &mut Shard<T>)| shard.look_again().then_some(*id);
            let found: Vec<ShardId> = self.shards.iter_mut().filter_map(has_work).collect();
            for id in found {
                self.settle(id, Ok(()), outputs);
            }
        }
    }

    /// A hash of everything that the views of a shard show, and the offset of the last frame in it;
    /// `None` if they are not here. Reads all rows: for replicas to be compared.
    ///
    /// # Errors
    /// The tables'.
    pub fn digest(&self, id: ShardId) -> Option<Result<(Offset, u64), Fault>> {
        self.shards.get(&id).map(Shard::digest)
    }

    /// Which parts of a range of the log live, as the views of a shard know now; `None` if they are
    /// not here. For replicas to be looked at.
    ///
    /// # Errors
    /// The tables'.
    pub fn live_in(
        &self,
        id: ShardId,
        range: Range<Offset>,
    ) -> Option<Result<Vec<Range<Offset>>, Fault>> {
        self.shards.get(&id).map(|shard| shard.live_in(range))
    }

    /// Closes the views of a shard: nothing of its tables is used any more when this returns,
    /// but by jobs under way.
    pub fn remove(&mut self, id: ShardId, outputs: &mut Vec<Output<T>>) {
        self.shards.remove(&id);
        self.failed.remove(&id);
        for query in self.polls.take_shard(id) {
            self.refuse(id, &query, outputs);
        }
    }

    /// Closes the views of a replica that another one takes the place of: as [`Views::remove`], but
    /// who waits is told to ask again.
    pub fn close(&mut self, id: ShardId, outputs: &mut Vec<Output<T>>) {
        self.take_out(id);
        self.failed.remove(&id);
        for query in self.polls.take_shard(id) {
            let detail = "this replica is being replaced by a newer one; try again";
            let failure = Failure::new(Code::Unavailable, detail);
            answered(id, query.waiter, &Reply::Error(failure), outputs);
        }
    }

    /// The worker knows that a shard has failed, and asks it nothing any more.
    pub fn shut(&mut self, id: ShardId) {
        self.failed.remove(&id);
    }

    fn settle(&mut self, id: ShardId, done: Result<(), Fault>, outputs: &mut Vec<Output<T>>) {
        let Some(shard) = self.shards.get_mut(&id) else { return };
        if let Err(fault) = done.and_then(|()| shard.maintain(outputs)) {
            let cause = if shard.met_bad_log { Cause::Log } else { Cause::Tables };
            self.fail(id, cause, &fault, outputs);
        }
    }

    /// A machine goes, and may come back as another one.
    fn take_out(&mut self, id: ShardId) {
        if let Some(shard) = self.shards.remove(&id).filter(|_| id == ShardId::DIRECTORY) {
            self.directory_told = shard.existed();
        }
    }

    /// A machine that failed may not be asked any more. What is wrong with one harms no other.
    fn fail(&mut self, id: ShardId, cause: Cause, fault: &Fault, outputs: &mut Vec<Output<T>>) {
        let detail = format!("the namespace is closed, since its views can't go on: {fault}");
        let failure = Failure::new(Code::Corrupt, detail);
        self.take_out(id);
        self.failed.insert(id, failure.clone());
        for query in self.polls.take_shard(id) {
            self.refuse(id, &query, outputs);
        }
        outputs.push(Output::Failed { shard: id, cause, failure });
    }

    fn query(&mut self, now: Now, id: ShardId, query: Query, outputs: &mut Vec<Output<T>>) {
        let Some(shard) = self.shards.get(&id) else {
            return self.refuse(id, &query, outputs);
        };
        if let Some(stream) = shard.answer(now, &query, outputs) {
            self.polls.add(id, stream, query);
        }
    }

    fn end_polls(&mut self, id: ShardId, outputs: &mut Vec<Output<T>>) {
        for mut query in self.polls.take_shard(id) {
            query.deadline_ms = 0;
            self.query(Now::default(), id, query, outputs);
        }
    }

    /// Answers a question to a shard that is not here.
    fn refuse(&self, id: ShardId, query: &Query, outputs: &mut Vec<Output<T>>) {
        let gone = || Failure::new(Code::NamespaceNotFound, "the namespace is gone");
        let failure = self.failed.get(&id).cloned().unwrap_or_else(gone);
        answered(id, query.waiter, &Reply::Error(failure), outputs);
    }
}

/// Answers a question here and now.
fn answered<T: Tables>(
    shard: ShardId,
    waiter: Waiter,
    reply: &Reply,
    outputs: &mut Vec<Output<T>>,
) {
    let mut bytes = Vec::new();
    reply::write(waiter.request, shard, reply, &mut bytes);
    outputs.push(Output::Send { to: waiter.connection, bytes });
    outputs.push(Output::Answered { to: waiter.connection, requests: 1 });
}

/// Replies of one batch of frames, one buffer a connection.
#[derive(Default)]
struct Replies {
    buffers: Vec<(ConnectionId, Vec<u8>)>,
    places: FxHashMap<ConnectionId, usize>,
    last: Option<(ConnectionId, usize)>,
    committed: reply::Committed,
}

/// Bytes that the first buffer of replies begins with, so that few grow; and those of others: where
/// there are several connections, each has few replies.
const REPLY_BUFFER_BYTES: usize = 4096;
const REPLY_BUFFERS_BYTES: usize = 512;

impl Replies {
    /// The buffer of a connection.
    fn of(&mut self, connection: ConnectionId) -> &mut Vec<u8> {
        let place = match self.last {
            Some((last, place)) if last == connection => place,
            _ => *self.places.entry(connection).or_insert_with(|| {
                let bytes = match self.buffers.is_empty() {
                    true => REPLY_BUFFER_BYTES,
                    false => REPLY_BUFFERS_BYTES,
                };
                self.buffers.push((connection, Vec::with_capacity(bytes)));
                self.buffers.len() - 1
            }),
        };
        self.last = Some((connection, place));
        &mut self.buffers[place].1
    }

    fn send<T: Tables>(&mut self, outputs: &mut Vec<Output<T>>) {
        self.places.clear();
        self.last = None;
        let buffers = self.buffers.drain(..);
        outputs.extend(buffers.map(|(to, bytes)| Output::Send { to, bytes }));
    }
}
