//! The client against a fake server: what programs see when all goes well, and when it does not.

#![allow(clippy::unwrap_used)]

#[allow(dead_code, clippy::unwrap_used)]
mod fake;

use fake::{Fault, World};
use naust_client::{
    Code, Commit, Error, Identity, Level, Named, NodeId, Offset, OnOverload, Options, Outcome,
    ReadOptions, Sequence,
};
use naust_wire::commit::Draft;
use naust_wire::control::Control;
use naust_wire::limits::{CLIENT_REPLY_BYTES_MAX, SESSION_WINDOW_MAX, VALUE_BYTES_MAX};
use naust_wire::options::{KeyspaceOptions, NamespaceOptions, StreamOptions};
use naust_wire::packet::Kind;
use naust_wire::reply::Failure;
use std::pin::pin;
use std::task::Poll;

fn world() -> World {
    World::new(Options::default())
}

fn refuse(code: Code) -> Fault {
    Fault::Refuse(Failure::new(code, "a test"))
}

fn end<T: std::fmt::Debug>(result: Result<T, Error>) -> (Code, Outcome) {
    let error = result.unwrap_err();
    (error.code, error.outcome)
}

#[test]
fn rows_are_put_read_scanned_and_removed() {
    let mut world = world();
    let kv = world.client.namespace("default").kv("users");
    assert_eq!(end(world.run(kv.get("a"))), (Code::KeyspaceNotFound, Outcome::NotDone));
    let first = world.run(kv.put("a", "1")).unwrap();
    let second = world.run(kv.put_if("a", "2", first)).unwrap();
    let stale = world.run(kv.put_if("a", "3", first));
    assert_eq!(stale.clone().unwrap_err().refused.map(|r| r.found), Some(second));
    assert_eq!(end(stale), (Code::ConditionFailed, Outcome::NotDone));
    let found = world.run(kv.get_at("a", Level::Local)).unwrap().row.unwrap();
    assert_eq!((found.value, found.version), (b"2".to_vec(), second));

    for key in ["b", "c", "d", "da", "e"] {
        world.run(kv.put(key, key)).unwrap();
    }
    let keys = |world: &mut World, mut scan: naust_client::Scan| {
        let mut keys = Vec::new();
        while let Some(entry) = world.run(scan.next()).unwrap() {
            keys.push(String::from_utf8(entry.key).unwrap());
        }
        keys.join(" ")
    };
    assert_eq!(keys(&mut world, kv.all()), "a b c d da e");
    assert_eq!(keys(&mut world, kv.range("b"..="d").page_rows(1)), "b c d");
    assert_eq!(keys(&mut world, kv.range("b".."e").reverse().page_rows(2)), "da d c b");
    assert_eq!(keys(&mut world, kv.prefix("d").limit(1)), "d");
    assert_eq!(keys(&mut world, kv.prefix("d")), "d da");

    world.run(kv.delete("a")).unwrap();
    assert_eq!(world.run(kv.delete_range("b".."d")).unwrap().deleted, 2);
    assert_eq!(keys(&mut world, kv.range::<&str>(..)), "d da e");
    world.run(kv.set_options(KeyspaceOptions::default())).unwrap();
}

#[test]
fn streams_are_appended_read_and_followed() {
    let mut world = world();
    let stream = world.client.namespace("default").stream("orders");
    world.run(stream.set_options(StreamOptions::default())).unwrap();
    let first = world.run(stream.append("one")).unwrap();
    let more = world.run(stream.append_many(["two", "three"])).unwrap();
    assert!(first < more[0] && more[0] < more[1]);
    let page =
        world.run(stream.read(first, ReadOptions { limit: 2, ..ReadOptions::default() })).unwrap();
    assert_eq!(page.records.len(), 2);
    let mut follow = stream.follow(page.next);
    assert_eq!(world.run(follow.next()).unwrap().value, b"three");
    {
        let mut waiting = pin!(follow.next());
        assert!(world.poll(&mut waiting).is_pending());
        world.run(stream.append("four")).unwrap();
    }
    assert_eq!(world.run(follow.next()).unwrap().value, b"four");

    let cursor = stream.cursor("billing");
    assert_eq!(world.run(cursor.get()).unwrap(), None);
    world.run(cursor.advance(more[0])).unwrap();
    assert_eq!(world.run(cursor.get()).unwrap(), Some(more[0]));
}

