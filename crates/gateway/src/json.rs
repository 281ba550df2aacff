//! JSON that comes in: commits, and options of namespaces, keyspaces and streams. Unknown fields
//! are refused.

use crate::bytes_in_text::either;
use crate::path::session;
use crate::problem::Problem;
use naust_client::{Offset, Sequence, SessionId};
use naust_wire::commit::Draft;
use naust_wire::options::{
    Compaction, Compression, Durability, KeyspaceOptions, NamespaceOptions, StreamOptions,
};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::borrow::Cow;

/// A commit as it was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitRequest {
    /// Its conditions and ops.
    pub draft: Draft<'static>,
    /// The caller's own session, and the commit's number in it.
    pub identity: Option<(SessionId, Sequence)>,
}

/// Reads a commit: `{"session":"…","seq":7,"if":[…],"do":[…]}`.
///
/// # Errors
/// `Malformed`, or what is wrong with a name.
pub fn commit(body: &[u8]) -> Result<CommitRequest, Problem> {
    let read: CommitBody = read(body).map_err(|problem| shape(body).unwrap_or(problem))?;
    let identity = match (read.session, read.seq) {
        (None, None) => None,
        (Some(text), Some(sequence)) => Some((session(&text)?, Sequence(sequence))),
        _ => return Err(Problem::malformed("give session and seq, or neither")),
    };
    let mut draft = Draft::default();
    for condition in read.conditions {
        condition.add(&mut draft)?;
    }
    for op in read.ops {
        op.add(&mut draft)?;
    }
    Ok(CommitRequest { draft, identity })
}

/// Reads an object.
fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    // Without this a list would be taken for the fields of an object in their order.
    if body.trim_ascii_start().first() != Some(&b'{') {
        return Err(Problem::malformed("bad JSON: the body is no object: {…}"));
    }
    serde_json::from_slice(body).map_err(|error| Problem::malformed(format!("bad JSON: {error}")))
}

/// What is wrong with the shape of a step, said better than by the parser.
fn shape(body: &[u8]) -> Option<Problem> {
    let body: serde_json::Value = serde_json::from_slice(body).ok()?;
    for (list, steps) in [("if", CONDITIONS), ("do", OPS)] {
        for (index, step) in body[list].as_array().into_iter().flatten().enumerate() {
            let keys = step.as_object()?.len();
            if keys != 1 {
                return Some(Problem::malformed(format!(
                    "{list}[{index}] is an object with {keys} fields; it must have exactly one, \
                     which is one of {steps}"
                )));
            }
        }
    }
    None
}

