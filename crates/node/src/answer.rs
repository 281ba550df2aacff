//! A reads thread's core: answers from tables and log, beside the threads that write them.
//! Blocking.

use crate::ConnectionId;
use crate::repair::Met;
use crate::shard::Asked;
use crate::views::Waiter;
use naust_log::Flaw;
use naust_machine::{KeyRange, Located, Page, Place, TablesReader};
use naust_wire::frame::Bad;
use naust_wire::limits::{
    FRAME_HEADER_BYTES, LOG_READ_BYTES_MAX, PAGE_BYTES_MAX, PAGE_ROWS_DEFAULT, PAGE_ROWS_MAX,
};
use naust_wire::planted::{self, Bug};
use naust_wire::read::{Level, Query};
use naust_wire::reply::{self, Failure, RecordsWriter, Reply, RowsWriter};
use naust_wire::{Code, Offset, ShardId};

/// What a reads thread needs of a shard. Cheap to clone.
#[derive(Clone)]
pub struct Readers<R: TablesReader> {
    /// Of its tables.
    pub tables: naust_machine::Reader<R>,
    /// Of its log.
    pub log: naust_log::Reader,
}

/// A question whose answer only has to be fetched.
#[derive(Debug)]
pub struct Job {
    waiter: Waiter,
    shard: ShardId,
    /// Rows are shown as of this offset or later: so far tables were when it was dispatched. Those
    /// that took their place since, folded again from the log, may be behind.
    shown: Offset,
    what: What,
}

#[derive(Debug)]
enum What {
    /// `Get` or `Scan`, at this offset; `None`: at whatever is folded in when it is read.
    Rows(Query, Option<Offset>),
    /// Raw frames of the log, whose committed part ends at `end`.
    Frames { from: Offset, max_bytes: usize, end: Offset },
    /// Records of a stream.
    Records(Located),
}

impl Job {
    /// A read, of a log whose committed part ends at `end` and tables that were folded in up to
    /// `shown`.
    pub(crate) fn new(asked: Asked, shard: ShardId, end: Offset, shown: Offset) -> Job {
        let waiter = Waiter { connection: asked.to, request: asked.request };
        let what = match asked.read.query {
            Query::Log { from, max_bytes, .. } => {
                let bytes = if max_bytes == 0 { LOG_READ_BYTES_MAX } else { max_bytes as usize };
                let max_bytes = bytes.min(LOG_READ_BYTES_MAX);
                What::Frames { from: from.max(Offset::FIRST), max_bytes, end }
            }
            query => What::Rows(
                query,
                match asked.read.level {
                    Level::Exactly(at) => Some(at),
                    _ => None,
                },
            ),
        };
        Job { waiter, shard, shown, what }
    }

    pub(crate) fn records(waiter: Waiter, shard: ShardId, located: Located) -> Job {
        Job { waiter, shard, shown: Offset::ZERO, what: What::Records(located) }
    }

    /// Who is to get what [`run`] returns. After that, the worker is told `Event::Answered`.
    #[must_use]
    pub fn to(&self) -> ConnectionId {
        self.waiter.connection
    }
}

/// What stands in the way of an answer: what is told, and the damage that was met.
struct Failed {
    failure: Failure,
    met: Option<Met>,
}

/// Fetches an answer: appends one packet to `out`. If it met damage, the worker is to be told that,
/// too: `Event::Met`.
pub fn run<R: TablesReader>(job: &Job, readers: &Readers<R>, out: &mut Vec<u8>) -> Option<Met> {
    let start = out.len();
    let mut met = None;
    let done = match &job.what {
        What::Rows(..) if readers.tables.applied() < job.shown => Err(behind()),
        What::Rows(Query::Get { keyspace, key }, at) => get(job, readers, keyspace, key, *at, out),
        What::Rows(Query::Scan { keyspace, from, to, reverse, limit, max_bytes }, at) => {
            let range = KeyRange { from, to: to.as_deref() };
            scan(job, readers, keyspace, range, page(*reverse, *limit, *max_bytes), *at, out)
        }
        What::Rows(..) => unreachable!("only gets and scans come here"),
        What::Frames { from, max_bytes, end } => {
            frames(job, &readers.log, *from, *max_bytes, *end, out).map(|found| met = found)
        }
        What::Records(located) => records(job, &readers.log, located, out),
    };
    if let Err(Failed { failure, met: found }) = done {
        out.truncate(start);
        reply::write(job.waiter.request, job.shard, &Reply::Error(failure), out);
        met = found;
    }
    met
}

