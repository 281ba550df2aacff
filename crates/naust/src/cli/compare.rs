//! `naust log verify --cluster`: do all replicas have the same?
//!
//! Of each namespace, and of the directory, an entry is logged at which every replica notes the
//! digests of what it has folded in memory: cursors, sessions, options, totals and the like. Each
//! replica is asked, over a connection of its own and with the weakest level that tells its own
//! state, for these, for its log up to that entry, and for its rows and records as of there. Rows
//! and records are hashed here, so that what is compared is what the replicas serve. Frames carry
//! the checksum of the one before: when two logs agree at their end and each frame is good, they
//! agree.

use super::NotFound;
use super::output::Output;
use anyhow::Context as _;
use naust_client::{
    Client, Code, Description, Error, Level, Namespace, NodeId, Offset, Options, ReadOptions,
};
use naust_wire::reply::{self, ViewDigest};
use naust_wire::{ShardId, frame};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

/// How often another offset is chosen, when replicas have forgotten what they had at the last.
const TRIES: usize = 5;

/// How long a node may take to say its first word: one that hangs is told of, and not asked for
/// each namespace.
const FIRST_WORD_MS_MAX: u64 = 5_000;

/// The views that are read.
const ROWS: &str = "rows";
const RECORDS: &str = "records";

/// What one replica has up to an offset.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Found {
    /// Index and checksum of the last frame; of the directory the log is not read.
    last: Option<(u64, u32)>,
    views: Vec<ViewDigest>,
}

impl Found {
    fn count(&self, name: &str) -> u64 {
        self.views.iter().find(|view| view.view == name).map_or(0, |view| view.count)
    }

    /// One hash of all views.
    fn hash(&self) -> u64 {
        let mut hash = Hash::default();
        for ViewDigest { view, count, digest } in &self.views {
            hash.bytes(view.as_bytes());
            hash.number(*count);
            hash.number(*digest);
        }
        hash.hash
    }

    /// What of it is not as with another one.
    fn differs_in<'a>(&'a self, other: &'a Found) -> Vec<&'a str> {
        let log = (self.last != other.last).then_some("log");
        let lacks = other.views.iter().filter(|view| !self.has(&view.view));
        let differs = self.views.iter().filter(|view| !other.views.contains(view));
        log.into_iter().chain(differs.chain(lacks).map(|view| view.view.as_str())).collect()
    }

    fn has(&self, name: &str) -> bool {
        self.views.iter().any(|view| view.view == name)
    }
}

/// The nodes of the cluster.
struct Nodes {
    all: Vec<reply::Node>,
    /// Those that did not say a first word, and why.
    silent: BTreeMap<NodeId, Error>,
}

/// What came of asking one.
struct Asked {
    node: NodeId,
    found: Result<Found, Error>,
}

/// What replicas are compared of.
#[derive(Clone)]
enum Of {
    /// The directory, of which every node has a replica.
    Directory,
    /// A namespace, with what it has.
    Namespace(String, Description),
}

/// Replicas that were compared with each other.
struct Compared<'a> {
    name: &'a str,
    shard: ShardId,
    /// Two views whose entries are counted for people.
    counts: [&'static str; 2],
    at: Offset,
    asked: Vec<Asked>,
}

/// Compares the replicas of one namespace, or of all and of the directory, and prints a line for
/// each.
pub async fn run(address: &str, only: Option<&str>, as_json: bool) -> anyhow::Result<()> {
    let client = Client::connect([address.to_owned()])
        .await
        .with_context(|| format!("no node answers at {address}"))?;
    let seen = super::cluster::see(&client).await?;
    let nodes = Nodes { silent: silent(&seen.nodes).await?, all: seen.nodes };
    let mut out = Output::new();
    let (mut same, mut any) = (true, false);
    if only.is_none() {
        let (at, asked) = compare(&client, &nodes, None).await?;
        let (name, counts) = ("directory", ["namespaces", "nodes"]);
        let compared = Compared { name, shard: ShardId::DIRECTORY, counts, at, asked };
        same &= print(&mut out, as_json, &nodes.all, &compared)?;
    }
    for namespace in &seen.namespaces {
        if only.is_some_and(|only| only != namespace.name) {
            continue;
        }
        any = true;
        let (at, asked) = compare(&client, &nodes, Some(namespace)).await?;
        let (name, counts) = (namespace.name.as_str(), [ROWS, RECORDS]);
        let compared = Compared { name, shard: namespace.shard, counts, at, asked };
        same &= print(&mut out, as_json, &nodes.all, &compared)?;
    }
    if !any {
        anyhow::bail!("there is no namespace {:?}", only.unwrap_or_default());
    }
    if same { Ok(()) } else { Err(NotFound.into()) }
}

