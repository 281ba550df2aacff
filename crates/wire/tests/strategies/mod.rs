//! Arbitrary values of every message, for proptest: small, and often on the edges.

#![allow(dead_code, reason = "each test binary uses its own part")]

use naust_wire::ask::{Ask, Listing};
use naust_wire::commit::{Draft, DraftCondition, DraftOp};
use naust_wire::control::{Control, Floor, Floored};
use naust_wire::limits::*;
use naust_wire::options::*;
use naust_wire::read::{Level, Named, Query, Read};
use naust_wire::reply::*;
use naust_wire::{Code, NodeId, Numbers, Offset, Outcome, Sequence, SessionId, ShardId};
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

pub fn control() -> impl Strategy<Value = Control> {
    let floored = prop_oneof![name().prop_map(Floored::Stream), name().prop_map(Floored::Keyspace)];
    let floor = (floored, offset()).prop_map(|(of, offset)| Floor { of, offset });
    prop_oneof![
        (0..=SESSION_TTL_MS_MAX, any::<u64>())
            .prop_map(|(ttl_ms, nonce)| Control::OpenSession { ttl_ms, nonce }),
        (1..u64::MAX).prop_map(|session| Control::CloseSession(SessionId(session))),
        (name(), keyspace_options())
            .prop_map(|(name, options)| Control::SetKeyspace { name, options }),
        (name(), stream_options()).prop_map(|(name, options)| Control::SetStream { name, options }),
        vec(floor, 0..20).prop_map(Control::Floors),
        (name(), namespace_options())
            .prop_map(|(name, options)| Control::CreateNamespace { name, options }),
        name().prop_map(Control::DeleteNamespace),
        name().prop_map(Control::CloseNamespace),
        (1..=u32::MAX).prop_map(|shard| Control::ForgetNamespace(ShardId(shard))),
        Just(Control::Close),
        (1..=u64::MAX, name(), "\\PC{0,20}").prop_map(|(node, name, address)| {
            Control::SetNode { node: NodeId(node), name, address }
        }),
        (1..=u64::MAX).prop_map(|node| Control::RemoveNode(NodeId(node))),
        Just(Control::NoteDigests),
    ]
}

fn keyspace_options() -> impl Strategy<Value = KeyspaceOptions> {
    let limits = (any::<u64>(), any::<u64>()).prop_map(|(max_bytes, max_age_ms)| KeyspaceOptions {
        compaction: Compaction::Fifo,
        max_bytes,
        max_age_ms,
        ..Default::default()
    });
    let options = (any::<bool>(), any::<bool>()).prop_map(|(levelled, lz4)| KeyspaceOptions {
        compaction: if levelled { Compaction::Levelled } else { Compaction::WriteOptimised },
        compression: if lz4 { Compression::Lz4 } else { Compression::None },
        ..Default::default()
    });
    prop_oneof![limits, options]
}

fn stream_options() -> impl Strategy<Value = StreamOptions> {
    any::<(u64, u64, u64)>().prop_map(|(max_age_ms, max_bytes, max_records)| StreamOptions {
        max_age_ms,
        max_bytes,
        max_records,
    })
}

fn namespace_options() -> impl Strategy<Value = NamespaceOptions> {
    let durability = prop_oneof![
        Just(Durability::Quorum),
        (1..=INTERVAL_MS_MAX).prop_map(Durability::IntervalMs)
    ];
    (any::<u64>(), any::<u64>(), durability).prop_map(|(history_ms, history_bytes, durability)| {
        NamespaceOptions { history_ms, history_bytes, durability }
    })
}

pub fn read() -> impl Strategy<Value = Read> {
    let level = prop_oneof![
        Just(Level::Linearizable),
        offset().prop_map(Level::AtLeast),
        offset().prop_map(Level::Exactly),
        Just(Level::Local),
    ];
    (level, query()).prop_map(|(level, query)| Read { level, query })
}

