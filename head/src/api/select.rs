//! Node sets asked of the tree.

use std::collections::{BTreeMap, BTreeSet};

use engine::Engine;
use engine::driver::{Handle, Stopped};
use engine::state::{Node, NodeId, NodeName, StateUrl, Value};
use engine::time::Instant;

use crate::nodeset::{Inventory, NodeSet, NodeSetError};

/// Nodes that are read in one go: a millisecond or two, so that a list of 10,000 nodes delays no hello.
const CHUNK: usize = 256;

/// Reads something of each of these nodes, in order, without holding up the engine; nodes that are gone are left out.
///
/// # Errors
/// The engine has stopped.
pub(super) async fn read_each<T: Send + 'static>(
    handle: &Handle,
    nodes: impl IntoIterator<Item = NodeId>,
    read: impl Fn(&Engine, Instant, NodeId) -> Option<T> + Copy + Send + 'static,
) -> Result<Vec<T>, Stopped> {
    let nodes: Vec<NodeId> = nodes.into_iter().collect();
    let mut out = Vec::with_capacity(nodes.len());
    for chunk in nodes.chunks(CHUNK) {
        let chunk = chunk.to_vec();
        let part = handle.query(move |engine, now| {
            let part = chunk.into_iter().filter_map(|node| read(engine, now, node));
            part.collect::<Vec<_>>()
        });
        out.extend(part.await?);
    }
    Ok(out)
}

/// The engine's tree, as node sets see it.
pub(crate) struct TreeInventory<'a>(pub(crate) &'a Engine);

impl TreeInventory<'_> {
    fn those(&self, keep: impl Fn(&Node) -> bool) -> BTreeSet<NodeName> {
        self.0
            .tree()
            .iter()
            .filter(|node| keep(node))
            .map(|node| node.name.clone())
            .collect()
    }

    /// The ids behind a node set, by name.
    pub(super) fn select(&self, set: &NodeSet) -> Result<BTreeMap<NodeName, NodeId>, NodeSetError> {
        let names = set.resolve(self)?;
        let tree = self.0.tree();
        Ok(names
            .into_iter()
            .filter_map(|name| tree.by_name(&name).map(|node| node.id).map(|id| (name, id)))
            .collect())
    }
}

impl Inventory for TreeInventory<'_> {
    fn all(&self) -> BTreeSet<NodeName> {
        self.those(|_| true)
    }

    fn has(&self, name: &NodeName) -> bool {
        self.0.tree().by_name(name).is_some()
    }

    fn group(&self, group: &str) -> Option<BTreeSet<NodeName>> {
        Some(self.those(|node| node.groups.contains(group))).filter(|names| !names.is_empty())
    }

    /// What is known, or what is intended where nothing can be known of the url.
    fn having(&self, url: &StateUrl, value: &str) -> Result<BTreeSet<NodeName>, String> {
        let schema = self.0.schema();
        let field = schema.field(url);
        if field.is_some_and(|field| field.secret) {
            return Err(format!("{url} is secret: nodes cannot be selected by it"));
        }
        let discoverable =
            self.0.graph().is_discoverable(url) || field.is_some_and(|field| field.discoverable);
        let wanted: Option<Value> = match field {
            _ if value.is_empty() => None,
            Some(_) => schema
                .parse(url, value)
                .map_err(|error| error.to_string())?,
            None if discoverable => Some(Value::from(value)),
            None => schema
                .parse(url, value)
                .map_err(|error| error.to_string())?,
        };
        Ok(self.those(|node| {
            let values = if discoverable { &node.dsc } else { &node.cfg };
            values.get(url.as_str()) == wanted.as_ref()
        }))
    }
}
