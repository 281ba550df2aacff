//! Namespaces that acknowledge before they sync.

use crate::kills::drive;
use crate::ledger::{Found, OPTIONS, commit, draft};
use crate::support::{Draw, Node, block_on, connect, wait_until};
use naust_client::{Identity, Level};
use naust_wire::Sequence;
use naust_wire::options::{Durability, NamespaceOptions};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

const KILLS: u64 = 10;
/// Answers, each after a way through the node, among which one is as it must be at last.
const ASKED_MAX: u64 = 100_000;

fn of_interval(ms: u32) -> NamespaceOptions {
    NamespaceOptions { durability: Durability::IntervalMs(ms), ..NamespaceOptions::default() }
}

/// Why: no durability may lose to a kill what was acknowledged. With a minute between syncs, most
/// of it is only in the system's memory when the process ends.
#[test]
fn kills_take_nothing_that_was_acknowledged_before_its_sync() {
    let mut node = Node::start(&OPTIONS);
    block_on(async {
        let client = connect(&node.address()).await;
        client.create_namespace("fast", of_interval(60_000)).await.unwrap();
    });
    let acknowledged = Arc::new(AtomicU64::new(0));
    let ended = Arc::new(AtomicBool::new(false));
    let load = std::thread::spawn({
        let (address, acknowledged, ended) =
            (node.address(), Arc::clone(&acknowledged), Arc::clone(&ended));
        move || {
            block_on(async {
                let fast = connect(&address).await.namespace("fast");
                drive(&fast, 0, &acknowledged, &ended).await
            })
        }
    });
    let mut draw = Draw::new(3);
    let mut threshold = 0;
    for _ in 0..KILLS {
        threshold = acknowledged.load(Ordering::Relaxed).max(threshold) + 1 + draw.below(400);
        wait_until("acknowledged commits", || {
            acknowledged.load(Ordering::Relaxed) >= threshold || load.is_finished()
        });
        assert!(!load.is_finished(), "the load failed: {:?}", load.join().map(|_| ()));
        node.kill_and_restart();
    }
    ended.store(true, Ordering::Relaxed);
    let ledger = load.join().unwrap();
    let found = || block_on(Found::read_in(&node.address(), "fast", Level::Linearizable)).unwrap();
    ledger.check(&found());
}

/// Why: whoever gets an answer must be able to tell which of the two it promises, and how to wait
/// for the other: a commit of a session that is sent again is answered as it stands now.
#[test]
fn an_answer_says_whether_the_commit_is_synced() {
    let node = Node::start(&OPTIONS);
    block_on(async {
        let client = connect(&node.address()).await;
        for (name, ms) in [("slow", 60_000), ("quick", 1)] {
            client.create_namespace(name, of_interval(ms)).await.unwrap();
        }
        let slow = client.namespace("slow");
        // The first have the namespace lead, which is synced.
        let mut number = 1;
        while !slow.submit(commit(number)).await.unwrap().interval {
            number += 1;
            assert!(number < ASKED_MAX, "every commit is synced");
        }
        assert!(!client.namespace("default").submit(commit(1)).await.unwrap().interval);
        let quick = client.namespace("quick");
        let session = quick.open_session(0).await.unwrap();
        let sequence = Sequence(1);
        let identity = Identity::Explicit { session, sequence, acked_below: sequence };
        let first = quick.commit_draft(&draft(1), identity).await.unwrap();
        for _ in 0..ASKED_MAX {
            let again = quick.commit_draft(&draft(1), identity).await.unwrap();
            assert!(again.duplicate && again.offset == first.offset, "{again:?}");
            if !again.interval {
                return;
            }
        }
        panic!("asked {ASKED_MAX} times, and not synced after a millisecond");
    });
    let listed = node.naust(&["namespace", "list", "--json"]);
    let listed = String::from_utf8(listed.stdout).unwrap();
    assert!(listed.contains(r#""interval_ms":60000"#), "{listed}");
}
