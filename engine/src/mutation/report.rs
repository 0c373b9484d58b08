//! Why a node is where it is, as data and as text (DESIGN 3, "Explain").
//!
//! One value feeds command line, API and dashboard. [`Report::of_plan`] says what the planner knows; the engine adds what it is doing
//! about it: the step in flight, holds, failures.

use std::fmt;
use std::time::Duration;

use super::estimate::Estimate;
use super::graph::MutationGraph;
use super::measured::Measured;
use super::path::{Plan, PlanResult};
use super::{Mutation, MutationContext, MutationId, UrlChange};
use crate::state::{Change, NodeId, NodeName, StateUrl, Value, Values};

/// Where a node stands.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub enum Outcome {
    /// Cfg and Dsc agree.
    #[default]
    Converged,
    /// A path is being followed.
    Path,
    /// No sequence of mutations leads there.
    NoPath,
    /// A path is known, but the next step may not fire yet.
    Held,
    /// Attempts are used up.
    Parked,
}

/// Everything that explains one node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Report {
    /// Which node.
    pub node: NodeId,
    /// Its name.
    pub name: NodeName,
    /// Where it stands.
    pub outcome: Outcome,
    /// What is wanted: the Cfg values that some mutation can change, without those set aside.
    pub desired: Vec<Change>,
    /// What the same urls are, and those that the path touches; `None`: unknown.
    pub known: Vec<Change>,
    /// The path from here.
    pub steps: Vec<ReportStep>,
    /// Of a node that is to reboot: the way back, once `steps` have led it off.
    pub back: Vec<ReportStep>,
    /// Index into `steps` of the first that is not done; `steps.len()` when there is none. Others may be in flight beside it or before it.
    pub current: usize,
    /// What the node waits for, in words; may be empty.
    pub waits_for: String,
    /// What keeps the next step from firing.
    pub holds: Vec<Hold>,
    /// The latest failures, oldest first.
    pub failures: Vec<ReportFailure>,
    /// The latest attempts, failures among them, oldest first.
    pub history: Vec<ReportAttempt>,
    /// What Cfg wants although nothing that is declared can change it.
    pub out_of_reach: Vec<StateUrl>,
    /// Why there is no path, why the node is parked, what is set aside; may be empty.
    pub reason: String,
}

/// One mutation of a path.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReportStep {
    /// Which.
    pub mutation: MutationId,
    /// Who carries it out.
    pub context: MutationContext,
    /// It may end a running job.
    pub disruptive: bool,
    /// It was fired and has not ended.
    pub in_flight: bool,
    /// Number of the firing; 0 when not in flight.
    pub attempt: u64,
    /// Time since it was fired.
    pub elapsed: Duration,
    /// After which it counts as failed; `None`: never.
    pub timeout: Option<Duration>,
    /// How long it usually takes in this cluster; `None`: never measured.
    pub typical: Option<Duration>,
    /// What it changes.
    pub changes: Vec<UrlChange>,
    /// Indices of the steps that must be done before; steps of which none comes before the other may run side by side.
    pub after: Vec<usize>,
}

/// Something that keeps a mutation from firing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hold {
    /// A stable word: `frozen`, `busy`, `unconfirmed`, `silent`, `governor`, `breaker`, `mass_failure`, `other_nodes`, `backoff`, `module`.
    pub kind: &'static str,
    /// Why, in words.
    pub text: String,
    /// What lifts it: a command or an event.
    pub lifted_by: String,
}

/// A failed attempt.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReportFailure {
    /// What was tried.
    pub mutation: MutationId,
    /// Number of the firing.
    pub attempt: u64,
    /// What went wrong.
    pub text: String,
    /// How long ago.
    pub age: Duration,
}

/// An attempt that has ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReportAttempt {
    /// What was tried.
    pub mutation: MutationId,
    /// Number of the firing; 0 when somebody else carried it out.
    pub attempt: u64,
    /// A stable word: `done`, `failed`, `interrupted`.
    pub result: &'static str,
    /// Why it failed; else empty.
    pub text: String,
    /// How long ago it ended.
    pub age: Duration,
    /// How long it took.
    pub took: Duration,
}

