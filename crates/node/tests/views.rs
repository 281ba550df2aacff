//! What a worker folds in by itself, and what it leaves to the views thread: nothing that takes
//! long or waits for a disk may be done where heartbeats are sent.

#![allow(clippy::unwrap_used)]

use naust_consensus::Configuration;
use naust_log::sim::SimDisk;
use naust_log::{Identity, Log};
use naust_machine::{MachineOptions, MemTables};
use naust_node::views::{Apply, Job, Left, Output, Query, Views, Waiter};
use naust_node::{ConnectionId, Now, open};
use naust_wire::commit::Draft;
use naust_wire::frame::Kind;
use naust_wire::limits::{FOLD_LOOK_BACK_BYTES_MAX, FOLD_WAKES_MAX, STREAM_CHUNK_RECORDS_MAX};
use naust_wire::options::NamespaceOptions;
use naust_wire::read::Query as Question;
use naust_wire::{Index, LogTime, NodeId, Offset, RequestId, Sequence, SessionId, ShardId, Term};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

const NODE: NodeId = NodeId(1);
const SHARD: ShardId = ShardId(5);

/// Views of one shard beside a log that grows.
struct World {
    log: Log,
    views: Views<MemTables>,
    given: Offset,
    outputs: Vec<Output<MemTables>>,
    /// How often the tables were read.
    reads: Arc<AtomicU64>,
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
        let tables = MemTables::new();
        let reads = tables.reads();
        let (_, opened) = open::shard(Arc::new(disk), tables, SHARD, &options).unwrap();
        let (given, views) = (log.end().offset, Views::new());
        let mut world = World { log, views, given, outputs: Vec::new(), reads };
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

    fn log_append(&mut self) {
        self.log_append_to(["s"]);
    }

    fn log_append_to<'s>(&mut self, streams: impl IntoIterator<Item = &'s str>) {
        let mut draft = Draft::default();
        for stream in streams {
            draft.append(stream, &b"a record"[..]).unwrap();
        }
        self.log(&draft);
    }

    /// Waits for a record of stream `s` from an offset on.
    fn wait_for(&mut self, from: Offset) {
        self.wait_for_of("s", from);
    }

    fn wait_for_of(&mut self, stream: &str, from: Offset) {
        let (stream, wait_ms) = (stream.to_owned(), 0);
        let question = Question::Records { stream, from, limit: 9, max_bytes: 0, wait_ms };
        let waiter = Waiter { connection: ConnectionId(1), request: RequestId(1) };
        let query = Job::Query(Query { waiter, question, deadline_ms: 1000 });
        self.views.handle(Now::default(), SHARD, query, &mut self.outputs);
    }

    /// Has a worker fold in what was logged: what is left over, how many readers were answered, and
    /// how often tables were read.
    fn fold_here(&mut self) -> (Left, usize, u64) {
        let (job, before) = (self.job(), self.reads.load(Ordering::Relaxed));
        self.outputs.clear();
        let left = self.views.fold_here(Now::default(), SHARD, job, &mut self.outputs);
        let left = left.ok().expect("it is a small batch");
        (left, self.answered(), self.reads.load(Ordering::Relaxed) - before)
    }

    fn answered(&self) -> usize {
        self.outputs.iter().filter(|output| matches!(output, Output::Read { .. })).count()
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

#[test]
fn readers_who_wait_for_what_tables_hold_are_answered_by_the_views_thread() {
    let mut world = World::new();
    let chunk = STREAM_CHUNK_RECORDS_MAX;
    (0..chunk - 2).for_each(|_| world.log_append());
    world.fold();
    world.wait_for(world.given);
    world.log_append();
    assert_eq!(world.fold_here(), (Left::Nothing, 1, 0), "the record is in memory");
    world.wait_for(world.given);
    world.log_append();
    assert_eq!(world.fold_here(), (Left::ToMaintain, 0, 0), "its chunk is full, and in the tables");
    world.views.maintain(Now::default(), SHARD, &mut world.outputs);
    assert_eq!(world.answered(), 1);
    world.wait_for(world.given);
    world.log_append();
    assert_eq!(world.fold_here(), (Left::Nothing, 1, 0), "a new chunk was begun");
    world.log_append();
    assert_eq!(world.fold_here(), (Left::Nothing, 0, 0), "nobody waits any more");
}

#[test]
fn readers_of_all_streams_that_grew_are_answered_once() {
    let mut world = World::new();
    let streams = ["a", "b", "c", "d"];
    world.log_append_to(streams);
    world.fold();
    streams.iter().for_each(|stream| world.wait_for_of(stream, world.given));
    for grown in [["b", "a"], ["a", "c"], ["b", "a"]] {
        world.log_append_to(grown);
    }
    assert_eq!(world.fold_here(), (Left::Nothing, 3, 0), "but for those of d");
    world.log_append_to(["d"]);
    assert_eq!(world.fold_here(), (Left::Nothing, 1, 0));
}

#[test]
fn most_of_many_readers_are_answered_by_the_views_thread() {
    let mut world = World::new();
    world.log_append();
    world.fold();
    (0..FOLD_WAKES_MAX + 5).for_each(|_| world.wait_for(world.given));
    world.log_append();
    assert_eq!(world.fold_here(), (Left::ToMaintain, FOLD_WAKES_MAX, 0));
    world.views.maintain(Now::default(), SHARD, &mut world.outputs);
    assert_eq!(world.answered(), FOLD_WAKES_MAX + 5);
}
