//! Which namespaces there are, and readers of their shards: for reads on the threads of an
//! embedding program.

use naust_node::answer::Readers;
use naust_node::event::DirectoryChange;
use naust_store::LsmReader;
use naust_wire::ShardId;
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
}

impl Catalog {
    /// The directory changed. Said by every worker; only the first time counts.
    pub fn change(&self, change: &DirectoryChange) {
        let mut state = self.write();
        match change {
            DirectoryChange::Created { name, shard, .. } => {
                state.namespaces.insert(name.clone(), *shard);
            }
            DirectoryChange::Deleted { name, shard, .. } => {
                if state.namespaces.get(name) == Some(shard) {
                    state.namespaces.remove(name);
                }
            }
        }
    }

    /// A shard was opened.
    pub fn add_readers(&self, shard: ShardId, readers: Readers<LsmReader>) {
        self.write().readers.insert(shard, readers);
    }

    /// A shard was closed.
    pub fn remove_readers(&self, shard: ShardId) {
        self.write().readers.remove(&shard);
    }

    /// The shard of a namespace.
    #[must_use]
    pub fn shard(&self, namespace: &str) -> Option<ShardId> {
        self.read().namespaces.get(namespace).copied()
    }

    /// The readers of a shard that is open.
    #[must_use]
    pub fn readers(&self, shard: ShardId) -> Option<Readers<LsmReader>> {
        self.read().readers.get(&shard).cloned()
    }

    /// Shards that are open.
    #[must_use]
    pub fn open_shards(&self) -> usize {
        self.read().readers.len()
    }

    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}
