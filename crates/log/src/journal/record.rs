//! What stands in the file of a journal.
//!
//! ```text
//!  header, one sector at the start of a half:
//!  0      8        12   16   24          32          40
//!  |magic |version |crc |id  |generation |half bytes | zeros
//!
//!  record, at a sector:
//!  0      8      12   16  24          32        40     44        48
//!  |magic |bytes |crc |id |generation |sequence |parts |reserved |table |bytes of the parts
//!
//!  table, for each part:  |shard, 4 |length, 4 |base, 8 |from, 8 |reserved, 8 |
//! ```
//! All integers are little-endian. The CRC-32C covers the sector, or `bytes` bytes of a record, but
//! for itself. A part of length zero says that no earlier part of its shard counts.

use crate::chunk;
use crate::disk::File;
use naust_wire::packet::crc32c;
use naust_wire::{Offset, ShardId};
use std::sync::Arc;

/// Records begin at multiples of this: what a disk writes at once, in bytes.
pub(super) const SECTOR_BYTES: usize = 512;
/// Version of the format that this release writes.
pub(super) const FORMAT: u32 = 1;
const HEADER_MAGIC: [u8; 8] = *b"NaustHlf";
const RECORD_MAGIC: [u8; 8] = *b"NaustRdo";
const CRC: std::ops::Range<usize> = 12..16;
const FIXED_BYTES: usize = 48;
const ENTRY_BYTES: usize = 32;

/// The start of a half.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub id: u64,
    pub generation: u64,
    pub half_bytes: u64,
}

/// What is found where a header belongs.
pub(super) enum Found {
    Good(Header),
    /// Whole, but of another version.
    Foreign(u32),
    Bad,
}

/// Which record it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    pub id: u64,
    pub generation: u64,
    pub sequence: u64,
}

/// Bytes that lie in a segment and are not synced.
pub(crate) struct Part<'a> {
    pub shard: ShardId,
    pub base: Offset,
    pub from: Offset,
    pub to: Offset,
    pub bytes: &'a [chunk::Part],
    pub file: &'a Arc<dyn File>,
}

impl<'a> Part<'a> {
    pub(super) fn slices(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        self.bytes.iter().map(chunk::Part::bytes)
    }
}

/// A part of a record that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry<'a> {
    pub shard: ShardId,
    pub base: Offset,
    pub from: Offset,
    /// None: no earlier part of the shard counts.
    pub bytes: &'a [u8],
}

/// A record that was read.
pub(super) struct Record<'a> {
    pub stamp: Stamp,
    /// Up to the next record.
    pub length: usize,
    pub entries: Vec<Entry<'a>>,
}

impl Header {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(SECTOR_BYTES);
        out.extend_from_slice(&HEADER_MAGIC);
        out.extend_from_slice(&FORMAT.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        for field in [self.id, self.generation, self.half_bytes] {
            out.extend_from_slice(&field.to_le_bytes());
        }
        out.resize(SECTOR_BYTES, 0);
        seal(&mut out, &[]);
        out
    }

    pub(super) fn decode(sector: &[u8]) -> Found {
        let Some(sector) = sector.get(..SECTOR_BYTES) else { return Found::Bad };
        if !sector.starts_with(&HEADER_MAGIC) || !is_sealed(sector) {
            return Found::Bad;
        }
        match u32_at(sector, 8) {
            FORMAT => Found::Good(Header {
                id: u64_at(sector, 16),
                generation: u64_at(sector, 24),
                half_bytes: u64_at(sector, 32),
            }),
            version => Found::Foreign(version),
        }
    }
}

