//! What to do about a failed attempt. A table of rules, without state.

use super::request::{Identity, Repeat, Slot};
use naust_wire::{Code, Outcome};

/// First pause before another attempt, in milliseconds; it doubles with each.
const PAUSE_MS_MIN: u64 = 10;
/// Longest pause.
const PAUSE_MS_MAX: u64 = 1_000;
/// Longest pause while there is no leader, or another one: that is over in a moment.
const PAUSE_MS_MAX_LEADERLESS: u64 = 80;

/// What the client does when the server says that it is overloaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum OnOverload {
    /// Pause and try again until the deadline.
    #[default]
    Wait,
    /// Tell the caller at once.
    Refuse,
}

/// What follows from a failed attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The caller gets the error.
    Fail,
    /// Try again after a pause.
    Pause,
    /// The session is gone: forget it, and number the commit anew in another one, unless an earlier
    /// attempt's reply was lost and it may have been applied.
    Renumber,
    /// The shard is not where it was thought to be: look it up again.
    Reroute,
}

/// Judges an attempt of `slot` that was answered `code` with `outcome`.
pub(super) fn judge(slot: &Slot, code: Code, outcome: Outcome, on_overload: OnOverload) -> Verdict {
    match code {
        Code::SessionExpired if slot.request.identity == Identity::Client => Verdict::Renumber,
        Code::NamespaceNotFound if !slot.rerouted => Verdict::Reroute,
        Code::Overloaded if on_overload == OnOverload::Refuse => Verdict::Fail,
        Code::Overloaded | Code::Unavailable | Code::NotLeader | Code::ShuttingDown
            if outcome == Outcome::NotDone =>
        {
            Verdict::Pause
        }
        Code::Interrupted if may_repeat(slot) => Verdict::Pause,
        _ => Verdict::Fail,
    }
}

/// Whether a request whose reply was lost may be sent again.
pub(super) fn may_repeat(slot: &Slot) -> bool {
    slot.request.repeat == Repeat::Always
}

/// The pause before the attempt after `attempts` refused ones, the last with `code`; spread by
/// `key`, so that not all come back at once.
pub(super) fn pause_ms(code: Code, attempts: u32, key: u32) -> u64 {
    let longest = match code {
        Code::Overloaded => PAUSE_MS_MAX,
        _ => PAUSE_MS_MAX_LEADERLESS,
    };
    let pause = (PAUSE_MS_MIN << attempts.min(7)).min(longest);
    pause + u64::from(key).wrapping_mul(7) % (pause / 2)
}

#[cfg(test)]
mod tests {
    use super::super::request::{About, Owner, Request, State};
    use super::*;
    use naust_wire::packet::Kind;

    fn slot(repeat: Repeat, identity: Identity, in_doubt: bool) -> Slot {
        let request = Request {
            kind: Kind::Commit,
            about: About::Directory,
            repeat,
            changes: true,
            identity,
            timeout_ms: 1,
        };
        Slot {
            generation: 0,
            request,
            owner: Owner::Caller,
            state: State::Sent,
            number: None,
            in_doubt,
            rerouted: false,
            attempts: 0,
            last: None,
            deadline_ms: None,
        }
    }

    #[test]
    fn every_code_has_its_rule() {
        use Code::*;
        let ours = slot(Repeat::Always, Identity::Client, false);
        let doubt = slot(Repeat::Always, Identity::Client, true);
        let once = slot(Repeat::WhenNotDone, Identity::None, false);
        for code in Code::ALL {
            let judged = |slot: &Slot| judge(slot, *code, code.outcome(), OnOverload::Wait);
            let expected = match code {
                Overloaded | Unavailable | NotLeader | ShuttingDown => [Verdict::Pause; 3],
                Interrupted => [Verdict::Pause, Verdict::Pause, Verdict::Fail],
                SessionExpired => [Verdict::Renumber, Verdict::Renumber, Verdict::Fail],
                NamespaceNotFound => [Verdict::Reroute; 3],
                _ => [Verdict::Fail; 3],
            };
            assert_eq!([judged(&ours), judged(&doubt), judged(&once)], expected, "{code}");
        }
        let refused = judge(&ours, Overloaded, Outcome::NotDone, OnOverload::Refuse);
        assert_eq!(refused, Verdict::Fail);
        let unknown = judge(&ours, Unavailable, Outcome::Unknown, OnOverload::Wait);
        assert_eq!(unknown, Verdict::Fail);
    }

    #[test]
    fn pauses_grow_to_a_bound() {
        let pauses = |code| (0..10).map(move |attempts| pause_ms(code, attempts, 0));
        let overloaded: Vec<u64> = pauses(Code::Overloaded).collect();
        assert_eq!(overloaded, [10, 20, 40, 80, 160, 320, 640, 1000, 1000, 1000]);
        let leaderless: Vec<u64> = pauses(Code::Unavailable).collect();
        assert_eq!(leaderless, [10, 20, 40, 80, 80, 80, 80, 80, 80, 80]);
        let spread = |key| pause_ms(Code::Overloaded, 30, key);
        assert!((0..1000).all(|key| (1000..1500).contains(&spread(key))));
    }
}
