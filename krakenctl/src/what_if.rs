//! A [`PlanResponse`](v1::PlanResponse) as people and programs read it: what a write would change and lead to. `plan` and every `--dry-run`
//! end here. Nothing is decided here: the head checked, planned and grouped.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::Duration;

use proto::v1;
use proto::v1::Outcome;
use proto::v1::plan_request::Write;
use serde::Serialize;

use crate::exit::{Exit, Failure};
use crate::explain::{self, StepView, TimeView};
use crate::output::{Cell, Format, Paint, Table, Tone, printable};
use crate::value::{self, Shown};
use crate::{Context, names, view};

/// Longest node set shown in a headline; a rack of odd names is longer than anybody reads.
const MAX_SHOWN: usize = 200;

/// A plan for JSON and YAML. Field names are an interface.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub(crate) struct WhatIfView {
    pub(crate) revision: u64,
    pub(crate) changes: Vec<DifferenceView>,
    /// Of a write on trial: what a confirmation lets stay.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    stays: Vec<DifferenceView>,
    /// When it is taken back otherwise, milliseconds since the Unix epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    trial_until_ms: Option<u64>,
    /// Holds that would be lifted.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    lifts: Vec<GroupHoldView>,
    pub(crate) groups: Vec<GroupView>,
}

/// One change that several nodes share. Field names are an interface.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub(crate) struct DifferenceView {
    /// Node set; empty: the cluster.
    pub(crate) nodes: String,
    pub(crate) count: u32,
    /// A url, or "node", "frozen", "parent", "group NAME", "label NAME".
    pub(crate) what: String,
    pub(crate) from: serde_json::Value,
    pub(crate) to: serde_json::Value,
}

/// Nodes that would do the same.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub(crate) struct GroupView {
    nodes: String,
    count: u32,
    outcome: &'static str,
    steps: Vec<StepView>,
    /// The way back of nodes that are to reboot.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    back: Vec<StepView>,
    holds: Vec<GroupHoldView>,
    interrupts: Vec<String>,
    reason: String,
    estimate: EstimateView,
}

#[derive(Clone, PartialEq, Debug, Serialize)]
struct GroupHoldView {
    kind: String,
    text: String,
    lifted_by: String,
    mutation: String,
    nodes: String,
    count: u32,
}

#[derive(Clone, PartialEq, Debug, Default, Serialize)]
struct EstimateView {
    reboots: u32,
    /// Nodes on which a job runs and whose plan has a disruptive step.
    busy: String,
    busy_count: u32,
    power_offs: u32,
    /// Of each node; null: there is nothing to do.
    time: Option<TimeView>,
    /// Of all nodes of the group.
    all: Option<TimeView>,
}

/// The question what a write would lead to.
pub(crate) fn request(write: Write) -> v1::PlanRequest {
    v1::PlanRequest {
        nodes: String::new(),
        write: Some(write),
    }
}

/// `--dry-run` of a write.
pub(crate) async fn of(context: &Context, write: Write, format: Format) -> Result<Exit, Failure> {
    show(context, request(write), format).await
}

/// Asks the head what a write would lead to, prints it, and says by the exit code what would happen.
pub(crate) async fn show(
    context: &Context,
    request: v1::PlanRequest,
    format: Format,
) -> Result<Exit, Failure> {
    crate::write::check_size(&request)?;
    let mut head = context.head().await?;
    let asked = request.write.clone();
    let response = head.plan(request).await?.into_inner();
    print(context, &response, format, asked.as_ref())?;
    Ok(exit(&response))
}

/// Whether its nodes would do something, in their present turn or after it.
fn moves(group: &v1::PlanGroup) -> bool {
    !is_stuck(group) && (!group.steps.is_empty() || !group.back.is_empty())
}

/// Whether its nodes have to do something, and cannot, or no longer try.
fn is_stuck(group: &v1::PlanGroup) -> bool {
    matches!(group.outcome(), Outcome::NoPath | Outcome::Parked)
}

/// Whether nothing would be written or lifted, and no trial would end.
fn says_nothing(response: &v1::PlanResponse) -> bool {
    response.changes.is_empty() && response.lifts.is_empty() && response.trial_until_ms == 0
}

