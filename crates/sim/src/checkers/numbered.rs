//! What a session numbered in the directory took effect at most once, however often it was sent,
//! and was answered alike each time: what was made or removed is told at the one place where that
//! happened, and a refusal stays one.

use super::Case;
use crate::history::{Asked, Request, Violation};
use crate::model::Verdict;
use naust_wire::control::Control;
use naust_wire::frame::Kind;
use naust_wire::reply::{Failure, Reply};
use naust_wire::{Code, Offset, Outcome, Sequence, SessionId};
use std::collections::BTreeMap;

/// Its name in reports.
pub const NAME: &str = "numbered";

#[derive(Default)]
struct Group<'a> {
    sends: Vec<&'a Request>,
    frames: Vec<Offset>,
}

/// See the module.
pub fn check(case: &Case<'_>, violations: &mut Vec<Violation>) {
    let mut groups: BTreeMap<(SessionId, Sequence), Group<'_>> = BTreeMap::new();
    for request in case.requests {
        if let Asked::Numbered(numbers, _) = &request.asked {
            groups.entry((numbers.session, numbers.sequence)).or_default().sends.push(request);
        }
    }
    if groups.is_empty() {
        return;
    }
    for entry in case.chronicle.from(Offset::ZERO) {
        if entry.header.kind == Kind::Control
            && let Ok((numbers, _)) = Control::decode_numbered(&entry.body)
            && numbers.session != SessionId::NONE
        {
            let group = groups.entry((numbers.session, numbers.sequence)).or_default();
            group.frames.push(entry.header.offset);
        }
    }
    for ((session, sequence), group) in &groups {
        if let Err(what) = judge(case, group) {
            let what = format!("shard {}: {sequence} of {session}: {what}", case.shard);
            violations.push(Violation::new(NAME, what));
        }
    }
}

fn judge(case: &Case<'_>, group: &Group<'_>) -> Result<(), String> {
    let Group { sends, frames } = group;
    if sends.is_empty() {
        return Err(format!("nobody sent what stands at {frames:?}"));
    }
    let verdict = |at: &Offset| case.model.verdicts.get(at);
    let done: Vec<&Offset> =
        frames.iter().filter(|at| verdict(at) == Some(&Verdict::Done)).collect();
    if done.len() > 1 {
        return Err(format!("it took effect at {done:?}"));
    }
    for request in sends {
        match request.reply() {
            Some(Reply::Done(at)) if done != [at] => {
                return Err(format!("it is told to be done at {at}, and was at {done:?}"));
            }
            Some(Reply::Error(Failure { code, outcome: Outcome::NotDone, .. }))
                if is_verdict(*code) =>
            {
                let failed = Verdict::Failed(*code);
                let again = Verdict::Duplicate(Box::new(failed.clone()));
                let told = |at| verdict(at).is_some_and(|it| *it == failed || *it == again);
                if !done.is_empty() || !frames.iter().any(told) {
                    let verdicts: Vec<_> = frames.iter().map(verdict).collect();
                    return Err(format!("{code} was answered; the log says {verdicts:?}"));
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// Whether only what stands in the log leads to it.
fn is_verdict(code: Code) -> bool {
    matches!(code, Code::NamespaceExists | Code::NamespaceNotFound)
}
