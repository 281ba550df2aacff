//! Several workers of one node: each owns its shards, all know the directory.

use naust_node::event::{DirectoryChange, Told};
use naust_node::views::Waiter;
use naust_node::{Config, ConnectionId, Effect, Event, Node, Now};
use naust_wire::ask::Ask;
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
        told: Some(Told { waiter, offset: Offset(77) }),
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
    assert_eq!(handle(&mut other, Event::Directory(created(3))), [""; 0]);
    let seen = handle(&mut other, Event::Packets { from, bytes: &bytes });
    assert_eq!(seen, ["to 2: Resolved { shard: ShardId(3), leader: NodeId(1) }"]);

    let mut owner = worker(1);
    assert_eq!(handle(&mut owner, Event::Directory(created(3))), ["open 3"]);
    assert_eq!(handle(&mut owner, Event::Packets { from, bytes: &bytes }), [""; 0], "it waits");
    let failure = Failure::new(Code::Corrupt, "rotten");
    let seen = handle(&mut owner, Event::NotOpened { shard: ShardId(3), failure });
    assert_eq!(seen, ["to 5: Done(Offset(77))", "to 2: corrupt"]);
    assert_eq!(owner.requests(), 0);

    let name = "shop".to_string();
    let deleted = DirectoryChange::Deleted { name, shard: ShardId(3), told: None };
    assert_eq!(handle(&mut owner, Event::Directory(deleted.clone())), ["remove 3"]);
    assert_eq!(handle(&mut other, Event::Directory(deleted)), [""; 0]);
}
