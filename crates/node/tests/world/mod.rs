//! A node in one thread: worker, views and reads over simulated disks and tables in memory.
//! Effects are carried out at once and in order, but writes can be held back as a slow disk
//! does.

#![allow(dead_code, reason = "each test uses its part of the world")]

mod commands;
mod narrow;
mod show;

use narrow::{Damage, Narrow};
use naust_log::disk::{Disk, Open};
use naust_log::sim::SimDisk;
use naust_log::{Identity, Layout, ReadError, Write, Written};
use naust_machine::{Checked, MachineOptions, MemReader, MemTables, TablesJob};
use naust_node::answer::{self, Readers};
use naust_node::open::OpenError;
use naust_node::transfer::{self, Export, Import};
use naust_node::views::{Job, Output, Views};
use naust_node::{Config, ConnectionId, Effect, Event, Node, Now, Pace, fetch, open, repair};
use naust_wire::limits::TRANSFER_PART_BYTES;
use naust_wire::options::NamespaceOptions;
use naust_wire::{NodeId, Offset, ShardId};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

pub const NODE: NodeId = NodeId(7);

/// What leaves a node for others.
pub enum Out {
    /// A link is wanted.
    Link(NodeId),
    /// A link is to be made anew.
    Relink(NodeId),
    /// Packets over a link.
    Peer(NodeId, Vec<u8>),
    /// Packets back over the link of another node.
    Back(NodeId, Vec<u8>),
}

/// Connections of other nodes are numbered from here on, by their ids.
pub const PEERS: u64 = 1 << 40;

pub struct World {
    id: NodeId,
    /// What leaves for other nodes.
    pub out: Vec<Out>,
    node: Node,
    views: Views<Narrow>,
    readers: BTreeMap<ShardId, Readers<MemReader>>,
    disks: BTreeMap<ShardId, SimDisk>,
    tables: BTreeMap<ShardId, MemTables>,
    pub now: Now,
    /// Writes wait for `let_write`.
    holds_writes: bool,
    writes: VecDeque<(ShardId, Write)>,
    /// What connections were told, and what else is worth seeing.
    seen: Vec<String>,
    /// Show effects too.
    shows_effects: bool,
    pub is_running: bool,
    exports: BTreeMap<(ShardId, u64), Export<MemReader>>,
    imports: BTreeMap<ShardId, BTreeMap<String, Vec<u8>>>,
    /// Most of them at a time since it was asked last.
    pub most_exports: usize,
    /// Bytes of replicas that were copied here since it was asked last.
    pub copied_bytes: usize,
    /// How often views were to look at what expires by age.
    pub looks: usize,
    /// Bytes of logs that are read again a second.
    pub scrubs: u64,
    /// Most bytes of a replica that are sent a second while clients write.
    pub transfers: u64,
    /// How often a shard was not opened, in all lives.
    closings: u64,
    founder: bool,
    /// Writes of logs so far, and their syncs.
    pub written: (u64, u64),
    machine: MachineOptions,
    token: Option<String>,
    space: Option<u64>,
    /// Flushes find the disk full.
    is_full: Arc<AtomicBool>,
    /// What is wrong with the tables of shards.
    damage: BTreeMap<ShardId, Arc<Damage>>,
    layout: Layout,
    /// Opening shards takes until `opened`.
    holds_opens: bool,
    opens: VecDeque<(ShardId, NamespaceOptions, Option<Vec<u8>>)>,
    /// What views are told waits until they may go on.
    holds_views: bool,
    jobs: VecDeque<Effect>,
    /// What takes long of a copy waits until it is told to go on.
    holds_copies: bool,
    copies: VecDeque<Effect>,
}

impl World {
    pub fn new() -> World {
        World::of(NODE, true)
    }

