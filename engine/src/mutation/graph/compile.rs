//! From declarations to numbers: urls become indices, values their places in a sorted list, conditions sorted lists of such places.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};

use super::check::check;
use super::{GraphError, MAX_CUTS, MAX_URLS, MutationGraph, is_core_discoverable};
use crate::index::Index;
use crate::mutation::{Allowed, Condition, Mutation, MutationSet, NumberRange};
use crate::state::{Number, StateUrl, Value};

/// A value of a variable: [`UNKNOWN`], then the declared ones in order, then kinds of values that no declaration mentions: one for whatever
/// is not compared with anything, and if numbers are compared, one for each stretch of the line of numbers in which all comparisons
/// come out the same.
///
/// ```text
///   declared 5, "x"; compared with 3 and 9      unknown  5  x  other   ..3   3  3..9   9  9..
///                                                  0     1  2    3      4    5    6    7   8
/// ```
pub(super) type Val = u32;

/// So many values are told apart sooner one by one: most differ in length already.
const FEW: usize = 8;

/// The value is unset.
pub(super) const UNKNOWN: Val = 0;

/// A url that some declaration names.
#[derive(Debug)]
pub(super) struct Variable {
    pub(super) url: StateUrl,
    /// Declared values, sorted.
    pub(super) values: Vec<Value>,
    /// Numbers that conditions compare it with, sorted.
    pub(super) cuts: Vec<Number>,
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
    /// Rules with an exclude or a comparison on it.
    pub(super) watched_by: Vec<usize>,
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
    /// Sorted; equal comparisons share one list.
    pub(super) values: Arc<[Val]>,
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
            cuts: Vec::new(),
            discoverable,
            mutators: Vec::new(),
            depends: Vec::new(),
            depends_on: Vec::new(),
            depends_tests: Vec::new(),
            dependents: Vec::new(),
            wanted_by: Vec::new(),
            watched_by: Vec::new(),
        }
    }

    /// The number of a value.
    pub(super) fn number(&self, value: Option<&Value>) -> Val {
        match value {
            None => UNKNOWN,
            Some(value) => match self.place(value) {
                Some(at) => at as Val + 1,
                None => self.unmentioned(value),
            },
        }
    }

    fn place(&self, value: &Value) -> Option<usize> {
        if self.values.len() <= FEW {
            return self.values.iter().position(|known| known == value);
        }
        self.values.binary_search(value).ok()
    }

    /// The number of a value that no declaration mentions.
    fn unmentioned(&self, value: &Value) -> Val {
        let other = self.values.len() as Val + 1;
        match Number::of(value).filter(|_| !self.cuts.is_empty()) {
            None => other,
            Some(number) => match self.cuts.binary_search(&number) {
                Ok(at) => other + 2 + 2 * at as Val,
                Err(at) => other + 1 + 2 * at as Val,
            },
        }
    }

    /// The value behind a number; `None` for unknown and for values that no declaration mentions.
    pub(super) fn value(&self, number: Val) -> Option<&Value> {
        self.values.get((number as usize).checked_sub(1)?)
    }

    /// Whether this number stands for values that no declaration mentions, so that it does not tell which.
    pub(super) fn is_kind(&self, number: Val) -> bool {
        number as usize > self.values.len()
    }

    /// How many numbers it takes.
    pub(super) fn size(&self) -> usize {
        let stretches = match self.cuts.len() {
            0 => 0,
            cuts => 2 * cuts + 1,
        };
        self.values.len() + 2 + stretches
    }

    /// The numbers of all values within a range, sorted.
    fn within(&self, range: &NumberRange) -> Arc<[Val]> {
        let other = self.values.len() as Val + 1;
        let declared = (1..other).filter(|number| {
            let value = self.value(*number).and_then(Number::of);
            value.is_some_and(|value| range.has(value))
        });
        // A stretch is within the range if both its ends are; bounds of ranges are cuts, so none lies inside a stretch.
        let stretches = (0..=2 * self.cuts.len()).filter(|at| {
            let (before, after) = match at % 2 {
                0 => ((at / 2).checked_sub(1), at / 2),
                _ => (Some(at / 2), at / 2),
            };
            let before = before.and_then(|at| self.cuts.get(at));
            let after = self.cuts.get(after);
            range
                .least()
                .is_none_or(|least| before.is_some_and(|cut| least <= *cut))
                && range
                    .most()
                    .is_none_or(|most| after.is_some_and(|cut| *cut <= most))
        });
        declared
            .chain(stretches.map(|at| other + 1 + at as Val))
            .collect()
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

impl Rule {
    /// Every variable that it reads or writes; some twice.
    pub(super) fn mentions(&self) -> impl Iterator<Item = usize> {
        let effects = self.effects.iter().map(|effect| effect.variable);
        let tests = self.requires.iter().chain(&self.excludes);
        effects.chain(tests.map(|test| test.variable))
    }

    /// The lists of values of `variable` that it wants: its `from` and its requires.
    pub(super) fn demands(&self, variable: usize) -> impl Iterator<Item = &[Val]> {
        let from = self
            .effects
            .iter()
            .filter(move |effect| effect.variable == variable);
        let tests = self
            .requires
            .iter()
            .filter(move |test| test.variable == variable);
        from.map(|effect| &effect.from[..])
            .chain(tests.map(|test| &test.values[..]))
    }

    /// Whether it may fire at this value of `variable`, as far as that hangs on this variable.
    pub(super) fn allows(&self, variable: usize, value: Val) -> bool {
        let mut excludes = self.excludes.iter();
        self.demands(variable).all(|wanted| contains(wanted, value))
            && !excludes.any(|test| test.variable == variable && test.holds(value))
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
    let by_url: Index<StateUrl, usize> = variables
        .iter()
        .enumerate()
        .map(|(index, variable)| (variable.url.clone(), index))
        .collect();
    let mut numbering = Numbering {
        variables: &variables,
        by_url: &by_url,
        within: BTreeMap::new(),
    };
    let rules: Vec<Rule> = set
        .mutations
        .iter()
        .map(|mutation| numbering.rule(mutation))
        .collect();
    let depends = depends
        .into_iter()
        .map(|(url, conditions)| (by_url[&url], numbering.tests(&conditions), conditions))
        .collect();
    link_dependencies(&mut variables, depends);
    link_rules(&mut variables, &rules, &set);
    Ok(MutationGraph {
        discoverables: set.discoverables.iter().cloned().collect(),
        footprints: rules.iter().map(|_| OnceLock::new()).collect(),
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
        for conditions in [&mut mutation.requires, &mut mutation.excludes] {
            conditions.iter_mut().for_each(Condition::tidy);
            conditions.sort();
        }
    }
    set.dependencies.sort();
    set.discoverables.sort();
    set.discoverables.dedup();
    set
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
        let conditions = dependency.conditions.iter().map(tidied).collect();
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
        .map(tidied)
        .collect()
}

fn tidied(condition: &Condition) -> Condition {
    let mut condition = condition.clone();
    condition.tidy();
    condition
}

/// What declarations name of one url.
#[derive(Default)]
struct Named<'a> {
    values: BTreeSet<&'a Value>,
    cuts: BTreeSet<Number>,
}

impl<'a> Named<'a> {
    fn add(&mut self, condition: &'a Condition) {
        match &condition.allows {
            Allowed::AnyOf(values) => self.values.extend(values.iter().flatten()),
            Allowed::Number(range) => self
                .cuts
                .extend([range.least(), range.most()].into_iter().flatten()),
        }
    }
}

/// One variable for each url that is named, ordered by url, with all its declared values.
fn variables(
    set: &MutationSet,
    depends: &BTreeMap<StateUrl, Vec<Condition>>,
) -> Result<Vec<Variable>, GraphError> {
    let mut named: BTreeMap<&StateUrl, Named<'_>> = BTreeMap::new();
    let mut mutated: BTreeSet<&StateUrl> = BTreeSet::new();
    for mutation in &set.mutations {
        for change in &mutation.mutates {
            let named = named.entry(&change.url).or_default();
            named
                .values
                .extend(change.from.iter().chain([&change.to]).flatten());
            mutated.insert(&change.url);
        }
        for condition in mutation.requires.iter().chain(&mutation.excludes) {
            named.entry(&condition.url).or_default().add(condition);
        }
    }
    for (url, conditions) in depends {
        named.entry(url).or_default();
        for condition in conditions {
            named.entry(&condition.url).or_default().add(condition);
        }
    }
    if named.len() > MAX_URLS {
        return Err(GraphError::TooManyUrls);
    }
    if let Some((url, _)) = named.iter().find(|(_, named)| named.cuts.len() > MAX_CUTS) {
        return Err(GraphError::TooManyCuts((*url).clone()));
    }
    let variables = named.into_iter().map(|(url, named)| {
        let discoverable = mutated.contains(url)
            || is_core_discoverable(url)
            || set.discoverables.binary_search(url).is_ok();
        let mut variable = Variable::new(url.clone(), discoverable);
        variable.values = named.values.into_iter().cloned().collect();
        variable.cuts = named.cuts.into_iter().collect();
        variable.wanted_by = vec![Vec::new(); variable.size()];
        variable
    });
    Ok(variables.collect())
}

/// Puts declarations into numbers.
struct Numbering<'a> {
    variables: &'a [Variable],
    by_url: &'a Index<StateUrl, usize>,
    /// Comparisons met so far.
    within: BTreeMap<(usize, NumberRange), Arc<[Val]>>,
}

impl Numbering<'_> {
    fn test(&mut self, condition: &Condition) -> Test {
        let index = self.by_url[&condition.url];
        let variable = &self.variables[index];
        let values = match &condition.allows {
            Allowed::AnyOf(values) => variable.numbers(values).into(),
            Allowed::Number(range) => self
                .within
                .entry((index, *range))
                .or_insert_with(|| variable.within(range))
                .clone(),
        };
        Test {
            variable: index,
            values,
        }
    }

    fn tests(&mut self, conditions: &[Condition]) -> Vec<Test> {
        conditions
            .iter()
            .map(|condition| self.test(condition))
            .collect()
    }

    fn rule(&mut self, mutation: &Mutation) -> Rule {
        let effects = mutation.mutates.iter().map(|change| {
            let variable = self.by_url[&change.url];
            Effect {
                variable,
                from: self.variables[variable].numbers(&change.from),
                to: self.variables[variable].number(change.to.as_ref()),
            }
        });
        Rule {
            effects: effects.collect(),
            requires: self.tests(&mutation.requires),
            excludes: self.tests(&mutation.excludes),
            cost: mutation.cost,
        }
    }
}

fn link_dependencies(variables: &mut [Variable], depends: Vec<(usize, Vec<Test>, Vec<Condition>)>) {
    for (index, tests, conditions) in depends {
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

fn link_rules(variables: &mut [Variable], rules: &[Rule], set: &MutationSet) {
    for (index, (rule, mutation)) in rules.iter().zip(&set.mutations).enumerate() {
        for effect in &rule.effects {
            variables[effect.variable].mutators.push(index);
            for value in &effect.from {
                variables[effect.variable].wanted_by[*value as usize].push(index);
            }
        }
        for (test, condition) in rule.requires.iter().zip(&mutation.requires) {
            let variable = &mut variables[test.variable];
            if condition.range().is_some() {
                variable.watched_by.push(index);
                continue;
            }
            for value in test.values.iter() {
                variable.wanted_by[*value as usize].push(index);
            }
        }
        for test in &rule.excludes {
            variables[test.variable].watched_by.push(index);
        }
    }
}
