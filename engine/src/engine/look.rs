//! What follows for one node from how it stands: which steps may start, and where it waits.
//!
//! [`heal`](super::heal) carries it out; [`what_if`](super::what_if) does the same to copies, so that a dry run meets the holds that the write will.

use super::governor::Gate;
use super::guard::{Guard, OTHER_NODES};
use super::heal::carries_out;
use super::held::waits_at;
use super::permits::Asked;
use super::{Runtime, reboot};
use crate::mutation::path::{Plan, Planner};
use crate::mutation::progress::{Action, Phase, View};
use crate::state::{Node, core};
use crate::time::Instant;

/// What follows.
pub(super) struct Look {
    /// What is to be done.
    pub(super) actions: Vec<Action>,
    /// What it asks of its head.
    pub(super) asked: Asked,
    /// Where it waits.
    pub(super) gate: Option<Gate>,
    /// Why it waits.
    pub(super) kinds: Vec<&'static str>,
    /// When to look at it again, if nothing happens before.
    pub(super) wake: Option<Instant>,
    /// It is not on its way: it needs no slot.
    pub(super) settled: bool,
    /// It is to reboot, and was off.
    pub(super) was_off: bool,
}

impl Runtime {
    /// Plans the node, which has changed.
    pub(super) fn plan_anew(&mut self, planner: &mut Planner, node: &Node) {
        let currents = self.progress.currents().iter();
        let under_way = currents.map(|current| &current.mutation);
        let before = self.goes_on.then_some(&self.plan.goal);
        let plan = planner.plan_on(&node.dsc, &reboot::wanted(&node.cfg), under_way, before);
        self.goes_on = before.is_some_and(|goal| plan.goal == *goal);
        self.plan = plan;
    }
}

impl Guard<'_> {
    /// Looks at the node, whose plan is new. `own`: it is the one that this engine runs on.
    pub(super) fn look(&self, runtime: &mut Runtime, own: bool) -> Look {
        let Runtime { progress, plan, .. } = runtime;
        let (now, healing) = (self.engine.now, self.engine.healing());
        let (mut wake, mut gate, mut kinds) = (None, None, Vec::new());
        let actions = progress.advance(
            &View {
                plan,
                graph: self.others.graph,
                dsc: &self.node.dsc,
                healing,
                now,
            },
            |mutation| carries_out(own, mutation),
            |mutation| {
                let held = self.holds(mutation);
                wake = held.iter().filter_map(|held| held.until).chain(wake).min();
                if gate.is_none() {
                    gate = waits_at(&held);
                } else if waits_at(&held).is_some() {
                    // It stands at one gate only; the other one is looked at again in a while.
                    wake = wake.into_iter().chain([now + healing.backoff]).min();
                }
                kinds.extend(held.iter().map(|held| held.hold.kind));
                held.is_empty()
            },
        );
        let mut currents = progress.currents().iter();
        runtime.goes_on &= currents.any(|current| current.phase == Phase::Fired);
        let asked = self.asked(plan, own);
        for waits_at in asked.waits.values() {
            kinds.push(OTHER_NODES);
            if gate.is_none() {
                gate = Some(waits_at.clone());
            } else if gate.as_ref() != Some(waits_at) {
                wake = wake.into_iter().chain([now + healing.backoff]).min();
            }
        }
        if plan
            .ready()
            .any(|ready| progress.backs_off_until(ready, now).is_some())
        {
            kinds.push("backoff");
        }
        let on_its_way = matches!(plan.plan, Plan::Path(_)) && progress.parked().is_none();
        let reboots = reboot::is_asked(&self.node.cfg);
        let was_off = reboots && self.node.dsc.text(core::PHYS_STATE) == Some(core::POWER_OFF);
        let settled = !on_its_way && progress.currents().is_empty() && !was_off;
        let due = progress.next_timeout(plan, healing, now);
        Look {
            wake: wake.into_iter().chain(due).min(),
            actions,
            asked,
            gate,
            kinds,
            settled,
            was_off,
        }
    }
}
