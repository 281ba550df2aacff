//! Commits with delete-ranges: their ops take effect one after the other.
//!
//! A delete-range removes what lives at its place: the rows of the tables as the ops before it left
//! them. So writes are collected in an overlay over the tables, and put when all ops are through.

use crate::machine::Machine;
use crate::recent::{self, Extent};
use crate::rows::Key;
use crate::tables::{Fault, KeyRange, Tables, TablesReader, TreeId};
use naust_wire::Offset;
use naust_wire::commit::{Commit, Op};
use naust_wire::limits::{RANGE_DELETE_KEY_BYTES_MAX, RANGE_DELETE_KEYS_MAX};
use naust_wire::reply::RangeDeleted;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};

/// What the commit did so far: rows put and (`None`) deleted.
type Overlay<'b> = BTreeMap<(TreeId, Cow<'b, [u8]>), Option<&'b [u8]>>;

/// Carries out all puts, deletes and delete-ranges of a commit that was planned.
pub(crate) fn carry_out<T: Tables>(
    machine: &mut Machine<T>,
    commit: &Commit<'_>,
) -> Result<(), Fault> {
    let at = machine.state.mark.applied;
    let mut overlay = Overlay::new();
    let mut ranges = Vec::new();
    // Keyspaces that the commit itself makes are there from their first put on, in that order.
    let known = machine.state.keyspaces.iter().len() - machine.plan.new_keyspaces.len();
    let mut newest = TreeId(known as u32);
    for op in commit.ops() {
        match op.expect("the plan has read all ops") {
            Op::Put { space, key, value } => {
                let tree = keyspace(machine, commit, space).expect("the plan has made it");
                newest = newest.max(tree);
                note(machine, at, tree, key, Extent::Key);
                overlay.insert((tree, Cow::Borrowed(key)), Some(value));
            }
            Op::Delete { space, key } => {
                if let Some(tree) = keyspace(machine, commit, space).filter(|tree| *tree <= newest)
                {
                    note(machine, at, tree, key, Extent::Key);
                    overlay.insert((tree, Cow::Borrowed(key)), None);
                }
            }
            Op::DeleteRange { space, from, to } => {
                let done = match keyspace(machine, commit, space) {
                    None => RangeDeleted::default(),
                    Some(tree) => {
                        let number = ranges.len() as u16;
                        delete_range(machine, &mut overlay, tree, (from, to), number)?
                    }
                };
                ranges.push(done);
            }
            Op::Append { .. } | Op::Advance { .. } => {}
        }
    }
    machine.plan.ranges = ranges;
    for ((tree, key), value) in &overlay {
        machine.put(*tree, key, *value)?;
    }
    Ok(())
}

fn keyspace<T: Tables>(
    machine: &mut Machine<T>,
    commit: &Commit<'_>,
    space: u16,
) -> Option<TreeId> {
    machine.plan.keyspace(commit, space, &machine.state).expect("the plan has read this name")
}

fn note<T: Tables>(
    machine: &mut Machine<T>,
    commit: Offset,
    tree: TreeId,
    from: &[u8],
    extent: Extent<'_>,
) {
    machine.state.recent.push(&recent::Write { commit, tree, from, extent });
}

/// Deletes what lives in a range, up to the limits, and notes where it stopped.
fn delete_range<T: Tables>(
    machine: &mut Machine<T>,
    overlay: &mut Overlay<'_>,
    tree: TreeId,
    (from, to): (&[u8], Option<&[u8]>),
    number: u16,
) -> Result<RangeDeleted, Fault> {
    let mut keys = living(machine, overlay, tree, KeyRange { from, to }, Limit::ON)?;
    let mut bytes = 0;
    let fit = keys.iter().take(RANGE_DELETE_KEYS_MAX).take_while(|key| {
        bytes += key.len();
        bytes <= RANGE_DELETE_KEY_BYTES_MAX
    });
    let fit = fit.count();
    let next = keys.get(fit).cloned();
    keys.truncate(fit);
    let at = machine.state.mark.applied;
    if let Some(first) = keys.first() {
        let extent = next.as_deref().or(to).map_or(Extent::End, Extent::To);
        note(machine, at, tree, first, extent);
    }
    if let Some(next) = &next {
        machine.put_row(Key::RangeEnd(at, number), Some(next))?;
        machine.rotation.range_ends.push_back((at, number));
    }
    let deleted = keys.len() as u32;
    overlay.extend(keys.into_iter().map(|key| ((tree, Cow::Owned(key)), None)));
    Ok(RangeDeleted { deleted, next })
}

