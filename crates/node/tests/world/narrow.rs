//! Tables in memory whose flushes can find the disk full or damaged, and whose rows can meet
//! damage.

use naust_machine::{
    Fault, Mark, MemDone, MemJob, MemReader, MemTables, Tables, TablesJob, TreeId,
};
use naust_wire::Offset;
use naust_wire::options::KeyspaceOptions;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What of a shard's tables can't be read any more.
#[derive(Default)]
pub struct Damage {
    /// Whatever a row needs.
    pub rows: AtomicBool,
    /// Whatever flushes and compactions need.
    pub jobs: AtomicBool,
}

impl Damage {
    fn meet(damage: &AtomicBool) -> Result<(), Fault> {
        match damage.load(Ordering::Relaxed) {
            true => Err(Fault { what: "a damaged block".to_string(), disk_full: false }),
            false => Ok(()),
        }
    }
}

#[derive(Default)]
pub struct Narrow {
    tables: MemTables,
    is_full: Arc<AtomicBool>,
    damage: Arc<Damage>,
    /// What failed for lack of space, to be done again.
    again: Option<MemJob>,
}

pub struct Job {
    job: MemJob,
    is_full: Arc<AtomicBool>,
}

pub enum Done {
    Done(MemDone),
    Full(MemJob),
}

impl Narrow {
    pub fn new(tables: MemTables, is_full: Arc<AtomicBool>, damage: Arc<Damage>) -> Narrow {
        Narrow { tables, is_full, damage, again: None }
    }
}

impl TablesJob for Job {
    type Done = Done;

    fn run(self) -> Done {
        if self.is_full.load(Ordering::Relaxed) {
            return Done::Full(self.job);
        }
        Done::Done(self.job.run())
    }
}

impl Tables for Narrow {
    type Reader = MemReader;
    type Job = Job;

    fn reader(&self) -> MemReader {
        self.tables.reader()
    }

    fn make(&mut self, tree: TreeId, options: &KeyspaceOptions) -> Result<(), Fault> {
        self.tables.make(tree, options)
    }

    fn trees(&self) -> Vec<TreeId> {
        self.tables.trees()
    }

    fn put(
        &mut self,
        tree: TreeId,
        key: &[u8],
        at: Offset,
        value: Option<&[u8]>,
    ) -> Result<(), Fault> {
        Damage::meet(&self.damage.rows)?;
        self.tables.put(tree, key, at, value)
    }

    fn unflushed_bytes(&self, tree: TreeId) -> u64 {
        self.tables.unflushed_bytes(tree)
    }

    fn flushing_bytes(&self) -> u64 {
        self.tables.flushing_bytes()
    }

    fn backlog(&self) -> usize {
        self.tables.backlog()
    }

    fn rotate(&mut self, trees: &[TreeId], mark: Mark) -> Result<(), Fault> {
        self.tables.rotate(trees, mark)
    }

    fn mark(&self, tree: TreeId) -> Mark {
        self.tables.mark(tree)
    }

    fn set_history_floor(&mut self, floor: Offset) {
        self.tables.set_history_floor(floor);
    }

    fn set_retention_floor(&mut self, tree: TreeId, floor: Offset) {
        self.tables.set_retention_floor(tree, floor);
    }

    fn job(&mut self) -> Option<Job> {
        let job = self.again.take().or_else(|| self.tables.job())?;
        Some(Job { job, is_full: Arc::clone(&self.is_full) })
    }

    fn done(&mut self, done: Done) -> Result<(), Fault> {
        Damage::meet(&self.damage.jobs)?;
        match done {
            Done::Done(done) => self.tables.done(done),
            Done::Full(job) => {
                self.again = Some(job);
                Err(Fault { what: "no space left".to_string(), disk_full: true })
            }
        }
    }

    fn size(&self, tree: TreeId) -> (u64, u64) {
        self.tables.size(tree)
    }
}
