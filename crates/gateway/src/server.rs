//! The thread, its runtime and its sockets; connections are bounded, and silent ones are closed.

use crate::path::Place;
use crate::problem::Problem;
use crate::query::Query;
use crate::request::{Budget, Request};
use crate::routes;
use axum::Router;
use axum::body::Body;
use axum::http::Response;
use naust_client::{Client, Namespace};
use naust_wire::limits::{HTTP_CONNECTIONS_MAX, HTTP_SILENCE_MS_MAX};
use naust_wire::name;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, Sleep, sleep};

/// How long requests under way may take to end when the gateway does.
const GRACE: Duration = Duration::from_secs(5);
/// How long silence may last.
const SILENCE: Duration = Duration::from_millis(HTTP_SILENCE_MS_MAX);
/// The pause after an error of the listener, such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What the gateway asks the node it belongs to.
#[derive(Clone)]
pub struct Hooks {
    /// The metrics, in the text format of Prometheus.
    pub metrics: Arc<dyn Fn() -> String + Send + Sync>,
    /// Whether the node serves requests; if not, why.
    pub ready: Arc<dyn Fn() -> Result<(), String> + Send + Sync>,
}

/// A running gateway. Dropping it ends it without waiting.
pub struct Gateway {
    address: SocketAddr,
    closing: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

/// What the routes have.
#[derive(Clone)]
pub struct State {
    /// The way to the node.
    pub client: Client,
    /// See [`Hooks`].
    pub hooks: Hooks,
    /// Becomes true when the gateway ends.
    pub closing: watch::Receiver<bool>,
    budget: Budget,
}

/// Serves HTTP on a thread of its own. `client` should have [`naust_client::OnOverload::Refuse`],
/// so that overload is told to whoever asks, and not waited out here.
///
/// # Errors
/// When the listener, the runtime or the thread can't be set up.
pub fn serve(listener: std::net::TcpListener, client: Client, hooks: Hooks) -> io::Result<Gateway> {
    let address = listener.local_addr()?;
    listener.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let listener = {
        let _context = runtime.enter();
        TcpListener::from_std(listener)?
    };
    let (closing, closed) = watch::channel(false);
    let state = State { client, hooks, closing: closed, budget: Budget::default() };
    let thread = std::thread::Builder::new().name("naust-http".to_owned()).spawn(move || {
        runtime.block_on(run(listener, state));
        runtime.shutdown_background();
    })?;
    Ok(Gateway { address, closing, thread: Some(thread) })
}

impl Gateway {
    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Takes no new requests, gives those under way a few seconds, and ends.
    pub fn shutdown(mut self) {
        self.closing.send_replace(true);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the gateway's thread does not panic");
        }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.closing.send_replace(true);
    }
}

impl State {
    /// A namespace, if its name can be one.
    ///
    /// # Errors
    /// `BadName`.
    pub fn namespace(&self, name: &str) -> Result<Namespace, Problem> {
        name::check_namespace(name)?;
        Ok(self.client.namespace(name))
    }
}

async fn run(listener: TcpListener, state: State) {
    let mut closing = state.closing.clone();
    let router = Router::new().fallback(handle).with_state(state);
    let mut closed = closing.clone();
    let closed = async move {
        // An error says that the gateway was dropped, which ends it too.
        let _ = closed.wait_for(|closing| *closing).await;
    };
    let bounded = Bounded { listener, places: Arc::new(Semaphore::new(HTTP_CONNECTIONS_MAX)) };
    let graceful = axum::serve(bounded, router).with_graceful_shutdown(closed);
    tokio::select! {
        served = async { graceful.await } => drop(served),
        () = async {
            let _ = closing.wait_for(|closing| *closing).await;
            sleep(GRACE).await;
        } => {}
    }
}

async fn handle(
    axum::extract::State(state): axum::extract::State<State>,
    request: axum::extract::Request,
) -> Response<Body> {
    answer(&state, request).await.unwrap_or_else(Problem::into_response)
}

