//! Nodes as they all were at one instant: a list shows each write whole or not at all, and holds up nothing.
//!
//! The engine only shares its nodes, some nanoseconds each, and copies those that it changes while they are read. They become messages outside
//! of it, on a thread that may take its time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use engine::Engine;
use engine::driver::{Handle, Stopped, wall_ms};
use engine::extension::Schema;
use engine::state::{Frozen, Node, NodeId, NodeName};
use engine::time::Instant;
use proto::v1;

use super::convert;
use super::select::TreeInventory;
use crate::nodeset::{NodeSet, NodeSetError};

/// See the module.
pub(super) struct Snapshot {
    nodes: Vec<Arc<Node>>,
    /// Names of those that have children among them.
    parents: BTreeMap<NodeId, NodeName>,
    /// Writes on trial, by the nodes that they are about.
    trials: BTreeMap<NodeId, Vec<v1::Trial>>,
    /// What keeps nodes from their next steps.
    stopped: BTreeMap<NodeId, Vec<&'static str>>,
    schema: Arc<Schema>,
    me: NodeId,
    /// When it was taken, by the engine's clock and the wall's.
    taken: (Instant, u64),
    /// Revision of the last write that it shows.
    pub(super) revision: u64,
    /// What is frozen beside single nodes.
    pub(super) frozen: Frozen,
}

impl Snapshot {
    /// Takes one of the nodes of a set.
    ///
    /// # Errors
    /// The engine has stopped, or the set names no nodes.
    pub(super) async fn take(
        handle: &Handle,
        set: NodeSet,
    ) -> Result<Result<Self, NodeSetError>, Stopped> {
        let taken = handle.query(move |engine, now| Self::of(engine, now, &set));
        taken.await
    }

    fn of(engine: &Engine, now: Instant, set: &NodeSet) -> Result<Self, NodeSetError> {
        let tree = engine.tree();
        let nodes: Vec<Arc<Node>> = if set.is_all() {
            tree.share_all().collect()
        } else {
            let ids = TreeInventory(engine).select(set)?;
            ids.values().filter_map(|id| tree.share(*id)).collect()
        };
        let parents: BTreeSet<NodeId> = nodes.iter().filter_map(|node| node.parent).collect();
        let named = |id| Some((id, tree.get(id)?.name.clone()));
        let stopped = nodes
            .iter()
            .map(|node| (node.id, engine.stopped_by(node.id)));
        let stopped = stopped.filter(|(_, by)| !by.is_empty()).collect();
        Ok(Self {
            parents: parents.into_iter().filter_map(named).collect(),
            nodes,
            trials: trials(engine),
            stopped,
            schema: engine.shared_schema(),
            me: engine.me(),
            taken: (now, wall_ms()),
            revision: engine.revision(),
            frozen: engine.freezes().clone(),
        })
    }

    /// Who is in it.
    pub(super) fn ids(&self) -> impl Iterator<Item = NodeId> {
        self.nodes.iter().map(|node| node.id)
    }

    /// The nodes as messages, ordered by name.
    ///
    /// # Errors
    /// The program ends.
    pub(super) async fn messages(mut self) -> Result<Vec<v1::Node>, tokio::task::JoinError> {
        tokio::task::spawn_blocking(move || {
            self.nodes.sort_unstable_by(|a, b| a.name.cmp(&b.name));
            let parent = |node: &Node| self.parents.get(&node.parent?);
            let stopped_by = |node: &Node| {
                let kinds = self.stopped.get(&node.id).into_iter().flatten();
                kinds.map(|kind| (*kind).to_owned()).collect()
            };
            let message = |node: &Arc<Node>| v1::Node {
                stopped_by: stopped_by(node),
                parent_name: parent(node).map_or_else(String::new, NodeName::to_string),
                trials: self.trials.get(&node.id).cloned().unwrap_or_default(),
                ..convert::node_at(&self.schema, node, self.me, self.taken)
            };
            self.nodes.iter().map(message).collect()
        })
        .await
    }
}

/// Writes on trial, by the nodes that they are about.
pub(super) fn trials(engine: &Engine) -> BTreeMap<NodeId, Vec<v1::Trial>> {
    let mut trials: BTreeMap<NodeId, Vec<v1::Trial>> = BTreeMap::new();
    for (revision, trial) in engine.trials() {
        for node in &trial.nodes {
            let message = v1::Trial {
                revision: *revision,
                until_ms: trial.until_ms,
            };
            trials.entry(*node).or_default().push(message);
        }
    }
    trials
}