/// Answers in place of [`run`] when the shard is gone.
pub fn run_without(job: &Job, out: &mut Vec<u8>) {
    refuse(job, Failure::new(Code::NamespaceNotFound, "the namespace is gone"), out);
}

/// Answers in place of [`run`] when the shard is closed for this reason.
pub fn refuse(job: &Job, failure: Failure, out: &mut Vec<u8>) {
    reply::write(job.waiter.request, job.shard, &Reply::Error(failure), out);
}

fn page(reverse: bool, limit: u32, max_bytes: u32) -> Page {
    let or = |asked: u32, default: usize| if asked == 0 { default } else { asked as usize };
    Page {
        reverse,
        limit: or(limit, PAGE_ROWS_DEFAULT).min(PAGE_ROWS_MAX),
        max_bytes: or(max_bytes, PAGE_BYTES_MAX).min(PAGE_BYTES_MAX),
    }
}

fn get<R: TablesReader>(
    job: &Job,
    readers: &Readers<R>,
    keyspace: &str,
    key: &[u8],
    at: Option<Offset>,
    out: &mut Vec<u8>,
) -> Result<(), Failed> {
    let heard = planted::has(Bug::ReadBehind).then_some(job.shown);
    let at = at.or(heard).unwrap_or_else(|| readers.tables.applied());
    let row = readers.tables.get(keyspace, key, at).map_err(tables_failed)?;
    let row = row.as_ref().map(|(version, value)| (*version, value.as_ref()));
    reply::write_row(job.waiter.request, job.shard, at, row, out);
    Ok(())
}

fn scan<R: TablesReader>(
    job: &Job,
    readers: &Readers<R>,
    keyspace: &str,
    range: KeyRange<'_>,
    page: Page,
    at: Option<Offset>,
    out: &mut Vec<u8>,
) -> Result<(), Failed> {
    let at = at.unwrap_or_else(|| readers.tables.applied());
    let mut rows = RowsWriter::begin(out);
    let next = readers.tables.scan(keyspace, range, page, at, |key, version, value| {
        rows.push(key, value, version);
    });
    match next {
        Ok(next) => rows.finish(job.waiter.request, job.shard, at, next.as_deref()),
        Err(error) => {
            rows.abandon();
            return Err(tables_failed(error));
        }
    }
    Ok(())
}

const NO_FRAME: &str =
    "no frame begins at this offset; begin with one that a reply gave as next, or with none";

fn frames(
    job: &Job,
    log: &naust_log::Reader,
    from: Offset,
    max_bytes: usize,
    end: Offset,
    out: &mut Vec<u8>,
) -> Result<Option<Met>, Failed> {
    let (mut data, mut next, mut met) = (Vec::new(), from, None);
    while next < end && data.len() < max_bytes {
        match log.frames(next, end, max_bytes - data.len()) {
            // What was read is whole; what is wrong behind it is told to who reads on.
            Err(error) if !data.is_empty() => {
                met = Met::of_log(&error);
                break;
            }
            // So near to where frames end none begins: who asks for one is wrong.
            Err(naust_log::ReadError::Damaged(_)) if end.0 - next.0 < FRAME_HEADER_BYTES as u64 => {
                let failure = Failure::new(Code::BadArgument, NO_FRAME);
                return Err(Failed { failure, met: None });
            }
            Err(error) => return Err(log_failed(&error)),
            Ok(chunk) if !data.is_empty() && data.len() + chunk.bytes().len() > max_bytes => break,
            Ok(chunk) => {
                let ended = chunk.next() <= next;
                next = chunk.next();
                if data.is_empty() {
                    data = chunk.into_bytes();
                } else if !planted::has(Bug::HalfPages) {
                    data.extend_from_slice(chunk.bytes());
                }
                if ended {
                    break;
                }
            }
        }
    }
    reply::write_frames(job.waiter.request, job.shard, [from, next, end], &data, out);
    Ok(met)
}

fn records(
    job: &Job,
    log: &naust_log::Reader,
    located: &Located,
    out: &mut Vec<u8>,
) -> Result<(), Failed> {
    let mut records = RecordsWriter::begin(out);
    let mut values = log.records();
    for Place { offset, length, .. } in &located.places {
        match values.record(*offset, *length as usize) {
            Ok(value) => records.push(*offset, value),
            Err(error) => {
                records.abandon();
                return Err(record_failed(&error));
            }
        }
    }
    records.finish(job.waiter.request, job.shard, located.next, located.end);
    Ok(())
}

