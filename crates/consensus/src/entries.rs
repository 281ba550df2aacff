//! What Raft may know of the log: where it begins and ends, the terms in it and the bytes of
//! configuration entries. Nothing is kept an entry.
//!
//! Invariants: `runs` ascend in index and term, all of them in `before_first + 1 ..= last`; the
//! first begins at `before_first + 1` unless the log is empty.

use crate::{EntryKind, HardState, Start, is_seal};
use naust_wire::limits::APPEND_FRAMES_MAX;
use naust_wire::{Index, Term};
use raft::eraftpb::{ConfState, Entry, EntryType, HardState as RaftHardState, Snapshot};
use raft::{Error, GetEntriesContext, RaftState, Result, Storage, StorageError};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

/// Marks entries that have a body, to tell them from a new leader's own first entry and from a
/// change of the configuration that Raft refused and made empty.
const BODY: &[u8] = b"b";

/// An implementation of Raft's `Storage` without entries.
pub(crate) struct Entries {
    hard: HardState,
    configuration: ConfState,
    committed: u64,
    before_first: u64,
    before_first_term: u64,
    last: u64,
    runs: Vec<(u64, u64)>,
    configure: BTreeMap<u64, Vec<u8>>,
    /// The last seal, as far as is known; 0: none.
    seal: u64,
    /// Snapshots that may be told to followers, by node.
    pub offers: BTreeMap<u64, Snapshot>,
    /// Followers that need one, as Raft found out.
    pub wanted: RefCell<BTreeSet<u64>>,
}

impl Entries {
    pub(crate) fn new(start: &Start, committed: Index, configuration: ConfState) -> Entries {
        // A lone voter's log is committed up to where somebody else may have begun to vote.
        let changes = start.configure.iter().map(|(index, _)| index.0);
        let change = changes.filter(|index| *index > start.applied.0).min();
        Entries {
            hard: start.hard,
            configuration,
            committed: committed.0.min(change.unwrap_or(u64::MAX)),
            before_first: start.before_first.0,
            before_first_term: start.before_first_term.0,
            last: start.last.0,
            runs: start.terms.iter().map(|(index, term)| (index.0, term.0)).collect(),
            configure: start.configure.iter().map(|(i, bytes)| (i.0, bytes.clone())).collect(),
            seal: start.seal.0,
            offers: BTreeMap::new(),
            wanted: RefCell::default(),
        }
    }

    /// The entry before the first.
    pub(crate) fn before_first(&self) -> u64 {
        self.before_first
    }

    /// The log holds nothing any more and goes on behind this entry.
    pub(crate) fn begin_behind(&mut self, index: u64, term: u64) {
        (self.before_first, self.before_first_term, self.last) = (index, term, index);
        self.runs.clear();
        self.configure.clear();
        self.seal = 0;
    }

    /// Takes in entries that go to the log now. Returns the index after which it is to be cut, if
    /// they replace some.
    pub(crate) fn append(&mut self, entries: &[Entry]) -> Option<u64> {
        let first = entries.first()?.index;
        let cut = (first <= self.last).then(|| {
            self.runs.truncate(self.runs.partition_point(|(from, _)| *from < first));
            self.configure.split_off(&first);
            if self.seal >= first {
                // There may be one before it; not to know of it costs another one.
                self.seal = 0;
            }
            first - 1
        });
        for entry in entries {
            let run = self.runs.last().map(|(_, term)| *term);
            let before = Term(run.unwrap_or(self.before_first_term));
            if is_seal(&kind_of(entry), Term(entry.term), before) {
                self.seal = entry.index;
            }
            if run != Some(entry.term) {
                self.runs.push((entry.index, entry.term));
            }
            if entry.get_entry_type() != EntryType::EntryNormal {
                self.configure.insert(entry.index, entry.data.to_vec());
            }
        }
        self.last = first + entries.len() as u64 - 1;
        cut
    }

    /// The last seal in the log, as far as is known; 0: none.
    pub(crate) fn seal(&self) -> u64 {
        self.seal
    }

    /// The first configuration entry after `index`.
    pub(crate) fn configure_after(&self, index: u64) -> Option<(u64, &[u8])> {
        let (index, bytes) = self.configure.range(index + 1..).next()?;
        Some((*index, bytes))
    }

    /// The last configuration entry of those after `index` and up to `last`.
    pub(crate) fn last_configure(&self, index: u64, last: u64) -> Option<&[u8]> {
        let between = self.configure.range(index + 1..last.max(index).saturating_add(1));
        between.last().map(|(_, bytes)| &bytes[..])
    }

    /// Entries up to `index` are in the log no more, or are not needed from it.
    pub(crate) fn forget(&mut self, index: u64) {
        if index <= self.before_first || index > self.last {
            return;
        }
        let run = self.runs.partition_point(|(from, _)| *from <= index) - 1;
        self.before_first_term = self.runs[run].1;
        self.before_first = index;
        self.runs.drain(..run);
        self.runs[0].0 = index + 1;
        if index == self.last {
            self.runs.clear();
        } else if self.runs.get(1).is_some_and(|(from, _)| *from == index + 1) {
            self.runs.remove(0);
        }
        self.configure = self.configure.split_off(&(index + 1));
    }

    pub(crate) fn term_of(&self, index: u64) -> u64 {
        if index == self.before_first {
            return self.before_first_term;
        }
        match self.runs.last() {
            Some((from, term)) if *from <= index => *term,
            _ => self.runs[self.runs.partition_point(|(from, _)| *from <= index) - 1].1,
        }
    }

