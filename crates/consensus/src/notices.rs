//! What a leader tells its followers of what is committed.
//!
//! Raft would send every follower an empty append each time that more is committed, and get an
//! answer that tells nothing. Here an append or a heartbeat that leaves anyway carries it, and
//! otherwise a message without an answer ([`MessageKind::Committed`]). One that is lost is made up
//! for by the next heartbeat.

use crate::replica::Replica;
use crate::{Message, MessageKind};
use naust_wire::{Index, NodeId, Term};
use raft::{ProgressState, StateRole};

impl Replica {
    /// Whether a follower is not told yet what is committed. To be asked when everything else that
    /// is to leave was taken from the Readies.
    #[must_use]
    pub fn owes_notices(&self) -> bool {
        self.owed().next().is_some()
    }

    /// Messages to all followers who are not told yet what is committed.
    pub fn notices(&mut self, messages: &mut Vec<Message>) {
        let from = messages.len();
        messages.extend(self.owed().map(|(node, commit)| Message {
            kind: MessageKind::Committed,
            from: self.id(),
            to: NodeId(node),
            term: Term(self.raft.term),
            log_term: Term(0),
            index: Index(0),
            entries: Vec::new(),
            commit: Index(commit),
            commit_term: Term(0),
            reject: false,
            reject_hint: Index(0),
            request_snapshot: Index(0),
            priority: 0,
            context: Vec::new(),
        }));
        self.note_told(&messages[from..]);
    }

    /// To whom a leader owes a notice, and of what.
    fn owed(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        let Replica { raft, noticed, .. } = self;
        let committed = raft.raft_log.committed;
        let leads = raft.state == StateRole::Leader;
        let all = raft.prs().iter().filter(move |(node, progress)| {
            leads && **node != raft.id && progress.state == ProgressState::Replicate
        });
        // Behind what it agrees with it may have entries of its own.
        let all = all.map(move |(node, progress)| (*node, progress.matched.min(committed)));
        all.filter(|(node, commit)| noticed.get(node).copied().unwrap_or(0) < *commit)
    }

    /// Notes what messages that leave tell.
    pub(crate) fn note_told(&mut self, messages: &[Message]) {
        if self.raft.state == StateRole::Leader {
            let tells = |message: &&Message| {
                let kinds = [MessageKind::Append, MessageKind::Heartbeat, MessageKind::Committed];
                kinds.contains(&message.kind)
            };
            for message in messages.iter().filter(tells) {
                let told = self.noticed.entry(message.to.0).or_default();
                *told = message.commit.0.max(*told);
            }
        }
    }
}
