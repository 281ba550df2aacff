//! Opening a shard, or making it: log, tables, replay. On a background thread.

use crate::data::DataError;
use crate::disk::FileDisk;
use crate::wiring::Wiring;
use crate::worker::Input;
use crate::{journal, views};
use naust_log::journal::Journaled;
use naust_machine::{Fault, MachineOptions};
use naust_node::open::{self, ForViews, ForWorker, OpenError, Options};
use naust_node::repair::Trouble;
use naust_store::{LsmTables, StoreOptions};
use naust_wire::ShardId;
use naust_wire::options::NamespaceOptions;
use naust_wire::reply::Failure;
use std::path::Path;
use std::sync::Arc;

/// Most memory that the rows of one shard may take before they are rotated.
const MEMTABLE_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Opens a shard for its worker and tells those who wait for it. Without the directory's shard no
/// node can serve.
pub fn open(
    wiring: &Wiring,
    worker: usize,
    shard: ShardId,
    options: NamespaceOptions,
    begin: Option<&[u8]>,
) {
    tell(wiring, worker, shard, open_parts(wiring, shard, options, begin));
}

/// Lets empty tables take the place of damaged ones, if the log has all that was ever folded into
/// those, and opens the shard; otherwise everything stays as it is.
pub fn refold(wiring: &Wiring, worker: usize, shard: ShardId, options: NamespaceOptions) {
    let refolded = discard_tables(wiring, shard).map_err(|error| failed(wiring, shard, &error));
    let opened = refolded.and_then(|()| open_parts(wiring, shard, options, None));
    tell(wiring, worker, shard, opened);
}

type Opened = Option<(ForWorker, ForViews<LsmTables>)>;

/// Why a shard is not open, as clients are told, and what others may help with.
struct NotOpened {
    failure: Failure,
    trouble: Option<Box<Trouble>>,
}

fn tell(wiring: &Wiring, worker: usize, shard: ShardId, opened: Result<Opened, NotOpened>) {
    match opened {
        Ok(None) => wiring.tell(worker, Input::NotHere(shard)),
        Ok(Some((for_worker, for_views))) => {
            wiring.catalog.add_readers(shard, for_views.readers());
            views::tell(wiring, worker, views::Input::Opened(Box::new(for_views)));
            wiring.tell(worker, Input::Opened(Box::new(for_worker)));
        }
        Err(NotOpened { failure, trouble })
            if shard == ShardId::DIRECTORY
                && trouble.as_ref().is_none_or(|trouble| trouble.others.is_empty()) =>
        {
            let data = wiring.data.path().display();
            wiring
                .life
                .fail(format!("the directory of {data} can't be opened: {}", failure.detail));
        }
        Err(NotOpened { failure, trouble }) => {
            // It is tried again and again: the same cause is told once.
            if wiring.catalog.close(shard, &failure) {
                eprintln!("naust: shard {shard}: {}", failure.detail);
            }
            wiring.tell(worker, Input::NotOpened { shard, failure, trouble });
        }
    }
}

fn failed(wiring: &Wiring, shard: ShardId, error: &OpenError) -> NotOpened {
    // Looking makes nothing: an empty log must not stand where one was lost.
    let disk = wiring.data.log(shard).is_dir().then(|| disk(wiring, shard).ok()).flatten();
    let node = wiring.data.identity().node;
    let trouble = disk.and_then(|disk| open::trouble(error, disk, node, seed()));
    NotOpened { failure: error.failure(), trouble: trouble.map(Box::new) }
}

/// Durable from the first step on: tables that are missing are made anew by the next try.
fn discard_tables(wiring: &Wiring, shard: ShardId) -> Result<(), OpenError> {
    if !open::has_all(disk(wiring, shard)?)? {
        let what = "the tables are damaged, and the log has not all that they held";
        return Err(OpenError::NoTables(what.to_owned()));
    }
    let tables = wiring.data.tables(shard);
    let remove = || {
        match std::fs::remove_dir_all(&tables) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let parent = tables.parent().map(std::fs::File::open);
        parent.map_or(Ok(()), |parent| parent?.sync_all())
    };
    remove().map_err(OpenError::Directory)?;
    // Made and durable before the shard is opened, which takes missing ones for lost.
    drop(self::tables(wiring, shard)?);
    Ok(())
}

