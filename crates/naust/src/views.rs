//! The views threads: each folds the committed frames of one worker's shards into their tables, in
//! log order, and answers whoever waits for them.
//!
//! They have threads of their own because a worker must never wait for tables.

use crate::budget::Budget;
use crate::queue::Queue;
use crate::wiring::Wiring;
use crate::worker::Input as WorkerInput;
use crate::{background, reads};
use naust_node::TICK_MS;
use naust_node::open::ForViews;
use naust_node::transfer::Adopt;
use naust_node::views::{Job, Output, Views};
use naust_store::{LsmDone, LsmTables};
use naust_wire::ShardId;
use naust_wire::options::NamespaceOptions;
use std::collections::VecDeque;
use std::time::Duration;

/// Jobs that may wait for one views thread: every one holds a frame at least, and frames under way
/// are bounded.
pub const INPUTS_MAX: usize = 1 << 19;

/// What a views thread is told.
pub enum Input {
    /// A shard was opened.
    Opened(Box<ForViews<LsmTables>>),
    /// A job from the worker.
    Job { shard: ShardId, job: Job },
    /// A flush or compaction ended.
    Done { shard: ShardId, done: LsmDone },
    /// The worker asks nothing any more of a shard that failed.
    Shut(ShardId),
    /// Close a shard, then have it removed.
    Remove(ShardId),
    /// Close a replica, then have a copy take its place.
    Adopt { shard: ShardId, options: NamespaceOptions, adopt: Box<Adopt> },
}

/// Tells the views thread of a worker, waiting for space if need be. Not for workers.
pub fn tell(wiring: &Wiring, worker: usize, input: Input) {
    // A closed queue: the node's life is ending.
    let _ = wiring.views[worker].push_all(&mut vec![input]);
}

/// Works until the queue is closed and empty, or the node's life ends.
pub fn run(wiring: &Wiring, worker: usize, queue: &Queue<Input>) {
    let mut thread = Thread {
        wiring,
        worker,
        views: Views::new(),
        outputs: Vec::new(),
        told: Vec::new(),
        budget: Budget::new(wiring.config.memtable_bytes / wiring.workers.len() as u64),
        tick_at_ms: 0,
    };
    let mut inputs = VecDeque::new();
    while queue.wait(Some(Duration::from_millis(TICK_MS)), &mut inputs) {
        for input in inputs.drain(..) {
            // The time to drain is over: nobody waits for what is still queued.
            if wiring.life.is_ending() {
                return;
            }
            thread.input(input);
            thread.give_out();
            thread.keep_budget();
        }
        thread.tick();
    }
}

struct Thread<'w> {
    wiring: &'w Wiring,
    worker: usize,
    views: Views<LsmTables>,
    outputs: Vec<Output<LsmTables>>,
    /// What the worker is to be told.
    told: Vec<WorkerInput>,
    budget: Budget,
    tick_at_ms: u64,
}

impl Thread<'_> {
    fn input(&mut self, input: Input) {
        match input {
            Input::Opened(opened) => self.views.install(*opened, &mut self.outputs),
            Input::Job { shard, job } => {
                if matches!(job, Job::Flush) {
                    self.budget.ask_for_worker(shard);
                }
                self.views.handle(self.wiring.clock.now(), shard, job, &mut self.outputs);
            }
            Input::Done { shard, done } => {
                self.views.done(self.wiring.clock.now(), shard, done, &mut self.outputs);
            }
            Input::Shut(shard) => self.views.shut(shard),
            Input::Adopt { shard, options, adopt } => {
                self.budget.forget(shard);
                self.wiring.catalog.remove_readers(shard);
                self.views.close(shard, &mut self.outputs);
                let worker = self.worker;
                self.background(background::Job::Adopt { worker, shard, options, adopt });
            }
            Input::Remove(shard) => {
                self.budget.forget(shard);
                self.wiring.catalog.remove_readers(shard);
                self.views.remove(shard, &mut self.outputs);
                self.background(background::Job::Remove { shard });
            }
        }
    }

    fn tick(&mut self) {
        let now = self.wiring.clock.now();
        if now.monotonic_ms >= self.tick_at_ms {
            self.tick_at_ms = now.monotonic_ms + TICK_MS;
            self.views.tick(now, &mut self.outputs);
            self.give_out();
        }
    }

    fn keep_budget(&mut self) {
        if let Some(shard) = self.budget.ask() {
            self.views.handle(self.wiring.clock.now(), shard, Job::Flush, &mut self.outputs);
            self.give_out();
        }
    }

    fn give_out(&mut self) {
        let mut outputs = std::mem::take(&mut self.outputs);
        for output in outputs.drain(..) {
            self.output(output);
        }
        self.outputs = outputs;
        self.wiring.tell_all(self.worker, &mut self.told);
    }

    fn output(&mut self, output: Output<LsmTables>) {
        match output {
            Output::Send { to, bytes } => self.told.push(WorkerInput::Send { to, bytes }),
            Output::Answered { to, requests } => {
                self.told.push(WorkerInput::Answered { to, requests });
            }
            Output::Progress(progress) => {
                self.budget.tell(progress.shard, progress.backlog_bytes);
                self.told.push(WorkerInput::Progress(progress));
            }
            Output::Flushed(shard) => {
                if self.budget.flushed(shard) {
                    self.told.push(WorkerInput::Flushed(shard));
                }
            }
            Output::Directory(change) => {
                for other in (0..self.wiring.workers.len()).filter(|other| *other != self.worker) {
                    self.wiring.tell(other, WorkerInput::Directory(change.clone()));
                }
                self.told.push(WorkerInput::Directory(change));
            }
            Output::Read { shard, job } => {
                let input = reads::Input::Job { shard, job };
                // A closed queue: the node's life is ending.
                let _ = self.wiring.reads[self.worker].push_all(&mut vec![input]);
            }
            Output::Background { shard, job } => {
                self.background(background::Job::Tables { worker: self.worker, shard, job });
            }
            Output::Failed { shard, failure } => {
                self.budget.forget(shard);
                self.wiring.catalog.close(shard, &failure);
                self.told.push(WorkerInput::Failed { shard, failure });
            }
        }
    }

    fn background(&self, job: background::Job) {
        self.wiring.background.push(job);
    }
}
