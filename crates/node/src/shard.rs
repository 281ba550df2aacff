//! A shard as its worker sees it: Raft, the log, and who waits for what.
//!
//! ```text
//!   applied          handed              committed, durable          log.end()
//!      |--- at the views ---|--- on this disk ---|--- being written, staged ---|
//!      '------------------------ under_way: who waits for each -----------------'
//! ```
//! A request is staged into the log as soon as it is admitted, with the index and term that
//! Raft is bound to give it; Raft is told of all of them at once by [`Shard::drive`], at the
//! end of a burst.
//!
//! What it has to do with other replicas is in `replicate`.
//!
//! Invariants: nothing touches the replica between staging and the `propose` that tells it, and
//! what Raft appends of its own is staged before anything else;
//! `under_way[i]` is the entry `first + i`; one write of the log is under way at most.

mod end;
mod interval;
mod lag;
mod mend;
mod noting;
mod pace;
mod replicate;
mod transfer;
mod trim;
mod waiting;

pub use transfer::Import;
pub(crate) use transfer::{Copied, Taken};
pub(crate) use waiting::{Asked, Question};

use crate::clock::Clock;
use crate::event::Progress;
use crate::mending::Mending;
use crate::open::ForWorker;
use crate::peers::Peers;
use crate::transfer::Adopt;
use crate::views::Waiter;
use crate::{ConnectionId, Effect, Now, answer, views};
use end::End;
use interval::Interval;
use naust_consensus::{EntryKind, Replica, Role};
use naust_log::{Extended, Fault, Log, Staged, Trimmed, Written};
use naust_wire::frame::Kind;
use naust_wire::limits::{BACKLOG_BYTES_MAX, UNAPPLIED_BYTES_MAX, UNAPPLIED_FRAMES_MAX};
use naust_wire::options::NamespaceOptions;
use naust_wire::planted::{self, Bug};
use naust_wire::read::{Level, Query, Read};
use naust_wire::reply::Failure;
use naust_wire::{Code, Index, NodeId, Offset, ShardId, Term};
use noting::Noting;
use replicate::{Incoming, Replication};
use std::collections::{BTreeSet, VecDeque};
use transfer::Transfers;
use trim::Trimming;
use waiting::Waiting;

/// Frames that are given to the views at once: their replies leave together, and clients go on
/// with the first while the next are folded in.
const APPLY_FRAMES: u64 = 128;
/// Log bytes that are given to the views at once while they catch up with what the log held when
/// it was opened: between two such steps rows can leave memory, and other shards have their turn.
const STEP_BYTES: u64 = 4 * 1024 * 1024;
/// Frames under way that memory is kept for.
const UNDER_WAY_KEPT: usize = 16 * 1024;
/// Milliseconds between two tries to write to a full disk.
const RETRY_MS: u64 = 1000;
/// Milliseconds between two looks at what expires by time alone.
const AGES_MS: u64 = 1000;

/// A shard of this worker.
pub(crate) struct Shard {
    pub(crate) id: ShardId,
    /// This node.
    node: NodeId,
    pub(crate) replica: Replica,
    pub(crate) log: Log,
    clock: Clock,
    /// Frames that are staged and not yet folded in; the first has the index `first`.
    under_way: VecDeque<UnderWay>,
    first: Index,
    /// Where the log ended when it was opened: what lies before it may have to be read back.
    opened: Index,
    /// Staged since Raft was told last.
    proposed: usize,
    /// Readies that are not durable yet: number, last index.
    readies: VecDeque<(u64, Index)>,
    /// The last Ready that the write under way carries.
    writing: Option<u64>,
    extending: bool,
    committed: Index,
    /// Given to the views: the last index, and where the next frame begins.
    handed: (Index, Offset),
    applied: Progress,
    /// The disk had no space; writes are refused until one succeeds.
    is_full: bool,
    /// When to try again.
    retry_ms: Option<u64>,
    ages_ms: Option<u64>,
    interval: Interval,
    trimming: Trimming,
    noting: Noting,
    pub(crate) waiting: Waiting,
    replication: Replication,
    transfers: Transfers,
    pub(crate) mending: Mending,
    /// A scrub of its log is under way.
    pub(crate) is_scrubbed: bool,
    /// What becomes of it once it is closed and nobody uses it.
    pub(crate) then: Then,
    /// Questions to the node whose moment has come.
    pub(crate) asks: Vec<Asked>,
    /// Who waits for frames that were cut off, and is not told yet.
    unanswered: Vec<Waiter>,
    /// Whose reads were answered here, for the node's count.
    pub(crate) answered: Vec<ConnectionId>,
    /// Held because this shard is behind.
    pub(crate) held: BTreeSet<ConnectionId>,
    /// Its share of the node's count of bytes.
    counted_bytes: u64,
    /// The node ends, and nobody waits for what is not committed.
    is_given_up: bool,
    pub(crate) end: End,
    /// It is on the node's list of shards to be driven.
    pub(crate) is_touched: bool,
    /// When it is to be looked at by the node's timers.
    pub(crate) timer_ms: Option<u64>,
}