#[test]
fn one_commit_spans_keyspaces_and_streams() {
    let mut world = world();
    let shop = world.client.namespace("default");
    let done = world.run(shop.commit(|c| {
        c.if_absent("users", "ada").put("users", "ada", "90").append("orders", "boat")
    }));
    assert_eq!(done.unwrap().ids.len(), 1);
    let bad = world.run(shop.commit(|c| c.put("no/name", "k", "v")));
    assert_eq!(end(bad), (Code::BadName, Outcome::NotDone));
    let empty = world.run(shop.commit(|c| c));
    assert_eq!(end(empty), (Code::BadArgument, Outcome::NotDone));
    let described = world.run(shop.describe()).unwrap();
    assert_eq!(described.keyspaces[0].name, "users");
    assert_eq!(world.run(shop.log(Offset::FIRST, 0, 0)).unwrap().data, [1, 2, 3]);
    // A commit that could not be encoded took a number; it does not stop the window.
    world.run(shop.commit(|c| c.delete("users", "ada"))).unwrap();
    let seen = world.fake.seen.last().unwrap();
    assert_eq!(seen.sequence, seen.acked_below);
}

#[test]
fn namespaces_come_and_go() {
    let mut world = world();
    let client = world.client.clone();
    let shop = client.namespace("shop");
    let missing = world.run(shop.kv("users").put("a", "1"));
    assert_eq!(end(missing), (Code::NamespaceNotFound, Outcome::NotDone));
    world.run(client.create_namespace("shop", NamespaceOptions::default())).unwrap();
    world.run(shop.kv("users").put("a", "1")).unwrap();
    assert_eq!(world.run(client.namespaces()).unwrap().len(), 2);
    assert_eq!(world.run(client.cluster()).unwrap().nodes[0].name, "fake");
    world.run(client.delete_namespace("shop")).unwrap();
    assert_eq!(
        end(world.run(shop.kv("users").put("a", "2"))),
        (Code::NamespaceNotFound, Outcome::NotDone)
    );
    // It is made anew, with another shard: the old route and the old session are forgotten by
    // themselves.
    world.run(client.create_namespace("shop", NamespaceOptions::default())).unwrap();
    world.run(shop.kv("users").put("a", "3")).unwrap();
    world.fake.namespaces.remove("shop");
    world.fake.shards.remove(&naust_wire::ShardId(2));
    world.fake.add_namespace("shop");
    world.run(shop.kv("users").put("a", "4")).unwrap();
    let refused = client.create_namespace("topics", NamespaceOptions::default());
    assert_eq!(end(world.run(refused)), (Code::BadName, Outcome::NotDone));
}

#[test]
fn a_lost_reply_is_asked_for_again_and_applied_once() {
    let mut world = world();
    let shop = world.client.namespace("default");
    world.fake.faults.push_back(Fault::LoseReply);
    let mut commit = pin!(shop.commit(|c| c.append("orders", "one")));
    while world.fake.seen.is_empty() {
        assert!(world.poll(&mut commit).is_pending());
        world.pump();
    }
    world.reconnect();
    assert!(world.run(commit).unwrap().duplicate);
    assert_eq!(world.fake.seen[0], world.fake.seen[1]);
    assert_eq!(world.fake.shard().records("orders"), 1);
}

#[test]
fn what_makes_and_sets_is_asked_for_again_and_done_once() {
    let mut world = world();
    let client = world.client.clone();
    let make = |name: &'static str| client.create_namespace(name, NamespaceOptions::default());
    // The session of the directory is there; then the reply of the second is lost.
    world.run(make("one")).unwrap();
    world.fake.other_faults.push_back(Fault::LoseReply);
    {
        let mut made = pin!(make("two"));
        assert!(world.poll(&mut made).is_pending());
        world.pump();
        world.reconnect();
        world.run(made).unwrap();
    }
    let made = |world: &World| {
        let made = world.fake.directory.done.iter();
        made.filter(|control| matches!(control, Control::CreateNamespace { .. })).count()
    };
    assert_eq!(made(&world), 2);
    world.fake.other_faults.push_back(Fault::LoseReply);
    {
        let mut gone = pin!(client.delete_namespace("two"));
        assert!(world.poll(&mut gone).is_pending());
        world.pump();
        world.reconnect();
        world.run(gone).unwrap();
    }
    assert_eq!(
        end(world.run(client.delete_namespace("two"))),
        (Code::NamespaceNotFound, Outcome::NotDone)
    );
    // Options of streams: what another client set meanwhile is not undone by a late retry.
    let stream = client.namespace("default").stream("orders");
    world.run(stream.set_options(StreamOptions::default())).unwrap();
    world.fake.other_faults.push_back(Fault::LoseReply);
    {
        let mut set = pin!(stream.set_options(StreamOptions::default()));
        assert!(world.poll(&mut set).is_pending());
        world.pump();
        world.reconnect();
        world.run(set).unwrap();
    }
    let done = world.fake.shard().done.iter();
    assert_eq!(done.filter(|control| matches!(control, Control::SetStream { .. })).count(), 2);
}

