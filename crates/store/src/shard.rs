//! What the owner of a shard's tables, their readers and their background jobs share.
//!
//! Who takes which lock, and for how long:
//!
//! * `trees` and each tree's `view`: to look up or replace a pointer; never across IO.
//! * `disk`: across the writing and syncing of the manifest; only background jobs (and opening and
//!   closing) take it.
//!
//! So no sync of any file delays an insert or a read.

use crate::history::Floors;
use crate::manifest::{Manifest, TreeRecord};
use crate::memtable::Memtable;
use crate::table::{Table, TableRecord};
use crate::view::{Run, Runs, View};
use crate::writer::{Compressible, Directory, NewTables};
use naust_machine::{Fault, Mark, TreeId};
use naust_wire::options::KeyspaceOptions;
use rustc_hash::FxHashMap;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};

/// One tree.
pub(crate) struct Tree {
    view: RwLock<Arc<View>>,
    options: Mutex<KeyspaceOptions>,
    retention_floor: AtomicU64,
    /// Whether compressing its tables is worth the time.
    pub compressible: Compressible,
}

impl Tree {
    /// A tree with these tables and an empty memory.
    pub fn new(options: KeyspaceOptions, runs: Runs) -> Tree {
        let (active, looks) = Default::default();
        let view = View { active, sealed: Vec::new(), runs, looks };
        Tree {
            view: RwLock::new(Arc::new(view)),
            options: Mutex::new(options),
            retention_floor: AtomicU64::new(0),
            compressible: Compressible::default(),
        }
    }

    /// What a reader sees now.
    pub fn view(&self) -> Arc<View> {
        self.view.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Replaces what readers see, given what they see now.
    pub fn change(&self, change: impl FnOnce(&View) -> View) {
        let mut view = self.view.write().unwrap_or_else(PoisonError::into_inner);
        let new = Arc::new(change(&view));
        let old = std::mem::replace(&mut *view, new);
        drop(view);
        // What it alone holds is freed outside the lock.
        drop(old);
    }

    /// Its options.
    pub fn options(&self) -> KeyspaceOptions {
        *lock(&self.options)
    }

    /// Changes its options.
    pub fn set_options(&self, options: KeyspaceOptions) {
        *lock(&self.options) = options;
    }

    /// Rows below this offset count as absent.
    pub fn retention_floor(&self) -> u64 {
        self.retention_floor.load(Ordering::Relaxed)
    }

    /// Sets that floor.
    pub fn set_retention_floor(&self, floor: u64) {
        self.retention_floor.store(floor, Ordering::Relaxed);
    }
}

/// What is on disk of a tree.
#[derive(Clone, Default)]
pub(crate) struct OnDisk {
    /// The last frame that is in its tables.
    pub mark: Mark,
    /// Its tables.
    pub runs: Runs,
}

/// What is on disk of the shard, as the manifest says.
pub(crate) struct Disk {
    /// All trees that were ever flushed.
    pub trees: BTreeMap<TreeId, OnDisk>,
    /// Tables that no manifest names any more, but readers may still hold.
    retired: Vec<Arc<Table>>,
    /// Jobs that run now.
    running: usize,
}

/// One shard's tables.
pub(crate) struct Shard {
    /// Its directory.
    pub directory: Directory,
    /// Its trees.
    pub trees: RwLock<FxHashMap<TreeId, Arc<Tree>>>,
    /// Of each key, versions below the newest one at or below this offset may go.
    pub history_floor: AtomicU64,
    disk: Mutex<Disk>,
    job_ended: Condvar,
    closed: AtomicBool,
}

impl Shard {
    /// With these trees and what is on disk of them.
    pub fn new(directory: Directory, trees: BTreeMap<TreeId, (KeyspaceOptions, OnDisk)>) -> Shard {
        let tree = |(id, (options, disk)): (&TreeId, &(KeyspaceOptions, OnDisk))| {
            (*id, Arc::new(Tree::new(*options, disk.runs.clone())))
        };
        Shard {
            directory,
            trees: RwLock::new(trees.iter().map(tree).collect()),
            history_floor: AtomicU64::new(0),
            disk: Mutex::new(Disk {
                trees: trees.into_iter().map(|(id, (_, disk))| (id, disk)).collect(),
                retired: Vec::new(),
                running: 0,
            }),
            job_ended: Condvar::new(),
            closed: AtomicBool::new(false),
        }
    }

    /// A tree.
    pub fn tree(&self, id: TreeId) -> Option<Arc<Tree>> {
        self.trees.read().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
    }

    /// What a reader of a tree sees now, and the tree's retention floor.
    pub fn view(&self, id: TreeId) -> Option<(Arc<View>, u64)> {
        let trees = self.trees.read().unwrap_or_else(PoisonError::into_inner);
        trees.get(&id).map(|tree| (tree.view(), tree.retention_floor()))
    }

    /// Adds a tree.
    pub fn add_tree(&self, id: TreeId, tree: Arc<Tree>) {
        self.trees.write().unwrap_or_else(PoisonError::into_inner).insert(id, tree);
    }

