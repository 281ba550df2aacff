//! Background work: flushes and compactions. Run on any thread, beside the owner, readers and each
//! other.

use crate::history::{Floors, History};
use crate::memtable::Memtable;
use crate::merge::{Merge, Source};
use crate::row::Row;
use crate::shard::{OnDisk, Shard, Tree, without};
use crate::strategy::Plan;
use crate::table::Table;
use crate::view::{Run, Runs, View};
use crate::writer::{Layout, NewTables, TableWriter};
use naust_machine::{Fault, Mark, TablesJob, TreeId};
use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

/// Rows between two looks whether the tables were closed.
const ROWS_PER_LOOK: u64 = 1024;

/// What was sealed together and is to become durable together.
pub(crate) struct Unit {
    /// The last frame in it.
    pub mark: Mark,
    /// Its trees, the shard tree first.
    pub trees: Vec<UnitTree>,
}

/// A tree in a unit.
pub(crate) struct UnitTree {
    /// Its id.
    pub id: TreeId,
    /// The tree.
    pub tree: Arc<Tree>,
    /// Its rows; none, if it had no new ones.
    pub memtable: Option<Arc<Memtable>>,
}

/// A flush or a compaction. See [`TablesJob`].
pub struct LsmJob {
    pub(crate) shard: Arc<Shard>,
    pub(crate) work: Work,
}

/// What a job does.
pub(crate) enum Work {
    /// Writes a unit's memtables and makes its mark durable.
    Flush(Unit),
    /// Carries out a plan for a tree, given the runs it was made for.
    Compact { id: TreeId, tree: Arc<Tree>, runs: Runs, plan: Plan },
}

/// The end of a job, to be given to `Tables::done`.
pub struct LsmDone {
    /// Whose job it was.
    pub(crate) of: Weak<Shard>,
    pub(crate) ended: Ended,
    pub(crate) result: Result<(), Fault>,
}

/// Which job ended.
pub(crate) enum Ended {
    /// The oldest unit's flush.
    Flush,
    /// This tree's compaction.
    Compact(TreeId),
}

impl LsmJob {
    /// Whether memory waits for it, so that it should not wait for long itself.
    #[must_use]
    pub fn is_flush(&self) -> bool {
        matches!(self.work, Work::Flush(_))
    }
}

impl TablesJob for LsmJob {
    type Done = LsmDone;

    fn run(self) -> LsmDone {
        let LsmJob { shard, work } = self;
        let (inside, of) = (shard.clone(), Arc::downgrade(&shard));
        // What a job holds goes with its body, so that the sweep after it finds nothing held.
        match work {
            Work::Flush(unit) => {
                let result = shard.run(move || flush(&inside, &unit));
                LsmDone { of, ended: Ended::Flush, result }
            }
            Work::Compact { id, tree, runs, plan } => {
                let result = shard.run(move || compact(&inside, id, &tree, &runs, &plan));
                LsmDone { of, ended: Ended::Compact(id), result }
            }
        }
    }
}

fn flush(shard: &Shard, unit: &Unit) -> Result<(), Fault> {
    let mut created = NewTables::default();
    let mut runs: BTreeMap<TreeId, Arc<Run>> = BTreeMap::new();
    for UnitTree { id, tree, memtable } in &unit.trees {
        let Some(memtable) = memtable else {
            continue;
        };
        let older = tree.view().runs.clone();
        let rows: Source<'_> = Box::new(memtable.all().map(Ok));
        let exists = |key: &[u8]| older.iter().any(|run| run.table_of(key).is_some());
        let layout = layout(tree, false);
        let tables = write(shard, layout, shard.floors(tree), vec![rows], exists)?;
        if !tables.tables().is_empty() {
            runs.insert(*id, run(0, tables.tables().to_vec()));
            created.extend(tables);
        }
    }
    let change = |disk: &mut BTreeMap<TreeId, OnDisk>| {
        for UnitTree { id, .. } in &unit.trees {
            let tree = disk.entry(*id).or_default();
            tree.mark = unit.mark;
            if let Some(run) = runs.get(id) {
                tree.runs = Arc::new(std::iter::once(run).chain(&*tree.runs).cloned().collect());
            }
        }
    };
    let show = |disk: &BTreeMap<TreeId, OnDisk>| {
        for UnitTree { id, tree, memtable } in &unit.trees {
            tree.change(|view| View {
                active: view.active.clone(),
                sealed: without(&view.sealed, memtable.as_ref()),
                runs: disk[id].runs.clone(),
                looks: view.looks.clone(),
            });
        }
    };
    shard.commit(created, Vec::new(), change, show)
}

