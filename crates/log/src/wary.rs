//! A file of a log that remembers a failed sync.
//!
//! After a sync that fails, the system counts the pages that it could not write as clean, and tells
//! nobody else: the next sync of the same file succeeds, though what was written is not on the disk
//! (Rebello et al., "Can Applications Recover from fsync Failures?", 2020). Several threads sync a
//! segment: for commits, for zeros ahead of them, and so that a journal need not hold its frames
//! any longer. Whoever syncs after the one that failed, and before the node has stopped, would tell
//! as durable what is lost. So syncs of a file follow one another, and after one that failed, none
//! succeeds, whichever handle it goes through: what came of them is kept when a file is closed.

use crate::disk::File;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// What came of the syncs of a segment's file.
#[derive(Default)]
pub(crate) struct Outcome {
    /// Held while the file is synced: the outcome of one sync is known before the next begins.
    turn: Mutex<()>,
    has_failed: AtomicBool,
}

impl Outcome {
    pub(crate) fn has_failed(&self) -> bool {
        self.has_failed.load(Ordering::Acquire)
    }
}

/// See the module. Handed out by `Shared::file`.
pub(crate) struct Wary {
    file: Arc<dyn File>,
    /// Shared by all handles of the segment.
    outcome: Arc<Outcome>,
}

impl Wary {
    pub(crate) fn new(file: Arc<dyn File>, outcome: Arc<Outcome>) -> Wary {
        Wary { file, outcome }
    }
}

impl File for Wary {
    fn read_at(&self, position: u64, into: &mut [u8]) -> io::Result<usize> {
        self.file.read_at(position, into)
    }

    fn write_at(&self, position: u64, parts: &[&[u8]]) -> io::Result<()> {
        self.file.write_at(position, parts)
    }

    fn begin_sync(&self, position: u64, length: u64) {
        self.file.begin_sync(position, length);
    }

    fn sync(&self) -> io::Result<()> {
        let _turn = self.outcome.turn.lock().unwrap_or_else(PoisonError::into_inner);
        if self.outcome.has_failed() {
            return Err(io::Error::other("a sync of it failed before"));
        }
        let synced = self.file.sync();
        if synced.is_err() {
            self.outcome.has_failed.store(true, Ordering::Release);
        }
        synced
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.file.set_len(length)
    }
}
