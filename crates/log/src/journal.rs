//! One redo journal for small writes of many logs.
//!
//! Every shard has a log of its own, so where many shards are busy at once and each has little to
//! write, every few frames would pay for a sync of their own. A disk thread that finds several
//! small writes of different logs puts each into its segment *without* a sync, all of them together
//! into one record here, and syncs that: one sync for all. A log that is written to alone never
//! comes here.
//!
//! ```text
//!  file `redo`:  half 0                           half 1
//!  0      512                              half                                   2 × half
//!  +------+--------+--------+-----+--------+------+--------+--------+---------------------+
//!  |header|record 1|record 2|  …  |        |header|record 7|record 8|  zeros, or what was |
//!  +------+--------+--------+-----+--------+------+--------+--------+---------------------+
//! ```
//! The file is made once in a process's life, when it is first needed, and zero-filled. Records are
//! written one after the other, each synced before the next is begun, and numbered without gaps.
//! When a half is full the other one is used, if it is *clean*: every segment that its records went
//! to was synced, and a new header says that none of its records counts any more. Cleaning is a
//! [`Chore`] for a background thread, ahead of need; no write waits for it, but goes the old way.
//!
//! # What is true at every moment a power cut may come
//!
//! 1. **A write that was told to its log as durable is synced in its segment, or stands in a record
//!    that counts.** It is told after the record is synced; the record counts until its half has a
//!    new header, and that is written after the segments are synced.
//! 2. **Before any log is opened, the records that count are written into the segments again** in
//!    their order ([`replay`]), these are synced, and the file is removed, durably. A second cut in
//!    between repeats that: nothing else has changed.
//! 3. **Replay never puts old bytes over newer ones.** Bytes of a log change in four ways besides
//!    being appended: a suffix is cut, a segment is removed or made sparse by trimming, a damaged
//!    place is mended, a whole replica is replaced, removed, or opened again (which cuts a torn
//!    tail). Whoever is about to do one of these *settles* the log first: its segments are synced,
//!    then a record says that no earlier one of this log counts, and is synced; only then do bytes
//!    change. A cut before that record: the same bytes are written again. Behind it: nothing of the
//!    log is. The record outlives those it speaks of, since halves are given new headers in turn.
//!    Appending needs nothing: a log has one write under way at a time, each behind the end of the
//!    last, so what is appended without the journal lies beside what went through it.
//! 4. **Replay makes no file.** Only writes to a segment whose file has its durable name come here,
//!    so a file that is missing was trimmed, or was lost, which its log finds out by itself.
//! 5. **Marks stay true.** A frame says up to where its disk was synced when it was written; what
//!    the journal held by then is in the segments again before anybody reads the mark.
//! 6. **Torn and damaged are told apart.** A record that is bad and has no later one behind it was
//!    never told as durable: it is the end. If a later record of the same half is good, or the next
//!    half begins with a later number than the next, it was, and is damaged: nothing is replayed,
//!    and whoever opens is told. As in a log, rot in the very last record can't be told from a
//!    tear. Old bytes are never taken for records: each carries the file's random id and its half's
//!    generation, which the header raises; bodies of users can't forge them.
//!
//! A write with a superblock, a cut, a footer, zeros or a new file goes the old way
//! ([`Write::run`]), and so do all if there is no space for the file. A sync or a write of the file
//! that fails is as bad as one of a log: nothing is tried again, and the node stops; but for a lack
//! of space met by a write (on file systems that write everything to new places), which costs only
//! the old way.

mod disk;
mod record;
mod redo;
pub mod replay;

pub use disk::Journaled;
pub(crate) use record::Part;
pub use replay::{ReplayError, Replayed};

use crate::Fault;
use crate::disk::Disk;
use crate::write::{Write, Written};
use naust_wire::ShardId;
use naust_wire::planted::{self, Bug};
use redo::Redo;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Name of the file.
pub const NAME: &str = "redo";
/// Name under which it is made.
const NAME_NEW: &str = "redo.new";

/// See the module. Shared by the threads of a node.
pub struct Journal {
    disk: Arc<dyn Disk>,
    half_bytes: u64,
    id: u64,
    state: Mutex<State>,
}

struct State {
    place: Place,
    /// A [`Chore`] was given out and is not done.
    is_chore_out: bool,
    /// Something went wrong that is never tried again.
    has_failed: bool,
}

enum Place {
    /// Nobody wanted it yet.
    Absent,
    /// Somebody would have used it.
    Wanted,
    /// It is there.
    Open(Redo),
    /// It could not be made, or was closed.
    Gone,
}

/// Something for a background thread to do.
#[must_use = "a chore must be run"]
pub struct Chore(Arc<Journal>);

/// What went wrong with a [`Chore`].
#[derive(Debug, thiserror::Error)]
pub enum ChoreError {
    /// The file can't be made: there is no journal in this life of the process, and all writes go
    /// the old way.
    #[error("there is no journal for small writes: {0}")]
    Unmade(Fault),
    /// The node has to stop.
    #[error(transparent)]
    Fault(#[from] Fault),
}

impl Journal {
    /// The journal in a directory, which may hold other files, of twice `half_bytes`; nothing is
    /// made yet. What an earlier life left there was replayed ([`replay::run`]). `id` is a random
    /// number: nobody else knows it, and no other journal has it.
    ///
    /// # Panics
    /// If halves are not whole sectors: a bug of the caller.
    #[must_use]
    pub fn new(disk: Arc<dyn Disk>, half_bytes: u64, id: u64) -> Arc<Journal> {
        assert!(half_bytes.is_multiple_of(record::SECTOR_BYTES as u64), "halves are whole sectors");
        let state = State { place: Place::Absent, is_chore_out: false, has_failed: false };
        Arc::new(Journal { disk, half_bytes, id, state: Mutex::new(state) })
    }

