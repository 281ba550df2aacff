//! The commit: an atomic list of ops, guarded by conditions.
//!
//! A client collects a [`Draft`] and encodes it once. Everyone else reads the encoded bytes in
//! place through [`Commit`]. [`Commit::check`] is the gate at admission: what passed it can be
//! applied without surprises, and whoever reads a commit from a log may rely on it having passed.

mod check;
mod draft;

pub(crate) use check::{check_key, check_range};
pub use draft::{Draft, DraftCondition, DraftOp};

use crate::code::Code;
use crate::ids::{Offset, Sequence, SessionId};
use crate::message::{Message, Refusal};
use crate::view::{Struct, Structs, Texts, View};

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
    /// No key in `from` (inclusive) to `to` (exclusive; `None`: to the end) was written after
    /// `since`.
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
    /// Remove the rows in `from` (inclusive) to `to` (exclusive; `None`: to the end), at most
    /// 10,000.
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
    root: Struct<'m>,
    names: Texts<'m>,
    conditions: Structs<'m>,
    ops: Structs<'m>,
}

impl<'m> Commit<'m> {
    /// Looks at a message as a commit. Its lists are within the limits of their lengths from here
    /// on; the rest is unchecked.
    ///
    /// # Errors
    /// `Malformed`, `TooLarge`.
    pub fn read(message: &Message<'m>) -> Result<Commit<'m>, Refusal> {
        let body = message.bytes();
        let root = View::root(body)?;
        let (names, conditions, ops) = (root.texts(0)?, root.structs(1)?, root.structs(2)?);
        check::counts([names.len(), conditions.len(), ops.len()])?;
        Ok(Commit { body, root, names, conditions, ops })
    }

    /// The session it belongs to, or [`SessionId::NONE`].
    #[must_use]
    pub fn session(&self) -> SessionId {
        SessionId(self.root.u64(0))
    }

    /// Its count within the session.
    #[must_use]
    pub fn sequence(&self) -> Sequence {
        Sequence(self.root.u64(1))
    }

    /// The client has the replies of all sequences below this one.
    #[must_use]
    pub fn acked_below(&self) -> Sequence {
        Sequence(self.root.u64(2))
    }

    /// The name of an index, as ops and conditions use it.
    ///
    /// # Errors
    /// `BadArgument` when there is no such index, `Malformed` when the name can't be read.
    pub fn name(&self, index: u16) -> Result<&'m str, Refusal> {
        if usize::from(index) >= self.names.len() {
            let detail = format!("the commit has no name number {index}");
            return Err(Refusal::new(Code::BadArgument, detail));
        }
        self.names.get(usize::from(index))
    }

    /// All names, in the order of their indices.
    pub fn names(&self) -> impl Iterator<Item = Result<&'m str, Refusal>> + Clone + use<'m> {
        let names = self.names;
        (0..names.len()).map(move |index| names.get(index))
    }

    /// How many conditions it has.
    #[must_use]
    pub fn conditions_len(&self) -> usize {
        self.conditions.len()
    }

    /// Its conditions, in order. Each may be `Malformed` or of an `UnknownKind`; none is after
    /// [`Commit::check`].
    pub fn conditions(&self) -> impl Iterator<Item = Result<Condition<'m>, Refusal>> + use<'m> {
        self.conditions.iter().map(read_condition)
    }

    /// How many ops it has.
    #[must_use]
    pub fn ops_len(&self) -> usize {
        self.ops.len()
    }

    /// Its ops, in order. Each may be `Malformed` or of an `UnknownKind`; none is after
    /// [`Commit::check`].
    pub fn ops(&self) -> impl Iterator<Item = Result<Op<'m>, Refusal>> + use<'m> {
        self.ops.iter().map(read_op)
    }

    /// Whether an op of it is a delete-range. Reads no op's keys and values.
    #[must_use]
    pub fn deletes_ranges(&self) -> bool {
        self.ops.iter().any(|op| First::of(op).member == DELETE_RANGE)
    }

    /// Everything that makes a commit inadmissible, whatever the state of the tables: limits,
    /// names, keys, ranges, indices and members that this release does not know. Allocates nothing
    /// unless it has more than 32 names.
    ///
    /// # Errors
    /// `Malformed`, `UnknownKind`, `TooLarge`, `KeySize`, `BadName` or `BadArgument`.
    pub fn check(&self) -> Result<(), Refusal> {
        check::encoded(self)
    }
}

/// The first word of an op's and a condition's data, which begin alike; its second is an offset.
struct First {
    space: u16,
    member: u16,
    /// An op's cursor.
    third: u16,
    unbounded: bool,
}

impl First {
    fn of(item: Struct<'_>) -> First {
        let word = item.u64(0);
        First {
            space: word as u16,
            member: (word >> 16) as u16,
            third: (word >> 32) as u16,
            unbounded: word >> 32 & 1 == 1,
        }
    }
}

fn read_condition(item: Struct<'_>) -> Result<Condition<'_>, Refusal> {
    let First { space, member, unbounded, .. } = First::of(item);
    let offset = Offset(item.u64(1));
    Ok(match member {
        0 => Condition::Version { space, key: item.data(0)?, offset },
        1 => Condition::Absent { space, key: item.data(0)? },
        2 => Condition::Unchanged {
            space,
            from: item.data(0)?,
            to: range_end(item.data(1)?, unbounded)?,
            since: offset,
        },
        _ => return Err(unknown("condition", member)),
    })
}

/// The number of the member among those of the schema's `Op`.
const DELETE_RANGE: u16 = 2;

fn read_op(item: Struct<'_>) -> Result<Op<'_>, Refusal> {
    let First { space, member, third, unbounded } = First::of(item);
    Ok(match member {
        0 => Op::Put { space, key: item.data(0)?, value: item.data(1)? },
        1 => Op::Delete { space, key: item.data(0)? },
        DELETE_RANGE => {
            Op::DeleteRange { space, from: item.data(0)?, to: range_end(item.data(1)?, unbounded)? }
        }
        3 => Op::Append { space, value: item.data(0)? },
        4 => Op::Advance { space, cursor: third, offset: Offset(item.u64(1)) },
        _ => return Err(unknown("op", member)),
    })
}

fn unknown(what: &str, member: u16) -> Refusal {
    let detail = format!("a kind of {what}, number {member}, that this release does not know");
    Refusal::new(Code::UnknownKind, detail)
}

/// The end of a range, which is either bytes or `unbounded`, never both.
pub(crate) fn range_end(to: &[u8], unbounded: bool) -> Result<Option<&[u8]>, Refusal> {
    match (to, unbounded) {
        ([], true) => Ok(None),
        (_, true) => Err(Refusal::new(Code::BadArgument, "an unbounded range names an end")),
        (to, false) => Ok(Some(to)),
    }
}

/// Where `part` lies in `body`, in bytes. An appended record's id is the offset of the frame's body
/// plus this.
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
