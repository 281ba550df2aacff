//! Routes that ask no shard: is it alive, is it ready, what does it measure, what can be asked.

use super::Answer;
use crate::problem::Problem;
use crate::request::{Request, set};
use crate::server::State;
use axum::body::Body;
use axum::http::{Response, header};
use naust_client::Code;

/// The page at `/`: the routes, for people.
const INDEX: &str = include_str!("../../static/index.html");
/// The document at `/openapi.json`.
pub const OPENAPI: &str = include_str!("../../static/openapi.json");

/// `GET /`
pub fn index(request: Request) -> Answer {
    text(request, "text/html; charset=utf-8", INDEX.to_owned())
}

/// `GET /healthz`: the process answers.
pub fn health(request: Request) -> Answer {
    text(request, "text/plain; charset=utf-8", "ok\n".to_owned())
}

/// `GET /readyz`: the node serves requests.
pub fn ready(state: &State, request: Request) -> Answer {
    match (state.hooks.ready)() {
        Ok(()) => text(request, "text/plain; charset=utf-8", "ready\n".to_owned()),
        Err(why) => Err(Problem::of(Code::Unavailable, why)),
    }
}

/// `GET /metrics`
pub fn metrics(state: &State, request: Request) -> Answer {
    text(request, "text/plain; version=0.0.4; charset=utf-8", (state.hooks.metrics)())
}

/// `GET /openapi.json`
pub fn openapi(request: Request) -> Answer {
    text(request, "application/json", OPENAPI.to_owned())
}

fn text(request: Request, kind: &str, body: String) -> Answer {
    request.query.finish()?;
    let mut response = Response::new(Body::from(body));
    set(&mut response, header::CONTENT_TYPE, kind);
    Ok(response)
}
