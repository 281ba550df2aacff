//! Newtypes for everything that is counted or named by number. Stored and sent as fixed-width
//! little-endian integers.

use std::fmt;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub $inner);

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    };
}

id!(
    /// A node's random identity, made with its data directory. Never zero.
    NodeId(u64)
);
id!(
    /// A Raft group: one log, one order, one set of views. Shard 0 is the directory. Never reused.
    ShardId(u32)
);
id!(
    /// A byte position in a shard's log, and so a revision of everything in that shard. Logs begin
    /// at [`Offset::FIRST`].
    Offset(u64)
);
id!(
    /// The position of an entry in Raft's count. The first entry has index 1.
    Index(u64)
);
id!(
    /// A Raft term.
    Term(u64)
);
id!(
    /// Log time in milliseconds: stamped by leaders, never goes back, does not count downtime.
    LogTime(u64)
);
id!(
    /// A client's identity for exactly-once commits: the offset of the frame that opened it. Zero:
    /// no session.
    SessionId(u64)
);
id!(
    /// The count of a commit within its session, from 1.
    Sequence(u64)
);
id!(
    /// Pairs a reply with its request on one connection. Chosen by the client.
    RequestId(u64)
);

impl ShardId {
    /// The shard of nodes, namespaces and placement.
    pub const DIRECTORY: ShardId = ShardId(0);
}

impl Offset {
    /// Nothing: before any log.
    pub const ZERO: Offset = Offset(0);
    /// Where every shard's log begins. Sequence numbers that the table engine draws for itself stay
    /// far below.
    pub const FIRST: Offset = Offset(1 << 32);
    /// Beyond any log.
    pub const MAX: Offset = Offset(u64::MAX);

    /// This offset moved on by `bytes`, or [`Offset::MAX`] beyond it: offsets come from strangers
    /// too.
    #[must_use]
    pub const fn plus(self, bytes: u64) -> Offset {
        Offset(self.0.saturating_add(bytes))
    }
}

impl Index {
    /// The index after this one.
    #[must_use]
    pub const fn next(self) -> Index {
        Index(self.0 + 1)
    }
}

impl SessionId {
    /// No session: the commit is not deduplicated.
    pub const NONE: SessionId = SessionId(0);
}
