//! Records of streams, and cursors.

use super::Answer;
use super::commit::written_json;
use crate::bytes_in_text::put_bytes;
use crate::events;
use crate::json;
use crate::problem::Problem;
use crate::query::number;
use crate::request::{Request, identity_of, json as respond};
use crate::server::State;
use axum::http::StatusCode;
use naust_client::{Code, Namespace, Offset, ReadOptions, Record, Records};
use naust_wire::commit::Draft;
use naust_wire::limits::VALUE_BYTES_MAX;
use serde_json::{Map, Value, json};

/// Bytes of a body of options, or of a cursor.
const OPTIONS_BYTES_MAX: usize = 64 * 1024;

/// `GET /v1/NS/streams/STREAM`: a page of records, or with `Accept: text/event-stream` all of them
/// as they come.
pub async fn read(
    state: &State,
    namespace: &Namespace,
    stream: &str,
    mut request: Request,
) -> Answer {
    let follow = request.header("accept")?.is_some_and(|kinds| {
        kinds.split(',').any(|kind| kind.split(';').next().map(str::trim) == Some(events::KIND))
    });
    let from = request.query.number("from")?.map(Offset);
    if follow {
        std::mem::take(&mut request.query).finish()?;
        let last = request.header("last-event-id")?.map(|id| number("Last-Event-ID", id));
        // A resumed reader names the last record that it has; the next has a larger id.
        let resumed = last.transpose()?.map(|id| Offset(id.saturating_add(1)));
        let from = resumed.or(from).unwrap_or_default();
        return events::follow(state, namespace.stream(stream), from).await;
    }
    let options = ReadOptions {
        limit: request.query.small("limit")?,
        wait_ms: request.query.small("wait_ms")?,
        level: request.query.level_now()?,
        ..ReadOptions::default()
    };
    request.query.finish()?;
    let (stream, from) = (namespace.stream(stream), from.unwrap_or_default());
    let records = tokio::select! {
        records = stream.read(from, options) => records?,
        // Who waits is told what there is while the node can still be asked.
        () = state.ending(), if options.wait_ms > 0 => {
            stream.read(from, ReadOptions { wait_ms: 0, ..options }).await?
        }
    };
    Ok(respond(StatusCode::OK, &records_json(&records)))
}

/// `POST /v1/NS/streams/STREAM`
pub async fn append(namespace: &Namespace, stream: &str, mut request: Request) -> Answer {
    std::mem::take(&mut request.query).finish()?;
    let identity = identity_of(request.identity()?);
    let body = request.whole(VALUE_BYTES_MAX).await?;
    let mut draft = Draft::default();
    draft.append(stream, &body.bytes[..])?;
    let committed = namespace.commit_draft(&draft, identity).await?;
    let id = committed.ids.first().copied().unwrap_or(committed.offset);
    Ok(respond(StatusCode::OK, &written_json(&committed, id)))
}

/// `PUT /v1/NS/streams/STREAM`
pub async fn set_options(namespace: &Namespace, stream: &str, mut request: Request) -> Answer {
    std::mem::take(&mut request.query).finish()?;
    let identity = identity_of(request.identity()?);
    let body = request.whole(OPTIONS_BYTES_MAX).await?;
    let options = json::stream_options(&body.bytes)?;
    let offset = namespace.stream(stream).set_options_as(options, identity).await?;
    Ok(respond(StatusCode::OK, &json!({ "offset": offset.0 })))
}

/// `GET /v1/NS/streams/STREAM/cursors/NAME`
pub async fn cursor(namespace: &Namespace, stream: &str, name: &str, request: Request) -> Answer {
    request.query.finish()?;
    match namespace.stream(stream).cursor(name).get().await? {
        Some(offset) => Ok(respond(StatusCode::OK, &json!({ "offset": offset.0 }))),
        None => {
            let detail = format!("the stream has no cursor {name:?}; PUT it to make it");
            Err(Problem::of(Code::CursorNotFound, detail))
        }
    }
}

/// `PUT /v1/NS/streams/STREAM/cursors/NAME`
pub async fn advance(
    namespace: &Namespace,
    stream: &str,
    name: &str,
    mut request: Request,
) -> Answer {
    std::mem::take(&mut request.query).finish()?;
    let identity = identity_of(request.identity()?);
    let body = request.whole(OPTIONS_BYTES_MAX).await?;
    let mut draft = Draft::default();
    draft.advance(stream, name, json::cursor(&body.bytes)?)?;
    let committed = namespace.commit_draft(&draft, identity).await?;
    Ok(respond(StatusCode::OK, &written_json(&committed, committed.offset)))
}

fn records_json(records: &Records) -> Value {
    let list: Vec<Value> = records.records.iter().map(record_json).collect();
    json!({ "records": list, "next": records.next.0, "end": records.end.0 })
}

/// A record: `{"offset": N, "value": "…"}`.
#[must_use]
pub fn record_json(record: &Record) -> Value {
    let mut object = Map::new();
    object.insert("offset".to_owned(), record.offset.0.into());
    put_bytes(&mut object, "value", &record.value);
    Value::Object(object)
}
