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
//! and begins anew when Raft asks again. What it has by then stays for a while, whoever leads:
//! files that are there already, which their digests tell, are not sent again. One that looks
//! through those, waits for its disk or takes a copy in place says so (`Keep`): that may take long.
//! The leader's log is not trimmed meanwhile, nor until the follower was fed with what was written
//! meanwhile. While clients write to the leader, it reads parts no faster than their commits bear
//! ([`Pace`]).
//!
//! A replica that is closed, because it is damaged beyond what its log can mend, asks for the same
//! by itself (`Renew`). It may have acknowledged frames that it lost, so it must come back with all
//! of them: the leader first stages an entry behind whatever that replica can have acknowledged,
//! and once a quorum has that, without the closed one, what is committed is sent. Decision 0006.

use super::Shard;
use super::pace::Pace;
use crate::peers::Peers;
use crate::transfer::{Adopt, Begin, DIGEST_AT, LOG, Part};
use crate::views::Waiter;
use crate::{Effect, Now};
use naust_consensus::{HardState, Offered, Role, Snapshot};
use naust_log::Layout;
use naust_wire::frame::Kind;
use naust_wire::limits::{
    CATCH_UP_LOG_BYTES_MAX, TRANSFER_AHEAD_BYTES_MAX, TRANSFER_FILE_BYTES_MAX, TRANSFER_PART_BYTES,
    TRANSFERS_MAX,
};
use naust_wire::peer::{Contents, Said};
use naust_wire::{Index, NodeId, Offset, ShardId, Term};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Parts that were asked for and are not written yet.
const PARTS_AHEAD: usize = 64;
/// Milliseconds after which they are asked for again.
const ASK_AGAIN_MS: u64 = 1000;
/// Milliseconds without a question after which a follower is given up.
const GIVE_UP_MS: u64 = 10_000;
/// Milliseconds that what was copied is kept, to be gone on with: a node may take its time to
/// start, and a leader to be elected.
const KEEP_MS: u64 = 10 * 60_000;
/// Questions of a follower that wait for their turn; what is beyond is asked again.
const WANTS_MAX: usize = 2 * PARTS_AHEAD;
/// Milliseconds after the last write of a client in which clients count as writing.
const BUSY_MS: u64 = 100;
/// Parts that are read at once while clients write: what comes of them is one turn of the worker.
const PARTS_AT_ONCE: usize = 2;

/// The transfers of a shard.
#[derive(Default)]
pub(super) struct Transfers {
    begun: u64,
    /// Followers that need one and have not got one yet.
    wanted: BTreeSet<NodeId>,
    given: BTreeMap<NodeId, Given>,
    /// Its share of the worker's count of these.
    counted: usize,
    /// Followers that have all of it but what was written meanwhile, which is still in the log.
    catching_up: BTreeMap<NodeId, CatchingUp>,
    /// Closed replicas that ask to be made anew.
    renewals: BTreeMap<NodeId, Renewal>,
    /// How fast parts are read while clients write.
    pub(super) pace: Pace,
    /// When a client wrote last.
    pub(super) written_ms: Option<u64>,
    /// The last snapshot that a leader offered.
    offered: Option<Offered>,
    taken: Option<Taken>,
    /// When what an earlier transfer may have left here is removed.
    pub(super) left_until_ms: Option<u64>,
}

/// A transfer to a follower.
struct Given {
    number: u64,
    /// Where the log ended when something was wanted last, or it was begun, and when that was.
    wanted_at: (Offset, u64),
    /// The configuration when it was begun: it has to be the same when it is offered.
    configuration: Vec<u8>,
    asked_ms: u64,
    /// The number of the closing that it is for; zero: it is Raft's snapshot.
    answers: u64,
    /// Parts that are to be read.
    wants: VecDeque<(u32, u64)>,
}

/// A follower that is fed from the log after a transfer.
struct CatchingUp {
    /// Where the log ended when the transfer did.
    begun: Offset,
    matched: Index,
    moved_ms: u64,
}

/// A closed replica that asks to be made anew.
struct Renewal {
    number: u64,
    /// Behind all that it can have acknowledged, and in which term that was staged.
    barrier: (Index, Term),
}

/// A transfer from the leader.
pub(crate) struct Taken {
    pub(crate) from: NodeId,
    pub(crate) contents: Contents,
    /// What to ask for next: a file, and where in it.
    next: (usize, u64),
    /// The files that were there already can be told from others.
    has_begun: bool,
    /// Their digests, as long as the other one's are not known.
    there: BTreeMap<u32, Vec<u8>>,
    /// Those that are the same, and are not asked for.
    same: BTreeSet<u32>,
    unanswered: VecDeque<(u32, u64)>,
    /// Bytes of what is being written.
    writes: VecDeque<u64>,
    /// Bytes of what was asked for and is not written yet.
    ahead_bytes: u64,
    asked_ms: u64,
    /// When anything came last.
    heard_ms: u64,
}