/// 0: nothing would happen, 8: something would, 3 and 1: some or all that had to do something could not.
fn exit(response: &v1::PlanResponse) -> Exit {
    let stuck = |group: &&v1::PlanGroup| is_stuck(group);
    let moves = |group: &v1::PlanGroup| moves(group) || group.outcome() == Outcome::Path;
    let stuck_groups = response.groups.iter().filter(stuck).count();
    let others = response.groups.iter().filter(|group| !stuck(group));
    match (stuck_groups, others.clone().any(moves)) {
        (0, false) if says_nothing(response) => Exit::Ok,
        (0, _) => Exit::Pending,
        (_, true) => Exit::Partial,
        (n, false) if n < response.groups.len() => Exit::Partial,
        _ => Exit::Failure,
    }
}

fn print(
    context: &Context,
    response: &v1::PlanResponse,
    format: Format,
    asked: Option<&Write>,
) -> Result<(), Failure> {
    let (shown, screen) = (&context.shown, &context.screen);
    match format {
        Format::Table | Format::Wide => {
            screen.print(&page(response, shown, screen.paint))?;
            context.note(&closing(response, asked));
        }
        Format::Json | Format::Yaml => {
            let view = WhatIfView::new(response, shown);
            screen.item(format, &view, String::new)?;
        }
        Format::Csv => {
            let changes = [&response.changes[..], &response.stays].concat();
            let views: Vec<DifferenceView> = views(&changes, shown);
            screen.list(format, &views, |_| String::new(), || table(&changes, shown))?;
        }
        Format::Name => screen.list(format, &changed(response), Clone::clone, Table::default)?,
    }
    Ok(())
}

/// Names of the nodes that would change, or, where nothing is written, of those that are on their way.
fn changed(response: &v1::PlanResponse) -> Vec<String> {
    let changes = response.changes.iter().chain(&response.stays);
    let changes = changes.map(|change| &change.nodes);
    let moving = response.groups.iter().filter(|group| moves(group));
    let sets: Vec<&String> = match response.changes.is_empty() && response.stays.is_empty() {
        false => changes.collect(),
        true => moving.map(|group| &group.nodes).collect(),
    };
    let names = sets.into_iter().filter_map(|set| names::expand(set).ok());
    let mut names: Vec<String> = names.flatten().collect();
    names.sort_by(|a, b| (names::numbers_in(a), a).cmp(&(names::numbers_in(b), b)));
    names.dedup();
    names
}

impl WhatIfView {
    pub(crate) fn new(response: &v1::PlanResponse, shown: &Shown) -> Self {
        Self {
            revision: response.revision,
            changes: views(&response.changes, shown),
            stays: views(&response.stays, shown),
            trial_until_ms: (response.trial_until_ms != 0).then_some(response.trial_until_ms),
            lifts: response.lifts.iter().map(hold_view).collect(),
            groups: response
                .groups
                .iter()
                .map(|group| group_view(group, shown))
                .collect(),
        }
    }
}

/// Changes for programs.
pub(crate) fn views(changes: &[v1::Difference], shown: &Shown) -> Vec<DifferenceView> {
    let json = |what: &str, value: Option<&v1::Value>| {
        value.map_or(serde_json::Value::Null, |value| shown.json(what, value))
    };
    let view = |change: &v1::Difference| DifferenceView {
        nodes: change.nodes.clone(),
        count: change.count,
        what: change.what.clone(),
        from: json(&change.what, change.old.as_ref()),
        to: json(&change.what, change.new.as_ref()),
    };
    changes.iter().map(view).collect()
}

fn hold_view(held: &v1::GroupHold) -> GroupHoldView {
    let hold = held.hold.clone().unwrap_or_default();
    GroupHoldView {
        kind: hold.kind,
        text: hold.text,
        lifted_by: hold.lifted_by,
        mutation: held.mutation.clone(),
        nodes: held.nodes.clone(),
        count: held.count,
    }
}

fn group_view(group: &v1::PlanGroup, shown: &Shown) -> GroupView {
    let estimate = group.estimate.clone().unwrap_or_default();
    let each = estimate.each.clone().unwrap_or_default();
    GroupView {
        nodes: group.nodes.clone(),
        count: group.count,
        outcome: explain::outcome_word(group.outcome()),
        steps: group
            .steps
            .iter()
            .map(|step| explain::step_view(step, shown))
            .collect(),
        back: group
            .back
            .iter()
            .map(|step| explain::step_view(step, shown))
            .collect(),
        holds: group.holds.iter().map(hold_view).collect(),
        interrupts: group.interrupts.clone(),
        reason: group.reason.clone(),
        estimate: EstimateView {
            reboots: estimate.reboots,
            busy: estimate.busy,
            busy_count: estimate.busy_count,
            power_offs: each.power_offs,
            time: each.time.as_ref().map(TimeView::new),
            all: estimate.all.as_ref().map(TimeView::new),
        },
    }
}

