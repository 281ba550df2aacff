//! The bytes of a simulated file: pages, of which those that hold only zeros take no memory.

use std::collections::BTreeMap;
use std::sync::Arc;

/// What a disk writes at once, in bytes: less is never torn.
pub(super) const SECTOR_BYTES: u64 = 512;
const PAGE_BYTES: u64 = 4096;

/// A file's content at one moment. Clones share pages.
#[derive(Clone, Default)]
pub(super) struct Image {
    /// Allocated pages; `None`: one of zeros.
    pages: BTreeMap<u64, Option<Arc<[u8; PAGE_BYTES as usize]>>>,
    length: u64,
}

impl Image {
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    pub(super) fn allocated_bytes(&self) -> u64 {
        self.pages.len() as u64 * PAGE_BYTES
    }

    /// How many of `bytes` at `position` can be written if only `room` may be allocated.
    pub(super) fn fitting(&self, position: u64, bytes: u64, room: u64) -> u64 {
        if room == u64::MAX {
            return bytes;
        }
        let mut pages = room / PAGE_BYTES;
        let end = position + bytes;
        for page in position / PAGE_BYTES..end.div_ceil(PAGE_BYTES) {
            if !self.pages.contains_key(&page) {
                if pages == 0 {
                    return (page * PAGE_BYTES).saturating_sub(position);
                }
                pages -= 1;
            }
        }
        bytes
    }

    pub(super) fn read(&self, position: u64, into: &mut [u8]) -> usize {
        let there = self.length.saturating_sub(position).min(into.len() as u64) as usize;
        let into = &mut into[..there];
        into.fill(0);
        let end = position + there as u64;
        for (page, bytes) in self.pages.range(position / PAGE_BYTES..end.div_ceil(PAGE_BYTES)) {
            let Some(bytes) = bytes else { continue };
            let from = position.max(page * PAGE_BYTES);
            let to = end.min((page + 1) * PAGE_BYTES);
            let source = &bytes[(from - page * PAGE_BYTES) as usize..][..(to - from) as usize];
            into[(from - position) as usize..][..source.len()].copy_from_slice(source);
        }
        there
    }

    pub(super) fn write(&mut self, position: u64, mut bytes: &[u8]) {
        let mut at = position;
        while !bytes.is_empty() {
            let skip = (at % PAGE_BYTES) as usize;
            let (part, rest) = bytes.split_at(bytes.len().min(PAGE_BYTES as usize - skip));
            let page = self.pages.entry(at / PAGE_BYTES).or_default();
            if page.is_some() || part.iter().any(|byte| *byte != 0) {
                let page = page.get_or_insert_with(|| Arc::new([0; PAGE_BYTES as usize]));
                Arc::make_mut(page)[skip..skip + part.len()].copy_from_slice(part);
            }
            at += part.len() as u64;
            bytes = rest;
        }
        self.length = self.length.max(at);
    }

    pub(super) fn set_length(&mut self, length: u64) {
        if length < self.length {
            let keep = length.div_ceil(PAGE_BYTES);
            self.pages.retain(|page, _| *page < keep);
            if let Some(Some(page)) = self.pages.get_mut(&(length / PAGE_BYTES)) {
                Arc::make_mut(page)[(length % PAGE_BYTES) as usize..].fill(0);
            }
        }
        self.length = length;
    }
}
