//! One part of a question, packed for search: a state is a few machine words with some bits for each variable.
//!
//! Only variables that can change are in it, with only the values they can reach; conditions on anything else were decided before.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use smallvec::SmallVec;

use super::compile::{Rule, Test, UNKNOWN, Val};
use super::relax::Reach;
use super::{MutationGraph, Question};

/// Sum of costs in the upper half, number of steps in the lower: one number whose order is that of preference.
pub(super) type Weight = u128;

/// More than any path weighs.
pub(super) const INFINITE: Weight = Weight::MAX;

/// Number of a value within its domain.
pub(super) type Local = u32;

/// A set of local values.
#[derive(Debug, Clone)]
enum LocalSet {
    /// One bit a value, for domains of up to 64.
    Bits(u64),
    /// Sorted, for larger ones.
    List(Vec<Local>),
}

/// Where a variable lies in a packed state.
#[derive(Debug, Clone, Copy)]
struct Place {
    word: usize,
    shift: u32,
    mask: u64,
}

#[derive(Debug)]
struct LocalRule {
    rule: usize,
    weight: Weight,
    tests: SmallVec<[(usize, LocalSet); 4]>,
    effects: SmallVec<[LocalEffect; 2]>,
}

#[derive(Debug)]
struct LocalEffect {
    variable: usize,
    /// Every value that the rule finds acceptable, conditions included.
    from: LocalSet,
    to: Local,
}

#[derive(Debug)]
struct LocalDependent {
    variable: usize,
    unknown: Local,
    holds: LocalSet,
}

/// A part of a question, ready to be searched.
#[derive(Debug)]
pub(super) struct Problem {
    /// The variables behind the local ones, ordered.
    variables: Vec<usize>,
    /// Values each can take.
    domains: Vec<Vec<Val>>,
    places: Vec<Place>,
    words: usize,
    rules: Vec<LocalRule>,
    /// By local variable and value: rules that start from it. Each rule is listed under one variable.
    starts: Vec<Vec<Vec<u32>>>,
    dependents: Vec<Vec<LocalDependent>>,
    start: Vec<Local>,
    /// Ordered by variable.
    goal: Vec<(usize, Local)>,
}

/// A state spelled out, and what a rule made of it; kept between calls to save allocations.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    before: Vec<Local>,
    after: Vec<Local>,
    changed: Vec<usize>,
    packed: Vec<u64>,
}

impl LocalSet {
    /// Those of `values` that are in the domain.
    fn new(domain: &[Val], values: impl Iterator<Item = Val>) -> Self {
        let locals = values.filter_map(|value| domain.binary_search(&value).ok());
        if domain.len() <= 64 {
            Self::Bits(locals.fold(0, |bits, local| bits | 1 << local))
        } else {
            let mut list: Vec<Local> = locals.map(|local| local as Local).collect();
            list.sort_unstable();
            list.dedup();
            Self::List(list)
        }
    }

    fn has(&self, local: Local) -> bool {
        match self {
            Self::Bits(bits) => bits >> local & 1 == 1,
            Self::List(list) => list.binary_search(&local).is_ok(),
        }
    }

    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn len(&self) -> usize {
        match self {
            Self::Bits(bits) => bits.count_ones() as usize,
            Self::List(list) => list.len(),
        }
    }

    fn for_each(&self, mut each: impl FnMut(Local)) {
        match self {
            Self::Bits(bits) => {
                let mut left = *bits;
                while left != 0 {
                    each(left.trailing_zeros());
                    left &= left - 1;
                }
            }
            Self::List(list) => list.iter().copied().for_each(each),
        }
    }
}

impl Problem {
    /// The part made of these variables and rules.
    pub(super) fn new(
        graph: &MutationGraph,
        question: &Question<'_>,
        reach: &Reach,
        variables: &[usize],
        rules: &[usize],
    ) -> Self {
        let domains: Vec<Vec<Val>> = variables
            .iter()
            .map(|variable| {
                let mut domain = reach.values[*variable].clone();
                domain.sort_unstable();
                domain
            })
            .collect();
        let (places, words) = layout(&domains);
        let local_of = |variable: usize| variables.binary_search(&variable).ok();
        let local_value = |local: usize, value: Val| {
            domains[local]
                .binary_search(&value)
                .ok()
                .map(|at| at as Local)
        };
        let start = variables
            .iter()
            .enumerate()
            .filter_map(|(local, variable)| local_value(local, question.start[*variable]))
            .collect();
        let goal = question.goal.iter().filter_map(|goal| {
            let local = local_of(goal.variable)?;
            Some((local, local_value(local, goal.value)?))
        });
        let mut dependents: Vec<Vec<LocalDependent>> = Vec::with_capacity(variables.len());
        for (local, variable) in variables.iter().enumerate() {
            let all = graph.variables[*variable]
                .dependents
                .iter()
                .filter_map(|dependent| {
                    let other = &graph.variables[dependent.variable];
                    let on = local_of(dependent.variable).filter(|_| other.discoverable)?;
                    let test: &Test = &other.depends_tests[dependent.condition];
                    Some(LocalDependent {
                        variable: on,
                        unknown: local_value(on, UNKNOWN)?,
                        holds: LocalSet::new(
                            &domains[local],
                            domains[local]
                                .iter()
                                .copied()
                                .filter(|value| test.holds(*value)),
                        ),
                    })
                });
            dependents.push(all.collect());
        }
        let mut problem = Self {
            goal: goal.collect(),
            start,
            dependents,
            places,
            words,
            rules: Vec::with_capacity(rules.len()),
            starts: domains
                .iter()
                .map(|domain| vec![Vec::new(); domain.len()])
                .collect(),
            variables: variables.to_vec(),
            domains,
        };
        for rule in rules {
            problem.add_rule(graph, *rule);
        }
        problem
    }

