//! The header of a packet: one message on a socket.
//!
//! ```text
//!  0     1       2      4          8           16      20    24
//!  +-----+-------+------+----------+-----------+-------+-----+-- - -
//!  |magic|version| kind |body bytes| request id| shard | crc | body …
//!  +-----+-------+------+----------+-----------+-------+-----+-- - -
//! ```
//! All integers are little-endian; the CRC-32C covers the first 20 bytes and the body. The body of
//! a `Commit` or `Control` packet becomes the body of a log frame as it is.

use crate::ids::{RequestId, ShardId};
use crate::limits::{PACKET_BODY_BYTES_MAX, PACKET_HEADER_BYTES};

/// First byte of every packet.
pub const MAGIC: u8 = b'N';
/// Version of the native protocol of this release.
pub const VERSION: u8 = 1;

/// What the body of a packet is. Requests are below 0x8000, replies above.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum Kind {
    /// Request: a `Commit` message.
    Commit = 1,
    /// Request: a `Control` message.
    Control = 2,
    /// Request: a `Read` message.
    Read = 3,
    /// Request: an `Ask` message.
    Ask = 4,
    /// Between nodes, not answered: a [`peer`](crate::peer) message and log frames.
    Peer = 5,
    /// The same, for every worker of the node: the greeting of a link, and that a node is alive.
    PeerToAll = 6,
    /// Reply: a `Reply` message.
    Reply = 0x8001,
}

impl Kind {
    /// The kind of a number, if there is one.
    #[must_use]
    pub fn from_number(number: u16) -> Option<Kind> {
        match number {
            1 => Some(Kind::Commit),
            2 => Some(Kind::Control),
            3 => Some(Kind::Read),
            4 => Some(Kind::Ask),
            5 => Some(Kind::Peer),
            6 => Some(Kind::PeerToAll),
            0x8001 => Some(Kind::Reply),
            _ => None,
        }
    }
}

/// A packet as it lies in a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    /// What the body is.
    pub kind: Kind,
    /// Pairs a reply with its request.
    pub request: RequestId,
    /// The shard that is meant; ignored for `Ask`.
    pub shard: ShardId,
    /// The body, in place.
    pub body: &'a [u8],
}

/// Why bytes are no packet. All but [`Bad::Kind`] and [`Bad::Crc`] end the connection: what follows
/// can't be found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Bad {
    /// The first byte is wrong.
    #[error("no packet begins here")]
    Magic,
    /// Another protocol version.
    #[error("protocol version {0} is not known to this release")]
    Version(u8),
    /// A length over the limit.
    #[error("packet body of {0} bytes is over the limit")]
    Length(u32),
    /// A kind that this release does not know; the packet is whole and was `.1` bytes long.
    #[error("packet kind {0} is not known to this release")]
    Kind(u16, usize, RequestId),
    /// The checksum is wrong; the packet was `.0` bytes long.
    #[error("checksum mismatch")]
    Crc(usize, RequestId),
}

/// Appends a packet to `out`.
///
/// # Panics
/// If the body is over the limit: a bug of the caller.
pub fn write(kind: Kind, request: RequestId, shard: ShardId, body: &[u8], out: &mut Vec<u8>) {
    let start = begin(out);
    out.extend_from_slice(body);
    finish(start, kind, request, shard, out);
}

/// Leaves room for a header at the end of `out` and returns where it begins; the body is appended
/// after it, then [`finish`] fills the header in. For bodies that are built in place.
pub fn begin(out: &mut Vec<u8>) -> usize {
    let start = out.len();
    out.extend_from_slice(&[0u8; PACKET_HEADER_BYTES]);
    start
}

