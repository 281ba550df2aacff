//! What was seen, in lines.

use naust_node::views::Job;
use naust_node::{ConnectionId, Effect};
use naust_wire::reply::Reply;
use naust_wire::{Offset, packet};

/// Offsets as bytes behind the beginning of the log; only their order is worth a look.
pub fn offset(offset: Offset) -> String {
    match offset.0.checked_sub(Offset::FIRST.0) {
        Some(bytes) => format!("+{bytes}"),
        None => offset.0.to_string(),
    }
}

/// A sentence with its offsets made relative.
pub fn relative(sentence: &str) -> String {
    let word = |word: &str| {
        let digits = word.trim_end_matches([':', ',']);
        match digits.parse().map(Offset) {
            Ok(at) if at >= Offset::FIRST => offset(at) + &word[digits.len()..],
            _ => word.to_string(),
        }
    };
    sentence.split(' ').map(word).collect::<Vec<_>>().join(" ")
}

pub fn effect(effect: &Effect) -> Option<String> {
    Some(match effect {
        Effect::Write { shard, write } => {
            format!("  write {} bytes of shard {shard}", write.log_bytes())
        }
        Effect::Trim { shard, .. } => format!("  trim shard {shard}"),
        Effect::Views { shard, job: Job::Apply(apply) } if apply.waiters.is_empty() => {
            format!("  fold in {} bytes of shard {shard} again", apply.batch.bytes())
        }
        Effect::Open { shard, .. } => format!("  open shard {shard}"),
        _ => return None,
    })
}

pub fn replies(to: ConnectionId, mut bytes: &[u8]) -> Vec<String> {
    let mut lines = Vec::new();
    while let Some((packet, length)) = packet::read(bytes).expect("a node sends whole packets") {
        let reply = Reply::decode(packet.body).expect("a node sends replies");
        lines.push(format!("c{} #{}: {}", to.0, packet.request, show(&reply)));
        bytes = &bytes[length..];
    }
    lines
}

fn show(reply: &Reply) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match reply {
        Reply::Error(failure) => {
            format!("{} ({:?}): {}", failure.code, failure.outcome, failure.detail)
        }
        Reply::Committed(committed) => {
            let mut line = format!("committed {}", offset(committed.offset));
            for id in &committed.ids {
                line += &format!(" record {}", offset(*id));
            }
            for range in &committed.ranges {
                line += &format!(" deleted {}", range.deleted);
            }
            line + if committed.duplicate { " again" } else { "" }
                + if committed.interval { ", not synced yet" } else { "" }
        }
        Reply::Refused(refused) => {
            format!("refused by condition {}, found {}", refused.condition, offset(refused.found))
        }
        Reply::Session(session) => format!("session {}", offset(Offset(session.0))),
        Reply::Row { row: None, .. } => "no row".to_string(),
        Reply::Row { row: Some((version, value)), .. } => {
            format!("row {} of {}", text(value), offset(*version))
        }
        Reply::Rows { entries, next, .. } => {
            let rows =
                entries.iter().map(|row| format!(" {}={}", text(&row.key), text(&row.value)));
            let rows: String = rows.collect();
            let next = next.as_ref().map(|next| format!(", then {}", text(next)));
            format!("rows{rows}{}", next.unwrap_or_default())
        }
        Reply::Records { records, next, .. } => {
            let records =
                records.iter().map(|r| format!(" {}={}", offset(r.offset), text(&r.value)));
            format!("records{}, next {}", records.collect::<String>(), offset(*next))
        }
        Reply::Cursor(at) => format!("cursor {}", at.map_or("nowhere".to_string(), offset)),
        Reply::Frames { first, data, next, end } => format!(
            "{} bytes of frames from {} to {}, end {}",
            data.len(),
            offset(*first),
            offset(*next),
            offset(*end)
        ),
        Reply::Done(at) => format!("done {}", offset(*at)),
        Reply::Hello { node, .. } => format!("hello of node {node}"),
        Reply::Resolved { shard, leader } => format!("shard {shard}, led by {leader}"),
        Reply::Namespaces { namespaces, next } => {
            let names = namespaces.iter().map(|n| format!(" {} in {}", n.name, n.shard));
            let next = next.iter().map(|next| format!(", next {next}"));
            format!("namespaces{}", names.chain(next).collect::<String>())
        }
        Reply::Cluster { nodes, namespaces, .. } => {
            let end = |end: Option<Offset>| end.map_or("unknown".to_string(), offset);
            let namespaces = namespaces.iter().map(|n| {
                let replicas = n.replicas.iter().map(|r| format!(" {}: {}", r.node, end(r.end)));
                format!(", {} ends at {}{}", n.name, end(n.end), replicas.collect::<String>())
            });
            format!("{} nodes{}", nodes.len(), namespaces.collect::<String>())
        }
        Reply::Described { keyspaces, streams, next, .. } => {
            let keyspaces = keyspaces.iter().map(|k| format!(" keyspace {}", k.name));
            let streams = streams.iter().map(|s| format!(" stream {} of {}", s.name, s.records));
            let next = next.iter().map(|next| format!(", next {}", next.name()));
            format!("described{}", keyspaces.chain(streams).chain(next).collect::<String>())
        }
        Reply::Digests(views) => {
            let views = views.iter().filter(|view| view.count > 0);
            let views = views.map(|view| format!(" {} of {}", view.view, view.count));
            format!("digests of{}", views.collect::<String>())
        }
    }
}
