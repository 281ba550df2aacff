//! What was acknowledged, and the proof that it is there: the same for every story that kills.
//!
//! Commit number N puts the row N, appends the event N and overwrites one row that all commits
//! share. So a commit that is half there, twice there or out of order shows.

use crate::support::{SMALL_TABLES, connect};
use naust_client::{Commit, Level, Offset, ReadOptions};
use naust_wire::commit::Draft;
use naust_wire::reply::Committed;
use std::collections::{BTreeMap, BTreeSet};

pub const ROWS: &str = "rows";
pub const EVENTS: &str = "events";
pub const STATE: &str = "state";
/// Options of nodes that are to be killed: tables so small that kills hit flushes too.
pub const OPTIONS: [&str; 2] = SMALL_TABLES;

/// What the outside world knows.
#[derive(Default, Clone)]
pub struct Ledger {
    /// Acknowledged: the commit's offset and its event's id.
    pub acknowledged: BTreeMap<u64, (Offset, Offset)>,
    /// Sent, and nothing heard.
    pub unknown: BTreeSet<u64>,
}

/// What a node has.
#[derive(Debug, PartialEq, Eq)]
pub struct Found {
    /// Version of each row.
    pub rows: BTreeMap<u64, Offset>,
    /// Number and id of each event, in their order.
    pub events: Vec<(u64, Offset)>,
    /// The row that all commits overwrite: the number in it, and its version.
    pub last: Option<(u64, Offset)>,
}

pub fn key(number: u64) -> String {
    format!("{number:010}")
}

/// Differs in length and bytes from commit to commit.
pub fn value(number: u64) -> Vec<u8> {
    let length = 300 + number as usize * 37 % 1500;
    (0..length).map(|at| (number as usize * 31 + at * at) as u8).collect()
}

fn event(number: u64) -> Vec<u8> {
    format!("event {number}").into_bytes()
}

pub fn draft(number: u64) -> Draft<'static> {
    commit(number).into_draft().unwrap()
}

pub fn commit(number: u64) -> Commit<'static> {
    Commit::new().put(ROWS, key(number), value(number)).append(EVENTS, event(number)).put(
        STATE,
        "last",
        key(number),
    )
}

impl Ledger {
    pub fn acknowledge(&mut self, number: u64, committed: &Committed) {
        assert_eq!(committed.ids.len(), 1, "{committed:?}");
        let entry = (committed.offset, committed.ids[0]);
        assert!(self.acknowledged.insert(number, entry).is_none(), "{number} twice");
        self.unknown.remove(&number);
    }

    /// Every acknowledged commit is there once, as acknowledged; the unknown ones once or not at
    /// all; no other.
    pub fn check(&self, found: &Found) {
        found.check();
        let present: BTreeMap<u64, Offset> = found.events.iter().copied().collect();
        for (number, (offset, id)) in &self.acknowledged {
            assert_eq!(found.rows.get(number), Some(offset), "the row of {number}");
            assert_eq!(present.get(number), Some(id), "the event of {number}");
        }
        for number in present.keys() {
            let known = self.acknowledged.contains_key(number) || self.unknown.contains(number);
            assert!(known, "{number} was never sent, or was refused");
        }
    }
}

impl Found {
    /// Reads everything back.
    ///
    /// # Errors
    /// The first error of the node.
    pub async fn read(address: &str) -> Result<Found, naust_client::Error> {
        Found::read_at(address, Level::Linearizable).await
    }

    /// The same, as fresh as the level says.
    ///
    /// # Errors
    /// The first error of the node.
    pub async fn read_at(address: &str, level: Level) -> Result<Found, naust_client::Error> {
        Found::read_in(address, "default", level).await
    }

    /// The same, of another namespace.
    ///
    /// # Errors
    /// The first error of the node.
    pub async fn read_in(
        address: &str,
        namespace: &str,
        level: Level,
    ) -> Result<Found, naust_client::Error> {
        let client = connect(address).await;
        let namespace = client.namespace(namespace);
        let mut found = Found { rows: BTreeMap::new(), events: Vec::new(), last: None };
        let mut rows = namespace.kv(ROWS).range::<&[u8]>(..).level(level);
        while let Some(page) = rows.next_page().await? {
            for row in page.entries {
                let number = std::str::from_utf8(&row.key).unwrap().parse().unwrap();
                assert_eq!(row.value, value(number), "the value of row {number}");
                assert!(found.rows.insert(number, row.offset).is_none(), "{number} twice");
            }
        }
        let stream = namespace.stream(EVENTS);
        let mut from = Offset::ZERO;
        loop {
            let page = stream.read(from, ReadOptions { level, ..ReadOptions::default() }).await?;
            let Some(last) = page.records.last() else { break };
            assert!(page.next > last.offset, "a page that goes back");
            for record in &page.records {
                let text = std::str::from_utf8(&record.value).unwrap();
                let number = text.strip_prefix("event ").unwrap().parse().unwrap();
                found.events.push((number, record.offset));
            }
            from = page.next;
        }
        let last = namespace.kv(STATE).get_at("last", level).await?;
        found.last = last
            .row
            .map(|row| (std::str::from_utf8(&row.value).unwrap().parse().unwrap(), row.version));
        Ok(found)
    }

    /// Nothing is half there: every row has its event, once, from its own commit, and the shared
    /// row is of the newest one.
    pub fn check(&self) {
        assert_eq!(self.rows.len(), self.events.len(), "rows and events");
        let mut before = Offset::ZERO;
        for (number, id) in &self.events {
            assert!(*id > before, "the event {number} stands out of order");
            before = *id;
            let version = self.rows.get(number).unwrap_or_else(|| panic!("no row for {number}"));
            let inside = version < id && id.0 - version.0 < 4096;
            assert!(inside, "row and event of {number} are of different commits");
        }
        let newest = self.events.last().map(|(number, _)| (*number, self.rows[number]));
        assert_eq!(self.last, newest, "the row that all commits overwrite");
    }
}
