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
        // The engine looks in places that damaged bytes name.
        lsm_tree::Error::Io(error) if names_no_place(error) => damaged(doing, path, error),
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

fn names_no_place(error: &io::Error) -> bool {
    use io::ErrorKind::{InvalidData, InvalidInput, UnexpectedEof};
    matches!(error.kind(), InvalidData | InvalidInput | UnexpectedEof)
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

#[cfg(test)]
mod tests {
    use std::io::{Error, ErrorKind};
    use std::path::Path;

    #[test]
    fn a_full_disk_is_told_apart() {
        let fault = |kind: ErrorKind| super::io("writing", Path::new("a"), &Error::from(kind));
        assert!(fault(ErrorKind::StorageFull).disk_full);
        assert!(fault(ErrorKind::QuotaExceeded).disk_full);
        assert!(!fault(ErrorKind::PermissionDenied).disk_full);
        let error = lsm_tree::Error::Io(Error::from(ErrorKind::StorageFull));
        assert!(super::engine("writing", Path::new("a"), &error).disk_full);
        let sentence = super::engine("reading", Path::new("a"), &lsm_tree::Error::Unrecoverable);
        assert!(sentence.what.starts_with("reading a: the file is damaged"));
    }
}
