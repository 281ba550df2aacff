//! Questions to the node rather than to a shard.

use super::directory::Member;
use super::packets::refused;
use super::{Life, Node};
use crate::event::DirectoryAsk;
use crate::shard::{Asked, Busy, Question, busy};
use crate::views::Waiter;
use crate::{ConnectionId, Effect, Now, replies, views};
use naust_wire::ask::{Ask, Listing};
use naust_wire::limits::{PAGE_BYTES_MAX, PAGE_ROWS_DEFAULT};
use naust_wire::options::NamespaceOptions;
use naust_wire::packet::Packet;
use naust_wire::reply::{self, Failure, Namespace, Reply};
use naust_wire::{Code, NodeId, RequestId, ShardId};

/// Bytes of replies that list namespaces between two flushes; past it such questions are answered
/// `Overloaded`. The last reply may pass it.
const LIST_REPLY_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Bytes of a namespace in a reply beside its name and its replicas, about.
const NAMESPACE_BYTES: usize = 128;
/// The same, of a replica.
const REPLICA_BYTES: usize = 24;

impl Node {
    pub(super) fn ask(
        &mut self,
        now: Now,
        from: ConnectionId,
        packet: &Packet<'_>,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Failure> {
        let ask = Ask::decode(packet.body).map_err(refused)?;
        if let Ask::Hello { token, .. } = &ask {
            self.hello(from, token)?;
        } else {
            self.gate(from)?;
        }
        let request = packet.request;
        match ask {
            Ask::Hello { .. } => {
                let reply = Reply::Hello {
                    node: self.config.node,
                    version: self.config.version.clone(),
                    cluster: self.config.cluster,
                };
                replies::send(from, request, ShardId::DIRECTORY, &reply, effects);
                Ok(())
            }
            Ask::Transfer { namespace, to } => {
                let shard = self.resolve(&namespace)?;
                self.transfer(from, packet, shard, to, effects)
            }
            // A shard keeps its number, and who asks one that is gone hears that.
            Ask::Resolve(name) if self.directory.get(&name).is_some() => {
                self.answer(now, from, request, Ask::Resolve(name), effects)
            }
            ask => match self.shards.get_mut(&ShardId::DIRECTORY) {
                Some(shard) if !shard.is_alone() => {
                    shard.waiting.add(Asked::ask(from, request, ask, now));
                    Node::touch(&mut self.touched, shard);
                    self.connections.begin(from, effects);
                    Ok(())
                }
                Some(_) => self.answer(now, from, request, ask, effects),
                None => self.answer_without(now, from, packet, ask, effects),
            },
        }
    }

