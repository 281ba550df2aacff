//! The data directory of a node: who may use it, whose it is, and where things lie in it.
//!
//! ```text
//!   DATA/LOCK                    held by the process that uses it (`flock`), whose number it says
//!   DATA/NODE                    format, node id, cluster id, whether it joined that cluster, and
//!                                a checksum; written once
//!   DATA/NAME                    the node's name, as its cluster knows it
//!   DATA/made/0000002a           empty: the same as `0000002a.made`, where losing shards keeps it
//!   DATA/redo                    small writes of many logs that may not be in their segments yet:
//!                                there while the node runs, and after it was killed
//!   DATA/shards/0000002a/log/    the log of shard 42
//!   DATA/shards/0000002a/tables/ its tables
//!   DATA/shards/0000002a.made    empty: shard 42 was made to its end, log and tables
//!   DATA/shards/0000002a.next/   a copy from another node, to take the place of shard 42
//!   DATA/shards/0000002a.gone/   a removed shard, until a background thread has deleted it
//! ```
//! A node's id is made with its directory, so a wiped node is a new node.
//!
//! The mark `made` is written when the log and the tables of a new shard are durable, and before
//! anybody may use it. So where it is missing, nothing was acknowledged, and what a crash left of
//! the making is made anew; where it is there, a log or tables that are missing were lost. It is
//! there twice, in case what is lost is all that belongs to a shard, or `shards/`. Without shard 0
//! nothing is served.

use naust_wire::limits::NAME_BYTES_MAX;
use naust_wire::{NodeId, ShardId};
use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};

/// Version of the layout of data directories that this release writes.
pub const FORMAT: u32 = 1;
/// The line that the identity of a node has that joined its cluster.
const JOINED: &str = "joined";
/// What may lie in a directory that is still to be made one: what a first start left that was
/// killed, and what every new file system has.
const HARMLESS: [&str; 3] = ["LOCK", "NODE.new", "lost+found"];

/// Why a data directory can't be used; each in a sentence for the operator.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// Another process has it.
    #[error("the data directory {path} is already in use by process {process}")]
    InUse {
        /// Which directory.
        path: PathBuf,
        /// What that process wrote into the lock file.
        process: String,
    },
    /// A later release wrote it.
    #[error(
        "the data directory {path} has the format {found}, which is newer than this release's \
         ({FORMAT}): use a newer release"
    )]
    NewerFormat {
        /// Which directory.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
    /// Its identity file is no identity.
    #[error("{path} is damaged or no identity of a Naust node: {what}")]
    Identity {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        what: &'static str,
    },
    /// It has shards, but no identity.
    #[error(
        "the data directory {path} has lost its file NODE, which says whose the rest is: restore \
         it from a backup, or start a new node on an empty directory"
    )]
    NoIdentity {
        /// Which directory.
        path: PathBuf,
    },
    /// Something else lies there.
    #[error(
        "{path} is no data directory of Naust, and not empty ({found} lies in it): use a new or \
         an empty one"
    )]
    NotEmpty {
        /// Which directory.
        path: PathBuf,
        /// One of the things in it.
        found: String,
    },
    /// What was acknowledged in it is gone.
    #[error(
        "the data directory {data} has lost what was acknowledged in it: {what} is missing; \
         restore it from a backup, or start a new node on an empty directory to take this one's \
         place (naust cluster replace)"
    )]
    Lost {
        /// Which directory.
        data: PathBuf,
        /// What is not there.
        what: PathBuf,
    },
    /// The operating system refused.
    #[error("can't {action} {path}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// Who a data directory belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The node.
    pub node: NodeId,
    /// The cluster it was made for.
    pub cluster: u64,
    /// That cluster began with this node; otherwise it joined.
    pub founder: bool,
}

/// A data directory, locked for this process as long as the value lives.
#[derive(Debug)]
pub struct DataDirectory {
    path: PathBuf,
    identity: Identity,
    _lock: fs::File,
}

impl DataDirectory {
    /// Opens a data directory, or makes a new one: for a new cluster, with a fresh identity.
    ///
    /// # Errors
    /// [`DataError`].
    pub fn open(path: &Path) -> Result<DataDirectory, DataError> {
        DataDirectory::open_for(path, None)
    }

