//! The streams of a shard: names, options, floors, totals, cursors, and the open end of each index.
//!
//! A record's bytes stay in the log; a stream knows where they lie. Full chunks of the index are
//! rows of the shard tree; the open one is in memory, and written at each rotation in which it
//! grew.

use crate::chunk::{Chunk, Place, Places};
use crate::rows::{Damaged, Fields, Key, StreamId, put_bytes, put_u64};
use crate::tables::{Fault, KeyRange, TablesReader, TreeId};
use naust_wire::limits::STREAMS_PER_NAMESPACE_MAX;
use naust_wire::options::StreamOptions;
use naust_wire::{LogTime, Offset};
use rustc_hash::FxHashMap;
use std::collections::BTreeMap;
use std::ops::ControlFlow;

/// A stream. Invariants: `records` and `bytes` count what lies at or above `floor`; `first` is the
/// first of these records and means nothing without any; `last` is the newest record ever;
/// `closed_last` is the newest one that is not in `open`, and may be gone; `first_time` is the log
/// time of `first`, if that is known.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) id: StreamId,
    pub(crate) name: Box<str>,
    pub(crate) options: StreamOptions,
    /// Records below count as absent.
    pub(crate) floor: Offset,
    pub(crate) first: Offset,
    /// Not stored: whoever opens the tables learns it when it is asked for.
    pub(crate) first_time: Option<LogTime>,
    pub(crate) last: Offset,
    pub(crate) records: u64,
    pub(crate) bytes: u64,
    pub(crate) open: Chunk,
    closed_last: Offset,
    pub(crate) cursors: BTreeMap<Box<str>, Cursor>,
    dirty: bool,
    dirty_cursors: Vec<Box<str>>,
}

/// Where a cursor stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cursor {
    pub(crate) offset: Offset,
    dirty: bool,
}

impl Stream {
    fn new(id: StreamId, name: &str, options: StreamOptions) -> Stream {
        Stream {
            id,
            name: name.into(),
            options,
            floor: Offset::ZERO,
            first: Offset::ZERO,
            first_time: None,
            last: Offset::ZERO,
            records: 0,
            bytes: 0,
            open: Chunk::default(),
            closed_last: Offset::ZERO,
            cursors: BTreeMap::new(),
            dirty: false,
            dirty_cursors: Vec::new(),
        }
    }

    /// The first record that lives, if any does.
    pub(crate) fn first_live(&self) -> Option<Offset> {
        (self.records > 0).then_some(self.first)
    }

    /// Whether [`Stream::walk`] from there reads tables.
    pub(crate) fn walk_reads(&self, from: Offset) -> bool {
        self.records > 0 && from.max(self.first) <= self.closed_last
    }

    /// Visits the records at or above `from` that live, in order, until `visit` breaks.
    pub(crate) fn walk<R: TablesReader>(
        &self,
        reader: &R,
        from: Offset,
        mut visit: impl FnMut(Place) -> ControlFlow<()>,
    ) -> Result<(), Fault> {
        let from = from.max(self.first);
        if self.records == 0 || from > self.last {
            return Ok(());
        }
        let mut flow = ControlFlow::Continue(());
        let mut chunk = |places: Places<'_>| -> Result<ControlFlow<()>, Damaged> {
            for place in places {
                let place = place?;
                if place.offset >= from && visit(place).is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
            Ok(ControlFlow::Continue(()))
        };
        if self.walk_reads(from) {
            self.chunks(reader, from, |first, value| {
                flow = chunk(Places::read(first, value)?)?;
                Ok(flow)
            })?;
        }
        if flow.is_continue() {
            let _ = chunk(self.open.places())?;
        }
        Ok(())
    }

    /// Visits the rows of closed chunks that may hold records at or above `from`, in order: first
    /// record, value.
    pub(crate) fn chunks<R: TablesReader>(
        &self,
        reader: &R,
        from: Offset,
        mut visit: impl FnMut(Offset, &[u8]) -> Result<ControlFlow<()>, Damaged>,
    ) -> Result<(), Fault> {
        let shard = TreeId::SHARD;
        let lowest = Key::Chunk(self.id, Offset::ZERO).bytes();
        let after = Key::Chunk(self.id, from.plus(1)).bytes();
        let mut start = lowest.clone();
        let before = KeyRange { from: &lowest, to: Some(&after) };
        reader.scan(shard, before, true, Offset::MAX, &mut |key, _, _| {
            start = key.to_vec();
            ControlFlow::Break(())
        })?;
        // The row of the open chunk, if it has one, is older than what is in memory.
        let open = if self.open.count == 0 { Offset::MAX } else { self.open.first };
        let end = Key::Chunk(self.id, open).bytes();
        let mut result = Ok(());
        let range = KeyRange { from: &start, to: Some(&end) };
        reader.scan(shard, range, false, Offset::MAX, &mut |key, _, value| {
            let step = match Key::read(key) {
                Ok(Key::Chunk(_, first)) => visit(first, value),
                _ => Err(Damaged("chunk")),
            };
            step.unwrap_or_else(|damaged| {
                result = Err(Fault::from(damaged));
                ControlFlow::Break(())
            })
        })?;
        result
    }

    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        put_bytes(out, self.name.as_bytes());
        put_u64(out, self.options.max_age_ms);
        put_u64(out, self.options.max_bytes);
        put_u64(out, self.options.max_records);
        put_u64(out, self.floor.0);
        put_u64(out, self.first.0);
        put_u64(out, self.last.0);
        put_u64(out, self.records);
        put_u64(out, self.bytes);
    }

    fn read(id: StreamId, value: &[u8]) -> Result<Stream, Damaged> {
        let mut fields = Fields::new(value, "stream");
        let name = fields.text()?;
        let max_age_ms = fields.u64()?;
        let (max_bytes, max_records) = (fields.u64()?, fields.u64()?);
        let options = StreamOptions { max_age_ms, max_bytes, max_records };
        let mut stream = Stream::new(id, name, options);
        stream.floor = fields.offset()?;
        stream.first = fields.offset()?;
        stream.last = fields.offset()?;
        stream.records = fields.u64()?;
        stream.bytes = fields.u64()?;
        // A new chunk is opened behind what is in the tables, full or not.
        stream.closed_last = stream.last;
        fields.end()?;
        Ok(stream)
    }
}

