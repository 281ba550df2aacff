//! Records by their offsets, many of them in a row.

use crate::layout::Frames;
use crate::reader::{Chunk, ReadError, Reader};
use naust_wire::Offset;
use naust_wire::limits::FRAME_HEADER_BYTES;

/// Reads records, and keeps the frames around the last one: records that lie near each other, asked
/// for in ascending order, take one large read for many of them. Blocking.
pub struct Records {
    reader: Reader,
    chunk: Option<Chunk>,
    /// A boundary between frames of the chunk, at or before the last record.
    at: Offset,
}

impl Records {
    pub(crate) fn new(reader: Reader) -> Records {
        Records { reader, chunk: None, at: Offset::ZERO }
    }

    /// The `length` bytes at `offset`, which lie in the body of one frame. The whole frame was
    /// checked when it was read. No bytes lie anywhere.
    ///
    /// # Errors
    /// [`ReadError`]; `NoRecord` if they lie otherwise.
    pub fn record(&mut self, offset: Offset, length: usize) -> Result<&[u8], ReadError> {
        if length == 0 {
            // It may lie at the very end of a body, where the next frame begins.
            return Ok(&[]);
        }
        let around = self.chunk.take().filter(|chunk| chunk.from() <= offset);
        let chunk = match around {
            Some(chunk) if offset < chunk.end() => chunk,
            around => {
                let chunk = self.reader.around(offset, around.map(|chunk| chunk.next()))?;
                self.at = chunk.from();
                chunk
            }
        };
        let chunk = self.chunk.insert(chunk);
        self.at = if self.at <= offset { self.at.max(chunk.from()) } else { chunk.from() };
        let skip = usize::try_from(self.at.0 - chunk.from().0).expect("in the chunk");
        let mut frames = Frames::new(self.reader.layout(), self.at, &chunk.bytes()[skip..]);
        let found = frames.find(|frame| frame.header.end() > offset);
        let frame = found.ok_or(ReadError::NoRecord(offset))?;
        self.at = frame.header.offset;
        let body = self.at.plus(FRAME_HEADER_BYTES as u64);
        let skip = offset.0.checked_sub(body.0).and_then(|skip| usize::try_from(skip).ok());
        let record = skip.and_then(|skip| frame.body.get(skip..)?.get(..length));
        record.ok_or(ReadError::NoRecord(offset))
    }
}
