//! Embedded clients: connections without sockets.
//!
//! A client in this process hands its packets over as batches of bytes, and takes its replies in
//! the same way, from whichever thread has them: replies never pass through the worker.

use crate::queue::{Queue, Refused};
use crate::worker::Input;
use naust_client::{Link, Notify};
use naust_node::ConnectionId;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

/// The embedded clients of a node.
#[derive(Default)]
pub struct Links {
    links: RwLock<BTreeMap<ConnectionId, Link>>,
}

impl Links {
    /// Adds a client.
    pub fn add(&self, id: ConnectionId, link: Link) {
        self.links.write().unwrap_or_else(PoisonError::into_inner).insert(id, link);
    }

    /// The client of an id, while it is there.
    #[must_use]
    pub fn get(&self, id: ConnectionId) -> Option<Link> {
        self.links.read().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
    }

    /// Forgets a client.
    pub fn remove(&self, id: ConnectionId) -> Option<Link> {
        self.links.write().unwrap_or_else(PoisonError::into_inner).remove(&id)
    }

    /// Gives a client its replies. Those of one that is gone are dropped.
    pub fn deliver(&self, id: ConnectionId, bytes: Vec<u8>) {
        if let Some(link) = self.get(id) {
            link.deliver(bytes).expect("replies of this node are whole packets");
        }
    }

    /// Ends all clients: the node is gone for good.
    pub fn close(&self) {
        let links =
            std::mem::take(&mut *self.links.write().unwrap_or_else(PoisonError::into_inner));
        for link in links.into_values() {
            link.down("the node was closed");
            link.close();
        }
    }
}

/// Tells a worker that an embedded client has something for it.
pub struct Doorbell {
    /// The client.
    pub id: ConnectionId,
    /// Its worker's.
    pub bells: Arc<Bells>,
}

/// The doorbells of one worker.
pub struct Bells {
    queue: Arc<Queue<Input>>,
    /// The queue was full when somebody rang.
    missed: AtomicBool,
}

impl Bells {
    /// Doorbells that ring in a worker's queue.
    #[must_use]
    pub fn new(queue: Arc<Queue<Input>>) -> Bells {
        Bells { queue, missed: AtomicBool::new(false) }
    }

    /// A client has something for the worker.
    pub fn ring(&self, id: ConnectionId) {
        // A closed queue: the node has ended, and the client is told through its link. A full one:
        // its worker is awake, and looks at all of its clients.
        if self.queue.push(Input::LinkReady(id)) == Err(Refused::Full) {
            self.missed.store(true, Ordering::Release);
        }
    }

    /// Whether somebody rang in vain since this was asked last.
    pub fn take_missed(&self) -> bool {
        self.missed.load(Ordering::Relaxed) && self.missed.swap(false, Ordering::Acquire)
    }
}

impl Notify for Doorbell {
    fn notify(&self) {
        self.bells.ring(self.id);
    }
}

/// The doorbell of a client that is there before its node: silent until then, and the node looks
/// at it when it comes.
#[derive(Default)]
pub struct LateBell(pub OnceLock<Doorbell>);

impl Notify for LateBell {
    fn notify(&self) {
        if let Some(bell) = self.0.get() {
            bell.notify();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;

    #[test]
    fn whoever_rings_is_heard_even_when_the_queue_is_full() {
        let queue = Arc::new(Queue::for_thread(1));
        let bells = Bells::new(Arc::clone(&queue));
        bells.ring(ConnectionId(1));
        assert!(!bells.take_missed());
        bells.ring(ConnectionId(2));
        assert!(bells.take_missed() && !bells.take_missed());
        queue.take(&mut VecDeque::new());
        bells.ring(ConnectionId(2));
        assert!(!bells.take_missed());
        queue.close();
        bells.ring(ConnectionId(3));
        assert!(!bells.take_missed());
    }
}