/// All streams. Invariant: stream *n* is number *n* of the list.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    names: FxHashMap<Box<str>, StreamId>,
    list: Vec<Stream>,
    dirty: Vec<StreamId>,
}

impl Streams {
    pub(crate) fn find(&self, name: &str) -> Option<StreamId> {
        self.names.get(name).copied()
    }

    /// The id that the next stream but `more` gets; `None`: there are as many as there may be.
    pub(crate) fn next_id(&self, more: usize) -> Option<StreamId> {
        let number = self.list.len() + more;
        (number < STREAMS_PER_NAMESPACE_MAX).then_some(StreamId(number as u32))
    }

    pub(crate) fn get(&self, id: StreamId) -> &Stream {
        &self.list[id.0 as usize]
    }

    /// Like `get`, or `None` for a stream that is only about to be made.
    pub(crate) fn known(&self, id: StreamId) -> Option<&Stream> {
        self.list.get(id.0 as usize)
    }

    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = &Stream> {
        self.list.iter()
    }

    /// Makes the stream that `next_id(0)` names.
    pub(crate) fn add(&mut self, name: &str, options: StreamOptions) -> StreamId {
        let id = StreamId(self.list.len() as u32);
        self.names.insert(name.into(), id);
        self.list.push(Stream::new(id, name, options));
        self.change(id);
        id
    }

    /// The stream, to be changed.
    pub(crate) fn change(&mut self, id: StreamId) -> &mut Stream {
        let stream = &mut self.list[id.0 as usize];
        if !stream.dirty {
            stream.dirty = true;
            self.dirty.push(id);
        }
        stream
    }

    /// The log time of a stream's first record that lives was looked up.
    pub(crate) fn learn_first_time(&mut self, id: StreamId, time: LogTime) {
        self.list[id.0 as usize].first_time = Some(time);
    }

    /// Adds a record. The chunk that it fills, if it does, is handed to `full` with its first
    /// record.
    pub(crate) fn append<E>(
        &mut self,
        id: StreamId,
        place: Place,
        row: &mut Vec<u8>,
        full: impl FnOnce(Offset, &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let stream = self.change(id);
        if stream.records == 0 {
            stream.first = place.offset;
            stream.first_time = Some(place.time);
        }
        stream.last = place.offset;
        stream.records += 1;
        stream.bytes += u64::from(place.length);
        stream.open.push(place);
        if stream.open.is_full() {
            stream.open.write(row);
            full(stream.open.first, row)?;
            stream.open.clear();
            stream.closed_last = stream.last;
        }
        Ok(())
    }

    pub(crate) fn set_cursor(&mut self, id: StreamId, name: &str, offset: Offset) {
        let stream = self.change(id);
        match stream.cursors.get_mut(name) {
            Some(cursor) => {
                cursor.offset = offset;
                if !cursor.dirty {
                    cursor.dirty = true;
                    stream.dirty_cursors.push(name.into());
                }
            }
            None => {
                stream.cursors.insert(name.into(), Cursor { offset, dirty: true });
                stream.dirty_cursors.push(name.into());
            }
        }
    }

    /// For a rotation: hands over the rows to write. After this nothing is dirty.
    pub(crate) fn rotate<E>(
        &mut self,
        mut write: impl FnMut(Key<'_>, &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut value = Vec::new();
        for id in self.dirty.drain(..) {
            let stream = &mut self.list[id.0 as usize];
            stream.dirty = false;
            value.clear();
            stream.write(&mut value);
            write(Key::Stream(id), &value)?;
            if stream.open.dirty {
                stream.open.dirty = false;
                stream.open.write(&mut value);
                write(Key::Chunk(id, stream.open.first), &value)?;
            }
            for name in stream.dirty_cursors.drain(..) {
                let cursor = stream.cursors.get_mut(&name).expect("cursors are never removed");
                cursor.dirty = false;
                write(Key::Cursor(id, &name), &cursor.offset.0.to_le_bytes())?;
            }
        }
        Ok(())
    }

    /// Takes a row back at opening; rows come in the order of their ids.
    pub(crate) fn load(&mut self, id: StreamId, value: &[u8]) -> Result<(), Damaged> {
        if id.0 as usize != self.list.len() {
            return Err(Damaged("stream"));
        }
        let stream = Stream::read(id, value)?;
        self.names.insert(stream.name.clone(), id);
        self.list.push(stream);
        Ok(())
    }

    /// Takes a cursor's row back at opening.
    pub(crate) fn load_cursor(
        &mut self,
        id: StreamId,
        name: &str,
        value: &[u8],
    ) -> Result<(), Damaged> {
        let stream = self.list.get_mut(id.0 as usize).ok_or(Damaged("cursor"))?;
        let mut fields = Fields::new(value, "cursor");
        let cursor = Cursor { offset: fields.offset()?, dirty: false };
        fields.end()?;
        stream.cursors.insert(name.into(), cursor);
        Ok(())
    }
}
