//! Bounded queues between threads that wake their reader only when it sleeps.
//!
//! A wake-up is a system call and some ten microseconds; a push is a few dozen nanoseconds. So a
//! reader takes everything at once, and says under the queue's lock that it is about to sleep; only
//! then does the next writer wake it. What travels here are batches (a write of many frames, the
//! replies of a batch to one connection), never single commits.
//!
//! A reader either waits here ([`Queue::wait`]) or in an event loop, which this queue then wakes
//! through a [`mio::Waker`] ([`Queue::may_wait`]). Any number of threads may write. Several
//! threads may read a queue that they wait on; each item goes to one of them.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Why an item was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// As many items wait as may.
    Full,
    /// Nobody reads any more.
    Closed,
}

/// A bounded queue of `T`.
pub struct Queue<T> {
    state: Mutex<State<T>>,
    wake: Wake,
    space: Condvar,
    items_max: usize,
}

struct State<T> {
    items: VecDeque<T>,
    /// Readers that sleep and have not been woken.
    asleep: usize,
    /// Writers that wait for space.
    waiting: usize,
    closed: bool,
}

enum Wake {
    Thread(Condvar),
    Poll(mio::Waker),
}

impl<T> Queue<T> {
    /// A queue whose readers call [`Queue::wait`].
    #[must_use]
    pub fn for_thread(items_max: usize) -> Queue<T> {
        Queue::new(Wake::Thread(Condvar::new()), items_max)
    }

    /// A queue whose one reader sleeps in the event loop of `waker`.
    #[must_use]
    pub fn for_poll(waker: mio::Waker, items_max: usize) -> Queue<T> {
        Queue::new(Wake::Poll(waker), items_max)
    }

    fn new(wake: Wake, items_max: usize) -> Queue<T> {
        let state = State { items: VecDeque::new(), asleep: 0, waiting: 0, closed: false };
        Queue { state: Mutex::new(state), wake, space: Condvar::new(), items_max }
    }

    /// Adds an item, or says at once why not.
    ///
    /// # Errors
    /// [`Refused`]; the item is dropped.
    pub fn push(&self, item: T) -> Result<(), Refused> {
        let mut state = self.lock();
        if state.closed {
            return Err(Refused::Closed);
        }
        if state.items.len() >= self.items_max {
            return Err(Refused::Full);
        }
        state.items.push_back(item);
        self.wake_one(state);
        Ok(())
    }

    /// Adds all `items`, leaving none, and waits for space if need be. Not for threads that the
    /// reader may wait for.
    ///
    /// # Errors
    /// [`Refused::Closed`]; what was not added is dropped.
    pub fn push_all(&self, items: &mut Vec<T>) -> Result<(), Refused> {
        let mut items = items.drain(..).peekable();
        while items.peek().is_some() {
            let mut state = self.lock();
            while state.items.len() >= self.items_max && !state.closed {
                state.waiting += 1;
                state = self.space.wait(state).unwrap_or_else(PoisonError::into_inner);
                state.waiting -= 1;
            }
            if state.closed {
                return Err(Refused::Closed);
            }
            let space = self.items_max - state.items.len();
            state.items.extend(items.by_ref().take(space));
            self.wake_one(state);
        }
        Ok(())
    }

    /// Adds all `items`, leaving none, so that the reader finds them together; or says at once why
    /// not.
    ///
    /// # Errors
    /// [`Refused`]; the items are dropped.
    pub fn push_together(&self, items: &mut Vec<T>) -> Result<(), Refused> {
        let mut state = self.lock();
        let refused = match state.closed {
            true => Some(Refused::Closed),
            false if state.items.len() + items.len() > self.items_max => Some(Refused::Full),
            false => None,
        };
        if let Some(refused) = refused {
            items.clear();
            return Err(refused);
        }
        state.items.extend(items.drain(..));
        self.wake_one(state);
        Ok(())
    }

    /// Moves everything that waits to the end of `into`.
    pub fn take(&self, into: &mut VecDeque<T>) {
        let state = self.lock();
        self.hand_over(state, into);
    }

    /// For the reader of a polled queue: `true` when nothing waits; from now on the next push wakes
    /// the event loop.
    #[must_use]
    pub fn may_wait(&self) -> bool {
        let mut state = self.lock();
        if !state.items.is_empty() || state.closed {
            return false;
        }
        state.asleep = 1;
        true
    }

    /// For the reader of a polled queue that is awake again: pushes need not wake it.
    pub fn awake(&self) {
        self.lock().asleep = 0;
    }

    /// Waits until something is there, at most `timeout`, and moves it all to the end of `into`.
    /// `false`: the queue is closed and empty.
    pub fn wait(&self, timeout: Option<Duration>, into: &mut VecDeque<T>) -> bool {
        let state = self.sleep(timeout);
        let open = !state.closed || !state.items.is_empty();
        self.hand_over(state, into);
        open
    }

