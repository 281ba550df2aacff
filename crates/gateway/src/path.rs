//! What a path names. Segments are percent-decoded one by one, so a name or a key may have any
//! bytes that it may have.

use crate::bytes_in_text::{from_percent, text_from_percent};
use crate::problem::Problem;
use naust_client::SessionId;

/// What a path names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// `/`
    Index,
    /// `/healthz`
    Health,
    /// `/readyz`
    Ready,
    /// `/metrics`
    Metrics,
    /// `/openapi.json`
    OpenApi,
    /// `/v1/cluster`
    Cluster,
    /// `/v1/cluster/sessions`
    ClusterSessions,
    /// `/v1/cluster/sessions/SESSION`
    ClusterSession(SessionId),
    /// `/v1/namespaces`
    Namespaces,
    /// `/v1/namespaces/NS`
    Namespace(String),
    /// `/v1/NS/…`
    In(String, Inner),
}

/// What a path names in a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Inner {
    /// Nothing more: the namespace itself.
    All,
    /// `kv/KEYSPACE`
    Keyspace(String),
    /// `kv/KEYSPACE/KEY`: everything after the slash, further slashes too.
    Row(String, Vec<u8>),
    /// `commit`
    Commit,
    /// `sessions`
    Sessions,
    /// `sessions/SESSION`
    Session(SessionId),
    /// `streams/STREAM`
    Stream(String),
    /// `streams/STREAM/cursors/NAME`
    Cursor(String, String),
    /// `log`
    Log,
}

impl Place {
    /// Reads a raw path, without its query.
    ///
    /// # Errors
    /// `route_not_found`, or `malformed` for bad percent-encoding.
    pub fn parse(path: &str) -> Result<Place, Problem> {
        let rest = path.strip_prefix('/').ok_or_else(Problem::no_route)?;
        let Some(rest) = rest.strip_prefix("v1/") else {
            return match rest {
                "" => Ok(Place::Index),
                "healthz" => Ok(Place::Health),
                "readyz" => Ok(Place::Ready),
                "metrics" => Ok(Place::Metrics),
                "openapi.json" => Ok(Place::OpenApi),
                _ => Err(Problem::no_route()),
            };
        };
        match rest.split_once('/') {
            None if rest == "cluster" => Ok(Place::Cluster),
            None if rest == "namespaces" => Ok(Place::Namespaces),
            None if rest.is_empty() || rest == "topics" => Err(Problem::no_route()),
            None => Ok(Place::In(segment(rest)?, Inner::All)),
            Some(("namespaces", name)) => Ok(Place::Namespace(segment(name)?)),
            Some(("cluster", "sessions")) => Ok(Place::ClusterSessions),
            Some(("cluster", inner)) if inner.starts_with("sessions/") => {
                Ok(Place::ClusterSession(session(&inner["sessions/".len()..])?))
            }
            Some(("cluster" | "topics", _)) => Err(Problem::no_route()),
            Some((namespace, inner)) => Ok(Place::In(segment(namespace)?, Inner::parse(inner)?)),
        }
    }

    /// Whether it tells of the node itself: that has to be told however many ask for other things.
    #[must_use]
    pub fn is_probe(&self) -> bool {
        matches!(self, Place::Health | Place::Ready | Place::Metrics)
    }

    /// Whether the node has to serve for an answer.
    #[must_use]
    pub fn asks_node(&self) -> bool {
        !self.is_probe() && !matches!(self, Place::Index | Place::OpenApi)
    }

    /// The methods that are taken there, as the `Allow` header lists them.
    #[must_use]
    pub fn methods(&self) -> &'static str {
        match self {
            Place::Index | Place::Health | Place::Ready | Place::Metrics => "GET, HEAD",
            Place::OpenApi | Place::Cluster => "GET, HEAD",
            Place::Namespaces => "GET, HEAD, POST",
            Place::Namespace(_) | Place::ClusterSession(_) => "DELETE",
            Place::ClusterSessions => "POST",
            Place::In(_, Inner::Keyspace(_) | Inner::Cursor(..)) => "GET, HEAD, PUT",
            Place::In(_, Inner::Row(..)) => "GET, HEAD, PUT, DELETE",
            Place::In(_, Inner::Commit | Inner::Sessions) => "POST",
            Place::In(_, Inner::Session(_)) => "DELETE",
            Place::In(_, Inner::Stream(_)) => "GET, HEAD, POST, PUT",
            Place::In(_, Inner::Log | Inner::All) => "GET, HEAD",
        }
    }
}

