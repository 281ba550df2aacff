//! Entry points of the fuzz targets: each feeds any bytes to a decoder and asserts what must hold of what it accepts.
//!
//! They live here so that tests exercise them too, without a fuzzer.

use crate::commit::{Commit, Op, position_in};
use crate::message::{Message, Refusal};

/// Any bytes as a commit: what passes [`Commit::check`] can be walked, and its records have places of their own.
pub fn commit(body: &[u8]) {
    let _ = walk_commit(body);
}

fn walk_commit(body: &[u8]) -> Result<(), Refusal> {
    let message = Message::new(body)?;
    let commit = Commit::read(&message)?;
    if let Err(refusal) = commit.check() {
        let _ = (commit.ops().count(), commit.conditions().count(), commit.names().count());
        return Err(refusal);
    }
    let mut record_before = 0;
    for op in commit.ops() {
        match op.expect("a checked commit can be walked") {
            Op::Append { space, value } => {
                commit.name(space).expect("a checked index leads to a name");
                let at = position_in(body, value);
                assert!(at > record_before, "records lie in the order of their appends");
                record_before = at;
            }
            Op::Advance { space, cursor, .. } => {
                commit.name(space).expect("a checked index leads to a name");
                commit.name(cursor).expect("a checked index leads to a name");
            }
            Op::Put { space, key, .. } | Op::Delete { space, key } => {
                commit.name(space).expect("a checked index leads to a name");
                assert!(!key.is_empty(), "a checked key has bytes");
            }
            Op::DeleteRange { space, .. } => {
                commit.name(space).expect("a checked index leads to a name");
            }
        }
    }
    for condition in commit.conditions() {
        condition.expect("a checked commit can be walked");
    }
    Ok(())
}
