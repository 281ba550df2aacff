//! The core's own requests: the greeting of a connection, the shard of a namespace, its session
//! there.
//!
//! Nobody outside waits for them, so nobody can drop them half way: a future that needs a session
//! and is dropped leaves an opening session behind for the next one.

use super::places::{Route, Session};
use super::request::{About, For, Identity, Owner, Repeat, Request, State};
use super::{Connection, Core, OnOverload, Window, failure_of, retry};
use crate::Error;
use naust_wire::ask::{Ask, Listing};
use naust_wire::control::Control;
use naust_wire::packet::{self, Kind};
use naust_wire::reply::{self, Reply};
use naust_wire::{Code, ShardId};
use std::collections::VecDeque;

use super::request::{NamespaceKey, Ticket};

/// Milliseconds that the core waits for an answer of its own before it asks again.
const INNER_TIMEOUT_MS: u64 = 5_000;

impl Core {
    /// The first packet of a connection.
    pub(super) fn greet(&mut self) {
        let hello =
            Ask::Hello { token: self.options.token.clone(), client: self.options.name.clone() };
        self.send_inner(Owner::Hello, About::Node, Kind::Ask, |out| hello.encode(out));
    }

    /// Asks for the shard of a namespace, unless the answer is under way or not to be asked for
    /// yet.
    pub(super) fn ask_route(&mut self, key: NamespaceKey) {
        let place = self.places.get(key);
        if place.route != Route::Unknown {
            return;
        }
        place.route = Route::Asked;
        let ask = Ask::Resolve(place.name.to_string());
        self.send_inner(Owner::Resolve(key), About::Node, Kind::Ask, |out| ask.encode(out));
    }

    /// Asks for a session in a namespace with a route, unless there is one, or the same as above.
    pub(super) fn ask_session(&mut self, key: NamespaceKey) {
        let place = self.places.get(key);
        if !matches!(place.session, Session::None) || !matches!(place.route, Route::Known(_)) {
            return;
        }
        place.session = Session::Asked;
        self.sessions_asked += 1;
        let nonce = self.options.nonce.wrapping_add(self.sessions_asked);
        let open = Control::OpenSession { ttl_ms: self.options.session_ttl_ms, nonce };
        let about = About::Namespace(key);
        self.send_inner(Owner::OpenSession(key), about, Kind::Control, |out| open.encode(out));
    }

    /// Asks for the nodes of the cluster, to know where else to connect to.
    pub fn ask_cluster(&mut self) {
        if matches!(self.connection, Connection::Up) {
            // Nodes are told on every page; of the namespaces those are wanted that are in use.
            let from = self.places.first_name().unwrap_or_default().to_owned();
            let ask = Ask::Cluster(Listing { from, limit: 0 });
            self.send_inner(Owner::Cluster, About::Node, Kind::Ask, |out| ask.encode(out));
        }
    }

    /// What the cluster looks like: other addresses, and who leads what this client uses.
    fn seen(&mut self, nodes: &[reply::Node], namespaces: &[reply::Namespace]) {
        let address = |node: &reply::Node| node.address.clone();
        let others = nodes.iter().filter(|node| !node.address.is_empty());
        self.addresses = Some(others.map(address).collect());
        let mut leaders = namespaces
            .iter()
            .filter(|namespace| self.places.iter_mut().any(|place| *place.name == namespace.name))
            .map(|namespace| namespace.leader);
        let first = leaders.next();
        if leaders.all(|leader| Some(leader) == first)
            && let Some(leader) = nodes.iter().find(|node| Some(node.id) == first && node.up)
        {
            self.hint = Some(address(leader));
        }
    }

    fn send_inner(
        &mut self,
        owner: Owner,
        about: About,
        kind: Kind,
        encode: impl FnOnce(&mut Vec<u8>),
    ) {
        let request = Request {
            kind,
            about,
            repeat: Repeat::Always,
            changes: kind == Kind::Control,
            identity: Identity::None,
            timeout_ms: INNER_TIMEOUT_MS,
        };
        let ticket = self.insert(request, owner);
        let (shard, _) = self.numbers(ticket);
        let start = packet::begin(&mut self.outgoing);
        encode(&mut self.outgoing);
        packet::finish(start, kind, ticket.request_id(), shard, &mut self.outgoing);
        self.slot(ticket).state = State::Sent;
    }

    /// The reply of one of the core's own requests, or of one that nobody waits for any more.
    pub(super) fn answered_inner(&mut self, owner: Owner, reply: &[u8]) {
        let answer = match failure_of(reply) {
            Some((error, _)) => Err(error),
            None => Reply::decode(reply).map_err(Error::from),
        };
        match (owner, answer) {
            (Owner::Caller | Owner::Nobody, _) => {}
            (Owner::Hello, answer) => self.greeted(answer),
            (Owner::Resolve(key), Ok(Reply::Resolved { shard, .. })) => self.resolved(key, shard),
            (Owner::Cluster, Ok(Reply::Cluster { nodes, namespaces, .. })) => {
                self.seen(&nodes, &namespaces);
            }
            (Owner::OpenSession(key), Ok(Reply::Session(session))) => {
                let Some(place) = self.places.find(key) else { return };
                place.session = Session::Open(Box::new(Window::new(session)));
                place.attempts = 0;
                self.hand_out_numbers(key);
            }
            (owner, Ok(_)) => {
                let detail = "the server's reply does not fit what was asked";
                self.failed_inner(owner, Error::new(Code::Malformed, detail));
            }
            (owner, Err(error)) => self.failed_inner(owner, error),
        }
    }

