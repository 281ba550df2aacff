//! Over a socket: one task reads, one writes, many packets a system call. A lost connection is made
//! again.

use super::{Link, Notify};
use crate::Error;
use bytes::BytesMut;
use naust_wire::ask::Ask;
use naust_wire::packet::{self, Kind};
use naust_wire::{Code, RequestId, ShardId};
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::{Instant, sleep, timeout};

/// How often time is told while something is under way: deadlines and pauses are this exact.
const TICK: Duration = Duration::from_millis(25);
/// How long an address may take to answer, if there is no other.
const DIAL_MAX: Duration = Duration::from_secs(5);
/// How long it may take if there is.
const DIAL_MAX_OF_SEVERAL: Duration = Duration::from_secs(1);
/// How often a connection is looked at.
const LOOK: Duration = Duration::from_millis(250);
/// After so much silence a server that something is asked of is asked whether it is there, if there
/// are others to turn to.
const PROBE: Duration = Duration::from_millis(500);
/// After so much silence it is taken for gone.
const SILENCE_MAX: Duration = Duration::from_millis(1_500);
/// A write that took so long was waited for: the server takes something in.
const BLOCKED: Duration = Duration::from_millis(50);
/// How often is looked whether a connection may be left for a better one.
const LEAVE_LOOK: Duration = Duration::from_millis(10);
/// When a connection that stands is asked for the nodes of the cluster: not for the few requests
/// of a command. It doubles with each connection.
const ASK_CLUSTER_AFTER: Duration = Duration::from_millis(500);
/// Addresses that a client knows at most.
const ADDRESSES_MAX: usize = 2 * naust_wire::limits::NODES_MAX;
/// First pause between rounds over all addresses, and after a connection without a greeting; it
/// doubles.
const ROUND_PAUSE_MIN: Duration = Duration::from_millis(20);
/// Longest such pause.
const ROUND_PAUSE_MAX: Duration = Duration::from_secs(2);
/// Bytes that one read asks for, at least.
const READ_BYTES: usize = 64 * 1024;
/// A larger write buffer is given back after its use.
const WRITE_BYTES_KEPT: usize = 1024 * 1024;

/// Rings when the client has something to send, or is gone.
#[derive(Default)]
pub(crate) struct Bell(tokio::sync::Notify);

impl Notify for Bell {
    fn notify(&self) {
        self.0.notify_one();
    }
}

/// Keeps a connection to one of several addresses: those that it was given, and those that the
/// cluster names.
pub(crate) struct Dialer {
    addrs: Vec<String>,
    /// The address that a server named as the better one.
    preferred: Option<String>,
    /// The address that the connection is to.
    current: String,
    stream: TcpStream,
}

impl Dialer {
    /// Connects for the first time.
    pub(crate) async fn dial(addrs: Vec<String>) -> Result<Dialer, Error> {
        if addrs.is_empty() {
            return Err(Error::new(Code::BadArgument, "there is no address to connect to"));
        }
        match dial_any(addrs.iter()).await {
            Ok((current, stream)) => Ok(Dialer { addrs, preferred: None, current, stream }),
            Err(error) => {
                let detail = format!("none of {} can be reached: {error}", addrs.join(", "));
                Err(Error::new(Code::Unavailable, detail))
            }
        }
    }

    /// Serves the link until its client is gone.
    pub(crate) async fn run(self, link: Link, bell: Arc<Bell>) {
        tokio::select! {
            () = tell_time(&link) => {}
            () = self.keep_connected(&link, &bell) => {}
        }
        link.close();
    }

