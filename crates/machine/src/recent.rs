//! Recent writes: what `unchanged` conditions look back on.
//!
//! ```text
//! run: entry, entry, …
//! entry: from | to | commit u64 | tree u32 | from length u16 | to length u16 | kind u8
//! ```
//! A write appends its key and the fixed trailer, from which runs are walked backwards, newest
//! write first; a delete-range appends its range. The window is the last
//! [`RECENT_WRITES_LOG_BYTES`] of log, so what can be asked is a function of the log alone; how
//! entries are cut into runs is not, and is not seen. Each rotation writes the runs that came since
//! the last one as rows and removes those that fell out of the window.

use crate::rows::Damaged;
use crate::tables::TreeId;
use naust_wire::Offset;
use naust_wire::limits::{KEY_BYTES_MAX, RECENT_WRITES_LOG_BYTES};
use std::collections::VecDeque;

const TRAILER_BYTES: usize = 17;
/// A run is closed when it has this many bytes.
const RUN_BYTES: usize = 256 * 1024;
/// The bits of an entry's kind: a range, and one that has an end.
const RANGE: u8 = 1;
const BOUNDED: u8 = 2;

const _: () = assert!(KEY_BYTES_MAX <= u16::MAX as usize);

/// What was written: a key, or (`to` being a range's end) a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Write<'a> {
    pub(crate) commit: Offset,
    pub(crate) tree: TreeId,
    pub(crate) from: &'a [u8],
    pub(crate) extent: Extent<'a>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extent<'a> {
    /// One key.
    Key,
    /// Keys below this one.
    To(&'a [u8]),
    /// All keys from there on.
    End,
}

impl Write<'_> {
    /// Some key in `from` (inclusive) to `to` (exclusive) was written.
    fn touches(&self, from: &[u8], to: Option<&[u8]>) -> bool {
        if to.is_some_and(|to| self.from >= to) {
            return false;
        }
        match self.extent {
            Extent::Key => self.from >= from,
            Extent::To(end) => end > from,
            Extent::End => true,
        }
    }
}

#[derive(Clone, Debug, Default)]
struct Run {
    number: u64,
    /// The newest commit in it.
    last: Offset,
    bytes: Vec<u8>,
}

/// The window. Invariant: every write at or above `floor` is in it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Recent {
    /// Oldest first; the last one is open.
    runs: VecDeque<Run>,
    next_number: u64,
    /// Runs from this number on are not in the shard tree.
    unwritten_from: u64,
    /// Runs from this number on, up to the first one here, are in the shard tree but no longer in
    /// the window.
    dropped_from: u64,
}

/// The answer to a look back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    Nothing,
    /// The newest write in the range.
    Write(Offset),
    /// The budget of comparisons was used up.
    TooMany,
}

impl Recent {
    /// `unchanged` conditions at a commit can look back to this offset.
    pub(crate) fn floor(commit: Offset) -> Offset {
        let floor = Offset(commit.0.saturating_sub(RECENT_WRITES_LOG_BYTES));
        // The window reaches back to the beginning: every write is in it.
        if floor <= Offset::FIRST { Offset::ZERO } else { floor }
    }

    pub(crate) fn push(&mut self, write: &Write<'_>) {
        if self.runs.back().is_none_or(|run| run.bytes.len() >= RUN_BYTES) {
            self.open();
        }
        let run = self.runs.back_mut().expect("a run was opened if there was none");
        run.last = write.commit;
        let (to, kind): (&[u8], u8) = match write.extent {
            Extent::Key => (&[], 0),
            Extent::To(to) => (to, RANGE | BOUNDED),
            Extent::End => (&[], RANGE),
        };
        let mut trailer = [0u8; TRAILER_BYTES];
        trailer[..8].copy_from_slice(&write.commit.0.to_le_bytes());
        trailer[8..12].copy_from_slice(&write.tree.0.to_le_bytes());
        trailer[12..14].copy_from_slice(&(write.from.len() as u16).to_le_bytes());
        trailer[14..16].copy_from_slice(&(to.len() as u16).to_le_bytes());
        trailer[16] = kind;
        run.bytes.extend_from_slice(write.from);
        run.bytes.extend_from_slice(to);
        run.bytes.extend_from_slice(&trailer);
    }

