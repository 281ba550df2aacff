//! The owner's view of the log: stage, save, cut, release. What goes to disk is planned in `plan`.

use crate::chunk::Chunks;
use crate::disk::{Disk, Open};
use crate::layout::{Flaw, Frames, Layout, Position};
use crate::reader::Reader;
use crate::recovery::{self, OpenError, Opened};
use crate::scan::{Stop, Window};
use crate::segment::Content;
use crate::shared::Shared;
use crate::superblock::{CONFIGURATION_BYTES_MAX, HardState, Identity, Superblock};
use crate::{Batch, Fault};
use naust_wire::frame::{self, Header, Kind};
use naust_wire::{Index, LogTime, Offset, ShardId, Term};
use std::collections::VecDeque;
use std::sync::Arc;

/// Where the local field lies in a frame.
pub(crate) const LOCAL: std::ops::Range<usize> = 48..56;

/// The log of one shard, as its only owner sees it. No method but [`Log::create`] and [`Log::open`]
/// blocks, except that [`Log::cut_after`] reads when it goes back behind what is in memory.
pub struct Log {
    pub(crate) shared: Arc<Shared>,
    /// As saved, durable or not.
    pub(crate) superblock: Superblock,
    /// It differs from what is durable, or what is durable is not known.
    pub(crate) superblock_dirty: bool,
    /// As durable.
    pub(crate) start: Position,
    pub(crate) end: Position,
    /// Files hold the frames up to here: an end of the process harms none of them.
    pub(crate) written: Position,
    /// No power cut harms those up to here; not behind `written`.
    pub(crate) durable: Position,
    pub(crate) terms: Vec<(Index, Term)>,
    pub(crate) chunks: Chunks,
    /// Segments that are not yet sealed and durable, oldest first.
    pub(crate) tail: VecDeque<Content>,
    pub(crate) flight: Option<Flight>,
    /// A failed write must be repeated up to here before anything behind it is written: the marks
    /// of the frames behind it say that it is durable.
    pub(crate) barrier: Option<Position>,
    pub(crate) cut: Option<Position>,
    /// Frames may have been written up to here.
    pub(crate) dirty: Offset,
    /// Zero-filled up to here, or about to be.
    pub(crate) filled: Offset,
    /// Log bytes of the last writes: the last one's, or half of what it was before.
    pub(crate) pace_bytes: u64,
    /// Where a zero-filling under way begins: no frame is written behind it until it has ended.
    pub(crate) extending: Option<Offset>,
    pub(crate) full: bool,
    /// There was no space for the superblock either.
    pub(crate) stuck: bool,
    /// There was no space for an extension.
    pub(crate) starved: bool,
    pub(crate) faulted: bool,
    pub(crate) trimming: bool,
    pub(crate) trim_cursor: Offset,
}

/// The write under way.
pub(crate) struct Flight {
    pub to: Position,
    pub cut: Option<Position>,
    pub superblock: Option<Superblock>,
    /// What was zero-filled before it.
    pub filled: Offset,
    /// Whether what it writes is durable when it has ended.
    pub when: When,
}

/// When the frames of a [`Write`](crate::Write) are synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum When {
    /// By itself.
    Now,
    /// By one of the next, if it need not be now.
    Later,
}

/// Where a staged frame lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Staged {
    /// Where its header begins.
    pub offset: Offset,
    /// Where the frame ends.
    pub end: Offset,
}

/// Frames from another replica that do not continue this log. Nothing of them was staged but for
/// the frames before the one that is named.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the frame at offset {offset} does not continue the log: {flaw}")]
pub struct Refused {
    /// Where the frame was expected.
    pub offset: Offset,
    /// What is wrong with it.
    pub flaw: Flaw,
}