    /// The node of this id, which made the cluster or did not.
    pub fn of(id: NodeId, founder: bool) -> World {
        World {
            id,
            founder,
            out: Vec::new(),
            node: Node::new(config(id, founder, None)),
            views: Views::new(),
            readers: BTreeMap::new(),
            disks: BTreeMap::new(),
            tables: BTreeMap::new(),
            now: Now { monotonic_ms: 0, wall_ms: 1_000_000 },
            holds_writes: false,
            writes: VecDeque::new(),
            seen: Vec::new(),
            shows_effects: false,
            is_running: false,
            exports: BTreeMap::new(),
            imports: BTreeMap::new(),
            most_exports: 0,
            copied_bytes: 0,
            looks: 0,
            scrubs: 0,
            transfers: Pace::default().transfer_bytes_per_s,
            closings: 0,
            written: (0, 0),
            machine: MachineOptions::default(),
            token: None,
            space: None,
            is_full: Arc::default(),
            damage: BTreeMap::new(),
            layout: Layout::STANDARD,
            holds_opens: false,
            opens: VecDeque::new(),
            holds_views: false,
            jobs: VecDeque::new(),
            holds_copies: false,
            copies: VecDeque::new(),
        }
    }

    /// Segments and tables of so many bytes, those of the directory too.
    pub fn narrow(&mut self, bytes: u64) {
        self.layout = Layout::new(bytes).expect("a legal length of segments");
        (self.machine.memtable_bytes, self.machine.replay_bytes_max) = (bytes / 8, bytes);
    }

    /// A process begins on what the disks hold.
    pub fn start(&mut self) {
        let mut config = config(self.id, self.founder, self.token.clone());
        (config.pace.scrub_bytes_per_s, config.pace.scrub_every_ms) = (self.scrubs, 5000);
        config.pace.transfer_bytes_per_s = self.transfers;
        self.node = Node::new(config);
        self.out.clear();
        self.views = Views::new();
        self.readers.clear();
        self.exports.clear();
        self.is_running = true;
        let mut effects = Vec::new();
        self.node.start(&mut effects);
        self.carry_out(effects);
    }

    /// The power goes.
    pub fn crash(&mut self, seed: u64) {
        self.is_running = false;
        self.writes.clear();
        let crashed = self.disks.iter().map(|(id, disk)| (*id, disk.crash(seed)));
        self.disks = crashed.collect();
        let crashed = self.tables.iter().map(|(id, tables)| (*id, tables.crash()));
        self.tables = crashed.collect();
    }

    /// The process ends, and the power stays on.
    pub fn kill(&mut self) {
        self.is_running = false;
        self.writes.clear();
        self.disks = self.disks.iter().map(|(id, disk)| (*id, disk.restart())).collect();
        let crashed = self.tables.iter().map(|(id, tables)| (*id, tables.crash()));
        self.tables = crashed.collect();
    }

    /// Gives events to the node as one burst, then does all that follows.
    pub fn burst(&mut self, events: Vec<Event<'_>>) {
        let mut effects = Vec::new();
        for event in events {
            self.node.handle(self.now, event, &mut effects);
        }
        self.carry_out(effects);
    }

    /// What was seen since the last time.
    pub fn take_seen(&mut self) -> Vec<String> {
        std::mem::take(&mut self.seen)
    }

    /// What a shard's log holds, by the checksum of its frames.
    pub fn log_of(&self, shard: ShardId) -> String {
        if !self.is_running {
            return "down".to_string();
        }
        let Some(readers) = self.readers.get(&shard) else { return "nothing".to_string() };
        let (mut at, mut last) = (Offset::FIRST, None);
        while at < readers.log.end() {
            let chunk = match readers.log.frames(at, readers.log.end(), 1 << 20) {
                Err(ReadError::Trimmed { next: Some(next) }) => {
                    at = next;
                    continue;
                }
                Err(ReadError::Damaged(damage)) => {
                    return format!("damaged at {}", show::offset(damage.from));
                }
                chunk => chunk.expect("a whole log"),
            };
            // The last frame's checksum stands for all of them.
            last = chunk.frames().last().map(|frame| (frame.header.index, frame.crc)).or(last);
            at = chunk.next();
        }
        let Some((index, crc)) = last else { return "empty".to_string() };
        format!("{index} frames to {}, {crc:08x}", show::offset(readers.log.end()))
    }

