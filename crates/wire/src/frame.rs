//! The header of a frame: one entry of a shard's log.
//!
//! ```text
//!  0     2    3       4          8     12         16   24    32     40       48     56
//!  +-----+----+-------+----------+-----+----------+----+-----+------+--------+------+-- - -
//!  |magic|kind|version|body bytes| crc |crc before|term|index|offset|log time|synced| body …
//!  +-----+----+-------+----------+-----+----------+----+-----+------+--------+------+-- - -
//!  |<----- crc covers ---------->|     |<---------- crc covers ------------>|      | and body
//! ```
//! All integers are little-endian. The CRC-32C covers the first eight bytes, what lies between
//! itself and `synced`, and the body. `synced` is *local*: up to where this disk was durable when
//! the frame was written; it takes part in no checksum and no comparison, so frames of all replicas
//! are byte-identical but for it. After the body come zero to seven zero bytes up to the next
//! multiple of eight.

use crate::ids::{Index, LogTime, Offset, Term};
use crate::limits::{FRAME_ALIGN, FRAME_BODY_BYTES_MAX, FRAME_HEADER_BYTES};
use crate::planted::{self, Bug};

/// First two bytes of every frame: "Nf". Zero-filled space can't be taken for a frame.
pub const MAGIC: [u8; 2] = *b"Nf";
/// Format version of frames written by this release.
pub const VERSION: u8 = 1;

/// What the body of a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// No body: a new leader's first entry.
    Empty = 1,
    /// A `Commit` message.
    Commit = 2,
    /// A `Control` message.
    Control = 3,
    /// A change of the shard's replicas, in the encoding of `consensus`.
    Configure = 4,
    /// Fills the rest of a segment; belongs to no Raft entry and has no index of its own.
    Padding = 5,
}

impl Kind {
    /// The kind of a number, if there is one.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Kind> {
        match number {
            1 => Some(Kind::Empty),
            2 => Some(Kind::Commit),
            3 => Some(Kind::Control),
            4 => Some(Kind::Configure),
            5 => Some(Kind::Padding),
            _ => None,
        }
    }
}

/// The fields of a frame header, without its checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What the body is.
    pub kind: Kind,
    /// Length of the body in bytes, at most [`FRAME_BODY_BYTES_MAX`].
    pub body_bytes: u32,
    /// The checksum of the frame before this one; zero for the first of a log.
    pub crc_before: u32,
    /// Raft term of the entry.
    pub term: Term,
    /// Raft index of the entry.
    pub index: Index,
    /// Where the frame begins in the log.
    pub offset: Offset,
    /// Log time that the leader stamped, in milliseconds.
    pub time: LogTime,
    /// Local: this disk was durable up to here when the frame was written.
    pub synced: Offset,
}

/// Why bytes are no frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Bad {
    /// The bytes end before the frame does; at least this many are needed in all.
    #[error("the bytes end inside the frame; {0} are needed")]
    Short(usize),
    /// All bytes of the header are zero: space that was never written.
    #[error("unwritten space")]
    Blank,
    /// The first two bytes are wrong.
    #[error("no frame begins here")]
    Magic,
    /// A format version of another release.
    #[error("frame format version {0} is not known to this release")]
    Version(u8),
    /// A kind of frame that this release does not know, though the checksum is right.
    #[error("frame kind {0} is not known to this release")]
    Kind(u8),
    /// A length over the limit.
    #[error("frame body of {0} bytes is over the limit")]
    Length(u32),
    /// The checksum is wrong.
    #[error("checksum mismatch")]
    Crc,
}

/// Bytes that a frame with a body of `body_bytes` takes in the log, padding to the alignment
/// included.
#[must_use]
pub const fn frame_bytes(body_bytes: usize) -> usize {
    (FRAME_HEADER_BYTES + body_bytes).next_multiple_of(FRAME_ALIGN)
}

impl Header {
    /// Bytes that the frame takes in the log, padding to the alignment included.
    #[must_use]
    pub const fn frame_bytes(&self) -> u64 {
        frame_bytes(self.body_bytes as usize) as u64
    }

    /// Where the next frame begins.
    #[must_use]
    pub const fn end(&self) -> Offset {
        self.offset.plus(self.frame_bytes())
    }

