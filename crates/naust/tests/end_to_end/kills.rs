//! SIGKILL under load, again and again: what was acknowledged is there, once, whole.

use crate::ledger::{Found, Ledger, OPTIONS, commit, draft};
use crate::support::{Draw, Node, block_on, connect, send_signal, wait_until};
use crate::wire_client::Wire;
use naust_client::{Namespace, Submitted};
use naust_wire::packet::Kind;
use naust_wire::reply::{Committed, Reply};
use naust_wire::{Sequence, SessionId};
use rustix::process::Signal;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

const KILLS: u64 = 20;
/// Commits under way at the moment of a kill.
const IN_FLIGHT: usize = 128;

/// Why: the client's promise. It sends again what it has no reply for, so every commit succeeds,
/// and the session sees to it that none is applied twice.
#[test]
fn twenty_kills_behind_a_client_that_retries() {
    let mut node = Node::start(&OPTIONS);
    let acknowledged = Arc::new(AtomicU64::new(0));
    let ended = Arc::new(AtomicBool::new(false));
    let load = std::thread::spawn({
        let (address, acknowledged, ended) =
            (node.address(), Arc::clone(&acknowledged), Arc::clone(&ended));
        move || {
            block_on(async {
                let client = connect(&address).await;
                let other = connect(&address).await;
                let (one, two) = (client.namespace("default"), other.namespace("default"));
                let first = drive(&one, 0, &acknowledged, &ended);
                let second = drive(&two, 1, &acknowledged, &ended);
                let (mut first, second) = tokio::join!(first, second);
                first.acknowledged.extend(second.acknowledged);
                first
            })
        }
    });
    let mut draw = Draw::new(1);
    let mut threshold = 0;
    for _ in 0..KILLS {
        threshold = acknowledged.load(Ordering::Relaxed).max(threshold) + 1 + draw.below(400);
        wait_until("acknowledged commits", || {
            acknowledged.load(Ordering::Relaxed) >= threshold || load.is_finished()
        });
        assert!(!load.is_finished(), "the load failed: {:?}", load.join().map(|_| ()));
        node.kill_and_restart();
    }
    ended.store(true, Ordering::Relaxed);
    let ledger = load.join().unwrap();
    assert_eq!(ledger.acknowledged.len() as u64, acknowledged.load(Ordering::Relaxed));
    ledger.check(&block_on(Found::read(&node.address())).unwrap());
    // And once more from the disk alone.
    node.kill_and_restart();
    ledger.check(&block_on(Found::read(&node.address())).unwrap());
}

/// Commits the numbers of one remainder modulo two until told to end; none may fail.
pub async fn drive(
    namespace: &Namespace,
    first: u64,
    acknowledged: &AtomicU64,
    ended: &AtomicBool,
) -> Ledger {
    let mut ledger = Ledger::default();
    let mut pending: VecDeque<(u64, Submitted)> = VecDeque::new();
    let mut number = first;
    loop {
        while pending.len() < IN_FLIGHT && !ended.load(Ordering::Relaxed) {
            pending.push_back((number, namespace.submit(commit(number))));
            number += 2;
        }
        let Some((number, submitted)) = pending.pop_front() else { return ledger };
        let committed = submitted.await.unwrap_or_else(|error| panic!("{number}: {error:?}"));
        ledger.acknowledge(number, &committed);
        acknowledged.fetch_add(1, Ordering::Relaxed);
    }
}

/// How a life's commits are numbered, and what is done with those that are in doubt.
#[derive(Clone, Copy, PartialEq)]
enum Numbering {
    /// Without a session, and never sent again.
    None,
    /// In a session, and sent again after the restart.
    Session,
}

/// Why: what a client without retries sees. What is in doubt is there once or not at all, and since
/// one connection keeps its order, what is there of it is its beginning.
#[test]
fn twenty_kills_seen_by_raw_packets() {
    let mut node = Node::start(&OPTIONS);
    let mut ledger = Ledger::default();
    let mut draw = Draw::new(2);
    let mut next = 0;
    for life in 0..KILLS {
        let numbering = if life % 3 == 2 { Numbering::Session } else { Numbering::None };
        let mut life = Life::begin(&node, numbering, next);
        life.run(&node, &mut ledger, 20 + draw.below(400));
        node.kill_and_restart();
        next = life.next;
        let found = block_on(Found::read(&node.address())).unwrap();
        ledger.check(&found);
        life.check_order(&ledger, &found);
        if numbering == Numbering::Session {
            life.send_again(&node, &mut ledger, &found);
        }
    }
    ledger.check(&block_on(Found::read(&node.address())).unwrap());
}

