//! A commit being collected, and its encoding.
//!
//! The encoding writes the Cap'n Proto layout directly (see [`crate::layout`]): names, conditions,
//! then ops, each list followed by what its elements lead to, in their order.

use super::{Condition, Op, check};
use crate::ids::{Offset, Sequence, SessionId};
use crate::layout::{Layout, Place, Size, WORD, data_bytes};
use crate::limits::{COMMIT_BODY_BYTES_MAX, NAMES_PER_COMMIT_MAX};
use crate::message::{Refusal, bounded, over};
use crate::{name, naust_capnp as schema};
use std::borrow::Cow;

/// A commit being collected; borrows or owns its bytes.
///
/// The methods that take names keep [`Draft::names`] free of repetitions; [`Draft::encode`] checks
/// all the rest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Draft<'a> {
    /// Keyspaces, streams and cursors, each once.
    pub names: Vec<Cow<'a, str>>,
    /// See [`Condition`].
    pub conditions: Vec<DraftCondition<'a>>,
    /// See [`Op`].
    pub ops: Vec<DraftOp<'a>>,
}

/// A [`Condition`] that may own its bytes.
#[allow(missing_docs)]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DraftCondition<'a> {
    Version { space: u16, key: Cow<'a, [u8]>, offset: Offset },
    Absent { space: u16, key: Cow<'a, [u8]> },
    Unchanged { space: u16, from: Cow<'a, [u8]>, to: Option<Cow<'a, [u8]>>, since: Offset },
}

/// An [`Op`] that may own its bytes.
#[allow(missing_docs)]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DraftOp<'a> {
    Put { space: u16, key: Cow<'a, [u8]>, value: Cow<'a, [u8]> },
    Delete { space: u16, key: Cow<'a, [u8]> },
    DeleteRange { space: u16, from: Cow<'a, [u8]>, to: Option<Cow<'a, [u8]>> },
    Append { space: u16, value: Cow<'a, [u8]> },
    Advance { space: u16, cursor: u16, offset: Offset },
}

impl DraftCondition<'_> {
    /// The condition, borrowing from here.
    #[must_use]
    pub fn view(&self) -> Condition<'_> {
        match self {
            Self::Version { space, key, offset } => {
                Condition::Version { space: *space, key, offset: *offset }
            }
            Self::Absent { space, key } => Condition::Absent { space: *space, key },
            Self::Unchanged { space, from, to, since } => {
                Condition::Unchanged { space: *space, from, to: to.as_deref(), since: *since }
            }
        }
    }
}

impl DraftOp<'_> {
    /// The op, borrowing from here.
    #[must_use]
    pub fn view(&self) -> Op<'_> {
        match self {
            Self::Put { space, key, value } => Op::Put { space: *space, key, value },
            Self::Delete { space, key } => Op::Delete { space: *space, key },
            Self::DeleteRange { space, from, to } => {
                Op::DeleteRange { space: *space, from, to: to.as_deref() }
            }
            Self::Append { space, value } => Op::Append { space: *space, value },
            Self::Advance { space, cursor, offset } => {
                Op::Advance { space: *space, cursor: *cursor, offset: *offset }
            }
        }
    }
}

impl<'a> Draft<'a> {
    /// The index of a name; it is added if it is new.
    ///
    /// # Errors
    /// `BadName`, or `TooLarge` when the commit has all the names that it may have.
    pub fn name(&mut self, name: impl Into<Cow<'a, str>>) -> Result<u16, Refusal> {
        let name = name.into();
        if let Some(index) = self.names.iter().position(|known| *known == name) {
            return Ok(u16::try_from(index).expect("the names are bounded below 2^16"));
        }
        name::check(&name)?;
        let index = self.names.len();
        if index >= NAMES_PER_COMMIT_MAX {
            return Err(over("names in a commit", index + 1, NAMES_PER_COMMIT_MAX));
        }
        self.names.push(name);
        Ok(u16::try_from(index).expect("the names are bounded below 2^16"))
    }

    /// Adds an op: put a row into a keyspace.
    ///
    /// # Errors
    /// As [`Draft::name`].
    pub fn put(
        &mut self,
        keyspace: impl Into<Cow<'a, str>>,
        key: impl Into<Cow<'a, [u8]>>,
        value: impl Into<Cow<'a, [u8]>>,
    ) -> Result<(), Refusal> {
        let space = self.name(keyspace)?;
        self.ops.push(DraftOp::Put { space, key: key.into(), value: value.into() });
        Ok(())
    }

