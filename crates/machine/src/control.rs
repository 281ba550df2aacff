//! Folding a control entry in: sessions, options, floors and the directory.

use crate::apply::Verdict;
use crate::directory::Member;
use crate::machine::Machine;
use crate::rows::{Key, StreamId};
use crate::sessions::Opening;
use crate::tables::{Fault, Tables, TreeId};
use naust_wire::control::{Control, Floor, Floored};
use naust_wire::frame::Frame;
use naust_wire::limits::{KEYSPACES_PER_NAMESPACE_MAX, STREAMS_PER_NAMESPACE_MAX};
use naust_wire::message::Refusal;
use naust_wire::options::{Compaction, KeyspaceOptions, StreamOptions};
use naust_wire::planted::{self, Bug};
use naust_wire::{Code, Numbers, Offset, SessionId, ShardId};
use std::ops::ControlFlow;

impl<T: Tables> Machine<T> {
    pub(crate) fn control(&mut self, frame: &Frame<'_>) -> Result<Verdict, Fault> {
        let (numbers, control) = match Control::decode_numbered(frame.body) {
            Ok(read) => read,
            Err(refusal) => return Ok(refusal.into()),
        };
        self.plan.clear(0);
        let removes = match &control {
            Control::CloseNamespace(name) => Some(name.clone()),
            _ => None,
        };
        let numbers = if planted::has(Bug::NumberedTwice) { Numbers::NONE } else { numbers };
        let verdict = self.once(&numbers, |machine| machine.carry_out(frame, control))?;
        Ok(match verdict {
            Verdict::Committed { offset, .. } => {
                // Who asks again whether a namespace is removed waits until it is.
                let directory = &self.state.directory;
                let still = removes.and_then(|name| directory.still_closes(&name, offset));
                still.map_or(Verdict::DoneBefore(offset), Verdict::Directory)
            }
            verdict => verdict,
        })
    }

    fn carry_out(&mut self, frame: &Frame<'_>, control: Control) -> Result<Verdict, Fault> {
        // Sessions may end, and replicas be compared, until nobody has it any more.
        let is_harmless = matches!(control, Control::CloseSession(_) | Control::NoteDigests);
        if let Some(refusal) = self.closed().filter(|_| !is_harmless) {
            return Ok(refusal.into());
        }
        match control {
            Control::OpenSession { ttl_ms, nonce } => {
                let id = SessionId::opened(frame.header.offset, nonce);
                let (at, time) = (frame.header.offset, self.state.mark.time);
                let opening = Opening { id, at, ttl_ms, nonce, time };
                Ok(match self.state.sessions.open(opening) {
                    true => Verdict::Session(id),
                    false => {
                        let detail = "a session has this id; open one with another nonce";
                        Refusal::new(Code::BadArgument, detail).into()
                    }
                })
            }
            Control::CloseSession(id) => {
                Ok(match self.state.sessions.close(id, self.state.mark.time) {
                    true => Verdict::Done,
                    false => {
                        let detail = format!("session {id} is unknown or expired");
                        Refusal::new(Code::SessionExpired, detail).into()
                    }
                })
            }
            Control::SetKeyspace { name, options } => self.set_keyspace(&name, options),
            Control::SetStream { name, options } => Ok(self.set_stream(&name, options)),
            Control::Floors(floors) => self.set_floors(&floors),
            Control::CreateNamespace { name, options } => {
                let here = self.directory_only();
                let changed = here.and_then(|()| self.state.directory.create(&name, options));
                Ok(directory_verdict(changed))
            }
            Control::DeleteNamespace(name) => {
                let here = self.directory_only();
                Ok(directory_verdict(here.and_then(|()| self.state.directory.delete(&name))))
            }
            Control::CloseNamespace(name) => {
                let (here, at) = (self.directory_only(), self.state.mark.applied);
                Ok(directory_verdict(here.and_then(|()| self.state.directory.close(&name, at))))
            }
            Control::ForgetNamespace(shard) => Ok(match self.directory_only() {
                Ok(()) => {
                    let gone = self.state.directory.forget(shard);
                    gone.map_or(Verdict::Done, Verdict::Directory)
                }
                Err(refusal) => refusal.into(),
            }),
            Control::Close if self.shard == ShardId::DIRECTORY => {
                Ok(Refusal::new(Code::BadArgument, "the directory has no end").into())
            }
            Control::Close => {
                self.state.closed = Some(self.state.mark.applied);
                self.rotation.closed_dirty = true;
                Ok(Verdict::Done)
            }
            Control::SetNode { node, name, address } => {
                let here = self.directory_only();
                let member = Member { name, address };
                let set = here.and_then(|()| self.state.directory.set_node(node, member));
                Ok(directory_verdict(set))
            }
            Control::RemoveNode(node) => {
                let here = self.directory_only();
                let removed = here.and_then(|()| self.state.directory.remove_node(node));
                Ok(directory_verdict(removed))
            }
            Control::NoteDigests => {
                self.note_digests();
                Ok(Verdict::Done)
            }
        }
    }

