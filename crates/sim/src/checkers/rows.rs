//! Rows are those of the model at the offset that the answer names: history tells the truth, and
//! commits are whole.

use super::{Case, pages};
use crate::history::{Asked, Request, Violation};
use crate::model::space::Keyspace;
use naust_wire::Offset;
use naust_wire::read::{Query, Read};
use naust_wire::reply::{Entry, Reply};

/// Its name in reports.
pub const NAME: &str = "rows";

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
    match (&read.query, request.reply()) {
        (Query::Get { keyspace, key }, Some(Reply::Row { at, row })) => {
            let row = row.as_ref().map(|(version, value)| (*version, value.as_slice()));
            let keyspace = case.model.keyspaces.get(keyspace);
            under_some_floor(keyspace, *at, request.ceiling, |keyspace, floor| {
                let expected = keyspace.and_then(|keyspace| keyspace.get(key, *at, floor));
                if row == expected {
                    return Ok(());
                }
                let brief = |row: Option<(Offset, &[u8])>| row.map(|(at, value)| (at, value.len()));
                Err(format!("at {at} (version, bytes) {:?}, not {:?}", brief(row), brief(expected)))
            })
        }
        (
            Query::Scan { keyspace, from, to, reverse, limit, .. },
            Some(Reply::Rows { at, entries, next }),
        ) => {
            let keyspace = case.model.keyspaces.get(keyspace);
            let asked = pages::Asked { reverse: *reverse, limit: *limit };
            under_some_floor(keyspace, *at, request.ceiling, |keyspace, floor| {
                let expected = expected(keyspace, from, to.as_deref(), *reverse, *at, floor);
                pages::judge(asked, &expected, entries, next.as_deref())
                    .map_err(|what| format!("at {at} a page of {} rows: {what}", entries.len()))
            })
        }
        _ => Ok(()),
    }
}

/// A retention floor holds for every reader as soon as it is folded in, whatever offset he reads
/// at; so the answer is right if it is right under one of the floors that held between `at` and the
/// answer.
fn under_some_floor(
    keyspace: Option<&Keyspace>,
    at: Offset,
    ceiling: Offset,
    judge: impl Fn(Option<&Keyspace>, Offset) -> Result<(), String>,
) -> Result<(), String> {
    let Some(known) = keyspace else { return judge(None, Offset::ZERO) };
    let none_yet = known.floor.at(at).is_none().then_some(Offset::ZERO);
    let floors = known.floor.between(at, ceiling.max(at)).copied();
    let mut result = Ok(());
    for floor in none_yet.into_iter().chain(floors) {
        result = judge(keyspace, floor);
        if result.is_ok() {
            break;
        }
    }
    result
}

fn expected(
    keyspace: Option<&Keyspace>,
    from: &[u8],
    to: Option<&[u8]>,
    reverse: bool,
    at: Offset,
    floor: Offset,
) -> Vec<Entry> {
    let Some(keyspace) = keyspace else { return Vec::new() };
    let rows = keyspace.range(from, to, at, floor);
    let mut rows: Vec<Entry> = rows
        .map(|(key, offset, value)| Entry { key: key.to_vec(), value: value.to_vec(), offset })
        .collect();
    if reverse {
        rows.reverse();
    }
    rows
}
