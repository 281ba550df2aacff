//! What may exist at most: past it a commit is refused, whole, and the same on every replica.

#![allow(clippy::unwrap_used)]

mod support;

use naust_machine::MemTables;
use naust_wire::commit::Draft;
use naust_wire::control::Control;
use naust_wire::limits::{
    CURSORS_PER_STREAM_MAX, KEYSPACES_PER_NAMESPACE_MAX, RANGE_DELETE_KEY_BYTES_MAX,
    STREAMS_PER_NAMESPACE_MAX, UNCHANGED_STEPS_MAX,
};
use naust_wire::message::Refusal;
use naust_wire::options::{KeyspaceOptions, StreamOptions};
use naust_wire::{Code, Offset, SessionId, ShardId};
use support::{Log, Outcome, open};

struct Shard {
    log: Log,
    machine: naust_machine::Machine<MemTables>,
}

impl Shard {
    fn new() -> Shard {
        let log = Log::default();
        Shard { machine: open(MemTables::new(), ShardId(1), &log), log }
    }

    fn commit(&mut self, draft: &Draft<'_>) -> Outcome {
        let logged = self.log.commit(draft, SessionId::NONE, (0, 0));
        self.machine.apply(&logged.frame()).unwrap().into()
    }

    fn control(&mut self, control: &Control) -> Outcome {
        let logged = self.log.control(control);
        self.machine.apply(&logged.frame()).unwrap().into()
    }
}

fn is_committed(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Committed { duplicate: false, .. })
}

fn is_refused(outcome: &Outcome, code: Code) -> bool {
    matches!(outcome, Outcome::Failed(Refusal { code: found, .. }) if *found == code)
}

#[test]
fn keyspaces_are_bounded() {
    let mut shard = Shard::new();
    for n in 0..KEYSPACES_PER_NAMESPACE_MAX - 1 {
        let mut draft = Draft::default();
        draft.put(format!("k{n}"), &b"k"[..], &b"v"[..]).unwrap();
        assert!(is_committed(&shard.commit(&draft)));
    }
    let mut two = Draft::default();
    two.put("k0", &b"new"[..], &b"v"[..]).unwrap();
    two.put("last", &b"k"[..], &b"v"[..]).unwrap();
    two.put("one too many", &b"k"[..], &b"v"[..]).unwrap();
    assert!(is_refused(&shard.commit(&two), Code::LimitReached));
    let reader = shard.machine.reader();
    assert!(reader.get("k0", b"new", reader.applied()).unwrap().is_none(), "nothing is half done");
    assert!(shard.machine.keyspace_id("last").is_none());
    let set = |name: &str| Control::SetKeyspace {
        name: name.into(),
        options: KeyspaceOptions::default(),
    };
    assert!(matches!(shard.control(&set("last")), Outcome::Done(_)));
    assert!(is_refused(&shard.control(&set("one too many")), Code::LimitReached));
    assert!(matches!(shard.control(&set("k5")), Outcome::Done(_)));
}

#[test]
fn streams_are_bounded() {
    let mut shard = Shard::new();
    let mut left = STREAMS_PER_NAMESPACE_MAX;
    while left > 0 {
        let mut draft = Draft::default();
        for _ in 0..left.min(512) {
            draft.append(format!("s{left}"), &b"v"[..]).unwrap();
            left -= 1;
        }
        assert!(is_committed(&shard.commit(&draft)));
    }
    let mut more = Draft::default();
    more.append("one too many", &b"v"[..]).unwrap();
    assert!(is_refused(&shard.commit(&more), Code::LimitReached));
    let options = StreamOptions::default();
    let set = Control::SetStream { name: "one too many".into(), options };
    assert!(is_refused(&shard.control(&set), Code::LimitReached));
}

#[test]
fn cursors_are_bounded() {
    let mut shard = Shard::new();
    let mut draft = Draft::default();
    draft.append("s", &b"v"[..]).unwrap();
    shard.commit(&draft);
    let mut left = CURSORS_PER_STREAM_MAX;
    while left > 0 {
        let mut draft = Draft::default();
        for _ in 0..left.min(512) {
            draft.advance("s", format!("c{left}"), Offset::ZERO).unwrap();
            left -= 1;
        }
        assert!(is_committed(&shard.commit(&draft)));
    }
    let mut more = Draft::default();
    more.advance("s", "one too many", Offset::ZERO).unwrap();
    assert!(is_refused(&shard.commit(&more), Code::LimitReached));
    let mut known = Draft::default();
    known.advance("s", "c1", Offset::FIRST).unwrap();
    assert!(is_committed(&shard.commit(&known)));
}

#[test]
fn a_delete_range_stops_at_bytes_too() {
    let mut shard = Shard::new();
    let key = |n: usize| [&[n as u8][..], &[7; 32_000]].concat();
    let rows = RANGE_DELETE_KEY_BYTES_MAX / 32_000 + 40;
    for n in 0..rows {
        let mut draft = Draft::default();
        draft.put("t", key(n), &b""[..]).unwrap();
        shard.commit(&draft);
    }
    let mut draft = Draft::default();
    draft.delete_range("t", &b""[..], None).unwrap();
    let Outcome::Committed { ranges, .. } = shard.commit(&draft) else { panic!("it commits") };
    let deleted = ranges[0].deleted as usize;
    assert_eq!(deleted, RANGE_DELETE_KEY_BYTES_MAX / 32_001);
    assert_eq!(ranges[0].next, Some(key(deleted)));
    let Outcome::Committed { ranges, .. } = shard.commit(&draft) else { panic!("it commits") };
    assert_eq!((ranges[0].deleted as usize, &ranges[0].next), (rows - deleted, &None));
}

#[test]
fn looking_back_is_bounded() {
    let mut shard = Shard::new();
    for _ in 0..2 {
        let mut draft = Draft::default();
        for n in 0..16_384u32 {
            draft.put("t", n.to_be_bytes().to_vec(), &b""[..]).unwrap();
        }
        assert!(is_committed(&shard.commit(&draft)));
    }
    let ask = |conditions: usize| {
        let mut draft = Draft::default();
        for _ in 0..conditions {
            draft.unchanged("t", &b"z"[..], None, Offset::FIRST).unwrap();
        }
        draft
    };
    // Each looks at the 16,384 writes of the second commit.
    let most = UNCHANGED_STEPS_MAX / 16_384;
    assert!(is_committed(&shard.commit(&ask(most))));
    assert!(is_refused(&shard.commit(&ask(most + 1)), Code::TooLarge));
}
