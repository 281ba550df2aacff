//! Commits: what a draft says is what its bytes say, to our reader and to the generated one; and
//! what a stranger may send in place of them.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod strategies;

use naust_wire::code::Code;
use naust_wire::commit::{Commit, Condition, Draft, DraftCondition, DraftOp, Op, position_in};
use naust_wire::limits::*;
use naust_wire::message::{self, Message, Refusal};
use naust_wire::naust_capnp as schema;
use naust_wire::{Offset, Sequence, SessionId};
use proptest::prelude::*;

fn encode(draft: &Draft<'_>) -> Result<Vec<u8>, Refusal> {
    let mut out = Vec::new();
    draft.encode(SessionId(7), Sequence(3), Sequence(2), &mut out)?;
    Ok(out)
}

fn check(body: &[u8]) -> Result<(), Refusal> {
    Commit::read(&Message::new(body)?)?.check()
}

/// The same commit through the generated builder, its parts in the same order.
fn build(draft: &Draft<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    message::build::<schema::commit::Owned>(1 << 12, &mut out, |mut root| {
        root.set_session(7);
        root.set_sequence(3);
        root.set_acked_below(2);
        let mut names = root.reborrow().init_names(draft.names.len() as u32);
        for (i, name) in draft.names.iter().enumerate() {
            names.set(i as u32, &**name);
        }
        if !draft.conditions.is_empty() {
            let mut list = root.reborrow().init_conditions(draft.conditions.len() as u32);
            for (i, condition) in draft.conditions.iter().enumerate() {
                build_condition(list.reborrow().get(i as u32), &condition.view());
            }
        }
        let mut list = root.init_ops(draft.ops.len() as u32);
        for (i, op) in draft.ops.iter().enumerate() {
            build_op(list.reborrow().get(i as u32), &op.view());
        }
    });
    out
}

fn build_condition(mut to_fill: schema::condition::Builder<'_>, condition: &Condition<'_>) {
    match *condition {
        Condition::Version { space, key, offset } => {
            to_fill.set_space(space);
            let mut version = to_fill.init_version();
            version.set_key(key);
            version.set_offset(offset.0);
        }
        Condition::Absent { space, key } => {
            to_fill.set_space(space);
            to_fill.init_absent().set_key(key);
        }
        Condition::Unchanged { space, from, to, since } => {
            to_fill.set_space(space);
            let mut unchanged = to_fill.init_unchanged();
            unchanged.set_since(since.0);
            unchanged.set_unbounded(to.is_none());
            if !from.is_empty() {
                unchanged.set_from(from);
            }
            if let Some(to) = to.filter(|to| !to.is_empty()) {
                unchanged.set_to(to);
            }
        }
    }
}

fn build_op(mut to_fill: schema::op::Builder<'_>, op: &Op<'_>) {
    match *op {
        Op::Put { space, key, value } => {
            to_fill.set_space(space);
            let mut put = to_fill.init_put();
            put.set_key(key);
            if !value.is_empty() {
                put.set_value(value);
            }
        }
        Op::Delete { space, key } => {
            to_fill.set_space(space);
            to_fill.init_delete().set_key(key);
        }
        Op::DeleteRange { space, from, to } => {
            to_fill.set_space(space);
            let mut range = to_fill.init_delete_range();
            range.set_unbounded(to.is_none());
            if !from.is_empty() {
                range.set_from(from);
            }
            if let Some(to) = to.filter(|to| !to.is_empty()) {
                range.set_to(to);
            }
        }
        Op::Append { space, value } => {
            to_fill.set_space(space);
            to_fill.init_append().set_value(value);
        }
        Op::Advance { space, cursor, offset } => {
            to_fill.set_space(space);
            let mut advance = to_fill.init_advance();
            advance.set_cursor(cursor);
            advance.set_offset(offset.0);
        }
    }
}

