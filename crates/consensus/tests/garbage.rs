//! A peer that says whatever it likes: no message can panic a replica, whatever it is just doing.
//! (What such a peer says about itself is believed; a lie may cost a promise, never the process.)

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

#[expect(dead_code, reason = "other tests use the rest of it")]
#[path = "world/disk.rs"]
mod disk;

use disk::Disk;
use naust_consensus::{
    Change, Configuration, Entry, EntryKind, Message, MessageKind, Offered, Replica,
};
use naust_wire::{Index, NodeId, Term};
use proptest::prelude::*;

/// Small numbers, with now and then one at the end of them all.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![12 => 0u64..12, 1 => Just(u64::MAX), 1 => Just(u64::MAX / 2), 1 => any::<u64>()]
}

fn kind() -> impl Strategy<Value = EntryKind> {
    let configuration = |voters: Vec<u64>| {
        let mut configuration = Configuration::single(NodeId(1));
        for id in voters {
            configuration = configuration.after(Change::Voter(NodeId(id))).unwrap_or(configuration);
        }
        configuration.encode()
    };
    prop_oneof![
        4 => Just(EntryKind::Normal),
        1 => Just(EntryKind::Empty),
        1 => proptest::collection::vec(1u64..5, 0..3).prop_map(configuration)
            .prop_map(EntryKind::Configure),
        1 => proptest::collection::vec(any::<u8>(), 0..20).prop_map(EntryKind::Configure),
    ]
}

fn message() -> impl Strategy<Value = Message> {
    let entry = (number(), number(), kind()).prop_map(|(index, term, kind)| Entry {
        index: Index(index),
        term: Term(term),
        kind,
    });
    let fields = proptest::array::uniform9(number());
    let entries = proptest::collection::vec(entry, 0..4);
    (1u8..=13, fields, entries, any::<(bool, bool, bool)>()).prop_map(
        |(kind, fields, mut entries, (reject, in_order, members))| {
            let [from, to, term, log_term, index, commit, commit_term, hint, request] = fields;
            for (number, entry) in entries.iter_mut().enumerate().filter(|_| in_order) {
                entry.index = Index(index.wrapping_add(number as u64 + 1));
                entry.term = Term(term.min(log_term.wrapping_add(number as u64)));
            }
            let context = match members {
                true => Configuration::single(NodeId(1)).encode(),
                false => [1u64, 2, hint].map(u64::to_le_bytes).concat(),
            };
            Message {
                kind: MessageKind::from_number(kind).unwrap(),
                from: NodeId(from % 4),
                to: NodeId(if to % 4 == 3 { to } else { 1 }),
                term: Term(term),
                log_term: Term(log_term),
                index: Index(index),
                entries,
                commit: Index(commit),
                commit_term: Term(commit_term),
                reject,
                reject_hint: Index(hint),
                request_snapshot: Index(request * u64::from(in_order)),
                priority: hint as i64,
                context,
            }
        },
    )
}

/// A replica with its disk, which does all that it is asked for.
struct Node {
    replica: Replica,
    disk: Disk,
    offered: Option<Offered>,
}

impl Node {
    fn settle(&mut self, writes: bool) {
        while let Some(ready) = self.replica.ready() {
            self.offered = ready.offered.clone().or(self.offered.take());
            if ready.number != 0 {
                self.disk.write(&ready);
                self.replica.persisted(ready.number);
            }
            if let Some(committed) = ready.committed.filter(|_| writes) {
                self.disk.applied = committed;
                self.replica.applied(committed);
            }
        }
        if let Some(Offered { snapshot, .. }) = self.offered.take_if(|_| writes)
            && self.replica.begin_install(&snapshot)
        {
            self.disk.flip(&snapshot);
            self.replica.install(&snapshot);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, ..ProptestConfig::default() })]

    #[test]
    fn no_message_ends_the_process(
        voters in 1u64..4,
        steps in proptest::collection::vec((0u8..12, message()), 0..40),
    ) {
        let mut configuration = Configuration::single(NodeId(1));
        for id in 2..=voters {
            configuration = configuration.after(Change::Voter(NodeId(id))).unwrap();
        }
        let disk = Disk::new(&configuration);
        let replica = Replica::new(&disk.start(1, 7)).unwrap();
        let mut node = Node { replica, disk, offered: None };
        for (step, message) in steps {
            match step {
                0 => node.replica.campaign(),
                1 => (0..20).for_each(|_| { node.replica.tick(); }),
                2 => drop(node.replica.propose(2)),
                3 => drop(node.replica.read(message.index.0)),
                4 => drop(node.replica.propose_changes(&[Change::Voter(NodeId(2 + voters % 3))])),
                5 => node.replica.leader_gone(message.from),
                6 => node.replica.transfer(message.from),
                _ => {}
            }
            let answers_a_candidate = matches!(
                message.kind,
                MessageKind::VoteAnswer | MessageKind::PreVoteAnswer | MessageKind::AppendAnswer
            );
            let mut message = message;
            if answers_a_candidate && step % 2 == 0 {
                // As if it was meant: so that there are leaders among them.
                let ahead = u64::from(message.kind == MessageKind::PreVoteAnswer);
                message.term = Term(node.replica.term().0 + ahead);
            }
            node.replica.step(message);
            node.settle(step != 11);
        }
    }
}
