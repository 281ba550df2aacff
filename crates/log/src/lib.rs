//! Bytes at offsets: the log of one shard on one disk.
//!
//! This crate is pure. It knows no clock, thread, socket or randomness, and no file but through
//! [`Disk`]; it forbids everything above it: what a body means, what Raft decides and who asks are
//! unknown here. Reading order:
//!
//! * [`disk`]: `trait Disk` and `trait File`, the seam that the shell's real disk and the
//!   simulator's pass through; `contract` is the suite that each of them passes; `sim` is the disk
//!   that tells lies like real ones (both behind the feature `sim`);
//! * [`layout`]: where frames, padding and segments lie, as a pure function of offsets and lengths;
//! * [`superblock`]: term, vote, identity and the log's start, in two checksummed slots;
//! * `segment`: one file of the log and its footer;
//! * [`Log`]: the owner's view: stage frames, take [`Write`]s, hear that they are durable, cut,
//!   trim;
//! * [`Batch`]: committed frames on their way to the views, from memory where they still are;
//! * [`Reader`] and [`Records`]: everyone else's view: read whole frames or records by offset,
//!   while the owner goes on;
//! * [`transfer`]: the files of a log, copied for another replica;
//! * [`journal`]: one sync for small writes of many logs;
//! * [`scrub`] and [`mend`]: damage is looked for, and frames of another replica take its place;
//! * `footers`: what full segments say about themselves is made again where it rotted;
//! * [`recovery`]: what a disk holds after a crash: torn tail against corruption.
//!
//! # How a frame becomes durable
//!
//! ```text
//!   stage(…)            header and body are copied once, into the open chunk; the frame has its
//!                       offset
//!   next_write()        the open chunk is frozen; a Write is everything one disk thread needs: it
//!                       owns its bytes
//!   Write::run()        on a disk thread: pwrite, zeros ahead if the file grows, one fdatasync a
//!                       touched file
//!   written(done)       back at the owner: durable() moves; what was staged meanwhile is the next
//!                       batch
//!   release(offset)     views have folded it in: the chunk's memory goes
//! ```
//! At most one [`Write`] of a log is under way at a time, so frames become durable in order and
//! group commit falls out of a busy disk. A [`Write`] may also carry superblock updates, a suffix
//! cut and a segment's seal; it runs them in the order that keeps every invariant below true at
//! each moment a power cut may come.
//!
//! An owner that may lose its newest frames to a power cut, but not to the end of its process,
//! takes some writes by [`Log::next_write_unsynced`]: then `written_to()` moves without
//! `durable()`, until the next write that is synced. What lies between the two is one more
//! unsynced batch for recovery: frames in it say of none of it that it was synced, so what a power
//! cut leaves of it is cut at its first bad frame.
//!
//! # Invariants
//!
//! * Frames at or below `durable()` survive a power cut, those at or below `written_to()` the end
//!   of the process; either goes back only when the owner cuts (consensus cuts only what no quorum
//!   has).
//! * Frames are contiguous: each begins where the one before ended, or at the next segment's base
//!   after padding; each carries the checksum of the one before.
//! * Segment *n* is sealed and synced before a byte of frames of *n + 1* is written.
//! * Nothing behind the end of the log holds a valid frame of an older life: what is cut goes
//!   durably before its space is written again, and the superblock says so while it is under way.
//! * Recovery cuts a bad frame only if it lies beyond every `synced` mark that a later or the same
//!   batch recorded; any other bad frame is [`Damage`]: kept, reported, and never served.
//! * A log begins at a segment's base, and at least one frame lies behind its beginning, unless it
//!   is new. Its beginning changes in one update of the superblock.
//! * Space grows zero-filled, in extents ahead of the end, and no zero-fill ever touches bytes that
//!   a frame may have been written to.

pub mod batch;
mod chunk;
pub mod disk;
pub mod extend;
mod footers;
pub mod journal;
pub mod layout;
mod log;
pub mod mend;
mod plan;
pub mod reader;
pub mod records;
pub mod recovery;
mod scan;
pub mod scrub;
mod segment;
mod shared;
pub mod superblock;
pub mod transfer;
pub mod trim;
mod wary;
pub mod write;

#[cfg(feature = "sim")]
pub mod contract;
#[cfg(feature = "sim")]
pub mod fuzzing;
#[cfg(feature = "sim")]
pub mod sim;

pub use batch::Batch;
pub use disk::{Disk, File, Open};
pub use extend::{Extend, Extended};
pub use journal::Journal;
pub use layout::{Flaw, Layout, Position};
pub use log::{Log, Refused, Staged};
pub use mend::{Mend, MendError, Mended};
pub use reader::{Chunk, ReadError, Reader};
pub use records::Records;
pub use recovery::{Damage, Depth, OpenError, Opened, Survey, Torn};
pub use scrub::{Scrub, Scrubbed};
pub use superblock::{HardState, Identity};
pub use transfer::{Adoption, Export, filled};
pub use trim::{Trim, TrimInput, Trimmed};
pub use write::{Write, Written};

use std::io;

/// The operating system said no where that can't be repaired: the node has to stop with this
/// sentence. It is never retried.
#[derive(Debug, thiserror::Error)]
#[error("can't {action} {file}: {source}")]
pub struct Fault {
    action: &'static str,
    file: String,
    #[source]
    source: io::Error,
}

impl Fault {
    /// For `map_err`: what was being done to which file.
    pub(crate) fn at(action: &'static str, file: &str) -> impl FnOnce(io::Error) -> Fault {
        move |source| Fault { action, file: file.to_owned(), source }
    }

    /// The same for somebody else.
    pub(crate) fn again(&self) -> Fault {
        let source = io::Error::new(self.kind(), self.source.to_string());
        Fault { action: self.action, file: self.file.clone(), source }
    }

    /// What the log's owner could not do.
    #[must_use]
    pub fn of(action: &'static str, file: &str, source: io::Error) -> Fault {
        Fault::at(action, file)(source)
    }

    /// There was no space, or the user's share of it is used up.
    pub(crate) fn is_full(&self) -> bool {
        use io::ErrorKind::{QuotaExceeded, StorageFull};
        matches!(self.kind(), StorageFull | QuotaExceeded)
    }

    /// The disk refused to give out, or to take, what lies in a block.
    pub(crate) fn is_refused(&self) -> bool {
        disk::is_refused(&self.source)
    }

    /// The kind of the operating system's error.
    #[must_use]
    pub fn kind(&self) -> io::ErrorKind {
        self.source.kind()
    }
}
