//! Replies into bytes. What is sent often is laid out by hand, the rest is built by the generated
//! code.

use super::{
    Committed, Failure, Keyspace, Namespace, Node, RangeDeleted, RecordsWriter, Reply, RowsWriter,
    Stream, ViewDigest,
};
use crate::code::{Code, Outcome};
use crate::ids::{Offset, RequestId, ShardId};
use crate::layout::{Layout, Place, Size};
use crate::limits::{DETAIL_BYTES_MAX, PACKET_BODY_BYTES_MAX, PACKET_HEADER_BYTES, TEXT_BYTES_MAX};
use crate::message::build;
use crate::naust_capnp as schema;
use crate::packet::{self, Kind};
use crate::read::Named;

/// Appends a packet with any reply to `out`. One whose body would be over the limit of packets is
/// replaced by an error that says so.
pub fn write(request: RequestId, shard: ShardId, reply: &Reply, out: &mut Vec<u8>) {
    let start = packet::begin(out);
    reply.encode(out);
    let body = out.len() - start - PACKET_HEADER_BYTES;
    if body > PACKET_BODY_BYTES_MAX {
        out.truncate(start + PACKET_HEADER_BYTES);
        let detail = format!("a reply of {body} bytes is over the limit: ask for less at a time");
        Reply::Error(Failure::new(Code::TooLarge, detail)).encode(out);
    }
    packet::finish(start, Kind::Reply, request, shard, out);
}

/// Appends a packet that says that a commit happened.
pub fn write_committed(
    request: RequestId,
    shard: ShardId,
    committed: &Committed,
    out: &mut Vec<u8>,
) {
    let start = packet::begin(out);
    lay_committed(committed, out);
    packet::finish(start, Kind::Reply, request, shard, out);
}

/// Appends a packet with a row, as of `at`: its version and value, if it is there.
///
/// # Panics
/// If the value is over the limit of values: a bug of the caller.
pub fn write_row(
    request: RequestId,
    shard: ShardId,
    at: Offset,
    row: Option<(Offset, &[u8])>,
    out: &mut Vec<u8>,
) {
    let start = packet::begin(out);
    lay_row(at, row, out);
    packet::finish(start, Kind::Reply, request, shard, out);
}

/// Appends a packet with whole frames of the log, raw: `data` holds those from `first` to `next`;
/// the committed log ends at `end`.
///
/// # Panics
/// If there is more of them than a read of the log may bring: a bug of the caller.
pub fn write_frames(
    request: RequestId,
    shard: ShardId,
    [first, next, end]: [Offset; 3],
    data: &[u8],
    out: &mut Vec<u8>,
) {
    let start = packet::begin(out);
    lay_frames([first, next, end], data, out);
    packet::finish(start, Kind::Reply, request, shard, out);
}

/// Size of the root of every reply.
const REPLY: Size = Size::of::<schema::reply::Builder<'static>>();
const RANGE_DELETED: Size = Size::of::<schema::range_deleted::Builder<'static>>();

/// Numbers of the members of a reply that are laid out here.
pub(super) const ROWS: u16 = 5;
pub(super) const RECORDS: u16 = 6;
const COMMITTED: u16 = 1;
const ROW: u16 = 4;
const FRAMES: u16 = 8;

/// Where fields stand in the data of a reply, in bytes: flags, the member's number, and three
/// numbers.
pub(super) const FLAGS: usize = 0;
const MEMBER: usize = 4;
pub(super) const FIRST: usize = 8;
pub(super) const SECOND: usize = 16;
const THIRD: usize = 24;

/// Begins a reply at the end of `out`.
pub(super) fn begin(member: u16, out: &mut Vec<u8>) -> (Layout<'_>, Place) {
    let (mut layout, root) = Layout::begin(out, REPLY);
    layout.u16(root, MEMBER, member);
    (layout, root)
}

fn lay_committed(committed: &Committed, out: &mut Vec<u8>) {
    let Committed { offset, ids, ranges, duplicate, interval } = committed;
    let (mut layout, root) = begin(COMMITTED, out);
    layout.u16(root, FLAGS, u16::from(*duplicate) | u16::from(*interval) << 1);
    layout.u64(root, FIRST, offset.0);
    if !ids.is_empty() {
        layout.numbers(root.pointer(0), ids.iter().map(|id| id.0));
    }
    if !ranges.is_empty() {
        let first = layout.structures(root.pointer(1), ranges.len(), RANGE_DELETED);
        for (i, RangeDeleted { deleted, next }) in ranges.iter().enumerate() {
            let place = first.element(i);
            layout.u32(place, 0, *deleted);
            layout.u32(place, 4, u32::from(next.is_some()));
            layout.data(place.pointer(0), next.as_deref().unwrap_or_default());
        }
    }
}