impl Log {
    /// Makes a new log in an empty directory, durably. `configuration` is the initial membership,
    /// opaque here, of at most [`CONFIGURATION_BYTES_MAX`] bytes.
    ///
    /// # Errors
    /// Of the disk; `AlreadyExists` if there is a log.
    ///
    /// # Panics
    /// If the configuration is too long.
    pub fn create(disk: &dyn Disk, identity: Identity, configuration: &[u8]) -> Result<(), Fault> {
        Log::create_with(disk, identity, configuration, Layout::STANDARD)
    }

    /// As [`Log::create`], with segments of another length: for tests and simulations, which want
    /// to cross many. A frame must fit a segment: see [`Layout::body_bytes_max`].
    ///
    /// # Errors
    /// As [`Log::create`].
    ///
    /// # Panics
    /// As [`Log::create`].
    pub fn create_with(
        disk: &dyn Disk,
        identity: Identity,
        configuration: &[u8],
        layout: Layout,
    ) -> Result<(), Fault> {
        assert!(configuration.len() <= CONFIGURATION_BYTES_MAX, "configuration over the limit");
        let superblock = Superblock {
            sequence: 1,
            identity,
            layout,
            hard: HardState::default(),
            start: Position::ORIGIN,
            generation: 0,
            cut: Offset::ZERO,
            configuration: configuration.into(),
        };
        superblock.create(disk)
    }

    /// Opens the log of `shard` and mends what a crash left: a torn tail is durably cut off.
    /// Blocking; reads the last segment.
    ///
    /// # Errors
    /// [`OpenError`]; with [`OpenError::Damaged`] nothing on disk was changed.
    pub fn open(disk: Arc<dyn Disk>, shard: ShardId) -> Result<(Log, Opened), OpenError> {
        recovery::open(disk, shard)
    }

    pub(crate) fn assemble(
        shared: Arc<Shared>,
        superblock: Superblock,
        tail: VecDeque<Content>,
        terms: Vec<(Index, Term)>,
        end: Position,
        filled: Offset,
    ) -> Log {
        let start = superblock.start;
        Log {
            chunks: Chunks::new(shared.layout, end),
            shared,
            superblock,
            superblock_dirty: false,
            start,
            end,
            written: end,
            durable: end,
            terms,
            tail,
            flight: None,
            barrier: None,
            cut: None,
            dirty: end.offset,
            filled,
            pace_bytes: 0,
            extending: None,
            full: false,
            stuck: false,
            starved: false,
            faulted: false,
            trimming: false,
            trim_cursor: Offset::ZERO,
        }
    }

    /// Whose log it is.
    #[must_use]
    pub fn identity(&self) -> Identity {
        self.superblock.identity
    }

    /// The initial membership, as it was given when the log was made.
    #[must_use]
    pub fn configuration(&self) -> &[u8] {
        &self.superblock.configuration
    }

    /// Where segments end.
    #[must_use]
    pub fn layout(&self) -> Layout {
        self.shared.layout
    }

    /// From here on the log is contiguous; before it only live frames are left, if any.
    #[must_use]
    pub fn start(&self) -> Position {
        self.start
    }

    /// The end of the last staged frame.
    #[must_use]
    pub fn end(&self) -> Position {
        self.end
    }

    /// The end of the last frame that survives the end of the process.
    #[must_use]
    pub fn written_to(&self) -> Position {
        self.written
    }

    /// The end of the last frame that survives a power cut: before [`Log::written_to`] only after
    /// [`Log::next_write_unsynced`].
    #[must_use]
    pub fn durable(&self) -> Position {
        self.durable
    }

    /// As last saved, durable or not.
    #[must_use]
    pub fn hard_state(&self) -> HardState {
        self.superblock.hard
    }

    /// The first index of each term, from the one that holds `start` on.
    #[must_use]
    pub fn terms(&self) -> &[(Index, Term)] {
        &self.terms
    }

    /// Log bytes that are still in memory.
    #[must_use]
    pub fn unreleased_bytes(&self) -> u64 {
        self.chunks.bytes()
    }

