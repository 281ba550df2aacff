//! What the owner's jobs and the readers share: the map of segments, their open files, and how far
//! reading may go.
//!
//! Jobs change the map, on the threads that run them, before the files, and forget what was opened
//! after them; the owner only moves `readable` and `durable`. So whoever finds a file that is not
//! as the map said finds the map changed, too, and looks again. No file is opened, renamed or
//! removed under the map's lock, which every read takes.

use crate::disk::{Disk, File, Open};
use crate::journal::Journaled;
use crate::layout::{Layout, Position};
use crate::segment::{Content, Mark};
use crate::wary::Wary;
use crate::{Fault, footers};
use naust_wire::{Index, Offset};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Files of sealed segments that stay open for readers.
const HANDLES_MAX: usize = 16;
/// Footers of sealed segments that stay in memory for reads by index.
const FOOTERS_MAX: usize = 4;

pub(crate) struct Shared {
    pub disk: Arc<dyn Disk>,
    pub layout: Layout,
    readable: AtomicU64,
    durable: AtomicU64,
    /// Of what it held when it was opened, what lies below this is still there.
    recovered: AtomicU64,
    map: RwLock<Map>,
}

/// The segments of the log, by base.
#[derive(Default)]
pub(crate) struct Map {
    pub segments: BTreeMap<Offset, Segment>,
    /// Files of segments that are not in the map yet and have durable names.
    pub named: BTreeSet<Offset>,
    /// Segments before the start of which nobody knows where frames are left: see `footers`.
    pub unsure: BTreeSet<Offset>,
    handles: BTreeMap<Offset, Arc<dyn File>>,
    footers: BTreeMap<Offset, Arc<Content>>,
    /// How often files were forgotten: what was opened before that is not to be kept after it.
    forgotten: u64,
}

/// A segment as readers see it.
#[derive(Clone, Debug)]
pub(crate) struct Segment {
    /// What its first frame follows.
    pub before: Position,
    /// Where it ends, when it is sealed.
    pub seal: Option<Position>,
    /// Marks of the part that is written, while it is not sealed; then the footer has them.
    pub marks: Vec<Mark>,
    /// What is left of it, if it is sparse.
    pub ranges: Option<Arc<[Range<Offset>]>>,
    /// Bytes of it that were live when it was written.
    pub live_bytes: u64,
}

impl Segment {
    pub(crate) fn of(content: &Content) -> Segment {
        Segment {
            before: content.before,
            seal: content.seal,
            marks: if content.seal.is_none() { content.marks.clone() } else { Vec::new() },
            ranges: content.ranges.clone(),
            live_bytes: content.live_bytes,
        }
    }
}

impl Shared {
    pub(crate) fn new(disk: Arc<dyn Disk>, layout: Layout, end: Offset, map: Map) -> Arc<Shared> {
        let [readable, durable, recovered] = [end; 3].map(|end| AtomicU64::new(end.0));
        Arc::new(Shared { disk, layout, readable, durable, recovered, map: RwLock::new(map) })
    }

    /// Up to where frames are written and may be read from files.
    pub(crate) fn readable(&self) -> Offset {
        Offset(self.readable.load(Ordering::Acquire))
    }

    pub(crate) fn set_readable(&self, end: Offset) {
        self.readable.store(end.0, Ordering::Release);
    }

    /// Up to where frames survive a power cut.
    pub(crate) fn durable(&self) -> Offset {
        Offset(self.durable.load(Ordering::Acquire))
    }

    pub(crate) fn set_durable(&self, end: Offset) {
        self.durable.store(end.0, Ordering::Release);
    }

    /// Up to where there is what the log held when it was opened.
    pub(crate) fn recovered(&self) -> Offset {
        Offset(self.recovered.load(Ordering::Acquire))
    }

    /// What lies behind `end` is cut off.
    pub(crate) fn note_cut(&self, end: Offset) {
        self.recovered.fetch_min(end.0, Ordering::AcqRel);
    }

    pub(crate) fn map(&self) -> RwLockReadGuard<'_, Map> {
        self.map.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn map_mut(&self) -> RwLockWriteGuard<'_, Map> {
        self.map.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The segment that covers `offset`, if there is one.
    pub(crate) fn segment(&self, offset: Offset) -> Option<Segment> {
        self.map().segments.get(&self.layout.base(offset)).cloned()
    }