#[test]
fn a_callers_own_session_of_the_directory_is_passed_through() {
    let mut world = world();
    let client = world.client.clone();
    let session = world.run(client.open_session(0)).unwrap();
    let identity = Identity::Explicit { session, sequence: Sequence(7), acked_below: Sequence(1) };
    let make = || client.create_namespace_as("shop", NamespaceOptions::default(), identity);
    let first = world.run(make()).unwrap();
    assert_eq!(world.run(make()).unwrap(), first);
    let other = Identity::Explicit { session, sequence: Sequence(8), acked_below: Sequence(1) };
    let again = client.create_namespace_as("shop", NamespaceOptions::default(), other);
    assert_eq!(end(world.run(again)), (Code::NamespaceExists, Outcome::NotDone));
    world.run(client.close_session(session)).unwrap();
    assert_eq!(end(world.run(make())), (Code::SessionExpired, Outcome::Unknown));
}

#[test]
fn lists_are_read_page_by_page() {
    let mut world = world();
    let client = world.client.clone();
    for name in ["a", "b", "c", "d"] {
        world.run(client.create_namespace(name, NamespaceOptions::default())).unwrap();
        world.run(client.namespace("default").kv(name).put("k", "v")).unwrap();
    }
    let names = ["a", "b", "c", "d", "default"];
    let listed = world.run(client.namespaces()).unwrap();
    assert!(listed.iter().map(|namespace| &namespace.name).eq(names));
    let listed = world.run(client.cluster()).unwrap();
    assert!(listed.namespaces.iter().map(|namespace| &namespace.name).eq(names));
    assert_eq!((listed.nodes.len(), listed.next), (1, None));
    let page = world.run(client.cluster_page("b", 2)).unwrap();
    assert!(page.namespaces.iter().map(|namespace| &namespace.name).eq(["b", "c"]));
    assert_eq!(page.next.as_deref(), Some("d"));
    let shop = client.namespace("default");
    let described = world.run(shop.describe()).unwrap();
    assert!(described.keyspaces.iter().map(|keyspace| &keyspace.name).eq(["a", "b", "c", "d"]));
    assert_eq!(described.next, None);
    let page = world.run(shop.describe_page(Some(Named::Keyspace("b".into())), 0)).unwrap();
    assert_eq!((page.keyspaces.len(), page.next), (2, Some(Named::Keyspace("d".into()))));
    let bad = world.run(shop.describe_page(None, 10_001));
    assert_eq!(end(bad), (Code::TooLarge, Outcome::NotDone));
}

#[test]
fn without_a_session_a_lost_reply_is_never_asked_for_again() {
    let mut world = world();
    let shop = world.client.namespace("default");
    let mut draft = Draft::default();
    draft.append("orders", &b"one"[..]).unwrap();
    world.fake.faults.push_back(Fault::LoseReply);
    let mut commit = pin!(shop.commit_draft(&draft, Identity::None));
    while world.fake.seen.is_empty() {
        assert!(world.poll(&mut commit).is_pending());
        world.pump();
    }
    world.reconnect();
    assert_eq!(end(world.run(commit)), (Code::Interrupted, Outcome::Unknown));
    // What was certainly not done is tried again.
    world.fake.faults.push_back(refuse(Code::Unavailable));
    world.run(shop.commit_draft(&draft, Identity::None)).unwrap();
    assert_eq!(world.fake.seen.len(), 3);
}