/// What becomes of a replica that is closed.
pub(crate) enum Then {
    /// It goes, with its directory.
    Remove,
    /// Its directory stays, for people to look at.
    Stay,
    /// It is opened again: then it is found out what is damaged.
    Reopen(NamespaceOptions),
    /// Its log is folded into new tables.
    Refold(NamespaceOptions),
    /// Another one takes its place.
    Adopt(Box<Adopt>, NamespaceOptions),
}

struct UnderWay {
    waiter: Waiter,
    end: Offset,
}

/// Why a shard can't take a write now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Busy {
    NotLeader(Option<NodeId>),
    /// Another replica, which is to lead soon, may have space.
    LeaderFull,
    DiskFull,
    Overloaded,
}

impl Shard {
    pub(crate) fn new(opened: ForWorker, now: Now) -> Shard {
        let ForWorker { shard, replica, log, applied, tail, .. } = opened;
        let end = log.end();
        let last = (end.index.0 > 0).then_some(end.time);
        let waiter = Waiter::NOBODY;
        let mut interval = Interval::default();
        interval.note_change(end.index);
        Shard {
            id: shard,
            node: log.identity().node,
            replica,
            clock: Clock::new(last, now),
            under_way: tail.into_iter().map(|end| UnderWay { waiter, end }).collect(),
            first: applied.index.next(),
            opened: end.index,
            log,
            proposed: 0,
            readies: VecDeque::new(),
            writing: None,
            extending: false,
            committed: applied.index,
            handed: (applied.index, applied.next),
            applied,
            is_full: false,
            retry_ms: None,
            // What expired while it was closed is found out without a write.
            ages_ms: Some(now.monotonic_ms + AGES_MS),
            interval,
            trimming: Trimming::default(),
            noting: Noting::default(),
            waiting: Waiting::default(),
            replication: Replication::default(),
            transfers: Transfers::default(),
            mending: Mending::default(),
            is_scrubbed: false,
            then: Then::Remove,
            asks: Vec::new(),
            unanswered: Vec::new(),
            answered: Vec::new(),
            held: BTreeSet::new(),
            counted_bytes: 0,
            is_given_up: false,
            end: End::default(),
            is_touched: false,
            timer_ms: None,
        }
    }

    /// How fast all of it is sent to others at the most while clients write.
    pub(crate) fn set_pace(&mut self, pace: &crate::Pace) {
        self.transfers.pace.set_most(pace.transfer_bytes_per_s);
    }

    /// Where committed frames end here.
    pub(crate) fn end(&self) -> Offset {
        self.handed.1
    }

    /// The last frame that its views have folded in, or had before they were closed.
    pub(crate) fn shown(&self) -> Offset {
        self.applied.applied.max(self.waiting.shown())
    }

    /// Where the frames end that the views have folded in.
    pub(crate) fn applied_end(&self) -> Offset {
        self.applied.next
    }

    /// Log bytes that are staged and not yet folded in.
    fn unapplied_bytes(&self) -> u64 {
        self.log.end().offset.0.saturating_sub(self.applied.next.0)
    }

