//! One number for everything that users can see, so that replicas and lives can be compared.
//!
//! It covers names, options, floors, rows with their versions, records' places, cursors, sessions,
//! recent writes, points of time, the directory and the mark. It leaves out what replicas may
//! differ in: the shard tree's own rows, and how far history is dropped.

use crate::machine::Machine;
use crate::recent::{Extent, Recent};
use crate::tables::{Fault, KeyRange, Tables, TablesReader};
use naust_wire::Offset;
use std::ops::ControlFlow;

/// FNV-1a, 64 bits (Fowler, Noll and Vo), over fields with their lengths.
struct Digest(u64);

impl Digest {
    fn byte(&mut self, byte: u8) {
        self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
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
    /// A hash of everything visible as of the last frame. Reads all rows: for tests, and for
    /// replicas to be compared.
    ///
    /// # Errors
    /// [`Fault`].
    pub fn digest(&self) -> Result<u64, Fault> {
        let mut digest = Digest(0xcbf2_9ce4_8422_2325);
        let mark = self.state.mark;
        for number in [mark.applied.0, mark.next.0, mark.index.0, mark.term.0, mark.time.0] {
            digest.number(number);
        }
        self.digest_keyspaces(&mut digest)?;
        self.digest_streams(&mut digest)?;
        self.state.sessions.visit(|id, row| {
            digest.number(id.0);
            digest.bytes(row);
        });
        self.state.recent.visit(Recent::floor(mark.applied), |write| {
            digest.number(write.commit.0);
            digest.number(u64::from(write.tree.0));
            digest.bytes(write.from);
            match write.extent {
                Extent::Key => digest.byte(0),
                Extent::To(to) => digest.bytes(to),
                Extent::End => digest.byte(2),
            }
        });
        let mut points = Vec::new();
        self.state.points.write(&mut points);
        digest.bytes(&points);
        for (name, placed) in self.state.directory.iter() {
            digest.bytes(name.as_bytes());
            digest.bytes(&placed.to_row());
        }
        digest.number(u64::from(self.state.directory.next_shard().0));
        for (node, member) in self.state.directory.nodes() {
            digest.number(node.0);
            digest.bytes(&member.to_row());
        }
        digest.bytes(self.state.configuration.as_deref().unwrap_or_default());
        Ok(digest.0)
    }

    fn digest_keyspaces(&self, digest: &mut Digest) -> Result<(), Fault> {
        let mut row = Vec::new();
        for keyspace in self.state.keyspaces.iter() {
            row.clear();
            keyspace.write(&mut row);
            digest.bytes(&row);
            let all = KeyRange { from: &[], to: None };
            let tree = keyspace.tree;
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

    fn digest_streams(&self, digest: &mut Digest) -> Result<(), Fault> {
        let mut row = Vec::new();
        for stream in self.state.streams.iter() {
            row.clear();
            stream.write(&mut row);
            digest.bytes(&row);
            stream.walk(&self.reader, Offset::ZERO, |place| {
                digest.number(place.offset.0);
                digest.number(u64::from(place.length));
                digest.number(place.time.0);
                ControlFlow::Continue(())
            })?;
            for (name, cursor) in &stream.cursors {
                digest.bytes(name.as_bytes());
                digest.number(cursor.offset.0);
            }
        }
        Ok(())
    }
}
