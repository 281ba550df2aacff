//! Stories as scripts: commands, `---`, what was observed. One file a story in `tests/scripts/`.
//!
//! An offset is written `@n` for the n-th frame of the log, `@n+b` for b bytes into it; `as=x`
//! before the ops of a commit calls its offset `@x`. After a change that is meant, `UPDATE_EXPECT=1
//! cargo test -p naust-machine --test scripts` writes what is observed; the diff is the review.

#![allow(clippy::unwrap_used)]

mod support;

use naust_machine::{KeyRange, Machine, MachineOptions, MemTables, Page, ReadError, Tables};
use naust_wire::commit::Draft;
use naust_wire::control::{Control, Floor, Floored};
use naust_wire::limits::PAGE_ROWS_MAX;
use naust_wire::message::Refusal;
use naust_wire::options::{
    Compaction, Compression, KeyspaceOptions, NamespaceOptions, StreamOptions,
};
use naust_wire::read::Named;
use naust_wire::reply::Reply;
use naust_wire::{Numbers, Offset, Sequence, SessionId, ShardId};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use support::{Log, Logged, Outcome, crash, open, open_with, work};

struct Story {
    log: Log,
    machine: Machine<MemTables>,
    sessions: BTreeMap<String, SessionId>,
    hold: Option<naust_machine::Hold>,
    labels: BTreeMap<String, Offset>,
    options: MachineOptions,
}

/// The words of a command: plain ones, and `name=value` pairs.
struct Words<'a> {
    plain: Vec<&'a str>,
    pairs: BTreeMap<&'a str, &'a str>,
}

impl<'a> Words<'a> {
    fn of(line: &'a str) -> Words<'a> {
        let (pairs, plain): (Vec<_>, Vec<_>) =
            line.split_whitespace().partition(|word| word.contains('='));
        let pairs = pairs.into_iter().filter_map(|pair| pair.split_once('=')).collect();
        Words { plain, pairs }
    }

    fn number(&self, name: &str) -> u64 {
        self.pairs.get(name).map_or(0, |value| value.parse().unwrap())
    }
}

fn range(word: &str) -> (&str, Option<&str>) {
    let (from, to) = word.split_once("..").unwrap();
    (from, (!to.is_empty()).then_some(to))
}

impl Story {
    fn new() -> Story {
        let log = Log::default();
        let machine = open(MemTables::new(), ShardId(0), &log);
        Story {
            log,
            machine,
            sessions: BTreeMap::new(),
            hold: None,
            labels: BTreeMap::new(),
            options: support::options(),
        }
    }

    /// `@n`, `@n+b`, `@end`, or a bare number.
    fn offset(&self, word: &str) -> Offset {
        let Some(word) = word.strip_prefix('@') else { return Offset(word.parse().unwrap()) };
        if word == "end" {
            return self.log.next;
        }
        let (frame, bytes) = word.split_once('+').unwrap_or((word, "0"));
        let base = match self.labels.get(frame) {
            Some(offset) => *offset,
            None => self.log.frames[frame.parse::<usize>().unwrap() - 1].header.offset,
        };
        base.plus(bytes.parse().unwrap())
    }

    fn show(&self, offset: Offset) -> String {
        if offset == self.log.next {
            return "@end".into();
        }
        let frames = &self.log.frames;
        let at = frames.partition_point(|frame| frame.header.offset <= offset);
        match at.checked_sub(1).map(|at| frames[at].header.offset) {
            None => format!("{offset}"),
            Some(base) if base == offset => format!("@{at}"),
            Some(base) => format!("@{at}+{}", offset.0 - base.0),
        }
    }

    fn run(&mut self, line: &str) -> String {
        let words = Words::of(line);
        if let Some(label) = words.pairs.get("as") {
            self.labels.insert(label.trim_end_matches(';').into(), self.log.next);
        }
        let plain = &words.plain[..];
        match plain[0].trim_end_matches(';') {
            "commit" => self.commit(line),
            "session" | "close" | "keyspace" | "stream" | "floor" | "namespace"
            | "drop-namespace" | "close-namespace" | "forget" | "end" => self.control(&words),
            "time" => {
                self.log.time.0 += plain[1].parse::<u64>().unwrap();
                String::new()
            }
            "jump" => {
                self.log.next = self.log.next.plus(plain[1].parse().unwrap());
                String::new()
            }
            "get" | "scan" | "hold" | "release" => self.read(&words),
            "records" | "cursor" | "describe" | "needed" | "live" => self.ask(&words),
            "floors-due" => self.floors_due(),
            _ => self.upkeep(&words),
        }
    }

