//! Where costs come from: as declared, or learned from measured times (`mutation::learned`).
//!
//! Learned costs are looked at anew when mutations are declared, and at most every [`LEARN_EVERY`] after something was measured: on a timer, before
//! anything is planned, so all that follows from one event is planned with the same costs. What has gone stale is seen then, too: as long as nothing
//! succeeds, no way is worth comparing. They travel to agents as part of the set, so head
//! and nodes plan alike; an agent learns nothing itself. A change of costs alone interrupts nothing: what is under way is gone on with.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::timers::Timer;
use super::{Engine, Role};
use crate::event::Output;
use crate::mutation::graph::{GraphError, MutationGraph};
use crate::mutation::learned::Learned;
use crate::mutation::measured::Measured;
use crate::mutation::path::Planner;
use crate::mutation::progress::Phase;
use crate::mutation::{Mutation, MutationId, MutationSet};
use crate::state::StateUrl;
use crate::time::Instant;

/// Time between two looks at measured times: other costs are news for every node, and nothing hangs on hearing them at once.
pub const LEARN_EVERY: Duration = Duration::from_secs(300);

/// Where costs come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CostSource {
    /// From declarations.
    #[default]
    Declared,
    /// From declarations and measured times.
    Learned,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub(super) struct Costs {
    source: CostSource,
    /// How long mutations took on our nodes, carried out by us and by them.
    pub(super) measured: Measured,
    pub(super) learned: Learned,
    declared: BTreeMap<MutationId, u32>,
    /// Discoverables of the set in force that nobody declared: the schema says that they are reported.
    reported: BTreeSet<StateUrl>,
}

impl Costs {
    /// Gives the mutations of a set the costs to plan with; `declared` are those that they were declared with.
    fn price(&mut self, set: &mut MutationSet, declared: &BTreeMap<MutationId, u32>, now: Instant) {
        self.learned.refresh(set.mutations.iter(), &self.measured);
        for mutation in &mut set.mutations {
            if let Some(cost) = declared.get(&mutation.id) {
                let stale = self.measured.stale(&mutation.id, now);
                mutation.cost = self.learned.cost(mutation, *cost, stale);
            }
        }
    }
}

impl Engine {
    /// Sets where costs come from. Before anything is declared.
    pub fn set_costs(&mut self, source: CostSource) {
        self.costs.source = source;
    }

    /// A mutation of one of our nodes succeeded.
    pub(super) fn measure(&mut self, mutation: &MutationId, took: Duration) {
        if !matches!(self.config.role, Role::Head { .. }) {
            return;
        }
        self.costs.measured.note(mutation, took, self.now);
        self.times_to_tell(mutation);
        if self.costs.source == CostSource::Learned && self.timers.at(Timer::Costs).is_none() {
            self.timers.set(Timer::Costs, Some(self.now + LEARN_EVERY));
        }
    }

    /// What to plan with, of a declared set.
    pub(super) fn compile(&mut self, set: &MutationSet) -> Result<MutationGraph, GraphError> {
        let mut set = set.clone().with_drain();
        let reported = self.reported(&set);
        set.discoverables.extend(reported.iter().cloned());
        let mut declared = BTreeMap::new();
        if self.costs.source == CostSource::Learned {
            let costs = set.mutations.iter();
            declared.extend(costs.map(|m| (m.id.clone(), m.cost)));
            self.costs.price(&mut set, &declared, self.now);
        }
        let graph = MutationGraph::new(&set)?;
        self.costs.declared = declared;
        self.costs.reported = reported;
        Ok(graph)
    }

    /// What the schema adds to the discoverables of a set. A node takes its head's word, whose schema knows more.
    fn reported(&self, set: &MutationSet) -> BTreeSet<StateUrl> {
        match self.config.role {
            Role::Head { .. } => set.reported(&self.schema).into_iter().collect(),
            Role::Agent => BTreeSet::new(),
        }
    }

    /// Plans with what is reported by the schema of now.
    pub(super) fn report_by_schema(&mut self) {
        let mut set = self.graph().set().clone();
        let before = &self.costs.reported;
        set.discoverables.retain(|url| !before.contains(url));
        let reported = self.reported(&set);
        if reported == self.costs.reported {
            return;
        }
        set.discoverables.extend(reported.iter().cloned());
        // What is reported makes no good set bad.
        if let Ok(graph) = MutationGraph::new(&set) {
            self.costs.reported = reported;
            self.replace_graph(graph);
        }
    }

    /// Plans with what was measured up to here.
    pub(super) fn learn(&mut self) {
        let mut set = self.graph().set().clone();
        let declared = std::mem::take(&mut self.costs.declared);
        self.costs.price(&mut set, &declared, self.now);
        self.costs.declared = declared;
        if set == *self.graph().set() {
            return;
        }
        // Other costs make no good set bad.
        if let Ok(graph) = MutationGraph::new(&set) {
            self.replace_graph(graph);
        }
    }

    /// From here on everybody plans with this.
    pub(super) fn replace_graph(&mut self, graph: MutationGraph) {
        let only_costs = differ_in_costs(self.graph().set(), graph.set());
        for runtime in self.runtimes.values_mut() {
            let mut currents = runtime.progress.currents().iter();
            let fired = currents.any(|current| current.phase == Phase::Fired);
            runtime.goes_on = fired && only_costs;
        }
        self.planner = Planner::new(Arc::new(graph));
        self.dirty.extend(self.runtimes.keys());
        let sessions = self.sessions.of_children(self.config.role);
        if !sessions.is_empty() {
            let set = Arc::new(self.graph().set().clone());
            self.outputs.push_back(Output::Declared { sessions, set });
        }
    }
}

/// Whether two sets differ in costs at most.
fn differ_in_costs(one: &MutationSet, other: &MutationSet) -> bool {
    let alike = |(one, other): (&Mutation, &Mutation)| {
        let priced = Mutation {
            cost: other.cost,
            ..one.clone()
        };
        priced == *other
    };
    one.mutations.len() == other.mutations.len()
        && one.dependencies == other.dependencies
        && one.discoverables == other.discoverables
        && one.one_by_one == other.one_by_one
        && one.mutations.iter().zip(&other.mutations).all(alike)
}

#[cfg(test)]
mod tests;
