//! Prints how long the hot paths of the language take, in nanoseconds a call: `cargo run --release
//! --example timing`.

#![allow(clippy::print_stdout, reason = "an example prints")]
#![allow(clippy::disallowed_methods, reason = "timing needs a clock; the crate itself has none")]

use naust_wire::commit::{Commit, Draft, Op};
use naust_wire::frame::{self, Header};
use naust_wire::message::{self, Message};
use naust_wire::naust_capnp as schema;
use naust_wire::packet::{self, Kind};
use naust_wire::read::{Level, Query, Read};
use naust_wire::reply::{self, Committed, Reply};
use naust_wire::{Index, LogTime, Offset, RequestId, Sequence, SessionId, ShardId, Term};
use std::hint::black_box;
use std::time::Instant;

fn main() {
    let (key, value) = ([7u8; 16], [9u8; 128]);
    let mut out = Vec::with_capacity(1 << 16);

    let encode = |out: &mut Vec<u8>| {
        let mut draft = Draft::default();
        draft.put("users", &key[..], &value[..]).expect("a good name");
        draft.encode(SessionId(1 << 33), Sequence(5), Sequence(4), out).expect("a good commit");
    };
    time("draft and encode a one-put commit", || {
        out.clear();
        encode(black_box(&mut out));
    });
    time("the same through the generated builder", || {
        out.clear();
        message::build::<schema::commit::Owned>(40, &mut out, |mut root| {
            root.set_session(1 << 33);
            root.reborrow().init_names(1).set(0, "users");
            let mut put = root.init_ops(1).get(0).init_put();
            put.set_key(black_box(&key));
            put.set_value(&value);
        });
    });
    out.clear();
    encode(&mut out);
    let body = out.clone();
    println!("a one-put commit has {} bytes", body.len());
    let message = Message::new(&body).expect("whole words");
    time("look at it as a message", || {
        black_box(Message::new(black_box(&body)).expect("whole words"));
    });
    time("look at a message as a commit", || {
        black_box(Commit::read(black_box(&message)).expect("a commit"));
    });
    time("read and check it", || {
        let message = Message::new(black_box(&body)).expect("whole words");
        Commit::read(&message).expect("a commit").check().expect("a good commit");
    });
    time("read and walk it", || {
        let message = Message::new(black_box(&body)).expect("whole words");
        let commit = Commit::read(&message).expect("a commit");
        for op in commit.ops() {
            let Ok(Op::Put { space, key, value }) = op else { unreachable!("a put") };
            black_box((commit.name(space).expect("a name"), key, value));
        }
    });
    let commit = Commit::read(&message).expect("a commit");
    time("check alone", || black_box(&commit).check().expect("a good commit"));

    let committed = Committed { offset: Offset(1 << 33), ..Committed::default() };
    time("write_committed", || {
        out.clear();
        reply::write_committed(RequestId(1), ShardId(1), black_box(&committed), &mut out);
    });
    let replied = out.clone();
    time("read that packet and decode the reply", || {
        let packet = packet::read(black_box(&replied)).expect("a packet").expect("a whole one");
        black_box(Reply::decode(packet.0.body).expect("a reply"));
    });
    time("write_row of 128 bytes", || {
        out.clear();
        let row = Some((Offset(1 << 33), &value[..]));
        reply::write_row(RequestId(1), ShardId(1), Offset(1 << 34), black_box(row), &mut out);
    });
    let query = Query::Get { keyspace: String::from("users"), key: key.to_vec() };
    let read = Read { level: Level::Linearizable, query };
    time("encode a get", || {
        out.clear();
        black_box(&read).encode(&mut out);
    });
    let get = out.clone();
    time("decode and check a get", || {
        black_box(Read::decode(black_box(&get)).expect("a good read"));
    });
    time("checksum of 44 bytes and a commit's body", || {
        black_box(packet::crc32c(&[&[0; 44], black_box(&body)]));
    });
    time("write a packet with that body", || {
        out.clear();
        packet::write(Kind::Commit, RequestId(1), ShardId(1), black_box(&body), &mut out);
    });
    let packet = out.clone();
    time("read that packet", || {
        black_box(packet::read(black_box(&packet)).expect("a packet"));
    });
    let header = Header {
        kind: frame::Kind::Commit,
        body_bytes: body.len() as u32,
        crc_before: 1,
        term: Term(1),
        index: Index(1),
        offset: Offset::FIRST,
        time: LogTime(1),
        synced: Offset::FIRST,
    };
    time("write a frame with that body", || {
        out.clear();
        black_box(header.write(black_box(&body), &mut out));
    });
    let frame = out.clone();
    time("read that frame", || {
        black_box(frame::read(black_box(&frame)).expect("a frame"));
    });
    time("a page of 1,000 rows, a row", || {
        out.clear();
        let mut rows = reply::RowsWriter::begin(&mut out);
        for _ in 0..1_000 {
            rows.push(black_box(&key), &value, Offset(1));
        }
        rows.finish(RequestId(1), ShardId(1), Offset(1), None);
    });
}

/// Calls `work` in seven rounds and prints the median of nanoseconds a call.
fn time(what: &str, mut work: impl FnMut()) {
    const CALLS: u32 = 50_000;
    let calls = if what.contains("1,000 rows") { CALLS / 1_000 } else { CALLS };
    let each = if calls == CALLS { 1 } else { 1_000 };
    let mut rounds: Vec<u128> = (0..7)
        .map(|_| {
            let begin = Instant::now();
            (0..calls).for_each(|_| work());
            begin.elapsed().as_nanos() / u128::from(calls * each)
        })
        .collect();
    rounds.sort_unstable();
    println!("{what:<45} {:>6} ns", rounds[3]);
}
