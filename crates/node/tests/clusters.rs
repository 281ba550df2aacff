//! Runs the stories in `tests/clusters`: several nodes and the network between them. A command
//! begins with the node that it is for: `2: put c1 #1 1 users ada=1`; those of the network and of
//! time are for all. Set `UPDATE_EXPECT=1` to write what is seen into them; the diff is the review.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "helpers of tests are tests")]

mod world;

use naust_node::{ConnectionId, Event};
use naust_wire::NodeId;
use naust_wire::control::Control;
use naust_wire::limits::PACKET_HEADER_BYTES;
use naust_wire::packet::{self, Kind};
use naust_wire::peer::{self, Said};
use naust_wire::{RequestId, ShardId};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write;
use std::path::Path;
use world::{Out, PEERS, World};

#[test]
fn stories() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clusters");
    let mut names: Vec<_> =
        std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.sort();
    assert!(!names.is_empty());
    for path in names {
        let story = std::fs::read_to_string(&path).unwrap();
        expect_test::expect_file![path].assert_eq(&play(&story));
    }
}

fn play(story: &str) -> String {
    let mut cluster = Cluster::default();
    let mut out = String::new();
    for block in story.trim_end().split("\n\n") {
        let commands = block.split("\n---").next().unwrap();
        let separator = if out.is_empty() { "" } else { "\n" };
        writeln!(out, "{separator}{commands}").unwrap();
        let mut commands = commands.lines().filter(|line| !line.starts_with('#')).peekable();
        let any = commands.peek().is_some();
        let seen: String = commands.map(|command| cluster.command(command)).collect();
        if any {
            out.push_str("---\n");
            out.push_str(if seen.is_empty() { "ok\n" } else { &seen });
        }
    }
    out
}

/// Nodes, and what is on its way between them.
#[derive(Default)]
struct Cluster {
    nodes: BTreeMap<u64, World>,
    on_its_way: VecDeque<(u64, Out)>,
    /// Links that nothing passes, from and to.
    cut: BTreeSet<(u64, u64)>,
    /// Nodes that hear nothing of a shard.
    deaf: BTreeSet<(u64, ShardId)>,
    /// Links that stand.
    links: BTreeSet<(u64, u64)>,
    wanted: BTreeSet<(u64, u64)>,
    /// What nodes that stand still have not taken in yet, from whom.
    paused: BTreeMap<u64, Vec<(u64, Vec<u8>)>>,
    /// A bit of what this node answers next to another one is wrong.
    garbles: Option<u64>,
    /// Once so many bytes of a replica were copied to this node, nothing reaches it any more.
    breaks: Option<(u64, usize)>,
    /// Bytes of the frames in them.
    frame_bytes: usize,
    /// Packets between nodes since they were counted last, by what they say.
    packets: BTreeMap<&'static str, usize>,
}

impl Cluster {
    fn command(&mut self, line: &str) -> String {
        if let Some((node, command)) = line.split_once(": ") {
            let id: u64 = node.parse().unwrap();
            return self.at(id, command);
        }
        let words: Vec<&str> = line.split(' ').collect();
        let number = |at: usize| words.get(at).map_or(0, |word| word.parse().unwrap());
        match words[0] {
            // A node that makes the cluster, or one that joins it later; one that scrubs its logs
            // or one that does not; one whose segments and tables are small, those of the directory
            // too.
            "node" => {
                let id = number(1);
                let mut world = World::of(NodeId(id), words.contains(&"founder"));
                world.scrubs = if words.contains(&"scrubs") { 1 << 20 } else { 0 };
                if let Some(at) = words.iter().position(|word| *word == "sends") {
                    world.transfers = number(at + 1);
                }
                if words.contains(&"narrow") {
                    world.narrow(1 << 14);
                }
                world.start();
                self.nodes.insert(id, world);
            }
            "pass" => return self.pass(number(1)),
            "cut" => {
                for (from, to) in [(number(1), number(2)), (number(2), number(1))] {
                    self.cut.insert((from, to));
                }
            }
            "cut-one-way" => {
                self.cut.insert((number(1), number(2)));
            }
            "breaks" => self.breaks = Some((number(1), number(2) as usize)),
            "garble" => self.garbles = Some(number(1)),
            // A node hears nothing of one shard, as if its link lost just that.
            "deaf" => drop(self.deaf.insert((number(1), ShardId(number(2) as u32)))),
            "heal" => {
                self.cut.clear();
                self.deaf.clear();
            }
            // A process stands still; when it goes on, many requests of a client and all that
            // came in meanwhile are one burst.
            "pause" => drop(self.paused.insert(number(1), Vec::new())),
            "resume" => {
                let came = self.paused.remove(&number(1)).expect("a node that stands still");
                let world = self.nodes.get_mut(&number(1)).expect("a node that is there");
                let request = world.packets(&words[2..].join(" ")).repeat(9);
                let from = ConnectionId(1);
                let mut events = vec![Event::Packets { from, bytes: &request }];
                events.extend(came.iter().map(|(from, bytes)| Event::Packets {
                    from: ConnectionId(PEERS + from),
                    bytes,
                }));
                world.burst(events);
            }
            "packets" => {
                let said = std::mem::take(&mut self.packets);
                let said: Vec<String> = said.iter().map(|(k, n)| format!("{n} {k}")).collect();
                return format!("said: {}\n", said.join(", "));
            }
            "frames" => {
                let kib = std::mem::take(&mut self.frame_bytes) / 1024;
                return format!("{kib} KiB of frames\n");
            }
            "places" => {
                let shard = ShardId(number(1) as u32);
                let run = self.nodes.iter().filter(|(_, world)| world.is_running);
                let places = run.map(|(id, world)| format!("{id}: {}", world.places_of(shard)));
                return places.collect::<Vec<String>>().join("\n") + "\n";
            }
            "folded" => {
                let shard = ShardId(number(1) as u32);
                let run = self.nodes.iter().filter(|(_, world)| world.is_running);
                let ends = run.map(|(id, world)| format!("{id}: up to {}", world.folded(shard)));
                return ends.collect::<Vec<String>>().join("\n") + "\n";
            }
            "logs" => {
                let shard = ShardId(number(1) as u32);
                let ends: Vec<String> = self
                    .nodes
                    .iter()
                    .map(|(id, world)| format!("{id}: {}", world.log_of(shard)))
                    .collect();
                return ends.join("\n") + "\n";
            }
            _ => panic!("no such command: {line}"),
        }
        self.settle()
    }

