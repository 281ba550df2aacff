//! One session: its window of answers and its life.

use super::{Answer, NONE, Opening, Slot};
use crate::rows::{Damaged, Fields, put_u32, put_u64};
use naust_wire::limits::{SESSION_REPLY_BYTES_MAX, SESSION_WINDOW_MAX};
use naust_wire::{LogTime, Offset, SessionId};
use std::collections::VecDeque;

/// A session. Invariants: `answers[i]` is that of sequence `acked_below + i`, and the last one is
/// no gap; `weight` is the sum of theirs.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) id: SessionId,
    /// The last commit of it.
    pub(super) last_used: Offset,
    pub(super) last_time: LogTime,
    ttl_ms: u64,
    nonce: u64,
    pub(super) acked_below: u64,
    pub(super) answers: VecDeque<Answer>,
    pub(super) weight: usize,
    /// It changed since its row was written.
    pub(super) dirty: bool,
    /// A row of it exists.
    pub(super) stored: bool,
    pub(super) older: Slot,
    pub(super) newer: Slot,
}

impl Default for Session {
    fn default() -> Session {
        Session::new(Opening::default())
    }
}

impl Session {
    pub(super) fn new(opening: Opening) -> Session {
        Session {
            id: opening.id,
            last_used: opening.at,
            last_time: opening.time,
            ttl_ms: opening.ttl_ms,
            nonce: opening.nonce,
            acked_below: 1,
            answers: VecDeque::new(),
            weight: 0,
            dirty: false,
            stored: false,
            older: NONE,
            newer: NONE,
        }
    }

    pub(super) fn is_expired(&self, now: LogTime) -> bool {
        now.0.saturating_sub(self.last_time.0) > self.ttl_ms
    }

    /// The client has the answers below this sequence; returns the weight that is gone.
    pub(super) fn forget_below(&mut self, acked_below: u64) -> usize {
        let before = self.weight;
        while self.acked_below < acked_below && !self.answers.is_empty() {
            self.forget_first();
        }
        self.acked_below = self.acked_below.max(acked_below);
        before - self.weight
    }

    fn forget_first(&mut self) {
        let first = self.answers.pop_front();
        self.weight -= first.map_or(0, |answer| answer.weight());
        self.acked_below += 1;
    }

    /// Keeps an answer; the oldest ones are forgotten when they weigh too much together.
    pub(super) fn keep(&mut self, sequence: u64, answer: Answer) {
        let place = (sequence - self.acked_below) as usize;
        assert!(place < SESSION_WINDOW_MAX, "only sequences within the window are kept");
        while self.answers.len() <= place {
            self.answers.push_back(Answer::Gap);
            self.weight += Answer::Gap.weight();
        }
        self.weight += answer.weight() - Answer::Gap.weight();
        self.answers[place] = answer;
        while self.weight > SESSION_REPLY_BYTES_MAX && self.answers.len() > 1 {
            self.forget_first();
        }
    }

    pub(super) fn write(&self, out: &mut Vec<u8>) {
        self.write_head(out);
        self.answers.iter().for_each(|answer| answer.write(out));
    }

    /// What replicas have in common of its row.
    pub(super) fn write_without_texts(&self, out: &mut Vec<u8>) {
        self.write_head(out);
        self.answers.iter().for_each(|answer| answer.write_without_text(out));
    }

    fn write_head(&self, out: &mut Vec<u8>) {
        put_u64(out, self.last_used.0);
        put_u64(out, self.last_time.0);
        put_u64(out, self.ttl_ms);
        put_u64(out, self.nonce);
        put_u64(out, self.acked_below);
        put_u32(out, self.answers.len() as u32);
    }

    pub(super) fn read(id: SessionId, fields: &mut Fields<'_>) -> Result<Session, Damaged> {
        let mut session = Session::new(Opening { id, ..Opening::default() });
        session.last_used = fields.offset()?;
        session.last_time = LogTime(fields.u64()?);
        session.ttl_ms = fields.u64()?;
        session.nonce = fields.u64()?;
        session.acked_below = fields.u64()?;
        let count = fields.u32()? as usize;
        if count > SESSION_WINDOW_MAX {
            return Err(fields.damaged());
        }
        for _ in 0..count {
            let answer = Answer::read(fields)?;
            session.weight += answer.weight();
            session.answers.push_back(answer);
        }
        fields.end()?;
        session.stored = true;
        Ok(session)
    }
}
