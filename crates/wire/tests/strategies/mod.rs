//! Arbitrary values of every message, for proptest: small, and often on the edges.

#![allow(dead_code, reason = "each test binary uses its own part")]

use naust_wire::commit::{Draft, DraftCondition, DraftOp};
use naust_wire::ids::Offset;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use std::borrow::Cow;

pub fn name() -> impl Strategy<Value = String> {
    prop_oneof![3 => "[a-c]", 1 => "[a-z0-9 .éß日-]{1,40}"]
}

pub fn key() -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 1..20)
}

pub fn value() -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..40)
}

pub fn offset() -> impl Strategy<Value = Offset> {
    any::<u64>().prop_map(Offset)
}

pub fn range() -> impl Strategy<Value = (Vec<u8>, Option<Vec<u8>>)> {
    (vec(any::<u8>(), 0..20), option::of(vec(any::<u8>(), 0..20))).prop_map(|(a, b)| match b {
        Some(b) if b < a => (b, Some(a)),
        b => (a, b),
    })
}

/// A draft of which every part is admissible.
pub fn draft() -> impl Strategy<Value = Draft<'static>> {
    proptest::collection::btree_set(name(), 1..40).prop_flat_map(|names| {
        let names: Vec<Cow<'static, str>> = names.into_iter().map(Cow::from).collect();
        let spaces = names.len() as u16;
        (Just(names), vec(condition(spaces), 0..4), vec(op(spaces), 1..8))
            .prop_map(|(names, conditions, ops)| Draft { names, conditions, ops })
    })
}

fn condition(spaces: u16) -> impl Strategy<Value = DraftCondition<'static>> {
    let space = 0..spaces;
    prop_oneof![
        (space.clone(), key(), offset()).prop_map(|(space, key, offset)| {
            DraftCondition::Version { space, key: key.into(), offset }
        }),
        (space.clone(), key())
            .prop_map(|(space, key)| DraftCondition::Absent { space, key: key.into() }),
        (space, range(), offset()).prop_map(|(space, (from, to), since)| {
            DraftCondition::Unchanged { space, from: from.into(), to: to.map(Cow::from), since }
        }),
    ]
}

fn op(spaces: u16) -> impl Strategy<Value = DraftOp<'static>> {
    let space = 0..spaces;
    prop_oneof![
        (space.clone(), key(), value()).prop_map(|(space, key, value)| {
            DraftOp::Put { space, key: key.into(), value: value.into() }
        }),
        (space.clone(), key()).prop_map(|(space, key)| DraftOp::Delete { space, key: key.into() }),
        (space.clone(), range()).prop_map(|(space, (from, to))| {
            DraftOp::DeleteRange { space, from: from.into(), to: to.map(Cow::from) }
        }),
        (space.clone(), value())
            .prop_map(|(space, value)| DraftOp::Append { space, value: value.into() }),
        (space.clone(), space, offset()).prop_map(|(space, cursor, offset)| DraftOp::Advance {
            space,
            cursor,
            offset
        }),
    ]
}

/// `bytes` with a few of them changed, and perhaps cut short by whole words.
pub fn mutated(bytes: Vec<u8>) -> impl Strategy<Value = Vec<u8>> {
    let change = (any::<prop::sample::Index>(), prop_oneof![any::<u8>(), 0u8..16]);
    (Just(bytes), vec(change, 1..6), option::weighted(0.2, any::<prop::sample::Index>())).prop_map(
        |(mut bytes, changes, cut)| {
            for (at, byte) in changes {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            if let Some(cut) = cut {
                bytes.truncate(cut.index(bytes.len()) / 8 * 8);
            }
            bytes
        },
    )
}
