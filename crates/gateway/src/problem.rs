//! Errors as HTTP tells them: `application/problem+json` (RFC 9457) with a stable `code`, what
//! became of the request, and what to do.

use axum::body::Body;
use axum::http::{HeaderValue, Response, StatusCode, header};
use naust_client::{Code, Error, Outcome, Refused};
use naust_wire::message::Refusal;
use serde_json::{Value, json};

/// Why a request failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    status: StatusCode,
    /// The stable name: of a [`Code`], or one of the few that only HTTP has.
    code: &'static str,
    outcome: Outcome,
    detail: String,
    refused: Option<Refused>,
    /// The methods that a route has, when this was not one of them.
    allow: Option<&'static str>,
}

impl Problem {
    /// The request makes no sense.
    pub fn malformed(detail: impl Into<String>) -> Problem {
        Problem::of(Code::Malformed, detail)
    }

    /// An argument makes no sense.
    pub fn bad_argument(detail: impl Into<String>) -> Problem {
        Problem::of(Code::BadArgument, detail)
    }

    /// A failure with a wire code, before anything was done.
    pub fn of(code: Code, detail: impl Into<String>) -> Problem {
        Error::new(code, detail).with_outcome(Outcome::NotDone).into()
    }

    /// There is no such row. Only HTTP has this code: elsewhere a missing row is no failure.
    #[must_use]
    pub fn no_row() -> Problem {
        Problem::local(StatusCode::NOT_FOUND, "row_not_found", "there is no row with this key")
    }

    /// There is no such path. Only HTTP has this code.
    #[must_use]
    pub fn no_route() -> Problem {
        let detail = "there is nothing at this path; /openapi.json lists what there is";
        Problem::local(StatusCode::NOT_FOUND, "route_not_found", detail)
    }

    /// The path has no such method. Only HTTP has this code.
    #[must_use]
    pub fn no_method(allow: &'static str) -> Problem {
        let detail = format!("this path takes {allow}");
        let problem = Problem::local(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", &detail);
        Problem { allow: Some(allow), ..problem }
    }

    /// A body that took too long to arrive.
    #[must_use]
    pub fn slow_body(detail: impl Into<String>) -> Problem {
        let problem = Problem::of(Code::TimedOut, detail);
        Problem { status: StatusCode::REQUEST_TIMEOUT, ..problem }
    }

    fn local(status: StatusCode, code: &'static str, detail: &str) -> Problem {
        Problem {
            status,
            code,
            outcome: Outcome::NotDone,
            detail: detail.to_owned(),
            refused: None,
            allow: None,
        }
    }

    /// The same, when the conditions came from headers: 412 when they failed.
    #[must_use]
    pub fn of_precondition(mut self) -> Problem {
        if self.code == Code::ConditionFailed.name() {
            self.status = StatusCode::PRECONDITION_FAILED;
        }
        self
    }

    /// Its stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        self.code
    }

    /// Its status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The body: the members of RFC 9457, and ours.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let outcome = match self.outcome {
            Outcome::NotDone => "not_done",
            Outcome::Unknown => "unknown",
        };
        let mut body = json!({
            "type": "about:blank",
            "title": self.status.canonical_reason().unwrap_or_default(),
            "status": self.status.as_u16(),
            "code": self.code,
            "outcome": outcome,
            "detail": self.detail,
        });
        if let Some(refused) = self.refused {
            body["condition"] = refused.condition.into();
            body["found"] = refused.found.0.into();
            body["at"] = refused.at.0.into();
        }
        body
    }

    /// The response.
    #[must_use]
    pub fn into_response(self) -> Response<Body> {
        let mut response = Response::new(Body::from(self.to_json().to_string()));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        let kind = HeaderValue::from_static("application/problem+json");
        headers.insert(header::CONTENT_TYPE, kind);
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        if let Some(allow) = self.allow {
            headers.insert(header::ALLOW, HeaderValue::from_static(allow));
        }
        response
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Problem {
        Problem {
            status: status_of(error.code),
            code: error.code.name(),
            outcome: error.outcome,
            detail: error.detail,
            refused: error.refused,
            allow: None,
        }
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Problem {
        Problem::of(refusal.code, refusal.detail)
    }
}

/// The status of each code.
fn status_of(code: Code) -> StatusCode {
    match code {
        Code::Malformed
        | Code::UnknownVersion
        | Code::UnknownKind
        | Code::KeySize
        | Code::BadName
        | Code::BadArgument => StatusCode::BAD_REQUEST,
        Code::Unauthorized => StatusCode::UNAUTHORIZED,
        Code::NamespaceNotFound
        | Code::KeyspaceNotFound
        | Code::StreamNotFound
        | Code::CursorNotFound => StatusCode::NOT_FOUND,
        Code::NamespaceExists
        | Code::ConditionFailed
        | Code::SequenceOutOfWindow
        | Code::LimitReached
        | Code::OptionsConflict => StatusCode::CONFLICT,
        Code::SessionExpired | Code::OffsetTrimmed => StatusCode::GONE,
        Code::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        Code::Overloaded
        | Code::Unavailable
        | Code::Interrupted
        | Code::ShuttingDown
        | Code::NotLeader => StatusCode::SERVICE_UNAVAILABLE,
        Code::TimedOut => StatusCode::GATEWAY_TIMEOUT,
        Code::DiskFull => StatusCode::INSUFFICIENT_STORAGE,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;
    use naust_client::Offset;

    #[test]
    fn every_code_has_its_status() {
        let lines: Vec<String> =
            Code::ALL.iter().map(|code| format!("{} {code}", status_of(*code).as_u16())).collect();
        expect![[r#"
            400 malformed
            400 unknown_version
            400 unknown_kind
            413 too_large
            400 key_size
            400 bad_name
            400 bad_argument
            404 namespace_not_found
            409 namespace_exists
            404 keyspace_not_found
            404 stream_not_found
            404 cursor_not_found
            409 condition_failed
            410 session_expired
            409 sequence_out_of_window
            410 offset_trimmed
            503 overloaded
            507 disk_full
            503 unavailable
            503 interrupted
            504 timed_out
            503 shutting_down
            401 unauthorized
            500 corrupt
            409 limit_reached
            409 options_conflict
            503 not_leader"#]]
        .assert_eq(&lines.join("\n"));
    }

    #[test]
    fn a_failed_condition_says_which_and_what_was_found() {
        let refused = Refused { condition: 1, at: Offset(640), found: Offset(512) };
        let problem = Problem::from(Error::from(refused));
        assert_eq!(problem.status(), StatusCode::CONFLICT);
        let problem = problem.of_precondition();
        let mut body = problem.to_json();
        let detail = body["detail"].take();
        assert!(detail.as_str().unwrap().contains("the newest version is 512"), "{detail}");
        expect![[r#"
            {
              "at": 640,
              "code": "condition_failed",
              "condition": 1,
              "detail": null,
              "found": 512,
              "outcome": "not_done",
              "status": 412,
              "title": "Precondition Failed",
              "type": "about:blank"
            }"#]]
        .assert_eq(&format!("{body:#}"));
        let other = Problem::no_row().of_precondition();
        assert_eq!(other.status(), StatusCode::NOT_FOUND);
    }

    #[test]
    fn headers_say_when_to_come_again_and_what_is_taken() {
        let response = Problem::of(Code::Overloaded, "").into_response();
        assert_eq!(response.headers()["retry-after"], "1");
        let response = Problem::no_method("GET, PUT").into_response();
        assert_eq!(response.headers()["allow"], "GET, PUT");
        assert_eq!(response.headers()["content-type"], "application/problem+json");
    }
}