#[test]
fn an_expired_session_is_renewed_unless_a_commit_is_in_doubt() {
    let mut world = world();
    let shop = world.client.namespace("default");
    let kv = shop.kv("users");
    world.run(kv.put("a", "1")).unwrap();
    // Not in doubt: sent once, answered that the session is gone, so it was not applied.
    world.fake.shard().sessions.clear();
    world.run(kv.put("a", "2")).unwrap();
    let [.., old, new] = world.fake.seen[..] else { panic!("{:?}", world.fake.seen) };
    assert_ne!(old.session, new.session);
    assert_eq!(new.sequence, Sequence(1));
    // In doubt: its first reply was lost, and nothing remembers it.
    world.fake.faults.push_back(Fault::LoseReply);
    let mut put = pin!(kv.put("a", "3"));
    assert!(world.poll(&mut put).is_pending());
    world.pump();
    world.fake.shard().sessions.clear();
    world.reconnect();
    assert_eq!(end(world.run(put)), (Code::SessionExpired, Outcome::Unknown));
    // The next one has a session again.
    world.run(kv.put("a", "4")).unwrap();
    assert_eq!(world.fake.seen.last().unwrap().sequence, Sequence(1));
}

#[test]
fn a_callers_own_session_is_passed_through() {
    let mut world = world();
    let shop = world.client.namespace("default");
    let session = world.run(shop.open_session(0)).unwrap();
    let mut draft = Draft::default();
    draft.append("orders", &b"one"[..]).unwrap();
    let identity = Identity::Explicit { session, sequence: Sequence(7), acked_below: Sequence(1) };
    let first = world.run(shop.commit_draft(&draft, identity)).unwrap();
    let again = world.run(shop.commit_draft(&draft, identity)).unwrap();
    assert!(!first.duplicate && again.duplicate && first.offset == again.offset);
    world.run(shop.close_session(session)).unwrap();
    let gone = world.run(shop.commit_draft(&draft, identity));
    assert_eq!(end(gone), (Code::SessionExpired, Outcome::Unknown));
    assert!(world.fake.seen.iter().all(|seen| seen.session == session));
}

#[test]
fn overload_is_waited_out_or_told() {
    let mut world = world();
    let kv = world.client.namespace("default").kv("users");
    world.run(kv.put("a", "1")).unwrap();
    world.fake.faults.extend([refuse(Code::Overloaded), refuse(Code::Overloaded)]);
    world.run(kv.put("a", "2")).unwrap();
    let [.., first, second, third] = world.fake.seen[..] else { panic!("three attempts") };
    assert_eq!((first, second), (second, third));
    // To the end of its time: the error tells that it was not done.
    world.fake.faults.extend((0..1000).map(|_| refuse(Code::Overloaded)));
    assert_eq!(end(world.run(kv.put("a", "3"))), (Code::Overloaded, Outcome::NotDone));
    assert!(world.now_ms >= 25_000, "{}", world.now_ms);

    let mut world = World::new(Options { on_overload: OnOverload::Refuse, ..Options::default() });
    let kv = world.client.namespace("default").kv("users");
    world.fake.other_faults.push_back(refuse(Code::Overloaded));
    assert_eq!(end(world.run(kv.get("a"))), (Code::Overloaded, Outcome::NotDone));
    world.fake.faults.push_back(refuse(Code::Overloaded));
    assert_eq!(end(world.run(kv.put("a", "1"))), (Code::Overloaded, Outcome::NotDone));
    world.run(kv.put("a", "1")).unwrap();
}

