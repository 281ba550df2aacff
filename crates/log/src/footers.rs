//! What full segments say about themselves is looked at, and made again where it rotted: by whoever
//! opens the log, and by a scrub.
//!
//! ```text
//!  whole, footer bad               the frames tell it again: they are walked
//!  with holes, one footer bad      the other one tells it
//!  with holes, both bad            while the log is open, its owner knows where the holes are
//!                                  else nobody does: the segment is *unsure*
//! ```
//! Of an unsure segment a hole can't be told from a frame that is lost. What must be there, the
//! views know: trimming rewrites it at once from what lives in it, and finds what of that is
//! damaged. Until then nobody looks for damage in it, and who reads from it is told of damage where
//! there is a hole; nothing wrong is served.

use crate::disk::{File, Open, read_around};
use crate::layout::{Layout, Position};
use crate::scan::{self, Stop, Window};
use crate::segment::{Content, FOOTERS_BYTES_MAX};
use crate::shared::{Segment, Shared};
use crate::{Fault, Reader};
use naust_wire::{Index, Offset};
use std::io::ErrorKind;
use std::ops::Range;
use std::sync::Arc;

/// Writes those footers of a segment's file that are not as they should be; whether there were any.
/// They are not synced.
pub(crate) fn write_bad(file: &dyn File, layout: Layout, content: &Content) -> Result<bool, Fault> {
    let name = Layout::name(content.base);
    let mut any = false;
    for (position, footer) in content.footers(layout.segment_bytes()) {
        let mut there = vec![0; footer.len()];
        let read = read_around(file, position, &mut there);
        let read = read.map_err(Fault::at("read the footer of", &name))?;
        if there[..read] != footer[..] {
            let written = file.write_at(position, &[&footer]);
            written.map_err(Fault::at("write the footer of", &name))?;
            any = true;
        }
    }
    Ok(any)
}

/// Reads the footer of a segment's file, if it has a good one.
pub(crate) fn read(
    file: &dyn File,
    layout: Layout,
    base: Offset,
) -> Result<Option<Content>, Fault> {
    read_all(file, layout, base).map(|(content, _)| content)
}

/// The same; also whether all of its footers are as they should be.
pub(crate) fn read_all(
    file: &dyn File,
    layout: Layout,
    base: Offset,
) -> Result<(Option<Content>, bool), Fault> {
    let name = Layout::name(base);
    let length = file.len().map_err(Fault::at("measure", &name))?;
    let bytes = length.saturating_sub(layout.segment_bytes()).min(FOOTERS_BYTES_MAX);
    let mut footer = vec![0; usize::try_from(bytes).expect("bounded above")];
    // A disk refuses whole blocks, and a sparse segment has its footer in blocks of its own twice.
    let read = read_around(file, layout.segment_bytes(), &mut footer);
    let read = read.map_err(Fault::at("read the footer of", &name))?;
    let content = Content::read_any(base, layout.segment_bytes(), &footer[..read]);
    let content =
        content.filter(|content| content.seal.is_some_and(|seal| seal.offset == layout.end(base)));
    let is_there = |(position, bytes): (u64, Vec<u8>)| {
        let skip = usize::try_from(position - layout.segment_bytes()).expect("bounded above");
        footer[..read].get(skip..).is_some_and(|there| there.starts_with(&bytes))
    };
    let footers = content.iter().flat_map(|content| content.footers(layout.segment_bytes()));
    let are_good = content.is_some() && footers.into_iter().all(is_there);
    Ok((content, are_good))
}

/// What the footer of a segment without holes has to say, as its frames tell; `None` if it has
/// holes, or damage. `before`: what its first frame follows, if that is known.
pub(crate) fn walk(
    file: &Arc<dyn File>,
    layout: Layout,
    base: Offset,
    before: Option<Position>,
) -> Result<Option<Content>, Fault> {
    let mut window = Window::new(layout, base, Arc::clone(file))?.lenient();
    let follows = match window.frame(base, None)? {
        Ok(frame) => scan::follows(&frame.header),
        Err(_) => return Ok(None),
    };
    // The frame itself does not tell term and time of the one before.
    let same = |before: &Position| (before.index, before.crc) == (follows.index, follows.crc);
    let mut content = Content::new(before.filter(same).unwrap_or(follows));
    let Stop::Full(seal) = window.scan(&mut content, Offset::MAX)? else { return Ok(None) };
    content.seal = Some(seal);
    Ok(Some(content))
}

