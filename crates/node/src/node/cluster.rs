//! What a worker has to do with other nodes: packets between nodes, and who is to have a replica of
//! what. Requests that are passed on are in `forwarded`.

use super::Node;
use super::directory::Directory;
use crate::event::{ALWAYS, DirectoryAsk, Event};
use crate::shard::{Shard, Then};
use crate::transfer::Adopt;
use crate::{ConnectionId, Effect, Now};
use naust_consensus::{Change, Configuration, Role};
use naust_wire::control::Control;
use naust_wire::frame;
use naust_wire::limits::REPLICAS_DEFAULT;
use naust_wire::packet::Packet;
use naust_wire::peer::{self, Said};
use naust_wire::reply::Failure;
use naust_wire::{Code, Index, NodeId, ShardId};

/// Milliseconds between two looks at who is to have replicas.
pub(super) const PLACE_MS: u64 = 250;

impl Node {
    /// A packet of another node. What can't be its ends the connection.
    pub(super) fn peer(
        &mut self,
        now: Now,
        from: ConnectionId,
        packet: &Packet<'_>,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Failure> {
        let (peer, frames) = peer::open(packet.body).map_err(super::packets::refused)?;
        if peer.to != self.config.node {
            let detail = format!("this is node {}, not {}", self.config.node, peer.to);
            return Err(Failure::new(Code::BadArgument, detail));
        }
        if let Said::Hello { cluster, address, .. } = &peer.said {
            if *cluster != self.config.cluster {
                let detail = "this node belongs to another cluster";
                return Err(Failure::new(Code::BadArgument, detail));
            }
            if !self.peers.may_learn(peer.from) {
                let detail = "this node knows as many nodes as it may";
                return Err(Failure::new(Code::Overloaded, detail));
            }
            self.peers.greeted(from, peer.from);
            self.connections.exempt(from);
            self.peers.learn(peer.from, address, effects);
        } else if self.peers.of(from) != Some(peer.from) {
            return Err(Failure::new(Code::Malformed, "a node greets before it speaks"));
        }
        if self.peers.heard(peer.from, now.monotonic_ms) {
            // What was said to it meanwhile it may not have heard, and what sleeps wakes for it.
            self.meet(peer.from);
        }
        match peer.said {
            Said::Hello { .. } | Said::Alive => {}
            // A node that ends is behind from now on; it would never be done otherwise.
            Said::Raft(_) if !frames.is_empty() && self.has_answered_all() => {}
            Said::Raft(said) => {
                let Some(shard) = self.shards.get_mut(&packet.shard) else { return Ok(()) };
                let stepped = shard.step(peer.from, said, frames);
                Node::touch(&mut self.touched, shard);
                match stepped {
                    Ok(Ok(())) => {}
                    Ok(Err(fault)) => {
                        let sentence = format!("the log of shard {}: {fault}", packet.shard);
                        effects.push(Effect::Stop(sentence));
                    }
                    Err(bad) => {
                        let detail = format!("frames that are none: {bad}");
                        return Err(Failure::new(Code::Malformed, detail));
                    }
                }
            }
            Said::Invite { configuration, options } => {
                if Configuration::decode(&configuration).is_err() {
                    return Err(Failure::new(Code::Malformed, "a configuration that is none"));
                }
                if !self.shards.contains_key(&packet.shard)
                    && !self.leaving.contains_key(&packet.shard)
                    && self.owns(packet.shard)
                {
                    self.directory.invited(packet.shard, options, configuration, effects);
                }
            }
            Said::Contents(_)
            | Said::Want { .. }
            | Said::Part { .. }
            | Said::Keep { .. }
            | Said::Installed { .. } => {
                let Some(shard) = self.shards.get_mut(&packet.shard) else {
                    self.told_while_closed(now, packet.shard, peer, frames, effects);
                    return Ok(());
                };
                match peer.said {
                    Said::Contents(contents) => {
                        shard.told_contents(peer.from, contents, now, effects);
                    }
                    Said::Want { transfer, file, at } => {
                        shard.wanted(peer.from, (transfer, file, at), now);
                    }
                    Said::Part { transfer, file, at } => {
                        shard.part(peer.from, (transfer, file, at), frames, now, effects);
                    }
                    Said::Keep { transfer } => shard.goes_on(peer.from, transfer, now),
                    Said::Installed { transfer, ok } => {
                        shard.installed(peer.from, transfer, ok, now, effects);
                    }
                    _ => unreachable!("matched above"),
                }
                Node::touch(&mut self.touched, shard);
            }
            Said::Seek { from, to } => self.supply(packet.shard, peer.from, from, to, effects),
            Said::Found { from, committed } => {
                let found = (from, committed);
                self.found(packet.shard, peer.from, found, frames, effects);
            }
            Said::Renew { number } => {
                if let Some(shard) = self.shards.get_mut(&packet.shard) {
                    shard.renew(peer.from, number, now);
                    Node::touch(&mut self.touched, shard);
                }
            }
            Said::Closed(shard) => {
                let leads = self.shards.get(&ShardId::DIRECTORY).is_some_and(|directory| {
                    packet.shard == directory.id && directory.replica.may_propose()
                });
                if leads {
                    self.shard_closed(now, shard);
                }
            }
            Said::End if packet.shard != ShardId::DIRECTORY => self.end_is_wanted(packet.shard),
            Said::End => {}
            Said::Sleep { term, index } => {
                if let Some(shard) = self.shards.get_mut(&packet.shard) {
                    shard.told_to_sleep(peer.from, term, index);
                }
            }
        }
        Ok(())
    }

