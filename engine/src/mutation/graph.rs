//! The declared mutations, compiled for planning (DESIGN 3).
//!
//! Urls become variables and values small numbers (`compile`). A question, "from here to there", is first cut down to the variables and
//! mutations that matter and split into parts that do not touch each other (`relax`), then each part is searched (`search`) over packed
//! states (`problem`). When there is no way, `why` says what blocks. `states` draws the reachable states.
//!
//! Nothing here depends on the order in which modules register: mutations are sorted by id before anything else.
//! What following a path means is in [`super::progress`].

mod check;
mod compile;
pub mod lint;
mod order;
mod problem;
mod relax;
mod search;
mod states;
mod why;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;

pub use check::GraphError;
use compile::{Rule, Val, Variable};
use order::Footprint;
pub use order::MAX_ORDERED;
pub use search::MAX_EXPLORED;
pub use states::{MAX_GRAPH_STATES, StateEdge, StateGraph, StateNode};

use super::path::{Class, MutationPath, Plan};
use super::{Condition, Mutation, MutationId, MutationSet};
use crate::index::Index;
use crate::state::{StateUrl, Value, Values, core};

/// Most urls that one set may name; with [`MAX_MUTATIONS`](super::MAX_MUTATIONS) it bounds memory and time of compiling.
pub const MAX_URLS: usize = 4096;

/// Most numbers that conditions compare one url with; with [`MAX_MUTATIONS`](super::MAX_MUTATIONS) it bounds memory and time of compiling. Real sets have two or three.
pub const MAX_CUTS: usize = 32;
/// Most changes of one mutation, conditions of one kind, and values of one condition: what the schema (mutation.proto) lets through to agents.
pub const MAX_ITEMS: usize = 64;

/// A mutation set ready for planning. Immutable; share it behind an `Arc`.
#[derive(Debug, Default)]
pub struct MutationGraph {
    set: MutationSet,
    by_id: Index<MutationId, usize>,
    by_url: Index<StateUrl, usize>,
    variables: Vec<Variable>,
    rules: Vec<Rule>,
    /// One a mutation, for what may run side by side.
    footprints: Vec<OnceLock<Footprint>>,
    discoverables: BTreeSet<StateUrl>,
}

/// What a node is led to.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Goal {
    /// Mutated urls and what they shall be.
    pub goal: Values,
    /// Urls whose Cfg value is set aside, with the url whose Cfg value makes it unknowable: `/RunState` while `/PhysState` shall be `POWER_OFF`.
    pub suspended: Vec<(StateUrl, StateUrl)>,
}

impl MutationGraph {
    /// Compiles a set; the order of its entries does not matter.
    ///
    /// # Errors
    /// See [`GraphError`].
    pub fn new(set: &MutationSet) -> Result<Self, GraphError> {
        compile::compile(set)
    }

    /// The set it was made from, in canonical order.
    pub fn set(&self) -> &MutationSet {
        &self.set
    }

    /// The mutation with this id.
    pub fn mutation(&self, id: &MutationId) -> Option<&Mutation> {
        self.by_id.get(id).map(|index| &self.set.mutations[*index])
    }

    /// Whether modules may report `url`: mutated urls, the core's, states of services, and declared ones.
    pub fn is_discoverable(&self, url: &StateUrl) -> bool {
        match self.by_url.get(url) {
            Some(index) => self.variables[*index].discoverable,
            None => is_core_discoverable(url) || self.discoverables.contains(url),
        }
    }

    /// Whether some mutation mutates `url`.
    pub fn is_mutated(&self, url: &StateUrl) -> bool {
        self.by_url
            .get(url)
            .is_some_and(|index| !self.variables[*index].mutators.is_empty())
    }

    /// Whether a wanted value of `url`, which nodes can show, is out of reach: nothing mutates it, and it is no parameter of what is
    /// mutated beside it, as `/image/name` is of `/image/state`.
    pub fn is_out_of_reach(&self, url: &StateUrl) -> bool {
        let mut mutated = self
            .set
            .mutations
            .iter()
            .flat_map(|mutation| &mutation.mutates);
        !self.is_mutated(url)
            && (self.is_discoverable(url)
                || !mutated.any(|change| change.url.parts().next() == url.parts().next()))
    }

    /// What must hold for a value of `url` to be known: as declared, else the requirements that all mutations share that take it from unknown.
    pub fn dependencies(&self, url: &StateUrl) -> &[Condition] {
        self.by_url
            .get(url)
            .map_or(&[], |index| &self.variables[*index].depends)
    }

