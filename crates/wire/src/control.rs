//! Everything logged that is not a commit. `encode`/`decode` turn it into and out of a frame's body.

use crate::ids::{Offset, SessionId};
use crate::options::{KeyspaceOptions, NamespaceOptions, StreamOptions};

/// A control entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Control {
    /// Opens a session; its id is the offset of this frame. `nonce` tells a client's own retries apart. `ttl_ms` 0: default.
    OpenSession { ttl_ms: u64, nonce: u64 },
    /// Ends a session.
    CloseSession(SessionId),
    /// Makes a keyspace, or changes its options.
    SetKeyspace { name: String, options: KeyspaceOptions },
    /// Makes a stream, or changes its options.
    SetStream { name: String, options: StreamOptions },
    /// What lies below counts as absent. Proposed by leaders only, refused from clients.
    Floors(Vec<Floor>),
    /// Makes a namespace. Shard 0 only.
    CreateNamespace { name: String, options: NamespaceOptions },
    /// Removes a namespace. Shard 0 only.
    DeleteNamespace(String),
}

/// The leader's verdict on age, size or count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Floor {
    /// Whose rows or records.
    pub of: Floored,
    /// Below this they are absent.
    pub offset: Offset,
}

/// What a floor applies to, by name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Floored {
    /// A stream's records.
    Stream(String),
    /// A FIFO keyspace's rows.
    Keyspace(String),
}
