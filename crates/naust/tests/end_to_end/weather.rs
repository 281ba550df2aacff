//! Three nodes in bad weather: what lies between them, their disks and their clocks misbehave, and
//! clients see to it that nothing is lost.
//!
//! Between nodes stands a proxy; disks and clocks are played by a library below the process.

use crate::cluster::{Cluster, Load};
use crate::proxy::Weather;
use crate::shim::{ENOSPC, Faults};
use crate::support::{skip, wait_until};
use std::time::Duration;

const GOOD: Weather = Weather { held_up: false, refused: false, delay: Duration::ZERO };
const HELD_UP: Weather = Weather { held_up: true, ..GOOD };
const REFUSED: Weather = Weather { refused: true, ..GOOD };

/// Why: networks are cut in every way: both ways, one way only, with and without anybody being told
/// of it. Whether it leads or follows, the others go on without the node, and take it in again.
#[test]
fn a_node_that_is_cut_off_in_any_way_is_not_waited_for() {
    let (cluster, network) = Cluster::in_weather(3);
    let load = Load::on(&cluster, 200);
    for (to, from) in [(HELD_UP, HELD_UP), (HELD_UP, GOOD), (GOOD, HELD_UP), (REFUSED, REFUSED)] {
        let leader = cluster.leader();
        for which in [(leader + 1) % 3, leader] {
            cluster.surround(&network, which, to, from);
            load.wait_for(300);
            network.heal();
            cluster.wait_for_voters(3);
        }
    }
    cluster.check(&load.end());
}

/// Why: two nodes that don't reach each other, but both reach the third, must not fight over
/// leadership for ever.
#[test]
fn two_nodes_that_do_not_reach_each_other_go_on_by_the_third() {
    let (cluster, network) = Cluster::in_weather(3);
    let load = Load::on(&cluster, 200);
    let leader = cluster.leader();
    let other = (leader + 1) % 3;
    let (one, two) = (&cluster.nodes[leader].name, &cluster.nodes[other].name);
    network.set(one, two, HELD_UP);
    network.set(two, one, HELD_UP);
    load.wait_for(2_000);
    network.heal();
    cluster.wait_for_voters(3);
    cluster.check(&load.end());
}

/// Why: a node far away, or behind a bad line, is slower than all others, for as long as it lives.
/// As a follower it lags and holds nobody up; what waits for it is bounded.
#[test]
fn a_follower_that_lags_for_ever_holds_nobody_up() {
    let (cluster, network) = Cluster::in_weather(3);
    let load = Load::on(&cluster, 200);
    let slow = Weather { delay: Duration::from_millis(150), ..GOOD };
    let leader = cluster.leader();
    let behind = (leader + 1) % 3;
    cluster.surround(&network, behind, slow, slow);
    load.wait_for(5_000);
    assert_eq!(cluster.leader(), leader, "a slow follower brings nobody down");
    // The leader is the slow one now: it goes on all the same.
    network.heal();
    cluster.surround(&network, leader, slow, slow);
    load.wait_for(500);
    network.heal();
    cluster.wait_for_voters(3);
    cluster.check(&load.end());
}

/// Why: a disk that takes half a second for each sync makes a leader that acknowledges twice a
/// second, though two others could do better.
#[test]
fn a_slow_disk_is_ridden_out() {
    let slow = Faults { sync_delay_us: 500_000, ..Faults::default() };
    ride_out("a_slow_disk_is_ridden_out", slow, 300);
}

/// Why: a disk fills on one node of three; the others have space.
#[test]
fn a_disk_that_is_full_on_one_node_is_ridden_out() {
    let full = Faults { write_errno: ENOSPC, ..Faults::default() };
    ride_out("a_disk_that_is_full_on_one_node_is_ridden_out", full, 1_000);
}

/// A follower's disk and then the leader's have these faults, each for so many commits under load.
fn ride_out(story: &str, faults: Faults, commits: u64) {
    let Some((cluster, shims)) = Cluster::on_bad_disks(3) else {
        return skip(story, "there is no C compiler");
    };
    let load = Load::on(&cluster, 200);
    let leader = cluster.leader();
    for which in [(leader + 1) % 3, leader] {
        shims[which].set(faults).unwrap();
        wait_until("the disk to misbehave", || shims[which].played().unwrap() > 0);
        load.wait_for(commits);
        shims[which].set(Faults::default()).unwrap();
        cluster.wait_for_voters(3);
    }
    cluster.check(&load.end());
}

/// Why: clocks are set, by people and by daemons. Nothing that is promised hangs by them.
#[test]
fn clocks_that_jump_an_hour_either_way_harm_nothing() {
    let Some((cluster, shims)) = Cluster::on_bad_disks(3) else {
        return skip("clocks_that_jump_an_hour_either_way_harm_nothing", "there is no C compiler");
    };
    let load = Load::on(&cluster, 200);
    // A machine that is busy with other tests may bring a leader down by itself, now and then.
    let tries = 4;
    let stays = (0..tries).any(|_| {
        let leader = cluster.leader();
        let stays = [1, -1, 0].map(|hours| {
            for which in [leader, (leader + 1) % 3] {
                let clock_seconds = if which == leader { 3600 * hours } else { -3600 * hours };
                shims[which].set(Faults { clock_seconds, ..Faults::default() }).unwrap();
            }
            load.wait_for(500);
            cluster.leader() == leader
        });
        stays == [true; 3]
    });
    assert!(stays, "clocks brought the leader down {tries} times of {tries}");
    cluster.check(&load.end());
}
