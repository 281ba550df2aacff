//! Which tables of a tree to merge next: pure rules over the shape of its runs.
//!
//! * **Levelled**: flushes wait as runs of level 0; some of them together are merged into level 1,
//!   whose overflow is merged table by table into level 2, and so on. Each level above 0 is one
//!   run.
//! * **Write-optimised**: runs of about one size, next to each other in age, are merged into one. A
//!   row is rewritten once a size class.
//! * **FIFO**: nothing is merged but runs too small to be tables of their own; tables go whole when
//!   all of their rows lie below the retention floor. (Under the other two they do as well.)
//!
//! Every plan keeps the order of runs: what it merges lies side by side in age, or overlaps nothing
//! between.

use crate::cache::StoreOptions;
use crate::view::Run;
use naust_wire::options::Compaction;
use std::sync::Arc;

/// What is to be done with some tables of a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Plan {
    /// Merge them into new tables in this level; in level 0, as a run in the place of the oldest.
    Merge {
        /// Tables.
        inputs: Vec<u64>,
        /// Where the new tables go.
        level: u8,
    },
    /// Move them as they are into this level.
    Move {
        /// Tables.
        inputs: Vec<u64>,
        /// Where they go.
        level: u8,
    },
    /// Forget them: all their rows lie below the retention floor.
    Drop {
        /// Tables.
        inputs: Vec<u64>,
    },
}

impl Plan {
    /// The tables that the plan takes.
    pub fn inputs(&self) -> &[u64] {
        match self {
            Plan::Merge { inputs, .. } | Plan::Move { inputs, .. } | Plan::Drop { inputs } => {
                inputs
            }
        }
    }
}

/// A table, as far as strategies care.
#[derive(Clone, Debug)]
pub(crate) struct TableShape {
    id: u64,
    bytes: u64,
    newest: u64,
    first_key: Vec<u8>,
    last_key: Vec<u8>,
}

/// A run, as far as strategies care.
#[derive(Clone, Debug)]
pub(crate) struct RunShape {
    level: u8,
    tables: Vec<TableShape>,
}

impl RunShape {
    fn bytes(&self) -> u64 {
        self.tables.iter().map(|table| table.bytes).sum()
    }

    fn overlapping<'a>(
        &'a self,
        first: &'a [u8],
        last: &'a [u8],
    ) -> impl Iterator<Item = &'a TableShape> {
        self.tables.iter().filter(move |table| {
            table.first_key.as_slice() <= last && table.last_key.as_slice() >= first
        })
    }
}

/// The shape of runs.
pub(crate) fn shape(runs: &[Arc<Run>]) -> Vec<RunShape> {
    let table = |table: &Arc<crate::table::Table>| TableShape {
        id: table.record().id,
        bytes: table.record().bytes,
        newest: table.record().newest,
        first_key: table.first_key().to_vec(),
        last_key: table.last_key().to_vec(),
    };
    let run = |run: &Arc<Run>| RunShape {
        level: run.level(),
        tables: run.tables().iter().map(table).collect(),
    };
    runs.iter().map(run).collect()
}

/// What a plan goes by beside the shape.
pub(crate) struct When {
    /// The tree's strategy.
    pub compaction: Compaction,
    /// Rows below this offset may go.
    pub retention_floor: u64,
    /// Readers have paid for a merge of what waits for one, however little that is.
    pub readers_pay: bool,
}

/// The next plan for a tree, if any is due. `runs`: newest first.
pub(crate) fn choose(when: &When, runs: &[RunShape], options: &StoreOptions) -> Option<Plan> {
    expired(runs, when.retention_floor).or_else(|| match when.compaction {
        Compaction::Levelled => levelled(runs, options, when.readers_pay),
        Compaction::WriteOptimised => write_optimised(runs, options, when.readers_pay),
        Compaction::Fifo => fifo(runs, options),
    })
}

/// Runs that wait for a merge.
pub(crate) fn backlog(compaction: Compaction, runs: &[RunShape], options: &StoreOptions) -> usize {
    match compaction {
        Compaction::Levelled => runs.iter().filter(|run| run.level == 0).count(),
        // Runs of one size class that have not been merged yet; the rest is as it should be.
        Compaction::WriteOptimised => alike(runs).map_or(0, |(_, count)| count),
        Compaction::Fifo => runs.iter().take_while(|run| is_small(run, options)).count(),
    }
}

fn ids<'a>(tables: impl IntoIterator<Item = &'a TableShape>) -> Vec<u64> {
    tables.into_iter().map(|table| table.id).collect()
}

