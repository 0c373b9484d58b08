//! The sentences of an explanation.

use std::fmt::Write;

use super::super::compile::{Effect, Test, UNKNOWN, Val, Variable, contains};
use super::super::search::MAX_EXPLORED;
use super::super::states::value_at;
use super::super::{GoalVal, MutationGraph, Question};
use crate::extension::nearest;
use crate::mutation::Condition;
use crate::mutation::path::{Blocker, MAX_BLOCKERS, NoPath, NoPathKind, Obstacle};
use crate::state::{StateUrl, Value};

/// How far back an explanation goes; further back nobody follows it.
const MAX_DEPTH: usize = 6;
/// Goals that one reason spells out.
const MAX_GOALS: usize = 3;
/// Mutations named for one value.
const MAX_WAYS: usize = 2;

/// Tells what blocks, given what can be had.
pub(super) struct Words<'a> {
    graph: &'a MutationGraph,
    question: &'a Question<'a>,
    /// By variable: the values that can be had, the start value first.
    reached: Vec<Vec<Val>>,
    blockers: Vec<Blocker>,
    /// Values being explained, so that no explanation goes in a circle.
    told: Vec<(usize, Val)>,
}

/// Where a rule that sets a value starts from, the nearest first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Promise {
    Here,
    WithinReach,
    OutOfReach,
}

/// What stops a rule.
enum Stop<'a> {
    /// It starts from other values of the variable that it changes.
    From {
        variable: usize,
        values: &'a [Val],
    },
    Requires(&'a Test, &'a Condition),
    Excludes(&'a Test, &'a Condition),
    /// Each condition can hold, but they never hold at once.
    Never,
}

impl<'a> Words<'a> {
    pub(super) fn new(
        graph: &'a MutationGraph,
        question: &'a Question<'a>,
        reached: Vec<Vec<Val>>,
    ) -> Self {
        Self {
            graph,
            question,
            reached,
            blockers: Vec::new(),
            told: Vec::new(),
        }
    }

    pub(super) fn out_of_reach(mut self, goals: &[GoalVal]) -> NoPath {
        let mut reason = String::new();
        for goal in goals.iter().take(MAX_GOALS) {
            if !reason.is_empty() {
                reason.push_str(". ");
            }
            let start = self.now(goal.variable);
            let why = self.unreached(goal.variable, goal.value, self.goal_value(goal), 0);
            let _ = write!(
                reason,
                "{} cannot be reached from {start}: {why}",
                self.goal(goal)
            );
        }
        if goals.len() > MAX_GOALS {
            let _ = write!(
                reason,
                ". {} more goals cannot be reached",
                goals.len() - MAX_GOALS
            );
        }
        self.blockers.truncate(MAX_BLOCKERS);
        NoPath {
            kind: NoPathKind::Unreachable,
            goals: self.named(goals),
            blockers: std::mem::take(&mut self.blockers),
            reason,
        }
    }

    pub(super) fn conflict(self, goals: &[GoalVal]) -> NoPath {
        let names = |holds: bool| -> Vec<String> {
            let goals = goals.iter().filter(|goal| goal.holds_at_start == holds);
            goals.map(|goal| self.goal(goal)).collect()
        };
        let (held, open) = (names(true), names(false));
        let mut reason = match held.len() {
            0 => format!(
                "{} can each be reached, but not together",
                list(&open, "and")
            ),
            _ => format!(
                "{} can be reached only by giving up {}",
                list(&open, "and"),
                list(&held, "and")
            ),
        };
        if let Some(why) = goals
            .iter()
            .find_map(|goal| self.broken_dependency(goal, goals))
        {
            let _ = write!(reason, ": {why}");
        }
        NoPath {
            kind: NoPathKind::Conflict,
            goals: self.named(goals),
            blockers: Vec::new(),
            reason,
        }
    }

