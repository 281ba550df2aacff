//! What is on disk and what is not: when memtables rotate, what is written then, and from where a
//! log has to be kept.
//!
//! ```text
//!  commits  ──●──●────●──●──●──────●───►        a tree's first row that is not on disk
//!             first   │     mark    first         pins the log
//!  units    [ sealed, being flushed ][ open      P(tree) ≥ mark: a unit is on disk
//! ```
//! A tree without such rows pins nothing, however old its mark. What each tree lacks is written
//! with every rotation (the row *unpersisted*), so a reopened machine knows from where to replay,
//! and which tree lacks what.

use crate::machine::Machine;
use crate::rows::{Damaged, Fields, Key, put_u32, put_u64};
use crate::tables::{Fault, Mark, Tables, TablesJob, TreeId};
use naust_wire::Offset;
use naust_wire::limits::ROTATIONS_UNFLUSHED_MAX;
use naust_wire::planted::{self, Bug};
use std::collections::VecDeque;

/// Rows of one tree that are not on disk. Units are sealed oldest first.
#[derive(Clone, Debug, Default)]
struct Lack {
    /// Sealed units: the first row in each, and the mark that will end it.
    sealed: VecDeque<(Offset, Offset)>,
    /// The first row since.
    open: Option<Offset>,
}

impl Lack {
    fn first(&self) -> Option<Offset> {
        self.sealed.front().map(|(first, _)| *first).or(self.open)
    }
}

/// What is not on disk. Invariant: tree *n* is number *n* of `trees` (number 0, the shard tree,
/// stays empty).
#[derive(Debug, Default)]
pub(crate) struct Rotation {
    trees: Vec<Lack>,
    /// Units whose shard tree is not on disk.
    units: VecDeque<Unit>,
    /// Where the last rotation stood, and where the frame behind it begins, if there was one since
    /// the machine was opened.
    rotated: Offset,
    rotated_to: Offset,
    /// Somebody asked for a rotation.
    wanted: bool,
    pub(crate) configuration_dirty: bool,
    /// The shard was closed since then.
    pub(crate) closed_dirty: bool,
    /// Commits that did nothing, since the last rotation.
    pub(crate) skipped: Vec<Offset>,
    /// Rows of such commits in the shard tree, by their last one, oldest first.
    skipped_rows: VecDeque<Offset>,
    /// Rows of ends of delete-ranges in the shard tree, oldest first.
    pub(crate) range_ends: VecDeque<(Offset, u16)>,
    /// Retention floors that moved since the last rotation.
    pub(crate) floors_moved: Vec<(TreeId, Offset)>,
}

/// A rotation under way, with the floors that it writes. The tables are told of a floor only once
/// it is on disk: what they drop by it must be below the floor in every life after this one, too.
#[derive(Debug)]
struct Unit {
    mark: Offset,
    history_floor: Offset,
    retention_floors: Vec<(TreeId, Offset)>,
}

impl Rotation {
    pub(crate) fn add_tree(&mut self, tree: TreeId) {
        let trees = (tree.0 as usize + 1).max(self.trees.len());
        self.trees.resize(trees, Lack::default());
    }

    /// A row was put.
    pub(crate) fn touch(&mut self, tree: TreeId, at: Offset) {
        let open = &mut self.trees[tree.0 as usize].open;
        if open.is_none() {
            *open = Some(at);
        }
    }

    /// Trees with rows that no rotation has sealed.
    pub(crate) fn open_trees(&self) -> impl Iterator<Item = TreeId> {
        let trees = self.trees.iter().enumerate();
        trees.filter(|(_, lack)| lack.open.is_some()).map(|(number, _)| TreeId(number as u32))
    }

    /// At opening: everything up to here is on disk or listed.
    pub(crate) fn resume(&mut self, mark: Mark, skipped_rows: VecDeque<Offset>) {
        self.rotated = mark.applied;
        self.skipped_rows = skipped_rows;
    }

    fn unpersisted(&self, rotating: &[TreeId], mark: Mark) -> Vec<u8> {
        let (mut list, mut count) = (Vec::new(), 0);
        for (number, lack) in self.trees.iter().enumerate() {
            let tree = TreeId(number as u32);
            let ends = if rotating.contains(&tree) { mark.applied } else { Offset::MAX };
            // What earlier units sealed will be on disk before this row is: units keep their order.
            if let Some(first) = lack.open {
                put_u32(&mut list, tree.0);
                put_u64(&mut list, first.0);
                put_u64(&mut list, ends.0);
                count += 1;
            }
        }
        let mut row = Vec::with_capacity(list.len() + 4);
        put_u32(&mut row, count);
        row.extend_from_slice(&list);
        row
    }

