//! Questions to the node rather than to a shard.

use super::packets::refused;
use super::{Life, Node};
use crate::views::Waiter;
use crate::{ConnectionId, Effect, replies};
use naust_wire::ask::Ask;
use naust_wire::options::NamespaceOptions;
use naust_wire::reply::{self, Failure, Namespace, Reply};
use naust_wire::{Code, NodeId, Offset, RequestId, ShardId};

/// Bytes of replies that list namespaces between two flushes; past it such questions are answered
/// `Overloaded`. The last reply may pass it.
const LIST_REPLY_BYTES_MAX: usize = 8 * 1024 * 1024;

impl Node {
    pub(super) fn ask(
        &mut self,
        from: ConnectionId,
        request: RequestId,
        body: &[u8],
        effects: &mut Vec<Effect>,
    ) -> Result<(), Failure> {
        let ask = Ask::decode(body).map_err(refused)?;
        if let Ask::Hello { token, .. } = &ask {
            self.hello(from, token)?;
        } else {
            self.gate(from)?;
        }
        let reply = match ask {
            Ask::Hello { .. } => {
                Reply::Hello { node: self.config.node, version: self.config.version.clone() }
            }
            Ask::Resolve(name) => match self.resolve(&name)? {
                shard if self.directory.is_opening(shard) => {
                    self.connections.begin(from, effects);
                    self.directory.wait(shard, Waiter { connection: from, request });
                    return Ok(());
                }
                shard => Reply::Resolved { shard, leader: self.config.node },
            },
            Ask::Namespaces | Ask::Cluster if self.listed_bytes >= LIST_REPLY_BYTES_MAX => {
                let detail = "the node lists as much at once as it may; try again";
                return Err(Failure::new(Code::Overloaded, detail));
            }
            Ask::Namespaces => Reply::Namespaces(self.namespaces()?),
            Ask::Cluster => {
                Reply::Cluster { nodes: vec![self.myself()], namespaces: self.namespaces()? }
            }
        };
        let bytes = replies::send(from, request, ShardId::DIRECTORY, &reply, effects);
        if matches!(reply, Reply::Namespaces(_) | Reply::Cluster { .. }) {
            self.listed_bytes += bytes;
        }
        Ok(())
    }

    fn hello(&mut self, from: ConnectionId, token: &str) -> Result<(), Failure> {
        let wanted = self.config.token.as_deref();
        if wanted.is_some_and(|wanted| !is_same(wanted.as_bytes(), token.as_bytes())) {
            return Err(Failure::new(Code::Unauthorized, "the token is not known here"));
        }
        self.connections.greet(from);
        Ok(())
    }

    fn resolve(&self, name: &str) -> Result<ShardId, Failure> {
        if let Some((shard, _)) = self.directory.get(name) {
            return Ok(shard);
        }
        self.check_known()?;
        let detail = format!("there is no namespace {name:?}; make it first");
        Err(Failure::new(Code::NamespaceNotFound, detail))
    }

    fn check_known(&self) -> Result<(), Failure> {
        match self.directory.is_known() {
            true => Ok(()),
            false => Err(Failure::new(Code::Unavailable, "the node is starting; try again")),
        }
    }

    fn namespaces(&self) -> Result<Vec<Namespace>, Failure> {
        self.check_known()?;
        let all = self.directory.iter();
        Ok(all.map(|(name, shard, options)| self.namespace(name, shard, options)).collect())
    }

    fn namespace(&self, name: &str, id: ShardId, options: &NamespaceOptions) -> Namespace {
        let shard = self.shards.get(&id);
        let end = shard.map_or(Offset::ZERO, |shard| shard.end());
        let replicas = shard.map(|shard| {
            let configuration = shard.replica.configuration();
            let ours = |node: &NodeId| if *node == self.config.node { end } else { Offset::ZERO };
            let replica =
                |node: &NodeId, voter| reply::Replica { node: *node, voter, end: ours(node) };
            let voters = configuration.voters().iter().map(|node| replica(node, true));
            let learners = configuration.learners().iter().map(|node| replica(node, false));
            voters.chain(learners).collect()
        });
        Namespace {
            name: name.to_owned(),
            shard: id,
            leader: self.config.node,
            end,
            replicas: replicas.unwrap_or_default(),
            options: *options,
        }
    }

    fn myself(&self) -> reply::Node {
        reply::Node {
            id: self.config.node,
            name: self.config.name.clone(),
            address: self.config.address.clone(),
            up: self.life == Life::Serving,
        }
    }
}

/// Compares without telling by its time how much was right.
fn is_same(one: &[u8], other: &[u8]) -> bool {
    let differs = one.iter().zip(other).fold(0, |differs, (a, b)| differs | (a ^ b));
    one.len() == other.len() && differs == 0
}
