//! Writes row versions, in order, into as many tables as they need.

use crate::cache::StoreOptions;
use crate::fault;
use crate::row::Row;
use crate::sending::Sending;
use crate::table::{Table, TableRecord};
use lsm_tree::table::Writer as EngineWriter;
use lsm_tree::{CompressionType, InternalValue, Slice};
use naust_machine::Fault;
use naust_wire::options::Compression;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Of so many bytes of rows, one block is tried out.
const SAMPLE_EVERY_BYTES: u64 = 256 << 10;
/// Bytes of a block that is tried out: as many as the engine's blocks have.
const SAMPLE_BYTES: usize = 4 << 10;
/// What compression must leave out of a block, in parts of it, to be worth the time.
const WORTH: usize = 32;

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

/// Whether compressing a tree's tables is worth the time. Every table tells of the next one, by
/// some of its rows.
#[derive(Default)]
pub(crate) struct Compressible {
    does_not: AtomicBool,
}

impl Compressible {
    /// How the next table is written, when `wanted` is asked for.
    fn next(&self, wanted: Compression) -> Compression {
        if self.does_not.load(Ordering::Relaxed) { Compression::None } else { wanted }
    }
}

/// Some of a table's rows, and what compression would leave of them.
#[derive(Default)]
struct Sample {
    block: Vec<u8>,
    /// Where in the table the next block begins, in bytes of keys and values.
    next_at: u64,
    plain_bytes: usize,
    compressed_bytes: usize,
}

impl Sample {
    /// Looks at the row that begins `at` bytes of keys and values into the table.
    fn add(&mut self, at: u64, row: &Row) {
        if at < self.next_at {
            return;
        }
        let parts = [&*row.key.key, &row.value];
        for part in parts {
            let room = SAMPLE_BYTES - self.block.len();
            self.block.extend_from_slice(&part[..part.len().min(room)]);
        }
        if self.block.len() == SAMPLE_BYTES {
            self.plain_bytes += self.block.len();
            self.compressed_bytes += lz4_flex::block::compress(&self.block).len();
            self.block.clear();
            self.next_at = at + SAMPLE_EVERY_BYTES;
        }
    }

    /// Tells the tree, if there were rows enough to tell.
    fn tell(&self, compressible: &Compressible) {
        if self.plain_bytes > 0 {
            let worth = self.plain_bytes - self.plain_bytes / WORTH;
            compressible.does_not.store(self.compressed_bytes > worth, Ordering::Relaxed);
        }
    }
}

/// How tables are laid out.
#[derive(Clone, Copy)]
pub(crate) struct Layout<'a> {
    /// Of their blocks.
    pub compression: Compression,
    /// What is known of that.
    pub compressible: &'a Compressible,
    /// Indexes and filters are cut into parts that can be cached one by one.
    pub in_parts: bool,
}

struct Unfinished {
    engine: EngineWriter,
    path: PathBuf,
    record: TableRecord,
    sample: Sample,
    raw_bytes: u64,
    last_key: Slice,
    sending: Sending,
}

/// Writes row versions, in order.
pub(crate) struct TableWriter<'a> {
    directory: &'a Directory,
    layout: Layout<'a>,
    finished: NewTables,
    unfinished: Option<Unfinished>,
}

