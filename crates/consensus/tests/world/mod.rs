//! A handful of replicas, their disks and the messages between them, moved by commands.

mod disk;

use disk::Disk;
use naust_consensus::{
    Change, Configuration, Entry, EntryKind, Message, MessageKind, Offered, Ready, Replica, Role,
};
use naust_wire::{Index, NodeId, Term};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write;

/// Messages after which a story has no end.
const MESSAGES_MAX: usize = 1000;

#[derive(Default)]
pub struct World {
    nodes: BTreeMap<u64, Node>,
    network: VecDeque<Message>,
    /// Nothing gets to these nodes, or away from them.
    isolated: BTreeSet<u64>,
    /// Nodes whose views fold in nothing unless they are told to.
    lazy: BTreeSet<u64>,
    /// Nodes whose disks write nothing unless they are told to.
    slow: BTreeSet<u64>,
    /// On a long way round.
    held: Vec<Message>,
}

struct Node {
    replica: Replica,
    disk: Disk,
    writes: VecDeque<Ready>,
    committed: Index,
    offered: Option<Offered>,
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
            "join" => self.join(&numbers),
            "restart" => self.restart(node, numbers.get(1).map(|index| Index(*index))),
            "deliver" => self.deliver(),
            "drop" => self.drop(&numbers),
            "settle" => self.run(node),
            "write" => self.write(node),
            "messages" => self.network.iter().map(line_of).collect(),
            "step" => self.step(node as usize, words[1]),
            "isolate" => {
                self.isolated.extend(&numbers);
                String::new()
            }
            "heal" => {
                self.isolated.clear();
                String::new()
            }
            "lazy" | "slow" | "fast" => self.behave(words[0], node),
            "hold" => {
                self.held.extend(self.network.remove(node as usize - 1));
                String::new()
            }
            "release" => {
                let seen = self.held.iter().map(line_of).collect();
                self.network.extend(self.held.drain(..));
                seen
            }
            "changes" => self.changes(node, &words[2..]),
            "configuration" => {
                let configuration = self.nodes[&node].replica.configuration();
                format!("{node} has {}\n", told(configuration))
            }
            "forge" => self.forge(&words[1..]),
            "offer" | "sent" | "begin" | "install" | "abandon" => {
                self.transfer(words[0], node, second, words.last().copied())
            }
            "progress" | "quiet" | "refused" | "transferee" => self.tell(words[0], node, second),
            _ => self.act(words[0], node, second),
        }
    }

    fn drop(&mut self, numbers: &[u64]) -> String {
        match numbers {
            [] => self.network.clear(),
            [number] => drop(self.network.remove(*number as usize - 1)),
            _ => panic!("one message, or all"),
        }
        String::new()
    }

    fn behave(&mut self, how: &str, id: u64) -> String {
        match how {
            "lazy" => self.lazy.insert(id),
            "slow" => self.slow.insert(id),
            _ => self.slow.remove(&id),
        };
        String::new()
    }

    /// Hands over a message out of turn: `move` takes it, `copy` leaves it there.
    fn step(&mut self, number: usize, how: &str) -> String {
        let message = self.network[number - 1].clone();
        if how == "move" {
            self.network.remove(number - 1);
        }
        let seen = line_of(&message);
        self.nodes.get_mut(&message.to.0).unwrap().replica.step(message);
        seen
    }

    /// `+4`: votes, `?4`: learns, `-4`: is no replica more.
    fn changes(&mut self, node: u64, words: &[&str]) -> String {
        let changes: Vec<Change> = words
            .iter()
            .map(|word| {
                let id = NodeId(word[1..].parse().unwrap());
                match &word[..1] {
                    "+" => Change::Voter(id),
                    "?" => Change::Learner(id),
                    _ => Change::Remove(id),
                }
            })
            .collect();
        let replica = &mut self.nodes.get_mut(&node).unwrap().replica;
        format!("{:?}\n", replica.propose_changes(&changes))
    }

    /// `forge kind from to term index [key=value …]`: a message that nobody sent.
    fn forge(&mut self, words: &[&str]) -> String {
        let number = |at: usize| words[at].parse::<u64>().unwrap();
        let field = |key: &str| {
            let found = words.iter().find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
            found.map(|value| value.parse::<u64>().unwrap())
        };
        let entry = |index: u64| {
            let term = Term(field("entry-term").unwrap_or(number(3)));
            Entry { index: Index(index), term, kind: EntryKind::Normal }
        };
        let kind = match words[0] {
            "Append" => MessageKind::Append,
            "AppendAnswer" => MessageKind::AppendAnswer,
            "Heartbeat" => MessageKind::Heartbeat,
            "TimeoutNow" => MessageKind::TimeoutNow,
            "Snapshot" => MessageKind::Snapshot,
            "Read" => MessageKind::Read,
            "Vote" => MessageKind::Vote,
            other => panic!("no kind {other}"),
        };
        let message = Message {
            kind,
            from: NodeId(number(1)),
            to: NodeId(number(2)),
            term: Term(number(3)),
            log_term: Term(field("log-term").unwrap_or(0)),
            index: Index(number(4)),
            entries: field("entry").map(entry).into_iter().collect(),
            commit: Index(field("commit").unwrap_or(0)),
            commit_term: Term(field("commit-term").unwrap_or(0)),
            reject: field("hint").is_some(),
            reject_hint: Index(field("hint").unwrap_or(0)),
            request_snapshot: Index(0),
            priority: 0,
            context: match kind {
                MessageKind::Snapshot => self.nodes[&number(2)].replica.configuration().encode(),
                _ => vec![],
            },
        };
        self.nodes.get_mut(&number(2)).unwrap().replica.step(message);
        String::new()
    }

    /// State transfer, the disk's part of it included.
    fn transfer(&mut self, verb: &str, id: u64, to: u64, last: Option<&str>) -> String {
        let node = self.nodes.get_mut(&id).unwrap();
        match verb {
            "offer" => {
                let snapshot = node.disk.snapshot();
                let taken = node.replica.offer(NodeId(to), &snapshot);
                return format!("snapshot at {}/{}: {taken}\n", snapshot.term, snapshot.index);
            }
            "sent" => node.replica.snapshot_sent(NodeId(to), last == Some("ok")),
            "abandon" => node.replica.abandon_install(),
            _ => {
                let Some(Offered { snapshot, .. }) = &node.offered else {
                    return "nothing is offered\n".to_string();
                };
                if verb == "begin" {
                    return format!("{}\n", node.replica.begin_install(snapshot));
                }
                node.disk.flip(snapshot);
                node.committed = snapshot.index;
                node.replica.install(snapshot);
            }
        }
        String::new()
    }

    fn tell(&self, verb: &str, id: u64, other: u64) -> String {
        let replica = &self.nodes[&id].replica;
        match verb {
            "quiet" => format!("{id} is quiet: {}\n", replica.is_quiet()),
            "refused" => format!("{id} refused {}\n", replica.refused()),
            "transferee" => format!("{id} hands over to {:?}\n", replica.lead_transferee()),
            _ => match replica.progress(NodeId(other)) {
                None => format!("{id} knows nothing of {other}\n"),
                Some(progress) => format!(
                    "{other} has {}, knows {}, {:?}, active: {}\n",
                    progress.matched, progress.committed, progress.state, progress.active
                ),
            },
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
            "pass" => {
                let _ = (0..argument).map(|_| replica.tick()).count();
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
            "gone" => replica.leader_gone(NodeId(argument)),
            "unreachable" => replica.report_unreachable(NodeId(argument)),
            "ready" => return self.ready(node),
            "applied" => self.apply(node, Index(argument)),
            "forget" => {
                replica.forget(Index(argument));
                self.nodes.get_mut(&node).unwrap().disk.trim(Index(argument));
            }
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
            self.nodes.insert(*id, Node::open(*id, Disk::new(&configuration)));
        }
        String::new()
    }

    /// A node that is no replica yet.
    fn join(&mut self, ids: &[u64]) -> String {
        for id in &ids[1..] {
            let first = self.nodes[&ids[0]].disk.configuration.clone();
            let disk = Disk { configuration: first, ..Disk::default() };
            self.nodes.insert(*id, Node::open(*id, disk));
        }
        String::new()
    }

    /// A crash: what was not written is gone, and what the tables held in memory only.
    fn restart(&mut self, id: u64, tables: Option<Index>) -> String {
        let mut disk = self.nodes[&id].disk.clone();
        disk.applied = tables.unwrap_or(disk.applied);
        self.network.retain(|message| message.to != NodeId(id) && message.from != NodeId(id));
        let last = disk.entries.len();
        self.nodes.insert(id, Node::open(id, disk));
        format!("{id} has {last} entries\n")
    }

    fn ready(&mut self, id: u64) -> String {
        let node = self.nodes.get_mut(&id).unwrap();
        let ready = node.replica.ready().or_else(|| {
            let mut messages = Vec::new();
            node.replica.notices(&mut messages);
            (!messages.is_empty()).then(|| Ready { messages, ..Ready::default() })
        });
        let Some(ready) = ready else { return "nothing\n".to_string() };
        let seen = describe(&ready);
        node.committed = ready.committed.unwrap_or(node.committed);
        node.offered = ready.offered.clone().or(node.offered.take());
        let cut = |id: NodeId| self.isolated.contains(&id.0);
        let sent = ready.messages.iter().filter(|message| !cut(message.from) && !cut(message.to));
        self.network.extend(sent.cloned());
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
            let told = ["read", "snapshot wanted", "offered"];
            let told = |line: &&str| told.iter().any(|word| line.starts_with(word));
            for line in ready.lines().filter(told) {
                writeln!(seen, "{id}: {line}").unwrap();
            }
            let node = self.nodes.get_mut(&id).unwrap();
            if !node.writes.is_empty() && !self.slow.contains(&id) {
                self.write(id);
            } else if ready == "nothing\n" {
                return seen;
            }
            let committed = self.nodes[&id].committed;
            if committed > before {
                writeln!(seen, "{id}: committed {committed}").unwrap();
                if !self.lazy.contains(&id) {
                    self.apply(id, committed);
                }
            }
        }
    }

    /// Messages and writes until nothing moves any more.
    fn deliver(&mut self) -> String {
        let ids: Vec<u64> = self.nodes.keys().copied().collect();
        let mut seen = String::new();
        for _ in 0..MESSAGES_MAX {
            ids.iter().for_each(|id| seen.push_str(&self.run(*id)));
            let Some(message) = self.network.pop_front() else { return seen };
            let cut = |id: NodeId| self.isolated.contains(&id.0);
            let cut = cut(message.to) || cut(message.from);
            if let Some(node) = self.nodes.get_mut(&message.to.0).filter(|_| !cut) {
                node.replica.step(message);
            }
        }
        let rest: String = self.network.iter().map(line_of).collect();
        panic!("they talk for ever: {seen}{rest}");
    }
}

