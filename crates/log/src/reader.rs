//! Everyone else's view of the log: whole frames and records by offset and by index, from files,
//! beside the owner and its disk threads.
//!
//! Every frame that is handed out was checked just before. A reader sees durable frames only; that
//! they are committed too is the caller's to know.

use crate::disk::{Open, read_given};
use crate::layout::{Flaw, Frames, Layout, Position};
use crate::segment::{Content, Mark, range_behind};
use crate::shared::{Segment, Shared};
use crate::{Damage, Fault, Records};
use naust_wire::frame::{Bad, Frame, Kind};
use naust_wire::limits::FRAME_HEADER_BYTES;
use naust_wire::{Index, Offset};
use std::io::ErrorKind;
use std::sync::Arc;

/// Bytes of one read while a frame is looked for: what lies between two marks.
const STEP_BYTES: usize = 64 * 1024;

/// Reads a log. Cheap to clone, to be sent and shared. Blocking.
#[derive(Clone)]
pub struct Reader {
    shared: Arc<Shared>,
}

/// Why there is nothing to read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// What was there is gone. The next frame that is left begins at `next`, if there is one.
    #[error("the log is trimmed there")]
    Trimmed {
        /// Where reading can go on.
        next: Option<Offset>,
    },
    /// Nothing durable is there yet.
    #[error("behind the end of the log")]
    Beyond,
    /// What is there is not what was written.
    #[error(transparent)]
    Damaged(#[from] Damage),
    /// The place is not inside the body of one frame.
    #[error("no record lies at offset {0}")]
    NoRecord(Offset),
    /// The operating system said no.
    #[error(transparent)]
    Io(#[from] Fault),
}

impl ReadError {
    pub(crate) fn into_fault(self, index: Index) -> Fault {
        match self {
            ReadError::Io(fault) => fault,
            other => {
                let source = std::io::Error::new(ErrorKind::InvalidData, other);
                Fault::at("find the end of a frame in", &format!("the log, index {index}"))(source)
            }
        }
    }
}

/// Whole frames, checked, in one buffer.
#[derive(Clone, Debug)]
pub struct Chunk {
    layout: Layout,
    from: Offset,
    bytes: Vec<u8>,
    next: Offset,
}

impl Chunk {
    /// Where the first frame begins.
    #[must_use]
    pub fn from(&self) -> Offset {
        self.from
    }

    /// Where the last frame ends.
    #[must_use]
    pub fn end(&self) -> Offset {
        self.from.plus(self.bytes.len() as u64)
    }

    /// Where to read on: [`Chunk::end`], or behind padding.
    #[must_use]
    pub fn next(&self) -> Offset {
        self.next
    }

    /// The frames as they lie on disk, without padding frames.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The frames' bytes, without a copy.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// The frames in place.
    pub fn frames(&self) -> impl Iterator<Item = Frame<'_>> {
        Frames::new(self.layout, self.from, &self.bytes)
    }
}

