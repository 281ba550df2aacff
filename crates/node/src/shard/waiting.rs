//! Reads that wait for their moment: for an index from Raft, for the views to come that far,
//! for the log to grow.
//!
//! ```text
//!   linearizable ─► fresh ◄─► a round of Raft ─► by_index ┐
//!   at least, exactly ─────────────────────► by_offset ───┼─► due
//!   local ────────────────────────────────────────────────┤
//!   the log's end, with patience ──────────► polls ───────┘
//! ```
//! All linearizable reads of one burst share one round. Raft asks for it until it is answered, as
//! soon as there is a leader; its reads give up when they have waited too long.

use crate::event::DirectoryAsk;
use crate::views::Waiter;
use crate::{ConnectionId, Now};
use naust_wire::ask::Ask;
use naust_wire::limits::{READ_OFFSET_WAIT_MS, WAIT_MS_MAX};
use naust_wire::read::{Level, Query, Read};
use naust_wire::{Index, Offset, RequestId};
use std::collections::{BTreeMap, VecDeque};

/// A read and who asked it.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) to: ConnectionId,
    pub(crate) request: RequestId,
    pub(crate) read: Read,
    /// It is no read but something else that needs the directory as it is now.
    pub(crate) question: Option<Question>,
    /// When a long poll is answered with nothing, in milliseconds of the monotonic clock.
    pub(crate) deadline_ms: u64,
    /// When it is refused, if it could not be answered.
    give_up_ms: u64,
}

/// What needs the directory as it is now.
#[derive(Debug)]
pub(crate) enum Question {
    /// A client asks the node.
    Ask(Box<Ask>),
    /// A worker is to know it as it was when it asked, and asks again if it is not told.
    Current(DirectoryAsk),
}

impl Asked {
    pub(crate) fn new(to: ConnectionId, request: RequestId, read: Read, now: Now) -> Asked {
        let wait_ms = match &read.query {
            Query::Log { wait_ms, .. } | Query::Records { wait_ms, .. } => u64::from(*wait_ms),
            _ => 0,
        };
        let deadline_ms = now.monotonic_ms + wait_ms.min(WAIT_MS_MAX);
        let give_up_ms = now.monotonic_ms + READ_OFFSET_WAIT_MS;
        Asked { to, request, read, question: None, deadline_ms, give_up_ms }
    }

    /// A question about what the directory says now.
    pub(crate) fn ask(to: ConnectionId, request: RequestId, ask: Ask, now: Now) -> Asked {
        let read =
            Read { level: Level::Linearizable, query: Query::Describe { from: None, limit: 0 } };
        let question = Some(Question::Ask(Box::new(ask)));
        Asked { question, ..Asked::new(to, request, read, now) }
    }

    /// A worker is to know the directory as it was when it asked.
    pub(crate) fn current(ask: DirectoryAsk, now: Now) -> Asked {
        let read =
            Read { level: Level::Linearizable, query: Query::Describe { from: None, limit: 0 } };
        let Waiter { connection, request } = Waiter::NOBODY;
        let question = Some(Question::Current(ask));
        Asked { question, ..Asked::new(connection, request, read, now) }
    }
}

/// The reads of a shard that can't be answered yet.
#[derive(Default)]
pub(crate) struct Waiting {
    fresh: Vec<Asked>,
    token: u64,
    rounds: VecDeque<(u64, Vec<Asked>)>,
    by_index: VecDeque<(Index, Asked)>,
    by_offset: BTreeMap<(Offset, u64), Asked>,
    polls: Vec<Asked>,
    due: VecDeque<Asked>,
    /// Nobody waits for news any more.
    is_ending: bool,
    number: u64,
    /// Local reads wait until this is folded in: it was shown before the shard was closed.
    shown: Offset,
    /// No deadline is earlier.
    deadline_ms: Option<u64>,
}

impl Waiting {
    pub(crate) fn is_empty(&self) -> bool {
        self.fresh.is_empty()
            && self.rounds.is_empty()
            && self.by_index.is_empty()
            && self.by_offset.is_empty()
            && self.polls.is_empty()
            && self.due.is_empty()
    }

    fn len(&self) -> usize {
        let rounds = self.rounds.iter().map(|(_, asked)| asked.len()).sum::<usize>();
        let waiting = self.fresh.len() + rounds + self.by_index.len() + self.by_offset.len();
        waiting + self.polls.len() + self.due.len()
    }

