//! `plan`: what nodes would do, by the head's own word (see `what_if`), or from files: `plan --offline`, without a head.
//!
//! Offline, the planner is the one that heads run (`engine::mutation`), and strict here: every mutated url with a value in the Cfg file is a goal. A live
//! node sets goals aside that exclude each other.

mod state_file;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use engine::extension::{Schema, nearest};
use engine::mutation::estimate::{Basis, Estimate};
use engine::mutation::file::load_dir;
use engine::mutation::graph::{GraphError, MutationGraph};
use engine::mutation::path::Plan;
use engine::mutation::report::ReportStep;
use engine::mutation::{MutationContext, UrlChange};
use engine::state::Values;
use proto::v1;
use proto::v1::plan_request::Write;
use serde::Serialize;

use crate::exit::{Exit, Failure};
use crate::explain::numbers;
use crate::node::set;
use crate::output::{Format, Paint, Table, Tone};
use crate::scenario::Scenarios;
use crate::{Context, complete, what_if, write};

/// Arguments of `plan`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
With URL=VALUE or --unset, the head answers what such a write would lead to: which values would change, and the mutations that each group \
of nodes would take, with what they cost and what would hold them. It checks as a real write is checked, and writes nothing. Without \
them it tells what the nodes are about to do. `krakenctl node set ... --dry-run` gives the same answer.

With --offline no head is asked. The state files are flat YAML maps from StateUrl to value, such as `/PhysState: POWER_OFF`. What is \
absent, null or a zero is unknown in Dsc and \"don't care\" in Cfg. What no module can report (`/Platform`) is taken from Cfg.

Exit codes: 0 nothing to do, 8 there is something, 1 there is no path, or all are parked, 3 so for some nodes (with --scenario: cases), 2 the input is not acceptable. \
With -o dot: 0.

Examples:
  krakenctl plan n[1-64] /PhysState=POWER_OFF
  krakenctl plan @rack1 /image/name=demo --unset /PhysState -o json
  krakenctl plan @*                                what everybody is about to do
  krakenctl plan --offline --mutations DIR --dsc dsc.yaml --cfg cfg.yaml
  krakenctl plan --offline --mutations DIR --dsc dsc.yaml --cfg cfg.yaml -o dot | dot -Tsvg > states.svg
  krakenctl plan --scenario power_off.txt      every case of a file, with the sets in the folder sets/ beside it")]
pub(crate) struct PlanArgs {
    /// Node set
    #[arg(add = complete::nodes(), required_unless_present_any = ["offline", "scenario"], conflicts_with = "offline")]
    nodes: Option<String>,
    /// What would be set
    #[arg(add = complete::assignments(), value_name = "URL=VALUE")]
    values: Vec<String>,
    /// What would be unset
    #[arg(long, value_name = "URL", add = complete::urls(), requires = "nodes")]
    unset: Vec<String>,
    /// Plan from files, without a head
    #[arg(long, requires_all = ["mutations", "dsc", "cfg"])]
    offline: bool,
    /// Directory of mutation files (*.toml)
    #[arg(long, value_name = "DIR", requires = "offline")]
    mutations: Option<PathBuf>,
    /// What the node is: a YAML file, or - for standard input
    #[arg(long, value_name = "FILE", requires = "offline")]
    dsc: Option<PathBuf>,
    /// What the node should be: a YAML file, or - for standard input
    #[arg(long, value_name = "FILE", requires = "offline")]
    cfg: Option<PathBuf>,
    /// Plan every case of a scenario file
    #[arg(long, value_name = "FILE", conflicts_with_all = ["nodes", "offline", "mutations", "dsc", "cfg", "output"])]
    scenario: Option<PathBuf>,
    /// How to print the plan
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    output: PlanFormat,
}

/// How a plan is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, clap::ValueEnum)]
enum PlanFormat {
    /// For people.
    #[default]
    Table,
    /// For programs.
    Json,
    /// For programs.
    Yaml,
    /// The steps alone, one a line; of a head: the nodes that would change, or are on their way.
    Name,
    /// The states that can be reached, for Graphviz; the path is bold (--offline).
    Dot,
}

/// A plan for JSON and YAML. Field names are an interface.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct PlanView {
    /// `converged`, `path` or `no_path`.
    outcome: &'static str,
    /// `module/NAME`, in order; empty without a path.
    steps: Vec<String>,
    /// For each step the indices of those that must be done before; others may run beside it.
    after: Vec<Vec<usize>>,
    /// Longest time that its steps may take together; null: some have no timeout, or there is none.
    at_most_ms: Option<u64>,
    /// How often power is cut, and switched on.
    power_offs: usize,
    power_ons: usize,
    /// Why there is no path; else empty.
    reason: String,
}

