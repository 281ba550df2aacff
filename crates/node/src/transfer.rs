//! A whole replica on its way to another node: what is blocking of it.
//!
//! The files of log and tables are copied as they lie on the sender's disk, part by part, in any
//! number of tries; the receiver puts them beside what it has, and only when all are there does it
//! take them in its place. See `shard::transfer` for who says what when.

use crate::answer::Readers;
use naust_consensus::HardState;
use naust_log::layout::Position;
use naust_log::{Adoption, Depth, Disk, Export as LogExport, Identity, Layout, Survey};
use naust_machine::{TablesExport, TablesReader};
use naust_wire::limits::TRANSFER_PART_BYTES;
use naust_wire::peer::Contents;
use naust_wire::{Index, NodeId, ShardId};
use std::sync::Arc;

pub use crate::shard::Import;

/// Names of files of the log and of the tables begin with these.
pub const LOG: &str = "log/";
/// See [`LOG`].
pub const TABLES: &str = "tables/";

/// A replica that is being copied: it stays as it is while this is held, as long as its log is not
/// trimmed.
pub struct Export<R: TablesReader> {
    log: LogExport,
    tables: R::Export,
    log_files: usize,
}

/// What to copy.
#[derive(Clone, Debug)]
pub struct Begin {
    /// Tells the transfer from others.
    pub number: u64,
    /// The last frame that is committed, and that the log is to have at the least.
    pub(crate) last: Index,
    /// Where the log begins, and with which configuration.
    pub(crate) start: Position,
    pub(crate) initial: Vec<u8>,
}

/// A part of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Of which transfer.
    pub number: u64,
    /// To whom.
    pub to: NodeId,
    /// Which file, and where in it.
    pub file: u32,
    /// See `file`.
    pub at: u64,
}

/// A replica that was copied is to take the place of the one that is there.
#[derive(Clone, Debug)]
pub struct Adopt {
    /// What was copied.
    pub contents: Contents,
    /// The term and vote of this replica, which must not be forgotten.
    pub hard: HardState,
}

impl<R: TablesReader> Export<R> {
    /// Takes hold of the files of a replica. Blocking.
    ///
    /// # Errors
    /// A sentence: of the disk, or damage.
    pub fn begin(
        begin: &Begin,
        readers: &Readers<R>,
    ) -> Result<(Export<R>, Contents), Box<dyn std::error::Error + Send + Sync>> {
        let tables = readers.tables.export()?;
        // What is folded in is committed; tables are never ahead of the log beside them.
        let last = begin.last.max(tables.mark().index);
        let log = readers.log.export(last)?;
        let (first, Position { index, term, .. }) = (begin.start, log.last());
        let mut files = log.files();
        let log_files = files.len();
        files.iter_mut().for_each(|(name, _)| name.insert_str(0, LOG));
        files.extend(
            tables.files().into_iter().map(|(name, bytes)| (TABLES.to_owned() + &name, bytes)),
        );
        let contents = Contents {
            transfer: begin.number,
            files,
            start: (first.offset, first.index, first.term, first.crc, first.time),
            last: (index, term),
            initial: begin.initial.clone(),
            segment_bytes: log.segment_bytes(),
            answers: 0,
        };
        Ok((Export { log, tables, log_files }, contents))
    }

    /// Reads a part. Blocking. `None`: it can't be read any more.
    #[must_use]
    pub fn read(&self, part: &Part) -> Option<Vec<u8>> {
        let file = part.file as usize;
        match file.checked_sub(self.log_files) {
            None => self.log.read(file, part.at, TRANSFER_PART_BYTES).ok(),
            Some(file) => self.tables.read(file, part.at, TRANSFER_PART_BYTES).ok(),
        }
    }
}

impl Adopt {
    /// Makes the files of the log that were copied into `disk` a log of this node, and looks at all
    /// of it: what rotted where it was copied from must not come along, since the replica that is
    /// there is better. Blocking.
    ///
    /// # Errors
    /// A sentence: of the disk, or damage.
    pub fn log(
        &self,
        disk: Arc<dyn Disk>,
        shard: ShardId,
        node: NodeId,
        cluster: u64,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let (offset, index, term, crc, time) = self.contents.start;
        let layout = Layout::new(self.contents.segment_bytes).ok_or_else(|| {
            let what = std::io::Error::from(std::io::ErrorKind::InvalidData);
            naust_log::Fault::of("use the segments of", "a copied log", what)
        })?;
        // A replica that was closed may not have heard of the newest terms in what it gets: as if
        // it heard of them now, and voted for nobody in them.
        let hard = match self.contents.last.1 {
            newer if newer > self.hard.term => HardState { term: newer, vote: NodeId(0) },
            _ => self.hard,
        };
        let adoption = Adoption {
            identity: Identity { node, shard, cluster },
            hard: naust_log::HardState { term: hard.term, vote: hard.vote },
            start: Position { offset, index, term, crc, time },
            configuration: self.contents.initial.clone(),
            layout,
        };
        adoption.run(&*disk)?;
        let survey = Survey::new(disk, Depth::Whole)?;
        if let Some(damage) = survey.damage.first() {
            return Err(format!("the log that was copied is damaged: {damage}").into());
        }
        if survey.torn.is_some() || survey.end.index != self.contents.last.0 {
            return Err("the log that was copied is cut short".into());
        }
        Ok(())
    }
}
