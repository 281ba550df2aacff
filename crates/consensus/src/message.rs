//! What replicas of a shard tell each other: plain fields, none of Raft's types.
//!
//! A message says which entries it is about; the frames that hold their bodies travel beside it.

use crate::Entry;
use crate::entries::{kind_of, raft_entry};
use naust_wire::{Index, NodeId, Term};
use raft::eraftpb::{self, MessageType};

/// A message of one replica to another of the same shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// What it is about.
    pub kind: MessageKind,
    /// Who says it.
    pub from: NodeId,
    /// To whom.
    pub to: NodeId,
    /// The sender's term; of a pre-vote: the term to come.
    pub term: Term,
    /// The term of the entry at `index`.
    pub log_term: Term,
    /// Of an append: the entry before its entries. Of an answer: how far the log agrees. Of a
    /// snapshot: the last entry in it.
    pub index: Index,
    /// Entries to append. What each of them is, its frame tells, which travels beside the message:
    /// the sender says `Normal` of all that it had applied before it was opened, of configurations
    /// too. So whoever takes in a message sets the kinds from the frames before
    /// [`Replica::step`](crate::Replica::step).
    pub entries: Vec<Entry>,
    /// Up to where the sender knows entries to be committed.
    pub commit: Index,
    /// The term of the entry at `commit`.
    pub commit_term: Term,
    /// The answer is no.
    pub reject: bool,
    /// With a no: where the logs may agree.
    pub reject_hint: Index,
    /// A follower asks for a snapshot at this index at least.
    pub request_snapshot: Index,
    /// Which of the candidates is preferred.
    pub priority: i64,
    /// Tokens of reads, the reason of a campaign, or the members in a snapshot.
    pub context: Vec<u8>,
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $raft:ident;)*) => {
        /// What a [`Message`] is about. The numbers travel between nodes and are never reused.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub enum MessageKind {
            $($(#[$doc])* $name = $number,)*
            /// The leader tells how much is committed, and wants no answer: a heartbeat of ours.
            Committed = 13,
        }

        impl MessageKind {
            /// The kind of a number, if there is one.
            #[must_use]
            pub fn from_number(number: u8) -> Option<MessageKind> {
                match number {
                    $($number => Some(MessageKind::$name),)*
                    13 => Some(MessageKind::Committed),
                    _ => None,
                }
            }

            fn to_raft(self) -> MessageType {
                match self {
                    $(MessageKind::$name => MessageType::$raft,)*
                    MessageKind::Committed => MessageType::MsgHeartbeat,
                }
            }

            fn from_raft(kind: MessageType) -> Option<MessageKind> {
                match kind { $(MessageType::$raft => Some(MessageKind::$name),)* _ => None }
            }
        }
    };
}

kinds! {
    /// The leader appends.
    Append = 1, MsgAppend;
    /// The answer to an append.
    AppendAnswer = 2, MsgAppendResponse;
    /// A candidate asks for a vote.
    Vote = 3, MsgRequestVote;
    /// The answer to that.
    VoteAnswer = 4, MsgRequestVoteResponse;
    /// Someone asks whether it would get a vote.
    PreVote = 5, MsgRequestPreVote;
    /// The answer to that.
    PreVoteAnswer = 6, MsgRequestPreVoteResponse;
    /// The leader is alive.
    Heartbeat = 7, MsgHeartbeat;
    /// The answer to that.
    HeartbeatAnswer = 8, MsgHeartbeatResponse;
    /// The leader hands leadership over: campaign at once.
    TimeoutNow = 9, MsgTimeoutNow;
    /// A follower asks the leader for an index to read at.
    Read = 10, MsgReadIndex;
    /// The answer to that.
    ReadAnswer = 11, MsgReadIndexResp;
    /// The leader offers a snapshot; its bytes travel elsewhere.
    Snapshot = 12, MsgSnapshot;
}

impl Message {
    /// `None`: a message that never leaves this replica; a proposal too, which Raft would forward
    /// to the leader without the stamps that a leader gives.
    pub(crate) fn from_raft(mut message: eraftpb::Message) -> Option<Message> {
        let kind = MessageKind::from_raft(message.get_msg_type())?;
        if kind == MessageKind::Snapshot {
            let mut snapshot = message.take_snapshot();
            message.index = snapshot.get_metadata().index;
            message.log_term = snapshot.get_metadata().term;
            message.context = std::mem::take(&mut snapshot.data);
        }
        let mut entries = message.take_entries().into_vec();
        let context = match entries.pop() {
            Some(token) if kind.has_token() => token.data.to_vec(),
            last => {
                entries.extend(last);
                message.context.to_vec()
            }
        };
        Some(Message {
            kind,
            from: NodeId(message.from),
            to: NodeId(message.to),
            term: Term(message.term),
            log_term: Term(message.log_term),
            index: Index(message.index),
            entries: entries.iter().map(Entry::from_raft).collect(),
            commit: Index(message.commit),
            commit_term: Term(message.commit_term),
            reject: message.reject,
            reject_hint: Index(message.reject_hint),
            request_snapshot: Index(message.request_snapshot),
            priority: message.priority,
            context,
        })
    }

    pub(crate) fn into_raft(self) -> eraftpb::Message {
        let mut message = eraftpb::Message::default();
        message.set_msg_type(self.kind.to_raft());
        message.from = self.from.0;
        message.to = self.to.0;
        message.term = self.term.0;
        message.log_term = self.log_term.0;
        message.index = self.index.0;
        message.commit = self.commit.0;
        message.commit_term = self.commit_term.0;
        message.reject = self.reject;
        message.reject_hint = self.reject_hint.0;
        message.request_snapshot = self.request_snapshot.0;
        message.priority = self.priority;
        if self.kind.has_token() {
            let data = self.context.into();
            let token = eraftpb::Entry { data, ..eraftpb::Entry::default() };
            message.set_entries(vec![token].into());
        } else {
            message.context = self.context.into();
            let entries: Vec<_> = self.entries.iter().map(Entry::to_raft).collect();
            message.set_entries(entries.into());
        }
        message
    }
}

impl MessageKind {
    /// Raft keeps the token of a read in the data of an entry.
    fn has_token(self) -> bool {
        matches!(self, MessageKind::Read | MessageKind::ReadAnswer)
    }
}

impl Entry {
    pub(crate) fn from_raft(entry: &eraftpb::Entry) -> Entry {
        Entry { index: Index(entry.index), term: Term(entry.term), kind: kind_of(entry) }
    }

    fn to_raft(&self) -> eraftpb::Entry {
        let mut entry = raft_entry(&self.kind);
        entry.index = self.index.0;
        entry.term = self.term.0;
        entry
    }
}
