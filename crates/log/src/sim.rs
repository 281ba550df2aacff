//! A disk in memory that tells lies like real ones, all of them from a seed.
//!
//! What was not synced may be lost, kept, torn into sectors and reordered by a power cut
//! ([`SimDisk::crash`]); names too, until [`Disk::sync`]. Bits rot ([`SimDisk::rot`]), space ends
//! ([`SimDisk::set_space`]), and a [`Weather`] makes any operation slow or fail. What was synced is
//! kept, always: a disk that loses that is beyond what one replica can see.

use crate::disk::{Disk, File, Open};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

mod image;

use image::{Image, SECTOR_BYTES};

/// A small generator of numbers (splitmix64): the same seed gives the same numbers, everywhere.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The numbers of a seed.
    #[must_use]
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// The next number.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`, which is not zero.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.draw() % bound
    }

    /// True once in `times`.
    pub fn one_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }
}

/// What is being asked of the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// `read_at` of this many bytes.
    Read(u64),
    /// `write_at` of this many bytes.
    Write(u64),
    /// `File::sync`.
    Sync,
    /// `Disk::sync`.
    SyncNames,
    /// Opening, renaming, removing, cutting, listing.
    Other,
}

/// What becomes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is done.
    Go,
    /// It is done, and takes this many nanoseconds longer: see [`Counters::delay_ns`].
    Slow(u64),
    /// It fails. After a failed sync, bytes that were to be synced are lost at the next power cut
    /// even if a later sync succeeds.
    Fail(ErrorKind),
}

/// Decides what becomes of each operation.
pub trait Weather: Send {
    /// Asked before each operation on `file` (empty for the directory).
    fn ask(&mut self, op: Op, file: &str) -> Verdict;
}

/// What was done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Calls of `read_at`.
    pub reads: u64,
    /// Calls of `write_at`.
    pub writes: u64,
    /// Calls of `File::sync`.
    pub syncs: u64,
    /// Calls of `Disk::sync`.
    pub name_syncs: u64,
    /// Bytes written.
    pub written_bytes: u64,
    /// Bytes read.
    pub read_bytes: u64,
    /// The sum of all [`Verdict::Slow`], in nanoseconds.
    pub delay_ns: u64,
}

/// See the module. Clones are the same disk.
#[derive(Clone)]
pub struct SimDisk {
    state: Arc<Mutex<State>>,
}

struct State {
    files: BTreeMap<u64, Inode>,
    names: BTreeMap<String, u64>,
    durable_names: BTreeMap<String, u64>,
    /// Names changed since the last sync: each state that a power cut may leave.
    name_history: Vec<BTreeMap<String, u64>>,
    next_file: u64,
    space: Option<u64>,
    /// What is written over takes space of its own first.
    copies: bool,
    weather: Option<Box<dyn Weather>>,
    counters: Counters,
    /// The machine has lost its power, or the process its life: nothing works any more.
    dead: bool,
}

#[derive(Clone, Default)]
struct Inode {
    /// Blocks that can't be read until they are written as a whole.
    refused: BTreeSet<u64>,
    now: Image,
    durable: Image,
    pending: Vec<Pending>,
}

#[derive(Clone)]
enum Pending {
    Write(u64, Vec<u8>),
    Length(u64),
}

impl Default for SimDisk {
    fn default() -> SimDisk {
        SimDisk::new()
    }
}

impl SimDisk {
    /// An empty disk without end and in good weather.
    #[must_use]
    pub fn new() -> SimDisk {
        SimDisk::with(State {
            files: BTreeMap::new(),
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            name_history: Vec::new(),
            next_file: 0,
            space: None,
            copies: false,
            weather: None,
            counters: Counters::default(),
            dead: false,
        })
    }

