//! Control entries, reads, questions and replies: what is encoded is decoded; what a stranger sends
//! is answered; and what the writers of hot replies put into a packet is what the plain values say.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod strategies;

use naust_wire::ask::Ask;
use naust_wire::control::{Control, Floor, Floored};
use naust_wire::limits::*;
use naust_wire::message;
use naust_wire::naust_capnp as schema;
use naust_wire::options::*;
use naust_wire::packet::{self, Kind};
use naust_wire::read::{Level, Query, Read};
use naust_wire::reply::*;
use naust_wire::{Code, NodeId, Offset, RequestId, SessionId, ShardId, fuzzing};
use proptest::prelude::*;

const REQUEST: RequestId = RequestId(77);
const SHARD: ShardId = ShardId(5);

fn body(encode: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    encode(&mut out);
    out
}

/// The reply in the one packet that `out` holds behind `before` bytes.
fn reply_in(out: &[u8], before: usize) -> Reply {
    let (packet, length) = packet::read(&out[before..]).unwrap().unwrap();
    assert_eq!(length, out.len() - before);
    assert_eq!((packet.kind, packet.request, packet.shard), (Kind::Reply, REQUEST, SHARD));
    Reply::decode(packet.body).unwrap()
}

fn any_body() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        strategies::control().prop_map(|message| body(|out| message.encode(out))),
        strategies::read().prop_map(|message| body(|out| message.encode(out))),
        strategies::ask().prop_map(|message| body(|out| message.encode(out))),
        strategies::reply().prop_map(|message| body(|out| message.encode(out))),
    ]
}

proptest! {
    #[test]
    fn controls_are_decoded(control in strategies::control()) {
        prop_assert_eq!(Control::decode(&body(|out| control.encode(out))), Ok(control));
    }

    #[test]
    fn controls_of_sessions_are_decoded(
        (control, numbers) in (strategies::control(), strategies::numbers()),
    ) {
        let read = Control::decode_numbered(&body(|out| control.encode_numbered(&numbers, out)));
        if control.is_numbered() {
            prop_assert_eq!(read, Ok((numbers, control)));
        } else {
            prop_assert_eq!(read.unwrap_err().code, Code::BadArgument);
        }
    }

    #[test]
    fn reads_are_decoded(read in strategies::read()) {
        prop_assert_eq!(Read::decode(&body(|out| read.encode(out))), Ok(read));
    }

    #[test]
    fn questions_are_decoded(ask in strategies::ask()) {
        prop_assert_eq!(Ask::decode(&body(|out| ask.encode(out))), Ok(ask));
    }

    #[test]
    fn replies_are_decoded(reply in strategies::reply()) {
        prop_assert_eq!(Reply::decode(&body(|out| reply.encode(out))), Ok(reply.clone()));
        let mut out = vec![1, 2, 3];
        write(REQUEST, SHARD, &reply, &mut out);
        prop_assert_eq!(reply_in(&out, 3), reply);
    }

    #[test]
    fn mutated_messages_are_answered(bytes in any_body().prop_flat_map(strategies::mutated)) {
        fuzzing::messages(&bytes);
    }

    #[test]
    fn any_bytes_are_answered(
        bytes in prop::collection::vec(prop_oneof![any::<u8>(), 0u8..8], 0..300),
    ) {
        fuzzing::messages(&bytes);
        fuzzing::packet(&bytes);
        fuzzing::frame(&bytes);
    }

    #[test]
    fn any_whole_frames_and_packets_are_answered(
        bytes in prop::collection::vec(any::<u8>(), 56..100),
        kind in 0usize..8,
    ) {
        fuzzing::frame(&bytes);
        let kind = [1u16, 2, 3, 4, 0x8001, 0, 5, 0x8002][kind] ^ 0x8001;
        fuzzing::packet(&[&kind.to_le_bytes()[..], &bytes].concat());
    }

    #[test]
    fn a_stream_of_packets_is_answered(
        replies in prop::collection::vec(strategies::reply(), 1..4),
        at: prop::sample::Index,
        byte: u8,
    ) {
        let mut out = Vec::new();
        replies.iter().for_each(|reply| write(REQUEST, SHARD, reply, &mut out));
        fuzzing::packet(&out);
        let at = at.index(out.len());
        out[at] = byte;
        fuzzing::packet(&out);
    }

    #[test]
    fn hot_replies_say_what_plain_values_say(
        committed in strategies::committed(),
        value in strategies::value(),
        offset in strategies::offset(),
    ) {
        let mut out = vec![9; 5];
        write_committed(REQUEST, SHARD, &committed, &mut out);
        prop_assert_eq!(reply_in(&out, 5), Reply::Committed(committed));
        for row in [None, Some((offset, value.clone()))] {
            let mut out = Vec::new();
            let borrowed = row.as_ref().map(|(offset, value)| (*offset, &value[..]));
            write_row(REQUEST, SHARD, Offset(3), borrowed, &mut out);
            prop_assert_eq!(reply_in(&out, 0), Reply::Row { at: Offset(3), row });
        }
        let mut out = Vec::new();
        let (first, next, end) = (Offset(1), Offset(2), offset);
        write_frames(REQUEST, SHARD, [first, next, end], &value, &mut out);
        prop_assert_eq!(reply_in(&out, 0), Reply::Frames { first, data: value, next, end });
    }

    #[test]
    fn pages_hold_what_was_pushed(
        entries in prop::collection::vec(strategies::entry(), 0..30),
        next in prop::option::of(strategies::key()),
    ) {
        let mut out = vec![9; 5];
        let mut rows = RowsWriter::begin(&mut out);
        for entry in &entries {
            rows.push(&entry.key, &entry.value, entry.offset);
        }
        prop_assert_eq!(rows.rows(), entries.len());
        let bytes: usize = entries.iter().map(|entry| entry.key.len() + entry.value.len()).sum();
        prop_assert_eq!(rows.bytes(), bytes);
        rows.finish(REQUEST, SHARD, Offset(8), next.as_deref());
        let at = Offset(8);
        prop_assert_eq!(reply_in(&out, 5), Reply::Rows { at, entries, next });
    }

    #[test]
    fn pages_of_records_hold_what_was_pushed(
        records in prop::collection::vec(strategies::record(), 0..30),
    ) {
        let mut out = vec![9; 5];
        let mut writer = RecordsWriter::begin(&mut out);
        for record in &records {
            writer.push(record.offset, &record.value);
        }
        prop_assert_eq!(writer.records(), records.len());
        prop_assert_eq!(writer.bytes(), records.iter().map(|r| r.value.len()).sum::<usize>());
        writer.finish(REQUEST, SHARD, Offset(8), Offset(9));
        let (next, end) = (Offset(8), Offset(9));
        prop_assert_eq!(reply_in(&out, 5), Reply::Records { records, next, end });
    }
}

