//! Operators' writes on a copy of what they touch: checked whole, made durable, and only then taken over into the tree.

mod parents;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::ledger::{Ledger, MAX_TRIALS, News, Trial, repeated};
use crate::event::{Write, WriteDone, WriteError, WriteOp};
use crate::extension::{REDACTED, Schema, stranded_words};
use crate::history::{freeze_group, inverse, node_of};
use crate::state::{
    Change, Frozen, MAX_FROZEN_GROUPS, MAX_VALUES, MAX_VALUES_BYTES, Node, NodeId, NodeName, Tree,
    UniqueKey, Value,
};

/// The tree with the writes of one commit laid over it. What an operation costs does not depend on how many nodes there are, nor on how
/// many the commit has touched.
pub(super) struct Stage<'a> {
    tree: &'a Tree,
    schema: Arc<Schema>,
    head: NodeId,
    touched: Layer<NodeId, Option<Node>>,
    /// Names of added nodes; `None`: free since the node is deleted.
    names: Layer<NodeName, Option<NodeId>>,
    /// Who holds what no two nodes may share, where that differs from the tree.
    holders: Layer<UniqueKey, Option<NodeId>>,
    /// Number of children, where it differs from the tree.
    children: Layer<NodeId, usize>,
    revision: u64,
    frozen: Frozen,
    ledger: &'a Ledger,
    news: News,
    /// Answers to the writes of this commit that have a key.
    answers: BTreeMap<String, ([u8; 32], WriteDone)>,
}

/// What lies over a map, and how it was before the write under way.
struct Layer<K, V> {
    over: BTreeMap<K, V>,
    before: BTreeMap<K, Option<V>>,
}

/// What a commit of writes turns into once it is durable.
#[derive(Debug)]
pub(super) struct Staged {
    /// Nodes after the writes; `None`: deleted.
    pub(super) touched: BTreeMap<NodeId, Option<Node>>,
    /// Revision after them.
    pub(super) revision: u64,
    /// What is frozen after them.
    pub(super) frozen: Frozen,
    /// The schema after them.
    pub(super) schema: Arc<Schema>,
    /// Keys and trials.
    pub(super) news: News,
}

