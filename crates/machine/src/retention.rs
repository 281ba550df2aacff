//! Which floors a leader should propose now: retention by age, size and count.
//!
//! What is proposed is a judgement of the present; it takes effect when the entry is folded in, on
//! every replica alike. A floor is proposed once a sixteenth of a limit would go, so a busy stream
//! costs a few entries a limit's worth of records, not one a record.

use crate::keyspaces::{FLOOR_SLACK, Keyspace};
use crate::machine::Machine;
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
        for stream in self.state.streams.iter() {
            if floors.len() >= FLOORS_PER_CONTROL_MAX {
                break;
            }
            if let Some(floor) = self.stream_floor(stream, now)? {
                let of = Floored::Stream(stream.name.to_string());
                floors.push(Floor { of, offset: floor });
            }
        }
        floors.truncate(FLOORS_PER_CONTROL_MAX);
        Ok(floors)
    }

    /// Something will expire as time passes, though nothing happens any more: a leader should look
    /// again later.
    #[must_use]
    pub fn ages(&self) -> bool {
        let streams = &mut self.state.streams.iter();
        self.state.keyspaces.iter().any(Keyspace::ages)
            || streams.any(|stream| stream.options.max_age_ms != 0 && stream.records > 0)
    }

    /// The first record that a stream's limits let live, if enough lie below it.
    fn stream_floor(&self, stream: &Stream, now: LogTime) -> Result<Option<Offset>, Fault> {
        let options = stream.options;
        let over = Over::of(stream, &options);
        if options.max_age_ms == 0 && !over.is_due(&options) {
            return Ok(None);
        }
        let born = now.0.checked_sub(options.max_age_ms).filter(|_| options.max_age_ms != 0);
        let due = born.map(|born| LogTime(born.saturating_sub(options.max_age_ms / FLOOR_SLACK)));
        let (mut left, mut aged) = (over, false);
        let (mut floor, mut records) = (None, 0);
        let mut ended = true;
        stream.walk(&self.reader, Offset::ZERO, |place| {
            let old = born.is_some_and(|born| place.time.0 < born);
            let full = records >= RETENTION_CHUNKS_MAX * STREAM_CHUNK_RECORDS_MAX;
            if full || !(old || left.is_over()) {
                floor = (records > 0).then_some(place.offset);
                ended = false;
                return ControlFlow::Break(());
            }
            aged |= due.is_some_and(|due| place.time < due);
            left.take(u64::from(place.length));
            records += 1;
            ControlFlow::Continue(())
        })?;
        if ended && records > 0 {
            floor = Some(stream.last.plus(1));
        }
        Ok(floor.filter(|_| aged || over.is_due(&options)))
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
