//! Names and keys that clients use. Few of each, so that clients get into each other's way.

use crate::generator::Generator;
use crate::plan::Work;

/// A range of keys: from, inclusive, to, exclusive (`None`: to the end).
pub type Range = (Vec<u8>, Option<Vec<u8>>);

/// The name of a namespace.
#[must_use]
pub fn namespace(number: u64) -> String {
    if number == 0 { "default".to_owned() } else { format!("namespace {number}") }
}

/// The name of a namespace that clients make and remove, and nobody works in.
#[must_use]
pub fn made(number: u64) -> String {
    format!("made {number}")
}

/// The name of a keyspace.
#[must_use]
pub fn keyspace(number: u64) -> String {
    format!("keyspace-{number}")
}

/// The name of a stream. The first is named like the first keyspace: they are different things.
#[must_use]
pub fn stream(number: u64) -> String {
    if number == 0 { keyspace(0) } else { format!("stream-{number}") }
}

/// The name of a cursor.
#[must_use]
pub fn cursor(number: u64) -> String {
    format!("cursor-{number}")
}

/// The key of a number: short ones and long ones, prefixes of each other, zeros and all ones among
/// them.
#[must_use]
pub fn key(number: u64) -> Vec<u8> {
    let mut key = format!("{:03}", number / 3).into_bytes();
    match number % 3 {
        0 => {}
        1 => key.push(0),
        _ => key.extend_from_slice(&[0xff, 0xff]),
    }
    if number % 41 == 40 {
        key.resize(key.len() + 700, b'~');
    }
    key
}

/// One of the keys in use.
pub fn some_key(generator: &mut Generator, work: &Work) -> Vec<u8> {
    let near = generator.coin();
    let number = generator.below(work.keys);
    key(if near { number % 8 } else { number })
}

/// A range that is mostly short.
pub fn some_range(generator: &mut Generator, work: &Work) -> Range {
    match generator.below(8) {
        0 => (Vec::new(), None),
        1 => (some_key(generator, work), None),
        _ => {
            let (a, b) = (some_key(generator, work), some_key(generator, work));
            let (from, to) = if a <= b { (a, b) } else { (b, a) };
            (from, Some(to))
        }
    }
}
