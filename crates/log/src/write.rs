//! The job of a disk thread: everything that must happen on disk, in an order that is safe at every
//! moment a power cut may come.
//!
//! ```text
//!  0  what a journal has of the log is settled, if there is a cut
//!  1  superblock: term, vote, start, and the intent to cut if there is one      two syncs
//!  2  the cut: files behind it removed, its own cut short                         two
//!     superblock: the intent is done                                             two
//!  3  for each segment touched, in order: frames, zeros ahead of them if it grows,
//!     footer if it is full                                                       one each
//!     a new file's name                                                          one
//! ```
//! In the steady state there is only the third step, with one segment that has room: one sync. If
//! the write is small, a [`Journal`](crate::Journal) may take the sync's place. One whose frames
//! are synced later ([`Log::next_write_unsynced`](crate::Log::next_write_unsynced)) has none; one
//! that may be nothing but that sync follows.

use crate::Fault;
use crate::chunk;
use crate::disk::{File, Open};
use crate::journal::Part;
use crate::layout::{Layout, Position};
use crate::log::When;
use crate::segment::{Content, Mark};
use crate::shared::{Segment, Shared};
use crate::superblock::{Superblock, Unstored};
use naust_wire::Offset;
use naust_wire::limits::JOURNAL_WRITE_BYTES_MAX;
use naust_wire::planted::{self, Bug};
use std::io::ErrorKind;
use std::sync::Arc;

/// Zeros to write from.
static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];
/// Longest write that [`Write::begin`] does ahead of those before it.
const BEGIN_BYTES_MAX: u64 = 16 * 1024;
/// Parts of one vectored write: well below what operating systems take at once.
const PARTS_MAX: usize = 512;

/// All that one disk thread needs to make staged frames, saved state and cuts durable. It owns its
/// bytes; the log's owner goes on meanwhile. It is to be run once, and what comes out goes back to
/// [`Log::written`](crate::Log::written).
#[must_use = "a write must be run and its outcome be told to the log"]
pub struct Write {
    pub(crate) shared: Arc<Shared>,
    pub(crate) superblock: Option<Superblock>,
    pub(crate) cut: Option<Cut>,
    pub(crate) pieces: Vec<Piece>,
    /// When its frames are synced.
    pub(crate) when: When,
    /// The segment in which frames of earlier writes lie that are not synced.
    pub(crate) owed: Option<Offset>,
    /// The only piece was written, or could not be.
    pub(crate) begun: Option<Result<Begun, Failure>>,
}

/// A piece that lies in its file and is not synced.
pub(crate) struct Begun {
    file: Arc<dyn File>,
    /// The file's name is yet to be synced.
    unnamed: bool,
    bytes: u64,
}

/// A suffix to be destroyed.
pub(crate) struct Cut {
    /// The log's new end, as the superblock before it says.
    pub at: Position,
    /// Up to where frames may have been written.
    pub dirty: Offset,
    /// Marks of what is left of the segment that is cut.
    pub marks: Vec<Mark>,
    /// The superblock that says that the cut is done.
    pub done: Superblock,
}

/// What goes to one segment.
pub(crate) struct Piece {
    pub base: Offset,
    pub before: Position,
    pub from: Offset,
    pub to: Offset,
    pub parts: Vec<chunk::Part>,
    /// Up to where to zero-fill behind `to`; `to` itself if there is room.
    pub fill_to: Offset,
    /// Marks of the frames in it.
    pub marks: Vec<Mark>,
    /// The whole segment, if this fills it.
    pub full: Option<Content>,
}

/// What a [`Write`] came to.
#[must_use = "the log must be told"]
#[derive(Debug)]
pub struct Written {
    pub(crate) outcome: Result<(), Failure>,
    bytes: u64,
    syncs: u32,
}

#[derive(Debug)]
pub(crate) enum Failure {
    /// No space for new log; the same write may be tried again.
    Full,
    /// Anything else; never to be tried again.
    Fault(Fault),
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Failure {
        Failure::Fault(fault)
    }
}

