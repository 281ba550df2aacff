//! No answer is older than it may be, none tells of what is not committed, and commits follow what
//! was known before them.

use super::Case;
use crate::history::{Asked, Request, Violation};
use naust_wire::read::{Level, Query, Read};
use naust_wire::reply::Reply;
use naust_wire::{Code, Offset};

/// Its name in reports.
pub const NAME: &str = "freshness";

/// See the module.
pub fn check(case: &Case<'_>, violations: &mut Vec<Violation>) {
    for request in case.requests {
        if let Err(what) = judge(case, request) {
            let sent = request.sent;
            let shard = case.shard;
            let what = format!("shard {shard}: asked at {sent} {:?}: {what}", request.asked);
            violations.push(Violation::new(NAME, what));
        }
    }
}

fn judge(case: &Case<'_>, request: &Request) -> Result<(), String> {
    let Some(reply) = request.reply() else { return Ok(()) };
    let frontier = request.frontier;
    if let Asked::Read(read) = &request.asked {
        askable(read, reply, frontier)?;
    }
    let at = match reply {
        Reply::Committed(committed) if !committed.duplicate => {
            return later(committed.offset, frontier);
        }
        Reply::Done(offset) if matches!(request.asked, Asked::Control(_)) => {
            return later(*offset, frontier);
        }
        Reply::Row { at, .. } | Reply::Rows { at, .. } | Reply::Described { at, .. } => *at,
        _ => return Ok(()),
    };
    if at >= case.chronicle.end() && at > Offset::FIRST {
        return Err(format!("answered as of {at}, but the log ends at {}", case.chronicle.end()));
    }
    let Asked::Read(read) = &request.asked else { return Ok(()) };
    match read.level {
        Level::Linearizable if at < frontier => {
            Err(format!("answered as of {at}, though {frontier} had been told before"))
        }
        // A frame is folded in as a whole: all offsets within it read the same.
        Level::AtLeast(least) if least >= end_of(case, at) => {
            Err(format!("answered as of {at} only"))
        }
        Level::Exactly(exactly) if at != exactly => Err(format!("answered as of {at}")),
        _ => Ok(()),
    }
}

/// What is told as of now can't be asked for at exactly an offset; and an offset that someone has
/// been told of as committed is one that can be asked for.
fn askable(read: &Read, reply: &Reply, frontier: Offset) -> Result<(), String> {
    let of_now =
        matches!(read.query, Query::Records { .. } | Query::Cursor { .. } | Query::Describe { .. });
    match (read.level, reply) {
        (_, Reply::Error(failure)) if failure.code != Code::BadArgument => Ok(()),
        (Level::Exactly(_), Reply::Error(_)) if of_now => Ok(()),
        (Level::Exactly(_), _) if of_now => Err("answered as of now".to_owned()),
        (Level::AtLeast(at) | Level::Exactly(at), Reply::Error(_))
            if at <= frontier && matches!(read.query, Query::Get { .. } | Query::Scan { .. }) =>
        {
            Err(format!("refused, though {frontier} had been told before"))
        }
        _ => Ok(()),
    }
}

/// Where the frame at `at` ends; before any frame, where the first one begins.
fn end_of(case: &Case<'_>, at: Offset) -> Offset {
    case.chronicle.at(at).map_or(at.max(Offset::FIRST), |entry| entry.header.end())
}

fn later(offset: Offset, frontier: Offset) -> Result<(), String> {
    if offset > frontier {
        return Ok(());
    }
    Err(format!("committed at {offset}, though {frontier} had been told before it was sent"))
}
