//! Why a node is where it is (report.proto).

use std::time::Duration;

use proto::v1;

use super::mutation::{context_to_proto, url_change_to_proto};
use super::state::changes_to_proto;
use crate::mutation::estimate::{Estimate, TimeEstimate};
use crate::mutation::report::{Outcome, Report, ReportAttempt, ReportStep};

/// A report as a message.
pub fn report_to_proto(report: &Report) -> v1::Report {
    let outcome = match report.outcome {
        Outcome::Converged => v1::Outcome::Converged,
        Outcome::Path => v1::Outcome::Path,
        Outcome::NoPath => v1::Outcome::NoPath,
        Outcome::Held => v1::Outcome::Held,
        Outcome::Parked => v1::Outcome::Parked,
    };
    let holds = report.holds.iter().map(|hold| v1::Hold {
        kind: hold.kind.to_owned(),
        text: hold.text.clone(),
        lifted_by: hold.lifted_by.clone(),
    });
    let failures = report.failures.iter().map(|failure| v1::Failure {
        mutation: failure.mutation.to_string(),
        attempt: attempt(failure.attempt),
        text: failure.text.clone(),
        age_ms: millis(failure.age),
    });
    v1::Report {
        node_id: report.node.as_bytes().to_vec(),
        node_name: report.name.to_string(),
        outcome: outcome.into(),
        desired: changes_to_proto(&report.desired),
        known: changes_to_proto(&report.known),
        steps: report.steps.iter().map(step_to_proto).collect(),
        current: u32::try_from(report.current).unwrap_or(u32::MAX),
        waits_for: report.waits_for.clone(),
        holds: holds.collect(),
        failures: failures.collect(),
        reason: report.reason.clone(),
        history: report.history.iter().map(attempt_to_proto).collect(),
        estimate: Some(estimate_to_proto(&report.estimate())),
        back: report.back.iter().map(step_to_proto).collect(),
        trials: Vec::new(),
    }
}

fn step_to_proto(step: &ReportStep) -> v1::ReportStep {
    v1::ReportStep {
        mutation: step.mutation.to_string(),
        context: context_to_proto(step.context).into(),
        disruptive: step.disruptive,
        in_flight: step.in_flight,
        attempt: attempt(step.attempt),
        elapsed_ms: millis(step.elapsed),
        timeout_ms: step.timeout.map_or(0, millis),
        changes: step.changes.iter().map(url_change_to_proto).collect(),
        after: indices(&step.after),
        typical_ms: step.typical.map(millis),
    }
}

/// An attempt that has ended, as a message.
pub fn attempt_to_proto(ended: &ReportAttempt) -> v1::Attempt {
    v1::Attempt {
        mutation: ended.mutation.to_string(),
        attempt: attempt(ended.attempt),
        result: ended.result.to_owned(),
        text: ended.text.clone(),
        age_ms: millis(ended.age),
        took_ms: millis(ended.took),
    }
}

/// What a path takes, as a message.
pub fn estimate_to_proto(estimate: &Estimate) -> v1::PathEstimate {
    v1::PathEstimate {
        time: estimate.time.as_ref().map(time_estimate_to_proto),
        power_offs: count(estimate.power_offs),
        power_ons: count(estimate.power_ons),
        text: estimate.to_string(),
    }
}

/// How long something takes, as a message.
pub fn time_estimate_to_proto(time: &TimeEstimate) -> v1::TimeEstimate {
    v1::TimeEstimate {
        basis: time.basis.as_str().to_owned(),
        ms: millis(time.time),
        measured_steps: count(time.measured),
        steps: count(time.steps),
        text: time.to_string(),
    }
}

fn count(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// Places in a list, as a message has them.
pub fn indices(places: &[usize]) -> Vec<u32> {
    let small = places.iter().map(|place| u32::try_from(*place));
    small.map(|place| place.unwrap_or(u32::MAX)).collect()
}

/// The schema has 32 bits for it; four thousand million firings of one head fit.
fn attempt(attempt: u64) -> u32 {
    u32::try_from(attempt).unwrap_or(u32::MAX)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
