//! Questions to a node rather than to a shard. Not logged.

/// A question to a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// The first packet of a connection: who speaks, with which token (empty: none).
    Hello { token: String, client: String },
    /// The shard of a namespace.
    Resolve(String),
    /// All namespaces.
    Namespaces,
    /// Nodes and namespaces.
    Cluster,
}
