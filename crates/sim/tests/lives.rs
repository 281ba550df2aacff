//! Whole lives: the seeds that ever failed, a few more, and that a seed has one story only.

#![allow(clippy::unwrap_used)]

use naust_sim::life::{self, Wanted};
use naust_sim::plan::Mode;
use naust_sim::run;
use naust_sim::sabotage::Sabotage;
use naust_sim::shrink;
use naust_sim::trace::Trace;

/// A handful: thousands are lived by `naust-sim --seeds`.
const FRESH: std::ops::Range<u64> = 1_000_000..1_000_012;

fn held(seed: u64, nodes: Option<usize>, mode: Option<Mode>) {
    let life = life::live(seed, &Wanted { nodes, mode, ..Wanted::default() }, Trace::silent());
    if let Some(what) = run::sentence(&life) {
        let nodes = nodes.map(|nodes| format!(" --nodes {nodes}")).unwrap_or_default();
        let command = format!("cargo run --release -p naust-sim -- --seed {seed}{nodes} --trace");
        panic!("seed {seed}: {what}\n  {command}");
    }
}

#[test]
fn seeds_that_ever_failed_hold_now() {
    let kept = include_str!("../seeds.txt").lines();
    for line in kept.filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let (life, _) = line.split_once(' ').expect("each has its reason");
        let (seed, nodes) = life.split_once(':').expect("a line begins with seed:nodes");
        // An `!` behind the number of nodes: beyond the promises.
        let mode = nodes.ends_with('!').then_some(Mode::Beyond);
        let nodes = nodes.trim_end_matches('!').parse().unwrap();
        held(seed.parse().unwrap(), Some(nodes), mode);
    }
}

#[test]
fn fresh_seeds_hold() {
    FRESH.for_each(|seed| held(seed, None, None));
}

#[test]
fn a_seed_has_one_story() {
    for (seed, nodes) in [(3, 1), (77, 3), (4, 5)] {
        let wanted = Wanted { nodes: Some(nodes), ..Wanted::default() };
        let hashes: Vec<u64> =
            (0..2).map(|_| life::live(seed, &wanted, Trace::silent()).hash).collect();
        assert_eq!(hashes[0], hashes[1], "seed {seed}");
    }
}

/// A world whose lies nobody sees proves nothing: each kind is found within a few seeds.
#[test]
fn lies_are_found_out() {
    for lie in Sabotage::ALL {
        let found = (0..24).any(|seed| {
            let wanted =
                Wanted { sabotage: Some(lie), nodes: Some(lie.nodes()), ..Wanted::default() };
            let life = life::live(2_000_000 + seed, &wanted, Trace::silent());
            !life.violations.is_empty()
        });
        assert!(found, "{lie:?} was believed");
    }
}

/// Lives that cutting one may take.
const TRIES: usize = 150;

/// What is left of a life that failed fails in the same way, and is less.
#[test]
fn a_failing_life_is_cut() {
    let sabotage = Some(Sabotage::ForgetSync);
    let wanted = Wanted { sabotage, nodes: Some(1), ..Wanted::default() };
    let whole = |seed: u64| life::live(seed, &wanted, Trace::silent());
    let fails = |seed: &u64| whole(*seed).faults > 8 && !whole(*seed).violations.is_empty();
    let seed = (2_000_000..2_000_100).find(fails).expect("a lying disk is found out");
    let whole = whole(seed);
    let shrunk = shrink::shrink(seed, &wanted, TRIES, |_| {}).expect("it fails");
    assert_eq!(shrunk.life.violations[0].checker, whole.violations[0].checker);
    // Who ends earlier meets fewer faults; of these, those in vain are left out.
    let kept = shrunk.cuts.faults.map_or(shrunk.life.faults, |kept| kept.len() as u64);
    assert!(kept < whole.faults, "{kept} of {}", whole.faults);
    assert!(shrunk.life.busy_micros <= whole.busy_micros);
    assert!(shrunk.tries <= TRIES, "{}", shrunk.tries);
    assert!(shrink::shrink(3, &Wanted::default(), TRIES, |_| {}).is_none(), "it holds");
}
