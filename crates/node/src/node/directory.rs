//! What this worker knows of the namespaces, and which of its own shards are not there yet.

use super::Node;
use super::closing::Closing;
use super::repair::Repair;
use crate::event::{ALWAYS, DirectoryChange, Told};
use crate::open::ForWorker;
use crate::repair::{Report, Trouble};
use crate::replies;
use crate::shard::{Shard, Then};
use crate::views::Waiter;
use crate::{ConnectionId, Effect, Now, views};
use naust_wire::options::NamespaceOptions;
use naust_wire::peer::Said;
use naust_wire::reply::{Failure, Reply};
use naust_wire::{Code, NodeId, Offset, ShardId};
use rustc_hash::FxHashMap;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

/// Milliseconds after which a repair counts as lasting.
const LASTS_MS: u64 = 10 * 60 * 1000;
/// Milliseconds between two tries to open a shard.
const RETRY_MS: u64 = 1000;
/// Milliseconds between two times that who sent a copy is told that it is taken in place.
const KEEP_MS: u64 = 1000;

/// The namespaces, as told by the views of shard 0.
#[derive(Default)]
pub(super) struct Directory {
    names: BTreeMap<String, (ShardId, NamespaceOptions)>,
    nodes: BTreeMap<NodeId, Member>,
    /// Those that are to be removed.
    pub(super) closing: Closing,
    /// Where the shards began that are not this worker's, or of which there is nothing here.
    holders: FxHashMap<ShardId, Vec<NodeId>>,
    /// Numbers below were given away to namespaces; zero: that is not known yet.
    next: ShardId,
    /// All is known that it held at this moment, by the monotonic clock.
    current_ms: Option<u64>,
    /// This node is no part of the cluster any more.
    pub(super) is_removed: bool,
    /// The options of shards that came by invitation: their names may not be known here yet.
    invited: FxHashMap<ShardId, NamespaceOptions>,
    /// Shards of this worker that are being opened, or could not be.
    absent: FxHashMap<ShardId, Absent>,
    /// Shards that were closed for repair: how often in a row, and when they were whole again.
    rebuilt: FxHashMap<ShardId, (u32, u64)>,
}

/// A node, as the directory has it.
pub(super) struct Member {
    pub(super) name: String,
    pub(super) address: String,
}

#[derive(Default)]
pub(super) struct Absent {
    /// Who waits for it to be there: for its shard, or for the news that it was made.
    waiting: Vec<(Waiter, Option<Told>)>,
    pub(super) options: NamespaceOptions,
    /// What its log begins with, if there is none.
    begin: Option<Vec<u8>>,
    /// It campaigns as soon as it is there.
    leads_first: bool,
    /// It is taking the place of another; who is told so, and of which transfer.
    pub(super) replaced_by: Option<(NodeId, u64)>,
    /// When that one is told next that this goes on.
    keep_ms: u64,
    /// Why it could not be opened.
    pub(super) failure: Option<Failure>,
    /// It is damaged, and nobody who may help was known when that was found.
    pub(super) trouble: Option<Box<Trouble>>,
    /// What is done about that with the help of others.
    pub(super) repair: Option<Box<Repair>>,
    /// How often it was closed for repair, in a row.
    pub(super) repairs: u32,
    /// What its views had folded in, and may have shown, before they were closed.
    pub(super) shown: Offset,
    /// When to try again.
    retry_ms: Option<u64>,
    /// It was deleted while it was being opened.
    is_deleted: bool,
}

impl Absent {
    fn is_corrupt(&self) -> bool {
        self.failure.as_ref().is_some_and(|failure| failure.code == Code::Corrupt)
    }
}

impl Directory {
    pub(super) fn get(&self, name: &str) -> Option<(ShardId, &NamespaceOptions)> {
        self.names.get(name).map(|(shard, options)| (*shard, options))
    }

    /// Whether the views of shard 0 have told all that there is.
    pub(super) fn is_known(&self) -> bool {
        self.names.contains_key(ALWAYS)
    }

