//! Embedded clients: connections without sockets.
//!
//! A client in this process hands its packets over as batches of bytes, and takes its replies in
//! the same way, from whichever thread has them: replies never pass through the worker.

use crate::queue::Queue;
use crate::worker::Input;
use naust_client::{Link, Notify};
use naust_node::ConnectionId;
use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

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
    /// The queue of its worker.
    pub worker: Arc<Queue<Input>>,
}

impl Notify for Doorbell {
    fn notify(&self) {
        // A closed queue: the node has ended, and the client is told through its link.
        let _ = self.worker.push(Input::LinkReady(self.id));
    }
}
