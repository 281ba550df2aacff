//! The seam to the table engine: ordered, versioned maps from bytes to bytes, one tree a keyspace
//! and one for the shard itself.

use naust_wire::options::KeyspaceOptions;
use naust_wire::{Index, LogTime, Offset, Term};
use std::ops::ControlFlow;

/// A tree of a shard. Given out in log order, never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TreeId(pub u32);

impl TreeId {
    /// The shard's own rows.
    pub const SHARD: TreeId = TreeId(0);
}

/// Which frame was folded in last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Mark {
    /// Where that frame begins; zero: none yet.
    pub applied: Offset,
    /// Where the next frame begins at the earliest.
    pub next: Offset,
    /// Its Raft index.
    pub index: Index,
    /// Its Raft term.
    pub term: Term,
    /// Its log time.
    pub time: LogTime,
}

/// A version of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version<V> {
    /// The commit that wrote it.
    pub offset: Offset,
    /// The bytes; `None`: the row was deleted here.
    pub value: Option<V>,
}

/// The engine failed: an IO error, or bytes on disk that are damaged. The replica stops serving;
/// nothing is retried.
#[derive(Debug, thiserror::Error)]
#[error("tables: {what}")]
pub struct Fault {
    /// What failed, in a sentence for the operator.
    pub what: String,
    /// It is a full disk: space may come back.
    pub disk_full: bool,
}

/// Keys from `from` (inclusive) to `to` (exclusive; `None`: to the end of the tree).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyRange<'a> {
    /// First key.
    pub from: &'a [u8],
    /// End, exclusive.
    pub to: Option<&'a [u8]>,
}

/// What a scan hands its rows to (key, version, value), until it breaks.
pub type Visit<'a> = &'a mut (dyn FnMut(&[u8], Offset, &[u8]) -> ControlFlow<()> + 'a);

/// The trees of one shard. Owned by the views thread; everything else uses a [`TablesReader`] or
/// runs a [`TablesJob`].
///
/// Invariants: a row version is visible to [`TablesReader`]s as soon as `put` returns (readers ask
/// at offsets that are applied); no version above the history floor and no newest version at or
/// below it is ever dropped, except below the tree's own retention floor; what was put after the
/// last `rotate` is lost in a crash, and what was put before it is there whole or not at all:
/// `mark` tells which.
pub trait Tables: Send + 'static {
    /// Reads beside the owner.
    type Reader: TablesReader;
    /// Work for a background thread.
    type Job: TablesJob;

    /// A reader of these tables; it sees trees that are made later too.
    fn reader(&self) -> Self::Reader;

    /// Makes a tree, or changes the options of one that exists.
    ///
    /// # Errors
    /// [`Fault`], as for all methods here.
    fn make(&mut self, tree: TreeId, options: &KeyspaceOptions) -> Result<(), Fault>;

    /// All trees, in order.
    fn trees(&self) -> Vec<TreeId>;

    /// Puts a row version (`None`: a deletion). Offsets never fall within a tree; one key has one
    /// version an offset.
    ///
    /// # Errors
    /// [`Fault`].
    fn put(
        &mut self,
        tree: TreeId,
        key: &[u8],
        at: Offset,
        value: Option<&[u8]>,
    ) -> Result<(), Fault>;

    /// Bytes in memory that `rotate` would hand to a flush, about, of one tree.
    fn unflushed_bytes(&self, tree: TreeId) -> u64;

    /// Bytes that are rotated but not yet flushed, of all trees: for admission control.
    fn flushing_bytes(&self) -> u64;

    /// Runs of the tree that a read may have to look into, and so how far compaction is behind: for
    /// admission control.
    fn backlog(&self) -> usize;

    /// Whether there may be a [`job`](Tables::job) because of what was read since: merges that
    /// readers would gain by. To be asked about every second.
    fn look_again(&mut self) -> bool {
        false
    }

    /// Seals what was put so far in these trees, together with `mark`, as one unit to be persisted.
    /// The shard tree is always among them and is always persisted first; a later unit is never
    /// persisted before an earlier one.
    ///
    /// # Errors
    /// [`Fault`].
    fn rotate(&mut self, trees: &[TreeId], mark: Mark) -> Result<(), Fault>;

    /// The mark up to which the tree is on disk. Of a tree that never had a row: [`Mark::default`].
    fn mark(&self, tree: TreeId) -> Mark;

    /// Sets the history floor: of each key, versions below the newest one at or below this offset
    /// may go.
    fn set_history_floor(&mut self, floor: Offset);

    /// Sets a tree's retention floor: rows below count as absent and may go. Reads honour it at
    /// once.
    fn set_retention_floor(&mut self, tree: TreeId, floor: Offset);

    /// The next piece of background work that is due (flush before compaction), if any that may run
    /// beside those under way.
    fn job(&mut self) -> Option<Self::Job>;

    /// A job ended.
    ///
    /// # Errors
    /// [`Fault`]: the job's own.
    fn done(&mut self, done: <Self::Job as TablesJob>::Done) -> Result<(), Fault>;

    /// Bytes on disk of one tree, and about how many row versions it has, those in memory among
    /// them. Reads none of them.
    fn size(&self, tree: TreeId) -> (u64, u64);
}

