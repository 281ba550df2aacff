//! What clients asked and were told, in real time: the history that the checkers of the simulator
//! judge, and how long nothing was committed.

use naust_sim::history::{Answer, Asked, History, Request, Violation};
use naust_sim::schedule::Moment;
use naust_sim::workload::client::{Client, Outgoing};
use naust_wire::packet::{self, Kind};
use naust_wire::read::{Level, Read};
use naust_wire::reply::Reply;
use naust_wire::{Offset, RequestId, ShardId};
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Shared by all clients of a round.
pub struct Record {
    start: Instant,
    state: Mutex<Told>,
}

/// What is known.
#[derive(Default)]
pub struct Told {
    /// Everything that was asked.
    pub history: History,
    /// The latest offset of each shard that anyone was told of as committed.
    pub frontiers: BTreeMap<ShardId, Offset>,
    /// What must not be.
    pub violations: Vec<Violation>,
    /// Commits that were acknowledged as new.
    pub commits: u64,
    /// The longest time without one, and what was going on when it ended.
    pub longest: (Duration, String),
    /// What is going on.
    pub now: String,
    lines: u64,
    last_commit: Option<Instant>,
}

impl Record {
    /// Nothing yet; time begins.
    pub fn new() -> Record {
        Record { start: Instant::now(), state: Mutex::default() }
    }

    /// The present moment.
    pub fn now(&self) -> Moment {
        Moment(self.start.elapsed().as_micros() as u64)
    }

    /// What is known, to be looked at or added to.
    pub fn told(&self) -> MutexGuard<'_, Told> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection is made; its number.
    pub fn line(&self) -> u64 {
        let mut told = self.told();
        told.lines += 1;
        told.lines
    }

    /// A client is about to send this.
    pub fn sends(&self, client: (usize, &mut Client), outgoing: &Outgoing, line: u64, here: bool) {
        let (number, client) = client;
        let sent = self.now();
        let mut told = self.told();
        client.sent(outgoing, told.history.requests.len());
        let frontier = told.frontiers.get(&outgoing.shard).copied().unwrap_or(Offset::ZERO);
        told.history.requests.push(Request {
            client: number,
            shard: outgoing.shard,
            asked: outgoing.asked.clone(),
            line,
            here,
            sent,
            frontier,
            answer: Answer::Waiting,
            answered: sent,
            // What was committed when an answer came can't be known from outside.
            ceiling: Offset::MAX,
            answers: 0,
        });
    }

    /// A client was sent these whole packets; whether it is told to be patient.
    pub fn hears(&self, client: (usize, &mut Client), mut bytes: &[u8]) -> bool {
        let (number, client) = client;
        let now = self.now();
        let mut told = self.told();
        let mut too_early = false;
        while !bytes.is_empty() {
            match packet::read(bytes) {
                Ok(Some((packet, length))) => {
                    bytes = &bytes[length..];
                    match (packet.kind, Reply::decode(packet.body)) {
                        (Kind::Reply, Ok(reply)) => {
                            too_early |= matches!(reply, Reply::Error(_));
                            told.hears((number, client), packet.request, reply, now);
                        }
                        (kind, reply) => {
                            let what = format!("client {number} was sent a {kind:?}: {reply:?}");
                            told.violations.push(Violation::new("packets", what));
                        }
                    }
                }
                bad => {
                    let what = format!("client {number} was sent no packet: {bad:?}");
                    told.violations.push(Violation::new("packets", what));
                    break;
                }
            }
        }
        too_early
    }

    /// A client's connection is gone.
    pub fn loses(&self, client: &mut Client) {
        let now = self.now();
        let mut told = self.told();
        for number in client.lost() {
            let request = &mut told.history.requests[number];
            request.answer = Answer::Lost;
            request.answered = now;
        }
    }
}

impl Told {
    fn hears(
        &mut self,
        (seat, client): (usize, &mut Client),
        request: RequestId,
        reply: Reply,
        now: Moment,
    ) {
        let Some(number) = client.heard(request, &reply, &self.history) else {
            let what = format!("client {seat} waits for no request {}: {reply:?}", request.0);
            self.violations.push(Violation::new("replies", what));
            return;
        };
        if let Reply::Committed(committed) = &reply
            && !committed.duplicate
        {
            self.note_commit();
        }
        let request = &mut self.history.requests[number];
        request.answered = now;
        request.answers += 1;
        let fresh = match (&request.asked, &reply) {
            (
                Asked::Read(Read { level: Level::Linearizable, .. }),
                Reply::Row { at, .. } | Reply::Rows { at, .. },
            ) => Some(*at),
            (Asked::Commit(_), Reply::Committed(committed)) => Some(committed.offset),
            (Asked::Commit(_), Reply::Refused(refused)) => Some(refused.at),
            (Asked::Control(_), Reply::Done(offset)) => Some(*offset),
            _ => None,
        };
        if let Some(at) = fresh {
            let frontier = self.frontiers.entry(request.shard).or_default();
            *frontier = at.max(*frontier);
        }
        request.answer = Answer::Reply(reply);
    }

    fn note_commit(&mut self) {
        self.commits += 1;
        let now = Instant::now();
        if let Some(last) = self.last_commit.replace(now)
            && now - last > self.longest.0
        {
            self.longest = (now - last, self.now.clone());
        }
    }

    /// Nobody commits for a while: that is not to be counted.
    pub fn rests(&mut self) {
        self.last_commit = None;
    }
}
