//! Futures that are dropped half way, embedded and over a socket, and ends in their midst.
//!
//! What the client's own tests show against a server that is made for them
//! (`crates/client/tests/cancel.rs`: every future, every await point, nothing left in its tables)
//! is shown here with a real node: nothing lost, nothing doubled, nothing half done, and an end in
//! time.

use crate::ledger::{self, Found, Ledger};
use crate::support::{DEADLINE, block_on, connect};
use naust::{Config, Naust};
use naust_client::{Client, Commit, Error, Level, Namespace, Offset, Options, ReadOptions};
use naust_wire::limits::SESSION_WINDOW_MAX;
use naust_wire::options::{KeyspaceOptions, NamespaceOptions, StreamOptions};
use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// Most polls before a future is dropped: more than any of them needs.
const POLLS_MAX: usize = 6;
/// One that waits for what never comes is dropped then.
const PATIENCE: Duration = Duration::from_millis(50);
/// How long an end may take in which nothing has to be waited for: far less than the node's own
/// limit for what is under way.
const END_MAX: Duration = Duration::from_secs(8);

type Boxed = Pin<Box<dyn Future<Output = Result<(), Error>> + Send>>;

/// Every public future that is no commit of the ledger, by name.
fn futures(client: &Client, number: u64) -> Vec<(&'static str, Boxed)> {
    let mut all: Vec<(&'static str, Boxed)> = Vec::new();
    macro_rules! future {
        ($name:literal, $holder:ident = $make:expr, $future:expr) => {{
            let $holder = $make;
            all.push(($name, Box::pin(async move { $future.await.map(|_| ()) })));
        }};
    }
    let ns = || client.namespace("default");
    let (kv, stream) = (|| ns().kv("others"), || ns().stream("other events"));
    let key = format!("{number}");
    let name = format!("n{number}");
    future!("put", kv = (kv(), key.clone()), kv.0.put(kv.1.as_str(), "1"));
    future!("put_if", kv = (kv(), key.clone()), kv.0.put_if(kv.1.as_str(), "2", Offset::ZERO));
    future!("get", kv = kv(), kv.get("a"));
    future!("get_at", kv = kv(), kv.get_at("a", Level::Local));
    future!("delete", kv = kv(), kv.delete("a"));
    future!("delete_range", kv = kv(), kv.delete_range("x".."y"));
    future!("keyspace options", kv = kv(), kv.set_options(KeyspaceOptions::default()));
    future!("page", scan = kv().range::<&str>(..), async { scan.clone().next_page().await });
    future!("row", scan = kv().prefix("a"), async { scan.clone().next().await });
    future!("append", stream = stream(), stream.append("1"));
    future!("append_many", stream = stream(), stream.append_many(["1", "2"]));
    future!("stream options", s = stream(), s.set_options(StreamOptions::default()));
    future!("read", s = stream(), s.read(Offset::FIRST, ReadOptions::default()));
    future!("follow", s = stream(), async { s.follow(Offset::MAX).next().await });
    future!("cursor", s = stream(), async { s.cursor("c").get().await });
    future!("advance", s = stream(), async { s.cursor("c").advance(Offset::FIRST).await });
    future!("submit", ns = ns(), ns.submit(Commit::new().put("others", "s", "1")));
    future!("describe", ns = ns(), ns.describe());
    future!("log", ns = ns(), ns.log(Offset::FIRST, 0, 0));
    future!("wait for the log", ns = ns(), ns.log(Offset(1 << 60), 0, 20_000));
    future!("session", ns = ns(), async { ns.close_session(ns.open_session(0).await?).await });
    future!("transact", ns = ns(), async {
        ns.transact(3, async |t| {
            let found = t.get("others", "t").await?;
            t.put("others", "t", found.unwrap_or_default())
        })
        .await
    });
    future!("namespaces", client = client.clone(), client.namespaces());
    future!("cluster", client = client.clone(), client.cluster());
    future!("create and delete", c = (client.clone(), name), async {
        c.0.create_namespace(&c.1, NamespaceOptions::default()).await?;
        c.0.delete_namespace(&c.1).await
    });
    all
}

/// Polls a future at most so often, each time when it was woken, and drops it; what it came to, if
/// it ended before.
async fn poll_times<F: Future>(times: usize, future: F) -> Option<F::Output> {
    let (mut future, mut polls) = (std::pin::pin!(future), 0);
    poll_fn(|context| {
        if polls == times {
            return Poll::Ready(None);
        }
        polls += 1;
        match future.as_mut().poll(context) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending if polls == times => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

fn open(directory: &std::path::Path) -> Naust {
    let config = Config { listen: "127.0.0.1:0".to_owned(), ..Config::embedded(directory) };
    Naust::open(Config { workers: 2, ..config }).unwrap()
}

fn address(naust: &Naust) -> String {
    naust.native_address().unwrap().to_string()
}

/// Drops commits after every number of polls, more than a session may have open.
async fn drop_commits(namespace: &Namespace, first: u64, ledger: &mut Ledger) {
    for number in first..first + SESSION_WINDOW_MAX as u64 + 100 {
        let commit = namespace.commit(move |_| ledger::commit(number));
        match poll_times(number as usize % 3, commit).await {
            Some(committed) => ledger.acknowledge(number, &committed.unwrap()),
            None if number % 3 > 0 => drop(ledger.unknown.insert(number)),
            // Never polled: it must not be there.
            None => {}
        }
    }
}

#[test]
fn every_future_of_a_real_node_can_be_dropped_at_every_await_point() {
    let directory = tempfile::tempdir().unwrap();
    let naust = open(directory.path());
    let mut ledger = Ledger::default();
    block_on(async {
        let clients = [naust.client(), connect(&address(&naust)).await];
        for (which, client) in clients.iter().enumerate() {
            for polls in 0..POLLS_MAX {
                let number = (which * POLLS_MAX + polls) as u64;
                for (_, future) in futures(client, number) {
                    // Whatever it came to: what follows shows that it harmed nothing.
                    drop(tokio::time::timeout(PATIENCE, poll_times(polls, future)).await);
                }
            }
            let namespace = client.namespace("default");
            drop_commits(&namespace, 1 + which as u64 * 1_000_000, &mut ledger).await;
            let last = 500_000 + which as u64 * 1_000_000;
            let committed = namespace.commit(move |_| ledger::commit(last)).await.unwrap();
            ledger.acknowledge(last, &committed);
        }
    });
    ledger.check(&block_on(Found::read(&address(&naust))).unwrap());
    let start = Instant::now();
    naust.shutdown().unwrap();
    assert!(start.elapsed() < END_MAX, "it waited for somebody who had left");
    drop(naust);
    let naust = open(directory.path());
    ledger.check(&block_on(Found::read(&address(&naust))).unwrap());
}

/// Why: a program ends when it ends. What is under way then is answered or told that it is not, and
/// nobody waits for the other.
#[test]
fn an_end_in_the_midst_of_everything_comes_in_time() {
    let directory = tempfile::tempdir().unwrap();
    let mut ledger = Ledger::default();
    for round in 0..4_u64 {
        let naust = open(directory.path());
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.worker_threads(2).enable_all().build().unwrap();
        let client = match round % 2 {
            0 => naust.client(),
            // It looks for its node until its own deadline.
            _ => runtime.block_on(async {
                let options = Options { stays: true, timeout_ms: 2_000, ..Options::default() };
                Client::connect_with([address(&naust)], options).await.unwrap()
            }),
        };
        let namespace = client.namespace("default");
        let first = 10_000 * (round + 1);
        let committed = runtime.block_on(namespace.commit(|_| ledger::commit(first))).unwrap();
        ledger.acknowledge(first, &committed);
        // Begun, and for the most part not ended, when the end comes.
        let mut others: Vec<(&str, Boxed)> = futures(&client, 100 + round);
        runtime.block_on(async {
            for (_, future) in &mut others {
                drop(poll_times(1, future.as_mut()).await);
            }
        });
        let commits: Vec<_> = (first + 1..first + 200)
            .map(|number| (number, namespace.submit(ledger::commit(number))))
            .collect();
        // Each is awaited by itself, so that all find out at once.
        let mut awaiting = JoinSet::new();
        for (number, commit) in commits {
            awaiting.spawn_on(
                async move { Some((number, tokio::time::timeout(DEADLINE, commit).await)) },
                runtime.handle(),
            );
        }
        // One over a socket asks on until its own deadline, which is long for what waits for news.
        others.truncate(if round % 2 == 0 { others.len() } else { 0 });
        for (name, future) in others {
            let run = async move {
                let ended = tokio::time::timeout(DEADLINE, future).await;
                assert!(ended.is_ok(), "{name} hangs in round {round}");
                None
            };
            awaiting.spawn_on(run, runtime.handle());
        }
        let start = Instant::now();
        naust.shutdown().unwrap();
        assert!(start.elapsed() < END_MAX, "round {round} took {:?}", start.elapsed());
        drop(naust);
        drop((client, namespace));
        for (number, told) in runtime.block_on(awaiting.join_all()).into_iter().flatten() {
            match told.expect("a commit that hangs") {
                Ok(committed) => ledger.acknowledge(number, &committed),
                Err(_) => drop(ledger.unknown.insert(number)),
            }
        }
    }
    let naust = open(directory.path());
    ledger.check(&block_on(Found::read(&address(&naust))).unwrap());
}
