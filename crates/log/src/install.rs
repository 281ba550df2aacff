//! State transfer, the log's half: frames of another replica become this log, in one step.
//!
//! A replica that is too far behind gets tables at some frame, the *last* one, and this log must
//! begin so that nothing is missing behind it. It begins at the base of the segment that the last
//! frame lies in ([`Reader::beginning`](crate::Reader::beginning) of the sender): frames from there
//! on are contiguous. Live frames before it are kept in sparse segments, as trimming leaves them.
//!
//! ```text
//!   Log::prepare ─► Preparation::add(frames) … ─► finish ─► Prepared     a background thread
//!   Log::install(prepared) ─► Install::run ─► Log::installed             a disk thread
//!
//!   files:  <base>.log.<generation>    segments beside those of the log
//!           install-<generation>       which there are; durable before the flip
//! ```
//! One update of the superblock flips generation and start together. Then the old segments go, the
//! new ones take their names, and the list goes. Whoever opens the log after a power cut finds the
//! list: if its generation is the superblock's the rest is done again, else all of it goes.

use crate::disk::{Disk, File, Open};
use crate::layout::{Flaw, Layout, Position};
use crate::log::{Log, Refused};
use crate::segment::Content;
use crate::shared::{Segment, Shared};
use crate::superblock::{CONFIGURATION_BYTES_MAX, Superblock};
use crate::{Fault, OpenError, scan};
use naust_wire::Offset;
use naust_wire::frame::{self, Header, Kind};
use naust_wire::packet::crc32c;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::ErrorKind;
use std::ops::Range;
use std::sync::Arc;

/// First bytes of a list.
const MAGIC: [u8; 8] = *b"NaustIns";
/// How the names of lists begin.
const LIST: &str = "install-";

/// Why frames that were transferred are not taken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InstallError {
    /// They are bad, or don't follow those before.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The operating system said no. A full disk is no reason to stop: give it up.
    #[error(transparent)]
    Io(#[from] Fault),
}

/// Segments that are being written beside those of a log. For a background thread; blocking.
pub struct Preparation {
    to: Place,
    start: Position,
    /// The end of the contiguous frames.
    end: Position,
    /// Behind the last live frame.
    live: Offset,
    open: Option<Writing>,
    done: Vec<Content>,
}

/// Where it is prepared.
#[derive(Clone)]
struct Place {
    disk: Arc<dyn Disk>,
    layout: Layout,
    generation: u64,
}

/// A segment that is being written.
struct Writing {
    content: Content,
    ranges: Vec<Range<Offset>>,
    file: Arc<dyn File>,
    name: String,
}

/// Segments that can become the log. Durable.
pub struct Prepared {
    place: Place,
    start: Position,
    end: Position,
    contents: Vec<Content>,
}

/// Flips the log to what was prepared. For a disk thread, to be run once; what comes out goes to
/// [`Log::installed`].
#[must_use = "an installation must be run and its outcome be told to the log"]
pub struct Install {
    shared: Arc<Shared>,
    superblock: Superblock,
    prepared: Prepared,
}

/// What an [`Install`] came to.
#[must_use = "the log must be told"]
pub struct Installed {
    superblock: Superblock,
    prepared: Prepared,
    outcome: Result<(), Fault>,
}

impl Place {
    fn name(&self, base: Offset) -> String {
        format!("{}.{:016x}", Layout::name(base), self.generation)
    }

    fn list(&self) -> String {
        format!("{LIST}{:016x}", self.generation)
    }
}

impl Log {
    /// Prepares an installation: `generation` is that of the views that come with it, `start` where
    /// the log is to begin.
    ///
    /// # Panics
    /// If the generation is not a later one, or no segment begins at `start`: bugs of the caller.
    #[must_use]
    pub fn prepare(&self, generation: u64, start: Position) -> Preparation {
        assert!(generation > self.generation(), "the next generation");
        assert!(self.layout().base(start.offset) == start.offset, "a log begins with a segment");
        let disk = Arc::clone(&self.shared.disk);
        Preparation {
            to: Place { disk, layout: self.layout(), generation },
            start,
            end: start,
            live: Offset::ZERO,
            open: None,
            done: Vec::new(),
        }
    }

