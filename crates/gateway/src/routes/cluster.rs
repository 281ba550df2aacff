//! Namespaces and the nodes they live on.

use super::Answer;
use crate::json;
use crate::problem::Problem;
use crate::request::{Request, identity_of, json as respond};
use crate::server::State;
use axum::http::StatusCode;
use naust_client::{Cluster, SessionId};
use naust_wire::NodeId;
use naust_wire::options::Durability;
use naust_wire::reply::{Namespace, Node};
use serde_json::{Value, json};

/// Bytes of a body that makes a namespace.
const BODY_BYTES_MAX: usize = 64 * 1024;

/// `GET /v1/cluster`
pub async fn cluster(state: &State, request: Request) -> Answer {
    let (cluster, mut body) = page(state, request).await?;
    body["nodes"] = cluster.nodes.iter().map(node).collect();
    Ok(respond(StatusCode::OK, &body))
}

/// `GET /v1/namespaces`
pub async fn list(state: &State, request: Request) -> Answer {
    let (_, body) = page(state, request).await?;
    Ok(respond(StatusCode::OK, &body))
}

/// A page of the namespaces, with all nodes.
async fn page(state: &State, mut request: Request) -> Result<(Cluster, Value), Problem> {
    let from = request.query.text("from")?.unwrap_or_default();
    let limit = request.query.small("limit")?;
    request.query.finish()?;
    let cluster = state.client.cluster_page(&from, limit).await?;
    let name = |id: NodeId| name_of(&cluster.nodes, id);
    let namespaces: Vec<Value> =
        cluster.namespaces.iter().map(|namespace| describe(namespace, &name)).collect();
    let mut body = json!({ "namespaces": namespaces });
    if let Some(next) = &cluster.next {
        body["next"] = next.as_str().into();
    }
    Ok((cluster, body))
}

/// `POST /v1/namespaces`
pub async fn create(state: &State, mut request: Request) -> Answer {
    std::mem::take(&mut request.query).finish()?;
    let identity = identity_of(request.identity()?);
    let body = request.whole(BODY_BYTES_MAX).await?;
    let (name, options) = json::namespace(&body.bytes)?;
    let offset = state.client.create_namespace_as(&name, options, identity).await?;
    Ok(respond(StatusCode::CREATED, &json!({ "name": name, "offset": offset.0 })))
}

/// `DELETE /v1/namespaces/NS`
pub async fn delete(state: &State, name: &str, mut request: Request) -> Answer {
    let identity = identity_of(request.identity()?);
    let force = request.query.flag("force")?;
    request.query.finish()?;
    let offset = match force {
        true => state.client.force_delete_namespace(name, identity).await?,
        false => state.client.delete_namespace_as(name, identity).await?,
    };
    Ok(respond(StatusCode::OK, &json!({ "offset": offset.0 })))
}

/// `POST /v1/cluster/sessions`
pub async fn open_session(state: &State, mut request: Request) -> Answer {
    request.no_identity()?;
    request.no_body().await?;
    let ttl_ms = request.query.number("ttl_ms")?.unwrap_or_default();
    request.query.finish()?;
    let session = state.client.open_session(ttl_ms).await?;
    Ok(respond(StatusCode::CREATED, &json!({ "session": session.to_string() })))
}

/// `DELETE /v1/cluster/sessions/SESSION`
pub async fn close_session(state: &State, session: SessionId, request: Request) -> Answer {
    request.no_identity()?;
    request.query.finish()?;
    let offset = state.client.close_session(session).await?;
    Ok(respond(StatusCode::OK, &json!({ "offset": offset.0 })))
}

fn node(node: &Node) -> Value {
    json!({
        "name": node.name,
        // As text: readers of JSON lose digits of numbers above 2^53.
        "id": node.id.to_string(),
        "address": node.address,
        "up": node.up,
    })
}

fn describe(namespace: &Namespace, name: &impl Fn(NodeId) -> Value) -> Value {
    let replica = |replica: &naust_wire::reply::Replica| {
        json!({
            "node": name(replica.node),
            "role": if replica.voter { "voter" } else { "learner" },
            "end": replica.end.map(|end| end.0),
        })
    };
    let mut told = json!({
        "name": namespace.name,
        "shard": namespace.shard.0,
        "leader": name(namespace.leader),
        "replicas": namespace.replicas.iter().map(replica).collect::<Vec<_>>(),
        "end": namespace.end.map(|end| end.0),
    });
    if let Durability::IntervalMs(ms) = namespace.options.durability {
        told["interval_ms"] = ms.into();
    }
    if namespace.closing {
        told["closing"] = true.into();
    }
    told
}

/// A node's name; its id as text when it is not known, null for none.
fn name_of(nodes: &[Node], id: NodeId) -> Value {
    match nodes.iter().find(|node| node.id == id) {
        _ if id == NodeId(0) => Value::Null,
        Some(node) => node.name.clone().into(),
        None => id.to_string().into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use naust_wire::options::NamespaceOptions;
    use naust_wire::reply::Replica;
    use naust_wire::{Offset, ShardId};

    /// Why: zero would be taken for a log that is empty, or far behind.
    #[test]
    fn an_end_that_is_not_known_is_null() {
        let replica = |node, end| Replica { node: NodeId(node), voter: true, end };
        let namespace = Namespace {
            name: "shop".to_owned(),
            shard: ShardId(2),
            leader: NodeId(0),
            end: None,
            replicas: vec![replica(1, Some(Offset::FIRST)), replica(2, None)],
            options: NamespaceOptions::default(),
            closing: false,
        };
        let told = describe(&namespace, &|id| name_of(&[], id));
        assert_eq!(told["end"], Value::Null);
        let ends: Vec<&Value> =
            told["replicas"].as_array().into_iter().flatten().map(|one| &one["end"]).collect();
        assert_eq!(ends, [&json!(Offset::FIRST.0), &Value::Null]);
    }
}