    fn seal(&mut self, rotating: &[TreeId], mark: Mark, history_floor: Offset) {
        for tree in rotating {
            if let Some(lack) = self.trees.get_mut(tree.0 as usize) {
                lack.sealed.extend(lack.open.take().map(|first| (first, mark.applied)));
            }
        }
        let retention_floors = std::mem::take(&mut self.floors_moved);
        self.units.push_back(Unit { mark: mark.applied, history_floor, retention_floors });
        self.rotated = mark.applied;
        self.rotated_to = mark.next;
        self.wanted = false;
    }

    fn is_stuck(&self) -> bool {
        self.units.len() >= ROTATIONS_UNFLUSHED_MAX
            || self.trees.iter().any(|lack| lack.sealed.len() >= ROTATIONS_UNFLUSHED_MAX)
    }
}

/// Reads the row *unpersisted*: tree, first row, the mark that ends the unit.
pub(crate) fn read_unpersisted(value: &[u8]) -> Result<Vec<(TreeId, Offset, Offset)>, Damaged> {
    let mut fields = Fields::new(value, "unpersisted");
    let mut list = Vec::new();
    for _ in 0..fields.u32()? {
        list.push((TreeId(fields.u32()?), fields.offset()?, fields.offset()?));
    }
    fields.end()?;
    Ok(list)
}

impl<T: Tables> Machine<T> {
    /// Rotates memtables when it is time, and hands out the next piece of background work. To be
    /// called after each batch of frames, until there is no work.
    ///
    /// # Errors
    /// [`Fault`].
    pub fn maintain(&mut self) -> Result<Option<T::Job>, Fault> {
        self.rotate_if_due()?;
        Ok(self.job())
    }

    /// The first half of [`Machine::maintain`]: rotates memtables when it is time.
    ///
    /// # Errors
    /// [`Fault`].
    pub fn rotate_if_due(&mut self) -> Result<(), Fault> {
        self.see_marks();
        match self.due() {
            Some(trees) => self.rotate(&trees)?,
            None if !self.rotation.is_stuck() => self.rotation.wanted = false,
            None => {}
        }
        Ok(())
    }

    /// The second half: the next piece of background work. It makes nothing durable that lies
    /// behind [`Machine::rotated_to`] when it is handed out.
    pub fn job(&mut self) -> Option<T::Job> {
        self.tables.job()
    }

    /// Where the last frame ends that a rotation took in since the machine was opened.
    #[must_use]
    pub fn rotated_to(&self) -> Offset {
        self.rotation.rotated_to
    }

    /// Whether [`Machine::maintain`] would rotate memtables now.
    #[must_use]
    pub fn is_due(&self) -> bool {
        self.due().is_some()
    }

    /// A piece of background work ended.
    ///
    /// # Errors
    /// [`Fault`]: its own.
    pub fn done(&mut self, done: <T::Job as TablesJob>::Done) -> Result<(), Fault> {
        self.tables.done(done)?;
        self.see_marks();
        Ok(())
    }

    /// Asks for a rotation of everything as soon as one is possible.
    pub fn flush(&mut self) {
        self.rotation.wanted = true;
    }

    /// Everything that was folded in is on disk.
    #[must_use]
    pub fn is_flushed(&self) -> bool {
        self.persisted() >= self.state.mark.next
    }

    /// The log below is needed by no table.
    #[must_use]
    pub fn persisted(&self) -> Offset {
        let shard = self.tables.mark(TreeId::SHARD).next.max(Offset::FIRST);
        let lacks = self.rotation.trees.iter().filter_map(Lack::first);
        lacks.min().map_or(shard, |first| first.min(shard))
    }

    /// Forgets what has reached the disk.
    fn see_marks(&mut self) {
        let Machine { tables, rotation, .. } = self;
        let shard = tables.mark(TreeId::SHARD).applied;
        while let Some(unit) = rotation.units.pop_front_if(|unit| unit.mark <= shard) {
            let ahead = planted::has(Bug::FloorAhead);
            tables.set_history_floor(if ahead { unit.mark } else { unit.history_floor });
            for (tree, floor) in unit.retention_floors {
                tables.set_retention_floor(tree, floor);
            }
        }
        for (number, lack) in rotation.trees.iter_mut().enumerate() {
            if lack.sealed.is_empty() {
                continue;
            }
            let mark = tables.mark(TreeId(number as u32)).applied;
            while lack.sealed.front().is_some_and(|(_, end)| *end <= mark) {
                lack.sealed.pop_front();
            }
        }
    }

