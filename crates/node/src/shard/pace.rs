//! How fast a leader reads parts for other nodes while clients write.
//!
//! The copy and the commits share a disk, a network and processors, and nobody knows how fast those
//! are. So the leader watches how long its own log writes take, from the moment they are handed out
//! to the moment it hears of their end, which counts whatever is in their way:
//!
//! ```text
//!   rate  │      ╱│  ╱│  ╱│        a window near what it was before the copy: a step more
//!         │    ╱  │╱  │╱  │╱       a window that is longer: half
//!         │  ╱
//!         └────────────────── time
//! ```
//! The clock counts milliseconds and a write takes a part of one; but how often a short write falls
//! on the border of two is proportional to its length, so the mean of many is right.
//!
//! At the lowest rate there is nothing left to give back: if writes still take longer than before,
//! something else has changed, and that is what is compared with from then on.

use naust_wire::limits::{TRANSFER_BYTES_PER_S_MIN, TRANSFER_PART_BYTES};

/// Bytes a second that a copy begins with.
const BEGIN_BYTES_PER_S: u64 = 128 * 1024 * 1024;
/// What is added after a window in which commits did not suffer.
const STEP_BYTES_PER_S: u64 = 16 * 1024 * 1024;
/// Writes that make a window.
const WINDOW_WRITES: u64 = 256;
/// Milliseconds after which fewer do, if they are at least so many.
const WINDOW_MS: u64 = 100;
const WINDOW_WRITES_MIN: u64 = 8;
/// Milliseconds after which a single one does.
const WINDOW_MS_MAX: u64 = 1000;
/// Microseconds by which the mean of a window may be off by chance alone.
const CHANCE_US: u64 = 75;
/// One window changes what is compared with by one part of so many; one at the lowest rate, far
/// less.
const SLOWLY: u64 = 8;
const MORE_SLOWLY: u64 = 32;
/// Milliseconds that the reading of parts may catch up: ticks are late on a busy machine.
const LATE_MS: u64 = 50;

/// The rate of a shard's copies.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// Most bytes a second, as it was set; zero: as many as are asked for.
    most_bytes_per_s: u64,
    /// Zero: nothing was copied yet.
    rate_bytes_per_s: u64,
    /// Bytes that may be read, times a thousand, and when they were counted.
    credit_thousandths: u64,
    counted_ms: u64,
    /// The rate was in the way of a part since the window began.
    is_felt: bool,
    is_copying: bool,
    /// When the write under way was handed out.
    handed_out_ms: Option<u64>,
    window: Window,
    /// Microseconds of a write while nothing is copied.
    calm_us: Option<u64>,
}

/// Writes that are looked at together.
#[derive(Debug, Default)]
struct Window {
    /// When the first of them was handed out.
    since_ms: u64,
    writes: u64,
    took_ms: u64,
}

impl Pace {
    /// At most so many bytes a second; zero: no bound, whatever commits suffer.
    pub(super) fn set_most(&mut self, bytes_per_s: u64) {
        self.most_bytes_per_s = bytes_per_s;
    }

    /// A log write is handed out.
    pub(super) fn write_begins(&mut self, now_ms: u64) {
        self.handed_out_ms = Some(now_ms);
        if self.window.writes == 0 {
            // One that began long before would end with this write, and tell nothing.
            self.window.since_ms = now_ms;
        }
    }

    /// It ended.
    pub(super) fn write_ended(&mut self, now_ms: u64) {
        let Some(since_ms) = self.handed_out_ms.take() else { return };
        self.window.writes += 1;
        self.window.took_ms += now_ms.saturating_sub(since_ms);
        let Window { since_ms, writes, took_ms } = self.window;
        let lasts_ms = now_ms.saturating_sub(since_ms);
        let is_over = lasts_ms >= WINDOW_MS && writes >= WINDOW_WRITES_MIN;
        if writes >= WINDOW_WRITES || is_over || lasts_ms >= WINDOW_MS_MAX {
            self.learn(took_ms * 1000 / writes);
            self.begin_window();
        }
    }

    /// Something is being copied, or nothing any more.
    pub(super) fn copying(&mut self, is_copying: bool) {
        if self.is_copying != is_copying {
            self.is_copying = is_copying;
            self.begin_window();
        }
        if !is_copying {
            self.rate_bytes_per_s = 0;
        }
    }

    /// Whether a part may be read now, which is then counted.
    pub(super) fn take(&mut self, now_ms: u64) -> bool {
        if self.most_bytes_per_s == 0 {
            return true;
        }
        if self.rate_bytes_per_s == 0 {
            self.set_rate(BEGIN_BYTES_PER_S);
        }
        let part = TRANSFER_PART_BYTES as u64 * 1000;
        let rate = self.rate_bytes_per_s;
        let most = (rate * LATE_MS).max(part);
        let since_ms = now_ms.saturating_sub(self.counted_ms).min(1000);
        self.counted_ms = now_ms;
        self.credit_thousandths = (self.credit_thousandths + rate * since_ms).min(most);
        let Some(left) = self.credit_thousandths.checked_sub(part) else {
            self.is_felt = true;
            return false;
        };
        self.credit_thousandths = left;
        true
    }

