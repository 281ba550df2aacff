//! From packets to admitted requests.

use super::{Life, Node};
use crate::shard::{Asked, Busy, busy};
use crate::views::Waiter;
use crate::{ConnectionId, Effect, Now};
use naust_wire::commit::Commit;
use naust_wire::control::Control;
use naust_wire::limits::{COMMIT_BODY_BYTES_MAX, REQUEST_BYTES_MAX, REQUESTS_MAX};
use naust_wire::message::{Message, Refusal};
use naust_wire::packet::{self, Bad, Kind, Packet};
use naust_wire::read::{Level, Query, Read};
use naust_wire::reply::Failure;
use naust_wire::{Code, Numbers, RequestId, SessionId, ShardId, frame};

impl Node {
    pub(super) fn packets(
        &mut self,
        now: Now,
        from: ConnectionId,
        mut bytes: &[u8],
        effects: &mut Vec<Effect>,
    ) {
        while !bytes.is_empty() {
            let length = match packet::read(bytes) {
                Ok(Some((packet, length))) => {
                    if let Err(failure) = self.packet(now, from, &packet, effects) {
                        self.fail(from, packet.request, packet.shard, failure, effects);
                    }
                    length
                }
                Ok(None) => {
                    let detail = "the bytes end inside a packet".to_string();
                    return self.give_up(from, Code::Malformed, detail, effects);
                }
                Err(Bad::Kind(number, length, request)) => {
                    let detail = format!("packet kind {number} is not known to this release");
                    let failure = Failure::new(Code::UnknownKind, detail);
                    self.fail(from, request, ShardId::DIRECTORY, failure, effects);
                    length
                }
                Err(Bad::Crc(length, request)) => {
                    let failure = Failure::new(Code::Malformed, "the packet's checksum is wrong");
                    self.fail(from, request, ShardId::DIRECTORY, failure, effects);
                    length
                }
                Err(bad) => {
                    let code = match bad {
                        Bad::Version(_) => Code::UnknownVersion,
                        Bad::Length(_) => Code::TooLarge,
                        _ => Code::Malformed,
                    };
                    return self.give_up(from, code, bad.to_string(), effects);
                }
            };
            bytes = &bytes[length..];
        }
    }

    /// What follows can't be told apart any more: say so and close.
    fn give_up(
        &mut self,
        from: ConnectionId,
        code: Code,
        detail: String,
        effects: &mut Vec<Effect>,
    ) {
        let failure = Failure::new(code, detail);
        self.fail(from, RequestId(0), ShardId::DIRECTORY, failure, effects);
        effects.push(Effect::Close(from));
    }

    fn packet(
        &mut self,
        now: Now,
        from: ConnectionId,
        packet: &Packet<'_>,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Failure> {
        if matches!(packet.kind, Kind::Peer | Kind::PeerToAll) {
            let said = self.peer(now, from, packet, effects);
            if said.is_err() {
                effects.push(Effect::Close(from));
            }
            return said;
        }
        if packet.kind == Kind::Ask {
            return self.ask(now, from, packet, effects);
        }
        self.gate(from)?;
        match packet.kind {
            Kind::Commit => {
                let message = Message::new(packet.body).map_err(refused)?;
                Commit::read(&message).and_then(|commit| commit.check()).map_err(refused)?;
                if packet.shard == ShardId::DIRECTORY {
                    return Err(no_namespace(packet.shard));
                }
                self.write(now, from, packet, frame::Kind::Commit, effects)
            }
            Kind::Control => {
                let (numbers, control) = Control::decode_numbered(packet.body).map_err(refused)?;
                check_control(&control, packet.shard)?;
                self.prepare(now, packet.shard, &numbers, &control)?;
                self.write(now, from, packet, frame::Kind::Control, effects)
            }
            Kind::Read => self.read(now, from, packet, effects),
            Kind::Ask | Kind::Reply | Kind::Peer | Kind::PeerToAll => {
                Err(Failure::new(Code::UnknownKind, "a reply is no request"))
            }
        }
    }

    /// What holds for every request, whatever it is.
    pub(super) fn gate(&self, from: ConnectionId) -> Result<(), Failure> {
        if self.life != Life::Serving {
            let detail = "the node is shutting down; ask another one, or again later";
            return Err(Failure::new(Code::ShuttingDown, detail));
        }
        if self.config.token.is_some() && !self.connections.is_greeted(from) {
            return Err(Failure::new(Code::Unauthorized, "say hello with a token first"));
        }
        // What it leads it still leads for others, until they do.
        if self.directory.is_removed && self.peers.of(from).is_none() {
            let detail = "this node was removed from its cluster: ask one that belongs to it; to \
                          have it back, start it with an empty data directory";
            return Err(Failure::new(Code::Unavailable, detail));
        }
        let bytes = self.unapplied_bytes > REQUEST_BYTES_MAX as u64;
        if bytes || self.connections.requests() >= REQUESTS_MAX {
            let detail = "the node has as much under way as it takes; try again";
            return Err(Failure::new(Code::Overloaded, detail));
        }
        Ok(())
    }

