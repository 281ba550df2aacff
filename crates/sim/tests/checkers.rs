//! A checker that can't fail proves nothing: each is shown a history that is right, and then the
//! same history with one lie in it, and must tell them apart.

#![allow(clippy::unwrap_used)]

use naust_sim::checkers::{Case, Excuses};
use naust_sim::chronicle::Chronicle;
use naust_sim::history::{Answer, Asked, Request};
use naust_sim::model::{Model, Verdict};
use naust_sim::schedule::Moment;
use naust_wire::commit::Draft;
use naust_wire::control::Control;
use naust_wire::frame::{Header, Kind};
use naust_wire::options::{KeyspaceOptions, NamespaceOptions};
use naust_wire::read::{Level, Query, Read};
use naust_wire::reply::{self, Committed, Entry, Failure, Record, Refused, Reply, ViewDigest};
use naust_wire::{Code, Index, LogTime, Offset, Sequence, SessionId, ShardId, Term};

const SEGMENT_BYTES: u64 = 1 << 16;

/// A shard's log and what its clients asked, as far as a test has told it.
struct Story {
    log: Vec<u8>,
    offsets: Vec<Offset>,
    crc: u32,
    requests: Vec<Request>,
}

impl Story {
    fn new() -> Story {
        Story { log: Vec::new(), offsets: Vec::new(), crc: 0, requests: Vec::new() }
    }

    fn frame(&mut self, kind: Kind, body: &[u8]) -> Offset {
        let offset = Offset::FIRST.plus(self.log.len() as u64);
        let header = Header {
            kind,
            body_bytes: body.len() as u32,
            crc_before: self.crc,
            term: Term(1),
            index: Index(self.offsets.len() as u64 + 1),
            offset,
            time: LogTime(self.offsets.len() as u64),
            synced: Offset(0),
        };
        self.crc = header.write(body, &mut self.log);
        self.offsets.push(offset);
        offset
    }

    fn ask(&mut self, asked: Asked, reply: Reply) -> usize {
        let frontier = self.offsets.last().copied().unwrap_or_default();
        self.requests.push(Request {
            client: 0,
            shard: ShardId(1),
            asked,
            line: 1,
            here: true,
            sent: Moment(1),
            frontier,
            answer: Answer::Reply(reply),
            answered: Moment(2),
            ceiling: frontier,
            answers: 1,
        });
        self.requests.len() - 1
    }

    fn commit(&mut self, body: &[u8], reply: impl FnOnce(Offset) -> Reply) -> usize {
        let before = self.offsets.last().copied().unwrap_or_default();
        let offset = self.frame(Kind::Commit, body);
        let number = self.ask(Asked::Commit(body.into()), reply(offset));
        self.requests[number].frontier = before;
        number
    }

    /// The names of the checkers that object.
    fn judge(&self) -> Vec<&'static str> {
        let mut chronicle = Chronicle::new(SEGMENT_BYTES);
        chronicle.learn(Offset::FIRST, &self.log).unwrap();
        let mut model = Model::default();
        for entry in chronicle.from(Offset::ZERO) {
            model.fold(entry).unwrap();
        }
        let case = Case {
            shard: ShardId(1),
            options: NamespaceOptions::default(),
            chronicle: &chronicle,
            model: &model,
            requests: &self.requests.iter().collect::<Vec<_>>(),
            removed: None,
            patience: Moment(0),
            excuses: Excuses::default(),
        };
        let judged = case.judge();
        judged.iter().for_each(|violation| eprintln!("{violation:?}"));
        let mut objections: Vec<_> = judged.into_iter().map(|v| v.checker).collect();
        objections.dedup();
        objections
    }

    fn reply(&mut self, number: usize) -> &mut Reply {
        let Answer::Reply(reply) = &mut self.requests[number].answer else { panic!("no reply") };
        reply
    }
}

