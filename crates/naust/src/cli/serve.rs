//! `naust serve`: being a node.

use anyhow::Context as _;
use clap::Args;
use naust::config::{Config, check_layer};
use naust::server;
use std::io::Write as _;
use std::path::PathBuf;

/// Every option of the configuration can be given as `--set SECTION.OPTION=VALUE`; the usual ones
/// have flags.
#[derive(Args)]
pub struct Serve {
    /// Configuration, TOML.
    #[arg(long, env = "NAUST_CONFIG")]
    config: Option<PathBuf>,
    /// The data directory [default: ./naust-data].
    #[arg(long)]
    data: Option<PathBuf>,
    /// Where native clients connect [default: 127.0.0.1:7420].
    #[arg(long)]
    listen: Option<String>,
    /// Where HTTP clients connect; empty: nowhere [default: 127.0.0.1:7421].
    #[arg(long)]
    http: Option<String>,
    /// The node's name [default: that of its last start, or one made of its id].
    #[arg(long)]
    name: Option<String>,
    /// Listen on addresses other than loopback without TLS and tokens.
    #[arg(long)]
    insecure: bool,
    /// Any other option, as in the configuration file: `--set memtable_bytes=268435456`.
    #[arg(long, value_name = "OPTION=VALUE")]
    set: Vec<String>,
    /// Start a new cluster with this node, if its data directory is empty. Leave it out later: then
    /// a node whose disk is missing does not start, instead of beginning anew.
    #[arg(long, conflicts_with = "join")]
    bootstrap: bool,
    /// Join the cluster of this node; may be given several times, and again after a restart.
    #[arg(long, value_name = "HOST:PORT")]
    join: Vec<String>,
    /// Where other nodes reach this one [default: where it listens].
    #[arg(long, value_name = "HOST:PORT")]
    advertise: Option<String>,
}

impl Serve {
    pub fn run(self) -> anyhow::Result<()> {
        let config = self.load()?;
        server::serve(config, &mut |running| {
            say(&format!("naust: node {} on {}", running.name, running.data.display()));
            if let Some(address) = running.native {
                say(&format!("naust: native clients: {address}"));
            }
            if let Some(address) = running.http {
                say(&format!("naust: HTTP: http://{address}"));
            }
            say("naust: ready");
        })?;
        say("naust: stopped");
        Ok(())
    }

    fn load(&self) -> anyhow::Result<Config> {
        let mut flags = toml::Table::new();
        for text in &self.set {
            set(&mut flags, text)?;
            let mut alone = toml::Table::new();
            set(&mut alone, text)?;
            check_layer(&alone, &format!("--set {text}"))?;
        }
        let mut flag = |name: &str, value: Option<toml::Value>| {
            if let Some(value) = value {
                flags.insert(name.to_owned(), value);
            }
        };
        let data = self.data.as_ref().map(|path| path.display().to_string());
        flag("data", data.map(Into::into));
        flag("listen", self.listen.clone().map(Into::into));
        flag("http", self.http.clone().map(Into::into));
        flag("name", self.name.clone().map(Into::into));
        flag("advertise", self.advertise.clone().map(Into::into));
        let join: Vec<toml::Value> = self.join.iter().cloned().map(Into::into).collect();
        flag("join", (!join.is_empty()).then(|| join.into()));
        flag("bootstrap", self.bootstrap.then(|| true.into()));
        flag("insecure", self.insecure.then(|| true.into()));
        Ok(Config::load(self.config.as_deref(), std::env::vars(), flags)?)
    }
}

/// Lays `a.b=value` over a table; the value as TOML, or else as a string.
fn set(table: &mut toml::Table, text: &str) -> anyhow::Result<()> {
    let (option, value) = text
        .split_once('=')
        .with_context(|| format!("--set takes OPTION=VALUE, and not `{text}`"))?;
    let value = value.parse().unwrap_or_else(|_| toml::Value::from(value));
    let mut path: Vec<&str> = option.split('.').collect();
    let last = path.pop().unwrap_or_default();
    let mut table = table;
    for section in path {
        let inner = table.entry(section).or_insert_with(|| toml::Table::new().into());
        table = inner.as_table_mut().with_context(|| format!("{section} is no section"))?;
    }
    table.insert(last.to_owned(), value);
    Ok(())
}

/// Prints a line, if anybody still listens: a node goes on without its terminal.
pub fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_set_by_their_path() {
        let mut table = toml::Table::new();
        for text in ["a.b=1", "a.c=true", "d=x y", "e=a=b"] {
            set(&mut table, text).unwrap();
        }
        assert_eq!(table.to_string(), "d = \"x y\"\ne = \"a=b\"\n\n[a]\nb = 1\nc = true\n");
        assert!(set(&mut table, "a").is_err());
        assert!(set(&mut table, "d.x=1").is_err());
    }
}