    /// Which replicas of a shard there are, as far as is known here.
    pub fn places_of(&self, shard: ShardId) -> String {
        let Some(look) = self.node.look(shard) else { return "nothing".to_string() };
        let all = |nodes: &[NodeId]| nodes.iter().map(|n| format!(" {n}")).collect::<String>();
        let (voters, learners) = (look.configuration.voters(), look.configuration.learners());
        let leader = look.leader.map_or("nobody".to_string(), |node| node.to_string());
        format!("led by {leader}, voters{}; learners{}", all(voters), all(learners))
    }

    /// Up to where the views of a shard have come.
    pub fn folded(&self, shard: ShardId) -> String {
        self.node.look(shard).map_or("nothing".to_string(), |look| show::offset(look.applied))
    }

    /// What the node counts as under way.
    pub fn requests(&self) -> usize {
        self.node.requests()
    }

    pub fn send(&mut self, from: u64, packets: &[u8]) {
        self.burst(vec![Event::Packets { from: ConnectionId(from), bytes: packets }]);
    }

    pub fn pass_ms(&mut self, ms: u64) {
        for _ in 0..ms / naust_node::TICK_MS {
            self.now.monotonic_ms += naust_node::TICK_MS;
            self.now.wall_ms += naust_node::TICK_MS;
            let mut outputs = Vec::new();
            self.views.tick(self.now, &mut outputs);
            let mut effects = Vec::new();
            self.outputs(outputs, &mut effects);
            self.node.handle(self.now, Event::Tick, &mut effects);
            self.carry_out(effects);
        }
    }

    pub fn is_flush_due(&self) -> bool {
        self.is_running && self.node.is_flush_due()
    }

    /// Too short for a tick.
    pub fn pass_one_ms(&mut self) {
        self.now.monotonic_ms += 1;
        self.now.wall_ms += 1;
        self.carry_out(Vec::new());
    }

    fn carry_out(&mut self, mut effects: Vec<Effect>) {
        self.node.flush(self.now, &mut effects);
        while !effects.is_empty() {
            let mut next = Vec::new();
            for effect in effects {
                self.carry(effect, &mut next);
            }
            self.node.flush(self.now, &mut next);
            effects = next;
        }
    }

