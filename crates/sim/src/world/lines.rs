//! Connections between clients and nodes: bytes arrive in order, late, or not at all.

use super::network::Towards;
use super::{Happening, World};
use crate::history::{Answer, Asked, Request, Violation};
use crate::sabotage::Sabotage;
use crate::schedule::Moment;
use crate::workload::client::{Client, Outgoing};
use naust_node::ConnectionId;
use naust_wire::control::Control;
use naust_wire::packet::{self, Kind};
use naust_wire::read::{Level, Query, Read};
use naust_wire::reply::Reply;
use naust_wire::{Code, Offset, RequestId};

/// A client where it sits, and its connection.
pub struct Seat {
    /// The client.
    pub client: Client,
    /// Its connection, if it has one.
    pub line: Option<ConnectionId>,
    /// It will have a turn.
    pub waits_for_turn: bool,
    /// It was told that it asks too early.
    pub pauses_until: Moment,
    /// The node that it wants to be connected to, if it matters.
    pub prefers: Option<usize>,
    /// When it heard something last, or sent something after it had heard all.
    pub heard: Moment,
}

/// A connection that stands.
pub struct Line {
    /// Whose.
    pub seat: usize,
    /// To which node, in which of its lives.
    pub node: (usize, u64),
    /// When the last bytes to the node arrive.
    to_node: Moment,
    /// When the last bytes to the client arrive.
    to_client: Moment,
    /// The node does not read from it.
    pub paused: bool,
}

/// Microseconds without an answer after which a client of a cluster tries another node.
const IMPATIENCE_MICROS: u64 = 4_000_000;
/// Microseconds after which a client without a connection tries again.
const RETRY_MICROS: u64 = 5_000;

impl World {
    /// A client will have a turn after some thought, if it has none coming.
    pub(super) fn wake(&mut self, seat: usize) {
        if !std::mem::replace(&mut self.seats[seat].waits_for_turn, true) {
            let think = self.chance.skewed(1, self.plan.work.think_micros);
            let mut at = self.schedule.now().after(think).max(self.seats[seat].pauses_until);
            if !self.is_time_to_ask() && self.seats[seat].client.rests() {
                // What clients ask at once in the next burst they ask one after the other.
                at = at.max(Moment(self.plan.pace(self.sent)).after(think));
            }
            self.schedule.at(at, Happening::Turn(seat));
        }
    }

    /// Whether the next burst of requests has come.
    fn is_time_to_ask(&self) -> bool {
        self.schedule.now().0 >= self.plan.pace(self.sent)
    }

    /// A client's turn: it connects, or sends what it has to send. If it had anything, it has
    /// another turn; if not, the next thing that it hears wakes it.
    pub(super) fn turn(&mut self, seat: usize) {
        self.seats[seat].waits_for_turn = false;
        let Some(id) = self.seats[seat].line else {
            self.connect(seat);
            self.seats[seat].waits_for_turn = true;
            self.schedule.after(RETRY_MICROS, Happening::Turn(seat));
            return;
        };
        if self.lines[&id].paused {
            return;
        }
        let (now, mut bytes) = (self.schedule.now(), Vec::new());
        for _ in 0..self.chance.skewed(1, 16) {
            let may = self.is_time_to_ask();
            self.seats[seat].client.may_draw(may);
            let Some(outgoing) = self.seats[seat].client.next(&self.plan, self.drawn) else {
                break;
            };
            self.drawn += 1;
            self.sent = self.seats.iter().map(|seat| seat.client.drawn()).sum();
            self.send(seat, &outgoing, now, &mut bytes);
        }
        let client = &self.seats[seat].client;
        let rests = client.is_idle() && (self.calm || client.is_operator());
        let stuck = client.under_way() == 0 && !rests;
        if !bytes.is_empty() {
            self.arrive(id, bytes);
            self.wake(seat);
        } else if stuck {
            self.wake(seat);
        }
    }

    fn connect(&mut self, seat: usize) {
        let node = match (self.seats[seat].prefers, self.members.len()) {
            (Some(node), _) => node,
            (None, 1) => 0,
            (None, nodes) => self.chance.below(nodes as u64) as usize,
        };
        let Some(incarnation) = self.members[node].listens() else { return };
        self.connections += 1;
        let id = ConnectionId(self.connections);
        let now = self.schedule.now();
        let line =
            Line { seat, node: (node, incarnation), to_node: now, to_client: now, paused: false };
        self.lines.insert(id, line);
        self.seats[seat].line = Some(id);
        self.seats[seat].heard = now;
        self.seats[seat].client.connected();
        self.trace.note(now, format_args!("client {seat} connects to node {node} by {}", id.0));
    }

