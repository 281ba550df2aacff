//! Sends a table to the disk while it is written.
//!
//! Otherwise the sync at its end sends all of it at once, and whatever else the disk is asked for
//! waits behind it: the syncs of logs above all, which commits wait for.

use std::fs::File;
use std::path::Path;

/// Bytes that are sent at once.
const SEND_BYTES: u64 = 1 << 20;

/// A table that is being written, and how much of it was sent.
pub(crate) struct Sending {
    /// A handle of its own; none if there is none to be had, and then it all goes at the end.
    file: Option<File>,
    sent: u64,
    /// At so many bytes of rows it is looked at again.
    next_at: u64,
}

impl Sending {
    /// Of the table that was begun there.
    pub fn new(path: &Path) -> Sending {
        Sending { file: File::open(path).ok(), sent: 0, next_at: SEND_BYTES }
    }

    /// So many bytes of rows were written since it was begun.
    pub fn go_on(&mut self, bytes: u64) {
        if bytes < self.next_at {
            return;
        }
        self.next_at = bytes + SEND_BYTES;
        // It hastens what the sync does in any case; that sync tells what is wrong with the file.
        if let Some(file) = &self.file
            && let Ok(metadata) = file.metadata()
        {
            let to = metadata.len();
            self.sent = if send(file, self.sent, to) { to } else { self.sent };
        }
    }

    /// So many bytes of the file are on their way, as far as the system tells.
    #[cfg(test)]
    pub fn sent(&self) -> u64 {
        self.sent
    }
}

/// Told that bytes will not be needed, the system begins to write back their pages. Pages that it
/// is writing stay in memory. Whether it was told.
#[cfg(target_os = "linux")]
fn send(file: &File, from: u64, to: u64) -> bool {
    use rustix::fs::{Advice, fadvise};
    let bytes = std::num::NonZeroU64::new(to.saturating_sub(from));
    bytes.is_some_and(|bytes| fadvise(file, from, Some(bytes), Advice::DontNeed).is_ok())
}

#[cfg(not(target_os = "linux"))]
fn send(_: &File, _: u64, _: u64) -> bool {
    false
}