    fn with(state: State) -> SimDisk {
        SimDisk { state: Arc::new(Mutex::new(state)) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A power cut. The disk that comes back has all that was synced and some of the rest; this
    /// one, and all files open on it, are dead.
    #[must_use]
    pub fn crash(&self, seed: u64) -> SimDisk {
        let mut random = Random::new(seed);
        let mut old = self.state();
        old.dead = true;
        let kept = random.below(old.name_history.len() as u64 + 1) as usize;
        let names = match kept {
            0 => old.durable_names.clone(),
            kept => old.name_history[kept - 1].clone(),
        };
        let mut files = BTreeMap::new();
        for number in names.values() {
            let durable = old.files[number].after_power_cut(&mut random);
            let now = durable.clone();
            let refused = old.files[number].refused.clone();
            files.insert(*number, Inode { refused, now, durable, pending: Vec::new() });
        }
        SimDisk::with(State {
            files,
            durable_names: names.clone(),
            names,
            name_history: Vec::new(),
            next_file: old.next_file,
            space: old.space,
            copies: old.copies,
            weather: old.weather.take(),
            counters: old.counters,
            dead: false,
        })
    }

    /// The end of a process, but not of the machine: everything written is there, and what was not
    /// synced may still be lost later. This disk, and all files open on it, are dead.
    #[must_use]
    pub fn restart(&self) -> SimDisk {
        let mut old = self.state();
        old.dead = true;
        SimDisk::with(State {
            files: std::mem::take(&mut old.files),
            names: old.names.clone(),
            durable_names: old.durable_names.clone(),
            name_history: std::mem::take(&mut old.name_history),
            next_file: old.next_file,
            space: old.space,
            copies: old.copies,
            weather: old.weather.take(),
            counters: old.counters,
            dead: false,
        })
    }

    /// A copy of all that is there now, synced or not: another disk.
    #[must_use]
    pub fn copy(&self) -> SimDisk {
        let state = self.state();
        let mut files = state.files.clone();
        for inode in files.values_mut() {
            inode.durable = inode.now.clone();
            inode.pending.clear();
        }
        SimDisk::with(State {
            files,
            names: state.names.clone(),
            durable_names: state.names.clone(),
            name_history: Vec::new(),
            next_file: state.next_file,
            space: state.space,
            copies: state.copies,
            weather: None,
            counters: Counters::default(),
            dead: false,
        })
    }

    /// Flips a bit of a file where it rests. Returns false if there is no such byte.
    pub fn rot(&self, name: &str, position: u64, bit: u8) -> bool {
        let mut state = self.state();
        let Some(number) = state.names.get(name).copied() else { return false };
        let inode = state.files.get_mut(&number).expect("a name has a file");
        if position >= inode.now.length() {
            return false;
        }
        for image in [&mut inode.now, &mut inode.durable] {
            let mut byte = [0];
            image.read(position, &mut byte);
            image.write(position, &[byte[0] ^ (1 << (bit % 8))]);
        }
        true
    }

    /// The disk refuses to read the block of a file that a byte lies in, until it is written as a
    /// whole. Returns false if there is no such byte.
    pub fn refuse(&self, name: &str, position: u64) -> bool {
        let mut state = self.state();
        let Some(number) = state.names.get(name).copied() else { return false };
        let inode = state.files.get_mut(&number).expect("a name has a file");
        let is_there = position < inode.now.length();
        if is_there {
            inode.refused.insert(position / REFUSED_BYTES);
        }
        is_there
    }

    /// What the disk refused to read can be read again.
    pub fn relent(&self) {
        self.state().files.values_mut().for_each(|inode| inode.refused.clear());
    }

    /// Bytes of a file where they rest, as far as there are any.
    #[must_use]
    pub fn resting(&self, name: &str, position: u64, bytes: usize) -> Vec<u8> {
        let state = self.state();
        let inode = state.names.get(name).map(|number| &state.files[number]);
        let mut into = vec![0; bytes];
        let there = inode.map_or(0, |inode| inode.now.read(position, &mut into));
        into.truncate(there);
        into
    }

    /// Bytes of a file become others where they rest: a write that was meant for another place, or
    /// one that never arrived. Returns false if there are none.
    pub fn spoil(&self, name: &str, position: u64, bytes: &[u8]) -> bool {
        let mut state = self.state();
        let Some(number) = state.names.get(name).copied() else { return false };
        let inode = state.files.get_mut(&number).expect("a name has a file");
        if position + bytes.len() as u64 > inode.now.length() {
            return false;
        }
        inode.now.write(position, bytes);
        inode.durable.write(position, bytes);
        true
    }

    /// A file is gone, as if it had never been there. Returns false if there is none.
    pub fn lose(&self, name: &str) -> bool {
        let mut state = self.state();
        let was_there = state.names.remove(name).is_some();
        state.durable_names.remove(name);
        for names in &mut state.name_history {
            names.remove(name);
        }
        was_there
    }

    /// A file ends early, as if no more had ever been in it. Returns false if it does not reach so
    /// far.
    pub fn shorten(&self, name: &str, length: u64) -> bool {
        let mut state = self.state();
        let Some(number) = state.names.get(name).copied() else { return false };
        let inode = state.files.get_mut(&number).expect("a name has a file");
        if length >= inode.now.length() {
            return false;
        }
        inode.now.set_length(length);
        inode.durable.set_length(length);
        true
    }

    /// Names and lengths of all files, in bytes.
    #[must_use]
    pub fn files(&self) -> Vec<(String, u64)> {
        let state = self.state();
        let names = state.names.iter();
        names.map(|(name, number)| (name.clone(), state.files[number].now.length())).collect()
    }

    /// Names of all files, and the bytes that they take, in whole pages.
    #[must_use]
    pub fn allocated(&self) -> Vec<(String, u64)> {
        let state = self.state();
        let names = state.names.iter();
        let bytes = |number: &u64| state.files[number].now.allocated_bytes();
        names.map(|(name, number)| (name.clone(), bytes(number))).collect()
    }

    /// Bytes that files may take in all, in whole pages; `None`: without end.
    pub fn set_space(&self, bytes: Option<u64>) {
        self.state().space = bytes;
    }

    /// Whether bytes that are written over others need space, too, for a moment: as in a file
    /// system that copies on write. So a full one refuses even superblocks.
    pub fn set_copies(&self, copies: bool) {
        self.state().copies = copies;
    }

    /// Bytes that files take now, in whole pages.
    #[must_use]
    pub fn used_space(&self) -> u64 {
        self.state().used()
    }

    /// Who decides what becomes of each operation from now on.
    pub fn set_weather(&self, weather: Option<Box<dyn Weather>>) {
        self.state().weather = weather;
    }

    /// What was done so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.state().counters
    }
}

impl State {
    fn used(&self) -> u64 {
        self.names.values().map(|number| self.files[number].now.allocated_bytes()).sum()
    }

