//! What is doubtful in a set of mutations that can be used all the same: traps, mutations that never fire, two that claim one change (DESIGN 3).
//!
//! A set that cannot be used is a [`GraphError`](super::GraphError). A lint is a sentence that says what is odd and what to do about it; nothing is refused
//! because of one. The head logs them when it loads a set, `krakenctl mutation lint` prints them. They see one set at a time and know no
//! node, so what they call possible is: unknown at first, then whatever mutations and their `fail_to` lead to; urls that only modules or Cfg
//! set can have any value.
//!
//! `possible` finds out which values can occur, `claims` compares mutations with each other, `urls` looks for urls
//! that no extension has, the rest is here.

mod claims;
mod possible;
mod urls;

use std::collections::BTreeMap;
use std::fmt;

use petgraph::algo::kosaraju_scc;
use petgraph::graph::DiGraph;
use petgraph::visit::EdgeRef;

use super::MutationGraph;
use super::compile::{UNKNOWN, Val, Variable};
use crate::extension::Schema;
use crate::mutation::MutationId;
use crate::state::{StateUrl, Value, core};
use possible::Possible;

/// Lints of one kind that are told one by one; a set that breaks one rule so often has one cause.
pub const MAX_OF_A_KIND: usize = 50;
/// Costs above this are told: a detour of any length is cheaper.
const HUGE_COST: u32 = 1_000_000;
/// Mutations named in one sentence.
const MAX_NAMED: usize = 3;
/// Parts of the names of values that mean a failure, in sets that say it in words.
const FAILURES: [&str; 4] = ["ERROR", "FATAL", "FAIL", "HANG"];

/// What kind of doubt.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum LintKind {
    /// A mutation whose conditions contradict each other, or that waits for a value that nothing sets.
    NeverFires,
    /// A failure that no mutation leads out of.
    NoWayOut,
    /// A mutation that switches power off or away from on, not marked `disruptive`.
    NotDisruptive,
    /// Two mutations of one change that can fire in the same state.
    SameChange,
    /// Two modules that find out one url at the same time, and may contradict each other.
    TwoFinders,
    /// `fail_to` without the timeout that would bring it about.
    UselessFailTo,
    /// Mutations that lead only to each other.
    Island,
    /// A value that can be entered but never left.
    Trap,
    /// Mutations at no cost that lead in a circle.
    FreeCircle,
    /// A cost that outweighs everything else.
    HugeCost,
    /// A comparison that would accept 0, which is never stored.
    ZeroInRange,
    /// A url that no extension has.
    UnknownUrl,
}

/// How much it matters.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Severity {
    /// Very likely not what was meant.
    Warn,
    /// Perhaps meant so.
    Note,
}

/// One doubt.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Lint {
    /// How much it matters.
    pub severity: Severity,
    /// What kind.
    pub kind: LintKind,
    /// What is odd and what to do.
    pub text: String,
}

impl LintKind {
    /// A word that stays the same over versions.
    pub const fn word(self) -> &'static str {
        match self {
            Self::NeverFires => "never-fires",
            Self::NoWayOut => "no-way-out",
            Self::NotDisruptive => "not-disruptive",
            Self::SameChange => "same-change",
            Self::TwoFinders => "two-finders",
            Self::UselessFailTo => "useless-fail-to",
            Self::Island => "island",
            Self::Trap => "trap",
            Self::FreeCircle => "free-circle",
            Self::HugeCost => "huge-cost",
            Self::ZeroInRange => "zero-in-range",
            Self::UnknownUrl => "unknown-url",
        }
    }
}

impl Severity {
    /// `warn` or `note`.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Warn => "warn",
            Self::Note => "note",
        }
    }
}

/// `warn: m/A can never fire because ... [never-fires]`.
impl fmt::Display for Lint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {} [{}]",
            self.severity.word(),
            self.text,
            self.kind.word()
        )
    }
}

