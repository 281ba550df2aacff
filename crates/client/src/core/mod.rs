//! The sans-IO client: everything it decides, and nothing that moves bytes, wakes tasks or reads a
//! clock.
//!
//! A [`Core`] is a value. The program's side begins requests and polls them; the link's side takes
//! packets out, delivers replies, tells the time and says when the connection comes and goes. What
//! became ready is collected as tickets in [`Core::take_ready`]; whoever owns the core wakes those
//! who wait.
//!
//! ```text
//! begin ─► Waiting ─► Granted ─► Sent ─► Answered ─► poll gives the reply
//!          │  ▲ ▲      poll encodes into  │ │
//!          │  │ │      the buffer         │ └ refused for now, or numbered anew ─► Waiting
//!          │  │ └─ the connection was lost, and it may be sent again
//!          │  └ Link, Route (Resolve), Number (session, place in its window), Pause, Room
//!          └─► Failed ─► poll gives the error
//! ```
//! Reading order: [`request`]: a request and its states; [`window`]: the numbers of a session's
//! commits; `retry`: what a failed attempt means; `places`: routes and sessions of namespaces; this
//! file: what can be asked of a core; `life`: how a request moves from state to state; `inner`: the
//! core's own requests; `passing`: time, and connections that come and go.
//!
//! # Invariants
//!
//! * Requests under way, bytes to be sent and unsettled sequences of a session are bounded; past a
//!   bound requests wait, or are refused with `Overloaded`.
//! * Replies of reads that nobody takes are bounded in bytes: past the bound those that came first
//!   are dropped, and asked for again when somebody polls. Those of commits are small, and kept.
//! * A sequence that was taken is settled exactly once: when its reply was read, or when nobody
//!   will ask for it again. So futures that are dropped never stop a window for ever.
//! * A commit keeps its session and sequence through all its attempts. It gets new ones only after
//!   `SessionExpired`, and only if no earlier attempt's reply was lost: then it was certainly not
//!   applied.
//! * A request whose reply was lost is sent again only if that is safe ([`Repeat::Always`]).

mod inner;
mod life;
mod passing;
mod places;
pub mod request;
mod retry;
pub mod window;

pub use naust_wire::Numbers;
pub use request::{About, Identity, NamespaceKey, Repeat, Request, Ticket};
pub use retry::OnOverload;
pub use window::Window;

use crate::Error;
use bytes::Bytes;
use naust_wire::limits::{CLIENT_REQUESTS_MAX, PACKET_HEADER_BYTES};
use naust_wire::message::{Message, Refusal};
use naust_wire::packet::{self, Kind};
use naust_wire::{Code, Outcome, Sequence, naust_capnp as schema};
use places::Places;
use request::{For, Owner, Slot, State};
use slab::Slab;
use std::collections::VecDeque;

/// How a client behaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Milliseconds that a request may take, all its attempts together, unless it says otherwise.
    pub timeout_ms: u64,
    /// What is shown to the server to be let in; empty: nothing.
    pub token: String,
    /// What the client calls itself, for the server's logs.
    pub name: String,
    /// Milliseconds of log time without a commit after which the client's sessions may end; 0: the
    /// server's default.
    pub session_ttl_ms: u64,
    /// Speaks to the addresses it was given alone, and stays with one as long as it answers: to see
    /// what one node sees.
    pub stays: bool,
    /// What to do when the server is overloaded.
    pub on_overload: OnOverload,
    /// Tells this client's requests for sessions from others'. Drawn at random by whoever has
    /// randomness.
    pub nonce: u64,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            timeout_ms: 30_000,
            token: String::new(),
            name: "naust-client".to_owned(),
            session_ttl_ms: 0,
            stays: false,
            on_overload: OnOverload::Wait,
            nonce: 0,
        }
    }
}

/// The connection, as far as the core is told.
#[derive(Clone, Debug)]
enum Connection {
    Down,
    Up,
    /// For good, and why.
    Closed(Error),
}