impl Outcome {
    /// The word for it in every output.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Converged => "converged",
            Self::Path => "path",
            Self::NoPath => "no_path",
            Self::Held => "held",
            Self::Parked => "parked",
        }
    }
}

impl ReportStep {
    /// The steps of a path, of which `after` says what each must come after.
    pub fn of_path(path: &[MutationId], after: &[Vec<usize>], graph: &MutationGraph) -> Vec<Self> {
        let steps = path.iter().filter_map(|step| graph.mutation(step));
        let mut steps: Vec<Self> = steps.map(Self::new).collect();
        for (step, after) in steps.iter_mut().zip(after) {
            step.after.clone_from(after);
        }
        steps
    }

    /// The steps of a way that is not gone yet.
    pub fn of_way(way: &[MutationId], graph: &MutationGraph) -> Vec<Self> {
        Self::of_path(way, &graph.order(way), graph)
    }

    /// A step that has not been fired.
    pub fn new(mutation: &Mutation) -> Self {
        Self {
            mutation: mutation.id.clone(),
            context: mutation.context,
            disruptive: mutation.disruptive,
            in_flight: false,
            attempt: 0,
            elapsed: Duration::ZERO,
            timeout: mutation.timeout,
            typical: None,
            changes: mutation.mutates.clone(),
            after: Vec::new(),
        }
    }
}

impl Report {
    /// What a plan says of a node with these values.
    pub fn of_plan(
        node: NodeId,
        name: NodeName,
        plan: &PlanResult,
        graph: &MutationGraph,
        dsc: &Values,
    ) -> Self {
        let steps = ReportStep::of_path(plan.plan.steps(), &plan.after, graph);
        let touched = steps
            .iter()
            .flat_map(|step| step.changes.iter().map(|change| &change.url));
        let mut urls: Vec<&StateUrl> = plan
            .goal
            .iter()
            .map(|(url, _)| url)
            .chain(touched)
            .collect();
        urls.sort();
        urls.dedup();
        let known = urls.into_iter().map(|url| Change {
            url: url.clone(),
            value: dsc.get(url.as_str()).cloned(),
        });
        let (outcome, mut reason) = match &plan.plan {
            Plan::Converged => (Outcome::Converged, String::new()),
            Plan::Path(_) => (Outcome::Path, String::new()),
            Plan::NoPath(no_path) => (Outcome::NoPath, no_path.reason.clone()),
        };
        for (url, because) in &plan.suspended {
            if !reason.is_empty() {
                reason.push_str("; ");
            }
            let wanted = plan.goal.get(because.as_str());
            let holder =
                wanted.map_or_else(|| because.to_string(), |value| format!("{because}={value}"));
            reason.push_str(&format!(
                "Cfg {url} is set aside while Cfg wants {holder}, where it cannot be known"
            ));
        }
        Self {
            node,
            name,
            outcome,
            desired: plan.goal.to_changes(),
            known: known.collect(),
            current: 0,
            steps,
            back: Vec::new(),
            waits_for: String::new(),
            holds: Vec::new(),
            failures: Vec::new(),
            history: Vec::new(),
            out_of_reach: Vec::new(),
            reason,
        }
    }

    /// Adds to the reason.
    pub fn say(&mut self, text: &str) {
        if !self.reason.is_empty() {
            self.reason.push_str("; ");
        }
        self.reason.push_str(text);
    }

    /// Notes wanted values that the planner sets aside because nothing declared leads to them: the node is not what it should be.
    pub fn note_out_of_reach(&mut self, wanted: Vec<Change>, dsc: &Values) {
        if wanted.is_empty() {
            return;
        }
        if self.outcome == Outcome::Converged && self.back.is_empty() {
            self.outcome = Outcome::NoPath;
        }
        let urls: Vec<&str> = wanted.iter().map(|change| change.url.as_str()).collect();
        self.say(&format!("nothing that runs can change {}", urls.join(", ")));
        for change in wanted {
            self.known.push(Change {
                value: dsc.get(change.url.as_str()).cloned(),
                url: change.url.clone(),
            });
            self.out_of_reach.push(change.url.clone());
            self.desired.push(change);
        }
    }

