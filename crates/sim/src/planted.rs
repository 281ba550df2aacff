//! Lives with a bug in them ([`naust_wire::planted`]), until a checker finds it. Only in a build
//! that has bugs.

use crate::life::{self, Wanted};
use crate::plan::Mode;
use crate::trace::Trace;
use naust_wire::planted::{self, Bug};
use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// How a bug was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// By which seed, the first one of the range that finds it.
    pub seed: u64,
    /// How many lives it took.
    pub lives: u64,
    /// By which checkers, in the order in which they spoke.
    pub checkers: Vec<&'static str>,
    /// What the first of them said.
    pub what: String,
}

/// The lives in which a bug can show; `None`: the simulator does not run what it is in, and a test
/// of its crate finds it.
#[must_use]
pub fn wanted(bug: Bug) -> Option<Wanted> {
    let (nodes, mode) = match bug {
        Bug::AckBeforeSync
        | Bug::IgnoreFailedSync
        | Bug::ForgetNames
        | Bug::TrimLive
        | Bug::SkipUnknown
        | Bug::LateZeros
        | Bug::ApplyTwice
        | Bug::DropSession
        | Bug::ReplayRefused
        | Bug::ForgetRecent
        | Bug::FloorAhead
        | Bug::ReadBelowFloor
        | Bug::LoseHalf
        | Bug::StreamGap
        | Bug::NumberedTwice
        | Bug::HalfPages
        | Bug::CountGone
        | Bug::TablesAhead
        | Bug::SyncNever => (1, Mode::Promised),
        Bug::CutDamage | Bug::BelieveFrames => (1, Mode::Beyond),
        Bug::ForgetVote
        | Bug::ReplayOverCut
        | Bug::FollowerAcksEarly
        | Bug::LeaderCountsEarly
        | Bug::CommitAlone
        | Bug::ReadWithoutQuorum
        | Bug::FollowerReadsAlone
        | Bug::OldConfiguration
        | Bug::DenyDeposed
        | Bug::ForgetTimes
        | Bug::ReadBehind
        | Bug::RemoveUnclosed
        | Bug::ServeClosed
        | Bug::EndEarly
        | Bug::ReleaseUnsaved
        | Bug::TryOnce => (3, Mode::Promised),
        // The second is not in the simulator, the first shows too seldom there.
        Bug::ReuseBeforeSync | Bug::DropWindow => return None,
    };
    Some(Wanted { nodes: Some(nodes), mode: Some(mode), ..Wanted::default() })
}

/// Lives with a bug until it is found, or all seeds are lived. What comes out is the same however
/// many threads there are.
#[must_use]
pub fn find(bug: Bug, wanted: &Wanted, seeds: Range<u64>, threads: usize) -> Option<Found> {
    planted::plant(Some(bug));
    let next = AtomicU64::new(seeds.start);
    let found: Mutex<Option<Found>> = Mutex::new(None);
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(|| {
                // Seeds are handed out in order: whoever finds something has left none out.
                while found.lock().unwrap_or_else(PoisonError::into_inner).is_none() {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        return;
                    }
                    let life = life::live(seed, wanted, Trace::silent());
                    let Some(first) = life.violations.first() else { continue };
                    let mut seen = BTreeSet::new();
                    let checkers = life.violations.iter().map(|violation| violation.checker);
                    let checkers = checkers.filter(|checker| seen.insert(*checker)).collect();
                    let (what, lives) = (first.what.clone(), seed - seeds.start + 1);
                    let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
                    if found.as_ref().is_none_or(|found| seed < found.seed) {
                        *found = Some(Found { seed, lives, checkers, what });
                    }
                }
            });
        }
    });
    planted::plant(None);
    found.into_inner().unwrap_or_else(PoisonError::into_inner)
}
