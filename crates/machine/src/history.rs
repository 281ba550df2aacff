//! How far back history is kept: the points of log time, and the floor that follows from them.
//!
//! The floor is a function of the log alone: the higher of *applied − window in bytes* and *what
//! was applied window ms ago*. Readers that hold it down (see [`crate::reader`]) only delay what a
//! replica drops. Points of time are thinned as they age, so a keyspace's age limit of days and a
//! history of seconds share one bounded list.

use crate::rows::{Damaged, Fields, put_u32, put_u64};
use naust_wire::limits::TIME_POINTS_MAX;
use naust_wire::{LogTime, Offset};
use std::collections::VecDeque;

/// Log time that passes at least between two points, in milliseconds.
const POINT_MS: u64 = 100;

/// Where some moments of log time begin in the log. Ascending in all fields; at most
/// [`TIME_POINTS_MAX`].
#[derive(Clone, Debug, Default)]
pub(crate) struct TimePoints {
    points: VecDeque<Point>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Point {
    /// No frame before this one is younger.
    before: LogTime,
    /// The frame's own time.
    time: LogTime,
    /// Where the frame begins.
    offset: Offset,
}

impl TimePoints {
    /// A frame at `offset` has this time, the one before it had the time `before`.
    pub(crate) fn pass(&mut self, before: LogTime, time: LogTime, offset: Offset) {
        let due = |last: &Point| time.0 >= last.time.0.saturating_add(POINT_MS);
        if self.points.back().is_none_or(due) {
            self.points.push_back(Point { before, time, offset });
            if self.points.len() >= TIME_POINTS_MAX {
                self.thin();
            }
        }
    }

    /// Drops every second point of the older half.
    fn thin(&mut self) {
        let older = self.points.len() / 2;
        let mut place = 0;
        self.points.retain(|_| {
            place += 1;
            place > older || place % 2 == 1
        });
    }

    /// The newest known frame whose time is at or before `time`. Zero: none known.
    pub(crate) fn offset_at(&self, time: LogTime) -> Offset {
        let after = self.points.partition_point(|point| point.time <= time);
        after.checked_sub(1).map_or(Offset::ZERO, |at| self.points[at].offset)
    }

    /// An offset before which all frames are older than `time`, about the last one. Zero: none
    /// known.
    pub(crate) fn older_than(&self, time: LogTime) -> Offset {
        let after = self.points.partition_point(|point| point.before < time);
        after.checked_sub(1).map_or(Offset::ZERO, |at| self.points[at].offset)
    }

    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        put_u32(out, self.points.len() as u32);
        for Point { before, time, offset } in &self.points {
            put_u64(out, before.0);
            put_u64(out, time.0);
            put_u64(out, offset.0);
        }
    }

    pub(crate) fn read(fields: &mut Fields<'_>) -> Result<TimePoints, Damaged> {
        let mut points = VecDeque::new();
        for _ in 0..fields.u32()? {
            let (before, time) = (LogTime(fields.u64()?), LogTime(fields.u64()?));
            points.push_back(Point { before, time, offset: fields.offset()? });
        }
        Ok(TimePoints { points })
    }
}

/// The window of history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Window {
    pub(crate) ms: u64,
    pub(crate) bytes: u64,
}

impl Window {
    /// Below this offset nothing has to be kept, `next` being where the log goes on.
    pub(crate) fn floor(self, points: &TimePoints, now: LogTime, next: Offset) -> Offset {
        let by_bytes = Offset(next.0.saturating_sub(self.bytes));
        let by_time =
            now.0.checked_sub(self.ms).map_or(Offset::ZERO, |time| points.offset_at(LogTime(time)));
        by_bytes.max(by_time)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_floor_is_the_higher_of_the_two_windows() {
        let mut points = TimePoints::default();
        for i in 0..100u64 {
            let before = LogTime((i * 1000).saturating_sub(1000));
            points.pass(before, LogTime(i * 1000), Offset(10_000 + i * 100));
        }
        let floor =
            |ms, bytes| Window { ms, bytes }.floor(&points, LogTime(99_000), Offset(20_000)).0;
        assert_eq!(floor(10_000, u64::MAX), 10_000 + 89 * 100);
        assert_eq!(floor(u64::MAX, 500), 19_500);
        assert_eq!(floor(10_000, 500), 19_500);
        assert_eq!(floor(500_000, u64::MAX), 0);
    }

    #[test]
    fn points_stay_bounded_and_never_name_a_frame_that_is_too_young() {
        let mut points = TimePoints::default();
        let frames = 40_000u64;
        for i in 0..frames {
            points.pass(LogTime((i * 250).saturating_sub(250)), LogTime(i * 250), Offset(i + 1));
            assert!(points.points.len() < TIME_POINTS_MAX);
        }
        for i in (0..frames).step_by(77) {
            let found = points.offset_at(LogTime(i * 250)).0;
            assert!(found <= i + 1);
            // The frame at this time is not older than it.
            assert!(points.older_than(LogTime(i * 250)).0 <= i + 1);
        }
        assert_eq!(points.older_than(LogTime((frames - 10) * 250)).0, frames - 9);
        let recent = points.offset_at(LogTime((frames - 10) * 250)).0;
        assert_eq!(recent, frames - 9);
        let mut row = Vec::new();
        points.write(&mut row);
        let read = TimePoints::read(&mut Fields::new(&row, "x")).unwrap();
        assert_eq!(read.points, points.points);
    }
}
