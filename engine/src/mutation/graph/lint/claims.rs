//! Mutations that claim the same change: same url, a shared `from`, same `to`, and a state in which both could fire; and mutations of several modules
//! that find out one url there, and expect different values.

use std::collections::BTreeMap;

use super::super::MutationGraph;
use super::super::compile::{Effect, Rule, UNKNOWN, Val};
use super::possible::any_allowed;
use super::{LintKind, Linter, Severity, shown};

/// Pairs compared at most; real sets have a few dozen, and a set with more is told so.
const MAX_PAIRS: usize = 50_000;

pub(super) fn compare(linter: &mut Linter<'_>) {
    let rules = &linter.graph.rules;
    let mut by_change: BTreeMap<(usize, Val), Vec<usize>> = BTreeMap::new();
    let mut finders: BTreeMap<usize, Vec<(usize, Val)>> = BTreeMap::new();
    for (index, rule) in rules
        .iter()
        .enumerate()
        .filter(|(index, _)| linter.possible.fires[*index])
    {
        for effect in &rule.effects {
            by_change
                .entry((effect.variable, effect.to))
                .or_default()
                .push(index);
            if effect.from == [UNKNOWN] {
                let found = (index, effect.to);
                finders.entry(effect.variable).or_default().push(found);
            }
        }
    }
    let mut left = MAX_PAIRS;
    for ((variable, to), claimants) in &by_change {
        for (at, a) in claimants.iter().enumerate() {
            for b in &claimants[at + 1..] {
                if !linter.may_compare(&mut left) {
                    return;
                }
                linter.pair(*a, *b, *variable, *to);
            }
        }
    }
    for (variable, finders) in &finders {
        for (at, a) in finders.iter().enumerate() {
            for b in &finders[at + 1..] {
                if !linter.may_compare(&mut left) {
                    return;
                }
                linter.finders(*a, *b, *variable);
            }
        }
    }
}

impl Linter<'_> {
    /// Whether another pair may be compared.
    fn may_compare(&mut self, left: &mut usize) -> bool {
        if *left == 0 {
            self.tell(Severity::Note, LintKind::SameChange, || {
                format!("more than {MAX_PAIRS} pairs of mutations have a `to` in common: not all of them were compared")
            });
            return false;
        }
        *left -= 1;
        true
    }

    /// Two that start from unknown and expect different values.
    fn finders(&mut self, (a, expects): (usize, Val), (b, contradicts): (usize, Val), on: usize) {
        let graph = self.graph;
        let (one, other) = (&graph.rules[a], &graph.rules[b]);
        let (first, second) = (self.id(a), self.id(b));
        if expects == contradicts || first.module() == second.module() {
            return;
        }
        let mut mentions = one.mentions().chain(other.mentions());
        let meet = |at: usize| match at == on {
            true => one.allows(at, UNKNOWN) && other.allows(at, UNKNOWN),
            false => overlap(graph, one, other, at).is_some(),
        };
        if !mentions.all(meet) {
            return;
        }
        let variable = &graph.variables[on];
        self.tell(Severity::Warn, LintKind::TwoFinders, || {
            format!(
                "{first} and {second} both find out {} where it is unknown, and expect different values, {} and {}: whichever a node's goal needs \
                 looks, and they may contradict each other; let their requires or excludes differ, or leave it to one module",
                variable.url,
                shown(variable, expects),
                shown(variable, contradicts)
            )
        });
    }

    fn pair(&mut self, a: usize, b: usize, variable: usize, to: Val) {
        let graph = self.graph;
        let (one, other) = (&graph.rules[a], &graph.rules[b]);
        let changes = |effects: &[Effect]| -> Vec<(usize, Val)> {
            effects
                .iter()
                .map(|effect| (effect.variable, effect.to))
                .collect()
        };
        // Told once, at the first of the urls that both change; who changes more is no rival for the one change.
        let (changed, also) = (changes(&one.effects), changes(&other.effects));
        if changed != also || changed[0] != (variable, to) {
            return;
        }
        // Both read the urls that both change, so a shared `from` is a value at which both may fire.
        let meet = |on: usize| overlap(graph, one, other, on);
        let mut mentions = one.mentions().chain(other.mentions());
        if !mentions.all(|on| meet(on).is_some()) {
            return;
        }
        let from = meet(variable).unwrap_or_default();
        let (first, second) = (self.id(a), self.id(b));
        let (winner, loser, why) = match one.cost.cmp(&other.cost) {
            std::cmp::Ordering::Less => (first, second, "it costs less"),
            std::cmp::Ordering::Greater => (second, first, "it costs less"),
            std::cmp::Ordering::Equal => (first, second, "it comes first by name"),
        };
        let meant = one.cost != other.cost && first.module() == second.module();
        let severity = if meant {
            Severity::Note
        } else {
            Severity::Warn
        };
        let changed = &graph.variables[variable];
        self.tell(severity, LintKind::SameChange, || {
            format!(
                "{first} and {second} claim the same change, {} {} -> {}: where both could fire {winner} is taken, as {why}, and never {loser}; let \
                 their requires or excludes differ, or leave one out",
                changed.url,
                shown(changed, from),
                shown(changed, to)
            )
        });
    }
}

/// A value of `variable` at which both may fire.
fn overlap(graph: &MutationGraph, one: &Rule, other: &Rule, variable: usize) -> Option<Val> {
    let mut found = None;
    any_allowed(graph, one, variable, |value| {
        let both = other.allows(variable, value);
        found = both.then_some(value);
        both
    });
    found
}
