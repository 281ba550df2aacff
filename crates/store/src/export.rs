//! The tables of a shard as files, for another replica.
//!
//! Table files never change, and a file whose table is held is not removed; so an export is the
//! manifest as it is now and a hold on the tables that it names.

use crate::fault;
use crate::manifest;
use crate::shard::Shard;
use crate::table::Table;
use naust_machine::{Fault, Mark, TablesExport};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

/// See the module.
pub struct LsmExport {
    mark: Mark,
    manifest: Vec<u8>,
    directory: PathBuf,
    tables: Vec<Arc<Table>>,
}

impl LsmExport {
    pub(crate) fn of(shard: &Shard) -> Result<LsmExport, Fault> {
        let (manifest, disk) = shard.exported()?;
        let marks = disk.values().map(|tree| tree.mark);
        let mark = marks.max_by_key(|mark| mark.applied).unwrap_or_default();
        let runs = disk.values().flat_map(|tree| tree.runs.iter());
        let tables = runs.flat_map(|run| run.tables().iter().cloned()).collect();
        let directory = shard.directory.path.clone();
        Ok(LsmExport { mark, manifest: manifest::encode(&manifest), directory, tables })
    }
}

impl TablesExport for LsmExport {
    fn mark(&self) -> Mark {
        self.mark
    }

    fn files(&self) -> Vec<(String, u64)> {
        let name = |table: &Arc<Table>| {
            let path = Table::path(&self.directory, table.record().id);
            let name = path.file_name().expect("a table's file has a name");
            (name.to_string_lossy().into_owned(), table.record().bytes)
        };
        let manifest = (manifest::FILE.to_owned(), self.manifest.len() as u64);
        self.tables.iter().map(name).chain([manifest]).collect()
    }

    fn read(&self, file: usize, at: u64, bytes: usize) -> Result<Vec<u8>, Fault> {
        let Some(table) = self.tables.get(file) else {
            let from = usize::try_from(at).unwrap_or(usize::MAX).min(self.manifest.len());
            let to = from.saturating_add(bytes).min(self.manifest.len());
            return Ok(self.manifest[from..to].to_vec());
        };
        let path = Table::path(&self.directory, table.record().id);
        if at == 0 {
            // What rotted here must not come to be everywhere.
            table.record().verify(&self.directory)?;
        }
        let left = usize::try_from(table.record().bytes.saturating_sub(at)).unwrap_or(usize::MAX);
        let mut into = vec![0; bytes.min(left)];
        let read = File::open(&path).and_then(|file| file.read_exact_at(&mut into, at));
        read.map_err(|error| fault::io("reading", &path, &error))?;
        Ok(into)
    }
}
