//! The commands of stories. `put c1 #5 1 users ada=1` is: connection 1, request 5, shard 1.

use super::World;
use naust_log::Layout;
use naust_node::views::Cause;
use naust_node::{ConnectionId, Event};
use naust_wire::ask::{Ask, Listing};
use naust_wire::commit::Draft;
use naust_wire::control::Control;
use naust_wire::limits::PACKET_HEADER_BYTES;
use naust_wire::options::{Durability, NamespaceOptions, StreamOptions};
use naust_wire::packet::{self, Kind};
use naust_wire::read::{Level, Named, Query, Read};
use naust_wire::reply::Failure;
use naust_wire::{Code, NodeId, Numbers, Offset, RequestId, Sequence, SessionId, ShardId};
use std::sync::atomic::Ordering;

impl World {
    /// Does one command and tells what was seen.
    pub fn command(&mut self, line: &str) -> String {
        let words: Vec<&str> = line.split(' ').collect();
        let number = |at: usize| words.get(at).and_then(|word| word.parse().ok()).unwrap_or(0);
        match words[0] {
            "start" => self.start(),
            "crash" => self.crash(number(1)),
            "kill" => self.kill(),
            "pass" => self.pass_ms(number(1)),
            "hold" => self.holds_writes = true,
            "free" => {
                self.holds_writes = false;
                while !self.writes.is_empty() {
                    self.let_write();
                }
            }
            "write" => self.let_write(),
            "holdopens" => self.holds_opens = true,
            "open" => self.let_open(),
            "holdviews" => self.holds_views = true,
            "freeviews" => self.let_views_go_on(),
            // Looking through what was copied before, and taking what is copied in place.
            "holdcopies" => self.holds_copies = true,
            "copy" => self.let_copy(),
            "files" => {
                let files = self.disks[&ShardId(number(1) as u32)].files();
                let logs = files.iter().filter(|(name, _)| name.ends_with(".log"));
                let logs: Vec<u64> = logs.map(|(_, bytes)| *bytes).collect();
                self.seen.push(format!("{} segments", logs.len()));
            }
            "segments" => {
                self.layout = Layout::new(number(1)).expect("a legal length of segments");
            }
            "copied" => {
                let bytes = std::mem::take(&mut self.copied_bytes);
                self.seen.push(format!("{bytes} bytes were copied"));
            }
            "exports" => {
                let most = std::mem::take(&mut self.most_exports);
                self.seen.push(format!("{most} replicas were sent at a time"));
            }
            "fill" => {
                let shard = ShardId(number(1) as u32);
                // Few rows, again and again; or, if it is said how long they are, many.
                let (keys, bytes) = match words.get(4) {
                    Some(_) => (number(3), number(4)),
                    None => (10, 1000),
                };
                self.fill(shard, words[2], number(3), (keys, bytes as usize));
            }
            // At what expires by age.
            "looks" => {
                let looks = std::mem::take(&mut self.looks);
                self.seen.push(format!("{looks} looks"));
            }
            "effects" => self.shows_effects = words[1] == "on",
            "space" => {
                self.space = words.get(1).map(|_| number(1));
                self.disks.values().for_each(|disk| disk.set_space(self.space));
            }
            "tablesfull" => self.is_full.store(words[1] == "yes", Ordering::Relaxed),
            "damage" => {
                let damage = self.damage.entry(ShardId(number(1) as u32)).or_default();
                let part = if words[2] == "rows" { &damage.rows } else { &damage.jobs };
                part.store(true, Ordering::Relaxed);
            }
            // Its views end by themselves, in the middle of nothing.
            "fails" => {
                let failure = Failure::new(Code::Corrupt, "a damaged block");
                let (shard, cause) = (ShardId(number(1) as u32), Cause::Tables);
                self.burst(vec![Event::Failed { shard, cause, failure }]);
            }
            "leave" => {
                self.disks.entry(ShardId(number(1) as u32)).or_default();
            }
            "rot" => {
                let shard = ShardId(number(1) as u32);
                match words[2].strip_prefix('+') {
                    Some(bytes) => self.rot_at(shard, Offset::FIRST.plus(bytes.parse().unwrap())),
                    None => self.rot(shard, number(2)),
                }
            }
            "memtables" => self.machine.memtable_bytes = number(1),
            "token" => self.token = Some(words[1].to_string()),
            "closed" => self.burst(vec![Event::Closed(ConnectionId(number(1)))]),
            "drain" => self.burst(vec![Event::Drain]),
            "writes" => {
                let (writes, syncs) = std::mem::take(&mut self.written);
                self.seen.push(format!("{writes} writes, {syncs} syncs"));
            }
            "raw" => {
                let bytes: Vec<u8> =
                    words[2..].iter().map(|w| u8::from_str_radix(w, 16).unwrap()).collect();
                self.send(words[1][1..].parse().unwrap(), &bytes);
            }
            "together" => self.together(line["together ".len()..].split(" | ")),
            _ => self.together([line].into_iter()),
        }
        self.seen.drain(..).map(|line| line + "\n").collect()
    }