/// Plans and prints.
pub(crate) async fn run(args: PlanArgs, context: &Context) -> Result<Exit, Failure> {
    if let Some(file) = &args.scenario {
        return scenarios(&Scenarios::load(file)?, context);
    }
    match (&args.nodes, &args.mutations, &args.dsc, &args.cfg) {
        (None, Some(mutations), Some(dsc), Some(cfg)) => {
            offline((mutations, dsc, cfg), args.output, context)
        }
        (Some(nodes), ..) => live(nodes, &args, context).await,
        _ => Err(Failure::usage(
            "a node set is wanted, --offline with its files, or --scenario",
        )),
    }
}

/// Asks a head.
async fn live(nodes: &str, args: &PlanArgs, context: &Context) -> Result<Exit, Failure> {
    let nodes = write::node_set(nodes)?;
    let format = match args.output {
        PlanFormat::Table => Format::Table,
        PlanFormat::Json => Format::Json,
        PlanFormat::Yaml => Format::Yaml,
        PlanFormat::Name => Format::Name,
        PlanFormat::Dot => {
            return Err(Failure::usage(
                "-o dot draws plans from files: it needs --offline",
            ));
        }
    };
    let changes = set::changes(&args.values, &[], &args.unset, context)?;
    let request = if changes.is_empty() {
        v1::PlanRequest { nodes, write: None }
    } else {
        what_if::request(Write::Set(v1::SetNodesRequest {
            nodes,
            changes,
            ..v1::SetNodesRequest::default()
        }))
    };
    what_if::show(context, request, format).await
}

/// Plans from files.
fn offline(
    (mutations, dsc, cfg): (&Path, &Path, &Path),
    format: PlanFormat,
    context: &Context,
) -> Result<Exit, Failure> {
    let unacceptable = |error: &dyn std::fmt::Display| Failure::usage(error.to_string());
    let schema = Schema::built_in();
    let set = load_dir(mutations, &schema).map_err(|error| unacceptable(&error))?;
    let set = set.with_drain().with_reported(&schema);
    let graph = MutationGraph::new(&set).map_err(|error| unacceptable(&error))?;
    let dsc = state_file::read(dsc, &schema)?;
    let cfg = state_file::read(cfg, &schema)?;
    for note in doubts(&graph, &schema, &dsc, &cfg) {
        context.note(&format!("note: {note}"));
    }
    let plan = graph.plan(&dsc, &cfg);
    let (view, exit) = view(&graph, &plan);
    let screen = &context.screen;
    match format {
        PlanFormat::Table => {
            screen.print(&page(&graph, &plan, screen.paint))?;
        }
        PlanFormat::Json => screen.item(Format::Json, &view, String::new)?,
        PlanFormat::Yaml => screen.item(Format::Yaml, &view, String::new)?,
        PlanFormat::Name => screen.print(
            &view
                .steps
                .iter()
                .map(|step| format!("{step}\n"))
                .collect::<String>(),
        )?,
        PlanFormat::Dot => {
            let states = graph.states(&dsc, &cfg, &graph.strict_goal(&cfg));
            screen.print(&states.to_dot())?;
            return Ok(Exit::Ok);
        }
    }
    Ok(exit)
}

/// The plan with which each case of a scenario begins.
fn scenarios(scenarios: &Scenarios, context: &Context) -> Result<Exit, Failure> {
    let screen = &context.screen;
    let (mut stuck, mut going, mut all) = (0, 0, 0);
    for (case, set) in scenarios.cases() {
        let unacceptable = |error: GraphError| Failure::usage(error.to_string());
        let graph = case.graph(set).map_err(unacceptable)?;
        let mut result = Arc::new(case.plan(set).map_err(unacceptable)?);
        let mut text = format!("{}\n", screen.paint.text(&case.title, Tone::Bold));
        if let Some(later) = case.plan_after_job(set).map_err(unacceptable)? {
            text.push_str("held until the job ends that runs on the node; then:\n");
            result = later;
        }
        for (url, cause) in &result.suspended {
            text.push_str(&format!("{url} is set aside while Cfg wants {cause}\n"));
        }
        text.push_str(&page(&graph, &result.plan, screen.paint));
        text.push('\n');
        screen.print(&text)?;
        all += 1;
        match result.plan {
            Plan::Converged => {}
            Plan::Path(_) => going += 1,
            Plan::NoPath(_) => stuck += 1,
        }
    }
    Ok(match (stuck, going) {
        (0, 0) => Exit::Ok,
        (0, _) => Exit::Pending,
        (stuck, _) if stuck == all => Exit::Failure,
        _ => Exit::Partial,
    })
}

