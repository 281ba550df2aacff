//! `naust cluster`: who is in it, who comes, who goes, who leads.

use super::AtCluster;
use super::output::Output;
use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use naust_client::{Client, Cluster as Seen, NodeId, Options};
use naust_wire::limits::REPLICAS_DEFAULT;
use naust_wire::options::Durability;
use naust_wire::reply::{Namespace, Node};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// Milliseconds that a node may take to tell what it sees.
const ASK_MS: u64 = 2_000;

/// Between two looks at what is waited for.
const LOOK: Duration = Duration::from_millis(50);

#[derive(Args)]
pub struct Cluster {
    #[command(flatten)]
    at: AtCluster,
    /// Seconds to wait until what was asked for has come about.
    #[arg(long, global = true, default_value_t = 60)]
    wait_s: u64,
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Nodes and namespaces, as the node that is asked sees them, or, those that it has no replica
    /// of, others; where the log of a replica ends is told by its own node, if that is up, or else
    /// by the leader.
    Status,
    /// Say how a node is added; wait until it takes part.
    Add {
        /// The name that the new node is started with.
        node: String,
    },
    /// Take a node out of the cluster for good, by its name or id.
    Remove { node: String },
    /// Take a node out for which another one, added before, steps in.
    Replace { old: String, new: String },
    /// Hand the leadership of a namespace over to a node.
    Transfer { namespace: String, node: String },
}

impl Cluster {
    pub async fn run(self) -> anyhow::Result<()> {
        let client = self.at.client().await?;
        let until = Instant::now() + Duration::from_secs(self.wait_s);
        let (mut out, json) = (Output::new(), self.at.json);
        match self.what {
            What::Status => {
                let mut seen = client.cluster().await?;
                let told = ask_nodes(&seen).await;
                fill(&mut seen, &told);
                fill_ends(&mut seen, &told);
                status(&mut out, json, &seen)
            }
            What::Add { node } => {
                let seen = client.cluster().await?;
                if find(&seen, &node).is_err() {
                    let through = seen.nodes.iter().find(|node| node.up);
                    let through = through.map_or(&self.at.address, |node| &node.address);
                    let start = format!(
                        "naust serve --data DIR --listen HOST:PORT --name {node} --join {through}"
                    );
                    let told = format!(
                        "on the new machine, with an empty data directory, type:\n\n  {start}\n"
                    );
                    say(&mut out, json, &told, json!({ "start": start }))?;
                }
                let id = wait_to_know(&client, &node, until).await?;
                wait_to_take_part(&client, id, until).await?;
                say(&mut out, json, &format!("node {node} takes part"), json!({ "added": node }))
            }
            What::Remove { node } => {
                let seen = client.cluster().await?;
                let gone = find(&seen, &node)?.clone();
                let rest = remove(&seen, gone.id).await?;
                wait_to_be_gone(&rest, gone.id, until).await?;
                let told = format!("node {} is out of the cluster", gone.name);
                say(&mut out, json, &told, json!({ "removed": gone.name }))
            }
            What::Replace { old, new } => {
                let seen = client.cluster().await?;
                let (old, new) = (find(&seen, &old)?.clone(), find(&seen, &new)?.clone());
                if old.id == new.id {
                    bail!("a node can't step in for itself");
                }
                if !new.up {
                    bail!("node {} is down: start it before it steps in for another", new.name);
                }
                let rest = remove(&seen, old.id).await?;
                wait_to_be_gone(&rest, old.id, until).await?;
                wait_to_take_part(&rest, new.id, until).await?;
                let told = format!("node {} is out; node {} takes part", old.name, new.name);
                say(&mut out, json, &told, json!({ "removed": old.name, "added": new.name }))
            }
            What::Transfer { namespace, node } => {
                let to = find(&client.cluster().await?, &node)?.id;
                client.transfer(&namespace, to).await?;
                let leads = |seen: &Seen| {
                    seen.namespaces.iter().any(|one| one.name == namespace && one.leader == to)
                };
                let what = format!("node {node} to lead {namespace}");
                wait_until(&client, until, &what, leads).await?;
                let told = format!("node {node} leads {namespace}");
                say(&mut out, json, &told, json!({ "namespace": namespace, "leader": node }))
            }
        }
    }
}