    /// Makes the log begin at what was prepared, with nothing behind it. `configuration` is the
    /// membership at its end, opaque here. `None` while a write, an extension or a trim is under
    /// way: then ask again with the same. From now on nothing is written but this, and nothing may
    /// be staged.
    ///
    /// # Panics
    /// If the configuration is too long, or it was prepared for another log.
    pub fn install(
        &mut self,
        prepared: &mut Option<Prepared>,
        configuration: &[u8],
    ) -> Option<Install> {
        assert!(configuration.len() <= CONFIGURATION_BYTES_MAX, "configuration over the limit");
        let busy = self.flight.is_some() || self.extending.is_some() || self.trimming;
        if busy || self.faulted || self.installing {
            return None;
        }
        let prepared = prepared.take()?;
        assert!(Arc::ptr_eq(&prepared.place.disk, &self.shared.disk), "it was prepared here");
        self.installing = true;
        let superblock = Superblock {
            start: prepared.start,
            generation: prepared.place.generation,
            cut: Offset::ZERO,
            configuration: configuration.into(),
            ..self.next_superblock()
        };
        Some(Install { shared: Arc::clone(&self.shared), superblock, prepared })
    }

    /// Tells what came of an installation: the log begins and ends as prepared.
    ///
    /// # Errors
    /// Of the disk: the node has to stop.
    ///
    /// # Panics
    /// If none is under way.
    pub fn installed(&mut self, done: Installed) -> Result<(), Fault> {
        assert!(self.installing, "an installation is under way");
        if let Err(fault) = done.outcome {
            self.faulted = true;
            return Err(fault);
        }
        let hard = self.superblock.hard;
        let Prepared { start, end, contents, .. } = done.prepared;
        let live = contents.iter().filter(|content| content.base >= start.offset);
        let terms = crate::recovery::terms(start, live);
        let tail: VecDeque<Content> =
            contents.into_iter().filter(|content| content.seal.is_none()).collect();
        let dirty = done.superblock.hard != hard;
        let shared = Arc::clone(&self.shared);
        *self = Log::assemble(shared, done.superblock, tail, terms, end, end.offset);
        self.superblock.hard = hard;
        self.superblock_dirty = dirty;
        Ok(())
    }
}

impl Preparation {
    /// Whole frames of another replica, in the order of their offsets over all calls: live ones
    /// before the start, with gaps, and all from there on.
    ///
    /// # Errors
    /// [`InstallError`]; then it is to be given up.
    pub fn add(&mut self, frames: &[u8]) -> Result<(), InstallError> {
        let mut rest = frames;
        // What goes to one file in one write.
        let mut run = Run { bytes: &[], at: Offset::ZERO };
        while !rest.is_empty() {
            let (header, _) = frame::peek(rest).map_err(|bad| self.refused(bad.into()))?;
            let bytes = usize::try_from(header.frame_bytes()).expect("less than a segment");
            if header.frame_bytes() > self.to.layout.segment_bytes() || rest.len() < bytes {
                return Err(self.refused(Flaw::Place).into());
            }
            if header.kind != Kind::Padding {
                self.take(&header, rest, &mut run)?;
                run.bytes = &frames[frames.len() - rest.len() - run.bytes.len()..]
                    [..run.bytes.len() + bytes];
            }
            rest = &rest[bytes..];
        }
        Ok(self.write(&run)?)
    }

    fn refused(&self, flaw: Flaw) -> Refused {
        Refused { offset: self.end.offset, flaw }
    }

