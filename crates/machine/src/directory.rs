//! The directory: which namespaces exist, in which shard each lives, and which nodes there are.
//! Shard 0 only.
//!
//! A namespace's shard begins with replicas on the nodes that are written down here; who has it
//! later is a matter of its own configuration. While no node has ever joined another there are no
//! nodes here, and the one that made the cluster has everything.

use crate::rows::{Damaged, Fields, Key, put_bytes, put_u32, put_u64};
use naust_wire::limits::{NAMESPACES_MAX, NODES_MAX, REPLICAS_DEFAULT};
use naust_wire::message::Refusal;
use naust_wire::options::{Durability, NamespaceOptions};
use naust_wire::planted::{self, Bug};
use naust_wire::{Code, NodeId, Offset, ShardId};
use std::collections::{BTreeMap, BTreeSet};

/// The namespace that always exists.
pub const DEFAULT: &str = "default";

/// A namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    /// The shard that it lives in; never reused.
    pub shard: ShardId,
    /// Its options.
    pub options: NamespaceOptions,
    /// The nodes whose replicas began it, ascending; empty: the node that made the cluster.
    pub replicas: Vec<NodeId>,
    /// The entry that asked for its removal, which waits for its shard to be closed.
    pub closing: Option<Offset>,
}

/// A node of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its name, which no other node has.
    pub name: String,
    /// Where others reach it.
    pub address: String,
}

/// A namespace or a node came or went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// It exists now.
    Created {
        /// Its name.
        name: String,
        /// Where it lives, and its options.
        placed: Placed,
    },
    /// It is to be removed, as an entry at `at` asks: as soon as its shard is closed, it goes.
    Closing {
        /// Its name.
        name: String,
        /// The shard that it lives in.
        shard: ShardId,
        /// The entry that asks for it; there may be several.
        at: Offset,
    },
    /// It is gone.
    Deleted {
        /// Its name.
        name: String,
        /// The shard that it lived in.
        shard: ShardId,
    },
    /// A node is there, under this name and address.
    NodeSet {
        /// Which.
        node: NodeId,
        /// Its name and address.
        member: Member,
    },
    /// A node is gone for good.
    NodeRemoved(NodeId),
}

/// All namespaces, by name, and all nodes. [`DEFAULT`] is there from the beginning, in shard 1, and
/// stays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directory {
    namespaces: BTreeMap<String, Placed>,
    next: ShardId,
    dirty: BTreeMap<String, Option<Placed>>,
    nodes: BTreeMap<NodeId, Member>,
    dirty_nodes: BTreeSet<NodeId>,
}

