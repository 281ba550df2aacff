//! What lies between nodes: links, paths that are cut or slow, and packets that are lost.
//!
//! ```text
//!   Effect::Link ─► dial ─► a wire ── there: what the node says ──► Event::Packets
//!                    ▲        └────── back: replies ◄───────────── Effect::Send
//!                    └── snap, end of a process: what was on its way is lost
//! ```
//! A wire is as TCP: what it carries comes in order, late, or not at all because the wire is gone.
//! What a cut path holds up comes when the path is there again. In a harsh life single packets of
//! Raft are lost, doubled or late even so; requests that were passed on and replies never are.

use super::{Happening, World};
use crate::checkers::words;
use crate::history::Violation;
use crate::schedule::Moment;
use naust_node::{ConnectionId, Event};
use naust_wire::NodeId;
use naust_wire::packet::{self, Kind};
use naust_wire::peer::{self, Peer, Said};
use std::collections::{BTreeMap, VecDeque};

/// What lies between nodes.
#[derive(Default)]
pub struct Network {
    wires: BTreeMap<ConnectionId, Wire>,
    /// Paths that nothing passes, from and to, by how many partitions cut them.
    cut: BTreeMap<(usize, usize), u32>,
    /// Paths that are slow.
    slow: BTreeMap<(usize, usize), u32>,
}

/// A connection of two processes.
struct Wire {
    /// Who made it.
    from: (usize, u64),
    /// Whom it is meant for.
    node: NodeId,
    /// Who took it.
    to: (usize, u64),
    there: Way,
    back: Way,
}

#[derive(Default)]
struct Way {
    /// When the last packets arrive.
    last: Moment,
    /// What arrived where nothing passes.
    stalled: VecDeque<Vec<u8>>,
}

/// A link that a process wants to have.
pub struct Link {
    /// Where the other one is.
    slot: usize,
    wire: Option<ConnectionId>,
}

/// Which way a packet goes on a wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Towards {
    /// From whoever made it.
    There,
    /// To whoever made it.
    Back,
}

/// Where a node is reached that sits in a slot.
#[must_use]
pub fn address(slot: usize) -> String {
    format!("slot-{slot}:7420")
}

fn slot_of(address: &str) -> Option<usize> {
    address.strip_prefix("slot-")?.strip_suffix(":7420")?.parse().ok()
}

impl Wire {
    fn path(&self, towards: Towards) -> (usize, usize) {
        match towards {
            Towards::There => (self.from.0, self.to.0),
            Towards::Back => (self.to.0, self.from.0),
        }
    }

    fn way(&mut self, towards: Towards) -> &mut Way {
        match towards {
            Towards::There => &mut self.there,
            Towards::Back => &mut self.back,
        }
    }
}

impl Network {
    /// Whether nothing passes from one node to another.
    #[must_use]
    pub fn is_cut(&self, path: (usize, usize)) -> bool {
        self.cut.contains_key(&path)
    }

    /// Whether a connection is between nodes.
    #[must_use]
    pub fn has(&self, id: ConnectionId) -> bool {
        self.wires.contains_key(&id)
    }

    /// The process that takes what a wire carries.
    pub(super) fn taker(&self, id: ConnectionId, towards: Towards) -> Option<(usize, u64)> {
        let wire = self.wires.get(&id)?;
        Some(if towards == Towards::There { wire.to } else { wire.from })
    }

    /// All that stand.
    pub(super) fn wires(&self) -> Vec<ConnectionId> {
        self.wires.keys().copied().collect()
    }

    /// Those that a path is part of.
    pub(super) fn along(&self, path: (usize, usize)) -> Vec<ConnectionId> {
        let on = |wire: &Wire| path == (wire.from.0, wire.to.0) || path == (wire.to.0, wire.from.0);
        self.wires.iter().filter(|(_, wire)| on(wire)).map(|(id, _)| *id).collect()
    }