/// Changes for people: one line each.
pub(crate) fn table(changes: &[v1::Difference], shown: &Shown) -> Table {
    let mut table = Table::new(["NODES", "WHAT", "FROM", "TO"]);
    for change in changes {
        table.row(row(change, shown).into_iter().map(Cell::from).collect());
    }
    table
}

/// Whose, what, from and to.
pub(crate) fn row(change: &v1::Difference, shown: &Shown) -> [String; 4] {
    let nodes = if change.nodes.is_empty() {
        "the cluster"
    } else {
        &change.nodes
    };
    let word = |value: Option<&v1::Value>| word(change, value, shown);
    let (from, to) = (word(change.old.as_ref()), word(change.new.as_ref()));
    [short(nodes), change.what.clone(), from, to]
}

fn word(change: &v1::Difference, value: Option<&v1::Value>, shown: &Shown) -> String {
    let has_text = ["/", "label ", "extension ", "parent"];
    if has_text.iter().any(|start| change.what.starts_with(start)) {
        return shown.text(&change.what, value);
    }
    if value.is_some() { "yes" } else { "no" }.to_owned()
}

/// A node set, cut where nobody reads on.
pub(crate) fn short(nodes: &str) -> String {
    if nodes.len() <= MAX_SHOWN {
        return printable(nodes);
    }
    let kept: String = nodes.chars().take(MAX_SHOWN).collect();
    printable(&kept) + "..."
}

/// Everything, for a terminal.
fn page(response: &v1::PlanResponse, shown: &Shown, paint: Paint) -> String {
    let mut out = String::new();
    if !response.changes.is_empty() {
        out += &table(&response.changes, shown).render(false, paint);
    }
    if !response.stays.is_empty() {
        out += &format!("{}\n", paint.text("would stay", Tone::Bold));
        let rows = table(&response.stays, shown).render(false, paint);
        rows.lines()
            .for_each(|row| line(&mut out, &format!("  {row}")));
    }
    for lifted in &response.lifts {
        let hold = lifted.hold.clone().unwrap_or_default();
        let who = match lifted.count {
            0 => "no node waits for it".to_owned(),
            1 => format!("{} waits for it", short(&lifted.nodes)),
            count => format!("{} ({count} nodes) wait for it", short(&lifted.nodes)),
        };
        let kind = paint.text(&printable(&hold.kind), Tone::Warn);
        let text = printable(&hold.text);
        line(&mut out, &format!("would lift {kind}: {text}; {who}"));
    }
    for group in &response.groups {
        if !out.is_empty() {
            out.push('\n');
        }
        group_page(&mut out, group, shown, paint);
    }
    out
}

fn group_page(out: &mut String, group: &v1::PlanGroup, shown: &Shown, paint: Paint) {
    let name = paint.text(&short(&group.nodes), Tone::Bold);
    let (headline, tone) = headline(group);
    let count = view::count(group.count as usize, "node");
    line(
        out,
        &format!("{name} ({count})  {}", paint.text(&headline, tone)),
    );
    if !group.steps.is_empty() {
        let report = v1::Report {
            steps: group.steps.clone(),
            ..v1::Report::default()
        };
        let steps = explain::steps_table(&report, shown).render(false, paint);
        steps
            .lines()
            .for_each(|step| line(out, &format!("  {step}")));
    }
    for (title, text) in [
        ("then back", explain::way(&group.back)),
        ("stops", group.interrupts.join(", ")),
        ("estimate", estimate(group)),
        ("reason", group.reason.clone()),
    ] {
        if !text.is_empty() {
            line(out, &format!("  {title:<10}{}", printable(&text)));
        }
    }
    for held in &group.holds {
        let Some(hold) = &held.hold else { continue };
        let who = if held.count == group.count {
            String::new()
        } else {
            format!("{}: ", short(&held.nodes))
        };
        let kind = paint.text(&printable(&hold.kind), Tone::Warn);
        line(
            out,
            &format!(
                "  {:<10}{kind}, before {}: {who}{}",
                "held",
                printable(&held.mutation),
                printable(&hold.text)
            ),
        );
        if !hold.lifted_by.is_empty() {
            line(
                out,
                &format!("  {:<10}lifted by: {}", "", printable(&hold.lifted_by)),
            );
        }
    }
}

