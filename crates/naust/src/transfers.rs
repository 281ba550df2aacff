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
use naust_node::transfer::{Adopt, Begin, Export, Import, LOG, Part, TABLES, digest};
use naust_store::LsmReader;
use naust_wire::ShardId;
use naust_wire::limits::{TRANSFER_DIGEST_BYTES_MAX, TRANSFER_PART_BYTES};
use naust_wire::options::NamespaceOptions;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What is held for other nodes, by shard and transfer.
type Exports = BTreeMap<(ShardId, u64), Arc<Export<LsmReader>>>;

/// About so many bytes of a file are copied before they are surely on the disk. Each part is sent
/// to it as it comes: left to the system, they would gather in memory and then be written all at
/// once, in the way of the commits of all shards.
const UNSYNCED_BYTES_MAX: u64 = 32 * 1024 * 1024;

/// What is held for other nodes, and what is copied from them.
#[derive(Default)]
pub struct Transfers {
    exports: Mutex<Exports>,
    imports: Mutex<BTreeMap<ShardId, Importing>>,
}

/// A transfer that the files of a shard are copied of.
struct Importing {
    number: u64,
    /// Bytes that are copied since the last sync.
    unsynced_bytes: u64,
}

impl Transfers {
    fn exports(&self) -> MutexGuard<'_, Exports> {
        self.exports.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn imports(&self) -> MutexGuard<'_, BTreeMap<ShardId, Importing>> {
        self.imports.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts bytes that are copied: whether they are to be put on the disk now. `None` if this is
    /// not the transfer that is copied.
    fn copied(&self, shard: ShardId, number: u64, bytes: u64) -> Option<bool> {
        let mut imports = self.imports();
        let importing = imports.get_mut(&shard).filter(|importing| importing.number == number)?;
        importing.unsynced_bytes += bytes;
        let is_enough = importing.unsynced_bytes >= UNSYNCED_BYTES_MAX;
        if is_enough {
            importing.unsynced_bytes = 0;
        }
        Some(is_enough)
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
    let mut there = BTreeMap::new();
    let done = match import {
        Import::End => {
            wiring.transfers.imports().remove(&shard);
            // What is left is removed by the next transfer, or the next process.
            let _ = fs::remove_dir_all(&next);
            return None;
        }
        // It stays for the next transfer, also for one of the next process.
        Import::Rest => {
            wiring.transfers.imports().remove(&shard);
            return None;
        }
        Import::Begin(contents) => {
            let importing = Importing { number, unsynced_bytes: 0 };
            wiring.transfers.imports().insert(shard, importing);
            begin(&next, &contents.files).map(|found| there = found)
        }
        Import::Part { name, at, bytes } => {
            match wiring.transfers.copied(shard, number, bytes.len() as u64) {
                Some(syncs) => put(&next, &name, at, &bytes, syncs).map(drop),
                None => Err(io::Error::other("another copy was begun")),
            }
        }
    };
    if let Err(error) = &done {
        eprintln!("naust: shard {shard} can't be copied to {}: {error}", next.display());
    }
    Some(Event::Imported { shard, number, ok: done.is_ok(), there })
}

/// Makes files for what is to be copied; but for those of their names and lengths that an earlier
/// transfer left, whose digests are returned. All others go.
fn begin(next: &Path, files: &[(String, u64)]) -> io::Result<BTreeMap<u32, Vec<u8>>> {
    let mut meant = BTreeMap::new();
    for (place, (name, bytes)) in files.iter().enumerate() {
        meant.insert(path(next, name)?, (place as u32, name, *bytes));
    }
    let mut there = BTreeMap::new();
    for folder in [LOG, TABLES].map(|folder| next.join(folder)) {
        fs::create_dir_all(&folder)?;
        for entry in fs::read_dir(&folder)? {
            let file = entry?.path();
            let bytes = fs::metadata(&file)?.len();
            let known = meant.get(&file).filter(|(_, _, meant)| *meant == bytes);
            match known.filter(|_| bytes <= TRANSFER_DIGEST_BYTES_MAX) {
                Some((place, name, _)) => {
                    there.insert(*place, digest_of(&file, name, bytes)?);
                    meant.remove(&file);
                }
                None => fs::remove_file(&file)?,
            }
        }
    }
    meant.keys().try_for_each(|file| File::create(file).map(drop))?;
    Ok(there)
}

fn digest_of(file: &Path, name: &str, bytes: u64) -> io::Result<Vec<u8>> {
    let file = File::open(file)?;
    digest(name, bytes, |at| {
        let left = usize::try_from(bytes - at).unwrap_or(usize::MAX);
        let mut part = vec![0; left.min(TRANSFER_PART_BYTES)];
        file.read_exact_at(&mut part, at).map(|()| part)
    })
}

/// Writes a part and sends it to the disk; if it `syncs`, waits until it is there. When all files
/// are there, all are put on the disk to their ends. Whether it is there, or on its way.
fn put(next: &Path, name: &str, at: u64, bytes: &[u8], syncs: bool) -> io::Result<bool> {
    let file = File::options().write(true).open(path(next, name)?)?;
    if at < file.metadata()?.len() {
        // There may be something else, of an earlier copy: holes would let it stand.
        file.write_all_at(bytes, at)?;
    } else {
        for (at, piece) in naust_log::filled(at, bytes) {
            file.write_all_at(piece, at)?;
        }
        // It may end with a hole.
        file.set_len(at + bytes.len() as u64)?;
    }
    if syncs {
        return file.sync_data().map(|()| true);
    }
    Ok(crate::disk::send(&file, at, bytes.len() as u64))
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
    let whole = make_whole(wiring, shard, adopt);
    if whole.is_err() {
        // Nothing of it is worth being gone on with.
        let _ = fs::remove_dir_all(wiring.data.next(shard));
    }
    let taken = whole.and_then(|()| {
        journal::settle(wiring, shard)?;
        Ok(wiring.data.take_next(shard)?)
    });
    if let Err(error) = taken {
        eprintln!("naust: what was copied of shard {shard} can't take its place: {error}");
    }
    opening::open(wiring, worker, shard, options, None);
}

/// Makes what was copied a replica of this node, durable to its end.
fn make_whole(
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
    Ok(File::open(&next)?.sync_all()?)
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

    #[test]
    fn holes_stay_holes() {
        let root = tempfile::tempdir().unwrap();
        let next = root.path().join("0000002a.next");
        begin(&next, &[("log/a".to_owned(), 3 << 20)]).unwrap();
        let mut part = vec![0; 1 << 20];
        for at in 0..3 {
            part[5_000] = 1 - at as u8 % 2;
            put(&next, "log/a", at << 20, &part, false).unwrap();
        }
        let file = next.join("log/a");
        let bytes = fs::read(&file).unwrap();
        assert_eq!(bytes.len(), 3 << 20);
        let filled: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at] != 0).collect();
        assert_eq!(filled, [5_000, (2 << 20) + 5_000]);
        let taken = std::os::unix::fs::MetadataExt::blocks(&fs::metadata(&file).unwrap()) * 512;
        assert!(taken <= 64 * 1024, "{taken}");
        // Over what an earlier copy left, nothing is left out.
        fs::write(&file, vec![7; 3 << 20]).unwrap();
        part.fill(0);
        for at in 0..3 {
            put(&next, "log/a", at << 20, &part, false).unwrap();
        }
        assert_eq!(fs::read(&file).unwrap(), vec![0; 3 << 20]);
    }

    /// Why: the sync at the end of a copy sends all that is left at once, and logs wait behind it.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_part_is_sent_to_the_disk_as_it_comes() {
        let root = tempfile::tempdir().unwrap();
        let next = root.path().join("0000002a.next");
        begin(&next, &[("tables/c".to_owned(), 2 << 20)]).unwrap();
        for at in 0..2 {
            assert!(put(&next, "tables/c", at << 20, &[7; 1 << 20], false).unwrap());
        }
    }

    #[test]
    fn what_an_earlier_transfer_left_is_kept_by_name_and_length() {
        let root = tempfile::tempdir().unwrap();
        let next = root.path().join("0000002a.next");
        let files = [("log/a", 5), ("log/b", 5), ("tables/c", 3)];
        let files = files.map(|(name, bytes)| (name.to_owned(), bytes));
        assert_eq!(begin(&next, &files).unwrap(), BTreeMap::new());
        put(&next, "log/a", 0, b"whole", false).unwrap();
        put(&next, "log/b", 0, b"hal", true).unwrap();
        put(&next, "tables/c", 0, b"old", false).unwrap();
        fs::write(next.join("log/superblock"), "of another copy").unwrap();
        let there = begin(&next, &files).unwrap();
        assert_eq!(there.keys().copied().collect::<Vec<_>>(), [0, 2]);
        assert_ne!(there[&0], there[&2]);
        assert_eq!(fs::read(next.join("log/a")).unwrap(), b"whole");
        assert_eq!(fs::read(next.join("log/b")).unwrap(), b"", "it was not there to its end");
        assert!(!next.join("log/superblock").exists());
        // The place in the list is another one, and so may be what is meant.
        let there = begin(&next, &files[1..]).unwrap();
        assert_eq!(there.keys().copied().collect::<Vec<_>>(), [1]);
        assert!(!next.join("log/a").exists());
    }
}
