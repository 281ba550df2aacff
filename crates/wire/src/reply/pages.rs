//! Pages of rows and of records, written into a packet while they are read from the tables.
//!
//! Each row's bytes are copied once, into the packet; where they lie is remembered, and the list
//! that leads to them comes behind them when the page is finished:
//!
//! ```text
//! packet header | root | key, value | key, value | … | list of entries, pointing back | next
//! ```

use super::encode::{FIRST, FLAGS, RECORDS, ROWS, SECOND, begin};
use crate::ids::{Offset, RequestId, ShardId};
use crate::layout::{Layout, Place, Size, data_bytes};
use crate::limits::PACKET_HEADER_BYTES;
use crate::naust_capnp as schema;
use crate::packet::{self, Kind};

const ENTRY: Size = Size::of::<schema::entry::Builder<'static>>();
const RECORD: Size = Size::of::<schema::record::Builder<'static>>();

/// Writes one page of a scan. A page is ended by [`RowsWriter::finish`] or [`RowsWriter::abandon`].
///
/// The caller bounds it: [`crate::limits::PAGE_ROWS_MAX`] rows, and no further row from
/// [`crate::limits::PAGE_BYTES_MAX`] bytes on.
#[must_use]
pub struct RowsWriter<'o> {
    page: Page<'o>,
}

impl<'o> RowsWriter<'o> {
    /// Begins a packet at the end of `out`.
    pub fn begin(out: &'o mut Vec<u8>) -> RowsWriter<'o> {
        packet::begin(out);
        RowsWriter::body(out)
    }

    /// Begins a body at the end of `out`.
    pub(super) fn body(out: &'o mut Vec<u8>) -> RowsWriter<'o> {
        RowsWriter { page: Page::begin(ROWS, out) }
    }

    /// Adds a row; `offset` is its version.
    pub fn push(&mut self, key: &[u8], value: &[u8], offset: Offset) {
        self.page.push(key, value, offset);
    }

    /// Rows so far.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.page.items.len()
    }

    /// Bytes of keys and values so far.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.page.bytes
    }

    /// Ends the packet: the page holds as of `at`; the next one begins at `next` (ends there, when
    /// reversed).
    ///
    /// # Panics
    /// If the page is over the limit of packets: a bug of the caller.
    pub fn finish(self, request: RequestId, shard: ShardId, at: Offset, next: Option<&[u8]>) {
        let start = self.page.start;
        let out = self.lay_root(at, next);
        packet::finish(start - PACKET_HEADER_BYTES, Kind::Reply, request, shard, out);
    }

    pub(super) fn lay_root(mut self, at: Offset, next: Option<&[u8]>) -> &'o mut Vec<u8> {
        let root = self.page.root;
        self.page.lay_items(ENTRY, |layout, place, item| {
            layout.lead_to_data(place.pointer(0), item.at, item.key_bytes);
            let value_at = item.at + data_bytes(item.key_bytes);
            layout.lead_to_data(place.pointer(1), value_at, item.value_bytes);
        });
        let mut layout = self.page.layout;
        layout.u64(root, FIRST, at.0);
        layout.u16(root, FLAGS, u16::from(next.is_some()));
        layout.data(root.pointer(1), next.unwrap_or_default());
        layout.into_out()
    }

    /// Takes everything back, for an error to be written instead.
    pub fn abandon(self) {
        let start = self.page.start - PACKET_HEADER_BYTES;
        self.page.layout.into_out().truncate(start);
    }
}

/// Writes one page of records. A page is ended by [`RecordsWriter::finish`] or
/// [`RecordsWriter::abandon`].
///
/// The caller bounds it: [`crate::limits::PAGE_ROWS_MAX`] records, and no further record from
/// [`crate::limits::PAGE_BYTES_MAX`] bytes on.
#[must_use]
pub struct RecordsWriter<'o> {
    page: Page<'o>,
}

impl<'o> RecordsWriter<'o> {
    /// Begins a packet at the end of `out`.
    pub fn begin(out: &'o mut Vec<u8>) -> RecordsWriter<'o> {
        packet::begin(out);
        RecordsWriter::body(out)
    }

    /// Begins a body at the end of `out`.
    pub(super) fn body(out: &'o mut Vec<u8>) -> RecordsWriter<'o> {
        RecordsWriter { page: Page::begin(RECORDS, out) }
    }

    /// Adds a record; `offset` is its id.
    pub fn push(&mut self, offset: Offset, value: &[u8]) {
        self.page.push(&[], value, offset);
    }

    /// Records so far.
    #[must_use]
    pub fn records(&self) -> usize {
        self.page.items.len()
    }

    /// Bytes of records so far.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.page.bytes
    }

    /// Ends the packet: the following read begins at `next`; the next record would be at `end` at
    /// the earliest.
    ///
    /// # Panics
    /// If the page is over the limit of packets: a bug of the caller.
    pub fn finish(self, request: RequestId, shard: ShardId, next: Offset, end: Offset) {
        let start = self.page.start;
        let out = self.lay_root(next, end);
        packet::finish(start - PACKET_HEADER_BYTES, Kind::Reply, request, shard, out);
    }

    pub(super) fn lay_root(mut self, next: Offset, end: Offset) -> &'o mut Vec<u8> {
        let root = self.page.root;
        self.page.lay_items(RECORD, |layout, place, item| {
            layout.lead_to_data(place.pointer(0), item.at, item.value_bytes);
        });
        let mut layout = self.page.layout;
        layout.u64(root, FIRST, next.0);
        layout.u64(root, SECOND, end.0);
        layout.into_out()
    }

    /// Takes everything back, for an error to be written instead.
    pub fn abandon(self) {
        let start = self.page.start - PACKET_HEADER_BYTES;
        self.page.layout.into_out().truncate(start);
    }
}

/// What both kinds of pages share: the body under way and where the bytes of its items lie.
struct Page<'o> {
    layout: Layout<'o>,
    /// Where the body begins.
    start: usize,
    root: Place,
    items: Vec<Item>,
    bytes: usize,
}

/// A key and a value in the buffer: the value in whole words behind the key.
struct Item {
    at: usize,
    key_bytes: usize,
    value_bytes: usize,
    offset: Offset,
}

impl<'o> Page<'o> {
    fn begin(member: u16, out: &'o mut Vec<u8>) -> Page<'o> {
        let start = out.len();
        let (layout, root) = begin(member, out);
        Page { layout, start, root, items: Vec::new(), bytes: 0 }
    }

    fn push(&mut self, key: &[u8], value: &[u8], offset: Offset) {
        let at = self.layout.stray(key);
        self.layout.stray(value);
        self.items.push(Item { at, key_bytes: key.len(), value_bytes: value.len(), offset });
        self.bytes += key.len() + value.len();
    }

    /// Lays the list of the items, each led to its bytes by `lead`. Both kinds begin with the
    /// offset.
    fn lay_items(&mut self, size: Size, lead: impl Fn(&mut Layout<'o>, Place, &Item)) {
        if self.items.is_empty() {
            return;
        }
        let first = self.layout.structures(self.root.pointer(0), self.items.len(), size);
        for (i, item) in self.items.iter().enumerate() {
            let place = first.element(i);
            self.layout.u64(place, 0, item.offset.0);
            lead(&mut self.layout, place, item);
        }
    }
}
