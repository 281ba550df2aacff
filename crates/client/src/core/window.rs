//! The numbers of one session's commits: which comes next, and below which one every reply was had.

use naust_wire::limits::SESSION_WINDOW_MAX;
use naust_wire::{Sequence, SessionId};

const WORDS: usize = SESSION_WINDOW_MAX / 64;
const _: () = assert!(SESSION_WINDOW_MAX.is_multiple_of(64));

/// Numbers the commits of a session and slides over those that are settled.
///
/// A sequence is *taken*, then *settled* once: its reply was had, or nobody will ever ask for it
/// again. Invariants: `acked_below` is the lowest sequence that is not settled; `next < acked_below
/// + SESSION_WINDOW_MAX + 1`, so the server never has to keep more replies than it promised; a bit
/// is set only for settled sequences in `acked_below..next`.
#[derive(Clone, Debug)]
pub struct Window {
    session: SessionId,
    next: u64,
    acked_below: u64,
    settled: [u64; WORDS],
}

impl Window {
    /// The window of a session without commits.
    #[must_use]
    pub fn new(session: SessionId) -> Window {
        Window { session, next: 1, acked_below: 1, settled: [0; WORDS] }
    }

    /// Whose window it is.
    #[must_use]
    pub fn session(&self) -> SessionId {
        self.session
    }

    /// All sequences below this one are settled.
    #[must_use]
    pub fn acked_below(&self) -> Sequence {
        Sequence(self.acked_below)
    }

    /// How many sequences can be taken before one has to be settled.
    #[must_use]
    pub fn room(&self) -> usize {
        SESSION_WINDOW_MAX - (self.next - self.acked_below) as usize
    }

    /// The next sequence, or `None` while too many are unsettled.
    pub fn take(&mut self) -> Option<Sequence> {
        if self.room() == 0 {
            return None;
        }
        self.next += 1;
        Some(Sequence(self.next - 1))
    }

    /// Nobody needs the reply of `sequence` any more. Says whether the window moved.
    ///
    /// # Panics
    /// If the sequence was never taken, or was settled before: a bug of the caller.
    pub fn settle(&mut self, sequence: Sequence) -> bool {
        let Sequence(sequence) = sequence;
        assert!(
            (self.acked_below..self.next).contains(&sequence),
            "only what was taken is settled"
        );
        let (word, bit) = place(sequence);
        assert!(self.settled[word] & bit == 0, "a sequence is settled once");
        self.settled[word] |= bit;
        let before = self.acked_below;
        while self.acked_below < self.next {
            let (word, bit) = place(self.acked_below);
            if self.settled[word] & bit == 0 {
                break;
            }
            self.settled[word] &= !bit;
            self.acked_below += 1;
        }
        self.acked_below != before
    }
}

fn place(sequence: u64) -> (usize, u64) {
    let index = (sequence % SESSION_WINDOW_MAX as u64) as usize;
    (index / 64, 1 << (index % 64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn one_that_is_never_settled_stops_the_window_after_its_size() {
        let mut window = Window::new(SessionId(9));
        let first = window.take().unwrap();
        for _ in 1..SESSION_WINDOW_MAX {
            let sequence = window.take().unwrap();
            window.settle(sequence);
        }
        assert_eq!((window.take(), window.acked_below()), (None, Sequence(1)));
        assert!(window.settle(first));
        assert_eq!(window.acked_below(), Sequence(SESSION_WINDOW_MAX as u64 + 1));
        assert_eq!(window.room(), SESSION_WINDOW_MAX);
    }

    proptest! {
        /// Against a plain set: sequences come without gaps, and `acked_below` is the lowest
        /// unsettled one.
        #[test]
        fn it_equals_a_plain_set(
            steps in vec((any::<bool>(), any::<prop::sample::Index>()), 1..6000),
        ) {
            let mut window = Window::new(SessionId(9));
            let (mut open, mut next) = (BTreeSet::new(), 1);
            for (take, which) in steps {
                if take {
                    let low = open.first().copied().unwrap_or(next);
                    let room = next - low < SESSION_WINDOW_MAX as u64;
                    let expected = room.then_some(Sequence(next));
                    prop_assert_eq!(window.take(), expected);
                    if expected.is_some() {
                        open.insert(next);
                        next += 1;
                    }
                } else if !open.is_empty() {
                    let low = open.first().copied();
                    let sequence = *open.iter().nth(which.index(open.len())).unwrap();
                    open.remove(&sequence);
                    prop_assert_eq!(window.settle(Sequence(sequence)), low == Some(sequence));
                }
                let low = open.first().copied().unwrap_or(next);
                prop_assert_eq!(window.acked_below(), Sequence(low));
                prop_assert_eq!(window.room() as u64, SESSION_WINDOW_MAX as u64 - (next - low));
            }
        }
    }
}
