//! `mutation lint`: what is doubtful in the set of a head, or in files before a head reads them. The engine decides what that is (`engine::mutation::lint`).

use std::path::PathBuf;

use engine::extension::Schema;
use engine::mutation::MutationSet;
use engine::mutation::file::lint::Polled;
use engine::mutation::file::load_paths;
use engine::mutation::graph::MutationGraph;
use engine::mutation::lint::Severity;
use engine::wire::convert::mutation_set_from_proto;
use proto::v1;
use serde::Serialize;

use crate::exit::{Exit, Failure};
use crate::output::{Cell, Format, Table, Tone};
use crate::{Context, view};

/// Arguments of `mutation lint`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Exit codes: 0 no warning (notes do not count), 1 there are warnings, 2 the files cannot be used.

Examples:
  krakenctl mutation lint                                    of the running head
  krakenctl mutation lint --offline /var/lib/kraken/mutations
  krakenctl mutation lint --offline power.toml pxe.toml")]
pub(crate) struct LintArgs {
    /// Read files in place of asking the head
    #[arg(long, value_name = "DIR-or-FILE", num_args = 1..)]
    offline: Vec<PathBuf>,
    /// How to print them
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
}

/// A lint for JSON and YAML. Field names are an interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct LintView {
    /// `warn` or `note`.
    severity: &'static str,
    /// A word that stays the same over versions.
    kind: &'static str,
    text: String,
}

pub(super) async fn run(args: &LintArgs, context: &Context) -> Result<Exit, Failure> {
    let (set, polled) = match &args.offline[..] {
        [] => (of_head(context).await?, Polled::default()),
        paths => {
            let loaded = load_paths(paths, &Schema::built_in());
            let loaded = loaded.map_err(|error| Failure::usage(error.to_string()))?;
            (loaded.set, Polled::new(&loaded.programs))
        }
    };
    let graph = MutationGraph::new(&set).map_err(|error| Failure::usage(error.to_string()))?;
    let lints = polled.lint(&graph);
    let views: Vec<LintView> = lints
        .iter()
        .map(|lint| LintView {
            severity: lint.severity.word(),
            kind: lint.kind.word(),
            text: lint.text.clone(),
        })
        .collect();
    let name = |view: &LintView| view.kind.to_owned();
    context
        .screen
        .list(args.output, &views, name, || table(&views))?;
    let warnings = lints.iter().filter(|lint| lint.severity == Severity::Warn);
    let warnings = warnings.count();
    context.note(&format!(
        "{}, {}, {}",
        view::count(set.mutations.len(), "mutation"),
        view::count(warnings, "warning"),
        view::count(lints.len() - warnings, "note")
    ));
    Ok(if warnings == 0 {
        Exit::Ok
    } else {
        Exit::Failure
    })
}

async fn of_head(context: &Context) -> Result<MutationSet, Failure> {
    let mut head = context.head().await?;
    let set = head.list_mutations(v1::ListMutationsRequest {}).await?;
    mutation_set_from_proto(set.into_inner()).map_err(|error| {
        Failure::new(
            Exit::Failure,
            format!("the head's mutations cannot be read: {error}"),
        )
        .hint("is this krakenctl older than the head? see `krakenctl version`")
    })
}

fn table(views: &[LintView]) -> Table {
    let mut table = Table::new(["", "KIND", "WHAT AND WHAT TO DO"]);
    for view in views {
        let tone = match view.severity {
            "warn" => Tone::Warn,
            _ => Tone::Dim,
        };
        table.row(vec![
            Cell::new(view.severity, tone),
            view.kind.into(),
            view.text.as_str().into(),
        ]);
    }
    table
}
