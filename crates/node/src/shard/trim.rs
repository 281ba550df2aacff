//! Letting the old log go: the worker's part of trimming.
//!
//! The log asks, in turns, what lives in its old segments; only the views know. So what it asks
//! is noted and sent to them, a segment without an answer counts as alive from end to end, and
//! an answer is kept until the log asks again: below the window of history what is dead stays
//! dead, so an old answer is only cautious. Questions go out only when tables moved on, so this
//! comes to rest.

use crate::event::Needs;
use crate::{Effect, views};
use naust_log::{Log, TrimInput};
use naust_wire::{Offset, ShardId};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::Range;

/// Answers that are kept. One that is dropped is asked for again.
const ANSWERS_MAX: usize = 1024;

#[derive(Default)]
pub(super) struct Trimming {
    persisted: Offset,
    keep_from: Offset,
    /// By the start of the range that was asked for.
    live: BTreeMap<Offset, Vec<Range<Offset>>>,
    /// There is something new to go by.
    is_due: bool,
    /// Tables moved on since the views were asked last.
    may_ask: bool,
    is_under_way: bool,
}

impl Trimming {
    pub(super) fn is_under_way(&self) -> bool {
        self.is_under_way
    }

    /// What the views told.
    pub(super) fn learn(&mut self, needs: &Needs) {
        self.persisted = needs.persisted;
        self.keep_from = needs.keep_from;
        self.is_due = true;
        self.may_ask |= needs.live.is_empty();
        for (range, live) in &needs.live {
            self.live.insert(range.start, live.clone());
        }
        while self.live.len() > ANSWERS_MAX {
            self.live.pop_first();
        }
    }

    /// A trim ended.
    pub(super) fn ended(&mut self) {
        self.is_under_way = false;
        self.is_due = true;
    }

    /// Begins the next trim, or asks the views what it would have to keep.
    pub(super) fn drive(&mut self, shard: ShardId, log: &mut Log, effects: &mut Vec<Effect>) {
        if !std::mem::take(&mut self.is_due) || self.is_under_way {
            return;
        }
        let unknown = RefCell::new(Vec::new());
        let known = RefCell::new(&mut self.live);
        let start = log.start().offset;
        let trim = log.trim(&TrimInput {
            persisted: self.persisted.max(start),
            keep_from: self.keep_from.max(start),
            live: &|range| match known.borrow_mut().remove(&range.start) {
                Some(live) => live,
                None => {
                    unknown.borrow_mut().push(range.clone());
                    vec![range]
                }
            },
        });
        if let Some(trim) = trim {
            self.is_under_way = true;
            effects.push(Effect::Trim { shard, trim });
        }
        let unknown = unknown.into_inner();
        if !unknown.is_empty() && std::mem::take(&mut self.may_ask) {
            effects.push(Effect::Views { shard, job: views::Job::Live(unknown) });
        }
    }
}