    /// Checks a frame and makes it the next one of its segment; what was gathered before goes out
    /// if it does not lie right before it.
    fn take<'a>(
        &mut self,
        header: &Header,
        bytes: &'a [u8],
        run: &mut Run<'a>,
    ) -> Result<(), InstallError> {
        let layout = self.to.layout;
        let at = header.offset;
        let live = at < self.start.offset;
        let refused = |flaw| Refused { offset: at, flaw };
        if live {
            let behind = self.live.max(Offset::FIRST);
            let started = self.end.index > self.start.index;
            if at < behind || header.end() > self.start.offset || started {
                return Err(refused(Flaw::Place).into());
            }
        } else if layout.place(self.end.offset, header.frame_bytes()) != self.end.offset {
            self.write(&std::mem::replace(run, Run { bytes: &[], at }))?;
            self.pad()?;
        }
        let adjacent = self.open.as_ref().filter(|open| open.content.last.offset == at);
        let before = match live {
            true => adjacent.map(|open| open.content.last),
            false => Some(self.end),
        };
        let place = if live { at } else { self.end.offset };
        let found = layout.check(place, before.as_ref(), bytes).map_err(refused)?;
        if run.at.plus(run.bytes.len() as u64) != at {
            self.write(&std::mem::replace(run, Run { bytes: &[], at }))?;
        }
        let base = layout.base(at);
        if self.open.as_ref().is_none_or(|open| open.content.base != base) {
            self.write(&std::mem::replace(run, Run { bytes: &[], at }))?;
            let first = before.unwrap_or_else(|| scan::follows(header));
            self.begin(base, Position { offset: base, ..first })?;
        }
        let open = self.open.as_mut().expect("just seen to");
        open.note(header, found.crc, live);
        match live {
            true => self.live = header.end(),
            false => self.end = open.content.last,
        }
        Ok(())
    }

    /// Fills the rest of the segment that the contiguous frames end in.
    fn pad(&mut self) -> Result<(), Fault> {
        let mut bytes = Vec::new();
        let from = self.end.offset;
        let padded = self.to.layout.pad(&self.end, from, &mut bytes);
        if let Some(open) = &mut self.open {
            open.content.seal = Some(padded);
        }
        self.end = padded;
        self.write(&Run { bytes: &bytes, at: from })
    }

    fn write(&self, run: &Run<'_>) -> Result<(), Fault> {
        if run.bytes.is_empty() {
            return Ok(());
        }
        let open = self.open.as_ref().expect("bytes belong to a segment");
        let written = open.file.write_at(run.at.0 - open.content.base.0, &[run.bytes]);
        written.map_err(Fault::at("write", &open.name))
    }

    /// The next segment.
    fn begin(&mut self, base: Offset, before: Position) -> Result<(), Fault> {
        if self.open.is_none() {
            // What an earlier attempt left.
            discard(&*self.to.disk, self.to.generation)?;
        }
        self.close()?;
        let name = self.to.name(base);
        let file = self.to.disk.open(&name, Open::Create).map_err(Fault::at("create", &name))?;
        let content = Content::new(before);
        self.open = Some(Writing { content, ranges: Vec::new(), file, name });
        Ok(())
    }

    /// The segment that is being written is whole and durable.
    fn close(&mut self) -> Result<(), Fault> {
        let Some(open) = self.open.take() else { return Ok(()) };
        let Writing { mut content, ranges, file, name } = open;
        if !ranges.is_empty() {
            let end = self.to.layout.end(content.base);
            content.seal = Some(Position { offset: end, ..content.last });
            content.live_bytes = ranges.iter().map(|range| range.end.0 - range.start.0).sum();
            content.ranges = Some(ranges.into());
        }
        if content.seal.is_some() {
            file.write_at(self.to.layout.segment_bytes(), &[&content.footer()])
                .map_err(Fault::at("write the footer of", &name))?;
        }
        file.sync().map_err(Fault::at("sync", &name))?;
        self.done.push(content);
        Ok(())
    }

    /// Makes all of it durable, beside the log.
    ///
    /// # Errors
    /// [`InstallError`]; `Refused` if there is no frame behind the start: it can't be told from a
    /// lost segment.
    pub fn finish(mut self) -> Result<Prepared, InstallError> {
        if self.end.index <= self.start.index {
            return Err(self.refused(Flaw::Missing).into());
        }
        self.close()?;
        let name = self.to.list();
        let list = encode(self.done.iter().map(|content| content.base));
        let disk = &*self.to.disk;
        disk.sync().map_err(Fault::at("sync names of", "the log"))?;
        let file = disk.open(&name, Open::Create).map_err(Fault::at("create", &name))?;
        file.write_at(0, &[&list]).and_then(|()| file.sync()).map_err(Fault::at("write", &name))?;
        disk.sync().map_err(Fault::at("sync names of", "the log"))?;
        let Preparation { to, start, end, done, .. } = self;
        Ok(Prepared { place: to, start, end, contents: done })
    }

    /// Gives it up: its files go.
    ///
    /// # Errors
    /// Of the disk. What is left goes when the log is opened.
    pub fn abandon(self) -> Result<(), Fault> {
        discard(&*self.to.disk, self.to.generation)
    }
}

