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
/// After so long the operator is told again what the node waits for.
const TOLD_AGAIN: Duration = Duration::from_secs(60);

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
    /// Somebody wants the node to end before it serves.
    given_up: bool,
    /// What it waits for before it serves, and when that was told last.
    waits_for: Option<String>,
    told: Option<(String, Instant)>,
}

/// How a start ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// The node serves.
    Ready,
    /// It is to end before that.
    GivenUp,
    /// It has ended by itself.
    Ended,
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

    /// Waits so long at most for the node to serve, or for the start to end in another way.
    #[must_use]
    pub fn wait_start(&self, timeout: Duration) -> Option<Start> {
        let until = Instant::now() + timeout;
        let mut state = self.lock();
        loop {
            if self.is_ending() {
                return Some(Start::Ended);
            }
            if state.given_up {
                return Some(Start::GivenUp);
            }
            if state.ready {
                return Some(Start::Ready);
            }
            let rest = until.saturating_duration_since(Instant::now());
            if rest.is_zero() {
                return None;
            }
            let waited = self.changed.wait_timeout(state, rest);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// The node is to end, although it does not serve yet.
    pub fn give_up(&self) {
        self.lock().given_up = true;
        self.changed.notify_all();
    }

    /// The node can't serve before this has come: told to whoever asks, and to the operator at
    /// once and, as long as it stays so, again after a while.
    pub fn waits_for(&self, what: String) {
        let mut state = self.lock();
        let is_told = state
            .told
            .as_ref()
            .is_some_and(|(told, when)| *told == what && when.elapsed() < TOLD_AGAIN);
        if !is_told {
            eprintln!("naust: not ready: {what}");
            state.told = Some((what.clone(), Instant::now()));
        }
        state.waits_for = Some(what);
    }

    /// Whether the node serves; if not, why.
    ///
    /// # Errors
    /// What it waits for.
    pub fn ready(&self) -> Result<(), String> {
        let state = self.lock();
        match (state.ready, &state.waits_for) {
            _ if self.is_ending() => Err("the node is ending".to_owned()),
            (true, _) => Ok(()),
            (false, Some(what)) => Err(what.clone()),
            (false, None) => Err("the node is starting".to_owned()),
        }
    }

    /// Why the node has not begun to serve; `None` once it has, also when it ends.
    #[must_use]
    pub fn starting(&self) -> Option<String> {
        if self.lock().ready { None } else { self.ready().err() }
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
        assert_eq!(life.wait_start(Duration::ZERO), Some(Start::Ended));
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
        let hangs =
            spawn(&life, "hangs".to_owned(), move || wait.recv().unwrap_or_default()).unwrap();
        assert_eq!(join(vec![hangs, ends], Duration::ZERO), ["hangs"]);
        drop(end);
    }

    #[test]
    fn a_start_says_what_it_waits_for_and_can_be_given_up() {
        let life = Life::default();
        assert_eq!(life.ready(), Err("the node is starting".to_owned()));
        life.waits_for("the moon".to_owned());
        assert_eq!(life.ready(), Err("the moon".to_owned()));
        assert_eq!(life.starting(), Some("the moon".to_owned()));
        assert_eq!(life.wait_start(Duration::ZERO), None);
        life.set_ready();
        assert_eq!((life.ready(), life.wait_start(Duration::ZERO)), (Ok(()), Some(Start::Ready)));
        life.give_up();
        assert_eq!(life.wait_start(Duration::ZERO), Some(Start::GivenUp));
        life.end();
        assert_eq!(life.wait_start(Duration::ZERO), Some(Start::Ended));
        assert!(life.ready().is_err());
        assert_eq!(life.starting(), None, "it ends, and has served");
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
