//! The views threads: each folds the committed frames of one worker's shards into their tables, in
//! log order, and answers whoever waits for them.
//!
//! They have threads of their own because a worker must never wait for tables. But a small batch
//! that needs nothing but memory is folded in by the worker itself while the views thread sleeps
//! ([`Folder::fold_here`]).

use crate::budget::Budget;
use crate::wiring::Wiring;
use crate::worker::Input as WorkerInput;
use crate::{background, reads};
use naust_node::TICK_MS;
use naust_node::open::ForViews;
use naust_node::transfer::Adopt;
use naust_node::views::{Job, Left, Output, Views};
use naust_store::{LsmDone, LsmTables};
use naust_wire::ShardId;
use naust_wire::options::NamespaceOptions;
use std::collections::VecDeque;
use std::sync::Mutex;
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
    /// The worker folded something in itself, and left the rest to do.
    Maintain(ShardId),
    /// The worker asks nothing any more of a shard that failed.
    Shut(ShardId),
    /// Close a shard, then have it removed.
    Remove(ShardId),
    /// Close a replica, then have its log folded into new tables.
    Refold { shard: ShardId, options: NamespaceOptions },
    /// Close a replica, then have a copy take its place.
    Adopt { shard: ShardId, options: NamespaceOptions, adopt: Box<Adopt> },
}

/// Tells the views thread of a worker, waiting for space if need be. Not for workers.
pub fn tell(wiring: &Wiring, worker: usize, input: Input) {
    // A closed queue: the node's life is ending.
    let _ = wiring.views[worker].push_all(&mut vec![input]);
}

/// The views of one worker's shards, for the thread that holds the lock: the views thread while it
/// works, or the worker while that thread sleeps.
pub struct Folder(Mutex<State>);

struct State {
    worker: usize,
    views: Views<LsmTables>,
    outputs: Vec<Output<LsmTables>>,
    /// What the worker is to be told.
    told: Vec<WorkerInput>,
    budget: Budget,
    tick_at_ms: u64,
}

