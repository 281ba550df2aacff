//! Replicas of this worker that are closed because they are damaged, and what other nodes are asked
//! for to make them whole; and what this node does for the damage of others.
//!
//! ```text
//!   Event::NotOpened, with trouble ─┬─ Frames ─► Mending ─► whole: Effect::Open
//!                                   │              └ nobody has them ─┐
//!                                   └─ Tables ─► the log has all: Effect::Refold
//!                                                └ else ─► Renew ─► Contents ─► Effect::Adopt
//! ```
//! Such a replica takes part in nothing until it is open again. What makes it open again
//! has all that it ever acknowledged: decision 0006.

use super::Node;
use crate::mending::{Help, Mending};
use crate::repair::{Damaged, Met, Report, Supplied, Supply, Trouble};
use crate::shard::{Copied, Import, Taken};
use crate::transfer::Adopt;
use crate::{Effect, Now};
use naust_consensus::HardState;
use naust_log::{MendError, Mended, Reader};
use naust_wire::peer::{Peer, Said};
use naust_wire::{NodeId, Offset, ShardId};
use std::collections::{BTreeMap, BTreeSet};

/// Milliseconds between two requests for all of another replica, at the least; it doubles up to a
/// minute while what was got does not open.
const RENEW_MS: u64 = 2000;
/// How often it doubles.
const DOUBLES_MAX: u32 = 5;

/// What is done about one.
pub(super) struct Repair {
    others: Vec<NodeId>,
    hard: HardState,
    number: u64,
    /// Damaged places of its log, and what reads the rest.
    frames: Option<(Mending, Reader)>,
    /// When to ask for all of another replica; `None`: not yet.
    renew_ms: Option<u64>,
    /// What is being copied.
    taken: Option<Taken>,
}

impl Node {
    /// All nodes that may have other replicas of a shard.
    fn helpers(&self, id: ShardId, told: &BTreeSet<NodeId>) -> Vec<NodeId> {
        let mut all = told.clone();
        all.extend(self.directory.nodes().map(|(node, _)| node));
        let open = self.shards.get(&id).or_else(|| self.leaving.get(&id));
        all.extend(open.map(|shard| shard.others()).unwrap_or_default());
        // While the directory is closed, only those who have greeted are known.
        all.extend(self.peers.linked_nodes());
        all.remove(&self.config.node);
        all.into_iter().collect()
    }

    /// Whether other nodes may help a shard.
    pub(super) fn is_helped(&self, id: ShardId) -> bool {
        !self.helpers(id, &BTreeSet::new()).is_empty()
    }

    /// A shard did not open, because it is damaged.
    pub(super) fn repair(
        &mut self,
        now: Now,
        id: ShardId,
        trouble: Box<Trouble>,
        effects: &mut Vec<Effect>,
    ) {
        let others = self.helpers(id, &trouble.others);
        let Some(absent) = self.directory.absent_mut(id) else { return };
        if others.is_empty() {
            absent.trouble = Some(trouble);
            return;
        }
        let Trouble { what, hard, number, .. } = *trouble;
        absent.repairs += 1;
        let later = RENEW_MS << (absent.repairs - 1).min(DOUBLES_MAX);
        let mut repair = Repair { others, hard, number, frames: None, renew_ms: None, taken: None };
        match what {
            Damaged::Frames { damage, reader } => {
                let mut mending = Mending::default();
                damage.iter().for_each(|damage| mending.note(id, *damage, effects));
                repair.frames = Some((mending, reader));
            }
            // Tables that were folded anew and are damaged again are left to another replica.
            Damaged::Tables { is_log_whole: true } if absent.repairs <= 2 => {
                let options = absent.options;
                effects.push(Effect::Refold { shard: id, options });
                let report = Report::Rebuilding("its tables are folded again from its log");
                effects.push(Effect::Report { shard: id, report });
                return self.directory.opens_again(id);
            }
            Damaged::Tables { .. } => {
                let wait = if absent.repairs <= 2 { 0 } else { later };
                repair.renew_ms = Some(now.monotonic_ms + wait);
            }
        }
        if absent.repairs == 1 {
            let is_log = repair.frames.is_some();
            let why = if is_log { "its log is damaged" } else { "its tables are damaged" };
            let report = Report::Rebuilding(why);
            effects.push(Effect::Report { shard: id, report });
        }
        absent.repair = Some(Box::new(repair));
    }

