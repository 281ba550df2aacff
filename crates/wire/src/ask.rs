//! Questions to a node rather than to a shard. Not logged.

use crate::ids::NodeId;
use crate::limits::{NAME_BYTES_MAX, TEXT_BYTES_MAX};
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
    /// All namespaces.
    Namespaces,
    /// Nodes and namespaces.
    Cluster,
    /// Hand the leadership of a namespace over to a node. Answered by whoever leads it.
    Transfer { namespace: String, to: NodeId },
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
            Ask::Namespaces | Ask::Cluster => Ok(()),
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
            Ask::Namespaces => root.set_namespaces(()),
            Ask::Cluster => root.set_cluster(()),
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
            Which::Namespaces(()) => Ask::Namespaces,
            Which::Cluster(()) => Ask::Cluster,
            Which::Transfer(from) => Ask::Transfer {
                namespace: text(from.get_namespace()?, NAME_BYTES_MAX)?,
                to: NodeId(from.get_to()),
            },
        };
        ask.check()?;
        Ok(ask)
    }
}
