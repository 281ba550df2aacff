//! What must hold, one small file a property. A checker looks at one shard's [`Case`] and tells
//! what is wrong.
//!
//! Each is a pure function of what was asked, answered and committed, so each is tested with
//! histories that are wrong. Two are no such functions: [`words`] listens while the life goes on,
//! and knows each replica; [`limits`] looks at the disk of one.

pub mod backwards;
pub mod commits;
pub mod described;
pub mod digests;
pub mod followers;
pub mod frames;
pub mod freshness;
pub mod limits;
pub mod linearizable;
pub mod numbered;
pub mod pages;
pub mod records;
pub mod refusals;
pub mod removal;
pub mod replies;
pub mod rows;
pub mod transactions;
pub mod wgl;
pub mod words;

use crate::chronicle::Chronicle;
use crate::history::{Request, Violation};
use crate::model::Model;
use crate::schedule::Moment;
use naust_wire::ShardId;
use naust_wire::options::NamespaceOptions;

/// What is judged: one shard, what it committed, what that means, and what its clients were told.
pub struct Case<'a> {
    /// Which shard.
    pub shard: ShardId,
    /// Its options.
    pub options: NamespaceOptions,
    /// What it committed.
    pub chronicle: &'a Chronicle,
    /// What that means.
    pub model: &'a Model,
    /// What its clients asked, in order.
    pub requests: &'a [&'a Request],
    /// What was sent before this moment should have been answered.
    pub patience: Moment,
    /// When it was first removed with its namespace, if that had to be closed.
    pub removed: Option<Moment>,
    /// Which faults may excuse an error.
    pub excuses: Excuses,
}

/// Faults of a life that may excuse errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Excuses {
    /// The disk was full at times.
    pub disk_full: bool,
    /// More was damaged than the promises cover.
    pub damage: bool,
    /// One replica at a time was damaged, which the others mend.
    pub mendable: bool,
    /// Footers of segments rotted.
    pub footers: bool,
    /// The process ended at times, or a disk stopped it.
    pub restarts: bool,
    /// There are several nodes, and leadership goes from one to another.
    pub elections: bool,
}

/// A checker.
pub type Checker = fn(&Case<'_>, &mut Vec<Violation>);

/// All of them, by name.
pub const ALL: [(&str, Checker); 15] = [
    (commits::NAME, commits::check),
    (rows::NAME, rows::check),
    (described::NAME, described::check),
    (digests::NAME, digests::check),
    (records::NAME, records::check),
    (numbered::NAME, numbered::check),
    (freshness::NAME, freshness::check),
    (frames::NAME, frames::check),
    (refusals::NAME, refusals::check),
    (removal::NAME, removal::check),
    (replies::NAME, replies::check),
    (linearizable::NAME, linearizable::check),
    (backwards::NAME, backwards::check),
    (followers::NAME, followers::check),
    (transactions::NAME, transactions::check),
];

impl Case<'_> {
    /// Asks all checkers.
    #[must_use]
    pub fn judge(&self) -> Vec<Violation> {
        let mut violations = Vec::new();
        for (_, checker) in ALL {
            checker(self, &mut violations);
        }
        violations
    }
}
