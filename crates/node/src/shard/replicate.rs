//! What a shard has to do with its other replicas.
//!
//! ```text
//!   Raft's messages ─┬─ without entries ────────────────────────► Peers::say
//!                    ├─ entries in memory: their frames, copied ─► Peers::say_with
//!                    └─ older ones ─► Stream ─► Effect::Fetch ─► Event::Fetched ─► Peers::say_with
//!   a packet ─► step: frames ─► entries ─► Raft ─► Ready ─► those that it took: Log::stage_frames
//! ```
//! A follower that is behind has one [`Stream`]: at most a few messages of it are on their way, and
//! the next is read when one was answered, so that what it costs does not grow with how far it is
//! behind. A follower whose views or disk can't keep up answers when they can; and a stream that
//! nothing is answered of for long is begun anew.

mod crowded;
mod rounds;

use super::lag::Lag;
use super::{Shard, UnderWay};
use crate::peers::Peers;
use crate::repair::Met;
use crate::views::Waiter;
use crate::{Effect, Now, fetch};
use naust_consensus::{Change, Entry, EntryKind, Message, MessageKind, Ready, Role};
use naust_log::Fault;
use naust_wire::frame::{self, Kind};
use naust_wire::limits::APPEND_BYTES_MAX;
use naust_wire::peer::{Raft, Said};
use naust_wire::planted::{self, Bug};
use naust_wire::reply::Failure;
use naust_wire::{Code, Index, NodeId, Offset, ShardId, Term};
use rounds::{Marks, Rounds};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;

/// Messages of a stream that are not answered yet.
const STREAM_MESSAGES: usize = 4;
/// Ticks without a sign of a follower after which what is on its way to it is sent again if Raft
/// says so, which it does with every heartbeat; and after which Raft is told that it is lost.
const STREAM_SILENT_TICKS: u32 = 4;
const STREAM_LOST_TICKS: u32 = 80;
/// Quiet ticks after which a shard goes to sleep.
const QUIET_TICKS: u32 = 40;

/// What a shard remembers of its other replicas.
#[derive(Default)]
pub(super) struct Replication {
    /// Raft's messages that have not left yet.
    messages: Vec<Message>,
    streams: BTreeMap<NodeId, Stream>,
    streams_begun: u64,
    rounds: Rounds,
    marks: Marks,
    /// Followers that little is sent to at a time, since they are behind.
    narrow: BTreeSet<NodeId>,
    /// It led when it was looked at last.
    led: bool,
    /// In which term it was first seen to lead by who looks at the places, and when.
    leads_since: Option<(Term, u64)>,
    /// Those who wait for frames that were staged while it led are to be told.
    deposed: bool,
    /// The clock of a follower stands still until it leads.
    pub(super) clock_is_late: bool,
    /// Since when followers are not told of what is committed.
    owes_since_ms: Option<u64>,
    /// The answer to an append that waits until this follower has room for more, and since when one
    /// does.
    held: Option<(Message, u64)>,
    /// Nothing is under way, and all replicas know it: no ticks.
    pub(super) sleeps: bool,
    /// Ticks in a row in which nothing was under way.
    quiet_ticks: u32,
    /// Where the logs of other replicas were known to end last, if it leads.
    ends: BTreeMap<NodeId, Offset>,
    /// How late this disk is, if it leads.
    pub(super) lag: Lag,
    /// Damage is no reason to hand leadership over before this, by the monotonic clock.
    pub(super) hurt_until_ms: u64,
}

/// Frames on their way to a follower that is behind.
struct Stream {
    number: u64,
    /// Where it began, what was read so far, and up to where to read.
    from: Index,
    at: Index,
    to: Index,
    /// The last frames of messages that are not answered.
    unanswered: VecDeque<Index>,
    /// Ticks since one of them was answered, or the follower said that it is at it.
    silent_ticks: u32,
    reads: bool,
}

