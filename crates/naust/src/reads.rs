//! The reads threads: each fetches rows, records and raw frames for the clients of one worker's
//! shards.

use crate::queue::Queue;
use crate::wiring::Wiring;
use crate::worker::Input as WorkerInput;
use naust_node::answer::{self, Job, Readers};
use naust_node::{fetch, repair};
use naust_store::LsmReader;
use naust_wire::ShardId;
use naust_wire::limits::REQUESTS_MAX;
use naust_wire::reply::Failure;
use std::collections::VecDeque;

/// Questions that may wait: as many as a node takes.
pub const INPUTS_MAX: usize = 2 * REQUESTS_MAX;
/// Answers are handed over after so many bytes, so that few large ones don't wait for each other.
const ANSWERS_BYTES: usize = 256 * 1024;

/// What a reads thread is told.
pub enum Input {
    /// Answer a question.
    Job { shard: ShardId, job: Job },
    /// Read frames for another replica.
    Fetch { shard: ShardId, job: fetch::Job },
    /// Read frames for another replica's damaged place.
    Supply { shard: ShardId, job: repair::Supply },
}

/// Works until the queue is closed and empty.
pub fn run(wiring: &Wiring, worker: usize, queue: &Queue<Input>) {
    let mut inputs = VecDeque::new();
    let mut answers = Answers { told: Vec::new(), bytes: 0 };
    while queue.wait(None, &mut inputs) {
        // The shard of the question before: most come in runs for one shard.
        let mut last: Option<(ShardId, Option<Readers<LsmReader>>)> = None;
        for input in inputs.drain(..) {
            // The time to drain is over: nobody waits for what is still queued.
            if wiring.life.is_ending() {
                return;
            }
            let (Input::Job { shard, .. }
            | Input::Fetch { shard, .. }
            | Input::Supply { shard, .. }) = input;
            if last.as_ref().is_none_or(|(known, _)| *known != shard) {
                last = Some((shard, wiring.catalog.readers(shard)));
            }
            let readers = last.as_ref().and_then(|(_, readers)| readers.as_ref());
            match (input, readers) {
                (Input::Job { job, .. }, readers) => {
                    answers.add(shard, &job, readers, || wiring.catalog.closed(shard));
                }
                (Input::Fetch { job, .. }, Some(readers)) => {
                    let fetched = fetch::run(&job, shard, &readers.log);
                    answers.told.push(WorkerInput::Fetched(fetched));
                }
                (Input::Supply { job, .. }, _) => {
                    answers.told.push(WorkerInput::Supplied(repair::supply(&job, shard)));
                }
                (Input::Fetch { job, .. }, None) => {
                    answers.told.push(WorkerInput::Fetched(fetch::run_without(&job, shard)));
                }
            }
            if answers.bytes >= ANSWERS_BYTES {
                answers.give_out(wiring, worker);
            }
        }
        answers.give_out(wiring, worker);
    }
}

/// Answers on their way to the worker, those to one connection in a row in one piece.
struct Answers {
    told: Vec<WorkerInput>,
    bytes: usize,
}

impl Answers {
    fn add(
        &mut self,
        shard: ShardId,
        job: &Job,
        readers: Option<&Readers<LsmReader>>,
        closed: impl FnOnce() -> Option<Failure>,
    ) {
        let to = job.to();
        let (mut out, requests) = match self.told.as_mut_slice() {
            [.., WorkerInput::Send { to: last, bytes }, WorkerInput::Answered { requests, .. }]
                if *last == to =>
            {
                *requests += 1;
                (std::mem::take(bytes), None)
            }
            _ => (Vec::new(), Some(1)),
        };
        let before = out.len();
        let mut met = None;
        match readers {
            Some(readers) => met = answer::run(job, readers, &mut out),
            None => match closed() {
                Some(failure) => answer::refuse(job, failure, &mut out),
                None => answer::run_without(job, &mut out),
            },
        }
        self.bytes += out.len() - before;
        match (self.told.as_mut_slice(), requests) {
            ([.., WorkerInput::Send { bytes, .. }, _], None) => *bytes = out,
            _ => {
                self.told.push(WorkerInput::Send { to, bytes: out });
                self.told.push(WorkerInput::Answered { to, requests: 1 });
            }
        }
        self.told.extend(met.map(|met| WorkerInput::Met { shard, met }));
    }

    fn give_out(&mut self, wiring: &Wiring, worker: usize) {
        self.bytes = 0;
        wiring.tell_all(worker, &mut self.told);
    }
}
