//! Whether a history of one register has an order: the search of Wing and Gong ("Testing and
//! Verifying Concurrent Objects", 1993) with Lowe's memory of what led nowhere ("Testing for
//! Linearizability", 2017). Used by the checker of linearizability; no checker itself.
//!
//! It takes the operations that may come next, those that began before any other of the rest had
//! ended, and tries one after the other. A read that fits is taken at once, since it changes
//! nothing. A hint tells which of the others to try first; it decides how long the search takes,
//! and never what it finds.

use std::collections::BTreeSet;

/// What an operation did, with values as numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// It wrote this.
    Write(u32),
    /// It saw this.
    Read(u32),
}

/// One operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Op {
    /// When it began.
    pub begun: u64,
    /// When it had ended; `None`: it is not known whether it ever happened.
    pub ended: Option<u64>,
    /// Those with lower hints are tried first.
    pub hint: u64,
    /// What it did.
    pub act: Act,
}

/// What a search came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// There is an order.
    Order,
    /// There is none.
    None,
    /// It was given up.
    Nothing,
}

/// Searches an order of all operations that ended, and of any of the others, in which each read
/// sees what was written last, the first ones zero. Gives up after `steps` tries.
#[must_use]
pub fn search(ops: &[Op], steps: u64) -> Found {
    let mut search = Search::new(ops);
    let mut left = steps;
    while search.ended_left > 0 {
        if left == 0 {
            return Found::Nothing;
        }
        left -= 1;
        if !search.step() {
            return Found::None;
        }
    }
    Found::Order
}

struct Search<'a> {
    ops: &'a [Op],
    /// Those that ended, by when they began and by when they ended.
    by_begin: Vec<usize>,
    by_end: Vec<usize>,
    /// Those whose fate is not known.
    open: Vec<usize>,
    done: Vec<bool>,
    ended_left: usize,
    state: u32,
    /// A fingerprint of what is done.
    mark: u64,
    /// What was found to lead nowhere: done, state.
    dead: BTreeSet<(u64, u32)>,
    stack: Vec<Choice>,
    /// All before these places are done.
    first_begin: usize,
    first_end: usize,
}

/// A place at which one of several was chosen.
struct Choice {
    candidates: Vec<usize>,
    next: usize,
    /// What was taken since the choice, itself first.
    taken: Vec<usize>,
    state: u32,
    first_begin: usize,
    first_end: usize,
}

