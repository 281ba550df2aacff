//! What a reader of one tree sees: memory and tables at one moment, never changed, only replaced.

use crate::looks::Looks;
use crate::memtable::Memtable;
use crate::merge::{Merge, Source};
use crate::row::{Row, RowKey};
use crate::table::Table;
use lsm_tree::table::filter::standard_bloom::Builder as Bloom;
use naust_machine::{Fault, KeyRange};
use std::ops::ControlFlow;
use std::sync::Arc;

/// Tables with no key in common, in key order.
pub(crate) struct Run {
    level: u8,
    tables: Vec<Arc<Table>>,
}

impl Run {
    /// A run of these tables, at least one, in any order; none if two of them overlap.
    pub fn new(level: u8, mut tables: Vec<Arc<Table>>) -> Option<Run> {
        tables.sort_by(|one, other| one.first_key().cmp(other.first_key()));
        let apart = |pair: &[Arc<Table>]| pair[0].last_key() < pair[1].first_key();
        (!tables.is_empty() && tables.windows(2).all(apart)).then_some(Run { level, tables })
    }

    /// 0: as it was flushed, or merged from such; above: the level's only run.
    pub fn level(&self) -> u8 {
        self.level
    }

    /// The tables, in key order.
    pub fn tables(&self) -> &[Arc<Table>] {
        &self.tables
    }

    /// The table that may hold `key`.
    pub fn table_of(&self, key: &[u8]) -> Option<&Arc<Table>> {
        let at = self.tables.partition_point(|table| table.last_key() < key);
        self.tables.get(at).filter(|table| table.first_key() <= key)
    }

    fn tables_of(&self, range: KeyRange<'_>) -> &[Arc<Table>] {
        let start = self.tables.partition_point(|table| table.last_key() < range.from);
        let end = range.to.map_or(self.tables.len(), |to| {
            self.tables.partition_point(|table| table.first_key() < to)
        });
        self.tables.get(start..end).unwrap_or_default()
    }
}

/// All tables of a tree, newest run first: no row has a newer version in a later run than in an
/// earlier one.
pub(crate) type Runs = Arc<Vec<Arc<Run>>>;

/// One tree at one moment.
pub(crate) struct View {
    /// Takes new rows.
    pub active: Arc<Memtable>,
    /// Sealed, on the way to disk; newest first.
    pub sealed: Vec<Arc<Memtable>>,
    /// On disk.
    pub runs: Runs,
    /// What readers pay for runs that have not been merged.
    pub looks: Arc<Looks>,
}

impl View {
    /// The newest version of a row at or below `at`.
    pub fn get(&self, key: &[u8], at: u64) -> Result<Option<Row>, Fault> {
        for memtable in std::iter::once(&self.active).chain(&self.sealed) {
            if let Some(found) = memtable.get(key, at) {
                return Ok(Some(found));
            }
        }
        let hash = Bloom::get_hash(key);
        let (mut found, mut in_vain) = (None, 0);
        for run in self.runs.iter() {
            let Some(table) = run.table_of(key) else { continue };
            found = table.get(key, at, hash)?;
            if found.is_some() {
                break;
            }
            in_vain += u64::from(run.level == 0);
        }
        self.looks.got(hash, in_vain);
        Ok(found)
    }

    /// Visits the newest version at or below `at` of every row in the range, deletions too.
    pub fn scan(
        &self,
        range: KeyRange<'_>,
        reverse: bool,
        at: u64,
        visit: &mut dyn FnMut(&Row) -> ControlFlow<()>,
    ) -> Result<(), Fault> {
        if range.to.is_some_and(|to| to <= range.from) {
            return Ok(());
        }
        let mut rows = 0;
        let counted = &mut |row: &Row| {
            rows += 1;
            visit(row)
        };
        let scanned = match reverse {
            true => self.scan_down(range, at, counted),
            false => self.scan_up(range, at, counted),
        };
        let fresh = self.runs.iter().filter(|run| run.level == 0);
        let fresh = fresh.filter(|run| !run.tables_of(range).is_empty()).count() as u64;
        self.looks.scanned(rows, fresh);
        scanned
    }

    fn scan_up(
        &self,
        range: KeyRange<'_>,
        at: u64,
        visit: &mut dyn FnMut(&Row) -> ControlFlow<()>,
    ) -> Result<(), Fault> {
        let mut sources: Vec<Source<'_>> = Vec::new();
        for memtable in self.memtables() {
            sources.push(Box::new(memtable.up(range.from, range.to).map(Ok)));
        }
        for run in self.runs.iter() {
            let tables = run.tables_of(range);
            if !tables.is_empty() {
                let rows = tables.iter().flat_map(move |table| table.range(range.from, range.to));
                sources.push(Box::new(rows));
            }
        }
        let mut merge = Merge::up(sources)?;
        let mut last: Option<RowKey> = None;
        while let Some(row) = merge.next()? {
            // The first version at or below `at` is the newest of its key; the rest of the key is
            // older.
            if row.key.offset > at || last.as_ref().is_some_and(|last| last.key == row.key.key) {
                continue;
            }
            if visit(&row).is_break() {
                return Ok(());
            }
            last = Some(row.key);
        }
        Ok(())
    }

    fn scan_down(
        &self,
        range: KeyRange<'_>,
        at: u64,
        visit: &mut dyn FnMut(&Row) -> ControlFlow<()>,
    ) -> Result<(), Fault> {
        let mut sources: Vec<Source<'_>> = Vec::new();
        for memtable in self.memtables() {
            sources.push(Box::new(memtable.down(range.from, range.to).map(Ok)));
        }
        for run in self.runs.iter() {
            let tables = run.tables_of(range);
            if !tables.is_empty() {
                let rows = tables.iter().flat_map(move |table| table.range(range.from, range.to));
                sources.push(Box::new(rows.rev()));
            }
        }
        let mut merge = Merge::down(sources)?;
        let mut best: Option<Row> = None;
        while let Some(row) = merge.next()? {
            // A key's versions come from the oldest to the newest: the last at or below `at` is the
            // one.
            if row.key.offset > at {
                continue;
            }
            if let Some(best) = best.as_ref().filter(|best| best.key.key != row.key.key)
                && visit(best).is_break()
            {
                return Ok(());
            }
            best = Some(row);
        }
        // Nothing follows, so whether the visitor wants more does not matter.
        let _ = best.as_ref().map(visit);
        Ok(())
    }

    /// Rows that are not on disk yet, newest first; those without any are left out.
    pub fn memtables(&self) -> impl Iterator<Item = &Arc<Memtable>> {
        std::iter::once(&self.active).chain(&self.sealed).filter(|memtable| !memtable.is_empty())
    }
}
