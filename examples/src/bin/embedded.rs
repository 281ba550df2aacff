//! The smallest program: a node inside this process, a row, an event, and one commit that does
//! both.
#![allow(clippy::print_stdout, reason = "an example prints")]

use naust_client::{Namespace, ReadOptions};
use naust_wire::Offset;

fn main() -> anyhow::Result<()> {
    naust_examples::tell(story)
}

async fn story(namespace: Namespace) -> anyhow::Result<()> {
    let users = namespace.kv("users");
    let version = users.put("alice", "pro").await?;
    println!("alice was put at offset {version}");

    // One commit: the row and the event happen together, or not at all.
    let done = namespace
        .commit(|commit| commit.put("users", "bob", "free").append("signups", "bob"))
        .await?;
    println!("bob signed up at offset {}; the event's id is {}", done.offset, done.ids[0]);

    let signups = namespace.stream("signups").read(Offset::ZERO, ReadOptions::default()).await?;
    assert_eq!(signups.records[0].value, b"bob");
    assert_eq!(users.get("bob").await?.as_deref(), Some(&b"free"[..]));
    Ok(())
}
