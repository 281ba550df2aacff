//! How fast the tables are, on one thread beside one background thread: `tables_timing [KEYS]
//! [DIRECTORY]`.
//!
//! Puts KEYS rows (16-byte keys in random order, incompressible 128-byte values), overwrites them
//! once, reads them back and scans them, under each kind of compaction, and prints rates, the
//! longest single put, and how many bytes were written to tables for each byte put. Before that,
//! what 1,000 quiet shards cost.

#![allow(clippy::print_stdout, reason = "it prints a table")]

use naust_machine::{KeyRange, Mark, Tables, TablesJob, TablesReader, TreeId};
use naust_store::{Cache, LsmJob, LsmTables, StoreOptions};
use naust_wire::Offset;
use naust_wire::options::{Compaction, Compression, KeyspaceOptions};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

const TREE: TreeId = TreeId(1);
const MEMORY_BYTES: u64 = 32 << 20;
const QUIET_SHARDS: u64 = 1000;
const CACHE_BYTES: u64 = 256 << 20;

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let keys: u64 = arguments.next().map_or(Ok(1_000_000), |keys| keys.parse())?;
    let base = arguments.next().map_or_else(std::env::temp_dir, PathBuf::from);
    println!(
        "{keys} keys of 16 bytes, values of 128 bytes, memory {MEMORY_BYTES}, cache {CACHE_BYTES}"
    );
    let directory = base.join(format!("naust-timing-{}", std::process::id()));
    let measured = quiet(&directory);
    std::fs::remove_dir_all(&directory)?;
    measured?;
    let kinds = [Compaction::Levelled, Compaction::WriteOptimised, Compaction::Fifo];
    for compaction in kinds {
        let measured = measure(&directory, compaction, keys);
        std::fs::remove_dir_all(&directory)?;
        measured?;
    }
    let measured = measure_growing(&directory, keys);
    std::fs::remove_dir_all(&directory)?;
    measured
}

/// What many shards cost that hold one flushed row each.
fn quiet(directory: &Path) -> Result<(), Failure> {
    let options = options();
    let open = |shard: u64| LsmTables::open(&directory.join(shard.to_string()), options.clone());
    for shard in 0..QUIET_SHARDS {
        let mut tables = open(shard)?;
        tables.make(TreeId::SHARD, &KeyspaceOptions::default())?;
        tables.put(TreeId::SHARD, b"a row", Offset::FIRST, Some(b"its value"))?;
        tables.rotate(&[TreeId::SHARD], Mark { applied: Offset::FIRST, ..Mark::default() })?;
        while let Some(job) = tables.job() {
            tables.done(job.run())?;
        }
    }
    let (before, started) = (resident_bytes()?, Instant::now());
    let shards = (0..QUIET_SHARDS).map(open).collect::<Result<Vec<_>, _>>()?;
    let took = started.elapsed() / QUIET_SHARDS as u32;
    let memory = resident_bytes()?.saturating_sub(before) / QUIET_SHARDS;
    let files = std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
    println!(
        "a quiet shard: {memory} bytes of memory, opened in {took:?}; open files in all: {files}"
    );
    drop(shards);
    Ok(())
}

fn measure(directory: &Path, compaction: Compaction, keys: u64) -> Result<(), Failure> {
    println!("{compaction:?}");
    let mut bench = Bench::open(directory, compaction)?;
    bench.puts("put", 0, keys)?;
    bench.puts("put again", 1, keys)?;
    bench.settle()?;
    let user_bytes = 2 * keys * 144;
    println!(
        "  bytes written to tables / bytes put  {:.2}",
        bench.written as f64 / user_bytes as f64
    );
    bench.gets("get, cold", keys)?;
    bench.gets("get, warm", keys)?;
    bench.gets_absent(keys)?;
    bench.scans("scan all", keys, usize::MAX, 3)?;
    bench.scans("scan 100 rows", keys, 100, 20_000)?;
    let started = Instant::now();
    let reopened = bench.reopen()?;
    println!("  reopen                               {:?}", started.elapsed());
    drop(reopened);
    Ok(())
}

