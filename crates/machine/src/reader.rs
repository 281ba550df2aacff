//! Reads beside `apply`, at an offset, from any thread.
//!
//! A read *at* an offset sees every row version at or below it. The history floor may pass that
//! offset while a read is under way; it is looked at again when the read ends, and what may have
//! missed a dropped version is refused with `OffsetTrimmed`. A [`Hold`] keeps the floor down for as
//! long as its lease lasts.

use crate::tables::{Checked, Fault, KeyRange, TablesReader, TreeId};
use naust_wire::limits::{HOLD_MS_MAX, HOLDS_PER_SHARD_MAX};
use naust_wire::message::Refusal;
use naust_wire::planted::{self, Bug};
use naust_wire::{Code, LogTime, Offset};
use rustc_hash::FxHashMap;
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

/// Why a read failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The client asked for what can't be had.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The tables are damaged or the disk failed.
    #[error(transparent)]
    Fault(#[from] Fault),
}

/// What readers share with the machine.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    applied: AtomicU64,
    next: AtomicU64,
    time: AtomicU64,
    floor: AtomicU64,
    floor_time: AtomicU64,
    holds: Mutex<Holds>,
    catalog: RwLock<FxHashMap<Box<str>, Entry>>,
}

/// A keyspace, as readers need it: rows below its floor are absent.
#[derive(Clone, Copy, Debug)]
struct Entry {
    tree: TreeId,
    floor: Offset,
}

#[derive(Debug, Default)]
struct Holds {
    next: u64,
    /// Where each holds the floor, and until when.
    list: BTreeMap<u64, (Offset, LogTime)>,
}

/// Log time that passes before the floor is looked at again, in milliseconds.
const FLOOR_STEP_MS: u64 = 100;

impl Shared {
    pub(crate) fn set_applied(&self, applied: Offset, next: Offset, time: LogTime) {
        self.time.store(time.0, Ordering::Relaxed);
        self.next.store(next.0, Ordering::Relaxed);
        self.applied.store(applied.0, Ordering::Release);
    }

    pub(crate) fn set_keyspace(&self, name: &str, tree: TreeId, floor: Offset) {
        let mut catalog = self.catalog.write().unwrap_or_else(PoisonError::into_inner);
        catalog.insert(name.into(), Entry { tree, floor });
    }

    /// Log time moved on since the floor was looked at.
    pub(crate) fn is_later(&self, time: LogTime) -> bool {
        time.0 >= self.floor_time.load(Ordering::Relaxed) + FLOOR_STEP_MS
    }

    /// Moves the floor up to `wanted`, or as far as holds let it; returns where it is.
    pub(crate) fn move_floor(&self, wanted: Offset, now: LogTime) -> Offset {
        self.floor_time.store(now.0, Ordering::Relaxed);
        let mut holds = self.holds.lock().unwrap_or_else(PoisonError::into_inner);
        holds.list.retain(|_, (_, until)| *until >= now);
        let held = holds.list.values().map(|(at, _)| *at).min();
        let floor = Offset(self.floor.load(Ordering::Relaxed));
        let floor = floor.max(held.map_or(wanted, |held| held.min(wanted)));
        self.floor.store(floor.0, Ordering::Release);
        floor
    }

    fn hold(&self, at: Offset) -> Result<u64, Refusal> {
        let mut holds = self.holds.lock().unwrap_or_else(PoisonError::into_inner);
        self.check(at)?;
        let now = LogTime(self.time.load(Ordering::Relaxed));
        holds.list.retain(|_, (_, until)| *until >= now);
        if holds.list.len() >= HOLDS_PER_SHARD_MAX {
            let detail = format!("{HOLDS_PER_SHARD_MAX} readers hold history already");
            return Err(Refusal::new(Code::LimitReached, detail));
        }
        holds.next += 1;
        let id = holds.next;
        holds.list.insert(id, (at, LogTime(now.0 + HOLD_MS_MAX)));
        Ok(id)
    }

    /// Refuses an offset that is not applied yet or is below the floor.
    fn check(&self, at: Offset) -> Result<(), Refusal> {
        let floor = self.floor.load(Ordering::Acquire);
        if at.0 < floor && !planted::has(Bug::ReadBelowFloor) {
            // There was nothing before the beginning of the log.
            let begin = floor.max(Offset::FIRST.0);
            let detail =
                format!("history before {begin} is gone; read at a later offset than {at}");
            return Err(Refusal::new(Code::OffsetTrimmed, detail));
        }
        let applied = self.applied.load(Ordering::Acquire);
        // A frame is applied as a whole, so an offset within it reads the same as its beginning.
        if at.0 > applied && at.0 >= self.next.load(Ordering::Relaxed) {
            let detail = format!("this replica stands at {applied}; {at} is not applied yet");
            return Err(Refusal::new(Code::BadArgument, detail));
        }
        Ok(())
    }
}

/// Reads of one shard. Cheap to clone, usable from any thread.
///
/// A keyspace that does not exist reads as an empty one: keyspaces are made by their first put.
#[derive(Clone)]
pub struct Reader<R: TablesReader> {
    tables: R,
    shared: Arc<Shared>,
}

