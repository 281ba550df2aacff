//! Whoever reads on from one replica never sees an older state than before, however little he asks
//! for.
//!
//! What a connection's node answers from its own tables and log may lag, but only ever goes on. A
//! node that had no replica asked others, which may lag by different amounts: what it answered
//! counts for nothing.

use super::Case;
use crate::history::{Asked, Request, Violation};
use naust_wire::Offset;
use naust_wire::read::{Level, Read};
use naust_wire::reply::Reply;
use std::collections::BTreeMap;

/// Its name in reports.
pub const NAME: &str = "backwards";

/// See the module.
pub fn check(case: &Case<'_>, violations: &mut Vec<Violation>) {
    let mut lines: BTreeMap<(u64, Kind), Vec<&Request>> = BTreeMap::new();
    for request in case.requests {
        if let Some((kind, _)) = seen(request) {
            lines.entry((request.line, kind)).or_default().push(request);
        }
    }
    for requests in lines.values_mut() {
        if let Err(what) = judge(requests) {
            let what = format!("shard {}: {what}", case.shard);
            violations.push(Violation::new(NAME, what));
        }
    }
}

/// Answers that can be compared with each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    /// They name the last frame that was folded in.
    Views,
    /// They name where the log ends.
    Log,
}

/// Of which state an answer was that came from the replica that was asked.
fn seen(request: &Request) -> Option<(Kind, Offset)> {
    let Asked::Read(Read { level: Level::Local, .. }) = &request.asked else { return None };
    if !request.here {
        return None;
    }
    match request.reply()? {
        Reply::Row { at, .. } | Reply::Rows { at, .. } => Some((Kind::Views, *at)),
        Reply::Frames { end, .. } => Some((Kind::Log, *end)),
        _ => None,
    }
}

fn judge(requests: &mut [&Request]) -> Result<(), String> {
    let state = |request: &Request| seen(request).map_or(Offset::ZERO, |(_, at)| at);
    requests.sort_by_key(|request| request.answered);
    let mut newest = Vec::with_capacity(requests.len());
    for request in requests.iter() {
        let before = newest.last().map_or(Offset::ZERO, |(_, at)| *at);
        newest.push((request.answered, state(request).max(before)));
    }
    for request in requests.iter() {
        let before = newest.partition_point(|(answered, _)| *answered <= request.sent);
        let Some((_, known)) = newest[..before].last() else { continue };
        let at = state(request);
        if at < *known {
            let (line, sent) = (request.line, request.sent);
            return Err(format!(
                "connection {line} was shown {known}, and then, asked at {sent}, {at}"
            ));
        }
    }
    Ok(())
}
