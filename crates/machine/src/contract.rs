//! The suite that every implementation of [`Tables`] passes: [`all`] runs it on tables that a
//! [`Fixture`] opens.
//!
//! Each story begins with its why. A story works in trees of its own numbers, so one fixture may
//! serve all of them in turn; it opens tables, writes, drops them and opens them again, and sees
//! only what a mark promises.

use crate::tables::{KeyRange, Mark, Tables, TablesJob, TablesReader, TreeId};
use naust_wire::options::{Compaction, KeyspaceOptions};
use naust_wire::{Index, LogTime, Offset, Term};
use std::ops::ControlFlow;

/// Opens the same tables again and again.
pub trait Fixture {
    /// The tables.
    type T: Tables;

    /// Opens them: at first empty, and then with what survived the moment at which the last ones
    /// were dropped, whose memory is lost. Tables opened before have been dropped.
    fn open(&mut self) -> Self::T;
}

/// Runs the whole suite; `fixture` makes fresh tables for each story.
///
/// # Panics
/// If the tables break their contract.
pub fn all<F: Fixture>(mut fixture: impl FnMut() -> F) {
    reads_see_the_newest_version_at_or_below(&mut fixture());
    scans_go_both_ways_at_any_offset(&mut fixture());
    trees_are_apart_and_made_again_without_loss(&mut fixture());
    readers_see_trees_that_are_made_later(&mut fixture());
    what_was_rotated_and_flushed_survives_and_marks_tell(&mut fixture());
    a_unit_is_persisted_shard_first(&mut fixture());
    idle_trees_rotate_too(&mut fixture());
    history_above_the_floor_survives_compaction(&mut fixture());
    the_newest_version_survives_any_floor(&mut fixture());
    rows_below_the_retention_floor_are_absent(&mut fixture());
    replayed_rows_fit_between_older_and_newer_ones(&mut fixture());
    long_keys_and_values_come_back(&mut fixture());
    readers_are_right_beside_background_work(&mut fixture());
}

const SHARD: TreeId = TreeId::SHARD;

fn offset(n: u64) -> Offset {
    Offset(Offset::FIRST.0 + n * 64)
}

fn mark(n: u64) -> Mark {
    Mark {
        applied: offset(n),
        next: offset(n + 1),
        index: Index(n + 1),
        term: Term(3),
        time: LogTime(n * 10),
    }
}

fn with_trees<F: Fixture>(fixture: &mut F, trees: &[TreeId]) -> F::T {
    let mut tables = fixture.open();
    for tree in [&SHARD].into_iter().chain(trees) {
        tables.make(*tree, &KeyspaceOptions::default()).expect("a tree can be made");
    }
    tables
}

fn put<T: Tables>(tables: &mut T, tree: TreeId, key: &str, n: u64, value: Option<&str>) {
    let value = value.map(str::as_bytes);
    tables.put(tree, key.as_bytes(), offset(n), value).expect("a row can be put");
}