/// Which nodes do not answer at all, and why.
async fn silent(nodes: &[reply::Node]) -> anyhow::Result<BTreeMap<NodeId, Error>> {
    let mut running = tokio::task::JoinSet::new();
    for reply::Node { id, address, .. } in nodes {
        let (id, address) = (*id, address.clone());
        running.spawn(async move { (id, first_word(address).await) });
    }
    let mut silent = BTreeMap::new();
    while let Some(one) = running.join_next().await {
        let (id, said) = one.context("a task of the comparison ended")?;
        silent.extend(said.err().map(|error| (id, error)));
    }
    Ok(silent)
}

async fn first_word(address: String) -> Result<(), Error> {
    let options = Options { timeout_ms: FIRST_WORD_MS_MAX, stays: true, ..Options::default() };
    let client = Client::connect_with([address], options).await?;
    client.cluster_page("", 1).await.map(drop)
}

/// Asks all replicas of a namespace, or else of the directory, for what they have at one offset.
async fn compare(
    client: &Client,
    nodes: &Nodes,
    namespace: Option<&reply::Namespace>,
) -> anyhow::Result<(Offset, Vec<Asked>)> {
    let mut tries = 0;
    loop {
        tries += 1;
        let (of, at, asked) = match namespace {
            None => {
                let at = client.note_digests().await.context("the digests of the directory")?;
                (Of::Directory, at, nodes.all.iter().map(|node| node.id).collect())
            }
            Some(namespace) => {
                let (name, here) = (&namespace.name, client.namespace(&namespace.name));
                let described = here.describe().await?;
                let at = here.note_digests().await;
                let at = at.with_context(|| format!("the digests of {name}"))?;
                let replicas = namespace.replicas.iter().map(|replica| replica.node);
                (Of::Namespace(name.clone(), described), at, replicas.collect::<Vec<_>>())
            }
        };
        let mut asked = ask_all(nodes, &asked, &of, at).await?;
        if let Of::Namespace(name, described) = &of
            && differ_in_what_expires(&asked)
            && has_expired(described, &client.namespace(name).describe().await?)
        {
            let detail = "what expires went while it was read";
            for Asked { found, .. } in asked.iter_mut().filter(|one| one.found.is_ok()) {
                *found = Err(Error::new(Code::OffsetTrimmed, detail));
            }
        }
        let is_past =
            |one: &Asked| one.found.as_ref().is_err_and(|error| error.code == Code::OffsetTrimmed);
        if tries == TRIES || !asked.iter().any(is_past) {
            return Ok((at, asked));
        }
    }
}

/// Whether rows or records are not the same everywhere: floors take effect for reads at any offset,
/// as soon as they move.
fn differ_in_what_expires(asked: &[Asked]) -> bool {
    let read = |found: &Found| {
        let read = |view: &&ViewDigest| view.view == ROWS || view.view == RECORDS;
        found.views.iter().filter(read).cloned().collect::<Vec<_>>()
    };
    let mut all = asked.iter().filter_map(|one| one.found.as_ref().ok()).map(read);
    let first = all.next();
    all.any(|other| Some(other) != first)
}

/// Whether rows or records have gone between two descriptions.
fn has_expired(before: &Description, after: &Description) -> bool {
    let begins = |of: &Description| -> BTreeSet<(bool, String, Offset)> {
        let keyspaces = of.keyspaces.iter().map(|one| (true, one.name.clone(), one.floor));
        // Of an empty stream nothing can go.
        let streams = of.streams.iter().filter(|one| one.records > 0);
        keyspaces.chain(streams.map(|one| (false, one.name.clone(), one.first))).collect()
    };
    !begins(before).is_subset(&begins(after))
}

