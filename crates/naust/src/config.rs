//! The configuration of a node: one struct, from a TOML file, the environment and flags, in rising
//! precedence.
//!
//! The layers are laid over each other as TOML tables and read once into [`Config`], which is
//! checked whole before any data is touched. The docs of the fields are the reference of the
//! options: a field `a.b` is `b` in the section `[a]` of the file, `NAUST_A_B` in the environment
//! and `--a-b` on the command line.

use naust_log::Layout;
use naust_node::Pace;
use naust_wire::limits;
use naust_wire::options::NamespaceOptions;
use serde::{Deserialize, Serialize};
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Variables with the prefix of the environment's layer that configure clients and tools, not
/// nodes.
const OTHER_VARIABLES: [&str; 5] =
    ["NAUST_CONFIG", "NAUST_ADDRESS", "NAUST_NAMESPACE", "NAUST_TOKEN", "NAUST_LOG"];

/// Everything that can be set about a node. `Default` is a node for development on this machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The data directory. Made if it is missing.
    pub data: PathBuf,
    /// The node's name; empty: that of its last start, or `node-` and the first digits of its
    /// id.
    pub name: String,
    /// Where native clients connect, `HOST:PORT`; port 0: any; empty: nowhere (embedded nodes).
    pub listen: String,
    /// Where HTTP clients connect, `HOST:PORT`; port 0: any; empty: nowhere.
    pub http: String,
    /// Where other nodes reach this one, `HOST:PORT`; empty: where it listens.
    pub advertise: String,
    /// Nodes of the cluster to join, `HOST:PORT` each; in the environment with commas between. A
    /// node that has joined goes on as it is, under its present name and address.
    pub join: Vec<String>,
    /// Starts a new cluster with this node, if its directory is empty: `naust serve` on an empty
    /// one needs this or `join`, embedded nodes do so by themselves. On the directory of a node
    /// that began a cluster it changes nothing; that of one that joined a cluster is refused.
    pub bootstrap: bool,
    /// Listens on addresses other than loopback without TLS and tokens.
    pub insecure: bool,
    /// Worker threads; 0: half of the cores, at least one.
    pub workers: usize,
    /// Threads that write and sync logs.
    pub disk_threads: usize,
    /// Threads that flush, compact, trim and open shards.
    pub background_threads: usize,
    /// Pins each worker to a core of its own. Only for machines that run one node and little else.
    pub pin: bool,
    /// Bytes of rows in memory before they are flushed, over all shards.
    pub memtable_bytes: u64,
    /// Bytes of cached table blocks, over all shards.
    pub cache_bytes: u64,
    /// Connections at most; those beyond are told `overloaded` and closed. Fewer where the process
    /// may have fewer than 7,936 open files.
    pub connections_max: usize,
    /// How far back reads may go in namespaces that are made without options.
    pub history: History,
    /// What nobody waits for.
    pub background: Background,
    /// For measurements and tests.
    pub debug: Debug,
}

/// What nobody waits for, and how fast it is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Background {
    /// Bytes of logs that the node reads again a second, to find damage; 0: none.
    pub scrub_bytes_per_s: u64,
    /// Seconds from the beginning of one walk over all logs to the next.
    pub scrub_every_s: u64,
    /// Most bytes a second that a node sends to another one which needs all of a shard, while
    /// clients write to that shard: fewer as soon as their commits take longer; 0: as many as go,
    /// whatever commits suffer.
    pub transfer_bytes_per_s: u64,
}

/// How far back reads may go in namespaces that are made without options.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct History {
    /// Milliseconds of log time.
    pub ms: u64,
    /// Bytes of log; whichever of the two is less.
    pub bytes: u64,
}

/// For measurements and tests. Never set in production.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Debug {
    /// Microseconds that every sync of a log file sleeps first: a slow disk, on a fast one.
    pub fsync_delay_us: u64,
    /// Log bytes of a segment in shards that are made: a power of two from 16 KiB on; 0: the
    /// default.
    pub segment_bytes: u64,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            data: PathBuf::from("./naust-data"),
            name: String::new(),
            listen: "127.0.0.1:7420".to_owned(),
            http: "127.0.0.1:7421".to_owned(),
            advertise: String::new(),
            join: Vec::new(),
            bootstrap: false,
            insecure: false,
            workers: 0,
            disk_threads: 8,
            background_threads: 2,
            pin: false,
            memtable_bytes: 256 * 1024 * 1024,
            cache_bytes: 128 * 1024 * 1024,
            connections_max: limits::CONNECTIONS_MAX,
            history: History::default(),
            background: Background::default(),
            debug: Debug::default(),
        }
    }
}

