//! Commits with conditions are serializable, in an order that fits their times: who read what whom
//! wrote, who wrote over whom, and who had ended before whom began never lead in a circle.
//!
//! The graph is made of what clients were told, and not of the log: versions tell the order of the
//! writes of one row, everything else follows from them. (Adya, "Weak Consistency", 1999.) A row
//! that a commit found absent tells nothing, since rows also go by deletes of whole ranges and by
//! age.

use super::Case;
use crate::history::{Asked, Request, Violation};
use naust_wire::Offset;
use naust_wire::commit::{Commit, Condition, Op};
use naust_wire::message::Message;
use naust_wire::read::{Level, Query, Read};
use naust_wire::reply::Reply;
use std::collections::{BTreeMap, BTreeSet};

/// Its name in reports.
pub const NAME: &str = "transactions";

type Row = (String, Vec<u8>);

/// A commit that was acknowledged, or a linearizable read.
struct Transaction {
    /// Where it stands; `None`: it wrote nothing.
    at: Option<Offset>,
    sent: u64,
    ended: u64,
    /// Rows that it found at these versions.
    reads: Vec<(Row, Offset)>,
    writes: BTreeSet<Row>,
}

/// See the module.
pub fn check(case: &Case<'_>, violations: &mut Vec<Violation>) {
    let transactions = transactions(case);
    let graph = Graph::of(&transactions);
    let Some(stuck) = graph.circle() else { return };
    let places: Vec<String> = stuck
        .iter()
        .filter_map(|number| transactions.get(*number))
        .take(8)
        .map(|t| t.at.map_or("a read".to_owned(), |at| at.to_string()))
        .collect();
    let (shard, count) = (case.shard, stuck.len());
    let what = format!("shard {shard}: {count} transactions have no order, among them {places:?}");
    violations.push(Violation::new(NAME, what));
}

fn transactions(case: &Case<'_>) -> Vec<Transaction> {
    // What was sent again may have been done when it was sent first.
    let mut first_sent: BTreeMap<&[u8], u64> = BTreeMap::new();
    for request in case.requests {
        if let Asked::Commit(body) = &request.asked {
            first_sent.entry(&body[..]).or_insert(request.sent.0);
        }
    }
    let mut commits: BTreeMap<Offset, Transaction> = BTreeMap::new();
    let mut reads = Vec::new();
    for request in case.requests {
        match (&request.asked, request.reply()) {
            (Asked::Commit(body), Some(Reply::Committed(committed))) => {
                let at = committed.offset;
                let known = commits.entry(at).or_insert_with(|| commit(at, body));
                known.sent = first_sent.get(&body[..]).copied().unwrap_or(0);
                known.ended = known.ended.min(request.answered.0);
            }
            (Asked::Read(read), Some(Reply::Row { row: Some((version, _)), .. })) => {
                reads.extend(row(read, *version, request));
            }
            _ => {}
        }
    }
    commits.into_values().chain(reads).collect()
}

fn commit(at: Offset, body: &[u8]) -> Transaction {
    let (sent, ended) = (0, u64::MAX);
    let (reads, writes) = (Vec::new(), BTreeSet::new());
    let mut known = Transaction { at: Some(at), sent, ended, reads, writes };
    let Ok(message) = Message::new(body) else { return known };
    let Ok(commit) = Commit::read(&message) else { return known };
    let row = |space: u16, key: &[u8]| Some((commit.name(space).ok()?.to_owned(), key.to_vec()));
    for condition in commit.conditions().flatten() {
        if let Condition::Version { space, key, offset } = condition
            && offset > Offset::ZERO
        {
            known.reads.extend(row(space, key).map(|row| (row, offset)));
        }
    }
    for op in commit.ops().flatten() {
        if let Op::Put { space, key, .. } | Op::Delete { space, key } = op {
            known.writes.extend(row(space, key));
        }
    }
    known
}

fn row(read: &Read, version: Offset, request: &Request) -> Option<Transaction> {
    let Query::Get { keyspace, key } = &read.query else { return None };
    (read.level == Level::Linearizable).then(|| Transaction {
        at: None,
        sent: request.sent.0,
        ended: request.answered.0,
        reads: vec![((keyspace.clone(), key.clone()), version)],
        writes: BTreeSet::new(),
    })
}

/// Who comes before whom. Behind the transactions stand as many moments: the ends of the
/// transactions, in the order of time.
struct Graph {
    after: Vec<Vec<usize>>,
}

impl Graph {
    fn of(transactions: &[Transaction]) -> Graph {
        let count = transactions.len();
        let mut graph = Graph { after: vec![Vec::new(); 2 * count] };
        graph.times(transactions);
        let mut writers: BTreeMap<&Row, BTreeMap<Offset, usize>> = BTreeMap::new();
        for (number, transaction) in transactions.iter().enumerate() {
            let Some(at) = transaction.at else { continue };
            for row in &transaction.writes {
                writers.entry(row).or_default().insert(at, number);
            }
        }
        for of_row in writers.values() {
            for (one, next) in of_row.values().zip(of_row.values().skip(1)) {
                graph.after[*one].push(*next);
            }
        }
        for (number, transaction) in transactions.iter().enumerate() {
            for (row, version) in &transaction.reads {
                let Some(of_row) = writers.get(row) else { continue };
                if let Some(writer) = of_row.get(version).filter(|writer| **writer != number) {
                    graph.after[*writer].push(number);
                }
                let mut later = of_row.range(version.plus(1)..).map(|(_, writer)| *writer);
                if let Some(next) = later.next().filter(|next| *next != number) {
                    graph.after[number].push(next);
                }
            }
        }
        graph
    }

    /// Whoever had ended before another began comes first.
    fn times(&mut self, transactions: &[Transaction]) {
        let count = transactions.len();
        let mut ends: Vec<(u64, usize)> =
            transactions.iter().enumerate().map(|(number, t)| (t.ended, number)).collect();
        ends.sort_unstable();
        for (place, (_, number)) in ends.iter().enumerate() {
            self.after[*number].push(count + place);
            if place + 1 < count {
                self.after[count + place].push(count + place + 1);
            }
        }
        for (number, transaction) in transactions.iter().enumerate() {
            let before = ends.partition_point(|(ended, _)| *ended < transaction.sent);
            if let Some(place) = before.checked_sub(1) {
                self.after[count + place].push(number);
            }
        }
    }

    /// Those that are part of a circle, or come after one.
    fn circle(&self) -> Option<Vec<usize>> {
        let mut before = vec![0usize; self.after.len()];
        self.after.iter().flatten().for_each(|next| before[*next] += 1);
        let mut free: Vec<usize> = (0..before.len()).filter(|at| before[*at] == 0).collect();
        while let Some(at) = free.pop() {
            for next in &self.after[at] {
                before[*next] -= 1;
                if before[*next] == 0 {
                    free.push(*next);
                }
            }
        }
        let stuck: Vec<usize> = (0..before.len()).filter(|at| before[*at] > 0).collect();
        (!stuck.is_empty()).then_some(stuck)
    }
}
