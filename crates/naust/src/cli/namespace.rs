//! `naust namespace`: what there is, and where.

use super::kv::done;
use super::output::Output;
use super::{At, cluster};
use clap::{Args, Subcommand};
use naust_wire::options::{Durability, NamespaceOptions};

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
                let seen = client.cluster().await?;
                let mut print = |one| cluster::print(&mut out, self.at.json, one, &seen.nodes);
                seen.namespaces.iter().try_for_each(&mut print)
            }
            What::Delete { name } => {
                done(&mut out, self.at.json, client.delete_namespace(&name).await?)
            }
        }
    }
}
