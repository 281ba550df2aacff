//! The keyspaces of a shard: names, options, floors, and for FIFO ones what their floors follow
//! from.

use crate::history::TimePoints;
use crate::rows::{Damaged, Fields, put_bytes, put_u32, put_u64};
use crate::tables::{Mark, TreeId};
use naust_wire::limits::KEYSPACES_PER_NAMESPACE_MAX;
use naust_wire::options::{Compaction, Compression, KeyspaceOptions};
use naust_wire::{LogTime, Offset};
use rustc_hash::FxHashMap;
use std::collections::VecDeque;

/// Points of size that a FIFO keyspace remembers: its floor moves in steps of about its limit by a
/// quarter of this.
const SIZE_POINTS_MAX: usize = 1_024;

/// A limit's part that may be passed before a floor is proposed.
pub(crate) const FLOOR_SLACK: u64 = 16;

/// A keyspace.
#[derive(Clone, Debug)]
pub(crate) struct Keyspace {
    pub(crate) tree: TreeId,
    pub(crate) name: Box<str>,
    pub(crate) options: KeyspaceOptions,
    /// FIFO: rows below count as absent.
    pub(crate) floor: Offset,
    size: Size,
    dirty: bool,
}

/// Bytes of keys and values that were put into a FIFO keyspace.
#[derive(Clone, Debug, Default)]
struct Size {
    /// Ever.
    put: u64,
    /// Commits and what was put before each of them, ascending.
    points: VecDeque<(Offset, u64)>,
    /// The last commit that put something, and what was put before it.
    last: (Offset, u64),
}

impl Size {
    fn put(&mut self, commit: Offset, bytes: u64, max_bytes: u64) {
        if self.last.0 != commit {
            self.last = (commit, self.put);
            let step = (max_bytes / (SIZE_POINTS_MAX as u64 / 4)).max(1);
            if self.points.back().is_none_or(|(_, before)| self.put - before >= step) {
                self.points.push_back(self.last);
            }
        }
        self.put += bytes;
        if self.points.len() >= SIZE_POINTS_MAX {
            let mut place = 0;
            self.points.retain(|_| {
                place += 1;
                place > SIZE_POINTS_MAX / 2 || place % 2 == 1
            });
        }
    }

    fn floor(&self, max_bytes: u64) -> Offset {
        let excess = self.put.saturating_sub(max_bytes);
        if excess == 0 {
            return Offset::ZERO;
        }
        let at = self.points.partition_point(|(_, before)| *before < excess);
        self.points.get(at).map_or(self.last.0, |(commit, _)| *commit)
    }

    fn trim(&mut self, floor: Offset) {
        while self.points.front().is_some_and(|(commit, _)| *commit < floor) {
            self.points.pop_front();
        }
    }
}

impl Keyspace {
    fn new(tree: TreeId, name: &str, options: KeyspaceOptions) -> Keyspace {
        let (floor, size) = (Offset::ZERO, Size::default());
        Keyspace { tree, name: name.into(), options, floor, size, dirty: false }
    }

    /// Where its floor should be by age and size, if what lies below it there is worth an entry: a
    /// sixteenth of a limit.
    pub(crate) fn floor_due(
        &self,
        points: &TimePoints,
        mark: &Mark,
        now: LogTime,
    ) -> Option<Offset> {
        let KeyspaceOptions { compaction: Compaction::Fifo, max_bytes, max_age_ms, .. } =
            self.options
        else {
            return None;
        };
        let (mut floor, mut due) = (Offset::ZERO, Offset::ZERO);
        if max_bytes != 0 {
            floor = self.size.floor(max_bytes);
            due = self.size.floor(max_bytes.saturating_add(max_bytes / FLOOR_SLACK));
        }
        if max_age_ms != 0 {
            let older = |age: u64| match now.0.checked_sub(age).map(LogTime) {
                None => Offset::ZERO,
                // Everything is: the last frame, too.
                Some(time) if mark.time < time => mark.next,
                Some(time) => points.older_than(time),
            };
            floor = floor.max(older(max_age_ms));
            due = due.max(older(max_age_ms.saturating_add(max_age_ms / FLOOR_SLACK)));
        }
        (due > self.floor && self.has_rows()).then_some(floor)
    }