    fn open(&mut self) {
        let bytes = Vec::with_capacity(if self.runs.is_empty() { 0 } else { RUN_BYTES + 4096 });
        self.runs.push_back(Run { number: self.next_number, last: Offset::ZERO, bytes });
        self.next_number += 1;
    }

    /// Drops the runs that lie below `floor` whole.
    pub(crate) fn trim(&mut self, floor: Offset) {
        while self.runs.front().is_some_and(|run| run.last < floor) {
            self.runs.pop_front();
        }
    }

    /// Looks for the newest write in a range after `since`, which must not be below the floor.
    /// `steps` is the budget of comparisons that is left.
    pub(crate) fn find(
        &self,
        tree: TreeId,
        range: (&[u8], Option<&[u8]>),
        since: Offset,
        steps: &mut usize,
    ) -> Found {
        for run in self.runs.iter().rev() {
            let mut bytes = &run.bytes[..];
            while let Some((write, before)) = last_of(bytes) {
                if write.commit <= since {
                    return Found::Nothing;
                }
                if *steps == 0 {
                    return Found::TooMany;
                }
                *steps -= 1;
                if write.tree == tree && write.touches(range.0, range.1) {
                    return Found::Write(write.commit);
                }
                bytes = before;
            }
        }
        Found::Nothing
    }

    /// For a rotation: the rows to write, and then the numbers of the rows to remove.
    pub(crate) fn rotate(&mut self) -> (Vec<(u64, &[u8])>, std::ops::Range<u64>) {
        let first = self.runs.front().map_or(self.next_number, |run| run.number);
        let unwritten_from = self.unwritten_from;
        let dropped = self.dropped_from..first.min(unwritten_from).max(self.dropped_from);
        self.dropped_from = first;
        if self.runs.back().is_none_or(|run| !run.bytes.is_empty()) {
            self.open();
        }
        self.unwritten_from = self.next_number - 1;
        let written = unwritten_from..self.unwritten_from;
        let rows = self.runs.iter().filter(|run| written.contains(&run.number));
        (rows.map(|run| (run.number, &run.bytes[..])).collect(), dropped)
    }

    /// Takes a row back at opening; rows come in the order of their numbers.
    pub(crate) fn load(&mut self, number: u64, bytes: &[u8]) -> Result<(), Damaged> {
        let mut rest = bytes;
        while !rest.is_empty() {
            rest = last_of(rest).ok_or(Damaged("recent writes"))?.1;
        }
        let last = last_of(bytes).map_or(Offset::ZERO, |(write, _)| write.commit);
        // The run after it is opened at once, and has a number, too.
        let next = number.checked_add(1).filter(|next| *next < u64::MAX);
        let next = next.ok_or(Damaged("recent writes"))?;
        if self.runs.is_empty() {
            self.dropped_from = number;
        }
        self.runs.push_back(Run { number, last, bytes: bytes.to_vec() });
        self.next_number = next;
        self.unwritten_from = next;
        Ok(())
    }

    /// After all rows were loaded: what comes now goes into a run of its own.
    pub(crate) fn loaded(&mut self) {
        self.open();
    }

    /// Bytes of the runs that the next rotation writes.
    pub(crate) fn unwritten_bytes(&self) -> u64 {
        let runs = self.runs.iter().rev().take_while(|run| run.number >= self.unwritten_from);
        runs.map(|run| run.bytes.len() as u64).sum()
    }

