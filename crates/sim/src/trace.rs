//! The story of a life: one line an event, and a hash over all lines.
//!
//! Two runs of one seed are the same exactly when their hashes are. Lines hold virtual time,
//! numbers and names, and never an address, a duration of the real clock or the order of a hash
//! map.

use crate::schedule::Moment;
use std::fmt::{self, Write as _};
use std::io::Write as _;

/// Collects the story.
pub struct Trace {
    hash: u64,
    lines: u64,
    line: String,
    tell: Option<Box<dyn std::io::Write>>,
}

/// FNV-1a's 64-bit offset basis and prime: simple, and the same everywhere.
const BASIS: u64 = 0xcbf2_9ce4_8422_2325;
const PRIME: u64 = 0x0000_0100_0000_01b3;

impl Trace {
    /// A trace that only hashes.
    #[must_use]
    pub fn silent() -> Trace {
        Trace { hash: BASIS, lines: 0, line: String::new(), tell: None }
    }

    /// A trace that also writes each line to `to`.
    #[must_use]
    pub fn telling(to: Box<dyn std::io::Write>) -> Trace {
        Trace { tell: Some(to), ..Trace::silent() }
    }

    /// Tells one line.
    pub fn note(&mut self, now: Moment, what: fmt::Arguments<'_>) {
        self.line.clear();
        writeln!(self.line, "{now} {what}").expect("a string takes what is written");
        for byte in self.line.bytes() {
            self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(PRIME);
        }
        self.lines += 1;
        if let Some(to) = &mut self.tell
            && to.write_all(self.line.as_bytes()).is_err()
        {
            self.tell = None; // Whoever listened has gone; the life goes on.
        }
    }

    /// The hash of all lines so far.
    #[must_use]
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// How many lines there are so far.
    #[must_use]
    pub fn lines(&self) -> u64 {
        self.lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_tells_stories_apart() {
        let tell = |words: &[&str]| {
            let mut trace = Trace::silent();
            for (at, word) in words.iter().enumerate() {
                trace.note(Moment(at as u64), format_args!("{word}"));
            }
            (trace.hash(), trace.lines())
        };
        assert_eq!(tell(&["a", "b"]), tell(&["a", "b"]));
        assert_ne!(tell(&["a", "b"]).0, tell(&["b", "a"]).0);
        assert_ne!(tell(&["ab"]).0, tell(&["a", "b"]).0);
    }
}
