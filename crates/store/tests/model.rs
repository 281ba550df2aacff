//! Long random lives of the tables beside a plain model: puts, deletions, rotations, flushes and
//! compactions that end late, changes of options, floors that rise, and reopenings that lose what
//! was not flushed. Whatever happens in between, every read at every offset since the history floor
//! gives what the model gives.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{Model, Random, check_get, check_scan, directory, keyspace, mark_at, open};
use naust_machine::{KeyRange, Mark, Tables, TablesJob, TreeId};
use naust_store::{LsmJob, LsmTables};
use naust_wire::Offset;
use naust_wire::options::{Compaction, Compression};
use std::collections::BTreeMap;

const TREES: [TreeId; 4] = [TreeId::SHARD, TreeId(1), TreeId(2), TreeId(5)];

struct Life {
    random: Random,
    /// Keys grow with the log, as a journal's do, instead of being drawn from a few.
    growing: bool,
    directory: tempfile::TempDir,
    tables: Option<LsmTables>,
    jobs: Vec<LsmJob>,
    models: BTreeMap<TreeId, Model>,
    /// The marks that a reopening may find, per tree.
    marks: BTreeMap<TreeId, Mark>,
    rotated: Vec<(Vec<TreeId>, Mark)>,
    applied: u64,
    history_floor: u64,
    reads: u64,
}

impl Life {
    fn new(seed: u64) -> Life {
        let directory = directory();
        let mut life = Life {
            random: Random::new(seed),
            growing: seed.is_multiple_of(3),
            tables: Some(open(directory.path())),
            directory,
            jobs: Vec::new(),
            models: TREES.iter().map(|tree| (*tree, Model::default())).collect(),
            marks: BTreeMap::new(),
            rotated: Vec::new(),
            applied: Offset::FIRST.0,
            history_floor: 0,
            reads: 0,
        };
        life.make_all();
        life
    }

    fn tables(&mut self) -> &mut LsmTables {
        self.tables.as_mut().unwrap()
    }

    fn make_all(&mut self) {
        for tree in TREES {
            self.make(tree);
        }
    }

    fn make(&mut self, tree: TreeId) {
        let kinds = [Compaction::Levelled, Compaction::WriteOptimised, Compaction::Fifo];
        let compaction = kinds[self.random.below(3) as usize];
        let compression = [Compression::None, Compression::Lz4][self.random.below(2) as usize];
        self.tables().make(tree, &keyspace(compaction, compression)).unwrap();
    }

    fn tree(&mut self) -> TreeId {
        TREES[self.random.below(4) as usize]
    }

    fn key_to_write(&mut self) -> Vec<u8> {
        if !self.growing {
            return self.key();
        }
        let newest = (self.applied - Offset::FIRST.0) / 64;
        format!("g{:08}", newest.saturating_sub(self.random.below(8))).into_bytes()
    }

    fn key(&mut self) -> Vec<u8> {
        if self.growing {
            let newest = (self.applied - Offset::FIRST.0) / 64;
            return format!("g{:08}", self.random.below(newest + 1)).into_bytes();
        }
        let n = self.random.below(300);
        match n {
            0 => Vec::new(),
            1 => vec![0; 3],
            2 => vec![255; 3000],
            3..20 => format!("a rather long key of a row, number {n:05}").into_bytes(),
            _ => format!("k{n}").into_bytes(),
        }
    }

    fn commit(&mut self) {
        self.applied += 64;
        let at = self.applied;
        let mut written = Vec::new();
        for _ in 0..1 + self.random.below(3) {
            let (tree, key) = (self.tree(), self.key_to_write());
            if written.contains(&(tree, key.clone())) {
                continue;
            }
            let length = if self.random.one_in(200) { 6000 } else { self.random.below(60) };
            let value = vec![self.random.next() as u8; length as usize];
            let value = (!self.random.one_in(4)).then_some(value);
            self.tables().put(tree, &key, Offset(at), value.as_deref()).unwrap();
            self.models.get_mut(&tree).unwrap().put(&key, at, value.as_deref());
            written.push((tree, key));
        }
    }

    fn rotate(&mut self) {
        let mut trees = vec![TreeId::SHARD];
        trees.extend(TREES.into_iter().skip(1).filter(|_| self.random.one_in(2)));
        let mark = mark_at(self.applied);
        if self.rotated.last().is_some_and(|(_, last)| *last == mark) {
            return;
        }
        self.tables().rotate(&trees, mark).unwrap();
        self.rotated.push((trees, mark));
    }

