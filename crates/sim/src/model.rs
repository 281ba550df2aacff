//! A second opinion: what the frames of one shard mean, folded as plainly as possible.
//!
//! It shares no code with `machine`. It keeps every version for ever, so that any answer, of any
//! moment, can be judged at any later time. What it says of a frame is the [`Verdict`] that every
//! replica must come to.

pub mod sessions;
pub mod space;
pub mod timeline;

use crate::chronicle::Entry;
use naust_wire::commit::{Commit, Condition, Op, position_in};
use naust_wire::control::{Control, Floored};
use naust_wire::frame::Kind;
use naust_wire::limits::{FRAME_HEADER_BYTES, RANGE_DELETE_KEYS_MAX, RECENT_WRITES_LOG_BYTES};
use naust_wire::message::{Message, Refusal};
use naust_wire::options::{
    Compaction, Durability, KeyspaceOptions, NamespaceOptions, StreamOptions,
};
use naust_wire::reply::{Committed, RangeDeleted, Refused};
use naust_wire::{Code, NodeId, Offset, SessionId, ShardId};
use sessions::{Admission, Sessions};
use space::{Keyspace, Record, Stream};
use std::collections::{BTreeMap, BTreeSet};
use timeline::Timeline;

/// The namespace that always exists, and its shard.
const DEFAULT: &str = "default";
const SHARD_OF_DEFAULT: ShardId = ShardId(1);

/// What a frame came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It has no meaning of its own.
    Nothing,
    /// The commit happened.
    Applied(Committed),
    /// A condition failed.
    Refused(Refused),
    /// It could not be done.
    Failed(Code),
    /// It had been done before, by the frame at this offset, and came to this.
    Duplicate(Box<Verdict>),
    /// A control entry took effect.
    Done,
    /// A session was opened.
    Session(SessionId),
}

/// The views of one shard, at every offset.
#[derive(Clone, Debug, Default)]
pub struct Model {
    /// By name.
    pub keyspaces: BTreeMap<String, Keyspace>,
    /// By name.
    pub streams: BTreeMap<String, Stream>,
    /// What each frame came to.
    pub verdicts: BTreeMap<Offset, Verdict>,
    /// Namespaces by name: shard and options. Shard 0 only.
    pub namespaces: BTreeMap<String, (ShardId, NamespaceOptions)>,
    /// The options of every shard that ever was a namespace. Shard 0 only.
    pub shards: BTreeMap<ShardId, NamespaceOptions>,
    /// Shards of those that are to be removed, once they are closed. Shard 0 only.
    pub closing: BTreeSet<ShardId>,
    /// Shards of those that were removed whether they were closed or not. Shard 0 only.
    pub forced: BTreeSet<ShardId>,
    /// Nodes and their names. Shard 0 only.
    pub nodes: BTreeMap<NodeId, String>,
    /// The entry that closed the shard: nothing is done behind it.
    pub closed: Option<Offset>,
    sessions: Sessions,
    next: Offset,
}

impl Model {
    /// Where the next frame to be folded begins at the earliest.
    #[must_use]
    pub fn next(&self) -> Offset {
        self.next
    }

    /// Folds the next frame.
    ///
    /// # Errors
    /// A sentence: the frame should never have been committed.
    pub fn fold(&mut self, entry: &Entry) -> Result<(), String> {
        let header = &entry.header;
        assert!(header.offset >= self.next, "frames are folded once and in order");
        self.next = header.end();
        let wrong = |refusal: Refusal| {
            format!("the frame at {} should not have been admitted: {refusal}", header.offset)
        };
        let verdict = match header.kind {
            Kind::Empty | Kind::Configure | Kind::Padding => Verdict::Nothing,
            Kind::Commit => self.commit(entry).map_err(wrong)?,
            Kind::Control => self.control(entry).map_err(wrong)?,
        };
        self.verdicts.insert(header.offset, verdict);
        Ok(())
    }

