//! Replies that the worker gives itself, as effects.

use crate::{ConnectionId, Effect};
use naust_wire::packet::{self, Kind};
use naust_wire::reply::{self, Failure, Reply};
use naust_wire::{RequestId, ShardId};

/// Bytes of replies that are put into one effect.
const SEND_BYTES: usize = 64 * 1024;

/// Answers a request, with so many bytes. Replies to one connection that follow each other leave
/// together.
pub(crate) fn send(
    to: ConnectionId,
    request: RequestId,
    shard: ShardId,
    reply: &Reply,
    effects: &mut Vec<Effect>,
) -> usize {
    if let Some(Effect::Send { to: last, bytes }) = effects.last_mut()
        && *last == to
        && bytes.len() < SEND_BYTES
    {
        let before = bytes.len();
        reply::write(request, shard, reply, bytes);
        return bytes.len() - before;
    }
    let mut bytes = Vec::new();
    reply::write(request, shard, reply, &mut bytes);
    let length = bytes.len();
    effects.push(Effect::Send { to, bytes });
    length
}

/// Passes a reply of another node on.
pub(crate) fn pass(
    to: ConnectionId,
    request: RequestId,
    shard: ShardId,
    body: &[u8],
    effects: &mut Vec<Effect>,
) {
    if let Some(Effect::Send { to: last, bytes }) = effects.last_mut()
        && *last == to
        && bytes.len() < SEND_BYTES
    {
        return packet::write(Kind::Reply, request, shard, body, bytes);
    }
    let mut bytes = Vec::new();
    packet::write(Kind::Reply, request, shard, body, &mut bytes);
    effects.push(Effect::Send { to, bytes });
}

/// Refuses a request.
pub(crate) fn fail(
    to: ConnectionId,
    request: RequestId,
    shard: ShardId,
    failure: Failure,
    effects: &mut Vec<Effect>,
) {
    send(to, request, shard, &Reply::Error(failure), effects);
}
