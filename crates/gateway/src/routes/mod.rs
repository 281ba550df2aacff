//! What each route does: one file a family. Every function takes the request apart, asks the
//! client, and builds the response; nothing is decided here that another client of the native
//! protocol would have to decide again.

pub mod cluster;
pub mod commit;
pub mod describe;
pub mod kv;
pub mod log;
pub mod plain;
pub mod streams;

use crate::path::{Inner, Place};
use crate::problem::Problem;
use crate::request::Request;
use crate::server::State;
use axum::body::Body;
use axum::http::{Method, Response};

/// The answer to a request.
pub type Answer = Result<Response<Body>, Problem>;

/// Sends a request to its route.
///
/// # Errors
/// What the route fails with, or `method_not_allowed`.
pub async fn dispatch(state: &State, method: Method, place: Place, request: Request) -> Answer {
    let method = if method == Method::HEAD { Method::GET } else { method };
    match (method.as_str(), &place) {
        ("GET", Place::Index) => plain::index(request),
        ("GET", Place::Health) => plain::health(request),
        ("GET", Place::Ready) => plain::ready(state, request).await,
        ("GET", Place::Metrics) => plain::metrics(state, request),
        ("GET", Place::OpenApi) => plain::openapi(request),
        ("GET", Place::Cluster) => cluster::cluster(state, request).await,
        ("GET", Place::Namespaces) => cluster::list(state, request).await,
        ("POST", Place::Namespaces) => cluster::create(state, request).await,
        ("DELETE", Place::Namespace(name)) => cluster::delete(state, name, request).await,
        ("POST", Place::ClusterSessions) => cluster::open_session(state, request).await,
        ("DELETE", Place::ClusterSession(session)) => {
            cluster::close_session(state, *session, request).await
        }
        (method, Place::In(name, inner)) => {
            let namespace = state.namespace(name)?;
            match (method, inner) {
                ("GET", Inner::All) => describe::describe(&namespace, request).await,
                ("GET", Inner::Keyspace(keyspace)) => kv::scan(&namespace, keyspace, request).await,
                ("PUT", Inner::Keyspace(keyspace)) => {
                    kv::set_options(&namespace, keyspace, request).await
                }
                ("GET", Inner::Row(keyspace, key)) => {
                    kv::get(&namespace, keyspace, key, request).await
                }
                ("PUT", Inner::Row(keyspace, key)) => {
                    kv::put(&namespace, keyspace, key, request).await
                }
                ("DELETE", Inner::Row(keyspace, key)) => {
                    kv::delete(&namespace, keyspace, key, request).await
                }
                ("POST", Inner::Commit) => commit::commit(&namespace, request).await,
                ("POST", Inner::Sessions) => commit::open_session(&namespace, request).await,
                ("DELETE", Inner::Session(session)) => {
                    commit::close_session(&namespace, *session, request).await
                }
                ("GET", Inner::Stream(stream)) => {
                    streams::read(state, &namespace, stream, request).await
                }
                ("POST", Inner::Stream(stream)) => {
                    streams::append(&namespace, stream, request).await
                }
                ("PUT", Inner::Stream(stream)) => {
                    streams::set_options(&namespace, stream, request).await
                }
                ("GET", Inner::Cursor(stream, name)) => {
                    streams::cursor(&namespace, stream, name, request).await
                }
                ("PUT", Inner::Cursor(stream, name)) => {
                    streams::advance(&namespace, stream, name, request).await
                }
                ("GET", Inner::Log) => log::log(state, &namespace, request).await,
                _ => Err(Problem::no_method(place.methods())),
            }
        }
        _ => Err(Problem::no_method(place.methods())),
    }
}
