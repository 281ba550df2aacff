//! Whatever bytes a client or another node sends, the node lives, and answers or closes.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "helpers of tests are tests")]

mod world;

use naust_consensus::Configuration;
use naust_log::sim::Random;
use naust_node::Event;
use naust_wire::control::Control;
use naust_wire::limits::PACKET_HEADER_BYTES;
use naust_wire::options::NamespaceOptions;
use naust_wire::packet::{self, Kind};
use naust_wire::peer::{self, Contents, Peer, Said};
use naust_wire::{Index, LogTime, NodeId, Offset, RequestId, ShardId, Term, frame};
use world::{PEERS, World};

const REQUESTS: [&str; 12] = [
    "both c1 #1 1 users ada=1 absent",
    "put c1 #1 1 users ada=1 session+56/1",
    "remove c1 #1 1 users ada",
    "advance c1 #1 1 log billing +56",
    "session c1 #1 1 1000",
    "retain c1 #1 1 log 1000",
    "create c1 #1 shop",
    "get c1 #1 1 users ada",
    "scan c1 #1 1 users 3",
    "records c1 #1 1 log 0",
    "log c1 #1 1 0",
    "hello c1 #1 secret",
];

#[test]
fn spoilt_bodies_with_good_checksums() {
    let mut random = Random::new(3);
    let mut world = World::new();
    world.command("start");
    world.command("both c1 #1 1 users ada=1");
    let mut answered = 0;
    for _ in 0..4000 {
        let request = REQUESTS[random.below(REQUESTS.len() as u64) as usize];
        let good = world.packets(request);
        let (packet, _) = packet::read(&good).unwrap().unwrap();
        let mut body = packet.body.to_vec();
        for _ in 0..=random.below(3) {
            let at = random.below(body.len() as u64) as usize;
            body[at] = if random.one_in(2) { 0xff } else { random.below(256) as u8 };
        }
        if random.one_in(10) {
            body.truncate(random.below(body.len() as u64 + 1) as usize);
        }
        let mut bytes = Vec::new();
        packet::write(packet.kind, RequestId(2), packet.shard, &body, &mut bytes);
        world.send(1, &bytes);
        // Long polls that came of it end by themselves.
        answered +=
            world.command("pass 25").lines().filter(|line| line.starts_with("c1 #2")).count();
    }
    world.command("pass 70000");
    assert!(answered > 3000, "most are answered at once: {answered}");
    assert_eq!(world.requests(), 0);
    let seen = world.command("put c1 #3 1 users ada=2");
    assert!(seen.contains("committed"), "{seen}");
}

#[test]
fn bytes_that_are_no_packets() {
    let mut random = Random::new(4);
    let mut world = World::new();
    world.command("start");
    for connection in 10..2000 {
        let mut bytes = Vec::new();
        packet::write(Kind::Ask, RequestId(1), ShardId(0), &[0; 16], &mut bytes);
        let at = random.below(PACKET_HEADER_BYTES as u64) as usize;
        bytes[at] ^= 1 << random.below(8);
        if random.one_in(3) {
            bytes.truncate(1 + random.below(bytes.len() as u64 - 1) as usize);
        }
        world.send(connection, &bytes);
        let seen = world.command("pass 0");
        let name = format!("c{connection} ");
        assert!(seen.starts_with(&name), "{seen}");
    }
}

/// What another node might say if it were of another mind, or another release.
fn said(random: &mut Random, frames: &[u8]) -> (Said, Vec<u8>) {
    let small = |random: &mut Random| match random.below(12) {
        0 => u64::MAX,
        1 => u64::MAX / 4,
        2 => 0,
        _ => random.below(14),
    };
    let said = match random.below(15) {
        0 => Said::Sleep { term: Term(small(random)), index: Index(small(random)) },
        1 => {
            let nodes = [NodeId(2), NodeId(1 + random.below(9))];
            let configuration = Configuration::of_voters(&nodes).unwrap().encode();
            Said::Invite { configuration, options: NamespaceOptions::default() }
        }
        2 => Said::Want { transfer: small(random), file: 1, at: small(random) },
        3 => Said::Part { transfer: small(random), file: random.below(3) as u32, at: 0 },
        4 => Said::Installed { transfer: small(random), ok: random.one_in(2) },
        5 => Said::Contents(Contents {
            transfer: random.below(3),
            files: vec![("log/a".to_owned(), 5)],
            start: (Offset::FIRST, Index(0), Term(0), 0, LogTime(0)),
            last: (Index(small(random)), Term(small(random))),
            initial: Vec::new(),
            answers: 0,
            segment_bytes: 1 << 20,
        }),
        6 => Said::Seek { from: Offset(small(random)), to: Offset(small(random)) },
        7 => Said::Found { from: Offset(small(random)), committed: random.one_in(2) },
        8 => Said::Renew { number: small(random) },
        9 => Said::Keep { transfer: small(random) },
        _ => Said::Raft(peer::Raft {
            kind: random.below(14) as u8,
            term: Term(small(random)),
            log_term: Term(small(random)),
            index: Index(small(random)),
            commit: Index(small(random)),
            commit_term: Term(small(random)),
            reject: random.one_in(3),
            reject_hint: Index(small(random)),
            request_snapshot: Index(small(random)),
            priority: 0,
            context: vec![1; random.below(40) as usize],
        }),
    };
    let mut beside = match random.below(3) {
        0 => Vec::new(),
        1 => frames.to_vec(),
        _ => vec![7; random.below(90) as usize],
    };
    if let Some(byte) = beside.first_mut().filter(|_| random.one_in(9)) {
        *byte ^= 1;
    }
    (said, beside)
}

