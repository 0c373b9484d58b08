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

    /// How long all of them take to carry out `steps`, if one takes `one`.
    pub(super) fn takes<'m>(
        &self,
        governor: &Governor,
        sizes: &dyn Sizes,
        steps: impl Iterator<Item = &'m Mutation>,
        one: Duration,
    ) -> Duration {
        let mut all = one;
        let mut behind = |gate: &Gate, nodes: usize| {
            let Some(limit) = governor.limit_of(gate) else {
                return;
            };
            let last = nodes.saturating_sub(1);
            if let Some(at_once) = limit.at_once {
                let waves = nodes.div_ceil(at_once.max(1) as usize);
                all = all.max(times(one, waves));
            }
            if let Some(rate) = limit.rate(sizes.behind(gate)) {
                let minutes = times(MINUTE, last / rate.max(1));
                all = all.max(one.saturating_add(minutes));
            }
        };
        let mut gaps = Duration::ZERO;
        let mut is_disruptive = false;
        for step in steps {
            behind(&Gate::Mutation(step.id.clone()), self.nodes);
            is_disruptive |= step.disruptive;
            if switches_on(&step.mutates) {
                gaps = times(governor.power_on_gap(), self.nodes.saturating_sub(1));
            }
        }
        if is_disruptive {
            behind(&Gate::Cluster, self.nodes);
            for (group, nodes) in &self.in_groups {
                behind(&Gate::Group(group.as_str().into()), *nodes);
            }
        }
        all.max(one.saturating_add(gaps))
    }
}

fn times(time: Duration, count: usize) -> Duration {
    time.saturating_mul(u32::try_from(count).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests;