    /// For everyone else: reads what is written, while the owner goes on.
    #[must_use]
    pub fn reader(&self) -> Reader {
        Reader::new(Arc::clone(&self.shared))
    }

    /// Adds a frame at the end; padding before it, if it begins the next segment.
    ///
    /// # Panics
    /// If `index` is not the next, `term` goes back, or the body is over the limit: bugs of the
    /// caller.
    pub fn stage(
        &mut self,
        kind: Kind,
        term: Term,
        index: Index,
        time: LogTime,
        body: &[u8],
    ) -> Staged {
        assert!(index == self.end.index.next(), "the frame must have the next index");
        assert!(term >= self.end.term, "terms never go back");
        assert!(kind != Kind::Padding, "padding is the log's own");
        assert!(body.len() <= self.shared.layout.body_bytes_max(), "body over the limit");
        let synced = self.synced();
        let offset = self.make_room(frame::frame_bytes(body.len()), synced);
        let header = Header {
            kind,
            body_bytes: u32::try_from(body.len()).expect("bounded above"),
            crc_before: self.end.crc,
            term,
            index,
            offset,
            time,
            synced: self.mark(offset, synced),
        };
        let crc = header.write(body, self.chunks.open(&self.end, 0));
        self.note(&header, crc);
        Staged { offset, end: header.end() }
    }

    /// Adds whole frames of another replica, byte-identical but for the local field. They may or
    /// may not contain padding; it is made here.
    ///
    /// # Errors
    /// [`Refused`] at the first frame that is bad or does not follow. Those before it are staged.
    pub fn stage_frames(&mut self, frames: &[u8]) -> Result<(), Refused> {
        let layout = self.shared.layout;
        let mut rest = frames;
        while !rest.is_empty() {
            let refused = |flaw| Refused { offset: self.end.offset, flaw };
            let (header, _) = frame::peek(rest).map_err(|bad| refused(bad.into()))?;
            let bytes = header.frame_bytes();
            let at = layout.place(self.end.offset, bytes);
            let before = self.padded(at);
            let before = if header.kind == Kind::Padding { self.end } else { before };
            let at = if header.kind == Kind::Padding { self.end.offset } else { at };
            let found = layout.check(at, Some(&before), rest).map_err(refused)?;
            let (header, crc) = (found.header, found.crc);
            let (frame, behind) = rest.split_at(usize::try_from(bytes).expect("just checked"));
            if header.kind != Kind::Padding {
                self.take_over(&header, crc, frame);
            }
            rest = behind;
        }
        Ok(())
    }

    /// Adds a frame that was checked and follows: its bytes as they are, but for the local field.
    fn take_over(&mut self, header: &Header, crc: u32, frame: &[u8]) {
        let synced = self.synced();
        let offset = self.make_room(frame.len(), synced);
        let synced = self.mark(offset, synced);
        let out = self.chunks.open(&self.end, 0);
        out.extend_from_slice(&frame[..LOCAL.start]);
        out.extend_from_slice(&synced.0.to_le_bytes());
        out.extend_from_slice(&frame[LOCAL.end..]);
        self.note(header, crc);
    }

    /// The local field of a frame at `offset`, when the disk is synced up to `synced`: a segment
    /// before its own was synced before.
    fn mark(&self, offset: Offset, synced: Offset) -> Offset {
        synced.max(self.tail.back().map_or(offset, |content| content.base))
    }

    /// What a frame at `at` follows: the end, or the padding behind it.
    fn padded(&self, at: Offset) -> Position {
        if at == self.end.offset {
            return self.end;
        }
        self.shared.layout.pad(&self.end, Offset::ZERO, &mut Vec::new())
    }

