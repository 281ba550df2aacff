//! Who votes and who learns, and its encoding as the body of a `Configure` frame.
//!
//! ```text
//!  version (u8, 1) | voters (u16) | learners (u16) | ids (u64 each): voters, then learners
//! ```
//! All integers are little-endian; ids ascend strictly within each part. A `Configure` frame
//! holds the configuration that *results* from it, so whoever folds it in needs to know nothing
//! else; what has to change is the difference to the one before.

use naust_wire::NodeId;
use naust_wire::limits::REPLICAS_PER_SHARD_MAX;
use raft::eraftpb::{ConfChangeSingle, ConfChangeType, ConfChangeV2, ConfState};

/// The replicas of a shard. Ids ascend, none is zero, none is in both parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Configuration {
    voters: Vec<NodeId>,
    learners: Vec<NodeId>,
}

/// A change of one replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It votes from now on.
    Voter(NodeId),
    /// It follows without a vote from now on.
    Learner(NodeId),
    /// It is a replica no more.
    Remove(NodeId),
}

/// Bytes that are no configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a configuration: {0}")]
pub struct Bad(&'static str);

const VERSION: u8 = 1;
const HEADER_BYTES: usize = 5;

impl Configuration {
    /// One voter and nobody else.
    #[must_use]
    pub fn single(node: NodeId) -> Configuration {
        Configuration { voters: vec![node], learners: Vec::new() }
    }

    /// Those who vote, ascending.
    #[must_use]
    pub fn voters(&self) -> &[NodeId] {
        &self.voters
    }

    /// Those who follow without a vote, ascending.
    #[must_use]
    pub fn learners(&self) -> &[NodeId] {
        &self.learners
    }

    /// Whether this node is the only voter.
    #[must_use]
    pub fn is_lone_voter(&self, node: NodeId) -> bool {
        self.voters == [node]
    }

    /// This configuration after a change; `None` if the change would leave no voter, changes
    /// nothing or passes [`REPLICAS_PER_SHARD_MAX`].
    #[must_use]
    pub fn after(&self, change: Change) -> Option<Configuration> {
        let (Change::Voter(node) | Change::Learner(node) | Change::Remove(node)) = change;
        let mut after = self.clone();
        after.voters.retain(|voter| *voter != node);
        after.learners.retain(|learner| *learner != node);
        match change {
            Change::Voter(_) => insert(&mut after.voters, node),
            Change::Learner(_) => insert(&mut after.learners, node),
            Change::Remove(_) => {}
        }
        (after != *self && after.check().is_ok()).then_some(after)
    }

    /// The bytes of a `Configure` frame's body.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER_BYTES + 8 * self.len());
        out.push(VERSION);
        out.extend_from_slice(&(self.voters.len() as u16).to_le_bytes());
        out.extend_from_slice(&(self.learners.len() as u16).to_le_bytes());
        for node in self.voters.iter().chain(&self.learners) {
            out.extend_from_slice(&node.0.to_le_bytes());
        }
        out
    }

    /// Reads what [`Configuration::encode`] wrote.
    ///
    /// # Errors
    /// [`Bad`].
    pub fn decode(bytes: &[u8]) -> Result<Configuration, Bad> {
        let (head, ids) = bytes.split_first_chunk::<HEADER_BYTES>().ok_or(Bad("too short"))?;
        if head[0] != VERSION {
            return Err(Bad("its version is not known to this release"));
        }
        let voters = usize::from(u16::from_le_bytes([head[1], head[2]]));
        let learners = usize::from(u16::from_le_bytes([head[3], head[4]]));
        let (ids, rest) = ids.as_chunks::<8>();
        if !rest.is_empty() || ids.len() != voters + learners {
            return Err(Bad("its length is wrong"));
        }
        let mut ids = ids.iter().map(|id| NodeId(u64::from_le_bytes(*id)));
        let configuration =
            Configuration { voters: ids.by_ref().take(voters).collect(), learners: ids.collect() };
        configuration.check()?;
        Ok(configuration)
    }

    /// Whether this node is the only replica.
    #[must_use]
    pub fn is_alone(&self, node: NodeId) -> bool {
        self.is_lone_voter(node) && self.learners.is_empty()
    }

    /// All replicas: those who vote, then those who learn.
    pub fn replicas(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.voters.iter().chain(&self.learners).copied()
    }

    /// Some nodes that vote, and nobody else. `None` if they are none or too many.
    #[must_use]
    pub fn of_voters(nodes: &[NodeId]) -> Option<Configuration> {
        let mut voters = nodes.to_vec();
        voters.sort_unstable();
        voters.dedup();
        let configuration = Configuration { voters, learners: Vec::new() };
        configuration.check().is_ok().then_some(configuration)
    }

    /// Whether this node is a replica.
    #[must_use]
    pub fn contains(&self, node: NodeId) -> bool {
        self.voters.contains(&node) || self.learners.contains(&node)
    }

    pub(crate) fn to_raft(&self) -> ConfState {
        let ids = |nodes: &[NodeId]| nodes.iter().map(|node| node.0).collect();
        ConfState {
            voters: ids(&self.voters),
            learners: ids(&self.learners),
            ..ConfState::default()
        }
    }

    /// What Raft is told when the configuration goes from `self` to `next`.
    pub(crate) fn difference(&self, next: &Configuration) -> ConfChangeV2 {
        let mut change = ConfChangeV2::default();
        let gone = self.voters.iter().chain(&self.learners).filter(|node| !next.contains(**node));
        let voting = next.voters.iter().filter(|node| !self.voters.contains(node));
        let learning = next.learners.iter().filter(|node| !self.learners.contains(node));
        let singles = (gone.map(|node| single(ConfChangeType::RemoveNode, *node)))
            .chain(voting.map(|node| single(ConfChangeType::AddNode, *node)))
            .chain(learning.map(|node| single(ConfChangeType::AddLearnerNode, *node)));
        change.set_changes(singles.collect::<Vec<_>>().into());
        change
    }

    fn len(&self) -> usize {
        self.voters.len() + self.learners.len()
    }

    fn check(&self) -> Result<(), Bad> {
        let ascends = |nodes: &[NodeId]| nodes.windows(2).all(|pair| pair[0] < pair[1]);
        if self.voters.is_empty() {
            return Err(Bad("nobody votes"));
        }
        if self.len() > REPLICAS_PER_SHARD_MAX {
            return Err(Bad("it has more replicas than a shard may have"));
        }
        if self.contains(NodeId(0)) {
            return Err(Bad("a node has no id"));
        }
        if !ascends(&self.voters) || !ascends(&self.learners) {
            return Err(Bad("its nodes are out of order"));
        }
        if self.learners.iter().any(|learner| self.voters.contains(learner)) {
            return Err(Bad("a node both votes and learns"));
        }
        Ok(())
    }
}

