//! The disk threads: they write what shards have queued, one sync a touched file.
//!
//! A shard always has the same thread and at most one write under way, so its frames become durable
//! in order; several threads keep several files busy at once.
//!
//! Small writes of several shards are another matter: a sync each would cost more than all the
//! rest. When [`TOGETHER_MIN`] of them are under way, further ones go to one thread more, which
//! writes what it finds with one sync, in the journal ([`naust_log::journal`]).

use crate::background;
use crate::queue::{Queue, Refused};
use crate::wiring::Wiring;
use crate::worker::Input;
use naust_wire::ShardId;
use naust_wire::limits::JOURNAL_PARTS_MAX;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Writes that may wait for one disk thread: every shard has at most one of log bytes and one of
/// its superblock.
pub const JOBS_MAX: usize = 4 * naust_wire::limits::NAMESPACES_MAX;
/// Small writes under way from which on they share syncs: with fewer, syncs side by side are sooner
/// done.
const TOGETHER_MIN: usize = 4;

/// A write and whom to tell.
pub struct Job {
    /// The worker that owns the shard.
    pub worker: usize,
    /// Whose log.
    pub shard: ShardId,
    /// What to do.
    pub write: naust_log::Write,
}

/// The way to the thread for small writes.
pub struct Together {
    /// What waits for it.
    pub queue: std::sync::Arc<Queue<Job>>,
    /// Small writes under way, wherever.
    under_way: AtomicUsize,
}

impl Together {
    /// Over the queue of the thread.
    #[must_use]
    pub fn new(queue: std::sync::Arc<Queue<Job>>) -> Together {
        Together { queue, under_way: AtomicUsize::new(0) }
    }

    /// Takes those of `jobs` that are better done together.
    ///
    /// # Errors
    /// [`Refused`]; they are dropped.
    pub fn take(&self, jobs: &mut Vec<Job>) -> Result<(), Refused> {
        let is_small = |job: &Job| job.write.is_small();
        let small = jobs.iter().filter(|job| is_small(job)).count();
        if self.under_way.fetch_add(small, Ordering::Relaxed) + small < TOGETHER_MIN {
            return Ok(());
        }
        self.queue.push_together(&mut jobs.extract_if(.., |job| is_small(job)).collect())
    }

    fn done(&self, small: usize) {
        self.under_way.fetch_sub(small, Ordering::Relaxed);
    }
}

/// Works until the queue is closed and empty, or the node's life ends.
pub fn run(wiring: &Wiring, queue: &Queue<Job>) {
    let mut jobs = VecDeque::new();
    while queue.wait(None, &mut jobs) {
        write_apart(wiring, &mut jobs);
    }
}

/// The same, for the thread of small writes.
pub fn run_together(wiring: &Wiring, queue: &Queue<Job>) {
    let mut jobs = VecDeque::new();
    let mut told: Vec<Vec<Input>> = wiring.workers.iter().map(|_| Vec::new()).collect();
    while queue.wait(None, &mut jobs) {
        while jobs.len() > 1 && !wiring.life.is_ending() {
            write_together(wiring, &mut jobs, &mut told);
        }
        write_apart(wiring, &mut jobs);
        if let Some(chore) = wiring.journal.chore() {
            wiring.background.push(background::Job::Journal(chore));
        }
    }
}

/// One sync each.
fn write_apart(wiring: &Wiring, jobs: &mut VecDeque<Job>) {
    // A disk that has several writes at once is through with all of them sooner.
    if jobs.len() > 1 {
        jobs.iter_mut().for_each(|job| job.write.begin());
    }
    for Job { worker, shard, write } in jobs.drain(..) {
        // The time to drain is over: nobody is told of what is not durable yet.
        if wiring.life.is_ending() {
            return;
        }
        let small = usize::from(write.is_small());
        let written = write.run();
        wiring.together.done(small);
        wiring.tell(worker, Input::Written { shard, written });
    }
}

/// One sync for all, if the journal has room.
fn write_together(wiring: &Wiring, jobs: &mut VecDeque<Job>, told: &mut [Vec<Input>]) {
    let count = jobs.len().min(JOURNAL_PARTS_MAX);
    let mut whom = Vec::with_capacity(count);
    let mut writes = Vec::with_capacity(count);
    for Job { worker, shard, write } in jobs.drain(..count) {
        whom.push((worker, shard));
        writes.push(write);
    }
    let written = wiring.journal.commit(writes);
    wiring.together.done(count);
    for ((worker, shard), written) in whom.into_iter().zip(written) {
        told[worker].push(Input::Written { shard, written });
    }
    for (worker, inputs) in told.iter_mut().enumerate().filter(|(_, inputs)| !inputs.is_empty()) {
        // A closed queue: the node's life is ending, and so is this thread's.
        let _ = wiring.workers[worker].push_all(inputs);
    }
}