impl<R: TablesReader> Reader<R> {
    pub(crate) fn new(tables: R, shared: Arc<Shared>) -> Reader<R> {
        Reader { tables, shared }
    }

    /// Reads a part of what is on disk again: [`TablesReader::check`].
    ///
    /// # Errors
    /// [`Fault`].
    pub fn check(&self, from: u64, bytes: u64) -> Result<Checked, Fault> {
        self.tables.check(from, bytes)
    }

    /// The tables as files: see [`TablesReader::export`].
    ///
    /// # Errors
    /// [`Fault`].
    pub fn export(&self) -> Result<R::Export, Fault> {
        self.tables.export()
    }

    /// The last commit that is folded in: reading *at* it sees everything.
    #[must_use]
    pub fn applied(&self) -> Offset {
        Offset(self.shared.applied.load(Ordering::Acquire))
    }

    /// Reads *at* offsets below this are refused.
    #[must_use]
    pub fn floor(&self) -> Offset {
        Offset(self.shared.floor.load(Ordering::Acquire))
    }

    fn entry(&self, keyspace: &str) -> Option<Entry> {
        let catalog = self.shared.catalog.read().unwrap_or_else(PoisonError::into_inner);
        catalog.get(keyspace).copied()
    }

    /// A row as of `at`: its version and its value.
    ///
    /// # Errors
    /// `OffsetTrimmed`, `BadArgument` for an offset that is not applied yet, or a fault.
    pub fn get(
        &self,
        keyspace: &str,
        key: &[u8],
        at: Offset,
    ) -> Result<Option<(Offset, R::Value)>, ReadError> {
        self.shared.check(at)?;
        let Some(Entry { tree, floor }) = self.entry(keyspace) else { return Ok(None) };
        let version = self.tables.get(tree, key, at)?.filter(|version| version.offset >= floor);
        self.shared.check(at)?;
        Ok(version.and_then(|version| Some((version.offset, version.value?))))
    }

    /// Visits the rows of a range as of `at`: at most `limit`, and no more once keys and values
    /// took `max_bytes`. Returns where the following page begins (its `from`; when reversed its
    /// `to`), if there is one.
    ///
    /// # Errors
    /// As [`Reader::get`]. What was visited before an error must not be used.
    pub fn scan(
        &self,
        keyspace: &str,
        range: KeyRange<'_>,
        page: Page,
        at: Offset,
        mut visit: impl FnMut(&[u8], Offset, &[u8]),
    ) -> Result<Option<Vec<u8>>, ReadError> {
        self.shared.check(at)?;
        let Some(Entry { tree, floor }) = self.entry(keyspace) else { return Ok(None) };
        let (mut rows, mut bytes, mut last, mut next) = (0, 0, Vec::new(), None);
        self.tables.scan(tree, range, page.reverse, at, &mut |key, version, value| {
            if version < floor {
                return ControlFlow::Continue(());
            }
            if rows >= page.limit || bytes >= page.max_bytes {
                let following = if page.reverse { std::mem::take(&mut last) } else { key.to_vec() };
                next = Some(following);
                return ControlFlow::Break(());
            }
            rows += 1;
            bytes += key.len() + value.len();
            if page.reverse {
                last.clear();
                last.extend_from_slice(key);
            }
            visit(key, version, value);
            ControlFlow::Continue(())
        })?;
        self.shared.check(at)?;
        Ok(next)
    }

    /// Keeps history at and above `at` readable until the hold is dropped or a minute of log time
    /// has passed.
    ///
    /// # Errors
    /// `OffsetTrimmed`, `BadArgument`, or `LimitReached` when too many readers hold history.
    pub fn hold(&self, at: Offset) -> Result<Hold, Refusal> {
        let id = self.shared.hold(at)?;
        Ok(Hold { shared: Arc::clone(&self.shared), id, at })
    }
}

/// How much of a range one scan visits, and in which direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    /// From the end to the beginning.
    pub reverse: bool,
    /// Rows, at least one.
    pub limit: usize,
    /// Bytes of keys and values; the last row may pass it. At least one.
    pub max_bytes: usize,
}

/// Holds the history floor of a shard down, as a lease in log time.
#[derive(Debug)]
pub struct Hold {
    shared: Arc<Shared>,
    id: u64,
    at: Offset,
}

impl Hold {
    /// The offset that it keeps readable.
    #[must_use]
    pub fn at(&self) -> Offset {
        self.at
    }

    /// Renews the lease.
    ///
    /// # Errors
    /// `OffsetTrimmed`: it ended, and the floor passed.
    pub fn renew(&self) -> Result<(), Refusal> {
        let mut holds = self.shared.holds.lock().unwrap_or_else(PoisonError::into_inner);
        self.shared.check(self.at)?;
        let until = LogTime(self.shared.time.load(Ordering::Relaxed) + HOLD_MS_MAX);
        holds.list.insert(self.id, (self.at, until));
        Ok(())
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut holds = self.shared.holds.lock().unwrap_or_else(PoisonError::into_inner);
        holds.list.remove(&self.id);
    }
}
