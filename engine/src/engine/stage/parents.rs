//! Who is whose parent: what a write may make of it. A node is below one other node, and in the end below the head.

use super::Stage;
use crate::event::{WriteError, WriteOp};
use crate::state::{Node, NodeId, NodeName};

/// Deepest chain of parents: a head, two levels of mid-level heads and room to spare (fault F23).
const MAX_DEPTH: usize = 8;

impl Stage<'_> {
    /// Refuses a node that is below itself, below nobody, or too deep.
    pub(super) fn check_parents(&self, node: &Node) -> Result<(), WriteError> {
        let mut parent = node.parent;
        for _ in 0..MAX_DEPTH {
            match parent {
                None => return Ok(()),
                Some(id) if id == node.id => {
                    return Err(WriteError::Invalid(format!(
                        "node {} would be its own ancestor",
                        node.name
                    )));
                }
                Some(id) if id == self.head => return Ok(()),
                Some(id) => {
                    parent = self
                        .get(id)
                        .ok_or_else(|| {
                            WriteError::Invalid(format!(
                                "the parent of node {} does not exist: {id}",
                                node.name
                            ))
                        })?
                        .parent;
                }
            }
        }
        Err(WriteError::Invalid(format!(
            "node {} would have more than {MAX_DEPTH} ancestors",
            node.name
        )))
    }

    /// Gives a node another parent.
    pub(super) fn reparent(
        &mut self,
        id: NodeId,
        parent: NodeId,
        revision: u64,
    ) -> Result<NodeName, WriteError> {
        let node = self.get(id).ok_or(WriteError::NoSuchNode(id))?;
        let (name, old) = (node.name.clone(), node.parent);
        let refused = |why: String| Err(WriteError::Invalid(why));
        if id == self.head {
            return refused(format!("node {name} is this head: it has no parent"));
        }
        let Some(to) = self.get(parent).map(|node| node.name.clone()) else {
            return refused(format!(
                "node {name} cannot be below {parent}: there is no such node"
            ));
        };
        if id == parent {
            return refused(format!("node {name} cannot be its own parent"));
        }
        if self.is_below(parent, id) {
            return refused(format!(
                "node {name} cannot be below {to}, which is below {name} itself: move {to} first"
            ));
        }
        for (parent, count) in [(old, -1), (Some(parent), 1)] {
            if let Some(parent) = parent {
                let count = self.children(parent).saturating_add_signed(count);
                self.children.insert(parent, count);
            }
        }
        let node = self.touch(id, revision)?;
        node.parent = Some(parent);
        let node = node.clone();
        self.check_parents(&node)?;
        Ok(name)
    }

    /// Whether `id` is somewhere below `above`.
    fn is_below(&self, id: NodeId, above: NodeId) -> bool {
        let parent = |id: &NodeId| self.get(*id)?.parent;
        let mut parents = std::iter::successors(Some(id), parent).take(MAX_DEPTH + 1);
        parents.any(|parent| parent == above)
    }

    /// Refuses moves that put what is below the moved nodes too deep.
    pub(super) fn check_below(&self, ops: &[WriteOp]) -> Result<(), WriteError> {
        let moves_some = ops.iter().any(|op| match op {
            WriteOp::Move { node, .. } => self.children(*node) > 0,
            _ => false,
        });
        match moves_some {
            true => self.nodes().try_for_each(|node| self.check_parents(node)),
            false => Ok(()),
        }
    }
}
