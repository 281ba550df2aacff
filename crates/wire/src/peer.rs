//! What nodes tell each other: the body of packets of kind `Peer` and `PeerToAll`.
//!
//! ```text
//!  0            4          8
//!  +------------+----------+-----------------+- - -
//!  | head bytes | 0 0 0 0  | head: a message | log frames …
//!  +------------+----------+-----------------+- - -
//! ```
//! The frames are the bytes that lie on the sender's disk, padding between segments included.
//! Nothing of them is encoded again; [`open`] gives them back in place.

use crate::ids::{Index, LogTime, NodeId, Offset, RequestId, ShardId, Term};
use crate::limits::{
    CONTEXT_BYTES_MAX, NAME_BYTES_MAX, PEER_CONFIGURATION_BYTES_MAX, TEXT_BYTES_MAX,
    TRANSFER_FILES_MAX,
};
use crate::message::{Message, Refusal, bounded, build, data, text};
use crate::naust_capnp as schema;
use crate::options::NamespaceOptions;
use crate::packet::{self, Kind};
use crate::{Code, name};

/// Offsets and indices end long before.
const PLACE_MAX: u64 = u64::MAX / 4;
/// Bytes in front of the message.
const PREFIX_BYTES: usize = 8;

/// A message of one node to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Who speaks.
    pub from: NodeId,
    /// To whom.
    pub to: NodeId,
    /// What.
    pub said: Said,
}

/// What a node says to another.
#[allow(missing_docs)]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// The first packet of a link: of which cluster it is, its name, and where it listens.
    Hello { cluster: u64, name: String, address: String },
    /// It is there. Said all the time.
    Alive,
    /// What replicas of a shard tell each other. The entries are the frames behind.
    Raft(Raft),
    /// Become a replica of a shard, whose log began with this configuration.
    Invite { configuration: Vec<u8>, options: NamespaceOptions },
    /// Nothing is under way in a shard, whose log ends here for all its replicas: there will be no
    /// heartbeats until there is.
    Sleep { term: Term, index: Index },
    /// What a replica of a shard is made of, for one that is too far behind to be fed from the log.
    Contents(Contents),
    /// Send the part of a file of a transfer that begins here.
    Want { transfer: u64, file: u32, at: u64 },
    /// That part; its bytes lie behind.
    Part { transfer: u64, file: u32, at: u64 },
    /// The transfer has ended, well or not.
    Installed { transfer: u64, ok: bool },
    /// The frames between these offsets are damaged here: send them.
    Seek { from: Offset, to: Offset },
    /// As many of them as one packet takes lie behind, or none; whether all of these are committed.
    Found { from: Offset, committed: bool },
    /// This node's replica is damaged beyond use, and closed: the leader is to send all of its own.
    /// The number is that of this closing, unlike all others of this replica.
    Renew { number: u64 },
    /// This shard, whose namespace is to be removed, is closed. Said to the leader of shard 0.
    Closed(ShardId),
    /// The namespace of this shard is to be removed. Said to its leader, which may not have heard.
    End,
    /// The transfer goes on, though nothing is wanted for now: what is there is looked through, or
    /// taken in place, which may take long.
    Keep { transfer: u64 },
}

/// What a replica is made of: files of log and tables as they lie on a disk, and what is not in
/// them.
#[allow(missing_docs)]
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Contents {
    /// Tells this transfer from others of the same leader.
    pub transfer: u64,
    /// Names, and lengths in bytes.
    pub files: Vec<(String, u64)>,
    /// Where the log begins: offset, index, term and checksum of the frame before, log time.
    pub start: (Offset, Index, Term, u32, LogTime),
    /// Its last frame.
    pub last: (Index, Term),
    /// The configuration that the log began with.
    pub initial: Vec<u8>,
    /// Log bytes of a segment.
    pub segment_bytes: u64,
    /// The number of the `Renew` that it answers; zero: none.
    pub answers: u64,
}

/// The fields of a Raft message, whose meaning depends on `kind`: numbered as in `consensus`.
#[allow(missing_docs)]
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Raft {
    pub kind: u8,
    pub term: Term,
    pub log_term: Term,
    pub index: Index,
    pub commit: Index,
    pub commit_term: Term,
    pub reject: bool,
    pub reject_hint: Index,
    pub request_snapshot: Index,
    pub priority: i64,
    pub context: Vec<u8>,
}

