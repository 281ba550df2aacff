//! Virtual time, and what is still to happen in it.
//!
//! Time moves only from one thing to the next: it costs nothing when nothing happens. Things of one
//! moment happen in the order in which they were scheduled, so a seed has exactly one story.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::fmt;

/// A moment of virtual time, in microseconds since the world began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Moment(pub u64);

impl Moment {
    /// This moment, so many microseconds later.
    #[must_use]
    pub fn after(self, micros: u64) -> Moment {
        Moment(self.0.saturating_add(micros))
    }

    /// Whole milliseconds since the world began.
    #[must_use]
    pub fn millis(self) -> u64 {
        self.0 / 1000
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:06}", self.0 / 1_000_000, self.0 % 1_000_000)
    }
}

/// What is still to happen, ordered by (moment, order of scheduling).
#[derive(Debug)]
pub struct Schedule<T> {
    now: Moment,
    scheduled: u64,
    waiting: BinaryHeap<Waiting<T>>,
}

impl<T> Default for Schedule<T> {
    fn default() -> Self {
        Schedule { now: Moment::default(), scheduled: 0, waiting: BinaryHeap::new() }
    }
}

impl<T> Schedule<T> {
    /// The present moment.
    #[must_use]
    pub fn now(&self) -> Moment {
        self.now
    }

    /// Lets `what` happen at `at`, or now if that has passed.
    pub fn at(&mut self, at: Moment, what: T) {
        self.scheduled += 1;
        self.waiting.push(Waiting { at: at.max(self.now), order: self.scheduled, what });
    }

    /// Lets `what` happen after so many microseconds.
    pub fn after(&mut self, micros: u64, what: T) {
        self.at(self.now.after(micros), what);
    }

    /// Moves time on to the next thing and hands it out.
    pub fn pop(&mut self) -> Option<T> {
        let next = self.waiting.pop()?;
        self.now = next.at;
        Some(next.what)
    }

    /// How many things wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether nothing is left to happen.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

#[derive(Debug)]
struct Waiting<T> {
    at: Moment,
    order: u64,
    what: T,
}

impl<T> Ord for Waiting<T> {
    /// Reversed, since the heap hands out its greatest.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.order).cmp(&(self.at, self.order))
    }
}

impl<T> PartialOrd for Waiting<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> PartialEq for Waiting<T> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<T> Eq for Waiting<T> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn things_happen_in_time_and_then_in_the_order_of_their_scheduling() {
        let mut schedule = Schedule::default();
        for (micros, what) in [(5, 'd'), (1, 'a'), (3, 'b'), (3, 'c')] {
            schedule.after(micros, what);
        }
        assert_eq!(schedule.pop(), Some('a'));
        schedule.at(Moment(0), 'x');
        let rest: String = std::iter::from_fn(|| schedule.pop()).collect();
        assert_eq!(rest, "xbcd");
        assert_eq!((schedule.now(), schedule.is_empty()), (Moment(5), true));
    }
}