    fn apply(&mut self, logged: &Logged) -> String {
        let outcome: Outcome = self.machine.apply(&logged.frame()).unwrap().into();
        match outcome {
            Outcome::Nothing => "nothing".into(),
            Outcome::Committed { offset, ids, ranges, duplicate } => {
                let mut out = format!("committed {}", self.show(offset));
                for id in ids {
                    write!(out, " id {}", self.show(id)).unwrap();
                }
                for range in ranges {
                    write!(out, " deleted {}", range.deleted).unwrap();
                    if let Some(next) = range.next {
                        write!(out, " next {}", String::from_utf8_lossy(&next)).unwrap();
                    }
                }
                if duplicate { out + " again" } else { out }
            }
            Outcome::Refused(refused) => format!(
                "refused: condition {} at {} found {}",
                refused.condition,
                self.show(refused.at),
                self.show(refused.found)
            ),
            Outcome::Failed(refusal) => self.refusal(&refusal),
            Outcome::Session(id) => format!("session {}", self.show(Offset(id.0))),
            Outcome::Done(offset) => format!("done {}", self.show(offset)),
            Outcome::Directory(offset, change) => format!("{} {change:?}", self.show(offset)),
        }
    }

    /// Sentences name bare offsets, which say nothing here; their codes do.
    fn refusal(&self, refusal: &Refusal) -> String {
        let quiet = refusal.detail.chars().any(|c| c.is_ascii_digit());
        let detail = if quiet { "" } else { &refusal.detail };
        format!("failed: {}: {detail}", refusal.code).trim_end_matches(": ").into()
    }

    fn commit(&mut self, line: &str) -> String {
        let mut draft = Draft::default();
        let mut parts = line.split(';');
        let head = Words::of(parts.next().unwrap());
        for part in parts {
            self.op(part, &mut draft);
        }
        let session = head.pairs.get("session").map(|name| self.sessions[*name]);
        let at = (head.number("seq"), head.number("acked"));
        let logged = self.log.commit(&draft, session.unwrap_or(SessionId::NONE), at);
        self.apply(&logged)
    }

    fn op<'a>(&self, part: &'a str, draft: &mut Draft<'a>) {
        let words: Vec<&str> = part.split_whitespace().collect();
        match words[..] {
            ["put", space, key] => draft.put(space, key.as_bytes(), &b""[..]),
            ["put", space, key, value] => draft.put(space, key.as_bytes(), value.as_bytes()),
            ["fill", space, first, end] => {
                for n in first.parse::<u32>().unwrap()..end.parse().unwrap() {
                    draft.put(space, format!("k{n:05}").into_bytes(), &b"v"[..]).unwrap();
                }
                Ok(())
            }
            ["delete", space, key] => draft.delete(space, key.as_bytes()),
            ["delete-range", space, keys] => {
                let (from, to) = range(keys);
                draft.delete_range(space, from.as_bytes(), to.map(|to| to.as_bytes().into()))
            }
            ["append", stream] => draft.append(stream, &b""[..]),
            ["append", stream, value] => draft.append(stream, value.as_bytes()),
            ["advance", stream, cursor, to] => draft.advance(stream, cursor, self.offset(to)),
            ["if", "version", space, key, of] => {
                draft.version(space, key.as_bytes(), self.offset(of))
            }
            ["if", "absent", space, key] => draft.absent(space, key.as_bytes()),
            ["if", "unchanged", space, keys, since] => {
                let ((from, to), since) = (range(keys), self.offset(since));
                draft.unchanged(space, from.as_bytes(), to.map(|to| to.as_bytes().into()), since)
            }
            _ => panic!("no such op: {part}"),
        }
        .unwrap();
    }

    fn control(&mut self, words: &Words<'_>) -> String {
        let name = words.plain.get(1).copied().unwrap_or_default();
        let control = match words.plain[..] {
            ["session", _] => Control::OpenSession { ttl_ms: words.number("ttl"), nonce: 0 },
            ["close", _] => Control::CloseSession(self.sessions[name]),
            ["keyspace", _, ..] => {
                let compaction = match words.plain.get(2) {
                    Some(&"fifo") => Compaction::Fifo,
                    Some(&"write-optimised") => Compaction::WriteOptimised,
                    _ => Compaction::Levelled,
                };
                let options = KeyspaceOptions {
                    compaction,
                    compression: Compression::Lz4,
                    max_bytes: words.number("bytes"),
                    max_age_ms: words.number("age"),
                };
                Control::SetKeyspace { name: name.into(), options }
            }
            ["stream", _] => {
                let options = StreamOptions {
                    max_age_ms: words.number("age"),
                    max_bytes: words.number("bytes"),
                    max_records: words.number("records"),
                };
                Control::SetStream { name: name.into(), options }
            }
            ["floor", kind, of, at] => {
                let of = match kind {
                    "stream" => Floored::Stream(of.into()),
                    _ => Floored::Keyspace(of.into()),
                };
                Control::Floors(vec![Floor { of, offset: self.offset(at) }])
            }
            ["namespace", _] => {
                let options = NamespaceOptions::default();
                Control::CreateNamespace { name: name.into(), options }
            }
            ["drop-namespace", _] => Control::DeleteNamespace(name.into()),
            ["close-namespace", _] => Control::CloseNamespace(name.into()),
            ["forget", shard] => Control::ForgetNamespace(ShardId(shard.parse().unwrap())),
            ["end"] => Control::Close,
            _ => panic!("no such control entry"),
        };
        let numbers = Numbers {
            session: words.pairs.get("session").map_or(SessionId::NONE, |s| self.sessions[*s]),
            sequence: Sequence(words.number("seq")),
            acked_below: Sequence(words.number("acked")),
        };
        let logged = self.log.control_of(&control, &numbers);
        if words.plain[0] == "session" {
            self.sessions.insert(name.into(), SessionId(logged.header.offset.0));
        }
        self.apply(&logged)
    }

