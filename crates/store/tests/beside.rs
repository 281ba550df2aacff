//! Readers on other threads, beside the owner and two background threads. What each of them must
//! find follows from the offset at which it reads: commit number n puts the row `n mod 97` with n
//! as its value.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{Random, directory, keyspace, mark_at, open};
use naust_machine::{KeyRange, Tables, TablesJob, TablesReader, TreeId};
use naust_store::{LsmJob, LsmReader};
use naust_wire::Offset;
use naust_wire::options::{Compaction, Compression};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, channel, sync_channel};
use std::sync::{Arc, Mutex};

const KEYS: u64 = 97;
/// The story ends when there were as many commits and reads.
const COMMITS: u64 = 50_000;
const READS: u64 = 5_000;
const READERS: usize = 3;

fn offset(commit: u64) -> Offset {
    Offset(Offset::FIRST.0 + commit * 64)
}

fn key(number: u64) -> Vec<u8> {
    format!("row {number:03}, whose key is long").into_bytes()
}

fn check_row(reader: &LsmReader, number: u64, commit: u64) {
    let newest = (0..=commit).rev().take(KEYS as usize).find(|n| n % KEYS == number);
    let found = reader.get(TreeId(1), &key(number), offset(commit)).unwrap();
    let found = found.map(|version| {
        let value = version.value.unwrap();
        (version.offset, u64::from_le_bytes(value.as_ref().try_into().unwrap()))
    });
    assert_eq!(found, newest.map(|newest| (offset(newest), newest)), "row {number} at {commit}");
}

fn check_all(reader: &LsmReader, commit: u64, reverse: bool) {
    let mut commits = Vec::new();
    let range = KeyRange { from: b"", to: None };
    let visit = &mut |_: &[u8], at: Offset, value: &[u8]| {
        let newest = u64::from_le_bytes(value.try_into().unwrap());
        assert_eq!(at, offset(newest));
        commits.push(newest);
        ControlFlow::Continue(())
    };
    reader.scan(TreeId(1), range, reverse, offset(commit), visit).unwrap();
    commits.sort_unstable();
    let expected: Vec<u64> = ((commit + 1).saturating_sub(KEYS)..=commit).collect();
    assert_eq!(commits, expected);
}

/// What the owner and the readers tell each other.
#[derive(Default)]
struct Shared {
    /// The last commit.
    applied: AtomicU64,
    /// No reader may begin below this commit.
    floor: AtomicU64,
    /// The commit above which each reader reads now.
    held: [AtomicU64; READERS],
    /// Reads so far.
    reads: AtomicU64,
    /// The story is over.
    ended: AtomicBool,
}

impl Shared {
    /// Takes hold of the floor, so that it rises no further until the next hold.
    fn hold(&self, reader: usize) -> u64 {
        loop {
            let floor = self.floor.load(Ordering::SeqCst);
            self.held[reader].store(floor, Ordering::SeqCst);
            if self.floor.load(Ordering::SeqCst) == floor {
                return floor;
            }
        }
    }

    /// Raises the floor, and says how far it may rise for the tables.
    fn raise(&self, floor: u64) -> u64 {
        self.floor.store(floor, Ordering::SeqCst);
        let held = self.held.iter().map(|held| held.load(Ordering::SeqCst));
        held.min().map_or(floor, |held| held.min(floor))
    }
}

fn read(reader: &LsmReader, shared: &Shared, number: usize) {
    let mut random = Random::new(number as u64 + 1);
    while !shared.ended.load(Ordering::Relaxed) {
        let lowest = shared.hold(number);
        let commit = shared.applied.load(Ordering::Acquire);
        let at = lowest + random.below(commit - lowest + 1);
        if random.one_in(20) {
            check_all(reader, at, random.one_in(2));
        } else {
            check_row(reader, random.below(KEYS), at);
        }
        shared.reads.fetch_add(1, Ordering::Relaxed);
    }
}

fn work(
    to_do: &Mutex<Receiver<LsmJob>>,
    ended: &std::sync::mpsc::Sender<<LsmJob as TablesJob>::Done>,
) {
    loop {
        let job = to_do.lock().unwrap().recv();
        let Ok(job) = job else { return };
        if ended.send(job.run()).is_err() {
            return;
        }
    }
}

#[test]
fn readers_see_one_moment() {
    let directory = directory();
    let mut tables = open(directory.path());
    tables.make(TreeId::SHARD, &keyspace(Compaction::Levelled, Compression::None)).unwrap();
    tables.make(TreeId(1), &keyspace(Compaction::Levelled, Compression::Lz4)).unwrap();
    let shared = Arc::new(Shared::default());
    tables.put(TreeId(1), &key(0), offset(0), Some(&0_u64.to_le_bytes())).unwrap();
    let (jobs, to_do) = sync_channel(8);
    let (ended, done) = channel();
    let to_do = Arc::new(Mutex::new(to_do));
    let mut readers = Vec::new();
    for number in 0..READERS {
        let (reader, shared) = (tables.reader(), shared.clone());
        readers.push(std::thread::spawn(move || read(&reader, &shared, number)));
        let (to_do, ended) = (to_do.clone(), ended.clone());
        std::thread::spawn(move || work(&to_do, &ended));
    }
    let mut commit = 0;
    while commit < COMMITS || shared.reads.load(Ordering::Relaxed) < READS {
        commit += 1;
        let value = commit.to_le_bytes();
        tables.put(TreeId(1), &key(commit % KEYS), offset(commit), Some(&value)).unwrap();
        shared.applied.store(commit, Ordering::Release);
        if commit % 500 == 0 {
            let floor = shared.raise(commit.saturating_sub(2000));
            tables.set_history_floor(offset(floor));
            tables.rotate(&[TreeId::SHARD, TreeId(1)], mark_at(offset(commit).0)).unwrap();
        }
        // A reader that has died is no reason to go on for ever.
        if readers.iter().any(|reader| reader.is_finished()) {
            break;
        }
        while let Some(job) = tables.job() {
            jobs.send(job).unwrap();
        }
        // As the product does, the owner takes no more than the background threads get done.
        while tables.flushing_bytes() > 256 << 10 || tables.backlog() > 8 {
            tables.done(done.recv().unwrap()).unwrap();
            while let Some(job) = tables.job() {
                jobs.send(job).unwrap();
            }
        }
        while let Ok(done) = done.try_recv() {
            tables.done(done).unwrap();
        }
    }
    shared.ended.store(true, Ordering::Relaxed);
    for reader in readers {
        reader.join().unwrap();
    }
}
