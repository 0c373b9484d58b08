//! All nodes that this engine answers for.

use std::collections::BTreeMap;

use super::{Node, NodeId, NodeName};

/// Nodes by id and by name. The head's tree holds the cluster; an agent's holds itself.
#[derive(Clone, Debug, Default)]
pub struct Tree {
    nodes: BTreeMap<NodeId, Node>,
    names: BTreeMap<NodeName, NodeId>,
}

/// Why a node cannot be added or changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TreeError {
    /// The name is taken.
    #[error("node {name} exists already (id {id})")]
    NameTaken {
        /// The name.
        name: NodeName,
        /// Who has it.
        id: NodeId,
    },
    /// The id is taken.
    #[error("id {id} belongs to node {name} already")]
    IdTaken {
        /// The id.
        id: NodeId,
        /// Who has it.
        name: NodeName,
    },
    /// There is no such node.
    #[error("there is no node with id {0}")]
    NoSuchNode(NodeId),
}

impl Tree {
    /// The node with this id.
    pub fn get(&self, id: NodeId) -> Option<&Node> {
        self.nodes.get(&id)
    }

    /// The node with this id, to be changed. Its id and name must stay as they are.
    pub fn get_mut(&mut self, id: NodeId) -> Option<&mut Node> {
        self.nodes.get_mut(&id)
    }

    /// The node with this name.
    pub fn by_name(&self, name: &NodeName) -> Option<&Node> {
        self.nodes.get(self.names.get(name)?)
    }

    /// Adds a node; refuses a second holder of its id or name.
    pub fn insert(&mut self, node: Node) -> Result<(), TreeError> {
        if let Some(other) = self.nodes.get(&node.id) {
            return Err(TreeError::IdTaken {
                id: node.id,
                name: other.name.clone(),
            });
        }
        if let Some(id) = self.names.get(&node.name) {
            return Err(TreeError::NameTaken {
                name: node.name,
                id: *id,
            });
        }
        self.names.insert(node.name.clone(), node.id);
        self.nodes.insert(node.id, node);
        Ok(())
    }

    /// Takes a node out.
    pub fn remove(&mut self, id: NodeId) -> Option<Node> {
        let node = self.nodes.remove(&id)?;
        self.names.remove(&node.name);
        Some(node)
    }

    /// All nodes, ordered by id.
    pub fn iter(&self) -> impl Iterator<Item = &Node> {
        self.nodes.values()
    }

    /// All nodes, ordered by name.
    pub fn iter_by_name(&self) -> impl Iterator<Item = &Node> {
        self.names.values().filter_map(|id| self.nodes.get(id))
    }

    /// Number of nodes.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// True when there are no nodes.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }
}
