//! The plainest machine: lists that are searched from end to end. It shares nothing with the real
//! one but the reading of commits and control entries.

use super::{Logged, Outcome};
use naust_machine::{Change, Member, Placed};
use naust_wire::commit::{Commit, Condition, Op, position_in};
use naust_wire::control::{Control, Floored};
use naust_wire::frame::Kind;
use naust_wire::limits::{
    RANGE_DELETE_KEYS_MAX, RECENT_WRITES_LOG_BYTES, REPLICAS_DEFAULT, SESSION_TTL_MS_DEFAULT,
    SESSION_WINDOW_MAX,
};
use naust_wire::message::{Message, Refusal};
use naust_wire::options::{Compaction, KeyspaceOptions, NamespaceOptions, StreamOptions};
use naust_wire::reply::{RangeDeleted, Refused};
use naust_wire::{Code, LogTime, NodeId, Numbers, Offset, SessionId, ShardId};
use std::collections::BTreeMap;

/// The versions of a key, oldest first.
type Versions = Vec<(Offset, Option<Vec<u8>>)>;

#[derive(Clone, Default)]
pub struct Space {
    pub options: KeyspaceOptions,
    pub floor: Offset,
    pub rows: BTreeMap<Vec<u8>, Versions>,
}

impl Space {
    pub fn get(&self, key: &[u8], at: Offset) -> Option<(Offset, Vec<u8>)> {
        let newest = self.rows.get(key)?.iter().rev().find(|(offset, _)| *offset <= at)?;
        let value = newest.1.clone()?;
        (newest.0 >= self.floor).then_some((newest.0, value))
    }

    pub fn all(&self, at: Offset) -> Vec<(Vec<u8>, Offset, Vec<u8>)> {
        let rows = self.rows.keys();
        rows.filter_map(|key| self.get(key, at).map(|(offset, v)| (key.clone(), offset, v)))
            .collect()
    }
}

#[derive(Clone, Default)]
pub struct Stream {
    pub options: StreamOptions,
    pub floor: Offset,
    /// Offset, length and time of each.
    pub records: Vec<(Offset, usize, LogTime)>,
    pub cursors: BTreeMap<String, Offset>,
}

impl Stream {
    pub fn living(&self) -> impl Iterator<Item = &(Offset, usize, LogTime)> {
        self.records.iter().filter(|(offset, ..)| *offset >= self.floor)
    }
}

#[derive(Clone)]
struct Session {
    ttl_ms: u64,
    last: LogTime,
    acked_below: u64,
    answers: BTreeMap<u64, Outcome>,
}

/// A write, for `unchanged`: commit, keyspace, and the range that was written.
type Write = (Offset, String, Vec<u8>, Option<Vec<u8>>);

#[derive(Clone, Default)]
pub struct Plain {
    pub spaces: BTreeMap<String, Space>,
    pub streams: BTreeMap<String, Stream>,
    sessions: BTreeMap<SessionId, Session>,
    writes: Vec<Write>,
    pub namespaces: BTreeMap<String, Placed>,
    pub nodes: BTreeMap<NodeId, Member>,
    shards: u32,
    pub applied: Offset,
}

impl Plain {
    pub fn apply(&mut self, frame: &Logged) -> Outcome {
        self.applied = frame.header.offset;
        match frame.header.kind {
            Kind::Commit => self.commit(frame),
            Kind::Control => self.control(frame),
            _ => Outcome::Nothing,
        }
    }

    fn commit(&mut self, frame: &Logged) -> Outcome {
        let message = Message::new(&frame.body).unwrap();
        let commit = Commit::read(&message).unwrap();
        let numbers = Numbers {
            session: commit.session(),
            sequence: commit.sequence(),
            acked_below: commit.acked_below(),
        };
        let outcome = self.once(&numbers, frame, |plain| plain.evaluate(&commit, frame));
        match outcome {
            // A control entry had this number.
            Outcome::Done(offset) | Outcome::Directory(offset, _) => {
                let (ids, ranges) = (Vec::new(), Vec::new());
                Outcome::Committed { offset, ids, ranges, duplicate: true }
            }
            outcome => outcome,
        }
    }