    fn ask(&mut self, op: Op, file: &str) -> io::Result<()> {
        if self.dead {
            return Err(io::Error::other("the machine is off"));
        }
        let verdict = self.weather.as_mut().map_or(Verdict::Go, |weather| weather.ask(op, file));
        match verdict {
            Verdict::Go => Ok(()),
            Verdict::Slow(ns) => {
                self.counters.delay_ns += ns;
                Ok(())
            }
            Verdict::Fail(kind) => Err(io::Error::from(kind)),
        }
    }

    fn remember_names(&mut self) {
        self.name_history.push(self.names.clone());
    }
}

/// Bytes of a block of [`SimDisk::refuse`].
const REFUSED_BYTES: u64 = 4096;

impl Inode {
    /// Blocks that can't be read, of those that a range of bytes lies in.
    fn refused_in(&self, from: u64, to: u64) -> impl Iterator<Item = u64> + '_ {
        let last = to.saturating_sub(1).max(from) / REFUSED_BYTES;
        self.refused.range(from / REFUSED_BYTES..=last).copied()
    }

    fn apply(image: &mut Image, pending: &Pending) {
        match pending {
            Pending::Write(position, bytes) => image.write(*position, bytes),
            Pending::Length(length) => image.set_length(*length),
        }
    }

    /// What may be left of it.
    fn after_power_cut(&self, random: &mut Random) -> Image {
        let mut image = self.durable.clone();
        let cuts = self.pending.iter().any(|pending| matches!(pending, Pending::Length(_)));
        match random.below(if cuts { 3 } else { 8 }) {
            0 => {}
            1 => self.pending.iter().for_each(|pending| Inode::apply(&mut image, pending)),
            2 => {
                let kept = random.below(self.pending.len() as u64 + 1) as usize;
                let kept = self.pending[..kept].iter();
                kept.for_each(|pending| Inode::apply(&mut image, pending));
            }
            _ => self.tear(&mut image, random),
        }
        image
    }

    /// Keeps of each sector one of the states that it had since the last sync.
    fn tear(&self, image: &mut Image, random: &mut Random) {
        let mut states: BTreeMap<u64, u64> = BTreeMap::new();
        let favour = 1 + random.below(4);
        for (sector, _, _) in self.sectors() {
            *states.entry(sector).or_insert(0) += 1;
        }
        for count in states.values_mut() {
            // Swarm: in some lives most sectors are new, in some most are old.
            *count = if random.one_in(favour) { random.below(*count + 1) } else { *count };
        }
        for (sector, position, bytes) in self.sectors() {
            let left = states.get_mut(&sector).expect("counted above");
            if *left > 0 {
                *left -= 1;
                image.write(position, bytes);
            }
        }
        if random.one_in(2) {
            image.set_length(image.length().max(self.now.length()));
        }
    }

    /// The pending writes, sector by sector.
    fn sectors(&self) -> impl Iterator<Item = (u64, u64, &[u8])> {
        self.pending.iter().flat_map(|pending| {
            let (position, bytes) = match pending {
                Pending::Write(position, bytes) => (*position, &bytes[..]),
                Pending::Length(_) => (0, &[][..]),
            };
            let head = (SECTOR_BYTES - position % SECTOR_BYTES).min(bytes.len() as u64) as usize;
            let (head, rest) = bytes.split_at(head);
            let parts = std::iter::once(head).chain(rest.chunks(SECTOR_BYTES as usize));
            parts.filter(|part| !part.is_empty()).scan(position, |at, part| {
                let from = *at;
                *at += part.len() as u64;
                Some((from / SECTOR_BYTES, from, part))
            })
        })
    }
}