fn headline(group: &v1::PlanGroup) -> (String, Tone) {
    match group.outcome() {
        Outcome::Converged if !group.back.is_empty() => {
            ("off already, and back from there".to_owned(), Tone::Warn)
        }
        Outcome::Converged => ("nothing to do".to_owned(), Tone::Good),
        Outcome::Path => (view::count(group.steps.len(), "step"), Tone::Warn),
        Outcome::Held => (
            format!(
                "{}, held before the first",
                view::count(group.steps.len(), "step")
            ),
            Tone::Warn,
        ),
        Outcome::NoPath => (
            "no path: nothing that is known leads there".to_owned(),
            Tone::Bad,
        ),
        Outcome::Parked => ("parked: attempts are used up".to_owned(), Tone::Bad),
        Outcome::Unspecified => (
            "this head's answer is newer than this krakenctl".to_owned(),
            Tone::Plain,
        ),
    }
}

/// What it costs, as far as the head can tell.
fn estimate(group: &v1::PlanGroup) -> String {
    let estimate = group.estimate.clone().unwrap_or_default();
    let mut parts = Vec::new();
    if let Some(each) = estimate.each.as_ref().filter(|each| !each.text.is_empty()) {
        parts.push(printable(&each.text));
        let one = each.time.as_ref().map_or(0, |time| time.ms);
        if let Some(all) = estimate.all.as_ref().filter(|all| all.ms > one) {
            parts.push(format!("all of them {}", printable(&all.text)));
        }
    }
    if estimate.busy_count > 0 {
        let mut text = String::new();
        let verb = if estimate.busy_count == 1 {
            "runs a job"
        } else {
            "run jobs"
        };
        let _ = write!(
            text,
            "{} {verb}: {}",
            view::count(estimate.busy_count as usize, "node"),
            short(&estimate.busy)
        );
        parts.push(text);
    }
    parts.join("; ")
}

/// How many of its nodes would not even begin: what holds them stands before the first step.
fn held_at_once(group: &v1::PlanGroup) -> usize {
    if group.outcome() == Outcome::Held {
        return group.count as usize;
    }
    let first = group.steps.iter().find(|step| !step.in_flight);
    let at_first = |held: &&v1::GroupHold| first.is_some_and(|step| step.mutation == held.mutation);
    let sets = group.holds.iter().filter(at_first);
    let names = sets.filter_map(|held| names::expand(&held.nodes).ok());
    names.flatten().collect::<BTreeSet<String>>().len()
}

/// What comes to standard error behind a page.
fn closing(response: &v1::PlanResponse, asked: Option<&Write>) -> String {
    let revision = response.revision;
    match asked {
        Some(Write::Lift(_)) if response.lifts.is_empty() => {
            return "there is nothing to lift".to_owned();
        }
        Some(Write::Confirm(_)) => {
            let left = response.trial_until_ms.saturating_sub(view::now_ms());
            let left = value::duration(Duration::from_secs(left.div_ceil(1000)));
            let what = match response.stays.is_empty() {
                false => format!("else it is taken back in {left}"),
                true => "nothing of it is as it was written: there is nothing to stay".to_owned(),
            };
            return format!("{what}; nothing was written (revision {revision})");
        }
        _ => {}
    }
    let moving = || response.groups.iter().filter(|group| moves(group));
    let count: usize = moving().map(|group| group.count as usize).sum();
    let held: usize = moving().map(held_at_once).sum();
    let mut moves = match count - held.min(count) {
        0 => "no mutation would fire".to_owned(),
        n => format!("{} would move", view::count(n, "node")),
    };
    if held > 0 {
        moves += &format!(", {} would be held", view::count(held, "node"));
    }
    for (outcome, are) in [
        (Outcome::Parked, ["is parked", "are parked"]),
        (Outcome::NoPath, ["has no path", "have no path"]),
    ] {
        let groups = response.groups.iter();
        let groups = groups.filter(|group| group.outcome() == outcome);
        let count: usize = groups.map(|group| group.count as usize).sum();
        if count > 0 {
            let are = are[usize::from(count > 1)];
            moves += &format!(", {} {are}", view::count(count, "node"));
        }
    }
    let changes = match (asked, response.changes.is_empty()) {
        (Some(Write::Lift(_)), _) => "nothing was lifted",
        (_, true) => "nothing is written",
        (_, false) => "nothing was written",
    };
    format!("{moves}; {changes} (revision {revision})")
}

fn line(out: &mut String, text: &str) {
    out.push_str(text.trim_end_matches(' '));
    out.push('\n');
}
