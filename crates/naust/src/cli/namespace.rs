//! `naust namespace`: what there is, and where.

use super::kv::done;
use super::output::Output;
use super::{AtCluster, cluster};
use clap::{Args, Subcommand};
use naust_client::{Client, Named, Namespace};
use naust_wire::limits::PAGE_ROWS_DEFAULT;
use naust_wire::options::{Durability, NamespaceOptions};
use naust_wire::reply::{Keyspace, Stream};
use serde_json::Value;

#[derive(Args)]
pub struct Command {
    #[command(flatten)]
    at: AtCluster,
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Make a namespace: a log of its own, with everything in one order.
    Create {
        /// Its name: 1 to 255 bytes, without `/` and control characters.
        name: String,
        /// Milliseconds of history that reads may go back; 0: the default.
        #[arg(long, default_value_t = 0)]
        history_ms: u64,
        /// Log bytes of history that reads may go back; 0: the default.
        #[arg(long, default_value_t = 0)]
        history_bytes: u64,
        /// Acknowledge what is written and sync it at most so many milliseconds later: a power cut
        /// may take the last of it, a kill may not. Only while the namespace has one replica.
        #[arg(long)]
        interval_ms: Option<u32>,
    },
    /// List the namespaces, in the order of their names.
    List {
        /// Begin with this name.
        #[arg(long, default_value = "")]
        from: String,
        /// List at most so many; without it all.
        #[arg(long)]
        limit: Option<usize>,
    },
    /// What a namespace has: its keyspaces and streams, with their options, sizes and cursors.
    Describe {
        /// Its name.
        name: String,
        /// Begin with this keyspace, `kv/KEYSPACE`, or this stream, `streams/STREAM`.
        #[arg(long, value_parser = named)]
        from: Option<Named>,
        /// Describe at most so many keyspaces and streams; without it all.
        #[arg(long)]
        limit: Option<usize>,
    },
    /// Remove a namespace and everything in it.
    Delete {
        /// Its name.
        name: String,
        /// At once, without a quorum of its replicas: if most of them are lost for good. What those
        /// that are left acknowledge until they hear of it is lost.
        #[arg(long)]
        force: bool,
    },
}

impl Command {
    pub async fn run(self) -> anyhow::Result<()> {
        let client = self.at.client().await?;
        let mut out = Output::new();
        match self.what {
            What::Create { name, history_ms, history_bytes, interval_ms } => {
                let durability = interval_ms.map_or(Durability::Quorum, Durability::IntervalMs);
                let options = NamespaceOptions { history_ms, history_bytes, durability };
                done(&mut out, self.at.json, client.create_namespace(&name, options).await?)
            }
            What::List { from, limit } => list(&client, &mut out, self.at.json, from, limit).await,
            What::Describe { name, from, limit } => {
                let namespace = client.namespace(&name);
                describe(&namespace, &mut out, self.at.json, from, limit).await
            }
            What::Delete { name, force } => {
                let offset = match force {
                    true => {
                        client.force_delete_namespace(&name, naust_client::Identity::Client).await?
                    }
                    false => client.delete_namespace(&name).await?,
                };
                done(&mut out, self.at.json, offset)
            }
        }
    }
}

/// `kv/KEYSPACE` or `streams/STREAM`.
fn named(text: &str) -> Result<Named, String> {
    match text.split_once('/') {
        Some(("kv", name)) => Ok(Named::Keyspace(name.to_owned())),
        Some(("streams", name)) => Ok(Named::Stream(name.to_owned())),
        _ => Err("give kv/KEYSPACE or streams/STREAM".to_owned()),
    }
}

/// How many the next page may have, if there is to be one.
fn page(left: usize) -> Option<u32> {
    (left > 0).then(|| left.min(PAGE_ROWS_DEFAULT) as u32)
}

async fn list(
    client: &Client,
    out: &mut Output,
    json: bool,
    mut from: String,
    limit: Option<usize>,
) -> anyhow::Result<()> {
    let mut left = limit.unwrap_or(usize::MAX);
    while let Some(limit) = page(left) {
        let seen = client.cluster_page(&from, limit).await?;
        for namespace in &seen.namespaces {
            cluster::print(out, json, namespace, &seen.nodes)?;
        }
        left -= seen.namespaces.len();
        match seen.next {
            Some(next) => from = next,
            None => break,
        }
    }
    Ok(())
}

async fn describe(
    namespace: &Namespace,
    out: &mut Output,
    json: bool,
    mut from: Option<Named>,
    limit: Option<usize>,
) -> anyhow::Result<()> {
    let mut left = limit.unwrap_or(usize::MAX);
    while let Some(limit) = page(left) {
        let seen = namespace.describe_page(from, limit).await?;
        seen.keyspaces.iter().try_for_each(|one| keyspace(out, json, one))?;
        seen.streams.iter().try_for_each(|one| stream(out, json, one))?;
        left -= seen.keyspaces.len() + seen.streams.len();
        match seen.next {
            Some(next) => from = Some(next),
            None => break,
        }
    }
    Ok(())
}

fn keyspace(out: &mut Output, json: bool, keyspace: &Keyspace) -> anyhow::Result<()> {
    let mut told = naust_gateway::keyspace_json(keyspace);
    if json {
        told["keyspace"] = told["name"].take();
        return out.json(&without_name(told));
    }
    let Keyspace { name, rows_estimate, bytes, .. } = keyspace;
    let options = settings(&told["options"]);
    out.line(&format!("keyspace {name} about {rows_estimate} rows, {bytes} bytes on disk{options}"))
}

fn stream(out: &mut Output, json: bool, stream: &Stream) -> anyhow::Result<()> {
    let mut told = naust_gateway::stream_json(stream);
    if json {
        told["stream"] = told["name"].take();
        return out.json(&without_name(told));
    }
    let Stream { name, records, bytes, first, end, cursors, .. } = stream;
    let options = settings(&told["options"]);
    let cursors: String =
        cursors.iter().map(|(cursor, offset)| format!(", cursor {cursor} at {offset}")).collect();
    out.line(&format!(
        "stream {name} {records} records, {bytes} bytes, from {first} to {end}{options}{cursors}"
    ))
}

fn without_name(mut told: Value) -> Value {
    if let Some(object) = told.as_object_mut() {
        object.remove("name");
    }
    told
}

/// The options that limit or choose something.
fn settings(options: &Value) -> String {
    let options = options.as_object().into_iter().flatten();
    let set = options.filter(|(_, value)| **value != 0);
    set.map(|(name, value)| match value.as_str() {
        Some(text) => format!(", {name} {text}"),
        None => format!(", {name} {value}"),
    })
    .collect()
}
