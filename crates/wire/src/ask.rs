//! Questions to a node rather than to a shard. Not logged.

use crate::ids::NodeId;
use crate::limits::{NAME_BYTES_MAX, PAGE_ROWS_MAX, TEXT_BYTES_MAX};
use crate::message::{Message, Refusal, bounded, build, text};
use crate::name;
use crate::naust_capnp as schema;

/// A question to a node.
#[allow(missing_docs)]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// The first packet of a connection: who speaks, with which token (empty: none).
    Hello { token: String, client: String },
    /// The shard of a namespace.
    Resolve(String),
    /// Namespaces.
    Namespaces(Listing),
    /// All nodes, and namespaces.
    Cluster(Listing),
    /// Hand the leadership of a namespace over to a node. Answered by whoever leads it.
    Transfer { namespace: String, to: NodeId },
}

/// Which namespaces to list, in the order of their names: a page of them.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Listing {
    /// The page begins with the first name that is not before this one; empty: with the first.
    pub from: String,
    /// How many at most; 0: the default.
    pub limit: u32,
}

impl Listing {
    fn check(&self) -> Result<(), Refusal> {
        bounded("namespaces in a page", self.limit as usize, PAGE_ROWS_MAX)?;
        if self.from.is_empty() { Ok(()) } else { name::check(&self.from) }
    }
}

impl Ask {
    /// Refuses what no node takes, whatever its state. The decoder does it too; a client does it
    /// before it sends.
    ///
    /// # Errors
    /// `BadName` or `TooLarge`.
    pub fn check(&self) -> Result<(), Refusal> {
        match self {
            Ask::Hello { token, client } => {
                bounded("bytes in a token", token.len(), TEXT_BYTES_MAX)?;
                bounded("bytes in a client's own name", client.len(), TEXT_BYTES_MAX)
            }
            Ask::Resolve(namespace) | Ask::Transfer { namespace, .. } => {
                name::check_namespace(namespace)
            }
            Ask::Namespaces(listing) | Ask::Cluster(listing) => listing.check(),
        }
    }

    /// Appends the question's bytes to `out`: a packet's body.
    pub fn encode(&self, out: &mut Vec<u8>) {
        build::<schema::ask::Owned>(64, out, |mut root| match self {
            Ask::Hello { token, client } => {
                let mut to = root.init_hello();
                to.set_token(token);
                to.set_client(client);
            }
            Ask::Resolve(namespace) => root.set_resolve(namespace),
            Ask::Namespaces(listing) => {
                let mut to = root.init_namespaces();
                to.set_namespaces_from(&listing.from);
                to.set_namespaces_limit(listing.limit);
            }
            Ask::Cluster(listing) => {
                let mut to = root.init_cluster();
                to.set_cluster_from(&listing.from);
                to.set_cluster_limit(listing.limit);
            }
            Ask::Transfer { namespace, to } => {
                let mut asked = root.init_transfer();
                asked.set_namespace(namespace);
                asked.set_to(to.0);
            }
        });
    }

    /// Reads a question from its bytes, and checks it.
    ///
    /// # Errors
    /// `Malformed`, `UnknownKind`, or as [`Ask::check`].
    pub fn decode(body: &[u8]) -> Result<Ask, Refusal> {
        use schema::ask::Which;
        let message = Message::once(body)?;
        let root: schema::ask::Reader<'_> = message.root()?;
        let ask = match root.which()? {
            Which::Hello(from) => Ask::Hello {
                token: text(from.get_token()?, TEXT_BYTES_MAX)?,
                client: text(from.get_client()?, TEXT_BYTES_MAX)?,
            },
            Which::Resolve(namespace) => Ask::Resolve(text(namespace?, NAME_BYTES_MAX)?),
            Which::Namespaces(of) => Ask::Namespaces(Listing {
                from: text(of.get_namespaces_from()?, NAME_BYTES_MAX)?,
                limit: of.get_namespaces_limit(),
            }),
            Which::Cluster(of) => Ask::Cluster(Listing {
                from: text(of.get_cluster_from()?, NAME_BYTES_MAX)?,
                limit: of.get_cluster_limit(),
            }),
            Which::Transfer(from) => Ask::Transfer {
                namespace: text(from.get_namespace()?, NAME_BYTES_MAX)?,
                to: NodeId(from.get_to()),
            },
        };
        ask.check()?;
        Ok(ask)
    }
}
