//! Entry points of the fuzz targets: each feeds any bytes to a decoder and asserts what must hold
//! of what it accepts.
//!
//! They live here so that tests exercise them too, without a fuzzer.

use crate::ask::Ask;
use crate::commit::{Commit, Condition, Op, position_in};
use crate::control::Control;
use crate::ids::{Offset, RequestId, ShardId};
use crate::message::{Message, Refusal};
use crate::read::Read;
use crate::reply::Reply;
use crate::{frame, naust_capnp as schema, packet, peer};

/// Any bytes as a commit: what passes [`Commit::check`] can be walked, reads the same through the
/// generated code, and its records have places of their own.
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
        let op = op.expect("a checked commit can be walked");
        if let Op::Append { value, .. } = op {
            let at = position_in(body, value);
            assert!(at > record_before, "records lie in the order of their appends");
            record_before = at;
        }
        let (Op::Put { space, .. }
        | Op::Delete { space, .. }
        | Op::DeleteRange { space, .. }
        | Op::Append { space, .. }
        | Op::Advance { space, .. }) = op;
        commit.name(space).expect("a checked index leads to a name");
    }
    compare(&commit, &message).expect("the generated code reads what was checked");
    Ok(())
}

/// Holds what `commit` reads equal to what the generated code reads.
fn compare(commit: &Commit<'_>, message: &Message<'_>) -> Result<(), Refusal> {
    let root: schema::commit::Reader<'_> = message.root()?;
    let numbers = (root.get_session(), root.get_sequence(), root.get_acked_below());
    assert_eq!((commit.session().0, commit.sequence().0, commit.acked_below().0), numbers);
    let (names, conditions, ops) = (root.get_names()?, root.get_conditions()?, root.get_ops()?);
    let lengths = (names.len() as usize, conditions.len() as usize, ops.len() as usize);
    assert_eq!((commit.names().count(), commit.conditions_len(), commit.ops_len()), lengths);
    for (ours, generated) in commit.names().zip(names) {
        assert_eq!(ours?, generated?.to_str()?);
    }
    for (ours, generated) in commit.conditions().zip(conditions) {
        assert_eq!(ours?, generated_condition(generated)?);
    }
    for (ours, generated) in commit.ops().zip(ops) {
        assert_eq!(ours?, generated_op(generated)?);
    }
    Ok(())
}

fn generated_condition(from: schema::condition::Reader<'_>) -> Result<Condition<'_>, Refusal> {
    use schema::condition::Which;
    let space = from.get_space();
    Ok(match from.which()? {
        Which::Version(from) => {
            let offset = Offset(from.get_offset());
            Condition::Version { space, key: from.get_key()?, offset }
        }
        Which::Absent(from) => Condition::Absent { space, key: from.get_key()? },
        Which::Unchanged(range) => {
            let to = (!range.get_unbounded()).then(|| range.get_to()).transpose()?;
            let since = Offset(range.get_since());
            Condition::Unchanged { space, from: range.get_from()?, to, since }
        }
    })
}

fn generated_op(from: schema::op::Reader<'_>) -> Result<Op<'_>, Refusal> {
    use schema::op::Which;
    let space = from.get_space();
    Ok(match from.which()? {
        Which::Put(put) => Op::Put { space, key: put.get_key()?, value: put.get_value()? },
        Which::Delete(delete) => Op::Delete { space, key: delete.get_key()? },
        Which::DeleteRange(range) => {
            let to = (!range.get_unbounded()).then(|| range.get_to()).transpose()?;
            Op::DeleteRange { space, from: range.get_from()?, to }
        }
        Which::Append(append) => Op::Append { space, value: append.get_value()? },
        Which::Advance(from) => {
            let offset = Offset(from.get_offset());
            Op::Advance { space, cursor: from.get_cursor(), offset }
        }
    })
}

/// Any bytes as each of the other messages: what is decoded is encoded and decoded to the same
/// again.
pub fn messages(body: &[u8]) {
    if let Ok((numbers, control)) = Control::decode_numbered(body) {
        let mut out = Vec::new();
        control.encode_numbered(&numbers, &mut out);
        assert_eq!(Control::decode_numbered(&out), Ok((numbers, control)));
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

/// Any bytes as a frame, as they are and once more with the header mended, so that the fuzzer gets
/// past the checksum: what is read is written to the same bytes again.
pub fn frame(bytes: &[u8]) {
    written_again(bytes);
    let mut mended = bytes.to_vec();
    if frame::mend(&mut mended) {
        written_again(&mended);
    }
}

fn written_again(bytes: &[u8]) {
    if let Ok(frame) = frame::read(bytes) {
        let mut out = Vec::new();
        assert_eq!(frame.header.write(frame.body, &mut out), frame.crc);
        assert_eq!(out[..], bytes[..out.len()]);
    }
}

/// Any bytes as what one node says to another: what is accepted is heard the same when it is said
/// again, and the frames beside it are where they were.
pub fn peer(body: &[u8]) {
    if let Ok((said, frames)) = peer::open(body) {
        let mut out = Vec::new();
        let packet = peer::begin(ShardId(1), &said, &mut out);
        out.extend_from_slice(frames);
        packet.finish(&mut out);
        let read = packet::read(&out).expect("a packet").expect("a whole one").0;
        assert_eq!(peer::open(read.body), Ok((said, frames)));
    }
}

/// Any bytes as packets one after another, as a connection reads them; and as the kind, ids and
/// body of a whole one.
pub fn packet(bytes: &[u8]) {
    connection(bytes);
    if let Some((head, body)) = bytes.split_first_chunk::<14>() {
        let [low, high, request @ .., a, b, c, d] = *head;
        let shard = ShardId(u32::from_le_bytes([a, b, c, d]));
        let kind = u16::from_le_bytes([low, high]) ^ packet::Kind::Reply as u16;
        if let Some(kind) = packet::Kind::from_number(kind) {
            let request = RequestId(u64::from_le_bytes(request));
            let mut out = Vec::new();
            packet::write(kind, request, shard, body, &mut out);
            let read = packet::Packet { kind, request, shard, body };
            assert_eq!(packet::read(&out), Ok(Some((read, out.len()))));
            out.extend_from_slice(bytes);
            connection(&out);
        }
    }
}

fn connection(mut bytes: &[u8]) {
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
