//! Who speaks to nodes as if he were one, and what is asked of a cluster that it can't do.

use crate::cluster::{Cluster, Load};
use crate::support::{Draw, block_on, connect, naust, wait_until};
use crate::wire_client::Wire;
use naust_wire::packet::{self, Kind};
use naust_wire::peer::{self, Peer, Raft, Said};
use naust_wire::{NodeId, RequestId, ShardId, Term};
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};

/// Kind of a Raft message that asks for a vote, as `consensus` numbers them, and all others.
const RAFT_KINDS: std::ops::Range<u8> = 0..24;

/// Sends bytes and waits until the node has read them or hung up.
fn say(address: &str, bytes: &[u8]) {
    let mut socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(crate::support::DEADLINE)).unwrap();
    // It may hang up before it has read everything.
    if socket.write_all(bytes).is_ok() && socket.shutdown(Shutdown::Write).is_ok() {
        let _ = socket.read_to_end(&mut Vec::new());
    }
}

fn greeting(from: NodeId, to: NodeId, cluster: u64) -> Peer {
    let (name, address) = ("intruder".to_owned(), "127.0.0.1:1".to_owned());
    Peer { from, to, said: Said::Hello { cluster, name, address } }
}

/// Why: what listens on a network is spoken to by anything. Garbage, packets of an unknown version,
/// nodes of other clusters and nodes that nobody knows change nothing, and nobody hears of a term
/// that they made up.
#[test]
fn who_is_no_node_of_the_cluster_changes_nothing() {
    let cluster = Cluster::start(3);
    let load = Load::on(&cluster, 200);
    let leader = cluster.leader();
    let seen = block_on(async { connect(&cluster.nodes[0].address()).await.cluster().await });
    let ids: Vec<NodeId> = seen.unwrap().nodes.iter().map(|node| node.id).collect();
    let mut draw = Draw::new(11);
    for node in &cluster.nodes {
        let address = node.address();
        let garbage: Vec<u8> = (0..4096).map(|_| draw.next() as u8).collect();
        say(&address, &garbage);
        let mut unknown = Vec::new();
        packet::write(Kind::PeerToAll, RequestId(0), ShardId(0), &garbage[..64], &mut unknown);
        say(&address, &unknown);
        // The version stands behind the first byte.
        unknown[1] = 0xfe;
        say(&address, &unknown);
        for to in &ids {
            for (from, cluster) in [(NodeId(77), 1), (ids[0], 1), (ids[1], 0)] {
                let mut bytes = Vec::new();
                peer::write(ShardId(0), &greeting(from, *to, cluster), &mut bytes);
                for kind in RAFT_KINDS {
                    let said = Said::Raft(Raft { kind, term: Term(1 << 40), ..Raft::default() });
                    let peer = Peer { from, to: *to, said };
                    peer::write(ShardId(1), &peer, &mut bytes);
                }
                say(&address, &bytes);
            }
        }
    }
    load.wait_for(500);
    assert_eq!(cluster.leader(), leader, "an intruder brought a leader down");
    cluster.check(&load.end());
}

/// Why: what an operator types in haste must not cost the cluster its quorum.
#[test]
fn what_would_cost_the_quorum_is_refused() {
    let mut cluster = Cluster::start(3);
    let refused = |cluster: &Cluster, which: usize, arguments: &[&str]| {
        let address = cluster.nodes[which].address();
        let output = naust(arguments).env("NAUST_ADDRESS", address).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{arguments:?} was not refused");
        String::from_utf8(output.stderr).unwrap()
    };
    // With one of three dead, another one is needed.
    cluster.nodes[2].process.kill().unwrap();
    let dead = cluster.nodes[2].name.clone();
    wait_until("the death to be known", || {
        let sees = |node: &crate::cluster::Member| {
            let seen = node.sees();
            seen.is_some_and(|seen| seen.nodes.iter().any(|one| one.name == dead && !one.up))
        };
        cluster.nodes[..2].iter().all(sees)
    });
    let told = refused(&cluster, 0, &["cluster", "remove", "n2"]);
    assert!(told.contains("there is no quorum"), "{told}");
    let told = refused(&cluster, 0, &["cluster", "replace", "n2", "n3"]);
    assert!(told.contains("is down"), "{told}");
    cluster.nodes[2].process.restart().unwrap();
    cluster.wait_for_voters(3);
    // Down to one, which can't be removed.
    for gone in ["n3", "n2"] {
        let told = cluster.naust(0, &["cluster", "remove", gone]);
        assert_eq!(told, format!("node {gone} is out of the cluster\n"));
        cluster.lose(cluster.nodes.len() - 1);
        cluster.wait_for_voters(cluster.nodes.len());
    }
    let told = refused(&cluster, 0, &["cluster", "remove", "n1"]);
    assert!(told.contains("it is the only node"), "{told}");
    // It serves all the same.
    assert!(Wire::enter(&cluster.nodes[0].address(), "default").get("k", "a").is_none());
}