    /// Takes a read in.
    pub(crate) fn add(&mut self, asked: Asked) {
        match asked.read.level {
            Level::Linearizable => {
                self.note_deadline(asked.give_up_ms);
                self.fresh.push(asked);
            }
            Level::Local if self.shown > Offset::ZERO => {
                self.number += 1;
                self.note_deadline(asked.give_up_ms);
                self.by_offset.insert((self.shown, self.number), asked);
            }
            Level::Local => self.due.push_back(asked),
            Level::AtLeast(offset) | Level::Exactly(offset) => {
                self.number += 1;
                self.note_deadline(asked.give_up_ms);
                self.by_offset.insert((offset, self.number), asked);
            }
        }
    }

    /// Whether a worker waits to know the directory as it is now.
    pub(crate) fn asks_current(&self) -> bool {
        let is_current = |asked: &Asked| matches!(asked.question, Some(Question::Current(_)));
        let rounds = self.rounds.iter().flat_map(|(_, asked)| asked);
        let by_index = self.by_index.iter().map(|(_, asked)| asked);
        self.fresh.iter().chain(rounds).chain(by_index).chain(&self.due).any(is_current)
    }

    /// Nobody is shown less than what was shown before.
    pub(crate) fn show_from(&mut self, shown: Offset) {
        self.shown = shown;
    }

    /// From where on local reads are answered; zero: from anywhere.
    pub(crate) fn shown(&self) -> Offset {
        self.shown
    }

    pub(crate) fn has_fresh(&self) -> bool {
        !self.fresh.is_empty()
    }

    /// Fresh reads become a round; its token.
    pub(crate) fn next_token(&mut self) -> u64 {
        self.token += 1;
        self.rounds.push_back((self.token, std::mem::take(&mut self.fresh)));
        self.token
    }

    /// Nobody could be asked: all rounds become fresh again, in their order.
    pub(crate) fn ask_again(&mut self) {
        if self.rounds.is_empty() {
            return;
        }
        let newer = std::mem::take(&mut self.fresh);
        self.fresh = self.rounds.drain(..).flat_map(|(_, asked)| asked).chain(newer).collect();
    }

    /// Fresh reads wait for this index, without a round.
    pub(crate) fn all_wait_for(&mut self, index: Index) {
        self.by_index.extend(self.fresh.drain(..).map(|asked| (index, asked)));
    }

    /// A round ended: its reads may be answered at this index.
    pub(crate) fn found_index(&mut self, token: u64, index: Index) {
        // A token that is not waited for was asked for again.
        let Some(place) = self.rounds.iter().position(|(known, _)| *known == token) else {
            return;
        };
        // One that was passed over is answered by a later one as well.
        for (_, asked) in self.rounds.drain(..=place) {
            self.by_index.extend(asked.into_iter().map(|asked| (index, asked)));
        }
    }

    /// The next read that may be answered, and may not wait any longer once long polls were ended.
    pub(crate) fn next_due(&mut self, applied: Index, next: Offset) -> Option<Asked> {
        let due = self.next_of_any_level(applied, next)?;
        Some(if self.is_ending { without_patience(due) } else { due })
    }

    /// The next read that may be answered when the views have folded in `applied`, `next` being
    /// where the next frame begins.
    fn next_of_any_level(&mut self, applied: Index, next: Offset) -> Option<Asked> {
        if let Some(asked) = self.due.pop_front() {
            return Some(asked);
        }
        if self.by_index.front().is_some_and(|(index, _)| *index <= applied) {
            return self.by_index.pop_front().map(|(_, asked)| asked);
        }
        let first = self.by_offset.first_entry()?;
        (first.key().0 < next).then(|| first.remove())
    }

    /// A read of the log's end waits until it grows.
    pub(crate) fn wait_for_log(&mut self, asked: Asked) {
        self.note_deadline(asked.deadline_ms);
        self.polls.push(asked);
    }

    /// The committed log ends at `end` now.
    pub(crate) fn log_grew(&mut self, end: Offset) {
        let grown = |asked: &mut Asked| match asked.read.query {
            Query::Log { from, .. } => from < end,
            _ => true,
        };
        self.due.extend(self.polls.extract_if(.., grown));
    }

    /// Long polls are due now, with nothing if need be; so is from now on whatever is asked.
    pub(crate) fn end_polls(&mut self) {
        self.is_ending = true;
        self.due.extend(self.polls.drain(..).map(without_patience));
    }