    fn write(
        &mut self,
        now: Now,
        from: ConnectionId,
        packet: &Packet<'_>,
        kind: frame::Kind,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Failure> {
        if packet.body.len() > COMMIT_BODY_BYTES_MAX {
            let detail =
                format!("a body of {} bytes; {COMMIT_BODY_BYTES_MAX} are taken", packet.body.len());
            return Err(Failure::new(Code::TooLarge, detail));
        }
        let Some(shard) = self.shards.get_mut(&packet.shard) else {
            return self.without(now, from, packet, effects);
        };
        // Only tests have segments that are too short for a frame of any legal length.
        let most = shard.log.layout().body_bytes_max();
        if packet.body.len() > most {
            let detail = format!("a body of {} bytes; this log takes {most}", packet.body.len());
            return Err(Failure::new(Code::TooLarge, detail));
        }
        match shard.admit() {
            Err(Busy::NotLeader(Some(leader))) => {
                // Should it lead no more while all sleep, that is to be found out.
                shard.wake();
                return self.forward(from, packet, leader, effects);
            }
            admitted => admitted.map_err(busy)?,
        }
        let waiter = Waiter { connection: from, request: packet.request };
        shard.stage(kind, packet.body, waiter, now);
        shard.count_bytes(&mut self.unapplied_bytes);
        Node::touch(&mut self.touched, shard);
        self.connections.begin(from, effects);
        if shard.is_behind() && shard.held.insert(from) {
            self.connections.hold(from, effects);
        }
        Ok(())
    }

    fn read(
        &mut self,
        now: Now,
        from: ConnectionId,
        packet: &Packet<'_>,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Failure> {
        let read = Read::decode(packet.body).map_err(refused)?;
        let is_of_replica = matches!(read.query, Query::Digests { .. });
        if packet.shard == ShardId::DIRECTORY && !is_of_replica {
            return Err(no_namespace(packet.shard));
        }
        let Some(shard) = self.shards.get_mut(&packet.shard) else {
            // Who asks for what this replica has is not told what others have.
            let is_closed = read.level == Level::Local && self.directory.is_in_repair(packet.shard);
            if is_of_replica && !self.directory.is_absent(packet.shard) {
                return Err(Failure::new(Code::Unavailable, "this node has no replica of it"));
            }
            if is_closed || is_of_replica {
                return Err(self.directory.absent(packet.shard));
            }
            return self.without(now, from, packet, effects);
        };
        shard.check_read(&read)?;
        shard.waiting.add(Asked::new(from, packet.request, read, now));
        Node::touch(&mut self.touched, shard);
        self.connections.begin(from, effects);
        Ok(())
    }

    /// A request for a shard of which there is nothing here, or not yet.
    fn without(
        &mut self,
        now: Now,
        from: ConnectionId,
        packet: &Packet<'_>,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Failure> {
        if self.directory.is_gone(packet.shard) {
            // Who would be asked instead may not have heard of it yet, or ask this one in turn.
            let detail = format!("the namespace in shard {} was removed", packet.shard);
            return Err(Failure::new(Code::NamespaceNotFound, detail));
        }
        let is_in_repair = self.directory.is_in_repair(packet.shard);
        if (is_in_repair || !self.directory.is_absent(packet.shard))
            && let Some(node) = self.elsewhere(now, packet.shard, self.peers.of(from))
        {
            let forwarded = self.forward(from, packet, node, effects);
            if forwarded.is_ok() || !is_in_repair {
                return forwarded;
            }
        }
        Err(self.directory.absent(packet.shard))
    }

    /// What the leader of a shard looks at before nodes come and go, and before digests are noted.
    fn prepare(
        &mut self,
        now: Now,
        shard: ShardId,
        numbers: &Numbers,
        control: &Control,
    ) -> Result<(), Failure> {
        let leads = |node: &mut Node| {
            let shard = node.shards.get_mut(&ShardId::DIRECTORY);
            shard.is_some_and(|shard| shard.admit().is_ok())
        };
        match control {
            Control::NoteDigests => {
                if let Some(shard) = self.shards.get_mut(&shard)
                    && shard.admit().is_ok()
                {
                    shard.begin_noting(now)?;
                }
            }
            Control::SetNode { .. } if leads(self) => {
                if self.config.address.is_empty() {
                    let detail = "the node that leads the directory listens where no other node \
                                  can reach it: start it again with --advertise HOST:PORT";
                    return Err(Failure::new(Code::BadArgument, detail));
                }
                self.note_myself(now);
            }
            // Whoever asks again for what was done is answered by the session that remembers it.
            Control::RemoveNode(node)
                if numbers.session != SessionId::NONE && self.directory.node(*node).is_none() => {}
            Control::RemoveNode(node) if leads(self) => self.check_removal(now, *node)?,
            _ => {}
        }
        Ok(())
    }
}

/// What a client may log, and where.
fn check_control(control: &Control, shard: ShardId) -> Result<(), Failure> {
    let is_for_directory = match control {
        // Sessions of the directory are for what is made and removed there.
        Control::OpenSession { .. } | Control::CloseSession(_) | Control::NoteDigests => {
            return Ok(());
        }
        Control::CreateNamespace { .. }
        | Control::DeleteNamespace(_)
        | Control::CloseNamespace(_)
        | Control::SetNode { .. }
        | Control::RemoveNode(_) => true,
        Control::Floors(_) | Control::Close | Control::ForgetNamespace(_) => {
            let detail = "floors and the ends of namespaces are the leader's to propose";
            return Err(Failure::new(Code::BadArgument, detail));
        }
        _ => false,
    };
    if is_for_directory != (shard == ShardId::DIRECTORY) {
        return Err(match is_for_directory {
            true => Failure::new(Code::BadArgument, "namespaces and nodes come and go in shard 0"),
            false => no_namespace(shard),
        });
    }
    if let Control::CreateNamespace { options, .. } = control {
        options.check_history().map_err(refused)?;
    }
    Ok(())
}

pub(super) fn refused(refusal: Refusal) -> Failure {
    Failure::new(refusal.code, refusal.detail)
}

fn no_namespace(shard: ShardId) -> Failure {
    Failure::new(Code::NamespaceNotFound, format!("shard {shard} holds no namespace"))
}
