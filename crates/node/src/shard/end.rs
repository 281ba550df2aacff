//! The end of a namespace that is to be removed (`node::closing`): an entry of its own log.

use super::Shard;
use crate::views::Waiter;
use crate::{Effect, Now};
use naust_wire::Term;
use naust_wire::control::Control;
use naust_wire::frame::Kind;
use naust_wire::planted::{self, Bug};

/// Whether the namespace is to end.
#[derive(Default)]
pub(crate) struct End {
    /// It is to be removed: who leads it proposes its end.
    pub(crate) is_wanted: bool,
    /// The term in which that was done here last.
    proposed_in: Option<Term>,
}

impl Shard {
    /// Whether the end of the namespace is folded in here.
    pub(crate) fn has_ended(&self) -> bool {
        self.applied.closed
    }

    /// Proposes the end, if it is time: the leader's own entry. Once a term is enough: what was
    /// staged in it is committed, or cut when another one leads.
    pub(super) fn drive_end(&mut self, now: Now, effects: &mut Vec<Effect>) {
        if !self.end.is_wanted || self.has_ended() {
            return;
        }
        // Whatever is full: this is one frame, and what makes space again.
        if !self.replica.may_propose() && self.lead().is_err() {
            return;
        }
        if self.end.proposed_in.replace(self.replica.term()) == Some(self.replica.term()) {
            return;
        }
        let mut body = Vec::new();
        Control::Close.encode(&mut body);
        self.stage(Kind::Control, &body, Waiter::NOBODY, now);
        if planted::has(Bug::EndEarly) {
            effects.push(Effect::ShardClosed(self.id));
        }
    }
}