/// Replies that came and that nobody has taken yet.
#[derive(Debug, Default)]
struct Unread {
    bytes: usize,
    /// Of reads, the oldest first; some may have been taken, or have ended, meanwhile.
    reads: VecDeque<Ticket>,
}

/// See the module.
#[derive(Debug)]
pub struct Core {
    options: Options,
    connection: Connection,
    slots: Slab<Slot>,
    generation: u32,
    places: Places,
    outgoing: Vec<u8>,
    ready: Vec<Ticket>,
    /// Tickets that wait for room in the buffer.
    roomless: Vec<Ticket>,
    unread: Unread,
    now_ms: u64,
    hint: Option<String>,
    /// The server of this connection takes no new requests any more.
    leaves: bool,
    /// Since when the server of this connection can do nothing for want of a leader.
    leaderless_since_ms: Option<u64>,
    /// Where the nodes of the cluster are, if that is news.
    addresses: Option<Vec<String>>,
    /// The server of the last connection has answered the greeting.
    welcome: bool,
    sessions_asked: u64,
}

impl Core {
    /// A client without a connection.
    #[must_use]
    pub fn new(options: Options) -> Core {
        Core {
            options,
            connection: Connection::Down,
            slots: Slab::new(),
            generation: 0,
            places: Places::default(),
            outgoing: Vec::new(),
            ready: Vec::new(),
            roomless: Vec::new(),
            unread: Unread::default(),
            now_ms: 0,
            hint: None,
            leaves: false,
            leaderless_since_ms: None,
            addresses: None,
            welcome: false,
            sessions_asked: 0,
        }
    }

    /// How it behaves.
    #[must_use]
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// The key of a namespace, held until it is [released](Core::release_namespace) as often as it
    /// was taken.
    pub fn hold_namespace(&mut self, name: &str) -> NamespaceKey {
        self.places.hold(name)
    }

    /// Gives a key back. It must not be used any more if it was held once.
    pub fn release_namespace(&mut self, key: NamespaceKey) {
        self.places.release(key);
    }

    /// Takes a request in. [`Core::poll`] sends it as soon as it may be sent, so poll it at once.
    ///
    /// # Errors
    /// `Overloaded` when too many are under way.
    pub fn begin(&mut self, request: Request) -> Result<Ticket, Error> {
        if self.slots.len() >= CLIENT_REQUESTS_MAX {
            let detail = format!(
                "this client has {CLIENT_REQUESTS_MAX} requests under way; wait for some of them"
            );
            return Err(Error::new(Code::Overloaded, detail));
        }
        let about = match request.about {
            About::Directory => About::Namespace(self.places.directory()),
            about => about,
        };
        let ticket = self.insert(Request { about, ..request }, Owner::Caller);
        let state = self.next_state(ticket);
        self.slot(ticket).state = state;
        Ok(ticket)
    }

    /// Moves a request on as far as it goes now. `encode` appends the body of its packet; it is
    /// called for each attempt, with the same numbers unless the session had to be changed. `None`:
    /// wait until the ticket is ready; otherwise the body of the reply, which is no `Error`, or why
    /// there is none; then the ticket has ended.
    ///
    /// # Panics
    /// If the ticket has ended.
    pub fn poll<E>(&mut self, ticket: Ticket, mut encode: E) -> Option<Result<Bytes, Error>>
    where
        E: FnMut(&Numbers, &mut Vec<u8>) -> Result<(), Refusal>,
    {
        loop {
            let slot = self.slot(ticket);
            match &mut slot.state {
                State::Waiting(_) | State::Sent => return None,
                State::Granted => match self.send(ticket, &mut encode) {
                    Ok(()) => {}
                    Err(refusal) => {
                        self.end(ticket);
                        return Some(Err(refusal.into()));
                    }
                },
                State::Answered(reply) => {
                    let reply = std::mem::take(reply);
                    self.unread.bytes -= reply.len();
                    match failure_of(&reply) {
                        None => {
                            self.leaderless_since_ms = None;
                            self.end(ticket);
                            return Some(Ok(reply));
                        }
                        Some((error, hint)) => self.refused(ticket, error, hint),
                    }
                }
                State::Failed(_) => {
                    let State::Failed(error) = self.end(ticket).state else {
                        unreachable!("the state was looked at above")
                    };
                    return Some(Err(error));
                }
            }
        }
    }

