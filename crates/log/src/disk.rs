//! The seam to storage: files by name in the directory of one shard.
//!
//! Blocking. The owner of a [`Log`](crate::Log) calls it only while opening; afterwards disk
//! threads, readers and background threads do.

use crate::journal::Journaled;
use std::io;
use std::sync::Arc;

/// The directory of one shard's log.
pub trait Disk: Send + Sync {
    /// Names of all files, in any order.
    ///
    /// # Errors
    /// Of the operating system, as for all methods here.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Opens a file for reading and writing.
    ///
    /// # Errors
    /// `NotFound` when there is none and `create` is not asked for.
    fn open(&self, name: &str, open: Open) -> io::Result<Arc<dyn File>>;

    /// Renames a file, replacing what had the new name. Durable only after [`Disk::sync`].
    ///
    /// # Errors
    /// Of the operating system.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file. Durable only after [`Disk::sync`]. Handles that are open stay readable.
    ///
    /// # Errors
    /// Of the operating system.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes the names durable: creations, renames and removals so far.
    ///
    /// # Errors
    /// Of the operating system.
    fn sync(&self) -> io::Result<()>;

    /// The journal that may hold small writes of this log, if one does.
    fn journaled(&self) -> Option<&Journaled> {
        None
    }
}

/// How to open a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Open {
    /// It must exist.
    Existing,
    /// It is made empty if it does not exist.
    Create,
}

/// An open file. Positions and lengths are in bytes.
#[expect(clippy::len_without_is_empty, reason = "a length is asked of the system and may fail")]
pub trait File: Send + Sync {
    /// Reads at most `into.len()` bytes at `position`; fewer only at the end of the file.
    ///
    /// # Errors
    /// Of the operating system.
    fn read_at(&self, position: u64, into: &mut [u8]) -> io::Result<usize>;

    /// Writes all of `parts`, one after the other, at `position`; the file grows if need be.
    ///
    /// # Errors
    /// Of the operating system. `StorageFull` when there is no space; some of the bytes may have
    /// been written.
    fn write_at(&self, position: u64, parts: &[&[u8]]) -> io::Result<()>;

    /// A hint: a sync will follow of the `length` bytes at `position`, which were just written, and
    /// they may go on their way to the disk now. Promises nothing, and may do nothing.
    fn begin_sync(&self, position: u64, length: u64) {
        let _ = (position, length);
    }

    /// Makes all bytes written so far durable (`fdatasync`: the length too).
    ///
    /// # Errors
    /// Of the operating system. After an error nothing may be assumed of any byte written since the
    /// last success.
    fn sync(&self) -> io::Result<()>;

    /// Length in bytes.
    ///
    /// # Errors
    /// Of the operating system.
    fn len(&self) -> io::Result<u64>;

    /// Cuts the file to `length` bytes, or extends it with a hole.
    ///
    /// # Errors
    /// Of the operating system.
    fn set_len(&self, length: u64) -> io::Result<()>;
}

/// Bytes that a disk gives out, or refuses, together; or a part of them.
const BLOCK_BYTES: usize = 4096;
/// The operating system's number for a disk that refuses (`EIO`), on all that Naust runs on.
const REFUSED: i32 = 5;

/// Whether a disk refuses to give out, or to take, what lies in one of its blocks.
pub(crate) fn is_refused(error: &io::Error) -> bool {
    error.raw_os_error() == Some(REFUSED)
}

/// Reads as [`File::read_at`], but blocks that the disk refuses to give out are zeros.
///
/// # Errors
/// Of the operating system, but for that one.
pub(crate) fn read_around(file: &dyn File, position: u64, into: &mut [u8]) -> io::Result<usize> {
    let mut done = 0;
    loop {
        let (read, refused) = read_given(file, position + done as u64, &mut into[done..])?;
        done += read;
        if !refused {
            return Ok(done);
        }
        let in_block = ((position + done as u64) % BLOCK_BYTES as u64) as usize;
        let end = (done + BLOCK_BYTES - in_block).min(into.len());
        into[done..end].fill(0);
        done = end;
    }
}

/// Reads as [`File::read_at`], but where the disk refuses to give out what it holds, the bytes
/// before; whether it did.
///
/// # Errors
/// Of the operating system, but for that one.
pub(crate) fn read_given(
    file: &dyn File,
    position: u64,
    into: &mut [u8],
) -> io::Result<(usize, bool)> {
    match file.read_at(position, into) {
        Err(error) if is_refused(&error) => {}
        read => return read.map(|read| (read, false)),
    }
    let mut done = 0;
    while done < into.len() {
        let at = position + done as u64;
        let in_block = (at % BLOCK_BYTES as u64) as usize;
        let end = (done + BLOCK_BYTES - in_block).min(into.len());
        match file.read_at(at, &mut into[done..end]) {
            Ok(0) => return Ok((done, false)),
            Ok(read) => done += read,
            Err(error) if is_refused(&error) => return Ok((done, true)),
            Err(error) => return Err(error),
        }
    }
    Ok((done, false))
}