/// Keys that only grow, as of a journal.
fn measure_growing(directory: &Path, keys: u64) -> Result<(), Failure> {
    println!("Levelled, growing keys");
    let mut bench = Bench::open(directory, Compaction::Levelled)?;
    bench.key = |number| u128::from(number).to_be_bytes();
    bench.puts("put", 1, keys)?;
    bench.settle()?;
    println!(
        "  bytes written to tables / bytes put  {:.2}",
        bench.written as f64 / (keys * 144) as f64
    );
    bench.gets("get", keys)
}

struct Bench {
    key: fn(u64) -> [u8; 16],
    directory: PathBuf,
    tables: LsmTables,
    jobs: Sender<LsmJob>,
    done: Receiver<<LsmJob as TablesJob>::Done>,
    under_way: usize,
    at: u64,
    written: u64,
}

fn options() -> StoreOptions {
    StoreOptions::new(Cache::new(CACHE_BYTES, 256))
}

/// A number spread over all of its bits.
fn spread(number: u64) -> u64 {
    let mixed = (number ^ (number >> 31)).wrapping_mul(0x7FB5_D329_728E_A185);
    (mixed ^ (mixed >> 27)).wrapping_mul(0x81DA_DEF4_BC2D_D44D)
}

fn key(number: u64) -> [u8; 16] {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&spread(number).to_be_bytes());
    key[8..].copy_from_slice(&number.to_be_bytes());
    key
}

fn value(seed: u64) -> [u8; 128] {
    let mut value = [0; 128];
    for (at, part) in (0_u64..).zip(value.chunks_mut(8)) {
        part.copy_from_slice(&spread(seed * 16 + at + 1).to_le_bytes());
    }
    value
}

impl Bench {
    fn open(directory: &Path, compaction: Compaction) -> Result<Bench, Failure> {
        let mut tables = LsmTables::open(directory, options())?;
        let plain = KeyspaceOptions { compression: Compression::None, ..Default::default() };
        tables.make(TreeId::SHARD, &plain)?;
        tables.make(TREE, &KeyspaceOptions { compaction, ..plain })?;
        let (jobs, to_do) = channel::<LsmJob>();
        let (ended, done) = channel();
        std::thread::spawn(move || {
            for job in to_do {
                if ended.send(job.run()).is_err() {
                    return;
                }
            }
        });
        let at = Offset::FIRST.0;
        let directory = directory.to_path_buf();
        Ok(Bench { key, directory, tables, jobs, done, under_way: 0, at, written: 0 })
    }

    /// Hands out what is due and takes in what is done; waits for something if `wait`.
    fn background(&mut self, wait: bool) -> Result<(), Failure> {
        while self.under_way > 0 {
            let done = if wait { self.done.recv().ok() } else { self.done.try_recv().ok() };
            let Some(done) = done else {
                break;
            };
            self.tables.done(done)?;
            self.under_way -= 1;
            if wait {
                break;
            }
        }
        while let Some(job) = self.tables.job() {
            self.jobs.send(job)?;
            self.under_way += 1;
        }
        Ok(())
    }

    fn puts(&mut self, name: &str, round: u64, keys: u64) -> Result<(), Failure> {
        let (started, before) = (Instant::now(), bytes_written()?);
        let (mut slowest, mut waited) = (Duration::ZERO, Duration::ZERO);
        let mut last = started;
        for number in 0..keys {
            self.at += 64;
            let value = value(number * 2 + round);
            self.tables.put(TREE, &(self.key)(number), Offset(self.at), Some(&value))?;
            if number.is_multiple_of(64) {
                let now = Instant::now();
                slowest = slowest.max(now - last);
                if self.tables.unflushed_bytes(TREE) > MEMORY_BYTES {
                    self.rotate()?;
                }
                self.background(false)?;
                while self.tables.flushing_bytes() > 4 * MEMORY_BYTES || self.tables.backlog() > 16
                {
                    self.background(true)?;
                }
                last = Instant::now();
                waited += last - now;
            }
        }
        let (total, busy) = (started.elapsed(), started.elapsed() - waited);
        let busy = keys as f64 / busy.as_secs_f64();
        print_rate(name, keys, total);
        println!("  … without waiting for the disk       {busy:>12.0} /s, slowest 64: {slowest:?}");
        self.written += bytes_written()? - before;
        Ok(())
    }

