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
use crate::wary::{Outcome, Wary};
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
    /// What came of the syncs of files that somebody has open, or of which one failed.
    outcomes: BTreeMap<Offset, Arc<Outcome>>,
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

    fn without_marks(&self) -> Segment {
        let Segment { before, seal, live_bytes, .. } = *self;
        Segment { before, seal, marks: Vec::new(), ranges: self.ranges.clone(), live_bytes }
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

    /// The segment that covers `offset`, if there is one; without its marks, of which there may be
    /// a thousand.
    pub(crate) fn segment(&self, offset: Offset) -> Option<Segment> {
        self.map().segments.get(&self.layout.base(offset)).map(Segment::without_marks)
    }

    /// Whether there is a segment at `base`.
    pub(crate) fn has_segment(&self, base: Offset) -> bool {
        self.map().segments.contains_key(&base)
    }

    /// The last mark that `wanted` says yes to in the segment at `base`, while it is not sealed;
    /// `None`: its footer has them.
    pub(crate) fn open_mark(
        &self,
        base: Offset,
        wanted: impl Fn(&Mark) -> bool,
    ) -> Option<Option<Mark>> {
        let map = self.map();
        let Some(segment) = map.segments.get(&base) else { return Some(None) };
        segment.seal.is_none().then(|| Content::mark_before(&segment.marks, wanted))
    }

    /// Whether nobody knows where frames are left in the segment at `base`.
    pub(crate) fn is_unsure(&self, base: Offset) -> bool {
        self.map().unsure.contains(&base)
    }

    /// The first segment that begins at or behind `offset`.
    pub(crate) fn segment_from(&self, offset: Offset) -> Option<Offset> {
        self.map().segments.range(offset..).next().map(|(base, _)| *base)
    }

    /// The base of the last segment that may hold the frame with `index`.
    pub(crate) fn by_index(&self, index: Index) -> Option<Offset> {
        let map = self.map();
        let found = map.segments.iter().rev().find(|(_, segment)| segment.before.index < index);
        found.map(|(base, _)| *base)
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
        let mut map = self.map_mut();
        let outcome = map.outcome(base);
        let file: Arc<dyn File> = Arc::new(Wary::new(file, outcome));
        if map.forgotten != forgotten {
            return Ok(file);
        }
        // Somebody else may have opened it meanwhile.
        let file = Arc::clone(map.handles.entry(base).or_insert(file));
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
    /// What comes of the syncs of the segment at `base`. It outlives the file: the node is about to
    /// stop when one failed, but whoever syncs before it has must not be told otherwise.
    fn outcome(&mut self, base: Offset) -> Arc<Outcome> {
        let known = |outcome: &Arc<Outcome>| Arc::strong_count(outcome) > 1 || outcome.has_failed();
        self.outcomes.retain(|_, outcome| known(outcome));
        Arc::clone(self.outcomes.entry(base).or_default())
    }

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

#[cfg(test)]
#[allow(clippy::disallowed_methods)] // threads that open at once
mod tests {
    use super::*;
    use crate::sim::{Op, SimDisk, Verdict, Weather};
    use std::io::{self, ErrorKind};
    use std::sync::Barrier;

    /// Two threads are let through [`Disk::open`] together.
    struct Together(SimDisk, Barrier);

    impl Disk for Together {
        fn list(&self) -> io::Result<Vec<String>> {
            self.0.list()
        }

        fn open(&self, name: &str, open: Open) -> io::Result<Arc<dyn File>> {
            self.1.wait();
            self.0.open(name, open)
        }

        fn rename(&self, from: &str, to: &str) -> io::Result<()> {
            self.0.rename(from, to)
        }

        fn remove(&self, name: &str) -> io::Result<()> {
            self.0.remove(name)
        }

        fn sync(&self) -> io::Result<()> {
            self.0.sync()
        }
    }

    struct NoSync;

    impl Weather for NoSync {
        fn ask(&mut self, op: Op, _: &str) -> Verdict {
            if op == Op::Sync { Verdict::Fail(ErrorKind::Other) } else { Verdict::Go }
        }
    }

    fn shared(disk: Arc<dyn Disk>) -> Arc<Shared> {
        Shared::new(disk, Layout::STANDARD, Offset::FIRST, Map::default())
    }

    /// Why: each of them had a file of its own, and a sync that failed through one of them was not
    /// known to the other.
    #[test]
    fn who_opens_a_segment_at_once_gets_one_file() {
        let disk = Together(SimDisk::new(), Barrier::new(2));
        let shared = shared(Arc::new(disk));
        let open = || shared.file(Offset::FIRST, Open::Create).unwrap();
        let (one, two) = std::thread::scope(|threads| {
            let other = threads.spawn(open);
            (open(), other.join().unwrap())
        });
        assert!(Arc::ptr_eq(&one, &two));
    }

    /// Why: few files stay open; one that was closed and opened again had forgotten that a sync of
    /// it failed.
    #[test]
    fn no_sync_succeeds_after_one_that_failed_though_the_file_was_closed() {
        let disk = SimDisk::new();
        let shared = shared(Arc::new(disk.clone()));
        let base = |number: u64| Offset::FIRST.plus(number * Layout::STANDARD.segment_bytes());
        let file = |number: u64| shared.file(base(number), Open::Create).unwrap();
        let held = file(0);
        for number in 1..40 {
            file(number).sync().unwrap();
        }
        disk.set_weather(Some(Box::new(NoSync)));
        assert!(file(1).sync().is_err() && held.sync().is_err());
        disk.set_weather(None);
        assert!(file(0).sync().is_err(), "one handle is as good as another");
        (2..40).for_each(|number| file(number).sync().unwrap());
        assert!(file(1).sync().is_err());
        shared.map_mut().forget(base(1));
        assert!(file(1).sync().is_err());
        let known = shared.map().outcomes.len();
        assert!(known <= 2 + HANDLES_MAX + 1, "{known} are known, of 40");
    }

    /// Why: each read of the segment that grows, and each write of one, copied up to 1024 marks.
    #[test]
    fn who_asks_for_a_segment_gets_no_marks() {
        let shared = shared(Arc::new(SimDisk::new()));
        let mut content = Content::new(Position::ORIGIN);
        content.marks = vec![Mark { index: Index(1), offset: Offset::FIRST }];
        shared.map_mut().segments.insert(Offset::FIRST, Segment::of(&content));
        assert_eq!(shared.segment(Offset::FIRST).unwrap().marks, []);
        assert_eq!(shared.by_index(Index(1)), Some(Offset::FIRST));
        let mark = shared.open_mark(Offset::FIRST, |mark| mark.index == Index(1)).unwrap();
        assert_eq!(mark.unwrap().offset, Offset::FIRST);
    }
}