fn body(session: SessionId, sequence: u64, draft: &Draft<'_>) -> Vec<u8> {
    let mut body = Vec::new();
    draft.encode(session, Sequence(sequence), Sequence(0), &mut body).unwrap();
    body
}

fn put(key: &str, value: &str) -> Draft<'static> {
    let mut draft = Draft::default();
    let (key, value) = (key.as_bytes().to_vec(), value.as_bytes().to_vec());
    draft.put("rows", key, value).unwrap();
    draft
}

fn committed(offset: Offset) -> Reply {
    Reply::Committed(Committed { offset, ..Committed::default() })
}

fn read(query: Query) -> Asked {
    Asked::Read(Read { level: Level::Linearizable, query })
}

fn get(key: &str) -> Asked {
    read(Query::Get { keyspace: "rows".into(), key: key.into() })
}

fn scan() -> Asked {
    let (from, to) = (Vec::new(), None);
    let keyspace = "rows".into();
    read(Query::Scan { keyspace, from, to, reverse: false, limit: 0, max_bytes: 0 })
}

fn entry(key: &str, value: &str, offset: Offset) -> Entry {
    Entry { key: key.into(), value: value.into(), offset }
}

/// Two puts, both acknowledged; the numbers of their requests and their offsets.
fn two_puts() -> (Story, [Offset; 2]) {
    let mut story = Story::new();
    story.commit(&body(SessionId::NONE, 0, &put("a", "1")), committed);
    story.commit(&body(SessionId::NONE, 0, &put("b", "2")), committed);
    assert_eq!(story.judge(), [""; 0]);
    let offsets = [story.offsets[0], story.offsets[1]];
    (story, offsets)
}

#[test]
fn a_commit_that_was_acknowledged_and_lost_is_missed() {
    let (mut story, [_, second]) = two_puts();
    let lost = body(SessionId::NONE, 0, &put("c", "3"));
    story.ask(Asked::Commit(lost.into()), committed(second.plus(800)));
    assert_eq!(story.judge(), ["commits"]);
}

#[test]
fn a_commit_that_nobody_sent_is_seen() {
    let (mut story, _) = two_puts();
    story.frame(Kind::Commit, &body(SessionId::NONE, 0, &put("x", "y")));
    assert_eq!(story.judge(), ["commits"]);
}

#[test]
fn a_commit_that_was_answered_as_not_done_but_was_done_is_seen() {
    let (mut story, _) = two_puts();
    let full = |_| Reply::Error(Failure::new(Code::Overloaded, "full"));
    story.commit(&body(SessionId::NONE, 0, &put("c", "3")), full);
    assert_eq!(story.judge(), ["commits"]);
}

#[test]
fn a_commit_with_other_record_ids_than_it_was_told_is_seen() {
    let mut story = Story::new();
    let mut draft = Draft::default();
    draft.append("events", b"something".to_vec()).unwrap();
    let body = body(SessionId::NONE, 0, &draft);
    let number = story.commit(&body, committed);
    assert_eq!(story.judge(), ["commits"]);
    let position = body.windows(9).position(|window| window == b"something").unwrap() as u64;
    let offset = story.offsets[0];
    let id = offset.plus(56 + position);
    *story.reply(number) =
        Reply::Committed(Committed { offset, ids: vec![id], ..Committed::default() });
    assert_eq!(story.judge(), [""; 0]);
}

#[test]
fn a_retry_that_was_acknowledged_as_new_is_seen() {
    let mut story = Story::new();
    let mut control = Vec::new();
    Control::OpenSession { ttl_ms: 0, nonce: 1 }.encode(&mut control);
    let session = SessionId::opened(story.frame(Kind::Control, &control), 1);
    let body = body(session, 1, &put("a", "1"));
    story.commit(&body, committed);
    let first = *story.offsets.last().unwrap();
    let again = Committed { offset: first, duplicate: true, ..Committed::default() };
    let number = story.commit(&body, |_| Reply::Committed(again.clone()));
    assert_eq!(story.judge(), [""; 0]);
    *story.reply(number) = Reply::Committed(Committed { duplicate: false, ..again });
    assert_ne!(story.judge(), [""; 0]);
}

