//! Keys that only grow, as of a journal: tables are moved, not rewritten, and every row is found;
//! and the files of tables that were merged go.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{directory, keyspace, mark_at, options};
use naust_machine::{KeyRange, Tables, TablesJob, TablesReader, TreeId};
use naust_store::{LsmReader, LsmTables, named_tables};
use naust_wire::Offset;
use naust_wire::options::{Compaction, Compression};
use std::fs;
use std::ops::ControlFlow;
use std::path::Path;

fn check(reader: &LsmReader, number: u64) {
    let key = u128::from(number).to_be_bytes();
    let found = reader.get(TreeId::SHARD, &key, Offset::MAX).unwrap();
    let found = found.and_then(|version| version.value);
    let found = found.as_ref().map(AsRef::as_ref);
    assert_eq!(found, Some(&number.to_le_bytes()[..]), "row {number}");
}

/// Tables that the manifest names, and table files that are there.
fn tables_and_files(directory: &Path) -> (usize, usize) {
    let is_table = |name: &Path| name.extension().is_some_and(|extension| extension == "table");
    let files = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    (named_tables(directory).unwrap().len(), files.filter(|file| is_table(file)).count())
}

#[test]
fn merged_tables_go_when_nobody_reads_them() {
    let directory = directory();
    let mut tables = LsmTables::open(directory.path(), options()).unwrap();
    tables.make(TreeId::SHARD, &keyspace(Compaction::Levelled, Compression::None)).unwrap();
    let settled = |tables: &mut LsmTables, round: u64| {
        for number in 0..400 {
            let at = Offset::FIRST.0 + (round * 400 + number) * 64;
            tables.put(TreeId::SHARD, &number.to_be_bytes(), Offset(at), Some(b"value")).unwrap();
            tables.set_history_floor(Offset(at));
            if number % 50 == 49 {
                tables.rotate(&[TreeId::SHARD], mark_at(at)).unwrap();
                while let Some(job) = tables.job() {
                    tables.done(job.run()).unwrap();
                }
            }
        }
        tables_and_files(directory.path())
    };
    for round in 0..4 {
        let (named, files) = settled(&mut tables, round);
        assert!(named > 0);
        assert_eq!(named, files);
    }
    // A reader amid a scan keeps what it reads.
    let (reader, mut seen, mut while_reading) = (tables.reader(), 0, None);
    let range = KeyRange { from: b"", to: None };
    let visit = &mut |_: &[u8], _: Offset, _: &[u8]| {
        seen += 1;
        if seen == 1 {
            while_reading = Some(settled(&mut tables, 4));
        }
        ControlFlow::Continue(())
    };
    reader.scan(TreeId::SHARD, range, false, Offset::MAX, visit).unwrap();
    let (named, files) = while_reading.unwrap();
    assert!(files > named, "what was read was removed");
    assert_eq!(seen, 400);
    let (named, files) = settled(&mut tables, 5);
    assert_eq!(named, files);
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
