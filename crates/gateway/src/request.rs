//! A request as the routes see it: its headers and its body, read within bounds.

use crate::path::session;
use crate::problem::Problem;
use crate::query::{Query, number};
use axum::body::{Body, HttpBody};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use naust_client::{Code, Identity, Offset, Sequence, SessionId, acked_below_of};
use naust_wire::limits::{HTTP_BODY_BYTES_MAX, HTTP_BODY_MS_MAX};
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bytes that one permit of the budget stands for.
const PERMIT_BYTES: usize = 1024;

/// How many bytes of bodies all requests may hold together.
#[derive(Clone)]
pub struct Budget(Arc<Semaphore>);

impl Default for Budget {
    fn default() -> Budget {
        Budget(Arc::new(Semaphore::new(HTTP_BODY_BYTES_MAX / PERMIT_BYTES)))
    }
}

/// What is left of a request once its path and method are known.
pub struct Request {
    /// Its headers.
    pub headers: HeaderMap,
    /// Its parameters.
    pub query: Query,
    body: Body,
    budget: Budget,
}

/// A body, and its part of the budget until it is dropped.
pub struct Whole {
    /// The bytes.
    pub bytes: Vec<u8>,
    _permit: OwnedSemaphorePermit,
}

/// A condition that a header states.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precondition {
    /// `If-Match: "N"`.
    Version(Offset),
    /// `If-None-Match: *`.
    Absent,
}

impl Request {
    /// A request.
    pub fn new(headers: HeaderMap, query: Query, body: Body, budget: Budget) -> Request {
        Request { headers, query, body, budget }
    }

    /// Reads the body, at most `max` bytes.
    ///
    /// # Errors
    /// `TooLarge`, `Overloaded` when other bodies take all the room, `TimedOut` when it comes too
    /// slowly, `Malformed` when it breaks off.
    pub async fn whole(&mut self, max: usize) -> Result<Whole, Problem> {
        let too_large = || {
            let detail = format!("the body is larger than the {max} bytes that are taken here");
            Problem::of(Code::TooLarge, detail)
        };
        let hint = self.body.size_hint();
        if hint.lower() > max as u64 {
            return Err(too_large());
        }
        let bytes = hint.exact().map_or(max, |exact| exact as usize);
        let permits = u32::try_from(bytes / PERMIT_BYTES + 1).expect("bodies are below 4 TiB");
        let permit = Arc::clone(&self.budget.0).try_acquire_many_owned(permits).map_err(|_| {
            Problem::of(Code::Overloaded, "too many bodies are under way; try again later")
        })?;
        let body = std::mem::take(&mut self.body);
        let read = axum::body::to_bytes(body, max);
        match tokio::time::timeout(Duration::from_millis(HTTP_BODY_MS_MAX), read).await {
            Ok(Ok(bytes)) => Ok(Whole { bytes: bytes.into(), _permit: permit }),
            Ok(Err(error)) if is_over_limit(&error) => Err(too_large()),
            Ok(Err(error)) => Err(Problem::malformed(format!("the body broke off: {error}"))),
            Err(_) => {
                let detail = format!("the body took longer than {HTTP_BODY_MS_MAX} ms to arrive");
                Err(Problem::slow_body(detail))
            }
        }
    }

    /// For routes whose arguments are parameters: a body that says something is refused.
    ///
    /// # Errors
    /// `Malformed`, and as [`Request::whole`].
    pub async fn no_body(&mut self) -> Result<(), Problem> {
        let body = self.whole(PERMIT_BYTES).await?;
        match body.bytes.trim_ascii() {
            b"" | b"{}" => Ok(()),
            _ => Err(Problem::malformed(
                "this route takes no body; what it can be told are parameters, such as ?ttl_ms=…",
            )),
        }
    }

    /// Who asks: `Idempotency-Key: SESSION/SEQ`, or the gateway itself.
    ///
    /// # Errors
    /// `Malformed`.
    pub fn identity(&self) -> Result<Option<(SessionId, Sequence)>, Problem> {
        let Some(text) = self.header("idempotency-key")? else { return Ok(None) };
        let Some((id, sequence)) = text.split_once('/') else {
            return Err(Problem::malformed(format!(
                "Idempotency-Key: {text:?} is no SESSION/SEQ; POST …/sessions gives a session"
            )));
        };
        Ok(Some((session(id)?, Sequence(number("seq", sequence)?))))
    }

