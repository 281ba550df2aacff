//! Where frames, padding and segments lie: a pure function of offsets and frame lengths.
//!
//! ```text
//!  base                                             base + segment_bytes
//!   | frame | frame | frame … | frame | padding     | frame | frame …
//!   +-------+-------+---------+-------+-------------+-------+------
//!   |<------------------ segment n ---------------->|<-- segment n + 1
//! ```
//! A frame that does not fit the rest of its segment begins the next one. The rest becomes a
//! padding frame, or zero bytes where it is shorter than a header. Padding is a part of the frame
//! behind it: a log never ends with padding, so a shorter frame may still take the place of a
//! longer one that was cut.

use naust_wire::frame::{Frame, Header, Kind};
use naust_wire::limits::{FRAME_HEADER_BYTES, SEGMENT_BYTES};
use naust_wire::{Index, LogTime, Offset, Term};

/// Smallest length of a segment, for tests and simulations.
pub const SEGMENT_BYTES_MIN: u64 = 16 * 1024;

/// A boundary between frames: the end of the frame with this index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// Where the frame ends.
    pub offset: Offset,
    /// Its Raft index; zero at the very beginning.
    pub index: Index,
    /// Its Raft term.
    pub term: Term,
    /// The checksum that the next frame carries as that of the one before.
    pub crc: u32,
    /// Its log time, in milliseconds.
    pub time: LogTime,
}

impl Position {
    /// Where a log begins before anything was ever trimmed.
    pub const ORIGIN: Position = Position {
        offset: Offset::FIRST,
        index: Index(0),
        term: Term(0),
        crc: 0,
        time: LogTime(0),
    };

    /// The end of a frame.
    pub(crate) fn of(header: &Header, crc: u32) -> Position {
        Position {
            offset: header.end(),
            index: header.index,
            term: header.term,
            crc,
            time: header.time,
        }
    }
}

/// The length of a shard's segments. It stands in the superblock and is the same on every replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    segment_bytes: u64,
}

impl Layout {
    /// What every shard outside tests has: segments of [`SEGMENT_BYTES`].
    pub const STANDARD: Layout = Layout { segment_bytes: SEGMENT_BYTES };

    /// Segments of another length: a power of two from [`SEGMENT_BYTES_MIN`] to [`SEGMENT_BYTES`].
    #[must_use]
    pub fn new(segment_bytes: u64) -> Option<Layout> {
        let legal = segment_bytes.is_power_of_two()
            && (SEGMENT_BYTES_MIN..=SEGMENT_BYTES).contains(&segment_bytes);
        legal.then_some(Layout { segment_bytes })
    }

    /// Log bytes that one segment covers.
    #[must_use]
    pub const fn segment_bytes(self) -> u64 {
        self.segment_bytes
    }

    /// Longest body that a frame may have here.
    #[must_use]
    pub fn body_bytes_max(self) -> usize {
        let room = usize::try_from(self.segment_bytes).expect("a segment fits the address space");
        (room - FRAME_HEADER_BYTES).min(naust_wire::limits::FRAME_BODY_BYTES_MAX)
    }

    /// Where the segment that holds the byte at `offset` begins.
    #[must_use]
    pub const fn base(self, offset: Offset) -> Offset {
        Offset(offset.0 & !(self.segment_bytes - 1))
    }

    /// Where the segment that holds the byte at `offset` ends.
    #[must_use]
    pub const fn end(self, offset: Offset) -> Offset {
        Offset(self.base(offset).0 + self.segment_bytes)
    }

    /// Where a frame of `frame_bytes` begins in a log that ends at `end`.
    #[must_use]
    pub const fn place(self, end: Offset, frame_bytes: u64) -> Offset {
        let segment_end = self.end(end);
        if end.0 + frame_bytes <= segment_end.0 { end } else { segment_end }
    }

    /// Where the next frame begins if none fits any more behind `end`, which may be `end` itself.
    #[must_use]
    pub const fn skip_gap(self, end: Offset) -> Offset {
        let segment_end = self.end(end);
        if segment_end.0 - end.0 < FRAME_HEADER_BYTES as u64 { segment_end } else { end }
    }

    /// Appends what fills the segment behind `end` to `out`: a padding frame, or zero bytes where
    /// the rest is shorter than a header. Returns the position that the next frame follows.
    pub(crate) fn pad(self, end: &Position, synced: Offset, out: &mut Vec<u8>) -> Position {
        let segment_end = self.end(end.offset);
        let rest = usize::try_from(segment_end.0 - end.offset.0).expect("less than a segment");
        let Some(body_bytes) = rest.checked_sub(FRAME_HEADER_BYTES) else {
            out.resize(out.len() + rest, 0);
            return Position { offset: segment_end, ..*end };
        };
        let header = Header {
            kind: Kind::Padding,
            body_bytes: u32::try_from(body_bytes).expect("less than a segment"),
            crc_before: end.crc,
            term: end.term,
            index: end.index,
            offset: end.offset,
            time: end.time,
            synced,
        };
        let crc = header.write(&vec![0; body_bytes], out);
        Position { offset: segment_end, crc, ..*end }
    }

    /// The name of the file of the segment that begins at `base`.
    #[must_use]
    pub fn name(base: Offset) -> String {
        format!("{:016x}.log", base.0)
    }

