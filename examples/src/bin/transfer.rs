//! Money moves between accounts while many tasks move some at once, and every transfer leaves an
//! event. No outbox: the two rows and the event are one commit, on the condition that the rows are
//! still what was read.
#![allow(clippy::print_stdout, reason = "an example prints")]

use anyhow::Context as _;
use naust_client::{Error, Namespace, ReadOptions};
use naust_wire::Offset;

const ACCOUNTS: u64 = 5;
const START: u64 = 1_000;
const TASKS: u64 = 8;
const TRANSFERS: u64 = 25;

fn main() -> anyhow::Result<()> {
    naust_examples::tell(story)
}

async fn story(namespace: Namespace) -> anyhow::Result<()> {
    for account in 0..ACCOUNTS {
        namespace.kv("accounts").put(account.to_string(), START.to_string()).await?;
    }
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..TASKS {
        let namespace = namespace.clone();
        tasks.spawn(async move {
            for round in 0..TRANSFERS {
                let (from, to) = ((task + round) % ACCOUNTS, (task * round + 1) % ACCOUNTS);
                if from != to {
                    transfer(&namespace, from, to, 1 + round % 7).await?;
                }
            }
            anyhow::Ok(())
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }

    let rows = namespace.kv("accounts").range::<&[u8]>(..).next_page().await?;
    let rows = rows.context("there are accounts")?.entries;
    let mut total = 0;
    for row in &rows {
        total += amount(Some(&row.value));
    }
    let stream = namespace.stream("transfers");
    let (mut events, mut from) = (0, Offset::ZERO);
    loop {
        let read = stream.read(from, ReadOptions::default()).await?;
        if read.records.is_empty() {
            break;
        }
        events += read.records.len();
        from = read.next;
    }
    println!("{events} transfers; {} accounts hold {total}", rows.len());
    assert_eq!(total, ACCOUNTS * START, "money was made or lost");
    Ok(())
}

/// Moves money if there is enough, as often as it takes to find the accounts unchanged.
async fn transfer(namespace: &Namespace, from: u64, to: u64, sum: u64) -> Result<(), Error> {
    let (from, to) = (from.to_string(), to.to_string());
    loop {
        let mut transaction = namespace.transaction();
        let left = amount(transaction.get("accounts", &from).await?.as_deref());
        let right = amount(transaction.get("accounts", &to).await?.as_deref());
        if left < sum {
            return Ok(());
        }
        transaction.put("accounts", &from, (left - sum).to_string())?;
        transaction.put("accounts", &to, (right + sum).to_string())?;
        transaction.append("transfers", format!("{from} {to} {sum}"))?;
        match transaction.commit().await {
            Err(error) if error.is_conflict() => {} // Somebody was faster: read again.
            ended => return ended.map(drop),
        }
    }
}

fn amount(value: Option<&[u8]>) -> u64 {
    value.and_then(|bytes| std::str::from_utf8(bytes).ok()?.parse().ok()).unwrap_or(0)
}