    /// The packet of a request.
    pub fn packets(&self, request: &str) -> Vec<u8> {
        let (mut bytes, words) = (Vec::new(), request.split(' ').collect::<Vec<&str>>());
        self.packet(words[0], RequestId(1), &words[3..], &mut bytes);
        bytes
    }

    /// Requests of one connection in one burst; the connection is that of the first.
    fn together<'a>(&mut self, requests: impl Iterator<Item = &'a str>) {
        let (mut bytes, mut from) = (Vec::new(), None);
        for request in requests {
            let words: Vec<&str> = request.split(' ').collect();
            let id = words[1].strip_prefix('c').expect("a connection").parse().unwrap();
            assert!(from.is_none_or(|other| other == id), "a burst has one connection");
            from = Some(id);
            let number = words[2].strip_prefix('#').expect("a request").parse().unwrap();
            self.packet(words[0], RequestId(number), &words[3..], &mut bytes);
        }
        self.send(from.unwrap(), &bytes);
    }

    fn packet(&self, verb: &str, request: RequestId, words: &[&str], out: &mut Vec<u8>) {
        let word = |at: usize| words.get(at).copied().unwrap_or("");
        let shard = ShardId(word(0).parse().unwrap_or(0));
        let mut body = Vec::new();
        let kind = match verb {
            "hello" | "resolve" | "namespaces" | "cluster" | "transfer" => {
                ask(verb, word(0), word(1)).encode(&mut body);
                Kind::Ask
            }
            "session" | "create" | "interval" | "delete" | "force" | "retain" | "floors"
            | "note" => {
                control(verb, words).encode_numbered(&numbers(words), &mut body);
                Kind::Control
            }
            "get" | "scan" | "records" | "cursor" | "log" | "describe" | "digests" => {
                read(verb, words).encode(&mut body);
                Kind::Read
            }
            "empty" => Kind::Commit,
            "kind" => {
                packet::write(Kind::Commit, request, shard, &body, out);
                let start = out.len() - PACKET_HEADER_BYTES;
                out[start + 2..start + 4].copy_from_slice(&99u16.to_le_bytes());
                let crc = packet::crc32c(&[&out[start..start + 20]]);
                out[start + 20..].copy_from_slice(&crc.to_le_bytes());
                return;
            }
            _ => {
                commit(verb, words, &mut body);
                Kind::Commit
            }
        };
        let shard = match verb {
            "create" | "interval" | "delete" | "force" => ShardId::DIRECTORY,
            _ => shard,
        };
        packet::write(kind, request, shard, &body, out);
    }

    /// Many commits of about a kilobyte, of which only what goes wrong is shown.
    fn fill(&mut self, shard: ShardId, keyspace: &str, count: u64, (keys, bytes): (u64, usize)) {
        for number in 0..count {
            let (mut draft, mut body, mut packet) = (Draft::default(), Vec::new(), Vec::new());
            draft.put(keyspace, (number % keys).to_be_bytes().to_vec(), vec![b'x'; bytes]).unwrap();
            draft.encode(SessionId::NONE, Sequence(0), Sequence(0), &mut body).unwrap();
            packet::write(Kind::Commit, RequestId(number), shard, &body, &mut packet);
            self.send(99, &packet);
        }
        self.seen.retain(|line| !line.starts_with("c99") || !line.contains("committed"));
    }

    fn rot_at(&mut self, shard: ShardId, at: Offset) {
        let base = self.layout.base(at);
        assert!(self.disks[&shard].rot(&Layout::name(base), at.0 - base.0, 3), "such a byte");
    }

    fn rot(&mut self, shard: ShardId, back: u64) {
        let disk = &self.disks[&shard];
        let segment = disk.files().into_iter().find(|(name, _)| name.ends_with(".log"));
        let (name, _) = segment.expect("a segment");
        assert!(disk.rot(&name, back, 3), "there is such a byte");
    }
}

fn ask(verb: &str, word: &str, to: &str) -> Ask {
    match verb {
        "transfer" => {
            Ask::Transfer { namespace: word.to_string(), to: NodeId(to.parse().unwrap()) }
        }
        "hello" => Ask::Hello { token: word.to_string(), client: "story".to_string() },
        "resolve" => Ask::Resolve(word.to_string()),
        "namespaces" => {
            let (from, limit) = word.split_once('/').unwrap_or((word, "0"));
            Ask::Namespaces(Listing { from: from.to_string(), limit: limit.parse().unwrap() })
        }
        _ => Ask::Cluster(Listing::default()),
    }
}

