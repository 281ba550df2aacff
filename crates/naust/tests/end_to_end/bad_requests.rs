//! Bad input over HTTP: each gets its status, its stable code and what became of it, as
//! `docs/errors/` says.

use crate::support::{Node, block_on, connect, wait_until};
use crate::web::{self, Answer};
use naust_wire::limits::{HTTP_JSON_BYTES_MAX, KEY_BYTES_MAX, VALUE_BYTES_MAX};
use naust_wire::options::NamespaceOptions;
use std::io::Write as _;
use std::net::TcpStream;

fn ask(node: &Node, method: &str, path: &str, body: &[u8]) -> Answer {
    web::ask(&node.http(), method, path, &[], body)
}

fn assert_problem(answer: &Answer, status: u16, code: &str, what: &str) {
    let expected = (status, code.to_owned(), "not_done".to_owned());
    assert_eq!(answer.problem(), expected, "{what}: {}", answer.text());
    let page = format!("{}/../../docs/errors/{code}.md", env!("CARGO_MANIFEST_DIR"));
    let only_http = ["row_not_found", "route_not_found", "method_not_allowed"];
    if !only_http.contains(&code) {
        let page = std::fs::read_to_string(&page).unwrap_or_else(|_| panic!("{page} is missing"));
        assert!(page.starts_with(&format!("# `{code}`")), "{page}");
    }
}

