//! Reading all of a log again, slowly, to find damage before somebody needs what is damaged.

use crate::disk::Open;
use crate::layout::{Flaw, Position};
use crate::reader::{Chunk, ReadError, Reader};
use crate::scan::Window;
use crate::superblock::Superblock;
use crate::{Damage, Fault, OpenError};
use naust_wire::Offset;
use naust_wire::limits::FRAME_ALIGN;
use std::io::ErrorKind;

/// Bytes of one read.
const READ_BYTES: usize = 256 * 1024;

/// A walk over the frames that are durable. It can be gone on with from where it stopped, also in
/// another life. For a background thread; blocking.
pub struct Scrub {
    reader: Reader,
    at: Offset,
    /// The end of the frame before, if it was seen.
    before: Option<Position>,
    /// What lies before this is never cut.
    committed: Offset,
    /// The segment whose footers were looked at last.
    looked_at: Option<Offset>,
}

/// What one step came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scrubbed {
    /// Log bytes that were read, padding not counted.
    pub bytes: u64,
    /// Damaged places, ascending.
    pub damage: Vec<Damage>,
    /// All that is durable was seen.
    pub done: bool,
    /// The superblock has to be written again: one slot of it is bad, or both are.
    pub is_superblock_bad: bool,
    /// Segments whose footers were bad, one or both, and were made again.
    pub footers: usize,
    /// A sync failed: the node has to stop with this sentence.
    pub unsynced: Option<String>,
}

impl Reader {
    /// A scrub from `from` on, a boundary between frames: [`Offset::ZERO`] for all of the log.
    #[must_use]
    pub fn scrub(&self, from: Offset) -> Scrub {
        let (reader, committed) = (self.clone(), Offset::ZERO);
        Scrub { reader, at: from, before: None, committed, looked_at: None }
    }

    /// Where the next good frame of the segment begins behind damage at `from`, or what is left of
    /// the segment ends there; and how many bytes that took.
    pub(crate) fn good_behind(&self, from: Offset) -> Result<(Offset, u64), Fault> {
        let layout = self.layout();
        let base = layout.base(from);
        let end = self.extent(from).map_or(layout.end(from), |(_, end)| end).min(self.end());
        let file = match self.shared().file(base, Open::Existing) {
            Err(fault) if fault.kind() == ErrorKind::NotFound => return Ok((end, 0)),
            file => file?,
        };
        let mut window = Window::new(layout, base, file)?.lenient();
        let found = window.search(from.plus(FRAME_ALIGN as u64))?;
        Ok((found.map_or(end, |(header, _)| header.offset.min(end)), window.read))
    }
}

impl Scrub {
    /// Looks at footers, too, and makes again those that are bad: of full segments behind which lie
    /// frames before `committed`. Of others a cut may be under way.
    #[must_use]
    pub fn with_footers(self, committed: Offset) -> Scrub {
        Scrub { committed, ..self }
    }

    /// Where it goes on.
    #[must_use]
    pub fn position(&self) -> Offset {
        self.at
    }

    /// Reads about `bytes`: one frame more at the most, and behind damage as much of its segment as
    /// it takes to find the next good frame.
    ///
    /// # Errors
    /// Of the disk.
    pub fn step(&mut self, bytes: u64) -> Result<Scrubbed, Fault> {
        let mut seen = Scrubbed::default();
        while seen.bytes < bytes && !seen.done {
            if self.passes_by(&mut seen)? {
                continue;
            }
            let left = usize::try_from(bytes - seen.bytes).unwrap_or(READ_BYTES).min(READ_BYTES);
            match self.reader.frames(self.at, Offset::MAX, left) {
                Ok(chunk) if chunk.bytes().is_empty() => {
                    seen.done = chunk.next() <= self.at;
                    self.go_on(chunk.next(), None);
                }
                Ok(chunk) => self.look_at(&chunk, &mut seen),
                Err(ReadError::Trimmed { next: Some(next) }) => self.go_on(next, None),
                Err(ReadError::Damaged(damage)) => {
                    let (found, read) = self.reader.good_behind(damage.from)?;
                    seen.bytes += read;
                    seen.damage.push(Damage { to: found, ..damage });
                    self.go_on(found, None);
                }
                Err(ReadError::Io(fault)) => return Err(fault),
                Err(_) => seen.done = true,
            }
        }
        if seen.done {
            // An update that is under way looks the same; to write once more harms nothing.
            let loaded = Superblock::load(&*self.reader.shared().disk);
            seen.is_superblock_bad = match loaded {
                Ok((_, is_stale)) => is_stale,
                Err(error) => matches!(error, OpenError::Superblock),
            };
        }
        Ok(seen)
    }

    /// Looks at what the segment says about itself that the walk has come to; whether it is to be
    /// passed by, since nobody knows where frames are left in it.
    fn passes_by(&mut self, seen: &mut Scrubbed) -> Result<bool, Fault> {
        let (shared, layout) = (self.reader.shared(), self.reader.layout());
        let base = layout.base(self.at);
        if shared.is_unsure(base) {
            self.go_on(layout.end(base), None);
            return Ok(true);
        }
        let is_new = self.looked_at.replace(base) != Some(base);
        if is_new && layout.end(base) < self.committed && shared.segment(base).is_some() {
            let looked = self.reader.look_at_footers(base)?;
            seen.footers += usize::from(looked.made_again);
            seen.unsynced = seen.unsynced.take().or(looked.unsynced.map(|it| it.to_string()));
        }
        Ok(false)
    }

    fn go_on(&mut self, at: Offset, before: Option<Position>) {
        (self.at, self.before) = (at, before);
    }

    /// The frames of a chunk are good and follow each other. Do they follow what lies before? A
    /// write that a disk lost, though it said otherwise, leaves older frames that are good too.
    fn look_at(&mut self, chunk: &Chunk, seen: &mut Scrubbed) {
        seen.bytes += chunk.bytes().len() as u64;
        let from = chunk.from();
        let segment = self.reader.shared().segment(from);
        let first = segment
            .filter(|segment| self.reader.layout().base(from) == from && segment.ranges.is_none());
        let before = self.before.filter(|before| before.offset == from);
        let before = before.or(first.map(|segment| segment.before));
        let follows = |crc: u32| before.is_none_or(|before| before.crc == crc);
        let mut last = None;
        for frame in chunk.frames() {
            if last.is_none() && !follows(frame.header.crc_before) {
                let to = frame.header.end();
                seen.damage.push(Damage { from, to, flaw: Flaw::Chain });
            }
            last = Some(Position::of(&frame.header, frame.crc));
        }
        self.go_on(chunk.next(), last);
    }
}
