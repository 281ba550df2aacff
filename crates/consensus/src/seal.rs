//! Proof in the log that a configuration is in force.
//!
//! A configuration counts from its *application* on: when it is known to be committed. That is
//! known to a running replica, but not written down: one that restarts before its tables were
//! flushed would go by the configuration before, and so would whoever had not heard of the commit.
//! After a change from two voters to three they might then look for a majority with one of the two,
//! who is lost, though two of three are there.
//!
//! So a leader that puts a configuration in force appends a *seal*: an empty entry behind another
//! of the same term (a new leader's first entry is empty too, but the first of its term). It
//! appends one only while all changes in its log are in force. Whoever finds a seal behind a
//! configuration, or another configuration, knows that the first was committed: whoever appended
//! them knew.
//!
//! ```text
//!   … Configure A   x   y   seal   z …     A is in force, whatever the tables say
//!   … Configure A   x   Configure B   y …  A is in force, B may be
//! ```
//! And until the seal is committed, which takes a majority of the new configuration, the leader
//! tells of nothing behind the change that it is committed. So whatever is acknowledged under a
//! configuration is acknowledged by a majority of it that has the proof, or what follows it: of any
//! majority that is left, who has the longest log can prove it, and lead.

use crate::EntryKind;
use crate::entries::raft_entry;
use crate::replica::Replica;
use naust_wire::{Index, Term};
use raft::StateRole;

/// What a leader knows of the proof of its configuration.
#[derive(Default)]
pub(crate) struct Seal {
    /// The entry that put the configuration in force, zero if that is not known any more; `None`:
    /// it is the one that the log began with.
    pub configured: Option<u64>,
    /// Term and place of the last one that this leader appended.
    pub appended: (u64, u64),
    /// Where the log ended when this replica came to lead: before that, somebody else may have
    /// proposed a change.
    pub led_from: u64,
}

/// How many of the changes behind what is applied, as they stand in a log, are known to be
/// committed: those in front of another one, or of the last seal.
#[must_use]
pub fn known_changes(changes: &[(Index, Vec<u8>)], seal: Index) -> usize {
    let before_another = changes.len().saturating_sub(1);
    let before_seal = changes.partition_point(|(index, _)| *index < seal);
    before_another.max(before_seal)
}

/// Whether an entry is a seal, by its kind, its term and that of the entry in front.
#[must_use]
pub fn is_seal(kind: &EntryKind, term: Term, before: Term) -> bool {
    *kind == EntryKind::Empty && term == before
}

impl Replica {
    /// Whoever leads appends the proof that its configuration is in force, if there is none.
    pub(crate) fn settle_seal(&mut self) {
        let Some(configured) = self.seal.configured else { return };
        let (term, proof) = self.seal.appended;
        let is_under_way = term == self.raft.term && proof > configured;
        if self.raft.state != StateRole::Leader
            || is_under_way
            || self.proof(configured).is_some()
            || self.raft.has_pending_conf()
            || self.check_may_propose().is_err()
        {
            return;
        }
        let seal = self.append(&mut [raft_entry(&EntryKind::Empty)]).start;
        self.seal.appended = (self.raft.term, seal.0);
    }

    /// Where the log proves that the configuration of the entry `configured` is in force.
    fn proof(&self, configured: u64) -> Option<u64> {
        let store = self.raft.store();
        let change = store.configure_after(configured).map(|(index, _)| index);
        let seal = Some(store.seal()).filter(|seal| *seal > configured);
        [change, seal].into_iter().flatten().min()
    }

    /// What a leader may tell of what is committed: a change that is not in force yet, and
    /// nothing behind one without a proof.
    pub(crate) fn provable(&self, committed: u64) -> u64 {
        if self.raft.state != StateRole::Leader {
            return committed;
        }
        let log = &self.raft.raft_log;
        let change = log.store.configure_after(log.applied).map(|(change, _)| change);
        let committed = committed.min(change.unwrap_or(committed));
        let Some(configured) = self.seal.configured else { return committed };
        match self.proof(configured) {
            Some(proof) if proof <= log.committed => committed,
            _ => committed.min(configured.max(self.seal.led_from)),
        }
    }
}
