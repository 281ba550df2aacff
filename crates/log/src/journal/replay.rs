//! What a power cut left in a journal is written into the segments again, before any log is opened.

use super::record::{self, Entry, Found, Header, Record, SECTOR_BYTES};
use super::{NAME, NAME_NEW};
use crate::Fault;
use crate::disk::{Disk, File, Open};
use crate::layout::Layout;
use naust_wire::limits::JOURNAL_HALF_BYTES;
use naust_wire::{Offset, ShardId};
use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::sync::Arc;

/// The directory of a shard's log, if there is one.
pub type Logs<'a> = &'a dyn Fn(ShardId) -> io::Result<Option<Arc<dyn Disk>>>;

/// What was replayed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Replayed {
    /// Records that were whole.
    pub records: u64,
    /// Segments that were written to.
    pub segments: u64,
    /// Bytes of their logs that were written.
    pub bytes: u64,
}

/// Why nothing was replayed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReplayError {
    /// A newer release made it, or changed it.
    #[error("the journal of small writes has format {found}; this release knows format {known}")]
    Format {
        /// The version found.
        found: u32,
        /// The version that this release writes.
        known: u32,
    },
    /// Something in it is bad that was durable: acknowledged commits may be in it alone.
    #[error("the journal of small writes is damaged at byte {at}: {what}")]
    Damaged {
        /// Where in its file.
        at: u64,
        /// What is wrong.
        what: &'static str,
    },
    /// The operating system said no.
    #[error(transparent)]
    Io(#[from] Fault),
}

/// Writes what counts in the journal in `disk` into the segments again, makes them durable, and
/// removes the journal. No log may be open. Blocking.
///
/// # Errors
/// [`ReplayError`]; the journal is still there then.
pub fn run(disk: &dyn Disk, logs: Logs<'_>) -> Result<Replayed, ReplayError> {
    let names = disk.list().map_err(Fault::at("list", "the directory of the journal"))?;
    let mut replayed = Replayed::default();
    if names.iter().any(|name| name == NAME) {
        let bytes = load(disk)?;
        let records = records(&bytes)?;
        replayed.records = records.len() as u64;
        for ((shard, base), entries) in live(&records) {
            let Some(file) = segment(logs, shard, base)? else { continue };
            replayed.segments += 1;
            replayed.bytes += write(&*file, base, &entries)?;
        }
    }
    let ours: Vec<&String> =
        names.iter().filter(|name| *name == NAME || *name == NAME_NEW).collect();
    for name in &ours {
        disk.remove(name).map_err(Fault::at("remove", name))?;
    }
    if !ours.is_empty() {
        disk.sync().map_err(Fault::at("sync names of", NAME))?;
    }
    Ok(replayed)
}

/// The whole file: both halves.
fn load(disk: &dyn Disk) -> Result<Vec<u8>, ReplayError> {
    let file = disk.open(NAME, Open::Existing).map_err(Fault::at("open", NAME))?;
    let length = file.len().map_err(Fault::at("measure", NAME))?;
    let is_whole = length.is_multiple_of(2 * SECTOR_BYTES as u64) && length > 0;
    if !is_whole || length > 2 * JOURNAL_HALF_BYTES {
        return Err(ReplayError::Damaged { at: length, what: "the file has a wrong length" });
    }
    let mut bytes = vec![0; usize::try_from(length).expect("bounded above")];
    let read = file.read_at(0, &mut bytes).map_err(Fault::at("read", NAME))?;
    if read < bytes.len() {
        return Err(ReplayError::Damaged { at: read as u64, what: "the file ends early" });
    }
    Ok(bytes)
}

/// The records that count, in their order.
fn records(bytes: &[u8]) -> Result<Vec<Record<'_>>, ReplayError> {
    let half_bytes = bytes.len() / 2;
    let (first, second) = bytes.split_at(half_bytes);
    let mut halves = [half(0, first)?, half(half_bytes as u64, second)?];
    halves.sort_by_key(|half| half.header.generation);
    let [mut older, mut newer] = halves;
    let is_odd = newer.header.generation % 2 == older.header.generation % 2;
    if older.header.id != newer.header.id || is_odd {
        return Err(ReplayError::Damaged { at: 0, what: "the halves don't belong together" });
    }
    // The newer half was turned to when the older one was full: they join.
    let last = older.records.last().map(|record| record.stamp.sequence);
    let next = newer.records.first().map(|record| record.stamp.sequence);
    if next.is_some_and(|next| last.is_none_or(|last| last + 1 != next)) {
        let what = "records are missing before the other half";
        return Err(ReplayError::Damaged { at: older.end, what });
    }
    older.records.append(&mut newer.records);
    Ok(older.records)
}

