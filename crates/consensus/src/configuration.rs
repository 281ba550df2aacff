//! Who votes and who learns, and its encoding as the body of a `Configure` frame.
//!
//! ```text
//!  version (u8, 1) | voters (u16) | learners (u16) | ids (u64 each): voters, then learners
//!  version (u8, 2) | voters (u16) | learners (u16) | outgoing (u16) | learners next (u16) | ids
//! ```
//! All integers are little-endian; ids ascend strictly within each part. A `Configure` frame
//! holds the configuration that *results* from it, so whoever folds it in needs to know nothing
//! else; what has to change is the difference to the one before. Version 2 is for *joint*
//! configurations only; all others have the bytes of version 1.
//!
//! # Joint configurations
//!
//! A change of one replica goes from one configuration to the next in one step, since majorities of
//! the two always overlap. A change of several goes through a joint one, in which everything needs
//! a majority of the voters to come *and* a majority of the outgoing ones (Ongaro and Ousterhout,
//! "In Search of an Understandable Consensus Algorithm", 2014, section 6). Whoever leads when it is
//! in force proposes to leave it: [`Configuration::left`].

use naust_wire::NodeId;
use naust_wire::limits::REPLICAS_PER_SHARD_MAX;
use raft::eraftpb::{
    ConfChangeSingle, ConfChangeTransition, ConfChangeType, ConfChangeV2, ConfState,
};

/// The replicas of a shard. Ids ascend, none is zero, at least one votes.
///
/// Learners neither vote nor are outgoing. Learners next are outgoing voters that will learn; they
/// are not among the voters to come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Configuration {
    voters: Vec<NodeId>,
    learners: Vec<NodeId>,
    outgoing: Vec<NodeId>,
    learners_next: Vec<NodeId>,
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

const SIMPLE: u8 = 1;
const JOINT: u8 = 2;

impl Configuration {
    /// One voter and nobody else.
    #[must_use]
    pub fn single(node: NodeId) -> Configuration {
        Configuration::simple(vec![node], Vec::new())
    }

    fn simple(voters: Vec<NodeId>, learners: Vec<NodeId>) -> Configuration {
        Configuration { voters, learners, outgoing: Vec::new(), learners_next: Vec::new() }
    }

    /// Those who vote, ascending; while it is joint, those who will.
    #[must_use]
    pub fn voters(&self) -> &[NodeId] {
        &self.voters
    }

    /// Those who follow without a vote, ascending.
    #[must_use]
    pub fn learners(&self) -> &[NodeId] {
        &self.learners
    }

    /// While it is joint, those who voted before, ascending; else nobody.
    #[must_use]
    pub fn outgoing(&self) -> &[NodeId] {
        &self.outgoing
    }

    /// While it is joint, those who vote no more afterwards, but learn; ascending.
    #[must_use]
    pub fn learners_next(&self) -> &[NodeId] {
        &self.learners_next
    }

