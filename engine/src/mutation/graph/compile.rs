//! From declarations to numbers: urls become indices, values their places in a sorted list, conditions sorted lists of such places.

use std::collections::{BTreeMap, BTreeSet};

use super::{GraphError, MAX_URLS, MutationGraph, is_core_discoverable};
use crate::mutation::{Condition, Dependency, MAX_MUTATIONS, Mutation, MutationSet};
use crate::state::{StateUrl, Value};

/// A value of a variable: [`UNKNOWN`], then the declared ones in order, then one more for whatever no declaration mentions.
pub(super) type Val = u32;

/// The value is unset.
pub(super) const UNKNOWN: Val = 0;

/// A url that some declaration names.
#[derive(Debug)]
pub(super) struct Variable {
    pub(super) url: StateUrl,
    /// Declared values, sorted.
    pub(super) values: Vec<Value>,
    pub(super) discoverable: bool,
    /// Rules that change it.
    pub(super) mutators: Vec<usize>,
    /// What must hold for it to be known, ordered by url.
    pub(super) depends: Vec<Condition>,
    /// The variable behind each of `depends`.
    pub(super) depends_on: Vec<usize>,
    /// The same in numbers.
    pub(super) depends_tests: Vec<Test>,
    /// Who depends on it.
    pub(super) dependents: Vec<Dependent>,
    /// By value: rules that want it in a `from` or in requires.
    pub(super) wanted_by: Vec<Vec<usize>>,
    /// Rules with an exclude on it.
    pub(super) excluded_by: Vec<usize>,
}

/// A variable whose knowledge hangs on another.
#[derive(Debug, Clone, Copy)]
pub(super) struct Dependent {
    pub(super) variable: usize,
    /// Place in its `depends`.
    pub(super) condition: usize,
}

/// A condition on one variable.
#[derive(Debug, Clone)]
pub(super) struct Test {
    pub(super) variable: usize,
    /// Sorted.
    pub(super) values: Vec<Val>,
}

/// A change of one variable.
#[derive(Debug)]
pub(super) struct Effect {
    pub(super) variable: usize,
    /// Sorted.
    pub(super) from: Vec<Val>,
    pub(super) to: Val,
}

/// A mutation in numbers; its index is that of the mutation, in the order of ids.
#[derive(Debug)]
pub(super) struct Rule {
    pub(super) effects: Vec<Effect>,
    pub(super) requires: Vec<Test>,
    pub(super) excludes: Vec<Test>,
    pub(super) cost: u32,
}

impl Variable {
    fn new(url: StateUrl, discoverable: bool) -> Self {
        Self {
            url,
            values: Vec::new(),
            discoverable,
            mutators: Vec::new(),
            depends: Vec::new(),
            depends_on: Vec::new(),
            depends_tests: Vec::new(),
            dependents: Vec::new(),
            wanted_by: Vec::new(),
            excluded_by: Vec::new(),
        }
    }

    /// The number of a value.
    pub(super) fn number(&self, value: Option<&Value>) -> Val {
        match value {
            None => UNKNOWN,
            Some(value) => match self.values.binary_search(value) {
                Ok(at) => at as Val + 1,
                Err(_) => self.other(),
            },
        }
    }

    /// The value behind a number; `None` for unknown and for values that no declaration mentions.
    pub(super) fn value(&self, number: Val) -> Option<&Value> {
        self.values.get((number as usize).checked_sub(1)?)
    }

    /// The number that stands for every value that no declaration mentions.
    pub(super) fn other(&self) -> Val {
        self.values.len() as Val + 1
    }

    fn numbers(&self, values: &[Option<Value>]) -> Vec<Val> {
        let mut numbers: Vec<Val> = values
            .iter()
            .map(|value| self.number(value.as_ref()))
            .collect();
        numbers.sort_unstable();
        numbers.dedup();
        numbers
    }
}

impl Test {
    pub(super) fn holds(&self, value: Val) -> bool {
        contains(&self.values, value)
    }
}

/// Whether a sorted list of numbers has `value`.
pub(super) fn contains(values: &[Val], value: Val) -> bool {
    match values {
        [only] => *only == value,
        many if many.len() <= 8 => many.contains(&value),
        many => many.binary_search(&value).is_ok(),
    }
}