/// Why: a retry may meet a node that refuses it before it looks at the session; that says nothing
/// of the attempt before.
#[test]
fn a_commit_in_doubt_stays_in_doubt_whatever_its_retry_is_told() {
    let mut world = world();
    let kv = world.client.namespace("default").kv("users");
    world.run(kv.put("a", "1")).unwrap();
    for code in [Code::DiskFull, Code::Corrupt] {
        // It is done, its reply is lost with the connection, and the next node refuses it.
        world.fake.faults.extend([Fault::LoseReply, refuse(code)]);
        let mut put = pin!(kv.put("a", "2"));
        assert!(world.poll(&mut put).is_pending());
        world.pump();
        world.reconnect();
        assert_eq!(end(world.run(put)), (code, Outcome::Unknown));
        // Without a doubt it is what its code says.
        world.fake.faults.push_back(refuse(code));
        assert_eq!(end(world.run(kv.put("a", "3"))), (code, Outcome::NotDone));
    }
    // The namespace was removed meanwhile.
    world.fake.faults.extend([
        refuse(Code::Interrupted),
        refuse(Code::NamespaceNotFound),
        refuse(Code::NamespaceNotFound),
    ]);
    let gone = (Code::NamespaceNotFound, Outcome::Unknown);
    assert_eq!(end(world.run(kv.put("a", "4"))), gone);

    let mut world = World::new(Options { on_overload: OnOverload::Refuse, ..Options::default() });
    let kv = world.client.namespace("default").kv("users");
    world.run(kv.put("a", "1")).unwrap();
    // Whoever led does not any more; whoever leads now has too much under way.
    world.fake.faults.extend([refuse(Code::Interrupted), refuse(Code::Overloaded)]);
    assert_eq!(end(world.run(kv.put("a", "2"))), (Code::Overloaded, Outcome::Unknown));
}

#[test]
fn deadlines_tell_what_is_known() {
    let mut world = World::new(Options { timeout_ms: 500, ..Options::default() });
    let kv = world.client.namespace("default").kv("users");
    // Sent, and never answered.
    world.fake.faults.push_back(Fault::LoseReply);
    assert_eq!(end(world.run(kv.put("a", "1"))), (Code::TimedOut, Outcome::Unknown));
    // Its number was settled: nothing asks for it any more.
    world.run(kv.put("a", "2")).unwrap();
    assert_eq!(world.fake.seen.last().unwrap().acked_below, Sequence(2));
    // Nothing about a read can be unknown.
    world.fake.other_faults.push_back(Fault::LoseReply);
    assert_eq!(end(world.run(kv.get("a"))), (Code::Unavailable, Outcome::NotDone));
    // Never sent.
    world.link.down("a test");
    assert_eq!(end(world.run(kv.put("a", "3"))), (Code::TimedOut, Outcome::NotDone));
    assert_eq!(end(world.run(kv.get("a"))), (Code::Unavailable, Outcome::NotDone));
    world.link.up();
    assert_eq!(world.run(kv.get("a")).unwrap(), Some(b"2".to_vec()));
    assert!(!world.link.is_busy());
}

/// Why: leadership that was handed over stays so, although nobody was told.
#[test]
fn a_transfer_whose_reply_was_lost_is_in_doubt() {
    let mut world = World::new(Options { timeout_ms: 500, ..Options::default() });
    let client = world.client.clone();
    let transfer = || client.transfer("default", NodeId(7));
    // The look at where the namespace is, then the transfer.
    world.fake.other_faults.extend([Fault::None, Fault::LoseReply]);
    assert_eq!(end(world.run(transfer())), (Code::TimedOut, Outcome::Unknown));
    // The reply is lost with the connection, and whoever is asked again refuses.
    world.fake.other_faults.extend([Fault::None, Fault::LoseReply]);
    let mut again = pin!(transfer());
    while !world.fake.other_faults.is_empty() {
        assert!(world.poll(&mut again).is_pending());
        world.pump();
    }
    world.reconnect();
    assert_eq!(end(world.run(again)), (Code::BadArgument, Outcome::Unknown));
    // What was only asked was not done.
    world.fake.other_faults.extend([Fault::LoseReply]);
    assert_eq!(end(world.run(transfer())), (Code::Unavailable, Outcome::NotDone));
    assert_eq!(end(world.run(transfer())), (Code::BadArgument, Outcome::NotDone));
}

#[test]
fn the_cores_own_questions_are_asked_again() {
    for fault in [Fault::LoseRequest, Fault::LoseReply, refuse(Code::Unavailable)] {
        let mut world = world();
        let kv = world.client.namespace("default").kv("users");
        // The route, then the session.
        world.fake.other_faults.extend([fault.clone(), Fault::None, fault]);
        world.run(kv.put("a", "1")).unwrap();
        assert_eq!(world.fake.seen.len(), 1);
    }
    // What will not pass by itself is told.
    let mut world = world();
    let kv = world.client.namespace("default").kv("users");
    world.fake.other_faults.extend([Fault::None, refuse(Code::DiskFull)]);
    assert_eq!(end(world.run(kv.put("a", "1"))), (Code::DiskFull, Outcome::NotDone));
    world.run(kv.put("a", "1")).unwrap();
}