    fn failure(&self, error: &ReadError) -> String {
        match error {
            ReadError::Refused(refusal) => self.refusal(refusal),
            other => format!("fault: {other}"),
        }
    }

    fn read(&mut self, words: &Words<'_>) -> String {
        let reader = self.machine.reader();
        let at = words.plain.iter().skip(1).find(|word| word.starts_with('@'));
        let at = at.map_or(reader.applied(), |word| self.offset(word));
        match words.plain[..] {
            ["get", space, key, ..] => match reader.get(space, key.as_bytes(), at) {
                Ok(None) => "absent".into(),
                Ok(Some((version, value))) => {
                    format!("{} {}", self.show(version), String::from_utf8_lossy(&value))
                }
                Err(error) => self.failure(&error),
            },
            ["scan", space, keys, ..] => {
                let (from, to) = range(keys);
                let range = KeyRange { from: from.as_bytes(), to: to.map(str::as_bytes) };
                let limit = match words.number("limit") {
                    0 => usize::MAX,
                    limit => limit as usize,
                };
                let reverse = words.plain.contains(&"reverse");
                let page = Page { reverse, limit, max_bytes: usize::MAX };
                let mut rows = Vec::new();
                let next = reader.scan(space, range, page, at, |key, version, value| {
                    let (key, value) =
                        (String::from_utf8_lossy(key), String::from_utf8_lossy(value));
                    rows.push(format!("{key}={value}{}", self.show(version)));
                });
                match next {
                    Ok(None) => rows.join(" "),
                    Ok(Some(next)) => {
                        format!("{} next {}", rows.join(" "), String::from_utf8_lossy(&next))
                    }
                    Err(error) => self.failure(&error),
                }
            }
            ["hold", ..] => match reader.hold(at) {
                Ok(hold) => {
                    self.hold = Some(hold);
                    "held".into()
                }
                Err(refusal) => self.refusal(&refusal),
            },
            _ => {
                self.hold = None;
                String::new()
            }
        }
    }

    fn ask(&mut self, words: &Words<'_>) -> String {
        match words.plain[..] {
            ["records", stream, from] => {
                let limit = words.number("limit").max(1) as usize;
                match self.machine.locate(stream, self.offset(from), limit, usize::MAX) {
                    Ok(located) => {
                        let mut out = String::new();
                        for place in located.places {
                            write!(out, "{}:{} ", self.show(place.offset), place.length).unwrap();
                        }
                        out + &format!("next {}", self.show(located.next))
                    }
                    Err(error) => self.failure(&error),
                }
            }
            ["cursor", stream, cursor] => match self.machine.cursor(stream, cursor) {
                Ok(None) => "none".into(),
                Ok(Some(offset)) => self.show(offset),
                Err(refusal) => self.refusal(&refusal),
            },
            ["live", from, to] => {
                let live = self.machine.live_in(self.offset(from), self.offset(to)).unwrap();
                let live =
                    live.iter().map(|r| format!("{}:{}", self.show(r.start), r.end.0 - r.start.0));
                live.collect::<Vec<_>>().join(" ")
            }
            ["needed"] => {
                let needed = self.machine.log_needed();
                let records = needed.records_from.map_or("none".into(), |from| self.show(from));
                format!("tables from {} records from {records}", self.show(needed.persisted))
            }
            _ => self.describe(words),
        }
    }