    async fn keep_connected(mut self, link: &Link, bell: &Bell) {
        let mut pause = ROUND_PAUSE_MIN;
        let mut ask_after = ASK_CLUSTER_AFTER;
        while !link.is_gone() {
            let (mut reader, mut writer) = self.stream.into_split();
            let pulse = Pulse::new(self.addrs.len() > 1);
            link.up();
            let why = tokio::select! {
                why = read(&mut reader, link, &pulse) => why,
                why = write(&mut writer, link, bell, &self.current, &pulse) => why,
                why = watch(link, &pulse, ask_after) => why,
            };
            drop((reader, writer));
            ask_after = (2 * ask_after).min(ASK_CLUSTER_AFTER * 64);
            learn(&mut self.addrs, pulse.learned());
            let why = match why {
                End::Gone => return,
                End::Lost(error) => error.to_string(),
                End::Redirected(to) => {
                    let why = format!("{} is no leader; going to {to}", self.current);
                    self.preferred = Some(to);
                    why
                }
                End::Left => format!("{} is about to end", self.current),
                End::Foreign(bad) if self.addrs.len() > 1 => bad.to_string(),
                End::Foreign(bad) => {
                    let detail = format!(
                        "what answers at {} does not speak Naust's native protocol ({bad}): HTTP \
                         has a port of its own",
                        self.current
                    );
                    return link.shared.refuse(Error::new(Code::Malformed, detail));
                }
            };
            if link.is_welcome() {
                pause = ROUND_PAUSE_MIN;
                link.down(&why);
            } else {
                // A server that hangs up before it has greeted is full, starting, or no server.
                link.down(&why);
                sleep(pause).await;
                pause = (2 * pause).min(ROUND_PAUSE_MAX);
            }
            let next = self.addrs.iter().position(|address| *address == self.current);
            self.addrs.rotate_left(next.map_or(0, |at| at + 1));
            let Some((current, stream)) = redial(&self.addrs, self.preferred.take(), link).await
            else {
                return;
            };
            (self.current, self.stream) = (current, stream);
        }
    }
}

/// Why a connection ended.
enum End {
    /// The program has dropped its client.
    Gone,
    /// The socket failed, or what came over it made no sense.
    Lost(io::Error),
    /// Another node leads.
    Redirected(String),
    /// The server is about to end, and there are others.
    Left,
    /// What came first is no packet.
    Foreign(packet::Bad),
}

/// How a connection is.
struct Pulse {
    start: Instant,
    /// Milliseconds from the start to when the server was heard last, or nothing was asked of it.
    heard_ms: AtomicU64,
    has_others: AtomicBool,
    learned: Mutex<Vec<String>>,
}

impl Pulse {
    fn new(has_others: bool) -> Pulse {
        let (heard_ms, learned) = (AtomicU64::new(0), Mutex::default());
        Pulse { start: Instant::now(), heard_ms, has_others: has_others.into(), learned }
    }

    fn beat(&self) {
        self.heard_ms.store(self.start.elapsed().as_millis() as u64, Ordering::Relaxed);
    }

    fn silence(&self) -> Duration {
        let heard = Duration::from_millis(self.heard_ms.load(Ordering::Relaxed));
        self.start.elapsed().saturating_sub(heard)
    }

    /// Whether there is another address to turn to.
    fn has_others(&self) -> bool {
        self.has_others.load(Ordering::Relaxed)
    }

    fn learn(&self, addresses: Vec<String>) {
        self.has_others.fetch_or(addresses.len() > 1, Ordering::Relaxed);
        *self.learned.lock().unwrap_or_else(PoisonError::into_inner) = addresses;
    }

