//! Opening: the state as of P(shard) from the rows of the shard tree, and replaying what some trees
//! lack.

use crate::StreamId;
use crate::history::TimePoints;
use crate::machine::{Machine, MachineOptions, Resume, State};
use crate::overlay;
use crate::plan::{Plan, names_len};
use crate::reader::Shared;
use crate::rotation::{Rotation, read_unpersisted};
use crate::rows::{Damaged, Fields, Key};
use crate::sessions::Sessions;
use crate::tables::{Fault, KeyRange, Mark, Tables, TablesReader, TreeId};
use naust_wire::commit::Commit;
use naust_wire::frame::{Frame, Kind};
use naust_wire::message::{Message, Refusal};
use naust_wire::planted::{self, Bug};
use naust_wire::{Code, Offset, SessionId, ShardId};
use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::Arc;

/// What replay goes by.
#[derive(Debug, Default)]
pub(crate) struct Replay {
    /// Tree *n* (number *n*) lacks what lies above this.
    has: Vec<Offset>,
    /// Commits that did nothing, ascending.
    skipped: Vec<Offset>,
}

/// What the shard tree held.
#[derive(Default)]
pub(crate) struct Loaded {
    state: State,
    sessions: Vec<(SessionId, Vec<u8>)>,
    unpersisted: Vec<(TreeId, Offset, Offset)>,
    skipped: Vec<Offset>,
    skipped_rows: VecDeque<Offset>,
    range_ends: VecDeque<(Offset, u16)>,
}

impl Loaded {
    /// Takes rows in the order of their keys, to the end.
    pub(crate) fn rows<'r>(
        mut self,
        rows: impl IntoIterator<Item = (&'r [u8], &'r [u8])>,
    ) -> Result<Loaded, Damaged> {
        for (key, value) in rows {
            self.row(key, value)?;
        }
        self.end()
    }

    fn end(mut self) -> Result<Loaded, Damaged> {
        self.state.recent.loaded();
        self.state.sessions = Sessions::load(std::mem::take(&mut self.sessions))?;
        Ok(self)
    }

    fn row(&mut self, key: &[u8], value: &[u8]) -> Result<(), Damaged> {
        let state = &mut self.state;
        match Key::read(key)? {
            Key::History => {
                let mut fields = Fields::new(value, "history");
                state.floor = fields.offset()?;
                state.points = TimePoints::read(&mut fields)?;
                if planted::has(Bug::ForgetTimes) {
                    state.points = TimePoints::default();
                }
                fields.end()?;
            }
            Key::Unpersisted => self.unpersisted = read_unpersisted(value)?,
            Key::Keyspace(tree) => state.keyspaces.load(tree, value)?,
            Key::Stream(stream) => state.streams.load(stream, value)?,
            // Read when they are asked for.
            Key::Chunk(..) => {}
            Key::Cursor(stream, name) => state.streams.load_cursor(stream, name, value)?,
            Key::Session(id) => self.sessions.push((id, value.to_vec())),
            Key::Skipped(last) => {
                let mut fields = Fields::new(value, "skipped");
                while !fields.is_empty() {
                    self.skipped.push(fields.offset()?);
                }
                self.skipped_rows.push_back(last);
            }
            Key::RangeEnd(commit, number) => self.range_ends.push_back((commit, number)),
            Key::Recent(_) if planted::has(Bug::ForgetRecent) => {}
            Key::Recent(number) => state.recent.load(number, value)?,
            Key::Configuration => state.configuration = Some(value.to_vec()),
            Key::Closed => {
                let mut fields = Fields::new(value, "closed");
                state.closed = Some(fields.offset()?);
                fields.end()?;
            }
            Key::Namespace(name) => state.directory.load(name, value)?,
            Key::Closing(name) => state.directory.load_closing(name, value)?,
            Key::Directory => state.directory.load_next(value)?,
            Key::Node(node) => state.directory.load_node(node, value)?,
        }
        Ok(())
    }
}

