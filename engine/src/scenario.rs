//! Scenarios: a node, what it should be, and what happens to it, as a text that is played through the real engine.
//!
//! The files of `engine/scenarios` are the planner's rules by example: tests compare every answer, `krakenctl plan --scenario FILE` and
//! `krakenctl node explain --scenario FILE` show them as an operator would see them. `engine/docs/mutation-graph.md` describes the format.
//! This file reads it; `player` plays it, on the engine of `at_once`. Neither touches a file: the caller brings the texts and the mutation sets.

pub(crate) mod at_once;
mod player;
mod rails;

use std::fmt::{self, Write as _};
use std::sync::Arc;
use std::time::Duration;

use crate::engine::{CostSource, after_job};
use crate::event::Lift;
use crate::extension::parse_duration;
use crate::mutation::graph::{GraphError, MutationGraph};
use crate::mutation::path::{Plan, PlanResult};
use crate::mutation::report::Report;
use crate::mutation::{MutationId, MutationSet};
use crate::state::{Change, NodeName, StateUrl, Value, Values};

pub use self::player::ONE_NODE;
pub use self::rails::Rails;

/// One file: what it shows, and its cases.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scenario {
    /// The lines above the first case.
    pub title: String,
    /// In the order of the file.
    pub cases: Vec<Case>,
}

/// One node's story.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Case {
    /// What it shows, in a few words.
    pub title: String,
    /// Line of the file at which it begins, from 1.
    pub line: usize,
    /// Name of its mutation set.
    pub mutations: String,
    /// The node's groups.
    pub groups: Vec<String>,
    /// Its parent among the others; the head if there is none.
    pub parent: Option<NodeName>,
    /// Steps that have nothing to do with each other wait for each other, too.
    pub one_by_one: bool,
    /// Limits and breakers.
    pub rails: Rails,
    /// What the node should be.
    pub cfg: Values,
    /// What it is.
    pub dsc: Values,
    /// Other nodes of the cluster.
    pub others: Vec<OtherNode>,
    /// Where costs come from.
    pub costs: CostSource,
    /// What happens, in order. Empty: only the plan is asked for.
    pub script: Vec<Line>,
    /// The lines of the file that `answer` is to give.
    pub expected: String,
}

/// A node beside the one that a case is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OtherNode {
    /// Its name.
    pub name: NodeName,
    /// Its groups.
    pub groups: Vec<String>,
    /// What it should be; only of those with a Cfg the answer tells what they do.
    pub cfg: Values,
    /// What it is.
    pub dsc: Values,
    /// Groups, Cfg and Dsc are those of the case's node.
    pub same: bool,
}

/// One line of a script, as it stands in the file and as what it means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Without the mark in front.
    pub text: String,
    /// Which node it is about, if not the case's own.
    pub node: Option<NodeName>,
    /// What to do.
    pub step: Step,
}

/// Something that happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A module reports values, of a named other node or of ours.
    Discover(Option<NodeName>, Vec<Change>),
    /// What is under way succeeds, and what is fired after it, at most so many times.
    Run(usize),
    /// The module of the step under way says that it failed.
    Fail(String),
    /// Time passes.
    Wait(Duration),
    /// The node's agent joins and reports values.
    AgentBack(Vec<Change>),
    /// The node's agent is not heard for too long.
    AgentLost,
    /// An operator changes Cfg.
    Set(Vec<Change>),
    /// An operator adds the node to a group.
    Join(String),
    /// An operator gives the node another parent.
    Move(NodeName),
    /// An operator lifts a guard rail of the cluster.
    Lift(Lift),
    /// An operator freezes the node, or the cluster.
    Freeze(Scope),
    /// An operator thaws the node, or the cluster.
    Thaw(Scope),
    /// `krakenctl node release`.
    Release,
    /// The head is killed and started again.
    Restart,
    /// An operator deletes the node.
    Delete,
    /// `krakenctl node explain`.
    Explain,
}

/// What is frozen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The node of the case.
    Node,
    /// Everything.
    Cluster,
    /// Whoever is in a group, and why.
    Group(String, String),
}

/// A file that says nonsense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {text}")]
pub struct ScenarioError {
    /// From 1.
    pub line: usize,
    /// What is wrong and what would be right.
    pub text: String,
}

/// Repeats of `run` without a number: more than any path of the shipped sets is long, and an end for one that never converges.
const RUN_LIMIT: usize = 50;