impl Stream {
    /// The follower has everything up to here.
    fn answered(&mut self, matched: Index) {
        while self.unanswered.front().is_some_and(|last| *last <= matched) {
            self.unanswered.pop_front();
            self.silent_ticks = 0;
        }
    }
}

/// Frames that came with a message, and where each ends.
#[derive(Default)]
pub(super) struct Incoming<'a> {
    bytes: &'a [u8],
    first: Index,
    /// Of each frame, which part of `bytes` it is, and where it ends in the log.
    frames: Vec<(Range<usize>, Offset)>,
}

impl<'a> Incoming<'a> {
    /// Takes frames of a message apart. They must follow each other; that they follow the log is
    /// for Raft to say.
    fn new(bytes: &'a [u8], after: Index) -> Result<(Incoming<'a>, Vec<Entry>), frame::Bad> {
        let mut incoming = Incoming { bytes, first: after.next(), frames: Vec::new() };
        let (mut entries, mut at, mut last) = (Vec::new(), 0, after);
        while at < bytes.len() {
            let frame = frame::read(&bytes[at..])?;
            let header = frame.header;
            let end = at + header.frame_bytes() as usize;
            let kind = match header.kind {
                Kind::Padding => {
                    at = end;
                    continue;
                }
                Kind::Commit | Kind::Control => EntryKind::Normal,
                Kind::Empty => EntryKind::Empty,
                Kind::Configure => EntryKind::Configure(frame.body.to_vec()),
            };
            if header.index != last.next() {
                return Err(frame::Bad::Crc);
            }
            last = header.index;
            entries.push(Entry { index: header.index, term: header.term, kind });
            incoming.frames.push((at..end, header.end()));
            at = end;
        }
        Ok((incoming, entries))
    }

    /// The frames from an index on, and where each ends.
    fn from(&self, index: Index) -> (&'a [u8], impl Iterator<Item = Offset> + '_) {
        let skip = (index.0 - self.first.0) as usize;
        let bytes = &self.bytes[self.frames[skip].0.start..];
        (bytes, self.frames[skip..].iter().map(|(_, end)| *end))
    }
}

impl Shard {
    /// Whether there are no other replicas.
    pub(crate) fn is_alone(&self) -> bool {
        self.replica.configuration().is_alone(self.node)
    }

    /// Whether time matters for its Raft: there are other replicas, and something may happen.
    pub(crate) fn ticks(&self) -> bool {
        !self.is_alone() && !self.replication.sleeps
    }

    /// Time passed, for its Raft.
    pub(crate) fn tick_raft(&mut self, now: Now, peers: &mut Peers, effects: &mut Vec<Effect>) {
        self.propose();
        self.tick_transfers(now, peers, effects);
        self.give_up_streams();
        self.say_that_it_holds(peers);
        self.replica.tick();
        self.keep_up();
        self.watch_disk(now, peers);
        self.settle_role();
        self.note_ends();
        self.keep_for_followers(now);
        self.replication.quiet_ticks = match self.is_quiet(now, peers) {
            true => self.replication.quiet_ticks + 1,
            false => 0,
        };
    }

    /// Whether this leader has nothing under way, and all replicas on nodes that are there know as
    /// much as it does. One on a node that is not is woken with its node.
    fn is_quiet(&self, now: Now, peers: &Peers) -> bool {
        let last = self.log.end().index;
        let knows = |node: NodeId| {
            node == self.node
                || self
                    .replica
                    .progress(node)
                    .is_some_and(|progress| progress.matched == last && progress.committed == last)
                || !peers.is_there(node, now.monotonic_ms)
        };
        self.replica.may_propose()
            && self.applied.index == last
            && self.log.durable().index == last
            && self.waiting.is_empty()
            && self.replication.streams.is_empty()
            && !self.transfers.hold_the_log()
            && self.replica.configuration().replicas().into_iter().all(knows)
    }

