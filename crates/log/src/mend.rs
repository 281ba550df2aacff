//! Frames of another replica take the place of damaged ones.
//!
//! Damage is found when a log is opened ([`Survey`](crate::Survey) lists it and serves the rest),
//! when something is read, or by a [`Scrub`](crate::Scrub). Since all replicas have the same bytes
//! at the same offsets, what is bad here can be fetched there. It is checked as if nobody could be
//! trusted: each frame's checksum, its own offset, and that it follows the good frame before and is
//! followed by the one behind, where there are such.
//!
//! A block that the disk refuses to read is damage, too: it is written over as a whole, which makes
//! disks put another one in its place. One of which only a part is to be written can't be.
//!
//! Only what is bad is written. Good frames between and behind stay as they are, and with them what
//! they say about how far this disk was synced: they alone tell from a torn tail what a power cut
//! leaves of the writing.
//!
//! What was committed is never cut; so only committed frames may be mended beside a log's owner.
//! A log that does not open is mended first, from left to right, and opened then.

use crate::Fault;
use crate::disk::{File, Open};
use crate::layout::{Flaw, Layout, Position};
use crate::log::{LOCAL, Refused};
use crate::reader::{ReadError, Reader};
use crate::scan::Window;
use crate::segment::range_behind;
use crate::shared::{Segment, Shared};
use naust_wire::Offset;
use naust_wire::frame::{self, Header, Kind};
use std::io::ErrorKind;
use std::ops::Range;
use std::sync::Arc;

/// Writes frames over a damaged place. For a disk thread or a background thread, to be run once.
#[must_use = "a mend must be run"]
pub struct Mend {
    reader: Reader,
    shared: Arc<Shared>,
    at: Offset,
    frames: Vec<u8>,
    /// They are taken only if they reach the next good frame.
    must_join: bool,
    are_committed: bool,
}

/// Why a place is not mended. Nothing was written, if nothing else is said.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MendError {
    /// The frames are bad, or don't fit between their neighbours.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// There is nothing to be mended: the log is trimmed there, or ends before.
    #[error("the log holds nothing there")]
    Gone,
    /// The operating system said no. The place was perhaps written to, and is as good as before.
    #[error(transparent)]
    Io(#[from] Fault),
    /// A sync failed: of what was written to the file, here or by whoever else writes to it,
    /// nothing may be assumed any more. The node has to stop.
    #[error(transparent)]
    Unsynced(Fault),
}

/// What was mended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mended {
    /// What is good up to here now.
    pub to: Offset,
    /// The next frame there is good too, or none belongs there: nothing is missing.
    pub joined: bool,
}

impl Reader {
    /// Mends the damaged place that begins at `at` with whole frames of another replica: those from
    /// there on, as [`Reader::frames`] gives them, up to the end of the segment; fewer than all
    /// will do. When its end is reached they go on with the first frame of the next segment: it
    /// tells which padding belongs there, and is not written.
    pub fn mend(&self, at: Offset, frames: Vec<u8>) -> Mend {
        let shared = Arc::clone(self.shared());
        Mend { reader: self.clone(), shared, at, frames, must_join: false, are_committed: false }
    }