proptest! {
    #[test]
    fn what_is_encoded_is_read(draft in strategies::draft()) {
        let body = encode(&draft).unwrap();
        prop_assert_eq!(body.len(), draft.encoded_bytes_max() - slack(&draft));
        let message = Message::new(&body).unwrap();
        let commit = Commit::read(&message).unwrap();
        prop_assert_eq!(commit.check(), Ok(()));
        prop_assert_eq!(commit.session(), SessionId(7));
        prop_assert_eq!((commit.sequence().0, commit.acked_below().0), (3, 2));
        let names: Vec<&str> = commit.names().map(Result::unwrap).collect();
        prop_assert_eq!(&names, &draft.names);
        prop_assert_eq!(commit.name(0).unwrap(), &draft.names[0]);
        prop_assert!(commit.name(names.len() as u16).is_err());
        prop_assert_eq!(commit.ops_len(), draft.ops.len());
        let deletes = |op| matches!(op, Ok(Op::DeleteRange { .. }));
        prop_assert_eq!(commit.deletes_ranges(), commit.ops().any(deletes));
        prop_assert_eq!(commit.conditions_len(), draft.conditions.len());
        for (read, drafted) in commit.ops().zip(&draft.ops) {
            prop_assert_eq!(read.unwrap(), drafted.view());
        }
        for (read, drafted) in commit.conditions().zip(&draft.conditions) {
            prop_assert_eq!(read.unwrap(), drafted.view());
        }
    }

    /// The bytes are those of the generated builder; only a record without bytes is given a word
    /// more.
    #[test]
    fn the_layout_is_capn_protos(mut draft in strategies::draft()) {
        draft.ops.retain(|op| !matches!(op.view(), Op::Append { value: b"", .. }));
        prop_assume!(!draft.ops.is_empty());
        prop_assert_eq!(encode(&draft).unwrap(), build(&draft));
    }

    #[test]
    fn records_have_places_of_their_own_in_order(
        values in prop::collection::vec(strategies::value(), 1..9),
    ) {
        let mut draft = Draft::default();
        for value in &values {
            draft.append("events", &value[..]).unwrap();
        }
        let body = encode(&draft).unwrap();
        let message = Message::new(&body).unwrap();
        let commit = Commit::read(&message).unwrap();
        commit.check().unwrap();
        let mut before = 0;
        for (op, value) in commit.ops().zip(&values) {
            let Ok(Op::Append { value: read, .. }) = op else { panic!("an append") };
            let at = position_in(&body, read);
            prop_assert_eq!(&body[at..at + value.len()], &value[..]);
            prop_assert!(at > before && at < body.len());
            before = at;
        }
    }

    #[test]
    fn mutated_commits_are_answered(
        body in strategies::draft()
            .prop_flat_map(|draft| strategies::mutated(encode(&draft).unwrap())),
    ) {
        naust_wire::fuzzing::commit(&body);
    }

    #[test]
    fn any_bytes_are_answered(
        body in prop::collection::vec(prop_oneof![any::<u8>(), 0u8..8], 0..400),
    ) {
        naust_wire::fuzzing::commit(&body);
    }
}

/// What the estimate has too much: tags of lists that a draft has not.
fn slack(draft: &Draft<'_>) -> usize {
    8 * (usize::from(draft.conditions.is_empty()) + usize::from(draft.ops.is_empty()))
}

fn refused(draft: &Draft<'_>) -> Code {
    let mut out = vec![1, 2, 3];
    let refusal = draft.encode(SessionId::NONE, Sequence(0), Sequence(0), &mut out).unwrap_err();
    assert_eq!(out, [1, 2, 3], "nothing is appended on an error");
    refusal.code
}

#[test]
fn names_are_interned() {
    let mut draft = Draft::default();
    draft.put("users", b"k", b"v").unwrap();
    draft.advance("ledger", String::from("billing"), Offset(9)).unwrap();
    draft.delete("users", b"k").unwrap();
    assert_eq!(draft.names, ["users", "ledger", "billing"]);
    assert_eq!(draft.ops[2], DraftOp::Delete { space: 0, key: b"k".into() });
    assert_eq!(draft.name("a/b").unwrap_err().code, Code::BadName);
    for i in 3..NAMES_PER_COMMIT_MAX {
        draft.name(i.to_string()).unwrap();
    }
    assert_eq!(draft.name("one more").unwrap_err().code, Code::TooLarge);
    assert_eq!(draft.name("billing").unwrap(), 2);
    assert_eq!(encode(&draft).map(|body| check(&body)), Ok(Ok(())));
}

