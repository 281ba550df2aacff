//! A follower too far behind gets the whole state and begins anew behind it. Its bytes travel
//! outside; this is Raft's part: who needs one, at which index, and what is forgotten for it.

use crate::configuration::Configuration;
use crate::replica::Replica;
use naust_wire::{Index, NodeId, Term};
use raft::{StateRole, eraftpb};
use std::collections::BTreeSet;

/// The state of a shard behind one entry: what Raft has to know of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The last entry that is folded in.
    pub index: Index,
    /// Its term.
    pub term: Term,
    /// The configuration in force there, encoded by [`Configuration::encode`].
    pub configuration: Vec<u8>,
}

/// A snapshot that the leader offers to this replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offered {
    /// Who has it.
    pub from: NodeId,
    /// What it is.
    pub snapshot: Snapshot,
}

/// What is under way.
#[derive(Default)]
pub(crate) struct Transfers {
    /// Followers whose need was told.
    told: BTreeSet<u64>,
    /// The leader's last offer, until the next Ready.
    offered: Option<Offered>,
    /// The disk is being flipped to this one.
    pub installing: Option<Snapshot>,
}

impl Snapshot {
    fn to_raft(&self) -> Option<(eraftpb::Snapshot, Configuration)> {
        let configuration = Configuration::decode(&self.configuration).ok()?;
        let mut snapshot = eraftpb::Snapshot::default();
        let metadata = snapshot.mut_metadata();
        metadata.index = self.index.0;
        metadata.term = self.term.0;
        metadata.set_conf_state(configuration.to_raft());
        snapshot.data = self.configuration.clone().into();
        Some((snapshot, configuration))
    }
}

impl Replica {
    /// A transfer to `node` is there to be fetched, or has been sent: it is told what it will hold.
    /// The log must not forget entries behind it before [`Replica::snapshot_sent`]. `false`: it is
    /// of no use, since this replica does not lead, `node` is no replica, the snapshot holds what
    /// is not applied here, or the log begins behind it.
    pub fn offer(&mut self, node: NodeId, snapshot: &Snapshot) -> bool {
        let index = snapshot.index.0;
        let store = self.raft.store();
        let fits = index >= store.before_first().max(1) && index <= self.raft.raft_log.applied;
        let member = node.0 != self.raft.id && self.raft.prs().get(node.0).is_some();
        if self.raft.state != StateRole::Leader || !member || !fits {
            return false;
        }
        let Some((offer, _)) = snapshot.to_raft() else { return false };
        if store.term_of(index) != snapshot.term.0 {
            return false;
        }
        self.raft.mut_store().offers.insert(node.0, offer);
        self.transfers.told.insert(node.0);
        self.raft.send_append(node.0);
        self.settle();
        true
    }

    /// The transfer to `node` has ended; with `ok` it has all of it. Otherwise, if it still needs
    /// one, that is told again.
    pub fn snapshot_sent(&mut self, node: NodeId, ok: bool) {
        self.raft.mut_store().offers.remove(&node.0);
        self.transfers.told.remove(&node.0);
        let mut message = eraftpb::Message::default();
        message.set_msg_type(eraftpb::MessageType::MsgSnapStatus);
        message.from = node.0;
        message.reject = !ok;
        let _ = self.raft.step(message);
        self.settle();
    }

    /// To be asked right before the disk is flipped: whether this snapshot is still wanted. Then
    /// the log stands still, and this replica stays out of elections, until [`Replica::install`]
    /// or [`Replica::abandon_install`]; all writes that were asked for are to end first.
    pub fn begin_install(&mut self, snapshot: &Snapshot) -> bool {
        let Some((_, configuration)) = snapshot.to_raft() else { return false };
        let (index, term) = (snapshot.index.0, snapshot.term.0);
        let log = &self.raft.raft_log;
        let wanted = self.raft.state == StateRole::Follower
            && configuration.contains(self.id())
            && index > log.committed
            && term <= self.raft.term
            && !log.match_term(index, term);
        if wanted {
            self.transfers.installing = Some(snapshot.clone());
        }
        wanted
    }