    /// A client of a cluster that has waited for long goes elsewhere.
    pub(super) fn impatient(&mut self, seat: usize) {
        self.schedule.after(IMPATIENCE_MICROS / 2, Happening::Impatient(seat));
        let sits = &self.seats[seat];
        let waits = sits.client.under_way() > 0;
        let since = self.schedule.now().0 - sits.heard.0;
        if let Some(line) = sits.line.filter(|_| waits && since > IMPATIENCE_MICROS) {
            self.tally.mark("clients that went elsewhere");
            self.hang_up(line);
        }
    }

    fn send(&mut self, seat: usize, outgoing: &Outgoing, sent: Moment, bytes: &mut Vec<u8>) {
        let number = self.history.requests.len();
        if self.seats[seat].client.under_way() == 0 {
            self.seats[seat].heard = sent;
        }
        if matches!(outgoing.asked, Asked::Commit(_)) {
            self.commits_under_way += 1;
            self.without_commit.get_or_insert(sent);
        }
        self.seats[seat].client.sent(outgoing, number);
        match &outgoing.asked {
            Asked::Read(read) if self.sabotage == Some(Sabotage::WeakenRead) => {
                let mut body = Vec::new();
                Read { level: weaker(read.level), query: read.query.clone() }.encode(&mut body);
                packet::write(Kind::Read, outgoing.request, outgoing.shard, &body, bytes);
            }
            _ => bytes.extend_from_slice(&outgoing.bytes),
        }
        let frontier = self.shards.get(&outgoing.shard).map_or(Offset::ZERO, |s| s.frontier);
        let line = self.seats[seat].line.expect("whoever sends is connected");
        let here = self.look(self.lines[&line].node.0, outgoing.shard).is_some();
        self.history.requests.push(Request {
            client: seat,
            shard: outgoing.shard,
            asked: outgoing.asked.clone(),
            line: line.0,
            here,
            sent,
            frontier,
            answer: Answer::Waiting,
            answered: sent,
            ceiling: Offset::ZERO,
            answers: 0,
        });
        self.tally.requests += 1;
        let (shard, asked) = (outgoing.shard, brief(&outgoing.asked));
        self.trace.note(sent, format_args!("client {seat} asks shard {shard} #{number} {asked}"));
    }

    fn arrive(&mut self, id: ConnectionId, bytes: Vec<u8>) {
        let delay = self.chance.skewed(1, self.plan.faults.network_micros.max(1));
        let line = self.lines.get_mut(&id).expect("a line that stands");
        line.to_node = line.to_node.max(self.schedule.now().after(delay));
        let (at, node) = (line.to_node, line.node);
        self.schedule.at(at, Happening::Arrive { node, from: id, bytes });
    }

    /// A node sends packets.
    pub(super) fn deliver(&mut self, id: ConnectionId, bytes: Vec<u8>) {
        if self.network.has(id) {
            return self.put_on(id, Towards::Back, bytes);
        }
        let Some(line) = self.lines.get_mut(&id) else { return };
        let delay = self.chance.skewed(1, self.plan.faults.network_micros.max(1));
        line.to_client = line.to_client.max(self.schedule.now().after(delay));
        match self.sabotage {
            Some(lie @ Sabotage::DropReply) if lie.strikes(&mut self.chance) => return,
            Some(lie @ Sabotage::RepeatReply) if lie.strikes(&mut self.chance) => {
                let bytes = bytes.clone();
                self.schedule.at(line.to_client, Happening::Deliver { to: id, bytes });
            }
            _ => {}
        }
        self.schedule.at(line.to_client, Happening::Deliver { to: id, bytes });
    }

    /// A node closes a connection, once everything that it sent has arrived.
    pub(super) fn close_when_delivered(&mut self, id: ConnectionId) {
        if let Some(line) = self.lines.get(&id) {
            self.schedule.at(line.to_client, Happening::Hangup(id));
        }
    }

