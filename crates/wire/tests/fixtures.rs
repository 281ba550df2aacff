//! The exact bytes of one commit, one frame, one packet and one of each reply that is laid out by
//! hand. The files are kept for ever: bytes like these lie on disks. A change here is a new version
//! of a format, never a new expectation.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use expect_test::{ExpectFile, expect_file};
use naust_wire::commit::{Commit, Draft};
use naust_wire::frame::{self, Header};
use naust_wire::message::Message;
use naust_wire::packet::{self, Kind};
use naust_wire::reply::{self, Committed, RangeDeleted, RecordsWriter, RowsWriter};
use naust_wire::{Index, LogTime, Offset, RequestId, Sequence, SessionId, ShardId, Term};
use std::fmt::Write;

/// Sixteen bytes a line: place, bytes, text.
fn dump(bytes: &[u8]) -> String {
    let mut out = String::new();
    for (i, line) in bytes.chunks(16).enumerate() {
        write!(out, "{:04x}  ", i * 16).unwrap();
        for byte in line {
            write!(out, "{byte:02x} ").unwrap();
        }
        let gap = " ".repeat((16 - line.len()) * 3 + 1);
        let text = |byte: &u8| if (0x20..0x7f).contains(byte) { *byte as char } else { '.' };
        writeln!(out, "{gap}{}", line.iter().map(text).collect::<String>()).unwrap();
    }
    out
}

fn expect(file: ExpectFile, bytes: &[u8]) {
    file.assert_eq(&dump(bytes));
}

/// A commit with each kind of condition and op.
fn commit() -> Vec<u8> {
    let mut draft = Draft::default();
    draft.version("acct", b"a", Offset(0x1_0000_0320)).unwrap();
    draft.absent("acct", b"b").unwrap();
    draft.unchanged("acct", b"c", Some(b"d".into()), Offset(0x1_0000_0400)).unwrap();
    draft.unchanged("users", b"", None, Offset(0x1_0000_0408)).unwrap();
    draft.put("acct", b"a", b"90").unwrap();
    draft.put("users", b"empty", b"").unwrap();
    draft.delete("acct", b"b").unwrap();
    draft.delete_range("users", b"u1", Some(b"u2".into())).unwrap();
    draft.delete_range("users", b"v", None).unwrap();
    draft.append("ledger", b"a paid b ten").unwrap();
    draft.append("ledger", b"").unwrap();
    draft.advance("ledger", "billing", Offset(0x1_0000_1000)).unwrap();
    let mut out = Vec::new();
    draft.encode(SessionId(0x1_0000_0038), Sequence(7), Sequence(5), &mut out).unwrap();
    out
}

#[test]
fn a_commit() {
    let body = commit();
    assert_eq!(Commit::read(&Message::new(&body).unwrap()).unwrap().check(), Ok(()));
    expect(expect_file!["fixtures/commit_1.txt"], &body);
}

#[test]
fn a_frame() {
    let body = commit();
    let header = Header {
        kind: frame::Kind::Commit,
        body_bytes: body.len() as u32,
        crc_before: 0x1234_5678,
        term: Term(3),
        index: Index(12),
        offset: Offset(0x1_0000_0440),
        time: LogTime(1_700_000_000_000),
        synced: Offset(0x1_0000_0400),
    };
    let mut out = Vec::new();
    header.write(&body, &mut out);
    expect(expect_file!["fixtures/frame_1.txt"], &out);
    let mut out = Vec::new();
    let odd = Header { kind: frame::Kind::Configure, body_bytes: 3, ..header };
    odd.write(b"odd", &mut out);
    expect(expect_file!["fixtures/frame_1_padded.txt"], &out);
}

#[test]
fn a_packet() {
    let mut out = Vec::new();
    packet::write(Kind::Commit, RequestId(0x0102_0304), ShardId(9), &commit(), &mut out);
    expect(expect_file!["fixtures/packet_1.txt"], &out);
}

#[test]
fn replies_laid_out_by_hand() {
    let (request, shard) = (RequestId(1), ShardId(2));
    let mut out = Vec::new();
    let committed = Committed {
        offset: Offset(0x1_0000_0440),
        ids: vec![Offset(0x1_0000_0600), Offset(0x1_0000_0610)],
        ranges: vec![
            RangeDeleted { deleted: 10_000, next: Some(b"u15".to_vec()) },
            RangeDeleted { deleted: 0, next: None },
        ],
        duplicate: true,
        interval: false,
    };
    reply::write_committed(request, shard, &committed, &mut out);
    let row = Some((Offset(0x1_0000_0440), &b"90"[..]));
    reply::write_row(request, shard, Offset(0x1_0000_0800), row, &mut out);
    reply::write_row(request, shard, Offset(0x1_0000_0800), None, &mut out);
    let mut rows = RowsWriter::begin(&mut out);
    rows.push(b"a", b"90", Offset(0x1_0000_0440));
    rows.push(b"b", b"", Offset(0x1_0000_0448));
    rows.finish(request, shard, Offset(0x1_0000_0800), Some(b"c"));
    let mut records = RecordsWriter::begin(&mut out);
    records.push(Offset(0x1_0000_0600), b"a paid b ten");
    records.finish(request, shard, Offset(0x1_0000_0610), Offset(0x1_0000_0700));
    let frames = [Offset(0x1_0000_0000), Offset(0x1_0000_0010), Offset(0x1_0000_0800)];
    reply::write_frames(request, shard, frames, b"sixteen of bytes", &mut out);
    expect(expect_file!["fixtures/replies_1.txt"], &out);
}
