//! Cuts a question down before it is searched.
//!
//! 1. Relevance: only variables that some goal hangs on, through mutations, conditions and dependencies.
//! 2. Reach: which values each variable could ever take if nothing were ever lost again. What stays out of reach here is out of reach for
//!    certain, so mutations that need it are dropped, and a goal out of reach ends the matter.
//! 3. Parts: variables that no mutation and no dependency links are planned apart, so their states are never multiplied.

use super::compile::{Rule, UNKNOWN, Val};
use super::problem::Problem;
use super::{GoalVal, MutationGraph, Question};

/// Which values variables can take, without regard to what they lose on the way.
#[derive(Debug)]
pub(super) struct Reach {
    /// By variable, the start value first.
    pub(super) values: Vec<Vec<Val>>,
    /// By rule: whether it could ever fire.
    pub(super) fires: Vec<bool>,
}

/// Goals that are out of reach, and what is within.
#[derive(Debug)]
pub(super) struct Unreachable {
    pub(super) goals: Vec<GoalVal>,
    pub(super) reach: Reach,
}

/// The independent parts of the question that are left to search, or the goals out of reach.
pub(super) fn relax(
    graph: &MutationGraph,
    question: &Question<'_>,
) -> Result<Vec<Problem>, Unreachable> {
    let cone = Cone::new(graph, question, |_| true, |_| true);
    let reach = Reach::new(graph, question, &cone);
    let missed = |goal: &&GoalVal| {
        let unmentioned = graph.variables[goal.variable].is_kind(goal.value);
        !goal.holds_at_start && (unmentioned || !reach.values[goal.variable].contains(&goal.value))
    };
    let goals: Vec<GoalVal> = question.goal.iter().filter(missed).copied().collect();
    if !goals.is_empty() {
        return Err(Unreachable { goals, reach });
    }
    let changes = |variable: usize| reach.values[variable].len() > 1;
    let cone = Cone::new(graph, question, |rule| reach.fires[rule], changes);
    Ok(parts(graph, question, &cone, &reach, changes))
}

/// Everything that can change from the start on, as one problem without goals.
pub(super) fn whole(graph: &MutationGraph, question: &Question<'_>) -> Problem {
    let all = Cone {
        variables: vec![true; graph.variables.len()],
        rules: vec![true; graph.rules.len()],
    };
    let reach = Reach::new(graph, question, &all);
    let changing = |index: &usize| reach.values[*index].len() > 1;
    let variables: Vec<usize> = (0..graph.variables.len()).filter(changing).collect();
    let rules: Vec<usize> = (0..graph.rules.len())
        .filter(|rule| reach.fires[*rule])
        .collect();
    let mut problem = Problem::new(graph, question, &reach, &variables, &rules);
    problem.set_goals(Vec::new());
    problem
}

/// Variables and rules that matter to the goals.
struct Cone {
    variables: Vec<bool>,
    rules: Vec<bool>,
}

impl Cone {
    fn new(
        graph: &MutationGraph,
        question: &Question<'_>,
        usable: impl Fn(usize) -> bool,
        changes: impl Fn(usize) -> bool,
    ) -> Self {
        let mut cone = Self {
            variables: vec![false; graph.variables.len()],
            rules: vec![false; graph.rules.len()],
        };
        let mut queue = Vec::new();
        let add = |variables: &mut Vec<bool>, queue: &mut Vec<usize>, variable: usize| {
            if changes(variable) && !variables[variable] {
                variables[variable] = true;
                queue.push(variable);
            }
        };
        for goal in &question.goal {
            add(&mut cone.variables, &mut queue, goal.variable);
        }
        while let Some(variable) = queue.pop() {
            for on in &graph.variables[variable].depends_on {
                add(&mut cone.variables, &mut queue, *on);
            }
            for index in &graph.variables[variable].mutators {
                if cone.rules[*index] || !usable(*index) {
                    continue;
                }
                cone.rules[*index] = true;
                for other in graph.rules[*index].mentions() {
                    add(&mut cone.variables, &mut queue, other);
                }
            }
        }
        cone
    }
}