impl From<Unstored> for Failure {
    fn from(unstored: Unstored) -> Failure {
        match unstored {
            Unstored::Refused(fault) => full_or(fault),
            Unstored::Other(fault) => Failure::Fault(fault),
        }
    }
}

impl Written {
    /// It failed together with others.
    pub(crate) fn failed(fault: Fault) -> Written {
        Written { outcome: Err(Failure::Fault(fault)), bytes: 0, syncs: 0 }
    }

    /// Bytes written, zero-filling included.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Calls of `fdatasync` and of syncs of names.
    #[must_use]
    pub fn syncs(&self) -> u32 {
        self.syncs
    }

    /// There was no space for new log, or to save term, vote or a cut. Nothing is lost, and nothing
    /// was acted on: frames and what is to be saved stay, and
    /// [`Log::retry`](crate::Log::retry) lets the next write try again.
    #[must_use]
    pub fn disk_full(&self) -> bool {
        matches!(self.outcome, Err(Failure::Full))
    }
}

impl Write {
    /// Log bytes that this writes.
    #[must_use]
    pub fn log_bytes(&self) -> u64 {
        self.pieces.iter().map(|piece| piece.to.0 - piece.from.0).sum()
    }

    /// Writes without a sync what may be written so, if it is short: for who is about to run
    /// several of them, so that their bytes are on their way to the disk together. Nothing is
    /// durable before [`Write::run`], which tells what came of this too. Blocking.
    pub fn begin(&mut self) {
        self.put();
        self.hint();
    }

    /// Writes without a sync what may be written so, if it is short.
    pub(crate) fn put(&mut self) {
        let [piece] = &self.pieces[..] else { return };
        let is_plain = self.superblock.is_none() && self.cut.is_none() && self.begun.is_none();
        if is_plain && piece.fill_to.0 - piece.from.0 <= BEGIN_BYTES_MAX {
            self.begun = Some(piece.write(&self.shared));
        }
    }

    /// What was written so will be synced.
    pub(crate) fn hint(&self) {
        if self.when == When::Later {
            return;
        }
        if let ([piece], Some(Ok(Begun { file, .. }))) = (&self.pieces[..], &self.begun) {
            file.begin_sync(piece.from.0 - piece.base.0, piece.fill_to.0 - piece.from.0);
        }
    }

    /// Whether a [`Journal`](crate::Journal) may take it: some frames for space that is there,
    /// which are to be synced, and nothing before them.
    #[must_use]
    pub fn is_small(&self) -> bool {
        self.when == When::Now && self.owed.is_none() && self.is_short()
    }

    /// As [`Write::is_small`], but its frames may be synced later: then it waits for no disk,
    /// unless the system has it wait.
    #[must_use]
    pub fn is_brief(&self) -> bool {
        (self.when == When::Later || self.owed.is_none()) && self.is_short()
    }

    /// Whether its frames are written and synced later.
    #[must_use]
    pub fn leaves_unsynced(&self) -> bool {
        self.when == When::Later
    }

    fn is_short(&self) -> bool {
        let [piece] = &self.pieces[..] else { return false };
        let is_plain = self.superblock.is_none() && self.cut.is_none() && piece.full.is_none();
        is_plain && piece.fill_to == piece.to && self.log_bytes() <= JOURNAL_WRITE_BYTES_MAX
    }