/// What became of a write.
pub(super) enum Wrote {
    /// It is laid over the rest.
    New(Checked),
    /// It was made by this very commit; this is the answer.
    Again(WriteDone),
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
        schema: Arc<Schema>,
        head: NodeId,
        revision: u64,
        frozen: &Frozen,
        ledger: &'a Ledger,
    ) -> Self {
        Self {
            tree,
            schema,
            head,
            touched: Layer::default(),
            names: Layer::default(),
            holders: Layer::default(),
            children: Layer::default(),
            revision,
            frozen: frozen.clone(),
            ledger,
            news: News::default(),
            answers: BTreeMap::new(),
        }
    }

    pub(super) fn finish(self) -> Staged {
        Staged {
            touched: self.touched.over,
            revision: self.revision,
            frozen: self.frozen,
            schema: self.schema,
            news: self.news,
        }
    }

    /// Lays one write over the rest, whole or not at all.
    pub(super) fn write(&mut self, write: &Write) -> Result<Wrote, WriteError> {
        // First of all: who repeats a write names the revision from before it.
        if let Some(key) = &write.key {
            self.ledger.check(key)?;
            match self.answers.get(&key.text) {
                Some((request, done)) if *request == key.request => {
                    return Ok(Wrote::Again(done.clone()));
                }
                Some((request, done)) => return Err(repeated(key, request, done.revision)),
                None => {}
            }
        }
        if write.if_revision != 0 && write.if_revision != self.revision {
            return Err(WriteError::Conflict {
                expected: write.if_revision,
                is: self.revision,
            });
        }
        let (frozen, schema, news) = (
            self.frozen.clone(),
            Arc::clone(&self.schema),
            self.news.clone(),
        );
        let result = self.ops(&write.ops);
        let keep = result.is_ok();
        self.touched.end(keep);
        self.names.end(keep);
        self.holders.end(keep);
        self.children.end(keep);
        match &result {
            Ok(checked) => {
                if let Some(key) = &write.key {
                    let done = WriteDone::of(checked.revision, &checked.names);
                    self.answers.insert(key.text.clone(), (key.request, done));
                    self.news.keys.push((key.clone(), checked.revision));
                }
            }
            Err(_) => (self.frozen, self.schema, self.news) = (frozen, schema, news),
        }
        result.map(Wrote::New)
    }

    /// Lays these operations over the rest; after an error the stage holds some of them.
    pub(super) fn ops(&mut self, ops: &[WriteOp]) -> Result<Checked, WriteError> {
        let revision = self.revision + 1;
        let mut checked = Vec::with_capacity(ops.len());
        let mut back = Vec::with_capacity(ops.len());
        let mut names = BTreeMap::new();
        for op in ops {
            let node = node_of(op);
            let mut undo = inverse(op, node.and_then(|node| self.get(node)), &self.frozen);
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
        self.check_below(ops)?;
        back.reverse();
        if let Some(trial) = self.news.tried.get_mut(&revision) {
            trial.nodes = names.keys().copied().collect();
        }
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
                let changes = self.checked_changes(*node, changes)?;
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
                add.iter().try_for_each(|group| check_group(group))?;
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
            WriteOp::Move { node, parent } => {
                let name = self.reparent(*node, *parent, revision)?;
                (op.clone(), Some(name))
            }
            WriteOp::FreezeCluster(frozen) => {
                self.frozen.cluster = *frozen;
                (op.clone(), None)
            }
            WriteOp::FreezeGroup { group, by } => {
                check_group(group)?;
                let groups = &self.frozen.groups;
                if by.is_some() && !groups.contains_key(group) && groups.len() >= MAX_FROZEN_GROUPS
                {
                    return Err(WriteError::Invalid(format!(
                        "{MAX_FROZEN_GROUPS} groups are frozen already: freeze the cluster instead (krakenctl freeze)"
                    )));
                }
                freeze_group(&mut self.frozen, group, by.as_ref());
                (op.clone(), None)
            }
            WriteOp::Try { until_ms } => {
                self.start_trial(revision, *until_ms)?;
                (op.clone(), None)
            }
            WriteOp::Settle(tried) => {
                self.settle(*tried)?;
                (op.clone(), None)
            }
            WriteOp::Schema { schema, .. } => {
                self.replace_schema(schema)?;
                (op.clone(), None)
            }
        })
    }

    fn replace_schema(&mut self, schema: &Arc<Schema>) -> Result<(), WriteError> {
        let settled = self
            .tree
            .iter()
            .filter(|node| !self.touched.over.contains_key(&node.id));
        let nodes = settled.chain(self.touched.over.values().flatten());
        let stranded = self.schema.stranded(schema, nodes);
        if !stranded.is_empty() {
            return Err(WriteError::Invalid(stranded_words(&stranded)));
        }
        self.schema = Arc::clone(schema);
        Ok(())
    }

    fn start_trial(&mut self, revision: u64, until_ms: u64) -> Result<(), WriteError> {
        if self.ledger.trials.len() + self.news.tried.len() >= MAX_TRIALS {
            return Err(WriteError::Invalid(format!(
                "{MAX_TRIALS} revisions are on trial already: confirm or undo some (krakenctl history shows them)"
            )));
        }
        let trial = Trial {
            until_ms,
            nodes: BTreeSet::new(),
        };
        self.news.tried.insert(revision, trial);
        Ok(())
    }

    fn settle(&mut self, tried: u64) -> Result<(), WriteError> {
        let is_open =
            self.ledger.trials.contains_key(&tried) || self.news.tried.contains_key(&tried);
        if is_open && self.news.settled.insert(tried) {
            self.news.tried.remove(&tried);
            return Ok(());
        }
        Err(WriteError::NotOnTrial(tried))
    }

    fn get(&self, id: NodeId) -> Option<&Node> {
        match self.touched.get(&id) {
            Some(node) => node.as_ref(),
            None => self.tree.get(id),
        }
    }

    fn touch(&mut self, id: NodeId, revision: u64) -> Result<&mut Node, WriteError> {
        let entry = self.touched.edit(id, || self.tree.get(id).cloned());
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
        // Deleted and added in one commit it is the same machine: what is known of it stays.
        let same = |old: &&Node| old.name == new.name;
        if let Some(old) = self.tree.get(node.id).filter(same) {
            new.dsc = old.dsc.clone();
        }
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
        let changes = self.checked_changes(node.id, &node.cfg.to_changes())?;
        self.names.insert(new.name.clone(), Some(node.id));
        if let Some(parent) = new.parent {
            self.children.insert(parent, self.children(parent) + 1);
        }
        self.touched.insert(node.id, Some(new));
        self.set(node.id, &changes, revision)?;
        let added = self.get(node.id).cloned();
        added.ok_or(WriteError::NoSuchNode(node.id))
    }

    fn holder_of_name(&self, name: &NodeName) -> Option<NodeId> {
        match self.names.get(name) {
            Some(holder) => *holder,
            None => self.tree.by_name(name).map(|node| node.id),
        }
    }

    fn holder(&self, key: &UniqueKey) -> Option<NodeId> {
        match self.holders.get(key) {
            Some(holder) => *holder,
            None => self.tree.holder(key),
        }
    }

    fn children(&self, id: NodeId) -> usize {
        let staged = self.children.get(&id).copied();
        staged.unwrap_or_else(|| self.tree.children(id))
    }

    /// All nodes as they are after the writes so far.
    fn nodes(&self) -> impl Iterator<Item = &Node> {
        let settled = self.tree.iter();
        let settled = settled.filter(|node| self.touched.get(&node.id).is_none());
        settled.chain(self.touched.over.values().flatten())
    }

    fn delete(&mut self, id: NodeId) -> Result<NodeName, WriteError> {
        let node = self.get(id).ok_or(WriteError::NoSuchNode(id))?;
        let (name, parent) = (node.name.clone(), node.parent);
        let keys: Vec<UniqueKey> = UniqueKey::all(&node.cfg).collect();
        if id == self.head {
            return Err(WriteError::Invalid(format!(
                "node {name} is this head: it cannot be deleted"
            )));
        }
        if self.children(id) > 0 {
            let child = self.nodes().find(|node| node.parent == Some(id));
            let child = child.map_or_else(|| "others".into(), |child| child.name.to_string());
            return Err(WriteError::Invalid(format!(
                "node {name} is the parent of {child}: move its children (krakenctl node set NODES --parent NODE) or delete them first"
            )));
        }
        for key in keys {
            self.holders.insert(key, None);
        }
        if let Some(parent) = parent {
            let left = self.children(parent).saturating_sub(1);
            self.children.insert(parent, left);
        }
        self.names.insert(name.clone(), None);
        self.touched.insert(id, None);
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
        if node.cfg.size() > MAX_VALUES_BYTES {
            return Err(WriteError::Invalid(format!(
                "the values of node {} would take more than {MAX_VALUES_BYTES} bytes",
                node.name
            )));
        }
        Ok(node.name.clone())
    }

    fn checked_changes(&self, id: NodeId, changes: &[Change]) -> Result<Vec<Change>, WriteError> {
        let mut checked = Vec::with_capacity(changes.len());
        for change in changes {
            let value = match &change.value {
                Some(Value::Text(text))
                    if &**text == REDACTED && self.schema.is_secret(&change.url) =>
                {
                    let node = self.get(id);
                    if node.is_none_or(|node| node.cfg.get(change.url.as_str()).is_none()) {
                        return Err(WriteError::Invalid(format!(
                            "{} is {REDACTED}, which means unchanged, but {} has none: write the secret itself, or leave it out",
                            change.url,
                            node.map_or_else(
                                || "the node".into(),
                                |node| format!("node {}", node.name)
                            ),
                        )));
                    }
                    continue;
                }
                Some(Value::Text(text))
                    if &**text == REDACTED && self.schema.field(&change.url).is_some() =>
                {
                    return Err(WriteError::Invalid(format!(
                        "{} is no secret, so {REDACTED} does not mean unchanged there: write the value itself, or leave it out",
                        change.url
                    )));
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
        let url = change.url.as_str();
        let old = self.get(id).and_then(|node| node.cfg.get(url));
        let old = old.and_then(|value| UniqueKey::of(url, value));
        let new = change.value.as_ref();
        let new = new.and_then(|value| UniqueKey::of(url, value));
        if old == new {
            return Ok(());
        }
        if let Some(key) = &new
            && let Some(other) = self.holder(key)
        {
            let name = |id| {
                self.get(id)
                    .map_or_else(|| "?".into(), |node| node.name.to_string())
            };
            return Err(WriteError::Taken(format!(
                "{} {} of node {} belongs to node {} already",
                change.url,
                key.text(),
                name(id),
                name(other)
            )));
        }
        if let Some(key) = old {
            self.holders.insert(key, None);
        }
        if let Some(key) = new {
            self.holders.insert(key, Some(id));
        }
        Ok(())
    }
}

fn check_group(group: &str) -> Result<(), WriteError> {
    match group.parse::<NodeName>() {
        Ok(_) => Ok(()),
        Err(_) => Err(WriteError::Invalid(format!(
            "{group:?} is no group name: use letters, digits, '-' and '.'"
        ))),
    }
}

impl<K, V> Default for Layer<K, V> {
    fn default() -> Self {
        Self {
            over: BTreeMap::new(),
            before: BTreeMap::new(),
        }
    }
}

impl<K: Ord + Clone, V: Clone> Layer<K, V> {
    fn get(&self, key: &K) -> Option<&V> {
        self.over.get(key)
    }

    fn insert(&mut self, key: K, value: V) {
        let old = self.over.insert(key.clone(), value);
        self.before.entry(key).or_insert(old);
    }

    /// The entry to be changed; `base` is what lies below.
    fn edit(&mut self, key: K, base: impl FnOnce() -> V) -> &mut V {
        let over = &self.over;
        self.before
            .entry(key.clone())
            .or_insert_with_key(|key| over.get(key).cloned());
        self.over.entry(key).or_insert_with(base)
    }

    /// The write under way stays, or is taken back.
    fn end(&mut self, keep: bool) {
        let before = std::mem::take(&mut self.before);
        if keep {
            return;
        }
        for (key, old) in before {
            match old {
                Some(value) => self.over.insert(key, value),
                None => self.over.remove(&key),
            };
        }
    }
}
