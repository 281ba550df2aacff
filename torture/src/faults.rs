//! What goes wrong in a round: drawn from its seed before it begins, and done to the nodes.
//!
//! Faults that the promises cover come one or two at a time, in any mixture. What costs a replica
//! (a wiped disk, rotten bits, a cut file) comes alone, always to the same node of a round, and the
//! node is whole again, or replaced, before the next: more than one lost copy is more than three
//! replicas promise to survive.

use crate::nodes::{Node, Nodes};
use crate::proxy::Weather;
use crate::shim::{EIO, ENOSPC, Faults};
use anyhow::{Context as _, ensure};
use naust_sim::generator::Generator;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// SIGKILL, and a new start.
    Kill,
    /// SIGKILL of all nodes at once.
    KillAll,
    /// SIGSTOP.
    Pause,
    /// SIGTERM, and a new start.
    Restart,
    /// Leadership of `default` is handed to it.
    Transfer,
    /// Nothing reaches it, and nothing of it reaches others.
    Isolate,
    /// Nothing reaches it.
    Deaf,
    /// Nothing of it reaches others.
    Mute,
    /// Its connections are closed, and refused.
    Refuse,
    /// It and the next one don't reach each other.
    Pair,
    /// What it says and hears comes late.
    Late,
    /// Its syncs take long.
    SlowSyncs,
    /// Its writes take long.
    SlowWrites,
    /// Its syncs fail now and then.
    FailingSyncs,
    /// Its writes fail now and then.
    FailingWrites,
    /// Its disk has no space left.
    Full,
    /// Its wall clock jumps an hour.
    Clock,
    /// Its disk is lost, and another node takes its place.
    Wipe,
    /// Some bits of its files flip while it is down.
    Flip,
    /// One of its files is cut while it is down.
    Cut,
}

impl Kind {
    /// Those that may come together.
    const PASSING: [Kind; 17] = [
        Kind::Kill,
        Kind::KillAll,
        Kind::Pause,
        Kind::Restart,
        Kind::Transfer,
        Kind::Isolate,
        Kind::Deaf,
        Kind::Mute,
        Kind::Refuse,
        Kind::Pair,
        Kind::Late,
        Kind::SlowSyncs,
        Kind::SlowWrites,
        Kind::FailingSyncs,
        Kind::FailingWrites,
        Kind::Full,
        Kind::Clock,
    ];
    /// Those that cost a replica.
    const LASTING: [Kind; 3] = [Kind::Wipe, Kind::Flip, Kind::Cut];

    /// Its name in the table.
    pub fn name(self) -> String {
        format!("{self:?}").to_lowercase()
    }
}

/// One fault.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    /// What.
    pub kind: Kind,
    /// To which node.
    pub which: usize,
    /// How much of it, as the kind takes it.
    pub amount: u64,
}

/// What happens at a time.
#[derive(Clone, Debug)]
pub struct Event {
    /// All at once.
    pub faults: Vec<Fault>,
    /// How long it lasts, and how long nothing happens afterwards.
    pub lasts: Duration,
    /// See `lasts`.
    pub rests: Duration,
}

/// What happens in a round, one event after the other, for as long as the round lasts.
pub struct Events {
    chance: Generator,
    kinds: Vec<Kind>,
    victim: usize,
}

impl Events {
    /// Draws what a round is about: about half of all kinds.
    pub fn draw(mut chance: Generator) -> Events {
        let mut kinds: Vec<Kind> =
            Kind::PASSING.into_iter().chain(Kind::LASTING).filter(|_| chance.coin()).collect();
        if kinds.is_empty() {
            kinds.push(Kind::Kill);
        }
        let victim = chance.below(3) as usize;
        Events { chance, kinds, victim }
    }

    /// The next event.
    pub fn next(&mut self) -> Event {
        let kind = *self.chance.pick(&self.kinds);
        let mut faults = Vec::new();
        if Kind::LASTING.contains(&kind) {
            faults.push(Fault { kind, which: self.victim, amount: self.chance.draw() });
        } else {
            faults.push(self.passing(kind));
            let passing = |kind: &Kind| Kind::PASSING.contains(kind);
            let others: Vec<Kind> = self.kinds.iter().copied().filter(passing).collect();
            if self.chance.below(3) == 0 {
                let other = *self.chance.pick(&others);
                let fault = self.passing(other);
                if fault.which != faults[0].which {
                    faults.push(fault);
                }
            }
        }
        let mut millis = |low, high| Duration::from_millis(self.chance.skewed(low, high));
        Event { faults, lasts: millis(50, 3_000), rests: millis(20, 1_500) }
    }

    fn passing(&mut self, kind: Kind) -> Fault {
        Fault { kind, which: self.chance.below(3) as usize, amount: self.chance.draw() }
    }
}

/// What became of a replica that was damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mended {
    /// It serves and has everything: mended, or never looked at.
    Serves,
    /// It said that it is damaged, and was replaced.
    Replaced,
}

/// How long a damaged replica may take to be mended before it is replaced.
const MENDED_MAX: Duration = Duration::from_secs(15);
const LOOK: Duration = Duration::from_millis(50);

const HELD_UP: Weather = Weather { held_up: true, refused: false, delay: Duration::ZERO };
const GOOD: Weather = Weather { held_up: false, refused: false, delay: Duration::ZERO };
const REFUSED: Weather = Weather { held_up: false, refused: true, delay: Duration::ZERO };