    pub(super) fn over_budget(self) -> NoPath {
        let goals = self.question.goal.iter();
        let open: Vec<GoalVal> = goals.filter(|goal| !goal.holds_at_start).copied().collect();
        let mut named: Vec<String> = open
            .iter()
            .take(MAX_GOALS)
            .map(|goal| self.goal(goal))
            .collect();
        if open.len() > MAX_GOALS {
            named.push(format!("{} more", open.len() - MAX_GOALS));
        }
        NoPath {
            kind: NoPathKind::OverBudget,
            reason: format!(
                "the search for a path to {} was given up after {MAX_EXPLORED} states: set fewer values at a time, \
                 or declare fewer mutations that undo each other",
                list(&named, "and"),
            ),
            goals: self.named(&open),
            blockers: Vec::new(),
        }
    }

    /// The dependency of one goal that another one breaks.
    fn broken_dependency(&self, goal: &GoalVal, others: &[GoalVal]) -> Option<String> {
        let variable = &self.graph.variables[goal.variable];
        let broken = variable
            .depends_tests
            .iter()
            .zip(&variable.depends)
            .find(|(test, _)| {
                let other = others.iter().find(|other| other.variable == test.variable);
                other.is_some_and(|other| !test.holds(other.value))
            });
        broken.map(|(_, condition)| {
            let url = &variable.url;
            match condition.range() {
                Some(range) => {
                    format!("{url} can be known only while {} is {range}", condition.url)
                }
                None => format!("{url} can be known only while {condition}"),
            }
        })
    }

    /// Why a value is out of reach.
    fn unreached(&mut self, index: usize, value: Val, name: Option<Value>, depth: usize) -> String {
        let variable = &self.graph.variables[index];
        let target = is(&variable.url, name.as_ref());
        if depth >= MAX_DEPTH || self.told.contains(&(index, value)) {
            return format!("{target} cannot be reached either");
        }
        let ways = self.ways(variable, index, value);
        if ways.is_empty() || self.is_stuck(variable, index) {
            self.blockers.push(Blocker {
                mutation: None,
                url: variable.url.clone(),
                to: name.clone(),
                obstacle: Obstacle::NoMutation,
            });
            return match ways.is_empty() {
                true => format!(
                    "no mutation leads to {target}{}",
                    self.meant(variable, index, name.as_ref())
                ),
                false => format!("no mutation leaves {}", self.now(index)),
            };
        }
        self.told.push((index, value));
        let (shown, it) = if depth == 0 {
            (MAX_WAYS, "it".to_owned())
        } else {
            (1, target)
        };
        let more = ways.len().saturating_sub(shown);
        let mut reasons: Vec<(String, String)> = Vec::new();
        for (rule, stop) in ways.into_iter().take(shown) {
            let id = self.graph.set.mutations[rule].id.to_string();
            let why = self.stopped(rule, stop, index, depth);
            match reasons.iter_mut().find(|(_, known)| *known == why) {
                Some((ids, _)) => *ids = format!("{ids} or {id}"),
                None => reasons.push((id, why)),
            }
        }
        self.told.pop();
        let texts: Vec<String> = reasons
            .iter()
            .map(|(ids, why)| format!("{ids} could set {it} but {why}"))
            .collect();
        let mut text = texts.join("; ");
        match more {
            0 => {}
            _ if depth > 0 => {}
            1 => text.push_str("; another mutation that could is stopped too"),
            more => text.push_str(&format!(
                "; {more} other mutations that could are stopped too"
            )),
        }
        text
    }

    /// Whether the variable can never be anything but what it is, because no mutation starts from that.
    fn is_stuck(&self, variable: &Variable, index: usize) -> bool {
        let start = self.question.start[index];
        let leaves = |rule: &usize| {
            let mut effects = self.graph.rules[*rule].effects.iter();
            effects.any(|effect| effect.variable == index && contains(&effect.from, start))
        };
        self.reached[index].len() == 1 && !variable.mutators.iter().any(leaves)
    }

