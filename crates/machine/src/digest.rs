//! Numbers for what users can see, so that replicas and lives can be compared.
//!
//! Each view that is folded in memory has a digest of its own: names, options, floors and totals of
//! keyspaces and streams, cursors, sessions, recent writes, points of time, the directory, the end.
//! An entry of the log has every replica note them, all as of the same offset; there they can be
//! asked for. They read nothing from a disk. A digest of everything covers rows with their versions
//! and records' places as well. What replicas may differ in is in none: the shard tree's own rows,
//! and how far history is dropped.

use crate::machine::Machine;
use crate::recent::{Extent, Recent};
use crate::tables::{Fault, KeyRange, Tables, TablesReader};
use naust_wire::limits::NOTED_DIGESTS_MAX;
use naust_wire::message::Refusal;
use naust_wire::reply::ViewDigest;
use naust_wire::{Code, Offset};
use std::ops::ControlFlow;

/// The digests of all views as of an entry.
pub(crate) type Noted = (Offset, Vec<(&'static str, Digest)>);

/// FNV-1a, 64 bits (Fowler, Noll and Vo), over fields with their lengths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Digest {
    hash: u64,
    /// Entries of the view.
    count: u64,
}

impl Digest {
    fn new() -> Digest {
        Digest { hash: 0xcbf2_9ce4_8422_2325, count: 0 }
    }

    /// Of a view's entries, each of which is its bytes.
    fn of(entries: impl IntoIterator<Item = impl AsRef<[u8]>>) -> Digest {
        let mut digest = Digest::new();
        entries.into_iter().for_each(|entry| digest.entry(entry.as_ref()));
        digest
    }

    fn entry(&mut self, bytes: &[u8]) {
        self.count += 1;
        self.bytes(bytes);
    }

    fn byte(&mut self, byte: u8) {
        self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }

    fn number(&mut self, number: u64) {
        number.to_le_bytes().into_iter().for_each(|byte| self.byte(byte));
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        bytes.iter().for_each(|byte| self.byte(*byte));
    }
}

impl<T: Tables> Machine<T> {
    /// A hash of everything visible as of the last frame. Reads all rows: for tests, and for lives
    /// to be compared.
    ///
    /// # Errors
    /// [`Fault`].
    pub fn digest(&self) -> Result<u64, Fault> {
        let mut digest = Digest::new();
        let mark = self.state.mark;
        for number in [mark.applied.0, mark.next.0, mark.index.0, mark.term.0, mark.time.0] {
            digest.number(number);
        }
        for (_, view) in self.digests() {
            digest.number(view.hash);
        }
        self.digest_rows(&mut digest)?;
        self.digest_records(&mut digest)?;
        Ok(digest.hash)
    }

    /// What was noted at the entry at `at`.
    ///
    /// # Errors
    /// `OffsetTrimmed`: nothing was noted there, or it is forgotten.
    pub fn noted_digests(&self, at: Offset) -> Result<Vec<ViewDigest>, Refusal> {
        let noted = self.noted.iter().find(|(noted, _)| *noted == at);
        let (_, views) = noted.ok_or_else(|| {
            let detail = format!(
                "this replica has no digests as of offset {at}: it has begun anew since, or noted \
                 {NOTED_DIGESTS_MAX} others; have them noted again"
            );
            Refusal::new(Code::OffsetTrimmed, detail)
        })?;
        let told = views.iter().map(|(view, digest)| ViewDigest {
            view: (*view).to_owned(),
            count: digest.count,
            digest: digest.hash,
        });
        Ok(told.collect())
    }

    /// Notes the digests as of the entry that is being folded in.
    pub(crate) fn note_digests(&mut self) {
        if self.noted.len() == NOTED_DIGESTS_MAX {
            self.noted.pop_front();
        }
        let noted = (self.state.mark.applied, self.digests());
        self.noted.push_back(noted);
    }

    /// The digests of what is folded in memory, in words that operators read.
    fn digests(&self) -> Vec<(&'static str, Digest)> {
        let state = &self.state;
        let row = |write: &dyn Fn(&mut Vec<u8>)| {
            let mut row = Vec::new();
            write(&mut row);
            row
        };
        let keyspaces = state.keyspaces.iter().map(|keyspace| row(&|row| keyspace.write(row)));
        let streams = state.streams.iter().map(|stream| row(&|row| stream.write(row)));
        let directory = &state.directory;
        let mut namespaces = Digest::of(directory.iter().map(|(name, placed)| {
            let mut entry = placed.to_row();
            entry.extend(placed.closing.map_or(0, |at| at.0).to_le_bytes());
            entry.extend_from_slice(name.as_bytes());
            entry
        }));
        namespaces.number(u64::from(directory.next_shard().0));
        let nodes = Digest::of(directory.nodes().map(|(node, member)| {
            let mut entry = node.0.to_le_bytes().to_vec();
            entry.extend(member.to_row());
            entry
        }));
        let mut points = Digest::of([row(&|row| state.points.write(row))]);
        points.number(state.mark.time.0);
        vec![
            ("keyspaces", Digest::of(keyspaces)),
            ("streams", Digest::of(streams)),
            ("cursors", self.digest_of_cursors()),
            ("sessions", self.digest_of_sessions()),
            ("recent writes", self.digest_of_recent()),
            ("log time", points),
            ("configuration", Digest::of(state.configuration.as_deref())),
            ("end", Digest::of(state.closed.map(|at| at.0.to_le_bytes()))),
            ("namespaces", namespaces),
            ("nodes", nodes),
        ]
    }

    fn digest_of_cursors(&self) -> Digest {
        let mut digest = Digest::new();
        for stream in self.state.streams.iter() {
            for (name, cursor) in &stream.cursors {
                digest.entry(name.as_bytes());
                digest.number(u64::from(stream.id.0));
                digest.number(cursor.offset.0);
            }
        }
        digest
    }

    fn digest_of_sessions(&self) -> Digest {
        let mut digest = Digest::new();
        self.state.sessions.visit(|id, row| {
            digest.entry(row);
            digest.number(id.0);
        });
        digest
    }

    fn digest_of_recent(&self) -> Digest {
        let mut digest = Digest::new();
        self.state.recent.visit(Recent::floor(self.state.mark.applied), |write| {
            digest.entry(write.from);
            digest.number(write.commit.0);
            digest.number(u64::from(write.tree.0));
            match write.extent {
                Extent::Key => digest.byte(0),
                Extent::To(to) => digest.bytes(to),
                Extent::End => digest.byte(2),
            }
        });
        digest
    }

    fn digest_rows(&self, digest: &mut Digest) -> Result<(), Fault> {
        for keyspace in self.state.keyspaces.iter() {
            let all = KeyRange { from: &[], to: None };
            let tree = keyspace.tree;
            digest.number(u64::from(tree.0));
            self.reader.scan(tree, all, false, Offset::MAX, &mut |key, version, value| {
                if version >= keyspace.floor {
                    digest.bytes(key);
                    digest.number(version.0);
                    digest.bytes(value);
                }
                ControlFlow::Continue(())
            })?;
        }
        Ok(())
    }

    fn digest_records(&self, digest: &mut Digest) -> Result<(), Fault> {
        for stream in self.state.streams.iter() {
            digest.number(u64::from(stream.id.0));
            stream.walk(&self.reader, Offset::ZERO, |place| {
                digest.number(place.offset.0);
                digest.number(u64::from(place.length));
                digest.number(place.time.0);
                ControlFlow::Continue(())
            })?;
        }
        Ok(())
    }
}
