//! Opening and making a shard: blocking, on a background thread of the shell.
//!
//! ```text
//!   Log::open ─► Machine::open ─► replay from disk up to what the tables hold ─► Replica::new
//!                                                                        │
//!   ForViews ─► Views::install       then       ForWorker ─► Event::Opened
//! ```
//! What lies in the log above that is not folded in here: it goes the way of every commit, as
//! soon as the replica knows that it is committed, which for a lone voter is at once.

use crate::answer::Readers;
use crate::event::Progress;
use crate::repair::{self, Damaged, Trouble};
use naust_consensus::{
    BadStart, Configuration, EntryKind, HardState, Replica, Start, is_seal, known_changes,
};
use naust_log::layout::Position;
use naust_log::{Depth, Disk, Identity, Layout, Log, ReadError, Survey};
use naust_machine::{Fault, Machine, MachineOptions, Resume, Tables};
use naust_wire::control::Control;
use naust_wire::frame::Kind;
use naust_wire::options::NamespaceOptions;
use naust_wire::planted::{self, Bug};
use naust_wire::reply::Failure;
use naust_wire::{Code, Index, NodeId, Offset, ShardId};
use std::collections::{BTreeMap, VecDeque};
use std::io::ErrorKind;
use std::sync::Arc;

/// Bytes of one read while frames are replayed.
const READ_BYTES: usize = 1024 * 1024;

/// What of an opened shard the worker gets.
pub struct ForWorker {
    /// Which.
    pub shard: ShardId,
    pub(crate) replica: Replica,
    pub(crate) log: Log,
    pub(crate) applied: Progress,
    /// Segments of the log whose footers were made again.
    pub(crate) footers: usize,
    /// Where each frame ends that the tables lack.
    pub(crate) tail: VecDeque<Offset>,
    /// Of the directory: where nodes may be reached, as far as tables and log tell, whether that is
    /// committed or not. Without it nobody would find anybody after a power cut of all.
    pub(crate) addresses: BTreeMap<NodeId, String>,
}

impl ForWorker {
    /// Its log, to be looked at.
    #[must_use]
    pub fn log(&self) -> &Log {
        &self.log
    }
}

/// What of an opened shard the views thread gets.
pub struct ForViews<T: Tables> {
    pub(crate) machine: Machine<T>,
    pub(crate) segment_bytes: u64,
    pub(crate) log: naust_log::Reader,
}

impl<T: Tables> ForViews<T> {
    /// What reads threads get.
    #[must_use]
    pub fn readers(&self) -> Readers<T::Reader> {
        Readers { tables: self.machine.reader(), log: self.log.clone() }
    }

    /// The machine, to be looked at.
    #[must_use]
    pub fn machine(&self) -> &Machine<T> {
        &self.machine
    }
}

