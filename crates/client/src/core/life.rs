//! How a request moves from state to state: what it waits for, when it is sent, what its reply
//! means.

use super::places::{Route, Session};
use super::request::{For, Owner, Slot, State};
use super::retry::{self, Verdict};
use super::{
    About, Connection, Core, Identity, NamespaceKey, Numbers, Ticket, in_doubt, session_in_doubt,
};
use crate::Error;
use bytes::Bytes;
use naust_wire::limits::{CLIENT_OUTGOING_BYTES_MAX, CLIENT_REPLY_BYTES_MAX, CLIENT_REQUESTS_MAX};
use naust_wire::message::Refusal;
use naust_wire::packet;
use naust_wire::{Code, Outcome, SessionId, ShardId};

/// Milliseconds without a leader after which another node is asked.
const LEADERLESS_MS_MAX: u64 = 1_000;

impl Core {
    /// Finds out what a request has to wait for next, and puts it there.
    pub(super) fn advance(&mut self, ticket: Ticket) {
        let state = self.next_state(ticket);
        let slot = self.slot(ticket);
        let ready = matches!(state, State::Granted | State::Failed(_));
        slot.state = state;
        if ready && slot.owner == Owner::Caller {
            self.ready.push(ticket);
        }
    }

    /// The same, if it still waits for this.
    pub(super) fn advance_if(&mut self, ticket: Ticket, waits_for: For) {
        let waits =
            |slot: &mut Slot| matches!(slot.state, State::Waiting(what) if what == waits_for);
        if self.find(ticket).is_some_and(waits) {
            self.advance(ticket);
        }
    }

    pub(super) fn next_state(&mut self, ticket: Ticket) -> State {
        match &self.connection {
            Connection::Up => {}
            Connection::Down => return State::Waiting(For::Link),
            Connection::Closed(why) => {
                let error = why.clone();
                return State::Failed(in_doubt(self.slot(ticket), error));
            }
        }
        let request = self.slot(ticket).request;
        let About::Namespace(key) = request.about else { return State::Granted };
        if !matches!(self.places.get(key).route, Route::Known(_)) {
            self.ask_route(key);
            self.enqueue(key, ticket, For::Route);
            return State::Waiting(For::Route);
        }
        if request.identity != Identity::Client {
            return State::Granted;
        }
        self.next_numbered(key, ticket)
    }

    /// The same, for what is numbered in the client's own session and has a route.
    fn next_numbered(&mut self, key: NamespaceKey, ticket: Ticket) -> State {
        if let Some((session, _)) = self.slot(ticket).number {
            if self.places.get(key).window_of(session).is_some() {
                return State::Granted;
            }
            let slot = self.slot(ticket);
            if slot.in_doubt {
                return State::Failed(session_in_doubt());
            }
            slot.number = None;
        }
        let place = self.places.get(key);
        if place.unnumbered.is_empty()
            && let Session::Open(window) = &mut place.session
            && let Some(sequence) = window.take()
        {
            let number = (window.session(), sequence);
            self.slot(ticket).number = Some(number);
            return State::Granted;
        }
        self.ask_session(key);
        self.enqueue(key, ticket, For::Number);
        State::Waiting(For::Number)
    }

    /// Puts a ticket at the end of a namespace's queue, which never holds many more than are alive.
    fn enqueue(&mut self, key: NamespaceKey, ticket: Ticket, waits_for: For) {
        let slots = &self.slots;
        let place = self.places.get(key);
        let queue = match waits_for {
            For::Route => &mut place.unrouted,
            _ => &mut place.unnumbered,
        };
        if queue.len() >= 2 * CLIENT_REQUESTS_MAX {
            queue.retain(|waiting| {
                slots.get(waiting.index()).is_some_and(|s| s.generation == waiting.generation)
            });
        }
        queue.push_back(ticket);
    }