/// Nobody polls while they are lost, refused and sent again: they come back together, not one round
/// trip after the other.
#[test]
fn submitted_commits_are_sent_again_by_themselves() {
    let mut world = world();
    let shop = world.client.namespace("default");
    world.run(shop.kv("users").put("a", "0")).unwrap();
    let append = |i: usize| shop.submit(Commit::new().append("orders", vec![i as u8]));
    let commits: Vec<_> = (0..2 * SESSION_WINDOW_MAX).map(append).collect();
    // They are done, and all replies are lost with the connection.
    let mut bytes = Vec::new();
    assert!(world.link.take(&mut bytes));
    drop(world.fake.handle(&bytes));
    world.fake.faults.extend((0..SESSION_WINDOW_MAX).map(|_| refuse(Code::NotLeader)));
    world.reconnect();
    while world.pump() {}
    assert_eq!(world.fake.seen.len(), 1 + 2 * SESSION_WINDOW_MAX);
    world.tick(10);
    world.tick(1_000);
    while world.pump() {}
    assert_eq!(world.fake.seen.len(), 1 + 3 * SESSION_WINDOW_MAX);
    for commit in commits {
        world.run(commit).unwrap();
    }
    assert_eq!(world.fake.seen.len(), 1 + 4 * SESSION_WINDOW_MAX);
    assert_eq!(world.fake.shard().records("orders"), 2 * SESSION_WINDOW_MAX);
    // What was never received is received in the order in which it was submitted.
    let commits: Vec<_> = (0..200).map(append).collect();
    assert!(world.link.take(&mut bytes));
    world.reconnect();
    for commit in commits {
        world.run(commit).unwrap();
    }
    let values = world.fake.shard().values("orders");
    let last = &values[2 * SESSION_WINDOW_MAX..];
    assert!(last.iter().map(|value| value[0]).eq(0..200));
    // What can't be sent is told to whoever awaits it, and stops nothing.
    let bad = shop.submit(Commit::new().put("users", "", "no key"));
    let good = append(0);
    assert_eq!(end(world.run(bad)), (Code::KeySize, Outcome::NotDone));
    world.run(good).unwrap();
    // Dropped before it was sent, it never is.
    world.link.down("a test");
    let sent = world.fake.seen.len();
    drop(append(1));
    world.link.up();
    while world.pump() {}
    assert_eq!(world.fake.seen.len(), sent);
}

#[test]
fn replies_that_nobody_takes_are_dropped_and_asked_for_again() {
    let mut world = world();
    let kv = world.client.namespace("default").kv("files");
    world.run(kv.put("large", vec![7; VALUE_BYTES_MAX])).unwrap();
    let fit = CLIENT_REPLY_BYTES_MAX / VALUE_BYTES_MAX;
    let mut reads: Vec<_> = (0..fit + 3).map(|_| Box::pin(kv.get("large"))).collect();
    for read in &mut reads {
        assert!(world.poll(read).is_pending());
    }
    while world.pump() {}
    let asked = |world: &World| world.fake.kinds.iter().filter(|kind| **kind == Kind::Read).count();
    assert_eq!(asked(&world), fit + 3);
    // The newest are there, at once; the oldest have to be asked for again.
    for read in &mut reads[3..] {
        assert!(world.poll(read).is_ready());
    }
    for read in reads.drain(..3) {
        assert_eq!(world.run(read).unwrap().map(|value| value.len()), Some(VALUE_BYTES_MAX));
    }
    assert_eq!(asked(&world), fit + 6);
    assert!(!world.link.is_busy());
}

#[test]
fn more_commits_than_a_window_holds_wait_for_their_turn() {
    let mut world = world();
    let shop = world.client.namespace("default");
    let total = 3 * SESSION_WINDOW_MAX;
    world.run(shop.kv("users").put("a", "0")).unwrap();
    let mut commits: Vec<_> =
        (0..total).map(|i| shop.submit(Commit::new().append("orders", vec![i as u8]))).collect();
    let mut bytes = Vec::new();
    assert!(world.link.take(&mut bytes));
    let replies = world.fake.handle(&bytes);
    assert_eq!(world.fake.seen.len(), 1 + SESSION_WINDOW_MAX);
    world.link.deliver(replies).unwrap();
    // A dropped one gives its place back too.
    drop(commits.swap_remove(0));
    let mut left = total - 1;
    while left > 0 {
        commits.retain_mut(|commit| match world.poll(commit) {
            Poll::Ready(result) => {
                result.unwrap();
                left -= 1;
                false
            }
            Poll::Pending => true,
        });
        world.pump();
        assert!(world.fake.seen.iter().all(|s| s.sequence.0 - s.acked_below.0 < 1024));
    }
    assert_eq!(world.fake.shard().records("orders"), total);
    world.run(shop.kv("users").put("a", "1")).unwrap();
    let last = world.fake.seen.last().unwrap();
    assert_eq!(last.sequence, last.acked_below);
}

