//! A replica at rest holds no log that nothing needs: what is old goes with its last live record,
//! and of a segment that is mostly dead a sparse copy stays.
//!
//! *Old* is what tables are persisted past and the window of history has left. The frame of a live
//! record stays whole, and so do those between two of them that lie near each other. A copy is made
//! if no more than half would stay, and that is looked at again once a quarter of the bytes of
//! records has died since. Which frames died since is not known here: as many as can have are
//! counted as if they were needed.

use naust_wire::Offset;
use std::ops::Range;

/// Its name in reports.
pub const NAME: &str = "limits";

/// Bytes that a disk gives out at once.
const PAGE_BYTES: u64 = 4096;
/// Bytes of a footer without its lists, and of an entry of a list; of these a frame has three at
/// most: its term, its mark and its range.
const FOOTER_BYTES: (u64, u64) = (512, 16);
/// Bytes of the smallest frame.
const FRAME_BYTES_MIN: u64 = 56;
/// The shortest hole, in bytes.
const HOLE_BYTES: u64 = 4096;

/// What one replica has on disk, and what of it must live.
#[derive(Clone, Debug, Default)]
pub struct Held {
    /// Log bytes of a segment.
    pub segment_bytes: u64,
    /// Where the log ends.
    pub end: Offset,
    /// Segments that end at or before this are old.
    pub old_below: Offset,
    /// The files of segments: where each begins, and the bytes that it takes.
    pub files: Vec<(Offset, u64)>,
    /// The bytes of records that live, ascending.
    pub live: Vec<Range<Offset>>,
    /// The frames that can be read in old segments, ascending, each with the bytes of its smallest
    /// record, if it has any.
    pub frames: Vec<(Range<Offset>, Option<u64>)>,
}

/// See the module.
///
/// # Errors
/// A sentence: what is held for nobody.
pub fn check(held: &Held) -> Result<(), String> {
    held.files.iter().try_for_each(|file| held.check_file(*file))
}

impl Held {
    fn check_file(&self, (base, bytes): (Offset, u64)) -> Result<(), String> {
        let end = base.plus(self.segment_bytes);
        if base > self.end.plus(self.segment_bytes) {
            return Err(format!("a segment at {base} is ahead of the end at {}", self.end));
        }
        let footer = |frames: u64| FOOTER_BYTES.0 + 3 * frames * FOOTER_BYTES.1 + 2 * PAGE_BYTES;
        let whole = self.segment_bytes + footer(self.segment_bytes / FRAME_BYTES_MIN);
        let live: u64 = within(&self.live, base..end).map(|live| live.end.0 - live.start.0).sum();
        let is_old = end <= self.old_below;
        if !is_old || live * 2 > self.segment_bytes {
            let what = || format!("the segment at {base} takes {bytes} bytes, more than {whole}");
            return if bytes <= whole { Ok(()) } else { Err(what()) };
        }
        if live == 0 {
            return Err(format!("nothing lives in the old segment at {base} of {bytes} bytes"));
        }
        let first = self.frames.partition_point(|(frame, _)| frame.start < base);
        let last = self.frames.partition_point(|(frame, _)| frame.end <= end);
        let frames = &self.frames[first..last.max(first)];
        let held: u64 = frames.iter().map(|(frame, _)| frame.end.0 - frame.start.0).sum();
        let needed = self.needed(frames) + self.needed_before(frames, live);
        if needed * 2 <= held {
            return Err(format!(
                "the old segment at {base} keeps frames of {held} bytes, of which at most {needed} \
                 are needed"
            ));
        }
        let is_whole =
            frames.iter().try_fold(
                base,
                |at, (frame, _)| {
                    if frame.start == at { Some(frame.end) } else { None }
                },
            );
        let most = held + frames.len() as u64 * 2 * PAGE_BYTES + footer(frames.len() as u64);
        let most = if is_whole.is_some() { whole } else { most };
        let what = || format!("the sparse segment at {base} takes {bytes} bytes, not {most}");
        if bytes <= most { Ok(()) } else { Err(what()) }
    }

    fn lives(&self, frame: &Range<Offset>) -> bool {
        within(&self.live, frame.clone()).next().is_some()
    }

    /// Bytes of frames that have to stay.
    fn needed(&self, frames: &[(Range<Offset>, Option<u64>)]) -> u64 {
        // Those since the last one that lives, and where that ends.
        let (mut needed, mut between, mut end) = (0, 0, Offset::ZERO);
        for (frame, _) in frames {
            let bytes = frame.end.0 - frame.start.0;
            if !self.lives(frame) {
                between += bytes;
                continue;
            }
            needed += bytes;
            if frame.start.0 < end.0 + HOLE_BYTES {
                needed += between;
            }
            (between, end) = (0, frame.end);
        }
        needed
    }

    /// Most bytes of frames that had to stay, beside those that have to now, when more records
    /// lived: a third of what lives has died since at the most.
    fn needed_before(&self, frames: &[(Range<Offset>, Option<u64>)], live: u64) -> u64 {
        // What each may have taken to die, and what it kept: itself, and what lies near on both
        // sides. Records without bytes may have cost nothing.
        let dead = frames.iter().filter(|(frame, _)| !self.lives(frame));
        let mut dead: Vec<(u64, u64)> = dead
            .filter_map(|(frame, smallest)| {
                let bytes = frame.end.0 - frame.start.0 + 2 * HOLE_BYTES;
                Some((smallest.as_ref()?.saturating_sub(1), bytes))
            })
            .collect();
        // The most for the least first: no choice of whole ones comes to more.
        dead.sort_by(|one, other| (one.0 * other.1).cmp(&(other.0 * one.1)));
        let (mut left, mut needed) = (live / 3 + 1, 0);
        for (cost, bytes) in dead {
            if cost > left {
                return needed + bytes * left / cost + 1;
            }
            left -= cost;
            needed += bytes;
        }
        needed
    }
}

fn within(ranges: &[Range<Offset>], of: Range<Offset>) -> impl Iterator<Item = &Range<Offset>> {
    let first = ranges.partition_point(|range| range.end <= of.start);
    ranges[first..].iter().take_while(move |range| range.start < of.end)
}
