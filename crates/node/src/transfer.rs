//! A whole replica on its way to another node: what is blocking of it.
//!
//! The files of log and tables are copied as they lie on the sender's disk, part by part, in any
//! number of tries; the receiver puts them beside what it has, and only when all are there does it
//! take them in its place. See `shard::transfer` for who says what when.
//!
//! What an earlier transfer left is not copied again: the receiver asks for the [`digest`] of each
//! file that it has by name and length, and leaves out those that are the same.

use crate::answer::Readers;
use naust_consensus::HardState;
use naust_log::layout::Position;
use naust_log::{Adoption, Depth, Disk, Export as LogExport, Identity, Layout, Survey};
use naust_machine::{TablesExport, TablesReader};
use naust_wire::frame;
use naust_wire::limits::{FRAME_HEADER_BYTES, TRANSFER_FILE_BYTES_MAX, TRANSFER_PART_BYTES};
use naust_wire::packet;
use naust_wire::peer::Contents;
use naust_wire::{Index, NodeId, ShardId};
use std::ops::Range;
use std::sync::Arc;

pub use crate::shard::Import;

/// Names of files of the log and of the tables begin with these.
pub const LOG: &str = "log/";
/// See [`LOG`].
pub const TABLES: &str = "tables/";

/// Where the field lies in a frame that tells of one disk only.
const SYNCED: Range<usize> = 48..56;

/// As the place in a file, behind all that there can be: its [`digest`] is asked for.
pub const DIGEST_AT: u64 = TRANSFER_FILE_BYTES_MAX;

/// A replica that is being copied: it stays as it is while this is held, as long as its log is not
/// trimmed.
pub struct Export<R: TablesReader> {
    log: LogExport,
    tables: R::Export,
    log_files: usize,
    files: Vec<(String, u64)>,
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
            files: files.clone(),
            start: (first.offset, first.index, first.term, first.crc, first.time),
            last: (index, term),
            initial: begin.initial.clone(),
            segment_bytes: log.segment_bytes(),
            answers: 0,
        };
        Ok((Export { log, tables, log_files, files }, contents))
    }

    /// Reads a part. Blocking. `None`: it can't be read any more.
    #[must_use]
    pub fn read(&self, part: &Part) -> Option<Vec<u8>> {
        let file = part.file as usize;
        if part.at == DIGEST_AT {
            let (name, bytes) = self.files.get(file)?;
            return digest(name, *bytes, |at| self.read_at(file, at).ok_or(())).ok();
        }
        self.read_at(file, part.at)
    }

    fn read_at(&self, file: usize, at: u64) -> Option<Vec<u8>> {
        match file.checked_sub(self.log_files) {
            None => self.log.read(file, at, TRANSFER_PART_BYTES).ok(),
            Some(file) => self.tables.read(file, at, TRANSFER_PART_BYTES).ok(),
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

/// What tells a file of a replica from all others of its name and length, as far as replicas are
/// to have the same: the field of a frame is left out that tells of one disk only. `read` gives
/// [`TRANSFER_PART_BYTES`] from a place on, fewer at the end.
///
/// # Errors
/// What `read` failed with.
pub fn digest<E>(
    name: &str,
    bytes: u64,
    mut read: impl FnMut(u64) -> Result<Vec<u8>, E>,
) -> Result<Vec<u8>, E> {
    let mut digest = Digest::default();
    let mut rest = Vec::new();
    // What is left of a frame's body; in a log, until something follows that is no frame.
    let mut body = if name.starts_with(LOG) { 0 } else { u64::MAX };
    let mut at = 0;
    while at < bytes {
        let part = read(at)?;
        if part.is_empty() {
            break;
        }
        at += part.len() as u64;
        rest.extend_from_slice(&part);
        let mut taken = 0;
        while taken < rest.len() {
            let left = &rest[taken..];
            if body > 0 {
                let most = usize::try_from(body).unwrap_or(usize::MAX).min(left.len());
                digest.take(&left[..most]);
                (taken, body) = (taken + most, body - most as u64);
                continue;
            }
            if left.len() < FRAME_HEADER_BYTES && at < bytes {
                break;
            }
            body = match (frame::peek(left), left.first_chunk::<FRAME_HEADER_BYTES>()) {
                (Ok((header, _)), Some(head)) => {
                    let mut head = *head;
                    head[SYNCED].fill(0);
                    digest.take(&head);
                    taken += FRAME_HEADER_BYTES;
                    header.frame_bytes() - FRAME_HEADER_BYTES as u64
                }
                _ => u64::MAX,
            };
        }
        rest.drain(..taken);
    }
    Ok(digest.end())
}

/// A checksum, and a hash beside it: two files that differ are never taken for the same.
#[derive(Default)]
struct Digest {
    hash: u64,
    crc: u32,
}

impl Digest {
    fn take(&mut self, bytes: &[u8]) {
        let mut mix = |word: u64| {
            self.hash = (self.hash.rotate_left(23) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        };
        let (words, rest) = bytes.as_chunks::<8>();
        words.iter().for_each(|word| mix(u64::from_le_bytes(*word)));
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        mix(u64::from_le_bytes(last));
        mix(bytes.len() as u64);
        self.crc = packet::crc32c(&[&self.crc.to_le_bytes(), bytes]);
    }

    fn end(&self) -> Vec<u8> {
        [&self.hash.to_le_bytes()[..], &self.crc.to_le_bytes()].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(name: &str, file: &[u8]) -> Vec<u8> {
        let parts = |at: u64| {
            let at = at as usize;
            let end = (at + TRANSFER_PART_BYTES).min(file.len());
            Ok::<_, ()>(file[at..end].to_vec())
        };
        digest(name, file.len() as u64, parts).expect("it is in memory")
    }

    #[test]
    fn digests_tell_every_bit_but_those_of_one_disk() {
        let mut file = Vec::new();
        let mut header = frame::Header {
            kind: frame::Kind::Commit,
            body_bytes: 0,
            crc_before: 0,
            term: naust_wire::Term(1),
            index: Index(1),
            offset: naust_wire::Offset::FIRST,
            time: naust_wire::LogTime(7),
            synced: naust_wire::Offset::ZERO,
        };
        for body in [700_000, 3, 900_000, 0] {
            header.body_bytes = body as u32;
            header.write(&vec![body as u8; body], &mut file);
        }
        file.extend_from_slice(&[9; 5000]);
        let whole = of("log/1.log", &file);
        let second = frame::frame_bytes(700_000);
        for bit in [0, 40 * 8, 56 * 8, 700_000 * 8, (second + 8) * 8, (file.len() - 1) * 8] {
            let mut other = file.clone();
            other[bit / 8] ^= 1;
            assert_ne!(of("log/1.log", &other), whole, "bit {bit}");
            assert_ne!(of("tables/1", &other), of("tables/1", &file), "bit {bit}");
        }
        for at in [SYNCED.start, second + SYNCED.start] {
            let mut other = file.clone();
            other[at] ^= 1;
            assert_eq!(of("log/1.log", &other), whole);
            assert_ne!(of("tables/1", &other), of("tables/1", &file));
        }
        assert_ne!(of("log/1.log", &file[..file.len() - 1]), whole);
    }
}