    /// The rules that set a value with what stops each: only the most promising kind, the nearest to firing first.
    fn ways(&self, variable: &Variable, index: usize, value: Val) -> Vec<(usize, Stop<'a>)> {
        let start = self.question.start[index];
        let mut ways: Vec<((Promise, usize, usize), Stop<'a>)> = Vec::new();
        for rule in &variable.mutators {
            let mut effects = self.graph.rules[*rule].effects.iter();
            let Some(effect) =
                effects.find(|effect| effect.variable == index && effect.to == value)
            else {
                continue;
            };
            let promise = if contains(&effect.from, start) {
                Promise::Here
            } else if effect
                .from
                .iter()
                .any(|from| self.reached[index].contains(from))
            {
                Promise::WithinReach
            } else {
                Promise::OutOfReach
            };
            let stops = self.stops(*rule);
            ways.push(((promise, stops.len(), *rule), self.main(stops)));
        }
        ways.sort_by_key(|(rank, _)| *rank);
        let best = ways.first().map(|((promise, _, _), _)| *promise);
        ways.retain(|((promise, _, _), _)| Some(*promise) == best);
        ways.into_iter()
            .map(|((_, _, rule), stop)| (rule, stop))
            .collect()
    }

    /// The stop to name: what no mutation changes comes first, as somebody must do something about it.
    fn main(&self, stops: Vec<Stop<'a>>) -> Stop<'a> {
        let changes = |stop: &Stop<'_>| match stop {
            Stop::Requires(test, _) | Stop::Excludes(test, _) => {
                !self.graph.variables[test.variable].mutators.is_empty()
            }
            Stop::From { .. } | Stop::Never => true,
        };
        stops.into_iter().min_by_key(changes).unwrap_or(Stop::Never)
    }

    /// All conditions of a rule that no value within reach fulfils.
    fn stops(&self, index: usize) -> Vec<Stop<'a>> {
        let graph = self.graph;
        let (rule, mutation) = (&graph.rules[index], &graph.set.mutations[index]);
        let any = |variable: usize, values: &[Val]| {
            values
                .iter()
                .any(|value| self.reached[variable].contains(value))
        };
        let excludes = rule.excludes.iter().zip(&mutation.excludes);
        let excluded = excludes.filter(|(test, _)| {
            self.reached[test.variable]
                .iter()
                .all(|value| test.holds(*value))
        });
        let requires = rule.requires.iter().zip(&mutation.requires);
        let required = requires.filter(|(test, _)| !any(test.variable, &test.values));
        let from = rule
            .effects
            .iter()
            .filter(|effect| !any(effect.variable, &effect.from));
        let from = from.map(|effect| Stop::From {
            variable: effect.variable,
            values: &effect.from,
        });
        excluded
            .map(|(test, condition)| Stop::Excludes(test, condition))
            .chain(required.map(|(test, condition)| Stop::Requires(test, condition)))
            .chain(from)
            .collect()
    }

