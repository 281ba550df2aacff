//! The stable error codes. Each says what became of the request: *definitely not done*, or
//! *unknown*.
//!
//! Numbers and names never change meaning and are never reused; each has a page in `docs/errors/`.

use std::fmt;

/// What became of a request that was answered with an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// It was definitely not done: nothing of it happened or will happen.
    NotDone,
    /// It may have been done, or may still be. Retrying with the same session and sequence is safe.
    Unknown,
}

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $text:literal, $outcome:ident;)*) => {
        /// Why a request failed. The number travels in replies; the text is the `code` of HTTP
        /// problems.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        #[repr(u16)]
        pub enum Code { $($(#[$doc])* $name = $number,)* }

        impl Code {
            /// All codes, in order of their numbers.
            pub const ALL: &'static [Code] = &[$(Code::$name,)*];

            /// The code of a number, if there is one.
            #[must_use]
            pub fn from_number(number: u16) -> Option<Code> {
                match number { $($number => Some(Code::$name),)* _ => None }
            }

            /// The stable name, as it stands in HTTP problems and in `docs/errors/`.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Code::$name => $text,)* }
            }

            /// What became of a request that was answered with this code, unless the reply says
            /// otherwise.
            #[must_use]
            pub fn outcome(self) -> Outcome {
                match self { $(Code::$name => Outcome::$outcome,)* }
            }
        }
    };
}

codes! {
    /// The bytes are no request: bad header, checksum, pointers, UTF-8, JSON, base64 or an unknown
    /// field.
    Malformed = 1, "malformed", NotDone;
    /// The protocol or format version is not known here.
    UnknownVersion = 2, "unknown_version", NotDone;
    /// A kind of packet, request, op or condition is not known here.
    UnknownKind = 3, "unknown_kind", NotDone;
    /// A body, batch, page or list is over its limit.
    TooLarge = 4, "too_large", NotDone;
    /// A key is empty or longer than 32 KiB.
    KeySize = 5, "key_size", NotDone;
    /// A name is empty, too long, or has characters that names can't have.
    BadName = 6, "bad_name", NotDone;
    /// An argument makes no sense: a range that ends before it begins, an offset of the future.
    BadArgument = 7, "bad_argument", NotDone;
    /// There is no namespace of that name.
    NamespaceNotFound = 8, "namespace_not_found", NotDone;
    /// A namespace of that name exists already.
    NamespaceExists = 9, "namespace_exists", NotDone;
    /// There is no keyspace of that name.
    KeyspaceNotFound = 10, "keyspace_not_found", NotDone;
    /// There is no stream of that name.
    StreamNotFound = 11, "stream_not_found", NotDone;
    /// The stream has no cursor of that name.
    CursorNotFound = 12, "cursor_not_found", NotDone;
    /// A condition of the commit failed.
    ConditionFailed = 13, "condition_failed", NotDone;
    /// The session is unknown here or expired; what became of its earlier commits can't be told any
    /// more.
    SessionExpired = 14, "session_expired", Unknown;
    /// The sequence is below what the client said it has replies for, or too far ahead of it.
    SequenceOutOfWindow = 15, "sequence_out_of_window", Unknown;
    /// The offset lies below what is kept.
    OffsetTrimmed = 16, "offset_trimmed", NotDone;
    /// More is under way than the node takes; try again later.
    Overloaded = 17, "overloaded", NotDone;
    /// The disk is full: writes are refused, reads go on.
    DiskFull = 18, "disk_full", NotDone;
    /// This node can't do it now: no leader, no quorum, or it is starting.
    Unavailable = 19, "unavailable", NotDone;
    /// The request was under way when leadership or the connection was lost.
    Interrupted = 20, "interrupted", Unknown;
    /// The deadline passed while the request was under way.
    TimedOut = 21, "timed_out", Unknown;
    /// The node is shutting down and takes no new requests.
    ShuttingDown = 22, "shutting_down", NotDone;
    /// The token is missing, wrong, or lacks the right.
    Unauthorized = 23, "unauthorized", NotDone;
    /// Bytes on this replica's disk are damaged and can't be served.
    Corrupt = 24, "corrupt", NotDone;
    /// A limit on how many of something may exist is reached.
    LimitReached = 25, "limit_reached", NotDone;
    /// The options of a thing that exists can't be changed in this way.
    OptionsConflict = 26, "options_conflict", NotDone;
    /// This node does not lead the shard; the reply's hint names the leader.
    NotLeader = 27, "not_leader", NotDone;
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_are_unique_and_found_again() {
        for (i, code) in Code::ALL.iter().enumerate() {
            assert_eq!(Code::from_number(*code as u16), Some(*code));
            for other in &Code::ALL[i + 1..] {
                assert_ne!(code.name(), other.name());
            }
        }
        assert_eq!(Code::from_number(0), None);
        assert_eq!(Code::from_number(u16::MAX), None);
    }
}
