//! Tables in memory, with the marks, rotations and flushes of real ones.
//!
//! Nothing is on a disk, but [`MemTables::crash`] gives what would be there: of each tree the row
//! versions up to its mark. Flushes go tree by tree, the shard tree of a unit first, so a crash
//! between them leaves trees at different marks; compaction drops versions that no read may ask for
//! any more. Reads and writes are as slow as is plain.

use crate::rows::{Fields, put_bytes, put_u32, put_u64};
use crate::tables::{
    Checked, Fault, KeyRange, Mark, Tables, TablesExport, TablesJob, TablesReader, TreeId, Version,
    Visit,
};
use naust_wire::options::{Compaction, Compression, KeyspaceOptions};
use naust_wire::{Index, LogTime, Offset, Term};
use std::collections::{BTreeMap, VecDeque};
use std::ops::{Bound, ControlFlow};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, Weak};

/// The versions of one row, oldest first.
type Versions = Vec<(Offset, Option<Arc<[u8]>>)>;

#[derive(Clone, Debug, Default)]
struct Tree {
    options: KeyspaceOptions,
    rows: BTreeMap<Vec<u8>, Versions>,
    mark: Mark,
    retention_floor: Offset,
    /// Bytes put since the last rotation of this tree.
    unflushed_bytes: u64,
    /// The newest offset that was put.
    last: Offset,
}

impl Tree {
    fn version(&self, versions: &Versions, at: Offset) -> Option<(Offset, Option<Arc<[u8]>>)> {
        let newest = versions.iter().rev().find(|(offset, _)| *offset <= at)?;
        (newest.0 >= self.retention_floor).then(|| newest.clone())
    }

    /// Drops what reads at or above the history floor can't see, of what is on disk.
    fn compact(&mut self, floor: Offset) {
        let (mark, retention_floor) = (self.mark.applied, self.retention_floor);
        self.rows.retain(|_, versions| {
            let below = versions.partition_point(|(offset, _)| *offset <= floor.min(mark));
            versions.drain(..below.saturating_sub(1));
            versions.retain(|(offset, _)| *offset >= retention_floor || *offset > mark);
            if let [(offset, None), ..] = versions[..]
                && offset <= floor.min(mark)
            {
                versions.remove(0);
            }
            !versions.is_empty()
        });
    }
}

#[derive(Clone, Debug, Default)]
struct Trees {
    trees: BTreeMap<TreeId, Tree>,
    history_floor: Offset,
}

/// The tables of one shard, in memory.
#[derive(Debug, Default)]
pub struct MemTables {
    trees: Arc<RwLock<Trees>>,
    /// Gets and scans of all readers.
    reads: Arc<AtomicU64>,
    /// Flushes to come: a tree, the mark it will have, and its bytes.
    flushes: VecDeque<(TreeId, Mark, u64)>,
    /// Trees that were flushed since they were compacted last.
    compactions: VecDeque<TreeId>,
    busy: bool,
}

impl MemTables {
    /// No tables yet.
    #[must_use]
    pub fn new() -> MemTables {
        MemTables::default()
    }

    /// What a disk would hold if the power went now: these tables as they are opened after that.
    #[must_use]
    pub fn crash(&self) -> MemTables {
        let mut trees = self.read().clone();
        trees.trees.retain(|_, tree| {
            let mark = tree.mark.applied;
            tree.rows.retain(|_, versions| {
                versions.retain(|(offset, _)| *offset <= mark);
                !versions.is_empty()
            });
            tree.unflushed_bytes = 0;
            tree.last = mark;
            // A tree of which nothing was ever flushed is gone.
            mark != Offset::ZERO
        });
        trees.history_floor = Offset::ZERO;
        MemTables { trees: Arc::new(RwLock::new(trees)), ..MemTables::default() }
    }

    /// A second handle of the same rows and marks, from which they can be had back after a
    /// [`MemTables::crash`].
    #[must_use]
    pub fn share(&self) -> MemTables {
        MemTables { trees: Arc::clone(&self.trees), ..MemTables::default() }
    }