    /// The base in a file name, if it is one of this layout.
    #[must_use]
    pub fn base_in_name(self, name: &str) -> Option<Offset> {
        let digits = name.strip_suffix(".log")?;
        let base = Offset(u64::from_str_radix(digits, 16).ok()?);
        (Layout::name(base) == name && self.base(base) == base).then_some(base)
    }
}

/// Why the bytes at a place are not the frame that belongs there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Flaw {
    /// They are no whole frame of this release.
    #[error("{0}")]
    Frame(#[from] naust_wire::frame::Bad),
    /// A frame that says that it belongs elsewhere, or that crosses its segment's end.
    #[error("a frame that belongs elsewhere")]
    Place,
    /// It carries another checksum of the frame before than that has.
    #[error("a frame that does not follow the one before")]
    Chain,
    /// Its index or term does not follow.
    #[error("a frame out of order")]
    Order,
    /// The segment's file is not there.
    #[error("the file of the segment is missing")]
    Missing,
    /// The disk does not give out what it holds (`EIO`).
    #[error("the disk refuses to read it")]
    Refused,
}

impl Layout {
    /// Reads and checks the frame at the start of `bytes`, which lie at `at` in the log. With
    /// `before`, it must also follow that position.
    pub(crate) fn check<'a>(
        self,
        at: Offset,
        before: Option<&Position>,
        bytes: &'a [u8],
    ) -> Result<Frame<'a>, Flaw> {
        let frame = naust_wire::frame::read(bytes)?;
        let header = &frame.header;
        let padding = header.kind == Kind::Padding;
        let segment_end = self.end(at);
        if header.offset != at || header.end() > segment_end {
            return Err(Flaw::Place);
        }
        if padding && header.end() != segment_end {
            return Err(Flaw::Place);
        }
        let Some(before) = before else { return Ok(frame) };
        if header.crc_before != before.crc {
            return Err(Flaw::Chain);
        }
        let follows = if padding {
            header.index == before.index && header.term == before.term
        } else {
            header.index == before.index.next() && header.term >= before.term
        };
        if follows { Ok(frame) } else { Err(Flaw::Order) }
    }
}

/// The frames of log bytes that have been checked before, or never left memory. Padding is skipped.
pub(crate) struct Frames<'a> {
    layout: Layout,
    bytes: &'a [u8],
    from: Offset,
    at: usize,
}

impl<'a> Frames<'a> {
    /// `bytes` lie at `from` in the log.
    pub(crate) fn new(layout: Layout, from: Offset, bytes: &'a [u8]) -> Frames<'a> {
        Frames { layout, bytes, from, at: 0 }
    }
}

impl<'a> Iterator for Frames<'a> {
    type Item = Frame<'a>;

    fn next(&mut self) -> Option<Frame<'a>> {
        loop {
            let offset = self.from.plus(self.at as u64);
            let skipped = self.layout.skip_gap(offset).0 - offset.0;
            self.at += usize::try_from(skipped).expect("less than a header");
            let rest = self.bytes.get(self.at..).filter(|rest| !rest.is_empty())?;
            let (header, crc) = naust_wire::frame::peek(rest).expect("whole frames, seen before");
            let body_end = FRAME_HEADER_BYTES + header.body_bytes as usize;
            self.at += naust_wire::frame::frame_bytes(header.body_bytes as usize);
            if header.kind != Kind::Padding {
                return Some(Frame { header, crc, body: &rest[FRAME_HEADER_BYTES..body_end] });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn frames_never_cross_a_segment(lengths in proptest::collection::vec(7u64..2000, 1..200)) {
            let layout = Layout::new(SEGMENT_BYTES_MIN).unwrap();
            let mut end = Offset::FIRST;
            for words in lengths {
                let offset = layout.place(end, words * 8);
                let last = Offset(offset.0 + words * 8 - 1);
                prop_assert_eq!(layout.base(offset), layout.base(last));
                prop_assert!(offset == end || offset == layout.end(end));
                prop_assert!(offset == end || end.0 + words * 8 > layout.end(end).0);
                end = offset.plus(words * 8);
            }
        }

        #[test]
        fn padding_fills_the_segment_exactly(words in 0u64..2047) {
            let layout = Layout::new(SEGMENT_BYTES_MIN).unwrap();
            let end = Position { offset: Offset::FIRST.plus(words * 8), ..Position::ORIGIN };
            let mut out = Vec::new();
            let padded = layout.pad(&end, Offset::ZERO, &mut out);
            prop_assert_eq!(padded.offset, layout.end(end.offset));
            prop_assert_eq!(out.len() as u64, padded.offset.0 - end.offset.0);
            if out.len() >= FRAME_HEADER_BYTES {
                prop_assert!(layout.check(end.offset, Some(&end), &out).is_ok());
            }
            prop_assert_eq!(Frames::new(layout, end.offset, &out).count(), 0);
        }
    }

    #[test]
    fn names_lead_back_to_bases() {
        let layout = Layout::STANDARD;
        assert_eq!(Layout::name(Offset::FIRST), "0000000100000000.log");
        assert_eq!(layout.base_in_name("0000000100000000.log"), Some(Offset::FIRST));
        assert_eq!(layout.base_in_name("0000000100000008.log"), None);
        assert_eq!(layout.base_in_name("100000000.log"), None);
        assert_eq!(layout.base_in_name("superblock"), None);
    }
}
