//! Every public future, dropped at every await point. Whatever was dropped when: nothing stays
//! behind in the client, and the next commit's `acked_below` shows that no sequence is left open.

#![allow(clippy::unwrap_used)]

#[allow(dead_code, clippy::unwrap_used)]
mod fake;

use fake::{Fault, World};
use naust_client::{
    Client, Commit, Error, Identity, Level, Namespace, Offset, Options, ReadOptions, SessionId,
};
use naust_wire::options::{KeyspaceOptions, NamespaceOptions, StreamOptions};
use naust_wire::reply::Failure;
use naust_wire::{Code, Outcome};
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::task::Poll;

type Boxed = Pin<Box<dyn Future<Output = Result<(), Error>>>>;

/// All of them, by name. Each owns what it needs, so that it can be dropped alone.
fn futures(client: &Client) -> Vec<(&'static str, Boxed)> {
    let ns = || client.namespace("default");
    let mut all: Vec<(&'static str, Boxed)> = Vec::new();
    macro_rules! future {
        ($name:literal, $holder:ident = $make:expr, $future:expr) => {{
            let $holder = $make;
            all.push(($name, Box::pin(async move { $future.await.map(|_| ()) })));
        }};
    }
    let kv = |ns: Namespace| ns.kv("users");
    let stream = |ns: Namespace| ns.stream("orders");
    future!("put", kv = kv(ns()), kv.put("a", "1"));
    future!("put_if", kv = kv(ns()), kv.put_if("b", "1", Offset::ZERO));
    future!("get", kv = kv(ns()), kv.get("a"));
    future!("get_at", kv = kv(ns()), kv.get_at("a", Level::Local));
    future!("delete", kv = kv(ns()), kv.delete("a"));
    future!("delete_range", kv = kv(ns()), kv.delete_range("x".."y"));
    future!("keyspace options", kv = kv(ns()), kv.set_options(KeyspaceOptions::default()));
    future!("scan page", scan = kv(ns()).range::<&str>(..), async {
        scan.clone().next_page().await
    });
    future!("scan row", scan = kv(ns()).prefix("a"), async { scan.clone().next().await });
    future!("append", stream = stream(ns()), stream.append("1"));
    future!("append_many", stream = stream(ns()), stream.append_many(["1", "2"]));
    future!("stream options", s = stream(ns()), s.set_options(StreamOptions::default()));
    future!("read", s = stream(ns()), s.read(Offset::FIRST, ReadOptions::default()));
    future!("follow", s = stream(ns()), async { s.follow(Offset::FIRST).next().await });
    future!("follow batch", s = stream(ns()), async { s.follow(Offset::FIRST).next_batch().await });
    future!("cursor", s = stream(ns()), async { s.cursor("c").get().await });
    future!("advance", s = stream(ns()), async { s.cursor("c").advance(Offset::FIRST).await });
    future!("commit", ns = ns(), ns.commit(|c| c.put("users", "a", "1").append("orders", "1")));
    future!("submit", ns = ns(), ns.submit(Commit::new().put("users", "a", "1")));
    future!("describe", ns = ns(), ns.describe());
    future!("log", ns = ns(), ns.log(Offset::FIRST, 0, 0));
    future!("open session", ns = ns(), ns.open_session(0));
    future!("close session", ns = ns(), ns.close_session(SessionId(5)));
    future!("commit_draft", ns = ns(), async {
        let draft = Commit::new().append("orders", "1").into_draft()?;
        ns.commit_draft(&draft, Identity::None).await
    });
    future!("transact", ns = ns(), async {
        ns.transact(3, async |t| {
            let found = t.get("users", "a").await?;
            t.range("users", "b", None, 10).await?;
            t.put("users", "c", found.unwrap_or_default())
        })
        .await
    });
    future!("namespaces", client = client.clone(), client.namespaces());
    future!("cluster", client = client.clone(), client.cluster());
    future!("create", c = client.clone(), c.create_namespace("more", NamespaceOptions::default()));
    future!("delete namespace", c = client.clone(), c.delete_namespace("more"));
    all
}

/// A world in which everything that is read exists.
fn world(warm: bool) -> World {
    let mut world = World::new(Options::default());
    let other = World::new(Options::default());
    let first = |c: Commit<'static>| c.put("users", "a", "0").append("orders", "0");
    let teller = if warm { &mut world } else { &mut { other } };
    let namespace = teller.client.namespace("default");
    teller.run(namespace.commit(first)).unwrap();
    if !warm {
        world.fake = std::mem::take(&mut teller.fake);
        world.fake.seen.clear();
    }
    world
}

/// Lets everything come to rest, then shows that nothing was left behind.
fn settle(world: &mut World, what: &str) {
    for _ in 0..10 {
        while world.pump() {}
        world.tick(10_000);
    }
    assert!(!world.link.is_busy(), "{what}: something stayed behind");
    let namespace = world.client.namespace("default");
    world.run(namespace.commit(|c| c.put("users", "z", "9"))).unwrap();
    let last = world.fake.seen.last().unwrap();
    assert_eq!(last.sequence, last.acked_below, "{what}: a sequence was left open");
}

#[test]
fn every_future_can_be_dropped_at_every_await_point() {
    for warm in [false, true] {
        let names: Vec<_> =
            futures(&world(warm).client).into_iter().map(|(name, _)| name).collect();
        for (index, name) in names.iter().enumerate() {
            let mut ended = false;
            for polls in 0..40 {
                let mut world = world(warm);
                let (_, mut future) = futures(&world.client).swap_remove(index);
                ended = (0..polls).any(|_| {
                    let ready = world.poll(&mut future).is_ready();
                    // Half of the drops come while a reply lies ready, half while it is still under
                    // way.
                    if !ready && polls % 2 == 0 {
                        world.pump();
                    }
                    if !ready && polls % 2 == 1 {
                        while world.pump() {}
                    }
                    ready
                });
                drop(future);
                settle(&mut world, &format!("{name}, warm {warm}, after {polls} polls"));
            }
            assert!(ended || *name == "follow", "{name} never ended");
        }
    }
}

#[test]
fn a_commit_dropped_before_it_is_sent_never_is_and_one_dropped_later_happens_once() {
    let mut world = world(true);
    let namespace = world.client.namespace("default");
    let before = world.fake.seen.len();
    drop(namespace.commit(|c| c.append("orders", "never polled")));
    world.link.down("a test");
    let mut unsent = Box::pin(namespace.commit(|c| c.append("orders", "not sent")));
    assert!(world.poll(&mut unsent).is_pending());
    drop(unsent);
    world.link.up();
    settle(&mut world, "unsent");
    assert_eq!(world.fake.seen.len(), before + 1);

    world.fake.faults.push_back(Fault::LoseReply);
    let mut sent = Box::pin(namespace.commit(|c| c.append("orders", "sent")));
    assert!(world.poll(&mut sent).is_pending());
    world.pump();
    drop(sent);
    world.reconnect();
    settle(&mut world, "sent");
    assert_eq!(world.fake.shard().records("orders"), 2);
}

#[test]
fn a_future_is_woken_once_for_its_reply_and_not_before() {
    let mut world = world(true);
    let kv = world.client.namespace("default").kv("users");
    let mut put = Box::pin(kv.put("a", "1"));
    assert!(world.poll(&mut put).is_pending());
    let woken = world.wakes.0.load(Ordering::Relaxed);
    for _ in 0..5 {
        world.tick(20);
    }
    assert_eq!(world.wakes.0.load(Ordering::Relaxed), woken);
    world.pump();
    assert_eq!(world.wakes.0.load(Ordering::Relaxed), woken + 1);
    assert!(world.poll(&mut put).is_ready());
}

#[test]
fn a_dropped_wait_for_a_place_lets_the_next_in() {
    let mut world = world(true);
    let namespace = world.client.namespace("default");
    let window = naust_wire::limits::SESSION_WINDOW_MAX;
    let mut full: Vec<_> =
        (0..window).map(|_| namespace.submit(Commit::new().append("orders", "1"))).collect();
    let mut waiting: Vec<_> =
        (0..3).map(|_| Box::pin(namespace.commit(|c| c.append("orders", "2")))).collect();
    assert!(waiting.iter_mut().all(|commit| world.poll(commit).is_pending()));
    drop(waiting.remove(0));
    world.pump();
    assert!(world.poll(&mut full.remove(0)).is_ready());
    // The place went to the first that was still there, though nobody polled it yet; dropped, it
    // goes on to the next.
    drop(waiting.remove(0));
    drop(full);
    let last = waiting.pop().unwrap();
    world.run(last).unwrap();
    settle(&mut world, "places");
    assert_eq!(world.fake.shard().records("orders"), 1 + window + 1);
}

/// Why: a node that ends tells its clients to try again elsewhere, and then its link is closed for
/// good. Whoever looks at that answer only afterwards must not wait for a pause that nobody ends.
#[test]
fn an_answer_that_lay_ready_when_the_link_was_closed_does_not_make_its_future_wait() {
    let mut world = world(true);
    let kv = world.client.namespace("default").kv("users");
    let leaving = Failure::new(Code::ShuttingDown, "the node is about to end");
    world.fake.faults.push_back(Fault::Refuse(leaving));
    let mut put = Box::pin(kv.put("a", "1"));
    assert!(world.poll(&mut put).is_pending());
    world.pump();
    world.link.close();
    let Poll::Ready(Err(error)) = world.poll(&mut put) else { panic!("it waits, or was done") };
    assert_eq!((error.code, error.outcome), (Code::ShuttingDown, Outcome::NotDone));
    assert!(!world.link.is_busy());
}
