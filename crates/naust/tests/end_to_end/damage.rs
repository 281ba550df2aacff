//! Tables that are damaged where only a condition or a compaction looks: that namespace alone is
//! closed, and says so.

use crate::support::{Ready, SMALL_TABLES, Started, spoil_tables, try_start, wait_until};
use crate::web;
use crate::wire_client::Wire;
use naust_client::{Code, Outcome};
use naust_wire::commit::Draft;
use naust_wire::packet::Kind;
use naust_wire::reply::{Failure, Reply};
use naust_wire::{Sequence, SessionId};
use std::path::Path;

/// Rows that are there before the damage: about a MiB.
const ROWS: u64 = 2000;

fn start(data: &Path, scratch: &Path) -> Ready {
    match try_start(data, scratch, &SMALL_TABLES) {
        Started::Ready(ready) => ready,
        Started::Ended(status, errors) => panic!("{status}: {errors}"),
    }
}

fn stop(mut node: Ready) -> String {
    node.signal(rustix::process::Signal::TERM);
    assert!(node.wait().success(), "{}", node.errors());
    node.errors()
}

/// Asks for a namespace to be made and for rows in it.
fn fill(node: &Ready, namespace: &str) {
    let body = format!("{{\"name\":\"{namespace}\"}}");
    let headers = [("content-type", "application/json")];
    let made = web::ask(&node.http, "POST", "/v1/namespaces", &headers, body.as_bytes());
    assert!((200..300).contains(&made.status), "{}", made.text());
    let mut wire = Wire::enter(&node.address, namespace);
    for number in 0..ROWS {
        put(&mut wire, number, false).unwrap();
    }
}

fn put(wire: &mut Wire, number: u64, is_absent: bool) -> Result<(), Failure> {
    let key = format!("{number:06}").into_bytes();
    let mut draft = Draft::default();
    if is_absent {
        draft.absent("k", key.clone()).unwrap();
    }
    // What compresses well would leave a table without a second block.
    let mix = |i: u64| {
        ((number * 500 + i).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ i).wrapping_mul(i | 1) >> 32
    };
    let value: Vec<u8> = (0..500_u64).map(|i| mix(i) as u8).collect();
    draft.put("k", key, value).unwrap();
    let mut body = Vec::new();
    draft.encode(SessionId::NONE, Sequence(0), Sequence(0), &mut body).unwrap();
    match wire.ask(Kind::Commit, wire.shard, &body) {
        Reply::Committed(_) => Ok(()),
        Reply::Error(failure) => Err(failure),
        other => panic!("{other:?}"),
    }
}

/// Spoils the rows of a shard's keyspace, in all tables; what stands around them is needed to open
/// it.
fn damage(data: &Path, shard: u32) {
    let tables = data.join(format!("shards/{shard:08x}/tables"));
    let spoilt = spoil_tables(&tables, 100_000);
    assert!(spoilt > 500_000, "{spoilt} bytes");
}

fn closed_shards(node: &Ready) -> String {
    let told = web::ask(&node.http, "GET", "/metrics", &[], b"").text();
    let line = told.lines().find(|line| line.starts_with("naust_shards_closed"));
    line.unwrap().to_owned()
}

/// Why: a bad sector in a table is met long after the start. It must not take the node along, nor
/// every start after that.
#[test]
fn a_condition_and_a_compaction_meet_damaged_tables() {
    let scratch = tempfile::tempdir().unwrap();
    let data = scratch.path().join("data");
    let node = start(&data, scratch.path());
    ["shop", "inn"].iter().for_each(|namespace| fill(&node, namespace));
    assert_eq!(stop(node), "");
    [2, 3].iter().for_each(|shard| damage(&data, *shard));
    let (shop, inn) = ("/00000002/tables/", "/00000003/tables/");

    let node = start(&data, scratch.path());
    assert_eq!(closed_shards(&node), "naust_shards_closed 0", "{}", node.errors());
    let (mut first, mut second) =
        (Wire::enter(&node.address, "shop"), Wire::enter(&node.address, "inn"));
    // A condition has to read the row.
    let met = put(&mut first, 7, true).unwrap_err();
    assert_eq!((met.code, met.outcome), (Code::Interrupted, Outcome::Unknown), "{}", met.detail);
    let after = put(&mut first, 7, true).unwrap_err();
    assert_eq!((after.code, after.outcome), (Code::Corrupt, Outcome::NotDone));
    assert!(after.detail.contains(shop), "{}", after.detail);
    let told = web::ask(&node.http, "GET", "/v1/shop/kv/k/000007", &[], b"");
    assert!(told.text().contains("corrupt"), "{}", told.text());
    // New rows bring flushes, and these a compaction.
    let mut number = 0;
    let met = loop {
        match put(&mut second, number % ROWS, false) {
            Ok(()) => number += 1,
            Err(failure) if failure.code == Code::Overloaded => {}
            Err(failure) => break failure,
        }
        assert!(number < 100 * ROWS, "no compaction met the damage");
    };
    assert!(matches!(met.code, Code::Interrupted | Code::Corrupt), "{met:?}");
    wait_until("the shard to be closed", || closed_shards(&node) == "naust_shards_closed 2");
    assert!(put(&mut second, 1, false).unwrap_err().detail.contains(inn));
    put(&mut Wire::enter(&node.address, "default"), 1, false).unwrap();
    let errors = stop(node);
    let lines: Vec<&str> = errors.lines().collect();
    assert!(lines.len() == 2 && lines[0].contains(shop) && lines[1].contains(inn), "{errors}");
    assert!(!errors.contains("panicked"), "{errors}");

    // The commit whose condition can't be read is still in the log.
    let node = start(&data, scratch.path());
    put(&mut Wire::enter(&node.address, "default"), 1, false).unwrap();
    wait_until("the shard to be closed", || closed_shards(&node) != "naust_shards_closed 0");
    let deleted = web::ask(&node.http, "DELETE", "/v1/namespaces/shop", &[], b"");
    assert!((200..300).contains(&deleted.status), "{}", deleted.text());
    wait_until("the shard to be removed", || !data.join("shards/00000002").exists());
    stop(node);
}
