//! Reads of an embedded node on the caller's own thread, at one offset, without a message to
//! anyone.

use naust_machine::{Hold, KeyRange, Page, ReadError, Reader};
use naust_store::{LsmReader, Value};
use naust_wire::limits::PAGE_BYTES_MAX;
use naust_wire::message::Refusal;
use naust_wire::{Code, Offset};
use std::fmt;

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
    pub(crate) fn new(reader: Reader<LsmReader>) -> Result<Snapshot, SnapshotError> {
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
