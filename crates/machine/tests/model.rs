//! A model test: random lives of a shard, every answer and every read compared with a plain
//! model's; crashes at any moment, at any combination of marks that a crash can leave, followed by
//! replay.
//!
//! A life that fails names its seed; `seed` of the first test runs it alone.

#![allow(clippy::unwrap_used)]

mod plain;
mod support;

use naust_machine::rows::Key;
use naust_machine::{
    KeyRange, Machine, MachineOptions, MemTables, Page, ReadError, Tables, TablesReader, TreeId,
};
use naust_wire::commit::Draft;
use naust_wire::control::{Control, Floor, Floored};
use naust_wire::frame::Kind;
use naust_wire::options::{Compaction, KeyspaceOptions, NamespaceOptions, StreamOptions};
use naust_wire::{Code, LogTime, Offset, Sequence, SessionId, ShardId};
use plain::Plain;
use std::borrow::Cow;
use std::ops::ControlFlow;
use support::{Log, Logged, Outcome, crash, marks, open, open_with, options, work};

/// SplitMix64 (Steele, Lea and Flood).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn one_in(&mut self, chance: u64) -> bool {
        self.below(chance) == 0
    }

    fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len() as u64) as usize]
    }
}

const KEYSPACES: [&str; 4] = ["accounts", "users", "events", "unmade"];
const STREAMS: [&str; 3] = ["ledger", "orders", "unmade"];

struct Client {
    id: SessionId,
    next: u64,
    acked_below: u64,
    /// Commits that were sent, to be sent again.
    sent: Vec<(u64, Vec<u8>)>,
}

struct Life {
    random: Random,
    log: Log,
    machine: Machine<MemTables>,
    model: Plain,
    clients: Vec<Client>,
    outcomes: Vec<Outcome>,
}

impl Life {
    fn new(seed: u64) -> Life {
        let log = Log::default();
        Life {
            random: Random(seed),
            machine: open(MemTables::new(), ShardId(0), &log),
            log,
            model: Plain::default(),
            clients: Vec::new(),
            outcomes: Vec::new(),
        }
    }

    fn key(&mut self) -> Vec<u8> {
        let length = 1 + self.random.below(2);
        (0..length).map(|_| b'a' + self.random.below(6) as u8).collect()
    }

    fn range(&mut self) -> (Vec<u8>, Option<Vec<u8>>) {
        let (a, b) = (self.key(), self.key());
        match self.random.below(4) {
            0 => (Vec::new(), Some(a)),
            1 => (a, None),
            _ => (a.clone().min(b.clone()), Some(a.max(b))),
        }
    }

    /// An offset of the past, mostly a recent one.
    fn past(&mut self) -> Offset {
        let frames = self.log.frames.len() as u64;
        if frames == 0 {
            return Offset::FIRST;
        }
        let reach = if self.random.one_in(4) { frames } else { frames.min(20) };
        let back = 1 + self.random.below(reach);
        self.log.frames[(frames - back) as usize].header.offset
    }