fn open_parts(
    wiring: &Wiring,
    shard: ShardId,
    namespace: NamespaceOptions,
    begin: Option<&[u8]>,
) -> Result<Opened, NotOpened> {
    let identity = wiring.data.identity();
    let options = Options {
        node: identity.node,
        namespace: wiring.config.with_history(namespace),
        machine: MachineOptions {
            memtable_bytes: (wiring.config.memtable_bytes / 2).min(MEMTABLE_BYTES_MAX),
            ..MachineOptions::default()
        },
        seed: seed(),
    };
    open_or_make(wiring, shard, &options, begin).map_err(|error| failed(wiring, shard, &error))
}

/// Makes what was never made to its end, and opens what was.
fn open_or_make(
    wiring: &Wiring,
    shard: ShardId,
    options: &Options,
    begin: Option<&[u8]>,
) -> Result<Opened, OpenError> {
    let is_made = wiring.data.is_made(shard).map_err(unusable)?;
    if is_made {
        not_lost(wiring, shard)?;
    } else if begin.is_none() {
        return Ok(None);
    }
    let disk = journaled(wiring, shard)?;
    let open = || open::shard(Arc::clone(&disk) as _, tables(wiring, shard)?, shard, options);
    let opened = match open() {
        Err(OpenError::Log(naust_log::OpenError::Missing)) if !is_made => {
            let Some(begin) = begin else { return Ok(None) };
            not_without_directory(wiring, shard)?;
            let (node, cluster) = (options.node, wiring.data.identity().cluster);
            let identity = naust_log::Identity { node, shard, cluster };
            let layout = wiring.config.layout();
            open::create_with(&*disk, identity, begin, layout).map_err(naust_log::OpenError::Io)?;
            open()
        }
        opened => opened,
    }?;
    if !is_made {
        wiring.data.set_made(shard).map_err(unusable)?;
    }
    Ok(Some(opened))
}

/// Tells the reads of one life of a replica from those of another, and spreads elections.
pub fn seed() -> u64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    RandomState::new().build_hasher().finish()
}

/// A shard that was made has a log and tables: empty ones in their place would be a lie.
fn not_lost(wiring: &Wiring, shard: ShardId) -> Result<(), OpenError> {
    let (log, tables) = (wiring.data.log(shard), wiring.data.tables(shard));
    let lost = |what: &str, path: &Path| {
        Err(OpenError::Lost(format!("{what} missing from {}", path.display())))
    };
    if !log.join("superblock").try_exists().map_err(OpenError::Directory)? {
        return lost("its log is", &log);
    }
    if !naust_store::has_manifest(&tables).map_err(OpenError::Directory)? {
        let what = format!("its tables are missing from {}", tables.display());
        return Err(OpenError::NoTables(what));
    }
    Ok(())
}

/// A directory of namespaces that is not there while shards are was lost: a new one in its place
/// would give their numbers to other namespaces. A node that joins gets its shards from the others,
/// in any order.
fn not_without_directory(wiring: &Wiring, shard: ShardId) -> Result<(), OpenError> {
    let shards = wiring.data.shards().map_err(unusable)?;
    match shards.iter().find(|other| **other != ShardId::DIRECTORY) {
        Some(other) if shard == ShardId::DIRECTORY && wiring.data.identity().founder => {
            Err(OpenError::Lost(format!("its log is missing, but shard {other} is there")))
        }
        _ => Ok(()),
    }
}

/// The disk of a log that is about to be opened.
fn journaled(wiring: &Wiring, shard: ShardId) -> Result<Arc<Journaled>, OpenError> {
    let journaled = journal::over(wiring, shard, disk(wiring, shard)?);
    Ok(Arc::new(journaled.map_err(naust_log::OpenError::Io)?))
}

fn disk(wiring: &Wiring, shard: ShardId) -> Result<Arc<FileDisk>, OpenError> {
    wiring.data.make(shard).map_err(unusable)?;
    let path = wiring.data.log(shard);
    let meter = Arc::clone(&wiring.counters.logs);
    let disk = FileDisk::open(&path, meter, wiring.config.sync_delay()).map_err(|error| {
        let what = format!("can't use {}: {error}", path.display());
        OpenError::Directory(std::io::Error::new(error.kind(), what))
    })?;
    Ok(Arc::new(disk))
}

/// A directory that the operating system refuses: by its kind, so that it is tried again.
fn unusable(error: DataError) -> OpenError {
    let kind = match &error {
        DataError::Io { source, .. } => source.kind(),
        _ => std::io::ErrorKind::Other,
    };
    OpenError::Directory(std::io::Error::new(kind, error.to_string()))
}

fn tables(wiring: &Wiring, shard: ShardId) -> Result<LsmTables, Fault> {
    LsmTables::open(&wiring.data.tables(shard), StoreOptions::new(wiring.cache.clone()))
}
