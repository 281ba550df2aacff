//! What a disk holds after a crash: torn tail against corruption.
//!
//! Only the last segment is scanned; the footers of the others are believed, where they are good.
//! The scan stops at the first bytes that are not the next frame. Then the rest of the file, and of
//! a file behind it, is searched for later whole frames. Each says up to where this disk was synced
//! when it was written:
//!
//! * one of them says that the bad place was synced: the place is **damaged**. It was acknowledged,
//!   so it is never cut; [`Log::open`](crate::Log::open) refuses, and [`Survey`] shows what is
//!   there;
//! * none does: the place belongs to the last, unsynced batch, whose pieces a power cut may have
//!   left in any order. It is a **torn tail** and is durably cut off.
//!
//! Rot inside the very last batch can't be told from a tear by one disk. Neither can a frame in the
//! body of a torn frame that a user forged for exactly this place: it makes a tear look like
//! damage, never the other way round.

use crate::disk::{Disk, File, Open};
use crate::layout::{Flaw, Layout, Position};
use crate::log::Log;
use crate::segment::Content;
use crate::shared::{Map, Segment, Shared};
use crate::superblock::{HardState, Identity, Superblock};
use crate::{Fault, Reader, footers, scan, write};
use naust_wire::planted::{self, Bug};
use naust_wire::{Index, Offset, ShardId, Term};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// Damaged places that are listed; when there are more, that is said.
pub const DAMAGE_MAX: usize = 64;

/// How the names of files end that are made beside what they will replace.
pub(crate) const UNFINISHED: &str = ".new";

/// A place whose bytes are not what was acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the log is damaged from offset {from} to {to}: {flaw}")]
pub struct Damage {
    /// Where the frame began that is bad.
    pub from: Offset,
    /// Where the next good frame begins, or at most where it may.
    pub to: Offset,
    /// What is wrong at `from`.
    pub flaw: Flaw,
}

/// The end of the last, unsynced batch, which a power cut tore.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Torn {
    /// Where the log ends without it.
    pub from: Offset,
    /// Behind the last byte of it that was found.
    pub to: Offset,
    /// What is wrong at `from`.
    pub flaw: Flaw,
}

/// Why a log can't be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// There is no log in the directory.
    #[error("there is no log here")]
    Missing,
    /// A newer release made it, or changed it.
    #[error("the log has format {found}; this release knows format {known}")]
    Format {
        /// The version found.
        found: u32,
        /// The version that this release writes.
        known: u32,
    },
    /// It is another shard's.
    #[error("the log belongs to shard {found}, not {wanted}")]
    Shard {
        /// The shard found.
        found: ShardId,
        /// The shard asked for.
        wanted: ShardId,
    },
    /// Neither slot of the superblock is good.
    #[error("both slots of the superblock are bad")]
    Superblock,
    /// Acknowledged frames are bad.
    #[error("{} damaged place(s) in the log, the first: {}", damage.len(), damage[0])]
    Damaged {
        /// Where; at least one.
        damage: Vec<Damage>,
        /// Not all are listed.
        more: bool,
    },
    /// The operating system said no.
    #[error(transparent)]
    Io(#[from] Fault),
}

/// What opening found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened {
    /// The end of the log.
    pub end: Position,
    /// What was cut.
    pub torn: Option<Torn>,
    /// Log bytes that were read to find out.
    pub scanned_bytes: u64,
    /// Segments whose footers were bad, one or both, and were made again.
    pub footers: usize,
}

/// How far to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// As opening does: the last segment.
    Tail,
    /// Every frame.
    Whole,
}

/// What is on a disk, found without changing it.
pub struct Survey {
    /// Whose log it is.
    pub identity: Identity,
    /// Term and vote.
    pub hard: HardState,
    /// From where on it should be contiguous.
    pub start: Position,
    /// Where it ends: behind damage, but before a torn tail.
    pub end: Position,
    /// The segments, by base: the end of their last frame.
    pub segments: Vec<(Offset, Position)>,
    /// A torn tail.
    pub torn: Option<Torn>,
    /// Damaged places, at most [`DAMAGE_MAX`].
    pub damage: Vec<Damage>,
    /// There are more than that.
    pub more_damage: bool,
    /// Log bytes that were read.
    pub scanned_bytes: u64,
    superblock: Superblock,
    superblock_stale: bool,
    disk: Arc<dyn Disk>,
    bases: Vec<Offset>,
    /// Contents by base, from the start on.
    contents: BTreeMap<Offset, Content>,
    /// Segments that were walked instead of believed.
    scanned: Vec<Offset>,
    /// Behind the last byte that is not zero.
    used: Offset,
    /// The highest mark of what was scanned: behind it lies the last batch.
    synced: Offset,
    /// Files that a rewrite left unfinished.
    unfinished: Vec<String>,
    /// What trimming left before the start.
    old: BTreeMap<Offset, Segment>,
    /// Those of it of which nobody knows where frames are left.
    unsure: BTreeSet<Offset>,
    /// Those of it whose footers are bad and that have no holes: what belongs into the footer.
    walked: BTreeMap<Offset, Content>,
    /// Segments from the start on whose footers should be good and are not.
    unbelieved: BTreeSet<Offset>,
    /// Those of it whose footers are all as they should be.
    footed: BTreeSet<Offset>,
}