impl Node {
    fn open(id: u64, disk: Disk) -> Node {
        let replica = Replica::new(&disk.start(id, 7)).expect("a good start");
        Node { replica, committed: disk.applied, disk, writes: VecDeque::new(), offered: None }
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
    for node in &ready.snapshots_wanted {
        writeln!(out, "snapshot wanted by {node}").unwrap();
    }
    if let Some(Offered { from, snapshot }) = &ready.offered {
        let (term, index) = (snapshot.term, snapshot.index);
        writeln!(out, "offered by {from}: snapshot at {term}/{index}").unwrap();
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

fn line_of(message: &Message) -> String {
    let reject = match message.reject {
        true => format!(", no, hint {}/{}", message.log_term, message.reject_hint),
        false => String::new(),
    };
    let (from, to, kind) = (message.from, message.to, message.kind);
    let (term, index, entries) = (message.term, message.index, message.entries.len());
    format!("{from} to {to}: {kind:?} term {term} index {index} entries {entries}{reject}\n")
}

/// `voters 1 2 3, outgoing 1 2 4, …`
fn told(configuration: &Configuration) -> String {
    let ids = |nodes: &[NodeId]| nodes.iter().map(|id| format!(" {id}")).collect::<String>();
    let parts = [
        ("voters", configuration.voters()),
        ("learners", configuration.learners()),
        ("outgoing", configuration.outgoing()),
        ("learners next", configuration.learners_next()),
    ];
    let parts = parts.into_iter().filter(|(_, nodes)| !nodes.is_empty());
    parts.map(|(name, nodes)| name.to_string() + &ids(nodes)).collect::<Vec<_>>().join(", ")
}
