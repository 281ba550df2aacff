//! Folding one frame in.
//!
//! ```text
//!  apply ─► commit ─► session's turn ─► conditions ─► plan ─► carry out ─► keep the answer
//!        └► control ─► sessions, options, floors, directory
//!        └► configure
//!  advance: the mark, points of time, the history floor
//! ```

use crate::machine::{Applied, Machine, State};
use crate::plan::{Plan, Write, names_len};
use crate::recent::{Extent, Found, Recent};
use crate::rows::Key;
use crate::sessions::{Answer, More, Slot, Turn};
use crate::streams::Streams;
use crate::tables::{Fault, KeyRange, Tables, TablesReader, TreeId};
use crate::{Change, Place, overlay, recent};
use naust_wire::commit::{Commit, Condition};
use naust_wire::frame::{Frame, Header, Kind};
use naust_wire::limits::{FRAME_HEADER_BYTES, RECENT_WRITES_LOG_BYTES, UNCHANGED_STEPS_MAX};
use naust_wire::message::{Message, Refusal};
use naust_wire::options::{KeyspaceOptions, StreamOptions};
use naust_wire::planted::{self, Bug};
use naust_wire::reply::Refused;
use naust_wire::{Code, Numbers, Offset, SessionId};
use std::ops::ControlFlow;

/// What became of a frame, before it borrows from the plan.
pub(crate) enum Verdict {
    Nothing,
    Committed {
        offset: Offset,
        duplicate: bool,
    },
    Refused(Refused),
    Failed(Refusal),
    Session(SessionId),
    Done,
    /// It was done before, at this offset.
    DoneBefore(Offset),
    Directory(Change),
}

impl From<Refusal> for Verdict {
    fn from(refusal: Refusal) -> Verdict {
        Verdict::Failed(refusal)
    }
}

