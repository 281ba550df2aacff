//! The verdicts on conditions are the model's, and a frame that could not be done was answered with
//! the model's reason.

use super::Case;
use crate::history::{Asked, Request, Violation};
use crate::model::Verdict;
use naust_wire::frame::Kind;
use naust_wire::reply::{Refused, Reply};
use naust_wire::{Code, Offset};
use std::collections::BTreeMap;

/// Its name in reports.
pub const NAME: &str = "refusals";

/// See the module.
pub fn check(case: &Case<'_>, violations: &mut Vec<Violation>) {
    let mut frames: BTreeMap<&[u8], Vec<Offset>> = BTreeMap::new();
    for entry in case.chronicle.from(Offset::ZERO) {
        if matches!(entry.header.kind, Kind::Commit | Kind::Control) {
            frames.entry(&entry.body[..]).or_default().push(entry.header.offset);
        }
    }
    for request in case.requests {
        let Asked::Commit(body) = &request.asked else { continue };
        let frames = frames.get(&body[..]).map_or(&[][..], Vec::as_slice);
        let result = match request.reply() {
            Some(Reply::Refused(refused)) => refusal(case, frames, refused),
            Some(Reply::Error(failure)) => error(case, frames, request, failure.code),
            _ => Ok(()),
        };
        if let Err(what) = result {
            violations.push(Violation::new(NAME, format!("shard {}: {what}", case.shard)));
        }
    }
}

fn refusal(case: &Case<'_>, frames: &[Offset], refused: &Refused) -> Result<(), String> {
    let expected = case.model.verdicts.get(&refused.at);
    if frames.contains(&refused.at) && expected == Some(&Verdict::Refused(*refused)) {
        return Ok(());
    }
    Err(format!("a commit was told {refused:?}, but the verdict there is {expected:?}"))
}

/// Errors that only a frame's verdict can give. All others are given before anything is logged.
fn error(case: &Case<'_>, frames: &[Offset], request: &Request, code: Code) -> Result<(), String> {
    if !matches!(code, Code::SessionExpired | Code::SequenceOutOfWindow) {
        return Ok(());
    }
    let reasons: Vec<_> = frames.iter().filter_map(|at| case.model.verdicts.get(at)).collect();
    if reasons.contains(&&Verdict::Failed(code)) {
        return Ok(());
    }
    Err(format!(
        "the commit sent at {} was answered {code}; the log says {reasons:?}",
        request.sent
    ))
}