#[test]
fn what_is_over_a_limit_is_refused_before_it_is_encoded() {
    let with = |fill: &dyn Fn(&mut Draft<'static>)| {
        let mut draft = Draft::default();
        fill(&mut draft);
        refused(&draft)
    };
    assert_eq!(with(&|_| ()), Code::BadArgument);
    assert_eq!(with(&|d| d.put("k", b"", b"v").unwrap()), Code::KeySize);
    assert_eq!(with(&|d| d.delete("k", vec![0; KEY_BYTES_MAX + 1]).unwrap()), Code::KeySize);
    assert_eq!(with(&|d| d.append("s", vec![0; VALUE_BYTES_MAX + 1]).unwrap()), Code::TooLarge);
    let range = |d: &mut Draft<'static>| d.delete_range("k", b"b", Some(b"a".into())).unwrap();
    assert_eq!(with(&range), Code::BadArgument);
    let many = |d: &mut Draft<'static>| {
        for _ in 0..=RANGE_DELETES_PER_COMMIT_MAX {
            d.delete_range("k", b"a", None).unwrap();
        }
    };
    assert_eq!(with(&many), Code::TooLarge);
    let ops = |d: &mut Draft<'static>| {
        (0..=OPS_PER_COMMIT_MAX).for_each(|_| d.delete("k", b"a").unwrap());
    };
    assert_eq!(with(&ops), Code::TooLarge);
    let conditions = |d: &mut Draft<'static>| {
        (0..=CONDITIONS_PER_COMMIT_MAX).for_each(|_| d.absent("k", b"a").unwrap());
    };
    assert_eq!(with(&conditions), Code::TooLarge);
    let body = |d: &mut Draft<'static>| {
        (0..2).for_each(|_| d.append("s", vec![0; 9 << 20]).unwrap());
    };
    assert_eq!(with(&body), Code::TooLarge);
    let index =
        |d: &mut Draft<'static>| d.ops.push(DraftOp::Append { space: 0, value: b"v".into() });
    assert_eq!(with(&index), Code::BadArgument);
    let cursor = |d: &mut Draft<'static>| {
        d.names.push("s".into());
        d.ops.push(DraftOp::Advance { space: 0, cursor: 1, offset: Offset(0) });
    };
    assert_eq!(with(&cursor), Code::BadArgument);
    let twice = |d: &mut Draft<'static>| {
        d.put("k", b"a", b"b").unwrap();
        d.names.push("k".into());
    };
    assert_eq!(with(&twice), Code::BadArgument);
}

#[test]
fn many_names_are_distinct_too() {
    let mut draft = Draft::default();
    draft.put("x", b"k", b"v").unwrap();
    for i in 0..100 {
        draft.name(format!("n{i}")).unwrap();
    }
    assert!(encode(&draft).is_ok());
    draft.names.push("n50".into());
    assert_eq!(refused(&draft), Code::BadArgument);
}

#[test]
fn the_sequences_of_a_session_begin_at_one() {
    let mut draft = Draft::default();
    draft.absent("k", b"a").unwrap();
    let encode = |session, sequence| {
        draft.encode(SessionId(session), Sequence(sequence), Sequence(0), &mut Vec::new()).is_ok()
    };
    assert!(encode(0, 0) && encode(5, 1));
    assert!(!encode(5, 0));
}

/// A commit of the largest size is a frame that fits a reply to a read of the log.
#[test]
fn the_largest_commit_is_taken() {
    let mut draft = Draft::default();
    draft.put("k", vec![1; KEY_BYTES_MAX], vec![2; VALUE_BYTES_MAX]).unwrap();
    draft.append("s", vec![]).unwrap();
    let rest = COMMIT_BODY_BYTES_MAX - draft.encoded_bytes_max() + 16;
    draft.ops[1] = DraftOp::Append { space: 1, value: vec![3; rest].into() };
    assert_eq!(draft.encoded_bytes_max(), COMMIT_BODY_BYTES_MAX + 8);
    assert_eq!(refused(&draft), Code::TooLarge);
    draft.ops[1] = DraftOp::Append { space: 1, value: vec![3; rest - 8].into() };
    assert_eq!(check(&encode(&draft).unwrap()), Ok(()));
}

