//! Each row is a register that everybody sees alike: there is an order of all commits and reads of
//! it that fits their times, whatever offsets the answers name.
//!
//! Only values and times count here; offsets only tell where to search first. Keyspaces whose rows
//! fall by a floor are left out, and so are rows that nobody read.

use super::Case;
use super::wgl::{self, Act, Found, Op};
use crate::history::{Answer, Asked, Request, Violation};
use crate::model::Verdict;
use naust_wire::commit::{Commit, Op as WireOp};
use naust_wire::message::Message;
use naust_wire::options::Compaction;
use naust_wire::read::{Level, Query, Read};
use naust_wire::reply::{Committed, Failure, Reply};
use naust_wire::{Offset, Outcome};
use std::collections::BTreeMap;

/// Its name in reports.
pub const NAME: &str = "linearizable";

/// Tries for one row. Searches that are hinted well take one for each operation.
const STEPS_MAX: u64 = 100_000;

type Row = (String, Vec<u8>);

/// See the module.
pub fn check(case: &Case<'_>, violations: &mut Vec<Violation>) {
    let mut registers = Registers::of(case);
    registers.reads(case);
    for commit in commits(case) {
        registers.commit(case, &commit);
    }
    for ((keyspace, key), register) in &mut registers.rows {
        let told = wgl::search(&register.ops(), STEPS_MAX);
        let what = match told {
            Found::Order => continue,
            Found::None => "there is no order of what was written and read",
            Found::Nothing => "no order was found of what was written and read",
        };
        let key = String::from_utf8_lossy(&key[..key.len().min(12)]);
        let (shard, count) = (case.shard, register.ops.len());
        let what = format!("shard {shard}: {what} at {key:?} of {keyspace}, {count} operations");
        violations.push(Violation::new(NAME, what));
    }
}

/// What happened to one row.
#[derive(Default)]
struct Register {
    ops: Vec<Op>,
    values: BTreeMap<Vec<u8>, u32>,
}

impl Register {
    /// The number of a value; zero: there is none.
    fn number(&mut self, value: Option<&[u8]>) -> u32 {
        let next = self.values.len() as u32 + 1;
        value.map_or(0, |value| *self.values.entry(value.to_vec()).or_insert(next))
    }

    /// Without writes that may have happened and that nobody saw: these are as good as none.
    fn ops(&self) -> Vec<Op> {
        let is_seen = |act| match act {
            Act::Write(value) => self.ops.iter().any(|op| op.act == Act::Read(value)),
            Act::Read(_) => true,
        };
        let counts = |op: &&Op| op.ended.is_some() || is_seen(op.act);
        self.ops.iter().filter(counts).copied().collect()
    }
}

/// Rows that were read.
struct Registers {
    rows: BTreeMap<Row, Register>,
}

impl Registers {
    fn of(case: &Case<'_>) -> Registers {
        let mut rows = BTreeMap::new();
        for request in case.requests {
            let Some(Read { query, .. }) = linearizable(request) else { continue };
            if let Query::Get { keyspace, key } = query
                && !falls(case, keyspace)
            {
                rows.entry((keyspace.clone(), key.clone())).or_default();
            }
            if let (Query::Scan { keyspace, .. }, Some(Reply::Rows { entries, .. })) =
                (query, request.reply())
                && !falls(case, keyspace)
            {
                for entry in entries.iter().take(2) {
                    rows.entry((keyspace.clone(), entry.key.clone())).or_default();
                }
            }
        }
        Registers { rows }
    }

    fn reads(&mut self, case: &Case<'_>) {
        for request in case.requests {
            let Some(Read { query, .. }) = linearizable(request) else { continue };
            match (query, request.reply()) {
                (Query::Get { keyspace, key }, Some(Reply::Row { at, row })) => {
                    let row_key = (keyspace.clone(), key.clone());
                    let Some(register) = self.rows.get_mut(&row_key) else { continue };
                    let value = row.as_ref().map(|(_, value)| value.as_slice());
                    let seen = register.number(value);
                    register.ops.push(read(request, *at, seen));
                }
                (
                    Query::Scan { keyspace, from, to, reverse, .. },
                    Some(Reply::Rows { at, entries, next }),
                ) => {
                    let (from, to) = match (reverse, next) {
                        (false, Some(next)) => (from, Some(next)),
                        (true, Some(next)) => (next, to.as_ref()),
                        (_, None) => (from, to.as_ref()),
                    };
                    for (key, register) in self.range(keyspace, from, to.map(Vec::as_slice)) {
                        let entry = entries.iter().find(|entry| entry.key == *key);
                        let seen = register.number(entry.map(|entry| entry.value.as_slice()));
                        register.ops.push(read(request, *at, seen));
                    }
                }
                _ => {}
            }
        }
    }