    fn learn(&mut self, mean_us: u64) {
        let calm_us = *self.calm_us.get_or_insert(mean_us);
        let nearer = |part: u64| Some((calm_us * (part - 1) + mean_us) / part);
        if !self.is_copying {
            self.calm_us = nearer(SLOWLY);
        } else if mean_us <= calm_us + calm_us / 2 + CHANCE_US {
            if self.is_felt {
                self.set_rate(self.rate_bytes_per_s + STEP_BYTES_PER_S);
            }
        } else if self.rate_bytes_per_s > self.least() {
            self.set_rate(self.rate_bytes_per_s / 2);
        } else {
            self.calm_us = nearer(MORE_SLOWLY);
        }
    }

    fn least(&self) -> u64 {
        TRANSFER_BYTES_PER_S_MIN.min(self.most_bytes_per_s)
    }

    fn set_rate(&mut self, bytes_per_s: u64) {
        self.rate_bytes_per_s = bytes_per_s.clamp(self.least(), self.most_bytes_per_s);
    }

    fn begin_window(&mut self) {
        // The one that is under way may be the first of it.
        let since_ms = self.handed_out_ms.unwrap_or_default();
        self.window = Window { since_ms, ..Window::default() };
        self.is_felt = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1024 * 1024;

    struct World {
        pace: Pace,
        now_ms: u64,
    }

    impl World {
        fn new(most_bytes_per_s: u64) -> World {
            let mut pace = Pace::default();
            pace.set_most(most_bytes_per_s);
            World { pace, now_ms: 1000 }
        }

        /// Clients write for so long, each write takes so many microseconds, and a copy reads what
        /// it may: MiB of it a second.
        fn go(&mut self, ms: u64, write_us: u64, copies: bool) -> u64 {
            let (mut at_us, end_ms) = (self.now_ms * 1000, self.now_ms + ms);
            let mut parts = 0;
            self.pace.copying(copies);
            while self.now_ms < end_ms {
                self.pace.write_begins(at_us / 1000);
                // Not a multiple of a millisecond together: borders fall anywhere.
                at_us += write_us;
                self.pace.write_ended(at_us / 1000);
                at_us += 337;
                self.now_ms = at_us / 1000;
                while copies && self.pace.take(self.now_ms) {
                    parts += 1;
                    assert!(parts * TRANSFER_PART_BYTES as u64 / MIB < ms * 2, "it has a bound");
                }
            }
            parts * TRANSFER_PART_BYTES as u64 * 1000 / MIB / ms
        }
    }

    #[test]
    fn the_rate_follows_what_commits_bear() {
        // Milliseconds, microseconds of a write, whether something is copied; MiB a second from
        // and to.
        type Step = (u64, u64, bool, u64, u64);
        let begin = BEGIN_BYTES_PER_S / MIB;
        let least = TRANSFER_BYTES_PER_S_MIN / MIB;
        let cases: [(&str, u64, &[Step]); 7] = [
            (
                "it rises while commits do not suffer",
                1024,
                &[
                    (500, 300, false, 0, 0),
                    (200, 300, true, begin, begin * 2),
                    (1000, 300, true, begin + 16, 600),
                ],
            ),
            ("up to what was set", 200, &[(500, 300, false, 0, 0), (5000, 300, true, 190, 200)]),
            (
                "it falls to the least when they take longer, and is back when they do not",
                1024,
                &[
                    (500, 300, false, 0, 0),
                    (1500, 300, true, begin, 600),
                    (1000, 3000, true, least, 200),
                    (200, 3000, true, least, least + 4),
                    (2000, 300, true, begin, 700),
                ],
            ),
            (
                "a little longer is borne",
                1024,
                &[(500, 1000, false, 0, 0), (1500, 1500, true, begin + 20, 600)],
            ),
            (
                "twice as long is not",
                1024,
                &[(500, 1000, false, 0, 0), (1000, 2000, true, least, begin / 2)],
            ),
            (
                "what stays slow at the least rate is slow without the copy",
                1024,
                &[
                    (500, 300, false, 0, 0),
                    (4000, 2000, true, least, begin),
                    (4000, 2000, true, 2 * least, 1024),
                ],
            ),
            (
                "nothing was measured before: the first window is what is compared with",
                1024,
                &[(1000, 2000, true, begin, 300), (2000, 6000, true, least, begin)],
            ),
        ];
        for (what, most, steps) in cases {
            let mut world = World::new(most * MIB);
            for (ms, write_us, copies, from, to) in steps {
                let rate = world.go(*ms, *write_us, *copies);
                assert!((*from..=*to).contains(&rate), "{what}: {rate} MiB/s in {from}..={to}");
            }
        }
    }

    #[test]
    fn without_a_bound_nothing_is_held_back() {
        let mut world = World::new(0);
        world.pace.copying(true);
        assert!((0..100_000).all(|_| world.pace.take(world.now_ms)));
    }

    #[test]
    fn a_bound_below_the_least_is_kept() {
        let mut world = World::new(MIB);
        let rate = world.go(4000, 300, true);
        assert_eq!(rate, 1);
    }
}
