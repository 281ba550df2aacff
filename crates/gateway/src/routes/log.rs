//! The log itself, as raw frames.

use super::Answer;
use crate::request::{Request, set};
use crate::server::State;
use axum::body::Body;
use axum::http::{HeaderName, Response, header};
use naust_client::{Namespace, Offset};

/// `GET /v1/NS/log`: whole committed frames; where they begin and end is told in headers.
pub async fn log(state: &State, namespace: &Namespace, mut request: Request) -> Answer {
    let from = request.query.number("from")?.map_or(Offset::FIRST, Offset);
    let (max_bytes, wait_ms) = (request.query.small("max_bytes")?, request.query.small("wait_ms")?);
    request.query.finish()?;
    let frames = tokio::select! {
        frames = namespace.log(from, max_bytes, wait_ms) => frames?,
        // Who waits is told what there is while the node can still be asked.
        () = state.ending(), if wait_ms > 0 => namespace.log(from, max_bytes, 0).await?,
    };
    let mut response = Response::new(Body::from(frames.data));
    set(&mut response, header::CONTENT_TYPE, "application/octet-stream");
    for (name, offset) in
        [("naust-first", frames.first), ("naust-next", frames.next), ("naust-end", frames.end)]
    {
        set(&mut response, HeaderName::from_static(name), &offset.to_string());
    }
    Ok(response)
}
