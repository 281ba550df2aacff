//! Questions to the owner of a machine: streams, cursors, descriptions, and which parts of the log
//! are needed.
//!
//! Names that do not exist: a stream's records and cursors are refused with `StreamNotFound`; a
//! cursor that was never moved is `None`; keyspaces read as empty (see [`crate::reader`]).

use crate::chunk::Place;
use crate::keyspaces::Keyspace;
use crate::machine::Machine;
use crate::rows::StreamId;
use crate::streams::Stream;
use crate::tables::{Fault, Tables, TreeId};
use naust_wire::limits::{PAGE_BYTES_MAX, PAGE_ROWS_MAX};
use naust_wire::message::Refusal;
use naust_wire::planted::{self, Bug};
use naust_wire::read::Named;
use naust_wire::{Code, Offset, reply};
use std::ops::{ControlFlow, Range};

use crate::reader::ReadError;

/// Where records of a stream lie in the log.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Located {
    /// The records, in order.
    pub places: Vec<Place>,
    /// The `from` of the following read.
    pub next: Offset,
    /// The next record's id is at least this.
    pub end: Offset,
}

/// Which parts of the log the views need.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct LogNeeded {
    /// Below this no table needs frames to be folded in again.
    pub persisted: Offset,
    /// The history floor: readers of the log and watchers may still ask from here.
    pub recent_from: Offset,
    /// The first record that lives, of all streams; `None`: no record lives.
    pub records_from: Option<Offset>,
    /// Streams with records that live: their first and their last one.
    pub streams: Vec<(StreamId, Offset, Offset)>,
}

/// Bytes of a keyspace, or of a stream, in a description beside its names: about as many as the
/// reply takes.
const NAMED_BYTES: usize = 128;
/// The same, of a cursor.
const CURSOR_BYTES: usize = 24;

/// A page of a description that is being filled.
struct Described {
    left: usize,
    bytes: usize,
    next: Option<Named>,
}

impl Described {
    /// Takes one of so many bytes in, or notes that the next page begins with it.
    fn takes(&mut self, bytes: usize, name: impl FnOnce() -> Named) -> bool {
        if self.next.is_some() {
            return false;
        }
        if self.left == 0 || self.bytes >= PAGE_BYTES_MAX {
            self.next = Some(name());
            return false;
        }
        self.left -= 1;
        self.bytes += NAMED_BYTES + bytes;
        true
    }
}

impl<T: Tables> Machine<T> {
    /// The stream of a name, as `Applied::Committed` names it.
    #[must_use]
    pub fn stream_id(&self, name: &str) -> Option<StreamId> {
        self.state.streams.find(name)
    }

    /// The tree of a keyspace, as `Applied::Committed` names it.
    #[must_use]
    pub fn keyspace_id(&self, name: &str) -> Option<TreeId> {
        self.state.keyspaces.find(name)
    }

    fn stream(&self, name: &str) -> Result<&Stream, Refusal> {
        let id = self.state.streams.find(name);
        id.map(|id| self.state.streams.get(id)).ok_or_else(|| {
            let detail = format!("there is no stream {name:?}; it is made by its first append");
            Refusal::new(Code::StreamNotFound, detail)
        })
    }

    /// Where the records of a stream with ids at or above `from` lie: at most `limit` (and no more
    /// than a page has), and no more once they take `max_bytes`; the last one may pass it. What
    /// lies below the stream's floor is passed over.
    ///
    /// # Errors
    /// `StreamNotFound`, or a fault.
    pub fn locate(
        &self,
        stream: &str,
        from: Offset,
        limit: usize,
        max_bytes: usize,
    ) -> Result<Located, ReadError> {
        let stream = self.stream(stream)?;
        let end = self.state.mark.next;
        let (mut places, mut bytes, mut next) = (Vec::new(), 0usize, end.max(from));
        let limit = limit.clamp(1, PAGE_ROWS_MAX);
        stream.walk(&self.reader, from, |place| {
            if places.len() >= limit || (bytes >= max_bytes && !places.is_empty()) {
                next = place.offset;
                return ControlFlow::Break(());
            }
            bytes += place.length as usize;
            places.push(place);
            ControlFlow::Continue(())
        })?;
        if planted::has(Bug::StreamGap) && next < end {
            next = next.plus(1);
        }
        Ok(Located { places, next, end })
    }

    /// Whether [`Machine::locate`] answers this from memory, and so waits for no disk.
    #[must_use]
    pub fn locates_from_memory(&self, stream: &str, from: Offset) -> bool {
        self.stream(stream).map_or(true, |stream| !stream.walk_reads(from))
    }