    /// What a journal has to make durable of it: none, if it is not small, or lies in a file
    /// without a durable name, or was refused.
    pub(crate) fn part(&self) -> Option<Part<'_>> {
        let ([piece], Some(Ok(begun))) = (&self.pieces[..], &self.begun) else { return None };
        let shard = self.shared.disk.journaled()?.shard();
        let Piece { base, from, to, parts: bytes, .. } = piece;
        let (base, from, to) = (*base, *from, *to);
        let part = || Part { shard, base, from, to, bytes, file: &begun.file };
        (self.is_small() && !begun.unnamed).then(part)
    }

    /// A journal has made it durable.
    pub(crate) fn recorded(self, syncs: u32) -> Written {
        let bytes = self.log_bytes();
        self.pieces.into_iter().for_each(|piece| piece.publish(&self.shared));
        Written { outcome: Ok(()), bytes, syncs }
    }

    /// Does it. Blocking.
    pub fn run(mut self) -> Written {
        let mut tally = Tally { bytes: 0, syncs: 0 };
        let outcome = self.attempt(&mut tally);
        Written { outcome, bytes: tally.bytes, syncs: tally.syncs }
    }

    fn attempt(&mut self, tally: &mut Tally) -> Result<(), Failure> {
        if self.cut.is_some() {
            self.shared.settle()?;
        }
        // A piece, and a cut, would sync it, too; but there may be no room for what comes first.
        let owes = self.superblock.is_some() || (self.cut.is_none() && self.pieces.is_empty());
        if let Some(base) = self.owed.filter(|_| owes) {
            let file = self.shared.file(base, Open::Existing)?;
            sync(&*file, base, tally)?;
        }
        if let Some(superblock) = &self.superblock {
            superblock.store(&*self.shared.disk)?;
            tally.superblock();
        }
        if let Some(cut) = self.cut.take() {
            // It syncs what it leaves of the segment, too.
            cut.run(&self.shared, tally)?;
        }
        for piece in std::mem::take(&mut self.pieces) {
            let begun = self.begun.take().unwrap_or_else(|| piece.write(&self.shared))?;
            piece.finish(begun, self.when, &self.shared, tally)?;
        }
        Ok(())
    }
}

/// What was spent.
pub(crate) struct Tally {
    pub bytes: u64,
    pub syncs: u32,
}

impl Tally {
    fn superblock(&mut self) {
        self.bytes += Superblock::STORE_COST.0;
        self.syncs += Superblock::STORE_COST.1;
    }
}

impl Cut {
    /// For lack of space it is done again from its beginning, which is safe wherever it stopped.
    fn run(self, shared: &Shared, tally: &mut Tally) -> Result<(), Failure> {
        let layout = shared.layout;
        let base = layout.base(self.at.offset);
        let mut other = layout.end(self.at.offset);
        while other < self.dirty {
            let name = Layout::name(other);
            match shared.disk.remove(&name) {
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                removed => removed.map_err(Fault::at("remove", &name))?,
            }
            other = layout.end(other);
        }
        match shared.file(base, Open::Existing) {
            Err(fault) if fault.kind() == ErrorKind::NotFound => {}
            file => {
                truncate(&*file?, layout, self.at.offset)?;
                tally.syncs += 1;
            }
        }
        shared.disk.sync().map_err(Fault::at("sync names of", "the log"))?;
        tally.syncs += 1;
        self.publish(shared);
        self.done.store(&*shared.disk)?;
        tally.superblock();
        Ok(())
    }

    fn publish(&self, shared: &Shared) {
        let end = shared.layout.end(self.at.offset);
        let mut map = shared.map_mut();
        map.forget_from(end);
        let base = shared.layout.base(self.at.offset);
        map.forget(base);
        if self.at.offset == base {
            map.segments.remove(&base);
        } else if let Some(segment) = map.segments.get_mut(&base) {
            segment.seal = None;
            segment.marks.clone_from(&self.marks);
        }
    }
}
/// Takes all away that lies behind `at` in its segment's file, footer and zero-filled space
/// included, durably. Zeroing it would do as well, but could need space where the file has holes.
pub(crate) fn truncate(file: &dyn File, layout: Layout, at: Offset) -> Result<(), Fault> {
    let base = layout.base(at);
    let name = Layout::name(base);
    let length = file.len().map_err(Fault::at("measure", &name))?;
    if length > at.0 - base.0 {
        file.set_len(at.0 - base.0).map_err(Fault::at("cut", &name))?;
    }
    file.sync().map_err(Fault::at("sync", &name))
}

