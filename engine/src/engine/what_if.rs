//! What a write would lead to, without making it (DESIGN 3, "Explain"): the plan that every node would follow, nodes with equal plans
//! together, and what would hold them.
//!
//! A pure question: the writes are staged as a real one would be, and the staged nodes are planned by a planner of its own, so nothing of the
//! engine can change. Without operations it tells the present plans. Leaves out what only time tells: discoveries on the way may re-plan.

mod lift;

use std::collections::BTreeMap;
use std::sync::Arc;

pub(super) use self::lift::kind as kind_of_lift;

use super::explain::{Standing, after_job, all_of};
use super::rails::Rails;
use super::reboot::{WayBack, is_asked, way_back};
use super::stage::Stage;
use super::stagger::Crowd;
use super::{Again, Engine, Runtime};
use crate::event::{WriteError, WriteOp};
use crate::history::{self, Cells};
use crate::mutation::estimate::{Estimate, TimeEstimate};
use crate::mutation::path::{PlanResult, Planner};
use crate::mutation::progress::{Action, Phase, View};
use crate::mutation::report::{Hold, Outcome, Report, ReportStep};
use crate::mutation::{Mutation, MutationId};
use crate::state::{Frozen, Node, NodeId, NodeName, Values};
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
    /// The nodes by what they would do, in the order of the first name of each.
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
    /// How long all of them together would take: limits may let them go one after the other.
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
    holds: Vec<GroupHold>,
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
        let staged = stage.finish();
        let mut groups = Groups::new(self, &staged.frozen, &self.rails, now);
        let mut order: BTreeMap<&NodeName, NodeId> = BTreeMap::new();
        let untouched = nodes.iter().filter_map(|node| self.tree.get(*node));
        let untouched = untouched.filter(|node| !staged.touched.contains_key(&node.id));
        for node in untouched.chain(staged.touched.values().flatten()) {
            order.insert(&node.name, node.id);
        }
        for id in order.into_values() {
            match staged.touched.get(&id) {
                Some(Some(node)) => groups.add_written(node),
                Some(None) => {}
                None => groups.add_present(id),
            }
        }
        Ok(WhatIf {
            revision: self.revision,
            changes,
            names,
            lifts: Vec::new(),
            groups: groups.finish(),
        })
    }

    /// What would follow if these nodes were told to go on. What that lifts for others, such as a mass failure, is not told.
    pub fn what_if_again(&self, how: Again, nodes: &[NodeId], now: Instant) -> WhatIf {
        let nodes = nodes.iter().filter_map(|node| self.tree.get(*node));
        let order: BTreeMap<&NodeName, NodeId> = nodes.map(|node| (&node.name, node.id)).collect();
        let mut groups = Groups::new(self, &self.frozen, &self.rails, now);
        for id in order.into_values() {
            groups.add_again(id, how);
        }
        WhatIf {
            revision: self.revision,
            groups: groups.finish(),
            ..WhatIf::default()
        }
    }

    /// Dsc as it is once a new Cfg has counted: without what can no longer be known.
    fn dsc_after_cfg(&self, node: &Node) -> Option<Values> {
        let forgotten = self.forgotten_by_cfg(node);
        if forgotten.is_empty() {
            return None;
        }
        let mut dsc = node.dsc.clone();
        super::discover::apply(self.graph(), &mut dsc, &node.cfg, forgotten);
        Some(dsc)
    }
}

struct Groups<'e> {
    engine: &'e Engine,
    planner: Planner,
    frozen: &'e Frozen,
    rails: &'e Rails,
    now: Instant,
    making: Vec<Making>,
    /// Where nodes with this very plan and manner go: equal plans of one class are one value, so most nodes need no comparison.
    known: BTreeMap<(*const PlanResult, Manner), usize>,
}

impl<'e> Groups<'e> {
    fn new(engine: &'e Engine, frozen: &'e Frozen, rails: &'e Rails, now: Instant) -> Self {
        Self {
            engine,
            planner: Planner::new(Arc::clone(engine.planner.graph())),
            frozen,
            rails,
            now,
            making: Vec::new(),
            known: BTreeMap::new(),
        }
    }