    /// Waits until something is there, at most `timeout`, and leaves it there. `false`: the queue
    /// is closed and empty.
    #[must_use]
    pub fn wait_filled(&self, timeout: Duration) -> bool {
        let state = self.sleep(Some(timeout));
        !state.closed || !state.items.is_empty()
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lock().items.is_empty()
    }

    /// No item is taken any more; what waits is still handed out. Wakes everyone.
    pub fn close(&self) {
        self.lock().closed = true;
        self.space.notify_all();
        match &self.wake {
            Wake::Thread(condvar) => condvar.notify_all(),
            Wake::Poll(waker) => drop(waker.wake()),
        }
    }

    fn sleep(&self, timeout: Option<Duration>) -> MutexGuard<'_, State<T>> {
        let Wake::Thread(condvar) = &self.wake else {
            panic!("a polled queue is waited for in its event loop");
        };
        let mut state = self.lock();
        if !state.items.is_empty() || state.closed {
            return state;
        }
        state.asleep += 1;
        let idle = |state: &mut State<T>| state.items.is_empty() && !state.closed;
        let mut state = match timeout {
            None => condvar.wait_while(state, idle).unwrap_or_else(PoisonError::into_inner),
            Some(timeout) => {
                condvar
                    .wait_timeout_while(state, timeout, idle)
                    .unwrap_or_else(PoisonError::into_inner)
                    .0
            }
        };
        state.asleep = state.asleep.saturating_sub(1);
        state
    }

    fn hand_over(&self, mut state: MutexGuard<'_, State<T>>, into: &mut VecDeque<T>) {
        if into.is_empty() {
            std::mem::swap(&mut state.items, into);
        } else {
            into.append(&mut state.items);
        }
        if state.waiting > 0 {
            self.space.notify_all();
        }
    }

    /// Called with something added. The lock is released before the wake-up, or the woken thread
    /// would wait for it.
    fn wake_one(&self, mut state: MutexGuard<'_, State<T>>) {
        if state.asleep == 0 {
            return;
        }
        match &self.wake {
            Wake::Thread(condvar) => {
                drop(state);
                condvar.notify_one();
            }
            Wake::Poll(waker) => {
                state.asleep = 0;
                drop(state);
                // It fails only when the event loop is gone, and then nobody is to be woken.
                drop(waker.wake());
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        // A thread that panics stops the node; until then the items are whole, for no code in here
        // panics halfway.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn items_arrive_once_and_in_order_of_each_writer() {
        let queue = Arc::new(Queue::for_thread(16));
        let writers: Vec<_> = (0..3u64)
            .map(|writer| {
                let queue = Arc::clone(&queue);
                std::thread::spawn(move || {
                    for batch in 0..500u64 {
                        let mut items: Vec<_> = (0..7).map(|i| (writer, batch * 7 + i)).collect();
                        queue.push_all(&mut items).unwrap();
                    }
                })
            })
            .collect();
        let mut next = [0u64; 3];
        let mut items = VecDeque::new();
        while next.iter().sum::<u64>() < 3 * 3500 {
            assert!(queue.wait(None, &mut items));
            assert!(items.len() <= 16);
            for (writer, item) in items.drain(..) {
                assert_eq!(item, next[writer as usize]);
                next[writer as usize] += 1;
            }
        }
        writers.into_iter().for_each(|writer| writer.join().unwrap());
    }

    #[test]
    fn a_full_queue_refuses_and_a_closed_one_too() {
        let queue = Queue::for_thread(2);
        queue.push(1).unwrap();
        queue.push(2).unwrap();
        assert_eq!(queue.push(3), Err(Refused::Full));
        queue.close();
        assert_eq!(queue.push(3), Err(Refused::Closed));
        assert_eq!(queue.push_all(&mut vec![3]), Err(Refused::Closed));
        let mut items = VecDeque::new();
        assert!(queue.wait(None, &mut items));
        assert_eq!(items, [1, 2]);
        assert!(!queue.wait(None, &mut items));
    }

    #[test]
    fn an_event_loop_is_woken_once_and_only_when_it_sleeps() {
        let mut poll = mio::Poll::new().unwrap();
        let waker = mio::Waker::new(poll.registry(), mio::Token(7)).unwrap();
        let queue = Queue::for_poll(waker, 16);
        let mut events = mio::Events::with_capacity(4);
        queue.push(1).unwrap();
        poll.poll(&mut events, Some(Duration::ZERO)).unwrap();
        assert!(events.is_empty(), "an awake reader is not woken");
        assert!(!queue.may_wait(), "something waits");
        let mut items = VecDeque::new();
        queue.take(&mut items);
        assert!(queue.may_wait());
        queue.push(2).unwrap();
        queue.push(3).unwrap();
        poll.poll(&mut events, None).unwrap();
        assert_eq!(events.iter().count(), 1);
        queue.awake();
        queue.take(&mut items);
        assert_eq!(items, [1, 2, 3]);
    }
}