    fn carry(&mut self, effect: Effect, next: &mut Vec<Effect>) {
        if self.shows_effects {
            self.seen.extend(show::effect(&effect));
        }
        match effect {
            Effect::Send { to, bytes } => self.told(to, &bytes),
            Effect::Close(id) => self.seen.push(format!("c{} is closed", id.0)),
            Effect::Pause(id, on) => {
                let verb = if on { "waits" } else { "goes on" };
                self.seen.push(format!("c{} {verb}", id.0));
            }
            Effect::Write { shard, write } if self.holds_writes => {
                self.writes.push_back((shard, write));
            }
            Effect::Write { shard, write } => {
                let written = self.run(write);
                self.node.handle(self.now, Event::Written { shard, written }, next);
            }
            Effect::Extend { shard, extend } => {
                let extended = extend.run();
                self.node.handle(self.now, Event::Extended { shard, extended }, next);
            }
            Effect::Trim { shard, trim } => {
                let trimmed = trim.run();
                self.node.handle(self.now, Event::Trimmed { shard, trimmed }, next);
            }
            Effect::Views { .. } if self.holds_views => self.jobs.push_back(effect),
            Effect::Views { shard, job } => {
                self.looks += usize::from(matches!(job, Job::Ages(_)));
                let mut outputs = Vec::new();
                self.views.handle(self.now, shard, job, &mut outputs);
                self.outputs(outputs, next);
            }
            Effect::Read { shard, job } => self.read(shard, &job, next),
            Effect::Open { shard, options, begin } if self.holds_opens => {
                self.opens.push_back((shard, options, begin));
            }
            Effect::Open { shard, options, begin } => self.open(shard, options, begin, next),
            Effect::Link { node, .. } => self.out.push(Out::Link(node)),
            Effect::Relink(node) => {
                self.seen.push(format!("node {node} does not answer"));
                self.out.push(Out::Relink(node));
            }
            Effect::Unlink(node) => self.seen.push(format!("no link to {node} any more")),
            Effect::Peer { to, bytes } => self.out.push(Out::Peer(to, bytes)),
            Effect::Export { shard, begin } => {
                let number = begin.number;
                let begun = self.readers.get(&shard).and_then(|r| Export::begin(&begin, r).ok());
                let contents = begun.map(|(export, contents)| {
                    self.exports.insert((shard, number), export);
                    self.most_exports = self.most_exports.max(self.exports.len());
                    contents
                });
                self.node.handle(self.now, Event::Exported { shard, number, contents }, next);
            }
            Effect::ExportRead { shard, part } => {
                let export = self.exports.get(&(shard, part.number));
                let bytes = export.and_then(|export| export.read(&part));
                self.node.handle(self.now, Event::ExportedPart { shard, part, bytes }, next);
            }
            Effect::ExportEnd { shard, number } => drop(self.exports.remove(&(shard, number))),
            Effect::Adopt { .. } | Effect::Import { import: Import::Begin(_), .. }
                if self.holds_copies =>
            {
                self.copies.push_back(effect);
            }
            Effect::Import { shard, number, import } => {
                let files = self.imports.entry(shard).or_default();
                let mut there = BTreeMap::new();
                match import {
                    Import::Begin(contents) => {
                        let mut before = std::mem::take(files);
                        for (number, (name, bytes)) in contents.files.into_iter().enumerate() {
                            let known = before.remove(&name);
                            let known = known.filter(|file| file.len() as u64 == bytes);
                            if let Some(file) = &known {
                                there.insert(number as u32, digest(&name, file));
                            }
                            files.insert(name, known.unwrap_or_default());
                        }
                    }
                    Import::Part { name, at, bytes } => {
                        self.copied_bytes += bytes.len();
                        let file = files.get_mut(&name).expect("a file that was begun");
                        file.resize(file.len().max(at as usize + bytes.len()), 0);
                        file[at as usize..at as usize + bytes.len()].copy_from_slice(&bytes);
                    }
                    Import::Rest => return,
                    Import::End => return drop(self.imports.remove(&shard)),
                }
                let imported = Event::Imported { shard, number, ok: true, there };
                self.node.handle(self.now, imported, next);
            }
            Effect::Adopt { shard, options, adopt } => {
                let mut outputs = Vec::new();
                self.views.close(shard, &mut outputs);
                self.outputs(outputs, next);
                let (disk, mut tables) = (SimDisk::new(), MemTables::new());
                for (name, bytes) in self.imports.remove(&shard).expect("it was copied") {
                    match name.strip_prefix(transfer::LOG) {
                        Some(name) => {
                            let file = disk.open(name, Open::Create).unwrap();
                            file.write_at(0, &[&bytes]).unwrap();
                        }
                        None => tables = MemTables::import(&bytes).unwrap(),
                    }
                }
                adopt.log(Arc::new(disk.clone()), shard, self.id, 1).unwrap();
                self.disks.insert(shard, disk);
                self.tables.insert(shard, tables);
                self.damage.remove(&shard);
                self.seen.push(format!("shard {shard} is replaced"));
                self.open(shard, options, None, next);
            }
            Effect::Scrub { shard, mut scrub, bytes } => {
                let seen = scrub.step(bytes);
                self.node.handle(self.now, Event::Scrubbed { shard, scrub, seen }, next);
            }
            Effect::CheckTables { shard, from, bytes } => {
                let readers = self.readers.get(&shard);
                let checked = readers.map_or_else(
                    || Ok(Checked::default()),
                    |readers| readers.tables.check(from, bytes),
                );
                self.node.handle(self.now, Event::Checked { shard, checked }, next);
            }
            Effect::Mend { shard, mend } => {
                let (at, outcome) = (mend.at(), mend.run());
                self.node.handle(self.now, Event::Mended { shard, at, outcome }, next);
            }
            Effect::Supply { shard, job } => {
                let supplied = repair::supply(&job, shard);
                self.node.handle(self.now, Event::Supplied(supplied), next);
            }
            Effect::Refold { shard, options } => {
                let mut outputs = Vec::new();
                self.views.close(shard, &mut outputs);
                self.outputs(outputs, next);
                self.readers.remove(&shard);
                let disk = self.disks[&shard].clone();
                if open::has_all(Arc::new(disk)).expect("a log that can be looked at") {
                    self.tables.insert(shard, MemTables::new());
                    self.damage.remove(&shard);
                    self.seen.push(format!("shard {shard} is folded again"));
                    return self.open(shard, options, None, next);
                }
                let error = OpenError::NoTables("the log has not all".to_string());
                self.not_opened(shard, &error, next);
            }
            Effect::AskDirectory(ask) => {
                self.node.handle(self.now, Event::DirectoryAsked(ask), next);
            }
            Effect::ShardClosed(shard) => {
                self.node.handle(self.now, Event::ShardClosed(shard), next);
            }
            Effect::Report { shard, report } => {
                self.seen.push(show::relative(&format!("shard {shard}: {report}")));
            }
            Effect::Fetch { shard, job } => {
                let fetched = match self.readers.get(&shard) {
                    Some(readers) => fetch::run(&job, shard, &readers.log),
                    None => fetch::run_without(&job, shard),
                };
                self.node.handle(self.now, Event::Fetched(fetched), next);
            }
            Effect::Remove(shard) => {
                let mut outputs = Vec::new();
                self.views.remove(shard, &mut outputs);
                self.outputs(outputs, next);
                self.readers.remove(&shard);
                self.disks.remove(&shard);
                self.tables.remove(&shard);
                self.seen.push(format!("shard {shard} is removed"));
            }
            Effect::Sweep { below, kept } => {
                let left = self.disks.keys().copied().filter(|shard| {
                    *shard != ShardId::DIRECTORY && *shard < below && !kept.contains(shard)
                });
                for shard in left.collect::<Vec<_>>() {
                    self.disks.remove(&shard);
                    self.tables.remove(&shard);
                    self.seen.push(format!("what was left of shard {shard} is removed"));
                }
            }
            Effect::Shut(shard) => {
                self.views.shut(shard);
                self.seen.push(format!("shard {shard} is shut"));
            }
            Effect::Drained => self.seen.push("drained".to_string()),
            Effect::Stop(sentence) => {
                self.is_running = false;
                self.seen.push(format!("stopped: {sentence}"));
            }
        }
    }

