//! What a write changed, as single cells with their old and new values: what history shows, `diff` adds up and `undo` takes back (DESIGN 2).
//!
//! A write is kept as its operations and as the operations that take it back. Both are read into cells here, so that "old" is what the
//! inverse would write and "new" is what the write wrote. Pure; the store and the API use it. Leaves out how either is stored or shown.

use std::collections::{BTreeMap, BTreeSet};

use crate::event::WriteOp;
use crate::state::{Freezer, Frozen, Node, NodeId, StateUrl, Tree, Value};

/// One thing that a write can change.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cell {
    /// Whether the cluster is frozen.
    ClusterFrozen,
    /// Who froze the group, if it is frozen.
    GroupFrozen(String),
    /// Whether the node exists.
    Exists(NodeId),
    /// Whether the node is frozen.
    Frozen(NodeId),
    /// The id of the node's parent, as text.
    Parent(NodeId),
    /// Whether the node is in this group.
    Group(NodeId, String),
    /// A word for people and tools.
    Label(NodeId, String),
    /// A Cfg value.
    Value(NodeId, StateUrl),
}

/// What cells were and became; `None`: not there, no value, not so.
pub type Cells = BTreeMap<Cell, (Option<Value>, Option<Value>)>;

impl Cell {
    /// Whose; `None`: the cluster's.
    pub fn node(&self) -> Option<NodeId> {
        match self {
            Self::ClusterFrozen | Self::GroupFrozen(_) => None,
            Self::Exists(node)
            | Self::Frozen(node)
            | Self::Parent(node)
            | Self::Group(node, _)
            | Self::Label(node, _)
            | Self::Value(node, _) => Some(*node),
        }
    }

    /// What it holds in this tree.
    pub fn get(&self, tree: &Tree, frozen: &Frozen) -> Option<Value> {
        let node = match self.node() {
            Some(node) => Some(tree.get(node)?),
            None => None,
        };
        match (self, node) {
            (Self::ClusterFrozen, _) => so(frozen.cluster),
            (Self::GroupFrozen(group), _) => frozen_by(frozen.groups.get(group)),
            (Self::Exists(_), node) => so(node.is_some()),
            (Self::Frozen(_), Some(node)) => so(node.frozen),
            (Self::Parent(_), Some(node)) => node.parent.map(named),
            (Self::Group(_, group), Some(node)) => so(node.groups.contains(group)),
            (Self::Label(_, label), Some(node)) => node
                .labels
                .get(label)
                .map(|text| Value::from(text.as_str())),
            (Self::Value(_, url), Some(node)) => node.cfg.get(url.as_str()).cloned(),
            (_, None) => None,
        }
    }
}

/// True as a value; false is no value, as everywhere.
fn so(is: bool) -> Option<Value> {
    is.then_some(Value::Bool(true))
}

/// A parent as a value.
fn named(parent: NodeId) -> Value {
    Value::from(parent.to_string().as_str())
}

/// Who froze a group, as a value.
fn frozen_by(by: Option<&Freezer>) -> Option<Value> {
    by.map(|by| Value::from(by.to_string().as_str()))
}

