//! Nodes in temporary directories, their ends, and waiting for conditions.

use naust::process::{NodeProcess, Start};
use naust_client::{Client, Options};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Only a broken node takes so long for anything.
pub const DEADLINE: Duration = Duration::from_secs(40);
/// The program under test.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_naust");
/// Options that make tables small, so that even short stories flush and compact.
pub const SMALL_TABLES: [&str; 2] = ["--set", "memtable_bytes=1048576"];

/// A running node, and the directory that is removed with it.
pub struct Node {
    pub process: NodeProcess,
    pub data: PathBuf,
    _directory: Option<TempDir>,
}

impl Node {
    /// A node on a new directory.
    pub fn start(arguments: &[&str]) -> Node {
        let directory = tempfile::tempdir().unwrap();
        let mut node = Node::open(&directory.path().join("data"), arguments);
        node._directory = Some(directory);
        node
    }

    /// A node on a directory that the caller keeps.
    pub fn open(data: &Path, arguments: &[&str]) -> Node {
        let arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        let start =
            Start { program: PROGRAM.into(), data: data.to_owned(), arguments, errors: None };
        let process = NodeProcess::start(start).unwrap();
        Node { process, data: data.to_owned(), _directory: None }
    }

    pub fn address(&self) -> String {
        self.process.address()
    }

    pub fn http(&self) -> String {
        self.process.http_address()
    }

    pub fn kill_and_restart(&mut self) {
        self.process.kill().unwrap();
        self.process.restart().unwrap();
    }

    /// `naust …` with this node's address.
    pub fn naust(&self, arguments: &[&str]) -> Output {
        let mut command = naust(arguments);
        command.env("NAUST_ADDRESS", self.address()).stdin(Stdio::null()).output().unwrap()
    }

    /// Memory of the node's process, in bytes.
    pub fn resident_bytes(&self) -> u64 {
        let path = format!("/proc/{}/status", self.process.id());
        let status = std::fs::read_to_string(path).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        let kibibytes: u64 = line.trim().trim_end_matches(" kB").parse().unwrap();
        kibibytes * 1024
    }
}

/// The program with arguments, and nothing of the caller's environment that configures it.
pub fn naust(arguments: &[&str]) -> Command {
    let mut command = Command::new(PROGRAM);
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("NAUST_")) {
        command.env_remove(name);
    }
    command.args(arguments);
    command
}

/// A process that does not outlive its story, however that ends.
pub struct Killed(pub Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What became of a process that was started as a node.
pub enum Started {
    /// It serves.
    Ready(Ready),
    /// It ended, with what it wrote to standard error.
    Ended(ExitStatus, String),
}

/// A node that serves; killed when dropped.
pub struct Ready {
    child: Killed,
    /// Held open, so that the node can print.
    _output: BufReader<std::process::ChildStdout>,
    errors: PathBuf,
    pub address: String,
    pub http: String,
}

impl Ready {
    /// What it wrote to standard error so far.
    pub fn errors(&self) -> String {
        std::fs::read_to_string(&self.errors).unwrap()
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        send_signal(self.child.0.id(), signal);
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> ExitStatus {
        let mut status = None;
        wait_until("the node to end", || {
            status = self.child.0.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }

    /// Whether it has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        self.child.0.try_wait().unwrap().is_some()
    }
}

/// Starts a node on any free ports, and waits until it serves or ends. `scratch` holds its errors.
/// On a new directory it begins a cluster, unless it is told otherwise.
pub fn try_start(data: &Path, scratch: &Path, arguments: &[&str]) -> Started {
    let is_told = arguments.iter().any(|one| ["--join", "--bootstrap"].contains(one));
    let mut command = serve(data, arguments);
    command.args((!is_told && !data.join("NODE").exists()).then_some("--bootstrap"));
    try_command(command, scratch)
}

/// `naust serve` on any free ports.
pub fn serve(data: &Path, arguments: &[&str]) -> Command {
    let mut command = naust(&["serve", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"]);
    command.arg("--data").arg(data).args(arguments);
    command
}

/// The same for any command that becomes a node.
pub fn try_command(mut command: Command, scratch: &Path) -> Started {
    static COUNT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
    let number = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let errors = scratch.join(format!("stderr-{number}"));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(File::create(&errors).unwrap());
    let mut child = command.spawn().unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let (mut address, mut http) = (String::new(), String::new());
    let mut line = String::new();
    while output.read_line(&mut line).unwrap() > 0 {
        if let Some(rest) = line.trim_end().strip_prefix("naust: native clients: ") {
            address = rest.to_owned();
        } else if let Some(rest) = line.trim_end().strip_prefix("naust: HTTP: http://") {
            http = rest.to_owned();
        } else if line == "naust: ready\n" {
            return Started::Ready(Ready {
                child: Killed(child),
                _output: output,
                errors,
                address,
                http,
            });
        }
        line.clear();
    }
    let status = child.wait().unwrap();
    Started::Ended(status, std::fs::read_to_string(&errors).unwrap())
}

/// One clear sentence on standard error and exit status 1: no panic, no backtrace.
pub fn assert_refused(started: Started, expected: &[&str]) -> String {
    let Started::Ended(status, errors) = started else { panic!("the node started") };
    assert_eq!(status.code(), Some(1), "{errors}");
    assert_eq!(errors.lines().count(), 1, "more than one sentence: {errors}");
    assert!(errors.starts_with("naust: "), "{errors}");
    assert!(!errors.contains("panicked"), "{errors}");
    for part in expected {
        assert!(errors.contains(part), "{errors:?} does not say {part:?}");
    }
    errors
}

pub fn send_signal(process: u32, signal: rustix::process::Signal) {
    let id = rustix::process::Pid::from_raw(i32::try_from(process).unwrap()).unwrap();
    // It may have ended already.
    let _ = rustix::process::kill_process(id, signal);
}

/// Waits for a condition; fails at the deadline.
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < DEADLINE, "waited in vain for {what}");
        std::thread::park_timeout(Duration::from_millis(1));
    }
}

/// Spoils bytes among the rows of all tables in a directory that are longer than so many bytes; how
/// many bytes those have. What stands around the rows is needed to open them.
pub fn spoil_tables(tables: &Path, longer_than: usize) -> usize {
    let mut spoilt = 0;
    for entry in std::fs::read_dir(tables).unwrap() {
        let path = entry.unwrap().path();
        let mut bytes = std::fs::read(&path).unwrap();
        if bytes.len() > longer_than {
            let rows = bytes.len() * 3 / 4;
            bytes[..rows].iter_mut().step_by(512).for_each(|byte| *byte ^= 0x10);
            std::fs::write(&path, &bytes).unwrap();
            spoilt += bytes.len();
        }
    }
    spoilt
}

/// Runs a future on a runtime of its own.
pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(future)
}

pub async fn connect(address: &str) -> Client {
    let options = Options { stays: true, ..Options::default() };
    Client::connect_with([address], options).await.unwrap()
}

/// Says on standard error, past the test's capture, that a story was not played.
#[allow(clippy::explicit_write, reason = "the test's capture takes what `eprintln` prints")]
pub fn skip(story: &str, why: &str) {
    use std::io::Write as _;
    writeln!(std::io::stderr(), "SKIPPED {story}: {why}").unwrap();
}

/// Randomness for stories (splitmix64). The seed is printed, so a failure tells it.
pub struct Draw(u64);

impl Draw {
    pub fn new(seed: u64) -> Draw {
        println!("seed {seed}");
        Draw(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}
