//! What a commit would do, worked out before anything is done: names resolved, limits checked,
//! positions noted.
//!
//! The buffers live on from commit to commit, so planning allocates nothing. They hold positions in
//! the frame's body instead of slices of it.

use crate::machine::State;
use crate::rows::StreamId;
use crate::tables::TreeId;
use naust_wire::commit::{Commit, Op, position_in};
use naust_wire::limits::{
    CURSORS_PER_STREAM_MAX, KEYSPACES_PER_NAMESPACE_MAX, STREAMS_PER_NAMESPACE_MAX,
};
use naust_wire::message::Refusal;
use naust_wire::reply::RangeDeleted;
use naust_wire::{Code, Offset};

/// How many names a commit has, without reading them.
pub(crate) fn names_len(commit: &Commit<'_>) -> usize {
    commit.names().size_hint().0
}

/// A part of a frame's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    at: u32,
    length: u32,
}

impl Span {
    pub(crate) fn of(body: &[u8], part: &[u8]) -> Span {
        // A part without bytes may lie anywhere.
        let at = if part.is_empty() { 0 } else { position_in(body, part) };
        Span { at: at as u32, length: part.len() as u32 }
    }

    pub(crate) fn in_body<'b>(&self, body: &'b [u8]) -> &'b [u8] {
        &body[self.at as usize..][..self.length as usize]
    }
}

/// A row that is put, or (without a value) deleted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Write {
    pub(crate) tree: TreeId,
    /// Its place among the commit's writes.
    order: u32,
    pub(crate) key: Span,
    pub(crate) value: Option<Span>,
}

/// A record that is appended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Append {
    pub(crate) stream: StreamId,
    pub(crate) id: Offset,
    pub(crate) length: u32,
}

/// A cursor that is moved.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Advance {
    pub(crate) stream: StreamId,
    /// The cursor's index among the commit's names.
    pub(crate) cursor: u16,
    pub(crate) offset: Offset,
}

/// What one of the commit's names was found to be.
#[derive(Clone, Copy, Debug, Default)]
struct Named {
    keyspace: Option<Option<TreeId>>,
    stream: Option<Option<StreamId>>,
}

/// The plan, and the answer that grows while it is carried out.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    named: Vec<Named>,
    pub(crate) writes: Vec<Write>,
    pub(crate) appends: Vec<Append>,
    pub(crate) advances: Vec<Advance>,
    /// Names of keyspaces and streams to be made.
    pub(crate) new_keyspaces: Vec<u16>,
    pub(crate) new_streams: Vec<u16>,
    new_cursors: Vec<(StreamId, u16)>,
    /// There are delete-ranges, whose effect depends on what stands before them: `writes` is of no
    /// use.
    pub(crate) has_ranges: bool,

    pub(crate) ids: Vec<Offset>,
    pub(crate) ranges: Vec<RangeDeleted>,
    pub(crate) streams: Vec<StreamId>,
    pub(crate) keyspaces: Vec<TreeId>,

    /// Buffers for a key and a value of the shard tree.
    pub(crate) key: Vec<u8>,
    pub(crate) row: Vec<u8>,
}

impl Plan {
    pub(crate) fn clear(&mut self, names: usize) {
        self.named.clear();
        self.named.resize(names, Named::default());
        self.writes.clear();
        self.appends.clear();
        self.advances.clear();
        self.new_keyspaces.clear();
        self.new_streams.clear();
        self.new_cursors.clear();
        self.has_ranges = false;
        self.ids.clear();
        self.ranges.clear();
        self.streams.clear();
        self.keyspaces.clear();
    }

    /// The keyspace of a name, if it exists or is about to be made.
    pub(crate) fn keyspace(
        &mut self,
        commit: &Commit<'_>,
        name: u16,
        state: &State,
    ) -> Result<Option<TreeId>, Refusal> {
        if let Some(Named { keyspace: Some(known), .. }) = self.named.get(usize::from(name)) {
            return Ok(*known);
        }
        let found = state.keyspaces.find(commit.name(name)?);
        self.named[usize::from(name)].keyspace = Some(found);
        Ok(found)
    }

    fn stream(
        &mut self,
        commit: &Commit<'_>,
        name: u16,
        state: &State,
    ) -> Result<Option<StreamId>, Refusal> {
        if let Some(Named { stream: Some(known), .. }) = self.named.get(usize::from(name)) {
            return Ok(*known);
        }
        let found = state.streams.find(commit.name(name)?);
        self.named[usize::from(name)].stream = Some(found);
        Ok(found)
    }

