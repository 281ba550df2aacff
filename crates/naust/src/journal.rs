//! The journal for small writes of many logs, in a data directory: see [`naust_log::journal`].

use crate::config::Config;
use crate::data::DataDirectory;
use crate::disk::{FileDisk, Meter};
use crate::opening;
use crate::wiring::Wiring;
use naust_log::journal::{Chore, ChoreError, Journaled, ReplayError, replay};
use naust_log::{Disk, Fault, Journal};
use naust_wire::ShardId;
use naust_wire::limits::JOURNAL_HALF_BYTES;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Why a node does not start with the journal that an earlier life left.
#[derive(Debug, thiserror::Error)]
#[error(
    "{source} ({path}); nothing was changed. A node of a cluster is best replaced by a new one; to \
     go on without what only the journal has, move that file away"
)]
pub struct JournalError {
    path: PathBuf,
    #[source]
    source: ReplayError,
}

/// Writes into the logs what a power cut left in the journal alone, and begins a new one. To be
/// called before any log is opened. Blocking.
///
/// # Errors
/// [`JournalError`].
pub fn open(
    data: &DataDirectory,
    config: &Config,
    meter: &Arc<Meter>,
) -> Result<Arc<Journal>, JournalError> {
    let disk = |path: &Path| FileDisk::open(path, Arc::clone(meter), config.sync_delay());
    let logs = |shard| {
        let log = data.log(shard);
        Ok(match log.is_dir() {
            true => Some(Arc::new(disk(&log)?) as Arc<dyn Disk>),
            false => None,
        })
    };
    let replayed = disk(data.path())
        .map_err(|source| Fault::of("open", "the directory of the journal", source).into())
        .and_then(|disk| replay::run(&disk, &logs).map(|_| disk));
    match replayed {
        Ok(disk) => Ok(Journal::new(Arc::new(disk), JOURNAL_HALF_BYTES, opening::seed())),
        Err(source) => Err(JournalError { path: data.journal(), source }),
    }
}

/// The disk of a log that is about to be opened. What the journal holds of it from before is
/// settled; if that fails the node ends.
///
/// # Errors
/// What the node ends with.
pub fn over(wiring: &Wiring, shard: ShardId, disk: Arc<FileDisk>) -> Result<Journaled, Fault> {
    let journaled = Journaled::new(disk, Arc::clone(&wiring.journal), shard);
    if let Err(fault) = &journaled {
        wiring.life.fail(fault.to_string());
    }
    journaled
}

/// Settles a log whose files are about to go. If that fails the node ends.
///
/// # Errors
/// What the node ends with.
pub fn settle(wiring: &Wiring, shard: ShardId) -> Result<(), Fault> {
    let settled = wiring.journal.settle(shard);
    if let Err(fault) = &settled {
        wiring.life.fail(fault.to_string());
    }
    settled
}

/// Does what the journal wants done in the background.
pub fn run(wiring: &Wiring, chore: Chore) {
    match chore.run() {
        Ok(()) => {}
        Err(error @ ChoreError::Unmade(_)) => eprintln!("naust: {error}"),
        Err(ChoreError::Fault(fault)) => wiring.life.fail(fault.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use crate::{Config, Naust, NaustError};
    use naust_wire::options::NamespaceOptions;
    use std::fs;
    use std::path::Path;

    const NAMESPACES: usize = 24;
    /// Rounds after which the journal must have been made.
    const ROUNDS_MAX: u32 = 20_000;

    fn config(data: &Path) -> Config {
        Config { workers: 2, ..Config::embedded(data) }
    }

    fn name(number: usize) -> String {
        format!("n{number}")
    }

    fn copy(from: &Path, to: &Path) {
        fs::create_dir_all(to).unwrap();
        for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
            let to = to.join(entry.file_name());
            match entry.file_type().unwrap().is_dir() {
                true => copy(&entry.path(), &to),
                false => drop(fs::copy(entry.path(), to).unwrap()),
            }
        }
    }

    /// Puts a row into each namespace, all at once.
    async fn put_all(client: &naust_client::Client, key: &str, round: u32) {
        let puts = (0..NAMESPACES).map(|number| {
            let (client, key) = (client.clone(), key.to_owned());
            tokio::spawn(async move {
                let namespace = client.namespace(&name(number));
                namespace.kv("rows").put(key, round.to_string()).await.unwrap();
            })
        });
        for put in puts.collect::<Vec<_>>() {
            put.await.unwrap();
        }
    }

    fn run<T>(future: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(future)
    }

    /// Why: what many namespaces commit at once is synced together, is there after a node was
    /// killed, and an orderly end leaves no journal; a damaged one is told, and nothing is changed.
    #[test]
    fn many_namespaces_share_syncs_and_keep_what_was_acknowledged() {
        let root = tempfile::tempdir().unwrap();
        let (data, killed) = (root.path().join("data"), root.path().join("killed"));
        let naust = Naust::open(config(&data)).unwrap();
        let client = naust.client();
        let redo = data.join("redo");
        run(async {
            for number in 0..NAMESPACES {
                let options = NamespaceOptions::default();
                client.create_namespace(&name(number), options).await.unwrap();
            }
            let mut round = 0;
            while !redo.exists() {
                round += 1;
                assert!(round < ROUNDS_MAX, "there is no journal");
                put_all(&client, "before", round).await;
            }
            let before = naust.metrics().log_syncs;
            for round in 0..200 {
                put_all(&client, "last", round).await;
            }
            let syncs = naust.metrics().log_syncs - before;
            assert!(syncs < 200 * NAMESPACES as u64 / 2, "{syncs} syncs");
        });
        // What a process leaves that is killed here.
        copy(&data, &killed);
        fs::remove_file(killed.join("LOCK")).unwrap();
        drop((client, naust));
        assert!(!redo.exists(), "an orderly end leaves no journal");

        let path = killed.join("redo");
        let whole = fs::read(&path).unwrap();
        let mut damaged = whole.clone();
        damaged[20] ^= 1;
        fs::write(&path, &damaged).unwrap();
        let refused = Naust::open(config(&killed)).err().unwrap();
        assert!(matches!(refused, NaustError::Journal(_)), "{refused}");
        assert!(refused.to_string().contains("redo"), "{refused}");
        assert_eq!(fs::read(&path).unwrap(), damaged, "nothing was changed");

        fs::write(&path, &whole).unwrap();
        let naust = Naust::open(config(&killed)).unwrap();
        let client = naust.client();
        run(async {
            for number in 0..NAMESPACES {
                let namespace = client.namespace(&name(number));
                let last = namespace.kv("rows").get("last").await.unwrap();
                assert_eq!(last, Some(b"199".to_vec()), "{number}");
            }
        });
    }
}