/// What a client is told about a read of the tables that failed.
pub(crate) fn failure(error: naust_machine::ReadError) -> Failure {
    match error {
        naust_machine::ReadError::Refused(refusal) => Failure::new(refusal.code, refusal.detail),
        error => Failure::new(Code::Corrupt, error.to_string()),
    }
}

fn behind() -> Failed {
    let detail = "this replica's tables are made anew from its log; ask again, or another replica";
    Failed { failure: Failure::new(Code::Unavailable, detail), met: None }
}

fn tables_failed(error: naust_machine::ReadError) -> Failed {
    let met = matches!(error, naust_machine::ReadError::Fault(_)).then_some(Met::Tables);
    Failed { failure: failure(error), met }
}

fn log_failed(error: &naust_log::ReadError) -> Failed {
    let failure = log_failure(error);
    // Who asks for frames from the middle of one has met nothing.
    let met = Met::of_log(error).filter(|_| failure.code == Code::Corrupt);
    Failed { failure, met }
}

/// The views say where records lie: whatever is not a frame there is damage. What is not there at
/// all may have gone since they said so, or its file is lost: who asks again is told.
fn record_failed(error: &naust_log::ReadError) -> Failed {
    match error {
        naust_log::ReadError::Damaged(damage) => {
            let failure = Failure::new(Code::Corrupt, damage.to_string());
            Failed { failure, met: Met::of_log(error) }
        }
        naust_log::ReadError::Trimmed { .. } => {
            let detail = "a record has just gone from this replica; ask again, or another replica";
            Failed { failure: Failure::new(Code::Unavailable, detail), met: None }
        }
        error => log_failed(error),
    }
}

