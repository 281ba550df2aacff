//! An index to read at: asked of the leader, again and again, until it is told.
//!
//! Raft drops a request before the leader's first commit in its term, and the network drops what it
//! likes; and Raft takes two requests with the same context for one. So a request is remembered
//! here until it is answered, its context says whose it is and in which life it was asked, and what
//! followers ask of a leader too early waits with it.
//!
//! The index of a later read is right for an earlier one too: of all that wait only the last one
//! needs to be asked again.

use crate::replica::{NotLeader, Replica};
use naust_wire::Index;
use naust_wire::planted::{self, Bug};
use raft::{StateRole, eraftpb};
use std::collections::VecDeque;

/// Reads that are not answered, here or of all followers together at a leader. Callers merge
/// reads, so a few are enough.
pub(crate) const READS_MAX: usize = 1024;
/// Ticks until a follower asks again.
const AGAIN_TICKS: usize = 4;

/// What was asked and is not answered.
#[derive(Default)]
pub(crate) struct Reads {
    /// Tells this life from earlier ones.
    life: u64,
    /// In the order in which they were asked.
    asked: VecDeque<u64>,
    /// The last of them is on its way, in this epoch.
    sent: bool,
    /// Term, whether this replica leads, and who does.
    epoch: (u64, bool, u64),
    /// Ticks since it was sent.
    ticks: usize,
    /// Of followers, before the first commit in this term.
    forwarded: Vec<eraftpb::Message>,
}

impl Reads {
    pub(crate) fn new(life: u64) -> Reads {
        Reads { life, ..Reads::default() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.asked.is_empty() && self.forwarded.is_empty()
    }
}

impl Replica {
    /// Asks for an index to read at; it comes out of a Ready with this token, as soon as a leader
    /// can tell, whoever that is by then. Tokens ascend.
    ///
    /// # Errors
    /// [`NotLeader`] if nobody is known to lead, or too many reads wait.
    pub fn read(&mut self, token: u64) -> Result<(), NotLeader> {
        if self.leader().is_none() || self.reads.asked.len() == READS_MAX {
            return Err(NotLeader { leader: None });
        }
        self.reads.asked.push_back(token);
        self.reads.sent = false;
        self.settle();
        Ok(())
    }

    pub(crate) fn tick_reads(&mut self) {
        self.reads.ticks += 1;
        if self.reads.ticks >= AGAIN_TICKS && self.raft.state != StateRole::Leader {
            self.reads.sent = false;
        }
    }

    /// Sends what is not on its way and may be.
    pub(crate) fn settle_reads(&mut self) {
        let leads = self.raft.state == StateRole::Leader;
        let epoch = (self.raft.term, leads, self.raft.leader_id);
        if self.reads.epoch != epoch {
            self.reads.epoch = epoch;
            self.reads.sent = false;
            self.reads.forwarded.clear();
        }
        if self.reads.is_empty() || (leads && !self.raft.commit_to_current_term()) {
            return;
        }
        for message in std::mem::take(&mut self.reads.forwarded) {
            let _ = self.raft.step(message);
        }
        if let Some(token) = self.reads.asked.back()
            && !self.reads.sent
            && self.raft.leader_id != 0
        {
            let context = [self.raft.id, self.reads.life, *token].map(u64::to_le_bytes).concat();
            let entry = eraftpb::Entry { data: context.into(), ..eraftpb::Entry::default() };
            let mut message = eraftpb::Message::default();
            message.set_msg_type(eraftpb::MessageType::MsgReadIndex);
            message.set_entries(vec![entry].into());
            let _ = self.raft.step(message);
            (self.reads.sent, self.reads.ticks) = (true, 0);
        }
    }

    /// A follower asks. `None`: it is taken care of.
    pub(crate) fn forwarded_read(&mut self, message: eraftpb::Message) -> Option<eraftpb::Message> {
        let leads = self.raft.state == StateRole::Leader;
        let waiting = self.reads.forwarded.len() + self.raft.pending_read_count();
        if !leads || waiting >= READS_MAX {
            // It will ask again.
            return None;
        }
        if self.raft.commit_to_current_term() {
            return Some(message);
        }
        self.reads.forwarded.push(message);
        None
    }

    /// What Raft has found out: (token, index).
    pub(crate) fn take_reads(&mut self, found: &mut Vec<(u64, Index)>) {
        if planted::has(Bug::ReadWithoutQuorum) && self.raft.state == StateRole::Leader {
            let known = Index(self.told_committed());
            found.extend(self.reads.asked.drain(..).map(|asked| (asked, known)));
        }
        for read in self.raft.r.read_states.drain(..) {
            let (fields, _) = read.request_ctx.as_chunks::<8>();
            let &[_, life, token] = fields else { continue };
            let token = u64::from_le_bytes(token);
            if u64::from_le_bytes(life) != self.reads.life {
                continue;
            }
            while self.reads.asked.front().is_some_and(|asked| *asked <= token) {
                let asked = self.reads.asked.pop_front().expect("just seen");
                found.push((asked, Index(read.index)));
            }
        }
    }
}
