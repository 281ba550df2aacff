//! `cargo xtask bench`: builds the release binaries and hands over to the bench crate, which prints
//! the tables.

use crate::shell;

/// Which tables, and how long.
#[derive(clap::Args)]
pub struct Args {
    /// Passed on to the bench program as they are; `--help` lists them.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<String>,
}

/// Builds and runs the bench program.
pub fn run(args: &Args) -> anyhow::Result<()> {
    shell::run("cargo", &["build", "--release", "-p", "naust", "-p", "naust-bench"], &[])?;
    let rest: Vec<&str> = args.rest.iter().map(String::as_str).collect();
    let program = shell::root().join("target/release/naust-bench");
    shell::run(&program.to_string_lossy(), &rest, &[])
}