    fn at(&mut self, id: u64, command: &str) -> String {
        let words: Vec<&str> = command.split(' ').collect();
        if words[0] == "churn" {
            // A namespace comes and goes, again and again.
            for _ in 0..words[1].parse().unwrap() {
                self.at(id, "create c98 #1 passing");
                self.at(id, "force c98 #2 passing");
            }
            return String::new();
        }
        if words[0] == "load" {
            // One write a tick, for so many ticks; `slow`, and the disk takes all of it for each.
            for number in 0..words[2].parse().unwrap() {
                let put = format!("put c97 #{number} {} load a=1", words[1]);
                let is_slow = words[3] == "slow";
                let before = if is_slow { "hold" } else { "free" };
                [before, &put].iter().for_each(|command| drop(self.at(id, command)));
                self.pass(naust_node::TICK_MS);
                self.at(id, "free");
            }
            return String::new();
        }
        let world = self.nodes.get_mut(&id).expect("a node that is there");
        let mut seen = match words[0] {
            // The node joins through another one, as the shell has it do.
            "join" => {
                let through: u64 = words[1].parse().unwrap();
                let mut body = Vec::new();
                let name = format!("n{id}");
                let address = format!("10.0.0.{id}:7420");
                Control::SetNode { node: NodeId(id), name, address }.encode(&mut body);
                let mut packets = Vec::new();
                packet::write(Kind::Control, RequestId(1), ShardId(0), &body, &mut packets);
                self.nodes.get_mut(&through).unwrap().send(500 + id, &packets);
                String::new()
            }
            "remove" => {
                let mut body = Vec::new();
                Control::RemoveNode(NodeId(words[1].parse().unwrap())).encode(&mut body);
                let mut packets = Vec::new();
                packet::write(Kind::Control, RequestId(1), ShardId(0), &body, &mut packets);
                world.send(500, &packets);
                String::new()
            }
            "kill" => {
                world.crash(1);
                self.unlink(id);
                String::new()
            }
            "start" => {
                world.start();
                String::new()
            }
            _ => world.command(command),
        };
        seen = seen.lines().map(|line| format!("{id}: {line}\n")).collect();
        seen + &self.settle()
    }

    fn pass(&mut self, ms: u64) -> String {
        let mut seen = String::new();
        for _ in 0..ms / naust_node::TICK_MS {
            let paused = &self.paused;
            let run = self.nodes.iter_mut().filter(|(id, _)| !paused.contains_key(id));
            for (_, world) in run.filter(|(_, world)| world.is_running) {
                world.pass_ms(naust_node::TICK_MS);
            }
            seen += &self.settle();
        }
        seen
    }

    /// A node is gone: whoever is linked to it, and whomever it was linked to, hears of it.
    fn unlink(&mut self, id: u64) {
        let gone: Vec<(u64, u64)> =
            self.links.iter().copied().filter(|(from, to)| *from == id || *to == id).collect();
        for (from, to) in gone {
            self.links.remove(&(from, to));
            if from == id {
                self.event(to, Event::Closed(ConnectionId(PEERS + from)));
            } else {
                self.event(from, Event::Link { node: NodeId(to), is_up: false });
            }
        }
        self.on_its_way.retain(|(from, _)| *from != id);
        self.wanted.retain(|(from, _)| *from != id);
    }

    /// What nodes would say in the next millisecond. Whether there was any of it.
    fn say_what_is_due(&mut self) -> bool {
        let paused = &self.paused;
        let run = self.nodes.iter_mut().filter(|(id, _)| !paused.contains_key(id));
        let mut due: Vec<_> = run.filter(|(_, world)| world.is_flush_due()).collect();
        due.iter_mut().for_each(|(_, world)| world.pass_one_ms());
        !due.is_empty()
    }

