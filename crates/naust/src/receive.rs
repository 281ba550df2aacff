//! From a socket's bytes to runs of whole packets, without copying them.
//!
//! A socket is read once a readiness, into a buffer that all connections of a worker share; the
//! whole packets at its front are handed over where they lie, and only the beginning of a packet
//! that has not arrived whole is kept by the connection. A packet that is larger than the shared
//! buffer is gathered in the connection's own.
//!
//! Only the length of a packet is looked at here; `node` checks the rest.

use naust_wire::limits::{PACKET_BODY_BYTES_MAX, PACKET_HEADER_BYTES, PACKET_MS_MAX};
use naust_wire::packet::{self, Bad};
use std::io::{self, ErrorKind, Read};

/// Bytes of the shared buffer: several hundred small commits, and small enough for a core's cache.
pub const BUFFER_BYTES: usize = 256 * 1024;
/// A connection keeps no more memory than this while it has no large packet under way.
const IDLE_BYTES_MAX: usize = 4 * 1024;

/// What one read came to.
#[derive(Debug)]
pub enum Received {
    /// Everything that had arrived was read: wait for the socket to say more.
    All,
    /// There may be more to read now.
    More,
    /// The other side has closed.
    End,
    /// What follows is no packet, and where the next one begins can't be found.
    Bad(Bad),
    /// The socket failed.
    Failed,
}

/// The receiving end of one connection.
#[derive(Debug, Default)]
pub struct Receiver {
    /// The beginning of a packet.
    partial: Vec<u8>,
    /// When its first byte came, in milliseconds.
    since_ms: u64,
}

impl Receiver {
    /// Bytes that are kept of a packet that is not whole.
    #[must_use]
    pub fn kept_bytes(&self) -> usize {
        self.partial.len()
    }

    /// Whether a packet is taking longer than it may.
    #[must_use]
    pub fn is_too_slow(&self, now_ms: u64) -> bool {
        !self.partial.is_empty() && now_ms > self.since_ms + PACKET_MS_MAX
    }

    /// Reads once from `source`, with the help of the shared `buffer`, and gives the whole packets
    /// to `packets`.
    pub fn read(
        &mut self,
        source: &mut impl Read,
        buffer: &mut [u8],
        now_ms: u64,
        packets: impl FnOnce(&[u8]),
    ) -> Received {
        let held = self.partial.len();
        let wanted = packet::wanted(&self.partial);
        if wanted > buffer.len() {
            return self.read_large(source, wanted, packets);
        }
        let read = match read_once(source, &mut buffer[held..]) {
            Ok(0) => return Received::End,
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Received::All,
            Err(_) => return Received::Failed,
        };
        buffer[..held].copy_from_slice(&self.partial);
        let filled = held + read;
        let (whole, bad) = whole_packets(&buffer[..filled]);
        if whole > 0 {
            packets(&buffer[..whole]);
        }
        if let Some(bad) = bad {
            return Received::Bad(bad);
        }
        self.keep(&buffer[whole..filled], whole > 0 || held == 0, now_ms);
        if filled == buffer.len() { Received::More } else { Received::All }
    }

    fn keep(&mut self, rest: &[u8], is_new: bool, now_ms: u64) {
        if rest.is_empty() && self.partial.capacity() > IDLE_BYTES_MAX {
            self.partial = Vec::new();
            return;
        }
        if is_new {
            self.since_ms = now_ms;
        }
        self.partial.clear();
        self.partial.extend_from_slice(rest);
    }

    fn read_large(
        &mut self,
        source: &mut impl Read,
        wanted: usize,
        packets: impl FnOnce(&[u8]),
    ) -> Received {
        let missing = (wanted - self.partial.len()) as u64;
        let read = source.take(missing).read_to_end(&mut self.partial);
        if self.partial.len() == wanted {
            packets(&self.partial);
            self.partial = Vec::new();
            return Received::More;
        }
        match read {
            Ok(_) => Received::End,
            Err(error) if error.kind() == ErrorKind::WouldBlock => Received::All,
            Err(_) => Received::Failed,
        }
    }
}

fn read_once(source: &mut impl Read, into: &mut [u8]) -> io::Result<usize> {
    loop {
        match source.read(into) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            outcome => return outcome,
        }
    }
}

/// How many bytes at the front of `bytes` are whole packets, and what is wrong with what follows,
/// if it is.
fn whole_packets(bytes: &[u8]) -> (usize, Option<Bad>) {
    let mut whole = 0;
    loop {
        let rest = &bytes[whole..];
        if let Some(bad) = look(rest) {
            return (whole, Some(bad));
        }
        let wanted = packet::wanted(rest);
        if wanted > rest.len() {
            return (whole, None);
        }
        whole += wanted;
    }
}

