//! Other nodes: where they are, whether they are there, and what leaves for them.
//!
//! A link leads one way: to another node, for what this worker says. The answers to requests that
//! were passed on come back over it; what the other node says of itself comes over its own link.
//! What is said to a node without a link is lost, as it may be on any network.
//!
//! ```text
//!   Down ─► Event::Link ─► Greeted ─► any reply ─► Up ─► asked once a second
//!     ▲                       └─────── no reply for 5 s ───────┘
//!     └──────────────────────────── Effect::Relink ◄──────────┘
//! ```
//! That a connection stands proves nothing: something in between may take what is sent and lose it.
//! So a link counts once the greeting was answered, and as long as questions are. An answer also
//! tells that everything that was said before the question was taken in; much that is said brings
//! another question, so that it is known how much waits at most.

use crate::{ConnectionId, Effect};
use naust_wire::ask::Ask;
use naust_wire::limits::{NODES_MAX, TRANSFER_PART_BYTES, TRANSFERS_BYTES_MAX};
use naust_wire::packet::{self, Kind};
use naust_wire::peer::{self, Peer, Said};
use naust_wire::{NodeId, RequestId, ShardId};
use rustc_hash::FxHashMap;
use std::collections::{BTreeMap, VecDeque};

/// Milliseconds after which a node is told again that this one is there.
const ALIVE_MS: u64 = 50;
/// Milliseconds without a word after which a node counts as gone.
const GONE_MS: u64 = 400;

/// Milliseconds after which a node is asked again whether it hears this one.
const ASK_MS: u64 = 1_000;
/// Milliseconds without an answer after which the link to it is of no use.
const UNANSWERED_MS: u64 = 5_000;
/// Bytes that are said behind a question before there is another one.
const ASK_BYTES: u64 = 2 * 1024 * 1024;
/// The number of that question: none that is passed on has it.
const ASKED: RequestId = RequestId(1);

/// Nodes that a worker knows: those of the directory, and as many that only say so.
const PEERS_MAX: usize = 2 * NODES_MAX;

/// The other nodes, as a worker knows them.
pub(crate) struct Peers {
    me: NodeId,
    hello: Said,
    /// The packet that asks whether a node hears this one.
    question: Vec<u8>,
    all: BTreeMap<NodeId, Other>,
    connections: FxHashMap<ConnectionId, NodeId>,
    /// Transfers of replicas of all shards that are under way to any node.
    pub(crate) transfers: usize,
}

#[derive(Default)]
struct Other {
    address: String,
    link: Link,
    /// When the question was asked that is not answered, and when the last one was answered.
    asked_ms: Option<u64>,
    answered_ms: u64,
    /// When it was heard last, and when something was said to it, in milliseconds of the
    /// monotonic clock.
    heard_ms: Option<u64>,
    said_ms: u64,
    out: Vec<u8>,
    /// Bytes that were handed out since the link stands, and how many of them were taken in.
    said_bytes: u64,
    taken_bytes: u64,
    /// Where in them the questions end that are not answered.
    questions: VecDeque<u64>,
    /// Parts of replicas that are being read for it.
    parts: u64,
    /// It left the cluster.
    is_leaving: bool,
}

/// The link to a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Link {
    #[default]
    Down,
    /// It stands, and the node was greeted.
    Greeted,
    /// The node hears this one.
    Up,
}

impl Other {
    fn ask(&mut self, question: &[u8], now_ms: u64) {
        self.out.extend_from_slice(question);
        self.questions.push_back(self.said_bytes + self.out.len() as u64);
        self.asked_ms = self.asked_ms.or(Some(now_ms));
    }

    /// Bytes that it has not taken in, as far as is known.
    fn waiting_bytes(&self) -> u64 {
        self.said_bytes + self.out.len() as u64 - self.taken_bytes
    }
}

impl Peers {
    /// Nobody yet. `hello` is what others are greeted with, and `ask` what they have to answer.
    pub(crate) fn new(me: NodeId, hello: Said, ask: &Ask) -> Peers {
        let (mut body, mut question) = (Vec::new(), Vec::new());
        ask.encode(&mut body);
        packet::write(Kind::Ask, ASKED, ShardId::DIRECTORY, &body, &mut question);
        Peers {
            me,
            hello,
            question,
            all: BTreeMap::new(),
            connections: FxHashMap::default(),
            transfers: 0,
        }
    }