/// A packet that is being written: frames may be appended to `out` before [`Packet::finish`].
#[must_use]
pub struct Packet {
    start: usize,
    kind: Kind,
    shard: ShardId,
}

impl Packet {
    /// Ends the packet: everything behind its head is frames.
    ///
    /// # Panics
    /// If it is longer than a packet may be: a bug of the caller.
    pub fn finish(self, out: &mut [u8]) {
        packet::finish(self.start, self.kind, RequestId(0), self.shard, out);
    }
}

/// Begins a packet at the end of `out`, with its head.
pub fn begin(shard: ShardId, peer: &Peer, out: &mut Vec<u8>) -> Packet {
    let kind = match peer.said {
        Said::Hello { .. } | Said::Alive => Kind::PeerToAll,
        _ => Kind::Peer,
    };
    let start = packet::begin(out);
    let head = out.len();
    out.extend_from_slice(&[0; PREFIX_BYTES]);
    peer.encode(out);
    let bytes = (out.len() - head - PREFIX_BYTES) as u32;
    out[head..head + 4].copy_from_slice(&bytes.to_le_bytes());
    Packet { start, kind, shard }
}

/// Appends a packet without frames to `out`.
pub fn write(shard: ShardId, peer: &Peer, out: &mut Vec<u8>) {
    begin(shard, peer, out).finish(out);
}

/// Takes the body of a packet apart: what is said, and the frames behind it.
///
/// # Errors
/// `Malformed`, `UnknownKind` or `TooLarge`.
pub fn open(body: &[u8]) -> Result<(Peer, &[u8]), Refusal> {
    let short = || Refusal::new(Code::Malformed, "the head of a message between nodes is cut off");
    let (prefix, rest) = body.split_first_chunk::<PREFIX_BYTES>().ok_or_else(short)?;
    let bytes = u32::from_le_bytes([prefix[0], prefix[1], prefix[2], prefix[3]]) as usize;
    let (head, frames) = rest.split_at_checked(bytes).ok_or_else(short)?;
    Ok((Peer::decode(head)?, frames))
}

impl Peer {
    fn encode(&self, out: &mut Vec<u8>) {
        build::<schema::peer::Owned>(64, out, |mut root| {
            root.set_from(self.from.0);
            root.set_to(self.to.0);
            match &self.said {
                Said::Hello { cluster, name, address } => {
                    let mut to = root.init_hello();
                    to.set_cluster(*cluster);
                    to.set_name(name);
                    to.set_address(address);
                }
                Said::Alive => root.set_alive(()),
                Said::Raft(raft) => raft.write(root.init_raft()),
                Said::Invite { configuration, options } => {
                    let mut to = root.init_invite();
                    to.set_configuration(configuration);
                    options.write(to.init_options());
                }
                Said::Sleep { term, index } => {
                    let mut to = root.init_sleep();
                    to.set_sleep_term(term.0);
                    to.set_sleep_index(index.0);
                }
                Said::Contents(contents) => contents.write(root.init_contents()),
                Said::Want { transfer, file, at } => {
                    let mut to = root.init_want();
                    to.set_wanted(*transfer);
                    to.set_wanted_file(*file);
                    to.set_wanted_at(*at);
                }
                Said::Part { transfer, file, at } => {
                    let mut to = root.init_part();
                    to.set_part_of(*transfer);
                    to.set_part_file(*file);
                    to.set_part_at(*at);
                }
                Said::Installed { transfer, ok } => {
                    let mut to = root.init_installed();
                    to.set_ended(*transfer);
                    to.set_ok(*ok);
                }
                Said::Seek { from, to: end } => {
                    let mut to = root.init_seek();
                    to.set_seek_from(from.0);
                    to.set_seek_to(end.0);
                }
                Said::Found { from, committed } => {
                    let mut to = root.init_found();
                    to.set_found_from(from.0);
                    to.set_found_committed(*committed);
                }
                Said::Renew { number } => root.set_renew(*number),
                Said::Keep { transfer } => root.set_keep(*transfer),
                Said::Closed(shard) => root.set_closed(shard.0),
                Said::End => root.set_end(()),
            }
        });
    }