fn query() -> impl Strategy<Value = Query> {
    let (limit, bytes) = (0..=PAGE_ROWS_MAX as u32, 0..=PAGE_BYTES_MAX as u32);
    let wait = 0..=WAIT_MS_MAX as u32;
    prop_oneof![
        (name(), key()).prop_map(|(keyspace, key)| Query::Get { keyspace, key }),
        (name(), range(), any::<bool>(), limit.clone(), bytes.clone()).prop_map(
            |(keyspace, (from, to), reverse, limit, max_bytes)| {
                Query::Scan { keyspace, from, to, reverse, limit, max_bytes }
            }
        ),
        (name(), offset(), limit, bytes.clone(), wait.clone()).prop_map(
            |(stream, from, limit, max_bytes, wait_ms)| {
                Query::Records { stream, from, limit, max_bytes, wait_ms }
            }
        ),
        (name(), name()).prop_map(|(stream, cursor)| Query::Cursor { stream, cursor }),
        (offset(), bytes, wait).prop_map(|(from, max_bytes, wait_ms)| Query::Log {
            from,
            max_bytes,
            wait_ms
        }),
        (option::of(named()), 0..=PAGE_ROWS_MAX as u32)
            .prop_map(|(from, limit)| Query::Describe { from, limit }),
        offset().prop_map(|at| Query::Digests { at }),
    ]
}

pub fn ask() -> impl Strategy<Value = Ask> {
    prop_oneof![
        ("\\PC{0,30}", "\\PC{0,30}").prop_map(|(token, client)| Ask::Hello { token, client }),
        name().prop_map(Ask::Resolve),
        listing().prop_map(Ask::Namespaces),
        listing().prop_map(Ask::Cluster),
    ]
}

fn listing() -> impl Strategy<Value = Listing> {
    let from = option::of(name()).prop_map(Option::unwrap_or_default);
    (from, 0..=PAGE_ROWS_MAX as u32).prop_map(|(from, limit)| Listing { from, limit })
}

fn named() -> impl Strategy<Value = Named> {
    prop_oneof![name().prop_map(Named::Keyspace), name().prop_map(Named::Stream)]
}

pub fn numbers() -> impl Strategy<Value = Numbers> {
    (1..u64::MAX, 1..u64::MAX, any::<u64>()).prop_map(|(session, sequence, acked_below)| Numbers {
        session: SessionId(session),
        sequence: Sequence(sequence),
        acked_below: Sequence(acked_below),
    })
}

pub fn committed() -> impl Strategy<Value = Committed> {
    let range = (any::<u32>(), option::of(vec(any::<u8>(), 0..20)))
        .prop_map(|(deleted, next)| RangeDeleted { deleted, next });
    (offset(), vec(offset(), 0..9), vec(range, 0..4), any::<bool>(), any::<bool>()).prop_map(
        |(offset, ids, ranges, duplicate, interval)| Committed {
            offset,
            ids,
            ranges,
            duplicate,
            interval,
        },
    )
}

pub fn entry() -> impl Strategy<Value = Entry> {
    (key(), value(), offset()).prop_map(|(key, value, offset)| Entry { key, value, offset })
}

pub fn record() -> impl Strategy<Value = Record> {
    (offset(), value()).prop_map(|(offset, value)| Record { offset, value })
}

fn failure() -> impl Strategy<Value = Failure> {
    let code = prop::sample::select(Code::ALL);
    (code, any::<bool>(), "\\PC{0,60}", "\\PC{0,30}").prop_map(|(code, unknown, detail, hint)| {
        let outcome = if unknown { Outcome::Unknown } else { Outcome::NotDone };
        Failure { code, outcome, detail, hint }
    })
}

