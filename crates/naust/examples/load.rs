//! A raw load generator: commits of one put each, over plain sockets, with as little work of its
//! own as can be.
//!
//! It measures the server, not the client library: the packet of a commit is encoded once, and only
//! its session, sequence, key, value and checksum are patched for each request. One thread serves
//! all connections.
//!
//! ```text
//! cargo run --release -p naust --example load -- 127.0.0.1:7420 --connections 1 --in-flight 256
//! ```
#![allow(clippy::print_stdout)]

use anyhow::{Context, bail, ensure};
use clap::Parser;
use hdrhistogram::Histogram;
use mio::{Events, Interest, Poll, Token};
use naust_wire::ask::Ask;
use naust_wire::commit::Draft;
use naust_wire::control::Control;
use naust_wire::packet::{self, Kind, Packet};
use naust_wire::reply::Reply;
use naust_wire::{RequestId, Sequence, SessionId, ShardId};
use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

#[derive(Parser)]
struct Args {
    /// Where the node listens for native clients.
    address: SocketAddr,
    /// Connections, each with a session of its own.
    #[arg(long, default_value_t = 1)]
    connections: usize,
    /// Commits under way on each connection.
    #[arg(long, default_value_t = 256)]
    in_flight: usize,
    /// How long to measure.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// How long to run before that.
    #[arg(long, default_value_t = 1)]
    warm_up_seconds: u64,
    /// Keys are drawn from so many.
    #[arg(long, default_value_t = 1_000_000)]
    keys: u64,
    /// Bytes of each value.
    #[arg(long, default_value_t = 128)]
    value_bytes: usize,
    /// The namespace; with `--namespaces` the prefix of their names.
    #[arg(long, default_value = "default")]
    namespace: String,
    /// Spreads the connections over so many namespaces, which are made first.
    #[arg(long, default_value_t = 1)]
    namespaces: usize,
}

/// A stream of numbers (xorshift64*, Vigna 2016): enough to draw keys and to make values
/// incompressible.
struct Numbers(u64);

impl Numbers {
    fn draw(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
}

/// A commit's packet and where its changing parts lie.
struct Template {
    packet: Vec<u8>,
    session: usize,
    sequence: usize,
    acked_below: usize,
    key: usize,
    value: usize,
    value_bytes: usize,
}

impl Template {
    fn new(value_bytes: usize) -> anyhow::Result<Template> {
        const SESSION: u64 = 0x1111_2222_3333_4444;
        const SEQUENCE: u64 = 0x5555_6666_7777_8888;
        const ACKED: u64 = 0x1555_6666_7777_8888;
        let (key, value) = (*b"\xc0KEYKEYKEYKEYKE\xc1", vec![0xee; value_bytes]);
        let mut draft = Draft::default();
        draft
            .put("bench", &key[..], &value[..])
            .map_err(|refusal| anyhow::anyhow!("{refusal:?}"))?;
        let mut body = Vec::new();
        draft
            .encode(SessionId(SESSION), Sequence(SEQUENCE), Sequence(ACKED), &mut body)
            .map_err(|refusal| anyhow::anyhow!("{refusal:?}"))?;
        let mut packet = Vec::new();
        packet::write(Kind::Commit, RequestId(0), ShardId(0), &body, &mut packet);
        let find = |wanted: &[u8]| {
            packet
                .windows(wanted.len())
                .position(|window| window == wanted)
                .context("a part is missing")
        };
        Ok(Template {
            session: find(&SESSION.to_le_bytes())?,
            sequence: find(&SEQUENCE.to_le_bytes())?,
            acked_below: find(&ACKED.to_le_bytes())?,
            key: find(&key)?,
            value: find(&value)?,
            value_bytes,
            packet,
        })
    }

