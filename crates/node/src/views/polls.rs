//! Readers of streams that wait for a first record.

use super::Query;
use crate::ConnectionId;
use naust_machine::StreamId;
use naust_wire::ShardId;
use std::collections::BTreeMap;

/// All readers that wait, of all shards of a views thread. How many there are is bounded by
/// what a node has under way.
#[derive(Default)]
pub(super) struct Polls {
    /// By where they wait and in which order they came.
    waiting: BTreeMap<(ShardId, StreamId, u64), Query>,
    /// By when they give up.
    deadlines: BTreeMap<(u64, u64), (ShardId, StreamId)>,
    number: u64,
}

impl Polls {
    pub(super) fn add(&mut self, shard: ShardId, stream: StreamId, query: Query) {
        self.number += 1;
        self.deadlines.insert((query.deadline_ms, self.number), (shard, stream));
        self.waiting.insert((shard, stream, self.number), query);
    }

    /// A stream grew: those who wait for it, and whom `is_taken` takes.
    pub(super) fn wake(
        &mut self,
        shard: ShardId,
        stream: StreamId,
        mut is_taken: impl FnMut(&Query) -> bool,
    ) -> Vec<Query> {
        let range = (shard, stream, 0)..=(shard, stream, u64::MAX);
        self.take(|waiting| waiting.extract_if(range, |_, query| is_taken(query)).collect())
    }

    /// A shard is gone or its readers are to be answered: all of them.
    pub(super) fn take_shard(&mut self, shard: ShardId) -> Vec<Query> {
        let range = (shard, StreamId(0), 0)..=(shard, StreamId(u32::MAX), u64::MAX);
        self.take(|waiting| waiting.extract_if(range, |_, _| true).collect())
    }

    /// A connection is gone; how many readers it had.
    pub(super) fn forget(&mut self, gone: ConnectionId) -> usize {
        let forgotten = self.take(|waiting| {
            waiting.extract_if(.., |_, query| query.waiter.connection == gone).collect()
        });
        forgotten.len()
    }

    /// Those whose patience has ended.
    pub(super) fn expired(&mut self, now_ms: u64) -> Vec<(ShardId, Query)> {
        let mut expired = Vec::new();
        while let Some(first) = self.deadlines.first_entry()
            && first.key().0 <= now_ms
        {
            let ((_, number), (shard, stream)) = first.remove_entry();
            let query = self.waiting.remove(&(shard, stream, number));
            expired.extend(query.map(|query| (shard, query)));
        }
        expired
    }

    fn take(
        &mut self,
        take: impl FnOnce(
            &mut BTreeMap<(ShardId, StreamId, u64), Query>,
        ) -> Vec<((ShardId, StreamId, u64), Query)>,
    ) -> Vec<Query> {
        if self.waiting.is_empty() {
            return Vec::new();
        }
        let taken = take(&mut self.waiting);
        let forget = |((_, _, number), query): ((ShardId, StreamId, u64), Query)| {
            self.deadlines.remove(&(query.deadline_ms, number));
            query
        };
        taken.into_iter().map(forget).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::views::Waiter;
    use naust_wire::RequestId;
    use naust_wire::read::Query as Question;

    fn query(request: u64, deadline_ms: u64) -> Query {
        let waiter = Waiter { connection: ConnectionId(request % 2), request: RequestId(request) };
        Query { waiter, question: Question::Describe { from: None, limit: 0 }, deadline_ms }
    }

    fn requests(queries: Vec<Query>) -> Vec<u64> {
        queries.into_iter().map(|query| query.waiter.request.0).collect()
    }

    #[test]
    fn each_is_taken_once_by_whatever_comes_first() {
        let mut polls = Polls::default();
        let (shard, other) = (ShardId(1), ShardId(2));
        for (request, shard, stream, deadline) in [
            (1, shard, 1, 50),
            (2, shard, 2, 40),
            (3, shard, 1, 30),
            (4, other, 1, 20),
            (5, other, 1, 60),
        ] {
            polls.add(shard, StreamId(stream), query(request, deadline));
        }
        let expired = polls.expired(29).into_iter().map(|(_, query)| query).collect();
        assert_eq!(requests(expired), [4]);
        let third = |query: &Query| query.waiter.request.0 == 3;
        assert_eq!(requests(polls.wake(shard, StreamId(1), third)), [3]);
        assert_eq!(requests(polls.wake(shard, StreamId(1), |_| true)), [1]);
        assert_eq!(polls.forget(ConnectionId(0)), 1);
        assert_eq!(requests(polls.take_shard(shard)), []);
        assert_eq!(requests(polls.take_shard(other)), [5]);
        assert!(polls.expired(100).is_empty() && polls.deadlines.is_empty());
    }
}