    fn decode(head: &[u8]) -> Result<Peer, Refusal> {
        use schema::peer::Which;
        let message = Message::once(head)?;
        let root: schema::peer::Reader<'_> = message.root()?;
        let said = match root.which()? {
            Which::Hello(from) => {
                let name = text(from.get_name()?, NAME_BYTES_MAX)?;
                name::check(&name)?;
                let address = text(from.get_address()?, TEXT_BYTES_MAX)?;
                Said::Hello { cluster: from.get_cluster(), name, address }
            }
            Which::Alive(()) => Said::Alive,
            Which::Raft(from) => Said::Raft(Raft::read(from)?),
            Which::Invite(from) => {
                let bytes = from.get_configuration()?;
                let configuration = data(bytes, PEER_CONFIGURATION_BYTES_MAX)?;
                let options = NamespaceOptions::read(from.get_options()?)?;
                Said::Invite { configuration, options }
            }
            Which::Sleep(from) => Said::Sleep {
                term: Term(from.get_sleep_term()),
                index: Index(place(from.get_sleep_index())?),
            },
            Which::Contents(from) => Said::Contents(Contents::read(from)?),
            Which::Want(from) => Said::Want {
                transfer: from.get_wanted(),
                file: from.get_wanted_file(),
                at: place(from.get_wanted_at())?,
            },
            Which::Part(from) => Said::Part {
                transfer: from.get_part_of(),
                file: from.get_part_file(),
                at: place(from.get_part_at())?,
            },
            Which::Installed(from) => {
                Said::Installed { transfer: from.get_ended(), ok: from.get_ok() }
            }
            Which::Seek(from) => {
                let (begin, end) = (place(from.get_seek_from())?, place(from.get_seek_to())?);
                Said::Seek { from: Offset(begin), to: Offset(end) }
            }
            Which::Found(from) => Said::Found {
                from: Offset(place(from.get_found_from())?),
                committed: from.get_found_committed(),
            },
            Which::Renew(number) => Said::Renew { number },
            Which::Keep(transfer) => Said::Keep { transfer },
            Which::Closed(shard) => Said::Closed(ShardId(shard)),
            Which::End(()) => Said::End,
        };
        Ok(Peer { from: NodeId(root.get_from()), to: NodeId(root.get_to()), said })
    }
}

/// An offset, an index or a length: no log and no file comes so far that reckoning with it could
/// overflow.
fn place(number: u64) -> Result<u64, Refusal> {
    match number <= PLACE_MAX {
        true => Ok(number),
        false => Err(Refusal::new(Code::Malformed, "a place that no log reaches")),
    }
}

impl Raft {
    fn write(&self, mut to: schema::peer::raft::Builder<'_>) {
        to.set_kind(self.kind);
        to.set_term(self.term.0);
        to.set_log_term(self.log_term.0);
        to.set_index(self.index.0);
        to.set_commit(self.commit.0);
        to.set_commit_term(self.commit_term.0);
        to.set_reject(self.reject);
        to.set_reject_hint(self.reject_hint.0);
        to.set_request_snapshot(self.request_snapshot.0);
        to.set_priority(self.priority);
        if !self.context.is_empty() {
            to.set_context(&self.context);
        }
    }

    fn read(from: schema::peer::raft::Reader<'_>) -> Result<Raft, Refusal> {
        let context = from.get_context()?;
        bounded("bytes in a context", context.len(), CONTEXT_BYTES_MAX)?;
        Ok(Raft {
            kind: from.get_kind(),
            term: Term(from.get_term()),
            log_term: Term(from.get_log_term()),
            index: Index(place(from.get_index())?),
            commit: Index(from.get_commit()),
            commit_term: Term(from.get_commit_term()),
            reject: from.get_reject(),
            reject_hint: Index(from.get_reject_hint()),
            request_snapshot: Index(from.get_request_snapshot()),
            priority: from.get_priority(),
            context: context.to_vec(),
        })
    }
}

impl Contents {
    fn write(&self, mut to: schema::peer::contents::Builder<'_>) {
        to.set_transfer(self.transfer);
        let (offset, index, term, crc, time) = self.start;
        to.set_start_offset(offset.0);
        to.set_start_index(index.0);
        to.set_start_term(term.0);
        to.set_start_crc(crc);
        to.set_start_time(time.0);
        to.set_last_index(self.last.0.0);
        to.set_last_term(self.last.1.0);
        to.set_initial(&self.initial);
        to.set_segment_bytes(self.segment_bytes);
        to.set_answers(self.answers);
        let mut files = to.init_files(self.files.len() as u32);
        for (place, (name, bytes)) in self.files.iter().enumerate() {
            let mut file = files.reborrow().get(place as u32);
            file.set_name(name);
            file.set_bytes(*bytes);
        }
    }