fn expired(runs: &[RunShape], retention_floor: u64) -> Option<Plan> {
    let tables = runs.iter().flat_map(|run| &run.tables);
    let inputs = ids(tables.filter(|table| table.newest < retention_floor));
    (!inputs.is_empty()).then_some(Plan::Drop { inputs })
}

fn levelled(runs: &[RunShape], options: &StoreOptions, readers_pay: bool) -> Option<Plan> {
    let flushed: Vec<&RunShape> = runs.iter().filter(|run| run.level == 0).collect();
    let waiting = flushed.len() as f64 / options.flushes_per_merge as f64;
    let fullest = runs
        .iter()
        .filter(|run| run.level > 0)
        .map(|run| (run.bytes() as f64 / level_bytes(run.level, options), run))
        .max_by(|one, other| one.0.total_cmp(&other.0));
    match fullest {
        Some((fullness, run)) if fullness > waiting.max(1.0) => Some(overflow(run, runs)),
        _ if waiting >= 1.0 || (readers_pay && waiting > 0.0 && runs.len() > 1) => {
            Some(settle(&flushed, runs, options))
        }
        _ => None,
    }
}

fn level_bytes(level: u8, options: &StoreOptions) -> f64 {
    options.level_bytes as f64 * (options.level_ratio as f64).powi(i32::from(level) - 1)
}

/// Level 0 into level 1.
fn settle(flushed: &[&RunShape], runs: &[RunShape], options: &StoreOptions) -> Plan {
    let first_level = runs.iter().find(|run| run.level == 1);
    // Keys that only grow, as of a journal: the oldest flushes overlap nothing and need no
    // rewriting.
    let mut inputs: Vec<&TableShape> = Vec::new();
    for run in flushed.iter().rev() {
        let apart = run.tables.iter().all(|table| {
            let overlaps = |other: &&TableShape| {
                table.first_key <= other.last_key && table.last_key >= other.first_key
            };
            table.bytes >= options.table_bytes / 4
                && !inputs.iter().any(&overlaps)
                && !first_level
                    .is_some_and(|level| level.tables.iter().any(|other| overlaps(&other)))
        });
        if !apart {
            break;
        }
        inputs.extend(&run.tables);
    }
    if !inputs.is_empty() {
        return Plan::Move { inputs: ids(inputs), level: 1 };
    }
    let tables = || flushed.iter().flat_map(|run| &run.tables);
    let first = tables().map(|table| &table.first_key).min().expect("a run has a table");
    let last = tables().map(|table| &table.last_key).max().expect("a run has a table");
    let mut inputs = ids(tables());
    if let Some(level) = first_level {
        inputs.extend(ids(level.overlapping(first, last)));
        // A small neighbour at the lower end is taken along, or a journal would leave crumbs for
        // ever.
        let before = level.tables.iter().rev().find(|table| table.last_key < *first);
        inputs.extend(
            before.filter(|table| table.bytes < options.table_bytes / 2).map(|table| table.id),
        );
    }
    Plan::Merge { inputs, level: 1 }
}

/// The table of a level that is cheapest to merge into the next one.
fn overflow(run: &RunShape, runs: &[RunShape]) -> Plan {
    let level = run.level + 1;
    let next = runs.iter().find(|run| run.level == level);
    let cost = |table: &TableShape| {
        let bytes: u64 = below(table, next).iter().map(|table| table.bytes).sum();
        bytes as f64 / table.bytes as f64
    };
    let costs = run.tables.iter().map(|table| (cost(table), table));
    let cheapest = costs.min_by(|one, other| one.0.total_cmp(&other.0));
    let (_, table) = cheapest.expect("a run has a table");
    let below = below(table, next);
    if below.is_empty() {
        return Plan::Move { inputs: vec![table.id], level };
    }
    Plan::Merge { inputs: ids(std::iter::once(table).chain(below)), level }
}

fn below<'a>(table: &'a TableShape, next: Option<&'a RunShape>) -> Vec<&'a TableShape> {
    let overlapping = |next: &'a RunShape| next.overlapping(&table.first_key, &table.last_key);
    next.map_or(Vec::new(), |next| overlapping(next).collect())
}

fn write_optimised(runs: &[RunShape], options: &StoreOptions, readers_pay: bool) -> Option<Plan> {
    let (start, count) = alike(runs)?;
    let least = if readers_pay { 2 } else { options.runs_per_merge };
    (count >= least).then(|| merge_runs(&runs[start..start + count]))
}

