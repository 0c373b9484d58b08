//! How values and writes lie in the database: the schema's messages as bytes, and a text for people beside them.

use std::collections::BTreeMap;

use engine::event::{SchemaEdit, WriteOp};
use engine::extension::{REDACTED, Schema};
use engine::state::{Change, Freezer, Node, NodeId, NodeName, StateUrl, Value, Values};
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
            WriteOp::Move { node, parent } => format!("move {node} below {parent}"),
            WriteOp::FreezeCluster(true) => "freeze cluster".to_owned(),
            WriteOp::FreezeCluster(false) => "thaw cluster".to_owned(),
            WriteOp::FreezeGroup { group, by } => {
                let verb = if by.is_some() { "freeze" } else { "thaw" };
                format!("{verb} @{group}")
            }
            WriteOp::Schema { text, .. } => text.clone(),
            WriteOp::Try { until_ms } => format!("try until {until_ms}"),
            WriteOp::Settle(revision) => format!("settle {revision}"),
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

/// One operation: exactly one of the optional fields is set (`schema_edit` goes with `schema`), and `node` unless it is about the cluster or an added node.
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
    #[prost(uint64, optional, tag = "9")]
    try_until_ms: Option<u64>,
    #[prost(uint64, optional, tag = "10")]
    settle: Option<u64>,
    #[prost(message, optional, tag = "11")]
    freeze_group: Option<StoredFreeze>,
    /// The file behind `schema`.
    #[prost(message, optional, tag = "12")]
    schema_edit: Option<StoredEdit>,
    #[prost(bytes = "vec", optional, tag = "13")]
    parent: Option<Vec<u8>>,
}

/// The file of an extension before and after a write.
#[derive(Clone, PartialEq, prost::Message)]
struct StoredEdit {
    #[prost(string, tag = "1")]
    extension: String,
    #[prost(string, tag = "2")]
    before: String,
    #[prost(string, tag = "3")]
    after: String,
}

/// Who freezes a group; nobody: thaw.
#[derive(Clone, PartialEq, prost::Message)]
struct StoredFreeze {
    #[prost(string, tag = "1")]
    group: String,
    #[prost(string, optional, tag = "2")]
    by: Option<String>,
    #[prost(string, tag = "3")]
    reason: String,
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
            WriteOp::Move { node, parent } => StoredOp {
                parent: Some(parent.as_bytes().to_vec()),
                ..of(node)
            },
            WriteOp::FreezeCluster(frozen) => StoredOp {
                freeze_cluster: Some(*frozen),
                ..StoredOp::default()
            },
            WriteOp::FreezeGroup { group, by } => StoredOp {
                freeze_group: Some(StoredFreeze {
                    group: group.clone(),
                    by: by.as_ref().map(|by| by.by.clone()),
                    reason: by.as_ref().map_or_else(String::new, |by| by.reason.clone()),
                }),
                ..StoredOp::default()
            },
            WriteOp::Schema { text, edit, .. } => StoredOp {
                schema: Some(text.clone()),
                schema_edit: Some(StoredEdit {
                    extension: edit.extension.clone(),
                    before: edit.before.clone(),
                    after: edit.after.clone(),
                }),
                ..StoredOp::default()
            },
            WriteOp::Try { until_ms } => StoredOp {
                try_until_ms: Some(*until_ms),
                ..StoredOp::default()
            },
            WriteOp::Settle(revision) => StoredOp {
                settle: Some(*revision),
                ..StoredOp::default()
            },
        })
        .collect();
    StoredOps { ops }.encode_to_vec()
}

/// The operations in these bytes.
pub(super) fn decode_ops(bytes: &[u8]) -> Result<Vec<WriteOp>, String> {
    let stored =
        StoredOps::decode(bytes).map_err(|error| format!("a write cannot be read: {error}"))?;
    // A schema is not kept here, only what became different by it; see `decode_notes`.
    let ops = stored.ops.into_iter().filter(|op| op.schema.is_none());
    ops.map(decode_op).collect()
}

