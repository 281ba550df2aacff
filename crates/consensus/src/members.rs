//! Changes of the configuration, who is how far, and who is to lead.

use crate::EntryKind;
use crate::configuration::{Change, Configuration};
use crate::entries::raft_entry;
use crate::replica::{APPENDS_BEHIND_MAX, APPENDS_MAX, HEARTBEAT_TICKS, NotLeader, Replica};
use naust_wire::{Index, NodeId};
use raft::{StateRole, eraftpb};

/// How a leader feeds a follower.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProgressState {
    /// It looks for where the logs agree, one message at a time.
    Probing,
    /// It sends what is new at once.
    Replicating,
    /// It was offered a snapshot and gets nothing until that has ended.
    Snapshot,
}

/// How far a follower is, as its leader knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Its disk agrees with the leader's log up to here.
    pub matched: Index,
    /// It knows that everything up to here is committed.
    pub committed: Index,
    /// How it is fed.
    pub state: ProgressState,
    /// It was heard of within the last [`ELECTION_TICKS`](crate::ELECTION_TICKS) or so.
    pub active: bool,
}

/// Election timeouts between two questions for what is committed, at the most: one that was
/// removed and does not know it wakes others with each.
const QUESTION_TIMEOUTS_MAX: u32 = 16;

/// Questions for what is committed, each after twice as many election timeouts as the one before.
#[derive(Default)]
pub(crate) struct Questions {
    /// Timeouts between the last one and the next.
    pause: u32,
    /// How many of them are left.
    left: u32,
}

impl Questions {
    /// Another election timeout passed.
    fn are_due(&mut self) -> bool {
        if self.left > 0 {
            self.left -= 1;
            return false;
        }
        self.pause = (2 * self.pause).clamp(1, QUESTION_TIMEOUTS_MAX);
        self.left = self.pause - 1;
        true
    }
}

impl Replica {
    /// Appends a change of the configuration; its bytes come out of the next Ready. `None`:
    /// another change is not in force yet, or this one is none.
    ///
    /// # Errors
    /// [`NotLeader`].
    pub fn propose_configure(&mut self, change: Change) -> Result<Option<Index>, NotLeader> {
        self.propose_changes(&[change])
    }

    /// As [`Replica::propose_configure`], with several changes that are made together. When they
    /// are in force as a joint configuration, whoever leads proposes to leave it.
    ///
    /// # Errors
    /// [`NotLeader`].
    pub fn propose_changes(&mut self, changes: &[Change]) -> Result<Option<Index>, NotLeader> {
        self.check_may_propose()?;
        if self.raft.has_pending_conf() {
            return Ok(None);
        }
        let Some(after) = self.configuration.after_all(changes) else { return Ok(None) };
        Ok(Some(self.append_configuration(&after)))
    }

    /// Whether the log may hold a change of the configuration that is not in force yet. While it
    /// does, a leader may not propose another one, nor an empty entry: that would read as a seal.
    #[must_use]
    pub fn has_pending_change(&self) -> bool {
        self.raft.has_pending_conf()
    }

    fn append_configuration(&mut self, after: &Configuration) -> Index {
        // Not through Raft's own proposals: they turn what they refuse into an empty entry.
        let entry = raft_entry(&EntryKind::Configure(after.encode()));
        let index = self.append(&mut [entry]).start;
        self.raft.pending_conf_index = index.0;
        index
    }

    /// Whoever leads under a joint configuration proposes to leave it.
    pub(crate) fn settle_joint(&mut self) {
        let joint = self.configuration.is_joint() && !self.raft.has_pending_conf();
        if joint && self.check_may_propose().is_ok() {
            let left = self.configuration.left();
            self.append_configuration(&left);
        }
    }

    /// The last change of the configuration among the entries after one and up to another.
    pub(crate) fn last_change(&self, after: u64, upto: u64) -> Option<&[u8]> {
        let log = &self.raft.raft_log;
        let new = log.unstable_entries().iter().rev();
        let mut new = new.filter(|entry| entry.index > after && entry.index <= upto);
        let changes =
            |entry: &&eraftpb::Entry| entry.get_entry_type() != eraftpb::EntryType::EntryNormal;
        let stored = upto.min(log.unstable.offset.saturating_sub(1));
        match new.find(changes) {
            Some(entry) => Some(&entry.data),
            None => self.raft.store().last_configure(after, stored),
        }
    }

    /// Nobody was heard to lead for a while, and this replica may not campaign. Others know what
    /// is committed, and may not know that this one does not: one that learns may have begun anew
    /// while all slept; of one that is to vote, whoever led may have committed that, left, and
    /// lost the message that tells. A refusal of a vote carries what is committed, so a vote is
    /// asked for that must be refused; who sleeps wakes of it.
    pub(crate) fn ask_what_is_committed(&mut self) {
        if self.raft.state != StateRole::Follower || self.raft.promotable() {
            return;
        }
        self.raft.election_elapsed = 0;
        if !self.questions.are_due() {
            return;
        }
        let id = self.id();
        let last = self.last_change(self.raft.raft_log.applied, u64::MAX);
        let next = last.and_then(|bytes| Configuration::decode(bytes).ok());
        let mut all = self.configuration.replicas();
        all.extend(next.iter().flat_map(Configuration::replicas));
        all.sort_unstable();
        all.dedup();
        // Who left, or never came, is told nothing by anybody.
        if !all.contains(&id) {
            return;
        }
        for node in all.into_iter().filter(|node| *node != id) {
            let mut message = eraftpb::Message::default();
            message.set_msg_type(eraftpb::MessageType::MsgRequestPreVote);
            (message.from, message.to) = (self.raft.id, node.0);
            message.term = self.raft.term + 1;
            self.raft.msgs.push(message);
        }
    }

