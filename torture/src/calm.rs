//! Full load without a fault, for as long as one likes: nobody loses leadership.

use crate::nodes;
use anyhow::{Context as _, ensure};
use naust::process::{NodeProcess, Start};
use naust_client::{Client, Offset};
use naust_wire::frame;
use serde_json::Value;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// How long three nodes may take until all vote.
const WHOLE_MAX: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(20);

/// Loads three nodes with their defaults, four connections of 256 commits each; whether no term
/// began meanwhile.
///
/// # Errors
/// A node, or the load, fails.
pub fn run(program: &Path, root: &Path, minutes: u64) -> anyhow::Result<bool> {
    let mut all: Vec<NodeProcess> = Vec::new();
    for number in 1..=3 {
        let name = format!("n{number}");
        let mut arguments = vec!["--name".to_owned(), name.clone()];
        for node in &all {
            arguments.extend(["--join".to_owned(), node.address()]);
        }
        let errors = Some(root.join(format!("{name}.errors")));
        let (program, data) = (program.to_owned(), root.join(&name));
        all.push(NodeProcess::start(Start { program, data, arguments, errors })?);
    }
    let address = all[0].address();
    let until = Instant::now() + WHOLE_MAX;
    while !all.iter().all(|node| nodes::is_whole(program, &node.address())) {
        ensure!(Instant::now() < until, "three nodes don't become voters");
        std::thread::sleep(LOOK);
    }
    let before = term(&address)?;
    let seconds = (60 * minutes).to_string();
    let mut load = Command::new(program);
    load.args(["bench", "--json", "--address", &address, "--seconds", &seconds]);
    load.args(["--connections", "4", "--in-flight", "256"]);
    let output = load.output()?;
    let told = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "naust bench: {told}");
    let told: Value = serde_json::from_slice(&output.stdout)?;
    let terms = term(&address)? - before;
    println!("{minutes} minutes of full load: {told}");
    println!("{:<24}{terms:>10}", "terms begun");
    all.into_iter().try_for_each(NodeProcess::stop)?;
    Ok(terms == 0)
}

/// The term of a commit that is made now.
fn term(address: &str) -> anyhow::Result<u64> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let client = Client::connect([address]).await?;
        let namespace = client.namespace("default");
        let at: Offset = namespace.kv("terms").put("now", "?").await?;
        let page = namespace.log(at, 0, 0).await?;
        let frame = frame::read(&page.data).context("the frame of the commit")?;
        Ok(frame.header.term.0)
    })
}