    /// Puts those steps in front that are under way although the plan goes on from their result already.
    pub fn lead_with(&mut self, under_way: &[MutationId], graph: &MutationGraph) {
        let planned = |id: &&MutationId| self.steps.iter().any(|step| step.mutation == **id);
        let leading = under_way.iter().filter(|id| !planned(id));
        let leading = leading.filter_map(|id| graph.mutation(id));
        let leading: Vec<ReportStep> = leading.map(ReportStep::new).collect();
        if leading.is_empty() {
            return;
        }
        self.steps.splice(0..0, leading);
        self.outcome = Outcome::Path;
        let all: Vec<MutationId> = self
            .steps
            .iter()
            .map(|step| step.mutation.clone())
            .collect();
        for (step, after) in self.steps.iter_mut().zip(graph.order(&all)) {
            step.after = after;
        }
    }

    /// Notes how long the steps usually take.
    pub fn measure(&mut self, measured: &Measured) {
        for step in self.steps.iter_mut().chain(&mut self.back) {
            step.typical = measured.typical(&step.mutation);
        }
    }

    /// What the steps will take, with the way back.
    pub fn estimate(&self) -> Estimate {
        let off = self.steps.len();
        let mut all = self.steps.clone();
        all.extend(self.back.iter().cloned().map(|mut step| {
            step.after.iter_mut().for_each(|place| *place += off);
            step.after.extend(0..off);
            step
        }));
        Estimate::of(&all)
    }

    /// The way back in one line; empty where there is none.
    pub fn back_text(&self) -> String {
        let names: Vec<&str> = self
            .back
            .iter()
            .map(|step| step.mutation.as_str())
            .collect();
        names.join(", ")
    }

    fn headline(&self) -> String {
        let left = self.steps.len() - self.current.min(self.steps.len());
        match self.outcome {
            Outcome::Converged if !self.back.is_empty() => "is off for its reboot".to_owned(),
            Outcome::Converged => "is as it should be".to_owned(),
            Outcome::Path if left == 1 => "is on its way, one step left".to_owned(),
            Outcome::Path => format!("is on its way, {left} steps left"),
            Outcome::NoPath => "cannot get to what Cfg asks for".to_owned(),
            Outcome::Held => "is held before its next step".to_owned(),
            Outcome::Parked => "is parked: attempts are used up".to_owned(),
        }
    }
}

impl fmt::Display for Report {
    /// Lines for a terminal: a headline, what is wanted and known, the path, then what stands in its way.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} {}", self.name, self.headline())?;
        if !self.desired.is_empty() || !self.known.is_empty() {
            values(f, self)?;
        }
        let order = order(&self.steps);
        for (index, step) in self.steps.iter().enumerate() {
            let title = if index == 0 { "path" } else { "" };
            let mark = match () {
                () if step.in_flight => "now",
                () if index < self.current => "done",
                () if index == self.current || step.after.is_empty() => "next",
                () => "then",
            };
            write!(
                f,
                "  {title:<8}{mark:<5}{:<22} {}",
                step.mutation.as_str(),
                changes(&step.changes)
            )?;
            writeln!(f, "{}", remarks(step, order.get(index)))?;
        }
        line(f, "back", &self.back_text())?;
        line(f, "takes", &self.estimate().to_string())?;
        line(f, "waits", &self.waits_for)?;
        for hold in &self.holds {
            line(f, "held", &format!("{} [{}]", hold.text, hold.kind))?;
            line(f, "", &format!("until {}", hold.lifted_by))?;
        }
        for failure in &self.failures {
            let ago = time(failure.age);
            line(
                f,
                "failed",
                &format!(
                    "{} {ago} ago (attempt {}): {}",
                    failure.mutation, failure.attempt, failure.text
                ),
            )?;
        }
        line(f, "reason", &self.reason)
    }
}