    /// Puts a committed configuration in force.
    pub(crate) fn enforce(&mut self, index: u64, next: Configuration) {
        let change = self.configuration.difference(&next);
        self.raft.commit_apply(index);
        let state = self.raft.apply_conf_change(&change).expect("changes follow each other");
        assert!(next.is(&state), "Raft comes to the configuration that was proposed");
        self.configuration = next;
        self.seal.configured = Some(index);
        self.noticed.retain(|node, _| self.raft.prs().get(*node).is_some());
        if self.raft.state == StateRole::Leader && !self.raft.promotable() {
            // Raft goes on, and stumbles over its own missing progress.
            let term = self.raft.term;
            self.raft.become_follower(term, 0);
        }
    }

    /// How far a follower is; `None` if this replica does not lead, or `node` is no other replica.
    #[must_use]
    pub fn progress(&self, node: NodeId) -> Option<Progress> {
        if self.raft.state != StateRole::Leader || node == self.id() {
            return None;
        }
        let progress = self.raft.prs().get(node.0)?;
        Some(Progress {
            matched: Index(progress.matched),
            committed: Index(progress.committed_index),
            state: match progress.state {
                raft::ProgressState::Probe => ProgressState::Probing,
                raft::ProgressState::Replicate => ProgressState::Replicating,
                raft::ProgressState::Snapshot => ProgressState::Snapshot,
            },
            active: progress.recent_active,
        })
    }

    /// Messages to `node` were lost: the leader feeds it with care until it answers.
    pub fn report_unreachable(&mut self, node: NodeId) {
        let mut message = eraftpb::Message::default();
        message.set_msg_type(eraftpb::MessageType::MsgUnreachable);
        message.from = node.0;
        let _ = self.raft.step(message);
        self.settle();
    }

    /// How much is to be under way to a follower at a time: little while it `is_behind`.
    pub fn narrow(&mut self, node: NodeId, is_behind: bool) {
        let appends = if is_behind { APPENDS_BEHIND_MAX } else { APPENDS_MAX };
        self.raft.adjust_max_inflight_msgs(node.0, appends);
    }

    /// Whether a leader has nothing to do but to send heartbeats: everything is committed, every
    /// replica has it and knows, and nothing waits.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        let log = &self.raft.raft_log;
        let last = log.last_index();
        let told = self.told_committed() == last && log.applied == last;
        let idle = self.is_idle() && self.raft.lead_transferee.is_none();
        let equal = self.raft.prs().iter().all(|(id, progress)| {
            *id == self.raft.id
                || (progress.matched == last
                    && progress.committed_index == last
                    && progress.state != raft::ProgressState::Snapshot)
        });
        let leads = self.raft.state == StateRole::Leader && !self.raft.has_pending_conf();
        leads && told && idle && equal && !self.configuration.is_joint()
    }

    /// A sign that the leader is gone: its process closed the connection. If this replica follows
    /// it, it asks for votes soon: at once, or after those before it in the order of ids. A leader
    /// that lives loses nothing: nobody who still hears of it answers, and its next message is
    /// followed again.
    pub fn leader_gone(&mut self, node: NodeId) {
        if self.raft.state != StateRole::Follower || self.raft.leader_id != node.0 {
            return;
        }
        let configuration = &self.configuration;
        let mut voters = configuration.replicas();
        voters.retain(|id| {
            let votes =
                configuration.voters().contains(id) || configuration.outgoing().contains(id);
            votes && *id != node
        });
        // It grants votes from now on.
        self.raft.leader_id = 0;
        if let Some(rank) = voters.iter().position(|id| *id == self.id()) {
            let timeout = self.raft.randomized_election_timeout();
            let soon = timeout.saturating_sub(rank * HEARTBEAT_TICKS);
            self.raft.election_elapsed = self.raft.election_elapsed.max(soon);
            if rank == 0 {
                self.campaign();
            }
        }
        self.settle();
    }

    /// Hands leadership over to another voter, if this replica leads. Nothing can be proposed until
    /// that has ended, well or not: [`Replica::lead_transferee`].
    pub fn transfer(&mut self, to: NodeId) {
        if self.raft.state != StateRole::Leader || !self.configuration.voters().contains(&to) {
            return;
        }
        let mut message = eraftpb::Message::default();
        message.set_msg_type(eraftpb::MessageType::MsgTransferLeader);
        message.from = to.0;
        let _ = self.raft.step(message);
        self.settle();
    }

    /// To whom leadership is being handed over.
    #[must_use]
    pub fn lead_transferee(&self) -> Option<NodeId> {
        self.raft.lead_transferee.map(NodeId)
    }
}