/// Asks nodes for what they have at an offset, all at once.
async fn ask_all(nodes: &Nodes, ids: &[NodeId], of: &Of, at: Offset) -> anyhow::Result<Vec<Asked>> {
    let mut running = tokio::task::JoinSet::new();
    let mut asked = Vec::new();
    for id in ids {
        if let Some(error) = nodes.silent.get(id) {
            asked.push(Asked { node: *id, found: Err(error.clone()) });
            continue;
        }
        let node = nodes.all.iter().find(|node| node.id == *id);
        let address = node.map(|node| node.address.clone()).unwrap_or_default();
        let (node, of) = (*id, of.clone());
        running.spawn(async move { Asked { node, found: ask(address, of, at).await } });
    }
    while let Some(one) = running.join_next().await {
        asked.push(one.context("a task of the comparison ended")?);
    }
    asked.sort_by_key(|one| one.node);
    Ok(asked)
}

/// Asks one node.
async fn ask(address: String, of: Of, at: Offset) -> Result<Found, Error> {
    let options = Options { stays: true, ..Options::default() };
    let client = Client::connect_with([address], options).await?;
    let Of::Namespace(name, described) = of else {
        return Ok(Found { last: None, views: client.digests(at).await? });
    };
    let namespace = client.namespace(&name);
    // Rows first: how long they are remembered is limited.
    let rows = rows(&namespace, &described.keyspaces, at).await?;
    let mut views = namespace.digests(at).await?;
    let records = records(&namespace, &described.streams, at).await?;
    views.extend([rows.view(ROWS), records.view(RECORDS)]);
    Ok(Found { last: Some(log(&namespace, at).await?), views })
}

/// The rows of all keyspaces as of an offset.
async fn rows(
    namespace: &Namespace,
    keyspaces: &[reply::Keyspace],
    at: Offset,
) -> Result<Hash, Error> {
    let mut hash = Hash::default();
    for keyspace in keyspaces {
        hash.bytes(keyspace.name.as_bytes());
        let mut scan = namespace.kv(&keyspace.name).all().level(Level::Exactly(at));
        while let Some(page) = scan.next_page().await? {
            for row in page.entries {
                hash.bytes(&row.key);
                hash.number(row.offset.0);
                hash.bytes(&row.value);
                hash.count += 1;
            }
        }
    }
    Ok(hash)
}

/// The records of all streams up to where they ended when they were described.
async fn records(
    namespace: &Namespace,
    streams: &[reply::Stream],
    at: Offset,
) -> Result<Hash, Error> {
    let mut hash = Hash::default();
    for stream in streams {
        hash.bytes(stream.name.as_bytes());
        let there = namespace.stream(&stream.name);
        let mut from = stream.first;
        loop {
            let options = ReadOptions { level: Level::AtLeast(at), ..ReadOptions::default() };
            let page = there.read(from, options).await?;
            let mut taken = 0;
            for record in page.records.iter().take_while(|one| one.offset < stream.end) {
                hash.number(record.offset.0);
                hash.bytes(&record.value);
                taken += 1;
            }
            hash.count += taken as u64;
            if taken < page.records.len() || page.records.is_empty() || page.next <= from {
                break;
            }
            from = page.next;
        }
    }
    Ok(hash)
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
    compared: &Compared<'_>,
) -> anyhow::Result<bool> {
    let Compared { name, shard, counts, at, asked } = compared;
    let good: Vec<&Found> = asked.iter().filter_map(|one| one.found.as_ref().ok()).collect();
    // What most have; of two that differ nobody can tell which is right.
    let most = good.iter().max_by_key(|one| good.iter().filter(|two| two == one).count());
    let mut same = !asked.is_empty();
    if !as_json {
        out.line(&format!("{name}: shard {shard}, as of offset {at}"))?;
    }
    for Asked { node, found } in asked {
        let known = nodes.iter().find(|known| known.id == *node);
        let node = known.map_or_else(|| node.to_string(), |node| node.name.clone());
        let differs = match (found, most) {
            (Ok(found), Some(most)) => found.differs_in(most),
            _ => Vec::new(),
        };
        let is_same = found.is_ok() && differs.is_empty();
        same &= is_same;
        if as_json {
            let error = found.as_ref().err().map(ToString::to_string);
            let found = found.as_ref().ok();
            let last = found.and_then(|found| found.last);
            let digests = found.map(|found| {
                let views = found.views.iter().map(|view| {
                    let digest = format!("{:016x}", view.digest);
                    (view.view.clone(), json!({ "count": view.count, "digest": digest }))
                });
                views.collect::<serde_json::Map<_, _>>()
            });
            out.json(&json!({
                "namespace": (*shard != ShardId::DIRECTORY).then_some(name), "shard": shard.0,
                "at": at.0, "node": node, "same": is_same, "error": error, "differs": differs,
                "index": last.map(|last| last.0),
                "log": last.map(|last| format!("{:08x}", last.1)),
                "rows": found.map(|found| found.count(ROWS)),
                "records": found.map(|found| found.count(RECORDS)),
                "views": found.map(|found| format!("{:016x}", found.hash())),
                "digests": digests,
            }))?;
            continue;
        }
        let mut line = format!("  {node:<16}");
        match found {
            Ok(found) => {
                if let Some((index, crc)) = found.last {
                    write!(line, " log {crc:08x} at index {index},")?;
                }
                let [one, two] = counts.map(|view| format!("{} {view}", found.count(view)));
                write!(line, " views {:016x} of {one} and {two}: ", found.hash())?;
                match differs[..] {
                    [] => line.push_str("same"),
                    _ => write!(line, "DIFFERS in {}", differs.join(", "))?,
                }
            }
            Err(error) => write!(line, " NOT COMPARED: {error}")?,
        }
        out.line(&line)?;
    }
    Ok(same)
}

