//! What can be typed, and what comes back: 0 done, 1 not done or not found, 2 typed wrongly, 130
//! interrupted by Ctrl-C.

mod bench;
mod cluster;
mod commit;
mod compare;
mod demo;
mod dev;
mod input;
mod kv;
mod load;
mod log;
mod namespace;
mod ordeal;
mod output;
mod serve;
mod stream;

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};
use naust_client::{Client, Namespace};
use std::future::Future;
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};

/// One log, one commit: key-value tables, streams and exactly-once commits from one ordered log.
#[derive(Parser)]
#[command(name = "naust", version, about, long_about = None, propagate_version = true)]
struct Naust {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start a node or a cluster for development on this machine and print what to type next.
    Dev(dev::Dev),
    /// Run a node.
    Serve(Box<serve::Serve>),
    /// Load real input while the node is killed, and prove that nothing acknowledged was lost.
    Demo(demo::Demo),
    /// Read and write rows.
    Kv(kv::Kv),
    /// Append and read records, and move cursors.
    Stream(stream::Stream),
    /// Put, append and move, all in one commit.
    Commit(commit::Commit),
    /// Make, list and remove namespaces.
    Namespace(namespace::Command),
    /// Look at the cluster, and have nodes come and go.
    Cluster(cluster::Cluster),
    /// Look into a data directory, offline, or compare the replicas of a cluster.
    Log(log::Log),
    /// Measure a running node.
    Bench(bench::Bench),
}

/// Where the node is, and how to print.
#[derive(Args, Clone)]
struct At {
    /// The node's native address.
    #[arg(long, global = true, env = "NAUST_ADDRESS", default_value = "127.0.0.1:7420")]
    address: String,
    /// The namespace.
    #[arg(long, global = true, env = "NAUST_NAMESPACE", default_value = "default")]
    namespace: String,
    /// Print JSON, one object a line.
    #[arg(long, global = true)]
    json: bool,
}

/// Which cluster, for what concerns all of it.
#[derive(Args)]
struct AtCluster {
    /// The native address of any node.
    #[arg(long, global = true, env = "NAUST_ADDRESS", default_value = "127.0.0.1:7420")]
    address: String,
    /// Print JSON, one object a line.
    #[arg(long, global = true)]
    json: bool,
}

impl AtCluster {
    async fn client(&self) -> anyhow::Result<Client> {
        connect(&self.address).await
    }
}

async fn connect(address: &str) -> anyhow::Result<Client> {
    Client::connect([address])
        .await
        .with_context(|| format!("no node answers at {address}; start one with `naust dev`"))
}

impl At {
    async fn client(&self) -> anyhow::Result<Client> {
        connect(&self.address).await
    }

    async fn namespace(&self) -> anyhow::Result<Namespace> {
        Ok(self.client().await?.namespace(&self.namespace))
    }
}

/// Something was looked for and is not there; printed already, so only the exit status is left to
/// say it.
#[derive(Debug, thiserror::Error)]
#[error("not found")]
struct NotFound;

/// Exit status of a command that Ctrl-C ended, as shells tell it.
const INTERRUPTED_EXIT: i32 = 130;

/// Runs the command that was typed.
pub fn run() -> ExitCode {
    let naust = Naust::parse();
    let ready = match naust.command {
        Command::Dev(_) | Command::Serve(_) => Ok(()),
        _ => end_when_interrupted(),
    };
    let result = ready.and_then(|()| match naust.command {
        Command::Dev(dev) => dev.run(),
        Command::Serve(serve) => serve.run(),
        Command::Demo(demo) => demo.run(),
        Command::Kv(kv) => block_on(kv.run()),
        Command::Stream(stream) => block_on(stream.run()),
        Command::Commit(commit) => block_on(commit.run()),
        Command::Namespace(command) => block_on(command.run()),
        Command::Cluster(command) => block_on(command.run()),
        Command::Log(log) => log.run(),
        Command::Bench(bench) => bench.run(),
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is::<NotFound>() => ExitCode::FAILURE,
        Err(error) if output::is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("naust: {}", told(&error));
            ExitCode::FAILURE
        }
    }
}

/// Ctrl-C ends a command at once, with a sentence: nothing waits for its orderly end, as it does
/// for that of a node.
fn end_when_interrupted() -> anyhow::Result<()> {
    let runtime = runtime()?;
    let mut interrupt = {
        let _entered = runtime.enter();
        signal(SignalKind::interrupt()).context("Ctrl-C can't be waited for")?
    };
    let wait = move || {
        if runtime.block_on(interrupt.recv()).is_some() {
            eprintln!("naust: interrupted");
            std::process::exit(INTERRUPTED_EXIT);
        }
    };
    let thread = std::thread::Builder::new().name("interrupts".to_owned());
    thread.spawn(wait).context("a thread can't be started")?;
    Ok(())
}

/// The error and its causes; a cause that stands in the sentence before it already is not repeated.
fn told(error: &anyhow::Error) -> String {
    let mut sentence = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !sentence.contains(&cause) {
            sentence = format!("{sentence}: {cause}");
        }
    }
    sentence
}

fn block_on(command: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    runtime()?.block_on(command)
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.context("the asynchronous runtime can't be started")
}