/// The operation that takes `op` back, done on the tree as it is before `op`. `node` is the node that it is about, `frozen` what else
/// is. `None` when there is nothing to take back.
pub fn inverse(op: &WriteOp, node: Option<&Node>, frozen: &Frozen) -> Option<WriteOp> {
    match op {
        WriteOp::Add(node) => Some(WriteOp::Delete(node.id)),
        WriteOp::Delete(_) => node.map(|node| WriteOp::Add(Box::new(intent_of(node)))),
        WriteOp::Set { node: id, changes } => {
            let was = |url: &StateUrl| node.and_then(|node| node.cfg.get(url.as_str()).cloned());
            let changes = changes
                .iter()
                .map(|change| crate::state::Change {
                    url: change.url.clone(),
                    value: was(&change.url),
                })
                .collect();
            Some(WriteOp::Set { node: *id, changes })
        }
        WriteOp::Groups {
            node: id,
            add,
            remove,
        } => {
            let is_in = |group: &String| node.is_some_and(|node| node.groups.contains(group));
            // Groups that stay are named, too: the inverse tells what was, not only what has to be done.
            let named: BTreeSet<&String> = add.iter().chain(remove).collect();
            let (was_in, was_out): (Vec<_>, Vec<_>) =
                named.into_iter().partition(|group| is_in(group));
            let back = WriteOp::Groups {
                node: *id,
                add: was_in.into_iter().cloned().collect(),
                remove: was_out.into_iter().cloned().collect(),
            };
            Some(back)
        }
        WriteOp::Freeze { node: id, .. } => Some(WriteOp::Freeze {
            node: *id,
            frozen: node.is_some_and(|node| node.frozen),
        }),
        WriteOp::Move { node: id, .. } => Some(WriteOp::Move {
            node: *id,
            parent: node?.parent?,
        }),
        WriteOp::FreezeCluster(_) => Some(WriteOp::FreezeCluster(frozen.cluster)),
        WriteOp::FreezeGroup { group, .. } => Some(WriteOp::FreezeGroup {
            group: group.clone(),
            by: frozen.groups.get(group).cloned(),
        }),
        // Its files say what a schema was; `krakenctl extension add` with the old file takes it back.
        WriteOp::Schema { .. } => None,
        // What is taken back is on trial no more; the write's own revision is not known here.
        WriteOp::Try { .. } | WriteOp::Settle(_) => None,
    }
}

/// Does what a write did on a tree that is kept for its history alone; false when that cannot be: no such node, or one too many.
pub fn apply(tree: &mut Tree, frozen: &mut Frozen, op: &WriteOp) -> bool {
    let id = match op {
        WriteOp::Add(node) => return tree.insert((**node).clone()).is_ok(),
        WriteOp::Delete(id) => return tree.remove(*id).is_some(),
        WriteOp::FreezeCluster(to) => {
            frozen.cluster = *to;
            return true;
        }
        WriteOp::FreezeGroup { group, by } => {
            freeze_group(frozen, group, by.as_ref());
            return true;
        }
        WriteOp::Schema { .. } | WriteOp::Try { .. } | WriteOp::Settle(_) => return true,
        WriteOp::Move { node, parent } => {
            tree.set_parent(*node, Some(*parent));
            return tree.get(*node).is_some();
        }
        WriteOp::Set { node, .. } | WriteOp::Groups { node, .. } | WriteOp::Freeze { node, .. } => {
            node
        }
    };
    let Some(node) = tree.get_mut(*id) else {
        return false;
    };
    match op {
        WriteOp::Set { changes, .. } => {
            node.cfg.apply(changes.iter().cloned());
        }
        WriteOp::Groups { add, remove, .. } => {
            node.groups.extend(add.iter().cloned());
            node.groups.retain(|group| !remove.contains(group));
        }
        WriteOp::Freeze { frozen, .. } => node.frozen = *frozen,
        _ => {}
    }
    true
}

/// Freezes or thaws a group.
pub(crate) fn freeze_group(frozen: &mut Frozen, group: &str, by: Option<&Freezer>) {
    match by {
        Some(by) => frozen.groups.insert(group.to_owned(), by.clone()),
        None => frozen.groups.remove(group),
    };
}

/// The node that an operation is about.
pub fn node_of(op: &WriteOp) -> Option<NodeId> {
    match op {
        WriteOp::Add(node) => Some(node.id),
        WriteOp::Delete(node)
        | WriteOp::Set { node, .. }
        | WriteOp::Groups { node, .. }
        | WriteOp::Freeze { node, .. }
        | WriteOp::Move { node, .. } => Some(*node),
        WriteOp::FreezeCluster(_)
        | WriteOp::FreezeGroup { .. }
        | WriteOp::Schema { .. }
        | WriteOp::Try { .. }
        | WriteOp::Settle(_) => None,
    }
}

