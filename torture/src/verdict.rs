//! What is judged at the end of a round: every replica is read, from its log to its rows, and the
//! checkers of the simulator are asked about everything that anyone was ever told.

use crate::nodes::Nodes;
use crate::record::Record;
use anyhow::{Context as _, bail, ensure};
use naust_sim::checkers::{Case, Excuses};
use naust_sim::chronicle::Chronicle;
use naust_sim::history::{Answer, Asked, Request, Violation};
use naust_sim::model::Model;
use naust_sim::plan::Plan;
use naust_sim::workload::keys;
use naust_wire::frame::Kind;
use naust_wire::limits::SEGMENT_BYTES;
use naust_wire::options::NamespaceOptions;
use naust_wire::packet::{self, Kind as Packets};
use naust_wire::read::{Level, Query, Read};
use naust_wire::reply::Reply;
use naust_wire::{Code, Offset, RequestId, ShardId};
use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// How long one question at the end may take, with all that is asked again.
const ASK_MAX: Duration = Duration::from_secs(30);
/// Before a question is asked again.
const PAUSE: Duration = Duration::from_millis(20);

/// What was found.
#[derive(Default)]
pub struct Found {
    /// What must not be.
    pub violations: Vec<Violation>,
    /// Committed frames of all shards.
    pub frames: u64,
    /// Terms that began.
    pub elections: u64,
    /// Questions at the end that were answered `corrupt`.
    pub corrupt: u64,
}

/// Reads all replicas and judges the round.
///
/// # Errors
/// A replica can't be read.
pub fn judge(
    nodes: &Nodes,
    record: &Record,
    plan: &Plan,
    shards: &BTreeMap<ShardId, NamespaceOptions>,
    excuses: Excuses,
) -> anyhow::Result<Found> {
    let mut found = Found::default();
    let mut chronicles = BTreeMap::new();
    for shard in shards.keys() {
        let frontier = record.told().frontiers.get(shard).copied().unwrap_or(Offset::FIRST);
        let mut chronicle = Chronicle::new(SEGMENT_BYTES);
        for node in &nodes.all {
            let mut replica = Replica::connect(&node.address(), record, *shard)?;
            if let Err(what) = replica.show_log(frontier, &mut chronicle, &mut found) {
                let what = format!("shard {shard} on {}: {what:#}", node.name);
                found.violations.push(Violation::new("replicas", what));
            }
            let what = || {
                let end = chronicle.end();
                format!("shard {shard} on {}, to {frontier}, of a log to {end}", node.name)
            };
            replica.show_views(frontier, plan, &mut found).with_context(what)?;
        }
        chronicles.insert(*shard, chronicle);
    }
    let mut told = record.told();
    for request in &mut told.history.requests {
        if request.answer == Answer::Waiting {
            request.answer = Answer::Lost;
        }
    }
    found.violations.append(&mut told.violations);
    for (shard, options) in shards {
        let chronicle = &chronicles[shard];
        let mut model = Model::default();
        for entry in chronicle.from(Offset::ZERO) {
            found.frames += 1;
            found.elections += u64::from(entry.header.kind == Kind::Empty);
            if let Err(what) = model.fold(entry) {
                let what = format!("shard {shard}: {what}");
                found.violations.push(Violation::new("model", what));
            }
        }
        let of = |request: &&Request| request.shard == *shard;
        let requests: Vec<&Request> = told.history.requests.iter().filter(of).collect();
        let case = Case {
            shard: *shard,
            options: *options,
            chronicle,
            model: &model,
            requests: &requests,
            removed: None,
            patience: record.now(),
            excuses,
        };
        found.violations.extend(case.judge());
    }
    Ok(found)
}

/// One node's replica of a shard, asked at the end.
struct Replica<'a> {
    socket: TcpStream,
    record: &'a Record,
    shard: ShardId,
    line: u64,
    requests: u64,
}

impl<'a> Replica<'a> {
    fn connect(address: &str, record: &'a Record, shard: ShardId) -> anyhow::Result<Replica<'a>> {
        let socket = TcpStream::connect(address)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(ASK_MAX))?;
        let mut replica = Replica { socket, record, shard, line: record.line(), requests: 0 };
        let mut hello = Vec::new();
        let client = "torture".to_owned();
        naust_wire::ask::Ask::Hello { token: String::new(), client }.encode(&mut hello);
        replica.send(Packets::Ask, &hello)?;
        Ok(replica)
    }

