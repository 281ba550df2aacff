//! Which messages are taken in. Raft trusts its peers: what contradicts what it knows ends the
//! process, and what is late may lead it astray. Here such messages are dropped, and counted.

use crate::configuration::Configuration;
use crate::members::Questions;
use crate::replica::Replica;
use crate::transfer::heartbeat;
use crate::{Entry, EntryKind, Message, MessageKind};
use naust_wire::limits::APPEND_FRAMES_MAX;
use naust_wire::{Index, NodeId, Term};
use raft::{StateRole, eraftpb};

/// No cluster gets there; beyond lies an overflow.
const TERM_MAX: u64 = u64::MAX / 2;

/// What only a leader says.
const LEADS: [MessageKind; 4] =
    [MessageKind::Append, MessageKind::Heartbeat, MessageKind::Committed, MessageKind::Snapshot];

impl Replica {
    /// Takes in a message of another replica. Messages of strangers, and those that can't be true,
    /// are dropped.
    pub fn step(&mut self, message: Message) {
        if !self.is_possible(&message) {
            self.refused += 1;
            return;
        }
        if LEADS.contains(&message.kind) {
            self.questions = Questions::default();
        }
        if message.kind == MessageKind::Committed {
            let mut heartbeat = message.into_raft();
            heartbeat.commit = heartbeat.commit.min(self.raft.raft_log.last_index());
            self.step_unanswered(heartbeat);
            self.settle();
            return;
        }
        let told = (message.commit.0, message.commit_term.0);
        let refusal = message.kind == MessageKind::PreVoteAnswer && message.reject;
        if let Some(message) = self.admit(message) {
            // What Raft does not want, it does without.
            let _ = self.raft.step(message);
            if refusal && told.1 > 0 && self.raft.state == StateRole::Follower {
                // As a candidate takes it in.
                self.raft.raft_log.maybe_commit(told.0, told.1);
            }
        }
        self.settle();
    }