impl Default for Directory {
    fn default() -> Directory {
        let (shard, options) = (ShardId(1), NamespaceOptions::default());
        let placed = Placed { shard, options, replicas: Vec::new(), closing: None };
        let namespaces = BTreeMap::from([(DEFAULT.to_owned(), placed)]);
        Directory {
            namespaces,
            next: ShardId(2),
            dirty: BTreeMap::new(),
            nodes: BTreeMap::new(),
            dirty_nodes: BTreeSet::new(),
        }
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

    /// All nodes in the order of their ids; empty while no node has joined another.
    pub fn nodes(&self) -> impl Iterator<Item = (NodeId, &Member)> {
        self.nodes.iter().map(|(node, member)| (*node, member))
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
        if let Some(placed) = self.namespaces.get(name) {
            let detail = match placed.closing {
                None => format!("the namespace {name:?} exists already"),
                Some(_) => format!("the namespace {name:?} is still being removed"),
            };
            return Err(Refusal::new(Code::NamespaceExists, detail));
        }
        if self.namespaces.len() >= NAMESPACES_MAX || self.next == ShardId(u32::MAX) {
            let detail = format!("there are {NAMESPACES_MAX} namespaces, and no more can be made");
            return Err(Refusal::new(Code::LimitReached, detail));
        }
        let replicas = self.next_replicas();
        if replicas.len() > 1 && options.durability != Durability::Quorum {
            let detail = format!(
                "interval durability is for namespaces with one replica; here they get {}, and are \
                 always synced",
                replicas.len()
            );
            return Err(Refusal::new(Code::OptionsConflict, detail));
        }
        let placed = Placed { shard: self.next, options, replicas, closing: None };
        self.next = ShardId(self.next.0 + 1);
        self.namespaces.insert(name.to_owned(), placed.clone());
        self.dirty.insert(name.to_owned(), Some(placed.clone()));
        Ok(Change::Created { name: name.to_owned(), placed })
    }

    /// The nodes that began the fewest namespaces.
    fn next_replicas(&self) -> Vec<NodeId> {
        let mut begun: BTreeMap<NodeId, usize> = self.nodes.keys().map(|id| (*id, 0)).collect();
        if begun.len() > REPLICAS_DEFAULT {
            for node in self.namespaces.values().flat_map(|placed| &placed.replicas) {
                begun.entry(*node).and_modify(|count| *count += 1);
            }
        }
        let mut nodes: Vec<(usize, NodeId)> = begun.into_iter().map(|(id, n)| (n, id)).collect();
        nodes.sort_unstable();
        let mut chosen: Vec<NodeId> =
            nodes.into_iter().take(REPLICAS_DEFAULT).map(|(_, id)| id).collect();
        chosen.sort_unstable();
        chosen
    }

    pub(crate) fn set_node(&mut self, node: NodeId, member: Member) -> Result<Change, Refusal> {
        let name = &member.name;
        if let Some((other, _)) =
            self.nodes.iter().find(|(id, there)| **id != node && there.name == *name)
        {
            let detail = format!(
                "there is a node {name:?} already, {other}: take another name, or remove or \
                 replace that node"
            );
            return Err(Refusal::new(Code::BadArgument, detail));
        }
        if self.nodes.len() >= NODES_MAX && !self.nodes.contains_key(&node) {
            let detail = format!("a cluster has at most {NODES_MAX} nodes");
            return Err(Refusal::new(Code::LimitReached, detail));
        }
        self.nodes.insert(node, member.clone());
        self.dirty_nodes.insert(node);
        Ok(Change::NodeSet { node, member })
    }

    pub(crate) fn remove_node(&mut self, node: NodeId) -> Result<Change, Refusal> {
        if !self.nodes.contains_key(&node) {
            let detail = format!("there is no node {node} in this cluster");
            return Err(Refusal::new(Code::BadArgument, detail));
        }
        if self.nodes.len() == 1 {
            let detail = "it is the last node: a cluster without nodes has no data";
            return Err(Refusal::new(Code::BadArgument, detail));
        }
        self.nodes.remove(&node);
        self.dirty_nodes.insert(node);
        Ok(Change::NodeRemoved(node))
    }

    /// A namespace is to be removed, as the entry at `at` asks, once its shard is closed.
    pub(crate) fn close(&mut self, name: &str, at: Offset) -> Result<Change, Refusal> {
        if planted::has(Bug::RemoveUnclosed) {
            return self.delete(name);
        }
        let placed = removable(name, self.namespaces.get_mut(name))?;
        if placed.closing.is_none() {
            placed.closing = Some(at);
            self.dirty.insert(name.to_owned(), Some(placed.clone()));
        }
        Ok(Change::Closing { name: name.to_owned(), shard: placed.shard, at })
    }

    /// Whether what the entry at `at` asked for, the removal of a namespace, is still to be done.
    pub(crate) fn still_closes(&self, name: &str, at: Offset) -> Option<Change> {
        let placed = self.namespaces.get(name)?;
        let is_asked = placed.closing.is_some_and(|first| first <= at);
        is_asked.then(|| Change::Closing { name: name.to_owned(), shard: placed.shard, at })
    }

    /// The namespace of a shard that is closed goes, if it is to be removed and is still there.
    pub(crate) fn forget(&mut self, shard: ShardId) -> Option<Change> {
        let closing = |placed: &Placed| placed.shard == shard && placed.closing.is_some();
        let (name, _) = self.namespaces.iter().find(|(_, placed)| closing(placed))?;
        let name = name.clone();
        self.namespaces.remove(&name);
        self.dirty.insert(name.clone(), None);
        Some(Change::Deleted { name, shard })
    }

    /// A namespace goes at once, whether its shard is closed or not.
    pub(crate) fn delete(&mut self, name: &str) -> Result<Change, Refusal> {
        let shard = removable(name, self.namespaces.get_mut(name))?.shard;
        self.namespaces.remove(name);
        self.dirty.insert(name.to_owned(), None);
        Ok(Change::Deleted { name: name.to_owned(), shard })
    }

    /// For a rotation: hands over the rows to write (`None`: to remove). After this nothing is
    /// dirty.
    pub(crate) fn rotate<E>(
        &mut self,
        mut write: impl FnMut(Key<'_>, Option<&[u8]>) -> Result<(), E>,
    ) -> Result<(), E> {
        for (name, placed) in std::mem::take(&mut self.dirty) {
            let closing = placed.as_ref().and_then(|placed| placed.closing);
            let closing = closing.map(|at| at.0.to_le_bytes());
            let value = placed.map(|placed| placed.to_row());
            write(Key::Namespace(&name), value.as_deref())?;
            write(Key::Closing(&name), closing.as_ref().map(|at| &at[..]))?;
        }
        Ok(())
    }

    /// As [`Directory::rotate`], for nodes.
    pub(crate) fn rotate_nodes<E>(
        &mut self,
        mut write: impl FnMut(NodeId, Option<&[u8]>) -> Result<(), E>,
    ) -> Result<(), E> {
        for node in std::mem::take(&mut self.dirty_nodes) {
            let value = self.nodes.get(&node).map(Member::to_row);
            write(node, value.as_deref())?;
        }
        Ok(())
    }

    pub(crate) fn is_dirty(&self) -> bool {
        !self.dirty.is_empty() || !self.dirty_nodes.is_empty()
    }

    /// Takes a row back at opening.
    pub(crate) fn load(&mut self, name: &str, value: &[u8]) -> Result<(), Damaged> {
        self.namespaces.insert(name.to_owned(), Placed::read(value)?);
        Ok(())
    }

    /// As [`Directory::load`], for what is to be removed; after the namespaces.
    pub(crate) fn load_closing(&mut self, name: &str, value: &[u8]) -> Result<(), Damaged> {
        let mut fields = Fields::new(value, "closing");
        let placed = self.namespaces.get_mut(name).ok_or(Damaged("closing"))?;
        placed.closing = Some(fields.offset()?);
        fields.end()
    }

    /// As [`Directory::load`], for nodes.
    pub(crate) fn load_node(&mut self, node: NodeId, value: &[u8]) -> Result<(), Damaged> {
        self.nodes.insert(node, Member::read(value)?);
        Ok(())
    }

    /// Takes the number of the next shard back at opening.
    pub(crate) fn load_next(&mut self, value: &[u8]) -> Result<(), Damaged> {
        let mut fields = Fields::new(value, "directory");
        self.next = ShardId(fields.u32()?);
        fields.end()
    }
}

fn removable<'p>(name: &str, placed: Option<&'p mut Placed>) -> Result<&'p mut Placed, Refusal> {
    if name == DEFAULT {
        let detail = format!("the namespace {DEFAULT:?} always exists");
        return Err(Refusal::new(Code::BadArgument, detail));
    }
    placed.ok_or_else(|| {
        let detail = format!("there is no namespace {name:?}");
        Refusal::new(Code::NamespaceNotFound, detail)
    })
}

