//! What the planner answers, and the planner that answers nodes of one class once (DESIGN 3).
//!
//! The search itself is in [`super::graph`].

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use smallvec::SmallVec;

use super::graph::{Goal, MutationGraph};
use super::{Condition, Mutation, MutationContext, MutationId};
use crate::state::{StateUrl, Value, Values};

/// Plans kept; a cluster has a handful of classes times the states they pass through, and one plan takes about 1 KiB.
pub const MAX_CACHED_PLANS: usize = 4096;

/// Mutations to fire one after the other.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct MutationPath {
    /// Never empty in a [`Plan::Path`].
    pub steps: Vec<MutationId>,
    /// Sum of the costs of the steps.
    pub cost: u64,
}

/// How a node gets from Dsc to its goal.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum Plan {
    /// It is there.
    #[default]
    Converged,
    /// By these mutations.
    Path(MutationPath),
    /// Not at all.
    NoPath(NoPath),
}

/// Why there is no path. Its text is one for people; the fields are the same as data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoPath {
    /// What kind of dead end it is.
    pub kind: NoPathKind,
    /// The goals that are not to be had.
    pub goals: Vec<(StateUrl, Value)>,
    /// What is in the way, most important first; may be cut, see [`MAX_BLOCKERS`].
    pub blockers: Vec<Blocker>,
    /// All of it in words.
    pub reason: String,
}

/// Most blockers that a [`NoPath`] names; more would not be read.
pub const MAX_BLOCKERS: usize = 8;

/// Kinds of dead ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoPathKind {
    /// Some goal cannot be reached at all.
    Unreachable,
    /// Each goal can be reached, but not all together.
    Conflict,
    /// The search was given up after [`super::graph::MAX_EXPLORED`] states.
    OverBudget,
}

/// One thing in the way of a goal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blocker {
    /// The mutation that would lead on; `None` when there is no such mutation.
    pub mutation: Option<MutationId>,
    /// The url that it would change.
    pub url: StateUrl,
    /// What that url would become.
    pub to: Option<Value>,
    /// What stops it.
    pub obstacle: Obstacle,
}

/// What stops a mutation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// There is none that leads to this value.
    NoMutation,
    /// A `from` or a requirement does not hold and cannot be made to.
    Requires(Condition),
    /// An exclude holds and cannot be lifted.
    Excludes(Condition),
    /// All its conditions can hold, but not at once.
    NeverTogether,
}

impl fmt::Display for NoPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl Plan {
    /// The steps of a path; empty otherwise.
    pub fn steps(&self) -> &[MutationId] {
        match self {
            Self::Path(path) => &path.steps,
            Self::Converged | Self::NoPath(_) => &[],
        }
    }
}

/// A plan, and what it is a plan for.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct PlanResult {
    /// The way.
    pub plan: Plan,
    /// For each of its steps the steps that must come first; see [`MutationGraph::order`].
    pub after: Vec<Vec<usize>>,
    /// Where it leads.
    pub goal: Values,
    /// Cfg values that are set aside, each with the url whose Cfg value makes it unknowable.
    pub suspended: Vec<(StateUrl, StateUrl)>,
    /// Steps that nothing has to come before.
    ready: Vec<usize>,
    /// See [`end_of_drain`](Self::end_of_drain).
    end_of_drain: Option<usize>,
}

impl PlanResult {
    /// The plan from `dsc` to the effective goal of `cfg`.
    pub fn new(graph: &MutationGraph, dsc: &Values, cfg: &Values) -> Self {
        Self::and_count(graph, dsc, cfg, &mut 0)
    }

    /// The same; adds what the search looked at.
    fn and_count(graph: &MutationGraph, dsc: &Values, cfg: &Values, explored: &mut usize) -> Self {
        let Goal { goal, suspended } = graph.effective_goal(cfg);
        let plan = graph.plan_and_count(dsc, cfg, &goal, explored);
        Self::of(graph, plan, Goal { goal, suspended })
    }

    fn of(graph: &MutationGraph, plan: Plan, goal: Goal) -> Self {
        let after = graph.order(plan.steps());
        let is_ready = |step: &usize| after[*step].is_empty();
        Self {
            ready: (0..after.len()).filter(is_ready).collect(),
            end_of_drain: find_end_of_drain(graph, plan.steps()),
            after,
            plan,
            goal: goal.goal,
            suspended: goal.suspended,
        }
    }

    /// The steps that nothing has to come before, in the order of the plan.
    pub fn ready(&self) -> impl Iterator<Item = &MutationId> {
        self.ready.iter().map(|step| &self.plan.steps()[*step])
    }

    /// The disruptive step at the end of a drain that is next, and that the node itself begins.
    pub(crate) fn end_of_drain(&self) -> Option<&MutationId> {
        Some(&self.plan.steps()[self.end_of_drain?])
    }
}

