//! Trimming: whole segments go when no view needs them; of an old one that still holds live frames
//! a sparse copy stays.
//!
//! First the log's start moves, durably, with the next [`Write`](crate::Write). Only then are files
//! touched that lie before it, one at a time, by a background thread: removed, or rewritten as
//! *sparse* ones. The copy has the live frames at their original places and holes between them; it
//! is written beside, synced, and takes the old one's name.

use crate::disk::{File, Open};
use crate::footers;
use crate::layout::{Flaw, Layout};
use crate::log::Log;
use crate::reader::{ReadError, Reader};
use crate::recovery::UNFINISHED;
use crate::segment::Content;
use crate::shared::{Segment, Shared};
use crate::{Damage, Fault};
use naust_wire::Offset;
use naust_wire::planted::{self, Bug};
use std::io::ErrorKind;
use std::ops::Range;
use std::sync::Arc;

/// Segments whose live ranges are asked for in one call of [`Log::trim`].
const ASKED_MAX: usize = 8;
/// Bytes of one read while a segment is rewritten.
const READ_BYTES: usize = 1024 * 1024;

/// What the views still need.
pub struct TrimInput<'a> {
    /// Tables are persisted up to here: nobody folds in frames below it again.
    pub persisted: Offset,
    /// Watches and history need everything from here on.
    pub keep_from: Offset,
    /// The ranges of bytes below that in which live records lie, of those between two offsets; in
    /// ascending order. A frame stays whole if it touches one. Nothing, as long as that is not
    /// known: the same is asked again in the next call, so what is learned has its turn.
    pub live: &'a dyn Fn(Range<Offset>) -> Option<Vec<Range<Offset>>>,
}

/// Shrinks one old segment. For a background thread, to be run once; what comes out goes to
/// [`Log::trimmed`].
#[must_use = "a trim must be run and its outcome be told to the log"]
pub struct Trim {
    shared: Arc<Shared>,
    base: Offset,
    /// What is to stay of it; nothing: the file goes.
    live: Vec<Range<Offset>>,
}

/// What a [`Trim`] came to.
#[must_use = "the log must be told"]
#[derive(Debug)]
pub struct Trimmed {
    segment: Range<Offset>,
    outcome: Result<(), Failure>,
    bytes: u64,
}

#[derive(Debug)]
enum Failure {
    Fault(Fault),
    /// The segment can't be read; it is left as it is.
    Damaged(Damage),
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Failure {
        Failure::Fault(fault)
    }
}

impl Trimmed {
    /// Log bytes that were let go.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The segment of which nothing is left but what lives, all of it good; or nothing at all.
    /// `None` if it is as it was.
    #[must_use]
    pub fn segment(&self) -> Option<Range<Offset>> {
        self.outcome.is_ok().then(|| self.segment.clone())
    }

    /// There was no space for the sparse copy; the segment is as it was.
    #[must_use]
    pub fn disk_full(&self) -> bool {
        match &self.outcome {
            Err(Failure::Fault(fault)) => fault.is_full(),
            _ => false,
        }
    }

    /// Damage that was met; the segment is as it was.
    #[must_use]
    pub fn damage(&self) -> Option<Damage> {
        match &self.outcome {
            Err(Failure::Damaged(damage)) => Some(*damage),
            _ => None,
        }
    }
}

impl Log {
    /// What to trim now, if anything; to be asked now and then. When the log's start has to move
    /// first there is nothing to run yet, but the next [`Write`](crate::Write) carries it.
    pub fn trim(&mut self, input: &TrimInput<'_>) -> Option<Trim> {
        if self.trimming || self.faulted {
            return None;
        }
        let limit = input.persisted.min(input.keep_from).min(self.durable.offset);
        self.move_start(limit);
        let map = self.shared.map();
        // What lies before the start, in turns: each call goes on where the last one stopped.
        let old = map.segments.range(..self.start.offset);
        let old = old.filter(|(base, _)| !map.unsure.contains(base));
        let bases: Vec<(Offset, u64)> =
            old.map(|(base, segment)| (*base, segment.live_bytes)).collect();
        let unsure: Vec<(Offset, u64)> = map.unsure.iter().map(|base| (*base, u64::MAX)).collect();
        drop(map);
        let split = bases.partition_point(|(base, _)| *base < self.trim_cursor);
        // Of unsure ones nobody else can tell what belongs there.
        let turn = unsure.iter().chain(&bases[split..]).chain(&bases[..split]).take(ASKED_MAX);
        for (base, live_before) in turn {
            let is_unsure = unsure.iter().any(|(unsure, _)| unsure == base);
            let end = self.shared.layout.end(*base);
            let Some(mut live) = (input.live)(*base..end) else {
                if planted::has(Bug::SkipUnknown) {
                    self.trim_cursor = end;
                }
                continue;
            };
            self.trim_cursor = if is_unsure { self.trim_cursor } else { end };
            if planted::has(Bug::TrimLive) {
                live.clear();
            }
            let all = (*live_before).min(self.shared.layout.segment_bytes());
            // Half of it must be dead, so that rewriting costs no more than was written.
            if live.is_empty() || sum(&live) * 2 <= all || is_unsure {
                self.trimming = true;
                return Some(Trim { shared: Arc::clone(&self.shared), base: *base, live });
            }
        }
        None
    }

