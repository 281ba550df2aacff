//! Disks that rot under a cluster: what one node can't read any more, the others give it back.

use crate::cluster::{Cluster, Load};
use crate::support::{block_on, naust, spoil_tables, wait_until};
use naust_client::{Client, Code, Level, Offset, Options};
use naust_machine::rows::Key;
use naust_machine::{StreamId, Tables, TablesJob, TreeId};
use naust_store::{Cache, LsmTables, StoreOptions};
use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

/// Segments of 64 KiB, and logs that are read again every second.
const OPTIONS: [&str; 8] = [
    "--set",
    "debug.segment_bytes=65536",
    "--set",
    "background.scrub_every_s=1",
    "--set",
    "history.ms=1000",
    "--set",
    "history.bytes=1048576",
];

/// What is said of a replica that gets all of another one.
const COPIED: &str = "this replica begins anew as a copy of the leader's";

/// What a node has said on its standard error.
fn told(cluster: &Cluster, which: usize) -> String {
    fs::read_to_string(cluster.errors(which)).unwrap()
}

fn wait_for(cluster: &Cluster, which: usize, sentence: &str) {
    wait_until(sentence, || told(cluster, which).contains(sentence));
}

fn shard(data: &Path, part: &str) -> PathBuf {
    data.join("shards/00000001").join(part)
}

/// Spoils a few bytes in the middle of a sealed segment of the log of `default`.
fn rot_log(data: &Path) {
    let mut segments: Vec<PathBuf> =
        fs::read_dir(shard(data, "log")).unwrap().map(|entry| entry.unwrap().path()).collect();
    segments.retain(|path| path.extension().is_some_and(|extension| extension == "log"));
    segments.sort();
    let sealed = &segments[segments.len() - 3];
    let file = fs::File::options().write(true).open(sealed).unwrap();
    file.write_all_at(b"rotten", 20_000).unwrap();
}

/// Spoils all tables of `default` where their rows are.
fn rot_tables(data: &Path) {
    let spoilt = spoil_tables(&shard(data, "tables"), 50_000);
    assert!(spoilt > 100_000, "{spoilt} bytes");
}

/// Every frame of every log that a node has is good.
fn verify(data: &Path) {
    let output = naust(&["log", "verify", "--data"]).arg(data).output().unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{told}");
}

/// Why: the scrub is of no use if what it finds stays as it is. It is mended under load, on who
/// leads and on who follows.
#[test]
fn rot_in_a_log_is_mended_under_load() {
    let mut cluster = Cluster::start_with(3, &OPTIONS);
    let load = Load::on(&cluster, 1500);
    let leader = cluster.leader();
    for which in [(leader + 1) % 3, leader] {
        rot_log(&cluster.directory(which));
        wait_for(&cluster, which, "the log was mended");
    }
    load.wait_for(200);
    cluster.check(&load.end());
    for which in 0..3 {
        cluster.nodes[which].process.terminate().unwrap();
        verify(&cluster.directory(which));
    }
}

/// Why: a bad sector in a table took a whole replica away until somebody came.
#[test]
fn rotten_tables_are_made_anew_under_load() {
    // A node that is slow to start again is fed from the log, however much was written meanwhile:
    // a copy would put other tables in the place of the rotten ones.
    let options = [&OPTIONS[..4], &["--set", "history.bytes=268435456"]].concat();
    let mut cluster = Cluster::start_with(3, &options);
    let load = Load::on(&cluster, 4000);
    let which = (cluster.leader() + 1) % 3;
    cluster.nodes[which].process.terminate().unwrap();
    rot_tables(&cluster.directory(which));
    cluster.nodes[which].process.restart().unwrap();
    // Flushes and compactions meet it, or the comparison at the end does.
    load.wait_for(2000);
    let ledger = load.end();
    cluster.check(&ledger);
    wait_for(&cluster, which, "this replica is whole again");
    assert!(!told(&cluster, which).contains(COPIED), "{}", told(&cluster, which));
    cluster.wait_for_voters(3);
    cluster.check(&ledger);
}