impl Reader {
    pub(crate) fn new(shared: Arc<Shared>) -> Reader {
        Reader { shared }
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Up to where frames are written to this disk.
    #[must_use]
    pub fn end(&self) -> Offset {
        self.shared.readable()
    }

    /// Up to where they survive a power cut, too.
    #[must_use]
    pub fn durable(&self) -> Offset {
        self.shared.durable()
    }

    /// Up to where there is what the log held when it was opened: its end then, or where it was cut
    /// since. What lies behind came in this life, however short it is.
    #[must_use]
    pub fn recovered(&self) -> Offset {
        self.shared.recovered()
    }

    /// The next whole frames from `from` on, a boundary between frames, that end at or below `to`:
    /// of one segment, and of at most `max_bytes` together, or one frame that is longer. Nothing,
    /// if `to` or the end is reached.
    ///
    /// # Errors
    /// [`ReadError`]; damage only when it is the first frame that is damaged.
    pub fn frames(&self, from: Offset, to: Offset, max_bytes: usize) -> Result<Chunk, ReadError> {
        let layout = self.shared.layout;
        let mut at = from;
        loop {
            at = layout.skip_gap(at);
            let end = self.shared.readable();
            let nothing = at >= to.min(end);
            if nothing && from > end {
                return Err(ReadError::Beyond);
            }
            if nothing {
                return Ok(Chunk { layout, from: at, bytes: Vec::new(), next: at });
            }
            let (segment, limit) = self.extent(at)?;
            match self.checked(at, limit.min(to).min(end), max_bytes) {
                Ok(Ok(chunk)) if chunk.bytes.is_empty() && chunk.next > at => at = chunk.next,
                Ok(Ok(chunk)) => return Ok(chunk),
                // `to` is no boundary: the frame that crosses it is not asked for. If there is one:
                // a rotten length may only look so.
                Ok(Err(Flaw::Frame(Bad::Short(bytes))))
                    if at.0 + bytes as u64 > to.0
                        && matches!(self.checked(at, limit.min(end), 1), Ok(Ok(_))) =>
                {
                    return Ok(Chunk { layout, from: at, bytes: Vec::new(), next: at });
                }
                // The owner may have cut, or trimmed, what was just being read.
                Ok(Err(flaw)) if self.unchanged(at, &segment) => {
                    return Err(Damage { from: at, to: self.after(at), flaw }.into());
                }
                Err(fault) if self.unchanged(at, &segment) => {
                    if fault.kind() != ErrorKind::NotFound {
                        return Err(fault.into());
                    }
                    let (to, flaw) = (self.after(at), Flaw::Missing);
                    return Err(Damage { from: at, to, flaw }.into());
                }
                Ok(Err(_)) | Err(_) => {}
            }
        }
    }

    /// The segment at `at`, and up to where there are bytes of it.
    pub(crate) fn extent(&self, at: Offset) -> Result<(Segment, Offset), ReadError> {
        let segment_end = self.shared.layout.end(at);
        let later = self.shared.segment_from(segment_end);
        let Some(segment) = self.shared.segment(at) else {
            return Err(ReadError::Trimmed { next: later });
        };
        let Some(ranges) = &segment.ranges else { return Ok((segment, segment_end)) };
        match range_behind(ranges, at) {
            Some(range) if range.start <= at => {
                let end = range.end;
                Ok((segment, end))
            }
            Some(range) => Err(ReadError::Trimmed { next: Some(range.start) }),
            None => Err(ReadError::Trimmed { next: later }),
        }
    }

    fn unchanged(&self, at: Offset, segment: &Segment) -> bool {
        let now = self.shared.segment(at);
        at < self.shared.readable() && now.is_some_and(|now| now.ranges == segment.ranges)
    }

    /// Up to where damage that begins at `at` can't be told from what follows.
    fn after(&self, at: Offset) -> Offset {
        self.shared.layout.end(at)
    }

    fn checked(
        &self,
        at: Offset,
        limit: Offset,
        max_bytes: usize,
    ) -> Result<Result<Chunk, Flaw>, Fault> {
        let layout = self.shared.layout;
        let there = usize::try_from(limit.0 - at.0).expect("at most a segment");
        let (mut bytes, mut refused) =
            self.read(at, there.min(max_bytes.max(FRAME_HEADER_BYTES)))?;
        if let Err(Bad::Short(needed)) = naust_wire::frame::read(&bytes)
            && needed > bytes.len()
            && needed <= there
        {
            (bytes, refused) = self.read(at, needed)?;
        }
        if bytes.is_empty() && !refused {
            return Ok(Err(Flaw::Frame(Bad::Short(FRAME_HEADER_BYTES))));
        }
        let mut before: Option<Position> = None;
        let mut used = 0;
        let mut next = at;
        while used < bytes.len() || used == 0 {
            if layout.skip_gap(next) != next {
                break;
            }
            let frame = match layout.check(next, before.as_ref(), &bytes[used..]) {
                Ok(frame) => frame,
                Err(_) if used > 0 => break,
                Err(Flaw::Frame(Bad::Short(_))) if refused => return Ok(Err(Flaw::Refused)),
                Err(flaw) => return Ok(Err(flaw)),
            };
            next = frame.header.end();
            if frame.header.kind == Kind::Padding {
                break;
            }
            before = Some(Position::of(&frame.header, frame.crc));
            used += usize::try_from(frame.header.frame_bytes()).expect("in memory");
        }
        bytes.truncate(used);
        Ok(Ok(Chunk { layout, from: at, bytes, next: layout.skip_gap(next) }))
    }

    /// Reads bytes; whether the disk refused some of them.
    fn read(&self, at: Offset, bytes: usize) -> Result<(Vec<u8>, bool), Fault> {
        let base = self.shared.layout.base(at);
        let file = self.shared.file(base, Open::Existing)?;
        let mut into = vec![0; bytes];
        let read = read_given(&*file, at.0 - base.0, &mut into);
        let (read, refused) = read.map_err(Fault::at("read", &Layout::name(base)))?;
        into.truncate(read);
        Ok((into, refused))
    }

    /// The frame that begins at `offset`.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn frame(&self, offset: Offset) -> Result<Chunk, ReadError> {
        let chunk = self.frames(offset, Offset::MAX, FRAME_HEADER_BYTES)?;
        if chunk.bytes.is_empty() { Err(ReadError::Beyond) } else { Ok(chunk) }
    }