    /// Plans all ops of a commit whose frame's body begins at `body_at` and ends with the frame at
    /// `end`.
    ///
    /// # Errors
    /// Why the commit can't be carried out.
    pub(crate) fn make(
        &mut self,
        commit: &Commit<'_>,
        body: &[u8],
        (body_at, end): (Offset, Offset),
        state: &State,
    ) -> Result<(), Refusal> {
        for op in commit.ops() {
            match op? {
                Op::Put { space, key, value } => {
                    let tree = self.keyspace_to_write(commit, space, state)?;
                    self.write(tree, Span::of(body, key), Some(Span::of(body, value)));
                }
                Op::Delete { space, key } => {
                    if let Some(tree) = self.keyspace(commit, space, state)? {
                        self.write(tree, Span::of(body, key), None);
                    }
                }
                Op::DeleteRange { .. } => self.has_ranges = true,
                Op::Append { space, value } => {
                    let stream = self.stream_to_append(commit, space, state)?;
                    let id = body_at.plus(position_in(body, value) as u64);
                    let length = value.len() as u32;
                    self.appends.push(Append { stream, id, length });
                    self.ids.push(id);
                }
                Op::Advance { space, cursor, offset } => {
                    self.advance(commit, (space, cursor), (offset, end), state)?;
                }
            }
        }
        self.check_cursors(state)
    }

    fn write(&mut self, tree: TreeId, key: Span, value: Option<Span>) {
        self.writes.push(Write { tree, order: self.writes.len() as u32, key, value });
    }

    fn keyspace_to_write(
        &mut self,
        commit: &Commit<'_>,
        name: u16,
        state: &State,
    ) -> Result<TreeId, Refusal> {
        if let Some(tree) = self.keyspace(commit, name, state)? {
            return Ok(tree);
        }
        let tree = state.keyspaces.next_tree(self.new_keyspaces.len());
        let tree = tree.ok_or_else(|| {
            let detail = format!("a namespace has at most {KEYSPACES_PER_NAMESPACE_MAX} keyspaces");
            Refusal::new(Code::LimitReached, detail)
        })?;
        self.new_keyspaces.push(name);
        self.named[usize::from(name)].keyspace = Some(Some(tree));
        Ok(tree)
    }

    fn stream_to_append(
        &mut self,
        commit: &Commit<'_>,
        name: u16,
        state: &State,
    ) -> Result<StreamId, Refusal> {
        if let Some(stream) = self.stream(commit, name, state)? {
            return Ok(stream);
        }
        let stream = state.streams.next_id(self.new_streams.len()).ok_or_else(|| {
            let detail = format!("a namespace has at most {STREAMS_PER_NAMESPACE_MAX} streams");
            Refusal::new(Code::LimitReached, detail)
        })?;
        self.new_streams.push(name);
        self.named[usize::from(name)].stream = Some(Some(stream));
        Ok(stream)
    }

    fn advance(
        &mut self,
        commit: &Commit<'_>,
        (space, cursor): (u16, u16),
        (offset, end): (Offset, Offset),
        state: &State,
    ) -> Result<(), Refusal> {
        let Some(stream) = self.stream(commit, space, state)? else {
            let detail = format!("there is no stream {:?}", commit.name(space)?);
            return Err(Refusal::new(Code::StreamNotFound, detail));
        };
        if offset > end {
            let detail = format!("a cursor can't stand at {offset}: the log ends at {end}");
            return Err(Refusal::new(Code::BadArgument, detail));
        }
        let name = commit.name(cursor)?;
        let known = state.streams.known(stream);
        if !known.is_some_and(|stream| stream.cursors.contains_key(name)) {
            self.new_cursors.push((stream, cursor));
        }
        self.advances.push(Advance { stream, cursor, offset });
        Ok(())
    }

    fn check_cursors(&mut self, state: &State) -> Result<(), Refusal> {
        if self.new_cursors.is_empty() {
            return Ok(());
        }
        self.new_cursors.sort_unstable();
        self.new_cursors.dedup();
        for new in self.new_cursors.chunk_by(|a, b| a.0 == b.0) {
            let known = state.streams.known(new[0].0).map_or(0, |stream| stream.cursors.len());
            if known + new.len() > CURSORS_PER_STREAM_MAX {
                let detail = format!("a stream has at most {CURSORS_PER_STREAM_MAX} cursors");
                return Err(Refusal::new(Code::LimitReached, detail));
            }
        }
        Ok(())
    }

    /// Of several writes of one key, the last one stays.
    pub(crate) fn settle(&mut self, body: &[u8]) {
        if self.writes.len() < 2 {
            return;
        }
        let place = |write: &Write| (write.tree, write.key.in_body(body));
        self.writes
            .sort_unstable_by(|a, b| place(a).cmp(&place(b)).then_with(|| b.order.cmp(&a.order)));
        self.writes.dedup_by(|later, kept| place(later) == place(kept));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_several_writes_of_one_key_the_last_stays() {
        let body = b"abcabc";
        let mut plan = Plan::default();
        let span = |at, length| Span { at, length };
        plan.write(TreeId(1), span(0, 1), Some(span(1, 1)));
        plan.write(TreeId(1), span(1, 1), Some(span(2, 1)));
        plan.write(TreeId(2), span(3, 1), Some(span(2, 1)));
        plan.write(TreeId(1), span(3, 1), None);
        plan.settle(body);
        let left: Vec<_> = plan.writes.iter().map(|w| (w.tree.0, w.order)).collect();
        assert_eq!(left, [(1, 3), (1, 1), (2, 2)]);
    }
}
