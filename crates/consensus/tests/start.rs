//! What a replica refuses to start from: a log, tables and a superblock that contradict each
//! other.

use naust_consensus::{BadStart, Change, Configuration, HardState, Replica, Start};
use naust_wire::{Index, NodeId, Term};

fn good() -> Start {
    Start {
        node: NodeId(1),
        hard: HardState { term: Term(4), vote: NodeId(1) },
        before_first: Index(10),
        before_first_term: Term(2),
        last: Index(20),
        terms: vec![(Index(11), Term(2)), (Index(15), Term(4))],
        applied: Index(12),
        committed: Index(13),
        configuration: Configuration::single(NodeId(1)).encode(),
        configured: None,
        configure: vec![],
        seal: Index(0),
        seed: 1,
    }
}

type Spoil = (&'static str, fn(&mut Start));

#[test]
fn contradictions_are_refused() {
    assert!(Replica::new(&good()).is_ok());
    let spoils: &[Spoil] = &[
        ("no id", |start| start.node = NodeId(0)),
        ("end before begin", |start| start.last = Index(9)),
        ("tables lack frames that are gone", |start| start.applied = Index(9)),
        ("tables ahead", |start| start.applied = Index(21)),
        ("committed before applied", |start| start.committed = Index(11)),
        ("committed beyond the end", |start| start.committed = Index(21)),
        ("terms fall", |start| start.terms[1].1 = Term(1)),
        ("terms begin late", |start| start.terms[0].0 = Index(12)),
        ("terms end late", |start| start.terms[1].0 = Index(21)),
        ("no terms", |start| start.terms.clear()),
        ("old superblock", |start| start.hard.term = Term(3)),
        ("bad configuration", |start| start.configuration.clear()),
        ("bad change", |start| start.configure.push((Index(14), vec![1]))),
    ];
    for (what, spoil) in spoils {
        let mut start = good();
        spoil(&mut start);
        assert!(Replica::new(&start).is_err(), "{what}");
    }
}

#[test]
fn a_lone_voter_that_followed_last_knows_nothing_more_than_its_tables() -> Result<(), BadStart> {
    // Whoever led may lead still, and takes less for committed.
    let hard = HardState { term: Term(4), vote: NodeId(2) };
    let mut replica = Replica::new(&Start { hard, ..good() })?;
    assert_eq!(replica.ready(), None);
    let mut replica = Replica::new(&good())?;
    assert_eq!(replica.ready().and_then(|ready| ready.committed), Some(Index(13)));
    Ok(())
}

#[test]
fn a_stranger_to_its_own_shard_never_leads() -> Result<(), BadStart> {
    let start = Start { node: NodeId(9), ..good() };
    let mut replica = Replica::new(&start)?;
    replica.campaign();
    (0..100).for_each(|_| {
        replica.tick();
    });
    assert!(replica.propose(1).is_err());
    Ok(())
}

#[test]
fn a_lone_voters_log_is_not_committed_behind_a_change_of_the_voters() -> Result<(), BadStart> {
    let two = Configuration::single(NodeId(1)).after(Change::Voter(NodeId(2)));
    let two = two.expect("a second voter").encode();
    let configure = vec![(Index(15), two)];
    let mut replica = Replica::new(&Start { committed: Index(20), configure, ..good() })?;
    let committed = replica.ready().and_then(|ready| ready.committed);
    assert_eq!(committed, Some(Index(15)));
    replica.applied(Index(15));
    assert!(!replica.is_lone_voter());
    assert_eq!(replica.ready(), None);
    Ok(())
}
