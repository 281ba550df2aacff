//! Letting the old log go: the worker's part of trimming.
//!
//! The log asks, in turns, what lives in its old segments; only the views know. So what it asks
//! is noted and sent to them, and the log's turn stays where it is until they have told. Below
//! the window of history what is dead stays dead, so an old answer is only cautious. Each time
//! tables move on there are questions for twice the segments that they moved past, so that what
//! is behind catches up; when they rest, this does.

use super::Shard;
use crate::event::Needs;
use crate::{Effect, Now, views};
use naust_log::{Damage, Log, TrimInput};
use naust_wire::{Offset, ShardId};
use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;

/// Milliseconds between two tries to rewrite segments of which nobody knows where frames are left.
const UNSURE_MS: u64 = 10_000;
/// Questions whenever tables moved on, beside those for what they moved past.
const QUESTIONS: u64 = 8;

#[derive(Default)]
pub(super) struct Trimming {
    persisted: Offset,
    keep_from: Offset,
    /// What followers lack that are a little behind begins here, as of the last tick.
    pub(super) needed: Option<Offset>,
    /// What was told, of what was asked last; by the start of the range.
    live: BTreeMap<Offset, Vec<Range<Offset>>>,
    /// The log's start, as it was seen last: what lies before it is old.
    start: Offset,
    /// There is something new to go by.
    is_due: bool,
    /// What lives is told as of no later than this.
    live_at: Offset,
    /// Tables are persisted up to here since this was looked at last.
    moved: Option<Offset>,
    /// Segments that may be asked about until tables move on.
    questions: u64,
    /// What stood in the way of rewriting unsure segments may be gone.
    tries_again: bool,
    /// When they are tried again, should they not be rewritten by then.
    unsure_ms: Option<u64>,
    gone: Gone,
    is_under_way: bool,
}

/// Stretches of the old log of which no segment is left. That nothing lives there is found out once
/// in each life: trimming let go of them, or a file is lost.
#[derive(Default)]
struct Gone {
    /// Not asked about yet; `None`: not looked for yet.
    stretches: Option<VecDeque<Range<Offset>>>,
    /// The views are asked.
    asked: Vec<Range<Offset>>,
    /// What lives there all the same.
    live: Vec<Range<Offset>>,
    /// Tables moved on, or nothing was asked yet.
    is_due: bool,
}

impl Gone {
    /// What the views told of a stretch; whether that was asked here.
    fn learn(&mut self, range: &Range<Offset>, live: &[Range<Offset>]) -> bool {
        let place = self.asked.iter().position(|asked| asked == range);
        if let Some(place) = place {
            self.asked.swap_remove(place);
            self.live.extend_from_slice(live);
        }
        place.is_some()
    }
}

impl Trimming {
    /// Asks what lives where nothing is left of the log. What is still to be folded in again may
    /// say that something does not live any more.
    pub(super) fn look_for_lost(&mut self, shard: ShardId, log: &Log, effects: &mut Vec<Effect>) {
        let gone = &mut self.gone;
        let begins = gone.stretches.is_none();
        let stretches = gone.stretches.get_or_insert_with(|| log.gaps().into());
        if !(std::mem::take(&mut gone.is_due) || begins) || stretches.is_empty() {
            return;
        }
        let asked: Vec<_> = stretches.drain(..stretches.len().min(QUESTIONS as usize)).collect();
        gone.asked.extend_from_slice(&asked);
        effects.push(Effect::Views { shard, job: views::Job::Live(asked) });
    }

    /// What is lost of the log, as was found out since this was asked last.
    pub(super) fn lost(&mut self, log: &mut Log) -> Vec<Damage> {
        let live = std::mem::take(&mut self.gone.live);
        if live.is_empty() { Vec::new() } else { log.note_lost(&live) }
    }

    pub(super) fn is_under_way(&self) -> bool {
        self.is_under_way
    }