    /// The `length` bytes at `offset`, which lie in the body of one frame. The whole frame is read
    /// and checked. For many of them: [`Reader::records`].
    ///
    /// # Errors
    /// [`ReadError`]; `NoRecord` if they lie otherwise.
    pub fn record(&self, offset: Offset, length: usize) -> Result<Vec<u8>, ReadError> {
        self.records().record(offset, length).map(<[u8]>::to_vec)
    }

    /// Reads many records, best in ascending order.
    #[must_use]
    pub fn records(&self) -> Records {
        Records::new(self.clone())
    }

    pub(crate) fn layout(&self) -> Layout {
        self.shared.layout
    }

    /// The frames around the byte at `offset`. `near`: a boundary before it that may be close.
    pub(crate) fn around(&self, offset: Offset, near: Option<Offset>) -> Result<Chunk, ReadError> {
        if offset >= self.shared.readable() {
            return Err(ReadError::Beyond);
        }
        self.extent(offset)?;
        let base = self.shared.layout.base(offset);
        let close = |at: &Offset| *at <= offset && offset.0 - at.0 < STEP_BYTES as u64;
        let mut at = match near.filter(close) {
            Some(at) => at,
            None => {
                let mark = self.mark(base, |mark| mark.offset <= offset)?;
                mark.map_or(base, |mark| mark.offset)
            }
        };
        loop {
            let chunk = self.frames_over_gaps(at)?;
            if chunk.bytes.is_empty() || chunk.from > offset {
                return Err(ReadError::NoRecord(offset));
            }
            if chunk.end() > offset {
                return Ok(chunk);
            }
            at = chunk.next;
        }
    }

    /// Where the frame with `index` begins.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn find(&self, index: Index) -> Result<Offset, ReadError> {
        self.by_index(index).map(|(begin, _)| begin)
    }

    /// Where the frame with `index` ends.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn position(&self, index: Index) -> Result<Position, ReadError> {
        self.by_index(index).map(|(_, end)| end)
    }

    fn by_index(&self, index: Index) -> Result<(Offset, Position), ReadError> {
        let trimmed = ReadError::Trimmed { next: self.shared.segment_from(Offset::ZERO) };
        let base = self.shared.by_index(index).ok_or(trimmed)?;
        let mark = self.mark(base, |mark| mark.index <= index)?;
        let mut at = mark.map_or(base, |mark| mark.offset);
        loop {
            let chunk = self.frames_over_gaps(at)?;
            if chunk.bytes.is_empty() {
                return Err(ReadError::Beyond);
            }
            if let Some(frame) = chunk.frames().find(|frame| frame.header.index >= index) {
                if frame.header.index > index {
                    return Err(ReadError::Trimmed { next: Some(frame.header.offset) });
                }
                return Ok((frame.header.offset, Position::of(&frame.header, frame.crc)));
            }
            at = chunk.next;
        }
    }

    /// Frames from `at` on, or from where the log goes on behind it. Behind a gap at the end of one
    /// segment may lie one at the beginning of the next.
    fn frames_over_gaps(&self, mut at: Offset) -> Result<Chunk, ReadError> {
        loop {
            match self.frames(at, Offset::MAX, STEP_BYTES) {
                Err(ReadError::Trimmed { next: Some(next) }) if next > at => at = next,
                read => return read,
            }
        }
    }

    /// The last mark of the segment at `base` that `wanted` says yes to.
    pub(crate) fn mark(
        &self,
        base: Offset,
        wanted: impl Fn(&Mark) -> bool,
    ) -> Result<Option<Mark>, ReadError> {
        if let Some(mark) = self.shared.open_mark(base, &wanted) {
            return Ok(mark);
        }
        // Without its footer a segment is walked from its beginning: slower, not wrong.
        let footer = self.shared.footer(base)?;
        Ok(footer.and_then(|content| Content::mark_before(&content.marks, wanted)))
    }
}
