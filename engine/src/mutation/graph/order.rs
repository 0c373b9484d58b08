//! Which steps of a plan may run side by side (DESIGN 3): the least order that keeps its meaning.
//!
//! Two mutations are tied if swapping them could break either: one changes what the other changes or looks at (`from`, requires, excludes), or
//! something that such a value depends on. What is disruptive is tied to everything. Tied steps keep the order of the plan; of the others
//! any order leads to the same state, and each finds its conditions met whenever those before it are done.
//!
//! `fail_to` ties nothing: a step that fails makes a new plan, whatever ran beside it.

use std::collections::BTreeSet;

use super::MutationGraph;
use crate::mutation::{Mutation, MutationId};

/// Longest plan that is looked at for steps side by side; a longer one is followed step by step. The work grows with the square.
pub const MAX_ORDERED: usize = 256;

/// What a mutation looks at and changes, as places of variables.
#[derive(Debug)]
pub(super) struct Footprint {
    reads: BTreeSet<usize>,
    writes: BTreeSet<usize>,
    /// What may become unknown by it. Two mutations may share that: whatever their order, what either makes unknown is unknown in the end.
    forgets: BTreeSet<usize>,
    disruptive: bool,
}

impl Footprint {
    fn is_tied_to(&self, other: &Self) -> bool {
        let spoils = |one: &Self, other: &Self| {
            !one.writes.is_disjoint(&other.reads)
                || !one.forgets.is_disjoint(&other.reads)
                || !one.forgets.is_disjoint(&other.writes)
        };
        self.disruptive
            || other.disruptive
            || !self.writes.is_disjoint(&other.writes)
            || spoils(self, other)
            || spoils(other, self)
    }
}

impl MutationGraph {
    /// For each step the steps that it must come after, as indices, ascending; those that follow from others are left out.
    pub fn order(&self, steps: &[MutationId]) -> Vec<Vec<usize>> {
        let chain = || (0..steps.len()).map(|step| step.checked_sub(1).into_iter().collect());
        if self.set().one_by_one || steps.len() > MAX_ORDERED {
            return chain().collect();
        }
        let footprints: Option<Vec<&Footprint>> =
            steps.iter().map(|step| self.footprint(step)).collect();
        let Some(footprints) = footprints else {
            return chain().collect();
        };
        let mut before: Vec<BTreeSet<usize>> = Vec::with_capacity(steps.len());
        let mut order = Vec::with_capacity(steps.len());
        for (step, footprint) in footprints.iter().enumerate() {
            let mut all = BTreeSet::new();
            let mut direct = Vec::new();
            // From the latest on: what comes before one of them already needs no word of its own.
            for earlier in (0..step).rev() {
                if !all.contains(&earlier) && footprint.is_tied_to(footprints[earlier]) {
                    direct.push(earlier);
                    all.insert(earlier);
                    all.extend(&before[earlier]);
                }
            }
            direct.reverse();
            before.push(all);
            order.push(direct);
        }
        order
    }

    /// Whether these two must not run side by side. What is not declared is tied to nothing.
    pub fn are_tied(&self, one: &MutationId, other: &MutationId) -> bool {
        let (one, other) = (self.footprint(one), self.footprint(other));
        let both = one.zip(other);
        both.is_some_and(|(one, other)| self.set().one_by_one || one.is_tied_to(other))
    }

    /// Found out when it is first asked for: most mutations of a large set are on no path.
    fn footprint(&self, id: &MutationId) -> Option<&Footprint> {
        let index = *self.by_id.get(id)?;
        let mutation = &self.set.mutations[index];
        Some(self.footprints[index].get_or_init(|| self.find_footprint(mutation)))
    }

    fn find_footprint(&self, mutation: &Mutation) -> Footprint {
        let place = |url| self.by_url.get(url).copied();
        let changed = mutation.mutates.iter();
        let writes: BTreeSet<usize> = changed.filter_map(|change| place(&change.url)).collect();
        let mut forgets = BTreeSet::new();
        let mut queue: Vec<usize> = writes.iter().copied().collect();
        while let Some(variable) = queue.pop() {
            for dependent in &self.variables[variable].dependents {
                if forgets.insert(dependent.variable) {
                    queue.push(dependent.variable);
                }
            }
        }
        let conditions = mutation.requires.iter().chain(&mutation.excludes);
        Footprint {
            reads: conditions
                .filter_map(|condition| place(&condition.url))
                .collect(),
            writes,
            forgets,
            disruptive: mutation.disruptive,
        }
    }
}