    /// Adds an op: remove a row from a keyspace.
    ///
    /// # Errors
    /// As [`Draft::name`].
    pub fn delete(
        &mut self,
        keyspace: impl Into<Cow<'a, str>>,
        key: impl Into<Cow<'a, [u8]>>,
    ) -> Result<(), Refusal> {
        let space = self.name(keyspace)?;
        self.ops.push(DraftOp::Delete { space, key: key.into() });
        Ok(())
    }

    /// Adds an op: remove the rows in `from` (inclusive) to `to` (exclusive; `None`: to the end),
    /// at most 10,000.
    ///
    /// # Errors
    /// As [`Draft::name`].
    pub fn delete_range(
        &mut self,
        keyspace: impl Into<Cow<'a, str>>,
        from: impl Into<Cow<'a, [u8]>>,
        to: Option<Cow<'a, [u8]>>,
    ) -> Result<(), Refusal> {
        let space = self.name(keyspace)?;
        self.ops.push(DraftOp::DeleteRange { space, from: from.into(), to });
        Ok(())
    }

    /// Adds an op: append a record to a stream.
    ///
    /// # Errors
    /// As [`Draft::name`].
    pub fn append(
        &mut self,
        stream: impl Into<Cow<'a, str>>,
        value: impl Into<Cow<'a, [u8]>>,
    ) -> Result<(), Refusal> {
        let space = self.name(stream)?;
        self.ops.push(DraftOp::Append { space, value: value.into() });
        Ok(())
    }

    /// Adds an op: move a cursor of a stream.
    ///
    /// # Errors
    /// As [`Draft::name`].
    pub fn advance(
        &mut self,
        stream: impl Into<Cow<'a, str>>,
        cursor: impl Into<Cow<'a, str>>,
        offset: Offset,
    ) -> Result<(), Refusal> {
        let (space, cursor) = (self.name(stream)?, self.name(cursor)?);
        self.ops.push(DraftOp::Advance { space, cursor, offset });
        Ok(())
    }

    /// Adds a condition: the row's version is exactly this offset.
    ///
    /// # Errors
    /// As [`Draft::name`].
    pub fn version(
        &mut self,
        keyspace: impl Into<Cow<'a, str>>,
        key: impl Into<Cow<'a, [u8]>>,
        offset: Offset,
    ) -> Result<(), Refusal> {
        let space = self.name(keyspace)?;
        self.conditions.push(DraftCondition::Version { space, key: key.into(), offset });
        Ok(())
    }

    /// Adds a condition: there is no such row.
    ///
    /// # Errors
    /// As [`Draft::name`].
    pub fn absent(
        &mut self,
        keyspace: impl Into<Cow<'a, str>>,
        key: impl Into<Cow<'a, [u8]>>,
    ) -> Result<(), Refusal> {
        let space = self.name(keyspace)?;
        self.conditions.push(DraftCondition::Absent { space, key: key.into() });
        Ok(())
    }

    /// Adds a condition: no key in `from` (inclusive) to `to` (exclusive; `None`: to the end) was
    /// written after `since`.
    ///
    /// # Errors
    /// As [`Draft::name`].
    pub fn unchanged(
        &mut self,
        keyspace: impl Into<Cow<'a, str>>,
        from: impl Into<Cow<'a, [u8]>>,
        to: Option<Cow<'a, [u8]>>,
        since: Offset,
    ) -> Result<(), Refusal> {
        let space = self.name(keyspace)?;
        self.conditions.push(DraftCondition::Unchanged { space, from: from.into(), to, since });
        Ok(())
    }

    /// At most this many bytes are what [`Draft::encode`] appends.
    #[must_use]
    pub fn encoded_bytes_max(&self) -> usize {
        let texts: usize = self.names.iter().map(|name| WORD + data_bytes(name.len() + 1)).sum();
        let conditions: usize = self.conditions.iter().map(|c| condition_bytes(&c.view())).sum();
        let ops: usize = self.ops.iter().map(|op| op_bytes(&op.view())).sum();
        WORD + COMMIT.bytes() + texts + 2 * WORD + conditions + ops
    }

    /// Appends the commit's bytes to `out`: a packet's body and a frame's. The same draft gives the
    /// same bytes. On an error nothing is appended.
    ///
    /// # Errors
    /// What [`super::Commit::check`] would refuse, but for `Malformed` and `UnknownKind`.
    pub fn encode(
        &self,
        session: SessionId,
        sequence: Sequence,
        acked_below: Sequence,
        out: &mut Vec<u8>,
    ) -> Result<(), Refusal> {
        check::draft(self, session, sequence)?;
        let bytes = self.encoded_bytes_max();
        bounded("bytes in a commit", bytes, COMMIT_BODY_BYTES_MAX)?;
        out.reserve(bytes);
        let (mut layout, root) = Layout::begin(out, COMMIT);
        layout.u64(root, 0, session.0);
        layout.u64(root, 8, sequence.0);
        layout.u64(root, 16, acked_below.0);
        self.lay_lists(&mut layout, root);
        Ok(())
    }

