//! The tables of a simulated node: the machine's own in memory, with a second handle for the world,
//! which survives the process that uses them, says what a power cut leaves, and can spoil them or
//! leave them without space.

use naust_machine::{
    Checked, Fault, KeyRange, Mark, MemDone, MemExport, MemJob, MemReader, MemTables, Tables,
    TablesJob, TablesReader, TreeId, Version, Visit,
};
use naust_wire::Offset;
use naust_wire::options::KeyspaceOptions;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// See the module. Clones are the same tables.
#[derive(Clone, Default)]
pub struct SimTables {
    tables: Arc<Mutex<MemTables>>,
    damage: Damage,
    /// Their files are gone.
    lost: Arc<AtomicBool>,
    /// Their disk has no space.
    full: Arc<AtomicBool>,
    /// What failed for lack of space, to be done again.
    again: Arc<Mutex<VecDeque<MemJob>>>,
}

/// A flush or a compaction, if there is space.
pub struct SimJob {
    job: MemJob,
    full: Arc<AtomicBool>,
}

/// What one came to.
pub enum SimDone {
    /// It was done.
    Done(MemDone),
    /// There was no space.
    Full(MemJob),
}

impl TablesJob for SimJob {
    type Done = SimDone;

    fn run(self) -> SimDone {
        match self.full.load(Ordering::Relaxed) {
            true => SimDone::Full(self.job),
            false => SimDone::Done(self.job.run()),
        }
    }
}

/// Whether whatever a row, a read or a job needs is damaged, for good.
#[derive(Clone, Default)]
struct Damage(Arc<AtomicBool>);

impl Damage {
    fn check(&self) -> Result<(), Fault> {
        match self.0.load(Ordering::Relaxed) {
            true => Err(Fault { what: "a damaged block".to_owned(), disk_full: false }),
            false => Ok(()),
        }
    }
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
        SimTables {
            tables: Arc::new(Mutex::new(self.tables().crash())),
            damage: self.damage.clone(),
            lost: Arc::clone(&self.lost),
            full: Arc::clone(&self.full),
            again: Arc::default(),
        }
    }

    /// From now on they are damaged where the next row, the next read or the end of the next job
    /// looks.
    pub fn spoil(&self) {
        self.damage.0.store(true, Ordering::Relaxed);
    }

    /// From now on their disk has no space, or has it again.
    pub fn fill(&self, is_full: bool) {
        self.full.store(is_full, Ordering::Relaxed);
    }

    fn again(&self) -> MutexGuard<'_, VecDeque<MemJob>> {
        self.again.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Their files are gone: whoever opens them finds nothing.
    pub fn lose(&self) {
        self.lost.store(true, Ordering::Relaxed);
    }

    /// Whether they are.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Relaxed)
    }

    /// Whether they are damaged or gone.
    #[must_use]
    pub fn is_spoilt(&self) -> bool {
        self.is_lost() || self.damage.check().is_err()
    }

    fn tables(&self) -> MutexGuard<'_, MemTables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tables for SimTables {
    type Reader = SimReader;
    type Job = SimJob;

    fn reader(&self) -> SimReader {
        SimReader { reader: self.tables().reader(), damage: self.damage.clone() }
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
        self.damage.check()?;
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

    fn job(&mut self) -> Option<SimJob> {
        let again = self.again().pop_front();
        let job = again.or_else(|| self.tables().job())?;
        Some(SimJob { job, full: Arc::clone(&self.full) })
    }

    fn done(&mut self, done: SimDone) -> Result<(), Fault> {
        self.damage.check()?;
        match done {
            SimDone::Done(done) => self.tables().done(done),
            SimDone::Full(job) => {
                self.again().push_back(job);
                Err(Fault { what: "no space left".to_owned(), disk_full: true })
            }
        }
    }

    fn size(&self, tree: TreeId) -> (u64, u64) {
        self.tables().size(tree)
    }
}

/// Reads [`SimTables`] from any thread, as far as they are not damaged.
#[derive(Clone)]
pub struct SimReader {
    reader: MemReader,
    damage: Damage,
}

impl TablesReader for SimReader {
    type Value = <MemReader as TablesReader>::Value;
    type Export = MemExport;

    fn get(
        &self,
        tree: TreeId,
        key: &[u8],
        at: Offset,
    ) -> Result<Option<Version<Self::Value>>, Fault> {
        self.damage.check()?;
        self.reader.get(tree, key, at)
    }

    fn scan(
        &self,
        tree: TreeId,
        range: KeyRange<'_>,
        reverse: bool,
        at: Offset,
        visit: Visit<'_>,
    ) -> Result<(), Fault> {
        self.damage.check()?;
        self.reader.scan(tree, range, reverse, at, visit)
    }

    fn check(&self, from: u64, bytes: u64) -> Result<Checked, Fault> {
        self.damage.check()?;
        self.reader.check(from, bytes)
    }

    /// Files are checked when they are read for another replica.
    fn export(&self) -> Result<MemExport, Fault> {
        self.damage.check()?;
        self.reader.export()
    }
}
