//! A node as a process of its own: sockets for clients, signals for operators.

use crate::config::Config;
use crate::data::DataDirectory;
use crate::embed::{self, Naust, NaustError, TABLE_FILES_MAX};
use crate::join::JoinError;
use crate::life::Life;
use crate::links::LateBell;
use naust_client::{Client, Notify as Bell, OnOverload, Options};
use naust_gateway::{Gateway, Hooks};
use naust_wire::limits::{HTTP_ANSWER_MS_MAX, HTTP_CONNECTIONS_MAX, HTTP_RESERVE_MAX};
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock, Weak};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Notify;
use tokio::task::spawn_blocking;

/// Exit status of a process that was told twice to end: that of one ended by SIGINT.
const IMPATIENT_EXIT: i32 = 130;
/// Open files that connections leave to HTTP, tables, and to logs, links and listeners. A log that
/// can't be opened stops the node; a client that is refused comes again.
const FILES_KEPT: u64 = (HTTP_CONNECTIONS_MAX + HTTP_RESERVE_MAX + TABLE_FILES_MAX + 512) as u64;

/// What is told once a node serves.
#[derive(Clone, Debug)]
pub struct Running {
    /// The node's name.
    pub name: String,
    /// Its data directory.
    pub data: PathBuf,
    /// Where native clients connect.
    pub native: Option<SocketAddr>,
    /// Where HTTP clients connect.
    pub http: Option<SocketAddr>,
}

/// Runs a node until a signal ends it, also before it serves. `ready` is called once it serves. An
/// empty data directory needs to be told whether it begins a cluster or joins one: it may be what
/// is left of a node's when its disk is missing. Blocking.
///
/// # Errors
/// [`NaustError`] when it can't start or go on.
pub fn serve(config: Config, ready: &mut dyn FnMut(&Running)) -> Result<(), NaustError> {
    let is_told = config.bootstrap || !config.join.is_empty();
    if !DataDirectory::has_node(&config.data)? && !is_told {
        return Err(JoinError::NotTold { path: config.data }.into());
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut signals = Signals::new()?;
        let life = Arc::new(Life::default());
        let starting = Arc::clone(&life);
        let mut opening = spawn_blocking(move || Server::open_in(config, starting));
        let opened = tokio::select! {
            opened = &mut opening => opened,
            () = signals.next() => {
                life.give_up();
                let opened = signals.or_exit(opening).await;
                return match opened.map_err(bug)? {
                    Ok(server) => signals.or_exit(close_all(vec![server])).await,
                    Err(NaustError::GivenUp) => Ok(()),
                    Err(error) => Err(error),
                };
            }
        };
        let server = opened.map_err(bug)??;
        ready(&server.running());
        run_until(signals, vec![server]).await
    })
}

/// A node that listens.
pub struct Server {
    naust: Arc<Naust>,
    gateway: Option<Gateway>,
}

impl Server {
    /// Starts a node and its listeners. Blocking.
    ///
    /// # Errors
    /// [`NaustError`]; nothing is left running.
    pub fn open(config: Config) -> Result<Server, NaustError> {
        Server::open_in(config, Arc::default())
    }

    /// The same. HTTP is answered from the start: whoever watches a node is told why it does not
    /// serve yet.
    fn open_in(mut config: Config, life: Arc<Life>) -> Result<Server, NaustError> {
        let wanted = config.connections_max;
        config.connections_max = connections_for(raise_file_limit(), wanted);
        if config.connections_max < wanted {
            eprintln!(
                "naust: this process may have so few open files that it takes {} connections, and \
                 not {wanted} (connections_max): raise the limit (ulimit -Hn)",
                config.connections_max
            );
        }
        // Before any data is touched: a port in use leaves everything as it was.
        let listener = config.http_address()?.map(embed::listen).transpose()?;
        let bell = Arc::new(LateBell::default());
        let options = Options {
            on_overload: OnOverload::Refuse,
            timeout_ms: HTTP_ANSWER_MS_MAX,
            ..Options::default()
        };
        let (client, link) = Client::over(Arc::clone(&bell) as Arc<dyn Bell>, options);
        let node = Arc::new(OnceLock::new());
        let hooks = hooks(Arc::clone(&node), Arc::clone(&life));
        let gateway =
            listener.map(|listener| naust_gateway::serve(listener, client, hooks)).transpose()?;
        match Naust::open_in(config, life) {
            Ok(naust) => {
                let naust = Arc::new(naust);
                naust.adopt(link, &bell);
                // Set here alone.
                let _ = node.set(Arc::downgrade(&naust));
                Ok(Server { naust, gateway })
            }
            Err(error) => {
                link.down("the node could not start");
                link.close();
                if let Some(gateway) = gateway {
                    gateway.shutdown();
                }
                Err(error)
            }
        }
    }

