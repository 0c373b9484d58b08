//! Which values can occur and which mutations can fire, whatever the node: the least set that is closed under all mutations.

use std::collections::BTreeMap;

use super::super::MutationGraph;
use super::super::compile::{Rule, UNKNOWN, Val, Variable};
use super::{Finding, shown};
use crate::extension::nearest;
use crate::mutation::Condition;
use crate::state::{StateUrl, Value, core};

/// What can occur.
pub(super) struct Possible {
    /// By rule.
    pub(super) fires: Vec<bool>,
    /// By variable and value.
    occurs: Vec<Vec<bool>>,
    /// By variable and value: whether it is the `to` of any rule, fired or not.
    set: Vec<Vec<bool>>,
    /// Values that stand for a failure, by the url that has them, whether or not a declaration names them.
    failures: BTreeMap<StateUrl, Vec<Value>>,
}

/// Why a rule never fires: one variable.
pub(super) struct Stop {
    pub(super) variable: usize,
    /// The values at which it could.
    pub(super) allowed: Vec<Val>,
}

impl Possible {
    pub(super) fn new(graph: &MutationGraph, findings: &[Finding]) -> Self {
        let mut possible = Self {
            fires: vec![false; graph.rules.len()],
            occurs: Vec::with_capacity(graph.variables.len()),
            set: graph
                .variables
                .iter()
                .map(|variable| vec![false; variable.size()])
                .collect(),
            failures: failures(graph),
        };
        for effect in graph.rules.iter().flat_map(|rule| &rule.effects) {
            possible.set[effect.variable][effect.to as usize] = true;
        }
        for variable in &graph.variables {
            let is_free =
                variable.mutators.is_empty() || graph.discoverables.contains(&variable.url);
            let mut occurs = vec![is_free; variable.size()];
            occurs[UNKNOWN as usize] = true;
            for value in possible.failures.get(&variable.url).into_iter().flatten() {
                occurs[variable.number(Some(value)) as usize] = true;
            }
            let from = findings.partition_point(|(url, _)| *url < variable.url);
            let found = findings[from..].iter();
            for (_, value) in found.take_while(|(url, _)| *url == variable.url) {
                match value {
                    Some(value) => occurs[variable.number(value.as_ref()) as usize] = true,
                    None => occurs.fill(true),
                }
            }
            possible.occurs.push(occurs);
        }
        let mut queue: Vec<(usize, Val)> = Vec::new();
        for rule in 0..graph.rules.len() {
            possible.try_rule(graph, rule, &mut queue);
        }
        while let Some((variable, value)) = queue.pop() {
            let variable = &graph.variables[variable];
            let wanting = &variable.wanted_by[value as usize];
            for rule in wanting.iter().chain(&variable.watched_by) {
                possible.try_rule(graph, *rule, &mut queue);
            }
        }
        possible
    }

    fn try_rule(&mut self, graph: &MutationGraph, index: usize, queue: &mut Vec<(usize, Val)>) {
        let rule = &graph.rules[index];
        let can = |variable: usize| {
            let occurs = &self.occurs[variable];
            any_allowed(graph, rule, variable, |value| occurs[value as usize])
        };
        if self.fires[index] || !rule.mentions().all(can) {
            return;
        }
        self.fires[index] = true;
        for effect in &rule.effects {
            let occurs = &mut self.occurs[effect.variable][effect.to as usize];
            if !*occurs {
                *occurs = true;
                queue.push((effect.variable, effect.to));
            }
        }
    }

    /// What keeps a rule from firing.
    pub(super) fn stop(&self, graph: &MutationGraph, index: usize) -> Option<Stop> {
        let rule = &graph.rules[index];
        let variable = rule.mentions().find(|variable| {
            let occurs = &self.occurs[*variable];
            !any_allowed(graph, rule, *variable, |value| occurs[value as usize])
        })?;
        let mut allowed = Vec::new();
        any_allowed(graph, rule, variable, |value| {
            allowed.push(value);
            false
        });
        Some(Stop { variable, allowed })
    }

    /// Whether some rule sets what another one waits for.
    pub(super) fn is_set(&self, stop: &Stop) -> bool {
        let set = &self.set[stop.variable];
        stop.allowed.iter().any(|value| set[*value as usize])
    }

