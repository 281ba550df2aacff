//! A replica that is too far behind to be fed from the log gets all of one that is not.
//!
//! ```text
//!   leader                                   follower
//!   snapshots_wanted ─► Effect::Export
//!   Event::Exported ──── Contents ─────────► Effect::Import(Begin)
//!   Effect::ExportRead ◄─── Want ─────────── a few parts ahead
//!   Event::ExportedPart ── Part ───────────► Effect::Import(Part), Event::Imported
//!                                            all there: the replica is taken out, and with it
//!                                            the right to vote; Effect::Adopt; Event::Opened
//!   Raft goes on behind it ◄── Installed ───
//! ```
//! What is lost on the way is asked for again; a follower that is silent for too long is given up,
//! and begins anew when Raft asks again. The leader's log is not trimmed meanwhile.

use super::Shard;
use crate::peers::Peers;
use crate::transfer::{Adopt, Begin, Part};
use crate::{Effect, Now};
use naust_consensus::{HardState, Offered, Role, Snapshot};
use naust_wire::NodeId;
use naust_wire::limits::{TRANSFER_PART_BYTES, TRANSFERS_MAX};
use naust_wire::peer::{Contents, Said};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Parts that were asked for and have not come.
const PARTS_AHEAD: usize = 4;
/// Milliseconds after which they are asked for again.
const ASK_AGAIN_MS: u64 = 1000;
/// Milliseconds without a question after which a follower is given up.
const GIVE_UP_MS: u64 = 10_000;

/// The transfers of a shard.
#[derive(Default)]
pub(super) struct Transfers {
    begun: u64,
    /// Followers that need one and have not got one yet.
    wanted: BTreeSet<NodeId>,
    given: BTreeMap<NodeId, Given>,
    /// The last snapshot that a leader offered.
    offered: Option<Offered>,
    taken: Option<Taken>,
}

/// A transfer to a follower.
struct Given {
    number: u64,
    /// The configuration when it was begun: it has to be the same when it is offered.
    configuration: Vec<u8>,
    asked_ms: u64,
}

/// A transfer from the leader.
struct Taken {
    from: NodeId,
    contents: Contents,
    /// What to ask for next: a file, and where in it.
    next: (usize, u64),
    unanswered: VecDeque<(u32, u64)>,
    /// Writes of parts that have not ended.
    writes: usize,
    asked_ms: u64,
}

/// What is to be done with files that are copied.
#[derive(Clone, Debug)]
pub enum Import {
    /// Forget what was copied before, and make these files, empty.
    Begin(Contents),
    /// Put this part into a file.
    Part {
        /// The file's name.
        name: String,
        /// Where in it.
        at: u64,
        /// The part.
        bytes: Vec<u8>,
    },
    /// Forget all of it.
    End,
}

impl Transfers {
    /// Whether the log must stay as it is.
    pub(super) fn hold_the_log(&self) -> bool {
        !self.given.is_empty()
    }

    pub(super) fn want(&mut self, nodes: Vec<NodeId>) {
        self.wanted.extend(nodes);
    }

    pub(super) fn offer(&mut self, offered: Option<Offered>) {
        self.offered = offered.or(self.offered.take());
    }
}

impl Shard {
    /// Begins what is wanted and may begin.
    pub(super) fn drive_transfers(
        &mut self,
        now: Now,
        peers: &mut Peers,
        effects: &mut Vec<Effect>,
    ) {
        if self.replica.role() != Role::Leader {
            self.transfers.wanted.clear();
            for (_, given) in std::mem::take(&mut self.transfers.given) {
                effects.push(Effect::ExportEnd { shard: self.id, number: given.number });
            }
        }
        while !self.trimming.is_under_way()
            && self.transfers.given.len() < TRANSFERS_MAX
            && let Some(node) = self.transfers.wanted.pop_first()
        {
            self.transfers.begun += 1;
            // A number that no other leader has given, nor this node in another life.
            let number = (self.replica.term().0 << 24) + self.transfers.begun;
            let configuration = self.replica.configuration().encode();
            let given = Given { number, configuration, asked_ms: now.monotonic_ms };
            self.end_given(node, effects);
            self.transfers.given.insert(node, given);
            let begin = Begin {
                number,
                last: self.handed.0,
                start: self.log.start(),
                initial: self.log.configuration().to_vec(),
            };
            effects.push(Effect::Export { shard: self.id, begin });
        }
        self.ask_for_parts(now, peers);
    }