    /// The others are told, and time stands still for this shard until something happens.
    fn go_to_sleep(&mut self, peers: &mut Peers) {
        self.replication.quiet_ticks = 0;
        self.replication.sleeps = true;
        let said = Said::Sleep { term: self.replica.term(), index: self.log.end().index };
        for node in self.others() {
            peers.say(self.id, node, said.clone());
        }
    }

    /// The leader went to sleep. A follower that lacks anything stays awake, and its unrest wakes
    /// the leader.
    pub(crate) fn told_to_sleep(&mut self, from: NodeId, term: Term, index: Index) {
        let is_same = self.replica.leader() == Some(from)
            && self.replica.role() == Role::Follower(from)
            && self.replica.term() == term
            && self.log.end().index == index
            && self.log.durable().index == index
            && self.replica.committed() == index;
        self.replication.sleeps |= is_same;
    }

    /// A node came or went that has a replica.
    pub(crate) fn wake_for(&mut self, node: NodeId) {
        if self.replica.configuration().contains(node) {
            self.wake();
        }
    }

    /// Something happens: time goes on, and the count of quiet ticks begins anew.
    pub(crate) fn wake(&mut self) {
        self.replication.sleeps = false;
        self.replication.quiet_ticks = 0;
    }

    /// This replica is closed while its node lives on: nobody would miss a leader whose shard
    /// sleeps. One of the others is to campaign at once, and the rest to wake.
    pub(crate) fn tell_gone(&self, peers: &mut Peers) {
        if self.replica.role() != Role::Leader {
            return;
        }
        let voters = self.replica.configuration().voters();
        let heirs = self.others().into_iter().filter(|node| voters.contains(node));
        let heir = heirs.max_by_key(|node| self.matched(*node));
        for node in self.others() {
            let heir = heir == Some(node);
            let kind = if heir { MessageKind::TimeoutNow } else { MessageKind::Heartbeat };
            let (kind, term) = (kind as u8, self.replica.term());
            peers.say(self.id, node, Said::Raft(Raft { kind, term, ..Raft::default() }));
        }
    }

    /// Another replica said something.
    ///
    /// # Errors
    /// The frames beside it are none.
    pub(crate) fn step(
        &mut self,
        from: NodeId,
        said: Raft,
        frames: &[u8],
    ) -> Result<Result<(), Fault>, frame::Bad> {
        let Some(kind) = MessageKind::from_number(said.kind) else {
            // Of a later release; Raft lives with messages that are lost.
            return Ok(Ok(()));
        };
        if kind != MessageKind::Append && !frames.is_empty() {
            // Nobody sends that, and what Raft may append of its own is not in there.
            return Ok(Ok(()));
        }
        let (incoming, entries) = Incoming::new(frames, said.index)?;
        if kind == MessageKind::Append && self.is_crowded(1) {
            // As if it were slow: it is asked again, and the leader waits for a quorum meanwhile.
            return Ok(Ok(()));
        }
        self.propose();
        if kind == MessageKind::AppendAnswer {
            if said.reject {
                // What was on its way did not come, or not in order.
                self.replication.streams.remove(&from);
            } else if let Some(stream) = self.replication.streams.get_mut(&from) {
                stream.silent_ticks = 0;
            }
        }
        // Answers to what was said before it fell asleep don't wake it.
        let wakes = !matches!(kind, MessageKind::HeartbeatAnswer | MessageKind::AppendAnswer);
        if wakes {
            self.wake();
        }
        self.replica.step(Message {
            kind,
            from,
            to: self.node,
            term: said.term,
            log_term: said.log_term,
            index: said.index,
            entries,
            commit: said.commit,
            commit_term: said.commit_term,
            reject: said.reject,
            reject_hint: said.reject_hint,
            request_snapshot: said.request_snapshot,
            priority: said.priority,
            context: said.context,
        });
        if kind == MessageKind::AppendAnswer {
            self.note_end(from);
        }
        let taken = self.take_readies_with(&incoming);
        self.settle_role();
        Ok(taken)
    }