/// Tells people one thing and machines the same.
fn say(out: &mut Output, json: bool, told: &str, object: Value) -> anyhow::Result<()> {
    if json { out.json(&object) } else { out.line(told) }
}

/// The nodes, and where all namespaces live: those that the node at the other end has no replica
/// of, others tell.
pub async fn see(client: &Client) -> anyhow::Result<Seen> {
    let mut seen = client.cluster().await?;
    if seen.namespaces.iter().any(|namespace| namespace.replicas.is_empty()) {
        let told = ask_nodes(&seen).await;
        fill(&mut seen, &told);
    }
    Ok(seen)
}

/// Asks all nodes that are up what they see. Who does not answer in time tells nothing.
async fn ask_nodes(seen: &Seen) -> Vec<(NodeId, Seen)> {
    let mut asked = tokio::task::JoinSet::new();
    for node in seen.nodes.iter().filter(|node| node.up && !node.address.is_empty()) {
        let (id, address) = (node.id, node.address.clone());
        asked.spawn(async move {
            let options = Options { stays: true, timeout_ms: ASK_MS, ..Options::default() };
            let told = Client::connect_with([address], options).await?.cluster().await?;
            Ok::<_, naust_client::Error>((id, told))
        });
    }
    let answers = asked.join_all().await;
    answers.into_iter().flatten().collect()
}

/// Fills in the namespaces of which nothing is known, best by what their leaders tell.
fn fill(seen: &mut Seen, told: &[(NodeId, Seen)]) {
    for namespace in seen.namespaces.iter_mut().filter(|one| one.replicas.is_empty()) {
        let of = |(id, told): &'_ (NodeId, Seen)| {
            let known = told.namespaces.iter().find(|known| known.shard == namespace.shard)?;
            (!known.replicas.is_empty()).then(|| (known.leader == *id, known.clone()))
        };
        let known = told.iter().filter_map(of).max_by_key(|(leads, _)| *leads);
        if let Some((_, known)) = known {
            *namespace = known;
        }
    }
}

/// Where the logs of replicas end: each node tells it of its own, and the leaders of those on nodes
/// that are down. Of whom nobody tells anything, what was seen stays.
fn fill_ends(seen: &mut Seen, told: &[(NodeId, Seen)]) {
    let down: BTreeSet<NodeId> =
        seen.nodes.iter().filter(|node| !node.up).map(|node| node.id).collect();
    for (id, told) in told {
        for namespace in &mut seen.namespaces {
            let known = told.namespaces.iter().find(|known| known.shard == namespace.shard);
            let Some(known) = known else { continue };
            let leads = known.leader == *id;
            for replica in &mut namespace.replicas {
                let told = known.replicas.iter().find(|told| told.node == replica.node);
                if let Some(told) = told
                    && (replica.node == *id || leads && down.contains(&replica.node))
                {
                    replica.end = told.end;
                }
            }
        }
    }
}

/// The node of a name or an id.
fn find<'a>(seen: &'a Seen, node: &str) -> anyhow::Result<&'a Node> {
    let named = seen.nodes.iter().find(|known| known.name == node);
    let found = named.or_else(|| {
        let id = node.parse().ok().map(NodeId);
        seen.nodes.iter().find(|known| Some(known.id) == id)
    });
    let names: Vec<&str> = seen.nodes.iter().map(|node| node.name.as_str()).collect();
    found.with_context(|| format!("there is no node {node:?}; there are {}", names.join(", ")))
}

/// Removes a node, and gives a client of the others: what the node itself sees is of the past.
pub async fn remove(seen: &Seen, node: NodeId) -> anyhow::Result<Client> {
    let others = seen.nodes.iter().filter(|other| other.id != node && !other.address.is_empty());
    let (up, down): (Vec<&Node>, Vec<&Node>) = others.partition(|other| other.up);
    if up.is_empty() && down.is_empty() {
        bail!("it is the only node: a cluster without nodes has no data");
    }
    let addresses = up.into_iter().chain(down).map(|other| other.address.clone());
    let options = Options { stays: true, ..Options::default() };
    let rest = Client::connect_with(addresses, options).await.context("no other node answers")?;
    rest.remove_node(node).await?;
    Ok(rest)
}

async fn wait_to_know(client: &Client, node: &str, until: Instant) -> anyhow::Result<NodeId> {
    let what = format!("node {node} to join");
    wait_until(client, until, &what, |seen| find(seen, node).is_ok()).await?;
    Ok(find(&client.cluster().await?, node)?.id)
}