    /// The namespaces in the order of their names, from this one on.
    pub(super) fn from(
        &self,
        name: &str,
    ) -> impl Iterator<Item = (&String, ShardId, &NamespaceOptions)> {
        let names = self.names.range::<str, _>((Bound::Included(name), Bound::Unbounded));
        names.map(|(name, (shard, options))| (name, *shard, options))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&String, ShardId, &NamespaceOptions)> {
        self.names.iter().map(|(name, (shard, options))| (name, *shard, options))
    }

    /// A shard of this worker is to be opened.
    pub(super) fn opens(
        &mut self,
        shard: ShardId,
        options: NamespaceOptions,
        begin: Option<Vec<u8>>,
        effects: &mut Vec<Effect>,
    ) {
        let absent = Absent { options, begin: begin.clone(), ..Absent::default() };
        self.absent.insert(shard, absent);
        effects.push(Effect::Open { shard, options, begin });
    }

    /// A leader wants a replica of a shard here.
    pub(super) fn invited(
        &mut self,
        shard: ShardId,
        options: NamespaceOptions,
        configuration: Vec<u8>,
        effects: &mut Vec<Effect>,
    ) {
        // Of a namespace that is deleted, as a leader does not know yet. What is not known here
        // either may be among what is removed as left over as soon as it is; it is asked again.
        let is_named = || self.names.values().any(|(named, _)| *named == shard);
        let is_new = self.next > ShardId(0) && shard >= self.next;
        let may_be = shard == ShardId::DIRECTORY || is_new || is_named();
        if may_be && !self.absent.contains_key(&shard) {
            self.invited.insert(shard, options);
            self.opens(shard, options, Some(configuration), effects);
        }
    }

    /// Whether all is known that it held at a moment of the monotonic clock.
    pub(super) fn is_current(&self, at_ms: u64) -> bool {
        self.current_ms.is_some_and(|current_ms| current_ms >= at_ms)
    }

    /// All nodes, in the order of their ids.
    pub(super) fn nodes(&self) -> impl Iterator<Item = (NodeId, &Member)> {
        self.nodes.iter().map(|(node, member)| (*node, member))
    }

    pub(super) fn node(&self, node: NodeId) -> Option<&Member> {
        self.nodes.get(&node)
    }

    /// The nodes that may have a replica of a shard of which there is nothing here.
    pub(super) fn holders(&self, shard: ShardId) -> &[NodeId] {
        self.holders.get(&shard).map_or(&[], Vec::as_slice)
    }

    /// The options of a shard's namespace.
    pub(super) fn options(&self, shard: ShardId) -> NamespaceOptions {
        let of = self.names.values().find(|(other, _)| *other == shard);
        let known = of.map(|(_, options)| options).or_else(|| self.invited.get(&shard));
        known.copied().unwrap_or_default()
    }

    /// A shard of this worker that is being opened, or could not be.
    pub(super) fn absent_mut(&mut self, shard: ShardId) -> Option<&mut Absent> {
        self.absent.get_mut(&shard)
    }

    /// Shards that are closed for repair.
    pub(super) fn in_repair(&mut self) -> impl Iterator<Item = (ShardId, &mut Repair)> {
        let all = self.absent.iter_mut();
        all.filter_map(|(id, absent)| absent.repair.as_deref_mut().map(|repair| (*id, repair)))
    }

    /// Damaged shards for which nobody was known who may help.
    pub(super) fn without_help(&mut self) -> Vec<(ShardId, Box<Trouble>)> {
        let all = self.absent.iter_mut();
        all.filter_map(|(id, absent)| Some((*id, absent.trouble.take()?))).collect()
    }

    /// Whether a shard was closed for repair, and is not open yet.
    pub(super) fn is_in_repair(&self, shard: ShardId) -> bool {
        self.absent.get(&shard).is_some_and(|absent| absent.repairs > 0)
    }

