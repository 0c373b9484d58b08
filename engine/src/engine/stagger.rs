//! How long many nodes take that go one after the other, because limits let only some of them through at once (see `governor`).
//!
//! An estimate for the fresh cluster: nodes that hold slots already, or wait beside these, are not looked at, nor failures.

use std::collections::BTreeMap;
use std::time::Duration;

use super::governor::{Gate, Governor, MINUTE, Sizes};
use crate::mutation::{Mutation, switches_on};
use crate::state::Node;

/// Nodes that will do the same.
#[derive(Default)]
pub(super) struct Crowd {
    nodes: usize,
    /// How many of them are in groups that have limits.
    in_groups: BTreeMap<String, usize>,
}

impl Crowd {
    /// One more.
    pub(super) fn add(&mut self, node: &Node, governor: &Governor) {
        self.nodes += 1;
        for group in governor.limited_groups(node) {
            match self.in_groups.get_mut(group) {
                Some(count) => *count += 1,
                None => {
                    self.in_groups.insert(group.to_owned(), 1);
                }
            }
        }
    }

    /// How many of them come to which gate when they carry out `steps`.
    fn gates<'m>(&self, steps: impl Iterator<Item = &'m Mutation>) -> BTreeMap<Gate, usize> {
        let mut gates = BTreeMap::new();
        for step in steps {
            gates.insert(Gate::Mutation(step.id.clone()), self.nodes);
            if switches_on(&step.mutates) {
                gates.insert(Gate::PowerOn, self.nodes);
            }
            if step.disruptive {
                gates.insert(Gate::Cluster, self.nodes);
                let groups = self.in_groups.iter();
                gates.extend(
                    groups.map(|(group, count)| (Gate::Group(group.as_str().into()), *count)),
                );
            }
        }
        gates
    }
}

/// What has to pass one gate.
#[derive(Default)]
struct Load {
    nodes: usize,
    /// What the slowest takes.
    longest: Duration,
    /// What all take, one after the other.
    work: Duration,
}

/// All who go at the same time and meet at gates.
#[derive(Default)]
pub(super) struct Crowds {
    loads: BTreeMap<Gate, Load>,
}

impl Crowds {
    /// A crowd that carries out `steps`; one of it takes `one`.
    pub(super) fn add<'m>(
        &mut self,
        crowd: &Crowd,
        steps: impl Iterator<Item = &'m Mutation>,
        one: Duration,
    ) {
        for (gate, nodes) in crowd.gates(steps) {
            let load = self.loads.entry(gate).or_default();
            load.nodes += nodes;
            load.longest = load.longest.max(one);
            load.work = load.work.saturating_add(times(one, nodes));
        }
    }

    /// How long all of one of the crowds take, while the others go, too.
    pub(super) fn takes<'m>(
        &self,
        crowd: &Crowd,
        governor: &Governor,
        sizes: &dyn Sizes,
        steps: impl Iterator<Item = &'m Mutation>,
        one: Duration,
    ) -> Duration {
        let mut all = one;
        for gate in crowd.gates(steps).into_keys() {
            let Some(load) = self.loads.get(&gate) else {
                continue;
            };
            let before = load.nodes.saturating_sub(1);
            if gate == Gate::PowerOn {
                all = all.max(one.saturating_add(times(governor.power_on_gap(), before)));
            }
            let Some(limit) = governor.limit_of(&gate) else {
                continue;
            };
            if let Some(at_once) = limit.at_once {
                all = all.max(load.behind(at_once.max(1)));
            }
            if let Some(rate) = limit.rate(sizes.behind(&gate)) {
                all = all.max(one.saturating_add(times(MINUTE, before / rate.max(1))));
            }
        }
        all
    }
}

impl Load {
    /// How long it takes with so many at once, each beginning as soon as there is a slot: two bounds, the better one.
    fn behind(&self, at_once: u32) -> Duration {
        let waves = times(self.longest, self.nodes.div_ceil(at_once as usize));
        let others = self.work.saturating_sub(self.longest) / at_once;
        waves.min(others.saturating_add(self.longest))
    }
}

fn times(time: Duration, count: usize) -> Duration {
    time.saturating_mul(u32::try_from(count).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests;
