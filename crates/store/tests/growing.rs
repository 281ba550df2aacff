//! Keys that only grow, as of a journal: tables are moved, not rewritten, and every row is found.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{directory, keyspace, mark_at, options};
use naust_machine::{Tables, TablesJob, TablesReader, TreeId};
use naust_store::{LsmReader, LsmTables};
use naust_wire::Offset;
use naust_wire::options::{Compaction, Compression};

fn check(reader: &LsmReader, number: u64) {
    let key = u128::from(number).to_be_bytes();
    let found = reader.get(TreeId::SHARD, &key, Offset::MAX).unwrap();
    let found = found.and_then(|version| version.value);
    let found = found.as_ref().map(AsRef::as_ref);
    assert_eq!(found, Some(&number.to_le_bytes()[..]), "row {number}");
}

#[test]
fn growing_keys_are_moved_and_found() {
    for compression in [Compression::None, Compression::Lz4] {
        let directory = directory();
        let mut tables = LsmTables::open(directory.path(), options()).unwrap();
        tables.make(TreeId::SHARD, &keyspace(Compaction::Levelled, compression)).unwrap();
        let reader = tables.reader();
        for number in 0..20_000_u64 {
            let at = Offset::FIRST.0 + number * 64;
            let key = u128::from(number).to_be_bytes();
            tables.put(TreeId::SHARD, &key, Offset(at), Some(&number.to_le_bytes())).unwrap();
            if number % 400 == 399 {
                tables.rotate(&[TreeId::SHARD], mark_at(at)).unwrap();
                while let Some(job) = tables.job() {
                    tables.done(job.run()).unwrap();
                }
                for number in (0..=number).step_by(97) {
                    check(&reader, number);
                }
            }
        }
        let (_, rows) = tables.size(TreeId::SHARD);
        assert_eq!(rows, 20_000);
        drop(tables);
        let tables = LsmTables::open(directory.path(), options()).unwrap();
        for number in 0..20_000 {
            check(&tables.reader(), number);
        }
    }
}