fn line(f: &mut fmt::Formatter<'_>, title: &str, text: &str) -> fmt::Result {
    if text.is_empty() {
        Ok(())
    } else {
        writeln!(f, "  {title:<8}{text}")
    }
}

/// One line for each url: what it is, and what it should be where that differs.
fn values(f: &mut fmt::Formatter<'_>, report: &Report) -> fmt::Result {
    let mut urls: Vec<&StateUrl> = report
        .desired
        .iter()
        .chain(&report.known)
        .map(|change| &change.url)
        .collect();
    urls.sort();
    urls.dedup();
    let find = |list: &[Change], url: &StateUrl| {
        list.iter()
            .find(|change| change.url == *url)
            .and_then(|change| change.value.clone())
    };
    for (index, url) in urls.into_iter().enumerate() {
        let is = find(&report.known, url);
        let wanted = find(&report.desired, url);
        let title = if index == 0 { "state" } else { "" };
        write!(f, "  {title:<8}{url} is {}", shown(is.as_ref()))?;
        match wanted {
            Some(wanted) if is.as_ref() != Some(&wanted) => writeln!(f, ", should be {wanted}")?,
            Some(_) => writeln!(f, ", as it should be")?,
            None => writeln!(f)?,
        }
    }
    Ok(())
}

fn shown(value: Option<&Value>) -> String {
    value.map_or_else(|| "unknown".to_owned(), Value::to_string)
}

/// `/PhysState POWER_OFF -> POWER_ON`.
fn changes(changes: &[UrlChange]) -> String {
    let texts: Vec<String> = changes
        .iter()
        .map(|change| {
            let from: Vec<String> = change
                .from
                .iter()
                .map(|value| shown(value.as_ref()))
                .collect();
            format!(
                "{} {} -> {}",
                change.url,
                from.join("|"),
                shown(change.to.as_ref())
            )
        })
        .collect();
    texts.join(", ")
}

/// What each step must come after, in words; nothing where each comes after the one before it.
fn order(steps: &[ReportStep]) -> Vec<String> {
    let mut places = steps.iter().enumerate();
    if places.all(|(at, step)| step.after.iter().copied().eq(at.checked_sub(1))) {
        return Vec::new();
    }
    let after = |step: &ReportStep| {
        let names = step.after.iter().filter_map(|place| steps.get(*place));
        let names: Vec<&str> = names.map(|step| step.mutation.as_str()).collect();
        match names.is_empty() {
            true => "at once".to_owned(),
            false => format!("after {}", names.join(" and ")),
        }
    };
    steps.iter().map(after).collect()
}

fn remarks(step: &ReportStep, order: Option<&String>) -> String {
    let mut remarks = Vec::new();
    remarks.extend(order.filter(|_| !step.in_flight).cloned());
    if step.in_flight {
        let limit = step
            .timeout
            .map(|limit| format!(" of {}", time(limit)))
            .unwrap_or_default();
        remarks.push(format!("for {}{limit}", time(step.elapsed)));
    }
    if step.attempt > 0 {
        remarks.push(format!("attempt {}", step.attempt));
    }
    if step.context == MutationContext::SelfNode {
        remarks.push("by the node itself".to_owned());
    }
    if step.disruptive {
        remarks.push("disruptive".to_owned());
    }
    if remarks.is_empty() {
        String::new()
    } else {
        format!("  ({})", remarks.join(", "))
    }
}

/// A duration as people say it: `850 ms`, `12 s`, `3 min 20 s`, `2 h 5 min`.
pub(crate) fn time(duration: Duration) -> String {
    match duration.as_secs() {
        0 => format!("{} ms", duration.as_millis()),
        secs @ 1..=119 => format!("{secs} s"),
        secs @ 120..=7199 if secs % 60 == 0 => format!("{} min", secs / 60),
        secs @ 120..=7199 => format!("{} min {} s", secs / 60, secs % 60),
        secs => format!("{} h {} min", secs / 3600, secs % 3600 / 60),
    }
}

#[cfg(test)]
mod tests;