    fn control(&mut self, frame: &Logged) -> Outcome {
        let (numbers, control) = Control::decode_numbered(&frame.body).unwrap();
        let outcome = self.once(&numbers, frame, |plain| plain.carry_out(frame, control));
        let before = |at: Offset| at != frame.header.offset;
        match outcome {
            Outcome::Committed { offset, .. } => Outcome::Done(offset),
            Outcome::Directory(offset, change) if before(offset) => match change {
                // Still under way?
                Change::Closing { name, shard, at } => {
                    match self.namespaces.get(&name).filter(|placed| placed.shard == shard) {
                        Some(_) => {
                            let now = frame.header.offset;
                            Outcome::Directory(now, Change::Closing { name, shard, at })
                        }
                        None => Outcome::Done(offset),
                    }
                }
                _ => Outcome::Done(offset),
            },
            outcome => outcome,
        }
    }

    fn once(
        &mut self,
        numbers: &Numbers,
        frame: &Logged,
        carry_out: impl FnOnce(&mut Plain) -> Outcome,
    ) -> Outcome {
        let (id, sequence) = (numbers.session, numbers.sequence.0);
        if id == SessionId::NONE {
            return carry_out(self);
        }
        let time = frame.header.time;
        let Some(session) = self.sessions.get_mut(&id) else { return failed(Code::SessionExpired) };
        if time.0 - session.last.0 > session.ttl_ms {
            self.sessions.remove(&id);
            return failed(Code::SessionExpired);
        }
        session.last = time;
        session.acked_below = session.acked_below.max(numbers.acked_below.0);
        let acked_below = session.acked_below;
        session.answers.retain(|sequence, _| *sequence >= acked_below);
        if sequence < acked_below || sequence >= acked_below + SESSION_WINDOW_MAX as u64 {
            return failed(Code::SequenceOutOfWindow);
        }
        if let Some(answer) = session.answers.get(&sequence) {
            let mut again = answer.clone();
            if let Outcome::Committed { duplicate, .. } = &mut again {
                *duplicate = true;
            }
            return again;
        }
        let outcome = carry_out(self);
        let session = self.sessions.get_mut(&id).unwrap();
        session.answers.insert(sequence, outcome.clone());
        outcome
    }

    fn evaluate(&mut self, commit: &Commit<'_>, frame: &Logged) -> Outcome {
        let at = frame.header.offset;
        for (number, condition) in commit.conditions().enumerate() {
            let refused = |found| Outcome::Refused(Refused { condition: number as u16, at, found });
            match condition.unwrap() {
                Condition::Version { space, key, offset } => {
                    let found = self.version(commit.name(space).unwrap(), key);
                    if found != offset {
                        return refused(found);
                    }
                }
                Condition::Absent { space, key } => {
                    let found = self.version(commit.name(space).unwrap(), key);
                    if found != Offset::ZERO {
                        return refused(found);
                    }
                }
                Condition::Unchanged { space, from, to, since } => {
                    let window = at.0 - RECENT_WRITES_LOG_BYTES;
                    if window > Offset::FIRST.0 && since.0 < window {
                        return failed(Code::OffsetTrimmed);
                    }
                    if since >= at {
                        return failed(Code::BadArgument);
                    }
                    let space = commit.name(space).unwrap();
                    let touching = self.writes.iter().rev().find(|(offset, of, first, end)| {
                        *offset > since
                            && of == space
                            && to.is_none_or(|to| &first[..] < to)
                            && end.as_ref().is_none_or(|end| &end[..] > from)
                    });
                    if let Some((found, ..)) = touching {
                        return refused(*found);
                    }
                }
            }
        }
        // Only a cursor's move can fail now.
        let fails = commit.ops().any(|op| matches!(op, Ok(Op::Advance { .. })));
        if !fails {
            return self.ops(commit, frame).expect("nothing in it can fail");
        }
        let mut after = self.clone_small();
        match after.ops(commit, frame) {
            Ok(outcome) => {
                self.take(after);
                outcome
            }
            Err(code) => failed(code),
        }
    }

    /// Ops are tried on a copy: one that fails leaves nothing behind.
    fn clone_small(&mut self) -> Plain {
        Plain {
            spaces: self.spaces.clone(),
            streams: self.streams.clone(),
            applied: self.applied,
            ..Plain::default()
        }
    }

