//! A plain model of tables, and the random life that both lead.

#![allow(clippy::unwrap_used, dead_code, reason = "helpers of tests; each test uses some of them")]

use naust_machine::{KeyRange, Mark, TablesReader, TreeId, Version};
use naust_store::{Cache, LsmReader, LsmTables, StoreOptions};
use naust_wire::options::{Compaction, Compression, KeyspaceOptions};
use naust_wire::{Index, Offset};
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;

/// A generator of numbers from a seed.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 11
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

/// A directory in memory, where there is such a thing: these tests sync thousands of files.
pub fn directory() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let made = memory.is_dir().then(|| tempfile::tempdir_in(memory).ok()).flatten();
    made.unwrap_or_else(|| tempfile::tempdir().unwrap())
}

/// Tiny tables and levels, so that a short life sees many of them.
pub fn options() -> StoreOptions {
    let mut options = StoreOptions::new(Cache::new(64 << 10, 8));
    options.table_bytes = 8 << 10;
    options.whole_bytes = 24 << 10;
    options.level_bytes = 24 << 10;
    options.level_ratio = 3;
    options.runs_per_merge = 4;
    options
}

pub fn keyspace(compaction: Compaction, compression: Compression) -> KeyspaceOptions {
    KeyspaceOptions { compaction, compression, ..KeyspaceOptions::default() }
}

/// The marks of a simple log: frames of 64 bytes.
pub fn mark_at(offset: u64) -> Mark {
    let index = Index((offset - Offset::FIRST.0) / 64 + 1);
    Mark { applied: Offset(offset), next: Offset(offset + 64), index, ..Mark::default() }
}

type Versions = Vec<(u64, Option<Vec<u8>>)>;

/// One tree, as it should be.
#[derive(Clone, Default)]
pub struct Model {
    pub rows: BTreeMap<Vec<u8>, Versions>,
    pub retention_floor: u64,
}

impl Model {
    pub fn put(&mut self, key: &[u8], at: u64, value: Option<&[u8]>) {
        let versions = self.rows.entry(key.to_vec()).or_default();
        versions.push((at, value.map(<[u8]>::to_vec)));
    }

    /// Forgets what came after.
    pub fn cut(&mut self, mark: Mark) {
        for versions in self.rows.values_mut() {
            versions.retain(|(offset, _)| *offset <= mark.applied.0);
        }
    }

    pub fn get(&self, key: &[u8], at: u64) -> Option<(u64, Option<&[u8]>)> {
        let versions = self.rows.get(key)?;
        let (offset, value) = versions.iter().rev().find(|(offset, _)| *offset <= at)?;
        (*offset >= self.retention_floor).then_some((*offset, value.as_deref()))
    }

    pub fn scan(&self, from: &[u8], to: Option<&[u8]>, at: u64) -> Vec<(Vec<u8>, u64, Vec<u8>)> {
        let keys = self
            .rows
            .keys()
            .filter(|key| key.as_slice() >= from && to.is_none_or(|to| key.as_slice() < to));
        let live = keys.filter_map(|key| match self.get(key, at)? {
            (offset, Some(value)) => Some((key.clone(), offset, value.to_vec())),
            (_, None) => None,
        });
        live.collect()
    }
}

/// Compares one read of a row.
pub fn check_get(
    reader: &LsmReader,
    tree: TreeId,
    model: &Model,
    key: &[u8],
    at: u64,
    history_floor: u64,
) {
    let found = reader.get(tree, key, Offset(at)).unwrap();
    let found = found.as_ref().map(|Version { offset, value }| {
        (offset.0, value.as_ref().map(<_ as AsRef<[u8]>>::as_ref))
    });
    let expected = model.get(key, at);
    // A deletion at or below the history floor may have ended.
    if found.is_none() && expected.is_some_and(|(at, value)| value.is_none() && at <= history_floor)
    {
        return;
    }
    assert_eq!(found, expected, "row {key:?} of {tree:?} at {at}");
}

/// Compares one scan, of at most `limit` rows.
pub fn check_scan(
    reader: &LsmReader,
    tree: TreeId,
    model: &Model,
    range: KeyRange<'_>,
    at: u64,
    reverse: bool,
    limit: usize,
) {
    let mut found = Vec::new();
    let mut visit = |key: &[u8], offset: Offset, value: &[u8]| {
        found.push((key.to_vec(), offset.0, value.to_vec()));
        if found.len() < limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    };
    reader.scan(tree, range, reverse, Offset(at), &mut visit).unwrap();
    let mut expected = model.scan(range.from, range.to, at);
    if reverse {
        expected.reverse();
    }
    expected.truncate(limit);
    assert_eq!(found, expected, "scan of {tree:?} {range:?} at {at}, reverse: {reverse}");
}

pub fn open(path: &Path) -> LsmTables {
    LsmTables::open(path, options()).unwrap()
}
