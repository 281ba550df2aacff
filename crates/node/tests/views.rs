//! What a worker folds in by itself, and what it leaves to the views thread: nothing that takes
//! long or waits for a disk may be done where heartbeats are sent.

#![allow(clippy::unwrap_used)]

use naust_consensus::Configuration;
use naust_log::sim::SimDisk;
use naust_log::{Identity, Log};
use naust_machine::{MachineOptions, MemTables};
use naust_node::views::{Apply, Job, Left, Output, Views};
use naust_node::{Now, open};
use naust_wire::commit::Draft;
use naust_wire::frame::Kind;
use naust_wire::limits::FOLD_LOOK_BACK_BYTES_MAX;
use naust_wire::options::NamespaceOptions;
use naust_wire::{Index, LogTime, NodeId, Offset, Sequence, SessionId, ShardId, Term};
use std::sync::Arc;

const NODE: NodeId = NodeId(1);
const SHARD: ShardId = ShardId(5);

/// Views of one shard beside a log that grows.
struct World {
    log: Log,
    views: Views<MemTables>,
    given: Offset,
    outputs: Vec<Output<MemTables>>,
}

impl World {
    fn new() -> World {
        let disk = SimDisk::new();
        let identity = Identity { node: NODE, shard: SHARD, cluster: 1 };
        open::create(&disk, identity, &Configuration::single(NODE).encode()).unwrap();
        let (log, _) = Log::open(Arc::new(disk.clone()), SHARD).unwrap();
        let options = open::Options {
            node: NODE,
            namespace: NamespaceOptions::default(),
            machine: MachineOptions::default(),
            seed: 1,
        };
        let (_, opened) = open::shard(Arc::new(disk), MemTables::new(), SHARD, &options).unwrap();
        let mut world =
            World { given: log.end().offset, log, views: Views::new(), outputs: Vec::new() };
        world.views.install(opened, &mut world.outputs);
        world
    }

    /// Logs a commit; where it begins.
    fn log(&mut self, draft: &Draft<'_>) -> Offset {
        let mut body = Vec::new();
        draft.encode(SessionId::NONE, Sequence(0), Sequence(0), &mut body).unwrap();
        let index = Index(self.log.end().index.0 + 1);
        self.log.stage(Kind::Commit, Term(1), index, LogTime(1), &body).offset
    }

    fn log_put(&mut self, bytes: usize) -> Offset {
        let mut draft = Draft::default();
        draft.put("t", &b"k"[..], vec![7; bytes]).unwrap();
        self.log(&draft)
    }

    fn log_unchanged(&mut self, since: &[Offset]) {
        let mut draft = Draft::default();
        for since in since {
            draft.unchanged("t", &b"x"[..], Some(b"y"[..].into()), *since).unwrap();
        }
        draft.put("t", &b"k"[..], &b"v"[..]).unwrap();
        self.log(&draft);
    }

    /// Everything that was logged and not given yet.
    fn job(&mut self) -> Job {
        let end = self.log.end();
        let batch = self.log.batch(self.given, end.offset);
        self.given = end.offset;
        Job::Apply(Apply { batch, first: end.index.next(), waiters: Vec::new() })
    }

    /// Has the views thread fold in what was logged.
    fn fold(&mut self) {
        let job = self.job();
        self.views.handle(Now::default(), SHARD, job, &mut self.outputs);
    }

    /// Whether a worker folds in by itself what was logged; else the views thread does.
    fn folds_here(&mut self) -> bool {
        let job = self.job();
        match self.views.fold_here(Now::default(), SHARD, job, &mut self.outputs) {
            Ok(left) => {
                assert_eq!(left, Left::Nothing);
                true
            }
            Err(job) => {
                self.views.handle(Now::default(), SHARD, job, &mut self.outputs);
                false
            }
        }
    }
}

#[test]
fn a_long_look_back_over_recent_writes_is_for_the_views_thread() {
    let mut world = World::new();
    let old = world.log_put(1 << 20);
    let new = world.log_put(100);
    world.fold();
    world.log_unchanged(&[new]);
    assert!(world.folds_here(), "a look at the last writes takes no time");
    world.log_unchanged(&[old]);
    assert!(!world.folds_here(), "a look at a mebibyte of log may take long");
}

#[test]
fn looks_back_are_added_up_over_a_batch() {
    let mut world = World::new();
    let half = FOLD_LOOK_BACK_BYTES_MAX as usize / 2;
    let old = world.log_put(half);
    world.log_put(100);
    world.fold();
    world.log_unchanged(&[old]);
    assert!(world.folds_here());
    world.log_unchanged(&[old, old]);
    assert!(!world.folds_here(), "two conditions of one commit");
    world.log_unchanged(&[old]);
    world.log_unchanged(&[old]);
    assert!(!world.folds_here(), "two commits of one batch");
}