    /// Moves a request on as far as it goes without its reply being taken: sends it, or sends it
    /// again. To be called when it was begun, and whenever it is ready; then it is under way
    /// although nobody polls it.
    pub fn drive<E>(&mut self, ticket: Ticket, mut encode: E)
    where
        E: FnMut(&Numbers, &mut Vec<u8>) -> Result<(), Refusal>,
    {
        while let Some(slot) = self.find(ticket) {
            match &slot.state {
                State::Granted => {
                    if let Err(refusal) = self.send(ticket, &mut encode) {
                        self.slot(ticket).state = State::Failed(refusal.into());
                    }
                }
                State::Answered(reply) => match failure_of(reply) {
                    None => return,
                    Some((error, hint)) => {
                        self.drop_reply(ticket);
                        self.refused(ticket, error, hint);
                    }
                },
                State::Waiting(_) | State::Sent | State::Failed(_) => return,
            }
        }
    }

    /// Nobody will poll this ticket again. What was not sent never will be; the reply of what was
    /// sent is still consumed.
    pub fn abandon(&mut self, ticket: Ticket) {
        let slot = self.slot(ticket);
        if matches!(slot.state, State::Sent) {
            slot.owner = Owner::Nobody;
        } else {
            self.end(ticket);
        }
    }

    /// Whether there is something to take.
    #[must_use]
    pub fn has_outgoing(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// Swaps everything that is to be sent into `bytes`, whose contents are dropped. Says whether
    /// there was anything.
    pub fn take_outgoing(&mut self, bytes: &mut Vec<u8>) -> bool {
        bytes.clear();
        std::mem::swap(bytes, &mut self.outgoing);
        for ticket in std::mem::take(&mut self.roomless) {
            self.advance_if(ticket, For::Room);
        }
        !bytes.is_empty()
    }

    /// Tickets that became ready: whoever waits for them polls again. Some may have ended
    /// meanwhile.
    pub fn take_ready(&mut self) -> impl Iterator<Item = Ticket> + '_ {
        self.ready.drain(..)
    }

    /// Takes replies in: whole packets.
    ///
    /// # Errors
    /// [`packet::Bad`] at the first place that is none; what came before was taken.
    pub fn deliver(&mut self, bytes: &Bytes) -> Result<(), packet::Bad> {
        let mut at = 0;
        while at < bytes.len() {
            let (packet, length) = match packet::read(&bytes[at..])? {
                Some(found) => found,
                None => return Err(packet::Bad::Length((bytes.len() - at) as u32)),
            };
            if packet.kind != Kind::Reply {
                return Err(packet::Bad::Kind(packet.kind as u16, length, packet.request));
            }
            let ticket = Ticket::of_request_id(packet.request);
            self.answered(ticket, bytes.slice(at + PACKET_HEADER_BYTES..at + length));
            at += length;
        }
        Ok(())
    }