    /// The words after "but".
    fn stopped(&mut self, rule: usize, stop: Stop<'a>, sets: usize, depth: usize) -> String {
        let (text, obstacle) = match stop {
            Stop::Requires(test, condition) => {
                let why = self.unmet(test.variable, &test.values, depth);
                let text = format!("requires {condition}, {why}");
                (text, Obstacle::Requires(condition.clone()))
            }
            Stop::From { variable, values } => {
                let condition = self.condition(variable, values);
                let why = self.unmet(variable, values, depth);
                let text = format!("starts from {condition}, {why}");
                (text, Obstacle::Requires(condition))
            }
            Stop::Excludes(test, condition) => {
                let why = self.unlifted(test, depth);
                let now = self.question.start[test.variable];
                let holds = test
                    .holds(now)
                    .then(|| self.condition(test.variable, &[now]));
                match (condition.range(), holds) {
                    (Some(range), Some(now)) => (
                        format!("is excluded by {now}, which is {range}, {why}"),
                        Obstacle::Excludes(condition.clone()),
                    ),
                    (None, Some(now)) => (
                        format!("is excluded by {now}, {why}"),
                        Obstacle::Excludes(now),
                    ),
                    (_, None) => (
                        format!("is excluded by {condition}, {why}"),
                        Obstacle::Excludes(condition.clone()),
                    ),
                }
            }
            Stop::Never => {
                let froms = self.graph.rules[rule].effects.iter();
                let froms = froms.map(|effect| self.condition(effect.variable, &effect.from));
                let requires = &self.graph.set.mutations[rule].requires;
                let wants: Vec<String> = froms
                    .map(|condition| condition.to_string())
                    .chain(requires.iter().map(ToString::to_string))
                    .collect();
                let text = match &wants[..] {
                    [_] => "what it needs is lost by the time it could fire".to_owned(),
                    many => format!("{} never hold together", list(many, "and")),
                };
                (text, Obstacle::NeverTogether)
            }
        };
        let mutation = &self.graph.set.mutations[rule];
        let url = self.graph.variables[sets].url.clone();
        let change = mutation.mutates.iter().find(|change| change.url == url);
        self.blockers.push(Blocker {
            mutation: Some(mutation.id.clone()),
            to: change.and_then(|change| change.to.clone()),
            url,
            obstacle,
        });
        text
    }

    /// Why none of the wanted values can be had.
    fn unmet(&mut self, index: usize, wanted: &[Val], depth: usize) -> String {
        let variable = &self.graph.variables[index];
        if variable.mutators.is_empty() {
            return self.fixed(index);
        }
        // A known value is easier to understand as a goal than "unknown". Of those that a comparison accepts only some can be made.
        let compared = wanted.iter().any(|value| variable.is_kind(*value));
        let known = wanted
            .iter()
            .copied()
            .find(|value| *value != UNKNOWN && (!compared || self.is_made(index, *value)));
        let Some(value) = known.or(wanted.first().copied().filter(|_| !compared)) else {
            self.blockers.push(Blocker {
                mutation: None,
                url: variable.url.clone(),
                to: None,
                obstacle: Obstacle::NoMutation,
            });
            return format!("and no mutation leads there from {}", self.now(index));
        };
        let why = self.unreached(
            index,
            value,
            value_at(self.graph, self.question, index, value),
            depth + 1,
        );
        format!("and {why}")
    }

    /// Whether some mutation sets this value.
    fn is_made(&self, index: usize, value: Val) -> bool {
        let sets = |effect: &Effect| effect.variable == index && effect.to == value;
        let mut mutators = self.graph.variables[index].mutators.iter();
        mutators.any(|rule| self.graph.rules[*rule].effects.iter().any(sets))
    }

    /// Why the values of an exclude can't be left.
    fn unlifted(&mut self, test: &'a Test, depth: usize) -> String {
        let variable = &self.graph.variables[test.variable];
        if variable.mutators.is_empty() {
            return self.lifted_by_others(test.variable);
        }
        let now = self.question.start[test.variable];
        let target = self.is(test.variable, now);
        let leaves = |rule: &&usize| {
            let mut effects = self.graph.rules[**rule].effects.iter();
            effects.any(|effect| {
                effect.variable == test.variable
                    && effect.from.contains(&now)
                    && !test.holds(effect.to)
            })
        };
        let mut leavers: Vec<usize> = variable.mutators.iter().filter(leaves).copied().collect();
        leavers.sort_by_key(|rule| self.stops(*rule).len());
        match leavers.first() {
            None => format!("and no mutation leaves {target}"),
            Some(_) if depth >= MAX_DEPTH || self.told.contains(&(test.variable, now)) => {
                format!("and {target} cannot be left either")
            }
            Some(rule) => {
                self.told.push((test.variable, now));
                let stop = self.main(self.stops(*rule));
                let why = self.stopped(*rule, stop, test.variable, depth + 1);
                self.told.pop();
                format!(
                    "and {}, which leaves {target}, {why}",
                    self.graph.set.mutations[*rule].id
                )
            }
        }
    }

