//! The machine against the second opinion, without a node around them: random frames, flushes tree
//! by tree, crashes between them, replay. Whatever the whole world finds later is easier to see
//! here.

#![allow(clippy::unwrap_used)]

use naust_machine::{Applied, Machine, MachineOptions, Page, TablesJob};
use naust_sim::chronicle::Chronicle;
use naust_sim::generator::Generator;
use naust_sim::model::{Model, Verdict};
use naust_sim::plan::{Plan, Work};
use naust_sim::tables::SimTables;
use naust_sim::workload::knowledge::Knowledge;
use naust_sim::workload::{commits, keys};
use naust_wire::control::{Control, Floor, Floored};
use naust_wire::frame::{self, Header, Kind};
use naust_wire::options::{Compaction, KeyspaceOptions, StreamOptions};
use naust_wire::reply::{Committed, Reply};
use naust_wire::{Index, LogTime, Offset, Sequence, SessionId, ShardId, Term};

const SHARD: ShardId = ShardId(7);

struct Life {
    chance: Generator,
    work: Work,
    known: Knowledge,
    log: Vec<u8>,
    /// Where each frame begins in `log`.
    frames: Vec<usize>,
    crc: u32,
    time: u64,
    session: SessionId,
    sequence: u64,
    chronicle: Chronicle,
    model: Model,
    tables: SimTables,
    options: MachineOptions,
    machine: Machine<SimTables>,
}

impl Life {
    fn begin(seed: u64) -> Life {
        let mut chance = Generator::new(seed);
        let mut work = Plan::draw(&mut chance, None).work;
        work.value_bytes = work.value_bytes.min(200);
        work.keys = work.keys.min(300);
        let tables = SimTables::default();
        let (mut machine, _) = Machine::open(SHARD, tables.clone()).unwrap();
        let options = MachineOptions {
            memtable_bytes: chance.skewed(1_000, 1 << 20),
            replay_bytes_max: chance.skewed(1_000, 1 << 20),
            history_ms: chance.skewed(1_000, 100_000),
            history_bytes: 1 << 20,
        };
        machine.set_options(options);
        Life {
            options,
            chance,
            work,
            known: Knowledge::default(),
            log: Vec::new(),
            frames: Vec::new(),
            crc: 0,
            time: 1_000,
            session: SessionId::NONE,
            sequence: 0,
            chronicle: Chronicle::new(1 << 40),
            model: Model::default(),
            tables,
            machine,
        }
    }

    fn step(&mut self) {
        match self.chance.below(100) {
            0..80 => self.commit(),
            80..88 => self.control(),
            88..96 => self.maintain(),
            96..98 => self.compare(),
            _ => self.crash(),
        }
    }

    fn frame(&mut self, kind: Kind, body: &[u8]) {
        self.time += self.chance.skewed(0, 200);
        let header = Header {
            kind,
            body_bytes: body.len() as u32,
            crc_before: self.crc,
            term: Term(1),
            index: Index(self.frames.len() as u64 + 1),
            offset: Offset::FIRST.plus(self.log.len() as u64),
            time: LogTime(self.time),
            synced: Offset(0),
        };
        let at = self.log.len();
        self.frames.push(at);
        self.crc = header.write(body, &mut self.log);
        self.chronicle.learn(header.offset, &self.log[at..]).unwrap();
        self.model.fold(self.chronicle.at(header.offset).unwrap()).unwrap();
        let frame = frame::read(&self.log[at..]).unwrap();
        let expected = &self.model.verdicts[&header.offset];
        let applied = self.machine.apply(&frame).unwrap();
        agree(&applied, expected, header.offset);
        if let Applied::Session(id) = applied {
            (self.session, self.sequence) = (id, 0);
        }
        if let Verdict::Applied(committed) = expected {
            self.known.learn(&Reply::Committed(committed.clone()));
        }
    }

    fn commit(&mut self) {
        let number = self.frames.len() as u64;
        let draft = commits::draw(&mut self.chance, &self.work, &self.known, number).unwrap();
        let mut body = Vec::new();
        let (session, sequence) = if self.session == SessionId::NONE || self.chance.coin() {
            (SessionId::NONE, 0)
        } else {
            let again = self.sequence > 0 && self.chance.below(4) == 0;
            self.sequence += u64::from(!again);
            (self.session, self.sequence)
        };
        let acked = self.sequence.saturating_sub(self.chance.below(5));
        draft.encode(session, Sequence(sequence), Sequence(acked), &mut body).unwrap();
        self.frame(Kind::Commit, &body);
    }

    fn control(&mut self) {
        let space = self.chance.below(self.work.spaces);
        let control = match self.chance.below(6) {
            0 => Control::OpenSession { ttl_ms: self.chance.skewed(1, 20_000), nonce: 1 },
            1 if self.session != SessionId::NONE => Control::CloseSession(self.session),
            2 => {
                let fifo = self.chance.coin();
                let compaction = if fifo { Compaction::Fifo } else { Compaction::Levelled };
                let options = KeyspaceOptions {
                    compaction,
                    max_bytes: if fifo { self.chance.skewed(0, 10_000) } else { 0 },
                    ..KeyspaceOptions::default()
                };
                Control::SetKeyspace { name: keys::keyspace(space), options }
            }
            3 => {
                let max_records = self.chance.skewed(0, 100);
                let options = StreamOptions { max_records, ..StreamOptions::default() };
                Control::SetStream { name: keys::stream(space), options }
            }
            _ => {
                let due = self.machine.floors_due(LogTime(self.time)).unwrap();
                let mut floors: Vec<Floor> = due.into_iter().collect();
                if self.chance.coin() || floors.is_empty() {
                    let of = Floored::Stream(keys::stream(space));
                    floors.push(Floor { of, offset: self.known.some_offset(&mut self.chance) });
                }
                Control::Floors(floors)
            }
        };
        let mut body = Vec::new();
        control.encode(&mut body);
        self.frame(Kind::Control, &body);
    }

