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
    readers: BTreeMap<ShardId, Readers<LsmReader>>,
    /// Why shards can't be read that exist: they are damaged, or can't be opened now.
    closed: BTreeMap<ShardId, Failure>,
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

    /// The readers of a shard, once they see everything that was acknowledged before it was opened.
    ///
    /// # Errors
    /// [`NotYet`].
    pub fn recovered_readers(&self, shard: ShardId) -> Result<Readers<LsmReader>, NotYet> {
        let state = self.read();
        if let Some(failure) = state.closed.get(&shard) {
            return Err(NotYet::Failed(failure.clone()));
        }
        let readers = state.readers.get(&shard).ok_or(NotYet::Closed)?;
        // What another leader had cut off was never acknowledged.
        let recovered = readers.log.recovered();
        if recovered > Offset::FIRST {
            // An offset within a frame stands for the whole frame.
            let last = Offset(recovered.0 - 1);
            let held = readers.tables.hold(last);
            if held.is_err_and(|refusal| refusal.code == Code::BadArgument) {
                return Err(NotYet::Recovering);
            }
        }
        Ok(readers.clone())
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

#[cfg(test)]
mod tests {
    use super::*;
    use naust_log::sim::SimDisk;
    use naust_log::{HardState, Identity, Log};
    use naust_machine::Machine;
    use naust_store::{Cache, LsmTables, StoreOptions};
    use naust_wire::frame::Kind;
    use naust_wire::{Index, LogTime, NodeId, Term};
    use std::sync::Arc;

    const SHARD: ShardId = ShardId(1);

    /// Why: what another leader had cut off never comes, and who asked for a snapshot waited for it
    /// until the log had grown as long as it had been.
    #[test]
    fn a_shard_whose_unfinished_tail_is_cut_off_is_recovered_without_it() {
        let disk = SimDisk::new();
        let identity = Identity { cluster: 1, node: NodeId(1), shard: SHARD };
        Log::create(&disk, identity, &[]).unwrap();
        let (mut log, _) = Log::open(Arc::new(disk.clone()), SHARD).unwrap();
        log.save(HardState { term: Term(1), vote: NodeId(1) });
        log.stage(Kind::Empty, Term(1), Index(1), LogTime(1), b"");
        while let Some(write) = log.next_write() {
            log.written(write.run()).unwrap();
        }
        drop(log);
        let (mut log, _) = Log::open(Arc::new(disk), SHARD).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let options = StoreOptions::new(Cache::new(1 << 20, 16));
        let tables = LsmTables::open(folder.path(), options).unwrap();
        let (machine, _) = Machine::open(SHARD, tables).unwrap();
        let catalog = Catalog::default();
        catalog.add_readers(SHARD, Readers { tables: machine.reader(), log: log.reader() });
        let not_yet = catalog.recovered_readers(SHARD).err();
        assert_eq!(not_yet, Some(NotYet::Recovering));
        log.cut_after(Index(0)).unwrap();
        assert!(catalog.recovered_readers(SHARD).is_ok());
    }
}
