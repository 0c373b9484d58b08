//! The search: cheapest path, then fewest steps, then the first by the ids of its steps.
//!
//! Two passes over one part of a question. The first is A* with the bounds of [`Problem::bounds`], which are consistent, and finds the least
//! weight. The second walks rules in the order of their ids, never beyond that weight, and takes the first way that arrives: as weights
//! count steps, all optimal ways are equally long, so the first is the least in lexicographic order. What the first pass learnt about the
//! weight of reaching a state cuts the second: a state on an optimal way is reached at no more than its least weight.
//!
//! The ways of independent parts are merged by always taking the part whose next step has the smallest id. Parts share no mutation, so the
//! result is what a search over the product of all parts would have found.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::problem::{INFINITE, Problem, Scratch, Weight};
use super::{MutationGraph, Question, why};
use crate::mutation::path::Plan;

/// States that one question may look at. Real sets need dozens; this many take about 0.2 s and 20 MiB, after which a head with other nodes
/// to serve says so instead of searching on.
pub const MAX_EXPLORED: usize = 1 << 17;

/// What became of one search.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// The rules to fire.
    Path(Vec<usize>),
    /// Every reachable state was seen, none is a goal.
    Exhausted,
    /// Given up.
    OverBudget,
}

/// Solves all parts and merges their paths.
pub(super) fn solve_all(
    graph: &MutationGraph,
    question: &Question<'_>,
    mut problems: Vec<Problem>,
    explored: &mut usize,
) -> Plan {
    let mut budget = MAX_EXPLORED;
    let plan = solve_within(graph, question, &mut problems, &mut budget);
    *explored += MAX_EXPLORED - budget;
    plan
}

fn solve_within(
    graph: &MutationGraph,
    question: &Question<'_>,
    problems: &mut [Problem],
    budget: &mut usize,
) -> Plan {
    let mut paths = Vec::with_capacity(problems.len());
    for problem in problems {
        match solve(problem, budget) {
            Found::Path(path) => paths.push(path),
            Found::Exhausted => return Plan::NoPath(why::exhausted(graph, question, problem)),
            Found::OverBudget => return Plan::NoPath(why::over_budget(graph, question)),
        }
    }
    Plan::Path(graph.path(merge(&paths)))
}

/// Always the smallest of the next steps.
fn merge(paths: &[Vec<usize>]) -> Vec<usize> {
    let mut next: Vec<std::slice::Iter<'_, usize>> = paths.iter().map(|path| path.iter()).collect();
    let mut merged = Vec::with_capacity(paths.iter().map(Vec::len).sum());
    while let Some(path) = next
        .iter_mut()
        .filter(|path| path.len() > 0)
        .min_by_key(|path| path.as_slice().first())
    {
        merged.extend(path.next());
    }
    merged
}

/// Solves one part, taking the states it looks at from `budget`.
pub(super) fn solve(problem: &Problem, budget: &mut usize) -> Found {
    let mut search = Search::new(problem, *budget);
    let found = match search.cheapest() {
        Ok(Some((weight, goal))) => match search.first_by_id(weight) {
            Some(path) => Found::Path(path),
            // Too many equally good ways to compare: one of them, the same each time.
            None => Found::Path(search.way_to(goal)),
        },
        Ok(None) => Found::Exhausted,
        Err(OverBudget) => Found::OverBudget,
    };
    *budget -= search.states.len().min(*budget);
    found
}

struct OverBudget;

/// Place of a state among those seen.
type StateIndex = u32;

struct Search<'a> {
    problem: &'a Problem,
    budget: usize,
    bounds: Vec<(usize, Vec<Weight>)>,
    states: States,
    /// By state.
    facts: Vec<Fact>,
    scratch: Scratch,
}

/// What is known of a state.
#[derive(Clone, Copy)]
struct Fact {
    /// Least weight known from the start.
    weight: Weight,
    /// No way to a goal weighs less.
    bound: Weight,
    /// The walk by ids failed from here, having come at this weight.
    failed_at: Weight,
    /// How `weight` was reached: from which state, by which rule.
    parent: (StateIndex, u32),
    closed: bool,
}

/// One state of the walk by ids.
struct Frame {
    state: StateIndex,
    weight: Weight,
    /// Rules that fire here, in the order of ids, with their weight and where they lead.
    moves: Vec<(usize, Weight, StateIndex)>,
    next: usize,
}

impl<'a> Search<'a> {
    fn new(problem: &'a Problem, budget: usize) -> Self {
        Self {
            problem,
            budget,
            bounds: problem.bounds(),
            states: States::new(problem.words()),
            facts: Vec::new(),
            scratch: Scratch::default(),
        }
    }

    /// The least weight of a way to a goal, and the goal; `None` if there is no way.
    fn cheapest(&mut self) -> Result<Option<(Weight, StateIndex)>, OverBudget> {
        let start = self.enter(&self.problem.start());
        self.facts[start as usize].weight = 0;
        let mut queue = BinaryHeap::new();
        queue.push(Reverse((
            self.facts[start as usize].bound,
            self.facts[start as usize].bound,
            start,
        )));
        let mut moves = Vec::new();
        while let Some(Reverse((total, _, state))) = queue.pop() {
            if total == INFINITE {
                break;
            }
            let fact = &mut self.facts[state as usize];
            if std::mem::replace(&mut fact.closed, true) {
                continue;
            }
            let weight = fact.weight;
            if self.problem.is_goal(self.states.get(state)) {
                return Ok(Some((weight, state)));
            }
            self.moves(state, &mut moves);
            if self.states.len() > self.budget {
                return Err(OverBudget);
            }
            for (rule, step, after) in moves.drain(..) {
                let fact = &mut self.facts[after as usize];
                if fact.bound != INFINITE && weight + step < fact.weight {
                    fact.weight = weight + step;
                    fact.parent = (state, rule as u32);
                    queue.push(Reverse((fact.weight + fact.bound, fact.bound, after)));
                }
            }
        }
        Ok(None)
    }