    /// What waited long enough: long polls become due; reads that found no leader, and those of an
    /// index or an offset that was not reached, are given back.
    pub(crate) fn expire(&mut self, now: Now) -> Vec<Asked> {
        if self.deadline_ms.is_none_or(|deadline| deadline > now.monotonic_ms) {
            return Vec::new();
        }
        let polls = self.polls.extract_if(.., |asked| asked.deadline_ms <= now.monotonic_ms);
        self.due.extend(polls.map(without_patience));
        let is_late = |asked: &mut Asked| asked.give_up_ms <= now.monotonic_ms;
        let mut late: Vec<Asked> = self.fresh.extract_if(.., is_late).collect();
        for (_, asked) in &mut self.rounds {
            late.extend(asked.extract_if(.., is_late));
        }
        // One that was told an index may have lost its leader before it came so far.
        let (of_indices, waiting) = self
            .by_index
            .drain(..)
            .partition::<Vec<_>, _>(|(_, asked)| asked.give_up_ms <= now.monotonic_ms);
        self.by_index = waiting.into();
        late.extend(of_indices.into_iter().map(|(_, asked)| asked));
        let of_offsets = self.by_offset.extract_if(.., |_, asked| is_late(asked));
        late.extend(of_offsets.map(|(_, asked)| asked));
        let polls = self.polls.iter().map(|asked| asked.deadline_ms);
        let rounds = self.rounds.iter().flat_map(|(_, asked)| asked);
        let of_indices = self.by_index.iter().map(|(_, asked)| asked);
        let others = self.fresh.iter().chain(rounds).chain(of_indices);
        let others = others.chain(self.by_offset.values());
        self.deadline_ms = polls.chain(others.map(|asked| asked.give_up_ms)).min();
        late
    }

    /// When `expire` has something to do, at the earliest.
    pub(crate) fn deadline_ms(&self) -> Option<u64> {
        self.deadline_ms
    }

    /// Forgets a connection that is gone; how many reads it had here.
    pub(crate) fn forget(&mut self, gone: ConnectionId) -> usize {
        let before = self.len();
        self.fresh.retain(|asked| asked.to != gone);
        self.rounds.iter_mut().for_each(|(_, asked)| asked.retain(|asked| asked.to != gone));
        self.by_index.retain(|(_, asked)| asked.to != gone);
        self.by_offset.retain(|_, asked| asked.to != gone);
        self.polls.retain(|asked| asked.to != gone);
        self.due.retain(|asked| asked.to != gone);
        before - self.len()
    }

    /// All of them, when the shard goes away.
    pub(crate) fn take_all(&mut self) -> Vec<Asked> {
        let all = std::mem::take(self);
        let rounds = all.rounds.into_iter().flat_map(|(_, asked)| asked);
        let by_index = all.by_index.into_iter().map(|(_, asked)| asked);
        let by_offset = all.by_offset.into_values();
        let rest = all.fresh.into_iter().chain(all.polls).chain(all.due);
        rounds.chain(by_index).chain(by_offset).chain(rest).collect()
    }

    fn note_deadline(&mut self, at_ms: u64) {
        self.deadline_ms = Some(self.deadline_ms.map_or(at_ms, |deadline| deadline.min(at_ms)));
    }
}

