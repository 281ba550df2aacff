//! Replies out of bytes. A client reads them, but what comes from a network is bounded and checked
//! all the same.

use super::{
    Committed, Entry, Failure, Keyspace, Namespace, Node, RangeDeleted, Record, Refused, Replica,
    Reply, Stream, ViewDigest,
};
use crate::code::{Code, Outcome};
use crate::ids::{NodeId, Offset, SessionId, ShardId};
use crate::limits::{
    CURSORS_PER_STREAM_MAX, DETAIL_BYTES_MAX, KEY_BYTES_MAX, KEYSPACES_PER_NAMESPACE_MAX,
    NAME_BYTES_MAX, NODES_MAX, OPS_PER_COMMIT_MAX, PACKET_BODY_BYTES_MAX, PAGE_ROWS_MAX,
    RANGE_DELETES_PER_COMMIT_MAX, REPLICAS_PER_SHARD_MAX, TEXT_BYTES_MAX, VALUE_BYTES_MAX,
    VIEWS_PER_SHARD_MAX,
};
use crate::message::{Message, Refusal, bounded, data, text};
use crate::naust_capnp as schema;
use crate::options::{KeyspaceOptions, NamespaceOptions, StreamOptions};
use crate::read::Named;

impl Reply {
    /// Reads a reply from its bytes.
    ///
    /// # Errors
    /// `Malformed`, `UnknownKind` (also for an error whose code this release does not know), or
    /// `TooLarge` for a part that is over its limit.
    pub fn decode(body: &[u8]) -> Result<Reply, Refusal> {
        use schema::reply::Which;
        let message = Message::once(body)?;
        let root: schema::reply::Reader<'_> = message.root()?;
        Ok(match root.which()? {
            Which::Error(from) => Reply::Error(read_failure(from)?),
            Which::Committed(from) => Reply::Committed(read_committed(from)?),
            Which::Refused(from) => Reply::Refused(Refused {
                condition: from.get_condition(),
                at: Offset(from.get_at()),
                found: Offset(from.get_found()),
            }),
            Which::Session(session) => Reply::Session(SessionId(session)),
            Which::Row(from) => read_row(from)?,
            Which::Rows(from) => read_rows(from)?,
            Which::Records(from) => read_records(from)?,
            Which::Cursor(from) => {
                let offset = Offset(from.get_cursor_offset());
                Reply::Cursor(from.get_has_cursor().then_some(offset))
            }
            Which::Frames(from) => Reply::Frames {
                first: Offset(from.get_first()),
                data: data(from.get_data()?, PACKET_BODY_BYTES_MAX)?,
                next: Offset(from.get_next_frame()),
                end: Offset(from.get_log_end()),
            },
            Which::Done(offset) => Reply::Done(Offset(offset)),
            Which::Hello(from) => Reply::Hello {
                cluster: from.get_cluster(),
                node: NodeId(from.get_node()),
                version: text(from.get_version()?, TEXT_BYTES_MAX)?,
            },
            Which::Resolved(from) => Reply::Resolved {
                shard: ShardId(from.get_shard()),
                leader: NodeId(from.get_leader()),
            },
            Which::Namespaces(from) => {
                let mut namespaces = read_namespaces(from.get_page()?)?;
                let next = split(from.get_more_namespaces(), &mut namespaces, |last| last.name);
                Reply::Namespaces { namespaces, next }
            }
            Which::Cluster(from) => {
                let nodes = collect("nodes", from.get_nodes()?, NODES_MAX, read_node)?;
                let mut namespaces = read_namespaces(from.get_cluster_namespaces()?)?;
                let next = split(from.get_more_in_cluster(), &mut namespaces, |last| last.name);
                Reply::Cluster { nodes, namespaces, next }
            }
            Which::Described(from) => read_described(from)?,
            Which::Digests(list) => {
                Reply::Digests(collect("views", list?, VIEWS_PER_SHARD_MAX, read_digest)?)
            }
        })
    }
}

type ListOf<'a, T> = capnp::struct_list::Reader<'a, T>;

/// Reads all elements of a list that has at most `max`.
fn collect<'a, T, V>(
    what: &str,
    list: ListOf<'a, T>,
    max: usize,
    read: impl Fn(T::Reader<'a>) -> Result<V, Refusal>,
) -> Result<Vec<V>, Refusal>
where
    T: capnp::traits::OwnedStruct,
{
    bounded(what, list.len() as usize, max)?;
    list.iter().map(read).collect()
}

fn read_failure(from: schema::reply::error::Reader<'_>) -> Result<Failure, Refusal> {
    let number = from.get_code();
    let code = Code::from_number(number).ok_or_else(|| {
        let detail = format!("an error with the code {number}, which this release does not know");
        Refusal::new(Code::UnknownKind, detail)
    })?;
    Ok(Failure {
        code,
        outcome: if from.get_unknown() { Outcome::Unknown } else { Outcome::NotDone },
        detail: text(from.get_detail()?, DETAIL_BYTES_MAX)?,
        hint: text(from.get_hint()?, TEXT_BYTES_MAX)?,
    })
}

fn read_committed(from: schema::reply::committed::Reader<'_>) -> Result<Committed, Refusal> {
    let ids = from.get_ids()?;
    bounded("ids", ids.len() as usize, OPS_PER_COMMIT_MAX)?;
    let ranges = from.get_ranges()?;
    Ok(Committed {
        offset: Offset(from.get_offset()),
        ids: ids.iter().map(Offset).collect(),
        ranges: collect("ranges", ranges, RANGE_DELETES_PER_COMMIT_MAX, |range| {
            Ok(RangeDeleted {
                deleted: range.get_deleted(),
                next: optional_key(range.get_more(), range.get_next()?)?,
            })
        })?,
        duplicate: from.get_duplicate(),
        interval: from.get_interval(),
    })
}