    /// A closed shard is being opened again.
    pub(super) fn opens_again(&mut self, shard: ShardId) {
        if let Some(absent) = self.absent.get_mut(&shard) {
            (absent.failure, absent.trouble, absent.repair) = (None, None, None);
        }
    }

    /// A shard of this worker is closed, for good or for repair.
    pub(super) fn fails(
        &mut self,
        now: Now,
        shard: ShardId,
        (failure, is_helped): (Failure, bool),
        shown: Offset,
    ) {
        let options = self.options(shard);
        let before = self.rebuilt.get(&shard);
        let before = before.filter(|(_, at_ms)| now.monotonic_ms < at_ms + LASTS_MS);
        let repairs = if is_helped { 1 + before.map_or(0, |(repairs, _)| *repairs) } else { 0 };
        let failure = Some(failure);
        let absent = Absent { options, failure, repairs, shown, ..Absent::default() };
        self.absent.insert(shard, absent);
    }

    /// A replica is being replaced by what was copied from a node.
    pub(super) fn is_replaced(
        &mut self,
        shard: ShardId,
        options: NamespaceOptions,
        by: (NodeId, u64),
        shown: Offset,
    ) {
        let absent = Absent { options, replaced_by: Some(by), shown, ..Absent::default() };
        self.absent.insert(shard, absent);
    }

    pub(super) fn is_opening(&self, shard: ShardId) -> bool {
        self.absent.get(&shard).is_some_and(|absent| absent.failure.is_none())
    }

    /// Whether a shard of this worker is being opened, or could not be.
    pub(super) fn is_absent(&self, shard: ShardId) -> bool {
        self.absent.contains_key(&shard)
    }

    /// Whether a shard was removed with its namespace: numbers are never used again.
    pub(super) fn is_gone(&self, shard: ShardId) -> bool {
        shard != ShardId::DIRECTORY && shard < self.next && !self.holders.contains_key(&shard)
    }

    /// Whether a shard of this worker is damaged beyond what can be mended here.
    pub(super) fn is_corrupt(&self, shard: ShardId) -> bool {
        self.absent.get(&shard).is_some_and(Absent::is_corrupt)
    }

    /// Whether anybody waits for a shard that is being opened.
    pub(super) fn has_waiting(&self) -> bool {
        self.absent.values().any(|absent| !absent.waiting.is_empty())
    }

    /// Someone waits for a shard that is being opened.
    pub(super) fn wait(&mut self, shard: ShardId, waiter: Waiter) {
        if let Some(absent) = self.absent.get_mut(&shard) {
            absent.waiting.push((waiter, None));
        }
    }

    /// Why a shard can't be asked that is not here.
    pub(super) fn absent(&self, shard: ShardId) -> Failure {
        match self.absent.get(&shard) {
            Some(Absent { failure: Some(failure), repairs: 1.., .. }) => {
                let detail =
                    format!("this node's replica waits for another one's help: {}", failure.detail);
                Failure::new(Code::Unavailable, detail)
            }
            Some(Absent { failure: Some(failure), .. }) => failure.clone(),
            Some(_) => Failure::new(Code::Unavailable, "the namespace is being opened; try again"),
            None if self.holders.contains_key(&shard) => {
                let detail = "no node that has the namespace can be reached; try again";
                Failure::new(Code::Unavailable, detail)
            }
            None if self.is_known() => {
                Failure::new(Code::NamespaceNotFound, format!("there is no shard {shard}"))
            }
            None => Failure::new(Code::Unavailable, "the node is starting; try again"),
        }
    }

    /// Forgets a connection that is gone; how many requests that were counted.
    pub(super) fn forget(&mut self, gone: ConnectionId) -> usize {
        let mut counted = 0;
        for absent in self.absent.values_mut() {
            absent.waiting.retain(|(waiter, told)| {
                let is_gone = waiter.connection == gone;
                counted += usize::from(is_gone && told.is_none());
                !is_gone
            });
        }
        counted
    }
}