    /// Makes room for a frame, with padding before it if need be. Returns where it begins.
    fn make_room(&mut self, bytes: usize, synced: Offset) -> Offset {
        let layout = self.shared.layout;
        let offset = layout.place(self.end.offset, bytes as u64);
        let gap = offset.0 - self.end.offset.0;
        let room = bytes + usize::try_from(gap).expect("less than a segment");
        let out = self.chunks.open(&self.end, room);
        if gap > 0 {
            let padded = layout.pad(&self.end, synced, out);
            let content = self.tail.back_mut().expect("a segment that is not full is in the tail");
            content.seal = Some(padded);
            self.end = padded;
        }
        if self.tail.back().is_none_or(|content| content.base != layout.base(offset)) {
            self.tail.push_back(Content::new(self.end));
        }
        offset
    }

    fn note(&mut self, header: &Header, crc: u32) {
        let content = self.tail.back_mut().expect("made with the room");
        content.note(header, crc);
        self.end = content.last;
        if self.end.offset.0 - content.base.0 == self.shared.layout.segment_bytes() {
            content.seal = Some(self.end);
        }
        if self.terms.last().is_none_or(|(_, term)| *term != header.term) {
            self.terms.push((header.index, header.term));
        }
    }

    /// Up to where this disk will have been synced when a frame that is staged now is written:
    /// writes go one after the other, each behind the sync of the one before, if that has one.
    fn synced(&self) -> Offset {
        let flight = self.flight.as_ref().filter(|flight| flight.when == When::Now);
        let synced = flight.map_or(self.durable, |flight| flight.to).offset;
        self.cut.map_or(synced, |cut| synced.min(cut.offset))
    }

    /// Saves term and vote: with the next [`Write`](crate::Write), before its frames.
    pub fn save(&mut self, hard: HardState) {
        if self.superblock.hard != hard {
            self.superblock.hard = hard;
            self.superblock_dirty = true;
        }
    }

    /// Has the superblock written with the next [`Write`](crate::Write), though nothing in it
    /// changed: what the disk has of it is damaged.
    pub fn save_again(&mut self) {
        self.superblock_dirty = true;
    }

    /// Views have folded in what is below `upto`: its memory goes, once it is written.
    pub fn release(&mut self, upto: Offset) {
        self.chunks.release(upto.min(self.written.offset));
    }

    /// The frames in `from` to `to`, both boundaries between frames, for the views: shared from
    /// memory where they still are, else to be read by whoever walks the batch.
    ///
    /// # Panics
    /// If `to` lies behind the end, or before `from`.
    #[must_use]
    pub fn batch(&self, from: Offset, to: Offset) -> Batch {
        assert!(from <= to && to <= self.end.offset, "a batch of staged frames");
        let memory = self.chunks.from().max(from).min(to);
        let parts = self.chunks.all(memory, to);
        Batch::new(self.reader(), self.shared.layout, from, memory, to, parts)
    }

    /// Whether all frames from `from` on are in memory.
    #[must_use]
    pub fn remembers(&self, from: Offset) -> bool {
        self.chunks.from() <= from
    }

    /// Appends the frames in `from` to `to`, both boundaries between frames, as they lie on disk,
    /// to `out`, without the padding between segments, if they are still in memory; says whether
    /// they were.
    ///
    /// # Panics
    /// If `to` lies behind the end, or before `from`.
    #[must_use]
    pub fn copy_frames(&self, from: Offset, to: Offset, out: &mut Vec<u8>) -> bool {
        assert!(from <= to && to <= self.end.offset, "a copy of staged frames");
        let layout = self.shared.layout;
        if to <= layout.end(from) {
            return self.chunks.copy(from, to, out);
        }
        let mut bytes = Vec::new();
        let copied = self.chunks.copy(from, to, &mut bytes);
        for frame in Frames::new(layout, from, &bytes) {
            let at = (frame.header.offset.0 - from.0) as usize;
            out.extend_from_slice(&bytes[at..at + frame.header.frame_bytes() as usize]);
        }
        copied
    }

