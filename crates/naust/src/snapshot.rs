//! Reads of an embedded node on the caller's own thread, at one offset, without a message to
//! anyone.

use crate::catalog::Catalog;
use crate::life::Life;
use naust_client::Client;
use naust_machine::{Hold, KeyRange, Page, ReadError, Reader};
use naust_store::{LsmReader, Value};
use naust_wire::limits::PAGE_BYTES_MAX;
use naust_wire::message::Refusal;
use naust_wire::{Code, Offset};
use std::fmt;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake};
use std::thread::Thread;
use std::time::{Duration, Instant};

/// How long a snapshot waits for a namespace that is being opened or lags, and how often it looks.
const WAIT_MAX: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(1);

/// Why a read failed: the stable code, and a sentence.
#[derive(Debug, thiserror::Error)]
#[error("{code}: {detail}")]
pub struct SnapshotError {
    /// The stable code.
    pub code: Code,
    /// What is wrong and what to do.
    pub detail: String,
}

impl SnapshotError {
    pub(crate) fn new(code: Code, detail: impl Into<String>) -> SnapshotError {
        SnapshotError { code, detail: detail.into() }
    }
}

impl From<Refusal> for SnapshotError {
    fn from(refusal: Refusal) -> SnapshotError {
        SnapshotError::new(refusal.code, refusal.detail)
    }
}

impl From<naust_client::Error> for SnapshotError {
    fn from(error: naust_client::Error) -> SnapshotError {
        SnapshotError::new(error.code, error.detail)
    }
}

impl From<ReadError> for SnapshotError {
    fn from(error: ReadError) -> SnapshotError {
        match error {
            ReadError::Refused(refusal) => refusal.into(),
            other => SnapshotError::new(Code::Corrupt, other.to_string()),
        }
    }
}

/// Rows to be visited by [`Snapshot::scan`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScanRange<'a> {
    /// First key.
    pub from: &'a [u8],
    /// End, exclusive; `None`: to the end of the keyspace.
    pub to: Option<&'a [u8]>,
    /// From the end to the beginning.
    pub reverse: bool,
    /// Rows at most, at least one.
    pub limit: usize,
}

/// A namespace as it was when the snapshot was taken: every commit acknowledged before is in it,
/// none after is.
///
/// It keeps that moment readable for a minute of log time; [`Snapshot::renew`] asks for another.
pub struct Snapshot {
    reader: Reader<LsmReader>,
    hold: Hold,
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot").field("offset", &self.offset()).finish_non_exhaustive()
    }
}

impl Snapshot {
    /// Asks up to where all is acknowledged, waits until this node has folded that in, and takes
    /// hold of it.
    pub(crate) fn take(
        client: &Client,
        catalog: &Catalog,
        life: &Life,
        namespace: &str,
    ) -> Result<Snapshot, SnapshotError> {
        let until = Instant::now() + WAIT_MAX;
        let at = wait(client.namespace(namespace).describe_page(None, 1))?.at;
        Snapshot::once_at(at, until, catalog, life, namespace)
    }

    /// Waits until this node has folded in what is before `at`.
    fn once_at(
        at: Offset,
        until: Instant,
        catalog: &Catalog,
        life: &Life,
        namespace: &str,
    ) -> Result<Snapshot, SnapshotError> {
        loop {
            let shard = catalog.shard(namespace);
            let readers = shard.and_then(|shard| catalog.readers(shard));
            if let Some(readers) = readers.filter(|readers| readers.tables.applied() >= at) {
                return Snapshot::new(readers.tables);
            }
            if life.is_ending() {
                return Err(SnapshotError::new(Code::ShuttingDown, "the node is ending"));
            }
            if let Some(failure) = shard.and_then(|shard| catalog.closed(shard)) {
                return Err(SnapshotError::new(failure.code, failure.detail));
            }
            if Instant::now() >= until {
                let detail =
                    "this node has no replica of the namespace that is ready; use a client";
                return Err(SnapshotError::new(Code::Unavailable, detail));
            }
            std::thread::sleep(LOOK);
        }
    }

    fn new(reader: Reader<LsmReader>) -> Result<Snapshot, SnapshotError> {
        let hold = reader.hold(reader.applied())?;
        Ok(Snapshot { reader, hold })
    }

    /// The offset that it shows.
    #[must_use]
    pub fn offset(&self) -> Offset {
        self.hold.at()
    }

    /// A row: its version and its value. A keyspace that does not exist has no rows.
    ///
    /// # Errors
    /// `OffsetTrimmed` when its lease ended, or `Corrupt`.
    pub fn get(
        &self,
        keyspace: &str,
        key: &[u8],
    ) -> Result<Option<(Offset, Value)>, SnapshotError> {
        Ok(self.reader.get(keyspace, key, self.offset())?)
    }

    /// Visits rows in order: key, version, value. Returns where to go on, if the limit (of rows, or
    /// of a MiB of keys and values) was reached: the next `from`, or, reversed, the next `to`.
    ///
    /// # Errors
    /// As [`Snapshot::get`]; what was visited before an error is not to be used.
    pub fn scan(
        &self,
        keyspace: &str,
        range: ScanRange<'_>,
        visit: impl FnMut(&[u8], Offset, &[u8]),
    ) -> Result<Option<Vec<u8>>, SnapshotError> {
        let page =
            Page { reverse: range.reverse, limit: range.limit.max(1), max_bytes: PAGE_BYTES_MAX };
        let keys = KeyRange { from: range.from, to: range.to };
        Ok(self.reader.scan(keyspace, keys, page, self.offset(), visit)?)
    }

    /// Keeps its moment readable for another minute of log time.
    ///
    /// # Errors
    /// `OffsetTrimmed` when its lease ended before.
    pub fn renew(&self) -> Result<(), SnapshotError> {
        Ok(self.hold.renew()?)
    }
}

/// Waits for `future` on this thread, whoever drives it: also on a thread of a runtime, where
/// another runtime could not be waited for.
fn wait<T>(future: impl Future<Output = T>) -> T {
    let waker = Arc::new(Unpark(std::thread::current())).into();
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(done) => return done,
            Poll::Pending => std::thread::park(),
        }
    }
}

/// Wakes the thread that waits.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Why: it waited on for half a minute, and held what it had of the node.
    #[test]
    fn a_snapshot_does_not_outlive_its_node() {
        let (catalog, life) = (Catalog::default(), Life::default());
        let at = |until| {
            let none = Snapshot::once_at(Offset::FIRST, until, &catalog, &life, "default");
            none.unwrap_err().code
        };
        let now = Instant::now();
        assert_eq!(at(now), Code::Unavailable);
        life.end();
        assert_eq!(at(now + WAIT_MAX), Code::ShuttingDown);
    }
}
