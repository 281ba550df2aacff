//! `naust log verify --cluster`: do all replicas have the same?
//!
//! Of each namespace an offset is chosen, the end of what is committed. Each replica is asked, over
//! a connection of its own and with the weakest level that tells its own state, for its log up to
//! there and for its rows and records as of there. What comes is hashed here, so that what is
//! compared is what the replicas serve. Frames carry the checksum of the one before: when two logs
//! agree at their end and each frame is good, they agree.

use super::NotFound;
use super::output::Output;
use anyhow::Context as _;
use naust_client::{Client, Code, Error, Level, Namespace, NodeId, Offset, Options, ReadOptions};
use naust_wire::frame;
use naust_wire::reply;
use serde_json::json;
use std::fmt::Write as _;

/// How often another offset is chosen, when replicas have forgotten what they had at the last.
const TRIES: usize = 5;

/// What one replica has up to an offset.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Found {
    /// Index and checksum of the last frame.
    last: (u64, u32),
    rows: u64,
    records: u64,
    /// A hash of all rows and records.
    views: u64,
}

/// What came of asking one.
struct Asked {
    node: NodeId,
    found: Result<Found, Error>,
}

/// Compares the replicas of one namespace, or of all, and prints a line for each.
pub async fn run(address: &str, only: Option<&str>, as_json: bool) -> anyhow::Result<()> {
    let client = Client::connect([address.to_owned()])
        .await
        .with_context(|| format!("no node answers at {address}"))?;
    let seen = client.cluster().await?;
    let mut out = Output::new();
    let (mut same, mut any) = (true, false);
    for namespace in &seen.namespaces {
        if only.is_some_and(|only| only != namespace.name) {
            continue;
        }
        any = true;
        let (at, asked) = ask_all(&client, &seen.nodes, namespace).await?;
        same &= print(&mut out, as_json, &seen.nodes, namespace, at, &asked)?;
    }
    if !any {
        anyhow::bail!("there is no namespace {:?}", only.unwrap_or_default());
    }
    if same { Ok(()) } else { Err(NotFound.into()) }
}

/// Asks all replicas of a namespace for what they have at one offset.
async fn ask_all(
    client: &Client,
    nodes: &[reply::Node],
    namespace: &reply::Namespace,
) -> anyhow::Result<(Offset, Vec<Asked>)> {
    let here = client.namespace(&namespace.name);
    let mut tries = 0;
    loop {
        tries += 1;
        let described = here.describe().await?;
        let at = described.at;
        let mut asked = Vec::new();
        let mut running = tokio::task::JoinSet::new();
        for replica in &namespace.replicas {
            let id = replica.node;
            let node = nodes.iter().find(|node| node.id == id);
            let address = node.map(|node| node.address.clone()).unwrap_or_default();
            let (name, described) = (namespace.name.clone(), described.clone());
            running.spawn(async move {
                let found = ask(address, &name, &described, at).await;
                Asked { node: id, found }
            });
        }
        while let Some(one) = running.join_next().await {
            asked.push(one.context("a task of the comparison ended")?);
        }
        asked.sort_by_key(|one| one.node);
        let is_past =
            |one: &Asked| one.found.as_ref().is_err_and(|error| error.code == Code::OffsetTrimmed);
        if tries == TRIES || !asked.iter().any(is_past) {
            return Ok((at, asked));
        }
    }
}

async fn ask(
    address: String,
    name: &str,
    described: &naust_client::Description,
    at: Offset,
) -> Result<Found, Error> {
    let options = Options { stays: true, ..Options::default() };
    let client = Client::connect_with([address], options).await?;
    let namespace = client.namespace(name);
    let mut found = Found::default();
    let mut hash = Hash::default();
    // Rows first: how long they are remembered is limited.
    for keyspace in &described.keyspaces {
        hash.bytes(keyspace.name.as_bytes());
        let mut scan = namespace.kv(&keyspace.name).all().level(Level::Exactly(at));
        while let Some(page) = scan.next_page().await? {
            for row in page.entries {
                hash.bytes(&row.key);
                hash.number(row.offset.0);
                hash.bytes(&row.value);
                found.rows += 1;
            }
        }
    }
    for stream in &described.streams {
        hash.bytes(stream.name.as_bytes());
        found.records += records(&namespace, stream, at, &mut hash).await?;
    }
    found.views = hash.0;
    found.last = log(&namespace, at).await?;
    Ok(found)
}

