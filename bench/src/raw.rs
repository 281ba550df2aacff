//! What the disk can do, without anything of ours: the limits that rows are held against.

use anyhow::Context as _;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

const PAGE: u64 = 4096;
const MEBIBYTE: u64 = 1 << 20;
/// Space that the measurement of a growing file may take.
const GROWING_BYTES_MAX: u64 = 8 << 30;

/// Bytes a second of a new file of so many MiB that grows as it is written, with an `fdatasync` a
/// 16 MiB; it is removed.
pub fn file_bytes_per_second(directory: &Path, mebibytes: u64) -> anyhow::Result<f64> {
    let path = directory.join("file");
    let file = OpenOptions::new().create(true).truncate(true).write(true).open(&path)?;
    let block = vec![7u8; MEBIBYTE as usize];
    let start = Instant::now();
    for number in 0..mebibytes {
        file.write_all_at(&block, number * MEBIBYTE)?;
        if number % 16 == 15 || number + 1 == mebibytes {
            rustix::fs::fdatasync(&file)?;
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    std::fs::remove_file(&path)?;
    Ok((mebibytes * MEBIBYTE) as f64 / seconds)
}

fn zeroed(directory: &Path, name: &str, mebibytes: u64) -> anyhow::Result<File> {
    let path = directory.join(name);
    let file = OpenOptions::new().create(true).truncate(true).read(true).write(true).open(&path)?;
    let zeros = vec![0u8; MEBIBYTE as usize];
    for number in 0..mebibytes {
        file.write_all_at(&zeros, number * MEBIBYTE)?;
    }
    file.sync_all().context("the file can't be synced")?;
    Ok(file)
}

/// Microseconds of one 4 KiB write and `fdatasync` on a zero-filled file: the median of what fits
/// `time`.
pub fn sync_p50_us(directory: &Path, time: Duration) -> anyhow::Result<f64> {
    let file = zeroed(directory, "sync", 16)?;
    let page = vec![7u8; PAGE as usize];
    let mut taken = Vec::new();
    let start = Instant::now();
    while start.elapsed() < time {
        let place = taken.len() as u64 % (16 * MEBIBYTE / PAGE) * PAGE;
        let from = Instant::now();
        file.write_all_at(&page, place)?;
        rustix::fs::fdatasync(&file)?;
        taken.push(from.elapsed().as_secs_f64() * 1e6);
    }
    Ok(crate::table::median(&taken))
}

/// Bytes a second of sequential writes with one `fdatasync` a MiB, on a zero-filled file that is
/// written round.
pub fn sequential_bytes_per_second(directory: &Path, time: Duration) -> anyhow::Result<f64> {
    let file = zeroed(directory, "sequential", 64)?;
    let block = vec![7u8; MEBIBYTE as usize];
    let mut written = 0;
    let start = Instant::now();
    while start.elapsed() < time {
        file.write_all_at(&block, written % (64 * MEBIBYTE))?;
        rustix::fs::fdatasync(&file)?;
        written += MEBIBYTE;
    }
    Ok(written as f64 / start.elapsed().as_secs_f64())
}

/// The same to the end of a new file, which is removed.
pub fn growing_bytes_per_second(directory: &Path, time: Duration) -> anyhow::Result<f64> {
    let path = directory.join("growing");
    let file = OpenOptions::new().create(true).truncate(true).write(true).open(&path)?;
    let block = vec![7u8; MEBIBYTE as usize];
    let mut written = 0;
    let start = Instant::now();
    while start.elapsed() < time && written < GROWING_BYTES_MAX {
        file.write_all_at(&block, written)?;
        rustix::fs::fdatasync(&file)?;
        written += MEBIBYTE;
    }
    let rate = written as f64 / start.elapsed().as_secs_f64();
    std::fs::remove_file(&path)?;
    Ok(rate)
}