fn optional_key(present: bool, key: &[u8]) -> Result<Option<Vec<u8>>, Refusal> {
    present.then(|| data(key, KEY_BYTES_MAX)).transpose()
}

/// Takes the last of a list off, if it is only the name that the following page begins with.
fn split<T>(more: bool, list: &mut Vec<T>, name: impl Fn(T) -> String) -> Option<String> {
    if more { list.pop().map(name) } else { None }
}

fn read_row(from: schema::reply::row::Reader<'_>) -> Result<Reply, Refusal> {
    let row = match from.get_present() {
        true => Some((Offset(from.get_row_offset()), data(from.get_value()?, VALUE_BYTES_MAX)?)),
        false => None,
    };
    Ok(Reply::Row { at: Offset(from.get_row_at()), row })
}

fn read_rows(from: schema::reply::rows::Reader<'_>) -> Result<Reply, Refusal> {
    let entries = collect("rows", from.get_entries()?, PAGE_ROWS_MAX, |entry| {
        Ok(Entry {
            key: data(entry.get_key()?, KEY_BYTES_MAX)?,
            value: data(entry.get_value()?, VALUE_BYTES_MAX)?,
            offset: Offset(entry.get_offset()),
        })
    })?;
    let next = optional_key(from.get_more(), from.get_next()?)?;
    Ok(Reply::Rows { at: Offset(from.get_rows_at()), entries, next })
}

fn read_records(from: schema::reply::records::Reader<'_>) -> Result<Reply, Refusal> {
    let records = collect("records", from.get_items()?, PAGE_ROWS_MAX, |record| {
        Ok(Record {
            offset: Offset(record.get_offset()),
            value: data(record.get_value()?, VALUE_BYTES_MAX)?,
        })
    })?;
    let (next, end) = (Offset(from.get_next_record()), Offset(from.get_end()));
    Ok(Reply::Records { records, next, end })
}

fn read_namespaces(list: ListOf<'_, schema::namespace::Owned>) -> Result<Vec<Namespace>, Refusal> {
    collect("namespaces", list, PAGE_ROWS_MAX + 1, |from| {
        let replicas = from.get_replicas()?;
        Ok(Namespace {
            name: text(from.get_name()?, NAME_BYTES_MAX)?,
            shard: ShardId(from.get_shard()),
            leader: NodeId(from.get_leader()),
            end: known_end(from.get_end()),
            replicas: collect("replicas", replicas, REPLICAS_PER_SHARD_MAX, |replica| {
                Ok(Replica {
                    node: NodeId(replica.get_node()),
                    voter: replica.get_voter(),
                    end: known_end(replica.get_end()),
                })
            })?,
            options: NamespaceOptions::read(from.get_options()?)?,
            closing: from.get_closing(),
        })
    })
}

fn known_end(end: u64) -> Option<Offset> {
    (end != 0).then_some(Offset(end))
}

fn read_node(from: schema::node::Reader<'_>) -> Result<Node, Refusal> {
    Ok(Node {
        id: NodeId(from.get_id()),
        name: text(from.get_name()?, TEXT_BYTES_MAX)?,
        address: text(from.get_address()?, TEXT_BYTES_MAX)?,
        up: from.get_up(),
    })
}

fn read_described(from: schema::reply::described::Reader<'_>) -> Result<Reply, Refusal> {
    let keyspaces = from.get_keyspaces()?;
    let mut keyspaces = collect("keyspaces", keyspaces, KEYSPACES_PER_NAMESPACE_MAX, |keyspace| {
        Ok(Keyspace {
            name: text(keyspace.get_name()?, NAME_BYTES_MAX)?,
            options: KeyspaceOptions::read(keyspace.get_options()?)?,
            rows_estimate: keyspace.get_rows_estimate(),
            bytes: keyspace.get_bytes(),
            floor: Offset(keyspace.get_floor()),
        })
    })?;
    let mut streams = collect("streams", from.get_streams()?, PAGE_ROWS_MAX + 1, read_stream)?;
    let more = from.get_more_described();
    let next = split(more, &mut streams, |last| last.name).map(Named::Stream);
    let next = match next {
        Some(next) => Some(next),
        None => split(more, &mut keyspaces, |last| last.name).map(Named::Keyspace),
    };
    let (at, floor) = (Offset(from.get_described_at()), Offset(from.get_floor()));
    Ok(Reply::Described { at, floor, keyspaces, streams, next })
}

fn read_digest(from: schema::view_digest::Reader<'_>) -> Result<ViewDigest, Refusal> {
    Ok(ViewDigest {
        view: text(from.get_view()?, NAME_BYTES_MAX)?,
        count: from.get_count(),
        digest: from.get_digest(),
    })
}

fn read_stream(from: schema::stream::Reader<'_>) -> Result<Stream, Refusal> {
    let cursors = from.get_cursors()?;
    Ok(Stream {
        name: text(from.get_name()?, NAME_BYTES_MAX)?,
        options: StreamOptions::read(from.get_options()?),
        first: Offset(from.get_first()),
        end: Offset(from.get_end()),
        records: from.get_records(),
        bytes: from.get_bytes(),
        cursors: collect("cursors", cursors, CURSORS_PER_STREAM_MAX, |cursor| {
            Ok((text(cursor.get_name()?, NAME_BYTES_MAX)?, Offset(cursor.get_offset())))
        })?,
    })
}