#[test]
fn transactions_conflict_and_are_run_again() {
    let mut world = world();
    let shop = world.client.namespace("default");
    let kv = shop.kv("acct");
    world.run(kv.put("a", "10")).unwrap();
    world.run(kv.put("b", "1")).unwrap();
    let mut transaction = shop.transaction();
    assert_eq!(world.run(transaction.get("acct", "a")).unwrap(), Some(b"10".to_vec()));
    transaction.put("acct", "a", "11").unwrap();
    assert_eq!(world.run(transaction.get("acct", "a")).unwrap(), Some(b"11".to_vec()));
    world.run(kv.put("a", "99")).unwrap();
    assert!(world.run(transaction.commit()).unwrap_err().is_conflict());

    let mut transaction = shop.transaction();
    assert_eq!(world.run(transaction.range("acct", "", None, 10)).unwrap().len(), 2);
    transaction.append("ledger", "two accounts").unwrap();
    world.run(kv.put("c", "1")).unwrap();
    assert!(world.run(transaction.commit()).unwrap_err().is_conflict());

    let mut runs = 0;
    world.fake.faults.push_back(refuse(Code::ConditionFailed));
    let (value, _) = world
        .run(shop.transact(3, async |t| {
            runs += 1;
            let rows = t.prefix("acct", "a", 10).await?;
            t.put("acct", "sum", rows[0].value.clone())?;
            Ok(rows.len())
        }))
        .unwrap();
    assert_eq!((value, runs), (1, 2));
    let only_read = world.run(shop.transact(1, async |t| t.get("acct", "zz").await)).unwrap();
    assert_eq!(only_read.0, None);
}

#[test]
fn an_unwelcome_client_and_a_closed_one_are_told() {
    let mut world = world();
    let kv = world.client.namespace("default").kv("users");
    assert!(!world.link.is_welcome());
    world.pump();
    assert!(world.link.is_welcome());
    world.reconnect();
    assert!(!world.link.is_welcome());
    world.fake.unwelcome = Some(Failure::new(Code::Unauthorized, "the token is wrong"));
    assert_eq!(end(world.run(kv.get("a"))), (Code::Unauthorized, Outcome::NotDone));
    assert_eq!(end(world.run(kv.get("a"))), (Code::Unauthorized, Outcome::NotDone));

    let mut world = self::world();
    let kv = world.client.namespace("default").kv("users");
    world.run(kv.put("a", "1")).unwrap();
    let mut get = Box::pin(kv.get("a"));
    assert!(world.poll(&mut get).is_pending());
    let mut put = Box::pin(kv.put("a", "2"));
    assert!(world.poll(&mut put).is_pending());
    world.link.down("a test");
    world.link.close();
    // What was sent may have been done, if it does anything.
    assert_eq!(end(world.run(get)), (Code::ShuttingDown, Outcome::NotDone));
    assert_eq!(end(world.run(put)), (Code::ShuttingDown, Outcome::Unknown));
    assert_eq!(end(world.run(kv.get("a"))), (Code::ShuttingDown, Outcome::NotDone));
    assert!(!world.link.is_gone());
    let link = world.link.clone();
    drop((world, kv));
    assert!(link.is_gone());
}

#[test]
fn garbage_is_no_reply() {
    let world = world();
    assert!(world.link.deliver(b"HTTP/1.1 400 Bad Request".to_vec()).is_err());
    let mut bytes = Vec::new();
    assert!(world.link.take(&mut bytes));
    assert!(world.link.deliver(bytes.clone()).is_err(), "requests are no replies");
    assert!(world.link.deliver(bytes[..30].to_vec()).is_err());
}
