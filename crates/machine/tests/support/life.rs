//! A life: random frames folded by a machine, every answer and every read compared with the plain
//! model's; crashes at any moment, at any combination of marks that a crash can leave, then replay.

use super::plain::Plain;
use super::{Log, Logged, Outcome, marks, nonce_for, open_with, options, work};
use naust_machine::contract::Fixture;
use naust_machine::rows::Key;
use naust_machine::{
    KeyRange, Machine, MachineOptions, Page, ReadError, Reader, Tables, TablesReader, TreeId,
};
use naust_wire::commit::Draft;
use naust_wire::control::{Control, Floor, Floored};
use naust_wire::frame::Kind;
use naust_wire::options::{Compaction, KeyspaceOptions, NamespaceOptions, StreamOptions};
use naust_wire::reply::ViewDigest;
use naust_wire::{Code, NodeId, Numbers, Offset, Sequence, SessionId, ShardId};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::{ControlFlow, Range};

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
    /// What was sent, to be sent again.
    sent: Vec<(Kind, Vec<u8>)>,
}

struct Life<F: Fixture> {
    random: Random,
    log: Log,
    fixture: F,
    /// Always there but for the moment between two lives.
    machine: Option<Machine<F::T>>,
    model: Plain,
    clients: Vec<Client>,
    outcomes: Vec<Outcome>,
    /// The digests that were noted, and where.
    noted: BTreeMap<Offset, Vec<ViewDigest>>,
}

impl<F: Fixture> Life<F> {
    fn new(seed: u64, mut fixture: F) -> Life<F> {
        let log = Log::default();
        let machine = open_with(fixture.open(), ShardId(0), &log, options());
        Life {
            random: Random(seed),
            machine: Some(machine),
            fixture,
            log,
            model: Plain::default(),
            clients: Vec::new(),
            outcomes: Vec::new(),
            noted: BTreeMap::new(),
        }
    }

    fn machine(&mut self) -> &mut Machine<F::T> {
        self.machine.as_mut().expect("a machine lives")
    }