/// A node without what is observed of it.
fn intent_of(node: &Node) -> Node {
    Node {
        groups: node.groups.clone(),
        labels: node.labels.clone(),
        cfg: node.cfg.clone(),
        frozen: node.frozen,
        ..Node::new(node.id, node.name.clone(), node.parent)
    }
}

/// What a write changed: `inverse` takes `ops` back, in the order in which it would have to be done. Cells that are as before are left out.
pub fn cells(ops: &[WriteOp], inverse: &[WriteOp]) -> Cells {
    let (mut new, mut old) = (written(ops), written(inverse));
    let mut cells = Cells::new();
    for (cell, value) in std::mem::take(&mut new) {
        let was = old.remove(&cell).flatten();
        cells.insert(cell, (was, value));
    }
    for (cell, was) in old {
        cells.insert(cell, (was, None));
    }
    cells.retain(|_, (old, new)| old != new);
    cells
}

/// The nodes that these cells name as parents.
pub fn parents(cells: &Cells) -> BTreeSet<NodeId> {
    let of = cells
        .iter()
        .filter(|(cell, _)| matches!(cell, Cell::Parent(_)));
    let values = of.flat_map(|(_, (old, new))| [old, new]).flatten();
    values
        .filter_map(|value| value.as_text()?.parse().ok())
        .collect()
}

/// Adds what a later write changed: the oldest value and the newest stay.
pub fn add_up(cells: &mut Cells, later: Cells) {
    for (cell, (was, is)) in later {
        cells
            .entry(cell)
            .and_modify(|(_, newest)| *newest = is.clone())
            .or_insert((was, is));
    }
    cells.retain(|_, (old, new)| old != new);
}

/// What the cells hold after these operations.
fn written(ops: &[WriteOp]) -> BTreeMap<Cell, Option<Value>> {
    let mut out = BTreeMap::new();
    for op in ops {
        match op {
            WriteOp::Add(node) => {
                let id = node.id;
                out.insert(Cell::Exists(id), so(true));
                out.insert(Cell::Parent(id), node.parent.map(named));
                out.insert(Cell::Frozen(id), so(node.frozen));
                let groups = node
                    .groups
                    .iter()
                    .map(|group| (Cell::Group(id, group.clone()), so(true)));
                let labels = node.labels.iter();
                let labels = labels.map(|(name, text)| {
                    (
                        Cell::Label(id, name.clone()),
                        Some(Value::from(text.as_str())),
                    )
                });
                let values = node.cfg.iter();
                let values =
                    values.map(|(url, value)| (Cell::Value(id, url.clone()), Some(value.clone())));
                out.extend(groups.chain(labels).chain(values));
            }
            WriteOp::Delete(id) => {
                let its = out.iter_mut().filter(|(cell, _)| cell.node() == Some(*id));
                its.for_each(|(_, value)| *value = None);
                out.insert(Cell::Exists(*id), None);
            }
            WriteOp::Set { node, changes } => {
                let values = changes.iter().map(|change| {
                    let value = change.value.clone().filter(|value| !value.is_zero());
                    (Cell::Value(*node, change.url.clone()), value)
                });
                out.extend(values);
            }
            WriteOp::Groups { node, add, remove } => {
                out.extend(
                    add.iter()
                        .map(|group| (Cell::Group(*node, group.clone()), so(true))),
                );
                out.extend(
                    remove
                        .iter()
                        .map(|group| (Cell::Group(*node, group.clone()), None)),
                );
            }
            WriteOp::Freeze { node, frozen } => {
                out.insert(Cell::Frozen(*node), so(*frozen));
            }
            WriteOp::Move { node, parent } => {
                out.insert(Cell::Parent(*node), Some(named(*parent)));
            }
            WriteOp::FreezeCluster(frozen) => {
                out.insert(Cell::ClusterFrozen, so(*frozen));
            }
            WriteOp::FreezeGroup { group, by } => {
                out.insert(Cell::GroupFrozen(group.clone()), frozen_by(by.as_ref()));
            }
            WriteOp::Schema { .. } | WriteOp::Try { .. } | WriteOp::Settle(_) => {}
        }
    }
    out
}

#[cfg(test)]
mod tests;
