//! The directory of a log whose small writes may go through a journal.

use super::Journal;
use crate::Fault;
use crate::disk::{Disk, File, Open};
use naust_wire::ShardId;
use std::io;
use std::sync::Arc;

/// A disk over another one. Logs see no difference, but tell the journal before bytes change that
/// went through it.
pub struct Journaled {
    disk: Arc<dyn Disk>,
    journal: Arc<Journal>,
    shard: ShardId,
}

impl Journaled {
    /// For one opening of the log of `shard`, which nobody else has open: what the journal holds of
    /// it from before is [settled](Journal::settle). Blocking.
    ///
    /// # Errors
    /// Of the disk: the node has to stop.
    pub fn new(
        disk: Arc<dyn Disk>,
        journal: Arc<Journal>,
        shard: ShardId,
    ) -> Result<Journaled, Fault> {
        journal.settle(shard)?;
        Ok(Journaled { disk, journal, shard })
    }

    pub(crate) fn shard(&self) -> ShardId {
        self.shard
    }

    pub(crate) fn settle(&self) -> Result<(), Fault> {
        self.journal.settle(self.shard)
    }
}

impl Disk for Journaled {
    fn list(&self) -> io::Result<Vec<String>> {
        self.disk.list()
    }

    fn open(&self, name: &str, open: Open) -> io::Result<Arc<dyn File>> {
        self.disk.open(name, open)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.disk.remove(name)
    }

    fn sync(&self) -> io::Result<()> {
        self.disk.sync()
    }

    fn journaled(&self) -> Option<&Journaled> {
        Some(self)
    }
}