impl<'a> Search<'a> {
    fn new(ops: &'a [Op]) -> Search<'a> {
        let ended = || (0..ops.len()).filter(|at| ops[*at].ended.is_some());
        let mut by_begin: Vec<usize> = ended().collect();
        by_begin.sort_by_key(|at| ops[*at].begun);
        let mut by_end: Vec<usize> = ended().collect();
        by_end.sort_by_key(|at| ops[*at].ended);
        Search {
            ended_left: by_begin.len(),
            by_begin,
            by_end,
            open: (0..ops.len()).filter(|at| ops[*at].ended.is_none()).collect(),
            done: vec![false; ops.len()],
            ops,
            state: 0,
            mark: 0,
            dead: BTreeSet::new(),
            stack: Vec::new(),
            first_begin: 0,
            first_end: 0,
        }
    }

    /// Takes one more operation, or goes back to the last choice; `false`: there is none left.
    fn step(&mut self) -> bool {
        let mut candidates = self.candidates();
        let fits = |at: &&usize| self.ops[**at].act == Act::Read(self.state);
        if let Some(read) = candidates.iter().find(fits).copied() {
            self.take(read);
            if let Some(choice) = self.stack.last_mut() {
                choice.taken.push(read);
            }
            return true;
        }
        candidates.retain(|at| matches!(self.ops[*at].act, Act::Write(_)));
        candidates.sort_by_key(|at| self.ops[*at].hint);
        let (state, first_begin, first_end) = (self.state, self.first_begin, self.first_end);
        let (next, taken) = (0, Vec::new());
        self.stack.push(Choice { candidates, next, taken, state, first_begin, first_end });
        self.choose()
    }

    /// What may come next: it began before anything else that is left had ended.
    fn candidates(&mut self) -> Vec<usize> {
        while self.by_begin.get(self.first_begin).is_some_and(|at| self.done[*at]) {
            self.first_begin += 1;
        }
        while self.by_end.get(self.first_end).is_some_and(|at| self.done[*at]) {
            self.first_end += 1;
        }
        let end = self.by_end.get(self.first_end).and_then(|at| self.ops[*at].ended);
        let may = |at: &&usize| end.is_none_or(|end| self.ops[**at].begun <= end);
        let ended = self.by_begin[self.first_begin..].iter().take_while(may);
        let all = ended.chain(self.open.iter().filter(may));
        all.copied().filter(|at| !self.done[*at]).collect()
    }

    /// Takes the next candidate of the last choice that has one which is not known to be dead.
    fn choose(&mut self) -> bool {
        while let Some(mut choice) = self.stack.pop() {
            for at in choice.taken.drain(..) {
                self.done[at] = false;
                self.mark ^= fingerprint(at);
                self.ended_left += usize::from(self.ops[at].ended.is_some());
            }
            self.state = choice.state;
            (self.first_begin, self.first_end) = (choice.first_begin, choice.first_end);
            if let Some(at) = choice.candidates.get(choice.next).copied() {
                choice.next += 1;
                self.take(at);
                choice.taken.push(at);
                self.stack.push(choice);
                if !self.dead.contains(&(self.mark, self.state)) {
                    return true;
                }
                continue;
            }
            self.dead.insert((self.mark, self.state));
        }
        false
    }

    fn take(&mut self, at: usize) {
        self.done[at] = true;
        self.mark ^= fingerprint(at);
        self.ended_left -= usize::from(self.ops[at].ended.is_some());
        if let Act::Write(value) = self.ops[at].act {
            self.state = value;
        }
    }
}

/// Spreads a number over all bits, as in splitmix64.
fn fingerprint(at: usize) -> u64 {
    let mut mixed = (at as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generator::Generator;

    fn op(begun: u64, ended: u64, act: Act) -> Op {
        Op { begun, ended: Some(ended), hint: begun, act }
    }

    #[test]
    fn a_read_sees_what_was_written_before_it() {
        let fresh = [op(0, 1, Act::Write(1)), op(2, 3, Act::Read(1))];
        assert_eq!(search(&fresh, 100), Found::Order);
        let stale = [op(0, 1, Act::Write(1)), op(2, 3, Act::Read(0))];
        assert_eq!(search(&stale, 100), Found::None);
        let beside = [op(0, 5, Act::Write(1)), op(2, 3, Act::Read(0)), op(4, 6, Act::Read(1))];
        assert_eq!(search(&beside, 100), Found::Order);
        let back = [op(0, 9, Act::Write(1)), op(2, 3, Act::Read(1)), op(4, 6, Act::Read(0))];
        assert_eq!(search(&back, 100), Found::None);
    }

    #[test]
    fn what_may_have_happened_may_be_seen_at_any_time_after_it_began() {
        let lost = Op { ended: None, ..op(2, 0, Act::Write(7)) };
        assert_eq!(search(&[lost, op(90, 91, Act::Read(7))], 100), Found::Order);
        assert_eq!(search(&[lost, op(90, 91, Act::Read(0))], 100), Found::Order);
        assert_eq!(search(&[lost, op(0, 1, Act::Read(7))], 100), Found::None);
        let twice = [lost, op(3, 4, Act::Read(7)), op(5, 6, Act::Read(0))];
        assert_eq!(search(&twice, 100), Found::None);
    }

    /// Tries all orders.
    fn has_order(ops: &[Op], left: &[usize], state: u32) -> bool {
        if left.iter().all(|at| ops[*at].ended.is_none()) {
            return true;
        }
        let end = left.iter().filter_map(|at| ops[*at].ended).min();
        left.iter().any(|at| {
            let op = ops[*at];
            let after = match op.act {
                Act::Write(value) => value,
                Act::Read(value) if value == state => state,
                Act::Read(_) => return false,
            };
            let rest: Vec<usize> = left.iter().copied().filter(|other| other != at).collect();
            end.is_none_or(|end| op.begun <= end) && has_order(ops, &rest, after)
        })
    }

    #[test]
    fn it_finds_what_trying_everything_finds() {
        let mut chance = Generator::new(5);
        let mut found = [0, 0];
        for _ in 0..5_000 {
            let ops: Vec<Op> = (0..chance.between(1, 7))
                .map(|_| {
                    let begun = chance.below(12);
                    let ended = Some(begun + chance.below(6)).filter(|_| chance.below(5) > 0);
                    let value = chance.below(3) as u32;
                    let act = if chance.coin() { Act::Write(value) } else { Act::Read(value) };
                    Op { begun, ended, hint: chance.draw(), act }
                })
                .collect();
            let all: Vec<usize> = (0..ops.len()).collect();
            let expected = has_order(&ops, &all, 0);
            found[usize::from(expected)] += 1;
            let told = search(&ops, 100_000);
            assert_eq!(told == Found::Order, expected, "{ops:?}");
            assert_ne!(told, Found::Nothing);
        }
        assert!(found[0] > 500 && found[1] > 500, "{found:?}");
    }
}