/// Fills in the header that [`begin`] left room for: everything after it is the body.
///
/// # Panics
/// If the body is over the limit: a bug of the caller.
pub fn finish(start: usize, kind: Kind, request: RequestId, shard: ShardId, out: &mut [u8]) {
    let body_bytes = out.len() - start - PACKET_HEADER_BYTES;
    assert!(body_bytes <= PACKET_BODY_BYTES_MAX, "packet body over the limit");
    let (head, body) = out[start..].split_at_mut(PACKET_HEADER_BYTES);
    head[0] = MAGIC;
    head[1] = VERSION;
    head[2..4].copy_from_slice(&(kind as u16).to_le_bytes());
    head[4..8].copy_from_slice(&(body_bytes as u32).to_le_bytes());
    head[8..16].copy_from_slice(&request.0.to_le_bytes());
    head[16..20].copy_from_slice(&shard.0.to_le_bytes());
    let crc = crc32c(&[&head[..20], body]);
    head[20..24].copy_from_slice(&crc.to_le_bytes());
}

/// Reads the packet at the start of `bytes`: the packet and its length, or `None` while more bytes
/// are needed.
///
/// # Errors
/// [`Bad`].
pub fn read(bytes: &[u8]) -> Result<Option<(Packet<'_>, usize)>, Bad> {
    if bytes.first().is_some_and(|b| *b != MAGIC) {
        return Err(Bad::Magic);
    }
    if bytes.get(1).is_some_and(|v| *v != VERSION) {
        return Err(Bad::Version(bytes[1]));
    }
    let Some(head) = bytes.first_chunk::<PACKET_HEADER_BYTES>() else { return Ok(None) };
    let body_bytes = u32::from_le_bytes([head[4], head[5], head[6], head[7]]);
    if body_bytes as usize > PACKET_BODY_BYTES_MAX {
        return Err(Bad::Length(body_bytes));
    }
    let length = PACKET_HEADER_BYTES + body_bytes as usize;
    if bytes.len() < length {
        return Ok(None);
    }
    let mut request = [0u8; 8];
    request.copy_from_slice(&head[8..16]);
    let request = RequestId(u64::from_le_bytes(request));
    let body = &bytes[PACKET_HEADER_BYTES..length];
    let crc = u32::from_le_bytes([head[20], head[21], head[22], head[23]]);
    if crc32c(&[&head[..20], body]) != crc {
        return Err(Bad::Crc(length, request));
    }
    let number = u16::from_le_bytes([head[2], head[3]]);
    let kind = Kind::from_number(number).ok_or(Bad::Kind(number, length, request))?;
    let shard = ShardId(u32::from_le_bytes([head[16], head[17], head[18], head[19]]));
    Ok(Some((Packet { kind, request, shard, body }, length)))
}

/// How many bytes the packet at the start of `bytes` needs in all, as far as can be told: to size a
/// read buffer.
#[must_use]
pub fn wanted(bytes: &[u8]) -> usize {
    match bytes.first_chunk::<8>() {
        None => PACKET_HEADER_BYTES,
        Some(head) => {
            let body = u32::from_le_bytes([head[4], head[5], head[6], head[7]]) as usize;
            PACKET_HEADER_BYTES + body.min(PACKET_BODY_BYTES_MAX)
        }
    }
}

/// CRC-32C (Castagnoli, as in iSCSI, RFC 3720) over the concatenation of `parts`.
#[must_use]
pub fn crc32c(parts: &[&[u8]]) -> u32 {
    let mut digest = crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32Iscsi);
    for part in parts {
        digest.update(part);
    }
    digest.finalize() as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_checksum_is_castagnolis() {
        assert_eq!(crc32c(&[b"123456789"]), 0xe306_9283);
        assert_eq!(crc32c(&[b"1234", b"56789"]), 0xe306_9283);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            body in proptest::collection::vec(any::<u8>(), 0..100),
            request: u64,
            shard: u32,
        ) {
            let mut out = Vec::new();
            write(Kind::Commit, RequestId(request), ShardId(shard), &body, &mut out);
            for cut in 0..out.len() {
                prop_assert_eq!(read(&out[..cut]), Ok(None));
            }
            let (packet, length) = read(&out).unwrap().unwrap();
            prop_assert_eq!(length, out.len());
            prop_assert_eq!(packet.body, &body[..]);
            prop_assert_eq!((packet.request.0, packet.shard.0), (request, shard));
        }

        #[test]
        fn any_bytes_are_answered(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = read(&bytes);
            let _ = wanted(&bytes);
        }
    }
}
