//! Everybody who follows a stream sees the same one, whichever replica he follows it from: no two
//! pages disagree on a record, and none leaves out what another shows between its own.
//!
//! What is compared are answers with answers; the log is not asked.

use super::Case;
use crate::history::{Asked, Request, Violation};
use naust_wire::Offset;
use naust_wire::read::{Query, Read};
use naust_wire::reply::{Record, Reply};
use std::collections::BTreeMap;

/// Its name in reports.
pub const NAME: &str = "followers";

/// A page of a stream, as it was shown.
struct Page<'a> {
    request: &'a Request,
    records: &'a [Record],
    /// Up to where it showed everything.
    end: Offset,
}

/// See the module.
pub fn check(case: &Case<'_>, violations: &mut Vec<Violation>) {
    let mut streams: BTreeMap<&str, Vec<Page<'_>>> = BTreeMap::new();
    for request in case.requests {
        let Asked::Read(Read { query: Query::Records { stream, .. }, .. }) = &request.asked else {
            continue;
        };
        if let Some(Reply::Records { records, next, end }) = request.reply() {
            let page = Page { request, records, end: (*next).min(*end) };
            streams.entry(stream).or_default().push(page);
        }
    }
    for (stream, pages) in &streams {
        if let Err(what) = judge(pages) {
            let what = format!("shard {}: stream {stream:?}: {what}", case.shard);
            violations.push(Violation::new(NAME, what));
        }
    }
}

fn judge(pages: &[Page<'_>]) -> Result<(), String> {
    let mut shown: BTreeMap<Offset, &[u8]> = BTreeMap::new();
    for record in pages.iter().flat_map(|page| page.records) {
        let first = *shown.entry(record.offset).or_insert(&record.value);
        if first != record.value {
            return Err(format!("record {} was shown with two values", record.offset));
        }
    }
    for page in pages {
        // What lies before its first record may have gone by a floor.
        let Some(first) = page.records.first() else { continue };
        let mut own = page.records.iter().map(|record| record.offset);
        for (id, _) in shown.range(first.offset..page.end.max(first.offset)) {
            if !own.any(|own| own == *id) {
                let (line, sent) = (page.request.line, page.request.sent);
                return Err(format!(
                    "connection {line} was not shown record {id}, asked at {sent}"
                ));
            }
        }
    }
    Ok(())
}
