//! The document at `/openapi.json` lists exactly the routes that there are, and all that it refers
//! to is in it.

#![allow(clippy::unwrap_used)]

use naust_gateway::path::Place;
use naust_gateway::routes::plain::OPENAPI;
use serde_json::Value;

#[test]
fn it_lists_the_routes_and_their_methods() {
    let document: Value = serde_json::from_str(OPENAPI).unwrap();
    let paths = document["paths"].as_object().unwrap();
    for (path, item) in paths {
        let real = path.replace("{session}", "5").replace(['{', '}'], "");
        let place = Place::parse(&real).unwrap_or_else(|problem| panic!("{path}: {problem:?}"));
        let listed: Vec<String> = ["get", "post", "put", "delete"]
            .iter()
            .filter(|method| item.get(method).is_some())
            .map(|method| method.to_uppercase())
            .collect();
        let taken: Vec<&str> =
            place.methods().split(", ").filter(|method| *method != "HEAD").collect();
        let mut sorted = [listed, taken.iter().map(|method| (*method).to_owned()).collect()];
        sorted.iter_mut().for_each(|methods| methods.sort());
        assert_eq!(sorted[0], sorted[1], "{path}");
        for parameter in path.split('{').skip(1).map(|rest| rest.split('}').next().unwrap()) {
            let shared = item["parameters"].as_array().unwrap();
            let reference = format!("#/components/parameters/{parameter}");
            assert!(shared.iter().any(|p| p["$ref"] == reference.as_str()), "{path}");
        }
    }
    // Ten kinds of places of the node or the cluster, and nine in a namespace.
    assert_eq!(paths.len(), 10 + 9);
}

#[test]
fn every_reference_leads_somewhere() {
    let document: Value = serde_json::from_str(OPENAPI).unwrap();
    let mut references = Vec::new();
    collect(&document, &mut references);
    assert!(references.len() > 50);
    for reference in references {
        let pointer = reference.strip_prefix('#').unwrap();
        assert!(document.pointer(pointer).is_some(), "{reference}");
    }
}

fn collect<'v>(value: &'v Value, references: &mut Vec<&'v str>) {
    match value {
        Value::Object(object) => {
            references.extend(object.get("$ref").and_then(Value::as_str));
            object.values().for_each(|value| collect(value, references));
        }
        Value::Array(list) => list.iter().for_each(|value| collect(value, references)),
        _ => {}
    }
}
