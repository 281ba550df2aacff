//! The thread, its runtime, and the way of a request.

use crate::connection::{Bounded, Bounds, Seat};
use crate::path::Place;
use crate::problem::Problem;
use crate::query::Query;
use crate::request::{Budget, Request};
use crate::routes;
use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::{HeaderValue, Response, header};
use naust_client::{Client, Code, Namespace};
use naust_wire::name;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::sleep;

/// How long requests under way may take to end when the gateway does.
const GRACE: Duration = Duration::from_secs(5);

/// What the gateway asks the node it belongs to.
#[derive(Clone)]
pub struct Hooks {
    /// The metrics, in the text format of Prometheus.
    pub metrics: Arc<dyn Fn() -> String + Send + Sync>,
    /// Whether the node serves requests; if not, why.
    pub ready: Arc<dyn Fn() -> Result<(), String> + Send + Sync>,
    /// Why the node has not begun to serve; `None` once it has, also when it ends. Before, nobody
    /// would answer what it is asked.
    pub starting: Arc<dyn Fn() -> Option<String> + Send + Sync>,
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
    followers: Arc<Semaphore>,
}

/// Serves HTTP on a thread of its own. `client` should have [`naust_client::OnOverload::Refuse`],
/// so that overload is told to whoever asks, and not waited out here.
///
/// # Errors
/// When the listener, the runtime or the thread can't be set up.
pub fn serve(listener: std::net::TcpListener, client: Client, hooks: Hooks) -> io::Result<Gateway> {
    serve_within(Bounds::default(), listener, client, hooks)
}

/// The same, with other bounds than those of `wire::limits`.
///
/// # Errors
/// As [`serve`].
pub fn serve_within(
    bounds: Bounds,
    listener: std::net::TcpListener,
    client: Client,
    hooks: Hooks,
) -> io::Result<Gateway> {
    let address = listener.local_addr()?;
    listener.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let listener = {
        let _context = runtime.enter();
        TcpListener::from_std(listener)?
    };
    let (closing, closed) = watch::channel(false);
    let followers = Arc::new(Semaphore::new(bounds.followers));
    let state = State { client, hooks, closing: closed, budget: Budget::default(), followers };
    let listener = Bounded::new(listener, bounds);
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

    /// Leave to follow a stream, until it is dropped: those who follow stay for long, and must not
    /// take all connections.
    ///
    /// # Errors
    /// `Overloaded`.
    pub fn follower(&self) -> Result<OwnedSemaphorePermit, Problem> {
        Arc::clone(&self.followers).try_acquire_owned().map_err(|_| {
            Problem::of(Code::Overloaded, "too many streams are followed; try again later")
        })
    }

    /// Waits until the gateway ends.
    pub async fn ending(&self) {
        // An error says that the gateway was dropped, which ends it too.
        let _ = self.closing.clone().wait_for(|closing| *closing).await;
    }
}

async fn run(listener: Bounded, state: State) {
    let (closed, ended) = (state.clone(), state.clone());
    let router = Router::new().fallback(handle).with_state(state);
    let service = router.into_make_service_with_connect_info::<Seat>();
    let graceful =
        axum::serve(listener, service).with_graceful_shutdown(async move { closed.ending().await });
    tokio::select! {
        served = async { graceful.await } => drop(served),
        () = async {
            ended.ending().await;
            sleep(GRACE).await;
        } => {}
    }
}

async fn handle(
    axum::extract::State(state): axum::extract::State<State>,
    ConnectInfo(seat): ConnectInfo<Seat>,
    request: axum::extract::Request,
) -> Response<Body> {
    let answer = answer(&state, seat, request).await;
    let mut response = answer.unwrap_or_else(Problem::into_response);
    if seat == Seat::Reserve {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

async fn answer(state: &State, seat: Seat, request: axum::extract::Request) -> routes::Answer {
    let (parts, body) = request.into_parts();
    let place = Place::parse(parts.uri.path())?;
    if seat == Seat::Reserve && !place.is_probe() {
        let detail = "the node has as many HTTP connections as it takes; try again later";
        return Err(Problem::of(Code::Overloaded, detail));
    }
    if place.asks_node()
        && let Some(why) = (state.hooks.starting)()
    {
        return Err(Problem::of(Code::Unavailable, format!("the node does not serve yet: {why}")));
    }
    let query = Query::parse(parts.uri.query())?;
    let request = Request::new(parts.headers, query, body, state.budget.clone());
    routes::dispatch(state, parts.method, place, request).await
}