    /// A node that nothing is written to.
    fn add_present(&mut self, id: NodeId) {
        let engine = self.engine;
        if let (Some(node), Some(runtime)) = (engine.tree.get(id), engine.runtimes.get(&id)) {
            let plan = Arc::clone(&runtime.plan);
            self.add(node, &node.dsc, plan, runtime, Vec::new());
        }
    }

    /// A node that is told to go on.
    fn add_again(&mut self, id: NodeId, how: Again) {
        let engine = self.engine;
        let (Some(node), Some(runtime)) = (engine.tree.get(id), engine.runtimes.get(&id)) else {
            return;
        };
        let mut runtime = runtime.clone();
        runtime.again(how);
        if how == Again::Release && !node.last_known.dsc.is_empty() {
            let mut node = node.clone();
            node.last_known.dsc = Values::default();
            self.add_changed(&node, &node.dsc, runtime);
        } else {
            self.add_changed(node, &node.dsc, runtime);
        }
    }

    /// A node as a write would leave it. The write forgets its attempts, and stops what is no longer wanted.
    fn add_written(&mut self, node: &Node) {
        let engine = self.engine;
        let new_dsc = engine.dsc_after_cfg(node);
        let dsc = new_dsc.as_ref().unwrap_or(&node.dsc);
        let mut runtime = engine.runtimes.get(&node.id).cloned().unwrap_or_default();
        runtime.again(Again::Retry);
        self.add_changed(node, dsc, runtime);
    }

    /// A node that would be planned anew, for something of it changes.
    fn add_changed(&mut self, node: &Node, dsc: &Values, mut runtime: Runtime) {
        let engine = self.engine;
        let progress = &mut runtime.progress;
        let under_way = progress.currents().iter().map(|current| &current.mutation);
        let before = runtime.goes_on.then_some(&runtime.plan.goal);
        let plan = self
            .planner
            .plan_on(dsc, &super::reboot::wanted(&node.cfg), under_way, before);
        let own = node.id == engine.config.me;
        let view = View {
            plan: &plan,
            graph: engine.graph(),
            dsc,
            healing: &engine.config.healing,
            now: self.now,
        };
        let ours = |mutation: &Mutation| super::heal::carries_out(own, mutation);
        let actions = progress.advance(&view, ours, |_| false);
        let stopped = actions.into_iter().filter_map(|action| match action {
            Action::Stop(current) if current.phase == Phase::Fired => Some(current.mutation),
            _ => None,
        });
        let stopped: Vec<MutationId> = stopped.collect();
        self.add(node, dsc, plan, &runtime, stopped);
    }

    fn add(
        &mut self,
        node: &Node,
        dsc: &Values,
        plan: Arc<PlanResult>,
        runtime: &Runtime,
        interrupts: Vec<MutationId>,
    ) {
        let (engine, progress) = (self.engine, &runtime.progress);
        let currents = progress.currents().iter();
        let running = currents.filter(|current| current.phase != Phase::Intent);
        let manner = Manner {
            parked: progress.parked().map(str::to_owned),
            running: running.map(|current| current.mutation.clone()).collect(),
            interrupts,
            back: self.way_back(node, dsc, &plan),
        };
        let index = self.group_of(node, dsc, plan, manner);
        let making = &mut self.making[index];
        making.nodes.push(node.name.clone());
        making.crowd.add(node, &engine.rails.governor);
        if node.is_busy() && making.report.steps.iter().any(|step| step.disruptive) {
            making.busy.push(node.name.clone());
        }
        let standing = Standing {
            node,
            confirmed: runtime.confirmed,
            silent_since: runtime.silent_since,
            progress: Some(progress),
            frozen: self.frozen,
            rails: self.rails,
        };
        let steps: Vec<(usize, &Mutation)> = making
            .report
            .steps
            .iter()
            .enumerate()
            .filter(|(_, step)| !step.in_flight)
            .filter_map(|(at, step)| Some((at, engine.mutation(&step.mutation)?)))
            .collect();
        let mut met: Vec<Hold> = Vec::new();
        let first = steps.first().map(|(_, mutation)| *mutation);
        for (at, mutation) in steps {
            for hold in engine.holds_of(&standing, mutation, self.now) {
                if at == 0 && met.is_empty() {
                    making.held_at_once += 1;
                }
                if !met.contains(&hold) {
                    met.push(hold.clone());
                    note_hold(&mut making.holds, hold, &mutation.id, &node.name);
                }
            }
        }
        if let (true, Some(first)) = (making.after_job, first) {
            let hold = super::explain::job_hold(&node.name);
            if met.iter().all(|other| other.kind != hold.kind) {
                note_hold(&mut making.holds, hold, &first.id, &node.name);
            }
        }
    }

