//! The commit: an atomic list of ops, guarded by conditions.
//!
//! A client collects a [`Draft`] and encodes it once. Everyone else reads the encoded bytes in place through
//! [`Commit`]. [`Commit::check`] is the gate at admission: what passed it can be applied without surprises, and
//! whoever reads a commit from a log may rely on it having passed.

mod check;
mod draft;

pub(crate) use check::{check_key, check_range};
pub use draft::{Draft, DraftCondition, DraftOp};

use crate::code::Code;
use crate::ids::{Offset, Sequence, SessionId};
use crate::message::{Message, Refusal};
use crate::naust_capnp as schema;

/// Guards a commit: it happens only if all its conditions hold at its place in the log.
///
/// `space` is the index of the keyspace among the commit's names.
#[allow(missing_docs)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition<'a> {
    /// The row's version is exactly this offset. (Offset zero: the row is absent.)
    Version { space: u16, key: &'a [u8], offset: Offset },
    /// There is no such row.
    Absent { space: u16, key: &'a [u8] },
    /// No key in `from` (inclusive) to `to` (exclusive; `None`: to the end) was written after `since`.
    Unchanged { space: u16, from: &'a [u8], to: Option<&'a [u8]>, since: Offset },
}

/// One operation of a commit.
///
/// `space` is the index of the keyspace or stream among the commit's names.
#[allow(missing_docs)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op<'a> {
    /// Put a row into a keyspace.
    Put { space: u16, key: &'a [u8], value: &'a [u8] },
    /// Remove a row from a keyspace.
    Delete { space: u16, key: &'a [u8] },
    /// Remove the rows in `from` (inclusive) to `to` (exclusive; `None`: to the end), at most 10,000.
    DeleteRange { space: u16, from: &'a [u8], to: Option<&'a [u8]> },
    /// Append a record to a stream.
    Append { space: u16, value: &'a [u8] },
    /// Move a cursor of the stream `space` to `offset`. `cursor` indexes the names too.
    Advance { space: u16, cursor: u16, offset: Offset },
}

/// An encoded commit, read in place. A small value: copy it freely.
#[derive(Clone, Copy)]
pub struct Commit<'m> {
    body: &'m [u8],
    session: SessionId,
    sequence: Sequence,
    acked_below: Sequence,
    names: capnp::text_list::Reader<'m>,
    conditions: capnp::struct_list::Reader<'m, schema::condition::Owned>,
    ops: capnp::struct_list::Reader<'m, schema::op::Owned>,
}

impl<'m> Commit<'m> {
    /// Looks at a message as a commit.
    ///
    /// # Errors
    /// `Malformed`.
    pub fn read(message: &'m Message<'_>) -> Result<Commit<'m>, Refusal> {
        let root: schema::commit::Reader<'m> = message.root()?;
        Ok(Commit {
            body: message.bytes(),
            session: SessionId(root.get_session()),
            sequence: Sequence(root.get_sequence()),
            acked_below: Sequence(root.get_acked_below()),
            names: root.get_names()?,
            conditions: root.get_conditions()?,
            ops: root.get_ops()?,
        })
    }

    /// The session it belongs to, or [`SessionId::NONE`].
    #[must_use]
    pub fn session(&self) -> SessionId {
        self.session
    }

    /// Its count within the session.
    #[must_use]
    pub fn sequence(&self) -> Sequence {
        self.sequence
    }

    /// The client has the replies of all sequences below this one.
    #[must_use]
    pub fn acked_below(&self) -> Sequence {
        self.acked_below
    }

    /// The name of an index, as ops and conditions use it.
    ///
    /// # Errors
    /// `BadArgument` when there is no such index, `Malformed` when the name can't be read.
    pub fn name(&self, index: u16) -> Result<&'m str, Refusal> {
        let name = self.names.try_get(u32::from(index)).ok_or_else(|| {
            Refusal::new(Code::BadArgument, format!("the commit has no name number {index}"))
        })?;
        Ok(name?.to_str()?)
    }

    /// All names, in the order of their indices.
    pub fn names(&self) -> impl Iterator<Item = Result<&'m str, Refusal>> + Clone + use<'m> {
        let names = self.names;
        (0..names.len()).map(move |i| Ok(names.get(i)?.to_str()?))
    }

    /// How many conditions it has.
    #[must_use]
    pub fn conditions_len(&self) -> usize {
        self.conditions.len() as usize
    }

    /// Its conditions, in order. Each may be `Malformed` or of an `UnknownKind`; none is after [`Commit::check`].
    pub fn conditions(&self) -> impl Iterator<Item = Result<Condition<'m>, Refusal>> + use<'m> {
        self.conditions.iter().map(read_condition)
    }

    /// How many ops it has.
    #[must_use]
    pub fn ops_len(&self) -> usize {
        self.ops.len() as usize
    }

    /// Its ops, in order. Each may be `Malformed` or of an `UnknownKind`; none is after [`Commit::check`].
    pub fn ops(&self) -> impl Iterator<Item = Result<Op<'m>, Refusal>> + use<'m> {
        self.ops.iter().map(read_op)
    }

    /// Everything that makes a commit inadmissible, whatever the state of the tables: limits, names, keys, ranges,
    /// indices and members that this release does not know. Allocates nothing unless it has more than 32 names.
    ///
    /// # Errors
    /// `Malformed`, `UnknownKind`, `TooLarge`, `KeySize`, `BadName` or `BadArgument`.
    pub fn check(&self) -> Result<(), Refusal> {
        check::encoded(self)
    }
}

