//! Opening a shard, or making it: log, tables, replay. On a background thread.

use crate::disk::FileDisk;
use crate::views;
use crate::wiring::Wiring;
use crate::worker::Input;
use naust_machine::{Fault, MachineOptions};
use naust_node::open::{self, ForViews, ForWorker, OpenError, Options};
use naust_store::{LsmTables, StoreOptions};
use naust_wire::ShardId;
use naust_wire::options::NamespaceOptions;
use naust_wire::reply::Failure;
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
    match open_parts(wiring, shard, options, begin) {
        Ok(None) => wiring.tell(worker, Input::NotHere(shard)),
        Ok(Some((for_worker, for_views))) => {
            wiring.catalog.add_readers(shard, for_views.readers());
            views::tell(wiring, worker, views::Input::Opened(Box::new(for_views)));
            wiring.tell(worker, Input::Opened(Box::new(for_worker)));
        }
        Err(error) if shard == ShardId::DIRECTORY => {
            let data = wiring.data.path().display();
            wiring.life.fail(format!("the directory of {data} can't be opened: {}", error.detail));
        }
        Err(failure) => {
            eprintln!("naust: shard {shard}: {}", failure.detail);
            wiring.tell(worker, Input::NotOpened { shard, failure });
        }
    }
}

fn open_parts(
    wiring: &Wiring,
    shard: ShardId,
    namespace: NamespaceOptions,
    begin: Option<&[u8]>,
) -> Result<Option<(ForWorker, ForViews<LsmTables>)>, Failure> {
    let identity = wiring.data.identity();
    if begin.is_none() && !wiring.data.log(shard).is_dir() {
        return Ok(None);
    }
    let opened = || -> Result<_, OpenError> {
        let disk = disk(wiring, shard)?;
        let options = Options {
            node: identity.node,
            namespace: wiring.config.with_history(namespace),
            machine: MachineOptions {
                memtable_bytes: (wiring.config.memtable_bytes / 2).min(MEMTABLE_BYTES_MAX),
                ..MachineOptions::default()
            },
            seed: identity.node.0 ^ u64::from(shard.0),
        };
        let open = || open::shard(Arc::clone(&disk) as _, tables(wiring, shard)?, shard, &options);
        match open() {
            Err(OpenError::Log(naust_log::OpenError::Missing)) => {
                let Some(begin) = begin else { return Ok(None) };
                not_lost(wiring, shard)?;
                let identity =
                    naust_log::Identity { node: identity.node, shard, cluster: identity.cluster };
                open::create(&*disk, identity, begin).map_err(naust_log::OpenError::Io)?;
                open().map(Some)
            }
            opened => opened.map(Some),
        }
    };
    opened().map_err(|error| error.failure())
}

/// A directory of namespaces that is not there while shards are was lost: a new one in its place
/// would give their numbers to other namespaces. A node that joins gets its shards from the others,
/// in any order.
fn not_lost(wiring: &Wiring, shard: ShardId) -> Result<(), OpenError> {
    let failed = |what: String| OpenError::Tables(Fault { what, disk_full: false });
    let shards = wiring.data.shards().map_err(|error| failed(error.to_string()))?;
    match shards.iter().find(|other| **other != ShardId::DIRECTORY) {
        Some(other) if shard == ShardId::DIRECTORY && wiring.data.identity().founder => {
            Err(failed(format!("its log is missing, but shard {other} is there: restore it")))
        }
        _ => Ok(()),
    }
}

fn disk(wiring: &Wiring, shard: ShardId) -> Result<Arc<FileDisk>, OpenError> {
    let failed = |what: String| OpenError::Tables(Fault { what, disk_full: false });
    wiring.data.make(shard).map_err(|error| failed(error.to_string()))?;
    let path = wiring.data.log(shard);
    let meter = Arc::clone(&wiring.counters.logs);
    let disk = FileDisk::open(&path, meter, wiring.config.sync_delay()).map_err(|error| {
        let what = format!("can't use {}: {error}", path.display());
        OpenError::Directory(std::io::Error::new(error.kind(), what))
    })?;
    Ok(Arc::new(disk))
}

fn tables(wiring: &Wiring, shard: ShardId) -> Result<LsmTables, Fault> {
    LsmTables::open(&wiring.data.tables(shard), StoreOptions::new(wiring.cache.clone()))
}