    /// The same; a new one is for a node that joins `cluster`, if that is given.
    ///
    /// # Errors
    /// [`DataError`].
    pub fn open_for(path: &Path, cluster: Option<u64>) -> Result<DataDirectory, DataError> {
        // Before anything is written, the lock too: it may be no directory of ours.
        DataDirectory::has_node(path)?;
        make_directory(path)?;
        let lock = lock(path)?;
        let identity = match read_identity(path)? {
            Some(identity) => identity,
            None => write_identity(path, cluster)?,
        };
        let directory = DataDirectory { path: path.to_owned(), identity, _lock: lock };
        directory.open_shards()?;
        Ok(directory)
    }

    /// Whether a node has this directory; otherwise it may be made one. Locks nothing.
    ///
    /// # Errors
    /// [`DataError`], when something lies there that is not to be touched.
    pub fn has_node(path: &Path) -> Result<bool, DataError> {
        let entries = match fs::read_dir(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
                return Err(failed("use as a directory", path)(error));
            }
            entries => entries.map_err(failed("read", path))?,
        };
        let mut found = None;
        for entry in entries {
            let name = entry.map_err(failed("read", path))?.file_name();
            let name = name.to_string_lossy().into_owned();
            if name == "shards" || name == "made" {
                found = Some(name);
                break;
            }
            if !HARMLESS.contains(&name.as_str()) {
                found.get_or_insert(name);
            }
        }
        // Looked for last: another process may be making all this now, and it made that first.
        let node = path.join("NODE");
        if node.try_exists().map_err(failed("look for", &node))? {
            return Ok(true);
        }
        match found {
            None => Ok(false),
            Some(name) if name == "shards" || name == "made" => {
                Err(DataError::NoIdentity { path: path.to_owned() })
            }
            Some(found) => Err(DataError::NotEmpty { path: path.to_owned(), found }),
        }
    }

    /// Makes the place for shards, unless some were there and are lost.
    fn open_shards(&self) -> Result<(), DataError> {
        let shards = self.path.join("shards");
        make_directory(&self.path.join("made"))?;
        let was_made = self.was_made()?;
        let lost = |what| Err(DataError::Lost { data: self.path.clone(), what });
        if was_made && !shards.is_dir() {
            return lost(shards);
        }
        make_directory(&shards)?;
        let beside = made_path(&self.path, ShardId::DIRECTORY);
        if was_made && !beside.try_exists().map_err(failed("look for", &beside))? {
            return lost(beside);
        }
        self.sweep()?;
        // An earlier release made them, or the process was killed right there.
        let mut is_changed = false;
        for shard in numbers(&shards, made_number)? {
            let kept = kept_path(&self.path, shard);
            if !kept.try_exists().map_err(failed("look for", &kept))? {
                fs::File::create(&kept).map_err(failed("make", &kept))?;
                is_changed = true;
            }
        }
        match is_changed {
            true => sync_directory(&self.path.join("made")),
            false => Ok(()),
        }
    }

    /// Whether this node served before: shard 0 was made to its end.
    ///
    /// # Errors
    /// [`DataError::Io`].
    pub fn was_made(&self) -> Result<bool, DataError> {
        let mark = kept_path(&self.path, ShardId::DIRECTORY);
        mark.try_exists().map_err(failed("look for", &mark))
    }

    /// The node's name in its last life, if that is known.
    ///
    /// # Errors
    /// [`DataError`].
    pub fn name(&self) -> Result<Option<String>, DataError> {
        let path = self.path.join("NAME");
        let mut text = String::new();
        let read = fs::File::open(&path)
            .and_then(|file| file.take(NAME_BYTES_MAX as u64 + 2).read_to_string(&mut text));
        match read {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            read => drop(read.map_err(failed("read", &path))?),
        }
        let name = text.strip_suffix('\n').unwrap_or(&text);
        if naust_wire::name::check(name).is_err() {
            let what = "it holds no name; remove it and start the node with --name";
            return Err(DataError::Identity { path, what });
        }
        Ok(Some(name.to_owned()))
    }

    /// Keeps the node's name for its next lives.
    ///
    /// # Errors
    /// [`DataError`].
    pub fn set_name(&self, name: &str) -> Result<(), DataError> {
        match self.name() {
            Ok(Some(before)) if before == name => Ok(()),
            _ => replace_file(&self.path, "NAME", &format!("{name}\n")),
        }
    }

    /// Reads the identity without locking anything: for tools that look from outside. `None`: there
    /// is none yet.
    ///
    /// # Errors
    /// [`DataError`].
    pub fn peek(path: &Path) -> Result<Option<Identity>, DataError> {
        read_identity(path)
    }

    /// Whose it is.
    #[must_use]
    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// Where it lies.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the journal for small writes of many logs lies.
    #[must_use]
    pub fn journal(&self) -> PathBuf {
        journal_path(&self.path)
    }

    /// Where the log of a shard lies.
    #[must_use]
    pub fn log(&self, shard: ShardId) -> PathBuf {
        log_path(&self.path, shard)
    }

    /// Where the tables of a shard lie.
    #[must_use]
    pub fn tables(&self, shard: ShardId) -> PathBuf {
        shard_path(&self.path, shard).join("tables")
    }

    /// Where a copy of a shard is put that is to take its place.
    #[must_use]
    pub fn next(&self, shard: ShardId) -> PathBuf {
        shard_path(&self.path, shard).with_extension("next")
    }

    /// A whole copy, durable to its end, takes the place of a shard that nothing has open. A crash
    /// in between is made good at the next start.
    ///
    /// # Errors
    /// [`DataError::Io`].
    pub fn take_next(&self, shard: ShardId) -> Result<(), DataError> {
        let path = shard_path(&self.path, shard);
        let (next, gone) = (path.with_extension("next"), path.with_extension("gone"));
        sync_directory(&self.path.join("shards"))?;
        if gone.is_dir() {
            fs::remove_dir_all(&gone).map_err(failed("remove", &gone))?;
        }
        fs::rename(&path, &gone).map_err(failed("rename", &path))?;
        fs::rename(&next, &path).map_err(failed("rename", &next))?;
        sync_directory(&self.path.join("shards"))?;
        fs::remove_dir_all(&gone).map_err(failed("remove", &gone))
    }

    /// The shards that have a directory here, in order.
    ///
    /// # Errors
    /// [`DataError::Io`].
    pub fn shards(&self) -> Result<Vec<ShardId>, DataError> {
        shards(&self.path)
    }

    /// Makes the directory of a shard, durably, if it is not there.
    ///
    /// # Errors
    /// [`DataError::Io`].
    pub fn make(&self, shard: ShardId) -> Result<(), DataError> {
        make_directory(&shard_path(&self.path, shard))
    }

    /// Whether a shard was made to its end.
    ///
    /// # Errors
    /// [`DataError::Io`].
    pub fn is_made(&self, shard: ShardId) -> Result<bool, DataError> {
        for path in [made_path(&self.path, shard), kept_path(&self.path, shard)] {
            if path.try_exists().map_err(failed("look for", &path))? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Notes durably that a shard was made to its end: what it holds must be durable.
    ///
    /// # Errors
    /// [`DataError::Io`].
    pub fn set_made(&self, shard: ShardId) -> Result<(), DataError> {
        // A process that was killed may have made a directory and not synced its name.
        sync_directory(&shard_path(&self.path, shard))?;
        sync_directory(&self.path.join("shards"))?;
        let path = made_path(&self.path, shard);
        fs::File::create(&path).map_err(failed("make", &path))?;
        sync_directory(&self.path.join("shards"))?;
        // Last: with this one the other is no longer thought to be still to come.
        let path = kept_path(&self.path, shard);
        fs::File::create(&path).map_err(failed("make", &path))?;
        sync_directory(&self.path.join("made"))
    }

    /// Removes what is left of shards below `below` but for the directory's and those that are
    /// `kept`. Their numbers are never given away again.
    ///
    /// # Errors
    /// [`DataError::Io`].
    pub fn sweep_shards(&self, below: ShardId, kept: &BTreeSet<ShardId>) -> Result<(), DataError> {
        let mut left: BTreeSet<ShardId> = self.shards()?.into_iter().collect();
        left.extend(numbers(&self.path.join("shards"), made_number)?);
        left.extend(numbers(&self.path.join("made"), number)?);
        left.retain(|shard| {
            *shard != ShardId::DIRECTORY && *shard < below && !kept.contains(shard)
        });
        left.into_iter().try_for_each(|shard| self.remove(shard))
    }

    /// Removes a shard: its name is gone durably at once, then its files. Nothing may have it open
    /// for writing.
    ///
    /// # Errors
    /// [`DataError::Io`].
    pub fn remove(&self, shard: ShardId) -> Result<(), DataError> {
        for made in [kept_path(&self.path, shard), made_path(&self.path, shard)] {
            match fs::remove_file(&made) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(failed("remove", &made)(error));
                }
                _ => {}
            }
        }
        // Before the shard is gone: it may come back, and is not to be missed then.
        sync_directory(&self.path.join("made"))?;
        let from = shard_path(&self.path, shard);
        let next = from.with_extension("next");
        if next.is_dir() {
            fs::remove_dir_all(&next).map_err(failed("remove", &next))?;
        }
        let gone = from.with_extension("gone");
        match fs::rename(&from, &gone) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(failed("remove", &from)(error)),
        }
        sync_directory(&self.path.join("shards"))?;
        fs::remove_dir_all(&gone).map_err(failed("remove", &gone))
    }

    /// Ends what an earlier life began: copies whose shard had made way for them take its place,
    /// and what was removed goes. Other copies may be gone on with, if there is a shard that they
    /// are of.
    fn sweep(&self) -> Result<(), DataError> {
        let shards = self.path.join("shards");
        for entry in fs::read_dir(&shards).map_err(failed("read", &shards))? {
            let next = entry.map_err(failed("read", &shards))?.path();
            if next.extension().is_none_or(|extension| extension != "next") {
                continue;
            }
            let (path, gone) = (next.with_extension(""), next.with_extension("gone"));
            if path.exists() {
                continue;
            }
            if !gone.exists() {
                fs::remove_dir_all(&next).map_err(failed("remove", &next))?;
            } else {
                fs::rename(&next, &path).map_err(failed("rename", &next))?;
                sync_directory(&shards)?;
            }
        }
        for entry in fs::read_dir(&shards).map_err(failed("read", &shards))? {
            let path = entry.map_err(failed("read", &shards))?.path();
            if path.extension().is_some_and(|extension| extension == "gone") {
                fs::remove_dir_all(&path).map_err(failed("remove", &path))?;
            }
        }
        Ok(())
    }
}

