//! The OpenAPI document is what the server does: every documented call is served, every answer has the shape it says.

use serde_json::Value;

use crate::world::{TOKEN, World};

fn document() -> Value {
    serde_json::from_str(&doorbell_server::openapi()).unwrap()
}

#[tokio::test]
async fn every_documented_call_is_served() {
    let world = World::new().await;
    let doc = document();
    let bearer = format!("Bearer {TOKEN}");
    let paths = doc["paths"].as_object().unwrap();
    assert!(paths.len() >= 20, "{:?}", paths.keys());
    for (path, methods) in paths {
        for method in methods.as_object().unwrap().keys() {
            let real = path.replace("{id}", "run_0000000001zzzzzzzz").replace("{name}", "script");
            let answer = world.call(&method.to_uppercase(), &real, &[("authorization", &bearer)], "").await;
            assert_ne!(answer.status, 405, "{method} {path}");
            // What is not found is the thing, not the call.
            assert!(
                !answer.body.contains("there is no call") && !answer.body.contains("nothing here"),
                "{method} {path}"
            );
        }
    }
    let served = world.call("GET", "/openapi.json", &[], "").await.json();
    assert_eq!(served, doc);
}

/// Every handler that is written is in the document: the files of the API hold as many `utoipa::path` as the document
/// has calls, and every route is made from one.
#[test]
fn every_call_is_documented() {
    let doc = document();
    let calls: usize = doc["paths"].as_object().unwrap().values().map(|m| m.as_object().unwrap().len()).sum();
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut written = 0;
    for file in std::fs::read_dir(dir.join("api")).unwrap().map(|e| e.unwrap().path()).chain([dir.join("health.rs")]) {
        written += std::fs::read_to_string(file).unwrap().matches("#[utoipa::path(").count();
    }
    assert_eq!(calls, written);
    for (path, methods) in doc["paths"].as_object().unwrap() {
        for (method, call) in methods.as_object().unwrap() {
            assert!(call["summary"].is_string(), "{method} {path} has no summary");
            if path.starts_with("/api/v1") {
                assert!(call["security"].is_array() && call["responses"]["default"].is_object(), "{method} {path}");
            }
        }
    }
}

#[tokio::test]
async fn answers_have_the_shapes_that_the_document_says() {
    let world = World::new().await;
    let doc = document();
    world.deliver("github", "d", "push", r#"{"n":2}"#).await;
    world.call("POST", "/hooks/github", &[], "{}").await;
    let event = world.get("/events").await["items"][0]["id"].as_str().unwrap().to_owned();
    let run = world.get("/runs").await["items"][0]["id"].as_str().unwrap().to_owned();
    for (path, documented) in [
        ("/agents".to_owned(), "/api/v1/agents"),
        ("/agents/script".to_owned(), "/api/v1/agents/{name}"),
        ("/sources".to_owned(), "/api/v1/sources"),
        ("/sources/github".to_owned(), "/api/v1/sources/{name}"),
        ("/triggers".to_owned(), "/api/v1/triggers"),
        ("/triggers/github".to_owned(), "/api/v1/triggers/{name}"),
        ("/runs".to_owned(), "/api/v1/runs"),
        (format!("/runs/{run}"), "/api/v1/runs/{id}"),
        (format!("/runs/{run}/log"), "/api/v1/runs/{id}/log"),
        ("/events".to_owned(), "/api/v1/events"),
        (format!("/events/{event}"), "/api/v1/events/{id}"),
        ("/decisions".to_owned(), "/api/v1/decisions"),
        ("/stats".to_owned(), "/api/v1/stats"),
    ] {
        let content = &doc["paths"][documented]["get"]["responses"]["200"]["content"]["application/json"];
        let mut faults = Vec::new();
        fits(&doc, &content["schema"], &world.get(&path).await, &path, &mut faults);
        assert!(faults.is_empty(), "{faults:#?}");
    }
    let mut faults = Vec::new();
    let problem = world.api("GET", "/runs/nothing", "").await.json();
    fits(&doc, &doc["components"]["schemas"]["Problem"], &problem, "problem", &mut faults);
    assert!(faults.is_empty(), "{faults:#?}");
}

/// A rough check: types, required members, and no members that are not documented.
fn fits(doc: &Value, schema: &Value, value: &Value, at: &str, faults: &mut Vec<String>) {
    if let Some(name) = schema["$ref"].as_str() {
        let name = name.rsplit('/').next().unwrap();
        let target = &doc["components"]["schemas"][name];
        assert!(target.is_object(), "{at}: no schema {name}");
        return fits(doc, target, value, at, faults);
    }
    if let Some(parts) = schema["allOf"].as_array() {
        let members: Vec<Value> = parts.iter().map(|p| resolved(doc, p)).collect();
        let known = |key: &str| members.iter().any(|m| m["properties"].get(key).is_some());
        for (key, inner) in value.as_object().unwrap() {
            match members.iter().find_map(|m| m["properties"].get(key)) {
                Some(schema) => fits(doc, schema, inner, &format!("{at}.{key}"), faults),
                None => faults.push(format!("{at}.{key} is not documented: {}", known(key))),
            }
        }
        return;
    }
    if let Some(any) = schema["oneOf"].as_array().or(schema["anyOf"].as_array()) {
        let fit = any.iter().any(|one| {
            let mut inner = Vec::new();
            fits(doc, one, value, at, &mut inner);
            inner.is_empty()
        });
        if !fit {
            faults.push(format!("{at}: {value} fits none of {any:?}"));
        }
        return;
    }
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(n) if n.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let kinds: Vec<&str> = match &schema["type"] {
        Value::String(one) => vec![one],
        Value::Array(all) => all.iter().filter_map(Value::as_str).collect(),
        _ => return,
    };
    let is_number = kind == "integer" && kinds.contains(&"number");
    if !is_number && !kinds.contains(&kind) {
        return faults.push(format!("{at} is {kind}, documented as {kinds:?}"));
    }
    if let (Some(items), false) = (value.as_array(), schema["items"].is_null()) {
        items.iter().for_each(|item| fits(doc, &schema["items"], item, &format!("{at}[]"), faults));
    }
    let (Some(members), Some(known)) = (value.as_object(), schema["properties"].as_object()) else { return };
    for required in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        if !members.contains_key(required) {
            faults.push(format!("{at}.{required} is missing"));
        }
    }
    for (key, inner) in members {
        match known.get(key) {
            Some(schema) => fits(doc, schema, inner, &format!("{at}.{key}"), faults),
            None => faults.push(format!("{at}.{key} is not documented")),
        }
    }
}

fn resolved(doc: &Value, schema: &Value) -> Value {
    match schema["$ref"].as_str() {
        Some(name) => doc["components"]["schemas"][name.rsplit('/').next().unwrap()].clone(),
        None => schema.clone(),
    }
}

#[tokio::test]
async fn the_page_loads_nothing_from_elsewhere() {
    let world = World::new().await;
    let page = world.call("GET", "/docs", &[], "").await;
    let policy = page.header("content-security-policy").unwrap();
    assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    for path in ["/docs", "/docs/page.js", "/docs/page.css"] {
        let text = world.call("GET", path, &[], "").await.body;
        assert!(!text.contains("http://") && !text.contains("https://") && !text.contains("innerHTML"), "{path}");
    }
}
