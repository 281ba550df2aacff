//! A log as files, on its way to another replica.
//!
//! What a replica's disk holds of a log up to a committed frame is what any other may hold: the
//! same frames at the same offsets. So the files are copied as they are, and only the superblock
//! is made anew, for its own node. While an [`Export`] is read, nothing is to be trimmed.

use crate::Fault;
use crate::disk::{Disk, Open};
use crate::layout::{Layout, Position};
use crate::reader::{ReadError, Reader};
use crate::shared::Shared;
use crate::superblock::{self, HardState, Identity, Superblock};
use naust_wire::{Index, Offset};
use std::sync::Arc;

/// The files of a log up to one frame.
pub struct Export {
    shared: Arc<Shared>,
    /// Where each segment begins, and how many bytes of its file belong to it.
    segments: Vec<(Offset, u64)>,
    last: Position,
}

impl Reader {
    /// The log's files up to the frame `last`, which is committed.
    ///
    /// # Errors
    /// [`ReadError`]: there is no such frame.
    pub fn export(&self, last: Index) -> Result<Export, ReadError> {
        let last = self.position(last)?;
        let shared = Arc::clone(self.shared());
        let known = shared.map().segments.clone();
        let mut segments = Vec::new();
        for (base, segment) in known.range(..last.offset) {
            let bytes = match segment.seal {
                Some(seal) if seal.offset <= last.offset => {
                    let name = Layout::name(*base);
                    let file = shared.file(*base, Open::Existing)?;
                    file.len().map_err(Fault::at("look at", &name))?
                }
                _ => last.offset.0 - base.0,
            };
            segments.push((*base, bytes));
        }
        Ok(Export { shared, segments, last })
    }
}

impl Export {
    /// The end of the last frame in it.
    #[must_use]
    pub fn last(&self) -> Position {
        self.last
    }

    /// Log bytes of a segment.
    #[must_use]
    pub fn segment_bytes(&self) -> u64 {
        self.shared.layout.segment_bytes()
    }

    /// Names of the files, and how many bytes of each are meant.
    #[must_use]
    pub fn files(&self) -> Vec<(String, u64)> {
        self.segments.iter().map(|(base, bytes)| (Layout::name(*base), *bytes)).collect()
    }

    /// At most `bytes` bytes of a file from `at` on. Blocking.
    ///
    /// # Errors
    /// Of the disk; also if the file is shorter than it was.
    pub fn read(&self, file: usize, at: u64, bytes: usize) -> Result<Vec<u8>, Fault> {
        let (base, length) = self.segments[file];
        let name = Layout::name(base);
        let left = usize::try_from(length.saturating_sub(at)).unwrap_or(usize::MAX);
        let mut into = vec![0; bytes.min(left)];
        let file = self.shared.file(base, Open::Existing)?;
        let read = file.read_at(at, &mut into).map_err(Fault::at("read", &name))?;
        if read < into.len() {
            let short = std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
            return Err(Fault::at("read", &name)(short));
        }
        Ok(into)
    }
}

/// Bytes of the blocks that a hole is made of.
const BLOCK_BYTES: u64 = 4096;

/// The pieces of a file's bytes, which lie at `at`, that have to be written; between them, and
/// behind the last one up to the file's length, only whole blocks of zeros are missing. A sparse
/// segment that is copied so takes no more space than the one that it was copied from.
pub fn filled(at: u64, bytes: &[u8]) -> impl Iterator<Item = (u64, &[u8])> {
    let head = (BLOCK_BYTES - at % BLOCK_BYTES).min(bytes.len() as u64) as usize;
    let (head, rest) = bytes.split_at(head);
    let blocks = std::iter::once(head).chain(rest.chunks(BLOCK_BYTES as usize));
    let places = blocks.scan(at, |next, block| {
        let from = *next;
        *next += block.len() as u64;
        Some((from, block))
    });
    places.filter(|(_, block)| block.iter().any(|byte| *byte != 0))
}

/// What a log is given that was copied from another replica's disk.
#[derive(Clone, Debug)]
pub struct Adoption {
    /// Whose it is now.
    pub identity: Identity,
    /// The term and vote of this replica.
    pub hard: HardState,
    /// Where it begins.
    pub start: Position,
    /// The initial membership.
    pub configuration: Vec<u8>,
    /// Where its segments end.
    pub layout: Layout,
}

