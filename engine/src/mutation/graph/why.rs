//! Why there is no path, in words that a sysadmin would use.
//!
//! An explanation starts from a goal that is out of reach and walks back: which mutations could set it, what stops the most promising
//! ones, and why that can't be changed either.

mod words;

use super::compile::Val;
use super::problem::{Problem, Scratch};
use super::relax::Unreachable;
use super::search::{Found, States, solve};
use super::{GoalVal, MutationGraph, Question};
use crate::mutation::path::NoPath;
use words::Words;

/// States looked at for an explanation; it may be less than complete, but must be quick.
const MAX_STATES: usize = 1 << 12;
/// Goals tried alone and in pairs to find out which exclude each other.
const MAX_TRIED: usize = 16;

/// Some goals are out of reach whatever the order of mutations.
pub(super) fn unreachable(
    graph: &MutationGraph,
    question: &Question<'_>,
    unreachable: &Unreachable,
) -> NoPath {
    Words::new(graph, question, unreachable.reach.values.clone()).out_of_reach(&unreachable.goals)
}

/// Every state of this part was seen, and none has all its goals.
pub(super) fn exhausted(
    graph: &MutationGraph,
    question: &Question<'_>,
    problem: &mut Problem,
) -> NoPath {
    let goals: Vec<GoalVal> = problem
        .goals()
        .filter_map(|(variable, _)| question.goal.iter().find(|goal| goal.variable == variable))
        .copied()
        .collect();
    let mut is_impossible = |keep: &[usize]| {
        let some = problem.some_goals(keep);
        let all = problem.set_goals(some);
        let mut budget = MAX_STATES;
        let found = solve(problem, &mut budget);
        problem.set_goals(all);
        found == Found::Exhausted
    };
    let tried = goals.len().min(MAX_TRIED);
    let alone = (0..tried).filter(|at| is_impossible(&[*at]));
    let impossible: Vec<GoalVal> = alone.map(|at| goals[at]).collect();
    if !impossible.is_empty() {
        let reached = explore(question, problem);
        return Words::new(graph, question, reached).out_of_reach(&impossible);
    }
    let pairs = (0..tried).flat_map(|a| (a + 1..tried).map(move |b| [a, b]));
    let clash = pairs.into_iter().find(|pair| is_impossible(pair));
    let clashing = match clash {
        Some(pair) => pair.iter().map(|at| goals[*at]).collect(),
        None => goals,
    };
    Words::new(graph, question, Vec::new()).conflict(&clashing)
}

/// The search was given up.
pub(super) fn over_budget(graph: &MutationGraph, question: &Question<'_>) -> NoPath {
    Words::new(graph, question, Vec::new()).over_budget()
}

/// By variable, the values that occur in the states of this part; the start value alone for variables outside.
fn explore(question: &Question<'_>, problem: &Problem) -> Vec<Vec<Val>> {
    let mut reached: Vec<Vec<Val>> = question.start.iter().map(|value| vec![*value]).collect();
    let mut states = States::new(problem.words());
    let mut scratch = Scratch::default();
    states.enter(&problem.start());
    let mut at = 0;
    while at < states.len() {
        let state = states.get(at as u32).to_vec();
        for (variable, value) in problem.values(&state) {
            if !reached[variable].contains(&value) {
                reached[variable].push(value);
            }
        }
        problem.successors(&state, &mut scratch, |_, _, after| {
            if states.len() < MAX_STATES {
                states.enter(after);
            }
        });
        at += 1;
    }
    reached
}
