//! NATS JetStream as a peer: three servers of whatever version is installed, a stream with three
//! replicas on file storage, asked by way of its leader, in its own text protocol.
//!
//! The servers run with their defaults, but for what makes them a cluster: then an acknowledged
//! message of theirs is in the page caches of two machines, one of ours on two disks. Versions from
//! 2.10 on can be told to sync each message, which is measured beside that.

use anyhow::{Context as _, bail, ensure};
use naust::process::free_port;
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The program, as Debian's package installs it.
const PROGRAM: &str = "nats-server";
const NAMES: [&str; 3] = ["p1", "p2", "p3"];
/// How long the servers may take to agree on leaders.
const START_TIME_MAX: Duration = Duration::from_secs(60);
/// How long a reply may take.
const REPLY_TIME_MAX: Duration = Duration::from_secs(30);
/// What a put of the other rows carries: a key of 16 bytes and a value of 128.
const MESSAGE_BYTES: usize = 16 + 128;
/// Subject of the messages, and of the replies to a connection.
const SUBJECT: &str = "bench";
const INBOX: &str = "_INBOX.bench";

/// The version that is installed, if one is.
pub fn version() -> Option<String> {
    let output = Command::new(PROGRAM).arg("--version").output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Some(text.trim().rsplit_once('v')?.1.to_owned())
}

/// When the servers sync what they acknowledge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Syncs {
    /// Every two minutes.
    Default,
    /// Before they acknowledge it.
    Always,
}

impl Syncs {
    /// What a version can be told.
    pub fn of(version: &str) -> &'static [Syncs] {
        let mut numbers = version.split('.').map(|number| number.parse().unwrap_or(0));
        let (major, minor) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
        match (major, minor) >= (2, 10) {
            true => &[Syncs::Default, Syncs::Always],
            false => &[Syncs::Default],
        }
    }
}

/// Three servers. Dropping them kills them.
pub struct Servers {
    processes: Vec<Child>,
    /// Of the stream's leader.
    leader_port: u16,
}

/// What a load came to.
pub struct Measured {
    pub per_second: f64,
    pub p50_us: f64,
    pub p99_us: f64,
}

impl Servers {
    /// Starts them with a stream, and waits until it has a leader.
    pub fn start(directory: &Path, syncs: Syncs) -> anyhow::Result<Servers> {
        let ports: Vec<(u16, u16)> = NAMES
            .iter()
            .map(|_| Ok((free_port()?, free_port()?)))
            .collect::<anyhow::Result<_>>()?;
        let routes: Vec<String> =
            ports.iter().map(|(_, route)| format!("nats://127.0.0.1:{route}")).collect();
        let mut servers = Servers { processes: Vec::new(), leader_port: 0 };
        for (name, (client, route)) in NAMES.iter().zip(&ports) {
            let own = directory.join(name);
            std::fs::create_dir_all(&own)?;
            let mut stream = json!({ "store_dir": own });
            if syncs == Syncs::Always {
                stream["sync_interval"] = json!("always");
            }
            let config = json!({
                "server_name": name,
                "listen": format!("127.0.0.1:{client}"),
                "jetstream": stream,
                "cluster": {
                    "name": "bench",
                    "listen": format!("127.0.0.1:{route}"),
                    "routes": routes,
                },
            });
            let path = own.join("nats.conf");
            std::fs::write(&path, config.to_string())?;
            let errors = File::create(own.join("errors"))?;
            let process = Command::new(PROGRAM)
                .arg("--config")
                .arg(&path)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(errors)
                .spawn()?;
            servers.processes.push(process);
        }
        let leader = make_stream(ports[0].0)?;
        let place = NAMES.iter().position(|name| *name == leader);
        servers.leader_port = ports[place.context("the leader is none of the servers")?].0;
        Ok(servers)
    }

