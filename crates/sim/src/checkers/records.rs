//! Streams are without gaps, repetitions and strangers; cursors stand where they were put.

use super::Case;
use crate::history::{Asked, Request, Violation};
use crate::model::space::Stream;
use naust_wire::Code;
use naust_wire::Offset;
use naust_wire::limits::{PAGE_ROWS_DEFAULT, PAGE_ROWS_MAX};
use naust_wire::read::{Level, Query, Read};
use naust_wire::reply::{Failure, Record, Reply};

/// Its name in reports.
pub const NAME: &str = "records";

/// See the module.
pub fn check(case: &Case<'_>, violations: &mut Vec<Violation>) {
    for request in case.requests {
        let Asked::Read(read) = &request.asked else { continue };
        if let Err(what) = judge(case, request, read) {
            let what = format!("shard {}: {what}; asked at {} {read:?}", case.shard, request.sent);
            violations.push(Violation::new(NAME, what));
        }
    }
}

fn judge(case: &Case<'_>, request: &Request, read: &Read) -> Result<(), String> {
    let (seen_least, seen_most) = seen(request, read.level);
    match (&read.query, request.reply()) {
        (
            Query::Records { stream, from, limit, .. },
            Some(Reply::Records { records, next, end }),
        ) => {
            let Some(stream) = case.model.streams.get(stream) else {
                return if records.is_empty() { Ok(()) } else { Err("no such stream".to_owned()) };
            };
            let page = Page { from: *from, records, next: *next, end: *end };
            let limit = match *limit {
                0 => PAGE_ROWS_DEFAULT,
                limit => (limit as usize).min(PAGE_ROWS_MAX),
            };
            page.judge(stream, limit, (seen_least, seen_most))
        }
        (Query::Cursor { stream, cursor }, Some(Reply::Cursor(found))) => {
            let stream = case.model.streams.get(stream);
            let timeline = stream.and_then(|stream| stream.cursors.get(cursor));
            let Some(timeline) = timeline else {
                return if found.is_none() { Ok(()) } else { Err("no such cursor".to_owned()) };
            };
            let before = timeline.at(seen_least).is_none() && found.is_none();
            let mut stood = timeline.between(seen_least, seen_most);
            if before || found.is_some_and(|found| stood.any(|offset| *offset == found)) {
                return Ok(());
            }
            Err(format!("the cursor is told to stand at {found:?}"))
        }
        (
            Query::Records { stream, .. } | Query::Cursor { stream, .. },
            Some(Reply::Error(Failure { code: Code::StreamNotFound, .. })),
        ) => {
            let made = case.model.streams.get(stream).and_then(|stream| stream.options.first());
            match made.filter(|made| *made <= seen_least) {
                Some(made) => Err(format!("no such stream, though it was made at {made}")),
                None => Ok(()),
            }
        }
        _ => Ok(()),
    }
}

/// The offsets between which the answer was taken. Such answers name none themselves.
fn seen(request: &Request, level: Level) -> (Offset, Offset) {
    match level {
        Level::Linearizable => (request.frontier, request.ceiling),
        Level::AtLeast(least) => (least, request.ceiling),
        Level::Exactly(exactly) => (exactly, exactly),
        Level::Local => (Offset::ZERO, request.ceiling),
    }
}

struct Page<'a> {
    from: Offset,
    records: &'a [Record],
    next: Offset,
    end: Offset,
}

impl Page<'_> {
    fn judge(
        &self,
        stream: &Stream,
        limit: usize,
        (seen_least, seen_most): (Offset, Offset),
    ) -> Result<(), String> {
        if self.records.len() > limit {
            return Err(format!("{} records, though the limit is {limit}", self.records.len()));
        }
        let mut last = None;
        for record in self.records {
            let known = stream.records.get(&record.offset.0);
            let Some(known) = known.filter(|known| known.commit <= seen_most) else {
                return Err(format!("there is no record {}", record.offset));
            };
            if known.value != record.value {
                return Err(format!("record {} has other bytes", record.offset));
            }
            if record.offset < self.from || last.is_some_and(|last| last >= record.offset) {
                return Err(format!("record {} is out of its place", record.offset));
            }
            last = Some(record.offset);
        }
        if last.is_some_and(|last| last >= self.next || last >= self.end) {
            return Err(format!("next {} or end {} lies before a record", self.next, self.end));
        }
        self.gaps(stream, (seen_least, seen_most))
    }

    /// What was in sight and above the floor must have been shown, up to `next`; and everything
    /// that the reader was sure to see lies below `end`.
    fn gaps(&self, stream: &Stream, (least, most): (Offset, Offset)) -> Result<(), String> {
        let floor = stream.floor.at(most).map_or(Offset::ZERO, |(_, floor)| *floor);
        let from = self.from.max(floor);
        let mut shown = self.records.iter().map(|record| record.offset).filter(|id| *id >= from);
        let in_sight = stream.range(from, self.next).filter(|(_, record)| record.commit <= least);
        for (id, _) in in_sight {
            if !shown.any(|shown| shown == id) {
                return Err(format!("record {id} is missing"));
            }
        }
        let rest = stream.range(from.max(self.end), Offset::MAX);
        match rest.into_iter().find(|(_, record)| record.commit <= least) {
            Some((id, _)) => Err(format!("record {id} lies behind the end {}", self.end)),
            None => Ok(()),
        }
    }
}
