//! A replica at rest holds no log that nothing needs: what is old goes with its last live record,
//! and of a segment that is mostly dead a sparse copy stays.
//!
//! *Old* is what tables are persisted past and the window of history has left. A copy is only made
//! when half of the records are dead that were alive when the file was written; the frame of a
//! live record stays whole.

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
        let frames = self.frames.iter().filter(|(frame, _)| frame.start >= base);
        let frames = frames.filter(|(frame, _)| frame.end <= end);
        let (mut most, mut dead, mut count) = (0, 0, 0);
        for (frame, smallest) in frames {
            count += 1;
            most += frame.end.0 - frame.start.0 + 2 * PAGE_BYTES;
            if within(&self.live, frame.clone()).next().is_some() {
                continue;
            }
            let Some(smallest) = smallest else {
                let at = frame.start;
                return Err(format!("the old segment at {base} keeps a frame at {at} for nothing"));
            };
            dead += smallest;
        }
        if dead >= live {
            return Err(format!(
                "the old segment at {base} keeps frames of {dead} dead bytes and more beside \
                 {live} that live"
            ));
        }
        let most = most + footer(count);
        let what = || format!("the sparse segment at {base} takes {bytes} bytes, not {most}");
        if bytes <= most { Ok(()) } else { Err(what()) }
    }
}

fn within(ranges: &[Range<Offset>], of: Range<Offset>) -> impl Iterator<Item = &Range<Offset>> {
    let first = ranges.partition_point(|range| range.end <= of.start);
    ranges[first..].iter().take_while(move |range| range.start < of.end)
}
