//! The manifest: one small file that names what of a shard's tables is on disk, replaced whole.
//!
//! It is written to a file beside it, synced and renamed over the old one, so there is always one
//! whole manifest, and everything it says became true at one moment: the tables and marks of a
//! flush's trees change together.
//!
//! ```text
//! magic "NAUSTTBL" · version u16 · next table u64 · trees u32 ·
//!   tree*:  id u32 · compaction u8 · compression u8 · max bytes u64 · max age ms u64 ·
//!           mark (applied, next, index, term, time: u64 each) · runs u32 ·
//!     run*:   level u8 · tables u32 ·
//!       table*: id u64 · bytes u64 · rows u64 · oldest u64 · newest u64 · checksum u128
//! crc-32c u32 of everything before; all little-endian
//! ```

use crate::fault;
use crate::table::TableRecord;
use naust_machine::{Fault, Mark};
use naust_wire::options::{Compaction, Compression, KeyspaceOptions};
use naust_wire::{Index, LogTime, Offset, Term};
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::Path;

/// The manifest's file.
pub(crate) const FILE: &str = "manifest";
/// What is written before it takes the manifest's place.
pub(crate) const FILE_NEXT: &str = "manifest.next";

const MAGIC: &[u8; 8] = b"NAUSTTBL";
const VERSION: u16 = 1;

/// What is on disk of one shard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Manifest {
    /// The number of the next table.
    pub next_table: u64,
    /// All trees, in order of their ids.
    pub trees: Vec<TreeRecord>,
}

/// What is on disk of one tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TreeRecord {
    /// Its id.
    pub id: u32,
    /// Its options.
    pub options: KeyspaceOptions,
    /// The last frame that is in its tables.
    pub mark: Mark,
    /// Its runs, newest first: level and tables in key order.
    pub runs: Vec<(u8, Vec<TableRecord>)>,
}

impl Manifest {
    /// Reads the manifest of a directory; `None`: there is none.
    pub fn read(directory: &Path) -> Result<Option<Manifest>, Fault> {
        let path = directory.join(FILE);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(fault::io("reading", &path, &error)),
        };
        let decoded = decode(&bytes);
        decoded.map(Some).map_err(|how| fault::damaged("reading", &path, how))
    }

    /// Puts this manifest in the place of the directory's, durably. `Ok(Err(..))`: it did not take
    /// its place; the old one stands. `Err(..)`: it may or may not have.
    pub fn write(&self, directory: &Path) -> Result<Result<(), Fault>, Fault> {
        let (next, path) = (directory.join(FILE_NEXT), directory.join(FILE));
        let written = File::create(&next).and_then(|mut file| {
            file.write_all(&encode(self))?;
            file.sync_all()
        });
        if let Err(error) = written.and_then(|()| fs::rename(&next, &path)) {
            return Ok(Err(fault::io("writing", &path, &error)));
        }
        match File::open(directory).and_then(|directory| directory.sync_all()) {
            Ok(()) => Ok(Ok(())),
            Err(error) => {
                let fault = fault::io("syncing", directory, &error);
                Err(Fault { disk_full: false, ..fault })
            }
        }
    }
}

/// The bytes of a manifest's file.
pub(crate) fn encode(manifest: &Manifest) -> Vec<u8> {
    let mut out = Vec::with_capacity(1024);
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&VERSION.to_le_bytes());
    out.extend_from_slice(&manifest.next_table.to_le_bytes());
    out.extend_from_slice(&(manifest.trees.len() as u32).to_le_bytes());
    for tree in &manifest.trees {
        encode_tree(&mut out, tree);
    }
    let sum = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, &out) as u32;
    out.extend_from_slice(&sum.to_le_bytes());
    out
}

fn encode_tree(out: &mut Vec<u8>, tree: &TreeRecord) {
    out.extend_from_slice(&tree.id.to_le_bytes());
    out.push(match tree.options.compaction {
        Compaction::Levelled => 0,
        Compaction::WriteOptimised => 1,
        Compaction::Fifo => 2,
    });
    out.push(match tree.options.compression {
        Compression::None => 0,
        Compression::Lz4 => 1,
    });
    let Mark { applied, next, index, term, time } = tree.mark;
    let options = [tree.options.max_bytes, tree.options.max_age_ms];
    for number in options.into_iter().chain([applied.0, next.0, index.0, term.0, time.0]) {
        out.extend_from_slice(&number.to_le_bytes());
    }
    out.extend_from_slice(&(tree.runs.len() as u32).to_le_bytes());
    for (level, tables) in &tree.runs {
        out.push(*level);
        out.extend_from_slice(&(tables.len() as u32).to_le_bytes());
        for table in tables {
            for number in [table.id, table.bytes, table.rows, table.oldest, table.newest] {
                out.extend_from_slice(&number.to_le_bytes());
            }
            out.extend_from_slice(&table.checksum.to_le_bytes());
        }
    }
}

