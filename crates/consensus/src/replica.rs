//! The face itself: one replica of one shard.

use crate::configuration::{Bad, Configuration};
use crate::entries::{Entries, raft_entry};
use crate::members::Questions;
use crate::reads::Reads;
use crate::seal::Seal;
use crate::transfer::Transfers;
use crate::{Entry, EntryKind, HardState, Message, MessageKind, Ready, Role, Start};
use naust_wire::planted::{self, Bug};
use naust_wire::{Index, NodeId, Term};
use raft::{Config, Raft, StateRole, eraftpb};
use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;

/// Ticks between two heartbeats of a leader.
pub const HEARTBEAT_TICKS: usize = 2;
/// Ticks without a leader before a replica campaigns, at the least; at the most twice as many.
pub const ELECTION_TICKS: usize = 8;

/// Appends under way to one follower, in messages.
pub(crate) const APPENDS_MAX: usize = 256;
/// The same, of a follower that is far behind: Raft makes all of them at once, each of thousands of
/// entries, whenever it begins anew with it.
pub(crate) const APPENDS_BEHIND_MAX: usize = 16;
/// Entries count a few bytes for Raft, since their bodies are not here: this many a message.
const APPEND_BYTES_MAX: u64 = 16 * 1024;

/// This replica does not lead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this replica does not lead its shard")]
pub struct NotLeader {
    /// Who does, as far as is known.
    pub leader: Option<NodeId>,
}

