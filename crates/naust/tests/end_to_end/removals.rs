//! Namespaces that are removed while they are used.

use crate::cluster::{Cluster, Member};
use crate::support::{Killed, block_on, connect, naust, wait_until};
use crate::web;
use naust_client::{Client, Code};
use naust_wire::options::NamespaceOptions;
use naust_wire::reply::Namespace;
use std::collections::BTreeSet;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Times that the namespace comes and goes.
const ROUNDS: u64 = 20;

/// What was begun after a removal was acknowledged was acknowledged, too, so many times; and how
/// many writes were acknowledged at all.
#[derive(Default)]
struct Told {
    too_late: AtomicU64,
    acknowledged: AtomicU64,
}

/// Writes to the namespace as long as it may, and reads back what was acknowledged. `gone` is set
/// while it is removed, for certain.
async fn write(client: Client, gone: Arc<AtomicBool>, over: Arc<AtomicBool>, told: Arc<Told>) {
    let shop = client.namespace("shop");
    let users = shop.kv("users");
    while !over.load(Ordering::SeqCst) {
        let was_gone = gone.load(Ordering::SeqCst);
        let put = users.put("ada", "1").await;
        let is_gone = was_gone && gone.load(Ordering::SeqCst);
        match put {
            Ok(_) if is_gone => drop(told.too_late.fetch_add(1, Ordering::SeqCst)),
            Ok(_) => drop(told.acknowledged.fetch_add(1, Ordering::SeqCst)),
            // As the namespace comes and goes, or as leaders do.
            Err(error) => assert!(error.code != Code::Corrupt, "{error}"),
        }
    }
}

/// Why: writes that were acknowledged by nodes that had not heard of the removal were lost. Here
/// each node has a client that writes while the namespace comes and goes.
#[test]
fn nothing_is_acknowledged_once_a_namespace_is_removed() {
    let cluster = Cluster::start(3);
    let (gone, over) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicBool::new(false)));
    let told = Arc::new(Told::default());
    block_on(async {
        let mut writers = Vec::new();
        for node in &cluster.nodes {
            let client = connect(&node.address()).await;
            let (gone, over) = (Arc::clone(&gone), Arc::clone(&over));
            writers.push(tokio::spawn(write(client, gone, over, Arc::clone(&told))));
        }
        for round in 0..ROUNDS {
            let through = connect(&cluster.nodes[round as usize % 3].address()).await;
            gone.store(false, Ordering::SeqCst);
            let before = told.acknowledged.load(Ordering::SeqCst);
            through.create_namespace("shop", NamespaceOptions::default()).await.unwrap();
            while told.acknowledged.load(Ordering::SeqCst) < before + 20 {
                tokio::task::yield_now().await;
            }
            through.delete_namespace("shop").await.unwrap();
            gone.store(true, Ordering::SeqCst);
            let missing = through.namespace("shop").kv("users").get("ada").await.unwrap_err();
            assert_eq!(missing.code, Code::NamespaceNotFound, "{missing}");
        }
        over.store(true, Ordering::SeqCst);
        for writer in writers {
            writer.await.unwrap();
        }
    });
    assert_eq!(told.too_late.load(Ordering::SeqCst), 0);
    assert!(told.acknowledged.load(Ordering::SeqCst) >= ROUNDS * 20);
}

/// The names of namespaces of which most voters are the two nodes that joined last, as those say
/// that have one.
fn weak(cluster: &Cluster) -> BTreeSet<String> {
    let last = [&cluster.nodes[3].name, &cluster.nodes[4].name];
    let all = cluster.nodes.iter().filter_map(Member::sees);
    all.flat_map(|seen| {
        let of_last = |id| seen.nodes.iter().any(|one| one.id == id && last.contains(&&one.name));
        let is_weak = |namespace: &&Namespace| {
            let voters = namespace.replicas.iter().filter(|replica| replica.voter);
            voters.filter(|replica| of_last(replica.node)).count() == 2
        };
        let names = seen.namespaces.iter().filter(is_weak).map(|namespace| namespace.name.clone());
        names.collect::<Vec<String>>()
    })
    .collect()
}

/// Why: what most of the replicas may have acknowledged can't be ended without them, and must not
/// be forgotten behind their backs unless the operator says so.
#[test]
fn a_removal_waits_for_the_replicas_or_is_forced() {
    let mut cluster = Cluster::start(3);
    cluster.join();
    cluster.join();
    wait_until("five nodes", || {
        cluster.nodes.iter().all(|node| node.sees().is_some_and(|seen| seen.nodes.len() == 5))
    });
    let mut made = 0;
    wait_until("two namespaces on the two that joined", || {
        made += 1;
        cluster.naust(0, &["namespace", "create", &format!("n{made}")]);
        weak(&cluster).len() >= 2
    });
    let names: Vec<String> = weak(&cluster).into_iter().collect();
    let (first, second) = (&names[0], &names[1]);
    for which in [3, 4] {
        cluster.nodes[which].process.kill().unwrap();
    }
    let http = cluster.nodes[0].process.http_address();
    let of = |name: &str| {
        let list = web::ask(&http, "GET", "/v1/namespaces", &[], b"").json();
        let all = list["namespaces"].as_array().unwrap().iter();
        all.into_iter().find(|one| one["name"] == *name).cloned()
    };
    // The command line asks again until it is done.
    let mut asks = naust(&["namespace", "delete", first]);
    let asks = asks.env("NAUST_ADDRESS", cluster.nodes[1].address());
    let mut asks = Killed(asks.stdout(Stdio::null()).spawn().unwrap());
    wait_until("the removal to begin", || of(first).unwrap()["closing"] == true);
    let delete =
        |path: &str| web::ask(&http, "DELETE", &format!("/v1/namespaces/{path}"), &[], b"");
    let late = delete(first);
    assert_eq!(late.problem(), (504, "timed_out".to_owned(), "unknown".to_owned()));
    assert!(late.text().contains("is still being removed"), "{}", late.text());
    assert!(of(second).unwrap()["closing"].is_null());
    let again = web::ask(
        &http,
        "POST",
        "/v1/namespaces",
        &[],
        format!("{{\"name\": \"{first}\"}}").as_bytes(),
    );
    assert_eq!(again.problem().1, "namespace_exists");
    let forced = delete(&format!("{second}?force=true"));
    assert_eq!(forced.status, 200, "{}", forced.text());
    assert_eq!(of(second), None);

    cluster.nodes[3].process.restart().unwrap();
    wait_until("the removal", || of(first).is_none());
    assert!(asks.0.wait().unwrap().success());
}