    /// Whether a value of this variable can become unknown because another one changes.
    pub(super) fn is_forgotten(&self, graph: &MutationGraph, index: usize) -> bool {
        let variable = &graph.variables[index];
        variable.depends_tests.iter().any(|test| {
            let on = &graph.variables[test.variable];
            if on.mutators.is_empty() {
                return on.discoverable;
            }
            let breaks = |rule: &usize| {
                let effects = graph.rules[*rule].effects.iter();
                self.fires[*rule]
                    && effects
                        .filter(|effect| effect.variable == test.variable)
                        .any(|effect| !test.holds(effect.to))
            };
            on.mutators.iter().any(breaks)
        })
    }

    /// Values of a url that stand for a failure.
    pub(super) fn failures(&self, url: &StateUrl) -> impl Iterator<Item = &Value> {
        self.failures.get(url).into_iter().flatten()
    }

    /// Every failure there is.
    pub(super) fn all_failures(&self) -> impl Iterator<Item = (&StateUrl, &Value)> {
        self.failures
            .iter()
            .flat_map(|(url, values)| values.iter().map(move |value| (url, value)))
    }
}

/// What timeouts discover, and what the engine itself discovers of a node that falls silent.
fn failures(graph: &MutationGraph) -> BTreeMap<StateUrl, Vec<Value>> {
    let mut failures: BTreeMap<StateUrl, Vec<Value>> = BTreeMap::new();
    for mutation in &graph.set.mutations {
        for change in &mutation.fail_to {
            if let Some(value) = &change.value {
                failures
                    .entry(change.url.clone())
                    .or_default()
                    .push(value.clone());
            }
        }
    }
    let run_state = graph.by_url.get_key_value(core::RUN_STATE);
    if let Some((url, index)) = run_state
        && !graph.variables[*index].mutators.is_empty()
    {
        failures
            .entry(url.clone())
            .or_default()
            .push(core::ERROR.into());
    }
    for values in failures.values_mut() {
        values.sort();
        values.dedup();
    }
    failures
}

/// Whether `accept` takes one of the values of `variable` at which `rule` may fire.
pub(super) fn any_allowed(
    graph: &MutationGraph,
    rule: &Rule,
    variable: usize,
    mut accept: impl FnMut(Val) -> bool,
) -> bool {
    let mut base: Option<&[Val]> = None;
    for set in rule.demands(variable) {
        base = Some(base.map_or(
            set,
            |least| if set.len() < least.len() { set } else { least },
        ));
    }
    let mut fits = |value: Val| rule.allows(variable, value) && accept(value);
    match base {
        Some(values) => values.iter().any(|value| fits(*value)),
        None => (0..graph.variables[variable].size() as Val).any(fits),
    }
}

impl Stop {
    /// What the rule wants of this variable: `starts from /a=1 and requires /a of at least 3`.
    pub(super) fn wants(&self, graph: &MutationGraph, index: usize) -> String {
        let mutation = &graph.set.mutations[index];
        let url = &graph.variables[self.variable].url;
        let change = mutation.mutates.iter().find(|change| change.url == *url);
        let mut wants: Vec<String> = change
            .map(|change| {
                let mut from = Condition::any_of(url.clone(), change.from.clone());
                from.tidy();
                format!("starts from {from}")
            })
            .into_iter()
            .collect();
        let own = |condition: &&Condition| condition.url == *url;
        wants.extend(
            mutation
                .requires
                .iter()
                .filter(own)
                .map(|condition| format!("requires {condition}")),
        );
        wants.extend(
            mutation
                .excludes
                .iter()
                .filter(own)
                .map(|condition| format!("excludes {condition}")),
        );
        wants.join(" and ")
    }
}

impl Possible {
    /// A spelling that was perhaps meant: of a word, and one that occurs.
    pub(super) fn meant(&self, stop: &Stop, variable: &Variable) -> String {
        let [only] = stop.allowed[..] else {
            return String::new();
        };
        let wanted = shown(variable, only);
        let occurs = &self.occurs[stop.variable];
        let words = variable.values.iter().enumerate();
        let words = words.filter(|(at, value)| occurs[at + 1] && value.as_text().is_some());
        let others: Vec<&str> = words
            .filter_map(|(_, value)| value.as_text())
            .filter(|other| *other != wanted)
            .collect();
        let near = nearest(&wanted, others.into_iter());
        near.map_or(String::new(), |near| format!(" (did you mean {near}?)"))
    }
}
