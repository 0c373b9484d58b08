//! Operators' writes on a copy of what they touch: checked whole, made durable, and only then taken over into the tree.

use std::collections::BTreeMap;

use crate::event::{Write, WriteError, WriteOp};
use crate::extension::{REDACTED, Schema};
use crate::history::inverse;
use crate::state::{Change, MAX_VALUES, Node, NodeId, NodeName, Tree, Value};

/// Deepest chain of parents: a head, two levels of mid-level heads and room to spare (fault F23).
pub(super) const MAX_DEPTH: usize = 8;

/// Urls whose values no two nodes may share.
const UNIQUE: [&str; 2] = ["/ipv4/boot/mac", "/ipv4/boot/address"];

/// The tree with the writes of one commit laid over it.
pub(super) struct Stage<'a> {
    tree: &'a Tree,
    schema: &'a Schema,
    head: NodeId,
    touched: BTreeMap<NodeId, Option<Node>>,
    unique: Option<BTreeMap<(usize, String), NodeId>>,
    revision: u64,
    frozen: bool,
}

/// What a commit of writes turns into once it is durable.
#[derive(Debug, Default)]
pub(super) struct Staged {
    /// Nodes after the writes; `None`: deleted.
    pub(super) touched: BTreeMap<NodeId, Option<Node>>,
    /// Revision after them.
    pub(super) revision: u64,
    /// Whether the cluster is frozen after them.
    pub(super) frozen: bool,
}

/// A write that passed, in the form to store.
pub(super) struct Checked {
    pub(super) ops: Vec<WriteOp>,
    /// Takes `ops` back, in this order.
    pub(super) inverse: Vec<WriteOp>,
    pub(super) revision: u64,
    /// Nodes that it is about.
    pub(super) names: BTreeMap<NodeId, NodeName>,
}

impl<'a> Stage<'a> {
    pub(super) fn new(
        tree: &'a Tree,
        schema: &'a Schema,
        head: NodeId,
        revision: u64,
        frozen: bool,
    ) -> Self {
        Self {
            tree,
            schema,
            head,
            touched: BTreeMap::new(),
            unique: None,
            revision,
            frozen,
        }
    }

    pub(super) fn finish(self) -> Staged {
        Staged {
            touched: self.touched,
            revision: self.revision,
            frozen: self.frozen,
        }
    }

    /// Lays one write over the rest, whole or not at all.
    pub(super) fn write(&mut self, write: &Write) -> Result<Checked, WriteError> {
        if write.if_revision != 0 && write.if_revision != self.revision {
            return Err(WriteError::Conflict {
                expected: write.if_revision,
                is: self.revision,
            });
        }
        let before = (self.touched.clone(), self.frozen);
        let unique = self.unique.clone();
        let result = self.ops(&write.ops);
        if result.is_err() {
            (self.touched, self.frozen) = before;
            self.unique = unique;
        }
        result
    }

    /// Lays these operations over the rest; after an error the stage holds some of them.
    pub(super) fn ops(&mut self, ops: &[WriteOp]) -> Result<Checked, WriteError> {
        let revision = self.revision + 1;
        let mut checked = Vec::with_capacity(ops.len());
        let mut back = Vec::with_capacity(ops.len());
        let mut names = BTreeMap::new();
        for op in ops {
            let node = node_of(op);
            let mut undo = inverse(op, node.and_then(|node| self.get(node)), self.frozen);
            let (op, name) = self.op(op, revision)?;
            if let (Some(WriteOp::Set { changes: old, .. }), WriteOp::Set { changes, .. }) =
                (&mut undo, &op)
                && old.len() != changes.len()
            {
                // What came as the redaction mark is left as it is, and so it is by an undo.
                old.retain(|old| changes.iter().any(|change| change.url == old.url));
            }
            back.extend(undo);
            names.extend(node.zip(name));
            checked.push(op);
        }
        back.reverse();
        self.revision = revision;
        Ok(Checked {
            ops: checked,
            inverse: back,
            revision,
            names,
        })
    }

