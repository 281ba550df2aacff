//! Which namespaces there are, and readers of their shards: for reads on the threads of an
//! embedding program.

use naust_node::answer::Readers;
use naust_node::event::DirectoryChange;
use naust_store::LsmReader;
use naust_wire::reply::Failure;
use naust_wire::{NodeId, ShardId};
use std::collections::BTreeMap;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// The namespace that always exists.
pub const DEFAULT_NAMESPACE: &str = "default";

/// Namespaces and readers of a node.
#[derive(Default)]
pub struct Catalog {
    state: RwLock<State>,
}

#[derive(Default)]
struct State {
    namespaces: BTreeMap<String, ShardId>,
    readers: BTreeMap<ShardId, Readers<LsmReader>>,
    /// Why shards can't be read that exist: they are damaged, or can't be opened now.
    closed: BTreeMap<ShardId, Failure>,
    /// What the other nodes are called, and where they are reached.
    names: BTreeMap<NodeId, String>,
    addresses: BTreeMap<NodeId, String>,
}

impl Catalog {
    /// The directory changed. Said by every worker; only the first time counts.
    pub fn change(&self, change: &DirectoryChange) {
        let mut state = self.write();
        match change {
            DirectoryChange::Created { name, shard, .. } => {
                state.namespaces.insert(name.clone(), *shard);
            }
            DirectoryChange::Known { .. }
            | DirectoryChange::Current(_)
            | DirectoryChange::Closing { .. } => {}
            DirectoryChange::Deleted { name, shard, .. } => {
                if state.namespaces.get(name) == Some(shard) {
                    state.namespaces.remove(name);
                }
            }
            DirectoryChange::NodeSet { node, name, .. } => {
                state.names.insert(*node, name.clone());
            }
            DirectoryChange::NodeRemoved { .. } => {}
        }
    }

    /// Another node is spoken to at this address. Says what to call it.
    pub fn link(&self, node: NodeId, address: &str) -> String {
        let mut state = self.write();
        state.addresses.insert(node, address.to_owned());
        state.names.get(&node).cloned().unwrap_or_else(|| node.to_string())
    }

    /// Another node is spoken to no more.
    pub fn unlink(&self, node: NodeId) {
        let mut state = self.write();
        state.names.remove(&node);
        state.addresses.remove(&node);
    }

    /// Where other nodes are reached.
    #[must_use]
    pub fn addresses(&self) -> Vec<String> {
        self.read().addresses.values().cloned().collect()
    }

    /// A shard was opened.
    pub fn add_readers(&self, shard: ShardId, readers: Readers<LsmReader>) {
        let mut state = self.write();
        state.closed.remove(&shard);
        state.readers.insert(shard, readers);
    }

    /// A shard was removed.
    pub fn remove_readers(&self, shard: ShardId) {
        let mut state = self.write();
        state.closed.remove(&shard);
        state.readers.remove(&shard);
    }

    /// A shard can't be opened, or has failed. Says whether the reason is another than before.
    pub fn close(&self, shard: ShardId, failure: &Failure) -> bool {
        let mut state = self.write();
        state.readers.remove(&shard);
        let before = state.closed.insert(shard, failure.clone());
        before.is_none_or(|before| before != *failure)
    }

    /// Why a shard is closed, if it failed.
    #[must_use]
    pub fn closed(&self, shard: ShardId) -> Option<Failure> {
        self.read().closed.get(&shard).cloned()
    }

    /// The shard of a namespace.
    #[must_use]
    pub fn shard(&self, namespace: &str) -> Option<ShardId> {
        self.read().namespaces.get(namespace).copied()
    }

    /// The readers of a shard that is open, whatever it has folded in.
    #[must_use]
    pub fn readers(&self, shard: ShardId) -> Option<Readers<LsmReader>> {
        self.read().readers.get(&shard).cloned()
    }

    /// Shards that are open.
    #[must_use]
    pub fn open_shards(&self) -> usize {
        self.read().readers.len()
    }

    /// Shards that exist and can't be used.
    #[must_use]
    pub fn closed_shards(&self) -> usize {
        self.read().closed.len()
    }

    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}
