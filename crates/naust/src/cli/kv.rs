//! `naust kv`: rows.

use super::output::{Output, put_bytes, readable, value_or_stdin};
use super::{At, NotFound};
use clap::{Args, Subcommand, ValueEnum};
use naust_client::{Found, Namespace, Scan};
use naust_wire::Offset;
use naust_wire::options::{Compaction, Compression, KeyspaceOptions};
use naust_wire::read::Level;
use serde_json::json;

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
    Delete { keyspace: String, key: String },
    /// Remove the rows from FROM up to, but not including, TO.
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
    /// Make a keyspace, or change its options.
    Options {
        keyspace: String,
        #[arg(long, value_enum, default_value_t)]
        compaction: CompactionName,
        #[arg(long, value_enum, default_value_t)]
        compression: CompressionName,
        /// FIFO only: bytes to keep.
        #[arg(long, default_value_t = 0)]
        max_bytes: u64,
        /// FIFO only: milliseconds to keep a row.
        #[arg(long, default_value_t = 0)]
        max_age_ms: u64,
    },
}

#[derive(Clone, Copy, Default, ValueEnum)]
enum CompactionName {
    #[default]
    Levelled,
    WriteOptimised,
    Fifo,
}

#[derive(Clone, Copy, Default, ValueEnum)]
enum CompressionName {
    None,
    #[default]
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

impl ReadLevel {
    pub fn level(self) -> Level {
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
            Command::Delete { keyspace, key } => {
                let offset = namespace.kv(&keyspace).delete(key).await?;
                done(&mut out, json, offset)
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
            Command::Options { keyspace, compaction, compression, max_bytes, max_age_ms } => {
                let options = KeyspaceOptions {
                    compaction: match compaction {
                        CompactionName::Levelled => Compaction::Levelled,
                        CompactionName::WriteOptimised => Compaction::WriteOptimised,
                        CompactionName::Fifo => Compaction::Fifo,
                    },
                    compression: match compression {
                        CompressionName::None => Compression::None,
                        CompressionName::Lz4 => Compression::Lz4,
                    },
                    max_bytes,
                    max_age_ms,
                };
                let offset = namespace.kv(&keyspace).set_options(options).await?;
                done(&mut out, json, offset)
            }
        }
    }
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
    let mut deleted = 0u64;
    while let Some(start) = from {
        let end = to.clone().map(Into::into);
        let commit = namespace.commit(|commit| commit.delete_range(keyspace, start, end));
        let range = commit.await?.ranges.into_iter().next().unwrap_or_default();
        deleted += u64::from(range.deleted);
        from = range.next;
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
