//! A [`Report`](v1::Report) as people and programs read it: why a node is where it is, and what would move it (DESIGN 3, "Explain").
//!
//! Nothing is decided here: the head made the report, and the dashboard shows the same one.

use std::fmt::Write;
use std::time::Duration;

use proto::v1;
use proto::v1::{MutationContext, Outcome};
use serde::Serialize;

use crate::output::{Cell, Paint, Table, Tone, printable};
use crate::value::{self, JsonValues, Shown};
use crate::view;

/// Attempts on a page; programs get all that the head knows.
const MAX_ATTEMPTS: usize = 6;

/// A report for JSON and YAML. Field names are an interface.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub(crate) struct ReportView {
    pub(crate) node: String,
    pub(crate) id: Option<String>,
    /// "converged", "path", "no_path", "held", "parked".
    pub(crate) outcome: &'static str,
    pub(crate) desired: JsonValues,
    pub(crate) known: JsonValues,
    pub(crate) steps: Vec<StepView>,
    /// The way back of a node that is to reboot.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) back: Vec<StepView>,
    pub(crate) current: u32,
    /// How long the rest takes; null: there is nothing to do.
    pub(crate) time: Option<TimeView>,
    pub(crate) waits_for: String,
    pub(crate) holds: Vec<HoldView>,
    pub(crate) failures: Vec<FailureView>,
    /// The latest attempts, oldest first.
    pub(crate) history: Vec<AttemptView>,
    pub(crate) reason: String,
}

#[derive(Clone, PartialEq, Debug, Serialize)]
pub(crate) struct StepView {
    mutation: String,
    /// "self", "child", "all".
    context: &'static str,
    disruptive: bool,
    in_flight: bool,
    attempt: u32,
    elapsed_ms: u64,
    timeout_ms: u64,
    changes: Vec<ChangeView>,
    /// Indices of the steps that must be done before.
    after: Vec<u32>,
    /// How long it usually takes; null: never measured.
    typical_ms: Option<u64>,
}

/// How long something takes.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub(crate) struct TimeView {
    /// "measured", "at_most", "partly", "unknown".
    basis: String,
    ms: u64,
    measured_steps: u32,
    steps: u32,
}

impl TimeView {
    pub(crate) fn new(time: &v1::TimeEstimate) -> Self {
        Self {
            basis: time.basis.clone(),
            ms: time.ms,
            measured_steps: time.measured_steps,
            steps: time.steps,
        }
    }
}

#[derive(Clone, PartialEq, Debug, Serialize)]
pub(crate) struct ChangeView {
    pub(crate) url: String,
    /// Any of these; null: unknown.
    pub(crate) from: Vec<serde_json::Value>,
    pub(crate) to: serde_json::Value,
}

#[derive(Clone, PartialEq, Debug, Serialize)]
pub(crate) struct HoldView {
    kind: String,
    text: String,
    lifted_by: String,
}

#[derive(Clone, PartialEq, Debug, Serialize)]
pub(crate) struct FailureView {
    mutation: String,
    attempt: u32,
    text: String,
    age_ms: u64,
}

#[derive(Clone, PartialEq, Debug, Serialize)]
pub(crate) struct AttemptView {
    mutation: String,
    attempt: u32,
    /// "done", "failed", "interrupted".
    result: String,
    text: String,
    age_ms: u64,
    took_ms: u64,
}

impl ReportView {
    pub(crate) fn new(report: &v1::Report, shown: &Shown) -> Self {
        Self {
            node: report.node_name.clone(),
            id: view::id_text(&report.node_id),
            outcome: outcome_word(report.outcome()),
            desired: shown.json_values(&report.desired),
            known: shown.json_values(&report.known),
            steps: report
                .steps
                .iter()
                .map(|step| step_view(step, shown))
                .collect(),
            back: report
                .back
                .iter()
                .map(|step| step_view(step, shown))
                .collect(),
            current: report.current,
            time: report
                .estimate
                .as_ref()
                .and_then(|estimate| estimate.time.as_ref().map(TimeView::new)),
            waits_for: report.waits_for.clone(),
            holds: report
                .holds
                .iter()
                .map(|hold| HoldView {
                    kind: hold.kind.clone(),
                    text: hold.text.clone(),
                    lifted_by: hold.lifted_by.clone(),
                })
                .collect(),
            failures: report
                .failures
                .iter()
                .map(|failure| FailureView {
                    mutation: failure.mutation.clone(),
                    attempt: failure.attempt,
                    text: failure.text.clone(),
                    age_ms: failure.age_ms,
                })
                .collect(),
            history: report.history.iter().map(attempt_view).collect(),
            reason: report.reason.clone(),
        }
    }
}

