//! A disk that goes dark in the middle of a job: after so many more operations nothing works any
//! more.
//!
//! Jobs of `log` run to their end between two events of the world. A power cut *inside* one is made
//! with a fuse: the operation that blows it, and all later ones, fail; then the world cuts the
//! power, and the disk below decides what of the last operations was kept.

use naust_log::disk::{Disk, File, Open};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Counts operations down. Shared by all disks of one node.
#[derive(Debug)]
pub struct Fuse {
    left: AtomicU64,
    forgets_syncs: AtomicBool,
}

const WHOLE: u64 = u64::MAX;

impl Default for Fuse {
    fn default() -> Self {
        Fuse { left: AtomicU64::new(WHOLE), forgets_syncs: AtomicBool::new(false) }
    }
}

impl Fuse {
    /// It blows at the operation after so many more.
    pub fn light(&self, operations: u64) {
        self.left.store(operations.min(WHOLE - 1), Ordering::Relaxed);
    }

    /// Makes it whole again; says whether it had blown.
    pub fn replace(&self) -> bool {
        self.left.swap(WHOLE, Ordering::Relaxed) == 0
    }

    /// From now on disks say that they synced, and do not: see [`crate::sabotage`].
    pub fn forget_syncs(&self) {
        self.forgets_syncs.store(true, Ordering::Relaxed);
    }

    fn burn(&self) -> io::Result<()> {
        match self.left.load(Ordering::Relaxed) {
            WHOLE => Ok(()),
            0 => Err(io::Error::other("the power is gone")),
            left => {
                self.left.store(left - 1, Ordering::Relaxed);
                if left == 1 { Err(io::Error::other("the power is gone")) } else { Ok(()) }
            }
        }
    }
}

/// A disk behind a fuse.
pub struct Fused {
    disk: Arc<dyn Disk>,
    fuse: Arc<Fuse>,
}

impl Fused {
    /// Puts a disk behind a fuse.
    #[must_use]
    pub fn new(disk: Arc<dyn Disk>, fuse: Arc<Fuse>) -> Fused {
        Fused { disk, fuse }
    }
}

impl Disk for Fused {
    fn list(&self) -> io::Result<Vec<String>> {
        self.fuse.burn()?;
        self.disk.list()
    }

    fn open(&self, name: &str, open: Open) -> io::Result<Arc<dyn File>> {
        self.fuse.burn()?;
        let file = self.disk.open(name, open)?;
        Ok(Arc::new(FusedFile { file, fuse: self.fuse.clone() }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.fuse.burn()?;
        self.disk.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.fuse.burn()?;
        self.disk.remove(name)
    }

    fn sync(&self) -> io::Result<()> {
        self.fuse.burn()?;
        self.disk.sync()
    }
}

struct FusedFile {
    file: Arc<dyn File>,
    fuse: Arc<Fuse>,
}

impl File for FusedFile {
    fn read_at(&self, position: u64, into: &mut [u8]) -> io::Result<usize> {
        self.fuse.burn()?;
        self.file.read_at(position, into)
    }

    fn write_at(&self, position: u64, parts: &[&[u8]]) -> io::Result<()> {
        self.fuse.burn()?;
        self.file.write_at(position, parts)
    }

    fn sync(&self) -> io::Result<()> {
        self.fuse.burn()?;
        if self.fuse.forgets_syncs.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.file.sync()
    }

    fn len(&self) -> io::Result<u64> {
        self.fuse.burn()?;
        self.file.len()
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.fuse.burn()?;
        self.file.set_len(length)
    }
}
