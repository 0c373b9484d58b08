//! Nodes in YAML or JSON, for `node add -f`. Reads what `node list -o yaml` prints, too.
//!
//! What only a head knows (Dsc, revisions, when a node was seen) is accepted and left out, as is the head's own entry; a misspelled
//! key is an error with the nearest spelling.

use std::collections::BTreeMap;

use engine::extension::{REDACTED, Schema, nearest};
use proto::v1;
use serde_json::Value as Json;
use uuid::Uuid;

use crate::exit::Failure;
use crate::node::spec::{Spec, template};
use crate::template::Template;
use crate::{names, value};

/// What a document holds.
#[derive(Clone, Debug, Default)]
pub(crate) struct Document {
    pub(crate) nodes: Vec<v1::Node>,
    /// What was left out and should be known.
    pub(crate) notes: Vec<String>,
}

/// Keys that describe a node.
const KEYS: &[&str] = &[
    "name",
    "nodes",
    "id",
    "parent_id",
    "groups",
    "labels",
    "cfg",
];
/// Keys that `node list` prints and nobody can set.
const OUTPUT_KEYS: &[&str] = &[
    "parent_name",
    "dsc",
    "frozen",
    "is_head",
    "cfg_revision",
    "last_seen_ms",
    "trials",
];

/// Reads a list of nodes, or a single one.
pub(crate) fn read(text: &str, schema: &Schema) -> Result<Document, Failure> {
    let document: Json = serde_saphyr::from_str(text)
        .map_err(|error| Failure::usage(format!("not YAML or JSON: {error}")))?;
    let entries = match document {
        Json::Array(entries) => entries,
        entry @ Json::Object(_) => vec![entry],
        _ => {
            return Err(Failure::usage(
                "a list of nodes is wanted; `krakenctl node add --help` shows one",
            ));
        }
    };
    let mut document = Document::default();
    for (at, entry) in entries.iter().enumerate() {
        read_entry(entry, schema, &mut document).map_err(|failure| Failure {
            text: format!("entry {}: {}", at + 1, failure.text),
            ..failure
        })?;
    }
    if document.nodes.is_empty() {
        return Err(Failure::usage("there is no node in it"));
    }
    Ok(document)
}

fn read_entry(entry: &Json, schema: &Schema, out: &mut Document) -> Result<(), Failure> {
    let Json::Object(entry) = entry else {
        return Err(Failure::usage("a map with name and cfg is wanted"));
    };
    for key in entry.keys() {
        if !KEYS.contains(&key.as_str()) && !OUTPUT_KEYS.contains(&key.as_str()) {
            let failure = Failure::usage(format!("{key:?} is not a key of a node"));
            let near = nearest(key, KEYS.iter().copied());
            return Err(failure.hint(match near {
                Some(near) => format!("did you mean {near:?}?"),
                None => format!("keys are {}", KEYS.join(", ")),
            }));
        }
    }
    let (names, has_places) = match (entry.get("name"), entry.get("nodes")) {
        (Some(Json::String(name)), None) => (vec![name.clone()], false),
        (None, Some(Json::String(list))) => (
            names::expand(list).map_err(|error| Failure::usage(error.to_string()))?,
            true,
        ),
        (Some(_), Some(_)) => return Err(Failure::usage("`name` and `nodes` exclude each other")),
        (None, None) => {
            return Err(Failure::usage(
                "`name` (one node) or `nodes` (a list of names) is missing",
            ));
        }
        _ => return Err(Failure::usage("the name of a node is a text")),
    };
    if entry.get("is_head") == Some(&Json::Bool(true)) {
        out.notes.push(format!(
            "{} is the head itself and was left out",
            names.join(",")
        ));
        return Ok(());
    }
    let mut spec = Spec {
        groups: texts(entry.get("groups"), "groups")?,
        labels: labels(entry.get("labels"))?,
        ..Spec::default()
    };
    for (url, text) in cfg(entry.get("cfg"))? {
        let url = value::parse_url(&url)?;
        if text == REDACTED {
            out.notes.push(format!(
                "{}: {url} was printed without its secret: set it again",
                names::fold(&names)
            ));
            continue;
        }
        let template = if has_places {
            template(&text)?
        } else {
            Template::literal(&text)
        };
        spec.values.push((url, template));
    }
    let mut nodes = spec.nodes(schema, &names)?;
    let (id, parent) = (
        uuid(entry.get("id"), "id")?,
        uuid(entry.get("parent_id"), "parent_id")?,
    );
    if !id.is_empty() && nodes.len() > 1 {
        return Err(Failure::usage("an `id` belongs to one node"));
    }
    for node in &mut nodes {
        node.id.clone_from(&id);
        node.parent_id.clone_from(&parent);
    }
    out.nodes.append(&mut nodes);
    Ok(())
}

fn texts(json: Option<&Json>, key: &str) -> Result<Vec<String>, Failure> {
    let bad = || Failure::usage(format!("`{key}` is a list of texts"));
    match json {
        None | Some(Json::Null) => Ok(Vec::new()),
        Some(Json::Array(items)) => items
            .iter()
            .map(|item| scalar(item).ok_or_else(bad))
            .collect(),
        Some(_) => Err(bad()),
    }
}

fn labels(json: Option<&Json>) -> Result<BTreeMap<String, String>, Failure> {
    let bad = || Failure::usage("`labels` is a map of texts");
    match json {
        None | Some(Json::Null) => Ok(BTreeMap::new()),
        Some(Json::Object(map)) => map
            .iter()
            .map(|(key, json)| Ok((key.clone(), scalar(json).ok_or_else(bad)?)))
            .collect(),
        Some(_) => Err(bad()),
    }
}

/// Urls and values as a person would type them; unset ones are left out.
fn cfg(json: Option<&Json>) -> Result<BTreeMap<String, String>, Failure> {
    let map = match json {
        None | Some(Json::Null) => return Ok(BTreeMap::new()),
        Some(Json::Object(map)) => map,
        Some(_) => return Err(Failure::usage("`cfg` is a map from url to value")),
    };
    let mut values = BTreeMap::new();
    for (url, json) in map {
        let text = match json {
            Json::Null => continue,
            Json::Array(items) => {
                let items: Option<Vec<String>> = items.iter().map(scalar).collect();
                items.map(|items| items.join(","))
            }
            json => scalar(json),
        };
        let text = text.ok_or_else(|| {
            Failure::usage(format!(
                "{url}: a value is a text, a number, true, false or a list of these"
            ))
        })?;
        values.insert(url.clone(), text);
    }
    Ok(values)
}

fn scalar(json: &Json) -> Option<String> {
    match json {
        Json::String(text) => Some(text.clone()),
        Json::Number(number) => Some(number.to_string()),
        Json::Bool(b) => Some(b.to_string()),
        _ => None,
    }
}

fn uuid(json: Option<&Json>, key: &str) -> Result<Vec<u8>, Failure> {
    match json {
        None | Some(Json::Null) => Ok(Vec::new()),
        Some(Json::String(text)) => Uuid::parse_str(text)
            .map(|id| id.as_bytes().to_vec())
            .map_err(|error| Failure::usage(format!("`{key}`: {error}"))),
        Some(_) => Err(Failure::usage(format!("`{key}` is a UUID"))),
    }
}

#[cfg(test)]
mod tests;
