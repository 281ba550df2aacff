//! The node in this process, and the tables beside their peer.

use crate::Setting;
use crate::table::{Table, grouped, median, verdict};
use anyhow::Context as _;
use naust::snapshot::ScanRange;
use naust::{Config, Naust};
use naust_client::Commit;
use std::collections::VecDeque;
use std::path::Path;
use std::time::{Duration, Instant};

const KEYS: u64 = 1_000_000;
const VALUE_BYTES: usize = 128;
/// Block cache of each of the two.
const CACHE_BYTES: u64 = 64 << 20;

/// Turns of reads that a round is cut into.
const TURNS: u32 = 8;

/// splitmix64 (Steele et al. 2014): draws keys and values.
struct Draw(u64);

impl Draw {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn key(&mut self) -> [u8; 16] {
        key(self.next() % KEYS)
    }

    fn value(&mut self) -> Vec<u8> {
        (0..VALUE_BYTES / 8).flat_map(|_| self.next().to_le_bytes()).collect()
    }
}

fn key(number: u64) -> [u8; 16] {
    let mut key = [0u8; 16];
    key[..8].copy_from_slice(&Draw(number).next().to_be_bytes());
    key[8..].copy_from_slice(&number.to_be_bytes());
    key
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

/// Commits a second through the embedded client, `in_flight` under way from one task.
pub fn commits(data: &Path, in_flight: usize, time: Duration) -> anyhow::Result<f64> {
    let naust = Naust::open(Config::embedded(data))?;
    let client = naust.client();
    let rate = runtime()?.block_on(async {
        let namespace = client.namespace("default");
        let mut draw = Draw(7);
        let mut pending = VecDeque::with_capacity(in_flight);
        let (mut done, mut counted_from) = (0u64, 0);
        let warm = Instant::now() + Duration::from_secs(1);
        let mut start = None;
        loop {
            let commit = Commit::new().put("bench", draw.key(), draw.value());
            pending.push_back(namespace.submit(commit));
            if pending.len() == in_flight {
                pending.pop_front().expect("just seen").await?;
                done += 1;
            }
            if done.is_multiple_of(256) {
                let now = Instant::now();
                if start.is_none() && now >= warm {
                    (start, counted_from) = (Some(now), done);
                }
                if let Some(start) = start.filter(|start| now - *start >= time) {
                    let rate = (done - counted_from) as f64 / (now - start).as_secs_f64();
                    for commit in pending {
                        commit.await?;
                    }
                    return anyhow::Ok(rate);
                }
            }
        }
    })?;
    naust.shutdown()?;
    Ok(rate)
}

async fn fill(naust: &Naust) -> anyhow::Result<()> {
    let client = naust.client();
    let namespace = client.namespace("default");
    let mut draw = Draw(1);
    let mut pending = VecDeque::new();
    for number in 0..KEYS {
        let commit = Commit::new().put("bench", key(number), draw.value());
        pending.push_back(namespace.submit(commit));
        if pending.len() == 256 {
            pending.pop_front().expect("just seen").await?;
        }
    }
    for commit in pending {
        commit.await?;
    }
    Ok(())
}

/// Point reads and scans on the same data with equal caches, interleaved.
pub fn beside_fjall(setting: &Setting) -> anyhow::Result<()> {
    let directory = setting.directory()?;
    let config =
        || Config { cache_bytes: CACHE_BYTES, ..Config::embedded(directory.path().join("naust")) };
    let naust = Naust::open(config())?;
    runtime()?.block_on(fill(&naust))?;
    // A clean restart flushes, so that both read from tables.
    naust.shutdown()?;
    drop(naust);
    let naust = Naust::open(config())?;
    let peer =
        fjall::Database::builder(directory.path().join("fjall")).cache_size(CACHE_BYTES).open()?;
    let keyspace = peer.keyspace("bench", fjall::KeyspaceCreateOptions::default)?;
    let mut draw = Draw(1);
    for number in 0..KEYS {
        keyspace.insert(key(number), draw.value())?;
    }
    keyspace.rotate_memtable_and_wait()?;

    let snapshot = naust.snapshot("default").context("the namespace is there")?;
    // Short turns, so that a mood of the machine meets both alike.
    let reads = Duration::from_secs(setting.seconds) / (3 * TURNS);
    let mut rates: [Vec<f64>; 4] = Default::default();
    for round in 0..setting.rounds.max(3) * TURNS as usize {
        snapshot.renew()?;
        let mut draw = Draw(100 + round as u64);
        rates[0].push(per_second(reads, || {
            let (_, value) = snapshot.get("bench", &draw.key())?.context("a row is missing")?;
            anyhow::ensure!(value.as_ref().len() == VALUE_BYTES, "a value is wrong");
            Ok(1)
        })?);
        let mut draw = Draw(100 + round as u64);
        rates[1].push(per_second(reads, || {
            let value = keyspace.get(draw.key())?.context("a row is missing")?;
            anyhow::ensure!(value.len() == VALUE_BYTES, "a value is wrong");
            Ok(1)
        })?);
        let mut draw = Draw(200 + round as u64);
        rates[2].push(per_second(reads, || {
            let mut rows = 0;
            let key = draw.key();
            let range = ScanRange { from: &key, to: None, reverse: false, limit: 100 };
            snapshot.scan("bench", range, |_, _, value| rows += value.len() as u64)?;
            Ok(rows / VALUE_BYTES as u64)
        })?);
        let mut draw = Draw(200 + round as u64);
        rates[3].push(per_second(reads, || {
            let mut rows = 0;
            for guard in keyspace.range(draw.key()..).take(100) {
                let (_, value) = guard.into_inner()?;
                rows += value.len() as u64;
            }
            Ok(rows / VALUE_BYTES as u64)
        })?);
    }
    let columns = ["what", "Naust /s", "fjall /s", "ratio", "aim", "reached"];
    let mut table = Table::new("Tables, embedded, one thread, 1 M rows, equal caches", &columns);
    for (name, at) in [("point reads", 0), ("rows of scans of 100", 2)] {
        let (ours, theirs) = (median(&rates[at]), median(&rates[at + 1]));
        let ratio = ours / theirs;
        let told = format!("{ratio:.2}");
        let reached = verdict(ratio >= 1.0);
        table.row(&[&name, &grouped(ours), &grouped(theirs), &told, &"≥ 1", &reached]);
    }
    table.print();
    drop(snapshot);
    naust.shutdown()?;
    Ok(())
}

/// Runs `step` for `time`; it says how much it did.
fn per_second(
    time: Duration,
    mut step: impl FnMut() -> anyhow::Result<u64>,
) -> anyhow::Result<f64> {
    let start = Instant::now();
    let mut done = 0;
    loop {
        for _ in 0..64 {
            done += step()?;
        }
        let elapsed = start.elapsed();
        if elapsed >= time {
            return Ok(done as f64 / elapsed.as_secs_f64());
        }
    }
}