    /// Followers that answered nothing of their streams for long are asked anew what they have.
    fn give_up_streams(&mut self) {
        let mut lost = Vec::new();
        for (node, stream) in &mut self.replication.streams {
            stream.answered(self.replica.progress(*node).map_or(Index(0), |it| it.matched));
            stream.silent_ticks += u32::from(!stream.unanswered.is_empty());
            if stream.silent_ticks >= STREAM_LOST_TICKS {
                lost.push(*node);
            }
        }
        for node in lost {
            self.forget_stream(node);
        }
    }

    /// Raft begins anew with a follower, behind what that is known to have.
    fn forget_stream(&mut self, node: NodeId) {
        self.replication.streams.remove(&node);
        self.propose();
        self.replica.report_unreachable(node);
        self.keep_up();
    }

    /// Takes over what Raft wants, with the frames of the message that made it want that.
    pub(super) fn take_readies_with(&mut self, incoming: &Incoming<'_>) -> Result<(), Fault> {
        while let Some(ready) = self.replica.ready() {
            self.take_ready(ready, incoming)?;
        }
        Ok(())
    }

    fn take_ready(&mut self, ready: Ready, incoming: &Incoming<'_>) -> Result<(), Fault> {
        if let Some(hard) = ready.hard {
            self.log.save(naust_log::HardState { term: hard.term, vote: hard.vote });
        }
        if let Some(last) = ready.cut_after {
            self.cut_after(last)?;
        }
        let mut entries = ready.entries.into_iter().peekable();
        while let Some(entry) = entries.peek() {
            if entry.index <= self.log.end().index {
                // Staged when it was admitted.
                entries.next();
            } else if incoming.frames.is_empty() {
                let entry = entries.next().expect("it was just seen");
                self.take_entry(entry.index, entry.term, &entry.kind);
            } else {
                self.take_frames(entry.index, incoming)?;
            }
        }
        if ready.number != 0 {
            self.readies.push_back((ready.number, self.log.end().index));
        }
        self.committed = ready.committed.unwrap_or(self.committed);
        for (token, index) in ready.reads {
            self.waiting.found_index(token, index);
        }
        self.transfers.want(ready.snapshots_wanted);
        self.transfers.offer(ready.offered);
        self.replication.messages.extend(ready.messages);
        Ok(())
    }

    /// Frames of the leader go into the log as they are.
    fn take_frames(&mut self, first: Index, incoming: &Incoming<'_>) -> Result<(), Fault> {
        let (bytes, ends) = incoming.from(first);
        self.log.stage_frames(bytes).map_err(|refused| {
            let what = format!("the leader's frames do not fit here: {refused}");
            Fault::of("continue", "the log", std::io::Error::other(what))
        })?;
        self.interval.note_change(self.log.end().index);
        self.under_way.extend(ends.map(|end| UnderWay { waiter: Waiter::NOBODY, end }));
        Ok(())
    }

    /// Another leader has other frames behind `last`; none of ours was committed.
    fn cut_after(&mut self, last: Index) -> Result<(), Fault> {
        assert!(last >= self.handed.0, "what is committed is never cut");
        self.log.cut_after(last)?;
        // What comes in its place is staged in this life, and somebody may wait for it.
        self.opened = self.opened.min(last);
        let kept = (last.0 + 1 - self.first.0) as usize;
        for entry in self.under_way.split_off(kept.min(self.under_way.len())) {
            if entry.waiter != Waiter::NOBODY {
                self.unanswered.push(entry.waiter);
            }
        }
        for (_, durable) in &mut self.readies {
            *durable = (*durable).min(last);
        }
        Ok(())
    }

    /// What follows from a change of who leads.
    pub(super) fn settle_role(&mut self) {
        let leads = self.replica.role() == Role::Leader;
        if leads != self.replication.led {
            self.replication.led = leads;
            self.replication.streams.clear();
            for node in std::mem::take(&mut self.replication.narrow) {
                self.replica.narrow(node, false);
            }
            self.replication.clock_is_late |= leads;
            self.replication.deposed |= !leads;
        }
    }