    /// Those of a node.
    fn of(&self, slot: usize) -> Vec<ConnectionId> {
        let of = |wire: &Wire| wire.from.0 == slot || wire.to.0 == slot;
        self.wires.iter().filter(|(_, wire)| of(wire)).map(|(id, _)| *id).collect()
    }

    /// Slows a path down, or no longer does.
    pub(super) fn slow(&mut self, path: (usize, usize), is_slow: bool) {
        count(&mut self.slow, path, is_slow);
    }
}

fn count(paths: &mut BTreeMap<(usize, usize), u32>, path: (usize, usize), more: bool) {
    if more {
        *paths.entry(path).or_default() += 1;
    } else if let Some(times) = paths.get_mut(&path) {
        *times -= 1;
        if *times == 0 {
            paths.remove(&path);
        }
    }
}

impl World {
    /// A process wants a link.
    pub(super) fn link(&mut self, from: (usize, u64), node: NodeId, address: &str) {
        let Some(slot) = slot_of(address) else {
            return self.broken(format!("node {} was told of the address {address:?}", from.0));
        };
        let Some(process) = self.process(from) else { return };
        if process.links.get(&node).is_some_and(|link| link.slot == slot) {
            return;
        }
        let old = process.links.insert(node, Link { slot, wire: None });
        if let Some(wire) = old.and_then(|link| link.wire) {
            self.snap(wire);
        }
        let after = self.chance.skewed(1, 5_000);
        self.schedule.after(after, Happening::Dial { node: from, to: node });
    }

    /// A process makes a link anew that brings no answers.
    pub(super) fn relink(&mut self, from: (usize, u64), node: NodeId) {
        let Some(process) = self.process(from) else { return };
        let Some(wire) = process.links.get_mut(&node).and_then(|link| link.wire.take()) else {
            return;
        };
        self.tally.mark("links without answers");
        self.snap(wire);
        let after = self.chance.skewed(1_000, 200_000);
        self.schedule.after(after, Happening::Dial { node: from, to: node });
    }

    /// A process gives a link up.
    pub(super) fn unlink(&mut self, from: (usize, u64), node: NodeId) {
        let Some(process) = self.process(from) else { return };
        if let Some(wire) = process.links.remove(&node).and_then(|link| link.wire) {
            self.snap(wire);
        }
    }

    /// A process connects to another node, or will try again.
    pub(super) fn dial(&mut self, from: (usize, u64), to: NodeId) {
        let Some(process) = self.process(from) else { return };
        let Some(link) = process.links.get(&to).filter(|link| link.wire.is_none()) else { return };
        let slot = link.slot;
        let passes = !self.network.is_cut((from.0, slot)) && !self.network.is_cut((slot, from.0));
        let life = self.members[slot].process.as_ref().map(|process| process.life);
        let Some(life) = life.filter(|_| passes) else {
            let after = self.chance.skewed(1_000, 200_000);
            return self.schedule.after(after, Happening::Dial { node: from, to });
        };
        self.connections += 1;
        let id = ConnectionId(self.connections);
        let now = self.schedule.now();
        let way = || Way { last: now, stalled: VecDeque::new() };
        let wire = Wire { from, node: to, to: (slot, life), there: way(), back: way() };
        self.network.wires.insert(id, wire);
        self.trace.note(now, format_args!("wire {} from node {} to {slot}", id.0, from.0));
        let process = self.process(from).expect("it was just seen");
        process.links.get_mut(&to).expect("it was just seen").wire = Some(id);
        self.handle(from, Event::Link { node: to, is_up: true });
    }

    /// A process says something over a link.
    pub(super) fn say(&mut self, from: (usize, u64), to: NodeId, bytes: Vec<u8>) {
        let Some(process) = self.process(from) else { return };
        let Some(id) = process.links.get(&to).and_then(|link| link.wire) else { return };
        if !self.network.has(id) {
            return; // Lost, which its maker does not know yet.
        }
        self.tally.packets += 1;
        self.listen(from.0, &bytes);
        let cluster = &self.plan.cluster;
        let harsh =
            cluster.lost_in_a_million + cluster.twice_in_a_million + cluster.late_in_a_million;
        if harsh == 0 || self.calm {
            return self.put_on(id, Towards::There, bytes);
        }
        self.say_harshly(id, &bytes);
    }