    fn known(&self) -> &Machine<F::T> {
        self.machine.as_ref().expect("a machine lives")
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
        match random.below(14) {
            // An id that came back, or that lives.
            0 if !self.clients.is_empty() => {
                let at = random.below(self.clients.len() as u64) as usize;
                let nonce = nonce_for(self.clients[at].id, self.log.next);
                Control::OpenSession { ttl_ms: max(random, 50_000), nonce }
            }
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
            7 => Control::DeleteNamespace(format!("n{}", random.below(8))),
            8 => Control::SetNode {
                node: NodeId(1 + random.below(3)),
                name: format!("n{}", random.below(3)),
                address: format!("a{}", random.below(3)),
            },
            9 => Control::RemoveNode(NodeId(1 + random.below(3))),
            10 => Control::CloseNamespace(format!("n{}", random.below(8))),
            11 => Control::ForgetNamespace(ShardId(2 + random.below(30) as u32)),
            12 => Control::Close,
            _ => Control::NoteDigests,
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
                if control.is_numbered() && !self.clients.is_empty() && self.random.one_in(2) {
                    self.of_client(Some(&control))
                } else {
                    self.log.control(&control)
                }
            }
            3 if self.random.one_in(4) => {
                let time = self.log.time;
                let floors = self.machine().floors_due(time).unwrap();
                self.log.control(&Control::Floors(floors))
            }
            4..20 if !self.clients.is_empty() => self.of_client(None),
            _ => {
                let draft = self.draft();
                self.log.commit(&draft, SessionId::NONE, (0, 0))
            }
        }
    }

    /// A control entry, or else a commit, of a session: a new one, or one that was sent before.
    fn of_client(&mut self, control: Option<&Control>) -> Logged {
        let at = self.random.below(self.clients.len() as u64) as usize;
        let draft = self.draft();
        let (random, client) = (&mut self.random, &mut self.clients[at]);
        if !client.sent.is_empty() && random.one_in(5) {
            let (kind, body) = random.pick(&client.sent).clone();
            return self.log.push(kind, body);
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
        let kind = match control {
            Some(control) => {
                let (session, sequence) = (client.id, Sequence(sequence));
                let numbers = Numbers { session, sequence, acked_below };
                control.encode_numbered(&numbers, &mut body);
                Kind::Control
            }
            None => {
                draft.encode(client.id, Sequence(sequence), acked_below, &mut body).unwrap();
                Kind::Commit
            }
        };
        client.sent.push((kind, body.clone()));
        if client.sent.len() > 10 {
            client.sent.remove(0);
        }
        self.log.push(kind, body)
    }

    fn step(&mut self) {
        let logged = self.frame();
        let expected = self.model.apply(&logged);
        let outcome = plain(self.machine().apply(&logged.frame()).unwrap().into());
        assert_eq!(outcome, expected, "the answer to the frame at {}", logged.header.offset);
        if let Outcome::Session(id) = outcome {
            let client = Client { id, next: 1, acked_below: 1, sent: Vec::new() };
            self.clients.push(client);
            if self.clients.len() > 4 {
                self.clients.remove(0);
            }
        }
        self.outcomes.push(outcome);
        self.note(logged.header.offset);
        if self.random.one_in(10) {
            self.read();
        }
        if self.random.one_in(60) {
            self.machine().flush();
        }
        if self.random.one_in(10) {
            let jobs = self.random.below(4) as usize;
            work(self.machine(), jobs);
        }
        if self.random.one_in(150) {
            self.crash();
        }
    }

    /// Reads here and there, now and in the past.
    fn read(&mut self) {
        let reader = self.known().reader();
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
        let row = row.unwrap().map(|(version, value)| (version, value.as_ref().to_vec()));
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
            assert!(self.known().locate(name, from, 1, 1).is_err());
            return;
        };
        let expected: Vec<_> = stream.living().filter(|(at, ..)| *at >= from).copied().collect();
        let (mut places, mut next) = (Vec::new(), from);
        let limit = 1 + self.random.below(300) as usize;
        loop {
            let located = self.known().locate(name, next, limit, 2000).unwrap();
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
            assert_eq!(self.known().cursor(name, cursor).unwrap(), expected);
        }
        self.index_rows(name);
        let needed = self.known().log_needed();
        let to = self.past();
        let streams = self.model.streams.values();
        let first = streams.clone().filter_map(|s| s.living().next()).map(|(at, ..)| *at).min();
        assert_eq!(needed.records_from, first);
        let live = self.known().live_in(from, to).unwrap();
        let places = streams.flat_map(|s| s.living()).filter(|(at, ..)| *at >= from && *at < to);
        let mut places: Vec<Range<Offset>> =
            places.map(|(at, bytes, _)| *at..at.plus((*bytes).max(1) as u64)).collect();
        places.sort_unstable_by_key(|place| place.start);
        // Those that touch each other are one range.
        let mut expected: Vec<Range<Offset>> = Vec::new();
        for place in places {
            match expected.last_mut() {
                Some(last) if last.end >= place.start => last.end = last.end.max(place.end),
                _ => expected.push(place),
            }
        }
        assert_eq!(live, expected, "records between {from} and {to}");
    }

    /// Every row of a stream's index has a record that lives: what is below a floor goes.
    fn index_rows(&self, name: &str) {
        let stream = self.known().stream_id(name).unwrap();
        let (from, to) = (Key::Chunk(stream, Offset::ZERO), Key::Chunk(stream, Offset::MAX));
        let (from, to) = (from.bytes(), to.bytes());
        let range = KeyRange { from: &from, to: Some(&to) };
        let mut firsts = Vec::new();
        let reader = self.known().tables().reader();
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

    /// Remembers what was noted at a frame, if anything was.
    fn note(&mut self, at: Offset) {
        if let Ok(views) = self.known().noted_digests(at) {
            self.noted.insert(at, views);
        }
    }

    /// What is kept for replays goes when none can ask for it any more.
    fn leave_nothing_behind(mut self) {
        for _ in 0..2 {
            self.machine().flush();
            work(self.machine(), usize::MAX);
            let logged = self.log.push(Kind::Empty, Vec::new());
            self.machine().apply(&logged.frame()).unwrap();
        }
        let all = KeyRange { from: &[], to: None };
        let visit = &mut |key: &[u8], _, _: &[u8]| {
            let key = Key::read(key).unwrap();
            assert!(!matches!(key, Key::Skipped(_) | Key::RangeEnd(..)), "{key:?} is left");
            ControlFlow::Continue(())
        };
        let reader = self.known().tables().reader();
        reader.scan(TreeId::SHARD, all, false, Offset::MAX, visit).unwrap();
    }

    /// The power goes: what is on disk, and the log, bring everything back.
    fn crash(&mut self) {
        if self.random.one_in(2) {
            // A rotation that left small trees out, and then one of all, at the same frame.
            let (some, more) = (self.random.below(3) as usize, self.random.below(9) as usize);
            work(self.machine(), some);
            self.machine().flush();
            work(self.machine(), more);
        }
        let before = self.known().digest().unwrap();
        let persisted = self.known().persisted();
        let at = marks(self.known());
        let log = self.log.trimmed(persisted);
        let options = MachineOptions {
            memtable_bytes: 1000 << self.random.below(6),
            replay_bytes_max: 1 << (16 + self.random.below(6)),
            history_ms: 1000 << self.random.below(6),
            history_bytes: 1 << (20 + self.random.below(4)),
        };
        self.machine = None;
        let tables = self.fixture.open();
        self.machine = Some(open_with(tables, ShardId(0), &log, options));
        assert_eq!(self.known().digest().unwrap(), before, "after a crash with marks {at}");
    }
}

