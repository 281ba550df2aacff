//! Who is connected, what each has under way, and who is asked to wait.
//!
//! A connection is *paused* (its socket is not read) while it has many requests under way itself,
//! while the node has, or while a shard that it writes to is behind. Pausing is the gentle bound;
//! what was read before the pause took hold meets the hard ones, in `node`.

use crate::{ConnectionId, Effect};
use naust_wire::limits::{REQUESTS_MAX, REQUESTS_PER_CONNECTION_MAX};
use rustc_hash::FxHashMap;

/// Past this many requests of all connections, whoever asks is paused; below half of it they go
/// on.
const REQUESTS_PRESSED: usize = REQUESTS_MAX / 4 * 3;

/// The connections of a worker.
#[derive(Default)]
pub(crate) struct Connections {
    all: FxHashMap<ConnectionId, Connection>,
    requests: usize,
    /// Paused because of the node's requests.
    waiting: Vec<ConnectionId>,
}

#[derive(Default)]
struct Connection {
    requests: usize,
    greeted: bool,
    /// It is another node's, and never asked to wait: what it passes on is bounded where it came
    /// in.
    is_peer: bool,
    /// What it had given to other threads is still counted until they are done with it.
    is_gone: bool,
    pauses: Pauses,
}

/// Why a connection is paused.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Pauses {
    own: bool,
    node: bool,
    shards: u32,
}

impl Pauses {
    fn any(self) -> bool {
        self != Pauses::default()
    }
}

impl Connections {
    /// Requests under way of all connections.
    pub(crate) fn requests(&self) -> usize {
        self.requests
    }

    /// Whether a connection has any request under way.
    pub(crate) fn is_busy(&self, id: ConnectionId) -> bool {
        self.all.get(&id).is_some_and(|connection| connection.requests > 0)
    }

    /// Whether a connection is there, and has asked for something or said hello.
    pub(crate) fn is_known(&self, id: ConnectionId) -> bool {
        self.all.get(&id).is_some_and(|connection| !connection.is_gone)
    }

    /// Whether a connection has said a good hello.
    pub(crate) fn is_greeted(&self, id: ConnectionId) -> bool {
        self.all.get(&id).is_some_and(|connection| connection.greeted)
    }

    /// A connection said a good hello.
    pub(crate) fn greet(&mut self, id: ConnectionId) {
        self.all.entry(id).or_default().greeted = true;
    }

    /// A connection is another node's.
    pub(crate) fn exempt(&mut self, id: ConnectionId) {
        self.all.entry(id).or_default().is_peer = true;
    }

    /// A request of a connection is under way.
    pub(crate) fn begin(&mut self, id: ConnectionId, effects: &mut Vec<Effect>) {
        self.requests += 1;
        let node = self.requests >= REQUESTS_PRESSED;
        let connection = self.all.entry(id).or_default();
        connection.requests += 1;
        if connection.is_peer {
            return;
        }
        let own = connection.requests >= REQUESTS_PER_CONNECTION_MAX;
        if (node && !connection.pauses.node) || (own && !connection.pauses.own) {
            if node && !connection.pauses.node {
                self.waiting.push(id);
            }
            connection.change(id, effects, |pauses| {
                pauses.own |= own;
                pauses.node |= node;
            });
        }
    }

    /// Requests of a connection were answered.
    pub(crate) fn end(&mut self, id: ConnectionId, requests: usize, effects: &mut Vec<Effect>) {
        let Some(connection) = self.all.get_mut(&id) else { return };
        connection.requests -= requests;
        self.requests -= requests;
        if connection.is_gone && connection.requests == 0 {
            self.all.remove(&id);
        } else if connection.pauses.own && connection.requests <= REQUESTS_PER_CONNECTION_MAX / 2 {
            connection.change(id, effects, |pauses| pauses.own = false);
        }
        if !self.waiting.is_empty() && self.requests <= REQUESTS_PRESSED / 2 {
            for id in std::mem::take(&mut self.waiting) {
                if let Some(connection) = self.all.get_mut(&id) {
                    connection.change(id, effects, |pauses| pauses.node = false);
                }
            }
        }
    }

    /// A shard that it writes to is behind.
    pub(crate) fn hold(&mut self, id: ConnectionId, effects: &mut Vec<Effect>) {
        if let Some(connection) = self.all.get_mut(&id).filter(|other| !other.is_peer) {
            connection.change(id, effects, |pauses| pauses.shards += 1);
        }
    }