    fn op(
        &mut self,
        op: &WriteOp,
        revision: u64,
    ) -> Result<(WriteOp, Option<NodeName>), WriteError> {
        Ok(match op {
            WriteOp::Add(node) => {
                let node = self.add(node, revision)?;
                let name = node.name.clone();
                (WriteOp::Add(Box::new(node)), Some(name))
            }
            WriteOp::Delete(id) => {
                let name = self.delete(*id)?;
                (op.clone(), Some(name))
            }
            WriteOp::Set { node, changes } => {
                let changes = self.checked_changes(changes)?;
                let name = self.set(*node, &changes, revision)?;
                (
                    WriteOp::Set {
                        node: *node,
                        changes,
                    },
                    Some(name),
                )
            }
            WriteOp::Groups { node, add, remove } => {
                if let Some(bad) = add.iter().find(|group| group.parse::<NodeName>().is_err()) {
                    return Err(WriteError::Invalid(format!(
                        "{bad:?} is no group name: use letters, digits, '-' and '.'"
                    )));
                }
                let entry = self.touch(*node, revision)?;
                entry.groups.extend(add.iter().cloned());
                entry.groups.retain(|group| !remove.contains(group));
                (op.clone(), Some(entry.name.clone()))
            }
            WriteOp::Freeze { node, frozen } => {
                let entry = self.touch(*node, revision)?;
                entry.frozen = *frozen;
                (op.clone(), Some(entry.name.clone()))
            }
            WriteOp::FreezeCluster(frozen) => {
                self.frozen = *frozen;
                (op.clone(), None)
            }
        })
    }

    fn get(&self, id: NodeId) -> Option<&Node> {
        match self.touched.get(&id) {
            Some(node) => node.as_ref(),
            None => self.tree.get(id),
        }
    }

    fn touch(&mut self, id: NodeId, revision: u64) -> Result<&mut Node, WriteError> {
        let entry = self
            .touched
            .entry(id)
            .or_insert_with(|| self.tree.get(id).cloned());
        let node = entry.as_mut().ok_or(WriteError::NoSuchNode(id))?;
        node.cfg_revision = revision;
        Ok(node)
    }

    fn add(&mut self, node: &Node, revision: u64) -> Result<Node, WriteError> {
        let mut new = Node::new(
            node.id,
            node.name.clone(),
            Some(node.parent.unwrap_or(self.head)),
        );
        if node.id == self.head {
            new.parent = None;
        }
        new.groups = node.groups.clone();
        new.labels = node.labels.clone();
        new.frozen = node.frozen;
        new.cfg_revision = revision;
        if let Some(other) = self.get(node.id) {
            return Err(WriteError::Taken(format!(
                "id {} belongs to node {} already",
                node.id, other.name
            )));
        }
        if let Some(other) = self.holder_of_name(&node.name) {
            return Err(WriteError::Taken(format!(
                "node {} exists already (id {other})",
                node.name
            )));
        }
        self.check_parents(&new)?;
        let changes = self.checked_changes(&node.cfg.to_changes())?;
        self.touched.insert(node.id, Some(new));
        self.set(node.id, &changes, revision)?;
        let added = self.get(node.id).cloned();
        added.ok_or(WriteError::NoSuchNode(node.id))
    }

    fn holder_of_name(&self, name: &NodeName) -> Option<NodeId> {
        let staged = self
            .touched
            .values()
            .flatten()
            .find(|node| node.name == *name);
        let settled = self
            .tree
            .by_name(name)
            .filter(|node| !self.touched.contains_key(&node.id));
        staged.or(settled).map(|node| node.id)
    }

