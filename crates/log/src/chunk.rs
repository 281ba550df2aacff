//! The log bytes that are still in memory: staged, being written, or durable and not yet released.
//!
//! The last chunk is open and grows; a [`Write`](crate::Write) freezes it, so that a disk thread
//! and batches can share its bytes without a copy. Chunks are contiguous, padding included, and
//! begin at a boundary between frames.

use crate::layout::{Frames, Layout, Position};
use naust_wire::Offset;
use std::collections::VecDeque;
use std::sync::Arc;

/// Least and greatest room of a chunk, in bytes. A greater one holds a single frame only.
const ROOM_BYTES: (usize, usize) = (4 * 1024, 1024 * 1024);
/// Room that a frozen chunk may keep unused: to give it back would cost each lone small write a
/// copy.
const SLACK_BYTES: usize = 8 * 1024;
/// Frozen chunks that may: when the views are behind, there are many.
const SLACK_CHUNKS: usize = 16;

/// Frozen log bytes.
#[derive(Clone)]
pub(crate) struct Chunk {
    /// What its first frame follows; its bytes lie from here on, padding included.
    pub before: Position,
    pub bytes: Arc<Vec<u8>>,
    /// How many of `bytes` count: fewer than all after a cut.
    pub length: usize,
}

impl Chunk {
    pub(crate) fn from(&self) -> Offset {
        self.before.offset
    }

    pub(crate) fn to(&self) -> Offset {
        self.before.offset.plus(self.length as u64)
    }
}

/// All of them.
pub(crate) struct Chunks {
    layout: Layout,
    frozen: VecDeque<Chunk>,
    open: Vec<u8>,
    open_before: Position,
    frozen_bytes: u64,
    room: usize,
}

impl Chunks {
    /// None yet: the log ends at `end`.
    pub(crate) fn new(layout: Layout, end: Position) -> Chunks {
        Chunks {
            layout,
            frozen: VecDeque::new(),
            open: Vec::new(),
            open_before: end,
            frozen_bytes: 0,
            room: ROOM_BYTES.0,
        }
    }

    /// The open chunk with room for `bytes` more; `end` is where the log ends.
    pub(crate) fn open(&mut self, end: &Position, bytes: usize) -> &mut Vec<u8> {
        if self.open.capacity() - self.open.len() < bytes {
            self.freeze(end);
            self.open = Vec::with_capacity(self.room.max(bytes));
        }
        &mut self.open
    }

    /// Freezes the open chunk; `end` is where the log ends.
    pub(crate) fn freeze(&mut self, end: &Position) {
        let mut bytes = std::mem::take(&mut self.open);
        let length = bytes.len();
        if length > 0 {
            self.room = (2 * length).next_power_of_two().clamp(ROOM_BYTES.0, ROOM_BYTES.1);
            let is_large = bytes.capacity() >= SLACK_BYTES || self.frozen.len() >= SLACK_CHUNKS;
            if length < bytes.capacity() / 2 && is_large {
                bytes.shrink_to_fit();
            }
            let before = self.open_before;
            self.frozen.push_back(Chunk { before, bytes: Arc::new(bytes), length });
            self.frozen_bytes += length as u64;
        }
        self.open_before = *end;
    }

    /// Where the bytes in memory begin.
    pub(crate) fn from(&self) -> Offset {
        self.frozen.front().map_or(self.open_before.offset, Chunk::from)
    }

    /// How many there are.
    pub(crate) fn bytes(&self) -> u64 {
        self.frozen_bytes + self.open.len() as u64
    }

    /// Lets go of frozen chunks that end at or below `upto`.
    pub(crate) fn release(&mut self, upto: Offset) {
        while self.frozen.front().is_some_and(|chunk| chunk.to() <= upto) {
            let chunk = self.frozen.pop_front().expect("just seen");
            self.frozen_bytes -= chunk.length as u64;
        }
    }