    /// Brings the node's count of bytes up to date with this shard.
    pub(crate) fn count_bytes(&mut self, total: &mut u64) {
        let now = self.unapplied_bytes();
        *total = *total - self.counted_bytes + now;
        self.counted_bytes = now;
    }

    /// Whether everything that was staged is folded in; once it was given up, everything that the
    /// views were given.
    pub(crate) fn is_settled(&self) -> bool {
        let last = self.log.end().index;
        let all = self.applied.index == last && self.log.durable().index == last;
        (all || self.is_given_up && self.has_views_done()) && self.waiting.is_empty()
    }

    /// Whether a thread of the shell works on its log.
    pub(crate) fn is_in_use(&self) -> bool {
        let repairs = self.is_scrubbed || self.mending.is_writing();
        self.writing.is_some() || self.extending || self.trimming.is_under_way() || repairs
    }

    /// Whether those who write to it should wait a little: half of a bound is reached.
    pub(crate) fn is_behind(&self) -> bool {
        self.is_beyond(2)
    }

    /// Whether they may go on: a quarter of every bound.
    pub(crate) fn has_caught_up(&self) -> bool {
        !self.is_beyond(4)
    }

    fn is_beyond(&self, part: u64) -> bool {
        let frames = self.log.end().index.0 - self.applied.index.0;
        self.unapplied_bytes() > UNAPPLIED_BYTES_MAX / part
            || frames > UNAPPLIED_FRAMES_MAX as u64 / part
            || self.applied.backlog_bytes > BACKLOG_BYTES_MAX / part
    }

    /// Sees to it that this replica leads, if it may at once, and that it can take one more
    /// write.
    pub(crate) fn admit(&mut self) -> Result<(), Busy> {
        if !self.replica.may_propose() {
            self.lead()?;
        }
        if self.is_full || self.applied.disk_full {
            // Time is to pass, for a replica with space to lead.
            self.wake();
            return Err(match self.hopes_for_space() {
                true => Busy::LeaderFull,
                false => Busy::DiskFull,
            });
        }
        if self.is_beyond(1) {
            return Err(Busy::Overloaded);
        }
        Ok(())
    }

    /// A lone voter campaigns when it is first written to, so that an idle one costs nothing.
    fn lead(&mut self) -> Result<(), Busy> {
        if self.replica.is_lone_voter() {
            self.replica.campaign();
            self.take_readies();
            self.settle_role();
        }
        match self.replica.may_propose() {
            true => Ok(()),
            false => Err(Busy::NotLeader(self.replica.leader().filter(|id| *id != self.node))),
        }
    }

    /// Copies a body into the log, after `admit` said yes.
    pub(crate) fn stage(&mut self, kind: Kind, body: &[u8], waiter: Waiter, now: Now) -> Staged {
        if std::mem::take(&mut self.replication.clock_is_late) {
            let end = self.log.end();
            self.clock = Clock::new((end.index.0 > 0).then_some(end.time), now);
        }
        self.wake();
        if waiter != Waiter::NOBODY {
            self.transfers.written_ms = Some(now.monotonic_ms);
        }
        let time = self.clock.stamp(now);
        let index = self.log.end().index.next();
        let staged = self.log.stage(kind, self.replica.term(), index, time, body);
        self.under_way.push_back(UnderWay { waiter, end: staged.end });
        self.proposed += 1;
        staged
    }

    /// What follows from everything that happened to the shard in this burst.
    pub(crate) fn drive(&mut self, now: Now, peers: &mut Peers, effects: &mut Vec<Effect>) {
        self.drive_end(now, effects);
        self.propose();
        self.take_readies();
        self.ask_index();
        self.send_messages(now, peers, effects);
        self.hand_over(effects);
        self.answer_deposed(effects);
        self.answer_reads(effects);
        self.drive_transfers(now, peers, effects);
        self.drive_mending(now, peers, effects);
        self.drive_trimming(now, effects);
        self.tell_synced(effects);
        if let Some(write) = self.next_write(now) {
            self.writing = Some(self.readies.back().map_or(0, |(number, _)| *number));
            self.transfers.pace.write_begins(now.monotonic_ms);
            effects.push(Effect::Write { shard: self.id, write });
        }
        if let Some(extend) = self.log.extend() {
            self.extending = true;
            effects.push(Effect::Extend { shard: self.id, extend });
        }
        self.note_space(now);
    }