    /// Lets commits that wait for a number have one, in their order, while there are any.
    pub(super) fn hand_out_numbers(&mut self, key: NamespaceKey) {
        loop {
            let Some(place) = self.places.find(key) else { return };
            let Session::Open(window) = &mut place.session else { return };
            if window.room() == 0 {
                return;
            }
            let session = window.session();
            let Some(ticket) = place.unnumbered.pop_front() else { return };
            let waits = |slot: &mut Slot| matches!(slot.state, State::Waiting(For::Number));
            if !self.find(ticket).is_some_and(waits) {
                continue;
            }
            let window = self.places.get(key).window_of(session).expect("it was open just now");
            let sequence = window.take().expect("there was room just now");
            let slot = self.slot(ticket);
            slot.number = Some((session, sequence));
            slot.state = State::Granted;
            self.ready.push(ticket);
        }
    }

    /// Puts the packet of a granted request into the buffer, or finds out why not.
    pub(super) fn send<E>(&mut self, ticket: Ticket, encode: &mut E) -> Result<(), Refusal>
    where
        E: FnMut(&Numbers, &mut Vec<u8>) -> Result<(), Refusal>,
    {
        // The connection or the session may have gone since it was granted; a number is kept.
        let state = self.next_state(ticket);
        if !matches!(state, State::Granted) {
            self.slot(ticket).state = state;
            return Ok(());
        }
        if self.outgoing.len() >= CLIENT_OUTGOING_BYTES_MAX {
            self.slot(ticket).state = State::Waiting(For::Room);
            self.roomless.push(ticket);
            return Ok(());
        }
        let request = self.slot(ticket).request;
        let (shard, numbers) = self.numbers(ticket);
        let start = packet::begin(&mut self.outgoing);
        if let Err(refusal) = encode(&numbers, &mut self.outgoing) {
            self.outgoing.truncate(start);
            return Err(refusal);
        }
        packet::finish(start, request.kind, ticket.request_id(), shard, &mut self.outgoing);
        self.slot(ticket).state = State::Sent;
        Ok(())
    }

    pub(super) fn numbers(&mut self, ticket: Ticket) -> (ShardId, Numbers) {
        let slot = self.slot(ticket);
        let (request, number) = (slot.request, slot.number);
        let key = match request.about {
            About::Namespace(key) => key,
            About::Part(shard) => return (shard, Numbers::NONE),
            About::Node => return (ShardId::DIRECTORY, Numbers::NONE),
            About::Directory => unreachable!("it is a place since it was taken in"),
        };
        let place = self.places.get(key);
        let Route::Known(shard) = place.route else { panic!("what is granted has a route") };
        let numbers = match (request.identity, number) {
            (Identity::Client, Some((session, sequence))) => {
                let window = place.window_of(session).expect("a granted number is of this session");
                Numbers { session, sequence, acked_below: window.acked_below() }
            }
            (Identity::Explicit { session, sequence, acked_below }, _) => {
                Numbers { session, sequence, acked_below }
            }
            _ => Numbers::NONE,
        };
        (shard, numbers)
    }

    /// A reply came.
    pub(super) fn answered(&mut self, ticket: Ticket, reply: Bytes) {
        let Some(slot) = self.find(ticket) else { return };
        if !matches!(slot.state, State::Sent) {
            return;
        }
        match slot.owner {
            Owner::Caller => {
                let is_read = !slot.request.changes;
                let bytes = reply.len();
                slot.state = State::Answered(reply);
                self.unread.bytes += bytes;
                self.ready.push(ticket);
                if is_read {
                    self.unread.reads.push_back(ticket);
                }
                self.bound_unread();
            }
            owner => {
                self.end(ticket);
                self.answered_inner(owner, &reply);
            }
        }
    }

