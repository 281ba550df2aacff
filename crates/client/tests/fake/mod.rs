//! A server for tests: speaks wire over a link, keeps everything in memory, and misbehaves when
//! told to.
//!
//! It has one node. It is no model of Naust: conditions, sessions and pages are as simple as can
//! be.

use naust_client::{Client, Link, Options};
use naust_wire::ask::{Ask, Listing};
use naust_wire::commit::{Commit, Condition, Op};
use naust_wire::control::Control;
use naust_wire::message::Message;
use naust_wire::options::{KeyspaceOptions, NamespaceOptions, StreamOptions};
use naust_wire::packet::{self, Kind, Packet};
use naust_wire::read::{Level, Named, Query, Read};
use naust_wire::reply::{
    self, Committed, Entry, Failure, Namespace, Node, RangeDeleted, Record, Refused, Replica, Reply,
};
use naust_wire::{Code, NodeId, Numbers, Offset, Sequence, SessionId, ShardId};
use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};

/// What happens to a packet instead of the usual.
#[derive(Clone, Debug)]
pub enum Fault {
    /// Nothing: it is handled and answered.
    None,
    /// It is handled, but the reply is lost.
    LoseReply,
    /// It never arrives.
    LoseRequest,
    /// It is refused.
    Refuse(Failure),
}

/// A commit as it arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    pub session: SessionId,
    pub sequence: Sequence,
    pub acked_below: Sequence,
}

type Rows = BTreeMap<Vec<u8>, (Offset, Vec<u8>)>;

#[derive(Default)]
pub struct Shard {
    next: u64,
    keyspaces: BTreeMap<String, (KeyspaceOptions, Rows)>,
    streams: BTreeMap<String, (StreamOptions, Vec<Record>)>,
    cursors: BTreeMap<(String, String), Offset>,
    pub sessions: BTreeMap<SessionId, Session>,
    /// Control entries that were carried out.
    pub done: Vec<Control>,
}

/// The replies of a session from a sequence on.
#[derive(Default)]
pub struct Session {
    acked_below: u64,
    replies: BTreeMap<Sequence, Committed>,
    controls: BTreeMap<Sequence, Result<Reply, Failure>>,
}

/// Names in a page when the client names no limit.
const PAGE: usize = 2;

/// See the module.
pub struct Fake {
    pub namespaces: BTreeMap<String, ShardId>,
    pub shards: BTreeMap<ShardId, Shard>,
    /// What shard 0 remembers beside the namespaces.
    pub directory: Shard,
    /// For the next commits, in order.
    pub faults: VecDeque<Fault>,
    /// For the next packets of other kinds, `Hello` excepted.
    pub other_faults: VecDeque<Fault>,
    /// Commits that arrived, refused ones too.
    pub seen: Vec<Seen>,
    /// Packets that arrived, by kind.
    pub kinds: Vec<Kind>,
    /// Refuses the greeting.
    pub unwelcome: Option<Failure>,
}

impl Default for Fake {
    fn default() -> Fake {
        let mut fake = Fake {
            namespaces: BTreeMap::new(),
            shards: BTreeMap::new(),
            directory: Shard { next: Offset::FIRST.0, ..Shard::default() },
            faults: VecDeque::new(),
            other_faults: VecDeque::new(),
            seen: Vec::new(),
            kinds: Vec::new(),
            unwelcome: None,
        };
        fake.add_namespace("default");
        fake
    }
}

impl Fake {
    pub fn add_namespace(&mut self, name: &str) -> ShardId {
        let shard = ShardId(self.shards.len() as u32 + 1);
        self.namespaces.insert(name.to_owned(), shard);
        self.shards.insert(shard, Shard { next: Offset::FIRST.0, ..Shard::default() });
        shard
    }

    /// The only shard of most tests.
    pub fn shard(&mut self) -> &mut Shard {
        self.shards.get_mut(&ShardId(1)).unwrap()
    }

    /// The replies to a run of packets.
    pub fn handle(&mut self, mut bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        while let Some((packet, length)) = packet::read(bytes).unwrap() {
            let fault = self.fault(&packet);
            let reply = match &fault {
                Fault::LoseRequest => None,
                Fault::Refuse(failure) => {
                    self.note(&packet);
                    Some(Reply::Error(failure.clone()))
                }
                Fault::None | Fault::LoseReply => {
                    self.note(&packet);
                    Some(self.answer(&packet).unwrap_or_else(Reply::Error))
                }
            };
            if let (Some(reply), false) = (reply, matches!(fault, Fault::LoseReply)) {
                reply::write(packet.request, packet.shard, &reply, &mut out);
            }
            bytes = &bytes[length..];
        }
        assert!(bytes.is_empty(), "clients send whole packets");
        out
    }