    fn draft(&mut self) -> Draft<'static> {
        let mut draft = Draft::default();
        for _ in 0..self.random.below(3) {
            self.condition(&mut draft);
        }
        let ops = if self.random.one_in(8) { self.random.below(12) } else { 1 };
        for _ in 0..ops.max(u64::from(draft.conditions.is_empty())) {
            self.op(&mut draft);
        }
        draft
    }

    fn condition(&mut self, draft: &mut Draft<'static>) {
        let space = *self.random.pick(&KEYSPACES);
        let key = self.key();
        match self.random.below(3) {
            0 => {
                let known = self.model.spaces.get(space);
                let row = known.and_then(|space| space.get(&key, Offset::MAX));
                let version = row.map_or(Offset::ZERO, |(version, _)| version);
                let version = if self.random.one_in(5) { self.past() } else { version };
                draft.version(space, key, version).unwrap();
            }
            1 => draft.absent(space, key).unwrap(),
            _ => {
                let (from, to) = self.range();
                let mut since = self.past();
                if self.random.one_in(30) {
                    since = Offset(since.0 + self.random.below(1000));
                }
                draft.unchanged(space, from, to.map(Cow::Owned), since).unwrap();
            }
        }
    }

    fn op(&mut self, draft: &mut Draft<'static>) {
        let space = *self.random.pick(&KEYSPACES[..3]);
        let stream = *self.random.pick(&STREAMS[..2]);
        let any_space = *self.random.pick(&KEYSPACES);
        let value = vec![self.random.next() as u8; self.random.below(40) as usize];
        let key = self.key();
        match self.random.below(16) {
            0..6 => draft.put(space, key, value).unwrap(),
            6..9 => draft.delete(any_space, key).unwrap(),
            9 => {
                let (from, to) = self.range();
                draft.delete_range(any_space, from, to.map(Cow::Owned)).unwrap();
            }
            10..15 => draft.append(stream, value).unwrap(),
            _ => {
                let stream = *self.random.pick(&STREAMS);
                let cursor = *self.random.pick(&["billing", "mail"]);
                let mut offset = self.past();
                if self.random.one_in(20) {
                    offset = Offset(offset.0 + self.random.below(100_000));
                }
                draft.advance(stream, cursor, offset).unwrap();
            }
        }
    }

    fn control(&mut self) -> Control {
        let max = |random: &mut Random, bound| random.below(2) * (1 + random.below(bound));
        let random = &mut self.random;
        match random.below(8) {
            0 | 1 => Control::OpenSession { ttl_ms: max(random, 50_000), nonce: random.next() },
            2 if !self.clients.is_empty() => {
                let at = random.below(self.clients.len() as u64) as usize;
                Control::CloseSession(self.clients[at].id)
            }
            3 => {
                let name = random.pick(&KEYSPACES[..3]).to_string();
                let fifo = (name == "events") != random.one_in(10);
                let options = match fifo {
                    true => KeyspaceOptions {
                        compaction: Compaction::Fifo,
                        max_bytes: max(random, 4000),
                        max_age_ms: max(random, 20_000),
                        ..KeyspaceOptions::default()
                    },
                    false => KeyspaceOptions::default(),
                };
                Control::SetKeyspace { name, options }
            }
            4 => {
                let name = random.pick(&STREAMS[..2]).to_string();
                let options = StreamOptions {
                    max_age_ms: max(random, 100_000),
                    max_bytes: max(random, 20_000),
                    max_records: max(random, 900),
                };
                Control::SetStream { name, options }
            }
            5 => {
                let of = match random.one_in(2) {
                    true => Floored::Stream(random.pick(&STREAMS).to_string()),
                    false => Floored::Keyspace(random.pick(&KEYSPACES).to_string()),
                };
                let offset = self.past();
                Control::Floors(vec![Floor { of, offset }])
            }
            6 => {
                let name = format!("n{}", random.below(8));
                let options =
                    NamespaceOptions { history_ms: random.below(9), ..Default::default() };
                Control::CreateNamespace { name, options }
            }
            _ => Control::DeleteNamespace(format!("n{}", random.below(8))),
        }
    }

    /// One frame into the log.
    fn frame(&mut self) -> Logged {
        self.log.time.0 += self.random.below(4) * self.random.below(30);
        if self.random.one_in(500) {
            self.log.time.0 += self.random.below(60_000);
        }
        if self.random.one_in(200) {
            // A segment ended, or a body was large: offsets jump, time does not.
            self.log.next = self.log.next.plus(self.random.below(1 << 19) * 8);
        }
        match self.random.below(40) {
            0 => self.log.push(Kind::Empty, Vec::new()),
            1 => self.log.push(Kind::Configure, vec![self.random.next() as u8]),
            2 => {
                let control = self.control();
                self.log.control(&control)
            }
            3 if self.random.one_in(4) => {
                let floors = self.machine.floors_due(self.log.time).unwrap();
                self.log.control(&Control::Floors(floors))
            }
            4..20 if !self.clients.is_empty() => self.commit_of_client(),
            _ => {
                let draft = self.draft();
                self.log.commit(&draft, SessionId::NONE, (0, 0))
            }
        }
    }

    fn commit_of_client(&mut self) -> Logged {
        let at = self.random.below(self.clients.len() as u64) as usize;
        let draft = self.draft();
        let (random, client) = (&mut self.random, &mut self.clients[at]);
        if !client.sent.is_empty() && random.one_in(5) {
            let (_, body) = random.pick(&client.sent).clone();
            return self.log.push(Kind::Commit, body);
        }
        let mut sequence = client.next;
        match random.below(30) {
            0 => sequence += random.below(2000),
            1 => sequence = random.below(sequence + 1).max(1),
            _ => client.next += 1 + random.below(2),
        }
        if random.one_in(10) {
            let acked = client.next.saturating_sub(random.below(8));
            client.acked_below = client.acked_below.max(acked);
        }
        let mut body = Vec::new();
        let acked_below = Sequence(client.acked_below);
        draft.encode(client.id, Sequence(sequence), acked_below, &mut body).unwrap();
        client.sent.push((sequence, body.clone()));
        if client.sent.len() > 10 {
            client.sent.remove(0);
        }
        self.log.push(Kind::Commit, body)
    }

    fn step(&mut self) {
        let logged = self.frame();
        let expected = self.model.apply(&logged);
        let outcome = plain(self.machine.apply(&logged.frame()).unwrap().into());
        assert_eq!(outcome, expected, "the answer to the frame at {}", logged.header.offset);
        if let Outcome::Session(id) = outcome {
            let client = Client { id, next: 1, acked_below: 1, sent: Vec::new() };
            self.clients.push(client);
            if self.clients.len() > 4 {
                self.clients.remove(0);
            }
        }
        self.outcomes.push(outcome);
        if self.random.one_in(10) {
            self.read();
        }
        if self.random.one_in(60) {
            self.machine.flush();
        }
        if self.random.one_in(10) {
            let jobs = self.random.below(4) as usize;
            work(&mut self.machine, jobs);
        }
        if self.random.one_in(150) {
            self.crash();
        }
    }

    /// Reads here and there, now and in the past.
    fn read(&mut self) {
        let reader = self.machine.reader();
        assert_eq!(reader.applied(), self.model.applied);
        let at = if self.random.one_in(2) { self.past() } else { reader.applied() };
        let name = *self.random.pick(&KEYSPACES);
        let (key, (from, to)) = (self.key(), self.range());
        let row = reader.get(name, &key, at);
        let space = self.model.spaces.get(name).cloned().unwrap_or_default();
        if at < reader.floor() {
            let trimmed = matches!(&row, Err(ReadError::Refused(refusal))
                if refusal.code == Code::OffsetTrimmed);
            assert!(trimmed, "a read below the floor");
            return;
        }
        let row = row.unwrap().map(|(version, value)| (version, value.to_vec()));
        assert_eq!(row, space.get(&key, at), "{name} {key:?} at {at}");
        let mut expected = space.all(at);
        expected.retain(|(key, ..)| *key >= from && to.as_ref().is_none_or(|to| key < to));
        let limit = 1 + self.random.below(9) as usize;
        let max_bytes = 1 + self.random.below(200) as usize;
        for reverse in [false, true] {
            let page = Page { reverse, limit, max_bytes };
            let mut rows = pages(&reader, name, (from.clone(), to.clone()), page, at);
            if reverse {
                rows.reverse();
            }
            assert_eq!(rows, expected, "{name} {from:?}..{to:?} at {at}");
        }
        self.read_streams();
    }

    fn read_streams(&mut self) {
        let name = *self.random.pick(&STREAMS);
        let from = self.past();
        let Some(stream) = self.model.streams.get(name) else {
            assert!(self.machine.locate(name, from, 1, 1).is_err());
            return;
        };
        let expected: Vec<_> = stream.living().filter(|(at, ..)| *at >= from).copied().collect();
        let (mut places, mut next) = (Vec::new(), from);
        let limit = 1 + self.random.below(300) as usize;
        loop {
            let located = self.machine.locate(name, next, limit, 2000).unwrap();
            assert!(located.next > next || located.places.is_empty());
            next = located.next;
            if located.places.is_empty() {
                assert_eq!(next, located.end.max(from));
                break;
            }
            let found = located.places.iter();
            places.extend(found.map(|place| (place.offset, place.length as usize, place.time)));
        }
        assert_eq!(places, expected, "{name} from {from}");
        for cursor in ["billing", "mail"] {
            let expected = stream.cursors.get(cursor).copied();
            assert_eq!(self.machine.cursor(name, cursor).unwrap(), expected);
        }
        self.index_rows(name);
        let needed = self.machine.log_needed();
        let to = self.past();
        let streams = self.model.streams.values();
        let first = streams.clone().filter_map(|s| s.living().next()).map(|(at, ..)| *at).min();
        assert_eq!(needed.records_from, first);
        let live = self.machine.live_in(from, to).unwrap();
        let count = streams.flat_map(|s| s.living()).filter(|(at, ..)| *at >= from && *at < to);
        assert_eq!(live.len(), count.count(), "records between {from} and {to}");
    }

    /// Every row of a stream's index has a record that lives: what is below a floor goes.
    fn index_rows(&self, name: &str) {
        let stream = self.machine.stream_id(name).unwrap();
        let (from, to) = (Key::Chunk(stream, Offset::ZERO), Key::Chunk(stream, Offset::MAX));
        let (from, to) = (from.bytes(), to.bytes());
        let range = KeyRange { from: &from, to: Some(&to) };
        let mut firsts = Vec::new();
        let reader = self.machine.tables().reader();
        let visit = &mut |key: &[u8], _, _: &[u8]| {
            let Ok(Key::Chunk(_, first)) = Key::read(key) else { panic!("no chunk's key") };
            firsts.push(first);
            ControlFlow::Continue(())
        };
        reader.scan(TreeId::SHARD, range, false, Offset::MAX, visit).unwrap();
        let living = self.model.streams[name].living().next().map(|(at, ..)| *at);
        let begun = firsts.iter().filter(|first| living.is_none_or(|living| **first <= living));
        assert!(begun.count() <= usize::from(living.is_some()), "{name}: {firsts:?} {living:?}");
    }

    /// What is kept for replays goes when none can ask for it any more.
    fn leave_nothing_behind(mut self) {
        for _ in 0..2 {
            self.machine.flush();
            work(&mut self.machine, usize::MAX);
            let logged = self.log.push(Kind::Empty, Vec::new());
            self.machine.apply(&logged.frame()).unwrap();
        }
        let all = KeyRange { from: &[], to: None };
        let visit = &mut |key: &[u8], _, _: &[u8]| {
            let key = Key::read(key).unwrap();
            assert!(!matches!(key, Key::Skipped(_) | Key::RangeEnd(..)), "{key:?} is left");
            ControlFlow::Continue(())
        };
        let reader = self.machine.tables().reader();
        reader.scan(TreeId::SHARD, all, false, Offset::MAX, visit).unwrap();
    }

    /// The power goes: what is on disk, and the log, bring everything back.
    fn crash(&mut self) {
        if self.random.one_in(2) {
            // A rotation that left small trees out, and then one of all, at the same frame.
            let (some, more) = (self.random.below(3) as usize, self.random.below(9) as usize);
            work(&mut self.machine, some);
            self.machine.flush();
            work(&mut self.machine, more);
        }
        let before = self.machine.digest().unwrap();
        let persisted = self.machine.persisted();
        let at = marks(&self.machine);
        let log = self.log.trimmed(persisted);
        let options = MachineOptions {
            memtable_bytes: 1000 << self.random.below(6),
            replay_bytes_max: 1 << (16 + self.random.below(6)),
            history_ms: 1000 << self.random.below(6),
            history_bytes: 1 << (20 + self.random.below(4)),
        };
        self.machine = open_with(crash(&self.machine), ShardId(0), &log, options);
        assert_eq!(self.machine.digest().unwrap(), before, "after a crash with marks {at}");
    }
}

