//! What a shard committed, as seen from outside: every frame that was ever shown, by offset.
//!
//! A chronicle only grows. A frame that is shown again must be the frame that was shown before; a
//! frame that is new must follow the last one. What no longer holds is a violation, told in a
//! sentence.

use naust_wire::Offset;
use naust_wire::control::Control;
use naust_wire::frame::{self, Header, Kind};
use naust_wire::limits::FRAME_HEADER_BYTES;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A committed frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its header.
    pub header: Header,
    /// Its checksum.
    pub crc: u32,
    /// Its body.
    pub body: Arc<[u8]>,
}

impl Entry {
    /// Whether it is the end of a namespace.
    #[must_use]
    pub fn is_end(&self) -> bool {
        self.header.kind == Kind::Control && Control::decode(&self.body) == Ok(Control::Close)
    }
}

/// The committed frames of one shard.
#[derive(Clone, Debug)]
pub struct Chronicle {
    segment_bytes: u64,
    entries: BTreeMap<u64, Entry>,
    /// Where the next frame would follow, and the checksum that it must carry as that of the one
    /// before.
    next: Option<(u64, u32)>,
}

impl Chronicle {
    /// A chronicle of a log whose segments have this length.
    #[must_use]
    pub fn new(segment_bytes: u64) -> Chronicle {
        Chronicle { segment_bytes, entries: BTreeMap::new(), next: None }
    }

    /// The length of the log's segments.
    #[must_use]
    pub fn segment_bytes(&self) -> u64 {
        self.segment_bytes
    }

    /// Takes what was shown as the log from `first` on; returns how many frames were new.
    ///
    /// # Errors
    /// A sentence that tells what can't be true together.
    pub fn learn(&mut self, first: Offset, data: &[u8]) -> Result<usize, String> {
        let mut at = 0;
        let mut new = 0;
        let mut least = first;
        while at < data.len() {
            let frame = frame::read(&data[at..])
                .map_err(|bad| format!("behind {least} no frame is shown: {bad}"))?;
            if frame.header.offset < least {
                let says = frame.header.offset;
                return Err(format!("the frame shown at {least} says that it lies at {says}"));
            }
            at += frame.header.frame_bytes() as usize;
            least = frame.header.end();
            new += usize::from(self.take(&frame)?);
        }
        Ok(new)
    }

    fn take(&mut self, frame: &frame::Frame<'_>) -> Result<bool, String> {
        let offset = frame.header.offset.0;
        if let Some(known) = self.entries.get(&offset) {
            let same = known.crc == frame.crc && *known.body == *frame.body;
            let what = "was shown before with other bytes";
            return if same { Ok(false) } else { Err(format!("the frame at {offset} {what}")) };
        }
        if frame.header.kind == Kind::Padding {
            return Ok(false);
        }
        if let Some((next, crc)) = self.next {
            let rest = self.segment_bytes - next % self.segment_bytes;
            let fits = frame.header.frame_bytes() <= rest;
            if offset != if fits { next } else { next + rest } {
                return Err(format!("a frame at {offset} is new, but the log went on at {next}"));
            }
            // Readers are not shown the padding frame that would stand between the two.
            let padded = !fits && rest >= FRAME_HEADER_BYTES as u64;
            if !padded && frame.header.crc_before != crc {
                return Err(format!("the frame at {offset} does not follow the one before it"));
            }
        }
        self.next = Some((frame.header.end().0, frame.crc));
        let entry = Entry { header: frame.header, crc: frame.crc, body: frame.body.into() };
        self.entries.insert(offset, entry);
        Ok(true)
    }

    /// Where the next frame begins if none fits behind `end` any more; or `end` itself.
    #[must_use]
    pub fn after_gap(&self, end: Offset) -> Offset {
        let rest = self.segment_bytes - end.0 % self.segment_bytes;
        if rest < FRAME_HEADER_BYTES as u64 { end.plus(rest) } else { end }
    }

    /// Forgets what lies at or above `from`: a power cut may have taken it, as its durability
    /// allowed.
    pub fn forget(&mut self, from: Offset) {
        self.entries.split_off(&from.0);
        self.next = self.entries.values().next_back().map(|last| (last.header.end().0, last.crc));
    }

    /// The frame that begins at `offset`.
    #[must_use]
    pub fn at(&self, offset: Offset) -> Option<&Entry> {
        self.entries.get(&offset.0)
    }

    /// All frames from an offset on. Padding is never among them.
    pub fn from(&self, offset: Offset) -> impl Iterator<Item = &Entry> {
        self.entries.range(offset.0..).map(|(_, entry)| entry)
    }

    /// Where the first frame begins.
    #[must_use]
    pub fn first(&self) -> Option<Offset> {
        self.entries.keys().next().map(|offset| Offset(*offset))
    }

    /// The last frame that begins before an offset.
    #[must_use]
    pub fn before(&self, offset: Offset) -> Option<&Entry> {
        self.entries.range(..offset.0).next_back().map(|(_, entry)| entry)
    }

    /// The last frame.
    #[must_use]
    pub fn last(&self) -> Option<&Entry> {
        self.entries.values().next_back()
    }

    /// Where the frame after the last would begin at the earliest.
    #[must_use]
    pub fn end(&self) -> Offset {
        Offset(self.next.map_or(Offset::FIRST.0, |(next, _)| next))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use naust_wire::{Index, LogTime, Term};

    fn frame(offset: u64, crc_before: u32, body: &[u8], out: &mut Vec<u8>) -> u32 {
        let header = Header {
            kind: Kind::Commit,
            body_bytes: body.len() as u32,
            crc_before,
            term: Term(1),
            index: Index(1),
            offset: Offset(offset),
            time: LogTime(1),
            synced: Offset(0),
        };
        header.write(body, out)
    }

    #[test]
    fn a_log_may_be_shown_again_but_not_otherwise() {
        let mut chronicle = Chronicle::new(1 << 20);
        let first = Offset::FIRST.0;
        let mut shown = Vec::new();
        let crc = frame(first, 0, b"12345678", &mut shown);
        frame(first + 64, crc, b"abcdefgh", &mut shown);
        assert_eq!(chronicle.learn(Offset(first), &shown), Ok(2));
        assert_eq!(chronicle.learn(Offset(first), &shown), Ok(0));
        assert_eq!(chronicle.end(), Offset(first + 128));
        let mut other = Vec::new();
        frame(first + 64, crc, b"ABCDEFGH", &mut other);
        assert!(chronicle.learn(Offset(first + 64), &other).is_err());
        let mut gap = Vec::new();
        frame(first + 256, 1, b"x", &mut gap);
        assert!(chronicle.learn(Offset(first + 256), &gap).is_err());
        let mut stranger = Vec::new();
        frame(first + 128, 99, b"x", &mut stranger);
        assert!(chronicle.learn(Offset(first + 128), &stranger).is_err());
        chronicle.forget(Offset(first + 64));
        assert_eq!(chronicle.learn(Offset(first + 64), &other), Ok(1));
    }
}