/// Why: what a node lacks that joins late is not in the log any more. It gets all of a replica.
#[test]
fn a_node_that_joins_late_gets_a_copy_under_load() {
    let mut cluster = Cluster::start_with(2, &OPTIONS);
    // Of the load all frames live for ever: nothing of them is let go. Of rows only tables live.
    block_on(async {
        let client = Client::connect(cluster.addresses()).await.unwrap();
        let filler = client.namespace("default").kv("filler");
        for _ in 0..200 {
            filler.put("row", vec![7; 1024]).await.unwrap();
        }
    });
    let load = Load::on(&cluster, 2000);
    // The leader is who feeds it.
    wait_until("the beginning of the log to be trimmed", || is_trimmed(&cluster, cluster.leader()));
    cluster.join();
    cluster.wait_for_voters(3);
    wait_for(&cluster, 2, COPIED);
    load.wait_for(500);
    cluster.check(&load.end());
    assert!(is_trimmed(&cluster, 2), "it was fed from the beginning of the log");
    let told = cluster.naust(2, &["log", "verify", "--cluster"]);
    assert_eq!(told.matches(": same\n").count(), 6, "{told}");
}

/// Moves the cursor `mail` of the first stream of `default` in the tables of a node that is down.
fn move_cursor(data: &Path) {
    let options = StoreOptions::new(Cache::new(1 << 20, 64));
    let mut tables = LsmTables::open(&shard(data, "tables"), options).unwrap();
    let (mark, key) = (tables.mark(TreeId::SHARD), Key::Cursor(StreamId(0), "mail").bytes());
    let value = 12_345u64.to_le_bytes();
    tables.put(TreeId::SHARD, &key, mark.applied.plus(1), Some(&value)).unwrap();
    tables.rotate(&[TreeId::SHARD], mark).unwrap();
    while let Some(job) = tables.job() {
        tables.done(job.run()).unwrap();
    }
}

/// Why: what a replica has folded in wrong no checksum tells, and neither do its log, rows and
/// records.
#[test]
fn a_view_that_differs_is_named() {
    let mut cluster = Cluster::start(3);
    block_on(async {
        let client = Client::connect(cluster.addresses()).await.unwrap();
        let stream = client.namespace("default").stream("events");
        let id = stream.append("e").await.unwrap();
        stream.cursor("mail").advance(id).await.unwrap();
    });
    let told = cluster.naust(0, &["log", "verify", "--cluster"]);
    assert_eq!(told.matches(": same\n").count(), 6, "{told}");

    let which = (cluster.leader() + 1) % 3;
    cluster.nodes[which].process.terminate().unwrap();
    move_cursor(&cluster.directory(which));
    cluster.nodes[which].process.restart().unwrap();
    cluster.wait_for_voters(3);
    let output = naust(&["log", "verify", "--cluster", "--json", "--address"])
        .arg(cluster.nodes[0].address())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let told = String::from_utf8(output.stdout).unwrap();
    let lines = told.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let differ: Vec<_> = lines
        .filter(|line| line["same"] == false)
        .map(|line| (line["namespace"].clone(), line["node"].clone(), line["differs"].clone()))
        .collect();
    let name = cluster.nodes[which].name.as_str();
    let expected = ("default".into(), name.into(), serde_json::json!(["cursors"]));
    assert_eq!(differ, [expected], "{told}");
    let output = naust(&["log", "verify", "--cluster", "--address"])
        .arg(cluster.nodes[0].address())
        .output()
        .unwrap();
    let told = String::from_utf8(output.stdout).unwrap();
    let line = told.lines().find(|line| line.contains("DIFFERS")).unwrap();
    assert!(line.contains(name) && line.ends_with(": DIFFERS in cursors"), "{told}");
}

/// Whether a node lacks the beginning of its log of `default`.
fn is_trimmed(cluster: &Cluster, which: usize) -> bool {
    let options = Options { stays: true, ..Options::default() };
    let read = block_on(async {
        let client = Client::connect_with([cluster.nodes[which].address()], options).await?;
        client.namespace("default").log_at(Offset::FIRST, 1, 0, Level::Local).await
    });
    read.is_err_and(|error| {
        let goes_on_at = error.hint.parse::<u64>();
        error.code == Code::OffsetTrimmed && goes_on_at.is_ok_and(|at| at > Offset::FIRST.0)
    })
}