/// What is wrong with the header that begins here, as far as it has arrived.
fn look(rest: &[u8]) -> Option<Bad> {
    match rest {
        [magic, ..] if *magic != packet::MAGIC => Some(Bad::Magic),
        [_, version, ..] if *version != packet::VERSION => Some(Bad::Version(*version)),
        [_, _, _, _, a, b, c, d, ..] => {
            let body_bytes = u32::from_le_bytes([*a, *b, *c, *d]);
            (body_bytes as usize > PACKET_BODY_BYTES_MAX).then_some(Bad::Length(body_bytes))
        }
        _ => None,
    }
}

const _: () = assert!(BUFFER_BYTES > PACKET_HEADER_BYTES);

#[cfg(test)]
mod tests {
    use super::*;
    use naust_wire::{RequestId, ShardId};

    /// Gives its bytes in pieces of the given sizes, then would block.
    struct Dripping<'a>(&'a [u8], Vec<usize>);

    impl Read for Dripping<'_> {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            let Some(size) = self.1.pop() else { return Err(ErrorKind::WouldBlock.into()) };
            let size = size.min(self.0.len()).min(into.len());
            into[..size].copy_from_slice(&self.0[..size]);
            self.0 = &self.0[size..];
            Ok(size)
        }
    }

    fn packets(sizes: &[usize]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (number, size) in sizes.iter().enumerate() {
            let body: Vec<u8> = (0..*size).map(|i| (i * 7 + number) as u8).collect();
            let request = RequestId(number as u64);
            packet::write(packet::Kind::Commit, request, ShardId(1), &body, &mut bytes);
        }
        bytes
    }

    fn receive(bytes: &[u8], pieces: &[usize], buffer_bytes: usize) -> (Vec<u8>, Receiver) {
        let mut source = Dripping(bytes, pieces.iter().rev().copied().collect());
        let mut receiver = Receiver::default();
        let mut buffer = vec![0; buffer_bytes];
        let mut out = Vec::new();
        loop {
            let received = receiver.read(&mut source, &mut buffer, 5, |run| {
                let mut rest = run;
                while !rest.is_empty() {
                    let (_, length) = packet::read(rest).unwrap().unwrap();
                    rest = &rest[length..];
                }
                out.extend_from_slice(run);
            });
            match received {
                Received::All if source.1.is_empty() => return (out, receiver),
                Received::All | Received::More => {}
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn packets_come_out_whole_however_they_arrive() {
        let bytes = packets(&[0, 10, 300, 5000, 1, 40]);
        for piece in [1, 2, 7, 23, 24, 25, 100, 4096, 100_000] {
            for buffer_bytes in [64, 1000, 100_000] {
                let mut source = Dripping(&bytes, vec![piece; bytes.len() * 2]);
                let mut receiver = Receiver::default();
                let mut buffer = vec![0; buffer_bytes];
                let mut out = Vec::new();
                while out.len() < bytes.len() {
                    let received = receiver
                        .read(&mut source, &mut buffer, 0, |run| out.extend_from_slice(run));
                    assert!(matches!(received, Received::All | Received::More), "{received:?}");
                }
                assert_eq!(out, bytes, "pieces of {piece}, buffer of {buffer_bytes}");
                assert_eq!(receiver.kept_bytes(), 0);
            }
        }
    }

    #[test]
    fn a_packet_that_is_not_whole_is_kept_and_timed() {
        let bytes = packets(&[10, 300]);
        let (out, receiver) = receive(&bytes[..bytes.len() - 1], &[50, 20, 1000], 1000);
        assert_eq!(out, packets(&[10]));
        assert_eq!(receiver.kept_bytes(), bytes.len() - out.len() - 1);
        assert!(!receiver.is_too_slow(5 + PACKET_MS_MAX));
        assert!(receiver.is_too_slow(6 + PACKET_MS_MAX));
        let (_, receiver) = receive(&bytes, &[1000], 1000);
        assert!(!receiver.is_too_slow(u64::MAX), "nothing is under way");
    }

    #[test]
    fn what_is_no_packet_ends_the_run_before_it() {
        let good = packets(&[10, 20]);
        let table: [(&[u8], Bad); 3] = [
            (b"GET / HTTP/1.1", Bad::Magic),
            (&[packet::MAGIC, 9], Bad::Version(9)),
            (&[packet::MAGIC, packet::VERSION, 1, 0, 255, 255, 255, 255], Bad::Length(u32::MAX)),
        ];
        for (tail, expected) in table {
            let bytes = [&good[..], tail].concat();
            let mut out = Vec::new();
            let mut buffer = vec![0; 1000];
            let mut source = &bytes[..];
            let received = Receiver::default()
                .read(&mut source, &mut buffer, 0, |run| out.extend_from_slice(run));
            assert!(matches!(received, Received::Bad(bad) if bad == expected), "{received:?}");
            assert_eq!(out, good);
        }
    }
}