/// Frames that lie one behind the other.
struct Run<'a> {
    bytes: &'a [u8],
    at: Offset,
}

impl Writing {
    fn note(&mut self, header: &Header, crc: u32, live: bool) {
        if !live {
            self.content.note(header, crc);
            return;
        }
        let end = self.ranges.last().map(|range| range.end);
        self.content.note_sparse(header, crc, end);
        match self.ranges.last_mut() {
            Some(range) if range.end == header.offset => range.end = header.end(),
            _ => self.ranges.push(header.offset..header.end()),
        }
    }
}

impl Prepared {
    /// Where the log will end: at the last frame.
    #[must_use]
    pub fn end(&self) -> Position {
        self.end
    }

    /// Gives it up: its files go.
    ///
    /// # Errors
    /// As [`Preparation::abandon`].
    pub fn abandon(self) -> Result<(), Fault> {
        discard(&*self.place.disk, self.place.generation)
    }
}

impl Install {
    /// Does it. Blocking.
    pub fn run(self) -> Installed {
        let outcome = self.attempt();
        Installed { superblock: self.superblock, prepared: self.prepared, outcome }
    }

    fn attempt(&self) -> Result<(), Fault> {
        let Prepared { place, contents, end, .. } = &self.prepared;
        self.superblock.store(&*place.disk)?;
        let segments: BTreeMap<Offset, Segment> =
            contents.iter().map(|content| (content.base, Segment::of(content))).collect();
        let bases: BTreeSet<Offset> = segments.keys().copied().collect();
        let mut map = self.shared.map_mut();
        rename(place, &bases)?;
        map.replace(segments);
        self.shared.set_readable(end.offset);
        drop(map);
        forget(place)
    }
}

impl Installed {
    /// The views' generation that belongs to the log now.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.superblock.generation
    }
}

/// The new segments take the names, the old ones go. It may have been begun before.
fn rename(place: &Place, bases: &BTreeSet<Offset>) -> Result<(), Fault> {
    let names = place.disk.list().map_err(Fault::at("list", "the log"))?;
    for base in bases {
        let (from, to) = (place.name(*base), Layout::name(*base));
        match place.disk.rename(&from, &to) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            renamed => renamed.map_err(Fault::at("rename", &from))?,
        }
    }
    for name in names {
        if place.layout.base_in_name(&name).is_some_and(|base| !bases.contains(&base)) {
            place.disk.remove(&name).map_err(Fault::at("remove", &name))?;
        }
    }
    place.disk.sync().map_err(Fault::at("sync names of", "the log"))
}

/// The list goes, durably, before a segment is made that is not in it.
fn forget(place: &Place) -> Result<(), Fault> {
    let list = place.list();
    place.disk.remove(&list).map_err(Fault::at("remove", &list))?;
    place.disk.sync().map_err(Fault::at("sync names of", "the log"))
}