    /// What the views told.
    pub(super) fn learn(&mut self, needs: &Needs, applied: Offset) {
        if needs.live.is_empty() {
            self.moved.get_or_insert(self.persisted);
            self.gone.is_due = true;
        }
        self.persisted = needs.persisted;
        self.keep_from = needs.keep_from;
        self.is_due = true;
        if !needs.live.is_empty() {
            self.live_at = self.live_at.max(applied);
        }
        for (range, live) in &needs.live {
            if !self.gone.learn(range, live) {
                self.live.insert(range.start, live.clone());
            }
        }
    }

    /// A trim ended.
    pub(super) fn ended(&mut self) {
        self.is_under_way = false;
        self.is_due = true;
    }

    /// When it wants `tick`.
    pub(super) fn due_ms(&self) -> Option<u64> {
        self.unsure_ms
    }

    pub(super) fn tick(&mut self, now: Now) {
        if self.unsure_ms.take_if(|at| *at <= now.monotonic_ms).is_some() {
            self.try_again();
        }
    }

    /// What stood in the way of rewriting unsure segments may be gone: damage, or a full disk.
    pub(super) fn try_again(&mut self) {
        self.tries_again = true;
    }

    /// Begins the next trim, or asks the views what it would have to keep.
    pub(super) fn drive(&mut self, shard: ShardId, log: &mut Log, effects: &mut Vec<Effect>) {
        let start = log.start().offset;
        let begins = std::mem::replace(&mut self.start, start) != start;
        self.is_due |= begins;
        if (begins || std::mem::take(&mut self.tries_again)) && log.unsure_segments() > 0 {
            // These do not wait until tables move on.
            self.questions = self.questions.max(QUESTIONS + log.unsure_segments() as u64);
            self.is_due = true;
        }
        if !std::mem::take(&mut self.is_due) || self.is_under_way {
            return;
        }
        if let Some(from) = self.moved.take() {
            let past = self.persisted.0.saturating_sub(from.0) / log.layout().segment_bytes();
            self.questions = QUESTIONS + 2 * past;
        }
        let questions = RefCell::new(Vec::new());
        let known = RefCell::new(&mut self.live);
        let trim = log.trim(&TrimInput {
            persisted: self.persisted.max(start),
            keep_from: self.needed.map_or(self.keep_from, |it| it.min(self.keep_from)).max(start),
            live: &|range| {
                let told = known.borrow_mut().remove(&range.start);
                if told.is_none() {
                    questions.borrow_mut().push(range);
                }
                told
            },
        });
        if let Some(trim) = trim {
            self.is_under_way = true;
            effects.push(Effect::Trim { shard, trim });
            return;
        }
        let questions = questions.into_inner();
        let asked = questions.len() as u64;
        if asked > 0 && self.questions > 0 {
            // Twice around is enough, however far tables moved: the start moves after them.
            let most = QUESTIONS + 2 * log.old_segments() as u64;
            self.questions = self.questions.min(most).saturating_sub(asked);
            self.live.clear();
            effects.push(Effect::Views { shard, job: views::Job::Live(questions) });
        }
    }
}