impl Default for Background {
    fn default() -> Background {
        Background {
            scrub_bytes_per_s: limits::SCRUB_BYTES_PER_S_DEFAULT,
            scrub_every_s: limits::SCRUB_EVERY_MS_DEFAULT / 1000,
            transfer_bytes_per_s: limits::TRANSFER_BYTES_PER_S_DEFAULT,
        }
    }
}

impl Default for History {
    fn default() -> History {
        History { ms: limits::HISTORY_MS_DEFAULT, bytes: limits::HISTORY_BYTES_DEFAULT }
    }
}

/// What is wrong with a configuration, in a sentence for the operator.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file can't be read.
    #[error("can't read the configuration {path}: {source}")]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A layer is no configuration: not TOML, an unknown option, or a value of the wrong kind.
    #[error("{layer}: {what}")]
    Malformed {
        /// The file, the variable or the flags.
        layer: String,
        /// What is wrong.
        what: String,
    },
    /// An option has a value that makes no sense.
    #[error("the option {option} {what}")]
    Value {
        /// Which option.
        option: &'static str,
        /// What is wrong with its value.
        what: String,
    },
}

impl Config {
    /// A configuration for a node inside another program: its data there, no sockets.
    #[must_use]
    pub fn embedded(data: impl Into<PathBuf>) -> Config {
        let (listen, http) = (String::new(), String::new());
        Config { data: data.into(), listen, http, ..Config::default() }
    }

