//! How often clients have the digests of a shard noted: each time takes the views of every replica
//! a while, in which nothing else is folded in. One is under way at a time, and after it there is a
//! pause.
//!
//! The leader decides that, before anything is logged: replicas that have begun anew since could
//! not all say when they noted last. Another leader does not know, either, and begins anew.

use super::Shard;
use crate::Now;
use naust_wire::limits::DIGESTS_PAUSE_MS;
use naust_wire::reply::Failure;
use naust_wire::{Code, Index};

#[derive(Default)]
pub(super) struct Noting {
    /// The entry that has them noted, until it is folded in.
    under_way: Option<Index>,
    /// Before this they are not noted again, in milliseconds of the monotonic clock.
    pause_ms: u64,
}

impl Noting {
    /// They are to be noted at the entry `next`, which follows the log's last.
    pub(super) fn begin(&mut self, next: Index, now: Now) -> Result<(), Failure> {
        // An entry that was cut off is not waited for.
        let is_under_way = self.under_way.is_some_and(|noting| noting < next);
        if is_under_way || now.monotonic_ms < self.pause_ms {
            let detail = format!(
                "the digests of this namespace are noted now, or were less than \
                 {DIGESTS_PAUSE_MS} ms ago; try again"
            );
            return Err(Failure::new(Code::Overloaded, detail));
        }
        self.under_way = Some(next);
        Ok(())
    }

    /// Entries up to this one are folded in.
    pub(super) fn folded(&mut self, upto: Index, now: Now) {
        if self.under_way.take_if(|noting| *noting <= upto).is_some() {
            self.pause_ms = now.monotonic_ms + DIGESTS_PAUSE_MS;
        }
    }
}

impl Shard {
    /// The next entry is to have the digests of all views noted, after `admit` said yes.
    ///
    /// # Errors
    /// `Overloaded`: that was asked for a moment ago.
    pub(crate) fn begin_noting(&mut self, now: Now) -> Result<(), Failure> {
        self.noting.begin(self.log.end().index.next(), now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Now;

    fn at(monotonic_ms: u64) -> Now {
        Now { monotonic_ms, ..Now::default() }
    }

    #[test]
    fn one_is_under_way_and_then_there_is_a_pause() {
        let mut noting = Noting::default();
        noting.begin(Index(7), at(0)).unwrap();
        let refused = noting.begin(Index(8), at(60_000)).unwrap_err();
        assert_eq!(refused.code, Code::Overloaded);
        noting.folded(Index(6), at(60_000));
        assert!(noting.begin(Index(9), at(60_000)).is_err());
        noting.folded(Index(9), at(60_000));
        assert!(noting.begin(Index(10), at(60_000 + DIGESTS_PAUSE_MS - 1)).is_err());
        noting.begin(Index(10), at(60_000 + DIGESTS_PAUSE_MS)).unwrap();
    }

    #[test]
    fn what_was_cut_off_is_not_waited_for() {
        let mut noting = Noting::default();
        noting.begin(Index(7), at(0)).unwrap();
        noting.begin(Index(7), at(0)).unwrap();
        assert!(noting.begin(Index(8), at(0)).is_err());
    }
}