/// Bytes that a record takes, whole sectors.
pub(super) fn bytes(parts: &[Part<'_>]) -> u64 {
    let bytes: u64 = parts.iter().map(|part| part.to.0 - part.from.0).sum();
    let head = (FIXED_BYTES + ENTRY_BYTES * parts.len()) as u64;
    (head + bytes).next_multiple_of(SECTOR_BYTES as u64)
}

/// The same, of one that makes others void.
pub(super) fn void_bytes() -> u64 {
    SECTOR_BYTES as u64
}

/// Makes `head` what stands before the bytes of the parts.
pub(super) fn encode(stamp: Stamp, parts: &[Part<'_>], head: &mut Vec<u8>) {
    let bytes: u64 = parts.iter().map(|part| part.to.0 - part.from.0).sum();
    begin(stamp, parts.len(), bytes, head);
    for part in parts {
        put_entry(part.shard, part.to.0 - part.from.0, part.base, part.from, head);
    }
    let slices: Vec<&[u8]> = parts.iter().flat_map(Part::slices).collect();
    seal(head, &slices);
}

/// Makes `head` a record which says that nothing before it counts for a log.
pub(super) fn encode_void(stamp: Stamp, shard: ShardId, head: &mut Vec<u8>) {
    begin(stamp, 1, 0, head);
    put_entry(shard, 0, Offset::ZERO, Offset::ZERO, head);
    seal(head, &[]);
}

fn begin(stamp: Stamp, parts: usize, bytes: u64, head: &mut Vec<u8>) {
    head.clear();
    head.extend_from_slice(&RECORD_MAGIC);
    let all = (FIXED_BYTES + ENTRY_BYTES * parts) as u64 + bytes;
    head.extend_from_slice(&u32::try_from(all).expect("small writes, few").to_le_bytes());
    head.extend_from_slice(&[0; 4]);
    for field in [stamp.id, stamp.generation, stamp.sequence] {
        head.extend_from_slice(&field.to_le_bytes());
    }
    head.extend_from_slice(&u32::try_from(parts).expect("few").to_le_bytes());
    head.extend_from_slice(&[0; 4]);
}

fn put_entry(shard: ShardId, length: u64, base: Offset, from: Offset, head: &mut Vec<u8>) {
    head.extend_from_slice(&shard.0.to_le_bytes());
    head.extend_from_slice(&u32::try_from(length).expect("a small write").to_le_bytes());
    for field in [base.0, from.0, 0] {
        head.extend_from_slice(&field.to_le_bytes());
    }
}

fn seal(head: &mut [u8], rest: &[&[u8]]) {
    let (before, after) = (&head[..CRC.start], &head[CRC.end..]);
    let covered: Vec<&[u8]> = [before, after].into_iter().chain(rest.iter().copied()).collect();
    let crc = crc32c(&covered);
    head[CRC].copy_from_slice(&crc.to_le_bytes());
}

fn is_sealed(bytes: &[u8]) -> bool {
    #[cfg(test)]
    tests::CHECKED.set(tests::CHECKED.get() + bytes.len());
    crc32c(&[&bytes[..CRC.start], &bytes[CRC.end..]]) == u32_at(bytes, CRC.start)
}

/// The record of a half at the start of `bytes`, if a whole one is there. Bytes of parts are what
/// clients write: what looks like a record in them is not checked as far as it claims to reach,
/// unless it is one of this half.
pub(super) fn read<'a>(half: &Header, bytes: &'a [u8]) -> Option<Record<'a>> {
    if bytes.len() < FIXED_BYTES || !bytes.starts_with(&RECORD_MAGIC) {
        return None;
    }
    let stamp =
        Stamp { id: u64_at(bytes, 16), generation: u64_at(bytes, 24), sequence: u64_at(bytes, 32) };
    if (stamp.id, stamp.generation) != (half.id, half.generation) {
        return None;
    }
    let length = u32_at(bytes, 8) as usize;
    let used = bytes.get(..length).filter(|used| used.len() >= FIXED_BYTES && is_sealed(used))?;
    let parts = u32_at(used, 40) as usize;
    let table_end = parts.checked_mul(ENTRY_BYTES)?.checked_add(FIXED_BYTES)?;
    let (table, mut rest) = used.get(FIXED_BYTES..)?.split_at_checked(table_end - FIXED_BYTES)?;
    let mut entries = Vec::with_capacity(parts);
    for entry in table.chunks_exact(ENTRY_BYTES) {
        let (bytes, after) = rest.split_at_checked(u32_at(entry, 4) as usize)?;
        let (base, from) = (Offset(u64_at(entry, 8)), Offset(u64_at(entry, 16)));
        if from < base {
            return None;
        }
        entries.push(Entry { shard: ShardId(u32_at(entry, 0)), base, from, bytes });
        rest = after;
    }
    let length = length.next_multiple_of(SECTOR_BYTES);
    rest.is_empty().then_some(Record { stamp, length, entries })
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::cell::Cell;

    std::thread_local! {
        /// Bytes whose checksum was looked at.
        pub(in crate::journal) static CHECKED: Cell<usize> = const { Cell::new(0) };
    }

    const HALF: Header = Header { id: 7, generation: 3, half_bytes: 1024 };

    fn void(sequence: u64) -> Vec<u8> {
        let mut head = Vec::new();
        let stamp = Stamp { id: 7, generation: 3, sequence };
        encode_void(stamp, ShardId(9), &mut head);
        head
    }

    /// Every release reads what this one writes.
    #[test]
    fn the_format_is_kept() {
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let header = Header { id: 0x0102_0304, generation: 5, half_bytes: 1 << 24 }.encode();
        assert_eq!(header.len(), SECTOR_BYTES);
        expect_test::expect![
            "4e61757374486c6601000000d515ab49040302010000000005000000000000000000000100000000"
        ]
        .assert_eq(&hex(&header[..40]));
        assert!(header[40..].iter().all(|byte| *byte == 0));
        let record = void(2);
        assert_eq!(record.len(), 80);
        expect_test::expect![["4e6175737452646f50000000bdb9c5bc07000000000000000300000000000000"]]
            .assert_eq(&hex(&record[..32]));
        expect_test::expect![["020000000000000001000000000000000900000000000000"]]
            .assert_eq(&hex(&record[32..56]));
        assert!(record[56..].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn what_is_written_is_read() {
        let found = Header::decode(&Header { id: 1, generation: 2, half_bytes: 1024 }.encode());
        assert!(matches!(found, Found::Good(Header { id: 1, generation: 2, half_bytes: 1024 })));
        let mut bytes = void(4);
        bytes.resize(2 * SECTOR_BYTES, 1);
        let record = read(&HALF, &bytes).unwrap();
        assert_eq!(record.stamp, Stamp { id: 7, generation: 3, sequence: 4 });
        assert_eq!(record.length, SECTOR_BYTES);
        let (base, from) = (Offset::ZERO, Offset::ZERO);
        assert_eq!(record.entries, [Entry { shard: ShardId(9), base, from, bytes: &[] }]);
    }

    #[test]
    fn a_newer_format_is_told_from_rot() {
        let mut header = Header { id: 1, generation: 2, half_bytes: 1024 }.encode();
        header[8] = 2;
        assert!(matches!(Header::decode(&header), Found::Bad));
        seal(&mut header, &[]);
        assert!(matches!(Header::decode(&header), Found::Foreign(2)));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            assert!(read(&HALF, &bytes).is_none());
            assert!(matches!(Header::decode(&bytes), Found::Bad));
            // The same with a good checksum.
            if bytes.len() >= FIXED_BYTES {
                bytes[..8].copy_from_slice(&RECORD_MAGIC);
                let length = bytes.len() as u32;
                bytes[8..12].copy_from_slice(&length.to_le_bytes());
                bytes[16..24].copy_from_slice(&HALF.id.to_le_bytes());
                bytes[24..32].copy_from_slice(&HALF.generation.to_le_bytes());
                seal(&mut bytes, &[]);
                if let Some(record) = read(&HALF, &bytes) {
                    let parts: usize = record.entries.iter().map(|entry| entry.bytes.len()).sum();
                    assert!(parts <= bytes.len());
                }
            }
        }

        #[test]
        fn no_flip_goes_unseen(bit in 0usize..8 * (FIXED_BYTES + ENTRY_BYTES)) {
            let mut bytes = void(1);
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(read(&HALF, &bytes).is_none());
        }
    }
}