    /// The floors that merges of a tree go by.
    pub fn floors(&self, tree: &Tree) -> Floors {
        Floors {
            history: self.history_floor.load(Ordering::Relaxed),
            retention: tree.retention_floor(),
        }
    }

    /// Runs a job's body, unless the shard has been closed.
    pub fn run<T>(&self, job: impl FnOnce() -> Result<T, Fault>) -> Result<T, Fault> {
        {
            let mut disk = lock(&self.disk);
            if self.is_closed() {
                return Err(closed());
            }
            disk.running += 1;
        }
        let _running = Running(self);
        job()
    }

    /// The owner is gone: jobs are to stop.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// Stops jobs and waits until none runs.
    pub fn close(&self) {
        let mut disk = lock(&self.disk);
        self.closed.store(true, Ordering::Relaxed);
        while disk.running > 0 {
            disk = self.job_ended.wait(disk).unwrap_or_else(PoisonError::into_inner);
        }
        disk.retired.clear();
    }

    /// Makes a change of what is on disk durable and then visible: `change` changes the record,
    /// `show` what readers see. `created` stays if the change took its place, and `retired` goes
    /// when its last reader has let go.
    pub fn commit(
        &self,
        created: NewTables,
        retired: Vec<Arc<Table>>,
        change: impl FnOnce(&mut BTreeMap<TreeId, OnDisk>),
        show: impl FnOnce(&BTreeMap<TreeId, OnDisk>),
    ) -> Result<(), Fault> {
        let mut disk = lock(&self.disk);
        if self.is_closed() {
            return Err(closed());
        }
        let mut trees = disk.trees.clone();
        change(&mut trees);
        match self.manifest(&trees).write(&self.directory.path) {
            Ok(taken) => taken?,
            Err(unsure) => {
                created.keep();
                return Err(unsure);
            }
        }
        created.keep();
        disk.trees = trees;
        show(&disk.trees);
        retired.iter().for_each(|table| table.retire());
        disk.retired.extend(retired);
        Ok(())
    }

    /// What is on disk: the manifest, and the tables that it names.
    pub fn exported(&self) -> Result<(Manifest, BTreeMap<TreeId, OnDisk>), Fault> {
        let disk = lock(&self.disk);
        if self.is_closed() {
            return Err(closed());
        }
        Ok((self.manifest(&disk.trees), disk.trees.clone()))
    }

    /// The tables on disk whose numbers begin with `from`, in order. None, if these are closed.
    pub fn tables_from(&self, from: u64) -> Vec<Arc<Table>> {
        let disk = lock(&self.disk);
        if self.is_closed() {
            return Vec::new();
        }
        let runs = disk.trees.values().flat_map(|tree| tree.runs.iter());
        let tables = runs.flat_map(|run| run.tables().iter());
        let mut tables: Vec<Arc<Table>> =
            tables.filter(|table| table.record().id >= from).cloned().collect();
        tables.sort_unstable_by_key(|table| table.record().id);
        tables
    }

    /// Removes the files of retired tables that nobody reads any more.
    fn sweep(&self) {
        let mut disk = lock(&self.disk);
        let retired = std::mem::take(&mut disk.retired);
        let (held, free): (Vec<_>, Vec<_>) =
            retired.into_iter().partition(|table| Arc::strong_count(table) > 1);
        disk.retired = held;
        drop(disk);
        drop(free);
    }

    /// Holds what a job holds while it syncs the manifest.
    #[cfg(test)]
    pub fn while_syncing(&self) -> MutexGuard<'_, Disk> {
        lock(&self.disk)
    }

    fn manifest(&self, trees: &BTreeMap<TreeId, OnDisk>) -> Manifest {
        let known = self.trees.read().unwrap_or_else(PoisonError::into_inner);
        let mut records: Vec<TreeRecord> = known
            .iter()
            .map(|(id, tree)| {
                let OnDisk { mark, runs } = trees.get(id).cloned().unwrap_or_default();
                let runs = runs.iter().map(|run| record(run)).collect();
                TreeRecord { id: id.0, options: tree.options(), mark, runs }
            })
            .collect();
        records.sort_by_key(|tree| tree.id);
        let next_table = self.directory.next_table.load(Ordering::Relaxed);
        Manifest { next_table, trees: records }
    }
}

fn record(run: &Run) -> (u8, Vec<TableRecord>) {
    (run.level(), run.tables().iter().map(|table| table.record().clone()).collect())
}

/// Counts a job as running until it is dropped.
struct Running<'a>(&'a Shard);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        lock(&self.0.disk).running -= 1;
        self.0.job_ended.notify_all();
        self.0.sweep();
    }
}

fn closed() -> Fault {
    Fault { what: "the tables were closed".to_string(), disk_full: false }
}

/// Memory that readers no longer need once `flushed` is on disk, taken out of what they see.
pub(crate) fn without(
    sealed: &[Arc<Memtable>],
    flushed: Option<&Arc<Memtable>>,
) -> Vec<Arc<Memtable>> {
    let stays = |memtable: &&Arc<Memtable>| flushed.is_none_or(|gone| !Arc::ptr_eq(memtable, gone));
    sealed.iter().filter(stays).cloned().collect()
}

/// A lock whose holder cannot leave it half changed.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