    /// A step of a transfer ended here.
    pub(super) fn transferred(&mut self, event: Event<'_>, effects: &mut Vec<Effect>) {
        let (Event::Exported { shard: id, .. }
        | Event::ExportedPart { shard: id, .. }
        | Event::Imported { shard: id, .. }) = event
        else {
            return;
        };
        if let Event::ExportedPart { part, .. } = &event {
            self.peers.part_was_read(part.to);
        }
        let Some(shard) = self.shards.get_mut(&id) else {
            if let Event::Imported { number, ok, there, .. } = event {
                self.imported_while_closed(id, number, (ok, there), effects);
            }
            return;
        };
        Node::touch(&mut self.touched, shard);
        match event {
            Event::Exported { number, contents, .. } => {
                shard.exported(number, contents, &mut self.peers, effects);
            }
            Event::ExportedPart { part, bytes, .. } => {
                shard.exported_part(part, bytes, &mut self.peers, effects);
            }
            Event::Imported { number, ok, there, .. } => {
                let adopt = shard.imported(number, (ok, there), &mut self.peers, effects);
                if let Some((adopt, from)) = adopt {
                    self.adopt(id, adopt, from, effects);
                }
            }
            _ => {}
        }
    }

    /// A replica goes, and what was copied comes in its place, under its name and with its vote.
    fn adopt(&mut self, id: ShardId, adopt: Adopt, from: NodeId, effects: &mut Vec<Effect>) {
        let Some(mut shard) = self.take_out(id) else { return };
        let options = self.directory.options(id);
        let by = (from, adopt.contents.transfer);
        self.directory.is_replaced(id, options, by, shard.shown());
        shard.then = Then::Adopt(Box::new(adopt), options);
        shard.make_way(effects);
        self.let_go(&mut shard, effects);
        self.leaving.insert(id, shard);
        self.remove_when_unused(id, effects);
        self.flushed(id, effects);
    }

    /// The link to a node stands, or is lost.
    pub(super) fn link(&mut self, now: Now, node: NodeId, is_up: bool, effects: &mut Vec<Effect>) {
        self.peers.linked(node, is_up, now.monotonic_ms);
        if !is_up {
            self.interrupt(node, effects);
            self.meet(node);
        }
    }

    /// What is said to a node begins anew.
    pub(super) fn meet(&mut self, node: NodeId) {
        for shard in self.shards.values_mut() {
            shard.unreachable(node);
            Node::touch(&mut self.touched, shard);
        }
    }

    /// A node seems to be gone: its connection was closed, or it is silent.
    pub(super) fn lost(&mut self, node: NodeId) {
        self.peers.lost(node);
        for shard in self.shards.values_mut() {
            shard.lost(node);
            Node::touch(&mut self.touched, shard);
        }
    }

    /// Someone who can answer for a shard of which there is nothing here, and is not the one that
    /// asks.
    pub(super) fn elsewhere(
        &self,
        now: Now,
        shard: ShardId,
        asks: Option<NodeId>,
    ) -> Option<NodeId> {
        let there = |node: &&NodeId| {
            **node != self.config.node
                && Some(**node) != asks
                && self.peers.is_linked(**node)
                && self.peers.is_there(**node, now.monotonic_ms)
        };
        let anybody: Vec<NodeId> = self.directory.nodes().map(|(node, _)| node).collect();
        let holders = self.directory.holders(shard);
        holders.iter().chain(&anybody).find(there).copied()
    }