    fn commit(&mut self, entry: &Entry) -> Result<Verdict, Refusal> {
        let message = Message::new(&entry.body)?;
        let commit = Commit::read(&message)?;
        commit.check()?;
        let time = entry.header.time;
        let numbers = (commit.session(), commit.sequence(), commit.acked_below());
        match self.sessions.admit(numbers, entry.header.offset, time) {
            Admission::Refused(code) => return Ok(Verdict::Failed(code)),
            Admission::Known(verdict) => return Ok(Verdict::Duplicate(Box::new(verdict))),
            Admission::New => {}
        }
        let verdict = match self.guard(&commit, entry)? {
            _ if self.closed.is_some() => Verdict::Failed(Code::NamespaceNotFound),
            Some(verdict) => verdict,
            None => match self.impossible(&commit, entry)? {
                Some(code) => Verdict::Failed(code),
                None => self.apply(&commit, entry)?,
            },
        };
        self.sessions.remember(numbers, &verdict);
        Ok(verdict)
    }

    /// The verdict of the first condition that fails.
    fn guard(&self, commit: &Commit<'_>, entry: &Entry) -> Result<Option<Verdict>, Refusal> {
        let at = entry.header.offset;
        for (number, condition) in commit.conditions().enumerate() {
            let condition_number = number as u16;
            let (holds, found) = match condition? {
                Condition::Version { space, key, offset } => {
                    let found = self.version(commit.name(space)?, key);
                    (found == offset, found)
                }
                Condition::Absent { space, key } => {
                    let found = self.version(commit.name(space)?, key);
                    (found == Offset::ZERO, found)
                }
                Condition::Unchanged { since, .. } if since >= at => {
                    return Ok(Some(Verdict::Failed(Code::BadArgument)));
                }
                Condition::Unchanged { since, .. } if since < recent_floor(at) => {
                    return Ok(Some(Verdict::Failed(Code::OffsetTrimmed)));
                }
                Condition::Unchanged { space, from, to, since } => {
                    let keyspace = self.keyspaces.get(commit.name(space)?);
                    let newest =
                        keyspace.and_then(|keyspace| keyspace.newest_write(from, to, since));
                    (newest.is_none(), newest.unwrap_or(Offset::ZERO))
                }
            };
            if !holds {
                let refused = Refused { condition: condition_number, at, found };
                return Ok(Some(Verdict::Refused(refused)));
            }
        }
        Ok(None)
    }

    /// The version of a row after everything that was folded; zero: there is none.
    fn version(&self, keyspace: &str, key: &[u8]) -> Offset {
        let Some(keyspace) = self.keyspaces.get(keyspace) else { return Offset::ZERO };
        let floor = keyspace.floor.last().map_or(Offset::ZERO, |(_, floor)| *floor);
        keyspace.get(key, Offset::MAX, floor).map_or(Offset::ZERO, |(version, _)| version)
    }

    /// Why none of the ops may happen: one of them moves a cursor of no stream, or to where no log
    /// is.
    fn impossible(&self, commit: &Commit<'_>, entry: &Entry) -> Result<Option<Code>, Refusal> {
        let mut made = BTreeSet::new();
        for op in commit.ops() {
            match op? {
                Op::Append { space, .. } => {
                    made.insert(space);
                }
                Op::Advance { space, offset, .. } => {
                    let stream = commit.name(space)?;
                    if !made.contains(&space) && !self.streams.contains_key(stream) {
                        return Ok(Some(Code::StreamNotFound));
                    }
                    if offset > entry.header.end() {
                        return Ok(Some(Code::BadArgument));
                    }
                }
                _ => {}
            }
        }
        Ok(None)
    }