/// The records of a stream up to an offset.
async fn records(
    namespace: &Namespace,
    stream: &reply::Stream,
    at: Offset,
    hash: &mut Hash,
) -> Result<u64, Error> {
    let stream_there = namespace.stream(&stream.name);
    let (mut from, mut count) = (stream.first, 0);
    loop {
        let options = ReadOptions { level: Level::AtLeast(at), ..ReadOptions::default() };
        let page = stream_there.read(from, options).await?;
        let there = page.records.iter().take_while(|record| record.offset.0 < stream.end.0);
        let taken = there.fold(0, |count, record| {
            hash.number(record.offset.0);
            hash.bytes(&record.value);
            count + 1
        });
        count += taken as u64;
        if taken < page.records.len() || page.records.is_empty() || page.next <= from {
            return Ok(count);
        }
        from = page.next;
    }
}

/// Reads all of a replica's log up to the frame that begins at `at`: its index and checksum.
async fn log(namespace: &Namespace, at: Offset) -> Result<(u64, u32), Error> {
    let mut from = Offset::FIRST;
    let mut last = (0, 0);
    while from <= at {
        let read = namespace.log_at(from, 0, 0, Level::Local).await;
        let frames = match read {
            // Each replica trims by itself.
            Err(error) if error.code == Code::OffsetTrimmed => match goes_on_at(&error) {
                Some(next) if next > from => {
                    from = next;
                    continue;
                }
                _ => return Err(error),
            },
            frames => frames?,
        };
        let mut rest = &frames.data[..];
        while !rest.is_empty() {
            let frame = frame::read(rest).map_err(|bad| {
                Error::new(Code::Corrupt, format!("a frame behind offset {from}: {bad}"))
            })?;
            if frame.header.offset > at {
                return Ok(last);
            }
            last = (frame.header.index.0, frame.crc);
            rest = &rest[frame.header.frame_bytes() as usize..];
        }
        if frames.next <= from {
            break;
        }
        from = frames.next;
    }
    Ok(last)
}

/// At which offset the log goes on, if it does.
fn goes_on_at(error: &Error) -> Option<Offset> {
    error.hint.parse().ok().map(Offset)
}

fn print(
    out: &mut Output,
    as_json: bool,
    nodes: &[reply::Node],
    namespace: &reply::Namespace,
    at: Offset,
    asked: &[Asked],
) -> anyhow::Result<bool> {
    let good: Vec<&Found> = asked.iter().filter_map(|one| one.found.as_ref().ok()).collect();
    // What most have; of two that differ nobody can tell which is right.
    let most = good.iter().max_by_key(|one| good.iter().filter(|two| two == one).count());
    let mut same = !asked.is_empty();
    if !as_json {
        let (name, shard) = (&namespace.name, namespace.shard);
        out.line(&format!("{name}: shard {shard}, as of offset {at}"))?;
    }
    for Asked { node, found } in asked {
        let name = nodes.iter().find(|known| known.id == *node);
        let name = name.map_or_else(|| node.to_string(), |node| node.name.clone());
        let is_same = found.as_ref().is_ok_and(|found| Some(&found) == most);
        same &= is_same;
        if as_json {
            let error = found.as_ref().err().map(ToString::to_string);
            let found = found.as_ref().ok();
            out.json(&json!({
                "namespace": namespace.name, "shard": namespace.shard.0, "at": at.0, "node": name,
                "same": is_same, "error": error,
                "index": found.map(|found| found.last.0),
                "log": found.map(|found| format!("{:08x}", found.last.1)),
                "rows": found.map(|found| found.rows),
                "records": found.map(|found| found.records),
                "views": found.map(|found| format!("{:016x}", found.views)),
            }))?;
            continue;
        }
        let mut line = format!("  {name:<16}");
        match found {
            Ok(Found { last: (index, crc), rows, records, views }) => write!(
                line,
                " log {crc:08x} at index {index}, views {views:016x} of {rows} rows and \
                 {records} records: {}",
                if is_same { "same" } else { "DIFFERS" }
            )?,
            Err(error) => write!(line, " NOT COMPARED: {error}")?,
        }
        out.line(&line)?;
    }
    Ok(same)
}

/// FNV-1a, 64 bits (Fowler, Noll and Vo), over fields with their lengths.
struct Hash(u64);

impl Default for Hash {
    fn default() -> Hash {
        Hash(0xcbf2_9ce4_8422_2325)
    }
}

impl Hash {
    fn number(&mut self, number: u64) {
        for byte in number.to_le_bytes() {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
}