    fn rotate(&mut self) -> Result<(), Failure> {
        let mark = Mark { applied: Offset(self.at), next: Offset(self.at + 64), ..Mark::default() };
        self.tables.set_history_floor(Offset(self.at));
        Ok(self.tables.rotate(&[TreeId::SHARD, TREE], mark)?)
    }

    fn settle(&mut self) -> Result<(), Failure> {
        let before = bytes_written()?;
        self.rotate()?;
        self.background(false)?;
        while self.under_way > 0 {
            self.background(true)?;
        }
        self.written += bytes_written()? - before;
        let (bytes, rows) = self.tables.size(TREE);
        println!("  bytes on disk {bytes}, row versions {rows}");
        Ok(())
    }

    fn gets(&mut self, name: &str, keys: u64) -> Result<(), Failure> {
        let reader = self.tables.reader();
        let started = Instant::now();
        for turn in 0..keys {
            let number = spread(turn) % keys;
            let found = reader.get(TREE, &(self.key)(number), Offset(self.at))?;
            let found = found.and_then(|version| version.value);
            assert!(
                found.is_some_and(|found| found.as_ref() == value(number * 2 + 1)),
                "row {number}"
            );
        }
        print_rate(name, keys, started.elapsed());
        Ok(())
    }

    fn gets_absent(&mut self, keys: u64) -> Result<(), Failure> {
        let reader = self.tables.reader();
        let started = Instant::now();
        for turn in 0..keys {
            assert!(
                reader.get(TREE, &key(keys + turn), Offset(self.at))?.is_none(),
                "an absent row"
            );
        }
        print_rate("get, absent", keys, started.elapsed());
        Ok(())
    }

    fn scans(&mut self, name: &str, keys: u64, limit: usize, times: u64) -> Result<(), Failure> {
        let reader = self.tables.reader();
        let (started, mut rows) = (Instant::now(), 0);
        for turn in 0..times {
            let from = if limit == usize::MAX { [0; 16] } else { key(spread(turn) % keys) };
            let mut left = limit;
            let range = KeyRange { from: &from, to: None };
            reader.scan(TREE, range, false, Offset(self.at), &mut |_, _, value| {
                assert!(value.len() == 128, "a value");
                rows += 1;
                left -= 1;
                if left > 0 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            })?;
        }
        print_rate(name, rows, started.elapsed());
        Ok(())
    }

    fn reopen(self) -> Result<LsmTables, Failure> {
        let Bench { directory, tables, .. } = self;
        drop(tables);
        Ok(LsmTables::open(&directory, options())?)
    }
}

fn print_rate(name: &str, count: u64, took: Duration) {
    println!("  {name:<36} {:>12.0} /s", count as f64 / took.as_secs_f64());
}

/// Bytes that this process has written so far, where the system tells.
fn bytes_written() -> Result<u64, Failure> {
    let Ok(text) = std::fs::read_to_string("/proc/self/io") else {
        return Ok(0);
    };
    let line = text.lines().find_map(|line| line.strip_prefix("wchar: "));
    Ok(line.map_or(Ok(0), str::parse)?)
}

/// Bytes of memory that this process holds, where the system tells.
fn resident_bytes() -> Result<u64, Failure> {
    let Ok(text) = std::fs::read_to_string("/proc/self/statm") else {
        return Ok(0);
    };
    let pages = text.split(' ').nth(1).map_or(Ok(0), str::parse::<u64>)?;
    Ok(pages * 4096)
}