    /// Drops all frames behind `index`. What of them was written is durably cut off with the next
    /// [`Write`](crate::Write), before anything takes its place.
    ///
    /// # Errors
    /// When the frame `index` has to be looked up on disk, and can't be.
    ///
    /// # Panics
    /// If `index` lies before the start: a bug of the caller.
    pub fn cut_after(&mut self, index: Index) -> Result<(), Fault> {
        assert!(index >= self.start.index, "a cut before the start");
        if index >= self.end.index {
            return Ok(());
        }
        let position = self.boundary(index)?;
        self.reopen_segment(&position)?;
        self.chunks.cut(position);
        self.terms.truncate(self.terms.partition_point(|(first, _)| *first <= index));
        self.end = position;
        self.shared.note_cut(position.offset);
        self.barrier = self.barrier.filter(|barrier| barrier.offset <= position.offset);
        if self.dirty > position.offset {
            let earlier = self.cut.filter(|cut| cut.offset < position.offset);
            self.cut = Some(earlier.unwrap_or(position));
            self.filled = self.filled.min(position.offset);
        }
        if self.written.offset > position.offset {
            self.written = position;
            self.shared.set_readable(position.offset);
        }
        if self.durable.offset > position.offset {
            self.durable = position;
            self.shared.set_durable(position.offset);
        }
        Ok(())
    }

    /// The end of the frame `index`, in memory or on disk.
    fn boundary(&self, index: Index) -> Result<Position, Fault> {
        if index == self.start.index {
            return Ok(self.start);
        }
        match self.chunks.boundary(|position| position.index <= index) {
            Some(position) if position.index == index => Ok(position),
            _ => self.reader().position(index).map_err(|error| error.into_fault(index)),
        }
    }

    /// Sees to it that the segment that `position` lies in is in the tail, without what is behind.
    fn reopen_segment(&mut self, position: &Position) -> Result<(), Fault> {
        let base = self.shared.layout.base(position.offset);
        while self.tail.back().is_some_and(|content| content.base > base) {
            self.tail.pop_back();
        }
        if position.offset == base {
            // Nothing of this segment is left; the one before it is full and stays sealed.
            self.tail.retain(|content| content.base < base);
            return Ok(());
        }
        if self.tail.back().is_none_or(|content| content.base < base) {
            let content = match self.shared.footer(base)? {
                Some(content) => Content::clone(&content),
                None => self.walk_segment(base, position)?,
            };
            self.tail.push_back(content);
        }
        let content = self.tail.back_mut().expect("just seen to");
        content.cut(*position);
        Ok(())
    }

    /// What the footer of the segment at `base` would tell up to `position`, from its frames: the
    /// footer is bad.
    fn walk_segment(&self, base: Offset, position: &Position) -> Result<Content, Fault> {
        let bad = || {
            let source = std::io::Error::from(std::io::ErrorKind::InvalidData);
            Fault::at("read the frames, or the footer, of", &Layout::name(base))(source)
        };
        let before = self.shared.segment(base).ok_or_else(bad)?.before;
        let mut content = Content::new(before);
        content.base = base;
        let file = self.shared.file(base, Open::Existing)?;
        let mut window = Window::new(self.shared.layout, base, file)?;
        match window.scan(&mut content, position.offset)? {
            Stop::Limit if content.last == *position => Ok(content),
            _ => Err(bad()),
        }
    }

    /// The disk had no space, and nothing new is written until [`Log::retry`].
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.full
    }

    /// Not even saved state found room: [`Log::next_write`] gives nothing before [`Log::retry`].
    #[must_use]
    pub fn is_stuck(&self) -> bool {
        self.stuck
    }

    /// Space may have returned: what was refused for lack of it may be tried again. To be called
    /// now and then while [`Log::is_full`].
    pub fn retry(&mut self) {
        self.full = false;
        self.stuck = false;
        self.starved = false;
    }
}
