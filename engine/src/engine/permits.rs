//! What nodes carry out by themselves though it has to wait for others (`requires_of` in context SELF or ALL).
//!
//! An agent sees nobody but itself, so it fires such a mutation only while its Cfg, which the head signs, names it in [`ALLOWED`]: who has not
//! heard does not go. The head names what is next on a node's path and whose conditions hold, and takes the word back with the condition.
//!
//! ```text
//!   head: next on n1's path ──▶ conditions hold? ── no ──▶ n1 waits at the condition's gate ([`others`](super::others))
//!                                      │ yes                          ▲
//!                                      ▼                              │ a node it depends on changes
//!                               Cfg of n1: /Allowed=storage/mount ────┘
//! ```
//!
//! The join itself is let through: nobody can hear before it. What runs already goes on.

use std::collections::{BTreeMap, BTreeSet};

use super::Engine;
use super::governor::Gate;
use super::guard::Guard;
use super::heal::{JOIN, carries_out};
use crate::mutation::path::PlanResult;
use crate::mutation::{Mutation, MutationId, MutationSet};
use crate::state::{Node, NodeId, StateUrl, Value, Values};

/// In a node's Cfg: those of its own mutations which wait for others and may go, separated by commas.
pub(super) const ALLOWED: &str = "/Allowed";

/// Who may carry out what.
#[derive(Clone, Debug, Default)]
pub(super) struct Permits {
    /// Whether any mutation needs one.
    needed: bool,
    given: BTreeMap<NodeId, BTreeSet<MutationId>>,
}

/// What is next on a node's path, for it to carry out, and waits for others.
#[derive(Default)]
pub(super) struct Asked {
    may: BTreeSet<MutationId>,
    /// What has to wait, and where.
    pub(super) waits: BTreeMap<MutationId, Gate>,
}

impl Permits {
    /// Other mutations are declared.
    pub(super) fn declare(&mut self, set: &MutationSet) {
        self.needed = set.mutations.iter().any(waits_for_the_word);
    }

    /// The node is gone.
    pub(super) fn forget(&mut self, node: NodeId) {
        self.given.remove(&node);
    }

    /// Nodes that were let through.
    pub(super) fn holders(&self) -> impl Iterator<Item = NodeId> {
        self.given.keys().copied()
    }

    /// Adds what `node` may do to its Cfg as it is sent.
    pub(super) fn add_to(&self, node: NodeId, cfg: &mut Values) {
        if let (Some(given), Ok(url)) = (self.given.get(&node), ALLOWED.parse::<StateUrl>()) {
            let given: Vec<&str> = given.iter().map(MutationId::as_str).collect();
            cfg.set(url, Some(Value::from(given.join(",").as_str())));
        }
    }
}

impl Guard<'_> {
    /// What `node` asks of its head when it is on this path.
    pub(super) fn asked(&self, plan: &PlanResult, own: bool) -> Asked {
        let mut asked = Asked::default();
        if !self.rails.permits.needed || own || !self.is_head() {
            return asked;
        }
        let next = plan.ready().filter_map(|id| self.others.graph.mutation(id));
        for mutation in next.filter(|mutation| waits_for_the_word(mutation)) {
            let mut conditions = mutation.requires_of.iter();
            let obstacle =
                conditions.find_map(|of| self.rails.others.obstacle(of, self.node, self.others));
            match obstacle {
                Some((gate, ..)) => drop(asked.waits.insert(mutation.id.clone(), gate)),
                None => drop(asked.may.insert(mutation.id.clone())),
            }
        }
        asked
    }

    /// Whether an agent has to wait for the word of its head.
    pub(super) fn waits_for_word(&self, mutation: &Mutation) -> bool {
        waits_for_the_word(mutation) && !is_allowed(self.node, mutation)
    }
}

impl Engine {
    /// Tells a node what it may do from here on, if that is something else than before.
    pub(super) fn permit(&mut self, id: NodeId, asked: Asked) {
        let given = &mut self.rails.permits.given;
        let before = match asked.may.is_empty() {
            true => given.remove(&id),
            false => given.insert(id, asked.may.clone()),
        };
        if before.unwrap_or_default() != asked.may {
            self.push_cfg(id);
        }
    }

    /// A condition may have turned for those who were let through: looks at them anew.
    pub(super) fn look_at_permits(&mut self, changed: NodeId, turned: bool) {
        let is_parent = self.tree.children(changed) > 0;
        if !self.rails.permits.needed || !(turned || is_parent) {
            return;
        }
        let concerns = |id: &NodeId| {
            let node = self.tree.get(*id);
            turned || node.is_some_and(|node| node.parent == Some(changed))
        };
        let holders: Vec<NodeId> = self.rails.permits.holders().filter(concerns).collect();
        self.dirty.extend(holders);
    }
}

fn waits_for_the_word(mutation: &Mutation) -> bool {
    carries_out(true, mutation) && !mutation.requires_of.is_empty() && mutation.id.as_str() != JOIN
}

fn is_allowed(node: &Node, mutation: &Mutation) -> bool {
    let allowed = node.cfg.text(ALLOWED).unwrap_or_default();
    allowed.split(',').any(|id| id == mutation.id.as_str())
}