    /// Where a cursor of a stream stands; `None`: it was never moved.
    ///
    /// # Errors
    /// `StreamNotFound`.
    pub fn cursor(&self, stream: &str, cursor: &str) -> Result<Option<Offset>, Refusal> {
        Ok(self.stream(stream)?.cursors.get(cursor).map(|cursor| cursor.offset))
    }

    /// The keyspaces and then the streams, from `from` on, each in the order in which they were
    /// made, and never fewer than one if there is one: at most `limit` of them (and no more than a
    /// page has), and no more once they take [`PAGE_BYTES_MAX`]; the last one may pass it, with all
    /// of its cursors.
    ///
    /// # Errors
    /// `KeyspaceNotFound` or `StreamNotFound`, when there is no `from`.
    pub fn describe(&self, from: Option<&Named>, limit: usize) -> Result<reply::Reply, Refusal> {
        let mut page = Described { left: limit.clamp(1, PAGE_ROWS_MAX), bytes: 0, next: None };
        let (first_keyspace, first_stream) = match from {
            None => (0, 0),
            Some(Named::Keyspace(name)) => (self.keyspace_number(name)?, 0),
            Some(Named::Stream(name)) => (usize::MAX, self.stream(name)?.id.0 as usize),
        };
        let keyspaces = self.state.keyspaces.iter().skip(first_keyspace);
        let keyspaces = keyspaces.take_while(|keyspace| {
            page.takes(keyspace.name.len(), || Named::Keyspace(keyspace.name.to_string()))
        });
        let keyspaces: Vec<_> = keyspaces.map(|keyspace| self.described(keyspace)).collect();
        let end = self.state.mark.next;
        let streams = self.state.streams.iter().skip(first_stream).take_while(|stream| {
            let cursors = stream.cursors.keys();
            let bytes = cursors.map(|name| name.len() + CURSOR_BYTES).sum::<usize>();
            page.takes(stream.name.len() + bytes, || Named::Stream(stream.name.to_string()))
        });
        let streams = streams.map(|stream| reply::Stream {
            name: stream.name.to_string(),
            options: stream.options,
            first: stream.first_live().unwrap_or(end),
            end,
            records: stream.records,
            bytes: stream.bytes,
            cursors: stream
                .cursors
                .iter()
                .map(|(name, at)| (name.to_string(), at.offset))
                .collect(),
        });
        let streams = streams.collect();
        // There was nothing before the beginning of the log.
        let floor = self.state.floor.max(Offset::FIRST);
        let (at, next) = (self.state.mark.applied, page.next);
        Ok(reply::Reply::Described { at, floor, keyspaces, streams, next })
    }

    fn keyspace_number(&self, name: &str) -> Result<usize, Refusal> {
        let tree = self.state.keyspaces.find(name).ok_or_else(|| {
            let detail = format!("there is no keyspace {name:?}; it is made by its first put");
            Refusal::new(Code::KeyspaceNotFound, detail)
        })?;
        Ok(tree.0 as usize - 1)
    }

    fn described(&self, keyspace: &Keyspace) -> reply::Keyspace {
        let (bytes, rows_estimate) = self.tables.size(keyspace.tree);
        reply::Keyspace {
            name: keyspace.name.to_string(),
            options: keyspace.options,
            rows_estimate,
            bytes,
            floor: keyspace.floor,
        }
    }

    /// Which parts of the log are needed.
    #[must_use]
    pub fn log_needed(&self) -> LogNeeded {
        let streams = self.state.streams.iter();
        let streams: Vec<_> =
            streams.filter_map(|s| Some((s.id, s.first_live()?, s.last))).collect();
        LogNeeded {
            persisted: self.persisted(),
            recent_from: self.state.floor,
            records_from: streams.iter().map(|(_, first, _)| *first).min(),
            streams,
        }
    }

    /// Where records that live lie between two offsets, in order: what a sparse segment must keep.
    /// Those that touch each other are one range.
    ///
    /// # Errors
    /// [`Fault`].
    pub fn live_in(&self, from: Offset, to: Offset) -> Result<Vec<Range<Offset>>, Fault> {
        let mut ranges = Vec::new();
        for stream in self.state.streams.iter() {
            if stream.first_live().is_none_or(|first| first >= to) || stream.last < from {
                continue;
            }
            stream.walk(&self.reader, from, |place| {
                if place.offset >= to {
                    return ControlFlow::Break(());
                }
                // A record without bytes still takes the word at its place.
                let length = u64::from(place.length).max(1);
                ranges.push(place.offset..place.offset.plus(length));
                ControlFlow::Continue(())
            })?;
        }
        ranges.sort_unstable_by_key(|range| range.start);
        ranges.dedup_by(|next, last| {
            let touches = next.start <= last.end;
            if touches {
                last.end = last.end.max(next.end);
            }
            touches
        });
        Ok(ranges)
    }
}
