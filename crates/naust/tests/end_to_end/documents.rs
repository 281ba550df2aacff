//! The documents say what is so: their commands are run, their tables are made from the source.
//! With `UPDATE=1` in the environment what is generated is written anew.

use crate::support::{Node, skip};
use crate::transcript::{files, has_curl, help, is_update, run_file};
use crate::web;
use naust_wire::{Code, limits};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

fn document(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs").join(name)
}

/// Compares what stands between the markers of a document with what belongs there.
fn assert_generated(name: &str, wanted: &str) {
    let (begin, end) = ("<!-- generated: begin -->\n", "<!-- generated: end -->");
    let text = std::fs::read_to_string(document(name)).unwrap();
    let (before, rest) = text.split_once(begin).expect("a marker where it begins");
    let (found, after) = rest.split_once(end).expect("a marker where it ends");
    if is_update() {
        std::fs::write(document(name), format!("{before}{begin}{wanted}{end}{after}")).unwrap();
    } else {
        assert_eq!(found, wanted, "docs/{name} is out of date: run with UPDATE=1");
    }
}

/// Why: a command in a document that does not work costs every reader an hour.
#[test]
fn commands_in_documents_print_what_is_written() {
    if !has_curl() {
        let story = "commands_in_documents_print_what_is_written";
        return skip(story, "there is no curl on this machine");
    }
    let documents = files("../../docs", "md");
    let wrong: Vec<String> = documents.iter().flat_map(|path| run_file(path)).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Why: the reference of the command line is its help.
#[test]
fn the_command_line_reference_is_the_help() {
    let mut text = String::new();
    let mut left = vec![Vec::new()];
    while let Some(words) = left.pop() {
        let told = help(&words.iter().map(String::as_str).collect::<Vec<_>>());
        let title = ["naust".to_owned()].into_iter().chain(words.clone()).collect::<Vec<_>>();
        let title = title.join(" ");
        write!(text, "## `{title}`\n\n```text\n{}\n```\n\n", told.trim_end()).unwrap();
        let commands = told.split_once("Commands:\n").map_or("", |(_, rest)| rest);
        let inner = commands.lines().take_while(|line| !line.is_empty());
        let names = inner.filter_map(|line| line.split_whitespace().next());
        let names: Vec<&str> = names.filter(|name| *name != "help").collect();
        for name in names.into_iter().rev() {
            left.push([words.clone(), vec![name.to_owned()]].concat());
        }
    }
    assert_generated("reference/command-line.md", &text);
}

/// Fields and constants with the comments before them.
fn documented(source: &str, prefix: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut doc: Vec<&str> = Vec::new();
    for line in source.lines().map(str::trim) {
        if let Some(text) = line.strip_prefix("///") {
            doc.push(text.trim());
        } else if let Some(rest) = line.strip_prefix(prefix)
            && let Some((name, _)) = rest.split_once(':')
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        {
            found.push((name.to_owned(), doc.join(" ")));
            doc.clear();
        } else {
            doc.clear();
        }
    }
    found
}

/// Why: what can be set, its name and its default are in one place, the source.
#[test]
fn the_configuration_reference_is_the_source() {
    let source = include_str!("../../src/config.rs");
    let defaults = toml::Table::try_from(naust::Config::default()).unwrap();
    let mut text = String::from("| option | default | what it sets |\n|---|---|---|\n");
    let mut count = 0;
    let mut rows = |section: &str, table: &toml::Table, name: &str| {
        let start = source.find(&format!("pub struct {name} {{")).unwrap();
        let body = source[start..].split_once("\n}").unwrap().0;
        for (option, doc) in documented(body, "pub ") {
            let value = &table[&option];
            if !value.is_table() {
                count += 1;
                assert!(!doc.is_empty(), "{option} has no words");
                writeln!(text, "| `{section}{option}` | `{value}` | {doc} |").unwrap();
            }
        }
    };
    rows("", &defaults, "Config");
    let mut options = defaults.values().filter(|value| !value.is_table()).count();
    for (section, name) in
        [("history", "History"), ("background", "Background"), ("debug", "Debug")]
    {
        let table = defaults[section].as_table().unwrap();
        rows(&format!("{section}."), table, name);
        options += table.len();
    }
    assert_eq!(count, options, "an option has no row");
    assert_generated("reference/configuration.md", &text);
}

/// The limits that users meet, and the code that they meet them with; `-`: none.
macro_rules! limits {
    ($($name:ident $unit:literal $code:literal,)*) => {
        &[$((stringify!($name), limits::$name as u64, $unit, $code),)*]
    };
}

const MET: &[(&str, u64, &str, &str)] = limits! {
    KEY_BYTES_MAX "bytes" "key_size",
    VALUE_BYTES_MAX "bytes" "too_large",
    NAME_BYTES_MAX "bytes" "bad_name",
    COMMIT_BODY_BYTES_MAX "bytes" "too_large",
    OPS_PER_COMMIT_MAX "" "too_large",
    CONDITIONS_PER_COMMIT_MAX "" "too_large",
    NAMES_PER_COMMIT_MAX "" "too_large",
    RANGE_DELETES_PER_COMMIT_MAX "" "too_large",
    RANGE_DELETE_KEYS_MAX "" "-",
    RANGE_DELETE_KEY_BYTES_MAX "bytes" "-",
    UNCHANGED_STEPS_MAX "" "too_large",
    RECENT_WRITES_LOG_BYTES "bytes" "offset_trimmed",
    PAGE_ROWS_MAX "" "too_large",
    PAGE_ROWS_DEFAULT "" "-",
    PAGE_BYTES_MAX "bytes" "-",
    LOG_READ_BYTES_MAX "bytes" "too_large",
    WAIT_MS_MAX "ms" "bad_argument",
    READ_OFFSET_WAIT_MS "ms" "unavailable",
    REMOVAL_WAIT_MS "ms" "interrupted",
    REMOVAL_WAITERS_MAX "" "interrupted",
    SESSIONS_PER_SHARD_MAX "" "session_expired",
    SESSION_WINDOW_MAX "" "sequence_out_of_window",
    SESSION_TTL_MS_DEFAULT "ms" "session_expired",
    SESSION_TTL_MS_MAX "ms" "bad_argument",
    SESSION_REPLY_BYTES_MAX "bytes" "sequence_out_of_window",
    SESSIONS_REPLY_BYTES_MAX "bytes" "session_expired",
    SESSION_TEXT_BYTES_MAX "bytes" "-",
    HISTORY_MS_DEFAULT "ms" "offset_trimmed",
    HISTORY_BYTES_DEFAULT "bytes" "offset_trimmed",
    HISTORY_MS_MIN "ms" "bad_argument",
    HISTORY_BYTES_MIN "bytes" "bad_argument",
    INTERVAL_MS_MAX "ms" "bad_argument",
    HOLDS_PER_SHARD_MAX "" "limit_reached",
    HOLD_MS_MAX "ms" "offset_trimmed",
    KEYSPACES_PER_NAMESPACE_MAX "" "limit_reached",
    STREAMS_PER_NAMESPACE_MAX "" "limit_reached",
    CURSORS_PER_STREAM_MAX "" "limit_reached",
    NAMESPACES_MAX "" "limit_reached",
    CONNECTIONS_MAX "" "overloaded",
    REQUESTS_MAX "" "overloaded",
    REQUEST_BYTES_MAX "bytes" "overloaded",
    REQUESTS_PER_CONNECTION_MAX "" "-",
    REPLY_BYTES_PER_CONNECTION_MAX "bytes" "-",
    UNREAD_BYTES_PER_CONNECTION_MAX "bytes" "-",
    UNREAD_BYTES_MAX "bytes" "-",
    UNREAD_MS_MAX "ms" "-",
    KEEPALIVE_MS "ms" "-",
    KEEPALIVE_PROBE_MS "ms" "-",
    KEEPALIVE_PROBES_MAX "" "-",
    UNAPPLIED_BYTES_MAX "bytes" "overloaded",
    UNAPPLIED_FRAMES_MAX "" "overloaded",
    BACKLOG_BYTES_MAX "bytes" "overloaded",
    PACKET_BODY_BYTES_MAX "bytes" "too_large",
    PACKET_MS_MAX "ms" "malformed",
    TEXT_BYTES_MAX "bytes" "too_large",
    DETAIL_BYTES_MAX "bytes" "-",
    CLIENT_REQUESTS_MAX "" "overloaded",
    CLIENT_OUTGOING_BYTES_MAX "bytes" "-",
    CLIENT_REPLY_BYTES_MAX "bytes" "-",
    HTTP_CONNECTIONS_MAX "" "overloaded",
    HTTP_RESERVE_MAX "" "-",
    HTTP_RESERVE_MS_MAX "ms" "-",
    HTTP_FOLLOWERS_MAX "" "overloaded",
    HTTP_ANSWER_MS_MAX "ms" "unavailable",
    HTTP_JSON_BYTES_MAX "bytes" "too_large",
    HTTP_BODY_BYTES_MAX "bytes" "overloaded",
    HTTP_BODY_MS_MAX "ms" "timed_out",
    HTTP_SILENCE_MS_MAX "ms" "-",
    NOTED_DIGESTS_MAX "" "offset_trimmed",
    DIGESTS_PAUSE_MS "ms" "overloaded",
};

/// The limits that nobody meets: they bound what lies inside.
const INSIDE: &[&str] = &[
    "TABLE_JOBS_PER_SHARD_MAX",
    "VIEWS_PER_SHARD_MAX",
    "PEER_CONFIGURATION_BYTES_MAX",
    "FORWARDED_MAX",
    "FORWARDED_BYTES_MAX",
    "LINK_BYTES_MAX",
    "TRANSFERS_MAX",
    "TRANSFER_PART_BYTES",
    "TRANSFER_FILES_MAX",
    "TRANSFER_FILE_BYTES_MAX",
    "TRANSFER_DIGEST_BYTES_MAX",
    "CATCH_UP_LOG_BYTES_MAX",
    "TRANSFER_BYTES_PER_S_DEFAULT",
    "TRANSFER_BYTES_PER_S_MIN",
    "SCRUB_BYTES_PER_S_DEFAULT",
    "SCRUB_EVERY_MS_DEFAULT",
    "APPEND_BYTES_MAX",
    "APPEND_FRAMES_MAX",
    "REPLICAS_DEFAULT",
    "CONTEXT_BYTES_MAX",
    "FRAME_BODY_BYTES_MAX",
    "FRAME_HEADER_BYTES",
    "FRAME_ALIGN",
    "SEGMENT_BYTES",
    "TRANSFERS_BYTES_MAX",
    "TRANSFER_AHEAD_BYTES_MAX",
    "HOLE_BYTES_MIN",
    "STRETCHES_PER_SEGMENT_MAX",
    "JOURNAL_HALF_BYTES",
    "JOURNAL_WRITE_BYTES_MAX",
    "JOURNAL_PARTS_MAX",
    "PACKET_HEADER_BYTES",
    "FLOORS_PER_CONTROL_MAX",
    "NODES_MAX",
    "REPLICAS_PER_SHARD_MAX",
    "STREAM_CHUNK_RECORDS_MAX",
    "TIME_POINTS_MAX",
    "ROTATIONS_UNFLUSHED_MAX",
    "RETENTION_CHUNKS_MAX",
    "FOLD_LOOK_BACK_BYTES_MAX",
    "FOLD_WAKES_MAX",
];

/// Why: every limit that a user can meet is named with its value, and a new one is not forgotten.
#[test]
fn the_limits_reference_is_the_source() {
    let source = include_str!("../../../wire/src/limits.rs");
    let docs = documented(source, "pub const ");
    let mut text = String::from("| limit | value | code | what it bounds |\n|---|---|---|---|\n");
    for (name, doc) in &docs {
        let Some((_, value, unit, code)) = MET.iter().find(|(met, ..)| met == name) else {
            let known = INSIDE.contains(&name.as_str());
            assert!(known, "{name}: can users meet it? Add it to MET or to INSIDE");
            continue;
        };
        let code = match *code {
            "-" => "-".to_owned(),
            code => {
                assert!(Code::ALL.iter().any(|known| known.name() == code), "{code}");
                format!("[`{code}`](../errors/{code}.md)")
            }
        };
        let value = format!("{} {unit}", grouped(*value));
        writeln!(text, "| `{name}` | {} | {code} | {doc} |", value.trim_end()).unwrap();
    }
    assert_eq!(docs.len(), MET.len() + INSIDE.len());
    assert_generated("reference/limits.md", &text);
}

/// Digits in groups of three.
fn grouped(value: u64) -> String {
    let digits = value.to_string();
    let groups: Vec<&[u8]> = digits.as_bytes().rchunks(3).rev().collect();
    let groups: Vec<&str> = groups.iter().map(|g| std::str::from_utf8(g).unwrap()).collect();
    groups.join(",")
}

/// Why: dashboards are built from this page.
#[test]
fn the_metrics_reference_is_what_a_node_prints() {
    let node = Node::start(&[]);
    let told = web::ask(&node.http(), "GET", "/metrics", &[], b"").text();
    let mut text = String::from("| metric | kind | what it counts |\n|---|---|---|\n");
    for line in told.lines() {
        let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|l| l.split_once(' '))
        else {
            continue;
        };
        let of_type = format!("# TYPE {name} ");
        let kind = told.lines().find_map(|line| line.strip_prefix(of_type.as_str())).unwrap();
        writeln!(text, "| `{name}` | {kind} | {help} |").unwrap();
    }
    assert_generated("reference/metrics.md", &text);
}

