//! Every request gets exactly one reply, and nothing stays under way, whatever order disks,
//! damage, clients, deletions and drains come in.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "helpers of tests are tests")]

mod world;

use naust_log::sim::Random;
use std::collections::BTreeMap;
use world::World;

const CONNECTIONS: u64 = 4;

/// Something a client or the world may do.
fn step(random: &mut Random, request: u64) -> String {
    let from = format!("c{} #{request}", random.below(CONNECTIONS));
    let shard = 1 + random.below(4);
    let key = random.below(5);
    match random.below(24) {
        0..6 => format!("put {from} {shard} users {key}={request}"),
        6 => format!("put {from} {shard} users {key}={request} absent"),
        7..9 => format!("append {from} {shard} log {request}"),
        9 => format!("get {from} {shard} users {key}"),
        10 => format!("get {from} {shard} users {key} local"),
        11 => format!("get {from} {shard} users {key} after+{}", random.below(5000)),
        12 => format!("records {from} {shard} log +{} {}", random.below(5000), random.below(400)),
        13 => format!("log {from} {shard} +{} {}", random.below(5000), random.below(400)),
        14 => format!("describe {from} {shard}"),
        15 => format!("create {from} shop{}", random.below(3)),
        16 => format!("delete {from} shop{}", random.below(3)),
        17 => format!("resolve {from} shop{}", random.below(3)),
        18 => format!("session {from} {shard}"),
        19 => "hold".to_string(),
        20 | 21 => "free".to_string(),
        22 => format!("pass {}", random.below(300)),
        23 if random.one_in(4) => {
            let part = if random.one_in(2) { "rows" } else { "jobs" };
            format!("damage {shard} {part}")
        }
        _ => "namespaces c0 #0".to_string(),
    }
}

/// Counts replies by connection and request.
fn count(seen: &str, replies: &mut BTreeMap<String, usize>) {
    for line in seen.lines() {
        if let Some((name, _)) = line.split_once(": ")
            && line.starts_with('c')
        {
            *replies.entry(name.to_string()).or_default() += 1;
        }
    }
}

fn life(seed: u64) {
    let mut random = Random::new(seed);
    let mut world = World::new();
    let (mut asked, mut replies) = (Vec::new(), BTreeMap::new());
    if random.one_in(2) {
        world.command("memtables 2000");
    }
    count(&world.command("start"), &mut replies);
    for request in 1..=150 {
        let command = step(&mut random, request);
        let words: Vec<&str> = command.split(' ').collect();
        if words.len() > 2 && words[2].starts_with("#") && words[2] != "#0" {
            asked.push(format!("{} {}", words[1], words[2]));
        }
        count(&world.command(&command), &mut replies);
    }
    if random.one_in(2) {
        count(&world.command("drain"), &mut replies);
    }
    count(&world.command("free"), &mut replies);
    count(&world.command("pass 20000"), &mut replies);
    for name in asked {
        assert_eq!(replies.get(&name), Some(&1), "seed {seed}: replies to {name}");
    }
    assert_eq!(world.requests(), 0, "seed {seed}: requests under way at the end");
}

#[test]
fn every_request_is_answered_once() {
    (0..400).for_each(life);
}
