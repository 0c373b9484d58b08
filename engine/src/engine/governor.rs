//! How much may be disrupted at once, and how fast (DESIGN 3, "Guard rails"): limits, slots, and who waits for one.
//!
//! Each limit is a [`Gate`]: the cluster's, a group's, a mutation's, and the one that staggers power-on. A mutation that may end a job passes the
//! gates of the cluster and of the node's groups; any mutation passes the one of its own name, if it has a limit.
//!
//! - *at once*: a slot is taken with the intent and held until the node is where its Cfg wants it again, is parked, or has no path. So in a
//!   rack with one slot the next node goes when the former is back. A node that is disrupted already passes the gates whose slot it holds.
//! - *a minute*: firings in the last sixty seconds, as a count and as a share of the nodes; both hold.
//! - Who has to wait at one gate gives back the slots of single mutations, but not those of the cluster and of groups: so no two nodes
//!   ever wait for each other.
//!
//! Those who wait stand in a queue at one gate, in the order in which they came; those that came in the same instant by name. When a gate
//! opens, as many are asked to try again as it has room for, never all of them.
//!
//! Pure: times and sizes are arguments. The other guard rails (`breaker`, `mass`, `others`) let their nodes wait here too.

mod past;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::others::OthersKey;
use crate::mutation::{Mutation, MutationId, switches_on};
use crate::state::{Node, NodeId, NodeName};
use crate::time::Instant;

/// A share of the nodes never means fewer than this: a small cluster is not slowed down by a percentage. Say a count to allow fewer.
pub const PERCENT_FLOOR: usize = 8;

/// The time over which firings are counted.
pub(super) const MINUTE: Duration = Duration::from_secs(60);

/// How much may happen behind one gate; `None`: no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limit {
    /// Nodes at the same time.
    pub at_once: Option<u32>,
    /// Nodes a minute.
    pub per_minute: Option<u32>,
    /// Percent of the nodes a minute, but at least [`PERCENT_FLOOR`].
    pub percent_per_minute: Option<u32>,
}

/// All limits. The default has none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// For everything disruptive.
    pub cluster: Limit,
    /// For everything disruptive on the nodes of a group.
    pub groups: BTreeMap<String, Limit>,
    /// For one mutation, disruptive or not, by its `module/NAME`.
    pub mutations: BTreeMap<String, Limit>,
    /// Time between two machines that are switched on.
    pub power_on_gap: Duration,
}

/// What one has to pass before a mutation may fire.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Gate {
    /// Staggers power-on.
    PowerOn,
    /// The cluster's limit.
    Cluster,
    /// A group's limit.
    Group(Arc<str>),
    /// A mutation's own limit.
    Mutation(MutationId),
    /// The breaker of a mutation.
    Breaker(MutationId),
    /// A mass failure.
    Mass,
    /// A condition on other nodes.
    Others(OthersKey),
}

/// Whether those who wait at a gate should try again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Opening {
    /// No.
    Shut,
    /// The first of them.
    Open,
    /// This one, if it waits.
    For(NodeId),
}

/// How many nodes there are, for percentages.
pub(super) trait Sizes {
    /// Behind this gate.
    fn behind(&self, gate: &Gate) -> usize;
}

/// Why a gate is shut.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Shut {
    /// All slots are taken, by this node among others.
    Slots { of: u32, by: NodeId },
    /// So many were let through within the last minute.
    Rate { of: usize, opens: Instant },
    /// The last machine was switched on just now.
    Gap { opens: Instant },
}

#[derive(Clone, Debug, Default)]
struct Passed {
    holders: BTreeSet<NodeId>,
    /// When nodes were let through within the last minute, oldest first.
    times: VecDeque<Instant>,
}

type Place = (Instant, NodeName, NodeId);

/// See the module.
#[derive(Clone, Debug, Default)]
pub(super) struct Governor {
    limits: Limits,
    passed: BTreeMap<Gate, Passed>,
    /// Intents that have passed their gates and are not fired yet, with what they took.
    pending: BTreeMap<(NodeId, MutationId), Vec<Gate>>,
    queues: BTreeMap<Gate, BTreeSet<Place>>,
    waiting: BTreeMap<NodeId, (Gate, Place)>,
    /// Gates at which somebody passed or gave back a slot since the store was told.
    untold: BTreeSet<Gate>,
}

impl Shut {
    /// When it opens by itself.
    pub(super) fn opens(&self) -> Option<Instant> {
        match self {
            Self::Slots { .. } => None,
            Self::Rate { opens, .. } | Self::Gap { opens } => Some(*opens),
        }
    }
}