    /// Goes on with all that is in repair.
    pub(super) fn tick_repairs(&mut self, now: Now, effects: &mut Vec<Effect>) {
        for shard in self.shards.values_mut().filter(|shard| !shard.mending.is_idle()) {
            Node::touch(&mut self.touched, shard);
        }
        if self.peers.linked_nodes().next().is_some() {
            for (id, trouble) in self.directory.without_help() {
                self.repair(now, id, trouble, effects);
            }
        }
        let Node { directory, peers, .. } = self;
        let mut whole = Vec::new();
        for (id, repair) in directory.in_repair() {
            // Who came since may be the one who can help.
            let known = &mut repair.others;
            let new: Vec<_> = peers.linked_nodes().filter(|node| !known.contains(node)).collect();
            known.extend(new);
            if let Some((mending, reader)) = &mut repair.frames {
                let (limit, others) = (Offset::MAX, &repair.others[..]);
                let help = Help { shard: id, reader, limit, others };
                mending.drive(&help, now, peers, effects);
                if mending.is_idle() && !mending.is_writing() {
                    whole.push(id);
                } else if mending.is_in_vain() && repair.renew_ms.is_none() {
                    repair.renew_ms = Some(now.monotonic_ms);
                }
            }
            if let Some(taken) = repair.taken.take_if(|taken| taken.is_silent(now)) {
                let number = taken.contents.transfer;
                effects.push(Effect::Import { shard: id, number, import: Import::Rest });
            }
            match &mut repair.taken {
                Some(taken) => taken.ask(id, now, peers),
                None if repair.renew_ms.is_some_and(|at| at <= now.monotonic_ms) => {
                    repair.renew_ms = Some(now.monotonic_ms + RENEW_MS);
                    for node in &repair.others {
                        peers.say(id, *node, Said::Renew { number: repair.number });
                    }
                }
                None => {}
            }
        }
        for id in whole {
            self.open_repaired(id, effects);
        }
    }

    /// What was damaged in its log is as it was.
    fn open_repaired(&mut self, id: ShardId, effects: &mut Vec<Effect>) {
        let Some(absent) = self.directory.absent_mut(id) else { return };
        let options = absent.options;
        if let Some(Repair { taken: Some(taken), .. }) = absent.repair.as_deref() {
            let number = taken.contents.transfer;
            effects.push(Effect::Import { shard: id, number, import: Import::End });
        }
        self.directory.opens_again(id);
        effects.push(Effect::Open { shard: id, options, begin: None });
    }

    fn in_repair(&mut self, id: ShardId) -> Option<&mut Repair> {
        self.directory.absent_mut(id)?.repair.as_deref_mut()
    }

    /// Something of a transfer came for a shard that is not open.
    pub(super) fn told_while_closed(
        &mut self,
        now: Now,
        id: ShardId,
        peer: Peer,
        bytes: &[u8],
        effects: &mut Vec<Effect>,
    ) {
        let Node { directory, peers, .. } = self;
        let absent = directory.absent_mut(id);
        let Some(repair) = absent.and_then(|absent| absent.repair.as_deref_mut()) else { return };
        let is_wanted = repair.renew_ms.is_some() && repair.taken.is_none();
        match peer.said {
            // Of an earlier closing it may lack what was acknowledged since.
            Said::Contents(contents) if is_wanted && contents.answers == repair.number => {
                repair.taken = Taken::new(peer.from, contents, now);
                let Some(taken) = &repair.taken else { return };
                let (number, contents) = (taken.contents.transfer, taken.contents.clone());
                let import = Import::Begin(contents);
                effects.push(Effect::Import { shard: id, number, import });
            }
            Said::Part { transfer, file, at } => {
                let Some(taken) = &mut repair.taken else { return };
                let import = match taken.part(peer.from, (transfer, file, at), bytes, now) {
                    None => return,
                    Some(Ok(import)) => import,
                    Some(Err(())) => {
                        repair.taken = None;
                        Import::End
                    }
                };
                effects.push(Effect::Import { shard: id, number: transfer, import });
                if let Some(taken) = &mut repair.taken {
                    taken.ask(id, now, peers);
                }
            }
            _ => {}
        }
    }

