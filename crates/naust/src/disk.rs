//! The real disk: [`naust_log::disk::Disk`] over a directory of a file system.
//!
//! `pread`, `pwritev`, `fdatasync` and `fsync` of the directory; nothing is cached or put off here.
//! Everything that is written and synced is counted in a [`Meter`] that all disks of a node share.

use naust_log::disk::{Disk, File, Open};
use std::fs;
use std::io::{self, IoSlice};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Most parts of one `pwritev` (Linux: `UIO_MAXIOV`).
const PARTS_MAX: usize = 1024;

/// Bytes of a page of memory, about: another size makes a hint less precise.
#[cfg(target_os = "linux")]
const PAGE_BYTES: u64 = 4096;
/// Pages of one hint that a sync will follow.
#[cfg(target_os = "linux")]
const BEGIN_PAGES_MAX: usize = 4;

/// What a node's logs did to the disk since it started. Counts only; read whenever.
#[derive(Debug, Default)]
pub struct Meter {
    /// `fdatasync`s of log files and `fsync`s of their directories.
    pub syncs: AtomicU64,
    /// Bytes written to log files: frames, padding, footers, superblocks and zeros.
    pub bytes_written: AtomicU64,
    /// Bytes read from log files.
    pub bytes_read: AtomicU64,
}

/// The directory of one shard's log on a file system.
pub struct FileDisk {
    path: PathBuf,
    meter: Arc<Meter>,
    sync_delay: Option<Duration>,
}

impl FileDisk {
    /// A disk over a directory, which is made if it is missing. With `sync_delay` every sync sleeps
    /// first: a slow disk for measurements on fast ones.
    ///
    /// # Errors
    /// Of the operating system.
    pub fn open(
        path: &Path,
        meter: Arc<Meter>,
        sync_delay: Option<Duration>,
    ) -> io::Result<FileDisk> {
        if !path.is_dir() {
            fs::create_dir_all(path)?;
            if let Some(parent) = path.parent() {
                fs::File::open(parent)?.sync_all()?;
            }
        }
        Ok(FileDisk { path: path.to_owned(), meter, sync_delay })
    }

    fn slow_down(&self) {
        delay(self.sync_delay);
    }
}

impl Disk for FileDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                names.push(entry.file_name().to_string_lossy().into_owned());
            }
        }
        Ok(names)
    }

    fn open(&self, name: &str, open: Open) -> io::Result<Arc<dyn File>> {
        let file = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create(open == Open::Create)
            .truncate(false)
            .open(self.path.join(name))?;
        let meter = Arc::clone(&self.meter);
        Ok(Arc::new(DiskFile { file, meter, sync_delay: self.sync_delay }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path.join(from), self.path.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path.join(name))
    }

    fn sync(&self) -> io::Result<()> {
        self.slow_down();
        self.meter.syncs.fetch_add(1, Ordering::Relaxed);
        fs::File::open(&self.path)?.sync_all()
    }
}

struct DiskFile {
    file: fs::File,
    meter: Arc<Meter>,
    sync_delay: Option<Duration>,
}

impl File for DiskFile {
    fn read_at(&self, position: u64, into: &mut [u8]) -> io::Result<usize> {
        let mut done = 0;
        while done < into.len() {
            match self.file.read_at(&mut into[done..], position + done as u64) {
                Ok(0) => break,
                Ok(read) => done += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.meter.bytes_read.fetch_add(done as u64, Ordering::Relaxed);
        Ok(done)
    }

    fn write_at(&self, position: u64, parts: &[&[u8]]) -> io::Result<()> {
        let bytes: usize = parts.iter().map(|part| part.len()).sum();
        self.meter.bytes_written.fetch_add(bytes as u64, Ordering::Relaxed);
        if let [part] = parts {
            return self.file.write_all_at(part, position);
        }
        let mut slices: Vec<IoSlice<'_>> =
            parts.iter().filter(|part| !part.is_empty()).map(|part| IoSlice::new(part)).collect();
        let mut rest = &mut slices[..];
        let mut position = position;
        while !rest.is_empty() {
            let count = rest.len().min(PARTS_MAX);
            match rustix::io::pwritev(&self.file, &rest[..count], position) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    position += written as u64;
                    IoSlice::advance_slices(&mut rest, written);
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    #[cfg(target_os = "linux")]
    fn begin_sync(&self, position: u64, length: u64) {
        // Told that bytes will not be needed, the system begins to write back their pages, and
        // forgets those that lie within them whole: none, of a single byte. A long write would take
        // a call for each page.
        let last = position + length.max(1) - 1;
        let mut pages = (position / PAGE_BYTES..=last / PAGE_BYTES).take(BEGIN_PAGES_MAX);
        let byte = std::num::NonZeroU64::new(1);
        // A hint that is not taken costs nothing but time.
        pages.all(|page| {
            let at = position.max(page * PAGE_BYTES);
            rustix::fs::fadvise(&self.file, at, byte, rustix::fs::Advice::DontNeed).is_ok()
        });
    }

    fn sync(&self) -> io::Result<()> {
        delay(self.sync_delay);
        self.meter.syncs.fetch_add(1, Ordering::Relaxed);
        self.file.sync_data()
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.file.set_len(length)
    }
}

/// Has the system begin to write these bytes of a file to the disk, so that a sync, whoever asks
/// for one, finds less to do at once. Where there is no such hint, nothing is lost but that.
/// Whether it was given.
#[cfg(target_os = "linux")]
pub(crate) fn send(file: &fs::File, position: u64, length: u64) -> bool {
    use rustix::fs::{Advice, fadvise};
    // Told that bytes will not be needed, it writes them, and keeps what it is writing.
    let length = std::num::NonZeroU64::new(length);
    length.is_some_and(|it| fadvise(file, position, Some(it), Advice::DontNeed).is_ok())
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn send(_: &fs::File, _: u64, _: u64) -> bool {
    false
}

fn delay(sync_delay: Option<Duration>) {
    if let Some(time) = sync_delay {
        std::thread::sleep(time);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_keeps_the_promises_of_all_disks() {
        let root = tempfile::tempdir().unwrap();
        let count = AtomicU64::new(0);
        naust_log::contract::all(&|| {
            let path = root.path().join(count.fetch_add(1, Ordering::Relaxed).to_string());
            Arc::new(FileDisk::open(&path, Arc::new(Meter::default()), None).unwrap())
        });
    }

    #[test]
    fn many_parts_arrive_in_order_and_are_counted() {
        let directory = tempfile::tempdir().unwrap();
        let meter = Arc::new(Meter::default());
        let disk = FileDisk::open(&directory.path().join("log"), Arc::clone(&meter), None).unwrap();
        let file = disk.open("a", Open::Create).unwrap();
        let bytes: Vec<[u8; 3]> = (0..3000u32).map(|i| [i as u8, (i >> 8) as u8, 7]).collect();
        let parts: Vec<&[u8]> = bytes.iter().map(|part| &part[..]).collect();
        file.write_at(5, &parts).unwrap();
        file.sync().unwrap();
        let mut back = vec![0u8; 9010];
        assert_eq!(file.read_at(5, &mut back).unwrap(), 9000, "fewer only at the end of the file");
        assert_eq!(back[..9000], bytes.concat()[..]);
        assert_eq!(meter.bytes_written.load(Ordering::Relaxed), 9000);
        assert_eq!(meter.syncs.load(Ordering::Relaxed), 1);
    }
}
