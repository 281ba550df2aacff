//! Bugs on purpose, to see that the simulator finds them: who guards the guards.
//!
//! Each stands in the code that it spoils as one `planted::has(Bug::…)`. Only a build with
//! `--cfg naust_planted` can switch one on; in every other build the answer is a constant *no*, and
//! nothing is left of them. `cargo xtask planted` makes such a build, lives with each bug until it
//! is found, and prints which checker found it; `docs/planted-bugs.md` keeps the list. What the
//! simulator does not run is left to the tests of its crate.

/// A bug that can be switched on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Bug {
    /// `log` calls frames durable that were written and not synced.
    AckBeforeSync = 1,
    /// `log` takes a sync that failed for one that did not.
    IgnoreFailedSync,
    /// `log` never syncs the names of its files.
    ForgetNames,
    /// `log` takes damage of acknowledged frames for a torn tail, and cuts it.
    CutDamage,
    /// A frame is believed without a look at its checksum.
    BelieveFrames,
    /// `log` trims what the views said is alive.
    TrimLive,
    /// `log` passes over old segments of which it is not known yet what lives in them.
    SkipUnknown,
    /// `log` keeps the zeros that a late zero-fill wrote over frames.
    LateZeros,
    /// `log` lets a journal write again what was cut.
    ReplayOverCut,
    /// `log` uses a half of a journal again before its segments are synced.
    ReuseBeforeSync,
    /// `consensus` saves the term and not the vote.
    ForgetVote,
    /// `consensus` lets a follower answer before its disk has what it answers for.
    FollowerAcksEarly,
    /// `consensus` counts the leader's own entries before its disk has them.
    LeaderCountsEarly,
    /// `consensus` takes for committed what the leader's disk alone has.
    CommitAlone,
    /// `consensus` answers reads of a leader without asking a quorum.
    ReadWithoutQuorum,
    /// `node` answers linearizable reads of a follower by what the follower has.
    FollowerReadsAlone,
    /// `node` begins with the configuration of its tables, whatever its log says.
    OldConfiguration,
    /// `node` calls what a deposed leader had staged definitely not done.
    DenyDeposed,
    /// `machine` applies a commit of a session again instead of answering it again.
    ApplyTwice,
    /// `machine` leaves every fourth session out when it writes them to its tables.
    DropSession,
    /// `machine` replays commits that had been refused.
    ReplayRefused,
    /// `machine` forgets the window of recent writes when it opens.
    ForgetRecent,
    /// `machine` tells the tables a floor of history that is ahead of the window.
    FloorAhead,
    /// `machine` reads below the floor of history instead of refusing.
    ReadBelowFloor,
    /// `machine` takes every tree for as far as the shard's own when it replays.
    LoseHalf,
    /// `machine` begins the next page of a stream one record late.
    StreamGap,
    /// `machine` forgets at which offset it was what time when it opens.
    ForgetTimes,
    /// `machine` carries out again what a session numbered in the directory.
    NumberedTwice,
    /// `machine` removes a namespace whose shard is not closed.
    RemoveUnclosed,
    /// `machine` goes on folding commits in behind the end of a namespace.
    ServeClosed,
    /// `node` lets go what rests on a term or a vote that a full disk refused to save.
    ReleaseUnsaved,
    /// `node` tells of the end of a namespace as soon as it is proposed.
    EndEarly,
    /// `node` leaves out of a page of the raw log what it read in a second step.
    HalfPages,
    /// `node` counts reads of connections that are gone as waiting, for ever.
    CountGone,
    /// `node` reads one row as of what the worker has heard of, and many as of what is folded in.
    ReadBehind,
    /// `node` does not try again to write to a disk that was full.
    TryOnce,
    /// `node` writes tables to disk ahead of the log that they rest on.
    TablesAhead,
    /// `node` leaves what may wait for its sync without one, however long.
    SyncNever,
    /// `store` drops all versions of a row but the newest when it merges, also those in the window.
    DropWindow,
}

impl Bug {
    /// All of them.
    pub const ALL: [Bug; 39] = [
        Bug::AckBeforeSync,
        Bug::IgnoreFailedSync,
        Bug::ForgetNames,
        Bug::CutDamage,
        Bug::BelieveFrames,
        Bug::TrimLive,
        Bug::SkipUnknown,
        Bug::LateZeros,
        Bug::ReplayOverCut,
        Bug::ReuseBeforeSync,
        Bug::ForgetVote,
        Bug::FollowerAcksEarly,
        Bug::LeaderCountsEarly,
        Bug::CommitAlone,
        Bug::ReadWithoutQuorum,
        Bug::FollowerReadsAlone,
        Bug::OldConfiguration,
        Bug::DenyDeposed,
        Bug::ApplyTwice,
        Bug::DropSession,
        Bug::ReplayRefused,
        Bug::ForgetRecent,
        Bug::FloorAhead,
        Bug::ReadBelowFloor,
        Bug::LoseHalf,
        Bug::StreamGap,
        Bug::ForgetTimes,
        Bug::NumberedTwice,
        Bug::RemoveUnclosed,
        Bug::ServeClosed,
        Bug::ReleaseUnsaved,
        Bug::EndEarly,
        Bug::HalfPages,
        Bug::CountGone,
        Bug::ReadBehind,
        Bug::TryOnce,
        Bug::TablesAhead,
        Bug::SyncNever,
        Bug::DropWindow,
    ];
}

#[cfg(naust_planted)]
static PLANTED: std::sync::atomic::AtomicU8 = std::sync::atomic::AtomicU8::new(0);

/// Whether a bug is switched on.
#[cfg(naust_planted)]
#[must_use]
pub fn has(bug: Bug) -> bool {
    PLANTED.load(std::sync::atomic::Ordering::Relaxed) == bug as u8
}

/// Whether a bug is switched on: never, in this build.
#[cfg(not(naust_planted))]
#[inline(always)]
#[must_use]
pub const fn has(_bug: Bug) -> bool {
    false
}

/// Switches one bug on, for the whole process; or none.
#[cfg(naust_planted)]
pub fn plant(bug: Option<Bug>) {
    PLANTED.store(bug.map_or(0, |bug| bug as u8), std::sync::atomic::Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bug_is_listed_for_readers_and_none_is_switched_on() {
        let page = include_str!("../../../docs/planted-bugs.md");
        for bug in Bug::ALL {
            assert!(page.contains(&format!("| `{bug:?}` |")), "{bug:?}");
            assert!(!has(bug), "{bug:?}");
        }
    }
}