/// A plan as a page of text, ending in a newline.
fn page(graph: &MutationGraph, plan: &Plan, paint: Paint) -> String {
    match plan {
        Plan::Converged => "converged: nothing to do\n".to_owned(),
        Plan::Path(path) => {
            let table = steps(graph, plan).render(false, paint);
            let steps = path.steps.len();
            let s = if steps == 1 { "" } else { "s" };
            let takes = estimate(graph, plan);
            format!("{table}{steps} step{s}, cost {}; {takes}\n", path.cost)
        }
        Plan::NoPath(no_path) => format!("no path: {no_path}\n"),
    }
}

/// What it takes, by timeouts alone: nothing was measured here.
fn estimate(graph: &MutationGraph, plan: &Plan) -> Estimate {
    let after = graph.order(plan.steps());
    Estimate::of(&ReportStep::of_path(plan.steps(), &after, graph))
}

fn view(graph: &MutationGraph, plan: &Plan) -> (PlanView, Exit) {
    let (outcome, reason, exit) = match plan {
        Plan::Converged => ("converged", String::new(), Exit::Ok),
        Plan::Path(_) => ("path", String::new(), Exit::Pending),
        Plan::NoPath(no_path) => ("no_path", no_path.reason.clone(), Exit::Failure),
    };
    let steps = plan.steps().iter().map(ToString::to_string).collect();
    let estimate = estimate(graph, plan);
    let bounded = estimate.time.filter(|time| time.basis == Basis::AtMost);
    (
        PlanView {
            outcome,
            steps,
            after: graph.order(plan.steps()),
            at_most_ms: bounded.and_then(|time| u64::try_from(time.time.as_millis()).ok()),
            power_offs: estimate.power_offs,
            power_ons: estimate.power_ons,
            reason,
        },
        exit,
    )
}

/// The steps as a table.
fn steps(graph: &MutationGraph, plan: &Plan) -> Table {
    let mut table = Table::new(["STEP", "MUTATION", "BY", "CHANGES", "NOTE"]);
    let order = graph.order(plan.steps());
    let mut places = order.iter().enumerate();
    let is_chain = places.all(|(at, after)| after.iter().copied().eq(at.checked_sub(1)));
    for (index, mutation) in plan
        .steps()
        .iter()
        .filter_map(|step| graph.mutation(step))
        .enumerate()
    {
        let by = match mutation.context {
            MutationContext::SelfNode => "node",
            MutationContext::Child => "parent",
            MutationContext::All => "both",
        };
        let changes: Vec<String> = mutation.mutates.iter().map(change).collect();
        let mut notes = Vec::new();
        if let (false, Some(after)) = (is_chain, order.get(index)) {
            let places: Vec<u32> = after
                .iter()
                .filter_map(|at| u32::try_from(*at).ok())
                .collect();
            notes.push(numbers(&places));
        }
        if mutation.disruptive {
            notes.push("disruptive".to_owned());
        }
        table.row(vec![
            (index + 1).to_string().into(),
            mutation.id.to_string().into(),
            by.into(),
            changes.join(", ").into(),
            notes.join(", ").into(),
        ]);
    }
    table
}

fn change(change: &UrlChange) -> String {
    let value = |value: &Option<engine::state::Value>| {
        value
            .as_ref()
            .map_or("unknown".to_owned(), ToString::to_string)
    };
    let from: Vec<String> = change.from.iter().map(value).collect();
    format!("{} {} -> {}", change.url, from.join("|"), value(&change.to))
}

/// Urls in the state files that look like slips of the pen: nothing mentions them, but something mentions one that is much like them.
fn doubts(graph: &MutationGraph, schema: &Schema, dsc: &Values, cfg: &Values) -> Vec<String> {
    let set = graph.set();
    let mut known: Vec<&str> = schema.iter().map(|(pattern, _)| pattern).collect();
    for mutation in &set.mutations {
        known.extend(mutation.mutates.iter().map(|change| change.url.as_str()));
        known.extend(
            mutation
                .requires
                .iter()
                .map(|condition| condition.url.as_str()),
        );
        known.extend(
            mutation
                .excludes
                .iter()
                .map(|condition| condition.url.as_str()),
        );
    }
    let mut doubts = Vec::new();
    for (file, values) in [("Dsc", dsc), ("Cfg", cfg)] {
        for (url, _) in values.iter() {
            if known.contains(&url.as_str()) || schema.field(url).is_some() {
                continue;
            }
            if let Some(near) = nearest(url.as_str(), known.iter().copied()) {
                doubts.push(format!(
                    "no mutation mentions {url} of the {file} file; did you mean {near}?"
                ));
            }
        }
    }
    doubts
}

#[cfg(test)]
mod tests;