    /// Whether anything is under way, so that time matters.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        !self.slots.is_empty()
    }

    /// Whether the server has answered the greeting of the last connection kindly. If it never
    /// does, it is not to be connected to again and again without a pause.
    #[must_use]
    pub fn is_welcome(&self) -> bool {
        self.welcome
    }

    /// The address of the node that a server named as the leader, once.
    pub fn take_hint(&mut self) -> Option<String> {
        self.hint.take()
    }

    /// Where the nodes of the cluster are, once, after [`Core::ask_cluster`].
    pub fn take_addresses(&mut self) -> Option<Vec<String>> {
        self.addresses.take()
    }

    /// Whether the server of this connection is about to end, so that another is better asked.
    #[must_use]
    pub fn is_leaving(&self) -> bool {
        self.leaves
    }

    /// Whether the connection may be given up for another without leaving anybody in doubt: what is
    /// under way can all be sent again.
    #[must_use]
    pub fn may_move(&self) -> bool {
        self.slots
            .iter()
            .all(|(_, slot)| !matches!(slot.state, State::Sent) || retry::may_repeat(slot))
    }

    fn insert(&mut self, request: Request, owner: Owner) -> Ticket {
        self.generation = self.generation.wrapping_add(1);
        let generation = self.generation;
        let key = self.slots.insert(Slot {
            generation,
            request,
            owner,
            state: State::Granted,
            number: None,
            in_doubt: false,
            rerouted: false,
            attempts: 0,
            last: None,
            deadline_ms: None,
        });
        let key = u32::try_from(key).expect("the table is bounded below 2^32");
        Ticket { key, generation }
    }

    fn slot(&mut self, ticket: Ticket) -> &mut Slot {
        self.find(ticket).expect("a ticket is used until it has ended")
    }

    fn find(&mut self, ticket: Ticket) -> Option<&mut Slot> {
        self.slots.get_mut(ticket.index()).filter(|slot| slot.generation == ticket.generation)
    }

    /// Takes a request out of the table and settles its number.
    fn end(&mut self, ticket: Ticket) -> Slot {
        self.drop_reply(ticket);
        let slot = self.slots.remove(ticket.index());
        if let (About::Namespace(key), Some((session, sequence))) =
            (slot.request.about, slot.number)
            && let Some(place) = self.places.find(key)
            && let Some(window) = place.window_of(session)
            && window.settle(sequence)
        {
            self.hand_out_numbers(key);
        }
        slot
    }
}

/// The error and the hint of a reply that is one; `Malformed` for a reply that can't be read.
fn failure_of(reply: &[u8]) -> Option<(Error, String)> {
    match read_failure(reply) {
        Ok(failure) => failure,
        Err(refusal) => {
            let error = Error::new(Code::Malformed, format!("the reply can't be read: {refusal}"));
            Some((error.with_outcome(Outcome::Unknown), String::new()))
        }
    }
}

fn read_failure(reply: &[u8]) -> Result<Option<(Error, String)>, Refusal> {
    let message = Message::new(reply)?;
    let root: schema::reply::Reader<'_> = message.root()?;
    let schema::reply::Which::Error(failure) = root.which()? else { return Ok(None) };
    // A code of a later release is told by its number; what became of the request is told all the
    // same.
    let number = failure.get_code();
    let code = Code::from_number(number).unwrap_or(Code::UnknownKind);
    let mut detail = failure.get_detail()?.to_string()?;
    if code as u16 != number {
        detail = format!("error number {number}: {detail}");
    }
    let outcome = if failure.get_unknown() { Outcome::Unknown } else { Outcome::NotDone };
    let hint = failure.get_hint()?.to_string()?;
    let error = Error { hint: hint.clone(), ..Error::new(code, detail).with_outcome(outcome) };
    Ok(Some((error, hint)))
}

/// An error of the last attempt, said of all attempts together.
fn in_doubt(slot: &Slot, error: Error) -> Error {
    match slot.request.changes {
        false => error.with_outcome(Outcome::NotDone),
        true if slot.in_doubt => error.with_outcome(Outcome::Unknown),
        true => error,
    }
}

/// A request that waited in vain. Of a read only that it can't be had for now is worth knowing.
fn late(slot: &Slot, detail: String) -> Error {
    match slot.request.changes {
        false => Error::new(Code::Unavailable, detail),
        true => Error::new(Code::TimedOut, detail),
    }
}

fn session_in_doubt() -> Error {
    Error::new(
        Code::SessionExpired,
        "the session ended while the reply of this request was lost: whether it happened can't be \
         told; read what it would have written. Later requests use a new session",
    )
}

/// What the numbers of a commit's explicit session are, when its caller does not say which replies
/// he has: as if he had all that are too old to be kept beside this one.
#[must_use]
pub fn acked_below_of(sequence: Sequence) -> Sequence {
    let kept = naust_wire::limits::SESSION_WINDOW_MAX as u64;
    Sequence((sequence.0 + 1).saturating_sub(kept).max(1))
}
