//! The rules of names: of namespaces, keyspaces, streams and cursors.

use crate::code::Code;
use crate::limits::NAME_BYTES_MAX;
use crate::message::Refusal;

/// What no namespace may be called: paths of the HTTP interface stand there.
pub const NAMESPACE_RESERVED: [&str; 3] = ["cluster", "namespaces", "topics"];

/// Checks the name of a keyspace, stream or cursor: 1 to 255 bytes of UTF-8 without control
/// characters and without '/'.
///
/// # Errors
/// [`Code::BadName`].
pub fn check(name: &str) -> Result<(), Refusal> {
    if name.is_empty() {
        return Err(Refusal::new(Code::BadName, "a name is empty"));
    }
    if name.len() > NAME_BYTES_MAX {
        let detail = format!("a name of {} bytes; at most {NAME_BYTES_MAX} are taken", name.len());
        return Err(Refusal::new(Code::BadName, detail));
    }
    let plain = |byte: u8| (0x20..0x7f).contains(&byte) && byte != b'/';
    if name.bytes().all(plain) {
        return Ok(());
    }
    if let Some(bad) = name.chars().find(|c| *c == '/' || c.is_control()) {
        let detail = format!("the name {name:?} has the character {bad:?}, which names can't have");
        return Err(Refusal::new(Code::BadName, detail));
    }
    Ok(())
}

/// Checks the name of a namespace: as [`check`], and not one of [`NAMESPACE_RESERVED`].
///
/// # Errors
/// [`Code::BadName`].
pub fn check_namespace(name: &str) -> Result<(), Refusal> {
    check(name)?;
    if NAMESPACE_RESERVED.contains(&name) {
        let detail = format!("{name:?} is reserved and can't name a namespace");
        return Err(Refusal::new(Code::BadName, detail));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_from_what_can_be_none() {
        let long = "n".repeat(NAME_BYTES_MAX);
        for good in ["a", "users", "naïve", "a b", "..", "cluster", "日本", long.as_str()] {
            assert_eq!(check(good), Ok(()), "{good:?}");
        }
        let longer = "n".repeat(NAME_BYTES_MAX + 1);
        for bad in ["", "a/b", "/", "a\nb", "\0", "\u{7f}", "\u{85}", longer.as_str()] {
            assert_eq!(check(bad).unwrap_err().code, Code::BadName, "{bad:?}");
        }
    }

    #[test]
    fn some_names_are_not_for_namespaces() {
        for reserved in NAMESPACE_RESERVED {
            assert_eq!(check_namespace(reserved).unwrap_err().code, Code::BadName);
        }
        assert_eq!(check_namespace("default"), Ok(()));
        assert_eq!(check_namespace("a/b").unwrap_err().code, Code::BadName);
    }
}