impl Node {
    pub(super) fn opened(&mut self, now: Now, opened: ForWorker, effects: &mut Vec<Effect>) {
        let id = opened.shard;
        let Some(absent) = self.directory.absent.remove(&id) else { return };
        if absent.is_deleted {
            effects.push(Effect::Remove(id));
            return;
        }
        for (node, address) in &opened.addresses {
            self.peers.learn(*node, address, effects);
        }
        if opened.footers > 0 {
            effects.push(Effect::Report { shard: id, report: Report::Footers(opened.footers) });
        }
        let mut shard = Box::new(Shard::new(opened, now));
        shard.set_pace(&self.config.pace);
        shard.set_durability(absent.options.durability);
        shard.end.is_wanted = self.is_ended_here(id);
        if !shard.is_alone() {
            shard.keep_what_is_left(now);
        }
        if absent.repairs > 0 {
            self.directory.rebuilt.insert(id, (absent.repairs, now.monotonic_ms));
            effects.push(Effect::Report { shard: id, report: Report::Rebuilt });
        }
        shard.waiting.show_from(absent.shown);
        if absent.leads_first && shard.is_fresh() {
            shard.campaign();
        }
        if let Some((node, transfer)) = absent.replaced_by {
            if absent.repairs == 0 {
                effects.push(Effect::Report { shard: id, report: Report::Copied });
            }
            let ok = true;
            self.peers.say(id, node, Said::Installed { transfer, ok });
        }
        Node::touch(&mut self.touched, &mut shard);
        shard.count_bytes(&mut self.unapplied_bytes);
        self.shards.insert(id, shard);
        for (waiter, told) in absent.waiting {
            let reply = match told {
                Some(told) => Reply::Done(told.offset),
                None => Reply::Resolved { shard: id, leader: self.config.node },
            };
            self.tell(waiter, told, id, &reply, effects);
        }
    }

    /// There is nothing of a shard here: others have it.
    pub(super) fn not_here(&mut self, id: ShardId, effects: &mut Vec<Effect>) {
        let Some(absent) = self.directory.absent.remove(&id) else { return };
        for (waiter, told) in absent.waiting {
            let reply = match told {
                Some(told) => Reply::Done(told.offset),
                None => Reply::Resolved { shard: id, leader: NodeId(0) },
            };
            self.tell(waiter, told, id, &reply, effects);
        }
    }

    pub(super) fn not_opened(
        &mut self,
        now: Now,
        id: ShardId,
        failure: Failure,
        trouble: Option<Box<Trouble>>,
        effects: &mut Vec<Effect>,
    ) {
        let Some(absent) = self.directory.absent.get_mut(&id) else { return };
        if absent.is_deleted {
            self.directory.absent.remove(&id);
            effects.push(Effect::Remove(id));
            return;
        }
        // Space and descriptors may come back; damage stays.
        absent.retry_ms = (failure.code != Code::Corrupt).then_some(now.monotonic_ms + RETRY_MS);
        absent.failure = Some(failure.clone());
        for (waiter, told) in std::mem::take(&mut absent.waiting) {
            let reply = match told {
                // It was made; that it can't be used is told to who uses it.
                Some(told) => Reply::Done(told.offset),
                None => Reply::Error(failure.clone()),
            };
            self.tell(waiter, told, id, &reply, effects);
        }
        if let Some(trouble) = trouble {
            self.repair(now, id, trouble, effects);
        }
    }

    /// Tries again to open shards that lacked space or descriptors.
    pub(super) fn open_again(&mut self, now: Now, effects: &mut Vec<Effect>) {
        for (shard, absent) in &mut self.directory.absent {
            if absent.retry_ms.take_if(|at| *at <= now.monotonic_ms).is_some() {
                let begin = absent.begin.clone();
                effects.push(Effect::Open { shard: *shard, options: absent.options, begin });
            }
        }
    }