    /// Appends header, body and padding to `out` and returns the frame's checksum.
    ///
    /// # Panics
    /// If the body's length is not the header's `body_bytes` or is over the limit: a bug of the
    /// caller.
    pub fn write(&self, body: &[u8], out: &mut Vec<u8>) -> u32 {
        assert!(body.len() <= FRAME_BODY_BYTES_MAX, "frame body over the limit");
        assert_eq!(body.len(), self.body_bytes as usize, "body length differs from the header's");
        let mut head = [0u8; FRAME_HEADER_BYTES];
        head[0..2].copy_from_slice(&MAGIC);
        head[2] = self.kind as u8;
        head[3] = VERSION;
        head[4..8].copy_from_slice(&self.body_bytes.to_le_bytes());
        head[12..16].copy_from_slice(&self.crc_before.to_le_bytes());
        head[16..24].copy_from_slice(&self.term.0.to_le_bytes());
        head[24..32].copy_from_slice(&self.index.0.to_le_bytes());
        head[32..40].copy_from_slice(&self.offset.0.to_le_bytes());
        head[40..48].copy_from_slice(&self.time.0.to_le_bytes());
        head[48..56].copy_from_slice(&self.synced.0.to_le_bytes());
        let crc = checksum(&head, body);
        head[8..12].copy_from_slice(&crc.to_le_bytes());
        out.extend_from_slice(&head);
        out.extend_from_slice(body);
        let padding = frame_bytes(body.len()) - FRAME_HEADER_BYTES - body.len();
        out.extend_from_slice(&[0u8; FRAME_ALIGN][..padding]);
        crc
    }
}

/// A frame as it lies in a buffer: its header, its checksum and its body in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// The decoded header.
    pub header: Header,
    /// The frame's checksum.
    pub crc: u32,
    /// The body, in place.
    pub body: &'a [u8],
}

/// Reads the header at the start of `bytes` without looking at the checksum, to learn how long the
/// frame may be. None of it can be trusted before [`read`] has seen the whole frame: a rotten byte
/// may look like a frame of another release.
///
/// # Errors
/// [`Bad`], except for [`Bad::Crc`].
pub fn peek(bytes: &[u8]) -> Result<(Header, u32), Bad> {
    let head = head(bytes)?;
    if head[3] != VERSION {
        return Err(Bad::Version(head[3]));
    }
    let kind = Kind::from_number(head[2]).ok_or(Bad::Kind(head[2]))?;
    let header = Header {
        kind,
        body_bytes: u32_at(head, 4),
        crc_before: u32_at(head, 12),
        term: Term(u64_at(head, 16)),
        index: Index(u64_at(head, 24)),
        offset: Offset(u64_at(head, 32)),
        time: LogTime(u64_at(head, 40)),
        synced: Offset(u64_at(head, 48)),
    };
    Ok((header, u32_at(head, 8)))
}

/// Reads and checks the frame at the start of `bytes`.
///
/// Magic, length and checksum stand where they stand in every version of the format, so a frame of
/// another release is told from a rotten one: [`Bad::Version`] and [`Bad::Kind`] are answered only
/// if the checksum is right.
///
/// # Errors
/// [`Bad`]. Padding that is not zero is [`Bad::Crc`] too.
pub fn read(bytes: &[u8]) -> Result<Frame<'_>, Bad> {
    let head = head(bytes)?;
    let body_end = FRAME_HEADER_BYTES + u32_at(head, 4) as usize;
    let end = body_end.next_multiple_of(FRAME_ALIGN);
    if bytes.len() < end {
        return Err(Bad::Short(end));
    }
    let body = &bytes[FRAME_HEADER_BYTES..body_end];
    let is_bad =
        checksum(head, body) != u32_at(head, 8) || bytes[body_end..end].iter().any(|b| *b != 0);
    if is_bad && !planted::has(Bug::BelieveFrames) {
        return Err(Bad::Crc);
    }
    let (header, crc) = peek(bytes)?;
    Ok(Frame { header, crc, body })
}

/// The bytes of a header with the right magic and a length within the limit.
fn head(bytes: &[u8]) -> Result<&[u8; FRAME_HEADER_BYTES], Bad> {
    let seen = &bytes[..bytes.len().min(FRAME_HEADER_BYTES)];
    if seen.len() >= MAGIC.len() && !seen.starts_with(&MAGIC) {
        return Err(if seen.iter().all(|b| *b == 0) { Bad::Blank } else { Bad::Magic });
    }
    let head = seen.first_chunk().ok_or(Bad::Short(FRAME_HEADER_BYTES))?;
    let body_bytes = u32_at(head, 4);
    if body_bytes as usize > FRAME_BODY_BYTES_MAX {
        return Err(Bad::Length(body_bytes));
    }
    Ok(head)
}