    /// Holds replicas to what they say.
    fn listen(&mut self, slot: usize, bytes: &[u8]) {
        let (from, mut at) = (self.members[slot].id, 0);
        while let Ok(Some((packet, length))) = packet::read(&bytes[at..]) {
            at += length;
            if packet.kind != Kind::Peer {
                continue;
            }
            let Ok((Peer { to, said: Said::Raft(said), .. }, _)) = peer::open(packet.body) else {
                continue;
            };
            if let Err(what) = self.words.said(packet.shard, (from, to), &said) {
                self.violations.push(Violation::new(words::NAME, what));
            }
        }
    }

    /// Single packets of Raft go astray; all others keep their order.
    fn say_harshly(&mut self, id: ConnectionId, bytes: &[u8]) {
        let (mut at, mut whole) = (0, Vec::new());
        while let Ok(Some((packet, length))) = packet::read(&bytes[at..]) {
            let one = &bytes[at..at + length];
            at += length;
            let cluster = &self.plan.cluster;
            let (lost, twice, late) =
                (cluster.lost_in_a_million, cluster.twice_in_a_million, cluster.late_in_a_million);
            if packet.kind != Kind::Peer || !is_of_raft(packet.body) {
                whole.extend_from_slice(one);
                continue;
            }
            if self.chance.chance(lost) {
                self.tally.fault("packet of Raft lost");
                continue;
            }
            if self.chance.chance(twice) {
                self.tally.fault("packet of Raft doubled");
                self.put_late(id, one.to_vec());
            }
            if self.chance.chance(late) {
                self.tally.fault("packet of Raft late");
                self.put_late(id, one.to_vec());
                continue;
            }
            whole.extend_from_slice(one);
        }
        if !whole.is_empty() {
            self.put_on(id, Towards::There, whole);
        }
    }

    fn put_late(&mut self, wire: ConnectionId, bytes: Vec<u8>) {
        let after = self.chance.skewed(1, 500_000);
        self.schedule.after(after, Happening::Wired { wire, towards: Towards::There, bytes });
    }

    /// Packets go onto a wire, behind those before.
    pub(super) fn put_on(&mut self, id: ConnectionId, towards: Towards, bytes: Vec<u8>) {
        let wire = self.network.wires.get(&id).expect("a wire that stands");
        let is_slow = self.network.slow.contains_key(&wire.path(towards));
        let most = if is_slow {
            self.plan.cluster.slow_packet_micros
        } else {
            self.plan.faults.network_micros
        };
        let delay = self.chance.skewed(1, most.max(1));
        let at = self.schedule.now().after(delay);
        let wire = self.network.wires.get_mut(&id).expect("it was just seen");
        let way = wire.way(towards);
        way.last = way.last.max(at);
        self.schedule.at(way.last, Happening::Wired { wire: id, towards, bytes });
    }

    /// Packets come out of a wire, or get stuck.
    pub(super) fn wired(&mut self, id: ConnectionId, towards: Towards, bytes: Vec<u8>) {
        let Some(wire) = self.network.wires.get_mut(&id) else { return };
        let is_cut = self.network.cut.contains_key(&wire.path(towards));
        let way = wire.way(towards);
        if is_cut || !way.stalled.is_empty() {
            way.stalled.push_back(bytes);
            return;
        }
        self.come_out(id, towards, &bytes);
    }

    fn come_out(&mut self, id: ConnectionId, towards: Towards, bytes: &[u8]) {
        let Some(wire) = self.network.wires.get(&id) else { return };
        let (from, to, node) = (wire.from, wire.to, wire.node);
        match towards {
            Towards::There => self.handle(to, Event::Packets { from: id, bytes }),
            Towards::Back => self.handle(from, Event::Replies { from: node, bytes }),
        }
    }