    fn add_rule(&mut self, graph: &MutationGraph, index: usize) {
        let rule = &graph.rules[index];
        let mut tests: SmallVec<[(usize, LocalSet); 4]> = SmallVec::new();
        let mut effects = SmallVec::new();
        for variable in rule.mentions() {
            // A variable that cannot change is not part of the problem: its conditions were decided before.
            let Ok(local) = self.variables.binary_search(&variable) else {
                continue;
            };
            if tests.iter().any(|(known, _)| *known == local) {
                continue;
            }
            let allowed = allowed(rule, variable, &self.domains[local]);
            if allowed.is_empty() {
                return;
            }
            tests.push((local, allowed));
        }
        for effect in &rule.effects {
            if let Ok(local) = self.variables.binary_search(&effect.variable)
                && let Some((_, from)) = tests.iter().find(|(variable, _)| *variable == local)
                && let Ok(to) = self.domains[local].binary_search(&effect.to)
            {
                effects.push(LocalEffect {
                    variable: local,
                    from: from.clone(),
                    to: to as Local,
                });
            }
        }
        let Some((pivot, allowed)) = tests
            .iter()
            .min_by_key(|(local, allowed)| (allowed.len(), *local))
        else {
            return;
        };
        let number = self.rules.len() as u32;
        let starts = &mut self.starts[*pivot];
        allowed.for_each(|value| starts[value as usize].push(number));
        let pivot = *pivot;
        tests.retain(|(local, allowed)| {
            *local != pivot && allowed.len() < self.domains[*local].len()
        });
        self.rules.push(LocalRule {
            rule: index,
            weight: (Weight::from(rule.cost) << 64) | 1,
            tests,
            effects,
        });
    }

    /// Words of a packed state.
    pub(super) fn words(&self) -> usize {
        self.words
    }

    /// The packed start.
    pub(super) fn start(&self) -> Vec<u64> {
        let mut packed = Vec::new();
        self.pack(&self.start, &mut packed);
        packed
    }

    /// Variables of this part that have a goal, with the goal's value.
    pub(super) fn goals(&self) -> impl Iterator<Item = (usize, Val)> {
        self.goal.iter().map(|(local, value)| {
            (
                self.variables[*local],
                self.domains[*local][*value as usize],
            )
        })
    }

    /// Some of the goals, by place.
    pub(super) fn some_goals(&self, keep: &[usize]) -> Vec<(usize, Local)> {
        keep.iter().map(|at| self.goal[*at]).collect()
    }

    /// Replaces the goals and returns the old ones.
    pub(super) fn set_goals(&mut self, goal: Vec<(usize, Local)>) -> Vec<(usize, Local)> {
        std::mem::replace(&mut self.goal, goal)
    }

    /// Whether all goals hold.
    pub(super) fn is_goal(&self, state: &[u64]) -> bool {
        self.goal
            .iter()
            .all(|(local, value)| self.local(state, *local) == *value)
    }