    fn greeted(&mut self, answer: Result<Reply, Error>) {
        let Err(error) = answer else {
            self.welcome = true;
            return;
        };
        let for_good =
            [Code::Unauthorized, Code::UnknownVersion, Code::Malformed, Code::UnknownKind];
        if for_good.contains(&error.code) {
            self.close_with(error);
        }
    }

    fn resolved(&mut self, key: NamespaceKey, shard: ShardId) {
        let Some(place) = self.places.find(key) else { return };
        if place.shard_before.is_some_and(|before| before != shard) {
            place.session = Session::None;
        }
        place.route = Route::Known(shard);
        place.shard_before = Some(shard);
        place.attempts = 0;
        for ticket in std::mem::take(&mut place.unrouted) {
            self.advance_if(ticket, For::Route);
        }
        self.restart(key);
    }

    /// One of the core's own requests failed, or was not answered in time.
    pub(super) fn failed_inner(&mut self, owner: Owner, error: Error) {
        let (Owner::Resolve(key) | Owner::OpenSession(key)) = owner else { return };
        self.look_elsewhere(error.code);
        let opening = matches!(owner, Owner::OpenSession(_));
        let pause = passes(&error, self.options.on_overload);
        let now_ms = self.now_ms;
        let Some(place) = self.places.find(key) else { return };
        let until = now_ms + retry::pause_ms(error.code, place.attempts, 0);
        place.attempts += 1;
        match (opening, pause) {
            (false, true) => place.route = Route::Pause(until),
            (false, false) => place.route = Route::Unknown,
            (true, true) => place.session = Session::Pause(until),
            (true, false) => place.session = Session::None,
        }
        if pause {
            self.remember(key, &error);
        } else if opening && error.code == Code::NamespaceNotFound {
            self.reroute(key, &error);
        } else {
            self.fail_waiting(key, &error);
            self.places.forget_if_idle(key);
        }
    }

    /// The shard is gone, says the shard's node: looks the namespace up once more for those who did
    /// not yet.
    fn reroute(&mut self, key: NamespaceKey, error: &Error) {
        self.forget_route(key);
        for ticket in std::mem::take(&mut self.places.get(key).unnumbered) {
            let Some(slot) = self.find(ticket) else { continue };
            if std::mem::replace(&mut slot.rerouted, true) {
                self.fail(ticket, error.clone());
            } else {
                self.advance_if(ticket, For::Number);
            }
        }
        self.places.forget_if_idle(key);
    }

    /// Tells those who wait why they do, for when their deadline comes.
    fn remember(&mut self, key: NamespaceKey, error: &Error) {
        let place = self.places.get(key);
        let waiting: Vec<Ticket> =
            place.unrouted.iter().chain(&place.unnumbered).copied().collect();
        for ticket in waiting {
            if let Some(slot) = self.find(ticket) {
                slot.last = Some(error.clone());
            }
        }
    }

    fn fail_waiting(&mut self, key: NamespaceKey, error: &Error) {
        let place = self.places.get(key);
        let queues: [VecDeque<Ticket>; 2] =
            [std::mem::take(&mut place.unrouted), std::mem::take(&mut place.unnumbered)];
        for ticket in queues.into_iter().flatten() {
            self.fail(ticket, error.clone());
        }
    }

    /// Ends a waiting request with an error, if it is alive.
    pub(super) fn fail(&mut self, ticket: Ticket, error: Error) {
        let Some(slot) = self.find(ticket) else { return };
        if matches!(slot.state, State::Answered(_) | State::Failed(_)) {
            return;
        }
        slot.state = State::Failed(super::in_doubt(slot, error));
        self.ready.push(ticket);
    }

    /// Asks again for what somebody in a namespace waits for.
    pub(super) fn restart(&mut self, key: NamespaceKey) {
        if !matches!(self.connection, Connection::Up) {
            return;
        }
        let Some(place) = self.places.find(key) else { return };
        let (unrouted, unnumbered) = (!place.unrouted.is_empty(), !place.unnumbered.is_empty());
        if unrouted || (unnumbered && !matches!(place.route, Route::Known(_))) {
            self.ask_route(key);
        } else if unnumbered {
            self.ask_session(key);
            self.hand_out_numbers(key);
        }
    }
}

/// Whether an error will pass by itself.
fn passes(error: &Error, on_overload: OnOverload) -> bool {
    match error.code {
        Code::Overloaded => on_overload == OnOverload::Wait,
        Code::Unavailable
        | Code::NotLeader
        | Code::ShuttingDown
        | Code::Interrupted
        | Code::TimedOut => true,
        _ => false,
    }
}