    /// The node.
    #[must_use]
    pub fn naust(&self) -> &Naust {
        &self.naust
    }

    /// Who runs, and where.
    #[must_use]
    pub fn running(&self) -> Running {
        Running {
            name: self.naust.name().to_owned(),
            data: self.naust.data().to_owned(),
            native: self.naust.native_address(),
            http: self.gateway.as_ref().map(Gateway::address),
        }
    }

    /// Serves until SIGTERM or SIGINT comes, then finishes what is under way. A second signal ends
    /// the process at once. Blocking.
    ///
    /// # Errors
    /// [`NaustError`] when the node could not go on.
    pub fn run(self) -> Result<(), NaustError> {
        run_all(vec![self])
    }

    /// Takes no new requests, finishes what is under way, and stops. Blocking.
    ///
    /// # Errors
    /// [`NaustError::Failed`] when the node had stopped by itself before.
    pub fn close(self) -> Result<(), NaustError> {
        if let Some(gateway) = self.gateway {
            gateway.shutdown();
        }
        self.naust.shutdown()
    }
}

/// Serves with several nodes in this process, as [`Server::run`] does with one; when one of them
/// can't go on, all end.
///
/// # Errors
/// As [`Server::run`], of the first that has one.
pub fn run_all(servers: Vec<Server>) -> Result<(), NaustError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async { run_until(Signals::new()?, servers).await })
}

async fn run_until(mut signals: Signals, servers: Vec<Server>) -> Result<(), NaustError> {
    let ended = Arc::new(Notify::new());
    for server in &servers {
        let notify = Arc::clone(&ended);
        server.naust.at_end(move || notify.notify_one());
    }
    tokio::select! {
        () = signals.next() => {}
        () = ended.notified() => {}
    }
    signals.or_exit(close_all(servers)).await
}

/// The signals that end a node.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> io::Result<Signals> {
        let terminate = signal(SignalKind::terminate())?;
        Ok(Signals { terminate, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Waits for the next one.
    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    /// Waits for something after a first one: the next one ends the process at once.
    async fn or_exit<T>(&mut self, future: impl Future<Output = T>) -> T {
        tokio::select! {
            done = future => done,
            () = self.next() => std::process::exit(IMPATIENT_EXIT),
        }
    }
}

/// All at once: none of them waits for a quorum that is gone.
async fn close_all(servers: Vec<Server>) -> Result<(), NaustError> {
    let close = || {
        std::thread::scope(|scope| {
            let closing: Vec<_> =
                servers.into_iter().map(|server| scope.spawn(move || server.close())).collect();
            closing.into_iter().try_for_each(|one| {
                one.join().unwrap_or_else(|_| Err(NaustError::Failed("its end failed".to_owned())))
            })
        })
    };
    spawn_blocking(close).await.map_err(bug)?
}

fn bug(error: tokio::task::JoinError) -> NaustError {
    NaustError::Failed(error.to_string())
}

/// What the gateway asks a node that may not be there yet.
fn hooks(node: Arc<OnceLock<Weak<Naust>>>, life: Arc<Life>) -> Hooks {
    let measured = Arc::clone(&node);
    let starting = Arc::clone(&life);
    Hooks {
        metrics: Arc::new(move || {
            let naust = measured.get().and_then(Weak::upgrade);
            naust.map_or_else(String::new, |naust| naust.metrics().render())
        }),
        ready: Arc::new(move || {
            life.ready()?;
            match node.get().map(|naust| naust.upgrade().is_some_and(|naust| naust.is_serving())) {
                Some(true) => Ok(()),
                Some(false) => Err("the node is ending".to_owned()),
                None => Err("the node is starting".to_owned()),
            }
        }),
        starting: Arc::new(move || starting.starting()),
    }
}

/// Lets the process have as many open files as it may, and says how many: every connection and
/// every table is one.
fn raise_file_limit() -> u64 {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    // Where that is refused the node serves as many as it can; those beyond wait or are told.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// How many of the `wanted` connections a process with so many open files may hold.
fn connections_for(files: u64, wanted: usize) -> usize {
    let most = files.saturating_sub(FILES_KEPT).max(files / 4).max(1);
    wanted.min(usize::try_from(most).unwrap_or(usize::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_files_for_logs_and_tables() {
        assert_eq!(connections_for(u64::MAX, 4096), 4096);
        assert_eq!(connections_for(FILES_KEPT + 4096, 4096), 4096);
        assert_eq!(connections_for(FILES_KEPT + 4095, 4096), 4095);
        assert_eq!(connections_for(4096, 4096), 1024, "a quarter at the least");
        assert_eq!(connections_for(FILES_KEPT + 4096, 100), 100, "fewer are wanted");
        assert_eq!(connections_for(1024, 4096), 256, "little is shared");
        assert_eq!(connections_for(0, 4096), 1);
    }
}
