//! Questions to the owner of a machine: streams, cursors, descriptions, and which parts of the log
//! are needed.
//!
//! Names that do not exist: a stream's records and cursors are refused with `StreamNotFound`; a
//! cursor that was never moved is `None`; keyspaces read as empty (see [`crate::reader`]).

use crate::chunk::Place;
use crate::machine::Machine;
use crate::rows::StreamId;
use crate::streams::Stream;
use crate::tables::{Fault, Tables, TreeId};
use naust_wire::limits::{DESCRIBED_CURSORS_MAX, PAGE_ROWS_MAX};
use naust_wire::message::Refusal;
use naust_wire::planted::{self, Bug};
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

    /// Where a cursor of a stream stands; `None`: it was never moved.
    ///
    /// # Errors
    /// `StreamNotFound`.
    pub fn cursor(&self, stream: &str, cursor: &str) -> Result<Option<Offset>, Refusal> {
        Ok(self.stream(stream)?.cursors.get(cursor).map(|cursor| cursor.offset))
    }

    /// The keyspaces and streams, with at most [`DESCRIBED_CURSORS_MAX`] cursors in all.
    #[must_use]
    pub fn describe(&self) -> reply::Reply {
        let keyspaces = self.state.keyspaces.iter().map(|keyspace| {
            let (bytes, rows_estimate) = self.tables.size(keyspace.tree);
            reply::Keyspace {
                name: keyspace.name.to_string(),
                options: keyspace.options,
                rows_estimate,
                bytes,
                floor: keyspace.floor,
            }
        });
        let (end, mut left) = (self.state.mark.next, DESCRIBED_CURSORS_MAX);
        let streams = self.state.streams.iter().map(|stream| {
            let cursors = stream.cursors.iter().take(left);
            let cursors: Vec<_> =
                cursors.map(|(name, cursor)| (name.to_string(), cursor.offset)).collect();
            left -= cursors.len();
            reply::Stream {
                name: stream.name.to_string(),
                options: stream.options,
                first: stream.first_live().unwrap_or(end),
                end,
                records: stream.records,
                bytes: stream.bytes,
                cursors,
            }
        });
        reply::Reply::Described {
            at: self.state.mark.applied,
            floor: self.state.floor,
            keyspaces: keyspaces.collect(),
            streams: streams.collect(),
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
        Ok(ranges)
    }
}