    /// A node is at this address. One without a link is tried again at once: it may be there again.
    pub(crate) fn learn(&mut self, node: NodeId, address: &str, effects: &mut Vec<Effect>) {
        if node == self.me {
            return;
        }
        let other = self.all.entry(node).or_default();
        if other.address != address || other.link == Link::Down {
            address.clone_into(&mut other.address);
            effects.push(Effect::Link { node, address: address.to_owned() });
        }
    }

    /// Whether a node may be learned that says itself where it is: strangers are bounded.
    pub(crate) fn may_learn(&self, node: NodeId) -> bool {
        self.all.contains_key(&node) || self.all.len() < PEERS_MAX
    }

    /// A node left the cluster, or came back to it. It is spoken to as long as it has a part in
    /// something: its vote may be needed to take that part from it.
    pub(crate) fn leaves(&mut self, node: NodeId, is_leaving: bool) {
        if let Some(other) = self.all.get_mut(&node) {
            other.is_leaving = is_leaving;
        }
    }

    /// The nodes that left and are still spoken to.
    pub(crate) fn leaving(&self) -> Vec<NodeId> {
        self.all.iter().filter(|(_, other)| other.is_leaving).map(|(node, _)| *node).collect()
    }

    /// A node has no part in anything any more.
    pub(crate) fn forget(&mut self, node: NodeId, effects: &mut Vec<Effect>) {
        if self.all.remove(&node).is_some() {
            effects.push(Effect::Unlink(node));
        }
    }

    /// The link to a node stands now, or no longer does. It counts when the greeting is answered.
    pub(crate) fn linked(&mut self, node: NodeId, stands: bool, now_ms: u64) {
        let Some(other) = self.all.get_mut(&node) else { return };
        other.out.clear();
        (other.link, other.asked_ms) = (Link::Down, None);
        (other.said_bytes, other.taken_bytes) = (0, 0);
        other.questions.clear();
        if stands {
            let greeting = Peer { from: self.me, to: node, said: self.hello.clone() };
            let packet = peer::begin(ShardId::DIRECTORY, &greeting, &mut other.out);
            packet.finish(&mut other.out);
            other.ask(&self.question, now_ms);
            other.link = Link::Greeted;
        }
    }

    /// Nodes that there is a link to.
    pub(crate) fn linked_nodes(&self) -> impl Iterator<Item = NodeId> {
        self.all.iter().filter(|(_, other)| other.link == Link::Up).map(|(node, _)| *node)
    }

    /// Something came back over the link to a node; whether it counts from now on.
    pub(crate) fn answered(&mut self, node: NodeId, now_ms: u64) -> bool {
        let Some(other) = self.all.get_mut(&node).filter(|other| other.link != Link::Down) else {
            return false;
        };
        (other.asked_ms, other.answered_ms) = (None, now_ms);
        std::mem::replace(&mut other.link, Link::Up) == Link::Greeted
    }

    /// What comes back over the link to a node is of no use: it is made anew.
    pub(crate) fn give_up(&mut self, node: NodeId, effects: &mut Vec<Effect>) {
        if self.all.contains_key(&node) {
            effects.push(Effect::Relink(node));
        }
    }

    /// Nodes that do not answer: the links to them are made anew.
    pub(crate) fn give_up_unanswered(
        &mut self,
        now_ms: u64,
        effects: &mut Vec<Effect>,
    ) -> Vec<NodeId> {
        let mut given_up = Vec::new();
        for (node, other) in &mut self.all {
            if other.asked_ms.take_if(|asked_ms| now_ms >= *asked_ms + UNANSWERED_MS).is_some() {
                other.link = Link::Down;
                other.out.clear();
                effects.push(Effect::Relink(*node));
                given_up.push(*node);
            }
        }
        given_up
    }

    /// Whether there is a link to a node, and it is heard there.
    pub(crate) fn is_linked(&self, node: NodeId) -> bool {
        self.all.get(&node).is_some_and(|other| other.link == Link::Up)
    }

    /// A connection belongs to this node.
    pub(crate) fn greeted(&mut self, from: ConnectionId, node: NodeId) {
        self.connections.insert(from, node);
    }

    /// The node that a connection belongs to; `None`: to a client.
    pub(crate) fn of(&self, connection: ConnectionId) -> Option<NodeId> {
        self.connections.get(&connection).copied()
    }

    /// A connection is gone.
    pub(crate) fn closed(&mut self, connection: ConnectionId) {
        self.connections.remove(&connection);
    }