/// What a replica can't start from: the log, the tables and the superblock contradict each other.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadStart {
    /// The configuration can't be read.
    #[error("the shard's configuration: {0}")]
    Configuration(#[from] Bad),
    /// Ends, terms and marks don't fit together.
    #[error("the shard's log and tables don't fit together: {0}")]
    Inconsistent(&'static str),
}

/// One replica of one shard. See the crate's doc for its use.
pub struct Replica {
    pub(crate) raft: Raft<Entries>,
    pub(crate) configuration: Configuration,
    pub(crate) reads: Reads,
    pub(crate) transfers: Transfers,
    pub(crate) seal: Seal,
    /// Messages that can't be true.
    pub(crate) refused: u64,
    /// What it asks as long as nobody leads it.
    pub(crate) questions: Questions,
    seed: u64,
    /// What the last Ready told, to tell changes only.
    told: Told,
    /// Readies whose entries or hard state are not durable yet, oldest first.
    unpersisted: VecDeque<Unpersisted>,
    /// Messages whose promise became durable, for the next Ready.
    released: Vec<Message>,
    /// As of the last movement.
    led: bool,
    /// A term that nobody else leads: a lone voter has voted for itself in it.
    pub(crate) own_term: Term,
    /// What each follower was told last to be committed, in this term.
    pub(crate) noticed: BTreeMap<u64, u64>,
    /// Entries without a body, to be proposed again and again.
    proposal: Vec<eraftpb::Entry>,
}

struct Told {
    number: u64,
    hard: HardState,
    role: Role,
    committed: u64,
}

struct Unpersisted {
    number: u64,
    /// It makes a term durable.
    hard: bool,
    last: Option<(u64, u64)>,
    messages: Vec<Message>,
}

impl Replica {
    /// A replica that follows nobody yet. A lone voter leads after [`Replica::campaign`].
    ///
    /// # Errors
    /// [`BadStart`].
    pub fn new(start: &Start) -> Result<Replica, BadStart> {
        let configuration = Configuration::decode(&start.configuration)?;
        check(start)?;
        let lone = configuration.is_lone_voter(start.node);
        // Another replica that has not heard of that may still lead, and answer reads by what it
        // takes for committed. It can't without this one, which is in no term that others lead.
        let trusts = lone && start.hard.vote == start.node;
        let committed = if lone && !trusts { start.applied } else { start.committed };
        let entries = Entries::new(start, committed, configuration.to_raft());
        let config = Config {
            id: start.node.0,
            election_tick: ELECTION_TICKS,
            min_election_tick: ELECTION_TICKS,
            max_election_tick: 2 * ELECTION_TICKS + 1,
            heartbeat_tick: HEARTBEAT_TICKS,
            applied: start.applied.0,
            max_size_per_msg: APPEND_BYTES_MAX,
            max_inflight_msgs: APPENDS_MAX,
            check_quorum: true,
            pre_vote: true,
            // That would be an append to each follower, and an answer. See `notices`.
            skip_bcast_commit: true,
            ..Config::default()
        };
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let raft = Raft::new(&config, entries, &logger)
            .map_err(|_| BadStart::Inconsistent("Raft refuses the configuration"))?;
        let told = Told {
            number: 0,
            hard: start.hard,
            role: Role::Follower(NodeId(0)),
            committed: start.applied.0,
        };
        let mut replica = Replica {
            raft,
            configuration,
            reads: Reads::new(start.seed),
            transfers: Transfers::default(),
            seal: Seal { configured: start.configured.map(|index| index.0), ..Seal::default() },
            refused: 0,
            questions: Questions::default(),
            // Not the exclusive or of both: seeds may well be made from ids.
            seed: mix(start.seed.wrapping_add(mix(start.node.0))),
            told,
            unpersisted: VecDeque::new(),
            released: Vec::new(),
            led: false,
            own_term: if trusts { start.hard.term } else { Term(0) },
            noticed: BTreeMap::new(),
            proposal: Vec::new(),
        };
        replica.settle();
        Ok(replica)
    }

    /// A tick passed. Tells whether something moved.
    pub fn tick(&mut self) -> bool {
        let waiting = self.raft.state != StateRole::Leader && !self.may_campaign();
        let due = self.raft.election_elapsed + 1 >= self.raft.randomized_election_timeout();
        let moved = !(waiting && due) && self.raft.tick();
        if waiting && due {
            self.ask_what_is_committed();
        }
        self.tick_reads();
        self.settle();
        moved || !self.raft.msgs.is_empty()
    }

    /// Asks for votes now, if this replica votes and all of its log is durable. A lone voter leads
    /// after this.
    pub fn campaign(&mut self) {
        if self.may_campaign() {
            let mut message = eraftpb::Message::default();
            message.set_msg_type(eraftpb::MessageType::MsgHup);
            self.raft.election_elapsed = 0;
            // A campaign that can't be is one that is not.
            let _ = self.raft.step(message);
            self.settle();
        }
    }

    /// Raft takes a candidate's log for durable, and asks whoever it is told to to campaign.
    pub(crate) fn may_campaign(&self) -> bool {
        let log = &self.raft.raft_log;
        let durable = self.unpersisted.is_empty() && log.persisted == log.last_index();
        durable && self.raft.promotable() && self.transfers.installing.is_none()
    }

    /// Appends `count` entries that have bodies; tells their term and indices.
    ///
    /// # Errors
    /// [`NotLeader`], also while leadership is being handed over.
    ///
    /// # Panics
    /// If `count` is zero: a bug of the caller.
    pub fn propose(&mut self, count: usize) -> Result<(Term, Range<Index>), NotLeader> {
        assert!(count > 0, "nothing is proposed");
        self.check_may_propose()?;
        let mut proposal = std::mem::take(&mut self.proposal);
        if proposal.len() < count {
            proposal.resize_with(count, || raft_entry(&EntryKind::Normal));
        }
        let indices = self.append(&mut proposal[..count]);
        self.proposal = proposal;
        Ok((Term(self.raft.term), indices))
    }

    /// What must happen now, if anything. To be called until `None` after everything that moved.
    pub fn ready(&mut self) -> Option<Ready> {
        let mut ready = Ready {
            messages: std::mem::take(&mut self.released),
            committed: self.newly_committed(),
            role: self.new_role(),
            ..Ready::default()
        };
        let last = self.take_entries(&mut ready);
        let hard = self.hard();
        if hard != self.told.hard {
            self.told.hard = hard;
            ready.hard = Some(hard);
        }
        self.take_reads(&mut ready.reads);
        ready.snapshots_wanted = self.take_wanted();
        ready.offered = self.take_offered();
        self.take_messages(&mut ready, last);
        self.note_told(&ready.messages);
        (ready != Ready::default()).then_some(ready)
    }

    /// Everything that the Ready of this number, and those before it, asked to be durable is.
    pub fn persisted(&mut self, number: u64) {
        let mut last = None;
        while let Some(first) = self.unpersisted.front()
            && first.number <= number
        {
            let done = self.unpersisted.pop_front().expect("it was just seen");
            last = done.last.or(last);
            self.released.extend(done.messages);
        }
        if let Some((index, term)) = last {
            self.raft.on_persist_entries(index, term);
        }
        self.settle();
    }

    /// The views have folded in everything up to `index`. Configurations up to there are in
    /// force.
    ///
    /// # Panics
    /// If it was not told to be committed: a bug of the caller.
    pub fn applied(&mut self, index: Index) {
        let committed = self.told.committed;
        assert!(index.0 <= committed, "applied {index}, but only {committed} was told committed");
        while let Some((at, bytes)) = self.raft.store().configure_after(self.raft.raft_log.applied)
            && at <= index.0
        {
            let next = Configuration::decode(bytes).expect("it was read when it came in");
            self.enforce(at, next);
        }
        if index.0 > self.raft.raft_log.applied {
            self.raft.commit_apply(index.0);
        }
        self.settle();
    }

    /// The log holds nothing up to `index` any more. It is to be applied.
    pub fn forget(&mut self, index: Index) {
        if index.0 <= self.raft.raft_log.applied {
            self.raft.mut_store().forget(index.0);
        }
    }

    /// Whether entries were appended that no Ready has brought yet: those of `propose`, or its own.
    /// Whoever foresees indices is to take them in first.
    #[must_use]
    pub fn has_appended(&self) -> bool {
        !self.raft.raft_log.unstable_entries().is_empty()
    }

    /// What this replica is now.
    #[must_use]
    pub fn role(&self) -> Role {
        match self.raft.state {
            StateRole::Leader => Role::Leader,
            StateRole::Follower => Role::Follower(NodeId(self.raft.leader_id)),
            StateRole::Candidate | StateRole::PreCandidate => Role::Candidate,
        }
    }

    /// Who leads, as far as is known.
    #[must_use]
    pub fn leader(&self) -> Option<NodeId> {
        (self.raft.leader_id != 0).then_some(NodeId(self.raft.leader_id))
    }

    /// The current term.
    #[must_use]
    pub fn term(&self) -> Term {
        Term(self.raft.term)
    }

    /// The configuration in force.
    #[must_use]
    pub fn configuration(&self) -> &Configuration {
        &self.configuration
    }

    /// Whether this replica is the only voter: it needs no ticks and waits for nobody.
    #[must_use]
    pub fn is_lone_voter(&self) -> bool {
        self.configuration.is_lone_voter(NodeId(self.raft.id))
    }

    /// Whether `propose` would say yes: it leads, and is not handing leadership over.
    #[must_use]
    pub fn may_propose(&self) -> bool {
        self.check_may_propose().is_ok()
    }

    /// Up to where entries are known to be committed, whether they are durable here or not.
    #[must_use]
    pub fn committed(&self) -> Index {
        Index(self.raft.raft_log.committed)
    }

    pub(crate) fn id(&self) -> NodeId {
        NodeId(self.raft.id)
    }

    pub(crate) fn told_committed(&self) -> u64 {
        self.told.committed
    }

    /// Nothing waits for the disk, for the caller or for an answer.
    pub(crate) fn is_idle(&self) -> bool {
        let sent = self.raft.msgs.is_empty() && self.released.is_empty();
        sent && self.unpersisted.is_empty() && self.reads.is_empty()
    }

    pub(crate) fn check_may_propose(&self) -> Result<(), NotLeader> {
        if self.raft.state != StateRole::Leader {
            return Err(NotLeader { leader: self.leader() });
        }
        if self.raft.lead_transferee.is_some() {
            return Err(NotLeader { leader: None });
        }
        Ok(())
    }

    pub(crate) fn append(&mut self, entries: &mut [eraftpb::Entry]) -> Range<Index> {
        let taken = self.raft.append_entry(entries);
        assert!(taken, "Raft has no limit on what is uncommitted");
        self.raft.bcast_append();
        let last = entries[entries.len() - 1].index;
        Index(entries[0].index)..Index(last + 1)
    }

    /// What follows from any movement.
    pub(crate) fn settle(&mut self) {
        // Raft draws it from the system's randomness whenever it resets itself.
        let ticks = election_ticks(self.seed, self.raft.term);
        if self.raft.randomized_election_timeout() != ticks {
            self.raft.set_randomized_election_timeout(ticks);
        }
        let leads = self.raft.state == StateRole::Leader;
        if leads && !self.led {
            // What they knew under another leader may be forgotten since.
            let id = self.raft.id;
            let others = self.raft.mut_prs().iter_mut().filter(|(other, _)| **other != id);
            others.for_each(|(_, progress)| progress.committed_index = 0);
            self.seal.led_from = self.raft.pending_conf_index;
            self.noticed.clear();
        }
        self.led = leads;
        self.settle_joint();
        self.settle_seal();
        self.settle_transfers();
        self.settle_reads();
    }

    /// The log begins anew behind what was installed.
    pub(crate) fn installed(&mut self, index: Index, configuration: Configuration) {
        assert!(self.raft.raft_log.applied == index.0, "it is applied");
        self.told.committed = index.0;
        self.configuration = configuration;
        self.seal.configured = Some(0);
        self.unpersisted.iter_mut().for_each(|unpersisted| unpersisted.last = None);
    }

    /// Answers to appends that wait for the disk, or for the caller.
    pub(crate) fn drop_append_answers(&mut self) {
        let other = |message: &Message| message.kind != MessageKind::AppendAnswer;
        self.unpersisted.iter_mut().for_each(|unpersisted| unpersisted.messages.retain(other));
        self.released.retain(other);
        let answer = eraftpb::MessageType::MsgAppendResponse;
        self.raft.msgs.retain(|message| message.get_msg_type() != answer);
    }

    fn hard(&self) -> HardState {
        let vote = if planted::has(Bug::ForgetVote) { 0 } else { self.raft.vote };
        HardState { term: Term(self.raft.term), vote: NodeId(vote) }
    }

    fn newly_committed(&mut self) -> Option<Index> {
        let log = &self.raft.raft_log;
        let alone = planted::has(Bug::CommitAlone) && self.raft.r.state == StateRole::Leader;
        let committed = self.provable(log.committed.min(log.persisted));
        let committed = if alone { log.persisted } else { committed };
        (committed > self.told.committed).then(|| {
            self.told.committed = committed;
            Index(committed)
        })
    }

    fn new_role(&mut self) -> Option<Role> {
        let role = self.role();
        (role != self.told.role).then(|| {
            self.told.role = role;
            role
        })
    }

    /// Moves what Raft appended from its own list to storage's keeping and into the Ready.
    fn take_entries(&mut self, ready: &mut Ready) -> Option<(u64, u64)> {
        let log = &mut self.raft.raft_log;
        let last = log.unstable.entries.last().map(|entry| (entry.index, entry.term))?;
        ready.cut_after = log.store.append(&log.unstable.entries).map(Index);
        ready.entries.extend(log.unstable.entries.iter().map(Entry::from_raft));
        log.stable_entries(last.0, last.1);
        if let Some(cut) = ready.cut_after {
            // What an earlier Ready brings behind the cut goes again. If a later leader brings the
            // same entries back, Raft would take the first time for the second one.
            let kept = (cut.0, log.store.term_of(cut.0));
            let lasts = self.unpersisted.iter_mut().filter_map(|ready| ready.last.as_mut());
            lasts.filter(|last| last.0 > cut.0).for_each(|last| *last = kept);
        }
        if planted::has(Bug::LeaderCountsEarly) && self.raft.r.state == StateRole::Leader {
            self.raft.on_persist_entries(last.0, last.1);
        }
        Some(last)
    }

    /// Messages of a leader may leave beside its own write; all others promise what it makes
    /// durable.
    fn take_messages(&mut self, ready: &mut Ready, last: Option<(u64, u64)>) {
        let messages = self.raft.msgs.drain(..).filter_map(Message::from_raft);
        let persists = last.is_some() || ready.hard.is_some();
        if persists {
            self.told.number += 1;
            ready.number = self.told.number;
            let number = ready.number;
            let hard = ready.hard.is_some();
            self.unpersisted.push_back(Unpersisted { number, hard, last, messages: Vec::new() });
        }
        // A lone voter leads a term at once; learners must not hear of it before its disk does, or
        // it may lead the same term again, with other entries, after a crash.
        let rests = self.unpersisted.iter().any(|unpersisted| unpersisted.hard);
        match self.unpersisted.back_mut() {
            Some(unpersisted)
                if (rests || self.raft.r.state != StateRole::Leader)
                    && !planted::has(Bug::FollowerAcksEarly) =>
            {
                unpersisted.messages.extend(messages);
            }
            _ => ready.messages.extend(messages),
        }
    }
}

fn check(start: &Start) -> Result<(), BadStart> {
    let inconsistent = |what| Err(BadStart::Inconsistent(what));
    if start.node == NodeId(0) {
        return inconsistent("the node has no id");
    }
    if start.last < start.before_first {
        return inconsistent("the log ends before it begins");
    }
    if start.applied < start.before_first {
        return inconsistent("the log begins after what the tables lack");
    }
    if start.applied > start.last {
        return inconsistent("the tables are ahead of the log");
    }
    if start.committed < start.applied || start.committed > start.last {
        return inconsistent("what is committed lies outside the log");
    }
    let ascend = start.terms.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 < pair[1].1);
    let begin = start.terms.first().map(|(index, _)| *index);
    let fits = match begin {
        None => start.last == start.before_first,
        Some(begin) => begin == start.before_first.next() && start.last >= begin,
    };
    let end = start.terms.last().is_none_or(|(index, _)| *index <= start.last);
    if !ascend || !fits || !end {
        return inconsistent("its terms are out of order");
    }
    let newest = start.terms.last().map_or(start.before_first_term, |(_, term)| *term);
    if newest > start.hard.term {
        return inconsistent("its superblock is older than its log");
    }
    let decodes = |bytes: &[u8]| Configuration::decode(bytes).map(|_| ());
    start.configure.iter().try_for_each(|(_, bytes)| decodes(bytes))?;
    Ok(())
}

/// The election timeout of a term: more than [`ELECTION_TICKS`], at most twice as many.
fn election_ticks(seed: u64, term: u64) -> usize {
    let mixed = mix(seed.wrapping_add(term.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
    ELECTION_TICKS + 1 + (mixed % ELECTION_TICKS as u64) as usize
}

/// Spreads a number over all bits, as in splitmix64 (Steele, Lea and Flood, "Fast Splittable
/// Pseudorandom Number Generators", 2014).
fn mix(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replicas_do_not_time_out_together() {
        // Whatever the seeds are made of: one for all, or the node's id again.
        for seed in [|_| 7, |node: u64| node, |node: u64| node ^ 7] {
            let of = |node: u64| mix(seed(node).wrapping_add(mix(node)));
            let equal = (1..200).filter(|term| {
                let ticks = [1, 2, 3].map(|node| election_ticks(of(node), *term));
                ticks[0] == ticks[1] || ticks[1] == ticks[2]
            });
            assert!(equal.count() < 80);
        }
    }
}