/// The views thread: works until its queue is closed and empty, or the node's life ends.
pub fn run(wiring: &Wiring, folder: &Folder) {
    let Ok(worker) = folder.0.lock().map(|state| state.worker) else { return };
    let queue = &wiring.views[worker];
    let mut inputs = VecDeque::new();
    while queue.wait_filled(Duration::from_millis(TICK_MS)) {
        // Poisoned: the worker met a bug, and the node's life is ending.
        let Ok(mut state) = folder.0.lock() else { return };
        let mut thread = Thread { wiring, state: &mut state };
        // Not before the lock is held: whoever has it, and finds the queue empty, is next.
        queue.take(&mut inputs);
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

impl Folder {
    /// The views of worker `worker`, none yet.
    #[must_use]
    pub fn new(wiring: &Wiring, worker: usize) -> Folder {
        Folder(Mutex::new(State {
            worker,
            views: Views::new(),
            outputs: Vec::new(),
            told: Vec::new(),
            budget: Budget::new(wiring.config.memtable_bytes / wiring.workers.len() as u64),
            tick_at_ms: 0,
        }))
    }

    /// For the worker: folds a small batch in here and now, if the views thread has nothing to do,
    /// and adds to `told` what that thread would have told the worker, behind what waits in the
    /// worker's queue: the views thread may have told something there that happened before. It
    /// saves two wake-ups, each of which takes longer than the work.
    ///
    /// # Errors
    /// The job, if it is one for the views thread.
    pub fn fold_here(
        &self,
        wiring: &Wiring,
        shard: ShardId,
        job: Job,
        told: &mut VecDeque<WorkerInput>,
    ) -> Result<(), Job> {
        if !matches!(job, Job::Apply(_)) {
            return Err(job);
        }
        let Ok(mut state) = self.0.try_lock() else { return Err(job) };
        let queue = &wiring.views[state.worker];
        if !queue.is_empty() {
            return Err(job);
        }
        let State { views, outputs, .. } = &mut *state;
        let left = views.fold_here(wiring.clock.now(), shard, job, outputs)?;
        let mut thread = Thread { wiring, state: &mut state };
        thread.sort_out();
        wiring.workers[thread.state.worker].take(told);
        told.extend(thread.state.told.drain(..));
        if left == Left::ToMaintain || thread.state.budget.is_over() {
            // A closed queue: the node's life is ending. It was empty, so it is not full.
            let _ = queue.push(Input::Maintain(shard));
        }
        Ok(())
    }
}

struct Thread<'w> {
    wiring: &'w Wiring,
    state: &'w mut State,
}

impl Thread<'_> {
    fn input(&mut self, input: Input) {
        match input {
            Input::Opened(opened) => self.state.views.install(*opened, &mut self.state.outputs),
            Input::Job { shard, job } => {
                if matches!(job, Job::Flush) {
                    self.state.budget.ask_for_worker(shard);
                }
                self.state.views.handle(
                    self.wiring.clock.now(),
                    shard,
                    job,
                    &mut self.state.outputs,
                );
            }
            Input::Done { shard, done } => {
                self.state.views.done(
                    self.wiring.clock.now(),
                    shard,
                    done,
                    &mut self.state.outputs,
                );
            }
            Input::Maintain(shard) => {
                let now = self.wiring.clock.now();
                self.state.views.maintain(now, shard, &mut self.state.outputs);
            }
            Input::Shut(shard) => self.state.views.shut(shard),
            Input::Refold { shard, options } => {
                self.state.budget.forget(shard);
                self.wiring.catalog.remove_readers(shard);
                self.state.views.close(shard, &mut self.state.outputs);
                let worker = self.state.worker;
                self.background(background::Job::Refold { worker, shard, options });
            }
            Input::Adopt { shard, options, adopt } => {
                self.state.budget.forget(shard);
                self.wiring.catalog.remove_readers(shard);
                self.state.views.close(shard, &mut self.state.outputs);
                let worker = self.state.worker;
                self.background(background::Job::Adopt { worker, shard, options, adopt });
            }
            Input::Remove(shard) => {
                self.state.budget.forget(shard);
                self.wiring.catalog.remove_readers(shard);
                self.state.views.remove(shard, &mut self.state.outputs);
                self.background(background::Job::Remove { shard });
            }
        }
    }

    fn tick(&mut self) {
        let now = self.wiring.clock.now();
        if now.monotonic_ms >= self.state.tick_at_ms {
            self.state.tick_at_ms = now.monotonic_ms + TICK_MS;
            self.state.views.tick(now, &mut self.state.outputs);
            self.give_out();
        }
    }

    fn keep_budget(&mut self) {
        let now_ms = self.wiring.clock.now().monotonic_ms;
        if let Some(shard) = self.state.budget.ask(now_ms) {
            self.state.views.handle(
                self.wiring.clock.now(),
                shard,
                Job::Flush,
                &mut self.state.outputs,
            );
            self.give_out();
        }
    }

    fn give_out(&mut self) {
        self.sort_out();
        self.wiring.tell_all(self.state.worker, &mut self.state.told);
    }

    /// Brings each output on its way; what is for the worker is collected.
    fn sort_out(&mut self) {
        let mut outputs = std::mem::take(&mut self.state.outputs);
        for output in outputs.drain(..) {
            self.output(output);
        }
        self.state.outputs = outputs;
    }

    fn output(&mut self, output: Output<LsmTables>) {
        match output {
            Output::Send { to, bytes } => self.state.told.push(WorkerInput::Send { to, bytes }),
            Output::Answered { to, requests } => {
                self.state.told.push(WorkerInput::Answered { to, requests });
            }
            Output::Progress(progress) => {
                let now_ms = self.wiring.clock.now().monotonic_ms;
                self.state.budget.tell(progress.shard, progress.memory_bytes, now_ms);
                self.state.told.push(WorkerInput::Progress(progress));
            }
            Output::Flushed(shard) => {
                let now_ms = self.wiring.clock.now().monotonic_ms;
                if self.state.budget.flushed(shard, now_ms) {
                    self.state.told.push(WorkerInput::Flushed(shard));
                }
            }
            Output::Directory(change) => {
                for other in
                    (0..self.wiring.workers.len()).filter(|other| *other != self.state.worker)
                {
                    self.wiring.tell(other, WorkerInput::Directory(change.clone()));
                }
                self.state.told.push(WorkerInput::Directory(change));
            }
            Output::Read { shard, job } => {
                let input = reads::Input::Job { shard, job };
                // A closed queue: the node's life is ending.
                let _ = self.wiring.reads[self.state.worker].push_all(&mut vec![input]);
            }
            Output::Background { shard, job } => {
                self.background(background::Job::Tables { worker: self.state.worker, shard, job });
            }
            Output::Failed { shard, cause, failure } => {
                self.state.budget.forget(shard);
                self.wiring.catalog.close(shard, &failure);
                self.state.told.push(WorkerInput::Failed { shard, cause, failure });
            }
        }
    }

    fn background(&self, job: background::Job) {
        self.wiring.background.push(job);
    }
}
