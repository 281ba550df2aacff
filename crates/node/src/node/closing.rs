//! Namespaces that are to be removed: first their shards are closed, then they go.
//!
//! ```text
//!  client             CloseNamespace ─► log of shard 0 ─► every node            Closing
//!  its other replicas remind its leader, which may not have heard of it         Said::End
//!  leader of it       Close ─► its own log; whatever lies behind is refused     Progress::closed
//!  each replica       that has folded that in tells the leader of shard 0       Said::Closed
//!  leader of shard 0  ForgetNamespace ─► log of shard 0 ─► every node           Deleted
//! ```
//! So nothing is acknowledged that goes with the namespace unless it was there before its end, and
//! nothing is read after it, on whichever side of a division a client is. Each step is taken again
//! until the next one is seen to be done, and changes nothing when it is taken twice. Without a
//! quorum of the shard the removal waits; `DeleteNamespace` does not.

use super::cluster::PLACE_MS;
use super::{Life, Node};
use crate::event::Told;
use crate::shard::Busy;
use crate::views::Waiter;
use crate::{ConnectionId, Effect, Now, replies};
use naust_wire::control::Control;
use naust_wire::frame::Kind;
use naust_wire::limits::{REMOVAL_WAIT_MS, REMOVAL_WAITERS_MAX};
use naust_wire::peer::Said;
use naust_wire::reply::{Failure, Reply};
use naust_wire::{Code, ShardId};
use std::collections::BTreeMap;
use std::ops::Bound;

/// Removals that are tried again at once: many may wait while the directory has no quorum.
const PRESSED_MAX: usize = 256;

/// Shards whose namespaces are to be removed.
#[derive(Default)]
pub(super) struct Closing {
    shards: BTreeMap<ShardId, Removal>,
    /// Up to here they were tried again last.
    pressed: ShardId,
}

#[derive(Default)]
struct Removal {
    /// Who is to be told when it is done, and when that was long enough, by the monotonic clock.
    /// Counted as requests; of the worker of shard 0 only.
    waiting: Vec<(Told, u64)>,
    /// When it may be proposed again to forget the namespace.
    again_ms: u64,
}

impl Closing {
    pub(super) fn contains(&self, shard: ShardId) -> bool {
        self.shards.contains_key(&shard)
    }

    /// Forgets a connection that is gone; how many requests it had here.
    pub(super) fn forget(&mut self, gone: ConnectionId) -> usize {
        let mut forgotten = 0;
        for removal in self.shards.values_mut() {
            let before = removal.waiting.len();
            removal.waiting.retain(|(told, _)| told.waiter.connection != gone);
            forgotten += before - removal.waiting.len();
        }
        forgotten
    }
}

impl Node {
    /// A namespace is to be removed.
    pub(super) fn closes(
        &mut self,
        now: Now,
        shard: ShardId,
        told: Option<Told>,
        effects: &mut Vec<Effect>,
    ) {
        self.directory.closing.shards.entry(shard).or_default();
        let is_wanted = self.is_ended_here(shard);
        if let Some(open) = self.shards.get_mut(&shard) {
            open.end.is_wanted = is_wanted;
        }
        self.press(shard, effects);
        let has_directory = self.owns(ShardId::DIRECTORY);
        if let Some(told) = told.filter(|_| has_directory) {
            self.wait_for_removal(now, shard, told, effects);
        }
    }

    /// Whether this node may propose the end of a shard. One that ends itself proposes nothing.
    pub(super) fn is_ended_here(&self, shard: ShardId) -> bool {
        self.life == Life::Serving && self.directory.closing.contains(shard)
    }

    fn wait_for_removal(
        &mut self,
        now: Now,
        shard: ShardId,
        told: Told,
        effects: &mut Vec<Effect>,
    ) {
        let connection = told.waiter.connection;
        let removal = self.directory.closing.shards.get_mut(&shard);
        let Some(removal) = removal.filter(|_| self.connections.is_known(connection)) else {
            return;
        };
        if removal.waiting.len() >= REMOVAL_WAITERS_MAX || self.life != Life::Serving {
            return unfinished(told.waiter, effects);
        }
        removal.waiting.push((told, now.monotonic_ms + REMOVAL_WAIT_MS));
        self.connections.begin(connection, effects);
    }

