//! What goes to disk next, and what is known when it is there: the owner's side of
//! [`Write`](crate::Write) and [`Extend`](crate::Extend).

use crate::Fault;
use crate::extend::{Extend, Extended};
use crate::layout::Position;
use crate::log::{Flight, Log, When};
use crate::superblock::Superblock;
use crate::write::{Cut, Failure, Piece, Write, Written};
use naust_wire::Offset;
use naust_wire::planted::{self, Bug};
use std::sync::Arc;

/// Least and greatest step of zero-filling, in bytes: little for a quiet log; for a busy one enough
/// that the background thread is never the slower.
const AHEAD_BYTES: (u64, u64) = (16 * 1024, 8 * 1024 * 1024);
/// While writes are this long nothing is zero-filled ahead of them: each byte would go to disk
/// twice, and they would wait for the zeros, while what a sync into new space costs more is little
/// beside their own bytes.
const LONG_BYTES: u64 = 256 * 1024;

impl Log {
    /// What has to go to disk now: one job for a disk thread. `None` while one is under way, when
    /// there is nothing to do (nothing but saved state and cuts while the disk is full, and not
    /// even those if it refused them, until [`Log::retry`]), or when it has to wait for an
    /// extension under way: so ask again after [`Log::written`] and [`Log::extended`].
    pub fn next_write(&mut self) -> Option<Write> {
        self.next_write_when(When::Now)
    }

    /// As [`Log::next_write`], but what it writes need not be durable when it has ended: it is
    /// written, and [`Log::next_write`] has it synced, also when nothing else is to be done. What
    /// has to be synced all the same is: saved state, cuts, the names of new files, and a segment
    /// that is full, with all that it is written together with.
    pub fn next_write_unsynced(&mut self) -> Option<Write> {
        self.next_write_when(When::Later)
    }

    fn next_write_when(&mut self, wanted: When) -> Option<Write> {
        let waits = self.flight.is_some() || (self.cut.is_some() && self.extending.is_some());
        if waits || self.faulted || self.stuck {
            return None;
        }
        self.chunks.freeze(&self.end);
        // A full disk still takes votes and cuts: they need no new space, but for where all that is
        // written goes to new space.
        let to = if self.full { self.written } else { self.writable_to() };
        let frames = to.offset > self.written.offset;
        let unsynced = self.written.offset > self.durable.offset;
        let owes = unsynced && wanted == When::Now;
        if !frames && !self.superblock_dirty && self.cut.is_none() && !owes {
            return None;
        }
        // It lies in the last segment that was written: who fills one syncs it.
        let owed = unsynced.then(|| self.base(Offset(self.written.offset.0 - 1)));
        let cut = self.cut.take();
        let superblock = (self.superblock_dirty || cut.is_some()).then(|| {
            self.superblock.cut = cut.map_or(Offset::ZERO, |cut| cut.offset);
            self.next_superblock()
        });
        let mut done = superblock.clone();
        let job = cut.map(|at| {
            self.superblock.cut = Offset::ZERO;
            let last = self.next_superblock();
            done = Some(last.clone());
            let kept = self.tail.iter().find(|content| content.base == self.base(at.offset));
            let marks = kept.map_or(Vec::new(), |content| content.marks.clone());
            let marks = marks.into_iter().filter(|mark| mark.offset < at.offset).collect();
            Cut { at, dirty: self.dirty, marks, done: last }
        });
        let filled = self.filled;
        let bytes = to.offset.0 - self.written.offset.0;
        // One short write among long ones does not count yet.
        self.pace_bytes = bytes.max(self.pace_bytes / 2);
        let pieces = if frames { self.pieces(to.offset) } else { Vec::new() };
        let is_plain = superblock.is_none() && job.is_none() && self.barrier.is_none();
        let when = match &pieces[..] {
            [piece] if is_plain && piece.full.is_none() => wanted,
            _ => When::Now,
        };
        self.superblock_dirty = false;
        self.dirty = self.dirty.max(to.offset);
        self.flight = Some(Flight { to, cut, superblock: done, filled, when });
        let shared = Arc::clone(&self.shared);
        Some(Write { shared, superblock, cut: job, pieces, when, owed, begun: None })
    }

    fn base(&self, offset: Offset) -> Offset {
        self.shared.layout.base(offset)
    }

    pub(crate) fn next_superblock(&mut self) -> Superblock {
        self.superblock.sequence += 1;
        self.superblock.clone()
    }

    /// Up to where frames may be written now.
    fn writable_to(&self) -> Position {
        let to = self.barrier.unwrap_or(self.end);
        if planted::has(Bug::LateZeros) {
            return to;
        }
        // What is being zero-filled must not hold a frame before it is through.
        let Some(from) = self.extending.filter(|from| to.offset > *from) else { return to };
        let filled = self.chunks.boundary(|position| position.offset <= from);
        filled.filter(|found| found.offset >= self.written.offset).unwrap_or(self.written)
    }

