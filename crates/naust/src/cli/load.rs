//! A load generator: many connections with many requests under way, from one thread, without the
//! client's comforts, so that what is measured is the node.
//!
//! Each connection speaks wire itself: it resolves its namespaces, opens a session in each, and
//! then keeps `in_flight` requests under way in each until the time is up. Everything that comes
//! back is counted; errors are counted by their code.

use anyhow::{Context as _, bail};
use hdrhistogram::Histogram;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use naust_wire::ask::Ask;
use naust_wire::commit::Draft;
use naust_wire::control::Control;
use naust_wire::limits::SESSION_WINDOW_MAX;
use naust_wire::packet::{self, Kind};
use naust_wire::read::{Level, Query, Read};
use naust_wire::reply::Reply;
use naust_wire::{RequestId, Sequence, SessionId, ShardId};
use std::collections::{BTreeMap, VecDeque};
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// What each request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Workload {
    /// One put of a random key.
    Put,
    /// A batch of records appended to one stream.
    Append,
    /// One linearizable read of a random key.
    Get,
}

/// What to do.
#[derive(Clone, Debug)]
pub struct Plan {
    pub address: SocketAddr,
    pub workload: Workload,
    pub connections: usize,
    /// Requests under way in each namespace of a connection.
    pub in_flight: usize,
    pub warm_up: Duration,
    pub time: Duration,
    /// Puts and gets draw from so many keys of 16 bytes.
    pub keys: u64,
    pub value_bytes: usize,
    /// Appends: records a commit.
    pub batch: usize,
    /// Dealt out to the connections in turn: each has one at least.
    pub namespaces: Vec<String>,
    pub seed: u64,
}

/// What came of it, the warm-up left out where nothing else is said.
pub struct Outcome {
    /// Requests that succeeded.
    pub done: u64,
    pub seconds: f64,
    /// Nanoseconds from the moment a request was encoded to the moment its reply was decoded.
    pub latency: Histogram<u64>,
    /// Requests that failed, by code.
    pub errors: BTreeMap<String, u64>,
    /// Bytes of keys, values and records that were acknowledged.
    pub user_bytes: u64,
    /// Requests that succeeded, and the bytes of them, warm-up and end included: what a node has
    /// counted meanwhile is divided by these.
    pub all_done: u64,
    pub all_user_bytes: u64,
}

/// Small, fast and good enough for drawing keys (splitmix64, Steele et al. 2014).
pub struct Draw(pub u64);

impl Draw {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// A namespace that a connection loads.
struct Lane {
    shard: ShardId,
    session: SessionId,
    sequence: u64,
    /// Sequence and start of each request under way, and whether it counts.
    pending: VecDeque<(u64, Instant, bool)>,
}

struct Connection {
    socket: TcpStream,
    lanes: Vec<Lane>,
    /// Lanes of requests that have just ended, one for each.
    ended: Vec<usize>,
    out: Vec<u8>,
    sent: usize,
    input: Vec<u8>,
    filled: usize,
}

struct Load<'a> {
    plan: &'a Plan,
    draw: Draw,
    /// Incompressible bytes that values are cut from.
    pool: Vec<u8>,
    outcome: Outcome,
    measuring: bool,
    stopping: bool,
}

/// Runs the plan. Blocking; ends after its times and what is then under way.
pub fn run(plan: &Plan) -> anyhow::Result<Outcome> {
    if plan.in_flight > SESSION_WINDOW_MAX {
        bail!("a session keeps {SESSION_WINDOW_MAX} replies; use more connections");
    }
    let mut draw = Draw(plan.seed);
    let words = (1 << 20) / 8 + plan.value_bytes.div_ceil(8);
    let pool: Vec<u8> = (0..words).flat_map(|_| draw.next().to_le_bytes()).collect();
    let mut connections = Vec::with_capacity(plan.connections);
    for number in 0..plan.connections {
        let first = number % plan.namespaces.len();
        let namespaces = plan.namespaces.iter().skip(first).step_by(plan.connections);
        connections.push(Connection::open(plan, namespaces)?);
    }
    let outcome = Outcome {
        done: 0,
        seconds: 0.0,
        latency: Histogram::new_with_bounds(1, 600_000_000_000, 3)?,
        errors: BTreeMap::new(),
        user_bytes: 0,
        all_done: 0,
        all_user_bytes: 0,
    };
    let (measuring, stopping) = (false, false);
    let load = Load { plan, draw, pool, outcome, measuring, stopping };
    load.drive(&mut connections)
}