    fn fault(&mut self, packet: &Packet<'_>) -> Fault {
        let hello =
            packet.kind == Kind::Ask && matches!(Ask::decode(packet.body), Ok(Ask::Hello { .. }));
        let faults = match packet.kind {
            _ if hello => return Fault::None,
            Kind::Commit => &mut self.faults,
            _ => &mut self.other_faults,
        };
        faults.pop_front().unwrap_or(Fault::None)
    }

    fn note(&mut self, packet: &Packet<'_>) {
        self.kinds.push(packet.kind);
        if packet.kind == Kind::Commit {
            let message = Message::new(packet.body).unwrap();
            let commit = Commit::read(&message).unwrap();
            commit.check().unwrap();
            self.seen.push(Seen {
                session: commit.session(),
                sequence: commit.sequence(),
                acked_below: commit.acked_below(),
            });
        }
    }

    fn answer(&mut self, packet: &Packet<'_>) -> Result<Reply, Failure> {
        match packet.kind {
            Kind::Ask => self.ask(Ask::decode(packet.body).unwrap()),
            Kind::Control if packet.shard == ShardId::DIRECTORY => {
                let (numbers, control) = Control::decode_numbered(packet.body).unwrap();
                if let Some(answer) = self.directory.again(&numbers)? {
                    return answer;
                }
                let answer = self.direct(control);
                self.directory.keep(&numbers, &answer);
                answer
            }
            _ => {
                let gone = || Failure::new(Code::NamespaceNotFound, "there is no such shard");
                let shard = self.shards.get_mut(&packet.shard).ok_or_else(gone)?;
                match packet.kind {
                    Kind::Commit => shard.commit(packet.body),
                    Kind::Control => {
                        let (numbers, control) = Control::decode_numbered(packet.body).unwrap();
                        if let Some(answer) = shard.again(&numbers)? {
                            return answer;
                        }
                        let answer = shard.control(control);
                        shard.keep(&numbers, &answer);
                        answer
                    }
                    _ => shard.read(Read::decode(packet.body).unwrap()),
                }
            }
        }
    }

    fn ask(&mut self, ask: Ask) -> Result<Reply, Failure> {
        Ok(match ask {
            Ask::Hello { .. } => match self.unwelcome.clone() {
                Some(failure) => return Err(failure),
                None => Reply::Hello { node: NodeId(7), version: "0".to_owned(), cluster: 1 },
            },
            Ask::Resolve(name) => {
                let shard = *self.namespaces.get(&name).ok_or_else(|| {
                    Failure::new(Code::NamespaceNotFound, format!("no namespace {name:?}"))
                })?;
                Reply::Resolved { shard, leader: NodeId(7) }
            }
            Ask::Transfer { .. } => return Err(Failure::new(Code::BadArgument, "one node")),
            Ask::Namespaces(listing) => {
                let (namespaces, next) = self.list(&listing);
                Reply::Namespaces { namespaces, next }
            }
            Ask::Cluster(listing) => {
                let (namespaces, next) = self.list(&listing);
                let node = Node {
                    id: NodeId(7),
                    name: "fake".to_owned(),
                    address: "127.0.0.1:7420".to_owned(),
                    up: true,
                };
                Reply::Cluster { nodes: vec![node], namespaces, next }
            }
        })
    }

    fn list(&self, listing: &Listing) -> (Vec<Namespace>, Option<String>) {
        let describe = |(name, shard): (&String, &ShardId)| Namespace {
            name: name.clone(),
            shard: *shard,
            leader: NodeId(7),
            end: Some(Offset(self.shards[shard].next)),
            replicas: vec![Replica {
                node: NodeId(7),
                voter: true,
                end: Some(Offset(self.shards[shard].next)),
            }],
            options: NamespaceOptions::default(),
            closing: false,
        };
        let mut rest = self.namespaces.range(listing.from.clone()..);
        let limit = if listing.limit == 0 { PAGE } else { listing.limit as usize };
        let page = rest.by_ref().take(limit).map(describe).collect();
        (page, rest.next().map(|(name, _)| name.clone()))
    }