/// What these operations did beyond nodes, in words.
pub(super) fn decode_notes(bytes: &[u8]) -> Result<Vec<String>, String> {
    let stored =
        StoredOps::decode(bytes).map_err(|error| format!("a write cannot be read: {error}"))?;
    Ok(stored.ops.into_iter().filter_map(|op| op.schema).collect())
}

/// The files of extensions that these operations changed; those of earlier releases are not known.
pub(super) fn decode_edits(bytes: &[u8]) -> Result<Vec<SchemaEdit>, String> {
    let stored =
        StoredOps::decode(bytes).map_err(|error| format!("a write cannot be read: {error}"))?;
    let edits = stored.ops.into_iter().filter_map(|op| op.schema_edit);
    let edit = |edit: StoredEdit| SchemaEdit {
        extension: edit.extension,
        before: edit.before,
        after: edit.after,
    };
    Ok(edits.map(edit).collect())
}

fn decode_op(op: StoredOp) -> Result<WriteOp, String> {
    let bad = |error: convert::ConvertError| format!("a write cannot be read: {error}");
    let node =
        || NodeId::from_slice(&op.node).ok_or_else(|| "a write names a node by no id".to_owned());
    Ok(match op {
        StoredOp {
            add: Some(added), ..
        } => {
            let id = NodeId::from_slice(&added.id).ok_or("an added node has no id")?;
            WriteOp::Add(Box::new(convert::node_from_proto(added, id).map_err(bad)?))
        }
        StoredOp {
            delete: Some(_), ..
        } => WriteOp::Delete(node()?),
        StoredOp {
            set: Some(ref values),
            ..
        } => WriteOp::Set {
            node: node()?,
            changes: convert::changes_from_proto("set", values.values.clone()).map_err(bad)?,
        },
        StoredOp {
            groups: Some(ref groups),
            ..
        } => WriteOp::Groups {
            node: node()?,
            add: groups.add.clone(),
            remove: groups.remove.clone(),
        },
        StoredOp {
            freeze: Some(frozen),
            ..
        } => WriteOp::Freeze {
            node: node()?,
            frozen,
        },
        StoredOp {
            parent: Some(ref parent),
            ..
        } => WriteOp::Move {
            node: node()?,
            parent: NodeId::from_slice(parent).ok_or("a parent has no id")?,
        },
        StoredOp {
            freeze_cluster: Some(frozen),
            ..
        } => WriteOp::FreezeCluster(frozen),
        StoredOp {
            freeze_group: Some(StoredFreeze { group, by, reason }),
            ..
        } => WriteOp::FreezeGroup {
            group,
            by: by.map(|by| Freezer { by, reason }),
        },
        StoredOp {
            try_until_ms: Some(until_ms),
            ..
        } => WriteOp::Try { until_ms },
        StoredOp {
            settle: Some(revision),
            ..
        } => WriteOp::Settle(revision),
        StoredOp { .. } => {
            return Err("a write holds an operation that this release does not know".into());
        }
    })
}

/// Names by id, as history keeps them.
#[derive(Clone, PartialEq, prost::Message)]
struct StoredNames {
    #[prost(message, repeated, tag = "1")]
    names: Vec<StoredName>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct StoredName {
    #[prost(bytes = "vec", tag = "1")]
    node: Vec<u8>,
    #[prost(string, tag = "2")]
    name: String,
}

/// Names by id.
pub(super) fn encode_names(names: &BTreeMap<NodeId, NodeName>) -> Vec<u8> {
    let names = names.iter().map(|(node, name)| StoredName {
        node: node.as_bytes().to_vec(),
        name: name.to_string(),
    });
    StoredNames {
        names: names.collect(),
    }
    .encode_to_vec()
}

/// The names in these bytes.
pub(super) fn decode_names(bytes: &[u8]) -> Result<BTreeMap<NodeId, NodeName>, String> {
    let stored =
        StoredNames::decode(bytes).map_err(|error| format!("names cannot be read: {error}"))?;
    let read =
        |stored: StoredName| Some((NodeId::from_slice(&stored.node)?, stored.name.parse().ok()?));
    let names: Option<BTreeMap<NodeId, NodeName>> = stored.names.into_iter().map(read).collect();
    names.ok_or_else(|| "the name of a node cannot be read".to_owned())
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
