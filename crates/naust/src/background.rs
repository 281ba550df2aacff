//! The background threads: whatever takes time and is not waited for by a single commit.
//!
//! Zero-fills have a thread of their own: a busy log uses up what lies ahead of it in some ten
//! milliseconds, and then waits, while a flush takes half a second. Trims, opens, flushes and what
//! the journal wants are *urgent*: if they stay away for long, commits wait, or cost more.
//! Compactions and removals are *slow*, and never take the last thread.
//!
//! What waits is bounded by what a shard may have under way (one zero-fill, one trim, one opening,
//! one mend, one step of a scrub a worker, one chore of the journal, and
//! [`TABLE_JOBS_PER_SHARD_MAX`](naust_wire::limits::TABLE_JOBS_PER_SHARD_MAX) flushes and
//! compactions) times the shards that there are. Removals alone are of shards that are no more.

use crate::wiring::Wiring;
use crate::worker::Input;
use crate::{journal, opening, transfers, views};
use naust_machine::Checked;
use naust_node::Event;
use naust_node::transfer::Adopt;
use naust_store::LsmJob;
use naust_wire::ShardId;
use naust_wire::limits::NAMESPACES_MAX;
use naust_wire::options::NamespaceOptions;
use std::collections::{BTreeSet, VecDeque};
use std::sync::atomic::Ordering;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Removals that may wait. What is beyond is left to the sweep of the next start.
const REMOVALS_MAX: usize = NAMESPACES_MAX;

/// Something to do.
pub enum Job {
    /// Zero-fill behind the end of a log.
    Extend { worker: usize, shard: ShardId, extend: naust_log::Extend },
    /// Shrink an old segment.
    Trim { worker: usize, shard: ShardId, trim: naust_log::Trim },
    /// Open or create a shard.
    Open { worker: usize, shard: ShardId, options: NamespaceOptions, begin: Option<Vec<u8>> },
    /// Have a copy take the place of a replica that is closed, and open it.
    Adopt { worker: usize, shard: ShardId, options: NamespaceOptions, adopt: Box<Adopt> },
    /// Let new tables take the place of damaged ones, and open the shard.
    Refold { worker: usize, shard: ShardId, options: NamespaceOptions },
    /// Read a part of a log again.
    Scrub { worker: usize, shard: ShardId, scrub: naust_log::Scrub, bytes: u64 },
    /// Read some files of a shard's tables again.
    Check { worker: usize, shard: ShardId, from: u64, bytes: u64 },
    /// Write another replica's frames over a damaged place.
    Mend { worker: usize, shard: ShardId, mend: naust_log::Mend },
    /// Make the journal, or make room in it.
    Journal(naust_log::journal::Chore),
    /// Flush or compact tables.
    Tables { worker: usize, shard: ShardId, job: LsmJob },
    /// Remove the directory of a shard that nothing uses any more.
    Remove { shard: ShardId },
    /// Remove what is left of shards below `below` that are not `kept`.
    Sweep { below: ShardId, kept: BTreeSet<ShardId> },
}

impl Job {
    fn is_slow(&self) -> bool {
        match self {
            Job::Extend { .. } | Job::Trim { .. } | Job::Open { .. } | Job::Mend { .. } => false,
            Job::Journal(_) => false,
            Job::Tables { job, .. } => !job.is_flush(),
            Job::Remove { .. } | Job::Sweep { .. } | Job::Adopt { .. } => true,
            Job::Refold { .. } | Job::Scrub { .. } | Job::Check { .. } => true,
        }
    }
}

/// What waits for the background threads.
pub struct Background {
    state: Mutex<State>,
    changed: Condvar,
    /// There is something to zero-fill.
    filling: Condvar,
    /// Threads that may do slow jobs at a time.
    slow_max: usize,
}

#[derive(Default)]
struct State {
    fills: VecDeque<Job>,
    urgent: VecDeque<Job>,
    slow: VecDeque<Job>,
    slow_running: usize,
    removals: usize,
    closed: bool,
}

impl Background {
    /// For so many threads, at least two.
    #[must_use]
    pub fn new(threads: usize) -> Background {
        assert!(threads >= 2, "slow jobs never take the last background thread");
        Background {
            state: Mutex::new(State::default()),
            changed: Condvar::new(),
            filling: Condvar::new(),
            slow_max: threads - 1,
        }
    }

