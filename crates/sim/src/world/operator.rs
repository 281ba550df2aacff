//! Whoever looks after a cluster: has nodes join, leave and come back, and hands leadership over.
//!
//! He wants the directory to name exactly the nodes that there are. One thing at a time: a node is
//! wiped or told to leave only while the cluster is whole, since the promises cover the loss of a
//! minority.

use super::unsynced::Remains;
use super::{Happening, World, network};
use crate::history::Asked;
use crate::plan::Mode;
use crate::workload::keys;
use naust_node::Look;
use naust_wire::ask::Ask;
use naust_wire::control::Control;
use naust_wire::limits::REPLICAS_DEFAULT;
use naust_wire::{NodeId, ShardId};
use std::collections::BTreeSet;

/// Microseconds between two looks of the operator.
const LOOK_MICROS: u64 = 100_000;

impl World {
    /// The seat of the operator, if there is one.
    pub(super) fn operator(&self) -> Option<usize> {
        (self.members.len() > 1).then(|| self.seats.len() - 1)
    }

    /// He compares what is with what should be.
    pub(super) fn operate(&mut self) {
        self.schedule.after(LOOK_MICROS, Happening::Operate);
        self.sweep();
        self.look_at_wounds();
        let Some(seat) = self.operator().filter(|seat| self.seats[*seat].client.is_idle()) else {
            return;
        };
        let (missing, surplus) = (self.missing(), self.surplus());
        let controls = match (missing, surplus) {
            (Some(slot), surplus) if surplus.is_none() || self.chance.coin() => {
                let member = &self.members[slot];
                let (name, address) = (member.name(slot), network::address(slot));
                Control::SetNode { node: member.id, name, address }
            }
            (_, Some(node)) => Control::RemoveNode(node),
            _ => return,
        };
        self.seats[seat].client.errand(ShardId::DIRECTORY, Asked::Control(controls));
        self.wake(seat);
    }

    /// A node that left for good is wiped.
    fn sweep(&mut self) {
        for slot in 0..self.members.len() {
            let member = &self.members[slot];
            if member.leaves && !self.directory.nodes.contains_key(&member.id) {
                self.wipe(slot);
            }
        }
    }

    /// A node that the directory should name and does not. As long as it names nobody, whoever made
    /// the cluster is named with the first that joins.
    fn missing(&self) -> Option<usize> {
        let known = &self.directory.nodes;
        let missing = |slot: &usize| {
            let member = &self.members[*slot];
            let is_named = known.contains_key(&member.id) || (known.is_empty() && member.founder);
            !member.leaves && !is_named
        };
        (0..self.members.len()).find(missing)
    }

    /// A node that the directory names and should not.
    fn surplus(&self) -> Option<NodeId> {
        let wanted: BTreeSet<NodeId> =
            self.members.iter().filter(|member| !member.leaves).map(|member| member.id).collect();
        self.directory.nodes.keys().copied().find(|node| !wanted.contains(node))
    }

    /// The shards that there should be.
    pub(super) fn wanted_shards(&self) -> Vec<ShardId> {
        let named = self.directory.namespaces.values().map(|(shard, _)| *shard);
        [ShardId::DIRECTORY, ShardId(1)].into_iter().chain(named).collect()
    }

    /// A shard as the node in a slot has it, if it runs and has it.
    pub(super) fn look(&self, slot: usize, shard: ShardId) -> Option<Look> {
        self.members[slot].process.as_ref()?.node.look(shard)
    }

    /// Why the cluster is not whole, in a few words: `None`, if every shard has its leader and all
    /// its voters, they agree on who that is, and the directory names who is there.
    pub(super) fn is_short_of(&self) -> Option<String> {
        if let Some(slot) = self.members.iter().position(|member| member.leaves) {
            return Some(format!("the node in slot {slot} is about to leave"));
        }
        if let Some(slot) = self.missing() {
            return Some(format!("the directory does not name the node in slot {slot}"));
        }
        if let Some(node) = self.surplus() {
            return Some(format!("the directory still names node {node}"));
        }
        self.wanted_shards().into_iter().find_map(|shard| self.shard_is_short_of(shard))
    }

    fn shard_is_short_of(&self, shard: ShardId) -> Option<String> {
        let slots = 0..self.members.len();
        let looks: Vec<_> = slots.map(|slot| (slot, self.look(slot, shard))).collect();
        let leaders = looks.iter().filter_map(|(_, look)| look.as_ref()).filter(|look| look.leads);
        let Some(leader) = leaders.max_by_key(|look| look.term) else {
            return Some(format!("shard {shard} has no leader"));
        };
        let voters = leader.configuration.voters();
        let wanted = REPLICAS_DEFAULT.min(self.members.len());
        if voters.len() < wanted {
            return Some(format!("shard {shard} has the voters {voters:?} only"));
        }
        for node in leader.configuration.replicas() {
            let slot = self.members.iter().position(|member| member.id == node);
            let Some(slot) = slot else {
                return Some(format!("shard {shard} has a replica on node {node}, which is gone"));
            };
            match &looks[slot].1 {
                None => return Some(format!("shard {shard} is not open in slot {slot}")),
                Some(look) if look.configuration != leader.configuration => {
                    return Some(format!("slot {slot} has another configuration of {shard}"));
                }
                Some(_) => {}
            }
        }
        let everywhere = leader.configuration.replicas().len() == self.members.len();
        (shard == ShardId::DIRECTORY && !everywhere)
            .then(|| "not every node has a replica of the directory".to_owned())
    }

    /// A node loses all that it had, and comes back as a new one.
    pub(super) fn wipe(&mut self, slot: usize) {
        let now = self.schedule.now();
        let id = NodeId(self.chance.between(1, 1 << 40));
        let member = &mut self.members[slot];
        self.trace.note(now, format_args!("node {slot} is wiped; {} becomes {id}", member.id));
        member.disks.clear();
        member.journal = super::journal::disk(&member.sky);
        member.tables.clear();
        member.copied.clear();
        member.handed.clear();
        member.left = Remains::default();
        member.removed.clear();
        member.id = id;
        member.births += 1;
        member.founder = false;
        member.leaves = false;
        if member.process.is_some() {
            self.ends(slot);
        }
    }

    /// A node is wiped, if the cluster can bear that; beyond the promises also if it can't.
    pub(super) fn wipe_one(&mut self, slot: usize) {
        let bears = self.is_short_of().is_none() && self.wounds.is_empty();
        if bears {
            self.tally.fault("wiped node");
        } else if self.plan.mode == Mode::Beyond && self.chance.below(16) == 0 {
            self.tally.fault("wiped node that was needed");
            self.excuses.damage = true;
        } else {
            return;
        }
        self.wipe(slot);
    }

    /// A node is told to leave, if the cluster can bear that.
    pub(super) fn remove_one(&mut self, slot: usize) {
        if self.is_short_of().is_none() && self.wounds.is_empty() {
            self.tally.fault("removed node");
            let now = self.schedule.now();
            self.trace.note(now, format_args!("node {slot} is to leave"));
            self.members[slot].leaves = true;
        }
    }

    /// Someone asks for another leader.
    pub(super) fn transfer(&mut self, slot: usize) {
        let Some(seat) = self.operator().filter(|seat| self.seats[*seat].client.is_idle()) else {
            return;
        };
        self.tally.fault("hand-over of leadership");
        let namespace = keys::namespace(self.chance.below(self.plan.work.namespaces));
        let to = self.members[slot].id;
        let asked = Asked::Ask(Ask::Transfer { namespace, to });
        self.seats[seat].client.errand(ShardId::DIRECTORY, asked);
        self.wake(seat);
    }
}
