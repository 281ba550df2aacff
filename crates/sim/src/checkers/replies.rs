//! Every request gets exactly one answer of the right kind, or its connection is closed; and no
//! error without its reason.

use super::Case;
use crate::history::{Answer, Asked, Request, Violation};
use naust_wire::ask::Ask;
use naust_wire::control::Control;
use naust_wire::limits::{HISTORY_BYTES_DEFAULT, HISTORY_MS_DEFAULT};
use naust_wire::read::{Level, Query};
use naust_wire::reply::Reply;
use naust_wire::{Code, Offset};

/// Its name in reports.
pub const NAME: &str = "replies";

/// See the module.
pub fn check(case: &Case<'_>, violations: &mut Vec<Violation>) {
    for request in case.requests {
        if let Err(what) = judge(case, request) {
            let shard = case.shard;
            let what =
                format!("shard {shard}: {what}; asked at {} {}", request.sent, brief(request));
            violations.push(Violation::new(NAME, what));
        }
    }
}

fn brief(request: &Request) -> String {
    match &request.asked {
        Asked::Commit(body) => format!("a commit of {} bytes", body.len()),
        other => format!("{other:?}"),
    }
}

fn judge(case: &Case<'_>, request: &Request) -> Result<(), String> {
    if request.answers > 1 {
        return Err(format!("{} answers came", request.answers));
    }
    let reply = match &request.answer {
        // What was asked of damaged shards just before the end may still be on its way.
        Answer::Waiting if case.excuses.damage && request.sent >= case.patience => return Ok(()),
        Answer::Waiting => return Err("no answer came".to_owned()),
        Answer::Lost => return Ok(()),
        Answer::Reply(reply) => reply,
    };
    match reply {
        Reply::Error(failure) => error(case, request, failure.code)
            .map_err(|what| format!("{}: {} ({what})", failure.code, failure.detail)),
        other if suits(&request.asked, other) => Ok(()),
        other => Err(format!("answered with a {}", kind(other))),
    }
}

fn suits(asked: &Asked, reply: &Reply) -> bool {
    match asked {
        Asked::Commit(_) => matches!(reply, Reply::Committed(_) | Reply::Refused(_)),
        Asked::Control(Control::OpenSession { .. }) => matches!(reply, Reply::Session(_)),
        Asked::Control(_) | Asked::Numbered(..) => matches!(reply, Reply::Done(_)),
        Asked::Read(read) => matches!(
            (&read.query, reply),
            (Query::Get { .. }, Reply::Row { .. })
                | (Query::Scan { .. }, Reply::Rows { .. })
                | (Query::Records { .. }, Reply::Records { .. })
                | (Query::Cursor { .. }, Reply::Cursor(_))
                | (Query::Log { .. }, Reply::Frames { .. })
                | (Query::Describe { .. }, Reply::Described { .. })
                | (Query::Digests { .. }, Reply::Digests(_))
        ),
        Asked::Ask(Ask::Transfer { .. }) => matches!(reply, Reply::Done(_)),
        Asked::Ask(_) => matches!(
            reply,
            Reply::Hello { .. }
                | Reply::Resolved { .. }
                | Reply::Namespaces { .. }
                | Reply::Cluster { .. }
        ),
        Asked::Garbage => false,
    }
}

fn kind(reply: &Reply) -> String {
    let told = format!("{reply:?}");
    told.split([' ', '(', '{']).next().unwrap_or_default().to_owned()
}

/// Whether an error has a reason that the checker knows of.
fn error(case: &Case<'_>, request: &Request, code: Code) -> Result<(), String> {
    let excused = |excuse: bool, what: &str| if excuse { Ok(()) } else { Err(what.to_owned()) };
    match code {
        Code::DiskFull => excused(case.excuses.disk_full, "no disk was full"),
        Code::Corrupt => {
            excused(case.excuses.damage || case.excuses.mendable, "nothing was damaged")
        }
        Code::ShuttingDown => excused(case.excuses.restarts, "no node was restarted"),
        Code::Interrupted => excused(
            case.excuses.restarts || case.excuses.damage || may_wait(case, request),
            "no node was restarted, nothing was damaged, and nothing is removed",
        ),
        Code::OffsetTrimmed => excused(trimmed(case, request), "the window of history holds it"),
        Code::NotLeader => excused(case.excuses.elections, "there is one node only"),
        Code::Unauthorized | Code::TimedOut => Err("nothing led to it".to_owned()),
        _ => Ok(()),
    }
}

/// Whether it asks for a removal, which waits for a quorum, or came to what was being removed.
fn may_wait(case: &Case<'_>, request: &Request) -> bool {
    let (Asked::Control(control) | Asked::Numbered(_, control)) = &request.asked else {
        return case.model.closed.is_some();
    };
    matches!(control, Control::CloseNamespace(_)) || case.model.closed.is_some()
}

/// Whether what a request asks for may have left the window of history when it was answered.
fn trimmed(case: &Case<'_>, request: &Request) -> bool {
    let Asked::Read(read) = &request.asked else { return true };
    let at = match (read.level, &read.query) {
        (_, Query::Log { from, .. }) => *from,
        // A replica notes the digests of a few times, in memory.
        (_, Query::Digests { .. }) => return true,
        (_, Query::Records { stream, .. }) => return floor_moved(case, request, stream),
        (Level::Exactly(at), _) => at,
        _ => return false,
    };
    let or = |value: u64, default: u64| if value == 0 { default } else { value };
    let bytes = or(case.options.history_bytes, HISTORY_BYTES_DEFAULT);
    let millis = or(case.options.history_ms, HISTORY_MS_DEFAULT);
    let Some(newest) = case.chronicle.from(request.ceiling).next() else { return true };
    let Some(then) = case.chronicle.from(at).next() else { return false };
    at < Offset::FIRST
        || newest.header.end().0 - at.0.min(newest.header.offset.0) >= bytes
        || newest.header.time.0 - then.header.time.0.min(newest.header.time.0) >= millis
}

/// Records are kept as long as their stream wants them, however old they are; only while a floor
/// moves may a reader come too late.
fn floor_moved(case: &Case<'_>, request: &Request, stream: &str) -> bool {
    let Some(stream) = case.model.streams.get(stream) else { return true };
    let known = match &request.asked {
        Asked::Read(read) if read.level == Level::Linearizable => request.frontier,
        _ => Offset::ZERO,
    };
    stream.floor.at(request.ceiling).is_some_and(|(since, _)| since > known)
}