    fn read(from: schema::peer::contents::Reader<'_>) -> Result<Contents, Refusal> {
        let list = from.get_files()?;
        bounded("files in a transfer", list.len() as usize, TRANSFER_FILES_MAX)?;
        let file = |file: schema::peer::file::Reader<'_>| {
            Ok((text(file.get_name()?, NAME_BYTES_MAX)?, place(file.get_bytes())?))
        };
        Ok(Contents {
            transfer: from.get_transfer(),
            files: list.iter().map(file).collect::<Result<_, Refusal>>()?,
            start: (
                Offset(place(from.get_start_offset())?),
                Index(place(from.get_start_index())?),
                Term(from.get_start_term()),
                from.get_start_crc(),
                LogTime(from.get_start_time()),
            ),
            last: (Index(place(from.get_last_index())?), Term(from.get_last_term())),
            initial: data(from.get_initial()?, PEER_CONFIGURATION_BYTES_MAX)?,
            segment_bytes: from.get_segment_bytes(),
            answers: from.get_answers(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all() -> Vec<Said> {
        let raft = Raft {
            kind: 1,
            term: Term(2),
            log_term: Term(3),
            index: Index(4),
            commit: Index(5),
            commit_term: Term(6),
            reject: true,
            reject_hint: Index(7),
            request_snapshot: Index(8),
            priority: -9,
            context: b"ten".to_vec(),
        };
        vec![
            Said::Hello { cluster: 5, name: "ada".to_owned(), address: "[::1]:7420".to_owned() },
            Said::Alive,
            Said::Raft(Raft::default()),
            Said::Raft(raft),
            Said::Invite { configuration: vec![1, 2, 3], options: NamespaceOptions::default() },
            Said::Sleep { term: Term(3), index: Index(99) },
            Said::Contents(Contents {
                transfer: 1,
                files: vec![("log/a".to_owned(), 5), ("tables/b".to_owned(), 0)],
                start: (Offset(6), Index(7), Term(8), 9, LogTime(10)),
                last: (Index(11), Term(12)),
                initial: vec![13],
                segment_bytes: 14,
                answers: 22,
            }),
            Said::Want { transfer: 15, file: 16, at: 17 },
            Said::Part { transfer: 18, file: 19, at: 20 },
            Said::Installed { transfer: 21, ok: true },
            Said::Seek { from: Offset(23), to: Offset(24) },
            Said::Found { from: Offset(25), committed: true },
            Said::Renew { number: 27 },
            Said::Keep { transfer: 28 },
            Said::Closed(ShardId(28)),
            Said::End,
        ]
    }

    #[test]
    fn what_is_said_is_heard_and_the_frames_are_where_they_were() {
        for said in all() {
            let peer = Peer { from: NodeId(1), to: NodeId(2), said };
            let mut out = Vec::new();
            let packet = begin(ShardId(3), &peer, &mut out);
            out.extend_from_slice(b"frames");
            packet.finish(&mut out);
            let (packet, length) = packet::read(&out).unwrap().unwrap();
            assert_eq!((packet.shard, length), (ShardId(3), out.len()));
            assert_eq!(open(packet.body), Ok((peer, &b"frames"[..])));
            for cut in 0..packet.body.len() - b"frames".len() {
                assert!(open(&packet.body[..cut]).is_err(), "{cut} bytes of it");
            }
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_answered(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            crate::fuzzing::peer(&bytes);
        }

        #[test]
        fn a_garbled_head_is_answered(at in 0usize..200, to: u8, which in 0usize..15) {
            let peer = Peer { from: NodeId(1), to: NodeId(2), said: all().remove(which) };
            let mut out = Vec::new();
            write(ShardId(0), &peer, &mut out);
            let mut body = out[crate::limits::PACKET_HEADER_BYTES..].to_vec();
            let at = at % body.len();
            body[at] = to;
            crate::fuzzing::peer(&body);
        }
    }
}