fn lay_row(at: Offset, row: Option<(Offset, &[u8])>, out: &mut Vec<u8>) {
    let (mut layout, root) = begin(ROW, out);
    layout.u64(root, FIRST, at.0);
    if let Some((offset, value)) = row {
        layout.u16(root, FLAGS, 1);
        layout.u64(root, SECOND, offset.0);
        layout.data(root.pointer(0), value);
    }
}

fn lay_frames([first, next, end]: [Offset; 3], data: &[u8], out: &mut Vec<u8>) {
    out.reserve(data.len() + 128);
    let (mut layout, root) = begin(FRAMES, out);
    layout.u64(root, FIRST, first.0);
    layout.u64(root, SECOND, next.0);
    layout.u64(root, THIRD, end.0);
    layout.data(root.pointer(0), data);
}

impl Reply {
    /// Appends the reply's bytes to `out`: a packet's body. Sentences over their limit are cut.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Reply::Committed(committed) => lay_committed(committed, out),
            Reply::Row { at, row } => {
                lay_row(*at, row.as_ref().map(|(offset, value)| (*offset, &value[..])), out);
            }
            Reply::Rows { at, entries, next } => {
                let mut rows = RowsWriter::body(out);
                for entry in entries {
                    rows.push(&entry.key, &entry.value, entry.offset);
                }
                rows.lay_root(*at, next.as_deref());
            }
            Reply::Records { records, next, end } => {
                let mut writer = RecordsWriter::body(out);
                for record in records {
                    writer.push(record.offset, &record.value);
                }
                writer.lay_root(*next, *end);
            }
            Reply::Frames { first, data, next, end } => {
                lay_frames([*first, *next, *end], data, out)
            }
            _ => {
                build::<schema::reply::Owned>(self.words(), out, |root| write_other(self, root));
            }
        }
    }

    /// About how many words the generated code will need.
    fn words(&self) -> usize {
        match self {
            Reply::Namespaces { namespaces, .. } => 64 + namespaces.len() * 32,
            Reply::Cluster { nodes, namespaces, .. } => {
                64 + nodes.len() * 16 + namespaces.len() * 32
            }
            Reply::Described { keyspaces, streams, .. } => {
                let cursors: usize = streams.iter().map(|stream| stream.cursors.len()).sum();
                64 + keyspaces.len() * 16 + streams.len() * 20 + cursors * 6
            }
            _ => 64,
        }
    }
}

fn write_other(reply: &Reply, mut root: schema::reply::Builder<'_>) {
    match reply {
        Reply::Error(failure) => write_failure(failure, root.init_error()),
        Reply::Refused(refused) => {
            let mut to = root.init_refused();
            to.set_condition(refused.condition);
            to.set_at(refused.at.0);
            to.set_found(refused.found.0);
        }
        Reply::Session(session) => root.set_session(session.0),
        Reply::Cursor(offset) => {
            let mut to = root.init_cursor();
            to.set_has_cursor(offset.is_some());
            to.set_cursor_offset(offset.map_or(0, |offset| offset.0));
        }
        Reply::Done(offset) => root.set_done(offset.0),
        Reply::Hello { node, version, cluster } => {
            let mut to = root.init_hello();
            to.set_cluster(*cluster);
            to.set_node(node.0);
            to.set_version(cut(version, TEXT_BYTES_MAX));
        }
        Reply::Resolved { shard, leader } => {
            let mut to = root.init_resolved();
            to.set_shard(shard.0);
            to.set_leader(leader.0);
        }
        Reply::Namespaces { namespaces, next } => {
            let mut to = root.init_namespaces();
            to.set_more_namespaces(next.is_some());
            let list = to.init_page((namespaces.len() + usize::from(next.is_some())) as u32);
            write_namespaces(namespaces, next.as_deref(), list);
        }
        Reply::Cluster { nodes, namespaces, next } => {
            let mut to = root.init_cluster();
            to.set_more_in_cluster(next.is_some());
            write_nodes(nodes, to.reborrow().init_nodes(nodes.len() as u32));
            let count = namespaces.len() + usize::from(next.is_some());
            let list = to.init_cluster_namespaces(count as u32);
            write_namespaces(namespaces, next.as_deref(), list);
        }
        Reply::Described { at, floor, keyspaces, streams, next } => {
            let mut to = root.init_described();
            to.set_more_described(next.is_some());
            to.set_described_at(at.0);
            to.set_floor(floor.0);
            let (next_keyspace, next_stream) = match next {
                None => (None, None),
                Some(Named::Keyspace(name)) => (Some(name.as_str()), None),
                Some(Named::Stream(name)) => (None, Some(name.as_str())),
            };
            let count = (keyspaces.len() + usize::from(next_keyspace.is_some())) as u32;
            write_keyspaces(keyspaces, next_keyspace, to.reborrow().init_keyspaces(count));
            let count = (streams.len() + usize::from(next_stream.is_some())) as u32;
            write_streams(streams, next_stream, to.init_streams(count));
        }
        Reply::Digests(views) => {
            let mut list = root.init_digests(views.len() as u32);
            for (i, ViewDigest { view, count, digest }) in views.iter().enumerate() {
                let mut to = list.reborrow().get(i as u32);
                to.set_view(view);
                to.set_count(*count);
                to.set_digest(*digest);
            }
        }
        Reply::Committed(_)
        | Reply::Row { .. }
        | Reply::Rows { .. }
        | Reply::Records { .. }
        | Reply::Frames { .. } => unreachable!("laid out by hand: see Reply::encode"),
    }
}

