//! `cargo xtask torture`: builds the release binaries, the node over the C library, and hands over
//! to the torture crate.

use crate::shell;

/// How long, and which choices.
#[derive(clap::Args)]
pub struct Args {
    /// Passed on to the torture program as they are: `--minutes N`, `--seed N`; `--help` lists
    /// them.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<String>,
}

/// Builds and runs the torture program.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let features = ["--features", "naust-torture/shim"];
    let build = ["build", "--release", "-p", "naust", "-p", "naust-torture"];
    shell::run("cargo", &[&build[..], &features].concat(), &[])?;
    let rest: Vec<&str> = args.rest.iter().map(String::as_str).collect();
    let program = shell::root().join("target/release/naust-torture");
    shell::run(&program.to_string_lossy(), &rest, &[])
}