/// Why: no route without its example, no code without its page, no link into nothing.
#[test]
fn nothing_is_left_out_and_no_link_is_dead() {
    let http = std::fs::read_to_string(document("reference/http.md")).unwrap().replace('\n', " ");
    let openapi = include_str!("../../../gateway/static/openapi.json");
    let openapi: serde_json::Value = serde_json::from_str(openapi).unwrap();
    for (path, methods) in openapi["paths"].as_object().unwrap() {
        for method in methods.as_object().unwrap().keys().filter(|name| *name != "parameters") {
            let route = format!("`{} {path}`", method.to_uppercase());
            assert!(http.contains(&route), "docs/reference/http.md has no {route}");
        }
    }
    let index = std::fs::read_to_string(document("reference/errors.md")).unwrap();
    for code in Code::ALL {
        let page = std::fs::read_to_string(document(&format!("errors/{code}.md"))).unwrap();
        assert!(page.starts_with(&format!("# `{code}` ({})\n", *code as u16)), "{code}");
        assert!(index.contains(&format!("[`{code}`](../errors/{code}.md)")), "{code}");
    }
    for path in files("../../docs", "md") {
        let text = std::fs::read_to_string(&path).unwrap();
        for target in text.split("](").skip(1).filter_map(|rest| rest.split_once(')')) {
            let target = target.0.split('#').next().unwrap();
            let is_local = !target.is_empty() && !target.contains("://");
            let found = path.parent().unwrap().join(target).exists();
            assert!(!is_local || found, "{}: {target} is not there", path.display());
        }
    }
}

/// Why: code in a guide compiles, because it is a piece of an example that is compiled.
#[test]
fn code_in_guides_is_code_of_the_examples() {
    for path in files("../../docs", "md") {
        let text = std::fs::read_to_string(&path).unwrap();
        for block in text.split("```rust\n").skip(1) {
            let (code, _) = block.split_once("```").unwrap();
            let found = files("../../examples/src", "rs").iter().any(|example| {
                let example = std::fs::read_to_string(example).unwrap();
                let plain = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
                plain(&example).contains(&plain(code))
            });
            assert!(found, "{}: no example has\n{code}", path.display());
        }
    }
}
