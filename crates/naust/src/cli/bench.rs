//! `naust bench`: loads a running node and prints what it did.

use super::load::{self, Outcome, Plan, Workload};
use anyhow::Context as _;
use clap::{Args, ValueEnum};
use naust_client::Client;
use naust_wire::Code;
use naust_wire::options::NamespaceOptions;
use serde_json::json;
use std::net::ToSocketAddrs as _;
use std::time::Duration;

#[derive(Args)]
pub struct Bench {
    /// The node's native address.
    #[arg(long, env = "NAUST_ADDRESS", default_value = "127.0.0.1:7420")]
    address: String,
    /// What each request is.
    #[arg(long, value_enum, default_value_t)]
    workload: WorkloadName,
    /// Connections, each with requests of its own under way.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=4000))]
    connections: u16,
    /// Requests under way on each connection, in each of its namespaces.
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u16).range(1..=1024))]
    in_flight: u16,
    /// Seconds that are measured.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: u64,
    /// Seconds before that.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(0..=86_400))]
    warm_up: u64,
    /// Puts and gets draw from so many keys.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    keys: u64,
    /// Bytes of each value or record.
    #[arg(long, default_value_t = 128)]
    #[arg(value_parser = clap::value_parser!(u32).range(0..=1_048_576))]
    value_bytes: u32,
    /// Appends: records a commit.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=4096))]
    batch: u16,
    /// Loads so many namespaces (bench-0, bench-1, …) instead of `default`, dealt out to the
    /// connections in turn; they are made if need be.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..=16_000))]
    namespaces: u16,
    /// Draws the keys: the same seed draws the same.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// Print the whole distribution of latencies.
    #[arg(long)]
    histogram: bool,
}

#[derive(Clone, Copy, Default, ValueEnum)]
enum WorkloadName {
    #[default]
    Put,
    Append,
    Get,
}

impl Bench {
    pub fn run(self) -> anyhow::Result<()> {
        let plan = self.plan()?;
        let outcome = load::run(&plan)?;
        if self.json {
            self.print_json(&outcome)
        } else {
            self.print(&outcome)
        }
        Ok(())
    }

    fn plan(&self) -> anyhow::Result<Plan> {
        let mut addresses = self.address.to_socket_addrs().context("--address is no HOST:PORT")?;
        let address = addresses.next().context("--address leads nowhere")?;
        let mut namespaces: Vec<String> =
            (0..self.namespaces).map(|number| format!("bench-{number}")).collect();
        super::block_on(make(&self.address, &namespaces))?;
        if namespaces.is_empty() {
            namespaces.push("default".to_owned());
        }
        Ok(Plan {
            address,
            workload: match self.workload {
                WorkloadName::Put => Workload::Put,
                WorkloadName::Append => Workload::Append,
                WorkloadName::Get => Workload::Get,
            },
            connections: usize::from(self.connections),
            in_flight: usize::from(self.in_flight),
            warm_up: Duration::from_secs(self.warm_up),
            time: Duration::from_secs(self.seconds),
            keys: self.keys,
            value_bytes: self.value_bytes as usize,
            batch: usize::from(self.batch),
            namespaces,
            seed: self.seed,
        })
    }

    fn print_json(&self, outcome: &Outcome) {
        let micro = |quantile| outcome.latency.value_at_quantile(quantile) as f64 / 1000.0;
        let object = json!({
            "done": outcome.done, "seconds": outcome.seconds,
            "per_second": outcome.done as f64 / outcome.seconds,
            "p50_us": micro(0.5), "p99_us": micro(0.99), "p999_us": micro(0.999),
            "max_us": outcome.latency.max() as f64 / 1000.0,
            "user_bytes": outcome.user_bytes, "all_done": outcome.all_done,
            "all_user_bytes": outcome.all_user_bytes, "errors": outcome.errors,
        });
        println!("{object}");
    }

    fn print(&self, outcome: &Outcome) {
        let milli = |quantile| outcome.latency.value_at_quantile(quantile) as f64 / 1e6;
        println!("requests   {:>12} in {:.1} s", outcome.done, outcome.seconds);
        println!("rate       {:>12.0} /s", outcome.done as f64 / outcome.seconds);
        let mebibytes = outcome.user_bytes as f64 / outcome.seconds / 1048576.0;
        println!("user bytes {mebibytes:>12.1} MiB/s");
        for (name, quantile) in [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p999", 0.999)] {
            println!("{name:<10} {:>12.3} ms", milli(quantile));
        }
        println!("max        {:>12.3} ms", outcome.latency.max() as f64 / 1e6);
        for (code, count) in &outcome.errors {
            println!("error      {count:>12} {code}");
        }
        if self.histogram {
            for step in outcome.latency.iter_quantiles(2) {
                let (value, quantile) = (step.value_iterated_to() as f64 / 1e6, step.quantile());
                println!("{value:>12.3} ms  {:>9.5} %", quantile * 100.0);
            }
        }
    }
}

async fn make(address: &str, namespaces: &[String]) -> anyhow::Result<()> {
    if namespaces.is_empty() {
        return Ok(());
    }
    let client = Client::connect([address]).await?;
    for name in namespaces {
        match client.create_namespace(name, NamespaceOptions::default()).await {
            Err(error) if error.code == Code::NamespaceExists => {}
            made => drop(made?),
        }
    }
    Ok(())
}
