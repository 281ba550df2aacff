//! Whole replicas on their way between nodes.
//!
//! The reads thread takes the steps one after the other, as the shell's does. A copy takes its
//! place at one moment: how the shell does that in steps is tested there.

use super::World;
use super::member::{CLUSTER, Inside};
use crate::schedule::Moment;
use crate::tables::{SimReader, SimTables};
use naust_log::disk::{Disk, Open};
use naust_log::sim::SimDisk;
use naust_machine::MemTables;
use naust_node::transfer::{self, Adopt, Export, Import, LOG};
use naust_node::{Effect, Event};
use naust_wire::ShardId;
use naust_wire::limits::TRANSFER_PART_BYTES;
use naust_wire::options::NamespaceOptions;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What a node has copied of replicas from others, on its disk: which transfer it is of, and the
/// files.
pub type Copied = BTreeMap<ShardId, (u64, BTreeMap<String, Vec<u8>>)>;

/// What a process holds for others.
pub struct Transfers {
    exports: BTreeMap<(ShardId, u64), Export<SimReader>>,
    /// When the reads thread has done what it was asked for.
    free: Moment,
}

impl Transfers {
    /// Of a process that begins now.
    pub fn new(now: Moment) -> Transfers {
        Transfers { exports: BTreeMap::new(), free: now }
    }
}

impl World {
    /// A step is asked for.
    pub(super) fn queue_transfer(&mut self, node: (usize, u64), effect: Effect) {
        let (now, time) = (self.schedule.now(), self.disk_time());
        let Some(process) = self.process(node) else { return };
        process.transfers.free = process.transfers.free.max(now).after(time);
        let at = process.transfers.free;
        self.schedule_inside(node, at, Inside::Transfer(Box::new(effect)));
    }

    /// A step is taken.
    pub(super) fn transfer_step(&mut self, node: (usize, u64), effect: Effect) {
        let member = &mut self.members[node.0];
        let process = member.process.as_mut().filter(|process| process.life == node.1);
        let process = process.expect("it was just seen");
        let transfers = &mut process.transfers;
        let mut comes_in = None;
        let event = match effect {
            Effect::Export { shard, begin } => {
                let number = begin.number;
                let readers = process.readers.get(&shard);
                let begun = readers.and_then(|readers| Export::begin(&begin, readers).ok());
                let contents = begun.map(|(export, contents)| {
                    transfers.exports.insert((shard, number), export);
                    contents
                });
                Event::Exported { shard, number, contents }
            }
            Effect::ExportRead { shard, part } => {
                let export = transfers.exports.get(&(shard, part.number));
                let bytes = export.and_then(|export| export.read(&part));
                Event::ExportedPart { shard, part, bytes }
            }
            Effect::ExportEnd { shard, number } => {
                transfers.exports.remove(&(shard, number));
                return;
            }
            Effect::Import { shard, number, import: Import::Begin(contents) } => {
                let (_, mut before) = member.copied.remove(&shard).unwrap_or_default();
                let (mut files, mut there) = (BTreeMap::new(), BTreeMap::new());
                for (place, (name, bytes)) in contents.files.into_iter().enumerate() {
                    let known = before.remove(&name);
                    let known = known.filter(|file| file.len() as u64 == bytes);
                    if let Some(file) = &known {
                        there.insert(place as u32, digest(&name, file));
                    }
                    files.insert(name, known.unwrap_or_default());
                }
                let were_there = there.len();
                member.copied.insert(shard, (number, files));
                if were_there > 0 {
                    self.tally.mark("transfers that went on");
                }
                Event::Imported { shard, number, ok: true, there }
            }
            Effect::Import { shard, number, import: Import::Part { name, at, bytes } } => {
                comes_in = Some(shard);
                let copied = member.copied.get_mut(&shard).filter(|(known, _)| *known == number);
                let file = copied.and_then(|(_, files)| files.get_mut(&name));
                let ok = file.is_some();
                if let Some(file) = file {
                    let (from, to) = (at as usize, at as usize + bytes.len());
                    file.resize(file.len().max(to), 0);
                    file[from..to].copy_from_slice(&bytes);
                }
                Event::Imported { shard, number, ok, there: BTreeMap::new() }
            }
            // The number of the next is another one.
            Effect::Import { import: Import::Rest, .. } => return,
            Effect::Import { shard, import: Import::End, .. } => {
                member.copied.remove(&shard);
                return;
            }
            _ => unreachable!("no other effect is a step of a transfer"),
        };
        self.tell_later(node, 0, event);
        if let Some(shard) = comes_in {
            self.interrupt_transfer(node.0, shard);
        }
    }

    /// The process that sends a replica, or the one that gets it, may end in the middle of it.
    fn interrupt_transfer(&mut self, to: usize, shard: ShardId) {
        let chance = self.plan.besides.interrupted_in_a_thousand;
        if self.calm || chance == 0 || self.misfortune.below(1000) >= chance {
            return;
        }
        let leads = |slot: &usize| self.look(*slot, shard).is_some_and(|look| look.leads);
        let from = (0..self.members.len()).find(leads).unwrap_or(to);
        let ends = if self.misfortune.coin() { to } else { from };
        self.tally.fault("kill amid a transfer");
        self.kill(ends);
    }

    /// A copy takes the place of a replica.
    pub(super) fn adopt(
        &mut self,
        node: (usize, u64),
        shard: ShardId,
        options: NamespaceOptions,
        adopt: &Adopt,
    ) {
        if !self.settle_log(node, shard) {
            return;
        }
        self.views(node, |views, _, outputs| views.close(shard, outputs));
        let process = self.process(node).expect("it was just seen");
        process.readers.remove(&shard);
        let copied = self.members[node.0].copied.remove(&shard);
        let (_, files) = copied.expect("it was copied");
        let disk = SimDisk::new();
        let mut tables = MemTables::new();
        for (name, bytes) in files {
            match name.strip_prefix(LOG) {
                Some(name) => {
                    let file = disk.open(name, Open::Create).expect("an empty disk takes files");
                    for (at, piece) in naust_log::filled(0, &bytes) {
                        file.write_at(at, &[piece]).expect("an empty disk takes bytes");
                    }
                    file.set_len(bytes.len() as u64).expect("an empty disk takes a length");
                }
                None => tables = MemTables::import(&bytes).expect("what was exported"),
            }
        }
        let id = self.members[node.0].id;
        match adopt.log(Arc::new(disk.clone()), shard, id, CLUSTER) {
            Ok(()) => {
                let member = &mut self.members[node.0];
                disk.set_weather(Some(Box::new(member.sky.clone())));
                member.disks.insert(shard, disk);
                member.tables.insert(shard, SimTables::of(tables));
                self.tally.mark("replicas replaced by copies");
            }
            Err(error) => {
                let now = self.schedule.now();
                self.trace.note(now, format_args!("node {} shard {shard}: {error}", node.0));
                self.tally.mark("copies that were damaged");
            }
        }
        self.open(node, shard, options, None);
    }
}

fn digest(name: &str, file: &[u8]) -> Vec<u8> {
    let part = |at: u64| {
        let end = (at as usize + TRANSFER_PART_BYTES).min(file.len());
        Ok::<_, ()>(file[at as usize..end].to_vec())
    };
    transfer::digest(name, file.len() as u64, part).expect("it is in memory")
}
