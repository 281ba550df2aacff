//! No namespace goes before its shard is closed; and when it is gone nothing is done in it any
//! more, and nothing of it read by who wants to know how it is now.
//!
//! What is acknowledged behind the end of a shard that is still there is for [`super::commits`].

use super::Case;
use crate::history::{Asked, Request, Violation};
use naust_wire::read::Level;
use naust_wire::reply::{Committed, Reply};

/// Its name in reports.
pub const NAME: &str = "removal";

/// See the module.
pub fn check(case: &Case<'_>, violations: &mut Vec<Violation>) {
    let Some(removed) = case.removed.filter(|_| !case.excuses.damage) else { return };
    let mut wrong = |what: String| {
        violations.push(Violation::new(NAME, format!("shard {}: {what}", case.shard)));
    };
    if case.model.closed.is_none() {
        wrong(format!("it was removed at {removed}, and never closed"));
    }
    for request in case.requests.iter().filter(|request| request.sent > removed) {
        if serves(request) {
            wrong(format!(
                "it was removed at {removed}, and served what was asked at {}: {:?}",
                request.sent, request.answer
            ));
        }
    }
}

fn serves(request: &Request) -> bool {
    match (&request.asked, request.reply()) {
        // What was done before is told again as long as somebody remembers it.
        (Asked::Commit(_), Some(Reply::Committed(Committed { duplicate, .. }))) => !duplicate,
        (Asked::Read(read), Some(reply)) => {
            read.level == Level::Linearizable && !matches!(reply, Reply::Error(_))
        }
        _ => false,
    }
}
