//! Requests of clients that this node has passed on to others, until they are answered.
//!
//! What one node has not answered yet is bounded in bytes: it shares the link with Raft's own
//! messages, which must not wait behind what clients send. At half of the bound those who ask for
//! more are paused; past it they are refused.

use super::Node;
use crate::connections::Connections;
use crate::{ConnectionId, Effect, Now, replies};
use naust_wire::ask::Ask;
use naust_wire::limits::{FORWARDED_BYTES_MAX, FORWARDED_MAX, PACKET_HEADER_BYTES};
use naust_wire::packet::{self, Kind, Packet};
use naust_wire::reply::Failure;
use naust_wire::{Code, NodeId, RequestId, ShardId};
use rustc_hash::FxHashMap;
use std::collections::{BTreeMap, BTreeSet};

/// How often a request is passed on: to a node that has the shard, from it to the leader, and once
/// more if another leads by then.
const PASSES_MAX: u64 = 3;
/// The bits of a request's number above these tell how often it was passed on.
const PASSES_SHIFT: u32 = 56;

/// Requests of clients that other nodes answer.
#[derive(Default)]
pub(super) struct Forwarded {
    under_way: FxHashMap<RequestId, Request>,
    nodes: BTreeMap<NodeId, Load>,
    last: u64,
}

struct Request {
    /// `None`: it is gone. What it asked still counts, or who asks and closes, again and again,
    /// would meet no bound.
    from: Option<ConnectionId>,
    request: RequestId,
    shard: ShardId,
    /// It may be done although it is not answered.
    changes: bool,
    to: NodeId,
    bytes: usize,
}

/// What a node was given and has not answered.
#[derive(Default)]
struct Load {
    bytes: usize,
    /// Who is paused because of it.
    held: BTreeSet<ConnectionId>,
}

impl Forwarded {
    /// Whether a node may be given so many bytes more. One request is always taken.
    fn has_room(&self, to: NodeId, bytes: usize) -> bool {
        let given = self.nodes.get(&to).map_or(0, |load| load.bytes);
        let fits = given == 0 || given + bytes <= FORWARDED_BYTES_MAX;
        fits && self.under_way.len() < FORWARDED_MAX
    }

    fn begin(
        &mut self,
        id: RequestId,
        request: Request,
        connections: &mut Connections,
        effects: &mut Vec<Effect>,
    ) {
        let load = self.nodes.entry(request.to).or_default();
        load.bytes += request.bytes;
        if load.bytes > FORWARDED_BYTES_MAX / 2
            && let Some(from) = request.from
            && load.held.insert(from)
        {
            connections.hold(from, effects);
        }
        self.under_way.insert(id, request);
    }

    fn end(
        &mut self,
        id: RequestId,
        connections: &mut Connections,
        effects: &mut Vec<Effect>,
    ) -> Option<Request> {
        let request = self.under_way.remove(&id)?;
        let load = self.nodes.get_mut(&request.to)?;
        load.bytes -= request.bytes;
        if load.bytes <= FORWARDED_BYTES_MAX / 4 {
            for id in std::mem::take(&mut load.held) {
                connections.let_go(id, effects);
            }
        }
        if load.bytes == 0 {
            self.nodes.remove(&request.to);
        }
        Some(request)
    }

    /// Forgets a connection that is gone; how many requests that were.
    pub(super) fn forget(&mut self, gone: ConnectionId) -> usize {
        for load in self.nodes.values_mut() {
            load.held.remove(&gone);
        }
        let all = self.under_way.values_mut();
        all.filter_map(|request| request.from.take_if(|from| *from == gone)).count()
    }
}

impl Node {
    /// What was passed on to a node will not be answered any more.
    pub(super) fn interrupt(&mut self, node: NodeId, effects: &mut Vec<Effect>) {
        let all = self.forwarded.under_way.iter();
        let lost: Vec<RequestId> =
            all.filter(|(_, request)| request.to == node).map(|(id, _)| *id).collect();
        for id in lost {
            let ended = self.forwarded.end(id, &mut self.connections, effects);
            let Some(Request { from: Some(from), request, shard, changes, .. }) = ended else {
                continue;
            };
            let failure = match changes {
                true => Failure::new(
                    Code::Interrupted,
                    "the node that leads the namespace is gone; whether it was done is not known",
                ),
                false => {
                    Failure::new(Code::Unavailable, "the node that was asked is gone; try again")
                }
            };
            self.fail(from, request, shard, failure, effects);
            self.connections.end(from, 1, effects);
        }
    }

    /// Passes a request of a client on to the node that can answer it.
    pub(super) fn forward(
        &mut self,
        from: ConnectionId,
        packet: &Packet<'_>,
        to: NodeId,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Failure> {
        // Another node's request has been passed on so often already, as it was numbered.
        let passes = match self.peers.of(from) {
            None => 1,
            Some(_) => (packet.request.0 >> PASSES_SHIFT) + 1,
        };
        if passes > PASSES_MAX || self.peers.of(from) == Some(to) {
            let detail = format!("node {to} leads this namespace, as far as is known; try again");
            return Err(Failure::new(Code::NotLeader, detail));
        }
        let bytes = PACKET_HEADER_BYTES + packet.body.len();
        if !self.forwarded.has_room(to, bytes) {
            let detail = "the node has passed on as much as it may; try again";
            return Err(Failure::new(Code::Overloaded, detail));
        }
        self.forwarded.last = (self.forwarded.last + 1) % (1 << PASSES_SHIFT);
        let id = RequestId(passes << PASSES_SHIFT | self.forwarded.last);
        let passed = self.peers.pass_on(to, |out| {
            packet::write(packet.kind, id, packet.shard, packet.body, out);
        });
        if !passed {
            let detail = "the node that leads the namespace can't be reached; try again";
            return Err(Failure::new(Code::Unavailable, detail));
        }
        let Packet { request, shard, .. } = *packet;
        let changes = match packet.kind {
            Kind::Commit | Kind::Control => true,
            Kind::Ask => matches!(Ask::decode(packet.body), Ok(Ask::Transfer { .. })),
            _ => false,
        };
        self.connections.begin(from, effects);
        let request = Request { from: Some(from), request, shard, changes, to, bytes };
        self.forwarded.begin(id, request, &mut self.connections, effects);
        Ok(())
    }

    /// Replies to what was passed on go back to those who asked. Where they can't be told apart any
    /// more, the rest will not come, and the link is made anew.
    pub(super) fn replies(
        &mut self,
        now: Now,
        node: NodeId,
        bytes: &[u8],
        effects: &mut Vec<Effect>,
    ) {
        let mut at = 0;
        while at < bytes.len() {
            let Ok(Some((packet, length))) = packet::read(&bytes[at..]) else {
                self.peers.give_up(node, effects);
                return self.link(now, node, false, effects);
            };
            at += length;
            if packet.kind != Kind::Reply || self.peers.took_in(node, packet.request) {
                continue;
            }
            let ended = self.forwarded.end(packet.request, &mut self.connections, effects);
            if let Some(Request { from: Some(from), request, shard, .. }) = ended {
                replies::pass(from, request, shard, packet.body, effects);
                self.connections.end(from, 1, effects);
            }
        }
    }
}