    /// Lays the file (if any), the environment's variables and the flags over the defaults and
    /// checks the whole.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn load(
        file: Option<&Path>,
        environment: impl Iterator<Item = (String, String)>,
        flags: toml::Table,
    ) -> Result<Config, ConfigError> {
        let mut table = default_table();
        if let Some(path) = file {
            let text = std::fs::read_to_string(path)
                .map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
            overlay(&mut table, parse(&text, &path.display().to_string())?);
        }
        for (variable, value) in environment {
            if variable.starts_with("NAUST_") && !OTHER_VARIABLES.contains(&variable.as_str()) {
                set_variable(&mut table, &variable, &value)?;
            }
        }
        overlay(&mut table, flags);
        let config: Config =
            table.try_into().map_err(|error| malformed("the configuration", &error))?;
        config.check()?;
        Ok(config)
    }

    /// Checks what the kinds of the values leave open.
    ///
    /// # Errors
    /// [`ConfigError::Value`].
    pub fn check(&self) -> Result<(), ConfigError> {
        let range = |option, value: usize, least: usize, most: usize| {
            if (least..=most).contains(&value) {
                return Ok(());
            }
            let what = format!("is {value}; it must lie between {least} and {most}");
            Err(ConfigError::Value { option, what })
        };
        range("workers", self.workers, 0, 255)?;
        range("disk_threads", self.disk_threads, 1, 64)?;
        range("background_threads", self.background_threads, 2, 64)?;
        range("connections_max", self.connections_max, 1, limits::CONNECTIONS_MAX)?;
        let mebi = |bytes: u64| usize::try_from(bytes >> 20).unwrap_or(usize::MAX);
        range("memtable_bytes (in MiB)", mebi(self.memtable_bytes), 1, 1 << 20)?;
        range("cache_bytes (in MiB)", mebi(self.cache_bytes), 1, 1 << 20)?;
        let history = NamespaceOptions {
            history_ms: self.history.ms,
            history_bytes: self.history.bytes,
            ..NamespaceOptions::default()
        };
        if let Err(refusal) = history.check_history() {
            return Err(ConfigError::Value {
                option: "history",
                what: format!("asks for {}", refusal.detail),
            });
        }
        if self.debug.segment_bytes != 0 && Layout::new(self.debug.segment_bytes).is_none() {
            let what = format!("is {}: no power of two from 16384 on", self.debug.segment_bytes);
            return Err(ConfigError::Value { option: "debug.segment_bytes", what });
        }
        if self.data.as_os_str().is_empty() {
            return Err(ConfigError::Value { option: "data", what: "is empty".to_owned() });
        }
        if !self.name.is_empty()
            && let Err(refusal) = naust_wire::name::check(&self.name)
        {
            let what = format!("is no name: {}", refusal.detail);
            return Err(ConfigError::Value { option: "name", what });
        }
        let native = self.native_address()?;
        self.http_address()?;
        self.check_cluster(native)
    }

    fn check_cluster(&self, native: Option<SocketAddr>) -> Result<(), ConfigError> {
        let wrong = |option, what: &str| Err(ConfigError::Value { option, what: what.to_owned() });
        let is_address = |text: &str| {
            let parts = text.rsplit_once(':');
            parts.is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
        };
        if !self.advertise.is_empty() && !is_address(&self.advertise) {
            return wrong("advertise", &format!("is {:?}, which is no HOST:PORT", self.advertise));
        }
        if let Some(address) = self.join.iter().find(|address| !is_address(address)) {
            return wrong("join", &format!("has {address:?}, which is no HOST:PORT"));
        }
        if self.join.is_empty() {
            return Ok(());
        }
        if self.bootstrap {
            return wrong("bootstrap", "starts a new cluster, and join takes part in one: use one");
        }
        match native {
            None => wrong("listen", "is empty, but the nodes of a cluster must reach each other"),
            Some(address) if address.ip().is_unspecified() && self.advertise.is_empty() => wrong(
                "advertise",
                &format!("is needed: {address} is nothing that other nodes can connect to"),
            ),
            Some(_) => Ok(()),
        }
    }

    /// Where to listen for native clients; `None`: nowhere.
    ///
    /// # Errors
    /// [`ConfigError::Value`].
    pub fn native_address(&self) -> Result<Option<SocketAddr>, ConfigError> {
        self.address("listen", &self.listen)
    }

    /// Where to listen for HTTP clients; `None`: nowhere.
    ///
    /// # Errors
    /// [`ConfigError::Value`].
    pub fn http_address(&self) -> Result<Option<SocketAddr>, ConfigError> {
        self.address("http", &self.http)
    }

    fn address(&self, option: &'static str, text: &str) -> Result<Option<SocketAddr>, ConfigError> {
        if text.is_empty() {
            return Ok(None);
        }
        let wrong = |what| ConfigError::Value { option, what };
        let mut found = text
            .to_socket_addrs()
            .map_err(|error| wrong(format!("is {text:?}, which is no HOST:PORT: {error}")))?;
        let address =
            found.next().ok_or_else(|| wrong(format!("is {text:?}, which has no address")))?;
        if !address.ip().is_loopback() && !self.insecure {
            return Err(wrong(format!(
                "is {text}, which others can reach: this release has no TLS and no tokens yet, \
                 so that needs --insecure"
            )));
        }
        Ok(Some(address))
    }

    /// How many workers to run.
    #[must_use]
    pub fn worker_count(&self) -> usize {
        match self.workers {
            0 => (std::thread::available_parallelism().map_or(1, usize::from) / 2).clamp(1, 255),
            count => count,
        }
    }

    /// How long every sync of a log file is put off, if at all.
    #[must_use]
    pub fn sync_delay(&self) -> Option<Duration> {
        (self.debug.fsync_delay_us > 0).then(|| Duration::from_micros(self.debug.fsync_delay_us))
    }

    /// How fast a worker does what nobody waits for: its share of the node's.
    #[must_use]
    pub fn pace(&self) -> Pace {
        let workers = self.worker_count() as u64;
        let Background { scrub_bytes_per_s, scrub_every_s, transfer_bytes_per_s } = self.background;
        Pace {
            // Little is not none.
            scrub_bytes_per_s: scrub_bytes_per_s.div_ceil(workers),
            scrub_every_ms: scrub_every_s.saturating_mul(1000),
            transfer_bytes_per_s,
        }
    }

    /// Where segments of new shards end.
    #[must_use]
    pub fn layout(&self) -> Layout {
        Layout::new(self.debug.segment_bytes).unwrap_or(Layout::STANDARD)
    }

    /// A namespace's options, with this configuration's history where they leave it open.
    #[must_use]
    pub fn with_history(&self, options: NamespaceOptions) -> NamespaceOptions {
        let or = |asked, configured| if asked == 0 { configured } else { asked };
        NamespaceOptions {
            history_ms: or(options.history_ms, self.history.ms),
            history_bytes: or(options.history_bytes, self.history.bytes),
            ..options
        }
    }
}

fn malformed(layer: &str, error: &toml::de::Error) -> ConfigError {
    let what = error.message().lines().next().unwrap_or_default().to_owned();
    ConfigError::Malformed { layer: layer.to_owned(), what }
}

fn default_table() -> toml::Table {
    toml::Table::try_from(Config::default()).expect("the defaults are plain values")
}

fn parse(text: &str, layer: &str) -> Result<toml::Table, ConfigError> {
    let wrong = |error: toml::de::Error| {
        let Some(span) = error.span() else { return malformed(layer, &error) };
        let before = text.get(..span.start).unwrap_or_default();
        let number = before.matches('\n').count() + 1;
        let line = text.lines().nth(number - 1).unwrap_or_default().trim();
        malformed(&format!("{layer}, line {number}, `{line}`"), &error)
    };
    let table: toml::Table = text.parse().map_err(wrong)?;
    // From the text once more: the table does not know its lines.
    toml::from_str::<Config>(text).map_err(wrong)?;
    Ok(table)
}

/// Finds unknown options and values of the wrong kind where it can still be named where they stand:
/// `layer` says that.
///
/// # Errors
/// [`ConfigError::Malformed`].
pub fn check_layer(table: &toml::Table, layer: &str) -> Result<(), ConfigError> {
    Config::deserialize(table.clone()).map(drop).map_err(|error| malformed(layer, &error))
}

