//! The common life of a node's threads: they start together, and when one of them can't go on, all
//! end.
//!
//! No thread dies in silence: a panic ends the node with a sentence that names the thread. Threads
//! hear of the end because everything they wait for is closed.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How often it is looked whether a thread has ended: there is no way to wait so long at most.
const JOIN_LOOK: Duration = Duration::from_millis(1);

/// Shared by all threads of a node.
#[derive(Default)]
pub struct Life {
    state: Mutex<State>,
    changed: Condvar,
    ending: AtomicBool,
}

#[derive(Default)]
struct State {
    failure: Option<String>,
    /// What wakes those who wait for something else than this life.
    closers: Vec<Box<dyn Fn() + Send>>,
    drained: usize,
    ready: bool,
}

impl Life {
    /// Has `closer` called once at the end; at once if the end has come.
    pub fn at_end(&self, closer: impl Fn() + Send + 'static) {
        let mut state = self.lock();
        if self.is_ending() {
            drop(state);
            closer();
        } else {
            state.closers.push(Box::new(closer));
        }
    }

    /// The node can't go on. Only the first sentence is kept.
    pub fn fail(&self, sentence: String) {
        let mut state = self.lock();
        if !self.is_ending() {
            state.failure.get_or_insert(sentence);
        }
        drop(state);
        self.end();
    }

    /// Ends the node: closes all that its threads wait for.
    pub fn end(&self) {
        let state = self.lock();
        self.ending.store(true, Ordering::Release);
        drop(state);
        loop {
            let closers = std::mem::take(&mut self.lock().closers);
            if closers.is_empty() {
                break;
            }
            closers.iter().for_each(|closer| closer());
        }
        self.changed.notify_all();
    }

    /// Whether the end has come.
    #[must_use]
    pub fn is_ending(&self) -> bool {
        self.ending.load(Ordering::Acquire)
    }

    /// Why the node could not go on, if so.
    #[must_use]
    pub fn failure(&self) -> Option<String> {
        self.lock().failure.clone()
    }

    /// The node serves.
    pub fn set_ready(&self) {
        self.lock().ready = true;
        self.changed.notify_all();
    }

    /// Waits until the node serves. `false`: the end came first.
    #[must_use]
    pub fn wait_ready(&self) -> bool {
        let mut state = self.lock();
        while !state.ready && !self.is_ending() {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        !self.is_ending()
    }

    /// One more worker has finished everything under way.
    pub fn add_drained(&self) {
        self.lock().drained += 1;
        self.changed.notify_all();
    }

    /// Waits until `workers` workers have finished, the end comes or `timeout` is over. Says
    /// whether they have.
    pub fn wait_drained(&self, workers: usize, timeout: Duration) -> bool {
        let until = Instant::now() + timeout;
        let mut state = self.lock();
        while state.drained < workers && !self.is_ending() {
            let rest = until.saturating_duration_since(Instant::now());
            if rest.is_zero() {
                return false;
            }
            let waited = self.changed.wait_timeout(state, rest);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        state.drained >= workers
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Starts a thread of the node. If it panics, the node ends.
///
/// # Errors
/// Of the operating system.
pub fn spawn(
    life: &Arc<Life>,
    name: String,
    run: impl FnOnce() + Send + 'static,
) -> std::io::Result<JoinHandle<()>> {
    let life = Arc::clone(life);
    std::thread::Builder::new().name(name.clone()).spawn(move || {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(run)) {
            let said = message(&*panic);
            life.fail(format!("the thread {name} met a bug and stopped the node: {said}"));
        }
    })
}

/// Waits for threads to end, so long at most. Those that have not are left behind, and named.
#[must_use]
pub fn join(threads: Vec<JoinHandle<()>>, timeout: Duration) -> Vec<String> {
    let until = Instant::now() + timeout;
    let mut left = Vec::new();
    for thread in threads {
        while !thread.is_finished() && Instant::now() < until {
            std::thread::sleep(JOIN_LOOK);
        }
        if thread.is_finished() {
            // A panic in it is the node's failure, and was told as such.
            drop(thread.join());
        } else {
            left.push(thread.thread().name().unwrap_or("without a name").to_owned());
        }
    }
    left
}

fn message(panic: &(dyn Any + Send)) -> &str {
    match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(text), _) => text,
        (_, Some(text)) => text,
        _ => "it said nothing",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::{Queue, Refused};
    use std::collections::VecDeque;

    #[test]
    fn a_panic_ends_everyone_and_is_told() {
        let life = Arc::new(Life::default());
        let queue: Arc<Queue<u32>> = Arc::new(Queue::for_thread(1));
        let closed = Arc::clone(&queue);
        life.at_end(move || closed.close());
        let waiting = Arc::clone(&queue);
        let waiter =
            spawn(
                &life,
                "waiter".to_owned(),
                move || {
                    while waiting.wait(None, &mut VecDeque::new()) {}
                },
            );
        let broken = spawn(&life, "broken".to_owned(), || panic!("the moon is {}", "full"));
        broken.unwrap().join().unwrap();
        waiter.unwrap().join().unwrap();
        assert!(!life.wait_ready());
        let told = life.failure().unwrap();
        assert!(told.contains("broken") && told.contains("the moon is full"), "{told}");
        life.fail("later".to_owned());
        assert_eq!(life.failure().unwrap(), told, "the first failure is the cause");
    }

    #[test]
    fn who_does_not_end_is_left_behind_and_named() {
        let life = Arc::new(Life::default());
        let (end, wait) = std::sync::mpsc::channel::<()>();
        let ends = spawn(&life, "ends".to_owned(), || {}).unwrap();
        while !ends.is_finished() {
            std::thread::yield_now();
        }
        let hangs = spawn(&life, "hangs".to_owned(), move || {
            let _ = wait.recv();
        })
        .unwrap();
        assert_eq!(join(vec![hangs, ends], Duration::ZERO), ["hangs"]);
        drop(end);
    }

    #[test]
    fn what_comes_after_the_end_is_closed_at_once() {
        let life = Life::default();
        life.end();
        let queue: Arc<Queue<u32>> = Arc::new(Queue::for_thread(1));
        let closed = Arc::clone(&queue);
        life.at_end(move || closed.close());
        assert_eq!(queue.push(1), Err(Refused::Closed));
        assert_eq!(life.failure(), None);
        assert!(!life.wait_drained(1, Duration::ZERO));
    }
}