impl fmt::Display for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PowerOn => f.write_str("power-on"),
            Self::Cluster => f.write_str("cluster"),
            Self::Group(group) => write!(f, "@{group}"),
            Self::Mutation(mutation) => mutation.fmt(f),
            Self::Breaker(mutation) => write!(f, "breaker {mutation}"),
            Self::Mass => f.write_str("mass failure"),
            Self::Others(_) => f.write_str("other nodes"),
        }
    }
}

impl Limit {
    fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// How many may pass within a minute.
    pub(super) fn rate(&self, size: usize) -> Option<usize> {
        let share = self.percent_per_minute.map(|percent| {
            let nodes = (size * percent as usize).div_ceil(100);
            nodes.max(PERCENT_FLOOR)
        });
        let count = self.per_minute.map(|count| count as usize);
        share.into_iter().chain(count).min()
    }
}

impl Limits {
    fn are_none(&self) -> bool {
        self.power_on_gap.is_zero()
            && self.cluster.is_none()
            && self.groups.is_empty()
            && self.mutations.is_empty()
    }
}

impl Governor {
    /// Takes other limits; slots and queues stay.
    pub(super) fn limit(&mut self, limits: Limits) {
        self.limits = limits;
    }

    pub(super) fn limit_of(&self, gate: &Gate) -> Option<&Limit> {
        let limit = match gate {
            Gate::Cluster => &self.limits.cluster,
            Gate::Group(group) => self.limits.groups.get(&**group)?,
            Gate::Mutation(mutation) => self.limits.mutations.get(mutation.as_str())?,
            _ => return None,
        };
        (!limit.is_none()).then_some(limit)
    }

