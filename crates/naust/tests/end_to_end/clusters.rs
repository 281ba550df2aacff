//! Stories of three nodes: what one of them suffers, the others carry.

use crate::cluster::{Cluster, Load};
use crate::support::{block_on, connect};
use rustix::process::Signal;

/// Any node takes any request, and all have what was acknowledged by one.
#[test]
fn what_is_put_on_one_node_is_read_on_all() {
    let cluster = Cluster::start(3);
    block_on(async {
        for (number, node) in cluster.nodes.iter().enumerate() {
            let client = connect(&node.address()).await;
            let users = client.namespace("default").kv("users");
            users.put(format!("{number}"), "there").await.unwrap();
            for other in &cluster.nodes {
                let client = connect(&other.address()).await;
                let users = client.namespace("default").kv("users");
                let got = users.get(format!("{number}")).await.unwrap();
                assert_eq!(got.as_deref(), Some(&b"there"[..]), "{} by {}", node.name, other.name);
            }
        }
    });
}

/// The load goes on through another node; nothing acknowledged is lost, on any replica.
#[test]
fn a_killed_leader_loses_nothing_and_is_soon_replaced() {
    let mut cluster = Cluster::start(3);
    let load = Load::start(cluster.addresses());
    load.wait_for(500);
    for _ in 0..2 {
        let leader = cluster.leader();
        cluster.nodes[leader].process.kill().unwrap();
        load.wait_for(500);
        cluster.nodes[leader].process.restart().unwrap();
        cluster.wait_for_voters(3);
    }
    let ledger = load.end();
    cluster.check(&ledger);
}

/// A node that stands still for a while is not waited for, whether it leads or follows, and comes
/// back as if nothing had been.
#[test]
fn a_paused_node_is_not_waited_for() {
    let cluster = Cluster::start(3);
    let load = Load::start(cluster.addresses());
    load.wait_for(200);
    let leader = cluster.leader();
    for paused in [(leader + 1) % 3, leader] {
        cluster.nodes[paused].signal(Signal::STOP);
        load.wait_for(500);
        cluster.nodes[paused].signal(Signal::CONT);
        cluster.wait_for_voters(3);
    }
    let ledger = load.end();
    cluster.check(&ledger);
}
