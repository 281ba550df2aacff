//! The Cap'n Proto code: generated once, checked in, compared in CI where the tools are there.

use crate::shell::{exists, root};
use anyhow::{Context, bail};
use std::fs;
use std::process::Command;

const SCHEMA: &str = "crates/wire/schema/naust.capnp";
const GENERATED: &str = "crates/wire/src/generated/naust_capnp.rs";

/// Regenerates the code, or compares it when `check` is set.
pub fn run(check: bool) -> anyhow::Result<()> {
    if !exists("capnp", &["--version"]) || !on_path("capnpc-rust") {
        if check {
            println!("codegen: skipped, capnp and capnpc-rust are not installed");
            return Ok(());
        }
        bail!("codegen needs `capnp` (Debian: capnproto) and `capnpc-rust` (cargo install capnpc)");
    }
    let into = root().join("target/codegen");
    fs::create_dir_all(&into)?;
    let status = Command::new("capnp")
        .arg("compile")
        .arg(format!("-orust:{}", into.display()))
        .arg("--src-prefix=crates/wire/schema")
        .arg(SCHEMA)
        .current_dir(root())
        .status()?;
    if !status.success() {
        bail!("capnp compile failed");
    }
    let new = fs::read_to_string(into.join("naust_capnp.rs"))?;
    let old = fs::read_to_string(root().join(GENERATED)).unwrap_or_default();
    if body(&new) == body(&old) {
        println!("codegen: {GENERATED} is what {SCHEMA} gives");
    } else if check {
        bail!("{GENERATED} is not what {SCHEMA} gives; run `cargo xtask codegen`");
    } else {
        fs::write(root().join(GENERATED), new).context(GENERATED)?;
        println!("codegen: {GENERATED} written");
    }
    Ok(())
}

/// The code without the comments at its head, which name the versions of the tools.
fn body(code: &str) -> String {
    code.lines().skip_while(|line| line.starts_with("//")).collect::<Vec<_>>().join("\n")
}

fn on_path(program: &str) -> bool {
    std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(program).is_file()))
}