struct Half<'a> {
    header: Header,
    records: Vec<Record<'a>>,
    /// Behind the last of them, in the file.
    end: u64,
}

fn half(position: u64, bytes: &[u8]) -> Result<Half<'_>, ReplayError> {
    let damaged = |at: usize, what| ReplayError::Damaged { at: position + at as u64, what };
    let header = match Header::decode(bytes) {
        Found::Good(header) if header.half_bytes == bytes.len() as u64 => header,
        Found::Foreign(found) => return Err(ReplayError::Format { found, known: record::FORMAT }),
        Found::Good(_) | Found::Bad => return Err(damaged(0, "the header is bad")),
    };
    let read = |at: usize| record::read(&header, bytes.get(at..)?);
    let mut records: Vec<Record<'_>> = Vec::new();
    let mut at = SECTOR_BYTES;
    while let Some(record) = read(at) {
        let last = records.last().map(|record| record.stamp.sequence);
        if last.is_some_and(|last| last + 1 != record.stamp.sequence) {
            return Err(damaged(at, "a record has a wrong number"));
        }
        at += record.length;
        records.push(record);
    }
    // Each record was synced before the next one was begun.
    if (at..bytes.len()).step_by(SECTOR_BYTES).any(|later| read(later).is_some()) {
        return Err(damaged(at, "a record is bad, and a later one is good"));
    }
    Ok(Half { header, records, end: position + at as u64 })
}

type Live<'a> = BTreeMap<(ShardId, Offset), Vec<Entry<'a>>>;

/// What is to be written to each segment, in its order.
fn live<'a>(records: &[Record<'a>]) -> Live<'a> {
    let mut live: Live<'a> = BTreeMap::new();
    for entry in records.iter().flat_map(|record| &record.entries) {
        if entry.bytes.is_empty() {
            live.retain(|(shard, _), _| *shard != entry.shard);
        } else {
            live.entry((entry.shard, entry.base)).or_default().push(*entry);
        }
    }
    live
}

/// The file of a segment, unless it was trimmed, or its shard removed.
fn segment(
    logs: Logs<'_>,
    shard: ShardId,
    base: Offset,
) -> Result<Option<Arc<dyn File>>, ReplayError> {
    let log = logs(shard).map_err(Fault::at("open the log of", &format!("shard {shard}")))?;
    let Some(log) = log else { return Ok(None) };
    let name = Layout::name(base);
    match log.open(&name, Open::Existing) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        opened => Ok(Some(opened.map_err(Fault::at("open", &name))?)),
    }
}

fn write(file: &dyn File, base: Offset, entries: &[Entry<'_>]) -> Result<u64, Fault> {
    let name = Layout::name(base);
    // Also what can be read there already: an earlier process may have read it from memory that
    // never reached the disk. Written again, it is dirty, and a sync counts.
    for entry in entries {
        file.write_at(entry.from.0 - base.0, &[entry.bytes]).map_err(Fault::at("write", &name))?;
    }
    file.sync().map_err(Fault::at("sync", &name))?;
    Ok(entries.iter().map(|entry| entry.bytes.len() as u64).sum())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::record::tests::CHECKED;

    /// Why: each sector that looked like a record was checked as far as it claimed to reach: most
    /// of a half, for each of the sectors that a client filled with such.
    #[test]
    fn sectors_that_look_like_records_are_not_checked() {
        const SECTORS: usize = 256;
        let half_bytes = (SECTORS * SECTOR_BYTES) as u64;
        let header = Header { id: 7, generation: 2, half_bytes };
        let mut bytes = header.encode();
        while bytes.len() < half_bytes as usize {
            let mut sector = b"NaustRdo".to_vec();
            sector.extend_from_slice(&(half_bytes as u32 / 2).to_le_bytes());
            sector.resize(SECTOR_BYTES, 1);
            bytes.extend_from_slice(&sector);
        }
        let before = CHECKED.get();
        let half = half(0, &bytes).map_err(|error| error.to_string()).unwrap();
        assert_eq!(half.records.len(), 0);
        let checked = CHECKED.get() - before;
        assert!(checked <= bytes.len(), "{checked} bytes of {} were checked", bytes.len());
    }
}