    fn write(&self, connection: &Connection, numbers: &mut Numbers, keys: u64, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&self.packet);
        let bytes = &mut out[start..];
        let mut put = |at: usize, part: &[u8]| bytes[at..at + part.len()].copy_from_slice(part);
        put(self.session, &connection.session.0.to_le_bytes());
        put(self.sequence, &connection.sent.to_le_bytes());
        put(self.acked_below, &(connection.received + 1).to_le_bytes());
        put(self.key, format!("{:016}", numbers.draw() % keys).as_bytes());
        for at in (0..self.value_bytes).step_by(8) {
            let part = numbers.draw().to_le_bytes();
            put(self.value + at, &part[..8.min(self.value_bytes - at)]);
        }
        packet::finish(start, Kind::Commit, RequestId(connection.sent), connection.shard, out);
    }
}

struct Connection {
    stream: mio::net::TcpStream,
    shard: ShardId,
    session: SessionId,
    /// The last sequence sent, and the last one answered; replies come in order.
    sent: u64,
    received: u64,
    sent_at: VecDeque<Instant>,
    outgoing: Vec<u8>,
    incoming: Vec<u8>,
}

/// Asks and waits for the answer.
fn ask(stream: &mut TcpStream, kind: Kind, shard: ShardId, body: &[u8]) -> anyhow::Result<Reply> {
    let mut bytes = Vec::new();
    packet::write(kind, RequestId(1), shard, body, &mut bytes);
    stream.write_all(&bytes)?;
    let mut answer = vec![0; 24];
    stream.read_exact(&mut answer)?;
    let wanted = packet::wanted(&answer);
    answer.resize(wanted, 0);
    stream.read_exact(&mut answer[24..])?;
    let (packet, _) = packet::read(&answer)?.context("the answer is not whole")?;
    Reply::decode(packet.body).map_err(|refusal| anyhow::anyhow!("{refusal:?}"))
}

fn ask_node(stream: &mut TcpStream, ask_: &Ask) -> anyhow::Result<Reply> {
    let mut body = Vec::new();
    ask_.encode(&mut body);
    ask(stream, Kind::Ask, ShardId::DIRECTORY, &body)
}

fn control(stream: &mut TcpStream, shard: ShardId, control: &Control) -> anyhow::Result<Reply> {
    let mut body = Vec::new();
    control.encode(&mut body);
    ask(stream, Kind::Control, shard, &body)
}

fn connect(args: &Args, number: usize) -> anyhow::Result<Connection> {
    let mut stream = TcpStream::connect(args.address).context("can't connect")?;
    stream.set_nodelay(true)?;
    let hello = Ask::Hello { token: String::new(), client: "load".to_owned() };
    let greeted = ask_node(&mut stream, &hello)?;
    ensure!(matches!(greeted, Reply::Hello { .. }), "{greeted:?}");
    let namespace = match args.namespaces {
        1 => args.namespace.clone(),
        count => format!("{}-{}", args.namespace, number % count),
    };
    let mut resolved = ask_node(&mut stream, &Ask::Resolve(namespace.clone()))?;
    if matches!(resolved, Reply::Error(_)) {
        let options = naust_wire::options::NamespaceOptions::default();
        let create = Control::CreateNamespace { name: namespace.clone(), options };
        let made = control(&mut stream, ShardId::DIRECTORY, &create)?;
        ensure!(!matches!(made, Reply::Error(_)), "{made:?}");
        resolved = ask_node(&mut stream, &Ask::Resolve(namespace))?;
    }
    let Reply::Resolved { shard, .. } = resolved else { bail!("{resolved:?}") };
    let open = Control::OpenSession { ttl_ms: 0, nonce: number as u64 };
    let opened = control(&mut stream, shard, &open)?;
    let Reply::Session(session) = opened else { bail!("{opened:?}") };
    stream.set_nonblocking(true)?;
    Ok(Connection {
        stream: mio::net::TcpStream::from_std(stream),
        shard,
        session,
        sent: 0,
        received: 0,
        sent_at: VecDeque::new(),
        outgoing: Vec::new(),
        incoming: Vec::new(),
    })
}

struct Tally {
    latency: Histogram<u64>,
    errors: u64,
    first_error: Option<String>,
}