    fn describe(&self, words: &Words<'_>) -> String {
        let from = words.pairs.get("from").map(|from| match from.split_once('/').unwrap() {
            ("kv", name) => Named::Keyspace(name.into()),
            (_, name) => Named::Stream(name.into()),
        });
        let limit = match words.number("limit") {
            0 => PAGE_ROWS_MAX,
            limit => limit as usize,
        };
        let (keyspaces, streams, next) = match self.machine.describe(from.as_ref(), limit) {
            Ok(Reply::Described { keyspaces, streams, next, .. }) => (keyspaces, streams, next),
            Ok(_) => panic!("a description describes"),
            Err(refusal) => return self.refusal(&refusal),
        };
        let mut out = Vec::new();
        for keyspace in keyspaces {
            let (name, floor) = (keyspace.name, self.show(keyspace.floor));
            out.push(format!("keyspace {name} {:?} floor {floor}", keyspace.options.compaction));
        }
        for stream in streams {
            let cursors = stream.cursors.iter();
            let cursors = cursors.map(|(name, at)| format!(" {name}={}", self.show(*at)));
            out.push(format!(
                "stream {} records {} bytes {} first {}{}",
                stream.name,
                stream.records,
                stream.bytes,
                self.show(stream.first),
                cursors.collect::<String>()
            ));
        }
        if let Some(next) = next {
            out.push(format!("next {next:?}"));
        }
        out.join("\n")
    }

    fn floors_due(&mut self) -> String {
        let floors = self.machine.floors_due(self.log.time).unwrap();
        if floors.is_empty() {
            return if self.machine.ages() { "nothing yet".into() } else { "nothing".into() };
        }
        let shown: Vec<String> =
            floors.iter().map(|f| format!("{:?} {}", f.of, self.show(f.offset))).collect();
        let logged = self.log.control(&Control::Floors(floors));
        shown.join(" ") + " " + &self.apply(&logged)
    }

    fn upkeep(&mut self, words: &Words<'_>) -> String {
        match words.plain[..] {
            ["rotate"] => {
                self.machine.flush();
                // The first piece of work is handed out, and lost.
                drop(self.machine.maintain().unwrap());
                String::new()
            }
            ["flush"] => {
                self.machine.flush();
                work(&mut self.machine, usize::MAX);
                format!("flushed: {}", self.machine.is_flushed())
            }
            ["flush", jobs] => {
                self.machine.flush();
                work(&mut self.machine, jobs.parse().unwrap());
                self.marks()
            }
            ["options"] => {
                self.options = MachineOptions {
                    memtable_bytes: words.number("memtables"),
                    history_ms: words.number("history"),
                    ..support::options()
                };
                self.machine.set_options(self.options);
                String::new()
            }
            ["work", jobs] => {
                work(&mut self.machine, jobs.parse().unwrap());
                self.marks()
            }
            ["shard", number] => {
                let shard = ShardId(number.parse().unwrap());
                self.machine = open(MemTables::new(), shard, &self.log);
                String::new()
            }
            ["crash"] => {
                let before = self.machine.digest().unwrap();
                let log = self.log.trimmed(self.machine.persisted());
                let tables = crash(&self.machine);
                self.machine = open_with(tables, self.machine.shard(), &log, self.options);
                let same = self.machine.digest().unwrap() == before;
                if same { "the same".into() } else { "DIFFERENT".into() }
            }
            ["marks"] => self.marks(),
            _ => panic!("no such command: {:?}", words.plain),
        }
    }

    fn marks(&self) -> String {
        let tables = self.machine.tables();
        let marks = tables.trees().into_iter().map(|tree| {
            let mark = tables.mark(tree).applied;
            format!(
                "tree {} {}",
                tree.0,
                if mark == Offset::ZERO { "-".into() } else { self.show(mark) }
            )
        });
        marks.collect::<Vec<_>>().join(", ")
    }
}

/// Runs a script and returns it with what was observed.
fn observed(script: &str) -> String {
    let (mut story, mut out) = (Story::new(), String::new());
    let mut answers: Vec<String> = Vec::new();
    let mut expecting = false;
    for line in script.lines().chain([""]) {
        match line {
            "" => {
                if !answers.is_empty() {
                    writeln!(out, "---\n{}", answers.join("\n")).unwrap();
                    answers.clear();
                }
                out.push('\n');
                expecting = false;
            }
            "---" => expecting = true,
            _ if expecting => {}
            line => {
                writeln!(out, "{line}").unwrap();
                if !line.starts_with('#') {
                    let answer = story.run(line);
                    answers.push(if answer.is_empty() { "ok".into() } else { answer });
                }
            }
        }
    }
    out.trim_end().to_owned() + "\n"
}

#[test]
#[allow(clippy::disallowed_methods)]
fn stories_are_told_as_they_are_written() {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/scripts");
    let mut stories = 0;
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let written = std::fs::read_to_string(&path).unwrap();
        let observed = observed(&written);
        if std::env::var("UPDATE_EXPECT").is_ok() {
            std::fs::write(&path, &observed).unwrap();
        } else {
            assert_eq!(written, observed, "{}", path.display());
        }
        stories += 1;
    }
    assert!(stories >= 8, "the scripts are missing");
}
