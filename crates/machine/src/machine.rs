//! The machine: everything that is folded, beside the tables that hold the rest.

use crate::digest::Noted;
use crate::directory::Directory;
use crate::history::{TimePoints, Window};
use crate::keyspaces::Keyspaces;
use crate::open::Replay;
use crate::plan::Plan;
use crate::reader::{Reader, Shared};
use crate::recent::Recent;
use crate::rotation::Rotation;
use crate::rows::Key;
use crate::sessions::Sessions;
use crate::streams::Streams;
use crate::tables::{Fault, Mark, Tables, TreeId};
use crate::{Change, StreamId};
use naust_wire::limits::{
    HISTORY_BYTES_DEFAULT, HISTORY_BYTES_MIN, HISTORY_MS_DEFAULT, HISTORY_MS_MIN,
};
use naust_wire::message::Refusal;
use naust_wire::options::NamespaceOptions;
use naust_wire::reply::{RangeDeleted, Refused};
use naust_wire::{Offset, SessionId, ShardId};
use std::collections::VecDeque;
use std::sync::Arc;

/// How a machine spends memory and log. Not logged: replicas may differ in them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MachineOptions {
    /// Bytes of memtables past which they are rotated.
    pub memtable_bytes: u64,
    /// Log bytes that a reopened machine may have to fold again, about: past it memtables are
    /// rotated.
    pub replay_bytes_max: u64,
    /// The window of history, in milliseconds of log time; at least [`HISTORY_MS_MIN`].
    pub history_ms: u64,
    /// The window of history, in log bytes; at least [`HISTORY_BYTES_MIN`].
    pub history_bytes: u64,
}

impl Default for MachineOptions {
    fn default() -> MachineOptions {
        MachineOptions {
            memtable_bytes: 64 * 1024 * 1024,
            // Folding in again what a log of this size holds takes about a third of a second.
            replay_bytes_max: 64 * 1024 * 1024,
            history_ms: HISTORY_MS_DEFAULT,
            history_bytes: HISTORY_BYTES_DEFAULT,
        }
    }
}

impl MachineOptions {
    /// These options with the history that a namespace asks for; zero means the default.
    #[must_use]
    pub fn with_history(self, options: &NamespaceOptions) -> MachineOptions {
        let or = |asked, default| if asked == 0 { default } else { asked };
        MachineOptions {
            history_ms: or(options.history_ms, HISTORY_MS_DEFAULT),
            history_bytes: or(options.history_bytes, HISTORY_BYTES_DEFAULT),
            ..self
        }
    }

    fn window(&self) -> Window {
        Window {
            ms: self.history_ms.max(HISTORY_MS_MIN),
            bytes: self.history_bytes.max(HISTORY_BYTES_MIN),
        }
    }
}

/// What became of a frame. Lists are valid until the next one is applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Applied<'a> {
    /// The frame had no meaning for the tables.
    Nothing,
    /// The commit happened, whole.
    Committed {
        /// Where: for a duplicate, where it happened first.
        offset: Offset,
        /// Ids of the appended records, in the order of the appends.
        ids: &'a [Offset],
        /// What each delete-range did, in their order.
        ranges: &'a [RangeDeleted],
        /// It happened before, and was answered again.
        duplicate: bool,
        /// Streams that grew now, for those who wait; none for a duplicate.
        streams: &'a [StreamId],
        /// Keyspaces that were written now, for those who watch; none for a duplicate.
        keyspaces: &'a [TreeId],
    },
    /// A condition failed; nothing happened.
    Refused(Refused),
    /// It failed otherwise; nothing happened.
    Failed(Refusal),
    /// A session was opened.
    Session(SessionId),
    /// A control entry was applied at this offset.
    Done(Offset),
    /// Shard 0: a namespace came or went at this offset.
    Directory(Offset, Change),
}

/// Where a machine stands when it was opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resume {
    /// Frames from here must be given to [`Machine::replay`]; `applied.next` when there are none.
    pub replay_from: Offset,
    /// The last frame that was folded in; `applied.next` is where [`Machine::apply`] goes on.
    pub applied: Mark,
    /// The body of the last `Configure` frame up to there.
    pub configuration: Option<Vec<u8>>,
}