    /// Those who wait for frames that this replica staged while it led are told that it can't
    /// say what becomes of them.
    pub(super) fn answer_deposed(&mut self, effects: &mut Vec<Effect>) {
        if std::mem::take(&mut self.replication.deposed) {
            let given = (self.handed.0.0 + 1).saturating_sub(self.first.0) as usize;
            for entry in self.under_way.range_mut(given.min(self.under_way.len())..) {
                if entry.waiter != Waiter::NOBODY {
                    self.unanswered.push(std::mem::replace(&mut entry.waiter, Waiter::NOBODY));
                }
            }
        }
        for waiter in std::mem::take(&mut self.unanswered) {
            let detail = "this node led the namespace and does not any more; whether it was done \
                          is not known";
            let is_denied = planted::has(Bug::DenyDeposed);
            let code = if is_denied { Code::Unavailable } else { Code::Interrupted };
            let failure = Failure::new(code, detail);
            crate::replies::fail(waiter.connection, waiter.request, self.id, failure, effects);
            self.answered.push(waiter.connection);
        }
    }

    /// Everything that Raft has to say leaves.
    pub(super) fn send_messages(&mut self, now: Now, peers: &mut Peers, effects: &mut Vec<Effect>) {
        let mut messages = std::mem::take(&mut self.replication.messages);
        let is_busy = self.is_crowded(2);
        if let Some(held) = self.let_go_of_held(is_busy, now) {
            peers.say(self.id, held.to, Said::Raft(raft(&held, held.index)));
        }
        let (leads, term) = (self.replica.role() == Role::Leader, self.replica.term());
        self.tell_committed(now, &mut messages);
        for message in messages.drain(..) {
            if is_busy && self.may_hold(&message) {
                self.hold(message, now);
            } else if message.kind == MessageKind::Append && !message.entries.is_empty() {
                // One that does not lead any more by the end of the burst may have cut them off.
                if leads && message.term == term {
                    self.send_entries(&message, peers);
                }
            } else {
                peers.say(self.id, message.to, Said::Raft(raft(&message, message.index)));
            }
        }
        self.replication.messages = messages;
        self.drive_streams(effects);
        // Behind the last heartbeat, or that would wake the others.
        if self.replication.quiet_ticks >= QUIET_TICKS {
            self.go_to_sleep(peers);
        }
    }

    /// What is committed goes with the next append if one leaves in this millisecond, so that with
    /// one commit after the other nothing else is said. Whoever reads at a follower what was just
    /// written waits for no more than that.
    fn tell_committed(&mut self, now: Now, messages: &mut Vec<Message>) {
        let owes = &mut self.replication.owes_since_ms;
        if !self.replica.owes_notices() {
            *owes = None;
            return;
        }
        let since = *owes.get_or_insert(now.monotonic_ms);
        let reads = messages.iter().any(|message| message.kind == MessageKind::ReadAnswer);
        // Nodes act on what the directory says.
        if reads || self.id == ShardId::DIRECTORY || now.monotonic_ms > since {
            *owes = None;
            self.replica.notices(messages);
        }
    }

    /// Whether followers are to be told of something in the next millisecond.
    pub(crate) fn owes_notices(&self) -> bool {
        self.replication.owes_since_ms.is_some()
    }

    /// Where the frame of an index ends, if it is not folded in here.
    fn end_of(&self, index: Index) -> Option<Offset> {
        if index.next() == self.first {
            return Some(self.applied.next);
        }
        let place = index.0.checked_sub(self.first.0)?;
        self.under_way.get(place as usize).map(|entry| entry.end)
    }

