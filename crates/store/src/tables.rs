//! The tables of one shard, as the machine sees them.

use crate::cache::StoreOptions;
use crate::fault;
use crate::job::{Ended, LsmDone, LsmJob, Unit, UnitTree, Work};
use crate::manifest::{self, Manifest, TreeRecord};
use crate::memtable::Memtable;
use crate::reader::LsmReader;
use crate::shard::{OnDisk, Shard, Tree};
use crate::strategy::{self, When};
use crate::table::Table;
use crate::view::{Run, View};
use crate::writer::Directory;
use naust_machine::{Fault, Mark, Tables, TreeId};
use naust_wire::Offset;
use naust_wire::limits::KEY_BYTES_MAX;
use naust_wire::options::KeyspaceOptions;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs::{self, File};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

/// Numbers under which caches know the shards of this process.
static NEXT_TREE: AtomicU64 = AtomicU64::new(0);

/// What the owner keeps of a tree.
struct Owned {
    tree: Arc<Tree>,
    active: Arc<Memtable>,
    mark: Mark,
    compacting: bool,
    /// Runs that wait for a compaction.
    backlog: usize,
}

/// What was sealed together. The memory itself belongs to the views, so that the flush that takes
/// it out of them is the last to hold it: freeing it takes tens of milliseconds, too long for the
/// owner.
struct Sealed {
    mark: Mark,
    bytes: u64,
    trees: Vec<(TreeId, Weak<Memtable>)>,
}

/// The tables of one shard, on disk. See [`Tables`].
///
/// Dropping it stops its running jobs and waits for them; jobs that have not begun do nothing any
/// more.
pub struct LsmTables {
    shard: Arc<Shard>,
    trees: BTreeMap<TreeId, Owned>,
    units: VecDeque<Sealed>,
    flushing: bool,
    /// Trees that may need a compaction.
    restless: BTreeSet<TreeId>,
}

impl LsmTables {
    /// Opens the tables in a directory, which is made if there is none, with an empty manifest if
    /// there is none: from then on, a directory without one has lost it. Nothing else may have it
    /// open.
    ///
    /// # Errors
    /// [`Fault`]: the directory can't be read or written, or a file in it is damaged, missing, or
    /// of a newer format.
    pub fn open(path: &Path, options: StoreOptions) -> Result<LsmTables, Fault> {
        make_directory(path)?;
        let manifest = match Manifest::read(path)? {
            Some(manifest) => manifest,
            None => {
                let empty = Manifest::default();
                empty.write(path)??;
                empty
            }
        };
        remove_strangers(path, &manifest)?;
        let directory = Directory {
            path: path.to_path_buf(),
            tree: NEXT_TREE.fetch_add(1, Ordering::Relaxed),
            next_table: AtomicU64::new(manifest.next_table),
            options,
        };
        let mut trees = BTreeMap::new();
        for record in manifest.trees {
            let runs = open_runs(&directory, &record)?;
            let disk = OnDisk { mark: record.mark, runs: Arc::new(runs) };
            trees.insert(TreeId(record.id), (record.options, disk));
        }
        let marks: Vec<(TreeId, Mark)> =
            trees.iter().map(|(id, (_, disk))| (*id, disk.mark)).collect();
        let shard = Arc::new(Shard::new(directory, trees));
        let owned = |(id, mark): (TreeId, Mark)| {
            let tree = shard.tree(id).expect("the shard was made with this tree");
            (
                id,
                Owned {
                    active: tree.view().active.clone(),
                    tree,
                    mark,
                    compacting: false,
                    backlog: 0,
                },
            )
        };
        let trees: BTreeMap<TreeId, Owned> = marks.into_iter().map(owned).collect();
        let restless = trees.keys().copied().collect();
        Ok(LsmTables { shard, trees, units: VecDeque::new(), flushing: false, restless })
    }