    pub(super) fn tick_peers(&mut self, now: Now, effects: &mut Vec<Effect>) {
        for node in self.peers.give_up_unanswered(now.monotonic_ms, effects) {
            self.interrupt(node, effects);
            self.meet(node);
        }
        self.peers.tick(now.monotonic_ms);
        for node in self.peers.newly_gone(now.monotonic_ms) {
            self.lost(node);
            self.interrupt(node, effects);
        }
        for shard in self.shards.values_mut().filter(|shard| shard.ticks()) {
            shard.tick_raft(now, &mut self.peers, effects);
            Node::touch(&mut self.touched, shard);
        }
        if now.monotonic_ms >= self.place_at_ms {
            self.place_at_ms = now.monotonic_ms + PLACE_MS;
            self.place(now, effects);
            self.part(effects);
            self.press_closing(effects);
        }
    }

    /// Brings the replicas of the shards that this node leads to where they should be, one change
    /// at a time, by what is in force now.
    fn place(&mut self, now: Now, effects: &mut Vec<Effect>) {
        let Node { shards, directory, peers, touched, config, .. } = self;
        let mut needs_directory = false;
        if directory.nodes().next().is_none() {
            return;
        }
        for shard in shards.values_mut() {
            if shard.replica.is_lone_voter() && shard.replica.role() != Role::Leader {
                // It leads when it is first written to; others are to have it now.
                shard.campaign();
                Node::touch(touched, shard);
            }
            if shard.replica.role() != Role::Leader {
                continue;
            }
            let there =
                |node: &NodeId| peers.is_linked(*node) && peers.is_there(*node, now.monotonic_ms);
            let since_ms = shard.leads_since(now);
            let change = match next_change(now, shard, directory, there) {
                Some(Change::Remove(gone)) if gone == config.node => {
                    let configuration = shard.replica.configuration().clone();
                    hand_over(shard, &configuration, there);
                    continue;
                }
                // It may have come with the leader before, and the news of it be late here.
                Some(Change::Remove(_)) if !directory.is_current(since_ms) => {
                    needs_directory = true;
                    None
                }
                change => change,
            };
            if let Some(change) = change {
                shard.configure(change);
            }
            for node in shard.others() {
                if shard.matched(node) == Some(Index(0)) {
                    let options = directory.options(shard.id);
                    let configuration = shard.log.configuration().to_vec();
                    peers.say(shard.id, node, Said::Invite { configuration, options });
                }
            }
            Node::touch(touched, shard);
        }
        if needs_directory {
            let (worker, asked_ms) = (config.worker, now.monotonic_ms);
            effects.push(Effect::AskDirectory(DirectoryAsk { worker, asked_ms }));
        }
    }

    /// Forgets who left the cluster and has no part in anything any more.
    fn part(&mut self, effects: &mut Vec<Effect>) {
        for gone in self.peers.leaving() {
            let takes_part = |shard: &Shard| shard.replica.configuration().contains(gone);
            if !self.shards.values().any(|shard| takes_part(shard)) {
                self.peers.forget(gone, effects);
            }
        }
    }

    /// A node that joins: the first time, this one writes itself down too.
    pub(super) fn note_myself(&mut self, now: Now) {
        if self.directory.nodes().next().is_some() {
            return;
        }
        let Some(shard) = self.shards.get_mut(&ShardId::DIRECTORY) else { return };
        let (name, address) = (self.config.name.clone(), self.config.address.clone());
        let mut body = Vec::new();
        Control::SetNode { node: self.config.node, name, address }.encode(&mut body);
        shard.stage(frame::Kind::Control, &body, crate::views::Waiter::NOBODY, now);
    }

