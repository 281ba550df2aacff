//! Log time: what leaders stamp into frames.
//!
//! Log time goes on from the last stamp of the log by what a monotonic clock counts, a tenth
//! faster or slower to come closer to the wall. So it never goes back, the time that a shard is
//! down does not count, and a jump of the wall clock by an hour shifts it by a tenth of what
//! passes after.

use crate::Now;
use naust_wire::LogTime;

/// Slew is reckoned from an anchor that moves on after this long, in milliseconds.
const ANCHOR_MS: u64 = 1000;

/// The clock of one shard.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    anchor: u64,
    anchor_monotonic_ms: u64,
    last: u64,
}

impl Clock {
    /// A clock that goes on from the last stamp of a log; one without frames begins at the wall.
    #[must_use]
    pub fn new(last: Option<LogTime>, now: Now) -> Clock {
        let last = last.map_or(now.wall_ms, |time| time.0);
        Clock { anchor: last, anchor_monotonic_ms: now.monotonic_ms, last }
    }

    /// The time to stamp now. Never less than the one before.
    pub fn stamp(&mut self, now: Now) -> LogTime {
        let elapsed = now.monotonic_ms.saturating_sub(self.anchor_monotonic_ms);
        let plain = self.anchor.saturating_add(elapsed);
        let slew = elapsed / 10;
        let time = now.wall_ms.clamp(plain - slew, plain.saturating_add(slew));
        self.last = self.last.max(time);
        if elapsed >= ANCHOR_MS {
            self.anchor = self.last;
            self.anchor_monotonic_ms = now.monotonic_ms;
        }
        LogTime(self.last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(monotonic_ms: u64, wall_ms: u64) -> Now {
        Now { monotonic_ms, wall_ms }
    }

    #[test]
    fn it_begins_at_the_wall_and_goes_with_it() {
        let mut clock = Clock::new(None, at(5, 1_000_000));
        assert_eq!(clock.stamp(at(5, 1_000_000)), LogTime(1_000_000));
        assert_eq!(clock.stamp(at(1005, 1_001_000)), LogTime(1_001_000));
    }

    #[test]
    fn downtime_does_not_count_and_is_made_up_by_a_tenth() {
        let mut clock = Clock::new(Some(LogTime(1_000_000)), at(0, 9_000_000));
        assert_eq!(clock.stamp(at(0, 9_000_000)), LogTime(1_000_000));
        assert_eq!(clock.stamp(at(1000, 9_001_000)), LogTime(1_001_100));
        let late = (2..=100).map(|s| clock.stamp(at(s * 1000, 9_000_000 + s * 1000))).last();
        assert_eq!(late, Some(LogTime(1_110_000)));
    }

    #[test]
    fn an_hour_back_slows_it_by_a_tenth() {
        let mut clock = Clock::new(None, at(0, 10_000_000));
        let wall = 10_000_000 - 3_600_000;
        assert_eq!(clock.stamp(at(1000, wall + 1000)), LogTime(10_000_900));
    }

    proptest! {
        #[test]
        fn it_never_goes_back_nor_faster_than_a_tenth_more(
            steps in proptest::collection::vec((0u64..3000, any::<u32>()), 1..60)
        ) {
            let start = 50_000_000;
            let mut clock = Clock::new(Some(LogTime(start)), at(0, start));
            let (mut monotonic, mut last) = (0, start);
            for (step, wall) in steps {
                monotonic += step;
                let time = clock.stamp(at(monotonic, u64::from(wall))).0;
                prop_assert!(time >= last);
                prop_assert!(time - start <= monotonic + monotonic / 10);
                last = time;
            }
        }
    }
}