async fn answer(state: &State, request: axum::extract::Request) -> routes::Answer {
    let (parts, body) = request.into_parts();
    let place = Place::parse(parts.uri.path())?;
    let query = Query::parse(parts.uri.query())?;
    let request = Request::new(parts.headers, query, body, state.budget.clone());
    routes::dispatch(state, parts.method, place, request).await
}

/// A listener that holds a bounded number of connections; the rest wait in the system's queue.
struct Bounded {
    listener: TcpListener,
    places: Arc<Semaphore>,
}

impl axum::serve::Listener for Bounded {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        let place = Arc::clone(&self.places).acquire_owned().await;
        let place = place.expect("the semaphore is never closed");
        loop {
            match self.listener.accept().await {
                Ok((stream, address)) => {
                    // Answers are written whole; waiting for more would only cost time.
                    let _ = stream.set_nodelay(true);
                    return (Connection::new(stream, place), address);
                }
                Err(_) => sleep(ACCEPT_PAUSE).await,
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A socket that is closed after too long a silence: between two requests, from the first byte of a
/// request to the first of its reply however slowly its bytes drip, or while nobody takes the
/// reply.
struct Connection {
    stream: TcpStream,
    deadline: Pin<Box<Sleep>>,
    in_request: bool,
    _place: OwnedSemaphorePermit,
}

impl Connection {
    fn new(stream: TcpStream, place: OwnedSemaphorePermit) -> Connection {
        Connection { stream, deadline: Box::pin(sleep(SILENCE)), in_request: false, _place: place }
    }

    fn extend(&mut self) {
        self.deadline.as_mut().reset(Instant::now() + SILENCE);
    }

    /// Pending, unless the silence has lasted too long.
    fn silence<T>(&mut self, context: &mut Context<'_>) -> Poll<io::Result<T>> {
        ready!(self.deadline.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    fn wrote(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        match written {
            Poll::Pending => self.silence(context),
            Poll::Ready(result) => {
                self.in_request = false;
                self.extend();
                Poll::Ready(result)
            }
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        match Pin::new(&mut self.stream).poll_read(context, buffer) {
            Poll::Pending => self.silence(context),
            Poll::Ready(result) => {
                if buffer.filled().len() > before && !self.in_request {
                    self.in_request = true;
                    self.extend();
                }
                Poll::Ready(result)
            }
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.wrote(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.wrote(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// A connection and its peer; time passes whenever nothing else happens.
    fn connected(story: impl AsyncFnOnce(Connection, TcpStream)) {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_all().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let (peer, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
            let place = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
            story(Connection::new(accepted.unwrap().0, place), peer.unwrap()).await;
        });
    }

    #[test]
    fn a_silent_connection_is_closed() {
        connected(async |mut connection, _peer| {
            let started = Instant::now();
            let error = connection.read_u8().await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::TimedOut);
            assert!(started.elapsed() >= SILENCE);
        });
    }

    #[test]
    fn drips_do_not_extend_a_request_but_replies_do() {
        connected(async |mut connection, mut peer| {
            let started = Instant::now();
            let mut drips = 0;
            let error = loop {
                peer.write_all(b"x").await.unwrap();
                match connection.read_u8().await {
                    Ok(_) => drips += 1,
                    Err(error) => break error,
                }
                let quiet = tokio::time::timeout(SILENCE / 4, connection.read_u8()).await;
                match quiet {
                    Ok(Err(error)) => break error,
                    other => assert!(other.is_err(), "nothing was sent"),
                }
            };
            assert_eq!((error.kind(), drips), (io::ErrorKind::TimedOut, 4));
            assert!(started.elapsed() < 2 * SILENCE);
        });
        connected(async |mut connection, mut peer| {
            for _ in 0..8 {
                peer.write_all(b"x").await.unwrap();
                assert_eq!(connection.read_u8().await.unwrap(), b'x');
                connection.write_all(b"y").await.unwrap();
                assert!(tokio::time::timeout(SILENCE / 4, connection.read_u8()).await.is_err());
            }
        });
    }

    #[test]
    fn a_reader_that_takes_nothing_is_closed() {
        connected(async |mut connection, _peer| {
            let error = connection.write_all(&vec![0; 64 << 20]).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        });
    }
}