/// What is laid out by hand is what the generated builder lays out, where both write objects in one
/// order.
#[test]
fn the_layout_of_hot_replies_is_capn_protos() {
    let next = Some(b"from here on".to_vec());
    let committed = Committed {
        offset: Offset(1 << 40),
        ids: vec![Offset(5), Offset(6)],
        ranges: vec![RangeDeleted { deleted: 7, next }, RangeDeleted { deleted: 8, next: None }],
        duplicate: false,
        interval: true,
    };
    let built = body(|out| {
        message::build::<schema::reply::Owned>(64, out, |root| {
            let mut to = root.init_committed();
            to.set_offset(1 << 40);
            to.set_interval(true);
            let mut ids = to.reborrow().init_ids(2);
            ids.set(0, 5);
            ids.set(1, 6);
            let mut ranges = to.init_ranges(2);
            let mut first = ranges.reborrow().get(0);
            first.set_deleted(7);
            first.set_more(true);
            first.set_next(b"from here on");
            ranges.get(1).set_deleted(8);
        });
    });
    assert_eq!(body(|out| Reply::Committed(committed).encode(out)), built);
    let built = body(|out| {
        message::build::<schema::reply::Owned>(64, out, |root| {
            let mut to = root.init_row();
            to.set_row_at(9);
            to.set_present(true);
            to.set_row_offset(8);
            to.set_value(b"value");
        });
    });
    let row = Some((Offset(8), b"value".to_vec()));
    assert_eq!(body(|out| Reply::Row { at: Offset(9), row }.encode(out)), built);
}

#[test]
fn an_abandoned_page_leaves_nothing() {
    let mut out = vec![1, 2, 3];
    let mut rows = RowsWriter::begin(&mut out);
    rows.push(b"k", b"v", Offset(1));
    rows.abandon();
    let mut records = RecordsWriter::begin(&mut out);
    records.push(Offset(1), b"v");
    records.abandon();
    assert_eq!(out, [1, 2, 3]);
}