#[test]
fn a_row_of_another_value_version_or_moment_is_seen() {
    let (mut story, [first, second]) = two_puts();
    let right = Reply::Row { at: second, row: Some((first, b"1".to_vec())) };
    let number = story.ask(get("a"), right.clone());
    assert_eq!(story.judge(), [""; 0]);
    for (lie, checker) in [
        (Reply::Row { at: second, row: Some((first, b"2".to_vec())) }, "rows"),
        (Reply::Row { at: second, row: Some((second, b"1".to_vec())) }, "rows"),
        (Reply::Row { at: second, row: None }, "rows"),
        (Reply::Row { at: first, row: Some((first, b"1".to_vec())) }, "freshness"),
        (Reply::Row { at: second.plus(4096), row: Some((first, b"1".to_vec())) }, "freshness"),
        (Reply::Cursor(None), "replies"),
    ] {
        *story.reply(number) = lie.clone();
        assert_eq!(story.judge().first(), Some(&checker), "{lie:?}");
    }
}

#[test]
fn a_page_that_loses_repeats_or_invents_a_row_is_seen() {
    let (mut story, [first, second]) = two_puts();
    let (a, b) = (entry("a", "1", first), entry("b", "2", second));
    let page = |entries: &[&Entry], next: Option<&str>| Reply::Rows {
        at: second,
        entries: entries.iter().map(|entry| (*entry).clone()).collect(),
        next: next.map(|next| next.as_bytes().to_vec()),
    };
    let number = story.ask(scan(), page(&[&a, &b], None));
    for right in [page(&[&a, &b], None), page(&[&a], Some("b")), page(&[&a], Some("a\0"))] {
        *story.reply(number) = right;
        assert_eq!(story.judge(), [""; 0]);
    }
    let invented = entry("aa", "9", second);
    for lie in [
        page(&[&a], None),
        page(&[&b], None),
        page(&[&b, &a], None),
        page(&[&a, &a, &b], None),
        page(&[&a, &invented, &b], None),
        page(&[&a, &b, &invented], None),
        page(&[&a], Some("a")),
        page(&[&a], Some("c")),
    ] {
        *story.reply(number) = lie.clone();
        assert!(story.judge().contains(&"rows"), "{lie:?}");
    }
}

#[test]
fn a_stream_with_a_gap_a_repetition_or_a_stranger_is_seen() {
    let mut story = Story::new();
    let mut records = Vec::new();
    for value in ["one.....", "two.....", "three..."] {
        let mut draft = Draft::default();
        draft.append("events", value.as_bytes().to_vec()).unwrap();
        let body = body(SessionId::NONE, 0, &draft);
        let position = body.windows(8).position(|window| window == value.as_bytes()).unwrap();
        let number = story.commit(&body, committed);
        let offset = *story.offsets.last().unwrap();
        let id = offset.plus(56 + position as u64);
        records.push(Record { offset: id, value: value.into() });
        *story.reply(number) =
            Reply::Committed(Committed { offset, ids: vec![id], ..Committed::default() });
    }
    let end = Offset::FIRST.plus(story.log.len() as u64);
    let page = |numbers: &[usize], next: Offset, end: Offset| Reply::Records {
        records: numbers.iter().map(|number| records[*number].clone()).collect(),
        next,
        end,
    };
    let (stream, from) = ("events".into(), Offset::ZERO);
    let query = Query::Records { stream, from, limit: 0, max_bytes: 0, wait_ms: 0 };
    let number = story.ask(read(query), page(&[0, 1, 2], end, end));
    let second = Offset(records[1].offset.0);
    for right in [page(&[0, 1, 2], end, end), page(&[0], second, end)] {
        *story.reply(number) = right;
        assert_eq!(story.judge(), [""; 0]);
    }
    let mut stranger = page(&[0, 1, 2], end, end);
    if let Reply::Records { records, .. } = &mut stranger {
        records[1].value[0] ^= 1;
    }
    for lie in [
        page(&[0, 2], end, end),
        page(&[0, 0, 1, 2], end, end),
        page(&[1, 0, 2], end, end),
        page(&[0], end, end),
        page(&[0], second, second),
        page(&[0, 1], second, end),
        stranger,
    ] {
        *story.reply(number) = lie.clone();
        assert_eq!(story.judge(), ["records"], "{lie:?}");
    }
}

