//! Whether logs give back what nothing needs any more.
//!
//! Trims go on when tables move on. So clients write a little more at the end of a life, until
//! every replica holds only what it must; that it comes to this is what is demanded.

use super::World;
use crate::checkers::limits::{self, Held};
use crate::history::{Asked, Violation};
use crate::model::Model;
use crate::workload::keys;
use naust_log::{Layout, ReadError};
use naust_wire::commit::Draft;
use naust_wire::limits::{HISTORY_BYTES_MIN, HISTORY_MS_MIN};
use naust_wire::{LogTime, Offset, Sequence, SessionId, ShardId};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// Virtual time after which the window of history has passed what was written, in microseconds.
const QUIET_MICROS: u64 = 62_000_000;
/// Virtual time for trims between two looks, in microseconds.
const PAUSE_MICROS: u64 = 1_000_000;
/// Longest value of what is written meanwhile, in bytes.
const VALUE_BYTES_MAX: u64 = 64 * 1024;
/// Rounds of writes beside those that a log of many segments takes.
const ROUNDS: usize = 24;
/// Segments that one round may be about.
const SEGMENTS_A_ROUND: usize = 4;
/// What the floor of history may lag behind: log bytes, and milliseconds.
const FLOOR_LAGS: (u64, u64) = (64 * 1024, 200);

impl World {
    /// Has clients write until no replica holds more than it needs.
    pub(super) fn look_at_disks(&mut self) {
        if self.excuses.damage || !self.violations.is_empty() {
            return;
        }
        self.write_and_wait(0, QUIET_MICROS);
        let rounds = ROUNDS + self.files_of_logs() / SEGMENTS_A_ROUND;
        let mut held = None;
        for round in 1..=rounds {
            self.write_and_wait(round, PAUSE_MICROS);
            held = self.what_is_held_for_nobody();
            if held.is_none() || !self.violations.is_empty() {
                break;
            }
        }
        if self.violations.is_empty()
            && let Some(what) = held
        {
            self.violations.push(Violation::new(limits::NAME, what));
        }
    }

    fn write_and_wait(&mut self, round: usize, micros: u64) {
        let apart = self.schedule.now().after(PAUSE_MICROS);
        self.run_until(apart, |_| false);
        self.write_some(round);
        self.settle("when a little more was written");
        let waited = self.schedule.now().after(micros);
        self.run_until(waited, |_| false);
    }

    fn files_of_logs(&self) -> usize {
        let disks = self.members.iter().flat_map(|member| member.disks.values());
        disks.map(|disk| disk.allocated().len()).max().unwrap_or(0)
    }

    /// One client of each shard writes as much as has its tables move on.
    fn write_some(&mut self, round: usize) {
        let machine = &self.plan.machine;
        let bytes = machine.memtable_bytes.min(machine.replay_bytes_max);
        let bytes = bytes.max(self.plan.segment_bytes / 4);
        let value = (self.plan.segment_bytes / 4).min(VALUE_BYTES_MAX);
        let mut seen = BTreeSet::new();
        for seat in 0..self.seats.len() {
            let client = &mut self.seats[seat].client;
            if client.is_operator() {
                continue;
            }
            let Some(shard) = client.shard().filter(|shard| seen.insert(*shard)) else { continue };
            for number in 0..=bytes / value {
                let mut draft = Draft::default();
                let bytes = vec![round as u8 ^ 0xa5; value as usize];
                let named = draft.name(format!("round {round}, {number} of {shard}"));
                let put = draft.put(keys::keyspace(0), b"round".to_vec(), bytes);
                let none = (SessionId::NONE, Sequence(0), Sequence(0));
                let mut body = Vec::new();
                let whole = draft.encode(none.0, none.1, none.2, &mut body);
                named.and(put).and(whole).expect("it is within the limits");
                client.errand(shard, Asked::Commit(body.into()));
            }
            self.wake(seat);
        }
    }