fn attempt_view(attempt: &v1::Attempt) -> AttemptView {
    AttemptView {
        mutation: attempt.mutation.clone(),
        attempt: attempt.attempt,
        result: attempt.result.clone(),
        text: attempt.text.clone(),
        age_ms: attempt.age_ms,
        took_ms: attempt.took_ms,
    }
}

/// One step, for programs.
pub(crate) fn step_view(step: &v1::ReportStep, shown: &Shown) -> StepView {
    StepView {
        mutation: step.mutation.clone(),
        context: context_word(step.context()),
        disruptive: step.disruptive,
        in_flight: step.in_flight,
        attempt: step.attempt,
        elapsed_ms: step.elapsed_ms,
        timeout_ms: step.timeout_ms,
        changes: step
            .changes
            .iter()
            .map(|change| change_view(change, shown))
            .collect(),
        after: step.after.clone(),
        typical_ms: step.typical_ms,
    }
}

/// One change of a mutation, for programs.
pub(crate) fn change_view(change: &v1::UrlChange, shown: &Shown) -> ChangeView {
    let json = |value: &v1::OptionalValue| {
        let value = value.value.as_ref();
        value.map_or(serde_json::Value::Null, |value| {
            shown.json(&change.url, value)
        })
    };
    ChangeView {
        url: change.url.clone(),
        from: change.from.iter().map(json).collect(),
        to: change.to.as_ref().map_or(serde_json::Value::Null, json),
    }
}

pub(crate) fn outcome_word(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Unspecified => "unspecified",
        Outcome::Converged => "converged",
        Outcome::Path => "path",
        Outcome::NoPath => "no_path",
        Outcome::Held => "held",
        Outcome::Parked => "parked",
    }
}

pub(crate) fn context_word(context: MutationContext) -> &'static str {
    match context {
        MutationContext::Unspecified => "unspecified",
        MutationContext::Self_ => "self",
        MutationContext::Child => "child",
        MutationContext::All => "all",
    }
}

fn carried_out_by(context: MutationContext) -> &'static str {
    match context {
        MutationContext::Unspecified => "",
        MutationContext::Self_ => "the node",
        MutationContext::Child => "its parent",
        MutationContext::All => "both",
    }
}

/// The report as a page of text, ending in a newline.
pub(crate) fn render(report: &v1::Report, shown: &Shown, paint: Paint) -> String {
    let mut out = String::new();
    let (headline, tone) = headline(report);
    let name = paint.text(&printable(&report.node_name), Tone::Bold);
    line(
        &mut out,
        &format!("{name}  {}", paint.text(&headline, tone)),
    );
    let values = values_table(report, shown);
    if !values.is_empty() {
        out.push('\n');
        indent(&mut out, &values.render(false, paint));
    }
    if !report.steps.is_empty() {
        line(&mut out, "\nPath");
        indent(&mut out, &steps_table(report, shown).render(false, paint));
    }
    if !report.back.is_empty() {
        line(&mut out, &format!("\nThen back  {}", way(&report.back)));
    }
    if let Some(estimate) = &report.estimate
        && !estimate.text.is_empty()
    {
        line(
            &mut out,
            &format!("\nTakes      {}", printable(&estimate.text)),
        );
    }
    // What lifts the only hold is told with the hold.
    let told_below = matches!(&report.holds[..], [hold] if hold.lifted_by == report.waits_for);
    if !report.waits_for.is_empty() && !told_below {
        line(
            &mut out,
            &format!("\nWaits for  {}", printable(&report.waits_for)),
        );
    }
    if !report.reason.is_empty() {
        line(
            &mut out,
            &format!("\nReason     {}", printable(&report.reason)),
        );
    }
    let now = view::now_ms();
    for trial in &report.trials {
        let text = view::trial(trial, now);
        line(
            &mut out,
            &format!("\nOn trial   {}", paint.text(&text, Tone::Warn)),
        );
    }
    if !report.holds.is_empty() {
        line(&mut out, "\nHeld by");
        for hold in &report.holds {
            let kind = paint.text(&format!("{:<12}", printable(&hold.kind)), Tone::Warn);
            line(&mut out, &format!("  {kind} {}", printable(&hold.text)));
            if !hold.lifted_by.is_empty() {
                line(
                    &mut out,
                    &format!("  {:<12} lifted by: {}", "", printable(&hold.lifted_by)),
                );
            }
        }
    }
    attempts(&mut out, report);
    if report.outcome() == Outcome::Parked {
        let name = printable(&report.node_name);
        line(
            &mut out,
            &format!("\nTo try again: krakenctl node retry {name}  (or release, which lifts more)"),
        );
    }
    out
}

/// Mutations in one line, as they follow on each other.
pub(crate) fn way(steps: &[v1::ReportStep]) -> String {
    let names: Vec<&str> = steps.iter().map(|step| step.mutation.as_str()).collect();
    printable(&names.join(", "))
}