/// Reads all rows of the shard tree but the streams' indexes.
fn load<R: TablesReader>(reader: &R) -> Result<Loaded, Fault> {
    let mut loaded = Loaded::default();
    let lowest_chunk = Key::Chunk(StreamId(0), Offset::ZERO).bytes();
    let after_chunks = [lowest_chunk[0] + 1];
    let ranges = [
        KeyRange { from: &[], to: Some(&lowest_chunk) },
        KeyRange { from: &after_chunks, to: None },
    ];
    for range in ranges {
        let mut result = Ok(());
        reader.scan(TreeId::SHARD, range, false, Offset::MAX, &mut |key, _, value| {
            result = loaded.row(key, value);
            if result.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        result?;
    }
    Ok(loaded.end()?)
}

impl<T: Tables> Machine<T> {
    /// Opens the views of a shard on its tables, which may be empty. Nothing may be read through a
    /// [`crate::Reader`] before what [`Resume`] asks for was replayed.
    ///
    /// # Errors
    /// [`Fault`]: the tables failed, or rows of the shard tree are damaged.
    pub fn open(shard: ShardId, mut tables: T) -> Result<(Machine<T>, Resume), Fault> {
        tables.make(TreeId::SHARD, &naust_wire::options::KeyspaceOptions::default())?;
        let reader = tables.reader();
        let mut loaded = load(&reader)?;
        let mut mark = tables.mark(TreeId::SHARD);
        mark.next = mark.next.max(Offset::FIRST);
        loaded.state.mark = mark;
        let (mut rotation, shared) = (Rotation::default(), Arc::new(Shared::default()));
        rotation.add_tree(TreeId::SHARD);
        for keyspace in loaded.state.keyspaces.iter() {
            tables.make(keyspace.tree, &keyspace.options)?;
            tables.set_retention_floor(keyspace.tree, keyspace.floor);
            rotation.add_tree(keyspace.tree);
            shared.set_keyspace(&keyspace.name, keyspace.tree, keyspace.floor);
        }
        rotation.resume(mark, loaded.skipped_rows);
        rotation.range_ends = loaded.range_ends;
        let (replay, replay_from) =
            lacks(&tables, &loaded.unpersisted, loaded.state.keyspaces.iter().len(), mark);
        for (tree, first) in &replay_from {
            rotation.touch(*tree, *first);
        }
        let replay_from = replay_from.iter().map(|(_, first)| *first).min();
        let resume = Resume {
            replay_from: replay_from.unwrap_or(mark.next),
            applied: mark,
            configuration: loaded.state.configuration.clone(),
        };
        shared.set_applied(mark.applied, mark.next, mark.time);
        let floor = shared.move_floor(loaded.state.floor, mark.time);
        tables.set_history_floor(floor);
        let machine = Machine {
            shard,
            tables,
            reader,
            shared,
            state: loaded.state,
            rotation,
            plan: Plan::default(),
            options: MachineOptions::default(),
            replay: Replay { skipped: loaded.skipped, ..replay },
            look_from: 0,
            noted: VecDeque::new(),
        };
        Ok((machine, resume))
    }

    /// Folds a frame again, which is known to have been folded in before: its ops go to those trees
    /// that lack them. To be called with all frames from [`Resume::replay_from`] up to
    /// [`Resume::applied`], in order, before `apply`.
    ///
    /// # Errors
    /// [`Fault`]: the tables failed, or the frame does not fit what the shard tree tells of it.
    pub fn replay(&mut self, frame: &Frame<'_>) -> Result<(), Fault> {
        let at = frame.header.offset;
        let was_refused = self.replay.skipped.binary_search(&at).is_ok();
        let was_refused = was_refused && !planted::has(Bug::ReplayRefused);
        if frame.header.kind != Kind::Commit || was_refused {
            return Ok(());
        }
        if at > self.state.mark.applied {
            let what =
                format!("the frame at {at} was given to be replayed, but it is to be applied");
            return Err(Fault { what, disk_full: false });
        }
        let message = Message::new(frame.body).map_err(unlike)?;
        let commit = Commit::read(&message).map_err(unlike)?;
        self.plan.clear(names_len(&commit));
        let body_at = (at, frame.header.end());
        self.plan.make(&commit, frame.body, body_at, &self.state).map_err(unlike)?;
        if !self.plan.new_keyspaces.is_empty() {
            return Err(unlike(Refusal::new(Code::KeyspaceNotFound, "it names a new keyspace")));
        }
        let mark = self.state.mark;
        self.state.mark.applied = at;
        let replayed = self.replay_ops(&commit, frame.body);
        self.state.mark = mark;
        replayed
    }

    fn replay_ops(&mut self, commit: &Commit<'_>, body: &[u8]) -> Result<(), Fault> {
        let at = self.state.mark.applied;
        let has = std::mem::take(&mut self.replay.has);
        let lacks = |tree: TreeId| has.get(tree.0 as usize).is_some_and(|has| at > *has);
        let mut result = Ok(());
        if self.plan.has_ranges {
            result = overlay::replay(self, commit, lacks);
        } else {
            self.plan.settle(body);
            for write in self.plan.writes.iter().filter(|write| lacks(write.tree)) {
                self.rotation.touch(write.tree, at);
                let value = write.value.map(|value| value.in_body(body));
                result = self.tables.put(write.tree, write.key.in_body(body), at, value);
                if result.is_err() {
                    break;
                }
            }
        }
        self.replay.has = has;
        result
    }
}

/// What each tree has, and the first row of each that it lacks.
fn lacks<T: Tables>(
    tables: &T,
    unpersisted: &[(TreeId, Offset, Offset)],
    keyspaces: usize,
    mark: Mark,
) -> (Replay, Vec<(TreeId, Offset)>) {
    // A tree of which nothing is missing has everything up to P(shard), whatever its own mark.
    let mut has = vec![mark.applied; keyspaces + 1];
    let mut from = Vec::new();
    for (tree, first, end) in unpersisted {
        let marked = tables.mark(*tree).applied;
        let has_all = planted::has(Bug::LoseHalf) && tree.0 % 2 == 0;
        if *end <= marked || marked >= mark.applied || has_all {
            continue;
        }
        if let Some(has) = has.get_mut(tree.0 as usize) {
            *has = marked;
            from.push((*tree, *first));
        }
    }
    (Replay { has, skipped: Vec::new() }, from)
}

fn unlike(refusal: Refusal) -> Fault {
    let what = format!("a commit that was applied before can't be replayed: {refusal}");
    Fault { what, disk_full: false }
}