/// All rows of a range, page by page.
fn pages(
    reader: &naust_machine::Reader<naust_machine::MemReader>,
    name: &str,
    (mut from, mut to): (Vec<u8>, Option<Vec<u8>>),
    page: Page,
    at: Offset,
) -> Vec<(Vec<u8>, Offset, Vec<u8>)> {
    let mut rows = Vec::new();
    loop {
        let range = KeyRange { from: &from, to: to.as_deref() };
        let next = reader.scan(name, range, page, at, |key, version, value| {
            rows.push((key.to_vec(), version, value.to_vec()));
        });
        match next.unwrap() {
            None => return rows,
            Some(next) if page.reverse => to = Some(next),
            Some(next) => from = next,
        }
    }
}

/// Sentences for people are not compared.
fn plain(outcome: Outcome) -> Outcome {
    match outcome {
        Outcome::Failed(mut refusal) => {
            refusal.detail.clear();
            Outcome::Failed(refusal)
        }
        other => other,
    }
}

fn live(seed: u64, steps: usize) {
    let mut life = Life::new(seed);
    for _ in 0..steps {
        life.step();
    }
    let digest = life.machine.digest().unwrap();
    let (frames, outcomes) = (life.log.frames.clone(), life.outcomes.clone());
    life.leave_nothing_behind();
    // The same frames, folded by a machine that rotates at other moments, or never: the same
    // answers, the same state.
    let mut other = open(MemTables::new(), ShardId(0), &Log::default());
    other.set_options(MachineOptions { memtable_bytes: 20_000, ..options() });
    for (frame, expected) in frames.iter().zip(&outcomes) {
        let outcome = plain(other.apply(&frame.frame()).unwrap().into());
        assert_eq!(outcome, *expected);
        if seed.is_multiple_of(2) && frame.header.offset.0.is_multiple_of(7) {
            work(&mut other, 3);
        }
    }
    assert_eq!(other.digest().unwrap(), digest, "two machines that rotate differently");
}