    /// Frozen bytes in `from` to `to`, in order: each with the range of it that is meant.
    pub(crate) fn frozen(&self, from: Offset, to: Offset) -> Vec<Part> {
        let first = self.frozen.partition_point(|chunk| chunk.to() <= from);
        let mut parts = Vec::new();
        for chunk in self.frozen.range(first..).take_while(|chunk| chunk.from() < to) {
            let start = from.max(chunk.from());
            let skip = distance(chunk.from(), start);
            let end = distance(chunk.from(), to.min(chunk.to()));
            parts.push(Part { offset: start, bytes: Arc::clone(&chunk.bytes), range: skip..end });
        }
        parts
    }

    /// As [`Chunks::frozen`], with a copy of what is in the open chunk.
    pub(crate) fn all(&self, from: Offset, to: Offset) -> Vec<Part> {
        let mut parts = self.frozen(from, to);
        let open = self.open_before.offset;
        if to > open && !self.open.is_empty() {
            let start = from.max(open);
            let bytes = self.open[distance(open, start)..distance(open, to)].to_vec();
            let range = 0..bytes.len();
            parts.push(Part { offset: start, bytes: Arc::new(bytes), range });
        }
        parts
    }

    /// Appends the bytes in `from` to `to` to `out`, if all of them are here.
    pub(crate) fn copy(&self, from: Offset, to: Offset, out: &mut Vec<u8>) -> bool {
        if from < self.from() {
            return false;
        }
        for part in self.frozen(from, to) {
            out.extend_from_slice(part.bytes());
        }
        let open = self.open_before.offset;
        if to > open {
            let start = from.max(open);
            out.extend_from_slice(&self.open[distance(open, start)..distance(open, to)]);
        }
        true
    }

    /// The last boundary in memory that `wanted` says yes to; it must say yes to a prefix of them.
    pub(crate) fn boundary(&self, wanted: impl Fn(&Position) -> bool) -> Option<Position> {
        let open = wanted(&self.open_before).then_some((self.open_before, &self.open[..]));
        let (mut last, bytes) = open.or_else(|| {
            let chunk = self.frozen.iter().rev().find(|chunk| wanted(&chunk.before))?;
            Some((chunk.before, &chunk.bytes[..chunk.length]))
        })?;
        for frame in Frames::new(self.layout, last.offset, bytes) {
            let next = Position::of(&frame.header, frame.crc);
            if !wanted(&next) {
                break;
            }
            last = next;
        }
        Some(last)
    }

    /// Forgets the bytes behind `end`, a boundary in memory or before it.
    pub(crate) fn cut(&mut self, end: Position) {
        if end.offset >= self.open_before.offset {
            self.open.truncate(distance(self.open_before.offset, end.offset));
            return;
        }
        self.open = Vec::new();
        self.open_before = end;
        while self.frozen.back().is_some_and(|chunk| chunk.from() >= end.offset) {
            self.frozen.pop_back();
        }
        if let Some(chunk) = self.frozen.back_mut()
            && chunk.to() > end.offset
        {
            chunk.length = distance(chunk.from(), end.offset);
        }
        self.frozen_bytes = self.frozen.iter().map(|chunk| chunk.length as u64).sum();
    }
}

/// A range of frozen bytes.
#[derive(Clone)]
pub(crate) struct Part {
    /// Where the range begins in the log.
    pub offset: Offset,
    bytes: Arc<Vec<u8>>,
    range: std::ops::Range<usize>,
}

impl Part {
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes[self.range.clone()]
    }
}

fn distance(from: Offset, to: Offset) -> usize {
    usize::try_from(to.0 - from.0).expect("a distance in memory")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Why: each lone small write copied its frame once more, to give back 4 KiB.
    #[test]
    fn small_chunks_keep_their_room_while_there_are_few() {
        let mut chunks = Chunks::new(Layout::STANDARD, Position::ORIGIN);
        let mut freeze = |bytes: usize| {
            chunks.open(&Position::ORIGIN, bytes).resize(bytes, 1);
            chunks.freeze(&Position::ORIGIN);
            chunks.frozen.back().map(|chunk| chunk.bytes.capacity())
        };
        for _ in 0..SLACK_CHUNKS {
            assert_eq!(freeze(100), Some(ROOM_BYTES.0));
        }
        assert!(freeze(100).is_some_and(|room| room < 200), "there are many");
        freeze(10_000);
        assert!(freeze(100).is_some_and(|room| room < 200), "its room was large");
    }
}