    /// Something was put at or above the floor: something could go.
    fn has_rows(&self) -> bool {
        self.size.put > 0 && self.size.last.0 >= self.floor
    }

    /// Rows of it will expire though nothing happens any more.
    pub(crate) fn ages(&self) -> bool {
        let fifo = self.options.compaction == Compaction::Fifo;
        fifo && self.options.max_age_ms != 0 && self.has_rows()
    }

    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        put_bytes(out, self.name.as_bytes());
        out.push(self.options.compaction as u8);
        out.push(self.options.compression as u8);
        put_u64(out, self.options.max_bytes);
        put_u64(out, self.options.max_age_ms);
        put_u64(out, self.floor.0);
        put_u64(out, self.size.put);
        put_u64(out, self.size.last.0.0);
        put_u64(out, self.size.last.1);
        put_u32(out, self.size.points.len() as u32);
        for (commit, before) in &self.size.points {
            put_u64(out, commit.0);
            put_u64(out, *before);
        }
    }

    fn read(tree: TreeId, value: &[u8]) -> Result<Keyspace, Damaged> {
        let mut fields = Fields::new(value, "keyspace");
        let name = fields.text()?;
        let compaction = match fields.u8()? {
            0 => Compaction::Levelled,
            1 => Compaction::WriteOptimised,
            2 => Compaction::Fifo,
            _ => return Err(fields.damaged()),
        };
        let compression = match fields.u8()? {
            0 => Compression::None,
            1 => Compression::Lz4,
            _ => return Err(fields.damaged()),
        };
        let (max_bytes, max_age_ms) = (fields.u64()?, fields.u64()?);
        let options = KeyspaceOptions { compaction, compression, max_bytes, max_age_ms };
        let mut keyspace = Keyspace::new(tree, name, options);
        keyspace.floor = fields.offset()?;
        keyspace.size.put = fields.u64()?;
        keyspace.size.last = (fields.offset()?, fields.u64()?);
        for _ in 0..fields.u32()? {
            keyspace.size.points.push_back((fields.offset()?, fields.u64()?));
        }
        fields.end()?;
        Ok(keyspace)
    }
}

/// All keyspaces. Invariant: the keyspace of tree *n* is number *n − 1* of the list.
#[derive(Debug, Default)]
pub(crate) struct Keyspaces {
    names: FxHashMap<Box<str>, TreeId>,
    list: Vec<Keyspace>,
    dirty: Vec<TreeId>,
}

impl Keyspaces {
    pub(crate) fn find(&self, name: &str) -> Option<TreeId> {
        self.names.get(name).copied()
    }

    /// The tree that the next keyspace but `more` gets; `None`: there are as many as there may be.
    pub(crate) fn next_tree(&self, more: usize) -> Option<TreeId> {
        let number = self.list.len() + more;
        (number < KEYSPACES_PER_NAMESPACE_MAX).then_some(TreeId(number as u32 + 1))
    }

    pub(crate) fn get(&self, tree: TreeId) -> &Keyspace {
        &self.list[tree.0 as usize - 1]
    }

    /// Like `get`, or `None` for a keyspace that is only about to be made.
    pub(crate) fn known(&self, tree: TreeId) -> Option<&Keyspace> {
        self.list.get(tree.0 as usize - 1)
    }

    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = &Keyspace> {
        self.list.iter()
    }

    /// Makes the keyspace whose tree `next_tree(0)` names.
    pub(crate) fn add(&mut self, name: &str, options: KeyspaceOptions) -> TreeId {
        let tree = TreeId(self.list.len() as u32 + 1);
        self.names.insert(name.into(), tree);
        self.list.push(Keyspace::new(tree, name, options));
        self.mark_dirty(tree);
        tree
    }

    pub(crate) fn set_options(&mut self, tree: TreeId, options: KeyspaceOptions) {
        self.list[tree.0 as usize - 1].options = options;
        self.mark_dirty(tree);
    }

    /// Moves a floor up; `false`: it was there already.
    pub(crate) fn set_floor(&mut self, tree: TreeId, floor: Offset) -> bool {
        let keyspace = &mut self.list[tree.0 as usize - 1];
        if floor <= keyspace.floor {
            return false;
        }
        keyspace.floor = floor;
        keyspace.size.trim(floor);
        self.mark_dirty(tree);
        true
    }

