//! `naust dev`: one node or three in one process, and what to type next.

use super::serve::say;
use anyhow::{Context as _, bail};
use clap::Args;
use naust::config::Config;
use naust::server::{self, Running, Server};
use std::path::{Path, PathBuf};

/// Between the native ports of two nodes.
const PORTS: u16 = 10;

/// One node or several for development: data in the working directory, loopback only.
#[derive(Args)]
pub struct Dev {
    /// Nodes in this process; three are a cluster, each with a directory of its own.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=9))]
    nodes: u16,
    /// The data directory; of several nodes, the one above theirs.
    #[arg(long, default_value = "./naust-data")]
    data: PathBuf,
    /// The native port; HTTP is the next one. Of several nodes, each has ports 10 above the one
    /// before.
    #[arg(long, default_value_t = 7420)]
    port: u16,
}

impl Dev {
    pub fn run(self) -> anyhow::Result<()> {
        self.check()?;
        let mut servers: Vec<Server> = Vec::new();
        for number in 0..self.nodes {
            servers.push(Server::open(self.config(number)?)?);
        }
        let running: Vec<Running> = servers.iter().map(Server::running).collect();
        self.welcome(&running);
        server::run_all(servers)?;
        say(&format!("naust: stopped; the data stays in {}", self.data.display()));
        Ok(())
    }

    /// One node's directory is not that of several, nor the other way round.
    fn check(&self) -> anyhow::Result<()> {
        let is_one = self.data.join("NODE").exists();
        let of_several = is_node(&self.data.join("n1"));
        let data = self.data.display();
        if self.nodes > 1 && is_one {
            bail!("{data} holds the data of a single node: give several another one with --data");
        }
        if self.nodes == 1 && of_several {
            bail!("{data} holds the data of several nodes: say how many with --nodes");
        }
        let one_more = self.data.join(format!("n{}", self.nodes + 1));
        if self.nodes > 1 && is_node(&one_more) {
            bail!("{data} holds the data of more than {} nodes", self.nodes);
        }
        Ok(())
    }

    fn config(&self, number: u16) -> anyhow::Result<Config> {
        let port = self.port.checked_add(number * PORTS).filter(|port| *port < u16::MAX);
        let port = port.with_context(|| {
            let (first, nodes) = (self.port, self.nodes);
            format!(
                "--port {first} leaves no room for the ports of {nodes} nodes: they end at 65535"
            )
        })?;
        let (data, name) = match self.nodes {
            1 => (self.data.clone(), String::new()),
            _ => {
                let name = format!("n{}", number + 1);
                (self.data.join(&name), name)
            }
        };
        let first = format!("127.0.0.1:{}", self.port);
        let config = Config {
            data,
            name,
            listen: format!("127.0.0.1:{port}"),
            http: format!("127.0.0.1:{}", port + 1),
            join: if number == 0 { Vec::new() } else { vec![first] },
            ..Config::default()
        };
        config.check()?;
        Ok(config)
    }

    fn welcome(&self, running: &[Running]) {
        let (port, http) = (self.port, self.port + 1);
        let at = if port == 7420 { String::new() } else { format!(" --address 127.0.0.1:{port}") };
        let nodes: Vec<String> = running.iter().map(describe).collect();
        let (nodes, more) = match nodes.as_slice() {
            [one] => (one.clone(), String::new()),
            several => {
                let other = format!("127.0.0.1:{}", port + PORTS);
                let more = format!("\n  naust kv get users alice --address {other}");
                let status = format!("\n  naust cluster status{at}");
                (format!("{} nodes\n  {}", several.len(), several.join("\n  ")), more + &status)
            }
        };
        say(&format!(
            "Naust is ready: {nodes}.

In a second terminal, type:

  alias naust=\"cargo run --release -q --\"
  naust kv put users alice '{{\"plan\":\"pro\"}}'{at}
  naust kv get users alice{at}{more}
  naust commit --put users/bob='{{\"plan\":\"free\"}}' --append signups=bob{at}
  naust stream read signups{at}
  curl http://127.0.0.1:{http}/v1/default/kv/users

Ctrl-C stops it; nothing acknowledged is lost, however it ends.",
        ));
    }
}

fn is_node(data: &Path) -> bool {
    data.join("NODE").exists()
}

fn describe(running: &Running) -> String {
    let address = |address: Option<std::net::SocketAddr>| {
        address.map_or_else(|| "nowhere".to_owned(), |address| address.to_string())
    };
    format!(
        "node {} on {}, native {}, HTTP {}",
        running.name,
        running.data.display(),
        address(running.native),
        address(running.http),
    )
}
