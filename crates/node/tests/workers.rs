//! Several workers of one node: each owns its shards, all know the directory.

use naust_node::event::{DirectoryChange, Told};
use naust_node::views::Waiter;
use naust_node::{Config, ConnectionId, Effect, Event, Node, Now, Pace};
use naust_wire::ask::{Ask, Listing};
use naust_wire::options::NamespaceOptions;
use naust_wire::packet::{self, Kind};
use naust_wire::reply::{Failure, Reply};
use naust_wire::{Code, NodeId, Offset, RequestId, ShardId};

fn worker(worker: u32) -> Node {
    Node::new(Config {
        node: NodeId(1),
        name: "one".to_string(),
        address: String::new(),
        version: String::new(),
        token: None,
        worker,
        workers: 2,
        cluster: 1,
        founder: true,
        pace: Pace::default(),
    })
}

fn handle(node: &mut Node, event: Event<'_>) -> Vec<String> {
    let mut effects = Vec::new();
    node.handle(Now::default(), event, &mut effects);
    node.flush(Now::default(), &mut effects);
    effects.iter().map(show).collect()
}

fn show(effect: &Effect) -> String {
    match effect {
        Effect::Open { shard, .. } => format!("open {shard}"),
        Effect::Remove(shard) => format!("remove {shard}"),
        Effect::Send { to, bytes } => {
            let (packet, _) = packet::read(bytes).expect("a packet").expect("a whole one");
            let reply = Reply::decode(packet.body).expect("a reply");
            match reply {
                Reply::Error(failure) => format!("to {}: {}", to.0, failure.code),
                reply => format!("to {}: {reply:?}", to.0),
            }
        }
        _ => "something else".to_string(),
    }
}

fn created(shard: u32) -> DirectoryChange {
    let waiter = Waiter { connection: ConnectionId(5), request: RequestId(6) };
    DirectoryChange::Created {
        name: "shop".to_string(),
        shard: ShardId(shard),
        options: NamespaceOptions::default(),
        replicas: Vec::new(),
        told: Some(Told { waiter, offset: Offset(77) }),
    }
}

/// What is told last.
fn always() -> DirectoryChange {
    let (name, shard) = ("default".to_string(), ShardId(1));
    DirectoryChange::Created {
        name,
        shard,
        options: NamespaceOptions::default(),
        replicas: Vec::new(),
        told: None,
    }
}

fn resolve() -> Vec<u8> {
    let (mut body, mut bytes) = (Vec::new(), Vec::new());
    Ask::Resolve("shop".to_string()).encode(&mut body);
    packet::write(Kind::Ask, RequestId(1), ShardId(0), &body, &mut bytes);
    bytes
}

#[test]
fn the_first_worker_opens_the_directory_and_the_others_wait_for_it() {
    for (number, opens) in [(0, 1), (1, 0)] {
        let mut effects = Vec::new();
        worker(number).start(&mut effects);
        assert_eq!(effects.len(), opens);
    }
    let bytes = resolve();
    let from = ConnectionId(2);
    let seen = handle(&mut worker(1), Event::Packets { from, bytes: &bytes });
    assert_eq!(seen, ["to 2: unavailable"]);
}

#[test]
fn a_namespace_is_opened_by_its_worker_alone_and_known_to_all() {
    let (bytes, from) = (resolve(), ConnectionId(2));
    let mut other = worker(0);
    handle(&mut other, Event::Directory(always()));
    assert_eq!(handle(&mut other, Event::Directory(created(3))), [""; 0]);
    let seen = handle(&mut other, Event::Packets { from, bytes: &bytes });
    assert_eq!(seen, ["to 2: Resolved { shard: ShardId(3), leader: NodeId(1) }"]);

    let mut owner = worker(1);
    assert_eq!(handle(&mut owner, Event::Directory(created(3))), ["open 3"]);
    assert_eq!(handle(&mut owner, Event::Packets { from, bytes: &bytes }), [""; 0], "it waits");
    let failure = Failure::new(Code::Corrupt, "rotten");
    let seen = handle(&mut owner, Event::NotOpened { shard: ShardId(3), failure, trouble: None });
    assert_eq!(seen, ["to 5: Done(Offset(77))", "to 2: corrupt"]);
    assert_eq!(owner.requests(), 0);

    let name = "shop".to_string();
    let deleted = DirectoryChange::Deleted { name, shard: ShardId(3), told: None };
    assert_eq!(handle(&mut owner, Event::Directory(deleted.clone())), ["remove 3"]);
    assert_eq!(handle(&mut other, Event::Directory(deleted)), [""; 0]);
}

