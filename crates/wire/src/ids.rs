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

    /// The id of a session that was opened by the frame at `at`, with the opener's nonce.
    ///
    /// Within a shard no two frames with the same nonce give the same id. Logs of all shards begin
    /// at the same offset, so it is the nonce, drawn at random, that keeps a session of one shard,
    /// or of a node that was wiped since, from being taken for another's. The nonce is spread
    /// over all bits (the finalizer of splitmix64, Steele et al. 2014); zero stays zero.
    #[must_use]
    pub const fn opened(at: Offset, nonce: u64) -> SessionId {
        let mut spread = nonce;
        spread = (spread ^ (spread >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        spread = (spread ^ (spread >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        spread ^= spread >> 31;
        match at.0 ^ spread {
            0 => SessionId(u64::MAX),
            id => SessionId(id),
        }
    }
}

/// Which number of which session a request is, so that it is done exactly once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Numbers {
    /// The session, or [`SessionId::NONE`].
    pub session: SessionId,
    /// The request's number in it.
    pub sequence: Sequence,
    /// The replies of all sequences below this one were had.
    pub acked_below: Sequence,
}

impl Numbers {
    /// Of what belongs to no session.
    pub const NONE: Numbers =
        Numbers { session: SessionId::NONE, sequence: Sequence(0), acked_below: Sequence(0) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn sessions_of_shards_that_begin_alike_differ_by_their_nonces() {
        let offsets = (0..50).map(|step| Offset::FIRST.plus(step * 56));
        let ids: BTreeSet<SessionId> =
            offsets.flat_map(|at| (0..50).map(move |nonce| SessionId::opened(at, nonce))).collect();
        assert_eq!(ids.len(), 2500);
        assert_eq!(SessionId::opened(Offset(77), 0), SessionId(77));
        assert_ne!(SessionId::opened(Offset(0), 0), SessionId::NONE);
    }
}