    /// Packets reach a client.
    pub(super) fn delivered(&mut self, id: ConnectionId, bytes: &[u8]) {
        let Some(line) = self.lines.get(&id) else { return };
        let seat = line.seat;
        let mut rest = bytes;
        while !rest.is_empty() && self.lines.contains_key(&id) {
            let (packet, length) = match packet::read(rest) {
                Ok(Some(found)) => found,
                bad => {
                    let what = format!("client {seat} was sent no whole packet: {bad:?}");
                    self.violations.push(Violation::new("packets", what));
                    return;
                }
            };
            rest = &rest[length..];
            match (packet.kind, Reply::decode(packet.body)) {
                (Kind::Reply, Ok(reply)) => self.heard(seat, packet.request, reply),
                (kind, reply) => {
                    let what = format!("client {seat} was sent a {kind:?}: {reply:?}");
                    self.violations.push(Violation::new("packets", what));
                }
            }
        }
    }

    fn heard(&mut self, seat: usize, request: RequestId, mut reply: Reply) {
        let now = self.schedule.now();
        if let Some(lie) = self.sabotage
            && lie.strikes(&mut self.chance)
        {
            lie.bend(&mut reply);
        }
        let client = &mut self.seats[seat].client;
        let Some(number) = client.heard(request, &reply, &self.history) else {
            let what = format!("client {seat} has no request {} that waits: {reply:?}", request.0);
            self.violations.push(Violation::new("replies", what));
            return;
        };
        self.seats[seat].heard = now;
        if asks_too_early(&reply) {
            self.seats[seat].pauses_until = now.after(self.chance.between(1_000, 50_000));
        }
        self.wake(seat);
        let is_turned_away = asks_too_early(&reply) && self.members.len() > 1;
        let told = brief_reply(&reply);
        self.trace.note(now, format_args!("client {seat} hears #{number} {told}"));
        self.tally.mark(mark(&reply));
        self.note_commit(number, &reply);
        self.ask_for_digests(number, &reply);
        let request = &mut self.history.requests[number];
        if matches!((&request.asked, &reply), (Asked::Numbered(..), Reply::Done(_))) {
            self.tally.mark("numbered control done");
        }
        request.answered = now;
        request.answers += 1;
        // It was on its way when the log lost what it is about.
        let is_forgotten = request.answer == Answer::Lost;
        if let Some(shard) = self.shards.get_mut(&request.shard).filter(|_| !is_forgotten) {
            request.ceiling = shard.chronicle.last().map_or(Offset::ZERO, |e| e.header.offset);
            let fresh = match (&request.asked, &reply) {
                (Asked::Read(_), Reply::Row { at, .. } | Reply::Rows { at, .. }) => Some(*at),
                (Asked::Commit(_) | Asked::Control(_) | Asked::Numbered(..), reply) => {
                    committed_at(reply)
                }
                _ => None,
            };
            shard.told(request, fresh);
        }
        if matches!(reply, Reply::Committed(_)) {
            self.tally.commits += 1;
        }
        // Replicas learn one after the other that a namespace is gone that was not closed before.
        let removed = self.shards.get(&request.shard).is_some_and(|shard| shard.removed.is_some())
            && self.directory.forced.contains(&request.shard);
        request.answer = match is_forgotten || removed && self.members.len() > 1 {
            true => Answer::Lost,
            false => Answer::Reply(reply),
        };
        // Another node may know better.
        let prefers = self.seats[seat].prefers.is_some();
        if is_turned_away && !prefers && self.chance.below(8) == 0 {
            let line = self.seats[seat].line.expect("it was just heard");
            self.hang_up(line);
        }
    }

    /// Every replica has noted the digests of its views, or will have: all that clients are
    /// connected to are asked for them.
    fn ask_for_digests(&mut self, number: usize, reply: &Reply) {
        let request = &self.history.requests[number];
        let is_noted = matches!(request.asked, Asked::Control(Control::NoteDigests));
        let Reply::Done(at) = *reply else { return };
        if !is_noted {
            return;
        }
        let shard = request.shard;
        for seat in 0..self.seats.len() {
            let client = &mut self.seats[seat].client;
            if client.is_operator() {
                continue;
            }
            let read = Read { level: Level::AtLeast(at), query: Query::Digests { at } };
            client.errand(shard, Asked::Read(read));
            self.wake(seat);
        }
    }