#[test]
fn a_cursor_that_stands_elsewhere_is_seen() {
    let mut story = Story::new();
    let mut draft = Draft::default();
    draft.append("events", b"something".to_vec()).unwrap();
    draft.advance("events", "billing", Offset(7)).unwrap();
    let body = body(SessionId::NONE, 0, &draft);
    let position = body.windows(9).position(|window| window == b"something").unwrap() as u64;
    story.commit(&body, |offset| {
        let ids = vec![offset.plus(56 + position)];
        Reply::Committed(Committed { offset, ids, ..Committed::default() })
    });
    let query = Query::Cursor { stream: "events".into(), cursor: "billing".into() };
    let number = story.ask(read(query), Reply::Cursor(Some(Offset(7))));
    assert_eq!(story.judge(), [""; 0]);
    for lie in [Reply::Cursor(Some(Offset(8))), Reply::Cursor(None)] {
        *story.reply(number) = lie;
        assert_eq!(story.judge(), ["records"]);
    }
}

#[test]
fn a_description_that_counts_wrongly_is_seen() {
    let (mut story, [first, second]) = two_puts();
    let keyspace = reply::Keyspace {
        name: "rows".into(),
        options: KeyspaceOptions::default(),
        rows_estimate: 2,
        bytes: 0,
        floor: Offset::ZERO,
    };
    let described = |keyspaces: Vec<reply::Keyspace>, at| Reply::Described {
        at,
        floor: Offset::ZERO,
        keyspaces,
        streams: Vec::new(),
        next: None,
    };
    let describe = read(Query::Describe { from: None, limit: 0 });
    let number = story.ask(describe, described(vec![keyspace.clone()], second));
    assert_eq!(story.judge(), [""; 0]);
    let floored = reply::Keyspace { floor: first, ..keyspace.clone() };
    for lie in [vec![], vec![floored], vec![keyspace.clone(), keyspace]] {
        *story.reply(number) = described(lie, second);
        assert_eq!(story.judge(), ["described"]);
    }
}

#[test]
fn a_stream_that_is_denied_is_seen() {
    let mut story = Story::new();
    let mut draft = Draft::default();
    draft.append("events", b"something".to_vec()).unwrap();
    let body = body(SessionId::NONE, 0, &draft);
    let position = body.windows(9).position(|window| window == b"something").unwrap() as u64;
    story.commit(&body, |offset| {
        let ids = vec![offset.plus(56 + position)];
        Reply::Committed(Committed { offset, ids, ..Committed::default() })
    });
    let query = |stream: &str| Query::Cursor { stream: stream.into(), cursor: "c".into() };
    let denied = || Reply::Error(Failure::new(Code::StreamNotFound, "none"));
    story.ask(read(query("others")), denied());
    assert_eq!(story.judge(), [""; 0]);
    story.ask(read(query("events")), denied());
    assert_eq!(story.judge(), ["records"]);
}

#[test]
fn a_wrong_verdict_on_a_condition_is_seen() {
    let (mut story, [first, second]) = two_puts();
    let mut draft = put("a", "3");
    draft.version("rows", b"a".to_vec(), second).unwrap();
    let body = body(SessionId::NONE, 0, &draft);
    let refused = |at, found| Reply::Refused(Refused { condition: 0, at, found });
    let number = story.commit(&body, |at| refused(at, first));
    assert_eq!(story.judge(), [""; 0]);
    let at = *story.offsets.last().unwrap();
    for lie in [refused(at, second), refused(second, first)] {
        *story.reply(number) = lie;
        assert_eq!(story.judge(), ["refusals"]);
    }
    *story.reply(number) = committed(at);
    assert_eq!(story.judge(), ["commits"]);
}

