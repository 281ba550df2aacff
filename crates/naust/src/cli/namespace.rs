//! `naust namespace` and `naust cluster`: what there is, and where.

use super::At;
use super::kv::done;
use super::output::Output;
use clap::{Args, Subcommand};
use naust_wire::options::{Durability, NamespaceOptions};
use naust_wire::reply::Namespace;
use serde_json::{Value, json};

#[derive(Args)]
pub struct Command {
    #[command(flatten)]
    at: At,
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Make a namespace: a log of its own, with everything in one order.
    Create {
        name: String,
        /// Milliseconds of history that reads may go back; 0: the default.
        #[arg(long, default_value_t = 0)]
        history_ms: u64,
        /// Log bytes of history that reads may go back; 0: the default.
        #[arg(long, default_value_t = 0)]
        history_bytes: u64,
        /// Acknowledge before the disk has it and sync every so many milliseconds: a power cut may
        /// lose the last of it.
        #[arg(long)]
        interval_ms: Option<u32>,
    },
    /// List the namespaces.
    List,
    /// Remove a namespace and everything in it.
    Delete { name: String },
}

#[derive(Args)]
pub struct Cluster {
    #[command(flatten)]
    at: At,
    #[command(subcommand)]
    what: Look,
}

#[derive(Subcommand)]
enum Look {
    /// Nodes and namespaces.
    Status,
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
            What::List => {
                let namespaces = client.namespaces().await?;
                namespaces.iter().try_for_each(|namespace| print(&mut out, self.at.json, namespace))
            }
            What::Delete { name } => {
                done(&mut out, self.at.json, client.delete_namespace(&name).await?)
            }
        }
    }
}

impl Cluster {
    pub async fn run(self) -> anyhow::Result<()> {
        let Look::Status = self.what;
        let cluster = self.at.client().await?.cluster().await?;
        let mut out = Output::new();
        for node in &cluster.nodes {
            let up = if node.up { "up" } else { "down" };
            if self.at.json {
                let (id, name) = (node.id.0.to_string(), &node.name);
                let address = &node.address;
                out.json(&json!({ "node": name, "id": id, "address": address, "up": node.up }))?;
            } else {
                out.line(&format!(
                    "node {} ({:016x}) {} {up}",
                    node.name, node.id.0, node.address
                ))?;
            }
        }
        cluster.namespaces.iter().try_for_each(|namespace| print(&mut out, self.at.json, namespace))
    }
}

fn print(out: &mut Output, json: bool, namespace: &Namespace) -> anyhow::Result<()> {
    let Namespace { name, shard, end, .. } = namespace;
    if json {
        let object: Value = json!({ "namespace": name, "shard": shard.0, "end": end.0 });
        return out.json(&object);
    }
    out.line(&format!("namespace {name} shard {shard} end {end}"))
}