fn get<R: TablesReader>(reader: &R, tree: TreeId, key: &str, at: Offset) -> Option<String> {
    let version = reader.get(tree, key.as_bytes(), at).expect("a row can be read")?;
    let value = version.value.as_ref().map(|value| text(value.as_ref()));
    Some(format!("{}@{}", value.unwrap_or("-".into()), (version.offset.0 - Offset::FIRST.0) / 64))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The rows of a range, at most `limit`, as `key=value@version`.
fn scan<R: TablesReader>(
    reader: &R,
    tree: TreeId,
    (from, to): (&str, Option<&str>),
    reverse: bool,
    at: Offset,
    limit: usize,
) -> Vec<String> {
    let mut rows = Vec::new();
    let range = KeyRange { from: from.as_bytes(), to: to.map(str::as_bytes) };
    let visit = &mut |key: &[u8], version: Offset, value: &[u8]| {
        let version = (version.0 - Offset::FIRST.0) / 64;
        rows.push(format!("{}={}@{version}", text(key), text(value)));
        if rows.len() < limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    };
    reader.scan(tree, range, reverse, at, visit).expect("rows can be scanned");
    rows
}

fn everything<R: TablesReader>(reader: &R, tree: TreeId, at: Offset) -> Vec<String> {
    let forward = scan(reader, tree, ("", None), false, at, usize::MAX);
    let mut backward = scan(reader, tree, ("", None), true, at, usize::MAX);
    backward.reverse();
    assert_eq!(forward, backward, "both ways see the same rows");
    forward
}

/// Runs background work until there is none.
fn settle<T: Tables>(tables: &mut T) {
    for _ in 0..10_000 {
        let Some(job) = tables.job() else { return };
        tables.done(job.run()).expect("background work succeeds");
    }
    panic!("background work comes to an end");
}

/// The offset is the revision of everything: a read at an offset must see exactly what was there.
fn reads_see_the_newest_version_at_or_below<F: Fixture>(fixture: &mut F) {
    let tree = TreeId(1);
    let mut tables = with_trees(fixture, &[tree]);
    let reader = tables.reader();
    put(&mut tables, tree, "k", 10, Some("ten"));
    put(&mut tables, tree, "k", 20, None);
    put(&mut tables, tree, "k", 30, Some(""));
    for round in 0..2 {
        assert_eq!(get(&reader, tree, "k", offset(9)), None);
        assert_eq!(get(&reader, tree, "k", offset(10)).as_deref(), Some("ten@10"));
        assert_eq!(get(&reader, tree, "k", Offset(offset(20).0 - 1)).as_deref(), Some("ten@10"));
        assert_eq!(get(&reader, tree, "k", offset(20)).as_deref(), Some("-@20"));
        assert_eq!(get(&reader, tree, "k", offset(30)).as_deref(), Some("@30"));
        assert_eq!(get(&reader, tree, "k", Offset::MAX).as_deref(), Some("@30"));
        assert_eq!(get(&reader, tree, "kk", Offset::MAX), None);
        assert_eq!(get(&reader, TreeId(9), "k", Offset::MAX), None);
        if round == 0 {
            tables.rotate(&[SHARD, tree], mark(30)).expect("memtables rotate");
            settle(&mut tables);
        }
    }
}

/// Pages go forward and backward, at offsets of the past, over rows that lie in several places of
/// an engine.
fn scans_go_both_ways_at_any_offset<F: Fixture>(fixture: &mut F) {
    let tree = TreeId(1);
    let mut tables = with_trees(fixture, &[tree]);
    let reader = tables.reader();
    for n in 0..100 {
        put(&mut tables, tree, &format!("k{n:02}"), n, Some("old"));
    }
    tables.rotate(&[SHARD, tree], mark(99)).expect("memtables rotate");
    settle(&mut tables);
    for n in (0..100).step_by(2) {
        let value = if n % 4 == 0 { None } else { Some("new") };
        put(&mut tables, tree, &format!("k{n:02}"), 100 + n, value);
    }
    assert_eq!(everything(&reader, tree, offset(49)).len(), 50);
    assert_eq!(everything(&reader, tree, offset(99)).len(), 100);
    assert_eq!(everything(&reader, tree, Offset::MAX).len(), 75);
    let range = ("k10", Some("k14"));
    let ahead = scan(&reader, tree, range, false, Offset::MAX, usize::MAX);
    assert_eq!(ahead, ["k10=new@110", "k11=old@11", "k13=old@13"]);
    let back = scan(&reader, tree, range, true, offset(111), usize::MAX);
    assert_eq!(back, ["k13=old@13", "k12=old@12", "k11=old@11", "k10=new@110"]);
    assert_eq!(scan(&reader, tree, range, true, offset(111), 2), ["k13=old@13", "k12=old@12"]);
    assert_eq!(scan(&reader, tree, ("k98", None), false, offset(99), 1), ["k98=old@98"]);
    assert!(scan(&reader, tree, ("k5", Some("k5")), false, Offset::MAX, 9).is_empty());
    assert!(scan(&reader, tree, ("k6", Some("k5")), true, Offset::MAX, 9).is_empty());
    assert!(scan(&reader, TreeId(7), ("", None), false, Offset::MAX, 9).is_empty());
}

/// A keyspace's rows are its own, and changing its options costs nothing but the change.
fn trees_are_apart_and_made_again_without_loss<F: Fixture>(fixture: &mut F) {
    let (a, b) = (TreeId(1), TreeId(2));
    let mut tables = with_trees(fixture, &[a, b]);
    let reader = tables.reader();
    put(&mut tables, a, "k", 1, Some("a"));
    put(&mut tables, b, "k", 1, Some("b"));
    let compaction = Compaction::WriteOptimised;
    let options = KeyspaceOptions { compaction, ..KeyspaceOptions::default() };
    tables.make(a, &options).expect("options can be changed");
    put(&mut tables, a, "l", 2, Some("a"));
    assert_eq!(everything(&reader, a, Offset::MAX), ["k=a@1", "l=a@2"]);
    assert_eq!(everything(&reader, b, Offset::MAX), ["k=b@1"]);
    assert_eq!(tables.trees(), [SHARD, a, b]);
}

/// Readers are handed out once and live as long as the node.
fn readers_see_trees_that_are_made_later<F: Fixture>(fixture: &mut F) {
    let mut tables = with_trees(fixture, &[]);
    let reader = tables.reader();
    tables.make(TreeId(1), &KeyspaceOptions::default()).expect("a tree can be made");
    put(&mut tables, TreeId(1), "k", 1, Some("v"));
    assert_eq!(get(&reader.clone(), TreeId(1), "k", Offset::MAX).as_deref(), Some("v@1"));
}

/// The log is the only journal: what is not flushed is lost, and the mark says from where to
/// replay.
fn what_was_rotated_and_flushed_survives_and_marks_tell<F: Fixture>(fixture: &mut F) {
    let tree = TreeId(1);
    let mut tables = with_trees(fixture, &[tree]);
    assert_eq!(tables.mark(tree), Mark::default());
    assert_eq!(tables.mark(SHARD), Mark::default());
    put(&mut tables, tree, "a", 1, Some("1"));
    put(&mut tables, SHARD, "s", 1, Some("1"));
    assert!(tables.unflushed_bytes(tree) > 0);
    tables.rotate(&[SHARD, tree], mark(1)).expect("memtables rotate");
    assert_eq!(tables.unflushed_bytes(tree), 0);
    assert!(tables.flushing_bytes() > 0);
    put(&mut tables, tree, "b", 2, Some("2"));
    settle(&mut tables);
    assert_eq!(tables.flushing_bytes(), 0);
    assert_eq!(tables.mark(tree), mark(1));
    assert_eq!(tables.mark(SHARD), mark(1));
    put(&mut tables, tree, "a", 3, Some("3"));
    tables.rotate(&[SHARD, tree], mark(3)).expect("memtables rotate");
    drop(tables);
    let mut tables = with_trees(fixture, &[tree]);
    let reader = tables.reader();
    assert_eq!(tables.mark(tree), mark(1));
    assert_eq!(tables.mark(SHARD), mark(1));
    assert_eq!(everything(&reader, tree, Offset::MAX), ["a=1@1"]);
    assert_eq!(everything(&reader, SHARD, Offset::MAX), ["s=1@1"]);
    let on_disk = tables.size(tree);
    assert!(on_disk.0 > 0 && on_disk.1 == 1);
    put(&mut tables, tree, "b", 2, Some("2"));
    put(&mut tables, tree, "a", 3, Some("3"));
    assert_eq!(tables.size(tree), (on_disk.0, 3), "rows in memory count, too");
    tables.rotate(&[SHARD, tree], mark(3)).expect("memtables rotate");
    assert_eq!(tables.size(tree), (on_disk.0, 3), "and so do those on their way");
    settle(&mut tables);
    let (bytes, versions) = tables.size(tree);
    assert!(bytes > 0 && versions >= 2);
    drop(tables);
    let tables = with_trees(fixture, &[tree]);
    assert_eq!(tables.mark(tree), mark(3));
    assert_eq!(everything(&tables.reader(), tree, Offset::MAX), ["a=3@3", "b=2@2"]);
    assert_eq!(everything(&tables.reader(), tree, offset(2)), ["a=1@1", "b=2@2"]);
}

/// Verdicts lie in the shard tree, so no keyspace may be ahead of it, wherever a crash comes.
fn a_unit_is_persisted_shard_first<F: Fixture>(fixture: &mut F) {
    let trees = [TreeId(1), TreeId(2), TreeId(3)];
    let (mut written, mut lives) = (0, 0);
    for jobs in (0..6).cycle().take(40) {
        let mut tables = with_trees(fixture, &trees);
        let shard = tables.mark(SHARD).applied;
        for tree in trees {
            let marked = tables.mark(tree).applied;
            assert!(marked <= shard, "a keyspace is ahead of the shard tree");
            let rows = everything(&tables.reader(), tree, Offset::MAX);
            let mine = rows.iter().map(|row| row.rsplit('@').next().map(str::parse::<u64>));
            for version in mine {
                let version = version.expect("rows have versions").expect("versions are numbers");
                assert!(offset(version) <= marked, "a row is there that the mark does not cover");
            }
        }
        for _ in 0..2 {
            written += 1;
            put(&mut tables, SHARD, "s", written, Some("x"));
            for tree in trees {
                put(&mut tables, tree, &format!("k{written}"), written, Some("x"));
            }
            let unit = [SHARD, trees[0], trees[1], trees[2]];
            tables.rotate(&unit, mark(written)).expect("memtables rotate");
        }
        for _ in 0..jobs {
            if let Some(job) = tables.job() {
                tables.done(job.run()).expect("background work succeeds");
            }
        }
        lives += 1;
    }
    assert_eq!(lives, 40);
}

/// A rotation may name trees without new rows; their marks move on all the same.
fn idle_trees_rotate_too<F: Fixture>(fixture: &mut F) {
    let tree = TreeId(1);
    let mut tables = with_trees(fixture, &[tree]);
    put(&mut tables, tree, "k", 1, Some("v"));
    put(&mut tables, SHARD, "s", 1, Some("v"));
    tables.rotate(&[SHARD, tree], mark(1)).expect("memtables rotate");
    settle(&mut tables);
    put(&mut tables, SHARD, "s", 5, Some("v"));
    tables.rotate(&[SHARD, tree], mark(5)).expect("memtables rotate");
    settle(&mut tables);
    assert_eq!(tables.mark(SHARD), mark(5));
    assert_eq!(tables.mark(tree), mark(5));
    put(&mut tables, tree, "k", 6, Some("w"));
    tables.rotate(&[SHARD, tree], mark(6)).expect("memtables rotate");
    settle(&mut tables);
    drop(tables);
    let tables = with_trees(fixture, &[tree]);
    assert_eq!(tables.mark(SHARD), mark(6));
    assert_eq!(tables.mark(tree), mark(6));
    assert_eq!(get(&tables.reader(), tree, "k", Offset::MAX).as_deref(), Some("w@6"));
}

/// Writes rounds of versions of a few keys, each round flushed by itself, so that compaction has
/// work.
fn rounds<T: Tables>(tables: &mut T, tree: TreeId, rounds: std::ops::Range<u64>) {
    for round in rounds {
        for n in 0..20 {
            let at = round * 20 + n;
            let value = format!("{round}");
            let value = (!(n + round).is_multiple_of(5)).then_some(&value[..]);
            put(tables, tree, &format!("k{n:02}"), at, value);
        }
        put(tables, SHARD, "s", round * 20 + 19, Some("x"));
        tables.rotate(&[SHARD, tree], mark(round * 20 + 19)).expect("memtables rotate");
        settle(tables);
    }
}

/// What `rounds` leave at an offset.
fn expected(at: u64) -> Vec<String> {
    let mut rows = Vec::new();
    for n in 0..20 {
        if let Some(round) = at.checked_sub(n).map(|left| left / 20)
            && !(n + round).is_multiple_of(5)
        {
            rows.push(format!("k{n:02}={round}@{}", round * 20 + n));
        }
    }
    rows
}

/// Transactions read in the past while compaction goes on.
fn history_above_the_floor_survives_compaction<F: Fixture>(fixture: &mut F) {
    let tree = TreeId(1);
    let mut tables = with_trees(fixture, &[tree]);
    for round in 0..30u64 {
        rounds(&mut tables, tree, round..round + 1);
        let floor = (round * 20).saturating_sub(90);
        tables.set_history_floor(offset(floor));
        settle(&mut tables);
        let reader = tables.reader();
        for at in floor..round * 20 + 20 {
            assert_eq!(everything(&reader, tree, offset(at)), expected(at), "at {at}");
        }
        if round % 7 == 6 {
            drop(tables);
            tables = with_trees(fixture, &[tree]);
            tables.set_history_floor(offset(floor));
        }
    }
}

/// A floor takes old versions away, never the newest one, however old.
fn the_newest_version_survives_any_floor<F: Fixture>(fixture: &mut F) {
    let tree = TreeId(1);
    let mut tables = with_trees(fixture, &[tree]);
    put(&mut tables, tree, "old", 0, Some("v"));
    rounds(&mut tables, tree, 1..12);
    tables.set_history_floor(offset(100_000));
    put(&mut tables, tree, "late", 100_001, Some("v"));
    tables.rotate(&[SHARD, tree], mark(100_001)).expect("memtables rotate");
    settle(&mut tables);
    let mut rows = expected(239);
    rows.extend(["late=v@100001".into(), "old=v@0".into()]);
    assert_eq!(everything(&tables.reader(), tree, Offset::MAX), rows);
    assert_eq!(get(&tables.reader(), tree, "old", offset(100_000)).as_deref(), Some("v@0"));
}

/// Retention is logged: the moment a floor is folded in, what lies below is gone for every reader.
fn rows_below_the_retention_floor_are_absent<F: Fixture>(fixture: &mut F) {
    let tree = TreeId(1);
    let mut tables = fixture.open();
    tables.make(SHARD, &KeyspaceOptions::default()).expect("a tree can be made");
    let compaction = Compaction::Fifo;
    let options = KeyspaceOptions { compaction, ..KeyspaceOptions::default() };
    tables.make(tree, &options).expect("a tree can be made");
    for n in 1..50 {
        put(&mut tables, tree, &format!("k{n:02}"), n, Some("v"));
        if n % 10 == 0 {
            put(&mut tables, SHARD, "s", n, Some("x"));
            tables.rotate(&[SHARD, tree], mark(n)).expect("memtables rotate");
            settle(&mut tables);
        }
    }
    put(&mut tables, tree, "k01", 50, Some("again"));
    let reader = tables.reader();
    for floor in [5, 20, 45] {
        tables.set_retention_floor(tree, offset(floor));
        for round in 0..2 {
            assert_eq!(everything(&reader, tree, Offset::MAX).len() as u64, 50 - floor + 1);
            assert_eq!(get(&reader, tree, &format!("k{:02}", floor - 1), Offset::MAX), None);
            let first = format!("k{floor:02}");
            let expected = format!("v@{floor}");
            assert_eq!(get(&reader, tree, &first, Offset::MAX), Some(expected));
            assert_eq!(get(&reader, tree, "k01", Offset::MAX).as_deref(), Some("again@50"));
            if round == 0 {
                settle(&mut tables);
            }
        }
    }
}

/// After a crash one tree may be behind another; what it lacks is put again.
fn replayed_rows_fit_between_older_and_newer_ones<F: Fixture>(fixture: &mut F) {
    let tree = TreeId(1);
    let mut tables = with_trees(fixture, &[tree]);
    put(&mut tables, SHARD, "s", 1, Some("1"));
    put(&mut tables, tree, "k", 1, Some("1"));
    tables.rotate(&[SHARD, tree], mark(1)).expect("memtables rotate");
    put(&mut tables, tree, "k", 2, Some("2"));
    put(&mut tables, SHARD, "s", 3, Some("3"));
    tables.rotate(&[SHARD], mark(3)).expect("memtables rotate");
    settle(&mut tables);
    assert_eq!(tables.mark(SHARD), mark(3));
    assert_eq!(tables.mark(tree), mark(1));
    drop(tables);
    let mut tables = with_trees(fixture, &[tree]);
    assert_eq!(tables.mark(SHARD), mark(3));
    assert_eq!(tables.mark(tree), mark(1));
    assert_eq!(get(&tables.reader(), tree, "k", Offset::MAX).as_deref(), Some("1@1"));
    put(&mut tables, tree, "k", 2, Some("2"));
    put(&mut tables, tree, "k", 4, None);
    put(&mut tables, SHARD, "s", 4, Some("4"));
    tables.rotate(&[SHARD, tree], mark(4)).expect("memtables rotate");
    settle(&mut tables);
    for (at, row) in [(1, "1@1"), (2, "2@2"), (3, "2@2"), (4, "-@4")] {
        assert_eq!(get(&tables.reader(), tree, "k", offset(at)).as_deref(), Some(row));
    }
}

/// Limits of the product are met by the engine: keys of 32 KiB, values of megabytes, keys of any
/// bytes.
fn long_keys_and_values_come_back<F: Fixture>(fixture: &mut F) {
    let tree = TreeId(1);
    let mut tables = with_trees(fixture, &[tree]);
    let long = vec![0xffu8; naust_wire::limits::KEY_BYTES_MAX];
    let large: Vec<u8> = (0..4_000_000u32).map(|i| (i * 7) as u8).collect();
    let keys: [&[u8]; 4] = [&[0], &[0, 0], &[0xff], &long];
    for key in keys {
        tables.put(tree, key, offset(1), Some(&large)).expect("a row can be put");
    }
    let reader = tables.reader();
    for round in 0..2 {
        for key in keys {
            let version = reader.get(tree, key, Offset::MAX).expect("a row can be read");
            let version = version.expect("the row is there");
            assert!(version.value.expect("it is no deletion").as_ref() == &large[..]);
        }
        let mut seen = Vec::new();
        let all = KeyRange { from: &[], to: None };
        let visit = &mut |key: &[u8], _, _: &[u8]| {
            seen.push(key.to_vec());
            ControlFlow::Continue(())
        };
        reader.scan(tree, all, false, Offset::MAX, visit).expect("rows can be scanned");
        assert_eq!(seen, keys);
        if round == 0 {
            tables.rotate(&[SHARD, tree], mark(1)).expect("memtables rotate");
            settle(&mut tables);
        }
    }
}

/// Reads go on while memtables rotate, flush and compact: none may miss a row or see one twice.
fn readers_are_right_beside_background_work<F: Fixture>(fixture: &mut F) {
    let tree = TreeId(1);
    let mut tables = with_trees(fixture, &[tree]);
    let reader = tables.reader();
    for round in 0..20u64 {
        for n in 0..50 {
            let value = format!("{round}");
            put(&mut tables, tree, &format!("k{n:02}"), round * 50 + n, Some(&value));
        }
        tables.rotate(&[SHARD, tree], mark(round * 50 + 49)).expect("memtables rotate");
        let check = |at: u64| {
            let rows = everything(&reader, tree, offset(at));
            assert_eq!(rows.len() as u64, 50.min(at + 1), "at {at}");
            let newest = format!("k{:02}={}@{at}", at % 50, at / 50);
            assert!(rows.contains(&newest), "{newest} is missing");
        };
        check(round * 50 + 25);
        while let Some(job) = tables.job() {
            check(round * 50 + 30);
            let done = job.run();
            check(round * 50 + 35);
            tables.done(done).expect("background work succeeds");
            check(round * 50 + 49);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::MemTables;

    #[derive(Default)]
    struct InMemory(Option<MemTables>);

    impl Fixture for InMemory {
        type T = MemTables;

        fn open(&mut self) -> MemTables {
            let disk = self.0.take().map_or_else(MemTables::new, |tables| tables.crash());
            self.0 = Some(disk.share());
            disk
        }
    }

    #[test]
    fn tables_in_memory_keep_the_contract() {
        all(InMemory::default);
    }
}
