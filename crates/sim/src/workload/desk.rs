//! What a client makes and removes in the directory, exactly once: each request has a number of a
//! session there, and is sent again until its fate is known; now and then once more, to be answered
//! alike.

use super::keys;
use crate::generator::Generator;
use naust_wire::control::Control;
use naust_wire::options::NamespaceOptions;
use naust_wire::reply::{Failure, Reply};
use naust_wire::{Code, Numbers, Outcome, Sequence, SessionId};

/// Requests that one client numbers in its life.
const REQUESTS_MAX: u64 = 8;
/// Namespaces that all clients make and remove, beside those that they work in.
const NAMES: u64 = 2;

/// A client's session with the directory, and what it asked for there.
#[derive(Clone, Debug, Default)]
pub struct Desk {
    session: Option<SessionId>,
    opens: bool,
    next: u64,
    /// Something is to be asked for.
    wanted: bool,
    open: Option<Open>,
}

/// A request whose fate is not known yet, or that is asked once more.
#[derive(Clone, Debug)]
struct Open {
    numbers: Numbers,
    control: Control,
    under_way: bool,
    /// So many times more, when its fate is known.
    again: u64,
}

/// What is to be sent.
#[derive(Clone, Debug)]
pub enum Step {
    /// A session has to be opened first.
    Open(Control),
    /// A request that a session numbers.
    Ask(Numbers, Control),
}

impl Desk {
    /// Something is to be made or removed, if there was not enough of that.
    pub fn want(&mut self) {
        self.wanted = self.next < REQUESTS_MAX;
    }

    /// Whether nothing is under way and nothing is to be sent again.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        !self.wanted && !self.opens && self.open.is_none()
    }

    /// What is to be sent now.
    pub fn step(&mut self, generator: &mut Generator) -> Option<Step> {
        if let Some(open) = &mut self.open {
            let is_due = !std::mem::replace(&mut open.under_way, true);
            return is_due.then(|| Step::Ask(open.numbers, open.control.clone()));
        }
        if !self.wanted || self.opens {
            return None;
        }
        let Some(session) = self.session else {
            self.opens = true;
            let nonce = generator.draw();
            return Some(Step::Open(Control::OpenSession { ttl_ms: 0, nonce }));
        };
        self.wanted = false;
        self.next += 1;
        let sequence = Sequence(self.next);
        let numbers = Numbers { session, sequence, acked_below: sequence };
        let name = keys::made(generator.below(NAMES));
        let control = if generator.coin() {
            Control::CreateNamespace { name, options: NamespaceOptions::default() }
        } else if generator.below(4) == 0 {
            // Nobody works in it: nothing is lost that was acknowledged.
            Control::DeleteNamespace(name)
        } else {
            Control::CloseNamespace(name)
        };
        let again = generator.below(3);
        self.open = Some(Open { numbers, control: control.clone(), under_way: true, again });
        Some(Step::Ask(numbers, control))
    }

    /// The connection is gone.
    pub fn lost(&mut self) {
        self.opens = false;
        if let Some(open) = &mut self.open {
            open.under_way = false;
        }
    }

    /// Nothing new is to be asked for.
    pub fn finish(&mut self) {
        self.wanted = false;
    }

    /// An answer came to what was sent.
    pub fn heard(&mut self, reply: &Reply) {
        if std::mem::take(&mut self.opens) {
            if let Reply::Session(session) = reply {
                (self.session, self.next) = (Some(*session), 0);
            }
            return;
        }
        let Some(open) = &mut self.open else { return };
        open.under_way = false;
        let is_known = match reply {
            Reply::Error(Failure { code: Code::SessionExpired, .. }) => {
                (self.session, self.open) = (None, None);
                return;
            }
            Reply::Error(Failure { outcome: Outcome::Unknown, .. }) => false,
            Reply::Error(failure) => !may_pass(failure.code),
            _ => true,
        };
        if !is_known {
            return;
        }
        if open.again == 0 {
            self.open = None;
        } else {
            open.again -= 1;
        }
    }
}

/// Whether the same may be done later.
fn may_pass(code: Code) -> bool {
    use Code::{
        Corrupt, DiskFull, Interrupted, NotLeader, Overloaded, ShuttingDown, TimedOut, Unavailable,
    };
    matches!(
        code,
        Unavailable
            | Overloaded
            | DiskFull
            | ShuttingDown
            | Interrupted
            | NotLeader
            | Corrupt
            | TimedOut
    )
}