/// The latest attempts; of those that a head without a history tells of, the failures.
fn attempts(out: &mut String, report: &v1::Report) {
    let entry = |out: &mut String, age_ms: u64, what: &str| {
        let age = value::duration(Duration::from_secs(age_ms / 1000));
        line(out, &format!("  {:<12} {}", age + " ago", printable(what)));
    };
    if report.history.is_empty() && !report.failures.is_empty() {
        line(out, "\nFailures");
        for failure in &report.failures {
            let (mutation, attempt) = (&failure.mutation, failure.attempt);
            let what = format!("{mutation} (#{attempt}): {}", failure.text);
            entry(out, failure.age_ms, &what);
        }
        return;
    }
    let older = report.history.len().saturating_sub(MAX_ATTEMPTS);
    if report.history.is_empty() {
        return;
    }
    line(
        out,
        match older {
            0 => "\nAttempts",
            _ => "\nLatest attempts (all of them: -o json)",
        },
    );
    for attempt in report.history.iter().skip(older) {
        let took = value::duration(Duration::from_millis(attempt.took_ms));
        let number = match attempt.attempt {
            0 => String::new(),
            number => format!(" (#{number})"),
        };
        let mut what = format!(
            "{}{number} {} after {took}",
            attempt.mutation, attempt.result
        );
        if !attempt.text.is_empty() {
            let _ = write!(what, ": {}", attempt.text);
        }
        entry(out, attempt.age_ms, &what);
    }
}

fn headline(report: &v1::Report) -> (String, Tone) {
    let steps = report.steps.len();
    let current = report.current as usize;
    match report.outcome() {
        Outcome::Converged if !report.back.is_empty() => (
            "off for its reboot: it goes back from here".to_owned(),
            Tone::Warn,
        ),
        Outcome::Converged if !report.holds.is_empty() => {
            ("converged, but not all is well".to_owned(), Tone::Warn)
        }
        Outcome::Converged => ("converged: it is what it should be".to_owned(), Tone::Good),
        Outcome::Path if current < steps => (
            format!("on its way: step {} of {steps}", current + 1),
            Tone::Warn,
        ),
        Outcome::Path => ("on its way: all steps are done".to_owned(), Tone::Warn),
        Outcome::NoPath => (
            "no path: nothing that is known leads there".to_owned(),
            Tone::Bad,
        ),
        Outcome::Held if current < steps => (
            format!("held before step {} of {steps}", current + 1),
            Tone::Warn,
        ),
        Outcome::Held => ("held".to_owned(), Tone::Warn),
        Outcome::Parked => ("parked: its attempts are used up".to_owned(), Tone::Bad),
        Outcome::Unspecified => (
            "this head's answer is newer than this krakenctl".to_owned(),
            Tone::Plain,
        ),
    }
}

/// Wanted beside known, for all urls of either.
fn values_table(report: &v1::Report, shown: &Shown) -> Table {
    let mut table = Table::new(["URL", "WANTED", "KNOWN", ""]);
    let mut urls: Vec<&str> = report
        .desired
        .iter()
        .chain(&report.known)
        .map(|change| change.url.as_str())
        .collect();
    urls.sort_unstable();
    urls.dedup();
    for url in urls {
        let wanted = view::get(&report.desired, url);
        let known = view::get(&report.known, url);
        let (word, tone) = match (wanted, known) {
            (None, _) => (" ", Tone::Plain),
            (Some(_), None) => ("not yet", Tone::Warn),
            (wanted, known) if wanted == known => ("ok", Tone::Good),
            _ => ("differs", Tone::Warn),
        };
        table.row(vec![
            url.into(),
            shown.text(url, wanted).into(),
            match known {
                None => Cell::new("unknown", Tone::Dim),
                Some(_) => {
                    let text = shown.text(url, known);
                    let tone = view::tone(&text);
                    Cell::new(text, tone)
                }
            },
            Cell::new(word, tone),
        ]);
    }
    table
}

/// What a step must come after, as people count; nothing where the order needs no word, for each step comes after the one before it.
fn order_text(steps: &[v1::ReportStep], at: usize) -> Option<String> {
    let is_chain = steps.iter().enumerate().all(|(at, step)| {
        let before = at
            .checked_sub(1)
            .and_then(|before| u32::try_from(before).ok());
        step.after.iter().copied().eq(before)
    });
    let step = steps.get(at).filter(|step| !is_chain && !step.in_flight)?;
    Some(numbers(&step.after))
}

/// "at once", "after 2", "after 1, 3".
pub(crate) fn numbers(after: &[u32]) -> String {
    let places: Vec<String> = after.iter().map(|place| (place + 1).to_string()).collect();
    match places.is_empty() {
        true => "at once".to_owned(),
        false => format!("after {}", places.join(", ")),
    }
}

