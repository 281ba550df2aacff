//! Sessions of the model: who may speak, and what was answered.

use super::Verdict;
use naust_wire::limits::{SESSION_TTL_MS_DEFAULT, SESSION_TTL_MS_MAX, SESSION_WINDOW_MAX};
use naust_wire::{Code, LogTime, Offset, Sequence, SessionId};
use std::collections::BTreeMap;

/// Session, sequence and what the client has the replies of.
pub type Numbers = (SessionId, Sequence, Sequence);

/// All sessions that live.
#[derive(Clone, Debug, Default)]
pub struct Sessions(BTreeMap<SessionId, Session>);

#[derive(Clone, Debug)]
struct Session {
    ttl_ms: u64,
    used: LogTime,
    used_at: Offset,
    acked_below: Sequence,
    verdicts: BTreeMap<Sequence, Verdict>,
}

impl Session {
    fn is_expired(&self, now: LogTime) -> bool {
        now.0 - self.used.0 > self.ttl_ms
    }
}

/// Whether a commit may be evaluated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It is new, or belongs to no session.
    New,
    /// It was evaluated before.
    Known(Verdict),
    /// Its session or sequence can't be taken.
    Refused(Code),
}

impl Sessions {
    /// A session begins. Those longest unused that are expired go first.
    pub fn open(&mut self, id: SessionId, at: Offset, ttl_ms: u64, now: LogTime) {
        while let Some((id, oldest)) = self.0.iter().min_by_key(|(_, session)| session.used_at)
            && oldest.is_expired(now)
        {
            let id = *id;
            self.0.remove(&id);
        }
        let ttl_ms = if ttl_ms == 0 { SESSION_TTL_MS_DEFAULT } else { ttl_ms };
        let session = Session {
            ttl_ms: ttl_ms.min(SESSION_TTL_MS_MAX),
            used: now,
            used_at: at,
            acked_below: Sequence(1),
            verdicts: BTreeMap::new(),
        };
        self.0.insert(id, session);
    }

    /// A session ends; `false`: there is none that lives.
    pub fn close(&mut self, session: SessionId, now: LogTime) -> bool {
        self.0.remove(&session).is_some_and(|session| !session.is_expired(now))
    }

    /// Whether a commit may be evaluated at a log time.
    pub fn admit(
        &mut self,
        (id, sequence, acked_below): Numbers,
        at: Offset,
        now: LogTime,
    ) -> Admission {
        if id == SessionId::NONE {
            return Admission::New;
        }
        let Some(session) = self.0.get_mut(&id) else {
            return Admission::Refused(Code::SessionExpired);
        };
        if session.is_expired(now) {
            self.0.remove(&id);
            return Admission::Refused(Code::SessionExpired);
        }
        session.used = now;
        session.used_at = at;
        session.acked_below = session.acked_below.max(acked_below);
        session.verdicts = session.verdicts.split_off(&session.acked_below);
        if let Some(verdict) = session.verdicts.get(&sequence) {
            return Admission::Known(verdict.clone());
        }
        let window = session.acked_below.0..session.acked_below.0 + SESSION_WINDOW_MAX as u64;
        if window.contains(&sequence.0) {
            Admission::New
        } else {
            Admission::Refused(Code::SequenceOutOfWindow)
        }
    }

    /// Keeps the verdict of a commit that was evaluated.
    pub fn remember(&mut self, (id, sequence, _): Numbers, verdict: &Verdict) {
        if let Some(session) = self.0.get_mut(&id) {
            session.verdicts.insert(sequence, verdict.clone());
        }
    }
}