    fn check_parents(&self, node: &Node) -> Result<(), WriteError> {
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
            "node {} has more than {MAX_DEPTH} ancestors",
            node.name
        )))
    }

    fn delete(&mut self, id: NodeId) -> Result<NodeName, WriteError> {
        let name = self.get(id).ok_or(WriteError::NoSuchNode(id))?.name.clone();
        if id == self.head {
            return Err(WriteError::Invalid(format!(
                "node {name} is this head: it cannot be deleted"
            )));
        }
        let is_child = |node: &&Node| node.parent == Some(id);
        let staged = self.touched.values().flatten().find(is_child);
        let settled = self
            .tree
            .iter()
            .find(|node| is_child(node) && !self.touched.contains_key(&node.id));
        if let Some(child) = staged.or(settled) {
            return Err(WriteError::Invalid(format!(
                "node {name} is the parent of {}: move or delete its children first",
                child.name
            )));
        }
        self.touched.insert(id, None);
        self.unique = None;
        Ok(name)
    }

    fn set(
        &mut self,
        id: NodeId,
        changes: &[Change],
        revision: u64,
    ) -> Result<NodeName, WriteError> {
        for change in changes {
            self.claim(id, change)?;
        }
        let node = self.touch(id, revision)?;
        node.cfg.apply(changes.iter().cloned());
        if node.cfg.len() > MAX_VALUES {
            return Err(WriteError::Invalid(format!(
                "node {} would have more than {MAX_VALUES} values",
                node.name
            )));
        }
        Ok(node.name.clone())
    }

    fn checked_changes(&self, changes: &[Change]) -> Result<Vec<Change>, WriteError> {
        let mut checked = Vec::with_capacity(changes.len());
        for change in changes {
            let value = match &change.value {
                Some(Value::Text(text)) if &**text == REDACTED => {
                    if self
                        .schema
                        .field(&change.url)
                        .is_some_and(|field| field.secret)
                    {
                        continue;
                    }
                    change.value.clone()
                }
                value => value.clone(),
            };
            let value = match value {
                Some(value) => self
                    .schema
                    .check(&change.url, value)
                    .map_err(|error| WriteError::Invalid(error.to_string()))?,
                None => None,
            };
            checked.push(Change {
                url: change.url.clone(),
                value,
            });
        }
        Ok(checked)
    }

    /// Refuses a value of a unique url that another node has.
    fn claim(&mut self, id: NodeId, change: &Change) -> Result<(), WriteError> {
        let Some(kind) = UNIQUE.iter().position(|url| *url == change.url.as_str()) else {
            return Ok(());
        };
        let mut holders = match self.unique.take() {
            Some(holders) => holders,
            None => self.unique_values(),
        };
        if let Some(old) = self
            .get(id)
            .and_then(|node| node.cfg.get(change.url.as_str()))
            .and_then(|value| unique_key(kind, value))
        {
            holders.remove(&old);
        }
        let key = change
            .value
            .as_ref()
            .and_then(|value| unique_key(kind, value));
        let taken = key
            .as_ref()
            .and_then(|key| holders.get(key).map(|other| (key.1.clone(), *other)));
        if let Some(key) = key
            && taken.is_none()
        {
            holders.insert(key, id);
        }
        self.unique = Some(holders);
        let name = |id| {
            self.get(id)
                .map_or_else(|| "?".into(), |node| node.name.to_string())
        };
        match taken {
            Some((value, other)) => Err(WriteError::Taken(format!(
                "{} {value} of node {} belongs to node {} already",
                change.url,
                name(id),
                name(other)
            ))),
            None => Ok(()),
        }
    }

    fn unique_values(&self) -> BTreeMap<(usize, String), NodeId> {
        let settled = self
            .tree
            .iter()
            .filter(|node| !self.touched.contains_key(&node.id));
        let mut holders = BTreeMap::new();
        for node in settled.chain(self.touched.values().flatten()) {
            for (kind, url) in UNIQUE.iter().enumerate() {
                if let Some(key) = node.cfg.get(url).and_then(|value| unique_key(kind, value)) {
                    holders.insert(key, node.id);
                }
            }
        }
        holders
    }
}

/// The node that an operation is about.
fn node_of(op: &WriteOp) -> Option<NodeId> {
    match op {
        WriteOp::Add(node) => Some(node.id),
        WriteOp::Delete(node)
        | WriteOp::Set { node, .. }
        | WriteOp::Groups { node, .. }
        | WriteOp::Freeze { node, .. } => Some(*node),
        WriteOp::FreezeCluster(_) => None,
    }
}

/// What must differ between nodes: a MAC as it is, an address without its prefix length.
fn unique_key(kind: usize, value: &Value) -> Option<(usize, String)> {
    let text = value.as_text()?;
    let text = text.split_once('/').map_or(text, |(address, _)| address);
    Some((kind, text.to_owned()))
}