    /// The least way by ids among those of weight `least`; `None` when the budget does not suffice to know.
    fn first_by_id(&mut self, least: Weight) -> Option<Vec<usize>> {
        let mut stack = vec![self.frame(0, 0)];
        while let Some(frame) = stack.last_mut() {
            let Some((_, step, after)) = frame.moves.get(frame.next).copied() else {
                let (state, weight) = (frame.state, frame.weight);
                self.facts[state as usize].failed_at = weight;
                stack.pop();
                continue;
            };
            frame.next += 1;
            let weight = frame.weight + step;
            let fact = &mut self.facts[after as usize];
            let hopeless = weight > fact.weight
                || weight >= fact.failed_at
                || fact.bound > least.saturating_sub(weight);
            if hopeless || weight > least {
                continue;
            }
            fact.weight = weight;
            if self.problem.is_goal(self.states.get(after)) {
                return Some(
                    stack
                        .iter()
                        .map(|frame| frame.moves[frame.next - 1].0)
                        .collect(),
                );
            }
            let frame = self.frame(after, weight);
            stack.push(frame);
            if self.states.len() > self.budget {
                return None;
            }
        }
        None
    }

    fn frame(&mut self, state: StateIndex, weight: Weight) -> Frame {
        let mut moves = Vec::new();
        self.moves(state, &mut moves);
        moves.sort_unstable_by_key(|(rule, _, _)| *rule);
        Frame {
            state,
            weight,
            moves,
            next: 0,
        }
    }

    /// The rules by which [`cheapest`](Self::cheapest) came to `state`.
    fn way_to(&self, mut state: StateIndex) -> Vec<usize> {
        let mut way = Vec::new();
        while state != 0 {
            let (before, rule) = self.facts[state as usize].parent;
            way.push(rule as usize);
            state = before;
        }
        way.reverse();
        way
    }

    fn moves(&mut self, state: StateIndex, moves: &mut Vec<(usize, Weight, StateIndex)>) {
        let packed = self.states.get(state).to_vec();
        let mut scratch = std::mem::take(&mut self.scratch);
        self.problem
            .successors(&packed, &mut scratch, |rule, weight, after| {
                moves.push((rule, weight, self.enter(after)));
            });
        self.scratch = scratch;
    }

    fn enter(&mut self, state: &[u64]) -> StateIndex {
        let index = self.states.enter(state);
        if index as usize == self.facts.len() {
            let mut bound: Weight = 0;
            for (local, by_value) in &self.bounds {
                bound = bound.saturating_add(
                    by_value[self.problem.local(self.states.get(index), *local) as usize],
                );
            }
            self.facts.push(Fact {
                weight: INFINITE,
                bound,
                failed_at: INFINITE,
                parent: (0, 0),
                closed: false,
            });
        }
        index
    }
}

/// All states seen, each once, numbered in the order of first sight.
///
/// An open-addressed table over packed words. The standard hash map draws randomness and stores each key apart; nothing iterates over
/// this one, so its order shows nowhere.
pub(super) struct States {
    words: usize,
    packed: Vec<u64>,
    /// Number of a state plus one; 0 is free.
    table: Vec<u32>,
}

impl States {
    pub(super) fn new(words: usize) -> Self {
        Self {
            words,
            packed: Vec::new(),
            table: vec![0; 64],
        }
    }

    pub(super) fn len(&self) -> usize {
        self.packed.len() / self.words
    }

    pub(super) fn get(&self, state: StateIndex) -> &[u64] {
        &self.packed[state as usize * self.words..][..self.words]
    }

    pub(super) fn has(&self, state: &[u64]) -> bool {
        self.table[self.slot(state)] != 0
    }

    /// The number of a state; `len()` from before the call if it is the first time.
    pub(super) fn enter(&mut self, state: &[u64]) -> StateIndex {
        if self.len() * 2 >= self.table.len() {
            self.grow();
        }
        let slot = self.slot(state);
        if self.table[slot] == 0 {
            self.packed.extend_from_slice(state);
            self.table[slot] = self.len() as u32;
        }
        self.table[slot] - 1
    }

    fn slot(&self, state: &[u64]) -> usize {
        let mask = self.table.len() - 1;
        let mut slot = hash(state) as usize & mask;
        while self.table[slot] != 0 && self.get(self.table[slot] - 1) != state {
            slot = (slot + 1) & mask;
        }
        slot
    }

    fn grow(&mut self) {
        self.table = vec![0; self.table.len() * 2];
        for state in 0..self.len() as u32 {
            let slot = self.slot(self.get(state));
            self.table[slot] = state + 1;
        }
    }
}

/// Multiply and fold, word by word; neighboring states differ in few bits, which this spreads over all.
fn hash(words: &[u64]) -> u64 {
    words.iter().fold(0x9e37_79b9_7f4a_7c15, |hash, word| {
        let wide = u128::from(hash ^ word) * 0xd6e8_feb8_6659_fd93;
        (wide >> 64) as u64 ^ wide as u64
    })
}
