//! `naust stream`: records and cursors.

use super::kv::{Freshness, done, print_options};
use super::lines::Lines;
use super::output::{Output, put_bytes, readable, value_or_stdin};
use super::{At, NotFound};
use clap::{Args, Subcommand};
use naust_client::{Code, Error, Named, Namespace, ReadOptions};
use naust_wire::Offset;
use naust_wire::limits::PAGE_ROWS_DEFAULT;
use naust_wire::options::StreamOptions;
use naust_wire::reply::Record;
use serde_json::json;

#[derive(Args)]
pub struct Stream {
    #[command(flatten)]
    at: At,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Append a record; prints its id.
    Append {
        stream: String,
        /// The record; standard input when it is missing or `-`.
        value: Option<String>,
        /// Make a record of every line of standard input, those that are there in one commit;
        /// prints their ids.
        #[arg(long, conflicts_with = "value")]
        lines: bool,
    },
    /// Print records in their order.
    Read {
        stream: String,
        /// The first id.
        #[arg(long, default_value_t = 0)]
        from: u64,
        /// At most so many records.
        #[arg(long)]
        limit: Option<u64>,
        /// Wait for more, until interrupted.
        #[arg(long)]
        follow: bool,
        #[command(flatten)]
        level: Freshness,
    },
    /// Print where a cursor stands, or move it to OFFSET.
    Cursor { stream: String, cursor: String, offset: Option<u64> },
    /// Make a stream, or change what it keeps (0: everything), but for what is not given; print it
    /// when nothing is given.
    Options {
        stream: String,
        #[command(flatten)]
        change: Change,
    },
}

/// What a stream is to keep from now on.
#[derive(Args)]
struct Change {
    /// Milliseconds to keep a record.
    #[arg(long)]
    max_age_ms: Option<u64>,
    /// Bytes of records to keep.
    #[arg(long)]
    max_bytes: Option<u64>,
    /// Records to keep.
    #[arg(long)]
    max_records: Option<u64>,
}

impl Stream {
    pub async fn run(self) -> anyhow::Result<()> {
        let namespace = self.at.namespace().await?;
        let json = self.at.json;
        let mut out = Output::new();
        match self.command {
            Command::Append { stream, value, lines: false } => {
                let value = value_or_stdin(value)?;
                let id = namespace.stream(&stream).append(value).await?;
                done(&mut out, json, id)
            }
            Command::Append { stream, lines: true, .. } => {
                append_lines(&mut out, json, &namespace.stream(&stream)).await
            }
            Command::Read { stream, from, limit, follow, level } => {
                let stream = namespace.stream(&stream);
                let options = ReadOptions { level: level.level(), ..ReadOptions::default() };
                let limit = limit.unwrap_or(u64::MAX);
                read(&mut out, json, &stream, Offset(from), limit, follow, options).await
            }
            Command::Cursor { stream, cursor, offset } => {
                let handle = namespace.stream(&stream).cursor(&cursor);
                if let Some(offset) = offset {
                    let offset = handle.advance(Offset(offset)).await?;
                    return done(&mut out, json, offset);
                }
                match handle.get().await? {
                    Some(offset) => done(&mut out, json, offset),
                    None if json => {
                        out.json(&json!({ "cursor": cursor, "offset": null }))?;
                        Err(NotFound.into())
                    }
                    None => {
                        eprintln!("naust: the stream {stream} has no cursor {cursor}");
                        Err(NotFound.into())
                    }
                }
            }
            Command::Options { stream, change } => {
                options(&mut out, json, &namespace, &stream, &change).await
            }
        }
    }
}

async fn options(
    out: &mut Output,
    json: bool,
    namespace: &Namespace,
    stream: &str,
    change: &Change,
) -> anyhow::Result<()> {
    let now = find(namespace, stream).await;
    if let Change { max_age_ms: None, max_bytes: None, max_records: None } = change {
        return print_options(out, json, &naust_gateway::stream_json(&now?)["options"]);
    }
    let now = match now {
        Ok(now) => now.options,
        // It is made.
        Err(error) if error.code == Code::StreamNotFound => StreamOptions::default(),
        Err(error) => return Err(error.into()),
    };
    let options = StreamOptions {
        max_age_ms: change.max_age_ms.unwrap_or(now.max_age_ms),
        max_bytes: change.max_bytes.unwrap_or(now.max_bytes),
        max_records: change.max_records.unwrap_or(now.max_records),
    };
    done(out, json, namespace.stream(stream).set_options(options).await?)
}

async fn find(namespace: &Namespace, name: &str) -> Result<naust_wire::reply::Stream, Error> {
    let page = namespace.describe_page(Some(Named::Stream(name.to_owned())), 1).await?;
    let found = page.streams.into_iter().find(|stream| stream.name == name);
    found.ok_or_else(|| Error::new(Code::StreamNotFound, format!("there is no stream {name:?}")))
}

/// Appends in batches: many records a commit.
async fn append_lines(
    out: &mut Output,
    json: bool,
    stream: &naust_client::Stream,
) -> anyhow::Result<()> {
    let mut lines = Lines::of_stdin()?;
    while let Some(batch) = lines.next().await? {
        for id in stream.append_many(batch).await? {
            done(out, json, id)?;
        }
    }
    Ok(())
}

async fn read(
    out: &mut Output,
    json: bool,
    stream: &naust_client::Stream,
    from: Offset,
    limit: u64,
    follow: bool,
    options: ReadOptions,
) -> anyhow::Result<()> {
    let mut from = from;
    let mut left = limit;
    while left > 0 {
        let page = u32::try_from(left).unwrap_or(u32::MAX).min(PAGE_ROWS_DEFAULT as u32);
        let wait_ms = if follow { 10_000 } else { 0 };
        let read = stream.read(from, ReadOptions { limit: page, wait_ms, ..options }).await?;
        for record in &read.records {
            print(out, json, record)?;
        }
        left -= read.records.len() as u64;
        if read.records.is_empty() && !follow {
            break;
        }
        from = read.next;
    }
    Ok(())
}

fn print(out: &mut Output, json: bool, record: &Record) -> anyhow::Result<()> {
    if !json {
        return out.line(&format!("{}\t{}", record.offset, readable(&record.value)));
    }
    let mut object = serde_json::Map::new();
    object.insert("offset".to_owned(), json!(record.offset.0));
    put_bytes(&mut object, "value", &record.value);
    out.json(&object.into())
}