fn lives(seeds: std::ops::Range<u64>, steps: usize) {
    for seed in seeds {
        let life = std::panic::catch_unwind(|| live(seed, steps));
        if let Err(panic) = life {
            eprintln!("the life of seed {seed} failed");
            std::panic::resume_unwind(panic);
        }
    }
}

#[test]
fn short_lives_agree_with_the_model() {
    lives(0..100, 500);
}

#[test]
fn long_lives_agree_with_the_model() {
    lives(1000..1010, 6000);
}

#[test]
fn time_does_not_go_back() {
    let mut log = Log::default();
    let mut machine = open(MemTables::new(), ShardId(1), &log);
    let (mut ahead, mut behind) = (Draft::default(), Draft::default());
    ahead.append("s", &b"1"[..]).unwrap();
    behind.append("s", &b"2"[..]).unwrap();
    for (time, draft) in [(5000, ahead), (10, behind)] {
        log.time = LogTime(time);
        let logged = log.commit(&draft, SessionId::NONE, (0, 0));
        machine.apply(&logged.frame()).unwrap();
    }
    let located = machine.locate("s", Offset::ZERO, 10, 10).unwrap();
    let times: Vec<u64> = located.places.iter().map(|place| place.time.0).collect();
    assert_eq!(times, [5000, 5000]);
}