impl Inner {
    fn parse(path: &str) -> Result<Inner, Problem> {
        let (kind, rest) = match path.split_once('/') {
            Some((kind, rest)) => (kind, Some(rest)),
            None => (path, None),
        };
        match (kind, rest) {
            ("kv", Some(rest)) => Ok(match rest.split_once('/') {
                None => Inner::Keyspace(text_from_percent(rest)?),
                Some((keyspace, key)) => {
                    Inner::Row(text_from_percent(keyspace)?, from_percent(key)?)
                }
            }),
            ("commit", None) => Ok(Inner::Commit),
            ("sessions", None) => Ok(Inner::Sessions),
            ("sessions", Some(id)) => Ok(Inner::Session(session(id)?)),
            ("log", None) => Ok(Inner::Log),
            ("streams", Some(rest)) => match rest.split('/').collect::<Vec<_>>()[..] {
                [stream] => Ok(Inner::Stream(text_from_percent(stream)?)),
                [stream, "cursors", name] => {
                    Ok(Inner::Cursor(text_from_percent(stream)?, text_from_percent(name)?))
                }
                _ => Err(Problem::no_route()),
            },
            _ => Err(Problem::no_route()),
        }
    }
}

/// A whole segment.
fn segment(text: &str) -> Result<String, Problem> {
    if text.contains('/') {
        return Err(Problem::no_route());
    }
    text_from_percent(text)
}

/// A session, as it was given out: a decimal number.
///
/// # Errors
/// `Malformed`.
pub fn session(text: &str) -> Result<SessionId, Problem> {
    let number = crate::query::number("session", text)?;
    match number {
        0 => Err(Problem::malformed("there is no session 0")),
        number => Ok(SessionId(number)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inner(of: Inner) -> Option<Place> {
        Some(Place::In("ns".to_owned(), of))
    }

    #[test]
    fn paths_are_read() {
        let name = |name: &str| name.to_owned();
        let table = [
            ("/", Some(Place::Index)),
            ("/healthz", Some(Place::Health)),
            ("/v1/cluster", Some(Place::Cluster)),
            ("/v1/namespaces", Some(Place::Namespaces)),
            ("/v1/namespaces/a%20b", Some(Place::Namespace(name("a b")))),
            ("/v1/ns/commit", inner(Inner::Commit)),
            ("/v1/ns/sessions", inner(Inner::Sessions)),
            ("/v1/ns/sessions/12", inner(Inner::Session(SessionId(12)))),
            ("/v1/ns/log", inner(Inner::Log)),
            ("/v1/ns/kv/users", inner(Inner::Keyspace(name("users")))),
            ("/v1/ns/kv/users/", inner(Inner::Row(name("users"), vec![]))),
            ("/v1/ns/kv/users/a/b", inner(Inner::Row(name("users"), b"a/b".to_vec()))),
            ("/v1/ns/kv/users/%00%ff%2F", inner(Inner::Row(name("users"), vec![0, 255, 47]))),
            ("/v1/ns/streams/s", inner(Inner::Stream(name("s")))),
            ("/v1/ns/streams/s/cursors/c", inner(Inner::Cursor(name("s"), name("c")))),
            ("", None),
            ("/v2/ns/commit", None),
            ("/v1/ns", inner(Inner::All)),
            ("/v1/cluster/sessions", Some(Place::ClusterSessions)),
            ("/v1/cluster/sessions/12", Some(Place::ClusterSession(SessionId(12)))),
            ("/v1/", None),
            ("/v1/topics", None),
            ("/v1/cluster/", None),
            ("/v1/cluster/sessions/", None),
            ("/v1/cluster/sessions/x", None),
            ("/v1/cluster/x", None),
            ("/v1/topics/x", None),
            ("/v1/namespaces/a/b", None),
            ("/v1/ns/kv", None),
            ("/v1/ns/kv/%ff/k", None),
            ("/v1/ns/kv/users/%0", None),
            ("/v1/ns/commit/", None),
            ("/v1/ns/sessions/0", None),
            ("/v1/ns/sessions/x", None),
            ("/v1/ns/streams/s/cursors", None),
            ("/v1/ns/queues/q", None),
        ];
        for (path, expected) in table {
            assert_eq!(Place::parse(path).ok(), expected, "{path}");
        }
    }
}
