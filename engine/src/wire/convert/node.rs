//! Nodes as operators see them (node.proto).

use std::collections::{BTreeMap, BTreeSet};

use proto::v1;

use super::{
    ConvertError, Fault, Within, at_most, convert_items, no_longer, node_id_from_proto,
    values_from_proto, values_to_proto,
};
use crate::state::{Node, NodeId, NodeName};

/// Most groups or labels of a node.
const MAX_GROUPS: usize = 64;
/// Longest group name or label key.
const MAX_WORD_BYTES: usize = 64;
/// Longest text of a label.
const MAX_LABEL_BYTES: usize = 256;

/// What the head knows of a node beyond its tree.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct NodeFacts {
    /// When the agent was last heard, milliseconds since the Unix epoch; 0: never.
    pub last_seen_ms: u64,
    /// The node is the answering head.
    pub is_head: bool,
}

/// A node as a message. Secrets are in it: whoever shows it to people redacts them first.
pub fn node_to_proto(node: &Node, facts: NodeFacts) -> v1::Node {
    v1::Node {
        id: node.id.as_bytes().to_vec(),
        name: node.name.to_string(),
        parent_id: node
            .parent
            .map_or_else(Vec::new, |parent| parent.as_bytes().to_vec()),
        groups: node.groups.iter().cloned().collect(),
        labels: node
            .labels
            .iter()
            .map(|(key, text)| (key.clone(), text.clone()))
            .collect(),
        cfg: Some(values_to_proto(&node.cfg)),
        dsc: Some(values_to_proto(&node.dsc)),
        cfg_revision: node.cfg_revision,
        frozen: node.frozen,
        last_seen_ms: facts.last_seen_ms,
        is_head: facts.is_head,
        parent_name: String::new(),
        stopped_by: Vec::new(),
        trials: Vec::new(),
    }
}

/// A node out of a message; `new_id` is its id if the message leaves the choice to us. Dsc, revision and time are not taken over.
///
/// # Errors
/// No node name; ids, groups, labels or values that break a limit.
pub fn node_from_proto(node: v1::Node, new_id: NodeId) -> Result<Node, ConvertError> {
    let id = if node.id.is_empty() {
        new_id
    } else {
        node_id_from_proto(&node.id).within("id")?
    };
    let parent = match &node.parent_id[..] {
        [] => None,
        bytes => Some(node_id_from_proto(bytes).within("parent_id")?),
    };
    let name: NodeName = node.name.parse().map_err(Fault::Name).within("name")?;
    let group = |name: String| {
        word(&name)
            .map(|()| name.clone())
            .map_err(ConvertError::from)
    };
    let groups: BTreeSet<String> = convert_items("groups", MAX_GROUPS, node.groups, group)?
        .into_iter()
        .collect();
    at_most(MAX_GROUPS, node.labels.len()).within("labels")?;
    let labels: BTreeMap<String, String> = node.labels.into_iter().collect();
    for (key, text) in &labels {
        word(key).within("labels")?;
        no_longer(MAX_LABEL_BYTES, text.len())
            .within(key)
            .within("labels")?;
    }
    let cfg = node
        .cfg
        .map(values_from_proto)
        .transpose()
        .within("cfg")?
        .unwrap_or_default();
    let mut out = Node::new(id, name, parent);
    out.groups = groups;
    out.labels = labels;
    out.cfg = cfg;
    out.frozen = node.frozen;
    Ok(out)
}

fn word(text: &str) -> Result<(), Fault> {
    no_longer(MAX_WORD_BYTES, text.len())?;
    if text.is_empty() {
        return Err(Fault::Missing);
    }
    let fits = |b: u8| b.is_ascii_alphanumeric() || b"_.-".contains(&b);
    if text.bytes().all(fits) {
        Ok(())
    } else {
        Err(Fault::Word)
    }
}