    fn take_job(&mut self) {
        if let Some(job) = self.tables().job() {
            self.jobs.push(job);
        }
    }

    fn run_job(&mut self) {
        if self.jobs.is_empty() {
            return;
        }
        let at = self.random.below(self.jobs.len() as u64) as usize;
        let done = self.jobs.swap_remove(at).run();
        self.tables().done(done).unwrap();
        // Of units, the oldest is flushed first; which are durable shows in the shard tree's mark.
        let shard = self.tables().mark(TreeId::SHARD);
        while self.rotated.first().is_some_and(|(_, mark)| mark.applied <= shard.applied) {
            let (trees, mark) = self.rotated.remove(0);
            self.marks.extend(trees.into_iter().map(|tree| (tree, mark)));
        }
        self.check_marks();
    }

    fn check_marks(&mut self) {
        for tree in TREES {
            let expected = self.marks.get(&tree).copied().unwrap_or_default();
            assert_eq!(self.tables().mark(tree), expected, "mark of {tree:?}");
        }
    }

    fn reopen(&mut self) {
        self.jobs.clear();
        self.rotated.clear();
        drop(self.tables.take());
        self.tables = Some(open(self.directory.path()));
        self.check_marks();
        for (tree, model) in &mut self.models {
            model.cut(self.marks.get(tree).copied().unwrap_or_default());
        }
        self.make_all();
        let (history, tables) = (self.history_floor, self.tables.as_mut().unwrap());
        tables.set_history_floor(Offset(history));
        for (tree, model) in &self.models {
            tables.set_retention_floor(*tree, Offset(model.retention_floor));
        }
    }

    fn raise_floors(&mut self) {
        let span = self.applied - self.history_floor.max(Offset::FIRST.0);
        self.history_floor = self.applied - self.random.below(span + 1);
        let history = self.history_floor;
        self.tables().set_history_floor(Offset(history));
        if self.random.one_in(8) {
            let tree = self.tree();
            let model = self.models.get_mut(&tree).unwrap();
            model.retention_floor = model.retention_floor.max(history.saturating_sub(64 * 500));
            let floor = model.retention_floor;
            self.tables().set_retention_floor(tree, Offset(floor));
        }
    }

    fn read(&mut self) {
        let tree = self.tree();
        let lowest = self.history_floor.max(Offset::FIRST.0);
        let back = self.random.below(self.applied - lowest + 1);
        let at = if self.random.one_in(2) { self.applied } else { self.applied - back };
        let reader = self.tables().reader();
        self.reads += 1;
        if !self.random.one_in(10) {
            let key = self.key();
            check_get(&reader, tree, &self.models[&tree], &key, at, self.history_floor);
            return;
        }
        let (from, to) = (self.key(), self.key());
        let to = (!self.random.one_in(3)).then_some(to.as_slice());
        let range = KeyRange { from: &from, to };
        let reverse = self.random.one_in(2);
        let limit = 1 + self.random.below(40) as usize;
        check_scan(&reader, tree, &self.models[&tree], range, at, reverse, limit);
    }

    fn step(&mut self) {
        match self.random.below(1000) {
            0..400 => self.commit(),
            400..410 => self.rotate(),
            410..440 => self.take_job(),
            440..470 => self.run_job(),
            470..475 => self.raise_floors(),
            475..477 => {
                let tree = self.tree();
                self.make(tree);
            }
            477 => self.reopen(),
            _ => self.read(),
        }
    }
}

fn live(seed: u64, steps: u64) -> u64 {
    let mut life = Life::new(seed);
    for _ in 0..steps {
        life.step();
    }
    life.reads
}

#[test]
fn reads_in_the_past_are_never_wrong() {
    let reads: u64 = (1..=10).map(|seed| live(seed, 25_000)).sum();
    assert!(reads > 100_000, "too few reads to mean anything: {reads}");
}

/// Only `cargo xtask planted` has bugs in it; nothing else may run beside this.
#[cfg(naust_planted)]
#[test]
fn planted_bugs_are_found() {
    use naust_wire::planted::{Bug, plant};
    plant(Some(Bug::DropWindow));
    let found = (0..500).find(|seed| std::panic::catch_unwind(|| live(*seed, 400)).is_err());
    plant(None);
    let lives = found.expect("a version that is still in the window is missed") + 1;
    println!(
        "| `DropWindow` | none | {lives} | reads in the past (`crates/store/tests/model.rs`) |"
    );
}
