//! Commits of several ops, and the sessions that make them exactly once.

use super::Answer;
use crate::bytes_in_text::put_bytes;
use crate::json;
use crate::problem::Problem;
use crate::request::{Request, identity_of, json as respond};
use axum::http::StatusCode;
use naust_client::{Committed, Namespace, Offset, RangeDeleted, SessionId};
use naust_wire::limits::HTTP_JSON_BYTES_MAX;
use serde_json::{Map, Value, json};

/// `POST /v1/NS/commit`
pub async fn commit(namespace: &Namespace, mut request: Request) -> Answer {
    std::mem::take(&mut request.query).finish()?;
    let from_header = request.identity()?;
    let body = request.whole(HTTP_JSON_BYTES_MAX).await?;
    let commit = json::commit(&body.bytes)?;
    drop(body);
    let identity = match (from_header, commit.identity) {
        (Some(header), Some(body)) if header != body => {
            let detail = "Idempotency-Key and the body name different commits";
            return Err(Problem::bad_argument(detail));
        }
        (header, body) => header.or(body),
    };
    let committed = namespace.commit_draft(&commit.draft, identity_of(identity)).await?;
    Ok(respond(StatusCode::OK, &committed_json(&committed)))
}

/// `POST /v1/NS/sessions`
pub async fn open_session(namespace: &Namespace, mut request: Request) -> Answer {
    request.no_identity()?;
    request.no_body().await?;
    let ttl_ms = request.query.number("ttl_ms")?.unwrap_or_default();
    request.query.finish()?;
    let session = namespace.open_session(ttl_ms).await?;
    Ok(respond(StatusCode::CREATED, &json!({ "session": session.to_string() })))
}

/// `DELETE /v1/NS/sessions/SESSION`
pub async fn close_session(namespace: &Namespace, session: SessionId, request: Request) -> Answer {
    request.no_identity()?;
    request.query.finish()?;
    let offset = namespace.close_session(session).await?;
    Ok(respond(StatusCode::OK, &json!({ "offset": offset.0 })))
}

/// What a route answers that writes one thing: the offset that is its own.
pub(super) fn written_json(committed: &Committed, offset: Offset) -> Value {
    let mut body = json!({ "offset": offset.0 });
    if committed.interval {
        body["interval"] = true.into();
    }
    body
}

fn committed_json(committed: &Committed) -> Value {
    let ids: Vec<u64> = committed.ids.iter().map(|id| id.0).collect();
    let mut body = json!({ "offset": committed.offset.0, "ids": ids });
    if !committed.ranges.is_empty() {
        body["ranges"] = committed.ranges.iter().map(range_json).collect();
    }
    for (name, holds) in [("duplicate", committed.duplicate), ("interval", committed.interval)] {
        if holds {
            body[name] = true.into();
        }
    }
    body
}

fn range_json(range: &RangeDeleted) -> Value {
    let mut body = Map::new();
    body.insert("deleted".to_owned(), range.deleted.into());
    if let Some(next) = &range.next {
        put_bytes(&mut body, "next", next);
    }
    Value::Object(body)
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    #[test]
    fn a_reply_says_only_what_there_is_to_say() {
        let plain = Committed { offset: Offset(5), ..Committed::default() };
        expect![[r#"
            {
              "ids": [],
              "offset": 5
            }"#]]
        .assert_eq(&format!("{:#}", committed_json(&plain)));
        let full = Committed {
            offset: Offset(5),
            ids: vec![Offset(6), Offset(7)],
            ranges: vec![
                RangeDeleted { deleted: 3, next: None },
                RangeDeleted { deleted: 10_000, next: Some(vec![255]) },
            ],
            duplicate: true,
            interval: true,
        };
        expect![[r#"
            {
              "duplicate": true,
              "ids": [
                6,
                7
              ],
              "interval": true,
              "offset": 5,
              "ranges": [
                {
                  "deleted": 3
                },
                {
                  "deleted": 10000,
                  "next_base64": "/w=="
                }
              ]
            }"#]]
        .assert_eq(&format!("{:#}", committed_json(&full)));
        let (plain, full) = (written_json(&plain, Offset(6)), written_json(&full, Offset(6)));
        assert_eq!(plain.to_string(), r#"{"offset":6}"#);
        assert_eq!(full.to_string(), r#"{"interval":true,"offset":6}"#);
    }
}