/// What a file without a case is told.
const NO_CASE: &str = "this is no scenario file, for it has no case; one is `case: TITLE`, then `mutations: SET` (a folder in sets/ beside the file), \
    `cfg: /URL=VALUE ...`, `dsc: /URL=VALUE ...`, script lines such as `> run`, and `----`";

impl Scenario {
    /// Reads a file.
    ///
    /// # Errors
    /// The first line that cannot be understood.
    pub fn parse(text: &str) -> Result<Self, ScenarioError> {
        let mut title = String::new();
        let mut cases: Vec<Case> = Vec::new();
        let mut answer = false;
        for (index, line) in text.lines().enumerate() {
            let number = index + 1;
            let error = |text: String| ScenarioError { line: number, text };
            if line.is_empty() {
                answer = false;
            } else if answer {
                if let Some(case) = cases.last_mut() {
                    case.expected.push_str(line);
                    case.expected.push('\n');
                }
            } else if let Some(title) = line.strip_prefix("case:") {
                cases.push(Case {
                    title: title.trim().to_owned(),
                    line: number,
                    ..Case::default()
                });
            } else if let Some(case) = cases.last_mut() {
                match line {
                    "----" => answer = true,
                    _ => case.header(line).map_err(error)?,
                }
            } else {
                title.push_str(line);
                title.push('\n');
            }
        }
        match cases.iter().find(|case| case.mutations.is_empty()) {
            Some(case) => Err(ScenarioError {
                line: case.line,
                text: "the case names no set: add `mutations: NAME`".into(),
            }),
            None if cases.is_empty() => Err(ScenarioError {
                line: 1,
                text: NO_CASE.into(),
            }),
            None => Ok(Self { title, cases }),
        }
    }
}

impl Case {
    fn header(&mut self, line: &str) -> Result<(), String> {
        if let Some(text) = line.strip_prefix("> ") {
            let (node, step) = line_of(text)?;
            self.script.push(Line {
                text: text.to_owned(),
                node,
                step,
            });
            return Ok(());
        }
        let (key, value) = line
            .split_once(':')
            .ok_or_else(|| format!("{line:?} is neither `key: value` nor a script line `> ...`"))?;
        match key {
            "mutations" => self.mutations = value.trim().to_owned(),
            "groups" => self.groups = groups(value)?,
            "parent" => self.parent = Some(name(value.trim())?),
            "limits" => self.rails.limit(value.trim())?,
            "breaker" => self.rails.breaker(value.trim())?,
            "side by side" if value.trim() == "no" => self.one_by_one = true,
            "cfg" => self.cfg = values(value)?,
            "dsc" => self.dsc = values(value)?,
            "node" => self.others.push(other(value)?),
            "costs" => {
                self.costs = match value.trim() {
                    "declared" => CostSource::Declared,
                    "learned" => CostSource::Learned,
                    _ => return Err(format!("costs are declared or learned, not {value:?}")),
                }
            }
            _ => {
                return Err(format!(
                    "there is no key {key:?}; keys are mutations, groups, parent, cfg, dsc, node, costs, limits, \
                     breaker and `side by side: no`"
                ));
            }
        }
        Ok(())
    }

    /// What the planner says of the node as it is at the beginning: with goals set aside, as for a live node.
    ///
    /// # Errors
    /// A mutation set that contradicts itself.
    pub fn plan(&self, set: &MutationSet) -> Result<PlanResult, GraphError> {
        let graph = self.graph(set)?;
        Ok(PlanResult::new(&graph, &self.dsc, &self.cfg))
    }

    /// The path that the node will have once its job has ended, if the job is all that stands in its way.
    ///
    /// # Errors
    /// A mutation set that contradicts itself.
    pub fn plan_after_job(&self, set: &MutationSet) -> Result<Option<Arc<PlanResult>>, GraphError> {
        let graph = self.graph(set)?;
        let find = |dsc: &Values, cfg: &Values| Arc::new(PlanResult::new(&graph, dsc, cfg));
        let plan = find(&self.dsc, &self.cfg);
        Ok(after_job(&plan, &self.dsc, &self.cfg, find))
    }

    /// The graph by which the case is planned.
    ///
    /// # Errors
    /// A mutation set that contradicts itself.
    pub fn graph(&self, set: &MutationSet) -> Result<MutationGraph, GraphError> {
        MutationGraph::new(&self.declared(set))
    }