impl Shard {
    /// Goes on with what of the old log is to go, to be rewritten, or to be found missing.
    pub(super) fn drive_trimming(&mut self, now: Now, effects: &mut Vec<Effect>) {
        if self.is_alone() {
            self.trimming.needed = None;
        }
        let trimming = &mut self.trimming;
        if self.applied.index >= self.opened {
            trimming.look_for_lost(self.id, &self.log, effects);
        }
        for damage in trimming.lost(&mut self.log) {
            self.mending.note(self.id, damage, effects);
        }
        // What lives is told as of what is folded in: a power cut may take that back, and with it
        // what let go of records, as long as it is not synced.
        let is_behind = self.log.durable().offset < trimming.live_at;
        if is_behind {
            self.interval.want(Some(trimming.live_at));
        } else if !self.transfers.hold_the_log() {
            trimming.drive(self.id, &mut self.log, effects);
        }
        let is_unsure = self.log.unsure_segments() > 0;
        let again_ms = trimming.unsure_ms.unwrap_or(now.monotonic_ms + UNSURE_MS);
        trimming.unsure_ms = is_unsure.then_some(again_ms);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use naust_log::sim::SimDisk;
    use naust_log::{Identity, Layout};
    use naust_wire::frame::Kind;
    use naust_wire::{LogTime, NodeId, Term};
    use std::sync::Arc;

    const SHARD: ShardId = ShardId(3);
    const SEGMENT_BYTES: u64 = 16 * 1024;

    /// A log of so many segments, and a trim that has not seen it.
    struct Old {
        disk: SimDisk,
        log: Log,
        trimming: Trimming,
        questions: usize,
    }

    impl Old {
        fn new(segments: u64) -> Old {
            let disk = SimDisk::new();
            let identity = Identity { node: NodeId(1), shard: SHARD, cluster: 2 };
            let layout = Layout::new(SEGMENT_BYTES).unwrap();
            Log::create_with(&disk, identity, b"", layout).unwrap();
            let (log, _) = Log::open(Arc::new(disk.clone()), SHARD).unwrap();
            let mut old = Old { disk, log, trimming: Trimming::default(), questions: 0 };
            old.grow(segments);
            old
        }

        fn grow(&mut self, segments: u64) {
            for _ in 0..segments {
                let index = self.log.end().index.next();
                self.log.stage(Kind::Commit, Term(1), index, LogTime(0), &[7; 16_000]);
                self.write();
            }
            self.log.release(self.log.end().offset);
        }

        fn write(&mut self) {
            while let Some(write) = self.log.next_write() {
                self.log.written(write.run()).unwrap();
            }
        }

        /// Tables are persisted up to the log's end; then everything is done that comes of it.
        /// The views are asked, and answer, one job after the trim: nothing lives.
        fn move_on(&mut self) {
            let end = self.log.end().offset;
            let needs = Needs { persisted: end, keep_from: end, live: Vec::new() };
            self.trimming.learn(&needs, Offset::FIRST);
            let mut effects = Vec::new();
            loop {
                self.trimming.drive(SHARD, &mut self.log, &mut effects);
                self.write();
                for effect in effects.drain(..) {
                    match effect {
                        Effect::Trim { trim, .. } => {
                            self.trimming.ended();
                            self.log.trimmed(trim.run()).unwrap();
                        }
                        Effect::Views { job: views::Job::Live(ranges), .. } => {
                            self.questions += ranges.len();
                            let live = ranges.into_iter().map(|range| (range, Vec::new()));
                            let live = live.collect();
                            self.trimming.learn(
                                &Needs { persisted: end, keep_from: end, live },
                                Offset::FIRST,
                            );
                        }
                        _ => unreachable!("a trim has no other effects"),
                    }
                }
                if !self.trimming.is_due && self.log.start().offset == self.trimming.start {
                    return;
                }
            }
        }

        fn files(&self) -> usize {
            self.disk.files().iter().filter(|(name, _)| name.ends_with(".log")).count()
        }
    }

    /// Why: answers were thrown away before their turn came, and a log of more than a thousand
    /// old segments was never trimmed again.
    #[test]
    fn a_long_old_log_is_trimmed_down_to_its_end() {
        let mut old = Old::new(1500);
        assert!(old.files() >= 1500);
        old.move_on();
        assert!(old.files() <= 3, "{} files stay", old.files());
    }

    /// Why: the log's start moves after tables do, and what became old with it waited for the next
    /// time; in a shard that rests, for ever.
    #[test]
    fn what_becomes_old_does_not_wait_for_the_next_flush() {
        let mut old = Old::new(3);
        for _ in 0..20 {
            old.grow(3);
            old.move_on();
            assert!(old.files() <= 3, "{} files stay", old.files());
        }
    }

    /// Why: what is written while old segments wait must not outrun the trim.
    #[test]
    fn what_is_behind_catches_up_under_load() {
        let mut old = Old::new(200);
        for _ in 0..40 {
            old.grow(20);
            old.move_on();
        }
        assert!(old.files() < 50, "{} files", old.files());
    }

    /// Why: that a file of old log was lost nobody knew, and who read from it was told that it was
    /// trimmed.
    #[test]
    fn what_lives_where_no_segment_is_left_is_lost() {
        let mut old = Old::new(5);
        let first = Layout::name(Offset::FIRST);
        let mut effects = Vec::new();
        old.move_on();
        let gap = old.log.gaps()[0].clone();
        assert!(!old.disk.lose(&first), "it was trimmed");
        let asks = |old: &mut Old, effects: &mut Vec<Effect>| {
            old.trimming.look_for_lost(SHARD, &old.log, effects);
            let asked = effects.drain(..).map(|effect| match effect {
                Effect::Views { job: views::Job::Live(ranges), .. } => ranges,
                _ => unreachable!("nothing else is asked"),
            });
            asked.flatten().collect::<Vec<_>>()
        };
        assert_eq!(asks(&mut old, &mut effects), std::slice::from_ref(&gap));
        assert_eq!(asks(&mut old, &mut effects), [], "once");
        let tell = |old: &mut Old, live: Vec<Range<Offset>>| {
            let end = old.log.end().offset;
            let live = vec![(gap.clone(), live)];
            old.trimming.learn(&Needs { persisted: end, keep_from: end, live }, Offset::FIRST);
            old.trimming.lost(&mut old.log)
        };
        assert_eq!(tell(&mut old, Vec::new()), []);
        old.trimming.gone = Gone::default();
        assert_eq!(asks(&mut old, &mut effects), std::slice::from_ref(&gap));
        let lives = Offset::FIRST.plus(100);
        let [lost] = tell(&mut old, vec![lives..lives.plus(8)])[..] else { panic!("one place") };
        assert_eq!(lost.from, Offset::FIRST);
        assert_eq!(old.log.unsure_segments(), 1);
    }

    /// Why: a disk that is full while a segment is to be rewritten has space again some day, and a
    /// shard at rest would never have tried again.
    #[test]
    fn unsure_segments_are_tried_again() {
        let mut old = Old::new(5);
        old.move_on();
        let lives = Offset::FIRST.plus(100);
        assert_eq!(old.log.note_lost(std::slice::from_ref(&(lives..lives.plus(8)))).len(), 1);
        let (mut trimming, mut effects) = (Trimming::default(), Vec::new());
        let asked = |trimming: &mut Trimming, old: &mut Old, effects: &mut Vec<Effect>| {
            let mut asked = 0;
            for _ in 0..100 {
                trimming.is_due = true;
                trimming.drive(SHARD, &mut old.log, effects);
                asked += effects.drain(..).count();
            }
            asked
        };
        let first = asked(&mut trimming, &mut old, &mut effects);
        assert!((1..20).contains(&first), "a few times at once: {first}");
        assert_eq!(asked(&mut trimming, &mut old, &mut effects), 0);
        trimming.unsure_ms = Some(5);
        trimming.tick(Now { monotonic_ms: 4, ..Now::default() });
        assert_eq!(asked(&mut trimming, &mut old, &mut effects), 0);
        trimming.tick(Now { monotonic_ms: 5, ..Now::default() });
        assert!(asked(&mut trimming, &mut old, &mut effects) > 0);
        assert_eq!(trimming.due_ms(), None);
    }

    /// Why: a log whose old records all live is looked at when tables move on, and then at rest.
    #[test]
    fn questions_are_for_what_is_there() {
        let mut old = Old::new(20);
        old.move_on();
        old.move_on();
        let asked = old.questions;
        assert!(asked <= 3 * 20, "{asked} questions about 20 segments");
    }
}
