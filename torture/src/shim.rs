//! Faults below a node: the library made of `faults.c`, and the file by which it is told what to
//! do. Used by the end-to-end tests too.

use anyhow::{Context as _, ensure};
use std::fs::{File, Permissions};
use std::io;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Errors of the operating system, as the library is told them.
pub const EIO: u32 = 5;
pub const ENOSPC: u32 = 28;

/// The library, as it is written.
const SOURCE: &str = include_str!("faults.c");
/// Bytes of the file that both sides have mapped.
const CONTROL_BYTES: u64 = 32;
/// Where in it the library tells how many faults it has played.
const PLAYED_AT: u64 = 24;

/// What a disk and a clock are like; the default is a good one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Faults {
    /// Microseconds that a write takes longer.
    pub write_delay_us: u32,
    /// Microseconds that a sync takes longer.
    pub sync_delay_us: u32,
    /// The error that writes end with; 0: none. Without space only those that need more of it.
    pub write_errno: u32,
    /// The error that syncs end with; 0: none.
    pub sync_errno: u32,
    /// One call in so many fails, the first of all; 0: each.
    pub every: u32,
    /// Seconds that the wall clock is ahead.
    pub clock_seconds: i32,
}

/// The compiled library.
#[derive(Clone, Debug)]
pub struct Library(PathBuf);

impl Library {
    /// Compiles it into a directory.
    ///
    /// # Errors
    /// There is no C compiler, or it refuses.
    pub fn build(directory: &Path) -> anyhow::Result<Library> {
        let (source, library) = (directory.join("faults.c"), directory.join("faults.so"));
        std::fs::write(&source, SOURCE)?;
        let mut compiler = Command::new("cc");
        compiler.args(["-O2", "-shared", "-fPIC", "-o"]).arg(&library).arg(&source).arg("-ldl");
        let output = compiler.output().context("there is no C compiler `cc`")?;
        let told = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "the C compiler refuses faults.c: {told}");
        Ok(Library(library))
    }
}

/// The disk and clock of one node.
#[derive(Debug)]
pub struct Shim {
    library: PathBuf,
    path: PathBuf,
    file: File,
}

impl Shim {
    /// A good disk and clock; `path` is the file by which they are told to be otherwise.
    ///
    /// # Errors
    /// Of the operating system.
    pub fn new(library: &Library, path: PathBuf) -> io::Result<Shim> {
        let file =
            File::options().read(true).write(true).create(true).truncate(true).open(&path)?;
        file.set_len(CONTROL_BYTES)?;
        Ok(Shim { library: library.0.clone(), path, file })
    }

    /// A script that becomes this program, with the library in front of it.
    ///
    /// # Errors
    /// Of the operating system.
    pub fn wrap(&self, program: &Path) -> io::Result<PathBuf> {
        let script = self.path.with_extension("sh");
        let (library, path) = (self.library.display(), self.path.display());
        let environment = format!("LD_PRELOAD='{library}' TORTURE_FAULTS='{path}'");
        let text = format!("#!/bin/sh\nexec env {environment} '{}' \"$@\"\n", program.display());
        std::fs::write(&script, text)?;
        std::fs::set_permissions(&script, Permissions::from_mode(0o755))?;
        Ok(script)
    }

    /// From now on the disk and the clock are like this.
    ///
    /// # Errors
    /// Of the operating system.
    pub fn set(&self, faults: Faults) -> io::Result<()> {
        let Faults { write_delay_us, sync_delay_us, write_errno, sync_errno, every, .. } = faults;
        let clock = faults.clock_seconds.cast_unsigned();
        let words = [write_delay_us, sync_delay_us, write_errno, sync_errno, every, clock];
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        self.file.write_all_at(&bytes, 0)
    }

    /// How many calls were made to fail or to take long.
    ///
    /// # Errors
    /// Of the operating system.
    pub fn played(&self) -> io::Result<u32> {
        let mut word = [0; 4];
        self.file.read_exact_at(&mut word, PLAYED_AT)?;
        Ok(u32::from_ne_bytes(word))
    }
}