    /// Adds a job; at the end of the node's life it is dropped instead.
    pub fn push(&self, job: Job) {
        let mut state = self.lock();
        if state.closed {
            return;
        }
        if matches!(job, Job::Extend { .. }) {
            state.fills.push_back(job);
            drop(state);
            self.filling.notify_one();
            return;
        }
        if matches!(job, Job::Remove { .. }) {
            if state.removals >= REMOVALS_MAX {
                return;
            }
            state.removals += 1;
        }
        let queue = if job.is_slow() { &mut state.slow } else { &mut state.urgent };
        queue.push_back(job);
        drop(state);
        self.changed.notify_one();
    }

    /// Drops what waits and takes nothing more.
    pub fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.fills.clear();
        state.urgent.clear();
        state.slow.clear();
        drop(state);
        self.changed.notify_all();
        self.filling.notify_all();
    }

    /// Zero-fills until [`Background::close`]. For one thread.
    pub fn fill(&self, wiring: &Wiring) {
        let mut state = self.lock();
        while !state.closed {
            let Some(job) = state.fills.pop_front() else {
                state = self.filling.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            drop(state);
            do_job(wiring, job);
            state = self.lock();
        }
    }

    /// Does all else until [`Background::close`]. To be called by each of the threads.
    pub fn run(&self, wiring: &Wiring) {
        let mut state = self.lock();
        while !state.closed {
            let urgent = state.urgent.pop_front();
            let is_slow = urgent.is_none();
            let job = match urgent {
                None if state.slow_running < self.slow_max => state.slow.pop_front(),
                urgent => urgent,
            };
            let Some(job) = job else {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            state.slow_running += usize::from(is_slow);
            state.removals -= usize::from(matches!(job, Job::Remove { .. }));
            drop(state);
            do_job(wiring, job);
            state = self.lock();
            if is_slow {
                state.slow_running -= 1;
                self.changed.notify_one();
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn do_job(wiring: &Wiring, job: Job) {
    match job {
        Job::Extend { worker, shard, extend } => {
            wiring.tell(worker, Input::Extended { shard, extended: extend.run() });
        }
        Job::Trim { worker, shard, trim } => {
            wiring.tell(worker, Input::Trimmed { shard, trimmed: trim.run() });
        }
        Job::Open { worker, shard, options, begin } => {
            opening::open(wiring, worker, shard, options, begin.as_deref());
        }
        Job::Adopt { worker, shard, options, adopt } => {
            transfers::adopt(wiring, worker, shard, options, &adopt);
        }
        Job::Refold { worker, shard, options } => {
            opening::refold(wiring, worker, shard, options);
        }
        Job::Scrub { worker, shard, mut scrub, bytes } => {
            let seen = scrub.step(bytes);
            let read = seen.as_ref().map_or(0, |seen| seen.bytes);
            wiring.counters.repairs.scrubbed_bytes.fetch_add(read, Ordering::Relaxed);
            wiring.tell(worker, Input::Scrubbed { shard, scrub: Box::new(scrub), seen });
        }
        Job::Check { worker, shard, from, bytes } => {
            let readers = wiring.catalog.readers(shard);
            let checked = readers.map(|readers| readers.tables.check(from, bytes));
            let checked = checked.unwrap_or_else(|| Ok(Checked::default()));
            let read = checked.as_ref().map_or(0, |checked| checked.bytes);
            wiring.counters.repairs.scrubbed_bytes.fetch_add(read, Ordering::Relaxed);
            wiring.tell(worker, transfers::told(Event::Checked { shard, checked }));
        }
        Job::Mend { worker, shard, mend } => {
            let at = mend.at();
            let outcome = mend.run();
            wiring.tell(worker, Input::Mended { shard, at, outcome });
        }
        Job::Journal(chore) => journal::run(wiring, chore),
        Job::Tables { worker, shard, job } => {
            use naust_machine::TablesJob;
            views::tell(wiring, worker, views::Input::Done { shard, done: job.run() });
        }
        Job::Remove { shard } => {
            // Its number may come back, with a copy of another replica.
            if journal::settle(wiring, shard).is_ok()
                && let Err(error) = wiring.data.remove(shard)
            {
                wiring.life.fail(error.to_string());
            }
        }
        Job::Sweep { below, kept } => {
            // What can't be removed now harms nobody, and is tried again at the next start.
            if let Err(error) = wiring.data.sweep_shards(below, &kept) {
                eprintln!("naust: {error}");
            }
        }
    }
}
