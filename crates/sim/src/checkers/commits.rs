//! Acknowledged commits are there exactly once, as they were sent; refused ones are not; unknown
//! ones at most once.
//!
//! Every commit of a life has bytes of its own and the log keeps the bytes that clients sent, so
//! frames and requests find each other by their bodies.

use super::Case;
use crate::history::{Asked, Request, Violation};
use crate::model::Verdict;
use naust_wire::commit::Commit;
use naust_wire::frame::Kind;
use naust_wire::message::Message;
use naust_wire::reply::{Failure, Reply};
use naust_wire::{Offset, Outcome, SessionId};
use std::collections::BTreeMap;

/// Its name in reports.
pub const NAME: &str = "commits";

#[derive(Default)]
struct Group<'a> {
    sends: Vec<&'a Request>,
    frames: Vec<Offset>,
}

/// See the module.
pub fn check(case: &Case<'_>, violations: &mut Vec<Violation>) {
    let mut groups: BTreeMap<&[u8], Group<'_>> = BTreeMap::new();
    for request in case.requests {
        if let Asked::Commit(body) = &request.asked {
            groups.entry(&body[..]).or_default().sends.push(request);
        }
    }
    for entry in case.chronicle.from(Offset::ZERO) {
        if entry.header.kind == Kind::Commit {
            groups.entry(&entry.body[..]).or_default().frames.push(entry.header.offset);
        }
    }
    for (body, group) in &groups {
        if let Err(what) = judge(case, body, group) {
            violations.push(Violation::new(NAME, format!("shard {}: {what}", case.shard)));
        }
    }
}

fn judge(case: &Case<'_>, body: &[u8], group: &Group<'_>) -> Result<(), String> {
    let sends = &group.sends;
    let verdict = |offset: &Offset| case.model.verdicts.get(offset);
    if sends.is_empty() {
        return Err(format!("nobody sent the commit at {:?}", group.frames));
    }
    // A commit that failed at its place in the log, or was answered so again, was not done.
    let failed = |offset: &Offset| match verdict(offset) {
        Some(Verdict::Duplicate(first)) => matches!(**first, Verdict::Failed(_)),
        verdict => matches!(verdict, Some(Verdict::Failed(_))),
    };
    let evaluated = group.frames.iter().filter(|offset| !failed(offset)).count();
    let not_done = sends.iter().filter(|request| definitely_not_done(request)).count();
    let logged_at_most = sends.len() - not_done;
    if evaluated > logged_at_most {
        let sent = sends.len();
        return Err(format!(
            "a commit that was sent {sent} times, and {not_done} times answered as not done, \
             stands in the log at {:?}",
            group.frames
        ));
    }
    let applied =
        group.frames.iter().filter(|at| matches!(verdict(at), Some(Verdict::Applied(_)))).count();
    if applied > 1 && in_session(body) {
        return Err(format!(
            "a commit of a session was applied {applied} times: {:?}",
            group.frames
        ));
    }
    sends.iter().try_for_each(|request| acknowledged(case, group, request))
}

fn in_session(body: &[u8]) -> bool {
    let commit = Message::new(body).map(|message| {
        Commit::read(&message).is_ok_and(|commit| commit.session() != SessionId::NONE)
    });
    commit.unwrap_or(false)
}

fn definitely_not_done(request: &Request) -> bool {
    matches!(request.reply(), Some(Reply::Error(Failure { outcome: Outcome::NotDone, .. })))
}

fn acknowledged(case: &Case<'_>, group: &Group<'_>, request: &Request) -> Result<(), String> {
    let Some(Reply::Committed(committed)) = request.reply() else { return Ok(()) };
    let at = committed.offset;
    if !group.frames.contains(&at) {
        return Err(format!("the commit acknowledged at {at} is not in the log"));
    }
    let Some(Verdict::Applied(expected)) = case.model.verdicts.get(&at) else {
        let verdict = case.model.verdicts.get(&at);
        return Err(format!("the commit acknowledged at {at} should have come to {verdict:?}"));
    };
    if (&expected.ids, &expected.ranges) != (&committed.ids, &committed.ranges) {
        return Err(format!("the commit at {at} did {expected:?}, but was told {committed:?}"));
    }
    let twice = group.sends.iter().filter(|other| {
        let Some(Reply::Committed(other)) = other.reply() else { return false };
        other.offset == at && !other.duplicate
    });
    if twice.count() > 1 {
        return Err(format!("the commit at {at} was acknowledged twice as new"));
    }
    Ok(())
}
