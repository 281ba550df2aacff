//! What doing nothing costs, and how long coming back takes.

use crate::Setting;
use crate::process::{disk_mebibytes, load, node, processor_seconds, resident_mebibytes};
use crate::table::{Table, median, verdict};
use anyhow::Context as _;
use naust_client::Client;
use naust_wire::options::NamespaceOptions;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long an idle node is watched.
const WATCH: Duration = Duration::from_secs(10);

/// Resident MiB, percent of a core and MiB on disk of a node that does nothing for a while.
pub fn watch(id: u32, data: &Path) -> anyhow::Result<(f64, f64, f64)> {
    std::thread::sleep(Duration::from_secs(2));
    let (processor, start) = (processor_seconds(id)?, Instant::now());
    std::thread::sleep(WATCH);
    let share = (processor_seconds(id)? - processor) / start.elapsed().as_secs_f64();
    Ok((resident_mebibytes(id)?, share * 100.0, disk_mebibytes(data)?))
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

/// Makes a thousand namespaces with a row each.
pub async fn fill(client: &Client) -> anyhow::Result<()> {
    for number in 0..1000 {
        let name = format!("quiet-{number}");
        client.create_namespace(&name, NamespaceOptions::default()).await?;
        client.namespace(&name).kv("k").put("key", "value").await?;
    }
    Ok(())
}

/// The table of idle nodes.
pub fn quiet(setting: &Setting) -> anyhow::Result<()> {
    let directory = setting.directory()?;
    let columns = ["what", "resident MiB", "% of a core", "disk MiB", "aim", "reached"];
    let mut table = Table::new("Idle nodes", &columns);
    let data = directory.path().join("one");
    let one = node(setting, &data, &[])?;
    let (memory, core, disk) = watch(one.id(), &data)?;
    let reached = verdict(memory <= 40.0 && core < 0.5);
    let (memory, core, disk) = (format!("{memory:.1}"), format!("{core:.2}"), format!("{disk:.1}"));
    table.row(&[&"idle node", &memory, &core, &disk, &"≤ 40 MB, < 0.5 %", &reached]);
    drop(one);
    let data = directory.path().join("thousand");
    let thousand = node(setting, &data, &[])?;
    runtime()?.block_on(async { fill(&Client::connect([thousand.address()]).await?).await })?;
    let (memory, core, disk) = watch(thousand.id(), &data)?;
    let reached = verdict(memory <= 200.0 && core < 5.0 && disk <= 200.0);
    let (memory, core, disk) = (format!("{memory:.1}"), format!("{core:.2}"), format!("{disk:.1}"));
    let aim = "≤ 200 MB, < 5 %, ≤ 200 MB";
    table.row(&[&"1,000 quiet namespaces, a row each", &memory, &core, &disk, &aim, &reached]);
    table.print();
    Ok(())
}

/// How long it takes from the start of the process to the first linearizable read, after SIGKILL
/// under load.
pub fn reopen(setting: &Setting) -> anyhow::Result<()> {
    let directory = setting.directory()?;
    let mut node = node(setting, &directory.path().join("node"), &[])?;
    let mut seconds = Vec::new();
    for round in 0..setting.rounds {
        let arguments = ["--seconds", "10", "--seed", &round.to_string()].map(str::to_owned);
        load(setting, &node, &arguments)?;
        node.kill()?;
        let start = Instant::now();
        node.restart()?;
        runtime()?.block_on(async {
            let client = Client::connect([node.address()]).await?;
            client.namespace("default").kv("bench").get("none").await.context("the first read")
        })?;
        seconds.push(start.elapsed().as_secs_f64());
    }
    let middle = median(&seconds);
    let columns = ["what", "measured", "aim", "reached"];
    let mut table = Table::new("Reopening after SIGKILL", &columns);
    let told = format!("{middle:.3} s (of {seconds:.3?})");
    let reached = verdict(middle <= 0.5);
    table.row(&[&"start to first linearizable read, 1 M keys", &told, &"≤ 0.5 s", &reached]);
    table.print();
    Ok(())
}
