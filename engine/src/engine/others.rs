//! Conditions on other nodes (`requires_of`): who does not fulfil them, kept up to date with every change, so that asking costs nothing.
//!
//! They never change a path, they hold the firing: "waits for its parent h2 to be in SYNC", "waits for @io: n3 and n4 are not in SYNC".
//!
//! - *parent*: the head itself counts as in SYNC, as it runs; a node without a parent waits for nobody.
//! - *@group*: all nodes of the group but the node itself. A group without any node holds: it may be a slip of the pen.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::governor::{Gate, Opening};
use super::groups::Groups;
use crate::mutation::graph::MutationGraph;
use crate::mutation::{Condition, MutationSet, Others, OthersCondition};
use crate::state::{Node, NodeId, Tree, Value, core};

/// Most nodes that a hold names; more would not be read.
const MAX_NAMED: usize = 4;

/// A condition, and on whom.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct OthersKey {
    subject: Subject,
    condition: Condition,
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Subject {
    Node(NodeId),
    Group(Arc<str>),
}

/// What conditions are looked at with.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    pub(super) me: NodeId,
    pub(super) tree: &'a Tree,
    /// Nodes that a write would leave otherwise than in the tree; `None`: gone.
    pub(super) staged: Option<&'a BTreeMap<NodeId, Option<Node>>>,
    pub(super) graph: &'a MutationGraph,
    pub(super) groups: &'a Groups,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub(super) struct OthersIndex {
    /// For each condition on a group that some mutation has: the members that do not fulfil it.
    unmet: BTreeMap<OthersKey, BTreeSet<NodeId>>,
}

impl<'a> View<'a> {
    fn node(&self, id: NodeId) -> Option<&'a Node> {
        match self.staged.and_then(|staged| staged.get(&id)) {
            Some(node) => node.as_ref(),
            None => self.tree.get(id),
        }
    }

    fn fulfils(&self, node: &Node, condition: &Condition) -> bool {
        let url = condition.url.as_str();
        if node.id == self.me && url == core::RUN_STATE {
            return condition.holds(Some(&Value::from(core::SYNC)));
        }
        let values = if self.graph.is_discoverable(&condition.url) {
            &node.dsc
        } else {
            &node.cfg
        };
        condition.holds(values.get(url))
    }

    pub(super) fn name(&self, id: NodeId) -> String {
        let node = self.node(id);
        node.map_or_else(|| id.to_string(), |node| node.name.to_string())
    }
}

impl OthersIndex {
    /// Other mutations are declared: counts everybody anew.
    pub(super) fn declare(&mut self, set: &MutationSet, view: View<'_>) {
        let conditions = set.mutations.iter().flat_map(|m| &m.requires_of);
        let groups = conditions.filter_map(|others| match &others.who {
            Others::Parent => None,
            Others::Group(group) => Some(OthersKey {
                subject: Subject::Group(group.clone()),
                condition: others.condition.clone(),
            }),
        });
        self.unmet = groups.map(|key| (key, BTreeSet::new())).collect();
        for (key, unmet) in &mut self.unmet {
            let Subject::Group(group) = &key.subject else {
                continue;
            };
            let fails = |id: &NodeId| {
                let node = view.node(*id);
                node.is_some_and(|node| !view.fulfils(node, &key.condition))
            };
            unmet.extend(view.groups.members(group).filter(fails));
        }
    }

    /// A node came, went, or changed. True when a condition holds for others than before.
    pub(super) fn changed(&mut self, id: NodeId, view: View<'_>) -> bool {
        let mut turned = false;
        let node = view.node(id);
        for (key, unmet) in &mut self.unmet {
            let Subject::Group(group) = &key.subject else {
                continue;
            };
            let fails = node.is_some_and(|node| {
                node.groups.contains(&**group) && !view.fulfils(node, &key.condition)
            });
            let before = unmet.len().min(2);
            let is_news = match fails {
                true => unmet.insert(id),
                false => unmet.remove(&id),
            };
            // One that fails holds all but itself, two hold everybody.
            turned |= is_news && (before < 2 || unmet.len() < 2);
        }
        turned
    }

    fn key(others: &OthersCondition, node: &Node) -> Option<OthersKey> {
        let subject = match &others.who {
            Others::Parent => Subject::Node(node.parent?),
            Others::Group(group) => Subject::Group(group.clone()),
        };
        Some(OthersKey {
            subject,
            condition: others.condition.clone(),
        })
    }

    /// Whether those who wait for a condition should try again.
    pub(super) fn opening(&self, key: &OthersKey, view: View<'_>) -> Opening {
        match &key.subject {
            Subject::Node(id) => match view.node(*id) {
                Some(node) if !view.fulfils(node, &key.condition) => Opening::Shut,
                _ => Opening::Open,
            },
            Subject::Group(group) if view.groups.len(group) == 0 => Opening::Shut,
            Subject::Group(_) => match self.unmet.get(key) {
                None => Opening::Open,
                Some(unmet) => match (unmet.len(), unmet.first()) {
                    (0, _) => Opening::Open,
                    (1, Some(only)) => Opening::For(*only),
                    _ => Opening::Shut,
                },
            },
        }
    }

    /// What keeps a condition from holding for `node`: the gate to wait at, why, and what lifts it.
    pub(super) fn obstacle(
        &self,
        others: &OthersCondition,
        node: &Node,
        view: View<'_>,
    ) -> Option<(Gate, String, String)> {
        let key = Self::key(others, node)?;
        let wanted = wanted(&key.condition);
        let (text, lifted_by) = match &key.subject {
            Subject::Node(id) => {
                let parent = view.node(*id)?;
                if view.fulfils(parent, &key.condition) {
                    return None;
                }
                let text = format!("waits for its parent {} to be {wanted}", parent.name);
                let why = format!("krakenctl node explain {}", parent.name);
                (text, format!("{} being {wanted} ({why})", parent.name))
            }
            Subject::Group(group) if view.groups.len(group) == 0 => (
                format!("waits for @{group}, and no node is in that group"),
                format!("krakenctl node set NODES --add-group {group}"),
            ),
            Subject::Group(group) => {
                let unmet = self.unmet.get(&key)?;
                let left = unmet.iter().filter(|id| **id != node.id).count();
                if left == 0 {
                    return None;
                }
                let others = unmet.iter().copied().filter(|id| *id != node.id);
                let names: Vec<String> = others.take(MAX_NAMED).map(|id| view.name(id)).collect();
                let more = match left - names.len() {
                    0 => String::new(),
                    more => format!(" and {more} more"),
                };
                let names = names.join(", ");
                (
                    format!("waits for @{group}: {names}{more} not {wanted}"),
                    format!("all nodes of @{group} being {wanted}"),
                )
            }
        };
        Some((Gate::Others(key), text, lifted_by))
    }
}

/// `in SYNC`, or `at /image/state=ACTIVE`.
fn wanted(condition: &Condition) -> String {
    let text = condition.to_string();
    match text.strip_prefix("/RunState=") {
        Some(state) => format!("in {state}"),
        None => format!("at {text}"),
    }
}
