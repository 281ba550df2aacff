//! Rows of keyspaces.

use super::Answer;
use super::commit::written_json;
use crate::bytes_in_text::put_bytes;
use crate::json;
use crate::problem::Problem;
use crate::request::{Precondition, Request, identity_of, json as respond, names, set};
use axum::body::Body;
use axum::http::{Response, StatusCode, header};
use naust_client::{Entry, Identity, Namespace, Page, after_prefix};
use naust_wire::commit::Draft;
use naust_wire::limits::VALUE_BYTES_MAX;
use serde_json::{Map, Value, json};

/// Bytes of a body of options.
const OPTIONS_BYTES_MAX: usize = 64 * 1024;

/// `GET /v1/NS/kv/KEYSPACE/KEY`
pub async fn get(
    namespace: &Namespace,
    keyspace: &str,
    key: &[u8],
    mut request: Request,
) -> Answer {
    let level = request.query.level()?;
    std::mem::take(&mut request.query).finish()?;
    let found = namespace.kv(keyspace).get_at(key, level).await?;
    let Some(row) = found.row else { return Err(Problem::no_row()) };
    let tag = format!("\"{}\"", row.version);
    let known = request.header("if-none-match")?.is_some_and(|list| names(list, row.version));
    let mut response = match known {
        true => {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            response
        }
        false => {
            let mut response = Response::new(Body::from(row.value));
            set(&mut response, header::CONTENT_TYPE, "application/octet-stream");
            response
        }
    };
    set(&mut response, header::ETAG, &tag);
    Ok(response)
}

/// `PUT /v1/NS/kv/KEYSPACE/KEY`
pub async fn put(
    namespace: &Namespace,
    keyspace: &str,
    key: &[u8],
    mut request: Request,
) -> Answer {
    let mut draft = conditional(keyspace, key, &mut request)?;
    let identity = identity_of(request.identity()?);
    let body = request.whole(VALUE_BYTES_MAX).await?;
    draft.put(keyspace, key, &body.bytes[..])?;
    commit(namespace, &draft, identity).await
}

/// `DELETE /v1/NS/kv/KEYSPACE/KEY`
pub async fn delete(
    namespace: &Namespace,
    keyspace: &str,
    key: &[u8],
    mut request: Request,
) -> Answer {
    let mut draft = conditional(keyspace, key, &mut request)?;
    draft.delete(keyspace, key)?;
    commit(namespace, &draft, identity_of(request.identity()?)).await
}

/// A draft with the condition that the headers state.
fn conditional<'a>(
    keyspace: &'a str,
    key: &'a [u8],
    request: &mut Request,
) -> Result<Draft<'a>, Problem> {
    std::mem::take(&mut request.query).finish()?;
    let mut draft = Draft::default();
    match request.precondition()? {
        None => {}
        Some(Precondition::Version(offset)) => draft.version(keyspace, key, offset)?,
        Some(Precondition::Absent) => draft.absent(keyspace, key)?,
    }
    Ok(draft)
}

async fn commit(namespace: &Namespace, draft: &Draft<'_>, identity: Identity) -> Answer {
    let committed = namespace
        .commit_draft(draft, identity)
        .await
        .map_err(|error| Problem::from(error).of_precondition())?;
    let mut response = respond(StatusCode::OK, &written_json(&committed, committed.offset));
    set(&mut response, header::ETAG, &format!("\"{}\"", committed.offset));
    Ok(response)
}

/// `PUT /v1/NS/kv/KEYSPACE`
pub async fn set_options(namespace: &Namespace, keyspace: &str, mut request: Request) -> Answer {
    std::mem::take(&mut request.query).finish()?;
    let identity = identity_of(request.identity()?);
    let body = request.whole(OPTIONS_BYTES_MAX).await?;
    let options = json::keyspace_options(&body.bytes)?;
    let offset = namespace.kv(keyspace).set_options_as(options, identity).await?;
    Ok(respond(StatusCode::OK, &json!({ "offset": offset.0 })))
}