impl Connection {
    fn fill(
        &mut self,
        args: &Args,
        template: &Template,
        numbers: &mut Numbers,
    ) -> anyhow::Result<()> {
        let now = Instant::now();
        while self.sent - self.received < args.in_flight as u64 {
            self.sent += 1;
            let mut outgoing = std::mem::take(&mut self.outgoing);
            template.write(self, numbers, args.keys, &mut outgoing);
            self.outgoing = outgoing;
            self.sent_at.push_back(now);
        }
        while !self.outgoing.is_empty() {
            match self.stream.write(&self.outgoing) {
                Ok(written) => drop(self.outgoing.drain(..written)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn receive(&mut self, buffer: &mut [u8], tally: Option<&mut Tally>) -> anyhow::Result<()> {
        let mut tally = tally;
        // A read that does not fill the buffer has emptied the socket: one call less.
        let mut filled = true;
        while filled {
            match self.stream.read(buffer) {
                Ok(0) => bail!("the node closed the connection"),
                Ok(read) => {
                    self.incoming.extend_from_slice(&buffer[..read]);
                    filled = read == buffer.len();
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error.into()),
            }
        }
        let now = Instant::now();
        let incoming = std::mem::take(&mut self.incoming);
        let mut at = 0;
        while let Some((packet, length)) = packet::read(&incoming[at..])? {
            at += length;
            self.answered(&packet, now, tally.as_deref_mut())?;
        }
        self.incoming = incoming;
        self.incoming.drain(..at);
        Ok(())
    }

    fn answered(
        &mut self,
        packet: &Packet<'_>,
        now: Instant,
        tally: Option<&mut Tally>,
    ) -> anyhow::Result<()> {
        self.received += 1;
        ensure!(packet.request.0 == self.received, "replies out of order");
        let sent_at = self.sent_at.pop_front().context("a reply that nobody asked for")?;
        let Some(tally) = tally else { return Ok(()) };
        tally.latency.record((now - sent_at).as_nanos() as u64)?;
        // Of many replies one in so many is looked at: enough to see that commits do happen.
        if self.received.is_multiple_of(64)
            && let Ok(reply) = Reply::decode(packet.body)
            && !matches!(reply, Reply::Committed(_))
        {
            tally.errors += 1;
            tally.first_error.get_or_insert_with(|| format!("{reply:?}"));
        }
        Ok(())
    }
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let template = Template::new(args.value_bytes)?;
    let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15 ^ std::process::id() as u64);
    let mut poll = Poll::new()?;
    let mut connections = Vec::new();
    for number in 0..args.connections {
        let mut connection = connect(&args, number)?;
        let interest = Interest::READABLE | Interest::WRITABLE;
        poll.registry().register(&mut connection.stream, Token(number), interest)?;
        connections.push(connection);
    }
    let mut tally = Tally { latency: Histogram::new(3)?, errors: 0, first_error: None };
    let mut buffer = vec![0; 256 * 1024];
    let mut events = Events::with_capacity(1024);
    for connection in &mut connections {
        connection.fill(&args, &template, &mut numbers)?;
    }
    let start = Instant::now() + Duration::from_secs(args.warm_up_seconds);
    let end = start + Duration::from_secs(args.seconds);
    while Instant::now() < end {
        poll.poll(&mut events, Some(Duration::from_millis(100)))?;
        let measuring = Instant::now() >= start;
        for event in &events {
            let connection = &mut connections[event.token().0];
            if event.is_readable() {
                connection.receive(&mut buffer, measuring.then_some(&mut tally))?;
            }
            connection.fill(&args, &template, &mut numbers)?;
        }
    }
    report(&args, &tally);
    Ok(())
}

fn report(args: &Args, tally: &Tally) {
    let micros = |quantile: f64| tally.latency.value_at_quantile(quantile) as f64 / 1000.0;
    println!(
        "{:>4} x {:<4} {:>9.0} commits/s   us: p50 {:>8.1}  p99 {:>8.1}  p999 {:>8.1}  max {:>8.1}",
        args.connections,
        args.in_flight,
        tally.latency.len() as f64 / args.seconds as f64,
        micros(0.5),
        micros(0.99),
        micros(0.999),
        tally.latency.max() as f64 / 1000.0,
    );
    if let Some(error) = &tally.first_error {
        println!("{} of the sampled replies are no commits; the first: {error}", tally.errors);
    }
}