/// Why: requests that no server can make sense of, one a line.
#[test]
fn requests_that_make_no_sense() {
    let node = Node::start(&[]);
    ask(&node, "PUT", "/v1/default/kv/k/a", b"1");
    let long_key = format!("/v1/default/kv/k/{}", "x".repeat(KEY_BYTES_MAX + 1));
    let long_name = format!("/v1/default/kv/{}/a", "x".repeat(256));
    let table: &[(&str, &str, &str, u16, &str)] = &[
        ("POST", "/v1/default/commit", "{", 400, "malformed"),
        ("POST", "/v1/default/commit", "\u{1}", 400, "malformed"),
        ("POST", "/v1/default/commit", r#"{"do":[],"doo":[]}"#, 400, "malformed"),
        ("POST", "/v1/default/commit", r#"{"do":[{"push":{}}]}"#, 400, "malformed"),
        (
            "POST",
            "/v1/default/commit",
            r#"{"do":[{"put":{"keyspace":"k","key":"a","value_base64":"?"}}]}"#,
            400,
            "malformed",
        ),
        (
            "POST",
            "/v1/default/commit",
            r#"{"do":[{"put":{"keyspace":"k","key":"a","key_base64":"YQ==","value":""}}]}"#,
            400,
            "malformed",
        ),
        (
            "POST",
            "/v1/default/commit",
            r#"{"seq":1,"do":[{"delete":{"keyspace":"k","key":"a"}}]}"#,
            400,
            "malformed",
        ),
        ("GET", "/v1/default/kv/k/a?fresh=1", "", 400, "malformed"),
        ("GET", "/v1/default/kv/k/a?at=soon", "", 400, "malformed"),
        ("GET", "/v1/default/kv/k/a?read=stale", "", 400, "malformed"),
        ("GET", "/v1/default/kv/k/%zz", "", 400, "malformed"),
        ("GET", "/v1/default/kv/%ff/a", "", 400, "malformed"),
        ("GET", "/v1/default/kv/k/", "", 400, "key_size"),
        ("PUT", &long_key, "", 400, "key_size"),
        ("PUT", &long_name, "", 400, "bad_name"),
        ("GET", "/v1/default/kv/k?from=b&to=a", "", 400, "bad_argument"),
        ("GET", "/v1/default/kv/k?limit=10001", "", 413, "too_large"),
        ("GET", "/v1/default/kv/none/a", "", 404, "row_not_found"),
        ("GET", "/v1/default/kv/k/b", "", 404, "row_not_found"),
        ("GET", "/v1/default/streams/none", "", 404, "stream_not_found"),
        ("GET", "/v1/none/kv/k/a", "", 404, "namespace_not_found"),
        ("PUT", "/v1/none/kv/k/a", "1", 404, "namespace_not_found"),
        ("DELETE", "/v1/namespaces/none", "", 404, "namespace_not_found"),
        ("POST", "/v1/namespaces", r#"{"name":"default"}"#, 409, "namespace_exists"),
        ("POST", "/v1/namespaces", r#"{"name":"topics"}"#, 400, "bad_name"),
        ("POST", "/v1/namespaces", r#"{"name":""}"#, 400, "bad_name"),
        ("GET", "/v1/default/log?from=4294967297", "", 400, "bad_argument"),
        ("GET", "/v1/nowhere", "", 404, "namespace_not_found"),
        ("GET", "/v1/nowhere/here", "", 404, "route_not_found"),
        ("GET", "/v1/default?from=users", "", 400, "malformed"),
        ("GET", "/v1/namespaces?limit=10001", "", 413, "too_large"),
        ("POST", "/v1/default/commit", "[]", 400, "malformed"),
        ("PATCH", "/v1/default/kv/k/a", "", 405, "method_not_allowed"),
        ("DELETE", "/v1/default/commit", "", 405, "method_not_allowed"),
    ];
    let mut wrong = Vec::new();
    for (method, path, body, status, code) in table {
        let answer = ask(&node, method, path, body.as_bytes());
        let what = format!("{method} {} {body}", &path[..path.len().min(60)]);
        let found = std::panic::catch_unwind(|| assert_problem(&answer, *status, code, &what));
        if found.is_err() {
            wrong.push(format!("{what}: {} {}", answer.status, answer.text()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let kept = ask(&node, "GET", "/v1/default/kv/k/a", b"");
    assert_eq!((kept.status, kept.text().as_str()), (200, "1"), "something was done after all");
}

/// Why: a condition in a header is how HTTP says compare-and-set, and 412 how it says no.
#[test]
fn preconditions_that_fail() {
    let node = Node::start(&[]);
    let path = "/v1/default/kv/k/a";
    let first = ask(&node, "PUT", path, b"1").json()["offset"].as_u64().unwrap();
    let tag = format!("\"{first}\"");
    let put =
        |header: (&str, &str), body: &[u8]| web::ask(&node.http(), "PUT", path, &[header], body);
    assert_problem(&put(("If-None-Match", "*"), b"2"), 412, "condition_failed", "it is there");
    assert_eq!(put(("If-Match", &tag), b"3").status, 200);
    let stale = put(("If-Match", &tag), b"4");
    assert_problem(&stale, 412, "condition_failed", "a stale tag");
    let delete = web::ask(&node.http(), "DELETE", path, &[("If-Match", &tag)], b"");
    assert_problem(&delete, 412, "condition_failed", "a stale tag");
    assert_problem(&put(("If-Match", "1"), b"5"), 400, "malformed", "no tag");
    let now = ask(&node, "GET", path, b"");
    assert_eq!(now.text(), "3");
    assert_eq!(now.headers["etag"], format!("\"{}\"", stale.json()["found"]));
    let body = format!(
        r#"{{"if":[{{"version":{{"keyspace":"k","key":"a","offset":{first}}}}}],
            "do":[{{"delete":{{"keyspace":"k","key":"a"}}}}]}}"#
    );
    let commit = ask(&node, "POST", "/v1/default/commit", body.as_bytes());
    assert_problem(&commit, 409, "condition_failed", "a stale version");
}

/// Why: a session that has ended can't tell what was done under it: `unknown`, and nothing applied.
#[test]
fn sessions_that_have_ended() {
    let node = Node::start(&[]);
    let opened = ask(&node, "POST", "/v1/default/sessions", b"");
    assert_eq!(opened.status, 201, "{}", opened.text());
    let session = opened.json()["session"].as_str().unwrap().to_owned();
    let put = |number: u64, body: &[u8]| {
        let identity = format!("{session}/{number}");
        let headers = [("Idempotency-Key", identity.as_str())];
        web::ask(&node.http(), "PUT", "/v1/default/kv/k/a", &headers, body)
    };
    let first = put(1, b"1").json();
    assert_eq!(put(1, b"again").json(), first, "answered again, not done again");
    assert_eq!(put(2, b"2").status, 200);
    let ended = ask(&node, "DELETE", &format!("/v1/default/sessions/{session}"), b"");
    assert_eq!(ended.status, 200, "{}", ended.text());
    let late = put(3, b"3");
    let expected = (410, "session_expired".to_owned(), "unknown".to_owned());
    assert_eq!(late.problem(), expected, "{}", late.text());
    assert_eq!(ask(&node, "GET", "/v1/default/kv/k/a", b"").text(), "2");
    // One that ends by itself, in log time, which goes on while others commit.
    let opened = ask(&node, "POST", "/v1/default/sessions?ttl_ms=1", b"");
    let session = opened.json()["session"].as_str().unwrap().to_owned();
    let identity = format!("{session}/1");
    wait_until("the session to end", || {
        ask(&node, "PUT", "/v1/default/kv/k/b", b"");
        // The commit of a live session would keep it alive; asking once is enough to see.
        let headers = [("Idempotency-Key", identity.as_str())];
        let body = br#"{"do":[{"put":{"keyspace":"k","key":"c","value":""}}]}"#;
        let told = web::ask(&node.http(), "POST", "/v1/default/commit", &headers, body);
        told.status == 410 || told.json()["duplicate"] == true
    });
}

/// Why: history has an end, and a read below it must not be answered with what is left.
#[test]
fn reads_below_the_floor_of_history() {
    let node = Node::start(&[]);
    block_on(async {
        let client = connect(&node.address()).await;
        let options = NamespaceOptions {
            history_ms: 1000,
            history_bytes: 1024 * 1024,
            ..NamespaceOptions::default()
        };
        client.create_namespace("short", options).await.unwrap();
    });
    let first = ask(&node, "PUT", "/v1/short/kv/k/a", b"1").json()["offset"].as_u64().unwrap();
    let old = format!("/v1/short/kv/k/a?at={first}");
    assert_eq!(ask(&node, "GET", &old, b"").text(), "1");
    let filler = vec![7; 256 * 1024];
    let mut answer = None;
    wait_until("the floor to pass", || {
        assert_eq!(ask(&node, "PUT", "/v1/short/kv/k/a", &filler).status, 200);
        let found = ask(&node, "GET", &old, b"");
        if found.status == 200 {
            assert_eq!(found.text(), "1", "history must not change");
            return false;
        }
        answer = Some(found);
        true
    });
    assert_problem(&answer.unwrap(), 410, "offset_trimmed", "below the floor");
    let scan = ask(&node, "GET", &format!("/v1/short/kv/k?at={first}"), b"");
    assert_problem(&scan, 410, "offset_trimmed", "below the floor");
    assert_eq!(ask(&node, "GET", "/v1/short/kv/k/a", b"").body, filler);
}

/// Why: bodies have bounds, whether they are announced, chunked, or broken off.
#[test]
fn bodies_that_are_too_large_or_not_whole() {
    let node = Node::start(&[]);
    let path = "/v1/default/kv/k/a";
    let largest = vec![1; VALUE_BYTES_MAX];
    assert_eq!(ask(&node, "PUT", path, &largest).status, 200, "the largest value");
    assert_eq!(ask(&node, "GET", path, b"").body.len(), VALUE_BYTES_MAX);
    let announced = |path: &str, method: &str, length: usize| {
        let mut socket = TcpStream::connect(node.http()).unwrap();
        write!(socket, "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n").unwrap();
        write!(socket, "Content-Length: {length}\r\n\r\n").unwrap();
        web::receive(socket)
    };
    assert_problem(&announced(path, "PUT", VALUE_BYTES_MAX + 1), 413, "too_large", "announced");
    let json = announced("/v1/default/commit", "POST", HTTP_JSON_BYTES_MAX + 1);
    assert_problem(&json, 413, "too_large", "announced");
    let mut socket = TcpStream::connect(node.http()).unwrap();
    write!(socket, "PUT {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nhalf").unwrap();
    socket.shutdown(std::net::Shutdown::Write).unwrap();
    let mut garbage = TcpStream::connect(node.http()).unwrap();
    garbage.write_all(&[0xff; 300]).unwrap();
    let kept = ask(&node, "GET", path, b"");
    assert_eq!(kept.body.len(), VALUE_BYTES_MAX, "half a body is no value");
}