    fn direct(&mut self, control: Control) -> Result<Reply, Failure> {
        self.directory.done.push(control.clone());
        match control {
            Control::OpenSession { .. } | Control::CloseSession(_) => {
                self.directory.control(control)
            }
            Control::CreateNamespace { name, .. } if self.namespaces.contains_key(&name) => {
                Err(Failure::new(Code::NamespaceExists, format!("{name:?} exists")))
            }
            Control::CreateNamespace { name, .. } => {
                self.add_namespace(&name);
                Ok(Reply::Done(Offset::FIRST))
            }
            Control::DeleteNamespace(name) | Control::CloseNamespace(name) => {
                match self.namespaces.remove(&name) {
                    Some(shard) => {
                        self.shards.remove(&shard);
                        Ok(Reply::Done(Offset::FIRST))
                    }
                    None => Err(Failure::new(Code::NamespaceNotFound, format!("no {name:?}"))),
                }
            }
            _ => Err(Failure::new(Code::BadArgument, "not for the directory")),
        }
    }
}

impl Shard {
    fn step(&mut self) -> Offset {
        self.next += 64;
        Offset(self.next - 64)
    }

    /// Rows of a keyspace, for looking.
    pub fn rows(&self, keyspace: &str) -> Vec<(Vec<u8>, Vec<u8>)> {
        let rows = self.keyspaces.get(keyspace).into_iter().flat_map(|(_, rows)| rows);
        rows.map(|(key, (_, value))| (key.clone(), value.clone())).collect()
    }

    /// Records of a stream, for looking.
    pub fn records(&self, stream: &str) -> usize {
        self.streams.get(stream).map_or(0, |(_, records)| records.len())
    }

    /// Values of a stream's records, for looking.
    pub fn values(&self, stream: &str) -> Vec<Vec<u8>> {
        let records = self.streams.get(stream).into_iter().flat_map(|(_, records)| records);
        records.map(|record| record.value.clone()).collect()
    }

    /// What an entry of a session was answered before.
    fn again(&mut self, numbers: &Numbers) -> Result<Option<Result<Reply, Failure>>, Failure> {
        if numbers.session == SessionId::NONE {
            return Ok(None);
        }
        let expired = || Failure::new(Code::SessionExpired, "there is no such session");
        let session = self.sessions.get_mut(&numbers.session).ok_or_else(expired)?;
        session.acked_below = session.acked_below.max(numbers.acked_below.0);
        Ok(session.controls.get(&numbers.sequence).cloned())
    }

    fn keep(&mut self, numbers: &Numbers, answer: &Result<Reply, Failure>) {
        if let Some(session) = self.sessions.get_mut(&numbers.session) {
            session.controls.insert(numbers.sequence, answer.clone());
        }
    }

    fn commit(&mut self, body: &[u8]) -> Result<Reply, Failure> {
        let message = Message::new(body).unwrap();
        let commit = Commit::read(&message).unwrap();
        let (session, sequence) = (commit.session(), commit.sequence());
        if session != SessionId::NONE {
            let expired = || Failure::new(Code::SessionExpired, "there is no such session");
            let session = self.sessions.get_mut(&session).ok_or_else(expired)?;
            session.acked_below = session.acked_below.max(commit.acked_below().0);
            let below = session.acked_below;
            session.replies.retain(|kept, _| kept.0 >= below);
            if let Some(reply) = session.replies.get(&sequence) {
                return Ok(Reply::Committed(Committed { duplicate: true, ..reply.clone() }));
            }
            let window = naust_wire::limits::SESSION_WINDOW_MAX as u64;
            if !(below..below + window).contains(&sequence.0) {
                return Err(Failure::new(Code::SequenceOutOfWindow, "out of the window"));
            }
        }
        let offset = self.step();
        for (index, condition) in commit.conditions().enumerate() {
            let found = self.newest(&commit, &condition.unwrap());
            if let Some(found) = found {
                let condition = index as u16;
                return Ok(Reply::Refused(Refused { condition, at: offset, found }));
            }
        }
        let mut committed = Committed { offset, ..Committed::default() };
        for op in commit.ops() {
            self.op(&commit, op.unwrap(), &mut committed);
        }
        if let Some(session) = self.sessions.get_mut(&session) {
            session.replies.insert(sequence, committed.clone());
        }
        Ok(Reply::Committed(committed))
    }

    /// What a condition that fails has found.
    fn newest(&self, commit: &Commit<'_>, condition: &Condition<'_>) -> Option<Offset> {
        let rows = |space| self.keyspaces.get(commit.name(space).unwrap()).map(|(_, rows)| rows);
        let version = |space, key| {
            rows(space).and_then(|rows| rows.get(key)).map_or(Offset::ZERO, |(offset, _)| *offset)
        };
        let (found, holds) = match *condition {
            Condition::Version { space, key, offset } => {
                (version(space, key), version(space, key) == offset)
            }
            Condition::Absent { space, key } => {
                (version(space, key), version(space, key) == Offset::ZERO)
            }
            Condition::Unchanged { space, from, to, since } => {
                let within = |key: &[u8]| key >= from && to.is_none_or(|to| key < to);
                let newest = rows(space)
                    .into_iter()
                    .flatten()
                    .filter(|(key, _)| within(key))
                    .map(|(_, (offset, _))| *offset)
                    .max()
                    .unwrap_or_default();
                (newest, newest <= since)
            }
        };
        (!holds).then_some(found)
    }

