//! Reports: what the planner says of a node, and what the engine is doing about it.

use super::Engine;
use super::guard::Guard;
use crate::mutation::progress::{Phase, Progress};
use crate::mutation::report::{Hold, Outcome, Report, ReportFailure, ReportStep};
use crate::mutation::{Mutation, MutationContext, MutationId};
use crate::state::{Node, NodeId};
use crate::time::Instant;

/// A node as holds see it: as it is, or as a write would leave it.
pub(super) struct Standing<'a> {
    pub(super) node: &'a Node,
    pub(super) confirmed: bool,
    pub(super) silent_since: Option<Instant>,
    pub(super) progress: Option<&'a Progress>,
    /// The cluster is frozen.
    pub(super) frozen: bool,
}

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
        } else if let Some(end) = self.withheld_end(id) {
            // What the node is on its way to is not let through yet, so it was not told.
            report.holds = self.holds(id, &end, now);
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
        if super::reboot::is_asked(&node.cfg) {
            let text = format!(
                "a reboot is asked for: off first, then what Cfg says; `krakenctl node unset {} /Reboot` takes it back",
                node.name
            );
            let more = std::mem::take(&mut report.reason);
            let between = if more.is_empty() { "" } else { "; " };
            report.reason = format!("{text}{between}{more}");
        }
        report.waits_for = waits_for(&report);
        self.scrub(&mut report);
        Some(report)
    }

    /// Takes the node's secrets out of everything that is words; values are for the face that shows them to redact, by their urls.
    fn scrub(&self, report: &mut Report) {
        let id = report.node;
        let holds = report.holds.iter_mut().map(|hold| &mut hold.text);
        let failures = report.failures.iter_mut().map(|failure| &mut failure.text);
        let texts = [&mut report.reason, &mut report.waits_for];
        for text in texts.into_iter().chain(holds).chain(failures) {
            *text = self.scrubbed(id, std::mem::take(text));
        }
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
        let standing = Standing {
            node,
            confirmed: runtime.confirmed,
            silent_since: runtime.silent_since,
            progress: Some(&runtime.progress),
            frozen: self.frozen,
        };
        self.holds_of(&standing, declared, now)
    }

    /// What keeps this mutation from firing, on a node that is, or would be, like this.
    pub(super) fn holds_of(
        &self,
        standing: &Standing<'_>,
        declared: &Mutation,
        now: Instant,
    ) -> Vec<Hold> {
        let mut view = self.guard_view();
        (view.frozen, view.now) = (standing.frozen, now);
        let guard = Guard {
            engine: view,
            node: standing.node,
            confirmed: standing.confirmed,
            silent_since: standing.silent_since,
            rails: &self.rails,
            others: self.others_view(),
        };
        let mut holds: Vec<Hold> = guard
            .holds(declared)
            .into_iter()
            .map(|held| held.hold)
            .collect();
        let mutation = &declared.id;
        let until = standing
            .progress
            .and_then(|progress| progress.backs_off_until(mutation, now));
        if let Some(until) = until {
            holds.push(Hold {
                kind: "backoff",
                text: format!(
                    "{mutation} failed and is tried again in {:.0?}",
                    until.since(now)
                ),
                lifted_by: format!("time, or krakenctl node release {}", standing.node.name),
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