fn namespace() -> impl Strategy<Value = Namespace> {
    let end = || option::of((1..=u64::MAX).prop_map(Offset));
    let replica = (any::<u64>(), any::<bool>(), end()).prop_map(|(node, voter, end)| Replica {
        node: NodeId(node),
        voter,
        end,
    });
    (name(), any::<(u32, u64, bool)>(), end(), vec(replica, 0..4), namespace_options()).prop_map(
        |(name, (shard, leader, closing), end, replicas, options)| Namespace {
            name,
            shard: ShardId(shard),
            leader: NodeId(leader),
            end,
            replicas,
            options,
            closing,
        },
    )
}

fn node() -> impl Strategy<Value = Node> {
    (any::<u64>(), name(), "[a-z.:0-9]{0,20}", any::<bool>())
        .prop_map(|(id, name, address, up)| Node { id: NodeId(id), name, address, up })
}

fn view_digest() -> impl Strategy<Value = ViewDigest> {
    ("\\PC{0,20}", any::<(u64, u64)>()).prop_map(|(view, (count, digest))| ViewDigest {
        view,
        count,
        digest,
    })
}

fn keyspace() -> impl Strategy<Value = Keyspace> {
    (name(), keyspace_options(), any::<(u64, u64)>(), offset()).prop_map(
        |(name, options, (rows_estimate, bytes), floor)| Keyspace {
            name,
            options,
            rows_estimate,
            bytes,
            floor,
        },
    )
}

fn stream() -> impl Strategy<Value = Stream> {
    let cursors = vec((name(), offset()), 0..4);
    (name(), stream_options(), offset(), offset(), any::<(u64, u64)>(), cursors).prop_map(
        |(name, options, first, end, (records, bytes), cursors)| Stream {
            name,
            options,
            first,
            end,
            records,
            bytes,
            cursors,
        },
    )
}

pub fn reply() -> impl Strategy<Value = Reply> {
    let row = option::of((offset(), value()));
    let next = option::of(vec(any::<u8>(), 0..20));
    let small = prop_oneof![
        failure().prop_map(Reply::Error),
        (any::<u16>(), offset(), offset())
            .prop_map(|(condition, at, found)| Reply::Refused(Refused { condition, at, found })),
        any::<u64>().prop_map(|session| Reply::Session(SessionId(session))),
        option::of(offset()).prop_map(Reply::Cursor),
        offset().prop_map(Reply::Done),
        (any::<u64>(), "\\PC{0,20}", any::<u64>()).prop_map(|(node, version, cluster)| {
            Reply::Hello { node: NodeId(node), version, cluster }
        }),
        any::<(u32, u64)>().prop_map(|(shard, leader)| Reply::Resolved {
            shard: ShardId(shard),
            leader: NodeId(leader)
        }),
    ];
    let pages =
        prop_oneof![
            committed().prop_map(Reply::Committed),
            (offset(), row).prop_map(|(at, row)| Reply::Row { at, row }),
            (offset(), vec(entry(), 0..9), next).prop_map(|(at, entries, next)| Reply::Rows {
                at,
                entries,
                next
            }),
            (vec(record(), 0..9), offset(), offset())
                .prop_map(|(records, next, end)| Reply::Records { records, next, end }),
            (offset(), value(), offset(), offset())
                .prop_map(|(first, data, next, end)| Reply::Frames { first, data, next, end }),
        ];
    let lists = prop_oneof![
        (vec(namespace(), 0..4), option::of(name()))
            .prop_map(|(namespaces, next)| Reply::Namespaces { namespaces, next }),
        (vec(node(), 0..4), vec(namespace(), 0..4), option::of(name()))
            .prop_map(|(nodes, namespaces, next)| Reply::Cluster { nodes, namespaces, next }),
        (offset(), offset(), vec(keyspace(), 0..4), vec(stream(), 0..4), option::of(named()))
            .prop_map(|(at, floor, keyspaces, mut streams, next)| {
                if matches!(next, Some(Named::Keyspace(_))) {
                    streams.clear();
                }
                Reply::Described { at, floor, keyspaces, streams, next }
            }),
        vec(view_digest(), 0..9).prop_map(Reply::Digests),
    ];
    prop_oneof![small, pages, lists]
}