    /// A unit with its memory, for its flush.
    fn unit(&self, sealed: &Sealed) -> Unit {
        let tree = |(id, memtable): &(TreeId, Weak<Memtable>)| {
            let tree = self.trees[id].tree.clone();
            UnitTree { id: *id, tree, memtable: memtable.upgrade() }
        };
        Unit { mark: sealed.mark, trees: sealed.trees.iter().map(tree).collect() }
    }

    /// A tree's tables have changed: it may need a compaction.
    fn stir(&mut self, id: TreeId) {
        let owned = self.trees.get_mut(&id).expect("trees never go");
        let shape = strategy::shape(&owned.tree.view().runs);
        let options = &self.shard.directory.options;
        owned.backlog = strategy::backlog(owned.tree.options().compaction, &shape, options);
        self.restless.insert(id);
    }

    fn plan(&self, id: TreeId, owned: &Owned) -> Option<LsmJob> {
        let view = owned.tree.view();
        let runs = view.runs.clone();
        let options = &self.shard.directory.options;
        let when = When {
            compaction: owned.tree.options().compaction,
            retention_floor: owned.tree.retention_floor(),
            readers_pay: view.looks.are_worth_a_merge(&runs),
        };
        if when.readers_pay {
            view.looks.forget();
        }
        let plan = strategy::choose(&when, &strategy::shape(&runs), options)?;
        let work = Work::Compact { id, tree: owned.tree.clone(), runs, plan };
        Some(LsmJob { shard: self.shard.clone(), work })
    }
}

impl Tables for LsmTables {
    type Reader = LsmReader;
    type Job = LsmJob;

    fn reader(&self) -> LsmReader {
        LsmReader::new(self.shard.clone())
    }

    fn make(&mut self, id: TreeId, options: &KeyspaceOptions) -> Result<(), Fault> {
        if let Some(owned) = self.trees.get(&id) {
            owned.tree.set_options(*options);
            self.restless.insert(id);
            return Ok(());
        }
        let tree = Arc::new(Tree::new(*options, Arc::default()));
        self.shard.add_tree(id, tree.clone());
        let active = tree.view().active.clone();
        let owned = Owned { tree, active, mark: Mark::default(), compacting: false, backlog: 0 };
        self.trees.insert(id, owned);
        Ok(())
    }

    fn trees(&self) -> Vec<TreeId> {
        self.trees.keys().copied().collect()
    }

    fn put(
        &mut self,
        id: TreeId,
        key: &[u8],
        at: Offset,
        value: Option<&[u8]>,
    ) -> Result<(), Fault> {
        assert!(key.len() <= KEY_BYTES_MAX, "a key was let through that is too long");
        let owned = self.trees.get(&id).expect("a row is put into a tree that was made");
        owned.active.insert(key, at.0, value);
        Ok(())
    }

    fn unflushed_bytes(&self, id: TreeId) -> u64 {
        self.trees.get(&id).map_or(0, |owned| owned.active.bytes())
    }

    fn flushing_bytes(&self) -> u64 {
        self.units.iter().map(|unit| unit.bytes).sum()
    }

    fn backlog(&self) -> usize {
        self.restless.iter().map(|id| self.trees[id].backlog).max().unwrap_or(0)
    }

    fn rotate(&mut self, trees: &[TreeId], mark: Mark) -> Result<(), Fault> {
        let mut order: Vec<TreeId> = trees.to_vec();
        order.sort_unstable();
        order.dedup();
        let mut unit = Sealed { mark, bytes: 0, trees: Vec::with_capacity(order.len()) };
        for id in order {
            let owned = self.trees.get_mut(&id).expect("a tree is rotated that was made");
            let mut memtable = Weak::new();
            if !owned.active.is_empty() {
                let sealed = std::mem::take(&mut owned.active);
                memtable = Arc::downgrade(&sealed);
                unit.bytes += sealed.bytes();
                owned.tree.change(|view| View {
                    active: owned.active.clone(),
                    sealed: std::iter::once(&sealed).chain(&view.sealed).cloned().collect(),
                    runs: view.runs.clone(),
                    looks: view.looks.clone(),
                });
            }
            unit.trees.push((id, memtable));
        }
        self.units.push_back(unit);
        Ok(())
    }

