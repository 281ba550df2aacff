//! What can be typed, and what comes back: 0 done, 1 not done or not found, 2 typed wrongly, 3 not
//! known whether it was done, 130 interrupted by Ctrl-C.

mod bench;
mod cluster;
mod commit;
mod compare;
mod demo;
mod dev;
mod input;
mod kv;
mod lines;
mod load;
mod log;
mod namespace;
mod ordeal;
mod output;
mod serve;
mod stream;

use anyhow::Context as _;
use clap::{ArgMatches, Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use naust_client::{Client, Error, Namespace, Outcome};
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

/// What was typed makes no sense; told where it is found out.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Mistyped(String);

/// Exit status of a command that was not done, or did not find what it looked for.
const FAILED_EXIT: u8 = 1;
/// Exit status of a command that was typed wrongly, as clap has it.
const MISTYPED_EXIT: u8 = 2;
/// Exit status of a command that may have been done, or not: who runs it again without looking may
/// do it twice.
const UNKNOWN_EXIT: u8 = 3;
/// Exit status of a command that Ctrl-C ended, as shells tell it.
const INTERRUPTED_EXIT: i32 = 130;

/// Runs the command that was typed.
pub fn run() -> ExitCode {
    let matches = Naust::command().get_matches();
    let json = asks_for_json(&matches);
    let naust = Naust::from_arg_matches(&matches).unwrap_or_else(|error| {
        error.format(&mut Naust::command()).exit();
    });
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
            eprintln!("{}", failure(&error, json));
            ExitCode::from(status_of(&error))
        }
    }
}

/// Whether the command that was typed, or one that it is part of, is to print JSON.
fn asks_for_json(matches: &ArgMatches) -> bool {
    matches!(matches.try_get_one::<bool>("json"), Ok(Some(true)))
        || matches.subcommand().is_some_and(|(_, inner)| asks_for_json(inner))
}

/// The error of the client that is at the bottom of it, if there is one.
fn cause_of(error: &anyhow::Error) -> Option<&Error> {
    error.chain().find_map(|cause| cause.downcast_ref())
}

fn is_unknown(error: &anyhow::Error) -> bool {
    cause_of(error).is_some_and(|cause| cause.outcome == Outcome::Unknown)
}

fn status_of(error: &anyhow::Error) -> u8 {
    match error.is::<Mistyped>() {
        true => MISTYPED_EXIT,
        false if is_unknown(error) => UNKNOWN_EXIT,
        false => FAILED_EXIT,
    }
}

/// What went wrong, and what became of the command.
fn failure(error: &anyhow::Error, json: bool) -> String {
    let sentence = told(error);
    if json {
        let outcome = if is_unknown(error) { "unknown" } else { "not_done" };
        let code = cause_of(error).map(|cause| cause.code.name());
        let detail = code.and_then(|code| sentence.strip_prefix(code)?.strip_prefix(": "));
        let detail = detail.unwrap_or(&sentence);
        let mut object = serde_json::Map::new();
        object.insert("code".to_owned(), code.into());
        object.insert("outcome".to_owned(), outcome.into());
        object.insert("detail".to_owned(), detail.into());
        if let Some(some) = error.downcast_ref::<kv::RemovedSome>() {
            object.insert("deleted".to_owned(), some.deleted.into());
            output::put_bytes(&mut object, "from", &some.from);
        }
        return serde_json::Value::from(object).to_string();
    }
    match is_unknown(error) {
        true => {
            format!("naust: {sentence}; it may have been done, or not: look before you do it again")
        }
        false => format!("naust: {sentence}"),
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

#[cfg(test)]
mod tests {
    use super::*;
    use naust_client::Code;

    /// Why: a script that runs a command again after it failed has to know whether it may have been
    /// done all the same.
    #[test]
    fn what_became_of_a_command_is_told() {
        let of = |error: Error| anyhow::Error::from(error);
        let table = [
            (of(Error::new(Code::TimedOut, "no reply")), UNKNOWN_EXIT, "unknown"),
            (of(Error::new(Code::DiskFull, "full")), FAILED_EXIT, "not_done"),
            (of(Error::new(Code::TimedOut, "no reply")).context("x"), UNKNOWN_EXIT, "unknown"),
            (Mistyped("--put".to_owned()).into(), MISTYPED_EXIT, "not_done"),
            (anyhow::anyhow!("no"), FAILED_EXIT, "not_done"),
        ];
        for (error, status, outcome) in table {
            assert_eq!(status_of(&error), status, "{error:?}");
            let object: serde_json::Value = serde_json::from_str(&failure(&error, true)).unwrap();
            assert_eq!(object["outcome"], outcome, "{error:?}");
            assert_eq!(failure(&error, false).contains("may have been done"), outcome == "unknown");
        }
    }

    #[test]
    fn a_range_of_which_some_was_removed_says_so() {
        for (code, status) in [(Code::DiskFull, FAILED_EXIT), (Code::TimedOut, UNKNOWN_EXIT)] {
            let some = |from: &[u8]| {
                let source = Error::new(code, "a test");
                anyhow::Error::from(kv::RemovedSome { deleted: 10_000, from: from.into(), source })
            };
            assert_eq!(status_of(&some(b"k7")), status);
            let told = failure(&some(b"k7"), false);
            assert!(told.contains("10000 rows were removed"), "{told}");
            assert!(told.contains("go on from k7: ") && told.contains(": a test"), "{told}");
            let object = |from| -> serde_json::Value {
                serde_json::from_str(&failure(&some(from), true)).unwrap()
            };
            let told = object(b"k7");
            assert_eq!((&told["deleted"], &told["from"]), (&10_000.into(), &"k7".into()));
            assert_eq!(told["code"], code.name());
            assert_eq!(object(b"\xff")["from_base64"], "/w==");
        }
    }

    #[test]
    fn json_is_asked_for_of_any_command() {
        let asks = |words: &[&str]| {
            let typed = ["naust"].iter().chain(words);
            asks_for_json(&Naust::command().try_get_matches_from(typed).unwrap())
        };
        assert!(
            asks(&["kv", "get", "k", "a", "--json"]) && asks(&["kv", "--json", "get", "k", "a"])
        );
        assert!(asks(&["cluster", "transfer", "default", "n", "--json"]));
        assert!(asks(&["log", "verify", "--json"]) && asks(&["bench", "--json"]));
        assert!(!asks(&["kv", "get", "k", "json"]) && !asks(&["dev"]));
    }
}
