//! `node explain`.

use std::path::PathBuf;

use engine::wire::convert::report_to_proto;
use proto::v1;

use crate::exit::{Exit, Failure};
use crate::explain::{self, ReportView};
use crate::output::{Cell, Format, Table};
use crate::scenario::{self, Scenarios};
use crate::{Context, complete, write};

/// Arguments of `node explain`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Shows what is wanted and known, the path of mutations with the step it is at, what the node waits for, what holds it and who \
can lift that, and the last failures.

Examples:
  krakenctl node explain n3
  krakenctl node explain @rack1 -o wide          one line a node
  krakenctl node explain n3 -o json | jq '.[0].steps'
  krakenctl node explain --scenario busy.txt     how each case of a scenario file ends, without a head")]
pub(crate) struct ExplainArgs {
    /// Node set
    #[arg(add = complete::nodes(), required_unless_present = "scenario")]
    nodes: Option<String>,
    /// Play every case of a scenario file, and explain its node at the end
    #[arg(long, value_name = "FILE", conflicts_with_all = ["nodes", "output"])]
    scenario: Option<PathBuf>,
    /// How to print it
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
}

pub(crate) async fn run(args: ExplainArgs, context: &Context) -> Result<Exit, Failure> {
    if let Some(file) = &args.scenario {
        return scenarios(&Scenarios::load(file)?, context);
    }
    let nodes = write::node_set(&args.nodes.unwrap_or_default())?;
    let mut head = context.head().await?;
    let request = v1::ExplainRequest {
        nodes: nodes.clone(),
    };
    let reports = head.explain(request).await?.into_inner().reports;
    if reports.is_empty() {
        return Err(
            Failure::new(Exit::NotFound, format!("no node is in {nodes}"))
                .hint("krakenctl node list shows all"),
        );
    }
    let shown = &context.shown;
    if args.output == Format::Table {
        let paint = context.screen.paint;
        let pages: Vec<String> = reports
            .iter()
            .map(|report| explain::render(report, shown, paint))
            .collect();
        context.screen.print(&pages.join("\n"))?;
        return Ok(Exit::Ok);
    }
    let views: Vec<ReportView> = reports
        .iter()
        .map(|report| ReportView::new(report, shown))
        .collect();
    context.screen.list(
        args.output,
        &views,
        |report| report.node.clone(),
        || table(&views),
    )?;
    Ok(Exit::Ok)
}

fn scenarios(scenarios: &Scenarios, context: &Context) -> Result<Exit, Failure> {
    let screen = &context.screen;
    for (case, set) in scenarios.cases() {
        let report = case
            .report(set)
            .map_err(|error| Failure::usage(error.to_string()))?;
        let page = match report {
            Some(report) => {
                explain::render(&report_to_proto(&report), &context.shown, screen.paint)
            }
            None => "the node is deleted\n".to_owned(),
        };
        let heading = scenario::heading(case, screen.paint);
        screen.print(&format!("{heading}{page}\n"))?;
    }
    Ok(Exit::Ok)
}

fn table(reports: &[ReportView]) -> Table {
    let mut table = Table::new(["NODE", "OUTCOME", "STEP", "OF", "WAITS FOR", "REASON"]);
    for report in reports {
        let holds: Vec<String> = report.holds.iter().map(explain::hold_text).collect();
        let reason = if report.reason.is_empty() {
            holds.join("; ")
        } else {
            report.reason.clone()
        };
        let steps = report.steps.len();
        let number = |n: usize| {
            if steps == 0 {
                Cell::default()
            } else {
                Cell::from(n.to_string())
            }
        };
        table.row(vec![
            report.node.as_str().into(),
            report.outcome.into(),
            number((report.current as usize + 1).min(steps)),
            number(steps),
            report.waits_for.as_str().into(),
            reason.into(),
        ]);
    }
    table
}