/// A flush or a compaction, to be run on a background thread. Blocking.
pub trait TablesJob: Send + 'static {
    /// What it hands back.
    type Done: Send + 'static;

    /// Does it.
    fn run(self) -> Self::Done;
}

/// Reads from any thread, beside the owner. Cheap to clone.
pub trait TablesReader: Clone + Send + Sync + 'static {
    /// Bytes of a value.
    type Value: AsRef<[u8]> + Send;
    /// The tables as files, for another replica.
    type Export: TablesExport;

    /// The newest version of a row at or below `at` (a deletion is a version too), unless it lies
    /// below the tree's retention floor. A tree that does not exist has no rows.
    ///
    /// # Errors
    /// [`Fault`].
    fn get(
        &self,
        tree: TreeId,
        key: &[u8],
        at: Offset,
    ) -> Result<Option<Version<Self::Value>>, Fault>;

    /// Visits the rows of a range that live at `at`, in key order or against it, until `visit`
    /// breaks: key, version, value.
    ///
    /// # Errors
    /// [`Fault`].
    fn scan(
        &self,
        tree: TreeId,
        range: KeyRange<'_>,
        reverse: bool,
        at: Offset,
        visit: Visit<'_>,
    ) -> Result<(), Fault>;

    /// Reads again what is on disk, whole files in the order of their numbers from `from` on, until
    /// about `bytes` were read: damage is to be found while other replicas can still help.
    /// Blocking.
    ///
    /// # Errors
    /// [`Fault`]: a file is damaged, or can't be read.
    fn check(&self, from: u64, bytes: u64) -> Result<Checked, Fault>;

    /// What is on disk now: as another replica would find it if it were its own. Blocking.
    ///
    /// # Errors
    /// [`Fault`].
    fn export(&self) -> Result<Self::Export, Fault>;
}

/// What one step of [`TablesReader::check`] came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// Bytes that were read.
    pub bytes: u64,
    /// The number of the file to go on with; `None`: all were read.
    pub next: Option<u64>,
}

/// Tables as files. They stay as they are while this is held, whatever becomes of the tables.
pub trait TablesExport: Send + Sync + 'static {
    /// The last frame that any of the trees has folded in.
    fn mark(&self) -> Mark;

    /// Names and lengths of the files, in bytes.
    fn files(&self) -> Vec<(String, u64)>;

    /// At most `bytes` bytes of a file from `at` on. Blocking.
    ///
    /// # Errors
    /// [`Fault`]; also if the file is shorter than it was.
    fn read(&self, file: usize, at: u64, bytes: usize) -> Result<Vec<u8>, Fault>;
}