    fn range<'r>(
        &'r mut self,
        keyspace: &str,
        from: &[u8],
        to: Option<&'r [u8]>,
    ) -> impl Iterator<Item = (&'r Vec<u8>, &'r mut Register)> {
        let keyspace = keyspace.to_owned();
        let rows = self.rows.range_mut((keyspace.clone(), from.to_vec())..);
        rows.take_while(move |((of, key), _)| *of == keyspace && to.is_none_or(|to| &key[..] < to))
            .map(|((_, key), register)| (key, register))
    }

    /// What a commit leaves behind at each row.
    fn commit(&mut self, case: &Case<'_>, commit: &Sent<'_>) {
        let Ok(message) = Message::new(commit.body) else { return };
        let Ok(parsed) = Commit::read(&message) else { return };
        let mut left: BTreeMap<Row, Option<Vec<u8>>> = BTreeMap::new();
        let mut ranges = 0;
        for op in parsed.ops() {
            let (space, from, to, value) = match op {
                Ok(WireOp::Put { space, key, value }) => (space, key, None, Some(value.to_vec())),
                Ok(WireOp::Delete { space, key }) => (space, key, None, None),
                Ok(WireOp::DeleteRange { space, from, to }) => (space, from, Some(to), None),
                _ => continue,
            };
            let Ok(keyspace) = parsed.name(space) else { continue };
            if falls(case, keyspace) {
                continue;
            }
            let Some(to) = to else {
                left.insert((keyspace.to_owned(), from.to_vec()), value);
                continue;
            };
            let told = commit.told.and_then(|told| told.ranges.get(ranges));
            ranges += 1;
            let next = told.and_then(|told| told.next.as_deref());
            let to = next.or(to);
            for (key, _) in self.range(keyspace, from, to) {
                left.insert((keyspace.to_owned(), key.clone()), None);
            }
        }
        for (row, value) in left {
            let Some(register) = self.rows.get_mut(&row) else { continue };
            let act = Act::Write(register.number(value.as_deref()));
            let Sent { begun, ended, hint, .. } = *commit;
            register.ops.push(Op { begun, ended, hint, act });
        }
    }
}

fn linearizable(request: &Request) -> Option<&Read> {
    match &request.asked {
        Asked::Read(read) if read.level == Level::Linearizable => Some(read),
        _ => None,
    }
}

fn read(request: &Request, at: Offset, seen: u32) -> Op {
    let (begun, ended) = (request.sent.0, Some(request.answered.0));
    Op { begun, ended, hint: 2 * at.0 + 1, act: Act::Read(seen) }
}

/// Whether rows of a keyspace ever fell by a floor.
fn falls(case: &Case<'_>, keyspace: &str) -> bool {
    let keyspace = case.model.keyspaces.get(keyspace);
    keyspace.is_some_and(|keyspace| {
        let mut options = keyspace.options.between(Offset::ZERO, Offset::MAX);
        options.any(|options| options.compaction == Compaction::Fifo)
    })
}

/// A commit, however often it was sent.
struct Sent<'a> {
    body: &'a [u8],
    begun: u64,
    ended: Option<u64>,
    hint: u64,
    told: Option<&'a Committed>,
}

/// Commits that happened or may have.
fn commits<'a>(case: &Case<'a>) -> Vec<Sent<'a>> {
    let mut sends: BTreeMap<&[u8], Vec<&Request>> = BTreeMap::new();
    for request in case.requests {
        if let Asked::Commit(body) = &request.asked {
            sends.entry(&body[..]).or_default().push(request);
        }
    }
    let mut places: BTreeMap<&[u8], Offset> = BTreeMap::new();
    for entry in case.chronicle.from(Offset::ZERO) {
        if matches!(case.model.verdicts.get(&entry.header.offset), Some(Verdict::Applied(_))) {
            places.entry(&entry.body[..]).or_insert(entry.header.offset);
        }
    }
    let one = |(body, sends): (&'a [u8], Vec<&'a Request>)| {
        let begun = sends.iter().map(|request| request.sent.0).min()?;
        let hint = places.get(body).map_or(u64::MAX, |at| 2 * at.0);
        let done = sends.iter().filter_map(|request| match request.reply() {
            Some(Reply::Committed(told)) => Some((request.answered.0, told)),
            _ => None,
        });
        if let Some((ended, told)) = done.min_by_key(|(ended, _)| *ended) {
            return Some(Sent { body, begun, ended: Some(ended), hint, told: Some(told) });
        }
        let refused =
            sends.iter().any(|request| matches!(request.reply(), Some(Reply::Refused(_))));
        let unknown = sends.iter().any(|request| may_have_happened(&request.answer));
        (unknown && !refused).then_some(Sent { body, begun, ended: None, hint, told: None })
    };
    sends.into_iter().filter_map(one).collect()
}

fn may_have_happened(answer: &Answer) -> bool {
    match answer {
        Answer::Reply(Reply::Error(Failure { outcome, .. })) => *outcome == Outcome::Unknown,
        Answer::Reply(_) => false,
        Answer::Waiting | Answer::Lost => true,
    }
}
