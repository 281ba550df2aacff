//! Files that are damaged, cut short or gone, and disks that take no more: a clear fault, no panic,
//! no wrong answer, nothing lost.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{Model, Random, check_get, check_scan, directory, keyspace, mark_at, open, options};
use naust_machine::{
    Checked, Fault, KeyRange, Tables, TablesExport, TablesJob, TablesReader, TreeId,
};
use naust_store::{LsmTables, check_files, named_tables, verify};
use naust_wire::Offset;
use naust_wire::options::{Compaction, Compression};
use std::fs;
use std::ops::ControlFlow;
use std::path::Path;

const ALL: KeyRange<'_> = KeyRange { from: b"", to: None };

/// A few tables in a few runs, and what they hold.
fn filled(path: &Path, compression: Compression) -> (LsmTables, Model) {
    let mut tables = open(path);
    tables.make(TreeId::SHARD, &keyspace(Compaction::Levelled, compression)).unwrap();
    let (mut model, mut random) = (Model::default(), Random::new(7));
    for number in 1..=600 {
        let at = Offset::FIRST.0 + number * 64;
        let key = format!("key {:03}", random.below(300)).into_bytes();
        let value = vec![random.next() as u8; 40];
        tables.put(TreeId::SHARD, &key, Offset(at), Some(&value)).unwrap();
        model.put(&key, at, Some(&value));
        if number % 100 == 0 {
            tables.rotate(&[TreeId::SHARD], mark_at(at)).unwrap();
            work(&mut tables).unwrap();
        }
    }
    (tables, model)
}

fn work(tables: &mut LsmTables) -> Result<(), Fault> {
    while let Some(job) = tables.job() {
        tables.done(job.run())?;
    }
    Ok(())
}

/// Reads everything; a fault is fine, a wrong answer is not.
fn read_all(path: &Path, model: &Model) -> Result<(), Fault> {
    let tables = LsmTables::open(path, options())?;
    let reader = tables.reader();
    let mut found = Vec::new();
    reader.scan(TreeId::SHARD, ALL, false, Offset::MAX, &mut |key, at, value| {
        found.push((key.to_vec(), at.0, value.to_vec()));
        ControlFlow::Continue(())
    })?;
    assert_eq!(found, model.scan(b"", None, u64::MAX));
    for key in model.rows.keys() {
        let version = reader.get(TreeId::SHARD, key, Offset::MAX)?.unwrap();
        let found = (version.offset.0, version.value.as_ref().map(AsRef::as_ref));
        assert_eq!(Some(found), model.get(key, u64::MAX));
    }
    Ok(())
}

#[test]
fn a_turned_bit_is_never_served() {
    for compression in [Compression::None, Compression::Lz4] {
        let directory = directory();
        let (tables, model) = filled(directory.path(), compression);
        drop(tables);
        read_all(directory.path(), &model).unwrap();
        let verified = verify(directory.path()).unwrap();
        assert!(verified.tables > 2 && verified.rows == 600);
        let mut random = Random::new(3);
        for path in named_tables(directory.path()).unwrap() {
            let whole = fs::read(&path).unwrap();
            for _ in 0..60 {
                let mut damaged = whole.clone();
                let bit = random.below(whole.len() as u64 * 8) as usize;
                damaged[bit / 8] ^= 1 << (bit % 8);
                fs::write(&path, damaged).unwrap();
                // Some bits are read by neither: whoever reads them gets a fault, whoever does not
                // is right.
                let _ = read_all(directory.path(), &model);
                let fault = verify(directory.path()).unwrap_err();
                assert!(fault.what.contains("damaged"), "{fault}");
            }
            fs::write(&path, whole).unwrap();
        }
        read_all(directory.path(), &model).unwrap();
    }
}

#[test]
fn a_table_cut_short_garbled_or_gone_is_named() {
    let directory = directory();
    let (tables, _) = filled(directory.path(), Compression::Lz4);
    drop(tables);
    let path = named_tables(directory.path()).unwrap().remove(0);
    let name = path.file_name().unwrap().to_str().unwrap().to_owned();
    let whole = fs::read(&path).unwrap();
    let refused = |doing: &str, sentence: &str| {
        let fault = LsmTables::open(directory.path(), options()).err().unwrap();
        assert!(fault.what.contains(&name) && fault.what.contains(sentence), "{doing}: {fault}");
        assert!(!fault.disk_full);
    };
    for length in [0, 1, 100, whole.len() - 1] {
        fs::write(&path, &whole[..length]).unwrap();
        refused("cut short", "the file is damaged: it has");
    }
    fs::write(&path, vec![0xA5; whole.len()]).unwrap();
    refused("garbled", "the file is damaged");
    fs::write(&path, vec![0; whole.len()]).unwrap();
    refused("zeroed", "the file is damaged");
    fs::remove_file(&path).unwrap();
    refused("gone", "opening table");
}