fn control(verb: &str, words: &[&str]) -> Control {
    let name = || words[0].to_string();
    let quorum = NamespaceOptions::default();
    match verb {
        "session" => Control::OpenSession {
            ttl_ms: words.get(1).map_or(0, |word| word.parse().unwrap()),
            nonce: 0,
        },
        "create" => Control::CreateNamespace {
            name: name(),
            options: NamespaceOptions {
                history_bytes: words.get(1).map_or(0, |word| word.parse().unwrap_or(0)),
                ..quorum
            },
        },
        "interval" => {
            let options = NamespaceOptions { durability: Durability::IntervalMs(10), ..quorum };
            Control::CreateNamespace { name: name(), options }
        }
        "delete" => Control::CloseNamespace(name()),
        "force" => Control::DeleteNamespace(name()),
        "retain" => Control::SetStream {
            name: words[1].to_string(),
            options: StreamOptions {
                max_age_ms: words[2].parse().unwrap(),
                ..StreamOptions::default()
            },
        },
        "note" => Control::NoteDigests,
        _ => Control::Floors(Vec::new()),
    }
}

/// The last word may be `session+56/3`.
fn numbers(words: &[&str]) -> Numbers {
    let last = words.last().and_then(|word| word.strip_prefix("session")?.split_once('/'));
    last.map_or(Numbers::NONE, |(id, number)| Numbers {
        session: SessionId(place(id).0),
        sequence: Sequence(number.parse().unwrap()),
        acked_below: Sequence(1),
    })
}

fn place(word: &str) -> Offset {
    match word.strip_prefix('+') {
        Some(bytes) => Offset::FIRST.plus(bytes.parse().unwrap()),
        None => Offset(word.parse().unwrap()),
    }
}

/// The last word may be a level: `local`, `after +100`, `at +100` written `at+100`.
fn read(verb: &str, words: &[&str]) -> Read {
    let last = words.last().copied().unwrap_or("");
    let level = match last {
        "local" => Level::Local,
        _ => match (last.strip_prefix("at"), last.strip_prefix("after")) {
            (Some(at), _) => Level::Exactly(place(at)),
            (_, Some(at)) => Level::AtLeast(place(at)),
            _ => Level::Linearizable,
        },
    };
    let word = |at: usize| words.get(at).copied().unwrap_or("");
    let number = |at: usize| word(at).parse().unwrap_or(0);
    let query = match verb {
        "get" => Query::Get { keyspace: word(1).to_string(), key: word(2).into() },
        "scan" => Query::Scan {
            keyspace: word(1).to_string(),
            from: Vec::new(),
            to: None,
            reverse: false,
            limit: number(2),
            max_bytes: 0,
        },
        "records" => Query::Records {
            stream: word(1).to_string(),
            from: place(word(2)),
            limit: 0,
            max_bytes: 0,
            wait_ms: number(3),
        },
        "cursor" => Query::Cursor { stream: word(1).to_string(), cursor: word(2).to_string() },
        "digests" => Query::Digests { at: place(word(1)) },
        "log" => Query::Log { from: place(word(1)), max_bytes: 0, wait_ms: number(2) },
        _ => Query::Describe {
            from: word(1).split_once('/').map(|(kind, name)| match kind {
                "kv" => Named::Keyspace(name.to_string()),
                _ => Named::Stream(name.to_string()),
            }),
            limit: number(2),
        },
    };
    Read { level, query }
}

/// `put SHARD KEYSPACE KEY=VALUE`, `append SHARD STREAM VALUE`, `both SHARD NAME KEY=VALUE`,
/// and at the end perhaps `absent`, `version+100` and `session+56/3`.
fn commit(verb: &str, words: &[&str], out: &mut Vec<u8>) {
    let mut draft = Draft::default();
    let (key, value) = words[2].split_once('=').unwrap_or((words[2], ""));
    match verb {
        "put" => draft.put(words[1], key.as_bytes(), value.as_bytes()).unwrap(),
        "remove" => draft.delete(words[1], key.as_bytes()).unwrap(),
        "append" => draft.append(words[1], words[2].as_bytes()).unwrap(),
        "advance" => draft.advance(words[1], words[2], place(words[3])).unwrap(),
        "both" => {
            draft.put(words[1], key.as_bytes(), value.as_bytes()).unwrap();
            draft.append(words[1], value.as_bytes()).unwrap();
        }
        "big" => {
            let value = vec![b'x'; words[3].parse().unwrap()];
            draft.put(words[1], key.as_bytes(), value).unwrap();
        }
        other => panic!("no command {other}"),
    }
    let (mut session, mut sequence) = (SessionId::NONE, Sequence(0));
    for word in &words[3..] {
        if *word == "absent" {
            draft.absent(words[1], key.as_bytes()).unwrap();
        } else if let Some(at) = word.strip_prefix("version") {
            draft.version(words[1], key.as_bytes(), place(at)).unwrap();
        } else if let Some(id) = word.strip_prefix("session") {
            let (id, number) = id.split_once('/').unwrap();
            session = SessionId(place(id).0);
            sequence = Sequence(number.parse().unwrap());
        }
    }
    draft.encode(session, sequence, Sequence(0), out).unwrap();
}
