//! Sessions, told as short stories: windows, expiry, room, rows.

use super::*;
use naust_wire::reply::{RangeDeleted, Refused};
use naust_wire::{Code, Sequence};

const ID: SessionId = SessionId(1 << 32);

fn open(sessions: &mut Sessions, id: SessionId, ttl_ms: u64, time: u64) -> bool {
    let at = Offset((1 << 33) + time);
    sessions.open(Opening { id, at, ttl_ms, nonce: 5, time: LogTime(time) })
}

fn opened() -> Sessions {
    let mut sessions = Sessions::default();
    assert!(open(&mut sessions, ID, 1000, 0));
    sessions
}

fn turn(sessions: &mut Sessions, sequence: u64, acked: u64, time: u64) -> Result<Slot, String> {
    let at = Offset((1 << 33) + time);
    let (sequence, acked_below) = (Sequence(sequence), Sequence(acked));
    let numbers = Numbers { session: ID, sequence, acked_below };
    match sessions.turn(&numbers, at, LogTime(time)) {
        Turn::Fresh(slot) => Ok(slot),
        Turn::Again(answer) => Err(format!("{answer:?}")),
        other => Err(format!("{other:?}")),
    }
}

#[test]
fn a_sequence_is_fresh_once_and_answered_again_after_that_in_any_order() {
    let mut sessions = opened();
    for sequence in [3, 1, 2, 1024] {
        let slot = turn(&mut sessions, sequence, 1, 10).unwrap();
        sessions.keep(slot, Sequence(sequence), Answer::Committed(Offset(sequence)));
    }
    for sequence in [1, 2, 3, 1024] {
        let again = format!("Committed(Offset({sequence}))");
        assert_eq!(turn(&mut sessions, sequence, 1, 11), Err(again));
    }
    assert!(turn(&mut sessions, 4, 1, 11).is_ok());
}

#[test]
fn what_is_acknowledged_or_too_far_ahead_is_out_of_the_window() {
    let mut sessions = opened();
    assert_eq!(turn(&mut sessions, 0, 0, 1), Err("OutOfWindow".into()));
    assert_eq!(turn(&mut sessions, 1025, 1, 1), Err("OutOfWindow".into()));
    assert!(turn(&mut sessions, 1025, 2, 1).is_ok());
    assert_eq!(turn(&mut sessions, 1, 1, 1), Err("OutOfWindow".into()));
    assert_eq!(turn(&mut sessions, 1, u64::MAX, 1), Err("OutOfWindow".into()));
    assert_eq!(turn(&mut sessions, u64::MAX - 1, 1, 1), Err("OutOfWindow".into()));
}

#[test]
fn a_session_lives_as_long_as_it_is_used() {
    let mut sessions = opened();
    assert!(turn(&mut sessions, 1, 1, 1000).is_ok());
    assert!(turn(&mut sessions, 1, 1, 2000).is_ok());
    assert_eq!(turn(&mut sessions, 1, 1, 3001), Err("Expired".into()));
    assert_eq!(turn(&mut sessions, 1, 1, 3001), Err("Expired".into()));
    assert!(!sessions.close(ID, LogTime(1)));
}

#[test]
fn an_id_is_not_given_twice_while_its_session_lives() {
    let mut sessions = opened();
    assert!(turn(&mut sessions, 1, 1, 10).is_ok());
    assert!(!open(&mut sessions, ID, 1000, 1010));
    assert!(open(&mut sessions, ID, 1000, 1011));
    assert!(sessions.close(ID, LogTime(1012)));
    assert!(!sessions.close(ID, LogTime(1012)));
}

#[test]
fn the_session_longest_unused_makes_room() {
    let mut sessions = Sessions::bounded(2, usize::MAX);
    assert!(open(&mut sessions, ID, 1000, 0));
    assert!(open(&mut sessions, SessionId(ID.0 + 8), 1000, 0));
    assert!(turn(&mut sessions, 1, 1, 5).is_ok());
    assert!(open(&mut sessions, SessionId(ID.0 + 16), 1000, 5));
    assert!(turn(&mut sessions, 1, 1, 6).is_ok());
    assert!(!sessions.close(SessionId(ID.0 + 8), LogTime(6)));
    assert!(sessions.close(SessionId(ID.0 + 16), LogTime(6)));
}