    fn send_entries(&mut self, message: &Message, peers: &mut Peers) {
        let last = message.index.0 + message.entries.len() as u64;
        // One that is not linked is asked anew when it is.
        if !peers.is_linked(message.to) {
            return;
        }
        let mut at = (message.index, message.log_term);
        while at.0.0 < last {
            let memory = self.end_of(at.0).filter(|from| self.log.remembers(*from));
            let Some(from) = memory else {
                return self.stream(message, at.0, Index(last));
            };
            let mut end = (at.0.next(), self.end_of(at.0.next()));
            while end.0.0 < last
                && let next @ Some(offset) = self.end_of(end.0.next())
                && offset.0 - from.0 <= APPEND_BYTES_MAX as u64
            {
                end = (end.0.next(), next);
            }
            let to = end.1.expect("Raft sends what was staged");
            let said = Raft { log_term: at.1, ..raft(message, at.0) };
            let (log, mut copied) = (&self.log, false);
            peers.say_with(self.id, message.to, Said::Raft(said), |out| {
                copied = log.copy_frames(from, to, out);
            });
            assert!(copied, "what is not folded in is in memory");
            let entry = &message.entries[(end.0.0 - message.index.0 - 1) as usize];
            at = (end.0, entry.term);
        }
        // What goes on from here is not the old stream's.
        self.replication.streams.remove(&message.to);
        if self.replication.narrow.remove(&message.to) {
            self.replica.narrow(message.to, false);
        }
    }

    /// Frames that are not in memory are read, a few at a time.
    fn stream(&mut self, message: &Message, after: Index, last: Index) {
        // Raft says the same again with every heartbeat until something is answered.
        if let Some(stream) = self.replication.streams.get_mut(&message.to)
            && (stream.to == after
                || stream.from == after && stream.silent_ticks < STREAM_SILENT_TICKS)
        {
            stream.to = stream.to.max(last);
            return;
        }
        if self.replication.narrow.insert(message.to) {
            self.replica.narrow(message.to, true);
        }
        self.replication.streams_begun += 1;
        let number = self.replication.streams_begun;
        let unanswered = VecDeque::new();
        let stream = Stream {
            number,
            from: after,
            at: after,
            to: last,
            unanswered,
            silent_ticks: 0,
            reads: false,
        };
        self.replication.streams.insert(message.to, stream);
    }

    fn drive_streams(&mut self, effects: &mut Vec<Effect>) {
        let (log, replica) = (&self.log, &self.replica);
        let durable = log.durable().index;
        self.replication.streams.retain(|node, stream| {
            let Some(matched) = replica.progress(*node).map(|progress| progress.matched) else {
                return false;
            };
            stream.answered(matched);
            let last = stream.to.min(durable);
            if stream.reads || stream.at >= last || stream.unanswered.len() >= STREAM_MESSAGES {
                return stream.reads || stream.at < stream.to || !stream.unanswered.is_empty();
            }
            stream.reads = true;
            let (number, after, start) = (stream.number, stream.at, log.start());
            let job = fetch::Job { to: *node, number, after, last, start };
            effects.push(Effect::Fetch { shard: self.id, job });
            true
        });
    }

    /// Frames for a follower were read, or could not be.
    pub(crate) fn fetched(
        &mut self,
        fetched: fetch::Fetched,
        peers: &mut Peers,
        effects: &mut Vec<Effect>,
    ) {
        if let Some(Met::Frames(damage)) = fetched.met {
            self.mending.note(self.id, damage, effects);
        }
        let Some(stream) = self.replication.streams.get_mut(&fetched.to) else { return };
        if stream.number != fetched.number {
            return;
        }
        let Some(found) = fetched.found else {
            return self.forget_stream(fetched.to);
        };
        stream.reads = false;
        stream.at = found.last;
        stream.unanswered.push_back(found.last);
        let said = Raft {
            kind: MessageKind::Append as u8,
            term: self.replica.term(),
            log_term: found.term_before,
            index: found.after,
            commit: self.replica.committed(),
            ..Raft::default()
        };
        peers.say_with(self.id, fetched.to, Said::Raft(said), |out| {
            out.extend_from_slice(&found.bytes);
        });
    }