/// What came of a step of copying.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Copied {
    /// There is more to come.
    Part,
    /// All is there.
    Whole,
    /// It can't be gone on with.
    Failed,
}

/// What is to be done with files that are copied.
#[derive(Clone, Debug)]
pub enum Import {
    /// Make these files, empty but for those of their names and lengths that were copied before,
    /// and forget all others. `Event::Imported` tells which are there.
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
    /// Nothing more comes for now: what there is may be gone on with.
    Rest,
    /// Forget all of it.
    End,
}

impl Transfers {
    /// Whether the log must stay as it is.
    pub(super) fn hold_the_log(&self) -> bool {
        !self.given.is_empty() || !self.catching_up.is_empty()
    }

    /// Brings the worker's count of transfers up to date with this shard.
    /// One that nothing is wanted of for a while costs no more than the log that is kept for it.
    fn count(&mut self, now: Now, total: &mut usize) {
        let is_read = |given: &&Given| now.monotonic_ms < given.wanted_at.1 + GIVE_UP_MS;
        let now = self.given.values().filter(is_read).count();
        *total = *total - std::mem::replace(&mut self.counted, now) + now;
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
            self.transfers.renewals.clear();
            self.transfers.catching_up.clear();
            self.end_transfers(effects);
        }
        self.transfers.count(now, &mut peers.transfers);
        // An unsure segment would be found damaged where it is copied to.
        while !self.trimming.is_under_way()
            && self.log.unsure_segments() == 0
            && peers.transfers < TRANSFERS_MAX
            && let Some((node, answers)) = self.next_given(peers)
        {
            self.transfers.begun += 1;
            // A number that no other leader has given, nor this node in another life.
            let number = (self.replica.term().0 << 24) + self.transfers.begun;
            let configuration = self.replica.configuration().encode();
            let (asked_ms, wants) = (now.monotonic_ms, VecDeque::new());
            // Raft waits for the end of its own, whoever else is given something.
            self.end_export(node, false, effects);
            let wanted_at = (self.log.end().offset, now.monotonic_ms);
            let given = Given { number, wanted_at, configuration, asked_ms, answers, wants };
            self.transfers.given.insert(node, given);
            self.transfers.count(now, &mut peers.transfers);
            let begin = Begin {
                number,
                last: self.handed.0,
                start: self.log.start(),
                initial: self.log.configuration().to_vec(),
            };
            effects.push(Effect::Export { shard: self.id, begin });
        }
        self.read_parts(now, peers, effects);
        if let Some(taken) = &mut self.transfers.taken {
            taken.ask(self.id, now, peers);
        }
    }

    /// It goes: nobody is given anything of it any more.
    pub(crate) fn end_transfers(&mut self, effects: &mut Vec<Effect>) {
        for (_, given) in std::mem::take(&mut self.transfers.given) {
            effects.push(Effect::ExportEnd { shard: self.id, number: given.number });
        }
    }

    /// Takes its share out of the worker's count of transfers.
    pub(crate) fn forget_transfers(&mut self, total: &mut usize) {
        *total -= std::mem::take(&mut self.transfers.counted);
    }

    /// Whom to give all of this replica next, and for which closing: a closed one as soon as
    /// everything is committed here that it can have acknowledged. One that can't be reached now
    /// keeps nobody waiting.
    fn next_given(&mut self, peers: &Peers) -> Option<(NodeId, u64)> {
        let term = self.replica.term();
        self.transfers.renewals.retain(|_, renewal| renewal.barrier.1 == term);
        let handed = self.handed.0;
        let mut renewals = self.transfers.renewals.iter();
        let ready =
            renewals.find(|(node, renewal)| renewal.barrier.0 <= handed && peers.is_linked(**node));
        if let Some(node) = ready.map(|(node, _)| *node) {
            let renewal = self.transfers.renewals.remove(&node)?;
            return Some((node, renewal.number));
        }
        let linked = self.transfers.wanted.iter().find(|node| peers.is_linked(**node)).copied();
        linked.filter(|node| self.transfers.wanted.remove(node)).map(|node| (node, 0))
    }

    /// A replica of this shard is closed, and lost what it may have acknowledged. Whatever that can
    /// be, it lies before an entry that is staged now, if this replica leads; and if it turns out
    /// that it does not, that entry will not be committed.
    pub(crate) fn renew(&mut self, node: NodeId, number: u64, now: Now) {
        let is_known = self.transfers.given.get(&node).is_some_and(|given| given.answers == number)
            || self.transfers.renewals.get(&node).is_some_and(|known| known.number == number);
        let leads = self.replica.role() == Role::Leader;
        if is_known || !leads || !self.replica.configuration().contains(node) || number == 0 {
            return;
        }
        // An empty frame behind another of its term reads as the proof that all changes before it
        // are in force (`naust_consensus::is_seal`), so it must not lie behind one that is not.
        if self.admit().is_ok() && !self.replica.has_pending_change() {
            self.stage(Kind::Empty, b"", Waiter::NOBODY, now);
            let barrier = (self.log.end().index, self.replica.term());
            self.transfers.renewals.insert(node, Renewal { number, barrier });
        }
    }

    /// Reads parts that were asked for, while not too much waits for that node: as fast as they are
    /// asked for while no client writes, and as fast as commits bear while one does.
    fn read_parts(&mut self, now: Now, peers: &mut Peers, effects: &mut Vec<Effect>) {
        let Transfers { given, pace, written_ms, .. } = &mut self.transfers;
        let is_busy = written_ms.is_some_and(|at| now.monotonic_ms < at + BUSY_MS);
        pace.copying(!given.is_empty());
        let mut left = if is_busy { PARTS_AT_ONCE } else { usize::MAX };
        for (node, given) in given {
            while left > 0
                && !given.wants.is_empty()
                && peers.has_room_for_part(*node)
                && (!is_busy || pace.take(now.monotonic_ms))
                && let Some((file, at)) = given.wants.pop_front()
            {
                left -= 1;
                peers.part_is_read(*node);
                let part = Part { number: given.number, to: *node, file, at };
                effects.push(Effect::ExportRead { shard: self.id, part });
            }
        }
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
        let answers = self.transfers.given[&node].answers;
        if answers != 0 {
            return match contents {
                Some(contents) => {
                    peers.say(self.id, node, Said::Contents(Contents { answers, ..contents }));
                }
                None => self.end_given(node, effects),
            };
        }
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
    pub(crate) fn wanted(&mut self, from: NodeId, (number, file, at): (u64, u32, u64), now: Now) {
        let end = self.log.end().offset;
        let Some(given) = self.transfers.given.get_mut(&from) else { return };
        if given.number == number {
            given.asked_ms = now.monotonic_ms;
            given.wanted_at = (end, now.monotonic_ms);
            if given.wants.len() < WANTS_MAX && !given.wants.contains(&(file, at)) {
                given.wants.push_back((file, at));
            }
        }
    }

    /// A follower wants nothing for now, and is at what it has. It is not waited for when the log,
    /// which is kept for it, has grown too long.
    pub(crate) fn goes_on(&mut self, from: NodeId, number: u64, now: Now) {
        let end = self.log.end().offset;
        let Some(given) = self.transfers.given.get_mut(&from) else { return };
        let since = given.wanted_at.0;
        if given.number == number && end.0.saturating_sub(since.0) < CATCH_UP_LOG_BYTES_MAX {
            given.asked_ms = now.monotonic_ms;
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
        let Some(bytes) = bytes else { return self.end_export(part.to, false, effects) };
        let said = Said::Part { transfer: part.number, file: part.file, at: part.at };
        peers.say_with(self.id, part.to, said, |out| out.extend_from_slice(&bytes));
    }

    /// A follower has what it was given, or will not have it.
    pub(crate) fn installed(
        &mut self,
        from: NodeId,
        number: u64,
        ok: bool,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        if self.given(number) == Some(from) {
            self.end_export(from, ok, effects);
            if ok {
                // Trimmed now, the log would lack at once what the follower needs next.
                let (begun, moved_ms) = (self.log.end().offset, now.monotonic_ms);
                let catching_up = CatchingUp { begun, matched: Index(0), moved_ms };
                self.transfers.catching_up.insert(from, catching_up);
            }
        }
    }

    /// A transfer ends, well or not.
    fn end_export(&mut self, node: NodeId, ok: bool, effects: &mut Vec<Effect>) {
        self.propose();
        if self.transfers.given.get(&node).is_some_and(|given| given.answers == 0) {
            self.replica.snapshot_sent(node, ok);
        }
        self.end_given(node, effects);
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
        // One that answers a closed replica comes too late: this one is open.
        if contents.answers != 0 {
            return;
        }
        // Told twice, it begins once: what came of the first may still be on its way to the disk.
        let known = |taken: &Taken| taken.contents.transfer == contents.transfer;
        if self.transfers.taken.as_ref().is_some_and(known) {
            return;
        }
        if let Some(taken) = Taken::new(from, contents, now) {
            let import = Import::Begin(taken.contents.clone());
            let number = taken.contents.transfer;
            effects.push(Effect::Import { shard: self.id, number, import });
            self.transfers.taken = Some(taken);
        }
    }

    /// A part came.
    pub(crate) fn part(
        &mut self,
        from: NodeId,
        part: (u64, u32, u64),
        bytes: &[u8],
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        let Some(taken) = &mut self.transfers.taken else { return };
        match taken.part(from, part, bytes, now) {
            None => {}
            Some(Ok(import)) => {
                effects.push(Effect::Import { shard: self.id, number: part.0, import });
            }
            Some(Err(())) => {
                self.transfers.taken = None;
                effects.push(Effect::Import {
                    shard: self.id,
                    number: part.0,
                    import: Import::End,
                });
            }
        }
    }

    /// A write of what was copied ended. Gives what is to be taken in place of this replica, once
    /// all of it is there and is still wanted.
    pub(crate) fn imported(
        &mut self,
        number: u64,
        (ok, there): (bool, BTreeMap<u32, Vec<u8>>),
        peers: &mut Peers,
        effects: &mut Vec<Effect>,
    ) -> Option<(Adopt, NodeId)> {
        let taken = self.transfers.taken.as_mut()?;
        if taken.contents.transfer != number || taken.imported(ok, there) == Copied::Part {
            return None;
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
    pub(super) fn tick_transfers(&mut self, now: Now, peers: &Peers, effects: &mut Vec<Effect>) {
        let late = |given: &Given| now.monotonic_ms >= given.asked_ms + GIVE_UP_MS;
        let given = self.transfers.given.iter();
        let silent: Vec<NodeId> =
            given.filter(|(_, given)| late(given)).map(|(node, _)| *node).collect();
        for node in silent {
            self.end_export(node, false, effects);
        }
        let end = self.log.end().offset;
        let mut catching_up = std::mem::take(&mut self.transfers.catching_up);
        catching_up.retain(|node, follower| {
            let Some(matched) = self.matched(*node) else { return false };
            // It may be long about what it has before it takes more.
            if matched > follower.matched || peers.is_there(*node, now.monotonic_ms) {
                (follower.matched, follower.moved_ms) = (matched, now.monotonic_ms);
            }
            !self.keeps_up(*node, now)
                && now.monotonic_ms < follower.moved_ms + GIVE_UP_MS
                && end.0.saturating_sub(follower.begun.0) < CATCH_UP_LOG_BYTES_MAX
        });
        self.transfers.catching_up = catching_up;
        if self.transfers.taken.as_ref().is_some_and(|taken| taken.is_silent(now)) {
            let number = self.transfers.taken.take().map_or(0, |taken| taken.contents.transfer);
            effects.push(Effect::Import { shard: self.id, number, import: Import::Rest });
            self.transfers.left_until_ms = Some(now.monotonic_ms + KEEP_MS);
        }
    }

    /// Something may lie here of a transfer that ended with the process before this one.
    pub(crate) fn keep_what_is_left(&mut self, now: Now) {
        self.transfers.left_until_ms = Some(now.monotonic_ms + KEEP_MS);
    }

    /// What nobody went on with in all that time goes.
    pub(super) fn remove_what_is_left(&mut self, now: Now, effects: &mut Vec<Effect>) {
        let Transfers { left_until_ms, taken, .. } = &mut self.transfers;
        if left_until_ms.take_if(|at| *at <= now.monotonic_ms).is_some() && taken.is_none() {
            let (number, import) = (0, Import::End);
            effects.push(Effect::Import { shard: self.id, number, import });
        }
    }
}

impl Taken {
    /// A transfer whose contents were told; `None` if they can't be those of a replica.
    pub(crate) fn new(from: NodeId, contents: Contents, now: Now) -> Option<Taken> {
        is_possible(&contents).then(|| Taken {
            from,
            contents,
            next: (0, 0),
            has_begun: false,
            there: BTreeMap::new(),
            same: BTreeSet::new(),
            unanswered: VecDeque::new(),
            writes: VecDeque::from([0]),
            ahead_bytes: 0,
            asked_ms: now.monotonic_ms,
            heard_ms: now.monotonic_ms,
        })
    }

    /// Nothing of what was asked for came for so long that it is given up.
    pub(crate) fn is_silent(&self, now: Now) -> bool {
        !self.unanswered.is_empty() && now.monotonic_ms >= self.heard_ms + GIVE_UP_MS
    }

    /// Asks for parts, some ahead.
    pub(crate) fn ask(&mut self, shard: ShardId, now: Now, peers: &mut Peers) {
        let (from, transfer) = (self.from, self.contents.transfer);
        if now.monotonic_ms >= self.asked_ms + ASK_AGAIN_MS {
            self.asked_ms = now.monotonic_ms;
            if self.unanswered.is_empty() {
                peers.say(shard, from, Said::Keep { transfer });
            }
            for (file, at) in self.unanswered.iter().copied() {
                peers.say(shard, from, Said::Want { transfer, file, at });
            }
        }
        while self.has_begun
            && self.unanswered.len() + self.writes.len() < PARTS_AHEAD
            && self.ahead_bytes < TRANSFER_AHEAD_BYTES_MAX as u64
            && let Some((_, bytes)) = self.contents.files.get(self.next.0)
        {
            let (file, at) = self.next;
            let is_there = self.there.contains_key(&(file as u32));
            if is_there && self.unanswered.contains(&(file as u32, DIGEST_AT)) {
                break;
            }
            self.next = match at + TRANSFER_PART_BYTES as u64 {
                _ if is_there => self.next,
                next if next < *bytes => (file, next),
                _ => (file + 1, 0),
            };
            if *bytes == 0 || self.same.contains(&(file as u32)) {
                self.next = (file + 1, 0);
                continue;
            }
            let at = if is_there { DIGEST_AT } else { at };
            if self.unanswered.is_empty() {
                (self.asked_ms, self.heard_ms) = (now.monotonic_ms, now.monotonic_ms);
            }
            self.ahead_bytes += bytes.saturating_sub(at).min(TRANSFER_PART_BYTES as u64);
            let file = file as u32;
            self.unanswered.push_back((file, at));
            peers.say(shard, from, Said::Want { transfer, file, at });
        }
    }

    /// A part came: what is to be written. `None` if it was not asked for; an error if it is not
    /// what was told of the file.
    pub(crate) fn part(
        &mut self,
        from: NodeId,
        (number, file, at): (u64, u32, u64),
        bytes: &[u8],
        now: Now,
    ) -> Option<Result<Import, ()>> {
        let place = self.unanswered.iter().position(|wanted| *wanted == (file, at))?;
        if self.from != from || self.contents.transfer != number {
            return None;
        }
        let (name, length) = &self.contents.files[file as usize];
        if at == DIGEST_AT {
            self.unanswered.remove(place);
            (self.asked_ms, self.heard_ms) = (now.monotonic_ms, now.monotonic_ms);
            if self.there.remove(&file).is_some_and(|digest| digest == bytes) {
                self.same.insert(file);
            }
            // Nothing is to be written, but when it was the last one, all is there.
            self.writes.push_back(0);
            return Some(Ok(Import::Part { name: name.clone(), at: 0, bytes: Vec::new() }));
        }
        if bytes.len() as u64 != (length - at).min(TRANSFER_PART_BYTES as u64) {
            return Some(Err(()));
        }
        self.unanswered.remove(place);
        (self.asked_ms, self.heard_ms) = (now.monotonic_ms, now.monotonic_ms);
        self.writes.push_back(bytes.len() as u64);
        Some(Ok(Import::Part { name: name.clone(), at, bytes: bytes.to_vec() }))
    }

    /// A write of what was copied ended.
    pub(crate) fn imported(&mut self, ok: bool, there: BTreeMap<u32, Vec<u8>>) -> Copied {
        if !std::mem::replace(&mut self.has_begun, true) {
            self.there = there;
        }
        self.ahead_bytes -= self.writes.pop_front().unwrap_or(0);
        let is_asked = self.next.0 == self.contents.files.len() && self.unanswered.is_empty();
        match (ok, is_asked && self.writes.is_empty()) {
            (false, _) => Copied::Failed,
            (true, true) => Copied::Whole,
            (true, false) => Copied::Part,
        }
    }
}

/// Whether files of these lengths can be a replica's. Another node may say anything.
fn is_possible(contents: &Contents) -> bool {
    let Some(layout) = Layout::new(contents.segment_bytes) else { return false };
    let has_bytes = contents.files.iter().any(|(_, bytes)| *bytes > 0);
    has_bytes
        && contents.files.iter().all(|(name, bytes)| match name.strip_prefix(LOG) {
            // Log bytes, and a footer that is far shorter.
            Some(name) => {
                layout.base_in_name(name).is_some() && *bytes <= 2 * layout.segment_bytes()
            }
            None => *bytes <= TRANSFER_FILE_BYTES_MAX,
        })
}