/// All that is doubtful, what matters most first, at most [`MAX_OF_A_KIND`] of each kind. Equal sets have equal lints.
pub fn lint(graph: &MutationGraph) -> Vec<Lint> {
    lint_beside(graph, &[], None)
}

/// A value that somebody finds who is no part of the set; `None`: any value of this url.
pub(crate) type Finding = (StateUrl, Option<Option<Value>>);

/// The extensions by which urls are looked at.
#[derive(Clone, Copy, Debug)]
pub struct Known<'a> {
    /// Their schema.
    pub schema: &'a Schema,
    /// There are no others: a url that it does not have is nobody's.
    pub complete: bool,
}

/// As [`lint`], where these values, ordered by url, can occur as well, and where urls are looked up in a schema.
pub(crate) fn lint_beside(
    graph: &MutationGraph,
    findings: &[Finding],
    known: Option<Known<'_>>,
) -> Vec<Lint> {
    let possible = Possible::new(graph, findings);
    let mut linter = Linter {
        graph,
        possible: &possible,
        lints: Vec::new(),
        counts: BTreeMap::new(),
    };
    for rule in 0..graph.rules.len() {
        linter.mutation(rule);
    }
    for variable in 0..graph.variables.len() {
        linter.ways_out(variable);
        linter.free_circle(variable);
    }
    linter.unnamed_failures();
    claims::compare(&mut linter);
    if let Some(known) = known {
        urls::look(&mut linter, known);
    }
    linter.finish()
}

struct Linter<'a> {
    graph: &'a MutationGraph,
    possible: &'a Possible,
    lints: Vec<Lint>,
    counts: BTreeMap<(Severity, LintKind), usize>,
}

impl<'a> Linter<'a> {
    fn tell(&mut self, severity: Severity, kind: LintKind, text: impl FnOnce() -> String) {
        let count = self.counts.entry((severity, kind)).or_default();
        *count += 1;
        if *count <= MAX_OF_A_KIND {
            let text = text();
            self.lints.push(Lint {
                severity,
                kind,
                text,
            });
        }
    }

    fn finish(mut self) -> Vec<Lint> {
        self.lints.sort();
        for ((severity, kind), count) in &self.counts {
            if *count > MAX_OF_A_KIND {
                let after = self
                    .lints
                    .partition_point(|lint| (lint.severity, lint.kind) <= (*severity, *kind));
                let text = format!("{} more of this kind", count - MAX_OF_A_KIND);
                let (severity, kind) = (*severity, *kind);
                self.lints.insert(
                    after,
                    Lint {
                        severity,
                        kind,
                        text,
                    },
                );
            }
        }
        self.lints
    }