fn decode(bytes: &[u8]) -> Result<Manifest, &'static str> {
    let (body, sum) = bytes.split_last_chunk::<4>().ok_or("it is too short")?;
    let mut fields = Fields(body);
    if fields.take::<8>()? != *MAGIC {
        return Err("it is no manifest of tables");
    }
    if fields.u16()? != VERSION {
        return Err("it was written by another version of this program");
    }
    if crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, body) as u32
        != u32::from_le_bytes(*sum)
    {
        return Err("its bytes do not match their checksum");
    }
    let next_table = fields.u64()?;
    let mut trees = Vec::new();
    for _ in 0..fields.u32()? {
        trees.push(decode_tree(&mut fields)?);
    }
    if !fields.0.is_empty() {
        return Err("it is too long");
    }
    Ok(Manifest { next_table, trees })
}

fn decode_tree(fields: &mut Fields<'_>) -> Result<TreeRecord, &'static str> {
    let id = fields.u32()?;
    let options = KeyspaceOptions {
        compaction: match fields.u8()? {
            0 => Compaction::Levelled,
            1 => Compaction::WriteOptimised,
            2 => Compaction::Fifo,
            _ => return Err("it names an unknown compaction"),
        },
        compression: match fields.u8()? {
            0 => Compression::None,
            1 => Compression::Lz4,
            _ => return Err("it names an unknown compression"),
        },
        max_bytes: fields.u64()?,
        max_age_ms: fields.u64()?,
    };
    let mark = Mark {
        applied: Offset(fields.u64()?),
        next: Offset(fields.u64()?),
        index: Index(fields.u64()?),
        term: Term(fields.u64()?),
        time: LogTime(fields.u64()?),
    };
    let mut runs = Vec::new();
    for _ in 0..fields.u32()? {
        let level = fields.u8()?;
        let mut tables = Vec::new();
        for _ in 0..fields.u32()? {
            tables.push(decode_table(fields)?);
        }
        if tables.is_empty() {
            return Err("it names an empty run");
        }
        runs.push((level, tables));
    }
    Ok(TreeRecord { id, options, mark, runs })
}

fn decode_table(fields: &mut Fields<'_>) -> Result<TableRecord, &'static str> {
    Ok(TableRecord {
        id: fields.u64()?,
        bytes: fields.u64()?,
        rows: fields.u64()?,
        oldest: fields.u64()?,
        newest: fields.u64()?,
        checksum: u128::from_le_bytes(fields.take()?),
    })
}

struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], &'static str> {
        let (field, rest) = self.0.split_first_chunk::<N>().ok_or("it is cut short")?;
        self.0 = rest;
        Ok(*field)
    }

    fn u8(&mut self) -> Result<u8, &'static str> {
        self.take().map(u8::from_le_bytes)
    }

    fn u16(&mut self) -> Result<u16, &'static str> {
        self.take().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Result<u32, &'static str> {
        self.take().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, &'static str> {
        self.take().map(u64::from_le_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::{Manifest, TreeRecord, decode, encode};
    use crate::table::TableRecord;
    use naust_machine::Mark;
    use naust_wire::options::{Compaction, KeyspaceOptions};
    use naust_wire::{Index, LogTime, Offset, Term};

    fn example() -> Manifest {
        let table = |id| TableRecord {
            id,
            bytes: 4096 + id,
            rows: 17,
            oldest: 1 << 32,
            newest: (1 << 32) + 5,
            checksum: u128::MAX / 3,
        };
        let tree = |id, runs| TreeRecord {
            id,
            options: KeyspaceOptions {
                compaction: Compaction::WriteOptimised,
                max_age_ms: 5,
                ..KeyspaceOptions::default()
            },
            mark: Mark {
                applied: Offset(1 << 33),
                next: Offset((1 << 33) + 64),
                index: Index(3),
                term: Term(2),
                time: LogTime(77),
            },
            runs,
        };
        let runs = vec![(0, vec![table(4)]), (1, vec![table(2), table(3)])];
        Manifest { next_table: 9, trees: vec![tree(0, runs), tree(7, vec![])] }
    }

    #[test]
    fn what_is_written_is_read() {
        assert_eq!(decode(&encode(&example())), Ok(example()));
        assert_eq!(decode(&encode(&Manifest::default())), Ok(Manifest::default()));
    }

    #[test]
    fn no_damage_passes() {
        let whole = encode(&example());
        for length in 0..whole.len() {
            assert!(decode(&whole[..length]).is_err(), "cut to {length} bytes");
        }
        for bit in 0..whole.len() * 8 {
            let mut damaged = whole.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&damaged).is_err(), "bit {bit} turned");
        }
    }

    #[test]
    fn a_newer_version_is_named_as_such() {
        let mut newer = encode(&example());
        newer[8] = 9;
        assert_eq!(decode(&newer), Err("it was written by another version of this program"));
    }
}