    /// A full disk is tried again in a while; one that took everything is not full.
    fn note_space(&mut self, now: Now) {
        if self.log.is_full() {
            self.is_full = true;
            self.retry_ms = self.retry_ms.or(Some(now.monotonic_ms + RETRY_MS));
        } else if self.writing.is_none() {
            self.is_full = false;
        }
    }

    /// Asks Raft up to where fresh linearizable reads have to wait. Without a leader they wait for
    /// one.
    fn ask_index(&mut self) {
        if !self.waiting.has_fresh() {
            return;
        }
        self.wake();
        if self.replica.is_lone_voter() && self.replica.role() != Role::Leader {
            // Whatever was ever acknowledged lies in its log; there is nobody to ask.
            self.waiting.all_wait_for(self.log.written_to().index);
            return;
        }
        if planted::has(Bug::FollowerReadsAlone) && self.replica.role() != Role::Leader {
            self.waiting.all_wait_for(self.handed.0);
            return;
        }
        let token = self.waiting.next_token();
        match self.replica.read(token) {
            Ok(()) => self.take_readies(),
            Err(_) => self.waiting.ask_again(),
        }
    }

    fn refuse(&mut self, asked: &Asked, failure: Failure, effects: &mut Vec<Effect>) {
        if matches!(asked.question, Some(Question::Current(_))) {
            return;
        }
        crate::replies::fail(asked.to, asked.request, self.id, failure, effects);
        self.answered.push(asked.to);
    }

    /// Tells Raft of what was staged.
    fn propose(&mut self) {
        let count = std::mem::take(&mut self.proposed);
        if count == 0 {
            return;
        }
        let (term, indices) = self.replica.propose(count).expect("it led when they were staged");
        let end = self.log.end();
        assert!(
            term == end.term && indices.end == end.index.next(),
            "Raft gives the indices that were foreseen"
        );
    }

    /// What Raft appended of its own is staged before anything else is.
    fn keep_up(&mut self) {
        if self.replica.has_appended() {
            self.take_readies();
        }
    }

    fn take_readies(&mut self) {
        let taken = self.take_readies_with(&Incoming::default());
        assert!(taken.is_ok(), "only another replica's frames can fail");
    }

    fn take_entry(&mut self, index: Index, term: Term, kind: &EntryKind) {
        let (kind, body) = match kind {
            // Staged when it was admitted.
            EntryKind::Normal => return,
            EntryKind::Empty => (Kind::Empty, &[][..]),
            EntryKind::Configure(bytes) => (Kind::Configure, &bytes[..]),
        };
        let time = self.log.end().time;
        let staged = self.log.stage(kind, term, index, time, body);
        self.interval.note_change(index);
        self.under_way.push_back(UnderWay { waiter: Waiter::NOBODY, end: staged.end });
    }

    /// A disk thread ended a write.
    pub(crate) fn written(&mut self, written: Written, now: Now) -> Result<(), Fault> {
        let is_refused = written.disk_full();
        // Also if it failed: nobody works on the log any more.
        let number = self.writing.take().expect("a write was under way");
        self.log.written(written)?;
        self.transfers.pace.write_ended(now.monotonic_ms);
        self.note_space(now);
        self.note_synced();
        if is_refused && !planted::has(Bug::ReleaseUnsaved) {
            // What it should have saved, a vote perhaps, goes with the write that is tried again.
            return Ok(());
        }
        // Only what is written while this is the only replica is not durable, too.
        let written = self.log.written_to().index;
        let mut persisted = None;
        while let Some((first, last)) = self.readies.front()
            && *first <= number
            && *last <= written
        {
            persisted = Some(*first);
            self.readies.pop_front();
        }
        if let Some(number) = persisted {
            self.propose();
            self.replica.persisted(number);
            self.keep_up();
        }
        self.replica.forget(self.log.start().index);
        Ok(())
    }