impl Survey {
    /// Looks at the log on `disk`.
    ///
    /// # Errors
    /// [`OpenError`], but for [`OpenError::Damaged`]: damage is in the survey.
    pub fn new(disk: Arc<dyn Disk>, depth: Depth) -> Result<Survey, OpenError> {
        let (superblock, superblock_stale) = Superblock::load(&*disk)?;
        let names = disk.list().map_err(Fault::at("list", "the log"))?;
        let layout = superblock.layout;
        let mut bases: Vec<Offset> =
            names.iter().filter_map(|name| layout.base_in_name(name)).collect();
        bases.sort_unstable();
        let mut survey = Survey {
            identity: superblock.identity,
            hard: superblock.hard,
            start: superblock.start,
            end: superblock.start,
            segments: Vec::new(),
            torn: None,
            damage: Vec::new(),
            more_damage: false,
            scanned_bytes: 0,
            superblock,
            superblock_stale,
            disk,
            bases,
            contents: BTreeMap::new(),
            scanned: Vec::new(),
            used: Offset::ZERO,
            synced: Offset::ZERO,
            unfinished: names.into_iter().filter(|name| name.ends_with(UNFINISHED)).collect(),
            old: BTreeMap::new(),
            unsure: BTreeSet::new(),
            walked: BTreeMap::new(),
            unbelieved: BTreeSet::new(),
            footed: BTreeSet::new(),
        };
        survey.look_at_old()?;
        let mut scan_from = survey.scan_from(depth)?;
        while let Some(base) = survey.walk(scan_from)? {
            scan_from = base;
        }
        if depth == Depth::Whole {
            survey.verify_old();
        }
        survey.segments =
            survey.contents.iter().map(|(base, content)| (*base, content.last)).collect();
        Ok(survey)
    }

    /// Whether only one slot of the superblock is good.
    #[must_use]
    pub fn has_half_a_superblock(&self) -> bool {
        self.superblock_stale
    }

    /// The membership that the log began with.
    #[must_use]
    pub fn configuration(&self) -> &[u8] {
        &self.superblock.configuration
    }

    /// Reads what is good, damaged places left out.
    #[must_use]
    pub fn reader(&self) -> Reader {
        Reader::new(self.shared())
    }

    fn layout(&self) -> Layout {
        self.superblock.layout
    }

    /// Behind this, everything is to be forgotten: a cut was under way.
    fn limit(&self) -> Offset {
        match self.superblock.cut {
            Offset::ZERO => Offset::MAX,
            cut => cut,
        }
    }

    fn window(&self, base: Offset) -> Result<Option<scan::Window>, Fault> {
        if self.bases.binary_search(&base).is_err() {
            return Ok(None);
        }
        scan::Window::new(self.layout(), base, self.file(base)?).map(Some)
    }

    fn file(&self, base: Offset) -> Result<Arc<dyn File>, Fault> {
        let name = Layout::name(base);
        self.disk.open(&name, Open::Existing).map_err(Fault::at("open", &name))
    }

    fn footer(&self, base: Offset) -> Result<Option<Content>, Fault> {
        footers::read(&*self.file(base)?, self.layout(), base)
    }

