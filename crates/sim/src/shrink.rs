//! Cuts a life that failed as far as it goes: less time, fewer faults, clients and requests; and
//! still the same checker says no.
//!
//! What is cut changes what chance brings behind it, so a life that is cut is another life: each
//! try is lived whole, and kept if it fails as the first one did. (Zeller and Hildebrandt,
//! "Simplifying and Isolating Failure-Inducing Input", 2002, cuts the list of faults.)

use crate::life::{self, Life, Wanted};
use crate::trace::Trace;
use std::collections::BTreeSet;

/// What is left out of a life that its seed alone would have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cuts {
    /// The busy part ends after so many microseconds.
    pub busy_micros: Option<u64>,
    /// Of the faults, numbered as they come, only these happen.
    pub faults: Option<BTreeSet<u64>>,
    /// So many requests are drawn.
    pub requests: Option<u64>,
    /// So many clients ask.
    pub clients: Option<u64>,
}

/// What is left of a failing life.
#[derive(Debug)]
pub struct Shrunk {
    /// What was cut.
    pub cuts: Cuts,
    /// The life that is left.
    pub life: Life,
    /// How many were tried.
    pub tries: usize,
}

/// Cuts the life of a seed, in at most so many tries. `None`: it does not fail.
#[must_use]
pub fn shrink(
    seed: u64,
    wanted: &Wanted,
    tries_max: usize,
    told: impl FnMut(&Cuts),
) -> Option<Shrunk> {
    let live = |cuts: &Cuts| {
        let wanted = Wanted { cuts: cuts.clone(), ..wanted.clone() };
        life::live(seed, &wanted, Trace::silent())
    };
    let first = live(&wanted.cuts);
    let checker = first.violations.first()?.checker;
    let best = (wanted.cuts.clone(), first);
    let mut search = Search { live, checker, best, tries: 1, tries_max, told };
    search.shorten();
    search.spare_faults();
    search.spare_clients();
    search.spare_requests();
    search.shorten();
    let (cuts, life) = search.best;
    Some(Shrunk { cuts, life, tries: search.tries })
}

struct Search<L, T> {
    live: L,
    checker: &'static str,
    best: (Cuts, Life),
    tries: usize,
    tries_max: usize,
    told: T,
}

impl<L: Fn(&Cuts) -> Life, T: FnMut(&Cuts)> Search<L, T> {
    /// Whether a life with these cuts fails in the same way; then it is the best so far.
    fn fails(&mut self, cuts: Cuts) -> bool {
        if self.tries >= self.tries_max {
            return false;
        }
        self.tries += 1;
        let life = (self.live)(&cuts);
        let fails = life.violations.first().is_some_and(|first| first.checker == self.checker);
        if fails {
            (self.told)(&cuts);
            self.best = (cuts, life);
        }
        fails
    }

    /// The busy part ends as early as possible, to a tenth.
    fn shorten(&mut self) {
        let (mut low, mut high) = (0, self.best.1.busy_micros);
        while high - low > high / 10 + 1_000 {
            let middle = low + (high - low) / 2;
            let cuts = Cuts { busy_micros: Some(middle), ..self.best.0.clone() };
            if self.fails(cuts) {
                high = middle;
            } else {
                low = middle;
            }
        }
    }

    /// Leaves out ever smaller parts of the faults that are left.
    fn spare_faults(&mut self) {
        let drawn = self.best.1.faults;
        let left = self.best.0.faults.clone().unwrap_or_else(|| (0..drawn).collect());
        let mut left: Vec<u64> = left.into_iter().collect();
        let mut parts = 1;
        while !left.is_empty() && parts <= left.len() && self.tries < self.tries_max {
            let size = left.len().div_ceil(parts);
            let mut at = 0;
            let mut spared = false;
            while at < left.len() {
                let mut fewer = left.clone();
                fewer.drain(at..(at + size).min(left.len()));
                let faults = Some(fewer.iter().copied().collect());
                if self.fails(Cuts { faults, ..self.best.0.clone() }) {
                    left = fewer;
                    spared = true;
                } else {
                    at += size;
                }
            }
            parts = if spared { parts.max(2) } else { parts * 2 };
        }
    }

    fn spare_clients(&mut self) {
        for clients in 1..self.best.1.clients {
            if self.fails(Cuts { clients: Some(clients), ..self.best.0.clone() }) {
                return;
            }
        }
    }

    /// As few requests as possible, to a tenth.
    fn spare_requests(&mut self) {
        let (mut low, mut high) = (0, self.best.1.requests);
        while high - low > high / 10 + 1 {
            let middle = low + (high - low) / 2;
            match self.fails(Cuts { requests: Some(middle), ..self.best.0.clone() }) {
                true => high = middle,
                false => low = middle,
            }
        }
    }
}
