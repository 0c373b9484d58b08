//! What a write would lead to, without making it (DESIGN 3, "Explain"): the plan that every node would follow, nodes with equal plans
//! together, and what would hold them.
//!
//! A pure question: the writes are staged as a real one would be, and played to copies of the guard rails and of the nodes, see [`rehearsal`], so
//! nothing of the engine can change. Without operations it tells the present plans. Leaves out what only time tells: discoveries on the way may
//! re-plan, and whom a limit lets through first of those that come to a later step.

mod lift;
mod rehearsal;

use std::collections::BTreeMap;
use std::sync::Arc;

pub(super) use self::lift::kind as kind_of_lift;

use self::rehearsal::{Rehearsal, Rehearsed};
use super::explain::{BUSY_HOLD, Standing, after_job, all_of};
use super::held::{Held, Spread};
use super::rails::Rails;
use super::reboot::{WayBack, is_asked, way_back};
use super::stage::{Stage, Staged};
use super::stagger::{Crowd, Crowds};
use super::{Again, Engine};
use crate::event::{WriteError, WriteOp};
use crate::history::{self, Cells};
use crate::mutation::estimate::{Estimate, TimeEstimate};
use crate::mutation::path::{PlanResult, Planner};
use crate::mutation::progress::Phase;
use crate::mutation::report::{Hold, Outcome, Report, ReportStep};
use crate::mutation::{Mutation, MutationId};
use crate::state::{Change, Node, NodeId, NodeName};
use crate::time::Instant;

/// Stands for a node's name in the texts of [`GroupHold`].
pub const NODE_MARK: &str = "{node}";

/// What would be.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct WhatIf {
    /// Revision of the tree that it starts from.
    pub revision: u64,
    /// What the write would change.
    pub changes: Cells,
    /// Names of the nodes that it is about, deleted and added ones too, and of their parents.
    pub names: BTreeMap<NodeId, NodeName>,
    /// Holds that an operator would lift, and who meets them; with nobody if nobody waits there.
    pub lifts: Vec<GroupHold>,
    /// The nodes by what they would do, in the order of the first name of each; n2 comes before n10.
    pub groups: Vec<PlanGroup>,
}

/// Nodes that would do the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanGroup {
    /// Which, by name.
    pub nodes: Vec<NodeName>,
    /// What the first of them would do; its outcome is [`Outcome::Held`] only if all of them are held before the first step, and its holds
    /// are not filled in.
    pub report: Report,
    /// What would keep steps from firing, for some or all of them.
    pub holds: Vec<GroupHold>,
    /// Running mutations that the write would interrupt.
    pub interrupts: Vec<MutationId>,
    /// What each of them would take.
    pub estimate: Estimate,
    /// How long all of them together would take, while the other groups go, too: limits may let them go one after the other.
    pub all: Option<TimeEstimate>,
    /// Nodes with a running job among those whose plan has a disruptive step.
    pub busy: Vec<NodeName>,
}

/// A hold that several nodes meet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupHold {
    /// What, with [`NODE_MARK`] for the node's name.
    pub hold: Hold,
    /// The first step that it keeps from firing; `None`: of what nobody meets, and is not about one mutation.
    pub mutation: Option<MutationId>,
    /// Who meets it.
    pub nodes: Vec<NodeName>,
}

/// All in which the nodes of a group agree, beside the steps.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Manner {
    parked: Option<String>,
    running: Vec<MutationId>,
    interrupts: Vec<MutationId>,
    /// Wanted values that nothing declared leads to.
    out_of_reach: Vec<Change>,
    /// The way back of those that reboot: equal ways off may lead to nodes that are to be different things.
    back: WayBack,
}

/// A group in the making.
struct Making {
    plan: Arc<PlanResult>,
    manner: Manner,
    report: Report,
    /// The path is the one that its nodes will have once their jobs have ended.
    after_job: bool,
    nodes: Vec<NodeName>,
    holds: Vec<Noted>,
    held_at_once: usize,
    busy: Vec<NodeName>,
    crowd: Crowd,
}