    /// A count of gets and scans that goes on as these tables are read, by whichever reader: for
    /// tests of what should read none.
    #[must_use]
    pub fn reads(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.reads)
    }

    fn read(&self) -> RwLockReadGuard<'_, Trees> {
        self.trees.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Trees> {
        self.trees.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tables for MemTables {
    type Reader = MemReader;
    type Job = MemJob;

    fn reader(&self) -> MemReader {
        MemReader { trees: Arc::clone(&self.trees), reads: Arc::clone(&self.reads) }
    }

    fn make(&mut self, tree: TreeId, options: &KeyspaceOptions) -> Result<(), Fault> {
        self.write().trees.entry(tree).or_default().options = *options;
        Ok(())
    }

    fn trees(&self) -> Vec<TreeId> {
        self.read().trees.keys().copied().collect()
    }

    fn put(
        &mut self,
        tree: TreeId,
        key: &[u8],
        at: Offset,
        value: Option<&[u8]>,
    ) -> Result<(), Fault> {
        let mut trees = self.write();
        let tree = trees.trees.get_mut(&tree).ok_or_else(|| Fault {
            what: format!("there is no tree {}", tree.0),
            disk_full: false,
        })?;
        assert!(at >= tree.last, "offsets never fall within a tree");
        assert!(at > tree.mark.applied, "what is on disk is not put again");
        tree.last = at;
        tree.unflushed_bytes += (key.len() + value.map_or(0, <[u8]>::len) + 16) as u64;
        let versions = tree.rows.entry(key.to_vec()).or_default();
        assert!(versions.last().is_none_or(|(last, _)| *last < at), "one version an offset");
        versions.push((at, value.map(Arc::from)));
        Ok(())
    }

    fn unflushed_bytes(&self, tree: TreeId) -> u64 {
        self.read().trees.get(&tree).map_or(0, |tree| tree.unflushed_bytes)
    }

    fn flushing_bytes(&self) -> u64 {
        self.flushes.iter().map(|(.., bytes)| bytes).sum()
    }

    fn backlog(&self) -> usize {
        self.compactions.len()
    }

    fn rotate(&mut self, trees: &[TreeId], mark: Mark) -> Result<(), Fault> {
        assert!(trees.contains(&TreeId::SHARD), "the shard tree is in every unit");
        let (mut unit, mut all) = (Vec::new(), self.write());
        for id in trees {
            let tree = all.trees.get_mut(id).expect("trees that rotate exist");
            assert!(tree.last <= mark.applied, "a mark covers what was put before it");
            unit.push((*id, mark, std::mem::take(&mut tree.unflushed_bytes)));
        }
        drop(all);
        unit.sort_unstable_by_key(|(tree, ..)| *tree);
        self.flushes.extend(unit);
        Ok(())
    }

    fn mark(&self, tree: TreeId) -> Mark {
        self.read().trees.get(&tree).map_or(Mark::default(), |tree| tree.mark)
    }

    fn set_history_floor(&mut self, floor: Offset) {
        let mut trees = self.write();
        trees.history_floor = trees.history_floor.max(floor);
    }

    fn set_retention_floor(&mut self, tree: TreeId, floor: Offset) {
        if let Some(tree) = self.write().trees.get_mut(&tree) {
            tree.retention_floor = tree.retention_floor.max(floor);
        }
    }

    fn job(&mut self) -> Option<MemJob> {
        if self.busy {
            return None;
        }
        let work = match self.flushes.front() {
            Some((tree, mark, _)) => Work::Flush(*tree, *mark),
            None => Work::Compact(self.compactions.pop_front()?),
        };
        self.busy = true;
        Some(MemJob { trees: Arc::clone(&self.trees), work })
    }

    fn done(&mut self, done: MemDone) -> Result<(), Fault> {
        // A job of tables that these took the place of: nobody waits for it.
        if !Weak::ptr_eq(&done.of, &Arc::downgrade(&self.trees)) {
            return Ok(());
        }
        self.busy = false;
        if let Work::Flush(tree, _) = done.work {
            self.flushes.pop_front();
            if !self.compactions.contains(&tree) {
                self.compactions.push_back(tree);
            }
        }
        Ok(())
    }

    fn size(&self, tree: TreeId) -> (u64, u64) {
        let trees = self.read();
        let Some(tree) = trees.trees.get(&tree) else { return (0, 0) };
        let (mut bytes, mut count) = (0, 0);
        for (key, versions) in &tree.rows {
            count += versions.len() as u64;
            for (_, value) in versions.iter().filter(|(at, _)| *at <= tree.mark.applied) {
                bytes += (key.len() + value.as_ref().map_or(0, |value| value.len())) as u64;
            }
        }
        (bytes, count)
    }
}

#[derive(Clone, Copy, Debug)]
enum Work {
    Flush(TreeId, Mark),
    Compact(TreeId),
}

/// A flush or a compaction of one tree.
#[derive(Debug)]
pub struct MemJob {
    trees: Arc<RwLock<Trees>>,
    work: Work,
}

/// What a [`MemJob`] did.
#[derive(Debug)]
pub struct MemDone {
    of: Weak<RwLock<Trees>>,
    work: Work,
}

impl TablesJob for MemJob {
    type Done = MemDone;

    fn run(self) -> MemDone {
        let mut trees = self.trees.write().unwrap_or_else(PoisonError::into_inner);
        let floor = trees.history_floor;
        match self.work {
            Work::Flush(tree, mark) => {
                let tree = trees.trees.get_mut(&tree).expect("trees are never removed");
                tree.mark = mark;
            }
            Work::Compact(tree) => {
                trees.trees.get_mut(&tree).expect("trees are never removed").compact(floor);
            }
        }
        MemDone { of: Arc::downgrade(&self.trees), work: self.work }
    }
}

/// Reads [`MemTables`] from any thread.
#[derive(Clone, Debug)]
pub struct MemReader {
    trees: Arc<RwLock<Trees>>,
    reads: Arc<AtomicU64>,
}

/// What [`MemTables`] have on disk, as one file.
#[derive(Clone, Debug)]
pub struct MemExport {
    mark: Mark,
    bytes: Vec<u8>,
}

/// The name of that file.
const FILE: &str = "rows";

impl TablesExport for MemExport {
    fn mark(&self) -> Mark {
        self.mark
    }

    fn files(&self) -> Vec<(String, u64)> {
        vec![(FILE.to_owned(), self.bytes.len() as u64)]
    }

    fn read(&self, _file: usize, at: u64, bytes: usize) -> Result<Vec<u8>, Fault> {
        let from = (at as usize).min(self.bytes.len());
        let to = (from + bytes).min(self.bytes.len());
        Ok(self.bytes[from..to].to_vec())
    }
}

impl MemTables {
    /// The tables of an export, from the bytes of its file.
    ///
    /// # Errors
    /// [`Fault`]: they are none.
    pub fn import(file: &[u8]) -> Result<MemTables, Fault> {
        let mut fields = Fields::new(file, "exported tables");
        let mut trees = Trees::default();
        while !fields.is_empty() {
            let id = TreeId(fields.u32()?);
            let mut tree = Tree { options: options_of(fields.u8()?), ..Tree::default() };
            tree.options.max_bytes = fields.u64()?;
            tree.options.max_age_ms = fields.u64()?;
            tree.mark = Mark {
                applied: fields.offset()?,
                next: fields.offset()?,
                index: Index(fields.u64()?),
                term: Term(fields.u64()?),
                time: LogTime(fields.u64()?),
            };
            tree.last = tree.mark.applied;
            for _ in 0..fields.u64()? {
                let key = fields.bytes()?.to_vec();
                let mut versions = Versions::new();
                for _ in 0..fields.u32()? {
                    let at = fields.offset()?;
                    let value = match fields.u8()? {
                        0 => None,
                        _ => Some(Arc::from(fields.bytes()?)),
                    };
                    versions.push((at, value));
                }
                tree.rows.insert(key, versions);
            }
            trees.trees.insert(id, tree);
        }
        Ok(MemTables { trees: Arc::new(RwLock::new(trees)), ..MemTables::default() })
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for (id, tree) in &self.read().trees {
            put_u32(&mut out, id.0);
            out.push(tree.options.compaction as u8 | (tree.options.compression as u8) << 4);
            put_u64(&mut out, tree.options.max_bytes);
            put_u64(&mut out, tree.options.max_age_ms);
            let Mark { applied, next, index, term, time } = tree.mark;
            for field in [applied.0, next.0, index.0, term.0, time.0] {
                put_u64(&mut out, field);
            }
            put_u64(&mut out, tree.rows.len() as u64);
            for (key, versions) in &tree.rows {
                put_bytes(&mut out, key);
                put_u32(&mut out, versions.len() as u32);
                for (at, value) in versions {
                    put_u64(&mut out, at.0);
                    out.push(u8::from(value.is_some()));
                    if let Some(value) = value {
                        put_bytes(&mut out, value);
                    }
                }
            }
        }
        out
    }
}

fn options_of(byte: u8) -> KeyspaceOptions {
    let compaction = match byte & 0xf {
        0 => Compaction::Levelled,
        1 => Compaction::WriteOptimised,
        _ => Compaction::Fifo,
    };
    let compression = if byte >> 4 == 0 { Compression::None } else { Compression::Lz4 };
    KeyspaceOptions { compaction, compression, ..KeyspaceOptions::default() }
}

impl TablesReader for MemReader {
    type Value = Arc<[u8]>;
    type Export = MemExport;

    fn check(&self, _from: u64, _bytes: u64) -> Result<Checked, Fault> {
        Ok(Checked::default())
    }

    fn export(&self) -> Result<MemExport, Fault> {
        let tables = MemTables { trees: Arc::clone(&self.trees), ..MemTables::default() }.crash();
        let marks = tables.trees().into_iter().map(|tree| tables.mark(tree));
        let mark = marks.max_by_key(|mark| mark.applied).unwrap_or_default();
        Ok(MemExport { mark, bytes: tables.encode() })
    }

    fn get(
        &self,
        tree: TreeId,
        key: &[u8],
        at: Offset,
    ) -> Result<Option<Version<Arc<[u8]>>>, Fault> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        let trees = self.trees.read().unwrap_or_else(PoisonError::into_inner);
        let Some(tree) = trees.trees.get(&tree) else { return Ok(None) };
        let version = tree.rows.get(key).and_then(|versions| tree.version(versions, at));
        Ok(version.map(|(offset, value)| Version { offset, value }))
    }

    fn scan(
        &self,
        tree: TreeId,
        range: KeyRange<'_>,
        reverse: bool,
        at: Offset,
        visit: Visit<'_>,
    ) -> Result<(), Fault> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        let trees = self.trees.read().unwrap_or_else(PoisonError::into_inner);
        let Some(tree) = trees.trees.get(&tree) else { return Ok(()) };
        if range.to.is_some_and(|to| to <= range.from) {
            return Ok(());
        }
        let to = range.to.map_or(Bound::Unbounded, Bound::Excluded);
        let rows = tree.rows.range::<[u8], _>((Bound::Included(range.from), to));
        let mut step = |(key, versions): (&Vec<u8>, &Versions)| match tree.version(versions, at) {
            Some((offset, Some(value))) => visit(key, offset, &value),
            _ => ControlFlow::Continue(()),
        };
        let _ =
            if reverse { rows.rev().try_for_each(&mut step) } else { { rows }.try_for_each(step) };
        Ok(())
    }
}