    fn op(&mut self, commit: &Commit<'_>, op: Op<'_>, committed: &mut Committed) {
        let offset = committed.offset;
        let name = |space| commit.name(space).unwrap().to_owned();
        match op {
            Op::Put { space, key, value } => {
                let rows = &mut self.keyspaces.entry(name(space)).or_default().1;
                rows.insert(key.to_vec(), (offset, value.to_vec()));
            }
            Op::Delete { space, key } => {
                self.keyspaces.entry(name(space)).or_default().1.remove(key);
            }
            Op::DeleteRange { space, from, to } => {
                let rows = &mut self.keyspaces.entry(name(space)).or_default().1;
                let before = rows.len();
                rows.retain(|key, _| !(key.as_slice() >= from && to.is_none_or(|to| &**key < to)));
                let deleted = (before - rows.len()) as u32;
                committed.ranges.push(RangeDeleted { deleted, next: None });
            }
            Op::Append { space, value } => {
                let id = offset.plus(committed.ids.len() as u64 + 1);
                let record = Record { offset: id, value: value.to_vec() };
                self.streams.entry(name(space)).or_default().1.push(record);
                committed.ids.push(id);
            }
            Op::Advance { space, cursor, offset } => {
                self.cursors.insert((name(space), name(cursor)), offset);
            }
        }
    }

    fn control(&mut self, control: Control) -> Result<Reply, Failure> {
        let offset = self.step();
        self.done.push(control.clone());
        match control {
            Control::OpenSession { .. } => {
                self.sessions.insert(SessionId(offset.0), Session::default());
                return Ok(Reply::Session(SessionId(offset.0)));
            }
            Control::CloseSession(session) => {
                self.sessions.remove(&session);
            }
            Control::SetKeyspace { name, options } => {
                self.keyspaces.entry(name).or_default().0 = options;
            }
            Control::SetStream { name, options } => {
                self.streams.entry(name).or_default().0 = options;
            }
            _ => return Err(Failure::new(Code::BadArgument, "not for a shard")),
        }
        Ok(Reply::Done(offset))
    }

    fn read(&self, read: Read) -> Result<Reply, Failure> {
        let at = Offset(self.next - 1);
        if let Level::Exactly(offset) = read.level
            && offset < Offset::FIRST
        {
            return Err(Failure::new(Code::OffsetTrimmed, "below the history"));
        }
        let no_keyspace = || Failure::new(Code::KeyspaceNotFound, "there is no such keyspace");
        let no_stream = || Failure::new(Code::StreamNotFound, "there is no such stream");
        match read.query {
            Query::Get { keyspace, key } => {
                let (_, rows) = self.keyspaces.get(&keyspace).ok_or_else(no_keyspace)?;
                Ok(Reply::Row { at, row: rows.get(&key).cloned() })
            }
            Query::Scan { keyspace, from, to, reverse, limit, .. } => {
                let (_, rows) = self.keyspaces.get(&keyspace).ok_or_else(no_keyspace)?;
                Ok(page(rows, at, &from, to.as_deref(), reverse, limit as usize))
            }
            Query::Records { stream, from, limit, .. } => {
                let (_, records) = self.streams.get(&stream).ok_or_else(no_stream)?;
                let limit = if limit == 0 { 1_000 } else { limit as usize };
                let found: Vec<Record> =
                    records.iter().filter(|r| r.offset >= from).take(limit).cloned().collect();
                let next = found.last().map_or(from, |last| last.offset.plus(1));
                Ok(Reply::Records { records: found, next, end: at })
            }
            Query::Cursor { stream, cursor } => {
                self.streams.get(&stream).ok_or_else(no_stream)?;
                Ok(Reply::Cursor(self.cursors.get(&(stream, cursor)).copied()))
            }
            Query::Log { from, .. } => {
                Ok(Reply::Frames { first: from, data: vec![1, 2, 3], next: at, end: at })
            }
            Query::Describe { from, .. } => Ok(self.describe(at, from.as_ref().map(Named::name))),
            Query::Digests { .. } => Ok(Reply::Digests(Vec::new())),
        }
    }