/// The bytes of `draft` with the 64 bits of one word replaced by those of another: a pointer made
/// to lead elsewhere.
fn patched(draft: &Draft<'_>, patch: impl FnOnce(&mut Vec<u8>)) -> Result<(), Refusal> {
    let mut body = encode(draft).unwrap();
    patch(&mut body);
    check(&body)
}

/// First word of the ops in the body of a commit with one name of up to seven bytes and no
/// conditions.
const OPS: usize = 1 + 6 + 2 + 1;

#[test]
fn records_that_share_bytes_are_refused() {
    let mut draft = Draft::default();
    draft.append("s", b"one").unwrap();
    draft.append("s", b"two").unwrap();
    assert_eq!(patched(&draft, |_| ()), Ok(()));
    // The pointer of the second append lies four words after that of the first, and leads one word
    // further.
    let (first, second) = ((OPS + 2) * 8, (OPS + 6) * 8);
    let share = |body: &mut Vec<u8>| {
        let pointer = u32::from_le_bytes(body[first..first + 4].try_into().unwrap());
        body[second..second + 4].copy_from_slice(&(pointer - (4 << 2)).to_le_bytes());
    };
    assert_eq!(patched(&draft, share).unwrap_err().code, Code::Malformed);
    let none = |body: &mut Vec<u8>| body[second..second + 8].fill(0);
    assert_eq!(patched(&draft, none).unwrap_err().code, Code::Malformed);
}

#[test]
fn rows_that_share_bytes_are_refused() {
    let mut draft = Draft::default();
    draft.put("k", b"1", vec![7; 4000]).unwrap();
    draft.put("k", b"2", b"").unwrap();
    let share = |body: &mut Vec<u8>| {
        let (first, second) = ((OPS + 3) * 8, (OPS + 7) * 8);
        let pointer = u32::from_le_bytes(body[first..first + 4].try_into().unwrap());
        let count: Vec<u8> = body[first + 4..first + 8].to_vec();
        body[second..second + 4].copy_from_slice(&(pointer - (4 << 2)).to_le_bytes());
        body[second + 4..second + 8].copy_from_slice(&count);
    };
    assert_eq!(patched(&draft, share).unwrap_err().code, Code::Malformed);
}

#[test]
fn unknown_members_are_refused_not_skipped() {
    let mut draft = Draft::default();
    draft.delete("k", b"1").unwrap();
    let unknown = |body: &mut Vec<u8>| body[OPS * 8 + 2] = 5;
    assert_eq!(patched(&draft, unknown).unwrap_err().code, Code::UnknownKind);
    let mut draft = Draft::default();
    draft.absent("k", b"1").unwrap();
    let unknown = |body: &mut Vec<u8>| body[OPS * 8 + 2] = 3;
    assert_eq!(patched(&draft, unknown).unwrap_err().code, Code::UnknownKind);
}

#[test]
fn an_unbounded_range_has_no_end() {
    let mut draft = Draft::default();
    draft.delete_range("k", b"a", Some(b"b".into())).unwrap();
    draft.unchanged("k", b"a", None, Offset(1)).unwrap();
    assert!(matches!(draft.conditions[0], DraftCondition::Unchanged { .. }));
    assert_eq!(patched(&draft, |_| ()), Ok(()));
    // One condition of four words and its tag and key stand before the ops now.
    let unbounded = |body: &mut Vec<u8>| body[(OPS + 4 + 1 + 1) * 8 + 4] = 1;
    assert_eq!(patched(&draft, unbounded).unwrap_err().code, Code::BadArgument);
}

#[test]
#[should_panic(expected = "a slice of the body")]
fn a_part_of_another_buffer_has_no_position() {
    let (one, other) = (vec![0; 8], vec![0; 8]);
    let _ = (position_in(&one, &other), position_in(&other, &one));
}
