//! A reboot, asked for by `/Reboot` in a node's Cfg: it is to be off, and as soon as it was, its Cfg counts again.
//!
//! ```text
//!  Cfg /Reboot=true      Dsc /PhysState=POWER_OFF        written: /Reboot unset
//!        │                        │                               │
//!        ▼                        ▼                               ▼
//!   goal: POWER_OFF ── drain ── off; the head writes ── goal: what Cfg says ── on, boot
//! ```
//!
//! So a reboot is a path like any other, with its drain, holds and limits, survives a restart of the head, and never happens twice: the power
//! comes on only after the wish is durably gone. Agents see a Cfg that asks for `POWER_OFF`, and see it only when the governor has let them through:
//! a node that drains is lost to its users already.

use std::borrow::Cow;
use std::sync::Arc;

use super::Engine;
use super::commit::OWN_REQUEST;
use super::discover;
use super::governor::Gate;
use super::rails::Rails;
use crate::event::{Write, WriteOp};
use crate::mutation::graph::MutationGraph;
use crate::mutation::path::{Plan, PlanResult};
use crate::mutation::{Mutation, MutationId};
use crate::state::{Change, Node, NodeId, StateUrl, Value, Values, core};
use crate::time::Instant;

/// Asks for a reboot.
pub(super) const REBOOT: &str = "/Reboot";

/// Whether this Cfg asks for a reboot.
pub(super) fn is_asked(cfg: &Values) -> bool {
    cfg.get(REBOOT) == Some(&Value::Bool(true))
}

/// What a node is to be right now.
pub(super) fn wanted(cfg: &Values) -> Cow<'_, Values> {
    match is_asked(cfg).then(|| core::PHYS_STATE.parse::<StateUrl>()) {
        Some(Ok(url)) => {
            let mut wanted = cfg.clone();
            wanted.set(url, Some(core::POWER_OFF.into()));
            Cow::Owned(wanted)
        }
        _ => Cow::Borrowed(cfg),
    }
}

/// What becomes of a node once it was off for its reboot.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct WayBack {
    pub(super) steps: Vec<MutationId>,
    /// Why it does not come back; empty if it does, and of nodes that are not to reboot.
    pub(super) reason: String,
}

/// The way back of a node that `plan` leads off for its reboot, to where its Cfg wants it then. `find` plans.
///
/// Nothing for a node that is not to reboot, or cannot be led off.
pub(super) fn way_back(
    graph: &MutationGraph,
    cfg: &Values,
    dsc: &Values,
    plan: &PlanResult,
    find: impl FnOnce(&Values, &Values) -> Arc<PlanResult>,
) -> WayBack {
    let (true, Ok(url)) = (is_asked(cfg), REBOOT.parse::<StateUrl>()) else {
        return WayBack::default();
    };
    if matches!(plan.plan, Plan::NoPath(_)) {
        return WayBack::default();
    }
    let (off, mut dsc, mut cfg) = (wanted(cfg), dsc.clone(), cfg.clone());
    for step in plan.plan.steps().iter().filter_map(|id| graph.mutation(id)) {
        let changes = step.mutates.iter().map(|change| Change {
            url: change.url.clone(),
            value: change.to.clone(),
        });
        discover::apply(graph, &mut dsc, &off, changes.collect());
    }
    cfg.set(url, None);
    let back = find(&dsc, &cfg);
    let reason = match &back.plan {
        Plan::Path(_) => String::new(),
        Plan::Converged => "it stays off then: its Cfg asks for nothing else".to_owned(),
        Plan::NoPath(none) => format!("it stays off then, for there is no way back: {none}"),
    };
    WayBack {
        steps: back.plan.steps().to_vec(),
        reason,
    }
}

impl Rails {
    /// The disruptive mutation at whose end a node would drain itself, if the governor has not let it through: the node is not told to.
    ///
    /// A node that drains has stopped its image long before its power is cut, so it needs its slot before that.
    pub(super) fn withheld_end<'g>(
        &self,
        node: &Node,
        plan: &PlanResult,
        graph: &'g MutationGraph,
    ) -> Option<&'g Mutation> {
        let end = graph.mutation(plan.end_of_drain()?)?;
        (!self.governor.has_passed(node, end)).then_some(end)
    }

    /// Lets a node through for its drain, or lets it wait where it waited before; whether it may begin just now.
    pub(super) fn let_drain(
        &mut self,
        node: &Node,
        plan: &PlanResult,
        graph: &MutationGraph,
        waited: Option<(Gate, Instant)>,
        now: Instant,
    ) -> bool {
        let Some(end) = self.withheld_end(node, plan, graph) else {
            return false;
        };
        if let Some((gate, _)) = self.governor.refusal(node, end, self, now) {
            self.wait(gate, node, waited.as_ref(), now);
            self.note_held(node.id, vec!["governor"]);
            return false;
        }
        self.governor.pass(node, end, now);
        self.governor.fired(node.id, &end.id);
        true
    }
}

impl Engine {
    /// Lets a node begin its drain, or lets it wait for its slot at the gate where it waited before.
    pub(super) fn let_drain(&mut self, id: NodeId, waited: Option<(Gate, Instant)>) {
        let (Some(node), Some(runtime)) = (self.tree.get(id), self.runtimes.get(&id)) else {
            return;
        };
        let graph = self.planner.graph();
        if self
            .rails
            .let_drain(node, &runtime.plan, graph, waited, self.now)
        {
            self.push_cfg(id);
        }
    }

    /// A child's Cfg: without the wish to be off that the governor has not let through, with what it may do though it waits for others.
    pub(super) fn told(&self, node: &Node) -> Values {
        let mut told = wanted(&node.cfg).into_owned();
        let is_withheld =
            told.text(core::PHYS_STATE) == Some(core::POWER_OFF) && self.governs_power_off(node);
        if let (true, Ok(url)) = (is_withheld, core::PHYS_STATE.parse()) {
            told.set(url, None);
        }
        if let Ok(url) = REBOOT.parse() {
            // A node would take it for a wish to be off, whatever the governor says.
            told.set(url, None);
        }
        self.rails.permits.add_to(node.id, &mut told);
        told
    }

    /// Whether a slot that `node` does not hold stands between it and every way to be switched off.
    fn governs_power_off(&self, node: &Node) -> bool {
        let all = self.graph().set().mutations.iter();
        let mut ways = all
            .filter(|way| way.disruptive && way.switches_off())
            .peekable();
        ways.peek().is_some() && ways.all(|way| !self.rails.governor.has_passed(node, way))
    }

    /// The node was off: the wish is fulfilled. Written again after a while if the store could not.
    pub(super) fn rebooted(&mut self, id: NodeId) {
        let again = self.now + self.config.healing.backoff;
        self.look_again(id, Some(again));
        if self.rebooted.get(&id).is_some_and(|at| *at > self.now) {
            return;
        }
        let Ok(url) = REBOOT.parse::<StateUrl>() else {
            return;
        };
        self.rebooted.insert(id, again);
        self.commits.queue_write(Write {
            request: OWN_REQUEST,
            author: "kraken-head".into(),
            reason: "the node was switched off for its reboot".into(),
            if_revision: 0,
            key: None,
            now_ms: self.wall_ms,
            ops: vec![WriteOp::Set {
                node: id,
                changes: vec![Change::unset(url)],
            }],
        });
    }
}