    /// Drops replies of reads that nobody took, the oldest first and never the newest, until few
    /// enough bytes are left.
    fn bound_unread(&mut self) {
        while self.unread.bytes > CLIENT_REPLY_BYTES_MAX && self.unread.reads.len() > 1 {
            let Some(ticket) = self.unread.reads.pop_front() else { return };
            if self.drop_reply(ticket) {
                let detail = format!(
                    "its reply was dropped: more than {CLIENT_REPLY_BYTES_MAX} bytes of replies \
                     waited for somebody to take them; poll what was begun"
                );
                let slot = self.slot(ticket);
                slot.last = Some(Error::new(Code::Overloaded, detail));
                slot.state = State::Granted;
            }
        }
        if self.unread.reads.len() > 2 * CLIENT_REQUESTS_MAX {
            let slots = &self.slots;
            self.unread.reads.retain(|ticket| {
                let slot = slots.get(ticket.index());
                slot.is_some_and(|slot| slot.generation == ticket.generation)
            });
        }
    }

    /// Takes the reply out of a request that was answered, if it was: its state is to be set.
    pub(super) fn drop_reply(&mut self, ticket: Ticket) -> bool {
        let Some(slot) = self.find(ticket) else { return false };
        let State::Answered(reply) = &mut slot.state else { return false };
        let bytes = std::mem::take(reply).len();
        self.unread.bytes -= bytes;
        true
    }

    /// An attempt of a caller's request was answered with an error: decides what follows.
    pub(super) fn refused(&mut self, ticket: Ticket, error: Error, hint: String) {
        // With this code it is an offset.
        if !hint.is_empty() && error.code != Code::OffsetTrimmed {
            self.hint = Some(hint);
        }
        self.look_elsewhere(error.code);
        let on_overload = self.options.on_overload;
        let slot = self.slot(ticket);
        let about = slot.request.about;
        let session = slot.number.map(|(session, _)| session);
        match retry::judge(slot, error.code, error.outcome, on_overload) {
            Verdict::Fail => slot.state = State::Failed(in_doubt(slot, error)),
            Verdict::Pause => self.pause(ticket, error),
            Verdict::Reroute => {
                slot.rerouted = true;
                match about {
                    About::Namespace(key) if !self.places.is_directory(key) => {
                        self.forget_route(key);
                        self.advance(ticket);
                    }
                    _ => {
                        let slot = self.slot(ticket);
                        slot.state = State::Failed(in_doubt(slot, error));
                    }
                }
            }
            Verdict::Renumber => {
                self.forget_session(about, session);
                self.advance(ticket);
            }
        }
    }

    /// A server that is about to end is left for another; so is one that can do nothing for a while
    /// for want of a leader: it may be cut off from it.
    pub(super) fn look_elsewhere(&mut self, code: Code) {
        match code {
            Code::ShuttingDown => self.leaves = true,
            Code::Unavailable | Code::NotLeader => {
                let since = *self.leaderless_since_ms.get_or_insert(self.now_ms);
                self.leaves |= self.now_ms >= since + LEADERLESS_MS_MAX;
            }
            _ => {}
        }
    }

    /// Another attempt is made after a pause, unless the deadline comes first, or there will be no
    /// connection any more: then nobody ends the pause.
    fn pause(&mut self, ticket: Ticket, error: Error) {
        let now_ms = self.now_ms;
        let closed = matches!(self.connection, Connection::Closed(_));
        let slot = self.slot(ticket);
        slot.in_doubt |= error.outcome == Outcome::Unknown;
        let until = now_ms + retry::pause_ms(error.code, slot.attempts, ticket.key);
        slot.attempts += 1;
        if closed || slot.deadline_ms.is_some_and(|deadline| until >= deadline) {
            slot.state = State::Failed(in_doubt(slot, error));
        } else {
            slot.last = Some(error);
            slot.state = State::Waiting(For::Pause(until));
        }
    }

    fn forget_session(&mut self, about: About, session: Option<SessionId>) {
        if let (About::Namespace(key), Some(session)) = (about, session) {
            let place = self.places.get(key);
            if place.window_of(session).is_some() {
                place.session = Session::None;
            }
        }
    }

    pub(super) fn forget_route(&mut self, key: NamespaceKey) {
        if self.places.is_directory(key) {
            return;
        }
        let place = self.places.get(key);
        if let Route::Known(_) = place.route {
            place.route = Route::Unknown;
        }
    }
}