    fn id(&self, rule: usize) -> &'a MutationId {
        &self.graph.set.mutations[rule].id
    }

    /// What one mutation alone shows.
    fn mutation(&mut self, index: usize) {
        let graph = self.graph;
        let (rule, mutation) = (&graph.rules[index], &graph.set.mutations[index]);
        if rule.effects.iter().all(|effect| effect.from == [effect.to]) {
            self.tell(Severity::Warn, LintKind::NeverFires, || {
                format!("{} can never fire because it changes nothing: its `from` and `to` are the same", mutation.id)
            });
        } else if !self.possible.fires[index] {
            self.never_fires(index);
        }
        if mutation.switches_off() && !mutation.disruptive {
            self.tell(Severity::Warn, LintKind::NotDisruptive, || {
                format!(
                    "{} takes {} away from {} but is not marked disruptive; it counts as such all the same, so say it: add disruptive = true",
                    mutation.id,
                    core::PHYS_STATE,
                    core::POWER_ON
                )
            });
        }
        if !mutation.fail_to.is_empty() && mutation.timeout.is_none() {
            self.tell(Severity::Warn, LintKind::UselessFailTo, || {
                format!(
                    "{} has a fail_to but no timeout, so it never comes to that: add a timeout",
                    mutation.id
                )
            });
        }
        if mutation.cost > HUGE_COST {
            self.tell(Severity::Note, LintKind::HugeCost, || {
                format!(
                    "{} costs {}, more than any detour: it is taken only where there is no other way at all; if that is not meant, give it \
                     a cost like those of the others",
                    mutation.id, mutation.cost
                )
            });
        }
        let zero = crate::state::Number::from(0);
        let mut conditions = mutation.requires.iter().chain(&mutation.excludes);
        let with_zero =
            conditions.find(|condition| condition.range().is_some_and(|range| range.has(zero)));
        if let Some(condition) = with_zero {
            self.tell(Severity::Note, LintKind::ZeroInRange, || {
                format!(
                    "{} compares {condition}, but 0 is stored as unknown and compares with nothing: if 0 is meant as well, let the module report \
                     another value for it",
                    mutation.id
                )
            });
        }
    }

    fn never_fires(&mut self, index: usize) {
        let graph = self.graph;
        let id = self.id(index);
        let Some(stop) = self.possible.stop(graph, index) else {
            return;
        };
        let variable = &graph.variables[stop.variable];
        let wants = stop.wants(graph, index);
        if stop.allowed.is_empty() {
            self.tell(Severity::Warn, LintKind::NeverFires, || {
                format!(
                    "{id} can never fire because what it demands of {} contradicts itself: {wants}; correct its from, requires and excludes",
                    variable.url
                )
            });
            return;
        }
        if !self.possible.is_set(&stop) {
            self.tell(Severity::Warn, LintKind::NeverFires, || {
                format!(
                    "{id} can never fire because it {wants}, which nothing sets{}; correct the value, or list {} in discoverables if a module reports it",
                    self.possible.meant(&stop, variable),
                    variable.url
                )
            });
            return;
        }
        self.tell(Severity::Note, LintKind::Island, || {
            let sets = |rule: &&usize| {
                let mut effects = graph.rules[**rule].effects.iter();
                effects.any(|effect| {
                    effect.variable == stop.variable && stop.allowed.contains(&effect.to)
                })
            };
            let setters: Vec<&MutationId> = variable
                .mutators
                .iter()
                .filter(sets)
                .map(|rule| &graph.set.mutations[*rule].id)
                .collect();
            format!(
                "{id} can never fire because it {wants}, which only {} would set, and nothing leads there from unknown: add a mutation \
                 that finds {} out, or list it in discoverables if a module reports it",
                named(&setters),
                variable.url
            )
        });
    }

    /// Values of one url that can be entered, but not left.
    fn ways_out(&mut self, index: usize) {
        let graph = self.graph;
        let variable = &graph.variables[index];
        if variable.mutators.is_empty() || self.possible.is_forgotten(graph, index) {
            return;
        }
        let mut left = vec![false; variable.size()];
        let mut entered_by: BTreeMap<Val, Vec<&MutationId>> = BTreeMap::new();
        for rule in variable
            .mutators
            .iter()
            .filter(|rule| self.possible.fires[**rule])
        {
            let effects = graph.rules[*rule].effects.iter();
            for effect in effects.filter(|effect| effect.variable == index) {
                let leaving = effect.from.iter().filter(|from| **from != effect.to);
                leaving.for_each(|from| left[*from as usize] = true);
                entered_by
                    .entry(effect.to)
                    .or_default()
                    .push(self.id(*rule));
            }
        }
        let failures: Vec<&Value> = self.possible.failures(&variable.url).collect();
        for (at, value) in variable.values.iter().enumerate() {
            let number = at as Val + 1;
            let is_failure = failures.contains(&value) || is_failure(value);
            let entered = entered_by.get(&number);
            if left[number as usize] || !(is_failure || entered.is_some()) {
                continue;
            }
            if is_failure {
                self.no_way_out(&variable.url, value);
            } else if let Some(by) = entered {
                let by = named(by);
                self.tell(Severity::Note, LintKind::Trap, || {
                    format!(
                        "value {value} of {} can be entered, by {by}, but never left: declare a mutation from it, unless it is meant to be final",
                        variable.url
                    )
                });
            }
        }
    }

    /// Failures that no declaration names as a value, so that nothing can start from them.
    fn unnamed_failures(&mut self) {
        let possible = self.possible;
        for (url, value) in possible.all_failures() {
            let variable = self
                .graph
                .by_url
                .get(url)
                .map(|index| (*index, &self.graph.variables[*index]));
            let is_named = variable.is_some_and(|(index, variable)| {
                !variable.is_kind(variable.number(Some(value))) && !variable.mutators.is_empty()
                    || self.possible.is_forgotten(self.graph, index)
            });
            if !is_named {
                self.no_way_out(url, value);
            }
        }
    }

    fn no_way_out(&mut self, url: &StateUrl, value: &Value) {
        self.tell(Severity::Warn, LintKind::NoWayOut, || {
            format!(
                "{url}={value} is a failure that no mutation leads out of, so a node that gets there stays there: declare a mutation from it, such \
                 as one that switches power off"
            )
        });
    }

    /// Mutations at no cost that lead one url in a circle.
    fn free_circle(&mut self, index: usize) {
        let graph = self.graph;
        let mut edges: Vec<(Val, Val, usize)> = Vec::new();
        for rule in &graph.variables[index].mutators {
            let free = &graph.rules[*rule];
            let effects = free.effects.iter();
            for effect in effects.filter(|effect| free.cost == 0 && effect.variable == index) {
                let leaving = effect.from.iter().filter(|from| **from != effect.to);
                edges.extend(leaving.map(|from| (*from, effect.to, *rule)));
            }
        }
        let free: DiGraph<(), usize> = DiGraph::from_edges(edges);
        let mut circle_of = vec![0; free.node_count()];
        let circles = kosaraju_scc(&free);
        for (circle, values) in circles.iter().enumerate() {
            values
                .iter()
                .for_each(|value| circle_of[value.index()] = circle);
        }
        let mut rules_of: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for edge in free.edge_references() {
            let circle = circle_of[edge.source().index()];
            if circle == circle_of[edge.target().index()] {
                rules_of.entry(circle).or_default().push(*edge.weight());
            }
        }
        for mut rules in rules_of.into_values() {
            rules.sort_unstable();
            rules.dedup();
            let ids: Vec<&MutationId> = rules.iter().map(|rule| self.id(*rule)).collect();
            self.tell(Severity::Note, LintKind::FreeCircle, || {
                format!(
                    "{} lead {} in a circle at no cost: plans stay short all the same, but give one a cost if it takes time",
                    named(&ids),
                    graph.variables[index].url
                )
            });
        }
    }
}

/// Whether the name of a value says that something failed.
fn is_failure(value: &Value) -> bool {
    let text = value.as_text().unwrap_or_default();
    FAILURES.iter().any(|word| text.contains(word))
}

/// `a, b, c and 7 more`.
fn named(ids: &[&MutationId]) -> String {
    let mut names: Vec<String> = ids
        .iter()
        .take(MAX_NAMED)
        .map(ToString::to_string)
        .collect();
    match ids.len() {
        0 | 1 => names.concat(),
        count if count > MAX_NAMED => {
            format!("{} and {} more", names.join(", "), count - MAX_NAMED)
        }
        _ => {
            let last = names.pop().unwrap_or_default();
            format!("{} and {last}", names.join(", "))
        }
    }
}

/// The value behind a number, in words.
fn shown(variable: &Variable, number: Val) -> String {
    match variable.value(number) {
        Some(value) => value.to_string(),
        None if number == UNKNOWN => "unknown".to_owned(),
        None => "another value".to_owned(),
    }
}

#[cfg(test)]
mod tests;
