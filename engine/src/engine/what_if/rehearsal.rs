//! A write, or a word to go on, played to copies of what it touches: the guard rails, and the nodes that have to look at themselves anew, in
//! the order in which the engine lets them.
//!
//! So the second node meets the slot that the first one takes. Leaves out what comes later than the instant of the write.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::engine::guard::Guard;
use crate::engine::others::View;
use crate::engine::rails::Rails;
use crate::engine::{Again, Engine, Runtime, discover};
use crate::mutation::MutationId;
use crate::mutation::path::Planner;
use crate::mutation::progress::{Action, Current, Phase};
use crate::state::{Frozen, Node, NodeId, Values};
use crate::time::Instant;

/// A node that looked at itself anew.
#[derive(Clone, Default)]
pub(super) struct Rehearsed {
    pub(super) runtime: Runtime,
    /// What was running and would be stopped.
    pub(super) interrupts: Vec<MutationId>,
    /// A step would be under way.
    pub(super) moves: bool,
}

/// See the module.
pub(super) struct Rehearsal<'e> {
    pub(super) engine: &'e Engine,
    pub(super) planner: Planner,
    pub(super) now: Instant,
    /// As it would be.
    pub(super) frozen: &'e Frozen,
    /// As they would be.
    pub(super) rails: Rails,
    /// Nodes that would not be as in the tree; `None`: gone.
    nodes: BTreeMap<NodeId, Option<Node>>,
    looked: BTreeMap<NodeId, Rehearsed>,
    dirty: BTreeSet<NodeId>,
}

impl<'e> Rehearsal<'e> {
    pub(super) fn new(engine: &'e Engine, frozen: &'e Frozen, rails: Rails, now: Instant) -> Self {
        Self {
            engine,
            planner: Planner::new(Arc::clone(engine.planner.graph())),
            now,
            frozen,
            rails,
            nodes: BTreeMap::new(),
            looked: BTreeMap::new(),
            dirty: BTreeSet::new(),
        }
    }

    /// A node as it would be.
    pub(super) fn node(&self, id: NodeId) -> Option<&Node> {
        match self.nodes.get(&id) {
            Some(node) => node.as_ref(),
            None => self.engine.tree.get(id),
        }
    }

    /// Who would be other than in the tree.
    pub(super) fn staged(&self) -> &BTreeMap<NodeId, Option<Node>> {
        &self.nodes
    }

