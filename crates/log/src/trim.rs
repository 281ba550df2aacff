//! Trimming: whole segments go when no view needs them; of an old one that still holds live frames
//! a sparse copy stays.
//!
//! First the log's start moves, durably, with the next [`Write`](crate::Write). Only then are files
//! touched that lie before it, one at a time, by a background thread: removed, or rewritten as
//! *sparse* ones. The copy has the live frames at their original places and holes between them; it
//! is written beside, synced, and takes the old one's name. Frames between two live ones that are
//! so near that a hole would free no block stay too, whole as the others.
//!
//! A segment is rewritten if at most half of it stays, so that this costs no more than writing it
//! did. What lives is known by records, what stays by frames, which only reading the segment tells:
//! so first it is told from the records whether it may be worth it, and then by a [`Trim`] from the
//! frames. If it is not, that is looked at again when a quarter less lives.

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
use naust_wire::limits::{HOLE_BYTES_MIN, STRETCHES_PER_SEGMENT_MAX};
use naust_wire::planted::{self, Bug};
use std::io::ErrorKind;
use std::iter::Peekable;
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
    /// The copy is made if it holds no more bytes of frames than this.
    bytes_max: u64,
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
    /// Too little would go; the segment is left as it is.
    Needed,
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
        let bases: Vec<Offset> = old.map(|(base, _)| *base).collect();
        let unsure: Vec<Offset> = map.unsure.iter().copied().collect();
        drop(map);
        let split = bases.partition_point(|base| *base < self.trim_cursor);
        // Of unsure ones nobody else can tell what belongs there.
        let turn = unsure.iter().chain(&bases[split..]).chain(&bases[..split]).take(ASKED_MAX);
        for base in turn {
            let Some(segment) = self.shared.segment(*base) else { continue };
            let is_unsure = unsure.contains(base);
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
            let kept = segment.kept(self.shared.layout, *base);
            if live.is_empty() || is_unsure || kept.may_shrink(&live) {
                self.trimming = true;
                let shared = Arc::clone(&self.shared);
                // However much lives in an unsure one: it is not rewritten for space.
                let bytes_max = if is_unsure { u64::MAX } else { kept.bytes / 2 };
                return Some(Trim { shared, base: *base, live, bytes_max });
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

/// Whether no hole belongs between what ends at `end` and what begins at `from`.
fn is_near(end: Offset, from: Offset) -> bool {
    from.0 < end.0 + HOLE_BYTES_MIN
}

/// What is known of an old segment without reading it.
struct Kept {
    /// Log bytes that are left of it.
    bytes: u64,
    /// Bytes of records that lived when its frames were looked at last.
    live_bytes: u64,
}

impl Kept {
    /// Whether half of it may be dead: no less would stay than what lies from the first to the last
    /// live byte of each stretch.
    fn may_shrink(&self, live: &[Range<Offset>]) -> bool {
        let (mut bytes, mut end) = (0, Offset::ZERO);
        for range in live {
            let from = if is_near(end, range.start) { end } else { range.start };
            bytes += range.end.0.saturating_sub(from.0);
            end = end.max(range.end);
        }
        bytes * 2 <= self.bytes && sum(live) * 4 <= self.live_bytes.saturating_mul(3)
    }
}

impl Segment {
    fn kept(&self, layout: Layout, base: Offset) -> Kept {
        let bytes = match &self.ranges {
            None => layout.end(base).0 - base.0,
            Some(ranges) => sum(ranges),
        };
        Kept { bytes, live_bytes: self.live_bytes }
    }
}

/// Live ranges, walked along beside the frames: both ascend, so each is looked at once.
struct Along<I: Iterator<Item = Range<Offset>>> {
    live: Peekable<I>,
}

impl<I: Iterator<Item = Range<Offset>>> Along<I> {
    /// Whether something lives in a place that does not begin before the last one.
    fn touches(&mut self, from: Offset, to: Offset) -> bool {
        while self.live.next_if(|live| live.end <= from).is_some() {}
        self.live.peek().is_some_and(|live| live.start < to)
    }
}

impl Trim {
    /// Does it. Blocking.
    pub fn run(self) -> Trimmed {
        let segment = self.shared.segment(self.base);
        let kept = segment.map(|segment| segment.kept(self.shared.layout, self.base));
        let before = kept.map_or(0, |kept| kept.bytes);
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
        let stretches = self.stretches()?;
        if sum(&stretches) > self.bytes_max || stretches.len() > STRETCHES_PER_SEGMENT_MAX {
            self.note_needed();
            return Err(Failure::Needed);
        }
        let beside = format!("{name}{UNFINISHED}");
        let copied = self.copy(&beside, stretches);
        let content = match copied {
            Ok(content) => content,
            Err(failure) => {
                // What is left of the copy goes with the next start, if it can't go now.
                let _ = disk.remove(&beside);
                return Err(failure);
            }
        };
        let segment = Segment::of(&content);
        let left = segment.kept(self.shared.layout, self.base).bytes;
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

    /// So much lives, and it is not worth it: see [`Kept::may_shrink`].
    fn note_needed(&self) {
        if let Some(segment) = self.shared.map_mut().segments.get_mut(&self.base) {
            segment.live_bytes = sum(&self.live);
        }
    }

    /// The stretches of whole frames that are to stay.
    fn stretches(&self) -> Result<Vec<Range<Offset>>, Failure> {
        let reader = Reader::new(Arc::clone(&self.shared));
        let segment_end = self.shared.layout.end(self.base);
        let mut along = Along { live: self.live.iter().cloned().peekable() };
        let mut stretches: Vec<Range<Offset>> = Vec::new();
        // Frames are contiguous, and good, from `whole` to `at`.
        let (mut at, mut whole) = (self.base, self.base);
        while at < segment_end {
            let chunk = match reader.frames(at, segment_end, READ_BYTES) {
                Ok(chunk) => chunk,
                Err(ReadError::Trimmed { next: Some(next) }) if next < segment_end => {
                    (at, whole) = (next, next);
                    continue;
                }
                // What is damaged and not needed any more goes with the rest.
                Err(ReadError::Damaged(damage)) => {
                    let (to, _) = reader.good_behind(damage.from)?;
                    if along.touches(damage.from, to) {
                        return Err(Failure::Damaged(Damage { to, ..damage }));
                    }
                    (at, whole) = (to, to);
                    continue;
                }
                Err(ReadError::Io(fault)) => return Err(fault.into()),
                Err(_) => break,
            };
            for frame in chunk.frames() {
                let (from, to) = (frame.header.offset, frame.header.end());
                if !along.touches(from, to) {
                    continue;
                }
                match stretches.last_mut() {
                    Some(last) if last.end >= whole && is_near(last.end, from) => last.end = to,
                    _ => stretches.push(from..to),
                }
            }
            at = chunk.next();
        }
        Ok(stretches)
    }

    /// Writes the sparse copy under another name, durably.
    fn copy(&self, beside: &str, stretches: Vec<Range<Offset>>) -> Result<Content, Failure> {
        let disk = &*self.shared.disk;
        let opened = disk.open(beside, Open::Create);
        let file = opened.map_err(Fault::at("create", beside))?;
        file.set_len(0).map_err(Fault::at("empty", beside))?;
        let content = self.copy_frames(&*file, beside, stretches)?;
        footers::write_bad(&*file, self.shared.layout, &content)?;
        file.sync().map_err(Fault::at("write", beside))?;
        Ok(content)
    }

    fn copy_frames(
        &self,
        file: &dyn File,
        beside: &str,
        stretches: Vec<Range<Offset>>,
    ) -> Result<Content, Failure> {
        let reader = Reader::new(Arc::clone(&self.shared));
        let segment = self.shared.segment(self.base).expect("only this job takes it away");
        let mut content = Content::new(segment.before);
        content.base = self.base;
        for stretch in &stretches {
            let (mut at, mut end) = (stretch.start, None);
            while at < stretch.end {
                let chunk = match reader.frames(at, stretch.end, READ_BYTES) {
                    Ok(chunk) if chunk.from() == at && !chunk.bytes().is_empty() => chunk,
                    Err(ReadError::Damaged(damage)) => return Err(Failure::Damaged(damage)),
                    Err(ReadError::Io(fault)) => return Err(fault.into()),
                    // They were there a moment ago, and only this job takes them away.
                    Ok(_) | Err(_) => {
                        let source = std::io::Error::from(ErrorKind::InvalidData);
                        return Err(Fault::at("read", &Layout::name(self.base))(source).into());
                    }
                };
                for frame in chunk.frames() {
                    content.note_sparse(&frame.header, frame.crc, end);
                    end = Some(frame.header.end());
                }
                file.write_at(at.0 - self.base.0, &[chunk.bytes()])
                    .map_err(Fault::at("write", beside))?;
                at = chunk.end();
            }
        }
        content.seal = segment.seal;
        content.ranges = Some(stretches.into());
        content.live_bytes = sum(&self.live);
        Ok(content)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges(of: &[(u64, u64)]) -> Vec<Range<Offset>> {
        of.iter().map(|(from, to)| Offset(*from)..Offset(*to)).collect()
    }

    /// Why: for each frame all ranges were looked at from the first one on.
    #[test]
    fn each_range_is_looked_at_once() {
        let live: Vec<Range<Offset>> =
            (0..10_000).map(|at| Offset(100 * at + 7)..Offset(100 * at + 20)).collect();
        let mut steps = 0;
        let counted = live.iter().cloned().inspect(|_| steps += 1);
        let mut along = Along { live: counted.peekable() };
        for frame in 0..50_000u64 {
            let (from, to) = (20 * frame, 20 * frame + 20);
            assert_eq!(along.touches(Offset(from), Offset(to)), frame % 5 == 0, "{frame}");
        }
        assert!(steps <= live.len(), "{steps} steps along {} ranges", live.len());
        // They may overlap, as long as they ascend.
        let live = ranges(&[(10, 90), (20, 30), (95, 96), (95, 95)]);
        let mut along = Along { live: live.into_iter().peekable() };
        let touched = [(0, 10), (10, 20), (80, 90), (90, 95), (95, 99), (99, 120)]
            .map(|(from, to)| along.touches(Offset(from), Offset(to)));
        assert_eq!(touched, [false, true, true, false, true, false]);
    }

    #[test]
    fn what_may_shrink_is_told_by_stretches_and_by_what_died() {
        let kept = |bytes, live_bytes| Kept { bytes, live_bytes };
        // Far from each other, and near.
        let (far, near) = (ranges(&[(0, 10), (9_000, 9_010)]), ranges(&[(0, 10), (4_000, 4_010)]));
        let at = |ranges: Vec<Range<Offset>>| -> Vec<Range<Offset>> {
            let shift = |at: Offset| Offset::FIRST.plus(at.0);
            ranges.into_iter().map(|it| shift(it.start)..shift(it.end)).collect()
        };
        let (far, near) = (at(far), at(near));
        assert!(kept(40, u64::MAX).may_shrink(&far));
        assert!(!kept(39, u64::MAX).may_shrink(&far));
        assert!(kept(8_020, u64::MAX).may_shrink(&near));
        assert!(!kept(8_019, u64::MAX).may_shrink(&near));
        assert!(!kept(8_020, 20).may_shrink(&near), "as much lived before");
        assert!(kept(8_020, 27).may_shrink(&near) && !kept(8_020, 26).may_shrink(&near));
    }
}