    /// The trees to rotate now, if it is time.
    fn due(&self) -> Option<Vec<TreeId>> {
        let rotation = &self.rotation;
        let Mark { applied, next, .. } = self.state.mark;
        if rotation.is_stuck() {
            return None;
        }
        let open = rotation.trees.iter().enumerate();
        let open = open.filter_map(|(number, lack)| Some((TreeId(number as u32), lack.open?)));
        if rotation.wanted {
            let all: Vec<TreeId> = open.map(|(tree, _)| tree).collect();
            return (applied > rotation.rotated || !all.is_empty()).then_some(all);
        }
        if applied <= rotation.rotated {
            return None;
        }
        let sized: Vec<_> =
            open.map(|(tree, first)| (tree, first, self.tables.unflushed_bytes(tree))).collect();
        let trees_bytes: u64 = sized.iter().map(|(.., bytes)| bytes).sum();
        let bytes = trees_bytes + self.unwritten_bytes();
        let first = sized.iter().map(|(_, first, _)| *first).min().unwrap_or(Offset::MAX);
        let pinned = next.0.saturating_sub(first.min(rotation.rotated).max(Offset::FIRST).0);
        if bytes < self.options.memtable_bytes && pinned < self.options.replay_bytes_max {
            return None;
        }
        // Small trees wait, so that a thousand of them do not become a thousand small files each
        // time; but they do not pin the log for more than half of what may be replayed.
        let average = trees_bytes / (sized.len() as u64).max(1);
        let old = Offset(next.0.saturating_sub(self.options.replay_bytes_max / 2));
        let chosen = sized.iter().filter(|(_, first, bytes)| *bytes * 2 >= average || *first < old);
        Some(chosen.map(|(tree, ..)| *tree).collect())
    }

    /// Bytes that a rotation adds to the shard tree, with those that are there already, about.
    fn unwritten_bytes(&self) -> u64 {
        self.tables.unflushed_bytes(TreeId::SHARD)
            + self.state.sessions.unwritten_bytes()
            + self.state.recent.unwritten_bytes()
            + self.rotation.skipped.len() as u64 * 8
    }

    /// Writes what lives in memory into the shard tree, and seals it together with these trees.
    fn rotate(&mut self, trees: &[TreeId]) -> Result<(), Fault> {
        let mark = self.state.mark;
        // Where the last rotation stood already, the shard's rows stand too: only trees follow that
        // it left out. The row *unpersisted* names them still, but a tree marked like the shard
        // tree lacks nothing.
        if mark.applied > self.rotation.rotated {
            self.write_state()?;
            self.write_skipped()?;
            let row = self.rotation.unpersisted(trees, mark);
            self.put_row(Key::Unpersisted, Some(&row))?;
        }
        let all: Vec<TreeId> = [TreeId::SHARD].into_iter().chain(trees.iter().copied()).collect();
        self.tables.rotate(&all, mark)?;
        self.rotation.seal(trees, mark, self.state.floor);
        Ok(())
    }

    fn write_state(&mut self) -> Result<(), Fault> {
        let Machine { state, tables, rotation, plan, .. } = self;
        let at = state.mark.applied;
        let mut put = |key: Key<'_>, value: Option<&[u8]>| {
            key.write(&mut plan.key);
            tables.put(TreeId::SHARD, &plan.key, at, value)
        };
        let mut history = Vec::new();
        put_u64(&mut history, state.floor.0);
        state.points.write(&mut history);
        put(Key::History, Some(&history))?;
        state.keyspaces.rotate(|tree, value| put(Key::Keyspace(tree), Some(value)))?;
        state.streams.rotate(|key, value| put(key, Some(value)))?;
        state.sessions.rotate(|id, value| put(Key::Session(id), value))?;
        let (runs, dropped) = state.recent.rotate();
        for (number, run) in runs {
            put(Key::Recent(number), Some(run))?;
        }
        for number in dropped {
            put(Key::Recent(number), None)?;
        }
        if state.directory.is_dirty() {
            state.directory.rotate(&mut put)?;
            let next = state.directory.next_shard().0.to_le_bytes();
            put(Key::Directory, Some(&next))?;
            state.directory.rotate_nodes(|node, value| put(Key::Node(node), value))?;
        }
        if std::mem::take(&mut rotation.configuration_dirty) {
            put(Key::Configuration, state.configuration.as_deref())?;
        }
        if let Some(closed) = state.closed.filter(|_| std::mem::take(&mut rotation.closed_dirty)) {
            put(Key::Closed, Some(&closed.0.to_le_bytes()))?;
        }
        Ok(())
    }

    /// Writes which commits did nothing, and removes what no replay will ask for.
    fn write_skipped(&mut self) -> Result<(), Fault> {
        let persisted = self.persisted();
        while let Some(last) = self.rotation.skipped_rows.front().copied() {
            if last >= persisted {
                break;
            }
            self.put_row(Key::Skipped(last), None)?;
            self.rotation.skipped_rows.pop_front();
        }
        while let Some((commit, number)) = self.rotation.range_ends.front().copied() {
            if commit >= persisted {
                break;
            }
            self.put_row(Key::RangeEnd(commit, number), None)?;
            self.rotation.range_ends.pop_front();
        }
        let skipped = std::mem::take(&mut self.rotation.skipped);
        let Some(last) = skipped.last().copied() else { return Ok(()) };
        let mut row = Vec::with_capacity(skipped.len() * 8);
        for commit in &skipped {
            put_u64(&mut row, commit.0);
        }
        self.put_row(Key::Skipped(last), Some(&row))?;
        self.rotation.skipped_rows.push_back(last);
        Ok(())
    }
}