    /// Why a variable that no mutation changes has not the value it should have.
    fn fixed(&self, index: usize) -> String {
        let variable = &self.graph.variables[index];
        let now = value_at(self.graph, self.question, index, self.question.start[index]);
        match (variable.discoverable, now) {
            (false, None) => "which Cfg does not set".to_owned(),
            (false, Some(value)) => format!("where Cfg says {value}"),
            (true, None) => "which is unknown, and no mutation finds it out".to_owned(),
            (true, Some(value)) => format!("which is {value}, and no mutation changes it"),
        }
    }

    fn lifted_by_others(&self, index: usize) -> String {
        let variable = &self.graph.variables[index];
        if variable.discoverable {
            format!("and no mutation changes {}", variable.url)
        } else {
            "which Cfg sets".to_owned()
        }
    }

    /// A spelling that was perhaps meant, or what could be asked for.
    fn meant(&self, variable: &Variable, index: usize, wanted: Option<&Value>) -> String {
        let mut can: Vec<String> = variable
            .mutators
            .iter()
            .flat_map(|rule| &self.graph.rules[*rule].effects)
            .filter(|effect| effect.variable == index)
            .filter_map(|effect| variable.value(effect.to))
            .map(Value::to_string)
            .collect();
        can.sort();
        can.dedup();
        let Some(wanted) = wanted.map(Value::to_string) else {
            return " again".to_owned();
        };
        if can.contains(&wanted) {
            return " as that type of value: mind the difference between texts and numbers"
                .to_owned();
        }
        match nearest(&wanted, can.iter().map(String::as_str)) {
            Some(near) => format!("; did you mean {near}?"),
            None if can.is_empty() || can.len() > 8 => String::new(),
            None => format!("; there are mutations to {}", list(&can, "and")),
        }
    }

    fn goal_value(&self, goal: &GoalVal) -> Option<Value> {
        let variable = &self.graph.variables[goal.variable];
        let named = variable.value(goal.value).cloned();
        named.or_else(|| self.question.wanted.get(variable.url.as_str()).cloned())
    }

    fn goal(&self, goal: &GoalVal) -> String {
        is(
            &self.graph.variables[goal.variable].url,
            self.goal_value(goal).as_ref(),
        )
    }

    fn named(&self, goals: &[GoalVal]) -> Vec<(StateUrl, Value)> {
        goals
            .iter()
            .filter_map(|goal| {
                let url = self.graph.variables[goal.variable].url.clone();
                Some((url, self.goal_value(goal)?))
            })
            .collect()
    }

    fn is(&self, index: usize, value: Val) -> String {
        let url = &self.graph.variables[index].url;
        is(
            url,
            value_at(self.graph, self.question, index, value).as_ref(),
        )
    }

    fn now(&self, index: usize) -> String {
        self.is(index, self.question.start[index])
    }

    fn condition(&self, index: usize, values: &[Val]) -> Condition {
        let any_of = values
            .iter()
            .map(|value| value_at(self.graph, self.question, index, *value));
        Condition::any_of(self.graph.variables[index].url.clone(), any_of.collect())
    }
}

/// `/RunState=SYNC`, or `/RunState unknown`.
fn is(url: &StateUrl, value: Option<&Value>) -> String {
    match value {
        Some(value) => format!("{url}={value}"),
        None => format!("{url} unknown"),
    }
}

/// `a, b and c`.
fn list(items: &[String], word: &str) -> String {
    match items {
        [] => String::new(),
        [only] => only.clone(),
        [first @ .., last] => format!("{} {word} {last}", first.join(", ")),
    }
}