    /// Whether everything needs two majorities.
    #[must_use]
    pub fn is_joint(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// Some nodes that vote, and nobody else. `None` if they are none or too many.
    #[must_use]
    pub fn of_voters(nodes: &[NodeId]) -> Option<Configuration> {
        let mut voters = nodes.to_vec();
        voters.sort_unstable();
        voters.dedup();
        let configuration = Configuration::simple(voters, Vec::new());
        configuration.check().is_ok().then_some(configuration)
    }

    /// Whether this node is the only replica.
    #[must_use]
    pub fn is_alone(&self, node: NodeId) -> bool {
        self.is_lone_voter(node) && self.replicas() == [node]
    }

    /// Whether this node is the only voter.
    #[must_use]
    pub fn is_lone_voter(&self, node: NodeId) -> bool {
        self.voters == [node] && !self.is_joint()
    }

    /// All replicas, ascending.
    #[must_use]
    pub fn replicas(&self) -> Vec<NodeId> {
        let parts = [&self.voters, &self.learners, &self.outgoing, &self.learners_next];
        let mut all: Vec<NodeId> = parts.into_iter().flatten().copied().collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// Whether this node is a replica, in whatever part.
    #[must_use]
    pub fn contains(&self, node: NodeId) -> bool {
        let parts = [&self.voters, &self.learners, &self.outgoing, &self.learners_next];
        parts.into_iter().any(|part| part.contains(&node))
    }

    /// This configuration after a change; `None` if the change would leave no voter, changes
    /// nothing or passes [`REPLICAS_PER_SHARD_MAX`], or if this one is joint.
    #[must_use]
    pub fn after(&self, change: Change) -> Option<Configuration> {
        self.after_all(&[change])
    }

    /// This configuration after several changes, made together: joint, if they come to more than
    /// one. `None` as in [`Configuration::after`].
    #[must_use]
    pub fn after_all(&self, changes: &[Change]) -> Option<Configuration> {
        if self.is_joint() {
            return None;
        }
        let mut after = self.clone();
        for change in changes {
            let (Change::Voter(node) | Change::Learner(node) | Change::Remove(node)) = *change;
            after.voters.retain(|voter| *voter != node);
            after.learners.retain(|learner| *learner != node);
            match change {
                Change::Voter(_) => insert(&mut after.voters, node),
                Change::Learner(_) => insert(&mut after.learners, node),
                Change::Remove(_) => {}
            }
        }
        if after == *self {
            return None;
        }
        if self.singles(&after).len() > 1 {
            let was_voter = |node: &NodeId| self.voters.contains(node);
            (after.learners_next, after.learners) = after.learners.into_iter().partition(was_voter);
            after.outgoing.clone_from(&self.voters);
        }
        after.check().is_ok().then_some(after)
    }

    /// What follows a joint configuration; any other stays what it is.
    #[must_use]
    pub fn left(&self) -> Configuration {
        let mut learners = self.learners.clone();
        self.learners_next.iter().for_each(|node| insert(&mut learners, *node));
        Configuration::simple(self.voters.clone(), learners)
    }

    fn parts(&self) -> [&[NodeId]; 4] {
        [&self.voters, &self.learners, &self.outgoing, &self.learners_next]
    }

    /// The bytes of a `Configure` frame's body.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let parts = self.parts();
        let (version, parts) =
            if self.is_joint() { (JOINT, &parts[..]) } else { (SIMPLE, &parts[..2]) };
        let mut out = vec![version];
        for part in parts {
            out.extend_from_slice(&(part.len() as u16).to_le_bytes());
        }
        for node in parts.iter().copied().flatten() {
            out.extend_from_slice(&node.0.to_le_bytes());
        }
        out
    }

    /// Reads what [`Configuration::encode`] wrote.
    ///
    /// # Errors
    /// [`Bad`].
    pub fn decode(bytes: &[u8]) -> Result<Configuration, Bad> {
        let (version, rest) = bytes.split_first().ok_or(Bad("too short"))?;
        let parts = match *version {
            SIMPLE => 2,
            JOINT => 4,
            _ => return Err(Bad("its version is not known to this release")),
        };
        let (counts, ids) = rest.split_at_checked(2 * parts).ok_or(Bad("too short"))?;
        let counts = counts.as_chunks::<2>().0.iter().map(|count| u16::from_le_bytes(*count));
        let mut lengths = [0usize; 4];
        lengths.iter_mut().zip(counts).for_each(|(length, count)| *length = usize::from(count));
        let (ids, odd) = ids.as_chunks::<8>();
        if !odd.is_empty() || ids.len() != lengths.iter().sum::<usize>() {
            return Err(Bad("its length is wrong"));
        }
        let mut ids = ids.iter().map(|id| NodeId(u64::from_le_bytes(*id)));
        let [voters, learners, outgoing, learners_next] =
            lengths.map(|length| ids.by_ref().take(length).collect());
        let configuration = Configuration { voters, learners, outgoing, learners_next };
        if (*version == JOINT) != configuration.is_joint() {
            return Err(Bad("it is joint with nobody"));
        }
        configuration.check()?;
        Ok(configuration)
    }

    pub(crate) fn to_raft(&self) -> ConfState {
        let [voters, learners, voters_outgoing, learners_next] =
            self.parts().map(|part| part.iter().map(|node| node.0).collect());
        ConfState { voters, learners, voters_outgoing, learners_next, ..ConfState::default() }
    }

    /// Whether Raft has come to the same.
    pub(crate) fn is(&self, state: &ConfState) -> bool {
        let equal = |part: &[NodeId], ids: &[u64]| {
            part.len() == ids.len() && part.iter().all(|node| ids.contains(&node.0))
        };
        equal(&self.voters, &state.voters)
            && equal(&self.learners, &state.learners)
            && equal(&self.outgoing, &state.voters_outgoing)
            && equal(&self.learners_next, &state.learners_next)
    }

    /// Whether this configuration can be followed by that one.
    pub(crate) fn leads_to(&self, next: &Configuration) -> bool {
        if self.is_joint() {
            *next == self.left()
        } else if next.is_joint() {
            next.outgoing == self.voters
        } else {
            self.singles(next).len() == 1
        }
    }

    /// What Raft is told when the configuration goes from `self` to `next`.
    pub(crate) fn difference(&self, next: &Configuration) -> ConfChangeV2 {
        let mut change = ConfChangeV2::default();
        if self.is_joint() {
            // Nothing but the end of it can follow; for Raft that is a change without changes.
            return change;
        }
        if next.is_joint() {
            // Explicit: Raft would leave by an entry of its own, without our bytes.
            change.set_transition(ConfChangeTransition::Explicit);
        }
        change.set_changes(self.singles(next).into());
        change
    }

    /// The changes that lead from this configuration, which is not joint, to `next`.
    fn singles(&self, next: &Configuration) -> Vec<ConfChangeSingle> {
        let stays = |node: &&NodeId| {
            let learns = next.learners.contains(node) || next.learners_next.contains(node);
            learns || next.voters.contains(node)
        };
        let gone = self.voters.iter().chain(&self.learners).filter(|node| !stays(node));
        let voting = next.voters.iter().filter(|node| !self.voters.contains(node));
        let learning = next.learners.iter().chain(&next.learners_next);
        let learning = learning.filter(|node| !self.learners.contains(node));
        (gone.map(|node| single(ConfChangeType::RemoveNode, *node)))
            .chain(voting.map(|node| single(ConfChangeType::AddNode, *node)))
            .chain(learning.map(|node| single(ConfChangeType::AddLearnerNode, *node)))
            .collect()
    }

    fn check(&self) -> Result<(), Bad> {
        let ascends = |nodes: &[NodeId]| nodes.windows(2).all(|pair| pair[0] < pair[1]);
        if self.voters.is_empty() {
            return Err(Bad("nobody votes"));
        }
        if self.replicas().len() > REPLICAS_PER_SHARD_MAX {
            return Err(Bad("it has more replicas than a shard may have"));
        }
        if self.contains(NodeId(0)) {
            return Err(Bad("a node has no id"));
        }
        if !self.parts().into_iter().all(ascends) {
            return Err(Bad("its nodes are out of order"));
        }
        let votes = |node: &NodeId| self.voters.contains(node);
        let outgoing = |node: &NodeId| self.outgoing.contains(node);
        if self.learners.iter().any(|node| votes(node) || outgoing(node)) {
            return Err(Bad("a node both votes and learns"));
        }
        if self.learners_next.iter().any(|node| votes(node) || !outgoing(node)) {
            return Err(Bad("a node is to learn that did not vote before"));
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
            Configuration::simple(nodes(voters), nodes(learners)).encode()
        };
        let joint = |parts: [&[u64]; 4]| {
            let [voters, learners, outgoing, learners_next] =
                parts.map(|ids| ids.iter().map(|id| NodeId(*id)).collect());
            Configuration { voters, learners, outgoing, learners_next }.encode()
        };
        assert!(Configuration::decode(&joint([&[1, 2], &[5], &[1, 3, 4], &[3]])).is_ok());
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
            joint([&[1], &[2], &[2], &[]]),
            joint([&[1], &[], &[2], &[3]]),
            joint([&[1, 2], &[], &[2, 3], &[2]]),
            joint([&[1], &[], &[3, 2], &[]]),
            joint([&[1], &[], &[0], &[]]),
            joint([&[1], &[], &(1..70).collect::<Vec<_>>(), &[]]),
            joint([&[1], &[], &[1], &[]])[..20].to_vec(),
            // Joint with nobody.
            [&[2, 1, 0, 0, 0, 0, 0, 0, 0][..], &1u64.to_le_bytes()].concat(),
        ] {
            assert!(Configuration::decode(&bad).is_err(), "{bad:?}");
        }
    }