    fn run(&mut self, write: Write) -> Written {
        let written = write.run();
        self.written.0 += 1;
        self.written.1 += u64::from(written.syncs());
        written
    }

    /// The slow disk ends its oldest write.
    pub fn let_write(&mut self) {
        let (shard, write) = self.writes.pop_front().expect("a write is held");
        let written = self.run(write);
        self.burst(vec![Event::Written { shard, written }]);
    }

    /// The oldest opening ends.
    pub fn let_open(&mut self) {
        let (shard, options, begin) = self.opens.pop_front().expect("an opening is held");
        let mut effects = Vec::new();
        self.open(shard, options, begin, &mut effects);
        self.carry_out(effects);
    }

    pub fn let_views_go_on(&mut self) {
        self.holds_views = false;
        let jobs = std::mem::take(&mut self.jobs).into();
        self.carry_out(jobs);
    }

    pub fn let_copy(&mut self) {
        let effect = self.copies.pop_front().expect("a step of a copy is held");
        self.holds_copies = false;
        self.carry_out(vec![effect]);
        self.holds_copies = true;
    }

    fn outputs(&mut self, outputs: Vec<Output<Narrow>>, next: &mut Vec<Effect>) {
        for output in outputs {
            match output {
                Output::Send { to, bytes } => self.told(to, &bytes),
                Output::Answered { to, requests } => {
                    self.node.handle(self.now, Event::Answered { to, requests }, next);
                }
                Output::Progress(progress) => {
                    self.node.handle(self.now, Event::Progress(progress), next);
                }
                Output::Directory(change) => {
                    self.node.handle(self.now, Event::Directory(change), next);
                }
                Output::Flushed(shard) => {
                    self.node.handle(self.now, Event::Flushed(shard), next);
                }
                Output::Read { shard, job } => self.read(shard, &job, next),
                Output::Background { shard, job } => {
                    let done = job.run();
                    let mut more = Vec::new();
                    self.views.done(self.now, shard, done, &mut more);
                    self.outputs(more, next);
                }
                Output::Failed { shard, cause, failure } => {
                    self.seen.push(format!("shard {shard} failed: {}", failure.detail));
                    self.node.handle(self.now, Event::Failed { shard, cause, failure }, next);
                }
            }
        }
    }

