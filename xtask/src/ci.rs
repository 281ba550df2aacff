//! What CI checks beside the tests.

use crate::shell::{exists, output, run};
use crate::{codegen, sim, tidy};

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
    sim::simulate(&sim::Args::default())?;
    sim::planted()?;
    fuzz_smoke(10)
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