    /// What trimming left before the start.
    fn look_at_old(&mut self) -> Result<(), Fault> {
        let layout = self.layout();
        let old = self.bases.iter().copied().filter(|base| *base < self.start.offset);
        for base in old.collect::<Vec<_>>() {
            let (content, are_good) = footers::read_all(&*self.file(base)?, layout, base)?;
            if let Some(content) = content {
                self.old.insert(base, Segment::of(&content));
                if are_good {
                    self.footed.insert(base);
                }
                continue;
            }
            let before = Offset(base.0.saturating_sub(layout.segment_bytes()));
            let before = match base {
                Offset::FIRST => Some(Position::ORIGIN),
                _ => self.old.get(&before).and_then(|before| before.seal),
            };
            if let Some(content) = footers::walk(&self.file(base)?, layout, base, before)? {
                self.old.insert(base, Segment::of(&content));
                self.walked.insert(base, content);
                continue;
            }
            let content = footers::unknown(layout, base, self.start);
            self.old.insert(base, Segment::of(&content));
            self.unsure.insert(base);
        }
        Ok(())
    }

    /// The last segment whose first frame is good: those before it were sealed and synced before
    /// that frame was written.
    fn scan_from(&mut self, depth: Depth) -> Result<Offset, Fault> {
        let (start, limit) = (self.start.offset, self.limit());
        if depth == Depth::Tail {
            let bases = self.bases.clone();
            for base in bases.into_iter().rev().filter(|base| *base > start && *base < limit) {
                let good = match self.window(base)? {
                    Some(mut window) => window.frame(base, None)?.is_ok(),
                    None => false,
                };
                if good {
                    return Ok(base);
                }
            }
        }
        Ok(start)
    }

    /// Walks the segments, believes the footers before `scan_from`, and looks at the end. When the
    /// log turns out to end inside a segment that was believed, returns that one: it has to be
    /// scanned, as what is behind its last frame will be cut off.
    fn walk(&mut self, scan_from: Offset) -> Result<Option<Offset>, Fault> {
        self.contents.clear();
        self.scanned.clear();
        self.damage.clear();
        self.unbelieved.clear();
        (self.torn, self.more_damage) = (None, false);
        self.walk_segments(scan_from)?;
        self.look_at_end()?;
        let last = self.contents.last_key_value().filter(|(_, content)| content.seal.is_none());
        Ok(last.map(|(base, _)| *base).filter(|base| !self.scanned.contains(base)))
    }

    fn walk_segments(&mut self, scan_from: Offset) -> Result<(), Fault> {
        let limit = self.limit();
        let mut content = Content::new(self.start);
        loop {
            let base = content.base;
            if base < scan_from && self.layout().end(base) <= limit && self.believe(&content)? {
                let seal = self.contents[&base].seal.expect("a footer is of a full segment");
                content = Content::new(seal);
                continue;
            }
            let stop = match self.window(base)? {
                None if content.last.offset >= limit => scan::Stop::Limit,
                None => scan::Stop::Flaw(Flaw::Missing),
                Some(mut window) => {
                    let stop = window.scan(&mut content, limit)?;
                    self.scanned_bytes += window.read;
                    self.synced = self.synced.max(window.synced);
                    stop
                }
            };
            if self.scanned.last() != Some(&base) {
                self.scanned.push(base);
            }
            let resumed = match stop {
                scan::Stop::Full(seal) => {
                    content.seal = Some(seal);
                    Some(seal)
                }
                scan::Stop::Limit => None,
                scan::Stop::Flaw(flaw) => self.judge(&content, flaw)?,
            };
            match resumed {
                Some(next) if self.layout().base(next.offset) == base => content.last = next,
                Some(next) => {
                    self.contents.insert(base, content);
                    content = Content::new(next);
                    content.base = self.layout().base(next.offset);
                }
                None => {
                    self.contents.insert(base, content);
                    return Ok(());
                }
            }
        }
    }

    /// Whether the footer of a segment continues the log; then it is taken over.
    fn believe(&mut self, expected: &Content) -> Result<bool, Fault> {
        if self.bases.binary_search(&expected.base).is_err() {
            return Ok(false);
        }
        let footer = self.footer(expected.base)?;
        let Some(footer) = footer.filter(|footer| footer.before == expected.before) else {
            self.unbelieved.insert(expected.base);
            return Ok(false);
        };
        Ok(self.contents.insert(footer.base, footer).is_none())
    }

