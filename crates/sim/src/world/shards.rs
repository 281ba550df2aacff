//! What the world keeps of each shard to judge it: its chronicle, the model, and what was told.

use super::World;
use crate::checkers::{Case, Excuses};
use crate::chronicle::Chronicle;
use crate::history::{Answer, Asked, Request, Violation};
use crate::model::Model;
use crate::schedule::Moment;
use naust_wire::frame::Kind;
use naust_wire::options::{Durability, NamespaceOptions};
use naust_wire::read::{Level, Read};
use naust_wire::{Offset, ShardId};

/// Longest that an answer may take when nothing goes wrong any more, in microseconds: a read of an
/// offset that never comes waits for seconds.
const PATIENCE_MICROS: u64 = 15_000_000;

/// A shard, seen from outside.
pub struct Shard {
    /// What it committed.
    pub chronicle: Chronicle,
    /// The latest offset that anyone was told of as committed.
    pub frontier: Offset,
    /// When it was first removed with its namespace. If it was not closed before, because that was
    /// forced, what a node says of it afterwards counts for nothing.
    pub removed: Option<Moment>,
    /// Requests before this one are judged, but for those that waited then.
    judged: usize,
    options: NamespaceOptions,
}

impl Shard {
    /// A shard that has shown nothing yet.
    #[must_use]
    pub fn new(segment_bytes: u64, options: NamespaceOptions) -> Shard {
        let chronicle = Chronicle::new(segment_bytes);
        Shard { chronicle, frontier: Offset::ZERO, removed: None, judged: 0, options }
    }

    /// Whether it acknowledges what a power cut may take.
    #[must_use]
    pub fn may_lose(&self) -> bool {
        matches!(self.options.durability, Durability::IntervalMs(_))
    }

    /// Its options.
    #[must_use]
    pub fn options(&self) -> &NamespaceOptions {
        &self.options
    }

    /// Someone was told that the log goes at least so far.
    pub fn told(&mut self, request: &Request, at: Option<Offset>) {
        let counts = match &request.asked {
            Asked::Read(Read { level, .. }) => *level == Level::Linearizable,
            _ => true,
        };
        if let Some(at) = at.filter(|_| counts) {
            self.frontier = self.frontier.max(at);
        }
    }

    /// What its chronicle means.
    ///
    /// # Errors
    /// A sentence: a frame should never have been committed.
    pub fn model(&self) -> Result<Model, String> {
        let mut model = Model::default();
        for entry in self.chronicle.from(Offset::ZERO) {
            model.fold(entry)?;
        }
        Ok(model)
    }
}

impl World {
    /// Frames of a shard were shown to be committed.
    pub(super) fn learn(&mut self, shard: ShardId, first: Offset, frames: &[u8]) {
        let known = self.shards.get_mut(&shard).expect("a shard is known before it is opened");
        if known.removed.is_some() && self.directory.forced.contains(&shard) {
            return;
        }
        let end = known.chronicle.end();
        match known.chronicle.learn(first, frames) {
            Ok(0) => {}
            Ok(new) => {
                self.tally.frames += new as u64;
                let news = known.chronicle.from(end);
                for entry in news {
                    match entry.header.kind {
                        Kind::Empty => self.tally.elections += 1,
                        Kind::Control if entry.is_end() => self.tally.mark("namespaces that ended"),
                        _ => {}
                    }
                }
                if shard == ShardId::DIRECTORY {
                    self.fold_directory();
                }
            }
            Err(what) => {
                let what = format!("shard {shard}: {what}");
                self.violations.push(Violation::new("durability", what));
            }
        }
    }

    /// The directory is known as soon as its frames are.
    fn fold_directory(&mut self) {
        let known = &self.shards[&ShardId::DIRECTORY].chronicle;
        for entry in known.from(self.directory.next()) {
            if self.directory.fold(entry).is_err() {
                return; // Told when the directory is judged.
            }
        }
    }

    /// Judges everything that was asked and answered so far.
    pub(super) fn judge(&mut self, excuses: Excuses) {
        for id in self.shards.keys().copied().collect::<Vec<_>>() {
            let requests = self.history.requests.iter();
            let requests: Vec<&Request> = requests.filter(|request| request.shard == id).collect();
            let found = self.judge_one(id, &requests, excuses);
            self.violations.extend(found);
        }
    }

    /// Judges what was asked of one shard and answered, before some of that is forgotten. What is
    /// not answered yet may still be, or its connection may be gone.
    pub(super) fn judge_loss(&mut self, id: ShardId, excuses: Excuses) {
        let requests = self.history.requests.iter().filter(|request| request.shard == id);
        let requests: Vec<Request> = requests
            .map(|request| match request.answer {
                Answer::Waiting => Request { answer: Answer::Lost, ..request.clone() },
                _ => request.clone(),
            })
            .collect();
        let requests: Vec<&Request> = requests.iter().collect();
        let found = self.judge_one(id, &requests, excuses);
        self.violations.extend(found);
    }

    fn judge_one(&self, id: ShardId, requests: &[&Request], excuses: Excuses) -> Vec<Violation> {
        let shard = &self.shards[&id];
        let model = match shard.model() {
            Ok(model) => model,
            Err(what) => return vec![Violation::new("model", format!("shard {id}: {what}"))],
        };
        let case = Case {
            shard: id,
            options: shard.options,
            chronicle: &shard.chronicle,
            model: &model,
            requests,
            removed: shard.removed.filter(|_| !self.directory.forced.contains(&id)),
            patience: Moment(self.schedule.now().0.saturating_sub(PATIENCE_MICROS)),
            excuses,
        };
        case.judge()
    }

    /// A shard that acknowledges before it syncs lost its power: what is not on disk any more may
    /// be gone. What was told before is judged now, by what was there; what of it is gone has no
    /// known fate from now on, and neither has what is on its way to be told.
    pub(super) fn forget(&mut self, id: ShardId, kept: Offset) {
        let shard = self.shards.get_mut(&id).expect("a shard that was open is known");
        shard.chronicle.forget(kept);
        shard.frontier = shard
            .frontier
            .min(shard.chronicle.last().map_or(Offset::ZERO, |last| last.header.offset));
        for request in &mut self.history.requests[shard.judged..] {
            if request.shard == id {
                request.answer = Answer::Lost;
            }
        }
        shard.judged = self.history.requests.len();
    }
}
