//! Stories of three nodes: what one of them suffers, the others carry.

use crate::cluster::{Cluster, Load};
use crate::support::{
    Killed, Started, assert_refused, block_on, connect, naust, try_start, wait_until,
};
use rustix::process::Signal;
use std::collections::BTreeMap;
use std::io::Read as _;
use std::process::Stdio;
use std::time::{Duration, Instant};

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
    let load = Load::on(&cluster, 500);
    for _ in 0..2 {
        let leader = cluster.leader();
        cluster.nodes[leader].process.kill().unwrap();
        load.wait_for(500);
        cluster.nodes[leader].process.restart().unwrap();
        cluster.wait_for_voters(3);
    }
    cluster.check(&load.end());
}

/// A node that stands still for a while is not waited for, whether it leads or follows, and comes
/// back as if nothing had been.
#[test]
fn a_paused_node_is_not_waited_for() {
    let cluster = Cluster::start(3);
    let load = Load::on(&cluster, 200);
    let leader = cluster.leader();
    for paused in [(leader + 1) % 3, leader] {
        cluster.nodes[paused].signal(Signal::STOP);
        load.wait_for(500);
        cluster.nodes[paused].signal(Signal::CONT);
        cluster.wait_for_voters(3);
    }
    cluster.check(&load.end());
}

/// Why: without a quorum nobody can be served, and has to learn soon what became of his request: of
/// a read nothing can be unknown. A load balancer has to learn that the node is of no use.
#[test]
fn without_a_quorum_http_says_so() {
    let mut cluster = Cluster::start(3);
    let leader = cluster.leader();
    for other in [(leader + 1) % 3, (leader + 2) % 3] {
        cluster.nodes[other].process.kill().unwrap();
    }
    let http = cluster.nodes[leader].process.http_address();
    let ask = |method, path: &str| crate::web::ask(&http, method, path, &[], b"1");
    let unavailable = (503, "unavailable".to_owned(), "not_done".to_owned());
    wait_until("it to be not ready", || ask("GET", "/readyz").status != 200);
    assert_eq!(ask("GET", "/readyz").problem(), unavailable);
    assert_eq!(ask("GET", "/v1/default/streams/orders").problem(), unavailable);
    assert_eq!(ask("GET", "/v1/default/kv/users/a").problem(), unavailable);
    let (status, code, outcome) = ask("PUT", "/v1/default/kv/users/a").problem();
    let told = (status, code.as_str(), outcome.as_str());
    let legal = [(503, "unavailable", "not_done"), (504, "timed_out", "unknown")];
    assert!(legal.contains(&told), "{told:?}");
    assert_eq!(ask("GET", "/healthz").status, 200);
}

/// A new release is rolled out: each node is told to end and started again, and no request that is
/// sent again fails.
#[test]
fn a_rolling_restart_loses_no_request() {
    let mut cluster = Cluster::start(3);
    let load = Load::on(&cluster, 500);
    for which in 0..3 {
        cluster.nodes[which].process.terminate().unwrap();
        load.wait_for(200);
        cluster.nodes[which].process.restart().unwrap();
        cluster.wait_for_voters(3);
    }
    cluster.check(&load.end());
}

/// Where the replicas of `default` end, by node, as a node tells it; `None`: it does not know.
type Ends = BTreeMap<String, Option<u64>>;

/// What a node tells of `default`: who leads it, and where its replicas end.
fn ends(cluster: &Cluster, which: usize) -> Option<(Option<String>, Ends)> {
    let told = cluster.naust(which, &["cluster", "status", "--json"]);
    let mut lines = told.lines().map(|line| serde_json::from_str(line).unwrap());
    let default = lines.find(|line: &serde_json::Value| line["namespace"] == "default")?;
    let of = |one: &serde_json::Value| Some((one["node"].as_str()?.into(), one["end"].as_u64()));
    let ends = default["replicas"].as_array()?.iter().map(of).collect::<Option<Ends>>()?;
    Some((default["leader"].as_str().map(Into::into), ends))
}

/// Waits until each of these nodes tells that all replicas end at one offset; that offset.
fn wait_for_one_end(cluster: &Cluster, asked: &[usize]) -> u64 {
    let mut found = 0;
    wait_until("all replicas to end alike", || {
        let told = asked.iter().map(|&which| ends(cluster, which).map(|(_, ends)| ends));
        let told: Vec<Ends> = told.map(Option::unwrap_or_default).collect();
        found = told[0].values().next().copied().flatten().unwrap_or_default();
        let alike = |ends: &Ends| ends.len() == 3 && ends.values().all(|end| *end == Some(found));
        told.iter().all(alike)
    });
    found
}

/// How long a leader may take to tell what it knows. What it does not tell by then, it does not
/// know: on a busy machine it, or another, may have been elected since that replica was heard last.
const TELLS_AFTER_MAX: Duration = Duration::from_secs(8);

