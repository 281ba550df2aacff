//! What a client has learnt, so that its next requests hit something.

use crate::generator::Generator;
use naust_wire::Offset;
use naust_wire::reply::Reply;
use std::collections::{BTreeMap, VecDeque};

/// How much of each kind is remembered.
const REMEMBERED: usize = 64;

/// What a client has learnt of one namespace.
#[derive(Clone, Debug, Default)]
pub struct Knowledge {
    /// Offsets of commits and of answers, the last few.
    offsets: VecDeque<Offset>,
    /// Ids of records, the last few.
    records: VecDeque<Offset>,
    /// Versions of rows, by keyspace and key.
    versions: BTreeMap<(String, Vec<u8>), Offset>,
    /// Where frames are known to begin.
    frames: VecDeque<Offset>,
    /// The highest offset ever heard of.
    latest: Offset,
}

impl Knowledge {
    /// Learns from any reply.
    pub fn learn(&mut self, reply: &Reply) {
        match reply {
            Reply::Committed(committed) => {
                self.offset(committed.offset);
                committed.ids.iter().for_each(|id| remember(&mut self.records, *id));
            }
            Reply::Refused(refused) => self.offset(refused.at),
            Reply::Row { at, .. } | Reply::Rows { at, .. } | Reply::Described { at, .. } => {
                self.offset(*at);
            }
            Reply::Records { records, next, .. } => {
                records.iter().for_each(|record| remember(&mut self.records, record.offset));
                remember(&mut self.records, *next);
            }
            Reply::Frames { first, next, .. } => {
                remember(&mut self.frames, *first);
                remember(&mut self.frames, *next);
            }
            Reply::Done(offset) => self.offset(*offset),
            _ => {}
        }
    }

    /// Learns the version of a row.
    pub fn version(&mut self, keyspace: &str, key: &[u8], version: Offset) {
        if self.versions.len() >= REMEMBERED {
            self.versions.pop_first();
        }
        self.versions.insert((keyspace.to_owned(), key.to_vec()), version);
    }

    fn offset(&mut self, offset: Offset) {
        self.latest = self.latest.max(offset);
        remember(&mut self.offsets, offset);
    }

    /// The highest offset ever heard of.
    #[must_use]
    pub fn latest(&self) -> Offset {
        self.latest
    }

    /// A moment of the past, mostly a true one.
    pub fn some_offset(&self, generator: &mut Generator) -> Offset {
        match generator.below(10) {
            0 => Offset::FIRST,
            1 => Offset(self.latest.0.saturating_sub(generator.skewed(0, 1 << 20))),
            _ => any(&self.offsets, generator).unwrap_or(Offset::FIRST),
        }
    }

    /// Where a reader of records could stand.
    pub fn some_record(&self, generator: &mut Generator) -> Offset {
        match generator.below(8) {
            0 => Offset::ZERO,
            1 => self.latest,
            _ => any(&self.records, generator).unwrap_or(Offset::FIRST),
        }
    }

    /// Where a reader of the log could stand.
    pub fn some_frame(&self, generator: &mut Generator) -> Offset {
        match generator.below(8) {
            0 => Offset::FIRST,
            1 => self.some_offset(generator),
            _ => any(&self.frames, generator).unwrap_or(Offset::FIRST),
        }
    }

    /// A row whose version is known, or has been lately: keyspace, key, version.
    pub fn some_version(&self, generator: &mut Generator) -> Option<(String, Vec<u8>, Offset)> {
        let at = generator.below(self.versions.len() as u64) as usize;
        let ((keyspace, key), version) = self.versions.iter().nth(at)?;
        Some((keyspace.clone(), key.clone(), *version))
    }
}

fn remember(ring: &mut VecDeque<Offset>, offset: Offset) {
    if ring.len() >= REMEMBERED {
        ring.pop_front();
    }
    ring.push_back(offset);
}

fn any(ring: &VecDeque<Offset>, generator: &mut Generator) -> Option<Offset> {
    ring.get(generator.below(ring.len() as u64) as usize).copied()
}
