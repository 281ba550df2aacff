//! Which namespaces there are, and readers of their shards: for reads on the threads of an
//! embedding program.

use naust_node::answer::Readers;
use naust_node::event::DirectoryChange;
use naust_store::LsmReader;
use naust_wire::reply::Failure;
use naust_wire::{Code, Offset, ShardId};
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
    readers: BTreeMap<ShardId, Open>,
    /// Why shards can't be read that exist: they are damaged, or can't be opened now.
    closed: BTreeMap<ShardId, Failure>,
}

/// A shard that is open.
struct Open {
    readers: Readers<LsmReader>,
    /// Where its log ended when it was opened.
    recovered_to: Offset,
}

/// What stands between a caller and the readers of a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotYet {
    /// The shard is not open yet.
    Closed,
    /// It can't be opened, or was closed, for this reason.
    Failed(Failure),
    /// What its log held when it was opened is still being folded in.
    Recovering,
}

impl Catalog {
    /// The directory changed. Said by every worker; only the first time counts.
    pub fn change(&self, change: &DirectoryChange) {
        let mut state = self.write();
        match change {
            DirectoryChange::Created { name, shard, .. } => {
                state.namespaces.insert(name.clone(), *shard);
            }
            DirectoryChange::Known { .. } | DirectoryChange::Current(_) => {}
            DirectoryChange::Deleted { name, shard, .. } => {
                if state.namespaces.get(name) == Some(shard) {
                    state.namespaces.remove(name);
                }
            }
            DirectoryChange::NodeSet { .. } | DirectoryChange::NodeRemoved { .. } => {}
        }
    }

    /// A shard was opened.
    pub fn add_readers(&self, shard: ShardId, readers: Readers<LsmReader>) {
        let recovered_to = readers.log.end();
        let mut state = self.write();
        state.closed.remove(&shard);
        state.readers.insert(shard, Open { readers, recovered_to });
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
        self.read().readers.get(&shard).map(|open| open.readers.clone())
    }

    /// The readers of a shard, once they see everything that was acknowledged before it was opened.
    ///
    /// # Errors
    /// [`NotYet`].
    pub fn recovered_readers(&self, shard: ShardId) -> Result<Readers<LsmReader>, NotYet> {
        let state = self.read();
        if let Some(failure) = state.closed.get(&shard) {
            return Err(NotYet::Failed(failure.clone()));
        }
        let open = state.readers.get(&shard).ok_or(NotYet::Closed)?;
        if open.recovered_to > Offset::FIRST {
            // An offset within a frame stands for the whole frame.
            let last = Offset(open.recovered_to.0 - 1);
            let held = open.readers.tables.hold(last);
            if held.is_err_and(|refusal| refusal.code == Code::BadArgument) {
                return Err(NotYet::Recovering);
            }
        }
        Ok(open.readers.clone())
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