fn write_failure(failure: &Failure, mut to: schema::reply::error::Builder<'_>) {
    to.set_code(failure.code as u16);
    to.set_unknown(failure.outcome == Outcome::Unknown);
    to.set_detail(cut(&failure.detail, DETAIL_BYTES_MAX));
    to.set_hint(cut(&failure.hint, TEXT_BYTES_MAX));
}

/// The longest beginning of `text` that has at most `max` bytes.
fn cut(text: &str, max: usize) -> &str {
    &text[..text.floor_char_boundary(max)]
}

type ListOf<'a, T> = capnp::struct_list::Builder<'a, T>;

/// `next`, here and below: of the last of the list only the name is told.
fn write_namespaces(
    namespaces: &[Namespace],
    next: Option<&str>,
    mut list: ListOf<'_, schema::namespace::Owned>,
) {
    if let Some(next) = next {
        list.reborrow().get(namespaces.len() as u32).set_name(next);
    }
    for (i, namespace) in namespaces.iter().enumerate() {
        let mut to = list.reborrow().get(i as u32);
        to.set_name(&namespace.name);
        to.set_shard(namespace.shard.0);
        to.set_leader(namespace.leader.0);
        to.set_end(end_number(namespace.end));
        to.set_closing(namespace.closing);
        namespace.options.write(to.reborrow().init_options());
        let mut replicas = to.init_replicas(namespace.replicas.len() as u32);
        for (i, replica) in namespace.replicas.iter().enumerate() {
            let mut to = replicas.reborrow().get(i as u32);
            to.set_node(replica.node.0);
            to.set_voter(replica.voter);
            to.set_end(end_number(replica.end));
        }
    }
}

/// The end of a log, or zero if it is not known: no log begins there.
fn end_number(end: Option<Offset>) -> u64 {
    end.unwrap_or(Offset::ZERO).0
}

fn write_nodes(nodes: &[Node], mut list: ListOf<'_, schema::node::Owned>) {
    for (i, node) in nodes.iter().enumerate() {
        let mut to = list.reborrow().get(i as u32);
        to.set_id(node.id.0);
        to.set_name(cut(&node.name, TEXT_BYTES_MAX));
        to.set_address(cut(&node.address, TEXT_BYTES_MAX));
        to.set_up(node.up);
    }
}

fn write_keyspaces(
    keyspaces: &[Keyspace],
    next: Option<&str>,
    mut list: ListOf<'_, schema::keyspace::Owned>,
) {
    if let Some(next) = next {
        list.reborrow().get(keyspaces.len() as u32).set_name(next);
    }
    for (i, keyspace) in keyspaces.iter().enumerate() {
        let mut to = list.reborrow().get(i as u32);
        to.set_name(&keyspace.name);
        to.set_rows_estimate(keyspace.rows_estimate);
        to.set_bytes(keyspace.bytes);
        to.set_floor(keyspace.floor.0);
        keyspace.options.write(to.init_options());
    }
}

fn write_streams(
    streams: &[Stream],
    next: Option<&str>,
    mut list: ListOf<'_, schema::stream::Owned>,
) {
    if let Some(next) = next {
        list.reborrow().get(streams.len() as u32).set_name(next);
    }
    for (i, stream) in streams.iter().enumerate() {
        let mut to = list.reborrow().get(i as u32);
        to.set_name(&stream.name);
        to.set_first(stream.first.0);
        to.set_end(stream.end.0);
        to.set_records(stream.records);
        to.set_bytes(stream.bytes);
        stream.options.write(to.reborrow().init_options());
        let mut cursors = to.init_cursors(stream.cursors.len() as u32);
        for (i, (name, offset)) in stream.cursors.iter().enumerate() {
            let mut to = cursors.reborrow().get(i as u32);
            to.set_name(name);
            to.set_offset(offset.0);
        }
    }
}