    /// What [`Reader::mend`] of another replica takes for the place that begins at `from`: whole
    /// frames up to `to`, of one segment and of at most `max_bytes`, or one that is longer; behind
    /// the last of a segment the first of the next. Nothing, if there is none that ends at or below
    /// `to`. Where this log is trimmed, from the next one on that is left in the segment: what was
    /// between nobody needs; and without the first of the next segment, if that is. Blocking.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn frames_to_mend(
        &self,
        from: Offset,
        to: Offset,
        max_bytes: usize,
    ) -> Result<Vec<u8>, ReadError> {
        let segment_end = self.layout().end(from);
        let (from, chunk) = match self.frames(from, to, max_bytes) {
            Err(ReadError::Trimmed { next: Some(next) }) if next < to.min(segment_end) => {
                (next, self.frames(next, to, max_bytes)?)
            }
            chunk => (from, chunk?),
        };
        if chunk.from() != from && chunk.from() != segment_end {
            return Ok(Vec::new());
        }
        let (next, is_here) = (chunk.next(), chunk.from() == from);
        let mut frames = if is_here { chunk.into_bytes() } else { Vec::new() };
        if next == segment_end && segment_end < self.end() && to >= segment_end {
            match self.frame(segment_end) {
                Ok(first) => frames.extend_from_slice(first.bytes()),
                // It would only have proved that these belong there.
                Err(ReadError::Trimmed { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(frames)
    }
}

impl Mend {
    /// Takes the frames only if they reach the next good one, which tells by its checksum that they
    /// are the ones that lay there: for frames that are not known to be committed.
    pub fn only_if_joined(self) -> Mend {
        Mend { must_join: true, ..self }
    }

    /// They are committed where they come from, and so is what lay here: nothing else can have lain
    /// here, whether or not a neighbour is left that could tell.
    pub fn committed(self) -> Mend {
        Mend { are_committed: true, ..self }
    }

    /// The place.
    #[must_use]
    pub fn at(&self) -> Offset {
        self.at
    }

    /// Does it. Blocking.
    ///
    /// # Errors
    /// [`MendError`].
    pub fn run(self) -> Result<Mended, MendError> {
        let layout = self.shared.layout;
        let base = layout.base(self.at);
        let segment = self.shared.segment(self.at).ok_or(MendError::Gone)?;
        let range = self.range(&segment)?;
        let (file, unnamed) = self.file(base)?;
        let mut window = Window::new(layout, base, Arc::clone(&file))?.lenient();
        let before = self.before(&mut window, &segment, &range)?;
        let (mut bytes, last) = self.check(before, &range)?;
        let end = last.map_or(self.at, |last| last.offset);
        if end > range.end {
            return Err(Refused { offset: end, flaw: Flaw::Place }.into());
        }
        let refused = |flaw| Refused { offset: end, flaw };
        let joined = match self.behind(&mut window, end, last, &range, &mut bytes)? {
            Behind::Joined => true,
            // Nothing says that these are the right ones.
            Behind::Open if !self.are_committed && before.is_none() && segment.ranges.is_none() => {
                return Err(refused(Flaw::Chain).into());
            }
            Behind::Open if self.must_join => return Err(refused(Flaw::Chain).into()),
            Behind::Open => false,
            Behind::Other(flaw) => return Err(refused(flaw).into()),
        };
        self.shared.settle().map_err(MendError::Unsynced)?;
        let name = Layout::name(base);
        for part in self.bad(&mut window, &bytes)? {
            let position = self.at.0 - base.0 + part.start as u64;
            file.write_at(position, &[&bytes[part]]).map_err(Fault::at("mend", &name))?;
        }
        file.sync().map_err(Fault::at("sync", &name)).map_err(MendError::Unsynced)?;
        if unnamed {
            let named = self.shared.disk.sync().map_err(Fault::at("sync names of", &name));
            named.map_err(MendError::Unsynced)?;
        }
        Ok(Mended { to: self.at.plus(bytes.len() as u64), joined })
    }

    /// Where frames lie around the place: the whole segment, unless it is sparse.
    fn range(&self, segment: &Segment) -> Result<Range<Offset>, MendError> {
        let layout = self.shared.layout;
        let end = layout.end(self.at).min(self.shared.readable());
        let whole = layout.base(self.at).max(segment.before.offset)..end;
        let ranges = segment.ranges.as_deref().unwrap_or(std::slice::from_ref(&whole));
        let range = range_behind(ranges, self.at).filter(|range| range.start <= self.at);
        range.cloned().ok_or(MendError::Gone)
    }

    /// The segment's file; whether it was lost altogether.
    fn file(&self, base: Offset) -> Result<(Arc<dyn File>, bool), Fault> {
        match self.shared.file(base, Open::Existing) {
            Err(fault) if fault.kind() == ErrorKind::NotFound => {
                Ok((self.shared.file(base, Open::Create)?, true))
            }
            file => Ok((file?, false)),
        }
    }

    /// The end of the good frame before the place; `None` if there is none that can be found.
    fn before(
        &self,
        window: &mut Window,
        segment: &Segment,
        range: &Range<Offset>,
    ) -> Result<Option<Position>, MendError> {
        let layout = self.shared.layout;
        let is_told = segment.ranges.is_none() && !self.shared.is_unsure(layout.base(self.at));
        let mut last = is_told.then_some(segment.before);
        let mut at = range.start;
        if at < self.at {
            let mark = self.reader.mark(self.shared.layout.base(at), |mark| mark.offset < self.at);
            // A footer that can't be read is no reason to leave the place as it is.
            if let Ok(Some(mark)) = mark
                && mark.offset > at
            {
                (at, last) = (mark.offset, None);
            }
        }
        while at < self.at {
            match window.frame(at, last.as_ref())? {
                Ok(frame) if frame.header.kind != Kind::Padding => {
                    let position = Position::of(&frame.header, frame.crc);
                    (at, last) = (position.offset, Some(position));
                }
                _ => return Ok(None),
            }
        }
        if at > self.at {
            return Err(Refused { offset: self.at, flaw: Flaw::Place }.into());
        }
        Ok(last)
    }

    /// Checks the frames; returns them as they are to lie here, and where the last one ends.
    fn check(
        &self,
        before: Option<Position>,
        range: &Range<Offset>,
    ) -> Result<(Vec<u8>, Option<Position>), MendError> {
        let layout = self.shared.layout;
        let (mut last, mut at) = (before, self.at);
        let mut out = Vec::with_capacity(self.frames.len());
        let mut rest = &self.frames[..];
        let segment_end = layout.end(at);
        while !rest.is_empty() {
            let refused = |flaw| Refused { offset: at, flaw };
            let next = frame::peek(rest).map_err(|bad| refused(bad.into()))?.0;
            if let Some(end) = last
                && next.offset == segment_end
                && at < segment_end
                && range.end == segment_end
            {
                // The frame behind the padding.
                let padded = layout.pad(&end, self.at, &mut out);
                layout.check(segment_end, Some(&padded), rest).map_err(refused)?;
                return Ok((out, Some(padded)));
            }
            if at == segment_end {
                layout.check(segment_end, last.as_ref(), rest).map_err(refused)?;
                return Ok((out, last));
            }
            let found = layout.check(at, last.as_ref(), rest).map_err(refused)?;
            let header = found.header;
            let bytes = usize::try_from(header.frame_bytes()).expect("in memory");
            if header.kind != Kind::Padding {
                if header.end() > range.end {
                    return Err(refused(Flaw::Place).into());
                }
                let begin = out.len();
                out.extend_from_slice(&rest[..bytes]);
                // This disk was synced up to here when it was written here.
                out[begin + LOCAL.start..begin + LOCAL.end]
                    .copy_from_slice(&self.at.0.to_le_bytes());
                last = Some(Position::of(&header, found.crc));
                at = header.end();
            }
            rest = &rest[bytes..];
        }
        Ok((out, last))
    }

    /// What lies behind the frames that end at `end`; adds the padding that belongs there.
    fn behind(
        &self,
        window: &mut Window,
        end: Offset,
        last: Option<Position>,
        range: &Range<Offset>,
        bytes: &mut Vec<u8>,
    ) -> Result<Behind, MendError> {
        if end >= range.end {
            return Ok(self.joins(end, last));
        }
        match window.frame(end, last.as_ref())? {
            Ok(_) if end > self.at => return Ok(Behind::Joined),
            // The place is not damaged at all.
            Ok(_) if bytes.is_empty() => return Ok(Behind::Joined),
            Err(flaw @ (Flaw::Chain | Flaw::Order)) => return Ok(Behind::Other(flaw)),
            _ => {}
        }
        let layout = self.shared.layout;
        let segment_end = layout.end(self.at);
        let (Some(last), Some(next)) = (last, self.shared.segment(segment_end)) else {
            return Ok(Behind::Open);
        };
        let mut padding = Vec::new();
        let padded = layout.pad(&last, self.at, &mut padding);
        if same(&padded, &next.before) {
            bytes.extend_from_slice(&padding);
            return Ok(Behind::Joined);
        }
        Ok(Behind::Open)
    }

    /// The parts of `bytes` that don't lie here yet: frames that are bad, and what is no frame.
    fn bad(&self, window: &mut Window, bytes: &[u8]) -> Result<Vec<Range<usize>>, Fault> {
        let (mut bad, mut begin) = (Vec::<Range<usize>>::new(), 0);
        while begin < bytes.len() {
            let wanted = frame::peek(&bytes[begin..]).ok();
            let length = wanted.map(|(header, _)| frame::frame_bytes(header.body_bytes as usize));
            let end = length.map_or(bytes.len(), |length| begin + length);
            let found = window.frame(self.at.plus(begin as u64), None)?;
            let found = found.ok().map(|found| (found.header, found.crc));
            let is_here = wanted.zip(found).is_some_and(|((wanted, crc), (found, found_crc))| {
                found_crc == crc && Header { synced: wanted.synced, ..found } == wanted
            });
            match bad.last_mut().filter(|last| last.end == begin) {
                _ if is_here => {}
                Some(last) => last.end = end,
                None => bad.push(begin..end),
            }
            begin = end;
        }
        Ok(bad)
    }

    /// The frames fill their segment, or all that is durable.
    fn joins(&self, end: Offset, last: Option<Position>) -> Behind {
        // While the first frames of the next segment are damaged, it begins behind them.
        let next = self.shared.segment(end).filter(|next| next.before.offset == end);
        let next = next.filter(|_| !self.shared.is_unsure(end));
        match (next, last) {
            (Some(next), Some(last)) if next.ranges.is_none() && !same(&last, &next.before) => {
                Behind::Other(Flaw::Chain)
            }
            (None, _) if self.must_join => Behind::Open,
            _ => Behind::Joined,
        }
    }
}

/// What lies behind mended frames.
enum Behind {
    /// What has to.
    Joined,
    /// More damage.
    Open,
    /// A good frame that does not follow them.
    Other(Flaw),
}

/// The term of a position that was told by the frame behind is that frame's own.
fn same(one: &Position, other: &Position) -> bool {
    (one.offset, one.crc, one.index) == (other.offset, other.crc, other.index)
}

impl ReadError {
    /// The damage, if it is that.
    #[must_use]
    pub fn damage(&self) -> Option<crate::Damage> {
        match self {
            ReadError::Damaged(damage) => Some(*damage),
            _ => None,
        }
    }
}
