//! Time passes, and connections come and go.

use super::request::{For, Owner, State, Ticket};
use super::{Connection, Core, in_doubt, late, retry};
use crate::Error;
use naust_wire::{Code, Outcome};
use std::cmp::Reverse;

impl Core {
    /// The connection stands: greets, and sends again what waited for it.
    pub fn up(&mut self) {
        match self.connection {
            Connection::Closed(_) => return,
            Connection::Up => self.down("the connection was replaced"),
            Connection::Down => {}
        }
        self.connection = Connection::Up;
        self.welcome = false;
        self.leaves = false;
        self.leaderless_since_ms = None;
        self.greet();
        for key in self.places.keys() {
            self.restart(key);
        }
        for ticket in self.tickets(|state| matches!(state, State::Waiting(For::Link))) {
            self.advance(ticket);
        }
    }

    /// The connection is lost. What may be repeated waits for the next; what may not ends here.
    pub fn down(&mut self, why: &str) {
        if !matches!(self.connection, Connection::Up) {
            return;
        }
        self.connection = Connection::Down;
        self.outgoing.clear();
        self.drop_nobodys();
        for place in self.places.iter_mut() {
            place.disconnect();
        }
        self.forget_idle_places();
        for ticket in std::mem::take(&mut self.roomless) {
            self.advance_if(ticket, For::Room);
        }
        for ticket in self.tickets(|state| matches!(state, State::Sent)) {
            let slot = self.slot(ticket);
            slot.in_doubt = true;
            if retry::may_repeat(slot) {
                slot.state = State::Waiting(For::Link);
            } else {
                let detail = format!(
                    "the connection was lost before the reply came ({why}); whether it was done is \
                     not known"
                );
                self.fail(ticket, Error::new(Code::Interrupted, detail));
            }
        }
    }

    /// There will be no connection any more: everything ends, now and later.
    pub fn close(&mut self) {
        let detail = "the node behind this client was closed; open it, or connect, again";
        self.close_with(Error::new(Code::ShuttingDown, detail));
    }

    /// The same, with the reason.
    pub fn close_for(&mut self, error: Error) {
        self.close_with(error);
    }

    pub(super) fn close_with(&mut self, error: Error) {
        if matches!(self.connection, Connection::Closed(_)) {
            return;
        }
        self.outgoing.clear();
        self.roomless.clear();
        self.drop_nobodys();
        for place in self.places.iter_mut() {
            place.disconnect();
            place.unrouted.clear();
            place.unnumbered.clear();
        }
        self.forget_idle_places();
        for ticket in self.tickets(|state| !matches!(state, State::Answered(_) | State::Failed(_)))
        {
            let slot = self.slot(ticket);
            slot.in_doubt |= matches!(slot.state, State::Sent);
            let error = match slot.state {
                State::Sent => Error::new(Code::Interrupted, error.detail.clone()),
                _ => error.clone(),
            };
            self.fail(ticket, error);
        }
        self.connection = Connection::Closed(error);
    }

    /// Time passed. Deadlines count from the first tick that sees a request; pauses end; what was
    /// not answered ends.
    pub fn tick(&mut self, now_ms: u64) {
        self.now_ms = self.now_ms.max(now_ms);
        if self.slots.is_empty() {
            return;
        }
        let now_ms = self.now_ms;
        for place in self.places.iter_mut() {
            place.end_pauses(now_ms);
        }
        for key in self.places.keys() {
            self.restart(key);
        }
        let mut expired = Vec::new();
        let mut paused = Vec::new();
        for (key, slot) in &mut self.slots {
            let ticket = Ticket { key: key as u32, generation: slot.generation };
            let timeout_ms = slot.request.timeout_ms;
            let deadline = *slot.deadline_ms.get_or_insert(now_ms.saturating_add(timeout_ms));
            match slot.state {
                State::Answered(_) | State::Failed(_) => {}
                _ if deadline <= now_ms => expired.push(ticket),
                State::Waiting(For::Pause(until)) if until <= now_ms => paused.push(ticket),
                _ => {}
            }
        }
        self.sort(&mut paused);
        for ticket in paused {
            self.advance(ticket);
        }
        for ticket in expired {
            self.expire(ticket);
        }
    }

    fn expire(&mut self, ticket: Ticket) {
        let Some(slot) = self.find(ticket) else { return };
        let timeout_ms = slot.request.timeout_ms;
        let detail = format!("no reply within {timeout_ms} ms");
        match slot.owner {
            Owner::Caller => {}
            owner => {
                self.end(ticket);
                self.failed_inner(owner, Error::new(Code::TimedOut, detail));
                return;
            }
        }
        let error = match (&slot.state, slot.last.take()) {
            (State::Sent, None) => in_doubt(slot, late(slot, detail)),
            // Why it was sent again may be why there is no reply.
            (State::Sent, Some(last)) => {
                in_doubt(slot, late(slot, format!("{detail}; before that: {}", last.detail)))
            }
            (_, Some(last)) => in_doubt(slot, last),
            (State::Waiting(For::Link), None) => {
                let detail = format!("no connection to a server within {timeout_ms} ms");
                in_doubt(slot, late(slot, detail).with_outcome(Outcome::NotDone))
            }
            (_, None) => {
                let detail = format!("it could not be sent within {timeout_ms} ms");
                in_doubt(slot, late(slot, detail).with_outcome(Outcome::NotDone))
            }
        };
        slot.state = State::Failed(error);
        self.ready.push(ticket);
    }

    fn forget_idle_places(&mut self) {
        for key in self.places.keys() {
            self.places.forget_if_idle(key);
        }
    }

    /// Ends the core's own requests and those that nobody waits for: their replies will not come.
    fn drop_nobodys(&mut self) {
        let nobodys: Vec<Ticket> = self
            .slots
            .iter()
            .filter(|(_, slot)| slot.owner != Owner::Caller)
            .map(|(key, slot)| Ticket { key: key as u32, generation: slot.generation })
            .collect();
        for ticket in nobodys {
            self.end(ticket);
        }
    }

    /// Those of callers in a state, in the order in which they were begun: so they are sent again.
    fn tickets(&self, which: impl Fn(&State) -> bool) -> Vec<Ticket> {
        let mut tickets: Vec<Ticket> = self
            .slots
            .iter()
            .filter(|(_, slot)| slot.owner == Owner::Caller && which(&slot.state))
            .map(|(key, slot)| Ticket { key: key as u32, generation: slot.generation })
            .collect();
        self.sort(&mut tickets);
        tickets
    }

    /// The oldest first. Generations wrap, but long after what they count has ended.
    fn sort(&self, tickets: &mut [Ticket]) {
        let age = |ticket: &Ticket| self.generation.wrapping_sub(ticket.generation);
        tickets.sort_unstable_by_key(|ticket| Reverse(age(ticket)));
    }
}
