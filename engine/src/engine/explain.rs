//! Reports: what the planner says of a node, and what the engine is doing about it.

use super::Engine;
use super::heal::Guard;
use crate::mutation::progress::{Phase, Progress};
use crate::mutation::report::{Hold, Outcome, Report, ReportFailure, ReportStep};
use crate::mutation::{MutationContext, MutationId};
use crate::state::NodeId;
use crate::time::Instant;

impl Engine {
    /// Why a node is where it is.
    pub fn report(&self, id: NodeId, now: Instant) -> Option<Report> {
        let node = self.tree.get(id)?;
        let runtime = self.runtimes.get(&id)?;
        let progress = &runtime.progress;
        let mut report = Report::of_plan(
            id,
            node.name.clone(),
            &runtime.plan,
            self.graph(),
            &node.dsc,
        );
        self.mark_current(&mut report, progress, now);
        let next = report.steps.first().filter(|step| !step.in_flight);
        if let Some(next) = next.map(|step| step.mutation.clone()) {
            report.holds = self.holds(id, &next, now);
        }
        if let Some(parked) = progress.parked() {
            report.outcome = Outcome::Parked;
            report.reason = parked.into();
        } else if !report.holds.is_empty() {
            report.outcome = Outcome::Held;
        } else if !report.steps.is_empty() {
            report.outcome = Outcome::Path;
        }
        report.failures = progress
            .failures()
            .map(|failure| ReportFailure {
                mutation: failure.mutation.clone(),
                attempt: failure.attempt,
                text: failure.text.clone(),
                age: now.since(failure.at),
            })
            .collect();
        report.waits_for = waits_for(&report);
        Some(report)
    }

    /// Marks the step under way; puts it in front where the plan goes on from its result already.
    fn mark_current(&self, report: &mut Report, progress: &Progress, now: Instant) {
        let Some(current) = progress.current() else {
            return;
        };
        if report
            .steps
            .first()
            .is_none_or(|step| step.mutation != current.mutation)
        {
            let Some(declared) = self.mutation(&current.mutation) else {
                return;
            };
            report.steps.insert(0, ReportStep::new(declared));
        }
        report.current = 0;
        if let Some(step) = report.steps.first_mut() {
            step.in_flight = current.phase != Phase::Intent;
            step.attempt = current.attempt;
            step.elapsed = now.since(current.since);
        }
    }

    fn holds(&self, id: NodeId, mutation: &MutationId, now: Instant) -> Vec<Hold> {
        let (Some(node), Some(runtime), Some(declared)) = (
            self.tree.get(id),
            self.runtimes.get(&id),
            self.mutation(mutation),
        ) else {
            return Vec::new();
        };
        let guard = Guard {
            engine: self.guard_view(),
            node,
            confirmed: runtime.confirmed,
            silent_since: runtime.silent_since,
        };
        let mut holds: Vec<Hold> = guard
            .holds(declared)
            .into_iter()
            .map(|held| held.hold)
            .collect();
        if let Some(until) = runtime.progress.backs_off_until(mutation, now) {
            holds.push(Hold {
                kind: "backoff",
                text: format!(
                    "{mutation} failed and is tried again in {:.0?}",
                    until.since(now)
                ),
                lifted_by: format!("time, or krakenctl node release {}", node.name),
            });
        }
        holds
    }
}

fn waits_for(report: &Report) -> String {
    let Some(step) = report.steps.first() else {
        return String::new();
    };
    let by_node = step.context == MutationContext::SelfNode || step.attempt == 0;
    match report.outcome {
        Outcome::Parked => format!(
            "an operator: krakenctl node release {}, or a change of its Cfg",
            report.name
        ),
        Outcome::Held => report
            .holds
            .first()
            .map(|hold| hold.lifted_by.clone())
            .unwrap_or_default(),
        _ if step.in_flight && by_node => format!("the node itself to carry out {}", step.mutation),
        _ if step.in_flight => format!("the result of {}", step.mutation),
        _ => format!("{} to be logged and fired", step.mutation),
    }
}