    /// Segments before the log's start, of which only live records are needed.
    #[must_use]
    pub fn old_segments(&self) -> usize {
        self.shared.map().segments.range(..self.start.offset).count()
    }

    /// Stretches of the log before its start of which no segment is left, ascending. Nothing lives
    /// there, as the views know; or a file is lost.
    #[must_use]
    pub fn gaps(&self) -> Vec<Range<Offset>> {
        let mut gaps: Vec<Range<Offset>> = Vec::new();
        let (mut at, map) = (Offset::FIRST, self.shared.map());
        let start = std::iter::once(self.start.offset);
        let there = map.segments.range(..self.start.offset).map(|(base, _)| *base);
        for base in there.chain(start) {
            if at < base {
                gaps.push(at..base);
            }
            at = self.shared.layout.end(base);
        }
        gaps
    }

    /// These live in segments that are gone, as the views know: what is damaged now. It can be
    /// mended as if the segments were there and unsure.
    pub fn note_lost(&mut self, live: &[Range<Offset>]) -> Vec<Damage> {
        let layout = self.shared.layout;
        let mut map = self.shared.map_mut();
        let mut lost: Vec<Damage> = Vec::new();
        for base in live.iter().map(|range| layout.base(range.start)) {
            if base < self.start.offset && !map.segments.contains_key(&base) {
                let content = footers::unknown(layout, base, self.start);
                map.segments.insert(base, Segment::of(&content));
                map.unsure.insert(base);
                lost.push(Damage { from: base, to: layout.end(base), flaw: Flaw::Missing });
            }
        }
        lost
    }

    /// Segments before the log's start of which neither footer was good when it was opened, nor all
    /// frames. [`Log::trim`] rewrites them first, from what lives in them.
    #[must_use]
    pub fn unsure_segments(&self) -> usize {
        self.shared.map().unsure.len()
    }

    /// Saves a start behind the last segment that lies wholly below `limit`. Strictly below: behind
    /// the start there is always an applied frame, and so recovery can tell a lost segment.
    fn move_start(&mut self, limit: Offset) {
        let map = self.shared.map();
        let from = self.superblock.start.offset;
        let seals = map.segments.range(from..limit).filter_map(|(_, segment)| segment.seal);
        if let Some(start) = seals.take_while(|seal| seal.offset < limit).last() {
            self.superblock.start = start;
            self.superblock_dirty = true;
        }
    }

    /// Tells what came of a trim.
    ///
    /// # Errors
    /// Of the disk, but for lack of space: the node has to stop.
    pub fn trimmed(&mut self, done: Trimmed) -> Result<(), Fault> {
        self.trimming = false;
        let full = done.disk_full();
        match done.outcome {
            Err(Failure::Fault(fault)) if !full => {
                self.faulted = true;
                Err(fault)
            }
            _ => Ok(()),
        }
    }
}

fn sum(ranges: &[Range<Offset>]) -> u64 {
    ranges.iter().map(|range| range.end.0 - range.start.0).sum()
}

impl Segment {
    /// Log bytes that are left of it.
    fn bytes(&self, layout: Layout, base: Offset) -> u64 {
        match &self.ranges {
            None => layout.end(base).0 - base.0,
            Some(ranges) => sum(ranges),
        }
    }
}

impl Trim {
    /// Does it. Blocking.
    pub fn run(self) -> Trimmed {
        let segment = self.shared.segment(self.base);
        let before = segment.map_or(0, |segment| segment.bytes(self.shared.layout, self.base));
        let segment = self.base..self.shared.layout.end(self.base);
        match self.attempt() {
            Ok(left) => Trimmed { segment, outcome: Ok(()), bytes: before.saturating_sub(left) },
            Err(failure) => Trimmed { segment, outcome: Err(failure), bytes: 0 },
        }
    }