    /// A background thread ended a zero-fill.
    pub(crate) fn extended(&mut self, extended: Extended) -> Result<(), Fault> {
        self.extending = false;
        self.log.extended(extended)
    }

    /// Gives committed frames, which this disk was given too, to the views.
    fn hand_over(&mut self, effects: &mut Vec<Effect>) {
        while self.handed.0 < self.committed {
            let (handed, from) = self.handed;
            let skip = (handed.0 + 1 - self.first.0) as usize;
            let committed = (self.committed.0 - handed.0) as usize;
            let frames = self.under_way.range(skip..);
            let count = if handed < self.opened {
                let crowded = self.applied.backlog_bytes > BACKLOG_BYTES_MAX / 2;
                if self.applied.index < handed || crowded {
                    // It goes on with the next `Progress`.
                    return;
                }
                let opened = (self.opened.0 - handed.0) as usize;
                let step = frames.take_while(|entry| entry.end.0 - from.0 <= STEP_BYTES).count();
                step.max(1).min(opened).min(committed)
            } else {
                committed.min(APPLY_FRAMES as usize)
            };
            let to = self.under_way[skip + count - 1].end;
            let waiters = match handed < self.opened {
                true => Vec::new(),
                false => {
                    let frames = self.under_way.range(skip..skip + count);
                    frames.map(|entry| entry.waiter).collect()
                }
            };
            self.hand(Index(handed.0 + count as u64), from, to, waiters, effects);
        }
        self.waiting.log_grew(self.handed.1);
    }

    fn hand(
        &mut self,
        last: Index,
        from: Offset,
        to: Offset,
        waiters: Vec<Waiter>,
        effects: &mut Vec<Effect>,
    ) {
        let first = Index(last.0 + 1 - waiters.len() as u64);
        let apply = views::Apply { batch: self.log.batch(from, to), first, waiters };
        effects.push(Effect::Views { shard: self.id, job: views::Job::Apply(apply) });
        self.handed = (last, to);
    }

    /// The views came further. Calls `done` with each waiter whose request was answered.
    pub(crate) fn progress(&mut self, progress: Progress, now: Now, mut done: impl FnMut(Waiter)) {
        self.propose();
        while self.first <= progress.index
            && let Some(entry) = self.under_way.pop_front()
        {
            self.first = self.first.next();
            if entry.waiter != Waiter::NOBODY {
                done(entry.waiter);
            }
        }
        if self.under_way.capacity() > UNDER_WAY_KEPT && self.under_way.is_empty() {
            self.under_way.shrink_to(UNDER_WAY_KEPT);
        }
        self.noting.folded(progress.index, now);
        self.replica.applied(progress.index);
        self.keep_up();
        self.log.release(progress.next);
        if progress.ages && self.ages_ms.is_none() {
            self.ages_ms = Some(now.monotonic_ms + AGES_MS);
        }
        self.interval.want(progress.wants_synced);
        let Progress { needs, .. } = &progress;
        if let Some(needs) = needs {
            self.trimming.learn(needs, progress.next);
        }
        self.applied = Progress { needs: None, floors: None, wants_synced: None, ..progress };
    }

    /// Reads whose moment has come.
    fn answer_reads(&mut self, effects: &mut Vec<Effect>) {
        let end = self.handed.1;
        let Progress { index, next, applied, closed, .. } = self.applied;
        while let Some(asked) = self.waiting.next_due(index, next) {
            if asked.question.is_some() {
                self.asks.push(asked);
                continue;
            }
            if closed && !matches!(asked.read.query, Query::Digests { .. }) {
                let gone = Failure::new(Code::NamespaceNotFound, "the namespace was removed");
                self.refuse(&asked, gone, effects);
                continue;
            }
            if let Some(asked) = dispatch(self.id, asked, end, applied, effects) {
                self.waiting.wait_for_log(asked);
            }
        }
    }

