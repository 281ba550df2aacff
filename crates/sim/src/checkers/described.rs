//! A namespace is described as it was at the offset that the description names: names, options,
//! floors, cursors, and streams to the last record and byte.

use super::Case;
use crate::history::{Request, Violation};
use crate::model::space::Stream;
use naust_wire::Offset;
use naust_wire::reply::{self, Reply};

/// Its name in reports.
pub const NAME: &str = "described";

/// See the module.
pub fn check(case: &Case<'_>, violations: &mut Vec<Violation>) {
    for request in case.requests {
        if let Err(what) = judge(case, request) {
            let what = format!("shard {}: {what}; asked at {}", case.shard, request.sent);
            violations.push(Violation::new(NAME, what));
        }
    }
}

fn judge(case: &Case<'_>, request: &Request) -> Result<(), String> {
    let Some(Reply::Described { at, keyspaces, streams, .. }) = request.reply() else {
        return Ok(());
    };
    let made = |since: Option<Offset>| since.is_some_and(|since| since <= *at);
    let expected: Vec<_> = case
        .model
        .keyspaces
        .iter()
        .filter(|(_, keyspace)| made(keyspace.options.first()))
        .filter_map(|(name, k)| Some((name, *k.options.at(*at)?.1, floor(k.floor.at(*at)))))
        .collect();
    let mut told: Vec<_> = keyspaces.iter().map(|k| (&k.name, k.options, k.floor)).collect();
    told.sort_by_key(|(name, ..)| *name);
    if told != expected {
        return Err(format!("at {at} the keyspaces are {told:?}, not {expected:?}"));
    }
    let end = case.chronicle.at(*at).map_or(Offset::FIRST, |entry| entry.header.end());
    let known = case.model.streams.iter().filter(|(_, stream)| made(stream.options.first()));
    let expected: Vec<_> = known.map(|(name, known)| stream(name, known, *at, end)).collect();
    let mut told = streams.clone();
    told.sort_by(|a, b| a.name.cmp(&b.name));
    match told.iter().zip(&expected).find(|(told, expected)| told != expected) {
        Some((told, expected)) => Err(format!("at {at} a stream is {told:?}, not {expected:?}")),
        None if told.len() != expected.len() => {
            Err(format!("at {at} {} streams, not {}", told.len(), expected.len()))
        }
        None => Ok(()),
    }
}

fn floor(at: Option<(Offset, &Offset)>) -> Offset {
    at.map_or(Offset::ZERO, |(_, floor)| *floor)
}

/// What is to be told of a stream.
fn stream(name: &str, stream: &Stream, at: Offset, end: Offset) -> reply::Stream {
    let live = stream.range(floor(stream.floor.at(at)), Offset::MAX);
    let live: Vec<_> = live.filter(|(_, record)| record.commit <= at).collect();
    let cursors = stream
        .cursors
        .iter()
        .filter_map(|(name, timeline)| Some((name.clone(), *timeline.at(at)?.1)));
    reply::Stream {
        name: name.to_owned(),
        options: stream.options.at(at).map(|(_, options)| *options).unwrap_or_default(),
        first: live.first().map_or(end, |(id, _)| *id),
        end,
        records: live.len() as u64,
        bytes: live.iter().map(|(_, record)| record.value.len() as u64).sum(),
        cursors: cursors.collect(),
    }
}
