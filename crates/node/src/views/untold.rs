//! Whoever waits for a change of the directory hears of it, however its log was cut meanwhile.

use super::*;
use crate::open;
use naust_consensus::Configuration;
use naust_log::sim::SimDisk;
use naust_log::{HardState, Identity, Log};
use naust_machine::{MachineOptions, MemTables};
use naust_wire::control::Control;
use naust_wire::frame::Kind;
use naust_wire::options::NamespaceOptions;
use naust_wire::{NodeId, Term};
use std::sync::Arc;

const SHARD: ShardId = ShardId::DIRECTORY;
const NODE: NodeId = NodeId(1);

fn create(log: &mut Log, term: u64, name: &str) {
    let (name, options) = (name.to_owned(), NamespaceOptions::default());
    let (mut body, index) = (Vec::new(), log.end().index.next());
    Control::CreateNamespace { name, options }.encode(&mut body);
    log.stage(Kind::Control, Term(term), index, LogTime(1), &body);
}

fn write(log: &mut Log) {
    while let Some(write) = log.next_write() {
        log.written(write.run()).unwrap();
    }
}

/// Why: a node that comes back with frames that nobody else has, and leads soon after they were
/// cut off, stages frames below where its log ended. Who waits for them was never answered.
#[test]
fn who_waits_for_a_frame_in_place_of_one_that_was_cut_is_told() {
    let disk = SimDisk::new();
    let identity = Identity { cluster: 1, node: NODE, shard: SHARD };
    Log::create(&disk, identity, &Configuration::single(NODE).encode()).unwrap();
    let (mut log, _) = Log::open(Arc::new(disk.clone()), SHARD).unwrap();
    log.save(HardState { term: Term(1), vote: NODE });
    ["first", "second", "third"].into_iter().for_each(|name| create(&mut log, 1, name));
    write(&mut log);
    let end = log.end();
    drop(log);
    let machine = MachineOptions::default();
    let options =
        open::Options { node: NODE, namespace: NamespaceOptions::default(), machine, seed: 1 };
    let (worker, opened) = open::shard(Arc::new(disk), MemTables::new(), SHARD, &options).unwrap();
    let (mut log, mut outputs) = (worker.log, Vec::new());
    let mut views = Views::new();
    views.install(opened, &mut outputs);
    log.cut_after(Index(1)).unwrap();
    create(&mut log, 2, "other");
    write(&mut log);
    assert!(log.end().offset < end.offset, "the log is shorter than it was");
    let waiter = Waiter { connection: ConnectionId(3), request: RequestId(5) };
    let batch = log.batch(Offset::FIRST, log.end().offset);
    let apply = Apply { batch, first: Index(2), waiters: vec![waiter] };
    views.handle(Now::default(), SHARD, Job::Apply(apply), &mut outputs);
    let made = outputs.iter().filter_map(|output| match output {
        Output::Directory(DirectoryChange::Created { name, told, .. }) => Some((name, told)),
        _ => None,
    });
    let made: Vec<_> = made.map(|(name, told)| (name.as_str(), told.map(|t| t.waiter))).collect();
    assert_eq!(made, [("first", None), ("default", None), ("other", Some(waiter))]);
}