    /// What a node would be about.
    pub(super) fn rehearsed(&self, id: NodeId) -> Cow<'_, Rehearsed> {
        match self.looked.get(&id) {
            Some(looked) => Cow::Borrowed(looked),
            None => Cow::Owned(self.as_it_is(id)),
        }
    }

    fn as_it_is(&self, id: NodeId) -> Rehearsed {
        let runtime = self.engine.runtimes.get(&id).cloned().unwrap_or_default();
        let mut currents = runtime.progress.currents().iter();
        Rehearsed {
            moves: currents.any(|current| current.phase != Phase::Intent),
            runtime,
            interrupts: Vec::new(),
        }
    }

    /// Nodes as a write would leave them; what goes first makes room, as in the engine.
    pub(super) fn write(&mut self, touched: BTreeMap<NodeId, Option<Node>>) {
        let engine = self.engine;
        for (id, node) in &touched {
            let old = engine.tree.get(*id);
            let is_other = |new: &Node| old.is_some_and(|old| old.name != new.name);
            if let (true, Some(old)) = (node.as_ref().is_none_or(is_other), old) {
                for current in self.as_it_is(*id).runtime.progress.currents() {
                    self.rails.give_back(*id, &current.mutation, self.now);
                }
                self.nodes.insert(*id, None);
                self.rails.forget(old, self.now);
                self.rails.nodes = self.rails.nodes.saturating_sub(1);
                self.rails.mass.found(*id);
                self.looked.insert(*id, Rehearsed::default());
                self.changed(*id);
            }
        }
        for (id, node) in touched {
            let Some(mut node) = node else { continue };
            let forgotten = engine.forgotten_by_cfg(&node);
            if !forgotten.is_empty() {
                discover::apply(engine.graph(), &mut node.dsc, &node.cfg, forgotten);
            }
            let old = self.node(id).map(|old| old.groups.clone());
            if old.is_none() {
                self.rails.nodes += 1;
            }
            let groups = &mut self.rails.groups;
            groups.changed(id, &old.unwrap_or_default(), &node.groups);
            self.nodes.insert(id, Some(node));
            let mut looked = self.rehearsed(id).into_owned();
            looked.runtime.again(Again::Retry);
            self.looked.insert(id, looked);
            self.changed(id);
            self.dirty.insert(id);
        }
        let (before, after) = (&engine.frozen, self.frozen);
        if before.cluster != after.cluster {
            let present = engine.runtimes.keys().copied();
            let stay = present.filter(|id| self.nodes.get(id).is_none_or(Option::is_some));
            self.dirty.extend(stay);
        } else {
            self.dirty
                .extend(self.rails.groups.concerned(before, after));
        }
    }

    /// A node that is told to go on.
    pub(super) fn again(&mut self, id: NodeId, how: Again) {
        let Some(node) = self.engine.tree.get(id) else {
            return;
        };
        let mut looked = self.as_it_is(id);
        looked.runtime.again(how);
        self.looked.insert(id, looked);
        if how == Again::Release {
            self.rails.mass.found(id);
            if !node.last_known.dsc.is_empty() {
                let mut node = node.clone();
                node.last_known.dsc = Values::default();
                self.nodes.insert(id, Some(node));
            }
        }
        self.dirty.insert(id);
    }

    /// Conditions on a node may hold now, or no longer.
    fn changed(&mut self, id: NodeId) {
        let view = View {
            staged: Some(&self.nodes),
            groups: &self.rails.groups,
            ..self.engine.others_view()
        };
        self.rails.others.changed(id, view);
    }

    /// Lets everybody look who has to, and then those who wait where it became open.
    pub(super) fn play(&mut self) {
        loop {
            while let Some(id) = self.dirty.pop_first() {
                self.look(id);
            }
            let view = View {
                staged: Some(&self.nodes),
                groups: &self.rails.groups,
                ..self.engine.others_view()
            };
            let Some(next) = self.rails.next_in_line(view, self.now) else {
                break;
            };
            let left = self.rails.governor.leave(next);
            self.look(next);
            // It came back to where it was woken: whoever is behind it would not get on, either.
            if left.map(|(gate, _)| gate).as_ref() == self.rails.governor.waits_at(next) {
                break;
            }
        }
    }

    /// As [`Engine::advance`] does it.
    fn look(&mut self, id: NodeId) {
        let (engine, now) = (self.engine, self.now);
        let waited = self.rails.governor.leave(id);
        let mut looked = match self.looked.remove(&id) {
            Some(looked) => looked,
            None => self.as_it_is(id),
        };
        let staged = self.nodes.get(&id).and_then(Option::as_ref);
        let Some(node) = staged.or_else(|| engine.tree.get(id)) else {
            return;
        };
        looked.moves = false;
        looked.runtime.plan_anew(&mut self.planner, node);
        let guard = Guard {
            engine: engine.guard_view().at(now),
            node,
            confirmed: looked.runtime.confirmed,
            silent_since: looked.runtime.silent_since,
            rails: &self.rails,
            others: View {
                staged: Some(&self.nodes),
                groups: &self.rails.groups,
                ..engine.others_view()
            },
            frozen: self.frozen,
        };
        let look = guard.look(&mut looked.runtime, id == engine.config.me);
        if let Some(gate) = look.gate {
            self.rails.wait(gate, node, waited.as_ref(), now);
        }
        for action in look.actions {
            match action {
                Action::Done(current) => {
                    let breakers = &mut self.rails.breakers;
                    breakers.outcome(&current.mutation, id, true, now);
                }
                Action::Stop(current) => {
                    self.rails.give_back(id, &current.mutation, now);
                    if current.phase == Phase::Fired {
                        looked.interrupts.push(current.mutation);
                    }
                }
                Action::Start(mutation) => {
                    if let Some(declared) = engine.mutation(&mutation) {
                        self.rails.pass(node, declared, now);
                    }
                    looked.moves = true;
                    looked.runtime.progress.begin(Current {
                        mutation,
                        attempt: 0,
                        phase: Phase::Intent,
                        since: now,
                        deadline: None,
                    });
                }
                Action::Await(mutation) => {
                    looked.moves |= !look.asked.waits.contains_key(&mutation)
                }
                Action::Park(_) => {}
            }
        }
        if look.settled {
            self.rails.governor.release(id);
        }
        let (plan, graph) = (&looked.runtime.plan, engine.graph());
        self.rails.let_drain(node, plan, graph, waited, now);
        looked.moves |= !looked.runtime.progress.currents().is_empty();
        self.looked.insert(id, looked);
    }
}