    /// This node.
    pub(crate) fn node(&self) -> NodeId {
        self.node
    }

    /// Proposes another configuration, unless a change is under way.
    pub(crate) fn configure(&mut self, change: Change) {
        self.propose();
        self.wake();
        // Refused: it leads no more, or hands leadership over; the next leader looks again.
        let _ = self.replica.propose_configure(change);
        self.take_readies();
    }

    /// Hands leadership over to another voter, which may take a while or fail.
    pub(crate) fn hand_over_to(&mut self, node: NodeId) {
        self.propose();
        self.wake();
        self.replica.transfer(node);
        self.take_readies();
        self.settle_role();
    }

    /// Where the log of a replica ends, as far as is known here.
    pub(crate) fn end_at(&self, node: NodeId) -> Option<Offset> {
        if node == self.node {
            return Some(self.handed.1);
        }
        let end = self.matched(node).and_then(|matched| self.end_of(matched));
        end.or_else(|| self.replication.ends.get(&node).copied())
    }

    /// Of what a follower has just answered, it is known where it lies.
    fn note_end(&mut self, node: NodeId) {
        let end = self.matched(node).and_then(|matched| self.end_of(matched));
        self.replication.ends.extend(end.map(|end| (node, end)));
    }

    /// Remembers where the logs of followers end: of frames that are folded in, an index does not
    /// tell that any more.
    fn note_ends(&mut self) {
        let mut ends = std::mem::take(&mut self.replication.ends);
        if self.replica.role() == Role::Leader {
            let others = self.others();
            ends.retain(|node, _| others.contains(node));
            ends.extend(others.into_iter().filter_map(|node| Some((node, self.end_at(node)?))));
        } else {
            ends.clear();
        }
        self.replication.ends = ends;
    }

    /// The other replicas.
    pub(crate) fn others(&self) -> Vec<NodeId> {
        let mut all = self.replica.configuration().replicas();
        all.retain(|node| *node != self.node);
        all
    }

    /// Up to where this leader knows the log of another replica to agree with its own.
    pub(crate) fn matched(&self, node: NodeId) -> Option<Index> {
        self.replica.progress(node).map(|progress| progress.matched)
    }

    /// Since when this leader is known to lead in its term by who looks at the places of its
    /// replicas, by the monotonic clock. Whatever replica it has, the directory knew its node by
    /// then, unless this leader gave it the replica.
    pub(crate) fn leads_since(&mut self, now: Now) -> u64 {
        let term = self.replica.term();
        let known = self.replication.leads_since.filter(|(known, _)| *known == term);
        let (_, since_ms) =
            *self.replication.leads_since.insert(known.unwrap_or((term, now.monotonic_ms)));
        since_ms
    }

    /// Whether its log has no frames yet.
    pub(crate) fn is_fresh(&self) -> bool {
        self.log.end().index == Index(0)
    }

    /// Leads this shard if others want that, at once.
    pub(crate) fn campaign(&mut self) {
        self.propose();
        self.replica.campaign();
        self.take_readies();
        self.settle_role();
    }

    /// What was sent to a node may be lost.
    pub(crate) fn unreachable(&mut self, node: NodeId) {
        self.wake_for(node);
        self.forget_stream(node);
    }

    /// A node is gone, as it seems. If it led this shard, another one is elected soon.
    pub(crate) fn lost(&mut self, node: NodeId) {
        self.propose();
        self.wake_for(node);
        self.replica.leader_gone(node);
        self.keep_up();
        self.settle_role();
    }
}

/// The fields of a message, about the entries behind `index`.
fn raft(message: &Message, index: Index) -> Raft {
    Raft {
        kind: message.kind as u8,
        term: message.term,
        log_term: message.log_term,
        index,
        commit: message.commit,
        commit_term: message.commit_term,
        reject: message.reject,
        reject_hint: message.reject_hint,
        request_snapshot: message.request_snapshot,
        priority: message.priority,
        context: message.context.clone(),
    }
}