impl Placed {
    pub(crate) fn to_row(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_u32(&mut out, self.shard.0);
        put_u64(&mut out, self.options.history_ms);
        put_u64(&mut out, self.options.history_bytes);
        let interval_ms = match self.options.durability {
            Durability::Quorum => 0,
            Durability::IntervalMs(ms) => ms,
        };
        put_u32(&mut out, interval_ms);
        for node in &self.replicas {
            put_u64(&mut out, node.0);
        }
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
        let mut replicas = Vec::new();
        while !fields.is_empty() {
            replicas.push(NodeId(fields.u64()?));
        }
        let options = NamespaceOptions { history_ms, history_bytes, durability };
        Ok(Placed { shard, options, replicas, closing: None })
    }
}

impl Member {
    pub(crate) fn to_row(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_bytes(&mut out, self.name.as_bytes());
        put_bytes(&mut out, self.address.as_bytes());
        out
    }

    fn read(value: &[u8]) -> Result<Member, Damaged> {
        let mut fields = Fields::new(value, "node");
        let (name, address) = (fields.text()?.to_owned(), fields.text()?.to_owned());
        fields.end()?;
        Ok(Member { name, address })
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
        directory.close("b", Offset(70)).unwrap();
        assert_eq!(directory.create("b", options).unwrap_err().code, Code::NamespaceExists);
        assert_eq!(directory.delete("c").unwrap_err().code, Code::NamespaceNotFound);
        assert_eq!(directory.delete(DEFAULT).unwrap_err().code, Code::BadArgument);
        let (mut loaded, mut next) = (Directory::default(), Vec::new());
        put_u32(&mut next, directory.next_shard().0);
        directory
            .rotate(|key, value| match (key, value) {
                (Key::Namespace(name), Some(value)) => loaded.load(name, value),
                (Key::Closing(name), Some(value)) => loaded.load_closing(name, value),
                (Key::Closing(_), None) => Ok(()),
                row => panic!("nothing is removed: {row:?}"),
            })
            .unwrap();
        directory
            .rotate_nodes(|node, value| loaded.load_node(node, value.expect("none is removed")))
            .unwrap();
        loaded.load_next(&next).unwrap();
        assert_eq!(loaded, directory);
        assert!(!directory.is_dirty());
    }