    /// How long nothing could be committed is told by the answers.
    fn note_commit(&mut self, number: usize, reply: &Reply) {
        if !matches!(self.history.requests[number].asked, Asked::Commit(_)) {
            return;
        }
        self.commits_under_way -= 1;
        if matches!(reply, Reply::Committed(_) | Reply::Refused(_)) {
            let now = self.schedule.now();
            if let Some(since) = self.without_commit.take() {
                let took = now.0 - since.0;
                self.tally.unavailable_micros = self.tally.unavailable_micros.max(took);
            }
            self.without_commit = (self.commits_under_way > 0).then_some(now);
        }
    }

    /// A connection is gone, for its client and, if it lives, for its node.
    pub(super) fn hang_up(&mut self, id: ConnectionId) {
        let Some(line) = self.lines.remove(&id) else { return };
        let now = self.schedule.now();
        self.trace.note(now, format_args!("connection {} of client {} ends", id.0, line.seat));
        self.wake(line.seat);
        let seat = &mut self.seats[line.seat];
        seat.line = None;
        for number in seat.client.lost() {
            let request = &mut self.history.requests[number];
            if matches!(request.asked, Asked::Commit(_)) {
                self.commits_under_way -= 1;
            }
            request.answer = Answer::Lost;
            request.answered = now;
        }
        self.schedule.after(1, Happening::Gone { node: line.node, connection: id });
    }
}

fn weaker(level: Level) -> Level {
    if level == Level::Linearizable { Level::Local } else { level }
}

/// Whether a client that was told this had better wait a little.
fn asks_too_early(reply: &Reply) -> bool {
    let Reply::Error(failure) = reply else { return false };
    use Code::{
        Corrupt, DiskFull, NamespaceNotFound, NotLeader, Overloaded, ShuttingDown, Unavailable,
    };
    matches!(
        failure.code,
        Unavailable
            | Overloaded
            | DiskFull
            | ShuttingDown
            | Corrupt
            | NamespaceNotFound
            | NotLeader
    )
}

fn committed_at(reply: &Reply) -> Option<Offset> {
    match reply {
        Reply::Committed(committed) => Some(committed.offset),
        Reply::Refused(refused) => Some(refused.at),
        Reply::Done(offset) => Some(*offset),
        _ => None,
    }
}

fn brief(asked: &Asked) -> String {
    match asked {
        Asked::Commit(body) => format!("commit of {} bytes", body.len()),
        Asked::Control(control) => format!("{control:?}"),
        Asked::Numbered(numbers, control) => {
            format!("{control:?}, {} of {}", numbers.sequence, numbers.session)
        }
        Asked::Read(read) => {
            let mut told = format!("{read:?}");
            told.truncate(160);
            told
        }
        Asked::Ask(ask) => format!("{ask:?}"),
        Asked::Garbage => "garbage".to_owned(),
    }
}

fn brief_reply(reply: &Reply) -> String {
    match reply {
        Reply::Row { at, row } => {
            format!(
                "row at {at}: {:?}",
                row.as_ref().map(|(version, value)| (version, value.len()))
            )
        }
        Reply::Rows { at, entries, next } => {
            format!("{} rows at {at}, more: {}", entries.len(), next.is_some())
        }
        Reply::Records { records, next, end } => {
            format!("{} records, next {next}, end {end}", records.len())
        }
        Reply::Frames { first, data, next, end } => {
            format!("{} bytes of log from {first} to {next}, end {end}", data.len())
        }
        Reply::Described { at, .. } => format!("described at {at}"),
        Reply::Error(failure) => format!("{}: {}", failure.code, failure.detail),
        other => format!("{other:?}"),
    }
}

fn mark(reply: &Reply) -> &'static str {
    match reply {
        Reply::Error(failure) => failure.code.name(),
        Reply::Committed(committed) if committed.duplicate => "committed before",
        Reply::Committed(committed) if committed.interval => "committed, not synced",
        Reply::Committed(_) => "committed",
        Reply::Refused(_) => "refused",
        Reply::Session(_) => "session",
        Reply::Row { row: Some(_), .. } => "row",
        Reply::Row { row: None, .. } => "no row",
        Reply::Rows { .. } => "rows",
        Reply::Records { .. } => "records",
        Reply::Cursor(_) => "cursor",
        Reply::Frames { .. } => "raw log",
        Reply::Done(_) => "control done",
        Reply::Described { .. } => "described",
        Reply::Digests(_) => "digests",
        Reply::Hello { .. }
        | Reply::Resolved { .. }
        | Reply::Namespaces { .. }
        | Reply::Cluster { .. } => "answers of nodes",
    }
}