    fn entry(&self, index: u64) -> Entry {
        let mut entry = match self.configure.get(&index) {
            Some(bytes) => raft_entry(&EntryKind::Configure(bytes.clone())),
            None => raft_entry(&EntryKind::Normal),
        };
        entry.index = index;
        entry.term = self.term_of(index);
        entry
    }
}

/// An entry as Raft carries it, without index and term.
pub(crate) fn raft_entry(kind: &EntryKind) -> Entry {
    let mut entry = Entry::default();
    match kind {
        EntryKind::Empty => {}
        EntryKind::Normal => entry.context = BODY.into(),
        EntryKind::Configure(bytes) => {
            entry.set_entry_type(EntryType::EntryConfChangeV2);
            entry.data = bytes.clone().into();
        }
    }
    entry
}

/// What an entry that Raft appended is.
pub(crate) fn kind_of(entry: &Entry) -> EntryKind {
    if entry.get_entry_type() != EntryType::EntryNormal {
        EntryKind::Configure(entry.data.to_vec())
    } else if entry.context.is_empty() {
        EntryKind::Empty
    } else {
        EntryKind::Normal
    }
}

impl Storage for Entries {
    fn initial_state(&self) -> Result<RaftState> {
        let mut hard = RaftHardState::default();
        hard.term = self.hard.term.0;
        hard.vote = self.hard.vote.0;
        hard.commit = self.committed;
        Ok(RaftState { hard_state: hard, conf_state: self.configuration.clone() })
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        _max_size: impl Into<Option<u64>>,
        context: GetEntriesContext,
    ) -> Result<Vec<Entry>> {
        if low <= self.before_first {
            return Err(Error::Store(StorageError::Compacted));
        }
        assert!(high <= self.last + 1, "Raft asks for entries beyond the log's end");
        let for_a_message = context.can_async();
        let high = if for_a_message { high.min(low + APPEND_FRAMES_MAX) } else { high };
        Ok((low..high).map(|index| self.entry(index)).collect())
    }

    fn term(&self, index: u64) -> Result<u64> {
        if index < self.before_first {
            return Err(Error::Store(StorageError::Compacted));
        }
        if index > self.last {
            return Err(Error::Store(StorageError::Unavailable));
        }
        Ok(self.term_of(index))
    }

    fn first_index(&self) -> Result<u64> {
        Ok(self.before_first + 1)
    }

    fn last_index(&self) -> Result<u64> {
        Ok(self.last)
    }

    fn snapshot(&self, request_index: u64, to: u64) -> Result<Snapshot> {
        let offer = self.offers.get(&to);
        let offer = offer.filter(|offer| offer.get_metadata().index >= request_index);
        offer.cloned().ok_or_else(|| {
            self.wanted.borrow_mut().insert(to);
            Error::Store(StorageError::SnapshotTemporarilyUnavailable)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use naust_wire::NodeId;
    use proptest::prelude::*;

    fn empty() -> Entries {
        let start = Start {
            node: NodeId(1),
            hard: HardState::default(),
            before_first: Index(0),
            before_first_term: Term(0),
            last: Index(0),
            terms: Vec::new(),
            applied: Index(0),
            committed: Index(0),
            configuration: Vec::new(),
            configured: None,
            configure: Vec::new(),
            seal: Index(0),
            seed: 0,
        };
        Entries::new(&start, Index(0), ConfState::default())
    }

    fn entry(index: u64, term: u64, configure: bool) -> Entry {
        let kind =
            if configure { EntryKind::Configure(vec![index as u8]) } else { EntryKind::Normal };
        let mut entry = raft_entry(&kind);
        (entry.index, entry.term) = (index, term);
        entry
    }

    proptest! {
        /// Against a plain list of entries: appends that may cut, and forgetting.
        #[test]
        fn it_answers_like_a_list(
            steps in proptest::collection::vec((0u8..4, 0u64..6, 1u64..5), 1..40)
        ) {
            let mut entries = empty();
            let mut model: Vec<Entry> = Vec::new();
            let (mut before, mut before_term, mut term) = (0u64, 0u64, 1u64);
            for (kind, back, count) in steps {
                let last = before + model.len() as u64;
                if kind == 0 {
                    let index = last.saturating_sub(back);
                    if index > before {
                        before_term = model[(index - before - 1) as usize].term;
                        model.drain(..(index - before) as usize);
                        before = index;
                    }
                    entries.forget(index);
                } else {
                    let first = if kind == 1 { (last + 1).saturating_sub(back) } else { last + 1 };
                    let first = first.max(before + 1);
                    term += u64::from(kind == 1);
                    let new: Vec<Entry> =
                        (first..first + count).map(|i| entry(i, term, i % 5 == 0)).collect();
                    let cut = entries.append(&new);
                    prop_assert_eq!(cut, (first <= last).then_some(first - 1));
                    model.truncate((first - before - 1) as usize);
                    model.extend(new);
                }
                let last = before + model.len() as u64;
                prop_assert_eq!(entries.first_index().unwrap(), before + 1);
                prop_assert_eq!(entries.last_index().unwrap(), last);
                prop_assert_eq!(entries.term(before).unwrap(), before_term);
                let all = entries
                    .entries(before + 1, last + 1, None, GetEntriesContext::empty(false))
                    .unwrap();
                prop_assert_eq!(&all, &model);
                for entry in &model {
                    prop_assert_eq!(entries.term(entry.index).unwrap(), entry.term);
                }
            }
        }
    }
}