/// A fault begins.
pub fn begin(nodes: &mut Nodes, fault: &Fault) -> anyhow::Result<()> {
    let Fault { kind, which, amount } = *fault;
    let micros = |low: u32, high: u64| low + (amount % high) as u32;
    let mut disk = Faults::default();
    match kind {
        Kind::Kill => nodes.all[which].kill()?,
        Kind::KillAll => nodes.all.iter_mut().try_for_each(Node::kill)?,
        Kind::Pause if !nodes.all[which].is_up => {}
        Kind::Pause => nodes.all[which].pause()?,
        Kind::Restart => {
            let node = &mut nodes.all[which];
            // One that stands still, is dead or may fail can't end cleanly.
            if node.is_up && !node.is_paused && !node.has_ended()? {
                node.shim.set(Faults::default())?;
                node.terminate()?;
            }
        }
        Kind::Transfer => {
            let name = nodes.all[which].name.clone();
            let arguments = ["cluster", "--wait-s", "1", "transfer", "default", &name];
            // It may have no vote, or be down: then leadership stays where it is.
            drop(nodes.naust((which + 1) % 3, &arguments));
        }
        Kind::Isolate => nodes.surround(which, HELD_UP, HELD_UP),
        Kind::Deaf => nodes.surround(which, HELD_UP, GOOD),
        Kind::Mute => nodes.surround(which, GOOD, HELD_UP),
        Kind::Refuse => nodes.surround(which, REFUSED, REFUSED),
        Kind::Pair => {
            let (one, two) = (&nodes.all[which].name, &nodes.all[(which + 1) % 3].name);
            nodes.network.set(one, two, HELD_UP);
            nodes.network.set(two, one, HELD_UP);
        }
        Kind::Late => {
            let late = Weather { delay: Duration::from_millis(1 + amount % 150), ..GOOD };
            nodes.surround(which, late, late);
        }
        Kind::SlowSyncs => disk.sync_delay_us = micros(5_000, 300_000),
        Kind::SlowWrites => disk.write_delay_us = micros(1_000, 30_000),
        Kind::FailingSyncs => {
            (disk.sync_errno, disk.every) = (EIO, 1 + (amount % 20) as u32);
        }
        Kind::FailingWrites => {
            (disk.write_errno, disk.every) = (EIO, 1 + (amount % 20) as u32);
        }
        Kind::Full => disk.write_errno = ENOSPC,
        Kind::Clock => disk.clock_seconds = if amount % 2 == 0 { 3600 } else { -3600 },
        Kind::Wipe | Kind::Flip | Kind::Cut => {}
    }
    if disk != Faults::default() {
        nodes.all[which].shim.set(disk)?;
    }
    Ok(())
}

/// A node whose disk failed has ended, or has closed what it could not write: it said so, and is
/// started again.
pub fn start_again_what_failed(nodes: &mut Nodes) -> anyhow::Result<()> {
    for node in &mut nodes.all {
        if node.has_ended()? {
            continue;
        }
        // One that does not tell is just ending.
        if node.closed_shards().unwrap_or(1) > 0 {
            node.kill()?;
        }
    }
    nodes.heal()
}

/// A node loses its disk, or a part of it, and is whole again, or replaced, when this returns.
pub fn lose(nodes: &mut Nodes, fault: &Fault) -> anyhow::Result<Mended> {
    let which = fault.which;
    let mut chance = Generator::new(fault.amount);
    let node = &mut nodes.all[which];
    node.kill()?;
    match fault.kind {
        Kind::Flip => flip(&node.data, &mut chance)?,
        Kind::Cut => cut(&node.data, &mut chance)?,
        _ => {
            nodes.replace(which)?;
            return Ok(Mended::Replaced);
        }
    }
    let started = node.start();
    node.check_errors()?;
    if started.is_err() {
        let said = node.errors()?;
        ensure!(!said.trim().is_empty(), "{} does not start and does not say why", node.name);
        nodes.replace(which)?;
        return Ok(Mended::Replaced);
    }
    let until = Instant::now() + MENDED_MAX;
    loop {
        let is_whole = (0..nodes.all.len()).all(|node| nodes.is_whole(node));
        let node = &mut nodes.all[which];
        let stopped = node.has_ended()?;
        let closed = stopped || node.closed_shards().unwrap_or(1) > 0;
        if is_whole && !closed {
            return Ok(Mended::Serves);
        }
        if stopped || Instant::now() > until {
            break;
        }
        std::thread::sleep(LOOK);
    }
    let node = &nodes.all[which];
    let said = node.errors()?;
    ensure!(!said.trim().is_empty(), "{} is not whole and does not say why", node.name);
    nodes.replace(which)?;
    Ok(Mended::Replaced)
}

fn flip(data: &Path, chance: &mut Generator) -> anyhow::Result<()> {
    let path = some_file(data, chance)?;
    let mut bytes = fs::read(&path)?;
    for _ in 0..chance.between(1, 8) {
        let at = chance.below(bytes.len() as u64) as usize;
        bytes[at] ^= 1 << chance.below(8);
    }
    Ok(fs::write(&path, bytes)?)
}

fn cut(data: &Path, chance: &mut Generator) -> anyhow::Result<()> {
    let path = some_file(data, chance)?;
    let file = fs::File::options().write(true).open(&path)?;
    let length = file.metadata()?.len();
    Ok(file.set_len(chance.below(length))?)
}

/// A file of logs or tables with something in it, from a list in the order of names.
fn some_file(data: &Path, chance: &mut Generator) -> anyhow::Result<PathBuf> {
    let mut files = Vec::new();
    let mut directories = vec![data.join("shards")];
    let until = Instant::now() + Duration::from_secs(10);
    while let Some(directory) = directories.pop() {
        ensure!(Instant::now() < until, "the data directory has no end");
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                directories.push(entry.path());
            } else if entry.metadata()?.len() > 0 {
                files.push(entry.path());
            }
        }
    }
    files.sort();
    let file = (!files.is_empty()).then(|| chance.pick(&files).clone());
    file.context("the node has no files")
}
