//! A follower that is fed faster than it can fold in.
//!
//! The leader sends the next when something is answered. So an answer waits while the views are
//! behind by half of what is borne, and the leader hears that it does; what is on its way by then
//! has room in the other half. What does not, all the same, is dropped, and sent again.

use super::super::Shard;
use crate::Now;
use crate::peers::Peers;
use naust_consensus::{Message, MessageKind, Role};
use naust_wire::Index;
use naust_wire::limits::{BACKLOG_BYTES_MAX, UNAPPLIED_BYTES_MAX, UNAPPLIED_FRAMES_MAX};
use naust_wire::peer::{Raft, Said};

/// Milliseconds after which an answer is held no longer while there is any room: for so long nobody
/// takes a follower that is slow for one that is stuck.
const HOLD_MS: u64 = 500;

impl Shard {
    /// Whether a message asks the leader for more, and says nothing else.
    pub(super) fn may_hold(&self, message: &Message) -> bool {
        message.kind == MessageKind::AppendAnswer
            && !message.reject
            && message.index > Index(0)
            && message.term == self.replica.term()
            && self.replica.role() == Role::Follower(message.to)
    }

    /// The answer waits, or the one that does if that says more.
    pub(super) fn hold(&mut self, message: Message, now: Now) {
        let held = self.replication.held.take();
        let since_ms = held.as_ref().map_or(now.monotonic_ms, |(_, since_ms)| *since_ms);
        let says_more = |(held, _): &(Message, u64)| {
            held.to == message.to && held.term == message.term && held.index > message.index
        };
        let held = held.filter(says_more).map(|(held, _)| held);
        self.replication.held = Some((held.unwrap_or(message), since_ms));
    }

    /// The answer that waited, once it may go.
    pub(super) fn let_go_of_held(&mut self, is_busy: bool, now: Now) -> Option<Message> {
        let is_due = |since_ms: u64| now.monotonic_ms >= since_ms + HOLD_MS && !self.is_crowded(1);
        let (_, since_ms) = self.replication.held.as_ref()?;
        let goes = !is_busy || is_due(*since_ms);
        goes.then(|| self.replication.held.take()).flatten().map(|(held, _)| held)
    }

    /// The leader hears that an answer is held, and takes nothing to be lost.
    pub(super) fn say_that_it_holds(&self, peers: &mut Peers) {
        if let Some((held, _)) = &self.replication.held {
            let (kind, term) = (MessageKind::AppendAnswer as u8, held.term);
            peers.say(self.id, held.to, Said::Raft(Raft { kind, term, ..Raft::default() }));
        }
    }

    /// Whether this is a follower whose views or disk are far behind, which takes no more; or, with
    /// 2 `parts`, whose views are half as far behind, which does not ask for more. (The disk paces
    /// itself: what is answered is on it.)
    pub(super) fn is_crowded(&self, parts: u64) -> bool {
        let bytes = self.handed.1.0 - self.applied.next.0;
        let frames = self.committed.0.saturating_sub(self.applied.index.0);
        let (end, durable) = (self.log.end(), self.log.durable());
        let unwritten = end.offset.0 - durable.offset.0;
        self.replica.role() != Role::Leader
            && (bytes > UNAPPLIED_BYTES_MAX / parts
                || unwritten > UNAPPLIED_BYTES_MAX
                || end.index.0 - durable.index.0 > UNAPPLIED_FRAMES_MAX as u64
                || frames > UNAPPLIED_FRAMES_MAX as u64 / parts
                || self.applied.backlog_bytes > BACKLOG_BYTES_MAX / parts)
    }
}