    /// What the case declares of a set.
    fn declared(&self, set: &MutationSet) -> MutationSet {
        let mut set = set.clone();
        set.one_by_one |= self.one_by_one;
        set
    }

    /// Plays the case and says why the node is where it is at its end; `None` when it was deleted.
    ///
    /// # Errors
    /// A mutation set that contradicts itself.
    pub fn report(&self, set: &MutationSet) -> Result<Option<Report>, GraphError> {
        MutationGraph::new(set)?;
        Ok(player::Player::play(self, set).report())
    }

    /// What comes out: the plan, or all that happens line by line.
    ///
    /// # Errors
    /// A mutation set that contradicts itself.
    pub fn answer(&self, set: &MutationSet) -> Result<String, GraphError> {
        if self.script.is_empty() {
            return Ok(plan_text(&self.plan(set)?));
        }
        MutationGraph::new(set)?;
        Ok(player::Player::play(self, set).into_text())
    }
}

/// The header of a case as it stands in a file; its answer follows.
impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pairs = |values: &Values| -> String {
            values
                .iter()
                .map(|(url, value)| format!(" {url}={value}"))
                .collect()
        };
        writeln!(f, "case: {}", self.title)?;
        writeln!(f, "mutations: {}", self.mutations)?;
        if self.costs == CostSource::Learned {
            writeln!(f, "costs: learned")?;
        }
        let groups = |groups: &[String]| -> String {
            groups.iter().map(|group| format!(" @{group}")).collect()
        };
        for line in &self.rails.lines {
            writeln!(f, "{line}")?;
        }
        if self.one_by_one {
            writeln!(f, "side by side: no")?;
        }
        for other in &self.others {
            let cfg = match other.cfg.is_empty() {
                true => String::new(),
                false => format!(" cfg{}", pairs(&other.cfg)),
            };
            let same = if other.same { " same" } else { "" };
            let (groups, dsc) = (groups(&other.groups), pairs(&other.dsc));
            writeln!(f, "node: {}{same}{groups}{dsc}{cfg}", other.name)?;
        }
        if !self.groups.is_empty() {
            writeln!(f, "groups:{}", groups(&self.groups))?;
        }
        if let Some(parent) = &self.parent {
            writeln!(f, "parent: {parent}")?;
        }
        writeln!(f, "cfg:{}", pairs(&self.cfg))?;
        writeln!(f, "dsc:{}", pairs(&self.dsc))?;
        for line in &self.script {
            writeln!(f, "> {}", line.text)?;
        }
        writeln!(f, "----")
    }
}

fn plan_text(result: &PlanResult) -> String {
    let mut text = String::new();
    // Writing into a string cannot fail.
    for (url, cause) in &result.suspended {
        let _ = writeln!(text, "sets {url} aside for {cause}");
    }
    match &result.plan {
        Plan::Converged => text.push_str("converged\n"),
        Plan::Path(path) => {
            for step in &path.steps {
                let _ = writeln!(text, "{step}");
            }
            let _ = writeln!(text, "cost {}", path.cost);
        }
        Plan::NoPath(no_path) => {
            let _ = writeln!(text, "no path: {no_path}");
        }
    }
    text
}

fn name(text: &str) -> Result<NodeName, String> {
    text.parse().map_err(|error| format!("{error}"))
}

fn groups(text: &str) -> Result<Vec<String>, String> {
    let group = |word: &str| match word.strip_prefix('@') {
        Some(group) => Ok(group.to_owned()),
        None => Err(format!("{word:?} is no @GROUP")),
    };
    text.split_whitespace().map(group).collect()
}

/// A step, with the name of another node in front: `n2: run`.
fn line_of(text: &str) -> Result<(Option<NodeName>, Step), String> {
    match text.split_once(": ") {
        Some((node, rest)) if !node.contains(' ') => Ok((Some(name(node)?), step(rest)?)),
        _ => Ok((None, step(text)?)),
    }
}

