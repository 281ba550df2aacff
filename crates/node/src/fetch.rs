//! Frames for a replica that is behind: read from the log by a reads thread. Blocking.

use crate::repair::Met;
use naust_log::layout::Position;
use naust_log::{ReadError, Reader};
use naust_wire::limits::{APPEND_BYTES_MAX, APPEND_FRAMES_MAX};
use naust_wire::{Index, NodeId, ShardId, Term};

/// Frames to be read for another replica.
#[derive(Clone, Debug)]
pub struct Job {
    pub(crate) to: NodeId,
    /// Tells the answer from those to earlier jobs.
    pub(crate) number: u64,
    /// The frames behind this one.
    pub(crate) after: Index,
    /// The last of them, as far as one message takes them.
    pub(crate) last: Index,
    /// Where the log begins, whose frame before is not there.
    pub(crate) start: Position,
}

/// What came of it.
#[derive(Debug)]
pub struct Fetched {
    /// Whose log was read.
    pub shard: ShardId,
    pub(crate) to: NodeId,
    pub(crate) number: u64,
    pub(crate) found: Option<Found>,
    pub(crate) met: Option<Met>,
}

#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) after: Index,
    /// The term of the frame before the first.
    pub(crate) term_before: Term,
    pub(crate) last: Index,
    pub(crate) bytes: Vec<u8>,
}

/// Reads them.
#[must_use]
pub fn run(job: &Job, shard: ShardId, log: &Reader) -> Fetched {
    let read = read(job, log);
    let met = read.as_ref().err().and_then(Met::of_log);
    // What can't be read is asked for again; a log that is trimmed there needs another way.
    Fetched { shard, to: job.to, number: job.number, found: read.ok(), met }
}

/// The answer in place of [`run`] when the shard is gone.
#[must_use]
pub fn run_without(job: &Job, shard: ShardId) -> Fetched {
    Fetched { shard, to: job.to, number: job.number, found: None, met: None }
}

fn read(job: &Job, log: &Reader) -> Result<Found, ReadError> {
    let before = match job.after == job.start.index {
        true => job.start,
        false => log.position(job.after)?,
    };
    let chunk = log.frames(before.offset, log.end(), APPEND_BYTES_MAX)?;
    let mut last = job.after;
    let mut bytes = 0;
    // A follower takes no more frames at once, however short they are.
    let most = job.last.min(Index(job.after.0 + APPEND_FRAMES_MAX));
    for frame in chunk.frames() {
        if frame.header.index > most {
            break;
        }
        last = frame.header.index;
        bytes = (frame.header.end().0 - chunk.from().0) as usize;
    }
    if last == job.after {
        return Err(ReadError::Beyond);
    }
    let mut frames = chunk.into_bytes();
    frames.truncate(bytes);
    Ok(Found { after: job.after, term_before: before.term, last, bytes: frames })
}
