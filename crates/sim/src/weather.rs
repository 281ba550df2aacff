//! What the world does to the disks of one node: it slows them down and makes them fail.

use crate::generator::Generator;
use naust_log::sim::{Op, Verdict, Weather};
use std::io::ErrorKind;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The sky over all disks of a node, as the world turns it.
#[derive(Clone)]
pub struct Sky(Arc<Mutex<Controls>>);

struct Controls {
    generator: Generator,
    slow_in_a_million: u64,
    slow_nanos: u64,
    /// So many more writes and syncs, and one fails.
    fails_after: Option<u64>,
    failed: u64,
}

impl Sky {
    /// A sky under which so many operations in a million take so long.
    #[must_use]
    pub fn new(generator: Generator, slow_in_a_million: u64, slow_nanos: u64) -> Sky {
        let (fails_after, failed) = (None, 0);
        let controls = Controls { generator, slow_in_a_million, slow_nanos, fails_after, failed };
        Sky(Arc::new(Mutex::new(controls)))
    }

    /// After so many more writes and syncs, one fails.
    pub fn strike(&self, after: u64) {
        self.controls().fails_after = Some(after);
    }

    /// No failure is to come any more.
    pub fn clear(&self) {
        let mut controls = self.controls();
        controls.fails_after = None;
        controls.slow_in_a_million = 0;
    }

    /// How many operations failed so far.
    #[must_use]
    pub fn failed(&self) -> u64 {
        self.controls().failed
    }

    fn controls(&self) -> MutexGuard<'_, Controls> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Weather for Sky {
    fn ask(&mut self, op: Op, _file: &str) -> Verdict {
        let mut controls = self.controls();
        if matches!(op, Op::Write(_) | Op::Sync) {
            match controls.fails_after {
                Some(0) => {
                    controls.fails_after = None;
                    controls.failed += 1;
                    return Verdict::Fail(ErrorKind::Other);
                }
                Some(left) => controls.fails_after = Some(left - 1),
                None => {}
            }
        }
        let often = controls.slow_in_a_million;
        if often > 0 && controls.generator.chance(often) {
            return Verdict::Slow(controls.slow_nanos);
        }
        Verdict::Go
    }
}
