//! Many lives, one after the other and side by side; and what they came to.
//!
//! The only threads of this crate are here, outside of all worlds: each life is told by one thread.

use crate::life::{self, Life, Wanted};
use crate::tally::Tally;
use crate::trace::Trace;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// What many lives came to.
#[derive(Debug, Default)]
pub struct Report {
    /// Everything counted, over all lives.
    pub tally: Tally,
    /// Seeds that failed, ascending, with what was wrong first.
    pub failed: Vec<(u64, String)>,
}

/// Lives all seeds of a range on so many threads. `told` hears of each failure at once.
pub fn seeds(
    range: Range<u64>,
    wanted: &Wanted,
    threads: usize,
    told: impl Fn(u64, &str) + Sync,
) -> Report {
    let next = AtomicU64::new(range.start);
    let report = Mutex::new(Report::default());
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= range.end {
                        return;
                    }
                    let life = life::live(seed, wanted, Trace::silent());
                    let mut report = report.lock().unwrap_or_else(PoisonError::into_inner);
                    report.tally.add(&life.tally);
                    if let Some(what) = sentence(&life) {
                        told(seed, &what);
                        report.failed.push((seed, what));
                    }
                }
            });
        }
    });
    let mut report = report.into_inner().unwrap_or_else(PoisonError::into_inner);
    report.failed.sort();
    report
}

/// What was wrong with a life, in a few sentences, or `None`.
#[must_use]
pub fn sentence(life: &Life) -> Option<String> {
    let first = life.violations.first()?;
    let more = life.violations.len() - 1;
    let more = if more == 0 { String::new() } else { format!(" (and {more} more)") };
    Some(format!("{}: {}{more}", first.checker, first.what))
}