/// Where the journal for small writes of many logs lies in a data directory.
#[must_use]
pub fn journal_path(data: &Path) -> PathBuf {
    data.join(naust_log::journal::NAME)
}

/// Where the log of a shard lies in a data directory.
#[must_use]
pub fn log_path(data: &Path, shard: ShardId) -> PathBuf {
    shard_path(data, shard).join("log")
}

/// The shards that have a directory in a data directory, in order. Needs no lock.
///
/// # Errors
/// [`DataError::Io`].
pub fn shards(data: &Path) -> Result<Vec<ShardId>, DataError> {
    let mut shards = numbers(&data.join("shards"), number)?;
    shards.sort_unstable();
    Ok(shards)
}

/// The shards that `number` sees in the names of what lies in a directory.
fn numbers(
    path: &Path,
    number: impl Fn(&str) -> Option<ShardId>,
) -> Result<Vec<ShardId>, DataError> {
    let mut shards = Vec::new();
    for entry in fs::read_dir(path).map_err(failed("read", path))? {
        let name = entry.map_err(failed("read", path))?.file_name();
        shards.extend(name.to_str().and_then(&number));
    }
    Ok(shards)
}

fn number(name: &str) -> Option<ShardId> {
    let digits = Some(name).filter(|name| name.len() == 8);
    digits.and_then(|digits| u32::from_str_radix(digits, 16).ok()).map(ShardId)
}

