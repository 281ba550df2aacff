//! A consumer that counts words exactly once: what it computes and how far it has read are one
//! commit. It crashes (on purpose) after every few records, between reading and committing, and
//! comes back without counting anything twice.
#![allow(clippy::print_stdout, reason = "an example prints")]

use naust_client::{Namespace, ReadOptions};
use naust_wire::Offset;
use std::collections::BTreeMap;

const TEXT: &str = "the raft is in the boathouse and the boathouse is on the fjord";

fn main() -> anyhow::Result<()> {
    naust_examples::tell(story)
}

async fn story(namespace: Namespace) -> anyhow::Result<()> {
    namespace.stream("words").append_many(TEXT.split(' ')).await?;
    let mut lives = 1;
    while !consume(&namespace, lives).await? {
        lives += 1;
    }
    let mut counts = BTreeMap::new();
    let mut scan = namespace.kv("counts").range::<&[u8]>(..);
    while let Some(row) = scan.next().await? {
        counts.insert(String::from_utf8(row.key)?, String::from_utf8(row.value)?);
    }
    println!("{lives} lives, {counts:?}");
    assert_eq!(counts["the"], "4");
    assert_eq!(counts["boathouse"], "2");
    Ok(())
}

/// One life of the consumer: goes on where the cursor stands; whether everything is read.
async fn consume(namespace: &Namespace, life: u32) -> anyhow::Result<bool> {
    let words = namespace.stream("words");
    let mut from = words.cursor("counter").get().await?.unwrap_or(Offset::ZERO);
    for step in 0.. {
        let options = ReadOptions { limit: 2, ..ReadOptions::default() };
        let read = words.read(from, options).await?;
        if read.records.is_empty() {
            return Ok(true);
        }
        let mut counts: BTreeMap<String, u64> = BTreeMap::new();
        for record in &read.records {
            *counts.entry(String::from_utf8(record.value.clone())?).or_default() += 1;
        }
        if step == 2 && life < 4 {
            return Ok(false); // It "crashes" here: what it has read is not yet counted anywhere.
        }
        let mut commit = naust_client::Commit::new().advance("words", "counter", read.next);
        for (word, more) in counts {
            let before = namespace.kv("counts").get(&word).await?.unwrap_or_default();
            let before: u64 = String::from_utf8(before)?.parse().unwrap_or(0);
            commit = commit.put("counts", word, (before + more).to_string());
        }
        namespace.commit(|_| commit).await?;
        from = read.next;
    }
    unreachable!("the loop ends by returning")
}
