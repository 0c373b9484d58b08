//! The states that a node can reach, as a graph: for `explain`, DOT and the dashboard.

use std::fmt::Write;

use petgraph::stable_graph::{NodeIndex, StableDiGraph};
use petgraph::visit::{EdgeRef, IntoEdgeReferences};

use super::compile::{UNKNOWN, Val};
use super::problem::{Problem, Scratch};
use super::search::States;
use super::{MutationGraph, Question, relax};
use crate::mutation::MutationId;
use crate::mutation::path::Plan;
use crate::state::{Change, Value};

/// States that a [`StateGraph`] holds at most; more could not be looked at.
pub const MAX_GRAPH_STATES: usize = 2048;

/// The reachable states of one class of nodes.
#[derive(Debug)]
pub struct StateGraph {
    /// States, and the mutations between them.
    pub graph: StableDiGraph<StateNode, StateEdge>,
    /// Where the node is.
    pub start: NodeIndex,
    /// The states of the path in order, the start first.
    pub path: Vec<NodeIndex>,
    /// There are more states than [`MAX_GRAPH_STATES`].
    pub truncated: bool,
}

/// A state: the values of all urls that can change, ordered by url.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateNode {
    /// `None` is unknown.
    pub values: Vec<Change>,
    /// All goals hold.
    pub is_goal: bool,
}

/// A mutation that leads from one state to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateEdge {
    /// Which.
    pub mutation: MutationId,
    /// It is a step of the path.
    pub on_path: bool,
}

/// Walks the path first, so that it is in the graph whatever the limit, then outwards from the start.
pub(super) fn reachable(graph: &MutationGraph, question: &Question<'_>, plan: &Plan) -> StateGraph {
    let problem = relax::whole(graph, question);
    let mut walk = Walk {
        graph,
        question,
        states: States::new(problem.words()),
        scratch: Scratch::default(),
        drawn: StableDiGraph::new(),
        problem,
    };
    let start = walk.node(&walk.problem.start());
    let path = walk.path(start, plan.steps());
    let mut truncated = false;
    let mut at = 0;
    while at < walk.states.len() {
        truncated |= walk.draw(at as u32);
        at += 1;
    }
    for (step, ends) in plan.steps().iter().zip(path.windows(2)) {
        let edges = walk.drawn.edges_connecting(ends[0], ends[1]);
        let taken: Vec<_> = edges
            .filter(|edge| edge.weight().mutation == *step)
            .map(|edge| edge.id())
            .collect();
        taken
            .iter()
            .for_each(|edge| walk.drawn[*edge].on_path = true);
    }
    StateGraph {
        graph: walk.drawn,
        start,
        path,
        truncated,
    }
}

struct Walk<'a> {
    graph: &'a MutationGraph,
    question: &'a Question<'a>,
    problem: Problem,
    /// Numbered as the nodes of `drawn`.
    states: States,
    scratch: Scratch,
    drawn: StableDiGraph<StateNode, StateEdge>,
}