    fn lay_lists(&self, layout: &mut Layout<'_>, root: Place) {
        if !self.names.is_empty() {
            let first = layout.pointers(root.pointer(0), self.names.len());
            for (i, name) in self.names.iter().enumerate() {
                layout.text(first + i * WORD, name);
            }
        }
        if !self.conditions.is_empty() {
            let first = layout.structures(root.pointer(1), self.conditions.len(), CONDITION);
            for (i, condition) in self.conditions.iter().enumerate() {
                lay_condition(layout, first.element(i), &condition.view());
            }
        }
        if !self.ops.is_empty() {
            let first = layout.structures(root.pointer(2), self.ops.len(), OP);
            for (i, op) in self.ops.iter().enumerate() {
                lay_op(layout, first.element(i), &op.view());
            }
        }
    }
}

const COMMIT: Size = Size::of::<schema::commit::Builder<'static>>();
const CONDITION: Size = Size::of::<schema::condition::Builder<'static>>();
const OP: Size = Size::of::<schema::op::Builder<'static>>();

/// Where the members of both unions stand in the data of their structs, in bytes.
const SPACE: usize = 0;
const MEMBER: usize = 2;
const UNBOUNDED: usize = 4;
const CURSOR: usize = 4;
const OFFSET: usize = 8;

fn lay_condition(layout: &mut Layout<'_>, place: Place, condition: &Condition<'_>) {
    match *condition {
        Condition::Version { space, key, offset } => {
            layout.u16(place, SPACE, space);
            layout.u64(place, OFFSET, offset.0);
            layout.data(place.pointer(0), key);
        }
        Condition::Absent { space, key } => {
            layout.u16(place, SPACE, space);
            layout.u16(place, MEMBER, 1);
            layout.data(place.pointer(0), key);
        }
        Condition::Unchanged { space, from, to, since } => {
            layout.u16(place, SPACE, space);
            layout.u16(place, MEMBER, 2);
            layout.u64(place, OFFSET, since.0);
            lay_range(layout, place, from, to);
        }
    }
}

fn lay_op(layout: &mut Layout<'_>, place: Place, op: &Op<'_>) {
    match *op {
        Op::Put { space, key, value } => {
            layout.u16(place, SPACE, space);
            layout.data(place.pointer(0), key);
            layout.data(place.pointer(1), value);
        }
        Op::Delete { space, key } => {
            layout.u16(place, SPACE, space);
            layout.u16(place, MEMBER, 1);
            layout.data(place.pointer(0), key);
        }
        Op::DeleteRange { space, from, to } => {
            layout.u16(place, SPACE, space);
            layout.u16(place, MEMBER, 2);
            lay_range(layout, place, from, to);
        }
        Op::Append { space, value } => {
            layout.u16(place, SPACE, space);
            layout.u16(place, MEMBER, 3);
            layout.placed_data(place.pointer(0), value);
        }
        Op::Advance { space, cursor, offset } => {
            layout.u16(place, SPACE, space);
            layout.u16(place, MEMBER, 4);
            layout.u16(place, CURSOR, cursor);
            layout.u64(place, OFFSET, offset.0);
        }
    }
}

fn lay_range(layout: &mut Layout<'_>, place: Place, from: &[u8], to: Option<&[u8]>) {
    layout.u16(place, UNBOUNDED, u16::from(to.is_none()));
    layout.data(place.pointer(0), from);
    layout.data(place.pointer(1), to.unwrap_or_default());
}

fn condition_bytes(condition: &Condition<'_>) -> usize {
    CONDITION.bytes()
        + match *condition {
            Condition::Version { key, .. } | Condition::Absent { key, .. } => data_bytes(key.len()),
            Condition::Unchanged { from, to, .. } => range_bytes(from, to),
        }
}

fn op_bytes(op: &Op<'_>) -> usize {
    OP.bytes()
        + match *op {
            Op::Put { key, value, .. } => data_bytes(key.len()) + data_bytes(value.len()),
            Op::Delete { key, .. } => data_bytes(key.len()),
            Op::DeleteRange { from, to, .. } => range_bytes(from, to),
            Op::Append { value, .. } => data_bytes(value.len().max(1)),
            Op::Advance { .. } => 0,
        }
}

fn range_bytes(from: &[u8], to: Option<&[u8]>) -> usize {
    data_bytes(from.len()) + to.map_or(0, |to| data_bytes(to.len()))
}
