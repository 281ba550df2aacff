//! What a failed request says.

use naust_wire::message::Refusal;
use naust_wire::reply::{Failure, Refused};
use naust_wire::{Code, Outcome};

/// Why a request failed and what became of it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[error("{code}: {detail}")]
pub struct Error {
    /// The stable code.
    pub code: Code,
    /// Whether it was definitely not done, or may have been. It can differ from the code's usual
    /// outcome: a request that timed out before it was ever sent was not done.
    pub outcome: Outcome,
    /// What is wrong and what to do, in a sentence.
    pub detail: String,
    /// What may help: the address of a node that may do better; with [`Code::OffsetTrimmed`] of the
    /// log, the offset at which it goes on. Empty: nothing.
    pub hint: String,
    /// With [`Code::ConditionFailed`]: which condition failed, and what was found instead.
    pub refused: Option<Refused>,
}

impl Error {
    /// An error with its code's usual outcome.
    pub fn new(code: Code, detail: impl Into<String>) -> Error {
        let (outcome, hint) = (code.outcome(), String::new());
        Error { code, outcome, detail: detail.into(), hint, refused: None }
    }

    /// The same error with another outcome.
    #[must_use]
    pub fn with_outcome(mut self, outcome: Outcome) -> Error {
        self.outcome = outcome;
        self
    }

    /// Whether a condition of the commit failed: read again and decide anew.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        self.code == Code::ConditionFailed
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Error {
        Error::new(refusal.code, refusal.detail)
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Error {
        let error = Error::new(failure.code, failure.detail).with_outcome(failure.outcome);
        Error { hint: failure.hint, ..error }
    }
}

impl From<Refused> for Error {
    fn from(refused: Refused) -> Error {
        let found = match refused.found.0 {
            0 => "there is no row".to_owned(),
            found => format!("the newest version is {found}"),
        };
        let detail = format!(
            "condition number {} failed: {found}; read again and decide anew",
            refused.condition
        );
        Error { refused: Some(refused), ..Error::new(Code::ConditionFailed, detail) }
    }
}