    /// A node said something; whether it had been silent, or never heard.
    pub(crate) fn heard(&mut self, node: NodeId, now_ms: u64) -> bool {
        let Some(other) = self.all.get_mut(&node) else { return false };
        other.heard_ms.replace(now_ms).is_none()
    }

    /// Nodes that were heard before and have been silent for too long by now; told once.
    pub(crate) fn newly_gone(&mut self, now_ms: u64) -> Vec<NodeId> {
        let silent = |heard: &mut u64| now_ms.saturating_sub(*heard) >= GONE_MS;
        let all = self.all.iter_mut();
        all.filter_map(|(node, other)| other.heard_ms.take_if(silent).map(|_| *node)).collect()
    }

    /// A node can't be there: its connection was closed, or ours to it refused.
    pub(crate) fn lost(&mut self, node: NodeId) {
        if let Some(other) = self.all.get_mut(&node) {
            other.heard_ms = None;
        }
    }

    /// Whether a node was heard lately.
    pub(crate) fn is_there(&self, node: NodeId, now_ms: u64) -> bool {
        node == self.me
            || self
                .all
                .get(&node)
                .and_then(|other| other.heard_ms)
                .is_some_and(|heard| now_ms.saturating_sub(heard) < GONE_MS)
    }

    /// A reply came back over the link to a node; whether it answers a question of this worker.
    pub(crate) fn took_in(&mut self, node: NodeId, request: RequestId) -> bool {
        if let Some(other) = self.all.get_mut(&node).filter(|_| request == ASKED) {
            other.taken_bytes = other.questions.pop_front().unwrap_or(other.taken_bytes);
        }
        request == ASKED
    }

    /// Whether so little waits for a node that another part of a replica may be read for it.
    pub(crate) fn has_room_for_part(&self, node: NodeId) -> bool {
        let waiting_bytes =
            |other: &Other| other.waiting_bytes() + (other.parts + 1) * TRANSFER_PART_BYTES as u64;
        let bytes = self.all.get(&node).map_or(0, waiting_bytes);
        bytes <= TRANSFERS_BYTES_MAX as u64
    }

    /// A part of a replica is read for a node, to be said to it.
    pub(crate) fn part_is_read(&mut self, node: NodeId) {
        if let Some(other) = self.all.get_mut(&node) {
            other.parts += 1;
        }
    }

    /// It was read, or could not be.
    pub(crate) fn part_was_read(&mut self, node: NodeId) {
        if let Some(other) = self.all.get_mut(&node) {
            // One that was begun before the node was forgotten and came back is not counted.
            other.parts = other.parts.saturating_sub(1);
        }
    }

    /// Says something about a shard to a node.
    pub(crate) fn say(&mut self, shard: ShardId, to: NodeId, said: Said) {
        self.say_with(shard, to, said, |_| {});
    }

    /// The same, with the frames that `frames` appends.
    pub(crate) fn say_with(
        &mut self,
        shard: ShardId,
        to: NodeId,
        said: Said,
        frames: impl FnOnce(&mut Vec<u8>),
    ) {
        let from = self.me;
        let Some(other) = self.all.get_mut(&to).filter(|other| other.link == Link::Up) else {
            return;
        };
        let packet = peer::begin(shard, &Peer { from, to, said }, &mut other.out);
        frames(&mut other.out);
        packet.finish(&mut other.out);
    }

    /// Passes packets on to a node; says whether there is a link to it.
    pub(crate) fn pass_on(&mut self, to: NodeId, packets: impl FnOnce(&mut Vec<u8>)) -> bool {
        let Some(other) = self.all.get_mut(&to).filter(|other| other.link == Link::Up) else {
            return false;
        };
        packets(&mut other.out);
        true
    }

    /// Tells those to whom nothing was said for a while that this node is there, and asks whether
    /// they hear it.
    pub(crate) fn tick(&mut self, now_ms: u64) {
        for other in self.all.values_mut().filter(|other| other.link == Link::Up) {
            if other.asked_ms.is_none() && now_ms >= other.answered_ms + ASK_MS {
                other.ask(&self.question, now_ms);
            }
        }
        let silent = |(_, other): &(&NodeId, &Other)| {
            other.link == Link::Up && other.out.is_empty() && now_ms >= other.said_ms + ALIVE_MS
        };
        let nodes: Vec<NodeId> = self.all.iter().filter(silent).map(|(id, _)| *id).collect();
        for node in nodes {
            self.say(ShardId::DIRECTORY, node, Said::Alive);
        }
    }

