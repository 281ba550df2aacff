//! A session's id may come back: its client draws the nonce, and so can choose the id.

#![allow(clippy::unwrap_used)]

mod support;

use naust_machine::{Machine, MemTables};
use naust_wire::ShardId;
use naust_wire::commit::Draft;
use naust_wire::control::Control;
use support::{Log, Logged, Outcome, crash, nonce_for, open, work};

const SHARD: ShardId = ShardId(5);

fn apply(machine: &mut Machine<MemTables>, frame: &Logged) -> Outcome {
    machine.apply(&frame.frame()).unwrap().into()
}

fn flush(machine: &mut Machine<MemTables>) {
    machine.flush();
    work(machine, 99);
    assert!(machine.is_flushed());
}

#[test]
fn replicas_agree_on_a_session_whose_id_came_back_before_its_row_was_removed() {
    let mut log = Log::default();
    let mut machine = open(MemTables::new(), SHARD, &log);
    let opened = log.control(&Control::OpenSession { ttl_ms: 0, nonce: 42 });
    let Outcome::Session(id) = apply(&mut machine, &opened) else { panic!("it was opened") };
    flush(&mut machine);
    let closed = log.control(&Control::CloseSession(id));
    assert!(matches!(apply(&mut machine, &closed), Outcome::Done(_)));
    let nonce = nonce_for(id, log.next);
    let again = log.control(&Control::OpenSession { ttl_ms: 0, nonce });
    assert_eq!(apply(&mut machine, &again), Outcome::Session(id));
    flush(&mut machine);

    let mut restarted = open(crash(&machine), SHARD, &log);
    assert_eq!(restarted.digest().unwrap(), machine.digest().unwrap());
    let mut draft = Draft::default();
    draft.put("t", &b"k"[..], &b"v"[..]).unwrap();
    let commit = log.commit(&draft, id, (1, 1));
    let went_on = apply(&mut machine, &commit);
    assert!(matches!(went_on, Outcome::Committed { duplicate: false, .. }), "{went_on:?}");
    assert_eq!(apply(&mut restarted, &commit), went_on);
}
