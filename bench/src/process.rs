//! A node in a process of its own, and what the operating system says of it.

use crate::Setting;
use anyhow::{Context as _, bail};
use naust::process::{NodeProcess, Start};
use serde_json::Value;
use std::path::Path;
use std::process::Command;

/// Starts a node with these options (`OPTION=VALUE`).
pub fn node(setting: &Setting, data: &Path, options: &[&str]) -> anyhow::Result<NodeProcess> {
    let arguments = options.iter().flat_map(|option| ["--set".to_owned(), (*option).to_owned()]);
    NodeProcess::start(Start {
        errors: None,
        program: setting.program.clone(),
        data: data.to_owned(),
        arguments: arguments.collect(),
    })
}

/// Runs `naust bench` against it and reads what it prints.
pub fn load(setting: &Setting, node: &NodeProcess, arguments: &[String]) -> anyhow::Result<Value> {
    let output = Command::new(&setting.program)
        .args(["bench", "--json", "--address", &node.address()])
        .args(arguments)
        .output()?;
    if !output.status.success() {
        bail!("naust bench failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    let value: Value = serde_json::from_slice(&output.stdout)?;
    if let Some(errors) = value["errors"].as_object().filter(|errors| !errors.is_empty()) {
        bail!("requests failed: {errors:?}");
    }
    Ok(value)
}

/// A number of what `naust bench` printed.
pub fn number(value: &Value, name: &str) -> anyhow::Result<f64> {
    value[name].as_f64().with_context(|| format!("naust bench printed no {name}"))
}

/// Seconds of processor time that a process has used.
pub fn processor_seconds(id: u32) -> anyhow::Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat"))?;
    let fields = stat.rsplit_once(')').context("/proc has another form here")?.1;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<f64>().ok());
    let (user, system) = (ticks(11).context("no user time")?, ticks(12).context("no system time")?);
    // The clock tick of /proc is a hundredth of a second on every Linux that runs here.
    Ok((user + system) / 100.0)
}

/// Resident MiB of a process.
pub fn resident_mebibytes(id: u32) -> anyhow::Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{id}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kibibytes = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
    Ok(kibibytes.context("/proc tells no resident size")? / 1024.0)
}

/// MiB that a directory takes on disk.
pub fn disk_mebibytes(directory: &Path) -> anyhow::Result<f64> {
    use std::os::unix::fs::MetadataExt as _;
    let mut blocks = 0;
    let mut left = vec![directory.to_owned()];
    while let Some(path) = left.pop() {
        for entry in std::fs::read_dir(path)? {
            let entry = entry?;
            let meta = entry.metadata()?;
            blocks += meta.blocks();
            if meta.is_dir() {
                left.push(entry.path());
            }
        }
    }
    Ok(blocks as f64 * 512.0 / 1048576.0)
}
