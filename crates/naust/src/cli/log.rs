//! `naust log`: looks into a data directory, offline and without changing a byte; or compares the
//! replicas of a running cluster.

use super::NotFound;
use super::output::{Output, readable};
use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use naust::data;
use naust::disk::{FileDisk, Meter};
use naust_log::disk::Disk;
use naust_log::{Depth, Survey};
use naust_wire::commit::{Commit, Op};
use naust_wire::control::Control;
use naust_wire::frame::{Frame, Kind};
use naust_wire::message::Message;
use naust_wire::{Offset, ShardId};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Bytes that are read at a time.
const READ_BYTES: usize = 1 << 20;

#[derive(Args)]
pub struct Log {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Print the frames of a shard's log.
    Dump {
        #[command(flatten)]
        place: Place,
        /// The first offset.
        #[arg(long, default_value_t = 0)]
        from: u64,
        /// At most so many frames.
        #[arg(long, default_value_t = u64::MAX)]
        limit: u64,
        /// Print the keys and values of commits too.
        #[arg(long)]
        ops: bool,
    },
    /// Check every frame of every log; exit status 1 when anything acknowledged is damaged.
    ///
    /// With `--cluster` nothing is read from a directory: all replicas of a running cluster are
    /// asked for their logs, rows and records and for digests of all their other views as of one
    /// offset, and compared; exit status 1 when they differ, or one can't be compared.
    Verify {
        #[command(flatten)]
        place: Place,
        /// Compare all replicas of a running cluster.
        #[arg(long, conflicts_with_all = ["data", "shard"])]
        cluster: bool,
        /// With `--cluster`: the native address of any of its nodes.
        #[arg(long, env = "NAUST_ADDRESS", default_value = "127.0.0.1:7420")]
        address: String,
        /// With `--cluster`: only this namespace.
        #[arg(long, requires = "cluster")]
        namespace: Option<String>,
    },
}

#[derive(Args)]
struct Place {
    /// The data directory.
    #[arg(long, env = "NAUST_DATA", default_value = "./naust-data")]
    data: PathBuf,
    /// Only this shard; `dump` takes shard 1, where `default` lives, when it is missing.
    #[arg(long)]
    shard: Option<u32>,
    /// Print JSON, one object a line.
    #[arg(long)]
    json: bool,
}

impl Log {
    pub fn run(self) -> anyhow::Result<()> {
        match self.command {
            Command::Dump { place, from, limit, ops } => {
                note_journal(&place);
                let shard = ShardId(place.shard.unwrap_or(1));
                dump(&place, shard, Offset(from), limit, ops)
            }
            Command::Verify { place, cluster: true, address, namespace } => {
                super::block_on(super::compare::run(&address, namespace.as_deref(), place.json))
            }
            Command::Verify { place, .. } => {
                note_journal(&place);
                verify(&place)
            }
        }
    }
}

/// What a power cut left in the journal alone is not in the logs before the node starts.
fn note_journal(place: &Place) {
    let redo = data::journal_path(&place.data);
    if redo.exists() {
        eprintln!(
            "naust: {} is not looked at: the node runs, or was killed. If the machine lost its \
             power, start the node once before: the last writes may be missing here, or seem \
             damaged",
            redo.display()
        );
    }
}

fn survey(data: &Path, shard: ShardId, depth: Depth) -> anyhow::Result<Survey> {
    let path = data::log_path(data, shard);
    if !path.is_dir() {
        bail!("there is no log of shard {shard} in {}", data.display());
    }
    let disk: Arc<dyn Disk> = Arc::new(FileDisk::open(&path, Arc::<Meter>::default(), None)?);
    Survey::new(disk, depth).with_context(|| format!("the log of shard {shard} can't be read"))
}

fn dump(place: &Place, shard: ShardId, from: Offset, limit: u64, ops: bool) -> anyhow::Result<()> {
    let survey = survey(&place.data, shard, Depth::Tail)?;
    let reader = survey.reader();
    let mut out = Output::new();
    let mut at = from.max(survey.start.offset);
    let mut left = limit;
    while at < survey.end.offset && left > 0 {
        let chunk = reader.frames(at, survey.end.offset, READ_BYTES)?;
        for frame in chunk.frames() {
            if left == 0 {
                break;
            }
            left -= 1;
            print(&mut out, place.json, &frame, ops)?;
        }
        at = chunk.next();
    }
    Ok(())
}