/// `GET /v1/NS/kv/KEYSPACE`
pub async fn scan(namespace: &Namespace, keyspace: &str, mut request: Request) -> Answer {
    let query = &mut request.query;
    let level = query.level()?;
    let (prefix, from, to) = (query.bytes("prefix"), query.bytes("from"), query.bytes("to"));
    if matches!((&from, &to), (Some(from), Some(to)) if to < from) {
        return Err(Problem::bad_argument("the range ends before it begins"));
    }
    let (from, to) = range(prefix, from, to);
    let (reverse, limit) = (query.flag("reverse")?, query.small("limit")?);
    request.query.finish()?;
    let kv = namespace.kv(keyspace);
    if to.as_ref().is_some_and(|to| *to <= from) {
        // Nothing is in it, but as of when, and whether it can be told, the node knows.
        let read = kv.range(from..).level(level).page_rows(1).next_page().await?;
        let at = read.map(|page| page.at).unwrap_or_default();
        let page = Page { at, entries: Vec::new(), next: None };
        return Ok(respond(StatusCode::OK, &page_json(&page)));
    }
    let scan = match to {
        Some(to) => kv.range(from..to),
        None => kv.range(from..),
    };
    let scan = if reverse { scan.reverse() } else { scan };
    let page = scan.level(level).page_rows(limit).next_page().await?;
    let page = page.expect("the first page of a scan without a limit is always read");
    Ok(respond(StatusCode::OK, &page_json(&page)))
}

/// What lies both in `from..to` and among the keys that begin with `prefix`.
fn range(
    prefix: Option<Vec<u8>>,
    from: Option<Vec<u8>>,
    to: Option<Vec<u8>>,
) -> (Vec<u8>, Option<Vec<u8>>) {
    let prefix = prefix.unwrap_or_default();
    let to = match (after_prefix(&prefix), to) {
        (Some(end), Some(to)) => Some(end.min(to)),
        (end, to) => end.or(to),
    };
    (from.unwrap_or_default().max(prefix), to)
}

fn page_json(page: &Page) -> Value {
    let entry = |entry: &Entry| {
        let mut object = Map::new();
        put_bytes(&mut object, "key", &entry.key);
        put_bytes(&mut object, "value", &entry.value);
        object.insert("offset".to_owned(), entry.offset.0.into());
        Value::Object(object)
    };
    let mut object = Map::new();
    object.insert("offset".to_owned(), page.at.0.into());
    object.insert("entries".to_owned(), page.entries.iter().map(entry).collect());
    if let Some(next) = &page.next {
        put_bytes(&mut object, "next", next);
    }
    Value::Object(object)
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;
    use naust_client::Offset;

    #[test]
    fn prefixes_and_ends_are_taken_together() {
        let of = |text: &str| (!text.is_empty()).then(|| text.as_bytes().to_vec());
        let table = [
            ("", "", "", "", None),
            ("", "b", "d", "b", Some("d")),
            ("b", "", "", "b", Some("c")),
            ("b", "bx", "", "bx", Some("c")),
            ("b", "", "bx", "b", Some("bx")),
            ("b", "a", "z", "b", Some("c")),
        ];
        for (prefix, from, to, first, end) in table {
            let expected = (first.as_bytes().to_vec(), end.map(|end| end.as_bytes().to_vec()));
            assert_eq!(range(of(prefix), of(from), of(to)), expected, "{prefix} {from} {to}");
        }
        assert_eq!(range(Some(vec![255]), None, None), (vec![255], None));
    }

    #[test]
    fn pages_show_text_as_text_and_the_rest_in_base64() {
        let entries = vec![
            Entry { key: b"a".to_vec(), value: "\u{e9}".into(), offset: Offset(5) },
            Entry { key: vec![0xff], value: vec![0, 0xfe], offset: Offset(6) },
        ];
        let page = Page { at: Offset(9), entries, next: Some(vec![0xff, 0]) };
        expect![[r#"
            {
              "entries": [
                {
                  "key": "a",
                  "offset": 5,
                  "value": "é"
                },
                {
                  "key_base64": "/w==",
                  "offset": 6,
                  "value_base64": "AP4="
                }
              ],
              "next_base64": "/wA=",
              "offset": 9
            }"#]]
        .assert_eq(&format!("{:#}", page_json(&page)));
        let last = Page { at: Offset(9), entries: Vec::new(), next: None };
        expect![[r#"
            {
              "entries": [],
              "offset": 9
            }"#]]
        .assert_eq(&format!("{:#}", page_json(&last)));
    }
}
