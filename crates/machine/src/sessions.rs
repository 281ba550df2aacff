//! Sessions: who may be answered again, and with what.
//!
//! A session keeps the answers of the sequences in *acked below .. acked below + window*; a commit
//! or control entry within it that was seen is answered again, any other is applied, in whatever
//! order they arrive. Sessions expire in log time, and the one longest unused goes when there are
//! too many or their answers weigh too much. All of it follows from the log alone.
//!
//! ```text
//! row: last used u64 | last time u64 | ttl ms u64 | nonce u64 | acked below u64 | count u32
//!      | answers
//! answer: 0                                                  gap: not seen yet
//!         1 | commit u64                                     committed
//!         2 | commit u64 | Δ u32                             committed; one record at commit + Δ
//!         3 | commit u64 | ids bytes | ranges u32, each: deleted u32, has next u8, next bytes
//!         4 | condition u16 | at u64 | found u64             a condition failed
//!         5 | code u16 | detail text                         failed otherwise
//! ```

mod answer;
mod session;

pub(crate) use answer::{Answer, More};
use session::Session;

use crate::rows::{Damaged, Fields};
use naust_wire::limits::{
    SESSION_TTL_MS_DEFAULT, SESSION_WINDOW_MAX, SESSIONS_PER_SHARD_MAX, SESSIONS_REPLY_BYTES_MAX,
};
use naust_wire::planted::{self, Bug};
use naust_wire::{LogTime, Numbers, Offset, Sequence, SessionId};
use rustc_hash::FxHashMap;

/// Where a session lies in the list. Valid until the session ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slot(u32);

const NONE: Slot = Slot(u32::MAX);

/// A session to be opened.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Opening {
    pub(crate) id: SessionId,
    /// The frame that opens it.
    pub(crate) at: Offset,
    /// Zero: the default.
    pub(crate) ttl_ms: u64,
    pub(crate) nonce: u64,
    pub(crate) time: LogTime,
}

/// What a commit of a session meets.
#[derive(Debug)]
pub(crate) enum Turn<'a> {
    /// The session is unknown or expired.
    Expired,
    /// The sequence is below the window, or above it.
    OutOfWindow,
    /// It was answered before.
    Again(&'a Answer),
    /// It is new: apply it, then `keep` its answer.
    Fresh(Slot),
}

/// The sessions of a shard. Invariants: `ids` leads to every live slot; the list from `oldest` to
/// `newest` has every live slot in the order of last use; `weight` is the sum over all
/// sessions.
#[derive(Debug)]
pub(crate) struct Sessions {
    ids: FxHashMap<SessionId, Slot>,
    slots: Vec<Session>,
    free: Vec<Slot>,
    oldest: Slot,
    newest: Slot,
    weight: usize,
    dirty: Vec<SessionId>,
    /// Ended since the last rotation, though a row of theirs exists.
    ended: Vec<SessionId>,
    max: usize,
    weight_max: usize,
}

impl Default for Sessions {
    fn default() -> Sessions {
        Sessions {
            ids: FxHashMap::default(),
            slots: Vec::new(),
            free: Vec::new(),
            oldest: NONE,
            newest: NONE,
            weight: 0,
            dirty: Vec::new(),
            ended: Vec::new(),
            max: SESSIONS_PER_SHARD_MAX,
            weight_max: SESSIONS_REPLY_BYTES_MAX,
        }
    }
}

impl Sessions {
    /// Opens a session. Expired ones make room first, then the one longest unused. `false`: a
    /// session that lives has this id.
    #[must_use]
    pub(crate) fn open(&mut self, session: Opening) -> bool {
        let Opening { id, at, ttl_ms, nonce, time } = session;
        while self.oldest != NONE && self.slots[self.oldest.0 as usize].is_expired(time) {
            self.end_slot(self.oldest);
        }
        match self.ids.get(&id).copied() {
            Some(slot) if self.slots[slot.0 as usize].is_expired(time) => self.end_slot(slot),
            Some(_) => return false,
            None => {}
        }
        if self.ids.len() >= self.max {
            self.end_slot(self.oldest);
        }
        let ttl_ms = if ttl_ms == 0 { SESSION_TTL_MS_DEFAULT } else { ttl_ms };
        let slot = self.insert(Session::new(Opening { id, at, ttl_ms, nonce, time }));
        self.mark_dirty(slot);
        true
    }

    /// Ends a session; `false`: there is none, or it has expired.
    pub(crate) fn close(&mut self, id: SessionId, time: LogTime) -> bool {
        let Some(slot) = self.ids.get(&id).copied() else { return false };
        let lived = !self.slots[slot.0 as usize].is_expired(time);
        self.end_slot(slot);
        lived
    }

