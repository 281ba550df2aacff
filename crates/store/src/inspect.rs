//! Looking at a directory of tables from outside, offline.

use crate::cache::Cache;
use crate::fault;
use crate::manifest::{self, Manifest};
use crate::row::RowKey;
use crate::table::Table;
use naust_machine::Fault;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What a directory of tables holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// Table files.
    pub tables: u64,
    /// Row versions in them.
    pub rows: u64,
    /// Bytes of them.
    pub bytes: u64,
}

/// Whether a directory has a manifest, as each one does that was ever opened.
///
/// # Errors
/// Of the operating system.
pub fn has_manifest(directory: &Path) -> std::io::Result<bool> {
    directory.join(manifest::FILE).try_exists()
}

/// The table files that the manifest of a directory names.
///
/// # Errors
/// [`Fault`]: the manifest can't be read or is damaged.
pub fn named_tables(directory: &Path) -> Result<Vec<PathBuf>, Fault> {
    let manifest = Manifest::read(directory)?.unwrap_or_default();
    let runs = manifest.trees.iter().flat_map(|tree| &tree.runs);
    let tables = runs.flat_map(|(_, tables)| tables);
    Ok(tables.map(|table| Table::path(directory, table.id)).collect())
}

/// Reads every byte of every table of a directory, and checks that they are what was written.
///
/// # Errors
/// [`Fault`]: the first file that can't be read or is damaged.
pub fn check_files(directory: &Path) -> Result<(), Fault> {
    let manifest = Manifest::read(directory)?.unwrap_or_default();
    let runs = manifest.trees.iter().flat_map(|tree| &tree.runs);
    runs.flat_map(|(_, tables)| tables).try_for_each(|record| record.verify(directory))
}

/// Reads every byte of every table of a directory that nothing has open, and checks what can be
/// checked.
///
/// # Errors
/// [`Fault`]: the first file that can't be read or is damaged.
pub fn verify(directory: &Path) -> Result<Verified, Fault> {
    let manifest = Manifest::read(directory)?.unwrap_or_default();
    let cache = Cache::new(0, 1);
    let mut verified = Verified::default();
    let runs = manifest.trees.into_iter().flat_map(|tree| tree.runs);
    for record in runs.flat_map(|(_, tables)| tables) {
        let path = Table::path(directory, record.id);
        let table = Arc::new(Table::open(directory, record.clone(), u64::MAX, &cache)?);
        record.verify(directory)?;
        let (mut rows, mut last): (u64, Option<RowKey>) = (0, None);
        for row in table.scan()? {
            let key = row?.key;
            if last.as_ref().is_some_and(|last| *last >= key) {
                return Err(fault::damaged("verifying table", &path, "its rows are out of order"));
            }
            last = Some(key);
            rows += 1;
        }
        if rows != record.rows {
            let how = format!("it has {rows} row versions and should have {}", record.rows);
            return Err(fault::damaged("verifying table", &path, how));
        }
        verified.tables += 1;
        verified.rows += rows;
        verified.bytes += record.bytes;
    }
    Ok(verified)
}