fn print(out: &mut Output, json: bool, frame: &Frame<'_>, ops: bool) -> anyhow::Result<()> {
    let header = &frame.header;
    let steps = match header.kind {
        Kind::Commit => steps(frame.body, ops),
        Kind::Control => match Control::decode_numbered(frame.body) {
            Ok((numbers, control)) => {
                let of = (numbers.session.0 != 0)
                    .then(|| format!("session {} sequence {}", numbers.session, numbers.sequence));
                of.into_iter().chain([format!("{control:?}")]).collect()
            }
            Err(refusal) => vec![refusal.to_string()],
        },
        _ => Vec::new(),
    };
    if json {
        let object: Value = json!({
            "offset": header.offset.0, "kind": format!("{:?}", header.kind).to_lowercase(),
            "term": header.term.0, "index": header.index.0, "time_ms": header.time.0,
            "body_bytes": header.body_bytes, "crc": frame.crc, "content": steps,
        });
        return out.json(&object);
    }
    out.line(&format!(
        "{} {:?} term {} index {} time {} ms, {} B{}{}",
        header.offset,
        header.kind,
        header.term,
        header.index,
        header.time,
        header.body_bytes,
        if steps.is_empty() { "" } else { ": " },
        steps.join(", "),
    ))
}

/// What a commit does, in words.
fn steps(body: &[u8], ops: bool) -> Vec<String> {
    let told = || -> Result<Vec<String>, naust_wire::message::Refusal> {
        let message = Message::new(body)?;
        let commit = Commit::read(&message)?;
        let mut steps = Vec::new();
        if commit.session().0 != 0 {
            steps.push(format!("session {} sequence {}", commit.session(), commit.sequence()));
        }
        if commit.conditions_len() > 0 {
            steps.push(format!("{} conditions", commit.conditions_len()));
        }
        if !ops {
            steps.push(format!("{} ops", commit.ops_len()));
            return Ok(steps);
        }
        for op in commit.ops() {
            steps.push(step(&commit, op?)?);
        }
        Ok(steps)
    };
    told().unwrap_or_else(|refusal| vec![refusal.to_string()])
}

fn step(commit: &Commit<'_>, op: Op<'_>) -> Result<String, naust_wire::message::Refusal> {
    Ok(match op {
        Op::Put { space, key, value } => {
            format!("put {}/{}={}", commit.name(space)?, readable(key), readable(value))
        }
        Op::Delete { space, key } => format!("delete {}/{}", commit.name(space)?, readable(key)),
        Op::DeleteRange { space, from, to } => {
            let to = to.map(readable).unwrap_or_default();
            format!("delete-range {}/{}..{to}", commit.name(space)?, readable(from))
        }
        Op::Append { space, value } => {
            format!("append {}={}", commit.name(space)?, readable(value))
        }
        Op::Advance { space, cursor, offset } => {
            format!("advance {}/{}={offset}", commit.name(space)?, commit.name(cursor)?)
        }
    })
}

fn verify(place: &Place) -> anyhow::Result<()> {
    if !place.data.is_dir() {
        bail!("there is no data directory {}", place.data.display());
    }
    if !place.data.join("shards").is_dir() {
        bail!("there is no data in {}", place.data.display());
    }
    let shards = match place.shard {
        Some(shard) => vec![ShardId(shard)],
        None => data::shards(&place.data)?,
    };
    if shards.is_empty() {
        bail!("there is no data in {}", place.data.display());
    }
    let mut out = Output::new();
    let mut sound = true;
    for shard in shards {
        let survey = survey(&place.data, shard, Depth::Whole)?;
        sound &= survey.damage.is_empty();
        let torn = survey.torn.map(|torn| format!("torn tail at {}", torn.from));
        if place.json {
            let damage: Vec<String> = survey.damage.iter().map(ToString::to_string).collect();
            out.json(&json!({
                "shard": shard.0, "start": survey.start.offset.0, "end": survey.end.offset.0,
                "frames_to": survey.end.index.0, "scanned_bytes": survey.scanned_bytes,
                "torn": survey.torn.map(|torn| torn.from.0), "damage": damage,
            }))?;
            continue;
        }
        out.line(&format!(
            "shard {shard}: offsets {} to {}, index {}, {} bytes read: {}{}",
            survey.start.offset,
            survey.end.offset,
            survey.end.index,
            survey.scanned_bytes,
            if survey.damage.is_empty() { "sound" } else { "DAMAGED" },
            torn.map(|torn| format!(", {torn} (never acknowledged)")).unwrap_or_default(),
        ))?;
        for damage in &survey.damage {
            out.line(&format!("  {damage}"))?;
        }
    }
    if sound { Ok(()) } else { Err(NotFound.into()) }
}