/// Gives `bytes` a header that is right about magic, version, length and checksum: for fuzzing.
/// Tells whether there was room for one.
pub(crate) fn mend(bytes: &mut Vec<u8>) -> bool {
    if bytes.len() < FRAME_HEADER_BYTES || bytes.len() > FRAME_HEADER_BYTES + FRAME_BODY_BYTES_MAX {
        return false;
    }
    let body_bytes = (bytes.len() - FRAME_HEADER_BYTES) as u32;
    bytes[0..2].copy_from_slice(&MAGIC);
    bytes[2] %= 8;
    bytes[3] = VERSION;
    bytes[4..8].copy_from_slice(&body_bytes.to_le_bytes());
    let mut head = [0u8; FRAME_HEADER_BYTES];
    head.copy_from_slice(&bytes[..FRAME_HEADER_BYTES]);
    let crc = checksum(&head, &bytes[FRAME_HEADER_BYTES..]);
    bytes[8..12].copy_from_slice(&crc.to_le_bytes());
    bytes.resize(frame_bytes(body_bytes as usize), 0);
    true
}

fn checksum(head: &[u8; FRAME_HEADER_BYTES], body: &[u8]) -> u32 {
    // One contiguous copy of the covered header bytes: two calls of the checksum instead of three.
    let mut covered = [0u8; 44];
    covered[..8].copy_from_slice(&head[..8]);
    covered[8..].copy_from_slice(&head[12..48]);
    crate::packet::crc32c(&[&covered, body])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn header(body: &[u8]) -> Header {
        Header {
            kind: Kind::Commit,
            body_bytes: body.len() as u32,
            crc_before: 7,
            term: Term(3),
            index: Index(9),
            offset: Offset::FIRST,
            time: LogTime(1234),
            synced: Offset(77),
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(body in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut out = Vec::new();
            let crc = header(&body).write(&body, &mut out);
            prop_assert_eq!(out.len() % FRAME_ALIGN, 0);
            let frame = read(&out).unwrap();
            prop_assert_eq!(frame.header, header(&body));
            prop_assert_eq!(frame.crc, crc);
            prop_assert_eq!(frame.body, &body[..]);
        }

        #[test]
        fn a_flipped_bit_is_seen(
            body in proptest::collection::vec(any::<u8>(), 0..80),
            at: usize,
            bit in 0u8..8,
        ) {
            let mut out = Vec::new();
            header(&body).write(&body, &mut out);
            let at = at % out.len();
            out[at] ^= 1 << bit;
            let local = (48..56).contains(&at);
            prop_assert_eq!(read(&out).is_ok(), local);
        }

        #[test]
        fn any_bytes_are_answered(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = read(&bytes);
        }
    }

    #[test]
    fn the_local_field_is_outside_the_checksum() {
        let (mut a, mut b) = (Vec::new(), Vec::new());
        let one = header(b"x");
        let two = Header { synced: Offset(1), ..one };
        assert_eq!(one.write(b"x", &mut a), two.write(b"x", &mut b));
        assert_ne!(a, b);
    }

    #[test]
    fn another_releases_frame_is_told_from_a_rotten_one() {
        for (byte, bad) in [(2, Bad::Kind(99)), (3, Bad::Version(99))] {
            let mut out = Vec::new();
            header(b"x").write(b"x", &mut out);
            out[byte] = 99;
            assert_eq!(read(&out), Err(Bad::Crc));
            let head = *out.first_chunk().unwrap();
            out[8..12].copy_from_slice(&checksum(&head, b"x").to_le_bytes());
            assert_eq!(read(&out), Err(bad));
        }
    }

    #[test]
    fn a_frame_that_is_not_whole_says_how_much_it_needs() {
        let mut out = Vec::new();
        header(b"body").write(b"body", &mut out);
        for cut in 0..out.len() {
            let needed = if cut < FRAME_HEADER_BYTES { FRAME_HEADER_BYTES } else { out.len() };
            assert_eq!(read(&out[..cut]), Err(Bad::Short(needed)));
        }
    }

    #[test]
    fn unwritten_space_is_told_from_garbage() {
        assert_eq!(read(&[0; 64]), Err(Bad::Blank));
        assert_eq!(read(&[0; 2]), Err(Bad::Blank));
        assert_eq!(read(&[9; 64]), Err(Bad::Magic));
        assert_eq!(read(&[9; 2]), Err(Bad::Magic));
    }
}
