//! Every row of the shard tree: [`Key`] is the numbered list of what is stored there, with the
//! layout of each.
//!
//! All of them but chunks and ends of delete-ranges are written when the shard tree rotates, at the
//! offset applied last: what lives in memory between two rotations costs no insert a commit. In
//! keys numbers are big-endian, so that they sort; in values little-endian. `text` and `bytes` are
//! a `u32` length and as many bytes; `varint` is LEB128. Decoders answer any bytes with a value or
//! [`Damaged`].

use crate::tables::{Fault, TreeId};
use naust_wire::{NodeId, Offset, SessionId};

/// A stream of a shard. Given out in log order, never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub u32);

/// The key of a row of the shard tree: its number as one byte, then its fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key<'a> {
    /// 1: the clock of the shard. Value: history floor `u64`, count `u32`, as many points of time:
    /// log time of the frame before `u64`, log time `u64`, offset `u64`. See the module `history`.
    History,
    /// 2: rows that trees had not on disk. Value: count `u32`, then each: tree `u32`, first offset
    /// `u64`, the mark that would end it `u64` (all ones: still open). See the module `rotation`.
    Unpersisted,
    /// 3, tree `u32`: a keyspace. Value: name `text`, compaction `u8`, compression `u8`, max bytes
    /// `u64`, max age `u64`, floor `u64`, bytes put `u64`, count `u32`, as many points: offset
    /// `u64`, bytes put before it `u64`.
    Keyspace(TreeId),
    /// 4, stream `u32`: a stream. Value: name `text`, max age `u64`, max bytes `u64`, max records
    /// `u64`, floor `u64`, first record `u64`, last record `u64`, records `u64`, bytes `u64`.
    Stream(StreamId),
    /// 5, stream `u32`, first record `u64`: up to 256 records of a stream's index. Value: see
    /// the module `chunk`.
    Chunk(StreamId, Offset),
    /// 6, stream `u32`, name: a cursor. Value: offset `u64`.
    Cursor(StreamId, &'a str),
    /// 7, session `u64`: a session with its window of replies. Value: see the module `sessions`.
    Session(SessionId),
    /// 8, last offset `u64`: commits that did nothing: they failed, or were answered again. Value:
    /// their offsets, each `u64`, ascending.
    Skipped(Offset),
    /// 9, commit `u64`, number among the commit's delete-ranges `u16`: where a delete-range stopped
    /// that had reached its limit. Value: the first key that it left.
    RangeEnd(Offset, u16),
    /// 10, number `u64`: a run of recent writes. Value: see the module `recent`.
    Recent(u64),
    /// 11: the replicas of the shard. Value: the body of the last `Configure` frame.
    Configuration,
    /// 12, name: a namespace (shard 0 only). Value: shard `u32`, history ms `u64`, history bytes
    /// `u64`, interval `u32` (zero: a quorum), then the nodes whose replicas began it, each `u64`.
    Namespace(&'a str),
    /// 13: the directory (shard 0 only). Value: the next shard `u32`.
    Directory,
    /// 14, node `u64`: a node of the cluster (shard 0 only). Value: name and address, each a length
    /// and UTF-8.
    Node(NodeId),
    /// 15: the entry that closed the shard. Value: its offset `u64`.
    Closed,
    /// 16, name: a namespace that is to be removed (shard 0 only). Value: the offset of the entry
    /// that asked for it `u64`.
    Closing(&'a str),
}

impl<'a> Key<'a> {
    /// The first byte of its kind.
    fn number(&self) -> u8 {
        match self {
            Key::History => 1,
            Key::Unpersisted => 2,
            Key::Keyspace(_) => 3,
            Key::Stream(_) => 4,
            Key::Chunk(..) => 5,
            Key::Cursor(..) => 6,
            Key::Session(_) => 7,
            Key::Skipped(_) => 8,
            Key::RangeEnd(..) => 9,
            Key::Recent(_) => 10,
            Key::Configuration => 11,
            Key::Namespace(_) => 12,
            Key::Directory => 13,
            Key::Node(_) => 14,
            Key::Closed => 15,
            Key::Closing(_) => 16,
        }
    }

    /// Replaces `out` by the key's bytes.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.clear();
        out.push(self.number());
        match self {
            Key::History | Key::Unpersisted | Key::Configuration | Key::Directory | Key::Closed => {
            }
            Key::Keyspace(tree) => out.extend(tree.0.to_be_bytes()),
            Key::Stream(stream) => out.extend(stream.0.to_be_bytes()),
            Key::Chunk(stream, first) => {
                out.extend(stream.0.to_be_bytes());
                out.extend(first.0.to_be_bytes());
            }
            Key::Cursor(stream, name) => {
                out.extend(stream.0.to_be_bytes());
                out.extend(name.as_bytes());
            }
            Key::Session(session) => out.extend(session.0.to_be_bytes()),
            Key::Skipped(last) => out.extend(last.0.to_be_bytes()),
            Key::RangeEnd(commit, number) => {
                out.extend(commit.0.to_be_bytes());
                out.extend(number.to_be_bytes());
            }
            Key::Recent(number) => out.extend(number.to_be_bytes()),
            Key::Namespace(name) | Key::Closing(name) => out.extend(name.as_bytes()),
            Key::Node(node) => out.extend(node.0.to_be_bytes()),
        }
    }

    /// The key's bytes.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(16);
        self.write(&mut out);
        out
    }

    /// Reads a key.
    ///
    /// # Errors
    /// [`Damaged`]: also for a number that this release does not know.
    pub fn read(bytes: &'a [u8]) -> Result<Key<'a>, Damaged> {
        let mut fields = Fields::new(bytes, "key");
        let key = match fields.u8()? {
            1 => Key::History,
            2 => Key::Unpersisted,
            3 => Key::Keyspace(TreeId(fields.u32_be()?)),
            4 => Key::Stream(StreamId(fields.u32_be()?)),
            5 => Key::Chunk(StreamId(fields.u32_be()?), Offset(fields.u64_be()?)),
            6 => Key::Cursor(StreamId(fields.u32_be()?), fields.rest_text()?),
            7 => Key::Session(SessionId(fields.u64_be()?)),
            8 => Key::Skipped(Offset(fields.u64_be()?)),
            9 => Key::RangeEnd(Offset(fields.u64_be()?), fields.u16_be()?),
            10 => Key::Recent(fields.u64_be()?),
            11 => Key::Configuration,
            12 => Key::Namespace(fields.rest_text()?),
            13 => Key::Directory,
            14 => Key::Node(NodeId(fields.u64_be()?)),
            15 => Key::Closed,
            16 => Key::Closing(fields.rest_text()?),
            _ => return Err(Damaged("key")),
        };
        fields.end()?;
        Ok(key)
    }
}

/// Bytes of a row that can't be what was written; names the row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a row of the shard tree is damaged: {0}")]
pub struct Damaged(pub &'static str);

impl From<Damaged> for Fault {
    fn from(damaged: Damaged) -> Fault {
        Fault { what: damaged.to_string(), disk_full: false }
    }
}

/// Takes the fields of a value or key one after the other.
#[derive(Clone, Copy)]
pub(crate) struct Fields<'a> {
    rest: &'a [u8],
    row: &'static str,
}

impl<'a> Fields<'a> {
    pub(crate) fn new(bytes: &'a [u8], row: &'static str) -> Fields<'a> {
        Fields { rest: bytes, row }
    }

    pub(crate) fn damaged(&self) -> Damaged {
        Damaged(self.row)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(crate) fn end(&self) -> Result<(), Damaged> {
        if self.rest.is_empty() { Ok(()) } else { Err(self.damaged()) }
    }

    pub(crate) fn take(&mut self, length: usize) -> Result<&'a [u8], Damaged> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(Damaged(self.row))?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Damaged> {
        let (taken, rest) = self.rest.split_first_chunk::<N>().ok_or(Damaged(self.row))?;
        self.rest = rest;
        Ok(*taken)
    }

    pub(crate) fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }

    fn rest_text(&mut self) -> Result<&'a str, Damaged> {
        std::str::from_utf8(self.rest()).map_err(|_| Damaged(self.row))
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Damaged> {
        Ok(self.array::<1>()?[0])
    }

    pub(crate) fn u16(&mut self) -> Result<u16, Damaged> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Damaged> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Damaged> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    pub(crate) fn offset(&mut self) -> Result<Offset, Damaged> {
        Ok(Offset(self.u64()?))
    }

    fn u16_be(&mut self) -> Result<u16, Damaged> {
        Ok(u16::from_be_bytes(self.array()?))
    }

    fn u32_be(&mut self) -> Result<u32, Damaged> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    fn u64_be(&mut self) -> Result<u64, Damaged> {
        Ok(u64::from_be_bytes(self.array()?))
    }

    pub(crate) fn varint(&mut self) -> Result<u64, Damaged> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            if shift == 63 && byte > 1 {
                return Err(self.damaged());
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(self.damaged())
    }

    pub(crate) fn bytes(&mut self) -> Result<&'a [u8], Damaged> {
        let length = self.u32()? as usize;
        self.take(length)
    }

    pub(crate) fn text(&mut self) -> Result<&'a str, Damaged> {
        std::str::from_utf8(self.bytes()?).map_err(|_| Damaged(self.row))
    }
}

