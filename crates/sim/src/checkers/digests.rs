//! All replicas have the same views: whichever is asked for the digests that it noted at an entry
//! tells the same, also one that has folded the entry in again after a crash, or got a copy since.

use super::Case;
use crate::history::{Asked, Violation};
use naust_wire::Offset;
use naust_wire::read::{Query, Read};
use naust_wire::reply::{Reply, ViewDigest};
use std::collections::BTreeMap;

/// Its name in reports.
pub const NAME: &str = "digests";

/// See the module.
pub fn check(case: &Case<'_>, violations: &mut Vec<Violation>) {
    let mut told: BTreeMap<Offset, &[ViewDigest]> = BTreeMap::new();
    for request in case.requests {
        let Asked::Read(Read { query: Query::Digests { at }, .. }) = &request.asked else {
            continue;
        };
        let Some(Reply::Digests(views)) = request.reply() else { continue };
        let first = told.entry(*at).or_insert(views);
        let differs = views.iter().filter(|view| !first.contains(view));
        let names: Vec<&str> = differs.map(|view| view.view.as_str()).collect();
        if !names.is_empty() || first.len() != views.len() {
            let (shard, line, sent) = (case.shard, request.line, request.sent);
            let what = format!(
                "shard {shard}: connection {line} was told, asked at {sent}, of other {} as of \
                 {at} than somebody before",
                names.join(", ")
            );
            violations.push(Violation::new(NAME, what));
        }
    }
}