/// Waits until a node votes wherever a vote is to be had.
pub async fn wait_to_take_part(client: &Client, id: NodeId, until: Instant) -> anyhow::Result<()> {
    let takes_part = |namespace: &Namespace| {
        let voters = || namespace.replicas.iter().filter(|replica| replica.voter);
        voters().any(|voter| voter.node == id) || voters().count() >= REPLICAS_DEFAULT
    };
    wait_until(client, until, "the node to take part", |seen| {
        seen.nodes.iter().any(|node| node.id == id && node.up)
            && seen.namespaces.iter().all(takes_part)
    })
    .await
}

/// Waits until a node has no part in any namespace.
pub async fn wait_to_be_gone(client: &Client, id: NodeId, until: Instant) -> anyhow::Result<()> {
    wait_until(client, until, "the node's replicas to be given up", |seen| {
        // A namespace that nobody tells of may live there.
        let has = |namespace: &Namespace| {
            let replicas = &namespace.replicas;
            replicas.is_empty() || replicas.iter().any(|one| one.node == id)
        };
        !seen.nodes.iter().any(|node| node.id == id) && !seen.namespaces.iter().any(has)
    })
    .await
}

async fn wait_until(
    client: &Client,
    until: Instant,
    what: &str,
    condition: impl Fn(&Seen) -> bool,
) -> anyhow::Result<()> {
    loop {
        if condition(&see(client).await?) {
            return Ok(());
        }
        if Instant::now() >= until {
            bail!("waited in vain for {what}: look with `naust cluster status`");
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn status(out: &mut Output, json: bool, seen: &Seen) -> anyhow::Result<()> {
    for node in &seen.nodes {
        let up = if node.up { "up" } else { "down" };
        if json {
            let (id, name) = (node.id.to_string(), &node.name);
            let address = &node.address;
            out.json(&json!({ "node": name, "id": id, "address": address, "up": node.up }))?;
        } else {
            out.line(&format!("node {} ({}) {} {up}", node.name, node.id, node.address))?;
        }
    }
    seen.namespaces.iter().try_for_each(|namespace| print(out, json, namespace, &seen.nodes))
}

/// One namespace, with the names of the nodes that it lives on.
pub fn print(
    out: &mut Output,
    json: bool,
    namespace: &Namespace,
    nodes: &[Node],
) -> anyhow::Result<()> {
    let Namespace { name, shard, end, leader, replicas, options, closing } = namespace;
    let interval_ms = match options.durability {
        Durability::Quorum => None,
        Durability::IntervalMs(ms) => Some(ms),
    };
    let name_of = |id: NodeId| {
        let known = nodes.iter().find(|node| node.id == id);
        known.map_or_else(|| id.to_string(), |node| node.name.clone())
    };
    let role = |voter| if voter { "voter" } else { "learner" };
    let leader = (*leader != NodeId(0)).then(|| name_of(*leader));
    if json {
        let replicas: Vec<_> = replicas
            .iter()
            .map(|one| {
                let end = one.end.map(|end| end.0);
                json!({ "node": name_of(one.node), "role": role(one.voter), "end": end })
            })
            .collect();
        let mut told = json!({
            "namespace": name, "shard": shard.0, "end": end.map(|end| end.0), "leader": leader,
            "replicas": replicas,
        });
        if let Some(ms) = interval_ms {
            told["interval_ms"] = ms.into();
        }
        if *closing {
            told["closing"] = true.into();
        }
        return out.json(&told);
    }
    let replicas: Vec<String> = replicas
        .iter()
        .map(|one| {
            let end = match one.end {
                None => "end unknown".to_owned(),
                Some(end) => end.to_string(),
            };
            format!("{} ({}, {end})", name_of(one.node), role(one.voter))
        })
        .collect();
    let leader = leader.as_deref().unwrap_or("unknown");
    let replicas = replicas.join(", ");
    let end = end.map_or_else(|| "unknown".to_owned(), |end| end.to_string());
    let synced = interval_ms.map_or_else(String::new, |ms| format!(", synced within {ms} ms"));
    let closing = if *closing { ", being removed" } else { "" };
    out.line(&format!(
        "namespace {name} shard {shard} end {end} leader {leader} on {replicas}{synced}{closing}"
    ))
}
