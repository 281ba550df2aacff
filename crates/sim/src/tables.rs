//! The tables of a simulated node: the machine's own in memory, with a second handle for the world,
//! which survives the process that uses them, says what a power cut leaves, and can spoil them.

use naust_machine::{Fault, Mark, MemDone, MemJob, MemReader, MemTables, Tables, TreeId};
use naust_wire::Offset;
use naust_wire::options::KeyspaceOptions;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// See the module. Clones are the same tables.
#[derive(Clone, Default)]
pub struct SimTables {
    tables: Arc<Mutex<MemTables>>,
    /// Whatever a row or a job needs is damaged, for good.
    spoilt: Arc<AtomicBool>,
}

impl SimTables {
    /// Tables that were copied from another replica, whole.
    #[must_use]
    pub fn of(tables: MemTables) -> SimTables {
        SimTables { tables: Arc::new(Mutex::new(tables)), ..SimTables::default() }
    }

    /// What is there after a power cut, or after the end of the process.
    #[must_use]
    pub fn crash(&self) -> SimTables {
        let tables = Arc::new(Mutex::new(self.tables().crash()));
        SimTables { tables, spoilt: Arc::clone(&self.spoilt) }
    }

    /// From now on they are damaged where the next row or the end of the next job looks.
    pub fn spoil(&self) {
        self.spoilt.store(true, Ordering::Relaxed);
    }

    fn check(&self) -> Result<(), Fault> {
        match self.spoilt.load(Ordering::Relaxed) {
            true => Err(Fault { what: "a damaged block".to_owned(), disk_full: false }),
            false => Ok(()),
        }
    }

    fn tables(&self) -> MutexGuard<'_, MemTables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tables for SimTables {
    type Reader = MemReader;
    type Job = MemJob;

    fn reader(&self) -> MemReader {
        self.tables().reader()
    }

    fn make(&mut self, tree: TreeId, options: &KeyspaceOptions) -> Result<(), Fault> {
        self.tables().make(tree, options)
    }

    fn trees(&self) -> Vec<TreeId> {
        self.tables().trees()
    }

    fn put(
        &mut self,
        tree: TreeId,
        key: &[u8],
        at: Offset,
        value: Option<&[u8]>,
    ) -> Result<(), Fault> {
        self.check()?;
        self.tables().put(tree, key, at, value)
    }

    fn unflushed_bytes(&self, tree: TreeId) -> u64 {
        self.tables().unflushed_bytes(tree)
    }

    fn flushing_bytes(&self) -> u64 {
        self.tables().flushing_bytes()
    }

    fn backlog(&self) -> usize {
        self.tables().backlog()
    }

    fn rotate(&mut self, trees: &[TreeId], mark: Mark) -> Result<(), Fault> {
        self.tables().rotate(trees, mark)
    }

    fn mark(&self, tree: TreeId) -> Mark {
        self.tables().mark(tree)
    }

    fn set_history_floor(&mut self, floor: Offset) {
        self.tables().set_history_floor(floor);
    }

    fn set_retention_floor(&mut self, tree: TreeId, floor: Offset) {
        self.tables().set_retention_floor(tree, floor);
    }

    fn job(&mut self) -> Option<MemJob> {
        self.tables().job()
    }

    fn done(&mut self, done: MemDone) -> Result<(), Fault> {
        self.check()?;
        self.tables().done(done)
    }

    fn size(&self, tree: TreeId) -> (u64, u64) {
        self.tables().size(tree)
    }
}