impl Engine {
    /// What would follow if `ops` were written: for every node that they touch and for `nodes`.
    ///
    /// # Errors
    /// As the write would be refused.
    pub fn what_if(
        &self,
        ops: &[WriteOp],
        nodes: &[NodeId],
        now: Instant,
    ) -> Result<WhatIf, WriteError> {
        let mut stage = Stage::new(
            &self.tree,
            Arc::clone(&self.schema),
            self.config.me,
            self.revision,
            &self.frozen,
            &self.ledger,
        );
        let (changes, names) = if ops.is_empty() {
            (Cells::new(), BTreeMap::new())
        } else {
            let checked = stage.ops(ops)?;
            let changes = history::cells(&checked.ops, &checked.inverse);
            let parents = history::parents(&changes).into_iter();
            let parents = parents.filter_map(|id| self.tree.get(id));
            let mut names = checked.names;
            names.extend(parents.map(|node| (node.id, node.name.clone())));
            (changes, names)
        };
        let Staged {
            touched, frozen, ..
        } = stage.finish();
        let mut rehearsal = Rehearsal::new(self, &frozen, self.rails.clone(), now);
        rehearsal.write(touched);
        rehearsal.play();
        let touched = rehearsal.staged().keys().copied();
        let about = nodes.iter().copied().chain(touched);
        let about: Vec<NodeId> = about.collect();
        Ok(WhatIf {
            revision: self.revision,
            changes,
            names,
            lifts: Vec::new(),
            groups: Groups::of(&rehearsal, about),
        })
    }

    /// What would follow if these nodes were told to go on.
    pub fn what_if_again(&self, how: Again, nodes: &[NodeId], now: Instant) -> WhatIf {
        let mut rehearsal = Rehearsal::new(self, &self.frozen, self.rails.clone(), now);
        for id in nodes {
            rehearsal.again(*id, how);
        }
        rehearsal.play();
        WhatIf {
            revision: self.revision,
            groups: Groups::of(&rehearsal, nodes.iter().copied()),
            ..WhatIf::default()
        }
    }
}

struct Groups<'r, 'e> {
    rehearsal: &'r Rehearsal<'e>,
    planner: Planner,
    /// The guard rails as nodes would find them that come to a later step, if all came now: each that passes takes its slots there.
    later: Rails,
    making: Vec<Making>,
    /// Where nodes with this very plan and manner go: equal plans of one class are one value, so most nodes need no comparison.
    known: BTreeMap<(*const PlanResult, Manner), usize>,
}

impl<'r, 'e> Groups<'r, 'e> {
    /// The nodes, as far as they would be there, by what they would do.
    fn of(rehearsal: &'r Rehearsal<'e>, nodes: impl IntoIterator<Item = NodeId>) -> Vec<PlanGroup> {
        let mut groups = Self {
            rehearsal,
            planner: Planner::new(Arc::clone(rehearsal.engine.planner.graph())),
            later: rehearsal.rails.clone(),
            making: Vec::new(),
            known: BTreeMap::new(),
        };
        let nodes = nodes.into_iter().filter_map(|id| rehearsal.node(id));
        let order = nodes.map(|node| (as_counted(&node.name), node));
        let order: BTreeMap<Vec<(&str, u64, &str)>, &Node> = order.collect();
        for node in order.into_values() {
            groups.add(node);
        }
        groups.finish()
    }

    fn add(&mut self, node: &Node) {
        let rehearsal = self.rehearsal;
        let rehearsed = rehearsal.rehearsed(node.id);
        let (runtime, progress) = (&rehearsed.runtime, &rehearsed.runtime.progress);
        let currents = progress.currents().iter();
        let running = currents.filter(|current| current.phase != Phase::Intent);
        let manner = Manner {
            parked: progress.parked().map(str::to_owned),
            running: running.map(|current| current.mutation.clone()).collect(),
            interrupts: rehearsed.interrupts.clone(),
            out_of_reach: rehearsal.engine.out_of_reach(node),
            back: self.way_back(node, &runtime.plan),
        };
        let index = self.group_of(node, Arc::clone(&runtime.plan), manner);
        let making = &mut self.making[index];
        making.nodes.push(node.name.clone());
        making.crowd.add(node, &rehearsal.rails.governor);
        if node.is_busy() && making.report.steps.iter().any(|step| step.disruptive) {
            making.busy.push(node.name.clone());
        }
        let mut met = met(rehearsal, &mut self.later, node, &rehearsed, &making.report);
        if making.after_job && met.now.iter().all(|(held, _)| held.hold.kind != BUSY_HOLD) {
            let first = making.report.steps.first();
            let hold = super::explain::job_hold(&node.name);
            let first = first.map(|step| (hold, step.mutation.clone()));
            met.now.extend(first);
        }
        if !met.now.is_empty() && !rehearsed.moves {
            making.held_at_once += 1;
        }
        for (held, mutation) in met.now.into_iter().chain(met.later) {
            note_hold(&mut making.holds, held, &mutation, &node.name);
        }
    }

