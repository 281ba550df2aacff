//! Committed frames on their way to the views.

use crate::chunk::Part;
use crate::layout::{Frames, Layout};
use crate::reader::{ReadError, Reader};
use naust_wire::Offset;
use naust_wire::frame::Frame;

/// Bytes of one read of what is no longer in memory.
const READ_BYTES: usize = 1024 * 1024;

/// A run of frames: its newest part shared with the log's memory, the rest still on disk. To be
/// sent to the thread that folds them in.
#[derive(Clone)]
pub struct Batch {
    reader: Reader,
    layout: Layout,
    from: Offset,
    /// From here on the frames are in memory.
    memory: Offset,
    to: Offset,
    parts: Vec<Part>,
}

impl Batch {
    pub(crate) fn new(
        reader: Reader,
        layout: Layout,
        from: Offset,
        memory: Offset,
        to: Offset,
        parts: Vec<Part>,
    ) -> Batch {
        Batch { reader, layout, from, memory, to, parts }
    }

    /// Where it begins.
    #[must_use]
    pub fn from(&self) -> Offset {
        self.from
    }

    /// Where it ends.
    #[must_use]
    pub fn to(&self) -> Offset {
        self.to
    }

    /// Log bytes in it.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.to.0 - self.from.0
    }

    /// Whether all of it is in memory.
    #[must_use]
    pub fn is_in_memory(&self) -> bool {
        self.from >= self.memory
    }

    /// Shows each frame but padding to `f`, in order. Frames from disk are checked; those from
    /// memory never left it. Blocking if some are on disk.
    ///
    /// # Errors
    /// The first of `f`, or of reading.
    pub fn for_each<E: From<ReadError>>(
        &self,
        f: &mut dyn FnMut(Frame<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut at = self.from;
        while at < self.memory {
            let chunk = self.reader.frames(at, self.memory, READ_BYTES)?;
            for frame in chunk.frames() {
                f(frame)?;
            }
            if chunk.next() <= at {
                // A replica that cut what it had given out to be applied: said, not skipped.
                return Err(ReadError::Beyond.into());
            }
            at = chunk.next();
        }
        for part in &self.parts {
            for frame in Frames::new(self.layout, part.offset, part.bytes()) {
                f(frame)?;
            }
        }
        Ok(())
    }
}