    /// A row was put, or a deletion.
    pub(crate) fn put(&mut self, tree: TreeId, commit: Offset, bytes: usize) {
        let keyspace = &mut self.list[tree.0 as usize - 1];
        if keyspace.options.compaction != Compaction::Fifo {
            return;
        }
        keyspace.size.put(commit, bytes as u64, keyspace.options.max_bytes);
        self.mark_dirty(tree);
    }

    fn mark_dirty(&mut self, tree: TreeId) {
        let keyspace = &mut self.list[tree.0 as usize - 1];
        if !keyspace.dirty {
            keyspace.dirty = true;
            self.dirty.push(tree);
        }
    }

    /// For a rotation: hands over the rows to write. After this nothing is dirty.
    pub(crate) fn rotate<E>(
        &mut self,
        mut write: impl FnMut(TreeId, &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut value = Vec::new();
        for tree in self.dirty.drain(..) {
            let keyspace = &mut self.list[tree.0 as usize - 1];
            keyspace.dirty = false;
            value.clear();
            keyspace.write(&mut value);
            write(tree, &value)?;
        }
        Ok(())
    }

    /// Takes a row back at opening; rows come in the order of their trees.
    pub(crate) fn load(&mut self, tree: TreeId, value: &[u8]) -> Result<(), Damaged> {
        if tree.0 as usize != self.list.len() + 1 {
            return Err(Damaged("keyspace"));
        }
        let keyspace = Keyspace::read(tree, value)?;
        self.names.insert(keyspace.name.clone(), tree);
        self.list.push(keyspace);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fifo(max_bytes: u64, max_age_ms: u64) -> KeyspaceOptions {
        let compaction = Compaction::Fifo;
        KeyspaceOptions { compaction, max_bytes, max_age_ms, ..KeyspaceOptions::default() }
    }

    #[test]
    fn a_floor_by_size_keeps_what_the_limit_allows_and_little_more() {
        let mut keyspaces = Keyspaces::default();
        let tree = keyspaces.add("events", fifo(100_000, 0));
        let points = TimePoints::default();
        for i in 0..20_000u64 {
            keyspaces.put(tree, Offset(1000 + i), 60);
            keyspaces.put(tree, Offset(1000 + i), 40);
            let due = keyspaces.get(tree).floor_due(&points, &Mark::default(), LogTime(0));
            if let Some(floor) = due {
                let kept = (1000 + i + 1 - floor.0) * 100;
                assert!((99_000..=100_000).contains(&kept), "{kept} bytes are kept");
                keyspaces.set_floor(tree, floor);
            }
            let kept = 1000 + i + 1 - keyspaces.get(tree).floor.0.max(1000);
            assert!(kept * 100 <= 108_000, "{kept} rows are kept");
        }
        assert!(keyspaces.get(tree).size.points.len() < 300);
    }

    #[test]
    fn points_stay_bounded_when_no_leader_moves_the_floor() {
        let mut keyspaces = Keyspaces::default();
        let tree = keyspaces.add("events", fifo(1000, 0));
        for i in 0..20_000u64 {
            keyspaces.put(tree, Offset(1000 + i), 100);
            assert!(keyspaces.get(tree).size.points.len() < SIZE_POINTS_MAX);
        }
    }

    #[test]
    fn rows_bring_everything_back() {
        let mut keyspaces = Keyspaces::default();
        keyspaces.add("plain", KeyspaceOptions::default());
        let tree = keyspaces.add("events", fifo(500, 7));
        keyspaces.put(tree, Offset(1000), 600);
        keyspaces.put(tree, Offset(1001), 600);
        keyspaces.set_floor(tree, Offset(1001));
        let mut rows = Vec::new();
        let write = |tree, value: &[u8]| {
            rows.push((tree, value.to_vec()));
            Ok::<(), ()>(())
        };
        keyspaces.rotate(write).unwrap();
        let mut loaded = Keyspaces::default();
        for (tree, value) in &rows {
            loaded.load(*tree, value).unwrap();
            assert!(Keyspace::read(*tree, &value[..value.len() - 1]).is_err());
        }
        for (a, b) in keyspaces.iter().zip(loaded.iter()) {
            assert_eq!(format!("{a:?}"), format!("{b:?}"));
        }
        assert_eq!(loaded.find("events"), Some(tree));
    }
}
