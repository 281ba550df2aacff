//! Replicas keep their word: what one told the others of its term, its vote and its log is on its
//! disk when it starts again; nobody votes for two in one term, and no term has two leaders.
//!
//! It listens to what replicas say, and looks at disks when they are opened, so it sees a broken
//! promise at once, where the others would only see a rare consequence of it.

use naust_consensus::MessageKind;
use naust_wire::peer::Raft;
use naust_wire::{Index, NodeId, ShardId, Term};
use std::collections::BTreeMap;

/// Its name in reports.
pub const NAME: &str = "words";

/// What a replica told.
#[derive(Clone, Copy, Debug, Default)]
struct Told {
    term: Term,
    /// For whom it voted in that term.
    vote: Option<NodeId>,
    /// Up to where it has what the leader of that term has.
    index: Index,
}

/// Everything that replicas told each other, as far as it binds them.
#[derive(Clone, Debug, Default)]
pub struct Words {
    replicas: BTreeMap<(ShardId, NodeId), Told>,
    leaders: BTreeMap<(ShardId, Term), NodeId>,
}

/// What a disk holds of a replica.
#[derive(Clone, Copy, Debug)]
pub struct Kept {
    /// Its term.
    pub term: Term,
    /// Its vote in it; zero: none.
    pub vote: NodeId,
    /// The last frame of its log.
    pub last: Index,
}

impl Words {
    /// A replica says something to another.
    ///
    /// # Errors
    /// A sentence: what it can't say, having said other things before.
    pub fn said(
        &mut self,
        shard: ShardId,
        (from, to): (NodeId, NodeId),
        said: &Raft,
    ) -> Result<(), String> {
        let Some(kind) = MessageKind::from_number(said.kind) else { return Ok(()) };
        // Whoever asks before it campaigns names a term that it is not in.
        let binds = !matches!(kind, MessageKind::PreVote | MessageKind::PreVoteAnswer);
        if !binds || said.term == Term(0) {
            return Ok(());
        }
        let told = self.replicas.entry((shard, from)).or_default();
        if said.term > told.term {
            *told = Told { term: said.term, ..Told::default() };
        }
        if said.term < told.term {
            return Ok(()); // Said to somebody who is behind, or long ago.
        }
        let leads = [MessageKind::Append, MessageKind::Heartbeat, MessageKind::Snapshot];
        if leads.contains(&kind) {
            let leader = *self.leaders.entry((shard, said.term)).or_insert(from);
            if leader != from {
                let term = said.term;
                return Err(format!("term {term} of shard {shard} is led by {leader} and {from}"));
            }
        }
        let vote = match kind {
            MessageKind::VoteAnswer if !said.reject => Some(to),
            MessageKind::Vote => Some(from),
            _ => None,
        };
        if let Some(vote) = vote {
            let first = *told.vote.get_or_insert(vote);
            if first != vote {
                let term = said.term;
                return Err(format!(
                    "{from} votes for {first} and for {vote} in term {term} of shard {shard}"
                ));
            }
        }
        if kind == MessageKind::AppendAnswer && !said.reject {
            told.index = told.index.max(said.index);
        }
        Ok(())
    }

    /// A replica is opened, and its disk holds this.
    ///
    /// # Errors
    /// A sentence: what it had told others and does not have.
    pub fn opened(&self, shard: ShardId, node: NodeId, kept: Kept) -> Result<(), String> {
        let Some(told) = self.replicas.get(&(shard, node)) else { return Ok(()) };
        let whose = format!("{node} told others of shard {shard}");
        if kept.term < told.term {
            return Err(format!("{whose} that it is in {told:?}, and has {kept:?}"));
        }
        if kept.term > told.term {
            return Ok(());
        }
        if told.vote.is_some_and(|vote| vote != kept.vote) {
            return Err(format!("{whose} of its vote in {told:?}, and has {kept:?}"));
        }
        // In its own term nobody cuts what a replica has of its leader.
        if kept.last < told.index {
            return Err(format!("{whose} that it has {told:?}, and has {kept:?}"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHARD: ShardId = ShardId(1);
    const A: NodeId = NodeId(1);
    const B: NodeId = NodeId(2);
    const C: NodeId = NodeId(3);

    fn raft(kind: MessageKind, term: u64) -> Raft {
        Raft { kind: kind as u8, term: Term(term), ..Raft::default() }
    }

    fn kept(term: u64, vote: NodeId, last: u64) -> Kept {
        Kept { term: Term(term), vote, last: Index(last) }
    }

    #[test]
    fn a_vote_is_kept_and_given_once_in_a_term() {
        let mut words = Words::default();
        let vote = raft(MessageKind::VoteAnswer, 5);
        assert_eq!(words.said(SHARD, (A, B), &vote), Ok(()));
        assert!(words.clone().said(SHARD, (A, C), &vote).is_err());
        assert_eq!(words.clone().said(ShardId(2), (A, C), &vote), Ok(()));
        assert_eq!(words.clone().said(SHARD, (A, C), &raft(MessageKind::VoteAnswer, 6)), Ok(()));
        let no = Raft { reject: true, ..vote };
        assert_eq!(words.said(SHARD, (A, C), &no), Ok(()));
        assert!(words.opened(SHARD, A, kept(5, NodeId(0), 9)).is_err());
        assert!(words.opened(SHARD, A, kept(4, B, 9)).is_err());
        assert_eq!(words.opened(SHARD, A, kept(5, B, 9)), Ok(()));
        assert_eq!(words.opened(SHARD, A, kept(6, NodeId(0), 0)), Ok(()));
        assert!(words.said(SHARD, (C, A), &raft(MessageKind::PreVote, 99)).is_ok());
        assert_eq!(words.opened(SHARD, C, kept(1, NodeId(0), 0)), Ok(()));
    }

    #[test]
    fn what_was_answered_for_is_there_and_a_term_has_one_leader() {
        let mut words = Words::default();
        let answer = Raft { index: Index(7), ..raft(MessageKind::AppendAnswer, 5) };
        assert_eq!(words.said(SHARD, (A, B), &answer), Ok(()));
        assert!(words.opened(SHARD, A, kept(5, NodeId(0), 6)).is_err());
        assert_eq!(words.opened(SHARD, A, kept(5, NodeId(0), 7)), Ok(()));
        assert_eq!(words.said(SHARD, (B, A), &raft(MessageKind::Append, 5)), Ok(()));
        assert!(words.said(SHARD, (C, A), &raft(MessageKind::Heartbeat, 5)).is_err());
    }
}