impl Reach {
    fn new(graph: &MutationGraph, question: &Question<'_>, cone: &Cone) -> Self {
        let mut reach = Self {
            values: question.start.iter().map(|value| vec![*value]).collect(),
            fires: vec![false; graph.rules.len()],
        };
        let mut has: Vec<Vec<bool>> = Vec::with_capacity(graph.variables.len());
        for (variable, start) in graph.variables.iter().zip(&question.start) {
            let mut seen = vec![false; variable.size()];
            seen[*start as usize] = true;
            has.push(seen);
        }
        let mut queue: Vec<(usize, Val)> = Vec::new();
        for rule in 0..graph.rules.len() {
            if cone.rules[rule] {
                reach.try_rule(graph, rule, &mut has, &mut queue);
            }
        }
        while let Some((index, value)) = queue.pop() {
            let variable = &graph.variables[index];
            let rules = variable.wanted_by[value as usize]
                .iter()
                .chain(&variable.watched_by);
            for rule in rules {
                if cone.rules[*rule] {
                    reach.try_rule(graph, *rule, &mut has, &mut queue);
                }
            }
            for dependent in &variable.dependents {
                let other = &graph.variables[dependent.variable];
                let test = &other.depends_tests[dependent.condition];
                let start = question.start[index];
                if other.discoverable
                    && cone.variables[dependent.variable]
                    && !(test.holds(value) && test.holds(start))
                {
                    reach.add(dependent.variable, UNKNOWN, &mut has, &mut queue);
                }
            }
        }
        reach
    }

    fn try_rule(
        &mut self,
        graph: &MutationGraph,
        index: usize,
        has: &mut [Vec<bool>],
        queue: &mut Vec<(usize, Val)>,
    ) {
        let rule = &graph.rules[index];
        if self.fires[index] || !rule_fires(rule, has, &self.values) {
            return;
        }
        self.fires[index] = true;
        for effect in &rule.effects {
            self.add(effect.variable, effect.to, has, queue);
        }
    }

    fn add(
        &mut self,
        variable: usize,
        value: Val,
        has: &mut [Vec<bool>],
        queue: &mut Vec<(usize, Val)>,
    ) {
        if !has[variable][value as usize] {
            has[variable][value as usize] = true;
            self.values[variable].push(value);
            queue.push((variable, value));
        }
    }
}

fn rule_fires(rule: &Rule, has: &[Vec<bool>], values: &[Vec<Val>]) -> bool {
    let any =
        |variable: usize, wanted: &[Val]| wanted.iter().any(|value| has[variable][*value as usize]);
    rule.effects
        .iter()
        .all(|effect| any(effect.variable, &effect.from))
        && rule
            .requires
            .iter()
            .all(|test| any(test.variable, &test.values))
        && rule.excludes.iter().all(|test| {
            values[test.variable]
                .iter()
                .any(|value| !test.holds(*value))
        })
}

/// Splits the cone into parts that share no variable, each with the goals in it; parts whose goals all hold are left out.
fn parts(
    graph: &MutationGraph,
    question: &Question<'_>,
    cone: &Cone,
    reach: &Reach,
    changes: impl Fn(usize) -> bool,
) -> Vec<Problem> {
    let mut part: Vec<usize> = (0..graph.variables.len()).collect();
    let rules = || (0..graph.rules.len()).filter(|rule| cone.rules[*rule]);
    for rule in rules() {
        let mut members = graph.rules[rule]
            .mentions()
            .filter(|variable| changes(*variable));
        if let Some(first) = members.next() {
            members.for_each(|other| join(&mut part, first, other));
        }
    }
    for index in (0..graph.variables.len()).filter(|index| cone.variables[*index]) {
        let linked = graph.variables[index].depends_on.iter();
        for on in linked.filter(|on| cone.variables[**on]) {
            join(&mut part, index, *on);
        }
    }
    let mut open: Vec<usize> = question
        .goal
        .iter()
        .filter(|goal| !goal.holds_at_start)
        .map(|goal| find(&mut part, goal.variable))
        .collect();
    open.sort_unstable();
    open.dedup();
    let mut problems = Vec::with_capacity(open.len());
    for root in open {
        let variables: Vec<usize> = (0..graph.variables.len())
            .filter(|index| cone.variables[*index] && find(&mut part, *index) == root)
            .collect();
        let own_rules: Vec<usize> = rules()
            .filter(|rule| {
                let mut changed = graph.rules[*rule]
                    .effects
                    .iter()
                    .map(|effect| effect.variable);
                changed
                    .any(|variable| cone.variables[variable] && find(&mut part, variable) == root)
            })
            .collect();
        problems.push(Problem::new(graph, question, reach, &variables, &own_rules));
    }
    problems
}

fn find(part: &mut [usize], mut of: usize) -> usize {
    while part[of] != of {
        part[of] = part[part[of]];
        of = part[of];
    }
    of
}

/// The smaller root stays, so that parts come in the order of urls.
fn join(part: &mut [usize], a: usize, b: usize) {
    let (a, b) = (find(part, a), find(part, b));
    part[a.max(b)] = a.min(b);
}
