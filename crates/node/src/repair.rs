//! What is damaged, and what is done about it: the types, and what of it is blocking.
//!
//! ```text
//!   an open replica      scrub, read, fetch, fold ─► Mending ── Seek ─► another replica
//!                        Effect::Mend ◄─ Found, its frames ◄─ Effect::Supply ◄┘
//!   a closed replica     its log does not open          the same, then it is opened
//!                        its tables are damaged         folded again from the log, if it has all
//!                        neither helps                  Renew ─► the leader's files (transfer)
//! ```
//! Only where there are other replicas. A replica that is closed answers nothing, votes for nobody
//! and acknowledges nothing, so what it lost harms nobody before it has it again: decision 0006.

use naust_consensus::{Configuration, HardState};
use naust_log::{Damage, Depth, Disk, ReadError, Reader, Survey};
use naust_wire::frame::Kind;
use naust_wire::limits::APPEND_BYTES_MAX;
use naust_wire::{NodeId, Offset, ShardId};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Bytes of one read while configurations are looked for.
const READ_BYTES: usize = 1024 * 1024;

/// A replica that can't be opened, though other replicas may help.
pub struct Trouble {
    /// What is damaged.
    pub what: Damaged,
    /// Where other replicas may be, as far as its log tells.
    pub others: BTreeSet<NodeId>,
    /// Its term and vote.
    pub hard: HardState,
    /// Tells this closing from all others of the replica.
    pub number: u64,
}

/// What of a replica is damaged.
pub enum Damaged {
    /// Places in its log, which `reader` reads the rest of.
    Frames {
        /// Where, ascending.
        damage: Vec<Damage>,
        /// Reads what is good.
        reader: Reader,
    },
    /// Its tables.
    Tables {
        /// They can be folded again: the log has all frames from the first on.
        is_log_whole: bool,
    },
}

/// What somebody met who read from an open shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Met {
    /// Damage in its log.
    Frames(Damage),
    /// Damage in its tables.
    Tables,
}

impl Met {
    /// What an error of reading the log tells.
    pub(crate) fn of_log(error: &ReadError) -> Option<Met> {
        error.damage().map(Met::Frames)
    }
}

/// What the operator is to hear, and monitoring to count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// A place in a log that was not known to be damaged.
    Damaged(Damage),
    /// One slot of a log's superblock was damaged, and is written again.
    Superblock,
    /// What so many segments of its log say about themselves was damaged, and is made again.
    Footers(usize),
    /// A file of the tables is damaged.
    Tables(String),
    /// It is as it was.
    Mended {
        /// From here on,
        from: Offset,
        /// up to here.
        to: Offset,
    },
    /// Nobody could help, for now.
    Unmendable {
        /// Where.
        at: Offset,
        /// Why not.
        why: &'static str,
    },
    /// The replica is closed, and is mended or made anew with the help of others.
    Rebuilding(&'static str),
    /// It is open again.
    Rebuilt,
    /// It was new or too far behind to be fed from a log, and is open as a copy of the leader's.
    Copied,
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Report::Damaged(damage) => write!(f, "{damage}"),
            Report::Superblock => {
                write!(f, "half of the log's superblock is damaged, and is written again")
            }
            Report::Footers(segments) => {
                write!(
                    f,
                    "footers of {segments} segment(s) of the log were damaged, and are made again"
                )
            }
            Report::Tables(what) => write!(f, "{what}"),
            Report::Mended { from, to } => {
                write!(f, "the log was mended from offset {from} to {to}")
            }
            Report::Unmendable { at, why } => {
                write!(f, "the damage at offset {at} can't be mended: {why}")
            }
            Report::Rebuilding(why) => {
                write!(f, "{why}: this replica is closed until others have helped it")
            }
            Report::Rebuilt => write!(f, "this replica is whole again"),
            Report::Copied => write!(f, "this replica begins anew as a copy of the leader's"),
        }
    }
}

/// Frames to be read for another replica that has damage there.
pub struct Supply {
    pub(crate) reader: Reader,
    pub(crate) to: NodeId,
    pub(crate) from: Offset,
    pub(crate) end: Offset,
    pub(crate) committed: bool,
}

/// What came of it.
pub struct Supplied {
    /// Whose log was read.
    pub shard: ShardId,
    pub(crate) to: NodeId,
    pub(crate) from: Offset,
    pub(crate) committed: bool,
    pub(crate) frames: Vec<u8>,
    pub(crate) met: Option<Met>,
}

/// Reads them. Blocking.
#[must_use]
pub fn supply(job: &Supply, shard: ShardId) -> Supplied {
    let Supply { reader, to, from, end, committed } = job;
    let read = reader.frames_to_mend(*from, *end, APPEND_BYTES_MAX);
    let met = read.as_ref().err().and_then(Met::of_log);
    // Whatever can't be read here, others may have.
    let frames = read.unwrap_or_default();
    Supplied { shard, to: *to, from: *from, committed: *committed, frames, met }
}

/// Looks into a replica that does not open: what can be read of its log, who else may have it, and
/// how it voted. `None` if nobody may help it: its log is not there, or says not even how it voted.
/// Blocking.
#[must_use]
pub fn look_into(
    disk: Arc<dyn Disk>,
    node: NodeId,
    number: u64,
    what: impl FnOnce(&Survey) -> Option<Damaged>,
) -> Option<Trouble> {
    let survey = Survey::new(disk, Depth::Tail).ok()?;
    if survey.identity.node != node {
        return None;
    }
    let what = what(&survey)?;
    let hard = HardState { term: survey.hard.term, vote: survey.hard.vote };
    let mut others = members(&survey);
    others.remove(&node);
    Some(Trouble { what, others, hard, number })
}

/// All that were ever members, as far as the log can be read.
fn members(survey: &Survey) -> BTreeSet<NodeId> {
    let replicas = |bytes: &[u8]| {
        Configuration::decode(bytes).map(|known| known.replicas()).unwrap_or_default()
    };
    let mut members: BTreeSet<NodeId> = replicas(survey.configuration()).into_iter().collect();
    let reader = survey.reader();
    let mut at = survey.start.offset;
    while at < reader.end() {
        let next = match reader.frames(at, Offset::MAX, READ_BYTES) {
            Ok(chunk) => {
                let changes = chunk.frames().filter(|frame| frame.header.kind == Kind::Configure);
                changes.for_each(|frame| members.extend(replicas(frame.body)));
                chunk.next()
            }
            Err(ReadError::Trimmed { next: Some(next) }) => next,
            Err(ReadError::Damaged(damage)) => {
                // The survey has looked for the next good frame.
                let known = survey.damage.iter().find(|known| known.from == damage.from);
                known.map_or(damage.to, |known| known.to)
            }
            Err(_) => break,
        };
        if next <= at {
            break;
        }
        at = next;
    }
    members
}