/// Lays `over` on `table`, section by section.
fn overlay(table: &mut toml::Table, over: toml::Table) {
    for (key, value) in over {
        match (table.get_mut(&key), value) {
            (Some(toml::Value::Table(under)), toml::Value::Table(over)) => overlay(under, over),
            (_, value) => drop(table.insert(key, value)),
        }
    }
}

/// Sets the option that a variable of the environment names, with the kind that its default has.
fn set_variable(table: &mut toml::Table, variable: &str, text: &str) -> Result<(), ConfigError> {
    let wrong = |what: String| ConfigError::Malformed { layer: variable.to_owned(), what };
    let key = variable["NAUST_".len()..].to_lowercase();
    let section = key
        .split_once('_')
        .filter(|(section, _)| table.get(*section).is_some_and(toml::Value::is_table));
    let place = match section {
        Some((section, key)) => table.get_mut(section).and_then(|inner| inner.get_mut(key)),
        None => table.get_mut(&key),
    };
    let place = place.ok_or_else(|| wrong("there is no such option".to_owned()))?;
    *place = match place {
        toml::Value::String(_) => toml::Value::String(text.to_owned()),
        toml::Value::Integer(_) => toml::Value::Integer(
            text.parse().map_err(|_| wrong(format!("{text:?} is no whole number")))?,
        ),
        toml::Value::Boolean(_) => toml::Value::Boolean(
            text.parse().map_err(|_| wrong(format!("{text:?} is neither true nor false")))?,
        ),
        toml::Value::Array(_) => toml::Value::Array(
            text.split(',').filter(|part| !part.is_empty()).map(toml::Value::from).collect(),
        ),
        _ => return Err(wrong("is a section, not an option".to_owned())),
    };
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(file: &str, environment: &[(&str, &str)], flags: &str) -> Result<Config, ConfigError> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("naust.toml");
        std::fs::write(&path, file).unwrap();
        let environment = environment.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        Config::load(Some(&path), environment, flags.parse().unwrap())
    }

    #[test]
    fn flags_win_over_environment_over_file_over_defaults() {
        let file =
            "workers = 2\ndisk_threads = 3\nlisten = '127.0.0.1:1'\n[debug]\nfsync_delay_us = 5\n";
        let environment =
            [("NAUST_WORKERS", "4"), ("NAUST_DEBUG_FSYNC_DELAY_US", "6"), ("HOME", "x")];
        let config = load(file, &environment, "workers = 5").unwrap();
        assert_eq!((config.workers, config.disk_threads), (5, 3));
        assert_eq!(config.debug.fsync_delay_us, 6);
        assert_eq!(config.listen, "127.0.0.1:1");
        assert_eq!(config.http, Config::default().http);
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a str, &'a str);
        let table: &[Case<'_>] = &[
            ("wrokers = 2", &[], "", "line 1, `wrokers = 2`: unknown field `wrokers`"),
            ("\nworkers = 'two'", &[], "", "naust.toml, line 2, `workers = 'two'`: invalid type"),
            ("workers = ", &[], "", "naust.toml, line 1"),
            ("[history]\nms = 999", &[], "", "the option history asks for history of 999 ms"),
            ("", &[("NAUST_WROKERS", "2")], "", "NAUST_WROKERS: there is no such option"),
            ("", &[("NAUST_WORKERS", "two")], "", "NAUST_WORKERS: \"two\" is no whole number"),
            ("", &[], "workers = 1000", "the option workers is 1000"),
            ("", &[], "listen = 'nowhere'", "the option listen is \"nowhere\""),
            ("", &[], "http = '0.0.0.0:7421'", "needs --insecure"),
            ("", &[], "data = ''", "the option data is empty"),
            ("", &[], "name = 'a/b'", "the option name is no name"),
            ("", &[("NAUST_JOIN", "a:1,b")], "", "the option join has \"b\""),
            ("", &[], "join = ['a:1']\nbootstrap = true", "the option bootstrap starts"),
            ("", &[], "join = ['a:1']\nlisten = ''", "the option listen is empty"),
            (
                "insecure = true",
                &[("NAUST_LISTEN", "0.0.0.0:7420")],
                "join = ['a:1']",
                "the option advertise is needed",
            ),
        ];
        for (file, environment, flags, expected) in table {
            let error = load(file, environment, flags).unwrap_err().to_string();
            assert!(error.contains(expected), "{error:?} should contain {expected:?}");
        }
        load("", &[], "http = '0.0.0.0:7421'\ninsecure = true").unwrap();
    }

    #[test]
    fn a_name_may_look_like_a_number() {
        assert_eq!(load("", &[("NAUST_NAME", "7")], "").unwrap().name, "7");
    }
}
