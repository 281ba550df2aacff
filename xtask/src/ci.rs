//! What CI checks beside the tests.

use crate::shell::{exists, output, root, run};
use crate::{codegen, tidy};
use anyhow::Context;
use std::fs;

/// All checks, cheapest first.
pub fn run_all() -> anyhow::Result<()> {
    tidy::run()?;
    run("cargo", &["fmt", "--all", "--check"], &[])?;
    codegen::run(true)?;
    run("cargo", &["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"], &[])?;
    run("cargo", &["doc", "--workspace", "--no-deps"], &[("RUSTDOCFLAGS", "-D warnings")])?;
    for example in ["embedded", "transfer", "consumer"] {
        run("cargo", &["run", "--quiet", "-p", "naust-examples", "--bin", example], &[])?;
    }
    simulate(200)?;
    fuzz_smoke(10)
}

/// Runs the simulator on `seeds` seeds derived from the commit, and on all seeds that ever failed.
pub fn simulate(seeds: u64) -> anyhow::Result<()> {
    let commit = output("git", &["rev-parse", "HEAD"])?;
    let first = u64::from_str_radix(commit.get(..12).context("a commit hash is longer")?, 16)?;
    let range = format!("{first}..{}", first + seeds);
    let simulator = ["run", "--release", "-p", "naust-sim", "--"];
    run("cargo", &[&simulator[..], &["--seeds", &range]].concat(), &[])?;
    let kept = fs::read_to_string(root().join("crates/sim/seeds.txt"))?;
    for seed in kept.lines().filter_map(|line| line.split_whitespace().next()) {
        if !seed.starts_with('#') {
            let (seed, nodes) = seed.split_once(':').with_context(|| format!("{seed:?}"))?;
            let life = ["--seed", seed, "--nodes", nodes];
            run("cargo", &[&simulator[..], &life[..]].concat(), &[])?;
        }
    }
    Ok(())
}

/// Runs every libFuzzer target for a few seconds where a nightly toolchain and cargo-fuzz are
/// installed. Without them it says so: the same entry points are fed mutated input by the stable
/// tests of each crate.
pub fn fuzz_smoke(seconds: u32) -> anyhow::Result<()> {
    if !exists("cargo", &["+nightly", "fuzz", "--version"]) {
        println!("fuzz smoke: libFuzzer skipped: it needs cargo-fuzz and a nightly toolchain");
        return Ok(());
    }
    let targets = output("cargo", &["+nightly", "fuzz", "list", "--fuzz-dir", "fuzz"])?;
    let time = format!("-max_total_time={seconds}");
    for target in targets.lines() {
        let command = ["+nightly", "fuzz", "run", "--fuzz-dir", "fuzz", target, "--"];
        run(
            "cargo",
            &[&command[..], &[&time, "-rss_limit_mb=2048", "-verbosity=0"]].concat(),
            &[],
        )?;
    }
    Ok(())
}