/// One connection, from its beginning to the kill.
struct Life {
    wire: Wire,
    session: SessionId,
    first: u64,
    next: u64,
    /// Sent, with no reply yet, in order.
    pending: VecDeque<u64>,
}

impl Life {
    fn begin(node: &Node, numbering: Numbering, first: u64) -> Life {
        let mut wire = Wire::enter(&node.address(), "default");
        let session = match numbering {
            Numbering::None => SessionId::NONE,
            Numbering::Session => wire.open_session(),
        };
        Life { wire, session, first, next: first, pending: VecDeque::new() }
    }

    /// Commits as fast as it can, until another thread has killed the node.
    fn run(&mut self, node: &Node, ledger: &mut Ledger, threshold: u64) {
        let replies = Arc::new(AtomicU64::new(0));
        let killer = std::thread::spawn({
            let (process, replies) = (node.process.id(), Arc::clone(&replies));
            move || {
                wait_until("replies", || replies.load(Ordering::Relaxed) >= threshold);
                send_signal(process, Signal::KILL);
            }
        });
        let mut alive = true;
        loop {
            while alive && self.pending.len() < IN_FLIGHT {
                let body = self.body(self.next, self.pending.front().copied());
                alive = self.wire.send(Kind::Commit, self.next, &body).is_ok();
                self.pending.push_back(self.next);
                ledger.unknown.insert(self.next);
                self.next += 1;
            }
            // Replies that were sent before the kill are still read.
            let Ok(Some((number, reply))) = self.wire.receive() else { break };
            let Reply::Committed(committed) = reply else { panic!("{number}: {reply:?}") };
            assert_eq!(self.pending.pop_front(), Some(number), "replies keep the order");
            ledger.acknowledge(number, &committed);
            replies.fetch_add(1, Ordering::Relaxed);
        }
        killer.join().unwrap();
    }

    fn body(&self, number: u64, oldest: Option<u64>) -> Vec<u8> {
        let mut body = Vec::new();
        let sequence = |number: u64| Sequence(number - self.first + 1);
        let (own, below) = match self.session {
            SessionId::NONE => (Sequence(0), Sequence(0)),
            _ => (sequence(number), sequence(oldest.unwrap_or(number))),
        };
        draft(number).encode(self.session, own, below, &mut body).unwrap();
        body
    }

    /// What is there of those in doubt is a beginning of what was sent.
    fn check_order(&self, ledger: &Ledger, found: &Found) {
        let there = |number: &u64| found.rows.contains_key(number);
        let count = self.pending.iter().take_while(|number| there(number)).count();
        assert!(!self.pending.iter().skip(count).any(there), "a later commit without an earlier");
        let numbers: Vec<u64> = found.events.iter().map(|(number, _)| *number).collect();
        assert!(numbers.is_sorted(), "one connection after the other, each in its order");
        let highest = ledger.acknowledged.keys().next_back().copied().unwrap_or_default();
        assert!(numbers.last().is_some_and(|last| *last >= highest));
    }

    /// Sends again what is in doubt, under the same numbers: what was there is answered again with
    /// what it did, the rest is done now.
    fn send_again(&mut self, node: &Node, ledger: &mut Ledger, found: &Found) {
        self.wire = Wire::enter(&node.address(), "default");
        let ids: BTreeMap<u64, _> = found.events.iter().copied().collect();
        for number in std::mem::take(&mut self.pending) {
            let body = self.body(number, Some(number));
            let reply = self.wire.ask(Kind::Commit, self.wire.shard, &body);
            let Reply::Committed(committed) = reply else { panic!("{number}: {reply:?}") };
            let Committed { duplicate, offset, .. } = committed;
            assert_eq!(duplicate, found.rows.contains_key(&number), "{number}");
            if duplicate {
                assert_eq!(
                    (offset, committed.ids[0]),
                    (found.rows[&number], ids[&number]),
                    "{number}"
                );
            }
            ledger.acknowledge(number, &committed);
        }
    }
}
