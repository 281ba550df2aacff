//! A handful of replicas, their disks and the messages between them, moved by commands.

use naust_consensus::{
    Change, Configuration, Entry, EntryKind, HardState, Message, Ready, Replica, Role, Start,
};
use naust_wire::{Index, NodeId, Term};
use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write;

#[derive(Default)]
pub struct World {
    nodes: BTreeMap<u64, Node>,
    network: VecDeque<Message>,
}

struct Node {
    replica: Replica,
    disk: Disk,
    writes: VecDeque<Ready>,
    committed: Index,
}

/// What survives a crash.
#[derive(Clone, Default)]
struct Disk {
    first: Vec<u8>,
    hard: HardState,
    entries: Vec<Entry>,
    applied: Index,
}

impl Disk {
    fn write(&mut self, ready: &Ready) {
        self.hard = ready.hard.unwrap_or(self.hard);
        if let Some(cut) = ready.cut_after {
            self.entries.truncate(cut.0 as usize);
        }
        self.entries.extend_from_slice(&ready.entries);
    }

    fn start(&self, node: u64) -> Start {
        let mut terms: Vec<(Index, Term)> = Vec::new();
        for entry in &self.entries {
            if terms.last().is_none_or(|(_, term)| *term != entry.term) {
                terms.push((entry.index, entry.term));
            }
        }
        // As `node` does: a lone voter's whole log is committed.
        let lone = Configuration::decode(&self.first).unwrap().voters().len() == 1;
        let last = Index(self.entries.len() as u64);
        let committed = if lone { last } else { self.applied };
        let (mut configuration, mut configure) = (self.first.clone(), Vec::new());
        for entry in &self.entries {
            match &entry.kind {
                EntryKind::Configure(bytes) if entry.index <= self.applied => {
                    configuration = bytes.clone();
                }
                EntryKind::Configure(bytes) => configure.push((entry.index, bytes.clone())),
                _ => {}
            }
        }
        Start {
            node: NodeId(node),
            hard: self.hard,
            before_first: Index(0),
            before_first_term: Term(0),
            last,
            terms,
            applied: self.applied,
            committed,
            configuration,
            configure,
            seed: 7,
        }
    }
}

impl World {
    /// Does one command and tells what was seen.
    pub fn command(&mut self, line: &str) -> String {
        let words: Vec<&str> = line.split(' ').collect();
        let numbers: Vec<u64> = words[1..].iter().filter_map(|word| word.parse().ok()).collect();
        let node = numbers.first().copied().unwrap_or(0);
        let second = numbers.get(1).copied().unwrap_or(0);
        match words[0] {
            "new" => self.create(&numbers),
            "restart" => self.restart(node),
            "deliver" => self.deliver(),
            "drop" => {
                self.network.clear();
                String::new()
            }
            "settle" => self.run(node),
            "write" => self.write(node),
            _ => self.act(words[0], node, second),
        }
    }

    fn act(&mut self, verb: &str, node: u64, argument: u64) -> String {
        let replica = &mut self.nodes.get_mut(&node).expect("a node").replica;
        match verb {
            "campaign" => replica.campaign(),
            "tick" => {
                let ticks = (1..=argument).find(|_| replica.tick());
                return ticks.map_or(String::new(), |n| format!("moved at tick {n}\n"));
            }
            "propose" => {
                return match replica.propose(argument as usize) {
                    Ok((term, indices)) => {
                        format!("term {term}: {}..{}\n", indices.start, indices.end)
                    }
                    Err(error) => format!("{error:?}\n"),
                };
            }
            "learner" => {
                return format!(
                    "{:?}\n",
                    replica.propose_configure(Change::Learner(NodeId(argument)))
                );
            }
            "voter" => {
                return format!(
                    "{:?}\n",
                    replica.propose_configure(Change::Voter(NodeId(argument)))
                );
            }
            "read" => {
                return replica
                    .read(argument)
                    .map_or_else(|e| format!("{e:?}\n"), |()| String::new());
            }
            "transfer" => replica.transfer(NodeId(argument)),
            "ready" => return self.ready(node),
            "applied" => self.apply(node, Index(argument)),
            "forget" => replica.forget(Index(argument)),
            "role" => {
                let role = match replica.role() {
                    Role::Leader => "leads".to_string(),
                    Role::Follower(leader) => format!("follows {leader}"),
                    Role::Candidate => "campaigns".to_string(),
                };
                return format!("{node} {role} in term {}\n", replica.term());
            }
            other => panic!("no command {other}"),
        }
        String::new()
    }