/// What the footers of a segment with holes have to say, as its owner and its frames tell; `None`
/// if a frame is damaged.
fn walk_ranges(
    file: &Arc<dyn File>,
    layout: Layout,
    base: Offset,
    segment: &Segment,
    ranges: &Arc<[Range<Offset>]>,
) -> Result<Option<Content>, Fault> {
    let mut window = Window::new(layout, base, Arc::clone(file))?.lenient();
    let mut content = Content::new(segment.before);
    content.base = base;
    for range in ranges.iter() {
        let (mut at, mut end) = (range.start, None);
        while at < range.end {
            let Ok(frame) = window.frame(at, None)? else { return Ok(None) };
            content.note_sparse(&frame.header, frame.crc, end);
            at = frame.header.end();
            end = Some(at);
        }
    }
    (content.seal, content.ranges) = (segment.seal, Some(Arc::clone(ranges)));
    content.live_bytes = segment.live_bytes;
    Ok(Some(content))
}

/// What stands in for what an unsure segment should say about itself: nothing can be found by index
/// in it; reads by offset are checked. `other`: any boundary.
pub(crate) fn unknown(layout: Layout, base: Offset, other: Position) -> Content {
    let seal = Position { offset: layout.end(base), ..other };
    let mut content = Content::new(Position { offset: base, index: Index(u64::MAX), ..seal });
    content.seal = Some(seal);
    content
}

/// What became of the footers of a segment.
#[derive(Debug, Default)]
pub(crate) struct Looked {
    /// They were not as they should be, and are again.
    pub made_again: bool,
    /// A sync failed.
    pub unsynced: Option<Fault>,
}

impl Reader {
    /// Looks at the footers of the segment at `base`, and makes those again that are bad. It must
    /// be full, and behind it must lie frames that are committed: it is never cut.
    pub(crate) fn look_at_footers(&self, base: Offset) -> Result<Looked, Fault> {
        let (shared, layout) = (self.shared(), self.layout());
        // Who has it open does not notice that it is gone.
        let name = Layout::name(base);
        match shared.disk.open(&name, Open::Existing) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                shared.map_mut().forget(base);
                return Ok(Looked::default());
            }
            file => file.map(drop).map_err(Fault::at("open", &name))?,
        }
        let file = shared.file(base, Open::Existing)?;
        // Who trims changes the map before the file: what the file has that was opened before, the
        // map may have let go of already, but never the other way round.
        let Some(segment) = shared.segment(base) else { return Ok(Looked::default()) };
        let Some(seal) = segment.seal.filter(|_| !shared.is_unsure(base)) else {
            return Ok(Looked::default());
        };
        let content = match (read(&*file, layout, base)?, &segment.ranges) {
            (Some(content), None) if content.ranges.is_none() => return Ok(Looked::default()),
            (Some(content), Some(ranges)) if content.ranges.as_ref() == Some(ranges) => {
                Some(content)
            }
            // The file is about to be replaced.
            (Some(_), _) => return Ok(Looked::default()),
            (None, None) => walk(&file, layout, base, Some(segment.before))?
                .filter(|content| content.seal.is_some_and(|found| found.crc == seal.crc)),
            (None, Some(ranges)) => walk_ranges(&file, layout, base, &segment, ranges)?,
        };
        // Damaged frames are mended first.
        let Some(content) = content else { return Ok(Looked::default()) };
        shared.make_footers_again(&*file, &content)
    }
}

impl Shared {
    fn make_footers_again(&self, file: &dyn File, content: &Content) -> Result<Looked, Fault> {
        self.settle()?;
        match write_bad(file, self.layout, content) {
            Ok(false) => Ok(Looked::default()),
            Ok(true) => {
                let name = Layout::name(content.base);
                let unsynced = file.sync().map_err(Fault::at("sync", &name)).err();
                Ok(Looked { made_again: unsynced.is_none(), unsynced })
            }
            // One of two is enough, and none is slower, not wrong: another time.
            Err(fault) if fault.is_full() || fault.is_refused() => Ok(Looked::default()),
            Err(fault) => Err(fault),
        }
    }
}
