//! A node and a shard without a shell, for tests of what is within.

use super::{Config, Node, Pace};
use crate::open::{self, ForWorker};
use naust_consensus::Configuration;
use naust_log::sim::SimDisk;
use naust_log::{Identity, Log};
use naust_machine::{MachineOptions, MemTables};
use naust_wire::options::NamespaceOptions;
use naust_wire::{NodeId, ShardId};
use std::sync::Arc;

const NODE: NodeId = NodeId(1);

/// A node that has no shard yet.
pub(super) fn node() -> Node {
    Node::new(Config {
        node: NODE,
        name: "one".to_owned(),
        address: String::new(),
        version: String::new(),
        token: None,
        worker: 0,
        workers: 1,
        cluster: 1,
        founder: true,
        pace: Pace { scrub_bytes_per_s: 0, ..Pace::default() },
    })
}

/// A new shard of that node alone.
pub(super) fn opened(shard: ShardId) -> ForWorker {
    let disk = SimDisk::new();
    let identity = Identity { cluster: 1, node: NODE, shard };
    Log::create(&disk, identity, &Configuration::single(NODE).encode()).unwrap();
    let (namespace, machine) = (NamespaceOptions::default(), MachineOptions::default());
    let options = open::Options { node: NODE, namespace, machine, seed: 1 };
    open::shard(Arc::new(disk), MemTables::new(), shard, &options).unwrap().0
}