/// FNV-1a, 64 bits (Fowler, Noll and Vo), over fields with their lengths.
struct Hash {
    hash: u64,
    /// Rows or records that were taken in.
    count: u64,
}

impl Default for Hash {
    fn default() -> Hash {
        Hash { hash: 0xcbf2_9ce4_8422_2325, count: 0 }
    }
}

impl Hash {
    fn number(&mut self, number: u64) {
        number.to_le_bytes().into_iter().for_each(|byte| self.byte(byte));
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        bytes.iter().for_each(|byte| self.byte(*byte));
    }

    fn byte(&mut self, byte: u8) {
        self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }

    fn view(&self, view: &str) -> ViewDigest {
        ViewDigest { view: view.to_owned(), count: self.count, digest: self.hash }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(views: &[(&str, u64)]) -> Found {
        let views = views.iter().map(|(view, digest)| ViewDigest {
            view: (*view).to_owned(),
            count: 1,
            digest: *digest,
        });
        Found { last: Some((1, 2)), views: views.collect() }
    }

    #[test]
    fn what_differs_is_named_also_when_only_one_has_it() {
        let one = found(&[("cursors", 1), ("sessions", 1), (ROWS, 1)]);
        assert_eq!(one.differs_in(&one), Vec::<&str>::new());
        let two = found(&[("cursors", 2), ("sessions", 1), (ROWS, 1)]);
        assert_eq!(two.differs_in(&one), ["cursors"]);
        let behind = Found { last: Some((1, 3)), ..found(&[("cursors", 1), (ROWS, 2)]) };
        assert_eq!(behind.differs_in(&one), ["log", ROWS, "sessions"]);
    }

    /// Why: a floor that moves between the reads of two replicas is no damage.
    #[test]
    fn only_rows_and_records_can_expire() {
        let ask = |node, found| Asked { node: NodeId(node), found };
        let gone = || Err(Error::new(Code::Unavailable, "it is down"));
        let alike = [ask(1, Ok(found(&[("cursors", 1), (RECORDS, 1)]))), ask(2, gone())];
        assert!(!differ_in_what_expires(&alike));
        let cursors = [
            ask(1, Ok(found(&[("cursors", 1), (RECORDS, 1)]))),
            ask(2, Ok(found(&[("cursors", 2), (RECORDS, 1)]))),
        ];
        assert!(!differ_in_what_expires(&cursors));
        let records = [
            ask(1, Ok(found(&[("cursors", 1), (RECORDS, 1)]))),
            ask(2, Ok(found(&[("cursors", 1), (RECORDS, 2)]))),
        ];
        assert!(differ_in_what_expires(&records));
    }
}
