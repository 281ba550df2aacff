//! Namespaces and the nodes they live on.

use super::Answer;
use crate::json;
use crate::request::{Request, json as respond};
use crate::server::State;
use axum::http::StatusCode;
use naust_wire::NodeId;
use naust_wire::reply::{Namespace, Node};
use serde_json::{Value, json};

/// Bytes of a body that makes a namespace.
const BODY_BYTES_MAX: usize = 64 * 1024;

/// `GET /v1/cluster`
pub async fn cluster(state: &State, request: Request) -> Answer {
    request.query.finish()?;
    let cluster = state.client.cluster().await?;
    let nodes: Vec<Value> = cluster.nodes.iter().map(node).collect();
    let name = |id: NodeId| name_of(&cluster.nodes, id);
    let namespaces: Vec<Value> =
        cluster.namespaces.iter().map(|namespace| describe(namespace, &name)).collect();
    Ok(respond(StatusCode::OK, &json!({ "nodes": nodes, "namespaces": namespaces })))
}

/// `GET /v1/namespaces`
pub async fn list(state: &State, request: Request) -> Answer {
    request.query.finish()?;
    let cluster = state.client.cluster().await?;
    let name = |id: NodeId| name_of(&cluster.nodes, id);
    let namespaces: Vec<Value> =
        cluster.namespaces.iter().map(|namespace| describe(namespace, &name)).collect();
    Ok(respond(StatusCode::OK, &json!({ "namespaces": namespaces })))
}

/// `POST /v1/namespaces`
pub async fn create(state: &State, mut request: Request) -> Answer {
    std::mem::take(&mut request.query).finish()?;
    request.no_identity()?;
    let body = request.whole(BODY_BYTES_MAX).await?;
    let (name, options) = json::namespace(&body.bytes)?;
    let offset = state.client.create_namespace(&name, options).await?;
    Ok(respond(StatusCode::CREATED, &json!({ "name": name, "offset": offset.0 })))
}

/// `DELETE /v1/namespaces/NS`
pub async fn delete(state: &State, name: &str, request: Request) -> Answer {
    request.no_identity()?;
    request.query.finish()?;
    let offset = state.client.delete_namespace(name).await?;
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
            "end": replica.end.0,
        })
    };
    json!({
        "name": namespace.name,
        "shard": namespace.shard.0,
        "leader": name(namespace.leader),
        "replicas": namespace.replicas.iter().map(replica).collect::<Vec<_>>(),
        "end": namespace.end.0,
    })
}

/// A node's name; its id as text when it is not known, null for none.
fn name_of(nodes: &[Node], id: NodeId) -> Value {
    match nodes.iter().find(|node| node.id == id) {
        _ if id == NodeId(0) => Value::Null,
        Some(node) => node.name.clone().into(),
        None => id.to_string().into(),
    }
}