pub(crate) fn put_u16(out: &mut Vec<u8>, value: u16) {
    out.extend_from_slice(&value.to_le_bytes());
}

pub(crate) fn put_u32(out: &mut Vec<u8>, value: u32) {
    out.extend_from_slice(&value.to_le_bytes());
}

pub(crate) fn put_u64(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(&value.to_le_bytes());
}

pub(crate) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

pub(crate) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_u32(out, u32::try_from(bytes.len()).expect("fields of rows are bounded below 2^32"));
    out.extend_from_slice(bytes);
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// One of each kind, such as an empty shard tree may begin with.
    pub(crate) const KEYS: [Key<'static>; 16] = [
        Key::History,
        Key::Unpersisted,
        Key::Keyspace(TreeId(1)),
        Key::Stream(StreamId(0)),
        Key::Chunk(StreamId(8), Offset(1 << 33)),
        Key::Cursor(StreamId(0), "billing"),
        Key::Session(SessionId(1 << 34)),
        Key::Skipped(Offset(1 << 35)),
        Key::RangeEnd(Offset(1 << 36), 3),
        Key::Recent(9),
        Key::Configuration,
        Key::Namespace("default"),
        Key::Directory,
        Key::Node(NodeId(7)),
        Key::Closed,
        Key::Closing("default"),
    ];

    #[test]
    fn keys_are_read_as_they_were_written_and_their_numbers_never_change() {
        for (i, key) in KEYS.iter().enumerate() {
            let bytes = key.bytes();
            assert_eq!(bytes[0] as usize, i + 1);
            assert_eq!(Key::read(&bytes), Ok(*key));
        }
        assert_eq!(Key::read(&[17]), Err(Damaged("key")));
        assert_eq!(Key::read(&[1, 0]), Err(Damaged("key")));
    }

    #[test]
    fn chunks_sort_by_stream_and_then_by_record() {
        let key = |stream, first| Key::Chunk(StreamId(stream), Offset(first)).bytes();
        assert!(key(1, u64::MAX) < key(2, 0));
        assert!(key(1, 255) < key(1, 256));
    }

    proptest! {
        #[test]
        fn varints_come_back(value: u64) {
            let mut out = Vec::new();
            put_varint(&mut out, value);
            prop_assert_eq!(Fields::new(&out, "x").varint(), Ok(value));
        }

        #[test]
        fn any_bytes_are_answered(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = Key::read(&bytes);
            let _ = Fields::new(&bytes, "x").varint();
            let _ = Fields::new(&bytes, "x").text();
        }
    }
}