fn step(text: &str) -> Result<Step, String> {
    let (verb, rest) = text.split_once(' ').unwrap_or((text, ""));
    let scope = |rest: &str| match rest {
        "" => Ok(Scope::Node),
        "cluster" => Ok(Scope::Cluster),
        group if group.starts_with('@') => {
            let (group, reason) = group[1..].split_once(' ').unwrap_or((&group[1..], ""));
            Ok(Scope::Group(group.to_owned(), reason.to_owned()))
        }
        _ => Err(format!(
            "{verb} what? `{verb}`, `{verb} @GROUP` or `{verb} cluster`"
        )),
    };
    Ok(match (verb, rest) {
        ("discover", rest) if !rest.starts_with('/') => {
            let (name, rest) = rest.split_once(' ').unwrap_or((rest, ""));
            let name = name.parse().map_err(|error| format!("{error}"))?;
            Step::Discover(Some(name), changes(rest)?)
        }
        ("discover", rest) => Step::Discover(None, changes(rest)?),
        ("run", "") => Step::Run(RUN_LIMIT),
        ("run", times) => Step::Run(
            times
                .parse()
                .map_err(|_| format!("run how often? {times:?} is no number"))?,
        ),
        ("fail", text) => Step::Fail(text.to_owned()),
        ("wait", time) => Step::Wait(
            parse_duration(time)
                .ok_or_else(|| format!("{time:?} is no time; one is `30s` or `5m`"))?,
        ),
        ("agent", "lost") => Step::AgentLost,
        ("agent", rest) if rest.starts_with("back") => Step::AgentBack(changes(&rest[4..])?),
        ("set", rest) => Step::Set(changes(rest)?),
        ("join", group) => Step::Join(groups(group)?.concat()),
        ("move", parent) => Step::Move(name(parent)?),
        ("thaw", "mass-failure") => Step::Lift(Lift::MassFailure),
        ("thaw", rest) if rest.starts_with("mutation ") => {
            let id = rest[9..].split_once('/');
            let (module, name) = id.ok_or("thaw which mutation? `thaw mutation MODULE/NAME`")?;
            Step::Lift(Lift::Breaker(MutationId::new(module, name)))
        }
        ("freeze", rest) => Step::Freeze(scope(rest)?),
        ("thaw", rest) => Step::Thaw(scope(rest)?),
        ("release", "") => Step::Release,
        ("restart", "") => Step::Restart,
        ("delete", "") => Step::Delete,
        ("explain", "") => Step::Explain,
        _ => {
            return Err(format!(
                "{text:?} is no step; steps are discover, run, fail, wait, agent back, agent lost, set, join, move, freeze, thaw, \
                 release, restart, delete and explain"
            ));
        }
    })
}

fn other(text: &str) -> Result<OtherNode, String> {
    let mut words = text.split_whitespace();
    let name = words
        .next()
        .ok_or("which node? `node: NAME @GROUP /URL=VALUE`")?;
    let (groups, words): (Vec<&str>, Vec<&str>) = words.partition(|word| word.starts_with('@'));
    let (same, words): (Vec<&str>, Vec<&str>) = words.iter().partition(|word| **word == "same");
    let mut dsc = words.splitn(2, |word| *word == "cfg");
    let (dsc, cfg) = (dsc.next(), dsc.next());
    let values_of = |words: Option<&[&str]>| values(&words.unwrap_or_default().join(" "));
    Ok(OtherNode {
        name: name.parse().map_err(|error| format!("{error}"))?,
        groups: groups.iter().map(|group| group[1..].to_owned()).collect(),
        cfg: values_of(cfg)?,
        dsc: values_of(dsc)?,
        same: !same.is_empty(),
    })
}

fn values(text: &str) -> Result<Values, String> {
    let mut values = Values::default();
    values.apply(changes(text)?);
    Ok(values)
}

/// `/a=1 /b=x /c= /d=true`: whole numbers are numbers, nothing is unknown.
fn changes(text: &str) -> Result<Vec<Change>, String> {
    let pair = |pair: &str| {
        let (url, value) = pair
            .split_once('=')
            .ok_or_else(|| format!("{pair:?} is no /URL=VALUE"))?;
        let url: StateUrl = url.parse().map_err(|error| format!("{error}"))?;
        let value = match value.parse() {
            _ if value.is_empty() => None,
            Ok(0) => None,
            Ok(number) => Some(Value::Int(number)),
            Err(_) if value == "true" => Some(Value::Bool(true)),
            Err(_) => Some(Value::from(value)),
        };
        Ok(Change { url, value })
    };
    text.split_whitespace().map(pair).collect()
}

#[cfg(test)]
mod tests;