    /// The frames up to `to`, by segment.
    fn pieces(&mut self, to: Offset) -> Vec<Piece> {
        let layout = self.shared.layout;
        let mut pieces = Vec::new();
        let mut from = self.written.offset;
        while from < to {
            let base = layout.base(from);
            let end = to.min(layout.end(from));
            let content = self.tail.iter().find(|content| content.base == base);
            let content = content.expect("a segment that is being written is in the tail");
            let fill_to = if end > self.filled { self.fill_to(end) } else { end };
            self.filled = self.filled.max(fill_to);
            let first = content.marks.partition_point(|mark| mark.offset < from);
            let last = content.marks.partition_point(|mark| mark.offset < end);
            pieces.push(Piece {
                base,
                before: content.before,
                from,
                to: end,
                parts: self.chunks.frozen(from, end),
                fill_to,
                marks: content.marks[first..last].to_vec(),
                full: (end == layout.end(from)).then(|| content.clone()),
            });
            from = end;
        }
        pieces
    }

    /// Up to where a write that outgrows the zero-filled space fills it: the next small step.
    fn fill_to(&self, end: Offset) -> Offset {
        let step = Offset(end.0.next_multiple_of(AHEAD_BYTES.0));
        step.min(Offset(self.base(Offset(end.0 - 1)).0 + self.shared.layout.segment_bytes()))
    }

    /// Tells what came of a write: [`Log::written_to`] moves, and [`Log::durable`] with it if it
    /// was synced, and the next one may be asked for.
    ///
    /// # Errors
    /// Anything but a full disk: the node has to stop. The log gives out no further write.
    ///
    /// # Panics
    /// If none is under way: a bug of the caller.
    pub fn written(&mut self, done: Written) -> Result<(), Fault> {
        let flight = self.flight.take().expect("a write is under way");
        if let Err(failure) = done.outcome {
            return self.unwritten(flight, failure);
        }
        self.barrier = self.barrier.filter(|barrier| barrier.offset > flight.to.offset);
        self.starved &= flight.to.offset <= flight.filled;
        if let Some(superblock) = flight.superblock {
            self.start = superblock.start;
            let gone = self.terms.partition_point(|(first, _)| *first <= self.start.index);
            self.terms.drain(..gone.saturating_sub(1));
        }
        self.written = match self.cut {
            Some(cut) if cut.offset < flight.to.offset => cut,
            _ => flight.to,
        };
        if flight.when == When::Now {
            self.durable = self.written;
            self.shared.set_durable(self.durable.offset);
        }
        if let (Some(cut), None) = (flight.cut, self.cut) {
            self.dirty = flight.to.offset.max(cut.offset);
        }
        self.shared.set_readable(self.written.offset);
        let sealed = |end: Offset| end <= self.durable.offset;
        while let Some(content) = self.tail.front()
            && content.seal.is_some_and(|seal| sealed(seal.offset))
        {
            self.tail.pop_front();
        }
        Ok(())
    }

    fn unwritten(&mut self, flight: Flight, failure: Failure) -> Result<(), Fault> {
        if let Failure::Fault(fault) = failure {
            self.faulted = true;
            return Err(fault);
        }
        self.full = true;
        // There were no frames in it: it was the superblock that found no room.
        self.stuck = flight.to.offset <= self.written.offset;
        self.superblock_dirty |= flight.superblock.is_some();
        self.filled = self.filled.min(flight.filled);
        // What was staged meanwhile carries marks that say that this much is durable.
        let reach = match self.cut {
            Some(cut) if cut.offset < flight.to.offset => cut,
            _ => flight.to,
        };
        self.barrier = (reach.offset > self.durable.offset).then_some(reach);
        // What was cut meanwhile is cut together with what this write was to cut.
        self.cut = match (self.cut, flight.cut) {
            (Some(new), Some(old)) if old.offset < new.offset => Some(old),
            (new, old) => new.or(old),
        };
        Ok(())
    }

    /// The zero-filling that is wanted now, for a background thread. `None` before the first frame,
    /// while there is enough ahead, while one is under way, while writes are long and while the
    /// disk is full.
    pub fn extend(&mut self) -> Option<Extend> {
        // A cut takes files away and leaves old frames in place until it has run.
        let cutting =
            self.cut.or_else(|| self.flight.as_ref().and_then(|flight| flight.cut)).is_some();
        let long = self.pace_bytes >= LONG_BYTES;
        let stopped = self.full || self.starved || self.faulted;
        let blocked = self.extending.is_some() || stopped || cutting || long;
        let end = self.end.offset;
        if blocked || self.end.index.0 == 0 || end > self.filled {
            return None;
        }
        let log_bytes = end.0 - Offset::FIRST.0;
        let step = log_bytes.next_power_of_two().clamp(AHEAD_BYTES.0, AHEAD_BYTES.1);
        let layout = self.shared.layout;
        let step = step.min(layout.segment_bytes() / 2);
        if (self.filled.0 - end.0) * 2 >= step {
            return None;
        }
        let to = Offset((end.0 + step).next_multiple_of(AHEAD_BYTES.0));
        let to = to.min(layout.end(self.filled));
        let from = std::mem::replace(&mut self.filled, to);
        self.extending = Some(from);
        Some(Extend { shared: Arc::clone(&self.shared), from, to })
    }

    /// Tells what came of an extension.
    ///
    /// # Errors
    /// Anything but a full disk: the node has to stop.
    pub fn extended(&mut self, done: Extended) -> Result<(), Fault> {
        self.extending = None;
        let Err(failure) = done.outcome else { return Ok(()) };
        self.filled = self.filled.min(done.to);
        // A full disk is no emergency: a write that outgrows the space finds out for itself.
        self.starved = matches!(failure, Failure::Full);
        match failure {
            Failure::Full => Ok(()),
            Failure::Fault(fault) => {
                self.faulted = true;
                Err(fault)
            }
        }
    }
}
