//! A process can die at any moment of a flush or a compaction. Here copies of the directory are
//! taken while background threads work in it, as a crash would leave it: a manifest as it stood,
//! and whatever files lay around it, the unnamed ones cut short or garbled, since nobody had synced
//! them. Each copy must open, every tree at a mark that was sealed and is not older than the last
//! one reported, the shard tree's not before any other's, and with exactly the rows up to its mark.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{Model, Random, check_get, check_scan, directory, keyspace, mark_at, open, options};
use naust_machine::{KeyRange, Mark, Tables, TablesJob, TreeId};
use naust_store::{LsmDone, LsmJob, LsmTables};
use naust_wire::Offset;
use naust_wire::options::{Compaction, Compression};
use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

const TREES: [(TreeId, Compaction); 4] = [
    (TreeId::SHARD, Compaction::Levelled),
    (TreeId(1), Compaction::Levelled),
    (TreeId(2), Compaction::WriteOptimised),
    (TreeId(3), Compaction::Fifo),
];

/// Two threads that run jobs.
fn workers() -> (Sender<LsmJob>, Receiver<LsmDone>) {
    let (jobs, to_do) = channel::<LsmJob>();
    let (ended, done) = channel();
    let to_do = Arc::new(Mutex::new(to_do));
    for _ in 0..2 {
        let (to_do, ended) = (to_do.clone(), ended.clone());
        std::thread::spawn(move || {
            loop {
                let job = to_do.lock().unwrap().recv();
                let Ok(job) = job else { return };
                if ended.send(job.run()).is_err() {
                    return;
                }
            }
        });
    }
    (jobs, done)
}

struct Life {
    tables: LsmTables,
    jobs: Sender<LsmJob>,
    done: Receiver<LsmDone>,
    models: BTreeMap<TreeId, Model>,
    sealed: BTreeMap<TreeId, Vec<Mark>>,
    random: Random,
    applied: u64,
    history_floor: u64,
}

impl Life {
    fn new(path: &Path, seed: u64) -> Life {
        let mut tables = open(path);
        for (tree, compaction) in TREES {
            tables.make(tree, &keyspace(compaction, Compression::Lz4)).unwrap();
        }
        let (jobs, done) = workers();
        Life {
            tables,
            jobs,
            done,
            models: TREES.iter().map(|(tree, _)| (*tree, Model::default())).collect(),
            sealed: BTreeMap::new(),
            random: Random::new(seed),
            applied: Offset::FIRST.0,
            history_floor: 0,
        }
    }

    fn work(&mut self, commits: u64) {
        for _ in 0..commits {
            self.applied += 64;
            let (tree, _) = TREES[self.random.below(4) as usize];
            let key = format!("key {:04}", self.random.below(500)).into_bytes();
            let value = vec![self.random.next() as u8; self.random.below(100) as usize];
            let value = (!self.random.one_in(5)).then_some(value.as_slice());
            self.tables.put(tree, &key, Offset(self.applied), value).unwrap();
            self.models.get_mut(&tree).unwrap().put(&key, self.applied, value);
            if self.random.one_in(100) {
                self.rotate();
            }
            while let Ok(done) = self.done.try_recv() {
                self.tables.done(done).unwrap();
            }
            while let Some(job) = self.tables.job() {
                self.jobs.send(job).unwrap();
            }
        }
    }

    fn rotate(&mut self) {
        let mut trees = vec![TreeId::SHARD];
        trees.extend((1..4).map(TreeId).filter(|_| self.random.one_in(2)));
        let mark = mark_at(self.applied);
        for tree in &trees {
            self.sealed.entry(*tree).or_default().push(mark);
        }
        let back = self.random.below(64 * 300).min(self.applied - Offset::FIRST.0);
        self.history_floor = self.history_floor.max(self.applied - back);
        self.tables.set_history_floor(Offset(self.history_floor));
        self.tables.rotate(&trees, mark).unwrap();
    }

    /// Opens a copy taken now and compares it.
    fn crash(&mut self, from: &Path) {
        let reported: Vec<Mark> = TREES.iter().map(|(tree, _)| self.tables.mark(*tree)).collect();
        let copy = directory();
        copy_as_a_crash_leaves_it(from, copy.path(), &mut self.random);
        let tables = LsmTables::open(copy.path(), options()).unwrap();
        let reader = tables.reader();
        for ((tree, _), reported) in TREES.iter().zip(reported) {
            let mark = tables.mark(*tree);
            let sealed = self.sealed.get(tree).is_some_and(|sealed| sealed.contains(&mark));
            assert!(sealed || mark == Mark::default(), "{mark:?} of {tree:?} was never sealed");
            assert!(
                mark.applied >= reported.applied,
                "{mark:?} of {tree:?} is before {reported:?}"
            );
            assert!(mark.applied <= tables.mark(TreeId::SHARD).applied, "{tree:?} is ahead");
            let mut model = self.models[tree].clone();
            model.cut(mark);
            let all = KeyRange { from: b"", to: None };
            for at in [self.history_floor, self.applied] {
                for reverse in [false, true] {
                    check_scan(&reader, *tree, &model, all, at, reverse, usize::MAX);
                }
            }
            for _ in 0..50 {
                let at = self.applied - self.random.below(self.applied - self.history_floor + 1);
                let key = format!("key {:04}", self.random.below(500)).into_bytes();
                check_get(&reader, *tree, &model, &key, at, self.history_floor);
            }
        }
    }
}

fn copy_as_a_crash_leaves_it(from: &Path, to: &Path, random: &mut Random) {
    let manifest = from.join("manifest");
    loop {
        let before = fs::read(&manifest).ok();
        for entry in fs::read_dir(from).unwrap() {
            let name = entry.unwrap().file_name();
            match fs::copy(from.join(&name), to.join(&name)) {
                Err(error) if error.kind() != ErrorKind::NotFound => panic!("copying: {error}"),
                _ => {}
            }
        }
        // While the manifest stands, everything it names does.
        if fs::read(&manifest).ok() == before {
            if let Some(before) = &before {
                fs::write(to.join("manifest"), before).unwrap();
            }
            break;
        }
        for entry in fs::read_dir(to).unwrap() {
            fs::remove_file(entry.unwrap().path()).unwrap();
        }
    }
    let named = naust_store::named_tables(to).unwrap();
    for entry in fs::read_dir(to).unwrap() {
        let path = entry.unwrap().path();
        let unnamed = path.extension().is_some_and(|extension| extension == "table")
            && !named.contains(&path);
        if (unnamed || path.ends_with("manifest.next")) && random.one_in(2) {
            let bytes = fs::read(&path).unwrap();
            let length = random.below(bytes.len() as u64 + 1) as usize;
            fs::write(&path, &bytes[..length]).unwrap();
        }
    }
}

#[test]
fn every_moment_is_a_moment_to_crash() {
    let directory = directory();
    let mut life = Life::new(directory.path(), 11);
    for _ in 0..60 {
        let commits = life.random.below(400);
        life.work(commits);
        life.crash(directory.path());
    }
    let flushed = life.tables.mark(TreeId::SHARD);
    assert!(flushed.applied > Offset::FIRST, "nothing was ever flushed");
}