    /// The urls of `dsc` that become unknown because the urls in `changed` changed, in the order in which one makes the other unknown.
    ///
    /// `dsc` and `cfg` are as they are after the change.
    pub fn forget(&self, dsc: &Values, cfg: &Values, changed: &[StateUrl]) -> Vec<StateUrl> {
        let mut forgotten: Vec<StateUrl> = Vec::new();
        let changed = changed
            .iter()
            .filter_map(|url| self.by_url.get(url).copied());
        let mut queue: Vec<usize> = changed.collect();
        let mut at = 0;
        while at < queue.len() {
            let cause = &self.variables[queue[at]];
            at += 1;
            let value = self
                .value_of(cause, dsc, cfg)
                .filter(|_| !forgotten.contains(&cause.url));
            for dependent in &cause.dependents {
                let variable = &self.variables[dependent.variable];
                let known = variable.discoverable && dsc.get(variable.url.as_str()).is_some();
                if known
                    && !variable.depends[dependent.condition].holds(value)
                    && !forgotten.contains(&variable.url)
                {
                    forgotten.push(variable.url.clone());
                    queue.push(dependent.variable);
                }
            }
        }
        forgotten
    }

    /// The goals of `cfg` that can hold together: those whose value cannot be known while another holds are set aside.
    ///
    /// This is the intent of a live node: `/PhysState=POWER_OFF` over an older `/RunState=SYNC` means "off", not "impossible".
    pub fn effective_goal(&self, cfg: &Values) -> Goal {
        let mut causes: BTreeMap<usize, usize> = BTreeMap::new();
        loop {
            let found = self
                .variables
                .iter()
                .enumerate()
                .find_map(|(index, variable)| {
                    if causes.contains_key(&index) || variable.mutators.is_empty() {
                        return None;
                    }
                    self.unknowable(variable, cfg, &causes)
                        .map(|cause| (index, cause))
                });
            match found {
                Some((index, cause)) => causes.insert(index, cause),
                None => break,
            };
        }
        let mut result = Goal::default();
        for (index, variable) in self.variables.iter().enumerate() {
            let Some(value) = cfg
                .get(variable.url.as_str())
                .filter(|_| !variable.mutators.is_empty())
            else {
                continue;
            };
            match causes.get(&index) {
                Some(cause) => result
                    .suspended
                    .push((variable.url.clone(), self.variables[*cause].url.clone())),
                None => {
                    result.goal.set(variable.url.clone(), Some(value.clone()));
                }
            }
        }
        result
    }

    /// The goal that keeps `variable` unknown, if one does.
    fn unknowable(
        &self,
        variable: &Variable,
        cfg: &Values,
        causes: &BTreeMap<usize, usize>,
    ) -> Option<usize> {
        variable
            .depends
            .iter()
            .zip(&variable.depends_on)
            .find_map(|(condition, on)| {
                let other = &self.variables[*on];
                if let Some(cause) = causes.get(on) {
                    return (!condition.holds(None)).then_some(*cause);
                }
                let wanted = cfg
                    .get(other.url.as_str())
                    .filter(|_| !other.mutators.is_empty())?;
                (!condition.holds(Some(wanted))).then_some(*on)
            })
    }

    /// The goals of `cfg` as they stand: every mutated url with a value.
    pub fn strict_goal(&self, cfg: &Values) -> Values {
        let mutated = self
            .variables
            .iter()
            .filter(|variable| !variable.mutators.is_empty());
        mutated
            .filter_map(|variable| {
                cfg.get(variable.url.as_str())
                    .map(|value| (variable.url.clone(), value.clone()))
            })
            .collect()
    }

    /// The cheapest path from `dsc` to everything that `cfg` asks for.
    pub fn plan(&self, dsc: &Values, cfg: &Values) -> Plan {
        self.plan_to(dsc, cfg, &self.strict_goal(cfg))
    }

    /// The cheapest path from `dsc` to `goal`; of equal ones that with the fewest steps, of these the first by the ids of its steps.
    ///
    /// Values of urls that are not discoverable come from `cfg`; goals for urls that nothing mutates are ignored.
    pub fn plan_to(&self, dsc: &Values, cfg: &Values, goal: &Values) -> Plan {
        self.plan_and_count(dsc, cfg, goal, &mut 0)
    }

    /// The same; adds what the search looked at, in mutations and states.
    pub(super) fn plan_and_count(
        &self,
        dsc: &Values,
        cfg: &Values,
        goal: &Values,
        explored: &mut usize,
    ) -> Plan {
        *explored += self.rules.len();
        let question = Question::new(self, dsc, cfg, goal);
        if question.is_answered() {
            return Plan::Converged;
        }
        match relax::relax(self, &question) {
            Ok(problems) => search::solve_all(self, &question, problems, explored),
            Err(unreachable) => Plan::NoPath(why::unreachable(self, &question, &unreachable)),
        }
    }