/// Why a shard can't be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Its log.
    #[error("the log: {0}")]
    Log(#[from] naust_log::OpenError),
    /// Frames that its tables lack can't be read.
    #[error("frames that the tables lack: {0}")]
    Replay(#[from] ReadError),
    /// Its tables.
    #[error("{0}")]
    Tables(#[from] Fault),
    /// Something of it is gone that was there.
    #[error("{0}; restore it from a backup")]
    Lost(String),
    /// Its tables are gone, though its log is there.
    #[error("{0}; restore it from a backup")]
    NoTables(String),
    /// The directory that holds it can't be used.
    #[error("its directory: {0}")]
    Directory(std::io::Error),
    /// Log, tables and superblock contradict each other.
    #[error("{0}")]
    Start(#[from] BadStart),
    /// It was made by another node.
    #[error("it belongs to node {found}, not {wanted}")]
    Node {
        /// The node that made it.
        found: NodeId,
        /// This node.
        wanted: NodeId,
    },
}

impl OpenError {
    /// What its clients are told: [`Event::NotOpened`](crate::Event::NotOpened).
    #[must_use]
    pub fn failure(&self) -> Failure {
        use naust_log::OpenError as LogError;
        let of_kind = |kind: ErrorKind| match kind {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Code::DiskFull,
            _ => Code::Unavailable,
        };
        let code = match self {
            OpenError::Tables(fault) if fault.disk_full => Code::DiskFull,
            OpenError::Log(LogError::Io(fault)) => of_kind(fault.kind()),
            OpenError::Directory(error) => of_kind(error.kind()),
            _ => Code::Corrupt,
        };
        Failure::new(code, format!("the namespace can't be opened: {self}"))
    }
}

/// Whether other replicas may help one that did not open: then what about it is damaged, and where
/// they may be. `number` tells this closing from all others of the replica. Blocking.
#[must_use]
pub fn trouble(
    error: &OpenError,
    disk: Arc<dyn Disk>,
    node: NodeId,
    number: u64,
) -> Option<Trouble> {
    use naust_log::OpenError as LogError;
    repair::look_into(disk, node, number, |survey| match error {
        OpenError::Log(LogError::Damaged { .. }) => {
            let (damage, reader) = (survey.damage.clone(), survey.reader());
            Some(Damaged::Frames { damage, reader })
        }
        OpenError::Replay(ReadError::Damaged(damage)) => {
            let (damage, reader) = (vec![*damage], survey.reader());
            Some(Damaged::Frames { damage, reader })
        }
        OpenError::NoTables(_) => Some(Damaged::Tables { is_log_whole: is_whole(survey) }),
        OpenError::Tables(fault) if !fault.disk_full => {
            Some(Damaged::Tables { is_log_whole: is_whole(survey) })
        }
        _ => None,
    })
}

/// Whether a log has all frames from the first on, so that tables can be folded anew from it.
/// Blocking.
///
/// # Errors
/// Of the log.
pub fn has_all(disk: Arc<dyn Disk>) -> Result<bool, naust_log::OpenError> {
    Survey::new(disk, Depth::Tail).map(|survey| is_whole(&survey))
}

fn is_whole(survey: &Survey) -> bool {
    survey.start == Position::ORIGIN
}

/// What a shard is opened with.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// This node.
    pub node: NodeId,
    /// The options of its namespace.
    pub namespace: NamespaceOptions,
    /// How its machine spends memory and log; the namespace's history is put in.
    pub machine: MachineOptions,
    /// Seeds the election timeouts.
    pub seed: u64,
}

/// Makes the log of a new replica of a shard that begins with `configuration`, encoded: on all its
/// replicas the same. Its tables begin empty.
///
/// # Errors
/// Of the disk; `AlreadyExists` if there is a log.
pub fn create(
    disk: &dyn Disk,
    identity: Identity,
    configuration: &[u8],
) -> Result<(), naust_log::Fault> {
    create_with(disk, identity, configuration, Layout::STANDARD)
}

/// As [`create`], with segments of another length: for tests and simulations, which want many.
///
/// # Errors
/// As [`create`].
pub fn create_with(
    disk: &dyn Disk,
    identity: Identity,
    configuration: &[u8],
    layout: Layout,
) -> Result<(), naust_log::Fault> {
    Log::create_with(disk, identity, configuration, layout)
}

/// Opens a shard and replays what its tables lack of what they once held.
///
/// # Errors
/// [`OpenError`].
pub fn shard<T: Tables>(
    disk: Arc<dyn Disk>,
    tables: T,
    shard: ShardId,
    options: &Options,
) -> Result<(ForWorker, ForViews<T>), OpenError> {
    let (log, found_in_log) = Log::open(disk, shard)?;
    let found = log.identity().node;
    if found != options.node {
        return Err(OpenError::Node { found, wanted: options.node });
    }
    let (mut machine, resume) = Machine::open(shard, tables)?;
    machine.set_options(options.machine.with_history(&options.namespace));
    let reader = log.reader();
    replay(&mut machine, &reader, &resume)?;
    let mut tail = tail(&reader, &resume)?;
    let known = machine.directory().nodes();
    let mut addresses: BTreeMap<NodeId, String> =
        known.map(|(node, member)| (node, member.address.clone())).collect();
    addresses.append(&mut tail.addresses);
    let start = start(&log, &resume, &tail, options);
    let replica = Replica::new(&start)?;
    let applied = Progress {
        shard,
        applied: resume.applied.applied,
        next: resume.applied.next.max(Offset::FIRST),
        index: resume.applied.index,
        backlog_bytes: 0,
        memory_bytes: 0,
        disk_full: false,
        needs: None,
        floors: None,
        ages: true,
        wants_synced: None,
        closed: machine.is_closed(),
    };
    let segment_bytes = log.layout().segment_bytes();
    let for_views = ForViews { machine, segment_bytes, log: reader };
    let (footers, tail) = (found_in_log.footers, tail.ends);
    let for_worker = ForWorker { shard, replica, log, applied, footers, tail, addresses };
    Ok((for_worker, for_views))
}

fn replay<T: Tables>(
    machine: &mut Machine<T>,
    reader: &naust_log::Reader,
    resume: &Resume,
) -> Result<(), OpenError> {
    let (mut at, to) = (resume.replay_from, resume.applied.next);
    while at < to {
        let chunk = reader.frames(at, to, READ_BYTES)?;
        for frame in chunk.frames() {
            machine.replay(&frame)?;
        }
        if chunk.next() <= at {
            return Err(ReadError::Beyond.into());
        }
        at = chunk.next();
    }
    Ok(())
}

fn start(log: &Log, resume: &Resume, tail: &Tail, options: &Options) -> Start {
    let hard = log.hard_state();
    let (first, last, applied) = (log.start(), log.end().index, resume.applied.index);
    // The log proves that some changes are in force, though the tables may not know it yet. Without
    // that, a node that voted alone once would believe for a moment that it still does.
    let (mut known, configure) = tail.configure.split_at(known_changes(&tail.configure, tail.seal));
    if planted::has(Bug::OldConfiguration) {
        known = &[];
    }
    let known = known.last();
    let configured = known.map(|(index, _)| *index);
    let configuration = known.map(|(_, bytes)| bytes.clone());
    let configuration = configuration.or_else(|| resume.configuration.clone());
    let configured = configured.or(configuration.is_some().then_some(Index(0)));
    let configuration = configuration.unwrap_or_else(|| log.configuration().to_vec());
    let known = known.map_or(applied, |(index, _)| *index);
    let is_lone = Configuration::decode(&configuration)
        .is_ok_and(|configuration| configuration.is_lone_voter(options.node));
    Start {
        node: options.node,
        hard: HardState { term: hard.term, vote: hard.vote },
        before_first: first.index,
        before_first_term: first.term,
        last,
        terms: terms(log),
        applied,
        // A lone voter commits alone, up to where others may have come to vote.
        committed: match (is_lone, configure.first()) {
            (true, Some((index, _))) => *index,
            (true, None) => last,
            (false, _) => known,
        },
        configuration,
        configured,
        configure: configure.to_vec(),
        seal: tail.seal,
        seed: options.seed,
    }
}

/// The runs of terms behind the log's start, the first of them cut to where the log begins.
fn terms(log: &Log) -> Vec<(Index, naust_wire::Term)> {
    let (first, last) = (log.start().index.next(), log.end().index);
    if first > last {
        return Vec::new();
    }
    let mut terms: Vec<_> = log.terms().to_vec();
    let begun = terms.partition_point(|(index, _)| *index <= first);
    terms.drain(..begun.saturating_sub(1));
    terms.iter_mut().take(1).for_each(|(index, _)| *index = (*index).max(first));
    terms
}

/// What of the log is not folded in yet.
#[derive(Default)]
struct Tail {
    /// Its configuration entries.
    configure: Vec<(Index, Vec<u8>)>,
    /// The last proof in it that those in front are in force.
    seal: Index,
    /// Where its frames end.
    ends: VecDeque<Offset>,
    /// Where its frames say that nodes are.
    addresses: BTreeMap<NodeId, String>,
}

fn tail(reader: &naust_log::Reader, resume: &Resume) -> Result<Tail, OpenError> {
    let mut at = resume.applied.next.max(Offset::FIRST);
    let mut tail = Tail::default();
    let mut term = None;
    while at < reader.end() {
        let chunk = reader.frames(at, reader.end(), READ_BYTES)?;
        for frame in chunk.frames() {
            tail.ends.push_back(frame.header.end());
            let before = term.replace(frame.header.term);
            match frame.header.kind {
                Kind::Configure => {
                    tail.configure.push((frame.header.index, frame.body.to_vec()));
                }
                Kind::Empty
                    if before.is_some_and(|before| {
                        is_seal(&EntryKind::Empty, frame.header.term, before)
                    }) =>
                {
                    tail.seal = frame.header.index;
                }
                Kind::Control => {
                    if let Ok(Control::SetNode { node, address, .. }) = Control::decode(frame.body)
                    {
                        tail.addresses.insert(node, address);
                    }
                }
                _ => {}
            }
        }
        if chunk.next() <= at {
            break;
        }
        at = chunk.next();
    }
    Ok(tail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_pass_is_not_called_corrupt() {
        for (error, code) in [
            (ErrorKind::StorageFull.into(), Code::DiskFull),
            (std::io::Error::from_raw_os_error(24), Code::Unavailable),
        ] {
            assert_eq!(OpenError::Directory(error).failure().code, code);
        }
        let fault = Fault { what: "a bad table".to_string(), disk_full: false };
        assert_eq!(OpenError::Tables(fault).failure().code, Code::Corrupt);
    }
}
