//! `naust kv`: rows.

use super::output::{Output, put_bytes, readable, value_or_stdin};
use super::{At, NotFound};
use clap::{Args, Subcommand, ValueEnum};
use naust_client::{Code, Error, Found, Named, Namespace, Scan};
use naust_wire::Offset;
use naust_wire::options::{Compaction, Compression, KeyspaceOptions};
use naust_wire::read::Level;
use serde_json::{Value, json};

#[derive(Args)]
pub struct Kv {
    #[command(flatten)]
    at: At,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Put a row; prints its version.
    Put {
        keyspace: String,
        key: String,
        /// The value; standard input when it is missing or `-`.
        value: Option<String>,
        /// Only if the row's version is still this one.
        #[arg(long, conflicts_with = "if_absent")]
        if_version: Option<u64>,
        /// Only if there is no such row.
        #[arg(long)]
        if_absent: bool,
    },
    /// Print a row's value; exit status 1 when there is none.
    Get {
        keyspace: String,
        key: String,
        #[command(flatten)]
        level: ReadLevel,
    },
    /// Remove a row.
    Delete {
        keyspace: String,
        key: String,
        /// Only if the row's version is still this one.
        #[arg(long)]
        if_version: Option<u64>,
    },
    /// Remove the rows from FROM up to, but not including, TO, in as many commits as it takes;
    /// prints how many there were.
    DeleteRange { keyspace: String, from: String, to: Option<String> },
    /// List rows in the order of their keys.
    List {
        keyspace: String,
        /// Only keys that begin so.
        #[arg(long, conflicts_with_all = ["from", "to"])]
        prefix: Option<String>,
        /// The first key.
        #[arg(long)]
        from: Option<String>,
        /// The end, not included.
        #[arg(long)]
        to: Option<String>,
        /// Against the order of the keys.
        #[arg(long)]
        reverse: bool,
        /// At most so many rows.
        #[arg(long)]
        limit: Option<u64>,
        #[command(flatten)]
        level: ReadLevel,
    },
    /// Make a keyspace, or change its options, but for those that are not given; print them when
    /// none is given.
    Options {
        keyspace: String,
        #[command(flatten)]
        change: Change,
    },
}

/// Options of a keyspace that are to change.
#[derive(Args)]
struct Change {
    /// How its tree is compacted.
    #[arg(long, value_enum)]
    compaction: Option<CompactionName>,
    /// How its blocks are compressed.
    #[arg(long, value_enum)]
    compression: Option<CompressionName>,
    /// FIFO only: bytes to keep.
    #[arg(long)]
    max_bytes: Option<u64>,
    /// FIFO only: milliseconds to keep a row.
    #[arg(long)]
    max_age_ms: Option<u64>,
}

#[derive(Clone, Copy, ValueEnum)]
enum CompactionName {
    Levelled,
    WriteOptimised,
    Fifo,
}

#[derive(Clone, Copy, ValueEnum)]
enum CompressionName {
    None,
    Lz4,
}

/// How fresh a read must be; linearizable unless one of these is given.
#[derive(Args, Clone, Copy)]
pub struct ReadLevel {
    /// As of exactly this offset.
    #[arg(long, conflicts_with_all = ["min", "local"])]
    at: Option<u64>,
    /// As of this offset or later.
    #[arg(long, conflicts_with = "local")]
    min: Option<u64>,
    /// Whatever this node has folded in.
    #[arg(long)]
    local: bool,
}

/// The same for what can't be read as it was.
#[derive(Args, Clone, Copy)]
pub struct Freshness {
    /// As of this offset or later.
    #[arg(long, conflicts_with = "local")]
    min: Option<u64>,
    /// Whatever this node has folded in.
    #[arg(long)]
    local: bool,
}

/// Some commits of a `delete-range` were done before one failed.
#[derive(Debug, thiserror::Error)]
#[error(
    "{deleted} rows were removed before this; to remove the rest, go on from {}",
    readable(from)
)]
pub struct RemovedSome {
    pub deleted: u64,
    /// The first key that the failed one was to remove.
    pub from: Vec<u8>,
    pub source: Error,
}