    fn directory_only(&self) -> Result<(), Refusal> {
        if self.shard == ShardId::DIRECTORY {
            return Ok(());
        }
        let detail = "namespaces and nodes come and go in the directory, shard 0";
        Err(Refusal::new(Code::BadArgument, detail))
    }

    fn set_keyspace(&mut self, name: &str, options: KeyspaceOptions) -> Result<Verdict, Fault> {
        let Some(tree) = self.state.keyspaces.find(name) else {
            if self.state.keyspaces.next_tree(0).is_none() {
                let max = KEYSPACES_PER_NAMESPACE_MAX;
                let detail = format!("a namespace has at most {max} keyspaces");
                return Ok(Refusal::new(Code::LimitReached, detail).into());
            }
            self.make_keyspace(name, options)?;
            return Ok(Verdict::Done);
        };
        let before = self.state.keyspaces.get(tree).options;
        let fifo = |options: &KeyspaceOptions| options.compaction == Compaction::Fifo;
        if fifo(&before) != fifo(&options) {
            let detail = format!(
                "the keyspace {name:?} exists; FIFO is chosen when a keyspace is made and stays"
            );
            return Ok(Refusal::new(Code::OptionsConflict, detail).into());
        }
        if before != options {
            self.state.keyspaces.set_options(tree, options);
            self.tables.make(tree, &options)?;
        }
        Ok(Verdict::Done)
    }

    fn set_stream(&mut self, name: &str, options: StreamOptions) -> Verdict {
        match self.state.streams.find(name) {
            Some(stream) => self.state.streams.change(stream).options = options,
            None if self.state.streams.next_id(0).is_none() => {
                let max = STREAMS_PER_NAMESPACE_MAX;
                let detail = format!("a namespace has at most {max} streams");
                return Refusal::new(Code::LimitReached, detail).into();
            }
            None => {
                self.state.streams.add(name, options);
            }
        }
        Verdict::Done
    }

    /// Moves floors up. Names that do not exist are passed over, and no floor goes past this entry.
    fn set_floors(&mut self, floors: &[Floor]) -> Result<Verdict, Fault> {
        let at = self.state.mark.applied;
        for Floor { of, offset } in floors {
            let floor = *offset.min(&at);
            match of {
                Floored::Keyspace(name) => {
                    if let Some(tree) = self.state.keyspaces.find(name) {
                        self.floor_keyspace(tree, floor);
                    }
                }
                Floored::Stream(name) => {
                    if let Some(stream) = self.state.streams.find(name) {
                        self.floor_stream(stream, floor)?;
                    }
                }
            }
        }
        Ok(Verdict::Done)
    }

    fn floor_keyspace(&mut self, tree: TreeId, floor: Offset) {
        let fifo = self.state.keyspaces.get(tree).options.compaction == Compaction::Fifo;
        if fifo && self.state.keyspaces.set_floor(tree, floor) {
            self.rotation.floors_moved.push((tree, floor));
            self.shared.set_keyspace(&self.state.keyspaces.get(tree).name, tree, floor);
            self.state.recent.push(&crate::recent::Write {
                commit: self.state.mark.applied,
                tree,
                from: &[],
                extent: crate::recent::Extent::End,
            });
        }
    }

    /// Lets the records below a floor go, and the rows of the index that hold nothing else.
    fn floor_stream(&mut self, id: StreamId, floor: Offset) -> Result<(), Fault> {
        let stream = self.state.streams.get(id);
        if floor <= stream.floor {
            return Ok(());
        }
        let (mut gone, mut bytes, mut first) = (0, 0, None);
        stream.walk(&self.reader, Offset::ZERO, |place| {
            if place.offset >= floor {
                first = Some(place);
                return ControlFlow::Break(());
            }
            gone += 1;
            bytes += u64::from(place.length);
            ControlFlow::Continue(())
        })?;
        let keep = first.map_or(Offset::MAX, |first| first.offset);
        let mut chunks: Vec<Offset> = Vec::new();
        stream.chunks(&self.reader, stream.floor, |chunk, _| {
            if chunk > keep {
                return Ok(ControlFlow::Break(()));
            }
            chunks.push(chunk);
            Ok(ControlFlow::Continue(()))
        })?;
        let open = &stream.open;
        if first.is_some() && (open.count == 0 || keep < open.first) {
            // The last chunk that begins at or below the first living record holds it.
            chunks.pop();
        }
        let stream = self.state.streams.change(id);
        stream.floor = floor;
        stream.records -= gone;
        stream.bytes -= bytes;
        stream.first = first.map_or(Offset::ZERO, |first| first.offset);
        stream.first_time = first.map(|first| first.time);
        if first.is_none() && stream.open.count > 0 {
            chunks.push(stream.open.first);
            stream.open.clear();
        }
        for chunk in chunks {
            self.put_row(Key::Chunk(id, chunk), None)?;
        }
        Ok(())
    }
}

fn directory_verdict(changed: Result<crate::Change, Refusal>) -> Verdict {
    match changed {
        Ok(change) => Verdict::Directory(change),
        Err(refusal) => refusal.into(),
    }
}