#[test]
fn what_was_not_told_yet_may_exist() {
    let mut node = worker(0);
    let from = ConnectionId(2);
    let mut namespaces = Vec::new();
    let mut body = Vec::new();
    Ask::Namespaces(Listing::default()).encode(&mut body);
    packet::write(Kind::Ask, RequestId(1), ShardId(0), &body, &mut namespaces);
    let DirectoryChange::Created { shard, options, .. } = created(3) else { unreachable!() };
    let first = DirectoryChange::Created {
        name: "first".to_string(),
        shard,
        options,
        replicas: Vec::new(),
        told: None,
    };
    handle(&mut node, Event::Directory(first));
    for bytes in [&resolve(), &namespaces] {
        let seen = handle(&mut node, Event::Packets { from, bytes });
        assert_eq!(seen, ["to 2: unavailable"]);
    }
    handle(&mut node, Event::Directory(always()));
    let seen = handle(&mut node, Event::Packets { from, bytes: &resolve() });
    assert_eq!(seen, ["to 2: namespace_not_found"]);
}

#[test]
fn lists_of_one_turn_are_bounded() {
    let (mut node, from, mut effects) = (worker(0), ConnectionId(2), Vec::new());
    for number in 0..1000 {
        let shard = ShardId(3 + 2 * number);
        let (name, options) = (format!("{number:0>250}"), NamespaceOptions::default());
        let change =
            DirectoryChange::Created { name, shard, options, replicas: Vec::new(), told: None };
        handle(&mut node, Event::Directory(change));
    }
    handle(&mut node, Event::Directory(always()));
    let (mut body, mut bytes) = (Vec::new(), Vec::new());
    Ask::Namespaces(Listing::default()).encode(&mut body);
    packet::write(Kind::Ask, RequestId(1), ShardId(0), &body, &mut bytes);
    for _ in 0..100 {
        node.handle(Now::default(), Event::Packets { from, bytes: &bytes }, &mut effects);
    }
    let sent = |effect: &Effect| match effect {
        Effect::Send { bytes, .. } => bytes.len(),
        _ => 0,
    };
    let sum = effects.iter().map(sent).sum::<usize>();
    let bound = 8 * 1024 * 1024;
    assert!((bound..bound + 1024 * 1024).contains(&sum), "{sum}");
    node.flush(Now::default(), &mut effects);
    assert!(!handle(&mut node, Event::Packets { from, bytes: &bytes })[0].contains("overloaded"));
}

#[test]
fn what_lacked_space_is_opened_again_and_what_is_damaged_is_not() {
    for (code, again) in [(Code::DiskFull, 1), (Code::Unavailable, 1), (Code::Corrupt, 0)] {
        let mut owner = worker(1);
        let not_opened = |node: &mut Node| {
            let failure = Failure::new(code, "no");
            handle(node, Event::NotOpened { shard: ShardId(3), failure, trouble: None });
        };
        handle(&mut owner, Event::Directory(created(3)));
        not_opened(&mut owner);
        for at in [1000, 2000] {
            let now = Now { monotonic_ms: at, ..Now::default() };
            let mut effects = Vec::new();
            owner.handle(now, Event::Tick, &mut effects);
            assert_eq!(effects.len(), again, "{code}");
            assert!(effects.iter().all(|effect| matches!(effect, Effect::Open { .. })));
            not_opened(&mut owner);
        }
    }
}
