//! The JSON schema of documents, for editors and other programs.

use serde_json::{Map, Value, json};
use snf_image::edit::Action;

use super::keys::{self, EDITS, Key, Kind, PROPERTIES};

/// The schema: one key for each option, and the edits.
pub(crate) fn schema() -> Value {
    let mut edits = serde_json::to_value(schemars::schema_for!(Vec<Action>)).unwrap_or_default();
    let mut definitions = Value::Null;
    if let Some(object) = edits.as_object_mut() {
        definitions = object.remove("$defs").unwrap_or_default();
        object.remove("$schema");
        object.remove("title");
        object.insert("description".into(), "Edits, made in this order.".into());
    }
    let mut keys: Map<String, Value> =
        keys::all().iter().map(|key| (key.name.clone(), of(key))).collect();
    keys.insert(EDITS.to_owned(), edits);
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A plan of snf-customize",
        "description": "What snf-customize apply --file takes: the options of apply and the edits.",
        "type": "object",
        "additionalProperties": false,
        "properties": keys,
        "$defs": definitions,
    })
}

/// The schema of one key.
fn of(key: &Key) -> Value {
    let help = key.help.split_whitespace().collect::<Vec<_>>().join(" ");
    match key.kind {
        _ if key.name == PROPERTIES => json!({
            "description": "Image properties (OSFAMILY, ROOT_PARTITION, EXCLUDE_TASK_..., ...).",
            "type": "object",
            "additionalProperties": {"type": ["string", "integer", "boolean"]},
        }),
        Kind::Flag => json!({"description": help, "type": "boolean"}),
        Kind::One if !key.values.is_empty() => json!({"description": help, "enum": key.values}),
        Kind::One if key.takes_number() => {
            json!({"description": help, "type": ["string", "integer"]})
        }
        Kind::One => json!({"description": help, "type": "string"}),
        Kind::Many => {
            json!({"description": help, "type": "array", "items": {"type": "string"}})
        }
    }
}