    /// Tears or damage? Where to go on behind damage; `None` at a torn tail.
    fn judge(&mut self, content: &Content, flaw: Flaw) -> Result<Option<Position>, Fault> {
        let from = content.last.offset;
        let mut first = None;
        let mut synced = false;
        let bases: Vec<Offset> =
            self.bases.iter().copied().filter(|base| *base >= content.base).collect();
        for base in bases {
            let Some(mut window) = self.window(base)? else { continue };
            let mut at = base.max(from.plus(naust_wire::limits::FRAME_ALIGN as u64));
            while let Some((header, _)) = window.search(at)?
                && header.end() <= self.limit()
                && !synced
            {
                first = first.or(Some(header));
                synced = scan::mark(&header) > from;
                at = header.end();
            }
            self.scanned_bytes += window.read;
        }
        // A log that was trimmed has durable frames: its segment was not the last.
        let bare = from == self.start.offset && self.start != Position::ORIGIN;
        if (!synced && !bare) || planted::has(Bug::CutDamage) {
            self.torn = Some(Torn { from, to: from, flaw });
            return Ok(None);
        }
        let to = first.map_or(self.layout().end(from), |header| header.offset);
        self.more_damage = self.damage.len() == DAMAGE_MAX;
        if !self.more_damage {
            self.damage.push(Damage { from, to, flaw });
        }
        Ok(first.filter(|_| !self.more_damage).map(|header| scan::follows(&header)))
    }

    /// Where the log ends, when padding with nothing behind it is taken away; what is behind that.
    fn look_at_end(&mut self) -> Result<(), Fault> {
        while let Some(mut last) = self.contents.last_entry() {
            let content = last.get_mut();
            self.end = content.last;
            let empty = content.last == content.before;
            if empty {
                last.remove();
                continue;
            }
            if content.seal.is_some_and(|seal| seal.offset != content.last.offset) {
                content.seal = None;
            }
            break;
        }
        let end = self.end.offset;
        let mut used = end;
        for base in self.bases.clone().into_iter().filter(|base| self.layout().end(*base) > end) {
            if let Some(mut window) = self.window(base)? {
                let from = base.max(end);
                let found = window.used(from)?;
                used = if found > from { found } else { used };
            }
        }
        self.used = used;
        self.torn = self.torn.map(|torn| Torn { from: end, to: used, ..torn });
        self.torn = self.torn.filter(|torn| torn.to > torn.from);
        Ok(())
    }

    fn verify_old(&mut self) {
        let reader = self.reader();
        for (base, segment) in &self.old {
            let whole = *base..self.superblock.layout.end(*base);
            let ranges = segment.ranges.as_deref().unwrap_or(std::slice::from_ref(&whole));
            for range in ranges {
                let mut at = range.start;
                while at < range.end {
                    match reader.frames(at, range.end, 1024 * 1024) {
                        Ok(chunk) if chunk.next() > at => at = chunk.next(),
                        Err(crate::ReadError::Damaged(damage)) => {
                            self.more_damage |= self.damage.len() == DAMAGE_MAX;
                            if self.damage.len() < DAMAGE_MAX {
                                self.damage.push(damage);
                            }
                            at = damage.to;
                        }
                        _ => break,
                    }
                }
            }
        }
    }

    fn shared(&self) -> Arc<Shared> {
        let mut map = Map::default();
        map.segments.clone_from(&self.old);
        let live = self.contents.iter();
        map.segments.extend(live.map(|(base, content)| (*base, Segment::of(content))));
        let last = self.layout().base(self.end.offset);
        map.unsure.clone_from(&self.unsure);
        map.named.extend(self.bases.binary_search(&last).ok().map(|_| last));
        Shared::new(Arc::clone(&self.disk), self.layout(), self.end.offset, map)
    }

    /// Makes the disk say what the survey found: nothing behind the end, footers where they belong,
    /// and all of it durable. Returns up to where there is zero-filled space, and of how many
    /// segments the footers were made again.
    fn mend(&mut self) -> Result<(Offset, usize), Fault> {
        let (layout, end) = (self.layout(), self.end.offset);
        let (mut filled, mut footers) = (end, 0);
        if self.superblock_stale {
            // Nothing may be done because of a slot that the next power cut could take back.
            self.superblock.sequence += 1;
            self.superblock.store(&*self.disk)?;
        }
        for name in &self.unfinished {
            self.disk.remove(name).map_err(Fault::at("remove", name))?;
        }
        for base in self.old.keys().filter(|base| !self.footed.contains(base)) {
            footers += usize::from(self.mend_footers(*base)?);
        }
        for base in self.bases.clone() {
            let scanned = self.scanned.contains(&base);
            if base > end || (base == end && !scanned) {
                let name = Layout::name(base);
                self.disk.remove(&name).map_err(Fault::at("remove", &name))?;
                self.bases.retain(|other| *other != base);
            } else if scanned {
                let length = self.mend_segment(base)?;
                let is_full = self.contents.get(&base).is_some_and(|it| it.seal.is_some());
                footers += usize::from(is_full && self.unbelieved.contains(&base));
                if layout.end(base) > end {
                    filled = filled.max(base.plus(length));
                }
            }
        }
        self.disk.sync().map_err(Fault::at("sync names of", "the log"))?;
        if self.superblock.cut != Offset::ZERO {
            self.superblock.sequence += 1;
            self.superblock.cut = Offset::ZERO;
            self.superblock.store(&*self.disk)?;
        }
        Ok((filled, footers))
    }

