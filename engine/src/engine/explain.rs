//! Reports: what the planner says of a node, and what the engine is doing about it.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::guard::{FROZEN_HOLD, Guard, OTHER_NODES};
use super::heal::carries_out;
use super::held::{Held, TIME_MARK};
use super::others::View;
use super::rails::Rails;
use super::reboot::{is_asked, wanted, way_back};
use super::{Engine, Runtime};
use crate::extension::Field;
use crate::mutation::path::{Plan, PlanResult};
use crate::mutation::progress::{Attempt, Ending, Phase, Progress};
use crate::mutation::report::{Hold, Outcome, Report, ReportAttempt, ReportFailure, ReportStep};
use crate::mutation::{Mutation, MutationContext, MutationId};
use crate::state::{Change, Frozen, Node, NodeId, NodeName, Values, core};
use crate::time::Instant;

/// Kind of the hold of a job.
pub(super) const BUSY_HOLD: &str = "busy";

/// The holds that reach what somebody else carries out.
const HOLDS_OF_OTHERS: [&str; 2] = [FROZEN_HOLD, OTHER_NODES];

/// A node as holds see it: as it is, or as a write would leave it.
pub(super) struct Standing<'a> {
    pub(super) node: &'a Node,
    pub(super) confirmed: bool,
    pub(super) silent_since: Option<Instant>,
    pub(super) progress: Option<&'a Progress>,
    /// Other nodes as a write would leave them.
    pub(super) staged: Option<&'a BTreeMap<NodeId, Option<Node>>>,
    /// What is frozen beyond single nodes.
    pub(super) frozen: &'a Frozen,
    /// The guard rails that look beyond one node.
    pub(super) rails: &'a Rails,
}

impl Engine {
    /// Why a node is where it is.
    pub fn report(&self, id: NodeId, now: Instant) -> Option<Report> {
        let node = self.tree.get(id)?;
        let runtime = self.runtimes.get(&id)?;
        let progress = &runtime.progress;
        let find = |dsc: &Values, cfg: &Values| Arc::new(PlanResult::new(self.graph(), dsc, cfg));
        let after_job = after_job(&runtime.plan, &node.dsc, &node.cfg, find);
        let plan = after_job.as_ref().unwrap_or(&runtime.plan);
        let mut report = Report::of_plan(id, node.name.clone(), plan, self.graph(), &node.dsc);
        self.mark_currents(&mut report, progress, now);
        let back = way_back(self.graph(), &node.cfg, &node.dsc, plan, find);
        report.back = ReportStep::of_way(&back.steps, self.graph());
        report.measure(&self.costs.measured);
        let ready = report.steps.iter();
        // What somebody else carries out may be under way, or held where nobody here sees it.
        let may_be_held = |step: &&ReportStep| !step.in_flight || step.attempt == 0;
        let waiting: Vec<MutationId> = ready
            .filter(|step| step.after.is_empty())
            .filter(may_be_held)
            .map(|step| step.mutation.clone())
            .collect();
        for next in &waiting {
            let holds = self.holds(id, next, now);
            let told = |hold: &Hold| report.holds.contains(hold);
            let new: Vec<Hold> = holds.into_iter().filter(|hold| !told(hold)).collect();
            report.holds.extend(new);
        }
        if after_job.is_some() && report.holds.iter().all(|hold| hold.kind != BUSY_HOLD) {
            report.holds.insert(0, job_hold(&node.name).into_hold());
        }
        let end = self.rails.withheld_end(node, &runtime.plan, self.graph());
        if let (true, Some(end)) = (report.holds.is_empty(), end) {
            // What the node is on its way to is not let through yet, so it was not told.
            report.holds = self.holds(id, &end.id, now);
        }
        if let Some(parked) = progress.parked() {
            report.outcome = Outcome::Parked;
            report.reason = parked.into();
        } else if let (Some(parked), false) = (node.dsc.text(core::PARKED), report.steps.is_empty())
        {
            report.outcome = Outcome::Parked;
            report.reason = format!("the node itself gave up: {parked}");
        } else if !report.holds.is_empty() && !report.steps.iter().any(|step| step.in_flight) {
            report.outcome = Outcome::Held;
        } else if !report.steps.is_empty() {
            report.outcome = Outcome::Path;
        }
        report.history = progress
            .history()
            .map(|attempt| shown(attempt, now))
            .collect();
        let failed = |attempt: &&ReportAttempt| attempt.result == Ending::FAILED;
        report.failures = report
            .history
            .iter()
            .filter(failed)
            .map(|attempt| ReportFailure {
                mutation: attempt.mutation.clone(),
                attempt: attempt.attempt,
                text: attempt.text.clone(),
                age: attempt.age,
            })
            .collect();
        if is_asked(&node.cfg) {
            let text = format!(
                "a reboot is asked for: off first, then what Cfg says; `krakenctl node unset {} /Reboot` takes it back",
                node.name
            );
            let more = std::mem::take(&mut report.reason);
            report.reason = all_of([text, back.reason, more]);
        }
        report.note_out_of_reach(self.out_of_reach(node), &node.dsc);
        report.waits_for = waits_for(&report);
        self.scrub(&mut report);
        Some(report)
    }

