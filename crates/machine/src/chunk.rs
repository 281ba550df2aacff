//! A run of a stream's index: where up to 256 records lie in the log.
//!
//! ```text
//! value: count u16 | bytes u64 | first time u64 | records
//! record: Δ offset varint | length varint | Δ time varint
//! ```
//! The deltas of the first record count from the `first` of the key and from `first time`. The open
//! chunk of a stream is kept in this very form, so writing it costs a copy and a record in memory
//! costs three to six bytes.

use crate::rows::{Damaged, Fields, put_u16, put_u64, put_varint};
use naust_wire::limits::STREAM_CHUNK_RECORDS_MAX;
use naust_wire::{LogTime, Offset};

/// Where a record lies in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its id: the offset of its first byte.
    pub offset: Offset,
    /// Its length in bytes.
    pub length: u32,
    /// The log time of its commit.
    pub time: LogTime,
}

/// A chunk under construction. Invariant: with records, `first` is the id of its first one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Chunk {
    pub(crate) first: Offset,
    pub(crate) count: u16,
    /// Bytes of its records.
    pub(crate) bytes: u64,
    first_time: LogTime,
    last: Offset,
    last_time: LogTime,
    records: Vec<u8>,
    /// Records came since its row was written.
    pub(crate) dirty: bool,
}

impl Chunk {
    /// Adds a record, whose id must be above those that it holds.
    pub(crate) fn push(&mut self, place: Place) {
        if self.count == 0 {
            self.first = place.offset;
            self.last = place.offset;
            self.first_time = place.time;
            self.last_time = place.time;
        }
        put_varint(&mut self.records, place.offset.0 - self.last.0);
        put_varint(&mut self.records, u64::from(place.length));
        put_varint(&mut self.records, place.time.0 - self.last_time.0);
        self.last = place.offset;
        self.last_time = place.time;
        self.count += 1;
        self.bytes += u64::from(place.length);
        self.dirty = true;
    }

    pub(crate) fn is_full(&self) -> bool {
        usize::from(self.count) >= STREAM_CHUNK_RECORDS_MAX
    }

    /// Forgets all records but keeps the memory.
    pub(crate) fn clear(&mut self) {
        let mut records = std::mem::take(&mut self.records);
        records.clear();
        *self = Chunk { records, ..Chunk::default() };
    }

    /// Replaces `out` by the value of its row.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        out.clear();
        put_u16(out, self.count);
        put_u64(out, self.bytes);
        put_u64(out, self.first_time.0);
        out.extend_from_slice(&self.records);
    }

    /// Its records.
    pub(crate) fn places(&self) -> Places<'_> {
        Places {
            left: self.count,
            offset: self.first,
            time: self.first_time,
            fields: Fields::new(&self.records, "chunk"),
        }
    }
}

/// The records of a chunk, one by one, in order.
#[derive(Clone)]
pub(crate) struct Places<'a> {
    left: u16,
    offset: Offset,
    time: LogTime,
    fields: Fields<'a>,
}

impl<'a> Places<'a> {
    /// Reads the value of a row whose key names `first`.
    pub(crate) fn read(first: Offset, value: &'a [u8]) -> Result<Places<'a>, Damaged> {
        let mut fields = Fields::new(value, "chunk");
        let left = fields.u16()?;
        let _bytes = fields.u64()?;
        let time = LogTime(fields.u64()?);
        Ok(Places { left, offset: first, time, fields })
    }

    fn step(&mut self) -> Result<Place, Damaged> {
        let damaged = self.fields.damaged();
        let step = self.fields.varint()?;
        self.offset = Offset(self.offset.0.checked_add(step).ok_or(damaged)?);
        let length = u32::try_from(self.fields.varint()?).map_err(|_| damaged)?;
        let step = self.fields.varint()?;
        self.time = LogTime(self.time.0.checked_add(step).ok_or(damaged)?);
        Ok(Place { offset: self.offset, length, time: self.time })
    }
}

impl Iterator for Places<'_> {
    type Item = Result<Place, Damaged>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            return self.fields.end().err().map(|damaged| {
                self.fields.rest();
                Err(damaged)
            });
        }
        self.left -= 1;
        let place = self.step();
        if place.is_err() {
            self.left = 0;
            self.fields.rest();
        }
        Some(place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn records_come_back(
            steps in proptest::collection::vec((1u64..1 << 40, any::<u32>(), 0u64..9), 1..256)
        ) {
            let mut chunk = Chunk::default();
            let (mut offset, mut time, mut places) = (Offset::FIRST, LogTime(5), Vec::new());
            for (step, length, later) in steps {
                offset = offset.plus(step);
                time = LogTime(time.0 + later);
                places.push(Place { offset, length, time });
                chunk.push(places[places.len() - 1]);
            }
            let mut row = Vec::new();
            chunk.write(&mut row);
            let read = Places::read(chunk.first, &row).unwrap();
            let read: Vec<Place> = read.map(Result::unwrap).collect();
            prop_assert_eq!(&read, &places);
            let open: Vec<Place> = chunk.places().map(Result::unwrap).collect();
            prop_assert_eq!(open, places);
        }

        #[test]
        fn any_bytes_are_answered(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            if let Ok(places) = Places::read(Offset::FIRST, &bytes) {
                prop_assert!(places.count() <= usize::from(u16::MAX));
            }
        }
    }
}
