//! How values and writes lie in the database: the schema's messages as bytes, and a text for people beside them.

use engine::event::WriteOp;
use engine::extension::{REDACTED, Schema};
use engine::state::{Change, Node, NodeId, StateUrl, Value, Values};
use engine::wire::convert;
use prost::Message;
use proto::v1;

/// `kraken.v1.Value`.
pub(super) fn encode(value: &Value) -> Vec<u8> {
    convert::value_to_proto(value).encode_to_vec()
}

/// The value in these bytes.
pub(super) fn decode(bytes: &[u8]) -> Result<Value, String> {
    let value =
        v1::Value::decode(bytes).map_err(|error| format!("a value cannot be read: {error}"))?;
    convert::value_from_proto(value).map_err(|error| format!("a value cannot be read: {error}"))
}

/// `kraken.v1.Values`.
pub(super) fn encode_values(values: &Values) -> Vec<u8> {
    changes(&values.to_changes()).encode_to_vec()
}

/// The values in these bytes.
pub(super) fn decode_values(bytes: &[u8]) -> Result<Values, String> {
    let values =
        v1::Values::decode(bytes).map_err(|error| format!("values cannot be read: {error}"))?;
    convert::values_from_proto(values).map_err(|error| format!("values cannot be read: {error}"))
}

fn changes(changes: &[Change]) -> v1::Values {
    v1::Values {
        values: changes.iter().map(convert::change_to_proto).collect(),
    }
}

/// What people read.
pub(super) fn readable_value(schema: &Schema, url: &StateUrl, value: &Value) -> String {
    match schema.is_secret(url) {
        true => REDACTED.to_owned(),
        false => value.to_string(),
    }
}

/// One `url=value` a line.
pub(super) fn readable(schema: &Schema, values: &Values) -> String {
    readable_changes(schema, &values.to_changes(), "\n")
}

fn readable_changes(schema: &Schema, changes: &[Change], between: &str) -> String {
    let texts: Vec<String> = changes
        .iter()
        .map(|Change { url, value }| match value {
            Some(value) => format!("{url}={}", readable_value(schema, url, value)),
            None => format!("{url}="),
        })
        .collect();
    texts.join(between)
}

/// One operation a line.
pub(super) fn readable_ops(schema: &Schema, ops: &[WriteOp]) -> String {
    let lines: Vec<String> = ops
        .iter()
        .map(|op| match op {
            WriteOp::Add(node) => {
                format!(
                    "add {} {} {}",
                    node.id,
                    node.name,
                    readable_changes(schema, &node.cfg.to_changes(), " ")
                )
            }
            WriteOp::Delete(node) => format!("delete {node}"),
            WriteOp::Set { node, changes } => {
                format!("set {node} {}", readable_changes(schema, changes, " "))
            }
            WriteOp::Groups { node, add, remove } => {
                let signs = add
                    .iter()
                    .map(|g| format!("+{g}"))
                    .chain(remove.iter().map(|g| format!("-{g}")));
                format!("groups {node} {}", signs.collect::<Vec<_>>().join(" "))
            }
            WriteOp::Freeze { node, frozen: true } => format!("freeze {node}"),
            WriteOp::Freeze {
                node,
                frozen: false,
            } => format!("thaw {node}"),
            WriteOp::FreezeCluster(true) => "freeze cluster".to_owned(),
            WriteOp::FreezeCluster(false) => "thaw cluster".to_owned(),
            WriteOp::Schema { text, .. } => text.clone(),
        })
        .collect();
    lines.join("\n")
}

/// One write in full, so that a later release can undo it. Lives in the database only.
#[derive(Clone, PartialEq, prost::Message)]
struct StoredOps {
    #[prost(message, repeated, tag = "1")]
    ops: Vec<StoredOp>,
}

/// One operation: exactly one of the optional fields is set, and `node` unless it is about the cluster or an added node.
#[derive(Clone, PartialEq, prost::Message)]
struct StoredOp {
    #[prost(bytes = "vec", tag = "1")]
    node: Vec<u8>,
    #[prost(message, optional, tag = "2")]
    add: Option<v1::Node>,
    #[prost(bool, optional, tag = "3")]
    delete: Option<bool>,
    #[prost(message, optional, tag = "4")]
    set: Option<v1::Values>,
    #[prost(message, optional, tag = "5")]
    groups: Option<StoredGroups>,
    #[prost(bool, optional, tag = "6")]
    freeze: Option<bool>,
    #[prost(bool, optional, tag = "7")]
    freeze_cluster: Option<bool>,
    /// What became different in the schema, in words: the schema itself lies in the extensions' files.
    #[prost(string, optional, tag = "8")]
    schema: Option<String>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct StoredGroups {
    #[prost(string, repeated, tag = "1")]
    add: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    remove: Vec<String>,
}

/// All operations of a write.
pub(super) fn encode_ops(ops: &[WriteOp]) -> Vec<u8> {
    let of = |node: &NodeId| StoredOp {
        node: node.as_bytes().to_vec(),
        ..StoredOp::default()
    };
    let ops = ops
        .iter()
        .map(|op| match op {
            WriteOp::Add(node) => StoredOp {
                add: Some(stored_node(node)),
                ..StoredOp::default()
            },
            WriteOp::Delete(node) => StoredOp {
                delete: Some(true),
                ..of(node)
            },
            WriteOp::Set {
                node,
                changes: list,
            } => StoredOp {
                set: Some(changes(list)),
                ..of(node)
            },
            WriteOp::Groups { node, add, remove } => {
                let groups = StoredGroups {
                    add: add.clone(),
                    remove: remove.clone(),
                };
                StoredOp {
                    groups: Some(groups),
                    ..of(node)
                }
            }
            WriteOp::Freeze { node, frozen } => StoredOp {
                freeze: Some(*frozen),
                ..of(node)
            },
            WriteOp::FreezeCluster(frozen) => StoredOp {
                freeze_cluster: Some(*frozen),
                ..StoredOp::default()
            },
            WriteOp::Schema { text, .. } => StoredOp {
                schema: Some(text.clone()),
                ..StoredOp::default()
            },
        })
        .collect();
    StoredOps { ops }.encode_to_vec()
}

fn stored_node(node: &Node) -> v1::Node {
    v1::Node {
        id: node.id.as_bytes().to_vec(),
        name: node.name.to_string(),
        parent_id: node
            .parent
            .map(|parent| parent.as_bytes().to_vec())
            .unwrap_or_default(),
        groups: node.groups.iter().cloned().collect(),
        labels: node.labels.clone().into_iter().collect(),
        cfg: Some(changes(&node.cfg.to_changes())),
        frozen: node.frozen,
        ..v1::Node::default()
    }
}