    fn end_given(&mut self, node: NodeId, effects: &mut Vec<Effect>) {
        if let Some(given) = self.transfers.given.remove(&node) {
            effects.push(Effect::ExportEnd { shard: self.id, number: given.number });
        }
    }

    fn given(&self, number: u64) -> Option<NodeId> {
        let mut given = self.transfers.given.iter();
        given.find(|(_, given)| given.number == number).map(|(node, _)| *node)
    }

    /// The files of this replica are held for a follower, or can't be.
    pub(crate) fn exported(
        &mut self,
        number: u64,
        contents: Option<Contents>,
        peers: &mut Peers,
        effects: &mut Vec<Effect>,
    ) {
        let Some(node) = self.given(number) else {
            return effects.push(Effect::ExportEnd { shard: self.id, number });
        };
        self.propose();
        let configuration = self.replica.configuration().encode();
        let same = self.transfers.given[&node].configuration == configuration;
        if let Some(contents) = contents.filter(|_| same) {
            let (index, term) = contents.last;
            if self.replica.offer(node, &Snapshot { index, term, configuration }) {
                return peers.say(self.id, node, Said::Contents(contents));
            }
        }
        self.replica.snapshot_sent(node, false);
        self.end_given(node, effects);
    }

    /// A follower wants a part of what it is given.
    pub(crate) fn wanted(
        &mut self,
        from: NodeId,
        (number, file, at): (u64, u32, u64),
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        let Some(given) = self.transfers.given.get_mut(&from) else { return };
        if given.number == number {
            given.asked_ms = now.monotonic_ms;
            let part = Part { number, to: from, file, at };
            effects.push(Effect::ExportRead { shard: self.id, part });
        }
    }

    /// A part for a follower was read, or could not be.
    pub(crate) fn exported_part(
        &mut self,
        part: Part,
        bytes: Option<Vec<u8>>,
        peers: &mut Peers,
        effects: &mut Vec<Effect>,
    ) {
        if self.given(part.number) != Some(part.to) {
            return;
        }
        let Some(bytes) = bytes else {
            self.propose();
            self.replica.snapshot_sent(part.to, false);
            return self.end_given(part.to, effects);
        };
        let said = Said::Part { transfer: part.number, file: part.file, at: part.at };
        peers.say_with(self.id, part.to, said, |out| out.extend_from_slice(&bytes));
    }

    /// A follower has what it was given, or will not have it.
    pub(crate) fn installed(
        &mut self,
        from: NodeId,
        number: u64,
        ok: bool,
        effects: &mut Vec<Effect>,
    ) {
        if self.given(number) == Some(from) {
            self.propose();
            self.replica.snapshot_sent(from, ok);
            self.end_given(from, effects);
        }
    }

    /// The leader tells what this replica would be made of.
    pub(crate) fn told_contents(
        &mut self,
        from: NodeId,
        contents: Contents,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        let follows = self.replica.role() == Role::Follower(from);
        if !follows || contents.last.0 <= self.replica.committed() {
            return;
        }
        let import = Import::Begin(contents.clone());
        effects.push(Effect::Import { shard: self.id, number: contents.transfer, import });
        self.transfers.taken = Some(Taken {
            from,
            contents,
            next: (0, 0),
            unanswered: VecDeque::new(),
            writes: 1,
            asked_ms: now.monotonic_ms,
        });
    }