fn made_number(name: &str) -> Option<ShardId> {
    name.strip_suffix(".made").and_then(number)
}

fn made_path(data: &Path, shard: ShardId) -> PathBuf {
    data.join("shards").join(format!("{:08x}.made", shard.0))
}

fn kept_path(data: &Path, shard: ShardId) -> PathBuf {
    data.join("made").join(format!("{:08x}", shard.0))
}

fn shard_path(data: &Path, shard: ShardId) -> PathBuf {
    data.join("shards").join(format!("{:08x}", shard.0))
}

fn failed<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> DataError + 'a {
    move |source| DataError::Io { action, path: path.to_owned(), source }
}

fn make_directory(path: &Path) -> Result<(), DataError> {
    if path.is_dir() {
        return Ok(());
    }
    if path.exists() {
        return Err(failed("use as a directory", path)(io::ErrorKind::NotADirectory.into()));
    }
    fs::create_dir_all(path).map_err(failed("make the directory", path))?;
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => sync_directory(parent),
        _ => sync_directory(Path::new(".")),
    }
}

fn sync_directory(path: &Path) -> Result<(), DataError> {
    let sync = || fs::File::open(path)?.sync_all();
    sync().map_err(failed("sync the directory", path))
}

fn lock(data: &Path) -> Result<fs::File, DataError> {
    let path = data.join("LOCK");
    let mut options = fs::OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    let mut file = options.open(&path).map_err(failed("write to", &path))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(fs::TryLockError::WouldBlock) => {
            let mut process = String::new();
            // Whoever holds it may not have written its number yet.
            drop(file.take(32).read_to_string(&mut process));
            let process = match process.trim() {
                "" => "of an unknown number".to_owned(),
                number => number.to_owned(),
            };
            return Err(DataError::InUse { path: data.to_owned(), process });
        }
        Err(fs::TryLockError::Error(error)) => return Err(failed("lock", &path)(error)),
    }
    let mut write = || {
        file.set_len(0)?;
        file.rewind()?;
        writeln!(file, "{}", std::process::id())
    };
    write().map_err(failed("write to", &path))?;
    Ok(file)
}