const CONDITIONS: &str = "version, absent, unchanged";
const OPS: &str = "put, delete, delete_range, append, advance";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CommitBody {
    session: Option<String>,
    seq: Option<u64>,
    #[serde(default, rename = "if")]
    conditions: Vec<Condition>,
    #[serde(default, rename = "do")]
    ops: Vec<Op>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Condition {
    Version(Versioned),
    Absent(Key),
    Unchanged(Unchanged),
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Op {
    Put(Put),
    Delete(Key),
    DeleteRange(Range),
    Append(Append),
    Advance(Advance),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Key {
    keyspace: String,
    key: Option<String>,
    key_base64: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Versioned {
    keyspace: String,
    key: Option<String>,
    key_base64: Option<String>,
    offset: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Put {
    keyspace: String,
    key: Option<String>,
    key_base64: Option<String>,
    value: Option<String>,
    value_base64: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Range {
    keyspace: String,
    from: Option<String>,
    from_base64: Option<String>,
    to: Option<String>,
    to_base64: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Unchanged {
    keyspace: String,
    from: Option<String>,
    from_base64: Option<String>,
    to: Option<String>,
    to_base64: Option<String>,
    since: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Append {
    stream: String,
    value: Option<String>,
    value_base64: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Advance {
    stream: String,
    cursor: String,
    offset: u64,
}

impl Condition {
    fn add(self, draft: &mut Draft<'static>) -> Result<(), Problem> {
        match self {
            Condition::Version(on) => {
                let key = required("key", on.key, on.key_base64)?;
                draft.version(on.keyspace, key, Offset(on.offset))?;
            }
            Condition::Absent(on) => {
                let key = required("key", on.key, on.key_base64)?;
                draft.absent(on.keyspace, key)?;
            }
            Condition::Unchanged(on) => {
                let from = either("from", on.from, on.from_base64)?.unwrap_or_default();
                let to = either("to", on.to, on.to_base64)?.map(Cow::Owned);
                draft.unchanged(on.keyspace, from, to, Offset(on.since))?;
            }
        }
        Ok(())
    }
}

impl Op {
    fn add(self, draft: &mut Draft<'static>) -> Result<(), Problem> {
        match self {
            Op::Put(put) => {
                let key = required("key", put.key, put.key_base64)?;
                let value = required("value", put.value, put.value_base64)?;
                draft.put(put.keyspace, key, value)?;
            }
            Op::Delete(delete) => {
                let key = required("key", delete.key, delete.key_base64)?;
                draft.delete(delete.keyspace, key)?;
            }
            Op::DeleteRange(range) => {
                let from = either("from", range.from, range.from_base64)?.unwrap_or_default();
                let to = either("to", range.to, range.to_base64)?.map(Cow::Owned);
                draft.delete_range(range.keyspace, from, to)?;
            }
            Op::Append(append) => {
                let value = required("value", append.value, append.value_base64)?;
                draft.append(append.stream, value)?;
            }
            Op::Advance(advance) => {
                draft.advance(advance.stream, advance.cursor, Offset(advance.offset))?;
            }
        }
        Ok(())
    }
}

fn required(name: &str, text: Option<String>, encoded: Option<String>) -> Result<Vec<u8>, Problem> {
    either(name, text, encoded)?
        .ok_or_else(|| Problem::malformed(format!("{name} or {name}_base64 is missing")))
}

/// Reads the options of a keyspace; an empty body has the defaults.
///
/// # Errors
/// `Malformed`.
pub fn keyspace_options(body: &[u8]) -> Result<KeyspaceOptions, Problem> {
    #[derive(Default, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Body {
        compaction: Option<Strategy>,
        compression: Option<Codec>,
        max_bytes: u64,
        max_age_ms: u64,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Strategy {
        Levelled,
        WriteOptimised,
        Fifo,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Codec {
        None,
        Lz4,
    }
    let body: Body = read_or_default(body)?;
    Ok(KeyspaceOptions {
        compaction: match body.compaction {
            None => Compaction::default(),
            Some(Strategy::Levelled) => Compaction::Levelled,
            Some(Strategy::WriteOptimised) => Compaction::WriteOptimised,
            Some(Strategy::Fifo) => Compaction::Fifo,
        },
        compression: match body.compression {
            None => Compression::default(),
            Some(Codec::None) => Compression::None,
            Some(Codec::Lz4) => Compression::Lz4,
        },
        max_bytes: body.max_bytes,
        max_age_ms: body.max_age_ms,
    })
}

/// Reads the options of a stream; an empty body has the defaults.
///
/// # Errors
/// `Malformed`.
pub fn stream_options(body: &[u8]) -> Result<StreamOptions, Problem> {
    #[derive(Default, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Body {
        max_age_ms: u64,
        max_bytes: u64,
        max_records: u64,
    }
    let Body { max_age_ms, max_bytes, max_records } = read_or_default(body)?;
    Ok(StreamOptions { max_age_ms, max_bytes, max_records })
}

/// Reads a namespace to be made: `{"name":"…","history_ms":…,"history_bytes":…,"interval_ms":…}`.
///
/// # Errors
/// `Malformed`.
pub fn namespace(body: &[u8]) -> Result<(String, NamespaceOptions), Problem> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Body {
        name: String,
        #[serde(default)]
        history_ms: u64,
        #[serde(default)]
        history_bytes: u64,
        interval_ms: Option<u32>,
    }
    let Body { name, history_ms, history_bytes, interval_ms } = read(body)?;
    let durability = interval_ms.map_or(Durability::Quorum, Durability::IntervalMs);
    Ok((name, NamespaceOptions { history_ms, history_bytes, durability }))
}

/// Reads where a cursor is to stand: `{"offset": N}`.
///
/// # Errors
/// `Malformed`.
pub fn cursor(body: &[u8]) -> Result<Offset, Problem> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Body {
        offset: u64,
    }
    let Body { offset } = read(body)?;
    Ok(Offset(offset))
}

fn read_or_default<T: DeserializeOwned + Default>(body: &[u8]) -> Result<T, Problem> {
    if body.is_empty() { Ok(T::default()) } else { read(body) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    /// What a body says, or why it says nothing, with a line for each part.
    fn told(body: &str) -> String {
        match commit(body.as_bytes()) {
            Ok(CommitRequest { draft, identity }) => {
                let conditions = draft.conditions.iter().map(|condition| format!("{condition:?}"));
                let ops = draft.ops.iter().map(|op| format!("{op:?}"));
                let head = [format!("{identity:?}"), format!("{:?}", draft.names)];
                head.into_iter().chain(conditions).chain(ops).collect::<Vec<_>>().join("\n")
            }
            Err(problem) => {
                assert!(["malformed", "bad_name"].contains(&problem.code()));
                let body = problem.to_json();
                let detail = body["detail"].as_str().unwrap();
                detail.replace(", expected", "\n  expected").replace(" at line", "\n  at line")
            }
        }
    }

    #[test]
    fn a_commit_becomes_a_draft() {
        let body = r#"{
            "session": "4294967296", "seq": 7,
            "if": [
                {"version": {"keyspace": "acct", "key": "a", "offset": 812}},
                {"absent": {"keyspace": "acct", "key_base64": "AP8="}},
                {"unchanged": {"keyspace": "acct", "from": "a", "since": 5}}
            ],
            "do": [
                {"put": {"keyspace": "acct", "key": "a", "value": "90"}},
                {"delete": {"keyspace": "acct", "key": "b"}},
                {"delete_range": {"keyspace": "acct", "from": "c", "to_base64": "/w=="}},
                {"append": {"stream": "ledger", "value_base64": ""}},
                {"advance": {"stream": "ledger", "cursor": "billing", "offset": 4096}}
            ]
        }"#;
        expect![[r#"
            Some((SessionId(4294967296), Sequence(7)))
            ["acct", "ledger", "billing"]
            Version { space: 0, key: [97], offset: Offset(812) }
            Absent { space: 0, key: [0, 255] }
            Unchanged { space: 0, from: [97], to: None, since: Offset(5) }
            Put { space: 0, key: [97], value: [57, 48] }
            Delete { space: 0, key: [98] }
            DeleteRange { space: 0, from: [99], to: Some([255]) }
            Append { space: 1, value: [] }
            Advance { space: 1, cursor: 2, offset: Offset(4096) }"#]]
        .assert_eq(&told(body));
        expect![[r#"
            None
            []"#]]
        .assert_eq(&told("{}"));
    }

    #[test]
    fn what_is_no_commit_is_refused() {
        let bodies = [
            "",
            "[null, null, [], []]",
            r#"{"d": []}"#,
            r#"{"seq": 7}"#,
            r#"{"session": "x", "seq": 7}"#,
            r#"{"do": [{"enqueue": {"queue": "q", "value": "v"}}]}"#,
            r#"{"do": [{"put": {"keyspace": "k", "key": "a"}}]}"#,
            r#"{"do": [{"delete": {"keyspace": "k", "key": "a", "key_base64": ""}}]}"#,
            r#"{"do": [{"delete": {"keyspace": "k", "key_base64": "?"}}]}"#,
            r#"{"do": [{"delete": {"keyspace": "k", "key": "a", "ttl": 1}}]}"#,
            r#"{"do": [{"delete": {"keyspace": "a/b", "key": "a"}}]}"#,
            "{\"do\": [{\"delete\": {\"keyspace\": \"\u{0}\", \"key\": \"a\"}}]}",
        ];
        let told: Vec<String> = bodies.iter().map(|body| told(body)).collect();
        let told = told.join("\n");
        expect![[r#"
            bad JSON: the body is no object: {…}
            bad JSON: the body is no object: {…}
            bad JSON: unknown field `d`
              expected one of `session`, `seq`, `if`, `do`
              at line 1 column 4
            give session and seq, or neither
            session="x" is no decimal number
            bad JSON: unknown variant `enqueue`
              expected one of `put`, `delete`, `delete_range`, `append`, `advance`
              at line 1 column 18
            value or value_base64 is missing
            give key or key_base64, not both
            bad base64: Invalid symbol 63, offset 0.
            bad JSON: unknown field `ttl`
              expected one of `keyspace`, `key`, `key_base64`
              at line 1 column 54
            the name "a/b" has the character '/', which names can't have
            bad JSON: control character (\u0000-\u001F) found while parsing a string
              at line 1 column 34"#]]
        .assert_eq(&told);
        let not_text = commit(b"{\"session\": \"\xff\"}").unwrap_err();
        assert_eq!(not_text.code(), "malformed");
    }

    #[test]
    fn options_are_read() {
        let keyspace = br#"{"compaction": "fifo", "compression": "none", "max_bytes": 5}"#;
        let options = keyspace_options(keyspace).unwrap();
        assert_eq!(
            (options.compaction, options.compression),
            (Compaction::Fifo, Compression::None)
        );
        assert_eq!((options.max_bytes, options.max_age_ms), (5, 0));
        assert_eq!(keyspace_options(b"").unwrap(), KeyspaceOptions::default());
        assert_eq!(keyspace_options(b"{}").unwrap(), KeyspaceOptions::default());
        assert!(keyspace_options(br#"{"compaction": "levelled", "x": 1}"#).is_err());
        assert!(keyspace_options(br#"{"compaction": "tiered"}"#).is_err());
        assert_eq!(stream_options(br#"{"max_records": 9}"#).unwrap().max_records, 9);
        assert!(stream_options(br#"{"max_records": -9}"#).is_err());
        let (name, options) = namespace(br#"{"name": "shop", "interval_ms": 5}"#).unwrap();
        assert_eq!((name.as_str(), options.durability), ("shop", Durability::IntervalMs(5)));
        assert!(namespace(b"{}").is_err());
        assert_eq!(cursor(br#"{"offset": 18446744073709551615}"#).unwrap(), Offset::MAX);
        assert!(cursor(br#"{"offset": "5"}"#).is_err());
    }
}