    /// Asks for parts, some ahead.
    fn ask_for_parts(&mut self, now: Now, peers: &mut Peers) {
        let id = self.id;
        let Some(taken) = &mut self.transfers.taken else { return };
        let (from, transfer) = (taken.from, taken.contents.transfer);
        if !taken.unanswered.is_empty() && now.monotonic_ms >= taken.asked_ms + ASK_AGAIN_MS {
            taken.asked_ms = now.monotonic_ms;
            for (file, at) in taken.unanswered.iter().copied() {
                peers.say(id, from, Said::Want { transfer, file, at });
            }
        }
        while taken.unanswered.len() + taken.writes < PARTS_AHEAD
            && let Some((_, bytes)) = taken.contents.files.get(taken.next.0)
        {
            let (file, at) = taken.next;
            taken.next = match at + TRANSFER_PART_BYTES as u64 {
                next if next < *bytes => (file, next),
                _ => (file + 1, 0),
            };
            if *bytes == 0 {
                continue;
            }
            if taken.unanswered.is_empty() {
                taken.asked_ms = now.monotonic_ms;
            }
            let file = file as u32;
            taken.unanswered.push_back((file, at));
            peers.say(id, from, Said::Want { transfer, file, at });
        }
    }

    /// A part came.
    pub(crate) fn part(
        &mut self,
        from: NodeId,
        (number, file, at): (u64, u32, u64),
        bytes: &[u8],
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        let Some(taken) = &mut self.transfers.taken else { return };
        let wanted = taken.unanswered.iter().position(|wanted| *wanted == (file, at));
        let (Some(place), true) = (wanted, taken.from == from && taken.contents.transfer == number)
        else {
            return;
        };
        let (name, length) = &taken.contents.files[file as usize];
        if bytes.len() as u64 != (length - at).min(TRANSFER_PART_BYTES as u64) {
            return;
        }
        taken.unanswered.remove(place);
        taken.asked_ms = now.monotonic_ms;
        taken.writes += 1;
        let import = Import::Part { name: name.clone(), at, bytes: bytes.to_vec() };
        effects.push(Effect::Import { shard: self.id, number, import });
    }

    /// A write of what was copied ended. Gives what is to be taken in place of this replica, once
    /// all of it is there and is still wanted.
    pub(crate) fn imported(
        &mut self,
        number: u64,
        ok: bool,
        peers: &mut Peers,
        effects: &mut Vec<Effect>,
    ) -> Option<(Adopt, NodeId)> {
        let taken = self.transfers.taken.as_mut()?;
        if taken.contents.transfer != number {
            return None;
        }
        taken.writes -= 1;
        if ok {
            let is_whole = taken.next.0 == taken.contents.files.len()
                && taken.unanswered.is_empty()
                && taken.writes == 0;
            if !is_whole {
                return None;
            }
        }
        let Taken { from, contents, .. } = self.transfers.taken.take()?;
        self.propose();
        let offered = self.transfers.offered.take().map(|offered| offered.snapshot);
        let snapshot = offered.filter(|snapshot| (snapshot.index, snapshot.term) == contents.last);
        let matches = snapshot.is_some();
        if ok && snapshot.is_some_and(|snapshot| self.replica.begin_install(&snapshot)) {
            let hard = self.log.hard_state();
            let hard = HardState { term: hard.term, vote: hard.vote };
            return Some((Adopt { contents, hard }, from));
        }
        // Not wanted any more because the log has it by now, or not as it was offered.
        let said = Said::Installed { transfer: number, ok: ok && matches };
        peers.say(self.id, from, said);
        effects.push(Effect::Import { shard: self.id, number, import: Import::End });
        None
    }

    /// Followers that fell silent are given up.
    pub(super) fn tick_transfers(&mut self, now: Now, effects: &mut Vec<Effect>) {
        let late = |given: &Given| now.monotonic_ms >= given.asked_ms + GIVE_UP_MS;
        let given = self.transfers.given.iter();
        let silent: Vec<NodeId> =
            given.filter(|(_, given)| late(given)).map(|(node, _)| *node).collect();
        for node in silent {
            self.replica.snapshot_sent(node, false);
            self.end_given(node, effects);
        }
    }
}
