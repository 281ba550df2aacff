//! The superblock: what a shard's replica must never forget and can't read out of its frames.
//!
//! ```text
//!  file `superblock`:  slot 0 at 0, slot 1 at 4096
//!
//!  0        8         12      16     20        24
//!  +--------+---------+-------+------+---------+------------------------------------ - -
//!  |magic   |version  |bytes  | crc  |reserved | sequence, identity, term, vote, start …
//!  +--------+---------+-------+------+---------+------------------------------------ - -
//! ```
//! All integers are little-endian. The CRC-32C covers `bytes` bytes but for itself. The first 24
//! bytes keep their meaning in every version, so that an older release can tell a newer format from
//! rot.
//!
//! An update writes and syncs one slot, then the other, and only then is acted on. So what was
//! acted on stands in both slots, either slot alone is enough, and a rotten one can't bring back an
//! older vote.

use crate::disk::{Disk, File, Open};
use crate::layout::{Layout, Position};
use crate::{Fault, OpenError};
use naust_wire::packet::crc32c;
use naust_wire::{Index, LogTime, NodeId, Offset, ShardId, Term};
use std::sync::Arc;

/// Format version that this release writes. Any change of a stored format of this crate, frames
/// included, raises it.
pub const FORMAT: u32 = 1;
/// Name of the file.
pub(crate) const NAME: &str = "superblock";
/// Name under which it is made.
const NAME_NEW: &str = "superblock.new";
const MAGIC: [u8; 8] = *b"NaustLog";
/// Distance of the slots: one page, so that a torn page harms one of them only.
const SLOT_BYTES: usize = 4096;
const PREFIX_BYTES: usize = 24;
const FIXED_BYTES: usize = PREFIX_BYTES + 14 * 8;
/// Longest initial configuration, in bytes.
pub const CONFIGURATION_BYTES_MAX: usize = SLOT_BYTES - FIXED_BYTES;

/// Whose log it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The node that made it.
    pub node: NodeId,
    /// The shard that it is the log of.
    pub shard: ShardId,
    /// The cluster that both belong to.
    pub cluster: u64,
}

/// What Raft must not forget.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct HardState {
    /// The current term.
    pub term: Term,
    /// Who got this replica's vote in it; zero: nobody.
    pub vote: NodeId,
}

/// Why a superblock is not stored.
pub(crate) enum Unstored {
    /// A slot was not written, or in part; the other one is good. If that was for lack of space it
    /// may be tried again: the bad slot comes first then.
    Refused(Fault),
    /// Anything else; a sync, for one.
    Other(Fault),
}

impl From<Fault> for Unstored {
    fn from(fault: Fault) -> Unstored {
        Unstored::Other(fault)
    }
}

impl From<Unstored> for Fault {
    fn from(unstored: Unstored) -> Fault {
        match unstored {
            Unstored::Refused(fault) | Unstored::Other(fault) => fault,
        }
    }
}

/// The content of a slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Superblock {
    /// Counts updates; the slot with the higher number wins.
    pub sequence: u64,
    pub identity: Identity,
    pub layout: Layout,
    pub hard: HardState,
    /// Before which nothing needs to be contiguous any more.
    pub start: Position,
    /// Room in the format; zero.
    pub generation: u64,
    /// A suffix cut that is under way from here on; zero: none.
    pub cut: Offset,
    pub configuration: Arc<[u8]>,
}