    /// The states that a node can reach from `dsc`, as a graph, with the plan to `goal` marked in it.
    pub fn states(&self, dsc: &Values, cfg: &Values, goal: &Values) -> StateGraph {
        states::reachable(
            self,
            &Question::new(self, dsc, cfg, goal),
            &self.plan_to(dsc, cfg, goal),
        )
    }

    /// What a plan for `dsc` and the effective goal of `cfg` can depend on.
    pub(super) fn class(&self, dsc: &Values, cfg: &Values) -> Class {
        let mut class = Class::default();
        let (mut observed, mut wanted) = (dsc.ascend(), cfg.ascend());
        for variable in &self.variables {
            let mut note = |value: Option<&Value>| {
                let number = variable.number(value);
                class.numbers.push(number);
                if variable.is_kind(number) {
                    class.unmentioned.extend(value.cloned());
                }
            };
            // What is not discoverable is looked up in Cfg, and nothing mutates it.
            if variable.discoverable {
                note(observed.get(&variable.url));
            }
            if !variable.discoverable || !variable.mutators.is_empty() {
                note(wanted.get(&variable.url));
            }
        }
        class
    }

    /// Whether the mutation's `from`, requires and excludes hold.
    pub fn applies(&self, mutation: &Mutation, dsc: &Values, cfg: &Values) -> bool {
        let holds = |condition: &Condition| {
            let variable = self.by_url.get(&condition.url);
            let value = variable.and_then(|index| self.value_of(&self.variables[*index], dsc, cfg));
            condition.holds(value)
        };
        let from = |change: &super::UrlChange| {
            let value = dsc.get(change.url.as_str());
            change.from.iter().any(|from| from.as_ref() == value)
        };
        mutation.mutates.iter().all(from)
            && mutation.requires.iter().all(holds)
            && !mutation.excludes.iter().any(holds)
    }

    fn value_of<'a>(
        &self,
        variable: &Variable,
        dsc: &'a Values,
        cfg: &'a Values,
    ) -> Option<&'a Value> {
        let source = if variable.discoverable { dsc } else { cfg };
        source.get(variable.url.as_str())
    }

    fn path(&self, rules: impl IntoIterator<Item = usize>) -> MutationPath {
        let mut path = MutationPath::default();
        for rule in rules {
            let mutation = &self.set.mutations[rule];
            path.steps.push(mutation.id.clone());
            path.cost += u64::from(mutation.cost);
        }
        path
    }
}

/// Whether the core itself knows `url` to be observed: `/PhysState`, `/RunState`, `/Busy`, `/Parked`, `/services/*/state`.
fn is_core_discoverable(url: &StateUrl) -> bool {
    let of_all = [core::PHYS_STATE, core::RUN_STATE, core::BUSY, core::PARKED];
    if of_all.contains(&url.as_str()) {
        return true;
    }
    let mut parts = url.parts();
    parts.next() == Some("services") && parts.nth(1) == Some("state") && parts.next().is_none()
}

/// One question to the planner, in numbers.
struct Question<'a> {
    dsc: &'a Values,
    cfg: &'a Values,
    wanted: &'a Values,
    /// Value of each variable.
    start: Vec<Val>,
    /// Wanted values of mutated variables, ordered by variable.
    goal: Vec<GoalVal>,
}

/// A wanted value.
#[derive(Clone, Copy, Debug)]
struct GoalVal {
    variable: usize,
    value: Val,
    holds_at_start: bool,
}

impl<'a> Question<'a> {
    fn new(graph: &MutationGraph, dsc: &'a Values, cfg: &'a Values, wanted: &'a Values) -> Self {
        let value_of = |variable: &Variable| graph.value_of(variable, dsc, cfg);
        let start: Vec<Val> = graph
            .variables
            .iter()
            .map(|v| v.number(value_of(v)))
            .collect();
        let goal = wanted.iter().filter_map(|(url, value)| {
            let index = *graph.by_url.get(url)?;
            let variable = &graph.variables[index];
            (!variable.mutators.is_empty()).then(|| GoalVal {
                variable: index,
                value: variable.number(Some(value)),
                holds_at_start: value_of(variable) == Some(value),
            })
        });
        Self {
            dsc,
            cfg,
            goal: goal.collect(),
            wanted,
            start,
        }
    }

    fn is_answered(&self) -> bool {
        self.goal.iter().all(|goal| goal.holds_at_start)
    }
}

#[cfg(test)]
pub(crate) mod tests;
