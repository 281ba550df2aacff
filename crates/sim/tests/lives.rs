//! Whole lives: the seeds that ever failed, a few more, and that a seed has one story only.

#![allow(clippy::unwrap_used)]

use naust_sim::life::{self, Wanted};
use naust_sim::run;
use naust_sim::sabotage::Sabotage;
use naust_sim::trace::Trace;

/// A handful: thousands are lived by `naust-sim --seeds`.
const FRESH: std::ops::Range<u64> = 1_000_000..1_000_012;

fn held(seed: u64) {
    let life = life::live(seed, Wanted::default(), Trace::silent());
    if let Some(what) = run::sentence(&life) {
        panic!("seed {seed}: {what}\n  cargo run --release -p naust-sim -- --seed {seed} --trace");
    }
}

#[test]
fn seeds_that_ever_failed_hold_now() {
    let kept = include_str!("../seeds.txt").lines();
    for line in kept.filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let seed = line.split(' ').next().and_then(|seed| seed.parse().ok());
        held(seed.unwrap_or_else(|| panic!("a line of seeds.txt begins with a seed: {line:?}")));
    }
}

#[test]
fn fresh_seeds_hold() {
    FRESH.for_each(held);
}

#[test]
fn a_seed_has_one_story() {
    for seed in [3, 77] {
        let hashes: Vec<u64> =
            (0..2).map(|_| life::live(seed, Wanted::default(), Trace::silent()).hash).collect();
        assert_eq!(hashes[0], hashes[1], "seed {seed}");
    }
}

/// A world whose lies nobody sees proves nothing: each kind is found within a few seeds.
#[test]
fn lies_are_found_out() {
    for lie in Sabotage::ALL {
        let found = (0..24).any(|seed| {
            let wanted = Wanted { sabotage: Some(lie), nodes: Some(1) };
            let life = life::live(2_000_000 + seed, wanted, Trace::silent());
            !life.violations.is_empty()
        });
        assert!(found, "{lie:?} was believed");
    }
}
