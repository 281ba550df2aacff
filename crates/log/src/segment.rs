//! One segment: what is known of it while it grows, and the footer that keeps it when it is sealed.
//!
//! ```text
//!  file of a segment:
//!  0                                          segment_bytes
//!  | frames, padding (position = offset − base) | footer | of a sparse segment: footer again |
//! ```
//! The footer holds what would otherwise take a scan: where the segment begins and ends, its runs
//! of terms, and one mark (index → offset) every 64 KiB. A *sparse* segment, one that was rewritten
//! by trimming, also lists the ranges that are still there; the rest of its file is a hole.
//!
//! What other footers hold a scan finds out again. Which holes are meant nothing else tells, and
//! other replicas may have let go of other frames: so a sparse segment has its footer twice, in
//! blocks of its own each. Whoever opens the log makes the one of them that is bad from the other.

use crate::layout::Position;
use naust_wire::frame::Header;
use naust_wire::packet::crc32c;
use naust_wire::{Index, LogTime, Offset, Term};
use std::ops::Range;
use std::sync::Arc;

/// Log bytes between two marks: a read by index walks half of this on average.
const MARK_BYTES: u64 = 64 * 1024;
const MAGIC: [u8; 8] = *b"NaustEnd";
const VERSION: u32 = 1;
const PREFIX_BYTES: usize = 24;
const POSITION_BYTES: usize = 40;
const FIXED_BYTES: usize = PREFIX_BYTES + 8 + 3 * POSITION_BYTES + 3 * 8 + 8;

/// The second footer of a sparse segment begins with a block of this many bytes: a disk loses whole
/// ones.
const BLOCK_BYTES: u64 = 4096;

/// Longest footer, in bytes: a run of terms for each of the smallest frames, and then some.
const FOOTER_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Two of them, each of whole blocks.
pub(crate) const FOOTERS_BYTES_MAX: u64 = 2 * (FOOTER_BYTES_MAX + BLOCK_BYTES);

/// Where the frame of an index begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    pub index: Index,
    pub offset: Offset,
}

/// What is known of a segment. Invariant: marks and terms ascend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Content {
    pub base: Offset,
    /// What its first frame follows, at the segment's base.
    pub before: Position,
    /// The end of its last frame.
    pub last: Position,
    /// Behind its padding, at the segment's end: once it is full.
    pub seal: Option<Position>,
    /// First index of each term.
    pub terms: Vec<(Index, Term)>,
    pub marks: Vec<Mark>,
    /// The ranges of whole frames that are left, if it is sparse.
    pub ranges: Option<Arc<[Range<Offset>]>>,
    /// Bytes of it that were live when it was written; all, if it is not sparse.
    pub live_bytes: u64,
    next_mark: Offset,
}

impl Content {
    /// An empty segment whose first frame will follow `before`, which lies at its base.
    pub(crate) fn new(before: Position) -> Content {
        Content {
            base: before.offset,
            before,
            last: before,
            seal: None,
            terms: Vec::new(),
            marks: Vec::new(),
            ranges: None,
            live_bytes: u64::MAX,
            next_mark: before.offset,
        }
    }

    /// Adds a frame at the end.
    pub(crate) fn note(&mut self, header: &Header, crc: u32) {
        if header.offset >= self.next_mark {
            self.marks.push(Mark { index: header.index, offset: header.offset });
            self.next_mark = Offset((header.offset.0 / MARK_BYTES + 1) * MARK_BYTES);
        }
        if self.terms.last().is_none_or(|(_, term)| *term != header.term) {
            self.terms.push((header.index, header.term));
        }
        self.last = Position::of(header, crc);
    }

    /// Adds a frame of a sparse segment, whose range so far ends at `end`: each range has a mark.
    pub(crate) fn note_sparse(&mut self, header: &Header, crc: u32, end: Option<Offset>) {
        if end != Some(header.offset) {
            self.next_mark = header.offset;
        }
        self.note(header, crc);
    }

    /// Forgets the frames behind `position`.
    pub(crate) fn cut(&mut self, position: Position) {
        self.last = position;
        self.seal = None;
        self.marks.truncate(self.marks.partition_point(|mark| mark.index <= position.index));
        self.terms.truncate(self.terms.partition_point(|(first, _)| *first <= position.index));
        self.next_mark = match self.marks.last() {
            Some(mark) => Offset((mark.offset.0 / MARK_BYTES + 1) * MARK_BYTES),
            None => self.base,
        };
    }

    /// The last mark that `wanted` says yes to, and the position in the file order before it.
    pub(crate) fn mark_before(marks: &[Mark], wanted: impl Fn(&Mark) -> bool) -> Option<Mark> {
        marks.partition_point(wanted).checked_sub(1).map(|at| marks[at])
    }

    /// The footer's bytes.
    ///
    /// # Panics
    /// If the segment is not full.
    pub(crate) fn footer(&self) -> Vec<u8> {
        let seal = self.seal.expect("only a full segment has a footer");
        let ranges = self.ranges.as_deref().unwrap_or_default();
        let entries = self.terms.len() + self.marks.len() + ranges.len();
        let bytes = FIXED_BYTES + 16 * entries;
        let mut out = Vec::with_capacity(bytes);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&u32::try_from(bytes).expect("bounded by frames").to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&u32::from(self.ranges.is_some()).to_le_bytes());
        put(&mut out, self.base.0);
        for position in [self.before, self.last, seal] {
            put(&mut out, position.offset.0);
            put(&mut out, position.index.0);
            put(&mut out, position.term.0);
            put(&mut out, u64::from(position.crc));
            put(&mut out, position.time.0);
        }
        for count in [self.terms.len(), self.marks.len(), ranges.len()] {
            put(&mut out, count as u64);
        }
        put(&mut out, self.live_bytes);
        let terms = self.terms.iter().map(|(index, term)| (index.0, term.0));
        let marks = self.marks.iter().map(|mark| (mark.index.0, mark.offset.0));
        let ranges = ranges.iter().map(|range| (range.start.0, range.end.0));
        for (first, second) in terms.chain(marks).chain(ranges) {
            put(&mut out, first);
            put(&mut out, second);
        }
        let crc = crc32c(&[&out[..16], &out[20..]]);
        out[16..20].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// What stands behind the log bytes of its file, and where in the file.
    pub(crate) fn footers(&self, segment_bytes: u64) -> Vec<(u64, Vec<u8>)> {
        let footer = self.footer();
        let second = (segment_bytes + footer.len() as u64).next_multiple_of(BLOCK_BYTES);
        match self.ranges {
            None => vec![(segment_bytes, footer)],
            Some(_) => vec![(segment_bytes, footer.clone()), (second, footer)],
        }
    }