    fn create(&mut self, ids: &[u64]) -> String {
        let mut configuration = Configuration::single(NodeId(ids[0]));
        for id in &ids[1..] {
            configuration = configuration.after(Change::Voter(NodeId(*id))).unwrap();
        }
        for id in ids {
            let disk = Disk { first: configuration.encode(), ..Disk::default() };
            self.nodes.insert(*id, Node::open(*id, disk));
        }
        String::new()
    }

    /// A crash: what was not written is gone.
    fn restart(&mut self, id: u64) -> String {
        let disk = self.nodes[&id].disk.clone();
        self.network.retain(|message| message.to != NodeId(id) && message.from != NodeId(id));
        let last = disk.entries.len();
        self.nodes.insert(id, Node::open(id, disk));
        format!("{id} has {last} entries\n")
    }

    fn ready(&mut self, id: u64) -> String {
        let node = self.nodes.get_mut(&id).unwrap();
        let Some(ready) = node.replica.ready() else { return "nothing\n".to_string() };
        let seen = describe(&ready);
        node.committed = ready.committed.unwrap_or(node.committed);
        self.network.extend(ready.messages.iter().cloned());
        if ready.number != 0 {
            node.writes.push_back(ready);
        }
        seen
    }

    fn write(&mut self, id: u64) -> String {
        let node = self.nodes.get_mut(&id).unwrap();
        let ready = node.writes.pop_front().expect("something to write");
        node.disk.write(&ready);
        node.replica.persisted(ready.number);
        format!("durable: {}\n", ready.number)
    }

    fn apply(&mut self, id: u64, index: Index) {
        let node = self.nodes.get_mut(&id).unwrap();
        node.replica.applied(index);
        node.disk.applied = index;
    }

    /// Everything that one node can do by itself, silently but for what becomes committed and
    /// read.
    fn run(&mut self, id: u64) -> String {
        let mut seen = String::new();
        loop {
            let before = self.nodes[&id].committed;
            let ready = self.ready(id);
            for line in ready.lines().filter(|line| line.starts_with("read")) {
                writeln!(seen, "{id}: {line}").unwrap();
            }
            let node = self.nodes.get_mut(&id).unwrap();
            if !node.writes.is_empty() {
                self.write(id);
            } else if ready == "nothing\n" {
                return seen;
            }
            let committed = self.nodes[&id].committed;
            if committed > before {
                writeln!(seen, "{id}: committed {committed}").unwrap();
                self.apply(id, committed);
            }
        }
    }

    /// Messages and writes until nothing moves any more.
    fn deliver(&mut self) -> String {
        let ids: Vec<u64> = self.nodes.keys().copied().collect();
        let mut seen = String::new();
        loop {
            ids.iter().for_each(|id| seen.push_str(&self.run(*id)));
            let Some(message) = self.network.pop_front() else { return seen };
            if let Some(node) = self.nodes.get_mut(&message.to.0) {
                node.replica.step(message);
            }
        }
    }
}

impl Node {
    fn open(id: u64, disk: Disk) -> Node {
        let replica = Replica::new(&disk.start(id)).expect("a good start");
        Node { replica, committed: disk.applied, disk, writes: VecDeque::new() }
    }
}

fn describe(ready: &Ready) -> String {
    let mut out = String::new();
    if ready.number != 0 {
        writeln!(out, "number {}", ready.number).unwrap();
    }
    if let Some(role) = ready.role {
        writeln!(out, "role {role:?}").unwrap();
    }
    if let Some(hard) = ready.hard {
        writeln!(out, "save term {} vote {}", hard.term, hard.vote).unwrap();
    }
    if let Some(index) = ready.cut_after {
        writeln!(out, "cut after {index}").unwrap();
    }
    for entry in &ready.entries {
        let kind = match &entry.kind {
            EntryKind::Configure(_) => "Configure".to_string(),
            other => format!("{other:?}"),
        };
        writeln!(out, "stage {}/{} {kind}", entry.term, entry.index).unwrap();
    }
    if let Some(index) = ready.committed {
        writeln!(out, "committed {index}").unwrap();
    }
    for (token, index) in &ready.reads {
        writeln!(out, "read {token} at {index}").unwrap();
    }
    for message in &ready.messages {
        writeln!(
            out,
            "send {:?} to {} term {} index {} entries {}",
            message.kind,
            message.to,
            message.term,
            message.index,
            message.entries.len()
        )
        .unwrap();
    }
    out
}