impl Freshness {
    pub fn level(self) -> Level {
        ReadLevel { at: None, min: self.min, local: self.local }.level()
    }
}

impl ReadLevel {
    fn level(self) -> Level {
        match (self.at, self.min, self.local) {
            (Some(at), ..) => Level::Exactly(Offset(at)),
            (_, Some(min), _) => Level::AtLeast(Offset(min)),
            (.., true) => Level::Local,
            _ => Level::Linearizable,
        }
    }
}

impl Kv {
    pub async fn run(self) -> anyhow::Result<()> {
        let namespace = self.at.namespace().await?;
        let json = self.at.json;
        let mut out = Output::new();
        match self.command {
            Command::Put { keyspace, key, value, if_version, if_absent } => {
                let value = value_or_stdin(value)?;
                let kv = namespace.kv(&keyspace);
                let offset = match if_version {
                    Some(version) => kv.put_if(key, value, Offset(version)).await?,
                    None if if_absent => kv.put_if(key, value, Offset::ZERO).await?,
                    None => kv.put(key, value).await?,
                };
                done(&mut out, json, offset)
            }
            Command::Get { keyspace, key, level } => {
                let found = namespace.kv(&keyspace).get_at(&key, level.level()).await?;
                get(&mut out, json, &key, found)
            }
            Command::Delete { keyspace, key, if_version } => {
                let delete = |commit: naust_client::Commit<'static>| {
                    let commit = match if_version {
                        Some(version) => {
                            commit.if_version(keyspace.clone(), key.clone(), Offset(version))
                        }
                        None => commit,
                    };
                    commit.delete(keyspace, key)
                };
                done(&mut out, json, namespace.commit(delete).await?.offset)
            }
            Command::DeleteRange { keyspace, from, to } => {
                delete_range(&mut out, json, &namespace, &keyspace, from, to).await
            }
            Command::List { keyspace, prefix, from, to, reverse, limit, level } => {
                let kv = namespace.kv(&keyspace);
                let scan = match (prefix, to) {
                    (Some(prefix), _) => kv.prefix(prefix),
                    (None, Some(to)) => kv.range(from.unwrap_or_default()..to),
                    (None, None) => kv.range(from.unwrap_or_default()..),
                };
                let scan = if reverse { scan.reverse() } else { scan };
                let scan = limit.map_or(scan.clone(), |limit| scan.limit(limit));
                list(&mut out, json, scan.level(level.level())).await
            }
            Command::Options { keyspace, change } => {
                options(&mut out, json, &namespace, &keyspace, &change).await
            }
        }
    }
}

impl Change {
    fn is_none(&self) -> bool {
        let Change { compaction, compression, max_bytes, max_age_ms } = self;
        compaction.is_none() && compression.is_none() && max_bytes.or(*max_age_ms).is_none()
    }

    /// The options after the change of those before it.
    fn of(&self, now: KeyspaceOptions) -> KeyspaceOptions {
        let compaction = match self.compaction {
            None => now.compaction,
            Some(CompactionName::Levelled) => Compaction::Levelled,
            Some(CompactionName::WriteOptimised) => Compaction::WriteOptimised,
            Some(CompactionName::Fifo) => Compaction::Fifo,
        };
        let compression = match self.compression {
            None => now.compression,
            Some(CompressionName::None) => Compression::None,
            Some(CompressionName::Lz4) => Compression::Lz4,
        };
        // What only FIFO has goes with it.
        let keep = |bound| if compaction == Compaction::Fifo { bound } else { 0 };
        KeyspaceOptions {
            compaction,
            compression,
            max_bytes: self.max_bytes.unwrap_or(keep(now.max_bytes)),
            max_age_ms: self.max_age_ms.unwrap_or(keep(now.max_age_ms)),
        }
    }
}