/// All rows of a range, page by page.
fn pages<R: TablesReader>(
    reader: &Reader<R>,
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

fn live<F: Fixture>(seed: u64, steps: usize, fixture: &mut impl FnMut() -> F) {
    let mut life = Life::new(seed, fixture());
    for _ in 0..steps {
        life.step();
    }
    let noting = life.log.control(&Control::NoteDigests);
    let at = noting.header.offset;
    let outcome = plain(life.machine().apply(&noting.frame()).unwrap().into());
    life.outcomes.push(outcome);
    life.note(at);
    let (digest, noted) = (life.known().digest().unwrap(), std::mem::take(&mut life.noted));
    assert!(noted.contains_key(&at));
    let (frames, outcomes) = (life.log.frames.clone(), life.outcomes.clone());
    life.leave_nothing_behind();
    // The same frames, folded by a machine that rotates at other moments, or never: the same
    // answers, the same state.
    let (mut other, small) = (fixture(), MachineOptions { memtable_bytes: 20_000, ..options() });
    let mut other = open_with(other.open(), ShardId(0), &Log::default(), small);
    for (frame, expected) in frames.iter().zip(&outcomes) {
        let outcome = plain(other.apply(&frame.frame()).unwrap().into());
        assert_eq!(outcome, *expected);
        if let Some(expected) = noted.get(&frame.header.offset) {
            // At any moment, after whatever crashes, not only at the end.
            let views = other.noted_digests(frame.header.offset).unwrap();
            assert_eq!(views, *expected, "two machines that rotate differently");
        }
        if seed.is_multiple_of(2) && frame.header.offset.0.is_multiple_of(7) {
            work(&mut other, 3);
        }
    }
    assert_eq!(other.digest().unwrap(), digest, "two machines that rotate differently");
}

/// Lives of these seeds, so many frames each; `fixture` makes fresh tables. A life that fails names
/// its seed.
pub fn lives<F: Fixture>(seeds: Range<u64>, steps: usize, mut fixture: impl FnMut() -> F) {
    for seed in seeds {
        let one = std::panic::AssertUnwindSafe(|| live(seed, steps, &mut fixture));
        if let Err(panic) = std::panic::catch_unwind(one) {
            eprintln!("the life of seed {seed} failed");
            std::panic::resume_unwind(panic);
        }
    }
}
