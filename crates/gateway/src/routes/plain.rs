//! Routes that ask no shard: is it alive, is it ready, what does it measure, what can be asked.

use super::Answer;
use crate::problem::Problem;
use crate::request::{Request, set};
use crate::server::State;
use axum::body::Body;
use axum::http::{Response, header};
use naust_client::Code;
use std::time::Duration;

/// The page at `/`: the routes, for people.
const INDEX: &str = include_str!("../../static/index.html");
/// The document at `/openapi.json`.
pub const OPENAPI: &str = include_str!("../../static/openapi.json");

/// The namespace that is always there.
const DEFAULT: &str = "default";
/// How long it may take to answer until the node is called not ready.
const READY: Duration = Duration::from_secs(2);

/// `GET /`
pub fn index(request: Request) -> Answer {
    text(request, "text/html; charset=utf-8", INDEX.to_owned())
}

/// `GET /healthz`: the process answers.
pub fn health(request: Request) -> Answer {
    text(request, "text/plain; charset=utf-8", "ok\n".to_owned())
}

/// `GET /readyz`: the node takes requests, and those of `default` can be served.
pub async fn ready(state: &State, request: Request) -> Answer {
    (state.hooks.ready)().map_err(|why| Problem::of(Code::Unavailable, why))?;
    let namespace = state.client.namespace(DEFAULT);
    // It needs whoever leads to be sure that he does.
    let asked = tokio::time::timeout(READY, namespace.describe_page(None, 1)).await;
    let why = match asked {
        Ok(Ok(_)) => None,
        // It is served: others are, for now.
        Ok(Err(error)) if error.code == Code::Overloaded => None,
        Ok(Err(error)) => Some(error.to_string()),
        Err(_) => Some(format!("no answer within {} ms", READY.as_millis())),
    };
    match why {
        None => text(request, "text/plain; charset=utf-8", "ready\n".to_owned()),
        Some(why) => {
            let detail = format!("the namespace {DEFAULT} can't be served: {why}");
            Err(Problem::of(Code::Unavailable, detail))
        }
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