    /// For what opens and ends sessions: no session remembers that, and whoever asks for more than
    /// can be kept is told so.
    ///
    /// # Errors
    /// `BadArgument` when there is an `Idempotency-Key`.
    pub fn no_identity(&self) -> Result<(), Problem> {
        match self.header("idempotency-key")? {
            None => Ok(()),
            Some(_) => Err(Problem::bad_argument(
                "no session remembers sessions: send this without Idempotency-Key; a session that \
                 nobody uses ends by itself",
            )),
        }
    }

    /// The condition of `If-Match` or `If-None-Match`.
    ///
    /// # Errors
    /// `Malformed`, or `BadArgument` for what these headers could say but can't here.
    pub fn precondition(&self) -> Result<Option<Precondition>, Problem> {
        match (self.header("if-match")?, self.header("if-none-match")?) {
            (None, None) => Ok(None),
            (Some("*"), None) => Err(Problem::bad_argument(
                "If-Match takes a version here, such as \"812\", and not *: that there is some row \
                 is no condition",
            )),
            (Some(tag), None) => Ok(Some(Precondition::Version(entity_tag("If-Match", tag)?))),
            (None, Some("*")) => Ok(Some(Precondition::Absent)),
            (None, Some(_)) => Err(Problem::bad_argument("If-None-Match takes only * here")),
            (Some(_), Some(_)) => {
                Err(Problem::bad_argument("give If-Match or If-None-Match, not both"))
            }
        }
    }

    /// A header's text.
    ///
    /// # Errors
    /// `Malformed` when it is given twice or is no plain text.
    pub fn header(&self, name: &str) -> Result<Option<&str>, Problem> {
        let mut values = self.headers.get_all(name).iter();
        let Some(value) = values.next() else { return Ok(None) };
        if values.next().is_some() {
            return Err(Problem::malformed(format!("the header {name} is given twice")));
        }
        let text = value.to_str();
        text.map(Some).map_err(|_| Problem::malformed(format!("the header {name} is no text")))
    }
}

fn is_over_limit(error: &axum::Error) -> bool {
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        if inner.to_string() == "length limit exceeded" {
            return true;
        }
        source = inner.source();
    }
    false
}

/// The offset that a strong entity tag stands for: `"N"`.
///
/// # Errors
/// `Malformed`.
pub fn entity_tag(header: &str, tag: &str) -> Result<Offset, Problem> {
    let inner = tag.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    match inner {
        Some(digits) => Ok(Offset(number(header, digits)?)),
        None => {
            Err(Problem::malformed(format!("{header}: {tag} is no quoted offset like \"812\"")))
        }
    }
}

/// Whether `If-None-Match` names a version: any, or in a list, weak or strong.
#[must_use]
pub fn names(list: &str, version: Offset) -> bool {
    let tag = format!("\"{version}\"");
    list.split(',').map(str::trim).any(|one| one == "*" || one.trim_start_matches("W/") == tag)
}

/// How the client is told who commits.
#[must_use]
pub fn identity_of(explicit: Option<(SessionId, Sequence)>) -> Identity {
    match explicit {
        None => Identity::Client,
        Some((session, sequence)) => {
            Identity::Explicit { session, sequence, acked_below: acked_below_of(sequence) }
        }
    }
}

/// A response with a JSON body.
#[must_use]
pub fn json(status: StatusCode, body: &Value) -> Response<Body> {
    let mut response = Response::new(Body::from(body.to_string()));
    *response.status_mut() = status;
    set(&mut response, header::CONTENT_TYPE, "application/json");
    response
}

