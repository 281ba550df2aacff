//! Lives from seeds, and what a log may hold after a crash.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// The seeds that are asked for, or these: `NAUST_LOG_SEEDS=7..8` lives the life 7 again.
#[cfg_attr(naust_planted, allow(dead_code))] // a build that has bugs looks for these alone
#[allow(clippy::disallowed_methods)] // the seeds of lives to be lived again are in the environment
pub fn seeds(all: Range<u64>) -> Range<u64> {
    let only = std::env::var("NAUST_LOG_SEEDS").ok().map(|seeds| {
        let (from, to) = seeds.split_once("..").unwrap();
        from.parse().unwrap()..to.parse().unwrap()
    });
    only.unwrap_or(all)
}

/// Lives these lives, and shows each to `see`.
pub fn live<L>(seeds: Range<u64>, life: impl Fn(u64) -> L, mut see: impl FnMut(L)) {
    for seed in seeds {
        let life = catch_unwind(AssertUnwindSafe(|| life(seed)));
        let Ok(life) = life else { panic!("life {seed} ended badly") };
        see(life);
    }
}

/// What the log was that holds `found` from `start` on: the last of `earlier` that begins so.
pub fn path_of<K: Clone + PartialEq>(earlier: &[Vec<K>], start: usize, found: &[K]) -> Vec<K> {
    let length = start + found.len();
    let is_it = |path: &&Vec<K>| path.len() >= length && path[start..length] == *found;
    let path = earlier.iter().rev().find(is_it);
    path.expect("the log is a prefix of what was written")[..length].to_vec()
}