    fn mark(&self, id: TreeId) -> Mark {
        self.trees.get(&id).map(|owned| owned.mark).unwrap_or_default()
    }

    fn set_history_floor(&mut self, floor: Offset) {
        self.shard.history_floor.store(floor.0, Ordering::Relaxed);
    }

    fn set_retention_floor(&mut self, id: TreeId, floor: Offset) {
        if let Some(owned) = self.trees.get(&id) {
            owned.tree.set_retention_floor(floor.0);
            self.restless.insert(id);
        }
    }

    fn look_again(&mut self) -> bool {
        let pay = |owned: &Owned| {
            let view = owned.tree.view();
            !owned.compacting && view.looks.are_worth_a_merge(&view.runs)
        };
        let paying = self.trees.iter().filter(|(_, owned)| pay(owned)).map(|(id, _)| *id);
        let before = self.restless.len();
        self.restless.extend(paying.collect::<Vec<_>>());
        self.restless.len() > before
    }

    fn job(&mut self) -> Option<LsmJob> {
        if !self.flushing
            && let Some(unit) = self.units.front()
        {
            self.flushing = true;
            let work = Work::Flush(self.unit(unit));
            return Some(LsmJob { shard: self.shard.clone(), work });
        }
        let candidates: Vec<TreeId> = self.restless.iter().copied().collect();
        for id in candidates {
            let owned = &self.trees[&id];
            if owned.compacting {
                continue;
            }
            if let Some(job) = self.plan(id, owned) {
                self.trees.get_mut(&id).expect("it was found above").compacting = true;
                return Some(job);
            }
            self.restless.remove(&id);
        }
        None
    }

    fn done(&mut self, done: LsmDone) -> Result<(), Fault> {
        // A job of tables that these took the place of, which were closed before: nobody waits.
        if !Weak::ptr_eq(&done.of, &Arc::downgrade(&self.shard)) {
            return Ok(());
        }
        match done.ended {
            Ended::Flush => {
                self.flushing = false;
                done.result?;
                let unit = self.units.pop_front().expect("a unit stays until it is flushed");
                for (id, _) in unit.trees {
                    self.trees.get_mut(&id).expect("trees never go").mark = unit.mark;
                    self.stir(id);
                }
            }
            Ended::Compact(id) => {
                self.trees.get_mut(&id).expect("trees never go").compacting = false;
                self.stir(id);
                if done.result.is_err() {
                    // Tried again after the next flush, not at once: the disk may be full.
                    self.restless.remove(&id);
                }
                done.result?;
            }
        }
        Ok(())
    }

    fn size(&self, id: TreeId) -> (u64, u64) {
        let Some(owned) = self.trees.get(&id) else {
            return (0, 0);
        };
        let view = owned.tree.view();
        let tables = || view.runs.iter().flat_map(|run| run.tables()).map(|table| table.record());
        let in_memory: u64 = view.memtables().map(|memtable| memtable.len()).sum();
        let on_disk: u64 = tables().map(|table| table.rows).sum();
        (tables().map(|table| table.bytes).sum(), on_disk + in_memory)
    }
}

impl Drop for LsmTables {
    fn drop(&mut self) {
        self.shard.close();
    }
}

fn make_directory(path: &Path) -> Result<(), Fault> {
    if path.is_dir() {
        return Ok(());
    }
    let made = fs::create_dir_all(path).and_then(|()| match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => File::open(parent)?.sync_all(),
        _ => Ok(()),
    });
    made.map_err(|error| fault::io("making directory", path, &error))
}

