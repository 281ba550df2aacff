//! A namespace has an end before it goes, and nothing happens in it afterwards: the checker is
//! shown histories that are right, and the same with one lie in them.

#![allow(clippy::unwrap_used)]

use naust_sim::checkers::removal;
use naust_sim::checkers::{Case, Excuses};
use naust_sim::chronicle::Chronicle;
use naust_sim::history::{Answer, Asked, Request};
use naust_sim::model::Model;
use naust_sim::schedule::Moment;
use naust_wire::options::NamespaceOptions;
use naust_wire::read::{Level, Query, Read};
use naust_wire::reply::{Committed, Failure, Reply};
use naust_wire::{Code, Offset, ShardId};

const REMOVED: Moment = Moment(100);

fn ask(sent: u64, asked: Asked, reply: Reply) -> Request {
    Request {
        client: 0,
        shard: ShardId(2),
        asked,
        line: 1,
        here: true,
        sent: Moment(sent),
        frontier: Offset::ZERO,
        answer: Answer::Reply(reply),
        answered: Moment(sent + 1),
        ceiling: Offset::ZERO,
        answers: 1,
    }
}

fn get(sent: u64, level: Level, reply: Reply) -> Request {
    let query = Query::Get { keyspace: "rows".into(), key: b"a".to_vec() };
    ask(sent, Asked::Read(Read { level, query }), reply)
}

fn committed(duplicate: bool) -> Reply {
    Reply::Committed(Committed { offset: Offset::FIRST, duplicate, ..Committed::default() })
}

fn row() -> Reply {
    Reply::Row { at: Offset::FIRST, row: None }
}

fn gone() -> Reply {
    Reply::Error(Failure::new(Code::NamespaceNotFound, "it was removed"))
}

fn objections(removed: Option<Moment>, is_closed: bool, requests: &[Request]) -> usize {
    let mut model = Model::default();
    model.closed = is_closed.then_some(Offset::FIRST);
    let case = Case {
        shard: ShardId(2),
        options: NamespaceOptions::default(),
        chronicle: &Chronicle::new(1 << 16),
        model: &model,
        requests: &requests.iter().collect::<Vec<_>>(),
        removed,
        patience: Moment(0),
        excuses: Excuses::default(),
    };
    let mut violations = Vec::new();
    removal::check(&case, &mut violations);
    violations.len()
}

#[test]
fn a_namespace_that_goes_without_an_end_is_seen() {
    assert_eq!(objections(None, false, &[]), 0);
    assert_eq!(objections(Some(REMOVED), true, &[]), 0);
    assert_eq!(objections(Some(REMOVED), false, &[]), 1);
}

#[test]
fn what_a_namespace_serves_that_is_gone_is_seen() {
    let commit = |sent, reply| ask(sent, Asked::Commit([1].into()), reply);
    let right = [
        commit(99, committed(false)),
        get(99, Level::Linearizable, row()),
        commit(101, gone()),
        commit(101, committed(true)),
        get(101, Level::Linearizable, gone()),
        get(101, Level::Local, row()),
    ];
    assert_eq!(objections(Some(REMOVED), true, &right), 0);
    for wrong in [commit(101, committed(false)), get(101, Level::Linearizable, row())] {
        let all: Vec<Request> = right.iter().cloned().chain([wrong]).collect();
        assert_eq!(objections(Some(REMOVED), true, &all), 1);
        assert_eq!(objections(None, true, &all), 0, "it is still there");
    }
}