    /// Those who sent what takes the place of a shard are told that this goes on.
    pub(super) fn keep_transfers(&mut self, now: Now) {
        let Node { directory, peers, .. } = self;
        let in_place = directory.absent.iter_mut().filter(|(_, absent)| absent.failure.is_none());
        for (shard, absent) in in_place.filter(|(_, absent)| absent.keep_ms <= now.monotonic_ms) {
            if let Some((node, transfer)) = absent.replaced_by {
                absent.keep_ms = now.monotonic_ms + KEEP_MS;
                peers.say(*shard, node, Said::Keep { transfer });
            }
        }
    }

    /// Answers who waited for a shard. Who made it was counted as a request of shard 0.
    fn tell(
        &mut self,
        waiter: Waiter,
        told: Option<Told>,
        shard: ShardId,
        reply: &Reply,
        effects: &mut Vec<Effect>,
    ) {
        let shard = if told.is_some() { ShardId::DIRECTORY } else { shard };
        replies::send(waiter.connection, waiter.request, shard, reply, effects);
        if told.is_none() {
            self.connections.end(waiter.connection, 1, effects);
        }
    }

    pub(super) fn directory_changed(
        &mut self,
        now: Now,
        change: DirectoryChange,
        effects: &mut Vec<Effect>,
    ) {
        match change {
            DirectoryChange::Created { name, shard, options, replicas, told } => {
                let leads_first = self.leads_first(&name, shard, &replicas);
                let begin = self.begin(&replicas);
                self.directory.holders.insert(shard, replicas);
                self.directory.names.insert(name, (shard, options));
                // Numbers are given out one by one. A copy of the directory tells those it has in
                // the order of their names, and the next number last.
                if self.directory.next > ShardId(0) && shard == self.directory.next {
                    self.directory.next = ShardId(shard.0 + 1);
                }
                if !self.owns(shard) {
                    return;
                }
                let waiting: Vec<_> =
                    told.map(|told| (told.waiter, Some(told))).into_iter().collect();
                if self.shards.contains_key(&shard) {
                    // A leader's invitation was faster.
                    for (waiter, told) in waiting {
                        let reply =
                            told.map_or(Reply::Done(Offset::ZERO), |t| Reply::Done(t.offset));
                        self.tell(waiter, told, shard, &reply, effects);
                    }
                    return;
                }
                if let Some(absent) = self.directory.absent.get_mut(&shard) {
                    return absent.waiting.extend(waiting);
                }
                self.directory.opens(shard, options, begin, effects);
                let absent = self.directory.absent.get_mut(&shard).expect("it was just put there");
                absent.waiting = waiting;
                absent.leads_first = leads_first;
            }
            DirectoryChange::Known { next } => self.known(next, effects),
            DirectoryChange::Current(ask) if ask.worker == self.config.worker => {
                self.directory.current_ms = self.directory.current_ms.max(Some(ask.asked_ms));
            }
            DirectoryChange::Current(_) => {}
            DirectoryChange::Closing { shard, told } => self.closes(now, shard, told, effects),
            DirectoryChange::Deleted { name, shard, told } => {
                self.closed_for_good(shard, effects);
                self.directory.names.remove(&name);
                self.directory.holders.remove(&shard);
                self.directory.invited.remove(&shard);
                self.directory.rebuilt.remove(&shard);
                if !self.owns(shard) {
                    return;
                }
                self.delete(shard, effects);
                if let Some(told) = told {
                    self.tell(told.waiter, Some(told), shard, &Reply::Done(told.offset), effects);
                }
            }
            DirectoryChange::NodeSet { node, name, address, told } => {
                self.peers.learn(node, &address, effects);
                self.peers.leaves(node, false);
                self.directory.is_removed &= node != self.config.node;
                self.directory.nodes.insert(node, Member { name, address });
                self.tell_of_node(told, effects);
            }
            DirectoryChange::NodeRemoved { node, told } => {
                self.directory.nodes.remove(&node);
                self.directory.is_removed |= node == self.config.node;
                self.peers.leaves(node, true);
                self.tell_of_node(told, effects);
            }
        }
    }