impl Load<'_> {
    fn drive(mut self, connections: &mut [Connection]) -> anyhow::Result<Outcome> {
        let mut poll = Poll::new()?;
        let mut events = Events::with_capacity(1024);
        for (number, connection) in connections.iter_mut().enumerate() {
            let both = Interest::READABLE | Interest::WRITABLE;
            poll.registry().register(&mut connection.socket, Token(number), both)?;
            for lane in 0..connection.lanes.len() {
                for _ in 0..self.plan.in_flight {
                    self.request(connection, lane)?;
                }
            }
            connection.send()?;
        }
        let mut measured_from = Instant::now();
        let mut phase_end = measured_from + self.plan.warm_up;
        loop {
            let now = Instant::now();
            if now >= phase_end && !self.measuring && !self.stopping {
                (self.measuring, measured_from) = (true, now);
                phase_end = now + self.plan.time;
            } else if now >= phase_end && self.measuring {
                self.outcome.seconds = (now - measured_from).as_secs_f64();
                (self.measuring, self.stopping) = (false, true);
                phase_end = now + Duration::from_secs(60);
            } else if self.stopping && now >= phase_end {
                bail!("replies are missing a minute after the last request");
            }
            if self.stopping && connections.iter().all(Connection::is_quiet) {
                return Ok(self.outcome);
            }
            let wait = phase_end.saturating_duration_since(now).min(Duration::from_millis(100));
            match poll.poll(&mut events, Some(wait)) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                polled => polled?,
            }
            for event in &events {
                let connection = &mut connections[event.token().0];
                if event.is_readable() {
                    self.receive(connection)?;
                }
                connection.send()?;
            }
        }
    }

    fn request(&mut self, connection: &mut Connection, lane: usize) -> anyhow::Result<()> {
        let lanes = connection.lanes.len() as u64;
        let place = lane as u64;
        let lane = &mut connection.lanes[lane];
        lane.sequence += 1;
        let request = RequestId(lane.sequence * lanes + place);
        let start = Instant::now();
        // A body is encoded where it is sent from: copying a large one would be the client's time.
        let mut out = std::mem::take(&mut connection.out);
        let at = packet::begin(&mut out);
        let kind = match self.plan.workload {
            Workload::Get => {
                let key = self.key();
                let query = Query::Get { keyspace: "bench".to_owned(), key: key.to_vec() };
                Read { level: Level::Linearizable, query }.encode(&mut out);
                Kind::Read
            }
            Workload::Put | Workload::Append => {
                self.commit(lane, &mut out)?;
                Kind::Commit
            }
        };
        packet::finish(at, kind, request, lane.shard, &mut out);
        lane.pending.push_back((lane.sequence, start, self.measuring));
        connection.out = out;
        Ok(())
    }

    fn commit(&mut self, lane: &Lane, out: &mut Vec<u8>) -> anyhow::Result<()> {
        let mut draft = Draft::default();
        let key = self.key();
        if self.plan.workload == Workload::Put {
            let at = self.draw.next() as usize % (1 << 20);
            let value = &self.pool[at..at + self.plan.value_bytes];
            draft.put("bench", &key[..], value)?;
        } else {
            for _ in 0..self.plan.batch {
                let at = self.draw.next() as usize % (1 << 20);
                draft.append("bench", &self.pool[at..at + self.plan.value_bytes])?;
            }
        }
        let sequence = Sequence(lane.sequence);
        let oldest = lane.pending.front().map_or(lane.sequence, |(first, ..)| *first);
        draft.encode(lane.session, sequence, Sequence(oldest), out)?;
        Ok(())
    }

    fn key(&mut self) -> [u8; 16] {
        let mut key = [0u8; 16];
        let number = self.draw.next() % self.plan.keys;
        // Spread over the key space, so that neighbours in time are none in the tree.
        key[..8].copy_from_slice(&Draw(number).next().to_be_bytes());
        key[8..].copy_from_slice(&number.to_be_bytes());
        key
    }

    fn receive(&mut self, connection: &mut Connection) -> anyhow::Result<()> {
        let mut more = true;
        while more {
            more = connection.fill()?;
            let mut at = 0;
            let lanes = connection.lanes.len() as u64;
            while let Some((packet, length)) =
                packet::read(&connection.input[at..connection.filled])?
            {
                at += length;
                let (sequence, lane) = (packet.request.0 / lanes, packet.request.0 % lanes);
                connection.ended.push(lane as usize);
                let pending = &mut connection.lanes[lane as usize].pending;
                let place = pending.iter().position(|(id, ..)| *id == sequence);
                let place = place.context("a reply to a request that was never made")?;
                let (_, start, counted) = pending.remove(place).expect("just found");
                let reply = Reply::decode(packet.body)?;
                self.count(&reply, start, counted);
            }
            connection.input.copy_within(at..connection.filled, 0);
            connection.filled -= at;
            let mut ended = std::mem::take(&mut connection.ended);
            if self.stopping {
                ended.clear();
            }
            for lane in ended.drain(..) {
                self.request(connection, lane)?;
            }
            connection.ended = ended;
        }
        Ok(())
    }

    fn count(&mut self, reply: &Reply, start: Instant, counted: bool) {
        if let Reply::Error(failure) = reply {
            *self.outcome.errors.entry(failure.code.name().to_owned()).or_default() += 1;
            return;
        }
        let user_bytes = match self.plan.workload {
            Workload::Append => self.plan.batch * self.plan.value_bytes,
            Workload::Put | Workload::Get => self.plan.value_bytes + 16,
        } as u64;
        self.outcome.all_done += 1;
        self.outcome.all_user_bytes += user_bytes;
        if self.measuring && counted {
            self.outcome.done += 1;
            let nanoseconds = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
            self.outcome.latency.saturating_record(nanoseconds);
            self.outcome.user_bytes += user_bytes;
        }
    }
}