/// The largest page that the limits allow is a packet.
#[test]
fn the_largest_page_is_taken() {
    let mut out = Vec::new();
    let mut rows = RowsWriter::begin(&mut out);
    let small = PAGE_BYTES_MAX / PAGE_ROWS_MAX;
    for i in 1..PAGE_ROWS_MAX {
        rows.push(&[1], &vec![2; small - 1], Offset(i as u64));
    }
    assert!(rows.bytes() < PAGE_BYTES_MAX);
    rows.push(&[3; KEY_BYTES_MAX], &vec![4; VALUE_BYTES_MAX], Offset(1));
    rows.finish(REQUEST, SHARD, Offset(1), Some(&[5; KEY_BYTES_MAX]));
    assert!(
        matches!(reply_in(&out, 0), Reply::Rows { entries, .. } if entries.len() == PAGE_ROWS_MAX)
    );
}

#[test]
fn a_reply_over_the_limit_becomes_an_error() {
    let cursors = vec![("c".repeat(NAME_BYTES_MAX), Offset(1)); CURSORS_PER_STREAM_MAX];
    let stream = Stream {
        name: "s".into(),
        options: StreamOptions::default(),
        first: Offset(1),
        end: Offset(2),
        records: 3,
        bytes: 4,
        cursors,
    };
    let streams = vec![stream; 20];
    let reply = Reply::Described {
        at: Offset(1),
        floor: Offset(1),
        keyspaces: vec![],
        streams,
        next: None,
    };
    let mut out = vec![1];
    write(REQUEST, SHARD, &reply, &mut out);
    assert!(matches!(reply_in(&out, 1), Reply::Error(failure) if failure.code == Code::TooLarge));
}

#[test]
fn long_sentences_are_cut_where_a_character_ends() {
    let mut failure = Failure::new(Code::Unavailable, "é".repeat(DETAIL_BYTES_MAX));
    failure.detail.insert(0, 'x');
    let out = body(|out| Reply::Error(failure).encode(out));
    let Ok(Reply::Error(read)) = Reply::decode(&out) else { panic!("an error") };
    assert_eq!(read.detail.len(), DETAIL_BYTES_MAX - 1);
}

#[test]
fn an_error_of_a_code_unknown_here_is_told() {
    let out = body(|out| {
        message::build::<schema::reply::Owned>(16, out, |root| root.init_error().set_code(9999));
    });
    assert_eq!(Reply::decode(&out).unwrap_err().code, Code::UnknownKind);
}

#[test]
fn controls_that_make_no_sense_are_refused() {
    let fifo = KeyspaceOptions { max_bytes: 1, ..Default::default() };
    let never = NamespaceOptions { durability: Durability::IntervalMs(0), ..Default::default() };
    let seldom = Durability::IntervalMs(INTERVAL_MS_MAX + 1);
    let seldom = NamespaceOptions { durability: seldom, ..Default::default() };
    let floor = Floor { of: Floored::Stream("s".into()), offset: Offset(1) };
    let bad_floor = Floor { of: Floored::Keyspace(String::new()), offset: Offset(1) };
    let (name, bad) = (|| String::from("n"), || String::from("a/b"));
    for (control, code) in [
        (Control::OpenSession { ttl_ms: SESSION_TTL_MS_MAX + 1, nonce: 0 }, Code::BadArgument),
        (Control::CloseSession(SessionId(0)), Code::BadArgument),
        (Control::SetKeyspace { name: bad(), options: Default::default() }, Code::BadName),
        (Control::SetKeyspace { name: name(), options: fifo }, Code::BadArgument),
        (Control::SetStream { name: bad(), options: Default::default() }, Code::BadName),
        (Control::Floors(vec![floor; FLOORS_PER_CONTROL_MAX + 1]), Code::TooLarge),
        (Control::Floors(vec![bad_floor]), Code::BadName),
        (Control::CreateNamespace { name: name(), options: never }, Code::BadArgument),
        (Control::CreateNamespace { name: name(), options: seldom }, Code::BadArgument),
        (
            Control::CreateNamespace { name: "topics".into(), options: Default::default() },
            Code::BadName,
        ),
        (Control::DeleteNamespace("n".repeat(NAME_BYTES_MAX + 1)), Code::BadName),
        (Control::CloseNamespace(bad()), Code::BadName),
        (Control::ForgetNamespace(ShardId::DIRECTORY), Code::BadArgument),
    ] {
        assert_eq!(control.check().unwrap_err().code, code, "{control:?}");
        let refusal = Control::decode(&body(|out| control.encode(out))).unwrap_err();
        assert!(refusal.code == code || refusal.code == Code::TooLarge, "{refusal}");
    }
}

/// A logged body with a tail of no meaning would be too long for a reply to a read of the log.
#[test]
fn a_control_entry_over_the_limit_is_refused() {
    let mut out = body(|out| Control::CloseSession(SessionId(1)).encode(out));
    out.resize(COMMIT_BODY_BYTES_MAX, 0);
    assert!(Control::decode(&out).is_ok());
    out.resize(COMMIT_BODY_BYTES_MAX + 8, 0);
    assert_eq!(Control::decode(&out).unwrap_err().code, Code::TooLarge);
}