    /// Why: the name of what is acknowledged to elsewhere must not be taken before that has an end.
    #[test]
    fn a_namespace_goes_when_its_shard_is_closed_and_its_name_is_not_free_before() {
        let mut directory = Directory::default();
        let options = NamespaceOptions::default();
        directory.create("a", options).unwrap();
        let shard = directory.get("a").unwrap().shard;
        assert_eq!(directory.forget(shard), None, "nobody wants it removed");
        let closing = |at| Change::Closing { name: "a".to_owned(), shard, at: Offset(at) };
        assert_eq!(directory.still_closes("a", Offset(70)), None);
        for at in [70, 80] {
            assert_eq!(directory.close("a", Offset(at)), Ok(closing(at)));
            assert_eq!(directory.still_closes("a", Offset(at)), Some(closing(at)));
        }
        assert_eq!(directory.still_closes("a", Offset(60)), None, "that was another one");
        let taken = directory.create("a", options).unwrap_err();
        assert!(taken.detail.contains("still being removed"), "{}", taken.detail);
        assert_eq!(directory.forget(ShardId(shard.0 + 1)), None);
        let name = "a".to_owned();
        assert_eq!(directory.forget(shard), Some(Change::Deleted { name, shard }));
        assert_eq!(directory.forget(shard), None);
        assert_eq!(directory.still_closes("a", Offset(80)), None);
        directory.create("a", options).unwrap();
        assert_eq!(directory.still_closes("a", Offset(80)), None, "it is another namespace");
        assert_eq!(directory.close(DEFAULT, Offset(90)).unwrap_err().code, Code::BadArgument);
    }

    fn member(name: &str) -> Member {
        Member { name: name.to_owned(), address: format!("{name}:7420") }
    }

    #[test]
    fn namespaces_begin_where_there_is_the_least_and_nodes_have_names_of_their_own() {
        let mut directory = Directory::default();
        let options = NamespaceOptions::default();
        let created = |directory: &mut Directory, name: &str| {
            let Change::Created { placed, .. } = directory.create(name, options).unwrap() else {
                panic!("it was made")
            };
            placed.replicas.iter().map(|node| node.0).collect::<Vec<u64>>()
        };
        assert_eq!(created(&mut directory, "a"), []);
        for (node, name) in [(5, "e"), (3, "c"), (4, "d")] {
            directory.set_node(NodeId(node), member(name)).unwrap();
        }
        assert_eq!(created(&mut directory, "b"), [3, 4, 5]);
        directory.set_node(NodeId(9), member("i")).unwrap();
        assert_eq!(created(&mut directory, "c"), [3, 4, 9]);
        assert_eq!(created(&mut directory, "d"), [3, 5, 9]);
        let taken = directory.set_node(NodeId(10), member("c")).unwrap_err();
        assert_eq!(taken.code, Code::BadArgument);
        assert!(taken.detail.contains("remove or replace"), "{}", taken.detail);
        directory.set_node(NodeId(3), member("c")).unwrap();
        assert_eq!(directory.remove_node(NodeId(7)).unwrap_err().code, Code::BadArgument);
        for node in [3, 4, 5] {
            directory.remove_node(NodeId(node)).unwrap();
        }
        assert_eq!(directory.remove_node(NodeId(9)).unwrap_err().code, Code::BadArgument);
        assert_eq!(directory.nodes().collect::<Vec<_>>(), [(NodeId(9), &member("i"))]);
    }
}