/// Why: it was noted at ticks only, and for one that went down before the next was told too low.
///
/// Whether both of these nodes tell soon that the replica of the third, which is down, ends at or
/// behind `before`, and the two others alike behind that; the first of them leads.
fn tell_of_one_that_is_down(cluster: &Cluster, asked: [usize; 2], before: u64) -> bool {
    let name = |which: usize| &cluster.nodes[which].name;
    let down = name(3 - asked[0] - asked[1]);
    let start = Instant::now();
    asked.iter().all(|&which| {
        loop {
            let seen = ends(cluster, which);
            let is_told = seen.as_ref().is_some_and(|(leads, ends)| {
                let [last, other] = asked.map(|one| ends[name(one)]);
                let known = ends[down].is_some_and(|end| before <= end && Some(end) < last);
                leads.as_ref() == Some(name(asked[0])) && known && other == last
            });
            if is_told || start.elapsed() > TELLS_AFTER_MAX {
                println!("{} tells {seen:?}, {before} before", name(which));
                return is_told;
            }
        }
    })
}

/// Whoever looks at a cluster sees where the logs of all replicas end, whichever node he asks; of
/// one that is down, what the leader knows; and that is nothing once another leads.
#[test]
fn any_node_tells_where_all_replicas_end() {
    let mut cluster = Cluster::start(3);
    let put = |cluster: &Cluster, which: usize| {
        cluster.naust(which, &["kv", "put", "users", "ada", "1"]);
    };
    put(&cluster, 0);
    for attempt in 1.. {
        assert!(attempt <= 5, "in none of five attempts did a leader know it");
        let before = wait_for_one_end(&cluster, &[0, 1, 2]);
        let leader = cluster.leader();
        let (down, other) = ((leader + 1) % 3, (leader + 2) % 3);
        let names = cluster.nodes.iter().map(|node| node.name.clone()).collect::<Vec<_>>();
        cluster.nodes[down].process.kill().unwrap();
        put(&cluster, other);
        let is_told = tell_of_one_that_is_down(&cluster, [leader, other], before);
        if is_told {
            cluster.naust(other, &["cluster", "transfer", "default", &names[other]]);
            for which in [leader, other] {
                wait_until("a new leader that knows nothing", || {
                    ends(&cluster, which).is_some_and(|(leads, ends)| {
                        let two = [leader, other].map(|one| ends[&names[one]]);
                        let is_known = ends[&names[down]].is_some();
                        leads.as_ref() == Some(&names[other]) && two[0] == two[1] && !is_known
                    })
                });
            }
        }
        cluster.nodes[down].process.restart().unwrap();
        assert!(before < wait_for_one_end(&cluster, &[0, 1, 2]));
        if is_told {
            return;
        }
    }
}

/// A machine is gone with its disk: another takes its place.
#[test]
fn a_lost_node_is_replaced_under_load() {
    let mut cluster = Cluster::start(3);
    let load = Load::on(&cluster, 300);
    let gone = cluster.lose(1);
    load.wait_for(300);
    let new = cluster.join().name.clone();
    let told = cluster.naust(0, &["cluster", "replace", &gone, &new]);
    assert_eq!(told, format!("node {gone} is out; node {new} takes part\n"));
    cluster.wait_for_voters(3);
    load.wait_for(100);
    cluster.check(&load.end());
    let told = cluster.naust(1, &["cluster", "transfer", "default", &new]);
    assert_eq!(told, format!("node {new} leads default\n"));
    assert!(cluster.naust(1, &["namespace", "list"]).contains(&format!("leader {new}")));
}

/// Why: a node that was replaced while it was down waited for its old cluster for ever, without a
/// word, or came back into it beside the one that had taken its place.
#[test]
fn a_node_that_was_replaced_while_it_was_down_is_told_so() {
    let mut cluster = Cluster::start(3);
    let scratch = tempfile::tempdir().unwrap();
    let data = cluster.directory(1);
    let mut gone = cluster.nodes.remove(1);
    gone.process.kill().unwrap();
    let new = cluster.join().name.clone();
    cluster.naust(0, &["cluster", "replace", &gone.name, &new]);
    cluster.wait_for_voters(3);
    let through = cluster.nodes[0].address();
    for arguments in [&[][..], &["--join", &through]] {
        match try_start(&data, scratch.path(), arguments) {
            Started::Ended(status, errors) => {
                assert_eq!(status.code(), Some(1), "{errors}");
                let last = errors.lines().last().unwrap();
                assert!(
                    last.starts_with("naust: this node was removed from its cluster"),
                    "{last}"
                );
            }
            // It knew its namespaces, and served until it was told.
            Started::Ready(mut node) => {
                assert_eq!(node.wait().code(), Some(1), "{}", node.errors());
                assert!(node.errors().contains("was removed from its cluster"));
            }
        }
        cluster.wait_for_voters(3);
    }
    // One that was down and is still wanted comes back.
    let mut down = cluster.nodes.remove(1);
    down.process.kill().unwrap();
    down.process.restart().unwrap();
    cluster.nodes.push(down);
    cluster.wait_for_voters(3);
}