    /// The deadlines that passed are acted on.
    pub(crate) fn tick(&mut self, now: Now, effects: &mut Vec<Effect>) {
        self.remove_what_is_left(now, effects);
        if self.retry_ms.is_some_and(|at| at <= now.monotonic_ms) {
            self.retry_ms = None;
            if !planted::has(Bug::TryOnce) {
                self.log.retry();
            }
        }
        self.trimming.tick(now);
        if self.look_at_ms().is_some_and(|at| at <= now.monotonic_ms) {
            self.ages_ms = None;
            let job = views::Job::Ages(self.clock.stamp(now));
            effects.push(Effect::Views { shard: self.id, job });
        }
        for asked in self.waiting.expire(now) {
            let detail = match asked.read.level {
                Level::Linearizable => {
                    "no leader of the namespace could be asked in time, or this replica did not \
                     come as far as it said; ask again"
                }
                _ => "the offset was not reached in time; ask again, or a later replica",
            };
            self.refuse(&asked, Failure::new(Code::Unavailable, detail), effects);
        }
    }

    /// Long polls are answered now, with what there is.
    pub(crate) fn end_polls(&mut self) {
        self.waiting.end_polls();
    }

    /// A background thread ended a trim.
    pub(crate) fn trimmed(&mut self, trimmed: Trimmed) -> Result<(), Fault> {
        self.trimming.ended();
        self.log.trimmed(trimmed)
    }

    /// When it wants `tick` next, in milliseconds of the monotonic clock.
    pub(crate) fn next_tick_ms(&self) -> Option<u64> {
        let left_ms = self.transfers.left_until_ms;
        let own = [self.retry_ms, self.look_at_ms(), self.trimming.due_ms()];
        let all = own.into_iter().chain([self.waiting.deadline_ms(), left_ms]);
        all.flatten().min()
    }

    /// When it is to be looked next at what expires by age. Only a leader could propose what is
    /// found, or who is alone and leads once there is something. Who leads later looks then.
    fn look_at_ms(&self) -> Option<u64> {
        let may_lead = self.replica.role() == Role::Leader || self.replica.is_lone_voter();
        self.ages_ms.filter(|_| may_lead && !self.has_ended())
    }

    /// Whether the read asks for what can't be.
    pub(crate) fn check_read(&self, read: &Read) -> Result<(), Failure> {
        let (Level::AtLeast(at) | Level::Exactly(at)) = read.level else { return Ok(()) };
        let of_now = matches!(
            read.query,
            Query::Records { .. }
                | Query::Cursor { .. }
                | Query::Describe { .. }
                | Query::Digests { .. }
        );
        if of_now && matches!(read.level, Level::Exactly(_)) {
            let detail = "only rows and the log can be read at exactly an offset: records, \
                          cursors, descriptions and digests can't";
            return Err(Failure::new(Code::BadArgument, detail));
        }
        if self.replica.is_lone_voter() && at >= self.log.end().offset {
            let detail = format!("offset {at} lies behind the end of the log");
            return Err(Failure::new(Code::BadArgument, detail));
        }
        Ok(())
    }

    /// The namespace was deleted: who was not given to the views is answered now.
    pub(crate) fn leave(&mut self, effects: &mut Vec<Effect>) {
        let gone = Failure::new(Code::NamespaceNotFound, "the namespace was deleted");
        self.refuse_waiting(&gone, effects);
        let given = (self.handed.0.0 + 1).saturating_sub(self.first.0) as usize;
        self.interrupt(given, "the namespace was deleted meanwhile", effects);
    }

    /// The views failed: they answer nobody any more. What was staged may be on disk and folded in
    /// after a restart, or not.
    pub(crate) fn fail(&mut self, failure: &Failure, effects: &mut Vec<Effect>) {
        self.refuse_waiting(failure, effects);
        let detail = format!("the outcome is unknown; {}", failure.detail);
        self.interrupt(0, &detail, effects);
        self.applied.index = self.handed.0;
    }

    /// Another replica takes the place of this one: who was not given to the views is answered now.
    pub(crate) fn make_way(&mut self, effects: &mut Vec<Effect>) {
        let detail = "this replica is being replaced by a newer one; try again";
        self.refuse_waiting(&Failure::new(Code::Unavailable, detail), effects);
        let given = (self.handed.0.0 + 1).saturating_sub(self.first.0) as usize;
        self.interrupt(given, "the replica was replaced; the outcome is unknown", effects);
    }