    /// Each variable with its value in `state`.
    pub(super) fn values<'a>(
        &'a self,
        state: &'a [u64],
    ) -> impl Iterator<Item = (usize, Val)> + 'a {
        self.variables.iter().enumerate().map(|(local, variable)| {
            (
                *variable,
                self.domains[local][self.local(state, local) as usize],
            )
        })
    }

    /// Calls `found` with each rule that fires in `state`, its weight and the state after it; rules that change nothing are left out.
    pub(super) fn successors(
        &self,
        state: &[u64],
        scratch: &mut Scratch,
        mut found: impl FnMut(usize, Weight, &[u64]),
    ) {
        scratch.before.clear();
        scratch
            .before
            .extend((0..self.variables.len()).map(|local| self.local(state, local)));
        for (local, starts) in self.starts.iter().enumerate() {
            for number in &starts[scratch.before[local] as usize] {
                let rule = &self.rules[*number as usize];
                let before = &scratch.before;
                if !rule
                    .tests
                    .iter()
                    .all(|(local, allowed)| allowed.has(before[*local]))
                {
                    continue;
                }
                self.fire(rule, scratch);
                if !scratch.changed.is_empty() {
                    let Scratch { after, packed, .. } = scratch;
                    self.pack(after, packed);
                    found(rule.rule, rule.weight, packed);
                }
            }
        }
    }

    fn fire(&self, rule: &LocalRule, scratch: &mut Scratch) {
        let Scratch {
            before,
            after,
            changed,
            ..
        } = scratch;
        after.clone_from(before);
        changed.clear();
        for effect in &rule.effects {
            if after[effect.variable] != effect.to {
                after[effect.variable] = effect.to;
                changed.push(effect.variable);
            }
        }
        let mut at = 0;
        while at < changed.len() {
            let cause = changed[at];
            at += 1;
            for dependent in &self.dependents[cause] {
                if after[dependent.variable] != dependent.unknown
                    && !dependent.holds.has(after[cause])
                {
                    after[dependent.variable] = dependent.unknown;
                    changed.push(dependent.variable);
                }
            }
        }
    }

    /// For each goal: by value, a weight that no path from there to the goal can undercut, such that these may be added up.
    ///
    /// Each variable is looked at alone. A rule that changes several variables with goals counts in equal shares; forgetting counts nothing.
    pub(super) fn bounds(&self) -> Vec<(usize, Vec<Weight>)> {
        self.goal
            .iter()
            .map(|(local, value)| (*local, self.bound(*local, *value)))
            .collect()
    }

    fn bound(&self, local: usize, goal: Local) -> Vec<Weight> {
        let size = self.domains[local].len();
        let mut into: Vec<Vec<(&LocalSet, Weight)>> = vec![Vec::new(); size];
        for rule in &self.rules {
            let Some(effect) = rule.effects.iter().find(|effect| effect.variable == local) else {
                continue;
            };
            let shares =
                |effect: &&LocalEffect| self.goal.iter().any(|(goal, _)| *goal == effect.variable);
            let sharers = rule.effects.iter().filter(shares).count();
            into[effect.to as usize].push((&effect.from, rule.weight / sharers.max(1) as Weight));
        }
        let forgotten_as = self
            .dependents
            .iter()
            .flatten()
            .find(|dependent| dependent.variable == local)
            .map(|dependent| dependent.unknown);
        let mut bound = vec![INFINITE; size];
        let mut queue = BinaryHeap::from([Reverse((0, goal))]);
        while let Some(Reverse((weight, value))) = queue.pop() {
            if bound[value as usize] != INFINITE {
                continue;
            }
            bound[value as usize] = weight;
            let open = (0..size as Local).filter(|before| bound[*before as usize] == INFINITE);
            if forgotten_as == Some(value) {
                queue.extend(open.map(|before| Reverse((weight, before))));
                continue;
            }
            for (from, step) in &into[value as usize] {
                from.for_each(|before| {
                    if bound[before as usize] == INFINITE {
                        queue.push(Reverse((weight + step, before)));
                    }
                });
            }
        }
        bound
    }

    /// The local value of a local variable.
    pub(super) fn local(&self, state: &[u64], local: usize) -> Local {
        let place = self.places[local];
        (state[place.word] >> place.shift & place.mask) as Local
    }

    fn pack(&self, values: &[Local], packed: &mut Vec<u64>) {
        packed.clear();
        packed.resize(self.words, 0);
        for (place, value) in self.places.iter().zip(values) {
            packed[place.word] |= u64::from(*value) << place.shift;
        }
    }
}

/// The values of `variable` at which `rule` may fire, as far as that hangs on this variable.
fn allowed(rule: &Rule, variable: usize, domain: &[Val]) -> LocalSet {
    let some = rule.demands(variable).next();
    let some = some.filter(|some| some.len() < domain.len());
    let values = some.unwrap_or(domain).iter().copied();
    LocalSet::new(domain, values.filter(|value| rule.allows(variable, *value)))
}

/// Gives each variable its bits; none crosses a word.
fn layout(domains: &[Vec<Val>]) -> (Vec<Place>, usize) {
    let (mut word, mut used) = (0, 0);
    let places = domains.iter().map(|domain| {
        let bits = (usize::BITS - (domain.len() - 1).leading_zeros()).max(1);
        if used + bits > u64::BITS {
            (word, used) = (word + 1, 0);
        }
        let place = Place {
            word,
            shift: used,
            mask: (1 << bits) - 1,
        };
        used += bits;
        place
    });
    let places: Vec<Place> = places.collect();
    (places, word + 1)
}
