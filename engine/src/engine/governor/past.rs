//! Slots and rates over a restart of the head: what of them the store is told, and how they come back.
//!
//! So a head that restarts amid a rolling reboot lets no second node through, and one that restarts in a loop is no faster than its limits. Who waits
//! comes to wait again by itself.

use super::{Gate, Governor, MINUTE, Passed};
use crate::memory::Memo;
use crate::mutation::MutationId;
use crate::state::NodeId;
use crate::time::Instant;

impl Governor {
    /// Whether something passed a gate, or a slot became free, since the last call of [`untold`](Self::untold).
    pub(in crate::engine) fn is_untold(&self) -> bool {
        !self.untold.is_empty()
    }

    /// What the store has to know of limits. Without a limit nothing is worth keeping.
    pub(in crate::engine) fn untold(&mut self, now: Instant) -> Vec<Memo> {
        let gates = std::mem::take(&mut self.untold);
        let past = |gate: Gate| {
            let limit = self.limit_of(&gate)?;
            let passed = self.passed.get(&gate)?;
            let (has_slots, has_rate) = (limit.at_once.is_some(), limit.rate(1).is_some());
            let holders = passed.holders.iter().filter(|_| has_slots);
            let times = passed.times.iter().filter(|_| has_rate);
            let ages = times.map(|at| now.since(*at));
            Some(Memo::Limit {
                name: gate.to_string(),
                holders: holders.copied().collect(),
                passed: ages.filter(|age| *age < MINUTE).collect(),
            })
        };
        gates.into_iter().filter_map(past).collect()
    }

    /// Puts back what an earlier run told of the limit with this name.
    pub(in crate::engine) fn restore(
        &mut self,
        name: &str,
        holders: &[NodeId],
        ages: &[std::time::Duration],
        now: Instant,
    ) {
        let Some(gate) = named(name) else { return };
        let times = ages.iter().filter(|age| **age < MINUTE);
        let passed = Passed {
            holders: holders.iter().copied().collect(),
            times: times.map(|age| now - *age).collect(),
        };
        self.passed.insert(gate, passed);
    }
}

/// The gate of a limit, by what it is called.
fn named(name: &str) -> Option<Gate> {
    if let Some(group) = name.strip_prefix('@') {
        return Some(Gate::Group(group.into()));
    }
    match name.split_once('/') {
        Some((module, mutation)) => Some(Gate::Mutation(MutationId::new(module, mutation))),
        None => (name == Gate::Cluster.to_string()).then_some(Gate::Cluster),
    }
}