    /// Wanted values that the node could show and does not, and that the planner passes over because nothing declared leads to them.
    pub(super) fn out_of_reach(&self, node: &Node) -> Vec<Change> {
        let wanted = node.cfg.iter().filter(|(url, value)| {
            let is_shown = |field: &Field| field.discoverable;
            node.dsc.get(url.as_str()) != Some(*value)
                && self.schema.field(url).is_some_and(is_shown)
                && self.graph().is_out_of_reach(url)
        });
        wanted
            .map(|(url, value)| Change::set(url.clone(), value.clone()))
            .collect()
    }

    /// Whether the node has a way to go and goes it: what holds slots.
    #[cfg(feature = "sim")]
    pub(crate) fn is_on_its_way(&self, id: NodeId) -> bool {
        self.runtimes.get(&id).is_some_and(|runtime| {
            let progress = &runtime.progress;
            let goes = matches!(runtime.plan.plan, Plan::Path(_)) && progress.parked().is_none();
            goes || !progress.currents().is_empty()
        })
    }

    /// Takes the node's secrets out of everything that is words; values are for the face that shows them to redact, by their urls.
    fn scrub(&self, report: &mut Report) {
        let id = report.node;
        let holds = report.holds.iter_mut().map(|hold| &mut hold.text);
        let failures = report.failures.iter_mut().map(|failure| &mut failure.text);
        let history = report.history.iter_mut().map(|attempt| &mut attempt.text);
        let texts = [&mut report.reason, &mut report.waits_for];
        for text in texts
            .into_iter()
            .chain(holds)
            .chain(failures)
            .chain(history)
        {
            *text = self.scrubbed(id, std::mem::take(text));
        }
    }

