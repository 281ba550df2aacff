//! What goes wrong below, told in one sentence.

use naust_machine::Fault;
use std::fmt::Display;
use std::io;
use std::path::Path;

/// A failure of the file system.
pub(crate) fn io(doing: &str, path: &Path, error: &io::Error) -> Fault {
    Fault { what: format!("{doing} {}: {error}", path.display()), disk_full: is_full(error) }
}

/// A failure of the engine.
pub(crate) fn engine(doing: &str, path: &Path, error: &lsm_tree::Error) -> Fault {
    match error {
        lsm_tree::Error::Io(error) => io(doing, path, error),
        lsm_tree::Error::ChecksumMismatch { .. } => {
            damaged(doing, path, "its bytes do not match their checksum")
        }
        other => damaged(doing, path, other),
    }
}

/// Bytes on disk that cannot be what was written.
pub(crate) fn damaged(doing: &str, path: &Path, how: impl Display) -> Fault {
    Fault {
        what: format!("{doing} {}: the file is damaged: {how}", path.display()),
        disk_full: false,
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