    fn describe(&self, at: Offset, from: Option<&str>) -> Reply {
        let keyspace =
            |(name, (options, rows)): (&String, &(KeyspaceOptions, Rows))| reply::Keyspace {
                name: name.clone(),
                options: *options,
                rows_estimate: rows.len() as u64,
                bytes: 0,
                floor: Offset::ZERO,
            };
        let mut rest = self.keyspaces.range(from.unwrap_or_default().to_owned()..);
        Reply::Described {
            at,
            floor: Offset::FIRST,
            keyspaces: rest.by_ref().take(PAGE).map(keyspace).collect(),
            streams: Vec::new(),
            next: rest.next().map(|(name, _)| Named::Keyspace(name.clone())),
        }
    }
}

fn page(
    rows: &Rows,
    at: Offset,
    from: &[u8],
    to: Option<&[u8]>,
    reverse: bool,
    limit: usize,
) -> Reply {
    let limit = if limit == 0 { 1_000 } else { limit };
    let within = rows.iter().filter(|(key, _)| &***key >= from && to.is_none_or(|to| &***key < to));
    let entry = |(key, (offset, value)): (&Vec<u8>, &(Offset, Vec<u8>))| Entry {
        key: key.clone(),
        value: value.clone(),
        offset: *offset,
    };
    let mut all: Vec<Entry> = within.map(entry).collect();
    if reverse {
        all.reverse();
    }
    let more = all.len() > limit;
    let next = match reverse {
        _ if !more => None,
        true => all.get(limit - 1).map(|last| last.key.clone()),
        false => all.get(limit).map(|first| first.key.clone()),
    };
    all.truncate(limit);
    Reply::Rows { at, entries: all, next }
}

/// A client, its link and a fake server, moved by hand on one thread.
pub struct World {
    pub client: Client,
    pub link: Link,
    pub fake: Fake,
    pub now_ms: u64,
    pub wakes: Arc<Wakes>,
}

/// Counts wake-ups.
#[derive(Default)]
pub struct Wakes(pub AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl World {
    pub fn new(options: Options) -> World {
        let (client, link) = Client::over(Arc::new(|| {}), options);
        link.up();
        let (fake, wakes) = (Fake::default(), Arc::default());
        World { client, link, fake, now_ms: 0, wakes }
    }

    /// Moves what there is, once, in both directions. Says whether there was anything.
    pub fn pump(&mut self) -> bool {
        let mut bytes = Vec::new();
        if !self.link.take(&mut bytes) {
            return false;
        }
        let replies = self.fake.handle(&bytes);
        self.link.deliver(replies).unwrap();
        true
    }

    pub fn tick(&mut self, by_ms: u64) {
        self.now_ms += by_ms;
        self.link.tick(self.now_ms);
    }

    pub fn reconnect(&mut self) {
        self.link.down("a test");
        self.link.up();
    }

    pub fn poll<F: Future + Unpin>(&self, future: &mut F) -> Poll<F::Output> {
        let waker = Waker::from(Arc::clone(&self.wakes));
        std::pin::Pin::new(future).poll(&mut Context::from_waker(&waker))
    }

    /// Runs a future to its end. It may be polled only after it was woken.
    pub fn run<F: Future>(&mut self, future: F) -> F::Output {
        let mut future = pin!(future);
        let waker = Waker::from(Arc::clone(&self.wakes));
        let mut idle = 0;
        loop {
            let before = self.wakes.0.load(Ordering::Relaxed);
            if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
                return output;
            }
            while self.wakes.0.load(Ordering::Relaxed) == before {
                if !self.pump() {
                    self.tick(10);
                    idle += 1;
                    assert!(idle < 10_000, "nothing moves any more");
                }
            }
        }
    }
}

/// A client whose fake server runs on a thread of its own until the client is dropped. For programs
/// with a runtime.
#[allow(dead_code)]
pub fn spawn(options: Options) -> (Client, Arc<Mutex<Fake>>) {
    let (sender, receiver) = std::sync::mpsc::channel::<()>();
    let bell = move || {
        let _ = sender.send(());
    };
    let (client, link) = Client::over(Arc::new(bell), options);
    let fake = Arc::new(Mutex::new(Fake::default()));
    let server = Arc::clone(&fake);
    std::thread::spawn(move || {
        link.up();
        let (mut bytes, started) = (Vec::new(), std::time::Instant::now());
        while !link.is_gone() {
            while link.take(&mut bytes) {
                let replies = server.lock().unwrap().handle(&bytes);
                link.deliver(replies).unwrap();
            }
            link.tick(started.elapsed().as_millis() as u64);
            let _ = receiver.recv_timeout(std::time::Duration::from_millis(20));
        }
    });
    (client, fake)
}
