//! A model test: random lives of a shard on tables in memory. See `support::life`.

#![allow(clippy::unwrap_used)]

mod support;

use naust_machine::MemTables;
use naust_machine::contract::Fixture;
use naust_wire::commit::Draft;
use naust_wire::{LogTime, Offset, SessionId, ShardId};
use support::life::lives;
use support::{Log, open};

/// Tables of which only what a disk would hold is there when they are opened again.
#[derive(Default)]
struct InMemory(Option<MemTables>);

impl Fixture for InMemory {
    type T = MemTables;

    fn open(&mut self) -> MemTables {
        let tables = self.0.take().map_or_else(MemTables::new, |tables| tables.crash());
        self.0 = Some(tables.share());
        tables
    }
}

#[test]
fn short_lives_agree_with_the_model() {
    lives(0..100, 500, InMemory::default);
}

#[test]
fn long_lives_agree_with_the_model() {
    lives(1000..1010, 6000, InMemory::default);
}

#[test]
fn time_does_not_go_back() {
    let mut log = Log::default();
    let mut machine = open(MemTables::new(), ShardId(1), &log);
    let (mut ahead, mut behind) = (Draft::default(), Draft::default());
    ahead.append("s", &b"1"[..]).unwrap();
    behind.append("s", &b"2"[..]).unwrap();
    for (time, draft) in [(5000, ahead), (10, behind)] {
        log.time = LogTime(time);
        let logged = log.commit(&draft, SessionId::NONE, (0, 0));
        machine.apply(&logged.frame()).unwrap();
    }
    let located = machine.locate("s", Offset::ZERO, 10, 10).unwrap();
    let times: Vec<u64> = located.places.iter().map(|place| place.time.0).collect();
    assert_eq!(times, [5000, 5000]);
}