    fn take(&mut self, after: Plain) {
        self.spaces = after.spaces;
        self.streams = after.streams;
        self.writes.extend(after.writes);
    }

    fn ops(&mut self, commit: &Commit<'_>, frame: &Logged) -> Result<Outcome, Code> {
        let at = frame.header.offset;
        let (mut ids, mut ranges) = (Vec::new(), Vec::new());
        for op in commit.ops() {
            match op.unwrap() {
                Op::Put { space, key, value } => {
                    let name = commit.name(space).unwrap();
                    self.spaces.entry(name.into()).or_default();
                    self.put(name, key, Some(value.to_vec()));
                }
                Op::Delete { space, key } => {
                    let name = commit.name(space).unwrap();
                    if self.spaces.contains_key(name) {
                        self.put(name, key, None);
                    }
                }
                Op::DeleteRange { space, from, to } => {
                    ranges.push(self.delete_range(commit.name(space).unwrap(), from, to));
                }
                Op::Append { space, value } => {
                    let stream =
                        self.streams.entry(commit.name(space).unwrap().into()).or_default();
                    let id = at.plus(56 + position_in(&frame.body, value) as u64);
                    stream.records.push((id, value.len(), frame.header.time));
                    ids.push(id);
                }
                Op::Advance { space, cursor, offset } => {
                    let stream = self.streams.get_mut(commit.name(space).unwrap());
                    let stream = stream.ok_or(Code::StreamNotFound)?;
                    if offset > frame.header.end() {
                        return Err(Code::BadArgument);
                    }
                    stream.cursors.insert(commit.name(cursor).unwrap().into(), offset);
                }
            }
        }
        Ok(Outcome::Committed { offset: at, ids, ranges, duplicate: false })
    }

    fn version(&self, space: &str, key: &[u8]) -> Offset {
        let row = self.spaces.get(space).and_then(|space| space.get(key, Offset::MAX));
        row.map_or(Offset::ZERO, |(offset, _)| offset)
    }

    fn put(&mut self, space: &str, key: &[u8], value: Option<Vec<u8>>) {
        let at = self.applied;
        let after = [key, &[0]].concat();
        self.writes.push((at, space.into(), key.to_vec(), Some(after)));
        let versions = self.spaces.get_mut(space).unwrap().rows.entry(key.to_vec()).or_default();
        versions.retain(|(offset, _)| *offset != at);
        versions.push((at, value));
    }

    fn delete_range(&mut self, name: &str, from: &[u8], to: Option<&[u8]>) -> RangeDeleted {
        let Some(space) = self.spaces.get(name) else { return RangeDeleted::default() };
        let living = space.all(Offset::MAX).into_iter().map(|(key, ..)| key);
        let mut living: Vec<_> =
            living.filter(|key| &key[..] >= from && to.is_none_or(|to| &key[..] < to)).collect();
        let next = living.get(RANGE_DELETE_KEYS_MAX).cloned();
        living.truncate(RANGE_DELETE_KEYS_MAX);
        let writes = self.writes.len();
        for key in &living {
            self.put(name, key, None);
        }
        self.writes.truncate(writes);
        if let Some(first) = living.first() {
            let end = next.clone().or(to.map(<[u8]>::to_vec));
            self.writes.push((self.applied, name.into(), first.clone(), end));
        }
        RangeDeleted { deleted: living.len() as u32, next }
    }