impl Disk for SimDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        let mut state = self.state();
        state.ask(Op::Other, "")?;
        Ok(state.names.keys().cloned().collect())
    }

    fn open(&self, name: &str, open: Open) -> io::Result<Arc<dyn File>> {
        let mut state = self.state();
        state.ask(Op::Other, name)?;
        let number = match (state.names.get(name).copied(), open) {
            (Some(number), _) => number,
            (None, Open::Existing) => return Err(io::Error::from(ErrorKind::NotFound)),
            (None, Open::Create) => {
                let number = state.next_file;
                state.next_file += 1;
                state.files.insert(number, Inode::default());
                state.names.insert(name.to_owned(), number);
                state.remember_names();
                number
            }
        };
        Ok(Arc::new(SimFile { disk: self.clone(), number, name: name.to_owned() }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state();
        state.ask(Op::Other, from)?;
        let number = state.names.remove(from).ok_or(ErrorKind::NotFound)?;
        state.names.insert(to.to_owned(), number);
        state.remember_names();
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.state();
        state.ask(Op::Other, name)?;
        state.names.remove(name).ok_or(ErrorKind::NotFound)?;
        state.remember_names();
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.state();
        state.ask(Op::SyncNames, "")?;
        state.counters.name_syncs += 1;
        state.durable_names = state.names.clone();
        state.name_history.clear();
        Ok(())
    }
}

struct SimFile {
    disk: SimDisk,
    number: u64,
    name: String,
}

impl SimFile {
    fn inode<'a>(&self, state: &'a mut State) -> &'a mut Inode {
        state.files.get_mut(&self.number).expect("files live as long as the disk")
    }

    fn alive(&self, op: Op) -> io::Result<MutexGuard<'_, State>> {
        let mut state = self.disk.state();
        state.ask(op, &self.name)?;
        Ok(state)
    }
}

impl File for SimFile {
    fn read_at(&self, position: u64, into: &mut [u8]) -> io::Result<usize> {
        let mut state = self.alive(Op::Read(into.len() as u64))?;
        let end = position + into.len() as u64;
        if self.inode(&mut state).refused_in(position, end).next().is_some() {
            return Err(io::Error::from_raw_os_error(5));
        }
        let read = self.inode(&mut state).now.read(position, into);
        state.counters.reads += 1;
        state.counters.read_bytes += read as u64;
        Ok(read)
    }

    fn write_at(&self, position: u64, parts: &[&[u8]]) -> io::Result<()> {
        let mut bytes = parts.concat();
        let mut state = self.alive(Op::Write(bytes.len() as u64))?;
        state.counters.writes += 1;
        let room = state.space.map_or(u64::MAX, |space| space.saturating_sub(state.used()));
        let copies = state.copies;
        let inode = self.inode(&mut state);
        let end = position + bytes.len() as u64;
        let refused: Vec<u64> = inode.refused_in(position, end).collect();
        let is_whole =
            |block: &u64| block * REFUSED_BYTES >= position && (block + 1) * REFUSED_BYTES <= end;
        if !refused.iter().all(is_whole) {
            return Err(io::Error::from_raw_os_error(5));
        }
        inode.refused.retain(|block| !refused.contains(block));
        let fitting = match copies {
            true => room.min(bytes.len() as u64),
            false => inode.now.fitting(position, bytes.len() as u64, room),
        };
        let full = fitting < bytes.len() as u64;
        bytes.truncate(fitting as usize);
        inode.now.write(position, &bytes);
        inode.pending.push(Pending::Write(position, bytes));
        state.counters.written_bytes += fitting;
        if full { Err(io::Error::from(ErrorKind::StorageFull)) } else { Ok(()) }
    }

    fn sync(&self) -> io::Result<()> {
        let asked = self.alive(Op::Sync);
        if asked.is_err() {
            let mut state = self.disk.state();
            if !state.dead {
                // Written pages count as clean now. Lengths are in the file system's journal, which
                // does not forget them.
                let pending = &mut self.inode(&mut state).pending;
                pending.retain(|pending| matches!(pending, Pending::Length(_)));
            }
            return asked.map(drop);
        }
        let mut state = asked?;
        state.counters.syncs += 1;
        let inode = self.inode(&mut state);
        for pending in std::mem::take(&mut inode.pending) {
            Inode::apply(&mut inode.durable, &pending);
        }
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        let mut state = self.alive(Op::Other)?;
        Ok(self.inode(&mut state).now.length())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        let mut state = self.alive(Op::Other)?;
        let inode = self.inode(&mut state);
        inode.now.set_length(length);
        inode.pending.push(Pending::Length(length));
        Ok(())
    }
}
