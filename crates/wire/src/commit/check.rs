//! What makes a commit inadmissible, whatever the state of the tables. One set of rules for a
//! [`Draft`] before it is encoded and for an encoded [`Commit`] at admission; an encoded one, which
//! a stranger may have made, has to keep two more: it leads to no byte twice, and its records lie
//! in the order of their appends, each at a place of its own, since the place is the record's id.

use super::{Commit, Condition, Draft, Op, try_position_in};
use crate::code::Code;
use crate::ids::{Sequence, SessionId};
use crate::layout::data_bytes;
use crate::limits::{
    COMMIT_BODY_BYTES_MAX, CONDITIONS_PER_COMMIT_MAX, KEY_BYTES_MAX, NAMES_PER_COMMIT_MAX,
    OPS_PER_COMMIT_MAX, RANGE_DELETES_PER_COMMIT_MAX, VALUE_BYTES_MAX,
};
use crate::message::{Refusal, bounded};
use crate::name;

/// Up to this many names are compared each with each; more are sorted, which allocates.
const NAMES_COMPARED_MAX: usize = 32;

/// Checks an encoded commit. See [`Commit::check`].
pub(super) fn encoded(commit: &Commit<'_>) -> Result<(), Refusal> {
    bounded("bytes in a commit", commit.body.len(), COMMIT_BODY_BYTES_MAX)?;
    let names = commit.names.len();
    let mut rules = Rules::begin(
        [names, commit.conditions_len(), commit.ops_len()],
        commit.session(),
        commit.sequence(),
    )?;
    rules.names(commit.names())?;
    for condition in commit.conditions() {
        rules.condition(&condition?)?;
    }
    let mut records_end = 0;
    for op in commit.ops() {
        let op = op?;
        rules.op(&op)?;
        if let Op::Append { value, .. } = op {
            records_end = after_record(commit.body, value, records_end)?;
        }
    }
    if rules.bytes > commit.body.len() {
        return Err(Refusal::new(Code::Malformed, "several fields lead to the same bytes"));
    }
    Ok(())
}

/// Checks a draft: the rules that it shares with encoded commits.
pub(super) fn draft(
    draft: &Draft<'_>,
    session: SessionId,
    sequence: Sequence,
) -> Result<(), Refusal> {
    let counts = [draft.names.len(), draft.conditions.len(), draft.ops.len()];
    let mut rules = Rules::begin(counts, session, sequence)?;
    rules.names(draft.names.iter().map(|name| Ok(name.as_ref())))?;
    for condition in &draft.conditions {
        rules.condition(&condition.view())?;
    }
    for op in &draft.ops {
        rules.op(&op.view())?;
    }
    Ok(())
}

/// Refuses more names, conditions or ops than a commit may have.
pub(super) fn counts([names, conditions, ops]: [usize; 3]) -> Result<(), Refusal> {
    bounded("names in a commit", names, NAMES_PER_COMMIT_MAX)?;
    bounded("conditions in a commit", conditions, CONDITIONS_PER_COMMIT_MAX)?;
    bounded("ops in a commit", ops, OPS_PER_COMMIT_MAX)
}

/// Refuses a record that lies before the end of the one before it; returns its own end. Without
/// bytes it still takes a word, so that no two records have the same place.
fn after_record(body: &[u8], value: &[u8], records_end: usize) -> Result<usize, Refusal> {
    let end = try_position_in(body, value)
        .filter(|at| *at >= records_end)
        .map(|at| at + data_bytes(value.len().max(1)))
        .filter(|end| *end <= body.len());
    end.ok_or_else(|| {
        let detail = "records must lie in the order of their appends, each at a place of its own";
        Refusal::new(Code::Malformed, detail)
    })
}

/// What has been seen of a commit so far.
struct Rules {
    names: usize,
    range_deletes: usize,
    /// Bytes that texts and data take in the message.
    bytes: usize,
}

impl Rules {
    fn begin(
        [names, conditions, ops]: [usize; 3],
        session: SessionId,
        sequence: Sequence,
    ) -> Result<Rules, Refusal> {
        if ops == 0 && conditions == 0 {
            return Err(Refusal::new(
                Code::BadArgument,
                "a commit has at least one op or condition",
            ));
        }
        counts([names, conditions, ops])?;
        if session != SessionId::NONE && sequence == Sequence(0) {
            return Err(Refusal::new(Code::BadArgument, "the sequences of a session begin at 1"));
        }
        Ok(Rules { names, range_deletes: 0, bytes: 0 })
    }

