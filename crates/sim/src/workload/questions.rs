//! Draws reads: every query at every level.

use super::keys;
use super::knowledge::Knowledge;
use crate::generator::Generator;
use crate::plan::{RequestKind, Work};
use naust_wire::read::{Level, Query, Read};

/// Draws a read of a kind.
///
/// # Panics
/// If the kind is no read: a bug of the caller.
pub fn draw(generator: &mut Generator, work: &Work, known: &Knowledge, kind: RequestKind) -> Read {
    let level = level(generator, work, known);
    Read { level, query: query(generator, work, known, kind) }
}

fn level(generator: &mut Generator, work: &Work, known: &Knowledge) -> Level {
    match generator.weighted(&work.levels) {
        Some(1) => Level::AtLeast(known.some_offset(generator)),
        Some(2) => Level::Exactly(known.some_offset(generator)),
        Some(3) => Level::Local,
        _ => Level::Linearizable,
    }
}

fn query(generator: &mut Generator, work: &Work, known: &Knowledge, kind: RequestKind) -> Query {
    let space = generator.below(work.spaces);
    match kind {
        RequestKind::Get => {
            Query::Get { keyspace: keys::keyspace(space), key: keys::some_key(generator, work) }
        }
        RequestKind::Scan => {
            let (from, to) = keys::some_range(generator, work);
            Query::Scan {
                keyspace: keys::keyspace(space),
                from,
                to,
                reverse: generator.coin(),
                limit: limit(generator, 200),
                max_bytes: limit(generator, 100_000),
            }
        }
        RequestKind::Records => Query::Records {
            stream: keys::stream(space),
            from: known.some_record(generator),
            limit: limit(generator, 200),
            max_bytes: limit(generator, 100_000),
            wait_ms: wait_ms(generator),
        },
        RequestKind::Cursor => Query::Cursor {
            stream: keys::stream(space),
            cursor: keys::cursor(generator.below(work.spaces)),
        },
        RequestKind::Log => Query::Log {
            from: known.some_frame(generator),
            max_bytes: limit(generator, 100_000),
            wait_ms: wait_ms(generator),
        },
        RequestKind::Describe => Query::Describe { from: None, limit: 0 },
        other => panic!("{other:?} is no read"),
    }
}

/// A limit that is mostly small; zero asks for the default.
fn limit(generator: &mut Generator, most: u64) -> u32 {
    if generator.below(3) == 0 { 0 } else { generator.skewed(1, most) as u32 }
}

fn wait_ms(generator: &mut Generator) -> u32 {
    if generator.below(3) == 0 { generator.skewed(1, 3_000) as u32 } else { 0 }
}
