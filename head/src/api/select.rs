//! Node sets asked of the tree.

use std::collections::{BTreeMap, BTreeSet};

use engine::Engine;
use engine::state::{Node, NodeId, NodeName, StateUrl, Value};

use crate::nodeset::{Inventory, NodeSet, NodeSetError};

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