/// The longest sequence of neighbouring runs none of which is more than twice as large as every
/// newer one of the sequence: where it begins, and how many there are.
fn alike(runs: &[RunShape]) -> Option<(usize, usize)> {
    let bytes: Vec<u64> = runs.iter().map(RunShape::bytes).collect();
    let sequence = |start: usize| {
        let mut largest = bytes[start];
        let mut count = 1;
        for next in &bytes[start + 1..] {
            if *next > largest * 2 {
                break;
            }
            largest = largest.max(*next);
            count += 1;
        }
        (start, count)
    };
    (0..runs.len()).map(sequence).max_by_key(|(start, count)| (*count, std::cmp::Reverse(*start)))
}

fn fifo(runs: &[RunShape], options: &StoreOptions) -> Option<Plan> {
    let is_crumb = |run: &RunShape| is_small(run, options);
    let start = runs.iter().position(is_crumb)?;
    let count = runs[start..].iter().take_while(|run| is_crumb(run)).count();
    (count >= options.runs_per_merge).then(|| merge_runs(&runs[start..start + count]))
}

fn is_small(run: &RunShape, options: &StoreOptions) -> bool {
    run.level == 0 && run.bytes() < options.table_bytes / 4
}

/// Whole neighbouring runs into one, in the place of the oldest.
fn merge_runs(runs: &[RunShape]) -> Plan {
    let level = runs.iter().map(|run| run.level).max().unwrap_or(0);
    Plan::Merge { inputs: ids(runs.iter().flat_map(|run| &run.tables)), level }
}

#[cfg(test)]
mod tests {
    use super::{Plan, RunShape, TableShape, When, backlog, choose};
    use crate::cache::{Cache, StoreOptions};
    use naust_wire::options::Compaction::{self, Fifo, Levelled, WriteOptimised};

    /// Runs, newest first, as `level:` and tables `first-last=bytes`, numbered from 1 as they are
    /// named.
    fn shape(text: &str) -> Vec<RunShape> {
        let mut id = 0;
        let mut table = |text: &str| {
            let (keys, bytes) = text.split_once('=').unwrap();
            let (first, last) = keys.split_once('-').unwrap();
            id += 1;
            let (first_key, last_key) = (first.as_bytes().to_vec(), last.as_bytes().to_vec());
            TableShape { id, bytes: bytes.parse().unwrap(), newest: id * 10, first_key, last_key }
        };
        let mut run = |text: &str| {
            let (level, tables) = text.split_once(':').unwrap();
            let tables = tables.split_whitespace().map(&mut table).collect();
            RunShape { level: level.trim().parse().unwrap(), tables }
        };
        text.split('|').filter(|text| !text.is_empty()).map(&mut run).collect()
    }

    fn options() -> StoreOptions {
        let mut options = StoreOptions::new(Cache::new(0, 1));
        options.table_bytes = 40;
        options.level_bytes = 100;
        options.flushes_per_merge = 2;
        options.runs_per_merge = 3;
        options
    }

    fn planned(compaction: Compaction, runs: &str) -> String {
        told(&When { compaction, retention_floor: 0, readers_pay: false }, runs)
    }

    fn planned_above(compaction: Compaction, runs: &str, retention_floor: u64) -> String {
        told(&When { compaction, retention_floor, readers_pay: false }, runs)
    }

    fn planned_for_readers(compaction: Compaction, runs: &str) -> String {
        told(&When { compaction, retention_floor: 0, readers_pay: true }, runs)
    }

    fn told(when: &When, runs: &str) -> String {
        match choose(when, &shape(runs), &options()) {
            None => "nothing".to_string(),
            Some(Plan::Merge { inputs, level }) => format!("merge {inputs:?} into {level}"),
            Some(Plan::Move { inputs, level }) => format!("move {inputs:?} into {level}"),
            Some(Plan::Drop { inputs }) => format!("drop {inputs:?}"),
        }
    }

    #[test]
    fn levelled_merges_flushes_with_what_they_overlap() {
        assert_eq!(planned(Levelled, ""), "nothing");
        assert_eq!(planned(Levelled, "0:a-z=9"), "nothing");
        assert_eq!(planned(Levelled, "0:a-c=9|0:b-e=9"), "merge [1, 2] into 1");
        let level = "1:a-d=30 e-g=30 x-z=30";
        assert_eq!(
            planned(Levelled, &format!("0:f-k=9|0:h-k=9|{level}")),
            "merge [1, 2, 4] into 1"
        );
        // A small neighbour is taken along.
        assert_eq!(
            planned(Levelled, "0:f-k=9|0:h-k=9|1:a-b=19 c-d=19 x-z=30"),
            "merge [1, 2, 4] into 1"
        );
    }