    /// Some flushes and compactions, not always all that are due.
    fn maintain(&mut self) {
        if self.chance.coin() {
            self.machine.flush();
        }
        for _ in 0..self.chance.below(8) {
            let Some(job) = self.machine.maintain().unwrap() else { break };
            let done = job.run();
            if self.chance.below(10) == 0 {
                return self.crash();
            }
            self.machine.done(done).unwrap();
        }
    }

    fn crash(&mut self) {
        let before = self.machine.digest().unwrap();
        self.tables = self.tables.crash();
        let (machine, resume) = Machine::open(SHARD, self.tables.clone()).unwrap();
        self.machine = machine;
        self.machine.set_options(self.options);
        for at in self.frames.clone() {
            let frame = frame::read(&self.log[at..]).unwrap();
            let offset = frame.header.offset;
            if offset >= resume.applied.next {
                let applied = self.machine.apply(&frame).unwrap();
                agree(&applied, &self.model.verdicts[&offset], offset);
            } else if offset >= resume.replay_from {
                self.machine.replay(&frame).unwrap();
            }
        }
        assert_eq!(self.machine.digest().unwrap(), before, "a crash changed what is seen");
        self.compare();
    }

    fn compare(&mut self) {
        let reader = self.machine.reader();
        let floor = reader.floor();
        let latest = reader.applied();
        if latest < Offset::FIRST {
            return;
        }
        let past = self.known.some_offset(&mut self.chance);
        let edge = self.chronicle.from(floor).next().map_or(floor, |entry| entry.header.offset);
        for at in [latest, past, floor, edge] {
            if at < floor || at > latest {
                continue;
            }
            for (name, keyspace) in &self.model.keyspaces {
                let floor = keyspace.floor.last().map_or(Offset::ZERO, |(_, floor)| *floor);
                let rows = keyspace.range(&[], None, at, floor);
                let expected: Vec<_> =
                    rows.map(|(k, version, v)| (k.to_vec(), version, v.to_vec())).collect();
                let mut found = Vec::new();
                let range = naust_machine::KeyRange { from: &[], to: None };
                let page = Page { reverse: false, limit: 100_000, max_bytes: 1 << 30 };
                reader
                    .scan(name, range, page, at, |k, version, v| {
                        found.push((k.to_vec(), version, v.to_vec()));
                    })
                    .unwrap();
                assert_eq!(found, expected, "{name} at {at}");
            }
        }
        for (name, stream) in &self.model.streams {
            let floor = stream.floor.last().map_or(Offset::ZERO, |(_, floor)| *floor);
            let expected: Vec<_> = stream
                .range(floor, Offset::MAX)
                .map(|(id, record)| (id, record.value.len() as u32))
                .collect();
            let located = self.machine.locate(name, Offset::ZERO, 10_000, 1 << 30).unwrap();
            let found: Vec<_> =
                located.places.iter().map(|place| (place.offset, place.length)).collect();
            assert_eq!(found, expected, "{name}");
            for (cursor, timeline) in &stream.cursors {
                let expected = timeline.last().map(|(_, offset)| *offset);
                assert_eq!(self.machine.cursor(name, cursor).unwrap(), expected);
            }
        }
    }
}

fn agree(applied: &Applied<'_>, expected: &Verdict, at: Offset) {
    let committed = |offset, ids: &[Offset], ranges: &[_]| Committed {
        offset,
        ids: ids.to_vec(),
        ranges: ranges.to_vec(),
        ..Committed::default()
    };
    let same = match (applied, expected) {
        (Applied::Committed { offset, ids, ranges, duplicate: false, .. }, Verdict::Applied(e)) => {
            committed(*offset, ids, ranges) == *e
        }
        (
            Applied::Committed { offset, ids, ranges, duplicate: true, .. },
            Verdict::Duplicate(first),
        ) => **first == Verdict::Applied(committed(*offset, ids, ranges)),
        (Applied::Refused(refused), Verdict::Refused(expected)) => refused == expected,
        (Applied::Refused(refused), Verdict::Duplicate(first)) => {
            **first == Verdict::Refused(*refused)
        }
        (Applied::Failed(refusal), Verdict::Failed(code)) => refusal.code == *code,
        (Applied::Failed(refusal), Verdict::Duplicate(first)) => {
            **first == Verdict::Failed(refusal.code)
        }
        (Applied::Session(id), Verdict::Session(expected)) => id == expected,
        (Applied::Done(_), Verdict::Done) | (Applied::Nothing, Verdict::Nothing) => true,
        _ => false,
    };
    assert!(same, "at {at}: {applied:?} is not {expected:?}");
}

fn live(seed: u64, steps: u32) {
    let mut life = Life::begin(seed);
    for _ in 0..steps {
        life.step();
    }
    life.compare();
    life.crash();
    life.compare();
}

#[test]
fn the_machine_and_the_second_opinion_agree() {
    let seeds: u64 = std::env::var("VIEWS_SEEDS").map_or(40, |n| n.parse().unwrap());
    for seed in 0..seeds {
        if std::panic::catch_unwind(|| live(seed, 400)).is_err() {
            panic!("seed {seed}");
        }
    }
}