fn read_condition(condition: schema::condition::Reader<'_>) -> Result<Condition<'_>, Refusal> {
    use schema::condition::Which;
    let space = condition.get_space();
    Ok(match condition.which()? {
        Which::Version(version) => Condition::Version {
            space,
            key: version.get_key()?,
            offset: Offset(version.get_offset()),
        },
        Which::Absent(absent) => Condition::Absent { space, key: absent.get_key()? },
        Which::Unchanged(unchanged) => Condition::Unchanged {
            space,
            from: unchanged.get_from()?,
            to: range_end(unchanged.get_to()?, unchanged.get_unbounded())?,
            since: Offset(unchanged.get_since()),
        },
    })
}

fn read_op(op: schema::op::Reader<'_>) -> Result<Op<'_>, Refusal> {
    use schema::op::Which;
    let space = op.get_space();
    Ok(match op.which()? {
        Which::Put(put) => Op::Put { space, key: put.get_key()?, value: put.get_value()? },
        Which::Delete(delete) => Op::Delete { space, key: delete.get_key()? },
        Which::DeleteRange(range) => Op::DeleteRange {
            space,
            from: range.get_from()?,
            to: range_end(range.get_to()?, range.get_unbounded())?,
        },
        Which::Append(append) => Op::Append { space, value: append.get_value()? },
        Which::Advance(advance) => Op::Advance {
            space,
            cursor: advance.get_cursor(),
            offset: Offset(advance.get_offset()),
        },
    })
}

/// The end of a range, which is either bytes or `unbounded`, never both.
pub(crate) fn range_end(to: &[u8], unbounded: bool) -> Result<Option<&[u8]>, Refusal> {
    match (to, unbounded) {
        ([], true) => Ok(None),
        (_, true) => Err(Refusal::new(Code::BadArgument, "an unbounded range names an end")),
        (to, false) => Ok(Some(to)),
    }
}

/// Where `part` lies in `body`, in bytes. An appended record's id is the offset of the frame's body plus this.
///
/// # Panics
/// If `part` is no slice of `body`: a bug of the caller.
#[must_use]
pub fn position_in(body: &[u8], part: &[u8]) -> usize {
    try_position_in(body, part).expect("the part is a slice of the body")
}

fn try_position_in(body: &[u8], part: &[u8]) -> Option<usize> {
    let at = part.as_ptr().addr().checked_sub(body.as_ptr().addr())?;
    (at + part.len() <= body.len()).then_some(at)
}