    /// What got stuck on a wire comes out, if its path is there again.
    pub(super) fn flow(&mut self, id: ConnectionId, towards: Towards) {
        loop {
            let Some(wire) = self.network.wires.get_mut(&id) else { return };
            if self.network.cut.contains_key(&wire.path(towards)) {
                return;
            }
            let Some(bytes) = wire.way(towards).stalled.pop_front() else { return };
            self.come_out(id, towards, &bytes);
        }
    }

    /// A wire breaks: both ends hear of it when they can.
    pub(super) fn snap(&mut self, id: ConnectionId) {
        let Some(wire) = self.network.wires.remove(&id) else { return };
        let now = self.schedule.now();
        self.trace.note(
            now,
            format_args!("wire {} from node {} to {} ends", id.0, wire.from.0, wire.to.0),
        );
        let after = self.unheard();
        let unwired =
            Happening::Unwired { node: wire.from, to: wire.node, by: wire.to.0, wire: id };
        self.schedule.after(after, unwired);
        let after = self.unheard();
        let gone = Happening::Unheld { node: wire.to, by: wire.from.0, wire: id };
        self.schedule.after(after, gone);
    }

    /// How long it takes to hear that a wire is gone: mostly no time, now and then seconds.
    fn unheard(&mut self) -> u64 {
        let most = if self.chance.below(8) == 0 { 2_000_000 } else { 2_000 };
        self.chance.skewed(1, most)
    }

    /// Whoever made a wire hears that it is gone, unless nothing passes.
    pub(super) fn unwired(&mut self, from: (usize, u64), to: NodeId, by: usize, id: ConnectionId) {
        if self.network.is_cut((by, from.0)) {
            let unwired = Happening::Unwired { node: from, to, by, wire: id };
            return self.schedule.after(100_000, unwired);
        }
        let Some(process) = self.process(from) else { return };
        let Some(link) = process.links.get_mut(&to).filter(|link| link.wire == Some(id)) else {
            return;
        };
        link.wire = None;
        self.handle(from, Event::Link { node: to, is_up: false });
        let after = self.chance.skewed(1_000, 200_000);
        self.schedule.after(after, Happening::Dial { node: from, to });
    }

    /// Whoever took a wire hears that it is gone, unless nothing passes.
    pub(super) fn unheld(&mut self, to: (usize, u64), by: usize, id: ConnectionId) {
        if self.network.is_cut((by, to.0)) {
            let gone = Happening::Unheld { node: to, by, wire: id };
            return self.schedule.after(100_000, gone);
        }
        self.handle(to, Event::Closed(id));
    }

    /// A node closes a wire that another one made, once everything that it sent has arrived.
    pub(super) fn close_wire(&mut self, id: ConnectionId) {
        if let Some(wire) = self.network.wires.get(&id) {
            self.schedule.at(wire.back.last, Happening::Snap(id));
        }
    }

    /// A process is gone, and all its wires with it.
    pub(super) fn snap_all(&mut self, slot: usize) {
        for id in self.network.of(slot) {
            self.snap(id);
        }
    }

    /// Cuts a path, or mends it; what got stuck on it flows on.
    pub(super) fn cut(&mut self, path: (usize, usize), is_cut: bool) {
        count(&mut self.network.cut, path, is_cut);
        if self.network.is_cut(path) {
            return;
        }
        for id in self.network.along(path) {
            for towards in [Towards::There, Towards::Back] {
                let after = self.chance.skewed(1, 1_000);
                self.schedule.after(after, Happening::Flow { wire: id, towards });
            }
        }
    }
}

fn is_of_raft(body: &[u8]) -> bool {
    peer::open(body).is_ok_and(|(peer, _)| matches!(peer.said, Said::Raft(_)))
}
