//! A node as a process of its own: sockets for clients, signals for operators.

use crate::config::Config;
use crate::embed::{self, Naust, NaustError};
use naust_client::{OnOverload, Options};
use naust_gateway::{Gateway, Hooks};
use naust_wire::limits::HTTP_ANSWER_MS_MAX;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;

/// Exit status of a process that was told twice to end: that of one ended by SIGINT.
const IMPATIENT_EXIT: i32 = 130;

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

/// Runs a node until a signal ends it. `ready` is called once it serves. Blocking.
///
/// # Errors
/// [`NaustError`] when it can't start or go on.
pub fn serve(config: Config, ready: &mut dyn FnMut(&Running)) -> Result<(), NaustError> {
    let server = Server::open(config)?;
    ready(&server.running());
    server.run()
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
        raise_file_limit();
        // Before any data is touched: a port in use leaves everything as it was.
        let listener = config.http_address()?.map(embed::listen).transpose()?;
        let naust = Arc::new(Naust::open(config)?);
        let gateway = listener.map(|listener| gateway(listener, &naust)).transpose()?;
        Ok(Server { naust, gateway })
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
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let ended = Arc::new(Notify::new());
        for server in &servers {
            let notify = Arc::clone(&ended);
            server.naust.at_end(move || notify.notify_one());
        }
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            () = ended.notified() => {}
        }
        let ending = tokio::task::spawn_blocking(move || close_all(servers));
        tokio::select! {
            _ = terminate.recv() => std::process::exit(IMPATIENT_EXIT),
            _ = interrupt.recv() => std::process::exit(IMPATIENT_EXIT),
            closed = ending => closed.map_err(|error| NaustError::Failed(error.to_string()))?,
        }
    })
}

/// All at once: none of them waits for a quorum that is gone.
fn close_all(servers: Vec<Server>) -> Result<(), NaustError> {
    std::thread::scope(|scope| {
        let closing: Vec<_> =
            servers.into_iter().map(|server| scope.spawn(move || server.close())).collect();
        closing.into_iter().try_for_each(|one| {
            one.join().unwrap_or_else(|_| Err(NaustError::Failed("its end failed".to_owned())))
        })
    })
}

fn gateway(listener: TcpListener, naust: &Arc<Naust>) -> Result<Gateway, NaustError> {
    let client = naust.client_with(Options {
        on_overload: OnOverload::Refuse,
        timeout_ms: HTTP_ANSWER_MS_MAX,
        ..Options::default()
    });
    let (metrics, ready) = (Arc::downgrade(naust), Arc::downgrade(naust));
    let hooks = Hooks {
        metrics: Arc::new(move || {
            metrics.upgrade().map_or_else(String::new, |naust| naust.metrics().render())
        }),
        ready: Arc::new(move || match ready.upgrade().map(|naust| naust.is_serving()) {
            Some(true) => Ok(()),
            _ => Err("the node is ending".to_owned()),
        }),
    };
    Ok(naust_gateway::serve(listener, client, hooks)?)
}

/// Lets the process have as many open files as it may: every connection and every table is one.
fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    // Where that is refused the node serves as many as it can; those beyond wait or are told.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}