    /// What some replica has on its disk and needs no more, in a sentence.
    fn what_is_held_for_nobody(&mut self) -> Option<String> {
        let shards: Vec<ShardId> = self.wanted_shards();
        for shard in shards.into_iter().filter(|shard| *shard != ShardId::DIRECTORY) {
            let model = self.shards.get(&shard)?.model().ok()?;
            let (old_below, live) = (self.old_below(shard), live(&model));
            for slot in 0..self.members.len() {
                // Damage that nobody could mend keeps its segment.
                let is_there = self.look(slot, shard).is_some();
                if !is_there || self.scars.contains(&(slot, shard)) {
                    continue;
                }
                let held = self.held(slot, shard, old_below, &model, &live);
                self.tally.mark("logs measured on disk");
                if held.files.iter().any(|(base, _)| *base < old_below) {
                    self.tally.mark("logs measured that had old segments");
                }
                if let Err(what) = limits::check(&held) {
                    return Some(format!("slot {slot} shard {shard}: {what}"));
                }
            }
        }
        None
    }

    fn held(
        &self,
        slot: usize,
        shard: ShardId,
        old_below: Offset,
        model: &Model,
        live: &[Range<Offset>],
    ) -> Held {
        let layout = Layout::new(self.plan.segment_bytes).expect("plans draw legal lengths");
        let files = self.members[slot].disks[&shard].allocated().into_iter();
        let files = files.filter_map(|(name, bytes)| Some((layout.base_in_name(&name)?, bytes)));
        let end = self.shards[&shard].chronicle.end();
        let process = self.members[slot].process.as_ref();
        let log = process.and_then(|process| process.readers.get(&shard)).map(|it| it.log.clone());
        let mut smallest: BTreeMap<Offset, u64> = BTreeMap::new();
        for record in model.streams.values().flat_map(|stream| stream.records.values()) {
            let bytes = (record.value.len() as u64).max(1);
            let known = smallest.entry(record.commit).or_insert(bytes);
            *known = bytes.min(*known);
        }
        let mut frames = Vec::new();
        let mut at = Offset::FIRST;
        while let Some(log) = log.as_ref().filter(|_| at < old_below) {
            match log.frames(at, old_below, 1 << 20) {
                Ok(chunk) if chunk.next() > at => {
                    frames.extend(chunk.frames().map(|frame| {
                        let (from, to) = (frame.header.offset, frame.header.end());
                        (from..to, smallest.get(&from).copied())
                    }));
                    at = chunk.next();
                }
                Err(ReadError::Trimmed { next: Some(next) }) if next > at => at = next,
                _ => break,
            }
        }
        let segment_bytes = self.plan.segment_bytes;
        Held { segment_bytes, end, old_below, files: files.collect(), live: live.to_vec(), frames }
    }

    /// Below this, segments are needed for nothing but the records that live in them.
    fn old_below(&self, shard: ShardId) -> Offset {
        let known = &self.shards[&shard];
        let end = known.chronicle.end().0;
        let window = self.plan.machine.with_history(known.options());
        let (lag_bytes, lag_ms) = FLOOR_LAGS;
        let by_bytes = end.saturating_sub(window.history_bytes.max(HISTORY_BYTES_MIN) + lag_bytes);
        let last = known.chronicle.last().map_or(LogTime(0), |last| last.header.time);
        let before = last.0.saturating_sub(window.history_ms.max(HISTORY_MS_MIN) + lag_ms);
        let mut times = known.chronicle.from(Offset::ZERO).map(|entry| entry.header.time.0);
        let past = times.by_ref().take_while(|time| *time <= before).last().unwrap_or(0);
        // What was written at about one time is let go at once.
        let mut group = known.chronicle.from(Offset::ZERO);
        let first = group.find(|entry| entry.header.time.0 + lag_ms >= past);
        let by_time = first.map_or(0, |entry| entry.header.offset.0);
        let step = self.plan.segment_bytes;
        // The views tell of steps of an eighth of a segment.
        let persisted = end.saturating_sub(self.plan.machine.replay_bytes_max + step / 8);
        // The log's start lies strictly below what is needed.
        Offset(by_bytes.max(by_time).min(persisted).saturating_sub(step))
    }
}

/// The bytes of the records that live, ascending.
fn live(model: &Model) -> Vec<Range<Offset>> {
    let mut live = Vec::new();
    for stream in model.streams.values() {
        let floor = stream.floor.last().map_or(Offset::ZERO, |(_, floor)| *floor);
        live.extend(stream.range(floor, Offset::MAX).map(|(id, record)| {
            let bytes = (record.value.len() as u64).max(1);
            id..id.plus(bytes)
        }));
    }
    live.sort_unstable_by_key(|range: &Range<Offset>| range.start);
    live
}