    /// The disk holds the snapshot, durably, and its log begins behind it: so does Raft's now.
    ///
    /// # Panics
    /// If [`Replica::begin_install`] did not say yes to it: a bug of the caller.
    pub fn install(&mut self, snapshot: &Snapshot) {
        let begun = self.transfers.installing.take();
        assert!(begun.as_ref() == Some(snapshot), "the snapshot that was begun");
        let (restored, configuration) = snapshot.to_raft().expect("it was decoded when it begun");
        // What they promise lies in a log that is gone.
        self.drop_append_answers();
        let index = snapshot.index.0;
        if self.raft.leader_id == 0 {
            self.raft.restore(restored);
        } else {
            let mut message = eraftpb::Message::default();
            message.set_msg_type(eraftpb::MessageType::MsgSnapshot);
            (message.from, message.term) = (self.raft.leader_id, self.raft.term);
            message.set_snapshot(restored);
            let _ = self.raft.step(message);
        }
        assert!(self.raft.snap().is_some(), "nothing was committed while the log stood still");
        self.raft.mut_store().begin_behind(index, snapshot.term.0);
        self.raft.raft_log.stable_snap(index);
        self.raft.on_persist_snap(index);
        self.raft.commit_apply(index);
        self.installed(snapshot.index, configuration);
        self.settle();
    }

    /// The disk was not flipped: the log goes on as it was.
    pub fn abandon_install(&mut self) {
        self.transfers.installing = None;
    }

    /// A leader offers a snapshot. Taken in by Raft only when it changes nothing on disk.
    pub(crate) fn offered(&mut self, mut message: eraftpb::Message) -> Option<eraftpb::Message> {
        let snapshot = Snapshot {
            index: Index(message.index),
            term: Term(message.log_term),
            configuration: message.take_context().to_vec(),
        };
        let (restored, configuration) = snapshot.to_raft()?;
        let log = &self.raft.raft_log;
        // Raft would take in one that ends where this log is committed, but with another term.
        let stale = message.index < log.committed;
        if message.index == log.committed && !log.match_term(message.index, message.log_term) {
            self.refused += 1;
            return None;
        }
        if stale || log.match_term(message.index, message.log_term) {
            message.set_snapshot(restored);
            return Some(message);
        }
        if message.term >= self.raft.term && configuration.contains(self.id()) {
            self.transfers.offered = Some(Offered { from: NodeId(message.from), snapshot });
        }
        Some(heartbeat(&message))
    }

    pub(crate) fn settle_transfers(&mut self) {
        if self.raft.state == StateRole::Leader {
            let members = self.raft.prs();
            self.transfers.told.retain(|node| members.get(*node).is_some());
        } else {
            self.transfers.told.clear();
            self.raft.mut_store().offers.clear();
            self.raft.mut_store().wanted.get_mut().clear();
        }
    }

    /// Who needs a snapshot and was not told before.
    pub(crate) fn take_wanted(&mut self) -> Vec<NodeId> {
        let wanted = std::mem::take(self.raft.mut_store().wanted.get_mut());
        let members = self.raft.prs();
        let new = wanted.into_iter().filter(|node| members.get(*node).is_some());
        new.filter(|node| self.transfers.told.insert(*node)).map(NodeId).collect()
    }

    pub(crate) fn take_offered(&mut self) -> Option<Offered> {
        self.transfers.offered.take()
    }
}

/// A sign of life of the leader that sent `message`, and nothing else.
pub(crate) fn heartbeat(message: &eraftpb::Message) -> eraftpb::Message {
    let mut heartbeat = eraftpb::Message::default();
    heartbeat.set_msg_type(eraftpb::MessageType::MsgHeartbeat);
    (heartbeat.from, heartbeat.to) = (message.from, message.to);
    heartbeat.term = message.term;
    heartbeat
}