    fn carry_out(&mut self, frame: &Logged, control: Control) -> Outcome {
        let (at, time) = (frame.header.offset, frame.header.time);
        match control {
            Control::OpenSession { ttl_ms, nonce } => {
                let id = SessionId::opened(at, nonce);
                let lives = |session: &Session| time.0 - session.last.0 <= session.ttl_ms;
                if self.sessions.get(&id).is_some_and(lives) {
                    return failed(Code::BadArgument);
                }
                let ttl_ms = if ttl_ms == 0 { SESSION_TTL_MS_DEFAULT } else { ttl_ms };
                let answers = BTreeMap::new();
                let session = Session { ttl_ms, last: time, acked_below: 1, answers };
                self.sessions.insert(id, session);
                Outcome::Session(id)
            }
            Control::CloseSession(id) => match self.sessions.remove(&id) {
                Some(session) if time.0 - session.last.0 <= session.ttl_ms => Outcome::Done(at),
                _ => failed(Code::SessionExpired),
            },
            Control::SetKeyspace { name, options } => {
                let known = self.spaces.get(&name).map(|space| space.options);
                let fifo = |options: KeyspaceOptions| options.compaction == Compaction::Fifo;
                if known.is_some_and(|known| fifo(known) != fifo(options)) {
                    return failed(Code::OptionsConflict);
                }
                self.spaces.entry(name).or_default().options = options;
                Outcome::Done(at)
            }
            Control::SetStream { name, options } => {
                self.streams.entry(name).or_default().options = options;
                Outcome::Done(at)
            }
            Control::Floors(floors) => {
                for floor in floors {
                    let offset = floor.offset.min(at);
                    match floor.of {
                        Floored::Stream(name) => {
                            if let Some(stream) = self.streams.get_mut(&name) {
                                stream.floor = stream.floor.max(offset);
                            }
                        }
                        Floored::Keyspace(name) => self.floor_space(&name, offset),
                    }
                }
                Outcome::Done(at)
            }
            Control::CreateNamespace { name, options } => self.create(at, name, options),
            Control::DeleteNamespace(name) => match self.namespaces.remove(&name) {
                Some(Placed { shard, .. }) => {
                    Outcome::Directory(at, Change::Deleted { name, shard })
                }
                None => failed(Code::NamespaceNotFound),
            },
            Control::CloseNamespace(name) => match self.namespaces.get_mut(&name) {
                Some(placed) => {
                    placed.closing.get_or_insert(at);
                    let shard = placed.shard;
                    Outcome::Directory(at, Change::Closing { name, shard, at })
                }
                None => failed(Code::NamespaceNotFound),
            },
            Control::ForgetNamespace(shard) => {
                let closed = |placed: &Placed| placed.shard == shard && placed.closing.is_some();
                match self.namespaces.iter().find(|(_, placed)| closed(placed)) {
                    Some((name, _)) => {
                        let name = name.clone();
                        self.namespaces.remove(&name);
                        Outcome::Directory(at, Change::Deleted { name, shard })
                    }
                    None => Outcome::Done(at),
                }
            }
            // The life is that of shard 0, which has no end.
            Control::Close => failed(Code::BadArgument),
            Control::SetNode { node, name, address } => {
                let is_taken = |(id, there): (&NodeId, &Member)| *id != node && there.name == name;
                if self.nodes.iter().any(is_taken) {
                    return failed(Code::BadArgument);
                }
                let member = Member { name, address };
                self.nodes.insert(node, member.clone());
                Outcome::Directory(at, Change::NodeSet { node, member })
            }
            Control::RemoveNode(node) => match self.nodes.len() {
                0 | 1 => failed(Code::BadArgument),
                _ if self.nodes.remove(&node).is_none() => failed(Code::BadArgument),
                _ => Outcome::Directory(at, Change::NodeRemoved(node)),
            },
            Control::NoteDigests => Outcome::Done(at),
        }
    }

    fn floor_space(&mut self, name: &str, floor: Offset) {
        let Some(space) = self.spaces.get_mut(name) else { return };
        if space.options.compaction == Compaction::Fifo && floor > space.floor {
            space.floor = floor;
            self.writes.push((self.applied, name.into(), Vec::new(), None));
        }
    }

    fn create(&mut self, at: Offset, name: String, options: NamespaceOptions) -> Outcome {
        if self.namespaces.contains_key(&name) || name == "default" {
            return failed(Code::NamespaceExists);
        }
        self.shards += 1;
        // Few nodes come and go in these lives, so that all of them hold every namespace.
        let replicas: Vec<NodeId> = self.nodes.keys().copied().collect();
        assert!(replicas.len() <= REPLICAS_DEFAULT, "the model knows no choice");
        let shard = ShardId(1 + self.shards);
        let placed = Placed { shard, options, replicas, closing: None };
        self.namespaces.insert(name.clone(), placed.clone());
        Outcome::Directory(at, Change::Created { name, placed })
    }
}

/// Sentences for people are not compared.
fn failed(code: Code) -> Outcome {
    Outcome::Failed(Refusal::new(code, ""))
}