impl Walk<'_> {
    fn node(&mut self, state: &[u64]) -> NodeIndex {
        let index = self.states.enter(state);
        if index as usize == self.drawn.node_count() {
            let node = self.describe(state);
            self.drawn.add_node(node);
        }
        NodeIndex::new(index as usize)
    }

    fn describe(&self, state: &[u64]) -> StateNode {
        let values: Vec<(usize, Val)> = self.problem.values(state).collect();
        let holds = |variable: usize, wanted: Val| {
            let changing = values.iter().find(|(index, _)| *index == variable);
            wanted == changing.map_or(self.question.start[variable], |(_, value)| *value)
        };
        let start_is = |goal: &super::GoalVal| {
            self.question.start[goal.variable] != goal.value || goal.holds_at_start
        };
        StateNode {
            is_goal: self
                .question
                .goal
                .iter()
                .all(|goal| holds(goal.variable, goal.value) && start_is(goal)),
            values: values
                .iter()
                .map(|(variable, value)| Change {
                    url: self.graph.variables[*variable].url.clone(),
                    value: value_at(self.graph, self.question, *variable, *value),
                })
                .collect(),
        }
    }

    fn path(&mut self, start: NodeIndex, steps: &[MutationId]) -> Vec<NodeIndex> {
        let mut path = vec![start];
        let mut state = self.problem.start();
        for step in steps {
            let mut next = None;
            self.problem
                .successors(&state, &mut self.scratch, |rule, _, after| {
                    if self.graph.set.mutations[rule].id == *step {
                        next = Some(after.to_vec());
                    }
                });
            let Some(after) = next else { break };
            path.push(self.node(&after));
            state = after;
        }
        path
    }

    /// Draws what leads out of a state; returns whether something was left out.
    fn draw(&mut self, state: u32) -> bool {
        let from = NodeIndex::new(state as usize);
        let packed = self.states.get(state).to_vec();
        let mut moves = Vec::new();
        self.problem
            .successors(&packed, &mut self.scratch, |rule, _, after| {
                moves.push((rule, after.to_vec()))
            });
        moves.sort_unstable();
        let mut left_out = false;
        for (rule, after) in moves {
            if self.states.len() >= MAX_GRAPH_STATES && !self.states.has(&after) {
                left_out = true;
                continue;
            }
            let to = self.node(&after);
            let edge = StateEdge {
                mutation: self.graph.set.mutations[rule].id.clone(),
                on_path: false,
            };
            self.drawn.add_edge(from, to, edge);
        }
        left_out
    }
}

/// The value behind a number in the light of one question, which knows the values that no declaration mentions.
pub(super) fn value_at(
    graph: &MutationGraph,
    question: &Question<'_>,
    variable: usize,
    number: Val,
) -> Option<Value> {
    let variable = &graph.variables[variable];
    if number == UNKNOWN {
        None
    } else if variable.is_kind(number) {
        graph
            .value_of(variable, question.dsc, question.cfg)
            .cloned()
    } else {
        variable.value(number).cloned()
    }
}

impl StateNode {
    /// What this state shows of itself in a drawing: known values, one a line.
    fn label(&self) -> String {
        let mut label = String::new();
        for change in &self.values {
            if let Some(value) = &change.value {
                let _ = writeln!(label, "{}={value}", change.url);
            }
        }
        if label.is_empty() {
            label.push_str("all unknown\n");
        }
        label
    }
}

impl StateGraph {
    /// The graph in DOT: the start in a double border, goals filled, the path bold.
    pub fn to_dot(&self) -> String {
        let mut dot =
            String::from("digraph states {\n  rankdir=LR;\n  node [shape=box, style=rounded];\n");
        for index in self.graph.node_indices() {
            let node = &self.graph[index];
            let mut looks = String::new();
            if index == self.start {
                looks.push_str(", peripheries=2");
            }
            if node.is_goal {
                looks.push_str(", style=\"rounded,filled\", fillcolor=palegreen");
            }
            if self.path.len() > 1 && self.path.contains(&index) {
                looks.push_str(", penwidth=3");
            }
            let _ = writeln!(
                dot,
                "  s{} [label={}{looks}];",
                index.index(),
                quoted(&node.label())
            );
        }
        for edge in self.graph.edge_references() {
            let looks = if edge.weight().on_path {
                ", penwidth=3, color=forestgreen"
            } else {
                ""
            };
            let _ = writeln!(
                dot,
                "  s{} -> s{} [label={}{looks}];",
                edge.source().index(),
                edge.target().index(),
                quoted(edge.weight().mutation.as_str()),
            );
        }
        if self.truncated {
            let _ = writeln!(
                dot,
                "  more [shape=plaintext, label=\"more than {MAX_GRAPH_STATES} states\"];"
            );
        }
        dot.push_str("}\n");
        dot
    }
}

/// A text as DOT reads it; every line ends left-justified.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            '\n' => quoted.push_str("\\l"),
            c if c.is_control() => quoted.push(' '),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}