fn read_identity(data: &Path) -> Result<Option<Identity>, DataError> {
    let path = data.join("NODE");
    let text = match fs::read(&path) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
            return Err(failed("use as a directory", data)(error));
        }
        Err(error) => return Err(failed("read", &path)(error)),
    };
    let wrong = |what| DataError::Identity { path: path.clone(), what };
    let field = |name: &'static str, at: usize| {
        text.lines().nth(at).and_then(|line| line.strip_prefix(name)).map(str::trim)
    };
    // The format comes first, so that a later release may change all that follows.
    let format = field("naust format", 0).and_then(|number| number.parse().ok());
    let found: u32 = format.ok_or_else(|| wrong("its first line names no format"))?;
    if found > FORMAT {
        return Err(DataError::NewerFormat { path: data.to_owned(), found });
    }
    let hex = |name, at| field(name, at).and_then(|digits| u64::from_str_radix(digits, 16).ok());
    let node = hex("node", 1).ok_or_else(|| wrong("it names no node"))?;
    let cluster = hex("cluster", 2).ok_or_else(|| wrong("it names no cluster"))?;
    let founder = text.lines().nth(3) != Some(JOINED);
    let identity = Identity { node: NodeId(node), cluster, founder };
    if text != identity_text(identity) || node == 0 {
        return Err(wrong("its checksum is wrong"));
    }
    Ok(Some(identity))
}

fn write_identity(data: &Path, joined: Option<u64>) -> Result<Identity, DataError> {
    let (founder, cluster) = (joined.is_none(), joined.unwrap_or_else(random));
    let identity = Identity { node: NodeId(random().max(1)), cluster, founder };
    replace_file(data, "NODE", &identity_text(identity))?;
    Ok(identity)
}

/// Writes a small file, durably: after a crash it is the old one or the new one.
fn replace_file(data: &Path, name: &str, text: &str) -> Result<(), DataError> {
    let (path, new) = (data.join(name), data.join(format!("{name}.new")));
    let write = || {
        let mut file = fs::File::create(&new)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, &path)
    };
    write().map_err(failed("write to", &path))?;
    sync_directory(data)
}

fn identity_text(identity: Identity) -> String {
    let mut text = format!(
        "naust format {FORMAT}\nnode {:016x}\ncluster {:016x}\n",
        identity.node.0, identity.cluster
    );
    if !identity.founder {
        text += JOINED;
        text += "\n";
    }
    let crc = naust_wire::packet::crc32c(&[text.as_bytes()]);
    format!("{text}crc {crc:08x}\n")
}

/// 64 bits from the operating system: the keys of the standard library's hash maps come from there.
fn random() -> u64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    let mut bytes = [0u8; 8];
    match fs::File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes)) {
        Ok(()) => u64::from_le_bytes(bytes),
        Err(_) => RandomState::new().build_hasher().finish(),
    }
}

#[cfg(test)]
mod tests;
