//! What survives a crash: a log of entries behind a snapshot, and the hard state.

use naust_consensus::{
    Configuration, Entry, EntryKind, HardState, Ready, Snapshot, Start, is_seal, known_changes,
};
use naust_wire::{Index, NodeId, Term};

#[derive(Clone, Default)]
pub struct Disk {
    /// The log begins behind this entry, in whose state `configuration` is in force.
    pub before: Index,
    pub before_term: Term,
    pub configuration: Vec<u8>,
    pub hard: HardState,
    pub entries: Vec<Entry>,
    pub applied: Index,
    /// The configuration is not the one that the log began with.
    pub changed: bool,
}

impl Disk {
    pub fn new(configuration: &Configuration) -> Disk {
        Disk { configuration: configuration.encode(), ..Disk::default() }
    }

    pub fn write(&mut self, ready: &Ready) {
        self.hard = ready.hard.unwrap_or(self.hard);
        if let Some(cut) = ready.cut_after {
            self.entries.truncate((cut.0 - self.before.0) as usize);
        }
        self.entries.extend_from_slice(&ready.entries);
    }

    pub fn last(&self) -> Index {
        Index(self.before.0 + self.entries.len() as u64)
    }

    pub fn term(&self, index: Index) -> Term {
        match index.0.checked_sub(self.before.0) {
            Some(0) => self.before_term,
            Some(behind) => self.entries[behind as usize - 1].term,
            None => panic!("{index} is gone"),
        }
    }

    /// The state behind the entry that was applied last.
    pub fn snapshot(&self) -> Snapshot {
        let (configuration, _) = self.configurations();
        Snapshot { index: self.applied, term: self.term(self.applied), configuration }
    }

    /// The log begins behind a snapshot, and nothing else is left.
    pub fn flip(&mut self, snapshot: &Snapshot) {
        (self.before, self.before_term) = (snapshot.index, snapshot.term);
        self.configuration.clone_from(&snapshot.configuration);
        self.applied = snapshot.index;
        self.changed = true;
        self.entries.clear();
    }

    /// Forgets entries up to `index`, which is applied.
    pub fn trim(&mut self, index: Index) {
        let gone = (index.0 - self.before.0) as usize;
        for entry in &self.entries[..gone] {
            if let EntryKind::Configure(bytes) = &entry.kind {
                self.configuration.clone_from(bytes);
                self.changed = true;
            }
        }
        self.before_term = self.term(index);
        self.before = index;
        self.entries.drain(..gone);
    }

    /// The one in force where it is applied to, and those behind.
    fn configurations(&self) -> (Vec<u8>, Vec<(Index, Vec<u8>)>) {
        let (mut now, mut later) = (self.configuration.clone(), Vec::new());
        for entry in &self.entries {
            match &entry.kind {
                EntryKind::Configure(bytes) if entry.index <= self.applied => now.clone_from(bytes),
                EntryKind::Configure(bytes) => later.push((entry.index, bytes.clone())),
                _ => {}
            }
        }
        (now, later)
    }

    /// The last seal behind what is applied.
    fn seal(&self) -> Index {
        let behind = self.entries.iter().filter(|entry| entry.index > self.applied);
        let before = |entry: &Entry| self.term(Index(entry.index.0 - 1));
        let mut seals = behind.filter(|entry| is_seal(&entry.kind, entry.term, before(entry)));
        seals.next_back().map_or(Index(0), |entry| entry.index)
    }

    pub fn start(&self, node: u64, seed: u64) -> Start {
        let mut terms: Vec<(Index, Term)> = Vec::new();
        for entry in &self.entries {
            if terms.last().is_none_or(|(_, term)| *term != entry.term) {
                terms.push((entry.index, entry.term));
            }
        }
        // As `node` does: what is proved counts, and a lone voter's whole log is committed.
        let (mut configuration, mut configure) = self.configurations();
        let seal = self.seal();
        let known = configure.drain(..known_changes(&configure, seal)).next_back();
        let (known, bytes) = known.unwrap_or((self.applied, configuration));
        let changed = self.changed || bytes != self.configuration;
        configuration = bytes;
        let lone = Configuration::decode(&configuration).unwrap().is_lone_voter(NodeId(node));
        let last = self.last();
        Start {
            node: NodeId(node),
            hard: self.hard,
            before_first: self.before,
            before_first_term: self.before_term,
            last,
            terms,
            applied: self.applied,
            committed: if lone { last } else { known },
            configuration,
            configured: match changed {
                false => None,
                true if known > self.applied => Some(known),
                true => Some(Index(0)),
            },
            configure,
            seal,
            seed,
        }
    }
}