#[test]
fn a_session_that_is_called_expired_without_reason_is_seen() {
    let (mut story, _) = two_puts();
    let expired = Reply::Error(Failure::new(Code::SessionExpired, "gone"));
    let body = body(SessionId::NONE, 0, &put("c", "3"));
    story.ask(Asked::Commit(body.into()), expired);
    assert_eq!(story.judge(), ["refusals"]);
}

#[test]
fn raw_log_that_differs_from_what_was_committed_is_seen() {
    let (mut story, [first, second]) = two_puts();
    let end = Offset::FIRST.plus(story.log.len() as u64);
    let log = story.log.clone();
    let query = Query::Log { from: first, max_bytes: 0, wait_ms: 0 };
    let shown = |data: &[u8], first, next| Reply::Frames { first, data: data.to_vec(), next, end };
    let split = (second.0 - first.0) as usize;
    let number = story.ask(read(query), shown(&log, first, end));
    for right in [shown(&log, first, end), shown(&log[..split], first, second)] {
        *story.reply(number) = right;
        assert_eq!(story.judge(), [""; 0]);
    }
    let mut rotten = log.clone();
    rotten[70] ^= 1;
    for lie in [
        shown(&rotten, first, end),
        shown(&log[..split], first, end),
        shown(&log[split..], first, end),
        shown(&log[..split + 8], first, end),
    ] {
        *story.reply(number) = lie;
        assert_eq!(story.judge(), ["frames"]);
    }
}

#[test]
fn a_request_without_or_with_two_answers_is_seen() {
    let (mut story, _) = two_puts();
    story.requests[0].answers = 2;
    assert_eq!(story.judge(), ["replies"]);
    story.requests[0].answers = 0;
    story.requests[0].answer = Answer::Waiting;
    assert_eq!(story.judge(), ["replies"]);
    story.requests[0].answer = Answer::Lost;
    assert_eq!(story.judge(), [""; 0]);
}

#[test]
fn an_error_without_its_reason_is_seen() {
    let (mut story, [first, second]) = two_puts();
    for code in [Code::Corrupt, Code::DiskFull, Code::ShuttingDown, Code::TimedOut] {
        let number = story.ask(get("a"), Reply::Error(Failure::new(code, "why not")));
        assert_eq!(story.judge(), ["replies"], "{code}");
        *story.reply(number) = Reply::Row { at: second, row: Some((first, b"1".to_vec())) };
    }
    let exactly = Read {
        level: Level::Exactly(first),
        query: Query::Get { keyspace: "rows".into(), key: b"a".to_vec() },
    };
    let trimmed = Reply::Error(Failure::new(Code::OffsetTrimmed, "gone"));
    story.ask(Asked::Read(exactly), trimmed);
    assert_eq!(story.judge(), ["replies"]);
}

#[test]
fn the_model_knows_that_later_ops_of_a_commit_win() {
    let mut story = Story::new();
    let mut draft = put("a", "1");
    draft.delete("rows", b"a".to_vec()).unwrap();
    draft.put("rows", b"b".to_vec(), b"1".to_vec()).unwrap();
    draft.put("rows", b"b".to_vec(), b"2".to_vec()).unwrap();
    story.commit(&body(SessionId::NONE, 0, &draft), committed);
    let mut chronicle = Chronicle::new(SEGMENT_BYTES);
    chronicle.learn(Offset::FIRST, &story.log).unwrap();
    let mut model = Model::default();
    chronicle.from(Offset::ZERO).for_each(|entry| model.fold(entry).unwrap());
    let at = story.offsets[0];
    let rows = &model.keyspaces["rows"];
    assert_eq!(rows.get(b"a", at, Offset::ZERO), None);
    assert_eq!(rows.get(b"b", at, Offset::ZERO), Some((at, &b"2"[..])));
    assert!(matches!(model.verdicts[&at], Verdict::Applied(_)));
}