#[test]
fn a_damaged_or_newer_manifest_is_refused() {
    let directory = directory();
    let (tables, model) = filled(directory.path(), Compression::Lz4);
    drop(tables);
    let path = directory.path().join("manifest");
    let whole = fs::read(&path).unwrap();
    for length in [0, 3, whole.len() - 1] {
        fs::write(&path, &whole[..length]).unwrap();
        let fault = LsmTables::open(directory.path(), options()).err().unwrap();
        assert!(fault.what.contains("manifest: the file is damaged"), "{fault}");
    }
    let mut newer = whole.clone();
    newer[8] += 1;
    fs::write(&path, newer).unwrap();
    let fault = LsmTables::open(directory.path(), options()).err().unwrap();
    assert!(fault.what.contains("another version of this program"), "{fault}");
    // None of it harmed the tables.
    fs::write(&path, whole).unwrap();
    read_all(directory.path(), &model).unwrap();
}

#[test]
fn files_that_are_not_ours_are_left_alone() {
    let directory = directory();
    let note = directory.path().join("note.txt");
    fs::write(&note, "not a table").unwrap();
    drop(filled(directory.path(), Compression::None));
    drop(open(directory.path()));
    assert_eq!(fs::read_to_string(&note).unwrap(), "not a table");
}

/// The manifest's writes go to a device that is always full.
#[cfg(target_os = "linux")]
#[test]
fn a_flush_is_tried_again_when_the_space_returns() {
    let directory = directory();
    let (mut tables, mut model) = filled(directory.path(), Compression::Lz4);
    let (flushed, at) = (tables.mark(TreeId::SHARD), Offset::FIRST.0 + 601 * 64);
    tables.put(TreeId::SHARD, b"late", Offset(at), Some(b"row")).unwrap();
    model.put(b"late", at, Some(b"row"));
    tables.rotate(&[TreeId::SHARD], mark_at(at)).unwrap();
    let files = || fs::read_dir(directory.path()).unwrap().count();
    let before = files();
    let full = directory.path().join("manifest.next");
    std::os::unix::fs::symlink("/dev/full", &full).unwrap();
    for _ in 0..3 {
        let job = tables.job().unwrap();
        let fault = tables.done(job.run()).unwrap_err();
        assert!(fault.disk_full, "{fault}");
        assert_eq!(tables.mark(TreeId::SHARD), flushed);
        assert!(tables.flushing_bytes() > 0);
        // Nothing is lost and nothing is left behind.
        check_get(&tables.reader(), TreeId::SHARD, &model, b"late", at, 0);
        assert_eq!(files(), before + 1);
    }
    fs::remove_file(&full).unwrap();
    work(&mut tables).unwrap();
    assert_eq!(tables.mark(TreeId::SHARD), mark_at(at));
    assert_eq!(tables.flushing_bytes(), 0);
    drop(tables);
    read_all(directory.path(), &model).unwrap();
}

#[test]
fn a_job_of_closed_tables_changes_nothing() {
    let directory = directory();
    let (mut tables, model) = filled(directory.path(), Compression::Lz4);
    let at = Offset::FIRST.0 + 601 * 64;
    tables.put(TreeId::SHARD, b"late", Offset(at), Some(b"row")).unwrap();
    tables.rotate(&[TreeId::SHARD], mark_at(at)).unwrap();
    let job = tables.job().unwrap();
    drop(tables);
    let reopened = open(directory.path());
    drop(job.run());
    assert_eq!(reopened.mark(TreeId::SHARD), mark_at(at - 64));
    check_scan(&reopened.reader(), TreeId::SHARD, &model, ALL, u64::MAX, false, usize::MAX);
}

#[test]
fn whoever_reads_all_again_finds_damage_before_it_is_needed_or_copied() {
    let directory = directory();
    let (tables, _) = filled(directory.path(), Compression::None);
    let reader = tables.reader();
    let steps = || {
        let (mut files, mut bytes, mut from) = (0, 0, Some(0));
        while let Some(next) = from {
            let checked = reader.check(next, 1)?;
            (files, bytes, from) = (files + 1, bytes + checked.bytes, checked.next);
        }
        Ok::<_, Fault>((files, bytes))
    };
    let paths = named_tables(directory.path()).unwrap();
    let length = |path: &std::path::PathBuf| fs::metadata(path).unwrap().len();
    let all = (paths.len(), paths.iter().map(length).sum::<u64>());
    assert_eq!(steps().unwrap(), all, "one file a step, and each once");
    assert_eq!(reader.check(0, u64::MAX).unwrap(), Checked { bytes: all.1, next: None });
    check_files(directory.path()).unwrap();
    for path in &paths {
        let whole = fs::read(path).unwrap();
        let mut damaged = whole.clone();
        damaged[whole.len() / 3] ^= 4;
        fs::write(path, damaged).unwrap();
        let export = reader.export().unwrap();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let file = export.files().iter().position(|(file, _)| *file == name).unwrap();
        assert!(export.read(file, 0, 10).unwrap_err().what.contains("damaged"));
        assert!(steps().unwrap_err().what.contains(&name));
        assert!(check_files(directory.path()).unwrap_err().what.contains(&name));
        fs::write(path, whole).unwrap();
    }
    assert_eq!(steps().unwrap(), all);
}
