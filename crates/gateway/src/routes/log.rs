//! The log itself, as raw frames.

use super::Answer;
use crate::request::{Request, set};
use axum::body::Body;
use axum::http::{HeaderName, Response, header};
use naust_client::{Namespace, Offset};

/// `GET /v1/NS/log`: whole committed frames; where they begin and end is told in headers.
pub async fn log(namespace: &Namespace, mut request: Request) -> Answer {
    let from = request.query.number("from")?.map_or(Offset::FIRST, Offset);
    let (max_bytes, wait_ms) = (request.query.small("max_bytes")?, request.query.small("wait_ms")?);
    request.query.finish()?;
    let frames = namespace.log(from, max_bytes, wait_ms).await?;
    let mut response = Response::new(Body::from(frames.data));
    set(&mut response, header::CONTENT_TYPE, "application/octet-stream");
    for (name, offset) in
        [("naust-first", frames.first), ("naust-next", frames.next), ("naust-end", frames.end)]
    {
        set(&mut response, HeaderName::from_static(name), &offset.to_string());
    }
    Ok(response)
}
