//! The disk threads: they write what shards have queued, one sync a touched file.
//!
//! A shard always has the same thread and at most one write under way, so its frames become durable
//! in order; several threads keep several files busy at once.

use crate::queue::Queue;
use crate::wiring::Wiring;
use crate::worker::Input;
use naust_wire::ShardId;
use std::collections::VecDeque;

/// Writes that may wait for one disk thread: every shard has at most one of log bytes and one of
/// its superblock.
pub const JOBS_MAX: usize = 4 * naust_wire::limits::NAMESPACES_MAX;

/// A write and whom to tell.
pub struct Job {
    /// The worker that owns the shard.
    pub worker: usize,
    /// Whose log.
    pub shard: ShardId,
    /// What to do.
    pub write: naust_log::Write,
}

/// Works until the queue is closed and empty, or the node's life ends.
pub fn run(wiring: &Wiring, queue: &Queue<Job>) {
    let mut jobs = VecDeque::new();
    while queue.wait(None, &mut jobs) {
        // A disk that has several writes at once is through with all of them sooner.
        if jobs.len() > 1 {
            jobs.iter_mut().for_each(|job| job.write.begin());
        }
        for Job { worker, shard, write } in jobs.drain(..) {
            // The time to drain is over: nobody is told of what is not durable yet.
            if wiring.life.is_ending() {
                return;
            }
            let written = write.run();
            wiring.tell(worker, Input::Written { shard, written });
        }
    }
}
