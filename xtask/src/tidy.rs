//! The rules of style that a machine can check. Each failure names the file, the line and the rule.

use crate::shell::{output, root};
use anyhow::bail;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// Who may use whom (normal dependencies). A crate is a wall, and these are its doors.
const ARROWS: &[(&str, &[&str])] = &[
    ("wire", &[]),
    ("log", &["wire"]),
    ("consensus", &["wire", "log"]),
    ("machine", &["wire"]),
    ("store", &["machine", "wire"]),
    ("node", &["wire", "log", "consensus", "machine"]),
    ("client", &["wire"]),
    ("gateway", &["client", "wire"]),
    ("sim", &["node", "machine", "client", "log", "consensus", "wire"]),
    ("naust", &["wire", "log", "consensus", "machine", "store", "node", "client", "gateway"]),
];

/// Crates that know no clock, thread, socket, file or randomness; their clippy.toml bans them.
const PURE: &[&str] = &["wire", "log", "consensus", "machine", "node"];
/// Crates that may use tokio.
const TOKIO: &[&str] = &["client", "gateway", "naust"];
/// Names of modules that say nothing.
const EMPTY_NAMES: &[&str] =
    &["common", "types", "util", "utils", "manager", "helper", "helpers", "misc"];

const FILE_LINES_MAX: usize = 600;
const COLUMNS_MAX: usize = 100;

/// Checks the whole tree.
pub fn run() -> anyhow::Result<()> {
    let mut wrong = Vec::new();
    arrows(&mut wrong)?;
    for path in output("git", &["ls-files", "--cached", "--others", "--exclude-standard"])?.lines()
    {
        if path.ends_with(".rs") && !path.contains("/generated/") {
            source(path, &mut wrong)?;
        }
    }
    files(&mut wrong);
    reasons(&mut wrong)?;
    for line in &wrong {
        println!("tidy: {line}");
    }
    if !wrong.is_empty() {
        bail!("tidy: {} rules broken", wrong.len());
    }
    println!("tidy: the tree keeps the rules");
    Ok(())
}

fn manifest(path: &str) -> anyhow::Result<BTreeMap<String, BTreeSet<String>>> {
    let mut sections: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut section = String::new();
    for line in fs::read_to_string(root().join(path))?.lines() {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.split(']').next()) {
            section = name.trim_matches('[').to_owned();
        } else if let Some((key, _)) = line.split_once('=') {
            let key = key.trim().split('.').next().unwrap_or_default().trim_matches('"');
            sections.entry(section.clone()).or_default().insert(key.to_owned());
        }
    }
    Ok(sections)
}

fn arrows(wrong: &mut Vec<String>) -> anyhow::Result<()> {
    for (name, allowed) in ARROWS {
        let path = format!("crates/{name}/Cargo.toml");
        let sections = manifest(&path)?;
        for dependency in sections.get("dependencies").into_iter().flatten() {
            if let Some(other) = dependency.strip_prefix("naust-")
                && !allowed.contains(&other)
            {
                wrong.push(format!("{path}: {name} may not use {other}"));
            }
            if dependency == "tokio" && !TOKIO.contains(name) {
                wrong.push(format!("{path}: {name} may not know tokio"));
            }
            if dependency == "lsm-tree" && *name != "store"
                || dependency == "raft" && *name != "consensus"
            {
                wrong.push(format!("{path}: {dependency} has one home, and it is not {name}"));
            }
        }
    }
    for entry in fs::read_dir(root().join("crates"))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if !ARROWS.iter().any(|(known, _)| *known == name) {
            wrong.push(format!(
                "crates/{name}: a crate without arrows; add it to xtask/src/tidy.rs"
            ));
        }
    }
    Ok(())
}

fn source(path: &str, wrong: &mut Vec<String>) -> anyhow::Result<()> {
    let Ok(text) = fs::read_to_string(root().join(path)) else {
        return Ok(()); // Deleted in the working tree.
    };
    if !text.starts_with("//!") && !text.starts_with("#!") {
        wrong.push(format!("{path}:1: opens without `//!`: what is it, what is it not?"));
    }
    let stem = Path::new(path).file_stem().unwrap_or_default().to_string_lossy().into_owned();
    if EMPTY_NAMES.contains(&stem.as_str()) {
        wrong.push(format!("{path}: `{stem}` names nothing"));
    }
    let code = |line: &&str| !line.trim().is_empty() && !line.trim_start().starts_with("//");
    let tests_at =
        text.lines().position(|line| line.trim() == "#[cfg(test)]").unwrap_or(usize::MAX);
    let lines = text.lines().take(tests_at).filter(code).count();
    if lines > FILE_LINES_MAX {
        wrong.push(format!("{path}: {lines} lines of code; {FILE_LINES_MAX} at most"));
    }
    let marks =
        [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X"), concat!("#[ign", "ore")];
    for (number, line) in text.lines().enumerate() {
        let number = number + 1;
        if line.chars().count() > COLUMNS_MAX {
            wrong.push(format!("{path}:{number}: longer than {COLUMNS_MAX} columns"));
        }
        if let Some(mark) = marks.iter().find(|mark| line.contains(**mark)) {
            wrong.push(format!("{path}:{number}: {mark}: finish it or write it down elsewhere"));
        }
        let in_tests = path.contains("/tests/") || number > tests_at;
        if in_tests && line.contains("sleep(") {
            wrong.push(format!("{path}:{number}: a test waits for a condition, not for a time"));
        }
    }
    Ok(())
}

fn files(wrong: &mut Vec<String>) {
    for name in PURE {
        let path = format!("crates/{name}/clippy.toml");
        if !root().join(&path).is_file() {
            wrong.push(format!(
                "{path} is missing: a pure crate bans clock, thread, file and randomness"
            ));
        }
    }
    let named = [
        "README.md",
        "ARCHITECTURE.md",
        "CONTRIBUTING.md",
        "CHANGELOG.md",
        "LICENSE-MIT",
        "LICENSE-APACHE",
        "deny.toml",
        "clippy.toml",
        "rustfmt.toml",
        ".ci/run",
    ];
    for path in named {
        if !root().join(path).is_file() {
            wrong.push(format!("{path} is missing"));
        }
    }
    let readme = fs::read_to_string(root().join("README.md")).unwrap_or_default();
    for command in ["cargo run --release -- dev", "cargo test --workspace"] {
        if !readme.contains(command) {
            wrong.push(format!("README.md does not name `{command}`"));
        }
    }
}

/// Every dependency of the workspace has its reason in deny.toml.
fn reasons(wrong: &mut Vec<String>) -> anyhow::Result<()> {
    let deny = fs::read_to_string(root().join("deny.toml")).unwrap_or_default();
    let sections = manifest("Cargo.toml")?;
    for dependency in sections.get("workspace.dependencies").into_iter().flatten() {
        if !dependency.starts_with("naust") && !deny.contains(&format!("# {dependency}:")) {
            wrong.push(format!(
                "deny.toml gives no reason for `{dependency}` (a line `# {dependency}: …`)"
            ));
        }
    }
    Ok(())
}
