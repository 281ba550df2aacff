//! Which floors a leader should propose now: retention by age, size and count.
//!
//! What is proposed is a judgement of the present; it takes effect when the entry is folded in, on
//! every replica alike. A look reads tables only of streams of which something is due, and what it
//! proposes lets a bounded number of records go: folding the entry in walks them all. The rest is
//! for the next look. A floor is proposed once a sixteenth of a limit would go, so a busy stream
//! costs a few entries a limit's worth of records, not one a record.

use crate::keyspaces::{FLOOR_SLACK, Keyspace};
use crate::machine::Machine;
use crate::rows::{Damaged, StreamId};
use crate::streams::Stream;
use crate::tables::{Fault, Tables};
use naust_wire::control::{Floor, Floored};
use naust_wire::limits::{FLOORS_PER_CONTROL_MAX, RETENTION_CHUNKS_MAX, STREAM_CHUNK_RECORDS_MAX};
use naust_wire::options::StreamOptions;
use naust_wire::{LogTime, Offset};
use std::ops::ControlFlow;

impl<T: Tables> Machine<T> {
    /// Floors that are due at a moment of log time, to be proposed as one `Control::Floors`; none:
    /// nothing is due.
    ///
    /// # Errors
    /// [`Fault`].
    pub fn floors_due(&mut self, now: LogTime) -> Result<Vec<Floor>, Fault> {
        let mut floors = Vec::new();
        for keyspace in self.state.keyspaces.iter() {
            let due = keyspace.floor_due(&self.state.points, &self.state.mark, now);
            if let Some(floor) = due {
                let of = Floored::Keyspace(keyspace.name.to_string());
                floors.push(Floor { of, offset: floor });
            }
        }
        floors.truncate(FLOORS_PER_CONTROL_MAX);
        self.stream_floors(now, &mut floors)?;
        Ok(floors)
    }

    /// Adds the floors of streams that are due, from the stream on at which the last look ended,
    /// until there are enough, or as many records were looked at as one look may.
    fn stream_floors(&mut self, now: LogTime, floors: &mut Vec<Floor>) -> Result<(), Fault> {
        let mut left = RETENTION_CHUNKS_MAX * STREAM_CHUNK_RECORDS_MAX;
        let count = self.state.streams.iter().len();
        for number in (self.look_from..count).chain(0..self.look_from) {
            if floors.len() >= FLOORS_PER_CONTROL_MAX || left == 0 {
                self.look_from = number;
                break;
            }
            let id = StreamId(number as u32);
            if let Some(floor) = self.stream_floor(id, now, &mut left)? {
                let of = Floored::Stream(self.state.streams.get(id).name.to_string());
                floors.push(Floor { of, offset: floor });
            }
        }
        Ok(())
    }

    /// Something will expire as time passes, though nothing happens any more: a leader should look
    /// again later.
    #[must_use]
    pub fn ages(&self) -> bool {
        let streams = &mut self.state.streams.iter();
        self.state.keyspaces.iter().any(Keyspace::ages)
            || streams.any(|stream| stream.options.max_age_ms != 0 && stream.records > 0)
    }

    /// The first record that a stream's limits let live, if enough lie below it. Looks at no more
    /// records than `left`, and takes what it looked at from there.
    fn stream_floor(
        &mut self,
        id: StreamId,
        now: LogTime,
        left: &mut usize,
    ) -> Result<Option<Offset>, Fault> {
        let stream = self.state.streams.get(id);
        let options = stream.options;
        let mut over = Over::of(stream, &options);
        let born = now.0.checked_sub(options.max_age_ms).filter(|_| options.max_age_ms != 0);
        let due = born.map(|born| LogTime(born.saturating_sub(options.max_age_ms / FLOOR_SLACK)));
        if stream.records == 0 || !(over.is_due(&options) || due.is_some()) {
            return Ok(None);
        }
        if !over.is_due(&options) {
            // No record is older than the first.
            let first = self.first_time(id, left)?;
            if due.is_none_or(|due| first >= due) {
                return Ok(None);
            }
        }
        let stream = self.state.streams.get(id);
        let (mut floor, mut records) = (Some(stream.last.plus(1)), 0);
        stream.walk(&self.reader, Offset::ZERO, |place| {
            let old = born.is_some_and(|born| place.time.0 < born);
            if records >= *left || !(old || over.is_over()) {
                floor = (records > 0).then_some(place.offset);
                return ControlFlow::Break(());
            }
            over.take(u64::from(place.length));
            records += 1;
            ControlFlow::Continue(())
        })?;
        *left = left.saturating_sub(records.max(STREAM_CHUNK_RECORDS_MAX));
        Ok(floor)
    }

    /// The log time of a stream's first record that lives, of which it must have one. Looked up if
    /// the stream was not looked at since the tables were opened.
    fn first_time(&mut self, id: StreamId, left: &mut usize) -> Result<LogTime, Fault> {
        let stream = self.state.streams.get(id);
        if let Some(time) = stream.first_time {
            return Ok(time);
        }
        let mut first = None;
        stream.walk(&self.reader, Offset::ZERO, |place| {
            first = Some(place.time);
            ControlFlow::Break(())
        })?;
        *left = left.saturating_sub(STREAM_CHUNK_RECORDS_MAX);
        let missing = || Damaged("index of a stream's records");
        let time = first.ok_or_else(missing)?;
        self.state.streams.learn_first_time(id, time);
        Ok(time)
    }
}

/// How far a stream is over its limits of count and size.
#[derive(Clone, Copy)]
struct Over {
    records: u64,
    bytes: u64,
}

impl Over {
    fn of(stream: &Stream, options: &StreamOptions) -> Over {
        let over = |has: u64, max: u64| if max == 0 { 0 } else { has.saturating_sub(max) };
        Over {
            records: over(stream.records, options.max_records),
            bytes: over(stream.bytes, options.max_bytes),
        }
    }

    fn is_due(self, options: &StreamOptions) -> bool {
        self.records > options.max_records / FLOOR_SLACK
            || self.bytes > options.max_bytes / FLOOR_SLACK
    }

    fn is_over(self) -> bool {
        self.records > 0 || self.bytes > 0
    }

    /// A record goes.
    fn take(&mut self, length: u64) {
        self.records = self.records.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(length);
    }
}