pub(super) fn compile(set: &MutationSet) -> Result<MutationGraph, GraphError> {
    let set = canonical(set);
    check(&set)?;
    let by_id = set
        .mutations
        .iter()
        .enumerate()
        .map(|(index, mutation)| (mutation.id.clone(), index))
        .collect();
    let depends = dependencies(&set);
    let mut variables = variables(&set, &depends)?;
    let by_url: BTreeMap<StateUrl, usize> = variables
        .iter()
        .enumerate()
        .map(|(index, variable)| (variable.url.clone(), index))
        .collect();
    let rules: Vec<Rule> = set
        .mutations
        .iter()
        .map(|mutation| rule(mutation, &variables, &by_url))
        .collect();
    link_dependencies(&mut variables, &by_url, depends);
    link_rules(&mut variables, &rules);
    Ok(MutationGraph {
        discoverables: set.discoverables.iter().cloned().collect(),
        set,
        by_id,
        by_url,
        variables,
        rules,
    })
}

/// The set in an order that its declarations alone decide.
fn canonical(set: &MutationSet) -> MutationSet {
    let mut set = set.clone();
    set.mutations.sort_by(|a, b| a.id.cmp(&b.id));
    for mutation in &mut set.mutations {
        mutation.mutates.sort();
        mutation.requires.sort();
        mutation.excludes.sort();
    }
    set.dependencies.sort();
    set.discoverables.sort();
    set.discoverables.dedup();
    set
}

fn check(set: &MutationSet) -> Result<(), GraphError> {
    if set.mutations.len() > MAX_MUTATIONS {
        return Err(GraphError::TooManyMutations(set.mutations.len()));
    }
    if let Some(pair) = set
        .mutations
        .windows(2)
        .find(|pair| pair[0].id == pair[1].id)
    {
        return Err(GraphError::DeclaredTwice(pair[0].id.clone()));
    }
    for mutation in &set.mutations {
        let no_values = |url: &StateUrl| GraphError::NoValues {
            what: format!("mutation {}", mutation.id),
            url: url.clone(),
        };
        if mutation.mutates.is_empty() {
            return Err(GraphError::MutatesNothing(mutation.id.clone()));
        }
        let mut seen = BTreeSet::new();
        for change in &mutation.mutates {
            if !seen.insert(&change.url) {
                return Err(GraphError::UrlTwice {
                    id: mutation.id.clone(),
                    url: change.url.clone(),
                });
            }
            if change.from.is_empty() {
                return Err(no_values(&change.url));
            }
        }
        let conditions = mutation.requires.iter().chain(&mutation.excludes);
        if let Some(empty) = conditions
            .into_iter()
            .find(|condition| condition.any_of.is_empty())
        {
            return Err(no_values(&empty.url));
        }
    }
    if let Some(pair) = set
        .dependencies
        .windows(2)
        .find(|pair| pair[0].url == pair[1].url)
    {
        return Err(GraphError::DependsTwice(pair[0].url.clone()));
    }
    for Dependency { url, conditions } in &set.dependencies {
        if let Some(empty) = conditions
            .iter()
            .find(|condition| condition.any_of.is_empty())
        {
            return Err(GraphError::NoValues {
                what: format!("the dependency of {url}"),
                url: empty.url.clone(),
            });
        }
    }
    Ok(())
}

/// For each url with dependencies, its conditions: the declared ones, else those that all its discovering mutations share.
fn dependencies(set: &MutationSet) -> BTreeMap<StateUrl, Vec<Condition>> {
    let mut shared: BTreeMap<StateUrl, Vec<Condition>> = BTreeMap::new();
    for mutation in &set.mutations {
        for change in &mutation.mutates {
            if !change.from.contains(&None) || change.to.is_none() {
                continue;
            }
            let conditions = lasting_requirements(mutation, &change.url);
            shared
                .entry(change.url.clone())
                .and_modify(|known| known.retain(|condition| conditions.contains(condition)))
                .or_insert(conditions);
        }
    }
    for dependency in &set.dependencies {
        let conditions = dependency.conditions.iter().map(tidy).collect();
        shared.insert(dependency.url.clone(), conditions);
    }
    for conditions in shared.values_mut() {
        conditions.sort();
        conditions.dedup();
    }
    shared
}

