//! One request under way: what it is, where it stands, and what may be done with it.

use crate::Error;
use bytes::Bytes;
use naust_wire::packet::Kind;
use naust_wire::{RequestId, Sequence, SessionId, ShardId};

/// What is asked for, apart from its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// What the body is.
    pub kind: Kind,
    /// Whom it is for.
    pub about: About,
    /// Whether it may be sent again when it is not known what became of it.
    pub repeat: Repeat,
    /// Whether it may change something. Whatever became of one that does not, nothing was done.
    pub changes: bool,
    /// Who asks, if it is to be done exactly once.
    pub identity: Identity,
    /// Milliseconds that it may take, all its attempts together.
    pub timeout_ms: u64,
}

/// Whom a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum About {
    /// The node at the other end.
    Node,
    /// The part of it that has this shard.
    Part(ShardId),
    /// The shard of nodes and namespaces.
    Directory,
    /// The shard of a namespace.
    Namespace(NamespaceKey),
}

/// A namespace as this client numbers it; never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NamespaceKey {
    pub(super) index: usize,
    pub(super) generation: u64,
}

/// Whether a request may be sent again when it is not known what became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repeat {
    /// Doing it twice is the same as doing it once, or the server tells the second time from the
    /// first.
    Always,
    /// Only after an answer that it was definitely not done.
    WhenNotDone,
}

/// Who commits, makes or sets something: whether, and how, a request that is sent again is told
/// from a new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Identity {
    /// The client's own session in the namespace, or in the directory, opened when it is first
    /// needed: exactly once.
    #[default]
    Client,
    /// No session: after a lost reply the outcome is unknown.
    None,
    /// A session that the caller keeps, and counts, himself.
    Explicit {
        /// The session.
        session: SessionId,
        /// The request's number in it, from 1.
        sequence: Sequence,
        /// The caller has the replies of all sequences below this one.
        acked_below: Sequence,
    },
}

/// A request's place in the table; never reused while its reply may still come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    pub(super) key: u32,
    pub(super) generation: u32,
}

impl Ticket {
    /// The table's index: small, and reused.
    #[must_use]
    pub fn index(self) -> usize {
        self.key as usize
    }

    pub(super) fn request_id(self) -> RequestId {
        RequestId(u64::from(self.generation) << 32 | u64::from(self.key))
    }

    pub(super) fn of_request_id(id: RequestId) -> Ticket {
        Ticket { key: id.0 as u32, generation: (id.0 >> 32) as u32 }
    }
}

/// Who waits for a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// Somebody outside, who will [`super::Core::poll`].
    Caller,
    /// Nobody any more: the reply only ends it.
    Nobody,
    /// The core: the greeting of a connection.
    Hello,
    /// The core: the nodes of the cluster.
    Cluster,
    /// The core: the shard of a namespace.
    Resolve(NamespaceKey),
    /// The core: its session in a namespace.
    OpenSession(NamespaceKey),
}

/// Where a request stands.
#[derive(Clone, Debug)]
pub(super) enum State {
    /// Something has to happen first.
    Waiting(For),
    /// It may be sent now.
    Granted,
    /// Its bytes are in the buffer, or on their way.
    Sent,
    /// A reply is there.
    Answered(Bytes),
    /// It failed on this side.
    Failed(Error),
}

/// What a request waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum For {
    /// The connection.
    Link,
    /// The namespace's shard.
    Route,
    /// The session, or a place in its window.
    Number,
    /// The pause before another attempt ends at this time.
    Pause(u64),
    /// Room in the buffer.
    Room,
}

/// A request under way.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) generation: u32,
    pub(super) request: Request,
    pub(super) owner: Owner,
    pub(super) state: State,
    /// Its number in the client's own session, once it has one.
    pub(super) number: Option<(SessionId, Sequence)>,
    /// It was sent before and its reply was lost: it may have been done.
    pub(super) in_doubt: bool,
    /// The route was looked up again for it.
    pub(super) rerouted: bool,
    /// Attempts that were refused for now.
    pub(super) attempts: u32,
    /// What the last of them was answered.
    pub(super) last: Option<Error>,
    /// When it ends; none until the first tick sees it.
    pub(super) deadline_ms: Option<u64>,
}