pub(crate) fn steps_table(report: &v1::Report, shown: &Shown) -> Table {
    let mut table = Table::new(["", "", "MUTATION", "CHANGES", "BY", ""]);
    for (at, step) in report.steps.iter().enumerate() {
        let current = report.current as usize;
        let (mark, tone) = match at.cmp(&current) {
            _ if step.in_flight => ("->", Tone::Bold),
            std::cmp::Ordering::Less => ("done", Tone::Dim),
            std::cmp::Ordering::Equal => ("->", Tone::Bold),
            std::cmp::Ordering::Greater => (" ", Tone::Plain),
        };
        let changes: Vec<String> = step
            .changes
            .iter()
            .map(|change| change_text(change, shown))
            .collect();
        table.row(vec![
            Cell::new(mark, tone),
            Cell::new((at + 1).to_string(), tone),
            Cell::new(step.mutation.as_str(), tone),
            Cell::new(changes.join(", "), tone),
            Cell::new(carried_out_by(step.context()), tone),
            Cell::new(step_note(step, order_text(&report.steps, at)), Tone::Warn),
        ]);
    }
    table
}

/// `/PhysState POWER_OFF|PHYS_HANG -> POWER_ON`.
pub(crate) fn change_text(change: &v1::UrlChange, shown: &Shown) -> String {
    let from: Vec<String> = change
        .from
        .iter()
        .map(|value| word(&change.url, Some(value), shown))
        .collect();
    let to = word(&change.url, change.to.as_ref(), shown);
    format!("{} {} -> {to}", change.url, from.join("|"))
}

/// A hold in one line.
pub(crate) fn hold_text(hold: &HoldView) -> String {
    format!("{}: {}", hold.kind, hold.text)
}

/// `/PhysState=POWER_ON`, `/power/driver=REDFISH|COMMAND`, `/host/cpus>=8`, `4<=/host/cpus<=8`.
pub(crate) fn condition_text(condition: &v1::UrlCondition, shown: &Shown) -> String {
    let any: Vec<String> = condition
        .any_of
        .iter()
        .map(|value| word(&condition.url, Some(value), shown))
        .collect();
    let url = &condition.url;
    let bound = |value: &Option<v1::Value>| {
        let value = value.as_ref()?;
        Some(shown.text(url, Some(value)))
    };
    match (bound(&condition.at_least), bound(&condition.at_most)) {
        (Some(least), Some(most)) => format!("{least}<={url}<={most}"),
        (Some(least), None) => format!("{url}>={least}"),
        (None, Some(most)) => format!("{url}<={most}"),
        (None, None) => format!("{url}={}", any.join("|")),
    }
}

fn word(url: &str, value: Option<&v1::OptionalValue>, shown: &Shown) -> String {
    match value.and_then(|value| value.value.as_ref()) {
        None => "unknown".to_owned(),
        value => shown.text(url, value),
    }
}

/// What a step that asks for the power state may find beside what the plan hopes for; finding it makes a new plan, and is no failure.
fn may_find(step: &v1::ReportStep) -> Option<String> {
    let [change] = &step.changes[..] else {
        return None;
    };
    let asks = matches!(&change.from[..], [from] if from.value.is_none());
    let hoped = change.to.as_ref()?.value.as_ref()?.kind.as_ref()?;
    let other = match hoped {
        v1::value::Kind::TextValue(text) if text == "POWER_OFF" => "POWER_ON",
        v1::value::Kind::TextValue(text) if text == "POWER_ON" => "POWER_OFF",
        _ => return None,
    };
    (asks && change.url == "/PhysState").then(|| format!("may instead find {}={other}", change.url))
}

fn step_note(step: &v1::ReportStep, order: Option<String>) -> String {
    let mut notes: Vec<String> = order.into_iter().collect();
    if step.in_flight {
        let elapsed = value::duration(Duration::from_millis(step.elapsed_ms));
        let mut note = format!("running for {elapsed}");
        if step.timeout_ms > 0 {
            let _ = write!(
                note,
                " of {}",
                value::duration(Duration::from_millis(step.timeout_ms))
            );
        }
        notes.push(note);
    }
    notes.extend(may_find(step));
    if step.disruptive {
        notes.push("disruptive".to_owned());
    }
    if notes.is_empty() {
        " ".to_owned()
    } else {
        notes.join(", ")
    }
}

fn line(out: &mut String, text: &str) {
    out.push_str(text.trim_end_matches(' '));
    out.push('\n');
}

fn indent(out: &mut String, text: &str) {
    for text in text.lines() {
        line(out, &format!("  {text}"));
    }
}

#[cfg(test)]
mod tests;