    /// The groups of a node that have limits.
    pub(super) fn limited_groups<'n>(&self, node: &'n Node) -> impl Iterator<Item = &'n str> {
        let limits = &self.limits.groups;
        let groups = node.groups.iter().map(String::as_str);
        groups.filter(|group| limits.contains_key(*group))
    }

    /// Time between two machines that are switched on.
    pub(super) fn power_on_gap(&self) -> Duration {
        self.limits.power_on_gap
    }

    /// The gates that `mutation` has to pass on `node`, as far as they have limits and the node has not passed them.
    fn gates(&self, node: &Node, mutation: &Mutation) -> Vec<Gate> {
        let mut gates = Vec::new();
        if self.limits.are_none() {
            return gates;
        }
        if mutation.disruptive {
            gates.push(Gate::Cluster);
            if !self.limits.groups.is_empty() {
                gates.extend(node.groups.iter().map(|g| Gate::Group(g.as_str().into())));
            }
        }
        gates.push(Gate::Mutation(mutation.id.clone()));
        gates.retain(|gate| {
            let passed = self.passed.get(gate);
            let holds = passed.is_some_and(|passed| passed.holders.contains(&node.id));
            !holds && self.limit_of(gate).is_some()
        });
        if switches_on(&mutation.mutates) && !self.limits.power_on_gap.is_zero() {
            gates.push(Gate::PowerOn);
        }
        gates
    }

    /// Whether nothing of the governor's stands between `node` and `mutation`: it has all slots, or there are no limits.
    pub(super) fn has_passed(&self, node: &Node, mutation: &Mutation) -> bool {
        self.gates(node, mutation).is_empty()
    }

    /// Why a gate lets nobody through now.
    pub(super) fn shut(&self, gate: &Gate, sizes: &dyn Sizes, now: Instant) -> Option<Shut> {
        let passed = self.passed.get(gate)?;
        if *gate == Gate::PowerOn {
            let opens = *passed.times.back()? + self.limits.power_on_gap;
            return (opens > now).then_some(Shut::Gap { opens });
        }
        let limit = self.limit_of(gate)?;
        if let Some(of) = limit.at_once
            && passed.holders.len() >= of as usize
            && let Some(by) = passed.holders.first()
        {
            return Some(Shut::Slots { of, by: *by });
        }
        let of = limit.rate(sizes.behind(gate))?;
        // The one that has to be a minute ago before another may pass.
        let last = passed.times.len().checked_sub(of.max(1))?;
        let opens = *passed.times.get(last)? + MINUTE;
        (opens > now).then_some(Shut::Rate { of, opens })
    }

    /// The first gate that keeps `mutation` from firing on `node` now. An intent that has passed keeps its word.
    pub(super) fn refusal(
        &self,
        node: &Node,
        mutation: &Mutation,
        sizes: &dyn Sizes,
        now: Instant,
    ) -> Option<(Gate, Shut)> {
        let refusal = self.gates(node, mutation).into_iter().find_map(|gate| {
            let shut = self.shut(&gate, sizes, now)?;
            Some((gate, shut))
        });
        refusal.filter(|_| !self.pending.contains_key(&(node.id, mutation.id.clone())))
    }

    /// An intent passes its gates.
    pub(super) fn pass(&mut self, node: &Node, mutation: &Mutation, now: Instant) {
        let gates = self.gates(node, mutation);
        if gates.is_empty() {
            return;
        }
        for gate in &gates {
            let holds_slot = *gate != Gate::PowerOn;
            let passed = self.passed.entry(gate.clone()).or_default();
            while passed.times.front().is_some_and(|at| *at + MINUTE <= now) {
                passed.times.pop_front();
            }
            passed.times.push_back(now);
            if holds_slot {
                passed.holders.insert(node.id);
            }
        }
        self.untold.extend(gates.iter().cloned());
        self.pending.insert((node.id, mutation.id.clone()), gates);
    }

    /// The intent became a firing: what it took stays taken.
    pub(super) fn fired(&mut self, node: NodeId, mutation: &MutationId) {
        if !self.pending.is_empty() {
            self.pending.remove(&(node, mutation.clone()));
        }
    }

    /// The intent came to nothing: what it took is free again.
    pub(super) fn give_back(&mut self, node: NodeId, mutation: &MutationId) {
        for gate in self
            .pending
            .remove(&(node, mutation.clone()))
            .into_iter()
            .flatten()
        {
            if let Some(passed) = self.passed.get_mut(&gate) {
                passed.times.pop_back();
                passed.holders.remove(&node);
            }
            self.untold.insert(gate);
        }
    }

    /// The node is no longer disrupted: all its slots are free.
    pub(super) fn release(&mut self, node: NodeId) {
        self.pending.retain(|(holder, _), _| *holder != node);
        for (gate, passed) in &mut self.passed {
            if passed.holders.remove(&node) && !self.untold.contains(gate) {
                self.untold.insert(gate.clone());
            }
        }
    }

    /// The node has to wait: single mutations' slots are free, see the module.
    fn release_mutations(&mut self, node: NodeId) {
        for (gate, passed) in &mut self.passed {
            if matches!(gate, Gate::Mutation(_)) && passed.holders.remove(&node) {
                self.untold.insert(gate.clone());
            }
        }
    }

    /// Lets a node wait at a gate. If it waited there before, `since` is when it came.
    pub(super) fn wait(&mut self, gate: Gate, node: &Node, since: Instant) {
        self.leave(node.id);
        self.release_mutations(node.id);
        let place = (since, node.name.clone(), node.id);
        let queue = self.queues.entry(gate.clone()).or_default();
        queue.insert(place.clone());
        self.waiting.insert(node.id, (gate, place));
    }

    /// The node waits no longer; where it stood, and since when.
    pub(super) fn leave(&mut self, node: NodeId) -> Option<(Gate, Instant)> {
        let (gate, place) = self.waiting.remove(&node)?;
        if let Some(queue) = self.queues.get_mut(&gate) {
            queue.remove(&place);
            if queue.is_empty() {
                self.queues.remove(&gate);
            }
        }
        Some((gate, place.0))
    }

    /// The gate at which `node` waits.
    pub(super) fn waits_at(&self, node: NodeId) -> Option<&Gate> {
        self.waiting.get(&node).map(|(gate, _)| gate)
    }

    /// How many stand before `node` at the gate where it waits.
    pub(super) fn ahead(&self, node: NodeId) -> usize {
        let Some((gate, place)) = self.waiting.get(&node) else {
            return 0;
        };
        let queue = self.queues.get(gate);
        queue.map_or(0, |queue| queue.range(..place.clone()).count())
    }

    /// One who waits at a gate that is open.
    pub(super) fn next_in_line(&self, opening: impl Fn(&Gate) -> Opening) -> Option<NodeId> {
        self.queues.iter().find_map(|(gate, queue)| {
            let (_, _, first) = queue.first()?;
            match opening(gate) {
                Opening::Shut => None,
                Opening::Open => Some(*first),
                Opening::For(node) => {
                    let waits = self.waiting.get(&node);
                    waits.is_some_and(|(at, _)| at == gate).then_some(node)
                }
            }
        })
    }

    /// The gates at which nodes wait, and how many.
    pub(super) fn queues(&self) -> impl Iterator<Item = (&Gate, usize)> {
        self.queues.iter().map(|(gate, queue)| (gate, queue.len()))
    }

    /// The gates with slots taken, and by how many nodes.
    pub(super) fn slots(&self) -> impl Iterator<Item = (&Gate, usize)> {
        let taken = self.passed.iter().map(|(gate, p)| (gate, p.holders.len()));
        taken.filter(|(_, taken)| *taken > 0)
    }
}

#[cfg(test)]
pub(super) mod tests;