    /// That shard is so no longer.
    pub(crate) fn let_go(&mut self, id: ConnectionId, effects: &mut Vec<Effect>) {
        if let Some(connection) = self.all.get_mut(&id).filter(|other| !other.is_peer) {
            connection.change(id, effects, |pauses| pauses.shards -= 1);
        }
    }

    /// A connection is gone. What others have of it stays counted until they say that it is done:
    /// otherwise who connects, asks and closes, again and again, would meet no bound.
    pub(crate) fn remove(&mut self, id: ConnectionId) {
        if let Some(connection) = self.all.get_mut(&id) {
            connection.is_gone = true;
            if connection.requests == 0 {
                self.all.remove(&id);
            }
        }
        self.waiting.retain(|other| *other != id);
    }
}

impl Connection {
    fn change(
        &mut self,
        id: ConnectionId,
        effects: &mut Vec<Effect>,
        change: impl FnOnce(&mut Pauses),
    ) {
        let before = self.pauses.any();
        change(&mut self.pauses);
        if self.pauses.any() != before && !self.is_gone {
            effects.push(Effect::Pause(id, !before));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pauses(effects: &mut Vec<Effect>) -> Vec<(u64, bool)> {
        let told = effects.drain(..).map(|effect| match effect {
            Effect::Pause(id, on) => (id.0, on),
            _ => panic!("only pauses come from here"),
        });
        told.collect()
    }

    #[test]
    fn a_connection_with_many_requests_waits_until_half_are_answered() {
        let (mut connections, mut effects) = (Connections::default(), Vec::new());
        let id = ConnectionId(1);
        for _ in 0..REQUESTS_PER_CONNECTION_MAX + 5 {
            connections.begin(id, &mut effects);
        }
        assert_eq!(pauses(&mut effects), [(1, true)]);
        connections.end(id, REQUESTS_PER_CONNECTION_MAX / 2 + 4, &mut effects);
        assert_eq!(pauses(&mut effects), []);
        connections.end(id, 1, &mut effects);
        assert_eq!(pauses(&mut effects), [(1, false)]);
    }

    #[test]
    fn all_who_ask_wait_while_the_node_has_too_much() {
        let (mut connections, mut effects) = (Connections::default(), Vec::new());
        let each = REQUESTS_PER_CONNECTION_MAX - 1;
        let crowd = (REQUESTS_PRESSED / each + 1) as u64;
        (0..crowd).for_each(|id| {
            (0..each).for_each(|_| connections.begin(ConnectionId(id), &mut effects));
        });
        assert_eq!(pauses(&mut effects), [(crowd - 1, true)]);
        connections.remove(ConnectionId(0));
        let mut told = Vec::new();
        (1..crowd - 1).for_each(|id| {
            connections.end(ConnectionId(id), each, &mut effects);
            told.extend(pauses(&mut effects));
        });
        assert_eq!(told, [(crowd - 1, false)]);
        assert_eq!(connections.requests(), 2 * each, "one is gone, but not its requests");
        connections.end(ConnectionId(0), each, &mut effects);
        assert_eq!(connections.requests(), each);
    }

    #[test]
    fn another_node_is_never_asked_to_wait() {
        let (mut connections, mut effects) = (Connections::default(), Vec::new());
        let id = ConnectionId(1);
        connections.exempt(id);
        for _ in 0..REQUESTS_PER_CONNECTION_MAX + 5 {
            connections.begin(id, &mut effects);
        }
        connections.hold(id, &mut effects);
        connections.let_go(id, &mut effects);
        connections.end(id, REQUESTS_PER_CONNECTION_MAX + 5, &mut effects);
        assert_eq!(pauses(&mut effects), []);
    }

    #[test]
    fn reasons_to_wait_are_told_once_and_end_together() {
        let (mut connections, mut effects) = (Connections::default(), Vec::new());
        let id = ConnectionId(9);
        connections.begin(id, &mut effects);
        connections.hold(id, &mut effects);
        connections.hold(id, &mut effects);
        assert_eq!(pauses(&mut effects), [(9, true)]);
        connections.let_go(id, &mut effects);
        assert_eq!(pauses(&mut effects), []);
        connections.let_go(id, &mut effects);
        assert_eq!(pauses(&mut effects), [(9, false)]);
        connections.remove(id);
        assert_eq!(connections.requests(), 1);
        connections.end(id, 1, &mut effects);
        assert_eq!((connections.requests(), connections.all.len()), (0, 0));
    }
}
