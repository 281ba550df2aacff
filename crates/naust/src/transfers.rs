//! Replicas on their way between nodes: the files that are held for others, and those that are put
//! beside a replica to take its place.
//!
//! ```text
//!   DATA/shards/0000002a/        the replica that is there
//!   DATA/shards/0000002a.next/   what is being copied; whole once its log has a superblock
//! ```

use crate::disk::FileDisk;
use crate::wiring::Wiring;
use crate::worker::Input;
use crate::{journal, opening};
use naust_node::answer::Readers;
use naust_node::event::Event;
use naust_node::transfer::{Adopt, Begin, Export, Import, LOG, Part, TABLES};
use naust_store::LsmReader;
use naust_wire::ShardId;
use naust_wire::options::NamespaceOptions;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What is held for other nodes, by shard and transfer.
type Exports = BTreeMap<(ShardId, u64), Arc<Export<LsmReader>>>;

/// What is held for other nodes, and what is copied from them.
#[derive(Default)]
pub struct Transfers {
    exports: Mutex<Exports>,
    /// Of each shard, the transfer that its files are copied of.
    imports: Mutex<BTreeMap<ShardId, u64>>,
}

impl Transfers {
    fn exports(&self) -> MutexGuard<'_, Exports> {
        self.exports.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn imports(&self) -> MutexGuard<'_, BTreeMap<ShardId, u64>> {
        self.imports.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes hold of the files of a replica. Blocking.
pub fn export(
    wiring: &Wiring,
    shard: ShardId,
    begin: &Begin,
    readers: Option<&Readers<LsmReader>>,
) -> Event<'static> {
    let number = begin.number;
    let contents = readers.and_then(|readers| match Export::begin(begin, readers) {
        Ok((export, contents)) => {
            wiring.transfers.exports().insert((shard, number), Arc::new(export));
            Some(contents)
        }
        Err(error) => {
            eprintln!("naust: shard {shard} can't be copied for another node: {error}");
            None
        }
    });
    Event::Exported { shard, number, contents }
}

/// Reads a part of what is held. Blocking.
pub fn read(wiring: &Wiring, shard: ShardId, part: Part) -> Event<'static> {
    let export = wiring.transfers.exports().get(&(shard, part.number)).cloned();
    let bytes = export.and_then(|export| export.read(&part));
    Event::ExportedPart { shard, part, bytes }
}

/// Lets go of what is held.
pub fn end(wiring: &Wiring, shard: ShardId, number: u64) {
    let ended = wiring.transfers.exports().remove(&(shard, number));
    drop(ended);
}

/// A step of copying: `None` if nobody is to be told. Blocking.
pub fn import(
    wiring: &Wiring,
    shard: ShardId,
    number: u64,
    import: Import,
) -> Option<Event<'static>> {
    let next = wiring.data.next(shard);
    let known = wiring.transfers.imports().get(&shard) == Some(&number);
    let done = match import {
        Import::End => {
            wiring.transfers.imports().remove(&shard);
            // What is left is removed by the next transfer, or the next start.
            let _ = fs::remove_dir_all(&next);
            return None;
        }
        Import::Begin(contents) => {
            wiring.transfers.imports().insert(shard, number);
            begin(&next, &contents.files)
        }
        Import::Part { name, at, bytes } if known => put(&next, &name, at, &bytes),
        Import::Part { .. } => Err(io::Error::other("another copy was begun")),
    };
    if let Err(error) = &done {
        eprintln!("naust: shard {shard} can't be copied to {}: {error}", next.display());
    }
    Some(Event::Imported { shard, number, ok: done.is_ok() })
}

fn begin(next: &Path, files: &[(String, u64)]) -> io::Result<()> {
    match fs::remove_dir_all(next) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    fs::create_dir_all(next.join(LOG))?;
    fs::create_dir_all(next.join(TABLES))?;
    files.iter().try_for_each(|(name, _)| File::create(path(next, name)?).map(drop))
}

fn put(next: &Path, name: &str, at: u64, bytes: &[u8]) -> io::Result<()> {
    File::options().write(true).open(path(next, name)?)?.write_all_at(bytes, at)
}

/// Where a file is put whose name another node told.
fn path(next: &Path, name: &str) -> io::Result<PathBuf> {
    let known = [LOG, TABLES].iter().find_map(|folder| Some((folder, name.strip_prefix(folder)?)));
    let is_plain = |name: &&str| {
        !name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\\', '\0'])
    };
    match known.filter(|(_, name)| is_plain(name)) {
        Some((folder, name)) => Ok(next.join(folder).join(name)),
        None => Err(io::Error::other(format!("{name:?} is no file of a replica"))),
    }
}

/// What was copied takes the place of a replica that is closed; then whatever is there is opened.
/// Blocking.
pub fn adopt(
    wiring: &Wiring,
    worker: usize,
    shard: ShardId,
    options: NamespaceOptions,
    adopt: &Adopt,
) {
    wiring.transfers.imports().remove(&shard);
    if let Err(error) = take_place(wiring, shard, adopt) {
        eprintln!("naust: what was copied of shard {shard} can't take its place: {error}");
    }
    opening::open(wiring, worker, shard, options, None);
}

fn take_place(
    wiring: &Wiring,
    shard: ShardId,
    adopt: &Adopt,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let next = wiring.data.next(shard);
    let tables = next.join(TABLES);
    for entry in fs::read_dir(&tables)? {
        File::open(entry?.path())?.sync_all()?;
    }
    File::open(&tables)?.sync_all()?;
    let meter = Arc::clone(&wiring.counters.logs);
    let disk = Arc::new(FileDisk::open(&next.join(LOG), meter, wiring.config.sync_delay())?);
    let identity = wiring.data.identity();
    adopt.log(disk, shard, identity.node, identity.cluster)?;
    naust_store::check_files(&tables)?;
    File::open(&next)?.sync_all()?;
    journal::settle(wiring, shard)?;
    Ok(wiring.data.take_next(shard)?)
}

/// Tells a worker what came of a step.
pub fn told(event: Event<'static>) -> Input {
    Input::Transferred(Box::new(event))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_from_elsewhere_lead_nowhere_else() {
        let next = Path::new("/next");
        assert_eq!(path(next, "log/0001.log").unwrap(), Path::new("/next/log/0001.log"));
        for name in
            ["", "log/", "x/y", "/etc/passwd", "log/../x", "tables/..", "tables/a/b", "log/.x"]
        {
            assert!(path(next, name).is_err(), "{name:?}");
        }
    }
}
