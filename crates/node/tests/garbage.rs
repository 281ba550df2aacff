//! Whatever bytes a client sends, the node lives, and answers or closes.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "helpers of tests are tests")]

mod world;

use naust_log::sim::Random;
use naust_wire::limits::PACKET_HEADER_BYTES;
use naust_wire::packet::{self, Kind};
use naust_wire::{RequestId, ShardId};
use world::World;

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