#[test]
fn reads_that_make_no_sense_are_refused() {
    let (name, bad) = (|| String::from("n"), || String::from("a/b"));
    let long = || vec![0; KEY_BYTES_MAX + 1];
    let scan = |from: &[u8], to: Option<&[u8]>, limit: usize, max_bytes: usize| Query::Scan {
        keyspace: name(),
        from: from.to_vec(),
        to: to.map(<[u8]>::to_vec),
        reverse: false,
        limit: limit as u32,
        max_bytes: max_bytes as u32,
    };
    let records = |limit: usize, wait_ms: u64| Query::Records {
        stream: name(),
        from: Offset(1),
        limit: limit as u32,
        max_bytes: 0,
        wait_ms: wait_ms as u32,
    };
    let log = |max_bytes: usize, wait_ms: u64| Query::Log {
        from: Offset(1),
        max_bytes: max_bytes as u32,
        wait_ms: wait_ms as u32,
    };
    for (query, code) in [
        (Query::Get { keyspace: bad(), key: vec![1] }, Code::BadName),
        (Query::Get { keyspace: name(), key: vec![] }, Code::KeySize),
        (Query::Get { keyspace: name(), key: long() }, Code::KeySize),
        (scan(b"b", Some(b"a"), 0, 0), Code::BadArgument),
        (scan(&long(), None, 0, 0), Code::KeySize),
        (scan(b"", Some(&long()), 0, 0), Code::KeySize),
        (scan(b"", None, PAGE_ROWS_MAX + 1, 0), Code::TooLarge),
        (scan(b"", None, 0, PAGE_BYTES_MAX + 1), Code::TooLarge),
        (records(PAGE_ROWS_MAX + 1, 0), Code::TooLarge),
        (records(0, WAIT_MS_MAX + 1), Code::BadArgument),
        (Query::Cursor { stream: name(), cursor: bad() }, Code::BadName),
        (log(LOG_READ_BYTES_MAX + 1, 0), Code::TooLarge),
        (log(0, WAIT_MS_MAX + 1), Code::BadArgument),
    ] {
        let read = Read { level: Level::Local, query };
        assert_eq!(read.check().unwrap_err().code, code, "{read:?}");
        assert_eq!(Read::decode(&body(|out| read.encode(out))).unwrap_err().code, code);
    }
}

#[test]
fn questions_that_make_no_sense_are_refused() {
    let token = "t".repeat(TEXT_BYTES_MAX + 1);
    for (ask, code) in [
        (Ask::Hello { token, client: String::new() }, Code::TooLarge),
        (Ask::Resolve("cluster".into()), Code::BadName),
    ] {
        assert_eq!(ask.check().unwrap_err().code, code);
        assert_eq!(Ask::decode(&body(|out| ask.encode(out))).unwrap_err().code, code);
    }
}

/// A small message whose list leads a thousand times to the same large value must not become a
/// large one.
#[test]
fn a_message_can_not_grow_by_leading_to_the_same_bytes() {
    const ROWS: usize = 1_000;
    let entry = Entry { key: b"k".to_vec(), value: vec![7; 100_000], offset: Offset(1) };
    let mut entries = vec![Entry { value: vec![], ..entry.clone() }; ROWS];
    entries.push(entry);
    let mut bytes = body(|out| Reply::Rows { at: Offset(1), entries, next: None }.encode(out));
    assert!(Reply::decode(&bytes).is_ok());
    // The list of entries, three words each, stands at the end; the value's pointer is the third
    // word of the last one.
    let word = |bytes: &[u8], at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    let last = bytes.len() - 8;
    let (pointer, count) = (word(&bytes, last), word(&bytes, last + 4));
    for i in 1..=ROWS {
        let at = last - i * 24;
        bytes[at..at + 4].copy_from_slice(&(pointer + ((3 * i as u32) << 2)).to_le_bytes());
        bytes[at + 4..at + 8].copy_from_slice(&count.to_le_bytes());
    }
    assert_eq!(Reply::decode(&bytes).unwrap_err().code, Code::Malformed);
}

#[test]
fn nodes_are_listed_with_their_namespaces() {
    let node = Node { id: NodeId(1), name: "one".into(), address: "a:1".into(), up: true };
    let reply = Reply::Cluster { nodes: vec![node], namespaces: vec![], next: None };
    assert_eq!(Reply::decode(&body(|out| reply.encode(out))), Ok(reply));
}