    /// Returns the log bytes that are left.
    fn attempt(&self) -> Result<u64, Failure> {
        let name = Layout::name(self.base);
        let disk = &*self.shared.disk;
        self.shared.settle()?;
        if self.live.is_empty() {
            let mut map = self.shared.map_mut();
            map.segments.remove(&self.base);
            map.unsure.remove(&self.base);
            map.forget(self.base);
            drop(map);
            match disk.remove(&name) {
                // Somebody else took it away.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                removed => removed.map_err(Fault::at("remove", &name))?,
            }
            disk.sync().map_err(Fault::at("sync names of", "the log"))?;
            return Ok(0);
        }
        let beside = format!("{name}{UNFINISHED}");
        let copied = self.copy(&beside);
        let content = match copied {
            Ok(content) => content,
            Err(failure) => {
                // What is left of the copy goes with the next start, if it can't go now.
                let _ = disk.remove(&beside);
                return Err(failure);
            }
        };
        let segment = Segment::of(&content);
        let left = segment.bytes(self.shared.layout, self.base);
        // What lives can be read from either file; what does not is not to be read any more.
        let mut map = self.shared.map_mut();
        map.segments.insert(self.base, segment);
        map.unsure.remove(&self.base);
        drop(map);
        disk.rename(&beside, &name).map_err(Fault::at("rename", &beside))?;
        self.shared.map_mut().forget(self.base);
        disk.sync().map_err(Fault::at("sync names of", &name))?;
        Ok(left)
    }

    /// Writes the sparse copy under another name, durably.
    fn copy(&self, beside: &str) -> Result<Content, Failure> {
        let disk = &*self.shared.disk;
        let opened = disk.open(beside, Open::Create);
        let file = opened.map_err(Fault::at("create", beside))?;
        file.set_len(0).map_err(Fault::at("empty", beside))?;
        let content = self.copy_frames(&*file, beside)?;
        footers::write_bad(&*file, self.shared.layout, &content)?;
        file.sync().map_err(Fault::at("write", beside))?;
        Ok(content)
    }

    fn copy_frames(&self, file: &dyn File, beside: &str) -> Result<Content, Failure> {
        let reader = Reader::new(Arc::clone(&self.shared));
        let segment_end = self.shared.layout.end(self.base);
        let segment = self.shared.segment(self.base).expect("only this job takes it away");
        let mut content = Content::new(segment.before);
        content.base = self.base;
        let mut ranges: Vec<Range<Offset>> = Vec::new();
        let mut at = self.base;
        while at < segment_end {
            let chunk = match reader.frames(at, segment_end, READ_BYTES) {
                Ok(chunk) => chunk,
                Err(ReadError::Trimmed { next: Some(next) }) if next < segment_end => {
                    at = next;
                    continue;
                }
                // What is damaged and not needed any more goes with the rest.
                Err(ReadError::Damaged(damage)) => {
                    let (to, _) = reader.good_behind(damage.from)?;
                    if self.live.iter().any(|live| live.start < to && live.end > damage.from) {
                        return Err(Failure::Damaged(Damage { to, ..damage }));
                    }
                    at = to;
                    continue;
                }
                Err(ReadError::Io(fault)) => return Err(fault.into()),
                Err(_) => break,
            };
            for frame in chunk.frames() {
                let header = &frame.header;
                let (from, to) = (header.offset, header.end());
                let live = self.live.iter().find(|live| live.end > from);
                if live.is_none_or(|live| live.start >= to) {
                    continue;
                }
                content.note_sparse(header, frame.crc, ranges.last().map(|range| range.end));
                let skip = usize::try_from(from.0 - chunk.from().0).expect("in the chunk");
                let length = usize::try_from(to.0 - from.0).expect("in the chunk");
                let bytes = &chunk.bytes()[skip..skip + length];
                file.write_at(from.0 - self.base.0, &[bytes])
                    .map_err(Fault::at("write", beside))?;
                match ranges.last_mut() {
                    Some(range) if range.end == from => range.end = to,
                    _ => ranges.push(from..to),
                }
            }
            at = chunk.next();
        }
        content.seal = segment.seal;
        content.ranges = Some(ranges.into());
        content.live_bytes = sum(&self.live);
        Ok(content)
    }
}
