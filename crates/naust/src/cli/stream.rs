//! `naust stream`: records and cursors.

use super::kv::{ReadLevel, done};
use super::output::{Output, put_bytes, readable, value_or_stdin};
use super::{At, NotFound};
use anyhow::Context as _;
use clap::{Args, Subcommand};
use naust_client::ReadOptions;
use naust_wire::Offset;
use naust_wire::limits::PAGE_ROWS_DEFAULT;
use naust_wire::options::StreamOptions;
use naust_wire::reply::Record;
use serde_json::json;
use std::io::BufRead as _;

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
        /// Make a record of every line of standard input; prints their ids.
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
        level: ReadLevel,
    },
    /// Print where a cursor stands, or move it to OFFSET.
    Cursor { stream: String, cursor: String, offset: Option<u64> },
    /// Make a stream, or change what it keeps (0: everything).
    Options {
        stream: String,
        #[arg(long, default_value_t = 0)]
        max_age_ms: u64,
        #[arg(long, default_value_t = 0)]
        max_bytes: u64,
        #[arg(long, default_value_t = 0)]
        max_records: u64,
    },
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
                    None => {
                        eprintln!("naust: the stream {stream} has no cursor {cursor}");
                        Err(NotFound.into())
                    }
                }
            }
            Command::Options { stream, max_age_ms, max_bytes, max_records } => {
                let options = StreamOptions { max_age_ms, max_bytes, max_records };
                let offset = namespace.stream(&stream).set_options(options).await?;
                done(&mut out, json, offset)
            }
        }
    }
}

/// Appends in batches: many records a commit.
async fn append_lines(
    out: &mut Output,
    json: bool,
    stream: &naust_client::Stream,
) -> anyhow::Result<()> {
    let mut batch: Vec<Vec<u8>> = Vec::new();
    let mut lines = std::io::stdin().lock().split(b'\n');
    loop {
        let line = lines.next().transpose().context("standard input can't be read")?;
        let full = batch.len() == PAGE_ROWS_DEFAULT || line.is_none();
        if full && !batch.is_empty() {
            for id in stream.append_many(std::mem::take(&mut batch)).await? {
                done(out, json, id)?;
            }
        }
        match line {
            Some(line) => batch.push(line),
            None => return Ok(()),
        }
    }
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
