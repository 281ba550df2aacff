//! The thread that reads replicas for other nodes, and writes what is copied from them.
//!
//! It has a thread of its own because it waits for the disk, at every 32 MiB for a sync: behind
//! that no client's read should wait. And it gives way to all other threads: what it does takes
//! tenths of milliseconds at a time, and commits wait behind it for a processor if it may keep it.

use crate::queue::Queue;
use crate::transfers;
use crate::wiring::Wiring;
use naust_node::transfer;
use naust_wire::ShardId;
use std::collections::VecDeque;

/// What may wait: far more than what is asked for ahead in all transfers that may be under way.
pub const INPUTS_MAX: usize = crate::reads::INPUTS_MAX;

/// What the thread is told.
pub struct Input {
    /// Whose shard it is about.
    pub worker: usize,
    /// The shard.
    pub shard: ShardId,
    /// What is to be done.
    pub step: Step,
}

/// A step of a transfer.
pub enum Step {
    /// Take hold of the files of a replica for another node.
    Export(transfer::Begin),
    /// Read a part of them.
    Read(transfer::Part),
    /// Let go of them.
    End(u64),
    /// Put what is copied beside a replica.
    Import { number: u64, import: transfer::Import },
}

/// How far it gives way. With the least weight that there is (19), it might not be run for long on
/// a machine that is never idle, while it holds a queue's lock.
#[cfg(target_os = "linux")]
const NICENESS: i32 = 10;

/// A thread of Linux has a priority of its own. Where the system refuses, or has none for threads,
/// copies go on as well, if not as unnoticed.
fn give_way() {
    #[cfg(target_os = "linux")]
    let _ = rustix::process::setpriority_process(None, NICENESS);
}

/// Works until the queue is closed and empty.
pub fn run(wiring: &Wiring, queue: &Queue<Input>) {
    give_way();
    let mut inputs = VecDeque::new();
    while queue.wait(None, &mut inputs) {
        for Input { worker, shard, step } in inputs.drain(..) {
            // The time to drain is over: nobody waits for what is still queued.
            if wiring.life.is_ending() {
                return;
            }
            let event = match step {
                Step::Export(begin) => {
                    let readers = wiring.catalog.readers(shard);
                    Some(transfers::export(wiring, shard, &begin, readers.as_ref()))
                }
                Step::Read(part) => Some(transfers::read(wiring, shard, part)),
                Step::End(number) => {
                    transfers::end(wiring, shard, number);
                    None
                }
                Step::Import { number, import } => transfers::import(wiring, shard, number, import),
            };
            if let Some(event) = event {
                wiring.tell(worker, transfers::told(event));
            }
        }
    }
}
