//! A look at a shard from outside, which changes nothing: for whoever judges a cluster as a whole.

use super::Node;
use naust_consensus::{Configuration, Role};
use naust_wire::{NodeId, Offset, ShardId, Term};

/// A shard as this worker has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Look {
    /// Whether this replica leads it, in this term.
    pub leads: bool,
    /// Its term.
    pub term: Term,
    /// Who leads it, as far as is known here.
    pub leader: Option<NodeId>,
    /// The configuration in force here.
    pub configuration: Configuration,
    /// Where the frames end that the views have folded in.
    pub applied: Offset,
}

impl Node {
    /// Looks at a shard; `None`: there is nothing of it here, or it is not open.
    #[must_use]
    pub fn look(&self, shard: ShardId) -> Option<Look> {
        let shard = self.shards.get(&shard)?;
        Some(Look {
            leads: shard.replica.role() == Role::Leader,
            term: shard.replica.term(),
            leader: shard.replica.leader(),
            configuration: shard.replica.configuration().clone(),
            applied: shard.applied_end(),
        })
    }
}