    /// Of a segment that trimming left holes in, nothing else tells which they are: each of its two
    /// footers is to be there for the other. Whether any was made again.
    fn mend_footers(&self, base: Offset) -> Result<bool, Fault> {
        let (name, file) = (Layout::name(base), self.file(base)?);
        let content = match self.walked.get(&base) {
            Some(content) => Some(content.clone()),
            None => footers::read(&*file, self.layout(), base)?,
        };
        let is_walked = self.walked.contains_key(&base);
        let content = content.filter(|content| is_walked || content.ranges.is_some());
        let Some(content) = content else { return Ok(false) };
        let written = footers::write_bad(&*file, self.layout(), &content).and_then(|any| {
            if any { file.sync().map_err(Fault::at("sync", &name)).map(|()| true) } else { Ok(any) }
        });
        match written {
            // One is enough, and none is slower, not wrong; the next start tries again.
            Err(fault) if fault.is_full() || fault.is_refused() => Ok(false),
            written => written,
        }
    }

    /// Mends one segment; returns how many log bytes its file has.
    fn mend_segment(&self, base: Offset) -> Result<u64, Fault> {
        let layout = self.layout();
        let (name, file) = (Layout::name(base), self.file(base)?);
        // What a process reads after another one died may never have reached the disk, and a sync
        // that failed then may have marked it clean. Written again, it is dirty, and a sync counts.
        let segment_end = layout.end(base).min(self.end.offset);
        let from = self.synced.max(base).min(segment_end);
        scan::Window::new(layout, base, Arc::clone(&file))?.rewrite(from, segment_end)?;
        let content = self.contents.get(&base);
        if let Some(content) = content.filter(|content| content.seal.is_some()) {
            file.write_at(layout.segment_bytes(), &[&content.footer()])
                .map_err(Fault::at("write the footer of", &name))?;
            file.sync().map_err(Fault::at("sync", &name))?;
        } else {
            assert!(base == layout.base(self.end.offset), "only the last segment is not sealed");
            // For the same reason a cut under way is done again, though nothing seems to be left.
            let cutting = self.superblock.cut != Offset::ZERO || self.used > self.end.offset;
            let length = file.len().map_err(Fault::at("measure", &name))?;
            if cutting || length > layout.segment_bytes() {
                write::truncate(&*file, layout, self.end.offset)?;
            }
            file.sync().map_err(Fault::at("sync", &name))?;
        }
        let length = file.len().map_err(Fault::at("measure", &name))?;
        Ok(length.min(layout.segment_bytes()))
    }
}

/// The first index of each term in a log that begins at `start`.
pub(crate) fn terms<'a>(
    start: Position,
    contents: impl Iterator<Item = &'a Content>,
) -> Vec<(Index, Term)> {
    let mut terms = Vec::new();
    if start.index.0 > 0 {
        terms.push((start.index, start.term));
    }
    for (index, term) in contents.flat_map(|content| &content.terms) {
        if terms.last().is_none_or(|(_, last)| last != term) {
            terms.push((*index, *term));
        }
    }
    terms
}

/// See [`Log::open`].
pub(crate) fn open(disk: Arc<dyn Disk>, shard: ShardId) -> Result<(Log, Opened), OpenError> {
    let mut survey = Survey::new(disk, Depth::Tail)?;
    if survey.identity.shard != shard {
        return Err(OpenError::Shard { found: survey.identity.shard, wanted: shard });
    }
    if !survey.damage.is_empty() {
        let damage = std::mem::take(&mut survey.damage);
        return Err(OpenError::Damaged { damage, more: survey.more_damage });
    }
    let (filled, footers) = survey.mend()?;
    let tail: VecDeque<Content> =
        survey.contents.values().filter(|content| content.seal.is_none()).cloned().collect();
    let shared = survey.shared();
    let terms = terms(survey.start, survey.contents.values());
    let Survey { end, torn, scanned_bytes, .. } = survey;
    let opened = Opened { end, torn, scanned_bytes, footers };
    Ok((Log::assemble(shared, survey.superblock, tail, terms, survey.end, filled), opened))
}