    /// The way that a busy node without one will have once its job has ended.
    fn after_job(&mut self, node: &Node, plan: &PlanResult) -> Option<Arc<PlanResult>> {
        let planner = &mut self.planner;
        after_job(plan, &node.dsc, &node.cfg, |dsc, cfg| {
            planner.plan(dsc, cfg)
        })
    }

    /// The way back of a node that is to reboot.
    fn way_back(&mut self, node: &Node, plan: &PlanResult) -> WayBack {
        if !is_asked(&node.cfg) {
            return WayBack::default();
        }
        let later = self.after_job(node, plan);
        let (graph, planner) = (self.rehearsal.engine.graph(), &mut self.planner);
        let plan = later.as_deref().unwrap_or(plan);
        way_back(graph, &node.cfg, &node.dsc, plan, |dsc, cfg| {
            planner.plan(dsc, cfg)
        })
    }

    fn group_of(&mut self, node: &Node, plan: Arc<PlanResult>, manner: Manner) -> usize {
        let key = (Arc::as_ptr(&plan), manner);
        if let Some(index) = self.known.get(&key) {
            return *index;
        }
        let alike = |making: &Making| {
            making.manner == key.1
                && making.plan.plan == plan.plan
                && making.plan.suspended == plan.suspended
        };
        let known = self.making.iter().position(alike);
        let index = known.unwrap_or_else(|| {
            let after_job = self.after_job(node, &plan);
            let shown = after_job.as_ref().unwrap_or(&plan);
            let report = self.report(node, shown, &key.1);
            self.making.push(Making {
                after_job: after_job.is_some(),
                plan: Arc::clone(&plan),
                manner: key.1.clone(),
                report,
                nodes: Vec::new(),
                holds: Vec::new(),
                held_at_once: 0,
                busy: Vec::new(),
                crowd: Crowd::default(),
            });
            self.making.len() - 1
        });
        self.known.insert(key, index);
        index
    }

    fn report(&self, node: &Node, plan: &PlanResult, manner: &Manner) -> Report {
        let engine = self.rehearsal.engine;
        let graph = engine.graph();
        let mut report = Report::of_plan(node.id, node.name.clone(), plan, graph, &node.dsc);
        report.lead_with(&manner.running, graph);
        for step in &mut report.steps {
            step.in_flight = manner.running.contains(&step.mutation);
        }
        report.back = ReportStep::of_way(&manner.back.steps, graph);
        report.reason = all_of([manner.back.reason.clone(), report.reason]);
        report.measure(&engine.costs.measured);
        if let Some(parked) = &manner.parked {
            report.outcome = Outcome::Parked;
            report.reason = parked.clone();
        }
        report.note_out_of_reach(manner.out_of_reach.clone(), &node.dsc);
        report
    }

    fn finish(self) -> Vec<PlanGroup> {
        let engine = self.rehearsal.engine;
        let rails = &self.rehearsal.rails;
        let steps = |report: &Report| -> Vec<&'e Mutation> {
            let steps = report.steps.iter().chain(&report.back);
            let steps = steps.filter_map(|step| engine.mutation(&step.mutation));
            steps.collect()
        };
        let mut crowds = Crowds::default();
        for making in &self.making {
            if let Some(one) = making.report.estimate().time {
                let steps = steps(&making.report).into_iter();
                crowds.add(&making.crowd, steps, one.time);
            }
        }
        let groups = self.making.into_iter().map(|making| {
            let mut report = making.report;
            let all_held = making.held_at_once == making.nodes.len();
            if report.outcome == Outcome::Path && all_held {
                report.outcome = Outcome::Held;
            }
            let estimate = report.estimate();
            let all = estimate.time.map(|one| {
                let (steps, governor) = (steps(&report).into_iter(), &rails.governor);
                let time = crowds.takes(&making.crowd, governor, rails, steps, one.time);
                TimeEstimate { time, ..one }
            });
            PlanGroup {
                estimate,
                all,
                nodes: making.nodes,
                report,
                holds: making.holds.into_iter().map(GroupHold::from).collect(),
                interrupts: making.manner.interrupts,
                busy: making.busy,
            }
        });
        groups.collect()
    }
}

/// What keeps a node from firing, and the first mutation that it keeps.
#[derive(Default)]
struct Met {
    /// Its next steps.
    now: Vec<(Held, MutationId)>,
    /// Steps behind them.
    later: Vec<(Held, MutationId)>,
}