#[test]
fn answers_are_bounded_a_session_and_together() {
    let large = || {
        let ranges = [RangeDeleted { deleted: 1, next: Some(vec![0; 30_000]) }];
        Answer::committed(Offset(1 << 33), &[], &ranges)
    };
    let mut sessions = Sessions::bounded(10, 1_500_000);
    assert!(open(&mut sessions, SessionId(8), 1000, 0));
    assert!(open(&mut sessions, ID, 1000, 0));
    for sequence in 1..=100 {
        let slot = turn(&mut sessions, sequence, 1, 1).unwrap();
        sessions.keep(slot, Sequence(sequence), large());
    }
    assert_eq!(turn(&mut sessions, 1, 1, 1), Err("OutOfWindow".into()));
    assert!(turn(&mut sessions, 100, 1, 1).is_err());
    assert!(sessions.weight <= 1_100_000);
    assert!(open(&mut sessions, SessionId(16), 1000, 0));
    for sequence in 1..=20 {
        let at = Offset(1 << 34);
        let (session, acked_below) = (SessionId(16), Sequence(1));
        let numbers = Numbers { session, sequence: Sequence(sequence), acked_below };
        match sessions.turn(&numbers, at, LogTime(1)) {
            Turn::Fresh(slot) => sessions.keep(slot, Sequence(sequence), large()),
            other => panic!("{other:?}"),
        }
    }
    assert!(!sessions.close(ID, LogTime(1)), "the one longest unused went");
    assert!(sessions.weight <= 1_500_000);
    assert!(sessions.close(SessionId(16), LogTime(1)));
    assert_eq!(sessions.weight, 0);
}

#[test]
fn rows_bring_everything_back() {
    let mut sessions = opened();
    let ids = [Offset((1 << 33) + 100), Offset((1 << 33) + 5000)];
    let refused = Refused { condition: 3, at: Offset(9), found: Offset(4) };
    let answers = [
        Answer::committed(Offset(1 << 33), &[], &[]),
        Answer::committed(Offset(1 << 33), &ids[..1], &[]),
        Answer::committed(Offset(1 << 33), &ids, &[RangeDeleted { deleted: 7, next: None }]),
        Answer::More(Box::new(More::Refused(refused))),
        Answer::failed(Code::LimitReached, "too many"),
    ];
    for (i, answer) in answers.iter().enumerate() {
        let sequence = 2 + i as u64;
        let slot = turn(&mut sessions, sequence, 1, 10).unwrap();
        sessions.keep(slot, Sequence(sequence), answer.clone());
    }
    assert!(open(&mut sessions, SessionId(1 << 40), 0, 20));
    let mut rows = Vec::new();
    let write = |id, value: Option<&[u8]>| {
        rows.push((id, value.expect("none ended").to_vec()));
        Ok::<(), ()>(())
    };
    sessions.rotate(write).unwrap();
    let mut loaded = Sessions::load(rows).unwrap();
    assert_eq!(all(&loaded), all(&sessions));
    assert_eq!(loaded.weight, sessions.weight);
    assert!(turn(&mut loaded, 1, 1, 30).is_ok(), "a gap stays one");
    let mut out = Vec::new();
    let Answer::More(more) = &answers[2] else { panic!("two ids are not small") };
    more.ids(&mut out).unwrap();
    assert_eq!(out, ids);
}

fn all(sessions: &Sessions) -> Vec<(SessionId, Vec<u8>)> {
    let mut all = Vec::new();
    sessions.visit(|id, value| all.push((id, value.to_vec())));
    all
}

