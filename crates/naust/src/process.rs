//! A node in a process of its own, to be killed: for the demo, for measurements and for tests.

use anyhow::{Context as _, bail};
use rustix::process::Signal;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

/// What a node counted since it started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Syncs of log files.
    pub syncs: u64,
    /// Bytes written to log files.
    pub bytes: u64,
}

impl Counters {
    /// Adds another life's counts.
    pub fn add(&mut self, other: &Counters) {
        self.syncs += other.syncs;
        self.bytes += other.bytes;
    }
}

/// How a node is started.
#[derive(Clone, Debug)]
pub struct Start {
    /// The program: `naust`.
    pub program: PathBuf,
    /// The data directory. A node on a new one begins a cluster, unless it is told to join one.
    pub data: PathBuf,
    /// More arguments of `naust serve`.
    pub arguments: Vec<String>,
    /// Where its standard error goes; none: to this process's own.
    pub errors: Option<PathBuf>,
}

/// The process, with two free loopback ports that it keeps over restarts. Dropping it kills it.
pub struct NodeProcess {
    start: Start,
    process: Child,
    /// Held open: a node that can't print would fail.
    _output: BufReader<ChildStdout>,
    native: u16,
    http: u16,
}

impl NodeProcess {
    /// Starts a node and waits until it is ready.
    ///
    /// # Errors
    /// It can't be started, or ends before it is ready; what is wrong stands on its standard error.
    pub fn start(start: Start) -> anyhow::Result<NodeProcess> {
        NodeProcess::start_on(start, free_port()?)
    }

    /// The same, on this native port.
    ///
    /// # Errors
    /// As [`NodeProcess::start`].
    pub fn start_on(start: Start, native: u16) -> anyhow::Result<NodeProcess> {
        let http = free_port()?;
        let (process, _output) = spawn(&start, native, http)?;
        Ok(NodeProcess { start, process, _output, native, http })
    }

    /// Where native clients connect.
    #[must_use]
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.native)
    }

    /// Where HTTP clients connect.
    #[must_use]
    pub fn http_address(&self) -> String {
        format!("127.0.0.1:{}", self.http)
    }

    /// The process's number.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// SIGSTOP: it stands still, and its sockets stay open.
    ///
    /// # Errors
    /// Of the operating system.
    pub fn pause(&self) -> anyhow::Result<()> {
        self.signal(Signal::STOP)
    }

    /// SIGCONT: it goes on.
    ///
    /// # Errors
    /// Of the operating system.
    pub fn resume(&self) -> anyhow::Result<()> {
        self.signal(Signal::CONT)
    }

    fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let id = i32::try_from(self.process.id()).ok().and_then(rustix::process::Pid::from_raw);
        let id = id.context("a process has a number")?;
        Ok(rustix::process::kill_process(id, signal)?)
    }

    /// Whether it has ended by itself.
    ///
    /// # Errors
    /// Of the operating system.
    pub fn has_ended(&mut self) -> anyhow::Result<bool> {
        Ok(self.process.try_wait()?.is_some())
    }

    /// SIGKILL, and waits for the end.
    ///
    /// # Errors
    /// Of the operating system.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.process.kill()?;
        self.process.wait()?;
        Ok(())
    }

    /// A new process on the same data at the same ports, after the old one has ended.
    ///
    /// # Errors
    /// As [`NodeProcess::start`].
    pub fn restart(&mut self) -> anyhow::Result<()> {
        (self.process, self._output) = spawn(&self.start, self.native, self.http)?;
        Ok(())
    }

    /// The node's `/metrics`.
    ///
    /// # Errors
    /// It does not answer.
    pub fn metrics(&self) -> anyhow::Result<String> {
        let mut socket = TcpStream::connect(("127.0.0.1", self.http))?;
        socket.set_read_timeout(Some(Duration::from_secs(10)))?;
        socket.write_all(b"GET /metrics HTTP/1.1\r\nHost: naust\r\nConnection: close\r\n\r\n")?;
        let mut text = String::new();
        socket.read_to_string(&mut text)?;
        Ok(text)
    }

    /// What the metrics say of the logs.
    ///
    /// # Errors
    /// As [`NodeProcess::metrics`].
    pub fn counters(&self) -> anyhow::Result<Counters> {
        let text = self.metrics()?;
        let value = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            let number = line.and_then(|number| number.trim().parse().ok());
            number.with_context(|| format!("the node's metrics have no {name}"))
        };
        Ok(Counters {
            syncs: value("naust_log_syncs_total")?,
            bytes: value("naust_log_written_bytes_total")?,
        })
    }

    /// SIGTERM, and waits for a clean end.
    ///
    /// # Errors
    /// It ends with another status than success.
    pub fn stop(mut self) -> anyhow::Result<()> {
        self.terminate()
    }

    /// The same, for a node that is started again.
    ///
    /// # Errors
    /// As [`NodeProcess::stop`].
    pub fn terminate(&mut self) -> anyhow::Result<()> {
        self.signal(Signal::TERM)?;
        let status = self.process.wait()?;
        if !status.success() {
            bail!("the node ended with {status}");
        }
        Ok(())
    }
}

impl Drop for NodeProcess {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn spawn(start: &Start, native: u16, http: u16) -> anyhow::Result<(Child, BufReader<ChildStdout>)> {
    let errors = match &start.errors {
        Some(path) => File::options().create(true).append(true).open(path)?.into(),
        None => Stdio::inherit(),
    };
    let mut process = Command::new(&start.program)
        .arg("serve")
        .arg("--data")
        .arg(&start.data)
        .args(["--listen", &format!("127.0.0.1:{native}")])
        .args(["--http", &format!("127.0.0.1:{http}")])
        .args(&start.arguments)
        .args(begins_cluster(start).then_some("--bootstrap"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(errors)
        .spawn()
        .with_context(|| format!("{} can't be started", start.program.display()))?;
    let output = process.stdout.take().context("the output was piped")?;
    let mut output = BufReader::new(output);
    let mut line = String::new();
    while output.read_line(&mut line)? > 0 {
        if line == "naust: ready\n" {
            return Ok((process, output));
        }
        line.clear();
    }
    let status = process.wait()?;
    bail!("the node did not get ready: {status}")
}

fn begins_cluster(start: &Start) -> bool {
    let is_told = |argument: &String| argument == "--join" || argument == "--bootstrap";
    !start.data.join("NODE").exists() && !start.arguments.iter().any(is_told)
}

/// A loopback port that nobody uses.
///
/// # Errors
/// Of the operating system.
pub fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