fn insert(nodes: &mut Vec<NodeId>, node: NodeId) {
    let at = nodes.partition_point(|other| *other < node);
    nodes.insert(at, node);
}

fn single(kind: ConfChangeType, node: NodeId) -> ConfChangeSingle {
    ConfChangeSingle { change_type: kind, node_id: node.0, ..ConfChangeSingle::default() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn changes_lead_from_one_configuration_to_the_next() {
        let one = Configuration::single(NodeId(5));
        let learning = one.after(Change::Learner(NodeId(3))).unwrap();
        assert_eq!((learning.voters(), learning.learners()), (&[NodeId(5)][..], &[NodeId(3)][..]));
        let two = learning.after(Change::Voter(NodeId(3))).unwrap();
        assert_eq!(two.voters(), [NodeId(3), NodeId(5)]);
        assert_eq!(two.after(Change::Voter(NodeId(3))), None, "changes nothing");
        assert_eq!(two.after(Change::Remove(NodeId(5))), Some(Configuration::single(NodeId(3))));
        assert_eq!(one.after(Change::Remove(NodeId(5))), None, "leaves no voter");
        assert_eq!(one.after(Change::Voter(NodeId(0))), None, "is no node");
        assert_eq!(learning.difference(&two).get_changes().len(), 1);
    }

    #[test]
    fn what_breaks_the_rules_is_refused() {
        let bytes = |voters: &[u64], learners: &[u64]| {
            let nodes = |ids: &[u64]| ids.iter().map(|id| NodeId(*id)).collect();
            Configuration { voters: nodes(voters), learners: nodes(learners) }.encode()
        };
        for bad in [
            bytes(&[], &[]),
            bytes(&[0], &[]),
            bytes(&[2, 1], &[]),
            bytes(&[1, 1], &[]),
            bytes(&[1], &[1]),
            bytes(&(1..100).collect::<Vec<_>>(), &[]),
            bytes(&[1], &[])[..12].to_vec(),
            [bytes(&[1], &[]), vec![0]].concat(),
            [vec![9], bytes(&[1], &[])[1..].to_vec()].concat(),
            vec![],
        ] {
            assert!(Configuration::decode(&bad).is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(
            changes in proptest::collection::vec((0u8..3, 1u64..9), 0..20)
        ) {
            let mut configuration = Configuration::single(NodeId(1));
            for (kind, node) in changes {
                let node = NodeId(node);
                let change = match kind {
                    0 => Change::Voter(node),
                    1 => Change::Learner(node),
                    _ => Change::Remove(node),
                };
                configuration = configuration.after(change).unwrap_or(configuration);
                let decoded = Configuration::decode(&configuration.encode());
                prop_assert_eq!(decoded.as_ref(), Ok(&configuration));
            }
        }

        #[test]
        fn any_bytes_are_answered(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = Configuration::decode(&bytes);
        }
    }
}