/// A frame with a good checksum that may follow something.
fn foreign_frames(random: &mut Random) -> Vec<u8> {
    let kinds = [frame::Kind::Empty, frame::Kind::Commit, frame::Kind::Configure];
    let mut out = Vec::new();
    let (mut offset, mut crc_before) = (Offset::FIRST, 0);
    let first = 1 + random.below(9);
    for index in first..first + 1 + random.below(3) {
        let kind = kinds[random.below(3) as usize];
        let body = match kind {
            frame::Kind::Empty => Vec::new(),
            frame::Kind::Commit => vec![1; 8],
            _ => Configuration::single(NodeId(2)).encode(),
        };
        let header = frame::Header {
            kind,
            body_bytes: body.len() as u32,
            crc_before,
            term: Term(1 + random.below(9)),
            index: Index(index),
            offset,
            time: LogTime(index),
            synced: Offset(0),
        };
        crc_before = header.write(&body, &mut out);
        offset = header.end();
    }
    out
}

#[test]
fn nothing_that_another_node_says_ends_the_process() {
    const NEIGHBOUR: u64 = 2;
    let mut random = Random::new(5);
    let (mut stopped, mut led) = (0, 0);
    for life in 0..400 {
        let mut world = World::new();
        world.command("start");
        let mut body = Vec::new();
        let (node, name) = (NodeId(NEIGHBOUR), "two".to_string());
        Control::SetNode { node, name, address: "10.0.0.2:7420".to_string() }.encode(&mut body);
        let mut packets = Vec::new();
        packet::write(Kind::Control, RequestId(1), ShardId(0), &body, &mut packets);
        world.send(1, &packets);
        world.command("put c1 #2 1 users ada=1");
        world.burst(vec![Event::Link { node, is_up: true }]);
        let from = PEERS + NEIGHBOUR;
        let hello =
            Said::Hello { cluster: 1, name: "two".to_owned(), address: "10.0.0.2:7420".to_owned() };
        speak(&mut world, from, ShardId(0), hello, &[]);
        world.command("pass 500");
        for _ in 0..60 {
            let shard = ShardId(random.below(4) as u32);
            let frames = foreign_frames(&mut random);
            let (said, beside) = said(&mut random, &frames);
            speak(&mut world, from, shard, said, &beside);
            if random.one_in(4) {
                world.command("pass 25");
            }
            world.out.clear();
            led += usize::from(random.one_in(3) && put_is_taken(&mut world));
        }
        if !world.is_running {
            // Frames that follow nothing here, of a leader that has every right: it can't go on.
            stopped += 1;
            world.command("crash 1");
            world.command("start");
        }
        let seen = world.command("get c9 #9 1 users ada local");
        assert!(seen.contains("c9 #9"), "life {life}: {seen}");
    }
    assert!(led > 20 && stopped < 390, "it goes on for the most part: {led}, {stopped}");
}

fn put_is_taken(world: &mut World) -> bool {
    world.is_running && world.command("put c1 #3 1 users bob=2").contains("committed")
}

fn speak(world: &mut World, from: u64, shard: ShardId, said: Said, beside: &[u8]) {
    let (from_node, to) = (NodeId(from - PEERS), world::NODE);
    let mut out = Vec::new();
    let packet = peer::begin(shard, &Peer { from: from_node, to, said }, &mut out);
    out.extend_from_slice(beside);
    packet.finish(&mut out);
    if world.is_running {
        world.send(from, &out);
    }
}