/// Removes what an interrupted job left: files that the manifest doesn't name.
fn remove_strangers(path: &Path, manifest: &Manifest) -> Result<(), Fault> {
    let doing = "looking through directory";
    let runs = manifest.trees.iter().flat_map(|tree| &tree.runs);
    let named: BTreeSet<String> =
        runs.flat_map(|(_, tables)| tables).map(|table| format!("{}.table", table.id)).collect();
    let entries = fs::read_dir(path).map_err(|error| fault::io(doing, path, &error))?;
    for entry in entries {
        let entry = entry.map_err(|error| fault::io(doing, path, &error))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let ours = name.ends_with(".table") || name == manifest::FILE_NEXT;
        if ours && !named.contains(&name) {
            let file = entry.path();
            fs::remove_file(&file).map_err(|error| fault::io("removing", &file, &error))?;
        }
    }
    Ok(())
}

fn open_runs(directory: &Directory, record: &TreeRecord) -> Result<Vec<Arc<Run>>, Fault> {
    let mut runs = Vec::with_capacity(record.runs.len());
    for (level, tables) in &record.runs {
        let open = |table: &crate::table::TableRecord| {
            let cache = &directory.options.cache;
            Table::open(&directory.path, table.clone(), directory.tree, cache).map(Arc::new)
        };
        let tables = tables.iter().map(open).collect::<Result<Vec<_>, Fault>>()?;
        let overlap = || {
            let path = directory.path.join(manifest::FILE);
            fault::damaged("reading", &path, "it puts tables into one run that overlap")
        };
        runs.push(Arc::new(Run::new(*level, tables).ok_or_else(overlap)?));
    }
    Ok(runs)
}

#[cfg(test)]
mod tests {
    use super::LsmTables;
    use crate::{Cache, StoreOptions};
    use naust_machine::{KeyRange, Mark, Tables, TablesJob, TablesReader, TreeId};
    use naust_wire::Offset;
    use naust_wire::options::KeyspaceOptions;
    use std::ops::ControlFlow;
    use std::sync::mpsc::channel;
    use std::time::Duration;

    fn run_jobs(tables: &mut LsmTables) {
        while let Some(job) = tables.job() {
            tables.done(job.run()).unwrap();
        }
    }

    /// Two runs of so many rows each, every other row in each.
    fn two_runs(tables: &mut LsmTables, rows: u64) {
        tables.make(TreeId::SHARD, &KeyspaceOptions::default()).unwrap();
        tables.make(TreeId(1), &KeyspaceOptions::default()).unwrap();
        let at = |round: u64| Offset((1 << 32) + 64 * round);
        for round in 0..2 {
            for row in 0..rows {
                let key = (2 * row + round).to_be_bytes();
                tables.put(TreeId(1), &key, at(round), Some(b"value")).unwrap();
            }
            let mark = Mark { applied: at(round), ..Mark::default() };
            tables.rotate(&[TreeId::SHARD, TreeId(1)], mark).unwrap();
            run_jobs(tables);
        }
    }

    /// Why: a merge waits for many flushes, and readers look into all of them meanwhile; when they
    /// have paid for it, it is done, once.
    #[test]
    fn readers_who_paid_for_a_merge_get_it() {
        const ROWS: u64 = 1000;
        let directory = tempfile::tempdir().unwrap();
        let options = StoreOptions::new(Cache::new(1 << 20, 8));
        let mut tables = LsmTables::open(directory.path(), options).unwrap();
        two_runs(&mut tables, ROWS);
        let runs = |tables: &LsmTables| tables.trees[&TreeId(1)].tree.view().runs.len();
        assert_eq!((runs(&tables), tables.look_again()), (2, false));

        let reader = tables.reader();
        let all = KeyRange { from: b"", to: None };
        let scan = |reverse| {
            let mut seen = 0;
            let visit = &mut |_: &[u8], _, _: &[u8]| {
                seen += 1;
                ControlFlow::Continue(())
            };
            reader.scan(TreeId(1), all, reverse, Offset::MAX, visit).unwrap();
            assert_eq!(seen, 2 * ROWS);
        };
        scan(false);
        assert!(!tables.look_again(), "a scan is no reason");
        let mut scans = 1;
        while !tables.look_again() {
            scans += 1;
            scan(scans % 2 == 0);
            assert!(scans < 100, "nothing is merged for readers");
        }
        // 64 Ki looks, of 2 × (16 + 2000 ÷ 2) each.
        assert_eq!(scans, 33);
        run_jobs(&mut tables);
        assert_eq!((runs(&tables), tables.look_again()), (1, false));
        for _ in 0..2 * scans {
            scan(false);
        }
        assert!(!tables.look_again(), "it is merged");
    }