/// Replicas that weigh differently forget different answers. These numbers never change.
#[test]
fn weights_are_the_same_in_every_build() {
    let at = Offset(1 << 33);
    let ids = [at.plus(100), at.plus(5000)];
    let range = |next| RangeDeleted { deleted: 7, next };
    let refused = Refused { condition: 3, at: Offset(9), found: Offset(4) };
    let weights = [
        (16, Answer::Gap),
        (16, Answer::committed(at, &[], &[])),
        (16, Answer::committed(at, &ids[..1], &[])),
        (83, Answer::committed(at, &ids, &[])),
        (113, Answer::committed(at, &ids[..1], &[range(None)])),
        (1144, Answer::committed(at, &[], &[range(Some(vec![0; 1000])), range(None)])),
        (80, Answer::More(Box::new(More::Refused(refused)))),
        (592, Answer::failed(Code::LimitReached, "")),
        (592, Answer::failed(Code::TooLarge, &"long ".repeat(1000))),
    ];
    for (weight, answer) in weights {
        assert_eq!(answer.weight(), weight, "{answer:?}");
    }
    // As many refusals as a window has sequences are kept.
    const { assert!(592 * SESSION_WINDOW_MAX <= naust_wire::limits::SESSION_REPLY_BYTES_MAX) };
}

#[test]
fn what_refusals_say_is_cut_and_replicas_need_not_agree_on_it() {
    let told = |text: &str| {
        let mut sessions = opened();
        let slot = turn(&mut sessions, 1, 1, 10).unwrap();
        sessions.keep(slot, Sequence(1), Answer::failed(Code::LimitReached, text));
        let mut rows = Vec::new();
        let write = |id, value: Option<&[u8]>| {
            rows.push((id, value.expect("none ended").to_vec()));
            Ok::<(), ()>(())
        };
        sessions.rotate(write).unwrap();
        let again = turn(&mut Sessions::load(rows).unwrap(), 1, 1, 11).unwrap_err();
        (all(&sessions), sessions.weight, again)
    };
    let (one, other) = (told("no"), told(&"é".repeat(4000)));
    assert_eq!((one.0, one.1), (other.0, other.1));
    assert!(one.2.contains("\"no\""), "{}", one.2);
    assert_eq!(other.2.matches('é').count(), 256, "512 bytes of it");
}

/// What a rotation writes and removes, in order.
fn rotated(sessions: &mut Sessions) -> Vec<(SessionId, bool)> {
    let mut rows = Vec::new();
    let write = |id, value: Option<&[u8]>| {
        rows.push((id, value.is_some()));
        Ok::<(), ()>(())
    };
    sessions.rotate(write).unwrap();
    rows
}

#[test]
fn a_rotation_writes_each_id_once_as_it_is_by_then() {
    let mut sessions = opened();
    let other = SessionId(1 << 40);
    assert!(sessions.close(ID, LogTime(1)));
    assert!(open(&mut sessions, ID, 1000, 2));
    assert_eq!(rotated(&mut sessions), [(ID, true)], "no row existed, and it came twice");
    assert!(sessions.close(ID, LogTime(3)));
    assert!(open(&mut sessions, other, 1000, 3));
    assert!(open(&mut sessions, ID, 1000, 4));
    assert_eq!(rotated(&mut sessions), [(other, true), (ID, true)], "it lives again");
    assert!(turn(&mut sessions, 1, 1, 5).is_ok());
    assert!(sessions.close(ID, LogTime(6)));
    assert!(open(&mut sessions, ID, 1000, 7));
    assert!(sessions.close(ID, LogTime(8)));
    assert_eq!(rotated(&mut sessions), [(ID, false)], "it lives no more");
    assert_eq!(rotated(&mut sessions), []);
}

#[test]
fn damaged_rows_are_refused() {
    let mut sessions = opened();
    let slot = turn(&mut sessions, 1, 1, 10).unwrap();
    sessions.keep(slot, Sequence(1), Answer::committed(Offset(1 << 33), &[], &[]));
    let mut row = Vec::new();
    sessions.visit(|_, value| row = value.to_vec());
    for cut in 0..row.len() {
        assert!(Sessions::load(vec![(ID, row[..cut].to_vec())]).is_err());
    }
}