    /// Runs writes, those of logs over a [`Journaled`] disk of this journal together: with one sync
    /// if they are [small](Write::is_small) and there is room, else each as [`Write::run`] does.
    /// What came of them is in their order. Blocking.
    pub fn commit(&self, mut writes: Vec<Write>) -> Vec<Written> {
        writes.iter_mut().for_each(Write::put);
        match self.record(&writes) {
            Ok(true) => {
                let mut syncs = 1;
                let recorded = |write: Write| match write.part().is_some() {
                    true => write.recorded(std::mem::take(&mut syncs)),
                    false => write.run(),
                };
                writes.into_iter().map(recorded).collect()
            }
            Ok(false) => {
                writes.iter().for_each(Write::hint);
                writes.into_iter().map(Write::run).collect()
            }
            Err(fault) => writes.iter().map(|_| Written::failed(fault.again())).collect(),
        }
    }

    /// Makes a record of what was put into segments; `false`: it can't take it now.
    fn record(&self, writes: &[Write]) -> Result<bool, Fault> {
        let parts: Vec<_> = writes.iter().filter_map(Write::part).collect();
        if parts.is_empty() {
            return Ok(false);
        }
        let mut state = self.lock();
        let State { place, has_failed, .. } = &mut *state;
        if *has_failed {
            return Err(failed());
        }
        match place {
            Place::Absent => *place = Place::Wanted,
            Place::Wanted | Place::Gone => {}
            Place::Open(redo) => {
                let recorded = redo.record(&parts);
                *has_failed = recorded.is_err();
                return recorded;
            }
        }
        Ok(false)
    }

    /// Bytes of this log that were written are about to change, or its files to go: from now on
    /// nothing that went through the journal before is written to it again. Blocking.
    ///
    /// # Errors
    /// Of the disk: the node has to stop.
    pub fn settle(&self, shard: ShardId) -> Result<(), Fault> {
        let mut state = self.lock();
        let State { place, has_failed, .. } = &mut *state;
        match place {
            Place::Open(redo) if redo.holds(shard) && !planted::has(Bug::ReplayOverCut) => {
                if *has_failed {
                    return Err(failed());
                }
                let settled = redo.settle(shard);
                *has_failed = settled.is_err();
                settled
            }
            _ => Ok(()),
        }
    }

    /// What is to be done in the background now; each is given out once.
    pub fn chore(self: &Arc<Self>) -> Option<Chore> {
        let mut state = self.lock();
        let is_due = match &state.place {
            Place::Wanted => true,
            Place::Open(redo) => redo.unclean().is_some(),
            Place::Absent | Place::Gone => false,
        };
        if !is_due || state.is_chore_out || state.has_failed {
            return None;
        }
        state.is_chore_out = true;
        Some(Chore(Arc::clone(self)))
    }

    /// The orderly end, when no log is written to any more: segments are synced, and the file goes.
    /// Blocking.
    ///
    /// # Errors
    /// Of the disk. The file is still there then.
    pub fn close(&self) -> Result<(), Fault> {
        let mut state = self.lock();
        if state.has_failed {
            return Err(failed());
        }
        if let Place::Open(redo) = std::mem::replace(&mut state.place, Place::Gone) {
            redo.sync_all()?;
            self.disk.remove(NAME).map_err(Fault::at("remove", NAME))?;
            self.disk.sync().map_err(Fault::at("sync names of", NAME))?;
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// After a failure nothing is tried again.
fn failed() -> Fault {
    Fault::of("use", NAME, std::io::Error::other("it failed before"))
}

impl Chore {
    /// Does it. Blocking.
    ///
    /// # Errors
    /// [`ChoreError`].
    pub fn run(self) -> Result<(), ChoreError> {
        let Chore(journal) = self;
        let unclean = match &journal.lock().place {
            Place::Open(redo) => redo.unclean(),
            _ => None,
        };
        let done = match unclean {
            Some((generation, files)) => journal.clean(generation, &files),
            None => journal.make(),
        };
        let mut state = journal.lock();
        state.is_chore_out = false;
        state.has_failed |= matches!(done, Err(ChoreError::Fault(_)));
        done
    }
}

impl Journal {
    fn make(&self) -> Result<(), ChoreError> {
        let made = Redo::make(&*self.disk, self.half_bytes, self.id);
        let mut state = self.lock();
        // It may have been closed meanwhile.
        if !matches!(state.place, Place::Wanted) {
            return Ok(());
        }
        match made {
            Ok(redo) => state.place = Place::Open(redo),
            Err(fault) => {
                state.place = Place::Gone;
                return Err(ChoreError::Unmade(fault));
            }
        }
        Ok(())
    }

    fn clean(&self, generation: u64, files: &[redo::Dirty]) -> Result<(), ChoreError> {
        // Without the lock: syncs of many segments take their time.
        files.iter().try_for_each(redo::Dirty::sync)?;
        let mut state = self.lock();
        let State { place, has_failed, .. } = &mut *state;
        match place {
            Place::Open(redo) if !*has_failed => Ok(redo.cleaned(generation)?),
            _ => Ok(()),
        }
    }
}