    /// All writes at or above `floor`, newest first.
    pub(crate) fn visit(&self, floor: Offset, mut visit: impl FnMut(&Write<'_>)) {
        for run in self.runs.iter().rev() {
            let mut bytes = &run.bytes[..];
            while let Some((write, before)) = last_of(bytes) {
                if write.commit < floor {
                    return;
                }
                visit(&write);
                bytes = before;
            }
        }
    }
}

/// The last entry of a run, and the run before it.
fn last_of(bytes: &[u8]) -> Option<(Write<'_>, &[u8])> {
    let (rest, trailer) = bytes.split_last_chunk::<TRAILER_BYTES>()?;
    let [c0, c1, c2, c3, c4, c5, c6, c7, t0, t1, t2, t3, f0, f1, e0, e1, kind] = *trailer;
    let (from_bytes, to_bytes) = (u16::from_le_bytes([f0, f1]), u16::from_le_bytes([e0, e1]));
    let (rest, to) = rest.split_at(rest.len().checked_sub(usize::from(to_bytes))?);
    let (rest, from) = rest.split_at(rest.len().checked_sub(usize::from(from_bytes))?);
    let extent = match kind {
        0 => Extent::Key,
        RANGE => Extent::End,
        _ => Extent::To(to),
    };
    let commit = Offset(u64::from_le_bytes([c0, c1, c2, c3, c4, c5, c6, c7]));
    let tree = TreeId(u32::from_le_bytes([t0, t1, t2, t3]));
    Some((Write { commit, tree, from, extent }, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key(commit: u64, tree: u32, from: &[u8]) -> Write<'_> {
        Write { commit: Offset(commit), tree: TreeId(tree), from, extent: Extent::Key }
    }

    #[test]
    fn the_newest_write_in_the_range_is_found_and_nothing_else() {
        let mut recent = Recent::default();
        recent.push(&key(10, 1, b"a"));
        recent.push(&key(20, 1, b"b"));
        recent.push(&key(30, 2, b"a"));
        let extent = Extent::To(b"p");
        recent.push(&Write { commit: Offset(40), tree: TreeId(1), from: b"m", extent });
        let find = |tree, from: &[u8], to: Option<&[u8]>, since| {
            recent.find(TreeId(tree), (from, to), Offset(since), &mut 100)
        };
        assert_eq!(find(1, b"a", Some(b"c"), 5), Found::Write(Offset(20)));
        assert_eq!(find(1, b"a", Some(b"b"), 5), Found::Write(Offset(10)));
        assert_eq!(find(1, b"a", Some(b"b"), 10), Found::Nothing);
        assert_eq!(find(1, b"n", Some(b"o"), 30), Found::Write(Offset(40)));
        assert_eq!(find(1, b"p", None, 30), Found::Nothing);
        assert_eq!(find(1, b"", Some(b"m"), 20), Found::Nothing);
        assert_eq!(find(3, b"", None, 5), Found::Nothing);
        assert_eq!(recent.find(TreeId(3), (b"", None), Offset(5), &mut 2), Found::TooMany);
    }

    proptest! {
        /// Rows written at rotations and removed when they fall out give back the window, wherever
        /// rotations fall.
        #[test]
        fn the_window_survives(
            writes in proptest::collection::vec(
                (1u64..50_000, 0u8..4, 1usize..300_000, any::<bool>()),
                1..60,
            )
        ) {
            let (mut recent, mut rows) = (Recent::default(), std::collections::BTreeMap::new());
            let (mut commit, mut all) = (1u64 << 40, Vec::new());
            for (step, byte, length, rotate) in writes {
                commit += step * 100;
                let bytes = vec![byte; length % 32_768 + 1];
                recent.push(&key(commit, 1, &bytes));
                all.push((commit, bytes));
                recent.trim(Recent::floor(Offset(commit)));
                if rotate {
                    let (new, dropped) = recent.rotate();
                    for (number, bytes) in new {
                        prop_assert!(rows.insert(number, bytes.to_vec()).is_none());
                    }
                    for number in dropped {
                        rows.remove(&number);
                    }
                    let mut again = Recent::default();
                    for (number, bytes) in &rows {
                        again.load(*number, bytes).unwrap();
                    }
                    again.loaded();
                    let floor = Recent::floor(Offset(commit));
                    let expected: Vec<u64> =
                        all.iter().rev().map(|w| w.0).take_while(|c| Offset(*c) >= floor).collect();
                    for recent in [&recent, &again] {
                        let mut seen = Vec::new();
                        recent.visit(floor, |write| seen.push(write.commit.0));
                        prop_assert_eq!(&seen, &expected);
                    }
                    recent = again;
                }
            }
        }

        #[test]
        fn any_bytes_are_answered(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = Recent::default().load(1, &bytes);
        }
    }
}