impl<'a> TableWriter<'a> {
    /// Begins; no file is made before the first row.
    pub fn new(directory: &'a Directory, layout: Layout<'a>) -> TableWriter<'a> {
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
        if self.layout.compression != Compression::None {
            table.sample.add(table.raw_bytes, &row);
        }
        table.raw_bytes += (row.key.key.len() + row.value.len()) as u64;
        table.record.rows += 1;
        table.record.oldest = table.record.oldest.min(row.key.offset);
        table.record.newest = table.record.newest.max(row.key.offset);
        if table.last_key != row.key.key || table.record.rows == 1 {
            table.last_key = row.key.key.clone();
        }
        let written = table.engine.write(InternalValue::from(row));
        written.map_err(|error| fault::engine("writing table", &table.path, &error))?;
        table.sending.go_on(table.raw_bytes);
        Ok(())
    }

    /// Syncs the last table and hands all of them back.
    pub fn finish(mut self) -> Result<NewTables, Fault> {
        self.finish_table()?;
        Ok(std::mem::take(&mut self.finished))
    }

    fn begin_table(&self) -> Result<Unfinished, Fault> {
        let id = self.directory.next_table.fetch_add(1, Ordering::Relaxed);
        let path = Table::path(&self.directory.path, id);
        let compression = self.layout.compressible.next(self.layout.compression);
        let mut engine = EngineWriter::new(path.clone(), id, 0)
            .map_err(|error| fault::engine("making table", &path, &error))?
            .use_data_block_compression(match compression {
                Compression::None => CompressionType::None,
                Compression::Lz4 => CompressionType::Lz4,
            });
        if self.layout.in_parts {
            engine = engine.use_partitioned_index().use_partitioned_filter();
        }
        let record =
            TableRecord { id, bytes: 0, rows: 0, oldest: u64::MAX, newest: 0, checksum: 0 };
        let last_key = Slice::empty();
        let sample = Sample::default();
        let sending = Sending::new(&path);
        Ok(Unfinished { engine, path, record, sample, raw_bytes: 0, last_key, sending })
    }

    fn finish_table(&mut self) -> Result<(), Fault> {
        let Some(unfinished) = self.unfinished.take() else { return Ok(()) };
        let Unfinished { engine, path, mut record, sample, .. } = unfinished;
        sample.tell(self.layout.compressible);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Cache;
    use crate::row::RowKey;

    /// Why: the sync at a table's end sends all that is left at once, and logs wait behind it.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_table_is_sent_to_the_disk_while_it_is_written() {
        let directory = tempfile::tempdir().unwrap();
        let options = StoreOptions::new(Cache::new(1, 9));
        let path = directory.path().to_owned();
        let directory = Directory { path, tree: 0, next_table: AtomicU64::new(1), options };
        let compressible = Compressible::default();
        let (compression, compressible) = (Compression::None, &compressible);
        let layout = Layout { compression, compressible, in_parts: false };
        let mut writer = TableWriter::new(&directory, layout);
        for row in 0..4096_u64 {
            let key = RowKey { key: Slice::from(row.to_be_bytes()), offset: row, deleted: false };
            writer.write(Row { key, value: Slice::from([7; 1024]) }).unwrap();
        }
        let sent = writer.unfinished.as_ref().unwrap().sending.sent();
        assert!(sent >= 2 << 20, "{sent} bytes of four MiB are on their way");
        writer.finish().unwrap();
    }

    #[test]
    fn only_what_compresses_is_compressed() {
        let directory = tempfile::tempdir().unwrap();
        let options =
            StoreOptions { table_bytes: 256 << 10, ..StoreOptions::new(Cache::new(1, 9)) };
        let path = directory.path().to_owned();
        let directory = Directory { path, tree: 0, next_table: AtomicU64::new(1), options };
        let compressible = Compressible::default();
        let mut random = 1_u64;
        let mut written = |tables: u64, dense: bool| -> Vec<bool> {
            let (compression, compressible) = (Compression::Lz4, &compressible);
            let layout = Layout { compression, compressible, in_parts: false };
            let mut writer = TableWriter::new(&directory, layout);
            for row in 0..tables * 2048 {
                let mut value = [7; 120];
                for byte in value.iter_mut().filter(|_| dense) {
                    random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    *byte = (random >> 56) as u8;
                }
                let key = Slice::from(row.to_be_bytes());
                let key = RowKey { key, offset: row, deleted: false };
                writer.write(Row { key, value: Slice::from(value) }).unwrap();
            }
            let written = writer.finish().unwrap();
            written.tables().iter().map(|table| table.record().bytes < 100 << 10).collect()
        };
        assert_eq!(written(4, false), [true; 4], "what compresses is compressed");
        assert!(!compressible.does_not.load(Ordering::Relaxed));
        assert_eq!(written(3, true), [false; 3], "random bytes stay as long as they are");
        assert!(compressible.does_not.load(Ordering::Relaxed), "so the next table is not tried");
        assert_eq!(written(3, false), [false, true, true], "but some of its rows are");
    }
}