    /// Reads what stands behind the log bytes of the file of the segment that begins at `base`;
    /// `None` if there is no good footer.
    pub(crate) fn read_any(base: Offset, segment_bytes: u64, bytes: &[u8]) -> Option<Content> {
        if let Some(content) = Content::read(base, bytes) {
            return Some(content);
        }
        let first = segment_bytes + 1;
        let begins = (first.next_multiple_of(BLOCK_BYTES)..).step_by(BLOCK_BYTES as usize);
        let begins = begins.map(|begin| (begin - segment_bytes) as usize);
        let mut begins = begins.take_while(|begin| *begin < bytes.len());
        let second = begins.find_map(|begin| Content::read(base, &bytes[begin..]));
        second.filter(|content| content.ranges.is_some())
    }

    /// Reads a footer of the segment that begins at `base`; `None` if it is none.
    pub(crate) fn read(base: Offset, bytes: &[u8]) -> Option<Content> {
        if bytes.len() < FIXED_BYTES || !bytes.starts_with(&MAGIC) {
            return None;
        }
        let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four"));
        let used = bytes.get(..word(12) as usize)?;
        if word(8) != VERSION || used.len() < FIXED_BYTES {
            return None;
        }
        if crc32c(&[&used[..16], &used[20..]]) != word(16) {
            return None;
        }
        let field = |number: usize| {
            let at = PREFIX_BYTES + 8 * number;
            Some(u64::from_le_bytes(used.get(at..at + 8)?.try_into().expect("eight")))
        };
        let position = |number: usize| {
            Some(Position {
                offset: Offset(field(number)?),
                index: Index(field(number + 1)?),
                term: Term(field(number + 2)?),
                crc: u32::try_from(field(number + 3)?).ok()?,
                time: LogTime(field(number + 4)?),
            })
        };
        let mut counts = [0usize; 3];
        for (number, count) in counts.iter_mut().enumerate() {
            *count = usize::try_from(field(16 + number)?).ok()?;
        }
        let entries = counts.iter().try_fold(0usize, |sum, count| sum.checked_add(*count))?;
        if entries.checked_mul(16)?.checked_add(FIXED_BYTES)? != used.len() {
            return None;
        }
        let pair = |entry: usize| Some((field(20 + 2 * entry)?, field(21 + 2 * entry)?));
        let mut content = Content::new(position(1)?);
        (content.last, content.seal) = (position(6)?, Some(position(11)?));
        content.live_bytes = field(19)?;
        let marks = counts[0]..counts[0] + counts[1];
        for entry in 0..counts[0] {
            let (index, term) = pair(entry)?;
            content.terms.push((Index(index), Term(term)));
        }
        for entry in marks.clone() {
            let (index, offset) = pair(entry)?;
            content.marks.push(Mark { index: Index(index), offset: Offset(offset) });
        }
        if word(20) != 0 {
            let ranges = (marks.end..entries).map(|entry| {
                let (from, to) = pair(entry)?;
                Some(Offset(from)..Offset(to))
            });
            content.ranges = Some(ranges.collect::<Option<Arc<[_]>>>()?);
        }
        (content.base == base && field(0)? == base.0).then_some(content)
    }
}

/// The first of ascending ranges that ends behind `at`.
pub(crate) fn range_behind(ranges: &[Range<Offset>], at: Offset) -> Option<&Range<Offset>> {
    let behind = ranges.partition_point(|range| {
        #[cfg(test)]
        tests::STEPS.set(tests::STEPS.get() + 1);
        range.end <= at
    });
    ranges.get(behind)
}

fn put(out: &mut Vec<u8>, field: u64) {
    out.extend_from_slice(&field.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use naust_wire::limits::STRETCHES_PER_SEGMENT_MAX;
    use std::cell::Cell;

    std::thread_local! {
        /// Ranges that were looked at.
        pub(super) static STEPS: Cell<usize> = const { Cell::new(0) };
    }

    /// Why: each read in a sparse segment looked through its ranges from the first one on: at the
    /// end of one with many, 700 ms went by for 2,000 records.
    #[test]
    fn a_range_is_found_in_few_steps() {
        let number = STRETCHES_PER_SEGMENT_MAX as u64;
        let ranges: Vec<Range<Offset>> =
            (0..number).map(|at| Offset(10 * at + 2)..Offset(10 * at + 5)).collect();
        for at in (0..100).chain(10 * number - 100..10 * number + 3) {
            let before = STEPS.get();
            let found = range_behind(&ranges, Offset(at)).cloned();
            assert_eq!(found, ranges.iter().find(|range| range.end > Offset(at)).cloned(), "{at}");
            assert!(STEPS.get() - before <= 16, "{} steps", STEPS.get() - before);
        }
        assert_eq!(range_behind(&[], Offset(1)), None);
    }
}
