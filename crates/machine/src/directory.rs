//! The directory: which namespaces exist, and in which shard each lives. Shard 0 only.

use crate::rows::{Damaged, Fields, put_u32, put_u64};
use naust_wire::limits::NAMESPACES_MAX;
use naust_wire::message::Refusal;
use naust_wire::options::{Durability, NamespaceOptions};
use naust_wire::{Code, ShardId};
use std::collections::BTreeMap;

/// The namespace that always exists.
pub const DEFAULT: &str = "default";

/// A namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed {
    /// The shard that it lives in; never reused.
    pub shard: ShardId,
    /// Its options.
    pub options: NamespaceOptions,
}

/// A namespace came or went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// It exists now.
    Created {
        /// Its name.
        name: String,
        /// Where it lives, and its options.
        placed: Placed,
    },
    /// It is gone.
    Deleted {
        /// Its name.
        name: String,
        /// The shard that it lived in.
        shard: ShardId,
    },
}

/// All namespaces, by name. [`DEFAULT`] is there from the beginning, in shard 1, and stays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directory {
    namespaces: BTreeMap<String, Placed>,
    next: ShardId,
    dirty: BTreeMap<String, Option<Placed>>,
}

impl Default for Directory {
    fn default() -> Directory {
        let placed = Placed { shard: ShardId(1), options: NamespaceOptions::default() };
        let namespaces = BTreeMap::from([(DEFAULT.to_owned(), placed)]);
        Directory { namespaces, next: ShardId(2), dirty: BTreeMap::new() }
    }
}

impl Directory {
    /// The namespace of a name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Placed> {
        self.namespaces.get(name)
    }

    /// All namespaces in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Placed)> {
        self.namespaces.iter().map(|(name, placed)| (name.as_str(), placed))
    }

    /// The shard that the next namespace gets.
    #[must_use]
    pub fn next_shard(&self) -> ShardId {
        self.next
    }

    pub(crate) fn create(
        &mut self,
        name: &str,
        options: NamespaceOptions,
    ) -> Result<Change, Refusal> {
        if self.namespaces.contains_key(name) {
            let detail = format!("the namespace {name:?} exists already");
            return Err(Refusal::new(Code::NamespaceExists, detail));
        }
        if self.namespaces.len() >= NAMESPACES_MAX || self.next == ShardId(u32::MAX) {
            let detail = format!("there are {NAMESPACES_MAX} namespaces, and no more can be made");
            return Err(Refusal::new(Code::LimitReached, detail));
        }
        let placed = Placed { shard: self.next, options };
        self.next = ShardId(self.next.0 + 1);
        self.namespaces.insert(name.to_owned(), placed);
        self.dirty.insert(name.to_owned(), Some(placed));
        Ok(Change::Created { name: name.to_owned(), placed })
    }

    pub(crate) fn delete(&mut self, name: &str) -> Result<Change, Refusal> {
        if name == DEFAULT {
            let detail = format!("the namespace {DEFAULT:?} always exists");
            return Err(Refusal::new(Code::BadArgument, detail));
        }
        let Some(placed) = self.namespaces.remove(name) else {
            let detail = format!("there is no namespace {name:?}");
            return Err(Refusal::new(Code::NamespaceNotFound, detail));
        };
        self.dirty.insert(name.to_owned(), None);
        Ok(Change::Deleted { name: name.to_owned(), shard: placed.shard })
    }

    /// For a rotation: hands over the rows to write (`None`: to remove). After this nothing is
    /// dirty.
    pub(crate) fn rotate<E>(
        &mut self,
        mut write: impl FnMut(&str, Option<&[u8]>) -> Result<(), E>,
    ) -> Result<(), E> {
        for (name, placed) in std::mem::take(&mut self.dirty) {
            let value = placed.map(|placed| placed.to_row());
            write(&name, value.as_deref())?;
        }
        Ok(())
    }

    pub(crate) fn is_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// Takes a row back at opening.
    pub(crate) fn load(&mut self, name: &str, value: &[u8]) -> Result<(), Damaged> {
        self.namespaces.insert(name.to_owned(), Placed::read(value)?);
        Ok(())
    }

    /// Takes the number of the next shard back at opening.
    pub(crate) fn load_next(&mut self, value: &[u8]) -> Result<(), Damaged> {
        let mut fields = Fields::new(value, "directory");
        self.next = ShardId(fields.u32()?);
        fields.end()
    }
}

impl Placed {
    pub(crate) fn to_row(self) -> Vec<u8> {
        let mut out = Vec::new();
        put_u32(&mut out, self.shard.0);
        put_u64(&mut out, self.options.history_ms);
        put_u64(&mut out, self.options.history_bytes);
        let interval_ms = match self.options.durability {
            Durability::Quorum => 0,
            Durability::IntervalMs(ms) => ms,
        };
        put_u32(&mut out, interval_ms);
        out
    }

    fn read(value: &[u8]) -> Result<Placed, Damaged> {
        let mut fields = Fields::new(value, "namespace");
        let shard = ShardId(fields.u32()?);
        let (history_ms, history_bytes) = (fields.u64()?, fields.u64()?);
        let durability = match fields.u32()? {
            0 => Durability::Quorum,
            ms => Durability::IntervalMs(ms),
        };
        fields.end()?;
        let options = NamespaceOptions { history_ms, history_bytes, durability };
        Ok(Placed { shard, options })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_are_never_reused_and_rows_bring_everything_back() {
        let mut directory = Directory::default();
        let options = NamespaceOptions {
            history_ms: 5,
            history_bytes: 6,
            durability: Durability::IntervalMs(7),
        };
        for name in ["a", "b"] {
            directory.create(name, options).unwrap();
        }
        directory.delete("a").unwrap();
        directory.create("a", NamespaceOptions::default()).unwrap();
        assert_eq!(directory.get("a").unwrap().shard, ShardId(4));
        assert_eq!(directory.create("b", options).unwrap_err().code, Code::NamespaceExists);
        assert_eq!(directory.delete("c").unwrap_err().code, Code::NamespaceNotFound);
        assert_eq!(directory.delete(DEFAULT).unwrap_err().code, Code::BadArgument);
        let (mut loaded, mut next) = (Directory::default(), Vec::new());
        put_u32(&mut next, directory.next_shard().0);
        directory
            .rotate(|name, value| loaded.load(name, value.expect("nothing is removed")))
            .unwrap();
        loaded.load_next(&next).unwrap();
        assert_eq!(loaded, directory);
        assert!(!directory.is_dirty());
    }
}
