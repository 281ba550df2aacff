//! Entry points of the fuzz targets: each feeds any bytes to a decoder and asserts what must hold of what it accepts.
//!
//! They live here so that tests exercise them too, without a fuzzer.

use crate::ask::Ask;
use crate::commit::{Commit, Op, position_in};
use crate::control::Control;
use crate::message::{Message, Refusal};
use crate::read::Read;
use crate::reply::Reply;
use crate::{frame, packet};

/// Any bytes as a commit: what passes [`Commit::check`] can be walked, and its records have places of their own.
pub fn commit(body: &[u8]) {
    let _ = walk_commit(body);
}

fn walk_commit(body: &[u8]) -> Result<(), Refusal> {
    let message = Message::new(body)?;
    let commit = Commit::read(&message)?;
    if let Err(refusal) = commit.check() {
        let _ = (commit.ops().count(), commit.conditions().count(), commit.names().count());
        return Err(refusal);
    }
    let mut record_before = 0;
    for op in commit.ops() {
        match op.expect("a checked commit can be walked") {
            Op::Append { space, value } => {
                commit.name(space).expect("a checked index leads to a name");
                let at = position_in(body, value);
                assert!(at > record_before, "records lie in the order of their appends");
                record_before = at;
            }
            Op::Advance { space, cursor, .. } => {
                commit.name(space).expect("a checked index leads to a name");
                commit.name(cursor).expect("a checked index leads to a name");
            }
            Op::Put { space, key, .. } | Op::Delete { space, key } => {
                commit.name(space).expect("a checked index leads to a name");
                assert!(!key.is_empty(), "a checked key has bytes");
            }
            Op::DeleteRange { space, .. } => {
                commit.name(space).expect("a checked index leads to a name");
            }
        }
    }
    for condition in commit.conditions() {
        condition.expect("a checked commit can be walked");
    }
    Ok(())
}

/// Any bytes as each of the other messages: what is decoded is encoded and decoded to the same again.
pub fn messages(body: &[u8]) {
    if let Ok(control) = Control::decode(body) {
        let mut out = Vec::new();
        control.encode(&mut out);
        assert_eq!(Control::decode(&out), Ok(control));
    }
    if let Ok(read) = Read::decode(body) {
        let mut out = Vec::new();
        read.encode(&mut out);
        assert_eq!(Read::decode(&out), Ok(read));
    }
    if let Ok(ask) = Ask::decode(body) {
        let mut out = Vec::new();
        ask.encode(&mut out);
        assert_eq!(Ask::decode(&out), Ok(ask));
    }
    if let Ok(reply) = Reply::decode(body) {
        let mut out = Vec::new();
        reply.encode(&mut out);
        assert_eq!(Reply::decode(&out), Ok(reply));
    }
}

/// Any bytes as a frame: what is read is written to the same bytes again.
pub fn frame(bytes: &[u8]) {
    if let Ok(frame) = frame::read(bytes) {
        let mut out = Vec::new();
        assert_eq!(frame.header.write(frame.body, &mut out), frame.crc);
        assert_eq!(out[..], bytes[..out.len()]);
    }
}

/// Any bytes as packets one after another, as a connection reads them.
pub fn packet(mut bytes: &[u8]) {
    loop {
        let wanted = packet::wanted(bytes);
        bytes = match packet::read(bytes) {
            Ok(Some((packet, length))) => {
                assert_eq!(length, wanted, "a whole packet is as long as was wanted");
                let mut out = Vec::new();
                packet::write(packet.kind, packet.request, packet.shard, packet.body, &mut out);
                assert_eq!(out[..], bytes[..length]);
                &bytes[length..]
            }
            Ok(None) => {
                assert!(wanted > bytes.len(), "more is wanted while a packet is not whole");
                return;
            }
            Err(packet::Bad::Kind(_, length, _) | packet::Bad::Crc(length, _)) => &bytes[length..],
            Err(_) => return,
        };
    }
}