    /// Messages that were dropped because they can't be true.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused
    }

    fn is_possible(&self, message: &Message) -> bool {
        let index = message.index.0;
        if message.to != self.id() || message.from == self.id() || message.from == NodeId(0) {
            return false;
        }
        // For Raft a message without a term is one of its own; requests for reads have none.
        if (message.term == Term(0)) != (message.kind == MessageKind::Read) {
            return false;
        }
        if message.term.0 > TERM_MAX || index > u64::MAX / 2 {
            return false;
        }
        if message.term == self.own_term && LEADS.contains(&message.kind) {
            return false;
        }
        match message.kind {
            MessageKind::Append => self.is_possible_append(message),
            MessageKind::Snapshot => {
                index > 0 && message.log_term > Term(0) && message.log_term <= message.term
            }
            // What this log does not reach can't agree with it.
            MessageKind::AppendAnswer if message.term.0 == self.raft.term && !message.reject => {
                index <= self.raft.raft_log.last_index()
            }
            _ => true,
        }
    }

    fn is_possible_append(&self, message: &Message) -> bool {
        let mut before = (message.index, message.log_term);
        // For Raft everything beyond its log has the term zero, and would agree with that.
        if (message.index == Index(0)) != (message.log_term == Term(0)) {
            return false;
        }
        let log = &self.raft.raft_log;
        let in_order = message.entries.iter().all(|entry| {
            let follows = entry.index == before.0.next() && entry.term >= before.1.max(Term(1));
            before = (entry.index, entry.term);
            follows
        });
        let committed = |index: Index| index.0 <= log.committed && index.0 >= log.first_index();
        in_order
            && before.1 <= message.term
            && self.are_possible_changes(message)
            && message.entries.len() as u64 <= APPEND_FRAMES_MAX
            && message
                .entries
                .iter()
                .take_while(|entry| entry.index.0 <= log.committed)
                .all(|entry| !committed(entry.index) || log.match_term(entry.index.0, entry.term.0))
    }

    /// Whether the configurations in an append that Raft will take in follow each other: once they
    /// are committed they can't be refused any more.
    fn are_possible_changes(&self, message: &Message) -> bool {
        let log = &self.raft.raft_log;
        let index = message.index.0;
        let changes = |entry: &Entry| matches!(entry.kind, EntryKind::Configure(_));
        if !message.entries.iter().any(changes) {
            return true;
        }
        // Raft says what it has instead, or that it does not reach so far.
        let passes_over = index < log.committed || !log.match_term(index, message.log_term.0);
        let read = |bytes| Configuration::decode(bytes).expect("it was read when it came in");
        let last = self.last_change(log.applied, index);
        let mut last = last.map_or_else(|| self.configuration.clone(), read);
        message.entries.iter().all(|entry| {
            let at = entry.index.0;
            if log.match_term(at, entry.term.0) {
                // Raft keeps what it has.
                let kept = self.last_change(at.saturating_sub(1), at).map(read);
                last = kept.unwrap_or_else(|| last.clone());
            } else if let EntryKind::Configure(bytes) = &entry.kind {
                let Ok(next) = Configuration::decode(bytes) else { return false };
                let follows = last.leads_to(&next);
                last = next;
                return follows || passes_over;
            }
            true
        })
    }

    /// `None`: there is nothing for Raft to do.
    fn admit(&mut self, message: Message) -> Option<eraftpb::Message> {
        let mut message = message.into_raft();
        let from = self.raft.prs().get(message.from);
        match message.get_msg_type() {
            eraftpb::MessageType::MsgAppend if self.transfers.installing.is_some() => {
                self.step_unanswered(heartbeat(&message));
                return None;
            }
            eraftpb::MessageType::MsgHeartbeat => {
                // A follower that lost what it had acknowledged: that shows in the next append.
                message.commit = message.commit.min(self.raft.raft_log.last_index());
            }
            eraftpb::MessageType::MsgRequestVote | eraftpb::MessageType::MsgRequestPreVote => {
                // Nobody is preferred; and a replica without a term can't say no.
                (message.priority, message.deprecated_priority) = (0, 0);
            }
            eraftpb::MessageType::MsgSnapshot => return self.offered(message),
            eraftpb::MessageType::MsgReadIndex => {
                from?;
                return self.forwarded_read(message);
            }
            eraftpb::MessageType::MsgTimeoutNow => {
                let follows = message.term == self.raft.term && message.from == self.raft.leader_id;
                return (follows && self.may_campaign()).then_some(message);
            }
            eraftpb::MessageType::MsgAppendResponse => {
                from?;
                return self.admit_append_answer(message);
            }
            eraftpb::MessageType::MsgHeartbeatResponse
            | eraftpb::MessageType::MsgRequestVoteResponse
            | eraftpb::MessageType::MsgRequestPreVoteResponse => {
                from?;
            }
            _ => {}
        }
        Some(message)
    }

    /// Takes in a sign of life of the leader, without an answer: a leader answers that with the
    /// next append.
    fn step_unanswered(&mut self, heartbeat: eraftpb::Message) {
        let before = self.raft.msgs.len();
        let _ = self.raft.step(heartbeat);
        let answer = eraftpb::MessageType::MsgHeartbeatResponse;
        let answered = self.raft.msgs.len() > before
            && self.raft.msgs.last().is_some_and(|last| last.get_msg_type() == answer);
        if answered {
            self.raft.msgs.pop();
        }
    }

    /// A late no must not lead the leader back behind what the follower has since agreed to: there
    /// the log may be gone, and the follower would get a snapshot that it does not need. (The
    /// crate's change 557, which is in no release.)
    fn admit_append_answer(&self, mut message: eraftpb::Message) -> Option<eraftpb::Message> {
        let matched = self.raft.prs().get(message.from)?.matched;
        let current = message.term == self.raft.term && self.raft.state == StateRole::Leader;
        // Nobody here asks for a snapshot in this way.
        message.request_snapshot = 0;
        if !message.reject || !current {
            return Some(message);
        }
        if message.index <= matched {
            return None;
        }
        let log = &self.raft.raft_log;
        let mut hint = message.reject_hint.min(log.last_index());
        if message.log_term > 0 {
            hint = log.find_conflict_by_term(hint, message.log_term).0;
        }
        (message.reject_hint, message.log_term) = (hint.max(matched), 0);
        Some(message)
    }
}