/// The views of one shard. Owned by one thread; others read through a [`Reader`].
///
/// Invariants: after each `apply` the tables and the state stand at `applied()`; what is not in the
/// tables is in the state, and both at P(shard) follow from the tables on disk; after a [`Fault`]
/// nothing may be asked any more.
pub struct Machine<T: Tables> {
    pub(crate) shard: ShardId,
    pub(crate) tables: T,
    pub(crate) reader: T::Reader,
    pub(crate) shared: Arc<Shared>,
    pub(crate) state: State,
    pub(crate) rotation: Rotation,
    pub(crate) plan: Plan,
    pub(crate) options: MachineOptions,
    pub(crate) replay: Replay,
    /// The number of the stream with which the next look at retention begins.
    pub(crate) look_from: usize,
    /// What was noted at the last entries that asked for it. Not stored: who comes back after them
    /// does not have it.
    pub(crate) noted: VecDeque<Noted>,
}

/// What is folded and lives in memory: a function of the log, the same on every replica (but for
/// `floor`, which readers hold down).
#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) mark: Mark,
    pub(crate) keyspaces: Keyspaces,
    pub(crate) streams: Streams,
    pub(crate) sessions: Sessions,
    pub(crate) recent: Recent,
    pub(crate) points: TimePoints,
    pub(crate) directory: Directory,
    pub(crate) configuration: Option<Vec<u8>>,
    /// The entry that closed the shard.
    pub(crate) closed: Option<Offset>,
    /// The history floor.
    pub(crate) floor: Offset,
    /// Where the floor was looked at last.
    pub(crate) floor_seen: Offset,
}

/// Log bytes that pass before the history floor is looked at again.
const FLOOR_STEP_BYTES: u64 = 64 * 1024;

impl<T: Tables> Machine<T> {
    /// The last frame that was folded in.
    #[must_use]
    pub fn applied(&self) -> Mark {
        self.state.mark
    }

    /// The shard whose views these are.
    #[must_use]
    pub fn shard(&self) -> ShardId {
        self.shard
    }

    /// Reads beside this machine, from any thread.
    #[must_use]
    pub fn reader(&self) -> Reader<T::Reader> {
        Reader::new(self.reader.clone(), Arc::clone(&self.shared))
    }

    /// The namespaces. Meaningful for shard 0 only.
    #[must_use]
    pub fn directory(&self) -> &Directory {
        &self.state.directory
    }

    /// Whether the namespace ended: whatever lies behind that entry is refused.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.state.closed.is_some()
    }

    /// Sets how memory and log are spent, from now on.
    pub fn set_options(&mut self, options: MachineOptions) {
        self.options = options;
    }

    /// Bytes of rows in memory: unrotated and rotated ones. For admission.
    #[must_use]
    pub fn memory_bytes(&self) -> u64 {
        let trees = self.rotation.open_trees().chain([TreeId::SHARD]);
        let open: u64 = trees.map(|tree| self.tables.unflushed_bytes(tree)).sum();
        open + self.tables.flushing_bytes()
    }

    /// Runs that a read may have to look into: how far compaction is behind. For admission.
    #[must_use]
    pub fn backlog(&self) -> usize {
        self.tables.backlog()
    }

    /// Whether [`Machine::maintain`] may have work because of what was read since. To be asked
    /// about every second.
    pub fn look_again(&mut self) -> bool {
        self.tables.look_again()
    }

    /// The tables, for what this crate has no word for: caches, statistics.
    #[must_use]
    pub fn tables(&self) -> &T {
        &self.tables
    }

    /// Moves the history floor up, when it is time to look at it.
    pub(crate) fn move_floor(&mut self) {
        let state = &mut self.state;
        let Mark { next, time, .. } = state.mark;
        if next.0 < state.floor_seen.0 + FLOOR_STEP_BYTES && !self.shared.is_later(time) {
            return;
        }
        state.floor_seen = next;
        let wanted = self.options.window().floor(&state.points, time, next);
        let wanted = wanted.min(state.mark.applied);
        state.floor = self.shared.move_floor(wanted, time);
    }

    /// Puts a row of the shard tree (`None`: removes it) at the present offset.
    pub(crate) fn put_row(&mut self, key: Key<'_>, value: Option<&[u8]>) -> Result<(), Fault> {
        key.write(&mut self.plan.key);
        self.tables.put(TreeId::SHARD, &self.plan.key, self.state.mark.applied, value)
    }
}