impl Superblock {
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(FIXED_BYTES + self.configuration.len());
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&FORMAT.to_le_bytes());
        let bytes = u32::try_from(FIXED_BYTES + self.configuration.len()).expect("fits a slot");
        out.extend_from_slice(&bytes.to_le_bytes());
        out.extend_from_slice(&[0; 8]);
        for field in [
            self.sequence,
            self.identity.node.0,
            u64::from(self.identity.shard.0),
            self.identity.cluster,
            self.layout.segment_bytes(),
            self.hard.term.0,
            self.hard.vote.0,
            self.start.offset.0,
            self.start.index.0,
            self.start.term.0,
            u64::from(self.start.crc),
            self.start.time.0,
            self.generation,
            self.cut.0,
        ] {
            out.extend_from_slice(&field.to_le_bytes());
        }
        out.extend_from_slice(&self.configuration);
        let crc = crc32c(&[&out[..16], &out[20..]]);
        out[16..20].copy_from_slice(&crc.to_le_bytes());
        out
    }

    fn decode(slot: &[u8]) -> Slot {
        let (Some(prefix), true) = (slot.get(..PREFIX_BYTES), slot.starts_with(&MAGIC)) else {
            return Slot::Bad;
        };
        let version = u32_at(prefix, 8);
        let Some(used) = slot.get(..u32_at(prefix, 12) as usize) else { return Slot::Bad };
        if used.len() < PREFIX_BYTES || crc32c(&[&used[..16], &used[20..]]) != u32_at(prefix, 16) {
            return Slot::Bad;
        }
        if version != FORMAT {
            return Slot::Foreign(version);
        }
        let Some((fixed, configuration)) = used.split_at_checked(FIXED_BYTES) else {
            return Slot::Bad;
        };
        let field = |number: usize| u64_at(fixed, PREFIX_BYTES + 8 * number);
        let (Ok(shard), Ok(crc)) = (u32::try_from(field(2)), u32::try_from(field(10))) else {
            return Slot::Bad;
        };
        let Some(layout) = Layout::new(field(4)) else { return Slot::Bad };
        Slot::Good(Superblock {
            sequence: field(0),
            identity: Identity { node: NodeId(field(1)), shard: ShardId(shard), cluster: field(3) },
            layout,
            hard: HardState { term: Term(field(5)), vote: NodeId(field(6)) },
            start: Position {
                offset: Offset(field(7)),
                index: Index(field(8)),
                term: Term(field(9)),
                crc,
                time: LogTime(field(11)),
            },
            generation: field(12),
            cut: Offset(field(13)),
            configuration: configuration.into(),
        })
    }

    /// Makes the file in an empty directory, durably. Until it has its name there is no log.
    pub(crate) fn create(&self, disk: &dyn Disk) -> Result<(), Fault> {
        let names = disk.list().map_err(Fault::at("list", "the log"))?;
        if names.iter().any(|name| name == NAME || name.ends_with(".log")) {
            let taken = std::io::Error::from(std::io::ErrorKind::AlreadyExists);
            return Err(Fault::at("create", NAME)(taken));
        }
        self.put(disk)
    }

    /// Makes the file beside segments that are there, durably. Until it has its name there is no
    /// log.
    pub(crate) fn put(&self, disk: &dyn Disk) -> Result<(), Fault> {
        let file = disk.open(NAME_NEW, Open::Create).map_err(Fault::at("open", NAME_NEW))?;
        self.write_slot(&*file, 0)?;
        self.write_slot(&*file, 1)?;
        disk.rename(NAME_NEW, NAME).map_err(Fault::at("rename", NAME_NEW))?;
        disk.sync().map_err(Fault::at("sync names of", NAME))
    }

    /// Writes and syncs one slot after the other; first the one that is bad, if one is, so that a
    /// power cut in the middle leaves one that is good.
    pub(crate) fn store(&self, disk: &dyn Disk) -> Result<(), Unstored> {
        let file = disk.open(NAME, Open::Existing).map_err(Fault::at("open", NAME))?;
        let first = match read_slot(&*file, 1)? {
            Slot::Bad => 1,
            Slot::Good(_) | Slot::Foreign(_) => 0,
        };
        self.write_slot(&*file, first)?;
        self.write_slot(&*file, 1 - first)
    }

    fn write_slot(&self, file: &dyn File, slot: usize) -> Result<(), Unstored> {
        let mut page = self.encode();
        page.resize(SLOT_BYTES, 0);
        let position = (slot * SLOT_BYTES) as u64;
        let written = file.write_at(position, &[&page]).map_err(Fault::at("write", NAME));
        written.map_err(Unstored::Refused)?;
        Ok(file.sync().map_err(Fault::at("sync", NAME))?)
    }

    /// Bytes and syncs of one [`Superblock::store`].
    pub(crate) const STORE_COST: (u64, u32) = (2 * SLOT_BYTES as u64, 2);

    /// Reads the better slot; says whether the other one has to be made equal before anything is
    /// acted on.
    pub(crate) fn load(disk: &dyn Disk) -> Result<(Superblock, bool), OpenError> {
        let file = match disk.open(NAME, Open::Existing) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(OpenError::Missing);
            }
            opened => opened.map_err(Fault::at("open", NAME))?,
        };
        let mut slots = [Slot::Bad, Slot::Bad];
        for (number, slot) in slots.iter_mut().enumerate() {
            *slot = read_slot(&*file, number)?;
        }
        match slots {
            [Slot::Foreign(version), _] | [_, Slot::Foreign(version)] => {
                Err(OpenError::Format { found: version, known: FORMAT })
            }
            [Slot::Bad, Slot::Bad] => Err(OpenError::Superblock),
            [Slot::Good(good), Slot::Bad] | [Slot::Bad, Slot::Good(good)] => Ok((good, true)),
            [Slot::Good(first), Slot::Good(second)] => {
                let differ = first != second;
                let newer = if first.sequence >= second.sequence { first } else { second };
                Ok((newer, differ))
            }
        }
    }
}

fn read_slot(file: &dyn File, slot: usize) -> Result<Slot, Fault> {
    let mut page = vec![0; SLOT_BYTES];
    let position = (slot * SLOT_BYTES) as u64;
    let bytes = file.read_at(position, &mut page).map_err(Fault::at("read", NAME))?;
    Ok(Superblock::decode(&page[..bytes]))
}

/// What a slot holds.
enum Slot {
    Good(Superblock),
    /// Whole, but of another version.
    Foreign(u32),
    Bad,
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}
