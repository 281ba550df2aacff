//! Digests of views: two replicas whose views differ in one thing tell which view it is.

#![allow(clippy::unwrap_used)]

mod support;

use naust_machine::{Machine, MemTables};
use naust_wire::commit::Draft;
use naust_wire::control::Control;
use naust_wire::frame::Kind;
use naust_wire::limits::NOTED_DIGESTS_MAX;
use naust_wire::options::{KeyspaceOptions, NamespaceOptions, StreamOptions};
use naust_wire::reply::ViewDigest;
use naust_wire::{Code, NodeId, Offset, SessionId, ShardId};
use support::{Log, crash, open, open_with, options};

struct Replica {
    log: Log,
    machine: Machine<MemTables>,
}

impl Replica {
    fn new(shard: ShardId) -> Replica {
        let log = Log::default();
        Replica { machine: open(MemTables::new(), shard, &log), log }
    }

    fn commit(&mut self, op: impl FnOnce(&mut Draft<'_>)) {
        let mut draft = Draft::default();
        op(&mut draft);
        let logged = self.log.commit(&draft, SessionId::NONE, (0, 0));
        self.machine.apply(&logged.frame()).unwrap();
    }

    fn control(&mut self, control: &Control) -> Offset {
        let logged = self.log.control(control);
        self.machine.apply(&logged.frame()).unwrap();
        logged.header.offset
    }

    fn configure(&mut self, body: u8) {
        let logged = self.log.push(Kind::Configure, vec![body]);
        self.machine.apply(&logged.frame()).unwrap();
    }

    fn noted(&mut self) -> Vec<ViewDigest> {
        let at = self.control(&Control::NoteDigests);
        self.machine.noted_digests(at).unwrap()
    }
}

/// The views in which two replicas differ that do the same, but with `1` and with `2`.
fn differ(shard: ShardId, act: impl Fn(&mut Replica, u64)) -> Vec<String> {
    let [one, two] = [1, 2].map(|number| {
        let mut replica = Replica::new(shard);
        replica.commit(|draft| {
            draft.put("users", &b"ada"[..], &b"1"[..]).unwrap();
            draft.append("events", &b"e"[..]).unwrap();
        });
        act(&mut replica, number);
        replica.noted()
    });
    assert_eq!(one.len(), two.len());
    let views = one.into_iter().zip(two);
    views.filter(|(one, two)| one != two).map(|(one, _)| one.view).collect()
}

/// Why: who learns that two replicas differ wants to know in what.
#[test]
fn what_differs_is_told_by_its_view() {
    let here = ShardId(1);
    let nothing: &[&str] = &[];
    assert_eq!(differ(here, |_, _| ()), nothing);
    // Rows are compared by who reads them; that one key was written and not another is known here.
    let put = |replica: &mut Replica, number: u64| {
        replica.commit(|draft| draft.put("users", vec![number as u8], &b"1"[..]).unwrap());
    };
    assert_eq!(differ(here, put), ["recent writes"]);
    let advance = |replica: &mut Replica, number| {
        replica.commit(|draft| draft.advance("events", "mail", Offset(number)).unwrap());
    };
    assert_eq!(differ(here, advance), ["cursors"]);
    let session = |replica: &mut Replica, nonce| {
        replica.control(&Control::OpenSession { ttl_ms: 0, nonce });
    };
    assert_eq!(differ(here, session), ["sessions"]);
    let keyspace = |replica: &mut Replica, number| {
        let options = KeyspaceOptions {
            compaction: naust_wire::options::Compaction::Fifo,
            max_bytes: number << 20,
            ..KeyspaceOptions::default()
        };
        replica.control(&Control::SetKeyspace { name: "fifo".into(), options });
    };
    assert_eq!(differ(here, keyspace), ["keyspaces"]);
    let stream = |replica: &mut Replica, number| {
        let options = StreamOptions { max_records: number, ..StreamOptions::default() };
        replica.control(&Control::SetStream { name: "events".into(), options });
    };
    assert_eq!(differ(here, stream), ["streams"]);
    // As many bytes in the log, but one record more.
    let append = |replica: &mut Replica, number| {
        replica.commit(|draft| match number {
            1 => draft.append("events", &[0; 64][..]).unwrap(),
            _ => draft.append("events", &[0; 72][..]).unwrap(),
        });
        replica.log.next = Offset::FIRST.plus(4096);
    };
    assert_eq!(differ(here, append), ["streams"]);
    let time = |replica: &mut Replica, number: u64| replica.log.time.0 += number;
    assert_eq!(differ(here, time), ["log time"]);
    assert_eq!(differ(here, |replica, number| replica.configure(number as u8)), ["configuration"]);
    let namespace = |replica: &mut Replica, number| {
        let options = NamespaceOptions { history_ms: 5000 * number, ..Default::default() };
        replica.control(&Control::CreateNamespace { name: "shop".into(), options });
    };
    assert_eq!(differ(ShardId::DIRECTORY, namespace), ["namespaces"]);
    let node = |replica: &mut Replica, number: u64| {
        let (name, address) = (format!("n{number}"), "10.0.0.1:7420".into());
        replica.control(&Control::SetNode { node: NodeId(1), name, address });
    };
    assert_eq!(differ(ShardId::DIRECTORY, node), ["nodes"]);
}

/// Why: a replica that comes back has its views from its tables, and folds on; noted is what it had
/// then.
#[test]
fn digests_are_those_of_a_machine_that_was_never_away() {
    let mut replica = Replica::new(ShardId(1));
    replica.control(&Control::OpenSession { ttl_ms: 0, nonce: 7 });
    replica.commit(|draft| {
        draft.append("events", &b"e"[..]).unwrap();
        draft.advance("events", "mail", Offset(5)).unwrap();
    });
    replica.machine.flush();
    support::work(&mut replica.machine, 1);
    replica.commit(|draft| draft.put("users", &b"ada"[..], &b"1"[..]).unwrap());
    let at = replica.control(&Control::NoteDigests);
    let noted = replica.machine.noted_digests(at).unwrap();
    let counts: Vec<_> = noted.iter().map(|view| (view.view.as_str(), view.count)).collect();
    assert_eq!(counts[..4], [("keyspaces", 1), ("streams", 1), ("cursors", 1), ("sessions", 1)]);

    let log = replica.log.trimmed(replica.machine.persisted());
    let back = open_with(crash(&replica.machine), ShardId(1), &log, options());
    assert_eq!(back.noted_digests(at).unwrap(), noted);
}

#[test]
fn the_last_few_are_kept() {
    let mut replica = Replica::new(ShardId(1));
    let noted: Vec<Offset> =
        (0..=NOTED_DIGESTS_MAX).map(|_| replica.control(&Control::NoteDigests)).collect();
    let forgotten = replica.machine.noted_digests(noted[0]).unwrap_err();
    assert_eq!(forgotten.code, Code::OffsetTrimmed);
    for at in &noted[1..] {
        replica.machine.noted_digests(*at).unwrap();
    }
    let never = replica.machine.noted_digests(Offset(noted[1].0 + 8)).unwrap_err();
    assert_eq!(never.code, Code::OffsetTrimmed);
}
