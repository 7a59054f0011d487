//! The JSON Schema of the file, for editors: `doorbell check --schema`. Made from the structs of `written`; the keys of
//! each runner come from `doorbell_agents`.

use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::written::{AgentTable, ContractTable, RetentionTable, ServerTable, SourceTable, StoreTable, TriggerTable};

/// The schema, JSON Schema 2020-12.
pub fn schema() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|s| {
        s.inline_subschemas = true;
        s.meta_schema = None;
    });
    let mut generator = settings.into_generator();
    let mut agent = table::<AgentTable>(&mut generator);
    for kind in doorbell_agents::KINDS {
        for setting in kind.settings {
            let about = format!("runner = \"{}\": {}", kind.name, setting.about);
            let known =
                agent["properties"].get(setting.name).and_then(|p| p["description"].as_str()).map(str::to_owned);
            let about = known.map_or(about.clone(), |known| format!("{known}\n{about}"));
            agent["properties"][setting.name] = json!({ "description": about });
        }
    }
    let source = table::<SourceTable>(&mut generator);
    let mut trigger = table::<TriggerTable>(&mut generator);
    if let (Some(into), Some(from)) = (trigger["properties"].as_object_mut(), source["properties"].as_object()) {
        for (key, schema) in from {
            into.entry(key).or_insert_with(|| schema.clone());
        }
    }
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "doorbell.toml",
        "type": "object",
        "additionalProperties": false,
        "properties": {
            "server": table::<ServerTable>(&mut generator),
            "store": table::<StoreTable>(&mut generator),
            "agents": named(agent),
            "sources": named(source),
            "triggers": named(trigger),
            "contracts": named(table::<ContractTable>(&mut generator)),
            "retention": table::<RetentionTable>(&mut generator),
        }
    })
}

fn named(table: Value) -> Value {
    json!({"type": "object", "propertyNames": {"pattern": "^[a-z0-9][a-z0-9-]{0,62}$"}, "additionalProperties": table})
}

fn table<T: schemars::JsonSchema>(generator: &mut SchemaGenerator) -> Value {
    let mut schema = generator.subschema_for::<T>().to_value();
    if let Some(keys) = schema.get_mut("properties").and_then(Value::as_object_mut) {
        keys.values_mut().for_each(not_null);
    }
    schema
}

/// A key is there or not there; TOML has no null, which `Option` would let in.
fn not_null(schema: &mut Value) {
    if let Some(types) = schema.get_mut("type") {
        let first = types.as_array().and_then(|all| all.iter().find(|t| **t != "null")).cloned();
        if let Some(first) = first {
            *types = first;
        }
    }
    if let Some(any) = schema.get_mut("anyOf").and_then(Value::as_array_mut) {
        any.retain(|s| s.get("type") != Some(&json!("null")));
    }
    if let Some(words) = schema.get_mut("enum").and_then(Value::as_array_mut) {
        words.retain(|w| !w.is_null());
    }
    if let Some(keys) = schema.get_mut("properties").and_then(Value::as_object_mut) {
        keys.values_mut().for_each(not_null);
    }
}

/// Every key of the file with its description, by the path of its table: `agents.*.timeout`.
pub fn keys() -> Map<String, Value> {
    let schema = schema();
    let mut all = Map::new();
    let tables = schema["properties"].as_object().into_iter().flatten();
    for (table, described) in tables {
        let (path, keys) = match described.get("additionalProperties").and_then(|t| t.get("properties")) {
            Some(keys) => (format!("{table}.*"), keys),
            None => (table.clone(), &described["properties"]),
        };
        for (key, about) in keys.as_object().into_iter().flatten() {
            all.insert(format!("{path}.{key}"), about["description"].clone());
        }
    }
    all
}