/// What `mutation` requires of urls other than `url`, as far as it still holds when the mutation is done.
fn lasting_requirements(mutation: &Mutation, url: &StateUrl) -> Vec<Condition> {
    let lasts = |condition: &Condition| {
        let change = mutation
            .mutates
            .iter()
            .find(|change| change.url == condition.url);
        change.is_none_or(|change| condition.holds(change.to.as_ref()))
    };
    let requires = mutation.requires.iter();
    requires
        .filter(|condition| condition.url != *url && lasts(condition))
        .map(tidy)
        .collect()
}

/// A condition in the one form that makes equal ones equal.
fn tidy(condition: &Condition) -> Condition {
    let mut condition = condition.clone();
    condition.any_of.sort();
    condition.any_of.dedup();
    condition
}

/// One variable for each url that is named, ordered by url, with all its declared values.
fn variables(
    set: &MutationSet,
    depends: &BTreeMap<StateUrl, Vec<Condition>>,
) -> Result<Vec<Variable>, GraphError> {
    let mut named: BTreeMap<&StateUrl, BTreeSet<&Value>> = BTreeMap::new();
    let mut mutated: BTreeSet<&StateUrl> = BTreeSet::new();
    for mutation in &set.mutations {
        for change in &mutation.mutates {
            let values = named.entry(&change.url).or_default();
            values.extend(change.from.iter().chain([&change.to]).flatten());
            mutated.insert(&change.url);
        }
        for condition in mutation.requires.iter().chain(&mutation.excludes) {
            let values = named.entry(&condition.url).or_default();
            values.extend(condition.any_of.iter().flatten());
        }
    }
    for (url, conditions) in depends {
        named.entry(url).or_default();
        for condition in conditions {
            let values = named.entry(&condition.url).or_default();
            values.extend(condition.any_of.iter().flatten());
        }
    }
    if named.len() > MAX_URLS {
        return Err(GraphError::TooManyUrls);
    }
    let variables = named.into_iter().map(|(url, values)| {
        let discoverable = mutated.contains(url)
            || is_core_discoverable(url)
            || set.discoverables.binary_search(url).is_ok();
        let mut variable = Variable::new(url.clone(), discoverable);
        variable.values = values.into_iter().cloned().collect();
        variable.wanted_by = vec![Vec::new(); variable.values.len() + 2];
        variable
    });
    Ok(variables.collect())
}

fn test(condition: &Condition, variables: &[Variable], by_url: &BTreeMap<StateUrl, usize>) -> Test {
    let variable = by_url[&condition.url];
    Test {
        variable,
        values: variables[variable].numbers(&condition.any_of),
    }
}

fn rule(mutation: &Mutation, variables: &[Variable], by_url: &BTreeMap<StateUrl, usize>) -> Rule {
    let tests = |conditions: &[Condition]| {
        conditions
            .iter()
            .map(|condition| test(condition, variables, by_url))
            .collect()
    };
    let effects = mutation.mutates.iter().map(|change| {
        let variable = by_url[&change.url];
        Effect {
            variable,
            from: variables[variable].numbers(&change.from),
            to: variables[variable].number(change.to.as_ref()),
        }
    });
    Rule {
        effects: effects.collect(),
        requires: tests(&mutation.requires),
        excludes: tests(&mutation.excludes),
        cost: mutation.cost,
    }
}

fn link_dependencies(
    variables: &mut [Variable],
    by_url: &BTreeMap<StateUrl, usize>,
    depends: BTreeMap<StateUrl, Vec<Condition>>,
) {
    for (url, conditions) in depends {
        let index = by_url[&url];
        let tests: Vec<Test> = conditions
            .iter()
            .map(|condition| test(condition, variables, by_url))
            .collect();
        for (condition, on) in tests.iter().enumerate() {
            variables[on.variable].dependents.push(Dependent {
                variable: index,
                condition,
            });
        }
        let variable = &mut variables[index];
        variable.depends_on = tests.iter().map(|test| test.variable).collect();
        variable.depends_tests = tests;
        variable.depends = conditions;
    }
}

fn link_rules(variables: &mut [Variable], rules: &[Rule]) {
    for (index, rule) in rules.iter().enumerate() {
        for effect in &rule.effects {
            variables[effect.variable].mutators.push(index);
            for value in &effect.from {
                variables[effect.variable].wanted_by[*value as usize].push(index);
            }
        }
        for test in &rule.requires {
            for value in &test.values {
                variables[test.variable].wanted_by[*value as usize].push(index);
            }
        }
        for test in &rule.excludes {
            variables[test.variable].excluded_by.push(index);
        }
    }
}