impl Adoption {
    /// Makes the segments that were copied into `disk`, all of them and nothing else, a log:
    /// durably, and with the last step. [`Log::open`](crate::Log::open) checks its end.
    ///
    /// # Errors
    /// Of the disk; `AlreadyExists` if it is a log already.
    pub fn run(&self, disk: &dyn Disk) -> Result<(), Fault> {
        let names = disk.list().map_err(Fault::at("list", "the directory of the log"))?;
        if names.iter().any(|name| name == superblock::NAME) {
            let taken = std::io::Error::from(std::io::ErrorKind::AlreadyExists);
            return Err(Fault::at("create", superblock::NAME)(taken));
        }
        for name in names.iter().filter(|name| self.layout.base_in_name(name).is_some()) {
            let file = disk.open(name, Open::Existing).map_err(Fault::at("open", name))?;
            file.sync().map_err(Fault::at("sync", name))?;
        }
        disk.sync().map_err(Fault::at("sync", "the directory of the log"))?;
        let superblock = Superblock {
            sequence: 1,
            identity: self.identity,
            layout: self.layout,
            hard: self.hard,
            start: self.start,
            generation: 0,
            cut: Offset::ZERO,
            configuration: self.configuration.as_slice().into(),
        };
        superblock.put(disk)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Log;
    use crate::sim::SimDisk;
    use naust_wire::frame::Kind;
    use naust_wire::{LogTime, NodeId, ShardId, Term};

    #[test]
    fn blocks_of_zeros_are_not_written() {
        let mut bytes = vec![0; 20_000];
        bytes[3] = 1;
        bytes[9_000] = 2;
        let pieces: Vec<(u64, usize)> =
            filled(4_000, &bytes).map(|(at, piece)| (at, piece.len())).collect();
        assert_eq!(pieces, [(4_000, 96), (12_288, 4_096)]);
        assert_eq!(filled(0, &[0; 9_000]).count(), 0);
        assert_eq!(filled(4_095, &[]).count(), 0);
        let ends: Vec<(u64, &[u8])> = filled(8_191, &[7, 8]).collect();
        assert_eq!(ends, [(8_191, &[7][..]), (8_192, &[8][..])]);
    }

    fn identity(node: u64) -> Identity {
        Identity { node: NodeId(node), shard: ShardId(3), cluster: 5 }
    }

    fn write(log: &mut Log) {
        while let Some(write) = log.next_write() {
            log.written(write.run()).unwrap();
            if let Some(extend) = log.extend() {
                log.extended(extend.run()).unwrap();
            }
        }
    }

    #[test]
    fn a_copy_is_the_same_log_for_another_node_and_goes_on() {
        let disk = SimDisk::new();
        let layout = Layout::new(64 * 1024).unwrap();
        Log::create_with(&disk, identity(1), b"who", layout).unwrap();
        let (mut log, _) = Log::open(Arc::new(disk.clone()), ShardId(3)).unwrap();
        for index in 1..=500u64 {
            let body = vec![index as u8; 900];
            log.stage(Kind::Commit, Term(1 + index / 200), Index(index), LogTime(index), &body);
            write(&mut log);
        }
        log.save(HardState { term: Term(3), vote: NodeId(1) });
        write(&mut log);
        for last in [1u64, 63, 64, 199, 200, 499] {
            let export = log.reader().export(Index(last)).unwrap();
            let copy = SimDisk::new();
            for (file, (name, bytes)) in export.files().into_iter().enumerate() {
                let to = copy.open(&name, Open::Create).unwrap();
                let mut at = 0;
                while at < bytes {
                    let part = export.read(file, at, 10_000).unwrap();
                    to.write_at(at, &[&part]).unwrap();
                    at += part.len() as u64;
                }
            }
            let hard = HardState { term: Term(9), vote: NodeId(4) };
            let (start, configuration) = (log.start(), b"who".to_vec());
            let adoption = Adoption { identity: identity(2), hard, start, configuration, layout };
            adoption.run(&copy).unwrap();
            let (mut copied, _) = Log::open(Arc::new(copy.crash(7)), ShardId(3)).unwrap();
            assert_eq!(copied.end(), log.reader().position(Index(last)).unwrap());
            assert_eq!(copied.hard_state(), hard);
            assert_eq!(copied.identity(), identity(2));
            let from = copied.end().offset;
            let rest = log.reader().frames(from, log.end().offset, 1 << 20).unwrap();
            copied.stage_frames(rest.bytes()).unwrap();
            write(&mut copied);
            assert_eq!(copied.end().offset, rest.end());
        }
    }
}
