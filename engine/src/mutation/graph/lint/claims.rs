//! Mutations that claim the same change: same url, a shared `from`, same `to`, and a state in which both could fire.

use std::collections::BTreeMap;

use super::super::MutationGraph;
use super::super::compile::{Effect, Rule, Val};
use super::possible::any_allowed;
use super::{LintKind, Linter, Severity, shown};

/// Pairs compared at most; real sets have a few dozen, and a set with more is told so.
const MAX_PAIRS: usize = 50_000;

pub(super) fn compare(linter: &mut Linter<'_>) {
    let rules = &linter.graph.rules;
    let mut by_change: BTreeMap<(usize, Val), Vec<usize>> = BTreeMap::new();
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
        }
    }
    let mut left = MAX_PAIRS;
    for ((variable, to), claimants) in &by_change {
        for (at, a) in claimants.iter().enumerate() {
            for b in &claimants[at + 1..] {
                if left == 0 {
                    linter.tell(Severity::Note, LintKind::SameChange, || {
                        format!("more than {MAX_PAIRS} pairs of mutations have a `to` in common: not all of them were compared")
                    });
                    return;
                }
                left -= 1;
                linter.pair(*a, *b, *variable, *to);
            }
        }
    }
}

impl Linter<'_> {
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
        if !one
            .mentions()
            .chain(other.mentions())
            .all(|on| meet(on).is_some())
        {
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
