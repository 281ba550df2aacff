//! The gateway over real sockets, in front of a fake server: each family of routes as a story.

#![allow(clippy::unwrap_used)]

#[allow(dead_code, clippy::unwrap_used)]
#[path = "../../client/tests/fake/mod.rs"]
mod fake;

use fake::{Fake, Fault};
use naust_client::{Code, OnOverload, Options};
use naust_gateway::{Bounds, Gateway, Hooks, serve_within};
use naust_wire::packet::Kind;
use naust_wire::reply::Failure;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

struct Web {
    gateway: Gateway,
    fake: Arc<Mutex<Fake>>,
}

struct Reply {
    status: u16,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

impl Reply {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// The offset that a write gave, once its status is checked.
    fn offset(&self) -> u64 {
        assert_eq!(self.status, 200, "{}", String::from_utf8_lossy(&self.body));
        self.json()["offset"].as_u64().unwrap()
    }

    /// Status, code and outcome of a problem.
    fn problem(&self) -> (u16, String, String) {
        assert_eq!(self.headers["content-type"], "application/problem+json");
        let body = self.json();
        assert_eq!(body["status"], self.status);
        let text = |name: &str| body[name].as_str().unwrap().to_owned();
        assert!(!text("detail").is_empty());
        (self.status, text("code"), text("outcome"))
    }
}

fn not_done(status: u16, code: &str) -> (u16, String, String) {
    (status, code.to_owned(), "not_done".to_owned())
}

fn web() -> Web {
    web_within(Bounds::default(), Err("replaying"))
}

fn web_within(bounds: Bounds, ready: Result<(), &'static str>) -> Web {
    web_with(bounds, ready, None)
}

fn web_with(
    bounds: Bounds,
    ready: Result<(), &'static str>,
    starting: Option<&'static str>,
) -> Web {
    let options = Options { on_overload: OnOverload::Refuse, ..Options::default() };
    let (client, fake) = fake::spawn(options);
    let hooks = Hooks {
        metrics: Arc::new(|| "naust_up 1\n".to_owned()),
        ready: Arc::new(move || ready.map_err(str::to_owned)),
        starting: Arc::new(move || starting.map(str::to_owned)),
    };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    Web { gateway: serve_within(bounds, listener, client, hooks).unwrap(), fake }
}

impl Web {
    fn connect(&self) -> TcpStream {
        TcpStream::connect(self.gateway.address()).unwrap()
    }

    fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Reply {
        let mut stream = self.connect();
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n");
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        head += &format!("Content-Length: {}\r\n\r\n", body.len());
        stream.write_all(head.as_bytes()).unwrap();
        // A server that refuses a body may hang up before it has read it.
        let _ = stream.write_all(body);
        let mut reader = BufReader::new(stream);
        if method == "HEAD" {
            let (status, headers) = read_head(&mut reader);
            return Reply { status, headers, body: Vec::new() };
        }
        read_reply(&mut reader)
    }

    fn get(&self, path: &str) -> Reply {
        self.ask("GET", path, &[], b"")
    }

    fn put(&self, path: &str, body: impl AsRef<[u8]>) -> Reply {
        self.ask("PUT", path, &[], body.as_ref())
    }