async fn options(
    out: &mut Output,
    json: bool,
    namespace: &Namespace,
    keyspace: &str,
    change: &Change,
) -> anyhow::Result<()> {
    let now = find(namespace, keyspace).await;
    if change.is_none() {
        return print_options(out, json, &naust_gateway::keyspace_json(&now?)["options"]);
    }
    let now = match now {
        Ok(now) => now.options,
        // It is made.
        Err(error) if error.code == Code::KeyspaceNotFound => KeyspaceOptions::default(),
        Err(error) => return Err(error.into()),
    };
    done(out, json, namespace.kv(keyspace).set_options(change.of(now)).await?)
}

async fn find(namespace: &Namespace, name: &str) -> Result<naust_wire::reply::Keyspace, Error> {
    let page = namespace.describe_page(Some(Named::Keyspace(name.to_owned())), 1).await?;
    let found = page.keyspaces.into_iter().find(|keyspace| keyspace.name == name);
    found
        .ok_or_else(|| Error::new(Code::KeyspaceNotFound, format!("there is no keyspace {name:?}")))
}

/// Prints options, one a line.
pub fn print_options(out: &mut Output, json: bool, options: &Value) -> anyhow::Result<()> {
    if json {
        return out.json(options);
    }
    let mut options = options.as_object().into_iter().flatten();
    options.try_for_each(|(name, value)| match value.as_str() {
        Some(text) => out.line(&format!("{name} {text}")),
        None => out.line(&format!("{name} {value}")),
    })
}

/// Prints where something happened.
pub fn done(out: &mut Output, json: bool, offset: Offset) -> anyhow::Result<()> {
    if json { out.json(&json!({ "offset": offset.0 })) } else { out.line(&offset.to_string()) }
}

fn get(out: &mut Output, json: bool, key: &str, found: Found) -> anyhow::Result<()> {
    let Some(row) = found.row else {
        if json {
            out.json(&json!({ "key": key, "at": found.at.0, "offset": null }))?;
        } else {
            eprintln!("naust: there is no row {key}");
        }
        return Err(NotFound.into());
    };
    if !json {
        return out.raw(&row.value);
    }
    let mut object = serde_json::Map::new();
    object.insert("key".to_owned(), key.into());
    put_bytes(&mut object, "value", &row.value);
    object.insert("offset".to_owned(), row.version.0.into());
    object.insert("at".to_owned(), found.at.0.into());
    out.json(&object.into())
}

/// Removes a range in as many commits as it takes.
async fn delete_range(
    out: &mut Output,
    json: bool,
    namespace: &Namespace,
    keyspace: &str,
    from: String,
    to: Option<String>,
) -> anyhow::Result<()> {
    let to = to.map(String::into_bytes);
    let mut from = Some(from.into_bytes());
    let (mut deleted, mut is_first) = (0u64, true);
    while let Some(start) = from {
        let (begin, end) = (start.clone(), to.clone().map(Into::into));
        let commit = namespace.commit(|commit| commit.delete_range(keyspace, begin, end));
        let done = match commit.await {
            Ok(done) => done,
            Err(source) if is_first => return Err(source.into()),
            Err(source) => return Err(RemovedSome { deleted, from: start, source }.into()),
        };
        let range = done.ranges.into_iter().next().unwrap_or_default();
        deleted += u64::from(range.deleted);
        (from, is_first) = (range.next, false);
    }
    if json { out.json(&json!({ "deleted": deleted })) } else { out.line(&deleted.to_string()) }
}

async fn list(out: &mut Output, json: bool, mut scan: Scan) -> anyhow::Result<()> {
    while let Some(page) = scan.next_page().await? {
        for entry in page.entries {
            if !json {
                let value = readable(&entry.value);
                out.line(&format!("{}\t{}\t{value}", readable(&entry.key), entry.offset))?;
                continue;
            }
            let mut object = serde_json::Map::new();
            put_bytes(&mut object, "key", &entry.key);
            put_bytes(&mut object, "value", &entry.value);
            object.insert("offset".to_owned(), entry.offset.0.into());
            out.json(&object.into())?;
        }
    }
    Ok(())
}