    /// Publishes for a second, then for `time`, from as many threads as connections.
    pub fn load(
        &self,
        connections: usize,
        in_flight: usize,
        time: Duration,
    ) -> anyhow::Result<Measured> {
        let from = Instant::now() + Duration::from_secs(1);
        let port = self.leader_port;
        let loads: Vec<_> = (0..connections)
            .map(|number| {
                std::thread::spawn(move || publish(port, number, in_flight, (from, from + time)))
            })
            .collect();
        let mut latencies = Vec::new();
        for load in loads {
            latencies.extend(load.join().ok().context("a load ended in a bug")??);
        }
        ensure!(!latencies.is_empty(), "no message was acknowledged");
        latencies.sort_unstable_by(f64::total_cmp);
        let at = |part: f64| latencies[((latencies.len() - 1) as f64 * part) as usize];
        Ok(Measured {
            per_second: latencies.len() as f64 / time.as_secs_f64(),
            p50_us: at(0.5),
            p99_us: at(0.99),
        })
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        for process in &mut self.processes {
            // Both fail only when it has ended already.
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

/// Makes the stream once the servers are ready for it; the name of its leader.
fn make_stream(port: u16) -> anyhow::Result<String> {
    let until = Instant::now() + START_TIME_MAX;
    let stream = json!({
        "name": SUBJECT, "subjects": [SUBJECT], "storage": "file", "num_replicas": 3,
        "retention": "limits",
    });
    loop {
        let made = Connection::open(port, 0).and_then(|mut connection| {
            connection.ask("$JS.API.STREAM.CREATE.bench", &stream)?;
            let info = connection.ask("$JS.API.STREAM.INFO.bench", &Value::Null)?;
            let cluster = &info["cluster"];
            let current = cluster["replicas"].as_array().is_some_and(|replicas| {
                replicas.len() == 2 && replicas.iter().all(|replica| replica["current"] == true)
            });
            let leader = cluster["leader"].as_str().filter(|_| current);
            leader.map(str::to_owned).context("no leader with two current replicas yet")
        });
        match made {
            Ok(leader) => return Ok(leader),
            Err(error) if Instant::now() > until => return Err(error),
            Err(_) => std::thread::sleep(Duration::from_millis(100)),
        }
    }
}

/// Keeps `in_flight` messages under way; microseconds to the acknowledgement of each that was sent
/// and acknowledged between two moments.
fn publish(
    port: u16,
    number: usize,
    in_flight: usize,
    (from, to): (Instant, Instant),
) -> anyhow::Result<Vec<f64>> {
    let mut connection = Connection::open(port, number)?;
    let mut latencies = Vec::new();
    let mut pending = VecDeque::new();
    let mut message = format!("PUB {SUBJECT} {INBOX}.{number} {MESSAGE_BYTES}\r\n").into_bytes();
    message.extend((0..MESSAGE_BYTES).map(|place| (place * 89 + number * 7) as u8));
    message.extend(b"\r\n");
    let mut free = in_flight;
    let mut out = Vec::new();
    loop {
        let now = Instant::now();
        if now >= to {
            return Ok(latencies);
        }
        out.clear();
        for _ in 0..std::mem::take(&mut free) {
            out.extend_from_slice(&message);
            pending.push_back(now);
        }
        connection.socket.write_all(&out)?;
        for reply in connection.replies()? {
            // One stream, one leader, one connection: they come in order.
            let sent: Instant = pending.pop_front().context("a reply to nothing")?;
            ensure!(!reply.contains("\"error\""), "a message was refused: {reply}");
            let now = Instant::now();
            if sent >= from && now < to {
                latencies.push((now - sent).as_secs_f64() * 1e6);
            }
            free += 1;
        }
    }
}

struct Connection {
    socket: TcpStream,
    number: usize,
    input: Vec<u8>,
}

impl Connection {
    fn open(port: u16, number: usize) -> anyhow::Result<Connection> {
        let mut socket = TcpStream::connect(("127.0.0.1", port))?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(REPLY_TIME_MAX))?;
        let hello = json!({ "verbose": false, "pedantic": false, "lang": "rust", "version": "1" });
        write!(socket, "CONNECT {hello}\r\nSUB {INBOX}.{number} 1\r\n")?;
        Ok(Connection { socket, number, input: Vec::new() })
    }

    fn ask(&mut self, subject: &str, body: &Value) -> anyhow::Result<Value> {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let Connection { socket, number, .. } = self;
        write!(socket, "PUB {subject} {INBOX}.{number} {}\r\n{body}\r\n", body.len())?;
        loop {
            if let Some(reply) = self.replies()?.pop() {
                let reply: Value = serde_json::from_str(&reply)?;
                ensure!(reply["error"].is_null(), "{subject}: {}", reply["error"]);
                return Ok(reply);
            }
        }
    }

    /// Reads once; the messages that came with it.
    fn replies(&mut self) -> anyhow::Result<Vec<String>> {
        let mut buffer = [0; 64 * 1024];
        let bytes = self.socket.read(&mut buffer)?;
        ensure!(bytes > 0, "the server closed the connection");
        self.input.extend_from_slice(&buffer[..bytes]);
        let mut replies = Vec::new();
        let mut at = 0;
        while let Some(length) = self.input[at..].windows(2).position(|two| two == b"\r\n") {
            let line = std::str::from_utf8(&self.input[at..at + length])?;
            let body_at = at + length + 2;
            if let Some(rest) = line.strip_prefix("MSG ") {
                let size: usize = rest.rsplit(' ').next().context("a size")?.parse()?;
                let Some(body) = self.input.get(body_at..body_at + size + 2) else { break };
                replies.push(String::from_utf8_lossy(&body[..size]).into_owned());
                at = body_at + size + 2;
                continue;
            }
            if line == "PING" {
                self.socket.write_all(b"PONG\r\n")?;
            } else if line.starts_with("-ERR") {
                bail!("the server says {line}");
            }
            at = body_at;
        }
        self.input.drain(..at);
        Ok(replies)
    }
}