/// Gives each request a time of its own, one after the other.
fn in_turn(story: &mut Story) {
    for (number, request) in story.requests.iter_mut().enumerate() {
        request.sent = Moment(10 * number as u64);
        request.answered = Moment(10 * number as u64 + 5);
    }
}

#[test]
fn a_row_that_is_older_than_what_was_acknowledged_has_no_place_in_any_order() {
    let mut story = Story::new();
    story.commit(&body(SessionId::NONE, 0, &put("a", "1")), committed);
    story.commit(&body(SessionId::NONE, 0, &put("a", "2")), committed);
    let [first, second] = [story.offsets[0], story.offsets[1]];
    let row = |at, value: &str| Reply::Row { at, row: Some((at, value.into())) };
    let number = story.ask(get("a"), row(second, "2"));
    in_turn(&mut story);
    assert_eq!(story.judge(), [""; 0]);
    *story.reply(number) = row(first, "1");
    assert!(story.judge().contains(&"linearizable"));
    // Beside the second commit it would have been right.
    story.requests[number].sent = Moment(4);
    assert!(!story.judge().contains(&"linearizable"));
}

#[test]
fn a_commit_of_unknown_fate_that_was_seen_may_not_be_unseen() {
    let mut story = Story::new();
    let number = story.commit(&body(SessionId::NONE, 0, &put("a", "1")), committed);
    story.requests[number].answer = Answer::Lost;
    let at = story.offsets[0];
    let row = Some((at, b"1".to_vec()));
    story.ask(get("a"), Reply::Row { at, row: row.clone() });
    let again = story.ask(get("a"), Reply::Row { at, row });
    in_turn(&mut story);
    assert_eq!(story.judge(), [""; 0]);
    *story.reply(again) = Reply::Row { at: Offset::FIRST, row: None };
    assert!(story.judge().contains(&"linearizable"));
}

#[test]
fn a_scan_that_leaves_a_row_out_has_no_place_in_any_order() {
    let mut story = Story::new();
    story.commit(&body(SessionId::NONE, 0, &put("a", "1")), committed);
    let at = story.offsets[0];
    let entries = vec![entry("a", "1", at)];
    story.ask(scan(), Reply::Rows { at, entries: entries.clone(), next: None });
    let number = story.ask(scan(), Reply::Rows { at, entries, next: None });
    in_turn(&mut story);
    assert_eq!(story.judge(), [""; 0]);
    *story.reply(number) = Reply::Rows { at, entries: Vec::new(), next: None };
    assert!(story.judge().contains(&"linearizable"));
}

#[test]
fn a_replica_that_goes_back_is_seen() {
    let (mut story, [first, second]) = two_puts();
    let query = Query::Get { keyspace: "rows".into(), key: "a".into() };
    let local = Asked::Read(Read { level: Level::Local, query });
    let row = |at| Reply::Row { at, row: Some((first, b"1".to_vec())) };
    story.ask(local.clone(), row(first));
    let newer = story.ask(local.clone(), row(second));
    let last = story.ask(local, row(second));
    in_turn(&mut story);
    assert_eq!(story.judge(), [""; 0]);
    *story.reply(last) = row(first);
    assert_eq!(story.judge(), ["backwards"]);
    // Another replica may lag, and so may one that is asked by others.
    story.requests[newer].line = 2;
    assert_eq!(story.judge(), [""; 0]);
    story.requests[newer].line = 1;
    story.requests[last].here = false;
    assert_eq!(story.judge(), [""; 0]);
}

