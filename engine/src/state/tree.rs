//! All nodes that this engine answers for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{Node, NodeId, NodeName, Value, Values};
use crate::index::Index;

/// Urls of Cfg whose values no two nodes may share.
const UNIQUE: [&str; 2] = ["/ipv4/boot/mac", "/ipv4/boot/address"];

/// Nodes by id, by name, and by what no two may share. The head's tree holds the cluster; an agent's holds itself.
#[derive(Clone, Debug, Default)]
pub struct Tree {
    /// Shared with those who read the whole tree as it was at one instant; a node that they still hold is copied when it changes.
    nodes: Index<NodeId, Arc<Node>>,
    ids: BTreeSet<NodeId>,
    names: BTreeMap<NodeName, NodeId>,
    holders: BTreeMap<UniqueKey, NodeId>,
    /// Number of children; nodes without are not in here.
    children: BTreeMap<NodeId, usize>,
}

/// Something that at most one node may have: a MAC as it is, an address without its prefix length.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct UniqueKey {
    url: usize,
    text: Box<str>,
}

impl UniqueKey {
    /// The key of a value of Cfg; `None` where nodes may have the same.
    pub fn of(url: &str, value: &Value) -> Option<Self> {
        let url = UNIQUE.iter().position(|unique| *unique == url)?;
        let text = value.as_text()?;
        let text = text.split_once('/').map_or(text, |(address, _)| address);
        Some(Self {
            url,
            text: text.into(),
        })
    }

    /// All keys of a node's Cfg.
    pub fn all(cfg: &Values) -> impl Iterator<Item = Self> {
        let keys = UNIQUE.iter().map(|url| Self::of(url, cfg.get(url)?));
        keys.flatten()
    }

    /// What must be unique, as text.
    pub fn text(&self) -> &str {
        &self.text
    }
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
        self.nodes.get(&id).map(Arc::as_ref)
    }

    /// The node with this id, as it stays for whoever holds it.
    pub fn share(&self, id: NodeId) -> Option<Arc<Node>> {
        self.nodes.get(&id).cloned()
    }

    /// All nodes as they stay for whoever holds them, ordered by id.
    pub fn share_all(&self) -> impl Iterator<Item = Arc<Node>> {
        self.ids.iter().filter_map(|id| self.share(*id))
    }

    /// The nodes by id as they stay for whoever holds them, without what finds them by anything else.
    pub fn still(&self) -> Self {
        Self {
            nodes: self.nodes.clone(),
            ids: self.ids.clone(),
            ..Self::default()
        }
    }

    /// The node with this id, to be changed. Its id, name, parent and Cfg must stay as they are.
    pub fn get_mut(&mut self, id: NodeId) -> Option<&mut Node> {
        self.nodes.get_mut(&id).map(Arc::make_mut)
    }

    /// The node with this name.
    pub fn by_name(&self, name: &NodeName) -> Option<&Node> {
        self.get(*self.names.get(name)?)
    }

    /// The node whose Cfg has this value, which no two may share.
    pub fn holder(&self, key: &UniqueKey) -> Option<NodeId> {
        self.holders.get(key).copied()
    }

    /// The parent of a node, the parent's parent, and so on.
    pub fn above(&self, id: NodeId) -> impl Iterator<Item = NodeId> {
        let parent = |id: NodeId| self.get(id)?.parent;
        // Nodes that are above each other cannot be written, but a database can be damaged.
        std::iter::successors(parent(id), move |id| parent(*id)).take(self.nodes.len())
    }

    /// Number of nodes whose parent is `id`.
    pub fn children(&self, id: NodeId) -> usize {
        self.children.get(&id).copied().unwrap_or_default()
    }

    /// Gives a node another Cfg.
    pub fn set_cfg(&mut self, id: NodeId, cfg: Values) {
        let Some(node) = self.get_mut(id) else {
            return;
        };
        let old = std::mem::replace(&mut node.cfg, cfg);
        let new: Vec<UniqueKey> = UniqueKey::all(&node.cfg).collect();
        self.give_up(id, &old);
        self.holders.extend(new.into_iter().map(|key| (key, id)));
    }

    /// Gives a node another parent.
    pub fn set_parent(&mut self, id: NodeId, parent: Option<NodeId>) {
        if let Some(node) = self.get_mut(id).filter(|node| node.parent != parent) {
            let old = std::mem::replace(&mut node.parent, parent);
            self.count_child(old, -1);
            self.count_child(parent, 1);
        }
    }

    /// A parent has one child more, or less.
    fn count_child(&mut self, parent: Option<NodeId>, change: isize) {
        let Some(parent) = parent else { return };
        match self.children(parent).saturating_add_signed(change) {
            0 => self.children.remove(&parent),
            count => self.children.insert(parent, count),
        };
    }

    /// A holder that took a value over in the same write keeps it.
    fn give_up(&mut self, id: NodeId, cfg: &Values) {
        for key in UniqueKey::all(cfg) {
            if self.holders.get(&key) == Some(&id) {
                self.holders.remove(&key);
            }
        }
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
        let keys = UniqueKey::all(&node.cfg).map(|key| (key, node.id));
        self.holders.extend(keys);
        self.count_child(node.parent, 1);
        self.ids.insert(node.id);
        self.nodes.insert(node.id, Arc::new(node));
        Ok(())
    }

    /// Takes a node out.
    pub fn remove(&mut self, id: NodeId) -> Option<Node> {
        let node = Arc::unwrap_or_clone(self.nodes.swap_remove(&id)?);
        self.ids.remove(&id);
        self.names.remove(&node.name);
        self.give_up(id, &node.cfg);
        self.count_child(node.parent, -1);
        Some(node)
    }

    /// All nodes, ordered by id.
    pub fn iter(&self) -> impl Iterator<Item = &Node> {
        self.ids.iter().filter_map(|id| self.get(*id))
    }

    /// All nodes, ordered by name.
    pub fn iter_by_name(&self) -> impl Iterator<Item = &Node> {
        self.names.values().filter_map(|id| self.get(*id))
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