    /// All names are known, and that no others have numbers below `next`.
    fn known(&mut self, next: ShardId, effects: &mut Vec<Effect>) {
        let before = std::mem::replace(&mut self.directory.next, next);
        let named: BTreeSet<ShardId> = self.directory.iter().map(|(_, shard, _)| shard).collect();
        // What came by invitation, and was made and removed before a later copy of the directory
        // was told: of neither there was news.
        let here = self.shards.keys().chain(self.directory.absent.keys()).copied();
        let is_gone = |id: &ShardId| *id != ShardId::DIRECTORY && *id < next && !named.contains(id);
        let mut gone: Vec<ShardId> = here.filter(is_gone).collect();
        gone.sort_unstable();
        for id in gone {
            self.directory.invited.remove(&id);
            self.delete(id, effects);
        }
        // A crash between a deletion and the removal of its files leaves them behind. Of what a
        // later copy of the directory lacks, the shard is still open, and closed.
        if self.owns(ShardId::DIRECTORY) && before == ShardId(0) {
            effects.push(Effect::Sweep { below: next, kept: named });
        }
    }

    /// Who changed the nodes is told by the worker that has the directory.
    fn tell_of_node(&mut self, told: Option<Told>, effects: &mut Vec<Effect>) {
        if let Some(told) = told
            && self.owns(ShardId::DIRECTORY)
        {
            let reply = Reply::Done(told.offset);
            self.tell(told.waiter, Some(told), ShardId::DIRECTORY, &reply, effects);
        }
    }

    fn delete(&mut self, id: ShardId, effects: &mut Vec<Effect>) {
        if let Some(absent) = self.directory.absent.get_mut(&id) {
            let gone = Failure::new(Code::NamespaceNotFound, "the namespace was deleted");
            // Unless it is just being tried again.
            if absent.failure.is_some() && (absent.retry_ms.is_some() || absent.is_corrupt()) {
                self.directory.absent.remove(&id);
                match self.leaving.get_mut(&id) {
                    Some(shard) => shard.then = Then::Remove,
                    None => effects.push(Effect::Remove(id)),
                }
                return;
            }
            absent.is_deleted = true;
            for (waiter, told) in std::mem::take(&mut absent.waiting) {
                let reply =
                    told.map_or(Reply::Error(gone.clone()), |told| Reply::Done(told.offset));
                self.tell(waiter, told, id, &reply, effects);
            }
            return;
        }
        let Some(mut shard) = self.take_out(id) else { return };
        shard.leave(effects);
        self.let_go(&mut shard, effects);
        effects.push(Effect::Views { shard: id, job: views::Job::EndPolls });
        self.leaving.insert(id, shard);
        self.remove_when_unused(id, effects);
        // It will not say that it has flushed.
        self.flushed(id, effects);
    }

    /// A shard is not asked for anything any more.
    pub(super) fn take_out(&mut self, id: ShardId) -> Option<Box<Shard>> {
        let mut shard = self.shards.remove(&id)?;
        shard.timer_ms.map(|at| self.timers.remove(&(at, id)));
        shard.forget_bytes(&mut self.unapplied_bytes);
        shard.forget_transfers(&mut self.peers.transfers);
        Some(shard)
    }

    /// Whom a shard that was taken out has answered, and whom it held up, is done with.
    pub(super) fn let_go(&mut self, shard: &mut Shard, effects: &mut Vec<Effect>) {
        shard.end_transfers(effects);
        for id in shard.answered.drain(..) {
            self.connections.end(id, 1, effects);
        }
        for id in std::mem::take(&mut shard.held) {
            self.connections.let_go(id, effects);
        }
    }