    /// Whether the rest of the cluster could decide anything without a node.
    pub(super) fn check_removal(&self, now: Now, node: NodeId) -> Result<(), Failure> {
        let Some(shard) = self.shards.get(&ShardId::DIRECTORY) else { return Ok(()) };
        // Each removal takes its part in every quorum first: two at once, of nodes that are stopped
        // as soon as they are removed, could leave none.
        for shard in self.shards.values() {
            let replicas = shard.replica.configuration().replicas();
            let left = |other: &&NodeId| **other != node && self.directory.node(**other).is_none();
            if let Some(other) = replicas.iter().find(left)
                && self.directory.nodes().next().is_some()
            {
                let detail = format!(
                    "node {other}, which was removed before, still has a part in shard {}; \
                     try again",
                    shard.id
                );
                return Err(Failure::new(Code::Unavailable, detail));
            }
        }
        let voters = shard.replica.configuration().voters();
        let rest: Vec<NodeId> = voters.iter().copied().filter(|voter| *voter != node).collect();
        let there = |node: &&NodeId| {
            **node == self.config.node || self.peers.is_there(**node, now.monotonic_ms)
        };
        let count = rest.iter().filter(there).count();
        if count > rest.len() / 2 {
            return Ok(());
        }
        let detail = format!(
            "without node {node} there is no quorum: {count} of the other {} voters are there",
            rest.len()
        );
        Err(Failure::new(Code::BadArgument, detail))
    }

    /// Leadership goes to others before this node does, as far as there are any.
    pub(super) fn hand_over_all(&mut self, now: Now) {
        let Node { shards, peers, touched, .. } = self;
        for shard in shards.values_mut().filter(|shard| shard.replica.role() == Role::Leader) {
            let configuration = shard.replica.configuration().clone();
            let there = |node: &NodeId| peers.is_there(*node, now.monotonic_ms);
            hand_over(shard, &configuration, there);
            Node::touch(touched, shard);
        }
    }

    /// A node that ends does not wait for a quorum that it does not hear.
    pub(super) fn give_up_alone(&mut self, now: Now, effects: &mut Vec<Effect>) {
        let Node { shards, peers, connections, .. } = self;
        let there = |node: &NodeId| peers.is_there(*node, now.monotonic_ms);
        let most = |voters: &[NodeId]| {
            voters.is_empty() || voters.iter().copied().filter(there).count() > voters.len() / 2
        };
        for shard in shards.values_mut().filter(|shard| !shard.is_settled()) {
            let configuration = shard.replica.configuration();
            if most(configuration.voters()) && most(configuration.outgoing()) {
                continue;
            }
            shard.give_up(effects);
            for id in shard.answered.drain(..) {
                connections.end(id, 1, effects);
            }
        }
    }

    /// The configuration that a new shard's log begins with; `None`: this node has no part in it.
    pub(super) fn begin(&self, replicas: &[NodeId]) -> Option<Vec<u8>> {
        if replicas.is_empty() {
            let single = || Configuration::single(self.config.node).encode();
            return self.config.founder.then(single);
        }
        let configuration = Configuration::of_voters(replicas)?;
        configuration.contains(self.config.node).then(|| configuration.encode())
    }

    /// The first to lead a new shard is another one for each, so that leaders are spread.
    pub(super) fn leads_first(&self, name: &str, shard: ShardId, replicas: &[NodeId]) -> bool {
        let first = (name != ALWAYS).then(|| shard.0 as usize % replicas.len().max(1));
        first.and_then(|place| replicas.get(place)) == Some(&self.config.node)
    }
}

/// What is to change next about the replicas of a shard, by what the directory tells here.
fn next_change(
    now: Now,
    shard: &mut Shard,
    directory: &Directory,
    there: impl Fn(&NodeId) -> bool,
) -> Option<Change> {
    let configuration = shard.replica.configuration().clone();
    let all = directory.nodes().count();
    let wanted = if shard.id == ShardId::DIRECTORY { all } else { REPLICAS_DEFAULT };
    let is_gone = |node: &NodeId| directory.node(*node).is_none();
    if let Some(gone) = configuration.replicas().into_iter().find(is_gone) {
        return Some(Change::Remove(gone));
    }
    shard.forget_rounds(|node| configuration.contains(*node));
    let mut learners = configuration.learners().iter();
    if configuration.voters().len() < REPLICAS_DEFAULT
        && let Some(learner) = learners.find(|node| shard.keeps_up(**node, now))
    {
        return Some(Change::Voter(*learner));
    }
    if configuration.replicas().len() >= wanted.min(all) {
        return None;
    }
    let mut others = directory.nodes().map(|(node, _)| node);
    others.find(|node| !configuration.contains(*node) && there(node)).map(Change::Learner)
}

/// Hands leadership over to the voter that has come furthest.
fn hand_over(shard: &mut Shard, configuration: &Configuration, there: impl Fn(&NodeId) -> bool) {
    let others = configuration.voters().iter().copied().filter(there);
    let others = others.filter(|node| *node != shard.node());
    if let Some(node) = others.max_by_key(|node| shard.matched(*node)) {
        shard.hand_over_to(node);
    }
}