    /// Hands out what was said since the last time.
    pub(crate) fn flush(&mut self, now_ms: u64, effects: &mut Vec<Effect>) {
        for (node, other) in &mut self.all {
            let is_much = other.waiting_bytes() > ASK_BYTES;
            if other.link == Link::Up && other.questions.is_empty() && is_much {
                other.ask(&self.question, now_ms);
            }
            if !other.out.is_empty() {
                other.said_ms = now_ms;
                other.said_bytes += other.out.len() as u64;
                let bytes = std::mem::take(&mut other.out);
                effects.push(Effect::Peer { to: *node, bytes });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use naust_wire::ask::Listing;

    #[test]
    fn strangers_are_bounded_and_who_is_known_is_not_refused() {
        let hello = Said::Alive;
        let mut peers = Peers::new(NodeId(1), hello, &Ask::Cluster(Listing::default()));
        let mut effects = Vec::new();
        let mut strangers = (2..).map(NodeId);
        while let Some(node) = strangers.next().filter(|node| peers.may_learn(*node)) {
            peers.learn(node, "here:1", &mut effects);
        }
        assert_eq!((peers.all.len(), effects.len()), (PEERS_MAX, PEERS_MAX));
        assert!(peers.may_learn(NodeId(2)));
        peers.forget(NodeId(2), &mut effects);
        assert!(peers.may_learn(NodeId(1 << 40)), "one left");
    }

    #[test]
    fn what_waits_for_a_node_is_known_by_what_it_answers() {
        let (node, shard) = (NodeId(2), ShardId(7));
        let mut peers = Peers::new(NodeId(1), Said::Alive, &Ask::Cluster(Listing::default()));
        let mut effects = Vec::new();
        peers.learn(node, "here:1", &mut effects);
        peers.linked(node, true, 0);
        let begun = peers.all[&node].waiting_bytes();
        peers.flush(0, &mut effects);
        assert_eq!(peers.all[&node].waiting_bytes(), begun, "what was handed out waits, too");
        assert!(peers.answered(node, 0) && peers.took_in(node, ASKED));
        assert_eq!(peers.all[&node].waiting_bytes(), 0);
        let half = vec![0; ASK_BYTES as usize / 2];
        let mut says = |peers: &mut Peers| {
            peers.say_with(shard, node, Said::Alive, |out| out.extend_from_slice(&half));
            effects.clear();
            peers.flush(0, &mut effects);
            let [Effect::Peer { bytes, .. }] = &effects[..] else { panic!("it is handed out") };
            (bytes.len() as u64, bytes.ends_with(&peers.question))
        };
        // Much brings a question, and only one at a time.
        let (first, asks) = says(&mut peers);
        assert!(!asks);
        let (second, asks) = says(&mut peers);
        assert!(asks);
        let (third, asks) = says(&mut peers);
        assert!(!asks);
        assert_eq!(peers.all[&node].waiting_bytes(), first + second + third);
        assert!(!peers.took_in(node, RequestId(1 << 56 | 1)), "a reply to a client");
        assert!(peers.took_in(node, ASKED));
        assert_eq!(peers.all[&node].waiting_bytes(), third, "it lies behind the question");
        peers.linked(node, false, 0);
        assert_eq!(peers.all[&node].waiting_bytes(), 0, "what was on its way is lost");
    }

    /// Why: nine namespaces at once overran the link, which was closed, again and again.
    #[test]
    fn parts_of_replicas_are_read_while_there_is_room_for_them() {
        let node = NodeId(2);
        let mut peers = Peers::new(NodeId(1), Said::Alive, &Ask::Cluster(Listing::default()));
        peers.learn(node, "here:1", &mut Vec::new());
        let mut parts = 0;
        while peers.has_room_for_part(node) {
            peers.part_is_read(node);
            parts += 1;
        }
        assert_eq!(parts * TRANSFER_PART_BYTES, TRANSFERS_BYTES_MAX);
        peers.part_was_read(node);
        assert!(peers.has_room_for_part(node), "one of them could not be read");
        peers.linked(node, true, 0);
        assert!(peers.answered(node, 0));
        let shard = ShardId(7);
        peers.say_with(shard, node, Said::Alive, |out| out.resize(TRANSFER_PART_BYTES, 0));
        assert!(!peers.has_room_for_part(node), "it waits for the link now");
    }
}