/// The first disruptive step, if it is another's, and what comes first is the node's own and is not disruptive.
fn find_end_of_drain(graph: &MutationGraph, steps: &[MutationId]) -> Option<usize> {
    let by_node = |mutation: &Mutation| mutation.context == MutationContext::SelfNode;
    let mut steps = steps.iter().enumerate();
    let first = graph.mutation(steps.next()?.1)?;
    let (end, last) = steps.find_map(|(step, id)| {
        let mutation = graph.mutation(id)?;
        mutation.disruptive.then_some((step, mutation))
    })?;
    (by_node(first) && !first.disruptive && !by_node(last)).then_some(end)
}

/// Plans for live nodes. All nodes with the same values of the urls that matter share one search.
#[derive(Debug)]
pub struct Planner {
    graph: Arc<MutationGraph>,
    plans: BTreeMap<Class, Arc<PlanResult>>,
    searches: u64,
    explored: usize,
}

/// All that a plan can depend on: for each variable its value and its goal as numbers, then the values that have no number.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) struct Class {
    pub(super) numbers: SmallVec<[u32; 24]>,
    pub(super) unmentioned: Vec<Value>,
}

impl Planner {
    /// A planner over this graph.
    pub fn new(graph: Arc<MutationGraph>) -> Self {
        Self {
            graph,
            plans: BTreeMap::new(),
            searches: 0,
            explored: 0,
        }
    }

    /// The graph it plans over.
    pub fn graph(&self) -> &Arc<MutationGraph> {
        &self.graph
    }

    /// What searches have looked at since the last call, in mutations and states: hardly more than they take time.
    pub(crate) fn take_explored(&mut self) -> usize {
        std::mem::take(&mut self.explored)
    }

    /// Searches made so far, the rest having come from the cache.
    pub fn searches(&self) -> u64 {
        self.searches
    }

    /// The plan from `dsc` to the effective goal of `cfg`.
    pub fn plan(&mut self, dsc: &Values, cfg: &Values) -> Arc<PlanResult> {
        let class = self.graph.class(dsc, cfg);
        if let Some(known) = self.plans.get(&class) {
            return known.clone();
        }
        self.searches += 1;
        let result = PlanResult::and_count(&self.graph, dsc, cfg, &mut self.explored);
        let result = Arc::new(result);
        if self.plans.len() >= MAX_CACHED_PLANS {
            self.plans.clear();
        }
        self.plans.insert(class, result.clone());
        result
    }

    /// Like [`plan`](Self::plan), but what is under way stays part of it where that costs no more: of equal ways the one that is being gone.
    ///
    /// `keep` is a goal for which what is under way stays whatever it costs, as long as it leads there.
    pub fn plan_on<'a>(
        &mut self,
        dsc: &Values,
        cfg: &Values,
        under_way: impl Iterator<Item = &'a MutationId>,
        keep: Option<&Values>,
    ) -> Arc<PlanResult> {
        let best = self.plan(dsc, cfg);
        let Plan::Path(path) = &best.plan else {
            return best;
        };
        let under_way: Vec<&MutationId> = under_way.collect();
        let stays = |id: &&MutationId| best.ready().any(|ready| ready == *id);
        if under_way.iter().all(stays) {
            return best;
        }
        let kept = match keep {
            Some(goal) if *goal == best.goal => self.going_on(dsc, cfg, &under_way),
            _ => None,
        };
        let mut others = under_way.iter().filter(|id| !stays(id));
        let found = kept.or_else(|| {
            others.find_map(|id| {
                let way = self.going_on(dsc, cfg, &[id]);
                way.filter(|way| way.cost <= path.cost)
            })
        });
        let Some(path) = found else {
            return best;
        };
        let goal = Goal {
            goal: best.goal.clone(),
            suspended: best.suspended.clone(),
        };
        Arc::new(PlanResult::of(&self.graph, Plan::Path(path), goal))
    }

    /// The way that begins with these, if they apply and lead on.
    fn going_on(
        &mut self,
        dsc: &Values,
        cfg: &Values,
        first: &[&MutationId],
    ) -> Option<MutationPath> {
        let graph = self.graph.clone();
        let mut path = MutationPath::default();
        // Copied only if something applies: mostly, what is under way has just been reached.
        let mut after = Cow::Borrowed(dsc);
        for id in first {
            let applies = |found: &&Mutation| graph.applies(found, &after, cfg);
            let mutation = graph.mutation(id).filter(applies)?;
            let urls = mutation.mutates.iter().map(|change| change.url.clone());
            let changed: Vec<StateUrl> = urls.collect();
            for change in &mutation.mutates {
                after.to_mut().set(change.url.clone(), change.to.clone());
            }
            for url in graph.forget(&after, cfg, &changed) {
                after.to_mut().set(url, None);
            }
            path.steps.push((*id).clone());
            path.cost += u64::from(mutation.cost);
        }
        match &self.plan(&after, cfg).plan {
            Plan::Path(rest) => {
                path.steps.extend_from_slice(&rest.steps);
                path.cost += rest.cost;
            }
            Plan::Converged => {}
            Plan::NoPath(_) => return None,
        }
        Some(path)
    }
}

#[cfg(test)]
mod tests;