    fn learned(self) -> Vec<String> {
        self.learned.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Adds addresses to those that are known.
fn learn(known: &mut Vec<String>, learned: Vec<String>) {
    for address in learned {
        if !known.contains(&address) && known.len() < ADDRESSES_MAX {
            known.push(address);
        }
    }
}

/// Looks for silence, and learns where else to turn to.
async fn watch(link: &Link, pulse: &Pulse, ask_after: Duration) -> End {
    let mut asked = false;
    loop {
        sleep(LOOK).await;
        if !asked && !link.shared.stays() && pulse.start.elapsed() >= ask_after {
            asked = true;
            link.shared.ask_cluster();
        }
        if let Some(addresses) = link.shared.take_addresses() {
            pulse.learn(addresses);
        }
        if !link.is_busy() {
            pulse.beat();
        } else if pulse.has_others() && pulse.silence() > SILENCE_MAX {
            return End::Lost(io::ErrorKind::TimedOut.into());
        }
    }
}

async fn tell_time(link: &Link) {
    let started = Instant::now();
    loop {
        sleep(if link.is_busy() { TICK } else { 10 * TICK }).await;
        link.tick(started.elapsed().as_millis() as u64);
    }
}

async fn read(reader: &mut OwnedReadHalf, link: &Link, pulse: &Pulse) -> End {
    let mut buffer = BytesMut::with_capacity(READ_BYTES);
    loop {
        match reader.read_buf(&mut buffer).await {
            Ok(0) => return End::Lost(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => pulse.beat(),
            Err(error) => return End::Lost(error),
        }
        let whole = whole_packets(&buffer);
        let packets = buffer.split_to(whole).freeze();
        if !packets.is_empty()
            && let Err(bad) = link.deliver(packets)
        {
            if !link.is_welcome() && matches!(bad, packet::Bad::Magic) {
                return End::Foreign(bad);
            }
            return End::Lost(io::Error::new(io::ErrorKind::InvalidData, bad));
        }
        buffer.reserve(packet::wanted(&buffer).saturating_sub(buffer.len()).max(READ_BYTES));
    }
}

async fn write(
    writer: &mut OwnedWriteHalf,
    link: &Link,
    bell: &Bell,
    current: &str,
    pulse: &Pulse,
) -> End {
    let (mut bytes, mut hint) = (Vec::new(), None);
    loop {
        hint = link.take_hint().or(hint).filter(|hint| hint != current);
        let leaves = link.shared.is_leaving() && pulse.has_others();
        if (leaves || hint.is_some()) && link.shared.may_move() {
            return hint.map_or(End::Left, End::Redirected);
        }
        if link.is_gone() {
            return End::Gone;
        }
        if !link.take(&mut bytes) {
            let patience = if leaves || hint.is_some() { LEAVE_LOOK } else { PROBE };
            let rung = timeout(patience, bell.0.notified()).await.is_ok();
            let silent = pulse.has_others() && link.is_busy() && pulse.silence() >= PROBE;
            if rung || !silent {
                continue;
            }
            probe(&mut bytes);
        }
        if let Err(error) = write_all(writer, &bytes, pulse).await {
            return End::Lost(error);
        }
        if bytes.capacity() > WRITE_BYTES_KEPT {
            bytes = Vec::new();
        }
    }
}

/// Writes everything. That the server takes it in shows that it is there.
async fn write_all(writer: &mut OwnedWriteHalf, mut bytes: &[u8], pulse: &Pulse) -> io::Result<()> {
    while !bytes.is_empty() {
        let start = Instant::now();
        match writer.write(bytes).await? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            written => bytes = &bytes[written..],
        }
        if start.elapsed() >= BLOCKED {
            pulse.beat();
        }
    }
    Ok(())
}

/// A question whose answer nobody waits for: that there is one is enough.
fn probe(out: &mut Vec<u8>) {
    let mut body = Vec::new();
    Ask::Resolve("default".to_owned()).encode(&mut body);
    packet::write(Kind::Ask, RequestId(u64::MAX), ShardId::DIRECTORY, &body, out);
}

/// How many bytes at the start are whole packets. Garbage counts as whole: whoever reads it says
/// what is wrong.
fn whole_packets(bytes: &[u8]) -> usize {
    let mut at = 0;
    loop {
        let rest = &bytes[at..];
        if rest.first().is_some_and(|first| *first != packet::MAGIC) {
            return bytes.len();
        }
        let wanted = packet::wanted(rest);
        if rest.len() < wanted {
            return at;
        }
        at += wanted;
    }
}

/// Tries the addresses, round after round, until one answers or the client is gone.
async fn redial(
    addrs: &[String],
    preferred: Option<String>,
    link: &Link,
) -> Option<(String, TcpStream)> {
    let mut pause = ROUND_PAUSE_MIN;
    let mut preferred = preferred.as_ref();
    while !link.is_gone() {
        if let Ok(found) = dial_any(preferred.take().into_iter().chain(addrs)).await {
            return Some(found);
        }
        sleep(pause).await;
        pause = (2 * pause).min(ROUND_PAUSE_MAX);
    }
    None
}

/// Tries each address once.
async fn dial_any<'a>(addrs: impl Iterator<Item = &'a String>) -> io::Result<(String, TcpStream)> {
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    let addrs: Vec<&String> = addrs.collect();
    let patience = if addrs.len() > 1 { DIAL_MAX_OF_SEVERAL } else { DIAL_MAX };
    for address in addrs {
        match timeout(patience, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                // Packets are batched by us; waiting for more would only cost time.
                stream.set_nodelay(true)?;
                return Ok((address.clone(), stream));
            }
            Ok(Err(error)) => last = error,
            Err(_) => last = io::ErrorKind::TimedOut.into(),
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_packets_are_told_from_the_rest() {
        let mut bytes = Vec::new();
        packet::write(Kind::Reply, RequestId(1), ShardId(0), &[7; 16], &mut bytes);
        let one = bytes.len();
        packet::write(Kind::Reply, RequestId(2), ShardId(0), &[], &mut bytes);
        for cut in 0..=bytes.len() {
            let expected = if cut == bytes.len() { cut } else { one * usize::from(cut >= one) };
            assert_eq!(whole_packets(&bytes[..cut]), expected, "{cut}");
        }
        bytes.extend_from_slice(b"HTTP");
        assert_eq!(whole_packets(&bytes), bytes.len());
    }
}
