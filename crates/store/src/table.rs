//! A table: an immutable file of rows in order, in the engine's format (blocks with checksums, an
//! index, a Bloom filter).

use crate::cache::{Cache, Reservation};
use crate::fault;
use crate::row::Row;
use lsm_tree::checksum::ChecksummedWriter;
use lsm_tree::{Checksum, InternalValue, UserKey};
use naust_machine::Fault;
use std::fs::File;
use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// What the manifest says of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TableRecord {
    /// Its number, and its file's name.
    pub id: u64,
    /// Length of its file.
    pub bytes: u64,
    /// Row versions in it.
    pub rows: u64,
    /// The lowest offset of any of them.
    pub oldest: u64,
    /// The highest.
    pub newest: u64,
    /// The engine's checksum of the whole file.
    pub checksum: u128,
}

/// An open table. Its file goes when it is retired and the last reader has let go of it.
pub(crate) struct Table {
    engine: lsm_tree::Table,
    record: TableRecord,
    /// For its index and filter, if it holds them.
    _room: Option<Reservation>,
}

impl TableRecord {
    /// Reads all of the file, and checks that it is what was written.
    pub fn verify(&self, directory: &Path) -> Result<(), Fault> {
        let (doing, path) = ("verifying table", Table::path(directory, self.id));
        let mut sum = ChecksummedWriter::new(std::io::sink());
        let copied = File::open(&path).and_then(|mut file| std::io::copy(&mut file, &mut sum));
        copied.map_err(|error| fault::io(doing, &path, &error))?;
        if sum.checksum().into_u128() != self.checksum {
            return Err(fault::damaged(doing, &path, "its bytes do not match their checksum"));
        }
        Ok(())
    }
}

impl Table {
    /// The file of table `id`.
    pub fn path(directory: &Path, id: u64) -> PathBuf {
        directory.join(format!("{id}.table"))
    }

    /// Opens a table's file. `tree` is the number under which `cache` knows its blocks.
    pub fn open(
        directory: &Path,
        record: TableRecord,
        tree: u64,
        cache: &Cache,
    ) -> Result<Table, Fault> {
        let doing = "opening table";
        let path = Table::path(directory, record.id);
        let length = path.metadata().map_err(|error| fault::io(doing, &path, &error))?.len();
        if length != record.bytes {
            let how = format!("it has {length} bytes and should have {}", record.bytes);
            return Err(fault::damaged(doing, &path, how));
        }
        // A filter has ten bits a key, an index an entry for each block of about 4 KiB.
        let room = cache.reserve(record.rows * 5 / 4 + record.bytes / 64);
        let opened = catch_unwind(AssertUnwindSafe(|| {
            lsm_tree::Table::recover(
                path.clone(),
                Checksum::from_raw(record.checksum),
                0,
                tree,
                cache.blocks.clone(),
                Some(cache.files.clone()),
                room.is_some(),
                room.is_some(),
            )
        }));
        let engine = match opened {
            Ok(opened) => opened.map_err(|error| fault::engine(doing, &path, &error))?,
            Err(_) => return Err(fault::damaged(doing, &path, "its metadata makes no sense")),
        };
        if engine.id() != record.id {
            return Err(fault::damaged(doing, &path, format!("it is table {}", engine.id())));
        }
        Ok(Table { engine, record, _room: room })
    }

    /// What the manifest says of it.
    pub fn record(&self) -> &TableRecord {
        &self.record
    }

    /// Its lowest key.
    pub fn first_key(&self) -> &[u8] {
        self.engine.metadata.key_range.min()
    }

    /// Its highest key.
    pub fn last_key(&self) -> &[u8] {
        self.engine.metadata.key_range.max()
    }

    /// The newest version of a key, whose hash is given, at or below `offset`.
    pub fn get(&self, key: &[u8], offset: u64, hash: u64) -> Result<Option<Row>, Fault> {
        match self.engine.get(key, offset.saturating_add(1), hash) {
            Ok(found) => Ok(found.map(Row::from)),
            Err(error) => Err(self.fault("reading table", &error)),
        }
    }

    /// All versions of all rows with keys from `from` (inclusive) to `to` (exclusive), in order,
    /// through the cache.
    pub fn range(
        &self,
        from: &[u8],
        to: Option<&[u8]>,
    ) -> impl DoubleEndedIterator<Item = Result<Row, Fault>> + '_ {
        let from = Bound::Included(UserKey::from(from));
        let to = to.map_or(Bound::Unbounded, |to| Bound::Excluded(UserKey::from(to)));
        let rows = self.engine.range((from, to));
        rows.map(|stored| self.row("reading table", stored))
    }

    /// All its row versions, in order, past the cache.
    pub fn scan(self: Arc<Table>) -> Result<impl Iterator<Item = Result<Row, Fault>>, Fault> {
        let doing = "merging table";
        let rows = self.engine.scan().map_err(|error| self.fault(doing, &error))?;
        Ok(rows.map(move |stored| self.row(doing, stored)))
    }

    /// No manifest names it any more: its file goes with the last reference to it.
    pub fn retire(&self) {
        self.engine.is_deleted.store(true, Ordering::Release);
    }

    fn row(&self, doing: &str, stored: lsm_tree::Result<InternalValue>) -> Result<Row, Fault> {
        stored.map(Row::from).map_err(|error| self.fault(doing, &error))
    }

    fn fault(&self, doing: &str, error: &lsm_tree::Error) -> Fault {
        fault::engine(doing, &self.engine.path, error)
    }
}
