//! One client: its connection, its session, what it has under way, and what it sends again.
//!
//! It speaks the real packets. The world asks it for its next request and brings it the answers; it
//! knows no time.
//!
//! ```text
//! down ─ connected ─► greeting ─ Hello ─► resolving ─ Resolved ─► ready ◄─► opening a session
//!   ▲                                          │     ▲
//!   └──────────── lost ── from anywhere        └─ NamespaceNotFound: makes it
//! ```

use super::desk::{Desk, Step};
use super::knowledge::Knowledge;
use super::session::Session;
use super::{commits, keys, questions};
use crate::generator::Generator;
use crate::history::{Asked, History};
use crate::plan::{Plan, RequestKind};
use naust_wire::ask::{Ask, Listing};
use naust_wire::control::Control;
use naust_wire::options::{Compaction, Compression, KeyspaceOptions, StreamOptions};
use naust_wire::packet::{self, Kind};
use naust_wire::read::{Query, Read};
use naust_wire::reply::{Failure, Reply};
use naust_wire::{Code, Outcome, RequestId, Sequence, SessionId, ShardId};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// Namespaces that one client removes in its life.
const DELETED_MAX: u32 = 3;

/// One client.
pub struct Client {
    generator: Generator,
    namespace: u64,
    shard: Option<ShardId>,
    state: State,
    /// The namespace does not exist: it is to be made before it is asked for again.
    make: bool,
    /// Whether it may remove its namespace.
    deleted: u32,
    session: Option<Session>,
    desk: Desk,
    known: Knowledge,
    /// What is under way, and its number in the history.
    waiting: BTreeMap<RequestId, (usize, Purpose)>,
    requests: u64,
    /// Only what was begun is finished; nothing new is drawn.
    finishing: bool,
    /// Nothing new is asked for the moment.
    pausing: bool,
    drawn: u64,
    /// Reads to be asked before anything is drawn, each until it is answered.
    agenda: VecDeque<Read>,
    asking: Option<Read>,
    /// It asks for nothing of its own, and does what it is told.
    is_operator: bool,
    /// What it was told to ask for, once.
    errands: VecDeque<(ShardId, Asked)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Down,
    Greeting,
    Resolving,
    Ready,
}

/// Why a request was sent, as far as its answer changes the client.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Purpose {
    Greet,
    Resolve,
    Make,
    Open,
    Commit(SessionId, Sequence),
    Examine,
    Desk,
    Plain,
}

/// A request to be sent.
pub struct Outgoing {
    /// What it asks for.
    pub asked: Asked,
    /// Whom.
    pub shard: ShardId,
    /// Its number on this client.
    pub request: RequestId,
    /// The whole packet.
    pub bytes: Vec<u8>,
    purpose: Purpose,
}

impl Client {
    /// A client of the namespace of this number.
    #[must_use]
    pub fn new(generator: Generator, namespace: u64) -> Client {
        Client {
            generator,
            namespace,
            shard: None,
            state: State::Down,
            make: false,
            deleted: 0,
            session: None,
            desk: Desk::default(),
            known: Knowledge::default(),
            waiting: BTreeMap::new(),
            requests: 0,
            finishing: false,
            pausing: false,
            drawn: 0,
            agenda: VecDeque::new(),
            asking: None,
            is_operator: false,
            errands: VecDeque::new(),
        }
    }

    /// A client that only does what it is told.
    #[must_use]
    pub fn operator(generator: Generator) -> Client {
        Client { is_operator: true, ..Client::new(generator, 0) }
    }

    /// Whether it only does what it is told.
    #[must_use]
    pub fn is_operator(&self) -> bool {
        self.is_operator
    }

    /// Has something asked for in no session, once, whatever the answer is.
    pub fn errand(&mut self, shard: ShardId, asked: Asked) {
        self.errands.push_back((shard, asked));
    }

    /// Has these read, one after the other and each to its last page, before anything else is
    /// drawn.
    pub fn examine(&mut self, reads: impl IntoIterator<Item = Read>) {
        self.agenda.extend(reads);
    }

    /// A connection stands.
    pub fn connected(&mut self) {
        assert!(self.waiting.is_empty(), "what waited was lost with the last connection");
        self.state = State::Greeting;
    }