    /// Why: many reads are worth a merge of fewer runs, but not of what is merged already.
    #[test]
    fn runs_that_readers_paid_for_are_merged_early() {
        assert_eq!(planned_for_readers(Levelled, "0:a-c=9"), "nothing");
        assert_eq!(planned_for_readers(Levelled, "1:a-c=9 e-g=9"), "nothing");
        assert_eq!(planned(Levelled, "0:f-k=9|1:a-d=30 e-g=30"), "nothing");
        assert_eq!(planned_for_readers(Levelled, "0:f-k=9|1:a-d=30 e-g=30"), "merge [1, 3] into 1");
        assert_eq!(planned(WriteOptimised, "0:a-c=9|0:b-e=9"), "nothing");
        assert_eq!(planned_for_readers(WriteOptimised, "0:a-c=9|0:b-e=9"), "merge [1, 2] into 0");
        assert_eq!(planned_for_readers(WriteOptimised, "0:a-c=9|0:b-e=90"), "nothing");
        assert_eq!(planned_for_readers(Fifo, "0:a-c=9|0:b-e=9"), "nothing");
    }

    #[test]
    fn levelled_moves_what_overlaps_nothing() {
        assert_eq!(planned(Levelled, "0:k-m=20|0:g-j=20|1:a-f=40"), "move [2, 1] into 1");
        // The newer of two that overlap stays, and so does what is too small to be a table.
        assert_eq!(planned(Levelled, "0:g-m=20|0:g-j=20|1:a-f=40"), "move [2] into 1");
        assert_eq!(planned(Levelled, "0:k-m=9|0:g-j=9|1:a-f=40"), "merge [1, 2] into 1");
        assert_eq!(planned(Levelled, "0:k-m=20|0:e-j=20|1:a-f=40"), "merge [1, 2, 3] into 1");
    }

    #[test]
    fn levelled_empties_the_fullest_level_at_the_least_cost() {
        let deep = "2:a-c=40 d-f=40 g-p=40";
        assert_eq!(
            planned(Levelled, &format!("1:a-d=40 e-h=40 i-o=40|{deep}")),
            "merge [3, 6] into 2"
        );
        assert_eq!(planned(Levelled, &format!("1:a-d=40 e-h=40 q-s=40|{deep}")), "move [3] into 2");
        assert_eq!(planned(Levelled, &format!("1:a-d=40 e-h=40|{deep}")), "nothing");
        // Many flushes are more urgent than a level that is a little too full.
        let flushes = "0:a-b=9|0:a-b=9|0:a-b=9|0:a-b=9";
        assert_eq!(
            planned(Levelled, &format!("{flushes}|1:a-d=40 e-h=40 q-s=40|{deep}")),
            "merge [1, 2, 3, 4, 5] into 1"
        );
    }

    #[test]
    fn write_optimised_merges_neighbours_of_one_size() {
        assert_eq!(planned(WriteOptimised, "0:a-z=10|0:a-z=10"), "nothing");
        assert_eq!(
            planned(WriteOptimised, "0:a-z=10|0:a-z=12|0:a-z=9|0:a-z=90"),
            "merge [1, 2, 3] into 0"
        );
        assert_eq!(
            planned(WriteOptimised, "0:a-z=10|0:a-z=80|0:a-k=40 l-z=41|0:a-z=90"),
            "merge [2, 3, 4, 5] into 0"
        );
        // What was levelled before keeps its place below.
        assert_eq!(
            planned(WriteOptimised, "0:a-z=10|0:a-z=12|1:a-z=9|2:a-z=90"),
            "merge [1, 2, 3] into 1"
        );
    }

    #[test]
    fn fifo_merges_crumbs_only() {
        assert_eq!(planned(Fifo, "0:a-b=40|0:a-b=40|0:a-b=40|0:a-b=40"), "nothing");
        assert_eq!(
            planned(Fifo, "0:a-b=40|0:a-b=9|0:a-b=9|0:a-b=5|0:a-b=40"),
            "merge [2, 3, 4] into 0"
        );
    }

    #[test]
    fn tables_below_the_retention_floor_go_whole() {
        for compaction in [Levelled, WriteOptimised, Fifo] {
            let runs = "0:a-b=9|0:a-b=9|1:a-b=40 c-d=40";
            assert_eq!(planned_above(compaction, runs, 21), "drop [1, 2]");
        }
    }

    #[test]
    fn the_backlog_is_what_waits() {
        let count = |compaction, runs| backlog(compaction, &shape(runs), &options());
        assert_eq!(count(Levelled, "0:a-b=9|0:a-b=9|1:a-b=9"), 2);
        assert_eq!(count(WriteOptimised, "0:a-b=9|0:a-b=9|0:a-b=90|0:a-b=900"), 2);
        assert_eq!(count(Fifo, "0:a-b=9|0:a-b=40|0:a-b=40"), 1);
    }
}