/// All files of an installation that never was: its list last, so that it is never believed.
fn discard(disk: &dyn Disk, generation: u64) -> Result<(), Fault> {
    let names = disk.list().map_err(Fault::at("list", "the log"))?;
    let (lists, segments): (Vec<_>, Vec<_>) = names
        .into_iter()
        .filter(|name| of(name) == Some(generation))
        .partition(|name| is_list(name));
    for name in lists.into_iter().chain(segments) {
        disk.remove(&name).map_err(Fault::at("remove", &name))?;
    }
    Ok(())
}

fn is_list(name: &str) -> bool {
    name.starts_with(LIST)
}

/// The generation of the installation that a file belongs to.
fn of(name: &str) -> Option<u64> {
    let digits = match name.strip_prefix(LIST) {
        Some(digits) => digits,
        None => name.split_once(".log.")?.1,
    };
    (digits.len() == 16).then(|| u64::from_str_radix(digits, 16).ok()).flatten()
}

/// The generation of a list that belongs to the superblock: an installation was interrupted.
pub(crate) fn interrupted(names: &[String], generation: u64) -> bool {
    names.iter().any(|name| is_list(name) && of(name) == Some(generation))
}

/// Ends what a power cut interrupted, either way. To be called before the log is looked at.
pub(crate) fn recover(disk: &Arc<dyn Disk>) -> Result<(), OpenError> {
    let names = disk.list().map_err(Fault::at("list", "the log"))?;
    let generations: BTreeSet<u64> = names.iter().filter_map(|name| of(name)).collect();
    if generations.is_empty() {
        return Ok(());
    }
    let (mut superblock, stale) = Superblock::load(&**disk)?;
    for generation in generations {
        if generation != superblock.generation || !interrupted(&names, generation) {
            discard(&**disk, generation)?;
            continue;
        }
        if stale {
            // The other slot must not take the flip back when the old segments are gone.
            superblock.sequence += 1;
            superblock.store(&**disk)?;
        }
        let place = Place { disk: Arc::clone(disk), layout: superblock.layout, generation };
        let bases = read_list(&place)?.ok_or(OpenError::Installation)?;
        rename(&place, &bases)?;
        forget(&place)?;
    }
    Ok(())
}

fn read_list(place: &Place) -> Result<Option<BTreeSet<Offset>>, Fault> {
    let name = place.list();
    let file = place.disk.open(&name, Open::Existing).map_err(Fault::at("open", &name))?;
    let length = file.len().map_err(Fault::at("measure", &name))?;
    let mut bytes = vec![0; usize::try_from(length.min(LIST_BYTES_MAX)).expect("bounded")];
    let read = file.read_at(0, &mut bytes).map_err(Fault::at("read", &name))?;
    Ok(decode(&bytes[..read]))
}

/// Longest list, in bytes: that many segments are 128 TiB of log.
const LIST_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// `magic (8) | crc of the rest (u32) | 0 (u32) | bases (u64 each)`, little-endian.
fn encode(bases: impl Iterator<Item = Offset>) -> Vec<u8> {
    let bases: Vec<u8> = bases.flat_map(|base| base.0.to_le_bytes()).collect();
    let crc = crc32c(&[&bases]).to_le_bytes();
    [&MAGIC[..], &crc, &[0; 4], &bases].concat()
}

fn decode(bytes: &[u8]) -> Option<BTreeSet<Offset>> {
    let (head, rest) = bytes.split_first_chunk::<16>()?;
    let crc = u32::from_le_bytes([head[8], head[9], head[10], head[11]]);
    let (bases, odd) = rest.as_chunks::<8>();
    let good = head.starts_with(&MAGIC) && crc == crc32c(&[rest]) && odd.is_empty();
    good.then(|| bases.iter().map(|base| Offset(u64::from_le_bytes(*base))).collect())
}