    /// A write of what is copied ended.
    pub(super) fn imported_while_closed(
        &mut self,
        id: ShardId,
        number: u64,
        (ok, there): (bool, BTreeMap<u32, Vec<u8>>),
        effects: &mut Vec<Effect>,
    ) {
        let Some(repair) = self.in_repair(id) else { return };
        let Some(taken) = repair.taken.as_mut().filter(|t| t.contents.transfer == number) else {
            return;
        };
        match taken.imported(ok, there) {
            Copied::Part => {}
            Copied::Failed => {
                repair.taken = None;
                effects.push(Effect::Import { shard: id, number, import: Import::End });
            }
            // A mend under way would write into what is given up; it ends first.
            Copied::Whole => {
                let hard = repair.hard;
                let Some(taken) = repair.taken.take() else { return };
                let Some(absent) = self.directory.absent_mut(id) else { return };
                let options = absent.options;
                absent.replaced_by = Some((taken.from, number));
                self.directory.opens_again(id);
                let adopt = Box::new(Adopt { contents: taken.contents, hard });
                effects.push(Effect::Adopt { shard: id, options, adopt });
            }
        }
    }

    /// Another replica sent frames for a damaged place.
    pub(super) fn found(
        &mut self,
        id: ShardId,
        from: NodeId,
        found: (Offset, bool),
        frames: &[u8],
        effects: &mut Vec<Effect>,
    ) {
        if let Some(shard) = self.shards.get_mut(&id) {
            shard.found(from, found, frames, effects);
            return Node::touch(&mut self.touched, shard);
        }
        let Some(Repair { frames: Some((mending, reader)), others, .. }) = self.in_repair(id)
        else {
            return;
        };
        let help = Help { shard: id, reader, limit: Offset::MAX, others };
        mending.found(&help, from, found, frames, effects);
    }

    /// Frames were written over a damaged place, or not.
    pub(super) fn mended(
        &mut self,
        now: Now,
        id: ShardId,
        at: Offset,
        outcome: Result<Mended, MendError>,
        effects: &mut Vec<Effect>,
    ) {
        if let Some(shard) = self.shards.get_mut(&id) {
            shard.mended(at, outcome, now, effects);
            Node::touch(&mut self.touched, shard);
        } else if let Some(shard) = self.leaving.get_mut(&id) {
            shard.mended(at, outcome, now, effects);
            self.remove_when_unused(id, effects);
        } else if let Some(Repair { frames: Some((mending, _)), .. }) = self.in_repair(id) {
            mending.mended(id, at, outcome, now, effects);
            self.tick_repairs(now, effects);
        }
    }

    /// Another node asks for frames that are damaged there. A replica that is closed itself has
    /// good ones, too.
    pub(super) fn supply(
        &mut self,
        id: ShardId,
        to: NodeId,
        from: Offset,
        end: Offset,
        effects: &mut Vec<Effect>,
    ) {
        if self.supplying.contains(&(id, to)) {
            return;
        }
        let job = match self.shards.get(&id) {
            Some(shard) => Some(shard.supply(to, from, end)),
            None => match self.in_repair(id) {
                Some(Repair { frames: Some((_, reader)), .. }) => {
                    let reader = reader.clone();
                    Some(Supply { reader, to, from, end, committed: false })
                }
                _ => None,
            },
        };
        match job {
            Some(job) => {
                self.supplying.insert((id, to));
                effects.push(Effect::Supply { shard: id, job });
            }
            None => self.peers.say(id, to, Said::Found { from, committed: false }),
        }
    }

    /// They were read.
    pub(super) fn supplied(&mut self, now: Now, supplied: &Supplied, effects: &mut Vec<Effect>) {
        let Supplied { shard: id, to, from, committed, frames, met } = supplied;
        self.supplying.remove(&(*id, *to));
        let said = Said::Found { from: *from, committed: *committed };
        self.peers.say_with(*id, *to, said, |out| out.extend_from_slice(frames));
        if let Some(met) = met {
            self.met(now, *id, *met, effects);
        }
    }

    /// Somebody who read from a shard met damage. Where exactly, a look at the whole segment tells.
    pub(super) fn met(&mut self, now: Now, id: ShardId, met: Met, effects: &mut Vec<Effect>) {
        match met {
            Met::Frames(damage) => self.doubt(id, damage.from),
            Met::Tables => self.tables_are_bad(now, id, effects),
        }
    }
}