    fn read(&mut self, shard: ShardId, job: &answer::Job, next: &mut Vec<Effect>) {
        let mut bytes = Vec::new();
        let mut met = None;
        match self.readers.get(&shard) {
            Some(readers) => met = answer::run(job, readers, &mut bytes),
            None => answer::run_without(job, &mut bytes),
        }
        if let Some(met) = met {
            self.node.handle(self.now, Event::Met { shard, met }, next);
        }
        self.told(job.to(), &bytes);
        self.node.handle(self.now, Event::Answered { to: job.to(), requests: 1 }, next);
    }

    fn open(
        &mut self,
        id: ShardId,
        options: NamespaceOptions,
        begin: Option<Vec<u8>>,
        next: &mut Vec<Effect>,
    ) {
        let disk = self.disks.entry(id).or_default().clone();
        disk.set_space(self.space);
        if disk.list().expect("a simulated disk lists").is_empty() {
            let Some(begin) = begin else {
                return self.node.handle(self.now, Event::NotHere(id), next);
            };
            let identity = Identity { node: self.id, shard: id, cluster: 1 };
            open::create_with(&disk, identity, &begin, self.layout)
                .expect("an empty disk takes a log");
        }
        // What was not flushed when it was closed, if it was, is gone.
        let tables = self.tables.remove(&id).unwrap_or_default().crash();
        self.tables.insert(id, tables.share());
        let damage = self.damage.entry(id).or_default();
        let tables = Narrow::new(tables, Arc::clone(&self.is_full), Arc::clone(damage));
        let options =
            open::Options { node: self.id, namespace: options, machine: self.machine, seed: 1 };
        match open::shard(Arc::new(disk), tables, id, &options) {
            Ok((worker, views)) => {
                self.readers.insert(id, views.readers());
                let mut outputs = Vec::new();
                self.views.install(views, &mut outputs);
                self.outputs(outputs, next);
                self.node.handle(self.now, Event::Opened(Box::new(worker)), next);
            }
            Err(error) => self.not_opened(id, &error, next),
        }
    }

    fn not_opened(&mut self, shard: ShardId, error: &OpenError, next: &mut Vec<Effect>) {
        let failure = error.failure();
        self.seen.push(format!("shard {shard} is not opened: {error}"));
        self.closings += 1;
        let disk = Arc::new(self.disks[&shard].clone());
        let trouble = open::trouble(error, disk, self.id, self.closings).map(Box::new);
        self.node.handle(self.now, Event::NotOpened { shard, failure, trouble }, next);
    }

    fn told(&mut self, to: ConnectionId, bytes: &[u8]) {
        if let Some(node) = to.0.checked_sub(PEERS) {
            return self.out.push(Out::Back(NodeId(node), bytes.to_vec()));
        }
        self.seen.extend(show::replies(to, bytes));
    }
}

fn digest(name: &str, file: &[u8]) -> Vec<u8> {
    let part = |at: u64| {
        let end = (at as usize + TRANSFER_PART_BYTES).min(file.len());
        Ok::<_, ()>(file[at as usize..end].to_vec())
    };
    transfer::digest(name, file.len() as u64, part).expect("it is in memory")
}

fn config(node: NodeId, founder: bool, token: Option<String>) -> Config {
    Config {
        node,
        name: if node == NODE { "one".to_string() } else { format!("n{node}") },
        address: "127.0.0.1:7420".to_string(),
        cluster: 1,
        founder,
        version: "0.0.0".to_string(),
        token,
        worker: 0,
        workers: 1,
        // Scripts ask for it.
        pace: Pace { scrub_bytes_per_s: 0, ..Pace::default() },
    }
}