/// What a node meets. It passes on its later steps.
fn met(
    rehearsal: &Rehearsal<'_>,
    later: &mut Rails,
    node: &Node,
    rehearsed: &Rehearsed,
    report: &Report,
) -> Met {
    let (engine, now) = (rehearsal.engine, rehearsal.now);
    let (runtime, graph) = (&rehearsed.runtime, engine.graph());
    let end = rehearsal.rails.withheld_end(node, &runtime.plan, graph);
    let holds = |rails: &Rails, mutation: &Mutation| {
        let standing = Standing {
            node,
            confirmed: runtime.confirmed,
            silent_since: runtime.silent_since,
            progress: Some(&runtime.progress),
            staged: Some(rehearsal.staged()),
            frozen: rehearsal.frozen,
            rails,
        };
        engine.holds_of(&standing, mutation, now)
    };
    let is_ours = |step: &ReportStep| {
        let mut currents = runtime.progress.currents().iter();
        currents.any(|current| current.mutation == step.mutation && current.phase != Phase::Awaited)
    };
    let steps = report.steps.iter().filter(|step| !is_ours(step));
    let steps = steps.filter_map(|step| Some((step, graph.mutation(&step.mutation)?)));
    let mut met = Met::default();
    later.governor.leave(node.id);
    for (step, mutation) in steps {
        let is_next = step.after.is_empty();
        let is_end = end.is_some_and(|end| end.id == mutation.id);
        let rails = if is_next || is_end {
            &rehearsal.rails
        } else {
            &*later
        };
        for held in holds(rails, mutation) {
            let mut told = met.now.iter().chain(&met.later);
            if told.all(|(known, _)| known.hold != held.hold) {
                let at = if is_next || is_end && met.now.is_empty() {
                    &mut met.now
                } else {
                    &mut met.later
                };
                at.push((held, mutation.id.clone()));
            }
        }
        let governor = &later.governor;
        if !is_next && governor.refusal(node, mutation, later, now).is_none() {
            later.governor.pass(node, mutation, now);
        }
    }
    met
}

/// A hold with those who meet it, while they are counted.
struct Noted {
    /// With [`NODE_MARK`] and the mark for time.
    hold: Hold,
    spread: Spread,
    mutation: MutationId,
    nodes: Vec<NodeName>,
}

impl From<Noted> for GroupHold {
    fn from(noted: Noted) -> Self {
        Self {
            hold: noted.spread.fill(noted.hold),
            mutation: Some(noted.mutation),
            nodes: noted.nodes,
        }
    }
}

/// Puts a hold with those that differ in time and place at most.
fn note_hold(holds: &mut Vec<Noted>, held: Held, mutation: &MutationId, node: &NodeName) {
    let spread = held.spread();
    let hold = Hold {
        kind: held.hold.kind,
        text: without_name(&held.hold.text, node.as_str()),
        lifted_by: without_name(&held.hold.lifted_by, node.as_str()),
    };
    match holds.iter_mut().find(|known| known.hold == hold) {
        Some(known) => {
            known.spread.widen(spread);
            known.nodes.push(node.clone());
        }
        None => holds.push(Noted {
            hold,
            spread,
            mutation: mutation.clone(),
            nodes: vec![node.clone()],
        }),
    }
}

/// What a name is sorted by as people count: n2 comes before n10.
fn as_counted(name: &NodeName) -> Vec<(&str, u64, &str)> {
    let (mut parts, mut rest) = (Vec::new(), name.as_str());
    while !rest.is_empty() {
        let digits = rest.find(|c: char| c.is_ascii_digit());
        let (text, more) = rest.split_at(digits.unwrap_or(rest.len()));
        let end = more.find(|c: char| !c.is_ascii_digit());
        let (number, more) = more.split_at(end.unwrap_or(more.len()));
        parts.push((text, number.parse().unwrap_or_default(), number));
        rest = more;
    }
    parts
}

/// The text with the mark for the node's name, where that stands as a word.
fn without_name(text: &str, name: &str) -> String {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.' || c == '/';
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(name) {
        let (before, after) = (&rest[..at], &rest[at + name.len()..]);
        let is_word =
            !before.ends_with(is_part) && !after.starts_with(|c: char| is_part(c) && c != '.');
        out.push_str(before);
        out.push_str(if is_word { NODE_MARK } else { name });
        rest = after;
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests;