/// Sets a header to a text of ours.
pub fn set(response: &mut Response<Body>, name: HeaderName, value: &str) {
    let value = HeaderValue::from_str(value).expect("our own header values are plain text");
    response.headers_mut().insert(name, value);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(headers: &[(&'static str, &'static str)], body: &'static str) -> Request {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, HeaderValue::from_static(value));
        }
        Request::new(map, Query::default(), Body::from(body), Budget::default())
    }

    fn run<T>(future: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(future)
    }

    type Key = Option<(u64, u64)>;
    type Headers = &'static [(&'static str, &'static str)];

    #[test]
    fn preconditions_are_offsets_or_absence() {
        let table: [(Headers, Option<Option<Precondition>>); 8] = [
            (&[], Some(None)),
            (&[("if-match", "\"812\"")], Some(Some(Precondition::Version(Offset(812))))),
            (&[("if-none-match", "*")], Some(Some(Precondition::Absent))),
            (&[("if-match", "812")], None),
            (&[("if-match", "W/\"812\"")], None),
            (&[("if-match", "*")], None),
            (&[("if-none-match", "\"812\"")], None),
            (&[("if-match", "\"1\""), ("if-none-match", "*")], None),
        ];
        for (headers, expected) in table {
            assert_eq!(request(headers, "").precondition().ok(), expected, "{headers:?}");
        }
    }

    #[test]
    fn versions_are_named_in_lists() {
        for list in ["\"812\"", "W/\"812\"", "\"1\", W/\"812\"", "*"] {
            assert!(names(list, Offset(812)), "{list}");
        }
        for list in ["", "812", "\"81\"", "\"1\",\"2\""] {
            assert!(!names(list, Offset(812)), "{list}");
        }
    }

    #[test]
    fn idempotency_keys_are_session_and_sequence() {
        let table: [(Headers, Option<Key>); 7] = [
            (&[], Some(None)),
            (&[("idempotency-key", "42/7")], Some(Some((42, 7)))),
            (&[("idempotency-key", "42")], None),
            (&[("idempotency-key", "0/7")], None),
            (&[("idempotency-key", "42/-7")], None),
            (&[("idempotency-key", "42/7/8")], None),
            (&[("idempotency-key", "42/7"), ("idempotency-key", "42/8")], None),
        ];
        for (headers, expected) in table {
            let told = request(headers, "").identity();
            let told = told.ok().map(|found| found.map(|(session, seq)| (session.0, seq.0)));
            assert_eq!(told, expected, "{headers:?}");
        }
        let kept = naust_wire::limits::SESSION_WINDOW_MAX as u64;
        for (sequence, below) in [(1, 1), (kept, 1), (kept + 1, 2), (5000, 5001 - kept)] {
            let told = identity_of(Some((SessionId(42), Sequence(sequence))));
            let (session, sequence) = (SessionId(42), Sequence(sequence));
            let acked_below = Sequence(below);
            assert_eq!(told, Identity::Explicit { session, sequence, acked_below });
        }
    }

    #[test]
    fn bodies_are_bounded() {
        run(async {
            assert_eq!(request(&[], "12345").whole(5).await.ok().unwrap().bytes, b"12345");
            let told = request(&[], "123456").whole(5).await.err().unwrap();
            assert_eq!(told.code(), "too_large");

            let mut first = request(&[], "12345");
            let mut second = request(&[], "12345");
            let small = Budget(Arc::new(Semaphore::new(1)));
            (first.budget, second.budget) = (small.clone(), small);
            let held = first.whole(5).await.ok().unwrap();
            assert_eq!(second.whole(5).await.err().unwrap().code(), "overloaded");
            drop(held);
            let mut third = request(&[], "12345");
            third.budget = first.budget.clone();
            assert!(third.whole(5).await.is_ok());
        });
    }

    /// A body that never comes to its end.
    struct Endless;

    impl futures_core::Stream for Endless {
        type Item = Result<String, std::convert::Infallible>;

        fn poll_next(
            self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<Self::Item>> {
            std::task::Poll::Pending
        }
    }

    #[test]
    fn slow_bodies_time_out() {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let mut slow = request(&[], "");
            slow.body = Body::from_stream(Endless);
            let told = slow.whole(5).await.err().unwrap();
            assert_eq!(told.code(), "timed_out");
            assert_eq!(told.to_json()["outcome"], "not_done");
            assert_eq!(told.status(), StatusCode::REQUEST_TIMEOUT);
        });
    }
}