    /// It is removed.
    pub(super) fn closed_for_good(&mut self, shard: ShardId, effects: &mut Vec<Effect>) {
        let Some(removal) = self.directory.closing.shards.remove(&shard) else { return };
        for (Told { waiter, offset }, _) in removal.waiting {
            let (connection, reply) = (waiter.connection, Reply::Done(offset));
            replies::send(connection, waiter.request, ShardId::DIRECTORY, &reply, effects);
            self.connections.end(connection, 1, effects);
        }
    }

    /// What is to be closed here is tried again, and what is closed is told again.
    pub(super) fn press_closing(&mut self, effects: &mut Vec<Effect>) {
        let Closing { shards, pressed } = &mut self.directory.closing;
        let behind = (Bound::Excluded(*pressed), Bound::Unbounded);
        let some = shards.range(behind).map(|(shard, _)| *shard).take(PRESSED_MAX);
        let some: Vec<ShardId> = some.collect();
        // Then from the first again.
        *pressed = some.last().copied().filter(|_| some.len() == PRESSED_MAX).unwrap_or_default();
        some.into_iter().for_each(|shard| self.press(shard, effects));
    }

    fn press(&mut self, id: ShardId, effects: &mut Vec<Effect>) {
        let own = self.config.node;
        let Some(shard) = self.shards.get_mut(&id) else {
            // Nobody else has it, and nothing opens it again.
            let is_alone = self.directory.nodes().all(|(node, _)| node == own);
            if is_alone && self.directory.is_corrupt(id) && !self.is_helped(id) {
                effects.push(Effect::ShardClosed(id));
            }
            return;
        };
        if shard.has_ended() {
            return effects.push(Effect::ShardClosed(id));
        }
        // Who leads it may not have heard of it, or lead no more while all sleep.
        if let Some(leader) = shard.replica.leader().filter(|node| *node != own) {
            shard.wake();
            self.peers.say(id, leader, Said::End);
        }
        Node::touch(&mut self.touched, shard);
    }

    /// A replica says to this one, which leads its shard, that the namespace is to be removed.
    pub(super) fn end_is_wanted(&mut self, id: ShardId) {
        let is_serving = self.life == Life::Serving;
        if let Some(shard) = self.shards.get_mut(&id).filter(|_| is_serving) {
            shard.end.is_wanted = true;
            Node::touch(&mut self.touched, shard);
        }
    }

    /// A shard is closed: whoever leads the directory has its namespace removed. The worker of
    /// shard 0 only.
    pub(super) fn shard_closed(&mut self, now: Now, shard: ShardId) {
        if self.life != Life::Serving {
            return;
        }
        let Node { directory, shards, peers, touched, .. } = self;
        // It is gone, or that it is to go is not known here yet: then it is said again.
        let Some(removal) = directory.closing.shards.get_mut(&shard) else { return };
        let Some(own) = shards.get_mut(&ShardId::DIRECTORY) else { return };
        match own.admit() {
            Ok(()) if removal.again_ms <= now.monotonic_ms => {
                removal.again_ms = now.monotonic_ms + PLACE_MS;
                let mut body = Vec::new();
                Control::ForgetNamespace(shard).encode(&mut body);
                own.stage(Kind::Control, &body, Waiter::NOBODY, now);
            }
            Err(Busy::NotLeader(Some(leader))) => {
                own.wake();
                peers.say(ShardId::DIRECTORY, leader, Said::Closed(shard));
            }
            Ok(()) | Err(_) => {}
        }
        Node::touch(touched, own);
    }

    /// Who has waited long enough for a removal is told so.
    pub(super) fn give_up_closing(&mut self, now: Now, effects: &mut Vec<Effect>) {
        let connections = &mut self.connections;
        for removal in self.directory.closing.shards.values_mut() {
            for (told, _) in removal.waiting.extract_if(.., |(_, at)| *at <= now.monotonic_ms) {
                unfinished(told.waiter, effects);
                connections.end(told.waiter.connection, 1, effects);
            }
        }
    }

    /// The node ends: nobody waits here for a removal any more.
    pub(super) fn stop_closing(&mut self, effects: &mut Vec<Effect>) {
        self.give_up_closing(Now { monotonic_ms: u64::MAX, wall_ms: 0 }, effects);
        self.shards.values_mut().for_each(|shard| shard.end.is_wanted = false);
    }
}

