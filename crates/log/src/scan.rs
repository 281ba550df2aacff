//! Walking a segment's file when nothing but the bytes themselves can be trusted.

use crate::Fault;
use crate::disk::{File, read_given};
use crate::layout::{Flaw, Layout, Position};
use crate::segment::Content;
use naust_wire::frame::{Frame, Header, Kind, MAGIC, frame_bytes, peek};
use naust_wire::limits::{FRAME_ALIGN, FRAME_HEADER_BYTES};
use naust_wire::{Index, Offset};
use std::sync::Arc;

/// Bytes of one read.
const STEP_BYTES: usize = 256 * 1024;

/// The log bytes of one segment's file, read through a moving buffer.
pub(crate) struct Window {
    layout: Layout,
    file: Arc<dyn File>,
    base: Offset,
    /// Log bytes that the file has, without a footer.
    length: u64,
    buffer: Vec<u8>,
    buffer_at: u64,
    /// What the disk refuses to read is as if it were not there.
    is_lenient: bool,
    /// Bytes read so far.
    pub read: u64,
    /// The highest `synced` mark that was scanned.
    pub synced: Offset,
}

/// Where a scan stopped.
pub(crate) enum Stop {
    /// At the segment's end, behind its padding.
    Full(Position),
    /// At the limit that was given.
    Limit,
    /// At bytes that are not the next frame.
    Flaw(Flaw),
}

impl Window {
    pub(crate) fn new(layout: Layout, base: Offset, file: Arc<dyn File>) -> Result<Window, Fault> {
        let length = file.len().map_err(Fault::at("measure", &Layout::name(base)))?;
        let length = length.min(layout.segment_bytes());
        Ok(Window {
            layout,
            file,
            base,
            length,
            buffer: Vec::new(),
            buffer_at: 0,
            is_lenient: false,
            read: 0,
            synced: Offset::ZERO,
        })
    }

    /// What the disk refuses to read is as if it were not there: never for recovery, which would
    /// take it for a torn tail.
    pub(crate) fn lenient(self) -> Window {
        Window { is_lenient: true, ..self }
    }

    /// Where the file's log bytes end.
    pub(crate) fn end(&self) -> Offset {
        self.base.plus(self.length)
    }

    /// `wanted` bytes at `at`; fewer at the end of the file.
    fn bytes(&mut self, at: Offset, wanted: usize) -> Result<&[u8], Fault> {
        let position = at.0 - self.base.0;
        let there = self.length.saturating_sub(position);
        let wanted = wanted.min(usize::try_from(there).expect("less than a segment"));
        let buffer_end = self.buffer_at + self.buffer.len() as u64;
        if position < self.buffer_at || position + wanted as u64 > buffer_end {
            let bytes = wanted.max(STEP_BYTES.min(usize::try_from(there).expect("as above")));
            self.buffer.resize(bytes, 0);
            let read = match self.is_lenient {
                true => read_given(&*self.file, position, &mut self.buffer).map(|(read, _)| read),
                false => self.file.read_at(position, &mut self.buffer),
            };
            let read = read.map_err(Fault::at("read", &Layout::name(self.base)))?;
            self.buffer.truncate(read);
            self.buffer_at = position;
            self.read += read as u64;
        }
        let skip = usize::try_from(position - self.buffer_at).expect("inside the buffer");
        let end = (skip + wanted).min(self.buffer.len());
        Ok(self.buffer.get(skip..end).unwrap_or_default())
    }

    /// What is in the buffer from `at` on: a word at the least; fewer at the end of the file.
    fn ahead(&mut self, at: Offset) -> Result<&[u8], Fault> {
        self.bytes(at, FRAME_ALIGN)?;
        let skip = usize::try_from(at.0 - self.base.0 - self.buffer_at).expect("in the buffer");
        Ok(self.buffer.get(skip..).unwrap_or_default())
    }