    fn send(&mut self, kind: Packets, body: &[u8]) -> anyhow::Result<Reply> {
        self.requests += 1;
        let mut bytes = Vec::new();
        packet::write(kind, RequestId(self.requests), self.shard, body, &mut bytes);
        self.socket.write_all(&bytes)?;
        let mut input = vec![0; naust_wire::limits::PACKET_HEADER_BYTES];
        self.socket.read_exact(&mut input)?;
        let wanted = packet::wanted(&input);
        input.resize(wanted, 0);
        let header = naust_wire::limits::PACKET_HEADER_BYTES;
        self.socket.read_exact(&mut input[header..])?;
        let (packet, _) = packet::read(&input)?.context("a whole packet was read")?;
        ensure!(packet.request == RequestId(self.requests), "an answer to something else");
        Ok(Reply::decode(packet.body)?)
    }

    /// Asks until there is an answer that is none of a moment; it stands in the history.
    fn ask(&mut self, read: &Read) -> anyhow::Result<Reply> {
        let mut body = Vec::new();
        read.encode(&mut body);
        let until = Instant::now() + ASK_MAX;
        loop {
            let sent = self.record.now();
            let reply = self.send(Packets::Read, &body)?;
            let answered = self.record.now();
            let mut told = self.record.told();
            let frontier = told.frontiers.get(&self.shard).copied().unwrap_or(Offset::ZERO);
            told.history.requests.push(Request {
                client: usize::MAX,
                shard: self.shard,
                asked: Asked::Read(read.clone()),
                line: self.line,
                here: true,
                sent,
                frontier,
                answer: Answer::Reply(reply.clone()),
                answered,
                ceiling: Offset::MAX,
                answers: 1,
            });
            drop(told);
            let Reply::Error(failure) = &reply else { return Ok(reply) };
            use Code::{Interrupted, Overloaded, ShuttingDown, Unavailable};
            let passes = [Interrupted, Overloaded, ShuttingDown, Unavailable];
            if !passes.contains(&failure.code) {
                return Ok(reply);
            }
            ensure!(Instant::now() < until, "{}: {}", failure.code, failure.detail);
            std::thread::sleep(PAUSE);
        }
    }

    /// The whole log of the replica, up to what was told to anyone and behind.
    fn show_log(
        &mut self,
        frontier: Offset,
        chronicle: &mut Chronicle,
        found: &mut Found,
    ) -> anyhow::Result<()> {
        let mut from = Offset::FIRST;
        let until = Instant::now() + ASK_MAX;
        loop {
            let query = Query::Log { from, max_bytes: 0, wait_ms: 0 };
            match self.ask(&Read { level: Level::Local, query })? {
                Reply::Frames { first, data, next, .. } => {
                    chronicle.learn(first, &data).map_err(anyhow::Error::msg)?;
                    let is_all = data.is_empty() && next > frontier;
                    if is_all && next >= chronicle.end() {
                        return Ok(());
                    }
                    if data.is_empty() {
                        let what = "the log ends at";
                        ensure!(Instant::now() < until, "{what} {next}, others' goes on");
                        std::thread::sleep(PAUSE);
                    }
                    from = next;
                }
                Reply::Error(failure) if failure.code == Code::Corrupt => {
                    found.corrupt += 1;
                    return Ok(());
                }
                other => bail!("the log is answered with {other:?}"),
            }
        }
    }

    /// All rows, records and cursors of the replica.
    fn show_views(
        &mut self,
        frontier: Offset,
        plan: &Plan,
        found: &mut Found,
    ) -> anyhow::Result<()> {
        let level = Level::AtLeast(frontier);
        for space in 0..plan.work.spaces {
            let mut from = Vec::new();
            loop {
                let (keyspace, to) = (keys::keyspace(space), None);
                let query = Query::Scan {
                    keyspace,
                    from: from.clone(),
                    to,
                    reverse: false,
                    limit: 0,
                    max_bytes: 0,
                };
                match self.ask(&Read { level, query })? {
                    Reply::Rows { next: Some(next), .. } => from = next,
                    told => {
                        found.note(&told);
                        break;
                    }
                }
            }
            let mut from = Offset::FIRST;
            loop {
                let (stream, limit) = (keys::stream(space), 0);
                let query = Query::Records { stream, from, limit, max_bytes: 0, wait_ms: 0 };
                match self.ask(&Read { level, query })? {
                    Reply::Records { records, next, .. } if !records.is_empty() => from = next,
                    told => {
                        found.note(&told);
                        break;
                    }
                }
            }
            let (stream, cursor) = (keys::stream(space), keys::cursor(space));
            let told = self.ask(&Read { level, query: Query::Cursor { stream, cursor } })?;
            found.note(&told);
        }
        Ok(())
    }
}

impl Found {
    fn note(&mut self, reply: &Reply) {
        if let Reply::Error(failure) = reply {
            self.corrupt += u64::from(failure.code == Code::Corrupt);
        }
    }
}