impl<T: Tables> Machine<T> {
    /// Folds the next frame of the log in.
    ///
    /// # Errors
    /// [`Fault`]: the tables failed, or the frame is not the next one. The machine must not be used
    /// any more.
    pub fn apply(&mut self, frame: &Frame<'_>) -> Result<Applied<'_>, Fault> {
        if frame.header.kind == Kind::Padding {
            return Ok(Applied::Nothing);
        }
        self.step(&frame.header)?;
        let verdict = match frame.header.kind {
            Kind::Empty | Kind::Padding => Verdict::Nothing,
            Kind::Configure => {
                self.state.configuration = Some(frame.body.to_vec());
                self.rotation.configuration_dirty = true;
                Verdict::Nothing
            }
            Kind::Commit => self.commit(frame)?,
            Kind::Control => self.control(frame)?,
        };
        self.state.recent.trim(Recent::floor(frame.header.offset));
        let mark = self.state.mark;
        self.shared.set_applied(mark.applied, mark.next, mark.time);
        self.move_floor();
        Ok(match verdict {
            Verdict::Nothing => Applied::Nothing,
            Verdict::Committed { offset, duplicate } => Applied::Committed {
                offset,
                ids: &self.plan.ids,
                ranges: &self.plan.ranges,
                duplicate,
                streams: &self.plan.streams,
                keyspaces: &self.plan.keyspaces,
            },
            Verdict::Refused(refused) => Applied::Refused(refused),
            Verdict::Failed(refusal) => Applied::Failed(refusal),
            Verdict::Session(session) => Applied::Session(session),
            Verdict::Done => Applied::Done(mark.applied),
            Verdict::DoneBefore(offset) => Applied::Done(offset),
            Verdict::Directory(change) => Applied::Directory(mark.applied, change),
        })
    }

    /// Over how many bytes of log before it a frame looks back when it is folded in, so about how
    /// long that takes; `None`: it reads tables, and may wait for a disk.
    #[must_use]
    pub fn looks_back(frame: &Frame<'_>) -> Option<u64> {
        let commit = match frame.header.kind {
            Kind::Empty | Kind::Padding => return Some(0),
            Kind::Commit => Message::new(frame.body),
            Kind::Configure | Kind::Control => return None,
        };
        let commit = commit.as_ref().map(Commit::read);
        let Ok(Ok(commit)) = commit else { return Some(0) };
        if commit.deletes_ranges() {
            return None;
        }
        let mut bytes = 0u64;
        for condition in commit.conditions() {
            match condition {
                Ok(Condition::Unchanged { since, .. }) => {
                    bytes = bytes.saturating_add(frame.header.offset.0.saturating_sub(since.0));
                }
                Ok(Condition::Version { .. } | Condition::Absent { .. }) => return None,
                Err(_) => {}
            }
        }
        Some(bytes)
    }

    /// Moves the mark on to a frame that is about to be folded in.
    fn step(&mut self, header: &Header) -> Result<(), Fault> {
        let mark = &mut self.state.mark;
        if header.offset < mark.next || header.index != mark.index.next() {
            let what = format!(
                "frame {} at {} was given where frame {} at or after {} comes next",
                header.index,
                header.offset,
                mark.index.next(),
                mark.next
            );
            return Err(Fault { what, disk_full: false });
        }
        mark.applied = header.offset;
        mark.next = header.end();
        mark.index = header.index;
        mark.term = header.term;
        // Leaders see to it that time never goes back; that it does not is what sums below rest on.
        let before = mark.time;
        mark.time = before.max(header.time);
        self.state.points.pass(before, mark.time, header.offset);
        Ok(())
    }

    fn commit(&mut self, frame: &Frame<'_>) -> Result<Verdict, Fault> {
        let at = frame.header.offset;
        let verdict = match Message::new(frame.body) {
            Ok(message) => match Commit::read(&message) {
                Ok(commit) => self.commit_of_session(&commit, frame)?,
                Err(refusal) => refusal.into(),
            },
            Err(refusal) => refusal.into(),
        };
        if !matches!(verdict, Verdict::Committed { duplicate: false, .. }) {
            self.rotation.skipped.push(at);
        }
        Ok(verdict)
    }

    fn commit_of_session(
        &mut self,
        commit: &Commit<'_>,
        frame: &Frame<'_>,
    ) -> Result<Verdict, Fault> {
        self.plan.clear(names_len(commit));
        let numbers = Numbers {
            session: commit.session(),
            sequence: commit.sequence(),
            acked_below: commit.acked_below(),
        };
        self.once(&numbers, |machine| machine.evaluate(commit, frame))
    }

    /// Carries out what a session has numbered, unless that was done before: then it is answered
    /// again. Without a session it is carried out.
    pub(crate) fn once(
        &mut self,
        numbers: &Numbers,
        carry_out: impl FnOnce(&mut Machine<T>) -> Result<Verdict, Fault>,
    ) -> Result<Verdict, Fault> {
        let Numbers { session: id, sequence, .. } = *numbers;
        if id == SessionId::NONE {
            return carry_out(self);
        }
        let (at, time) = (self.state.mark.applied, self.state.mark.time);
        let slot: Slot = match self.state.sessions.turn(numbers, at, time) {
            Turn::Fresh(slot) => slot,
            Turn::Again(answer) => return again(answer, &mut self.plan),
            Turn::Expired => {
                let detail = format!(
                    "session {id} is unknown or expired; open another one, and find out by \
                     reading what became of earlier requests"
                );
                return Ok(Refusal::new(Code::SessionExpired, detail).into());
            }
            Turn::OutOfWindow => {
                let detail = format!(
                    "sequence {sequence} of session {id} lies outside of the window of answers \
                     that are kept"
                );
                return Ok(Refusal::new(Code::SequenceOutOfWindow, detail).into());
            }
        };
        let verdict = carry_out(self)?;
        let answer = match &verdict {
            Verdict::Committed { offset, .. } => {
                Answer::committed(*offset, &self.plan.ids, &self.plan.ranges)
            }
            Verdict::Done | Verdict::Directory(_) => Answer::Committed(at),
            Verdict::Refused(refused) => Answer::More(Box::new(More::Refused(*refused))),
            Verdict::Failed(Refusal { code, detail }) => Answer::failed(*code, detail),
            Verdict::Nothing | Verdict::Session(_) | Verdict::DoneBefore(_) => return Ok(verdict),
        };
        self.state.sessions.keep(slot, sequence, answer);
        Ok(verdict)
    }

    /// Why nothing can be done any more, if the namespace ended. Who asks again for what was done
    /// before is answered by the session that remembers it.
    pub(crate) fn closed(&self) -> Option<Refusal> {
        let ended = self.state.closed.is_some() && !planted::has(Bug::ServeClosed);
        ended.then(|| Refusal::new(Code::NamespaceNotFound, "the namespace was removed"))
    }

    /// Does the commit, if it can be done.
    fn evaluate(&mut self, commit: &Commit<'_>, frame: &Frame<'_>) -> Result<Verdict, Fault> {
        if let Some(refusal) = self.closed() {
            return Ok(refusal.into());
        }
        if commit.conditions_len() > 0
            && let Some(verdict) = self.conditions(commit)?
        {
            return Ok(verdict);
        }
        let at = frame.header.offset;
        let body_at = at.plus(FRAME_HEADER_BYTES as u64);
        let places = (body_at, frame.header.end());
        if let Err(refusal) = self.plan.make(commit, frame.body, places, &self.state) {
            return Ok(refusal.into());
        }
        self.make_new(commit)?;
        if self.plan.has_ranges {
            overlay::carry_out(self, commit)?;
        } else {
            self.plan.settle(frame.body);
            for i in 0..self.plan.writes.len() {
                self.write(self.plan.writes[i], frame.body)?;
            }
        }
        self.append()?;
        for advance in &self.plan.advances {
            let name = commit.name(advance.cursor).expect("the plan has read this name");
            self.state.streams.set_cursor(advance.stream, name, advance.offset);
        }
        Ok(Verdict::Committed { offset: at, duplicate: false })
    }

    /// The verdict of the first condition that does not hold, if there is one.
    fn conditions(&mut self, commit: &Commit<'_>) -> Result<Option<Verdict>, Fault> {
        let at = self.state.mark.applied;
        let mut steps = UNCHANGED_STEPS_MAX;
        for (number, condition) in commit.conditions().enumerate() {
            let found = match condition {
                Ok(Condition::Version { space, key, offset }) => {
                    match self.version(commit, space, key)? {
                        Ok(found) if found == offset => continue,
                        found => found,
                    }
                }
                Ok(Condition::Absent { space, key }) => match self.version(commit, space, key)? {
                    Ok(Offset::ZERO) => continue,
                    found => found,
                },
                Ok(Condition::Unchanged { space, from, to, since }) => {
                    let tree = self.plan.keyspace(commit, space, &self.state);
                    match tree.and_then(|tree| {
                        let recent = &self.state.recent;
                        changed(recent, at, tree, (from, to), since, &mut steps)
                    }) {
                        Ok(Offset::ZERO) => continue,
                        found => found,
                    }
                }
                Err(refusal) => Err(refusal),
            };
            return Ok(Some(match found {
                Ok(found) => Verdict::Refused(Refused { condition: number as u16, at, found }),
                Err(refusal) => refusal.into(),
            }));
        }
        Ok(None)
    }

    /// The version of a row as the commit finds it; zero: there is none.
    fn version(
        &mut self,
        commit: &Commit<'_>,
        space: u16,
        key: &[u8],
    ) -> Result<Result<Offset, Refusal>, Fault> {
        let tree = match self.plan.keyspace(commit, space, &self.state) {
            Ok(Some(tree)) => tree,
            Ok(None) => return Ok(Ok(Offset::ZERO)),
            Err(refusal) => return Ok(Err(refusal)),
        };
        // A keyspace that the plan has yet to make has no rows.
        let Some(keyspace) = self.state.keyspaces.known(tree) else { return Ok(Ok(Offset::ZERO)) };
        let version = self.reader.get(tree, key, Offset::MAX)?;
        let living = version.filter(|v| v.value.is_some() && v.offset >= keyspace.floor);
        Ok(Ok(living.map_or(Offset::ZERO, |v| v.offset)))
    }

    /// Makes the keyspaces and streams that the plan found missing.
    fn make_new(&mut self, commit: &Commit<'_>) -> Result<(), Fault> {
        for i in 0..self.plan.new_keyspaces.len() {
            let name = commit.name(self.plan.new_keyspaces[i]).expect("the plan has read it");
            self.make_keyspace(name, KeyspaceOptions::default())?;
        }
        for i in 0..self.plan.new_streams.len() {
            let name = commit.name(self.plan.new_streams[i]).expect("the plan has read it");
            self.state.streams.add(name, StreamOptions::default());
        }
        Ok(())
    }

    pub(crate) fn make_keyspace(
        &mut self,
        name: &str,
        options: KeyspaceOptions,
    ) -> Result<(), Fault> {
        let tree = self.state.keyspaces.add(name, options);
        self.rotation.add_tree(tree);
        self.tables.make(tree, &options)?;
        self.shared.set_keyspace(name, tree, Offset::ZERO);
        Ok(())
    }

    fn write(&mut self, write: Write, body: &[u8]) -> Result<(), Fault> {
        let Write { tree, key, value, .. } = write;
        let (key, value) = (key.in_body(body), value.map(|value| value.in_body(body)));
        let extent = Extent::Key;
        self.state.recent.push(&recent::Write {
            commit: self.state.mark.applied,
            tree,
            from: key,
            extent,
        });
        self.put(tree, key, value)
    }

    /// Puts a row version at the commit that is being folded in.
    pub(crate) fn put(
        &mut self,
        tree: TreeId,
        key: &[u8],
        value: Option<&[u8]>,
    ) -> Result<(), Fault> {
        let at = self.state.mark.applied;
        if self.plan.keyspaces.last() != Some(&tree) {
            self.plan.keyspaces.push(tree);
        }
        self.rotation.touch(tree, at);
        self.state.keyspaces.put(tree, at, key.len() + value.map_or(0, <[u8]>::len));
        self.tables.put(tree, key, at, value)
    }

    fn append(&mut self) -> Result<(), Fault> {
        let Machine { tables, state: State { streams, mark, .. }, plan, .. } = self;
        let Plan { appends, streams: touched, row, key, .. } = plan;
        for append in &*appends {
            if touched.last() != Some(&append.stream) {
                touched.push(append.stream);
            }
            let place = Place { offset: append.id, length: append.length, time: mark.time };
            Streams::append(streams, append.stream, place, row, |first, row| {
                Key::Chunk(append.stream, first).write(key);
                tables.put(TreeId::SHARD, key, mark.applied, Some(row))
            })?;
        }
        Ok(())
    }

    /// Visits the keys that live in a range now.
    pub(crate) fn scan_now(
        &self,
        tree: TreeId,
        range: KeyRange<'_>,
        visit: &mut dyn FnMut(&[u8]) -> ControlFlow<()>,
    ) -> Result<(), Fault> {
        let floor = self.state.keyspaces.get(tree).floor;
        self.reader.scan(tree, range, false, Offset::MAX, &mut |key, version, _| {
            if version < floor { ControlFlow::Continue(()) } else { visit(key) }
        })
    }
}

/// Answers a commit again.
fn again(answer: &Answer, plan: &mut Plan) -> Result<Verdict, Fault> {
    let offset = match answer {
        Answer::Gap => unreachable!("a gap is no answer"),
        Answer::Committed(offset) => *offset,
        Answer::Appended(distance, offset) => {
            plan.ids.push(offset.plus(u64::from(*distance)));
            *offset
        }
        Answer::More(more) => match &**more {
            More::Committed { offset, ranges, .. } => {
                more.ids(&mut plan.ids)?;
                plan.ranges.extend_from_slice(ranges);
                *offset
            }
            More::Refused(refused) => return Ok(Verdict::Refused(*refused)),
            More::Failed { code, detail } => {
                return Ok(Refusal::new(*code, &**detail).into());
            }
        },
    };
    Ok(Verdict::Committed { offset, duplicate: true })
}

/// The newest write of a range after `since`; zero: none.
fn changed(
    recent: &Recent,
    at: Offset,
    tree: Option<TreeId>,
    range: (&[u8], Option<&[u8]>),
    since: Offset,
    steps: &mut usize,
) -> Result<Offset, Refusal> {
    let floor = Recent::floor(at);
    if since < floor {
        let detail = format!(
            "the writes since {since} are no longer known: they are kept for \
             {RECENT_WRITES_LOG_BYTES} bytes of log, here from {floor} on; read again"
        );
        return Err(Refusal::new(Code::OffsetTrimmed, detail));
    }
    if since >= at {
        let detail = format!("{since} lies in the future of this commit at {at}");
        return Err(Refusal::new(Code::BadArgument, detail));
    }
    let Some(tree) = tree else { return Ok(Offset::ZERO) };
    match recent.find(tree, range, since, steps) {
        Found::Nothing => Ok(Offset::ZERO),
        Found::Write(commit) => Ok(commit),
        Found::TooMany => {
            let detail = "too many writes since then to look through; read again, and closer";
            Err(Refusal::new(Code::TooLarge, detail))
        }
    }
}
