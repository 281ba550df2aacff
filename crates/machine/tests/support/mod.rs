//! What tests share: a shard's log in memory, and a machine that folds it, crashes and comes back.
#![allow(dead_code)]

pub mod life;
pub mod plain;

use naust_machine::{Applied, Change, Machine, MachineOptions, MemTables, Tables, TablesJob};
use naust_wire::commit::Draft;
use naust_wire::control::Control;
use naust_wire::frame::{Frame, Header, Kind};
use naust_wire::message::Refusal;
use naust_wire::reply::{RangeDeleted, Refused};
use naust_wire::{Index, LogTime, Numbers, Offset, Sequence, SessionId, ShardId, Term};

/// A frame of the log.
#[derive(Clone)]
pub struct Logged {
    pub header: Header,
    pub body: Vec<u8>,
}

impl Logged {
    pub fn frame(&self) -> Frame<'_> {
        Frame { header: self.header, crc: 0, body: &self.body }
    }
}

/// What a frame was answered, owned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Nothing,
    Committed { offset: Offset, ids: Vec<Offset>, ranges: Vec<RangeDeleted>, duplicate: bool },
    Refused(Refused),
    Failed(Refusal),
    Session(SessionId),
    Done(Offset),
    Directory(Offset, Change),
}

impl From<Applied<'_>> for Outcome {
    fn from(applied: Applied<'_>) -> Outcome {
        match applied {
            Applied::Nothing => Outcome::Nothing,
            Applied::Committed { offset, ids, ranges, duplicate, .. } => {
                Outcome::Committed { offset, ids: ids.to_vec(), ranges: ranges.to_vec(), duplicate }
            }
            Applied::Refused(refused) => Outcome::Refused(refused),
            Applied::Failed(refusal) => Outcome::Failed(refusal),
            Applied::Session(session) => Outcome::Session(session),
            Applied::Done(offset) => Outcome::Done(offset),
            Applied::Directory(offset, change) => Outcome::Directory(offset, change),
        }
    }
}

/// The log of a shard.
#[derive(Clone)]
pub struct Log {
    pub frames: Vec<Logged>,
    /// Frames below are gone.
    pub first: Offset,
    pub next: Offset,
    pub time: LogTime,
}

impl Default for Log {
    fn default() -> Log {
        Log { frames: Vec::new(), first: Offset::FIRST, next: Offset::FIRST, time: LogTime(1000) }
    }
}

impl Log {
    /// Appends a frame.
    pub fn push(&mut self, kind: Kind, body: Vec<u8>) -> Logged {
        let header = Header {
            kind,
            body_bytes: body.len() as u32,
            crc_before: 0,
            term: Term(1),
            index: Index(self.frames.len() as u64 + 1),
            offset: self.next,
            time: self.time,
            synced: Offset::ZERO,
        };
        self.next = header.end();
        self.frames.push(Logged { header, body });
        self.frames[self.frames.len() - 1].clone()
    }

    pub fn commit(&mut self, draft: &Draft<'_>, session: SessionId, at: (u64, u64)) -> Logged {
        let mut body = Vec::new();
        draft.encode(session, Sequence(at.0), Sequence(at.1), &mut body).unwrap();
        self.push(Kind::Commit, body)
    }

    pub fn control(&mut self, control: &Control) -> Logged {
        self.control_of(control, &Numbers::NONE)
    }

    pub fn control_of(&mut self, control: &Control, numbers: &Numbers) -> Logged {
        let mut body = Vec::new();
        control.encode_numbered(numbers, &mut body);
        self.push(Kind::Control, body)
    }

    /// What is left when all is gone that no table needs.
    pub fn trimmed(&self, persisted: Offset) -> Log {
        let mut log = self.clone();
        log.frames.retain(|frame| frame.header.offset >= persisted);
        log.first = persisted;
        log
    }

    /// The first frame at or after an offset.
    pub fn from(&self, offset: Offset) -> &[Logged] {
        let at = self.frames.partition_point(|frame| frame.header.offset < offset);
        &self.frames[at..]
    }
}

/// The nonce with which a session that is opened at `at` gets the id `id`.
pub fn nonce_for(id: SessionId, at: Offset) -> u64 {
    // The finalizer of splitmix64 backwards: each multiplication by the inverse of its factor.
    let mut x = id.0 ^ at.0;
    x = (x ^ (x >> 31) ^ (x >> 62)).wrapping_mul(0x3196_42b2_d24d_8ec3);
    x = (x ^ (x >> 27) ^ (x >> 54)).wrapping_mul(0x96de_1b17_3f11_9089);
    let nonce = x ^ (x >> 30) ^ (x >> 60);
    assert_eq!(SessionId::opened(at, nonce), id);
    nonce
}

/// Small memtables, so that little is enough to rotate them.
pub fn options() -> MachineOptions {
    MachineOptions { memtable_bytes: 8 << 10, replay_bytes_max: 1 << 20, ..Default::default() }
}

pub fn open(tables: MemTables, shard: ShardId, log: &Log) -> Machine<MemTables> {
    open_with(tables, shard, log, options())
}

/// Opens a machine and gives it all that it asks for, and all that it has not folded in.
pub fn open_with<T: Tables>(
    tables: T,
    shard: ShardId,
    log: &Log,
    options: MachineOptions,
) -> Machine<T> {
    let (mut machine, resume) = Machine::open(shard, tables).unwrap();
    machine.set_options(options);
    assert!(resume.replay_from <= resume.applied.next);
    assert!(log.first <= resume.replay_from, "what is to be replayed was said to be needed");
    let resumed = log.from(resume.replay_from);
    for frame in resumed.iter().take_while(|frame| frame.header.offset < resume.applied.next) {
        machine.replay(&frame.frame()).unwrap();
    }
    for frame in log.from(resume.applied.next) {
        machine.apply(&frame.frame()).unwrap();
    }
    machine
}

/// Runs up to so many background jobs.
pub fn work<T: Tables>(machine: &mut Machine<T>, jobs: usize) {
    for _ in 0..jobs {
        let Some(job) = machine.maintain().unwrap() else { return };
        machine.done(job.run()).unwrap();
    }
}

/// The tables as a crash would leave them.
pub fn crash(machine: &Machine<MemTables>) -> MemTables {
    machine.tables().crash()
}

/// The marks of all trees, for messages.
pub fn marks<T: Tables>(machine: &Machine<T>) -> String {
    let tables = machine.tables();
    let marks = tables.trees().into_iter().map(|tree| (tree.0, tables.mark(tree).applied.0));
    format!("{:?}", marks.collect::<Vec<_>>())
}