    fn post(&self, path: &str, body: impl AsRef<[u8]>) -> Reply {
        self.ask("POST", path, &[], body.as_ref())
    }
}

fn read_head(reader: &mut impl BufRead) -> (u16, BTreeMap<String, String>) {
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    let status = line.split(' ').nth(1).unwrap().parse().unwrap();
    let mut headers = BTreeMap::new();
    loop {
        line.clear();
        reader.read_line(&mut line).unwrap();
        match line.trim_end().split_once(": ") {
            Some((name, value)) => headers.insert(name.to_lowercase(), value.to_owned()),
            None => return (status, headers),
        };
    }
}

fn read_reply(reader: &mut impl BufRead) -> Reply {
    let (status, headers) = read_head(reader);
    let length = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    Reply { status, headers, body }
}

#[test]
fn rows() {
    let web = web();
    let row = "/v1/default/kv/users/a%2F%ff%00";
    assert_eq!(web.get(row).problem(), not_done(404, "keyspace_not_found"));
    let first = web.put(row, [0, 255, 7]).offset();
    let read = web.get(row);
    assert_eq!((read.status, read.body.as_slice()), (200, &[0, 255, 7][..]));
    let tag = format!("\"{first}\"");
    assert_eq!(read.headers["etag"], tag);
    assert_eq!(web.ask("GET", row, &[("If-None-Match", &tag)], b"").status, 304);
    assert_eq!(web.get("/v1/default/kv/users/b").problem(), not_done(404, "row_not_found"));

    let second = web.ask("PUT", row, &[("If-Match", &tag)], b"two");
    assert_eq!(second.headers["etag"], format!("\"{}\"", second.offset()));
    let stale = web.ask("PUT", row, &[("If-Match", &tag)], b"three");
    assert_eq!(stale.problem(), not_done(412, "condition_failed"));
    assert_eq!(stale.json()["found"], second.offset());
    let exists = web.ask("PUT", row, &[("If-None-Match", "*")], b"three");
    assert_eq!(exists.problem(), not_done(412, "condition_failed"));
    web.ask("PUT", "/v1/default/kv/users/new", &[("If-None-Match", "*")], b"x").offset();
    assert_eq!(web.ask("DELETE", row, &[("If-Match", &tag)], b"").status, 412);
    web.ask("DELETE", row, &[], b"").offset();
    assert_eq!(web.get(row).status, 404);
    let past = web.get("/v1/default/kv/users/new?at=5").problem();
    assert_eq!(past, not_done(410, "offset_trimmed"));
    assert_eq!(web.ask("HEAD", "/v1/default/kv/users/new", &[], b"").status, 200);
}

#[test]
fn pages() {
    let web = web();
    web.put("/v1/default/kv/users", r#"{"compaction": "levelled"}"#).offset();
    for key in ["a", "b1", "b2", "b%ff", "c"] {
        web.put(&format!("/v1/default/kv/users/{key}"), "x").offset();
    }
    let keys = |path: &str| {
        let page = web.get(path).json();
        let key = |e: &Value| e["key"].as_str().or(e["key_base64"].as_str()).unwrap().to_owned();
        let keys: Vec<String> = page["entries"].as_array().unwrap().iter().map(key).collect();
        (keys.join(" "), page["next"].as_str().map(str::to_owned))
    };
    let of = |keys: &str, next: Option<&str>| (keys.to_owned(), next.map(str::to_owned));
    assert_eq!(keys("/v1/default/kv/users?limit=2"), of("a b1", Some("b2")));
    assert_eq!(keys("/v1/default/kv/users?limit=9&from=b2"), of("b2 Yv8= c", None));
    assert_eq!(keys("/v1/default/kv/users?prefix=b"), of("b1 b2 Yv8=", None));
    let backwards = "/v1/default/kv/users?reverse&limit=2&to=b2";
    assert_eq!(keys(backwards), of("b1 a", None));
    assert_eq!(keys("/v1/default/kv/users?reverse=true&limit=1"), of("c", Some("c")));
    let entry = &web.get("/v1/default/kv/users?prefix=b%ff").json()["entries"][0];
    assert_eq!((&entry["key_base64"], &entry["value"]), (&json!("Yv8="), &json!("x")));
    let refused = web.get("/v1/default/kv/users?from=b&to=a").problem();
    assert_eq!(refused, not_done(400, "bad_argument"));
    let refused = web.get("/v1/default/kv/users?limits=2").problem();
    assert_eq!(refused, not_done(400, "malformed"));
}

#[test]
fn streams() {
    let web = web();
    let stream = "/v1/default/streams/orders";
    assert_eq!(web.get(stream).problem(), not_done(404, "stream_not_found"));
    web.put(stream, r#"{"max_records": 100}"#).offset();
    let one = web.post(stream, "one").offset();
    let two = web.post(stream, [0xff]).offset();
    let page = web.get(stream).json();
    let records = json!([{"offset": one, "value": "one"}, {"offset": two, "value_base64": "/w=="}]);
    assert_eq!(page["records"], records);
    let next = page["next"].as_u64().unwrap();
    assert!(next > two && page["end"].as_u64().unwrap() >= next);
    assert_eq!(web.get(&format!("{stream}?from={next}")).json()["records"], json!([]));

    let cursor = "/v1/default/streams/orders/cursors/billing";
    assert_eq!(web.get(cursor).problem(), not_done(404, "cursor_not_found"));
    web.put(cursor, format!("{{\"offset\": {two}}}")).offset();
    assert_eq!(web.get(cursor).json(), json!({ "offset": two }));
    assert_eq!(web.put(cursor, "{}").problem(), not_done(400, "malformed"));

    let log = web.get("/v1/default/log?from=4294967296&max_bytes=1000");
    assert_eq!(
        (log.body.as_slice(), log.headers["naust-first"].as_str()),
        (&[1, 2, 3][..], "4294967296")
    );
}

#[test]
fn streams_are_followed_as_events() {
    let web = web();
    let stream = "/v1/default/streams/orders";
    let one = web.post(stream, "one").offset();
    let follow = |last: &str| {
        let mut socket = web.connect();
        let head =
            format!("GET {stream} HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n{last}\r\n");
        socket.write_all(head.as_bytes()).unwrap();
        let mut reader = BufReader::new(socket);
        let (status, headers) = read_head(&mut reader);
        assert_eq!((status, headers["content-type"].as_str()), (200, "text/event-stream"));
        reader
    };
    let data = |reader: &mut BufReader<TcpStream>| loop {
        let mut line = String::new();
        assert!(reader.read_line(&mut line).unwrap() > 0, "the events ended");
        if let Some(data) = line.strip_prefix("data: ") {
            return serde_json::from_str::<Value>(data).unwrap();
        }
    };
    let mut reader = follow("");
    assert_eq!(data(&mut reader), json!({"offset": one, "value": "one"}));
    let two = web.post(stream, "two").offset();
    assert_eq!(data(&mut reader), json!({"offset": two, "value": "two"}));
    let mut resumed = follow(&format!("Last-Event-ID: {one}\r\n"));
    assert_eq!(data(&mut resumed), json!({"offset": two, "value": "two"}));
    // The gateway ends though they follow still.
    web.gateway.shutdown();
    assert!(resumed.read_to_end(&mut Vec::new()).is_ok());
}

/// Why: who follows what is not there would wait for ever for its first event.
#[test]
fn what_can_not_be_followed_is_refused() {
    let web = web();
    web.post("/v1/default/streams/orders", "one").offset();
    let follow = |path: &str| web.ask("GET", path, &[("Accept", "text/event-stream")], b"");
    let missing = follow("/v1/default/streams/nothing");
    assert_eq!(missing.problem(), not_done(404, "stream_not_found"));
    let missing = follow("/v1/nowhere/streams/orders");
    assert_eq!(missing.problem(), not_done(404, "namespace_not_found"));
    // Streams have no past that could be read.
    let past = web.get("/v1/default/streams/orders?at=5");
    assert_eq!(past.problem(), not_done(400, "malformed"));
}

/// Why: what is not understood is refused in a sentence, and what is no mistake is no error.
#[test]
fn what_is_odd_is_told_well() {
    let web = web();
    let row = "/v1/default/kv/users/a";
    let version = web.put(row, "1").offset();
    let tag = format!("W/\"1\", \"{version}\"");
    assert_eq!(web.ask("GET", row, &[("If-None-Match", &tag)], b"").status, 304);
    let any = web.ask("PUT", row, &[("If-Match", "*")], b"2").problem();
    assert_eq!(any, not_done(400, "bad_argument"));
    for range in ["from=a&to=a", "prefix=b&to=a", "prefix=a&from=b"] {
        let empty = web.get(&format!("/v1/default/kv/users?{range}"));
        assert_eq!((empty.status, &empty.json()["entries"]), (200, &json!([])), "{range}");
        assert!(empty.json()["offset"].as_u64().unwrap() > 0);
    }
    for path in ["/v1/default/sessions", "/v1/cluster/sessions"] {
        assert_eq!(web.post(path, r#"{"ttl_ms": 5}"#).problem(), not_done(400, "malformed"));
        assert_eq!(web.post(path, "{}").status, 201);
    }
    for (body, what) in [
        (r#"{"do": [{}]}"#, "do[0] is an object with 0 fields"),
        (r#"{"do": [{"put": {}, "append": {}}]}"#, "do[0] is an object with 2 fields"),
        (r#"{"if": [{"a": 1, "b": 2, "c": 3}]}"#, "if[0] is an object with 3 fields"),
    ] {
        let told = web.post("/v1/default/commit", body);
        assert_eq!(told.problem(), not_done(400, "malformed"));
        assert!(told.json()["detail"].as_str().unwrap().starts_with(what), "{body}");
    }
}

/// Why: those who only hold connections, or follow, must not keep others from being answered.
#[test]
fn a_crowd_is_told_that_there_is_no_room() {
    let web = web_within(Bounds { connections: 3, reserve: 1, followers: 1 }, Ok(()));
    let stream = "/v1/default/streams/orders";
    web.post(stream, "one").offset();
    let send = |socket: &mut TcpStream, path: &str, more: &str| {
        let head = format!("GET {path} HTTP/1.1\r\nHost: x\r\n{more}\r\n");
        socket.write_all(head.as_bytes()).unwrap();
    };
    let mut follower = BufReader::new(web.connect());
    send(follower.get_mut(), stream, "Accept: text/event-stream\r\n");
    assert_eq!(read_head(&mut follower).0, 200);
    let second = web.ask("GET", stream, &[("Accept", "text/event-stream")], b"");
    assert_eq!(second.problem(), not_done(503, "overloaded"));
    let idle = [(); 2].map(|()| {
        let mut idle = BufReader::new(web.connect());
        send(idle.get_mut(), "/healthz", "");
        assert_eq!(read_reply(&mut idle).status, 200);
        idle
    });
    // All places are taken; one after the other, as there is one in the reserve.
    for _ in 0..3 {
        let mut late = BufReader::new(web.connect());
        send(late.get_mut(), "/v1/default/kv/users/a", "");
        let told = read_reply(&mut late);
        assert_eq!(told.problem(), not_done(503, "overloaded"));
        assert_eq!(told.headers["connection"], "close");
        assert_eq!(late.read_to_end(&mut Vec::new()).unwrap(), 0, "it is closed");
        for path in ["/healthz", "/readyz", "/metrics"] {
            assert_eq!(web.get(path).status, 200, "{path}");
        }
    }
    drop((idle, follower));
    // They have gone for the gateway, too, once it has seen it.
    let gone = || web.get("/v1/default/kv/users").status != 503;
    let start = std::time::Instant::now();
    while !gone() {
        assert!(start.elapsed().as_secs() < 40, "places are not given back");
    }
}

/// Why: whoever waits for news when the node ends would be cut off without an answer.
#[test]
fn those_who_wait_are_answered_at_the_end() {
    let web = web();
    let stream = "/v1/default/streams/orders";
    let id = web.post(stream, "one").offset();
    let mut waiting = Vec::new();
    for path in
        [format!("{stream}?from={}&wait_ms=60000", id + 1), "/v1/default/log?wait_ms=60000".into()]
    {
        // The fake answers at once; a lost reply is a wait.
        web.fake.lock().unwrap().other_faults.push_back(Fault::LoseReply);
        let known = web.fake.lock().unwrap().kinds.len();
        let mut socket = web.connect();
        let head = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        socket.write_all(head.as_bytes()).unwrap();
        while web.fake.lock().unwrap().kinds.len() == known {
            std::thread::yield_now();
        }
        waiting.push(socket);
    }
    web.gateway.shutdown();
    for socket in waiting {
        let reply = read_reply(&mut BufReader::new(socket));
        assert_eq!(reply.status, 200, "{}", String::from_utf8_lossy(&reply.body));
    }
}

/// Why: a load balancer must not send requests where each of them would fail.
#[test]
fn a_node_whose_default_namespace_can_not_be_served_is_not_ready() {
    let web = web_within(Bounds::default(), Ok(()));
    assert_eq!(web.get("/readyz").body, b"ready\n");
    let refuse = |code| {
        let fault = Fault::Refuse(Failure::new(code, "a test"));
        web.fake.lock().unwrap().other_faults.push_back(fault);
    };
    refuse(Code::Corrupt);
    let told = web.get("/readyz");
    assert_eq!(told.problem(), not_done(503, "unavailable"));
    assert!(told.json()["detail"].as_str().unwrap().contains("corrupt: a test"));
    web.fake.lock().unwrap().other_faults.push_back(Fault::LoseReply);
    assert_eq!(web.get("/readyz").problem(), not_done(503, "unavailable"));
    refuse(Code::Overloaded);
    assert_eq!(web.get("/readyz").status, 200);
}

/// Why: nobody looks at requests of a node that does not serve yet: they waited for as long as it
/// took, also for ever.
#[test]
fn a_node_that_starts_refuses_what_it_can_not_answer() {
    let web = web_with(Bounds::default(), Err("the moon"), Some("the moon"));
    for path in ["/", "/healthz", "/metrics", "/openapi.json"] {
        assert_eq!(web.get(path).status, 200, "{path}");
    }
    for path in ["/v1/cluster", "/v1/namespaces", "/v1/default", "/v1/default/kv/users/a"] {
        let told = web.get(path);
        assert_eq!(told.problem(), not_done(503, "unavailable"), "{path}");
        assert!(told.json()["detail"].as_str().unwrap().contains("the moon"), "{path}");
    }
    let put = web.put("/v1/default/kv/users/a", "1");
    assert_eq!(put.problem(), not_done(503, "unavailable"));
    // But for what the client asks by itself.
    assert!(web.fake.lock().unwrap().kinds.iter().all(|kind| *kind == Kind::Ask));
}

#[test]
fn commits_and_sessions() {
    let web = web();
    let commit = "/v1/default/commit";
    let opened = web.post("/v1/default/sessions?ttl_ms=60000", "");
    assert_eq!(opened.status, 201);
    let session = opened.json()["session"].as_str().unwrap().to_owned();
    let body = json!({
        "session": session, "seq": 1,
        "if": [{"absent": {"keyspace": "acct", "key": "a"}}],
        "do": [
            {"put": {"keyspace": "acct", "key": "a", "value": "90"}},
            {"append": {"stream": "ledger", "value": "+90"}},
        ],
    })
    .to_string();
    let first = web.post(commit, &body).json();
    assert_eq!(first["ids"].as_array().unwrap().len(), 1);
    let again = web.post(commit, &body).json();
    assert_eq!((&again["offset"], &again["duplicate"]), (&first["offset"], &json!(true)));

    let other = json!({"if": [{"absent": {"keyspace": "acct", "key": "a"}}], "do": []}).to_string();
    let refused = web.post(commit, other);
    assert_eq!(refused.problem(), not_done(409, "condition_failed"));
    assert_eq!(
        (&refused.json()["condition"], &refused.json()["found"]),
        (&json!(0), &first["offset"])
    );

    let key = format!("{session}/2");
    let row = "/v1/default/kv/acct/b";
    let once = web.ask("PUT", row, &[("Idempotency-Key", &key)], b"1").offset();
    let twice = web.ask("PUT", row, &[("Idempotency-Key", &key)], b"1").offset();
    assert_eq!(once, twice);
    let differs = web.ask("POST", commit, &[("Idempotency-Key", &key)], body.as_bytes());
    assert_eq!(differs.problem(), not_done(400, "bad_argument"));
    // Options are set once, too.
    for (number, path) in [(3, "/v1/default/kv/acct"), (4, "/v1/default/streams/ledger")] {
        let key = format!("{session}/{number}");
        let once = web.ask("PUT", path, &[("Idempotency-Key", &key)], b"{}").offset();
        assert_eq!(web.ask("PUT", path, &[("Idempotency-Key", &key)], b"{}").offset(), once);
        let other = format!("{session}/{}", number + 10);
        assert_ne!(web.ask("PUT", path, &[("Idempotency-Key", &other)], b"{}").offset(), once);
    }
    // Sessions are remembered by no session, and that is said.
    let close = format!("/v1/default/sessions/{session}");
    let close_other = format!("/v1/cluster/sessions/{session}");
    for (method, path) in [
        ("POST", "/v1/default/sessions"),
        ("DELETE", &close),
        ("POST", "/v1/cluster/sessions"),
        ("DELETE", &close_other),
    ] {
        let told = web.ask(method, path, &[("Idempotency-Key", &key)], b"");
        assert_eq!(told.problem(), not_done(400, "bad_argument"), "{method} {path}");
    }
    web.ask("DELETE", &close, &[], b"").offset();
    let gone = web.post(commit, &body).problem();
    assert_eq!(gone, (410, "session_expired".to_owned(), "unknown".to_owned()));

    for bad in [
        "",
        "{",
        "[]",
        "[null, null, [], []]",
        "7",
        r#"{"do": [{"put": {}}]}"#,
        r#"{"doo": []}"#,
        r#"{"session": "1"}"#,
    ] {
        assert_eq!(web.post(commit, bad).problem(), not_done(400, "malformed"), "{bad}");
    }
    let long =
        json!({"do": [{"delete": {"keyspace": "a", "key": "k".repeat(40_000)}}]}).to_string();
    assert_eq!(web.post(commit, long).problem(), not_done(400, "key_size"));
}

#[test]
fn namespaces_are_made_and_removed_once_in_a_session_of_the_directory() {
    let web = web();
    let opened = web.post("/v1/cluster/sessions?ttl_ms=60000", "");
    assert_eq!(opened.status, 201);
    let session = opened.json()["session"].as_str().unwrap().to_owned();
    let of = |number: u64| format!("{session}/{number}");
    let make = |key: &str| {
        let body = br#"{"name": "shop"}"#;
        web.ask("POST", "/v1/namespaces", &[("Idempotency-Key", key)], body)
    };
    let remove =
        |key: &str| web.ask("DELETE", "/v1/namespaces/shop", &[("Idempotency-Key", key)], b"");
    let made = make(&of(1)).json();
    assert_eq!(make(&of(1)).json(), made);
    assert_eq!(make(&of(2)).problem(), not_done(409, "namespace_exists"));
    let removed = remove(&of(3)).offset();
    assert_eq!(remove(&of(3)).offset(), removed);
    assert_eq!(make(&of(1)).json(), made);
    assert_eq!(remove(&of(4)).problem(), not_done(404, "namespace_not_found"));
    web.ask("DELETE", &format!("/v1/cluster/sessions/{session}"), &[], b"").offset();
    let gone = make(&of(1)).problem();
    assert_eq!(gone, (410, "session_expired".to_owned(), "unknown".to_owned()));
    assert_eq!(make("x/1").problem(), not_done(400, "malformed"));
}

#[test]
fn lists_have_pages() {
    let web = web();
    for name in ["a", "b", "c"] {
        assert_eq!(web.post("/v1/namespaces", json!({ "name": name }).to_string()).status, 201);
        web.put(&format!("/v1/default/kv/{name}/k"), "v").offset();
    }
    let page = web.get("/v1/namespaces?limit=2").json();
    assert_eq!((&page["namespaces"][1]["name"], &page["next"]), (&json!("b"), &json!("c")));
    let page = web.get("/v1/cluster?from=c&limit=9").json();
    let names = page["namespaces"].as_array().unwrap().iter().map(|one| &one["name"]);
    assert!(names.eq(["c", "default"]));
    assert!(page["nodes"][0]["name"] == "fake" && page.get("next").is_none());
    let page = web.get("/v1/default?from=kv/b").json();
    assert_eq!(page["keyspaces"][0]["name"], "b");
    assert_eq!(page["keyspaces"][0]["options"]["compaction"], "levelled");
    assert_eq!(web.get("/v1/default").json()["next"], "kv/c");
    for (path, status, code) in [
        ("/v1/default?from=b", 400, "malformed"),
        ("/v1/default?from=streams/", 400, "bad_name"),
        ("/v1/default?limit=10001", 413, "too_large"),
        ("/v1/namespaces?limit=-1", 400, "malformed"),
        ("/v1/namespaces?limit=10001", 413, "too_large"),
        ("/v1/namespaces?before=b", 400, "malformed"),
        ("/v1/nowhere", 404, "namespace_not_found"),
        ("/v1/topics", 404, "route_not_found"),
    ] {
        assert_eq!(web.get(path).problem(), not_done(status, code), "{path}");
    }
}

#[test]
fn namespaces_and_nodes() {
    let web = web();
    let missing = web.put("/v1/shop/kv/users/a", "1").problem();
    assert_eq!(missing, not_done(404, "namespace_not_found"));
    let made = web.post("/v1/namespaces", r#"{"name": "shop"}"#);
    assert_eq!((made.status, &made.json()["name"]), (201, &json!("shop")));
    let again = web.post("/v1/namespaces", r#"{"name": "shop"}"#).problem();
    assert_eq!(again, not_done(409, "namespace_exists"));
    web.put("/v1/shop/kv/users/a", "1").offset();
    let list = web.get("/v1/namespaces").json();
    assert_eq!(list["namespaces"][1]["name"], "shop");
    let cluster = web.get("/v1/cluster").json();
    let node = json!({"name": "fake", "id": "7", "address": "127.0.0.1:7420", "up": true});
    assert_eq!(cluster["nodes"], json!([node]));
    assert_eq!(cluster["namespaces"][0]["leader"], "fake");
    assert_eq!(cluster["namespaces"][0]["replicas"][0]["role"], "voter");
    web.ask("DELETE", "/v1/namespaces/shop", &[], b"").offset();
    assert_eq!(web.put("/v1/shop/kv/users/a", "1").status, 404);
    let reserved = web.post("/v1/namespaces", r#"{"name": "topics"}"#).problem();
    assert_eq!(reserved, not_done(400, "bad_name"));
}

#[test]
fn plain_routes() {
    let web = web();
    assert_eq!(web.get("/healthz").body, b"ok\n");
    assert_eq!(web.get("/readyz").problem(), not_done(503, "unavailable"));
    assert_eq!(web.get("/metrics").body, b"naust_up 1\n");
    assert_eq!(web.get("/openapi.json").json()["openapi"], "3.1.0");
    assert!(web.get("/").body.starts_with(b"<!doctype html>"));
    assert_eq!(web.get("/v1/default/queues/q").problem(), not_done(404, "route_not_found"));
    let refused = web.post("/v1/cluster", "");
    assert_eq!(refused.problem(), not_done(405, "method_not_allowed"));
    assert_eq!(refused.headers["allow"], "GET, HEAD");
}

#[test]
fn what_is_too_large_or_too_much() {
    let web = web();
    let max = naust_wire::limits::VALUE_BYTES_MAX;
    let large = web.put("/v1/default/kv/users/a", vec![0; max + 1]).problem();
    assert_eq!(large, not_done(413, "too_large"));
    // Without a length, too.
    let mut socket = web.connect();
    let head =
        "PUT /v1/default/streams/s HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
    socket.write_all(head.as_bytes()).unwrap();
    let chunk = [format!("{:x}\r\n", 70_000).as_bytes(), &[b' '; 70_000], b"\r\n"].concat();
    let _ = socket.write_all(&chunk);
    let reply = read_reply(&mut BufReader::new(socket));
    assert_eq!(reply.problem(), not_done(413, "too_large"));

    let table = [
        (Code::Overloaded, 503, "not_done"),
        (Code::DiskFull, 507, "not_done"),
        (Code::Corrupt, 500, "not_done"),
        (Code::SequenceOutOfWindow, 409, "unknown"),
    ];
    web.put("/v1/default/kv/users/a", "1").offset();
    for (code, status, outcome) in table {
        let fault = Fault::Refuse(Failure::new(code, "a test"));
        web.fake.lock().unwrap().faults.push_back(fault);
        let reply = web.put("/v1/default/kv/users/a", "2");
        assert_eq!(reply.problem(), (status, code.name().to_owned(), outcome.to_owned()));
        assert_eq!(reply.headers.contains_key("retry-after"), code == Code::Overloaded);
    }
    web.gateway.shutdown();
}
