//! Commits through everything that can go wrong between a client and its server, in random order:
//! lost and late packets, connections that end, refusals, sessions that expire, futures that are
//! dropped. Whatever a commit was told must be true: done means once, not done means never, unknown
//! means at most once.

#![allow(clippy::unwrap_used)]

#[allow(dead_code, clippy::unwrap_used)]
mod fake;

use fake::{Fault, World};
use naust_client::{Code, Commit, Error, Options, Outcome, Submitted};
use naust_wire::reply::Failure;
use proptest::collection::vec;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::task::Poll;

#[derive(Clone, Debug)]
enum Step {
    /// Submits a commit.
    Submit,
    /// Drops one that is under way.
    Drop(prop::sample::Index),
    /// Polls all.
    Poll,
    /// The server gets what the client has sent, and is in this mood meanwhile.
    Serve(Vec<Mood>),
    /// The client gets the oldest run of replies.
    Reply,
    /// The connection ends. What was on its way to the server may still arrive, later.
    Reconnect,
    /// What was on its way when connections ended arrives.
    Late,
    /// Time passes.
    Tick(u64),
    /// The server forgets all sessions.
    Expire,
}

#[derive(Clone, Copy, Debug)]
enum Mood {
    Good,
    LoseReply,
    LoseRequest,
    Overloaded,
    Interrupted,
}

fn step() -> impl Strategy<Value = Step> {
    let mood = prop_oneof![
        12 => Just(Mood::Good),
        1 => Just(Mood::LoseReply),
        1 => Just(Mood::LoseRequest),
        1 => Just(Mood::Overloaded),
        1 => Just(Mood::Interrupted),
    ];
    prop_oneof![
        12 => Just(Step::Submit),
        1 => any::<prop::sample::Index>().prop_map(Step::Drop),
        8 => Just(Step::Poll),
        6 => vec(mood, 0..8).prop_map(Step::Serve),
        8 => Just(Step::Reply),
        1 => Just(Step::Reconnect),
        1 => Just(Step::Late),
        4 => (1..3_000_u64).prop_map(Step::Tick),
        1 => Just(Step::Expire),
    ]
}

struct Chaos {
    world: World,
    open: BTreeMap<u32, Submitted>,
    told: BTreeMap<u32, Result<(), Error>>,
    next: u32,
    replies: std::collections::VecDeque<Vec<u8>>,
    late: Vec<Vec<u8>>,
}

impl Chaos {
    fn take(&mut self, step: Step) {
        match step {
            Step::Submit => {
                let record = self.next.to_le_bytes();
                let namespace = self.world.client.namespace("default");
                let commit = namespace.submit(Commit::new().append("orders", record));
                self.open.insert(self.next, commit);
                self.next += 1;
            }
            Step::Drop(index) if !self.open.is_empty() => {
                let id = *self.open.keys().nth(index.index(self.open.len())).unwrap();
                self.open.remove(&id);
            }
            Step::Drop(_) => {}
            Step::Poll => self.poll(),
            Step::Serve(moods) => self.serve(&moods),
            Step::Reply => {
                if let Some(bytes) = self.replies.pop_front() {
                    self.world.link.deliver(bytes).unwrap();
                }
            }
            Step::Reconnect => {
                let mut bytes = Vec::new();
                if self.world.link.take(&mut bytes) {
                    self.late.push(bytes);
                }
                self.replies.clear();
                self.world.reconnect();
            }
            Step::Late => {
                for bytes in std::mem::take(&mut self.late) {
                    self.world.fake.handle(&bytes);
                }
            }
            Step::Tick(ms) => self.world.tick(ms),
            Step::Expire => self.world.fake.shard().sessions.clear(),
        }
    }

    fn poll(&mut self) {
        let (world, told) = (&self.world, &mut self.told);
        self.open.retain(|id, commit| match world.poll(commit) {
            Poll::Pending => true,
            Poll::Ready(result) => {
                told.insert(*id, result.map(|_| ()));
                false
            }
        });
    }

    fn serve(&mut self, moods: &[Mood]) {
        self.world.fake.faults = moods
            .iter()
            .map(|mood| match mood {
                Mood::Good => Fault::None,
                Mood::LoseReply => Fault::LoseReply,
                Mood::LoseRequest => Fault::LoseRequest,
                Mood::Overloaded => Fault::Refuse(Failure::new(Code::Overloaded, "a test")),
                Mood::Interrupted => Fault::Refuse(Failure::new(Code::Interrupted, "a test")),
            })
            .collect();
        let mut bytes = Vec::new();
        if self.world.link.take(&mut bytes) {
            let replies = self.world.fake.handle(&bytes);
            self.replies.push_back(replies);
        }
        self.world.fake.faults.clear();
    }

    /// All is well from now on: everything ends.
    fn heal(&mut self) {
        self.take(Step::Late);
        for _ in 0..100 {
            self.serve(&[]);
            while !self.replies.is_empty() {
                self.take(Step::Reply);
            }
            self.poll();
            self.world.tick(1_000);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 400,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn what_a_commit_was_told_is_true(steps in vec(step(), 1..300)) {
        let world = World::new(Options { timeout_ms: 20_000, ..Options::default() });
        let mut chaos = Chaos {
            world,
            open: BTreeMap::new(),
            told: BTreeMap::new(),
            next: 0,
            replies: Default::default(),
            late: Vec::new(),
        };
        for step in steps {
            chaos.take(step);
        }
        chaos.heal();
        prop_assert!(chaos.open.is_empty(), "{} never ended", chaos.open.len());
        let mut times: BTreeMap<u32, u32> = BTreeMap::new();
        for value in chaos.world.fake.shard().values("orders") {
            *times.entry(u32::from_le_bytes(value.try_into().unwrap())).or_default() += 1;
        }
        for id in 0..chaos.next {
            let times = times.get(&id).copied().unwrap_or_default();
            match chaos.told.get(&id) {
                Some(Ok(())) => prop_assert_eq!(times, 1, "commit {} was told done", id),
                Some(Err(error)) if error.outcome == Outcome::NotDone => {
                    prop_assert_eq!(times, 0, "commit {} was told not done: {}", id, error);
                }
                _ => prop_assert!(times <= 1, "commit {id} happened {times} times"),
            }
        }
        prop_assert!(!chaos.world.link.is_busy());
        let namespace = chaos.world.client.namespace("default");
        chaos.world.run(namespace.commit(|c| c.append("orders", u32::MAX.to_le_bytes()))).unwrap();
        let last = chaos.world.fake.seen.last().unwrap();
        prop_assert_eq!(last.sequence, last.acked_below, "a sequence was left open");
    }
}