    /// Whether nobody knows where frames are left in the segment at `base`.
    pub(crate) fn is_unsure(&self, base: Offset) -> bool {
        self.map().unsure.contains(&base)
    }

    /// The first segment that begins at or behind `offset`.
    pub(crate) fn segment_from(&self, offset: Offset) -> Option<Offset> {
        self.map().segments.range(offset..).next().map(|(base, _)| *base)
    }

    /// The base of the last segment that may hold the frame with `index`, and its marks if it is
    /// not sealed.
    pub(crate) fn by_index(&self, index: Index) -> Option<(Offset, Segment)> {
        let map = self.map();
        let found = map.segments.iter().rev().find(|(_, segment)| segment.before.index < index);
        found.map(|(base, segment)| (*base, segment.clone()))
    }

    /// The file of the segment at `base`.
    pub(crate) fn file(&self, base: Offset, open: Open) -> Result<Arc<dyn File>, Fault> {
        let map = self.map();
        if let Some(file) = map.handles.get(&base) {
            return Ok(Arc::clone(file));
        }
        let forgotten = map.forgotten;
        drop(map);
        let name = Layout::name(base);
        let file = self.disk.open(&name, open).map_err(Fault::at("open", &name))?;
        let file: Arc<dyn File> = Arc::new(Wary::new(file));
        let mut map = self.map_mut();
        if map.forgotten != forgotten {
            return Ok(file);
        }
        map.handles.insert(base, Arc::clone(&file));
        if map.handles.len() > HANDLES_MAX {
            // The newest segments are the busiest; the one just asked for must stay.
            let oldest = map.handles.keys().copied().find(|other| *other != base);
            map.handles.retain(|other, _| Some(*other) != oldest);
        }
        Ok(file)
    }

    /// The file of the segment at `base` for writing; says whether its name is yet to be synced.
    pub(crate) fn file_to_write(&self, base: Offset) -> Result<(Arc<dyn File>, bool), Fault> {
        let unnamed = !self.map().is_named(base);
        let open = if unnamed { Open::Create } else { Open::Existing };
        Ok((self.file(base, open)?, unnamed))
    }

    /// What was written is about to change, or to go: no journal may write it again.
    pub(crate) fn settle(&self) -> Result<(), Fault> {
        self.disk.journaled().map_or(Ok(()), Journaled::settle)
    }

    /// Makes the name of a new segment's file durable.
    pub(crate) fn sync_name(&self, base: Offset) -> Result<(), Fault> {
        self.disk.sync().map_err(Fault::at("sync names of", &Layout::name(base)))?;
        self.map_mut().named.insert(base);
        Ok(())
    }

    /// The footer of a sealed segment.
    pub(crate) fn footer(&self, base: Offset) -> Result<Option<Arc<Content>>, Fault> {
        let map = self.map();
        if let Some(content) = map.footers.get(&base) {
            return Ok(Some(Arc::clone(content)));
        }
        let forgotten = map.forgotten;
        drop(map);
        let file = self.file(base, Open::Existing)?;
        let Some(content) = footers::read(&*file, self.layout, base)? else { return Ok(None) };
        let content = Arc::new(content);
        let mut map = self.map_mut();
        if map.forgotten != forgotten {
            return Ok(Some(content));
        }
        if map.footers.len() >= FOOTERS_MAX {
            map.footers.pop_first();
        }
        map.footers.insert(base, Arc::clone(&content));
        Ok(Some(content))
    }
}

impl Map {
    fn is_named(&self, base: Offset) -> bool {
        self.segments.contains_key(&base) || self.named.contains(&base)
    }

    /// Forgets all segments from `base` on, and what was remembered of their files.
    pub(crate) fn forget_from(&mut self, base: Offset) {
        self.forgotten += 1;
        self.segments.split_off(&base);
        self.named.split_off(&base);
        self.handles.split_off(&base);
        self.footers.split_off(&base);
    }

    /// Forgets what was remembered of a file that is replaced or removed.
    pub(crate) fn forget(&mut self, base: Offset) {
        self.forgotten += 1;
        self.handles.remove(&base);
        self.footers.remove(&base);
    }
}
