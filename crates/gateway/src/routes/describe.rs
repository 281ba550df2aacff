//! What a namespace has: its keyspaces and streams, with their options, sizes and cursors.

use super::Answer;
use crate::problem::Problem;
use crate::request::{Request, json as respond};
use axum::http::StatusCode;
use naust_client::{Description, Named, Namespace};
use naust_wire::options::{Compaction, Compression};
use naust_wire::reply::{Keyspace, Stream};
use serde_json::{Value, json};

/// `GET /v1/NS`
pub async fn describe(namespace: &Namespace, mut request: Request) -> Answer {
    let from = request.query.text("from")?.map(|from| named(&from)).transpose()?;
    let limit = request.query.small("limit")?;
    request.query.finish()?;
    let page = namespace.describe_page(from, limit).await?;
    Ok(respond(StatusCode::OK, &page_json(&page)))
}

/// `kv/KEYSPACE` or `streams/STREAM`: what follows the namespace in the routes of the two.
fn named(text: &str) -> Result<Named, Problem> {
    match text.split_once('/') {
        Some(("kv", name)) => Ok(Named::Keyspace(name.to_owned())),
        Some(("streams", name)) => Ok(Named::Stream(name.to_owned())),
        _ => {
            let detail = format!("from={text} is neither kv/KEYSPACE nor streams/STREAM");
            Err(Problem::malformed(detail))
        }
    }
}

fn page_json(page: &Description) -> Value {
    let mut body = json!({
        "offset": page.at.0,
        "floor": page.floor.0,
        "keyspaces": page.keyspaces.iter().map(keyspace_json).collect::<Vec<_>>(),
        "streams": page.streams.iter().map(stream_json).collect::<Vec<_>>(),
    });
    if let Some(next) = &page.next {
        body["next"] = match next {
            Named::Keyspace(name) => format!("kv/{name}").into(),
            Named::Stream(name) => format!("streams/{name}").into(),
        };
    }
    body
}

/// A keyspace, as it is described: its options are those that `PUT` takes.
#[must_use]
pub fn keyspace_json(keyspace: &Keyspace) -> Value {
    let options = &keyspace.options;
    json!({
        "name": keyspace.name,
        "options": {
            "compaction": match options.compaction {
                Compaction::Levelled => "levelled",
                Compaction::WriteOptimised => "write_optimised",
                Compaction::Fifo => "fifo",
            },
            "compression": match options.compression {
                Compression::None => "none",
                Compression::Lz4 => "lz4",
            },
            "max_bytes": options.max_bytes,
            "max_age_ms": options.max_age_ms,
        },
        "rows_estimate": keyspace.rows_estimate,
        "bytes": keyspace.bytes,
        "floor": keyspace.floor.0,
    })
}

/// A stream, as it is described: its options are those that `PUT` takes.
#[must_use]
pub fn stream_json(stream: &Stream) -> Value {
    let cursors = stream.cursors.iter();
    let cursors = cursors.map(|(name, offset)| json!({ "name": name, "offset": offset.0 }));
    json!({
        "name": stream.name,
        "options": {
            "max_age_ms": stream.options.max_age_ms,
            "max_bytes": stream.options.max_bytes,
            "max_records": stream.options.max_records,
        },
        "first": stream.first.0,
        "end": stream.end.0,
        "records": stream.records,
        "bytes": stream.bytes,
        "cursors": cursors.collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_begin_with_what_routes_are_made_of() {
        assert_eq!(named("kv/users").unwrap(), Named::Keyspace("users".into()));
        assert_eq!(named("streams/a b").unwrap(), Named::Stream("a b".into()));
        for bad in ["", "users", "queues/q", "KV/users"] {
            assert_eq!(named(bad).unwrap_err().code(), "malformed", "{bad}");
        }
    }
}