    /// Reads and checks the frame at `at`, as [`Layout::check`] does.
    pub(crate) fn frame(
        &mut self,
        at: Offset,
        before: Option<&Position>,
    ) -> Result<Result<Frame<'_>, Flaw>, Fault> {
        let layout = self.layout;
        let wanted = match peek(self.bytes(at, FRAME_HEADER_BYTES)?) {
            Ok((header, _)) => frame_bytes(header.body_bytes as usize),
            Err(_) => FRAME_HEADER_BYTES,
        };
        Ok(layout.check(at, before, self.bytes(at, wanted)?))
    }

    /// Adds the frames behind `content.last` to it, up to `limit`.
    pub(crate) fn scan(&mut self, content: &mut Content, limit: Offset) -> Result<Stop, Fault> {
        loop {
            let last = content.last;
            let end = self.layout.end(self.base);
            // A segment that is full to the last byte stays so, whatever is cut behind it.
            if last.offset == end {
                return Ok(Stop::Full(last));
            }
            if last.offset >= limit {
                return Ok(Stop::Limit);
            }
            if self.layout.skip_gap(last.offset) == end {
                return Ok(Stop::Full(Position { offset: end, ..last }));
            }
            let found = self.frame(last.offset, Some(&last))?;
            let synced = found.as_ref().map_or(Offset::ZERO, |frame| mark(&frame.header));
            match found {
                Err(flaw) => return Ok(Stop::Flaw(flaw)),
                Ok(frame) if frame.header.kind == Kind::Padding => {
                    return Ok(Stop::Full(Position { offset: end, crc: frame.crc, ..last }));
                }
                Ok(frame) => content.note(&frame.header, frame.crc),
            }
            self.synced = self.synced.max(synced);
        }
    }

    /// Writes again what lies in `from` to `to`. Not synced.
    pub(crate) fn rewrite(&mut self, mut from: Offset, to: Offset) -> Result<(), Fault> {
        let (file, base) = (Arc::clone(&self.file), self.base);
        while from < to {
            let wanted = usize::try_from(to.0 - from.0).expect("less than a segment");
            let bytes = self.bytes(from, wanted.min(STEP_BYTES))?;
            if bytes.is_empty() {
                break;
            }
            let written = file.write_at(from.0 - base.0, &[bytes]);
            written.map_err(Fault::at("write", &Layout::name(base)))?;
            from = from.plus(bytes.len() as u64);
        }
        Ok(())
    }

    /// The first whole frame from `at` on, wherever it may begin.
    pub(crate) fn search(&mut self, mut at: Offset) -> Result<Option<(Header, u32)>, Fault> {
        while let Some(found) = self.search_magic(at)? {
            if self.may_begin(found)?
                && let Ok(frame) = self.frame(found, None)?
            {
                return Ok(Some((frame.header, frame.crc)));
            }
            at = found.plus(FRAME_ALIGN as u64);
        }
        Ok(None)
    }

    /// Whether a frame may begin here, as its header says. Bodies are what clients write, and what
    /// looks like a header in them may claim any length: it is not read for nothing.
    fn may_begin(&mut self, at: Offset) -> Result<bool, Fault> {
        let (layout, length) = (self.layout, self.end());
        let header = peek(self.bytes(at, FRAME_HEADER_BYTES)?);
        Ok(header.is_ok_and(|(header, _)| {
            let end = layout.end(at).min(length);
            header.offset == at && header.end() <= end
        }))
    }

    fn search_magic(&mut self, mut at: Offset) -> Result<Option<Offset>, Fault> {
        while at < self.end() {
            let bytes = self.ahead(at)?;
            if bytes.is_empty() {
                break;
            }
            let mut words = bytes.chunks(FRAME_ALIGN);
            if let Some(found) = words.position(|word| word.starts_with(&MAGIC)) {
                return Ok(Some(at.plus((found * FRAME_ALIGN) as u64)));
            }
            at = at.plus(bytes.len() as u64);
        }
        Ok(None)
    }

    /// Behind the last byte from `at` on that is not zero; `at` if there is none.
    pub(crate) fn used(&mut self, mut at: Offset) -> Result<Offset, Fault> {
        let mut used = at;
        while at < self.end() {
            let bytes = self.bytes(at, STEP_BYTES)?;
            if bytes.is_empty() {
                break;
            }
            if let Some(last) = bytes.iter().rposition(|byte| *byte != 0) {
                used = at.plus(last as u64 + 1);
            }
            at = at.plus(bytes.len() as u64);
        }
        Ok(used)
    }
}

/// Up to where the disk was synced when the frame was written. The field is outside the checksum:
/// one that can't be true says nothing.
pub(crate) fn mark(header: &Header) -> Offset {
    if header.synced <= header.offset { header.synced } else { Offset::ZERO }
}

/// What a frame says that it follows.
pub(crate) fn follows(header: &Header) -> Position {
    let index = match header.kind {
        Kind::Padding => header.index,
        _ => Index(header.index.0.saturating_sub(1)),
    };
    Position {
        offset: header.offset,
        index,
        term: header.term,
        crc: header.crc_before,
        time: header.time,
    }
}