    /// A deleted or failed shard goes when no thread of the shell works on it and the views have
    /// answered all that they were given.
    pub(super) fn remove_when_unused(&mut self, id: ShardId, effects: &mut Vec<Effect>) {
        let leaving = self.leaving.get(&id);
        if leaving.is_some_and(|shard| !shard.is_in_use() && shard.has_views_done()) {
            let shard = self.leaving.get_mut(&id).expect("it was just seen");
            if !matches!(shard.then, Then::Remove) && shard.sync_last(effects) {
                return;
            }
            let Some(mut shard) = self.leaving.remove(&id) else { return };
            match std::mem::replace(&mut shard.then, Then::Remove) {
                Then::Remove => effects.push(Effect::Remove(id)),
                Then::Stay => effects.push(Effect::Shut(id)),
                Then::Reopen(options) => {
                    self.directory.opens_again(id);
                    effects.push(Effect::Shut(id));
                    effects.push(Effect::Open { shard: id, options, begin: None });
                }
                Then::Refold(options) => {
                    self.directory.opens_again(id);
                    effects.push(Effect::Refold { shard: id, options });
                }
                Then::Adopt(adopt, options) => {
                    effects.push(Effect::Adopt { shard: id, options, adopt });
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Event;
    use crate::node::alone;

    fn known(next: u32) -> Event<'static> {
        Event::Directory(DirectoryChange::Known { next: ShardId(next) })
    }

    /// Why: a copy of the directory is told by name. What it holds under a low number must not
    /// count as removed because one with a higher number was told before it.
    #[test]
    fn what_a_copy_of_the_directory_is_yet_to_tell_is_not_gone() {
        let (mut node, now, mut effects) = (alone::node(), Now::default(), Vec::new());
        let created = |name: &str, shard| {
            Event::Directory(DirectoryChange::Created {
                name: name.to_owned(),
                shard: ShardId(shard),
                options: NamespaceOptions::default(),
                replicas: Vec::new(),
                told: None,
            })
        };
        node.handle(now, created("a", 4), &mut effects);
        node.handle(now, known(5), &mut effects);
        assert!(node.directory.is_gone(ShardId(3)) && !node.directory.is_gone(ShardId(4)));
        for (name, shard) in [("b", 9), ("c", 6)] {
            assert!(!node.directory.is_gone(ShardId(shard)));
            node.handle(now, created(name, shard), &mut effects);
            assert!(!node.directory.is_gone(ShardId(shard)));
        }
        node.handle(now, known(10), &mut effects);
        assert!(node.directory.is_gone(ShardId(8)) && !node.directory.is_gone(ShardId(6)));
        // From then on they are given out one by one.
        node.handle(now, created("d", 10), &mut effects);
        let (name, shard, told) = ("d".to_owned(), ShardId(10), None);
        let gone = DirectoryChange::Deleted { name, shard, told };
        node.handle(now, Event::Directory(gone), &mut effects);
        assert!(node.directory.is_gone(ShardId(10)));
    }

    /// Why: of a namespace that was made and removed between two copies of the directory neither
    /// tells. A replica that came by invitation meanwhile stayed for ever.
    #[test]
    fn what_came_by_invitation_goes_if_a_later_copy_of_the_directory_does_not_name_it() {
        let (mut node, now, mut effects) = (alone::node(), Now::default(), Vec::new());
        let (options, configuration) = (NamespaceOptions::default(), vec![1]);
        let (open, opening, stays) = (ShardId(8), ShardId(9), ShardId(10));
        node.directory.invited(open, options, configuration.clone(), &mut effects);
        assert!(!node.directory.is_absent(open), "what was removed is not known");
        node.handle(now, known(8), &mut effects);
        for shard in [open, opening, stays] {
            node.directory.invited(shard, options, configuration.clone(), &mut effects);
        }
        node.handle(now, Event::Opened(Box::new(alone::opened(open))), &mut effects);
        effects.clear();
        node.handle(now, known(10), &mut effects);
        node.handle(now, Event::Opened(Box::new(alone::opened(opening))), &mut effects);
        node.handle(now, Event::Opened(Box::new(alone::opened(stays))), &mut effects);
        let removed: Vec<ShardId> = effects
            .iter()
            .filter_map(|effect| match effect {
                Effect::Remove(shard) => Some(*shard),
                _ => None,
            })
            .collect();
        assert_eq!(removed, [open, opening]);
        assert!(node.shards.contains_key(&stays));
    }
}