fn without_patience(mut asked: Asked) -> Asked {
    asked.deadline_ms = 0;
    if let Query::Log { wait_ms, .. } = &mut asked.read.query {
        *wait_ms = 0;
    }
    asked
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(request: u64, level: Level, query: Query) -> Asked {
        let read = Read { level, query };
        Asked::new(ConnectionId(request % 2), RequestId(request), read, Now::default())
    }

    fn get() -> Query {
        Query::Get { keyspace: "users".to_string(), key: vec![1] }
    }

    fn log(from: u64, wait_ms: u32) -> Query {
        Query::Log { from: Offset(from), max_bytes: 0, wait_ms }
    }

    fn due(waiting: &mut Waiting, index: u64, next: u64) -> Vec<u64> {
        let next = || waiting.next_due(Index(index), Offset(next));
        std::iter::from_fn(next).map(|asked| asked.request.0).collect()
    }

    #[test]
    fn a_burst_of_linearizable_reads_shares_a_round_and_waits_for_its_index() {
        let mut waiting = Waiting::default();
        waiting.add(asked(1, Level::Linearizable, get()));
        waiting.add(asked(2, Level::Linearizable, get()));
        let first = waiting.next_token();
        waiting.add(asked(3, Level::Linearizable, get()));
        assert!(waiting.has_fresh());
        let second = waiting.next_token();
        assert!(!waiting.has_fresh());
        waiting.found_index(first, Index(7));
        assert_eq!(due(&mut waiting, 6, 0), []);
        assert_eq!(due(&mut waiting, 7, 0), [1, 2]);
        waiting.found_index(second, Index(9));
        assert_eq!(due(&mut waiting, 9, 0), [3]);
        assert!(waiting.is_empty());
    }

    #[test]
    fn reads_of_offsets_wait_until_they_are_folded_in_or_give_up() {
        let mut waiting = Waiting::default();
        waiting.add(asked(1, Level::AtLeast(Offset(50)), get()));
        waiting.add(asked(2, Level::Exactly(Offset(40)), get()));
        waiting.add(asked(3, Level::AtLeast(Offset(90)), get()));
        waiting.add(asked(4, Level::Local, get()));
        assert_eq!(due(&mut waiting, 0, 40), [4]);
        assert_eq!(due(&mut waiting, 0, 51), [2, 1]);
        assert_eq!(waiting.deadline_ms(), Some(READ_OFFSET_WAIT_MS));
        let late = Now { monotonic_ms: READ_OFFSET_WAIT_MS, wall_ms: 0 };
        let given_up: Vec<u64> = waiting.expire(late).iter().map(|a| a.request.0).collect();
        assert_eq!(given_up, [3]);
        assert!(waiting.is_empty() && waiting.deadline_ms().is_none());
    }

    #[test]
    fn local_reads_do_not_go_back_when_tables_are_folded_again() {
        let mut waiting = Waiting::default();
        waiting.show_from(Offset(50));
        waiting.add(asked(1, Level::Local, get()));
        assert_eq!(due(&mut waiting, 0, 50), []);
        assert_eq!(due(&mut waiting, 0, 51), [1]);
        waiting.add(asked(2, Level::Local, get()));
        assert_eq!(due(&mut waiting, 0, 90), [2]);
        assert!(waiting.is_empty());
    }

    #[test]
    fn reads_that_were_told_an_index_do_not_wait_for_it_for_ever() {
        let mut waiting = Waiting::default();
        waiting.add(asked(1, Level::Linearizable, get()));
        let token = waiting.next_token();
        waiting.found_index(token, Index(7));
        let late = Now { monotonic_ms: READ_OFFSET_WAIT_MS, wall_ms: 0 };
        let given_up: Vec<u64> = waiting.expire(late).iter().map(|a| a.request.0).collect();
        assert_eq!(given_up, [1]);
        assert!(waiting.is_empty() && waiting.deadline_ms().is_none());
    }

    #[test]
    fn polls_of_the_log_end_with_news_with_time_or_on_demand() {
        let mut waiting = Waiting::default();
        for (request, from, wait_ms) in [(1, 10, 100), (2, 20, 200), (3, 30, 300)] {
            waiting.wait_for_log(asked(request, Level::Local, log(from, wait_ms)));
        }
        waiting.log_grew(Offset(10));
        assert_eq!(due(&mut waiting, 0, 0), []);
        waiting.log_grew(Offset(11));
        assert_eq!(due(&mut waiting, 0, 0), [1]);
        waiting.expire(Now { monotonic_ms: 200, wall_ms: 0 });
        assert_eq!(due(&mut waiting, 0, 0), [2]);
        waiting.end_polls();
        let last = waiting.next_due(Index(0), Offset(0)).unwrap();
        assert_eq!(last.read.query, log(30, 0), "it is not to wait again");
    }

    #[test]
    fn what_becomes_due_after_the_end_of_polls_does_not_wait_for_news() {
        let mut waiting = Waiting::default();
        let stream = "log".to_owned();
        let (from, limit, max_bytes) = (Offset(1), 0, 0);
        let records = Query::Records { stream, from, limit, max_bytes, wait_ms: 9_000 };
        waiting.add(asked(1, Level::AtLeast(Offset(50)), records));
        waiting.add(asked(2, Level::AtLeast(Offset(50)), log(70, 9_000)));
        waiting.end_polls();
        let mut next = || waiting.next_due(Index(9), Offset(51)).unwrap();
        assert_eq!(next().deadline_ms, 0);
        assert_eq!(next().read.query, log(70, 0));
        assert!(waiting.is_empty());
    }

    #[test]
    fn who_is_gone_waits_nowhere_and_who_is_left_is_found_everywhere() {
        let mut waiting = Waiting::default();
        for request in [0, 10] {
            waiting.add(asked(request + 1, Level::Linearizable, get()));
            waiting.add(asked(request + 2, Level::Linearizable, get()));
            let token = waiting.next_token();
            if request == 0 {
                waiting.found_index(token, Index(5));
            }
        }
        for request in 21..23 {
            waiting.add(asked(request, Level::Linearizable, get()));
            waiting.add(asked(request + 10, Level::Local, get()));
            waiting.add(asked(request + 20, Level::AtLeast(Offset(9)), get()));
            waiting.wait_for_log(asked(request + 30, Level::Local, log(5, 100)));
        }
        waiting.forget(ConnectionId(0));
        let mut left: Vec<u64> = waiting.take_all().iter().map(|a| a.request.0).collect();
        left.sort_unstable();
        assert_eq!(left, [1, 11, 21, 31, 41, 51]);
        assert!(waiting.is_empty());
    }
}
