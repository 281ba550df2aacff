//! Writes row versions, in order, into as many tables as they need.

use crate::cache::StoreOptions;
use crate::fault;
use crate::row::Row;
use crate::table::{Table, TableRecord};
use lsm_tree::table::Writer as EngineWriter;
use lsm_tree::{CompressionType, InternalValue, Slice};
use naust_machine::Fault;
use naust_wire::options::Compression;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Where tables go and what they are called.
pub(crate) struct Directory {
    /// Holds the tables and the manifest of one shard.
    pub path: PathBuf,
    /// The number under which the node's cache knows this shard's blocks.
    pub tree: u64,
    /// The number of the next table.
    pub next_table: AtomicU64,
    /// How tables are kept.
    pub options: StoreOptions,
}

/// Tables written together. Unless they are kept, they are removed when this is dropped.
#[derive(Default)]
pub(crate) struct NewTables {
    tables: Vec<Arc<Table>>,
}

impl NewTables {
    /// The tables, in key order.
    pub fn tables(&self) -> &[Arc<Table>] {
        &self.tables
    }

    /// Adds others.
    pub fn extend(&mut self, mut others: NewTables) {
        self.tables.append(&mut others.tables);
    }

    /// The manifest names them now, or may: they stay.
    pub fn keep(mut self) {
        self.tables.clear();
    }
}

impl Drop for NewTables {
    fn drop(&mut self) {
        for table in &self.tables {
            table.retire();
        }
    }
}

/// How tables are laid out.
#[derive(Clone, Copy)]
pub(crate) struct Layout {
    /// Of their blocks.
    pub compression: Compression,
    /// Indexes and filters are cut into parts that can be cached one by one.
    pub in_parts: bool,
}

struct Unfinished {
    engine: EngineWriter,
    path: PathBuf,
    record: TableRecord,
    raw_bytes: u64,
    last_key: Slice,
}

/// Writes row versions, in order.
pub(crate) struct TableWriter<'a> {
    directory: &'a Directory,
    layout: Layout,
    finished: NewTables,
    unfinished: Option<Unfinished>,
}

impl<'a> TableWriter<'a> {
    /// Begins; no file is made before the first row.
    pub fn new(directory: &'a Directory, layout: Layout) -> TableWriter<'a> {
        TableWriter { directory, layout, finished: NewTables::default(), unfinished: None }
    }

    /// Adds the next row version. All versions of a row go into one table.
    pub fn write(&mut self, row: Row) -> Result<(), Fault> {
        let full = self.unfinished.as_ref().is_some_and(|table| {
            table.raw_bytes >= self.directory.options.table_bytes && table.last_key != row.key.key
        });
        if full {
            self.finish_table()?;
        }
        if self.unfinished.is_none() {
            self.unfinished = Some(self.begin_table()?);
        }
        let table = self.unfinished.as_mut().expect("it was begun above");
        table.raw_bytes += (row.key.key.len() + row.value.len()) as u64;
        table.record.rows += 1;
        table.record.oldest = table.record.oldest.min(row.key.offset);
        table.record.newest = table.record.newest.max(row.key.offset);
        if table.last_key != row.key.key || table.record.rows == 1 {
            table.last_key = row.key.key.clone();
        }
        let written = table.engine.write(InternalValue::from(row));
        written.map_err(|error| fault::engine("writing table", &table.path, &error))
    }

    /// Syncs the last table and hands all of them back.
    pub fn finish(mut self) -> Result<NewTables, Fault> {
        self.finish_table()?;
        Ok(std::mem::take(&mut self.finished))
    }

    fn begin_table(&self) -> Result<Unfinished, Fault> {
        let id = self.directory.next_table.fetch_add(1, Ordering::Relaxed);
        let path = Table::path(&self.directory.path, id);
        let mut engine = EngineWriter::new(path.clone(), id, 0)
            .map_err(|error| fault::engine("making table", &path, &error))?
            .use_data_block_compression(match self.layout.compression {
                Compression::None => CompressionType::None,
                Compression::Lz4 => CompressionType::Lz4,
            });
        if self.layout.in_parts {
            engine = engine.use_partitioned_index().use_partitioned_filter();
        }
        let record =
            TableRecord { id, bytes: 0, rows: 0, oldest: u64::MAX, newest: 0, checksum: 0 };
        Ok(Unfinished { engine, path, record, raw_bytes: 0, last_key: Slice::empty() })
    }

    fn finish_table(&mut self) -> Result<(), Fault> {
        let Some(Unfinished { engine, path, mut record, .. }) = self.unfinished.take() else {
            return Ok(());
        };
        match finish(self.directory, engine, &path, &mut record) {
            Ok(table) => self.finished.tables.push(Arc::new(table)),
            Err(fault) => {
                remove(&path);
                return Err(fault);
            }
        }
        Ok(())
    }
}

impl Drop for TableWriter<'_> {
    fn drop(&mut self) {
        if let Some(table) = self.unfinished.take() {
            drop(table.engine);
            remove(&table.path);
        }
    }
}

fn finish(
    directory: &Directory,
    engine: EngineWriter,
    path: &Path,
    record: &mut TableRecord,
) -> Result<Table, Fault> {
    let doing = "finishing table";
    let finished = engine.finish().map_err(|error| fault::engine(doing, path, &error))?;
    let (_, checksum) = finished.expect("a table is begun with its first row");
    record.checksum = checksum.into_u128();
    record.bytes = path.metadata().map_err(|error| fault::io(doing, path, &error))?.len();
    let Directory { path, tree, options, .. } = directory;
    Table::open(path, record.clone(), *tree, &options.cache)
}

fn remove(path: &Path) {
    // A file that stays behind has no name in the manifest, so the next opening removes it.
    let _ = std::fs::remove_file(path);
}