    /// The node ends, and hears no quorum: only others can decide what becomes of the rest.
    pub(crate) fn give_up(&mut self, effects: &mut Vec<Effect>) {
        self.is_given_up = true;
        let detail = "the node is shutting down and hears no quorum; ask another one";
        self.refuse_waiting(&Failure::new(Code::ShuttingDown, detail), effects);
        let detail = "the node is shutting down and hears no quorum; the outcome is unknown";
        let given = (self.handed.0.0 + 1).saturating_sub(self.first.0) as usize;
        for entry in self.under_way.iter_mut().skip(given) {
            let waiter = std::mem::replace(&mut entry.waiter, Waiter::NOBODY);
            if waiter != Waiter::NOBODY {
                let failure = Failure::new(Code::Interrupted, detail);
                crate::replies::fail(waiter.connection, waiter.request, self.id, failure, effects);
                self.answered.push(waiter.connection);
            }
        }
    }

    /// Takes its share out of the node's count of bytes.
    pub(crate) fn forget_bytes(&mut self, total_bytes: &mut u64) {
        *total_bytes -= std::mem::take(&mut self.counted_bytes);
    }

    fn refuse_waiting(&mut self, failure: &Failure, effects: &mut Vec<Effect>) {
        for asked in self.waiting.take_all() {
            self.refuse(&asked, failure.clone(), effects);
        }
    }

    /// Tells who waits for frames, but for the first `given`, that nobody will answer them.
    fn interrupt(&mut self, given: usize, detail: &str, effects: &mut Vec<Effect>) {
        for UnderWay { waiter, .. } in self.under_way.split_off(given.min(self.under_way.len())) {
            if waiter != Waiter::NOBODY {
                let failure = Failure::new(Code::Interrupted, detail);
                crate::replies::fail(waiter.connection, waiter.request, self.id, failure, effects);
                self.answered.push(waiter.connection);
            }
        }
    }

    /// Whether the views have answered all that they were given.
    pub(crate) fn has_views_done(&self) -> bool {
        self.applied.index >= self.handed.0
    }
}

/// How a request is refused that the shard can't take now.
pub(crate) fn busy(why: Busy) -> Failure {
    match why {
        Busy::NotLeader(Some(leader)) => {
            Failure::new(Code::NotLeader, format!("node {leader} leads this namespace"))
        }
        Busy::NotLeader(None) => {
            Failure::new(Code::Unavailable, "the namespace has no leader now; try again")
        }
        Busy::LeaderFull => {
            let detail = "the disk of the node that leads is full, and it hands leadership over; \
                          try again";
            Failure::new(Code::Unavailable, detail)
        }
        Busy::DiskFull => {
            Failure::new(Code::DiskFull, "the disk is full; writes go on when there is space again")
        }
        Busy::Overloaded => {
            Failure::new(Code::Overloaded, "too much of this namespace is under way; try again")
        }
    }
}

/// Sends a read that may be answered on its way; gives it back if it waits for the log to grow.
fn dispatch(
    shard: ShardId,
    asked: Asked,
    end: Offset,
    shown: Offset,
    effects: &mut Vec<Effect>,
) -> Option<Asked> {
    match &asked.read.query {
        Query::Log { from, wait_ms, .. } if *from >= end && *wait_ms > 0 => return Some(asked),
        Query::Get { .. } | Query::Scan { .. } | Query::Log { .. } => {
            let job = answer::Job::new(asked, shard, end, shown);
            effects.push(Effect::Read { shard, job });
        }
        Query::Records { .. }
        | Query::Cursor { .. }
        | Query::Describe { .. }
        | Query::Digests { .. } => {
            let waiter = Waiter { connection: asked.to, request: asked.request };
            let Asked { read: Read { query: question, .. }, deadline_ms, .. } = asked;
            let job = views::Job::Query(views::Query { waiter, question, deadline_ms });
            effects.push(Effect::Views { shard, job });
        }
    }
    None
}
