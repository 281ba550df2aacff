//! A client's session: its sequence numbers, and commits that are sent again until their fate is
//! known.

use naust_wire::{Sequence, SessionId};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A session as its client keeps it.
#[derive(Clone, Debug)]
pub struct Session {
    /// Its id.
    pub id: SessionId,
    next: u64,
    /// Commits whose fate is not known yet; `true`: on its way to a node.
    open: BTreeMap<u64, (Arc<[u8]>, bool)>,
}

impl Session {
    /// A session that was just opened.
    #[must_use]
    pub fn new(id: SessionId) -> Session {
        Session { id, next: 1, open: BTreeMap::new() }
    }

    /// The next sequence, and below which one all replies are known.
    #[must_use]
    pub fn numbers(&self) -> (Sequence, Sequence) {
        let acked_below = self.open.keys().next().copied().unwrap_or(self.next);
        (Sequence(self.next), Sequence(acked_below))
    }

    /// Takes the next sequence for a commit that is about to be sent.
    pub fn take(&mut self, body: Arc<[u8]>) -> Sequence {
        let sequence = self.next;
        self.open.insert(sequence, (body, true));
        self.next += 1;
        Sequence(sequence)
    }

    /// The fate of a commit is known, or it is given up.
    pub fn settle(&mut self, sequence: Sequence) {
        self.open.remove(&sequence.0);
    }

    /// What was sent may not have arrived: it is to be sent again.
    pub fn doubt(&mut self, sequence: Sequence) {
        if let Some((_, under_way)) = self.open.get_mut(&sequence.0) {
            *under_way = false;
        }
    }

    /// The first commit that is to be sent again; it is under way from now on.
    pub fn again(&mut self) -> Option<(Sequence, Arc<[u8]>)> {
        let (sequence, (body, under_way)) =
            self.open.iter_mut().find(|(_, (_, under_way))| !*under_way)?;
        *under_way = true;
        Some((Sequence(*sequence), body.clone()))
    }

    /// How many commits have an unknown fate.
    #[must_use]
    pub fn open(&self) -> usize {
        self.open.len()
    }
}