    /// Why: gets pay, too, for the runs that have not what they look for.
    #[test]
    fn gets_pay_for_runs_that_they_look_into_in_vain() {
        const ROWS: u64 = 4000;
        let directory = tempfile::tempdir().unwrap();
        let options = StoreOptions::new(Cache::new(1 << 20, 8));
        let mut tables = LsmTables::open(directory.path(), options).unwrap();
        two_runs(&mut tables, ROWS);
        let reader = tables.reader();
        let mut gets = 0u64;
        while !tables.look_again() {
            for row in 0..2 * ROWS {
                let found = reader.get(TreeId(1), &row.to_be_bytes(), Offset::MAX).unwrap();
                assert!(found.is_some());
            }
            gets += 2 * ROWS;
            assert!(gets < 1 << 20, "nothing is merged for readers");
        }
        // Every other get looks into the newer run in vain.
        assert!((1 << 16..1 << 18).contains(&gets), "{gets} gets");
        run_jobs(&mut tables);
        assert_eq!(tables.trees[&TreeId(1)].tree.view().runs.len(), 1);
    }

    /// A manifest's sync may take as long as it likes: everything but the job that waits for it
    /// goes on.
    #[test]
    fn a_stuck_sync_holds_up_nobody_else() {
        let directory = tempfile::tempdir().unwrap();
        let options = StoreOptions::new(Cache::new(1 << 20, 8));
        let mut tables = LsmTables::open(directory.path(), options).unwrap();
        tables.make(TreeId::SHARD, &KeyspaceOptions::default()).unwrap();
        let mark = |at| Mark { applied: Offset(at), ..Mark::default() };
        let shard = tables.shard.clone();
        let syncing = shard.while_syncing();
        let (told, hear) = channel();
        let owner = std::thread::spawn(move || {
            tables.put(TreeId::SHARD, b"a", Offset(1 << 32), Some(b"1")).unwrap();
            tables.rotate(&[TreeId::SHARD], mark(1 << 32)).unwrap();
            let job = tables.job().unwrap();
            let job = std::thread::spawn(move || job.run());
            tables.make(TreeId(1), &KeyspaceOptions::default()).unwrap();
            tables.put(TreeId(1), b"b", Offset((1 << 32) + 64), Some(b"2")).unwrap();
            tables.rotate(&[TreeId::SHARD, TreeId(1)], mark((1 << 32) + 64)).unwrap();
            tables.set_history_floor(Offset(1 << 32));
            tables.set_retention_floor(TreeId(1), Offset(1));
            let (reader, mut seen) = (tables.reader(), 0);
            assert!(reader.get(TreeId::SHARD, b"a", Offset::MAX).unwrap().is_some());
            let all = KeyRange { from: b"", to: None };
            let visit = &mut |_: &[u8], _, _: &[u8]| {
                seen += 1;
                ControlFlow::Continue(())
            };
            reader.scan(TreeId(1), all, false, Offset::MAX, visit).unwrap();
            assert_eq!((seen, tables.backlog(), tables.size(TreeId(1))), (1, 0, (0, 1)));
            assert!(tables.job().is_none() && tables.flushing_bytes() > 0);
            assert_eq!(tables.mark(TreeId::SHARD), Mark::default());
            told.send(()).unwrap();
            (tables, job)
        });
        hear.recv_timeout(Duration::from_secs(60)).expect("nothing waits for the sync");
        drop(syncing);
        let (mut tables, job) = owner.join().unwrap();
        tables.done(job.join().unwrap()).unwrap();
        assert_eq!(tables.mark(TreeId::SHARD), mark(1 << 32));
    }
}