/// How many keys are looked for.
#[derive(Clone, Copy)]
struct Limit {
    keys: usize,
    bytes: usize,
}

impl Limit {
    /// The limits of a delete-range; one key more is found, where to go on.
    const ON: Limit = Limit { keys: RANGE_DELETE_KEYS_MAX, bytes: RANGE_DELETE_KEY_BYTES_MAX };
    /// None: the end of the range is known to be within the limits.
    const OFF: Limit = Limit { keys: usize::MAX, bytes: usize::MAX };

    fn takes(&mut self, key: &[u8]) -> bool {
        let more = self.keys > 0 && self.bytes > 0;
        self.keys = self.keys.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(key.len());
        more
    }
}

/// The keys that live in a range of the tables under an overlay, in order: at least all that fit
/// the limit, and one more.
fn living<T: Tables>(
    machine: &Machine<T>,
    overlay: &Overlay<'_>,
    tree: TreeId,
    range: KeyRange<'_>,
    limit: Limit,
) -> Result<Vec<Vec<u8>>, Fault> {
    if range.to.is_some_and(|to| to <= range.from) {
        return Ok(Vec::new());
    }
    let mut keys = Vec::new();
    let mut left = limit;
    machine.scan_now(tree, range, &mut |key| {
        if !overlay.contains_key(&(tree, Cow::Borrowed(key))) {
            keys.push(key.to_vec());
            if !left.takes(key) {
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    })?;
    let from = Bound::Included((tree, Cow::Borrowed(range.from)));
    let to = match range.to {
        Some(to) => Bound::Excluded((tree, Cow::Borrowed(to))),
        None => Bound::Excluded((TreeId(tree.0 + 1), Cow::Borrowed(&[][..]))),
    };
    let mut left = limit;
    for ((_, key), value) in overlay.range((from, to)) {
        if value.is_some() {
            keys.push(key.to_vec());
            if !left.takes(key) {
                break;
            }
        }
    }
    keys.sort_unstable();
    Ok(keys)
}

/// Does the puts, deletes and delete-ranges of a commit again, in those trees that `lack` it.
/// Delete-ranges stop where they stopped the first time: floors may have moved since.
pub(crate) fn replay<T: Tables>(
    machine: &mut Machine<T>,
    commit: &Commit<'_>,
    lacks: impl Fn(TreeId) -> bool,
) -> Result<(), Fault> {
    let at = machine.state.mark.applied;
    let mut overlay = Overlay::new();
    let mut number = 0;
    for op in commit.ops() {
        match op.expect("the plan has read all ops") {
            Op::Put { space, key, value } => {
                if let Some(tree) = keyspace(machine, commit, space).filter(|tree| lacks(*tree)) {
                    overlay.insert((tree, Cow::Borrowed(key)), Some(value));
                }
            }
            Op::Delete { space, key } => {
                if let Some(tree) = keyspace(machine, commit, space).filter(|tree| lacks(*tree)) {
                    overlay.insert((tree, Cow::Borrowed(key)), None);
                }
            }
            Op::DeleteRange { space, from, to } => {
                if let Some(tree) = keyspace(machine, commit, space).filter(|tree| lacks(*tree)) {
                    let key = Key::RangeEnd(at, number).bytes();
                    let stopped = machine.reader.get(TreeId::SHARD, &key, Offset::MAX)?;
                    let stopped = stopped.and_then(|version| version.value);
                    let to = stopped.as_ref().map(AsRef::as_ref).or(to);
                    let range = KeyRange { from, to };
                    let keys = living(machine, &overlay, tree, range, Limit::OFF)?;
                    overlay.extend(keys.into_iter().map(|key| ((tree, Cow::Owned(key)), None)));
                }
                number += 1;
            }
            Op::Append { .. } | Op::Advance { .. } => {}
        }
    }
    for ((tree, key), value) in &overlay {
        machine.rotation.touch(*tree, at);
        machine.tables.put(*tree, key, at, *value)?;
    }
    Ok(())
}