    fn event(&mut self, id: u64, event: Event<'_>) {
        let world = self.nodes.get_mut(&id).expect("a node that is there");
        if world.is_running {
            world.burst(vec![event]);
        }
    }

    /// Everything arrives that is on its way, and what follows from it.
    fn settle(&mut self) -> String {
        loop {
            self.connect();
            for (id, world) in &mut self.nodes {
                self.on_its_way.extend(world.out.drain(..).map(|out| (*id, out)));
            }
            let copied = |(id, bytes): &mut (u64, usize)| self.nodes[id].copied_bytes >= *bytes;
            if let Some((broken, _)) = self.breaks.take_if(copied) {
                let all = self.nodes.keys().copied();
                self.cut.extend(all.flat_map(|id| [(id, broken), (broken, id)]));
            }
            let Some((from, out)) = self.on_its_way.pop_front() else {
                if self.say_what_is_due() {
                    continue;
                }
                break;
            };
            match out {
                Out::Link(to) => {
                    self.wanted.insert((from, to.0));
                }
                // The other end hears of it when it hears anything.
                Out::Relink(to) => {
                    self.links.remove(&(from, to.0));
                    self.event(from, Event::Link { node: to, is_up: false });
                    self.arrive(from, to.0, |world| {
                        world.burst(vec![Event::Closed(ConnectionId(PEERS + from))]);
                    });
                }
                // What breaks, breaks between two packets.
                Out::Peer(to, bytes)
                    if self.breaks.is_some_and(|(id, _)| id == to.0)
                        && packet::wanted(&bytes) < bytes.len() =>
                {
                    let (first, rest) = bytes.split_at(packet::wanted(&bytes));
                    for part in [rest, first] {
                        self.on_its_way.push_front((from, Out::Peer(to, part.to_vec())));
                    }
                }
                Out::Peer(to, bytes) => {
                    self.count(&bytes);
                    let bytes = self.heard(to.0, &bytes);
                    if let Some(paused) = self.paused.get_mut(&to.0) {
                        paused.push((from, bytes));
                        continue;
                    }
                    self.arrive(from, to.0, |world| {
                        world.send(PEERS + from, &bytes);
                    });
                }
                Out::Back(to, mut bytes) => {
                    if self.garbles.take_if(|id| *id == from).is_some() {
                        bytes[PACKET_HEADER_BYTES] ^= 1;
                    }
                    self.arrive(from, to.0, |world| {
                        world.burst(vec![Event::Replies { from: NodeId(from), bytes: &bytes }]);
                    });
                }
            }
        }
        let mut seen = String::new();
        for (id, world) in &mut self.nodes {
            let filled = |line: &String| line.starts_with("c99 ") && line.contains("committed");
            for line in world.take_seen().into_iter().filter(|line| !filled(line)) {
                writeln!(seen, "{id}: {line}").unwrap();
            }
        }
        seen
    }

    /// The packets that a node hears.
    fn heard(&self, to: u64, mut bytes: &[u8]) -> Vec<u8> {
        let mut heard = Vec::new();
        while let Ok(Some((packet, length))) = packet::read(bytes) {
            let said = peer::open(packet.body).map(|(peer, _)| peer.said);
            let is_deaf = self.deaf.contains(&(to, packet.shard));
            if !(is_deaf && matches!(said, Ok(Said::Raft(_)))) {
                heard.extend_from_slice(&bytes[..length]);
            }
            bytes = &bytes[length..];
        }
        heard
    }

    fn count(&mut self, mut bytes: &[u8]) {
        while let Ok(Some((packet, length))) = packet::read(bytes) {
            let opened = peer::open(packet.body);
            self.frame_bytes += opened.as_ref().map_or(0, |(_, frames)| frames.len());
            let said = match opened.map(|(peer, _)| peer.said) {
                Ok(Said::Alive) => "alive",
                Ok(Said::Raft(_)) => "raft",
                Ok(_) => "else",
                Err(_) if packet.kind == Kind::Ask => "asked",
                Err(_) => "passed on",
            };
            *self.packets.entry(said).or_default() += 1;
            bytes = &bytes[length..];
        }
    }

    fn connect(&mut self) {
        let new: Vec<(u64, u64)> = self.wanted.difference(&self.links).copied().collect();
        for (from, to) in new {
            let there = self.nodes.get(&to).is_some_and(|world| world.is_running);
            if there && !self.cut.contains(&(from, to)) {
                self.links.insert((from, to));
                self.event(from, Event::Link { node: NodeId(to), is_up: true });
            }
        }
    }

    fn arrive(&mut self, from: u64, to: u64, give: impl FnOnce(&mut World)) {
        if self.cut.contains(&(from, to)) {
            return;
        }
        if let Some(world) = self.nodes.get_mut(&to).filter(|world| world.is_running) {
            give(world);
        }
    }
}