fn compact(shard: &Shard, id: TreeId, tree: &Tree, runs: &Runs, plan: &Plan) -> Result<(), Fault> {
    let is_input = |table: &Table| plan.inputs().contains(&table.record().id);
    let inputs = runs.iter().flat_map(|run| run.tables()).filter(|table| is_input(table));
    let (created, outputs, level, retired) = match plan {
        Plan::Drop { .. } => (NewTables::default(), Vec::new(), 0, inputs.cloned().collect()),
        Plan::Move { level, .. } => {
            (NewTables::default(), inputs.cloned().collect(), *level, Vec::new())
        }
        Plan::Merge { level, .. } => {
            let created = merge(shard, tree, runs, &is_input)?;
            let outputs = created.tables().to_vec();
            (created, outputs, *level, inputs.cloned().collect())
        }
    };
    let change = |disk: &mut BTreeMap<TreeId, OnDisk>| {
        let tree = disk.entry(id).or_default();
        tree.runs = Arc::new(replace(&tree.runs, &is_input, outputs, level));
    };
    let show = |disk: &BTreeMap<TreeId, OnDisk>| {
        tree.change(|view| View {
            active: view.active.clone(),
            sealed: view.sealed.clone(),
            runs: disk[&id].runs.clone(),
            looks: view.looks.clone(),
        });
    };
    shard.commit(created, retired, change, show)
}

fn merge(
    shard: &Shard,
    tree: &Tree,
    runs: &Runs,
    is_input: &dyn Fn(&Table) -> bool,
) -> Result<NewTables, Fault> {
    let mut sources: Vec<Source<'_>> = Vec::new();
    let mut oldest_input = 0;
    for (at, run) in runs.iter().enumerate() {
        let mut tables = run.tables().to_vec();
        tables.retain(|table| is_input(table));
        if !tables.is_empty() {
            oldest_input = at;
            sources.push(Box::new(Chain { tables: tables.into_iter(), rows: None }));
        }
    }
    // Runs between the inputs hold no key of theirs, so only later ones can hide something beneath
    // a deletion.
    let exists =
        |key: &[u8]| runs[oldest_input + 1..].iter().any(|run| run.table_of(key).is_some());
    let inputs = runs.iter().flat_map(|run| run.tables()).filter(|table| is_input(table));
    let bytes: u64 = inputs.map(|table| table.record().bytes).sum();
    let in_parts = bytes > shard.directory.options.whole_bytes;
    write(shard, layout(tree, in_parts), shard.floors(tree), sources, exists)
}

fn layout(tree: &Tree, in_parts: bool) -> Layout<'_> {
    let compressible = &tree.compressible;
    Layout { compression: tree.options().compression, compressible, in_parts }
}

/// Merges sources, the newest first, into new tables, without the versions that have ended.
fn write(
    shard: &Shard,
    layout: Layout<'_>,
    floors: Floors,
    sources: Vec<Source<'_>>,
    older_exists: impl Fn(&[u8]) -> bool,
) -> Result<NewTables, Fault> {
    let mut merge = Merge::up(sources)?;
    let mut history = History::new(floors);
    let mut writer = TableWriter::new(&shard.directory, layout);
    let mut rows = 0_u64;
    while let Some(row) = merge.next()? {
        rows += 1;
        if rows.is_multiple_of(ROWS_PER_LOOK) && shard.is_closed() {
            return Err(Fault { what: "the tables were closed".to_string(), disk_full: false });
        }
        if history.keeps(&row, &older_exists) {
            writer.write(row)?;
        }
    }
    writer.finish()
}

/// The rows of tables in key order, one table open at a time.
struct Chain {
    tables: std::vec::IntoIter<Arc<Table>>,
    rows: Option<Box<dyn Iterator<Item = Result<Row, Fault>>>>,
}

impl Iterator for Chain {
    type Item = Result<Row, Fault>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(row) = self.rows.as_mut().and_then(Iterator::next) {
                return Some(row);
            }
            match self.tables.next()?.scan() {
                Ok(rows) => self.rows = Some(Box::new(rows)),
                Err(fault) => return Some(Err(fault)),
            }
        }
    }
}

/// Runs without the inputs of a plan and with its outputs: in `level`'s run, or, in level 0, as a
/// run of their own where the oldest input was.
fn replace(
    runs: &[Arc<Run>],
    is_input: &dyn Fn(&Table) -> bool,
    outputs: Vec<Arc<Table>>,
    level: u8,
) -> Vec<Arc<Run>> {
    let mut kept: Vec<Arc<Run>> = Vec::with_capacity(runs.len() + 1);
    let mut place = 0;
    for old in runs {
        let touched = old.tables().iter().any(|table| is_input(table));
        let mut tables = old.tables().to_vec();
        tables.retain(|table| !is_input(table));
        if !tables.is_empty() {
            kept.push(run(old.level(), tables));
        }
        if touched {
            place = kept.len();
        }
    }
    if outputs.is_empty() {
        return kept;
    }
    if level > 0 {
        place = kept.iter().position(|run| run.level() >= level).unwrap_or(kept.len());
        if let Some(old) = kept.get_mut(place).filter(|run| run.level() == level) {
            *old = run(level, old.tables().iter().cloned().chain(outputs).collect());
            return kept;
        }
    }
    kept.insert(place, run(level, outputs));
    kept
}

fn run(level: u8, tables: Vec<Arc<Table>>) -> Arc<Run> {
    Arc::new(Run::new(level, tables).expect("what a merge or a move puts side by side is apart"))
}
