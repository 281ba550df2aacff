//! Everything that clients asked and were answered, in the order in which they asked. The checkers
//! judge it.

use crate::schedule::Moment;
use naust_wire::ask::Ask;
use naust_wire::control::Control;
use naust_wire::read::Read;
use naust_wire::reply::Reply;
use naust_wire::{Numbers, Offset, ShardId};
use std::sync::Arc;

/// What a request asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// An encoded commit.
    Commit(Arc<[u8]>),
    /// A control entry.
    Control(Control),
    /// A control entry that a session numbers.
    Numbered(Numbers, Control),
    /// A question to a shard.
    Read(Read),
    /// A question to the node.
    Ask(Ask),
    /// Nothing that has a meaning.
    Garbage,
}

/// What became of a request, as far as its sender can tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Nothing yet.
    Waiting,
    /// Its connection was closed first.
    Lost,
    /// A reply.
    Reply(Reply),
}

/// A request and what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Who asked.
    pub client: usize,
    /// Whom: the shard that was named in the packet.
    pub shard: ShardId,
    /// What.
    pub asked: Asked,
    /// By which connection.
    pub line: u64,
    /// Whether the node at its other end had a replica of the shard then.
    pub here: bool,
    /// When it was sent.
    pub sent: Moment,
    /// The latest offset of that shard that anyone had been told of as committed when it was sent.
    pub frontier: Offset,
    /// What became of it.
    pub answer: Answer,
    /// When.
    pub answered: Moment,
    /// The last frame that the shard had shown as committed when the answer came.
    pub ceiling: Offset,
    /// How often its connection carried an answer to it.
    pub answers: u32,
}

impl Request {
    /// The reply, if there was one.
    #[must_use]
    pub fn reply(&self) -> Option<&Reply> {
        match &self.answer {
            Answer::Reply(reply) => Some(reply),
            Answer::Waiting | Answer::Lost => None,
        }
    }
}

/// All requests of a life.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// In the order in which they were sent.
    pub requests: Vec<Request>,
}

/// What must not be: the checker that saw it, and a sentence for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which checker.
    pub checker: &'static str,
    /// What it saw.
    pub what: String,
}

impl Violation {
    /// A violation seen by `checker`.
    pub fn new(checker: &'static str, what: impl Into<String>) -> Violation {
        Violation { checker, what: what.into() }
    }
}