    /// There is no directory here, or not yet: another node may have it. A worker that is not the
    /// directory's goes by what it was told.
    fn answer_without(
        &mut self,
        now: Now,
        from: ConnectionId,
        packet: &Packet<'_>,
        ask: Ask,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Failure> {
        if self.owns(ShardId::DIRECTORY)
            && !self.directory.is_absent(ShardId::DIRECTORY)
            && let Some(node) = self.elsewhere(now, ShardId::DIRECTORY, None)
        {
            return self.forward(from, packet, node, effects);
        }
        self.answer(now, from, packet.request, ask, effects)
    }

    /// A question waited until the directory was known as it is now.
    pub(super) fn answer_asked(&mut self, now: Now, asked: Asked, effects: &mut Vec<Effect>) {
        let ask = match asked.question {
            None => return,
            Some(Question::Current(ask)) => {
                let (shard, job) = (ShardId::DIRECTORY, views::Job::Current(ask));
                return effects.push(Effect::Views { shard, job });
            }
            Some(Question::Ask(ask)) => ask,
        };
        if let Err(failure) = self.answer(now, asked.to, asked.request, *ask, effects) {
            self.fail(asked.to, asked.request, ShardId::DIRECTORY, failure, effects);
        }
        self.connections.end(asked.to, 1, effects);
    }

    /// A worker is to know the directory as it is now. It asks again if it is not told.
    pub(super) fn directory_asked(&mut self, now: Now, ask: DirectoryAsk) {
        let is_serving = self.life == Life::Serving;
        let shard = self.shards.get_mut(&ShardId::DIRECTORY).filter(|_| is_serving);
        let Some(shard) = shard.filter(|shard| !shard.waiting.asks_current()) else { return };
        shard.waiting.add(Asked::current(ask, now));
        Node::touch(&mut self.touched, shard);
    }

    fn answer(
        &mut self,
        now: Now,
        from: ConnectionId,
        request: RequestId,
        ask: Ask,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Failure> {
        if self.listed_bytes >= LIST_REPLY_BYTES_MAX && !matches!(ask, Ask::Resolve(_)) {
            let detail = "the node lists as much at once as it may; try again";
            return Err(Failure::new(Code::Overloaded, detail));
        }
        let reply = match ask {
            Ask::Resolve(name) => match self.resolve(&name)? {
                shard if self.directory.is_opening(shard) => {
                    self.connections.begin(from, effects);
                    self.directory.wait(shard, Waiter { connection: from, request });
                    return Ok(());
                }
                shard => Reply::Resolved { shard, leader: self.leader_of(shard) },
            },
            Ask::Cluster(listing) => {
                let (namespaces, next) = self.namespaces(&listing)?;
                Reply::Cluster { nodes: self.nodes(now), namespaces, next }
            }
            Ask::Namespaces(listing) => {
                let (namespaces, next) = self.namespaces(&listing)?;
                Reply::Namespaces { namespaces, next }
            }
            Ask::Hello { .. } | Ask::Transfer { .. } => unreachable!("answered where they came in"),
        };
        let bytes = replies::send(from, request, ShardId::DIRECTORY, &reply, effects);
        if !matches!(reply, Reply::Resolved { .. }) {
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

    /// A page of the namespaces, and what the next one begins with.
    fn namespaces(&self, listing: &Listing) -> Result<(Vec<Namespace>, Option<String>), Failure> {
        self.check_known()?;
        let limit = if listing.limit == 0 { PAGE_ROWS_DEFAULT } else { listing.limit as usize };
        let (mut page, mut bytes) = (Vec::new(), 0);
        for (name, shard, options) in self.directory.from(&listing.from) {
            if page.len() == limit || bytes >= PAGE_BYTES_MAX {
                return Ok((page, Some(name.clone())));
            }
            let namespace = self.namespace(name, shard, options);
            bytes += NAMESPACE_BYTES + name.len() + namespace.replicas.len() * REPLICA_BYTES;
            page.push(namespace);
        }
        Ok((page, None))
    }

    fn namespace(&self, name: &str, id: ShardId, options: &NamespaceOptions) -> Namespace {
        let shard = self.shards.get(&id);
        let end = shard.map(|shard| shard.end());
        let replicas = shard.map(|shard| {
            let configuration = shard.replica.configuration();
            let replica = |node: &NodeId, voter| {
                let end = shard.end_at(*node);
                reply::Replica { node: *node, voter, end }
            };
            let voters = configuration.voters().iter().map(|node| replica(node, true));
            let learners = configuration.learners().iter().map(|node| replica(node, false));
            voters.chain(learners).collect()
        });
        Namespace {
            name: name.to_owned(),
            shard: id,
            leader: self.leader_of(id),
            end,
            replicas: replicas.unwrap_or_default(),
            options: *options,
            closing: self.directory.closing.contains(id),
        }
    }

    /// Who leads a shard, as far as is known here: zero, if it is not.
    fn leader_of(&self, shard: ShardId) -> NodeId {
        let Some(shard) = self.shards.get(&shard) else {
            let is_alone = self.directory.nodes().next().is_none();
            return if is_alone { self.config.node } else { NodeId(0) };
        };
        match shard.replica.is_lone_voter() {
            // It leads as soon as it is written to.
            true => self.config.node,
            false => shard.replica.leader().unwrap_or(NodeId(0)),
        }
    }

    /// Hands the leadership of a namespace over, or has its leader do that.
    fn transfer(
        &mut self,
        from: ConnectionId,
        packet: &Packet<'_>,
        id: ShardId,
        to: NodeId,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Failure> {
        let Some(shard) = self.shards.get_mut(&id) else { return Err(self.directory.absent(id)) };
        match shard.admit() {
            Err(Busy::NotLeader(Some(leader))) => {
                return self.forward(from, packet, leader, effects);
            }
            Err(why @ Busy::NotLeader(None)) => return Err(busy(why)),
            _ => {}
        }
        if !shard.replica.configuration().voters().contains(&to) {
            let detail = format!("node {to} is no voter of this namespace");
            return Err(Failure::new(Code::BadArgument, detail));
        }
        if to != self.config.node {
            shard.hand_over_to(to);
        }
        let reply = Reply::Done(shard.end());
        Node::touch(&mut self.touched, shard);
        replies::send(from, packet.request, ShardId::DIRECTORY, &reply, effects);
        Ok(())
    }

    /// All nodes; this one alone, while none has joined it.
    fn nodes(&self, now: Now) -> Vec<reply::Node> {
        let node = |(id, member): (NodeId, &Member)| reply::Node {
            id,
            name: member.name.clone(),
            address: member.address.clone(),
            up: self.peers.is_there(id, now.monotonic_ms),
        };
        match self.directory.nodes().next() {
            None => vec![self.myself()],
            Some(_) => self.directory.nodes().map(node).collect(),
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