    fn apply(&mut self, commit: &Commit<'_>, entry: &Entry) -> Result<Verdict, Refusal> {
        let at = entry.header.offset;
        let mut committed = Committed { offset: at, ..Committed::default() };
        for op in commit.ops() {
            match op? {
                Op::Put { space, key, value } => {
                    self.keyspace(commit.name(space)?, at).write(key, at, Some(value));
                }
                Op::Delete { space, key } => {
                    if let Some(keyspace) = self.keyspaces.get_mut(commit.name(space)?) {
                        keyspace.write(key, at, None);
                    }
                }
                Op::DeleteRange { space, from, to } => {
                    committed.ranges.push(self.delete_range(commit.name(space)?, from, to, at));
                }
                Op::Append { space, value } => {
                    let body_at = at.plus(FRAME_HEADER_BYTES as u64);
                    let id = body_at.plus(position_in(&entry.body, value) as u64);
                    let record = Record { commit: at, value: value.to_vec() };
                    self.stream(commit.name(space)?, at).records.insert(id.0, record);
                    committed.ids.push(id);
                }
                Op::Advance { space, cursor, offset } => {
                    let stream = self.stream(commit.name(space)?, at);
                    let cursor = commit.name(cursor)?.to_owned();
                    stream.cursors.entry(cursor).or_default().set(at, offset);
                }
            }
        }
        Ok(Verdict::Applied(committed))
    }

    fn keyspace(&mut self, name: &str, at: Offset) -> &mut Keyspace {
        let keyspace = self.keyspaces.entry(name.to_owned()).or_default();
        if keyspace.options.last().is_none() {
            keyspace.options.set(at, KeyspaceOptions::default());
        }
        keyspace
    }

    fn stream(&mut self, name: &str, at: Offset) -> &mut Stream {
        let stream = self.streams.entry(name.to_owned()).or_default();
        if stream.options.last().is_none() {
            stream.options.set(at, StreamOptions::default());
        }
        stream
    }

    fn delete_range(
        &mut self,
        name: &str,
        from: &[u8],
        to: Option<&[u8]>,
        at: Offset,
    ) -> RangeDeleted {
        let Some(keyspace) = self.keyspaces.get_mut(name) else { return RangeDeleted::default() };
        let floor = keyspace.floor.last().map_or(Offset::ZERO, |(_, floor)| *floor);
        let mut live = keyspace.range(from, to, Offset::MAX, floor).map(|(key, ..)| key.to_vec());
        let gone: Vec<Vec<u8>> = live.by_ref().take(RANGE_DELETE_KEYS_MAX).collect();
        let next = live.next();
        drop(live);
        keyspace.delete_range(&gone, next.as_deref().or(to), at);
        RangeDeleted { deleted: gone.len() as u32, next }
    }

    fn control(&mut self, entry: &Entry) -> Result<Verdict, Refusal> {
        let (numbers, control) = Control::decode_numbered(&entry.body)?;
        let numbers = (numbers.session, numbers.sequence, numbers.acked_below);
        match self.sessions.admit(numbers, entry.header.offset, entry.header.time) {
            Admission::Refused(code) => return Ok(Verdict::Failed(code)),
            Admission::Known(verdict) => return Ok(Verdict::Duplicate(Box::new(verdict))),
            Admission::New => {}
        }
        let verdict = self.carry_out(entry, control);
        self.sessions.remember(numbers, &verdict);
        Ok(verdict)
    }

