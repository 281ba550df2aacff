//! Over a socket: one task reads, one writes, many packets a system call. A lost connection is made
//! again.

use super::{Link, Notify};
use crate::Error;
use bytes::BytesMut;
use naust_wire::Code;
use naust_wire::packet;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::{Instant, sleep, timeout};

/// How often time is told while something is under way: deadlines and pauses are this exact.
const TICK: Duration = Duration::from_millis(25);
/// How long an address may take to answer.
const DIAL_MAX: Duration = Duration::from_secs(5);
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

/// Keeps a connection to one of several addresses.
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
        while !link.is_gone() {
            let (mut reader, mut writer) = self.stream.into_split();
            link.up();
            let why = tokio::select! {
                why = read(&mut reader, link) => why,
                why = write(&mut writer, link, bell, &self.current) => why,
            };
            drop((reader, writer));
            let why = match why {
                End::Gone => return,
                End::Lost(error) => error.to_string(),
                End::Redirected(to) => {
                    let why = format!("{} is no leader; going to {to}", self.current);
                    self.preferred = Some(to);
                    why
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
}

async fn tell_time(link: &Link) {
    let started = Instant::now();
    loop {
        sleep(if link.is_busy() { TICK } else { 10 * TICK }).await;
        link.tick(started.elapsed().as_millis() as u64);
    }
}

async fn read(reader: &mut OwnedReadHalf, link: &Link) -> End {
    let mut buffer = BytesMut::with_capacity(READ_BYTES);
    loop {
        match reader.read_buf(&mut buffer).await {
            Ok(0) => return End::Lost(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => {}
            Err(error) => return End::Lost(error),
        }
        let whole = whole_packets(&buffer);
        let packets = buffer.split_to(whole).freeze();
        if !packets.is_empty()
            && let Err(bad) = link.deliver(packets)
        {
            return End::Lost(io::Error::new(io::ErrorKind::InvalidData, bad));
        }
        buffer.reserve(packet::wanted(&buffer).saturating_sub(buffer.len()).max(READ_BYTES));
    }
}

async fn write(writer: &mut OwnedWriteHalf, link: &Link, bell: &Bell, current: &str) -> End {
    let mut bytes = Vec::new();
    loop {
        if let Some(hint) = link.take_hint()
            && hint != current
        {
            return End::Redirected(hint);
        }
        if link.is_gone() {
            return End::Gone;
        }
        if !link.take(&mut bytes) {
            bell.0.notified().await;
            continue;
        }
        if let Err(error) = writer.write_all(&bytes).await {
            return End::Lost(error);
        }
        if bytes.capacity() > WRITE_BYTES_KEPT {
            bytes = Vec::new();
        }
    }
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
    for address in addrs {
        match timeout(DIAL_MAX, TcpStream::connect(address)).await {
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
    use naust_wire::packet::Kind;
    use naust_wire::{RequestId, ShardId};

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