fn unfinished(waiter: Waiter, effects: &mut Vec<Effect>) {
    let detail = "the namespace is still being removed: that is done as soon as its replicas can \
                  agree on its end, for which a quorum of them and some space for its log is \
                  needed; to remove it without, whatever they acknowledge meanwhile, force it";
    let failure = Failure::new(Code::Interrupted, detail);
    replies::fail(waiter.connection, waiter.request, ShardId::DIRECTORY, failure, effects);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::DirectoryChange;
    use crate::node::alone;
    use crate::{Event, Node};
    use naust_wire::options::NamespaceOptions;
    use naust_wire::{RequestId, packet};

    const SHOP: ShardId = ShardId(8);

    /// A node with a directory and one more namespace.
    fn node(effects: &mut Vec<Effect>) -> Node {
        let (mut node, now) = (alone::node(), Now::default());
        for shard in [ShardId::DIRECTORY, SHOP] {
            node.directory.opens(shard, NamespaceOptions::default(), None, effects);
            node.handle(now, Event::Opened(Box::new(alone::opened(shard))), effects);
        }
        node.flush(now, effects);
        effects.clear();
        node
    }

    fn closing(connection: u64) -> Event<'static> {
        let (connection, request) = (ConnectionId(connection), RequestId(1));
        let told = Told { waiter: Waiter { connection, request }, offset: naust_wire::Offset(70) };
        Event::Directory(DirectoryChange::Closing { shard: SHOP, told: Some(told) })
    }

    /// How many packets were sent.
    fn sent(effects: &mut Vec<Effect>) -> usize {
        let mut count = 0;
        for effect in effects.drain(..) {
            let Effect::Send { bytes, .. } = effect else { continue };
            let mut at = 0;
            while let Ok(Some((_, length))) = packet::read(&bytes[at..]) {
                (at, count) = (at + length, count + 1);
            }
        }
        count
    }

    /// Why: who waits is a request under way, and those have a bound, an end, and are forgotten
    /// with their connections.
    #[test]
    fn who_waits_for_a_removal_is_counted_told_and_forgotten() {
        let (mut effects, now) = (Vec::new(), Now::default());
        let mut node = node(&mut effects);
        node.handle(now, closing(5), &mut effects);
        assert_eq!(node.requests(), 0, "it is gone already");
        for connection in [5, 6] {
            node.connections.greet(ConnectionId(connection));
            node.handle(now, closing(connection), &mut effects);
        }
        assert_eq!(node.requests(), 2);
        node.handle(now, Event::Closed(ConnectionId(6)), &mut effects);
        assert_eq!((node.requests(), sent(&mut effects)), (1, 0));
        for _ in 1..REMOVAL_WAITERS_MAX {
            node.handle(now, closing(5), &mut effects);
        }
        assert_eq!((node.requests(), sent(&mut effects)), (REMOVAL_WAITERS_MAX, 0));
        node.handle(now, closing(5), &mut effects);
        assert_eq!((node.requests(), sent(&mut effects)), (REMOVAL_WAITERS_MAX, 1));
        let late = Now { monotonic_ms: REMOVAL_WAIT_MS, wall_ms: 0 };
        node.handle(late, Event::Tick, &mut effects);
        assert_eq!((node.requests(), sent(&mut effects)), (0, REMOVAL_WAITERS_MAX));
    }

    /// Why: a node that ended proposed what was to be done, waited for what it had proposed, and
    /// for views that were gone to be flushed, until its time was up (seed 910000264).
    #[test]
    fn a_node_that_ends_removes_nothing_of_its_own_and_waits_for_nothing_that_is_removed() {
        let (mut effects, now) = (Vec::new(), Now::default());
        let mut node = node(&mut effects);
        node.connections.greet(ConnectionId(5));
        node.handle(now, closing(5), &mut effects);
        node.handle(now, Event::Drain, &mut effects);
        assert_eq!(sent(&mut effects), 1, "who waits is told that it goes on without him");
        node.handle(now, closing(5), &mut effects);
        node.handle(now, Event::ShardClosed(SHOP), &mut effects);
        assert_eq!(sent(&mut effects), 1);
        node.flush(now, &mut effects);
        let is_write = |effect: &Effect| matches!(effect, Effect::Write { .. });
        assert!(!effects.iter().any(is_write), "something was proposed");
        node.handle(now, Event::Flushed(ShardId::DIRECTORY), &mut effects);
        assert!(!effects.iter().any(|effect| matches!(effect, Effect::Drained)));
        let (name, told) = ("shop".to_owned(), None);
        let gone = DirectoryChange::Deleted { name, shard: SHOP, told };
        node.handle(now, Event::Directory(gone), &mut effects);
        assert!(effects.iter().any(|effect| matches!(effect, Effect::Drained)));
    }
}