    fn carry_out(&mut self, entry: &Entry, control: Control) -> Verdict {
        let at = entry.header.offset;
        let is_harmless = matches!(control, Control::CloseSession(_) | Control::NoteDigests);
        if self.closed.is_some() && !is_harmless {
            return Verdict::Failed(Code::NamespaceNotFound);
        }
        match control {
            Control::OpenSession { ttl_ms, nonce } => {
                let id = SessionId::opened(at, nonce);
                self.sessions.open(id, at, ttl_ms, entry.header.time);
                Verdict::Session(id)
            }
            Control::CloseSession(session) => match self.sessions.close(session, entry.header.time)
            {
                true => Verdict::Done,
                false => Verdict::Failed(Code::SessionExpired),
            },
            Control::SetKeyspace { name, options } => {
                let keyspace = self.keyspaces.entry(name).or_default();
                let fifo = |options: &KeyspaceOptions| options.compaction == Compaction::Fifo;
                if keyspace.options.last().is_some_and(|(_, old)| fifo(old) != fifo(&options)) {
                    return Verdict::Failed(Code::OptionsConflict);
                }
                keyspace.options.set(at, options);
                Verdict::Done
            }
            Control::SetStream { name, options } => {
                self.streams.entry(name).or_default().options.set(at, options);
                Verdict::Done
            }
            Control::Floors(floors) => {
                for floor in floors {
                    self.floor(floor.of, floor.offset, at);
                }
                Verdict::Done
            }
            Control::CreateNamespace { name, options } => {
                if name == DEFAULT || self.namespaces.contains_key(&name) {
                    return Verdict::Failed(Code::NamespaceExists);
                }
                if options.durability != Durability::Quorum && self.nodes.len() > 1 {
                    return Verdict::Failed(Code::OptionsConflict);
                }
                let shard = ShardId(self.shards.len() as u32 + SHARD_OF_DEFAULT.0 + 1);
                self.namespaces.insert(name, (shard, options));
                self.shards.insert(shard, options);
                Verdict::Done
            }
            Control::DeleteNamespace(name) => match self.namespaces.remove(&name) {
                Some((shard, _)) => {
                    self.forced.insert(shard);
                    Verdict::Done
                }
                None if name == DEFAULT => Verdict::Failed(Code::BadArgument),
                None => Verdict::Failed(Code::NamespaceNotFound),
            },
            Control::CloseNamespace(name) => match self.namespaces.get(&name) {
                Some((shard, _)) => {
                    self.closing.insert(*shard);
                    Verdict::Done
                }
                None if name == DEFAULT => Verdict::Failed(Code::BadArgument),
                None => Verdict::Failed(Code::NamespaceNotFound),
            },
            Control::ForgetNamespace(shard) => {
                if self.closing.contains(&shard) {
                    self.namespaces.retain(|_, (other, _)| *other != shard);
                }
                Verdict::Done
            }
            Control::Close => {
                self.closed = Some(at);
                Verdict::Done
            }
            Control::SetNode { node, name, .. } => {
                if self.nodes.iter().any(|(other, there)| *other != node && *there == name) {
                    return Verdict::Failed(Code::BadArgument);
                }
                self.nodes.insert(node, name);
                Verdict::Done
            }
            Control::RemoveNode(node) => match self.nodes.len() {
                0 | 1 => Verdict::Failed(Code::BadArgument),
                _ if self.nodes.remove(&node).is_none() => Verdict::Failed(Code::BadArgument),
                _ => Verdict::Done,
            },
            Control::NoteDigests => Verdict::Done,
        }
    }

    fn floor(&mut self, of: Floored, floor: Offset, at: Offset) {
        let floor = floor.min(at);
        match of {
            Floored::Stream(name) => {
                if let Some(stream) = self.streams.get_mut(&name) {
                    raise(&mut stream.floor, floor, at);
                }
            }
            Floored::Keyspace(name) => {
                if let Some(keyspace) = self.keyspaces.get_mut(&name)
                    && keyspace.is_fifo()
                    && raise(&mut keyspace.floor, floor, at)
                {
                    keyspace.note_floor(at);
                }
            }
        }
    }
}

/// How far back the condition *unchanged* can look at a commit: to the beginning as long as that is
/// in the window.
fn recent_floor(at: Offset) -> Offset {
    let floor = Offset(at.0.saturating_sub(RECENT_WRITES_LOG_BYTES));
    if floor <= Offset::FIRST { Offset::ZERO } else { floor }
}

/// Moves a floor up; says whether it moved.
fn raise(timeline: &mut Timeline<Offset>, floor: Offset, at: Offset) -> bool {
    let moves = timeline.last().map_or(Offset::ZERO, |(_, known)| *known) < floor;
    if moves {
        timeline.set(at, floor);
    }
    moves
}