    /// The way that a busy node without one will have once its job has ended.
    fn after_job(
        &mut self,
        node: &Node,
        dsc: &Values,
        plan: &PlanResult,
    ) -> Option<Arc<PlanResult>> {
        let planner = &mut self.planner;
        after_job(plan, dsc, &node.cfg, |dsc, cfg| planner.plan(dsc, cfg))
    }

    /// The way back of a node that is to reboot.
    fn way_back(&mut self, node: &Node, dsc: &Values, plan: &PlanResult) -> WayBack {
        if !is_asked(&node.cfg) {
            return WayBack::default();
        }
        let later = self.after_job(node, dsc, plan);
        let (graph, planner) = (self.engine.graph(), &mut self.planner);
        let plan = later.as_deref().unwrap_or(plan);
        way_back(graph, &node.cfg, dsc, plan, |dsc, cfg| {
            planner.plan(dsc, cfg)
        })
    }

    fn group_of(
        &mut self,
        node: &Node,
        dsc: &Values,
        plan: Arc<PlanResult>,
        manner: Manner,
    ) -> usize {
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
            let after_job = self.after_job(node, dsc, &plan);
            let shown = after_job.as_ref().unwrap_or(&plan);
            let report = self.report(node, dsc, shown, &key.1);
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

    fn report(&self, node: &Node, dsc: &Values, plan: &PlanResult, manner: &Manner) -> Report {
        let graph = self.engine.graph();
        let mut report = Report::of_plan(node.id, node.name.clone(), plan, graph, dsc);
        report.lead_with(&manner.running, graph);
        for step in &mut report.steps {
            step.in_flight = manner.running.contains(&step.mutation);
        }
        report.back = ReportStep::of_way(&manner.back.steps, graph);
        report.reason = all_of([manner.back.reason.clone(), report.reason]);
        report.measure(&self.engine.costs.measured);
        if let Some(parked) = &manner.parked {
            report.outcome = Outcome::Parked;
            report.reason = parked.clone();
        }
        report
    }

    fn finish(self) -> Vec<PlanGroup> {
        let engine = self.engine;
        let groups = self.making.into_iter().map(|making| {
            let mut report = making.report;
            let all_held = making.after_job || making.held_at_once == making.nodes.len();
            if report.outcome == Outcome::Path && all_held {
                report.outcome = Outcome::Held;
            }
            let estimate = report.estimate();
            let all = estimate.time.map(|one| {
                let steps = report.steps.iter().chain(&report.back);
                let steps = steps.filter_map(|step| engine.mutation(&step.mutation));
                let (rails, crowd) = (&engine.rails, &making.crowd);
                let time = crowd.takes(&rails.governor, rails, steps, one.time);
                TimeEstimate { time, ..one }
            });
            PlanGroup {
                estimate,
                all,
                nodes: making.nodes,
                report,
                holds: making.holds,
                interrupts: making.manner.interrupts,
                busy: making.busy,
            }
        });
        groups.collect()
    }
}

/// Puts a hold with those of the same words.
fn note_hold(holds: &mut Vec<GroupHold>, hold: Hold, mutation: &MutationId, node: &NodeName) {
    let hold = Hold {
        kind: hold.kind,
        text: without_name(&hold.text, node.as_str()),
        lifted_by: without_name(&hold.lifted_by, node.as_str()),
    };
    match holds.iter_mut().find(|known| known.hold == hold) {
        Some(known) => known.nodes.push(node.clone()),
        None => holds.push(GroupHold {
            hold,
            mutation: Some(mutation.clone()),
            nodes: vec![node.clone()],
        }),
    }
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