/// Why: a comparison waited for a node that hangs, once for each namespace.
#[test]
fn a_node_that_hangs_is_told_of_by_a_comparison() {
    let cluster = Cluster::start(3);
    for name in ["shop", "inn", "pier"] {
        cluster.naust(0, &["namespace", "create", name]);
    }
    cluster.wait_for_voters(3);
    let hangs = (cluster.leader() + 1) % 3;
    cluster.nodes[hangs].process.pause().unwrap();
    let asked = cluster.nodes[(hangs + 1) % 3].address();
    let mut command = naust(&["log", "verify", "--cluster", "--address", &asked]);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = Killed(command.spawn().unwrap());
    wait_until("the comparison", || child.0.try_wait().unwrap().is_some());
    let mut told = String::new();
    child.0.stdout.take().unwrap().read_to_string(&mut told).unwrap();
    assert_eq!(child.0.wait().unwrap().code(), Some(1), "{told}");
    let name = &cluster.nodes[hangs].name;
    let lines = told.lines().filter(|line| line.contains(" NOT COMPARED: "));
    let lines: Vec<&str> = lines.collect();
    assert_eq!(lines.len(), 5, "{told}");
    assert!(lines.iter().all(|line| line.trim_start().starts_with(name)), "{told}");
}

/// What can't be is told in one sentence.
#[test]
fn wrong_ways_into_a_cluster_are_refused() {
    let mut cluster = Cluster::start(2);
    let scratch = tempfile::tempdir().unwrap();
    let at = |name: &str| scratch.path().join(name);
    let first = cluster.nodes[0].address();
    // The directory of another cluster's node.
    let Started::Ready(stranger) = try_start(&at("stranger"), scratch.path(), &["--bootstrap"])
    else {
        panic!("a node on an empty directory starts")
    };
    drop(stranger);
    let refused = try_start(&at("stranger"), scratch.path(), &["--join", &first]);
    assert_refused(refused, &["belongs to cluster", "join with an empty directory"]);
    // A second cluster on the directory of a node that joined one.
    cluster.nodes[1].process.kill().unwrap();
    let joined = cluster.directory(1);
    let refused = try_start(&joined, scratch.path(), &["--bootstrap"]);
    assert_refused(refused, &["belongs to a node that joined cluster", "leave out --bootstrap"]);
    cluster.nodes[1].process.restart().unwrap();
    cluster.wait_for_voters(2);
    // A name that is taken.
    let refused = try_start(&at("twin"), scratch.path(), &["--join", &first, "--name", "n2"]);
    assert_refused(refused, &["can't join the cluster", "there is a node \"n2\" already"]);
    // A node that is not there.
    let mut remove = naust(&["cluster", "remove", "n3"]);
    let output = remove.env("NAUST_ADDRESS", &first).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(told.contains("there is no node \"n3\"; there are"), "{told}");
    assert_eq!(output.status.code(), Some(1));
}

/// Why: with more nodes than a namespace has replicas, the node that is asked may know nothing of
/// it. Commands that wait for replicas took that for there being none.
#[test]
fn a_node_without_a_replica_asks_those_that_have_one() {
    let mut cluster = Cluster::start(3);
    cluster.naust(0, &["kv", "put", "users", "ada", "1"]);
    let new = cluster.join().name.clone();
    let told = cluster.naust(3, &["cluster", "add", &new]);
    assert_eq!(told, format!("node {new} takes part\n"));
    let seen = cluster.nodes[3].sees().unwrap();
    let default = seen.namespaces.iter().find(|known| known.name == "default").unwrap();
    assert_eq!((default.end, default.replicas.len()), (None, 0), "it has no replica");
    wait_for_one_end(&cluster, &[3]);
    wait_until("the directory to be the same on all four", || {
        let address = cluster.nodes[3].address();
        let output = naust(&["log", "verify", "--cluster", "--address", &address]).output();
        let told = String::from_utf8(output.unwrap().stdout).unwrap();
        told.matches(": same\n").count() == 4 + 3
    });
    // It is not out before its replica of `default` is.
    let gone = cluster.nodes[0].name.clone();
    cluster.naust(3, &["cluster", "remove", &gone]);
    let (_, replicas) = ends(&cluster, 3).unwrap();
    assert!(!replicas.is_empty() && !replicas.contains_key(&gone), "{replicas:?}");
}