/// Writes zeros from `position` to `end`, both in bytes of the file.
pub(crate) fn zero(file: &dyn File, mut position: u64, end: u64) -> std::io::Result<()> {
    while position < end {
        let bytes = (end - position).min((ZEROS.len() * 16) as u64);
        file.write_at(position, &zeros(bytes))?;
        position += bytes;
    }
    Ok(())
}

/// `bytes` zeros, in parts.
fn zeros(bytes: u64) -> Vec<&'static [u8]> {
    let bytes = usize::try_from(bytes).expect("less than a segment");
    let mut parts = vec![&ZEROS[..]; bytes / ZEROS.len()];
    parts.push(&ZEROS[..bytes % ZEROS.len()]);
    parts
}

/// A write that is refused for lack of space has spoilt nothing and may be tried again: it was to
/// new space, or to a file system that writes everything to new space. A sync is another matter.
pub(crate) fn full_or(fault: Fault) -> Failure {
    if fault.is_full() { Failure::Full } else { Failure::Fault(fault) }
}

/// Syncs the file of the segment at `base`.
fn sync(file: &dyn File, base: Offset, tally: &mut Tally) -> Result<(), Fault> {
    let synced = if planted::has(Bug::AckBeforeSync) { Ok(()) } else { file.sync() };
    let synced = if planted::has(Bug::IgnoreFailedSync) { Ok(()) } else { synced };
    synced.map_err(Fault::at("sync", &Layout::name(base)))?;
    tally.syncs += 1;
    Ok(())
}

impl Piece {
    fn write(&self, shared: &Shared) -> Result<Begun, Failure> {
        let name = Layout::name(self.base);
        let (file, unnamed) = shared.file_to_write(self.base).map_err(full_or)?;
        let mut parts: Vec<&[u8]> = self.parts.iter().map(chunk::Part::bytes).collect();
        parts.extend(zeros(self.fill_to.0 - self.to.0));
        let mut at = self.from.0 - self.base.0;
        for some in parts.chunks(PARTS_MAX) {
            file.write_at(at, some).map_err(Fault::at("write", &name)).map_err(full_or)?;
            at += some.iter().map(|part| part.len() as u64).sum::<u64>();
        }
        let mut bytes = self.fill_to.0 - self.from.0;
        if let Some(content) = &self.full {
            let footer = content.footer();
            bytes += footer.len() as u64;
            let written = file.write_at(shared.layout.segment_bytes(), &[&footer]);
            written.map_err(Fault::at("write the footer of", &name)).map_err(full_or)?;
        }
        Ok(Begun { file, unnamed, bytes })
    }

    fn finish(
        self,
        begun: Begun,
        when: When,
        shared: &Shared,
        tally: &mut Tally,
    ) -> Result<(), Failure> {
        let Begun { file, unnamed, bytes } = begun;
        tally.bytes += bytes;
        if when == When::Now {
            sync(&*file, self.base, tally)?;
        }
        // Whoever syncs its frames later syncs no name.
        if unnamed && !planted::has(Bug::ForgetNames) {
            shared.sync_name(self.base)?;
            tally.syncs += 1;
        }
        self.publish(shared);
        Ok(())
    }

    /// Lets readers find what is durable now.
    fn publish(self, shared: &Shared) {
        if self.marks.is_empty() && self.full.is_none() && shared.has_segment(self.base) {
            return;
        }
        let mut map = shared.map_mut();
        map.named.remove(&self.base);
        let segment = map.segments.entry(self.base).or_insert_with(|| Segment {
            before: self.before,
            seal: None,
            marks: Vec::new(),
            ranges: None,
            live_bytes: u64::MAX,
        });
        if let Some(content) = &self.full {
            *segment = Segment::of(content);
            return;
        }
        segment.marks.retain(|mark| mark.offset < self.from);
        segment.marks.extend(self.marks);
    }
}