    /// A commit or control entry of a session comes: what now?
    pub(crate) fn turn(&mut self, numbers: &Numbers, at: Offset, time: LogTime) -> Turn<'_> {
        let Numbers { session: id, sequence, acked_below } = *numbers;
        let Some(slot) = self.ids.get(&id).copied() else { return Turn::Expired };
        if self.slots[slot.0 as usize].is_expired(time) {
            self.end_slot(slot);
            return Turn::Expired;
        }
        self.touch(slot);
        let session = &mut self.slots[slot.0 as usize];
        session.last_used = at;
        session.last_time = time;
        self.weight -= session.forget_below(acked_below.0);
        if !session.dirty {
            self.mark_dirty(slot);
        }
        let session = &self.slots[slot.0 as usize];
        let Some(place) = sequence.0.checked_sub(session.acked_below) else {
            return Turn::OutOfWindow;
        };
        if place >= SESSION_WINDOW_MAX as u64 {
            return Turn::OutOfWindow;
        }
        match session.answers.get(place as usize) {
            None | Some(Answer::Gap) => Turn::Fresh(slot),
            Some(_) if planted::has(Bug::ApplyTwice) => Turn::Fresh(slot),
            Some(answer) => Turn::Again(answer),
        }
    }

    /// Keeps the answer of a commit whose turn was `Fresh`.
    pub(crate) fn keep(&mut self, slot: Slot, sequence: Sequence, answer: Answer) {
        let session = &mut self.slots[slot.0 as usize];
        let before = session.weight;
        session.keep(sequence.0, answer);
        self.weight = self.weight + session.weight - before;
        while self.weight > self.weight_max && self.oldest != slot {
            self.end_slot(self.oldest);
        }
    }

    fn insert(&mut self, session: Session) -> Slot {
        let id = session.id;
        self.weight += session.weight;
        let slot = match self.free.pop() {
            Some(slot) => {
                self.slots[slot.0 as usize] = session;
                slot
            }
            None => {
                self.slots.push(session);
                Slot(u32::try_from(self.slots.len() - 1).expect("sessions are bounded below 2^32"))
            }
        };
        self.ids.insert(id, slot);
        self.link_newest(slot);
        slot
    }

    fn end_slot(&mut self, slot: Slot) {
        self.unlink(slot);
        let session = &mut self.slots[slot.0 as usize];
        let id = session.id;
        self.weight -= session.weight;
        if session.stored {
            self.ended.push(id);
        }
        *session = Session::default();
        self.ids.remove(&id);
        self.free.push(slot);
    }

    fn mark_dirty(&mut self, slot: Slot) {
        let session = &mut self.slots[slot.0 as usize];
        session.dirty = true;
        self.dirty.push(session.id);
    }

    fn touch(&mut self, slot: Slot) {
        if self.newest != slot {
            self.unlink(slot);
            self.link_newest(slot);
        }
    }

    fn unlink(&mut self, slot: Slot) {
        let Session { older, newer, .. } = self.slots[slot.0 as usize];
        match older {
            NONE => self.oldest = newer,
            older => self.slots[older.0 as usize].newer = newer,
        }
        match newer {
            NONE => self.newest = older,
            newer => self.slots[newer.0 as usize].older = older,
        }
    }

    fn link_newest(&mut self, slot: Slot) {
        let before = std::mem::replace(&mut self.newest, slot);
        let session = &mut self.slots[slot.0 as usize];
        session.older = before;
        session.newer = NONE;
        match before {
            NONE => self.oldest = slot,
            before => self.slots[before.0 as usize].newer = slot,
        }
    }

    /// For a rotation: hands the ids of rows to remove to `write`, with `None`, and then the rows
    /// to write, with their values; each id once. After this nothing is dirty.
    pub(crate) fn rotate<E>(
        &mut self,
        mut write: impl FnMut(SessionId, Option<&[u8]>) -> Result<(), E>,
    ) -> Result<(), E> {
        // Clients draw the nonces, so an id may have come back: what counts is whether it lives.
        for id in self.ended.drain(..).filter(|id| !self.ids.contains_key(id)) {
            write(id, None)?;
        }
        let mut value = Vec::new();
        for id in self.dirty.drain(..) {
            let Some(slot) = self.ids.get(&id) else { continue };
            let session = &mut self.slots[slot.0 as usize];
            if !session.dirty {
                continue;
            }
            value.clear();
            session.write(&mut value);
            session.dirty = false;
            session.stored = true;
            if planted::has(Bug::DropSession) && id.0 % 4 == 0 {
                continue;
            }
            write(id, Some(&value))?;
        }
        Ok(())
    }

    /// Rows that the next rotation writes, about, in bytes.
    pub(crate) fn unwritten_bytes(&self) -> u64 {
        (self.dirty.len() + self.ended.len()) as u64 * 64
    }

    /// Takes rows back at opening.
    pub(crate) fn load(rows: Vec<(SessionId, Vec<u8>)>) -> Result<Sessions, Damaged> {
        let mut loaded = Vec::with_capacity(rows.len());
        for (id, value) in rows {
            loaded.push(Session::read(id, &mut Fields::new(&value, "session"))?);
        }
        loaded.sort_unstable_by_key(|session| session.last_used);
        let mut sessions = Sessions::default();
        for session in loaded {
            sessions.insert(session);
        }
        Ok(sessions)
    }

    /// All sessions in the order of last use, each as its row without the texts of refusals, whose
    /// words may differ between builds.
    pub(crate) fn visit(&self, mut visit: impl FnMut(SessionId, &[u8])) {
        let (mut slot, mut value) = (self.oldest, Vec::new());
        while slot != NONE {
            let session = &self.slots[slot.0 as usize];
            value.clear();
            session.write_without_texts(&mut value);
            visit(session.id, &value);
            slot = session.newer;
        }
    }

    #[cfg(test)]
    fn bounded(max: usize, weight_max: usize) -> Sessions {
        Sessions { max, weight_max, ..Sessions::default() }
    }
}

#[cfg(test)]
mod tests;