    fn names<'n>(
        &mut self,
        names: impl Iterator<Item = Result<&'n str, Refusal>> + Clone,
    ) -> Result<(), Refusal> {
        for name in names.clone() {
            let name = name?;
            name::check(name)?;
            self.bytes += data_bytes(name.len() + 1);
        }
        match repeated(self.names, names)? {
            Some(name) => {
                let detail = format!("the commit names {name:?} twice");
                Err(Refusal::new(Code::BadArgument, detail))
            }
            None => Ok(()),
        }
    }

    fn condition(&mut self, condition: &Condition<'_>) -> Result<(), Refusal> {
        match *condition {
            Condition::Version { space, key, .. } | Condition::Absent { space, key } => {
                self.index(space)?;
                self.key(key)
            }
            Condition::Unchanged { space, from, to, .. } => {
                self.index(space)?;
                self.range(from, to)
            }
        }
    }

    fn op(&mut self, op: &Op<'_>) -> Result<(), Refusal> {
        match *op {
            Op::Put { space, key, value } => {
                self.index(space)?;
                self.key(key)?;
                self.value(value)
            }
            Op::Delete { space, key } => {
                self.index(space)?;
                self.key(key)
            }
            Op::DeleteRange { space, from, to } => {
                self.range_deletes += 1;
                let count = self.range_deletes;
                bounded("delete-range ops in a commit", count, RANGE_DELETES_PER_COMMIT_MAX)?;
                self.index(space)?;
                self.range(from, to)
            }
            Op::Append { space, value } => {
                self.index(space)?;
                self.value(value)
            }
            Op::Advance { space, cursor, .. } => {
                self.index(space)?;
                self.index(cursor)
            }
        }
    }

    fn index(&self, index: u16) -> Result<(), Refusal> {
        if usize::from(index) < self.names {
            return Ok(());
        }
        let detail = format!("an index {index} into {} names", self.names);
        Err(Refusal::new(Code::BadArgument, detail))
    }

    fn key(&mut self, key: &[u8]) -> Result<(), Refusal> {
        self.bytes += data_bytes(key.len());
        check_key(key)
    }

    fn value(&mut self, value: &[u8]) -> Result<(), Refusal> {
        bounded("bytes in a value", value.len(), VALUE_BYTES_MAX)?;
        self.bytes += data_bytes(value.len());
        Ok(())
    }

    fn range(&mut self, from: &[u8], to: Option<&[u8]>) -> Result<(), Refusal> {
        self.bytes += data_bytes(from.len()) + data_bytes(to.map_or(0, <[u8]>::len));
        check_range(from, to)
    }
}

/// Refuses a key that is empty or too long.
pub(crate) fn check_key(key: &[u8]) -> Result<(), Refusal> {
    if key.is_empty() {
        return Err(Refusal::new(Code::KeySize, "a key is empty"));
    }
    check_bound(key)
}

/// Refuses a range whose ends are too long or that ends before it begins. An empty bound is before
/// every key.
pub(crate) fn check_range(from: &[u8], to: Option<&[u8]>) -> Result<(), Refusal> {
    check_bound(from)?;
    if let Some(to) = to {
        check_bound(to)?;
        if from > to {
            return Err(Refusal::new(Code::BadArgument, "a range ends before it begins"));
        }
    }
    Ok(())
}

fn check_bound(key: &[u8]) -> Result<(), Refusal> {
    if key.len() > KEY_BYTES_MAX {
        let detail = format!("a key of {} bytes; at most {KEY_BYTES_MAX} are taken", key.len());
        return Err(Refusal::new(Code::KeySize, detail));
    }
    Ok(())
}

/// A name that stands there twice, if one does: one keyspace under two indices would pass for two.
fn repeated<'n>(
    count: usize,
    names: impl Iterator<Item = Result<&'n str, Refusal>> + Clone,
) -> Result<Option<&'n str>, Refusal> {
    if count == 1 {
        return Ok(None);
    }
    if count <= NAMES_COMPARED_MAX {
        let mut rest = names;
        while let Some(name) = rest.next() {
            let name = name?;
            if rest.clone().any(|other| other.as_ref() == Ok(&name)) {
                return Ok(Some(name));
            }
        }
        return Ok(None);
    }
    let mut sorted = names.collect::<Result<Vec<_>, _>>()?;
    sorted.sort_unstable();
    Ok(sorted.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| pair[0]))
}