    /// Marks the steps under way; puts those in front whose result the plan goes on from already.
    fn mark_currents(&self, report: &mut Report, progress: &Progress, now: Instant) {
        let currents = progress.currents().iter();
        let under_way: Vec<MutationId> = currents.map(|current| current.mutation.clone()).collect();
        report.lead_with(&under_way, self.graph());
        for step in &mut report.steps {
            let mut currents = progress.currents().iter();
            if let Some(current) = currents.find(|current| current.mutation == step.mutation) {
                step.in_flight = current.phase != Phase::Intent;
                step.attempt = current.attempt;
                step.elapsed = now.since(current.since);
            }
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
        let standing = self.standing(node, runtime);
        let holds = self.holds_of(&standing, declared, now).into_iter();
        holds.map(Held::into_hold).collect()
    }

    /// How a node stands that is as it is in the tree.
    pub(super) fn standing<'a>(&'a self, node: &'a Node, runtime: &'a Runtime) -> Standing<'a> {
        Standing {
            node,
            confirmed: runtime.confirmed,
            silent_since: runtime.silent_since,
            progress: Some(&runtime.progress),
            staged: None,
            frozen: &self.frozen,
            rails: &self.rails,
        }
    }

    /// What keeps this mutation from firing, on a node that is, or would be, like this.
    pub(super) fn holds_of(
        &self,
        standing: &Standing<'_>,
        declared: &Mutation,
        now: Instant,
    ) -> Vec<Held> {
        let guard = Guard {
            engine: self.guard_view().at(now),
            node: standing.node,
            confirmed: standing.confirmed,
            silent_since: standing.silent_since,
            rails: standing.rails,
            others: View {
                staged: standing.staged,
                ..self.others_view()
            },
            frozen: standing.frozen,
        };
        let mut holds = guard.holds(declared);
        let mutation = &declared.id;
        let until = standing
            .progress
            .and_then(|progress| progress.backs_off_until(mutation, now));
        if let Some(until) = until {
            let text = format!("{mutation} failed and is tried again in {TIME_MARK}");
            let lift = format!("time, or krakenctl node retry {}", standing.node.name);
            holds.push(Held::new("backoff", text, lift).left(until.since(now)));
        }
        if !carries_out(standing.node.id == self.config.me, declared) {
            holds.retain(|held| HOLDS_OF_OTHERS.contains(&held.hold.kind));
        }
        holds
    }
}

/// The way that a busy node without one will have once its job has ended. `find` plans.
pub(crate) fn after_job(
    plan: &PlanResult,
    dsc: &Values,
    cfg: &Values,
    find: impl FnOnce(&Values, &Values) -> Arc<PlanResult>,
) -> Option<Arc<PlanResult>> {
    if !matches!(plan.plan, Plan::NoPath(_)) || dsc.text(core::BUSY) != Some(core::BUSY_BUSY) {
        return None;
    }
    let mut free = dsc.clone();
    free.set(core::BUSY.parse().ok()?, None);
    let later = find(&free, &wanted(cfg));
    matches!(later.plan, Plan::Path(_)).then_some(later)
}

/// What there is of these texts, in one.
pub(super) fn all_of<const N: usize>(texts: [String; N]) -> String {
    let texts: Vec<String> = texts.into_iter().filter(|text| !text.is_empty()).collect();
    texts.join("; ")
}

fn shown(attempt: &Attempt, now: Instant) -> ReportAttempt {
    ReportAttempt {
        mutation: attempt.mutation.clone(),
        attempt: attempt.attempt,
        result: attempt.ending.as_str(),
        text: match &attempt.ending {
            Ending::Failed(text) => text.to_string(),
            Ending::Done | Ending::Interrupted => String::new(),
        },
        age: now.since(attempt.ended),
        took: attempt.took(),
    }
}

/// What keeps a busy node from taking a path on which a job forbids a step.
pub(super) fn job_hold(name: &NodeName) -> Held {
    let text = format!("node {name} is BUSY: a job runs on it");
    Held::new(BUSY_HOLD, text, "the end of the job")
}

fn waits_for(report: &Report) -> String {
    let in_flight = || report.steps.iter().filter(|step| step.in_flight);
    let Some(step) = in_flight().next().or(report.steps.first()) else {
        return String::new();
    };
    let by_node = step.context == MutationContext::SelfNode || step.attempt == 0;
    match report.outcome {
        Outcome::Parked => format!(
            "an operator: krakenctl node retry {}, or a change of its Cfg",
            report.name
        ),
        Outcome::Held => report
            .holds
            .first()
            .map(|hold| hold.lifted_by.clone())
            .unwrap_or_default(),
        _ if step.in_flight => {
            let beside = match in_flight().count() - 1 {
                0 => String::new(),
                more => format!(", and {more} more beside it"),
            };
            match by_node {
                true => format!("the node itself to carry out {}{beside}", step.mutation),
                false => format!("the result of {}{beside}", step.mutation),
            }
        }
        _ => format!("{} to be logged and fired", step.mutation),
    }
}