impl Connection {
    /// Connects, resolves the namespaces and opens a session in each, one after the other.
    fn open<'a>(
        plan: &Plan,
        namespaces: impl Iterator<Item = &'a String>,
    ) -> anyhow::Result<Connection> {
        let socket = std::net::TcpStream::connect(plan.address)
            .with_context(|| format!("no node answers at {}", plan.address))?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(Duration::from_secs(30)))?;
        let mut connection = Connection {
            socket: TcpStream::from_std(socket.try_clone()?),
            lanes: Vec::new(),
            ended: Vec::new(),
            out: Vec::new(),
            sent: 0,
            input: vec![0; 256 * 1024],
            filled: 0,
        };
        let mut body = Vec::new();
        let hello = Ask::Hello { token: String::new(), client: "naust bench".to_owned() };
        hello.encode(&mut body);
        ask(&socket, Kind::Ask, ShardId::DIRECTORY, &body)?;
        for namespace in namespaces {
            body.clear();
            Ask::Resolve(namespace.clone()).encode(&mut body);
            let shard = match ask(&socket, Kind::Ask, ShardId::DIRECTORY, &body)? {
                Reply::Resolved { shard, .. } => shard,
                other => bail!("the namespace {namespace} can't be found: {other:?}"),
            };
            body.clear();
            Control::OpenSession { ttl_ms: 0, nonce: 0 }.encode(&mut body);
            let session = match ask(&socket, Kind::Control, shard, &body)? {
                Reply::Session(session) => session,
                other => bail!("no session: {other:?}"),
            };
            connection.lanes.push(Lane { shard, session, sequence: 0, pending: VecDeque::new() });
        }
        socket.set_nonblocking(true)?;
        Ok(connection)
    }

    fn is_quiet(&self) -> bool {
        self.lanes.iter().all(|lane| lane.pending.is_empty())
    }

    /// Sends what there is and the socket takes.
    fn send(&mut self) -> anyhow::Result<()> {
        while self.sent < self.out.len() {
            match self.socket.write(&self.out[self.sent..]) {
                Ok(0) => bail!("the node closed the connection"),
                Ok(bytes) => self.sent += bytes,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.out.clear();
        self.sent = 0;
        Ok(())
    }

    /// Reads once; whether there may be more.
    fn fill(&mut self) -> anyhow::Result<bool> {
        if self.filled == self.input.len() {
            self.input.resize(self.input.len() * 2, 0);
        }
        loop {
            match self.socket.read(&mut self.input[self.filled..]) {
                Ok(0) => bail!("the node closed the connection"),
                Ok(bytes) => {
                    self.filled += bytes;
                    // What did not fill the room was all there is, until the next event.
                    return Ok(self.filled == self.input.len());
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// One request and its reply, on a blocking socket.
fn ask(
    mut socket: &std::net::TcpStream,
    kind: Kind,
    shard: ShardId,
    body: &[u8],
) -> anyhow::Result<Reply> {
    let mut out = Vec::new();
    packet::write(kind, RequestId(0), shard, body, &mut out);
    socket.write_all(&out)?;
    let mut input = vec![0; packet::wanted(&[])];
    socket.read_exact(&mut input)?;
    let head = input.len();
    input.resize(packet::wanted(&input), 0);
    socket.read_exact(&mut input[head..])?;
    let (packet, _) = packet::read(&input)?.context("a whole packet was read")?;
    Ok(Reply::decode(packet.body)?)
}