    /// Whether it has a connection.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.state != State::Down
    }

    /// The connection is gone. Returns the numbers of what was under way, whose fate is unknown
    /// now.
    pub fn lost(&mut self) -> Vec<usize> {
        self.state = State::Down;
        let waiting = std::mem::take(&mut self.waiting);
        for (_, purpose) in waiting.values() {
            self.doubt(purpose);
        }
        waiting.into_values().map(|(number, _)| number).collect()
    }

    fn doubt(&mut self, purpose: &Purpose) {
        match purpose {
            Purpose::Examine => self.examined(None),
            Purpose::Desk => self.desk.lost(),
            _ => {}
        }
        let Purpose::Commit(id, sequence) = purpose else { return };
        if let Some(session) = self.session.as_mut().filter(|session| session.id == *id) {
            session.doubt(*sequence);
        }
    }

    /// From now on nothing new is asked; what has an unknown fate is still sent again.
    pub fn finish(&mut self) {
        self.finishing = true;
        self.desk.finish();
    }

    /// Whether something new may be asked now.
    pub fn may_draw(&mut self, may: bool) {
        self.pausing = !may;
    }

    /// How many requests it drew so far: neither greetings nor what it sent again.
    #[must_use]
    pub fn drawn(&self) -> u64 {
        self.drawn
    }

    /// Whether only something new could be asked.
    #[must_use]
    pub fn rests(&self) -> bool {
        self.state == State::Ready && self.is_idle() && !self.is_operator && !self.finishing
    }

    /// Whether nothing is under way and nothing is to be sent again.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty()
            && self.agenda.is_empty()
            && self.errands.is_empty()
            && self.desk.is_idle()
            && self.session.as_ref().is_none_or(|session| session.open() == 0)
    }

    /// How many requests are under way.
    #[must_use]
    pub fn under_way(&self) -> usize {
        self.waiting.len()
    }

    /// The namespace's shard, once it is known.
    #[must_use]
    pub fn shard(&self) -> Option<ShardId> {
        self.shard
    }

    /// Draws the next request, unless there is a reason to wait. `number` is unique in the life.
    pub fn next(&mut self, plan: &Plan, number: u64) -> Option<Outgoing> {
        let name = keys::namespace(self.namespace);
        match self.state {
            State::Down => None,
            State::Greeting if self.waiting.is_empty() => {
                let client = format!("client of {name}");
                let hello = Ask::Hello { token: String::new(), client };
                Some(self.outgoing(Asked::Ask(hello), ShardId::DIRECTORY, Purpose::Greet))
            }
            State::Resolving if !self.is_resolving() => {
                let (asked, purpose) = if std::mem::take(&mut self.make) {
                    let options = plan.options;
                    (Asked::Control(Control::CreateNamespace { name, options }), Purpose::Make)
                } else {
                    (Asked::Ask(Ask::Resolve(name)), Purpose::Resolve)
                };
                Some(self.outgoing(asked, ShardId::DIRECTORY, purpose))
            }
            State::Greeting | State::Resolving => None,
            State::Ready if self.waiting.len() as u64 >= plan.work.in_flight => None,
            State::Ready => {
                let old = self.again().or_else(|| self.examination()).or_else(|| self.sent_on());
                let old = old.or_else(|| self.numbered());
                let draws = !self.finishing && !self.pausing && !self.is_operator;
                old.or_else(|| if draws { self.draw(plan, number) } else { None })
            }
        }
    }

    fn sent_on(&mut self) -> Option<Outgoing> {
        let (shard, asked) = self.errands.pop_front()?;
        Some(self.outgoing(asked, shard, Purpose::Plain))
    }

    fn numbered(&mut self) -> Option<Outgoing> {
        let asked = match self.desk.step(&mut self.generator)? {
            Step::Open(control) => Asked::Control(control),
            Step::Ask(numbers, control) => Asked::Numbered(numbers, control),
        };
        Some(self.outgoing(asked, ShardId::DIRECTORY, Purpose::Desk))
    }

    fn is_resolving(&self) -> bool {
        let asks = |purpose: &Purpose| matches!(purpose, Purpose::Resolve | Purpose::Make);
        self.waiting.values().any(|(_, purpose)| asks(purpose))
    }

    fn again(&mut self) -> Option<Outgoing> {
        let shard = self.shard.expect("a client that is ready knows its shard");
        let session = self.session.as_mut()?;
        let id = session.id;
        let (sequence, body) = session.again()?;
        Some(self.outgoing(Asked::Commit(body), shard, Purpose::Commit(id, sequence)))
    }

    fn examination(&mut self) -> Option<Outgoing> {
        if self.asking.is_some() {
            return None;
        }
        let read = self.agenda.pop_front()?;
        self.asking = Some(read.clone());
        let shard = self.shard.expect("a client that is ready knows its shard");
        Some(self.outgoing(Asked::Read(read), shard, Purpose::Examine))
    }

    /// What is asked next after an answer to a question of the agenda: the next page, or the same
    /// again.
    fn examined(&mut self, reply: Option<&Reply>) {
        let Some(mut read) = self.asking.take() else { return };
        let more = match (&mut read.query, reply) {
            (Query::Scan { from, .. }, Some(Reply::Rows { next: Some(next), .. })) => {
                from.clone_from(next);
                true
            }
            (Query::Records { from, .. }, Some(Reply::Records { records, next, .. }))
                if !records.is_empty() =>
            {
                *from = *next;
                true
            }
            (Query::Log { from, .. }, Some(Reply::Frames { data, next, .. }))
                if !data.is_empty() =>
            {
                *from = *next;
                true
            }
            (_, None) => true,
            (_, Some(Reply::Error(failure))) => matches!(
                failure.code,
                Code::Unavailable | Code::Overloaded | Code::ShuttingDown | Code::Interrupted
            ),
            _ => false,
        };
        if more {
            self.agenda.push_front(read);
        }
    }

    fn draw(&mut self, plan: &Plan, number: u64) -> Option<Outgoing> {
        self.drawn += 1;
        let numbered = plan.besides.numbered_in_a_million;
        if numbered > 0 && self.generator.chance(numbered) {
            self.desk.want();
        }
        let shard = self.shard.expect("a client that is ready knows its shard");
        let noted = plan.besides.noted_in_a_million;
        if noted > 0 && self.generator.chance(noted) {
            let shard = if self.generator.below(4) == 0 { ShardId::DIRECTORY } else { shard };
            return Some(self.outgoing(
                Asked::Control(Control::NoteDigests),
                shard,
                Purpose::Plain,
            ));
        }
        let kind = self.generator.weighted(&plan.work.requests).unwrap_or(0);
        let kind = RequestKind::ALL[kind];
        let asked = match kind {
            RequestKind::Commit => return self.commit(plan, number, shard),
            RequestKind::Garbage => return Some(self.garbage(shard)),
            RequestKind::Ask => return Some(self.ask(plan)),
            RequestKind::DeleteNamespace => return self.delete_namespace(),
            RequestKind::SetKeyspace => Asked::Control(self.keyspace_options(plan)),
            RequestKind::SetStream => Asked::Control(self.stream_options(plan)),
            RequestKind::OpenSession => return self.open_session(plan, shard),
            RequestKind::CloseSession => {
                let session = self.session.take_if(|session| session.open() == 0)?;
                Asked::Control(Control::CloseSession(session.id))
            }
            read => {
                Asked::Read(questions::draw(&mut self.generator, &plan.work, &self.known, read))
            }
        };
        Some(self.outgoing(asked, shard, Purpose::Plain))
    }

    fn commit(&mut self, plan: &Plan, number: u64, shard: ShardId) -> Option<Outgoing> {
        let draft = commits::draw(&mut self.generator, &plan.work, &self.known, number).ok()?;
        let mut body = Vec::new();
        if !self.generator.chance(plan.work.sessions_in_a_million) {
            let none = (SessionId::NONE, Sequence(0), Sequence(0));
            draft.encode(none.0, none.1, none.2, &mut body).ok()?;
            return Some(self.outgoing(Asked::Commit(body.into()), shard, Purpose::Plain));
        }
        let Some(session) = &mut self.session else {
            return self.open_session(plan, shard);
        };
        let (sequence, acked_below) = session.numbers();
        draft.encode(session.id, sequence, acked_below, &mut body).ok()?;
        let body: Arc<[u8]> = body.into();
        let purpose = Purpose::Commit(session.id, session.take(body.clone()));
        Some(self.outgoing(Asked::Commit(body), shard, purpose))
    }

    fn open_session(&mut self, plan: &Plan, shard: ShardId) -> Option<Outgoing> {
        if self.waiting.values().any(|(_, purpose)| *purpose == Purpose::Open) {
            return None;
        }
        let nonce = self.generator.draw();
        let control = Control::OpenSession { ttl_ms: plan.work.session_ttl_ms, nonce };
        Some(self.outgoing(Asked::Control(control), shard, Purpose::Open))
    }

    fn delete_namespace(&mut self) -> Option<Outgoing> {
        if self.namespace == 0 || self.deleted >= DELETED_MAX {
            return None;
        }
        self.deleted += 1;
        let control = Control::CloseNamespace(keys::namespace(self.namespace));
        Some(self.outgoing(Asked::Control(control), ShardId::DIRECTORY, Purpose::Plain))
    }

    fn keyspace_options(&mut self, plan: &Plan) -> Control {
        let fifo = self.generator.below(3) == 0;
        let compactions = [Compaction::Levelled, Compaction::WriteOptimised];
        let compaction = if fifo { Compaction::Fifo } else { *self.generator.pick(&compactions) };
        let options = KeyspaceOptions {
            compaction,
            compression: *self.generator.pick(&[Compression::None, Compression::Lz4]),
            max_bytes: if fifo { self.generator.skewed(0, 100_000) } else { 0 },
            max_age_ms: if fifo { self.generator.skewed(0, 5_000) } else { 0 },
        };
        let name = keys::keyspace(self.generator.below(plan.work.spaces));
        Control::SetKeyspace { name, options }
    }

    fn stream_options(&mut self, plan: &Plan) -> Control {
        let mut bound =
            |most: u64| if self.generator.coin() { 0 } else { self.generator.skewed(1, most) };
        let options = StreamOptions {
            max_age_ms: bound(5_000),
            max_bytes: bound(100_000),
            max_records: bound(500),
        };
        let name = keys::stream(self.generator.below(plan.work.spaces));
        Control::SetStream { name, options }
    }

    fn ask(&mut self, plan: &Plan) -> Outgoing {
        let ask = match self.generator.below(3) {
            0 => Ask::Namespaces(Listing::default()),
            1 => Ask::Cluster(Listing::default()),
            _ => Ask::Resolve(keys::namespace(self.generator.below(plan.work.namespaces))),
        };
        self.outgoing(Asked::Ask(ask), ShardId::DIRECTORY, Purpose::Plain)
    }

    /// A whole packet whose body, checksum or kind is wrong.
    fn garbage(&mut self, shard: ShardId) -> Outgoing {
        let mut outgoing = self.outgoing(Asked::Garbage, shard, Purpose::Plain);
        let length = self.generator.skewed(0, 300) as usize;
        let body = self.generator.bytes(length);
        let kinds = [Kind::Commit, Kind::Control, Kind::Read, Kind::Ask];
        let kind = *self.generator.pick(&kinds);
        outgoing.bytes.clear();
        packet::write(kind, outgoing.request, shard, &body, &mut outgoing.bytes);
        if self.generator.below(3) == 0 {
            let at = self.generator.below(4) as usize + 20;
            outgoing.bytes[at] ^= 1; // The checksum is wrong, the length still right.
        }
        outgoing
    }

    fn outgoing(&mut self, asked: Asked, shard: ShardId, purpose: Purpose) -> Outgoing {
        self.requests += 1;
        let request = RequestId(self.requests);
        let mut body = Vec::new();
        let kind = match &asked {
            Asked::Commit(commit) => {
                body.extend_from_slice(commit);
                Kind::Commit
            }
            Asked::Control(control) => {
                control.encode(&mut body);
                Kind::Control
            }
            Asked::Numbered(numbers, control) => {
                control.encode_numbered(numbers, &mut body);
                Kind::Control
            }
            Asked::Read(read) => {
                read.encode(&mut body);
                Kind::Read
            }
            Asked::Ask(ask) => {
                ask.encode(&mut body);
                Kind::Ask
            }
            Asked::Garbage => Kind::Ask,
        };
        let mut bytes = Vec::new();
        packet::write(kind, request, shard, &body, &mut bytes);
        Outgoing { asked, shard, request, bytes, purpose }
    }

    /// What was drawn is sent, and stands in the history under `number`.
    pub fn sent(&mut self, outgoing: &Outgoing, number: usize) {
        self.waiting.insert(outgoing.request, (number, outgoing.purpose.clone()));
    }

    /// An answer came: its number in the history, if it was still waited for.
    pub fn heard(&mut self, request: RequestId, reply: &Reply, history: &History) -> Option<usize> {
        let (number, purpose) = self.waiting.remove(&request)?;
        self.known.learn(reply);
        if let Reply::Error(Failure { code: Code::NamespaceNotFound, .. }) = reply
            && self.state == State::Ready
            && purpose != Purpose::Desk
        {
            self.lose_namespace();
        }
        if let Asked::Read(read) = &history.requests[number].asked {
            self.learn_rows(read, reply);
        }
        match &purpose {
            Purpose::Greet if matches!(reply, Reply::Hello { .. }) => {
                self.state = State::Resolving;
            }
            Purpose::Resolve => self.resolved(reply),
            Purpose::Open => {
                if let Reply::Session(id) = reply {
                    self.session = Some(Session::new(*id));
                }
            }
            Purpose::Commit(id, sequence) => self.fate(*id, *sequence, reply),
            Purpose::Examine => self.examined(Some(reply)),
            Purpose::Make => self.made(reply),
            Purpose::Desk => self.desk.heard(reply),
            Purpose::Greet | Purpose::Plain => {}
        }
        Some(number)
    }

    fn learn_rows(&mut self, read: &Read, reply: &Reply) {
        match (&read.query, reply) {
            (Query::Get { keyspace, key }, Reply::Row { row: Some((version, _)), .. }) => {
                self.known.version(keyspace, key, *version);
            }
            (Query::Scan { keyspace, .. }, Reply::Rows { entries, .. }) => {
                for entry in entries.iter().take(4) {
                    self.known.version(keyspace, &entry.key, entry.offset);
                }
            }
            _ => {}
        }
    }

    fn resolved(&mut self, reply: &Reply) {
        match reply {
            Reply::Resolved { shard, .. } => {
                if self.shard.is_some_and(|known| known != *shard) {
                    // Someone else removed it and made another one of that name.
                    self.lose_namespace();
                }
                self.shard = Some(*shard);
                self.state = State::Ready;
            }
            Reply::Error(Failure { code: Code::NamespaceNotFound, .. }) => self.make = true,
            _ => {}
        }
    }

    /// Its namespace was removed: it makes another one of that name, and knows nothing of it.
    fn lose_namespace(&mut self) {
        self.state = State::Resolving;
        self.shard = None;
        self.session = None;
        self.known = Knowledge::default();
        self.agenda.clear();
        self.asking = None;
    }

    fn made(&mut self, reply: &Reply) {
        if matches!(reply, Reply::Error(Failure { code: Code::OptionsConflict, .. })) {
            self.namespace = 0; // It can't be had with these options; the default one can.
        }
    }

    /// What an answer to a commit of a session means for it.
    fn fate(&mut self, id: SessionId, sequence: Sequence, reply: &Reply) {
        let Some(session) = self.session.as_mut().filter(|session| session.id == id) else {
            return;
        };
        match reply {
            Reply::Error(Failure { code: Code::SessionExpired, .. }) => self.session = None,
            Reply::Error(Failure { code: Code::SequenceOutOfWindow, .. }) => {
                session.settle(sequence);
            }
            Reply::Error(Failure { outcome: Outcome::Unknown, .. }) => session.doubt(sequence),
            Reply::Error(_) if !self.finishing && self.generator.coin() => session.doubt(sequence),
            _ => session.settle(sequence),
        }
    }
}