fn log_failure(error: &naust_log::ReadError) -> Failure {
    use naust_log::ReadError;
    let code = match &error {
        ReadError::Trimmed { .. } => Code::OffsetTrimmed,
        ReadError::Beyond | ReadError::NoRecord(_) => Code::BadArgument,
        // Whoever asks for frames from the middle of one is wrong; a frame that is there and
        // has the wrong checksum is damaged.
        ReadError::Damaged(damage) => match damage.flaw {
            Flaw::Frame(Bad::Magic | Bad::Blank | Bad::Version(_) | Bad::Length(_)) => {
                Code::BadArgument
            }
            _ => Code::Corrupt,
        },
        _ => Code::Unavailable,
    };
    match error {
        ReadError::Trimmed { next: Some(next) } => {
            let detail = format!("{error}; it goes on at offset {next}");
            Failure { hint: next.to_string(), ..Failure::new(code, detail) }
        }
        // Who asks is not to think that the log is damaged; if it is, a scrub finds it.
        ReadError::Damaged(_) if code == Code::BadArgument => Failure::new(code, NO_FRAME),
        error => Failure::new(code, error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Now;
    use naust_log::sim::SimDisk;
    use naust_log::{Identity, Log};
    use naust_machine::{Machine, MemReader, MemTables};
    use naust_wire::commit::Draft;
    use naust_wire::frame::{Frame, Header, Kind};
    use naust_wire::packet;
    use naust_wire::read::Read;
    use naust_wire::{Index, LogTime, NodeId, RequestId, Sequence, SessionId, Term};
    use std::sync::Arc;

    const SHARD: ShardId = ShardId(1);

    /// Readers of tables that hold `ada=1`, or have not come that far.
    fn readers(holds: bool) -> Readers<MemReader> {
        let (mut machine, _) = Machine::open(SHARD, MemTables::new()).unwrap();
        let (mut draft, mut body) = (Draft::default(), Vec::new());
        draft.put("users", &b"ada"[..], &b"1"[..]).unwrap();
        draft.encode(SessionId::NONE, Sequence(0), Sequence(0), &mut body).unwrap();
        let header = Header {
            kind: Kind::Commit,
            body_bytes: body.len() as u32,
            crc_before: 0,
            term: Term(1),
            index: Index(1),
            offset: Offset::FIRST,
            time: LogTime(1),
            synced: Offset::ZERO,
        };
        if holds {
            machine.apply(&Frame { header, crc: 0, body: &body }).unwrap();
        }
        let disk = SimDisk::new();
        let identity = Identity { cluster: 1, node: NodeId(1), shard: SHARD };
        Log::create(&disk, identity, &[]).unwrap();
        let (log, _) = Log::open(Arc::new(disk), SHARD).unwrap();
        Readers { tables: machine.reader(), log: log.reader() }
    }

    fn get() -> Query {
        Query::Get { keyspace: "users".to_owned(), key: b"ada".to_vec() }
    }

    fn scan() -> Query {
        let (keyspace, from) = ("users".to_owned(), Vec::new());
        Query::Scan { keyspace, from, to: None, reverse: false, limit: 0, max_bytes: 0 }
    }

    /// What `run` answers to a read when tables had been shown as of `shown`.
    fn answer(query: Query, level: Level, shown: Offset, readers: &Readers<MemReader>) -> Reply {
        let read = Read { level, query };
        let asked = Asked::new(ConnectionId(3), RequestId(5), read, Now::default());
        let job = Job::new(asked, SHARD, Offset::FIRST, shown);
        // What stands before it in the buffer is of others.
        let mut out = b"of others".to_vec();
        let met = run(&job, readers, &mut out);
        assert!(met.is_none(), "nothing is damaged: {met:?}");
        let (packet, length) = packet::read(&out[9..]).unwrap().unwrap();
        assert_eq!((&out[..9], length), (&b"of others"[..], out.len() - 9));
        assert_eq!((packet.request, packet.shard), (RequestId(5), SHARD));
        Reply::decode(packet.body).unwrap()
    }

    /// Why: the views know that a record lives. Where its frame does not even begin like one, or no
    /// segment is left, a reader was told that he asked for a wrong offset, or that it had expired.
    #[test]
    fn records_that_are_damaged_or_lost_are_said_to_be_so() {
        let disk = SimDisk::new();
        let identity = Identity { cluster: 1, node: NodeId(1), shard: SHARD };
        Log::create(&disk, identity, &[]).unwrap();
        let (mut log, _) = Log::open(Arc::new(disk.clone()), SHARD).unwrap();
        log.stage(Kind::Commit, Term(1), Index(1), LogTime(1), &[7; 80]);
        let written = log.next_write().unwrap().run();
        log.written(written).unwrap();
        let mut readers = readers(true);
        readers.log = log.reader();
        let ask = |offset: Offset| {
            let places = vec![Place { offset, length: 8, time: LogTime(1) }];
            let (next, end) = (offset.plus(8), offset.plus(8));
            let waiter = Waiter { connection: ConnectionId(3), request: RequestId(5) };
            let job = Job::records(waiter, SHARD, Located { places, next, end });
            let mut out = Vec::new();
            let met = run(&job, &readers, &mut out);
            let (packet, _) = packet::read(&out).unwrap().unwrap();
            (Reply::decode(packet.body).unwrap(), met)
        };
        let record = Offset::FIRST.plus(FRAME_HEADER_BYTES as u64);
        assert!(
            matches!(ask(record), (Reply::Records { records, .. }, None) if records.len() == 1)
        );
        let (told, met) = ask(Offset(8));
        assert!(matches!(told, Reply::Error(failure) if failure.code == Code::Unavailable));
        assert_eq!(met, None);
        assert!(disk.rot(&naust_log::Layout::name(Offset::FIRST), 0, 1));
        let (told, met) = ask(record);
        assert!(matches!(told, Reply::Error(failure) if failure.code == Code::Corrupt));
        let Some(Met::Frames(damage)) = met else { panic!("the damage is to be mended: {met:?}") };
        assert_eq!(damage.from, Offset::FIRST);
    }

    /// Why: while a read waits for its thread, its tables may make way for empty ones, which are
    /// folded again from the log. From these it would tell that rows are not there which the node
    /// has shown before.
    #[test]
    fn tables_behind_what_was_shown_answer_nothing() {
        let (whole, anew) = (readers(true), readers(false));
        let shown = Offset::FIRST;
        for level in [Level::Local, Level::Linearizable, Level::Exactly(shown)] {
            for query in [get(), scan()] {
                let told = answer(query.clone(), level, shown, &anew);
                let Reply::Error(failure) = told else { panic!("{level:?} is told {told:?}") };
                assert_eq!(failure.code, Code::Unavailable, "{failure:?}");
                let told = answer(query, level, shown, &whole);
                let is_whole = match &told {
                    Reply::Row { at, row } => *at == shown && row.is_some(),
                    Reply::Rows { at, entries, .. } => *at == shown && entries.len() == 1,
                    _ => false,
                };
                assert!(is_whole, "{level:?} is told {told:?}");
            }
        }
        // Of empty tables that nothing was shown of, that they are empty is the answer.
        let told = answer(get(), Level::Local, Offset::ZERO, &anew);
        assert_eq!(told, Reply::Row { at: Offset::ZERO, row: None });
    }
}