    fn change((kind, node): (u8, u64)) -> Change {
        let node = NodeId(node);
        match kind {
            0 => Change::Voter(node),
            1 => Change::Learner(node),
            _ => Change::Remove(node),
        }
    }

    #[test]
    fn several_changes_go_through_a_joint_configuration() {
        let nodes = |ids: &[u64]| ids.iter().map(|id| NodeId(*id)).collect::<Vec<_>>();
        let three = Configuration::simple(nodes(&[1, 2, 3]), nodes(&[4]));
        let replace = [Change::Remove(NodeId(3)), Change::Voter(NodeId(4))];
        let joint = three.after_all(&replace).unwrap();
        assert_eq!((joint.voters(), joint.outgoing()), (&nodes(&[1, 2, 4])[..], three.voters()));
        assert_eq!((joint.learners(), joint.learners_next()), (&[][..], &[][..]));
        assert_eq!(joint.replicas(), nodes(&[1, 2, 3, 4]));
        assert!(joint.contains(NodeId(3)) && !joint.left().contains(NodeId(3)));
        assert_eq!(joint.left(), Configuration::simple(nodes(&[1, 2, 4]), vec![]));
        let demote = [Change::Learner(NodeId(3)), Change::Voter(NodeId(4))];
        let joint = three.after_all(&demote).unwrap();
        assert_eq!(joint.learners_next(), nodes(&[3]));
        assert_eq!(joint.left(), Configuration::simple(nodes(&[1, 2, 4]), nodes(&[3])));
        let lone = Configuration::single(NodeId(1));
        let swap = lone.after_all(&[Change::Voter(NodeId(2)), Change::Remove(NodeId(1))]).unwrap();
        assert!(!swap.is_lone_voter(NodeId(2)) && swap.left().is_lone_voter(NodeId(2)));
        assert_eq!(lone.after_all(&[Change::Voter(NodeId(2)), Change::Remove(NodeId(2))]), None);
        assert_eq!(lone.after_all(&[]), None);
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(
            steps in proptest::collection::vec(
                proptest::collection::vec((0u8..3, 1u64..9), 1..5), 0..20)
        ) {
            let mut configuration = Configuration::single(NodeId(1));
            for step in steps {
                let changes: Vec<Change> = step.into_iter().map(change).collect();
                let Some(after) = configuration.after_all(&changes) else { continue };
                prop_assert!(configuration.leads_to(&after) && !after.leads_to(&after));
                prop_assert!(!after.is_joint() || after.leads_to(&after.left()));
                let several = configuration.difference(&after).get_changes().len() > 1;
                prop_assert_eq!(after.is_joint(), several);
                let decoded = Configuration::decode(&after.encode());
                prop_assert_eq!(decoded.as_ref(), Ok(&after));
                prop_assert_eq!(after.after_all(&changes), None, "one change at a time");
                configuration = after.left();
                prop_assert_eq!(configuration.left(), configuration.clone());
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