/// Two that read the same version and write over it: one of them did not see the other.
#[test]
fn an_update_that_is_lost_is_part_of_a_circle() {
    let (mut story, [first, _]) = two_puts();
    let update = |value: &str| {
        let mut draft = put("a", value);
        draft.version("rows", b"a".to_vec(), first).unwrap();
        body(SessionId::NONE, 0, &draft)
    };
    story.commit(&update("3"), committed);
    in_turn(&mut story);
    assert_eq!(story.judge(), [""; 0]);
    story.commit(&update("4"), committed);
    in_turn(&mut story);
    assert!(story.judge().contains(&"transactions"));
}

#[test]
fn a_read_of_a_version_that_was_written_over_before_it_has_no_place() {
    let (mut story, [first, second]) = two_puts();
    story.commit(&body(SessionId::NONE, 0, &put("a", "3")), committed);
    let query = Query::Get { keyspace: "rows".into(), key: "a".into() };
    let read = Asked::Read(Read { level: Level::Linearizable, query });
    let third = story.offsets[2];
    let number = story.ask(read, Reply::Row { at: third, row: Some((third, b"3".to_vec())) });
    in_turn(&mut story);
    assert_eq!(story.judge(), [""; 0]);
    *story.reply(number) = Reply::Row { at: second, row: Some((first, b"1".to_vec())) };
    assert!(story.judge().contains(&"transactions"));
}

#[test]
fn replicas_whose_digests_differ_are_seen() {
    let mut story = Story::new();
    let mut body = Vec::new();
    Control::NoteDigests.encode(&mut body);
    let at = story.frame(Kind::Control, &body);
    let view = |view: &str, digest| ViewDigest { view: view.into(), count: 1, digest };
    let digests = |cursors| Reply::Digests(vec![view("streams", 5), view("cursors", cursors)]);
    let read = || Asked::Read(Read { level: Level::AtLeast(at), query: Query::Digests { at } });
    story.ask(read(), digests(7));
    let number = story.ask(read(), digests(7));
    let lost = Failure::new(Code::OffsetTrimmed, "it has begun anew");
    story.ask(read(), Reply::Error(lost));
    in_turn(&mut story);
    assert_eq!(story.judge(), [""; 0]);
    for lie in [digests(8), Reply::Digests(vec![view("streams", 5)])] {
        *story.reply(number) = lie;
        assert_eq!(story.judge(), ["digests"]);
    }
}

#[test]
fn followers_that_are_shown_different_streams_are_seen() {
    let mut story = Story::new();
    let mut ids = Vec::new();
    for number in 0..3u8 {
        let mut draft = Draft::default();
        draft.append("events", vec![b'x', number]).unwrap();
        let body = body(SessionId::NONE, 0, &draft);
        let at = body.windows(2).position(|window| window == [b'x', number]).unwrap() as u64;
        story.commit(&body, |offset| {
            let ids = vec![offset.plus(56 + at)];
            Reply::Committed(Committed { offset, ids, ..Committed::default() })
        });
        ids.push(story.offsets[usize::from(number)].plus(56 + at));
    }
    let end = Offset::FIRST.plus(story.log.len() as u64);
    let record = |number: usize| Record { offset: ids[number], value: vec![b'x', number as u8] };
    let records = |numbers: &[usize]| Reply::Records {
        records: numbers.iter().map(|number| record(*number)).collect(),
        next: end,
        end,
    };
    let query = || Query::Records {
        stream: "events".into(),
        from: Offset::ZERO,
        limit: 0,
        max_bytes: 0,
        wait_ms: 0,
    };
    let read = || Asked::Read(Read { level: Level::Local, query: query() });
    story.ask(read(), records(&[0, 1, 2]));
    let number = story.ask(read(), records(&[0, 1, 2]));
    in_turn(&mut story);
    assert_eq!(story.judge(), [""; 0]);
    *story.reply(number) = records(&[0, 2]);
    assert!(story.judge().contains(&"followers"));
    *story.reply(number) = records(&[1, 2]);
    assert!(!story.judge().contains(&"followers"), "the first may have gone by a floor");
}
